//! Which memory was written. An engine learns of it by taking permission to write: the first write of each unit exits, is
//! noted, and is let through from then on. Or its host keeps a log, whose entries are noted when it is read.

use std::ops::Range;

use parking_lot::Mutex;

use crate::Error;

/// Why a span cannot be tracked.
pub fn not_memory(start: u64, size: u64) -> Error {
    Error::Host(format!(
        "{size:#x} bytes at {start:#x} are no memory that guests write"
    ))
}

/// A span that is tracked.
struct Span {
    start: u64,
    /// Whether each unit was written.
    written: Vec<bool>,
}

/// All of a machine's.
pub struct Tracking {
    /// Bytes.
    unit: u64,
    /// Held while permissions change, so that a write is never let through and not noted.
    spans: Mutex<Vec<Span>>,
}

impl Tracking {
    /// None yet.
    pub fn new(unit: u64) -> Tracking {
        Tracking {
            unit,
            spans: Mutex::default(),
        }
    }

    fn end(&self, span: &Span) -> u64 {
        span.start + span.written.len() as u64 * self.unit
    }

    /// Tracks a span of whole units, once `protect` has taken permission to write it.
    ///
    /// # Errors
    /// It is not in whole units, or tracked in part already, or `protect` failed.
    pub fn add(
        &self,
        start: u64,
        size: u64,
        protect: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if size == 0 || !start.is_multiple_of(self.unit) || !size.is_multiple_of(self.unit) {
            return Err(Error::Host(format!(
                "{size:#x} bytes at {start:#x} are not in whole units of {} KiB",
                self.unit >> 10
            )));
        }
        let mut spans = self.spans.lock();
        let overlaps = |s: &Span| s.start < start.saturating_add(size) && start < self.end(s);
        if spans.iter().any(overlaps) {
            return Err(Error::Host(format!(
                "memory at {start:#x} is tracked already"
            )));
        }
        protect()?;
        let units = (size / self.unit) as usize;
        spans.push(Span {
            start,
            written: vec![false; units],
        });
        Ok(())
    }

    /// Forgets the spans inside of that one; `permit` gives back permission to write each.
    pub fn remove(
        &self,
        start: u64,
        size: u64,
        mut permit: impl FnMut(u64, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let end = start.saturating_add(size);
        let mut spans = self.spans.lock();
        let inside = |s: &Span| start <= s.start && self.end(s) <= end;
        for span in spans.iter().filter(|s| inside(s)) {
            permit(span.start, self.end(span) - span.start)?;
        }
        spans.retain(|s| !inside(s));
        Ok(())
    }

    /// A write at that address was not permitted: whether that is because it is tracked. It is noted, and `permit` lets
    /// writes of its unit through.
    pub fn wrote(
        &self,
        address: u64,
        permit: impl FnOnce(u64, u64) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let mut spans = self.spans.lock();
        let span = spans
            .iter_mut()
            .find(|s| s.start <= address && address < self.end(s));
        let Some(span) = span else {
            return Ok(false);
        };
        let index = (address - span.start) / self.unit;
        // Another processor may have been first.
        if !std::mem::replace(&mut span.written[index as usize], true) {
            permit(span.start + index * self.unit, self.unit)?;
        }
        Ok(true)
    }

    /// Whether anything inside of a span is tracked.
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    pub fn any(&self, start: u64, size: u64) -> bool {
        let end = start.saturating_add(size);
        let touches = |s: &Span| s.start < end && start < self.end(s);
        self.spans.lock().iter().any(touches)
    }

    /// What was written inside of a span, as address and bytes of each run, once `protect` has taken permission to write it
    /// again.
    pub fn take(
        &self,
        within: Range<u64>,
        mut protect: impl FnMut(u64, u64) -> Result<(), Error>,
    ) -> Result<Vec<(u64, u64)>, Error> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for span in self.spans.lock().iter_mut() {
            for (i, written) in (0..).zip(&mut span.written) {
                let at = span.start + i * self.unit;
                if !*written || !within.contains(&at) {
                    continue;
                }
                protect(at, self.unit)?;
                *written = false;
                match runs.last_mut() {
                    Some((start, size)) if *start + *size == at => *size += self.unit,
                    _ => runs.push((at, self.unit)),
                }
            }
        }
        runs.sort_unstable();
        Ok(runs)
    }
}
