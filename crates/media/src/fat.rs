//! FAT12, FAT16 and FAT32 with long names, for reading ("FAT: General Overview of On-Disk Format", Microsoft, 1.03).

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::filesystem::{Entry, FileSystem, Node};
use crate::source::{Extents, Run, Shared, Source};

const WHAT: &str = "the FAT file system";
/// Bytes of a folder beyond which it counts as damaged: 65536 entries are the most there can be.
const FOLDER: u64 = 2 << 20;

/// Bytes of the table that are read at once.
const WINDOW: u64 = 4096;

/// A FAT volume.
pub struct Fat {
    source: Shared,
    /// 12, 16 or 32.
    pub bits: u8,
    pub label: String,
    table: u64,
    table_length: u64,
    root: Root,
    data: u64,
    cluster: u64,
    clusters: u32,
    /// Bytes that the volume says it has.
    pub size: u64,
}

enum Root {
    Fixed { at: u64, length: u64 },
    Chain(u32),
}

impl Fat {
    /// Whether the first sector looks like a FAT volume's.
    pub fn probe(sector: &[u8]) -> bool {
        sector.len() >= 512
            && sector[510..512] == [0x55, 0xAA]
            && (sector[0] == 0xEB || sector[0] == 0xE9)
            && sector[13].is_power_of_two()
            && matches!(
                u16::from_le_bytes([sector[11], sector[12]]),
                512 | 1024 | 2048 | 4096
            )
            && (1..=2).contains(&sector[16])
            && sector[14..16] != [0, 0]
    }

    pub fn read(source: Shared) -> Result<Fat> {
        let boot = source.read_vec(0, 512)?;
        if !Self::probe(&boot) {
            return Err(Error::damaged(WHAT, 0, "no boot sector of FAT"));
        }
        let sector = u64::from(boot.le16(11)?);
        let per_cluster = u64::from(boot[13]);
        let reserved = u64::from(boot.le16(14)?);
        let tables = u64::from(boot[16]);
        let root_entries = u64::from(boot.le16(17)?);
        let total = match boot.le16(19)? {
            0 => u64::from(boot.le32(32)?),
            sectors => u64::from(sectors),
        };
        let table_sectors = match boot.le16(22)? {
            0 => u64::from(boot.le32(36)?),
            sectors => u64::from(sectors),
        };
        let root_sectors = (root_entries * 32).div_ceil(sector);
        let before = reserved + tables * table_sectors + root_sectors;
        let clusters = total.saturating_sub(before) / per_cluster;
        // A volume that is cut short keeps the width of its table and loses the clusters that are not there.
        let there = source.size().saturating_sub(before * sector) / (per_cluster * sector) + 1;
        if clusters == 0 || table_sectors == 0 {
            return Err(Error::damaged(WHAT, 0, "it has no room for files"));
        }
        // The count of clusters alone decides (3.5).
        let bits = match clusters {
            0..4085 => 12,
            4085..65525 => 16,
            _ => 32,
        };
        let root = if bits == 32 {
            Root::Chain(boot.le32(44)?)
        } else {
            Root::Fixed {
                at: (reserved + tables * table_sectors) * sector,
                length: root_entries * 32,
            }
        };
        let label = boot.span(if bits == 32 { 71 } else { 43 }, 11)?;
        Ok(Fat {
            source,
            bits,
            label: String::from_utf8_lossy(label).trim_end().to_string(),
            table: reserved * sector,
            table_length: table_sectors * sector,
            root,
            data: before * sector,
            cluster: per_cluster * sector,
            clusters: clusters.min(there).min(0x0FFF_FFF5) as u32,
            size: total * sector,
        })
    }

    /// The cluster after `cluster`; `None` at the end of its chain. `window` keeps the last part of the table that was read.
    fn next(&self, cluster: u32, window: &mut (u64, Vec<u8>)) -> Result<Option<u32>> {
        let cluster = u64::from(cluster);
        let at = match self.bits {
            12 => cluster + cluster / 2,
            16 => cluster * 2,
            _ => cluster * 4,
        };
        let length = if self.bits == 32 { 4 } else { 2 };
        crate::source::within(self.table_length, at, length)?;
        if at < window.0 || at + length > window.0 + window.1.len() as u64 {
            let part = (self.table_length - at).min(WINDOW);
            *window = (at, self.source.read_up_to(self.table + at, part as usize)?);
        }
        let bytes = window.1.span((at - window.0) as usize, length as usize)?;
        let (next, end) = match self.bits {
            12 => {
                let pair = bytes.le16(0)?;
                let next = if cluster % 2 == 0 {
                    pair & 0xFFF
                } else {
                    pair >> 4
                };
                (u32::from(next), 0xFF8)
            }
            16 => (u32::from(bytes.le16(0)?), 0xFFF8),
            _ => (bytes.le32(0)? & 0x0FFF_FFFF, 0x0FFF_FFF8),
        };
        if next >= end {
            return Ok(None);
        }
        if next < 2 || next - 2 >= self.clusters {
            return Err(Error::damaged(
                WHAT,
                self.table + at,
                format!("cluster {next} follows {cluster}"),
            ));
        }
        Ok(Some(next))
    }

    /// The runs of a chain, at most `limit` bytes of them.
    fn chain(&self, first: u32, limit: u64) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut length = 0;
        if first < 2 || first - 2 >= self.clusters {
            return Err(Error::damaged(
                WHAT,
                self.table,
                format!("a chain begins at cluster {first}"),
            ));
        }
        let mut next = Some(first);
        let mut window = (0, Vec::new());
        let mut count = 0;
        while let Some(cluster) = next {
            if length >= limit {
                break;
            }
            count += 1;
            if count > self.clusters {
                return Err(Error::damaged(
                    WHAT,
                    self.table,
                    format!("the chain that begins at cluster {first} has no end"),
                ));
            }
            let at = self.data + u64::from(cluster - 2) * self.cluster;
            match runs.last_mut() {
                Some(run) if run.at.map(|a| a + run.length) == Some(at) => {
                    run.length += self.cluster;
                }
                _ => runs.push(Run {
                    at: Some(at),
                    length: self.cluster,
                }),
            }
            length += self.cluster;
            next = self.next(cluster, &mut window)?;
        }
        Ok(runs)
    }

    fn contents(&self, entry: &[u8], directory: bool) -> Result<Extents> {
        let first = u32::from(entry.le16(26)?) | u32::from(entry.le16(20)?) << 16;
        let first = if self.bits == 32 {
            first
        } else {
            first & 0xFFFF
        };
        if directory {
            let runs = self.chain(first, FOLDER)?;
            let size = runs.iter().map(|r| r.length).sum();
            return Extents::new(self.source.clone(), runs, size);
        }
        let size = u64::from(entry.le32(28)?);
        let runs = if size == 0 {
            Vec::new()
        } else {
            self.chain(first, size)?
        };
        Extents::new(self.source.clone(), runs, size)
    }

    fn folder(&self, folder: Node) -> Result<Extents> {
        match (folder.0, &self.root) {
            (0, Root::Fixed { at, length }) => {
                Ok(Extents::slice(self.source.clone(), *at, *length))
            }
            (0, Root::Chain(first)) => {
                let runs = self.chain(*first, FOLDER)?;
                let size = runs.iter().map(|r| r.length).sum();
                Extents::new(self.source.clone(), runs, size)
            }
            (at, _) => {
                let entry = self.source.read_vec(at, 32)?;
                self.contents(&entry, true)
            }
        }
    }
}

impl FileSystem for Fat {
    fn name(&self) -> String {
        format!("FAT{}", self.bits)
    }

    fn root(&self) -> Node {
        Node(0)
    }

    fn list(&self, folder: Node) -> Result<Vec<Entry>> {
        let contents = self.folder(folder)?;
        let bytes = (&contents as &dyn Source).read_all("a FAT folder", FOLDER + self.cluster)?;
        let mut entries = Vec::new();
        let mut long: Vec<u16> = Vec::new();
        for (index, entry) in bytes.chunks_exact(32).enumerate() {
            let attributes = entry[11];
            match entry[0] {
                0 => break,
                0xE5 => {
                    long.clear();
                    continue;
                }
                _ => {}
            }
            if attributes & 0x3F == 0x0F {
                // Pieces of a long name come last first (section 7).
                if entry[0] & 0x40 != 0 {
                    long.clear();
                }
                let units = [1..11, 14..26, 28..32]
                    .into_iter()
                    .flat_map(|range| entry[range].chunks_exact(2))
                    .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                let mut piece: Vec<u16> = units.collect();
                piece.append(&mut long);
                long = piece;
                if long.len() > 260 {
                    long.clear();
                }
                continue;
            }
            let name = long_name(&std::mem::take(&mut long), entry);
            if attributes & 8 != 0 || name == "." || name == ".." {
                continue;
            }
            if name.is_empty() || name.contains(['/', '\0']) {
                return Err(Error::damaged(
                    WHAT,
                    index as u64 * 32,
                    "a name that is no name",
                ));
            }
            let Some(at) = contents.in_container(index as u64 * 32) else {
                continue;
            };
            let size = u64::from(entry.le32(28)?);
            let mut listed = Entry::plain(name, attributes & 0x10 != 0, size, Node(at));
            listed.modified = time(entry.le16(24)?, entry.le16(22)?);
            entries.push(listed);
        }
        Ok(entries)
    }

    fn open(&self, file: Node) -> Result<Shared> {
        let entry = self.source.read_vec(file.0, 32)?;
        Ok(Arc::new(self.contents(&entry, entry[11] & 0x10 != 0)?))
    }
}

/// The long name if there is one, else the short one.
fn long_name(long: &[u16], entry: &[u8]) -> String {
    if !long.is_empty() {
        let end = long.iter().position(|&u| u == 0).unwrap_or(long.len());
        return char::decode_utf16(long[..end].iter().copied())
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
    }
    let part = |bytes: &[u8], lower: bool| {
        let text: String = bytes.iter().map(|&b| char::from(b)).collect();
        let text = text.trim_end().to_string();
        if lower { text.to_lowercase() } else { text }
    };
    // Windows keeps the case of short names in reserved bits.
    let base = part(&entry[..8], entry[12] & 0x08 != 0);
    let extension = part(&entry[8..11], entry[12] & 0x10 != 0);
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

fn time(date: u16, time: u16) -> Option<i64> {
    let (day, month, year) = (date & 31, date >> 5 & 15, 1980 + (date >> 9));
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let days = crate::time::days(year.into(), month.into(), day.into());
    let (hour, minute, second) = (time >> 11, time >> 5 & 63, (time & 31) * 2);
    Some(days * 86400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second))
}
