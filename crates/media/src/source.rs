//! Bytes that can be read anywhere: a file of the host, or a file inside another.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::wim::{Codec, Compression};

/// Bytes that can be read anywhere, from several threads at once.
pub trait Source: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Fills `into` from `offset`. Fails with [`Error::Truncated`] past the end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()>;

    /// The host's or container's byte that `offset` lies at, and how many lie there in a row; `None` if it is not stored as it is
    /// (compressed, a hole).
    fn place(&self, _offset: u64) -> Option<(u64, u64)> {
        None
    }

    /// How many bytes from `offset` on are zero because nothing is stored there; `None` if something is, or may be.
    fn hole(&self, _offset: u64) -> Option<u64> {
        None
    }

    /// How to read what is decompressed piece by piece from several threads; `None` for what is stored as it is.
    fn pieces(&self) -> Option<&dyn Pieces> {
        None
    }
}

/// A source in pieces of one size that are decompressed each by itself.
pub trait Pieces: Send + Sync {
    /// Bytes of each piece but the last.
    fn piece(&self) -> u64;

    /// The most bytes that a piece takes in its container.
    fn stored(&self) -> u64;

    /// Decompresses a piece, counted from 0, into `out`, whose length becomes the piece's.
    fn read_piece(&self, index: u64, scratch: &mut Scratch, out: &mut Vec<u8>) -> Result<()>;
}

/// What a thread keeps from piece to piece.
#[derive(Default)]
pub struct Scratch {
    pub(crate) codec: Option<(Compression, u32, Codec)>,
    pub(crate) input: Vec<u8>,
    pub(crate) block: Vec<u8>,
    pub(crate) plain: storage::Buffer,
}

/// Any source, shared.
pub type Shared = Arc<dyn Source>;

/// Fails unless `length` bytes lie at `offset` of something of `size` bytes.
pub(crate) fn within(size: u64, offset: u64, length: u64) -> Result<()> {
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Error::Truncated {
            at: offset,
            length,
            size,
        }),
    }
}

impl dyn Source + '_ {
    /// `length` bytes at `offset`.
    pub fn read_vec(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        // Before the allocation: a damaged length must not cost memory.
        within(self.size(), offset, length as u64)?;
        let mut bytes = vec![0; length];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// As much as there is of `length` bytes at `offset`.
    pub fn read_up_to(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let there = self.size().saturating_sub(offset).min(length as u64);
        self.read_vec(offset.min(self.size()), there as usize)
    }

    /// All of it, if it is at most `limit` bytes.
    pub fn read_all(&self, what: &str, limit: u64) -> Result<Vec<u8>> {
        if self.size() > limit {
            return Err(Error::Unsupported(format!(
                "{what} is {} bytes, more than the {limit} that can be read at once",
                self.size()
            )));
        }
        self.read_vec(0, self.size() as usize)
    }
}

/// A file of the host.
pub struct FileSource {
    file: File,
    size: u64,
}

impl FileSource {
    /// Opens `path` for reading; a block device is as long as a seek to its end says.
    pub fn open(path: &Path) -> Result<FileSource> {
        use std::io::{Seek, SeekFrom};
        let mut file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(Error::Unsupported("this is a folder, not a file".into()));
        }
        let size = file.seek(SeekFrom::End(0))?;
        Ok(FileSource { file, size })
    }
}

impl Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        within(self.size, offset, into.len() as u64)?;
        Ok(self.file.read_exact_at(into, offset)?)
    }
    fn place(&self, offset: u64) -> Option<(u64, u64)> {
        (offset < self.size).then(|| (offset, self.size - offset))
    }
    fn hole(&self, offset: u64) -> Option<u64> {
        use rustix::fs::SeekFrom;
        if offset >= self.size {
            return None;
        }
        // The file's position is no one's: everything here reads at an offset.
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            // A hole up to the end.
            Err(rustix::io::Errno::NXIO) => self.size,
            Err(_) => return None,
        };
        (data > offset).then(|| data.min(self.size) - offset)
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        within(self.size(), offset, into.len() as u64)?;
        let at = offset as usize;
        into.copy_from_slice(&self[at..at + into.len()]);
        Ok(())
    }
    fn place(&self, offset: u64) -> Option<(u64, u64)> {
        (offset < self.size()).then(|| (offset, self.size() - offset))
    }
}

/// A disk of a machine, read as a source.
pub struct DiskSource(pub Arc<dyn storage::Disk>);

impl Source for DiskSource {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        within(self.size(), offset, into.len() as u64)?;
        Ok(self.0.read(offset, into)?)
    }
    fn place(&self, offset: u64) -> Option<(u64, u64)> {
        (offset < self.size()).then(|| (offset, self.size() - offset))
    }
}

/// A run of bytes of a container, or a hole that reads as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it lies in the container; `None` for a hole.
    pub at: Option<u64>,
    /// Bytes.
    pub length: u64,
}

/// A file whose bytes lie in runs of a container.
pub struct Extents {
    container: Shared,
    /// First byte within the file, and the run.
    runs: Vec<(u64, Run)>,
    size: u64,
}

impl Extents {
    /// The runs in order, of which the first `size` bytes count. Fails if they hold less.
    pub fn new(
        container: Shared,
        runs: impl IntoIterator<Item = Run>,
        size: u64,
    ) -> Result<Extents> {
        let mut placed = Vec::new();
        let mut end = 0u64;
        for run in runs {
            if run.length > 0 && end < size {
                placed.push((end, run));
            }
            end = end.saturating_add(run.length);
        }
        within(end, 0, size)?;
        Ok(Extents {
            container,
            runs: placed,
            size,
        })
    }

    /// One run.
    pub fn slice(container: Shared, at: u64, length: u64) -> Extents {
        let run = Run {
            at: Some(at),
            length,
        };
        Extents {
            container,
            runs: vec![(0, run)],
            size: length,
        }
    }

    /// The byte of the container that `offset` lies at; `None` in a hole.
    pub(crate) fn in_container(&self, offset: u64) -> Option<u64> {
        let (run, inside) = self.run(offset)?;
        run.at?.checked_add(inside)
    }

    fn run(&self, offset: u64) -> Option<(Run, u64)> {
        let after = self.runs.partition_point(|(start, _)| *start <= offset);
        let (start, run) = *self.runs.get(after.checked_sub(1)?)?;
        Some((run, offset - start))
    }
}

impl Source for Extents {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        within(self.size, offset, into.len() as u64)?;
        while !into.is_empty() {
            let Some((run, inside)) = self.run(offset) else {
                return Err(Error::Truncated {
                    at: offset,
                    length: into.len() as u64,
                    size: self.size,
                });
            };
            let there = (run.length - inside).min(into.len() as u64) as usize;
            let (now, rest) = into.split_at_mut(there);
            match run.at {
                Some(at) => self.container.read_at(at.saturating_add(inside), now)?,
                None => now.fill(0),
            }
            offset += there as u64;
            into = rest;
        }
        Ok(())
    }

    fn hole(&self, offset: u64) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let (run, inside) = self.run(offset)?;
        let left = (run.length - inside).min(self.size - offset);
        match run.at {
            None => Some(left),
            Some(at) => Some(self.container.hole(at.checked_add(inside)?)?.min(left)),
        }
    }

    fn place(&self, offset: u64) -> Option<(u64, u64)> {
        if offset >= self.size {
            return None;
        }
        let (run, inside) = self.run(offset)?;
        let (at, there) = self.container.place(run.at?.checked_add(inside)?)?;
        Some((at, there.min(run.length - inside).min(self.size - offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_holes() {
        let container: Shared = Arc::new((0..100).collect::<Vec<u8>>());
        let run = |at, length| Run { at, length };
        let file = Extents::new(
            container.clone(),
            [run(Some(10), 5), run(None, 3), run(Some(90), 10)],
            16,
        )
        .unwrap();
        let all = (&file as &dyn Source).read_vec(0, 16).unwrap();
        assert_eq!(
            all,
            [10, 11, 12, 13, 14, 0, 0, 0, 90, 91, 92, 93, 94, 95, 96, 97]
        );
        assert_eq!(file.place(3), Some((13, 2)));
        assert_eq!(file.place(6), None);
        assert_eq!(file.place(8), Some((90, 8)));
        assert!((&file as &dyn Source).read_vec(10, 7).is_err());
        assert!(Extents::new(container.clone(), [run(Some(0), 4)], 5).is_err());
        let past = Extents::slice(container, 98, 10);
        assert!((&past as &dyn Source).read_vec(0, 10).is_err());
    }
}
