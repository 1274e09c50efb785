//! SPCR revision 2 (Microsoft, "Serial Port Console Redirection Table"): the UART is the console.

use super::table::{Body, table};
use crate::board::Board;

const PL011: u8 = 3;
const INTERRUPT_GIC: u8 = 1 << 3;
const BAUD_9600: u8 = 3;
/// RTS and CTS.
const FLOW_CONTROL: u8 = 1 << 1;
const NO_PCI: u16 = 0xffff;

pub(super) fn build(board: &Board) -> Vec<u8> {
    let body = Body::default()
        .u8(PL011)
        .zeroes(3)
        .memory32(board.uart.registers.base);
    let body = body.u8(INTERRUPT_GIC).u8(0).u32(board.uart.interrupt);
    // No parity, one stop bit; a VT100; language reserved.
    let body = body.u8(BAUD_9600).u8(0).u8(1).u8(FLOW_CONTROL).u8(0).u8(0);
    table(
        b"SPCR",
        2,
        body.u16(NO_PCI).u16(NO_PCI).zeroes(3).u32(0).u8(0).u32(0),
    )
}
