//! Whether two disks have the same contents.

use super::{CHUNK, Progress};
use crate::buffer::Buffer;
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
    next: Mutex<Next>,
    /// The first difference so far; nothing behind it matters any more.
    limit: AtomicU64,
    status_differs: AtomicU64,
    failed: Mutex<Option<(u64, FormatError)>>,
    progress: Progress<'a>,
}

/// Where the comparison is, and what was said of either disk last: threads must not wait for one that asks the host about each
/// chunk of a long stretch again.
#[derive(Default)]
struct Next {
    at: u64,
    known: [Option<Known>; 2],
}

/// A stretch of a disk: whether it is zeroes, whether its image says so itself, and where it ends.
#[derive(Clone, Copy)]
struct Known {
    zero: bool,
    present: bool,
    end: u64,
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
        next: Mutex::default(),
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
        let mut buffers = [Buffer::new(CHUNK as usize), Buffer::new(CHUNK as usize)];
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
        self.next.lock().at = u64::MAX;
    }

    /// What a disk has at a place.
    fn know(&self, next: &mut Next, disk: usize) -> Result<Known> {
        let (at, size) = (next.at, self.sizes[disk]);
        if at >= size {
            return Ok(Known {
                zero: true,
                present: false,
                end: u64::MAX,
            });
        }
        if let Some(known) = next.known[disk].filter(|known| at < known.end) {
            return Ok(known);
        }
        let status = self.disks[disk].status(at, size - at)?;
        Ok(*next.known[disk].insert(Known {
            zero: status.zero(),
            present: status.present,
            end: at + status.length,
        }))
    }

    /// The next span that has to be read.
    fn take(&self) -> std::result::Result<Option<(u64, u64)>, (u64, FormatError)> {
        let size = self.sizes[0].max(self.sizes[1]);
        let mut next = self.next.lock();
        loop {
            let at = next.at;
            if at >= size || at > self.limit.load(Ordering::Acquire) {
                return Ok(None);
            }
            (self.progress)(at, size).map_err(|error| (at, error))?;
            let place = |error| (at, error);
            let first = self.know(&mut next, 0).map_err(place)?;
            let second = self.know(&mut next, 1).map_err(place)?;
            let common = first.end.min(second.end).min(size) - at;
            if self.strict
                && first.present != second.present
                && at < self.sizes[0].min(self.sizes[1])
            {
                self.status_differs.fetch_min(at, Ordering::AcqRel);
                next.at = size;
                return Ok(None);
            }
            if first.zero && second.zero {
                next.at = at + common;
                continue;
            }
            // In strict mode the status is looked at everywhere, otherwise only where it spares reading.
            let length = if self.strict { common } else { size - at };
            let length = length.min(CHUNK - at % CHUNK);
            next.at = at + length;
            return Ok(Some((at, length)));
        }
    }

    fn chunk(&self, at: u64, length: u64, buffers: &mut [Buffer; 2]) -> Result<()> {
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
