//! Compressed resources, read anywhere a chunk at a time.

use std::sync::Mutex;

use super::Place;
use super::codec::{Codec, Compression};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::source::{Pieces, Scratch, Shared, Source, within};

/// The largest chunk; Windows writes no larger ones.
const LARGEST: u32 = 64 << 20;
/// Chunks of a resource beyond which its table cannot be kept.
const CHUNKS: u64 = 1 << 22;

/// What a solid resource begins with.
pub(super) struct SolidHeader {
    pub size: u64,
    chunk: u32,
    compression: Compression,
}

impl SolidHeader {
    const LENGTH: u64 = 16;

    pub fn read(source: &Shared, place: Place) -> Result<SolidHeader> {
        const WHAT: &str = "a solid resource of a WIM";
        if place.stored < Self::LENGTH {
            return Err(Error::damaged(WHAT, place.at, "it is too short"));
        }
        let bytes = source.read_vec(place.at, Self::LENGTH as usize)?;
        Ok(SolidHeader {
            size: bytes.le64(0)?,
            chunk: bytes.le32(8)?,
            compression: match bytes.le32(12)? {
                0 => Compression::None,
                1 => Compression::Xpress,
                2 => Compression::Lzx,
                3 => Compression::Lzms,
                other => {
                    return Err(Error::damaged(
                        WHAT,
                        place.at + 12,
                        format!("compression {other} is unknown"),
                    ));
                }
            },
        })
    }
}

/// A resource of compressed chunks.
pub(super) struct Chunked {
    source: Shared,
    compression: Compression,
    size: u64,
    chunk: u32,
    /// Where each chunk begins in the source, and where the last ends.
    starts: Vec<u64>,
    /// The chunk that was decompressed last; a large one stays for the next file in it.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    scratch: Scratch,
    index: Option<u64>,
    bytes: Vec<u8>,
}

impl Chunked {
    /// A resource of one content: offsets of all chunks but the first, then the chunks.
    pub fn plain(
        source: Shared,
        place: Place,
        compression: Compression,
        chunk: u32,
    ) -> Result<Chunked> {
        let chunks = Self::count(place, place.size, chunk)?;
        let width = if place.size > u64::from(u32::MAX) {
            8
        } else {
            4
        };
        let table = (chunks - 1) * width;
        within(place.stored, 0, table)?;
        let bytes = source.read_vec(place.at, table as usize)?;
        let data = place.at + table;
        let mut starts = Vec::with_capacity(chunks as usize + 1);
        starts.push(data);
        for entry in bytes.chunks_exact(width as usize) {
            let offset = if width == 8 {
                entry.le64(0)?
            } else {
                entry.le32(0)?.into()
            };
            starts.push(data.saturating_add(offset));
        }
        starts.push(place.at + place.stored);
        Self::new(source, place, compression, place.size, chunk, starts)
    }

    /// A resource of many contents: a header, sizes of all chunks, the chunks.
    pub fn solid(source: Shared, place: Place) -> Result<Chunked> {
        within(source.size(), place.at, place.stored)?;
        let header = SolidHeader::read(&source, place)?;
        let chunks = Self::count(place, header.size, header.chunk)?;
        let table = SolidHeader::LENGTH + chunks * 4;
        within(place.stored, 0, table)?;
        let bytes = source.read_vec(
            place.at + SolidHeader::LENGTH,
            (table - SolidHeader::LENGTH) as usize,
        )?;
        let mut at = place.at + table;
        let mut starts = vec![at];
        for entry in bytes.chunks_exact(4) {
            at += u64::from(entry.le32(0)?);
            starts.push(at);
        }
        Self::new(
            source,
            place,
            header.compression,
            header.size,
            header.chunk,
            starts,
        )
    }

    fn count(place: Place, size: u64, chunk: u32) -> Result<u64> {
        const WHAT: &str = "a compressed resource of a WIM";
        if !(1 << 12..=LARGEST).contains(&chunk) {
            return Err(Error::damaged(
                WHAT,
                place.at,
                format!("chunks of {chunk} bytes"),
            ));
        }
        let chunks = size.div_ceil(chunk.into());
        if chunks == 0 || chunks > CHUNKS {
            return Err(Error::damaged(
                WHAT,
                place.at,
                format!("{chunks} chunks for {size} bytes"),
            ));
        }
        Ok(chunks)
    }

    fn new(
        source: Shared,
        place: Place,
        compression: Compression,
        size: u64,
        chunk: u32,
        starts: Vec<u64>,
    ) -> Result<Chunked> {
        const WHAT: &str = "the chunk table of a WIM";
        let end = place.at + place.stored;
        for (index, pair) in starts.windows(2).enumerate() {
            let length = (size - index as u64 * u64::from(chunk)).min(chunk.into());
            if pair[0] > pair[1] || pair[1] > end || pair[1] - pair[0] > length {
                return Err(Error::damaged(
                    WHAT,
                    place.at,
                    format!("chunk {index} lies at {} to {}", pair[0], pair[1]),
                ));
            }
        }
        Ok(Chunked {
            source,
            compression,
            size,
            chunk,
            starts,
            last: Mutex::default(),
        })
    }

    fn length(&self, index: u64) -> usize {
        (self.size - index * u64::from(self.chunk)).min(self.chunk.into()) as usize
    }

    fn decompress(&self, index: u64, scratch: &mut Scratch, out: &mut [u8]) -> Result<()> {
        let (start, end) = (self.starts[index as usize], self.starts[index as usize + 1]);
        let stored = (end - start) as usize;
        if stored == out.len() {
            return self.source.read_at(start, out);
        }
        let Scratch { codec, input, .. } = scratch;
        input.resize(stored, 0);
        self.source.read_at(start, input)?;
        let (.., codec) = match codec {
            Some(kept) if (kept.0, kept.1) == (self.compression, self.chunk) => kept,
            _ => {
                let new = Codec::new(self.compression, self.chunk).ok_or_else(|| {
                    Error::damaged(
                        "a compressed resource of a WIM",
                        start,
                        format!("{} chunks of {} bytes", self.compression, self.chunk),
                    )
                })?;
                codec.insert((self.compression, self.chunk, new))
            }
        };
        codec.decompress(input, out).map_err(|_| {
            Error::damaged(
                "a compressed chunk of a WIM",
                start,
                format!("it is no valid {}", self.compression),
            )
        })
    }
}

impl Pieces for Chunked {
    fn piece(&self) -> u64 {
        self.chunk.into()
    }

    fn stored(&self) -> u64 {
        self.starts
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or(0)
    }

    fn read_piece(&self, index: u64, scratch: &mut Scratch, out: &mut Vec<u8>) -> Result<()> {
        if index + 1 >= self.starts.len() as u64 {
            return Err(Error::Truncated {
                at: index.saturating_mul(self.chunk.into()),
                length: self.chunk.into(),
                size: self.size,
            });
        }
        out.resize(self.length(index), 0);
        self.decompress(index, scratch, out)
    }
}

impl Source for Chunked {
    fn size(&self) -> u64 {
        self.size
    }

    fn pieces(&self) -> Option<&dyn Pieces> {
        Some(self)
    }

    fn read_at(&self, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        within(self.size, offset, into.len() as u64)?;
        let mut last = self.last.lock().unwrap_or_else(|e| e.into_inner());
        let Last {
            scratch,
            index: kept,
            bytes,
        } = &mut *last;
        while !into.is_empty() {
            let index = offset / u64::from(self.chunk);
            let inside = (offset % u64::from(self.chunk)) as usize;
            let length = self.length(index);
            let there = (length - inside).min(into.len());
            let (now, rest) = std::mem::take(&mut into).split_at_mut(there);
            if *kept == Some(index) {
                now.copy_from_slice(&bytes[inside..inside + there]);
            } else if there == length {
                self.decompress(index, scratch, now)?;
            } else {
                *kept = None;
                bytes.resize(length, 0);
                self.decompress(index, scratch, bytes)?;
                *kept = Some(index);
                now.copy_from_slice(&bytes[inside..inside + there]);
            }
            offset += there as u64;
            into = rest;
        }
        Ok(())
    }
}
