//! Registers of the PrimeCell UART PL011 (Arm DDI 0183G, chapter 3). The subset of the SBSA generic UART (Arm DEN 0029,
//! appendix B) lies at the same offsets.

/// Data; reads carry the error flags in bits 11:8. 3.3.1.
pub const UARTDR: u64 = 0x000;
/// Receive status, error clear. 3.3.2.
pub const UARTRSR_ECR: u64 = 0x004;
/// Flags. 3.3.3.
pub const UARTFR: u64 = 0x018;
/// IrDA low-power counter. 3.3.4.
pub const UARTILPR: u64 = 0x020;
/// Integer part of the baud rate divisor. 3.3.5.
pub const UARTIBRD: u64 = 0x024;
/// Fractional part of it, in 64ths. 3.3.6.
pub const UARTFBRD: u64 = 0x028;
/// Line control. 3.3.7.
pub const UARTLCR_H: u64 = 0x02c;
/// Control. 3.3.8.
pub const UARTCR: u64 = 0x030;
/// FIFO levels that interrupt. 3.3.9.
pub const UARTIFLS: u64 = 0x034;
/// Interrupt mask: 1 lets an interrupt through. 3.3.10.
pub const UARTIMSC: u64 = 0x038;
/// Raw interrupt status. 3.3.11.
pub const UARTRIS: u64 = 0x03c;
/// Masked interrupt status. 3.3.12.
pub const UARTMIS: u64 = 0x040;
/// Interrupt clear. 3.3.13.
pub const UARTICR: u64 = 0x044;
/// DMA control. 3.3.14.
pub const UARTDMACR: u64 = 0x048;

/// PeriphID0–3: part 0x011, Arm, revision r1p4, whose FIFOs are 16 deep.
pub const PERIPHERAL_ID: [u8; 4] = [0x11, 0x10, 0x14, 0x00];

/// Depth of each FIFO for that revision (1.2).
pub const FIFO_DEPTH: usize = 16;

/// UARTDR: a break.
pub const DR_BE: u32 = 1 << 10;
/// UARTRSR: a break.
pub const RSR_BE: u32 = 1 << 2;
/// UARTDR and UARTRSR: overrun.
pub const DR_OE: u32 = 1 << 11;
/// UARTRSR: overrun.
pub const RSR_OE: u32 = 1 << 3;

pub const FR_CTS: u32 = 1 << 0;
pub const FR_DSR: u32 = 1 << 1;
pub const FR_DCD: u32 = 1 << 2;
pub const FR_RXFE: u32 = 1 << 4;
pub const FR_RXFF: u32 = 1 << 6;
pub const FR_TXFE: u32 = 1 << 7;
pub const FR_RI: u32 = 1 << 8;

/// FIFOs enabled.
pub const LCR_H_FEN: u32 = 1 << 4;

/// Loop back.
pub const CR_LBE: u32 = 1 << 7;
pub const CR_TXE: u32 = 1 << 8;
pub const CR_RXE: u32 = 1 << 9;
pub const CR_DTR: u32 = 1 << 10;
pub const CR_RTS: u32 = 1 << 11;
pub const CR_OUT1: u32 = 1 << 12;
pub const CR_OUT2: u32 = 1 << 13;

/// Interrupts, as in UARTIMSC, UARTRIS, UARTMIS and UARTICR.
pub const INT_RI: u32 = 1 << 0;
pub const INT_CTS: u32 = 1 << 1;
pub const INT_DCD: u32 = 1 << 2;
pub const INT_DSR: u32 = 1 << 3;
pub const INT_RX: u32 = 1 << 4;
pub const INT_TX: u32 = 1 << 5;
/// Receive timeout.
pub const INT_RT: u32 = 1 << 6;
/// Break.
pub const INT_BE: u32 = 1 << 9;
/// Overrun.
pub const INT_OE: u32 = 1 << 10;
/// All of them.
pub const INT_ALL: u32 = 0x7ff;
