//! Transfer request blocks (6.4).

use device::{Dma, DmaError};
use serde::{Deserialize, Serialize};

/// TRB types, table 6-91.
pub mod kind {
    pub const NORMAL: u8 = 1;
    pub const SETUP_STAGE: u8 = 2;
    pub const DATA_STAGE: u8 = 3;
    pub const STATUS_STAGE: u8 = 4;
    pub const ISOCH: u8 = 5;
    pub const LINK: u8 = 6;
    pub const EVENT_DATA: u8 = 7;
    pub const NO_OP: u8 = 8;
    pub const ENABLE_SLOT: u8 = 9;
    pub const DISABLE_SLOT: u8 = 10;
    pub const ADDRESS_DEVICE: u8 = 11;
    pub const CONFIGURE_ENDPOINT: u8 = 12;
    pub const EVALUATE_CONTEXT: u8 = 13;
    pub const RESET_ENDPOINT: u8 = 14;
    pub const STOP_ENDPOINT: u8 = 15;
    pub const SET_TR_DEQUEUE_POINTER: u8 = 16;
    pub const RESET_DEVICE: u8 = 17;
    pub const GET_PORT_BANDWIDTH: u8 = 21;
    pub const NO_OP_COMMAND: u8 = 23;
    pub const TRANSFER_EVENT: u8 = 32;
    pub const COMMAND_COMPLETION_EVENT: u8 = 33;
    pub const PORT_STATUS_CHANGE_EVENT: u8 = 34;
    pub const MFINDEX_WRAP_EVENT: u8 = 39;
}

/// Completion codes, table 6-90.
pub mod code {
    pub const SUCCESS: u8 = 1;
    pub const USB_TRANSACTION_ERROR: u8 = 4;
    pub const TRB_ERROR: u8 = 5;
    pub const STALL_ERROR: u8 = 6;
    pub const NO_SLOTS_AVAILABLE: u8 = 9;
    pub const SLOT_NOT_ENABLED: u8 = 11;
    pub const SHORT_PACKET: u8 = 13;
    pub const RING_UNDERRUN: u8 = 14;
    pub const RING_OVERRUN: u8 = 15;
    pub const PARAMETER_ERROR: u8 = 17;
    pub const CONTEXT_STATE_ERROR: u8 = 19;
    pub const COMMAND_RING_STOPPED: u8 = 24;
    pub const STOPPED: u8 = 26;
}

/// Bits of a TRB's last word.
pub mod bit {
    pub const CYCLE: u32 = 1 << 0;
    /// Link: toggle cycle. Event Data, Normal: evaluate next TRB (a hint).
    pub const TC: u32 = 1 << 1;
    pub const ISP: u32 = 1 << 2;
    /// Transfer events: the parameter is Event Data.
    pub const ED: u32 = 1 << 2;
    pub const CHAIN: u32 = 1 << 4;
    pub const IOC: u32 = 1 << 5;
    pub const IDT: u32 = 1 << 6;
    /// Address Device: block SET_ADDRESS. Configure Endpoint: deconfigure. Normal: block event interrupt.
    pub const BIT_9: u32 = 1 << 9;
    /// Isoch: start as soon as possible.
    pub const SIA: u32 = 1 << 31;
}

/// A transfer request block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trb {
    pub parameter: u64,
    pub status: u32,
    pub control: u32,
}

/// Bytes of one.
pub const SIZE: u64 = 16;

impl Trb {
    /// Reads the one at `address`: its cycle bit first, so that the rest is no older.
    pub fn read(dma: &Dma, address: u64) -> Result<Trb, DmaError> {
        let control = dma.read_u32(address.wrapping_add(12))?;
        Ok(Trb {
            parameter: dma.read_u64(address)?,
            status: dma.read_u32(address.wrapping_add(8))?,
            control,
        })
    }

    /// Writes it to `address`: its cycle bit last.
    pub fn write(&self, dma: &Dma, address: u64) -> Result<(), DmaError> {
        dma.write_u64(address, self.parameter)?;
        dma.write_u32(address.wrapping_add(8), self.status)?;
        dma.write_u32(address.wrapping_add(12), self.control)
    }

    pub fn kind(&self) -> u8 {
        (self.control >> 10 & 0x3f) as u8
    }

    pub fn has(&self, bits: u32) -> bool {
        self.control & bits != 0
    }

    /// Commands: the slot they are about.
    pub fn slot(&self) -> u8 {
        (self.control >> 24) as u8
    }

    /// Commands: the endpoint they are about, a device context index.
    pub fn endpoint(&self) -> u8 {
        (self.control >> 16 & 0x1f) as u8
    }

    /// Transfers: bytes.
    pub fn length(&self) -> u32 {
        self.status & 0x1_ffff
    }

    /// Transfers: who is told.
    pub fn interrupter(&self) -> usize {
        (self.status >> 22) as usize
    }

    /// Whether its event interrupts nobody.
    pub fn blocks_interrupt(&self) -> bool {
        matches!(self.kind(), kind::NORMAL | kind::ISOCH | kind::EVENT_DATA) && self.has(bit::BIT_9)
    }
}

/// Where an event begins: the last word of it.
pub fn event(kind: u8, slot: u8, endpoint: u8) -> u32 {
    u32::from(slot) << 24 | u32::from(endpoint) << 16 | u32::from(kind) << 10
}
