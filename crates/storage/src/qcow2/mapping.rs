//! From the guest's offsets to the file's, and reading.

use super::{
    COMPRESSED, COPIED, Meta, OFFSET, Qcow2, Table, ZERO, decompress, in_table, read_table,
};
use crate::format::{Extent, FormatError, Kind, Result, Source};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of unpacked clusters that are kept: a few threads read on where each was.
const UNPACKED: usize = 1 << 20;

/// An L2 entry, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Unallocated,
    /// Reads as zeroes; the cluster at `offset`, if any, is set aside.
    Zero {
        offset: u64,
        copied: bool,
    },
    Data {
        offset: u64,
        copied: bool,
    },
    /// `length` bytes at `offset` at most, in whole sectors.
    Compressed {
        offset: u64,
        length: u64,
    },
}

impl Entry {
    pub(super) fn new(entry: u64, cluster_bits: u32, version: u32, external: bool) -> Entry {
        if entry & COMPRESSED != 0 {
            let shift = 62 - (cluster_bits - 8);
            let offset = entry & ((1 << shift) - 1);
            let sectors = (entry & !(COPIED | COMPRESSED)) >> shift;
            return Entry::Compressed {
                offset,
                length: (sectors + 1) * 512 - offset % 512,
            };
        }
        let offset = entry & OFFSET;
        let copied = entry & COPIED != 0;
        if version >= 3 && entry & ZERO != 0 {
            Entry::Zero { offset, copied }
        } else if offset == 0 && !(external && copied) {
            Entry::Unallocated
        } else {
            Entry::Data { offset, copied }
        }
    }
}

/// The L2 entry of compressed data of `length` bytes at `offset`.
pub(super) fn compressed_entry(offset: u64, length: u64, cluster_bits: u32) -> u64 {
    let shift = 62 - (cluster_bits - 8);
    let sectors = ((offset + length - 1) >> 9) - (offset >> 9);
    COMPRESSED | sectors << shift | offset
}

impl Meta {
    /// Loads the L2 table at `offset`.
    pub(super) fn table(&mut self, offset: u64) -> Result<&mut Table> {
        if !self.tables.contains_key(&offset) {
            self.trim()?;
            if offset & (self.cluster_size() - 1) != 0 {
                return Err(FormatError::image(format!(
                    "L2 table offset {offset:#x} unaligned: the image is damaged"
                )));
            }
            let entries = read_table(&*self.host, offset, self.l2_entries() as usize)
                .map_err(|error| in_table(&format!("the L2 table at {offset:#x}"), error))?;
            self.tables.insert(
                offset,
                Table {
                    entries,
                    dirty: false,
                },
            );
        }
        Ok(self.tables.get_mut(&offset).unwrap())
    }

    /// Where in the L1 table and in an L2 table a guest offset is.
    pub(super) fn indices(&self, offset: u64) -> (usize, usize) {
        let cluster = offset >> self.cluster_bits();
        (
            (cluster / self.l2_entries()) as usize,
            (cluster % self.l2_entries()) as usize,
        )
    }

    pub(super) fn entry_of(&self, entry: u64) -> Entry {
        let external = self.header.incompatible & super::header::EXTERNAL_DATA != 0;
        Entry::new(entry, self.cluster_bits(), self.header.version, external)
    }

    /// The entry for a guest offset.
    pub(super) fn lookup(&mut self, offset: u64) -> Result<Entry> {
        let (l1, l2) = self.indices(offset);
        let table = self.l1.get(l1).copied().unwrap_or(0) & OFFSET;
        if table == 0 {
            return Ok(Entry::Unallocated);
        }
        let entry = self.table(table)?.entries[l2];
        Ok(self.entry_of(entry))
    }

    /// What is at `offset`, for `max` bytes at most.
    pub(super) fn extent(&mut self, offset: u64, max: u64) -> Result<(Entry, u64)> {
        let cluster_size = self.cluster_size();
        let inside = offset % cluster_size;
        let (mut l1, first) = self.indices(offset);
        let span = cluster_size * self.l2_entries();
        let table = self.l1.get(l1).copied().unwrap_or(0) & OFFSET;
        if table == 0 {
            let mut length = span - offset % span;
            l1 += 1;
            while length < max && self.l1.get(l1).is_none_or(|entry| entry & OFFSET == 0) {
                length += span;
                l1 += 1;
            }
            return Ok((Entry::Unallocated, length.min(max)));
        }
        let (version, bits) = (self.header.version, self.cluster_bits());
        let external = self.header.incompatible & super::header::EXTERNAL_DATA != 0;
        let entries = &self.table(table)?.entries;
        let parse = |index: usize| Entry::new(entries[index], bits, version, external);
        let start = parse(first);
        let mut length = cluster_size - inside;
        let mut index = first + 1;
        while length < max && index < entries.len() {
            let next = parse(index);
            let along = (index - first) as u64 * cluster_size;
            let same = match (start, next) {
                (Entry::Unallocated, Entry::Unallocated) => true,
                (Entry::Zero { offset: 0, .. }, Entry::Zero { offset: 0, .. }) => true,
                (Entry::Zero { offset: a, .. }, Entry::Zero { offset: b, .. }) => {
                    a != 0 && b != 0 && b == a + along
                }
                (Entry::Data { offset: a, .. }, Entry::Data { offset: b, .. }) => b == a + along,
                _ => false,
            };
            if !same {
                break;
            }
            length += cluster_size;
            index += 1;
        }
        Ok((start, length.min(max)))
    }
}

impl Qcow2 {
    /// The contents of a compressed cluster.
    pub(super) fn unpack(&self, offset: u64, length: u64) -> Result<Arc<Vec<u8>>> {
        {
            let mut unpacked = self.unpacked.lock();
            if let Some(index) = unpacked.iter().position(|(at, _)| *at == offset) {
                unpacked[..=index].rotate_right(1);
                return Ok(unpacked[0].1.clone());
            }
        }
        let kind = self.compression();
        // The last sector may not be all there.
        let mut packed = vec![0; length as usize];
        let have = self.host.read_at(offset, &mut packed)?;
        let mut cluster = vec![0; self.cluster_bytes() as usize];
        decompress(kind, &packed[..have], &mut cluster).map_err(|reason| {
            FormatError::image(format!(
                "The compressed cluster at {offset:#x} of the file cannot be unpacked: {reason}"
            ))
        })?;
        let cluster = Arc::new(cluster);
        let mut unpacked = self.unpacked.lock();
        let most = (UNPACKED >> self.cluster_bits).clamp(1, 16);
        unpacked.truncate(most - 1);
        unpacked.insert(0, (offset, cluster.clone()));
        Ok(cluster)
    }

    /// Reads data of a standard cluster. What is past the end of the file was cut off.
    pub(super) fn read_data(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let have = self.data.read_at(offset, into)?;
        if have < into.len() {
            if self.external {
                into[have..].fill(0);
                return Ok(());
            }
            return Err(FormatError::image(format!(
                "The cluster at {offset:#x} is past the end of the file: the image is cut short"
            )));
        }
        Ok(())
    }

    fn check_data_offset(&self, offset: u64) -> Result<()> {
        if offset & (self.cluster_bytes() - 1) != 0 {
            return Err(FormatError::image(format!(
                "Cluster allocation offset {offset:#x} unaligned: the image is damaged"
            )));
        }
        Ok(())
    }
}

impl Source for Qcow2 {
    fn size(&self) -> u64 {
        self.disk_size()
    }

    fn extent(&self, offset: u64, max: u64) -> Result<Extent> {
        let (entry, length) = self.meta.lock().extent(offset, max)?;
        let inside = offset & (self.cluster_bytes() - 1);
        let kind = match entry {
            Entry::Unallocated => Kind::Unallocated,
            Entry::Zero { offset: 0, .. } => Kind::Zero { offset: None },
            Entry::Zero { offset, .. } => Kind::Zero {
                offset: Some(offset + inside),
            },
            Entry::Data { offset, .. } => {
                self.check_data_offset(offset)?;
                Kind::Data {
                    offset: Some(offset + inside),
                    compressed: false,
                }
            }
            Entry::Compressed { .. } => Kind::Data {
                offset: None,
                compressed: true,
            },
        };
        Ok(Extent {
            length,
            kind,
            file: usize::from(self.external),
        })
    }

    fn read(&self, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let (entry, length) = self.meta.lock().extent(offset, into.len() as u64)?;
            let (now, later) = into.split_at_mut(length as usize);
            let inside = offset & (self.cluster_bytes() - 1);
            match entry {
                Entry::Unallocated | Entry::Zero { .. } => now.fill(0),
                Entry::Data { offset, .. } => {
                    self.check_data_offset(offset)?;
                    self.read_data(offset + inside, now)?;
                }
                Entry::Compressed { offset, length } => {
                    let cluster = self.unpack(offset, length)?;
                    let inside = inside as usize;
                    now.copy_from_slice(&cluster[inside..inside + now.len()]);
                }
            }
            offset += length;
            into = later;
        }
        Ok(())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path.clone()];
        files.extend(self.data_path.clone());
        files
    }

    fn cluster_size(&self) -> Option<u64> {
        Some(self.cluster_bytes())
    }
}
