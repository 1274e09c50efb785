//! A host file or block device under an image.
//!
//! This is imago's file, and beyond that:
//!
//! - Making it durable does not keep reads waiting.
//! - Small writes that fail, as when the host's disk is full, are kept and tried again before anything else happens to the
//!   file. imago changes an entry of a first-level table (L1, refcount table, header) in memory first and then on disk, and
//!   when the latter fails, it believes in the entry all the same: all that is reached by it would be lost.
//! - It can be made to fail in tests.
#![allow(unsafe_code)] // imago's trait has unsafe methods; they are passed on.

use imago::io_buffers::IoBuffer;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageOpenOptions};
use parking_lot::Mutex;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Failed writes up to this size are kept: table entries and header fields, which are below it, while a guest writes whole
/// sectors. With direct access a block is the smallest write.
const SMALL: u64 = 511;

/// More than that, and something is wrong that trying again does not mend.
const MAX_KEPT: usize = 1 << 20;

/// See the module.
pub(crate) struct HostFile {
    file: imago::file::File,
    /// The same open file: imago locks its own for the length of a sync.
    handle: fs::File,
    kept: Mutex<Kept>,
    /// Whether `kept` has anything to do, to look at without the lock.
    has_kept: AtomicBool,
    #[cfg(test)]
    pub(crate) fault: std::sync::Arc<dyn Fn(bool) -> io::Result<()> + Send + Sync>,
}

/// Writes that failed and are owed to the file, oldest first.
#[derive(Default)]
struct Kept {
    writes: Vec<(u64, IoBuffer)>,
    bytes: usize,
    /// Some could not be kept: the file cannot be made right any more.
    lost: bool,
}

impl HostFile {
    pub(crate) fn new(
        file: fs::File,
        path: &Path,
        writable: bool,
        direct: bool,
    ) -> io::Result<HostFile> {
        let handle = file.try_clone()?;
        let options = StorageOpenOptions::new()
            .filename(path)
            .write(writable)
            .direct(direct);
        Ok(HostFile {
            file: imago::file::File::from_open_file(file, options)?,
            handle,
            kept: Mutex::default(),
            has_kept: AtomicBool::new(false),
            #[cfg(test)]
            fault: std::sync::Arc::new(|_| Ok(())),
        })
    }

    /// Does what is owed.
    fn catch_up(&self) -> io::Result<()> {
        if !self.has_kept.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut kept = self.kept.lock();
        if kept.lost {
            return Err(io::Error::other(
                "earlier writes to the image's tables failed; it must be closed and checked",
            ));
        }
        while let Some((offset, bytes)) = kept.writes.first() {
            self.faults(false)?;
            // SAFETY: the buffer is aligned, since it was made so, and so is the offset, since it was given so; table
            // entries are ours alone to write.
            unsafe { self.file.pure_writev(bytes.into(), *offset)? };
            kept.bytes -= bytes.len();
            kept.writes.remove(0);
        }
        self.has_kept.store(false, Ordering::Release);
        Ok(())
    }

    /// Reads as if what is owed had been written: reading must work on a full disk.
    fn read_over_kept(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let kept = self.kept.lock();
        let mut whole = IoBuffer::new(bufv.len() as usize, self.file.mem_align())?;
        // SAFETY: as aligned as the request, for which the caller vouches; nobody else has the buffer.
        unsafe { self.file.pure_readv((&mut whole).into(), offset)? };
        let bytes = whole.as_mut().into_slice();
        let end = offset + bytes.len() as u64;
        for (at, write) in &kept.writes {
            let (from, to) = (offset.max(*at), end.min(at + write.len() as u64));
            if from < to {
                let source = &write.as_ref().into_slice()[(from - at) as usize..(to - at) as usize];
                bytes[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        let mut rest = &*bytes;
        for mut part in bufv.into_inner() {
            let (now, later) = rest.split_at(part.len());
            part.copy_from_slice(now);
            rest = later;
        }
        Ok(())
    }

    fn keep(&self, offset: u64, bytes: IoBuffer) {
        let mut kept = self.kept.lock();
        kept.writes
            .retain(|(at, old)| *at != offset || old.len() != bytes.len());
        kept.bytes = kept.writes.iter().map(|(_, old)| old.len()).sum::<usize>() + bytes.len();
        if kept.bytes > MAX_KEPT {
            kept.lost = true;
            kept.writes.clear();
            kept.bytes = 0;
        } else {
            kept.writes.push((offset, bytes));
        }
        self.has_kept.store(true, Ordering::Release);
    }

    #[cfg(test)]
    fn faults(&self, sync: bool) -> io::Result<()> {
        (self.fault)(sync)
    }

    #[cfg(not(test))]
    fn faults(&self, _sync: bool) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for HostFile {
    fn mem_align(&self) -> usize {
        self.file.mem_align()
    }

    fn req_align(&self) -> usize {
        self.file.req_align()
    }

    fn zero_align(&self) -> usize {
        self.file.zero_align()
    }

    fn discard_align(&self) -> usize {
        self.file.discard_align()
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        self.file.resolve_relative_path(relative)
    }

    fn get_filename(&self) -> Option<PathBuf> {
        self.file.get_filename()
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        if self.has_kept.load(Ordering::Acquire) {
            return self.read_over_kept(bufv, offset);
        }
        // SAFETY: the caller keeps the same conditions.
        unsafe { self.file.pure_readv(bufv, offset) }
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let small = if bufv.len() <= SMALL.max(self.file.req_align() as u64) {
            let mut copy = IoBuffer::new(bufv.len() as usize, self.file.mem_align())?;
            bufv.copy_into_slice(copy.as_mut().into_slice());
            Some(copy)
        } else {
            None
        };
        let result = self
            .catch_up()
            .and_then(|()| self.faults(false))
            .and_then(|()| {
                // SAFETY: the caller keeps the same conditions.
                unsafe { self.file.pure_writev(bufv, offset) }
            });
        if let (Err(_), Some(copy)) = (&result, small) {
            self.keep(offset, copy);
        }
        result
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.faults(false)?;
        // SAFETY: the caller keeps the same conditions.
        unsafe { self.file.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.faults(false)?;
        // SAFETY: the caller keeps the same conditions.
        unsafe { self.file.pure_write_allocated_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: the caller keeps the same conditions.
        unsafe { self.file.pure_discard(offset, length) }
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.catch_up()?;
        self.faults(true)?;
        self.handle.sync_data()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: the caller keeps the same conditions.
        unsafe { self.file.invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.file.get_storage_helper()
    }

    fn resize(&self, new_size: u64, prealloc_mode: PreallocateMode) -> io::Result<()> {
        self.file.resize(new_size, prealloc_mode)
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        if let Err(error) = self.catch_up() {
            tracing::error!(file = %self.file, %error, "the image could not be completed: check it before it is used again");
        }
    }
}

impl fmt::Debug for HostFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl fmt::Display for HostFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)
    }
}
