//! Generic timers (DDI 0487, D12): the counters, two timers, and when they are due.

use std::time::Duration;

use aarch64::registers as r;

use crate::core::Core;
use crate::world::World;

/// CNTx_CTL_EL0.
const ENABLE: u64 = 1;
const IMASK: u64 = 1 << 1;
const ISTATUS: u64 = 1 << 2;

/// INTIDs of the virtual and the physical timer and of the performance monitors.
const VIRTUAL_INTERRUPT: u32 = 27;
const PHYSICAL_INTERRUPT: u32 = 30;
const PMU_INTERRUPT: u32 = 23;

/// One timer, at a moment.
#[derive(Clone, Copy)]
struct Timer {
    control: u64,
    /// Compare value and count in its own time.
    compare: u64,
    count: u64,
}

impl Timer {
    fn met(self) -> bool {
        self.count >= self.compare
    }

    fn control(self) -> u64 {
        let status = self.control & ENABLE != 0 && self.met();
        self.control & (ENABLE | IMASK) | if status { ISTATUS } else { 0 }
    }

    fn level(self) -> bool {
        self.control & (ENABLE | IMASK) == ENABLE && self.met()
    }

    /// Ticks until the interrupt, if it comes.
    fn due_in(self) -> Option<u64> {
        (self.control & (ENABLE | IMASK) == ENABLE && !self.met())
            .then(|| self.compare - self.count)
    }
}

impl Core {
    fn virtual_timer(&self, counter: u64) -> Timer {
        let t = &self.state.timers;
        let count = counter.wrapping_sub(t.cntvoff);
        Timer {
            control: t.cntv_ctl,
            compare: t.cntv_cval,
            count,
        }
    }

    fn physical_timer(&self, counter: u64) -> Timer {
        let t = &self.state.timers;
        Timer {
            control: t.cntp_ctl,
            compare: t.cntp_cval,
            count: counter,
        }
    }

    /// A counter or timer register; `None` for others. Permissions were checked.
    pub(crate) fn read_timer(&self, register: u16) -> Option<u64> {
        if register == r::CNTFRQ_EL0 {
            return Some(self.shared.frequency);
        }
        let counter = self.shared.counter();
        let (v, p) = (self.virtual_timer(counter), self.physical_timer(counter));
        let value = |t: Timer| u64::from(t.compare.wrapping_sub(t.count) as u32);
        Some(match register {
            r::CNTPCT_EL0 => p.count,
            r::CNTVCT_EL0 => v.count,
            r::CNTV_CTL_EL0 => v.control(),
            r::CNTV_CVAL_EL0 => v.compare,
            r::CNTV_TVAL_EL0 => value(v),
            r::CNTP_CTL_EL0 => p.control(),
            r::CNTP_CVAL_EL0 => p.compare,
            r::CNTP_TVAL_EL0 => value(p),
            _ => return None,
        })
    }

    /// A timer register, written; whether it is one.
    pub(crate) fn write_timer(&mut self, world: &dyn World, register: u16, value: u64) -> bool {
        let counter = self.shared.counter();
        let offset = value as u32 as i32 as u64;
        let t = &mut self.state.timers;
        match register {
            r::CNTV_CTL_EL0 => t.cntv_ctl = value & (ENABLE | IMASK),
            r::CNTV_CVAL_EL0 => t.cntv_cval = value,
            r::CNTV_TVAL_EL0 => {
                t.cntv_cval = counter.wrapping_sub(t.cntvoff).wrapping_add(offset);
            }
            r::CNTP_CTL_EL0 => t.cntp_ctl = value & (ENABLE | IMASK),
            r::CNTP_CVAL_EL0 => t.cntp_cval = value,
            r::CNTP_TVAL_EL0 => t.cntp_cval = counter.wrapping_add(offset),
            _ => return false,
        }
        self.update_timers(world);
        true
    }

    /// Recomputes the levels of the timers and the performance monitors, reports changes, and has the clock call at the
    /// next deadline.
    pub fn update_timers(&mut self, world: &dyn World) {
        let counter = self.shared.counter();
        self.sync_pmu();
        let levels = [
            self.virtual_timer(counter).level(),
            self.physical_timer(counter).level(),
            self.pmu_interrupt(),
        ];
        let numbers = [VIRTUAL_INTERRUPT, PHYSICAL_INTERRUPT, PMU_INTERRUPT];
        for (i, level) in levels.into_iter().enumerate() {
            if self.reported[i] != Some(level) {
                self.reported[i] = Some(level);
                world.private_interrupt(self.index, numbers[i], level);
            }
        }
        let deadline = self.deadline(counter);
        if deadline != self.armed {
            self.armed = deadline;
            if let Some(deadline) = deadline {
                self.shared.clock.arm(self.index, deadline);
            }
        }
    }

    /// Forgets what was reported and armed, so that the next update says it again.
    pub(crate) fn forget_reports(&mut self) {
        self.reported = [None; 3];
        self.armed = None;
    }

    /// When the next interrupt of a timer or of the performance monitors comes, nanoseconds of guest time.
    fn deadline(&self, counter: u64) -> Option<u64> {
        let timers = [self.virtual_timer(counter), self.physical_timer(counter)];
        let ticks = timers.into_iter().filter_map(Timer::due_in).min();
        let at = ticks.map(|ticks| {
            let at = u128::from(counter) + u128::from(ticks);
            let nanoseconds = (at * 1_000_000_000).div_ceil(u128::from(self.shared.frequency));
            u64::try_from(nanoseconds).unwrap_or(u64::MAX)
        });
        at.into_iter().chain(self.pmu_deadline()).min()
    }

    /// How long until [`Core::update_timers`] has something to do.
    pub(crate) fn time_to_deadline(&self) -> Option<Duration> {
        let deadline = self.armed?;
        Some(Duration::from_nanos(
            deadline.saturating_sub(self.shared.clock.now()),
        ))
    }
}
