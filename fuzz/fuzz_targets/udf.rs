//! UDF of any sectors, each behind its number: between those that a volume needs, a medium is zeroes that nobody keeps.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;

use dormer_fuzz::media_files::tree;
use dormer_media::source::{Shared, Source};
use dormer_media::udf::{Udf, crc16};
use libfuzzer_sys::fuzz_target;

const SECTOR: usize = 2048;
/// A file identifier is one of many in its sector (ECMA-167 4/14.4).
const FILE_IDENTIFIER: u16 = 257;

/// A medium that is zeroes but for these.
struct Medium {
    sectors: HashMap<u64, [u8; SECTOR]>,
    size: u64,
}

impl Source for Medium {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, mut offset: u64, mut into: &mut [u8]) -> dormer_media::Result<()> {
        while !into.is_empty() {
            let inside = offset as usize % SECTOR;
            let (now, later) = into.split_at_mut((SECTOR - inside).min(into.len()));
            match self.sectors.get(&(offset / SECTOR as u64)) {
                Some(sector) => now.copy_from_slice(&sector[inside..inside + now.len()]),
                None if offset < self.size => now.fill(0),
                None => {
                    return Err(dormer_media::Error::Truncated {
                        at: offset,
                        length: now.len() as u64,
                        size: self.size,
                    });
                }
            }
            offset += now.len() as u64;
            into = later;
        }
        Ok(())
    }
}

fn le16(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Makes the checksums of the descriptors right that a sector holds (ECMA-167 3/7.2).
fn mend(sector: &mut [u8]) {
    let mut at = 0;
    while at + 38 <= sector.len() {
        let rest = &mut sector[at..];
        let kind = le16(rest, 0);
        let length = le16(rest, 10);
        if kind == 0 || 16 + length > rest.len() {
            return;
        }
        let crc = crc16(&rest[16..16 + length]);
        rest[8..10].copy_from_slice(&crc.to_le_bytes());
        rest[4] = 0;
        rest[4] = rest[..16].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
        if kind != usize::from(FILE_IDENTIFIER) {
            return;
        }
        at += (38 + usize::from(rest[19]) + le16(rest, 36)).next_multiple_of(4);
    }
}

fuzz_target!(|parts: &[u8]| {
    // A tag's checksum stands before everything: what is behind it is reached with it made right, too.
    for right in [false, true] {
        let mut medium = Medium {
            sectors: HashMap::new(),
            size: 0,
        };
        for part in parts.chunks(2 + SECTOR).filter(|part| part.len() > 2) {
            let number = le16(part, 0) as u64;
            let mut sector = [0; SECTOR];
            sector[..part.len() - 2].copy_from_slice(&part[2..]);
            if right {
                mend(&mut sector);
            }
            medium.sectors.insert(number, sector);
            medium.size = medium.size.max((number + 1) * SECTOR as u64);
        }
        let medium: Shared = Arc::new(medium);
        if let Ok(udf) = Udf::read(&medium) {
            tree(&udf);
        }
    }
});
