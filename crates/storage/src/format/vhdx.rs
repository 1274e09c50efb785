//! VHDX images of Hyper-V, fixed and dynamic, to convert from.
//!
//! Specification: [MS-VHDX].

use super::{Extent, FormatError, Kind, Result, Source};
use crate::host::Host;
use std::path::PathBuf;
use std::sync::Arc;

const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const TABLE_SIZE: usize = 64 << 10;

const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6],
        d[7],
    ]
}

/// Regions, section 2.2.3.2.
const BAT: [u8; 16] = guid(
    0x2dc2_7766,
    0xf623,
    0x4200,
    [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08],
);
const METADATA: [u8; 16] = guid(
    0x8b7c_a206,
    0x4790,
    0x4b9a,
    [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e],
);
/// Metadata items, section 2.6.2.
const FILE_PARAMETERS: [u8; 16] = guid(
    0xcaa1_6737,
    0xfa36,
    0x4d43,
    [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b],
);
const DISK_SIZE: [u8; 16] = guid(
    0x2fa5_4224,
    0xcd1b,
    0x4876,
    [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8],
);
const SECTOR_SIZE: [u8; 16] = guid(
    0x8141_bf1d,
    0xa96f,
    0x4709,
    [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f],
);

/// Payload block states, section 2.5.1.1.
const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;

/// An open VHDX image.
pub struct Vhdx {
    host: Arc<dyn Host>,
    path: PathBuf,
    size: u64,
    block: u64,
    /// Payload blocks between two entries of sector bitmaps.
    chunk_ratio: u64,
    bat: Vec<u64>,
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What a byte does to a CRC-32C, by how many bytes follow it.
static CRC: [[u32; 256]; 8] = {
    let mut tables = [[0u32; 256]; 8];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ ((crc & 1) * 0x82f6_3b78);
            bit += 1;
        }
        tables[0][index] = crc;
        index += 1;
    }
    let mut next = 256;
    while next < 8 * 256 {
        let before = tables[next / 256 - 1][next % 256];
        tables[next / 256][next % 256] = tables[0][(before & 255) as usize] ^ before >> 8;
        next += 1;
    }
    tables
};

/// CRC-32C (Castagnoli), of structures whose own checksum, at 4, counts as 0.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    let (eights, rest) = bytes.as_chunks::<8>();
    for (index, eight) in eights.iter().enumerate() {
        let mut word = u64::from_le_bytes(*eight);
        if index == 0 {
            word &= u64::from(u32::MAX);
        }
        word ^= u64::from(crc);
        crc = (CRC.iter().rev().enumerate()).fold(0, |crc, (byte, table)| {
            crc ^ table[(word >> (8 * byte)) as usize & 255]
        });
    }
    for byte in rest {
        crc = CRC[0][usize::from(crc as u8 ^ byte)] ^ crc >> 8;
    }
    !crc
}

impl Vhdx {
    pub fn open(host: Arc<dyn Host>, path: PathBuf) -> Result<Vhdx> {
        let refuse = |reason: &str| FormatError::image(format!("VHDX: {reason}"));
        let mut magic = [0; 8];
        host.read_exact_at(0, &mut magic)
            .map_err(|_| refuse("it is cut short"))?;
        if &magic != b"vhdxfile" {
            return Err(refuse("it has no file identifier"));
        }
        let read = |offset: u64, signature: &[u8], size: usize| {
            let mut bytes = vec![0; size];
            host.read_exact_at(offset, &mut bytes).ok()?;
            (bytes.starts_with(signature) && crc32c(&bytes) == le32(&bytes, 4)).then_some(bytes)
        };
        let header = HEADERS
            .iter()
            .filter_map(|at| read(*at, b"head", 4096))
            .max_by_key(|header| le64(header, 8))
            .ok_or_else(|| refuse("no header has a right checksum"))?;
        if le16(&header, 66) != 1 {
            return Err(refuse("unsupported version"));
        }
        if header[48..64] != [0; 16] {
            return Err(refuse(
                "it was not closed properly and has a log to be replayed: open it once where it comes from",
            ));
        }
        let regions = REGION_TABLES
            .iter()
            .find_map(|at| read(*at, b"regi", TABLE_SIZE))
            .ok_or_else(|| refuse("no region table has a right checksum"))?;
        let mut bat = None;
        let mut metadata = None;
        for entry in regions[16..]
            .chunks_exact(32)
            .take((le32(&regions, 8) as usize).min(2047))
        {
            let place = (le64(entry, 16), u64::from(le32(entry, 24)));
            if entry.starts_with(&BAT) {
                bat = Some(place);
            } else if entry.starts_with(&METADATA) {
                metadata = Some(place.0);
            } else if le32(entry, 28) & 1 != 0 {
                return Err(refuse("it has a required region that is not known"));
            }
        }
        let (Some(bat), Some(metadata)) = (bat, metadata) else {
            return Err(refuse("a region is missing"));
        };
        let (size, block, sector) = Self::metadata(&*host, metadata)?;
        let chunk_ratio = (sector << 23) / block;
        let blocks = size.div_ceil(block);
        let entries = blocks + blocks.saturating_sub(1) / chunk_ratio;
        if entries * 8 > bat.1 {
            return Err(refuse("its block table is too small"));
        }
        if bat.0.saturating_add(entries * 8) > host.length()? {
            return Err(refuse("its block table is cut short"));
        }
        let mut bytes = vec![0; entries as usize * 8];
        host.read_exact_at(bat.0, &mut bytes)
            .map_err(|_| refuse("its block table is cut short"))?;
        Ok(Vhdx {
            size,
            block,
            chunk_ratio,
            bat: bytes.chunks_exact(8).map(|entry| le64(entry, 0)).collect(),
            host,
            path,
        })
    }

    /// The bytes of an image with its checksums made right: for tests that damage what they protect.
    pub fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
        let places = HEADERS.map(|at| (at, 4096)).into_iter();
        for (at, size) in places.chain(REGION_TABLES.map(|at| (at, TABLE_SIZE))) {
            if let Some(structure) = bytes.get_mut(at as usize..at as usize + size) {
                let sum = crc32c(structure);
                structure[4..8].copy_from_slice(&sum.to_le_bytes());
            }
        }
        bytes
    }

    /// Bytes of the disk, of a block, and of a sector.
    fn metadata(host: &dyn Host, region: u64) -> Result<(u64, u64, u64)> {
        let refuse = |reason: &str| FormatError::image(format!("VHDX: {reason}"));
        let mut table = vec![0; TABLE_SIZE];
        host.read_exact_at(region, &mut table)
            .map_err(|_| refuse("its metadata are cut short"))?;
        if !table.starts_with(b"metadata") {
            return Err(refuse("its metadata are damaged"));
        }
        let (mut size, mut block, mut sector) = (None, None, None);
        for entry in table[32..]
            .chunks_exact(32)
            .take(usize::from(le16(&table, 10)).min(2047))
        {
            let mut item = [0; 8];
            let length = (le32(entry, 20) as usize).min(8);
            let at = region.saturating_add(u64::from(le32(entry, 16)));
            let known = [FILE_PARAMETERS, DISK_SIZE, SECTOR_SIZE]
                .iter()
                .any(|id| entry.starts_with(id));
            if known {
                host.read_exact_at(at, &mut item[..length])
                    .map_err(|_| refuse("its metadata are cut short"))?;
            }
            if entry.starts_with(&FILE_PARAMETERS) {
                block = Some(u64::from(le32(&item, 0)));
                if le32(&item, 4) & 2 != 0 {
                    return Err(refuse("differencing images are not supported"));
                }
            } else if entry.starts_with(&DISK_SIZE) {
                size = Some(le64(&item, 0));
            } else if entry.starts_with(&SECTOR_SIZE) {
                sector = Some(u64::from(le32(&item, 0)));
            }
        }
        let (Some(size), Some(block), Some(sector)) = (size, block, sector) else {
            return Err(refuse("metadata are missing"));
        };
        if !block.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block) {
            return Err(refuse("its block size is impossible"));
        }
        if sector != 512 && sector != 4096 {
            return Err(refuse("its sector size is impossible"));
        }
        if size > 64 << 40 || !size.is_multiple_of(sector) {
            return Err(refuse("its disk size is impossible"));
        }
        Ok((size, block, sector))
    }
}

impl Source for Vhdx {
    fn size(&self) -> u64 {
        self.size
    }

    fn extent(&self, offset: u64, max: u64) -> Result<Extent> {
        let index = offset / self.block;
        let entry = self.bat[(index + index / self.chunk_ratio) as usize];
        let kind = match entry & 7 {
            FULLY_PRESENT => Kind::Data {
                offset: Some((entry >> 20 << 20) + offset % self.block),
                compressed: false,
            },
            PARTIALLY_PRESENT => {
                return Err(FormatError::image(
                    "VHDX: a block is present in part only, in an image that is not differencing",
                ));
            }
            _ => Kind::Unallocated,
        };
        Ok(Extent {
            length: (self.block - offset % self.block).min(max),
            kind,
            file: 0,
        })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        super::read_extents(self, &*self.host, offset, into)
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn cluster_size(&self) -> Option<u64> {
        Some(self.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli() {
        // The check value of CRC-32C over "123456789", with the bytes at 4 to 7 put back as zeroes.
        let mut bytes = *b"1234\0\0\0\09";
        let plain = crc32c(&bytes);
        bytes[5] = 0xff;
        assert_eq!(crc32c(&bytes), plain);
        assert_eq!(crc32c(b"abc"), 0x364b_3fb7);
    }
}
