//! Images of running machines that `imago` does not open: qcow2 with zstd clusters, and what is to be read of images that were
//! not closed. The same code as that of the `disk` verbs reads and writes them.

use crate::access::Backend;
use crate::format::{Chain, FormatError};
use crate::qcow2::Qcow2;
use parking_lot::{Condvar, Mutex, RwLock};
use std::io;
use std::ops::Range;

/// Clusters that are free but still kept for those who may be reading them, beyond which everybody waits until they are given
/// back.
const KEPT: usize = 1024;

/// A chain of images with qcow2 on top.
pub(crate) struct Native {
    chain: Chain,
    /// Held alone to take clusters away, and to give what is free to others: what a read has looked up could be written over.
    places: RwLock<()>,
    /// Spans of the disk whose clusters are being made: two halves of a new one would each be written over zeroes.
    making: Mutex<Vec<Range<u64>>>,
    made: Condvar,
}

impl Native {
    pub(crate) fn new(chain: Chain) -> Native {
        if let Some(image) = chain.top().qcow2() {
            image.keep_freed();
        }
        Native {
            chain,
            places: RwLock::new(()),
            making: Mutex::default(),
            made: Condvar::new(),
        }
    }

    /// Writes to clusters of which some are new.
    fn make(&self, image: &Qcow2, offset: u64, from: &[u8]) -> Result<(), FormatError> {
        let cluster = image.cluster_bytes();
        let end = (offset + from.len() as u64).next_multiple_of(cluster);
        let span = offset / cluster * cluster..end;
        let mut making = self.making.lock();
        while (making.iter()).any(|other| other.start < span.end && span.start < other.end) {
            self.made.wait(&mut making);
        }
        making.push(span.clone());
        drop(making);
        let written = self.chain.write(offset, from);
        self.making.lock().retain(|other| *other != span);
        self.made.notify_all();
        written
    }

    /// Gives what is free to others, at once if nobody is in the way.
    fn release(&self, image: &Qcow2) -> Result<(), FormatError> {
        let kept = image.kept();
        if kept == 0 {
            return Ok(());
        }
        let alone = match kept < KEPT {
            true => self.places.try_write(),
            false => Some(self.places.write()),
        };
        match alone {
            Some(_alone) => image.release(),
            None => Ok(()),
        }
    }

    fn image(&self) -> io::Result<&Qcow2> {
        let image = self.chain.top().qcow2();
        image.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// What the host said stays as it is: a full disk stops the machine.
fn told(error: FormatError) -> io::Error {
    match error {
        FormatError::Io(error) => error,
        FormatError::Unsupported => io::ErrorKind::Unsupported.into(),
        other => io::Error::other(other),
    }
}

impl Backend for Native {
    fn size(&self) -> u64 {
        self.chain.size()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let _shared = self.places.read();
        self.chain.read(offset, into).map_err(told)
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let image = self.image()?;
        {
            let _shared = self.places.read();
            if image.overwrite(offset, from).map_err(told)? {
                return Ok(());
            }
            self.make(image, offset, from).map_err(told)?;
        }
        self.release(image).map_err(told)
    }

    fn grow(&self, _size: u64) -> io::Result<()> {
        // The disk's last sector is whole: a size that is not is cut off.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let _alone = self.places.write();
        self.chain.write_zeroes(offset, length, false).map_err(told)
    }

    fn discard_to_zero(&self, offset: u64, length: u64) -> io::Result<()> {
        let _alone = self.places.write();
        self.chain.write_zeroes(offset, length, true).map_err(told)
    }

    fn discard_to_any(&self, offset: u64, length: u64) -> io::Result<()> {
        let image = self.image()?;
        // Version 2 has no clusters of zeroes: where something is below, these would have to be written out.
        if image.version() < 3 && !self.chain.hollow() {
            return Ok(());
        }
        // Parts of clusters would have to be written, too.
        let cluster = image.cluster_bytes();
        let end = match offset + length {
            end if end == self.chain.size() => end,
            end => end / cluster * cluster,
        };
        let start = offset.next_multiple_of(cluster);
        if start >= end {
            return Ok(());
        }
        self.discard_to_zero(start, end - start)
    }

    /// Waits for the drive if the image was opened so.
    fn flush(&self) -> io::Result<()> {
        let image = self.image()?;
        image.flush_beside().map_err(told)?;
        self.release(image).map_err(told)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        if let Ok(image) = self.image()
            && let Err(error) = image
                .close()
                .and_then(|()| image.release())
                .and_then(|()| image.close())
        {
            tracing::warn!(
                "'{}' was not closed properly: {error}",
                self.chain.top().path.display()
            );
        }
    }
}
