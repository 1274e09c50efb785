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

/// What reads and writes an image's format. Spans are within the disk; all calls may be made from several threads at once.
pub(crate) trait Backend: Send + Sync {
    /// Bytes of the disk, as the image has it.
    fn size(&self) -> u64;

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()>;

    /// Makes the disk larger, up to whole sectors.
    fn grow(&self, size: u64) -> io::Result<()>;

    /// Zeroes that stay allocated, or [`io::ErrorKind::Unsupported`].
    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Zeroes that give their space back, or [`io::ErrorKind::Unsupported`].
    fn discard_to_zero(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Gives space back, whatever is read there then, or [`io::ErrorKind::Unsupported`].
    fn discard_to_any(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Everything to the host and, unless flushes are to be ignored, to the drive, each thing before what refers to it.
    fn flush(&self) -> io::Result<()>;
}

/// An image that imago has open.
pub(crate) struct Imago {
    /// Discards are exclusive: they take clusters away from under reads that have looked them up.
    access: RwLock<FormatAccess<HostFile>>,
    /// The raw file, for what imago does not do.
    raw: Option<File>,
    /// Kept open for their locks.
    _locks: Vec<File>,
    /// Flushes wait for the drive.
    durable: bool,
}

impl Imago {
    pub(crate) fn new(
        access: FormatAccess<HostFile>,
        raw: Option<File>,
        locks: Vec<File>,
        cache: Cache,
    ) -> Imago {
        Imago {
            access: RwLock::new(access),
            raw,
            _locks: locks,
            durable: cache != Cache::Unsafe,
        }
    }
}

impl Backend for Imago {
    fn size(&self) -> u64 {
        self.access.read().size()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.access.read().read(into, offset)
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.access.read().write(from, offset)
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        let access = self.access.read();
        access.resize_grow(size, imago::format::PreallocateMode::None)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        match &self.raw {
            Some(raw) => allocated_zeroes(raw, offset, length),
            None => self.access.read().write_zeroes(offset, length),
        }
    }

    fn discard_to_zero(&self, offset: u64, length: u64) -> io::Result<()> {
        self.access.write().discard_to_zero(offset, length)
    }

    fn discard_to_any(&self, offset: u64, length: u64) -> io::Result<()> {
        self.access.write().discard_to_any(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        let access = self.access.read();
        // Metadata to the host, data before them in file order; then all of it to the drive.
        access.flush()?;
        if self.durable {
            access.sync()?;
        }
        Ok(())
    }
}

/// An open image, by whatever reads its format.
pub(crate) struct ImageDisk {
    access: Box<dyn Backend>,
    behaviour: Behaviour,
    size: u64,
    /// Held by writes to sector 0 of a guarded image: two halves of a magic number must not meet there.
    first_sector: Mutex<()>,
}

impl ImageDisk {
    pub(crate) fn new(access: impl Backend + 'static, behaviour: Behaviour) -> ImageDisk {
        let size = match behaviour.format {
            // The last sector of a file may be partly there; the rest reads as zeroes.
            Format::Raw => access.size().next_multiple_of(SECTOR),
            Format::Qcow2 => access.size() / SECTOR * SECTOR,
        };
        ImageDisk {
            access: Box::new(access),
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
        if self.behaviour.format == Format::Raw && end > self.access.size() {
            self.access.grow(self.size)?;
        }
        Ok(())
    }

    /// Fails if `from` at `offset` would make sector 0 look like another format's.
    fn guard(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let mut start = [0; PROBE_SIZE];
        let have = (self.size as usize).min(PROBE_SIZE);
        self.access.read(0, &mut start[..have])?;
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
            self.access.write(offset, &zeroes[..count])?;
            offset += count as u64;
            length -= count as u64;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
        let result = if may_unmap && self.behaviour.discard == Discard::Unmap {
            self.access.discard_to_zero(offset, length)
        } else {
            self.access.write_zeroes(offset, length)
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
        self.access.read(offset, into)
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
            self.access.write(offset, from)?;
        } else {
            self.access.write(offset, from)?;
        }
        self.finish_write()
    }

    fn flush(&self) -> io::Result<()> {
        if self.behaviour.read_only {
            return Ok(());
        }
        self.access.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_write(offset, length)?;
        if self.behaviour.discard == Discard::Ignore || length == 0 {
            return Ok(());
        }
        match self.access.discard_to_any(offset, length) {
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
    use crate::format::{Chain, ChainLayer, FileFormat, Node};
    use crate::host::Host;
    use crate::native::Native;
    use crate::{PausingDisk, Policy, create_qcow2};
    use imago::qcow2::Qcow2;
    use imago::{DenyImplicitOpenGate, FormatDriverBuilder};
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    const BEHAVIOUR: Behaviour = Behaviour {
        format: Format::Qcow2,
        read_only: false,
        cache: Cache::Writeback,
        discard: Discard::Unmap,
        detect_zeroes: DetectZeroes::Off,
        guarded: false,
    };

    /// Room for so many writes and no more.
    struct Room(File, Arc<AtomicI64>);

    impl Room {
        fn take(&self) -> io::Result<()> {
            match self.1.fetch_sub(1, Ordering::SeqCst) {
                1.. => Ok(()),
                _ => Err(io::Error::from(rustix::io::Errno::NOSPC)),
            }
        }
    }

    impl Host for Room {
        fn length(&self) -> io::Result<u64> {
            Host::length(&self.0)
        }

        fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
            Host::read_at(&self.0, offset, into)
        }

        fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
            self.take()?;
            Host::write_at(&self.0, offset, from)
        }

        fn set_length(&self, length: u64) -> io::Result<()> {
            self.take()?;
            Host::set_length(&self.0, length)
        }

        fn sync(&self) -> io::Result<()> {
            self.take()
        }
    }

    /// An image whose host runs out of space after so many writes, opened by our own code or by imago.
    fn limited(path: &Path, native: bool) -> (Arc<dyn Disk>, Arc<AtomicI64>) {
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let file = File::options().read(true).write(true).open(path).unwrap();
        if native {
            let host = Arc::new(Room(file, left.clone()));
            let access = crate::qcow2::Access {
                write: true,
                durable: true,
                ..Default::default()
            };
            let image = crate::qcow2::Qcow2::open(host.clone(), path, None, access).unwrap();
            let layer = ChainLayer {
                path: path.into(),
                format: FileFormat::Qcow2,
                guessed_raw: false,
                node: Node::Qcow2(Box::new(image)),
                host,
            };
            let chain = Chain {
                layers: vec![layer],
            };
            return (
                Arc::new(ImageDisk::new(Native::new(chain), BEHAVIOUR)),
                left,
            );
        }
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
        let imago = Imago::new(FormatAccess::new(image), None, Vec::new(), Cache::Writeback);
        (Arc::new(ImageDisk::new(imago, BEHAVIOUR)), left)
    }

    /// Wherever in a write or a flush the space runs out, trying again after there is space leaves nothing out.
    #[test]
    fn a_full_host_disk_loses_nothing() {
        for native in [false, true] {
            a_full_host_disk(native);
        }
    }

    fn a_full_host_disk(native: bool) {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.qcow2");
        for room in 0..30 {
            create_qcow2(&path, 64 << 20).unwrap();
            let (image, left) = limited(&path, native);
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
                assert!(
                    back == [n as u8 + 1; 70_000],
                    "native {native}, room for {room}: write {n}"
                );
            }
            drop(disk);
            if let Ok(output) = std::process::Command::new("qemu-img")
                .arg("check")
                .arg(&path)
                .output()
            {
                assert!(
                    matches!(output.status.code(), Some(0 | 3)),
                    "native {native}, room for {room}: {output:?}"
                );
            }
        }
    }
}
