//! GTDT revision 3 (ACPI 6.3, 5.2.24): the generic timer's interrupts, level-high and always on.

use super::table::{Body, table};
use crate::board::Board;

/// The timer keeps counting and waking in every idle state.
const ALWAYS_ON: u32 = 1 << 2;
/// No memory-mapped counter.
const NONE: u64 = u64::MAX;

pub(super) fn build(board: &Board) -> Vec<u8> {
    let timers = &board.timers;
    let mut body = Body::default().u64(NONE).u32(0);
    for ppi in [
        timers.secure,
        timers.non_secure,
        timers.virtual_,
        timers.hypervisor,
    ] {
        body = body.u32(ppi).u32(ALWAYS_ON);
    }
    // Read block; no platform timers; no virtual EL2 timer.
    table(b"GTDT", 3, body.u64(NONE).u32(0).u32(0).u32(0).u32(0))
}
