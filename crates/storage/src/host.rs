//! Files that hold images at rest, as the formats of [`crate::format`] see them.
//!
//! The trait exists so that tests can put a file beneath an image that loses writes, fills up or stops at any moment.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};

/// A file of bytes. All calls may be made from several threads at once.
pub trait Host: Send + Sync {
    /// Bytes.
    fn length(&self) -> io::Result<u64>;

    /// Reads up to `into.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `from`, making the file longer if need be.
    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()>;

    /// Cuts the file or makes it longer; what is new reads as zeroes.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// What was written before is on the drive when this returns, and before anything that is written after it.
    fn sync(&self) -> io::Result<()>;

    /// Gives the span's space back to the host; it reads as zeroes then. Fails with
    /// [`io::ErrorKind::Unsupported`] where that cannot be.
    fn punch(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Has the host set space aside for the span, which keeps its contents. The file grows to its end.
    fn reserve(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether there are data at `offset` (a hole reads as zeroes) and up to where, at the latest the end of the file.
    fn span(&self, offset: u64) -> io::Result<(bool, u64)> {
        Ok((true, self.length()?.max(offset)))
    }

    /// Whether the host writes one request at a time, whoever makes them: through its cache into a regular file. Others wait
    /// busily then.
    fn one_writer(&self) -> bool {
        false
    }

    /// Bytes that the file takes on the host's disk.
    fn allocated(&self) -> io::Result<u64> {
        self.length()
    }

    /// Fills `into`; what is past the end of the file is an error.
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.read_at(offset, into)? < into.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl Host for File {
    fn length(&self) -> io::Result<u64> {
        let metadata = self.metadata()?;
        if metadata.file_type().is_block_device() {
            return rustix::fs::seek(self, rustix::fs::SeekFrom::End(0)).map_err(Into::into);
        }
        Ok(metadata.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut have = 0;
        while have < into.len() {
            match FileExt::read_at(self, &mut into[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(count) => have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(have)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        FileExt::write_all_at(self, from, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        if self.metadata()?.file_type().is_block_device() {
            return if Host::length(self)? >= length {
                Ok(())
            } else {
                Err(rustix::io::Errno::NOSPC.into())
            };
        }
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(self, flags, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            other => other.map_err(Into::into),
        }
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(self, FallocateFlags::empty(), offset, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            other => other.map_err(Into::into),
        }
    }

    #[cfg(target_os = "linux")]
    fn span(&self, offset: u64) -> io::Result<(bool, u64)> {
        use rustix::fs::{SeekFrom, seek};
        use rustix::io::Errno;
        let end = Host::length(self)?;
        if offset >= end {
            return Ok((false, offset));
        }
        match seek(self, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Ok((false, data.min(end))),
            Ok(_) => match seek(self, SeekFrom::Hole(offset)) {
                Ok(hole) => Ok((true, hole.clamp(offset + 1, end))),
                Err(_) => Ok((true, end)),
            },
            Err(Errno::NXIO) => Ok((false, end)),
            Err(_) => Ok((true, end)),
        }
    }

    fn one_writer(&self) -> bool {
        self.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.metadata()?.blocks() * 512)
    }
}

/// Whether all of `bytes` are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // The first bytes decide for most data; what follows compares whole vectors, a page at a time.
    bytes.first().is_none_or(|byte| *byte == 0)
        && bytes
            .chunks(4096)
            .all(|page| page.iter().fold(0, |or, byte| or | byte) == 0)
}
