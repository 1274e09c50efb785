//! Giving space back: zeroes and leaks go, the rest moves to the front, the file is cut.
//!
//! There is no journal, for there is nothing that it would have to know: at every moment the file on the drive holds either the
//! old place of a cluster, or both, and names one that is whole.
//!
//! 1. A cluster of zeroes is dropped from its L2 table in memory. [`Meta::flush`](super::Meta) writes the table, waits, and only
//!    then counts the cluster as free: nobody writes to it while anything on the drive names it.
//! 2. A cluster is copied to a free one, which nothing on the drive names. The copy is on the drive before the L2 table that
//!    names it is written, this before the L1 table; the old cluster is free after that. Where it stops, the old one is
//!    named and whole, or the new one is.
//! 3. The file is cut, and holes are made in it, only where nothing is counted, once all of that is on the drive.
//!
//! What is lost at worst are refcounts that have not been lowered: leaks, which the next reclaiming finds. Images with
//! snapshots or a backing file move only clusters that nothing else refers to. `tests/at_rest.rs` stops and powers it off at
//! each of its writes.

use super::mapping::Entry;
use super::{COPIED, OFFSET, Qcow2, Repair, Table};
use crate::buffer::Buffer;
use crate::format::{FormatError, Result};
use crate::host::is_zero;
use crate::verbs::Progress;
use std::collections::HashMap;

/// What was won.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Clusters that held zeroes.
    pub zeroed: u64,
    /// Clusters that nothing referred to.
    pub leaked: u64,
    /// Clusters that were moved to the front.
    pub moved: u64,
    /// Bytes of the file, and bytes that it takes on the host's disk.
    pub length: (u64, u64),
    pub allocated: (u64, u64),
}

/// What a cluster of the file is, if it can be moved.
#[derive(Clone, Copy)]
enum Owner {
    /// The guest's cluster at this offset.
    Data(u64),
    /// The L2 table of this L1 entry.
    Table(usize),
    /// A refcount block.
    Refcounts(usize),
}

impl Qcow2 {
    /// Gives back what can be. `hollow` says that nothing is below the image.
    pub fn reclaim(&self, hollow: bool, progress: Progress<'_>) -> Result<Reclaimed> {
        let mut won = Reclaimed {
            length: (self.host.length()?, 0),
            allocated: (self.host.allocated()?, 0),
            ..Reclaimed::default()
        };
        let report = self.check(Repair::Leaks)?;
        if report.corruptions > 0 || report.check_errors > 0 {
            return Err(FormatError::image(
                "the image is damaged: it must be checked and repaired first",
            ));
        }
        won.leaked = report.leaks_fixed;
        won.zeroed = self.drop_zeroes(hollow, progress)?;
        self.close()?;
        if !self.external {
            won.moved = self.compact(progress)?;
            self.close()?;
            self.cut()?;
            self.punch_free()?;
        }
        won.length.1 = self.host.length()?;
        won.allocated.1 = self.host.allocated()?;
        Ok(won)
    }

    fn drop_zeroes(&self, hollow: bool, progress: Progress<'_>) -> Result<u64> {
        let cluster = self.cluster_bytes();
        let size = self.disk_size();
        let mut found = 0;
        let mut buffer = Buffer::new(cluster as usize);
        let mut at = 0;
        while at < size {
            progress(at / 2, size)?;
            let (entry, length) = self.meta.lock().extent(at, size - at)?;
            let standing = match entry {
                Entry::Data {
                    offset,
                    copied: true,
                } => Some((offset, true)),
                Entry::Zero {
                    offset,
                    copied: true,
                } if offset != 0 => Some((offset, false)),
                _ => None,
            };
            let Some((offset, data)) = standing else {
                at += length;
                continue;
            };
            for n in 0..length.div_ceil(cluster) {
                let place = at + n * cluster;
                if data {
                    self.read_data(offset + n * cluster, &mut buffer)?;
                }
                if !data || is_zero(&buffer) {
                    if hollow {
                        self.forget(place, cluster)?;
                    } else if self.version() >= 3 {
                        let rest = cluster.min(size - place);
                        self.write_zeroes(place, rest, true, false, &|_, _| Ok(()))?;
                    } else {
                        continue;
                    }
                    found += 1;
                }
            }
            at += length;
        }
        Ok(found)
    }

    /// Moves clusters from the end of the file into free ones before them.
    fn compact(&self, progress: Progress<'_>) -> Result<u64> {
        let bits = self.cluster_bits;
        let size = self.cluster_bytes();
        let mut owners = HashMap::new();
        let mut meta = self.changing()?;
        for (index, offset) in meta.refcounts.table.iter().enumerate() {
            if *offset != 0 {
                owners.insert(offset >> bits, Owner::Refcounts(index));
            }
        }
        for l1 in 0..meta.l1.len() {
            let entry = meta.l1[l1];
            let table = entry & OFFSET;
            if table == 0 || entry & COPIED == 0 {
                continue;
            }
            owners.insert(table >> bits, Owner::Table(l1));
            for index in 0..meta.l2_entries() {
                let word = meta.table(table)?.entries[index as usize];
                if let Entry::Data {
                    offset,
                    copied: true,
                } = meta.entry_of(word)
                {
                    let guest = (l1 as u64 * meta.l2_entries() + index) * size;
                    owners.insert(offset >> bits, Owner::Data(guest));
                }
            }
        }
        let end = meta.used_end()?;
        let mut moved = 0;
        let mut buffer = Buffer::new(size as usize);
        meta.refcounts.look_from_start();
        for cluster in (1..end).rev() {
            progress((end - cluster) + end, 2 * end)?;
            if meta.refcount(cluster)? == 0 {
                continue;
            }
            let Some(owner) = owners.get(&cluster).copied() else {
                break;
            };
            if let Owner::Refcounts(index) = owner {
                // Of use only while it counts something besides itself; what was moved is still counted until a flush.
                meta.settle()?;
                if meta.drop_block_if_alone(cluster, index)? {
                    continue;
                }
                break;
            }
            let before = meta.host.length()?;
            let (free, _) = meta.allocate(1)?;
            if free >= cluster {
                meta.set_refcount(free, 0)?;
                if meta.host.length()? > before && free >= end {
                    meta.flush()?;
                }
                break;
            }
            let (old, new) = (cluster << bits, free << bits);
            match owner {
                Owner::Data(guest) => {
                    self.host.read_exact_at(old, &mut buffer)?;
                    self.host.write_at(new, &buffer)?;
                    let (l1, index) = meta.indices(guest);
                    let table = meta.l1[l1] & OFFSET;
                    let table = meta.table(table)?;
                    table.entries[index] = new | COPIED;
                    table.dirty = true;
                }
                Owner::Table(l1) => {
                    let entries = meta.table(old)?.entries.clone();
                    meta.tables.remove(&old);
                    meta.tables.insert(
                        new,
                        Table {
                            entries,
                            dirty: true,
                        },
                    );
                    meta.l1[l1] = new | COPIED;
                    meta.l1_dirty.insert(l1);
                }
                Owner::Refcounts(_) => unreachable!("handled above"),
            }
            meta.freed.push(cluster);
            moved += 1;
            if moved % 4096 == 0 {
                meta.trim()?;
            }
        }
        Ok(moved)
    }

    /// Makes holes where the file has free clusters.
    fn punch_free(&self) -> Result<()> {
        let mut meta = self.changing()?;
        let bits = meta.cluster_bits();
        meta.barrier()?;
        let end = meta.used_end()?;
        let mut start = None;
        for cluster in 0..=end {
            let free = cluster < end && meta.refcount(cluster)? == 0;
            match (free, start) {
                (true, None) => start = Some(cluster),
                (false, Some(first)) => {
                    match meta.host.punch(first << bits, (cluster - first) << bits) {
                        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => break,
                        other => other?,
                    }
                    start = None;
                }
                _ => {}
            }
        }
        meta.flush()
    }
}
