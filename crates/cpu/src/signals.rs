//! What reaches a processor from other threads: interrupt lines, timer deadlines, TLB invalidations, events, kicks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::tlbi::Invalidation;

/// Bits of [`Signals::pending`].
pub mod attention {
    /// An interrupt line rose, or the mask that held one off was lifted.
    pub const INTERRUPT: u32 = 1 << 0;
    /// A timer's deadline passed.
    pub const TIMER: u32 = 1 << 1;
    /// The invalidation queue is not empty.
    pub const TLBI: u32 = 1 << 2;
    /// SEV of another processor.
    pub const EVENT: u32 = 1 << 3;
    /// Someone wants the processor out of its run loop.
    pub const KICK: u32 = 1 << 4;
    /// The processor itself wants out: PSCI's CPU_OFF and the like.
    pub const LEAVE: u32 = 1 << 5;
}

/// Levels of a processor's interrupt inputs.
pub mod line {
    pub const IRQ: u32 = 1 << 0;
    pub const FIQ: u32 = 1 << 1;
    pub const SERROR: u32 = 1 << 2;
}

/// More queued invalidations than this become one of everything.
const QUEUE_LIMIT: usize = 64;

/// One processor's mailbox. Everything here may be called from any thread.
#[derive(Default)]
pub struct Signals {
    /// What wants the processor's attention, [`attention`]: polled (relaxed) by the run loop at block ends; when not zero
    /// it calls [`crate::Core::service`].
    pub pending: AtomicU32,
    lines: AtomicU32,
    /// Inside `run` and not parked: executes guest instructions, so that shoot-downs must be acknowledged.
    running: AtomicBool,
    parked: AtomicBool,
    requested: AtomicU64,
    acknowledged: AtomicU64,
    queue: Mutex<Vec<Invalidation>>,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl Signals {
    /// Asks for attention (bits of [`attention`]) and wakes the processor if it is parked.
    pub fn raise(&self, bits: u32) {
        self.pending.fetch_or(bits, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) {
            drop(self.sleep.lock());
            self.wake.notify_all();
        }
    }

    /// Drives an interrupt input, a bit of [`line`].
    pub fn set_line(&self, line: u32, level: bool) {
        if !level {
            self.lines.fetch_and(!line, Ordering::SeqCst);
        } else if self.lines.fetch_or(line, Ordering::SeqCst) & line == 0 {
            self.raise(attention::INTERRUPT);
        }
    }

    /// The IRQ input's level.
    pub fn set_irq(&self, level: bool) {
        self.set_line(line::IRQ, level);
    }

    /// The FIQ input's level.
    pub fn set_fiq(&self, level: bool) {
        self.set_line(line::FIQ, level);
    }

    /// Levels of the interrupt inputs, [`line`].
    pub fn lines(&self) -> u32 {
        self.lines.load(Ordering::SeqCst)
    }

    /// Where the levels are.
    pub(crate) fn lines_address(&self) -> *const AtomicU32 {
        &raw const self.lines
    }

    /// Makes `run` return [`crate::Exit::Kicked`] soon: at once if it waits in WFI, and if the processor is not
    /// running, as soon as it is run again.
    pub fn kick(&self) {
        self.raise(attention::KICK);
    }

    /// Takes a kick back that no run has answered yet.
    pub fn cancel_kick(&self) {
        self.pending.fetch_and(!attention::KICK, Ordering::SeqCst);
    }

    /// Takes all that is pending.
    pub(crate) fn take(&self) -> u32 {
        self.pending.swap(0, Ordering::SeqCst)
    }

    /// Puts an attention bit back without waking anyone: the processor's own.
    pub(crate) fn remind(&self, bits: u32) {
        self.pending.fetch_or(bits, Ordering::SeqCst);
    }

    // ---- shoot-down

    /// Queues an invalidation; the ticket to wait for.
    pub(crate) fn invalidate(&self, invalidation: Invalidation) -> u64 {
        let ticket = {
            let mut queue = self.queue.lock();
            if let (
                Invalidation::Code { slot, lines },
                Some(Invalidation::Code {
                    slot: last,
                    lines: written,
                }),
            ) = (invalidation, queue.last_mut())
                && slot == *last
            {
                *written |= lines;
            } else if queue.len() >= QUEUE_LIMIT {
                queue.clear();
                queue.push(Invalidation::All);
                queue.push(Invalidation::AllCode);
            } else {
                queue.push(invalidation);
            }
            self.requested.fetch_add(1, Ordering::SeqCst) + 1
        };
        // A parked processor is not woken: it drains the queue before it executes anything.
        self.pending.fetch_or(attention::TLBI, Ordering::SeqCst);
        ticket
    }

    /// Lines of translated code were written: [`Invalidation::Code`].
    pub fn forget_code(&self, slot: u32, lines: u64) {
        self.invalidate(Invalidation::Code { slot, lines });
    }

    /// Whether the invalidation of that ticket is done, or the processor will do it before it executes anything.
    pub(crate) fn is_invalidated(&self, ticket: u64) -> bool {
        if self.acknowledged.load(Ordering::SeqCst) >= ticket {
            return true;
        }
        fence(Ordering::SeqCst);
        !self.running.load(Ordering::SeqCst)
    }

    /// Applies what is queued. On the processor's thread.
    pub(crate) fn drain(&self, mut apply: impl FnMut(&Invalidation)) {
        let (taken, ticket) = {
            let mut queue = self.queue.lock();
            (
                std::mem::take(&mut *queue),
                self.requested.load(Ordering::SeqCst),
            )
        };
        for invalidation in &taken {
            apply(invalidation);
        }
        self.acknowledged.store(ticket, Ordering::SeqCst);
    }

    /// Marks the processor as executing or not. After setting it, the queue must be drained before anything runs.
    pub(crate) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Sleeps until something other than an invalidation is pending, or for `timeout` at most.
    pub(crate) fn park(&self, timeout: Option<Duration>) {
        let mut guard = self.sleep.lock();
        self.parked.store(true, Ordering::SeqCst);
        while self.pending.load(Ordering::SeqCst) & !attention::TLBI == 0 {
            match timeout {
                None => self.wake.wait(&mut guard),
                Some(timeout) => {
                    if self.wake.wait_for(&mut guard, timeout).timed_out() {
                        break;
                    }
                }
            }
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}
