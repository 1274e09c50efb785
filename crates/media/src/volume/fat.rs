//! FAT12 and FAT16 without partitions ("FAT: General Overview of On-Disk Format", Microsoft, 1.03).

use super::{Files, Folder, Item, short_name};
use crate::error::{Error, Result};

const SECTOR: usize = 512;
const ROOT_ENTRIES: usize = 512;
/// 1 January 2024, 00:00: volumes of the same files are the same bytes.
const DATE: u16 = (2024 - 1980) << 9 | 1 << 5 | 1;

/// A volume of at least `size` bytes; larger if the files need it.
pub fn fat(label: &str, files: &Files, size: usize) -> Result<Vec<u8>> {
    let geometry = Geometry::fitting(files, size)?;
    let mut volume = Volume {
        image: vec![0; geometry.sectors * SECTOR],
        next: 2,
        geometry,
    };
    let label: String = label
        .chars()
        .map(|c| c.to_ascii_uppercase())
        .filter(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_')
        .take(11)
        .collect();
    let label = format!("{label:<11}").into_bytes();
    volume.boot_sector(&label);
    let mut root = vec![0; 32];
    root[..11].copy_from_slice(&label);
    root[11] = 8;
    root[24..26].copy_from_slice(&DATE.to_le_bytes());
    volume.entries(&files.0, 0, &mut root)?;
    if root.len() > ROOT_ENTRIES * 32 {
        return Err(Error::Unsupported(
            "too many files in the top folder of a FAT volume".into(),
        ));
    }
    let at = volume.geometry.root();
    volume.image[at..at + root.len()].copy_from_slice(&root);
    // The first two entries are the media descriptor and an end mark.
    volume.set(0, 0xFFF8);
    volume.set(1, 0xFFFF);
    let table = volume.geometry.table * SECTOR;
    let first = volume.image[SECTOR..SECTOR + table].to_vec();
    volume.image[SECTOR + table..SECTOR + 2 * table].copy_from_slice(&first);
    Ok(volume.image)
}

struct Geometry {
    sectors: usize,
    /// Sectors of a cluster and of each of the two tables.
    cluster: usize,
    table: usize,
    wide: bool,
}

impl Geometry {
    /// The smallest volume of at least `size` bytes with room for the files.
    fn fitting(files: &Files, size: usize) -> Result<Geometry> {
        let mut sectors = size.div_ceil(SECTOR).max(128);
        loop {
            let cluster = match sectors {
                0..=8192 => 1,
                8193..=65536 => 4,
                65537..=262_144 => 8,
                262_145..=1_048_576 => 32,
                _ => 64,
            };
            // The count of clusters decides between 12 and 16 bits; the table's size follows from either.
            let mut geometry = None;
            for wide in [false, true] {
                let mut table = 1;
                loop {
                    let before = 1 + 2 * table + ROOT_ENTRIES * 32 / SECTOR;
                    let clusters = sectors.saturating_sub(before) / cluster;
                    let bytes = if wide {
                        (clusters + 2) * 2
                    } else {
                        ((clusters + 2) * 3).div_ceil(2)
                    };
                    if bytes <= table * SECTOR {
                        if wide == (clusters >= 4085) && clusters < 65_525 {
                            geometry = Some(Geometry {
                                sectors,
                                cluster,
                                table,
                                wide,
                            });
                        }
                        break;
                    }
                    table = bytes.div_ceil(SECTOR);
                }
            }
            let Some(geometry) = geometry else {
                sectors += 64;
                if sectors > 1 << 22 {
                    return Err(Error::Unsupported(
                        "files of more than 2 GiB for FAT".into(),
                    ));
                }
                continue;
            };
            let needed = clusters_of(&files.0, geometry.cluster * SECTOR, true);
            let short = needed.saturating_sub(geometry.clusters());
            if short == 0 {
                return Ok(geometry);
            }
            sectors += (short * geometry.cluster).max(64);
            if sectors > 1 << 22 {
                return Err(Error::Unsupported(
                    "files of more than 2 GiB for FAT".into(),
                ));
            }
        }
    }

    fn root(&self) -> usize {
        (1 + 2 * self.table) * SECTOR
    }

    fn data(&self) -> usize {
        self.root() + ROOT_ENTRIES * 32
    }

    fn clusters(&self) -> usize {
        (self.sectors - self.data() / SECTOR) / self.cluster
    }
}

/// Clusters that a folder's contents take; its own too unless it is the top one.
fn clusters_of(folder: &Folder, cluster: usize, top: bool) -> usize {
    let mut entries = 2;
    let mut clusters = 0;
    for (name, item) in &folder.entries {
        entries += 1 + name.encode_utf16().count().div_ceil(13);
        clusters += match item {
            Item::File(bytes) => bytes.len().div_ceil(cluster),
            Item::Folder(inner) => clusters_of(inner, cluster, false),
        };
    }
    if top {
        clusters
    } else {
        clusters + (entries * 32).div_ceil(cluster)
    }
}

struct Volume {
    image: Vec<u8>,
    geometry: Geometry,
    next: usize,
}

impl Volume {
    fn boot_sector(&mut self, label: &[u8]) {
        let g = &self.geometry;
        let mut boot = vec![0u8; SECTOR];
        boot[..3].copy_from_slice(&[0xEB, 0x3C, 0x90]);
        boot[3..11].copy_from_slice(b"MSDOS5.0");
        boot[11..13].copy_from_slice(&(SECTOR as u16).to_le_bytes());
        boot[13] = g.cluster as u8;
        boot[14] = 1;
        boot[16] = 2;
        boot[17..19].copy_from_slice(&(ROOT_ENTRIES as u16).to_le_bytes());
        match u16::try_from(g.sectors) {
            Ok(sectors) => boot[19..21].copy_from_slice(&sectors.to_le_bytes()),
            Err(_) => boot[32..36].copy_from_slice(&(g.sectors as u32).to_le_bytes()),
        }
        boot[21] = 0xF8;
        boot[22..24].copy_from_slice(&(g.table as u16).to_le_bytes());
        boot[24] = 32;
        boot[26] = 64;
        boot[36] = 0x80;
        boot[38] = 0x29;
        boot[39..43].copy_from_slice(b"DRMR");
        boot[43..54].copy_from_slice(label);
        boot[54..62].copy_from_slice(if g.wide { b"FAT16   " } else { b"FAT12   " });
        // No program: INT 18h tells the firmware so.
        boot[62..66].copy_from_slice(&[0xCD, 0x18, 0xEB, 0xFE]);
        boot[510] = 0x55;
        boot[511] = 0xAA;
        self.image[..SECTOR].copy_from_slice(&boot);
    }

    fn set(&mut self, cluster: usize, value: u16) {
        let table = SECTOR;
        if self.geometry.wide {
            let at = table + cluster * 2;
            self.image[at..at + 2].copy_from_slice(&value.to_le_bytes());
            return;
        }
        let at = table + cluster + cluster / 2;
        let pair = u16::from_le_bytes([self.image[at], self.image[at + 1]]);
        let value = value & 0xFFF;
        let pair = if cluster.is_multiple_of(2) {
            pair & 0xF000 | value
        } else {
            pair & 0x000F | value << 4
        };
        self.image[at..at + 2].copy_from_slice(&pair.to_le_bytes());
    }

    /// Takes `count` clusters in a row, chained; the first.
    fn take(&mut self, count: usize) -> Result<usize> {
        let first = self.next;
        if first + count > self.geometry.clusters() + 2 {
            return Err(Error::Unsupported("the FAT volume is full".into()));
        }
        for cluster in first..first + count {
            let next = if cluster + 1 == first + count {
                0xFFFF
            } else {
                (cluster + 1) as u16
            };
            self.set(cluster, next);
        }
        self.next += count;
        Ok(first)
    }

    fn write(&mut self, first: usize, bytes: &[u8]) {
        let at = self.geometry.data() + (first - 2) * self.geometry.cluster * SECTOR;
        self.image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Appends the entries of a folder that begins at cluster `own` (0 for the top one).
    fn entries(&mut self, folder: &Folder, own: usize, into: &mut Vec<u8>) -> Result<()> {
        let cluster = self.geometry.cluster * SECTOR;
        let mut taken = Vec::new();
        for (name, item) in &folder.entries {
            let (short, exact) = short_name(name, &mut taken);
            let short = padded(&short);
            if !exact {
                into.extend(long_entries(name, &short));
            }
            let (attributes, first, size) = match item {
                Item::File(bytes) => {
                    let size = u32::try_from(bytes.len())
                        .map_err(|_| Error::Unsupported(format!("{name} is 4 GiB or more")))?;
                    let first = if bytes.is_empty() {
                        0
                    } else {
                        let first = self.take(bytes.len().div_ceil(cluster))?;
                        self.write(first, bytes);
                        first
                    };
                    (0x20, first, size)
                }
                Item::Folder(inner) => {
                    let alone = Folder {
                        entries: inner
                            .entries
                            .keys()
                            .map(|name| (name.clone(), Item::File(Vec::new())))
                            .collect(),
                    };
                    let first = self.take(clusters_of(&alone, cluster, false))?;
                    let mut bytes = entry(b".          ", 0x10, first, 0);
                    bytes.extend(entry(b"..         ", 0x10, own, 0));
                    self.entries(inner, first, &mut bytes)?;
                    self.write(first, &bytes);
                    (0x10, first, 0)
                }
            };
            into.extend(entry(&short, attributes, first, size));
        }
        Ok(())
    }
}

/// A short name as entries have it.
fn padded(short: &str) -> [u8; 11] {
    let mut bytes = [b' '; 11];
    let (base, extension) = short.rsplit_once('.').unwrap_or((short, ""));
    for (to, from) in bytes.iter_mut().zip(base.bytes().take(8)) {
        *to = from;
    }
    for (to, from) in bytes[8..].iter_mut().zip(extension.bytes().take(3)) {
        *to = from;
    }
    bytes
}

fn entry(name: &[u8; 11], attributes: u8, first: usize, size: u32) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[..11].copy_from_slice(name);
    bytes[11] = attributes;
    for at in [16, 18, 24] {
        bytes[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    bytes[26..28].copy_from_slice(&(first as u16).to_le_bytes());
    bytes[28..32].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// The pieces of a long name, last first (section 7).
fn long_entries(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let sum = short
        .iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let pieces = units.len().div_ceil(13);
    if !units.len().is_multiple_of(13) {
        units.push(0);
    }
    units.resize(pieces * 13, 0xFFFF);
    let mut bytes = Vec::new();
    for (index, piece) in units.chunks_exact(13).enumerate().rev() {
        let mut entry = [0; 32];
        entry[0] = (index + 1) as u8 | if index + 1 == pieces { 0x40 } else { 0 };
        entry[11] = 0x0F;
        entry[13] = sum;
        let places = (1..11)
            .step_by(2)
            .chain((14..26).step_by(2))
            .chain([28, 30]);
        for (at, unit) in places.zip(piece) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        bytes.extend(entry);
    }
    bytes
}
