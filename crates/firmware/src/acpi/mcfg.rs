//! MCFG (PCI Firmware Specification 3.3, 4.1.2): the ECAM window.

use super::table::{Body, table};
use crate::board::Pcie;

pub(super) fn build(pcie: &Pcie) -> Vec<u8> {
    let body = Body::default().zeroes(8).u64(pcie.ecam.base).u16(0);
    table(
        b"MCFG",
        1,
        body.u8(0).u8((pcie.buses() - 1) as u8).zeroes(4),
    )
}
