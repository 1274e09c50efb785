//! IORT revision 0 (Arm DEN 0049B), which every system reads: requester IDs of PCIe go to the ITS as they are. Only with an ITS.

use super::table::{Body, HEADER, table};

const ITS_GROUP: u8 = 0;
const ROOT_COMPLEX: u8 = 2;
/// Nodes follow the table's own 12 bytes.
const FIRST_NODE: u32 = HEADER as u32 + 12;
const ITS_LENGTH: u16 = 24;
/// With the address size limit that later revisions have here.
const ROOT_COMPLEX_LENGTH: u16 = 36;
const MAPPING_LENGTH: u16 = 20;

/// Memory access properties: coherent, and so for all of memory.
const COHERENT: u32 = 1;
const COHERENT_PATH_AND_DEVICE: u8 = 3;

pub(super) fn build() -> Vec<u8> {
    let body = Body::default().u32(2).u32(FIRST_NODE).u32(0);
    // ITS group: revision 0, identifier 0, no mappings, one ITS with MADT's ID 0.
    let body = body
        .u8(ITS_GROUP)
        .u16(ITS_LENGTH)
        .u8(1)
        .u32(0)
        .u32(0)
        .u32(0)
        .u32(1)
        .u32(0);
    // Root complex: revision 0, one mapping.
    let length = ROOT_COMPLEX_LENGTH + MAPPING_LENGTH;
    let body = body.u8(ROOT_COMPLEX).u16(length).u8(0).u32(0).u32(1);
    let body = body.u32(ROOT_COMPLEX_LENGTH.into());
    let body = body.u32(COHERENT).u8(0).u16(0).u8(COHERENT_PATH_AND_DEVICE);
    // No ATS; segment 0; 64 bits of address; reserved.
    let body = body.u32(0).u32(0).u8(64).zeroes(3);
    // From 0, 0x10000 IDs (the count is less one), to 0 of the ITS group.
    let body = body.u32(0).u32(0xffff).u32(0).u32(FIRST_NODE).u32(0);
    table(b"IORT", 0, body)
}
