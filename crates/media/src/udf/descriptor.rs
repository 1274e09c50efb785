//! Descriptors and their tags (ECMA-167 3/7.2).

use std::ops::Deref;

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::iso::SECTOR;
use crate::source::Shared;

/// Tag identifiers (ECMA-167 3/7.2.1, 4/7.2.1).
pub(super) mod tag {
    pub const ANCHOR: u16 = 2;
    pub const PARTITION: u16 = 5;
    pub const LOGICAL_VOLUME: u16 = 6;
    pub const TERMINATING: u16 = 8;
    pub const FILE_SET: u16 = 256;
    pub const FILE_IDENTIFIER: u16 = 257;
    pub const ALLOCATION_EXTENT: u16 = 258;
    pub const FILE_ENTRY: u16 = 261;
    pub const EXTENDED_FILE_ENTRY: u16 = 266;
}

/// A sector with a checked tag at its start.
pub(super) struct Descriptor {
    pub tag: u16,
    /// Byte of the medium.
    pub at: u64,
    bytes: Vec<u8>,
}

impl Deref for Descriptor {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Descriptor {
    /// The descriptor at a byte of the medium, whose tag must name `block`.
    pub fn read(source: &Shared, at: u64, block: u32) -> Result<Descriptor> {
        let bytes = source.read_vec(at, SECTOR as usize)?;
        check(&bytes, at)?;
        let location = bytes.le32(12)?;
        if location != block {
            return Err(Error::damaged(
                "a UDF descriptor",
                at,
                format!("its tag says block {location}, it lies in {block}"),
            ));
        }
        Ok(Descriptor {
            tag: bytes.le16(0)?,
            at,
            bytes,
        })
    }
}

/// Checks the tag that begins `bytes`: its sum, and the CRC of what follows it.
pub(super) fn check(bytes: &[u8], at: u64) -> Result<()> {
    const WHAT: &str = "a UDF descriptor";
    let head = bytes.span(0, 16)?;
    let sum = head
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != 4)
        .fold(0u8, |sum, (_, &byte)| sum.wrapping_add(byte));
    if sum != head[4] {
        return Err(Error::damaged(WHAT, at, "the checksum of its tag is wrong"));
    }
    let length = usize::from(head.le16(10)?);
    if crc16(bytes.span(16, length)?) != head.le16(8)? {
        return Err(Error::damaged(WHAT, at, "its CRC is wrong"));
    }
    Ok(())
}

/// CRC of the polynomial x¹⁶ + x¹² + x⁵ + 1 (ECMA-167 3/7.2.6).
pub fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut crc = (index as u16) << 8;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 != 0 {
                    crc << 1 ^ 0x1021
                } else {
                    crc << 1
                };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, &byte| {
        crc << 8 ^ TABLE[usize::from(crc >> 8 ^ u16::from(byte))]
    })
}
