//! Cells: everything in a hive lies in one. Their size is negative while they are used.

use super::{BASE, BIN, Hive, LARGEST};
use crate::error::{Error, Result};
use crate::fields::Fields;

impl Hive {
    /// The contents of a used cell.
    pub(super) fn cell(&self, offset: u32) -> Result<&[u8]> {
        let (at, length) = self.cell_range(offset)?;
        self.bytes.span(at, length)
    }

    pub(super) fn cell_mut(&mut self, offset: u32) -> Result<&mut [u8]> {
        let (at, length) = self.cell_range(offset)?;
        self.changed = true;
        Ok(&mut self.bytes[at..at + length])
    }

    /// Where the contents of a used cell lie.
    fn cell_range(&self, offset: u32) -> Result<(usize, usize)> {
        let damaged =
            |problem: String| Error::damaged("a registry hive's cell", offset.into(), problem);
        let offset = offset as usize;
        if !offset.is_multiple_of(8) || offset >= self.length() {
            return Err(damaged("no cell can be there".into()));
        }
        let at = BASE + offset;
        let size = self.bytes.le32(at)? as i32;
        if size >= 0 {
            return Err(damaged("it is free".into()));
        }
        let size = size.unsigned_abs() as usize;
        if size < 8 || !size.is_multiple_of(8) || size > self.length() - offset {
            return Err(damaged(format!("it claims {size} bytes")));
        }
        Ok((at + 4, size - 4))
    }

    /// A new cell with room for `length` bytes, all zero.
    pub(super) fn allocate(&mut self, length: usize) -> Result<u32> {
        let size = (length + 4).next_multiple_of(8).max(8);
        let at = match self.free_cell(size)? {
            Some(at) => at,
            None => self.add_bin(size)?,
        };
        let there = self.bytes.le32(at)? as usize;
        if there > size {
            self.put32(at + size, (there - size) as u32);
        }
        self.put32(at, (size as u32).wrapping_neg());
        self.bytes[at + 4..at + size].fill(0);
        self.changed = true;
        Ok((at - BASE) as u32)
    }

    /// The first free cell of at least `size` bytes.
    fn free_cell(&self, size: usize) -> Result<Option<usize>> {
        let end = BASE + self.length();
        let mut bin = BASE;
        while bin < end {
            let bin_end = bin + self.bytes.le32(bin + 8)? as usize;
            let mut at = bin + 32;
            while at + 8 <= bin_end {
                let there = self.bytes.le32(at)? as i32;
                let length = there.unsigned_abs() as usize;
                if length < 8 || !length.is_multiple_of(8) || length > bin_end - at {
                    return Err(Error::damaged(
                        "a registry hive's cell",
                        at as u64,
                        format!("it claims {length} bytes"),
                    ));
                }
                if there > 0 && length >= size {
                    return Ok(Some(at));
                }
                at += length;
            }
            bin = bin_end;
        }
        Ok(None)
    }

    /// A new bin behind the others with one free cell; where that lies in the file.
    fn add_bin(&mut self, size: usize) -> Result<usize> {
        let length = self.length();
        let bin = (size + 32).next_multiple_of(BIN);
        if length + bin > LARGEST {
            return Err(Error::Unsupported("a hive of more than 2 GiB".into()));
        }
        let at = BASE + length;
        // What lies behind the bins is no part of the hive.
        self.bytes.truncate(at);
        self.bytes.resize(at + bin, 0);
        self.bytes[at..at + 4].copy_from_slice(b"hbin");
        self.put32(at + 4, length as u32);
        self.put32(at + 8, bin as u32);
        self.put32(at + 32, (bin - 32) as u32);
        self.put32(40, (length + bin) as u32);
        Ok(at + 32)
    }

    /// Frees a cell, together with a free one behind it.
    pub(super) fn free(&mut self, offset: u32) -> Result<()> {
        let (at, length) = self.cell_range(offset)?;
        let (at, mut size) = (at - 4, length + 4);
        let next = at + size;
        let bin_end = self.bin_end(at)?;
        if next + 8 <= bin_end {
            let there = self.bytes.le32(next)? as i32;
            if there > 0 && there as usize <= bin_end - next {
                size += there as usize;
            }
        }
        self.put32(at, size as u32);
        self.changed = true;
        Ok(())
    }

    fn bin_end(&self, at: usize) -> Result<usize> {
        let mut bin = BASE;
        loop {
            let end = bin + self.bytes.le32(bin + 8)? as usize;
            if at < end {
                return Ok(end);
            }
            bin = end;
        }
    }

    pub(super) fn put32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}
