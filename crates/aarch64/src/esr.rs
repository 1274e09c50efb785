//! Exception syndromes: ESR_ELx (DDI 0487, D17.2.37).

/// Exception classes, ESR_ELx.EC.
pub mod class {
    pub const UNKNOWN: u32 = 0x00;
    /// Trapped WFI or WFE.
    pub const WFX: u32 = 0x01;
    /// Access to FP or Advanced SIMD, trapped by CPACR_EL1.FPEN.
    pub const FP: u32 = 0x07;
    pub const ILLEGAL_STATE: u32 = 0x0e;
    pub const SVC: u32 = 0x15;
    /// Trapped MSR, MRS or system instruction.
    pub const SYSTEM: u32 = 0x18;
    pub const INSTRUCTION_ABORT_LOWER: u32 = 0x20;
    pub const INSTRUCTION_ABORT: u32 = 0x21;
    pub const PC_ALIGNMENT: u32 = 0x22;
    pub const DATA_ABORT_LOWER: u32 = 0x24;
    pub const DATA_ABORT: u32 = 0x25;
    pub const SP_ALIGNMENT: u32 = 0x26;
    pub const SERROR: u32 = 0x2f;
    pub const BREAKPOINT_LOWER: u32 = 0x30;
    pub const BREAKPOINT: u32 = 0x31;
    pub const STEP_LOWER: u32 = 0x32;
    pub const STEP: u32 = 0x33;
    pub const WATCHPOINT_LOWER: u32 = 0x34;
    pub const WATCHPOINT: u32 = 0x35;
    pub const BRK: u32 = 0x3c;
}

/// IL: the instruction was 32 bits long.
pub const IL: u64 = 1 << 25;

/// ESR_ELx of a class and its specific syndrome, with IL set.
pub const fn syndrome(class: u32, iss: u32) -> u64 {
    (class as u64) << 26 | IL | (iss & 0x01ff_ffff) as u64
}

/// Fault status codes: DFSC and IFSC. Those with a level take it in bits 1:0.
pub mod status {
    pub const ADDRESS_SIZE: u32 = 0b00_0000;
    pub const TRANSLATION: u32 = 0b00_0100;
    pub const ACCESS_FLAG: u32 = 0b00_1000;
    pub const PERMISSION: u32 = 0b00_1100;
    /// Synchronous external abort, not on a walk.
    pub const EXTERNAL: u32 = 0b01_0000;
    /// Synchronous external abort on a walk, with the level.
    pub const EXTERNAL_ON_WALK: u32 = 0b01_0100;
    pub const ALIGNMENT: u32 = 0b10_0001;
    pub const TLB_CONFLICT: u32 = 0b11_0000;
    /// Unsupported atomic hardware update.
    pub const ATOMIC_UPDATE: u32 = 0b11_0001;
    /// Exclusive or atomic access to memory that does not support it.
    pub const UNSUPPORTED_ATOMIC: u32 = 0b11_0101;
    pub const DEBUG: u32 = 0b10_0010;
}

/// ISS fields of aborts.
pub mod abort {
    /// WnR: a write.
    pub const WRITE: u32 = 1 << 6;
    /// CM: a cache maintenance or address translation instruction.
    pub const CACHE_MAINTENANCE: u32 = 1 << 8;
    /// FnV: FAR is not valid.
    pub const FAR_NOT_VALID: u32 = 1 << 10;
}

/// ISS of a trapped MSR (`read` false), MRS or system instruction of register `encoding` (see [`crate::registers`]).
pub const fn system_iss(encoding: u16, rt: u32, read: bool) -> u32 {
    let op0 = (encoding >> 14) as u32 & 3;
    let op1 = (encoding >> 11) as u32 & 7;
    let crn = (encoding >> 7) as u32 & 15;
    let crm = (encoding >> 3) as u32 & 15;
    let op2 = encoding as u32 & 7;
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | (rt & 31) << 5 | crm << 1 | read as u32
}
