//! Discs as Windows' are laid out: an ISO 9660 volume with a note, and a UDF 1.02 volume with everything, whose files may have
//! any size (ECMA-119, ECMA-167, OSTA UDF 1.02; "El Torito" for what boots).
//!
//! | sectors | what |
//! |---|---|
//! | 16, 17, 18 | primary volume descriptor, boot record, terminator of ISO 9660 |
//! | 19, 20, 21 | `BEA01`, `NSR02`, `TEA01` |
//! | 22 | boot catalog |
//! | 23 to 26 | path tables, top folder and note of ISO 9660 |
//! | 32 to 37, 48 to 53 | volume descriptor sequences |
//! | 64 | integrity sequence |
//! | 256 | anchor |
//! | from 257 | the partition: file set, file entries and folders, then contents |
//! | last | anchor |

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};
use crate::filesystem::names;
use crate::iso::SECTOR;
use crate::source::Shared;
use crate::udf::crc16;

const CATALOG: u64 = 22;
const NOTE: u64 = 26;
const SEQUENCES: [u64; 2] = [32, 48];
const SEQUENCE: u64 = 16;
const INTEGRITY: u64 = 64;
const ANCHOR: u64 = 256;
const PARTITION: u64 = 257;
/// An extent has 30 bits for its length; whole sectors.
const EXTENT: u64 = (1 << 30) - SECTOR;
/// Short descriptors that fit a file entry.
const EXTENTS: u64 = (SECTOR - 176) / 8;
const TEXT: &[u8] =
    b"This disc contains a \"UDF\" file system and requires an operating system\r\n\
that supports the ISO-13346 \"UDF\" file system specification.\r\n";

/// What a disc will hold.
pub struct Bridge {
    label: String,
    nodes: Vec<Entry>,
    boot: Option<(usize, Vec<usize>)>,
}

struct Entry {
    name: String,
    /// `None` for a folder.
    contents: Option<Shared>,
    children: Vec<usize>,
    parent: usize,
    /// Blocks of the partition: the file entry, and the contents.
    block: u64,
    data: u64,
    size: u64,
}

impl Bridge {
    /// An empty disc.
    pub fn new(label: &str) -> Bridge {
        let root = Entry {
            name: String::new(),
            contents: None,
            children: Vec::new(),
            parent: 0,
            block: 0,
            data: 0,
            size: 0,
        };
        Bridge {
            label: label.into(),
            nodes: vec![root],
            boot: None,
        }
    }

    /// Adds a file and the folders above it.
    pub fn add(&mut self, path: &str, contents: Shared) -> Result<usize> {
        let parts: Vec<&str> = names(path).collect();
        let mut at = 0;
        for (index, name) in parts.iter().enumerate() {
            let refused = |why: &str| Error::Unsupported(format!("{path}: {why}"));
            if *name == ".." || name.encode_utf16().count() > 126 {
                return Err(refused("UDF does not take such a name"));
            }
            let last = index + 1 == parts.len();
            let there = self.nodes[at]
                .children
                .iter()
                .copied()
                .find(|&child| self.nodes[child].name.eq_ignore_ascii_case(name));
            at = match there {
                Some(_) if last => return Err(refused("it is there already")),
                Some(child) if self.nodes[child].contents.is_some() => {
                    return Err(refused("a file is in the place of a folder"));
                }
                Some(child) => child,
                None => {
                    let size = if last { contents.size() } else { 0 };
                    if size.div_ceil(EXTENT) > EXTENTS {
                        return Err(refused("it is larger than the 200 GiB that fit here"));
                    }
                    let child = self.nodes.len();
                    self.nodes.push(Entry {
                        name: name.to_string(),
                        contents: last.then(|| contents.clone()),
                        children: Vec::new(),
                        parent: at,
                        block: 0,
                        data: 0,
                        size,
                    });
                    self.nodes[at].children.push(child);
                    child
                }
            };
        }
        if at == 0 {
            return Err(Error::Unsupported("a file needs a name".into()));
        }
        Ok(at)
    }

    /// Makes UEFI firmware boot a file that was added, a FAT image; `others` come behind it in the catalog.
    pub fn boot(&mut self, image: usize, others: &[usize]) {
        self.boot = Some((image, others.to_vec()));
    }

    /// Writes the disc. Zeroes of contents become holes of the file.
    pub fn write(mut self, to: &File) -> Result<()> {
        let blocks = self.place();
        let sectors = PARTITION + blocks + 1;
        to.set_len(sectors * SECTOR)?;
        let put = |sector: u64, bytes: &[u8]| -> Result<()> {
            Ok(to.write_all_at(bytes, sector * SECTOR)?)
        };
        self.iso(sectors, &put)?;
        self.volume(blocks, sectors, &put)?;
        self.files(&put)?;
        for node in &self.nodes {
            if let Some(contents) = &node.contents {
                copy(contents, to, (PARTITION + node.data) * SECTOR)?;
            }
        }
        Ok(())
    }

    /// Gives every file its place; the blocks of the partition.
    fn place(&mut self) -> u64 {
        // Blocks 0 and 1 are the file set and its terminator.
        let mut next = 2;
        let mut order = Vec::new();
        let mut pending = VecDeque::from([0]);
        while let Some(index) = pending.pop_front() {
            order.push(index);
            pending.extend(self.nodes[index].children.iter().copied());
        }
        for &index in &order {
            self.nodes[index].block = next;
            next += 1;
            if self.nodes[index].contents.is_none() {
                let size: usize = 40
                    + (self.nodes[index].children.iter())
                        .map(|&c| identifier_length(&self.nodes[c].name))
                        .sum::<usize>();
                self.nodes[index].size = size as u64;
                self.nodes[index].data = next;
                next += (size as u64).div_ceil(SECTOR);
            }
        }
        for &index in &order {
            if self.nodes[index].contents.is_some() {
                self.nodes[index].data = next;
                next += self.nodes[index].size.div_ceil(SECTOR);
            }
        }
        next
    }

    /// ISO 9660 with a note, and the boot catalog.
    fn iso(&self, sectors: u64, put: &dyn Fn(u64, &[u8]) -> Result<()>) -> Result<()> {
        let table = 10;
        let mut primary = super::iso::descriptor(
            &self.label,
            false,
            sectors as usize,
            table,
            [23, 24],
            25,
            SECTOR as usize,
        );
        // The second root record of the note's folder.
        let mut folder = Vec::new();
        for name in [[0], [1]] {
            folder.extend(super::iso::record(&name, 25, SECTOR as usize, true));
        }
        folder.extend(super::iso::record(
            b"README.TXT;1",
            NOTE as usize,
            TEXT.len(),
            false,
        ));
        primary.truncate(SECTOR as usize);
        put(16, &primary)?;
        let mut terminator = 18;
        if let Some((image, others)) = &self.boot {
            let mut record = vec![0; SECTOR as usize];
            record[1..6].copy_from_slice(b"CD001");
            record[6] = 1;
            record[7..30].copy_from_slice(b"EL TORITO SPECIFICATION");
            record[71..75].copy_from_slice(&(CATALOG as u32).to_le_bytes());
            put(17, &record)?;
            put(CATALOG, &self.catalog(*image, others))?;
        } else {
            terminator = 17;
        }
        put(terminator, b"\xFFCD001\x01")?;
        for (index, name) in [b"BEA01", b"NSR02", b"TEA01"].iter().enumerate() {
            let mut descriptor = vec![0];
            descriptor.extend(*name);
            descriptor.push(1);
            put(terminator + 1 + index as u64, &descriptor)?;
        }
        for (sector, big) in [(23, false), (24, true)] {
            let place = if big {
                25u32.to_be_bytes()
            } else {
                25u32.to_le_bytes()
            };
            let parent = if big { [0, 1] } else { [1, 0] };
            put(sector, &[&[1, 0][..], &place, &parent, &[0, 0]].concat())?;
        }
        put(25, &folder)?;
        put(NOTE, TEXT)
    }

    fn catalog(&self, image: usize, others: &[usize]) -> Vec<u8> {
        let mut bytes = vec![1, 0xEF, 0, 0];
        bytes.resize(30, 0);
        bytes.extend([0x55, 0xAA]);
        let sum = bytes.chunks_exact(2).fold(0u16, |sum, w| {
            sum.wrapping_add(u16::from_le_bytes([w[0], w[1]]))
        });
        bytes[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
        let entry = |index: usize, bytes: &mut Vec<u8>| {
            let node = &self.nodes[index];
            let start = (PARTITION + node.data) as u32;
            // What does not fit 16 bits is "to the end of the medium".
            let sectors = u16::try_from(node.size.div_ceil(512)).unwrap_or(0);
            let from = bytes.len();
            bytes.extend([0x88, 0, 0, 0, 0, 0]);
            bytes.extend(sectors.to_le_bytes());
            bytes.extend(start.to_le_bytes());
            bytes.resize(from + 32, 0);
        };
        entry(image, &mut bytes);
        for (index, &other) in others.iter().enumerate() {
            let last = index + 1 == others.len();
            bytes.extend([if last { 0x91 } else { 0x90 }, 0xEF, 1, 0]);
            bytes.resize(bytes.len() + 28, 0);
            entry(other, &mut bytes);
        }
        bytes
    }

    /// Anchors, both volume descriptor sequences, and the integrity descriptor (ECMA-167 3/10, 4/14.1; UDF 2.2).
    fn volume(
        &self,
        blocks: u64,
        sectors: u64,
        put: &dyn Fn(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut anchor = vec![0; 512];
        for (at, first) in SEQUENCES.into_iter().enumerate() {
            let at = 16 + at * 8;
            anchor[at..at + 4].copy_from_slice(&((SEQUENCE * SECTOR) as u32).to_le_bytes());
            anchor[at + 4..at + 8].copy_from_slice(&(first as u32).to_le_bytes());
        }
        for sector in [ANCHOR, sectors - 1] {
            put(sector, &tagged(2, sector, anchor.clone()))?;
        }
        for first in SEQUENCES {
            let descriptors = [
                (1, self.primary()),
                (4, implementation(&self.label)),
                (5, partition(blocks)),
                (6, self.logical()),
                (7, unallocated()),
                (8, vec![0; 512]),
            ];
            for (index, (tag, bytes)) in descriptors.into_iter().enumerate() {
                let sector = first + index as u64;
                let mut bytes = bytes;
                if !matches!(tag, 2 | 8) {
                    let number = (index as u32).to_le_bytes();
                    bytes[16..20].copy_from_slice(&number);
                }
                put(sector, &tagged(tag, sector, bytes))?;
            }
        }
        let (folders, files) =
            self.nodes
                .iter()
                .fold((0u32, 0u32), |(d, f), node| match node.contents {
                    None => (d + 1, f),
                    Some(_) => (d, f + 1),
                });
        let mut integrity = vec![0; 88];
        integrity[16..28].copy_from_slice(&TIME);
        // Closed; the next identifier of a file; one partition, without free space.
        integrity[28..32].copy_from_slice(&1u32.to_le_bytes());
        integrity[40..48].copy_from_slice(&(self.nodes.len() as u64 + 16).to_le_bytes());
        integrity[72..76].copy_from_slice(&1u32.to_le_bytes());
        integrity[76..80].copy_from_slice(&46u32.to_le_bytes());
        integrity[84..88].copy_from_slice(&(blocks as u32).to_le_bytes());
        integrity.extend(entity(b"*Dormer"));
        integrity.extend(files.to_le_bytes());
        integrity.extend(folders.to_le_bytes());
        for revision in [0x0102u16; 3] {
            integrity.extend(revision.to_le_bytes());
        }
        put(INTEGRITY, &tagged(9, INTEGRITY, integrity))?;
        put(INTEGRITY + 1, &tagged(8, INTEGRITY + 1, vec![0; 512]))
    }

    fn primary(&self) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[24..56].copy_from_slice(&dstring(&self.label, 32));
        for at in [56, 58] {
            bytes[at..at + 2].copy_from_slice(&1u16.to_le_bytes());
        }
        bytes[60..62].copy_from_slice(&2u16.to_le_bytes());
        bytes[62..64].copy_from_slice(&3u16.to_le_bytes());
        for at in [64, 68] {
            bytes[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
        }
        bytes[72..200].copy_from_slice(&dstring(&format!("0000000000000000{}", self.label), 128));
        bytes[200..264].copy_from_slice(&charset());
        bytes[264..328].copy_from_slice(&charset());
        bytes[376..388].copy_from_slice(&TIME);
        bytes[388..420].copy_from_slice(&entity(b"*Dormer"));
        bytes
    }

    fn logical(&self) -> Vec<u8> {
        let mut bytes = vec![0; 446];
        bytes[20..84].copy_from_slice(&charset());
        bytes[84..212].copy_from_slice(&dstring(&self.label, 128));
        bytes[212..216].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        bytes[216..248].copy_from_slice(&domain());
        // The file set: one block of partition 0.
        bytes[248..252].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        bytes[264..268].copy_from_slice(&6u32.to_le_bytes());
        bytes[268..272].copy_from_slice(&1u32.to_le_bytes());
        bytes[272..304].copy_from_slice(&entity(b"*Dormer"));
        bytes[432..436].copy_from_slice(&((2 * SECTOR) as u32).to_le_bytes());
        bytes[436..440].copy_from_slice(&(INTEGRITY as u32).to_le_bytes());
        bytes[440..446].copy_from_slice(&[1, 6, 1, 0, 0, 0]);
        bytes
    }

    /// The file set, file entries and folders (ECMA-167 4/14).
    fn files(&self, put: &dyn Fn(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut set = vec![0; 512];
        set[16..28].copy_from_slice(&TIME);
        for at in [28, 30] {
            set[at..at + 2].copy_from_slice(&3u16.to_le_bytes());
        }
        for at in [32, 36] {
            set[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
        }
        set[48..112].copy_from_slice(&charset());
        set[112..240].copy_from_slice(&dstring(&self.label, 128));
        set[240..304].copy_from_slice(&charset());
        set[304..336].copy_from_slice(&dstring(&self.label, 32));
        set[400..416].copy_from_slice(&long_place(self.nodes[0].block, 0));
        set[416..448].copy_from_slice(&domain());
        put(PARTITION, &tagged(256, 0, set))?;
        put(PARTITION + 1, &tagged(8, 1, vec![0; 512]))?;
        for (index, node) in self.nodes.iter().enumerate() {
            put(PARTITION + node.block, &self.entry(index))?;
            if node.contents.is_some() {
                continue;
            }
            let mut folder = Vec::new();
            let block = |at: &Vec<u8>| node.data + at.len() as u64 / SECTOR;
            let parent = node.parent;
            let to = long_place(self.nodes[parent].block, unique(parent));
            folder.extend(file_identifier(0x0A, "", &to, block(&folder)));
            for &child in &node.children {
                let inner = &self.nodes[child];
                let kind = if inner.contents.is_none() { 2 } else { 0 };
                let to = long_place(inner.block, unique(child));
                folder.extend(file_identifier(kind, &inner.name, &to, block(&folder)));
            }
            put(PARTITION + node.data, &folder)?;
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Vec<u8> {
        let node = &self.nodes[index];
        let folders = (node.children.iter())
            .filter(|&&c| self.nodes[c].contents.is_none())
            .count();
        let mut bytes = vec![0; 176];
        // Strategy 4, one entry.
        bytes[20..22].copy_from_slice(&4u16.to_le_bytes());
        bytes[24..26].copy_from_slice(&1u16.to_le_bytes());
        bytes[27] = if node.contents.is_none() { 4 } else { 5 };
        for at in [36, 40] {
            bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        }
        // Everyone may read and look through.
        bytes[44..48].copy_from_slice(&0x14A5u32.to_le_bytes());
        let links = 1 + folders as u16;
        bytes[48..50].copy_from_slice(&links.to_le_bytes());
        bytes[56..64].copy_from_slice(&node.size.to_le_bytes());
        bytes[64..72].copy_from_slice(&node.size.div_ceil(SECTOR).to_le_bytes());
        for at in [72, 84, 96] {
            bytes[at..at + 12].copy_from_slice(&TIME);
        }
        bytes[108..112].copy_from_slice(&1u32.to_le_bytes());
        bytes[128..160].copy_from_slice(&entity(b"*Dormer"));
        bytes[160..168].copy_from_slice(&u64::from(unique(index)).to_le_bytes());
        let mut left = node.size;
        let mut at = node.data;
        while left > 0 {
            let length = left.min(EXTENT);
            bytes.extend((length as u32).to_le_bytes());
            bytes.extend((at as u32).to_le_bytes());
            at += length / SECTOR;
            left -= length;
        }
        let descriptors = (bytes.len() - 176) as u32;
        bytes[172..176].copy_from_slice(&descriptors.to_le_bytes());
        tagged(261, node.block, bytes)
    }
}

/// Copies contents; what is zero is left out.
fn copy(contents: &Shared, to: &File, at: u64) -> Result<()> {
    const PART: u64 = 1 << 20;
    let mut buffer = vec![0; PART as usize];
    let mut done = 0;
    while done < contents.size() {
        if let Some(hole) = contents.hole(done) {
            done += hole;
            continue;
        }
        let length = (contents.size() - done).min(PART) as usize;
        contents.read_at(done, &mut buffer[..length])?;
        if buffer[..length].iter().any(|&byte| byte != 0) {
            to.write_all_at(&buffer[..length], at + done)?;
        }
        done += length as u64;
    }
    Ok(())
}

/// The identifier of a file (UDF 2.3.6.5): 0 for the top folder, 16 and more for others.
fn unique(index: usize) -> u32 {
    if index == 0 { 0 } else { index as u32 + 15 }
}

/// 1 January 2024, UTC (ECMA-167 1/7.3).
const TIME: [u8; 12] = [0, 0x10, 0xE8, 0x07, 1, 1, 0, 0, 0, 0, 0, 0];

/// Puts the tag of version 2 before a descriptor (ECMA-167 3/7.2), whose first 16 bytes are for it.
fn tagged(tag: u16, location: u64, mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc16(&bytes[16..]);
    bytes[..2].copy_from_slice(&tag.to_le_bytes());
    bytes[2..4].copy_from_slice(&2u16.to_le_bytes());
    bytes[8..10].copy_from_slice(&crc.to_le_bytes());
    let length = (bytes.len() - 16) as u16;
    bytes[10..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..16].copy_from_slice(&(location as u32).to_le_bytes());
    bytes[4] = 0;
    bytes[4] = bytes[..16]
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    bytes
}

/// An entity identifier (ECMA-167 1/7.4).
fn entity(name: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[1..1 + name.len()].copy_from_slice(name);
    bytes
}

/// The domain of UDF 1.02 (UDF 2.1.5.2).
fn domain() -> [u8; 32] {
    let mut bytes = entity(b"*OSTA UDF Compliant");
    bytes[24..26].copy_from_slice(&0x0102u16.to_le_bytes());
    bytes
}

/// CS0 (UDF 2.1.2).
fn charset() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[1..24].copy_from_slice(b"OSTA Compressed Unicode");
    bytes
}

/// OSTA Compressed Unicode (UDF 2.1.1).
fn compressed_unicode(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    if text.chars().all(|c| u32::from(c) < 256) {
        return std::iter::once(8)
            .chain(text.chars().map(|c| u32::from(c) as u8))
            .collect();
    }
    let units = text.encode_utf16().flat_map(u16::to_be_bytes);
    std::iter::once(16).chain(units).collect()
}

fn dstring(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = compressed_unicode(text);
    bytes.truncate(length - 1);
    let used = bytes.len() as u8;
    bytes.resize(length, 0);
    bytes[length - 1] = used;
    bytes
}

/// A long allocation descriptor of one block (ECMA-167 4/14.14.2).
fn long_place(block: u64, unique: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&(SECTOR as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&(block as u32).to_le_bytes());
    bytes[12..16].copy_from_slice(&unique.to_le_bytes());
    bytes
}

fn identifier_length(name: &str) -> usize {
    (38 + compressed_unicode(name).len()).next_multiple_of(4)
}

/// A file identifier descriptor (ECMA-167 4/14.4) that begins in `block`.
fn file_identifier(characteristics: u8, name: &str, to: &[u8; 16], block: u64) -> Vec<u8> {
    let name = compressed_unicode(name);
    let mut bytes = vec![0; 38];
    bytes[16..18].copy_from_slice(&1u16.to_le_bytes());
    bytes[18] = characteristics;
    bytes[19] = name.len() as u8;
    bytes[20..36].copy_from_slice(to);
    bytes.extend(&name);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    tagged(257, block, bytes)
}

/// Whose volume it is (UDF 2.2.7).
fn implementation(label: &str) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    let mut id = entity(b"*UDF LV Info");
    id[24..26].copy_from_slice(&0x0102u16.to_le_bytes());
    bytes[20..52].copy_from_slice(&id);
    bytes[52..116].copy_from_slice(&charset());
    bytes[116..244].copy_from_slice(&dstring(label, 128));
    bytes[352..384].copy_from_slice(&entity(b"*Dormer"));
    bytes
}

fn partition(blocks: u64) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[20..22].copy_from_slice(&1u16.to_le_bytes());
    bytes[24..56].copy_from_slice(&entity(b"+NSR02"));
    // Read only.
    bytes[184..188].copy_from_slice(&1u32.to_le_bytes());
    bytes[188..192].copy_from_slice(&(PARTITION as u32).to_le_bytes());
    bytes[192..196].copy_from_slice(&(blocks as u32).to_le_bytes());
    bytes[196..228].copy_from_slice(&entity(b"*Dormer"));
    bytes
}

fn unallocated() -> Vec<u8> {
    vec![0; 24]
}
