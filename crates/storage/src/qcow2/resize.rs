//! Growing and shrinking.

use super::header::l1_entries;
use super::write::Below;
use super::{Preallocation, Qcow2};
use crate::format::{FormatError, Result};
use std::sync::atomic::Ordering;

impl Qcow2 {
    /// Makes the disk `size` bytes. `below_size` are the bytes of the disk below, if there is one: what it has past the old
    /// end must not come to light.
    pub fn resize(
        &self,
        size: u64,
        preallocation: Preallocation,
        below_size: Option<u64>,
        below: Below<'_>,
    ) -> Result<()> {
        if !size.is_multiple_of(512) {
            return Err(FormatError::refused(
                "The new size must be a multiple of 512",
            ));
        }
        let old = self.disk_size();
        let bits = self.cluster_bits;
        {
            let mut meta = self.changing()?;
            if meta.header.version < 3 && !meta.snapshots.is_empty() {
                return Err(FormatError::refused(
                    "Can't resize a v2 image which has snapshots",
                ));
            }
            let entries = l1_entries(size, bits);
            if entries * 8 > 32 << 20 {
                return Err(FormatError::refused("The image size is too large"));
            }
            meta.flush()?;
            if entries > meta.l1.len() as u64 {
                let mut l1 = meta.l1.clone();
                l1.resize(entries as usize, 0);
                meta.replace_l1(l1, old)?;
            }
        }
        if size < old {
            if preallocation != Preallocation::Off {
                return Err(FormatError::refused(
                    "Preallocation can't be used for shrinking an image",
                ));
            }
            return self.shrink(size, old);
        }
        // The rest of the last cluster was never part of the disk.
        let tail = old.next_multiple_of(1 << bits).min(size);
        if self.external {
            self.data.set_length(size)?;
        }
        self.set_size(size)?;
        if old < tail {
            self.write_zeroes(old, tail - old, false, below_size.is_none(), below)?;
        }
        if let Some(below_size) = below_size
            && below_size > old
        {
            let end = below_size.min(size);
            self.write_zeroes(old, end - old, false, false, below)?;
        }
        let preallocation = match preallocation {
            Preallocation::Off if self.data_file_raw() => Preallocation::Metadata,
            other => other,
        };
        self.preallocate(tail, size, preallocation)?;
        self.close()
    }

    fn set_size(&self, size: u64) -> Result<()> {
        let mut meta = self.changing()?;
        meta.header.size = size;
        meta.header_dirty = true;
        meta.flush()?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    fn shrink(&self, size: u64, old: u64) -> Result<()> {
        let cluster = self.cluster_bytes();
        // The disk is smaller before anything of it goes.
        self.set_size(size)?;
        let from = size.next_multiple_of(cluster);
        let to = old.next_multiple_of(cluster);
        if from < to {
            self.forget(from, to - from)?;
        }
        self.close()?;
        let mut meta = self.changing()?;
        let span = cluster * meta.l2_entries();
        for l1 in size.div_ceil(span) as usize..old.div_ceil(span) as usize {
            let entry = meta.l1[l1];
            if entry & super::OFFSET == 0 {
                continue;
            }
            meta.l1[l1] = 0;
            meta.l1_dirty.insert(l1);
            let table = entry & super::OFFSET;
            meta.tables.remove(&table);
            let bits = meta.cluster_bits();
            meta.freed.push(table >> bits);
        }
        drop(meta);
        self.close()?;
        self.cut()?;
        if self.external {
            self.data.set_length(size)?;
        }
        Ok(())
    }

    /// Cuts free clusters off the end of the file.
    pub(super) fn cut(&self) -> Result<()> {
        let mut meta = self.changing()?;
        let end = meta.used_end()? << meta.cluster_bits();
        if end > 0 && meta.host.length()? > end {
            meta.barrier()?;
            meta.host.set_length(end)?;
        }
        meta.flush()
    }
}
