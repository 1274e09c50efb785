//! A queue of bytes that grows to what it must hold.

use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;

/// Bytes, first in, first out.
#[derive(Debug, Default)]
pub struct Ring {
    /// A power of two, or nothing.
    buffer: Vec<u8>,
    start: usize,
    length: usize,
}

const SMALLEST: usize = 16 << 10;

impl Ring {
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes of memory.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Gives memory back if it holds nothing.
    pub fn trim(&mut self) {
        if self.length == 0 {
            *self = Ring::default();
        }
    }

    /// Makes room for `more` bytes.
    fn reserve(&mut self, more: usize) {
        let needed = self.length + more;
        if needed <= self.buffer.len() {
            return;
        }
        let mut larger = vec![0; needed.next_power_of_two().max(SMALLEST)];
        let [a, b] = self.slices(0, self.length);
        larger[..a.len()].copy_from_slice(a);
        larger[a.len()..a.len() + b.len()].copy_from_slice(b);
        self.buffer = larger;
        self.start = 0;
    }

    /// `length` bytes from `offset` on, which must be there, in two pieces.
    pub fn slices(&self, offset: usize, length: usize) -> [&[u8]; 2] {
        if length == 0 {
            return [&[], &[]];
        }
        let size = self.buffer.len();
        let from = (self.start + offset) & (size - 1);
        let first = length.min(size - from);
        [
            &self.buffer[from..from + first],
            &self.buffer[..length - first],
        ]
    }

    /// Adds bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let [a, b] = self.free(bytes.len());
        let (x, y) = bytes.split_at(a.len());
        a.copy_from_slice(x);
        b.copy_from_slice(y);
        self.length += bytes.len();
    }

    /// `length` bytes of room, which must be there.
    fn free(&mut self, length: usize) -> [&mut [u8]; 2] {
        if length == 0 {
            return [&mut [], &mut []];
        }
        let size = self.buffer.len();
        let from = (self.start + self.length) & (size - 1);
        let first = length.min(size - from);
        let (head, tail) = self.buffer.split_at_mut(from);
        [&mut tail[..first], &mut head[..length - first]]
    }

    /// Drops bytes at the front.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.length);
        self.length -= count;
        if self.length == 0 {
            self.start = 0;
        } else {
            self.start = (self.start + count) & (self.buffer.len() - 1);
        }
    }

    /// Reads from a file at most `most` bytes: how many.
    pub fn read_from(&mut self, file: impl AsFd, most: usize) -> io::Result<usize> {
        self.reserve(most);
        let [a, b] = self.free(most);
        let mut slices = [IoSliceMut::new(a), IoSliceMut::new(b)];
        let n = rustix::io::readv(file, &mut slices)?;
        self.length += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn as_a_queue(steps in proptest::collection::vec((any::<bool>(), 0usize..40_000), 0..40)) {
            let (mut ring, mut model) = (Ring::default(), VecDeque::new());
            let mut next = 0u8;
            for (add, n) in steps {
                if add {
                    let bytes: Vec<u8> = (0..n).map(|_| { next = next.wrapping_add(1); next }).collect();
                    ring.extend(&bytes);
                    model.extend(bytes);
                } else {
                    ring.consume(n);
                    model.drain(..n.min(model.len()));
                }
                prop_assert_eq!(ring.len(), model.len());
                let at = ring.len() / 3;
                let got = ring.slices(at, ring.len() - at).concat();
                prop_assert!(got.iter().eq(model.iter().skip(at)));
            }
        }
    }
}
