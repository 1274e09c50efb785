//! Changing what an image was made as.

use super::check::Check;
use super::mapping::Entry;
use super::{Compression, Qcow2, Repair, header};
use crate::format::{FormatError, Result};

impl Qcow2 {
    /// Makes it version 2 or 3. What version 2 cannot have must be gone before.
    pub fn set_version(&self, version: u32) -> Result<()> {
        let mut meta = self.changing()?;
        if version == meta.header.version {
            return Ok(());
        }
        if version < 3 {
            let refuse = |reason: &str| Err(FormatError::refused(reason));
            if meta.header.refcount_order != 4 {
                return refuse("compat=0.10 requires refcount_bits=16");
            }
            if self.external {
                return refuse("Cannot downgrade an image with a data file");
            }
            if meta.header.compression != Compression::Zlib {
                return refuse("Cannot downgrade an image with zstd compression");
            }
            let mut tables = vec![meta.l1.clone()];
            for (_, table) in Qcow2::snapshot_tables(&meta) {
                tables.push(table?);
            }
            for l1 in tables {
                if meta.any_entry(&l1, |entry| matches!(entry, Entry::Zero { .. }))? {
                    return refuse(
                        "Cannot downgrade an image with zero clusters in its internal snapshots",
                    );
                }
            }
            meta.header.compatible = 0;
            meta.header.incompatible = 0;
            meta.header.autoclear = 0;
        }
        meta.settle()?;
        meta.header.version = version;
        meta.header_dirty = true;
        meta.settle()
    }

    /// Whether refcounts may be written late. They never are here; others may do so afterwards.
    pub fn set_lazy_refcounts(&self, lazy: bool) -> Result<()> {
        let mut meta = self.changing()?;
        if lazy && meta.header.version < 3 {
            return Err(FormatError::refused(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)",
            ));
        }
        if lazy {
            meta.header.compatible |= header::LAZY_REFCOUNTS;
        } else {
            meta.header.compatible &= !header::LAZY_REFCOUNTS;
        }
        meta.header_dirty = true;
        meta.settle()
    }

    /// Gives refcounts another width: all of them are written anew behind everything.
    pub fn set_refcount_bits(&self, bits: u32) -> Result<()> {
        if bits == self.refcount_bits() {
            return Ok(());
        }
        let report = self.check(Repair::Leaks)?;
        if report.corruptions > 0 || report.check_errors > 0 || report.incomplete {
            return Err(FormatError::image(
                "the image is damaged: it must be checked and repaired first",
            ));
        }
        let mut meta = self.changing()?;
        if meta.header.version < 3 {
            return Err(FormatError::refused(
                "Different refcount widths than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)",
            ));
        }
        Check::change_width(&mut meta, bits.trailing_zeros())
    }

    /// Whether any cluster is compressed.
    pub fn has_compressed(&self) -> Result<bool> {
        let mut meta = self.meta.lock();
        let l1 = meta.l1.clone();
        meta.any_entry(&l1, |entry| matches!(entry, Entry::Compressed { .. }))
    }
}

impl super::Meta {
    /// Whether a table that an L1 table names has an entry of a kind.
    fn any_entry(&mut self, l1: &[u64], kind: impl Fn(Entry) -> bool) -> Result<bool> {
        for entry in l1 {
            let table = entry & super::OFFSET;
            if table == 0 {
                continue;
            }
            for index in 0..self.l2_entries() as usize {
                let word = self.table(table)?.entries[index];
                if kind(self.entry_of(word)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
