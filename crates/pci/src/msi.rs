//! MSI: its messages, out of the capability's registers (PCI 6.8.1).

use crate::registers::*;

/// The MSI capability of a configuration space.
pub(crate) struct MsiCapability<'a> {
    bytes: &'a mut [u8],
}

impl<'a> MsiCapability<'a> {
    /// `space` is all of configuration space; the capability is at `offset`.
    pub fn new(space: &'a mut [u8], offset: u16) -> Self {
        MsiCapability {
            bytes: &mut space[offset as usize..][..24],
        }
    }

    fn word(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.bytes[offset as usize..][..4]);
        u32::from_le_bytes(bytes)
    }

    fn set_pending(&mut self, value: u32) {
        self.bytes[MSI_PENDING as usize..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn control(&self) -> u16 {
        u16::from_le_bytes([
            self.bytes[MSI_CONTROL as usize],
            self.bytes[MSI_CONTROL as usize + 1],
        ])
    }

    pub fn enabled(&self) -> bool {
        self.control() & MSI_ENABLE != 0
    }

    /// log2 of the number of messages that software granted, at most what was asked for.
    fn granted(&self) -> u32 {
        let control = self.control();
        u32::from((control >> 4 & 7).min(control >> 1 & 7))
    }

    /// Vectors beyond what was granted share the last one.
    pub fn request(&mut self, vector: u16) {
        let last = (1u32 << self.granted()) - 1;
        let pending = self.word(MSI_PENDING) | 1 << u32::from(vector).min(last);
        self.set_pending(pending);
    }

    pub fn forget(&mut self) {
        self.set_pending(0);
    }

    /// Takes the message of some vector that is pending and not masked: address and data.
    pub fn take_message(&mut self) -> Option<(u64, u32)> {
        let pending = self.word(MSI_PENDING);
        let ready = pending & !self.word(MSI_MASK);
        if ready == 0 {
            return None;
        }
        let vector = ready.trailing_zeros();
        self.set_pending(pending & !(1 << vector));
        let low_bits = (1u32 << self.granted()) - 1;
        let data = self.word(MSI_DATA) & 0xffff & !low_bits | vector & low_bits;
        let address =
            u64::from(self.word(MSI_UPPER_ADDRESS)) << 32 | u64::from(self.word(MSI_ADDRESS));
        Some((address, data))
    }
}
