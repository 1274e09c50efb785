//! Guest RAM, and devices' view of it.
#![allow(unsafe_code)] // host pointers for the processors, and the bitmap's unsafe super-trait contracts

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::Code;
use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

/// Why RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    #[error("cannot set up guest memory of {size} bytes: {reason}")]
    Map { size: u64, reason: String },
}

/// Why a device's access to memory failed: some of the span is not RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at {address:#x} are not in guest RAM")]
pub struct DmaError {
    pub address: u64,
    pub length: u64,
}

/// The guest's RAM: one or more ranges of physical addresses backed by host memory.
#[derive(Clone)]
pub struct Ram {
    memory: Arc<GuestMemoryMmap<Written>>,
}

/// Asks the host for large pages: each costs one fault and one entry of its TLB in the place of 512. A host that has none
/// goes on with small ones.
fn prefer_large_pages(at: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{Advice, madvise};
        // SAFETY: the span is a mapping of its own, whose contents the advice leaves alone.
        let _ = unsafe { madvise(at.cast(), bytes, Advice::LinuxHugepage) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (at, bytes);
}

impl Ram {
    /// Anonymous, zeroed host memory for each (physical address, bytes); both multiples of the host's page size.
    pub fn new(ranges: &[(u64, u64)]) -> Result<Ram, RamError> {
        let mut regions = Vec::new();
        for &(start, size) in ranges {
            let fail = |reason: String| RamError::Map { size, reason };
            let bytes = usize::try_from(size).map_err(|e| fail(e.to_string()))?;
            let region = MmapRegion::<Written>::new(bytes).map_err(|e| fail(e.to_string()))?;
            prefer_large_pages(region.as_ptr(), bytes);
            let region = GuestRegionMmap::new(region, GuestAddress(start)).ok_or_else(|| {
                fail(format!(
                    "{start:#x} + {size:#x} is past the end of the address space"
                ))
            })?;
            regions.push(region);
        }
        let size = ranges.iter().map(|r| r.1).sum();
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|e| RamError::Map {
            size,
            reason: e.to_string(),
        })?;
        Ok(Ram {
            memory: Arc::new(memory),
        })
    }

    /// The memory as `vm-memory` has it, for the virtqueue library.
    pub fn memory(&self) -> &GuestMemoryMmap<Written> {
        &self.memory
    }

    /// Each range: physical address, bytes, host address.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64, *mut u8)> + '_ {
        self.memory
            .iter()
            .map(|r| (r.start_addr().0, r.len(), r.as_ptr()))
    }

    /// Total size in bytes.
    pub fn size(&self) -> u64 {
        self.memory.iter().map(|r| r.len()).sum()
    }

    /// Has devices' writes reported to `code`: that of the address space that the memory is mapped in.
    pub fn report_writes_to(&self, code: &Arc<Code>) {
        for region in self.memory.iter() {
            // Only the first counts: memory is mapped once.
            let _ = region
                .bitmap()
                .whole
                .code
                .set((region.start_addr().0, code.clone()));
        }
    }

    /// Devices' view.
    pub fn dma(&self) -> Dma {
        Dma {
            memory: self.memory.clone(),
        }
    }
}

/// A device's view of the guest's RAM. Spans that are not wholly RAM (device registers, flash, nothing at all) fail:
/// a ring that points at registers cannot re-enter a device.
#[derive(Clone)]
pub struct Dma {
    memory: Arc<GuestMemoryMmap<Written>>,
}

impl Dma {
    /// The memory as `vm-memory` has it, for the virtqueue library.
    pub fn memory(&self) -> &GuestMemoryMmap<Written> {
        &self.memory
    }

    /// Whether all of the span is RAM.
    pub fn contains(&self, address: u64, length: u64) -> bool {
        usize::try_from(length).is_ok_and(|n| self.memory.check_range(GuestAddress(address), n))
    }

    /// Copies guest memory out.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), DmaError> {
        let length = into.len() as u64;
        self.memory
            .read_slice(into, GuestAddress(address))
            .map_err(|_| DmaError { address, length })
    }

    /// Copies into guest memory. A span that is partly outside of RAM may be written in part.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), DmaError> {
        let length = from.len() as u64;
        self.memory
            .write_slice(from, GuestAddress(address))
            .map_err(|_| DmaError { address, length })
    }

    /// Fills a span with one byte value.
    pub fn fill(&self, address: u64, length: u64, byte: u8) -> Result<(), DmaError> {
        let chunk = [byte; 4096];
        let mut done = 0;
        while done < length {
            let n = (length - done).min(chunk.len() as u64);
            self.write(address.wrapping_add(done), &chunk[..n as usize])?;
            done += n;
        }
        Ok(())
    }

    /// A little-endian 32-bit value; single-copy atomic where aligned.
    pub fn read_u32(&self, address: u64) -> Result<u32, DmaError> {
        self.load(address)
    }

    /// A little-endian 64-bit value; single-copy atomic where aligned.
    pub fn read_u64(&self, address: u64) -> Result<u64, DmaError> {
        self.load(address)
    }

    /// Stores a little-endian 32-bit value; single-copy atomic where aligned.
    pub fn write_u32(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.store(address, value)
    }

    /// Stores a little-endian 64-bit value; single-copy atomic where aligned.
    pub fn write_u64(&self, address: u64, value: u64) -> Result<(), DmaError> {
        self.store(address, value)
    }

    fn load<T: vm_memory::AtomicAccess>(&self, address: u64) -> Result<T, DmaError> {
        let at = GuestAddress(address);
        let aligned = address.is_multiple_of(size_of::<T>() as u64);
        let value = if aligned {
            self.memory.load(at, Ordering::Acquire)
        } else {
            self.memory.read_obj(at)
        };
        value.map_err(|_| DmaError {
            address,
            length: size_of::<T>() as u64,
        })
    }

    fn store<T: vm_memory::AtomicAccess>(&self, address: u64, value: T) -> Result<(), DmaError> {
        let at = GuestAddress(address);
        let aligned = address.is_multiple_of(size_of::<T>() as u64);
        let done = if aligned {
            self.memory.store(value, at, Ordering::Release)
        } else {
            self.memory.write_obj(value, at)
        };
        done.map_err(|_| DmaError {
            address,
            length: size_of::<T>() as u64,
        })
    }
}

/// What was written to a range of RAM by devices: a count a region, so that whoever keeps things derived from
/// memory (translated code) can be told.
#[derive(Debug, Default)]
pub struct Written {
    writes: AtomicU64,
    /// The region's physical address, and who is told.
    code: OnceLock<(u64, Arc<Code>)>,
}

/// A part of [`Written`].
#[derive(Clone, Copy, Debug)]
pub struct WrittenSlice<'a> {
    whole: &'a Written,
    offset: usize,
}

impl<'a> WithBitmapSlice<'a> for Written {
    type S = WrittenSlice<'a>;
}

impl<'a> WithBitmapSlice<'a> for WrittenSlice<'_> {
    type S = Self;
}

impl BitmapSlice for WrittenSlice<'_> {}

impl Bitmap for WrittenSlice<'_> {
    fn mark_dirty(&self, offset: usize, length: usize) {
        self.whole
            .mark_dirty(self.offset.wrapping_add(offset), length);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.whole.dirty_at(self.offset.wrapping_add(offset))
    }

    fn slice_at(&self, offset: usize) -> Self {
        WrittenSlice {
            whole: self.whole,
            offset: self.offset.wrapping_add(offset),
        }
    }
}

impl Bitmap for Written {
    fn mark_dirty(&self, offset: usize, length: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        if let Some((start, code)) = self.code.get() {
            code.written(start.wrapping_add(offset as u64), length as u64);
        }
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        self.writes.load(Ordering::Relaxed) != 0
    }

    fn slice_at(&self, offset: usize) -> WrittenSlice<'_> {
        WrittenSlice {
            whole: self,
            offset,
        }
    }
}

impl NewBitmap for Written {
    fn with_len(_length: usize) -> Self {
        Written::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_and_refuses_what_is_not_ram() {
        let ram = Ram::new(&[(0x4000_0000, 0x10000)]).unwrap();
        let dma = ram.dma();
        dma.write_u64(0x4000_0008, 0x1122_3344_5566_7788).unwrap();
        assert_eq!(dma.read_u32(0x4000_000c), Ok(0x1122_3344));
        dma.fill(0x4000_0ff0, 0x1000, 7).unwrap();
        let mut bytes = [0; 3];
        dma.read(0x4000_1fed, &mut bytes).unwrap();
        assert_eq!(bytes, [7, 7, 7]);
        assert!(dma.read_u64(0x4000_fffc).is_err());
        assert!(dma.read_u32(0x3fff_fffc).is_err());
        assert!(dma.write(u64::MAX - 2, &[0; 8]).is_err());
        assert!(!dma.contains(0x4000_ffff, 2));
    }
}
