//! VHD images of Virtual PC and Hyper-V, fixed and dynamic, to convert from.
//!
//! Specification: "Virtual Hard Disk Image Format Specification", Microsoft, 2006.

use super::{Extent, FormatError, Kind, Result, Source};
use crate::host::Host;
use std::path::PathBuf;
use std::sync::Arc;

const FOOTER: usize = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
const UNUSED: u32 = 0xffff_ffff;
/// What geometries can say at most.
const MAX_GEOMETRY: u64 = 65535 * 16 * 255;

/// An open VHD image.
pub struct Vpc {
    host: Arc<dyn Host>,
    path: PathBuf,
    size: u64,
    /// Of a dynamic image: bytes of a block, and where each is in sectors.
    blocks: Option<(u64, Vec<u32>)>,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn checksum(bytes: &[u8], at: usize) -> bool {
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(index, _)| !(at..at + 4).contains(index))
        .fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    !sum == be32(bytes, at)
}

impl Vpc {
    pub fn open(host: Arc<dyn Host>, path: PathBuf) -> Result<Vpc> {
        let length = host.length()?;
        let mut footer = [0; FOOTER];
        let mut good = false;
        // At the end of the file; a copy at the start if it is dynamic.
        for at in [length.saturating_sub(512), length.saturating_sub(511), 0] {
            if host.read_at(at, &mut footer)? >= 511
                && footer.starts_with(b"conectix")
                && checksum(&footer, 64)
            {
                good = true;
                break;
            }
        }
        if !good {
            return Err(FormatError::image(
                "invalid VPC image: no footer with a right checksum",
            ));
        }
        let kind = be32(&footer, 60);
        let current = be64(&footer, 48);
        let cylinders = u64::from(footer[56]) << 8 | u64::from(footer[57]);
        let geometry = cylinders * u64::from(footer[58]) * u64::from(footer[59]);
        // Virtual PC goes by the geometry; Hyper-V and others by the size.
        let by_size = matches!(
            &footer[28..32],
            b"win " | b"qem2" | b"d2v " | b"tap\0" | b"vs  "
        ) || geometry == 0
            || geometry == MAX_GEOMETRY;
        let size = if by_size { current } else { geometry * 512 };
        if size > 1 << 56 {
            return Err(FormatError::image(
                "invalid VPC image: its size is impossible",
            ));
        }
        let blocks = match kind {
            FIXED => {
                if length.saturating_sub(FOOTER as u64) < size.min(current) {
                    return Err(FormatError::image("invalid VPC image: it is cut short"));
                }
                None
            }
            DYNAMIC => Some(Self::blocks(&*host, be64(&footer, 16), size)?),
            DIFFERENCING => {
                return Err(FormatError::image(
                    "Differencing VHD images are not supported",
                ));
            }
            other => return Err(FormatError::image(format!("Unsupported VHD type {other}"))),
        };
        Ok(Vpc {
            host,
            path,
            size,
            blocks,
        })
    }

    /// The bytes of an image with its checksums made right: for tests that damage what they protect.
    pub fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
        let footer = bytes.len().saturating_sub(FOOTER);
        for (start, size, at) in [(footer, FOOTER, 64), (0, FOOTER, 64), (FOOTER, 1024, 36)] {
            if let Some(structure) = bytes.get_mut(start..start + size) {
                structure[at..at + 4].fill(0);
                let sum = structure
                    .iter()
                    .fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
                structure[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
            }
        }
        bytes
    }

    fn blocks(host: &dyn Host, offset: u64, size: u64) -> Result<(u64, Vec<u32>)> {
        let short = |_| FormatError::image("invalid VPC image: it is cut short");
        let mut header = [0; 1024];
        host.read_exact_at(offset, &mut header).map_err(short)?;
        if !header.starts_with(b"cxsparse") || !checksum(&header, 36) {
            return Err(FormatError::image(
                "invalid VPC image: its dynamic disk header is damaged",
            ));
        }
        let block = u64::from(be32(&header, 32));
        let entries = u64::from(be32(&header, 28));
        if !block.is_power_of_two() || block < 512 {
            return Err(FormatError::image(format!("Invalid block size {block}")));
        }
        if entries < size.div_ceil(block) {
            return Err(FormatError::image("Page Table too small"));
        }
        if entries > 64 << 20 || entries * 4 > host.length()? {
            return Err(FormatError::image("Max Table Entries too large"));
        }
        let mut table = vec![0; entries as usize * 4];
        host.read_exact_at(be64(&header, 16), &mut table)
            .map_err(short)?;
        let table = table.chunks_exact(4).map(|entry| be32(entry, 0)).collect();
        Ok((block, table))
    }

    /// The sector bitmap before each block, in whole sectors.
    fn bitmap(block: u64) -> u64 {
        (block / 512).div_ceil(8).next_multiple_of(512)
    }
}

impl Source for Vpc {
    fn size(&self) -> u64 {
        self.size
    }

    fn extent(&self, offset: u64, max: u64) -> Result<Extent> {
        let (kind, length) = match &self.blocks {
            None => {
                let kind = Kind::Data {
                    offset: Some(offset),
                    compressed: false,
                };
                (kind, max)
            }
            Some((block, table)) => {
                let index = (offset / block) as usize;
                let length = (block - offset % block).min(max);
                match table[index] {
                    UNUSED => (Kind::Zero { offset: None }, length),
                    sector => {
                        let at = u64::from(sector) * 512 + Self::bitmap(*block) + offset % block;
                        let kind = Kind::Data {
                            offset: Some(at),
                            compressed: false,
                        };
                        (kind, length)
                    }
                }
            }
        };
        let kind = match kind {
            Kind::Zero { .. } => Kind::Unallocated,
            other => other,
        };
        Ok(Extent {
            length,
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
        self.blocks.as_ref().map(|(block, _)| *block)
    }
}
