//! A disk in memory.

use crate::disk::Disk;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;

const CHUNK: u64 = 64 << 10;

/// A sparse disk that is gone when it is dropped: for tests and for small media made up on the spot.
pub struct MemoryDisk {
    size: u64,
    block_size: u32,
    read_only: bool,
    /// Chunks by number; those that are not there read as zeroes.
    chunks: RwLock<BTreeMap<u64, Box<[u8]>>>,
}

impl MemoryDisk {
    /// All zeroes.
    pub fn new(size: u64) -> MemoryDisk {
        MemoryDisk {
            size,
            block_size: 512,
            read_only: false,
            chunks: RwLock::default(),
        }
    }

    /// With `contents`, which also give the size.
    pub fn with_contents(contents: &[u8]) -> MemoryDisk {
        let disk = MemoryDisk::new(contents.len() as u64);
        disk.store(0, contents);
        disk
    }

    /// Refuses writes from now on.
    pub fn read_only(mut self) -> MemoryDisk {
        self.read_only = true;
        self
    }

    /// Reports another [`Disk::block_size`].
    pub fn with_block_size(mut self, block_size: u32) -> MemoryDisk {
        self.block_size = block_size;
        self
    }

    /// All of it. Meant for small disks: the bytes are copied.
    pub fn contents(&self) -> Vec<u8> {
        let mut contents = vec![0; self.size as usize];
        self.load(0, &mut contents);
        contents
    }

    /// Bytes that take up memory.
    pub fn allocated(&self) -> u64 {
        self.chunks.read().len() as u64 * CHUNK
    }

    fn check(&self, offset: u64, length: u64) -> io::Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "access past the end of the disk",
            )),
        }
    }

    fn check_write(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "the disk is read-only",
            ));
        }
        self.check(offset, length)
    }

    fn load(&self, mut offset: u64, mut into: &mut [u8]) {
        let chunks = self.chunks.read();
        while !into.is_empty() {
            let at = (offset % CHUNK) as usize;
            let count = into.len().min(CHUNK as usize - at);
            let (now, rest) = into.split_at_mut(count);
            match chunks.get(&(offset / CHUNK)) {
                Some(chunk) => now.copy_from_slice(&chunk[at..at + count]),
                None => now.fill(0),
            }
            into = rest;
            offset += count as u64;
        }
    }

    fn store(&self, mut offset: u64, mut from: &[u8]) {
        let mut chunks = self.chunks.write();
        while !from.is_empty() {
            let at = (offset % CHUNK) as usize;
            let count = from.len().min(CHUNK as usize - at);
            let chunk = chunks
                .entry(offset / CHUNK)
                .or_insert_with(|| vec![0; CHUNK as usize].into());
            chunk[at..at + count].copy_from_slice(&from[..count]);
            from = &from[count..];
            offset += count as u64;
        }
    }

    fn clear(&self, offset: u64, length: u64) {
        let end = offset + length;
        let mut chunks = self.chunks.write();
        let touched: Vec<u64> = if length == 0 {
            Vec::new()
        } else {
            chunks
                .range(offset / CHUNK..=(end - 1) / CHUNK)
                .map(|(n, _)| *n)
                .collect()
        };
        for number in touched {
            let start = number * CHUNK;
            if start >= offset && start + CHUNK <= end {
                chunks.remove(&number);
            } else if let Some(chunk) = chunks.get_mut(&number) {
                let from = offset.max(start) - start;
                let to = end.min(start + CHUNK) - start;
                chunk[from as usize..to as usize].fill(0);
            }
        }
    }
}

impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.check(offset, into.len() as u64)?;
        self.load(offset, into);
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.check_write(offset, from.len() as u64)?;
        self.store(offset, from);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_write(offset, length)?;
        self.clear(offset, length);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _may_unmap: bool) -> io::Result<()> {
        self.check_write(offset, length)?;
        self.clear(offset, length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_and_sparseness() {
        let disk = MemoryDisk::new(1 << 40);
        disk.write((1 << 40) - 3, b"end").unwrap();
        assert_eq!(disk.allocated(), CHUNK);
        for (offset, length) in [(1 << 40, 1), ((1 << 40) - 1, 2), (u64::MAX, 1)] {
            assert_eq!(
                disk.read(offset, &mut vec![0; length]).unwrap_err().kind(),
                io::ErrorKind::InvalidInput
            );
        }
        disk.discard(0, 1 << 40).unwrap();
        assert_eq!(disk.allocated(), 0);
        assert!(MemoryDisk::new(512).read_only().write(0, b"x").is_err());
    }

    proptest! {
        #[test]
        fn behaves_like_a_vector(operations in prop::collection::vec((0u8..3, 0u64..200_000, 0u64..150_000, any::<u8>()), 1..20)) {
            let size = 300_000u64;
            let disk = MemoryDisk::new(size);
            let mut model = vec![0u8; size as usize];
            for (kind, offset, length, fill) in operations {
                let length = length.min(size - offset);
                let span = offset as usize..(offset + length) as usize;
                match kind {
                    0 => {
                        disk.write(offset, &vec![fill; length as usize]).unwrap();
                        model[span].fill(fill);
                    }
                    1 => {
                        disk.write_zeroes(offset, length, true).unwrap();
                        model[span].fill(0);
                    }
                    _ => {
                        let mut back = vec![0; length as usize];
                        disk.read(offset, &mut back).unwrap();
                        prop_assert!(back == model[span]);
                    }
                }
            }
            prop_assert!(disk.contents() == model);
        }
    }
}
