//! TPM2 revision 4 (TCG ACPI Specification 1.2, 7.3).

use super::table::{Body, table};
use crate::board::{Tpm, TpmInterface};

/// Start methods (table 8).
const START_MMIO: u32 = 6;
const START_CRB: u32 = 7;

/// Control area of the locality's register block (TCG PTP 1.05, 6.5.3).
const CRB_CONTROL_AREA: u64 = 0x40;

/// Where the table has the log area's address, and its least size.
pub(super) const LOG_AREA: usize = 68;
/// Bytes of the log area.
pub(super) const LOG_AREA_SIZE: u32 = 64 << 10;

pub(super) fn build(tpm: &Tpm) -> Vec<u8> {
    let (control_area, start) = match tpm.interface {
        TpmInterface::Crb => (tpm.registers.base + CRB_CONTROL_AREA, START_CRB),
        TpmInterface::Tis => (0, START_MMIO),
    };
    // Platform class: client.
    let body = Body::default()
        .u16(0)
        .u16(0)
        .u64(control_area)
        .u32(start)
        .zeroes(12);
    table(b"TPM2", 4, body.u32(LOG_AREA_SIZE).u64(0))
}
