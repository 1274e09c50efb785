//! UDF (ECMA-167 and OSTA UDF 1.02 to 2.01) on media with sectors of 2048 bytes: type 1 partitions, files of any number of
//! extents.

mod descriptor;

use std::sync::Arc;

pub use descriptor::crc16;
use descriptor::{Descriptor, tag};

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::filesystem::{Entry, FileSystem, Node};
use crate::iso::SECTOR;
use crate::source::{Extents, Run, Shared};

/// Bytes of a folder beyond which it counts as damaged.
const FOLDER: u64 = 16 << 20;
/// Allocation descriptors of one file beyond which it counts as damaged.
const RUNS: usize = 1 << 18;
/// Bits 30 and 31 of an extent's length say what is recorded there (ECMA-167 4/14.14.1.1).
const LENGTH: u32 = 0x3FFF_FFFF;

/// A UDF volume.
pub struct Udf {
    source: Shared,
    pub label: String,
    /// Binary-coded decimal: 0x0102 is 1.02.
    pub revision: u16,
    partitions: Vec<Partition>,
    root: Node,
    /// Sectors from the medium's start to the end of its last partition.
    pub sectors: u64,
}

#[derive(Clone, Copy)]
struct Partition {
    /// In sectors.
    start: u64,
    length: u64,
}

impl Udf {
    /// Reads the anchor and the volume descriptor sequence it points to.
    pub fn read(source: &Shared) -> Result<Udf> {
        let anchor = anchor(source)?;
        let main = (anchor.le32(16)?, anchor.le32(20)?);
        let reserve = (anchor.le32(24)?, anchor.le32(28)?);
        match Self::sequence(source, main) {
            Ok(udf) => Ok(udf),
            Err(error) => Self::sequence(source, reserve).map_err(|_| error),
        }
    }

    /// A volume descriptor sequence: its bytes and first sector (ECMA-167 3/8.4).
    fn sequence(source: &Shared, (length, first): (u32, u32)) -> Result<Udf> {
        const WHAT: &str = "the UDF volume descriptor sequence";
        let mut recorded: Vec<(u16, Partition)> = Vec::new();
        let mut logical: Option<Descriptor> = None;
        for index in 0..u64::from(length).div_ceil(SECTOR).min(256) {
            let sector = u64::from(first) + index;
            let descriptor = match Descriptor::read(source, sector * SECTOR, sector as u32) {
                Ok(descriptor) => descriptor,
                Err(error @ Error::Truncated { .. }) => return Err(error),
                Err(_) => continue,
            };
            match descriptor.tag {
                tag::PARTITION => recorded.push((
                    descriptor.le16(22)?,
                    Partition {
                        start: descriptor.le32(188)?.into(),
                        length: descriptor.le32(192)?.into(),
                    },
                )),
                tag::LOGICAL_VOLUME => logical = Some(descriptor),
                tag::TERMINATING => break,
                _ => {}
            }
        }
        let at = u64::from(first) * SECTOR;
        let Some(logical) = logical else {
            return Err(Error::damaged(WHAT, at, "no logical volume descriptor"));
        };
        let block = logical.le32(212)?;
        if u64::from(block) != SECTOR {
            return Err(Error::Unsupported(format!(
                "a UDF volume with blocks of {block} bytes; discs have 2048"
            )));
        }
        let maps = logical.span(440, logical.le32(264)? as usize)?;
        let mut partitions = Vec::new();
        let mut at_map = 0;
        while at_map < maps.len() {
            let (kind, length) = (maps[at_map], usize::from(maps.byte(at_map + 1)?));
            if kind != 1 || length != 6 {
                let name = maps.span(at_map, length).ok().and_then(|m| m.get(5..28));
                let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                return Err(Error::Unsupported(format!(
                    "a UDF volume with a partition of type {kind} ({}); install media have plain ones",
                    name.trim_matches('\0')
                )));
            }
            let number = maps.le16(at_map + 4)?;
            let partition = recorded
                .iter()
                .find(|(n, _)| *n == number)
                .ok_or_else(|| Error::damaged(WHAT, at, format!("no partition {number}")))?;
            partitions.push(partition.1);
            at_map += length;
        }
        let end = partitions.iter().map(|p| p.start + p.length).max();
        let mut udf = Udf {
            source: source.clone(),
            label: dstring(logical.span(84, 128)?),
            revision: logical.le16(216 + 24)?,
            partitions,
            root: Node(0),
            sectors: end.unwrap_or(0),
        };
        let (block, partition) = (logical.le32(248 + 4)?, logical.le16(248 + 8)?);
        let set = udf.descriptor(block, partition, &[tag::FILE_SET])?;
        udf.root = node(set.le32(400 + 4)?, set.le16(400 + 8)?);
        Ok(udf)
    }

    fn place(&self, block: u32, partition: u16, length: u64) -> Result<u64> {
        let part = self.partitions.get(usize::from(partition));
        match part {
            Some(part) if u64::from(block) * SECTOR + length <= part.length * SECTOR => {
                Ok((part.start + u64::from(block)) * SECTOR)
            }
            _ => Err(Error::damaged(
                "an extent of UDF",
                u64::from(block) * SECTOR,
                format!("block {block} of partition {partition} is outside of it"),
            )),
        }
    }

    fn descriptor(&self, block: u32, partition: u16, tags: &[u16]) -> Result<Descriptor> {
        let at = self.place(block, partition, SECTOR)?;
        let descriptor = Descriptor::read(&self.source, at, block)?;
        if !tags.contains(&descriptor.tag) {
            return Err(Error::damaged(
                "a UDF descriptor",
                at,
                format!("its tag is {}, not {tags:?}", descriptor.tag),
            ));
        }
        Ok(descriptor)
    }

    fn file(&self, file: Node) -> Result<File> {
        let (block, partition) = split(file);
        let entry = self.descriptor(
            block,
            partition,
            &[tag::FILE_ENTRY, tag::EXTENDED_FILE_ENTRY],
        )?;
        let extended = entry.tag == tag::EXTENDED_FILE_ENTRY;
        let (time, attributes, fixed) = if extended {
            (92, 208, 216)
        } else {
            (84, 168, 176)
        };
        let size = entry.le64(56)?;
        let attributes_length = entry.le32(attributes)? as usize;
        let length = entry.le32(attributes + 4)? as usize;
        let start = fixed + attributes_length.min(SECTOR as usize);
        let allocation = entry.span(start, length)?;
        let flags = entry.le16(16 + 18)?;
        let kind = entry[16 + 11];
        let mut file = File {
            directory: kind == 4,
            size,
            modified: timestamp(entry.span(time, 12)?),
            runs: Vec::new(),
        };
        if flags & 7 == 3 {
            file.runs.push(Run {
                at: Some(entry.at + start as u64),
                length: length as u64,
            });
            return Ok(file);
        }
        let mut chain = allocation.to_vec();
        let mut extents = 0;
        'chain: loop {
            let each = match flags & 7 {
                0 => 8,
                1 => 16,
                other => {
                    return Err(Error::Unsupported(format!(
                        "a UDF file with allocation descriptors of kind {other}"
                    )));
                }
            };
            for one in chain.chunks_exact(each) {
                let length = one.le32(0)?;
                let at = one.le32(4)?;
                let partition = if each == 16 { one.le16(8)? } else { partition };
                let (kind, length) = (length >> 30, length & LENGTH);
                if length == 0 {
                    break 'chain;
                }
                extents += 1;
                if extents > RUNS {
                    return Err(Error::damaged(
                        "a UDF file",
                        entry.at,
                        "its extents have no end",
                    ));
                }
                match kind {
                    0 => file.runs.push(Run {
                        at: Some(self.place(at, partition, length.into())?),
                        length: length.into(),
                    }),
                    1 | 2 => file.runs.push(Run {
                        at: None,
                        length: length.into(),
                    }),
                    _ => {
                        let more = self.descriptor(at, partition, &[tag::ALLOCATION_EXTENT])?;
                        let length = more.le32(20)? as usize;
                        chain = more.span(24, length)?.to_vec();
                        continue 'chain;
                    }
                }
            }
            break;
        }
        Ok(file)
    }
}

impl FileSystem for Udf {
    fn name(&self) -> String {
        format!("UDF {:x}.{:02x}", self.revision >> 8, self.revision & 0xFF)
    }

    fn root(&self) -> Node {
        self.root
    }

    fn list(&self, folder: Node) -> Result<Vec<Entry>> {
        const WHAT: &str = "a UDF folder";
        let file = self.file(folder)?;
        let (block, _) = split(folder);
        if !file.directory {
            return Err(Error::damaged(WHAT, block.into(), "it is a file"));
        }
        if file.size > FOLDER {
            return Err(Error::damaged(
                WHAT,
                block.into(),
                format!("it claims {} bytes", file.size),
            ));
        }
        let contents: Shared = Arc::new(Extents::new(self.source.clone(), file.runs, file.size)?);
        let bytes = contents.read_vec(0, file.size as usize)?;
        let mut entries = Vec::new();
        let mut at = 0;
        while at + 38 <= bytes.len() {
            // File identifier descriptors may straddle blocks, so they are checked as bytes (ECMA-167 4/14.4).
            let rest = &bytes[at..];
            descriptor::check(rest, at as u64)?;
            if rest.le16(0)? != tag::FILE_IDENTIFIER {
                return Err(Error::damaged(WHAT, at as u64, "no file identifier"));
            }
            let characteristics = rest[18];
            let name_length = usize::from(rest[19]);
            let use_length = usize::from(rest.le16(36)?);
            let name = compressed_unicode(rest.span(38 + use_length, name_length)?);
            let child = node(rest.le32(24)?, rest.le16(28)?);
            at += (38 + use_length + name_length).next_multiple_of(4);
            // Deleted, and the parent (ECMA-167 4/14.4.3).
            if characteristics & (1 << 2 | 1 << 3) != 0 {
                continue;
            }
            if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
                return Err(Error::damaged(WHAT, at as u64, "a name that is no name"));
            }
            let file = self.file(child)?;
            let mut entry = Entry::plain(name, file.directory, file.size, child);
            entry.modified = file.modified;
            entries.push(entry);
        }
        Ok(entries)
    }

    fn open(&self, file: Node) -> Result<Shared> {
        let file = self.file(file)?;
        Ok(Arc::new(Extents::new(
            self.source.clone(),
            file.runs,
            file.size,
        )?))
    }

    fn order(&self, file: Node) -> u64 {
        self.file(file)
            .ok()
            .and_then(|file| file.runs.first()?.at)
            .unwrap_or(0)
    }
}

struct File {
    directory: bool,
    size: u64,
    modified: Option<i64>,
    runs: Vec<Run>,
}

fn node(block: u32, partition: u16) -> Node {
    Node(u64::from(block) | u64::from(partition) << 32)
}

fn split(node: Node) -> (u32, u16) {
    (node.0 as u32, (node.0 >> 32) as u16)
}

/// The anchor: at sector 256, at the last, or 256 before it (ECMA-167 3/8.4.2.1).
fn anchor(source: &Shared) -> Result<Descriptor> {
    let sectors = source.size() / SECTOR;
    let mut first = None;
    for sector in [256, sectors.wrapping_sub(1), sectors.wrapping_sub(257)] {
        match Descriptor::read(source, sector.saturating_mul(SECTOR), sector as u32) {
            Ok(descriptor) if descriptor.tag == tag::ANCHOR => return Ok(descriptor),
            Ok(descriptor) => {
                first.get_or_insert(Error::damaged(
                    "the UDF anchor",
                    descriptor.at,
                    "another descriptor is there",
                ));
            }
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| Error::NotFound("a UDF anchor".into())))
}

/// A fixed-length field whose last byte is its length (UDF 2.1.3).
fn dstring(field: &[u8]) -> String {
    let Some((&length, text)) = field.split_last() else {
        return String::new();
    };
    compressed_unicode(&text[..usize::from(length).min(text.len())])
}

/// OSTA Compressed Unicode (UDF 2.1.1): the first byte says whether characters have 8 or 16 bits.
fn compressed_unicode(bytes: &[u8]) -> String {
    let Some((&kind, text)) = bytes.split_first() else {
        return String::new();
    };
    if kind == 16 || kind == 255 {
        let units = text
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        char::decode_utf16(units)
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    } else {
        text.iter().map(|&b| char::from(b)).collect()
    }
}

/// Seconds since 1970 of a timestamp (ECMA-167 1/7.3).
fn timestamp(bytes: &[u8]) -> Option<i64> {
    let zone = bytes.le16(0).ok()?;
    let year = bytes.le16(2).ok()? as i16;
    let (month, day) = (bytes[4], bytes[5]);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = crate::time::days(year.into(), month.into(), day.into());
    let local =
        days * 86400 + i64::from(bytes[6]) * 3600 + i64::from(bytes[7]) * 60 + i64::from(bytes[8]);
    // Twelve bits, signed, minutes; −2047 is "not said".
    let minutes = i64::from(((zone << 4) as i16) >> 4);
    let minutes = if zone >> 12 == 1 && minutes != -2047 {
        minutes
    } else {
        0
    };
    Some(local - minutes * 60)
}
