//! Registers of a GICv2, by their names (Arm IHI 0048B).

/// Distributor, section 4.3.
pub mod gicd {
    pub const SIZE: u64 = 0x1_0000;

    pub const CTLR: u64 = 0x000;
    pub const TYPER: u64 = 0x004;
    pub const IIDR: u64 = 0x008;
    pub const ITARGETSR: u64 = 0x800;
    pub const ITARGETSR_END: u64 = 0xc00;
    pub const SGIR: u64 = 0xf00;
    pub const CPENDSGIR: u64 = 0xf10;
    pub const SPENDSGIR: u64 = 0xf20;
    pub const SPENDSGIR_END: u64 = 0xf30;

    pub const CTLR_ENABLE_GRP0: u32 = 1 << 0;
    pub const CTLR_ENABLE_GRP1: u32 = 1 << 1;
    /// 288 INTIDs; the number of processors minus one is at bit 5.
    pub const TYPER_VALUE: u32 = 8;
    /// As QEMU's `virt` board shows it: implementer Arm.
    pub const IIDR_VALUE: u32 = 0x43b;

    /// PIDR4, PIDR0 to 3, CIDR0 to 3, as QEMU's board shows them.
    pub fn identification(offset: u64) -> u32 {
        match offset {
            0xfd0 => 0x04,
            0xfe0 => 0x90,
            0xfe4 => 0xb4,
            0xfe8 => 0x2b,
            0xff0 => 0x0d,
            0xff4 => 0xf0,
            0xff8 => 0x05,
            0xffc => 0xb1,
            _ => 0,
        }
    }
}

/// CPU interface, section 4.4.
pub mod gicc {
    pub const SIZE: u64 = 0x1_0000;

    pub const CTLR: u64 = 0x0000;
    pub const PMR: u64 = 0x0004;
    pub const BPR: u64 = 0x0008;
    pub const IAR: u64 = 0x000c;
    pub const EOIR: u64 = 0x0010;
    pub const RPR: u64 = 0x0014;
    pub const HPPIR: u64 = 0x0018;
    pub const ABPR: u64 = 0x001c;
    pub const AIAR: u64 = 0x0020;
    pub const AEOIR: u64 = 0x0024;
    pub const AHPPIR: u64 = 0x0028;
    pub const APR: u64 = 0x00d0;
    pub const NSAPR: u64 = 0x00e0;
    pub const NSAPR_END: u64 = 0x00f0;
    pub const IIDR: u64 = 0x00fc;
    pub const DIR: u64 = 0x1000;

    pub const CTLR_ENABLE_GRP0: u32 = 1 << 0;
    pub const CTLR_ENABLE_GRP1: u32 = 1 << 1;
    pub const CTLR_ACK_CTL: u32 = 1 << 2;
    pub const CTLR_FIQ_EN: u32 = 1 << 3;
    pub const CTLR_CBPR: u32 = 1 << 4;
    pub const CTLR_EOIMODE: u32 = 1 << 9;
    pub const CTLR_WRITABLE: u32 = 0x21f;
    /// GICv2, implementer Arm.
    pub const IIDR_VALUE: u32 = 0x2_043b;
    /// Group 1's binary point is one more than group 0's.
    pub const MINIMUM_ABPR: u8 = 1;
}

/// At most so many processors.
pub const MAXIMUM_CPUS: usize = 8;
/// "The pending interrupt is of group 1", section 3.2.5 (table 3-1).
pub const GROUP1_PENDING: u32 = 1022;
