//! ACPI tables (6.3 and the specifications beside it), one file a table, and their delivery by fw_cfg.
//!
//! Tables name each other by offset and their checksums are zero: firmware places them, and the table loader's
//! commands say what is to be added where.

mod dbg2;
mod dsdt;
mod fadt;
mod gtdt;
mod iort;
mod linker;
mod madt;
mod mcfg;
mod pptt;
mod spcr;
mod table;
#[cfg(test)]
mod tests;
mod tpm2;

use crate::board::{Board, Msi};
use linker::{Linker, Zone};
use table::{Body, HEADER, OEM_ID, table};

/// fw_cfg files.
pub const TABLES: &str = "etc/acpi/tables";
pub const RSDP: &str = "etc/acpi/rsdp";
pub const LOADER: &str = "etc/table-loader";
pub const TPM_LOG: &str = "etc/tpm/log";

/// Offset of the checksum in a table's header.
const CHECKSUM: usize = 9;
/// RSDP (5.2.5.3): offsets of its fields.
const RSDP_CHECKSUM: usize = 8;
const RSDP_XSDT: usize = 24;
const RSDP_EXTENDED_CHECKSUM: usize = 32;
const RSDP_LENGTH: usize = 36;
const RSDP_V1_LENGTH: usize = 20;

/// The tables of a board, finished but for addresses: signature in the first four bytes, checksum right.
///
/// The first is the DSDT; RSDP and XSDT are [`files`]' matter.
pub fn tables(board: &Board) -> Vec<Vec<u8>> {
    let mut tables = vec![
        dsdt::build(board),
        fadt::build(board),
        madt::build(board),
        pptt::build(board),
        gtdt::build(board),
        spcr::build(board),
        dbg2::build(board),
    ];
    tables.extend(board.pcie.as_ref().map(mcfg::build));
    if let (Msi::Its { .. }, Some(_)) = (board.msi, board.pcie) {
        tables.push(iort::build());
    }
    tables.extend(board.tpm.as_ref().map(tpm2::build));
    tables
}

/// The fw_cfg files that carry a board's tables: name and contents.
pub fn files(board: &Board) -> Vec<(&'static str, Vec<u8>)> {
    let mut linker = Linker::default();
    let mut files = Vec::new();
    linker.allocate(RSDP, 16, Zone::FSegment);
    linker.allocate(TABLES, 64, Zone::High);
    if board.tpm.is_some() {
        linker.allocate(TPM_LOG, 1, Zone::High);
        files.push((TPM_LOG, vec![0; tpm2::LOG_AREA_SIZE as usize]));
    }

    let mut blob: Vec<u8> = Vec::new();
    // Where the tables that XSDT lists start: all but the DSDT, which is first in the blob.
    let mut listed = Vec::new();
    for mut table in tables(board) {
        let start = blob.len();
        let length = table.len();
        table[CHECKSUM] = 0;
        match &table[..4] {
            b"DSDT" => {}
            signature => {
                listed.push(start);
                if signature == b"FACP" {
                    linker.add_pointer(TABLES, TABLES, start + fadt::X_DSDT);
                } else if signature == b"TPM2" {
                    linker.add_pointer(TABLES, TPM_LOG, start + tpm2::LOG_AREA);
                }
            }
        }
        linker.add_checksum(TABLES, start + CHECKSUM, start, length);
        blob.extend(table);
    }

    let xsdt = blob.len();
    let body = listed
        .iter()
        .fold(Body::default(), |body, &at| body.u64(at as u64));
    let mut table = table(b"XSDT", 1, body);
    table[CHECKSUM] = 0;
    for i in 0..listed.len() {
        linker.add_pointer(TABLES, TABLES, xsdt + HEADER + 8 * i);
    }
    linker.add_checksum(TABLES, xsdt + CHECKSUM, xsdt, table.len());
    blob.extend(table);

    let rsdp = Body::default()
        .bytes(b"RSD PTR ")
        .u8(0)
        .bytes(&OEM_ID)
        .u8(2)
        .u32(0);
    let rsdp = rsdp
        .u32(RSDP_LENGTH as u32)
        .u64(xsdt as u64)
        .u8(0)
        .zeroes(3);
    linker.add_pointer(RSDP, TABLES, RSDP_XSDT);
    linker.add_checksum(RSDP, RSDP_CHECKSUM, 0, RSDP_V1_LENGTH);
    linker.add_checksum(RSDP, RSDP_EXTENDED_CHECKSUM, 0, RSDP_LENGTH);

    files.extend([(TABLES, blob), (RSDP, rsdp.0), (LOADER, linker.finish())]);
    files
}
