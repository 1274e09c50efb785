//! Which guest memory was translated, so that writes to it are noticed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Pages that are told apart: 1 GiB. Pages further apart than that share an entry, which costs time only.
const PAGES: u64 = 1 << 18;

/// What is told of a write to marked lines: the page's [`Code::slot`], and the lines.
pub type Listener = Box<dyn Fn(u32, u64) + Send + Sync>;

/// Marks on 64-byte lines of guest memory that translated code was made of.
///
/// Who translates marks the lines first, makes sure that every processor's stores to the page are reported, and only then
/// reads the instructions. Who writes writes first and reports after. So either the translation sees the new bytes, or the
/// writer sees the mark, and the listener hears of it.
#[derive(Default)]
pub struct Code {
    /// A bit a line of each page.
    lines: OnceLock<Box<[AtomicU64]>>,
    listener: OnceLock<Listener>,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Code").finish_non_exhaustive()
    }
}

/// The lines that `length` bytes from `offset` into a page on touch.
fn mask(offset: u64, length: u64) -> u64 {
    let first = offset >> 6;
    let last = (offset + length.max(1) - 1).min(0xfff) >> 6;
    (u64::MAX << first) & (u64::MAX >> (63 - last))
}

impl Code {
    /// The entry of the page that holds a physical address. Several pages may share one.
    pub fn slot(physical: u64) -> u32 {
        (physical >> 12 & (PAGES - 1)) as u32
    }

    /// Has `listener` called for each write to marked lines, once: whether there was none before.
    pub fn listen(&self, listener: Listener) -> bool {
        self.listener.set(listener).is_ok()
    }

    /// Whether anyone listens.
    pub fn has_listener(&self) -> bool {
        self.listener.get().is_some()
    }

    /// Marks the lines of a span inside a page; the page's marks before.
    pub fn mark(&self, physical: u64, length: u64) -> u64 {
        let lines = self
            .lines
            .get_or_init(|| (0..PAGES).map(|_| AtomicU64::new(0)).collect());
        let old = lines[Code::slot(physical) as usize]
            .fetch_or(mask(physical & 0xfff, length), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        old
    }

    /// The marks of a page.
    #[inline]
    pub fn marks(&self, physical: u64) -> u64 {
        match self.lines.get() {
            Some(lines) => lines[Code::slot(physical) as usize].load(Ordering::SeqCst),
            None => 0,
        }
    }

    /// Says that a span of physical addresses was written: marks on it go, and the listener hears of them.
    pub fn written(&self, physical: u64, length: u64) {
        let Some(lines) = self.lines.get() else {
            return;
        };
        fence(Ordering::SeqCst);
        let end = physical.saturating_add(length);
        let mut at = physical;
        while at < end {
            let next = ((at | 0xfff).saturating_add(1)).min(end);
            let slot = Code::slot(at);
            let entry = &lines[slot as usize];
            if entry.load(Ordering::SeqCst) != 0 {
                let mask = mask(at & 0xfff, next - at);
                let hit = entry.fetch_and(!mask, Ordering::SeqCst) & mask;
                if hit != 0
                    && let Some(listener) = self.listener.get()
                {
                    listener(slot, hit);
                }
            }
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn writes_to_marked_lines_are_told() {
        let code = Code::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        assert!(code.listen(Box::new(move |slot, lines| {
            log.lock().unwrap().push((slot, lines));
        })));
        code.written(0x4000_0000, 0x10_0000);
        assert_eq!(code.mark(0x4000_1040, 0x44), 0);
        assert_eq!(code.marks(0x4000_1fff), 6);
        code.written(0x4000_1000, 0x40);
        code.written(0x4000_10c0, 0x1000);
        assert!(heard.lock().unwrap().is_empty());
        code.written(0x4000_107f, 2);
        assert_eq!(*heard.lock().unwrap(), [(Code::slot(0x4000_1000), 6)]);
        assert_eq!(code.marks(0x4000_1000), 0);
        code.mark(0x4000_1fc0, 0x40);
        code.written(0x4000_0000, 0x1_0000);
        assert_eq!(heard.lock().unwrap()[1], (Code::slot(0x4000_1000), 1 << 63));
    }
}
