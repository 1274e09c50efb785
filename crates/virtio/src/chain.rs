//! Descriptor chains: the buffers of one request.

use memory::{Dma, DmaError};

use crate::spec::descriptor;

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub address: u64,
    pub length: u32,
}

/// The buffers of one request. One value serves many requests, so that none of them allocates.
#[derive(Debug, Default)]
pub struct Chain {
    pub(crate) head: u16,
    pub(crate) epoch: u64,
    /// What the device may read.
    pub readable: Vec<Segment>,
    /// What the device may write.
    pub writable: Vec<Segment>,
}

/// Why a chain is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    #[error("descriptor {0} of a table of {1}")]
    Index(u16, u32),
    #[error("a descriptor outside of memory: {0}")]
    Memory(#[from] DmaError),
    #[error("a chain longer than its table")]
    Loop,
    #[error("an indirect descriptor that is not negotiated, nested, or not alone")]
    Indirect,
    #[error("an indirect table of {0} bytes")]
    TableSize(u32),
    #[error("a readable buffer after a writable one")]
    Order,
    #[error("more than 4 GiB in one chain")]
    Length,
}

/// What an indirect table may hold; drivers keep to the queue size (VIRTIO 2.7.5.3.1), but some old ones did not.
const INDIRECT_MAX: u32 = 1024;

impl Chain {
    /// Bytes that the device may read.
    pub fn readable_length(&self) -> u64 {
        self.readable.iter().map(|s| u64::from(s.length)).sum()
    }

    /// Bytes that the device may write.
    pub fn writable_length(&self) -> u64 {
        self.writable.iter().map(|s| u64::from(s.length)).sum()
    }

    /// Walks the chain that starts at `head` of a table of `size` descriptors (VIRTIO 2.7.5). Takes as many steps as
    /// the tables have entries at most.
    pub(crate) fn walk(
        &mut self,
        dma: &Dma,
        table: u64,
        size: u16,
        head: u16,
        indirect_allowed: bool,
    ) -> Result<(), ChainError> {
        self.readable.clear();
        self.writable.clear();
        let (mut table, mut entries, mut index) = (table, u32::from(size), head);
        let mut indirect = false;
        let mut steps = 0;
        let mut total = 0u32;
        loop {
            if u32::from(index) >= entries {
                return Err(ChainError::Index(index, entries));
            }
            if steps >= entries {
                return Err(ChainError::Loop);
            }
            steps += 1;
            let mut bytes = [0; descriptor::SIZE as usize];
            dma.read(
                table.wrapping_add(u64::from(index) * descriptor::SIZE),
                &mut bytes,
            )?;
            let raw = u128::from_le_bytes(bytes);
            let (address, length) = (raw as u64, (raw >> 64) as u32);
            let (flags, next) = ((raw >> 96) as u16, (raw >> 112) as u16);
            if flags & descriptor::INDIRECT != 0 {
                if !indirect_allowed || indirect || flags & descriptor::NEXT != 0 {
                    return Err(ChainError::Indirect);
                }
                let count = length / descriptor::SIZE as u32;
                let whole = length.is_multiple_of(descriptor::SIZE as u32);
                if !whole || count == 0 || count > INDIRECT_MAX.max(size.into()) {
                    return Err(ChainError::TableSize(length));
                }
                (table, entries, index, steps, indirect) = (address, count, 0, 0, true);
                continue;
            }
            total = total.checked_add(length).ok_or(ChainError::Length)?;
            if flags & descriptor::WRITE != 0 {
                self.writable.push(Segment { address, length });
            } else if self.writable.is_empty() {
                self.readable.push(Segment { address, length });
            } else {
                return Err(ChainError::Order);
            }
            if flags & descriptor::NEXT == 0 {
                return Ok(());
            }
            index = next;
        }
    }
}

/// Goes through segments as through one run of bytes.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    segments: &'a [Segment],
    /// Bytes of the first segment that are behind.
    done: u32,
}

impl<'a> Cursor<'a> {
    /// At the start.
    pub fn new(segments: &'a [Segment]) -> Cursor<'a> {
        Cursor { segments, done: 0 }
    }

    /// The next stretch of at most `limit` bytes that is contiguous in guest memory.
    fn next(&mut self, limit: usize) -> Option<(u64, usize)> {
        loop {
            let segment = self.segments.first()?;
            let left = segment.length - self.done;
            if left == 0 {
                self.segments = &self.segments[1..];
                self.done = 0;
                continue;
            }
            let length = limit.min(left as usize);
            let address = segment.address.wrapping_add(self.done.into());
            self.done += length as u32;
            return Some((address, length));
        }
    }

    /// Steps over `length` bytes, or to the end.
    pub fn skip(&mut self, mut length: u64) {
        while length > 0 {
            let limit = usize::try_from(length).unwrap_or(usize::MAX);
            let Some((_, n)) = self.next(limit) else {
                return;
            };
            length -= n as u64;
        }
    }

    /// Copies guest memory out, until `into` is full or the segments end: how many bytes.
    pub fn read(&mut self, dma: &Dma, into: &mut [u8]) -> Result<usize, DmaError> {
        let mut at = 0;
        while at < into.len() {
            let Some((address, length)) = self.next(into.len() - at) else {
                break;
            };
            dma.read(address, &mut into[at..at + length])?;
            at += length;
        }
        Ok(at)
    }

    /// Copies into guest memory, until `from` or the segments end: how many bytes.
    pub fn write(&mut self, dma: &Dma, from: &[u8]) -> Result<usize, DmaError> {
        let mut at = 0;
        while at < from.len() {
            let Some((address, length)) = self.next(from.len() - at) else {
                break;
            };
            dma.write(address, &from[at..at + length])?;
            at += length;
        }
        Ok(at)
    }
}
