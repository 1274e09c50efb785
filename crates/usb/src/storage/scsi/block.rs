//! The commands of a disk (SBC-3).

use super::spec::{READ_CAPACITY_16, Sense, operation, sense};
use super::{Action, Medium, Unit, Work, be16, be32, be64, reply};

/// Block descriptors in one UNMAP.
const MOST_UNMAP_DESCRIPTORS: u32 = 256;
/// Blocks in one WRITE SAME.
const MOST_WRITE_SAME: u64 = 0x1_0000;

/// The FUA bit of READ and WRITE.
const FUA: u8 = 0x08;
/// The UNMAP bit of WRITE SAME.
const UNMAP: u8 = 0x08;
/// The NDOB bit of WRITE SAME (16): zeroes, no data.
const NDOB: u8 = 0x01;

/// Logical block address and number of blocks, by the size of the command.
pub(super) fn extent(cdb: &[u8; 16]) -> (u64, u64) {
    match cdb[0] >> 5 {
        0 => {
            let blocks = if cdb[4] == 0 { 256 } else { cdb[4].into() };
            ((be32(cdb, 0) & 0x1f_ffff).into(), blocks)
        }
        1 | 2 => (be32(cdb, 2).into(), be16(cdb, 7).into()),
        5 => (be32(cdb, 2).into(), be32(cdb, 6).into()),
        _ => (be64(cdb, 2), be32(cdb, 10).into()),
    }
}

impl Medium {
    /// The byte offset and length of blocks, if they are all there.
    pub(super) fn bytes(&self, (lba, blocks): (u64, u64)) -> Result<(u64, u64), Sense> {
        let end = lba.checked_add(blocks).ok_or(sense::LBA_OUT_OF_RANGE)?;
        if end > self.blocks {
            return Err(sense::LBA_OUT_OF_RANGE);
        }
        let size = u64::from(self.block_size);
        // The medium's size in bytes fits, so these do.
        Ok((lba.saturating_mul(size), blocks.saturating_mul(size)))
    }
}

impl Unit {
    /// `None`: no such command.
    pub(super) fn block_command(
        &mut self,
        medium: Option<Medium>,
        cdb: &[u8; 16],
    ) -> Option<Result<Action, Sense>> {
        // Answered without a medium too.
        if cdb[0] == operation::READ_FORMAT_CAPACITIES {
            return Some(format_capacities(medium, cdb));
        }
        let run: fn(&mut Unit, Medium, &[u8; 16]) -> Result<Action, Sense> = match cdb[0] {
            operation::READ_CAPACITY_10 => |_, medium, _| Ok(capacity(medium)),
            operation::SERVICE_ACTION_IN_16 if cdb[1] & 0x1f == READ_CAPACITY_16 => {
                |_, medium, cdb| Ok(capacity_16(medium, cdb))
            }
            operation::READ_6 | operation::READ_10 | operation::READ_12 | operation::READ_16 => {
                |_, medium, cdb| read(medium, cdb)
            }
            operation::WRITE_6
            | operation::WRITE_10
            | operation::WRITE_12
            | operation::WRITE_16 => Unit::write,
            operation::VERIFY_10 | operation::VERIFY_12 | operation::VERIFY_16 => {
                |_, medium, cdb| verify(medium, cdb)
            }
            operation::SYNCHRONIZE_CACHE_10 | operation::SYNCHRONIZE_CACHE_16 => {
                |_, medium, cdb| {
                    let (lba, blocks) = extent(cdb);
                    medium
                        .bytes((lba, blocks))
                        .map(|_| Action::Work(Work::Flush))
                }
            }
            operation::UNMAP => |_, medium, cdb| {
                if cdb[1] & 1 != 0 {
                    return Err(sense::INVALID_FIELD_IN_CDB);
                }
                writable(medium)?;
                let length = be16(cdb, 7).into();
                Ok(if length == 0 {
                    Action::Done
                } else {
                    Action::Parameters { length, of: *cdb }
                })
            },
            operation::WRITE_SAME_10 | operation::WRITE_SAME_16 => {
                |_, medium, cdb| write_same(medium, cdb)
            }
            _ => return None,
        };
        Some(
            medium
                .ok_or(sense::MEDIUM_NOT_PRESENT)
                .and_then(|medium| run(self, medium, cdb)),
        )
    }

    fn write(&mut self, medium: Medium, cdb: &[u8; 16]) -> Result<Action, Sense> {
        let force = cdb[0] != operation::WRITE_6 && cdb[1] & FUA != 0;
        protection(cdb)?;
        let (offset, length) = medium.bytes(extent(cdb))?;
        writable(medium)?;
        let flush = force || !self.write_cache;
        Ok(if length == 0 {
            Action::Done
        } else {
            Action::Write {
                offset,
                length,
                flush,
            }
        })
    }
}

fn writable(medium: Medium) -> Result<(), Sense> {
    if medium.read_only {
        Err(sense::WRITE_PROTECTED)
    } else {
        Ok(())
    }
}

/// RDPROTECT, WRPROTECT: there is no protection information.
fn protection(cdb: &[u8; 16]) -> Result<(), Sense> {
    let six = matches!(cdb[0], operation::READ_6 | operation::WRITE_6);
    if !six && cdb[1] & 0xe0 != 0 {
        Err(sense::INVALID_FIELD_IN_CDB)
    } else {
        Ok(())
    }
}

pub(super) fn read(medium: Medium, cdb: &[u8; 16]) -> Result<Action, Sense> {
    protection(cdb)?;
    let (offset, length) = medium.bytes(extent(cdb))?;
    Ok(if length == 0 {
        Action::Done
    } else {
        Action::Read { offset, length }
    })
}

/// The range is there; its contents are not compared.
fn verify(medium: Medium, cdb: &[u8; 16]) -> Result<Action, Sense> {
    if cdb[1] & 0x06 != 0 {
        return Err(sense::INVALID_FIELD_IN_CDB);
    }
    protection(cdb)?;
    medium.bytes(extent(cdb)).map(|_| Action::Done)
}

/// READ CAPACITY (10), SBC-3, 5.15.
pub(super) fn capacity(medium: Medium) -> Action {
    let last = medium.blocks.saturating_sub(1).min(u32::MAX.into()) as u32;
    let mut data = last.to_be_bytes().to_vec();
    data.extend(medium.block_size.to_be_bytes());
    reply(data, 8)
}

/// READ CAPACITY (16), SBC-3, 5.16.
fn capacity_16(medium: Medium, cdb: &[u8; 16]) -> Action {
    let mut data = vec![0; 32];
    data[..8].copy_from_slice(&medium.blocks.saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&medium.block_size.to_be_bytes());
    // Logical block provisioning is managed.
    data[14] = u8::from(!medium.read_only) << 7;
    reply(data, be32(cdb, 10))
}

/// READ FORMAT CAPACITIES, MMC-6, 6.23.
pub(super) fn format_capacities(medium: Option<Medium>, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let mut data = vec![0, 0, 0, 8];
    let (blocks, size, kind) = match medium {
        // Formatted media; no media.
        Some(m) => (m.blocks.min(u32::MAX.into()) as u32, m.block_size, 2),
        None => (u32::MAX, 512, 3),
    };
    data.extend(blocks.to_be_bytes());
    data.push(kind);
    data.extend(&size.to_be_bytes()[1..]);
    Ok(reply(data, be16(cdb, 7).into()))
}

/// WRITE SAME, SBC-3, 5.44 and 5.45.
fn write_same(medium: Medium, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let sixteen = cdb[0] == operation::WRITE_SAME_16;
    let (lba, blocks) = extent(cdb);
    // ANCHOR and the obsolete bits; WSNZ says that 0 blocks is no request.
    if cdb[1] & 0x16 != 0 || blocks == 0 || blocks > MOST_WRITE_SAME {
        return Err(sense::INVALID_FIELD_IN_CDB);
    }
    protection(cdb)?;
    let (offset, length) = medium.bytes((lba, blocks))?;
    writable(medium)?;
    if sixteen && cdb[1] & NDOB != 0 {
        return Ok(Action::Work(Work::Zero {
            offset,
            length,
            may_unmap: cdb[1] & UNMAP != 0,
        }));
    }
    Ok(Action::Parameters {
        length: medium.block_size,
        of: *cdb,
    })
}

/// The parameters of UNMAP and WRITE SAME.
pub(super) fn parameters(medium: Medium, cdb: &[u8; 16], data: &[u8]) -> Result<Action, Sense> {
    if cdb[0] != operation::UNMAP {
        let (offset, length) = medium.bytes(extent(cdb))?;
        let zero = data.iter().all(|&b| b == 0);
        return Ok(Action::Work(if zero {
            Work::Zero {
                offset,
                length,
                may_unmap: cdb[1] & UNMAP != 0,
            }
        } else {
            Work::Fill {
                offset,
                length,
                block: data.to_vec(),
            }
        }));
    }
    if data.len() < 8 {
        return Err(sense::PARAMETER_LIST_LENGTH_ERROR);
    }
    let length = usize::from(be16(data, 2)).min(data.len() - 8);
    let mut ranges = Vec::new();
    for descriptor in data[8..8 + length].chunks_exact(16) {
        if ranges.len() >= MOST_UNMAP_DESCRIPTORS as usize {
            return Err(sense::INVALID_FIELD_IN_PARAMETERS);
        }
        ranges.push(medium.bytes((be64(descriptor, 0), be32(descriptor, 8).into()))?);
    }
    ranges.retain(|&(_, length)| length != 0);
    Ok(if ranges.is_empty() {
        Action::Done
    } else {
        Action::Work(Work::Discard(ranges))
    })
}

/// VPD page 0xb0, SBC-3, 6.6.4; from byte 4 on.
pub(super) fn limits() -> Vec<u8> {
    let mut body = vec![0; 60];
    body[0] = 1; // WSNZ
    body[16..20].copy_from_slice(&u32::MAX.to_be_bytes()); // blocks in one UNMAP
    body[20..24].copy_from_slice(&MOST_UNMAP_DESCRIPTORS.to_be_bytes());
    body[24..28].copy_from_slice(&8u32.to_be_bytes()); // optimal unmap granularity: 4 KiB
    body[32..40].copy_from_slice(&MOST_WRITE_SAME.to_be_bytes());
    body
}
