//! Memory that files are read into.

use std::ops::{Deref, DerefMut};

/// Where a buffer begins: the kernel copies out of its page cache by half as much again more slowly to a place that is not a
/// multiple of 32, as a `Vec`'s is not, and a page fits whatever the processor.
const ALIGNMENT: usize = 4096;

/// Bytes that begin at a page.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// `length` zeroes.
    pub fn new(length: usize) -> Buffer {
        let bytes = vec![0; length + ALIGNMENT - 1];
        // Nothing but speed is lost where it cannot be said.
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        let start = if start < ALIGNMENT { start } else { 0 };
        let mut buffer = Buffer { bytes, start };
        buffer.bytes.truncate(start + length);
        buffer
    }

    /// The first `length` bytes, of which nothing is known; there are so many from now on.
    pub fn first(&mut self, length: usize) -> &mut [u8] {
        if self.len() < length {
            *self = Buffer::new(length);
        }
        &mut self[..length]
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_pages() {
        for length in [0, 1, 4095, 4096, 1 << 20] {
            let mut buffer = Buffer::new(length);
            assert_eq!(buffer.len(), length);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
            buffer.fill(1);
            assert_eq!(buffer.first(length + 7).len(), length + 7);
            assert_eq!(buffer.first(3).as_ptr() as usize % ALIGNMENT, 0);
        }
        assert!(Buffer::default().is_empty());
    }
}
