//! One request of the block device (VIRTIO 5.2.6).

use std::io;
use std::sync::atomic::Ordering;

use super::Inner;
use super::spec::*;
use crate::chain::{Chain, Cursor};
use crate::device::Running;
use crate::queue::Virtqueue;

/// Bytes that go through the host at once; small enough to stay in a cache on the way.
const CHUNK: usize = 256 << 10;

/// A worker's bounce buffer. Grows to a chunk.
#[derive(Default)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    fn of(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length {
            self.0.resize(length.next_power_of_two().min(CHUNK), 0);
        }
        &mut self.0[..length]
    }
}

/// How a request ended: bytes written to the guest before the status, or why not.
enum Failure {
    /// VIRTIO_BLK_S_IOERR.
    Io,
    /// VIRTIO_BLK_S_UNSUPP.
    Unsupported,
    /// The device was reset meanwhile.
    Stale,
}

impl From<memory::DmaError> for Failure {
    fn from(_: memory::DmaError) -> Self {
        Failure::Io
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        tracing::debug!("block request: {error}");
        Failure::Io
    }
}

type Done = Result<u64, Failure>;

impl Inner {
    /// Serves one request and gives its chain back.
    pub(super) fn serve(
        &self,
        running: &Running,
        queue: &Virtqueue,
        chain: &Chain,
        buffer: &mut Buffer,
    ) {
        // Without a byte for the status there is no telling how it went.
        let Some(room) = chain.writable_length().checked_sub(1) else {
            return queue.complete(chain, 0);
        };
        let request = Request {
            inner: self,
            running,
            queue,
            chain,
            room,
        };
        let (status, written) = match request.run(buffer) {
            Ok(written) => (S_OK, written),
            Err(Failure::Io) => (S_IOERR, 0),
            Err(Failure::Unsupported) => (S_UNSUPP, 0),
            Err(Failure::Stale) => return,
        };
        let mut last = Cursor::new(&chain.writable);
        last.skip(room);
        let told = queue.write(chain, |dma| last.write(dma, &[status]).is_ok());
        if told.is_some() {
            // The used length counts what was written from the start on; the status is the last byte (VIRTIO 2.7.8.2).
            let written = if written == room { room + 1 } else { written };
            queue.complete(chain, written.min(u32::MAX.into()) as u32);
        }
    }
}

struct Request<'a> {
    inner: &'a Inner,
    running: &'a Running,
    queue: &'a Virtqueue,
    chain: &'a Chain,
    /// Writable bytes before the status.
    room: u64,
}

impl Request<'_> {
    fn run(&self, buffer: &mut Buffer) -> Done {
        let mut source = Cursor::new(&self.chain.readable);
        let mut header = [0; HEADER_SIZE];
        if source.read(self.queue.dma(), &mut header)? < HEADER_SIZE {
            return Err(Failure::Io);
        }
        let header = u128::from_le_bytes(header);
        let (kind, sector) = (header as u32, (header >> 64) as u64);
        let length = self.chain.readable_length() - HEADER_SIZE as u64;
        match kind {
            T_IN => self.read(sector, buffer),
            T_OUT => self.write(sector, length, source, buffer),
            T_FLUSH => {
                self.inner.disk.flush()?;
                Ok(0)
            }
            T_GET_ID => self.get_id(),
            T_DISCARD if self.running.has(feature::DISCARD) => self.ranges(kind, length, source),
            T_WRITE_ZEROES if self.running.has(feature::WRITE_ZEROES) => {
                self.ranges(kind, length, source)
            }
            _ => Err(Failure::Unsupported),
        }
    }

    /// The byte offset of a span that lies on the disk and is of whole logical blocks.
    fn span(&self, sector: u64, length: u64) -> Result<u64, Failure> {
        let block = 1u64 << self.inner.block_shift;
        let offset = sector.checked_mul(SECTOR).ok_or(Failure::Io)?;
        let end = offset.checked_add(length).ok_or(Failure::Io)?;
        let aligned = offset.is_multiple_of(block) && length.is_multiple_of(block);
        if !aligned || end > self.inner.capacity() * SECTOR {
            return Err(Failure::Io);
        }
        Ok(offset)
    }

    fn read(&self, sector: u64, buffer: &mut Buffer) -> Done {
        let start = self.span(sector, self.room)?;
        let mut target = Cursor::new(&self.chain.writable);
        let mut done = 0;
        while done < self.room {
            let bytes = buffer.of((self.room - done).min(CHUNK as u64) as usize);
            self.inner.disk.read(start + done, bytes)?;
            self.queue
                .write(self.chain, |dma| target.write(dma, bytes))
                .ok_or(Failure::Stale)??;
            done += bytes.len() as u64;
        }
        Ok(self.room)
    }

    fn write(&self, sector: u64, length: u64, mut source: Cursor<'_>, buffer: &mut Buffer) -> Done {
        if self.inner.read_only {
            return Err(Failure::Io);
        }
        let start = self.span(sector, length)?;
        let mut done = 0;
        while done < length {
            let bytes = buffer.of((length - done).min(CHUNK as u64) as usize);
            if self.queue.is_stale(self.chain) {
                return Err(Failure::Stale);
            }
            source.read(self.queue.dma(), bytes)?;
            self.inner.disk.write(start + done, bytes)?;
            done += bytes.len() as u64;
        }
        self.write_through()?;
        Ok(0)
    }

    /// Without a cache that the driver knows of, what is written is on the disk (VIRTIO 5.2.6.2).
    fn write_through(&self) -> Result<(), Failure> {
        let cached = if self.running.has(feature::CONFIG_WCE) {
            self.inner.write_back.load(Ordering::SeqCst)
        } else {
            self.inner.config.write_cache && self.running.has(feature::FLUSH)
        };
        if !cached {
            self.inner.disk.flush()?;
        }
        Ok(())
    }

    fn get_id(&self) -> Done {
        let mut id = [0; ID_SIZE];
        let serial = self.inner.config.serial.as_bytes();
        let length = serial.len().min(ID_SIZE);
        id[..length].copy_from_slice(&serial[..length]);
        let length = self.room.min(ID_SIZE as u64) as usize;
        let mut target = Cursor::new(&self.chain.writable);
        self.queue
            .write(self.chain, |dma| target.write(dma, &id[..length]))
            .ok_or(Failure::Stale)??;
        Ok(length as u64)
    }

    fn ranges(&self, kind: u32, length: u64, mut source: Cursor<'_>) -> Done {
        if self.inner.read_only {
            return Err(Failure::Io);
        }
        let count = length / RANGE_SIZE as u64;
        if count == 0 || !length.is_multiple_of(RANGE_SIZE as u64) || count > MAX_SEGMENTS.into() {
            return Err(Failure::Io);
        }
        // All are looked at before the first is done.
        let mut ranges = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let mut bytes = [0; RANGE_SIZE];
            source.read(self.queue.dma(), &mut bytes)?;
            let raw = u128::from_le_bytes(bytes);
            let (sector, sectors, flags) = (raw as u64, (raw >> 64) as u32, (raw >> 96) as u32);
            let allowed = if kind == T_DISCARD { 0 } else { RANGE_UNMAP };
            if flags & !allowed != 0 {
                return Err(Failure::Unsupported);
            }
            if sectors > MAX_SECTORS {
                return Err(Failure::Io);
            }
            let bytes = u64::from(sectors) * SECTOR;
            ranges.push((self.span(sector, bytes)?, bytes, flags & RANGE_UNMAP != 0));
        }
        for (offset, bytes, unmap) in ranges {
            if kind == T_DISCARD {
                self.inner.disk.discard(offset, bytes)?;
            } else {
                self.inner.disk.write_zeroes(offset, bytes, unmap)?;
            }
        }
        self.write_through()?;
        Ok(0)
    }
}
