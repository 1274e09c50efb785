//! DBG2 (Microsoft, "Debug Port Table 2"): the UART is the debug port.

use super::table::{Body, HEADER, table};
use crate::board::Board;

const SERIAL: u16 = 0x8000;
const PL011: u16 = 3;
/// Name of the device in the DSDT.
const NAME: &[u8] = b"COM0\0";

pub(super) fn build(board: &Board) -> Vec<u8> {
    /// Offsets within the device information.
    const ADDRESS: u16 = 22;
    const SIZE: u16 = ADDRESS + 12;
    const NAMESPACE: u16 = SIZE + 4;
    let length = NAMESPACE + NAME.len() as u16;
    let body = Body::default().u32(HEADER as u32 + 8).u32(1);
    let body = body
        .u8(0)
        .u16(length)
        .u8(1)
        .u16(NAME.len() as u16)
        .u16(NAMESPACE)
        .u16(0)
        .u16(0);
    let body = body.u16(SERIAL).u16(PL011).u16(0).u16(ADDRESS).u16(SIZE);
    let body = body
        .memory32(board.uart.registers.base)
        .u32(board.uart.registers.size as u32);
    table(b"DBG2", 0, body.bytes(NAME))
}
