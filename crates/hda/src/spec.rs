//! Registers, verbs and parameters of the High Definition Audio Specification 1.0a.

/// Offsets of 32-bit words of the controller's registers (3.3); smaller ones share a word.
pub mod register {
    /// GCAP, VMIN, VMAJ.
    pub const GCAP: u64 = 0x00;
    /// OUTPAY, INPAY.
    pub const OUTPAY: u64 = 0x04;
    pub const GCTL: u64 = 0x08;
    /// WAKEEN, STATESTS.
    pub const WAKEEN: u64 = 0x0c;
    pub const GSTS: u64 = 0x10;
    pub const INTCTL: u64 = 0x20;
    pub const INTSTS: u64 = 0x24;
    pub const WALCLK: u64 = 0x30;
    pub const SSYNC: u64 = 0x38;
    pub const CORBLBASE: u64 = 0x40;
    pub const CORBUBASE: u64 = 0x44;
    /// CORBWP, CORBRP.
    pub const CORBWP: u64 = 0x48;
    /// CORBCTL, CORBSTS, CORBSIZE.
    pub const CORBCTL: u64 = 0x4c;
    pub const RIRBLBASE: u64 = 0x50;
    pub const RIRBUBASE: u64 = 0x54;
    /// RIRBWP, RINTCNT.
    pub const RIRBWP: u64 = 0x58;
    /// RIRBCTL, RIRBSTS, RIRBSIZE.
    pub const RIRBCTL: u64 = 0x5c;
    pub const IC: u64 = 0x60;
    pub const IR: u64 = 0x64;
    pub const ICS: u64 = 0x68;
    pub const DPLBASE: u64 = 0x70;
    pub const DPUBASE: u64 = 0x74;
    /// The first stream descriptor.
    pub const SD0: u64 = 0x80;
    /// WALCLK once more, for user processes.
    pub const WALCLK_ALIAS: u64 = 0x2030;
    /// SDnLPIB once more, 32 bytes apart.
    pub const SD0_ALIAS: u64 = 0x2080;
}

/// Offsets within a stream descriptor (3.3.35 and following).
pub mod sd {
    /// CTL (24 bits), STS.
    pub const CTL: u64 = 0x00;
    pub const LPIB: u64 = 0x04;
    pub const CBL: u64 = 0x08;
    pub const LVI: u64 = 0x0c;
    /// FIFOS, FMT.
    pub const FIFOS: u64 = 0x10;
    pub const BDPL: u64 = 0x18;
    pub const BDPU: u64 = 0x1c;
    /// Bytes of a descriptor.
    pub const SIZE: u64 = 0x20;
}

/// GCAP: 4 output streams, 4 input streams, one SDO line, 64-bit addresses; version 1.0.
pub const GCAP: u32 = 0x0100_4401;
/// OUTPAY and INPAY: words a frame at 48 kHz (3.3.5, 3.3.6).
pub const PAYLOAD: u32 = 0x001d_003c;
/// Input streams come first.
pub const INPUT_STREAMS: usize = 4;
pub const STREAMS: usize = 8;

/// GCTL.
pub const GCTL_CRST: u32 = 1;
pub const GCTL_FCNTRL: u32 = 2;
pub const GCTL_UNSOL: u32 = 1 << 8;
/// GSTS: a flush is complete.
pub const GSTS_FSTS: u16 = 2;

/// INTCTL, INTSTS.
pub const INT_GLOBAL: u32 = 1 << 31;
pub const INT_CONTROLLER: u32 = 1 << 30;

/// CORBCTL: run, and interrupt on memory errors. RIRBCTL.DMAEN is the same bit as CORBRUN.
pub const CORBCTL_CMEIE: u8 = 1;
pub const RING_RUN: u8 = 2;
/// CORBSTS: memory error.
pub const CORBSTS_CMEI: u8 = 1;
/// CORBRP: reset.
pub const CORBRP_RST: u16 = 1 << 15;
/// RIRBWP: reset.
pub const RIRBWP_RST: u16 = 1 << 15;
/// RIRBCTL: interrupts on responses and on overruns.
pub const RIRBCTL_RINTCTL: u8 = 1;
pub const RIRBCTL_OIC: u8 = 4;
/// RIRBSTS: responses; an overrun.
pub const RIRBSTS_RINTFL: u8 = 1;
pub const RIRBSTS_OIS: u8 = 4;
/// CORBSIZE and RIRBSIZE: 256 entries, and nothing else.
pub const RING_SIZE: u32 = 0x42;

/// ICS: a command is busy; a response is valid.
pub const ICS_ICB: u16 = 1;
pub const ICS_IRV: u16 = 2;

/// SDnCTL.
pub const SDCTL_SRST: u32 = 1;
pub const SDCTL_RUN: u32 = 1 << 1;
pub const SDCTL_IOCE: u32 = 1 << 2;
pub const SDCTL_FEIE: u32 = 1 << 3;
pub const SDCTL_DEIE: u32 = 1 << 4;
/// What software may write: and stripe control, traffic priority, stream number. The direction is fixed.
pub const SDCTL_WRITABLE: u32 = 0xf7_001f;
/// SDnSTS.
pub const SDSTS_BCIS: u8 = 1 << 2;
pub const SDSTS_FIFOE: u8 = 1 << 3;
pub const SDSTS_DESE: u8 = 1 << 4;
pub const SDSTS_FIFORDY: u8 = 1 << 5;
pub const SDSTS_CLEARED: u8 = SDSTS_BCIS | SDSTS_FIFOE | SDSTS_DESE;
/// SDnFIFOS: bytes.
pub const FIFO_SIZE: u32 = 0xff;
/// Buffer descriptor: interrupt on completion (3.6.3).
pub const BDL_IOC: u32 = 1;

/// DPLBASE: positions are written.
pub const DPLBASE_ENABLE: u64 = 1;

/// Nanoseconds of 24 ticks of the wall clock (24 MHz).
pub const WALCLK_24: u64 = 1000;

/// Verbs of 12 bits (7.3.3); GET verbs have bit 11.
pub mod verb {
    pub const GET_PARAMETER: u16 = 0xf00;
    pub const GET_CONNECTION_SELECT: u16 = 0xf01;
    pub const SET_CONNECTION_SELECT: u16 = 0x701;
    pub const GET_CONNECTION_LIST: u16 = 0xf02;
    pub const GET_POWER_STATE: u16 = 0xf05;
    pub const SET_POWER_STATE: u16 = 0x705;
    pub const GET_CONVERTER_STREAM: u16 = 0xf06;
    pub const SET_CONVERTER_STREAM: u16 = 0x706;
    pub const GET_PIN_CONTROL: u16 = 0xf07;
    pub const SET_PIN_CONTROL: u16 = 0x707;
    pub const GET_UNSOLICITED: u16 = 0xf08;
    pub const SET_UNSOLICITED: u16 = 0x708;
    pub const GET_PIN_SENSE: u16 = 0xf09;
    pub const GET_CONFIGURATION: u16 = 0xf1c;
    /// Four verbs, a byte each.
    pub const SET_CONFIGURATION: u16 = 0x71c;
    pub const GET_SUBSYSTEM: u16 = 0xf20;
    /// Four verbs, a byte each.
    pub const SET_SUBSYSTEM: u16 = 0x720;
    pub const FUNCTION_RESET: u16 = 0x7ff;

    /// Verbs of 4 bits, with a payload of 16.
    pub const SET_FORMAT: u16 = 0x2;
    pub const SET_AMPLIFIER: u16 = 0x3;
    pub const GET_FORMAT: u16 = 0xa;
    pub const GET_AMPLIFIER: u16 = 0xb;
}

/// Parameters (7.3.4).
pub mod parameter {
    pub const VENDOR_ID: u8 = 0x00;
    pub const REVISION_ID: u8 = 0x02;
    pub const SUBORDINATE_NODES: u8 = 0x04;
    pub const FUNCTION_TYPE: u8 = 0x05;
    pub const AUDIO_FUNCTION: u8 = 0x08;
    pub const WIDGET: u8 = 0x09;
    pub const PCM: u8 = 0x0a;
    pub const STREAM_FORMATS: u8 = 0x0b;
    pub const PIN: u8 = 0x0c;
    pub const INPUT_AMPLIFIER: u8 = 0x0d;
    pub const CONNECTIONS: u8 = 0x0e;
    pub const POWER_STATES: u8 = 0x0f;
    pub const OUTPUT_AMPLIFIER: u8 = 0x12;
}
