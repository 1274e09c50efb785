//! Raw images: the bytes of the disk. ISO images are this.

use super::{Extent, FormatError, Kind, Result, Source};
use crate::host::Host;
use crate::qcow2::Preallocation;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A raw image, or the part of a file that is one.
pub struct RawFile {
    host: Arc<dyn Host>,
    path: PathBuf,
    size: AtomicU64,
    durable: bool,
}

impl RawFile {
    /// The size is the file's, in whole sectors.
    pub fn open(host: Arc<dyn Host>, path: PathBuf, durable: bool) -> Result<RawFile> {
        let size = host.length()?.next_multiple_of(512);
        Ok(RawFile {
            host,
            path,
            size: AtomicU64::new(size),
            durable,
        })
    }

    pub fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        Ok(self.host.write_at(offset, from)?)
    }

    /// Makes holes where the host can.
    pub fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        let end = offset + length;
        if self.host.length()? < end {
            self.host.set_length(end)?;
        }
        match self.host.punch(offset, length) {
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                self.zero_out(offset, end)
            }
            other => Ok(other?),
        }
    }

    /// Makes the disk `size` bytes; what is new is set aside as `preallocation` says.
    pub fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        let old = self.host.length()?;
        match preallocation {
            Preallocation::Off => {}
            Preallocation::Metadata => {
                return Err(FormatError::refused(
                    "Unsupported preallocation mode: metadata",
                ));
            }
            _ if size < old => {
                return Err(FormatError::refused(
                    "Preallocation can't be used for shrinking an image",
                ));
            }
            Preallocation::Falloc if size > old => self.host.reserve(old, size - old)?,
            Preallocation::Falloc => {}
            Preallocation::Full => self.zero_out(old, size)?,
        }
        self.host.set_length(size)?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    fn zero_out(&self, from: u64, to: u64) -> Result<()> {
        let zeroes = vec![0; to.saturating_sub(from).min(1 << 20) as usize];
        let mut at = from;
        while at < to {
            let count = (to - at).min(zeroes.len() as u64) as usize;
            self.host.write_at(at, &zeroes[..count])?;
            at += count as u64;
        }
        Ok(())
    }

    /// Makes what was written durable, if the image was opened so.
    pub fn flush(&self) -> Result<()> {
        if self.durable {
            self.host.sync()?;
        }
        Ok(())
    }

    pub fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }
}

impl Source for RawFile {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn extent(&self, offset: u64, max: u64) -> Result<Extent> {
        let (data, end) = self.host.span(offset)?;
        let rest = end.saturating_sub(offset);
        // Past the end of the file, where its last sector is not whole, are zeroes.
        let (data, length) = if rest == 0 {
            (false, max)
        } else {
            (data, rest.min(max))
        };
        let kind = if data {
            Kind::Data {
                offset: Some(offset),
                compressed: false,
            }
        } else {
            Kind::Zero {
                offset: Some(offset),
            }
        };
        Ok(Extent {
            length,
            kind,
            file: 0,
        })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let have = self.host.read_at(offset, into)?;
        into[have..].fill(0);
        Ok(())
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}
