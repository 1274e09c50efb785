//! An open image as a [`Disk`].

use crate::disk::Disk;
use crate::file::HostFile;
use crate::options::{Cache, DetectZeroes, Discard, Format};
use crate::probe::{PROBE_SIZE, Probed, probe};
use imago::FormatAccess;
use parking_lot::{Mutex, RwLock};
use std::fs::File;
use std::io;

/// Sizes of images that are not whole sectors are rounded, as QEMU does.
const SECTOR: u64 = 512;

/// The most that is written at once where zeroes have to be written out.
const ZEROES: usize = 1 << 20;

/// How an image behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    pub(crate) format: Format,
    pub(crate) read_only: bool,
    pub(crate) cache: Cache,
    pub(crate) discard: Discard,
    pub(crate) detect_zeroes: DetectZeroes,
    /// The format was guessed: sector 0 must not come to look like that of another format.
    pub(crate) guarded: bool,
}

/// An image that imago has open.
pub(crate) struct ImageDisk {
    /// Discards are exclusive: they take clusters away from under reads that have looked them up.
    access: RwLock<FormatAccess<HostFile>>,
    /// The raw file, for what imago does not do.
    raw: Option<File>,
    /// Kept open for their locks.
    _locks: Vec<File>,
    behaviour: Behaviour,
    size: u64,
    /// Held by writes to sector 0 of a guarded image: two halves of a magic number must not meet there.
    first_sector: Mutex<()>,
}

impl ImageDisk {
    pub(crate) fn new(
        access: FormatAccess<HostFile>,
        raw: Option<File>,
        locks: Vec<File>,
        behaviour: Behaviour,
    ) -> ImageDisk {
        let size = match behaviour.format {
            // The last sector of a file may be partly there; the rest reads as zeroes.
            Format::Raw => access.size().next_multiple_of(SECTOR),
            Format::Qcow2 => access.size() / SECTOR * SECTOR,
        };
        ImageDisk {
            access: RwLock::new(access),
            raw,
            _locks: locks,
            behaviour,
            size,
            first_sector: Mutex::new(()),
        }
    }

    fn check(&self, offset: u64, length: u64) -> io::Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "access past the end of the disk",
            )),
        }
    }

    fn check_write(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.behaviour.read_only {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "the disk is read-only",
            ));
        }
        self.check(offset, length)?;
        // A file that ends amid a sector grows when that sector is first written.
        let end = offset + length;
        if self.behaviour.format == Format::Raw && end > self.access.read().size() {
            self.access
                .read()
                .resize_grow(self.size, imago::format::PreallocateMode::None)?;
        }
        Ok(())
    }

    /// Fails if `from` at `offset` would make sector 0 look like another format's.
    fn guard(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let mut start = [0; PROBE_SIZE];
        let have = (self.size as usize).min(PROBE_SIZE);
        self.access.read().read(&mut start[..have], 0)?;
        let at = offset as usize;
        let count = from.len().min(have - at);
        start[at..at + count].copy_from_slice(&from[..count]);
        match probe(&start[..have]) {
            Probed::Raw => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the image's format was not given and was guessed to be raw: the guest may not write \
                 another format's magic number to sector 0 (say format=raw to allow it)",
            )),
        }
    }

    fn finish_write(&self) -> io::Result<()> {
        if self.behaviour.cache.through() {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn write_out_zeroes(&self, mut offset: u64, mut length: u64) -> io::Result<()> {
        let zeroes = vec![0u8; length.min(ZEROES as u64) as usize];
        while length > 0 {
            let count = length.min(zeroes.len() as u64) as usize;
            self.access.read().write(&zeroes[..count], offset)?;
            offset += count as u64;
            length -= count as u64;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
        let result = if may_unmap && self.behaviour.discard == Discard::Unmap {
            self.access.write().discard_to_zero(offset, length)
        } else if let Some(raw) = &self.raw {
            allocated_zeroes(raw, offset, length)
        } else {
            self.access.read().write_zeroes(offset, length)
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.write_out_zeroes(offset, length)
            }
            other => other,
        }
    }
}

/// Zeroes that stay allocated, by the file system.
#[cfg(target_os = "linux")]
fn allocated_zeroes(file: &File, offset: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(
        file,
        FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        offset,
        length,
    ) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocated_zeroes(_file: &File, _offset: u64, _length: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn all_zero(bytes: &[u8]) -> bool {
    // The ends first: most data differ there, and what follows compares whole vectors.
    bytes.first() == Some(&0)
        && bytes.last() == Some(&0)
        && bytes.iter().fold(0, |or, byte| or | byte) == 0
}

impl Disk for ImageDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.behaviour.read_only
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.check(offset, into.len() as u64)?;
        self.access.read().read(into, offset)
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.check_write(offset, from.len() as u64)?;
        if from.is_empty() {
            return Ok(());
        }
        if self.behaviour.detect_zeroes != DetectZeroes::Off && all_zero(from) {
            let unmap = self.behaviour.detect_zeroes == DetectZeroes::Unmap;
            self.zero(offset, from.len() as u64, unmap)?;
        } else if self.behaviour.guarded && offset < PROBE_SIZE as u64 {
            let _alone = self.first_sector.lock();
            self.guard(offset, from)?;
            self.access.read().write(from, offset)?;
        } else {
            self.access.read().write(from, offset)?;
        }
        self.finish_write()
    }

    fn flush(&self) -> io::Result<()> {
        if self.behaviour.read_only {
            return Ok(());
        }
        let access = self.access.read();
        // Metadata to the host, data before them in file order; then all of it to the drive.
        access.flush()?;
        if self.behaviour.cache != Cache::Unsafe {
            access.sync()?;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_write(offset, length)?;
        if self.behaviour.discard == Discard::Ignore || length == 0 {
            return Ok(());
        }
        match self.access.write().discard_to_any(offset, length) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
        self.check_write(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        self.zero(offset, length, may_unmap)?;
        self.finish_write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PausingDisk, Policy, create_qcow2};
    use imago::qcow2::Qcow2;
    use imago::{DenyImplicitOpenGate, FormatDriverBuilder};
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    /// An image whose host runs out of space after so many writes.
    fn limited(path: &Path) -> (Arc<dyn Disk>, Arc<AtomicI64>) {
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut host = HostFile::new(file, path, true, false).unwrap();
        let counter = left.clone();
        host.fault = Arc::new(move |_| match counter.fetch_sub(1, Ordering::SeqCst) {
            1.. => Ok(()),
            _ => Err(io::Error::from(rustix::io::Errno::NOSPC)),
        });
        let image = Qcow2::<HostFile>::builder(host)
            .write(true)
            .backing(None)
            .data_file(None)
            .open(DenyImplicitOpenGate::default())
            .unwrap();
        let behaviour = Behaviour {
            format: Format::Qcow2,
            read_only: false,
            cache: Cache::Writeback,
            discard: Discard::Unmap,
            detect_zeroes: DetectZeroes::Off,
            guarded: false,
        };
        (
            Arc::new(ImageDisk::new(
                FormatAccess::new(image),
                None,
                Vec::new(),
                behaviour,
            )),
            left,
        )
    }

    /// Wherever in a write or a flush the space runs out, trying again after there is space leaves nothing out.
    #[test]
    fn a_full_host_disk_loses_nothing() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.qcow2");
        for room in 0..30 {
            create_qcow2(&path, 64 << 20).unwrap();
            let (image, left) = limited(&path);
            let (sender, stalls) = std::sync::mpsc::channel();
            let disk = PausingDisk::new(image, "d0", Policy::default(), move |stall| {
                sender.send(stall.clone()).unwrap();
            });
            left.store(room, Ordering::SeqCst);
            let writers: Vec<_> = (0..2u64)
                .map(|half| {
                    let guest = disk.clone();
                    std::thread::spawn(move || {
                        for n in (half..20).step_by(2) {
                            guest.write(n * 2_000_001, &[n as u8 + 1; 70_000]).unwrap();
                            if n % 4 >= 2 {
                                guest.flush().unwrap();
                            }
                        }
                        guest.flush().unwrap();
                    })
                })
                .collect();
            // A little space at a time, so that it runs out again in other places.
            let mut more = 0;
            while !writers.iter().all(|writer| writer.is_finished()) {
                if let Ok(stall) = stalls.recv_timeout(std::time::Duration::from_millis(2)) {
                    assert!(stall.full, "{stall:?}");
                    more += 1;
                }
                if disk.stalled() > 0 {
                    left.store(more, Ordering::SeqCst);
                    disk.resume();
                }
            }
            assert!(more > 0);
            for writer in writers {
                writer.join().unwrap();
            }
            left.store(i64::MAX, Ordering::SeqCst);
            drop(disk);
            drop(stalls);

            let disk = crate::open(&crate::ImageOptions::new(&path)).unwrap();
            for n in 0..20u64 {
                let mut back = [0; 70_000];
                disk.read(n * 2_000_001, &mut back).unwrap();
                assert!(back == [n as u8 + 1; 70_000], "room for {room}: write {n}");
            }
            drop(disk);
            if let Ok(output) = std::process::Command::new("qemu-img")
                .arg("check")
                .arg(&path)
                .output()
            {
                assert!(
                    matches!(output.status.code(), Some(0 | 3)),
                    "room for {room}: {output:?}"
                );
            }
        }
    }
}
