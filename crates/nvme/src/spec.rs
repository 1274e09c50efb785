//! Registers, commands and numbers of the specification.

/// Controller registers (NVMe 3.1).
pub mod register {
    pub const CAP: u64 = 0x00;
    pub const VS: u64 = 0x08;
    pub const INTMS: u64 = 0x0c;
    pub const INTMC: u64 = 0x10;
    pub const CC: u64 = 0x14;
    pub const CSTS: u64 = 0x1c;
    pub const AQA: u64 = 0x24;
    pub const ASQ: u64 = 0x28;
    pub const ACQ: u64 = 0x30;
    /// Submission Queue 0 Tail; then Completion Queue 0 Head, and so on, four bytes each.
    pub const DOORBELLS: u64 = 0x1000;
}

/// Version 1.4.0.
pub const VERSION: u32 = 0x0001_0400;
/// Entries of a queue at most.
pub const MAX_ENTRIES: u32 = 2048;
/// The largest CC.MPS: pages of 64 KiB.
pub const MAX_MPS: u32 = 4;
/// CAP: MQES, CQR, a time-out of 10 s, the NVM command set, MPSMAX.
pub const CAPABILITIES: u64 =
    (MAX_ENTRIES as u64 - 1) | 1 << 16 | 20 << 24 | 1 << 37 | (MAX_MPS as u64) << 52;

/// Controller Configuration (NVMe 3.1.5).
pub mod cc {
    pub const EN: u32 = 1;
    pub fn css(cc: u32) -> u32 {
        cc >> 4 & 7
    }
    pub fn mps(cc: u32) -> u32 {
        cc >> 7 & 15
    }
    pub fn ams(cc: u32) -> u32 {
        cc >> 11 & 7
    }
    pub fn shn(cc: u32) -> u32 {
        cc >> 14 & 3
    }
    pub fn iosqes(cc: u32) -> u32 {
        cc >> 16 & 15
    }
    pub fn iocqes(cc: u32) -> u32 {
        cc >> 20 & 15
    }
}

/// Controller Status (NVMe 3.1.6).
pub mod csts {
    pub const RDY: u32 = 1;
    pub const CFS: u32 = 1 << 1;
    pub const SHST: u32 = 3 << 2;
    pub const SHST_OCCURRING: u32 = 1 << 2;
    pub const SHST_COMPLETE: u32 = 2 << 2;
}

/// log2 of the bytes of a submission and a completion queue entry.
pub const SQE_SHIFT: u32 = 6;
pub const CQE_SHIFT: u32 = 4;

/// Admin commands (NVMe 5, figure 139).
pub mod admin {
    pub const DELETE_SQ: u8 = 0x00;
    pub const CREATE_SQ: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_CQ: u8 = 0x04;
    pub const CREATE_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
}

/// NVM commands (NVMe 6, figure 346).
pub mod nvm {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const COMPARE: u8 = 0x05;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
    /// Command dword 12: Force Unit Access.
    pub const FUA: u32 = 1 << 30;
    /// Command dword 12 of Write Zeroes: Deallocate.
    pub const DEAC: u32 = 1 << 25;
    /// Command dword 11 of Dataset Management: Attribute – Deallocate.
    pub const AD: u32 = 1 << 2;
}

/// What Identify gives (NVMe 5.15.1).
pub mod cns {
    pub const NAMESPACE: u8 = 0x00;
    pub const CONTROLLER: u8 = 0x01;
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
}

/// Feature identifiers (NVMe 5.21.1).
pub mod feature {
    pub const ARBITRATION: u8 = 0x01;
    pub const POWER_MANAGEMENT: u8 = 0x02;
    pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
    pub const ERROR_RECOVERY: u8 = 0x05;
    pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
    pub const NUMBER_OF_QUEUES: u8 = 0x07;
    pub const INTERRUPT_COALESCING: u8 = 0x08;
    pub const INTERRUPT_VECTOR: u8 = 0x09;
    pub const WRITE_ATOMICITY: u8 = 0x0a;
    pub const ASYNC_EVENTS: u8 = 0x0b;
}

/// Log page identifiers (NVMe 5.14.1).
pub mod log {
    pub const ERRORS: u8 = 0x01;
    pub const SMART: u8 = 0x02;
    pub const FIRMWARE_SLOT: u8 = 0x03;
    pub const COMMAND_EFFECTS: u8 = 0x05;
}

/// A status: SC in bits 7:0, SCT in bits 10:8, as in the completion's Status Field (NVMe 4.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    pub const SUCCESS: Status = Status(0x000);
    pub const INVALID_OPCODE: Status = Status(0x001);
    pub const INVALID_FIELD: Status = Status(0x002);
    pub const DATA_TRANSFER_ERROR: Status = Status(0x004);
    pub const INVALID_NAMESPACE: Status = Status(0x00b);
    pub const COMMAND_SEQUENCE_ERROR: Status = Status(0x00c);
    pub const INVALID_PRP_OFFSET: Status = Status(0x013);
    pub const WRITE_PROTECTED: Status = Status(0x020);
    pub const LBA_OUT_OF_RANGE: Status = Status(0x080);
    pub const CQ_INVALID: Status = Status(0x100);
    pub const INVALID_QUEUE_ID: Status = Status(0x101);
    pub const INVALID_QUEUE_SIZE: Status = Status(0x102);
    pub const AER_LIMIT_EXCEEDED: Status = Status(0x105);
    pub const INVALID_INTERRUPT_VECTOR: Status = Status(0x108);
    pub const INVALID_LOG_PAGE: Status = Status(0x109);
    pub const INVALID_QUEUE_DELETION: Status = Status(0x10c);
    pub const FEATURE_NOT_SAVEABLE: Status = Status(0x10d);
    pub const WRITE_FAULT: Status = Status(0x280);
    pub const UNRECOVERED_READ_ERROR: Status = Status(0x281);
    pub const COMPARE_FAILURE: Status = Status(0x285);

    /// The Status Field: with Do Not Retry on what would fail again.
    pub fn field(self) -> u16 {
        let media_or_transfer = self.0 >> 8 == 2 || self == Status::DATA_TRANSFER_ERROR;
        let retry = self == Status::SUCCESS || media_or_transfer && self != Status::COMPARE_FAILURE;
        if retry { self.0 } else { self.0 | 1 << 14 }
    }
}

/// The only namespace.
pub const NAMESPACE: u32 = 1;
/// Stands for all namespaces.
pub const ALL_NAMESPACES: u32 = 0xffff_ffff;
/// log2 of the largest transfer in pages of 4 KiB: 512 KiB.
pub const MDTS: u8 = 7;
/// Bytes of the largest transfer.
pub const MAX_TRANSFER: u64 = 4096 << MDTS;
/// Asynchronous Event Requests that may wait.
pub const MAX_EVENT_REQUESTS: usize = 4;
/// Entries of the error log.
pub const ERROR_ENTRIES: usize = 16;
/// Temperature of the drive, and where it would be too hot: 50 °C, 70 °C, 100 °C, in kelvin.
pub const TEMPERATURE: u16 = 323;
pub const WARNING_TEMPERATURE: u16 = 343;
pub const CRITICAL_TEMPERATURE: u16 = 373;
