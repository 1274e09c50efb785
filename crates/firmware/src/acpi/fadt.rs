//! FADT (ACPI 6.3, 5.2.9): hardware-reduced, PSCI. No reset or sleep registers: guests use UEFI, which uses PSCI.

use super::table::{Body, HEADER, table};
use crate::board::{Board, Conduit};

/// Where the table points to the DSDT: X_DSDT.
pub(super) const X_DSDT: usize = 140;
const LENGTH: usize = 276;

const FLAGS: usize = 112;
const ARM_BOOT_ARCH: usize = 129;
const MINOR_VERSION: usize = 131;
const HYPERVISOR_VENDOR: usize = 268;

const HW_REDUCED_ACPI: u32 = 1 << 20;
const PSCI_COMPLIANT: u16 = 1 << 0;
const PSCI_USE_HVC: u16 = 1 << 1;

pub(super) fn build(board: &Board) -> Vec<u8> {
    let mut body = [0; LENGTH - HEADER];
    let mut put = |at: usize, bytes: &[u8]| {
        body[at - HEADER..at - HEADER + bytes.len()].copy_from_slice(bytes);
    };
    put(FLAGS, &HW_REDUCED_ACPI.to_le_bytes());
    let hvc = if board.psci == Conduit::Hvc {
        PSCI_USE_HVC
    } else {
        0
    };
    put(ARM_BOOT_ARCH, &(PSCI_COMPLIANT | hvc).to_le_bytes());
    put(MINOR_VERSION, &[3]);
    put(HYPERVISOR_VENDOR, b"DORMER\0\0");
    table(b"FACP", 6, Body::default().bytes(&body))
}
