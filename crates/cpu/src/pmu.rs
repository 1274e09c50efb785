//! Performance monitors (DDI 0487, D13): the cycle counter and no event counters.
//!
//! A cycle is a nanosecond of guest time.

use aarch64::registers as r;

use crate::core::Core;

/// PMCR_EL0.
mod pmcr {
    pub const E: u64 = 1;
    pub const C: u64 = 1 << 2;
    pub const D: u64 = 1 << 3;
    pub const X: u64 = 1 << 4;
    pub const DP: u64 = 1 << 5;
    pub const LC: u64 = 1 << 6;
    pub const KEPT: u64 = E | D | X | DP | LC;
}

/// The cycle counter's bit in the enable, interrupt and overflow registers.
const CYCLES: u64 = 1 << 31;
/// PMCCFILTR_EL0: do not count at EL1, at EL0.
const FILTER_EL1: u64 = 1 << 31;
const FILTER_EL0: u64 = 1 << 30;
/// PMCEID0_EL0: CPU_CYCLES.
const EVENTS: u64 = 1 << 0x11;

/// PMUSERENR_EL0: what EL0 may do.
mod user {
    pub const EN: u64 = 1;
    pub const SW: u64 = 1 << 1;
    pub const CR: u64 = 1 << 2;
    pub const ER: u64 = 1 << 3;
}

impl Core {
    /// Whether a register is one of the performance monitors'.
    pub(crate) fn is_pmu(register: u16) -> bool {
        let (op0, op1, crn, crm, op2) = r::fields(register);
        op0 == 3
            && match (op1, crn, crm) {
                (3, 9, 12..=14) => true,
                (3, 14, 8..=15) => true,
                (0, 9, 14) => matches!(op2, 1 | 2 | 6),
                _ => false,
            }
    }

    /// Whether PMUSERENR_EL0 lets EL0 have the register.
    pub(crate) fn pmu_user_access(&self, register: u16, read: bool) -> bool {
        let also = match register {
            r::PMUSERENR_EL0 => return read,
            r::PMSWINC_EL0 => user::SW,
            r::PMCCNTR_EL0 if read => user::CR,
            r::PMSELR_EL0 => user::ER,
            r::PMXEVCNTR_EL0 if read => user::ER,
            _ if is_event_counter(register) && read => user::ER,
            _ => 0,
        };
        self.state.pmu.pmuserenr & (user::EN | also) != 0
    }

    /// Whether the cycle counter runs now.
    fn counting(&self) -> bool {
        let p = &self.state.pmu;
        let filter = if self.state.el == 0 {
            FILTER_EL0
        } else {
            FILTER_EL1
        };
        p.pmcr & pmcr::E != 0
            && p.pmcnten & CYCLES != 0
            && p.pmccfiltr & filter == 0
            && !(p.pmcr & pmcr::DP != 0 && self.prohibited())
    }

    /// Counting is never prohibited without EL2 and EL3.
    fn prohibited(&self) -> bool {
        false
    }

    /// Nanoseconds a count.
    fn divider(&self) -> u64 {
        let p = self.state.pmu.pmcr;
        if p & pmcr::D != 0 && p & pmcr::LC == 0 {
            64
        } else {
            1
        }
    }

    /// Brings PMCCNTR_EL0 up to date; before anything that decides whether it counts changes.
    pub(crate) fn sync_pmu(&mut self) {
        if !self.features.pmu {
            return;
        }
        let now = self.shared.clock.now();
        let divider = self.divider();
        let counting = self.counting();
        let p = &mut self.state.pmu;
        let counts = now.saturating_sub(p.cycle_base) / divider;
        if !counting {
            p.cycle_base = now;
            return;
        }
        p.cycle_base = p
            .cycle_base
            .wrapping_add(counts.wrapping_mul(divider))
            .min(now);
        let overflow = if p.pmcr & pmcr::LC != 0 {
            p.pmccntr.checked_add(counts).is_none()
        } else {
            (p.pmccntr & 0xffff_ffff).saturating_add(counts) > 0xffff_ffff
        };
        p.pmccntr = p.pmccntr.wrapping_add(counts);
        if overflow {
            p.pmovs |= CYCLES;
        }
    }

    /// Before the exception level changes: a filter may start or stop the counter.
    pub(crate) fn sync_pmu_filter(&mut self) {
        if self.counts_some_level_only() {
            self.sync_pmu();
        }
    }

    /// Whether a filter tells exception levels apart.
    pub(crate) fn counts_some_level_only(&self) -> bool {
        self.state.pmu.pmccfiltr & (FILTER_EL0 | FILTER_EL1) != 0
    }

    /// The level of the interrupt.
    pub(crate) fn pmu_interrupt(&self) -> bool {
        let p = &self.state.pmu;
        p.pmcr & pmcr::E != 0 && p.pmovs & p.pminten & CYCLES != 0
    }

    /// When the counter will overflow, if that interrupts; nanoseconds of guest time. It was just brought up to date.
    pub(crate) fn pmu_deadline(&self) -> Option<u64> {
        let p = &self.state.pmu;
        if !self.features.pmu
            || p.pminten & CYCLES == 0
            || p.pmovs & CYCLES != 0
            || !self.counting()
        {
            return None;
        }
        let left = if p.pmcr & pmcr::LC != 0 {
            u64::MAX - p.pmccntr
        } else {
            0xffff_ffff - (p.pmccntr & 0xffff_ffff)
        };
        let wait = left.saturating_add(1).saturating_mul(self.divider());
        Some(p.cycle_base.saturating_add(wait))
    }

    /// A register of the performance monitors; `None` if there is none of that encoding.
    pub(crate) fn read_pmu(&mut self, register: u16) -> Option<u64> {
        self.sync_pmu();
        let p = &self.state.pmu;
        Some(match register {
            // No event counters (N = 0), no identification.
            r::PMCR_EL0 => p.pmcr & pmcr::KEPT,
            r::PMCNTENSET_EL0 | r::PMCNTENCLR_EL0 => p.pmcnten,
            r::PMOVSCLR_EL0 | r::PMOVSSET_EL0 => p.pmovs,
            r::PMINTENSET_EL1 | r::PMINTENCLR_EL1 => p.pminten,
            r::PMSELR_EL0 => p.pmselr,
            r::PMCEID0_EL0 => EVENTS,
            r::PMCEID1_EL0 => 0,
            r::PMCCNTR_EL0 => p.pmccntr,
            r::PMUSERENR_EL0 => p.pmuserenr,
            r::PMCCFILTR_EL0 => p.pmccfiltr,
            r::PMXEVTYPER_EL0 if p.pmselr == 31 => p.pmccfiltr,
            // Counters that are not there: RAZ/WI, of the choices the manual gives (D13.11.4).
            r::PMXEVTYPER_EL0 | r::PMXEVCNTR_EL0 => 0,
            _ if is_event_counter(register) => 0,
            _ => return None,
        })
    }

    /// The same, written; whether there is one. The caller updates the interrupt.
    pub(crate) fn write_pmu(&mut self, register: u16, value: u64) -> bool {
        self.sync_pmu();
        let p = &mut self.state.pmu;
        match register {
            r::PMCR_EL0 => {
                p.pmcr = value & pmcr::KEPT;
                if value & pmcr::C != 0 {
                    p.pmccntr = 0;
                }
            }
            r::PMCNTENSET_EL0 => p.pmcnten |= value & CYCLES,
            r::PMCNTENCLR_EL0 => p.pmcnten &= !(value & CYCLES),
            r::PMOVSSET_EL0 => p.pmovs |= value & CYCLES,
            r::PMOVSCLR_EL0 => p.pmovs &= !(value & CYCLES),
            r::PMINTENSET_EL1 => p.pminten |= value & CYCLES,
            r::PMINTENCLR_EL1 => p.pminten &= !(value & CYCLES),
            r::PMSELR_EL0 => p.pmselr = value & 0x1f,
            r::PMCCNTR_EL0 => p.pmccntr = value,
            r::PMUSERENR_EL0 => p.pmuserenr = value & 0xf,
            r::PMCCFILTR_EL0 => p.pmccfiltr = value & (FILTER_EL0 | FILTER_EL1),
            r::PMXEVTYPER_EL0 if p.pmselr == 31 => p.pmccfiltr = value & (FILTER_EL0 | FILTER_EL1),
            r::PMXEVTYPER_EL0 | r::PMXEVCNTR_EL0 | r::PMSWINC_EL0 => {}
            _ => return is_event_counter(register),
        }
        true
    }
}

/// PMEVCNTR<n>_EL0 and PMEVTYPER<n>_EL0.
fn is_event_counter(register: u16) -> bool {
    let (_, op1, crn, crm, _) = r::fields(register);
    op1 == 3 && crn == 14 && crm >= 8
}
