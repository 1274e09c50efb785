//! The edges of a run: entering, polling, waiting and leaving.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aarch64::esr::class;

use crate::core::{Core, Done, Exit, Idle};
use crate::emit::Flow;
use crate::hypervisor::Event;
use crate::signals::attention;
use crate::tlbi::Invalidate;
use crate::world::World;

/// How often WFI looks before the thread sleeps, as a wake-up by the host costs tens of microseconds: at the least, and where
/// waits were short lately.
pub(crate) const SPINS: u32 = 200;
const MOST_SPINS: u32 = 2000;
/// What is short.
const SHORT_WAIT: Duration = Duration::from_micros(80);
/// WFE without an event, at most: the store that it waits for may come with none (the event stream, a cleared monitor).
const EVENT_WAIT: Duration = Duration::from_micros(100);

impl Core {
    /// Starts a run: from here on shoot-downs wait for this processor.
    pub fn enter(&mut self, world: &dyn World, tlb: &mut dyn Invalidate) {
        self.signals.set_running(true);
        Core::drain(&self.signals, tlb);
        self.refresh();
        self.forget_reports();
        self.update_timers(world);
        self.check_interrupts();
    }

    /// Ends a run.
    pub fn leave(&mut self) {
        self.signals.set_running(false);
    }

    /// Attends to what is pending, where a block ends: the PC is the next instruction's. An interrupt may be taken.
    /// `Some` ends the run.
    #[cold]
    pub fn service(&mut self, world: &dyn World, tlb: &mut dyn Invalidate) -> Option<Exit> {
        loop {
            let pending = self.signals.take();
            if pending & attention::TLBI != 0 {
                Core::drain(&self.signals, tlb);
            }
            if pending & attention::EVENT != 0 {
                self.state.event = true;
            }
            if pending & attention::TIMER != 0 {
                self.armed = None;
                self.update_timers(world);
            }
            if let Some(exit) = self.exit.take() {
                // What else was pending stays so.
                self.signals.remind(pending & attention::KICK);
                self.suspended = false;
                return Some(exit);
            }
            if pending & attention::KICK != 0 {
                if self.suspended {
                    // Goes on waiting in the next run.
                    self.signals.remind(attention::LEAVE);
                }
                return Some(Exit::Kicked);
            }
            if self.suspended {
                if !self.wake_up() {
                    if !self.impatient {
                        self.park(world, tlb, None);
                        continue;
                    }
                    self.idle = Idle::Interrupt;
                }
                self.suspended = false;
            }
            self.take_interrupt();
            return None;
        }
    }

    /// What ends WFI: an interrupt, masked or not.
    pub(crate) fn wake_up(&self) -> bool {
        self.signals.lines() != 0
    }

    /// HINT: YIELD 1, WFE 2, WFI 3, SEV 4, SEVL 5; others do nothing. Waits in here.
    pub fn hint(&mut self, world: &dyn World, tlb: &mut dyn Invalidate, number: u32) -> Done {
        const NTWI: u64 = 1 << 16;
        const NTWE: u64 = 1 << 18;
        match number {
            1 => {
                std::hint::spin_loop();
                if self.impatient {
                    self.idle = Idle::Event;
                }
                Ok(Flow::Ends)
            }
            2 | 3 => {
                let (trap, ti) = if number == 3 { (NTWI, 0) } else { (NTWE, 1) };
                let waits = number == 3 || !self.state.event;
                if waits && self.state.el == 0 && self.state.sctlr[1] & trap == 0 {
                    let iss = 1 << 24 | 14 << 20 | ti;
                    return Err(self.take_synchronous(class::WFX, iss, None, self.state.pc));
                }
                if number == 3 {
                    self.beneath(Event::WaitForInterrupt);
                    // A wait may end early: a debugger's step does not wait.
                    if !self.debugger.step {
                        self.wait_for_interrupt(world, tlb);
                    }
                } else {
                    self.beneath(Event::WaitForEvent);
                    self.wait_for_event(world, tlb);
                }
                Ok(Flow::Ends)
            }
            4 => {
                self.state.event = true;
                for (i, other) in self.shared.processors().iter().enumerate() {
                    if i != self.index as usize {
                        other.raise(attention::EVENT);
                    }
                }
                Ok(Flow::Next)
            }
            5 => {
                self.state.event = true;
                Ok(Flow::Next)
            }
            _ => Ok(Flow::Next),
        }
    }

    /// WFI: returns once an interrupt is there (masked or not), or something wants the processor out of its run.
    fn wait_for_interrupt(&mut self, world: &dyn World, tlb: &mut dyn Invalidate) {
        if self.impatient {
            if !self.wake_up() {
                self.idle = Idle::Interrupt;
            }
            return;
        }
        self.update_timers(world);
        // As good as parked: who waits for shoot-downs does not wait for this.
        self.signals.set_running(false);
        let woken = (0..self.spins).any(|_| {
            std::hint::spin_loop();
            self.is_woken(Ordering::Relaxed)
        });
        self.signals.set_running(true);
        Core::drain(&self.signals, tlb);
        if woken {
            self.spins = (self.spins * 2).min(MOST_SPINS);
            return self.check_interrupts();
        }
        let start = Instant::now();
        while !self.is_woken(Ordering::SeqCst) {
            self.park(world, tlb, None);
        }
        self.spins = if start.elapsed() < SHORT_WAIT {
            (self.spins * 2).min(MOST_SPINS)
        } else {
            (self.spins / 2).max(SPINS)
        };
    }

    /// Whether WFI ends, or something wants the processor out of its run.
    fn is_woken(&self, order: Ordering) -> bool {
        self.wake_up() || self.signals.pending.load(order) & LEAVING != 0
    }

    /// WFE: consumes the event register, or waits for a while. It may always end early, and does where the event might
    /// never be seen: a spinning lock must not stall.
    fn wait_for_event(&mut self, world: &dyn World, tlb: &mut dyn Invalidate) {
        if std::mem::take(&mut self.state.event) {
            return;
        }
        let pending = self.signals.pending.load(Ordering::SeqCst);
        // Not by a kick, which comes from outside: counted runs are the same without it.
        if self.impatient && pending & attention::EVENT == 0 && !self.wake_up() {
            self.idle = Idle::Event;
        }
        if pending & (LEAVING | attention::EVENT) != 0 || self.wake_up() {
            self.take_event();
            return;
        }
        if self.impatient {
            // It ends early.
        } else if self.state.monitor.armed {
            // Usually a lock about to be released.
            std::thread::yield_now();
        } else {
            self.park(world, tlb, Some(EVENT_WAIT));
        }
        self.take_event();
    }

    /// Consumes an event that arrived meanwhile.
    fn take_event(&mut self) {
        self.signals
            .pending
            .fetch_and(!attention::EVENT, Ordering::SeqCst);
        self.state.event = false;
    }

    /// Sleeps until something is pending or a timer is due. Parked, the processor counts as having done every shoot-down;
    /// it does them on waking.
    fn park(&mut self, world: &dyn World, tlb: &mut dyn Invalidate, limit: Option<Duration>) {
        let due = self.time_to_deadline();
        let timeout = match (due, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.signals.set_running(false);
        self.signals.park(timeout);
        self.signals.set_running(true);
        Core::drain(&self.signals, tlb);
        // Left set, these would keep the processor from sleeping again.
        let taken = attention::TIMER | attention::EVENT | attention::INTERRUPT;
        let pending = self.signals.pending.fetch_and(!taken, Ordering::SeqCst);
        if pending & attention::TIMER != 0 {
            self.armed = None;
        }
        if pending & attention::EVENT != 0 {
            self.state.event = true;
        }
        if pending & attention::TIMER != 0 || due.is_some() {
            self.update_timers(world);
        }
        self.check_interrupts();
    }
}

/// What ends a wait with the run.
const LEAVING: u32 = attention::KICK | attention::LEAVE;
