//! Taking exceptions and returning from them (DDI 0487, D1.3 and J1: AArch64.TakeException, ELFromSPSR).

use aarch64::Extension;
use aarch64::esr::{self, abort, class, status};

use crate::core::{Core, Exit, Taken};
use crate::emit::Exception;
use crate::hypervisor::Event;
use crate::mmu::Fault;
use crate::signals::{attention, line};
use crate::world::{CallOutcome, World};

/// Bits of SPSR_ELx and of [`crate::State::pstate`].
pub mod pstate {
    /// Masks of FIQ, IRQ, SError and debug exceptions.
    pub const F: u32 = 1 << 6;
    pub const I: u32 = 1 << 7;
    pub const A: u32 = 1 << 8;
    pub const D: u32 = 1 << 9;
    pub const DAIF: u32 = 0xf << 6;
    pub const SSBS: u32 = 1 << 12;
    pub const IL: u32 = 1 << 20;
    pub const SS: u32 = 1 << 21;
    pub const PAN: u32 = 1 << 22;
    pub const UAO: u32 = 1 << 23;
    pub const DIT: u32 = 1 << 24;
    pub const NZCV: u32 = 0xf << 28;
    /// In SPSR: the exception level came from AArch32.
    pub const AARCH32: u32 = 1 << 4;
}

/// SCTLR_EL1.SPAN: PAN is left alone on exceptions to EL1.
const SCTLR_SPAN: u64 = 1 << 23;
/// SCTLR_EL1.DSSBS: PSTATE.SSBS on exceptions.
const SCTLR_DSSBS: u64 = 1 << 44;

/// Vector offsets by kind; the origin adds to them.
const SYNCHRONOUS: u64 = 0;
const IRQ: u64 = 0x80;
const FIQ: u64 = 0x100;
const SERROR: u64 = 0x180;

/// A data access that failed, for its syndrome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataAccess {
    Read,
    Write,
    /// DC and IC by address: CM and WnR are set.
    CacheMaintenance,
}

impl Core {
    /// Enters EL1's handler. `return_address` goes to ELR.
    fn enter_handler(&mut self, kind: u64, return_address: u64) {
        self.sync_pmu_filter();
        (self.stepping, self.stepped) = (false, false);
        let (keeps, sets) = self.pstate_on_entry();
        let s = &mut self.state;
        let origin = match (s.el, s.sp_sel) {
            (0, _) => 0x400,
            (_, false) => 0,
            (_, true) => 0x200,
        };
        s.spsr[1] = u64::from(saved(s));
        s.elr[1] = return_address;
        s.select_stack(1, true);
        s.pstate = s.pstate & keeps | sets;
        s.pc = (s.vbar[1] & !0x7ff).wrapping_add(origin + kind);
        self.refresh();
    }

    /// Bits of PSTATE that entering EL1's handler keeps, and bits that it sets.
    pub(crate) fn pstate_on_entry(&self) -> (u32, u32) {
        let sctlr = self.state.sctlr[1];
        let mut clears = pstate::IL | pstate::SS | pstate::UAO;
        let mut sets = pstate::DAIF;
        if self.features.has(Extension::Pan) && sctlr & SCTLR_SPAN == 0 {
            sets |= pstate::PAN;
        }
        if self.features.ssbs != 0 {
            clears |= pstate::SSBS;
            if sctlr & SCTLR_DSSBS != 0 {
                sets |= pstate::SSBS;
            }
        }
        (!clears, sets)
    }

    /// A synchronous exception at EL1 with ESR and, where given, FAR.
    pub fn take_synchronous(
        &mut self,
        class: u32,
        iss: u32,
        far: Option<u64>,
        return_address: u64,
    ) -> Taken {
        self.beneath(Event::Synchronous { class, iss, far });
        self.state.esr[1] = esr::syndrome(class, iss);
        if let Some(far) = far {
            self.state.far[1] = far;
        }
        self.enter_handler(SYNCHRONOUS, return_address);
        Taken
    }

    /// Picks the class by where the exception comes from: EL0, or the level that takes it.
    fn class_by_level(&self, lower: u32, same: u32) -> u32 {
        if self.state.el == 0 { lower } else { same }
    }

    /// A data abort of the current instruction at `address`.
    pub fn data_abort(&mut self, fault: Fault, address: u64, access: DataAccess) -> Taken {
        let class = self.class_by_level(class::DATA_ABORT_LOWER, class::DATA_ABORT);
        let iss = fault.status
            | match access {
                DataAccess::Read => 0,
                DataAccess::Write => abort::WRITE,
                DataAccess::CacheMaintenance => abort::WRITE | abort::CACHE_MAINTENANCE,
            };
        self.take_synchronous(class, iss, Some(address), self.state.pc)
    }

    /// An alignment fault of a data access of the current instruction.
    pub fn alignment_fault(&mut self, address: u64, access: DataAccess) -> Taken {
        self.data_abort(
            Fault {
                status: status::ALIGNMENT,
            },
            address,
            access,
        )
    }

    /// The stack pointer is not aligned and the base of an access.
    pub fn sp_alignment_fault(&mut self) -> Taken {
        self.take_synchronous(class::SP_ALIGNMENT, 0, None, self.state.pc)
    }

    /// An instruction abort: the fetch at the PC failed.
    pub fn instruction_abort(&mut self, fault: Fault) -> Taken {
        let class = self.class_by_level(class::INSTRUCTION_ABORT_LOWER, class::INSTRUCTION_ABORT);
        let pc = self.state.pc;
        self.take_synchronous(class, fault.status, Some(pc), pc)
    }

    /// Takes an exception that an instruction causes, or performs the call that it is. The PC is where execution goes on.
    pub fn exception(&mut self, world: &dyn World, exception: Exception) {
        let is_call = matches!(exception, Exception::Hvc(_) | Exception::Smc(_));
        if is_call && self.state.el != 0 {
            let (smc, immediate) = match exception {
                Exception::Smc(immediate) => (true, immediate),
                Exception::Hvc(immediate) => (false, immediate),
                _ => (false, 0),
            };
            self.beneath(Event::Call { smc, immediate });
            self.advance_step();
            self.call(world);
        } else {
            self.synchronous(exception);
        }
    }

    /// The same for what is no call.
    pub(crate) fn synchronous(&mut self, exception: Exception) -> Taken {
        let pc = self.state.pc;
        let (class, iss, far, back) = match exception {
            Exception::Svc(immediate) => {
                self.advance_step();
                (class::SVC, immediate.into(), None, pc.wrapping_add(4))
            }
            // Halting debug is not enabled: HLT is undefined. So are calls from EL0.
            Exception::Undefined | Exception::Hlt(_) | Exception::Hvc(_) | Exception::Smc(_) => {
                (class::UNKNOWN, 0, None, pc)
            }
            Exception::Brk(immediate) => {
                if let Some(taken) = self.stop_at_break(immediate) {
                    return taken;
                }
                (class::BRK, immediate.into(), None, pc)
            }
            // CV = 1, COND = 14.
            Exception::FpTrap => (class::FP, 0x1e0_0000, None, pc),
            Exception::IllegalState => (class::ILLEGAL_STATE, 0, None, pc),
            Exception::PcAlignment => (class::PC_ALIGNMENT, 0, Some(pc), pc),
        };
        self.take_synchronous(class, iss, far, back)
    }

    /// An undefined instruction or system register.
    pub fn undefined(&mut self) -> Taken {
        self.take_synchronous(class::UNKNOWN, 0, None, self.state.pc)
    }

    /// A trapped MRS, MSR or system instruction: EC 0x18.
    pub(crate) fn system_trap(&mut self, register: u16, rt: u32, read: bool) -> Taken {
        let iss = esr::system_iss(register, rt, read);
        self.take_synchronous(class::SYSTEM, iss, None, self.state.pc)
    }

    /// HVC and SMC from EL1: the world answers (PSCI, SMCCC).
    fn call(&mut self, world: &dyn World) {
        let mut x = [0; 18];
        x.copy_from_slice(&self.state.x[..18]);
        let outcome = world.call(self.index, &mut x);
        self.state.x[..18].copy_from_slice(&x);
        self.state.pc = self.state.pc.wrapping_add(4);
        match outcome {
            CallOutcome::Resume => {}
            CallOutcome::Stop => {
                self.exit = Some(Exit::Off);
                self.signals.remind(attention::LEAVE);
            }
            CallOutcome::Wait => {
                self.suspended = true;
                self.signals.remind(attention::LEAVE);
            }
        }
    }

    /// ERET. The PC is where execution goes on, also when the return was illegal: PSTATE.IL is then set, and the next
    /// instruction takes [`Exception::IllegalState`].
    pub fn exception_return(&mut self) {
        self.sync_pmu_filter();
        let spsr = self.state.spsr[1] as u32;
        let elr = self.state.elr[1];
        self.state.monitor.armed = false;
        self.state.event = true;
        let (el, sp_sel) = ((spsr >> 2 & 3) as u8, spsr & 1 != 0);
        let legal = spsr & pstate::AARCH32 == 0
            && spsr & 2 == 0
            && el <= self.state.el
            && !(el == 0 && sp_sel);
        let mut p = spsr & self.pstate_bits() & !pstate::SS;
        if self.step_on_return(spsr, if legal { el } else { self.state.el }) {
            p |= pstate::SS;
        }
        if legal {
            self.state.select_stack(el, sp_sel);
            self.state.pstate = p;
        } else {
            // EL, SP and (as they are not restored on an illegal return) UAO, SSBS stay; PAN, NZCV, DAIF come from SPSR.
            let keep = pstate::UAO | pstate::SSBS;
            self.state.pstate = p & !keep | self.state.pstate & keep | pstate::IL;
        }
        self.state.nzcv = spsr & pstate::NZCV;
        self.state.pc = if legal { self.branch_address(elr) } else { elr };
        // The step that ERET is part of, if any, is not the one it arms.
        self.stepped = std::mem::take(&mut self.stepping);
        self.refresh();
        self.check_interrupts();
    }

    /// Bits of SPSR that [`crate::State::pstate`] takes: those of features that are there.
    pub(crate) fn pstate_bits(&self) -> u32 {
        let mut bits = pstate::DAIF | pstate::IL | pstate::SS;
        if self.features.ssbs != 0 {
            bits |= pstate::SSBS;
        }
        if self.features.has(Extension::Pan) {
            bits |= pstate::PAN;
        }
        if self.features.has(Extension::Uao) {
            bits |= pstate::UAO;
        }
        if self.features.has(Extension::Dit) {
            bits |= pstate::DIT;
        }
        bits
    }

    /// After a change of PSTATE's masks: an interrupt that was held off is taken at the next poll.
    pub(crate) fn check_interrupts(&self) {
        if self.signals.lines() != 0 {
            self.signals.remind(attention::INTERRUPT);
        }
    }

    /// Takes the highest unmasked interrupt whose line is high, if there is one.
    pub(crate) fn take_interrupt(&mut self) -> bool {
        let lines = self.signals.lines();
        let masks = self.state.pstate;
        let (kind, esr) = if lines & line::SERROR != 0 && masks & pstate::A == 0 {
            self.signals.set_line(line::SERROR, false);
            (SERROR, Some(esr::syndrome(class::SERROR, 0)))
        } else if lines & line::FIQ != 0 && masks & pstate::F == 0 {
            (FIQ, None)
        } else if lines & line::IRQ != 0 && masks & pstate::I == 0 {
            (IRQ, None)
        } else {
            return false;
        };
        if let Some(esr) = esr {
            self.state.esr[1] = esr;
        }
        self.enter_handler(kind, self.state.pc);
        true
    }

    /// Where a branch to `target` goes: tag bits are replaced by copies of bit 55 where TBI ignores them for
    /// instructions (AArch64.BranchAddr).
    pub fn branch_address(&self, target: u64) -> u64 {
        let tcr = self.state.tcr[1];
        let upper = target & 1 << 55 != 0;
        let (tbi, tbid) = if upper { (38, 52) } else { (37, 51) };
        let ignored =
            tcr >> tbi & 1 != 0 && !(self.features.has(Extension::PAuth) && tcr >> tbid & 1 != 0);
        if !ignored {
            target
        } else if upper {
            target | 0xff << 56
        } else {
            target & !(0xff << 56)
        }
    }
}

/// SPSR of the present PSTATE.
pub(crate) fn saved(s: &crate::State) -> u32 {
    s.pstate & !pstate::NZCV | s.nzcv | u32::from(s.el) << 2 | u32::from(s.sp_sel)
}
