//! Registers of a GICv3, by their names (Arm IHI 0069H).

/// Distributor, section 12.9.
pub mod gicd {
    pub const SIZE: u64 = 0x1_0000;

    pub const CTLR: u64 = 0x0000;
    pub const TYPER: u64 = 0x0004;
    pub const IIDR: u64 = 0x0008;
    pub const SETSPI_NSR: u64 = 0x0040;
    pub const CLRSPI_NSR: u64 = 0x0048;
    pub const IROUTER: u64 = 0x6000;

    /// CTLR fields as they are with one Security state.
    pub const CTLR_ENABLE_GRP0: u32 = 1 << 0;
    pub const CTLR_ENABLE_GRP1: u32 = 1 << 1;
    pub const CTLR_ARE: u32 = 1 << 4;
    pub const CTLR_DS: u32 = 1 << 6;

    /// TYPER: 288 INTIDs, 16 bits of INTID, A3V, and No1N as QEMU's board says (IROUTER.IRM works all the same).
    pub const TYPER_VALUE: u32 = 8 | 15 << 19 | 1 << 24 | 1 << 25;
    pub const TYPER_MBIS: u32 = 1 << 16;
    pub const TYPER_LPIS: u32 = 1 << 17;

    /// IROUTER: 1 of N.
    pub const IROUTER_IRM: u64 = 1 << 31;
    /// IROUTER: the affinity fields and IRM.
    pub const IROUTER_MASK: u64 = 0xff_80ff_ffff;
}

/// Redistributor: RD_base and SGI_base, sections 12.10 and 12.11.
pub mod gicr {
    pub const FRAME: u64 = 0x1_0000;
    /// RD_base and SGI_base.
    pub const SIZE: u64 = 0x2_0000;

    pub const CTLR: u64 = 0x0000;
    pub const IIDR: u64 = 0x0004;
    pub const TYPER: u64 = 0x0008;
    pub const TYPER_HIGH: u64 = 0x000c;
    pub const WAKER: u64 = 0x0014;
    pub const PROPBASER: u64 = 0x0070;
    pub const PROPBASER_HIGH: u64 = 0x0074;
    pub const PENDBASER: u64 = 0x0078;
    pub const PENDBASER_HIGH: u64 = 0x007c;

    pub const CTLR_ENABLE_LPIS: u32 = 1 << 0;
    /// Clearing EnableLPIs is supported.
    pub const CTLR_CES: u32 = 1 << 1;

    pub const TYPER_PLPIS: u32 = 1 << 0;
    pub const TYPER_LAST: u32 = 1 << 4;
    /// CommonLPIAff: those with the same Aff3 share the LPI configuration table.
    pub const TYPER_COMMON_LPI_AFF: u32 = 1 << 24;

    pub const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
    pub const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;

    /// OuterCache, Physical_Address, Shareability, InnerCache, IDbits.
    pub const PROPBASER_MASK: u64 = 0x070f_ffff_ffff_ff9f;
    pub const PROPBASER_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    pub const PROPBASER_ID_BITS: u64 = 0x1f;
    /// OuterCache, Physical_Address, Shareability, InnerCache.
    pub const PENDBASER_MASK: u64 = 0x070f_ffff_ffff_0f80;
    pub const PENDBASER_ADDRESS: u64 = 0x000f_ffff_ffff_0000;
    /// The pending table is zero: write-only.
    pub const PENDBASER_PTZ: u64 = 1 << 62;
}

/// ITS, section 12.19.
pub mod gits {
    pub const SIZE: u64 = 0x2_0000;

    pub const CTLR: u64 = 0x0000;
    pub const IIDR: u64 = 0x0004;
    pub const TYPER: u64 = 0x0008;
    pub const CBASER: u64 = 0x0080;
    pub const CWRITER: u64 = 0x0088;
    pub const CREADR: u64 = 0x0090;
    pub const BASER: u64 = 0x0100;
    /// In the second 64 KiB frame.
    pub const TRANSLATER: u64 = 0x1_0040;

    pub const CTLR_ENABLED: u32 = 1 << 0;
    pub const CTLR_QUIESCENT: u32 = 1 << 31;

    /// Physical LPIs, ITT entries of 12 bytes, EventIDs and DeviceIDs of 16 bits, PTA = 0, HCC = 0, ICIDs of 16 bits.
    pub const TYPER_VALUE: u64 =
        1 | (12 - 1) << 4 | (16 - 1) << 8 | (16 - 1) << 13 | (16 - 1) << 32 | 1 << 36;

    pub const CBASER_VALID: u64 = 1 << 63;
    /// Valid, InnerCache, OuterCache, Physical_Address, Shareability, Size.
    pub const CBASER_MASK: u64 = 0xb8ef_ffff_ffff_fcff;
    pub const CBASER_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// Offset of CWRITER and CREADR.
    pub const QUEUE_OFFSET: u64 = 0x000f_ffe0;
    pub const CWRITER_RETRY: u64 = 1;
    pub const CREADR_STALLED: u64 = 1;

    pub const BASER_VALID: u64 = 1 << 63;
    pub const BASER_INDIRECT: u64 = 1 << 62;
    /// Type (2 bits 58:56) and Entry_Size (52:48) are not writable.
    pub const BASER_WRITABLE: u64 = !(0x7 << 56 | 0x1f << 48);
    pub const BASER_DEVICES: u64 = 1 << 56 | (8 - 1) << 48;
    pub const BASER_COLLECTIONS: u64 = 4 << 56 | (8 - 1) << 48;
    /// Pages of 64 KiB at power-on.
    pub const BASER_RESET: u64 = 2 << 8;

    /// Command numbers, section 5.3.
    pub const MOVI: u8 = 0x01;
    pub const INT: u8 = 0x03;
    pub const CLEAR: u8 = 0x04;
    pub const SYNC: u8 = 0x05;
    pub const MAPD: u8 = 0x08;
    pub const MAPC: u8 = 0x09;
    pub const MAPTI: u8 = 0x0a;
    pub const MAPI: u8 = 0x0b;
    pub const INV: u8 = 0x0c;
    pub const INVALL: u8 = 0x0d;
    pub const MOVALL: u8 = 0x0e;
    pub const DISCARD: u8 = 0x0f;
}

/// CPU interface system registers, section 12.2.
pub mod icc {
    use crate::system_register;

    pub const PMR_EL1: u32 = system_register(3, 0, 4, 6, 0);
    pub const IAR0_EL1: u32 = system_register(3, 0, 12, 8, 0);
    pub const EOIR0_EL1: u32 = system_register(3, 0, 12, 8, 1);
    pub const HPPIR0_EL1: u32 = system_register(3, 0, 12, 8, 2);
    pub const BPR0_EL1: u32 = system_register(3, 0, 12, 8, 3);
    pub const AP0R0_EL1: u32 = system_register(3, 0, 12, 8, 4);
    pub const AP1R0_EL1: u32 = system_register(3, 0, 12, 9, 0);
    pub const DIR_EL1: u32 = system_register(3, 0, 12, 11, 1);
    pub const RPR_EL1: u32 = system_register(3, 0, 12, 11, 3);
    pub const SGI1R_EL1: u32 = system_register(3, 0, 12, 11, 5);
    pub const ASGI1R_EL1: u32 = system_register(3, 0, 12, 11, 6);
    pub const SGI0R_EL1: u32 = system_register(3, 0, 12, 11, 7);
    pub const IAR1_EL1: u32 = system_register(3, 0, 12, 12, 0);
    pub const EOIR1_EL1: u32 = system_register(3, 0, 12, 12, 1);
    pub const HPPIR1_EL1: u32 = system_register(3, 0, 12, 12, 2);
    pub const BPR1_EL1: u32 = system_register(3, 0, 12, 12, 3);
    pub const CTLR_EL1: u32 = system_register(3, 0, 12, 12, 4);
    pub const SRE_EL1: u32 = system_register(3, 0, 12, 12, 5);
    pub const IGRPEN0_EL1: u32 = system_register(3, 0, 12, 12, 6);
    pub const IGRPEN1_EL1: u32 = system_register(3, 0, 12, 12, 7);

    pub const CTLR_CBPR: u64 = 1 << 0;
    pub const CTLR_EOIMODE: u64 = 1 << 1;
    /// Five bits of priority, 24 bits of INTID, A3V.
    pub const CTLR_VALUE: u64 = (5 - 1) << 8 | 1 << 11 | 1 << 15;
    /// System registers only: SRE, DFB, DIB.
    pub const SRE_VALUE: u64 = 7;
    /// With five bits of priority.
    pub const MINIMUM_BPR0: u8 = 2;
    pub const MINIMUM_BPR1: u8 = 3;
}

/// The implemented bits of a priority.
pub const PRIORITY_MASK: u8 = 0xf8;
/// The first LPI.
pub const FIRST_LPI: u32 = 8192;
/// INTIDs have 16 bits.
pub const INTIDS: u32 = 1 << 16;

/// IIDR of all three, as QEMU's `virt` board shows it: implementer Arm.
pub const IIDR: u32 = 0x43b;

/// The identification registers at the end of a frame, by offset in it: PIDR4, PIDR0 (`part`), PIDR1, PIDR2
/// (architecture revision 3), CIDR0 to 3.
pub fn identification(offset: u64, part: u32) -> u32 {
    match offset {
        0xffd0 => 0x44,
        0xffe0 => part,
        0xffe4 => 0xb4,
        0xffe8 => 0x3b,
        0xfff0 => 0x0d,
        0xfff4 => 0xf0,
        0xfff8 => 0x05,
        0xfffc => 0xb1,
        _ => 0,
    }
}
