//! Writing guest data.

use super::mapping::{Entry, compressed_entry};
use super::{COPIED, Meta, OFFSET, Qcow2, Table, ZERO};
use crate::format::{FormatError, RawFile, Result};
use std::path::PathBuf;

/// What is below an image: fills the buffer with what the disk has at an offset where the image itself has nothing.
pub type Below<'a> = &'a (dyn Fn(u64, &mut [u8]) -> Result<()> + Sync);

/// Where data go.
struct Place {
    offset: u64,
    clusters: u64,
    /// The L2 entries have to be changed once the data are there.
    new: bool,
}

/// See [`Qcow2::prepare`].
pub(crate) struct Prepared {
    offset: u64,
    length: u64,
    place: Place,
}

impl Prepared {
    /// Bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}

impl Meta {
    fn external(&self) -> bool {
        self.header.incompatible & super::header::EXTERNAL_DATA != 0
    }

    /// Takes one reference of everything that an L2 entry refers to away, with the next flush.
    pub(super) fn release(&mut self, entry: Entry) {
        let bits = self.cluster_bits();
        match entry {
            Entry::Unallocated | Entry::Zero { offset: 0, .. } => {}
            Entry::Zero { .. } | Entry::Data { .. } if self.external() => {}
            Entry::Zero { offset, .. } | Entry::Data { offset, .. } => {
                self.freed.push(offset >> bits);
            }
            Entry::Compressed { offset, length } => {
                let (first, last) = (offset >> bits, (offset + length - 1) >> bits);
                self.freed.extend(first..=last);
            }
        }
    }

    /// The L2 table for a guest offset, all our own: its offset.
    pub(super) fn own_table(&mut self, l1: usize) -> Result<u64> {
        let Some(entry) = self.l1.get(l1).copied() else {
            return Err(FormatError::image("L1 table is too small"));
        };
        let old = entry & OFFSET;
        if old != 0 && entry & COPIED != 0 {
            self.table(old)?;
            return Ok(old);
        }
        self.trim()?;
        let entries = if old == 0 {
            vec![0; self.l2_entries() as usize]
        } else {
            self.table(old)?.entries.clone()
        };
        let (cluster, _) = self.allocate(1)?;
        let offset = cluster << self.cluster_bits();
        // Clusters of a table that is not on the disk yet must not be past the end of the file.
        let end = offset + self.cluster_size();
        let room = match self.host.length()? < end {
            true => self.host.set_length(end),
            false => Ok(()),
        };
        if let Err(error) = room {
            self.freed.push(cluster);
            return Err(error.into());
        }
        let table = Table {
            entries,
            dirty: true,
        };
        self.tables.insert(offset, table);
        self.l1[l1] = offset | COPIED;
        self.l1_dirty.insert(l1);
        if old != 0 {
            self.tables.remove(&old);
            self.freed.push(old >> self.cluster_bits());
        }
        Ok(offset)
    }

    /// Finds or makes a place for up to `want` whole clusters at a guest offset.
    fn place(&mut self, offset: u64, want: u64) -> Result<Place> {
        let (_, first) = self.indices(offset);
        let want = want.min(self.l2_entries() - first as u64);
        let size = self.cluster_size();
        // What may be written where it is.
        let own = |entry: Entry| match entry {
            Entry::Data {
                offset,
                copied: true,
            } => Some((offset, false)),
            Entry::Zero {
                offset,
                copied: true,
            } if offset != 0 => Some((offset, true)),
            _ => None,
        };
        let start = own(self.lookup(offset)?);
        let mut clusters = 1;
        while clusters < want {
            let next = own(self.lookup(offset + clusters * size)?);
            let along = match (start, next) {
                (Some((at, zero)), Some((next, next_zero))) => {
                    next == at + clusters * size && zero == next_zero
                }
                (None, None) => true,
                _ => false,
            };
            if !along {
                break;
            }
            clusters += 1;
        }
        if let Some((at, zero)) = start {
            if at % size != 0 {
                return Err(FormatError::image(format!(
                    "Cluster allocation offset {at:#x} unaligned: the image is damaged"
                )));
            }
            return Ok(Place {
                offset: at,
                clusters,
                new: zero,
            });
        }
        // The table first: then data that follow each other lie behind it in a row.
        let (l1, _) = self.indices(offset);
        self.own_table(l1)?;
        if self.external() {
            return Ok(Place {
                offset,
                clusters,
                new: true,
            });
        }
        let (cluster, count) = self.allocate(clusters)?;
        Ok(Place {
            offset: cluster << self.cluster_bits(),
            clusters: count,
            new: true,
        })
    }

    /// Gives a place back whose data could not be written, unless it was the guest's before.
    fn abandon(&mut self, offset: u64, place: &Place) -> Result<()> {
        if !place.new || self.external() {
            return Ok(());
        }
        let size = self.cluster_size();
        for n in 0..place.clusters {
            let at = place.offset + n * size;
            let kept = matches!(self.lookup(offset + n * size)?, Entry::Zero { offset, .. } if offset == at);
            if !kept {
                self.freed.push(at >> self.cluster_bits());
            }
        }
        Ok(())
    }

    /// Lets the guest's clusters from `offset` on be those of `place`.
    fn link(&mut self, offset: u64, place: &Place) -> Result<()> {
        let (l1, first) = self.indices(offset);
        let table = self.own_table(l1)?;
        let size = self.cluster_size();
        for n in 0..place.clusters {
            let index = first + n as usize;
            let new = place.offset + n * size;
            let old = std::mem::replace(&mut self.table(table)?.entries[index], new | COPIED);
            let old = self.entry_of(old);
            match old {
                Entry::Zero { offset, .. } if offset == new => {}
                old => self.release(old),
            }
        }
        self.table(table)?.dirty = true;
        Ok(())
    }
}

impl Qcow2 {
    /// Writes `from` at a guest offset; both may be anything within the disk. Of clusters that are written in part, the
    /// rest comes from `below`.
    pub fn write(&self, mut offset: u64, mut from: &[u8], below: Below<'_>) -> Result<()> {
        let size = self.cluster_bytes();
        while !from.is_empty() {
            let inside = offset % size;
            let done = if inside != 0 || (from.len() as u64) < size {
                let count = (size - inside).min(from.len() as u64) as usize;
                self.write_part(offset, &from[..count], below)?;
                count
            } else {
                self.write_clusters(offset, from)?
            };
            offset += done as u64;
            from = &from[done..];
        }
        Ok(())
    }

    /// Writes where the data are already, if all of the span has clusters that are the image's own: whether it did. Such writes
    /// change no table, so any number of them go beside each other, and beside reads.
    pub(crate) fn overwrite(&self, offset: u64, from: &[u8]) -> Result<bool> {
        let size = self.cluster_bytes();
        let end = offset + from.len() as u64;
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut meta = self.changing()?;
        let mut at = offset;
        while at < end {
            let inside = at % size;
            let Entry::Data {
                offset,
                copied: true,
            } = meta.lookup(at)?
            else {
                return Ok(false);
            };
            if offset % size != 0 {
                return Ok(false);
            }
            let count = (size - inside).min(end - at);
            match runs.last_mut() {
                Some((start, length)) if *start + *length == offset + inside => *length += count,
                _ => runs.push((offset + inside, count)),
            }
            at += count;
        }
        drop(meta);
        let mut rest = from;
        for (start, length) in runs {
            let (now, later) = rest.split_at(length as usize);
            self.data.write_at(start, now)?;
            rest = later;
        }
        Ok(true)
    }

    /// Writes some whole clusters: how many bytes of `from`.
    fn write_clusters(&self, offset: u64, from: &[u8]) -> Result<usize> {
        let size = self.cluster_bytes();
        let place = self.changing()?.place(offset, from.len() as u64 / size)?;
        let count = (place.clusters * size) as usize;
        self.fill_place(offset, &place, &from[..count])?;
        Ok(count)
    }

    /// Writes a place's data and lets the guest's clusters be those, or gives it back.
    fn fill_place(&self, offset: u64, place: &Place, from: &[u8]) -> Result<()> {
        let written = self.data.write_at(place.offset, from);
        let mut meta = match place.new || written.is_err() {
            true => self.changing()?,
            false => return Ok(()),
        };
        let linked = match written {
            Ok(()) => meta.link(offset, place),
            Err(error) => Err(error.into()),
        };
        if linked.is_err() {
            // What went wrong first is what counts.
            let _ = meta.abandon(offset, place);
        }
        linked
    }

    /// Sets a place aside for whole clusters, for as many bytes as [`Prepared::length`] says. It is theirs only once
    /// [`Qcow2::put`] has filled it.
    pub(crate) fn prepare(&self, offset: u64, length: u64) -> Result<Prepared> {
        let size = self.cluster_bytes();
        let place = self.changing()?.place(offset, length / size)?;
        Ok(Prepared {
            offset,
            length: place.clusters * size,
            place,
        })
    }

    pub(crate) fn put(&self, prepared: Prepared, from: &[u8]) -> Result<()> {
        self.fill_place(prepared.offset, &prepared.place, from)
    }

    fn write_part(&self, offset: u64, from: &[u8], below: Below<'_>) -> Result<()> {
        let size = self.cluster_bytes();
        let inside = offset % size;
        let start = offset - inside;
        let entry = self.changing()?.lookup(start)?;
        if let Entry::Data {
            offset,
            copied: true,
        } = entry
        {
            return Ok(self.data.write_at(offset + inside, from)?);
        }
        let mut cluster = vec![0; size as usize];
        self.fill(start, entry, &mut cluster, below)?;
        cluster[inside as usize..inside as usize + from.len()].copy_from_slice(from);
        self.write_clusters(start, &cluster)?;
        Ok(())
    }

    /// What the disk has in a whole cluster; zeroes past its end.
    fn fill(&self, start: u64, entry: Entry, into: &mut [u8], below: Below<'_>) -> Result<()> {
        let size = self.disk_size();
        let have = (size.saturating_sub(start)).min(into.len() as u64) as usize;
        // What is past the disk's end need not be in the file.
        match entry {
            Entry::Unallocated => below(start, &mut into[..have]),
            Entry::Zero { .. } => Ok(()),
            Entry::Data { offset, .. } => self.read_data(offset, &mut into[..have]),
            Entry::Compressed { offset, length } => {
                into.copy_from_slice(&self.unpack(offset, length)?);
                Ok(())
            }
        }
    }

    /// Makes a span zeroes. `unmap` gives its space back; `hollow` says that nothing is below the image.
    pub fn write_zeroes(
        &self,
        mut offset: u64,
        length: u64,
        unmap: bool,
        hollow: bool,
        below: Below<'_>,
    ) -> Result<()> {
        let size = self.cluster_bytes();
        let end = offset + length;
        if self.data_file_raw() {
            // The file itself must read as the disk does.
            let data = RawFile::open(self.data.clone(), PathBuf::new(), false)?;
            data.write_zeroes(offset, length)?;
        }
        while offset < end {
            let inside = offset % size;
            let stop = (offset - inside + size).min(end);
            // The rest of the last cluster is past the end of the disk: it goes along.
            let whole = inside == 0 && (stop - offset == size || stop == self.disk_size());
            if whole {
                let clusters = if end == self.disk_size() {
                    (end - offset).div_ceil(size)
                } else {
                    (end - offset) / size
                };
                offset = self.zero_clusters(offset, clusters, unmap, hollow)?;
            } else {
                let entry = self.changing()?.lookup(offset - inside)?;
                let nothing =
                    matches!(entry, Entry::Zero { .. }) || (hollow && entry == Entry::Unallocated);
                if !nothing {
                    self.write_part(offset, &vec![0; (stop - offset) as usize], below)?;
                }
                offset = stop;
            }
        }
        Ok(())
    }

    /// Zeroes whole clusters of one L2 table: how far it came.
    fn zero_clusters(&self, offset: u64, clusters: u64, unmap: bool, hollow: bool) -> Result<u64> {
        let size = self.cluster_bytes();
        let mut meta = self.changing()?;
        let (l1, first) = meta.indices(offset);
        let count = clusters.min(meta.l2_entries() - first as u64);
        let zero = if meta.header.version >= 3 { ZERO } else { 0 };
        let next = offset + count * size;
        if meta.l1.get(l1).is_some_and(|entry| entry & OFFSET == 0) && hollow {
            return Ok(next);
        }
        if zero == 0 && !hollow {
            drop(meta);
            let zeroes = vec![0; size as usize];
            for n in 0..count {
                self.write_clusters(offset + n * size, &zeroes)?;
            }
            return Ok(next);
        }
        let external = meta.external();
        let table = meta.own_table(l1)?;
        for index in first..first + count as usize {
            let word = meta.table(table)?.entries[index];
            let entry = meta.entry_of(word);
            let new = match entry {
                Entry::Unallocated if hollow => continue,
                Entry::Zero { offset: 0, .. } => continue,
                Entry::Zero { .. } if !unmap => continue,
                Entry::Data {
                    offset,
                    copied: true,
                } if zero != 0 && (!unmap || external) => offset | COPIED | ZERO,
                _ => zero,
            };
            let table = meta.table(table)?;
            table.entries[index] = new;
            table.dirty = true;
            if new & OFFSET == 0 {
                meta.release(entry);
            }
        }
        drop(meta);
        self.unpacked.lock().clear();
        Ok(next)
    }

    /// Lets what is below show through in whole clusters of a span: as if they had never been written.
    pub fn forget(&self, mut offset: u64, length: u64) -> Result<()> {
        let size = self.cluster_bytes();
        let end = offset + length;
        offset = offset.next_multiple_of(size);
        while offset < end {
            let mut meta = self.changing()?;
            let (entry, length) = meta.extent(offset, end - offset)?;
            let count = length.div_ceil(size);
            if entry != Entry::Unallocated {
                let (l1, first) = meta.indices(offset);
                let table = meta.own_table(l1)?;
                for index in first..first + count as usize {
                    let old = std::mem::replace(&mut meta.table(table)?.entries[index], 0);
                    let old = meta.entry_of(old);
                    meta.release(old);
                }
                meta.table(table)?.dirty = true;
            }
            offset += count * size;
        }
        Ok(())
    }

    /// Forgets everything that the disk has; snapshots keep what is theirs.
    pub fn empty(&self) -> Result<()> {
        let mut meta = self.changing()?;
        meta.settle()?;
        let old = meta.l1.clone();
        meta.check_references(&old)?;
        for (index, entry) in old.iter().enumerate() {
            if *entry != 0 {
                meta.l1[index] = 0;
                meta.l1_dirty.insert(index);
            }
        }
        meta.flush()?;
        meta.drop_references(&old)?;
        meta.settle()?;
        drop(meta);
        self.unpacked.lock().clear();
        self.cut()
    }

    /// Puts a whole cluster, compressed by [`super::Compressor`], at a guest offset.
    pub fn write_compressed(&self, offset: u64, packed: &[u8]) -> Result<()> {
        if self.external {
            return Err(FormatError::refused(
                "Compressed clusters cannot be written to an image with an external data file",
            ));
        }
        let length = packed.len() as u64;
        let at = self.changing()?.allocate_bytes(length)?;
        let written = self.host.write_at(at, packed);
        let mut meta = self.changing()?;
        let linked = match written {
            Ok(()) => meta.link_compressed(offset, at, length),
            Err(error) => Err(error.into()),
        };
        if linked.is_err() {
            meta.release(Entry::Compressed { offset: at, length });
        }
        drop(meta);
        self.unpacked.lock().clear();
        linked
    }
}

impl Meta {
    /// Lets the guest's cluster at `offset` be the compressed data at `at`.
    fn link_compressed(&mut self, offset: u64, at: u64, length: u64) -> Result<()> {
        let (l1, index) = self.indices(offset);
        let table = self.own_table(l1)?;
        let entry = compressed_entry(at, length, self.cluster_bits());
        let table = self.table(table)?;
        let old = std::mem::replace(&mut table.entries[index], entry);
        table.dirty = true;
        let old = self.entry_of(old);
        self.release(old);
        Ok(())
    }

    /// A place for compressed data: bytes of clusters that several share, each counted once for each.
    fn allocate_bytes(&mut self, length: u64) -> Result<u64> {
        let (bits, size) = (self.cluster_bits(), self.cluster_size());
        let inside = self.compressed_end % size;
        if inside != 0 {
            let cluster = self.compressed_end >> bits;
            let shared = self.refcount(cluster)?;
            let at = self.compressed_end;
            // Freed references of the cluster are still counted, so it is not free while anything is in it.
            if shared > 0 && shared < self.refcounts.maximum() {
                let fits = inside + length <= size;
                if fits || self.allocate_at(cluster + 1)? {
                    self.increase(cluster, 1)?;
                    self.compressed_end = at + length;
                    return Ok(at);
                }
            }
        }
        let (cluster, _) = self.allocate(1)?;
        self.compressed_end = (cluster << bits) + length;
        Ok(cluster << bits)
    }
}
