//! Whether two disks have the same contents.

use super::{CHUNK, Progress};
use crate::format::{Chain, FormatError, Result};
use crate::host::is_zero;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Identical,
    /// The first sector that differs, in bytes.
    Differs(u64),
    /// The contents agree so far, but one has a place allocated that the other has not (in strict mode only).
    StatusDiffers(u64),
}

/// The two disks, as those who compare them share them.
struct Work<'a> {
    disks: [&'a Chain; 2],
    sizes: [u64; 2],
    strict: bool,
    next: Mutex<u64>,
    /// The first difference so far; nothing behind it matters any more.
    limit: AtomicU64,
    status_differs: AtomicU64,
    failed: Mutex<Option<(u64, FormatError)>>,
    progress: Progress<'a>,
}

/// Compares two disks; where one is longer, the rest must be zeroes.
pub fn compare(
    first: &Chain,
    second: &Chain,
    strict: bool,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Comparison> {
    let work = Work {
        disks: [first, second],
        sizes: [first.size(), second.size()],
        strict,
        next: Mutex::new(0),
        limit: AtomicU64::new(u64::MAX),
        status_differs: AtomicU64::new(u64::MAX),
        failed: Mutex::default(),
        progress,
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(|| work.run());
        }
        work.run();
    });
    let differs = work.limit.load(Ordering::Acquire);
    if let Some((at, error)) = work.failed.into_inner()
        && at <= differs
    {
        return Err(error);
    }
    let status = work.status_differs.load(Ordering::Acquire);
    if status < differs {
        return Ok(Comparison::StatusDiffers(status));
    }
    if differs != u64::MAX {
        return Ok(Comparison::Differs(differs));
    }
    Ok(Comparison::Identical)
}

impl Work<'_> {
    fn run(&self) {
        let mut buffers = [vec![0; CHUNK as usize], vec![0; CHUNK as usize]];
        loop {
            let next = match self.take() {
                Ok(Some(next)) => next,
                Ok(None) => return,
                Err((at, error)) => {
                    self.fail(at, error);
                    return;
                }
            };
            if let Err(error) = self.chunk(next.0, next.1, &mut buffers) {
                self.fail(next.0, error);
                return;
            }
        }
    }

    fn fail(&self, at: u64, error: FormatError) {
        let mut failed = self.failed.lock();
        if failed.as_ref().is_none_or(|(first, _)| at < *first) {
            *failed = Some((at, error));
        }
        // Everybody stops.
        *self.next.lock() = u64::MAX;
    }

    /// Whether a disk has zeroes at a place, and how far.
    fn zero(&self, disk: usize, at: u64, max: u64) -> Result<(bool, bool, u64)> {
        if at >= self.sizes[disk] {
            return Ok((true, false, max));
        }
        let status = self.disks[disk].status(at, max.min(self.sizes[disk] - at))?;
        Ok((status.zero(), status.present, status.length))
    }

    /// The next span that has to be read.
    fn take(&self) -> std::result::Result<Option<(u64, u64)>, (u64, FormatError)> {
        let size = self.sizes[0].max(self.sizes[1]);
        let mut next = self.next.lock();
        loop {
            let at = *next;
            if at >= size || at > self.limit.load(Ordering::Acquire) {
                return Ok(None);
            }
            (self.progress)(at, size).map_err(|error| (at, error))?;
            let place = |error| (at, error);
            let first = self.zero(0, at, size - at).map_err(place)?;
            let second = self.zero(1, at, size - at).map_err(place)?;
            let common = first.2.min(second.2);
            if self.strict && first.1 != second.1 && at < self.sizes[0].min(self.sizes[1]) {
                self.status_differs.fetch_min(at, Ordering::AcqRel);
                *next = size;
                return Ok(None);
            }
            if first.0 && second.0 {
                *next = at + common;
                continue;
            }
            // In strict mode the status is looked at everywhere, otherwise only where it spares reading.
            let length = if self.strict { common } else { size - at };
            let length = length.min(CHUNK - at % CHUNK);
            *next = at + length;
            return Ok(Some((at, length)));
        }
    }

    fn chunk(&self, at: u64, length: u64, buffers: &mut [Vec<u8>; 2]) -> Result<()> {
        let [one, two] = buffers;
        for (disk, buffer) in [&mut *one, &mut *two].into_iter().enumerate() {
            let have = self.sizes[disk].saturating_sub(at).min(length) as usize;
            self.disks[disk].read(at, &mut buffer[..have])?;
            buffer[have..length as usize].fill(0);
        }
        let (one, two) = (&one[..length as usize], &two[..length as usize]);
        if one == two || (is_zero(one) && is_zero(two)) {
            return Ok(());
        }
        let sector = one
            .chunks(512)
            .zip(two.chunks(512))
            .position(|(one, two)| one != two)
            .unwrap_or(0) as u64;
        self.limit.fetch_min(at + sector * 512, Ordering::AcqRel);
        Ok(())
    }
}
