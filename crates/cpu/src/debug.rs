//! Self-hosted debug (DDI 0487, D2): software step, breakpoints, watchpoints.
//!
//! While [`Core::debugging`] holds, the run loop calls [`Core::before_instruction`] and [`Core::after_instruction`] around
//! each instruction, and [`Core::check_watchpoints`] for each data access.

use aarch64::esr::{abort, class, status};
use aarch64::registers as r;

use crate::core::{Core, Taken};
use crate::exception::pstate;

/// MDSCR_EL1.
pub(crate) mod mdscr {
    pub const SS: u64 = 1;
    pub const TDCC: u64 = 1 << 12;
    pub const KDE: u64 = 1 << 13;
    pub const MDE: u64 = 1 << 15;
    /// What the guest can write. The rest belongs to an external debugger, and to the OS lock.
    pub const KEPT: u64 = SS | TDCC | KDE | MDE;
}

/// Breakpoints, of which the last two know contexts (ID_AA64DFR0_EL1.BRPs, CTX_CMPs); watchpoints.
const BREAKPOINTS: usize = 6;
const CONTEXT_BREAKPOINTS: usize = 4;
const WATCHPOINTS: usize = 4;

/// Bits of DBGBCR and DBGWCR that are kept.
const BREAKPOINT_CONTROL: u64 = 0x00ff_e1e7;
const WATCHPOINT_CONTROL: u64 = 0x1f1f_ffff;
/// DBGCLAIMSET_EL1: eight tags.
const CLAIM_TAGS: u64 = 0xff;

impl Core {
    /// Whether debug exceptions are enabled at an exception level with that PSTATE.D.
    fn debug_enabled(&self, el: u8, masked: bool) -> bool {
        let d = &self.state.debug;
        let at_el1 = self.debug_beneath || (d.mdscr & mdscr::KDE != 0 && !masked);
        !d.os_lock && (el == 0 || at_el1)
    }

    fn debug_enabled_now(&self) -> bool {
        self.debug_enabled(self.state.el, self.state.pstate & pstate::D != 0)
    }

    /// Recomputes [`Core::debugging`].
    pub(crate) fn refresh_debug(&mut self) {
        let d = &self.state.debug;
        let guest = d.mdscr & (mdscr::SS | mdscr::MDE) != 0
            && self.debug_enabled_now()
            && (d.mdscr & mdscr::SS != 0
                || d.breakpoint_control
                    .iter()
                    .chain(&d.watchpoint_control)
                    .any(|c| c & 1 != 0));
        self.debugging = guest || self.debugger.is_active();
    }

    /// Whether an exception return to `el` with `spsr` arms the step: PSTATE.SS (DebugExceptionReturnSS).
    pub(crate) fn step_on_return(&self, spsr: u32, el: u8) -> bool {
        self.state.debug.mdscr & mdscr::SS != 0
            && spsr & pstate::SS != 0
            && !self.debug_enabled_now()
            && self.debug_enabled(el, spsr & pstate::D != 0)
    }

    /// Before the instruction at the PC: a pending step, or a breakpoint on it.
    pub fn before_instruction(&mut self) -> Result<(), Taken> {
        if !self.debugging {
            return Ok(());
        }
        self.stop_before_instruction()?;
        self.stepping = false;
        let stepped = std::mem::take(&mut self.stepped);
        if self.state.debug.mdscr & mdscr::SS != 0 && self.debug_enabled_now() {
            if self.state.pstate & pstate::SS == 0 {
                let class = if self.state.el == 0 {
                    class::STEP_LOWER
                } else {
                    class::STEP
                };
                // ISV where an instruction was stepped, and EX where that was a load-exclusive: not where the step became
                // pending by an exception return (AArch64.SoftwareStepException).
                let iss = if stepped {
                    1 << 24 | u32::from(self.state.monitor.armed) << 6 | status::DEBUG
                } else {
                    status::DEBUG
                };
                return Err(self.take_synchronous(class, iss, None, self.state.pc));
            }
            self.stepping = true;
        }
        if self.state.debug.mdscr & mdscr::MDE != 0
            && self.debug_enabled_now()
            && (0..BREAKPOINTS).any(|i| self.breakpoint_matches(i))
        {
            let class = if self.state.el == 0 {
                class::BREAKPOINT_LOWER
            } else {
                class::BREAKPOINT
            };
            return Err(self.take_synchronous(class, status::DEBUG, None, self.state.pc));
        }
        Ok(())
    }

    /// After an instruction that took no exception: the step is done.
    pub fn after_instruction(&mut self) {
        if std::mem::take(&mut self.stepping) {
            self.state.pstate &= !pstate::SS;
            self.stepped = true;
        }
    }

    /// SVC and the like complete before their exception is taken (SSAdvance).
    pub(crate) fn advance_step(&mut self) {
        self.state.pstate &= !pstate::SS;
        self.stepping = false;
    }

    /// Whether DBGBCR/DBGWCR's HMC, SSC and PMC/PAC cover the exception level: EL1 by bit 1, EL0 by bit 2 of the control.
    fn level_matches(control: u64, el0: bool) -> bool {
        let secure_only = control >> 14 & 3 == 2;
        let wanted = if el0 { 1 << 2 } else { 1 << 1 };
        control & wanted != 0 && !secure_only
    }

    fn breakpoint_matches(&self, i: usize) -> bool {
        let d = &self.state.debug;
        let (value, control) = (d.breakpoint_value[i], d.breakpoint_control[i]);
        if control & 1 == 0 || !Core::level_matches(control, self.state.el == 0) {
            return false;
        }
        match control >> 20 & 0xf {
            // Address; address linked to a context.
            kind @ (0 | 1) => {
                // Bits 63:49 are copies of bit 48.
                let address = (value << 15) as i64 >> 15;
                address as u64 & !3 == self.state.pc
                    && (kind == 0 || self.context_matches(control >> 16 & 0xf))
            }
            // Context, on its own.
            2 => i >= CONTEXT_BREAKPOINTS && self.context_value_matches(i),
            _ => false,
        }
    }

    /// A linked context breakpoint.
    fn context_matches(&self, linked: u64) -> bool {
        let i = linked as usize;
        let d = &self.state.debug;
        (CONTEXT_BREAKPOINTS..BREAKPOINTS).contains(&i)
            && d.breakpoint_control[i] & 1 != 0
            && d.breakpoint_control[i] >> 20 & 0xf == 3
            && self.context_value_matches(i)
    }

    fn context_value_matches(&self, i: usize) -> bool {
        self.state.debug.breakpoint_value[i] as u32 == self.state.contextidr[1] as u32
    }

    /// Watchpoints on a data access of `bytes` at `address` (tag removed). `el0`: with EL0's permissions.
    pub fn check_watchpoints(
        &mut self,
        address: u64,
        bytes: u64,
        read: bool,
        write: bool,
        el0: bool,
    ) -> Result<(), Taken> {
        if !self.debugging {
            return Ok(());
        }
        self.stop_before_access(address, bytes, read, write)?;
        if self.state.debug.mdscr & mdscr::MDE == 0 || !self.debug_enabled_now() {
            return Ok(());
        }
        let hit =
            (0..WATCHPOINTS).any(|i| self.watchpoint_matches(i, address, bytes, read, write, el0));
        if !hit {
            return Ok(());
        }
        let class = if self.state.el == 0 {
            class::WATCHPOINT_LOWER
        } else {
            class::WATCHPOINT
        };
        let iss = status::DEBUG | if write { abort::WRITE } else { 0 };
        Err(self.take_synchronous(class, iss, Some(address), self.state.pc))
    }

    fn watchpoint_matches(
        &self,
        i: usize,
        address: u64,
        bytes: u64,
        read: bool,
        write: bool,
        el0: bool,
    ) -> bool {
        let d = &self.state.debug;
        let control = d.watchpoint_control[i];
        let kind = (read && control & 1 << 3 != 0) || (write && control & 1 << 4 != 0);
        if control & 1 == 0 || !kind || !Core::level_matches(control, el0) {
            return false;
        }
        if control & 1 << 20 != 0 && !self.context_matches(control >> 16 & 0xf) {
            return false;
        }
        let base = (d.watchpoint_value[i] << 15) as i64 >> 15;
        let base = base as u64 & !3;
        let mask = control >> 24 & 0x1f;
        let last = address.wrapping_add(bytes.max(1) - 1);
        if mask >= 3 {
            // An aligned range of 2^mask bytes.
            let start = base & !((1 << mask) - 1);
            return address <= start | ((1 << mask) - 1) && last >= start;
        }
        let select = control >> 5 & 0xff;
        (0..8).any(|byte| {
            let at = base.wrapping_add(byte);
            select >> byte & 1 != 0 && address <= at && last >= at
        })
    }

    /// A debug register at EL1; `None` if there is none of that encoding.
    pub(crate) fn read_debug(&self, register: u16) -> Option<u64> {
        let d = &self.state.debug;
        if let Some((kind, n)) = pair_register(register) {
            return Some(match kind {
                4 => d.breakpoint_value[n],
                5 => d.breakpoint_control[n],
                6 => d.watchpoint_value[n],
                _ => d.watchpoint_control[n],
            });
        }
        Some(match register {
            r::MDSCR_EL1 => d.mdscr,
            // OSLM = 2: the OS lock is there.
            r::OSLSR_EL1 => 8 | u64::from(d.os_lock) << 1,
            r::DBGCLAIMSET_EL1 => CLAIM_TAGS,
            r::DBGCLAIMCLR_EL1 => d.claim,
            // Non-secure debug is there and enabled.
            r::DBGAUTHSTATUS_EL1 => 0xf,
            // No double lock, no debugger at the other end of the communications channel, no ROM table.
            r::OSDLR_EL1
            | r::MDRAR_EL1
            | r::DBGPRCR_EL1
            | r::MDCCINT_EL1
            | r::MDCCSR_EL0
            | r::DBGDTR_EL0
            | r::DBGDTRRX_EL0
            | r::OSDTRRX_EL1
            | r::OSDTRTX_EL1
            | r::OSECCR_EL1 => 0,
            _ => return None,
        })
    }

    /// The same, written; whether there is one.
    pub(crate) fn write_debug(&mut self, register: u16, value: u64) -> bool {
        let d = &mut self.state.debug;
        if let Some((kind, n)) = pair_register(register) {
            match kind {
                4 => d.breakpoint_value[n] = value,
                5 => d.breakpoint_control[n] = value & BREAKPOINT_CONTROL,
                6 => d.watchpoint_value[n] = value,
                _ => d.watchpoint_control[n] = value & WATCHPOINT_CONTROL,
            }
        } else {
            match register {
                r::MDSCR_EL1 => d.mdscr = value & mdscr::KEPT,
                r::OSLAR_EL1 => d.os_lock = value & 1 != 0,
                r::DBGCLAIMSET_EL1 => d.claim |= value & CLAIM_TAGS,
                r::DBGCLAIMCLR_EL1 => d.claim &= !value,
                r::OSDLR_EL1
                | r::DBGPRCR_EL1
                | r::MDCCINT_EL1
                | r::DBGDTR_EL0
                | r::DBGDTRRX_EL0
                | r::OSDTRRX_EL1
                | r::OSDTRTX_EL1
                | r::OSECCR_EL1 => {}
                _ => return false,
            }
        }
        self.refresh();
        true
    }
}

/// DBGBVR, DBGBCR, DBGWVR, DBGWCR (op2 4 to 7) and the index.
fn pair_register(register: u16) -> Option<(u16, usize)> {
    let (op0, op1, crn, crm, op2) = r::fields(register);
    let limit = if op2 < 6 { BREAKPOINTS } else { WATCHPOINTS };
    let n = usize::from(crm);
    (op0 == 2 && op1 == 0 && crn == 0 && op2 >= 4 && n < limit).then_some((op2, n))
}
