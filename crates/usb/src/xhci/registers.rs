//! The register file (eXtensible Host Controller Interface for USB, revision 1.2, chapter 5).

/// BAR 0.
pub const SIZE: u64 = 0x4000;
/// Where the parts of it are. The MSI-X table and pending bits lie past the doorbells.
pub const OPERATIONAL: u64 = 0x40;
pub const PORTS: u64 = OPERATIONAL + 0x400;
pub const RUNTIME: u64 = 0x1000;
pub const INTERRUPTERS_AT: u64 = RUNTIME + 0x20;
pub const DOORBELLS: u64 = 0x2000;
pub const MSIX_TABLE: u32 = 0x3000;
pub const MSIX_PBA: u32 = 0x3800;
/// Bytes of one port's and of one interrupter's registers.
pub const PORT_STRIDE: u64 = 0x10;
pub const INTERRUPTER_STRIDE: u64 = 0x20;

/// Device slots.
pub const SLOTS: usize = 64;
/// Interrupters, one MSI-X vector each.
pub const INTERRUPTERS: usize = 16;

/// Capability registers, 5.3.
pub mod capability {
    /// CAPLENGTH and HCIVERSION.
    pub const CAPLENGTH: u64 = 0x00;
    pub const HCSPARAMS1: u64 = 0x04;
    pub const HCSPARAMS2: u64 = 0x08;
    pub const HCSPARAMS3: u64 = 0x0c;
    pub const HCCPARAMS1: u64 = 0x10;
    pub const DBOFF: u64 = 0x14;
    pub const RTSOFF: u64 = 0x18;
    pub const HCCPARAMS2: u64 = 0x1c;
    /// The extended capabilities: Supported Protocol for USB 2 and USB 3, 7.2.
    pub const EXTENDED: u64 = 0x20;

    /// Revision 1.1.
    pub const VERSION: u32 = 0x0110;
    /// HCSPARAMS2: Isochronous Scheduling Threshold of one frame; 2^4 event ring segments.
    pub const PARAMS2: u32 = 0x4 << 4 | 0x9;
    /// HCCPARAMS1: 64-bit addresses, port power control, extended capabilities. Contexts are 32 bytes, no streams.
    pub const PARAMS1: u32 = 1 | 1 << 3 | (EXTENDED as u32 / 4) << 16;
}

/// Operational registers, 5.4; relative to [`OPERATIONAL`].
pub mod operational {
    pub const USBCMD: u64 = 0x00;
    pub const USBSTS: u64 = 0x04;
    pub const PAGESIZE: u64 = 0x08;
    pub const DNCTRL: u64 = 0x14;
    pub const CRCR: u64 = 0x18;
    pub const DCBAAP: u64 = 0x30;
    pub const CONFIG: u64 = 0x38;
}

/// USBCMD, 5.4.1.
pub mod usbcmd {
    pub const RUN: u32 = 1 << 0;
    pub const HCRST: u32 = 1 << 1;
    pub const INTE: u32 = 1 << 2;
    pub const HSEE: u32 = 1 << 3;
    pub const CSS: u32 = 1 << 8;
    pub const CRS: u32 = 1 << 9;
    pub const EWE: u32 = 1 << 10;
    /// What is kept of a write.
    pub const KEPT: u32 = RUN | INTE | HSEE | EWE;
}

/// USBSTS, 5.4.2.
pub mod usbsts {
    pub const HCH: u32 = 1 << 0;
    pub const HSE: u32 = 1 << 2;
    pub const EINT: u32 = 1 << 3;
    pub const PCD: u32 = 1 << 4;
    pub const SRE: u32 = 1 << 10;
    /// Written with one to clear.
    pub const CLEARED: u32 = HSE | EINT | PCD | SRE;
}

/// CRCR, 5.4.5.
pub mod crcr {
    pub const RCS: u32 = 1 << 0;
    pub const CS: u32 = 1 << 1;
    pub const CA: u32 = 1 << 2;
    pub const CRR: u32 = 1 << 3;
}

/// PORTSC, 5.4.8.
pub mod portsc {
    pub const CCS: u32 = 1 << 0;
    pub const PED: u32 = 1 << 1;
    pub const PR: u32 = 1 << 4;
    pub const PLS_SHIFT: u32 = 5;
    pub const PP: u32 = 1 << 9;
    pub const SPEED_SHIFT: u32 = 10;
    pub const PIC: u32 = 3 << 14;
    pub const LWS: u32 = 1 << 16;
    pub const CSC: u32 = 1 << 17;
    pub const PEC: u32 = 1 << 18;
    pub const WRC: u32 = 1 << 19;
    pub const OCC: u32 = 1 << 20;
    pub const PRC: u32 = 1 << 21;
    pub const PLC: u32 = 1 << 22;
    pub const CEC: u32 = 1 << 23;
    pub const CHANGES: u32 = CSC | PEC | WRC | OCC | PRC | PLC | CEC;
    /// WCE, WDE, WOE.
    pub const WAKE: u32 = 7 << 25;
    pub const WPR: u32 = 1 << 31;
}

/// Port link states, table 5-27.
pub mod link {
    pub const U0: u8 = 0;
    pub const U2: u8 = 2;
    pub const U3: u8 = 3;
    pub const DISABLED: u8 = 4;
    pub const RX_DETECT: u8 = 5;
    pub const POLLING: u8 = 7;
    pub const RESUME: u8 = 15;
}

/// An interrupter's registers, 5.5.2.
pub mod interrupter {
    pub const IMAN: u64 = 0x00;
    pub const IMOD: u64 = 0x04;
    pub const ERSTSZ: u64 = 0x08;
    pub const ERSTBA: u64 = 0x10;
    pub const ERDP: u64 = 0x18;

    pub const IMAN_IP: u32 = 1;
    pub const IMAN_IE: u32 = 2;
    /// ERDP: Event Handler Busy.
    pub const EHB: u64 = 8;
    /// Segments of an event ring: what HCSPARAMS2 says.
    pub const MOST_SEGMENTS: u32 = 16;
}

/// PCI configuration space, 5.2: serial bus release number 3.0; frame length adjustment.
pub const SBRN: u16 = 0x60;
pub const SBRN_3_0: u8 = 0x30;
pub const FLADJ_60000: u8 = 0x20;
