//! MADT (ACPI 6.3, 5.2.12): the interrupt controller's parts.

use super::table::{Body, table};
use crate::board::{Board, Gic, Msi};

/// Structure types (table 5-45).
const GICC: u8 = 0x0b;
const GICD: u8 = 0x0c;
const GIC_MSI_FRAME: u8 = 0x0d;
const GICR: u8 = 0x0e;
const GIC_ITS: u8 = 0x0f;

const ENABLED: u32 = 1;
/// MSI frame: the counts below are to be used in place of MSI_TYPER.
const SPI_SELECT: u32 = 1;

pub(super) fn build(board: &Board) -> Vec<u8> {
    // No local APIC address, no flags.
    let mut body = Body::default().u32(0).u32(0);
    let (distributor, version, cpu_interface) = match &board.gic {
        Gic::V2 {
            distributor,
            cpu_interface,
        } => (distributor, 2, cpu_interface.base),
        Gic::V3 { distributor, .. } => (distributor, 3, 0),
    };
    body = body
        .u8(GICD)
        .u8(24)
        .u16(0)
        .u32(0)
        .u64(distributor.base)
        .u32(0)
        .u8(version)
        .zeroes(3);
    for (uid, cpu) in (0u32..).zip(&board.cpus) {
        body = body.u8(GICC).u8(80).u16(0);
        // CPU interface number, processor UID, flags, parking protocol, performance interrupt, parked address.
        body = body
            .u32(uid)
            .u32(uid)
            .u32(ENABLED)
            .u32(0)
            .u32(board.pmu.unwrap_or(0))
            .u64(0);
        // CPU interface; GICV, GICH and the maintenance interrupt are EL2's.
        body = body.u64(cpu_interface).u64(0).u64(0).u32(0);
        // Redistributors are in structures of their own. MPIDR, efficiency class, reserved, SPE interrupt.
        body = body.u64(0).u64(cpu.mpidr).u8(0).u8(0).u16(0);
    }
    if let Gic::V3 { redistributors, .. } = &board.gic {
        for region in redistributors {
            body = body
                .u8(GICR)
                .u8(16)
                .u16(0)
                .u64(region.base)
                .u32(region.size as u32);
        }
    }
    match board.msi {
        Msi::None => {}
        Msi::V2m {
            frame,
            first,
            count,
        } => {
            body = body.u8(GIC_MSI_FRAME).u8(24).u16(0).u32(0).u64(frame.base);
            body = body.u32(SPI_SELECT).u16(count as u16).u16(first as u16);
        }
        Msi::Its { registers } => {
            body = body
                .u8(GIC_ITS)
                .u8(20)
                .u16(0)
                .u32(0)
                .u64(registers.base)
                .u32(0);
        }
    }
    table(b"APIC", 4, body)
}
