//! Width, alignment and straddling of register accesses, settled once.

use crate::Access;

/// A device whose registers are 32 bits wide at offsets that are multiples of four.
///
/// [`Registers::read_any`] and [`Registers::write_any`] make any access out of these: narrower reads take their part
/// of the register, narrower writes are refused or merged as the device says, wider ones are split.
pub trait Registers {
    /// The register at `offset` (a multiple of 4).
    fn read_register(&self, offset: u64, cpu: u32) -> u32;

    /// Writes the bits of `mask` of the register at `offset` (a multiple of 4); the other bits of `value` are zero.
    /// `mask` is all ones for a full write.
    fn write_register(&self, offset: u64, cpu: u32, value: u32, mask: u32);

    /// Any access, as `Mmio::read`.
    fn read_any(&self, access: Access) -> u64 {
        let mut value = 0;
        for (offset, shift, from, bits) in parts(access) {
            let register = self.read_register(offset, access.cpu);
            let part = u64::from(register >> from) & ((1u64 << bits) - 1);
            value |= part << shift;
        }
        value
    }

    /// Any access, as `Mmio::write`.
    fn write_any(&self, access: Access, value: u64) {
        for (offset, shift, from, bits) in parts(access) {
            let mask = (((1u64 << bits) - 1) << from) as u32;
            let part = ((value >> shift) << from) as u32 & mask;
            self.write_register(offset, access.cpu, part, mask);
        }
    }
}

/// The 32-bit registers an access touches: register offset, first bit of the access, first bit of the register, bits.
fn parts(access: Access) -> impl Iterator<Item = (u64, u32, u32, u32)> {
    let end = access.offset.saturating_add(u64::from(access.width));
    let mut at = access.offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let register = at & !3;
        let until = end.min(register.saturating_add(4));
        let part = (
            register,
            ((at - access.offset) * 8) as u32,
            ((at - register) * 8) as u32,
            ((until - at) * 8) as u32,
        );
        at = until;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    struct Two(RefCell<[u32; 2]>);

    impl Registers for Two {
        fn read_register(&self, offset: u64, _: u32) -> u32 {
            self.0.borrow()[(offset / 4) as usize]
        }

        fn write_register(&self, offset: u64, _: u32, value: u32, mask: u32) {
            let register = &mut self.0.borrow_mut()[(offset / 4) as usize];
            *register = *register & !mask | value;
        }
    }

    #[test]
    fn narrow_wide_and_straddling() {
        let two = Two(RefCell::new([0x3322_1100, 0x7766_5544]));
        assert_eq!(two.read_any(Access::new(0, 8)), 0x7766_5544_3322_1100);
        assert_eq!(two.read_any(Access::new(3, 2)), 0x4433);
        assert_eq!(two.read_any(Access::new(5, 1)), 0x55);
        two.write_any(Access::new(3, 2), 0xaabb);
        assert_eq!(*two.0.borrow(), [0xbb22_1100, 0x7766_55aa]);
        two.write_any(Access::new(0, 8), 1);
        assert_eq!(*two.0.borrow(), [1, 0]);
    }
}
