//! The array's host memory. Guests read and execute it through raw pointers, so all access is by raw pointers here too.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU16, Ordering};

use memmap2::{MmapMut, MmapRaw};

/// Alignment of mappings on Apple silicon, the strictest of our hosts.
const ALIGNMENT: usize = 16 << 10;

/// Zeroed host memory, aligned for mapping into a guest.
pub(super) struct Contents {
    map: MmapRaw,
    /// Where the aligned part starts in `map`.
    start: usize,
    size: usize,
}

impl Contents {
    pub fn new(size: usize) -> std::io::Result<Contents> {
        let map = MmapRaw::from(MmapMut::map_anon(size + ALIGNMENT)?);
        let start = map.as_mut_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Ok(Contents { map, start, size })
    }

    pub fn host(&self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.start)
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// The 16-bit cells that hold `length` bytes from `offset` on; both even.
    fn cells(&self, offset: usize, length: usize) -> &[AtomicU16] {
        assert!(
            offset.is_multiple_of(2)
                && length.is_multiple_of(2)
                && offset <= self.size
                && length <= self.size - offset
        );
        // SAFETY: the span is inside of the mapping (checked above), which lives as long as `self`, and is aligned;
        // the processors' plain reads of the same memory see old or new values, as those of any device memory.
        unsafe {
            std::slice::from_raw_parts(self.host().add(offset).cast::<AtomicU16>(), length / 2)
        }
    }

    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let cells = self.cells(offset, into.len());
        for (bytes, cell) in into.chunks_exact_mut(2).zip(cells) {
            bytes.copy_from_slice(&cell.load(Ordering::Relaxed).to_ne_bytes());
        }
    }

    pub fn write(&self, offset: usize, from: &[u8]) {
        for (bytes, cell) in from.chunks_exact(2).zip(self.cells(offset, from.len())) {
            cell.store(u16::from_ne_bytes([bytes[0], bytes[1]]), Ordering::Relaxed);
        }
    }

    /// The little-endian word at an even offset.
    pub fn word(&self, offset: usize) -> u16 {
        u16::from_le(self.cells(offset, 2)[0].load(Ordering::Relaxed))
    }

    pub fn set_word(&self, offset: usize, value: u16) {
        self.cells(offset, 2)[0].store(value.to_le(), Ordering::Relaxed);
    }

    /// Loads an image, from the start; what it does not reach becomes zero. Memory that is zero stays untouched, and
    /// thus no burden to the host.
    pub fn load(&self, image: &[u8]) {
        const CHUNK: usize = 16 << 10;
        let mut bytes = vec![0; CHUNK];
        let mut present = vec![0; CHUNK];
        for offset in (0..self.size).step_by(CHUNK) {
            let length = CHUNK.min(self.size - offset);
            let part = image.get(offset..).unwrap_or(&[]);
            let part = &part[..part.len().min(length)];
            bytes[..part.len()].copy_from_slice(part);
            bytes[part.len()..].fill(0);
            self.read(offset, &mut present[..length]);
            if bytes[..length] != present[..length] {
                self.write(offset, &bytes[..length]);
            }
        }
    }
}
