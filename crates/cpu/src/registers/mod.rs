//! System registers: MRS, MSR and system instructions, with the traps of EL0 (DDI 0487, C5 and D17).

mod instructions;

use aarch64::Extension;
use aarch64::registers as r;

use crate::core::{Core, Done, Taken};
use crate::debug::mdscr;
use crate::emit::{Exception, Flow};
use crate::exception::pstate;
use crate::hypervisor::Event;
use crate::world::World;

/// SCTLR_EL1's controls of EL0.
pub mod sctlr {
    pub const UMA: u64 = 1 << 9;
    pub const DZE: u64 = 1 << 14;
    pub const UCT: u64 = 1 << 15;
    pub const UCI: u64 = 1 << 26;
    /// A, C, SA, SA0, M, UMA, I, DZE, UCT, nTWI, nTWE, WXN, UCI.
    pub const BASE: u64 = 0x1f | UMA | 1 << 12 | DZE | UCT | 1 << 16 | 1 << 18 | 1 << 19 | UCI;
    /// ITD, SED, EOS, TSCXT, EIS, nTLSMD, LSMAOE.
    pub const ONES: u64 = 1 << 7 | 1 << 8 | 1 << 11 | 1 << 20 | 1 << 22 | 1 << 28 | 1 << 29;
    pub const SPAN: u64 = 1 << 23;
    /// EnDB, EnDA, EnIB, EnIA.
    pub const PAUTH: u64 = 1 << 13 | 1 << 27 | 1 << 30 | 1 << 31;
    pub const DSSBS: u64 = 1 << 44;
    /// M and WXN: what cached translations depend on.
    pub const TRANSLATION: u64 = 1 | 1 << 19;
}

/// FPSR: QC, IDC, IXC, UFC, OFC, DZC, IOC.
pub const FPSR_BITS: u32 = 0x0800_009f;

/// CNTKCTL_EL1.
mod cntkctl {
    pub const EL0PCTEN: u64 = 1;
    pub const EL0VCTEN: u64 = 1 << 1;
    pub const EL0VTEN: u64 = 1 << 8;
    pub const EL0PTEN: u64 = 1 << 9;
    /// The event stream's fields too: EVNTEN, EVNTDIR, EVNTI.
    pub const KEPT: u64 = 0x3ff;
}

/// What a register access comes to, before it is done.
enum Permission {
    Yes,
    /// EC 0x18.
    Trap,
    /// EC 0.
    Undefined,
    /// EC 7.
    FpTrap,
}

impl Core {
    /// MRS of a register (encoding as [`aarch64::registers::encode`]). `rt` is the instruction's Xt, for the syndrome.
    pub fn read_register(
        &mut self,
        world: &dyn World,
        register: u16,
        rt: u32,
    ) -> Result<u64, Taken> {
        self.permit(register, rt, true)?;
        self.beneath(Event::ReadRegister { register, rt });
        match self.read_permitted(world, register) {
            Some(value) => Ok(value),
            None => {
                tracing::debug!(
                    cpu = self.index,
                    register = r::name(register),
                    "MRS of no register"
                );
                Err(self.undefined())
            }
        }
    }

    /// MSR of a register.
    pub fn write_register(
        &mut self,
        world: &dyn World,
        register: u16,
        rt: u32,
        value: u64,
    ) -> Done {
        self.permit(register, rt, false)?;
        self.beneath(Event::WriteRegister { register, rt });
        match self.write_permitted(world, register, value) {
            Some(flow) => Ok(flow),
            None => {
                tracing::debug!(
                    cpu = self.index,
                    register = r::name(register),
                    "MSR of no register"
                );
                Err(self.undefined())
            }
        }
    }

    /// Takes the trap or undefined exception of an access that is not permitted.
    fn permit(&mut self, register: u16, rt: u32, read: bool) -> Result<(), Taken> {
        match self.permission(register, read) {
            Permission::Yes => Ok(()),
            Permission::Trap => Err(self.system_trap(register, rt, read)),
            Permission::Undefined => Err(self.undefined()),
            Permission::FpTrap => Err(self.synchronous(Exception::FpTrap)),
        }
    }

    fn permission(&self, register: u16, read: bool) -> Permission {
        if matches!(register, r::FPCR | r::FPSR) && !self.key.fp_enabled {
            return Permission::FpTrap;
        }
        if self.state.el != 0 {
            return Permission::Yes;
        }
        let s = &self.state;
        let trap_unless = |allowed: bool| {
            if allowed {
                Permission::Yes
            } else {
                Permission::Trap
            }
        };
        let timer = |bits: u64| trap_unless(s.cntkctl_el1 & bits != 0);
        match register {
            r::NZCV | r::FPCR | r::FPSR | r::DIT | r::SSBS | r::TPIDR_EL0 => Permission::Yes,
            r::TPIDRRO_EL0 | r::DCZID_EL0 if read => Permission::Yes,
            r::CTR_EL0 if read => trap_unless(s.sctlr[1] & sctlr::UCT != 0),
            r::DAIF => trap_unless(s.sctlr[1] & sctlr::UMA != 0),
            r::CNTFRQ_EL0 if read => timer(cntkctl::EL0PCTEN | cntkctl::EL0VCTEN),
            r::CNTPCT_EL0 if read => timer(cntkctl::EL0PCTEN),
            r::CNTVCT_EL0 if read => timer(cntkctl::EL0VCTEN),
            r::CNTV_CTL_EL0 | r::CNTV_CVAL_EL0 | r::CNTV_TVAL_EL0 => timer(cntkctl::EL0VTEN),
            r::CNTP_CTL_EL0 | r::CNTP_CVAL_EL0 | r::CNTP_TVAL_EL0 => timer(cntkctl::EL0PTEN),
            r::MDCCSR_EL0 | r::DBGDTR_EL0 | r::DBGDTRRX_EL0 => {
                trap_unless(s.debug.mdscr & mdscr::TDCC == 0)
            }
            _ if self.features.pmu && Core::is_pmu(register) && r::fields(register).1 == 3 => {
                trap_unless(self.pmu_user_access(register, read))
            }
            _ => Permission::Undefined,
        }
    }

    fn read_permitted(&mut self, world: &dyn World, register: u16) -> Option<u64> {
        let s = &self.state;
        let f = &self.features;
        if let Some(value) = f.fixed_register(register) {
            return Some(value);
        }
        let flag = |extension, bit: u32| f.has(extension).then_some(u64::from(s.pstate) & 1 << bit);
        let (op0, ..) = r::fields(register);
        Some(match register {
            // Process state.
            r::NZCV => s.nzcv.into(),
            r::DAIF => (s.pstate & pstate::DAIF).into(),
            r::SPSEL => s.sp_sel.into(),
            r::CURRENTEL => u64::from(s.el) << 2,
            r::PAN => flag(Extension::Pan, 22)?,
            r::UAO => flag(Extension::Uao, 23)?,
            r::DIT => flag(Extension::Dit, 24)?,
            r::SSBS => flag(Extension::Ssbs, 12)?,
            r::SP_EL0 if s.sp_sel => s.sp[0],
            r::FPCR => s.fpcr.into(),
            r::FPSR => s.fpsr.into(),
            // Exceptions.
            r::ELR_EL1 => s.elr[1],
            r::SPSR_EL1 => s.spsr[1],
            r::ESR_EL1 => s.esr[1],
            r::FAR_EL1 => s.far[1],
            r::AFSR0_EL1 => s.afsr0[1],
            r::AFSR1_EL1 => s.afsr1[1],
            r::VBAR_EL1 => s.vbar[1],
            r::ISR_EL1 => {
                let lines = u64::from(self.signals.lines());
                // IRQ, FIQ, SError at bits 7, 6 and 8.
                (lines & 1) << 7 | (lines >> 1 & 1) << 6 | (lines >> 2 & 1) << 8
            }
            // Control and translation.
            r::SCTLR_EL1 => s.sctlr[1],
            r::ACTLR_EL1 => s.actlr[1],
            r::CPACR_EL1 => s.cpacr[1],
            r::TTBR0_EL1 => s.ttbr0[1],
            r::TTBR1_EL1 => s.ttbr1[1],
            r::TCR_EL1 => s.tcr[1],
            r::MAIR_EL1 => s.mair[1],
            r::AMAIR_EL1 => s.amair[1],
            r::PAR_EL1 => s.par_el1,
            r::CONTEXTIDR_EL1 => s.contextidr[1],
            r::TPIDR_EL0 => s.tpidr[0],
            r::TPIDR_EL1 => s.tpidr[1],
            r::TPIDRRO_EL0 => s.tpidrro_el0,
            // No limited ordering regions: the registers exist and hold nothing.
            r::LORSA_EL1 | r::LOREA_EL1 | r::LORN_EL1 | r::LORC_EL1 | r::LORID_EL1 => {
                f.has(Extension::Lor).then_some(0)?
            }
            r::CNTKCTL_EL1 => s.cntkctl_el1,
            // Identification.
            r::MPIDR_EL1 => s.mpidr | 1 << 31,
            r::CSSELR_EL1 => s.csselr_el1,
            r::CCSIDR_EL1 => f.ccsidr.get(s.csselr_el1 as usize).copied().unwrap_or(0),
            // Blocks of 64 bytes; DZP where EL0 may not.
            r::DCZID_EL0 => {
                let prohibited = s.el == 0 && s.sctlr[1] & sctlr::DZE == 0;
                4 | u64::from(prohibited) << 4
            }
            _ if pauth_key(register).is_some() => {
                let (key, half) = pauth_key(register)?;
                f.has(Extension::PAuth).then_some(s.pac_keys[key][half])?
            }
            _ if op0 == 2 => self.read_debug(register)?,
            _ if Core::is_pmu(register) => {
                let there = self.features.pmu;
                there.then(|| self.read_pmu(register))??
            }
            _ if is_gic(register) => {
                if !f.gic_registers {
                    return None;
                }
                world.read_system_register(self.index, register)?
            }
            _ => self.read_timer(register)?,
        })
    }

    fn write_permitted(&mut self, world: &dyn World, register: u16, value: u64) -> Option<Flow> {
        let has = |extension| self.features.has(extension).then_some(());
        let (pan, uao) = (has(Extension::Pan), has(Extension::Uao));
        let (dit, ssbs) = (has(Extension::Dit), has(Extension::Ssbs));
        let s = &mut self.state;
        let mut flow = Flow::Next;
        let ends = Some(Flow::Ends);
        match register {
            r::NZCV => s.nzcv = value as u32 & pstate::NZCV,
            r::TPIDR_EL0 => s.tpidr[0] = value,
            r::TPIDR_EL1 => s.tpidr[1] = value,
            r::TPIDRRO_EL0 => s.tpidrro_el0 = value,
            r::SP_EL0 if s.sp_sel => s.sp[0] = value,
            r::ELR_EL1 => s.elr[1] = value,
            r::SPSR_EL1 => s.spsr[1] = value & 0xffff_ffff,
            r::ESR_EL1 => s.esr[1] = value & 0xffff_ffff,
            r::FAR_EL1 => s.far[1] = value,
            r::AFSR0_EL1 => s.afsr0[1] = value,
            r::AFSR1_EL1 => s.afsr1[1] = value,
            r::VBAR_EL1 => s.vbar[1] = value & !0x7ff,
            r::ACTLR_EL1 => {}
            r::AMAIR_EL1 => s.amair[1] = value,
            r::PAR_EL1 => s.par_el1 = value,
            r::CONTEXTIDR_EL1 => s.contextidr[1] = value & 0xffff_ffff,
            r::CSSELR_EL1 => s.csselr_el1 = value & 0xf,
            r::FPSR => s.fpsr = value as u32 & FPSR_BITS,
            r::LORSA_EL1 | r::LOREA_EL1 | r::LORN_EL1 | r::LORC_EL1 => has(Extension::Lor)?,
            r::CNTKCTL_EL1 => s.cntkctl_el1 = value & cntkctl::KEPT,
            // The frequency of the counter is what it is; the register only reports it.
            r::CNTFRQ_EL0 => tracing::debug!(value, "CNTFRQ_EL0 keeps the counter's frequency"),
            r::DAIF => {
                s.pstate = s.pstate & !pstate::DAIF | value as u32 & pstate::DAIF;
                self.pstate_changed();
                return ends;
            }
            r::SPSEL => {
                s.select_stack(s.el, value & 1 != 0);
                self.refresh();
                return ends;
            }
            r::PAN => return self.write_flag(pan, pstate::PAN, value),
            r::UAO => return self.write_flag(uao, pstate::UAO, value),
            r::DIT => return self.write_flag(dit, pstate::DIT, value),
            r::SSBS => return self.write_flag(ssbs, pstate::SSBS, value),
            r::FPCR => {
                let half = if self.features.has(Extension::Fp16) {
                    1 << 19
                } else {
                    0
                };
                s.fpcr = value as u32 & (0x07c0_0000 | half);
                self.refresh();
                return ends;
            }
            r::SCTLR_EL1
            | r::CPACR_EL1
            | r::TTBR0_EL1
            | r::TTBR1_EL1
            | r::TCR_EL1
            | r::MAIR_EL1 => {
                self.write_control(register, value);
                return ends;
            }
            _ => flow = self.write_other(world, register, value)?,
        }
        Some(flow)
    }

    /// The groups of registers that are kept elsewhere.
    fn write_other(&mut self, world: &dyn World, register: u16, value: u64) -> Option<Flow> {
        if let Some((key, half)) = pauth_key(register) {
            if !self.features.has(Extension::PAuth) {
                return None;
            }
            self.state.pac_keys[key][half] = value;
            return Some(Flow::Next);
        }
        let done = if r::fields(register).0 == 2 {
            self.write_debug(register, value)
        } else if Core::is_pmu(register) {
            let done = self.features.pmu && self.write_pmu(register, value);
            if done {
                self.update_timers(world);
            }
            done
        } else if is_gic(register) {
            self.features.gic_registers
                && world
                    .write_system_register(self.index, register, value)
                    .is_some()
        } else {
            self.write_timer(world, register, value)
        };
        done.then_some(Flow::Ends)
    }

    /// A PSTATE field by its register; `there`: the extension that it belongs to.
    fn write_flag(&mut self, there: Option<()>, bit: u32, value: u64) -> Option<Flow> {
        there?;
        self.state.pstate = self.state.pstate & !bit | value as u32 & bit;
        self.pstate_changed();
        Some(Flow::Ends)
    }

    fn pstate_changed(&mut self) {
        self.refresh();
        self.check_interrupts();
    }

    /// Registers that translation and the block's key depend on.
    pub(crate) fn write_control(&mut self, register: u16, value: u64) {
        let f = &self.features;
        let has = |extension, bits: u64| if f.has(extension) { bits } else { 0 };
        let s = &mut self.state;
        let (slot, kept, ones) = match register {
            r::SCTLR_EL1 => {
                let pan = has(Extension::Pan, sctlr::SPAN);
                let kept = sctlr::BASE
                    | pan
                    | has(Extension::PAuth, sctlr::PAUTH)
                    | if f.ssbs != 0 { sctlr::DSSBS } else { 0 };
                (&mut s.sctlr, kept, sctlr::ONES | sctlr::SPAN & !pan)
            }
            // FPEN.
            r::CPACR_EL1 => (&mut s.cpacr, 3 << 20, 0),
            // BADDR and ASID; no CnP.
            r::TTBR0_EL1 => (&mut s.ttbr0, !1, 0),
            r::TTBR1_EL1 => (&mut s.ttbr1, !1, 0),
            r::TCR_EL1 => {
                let kept = 0x0000_0077_ffff_ffbf
                    | if f.hafdbs >= 1 { 1 << 39 } else { 0 }
                    | if f.hafdbs >= 2 { 1 << 40 } else { 0 }
                    | if f.hpds { 3 << 41 } else { 0 }
                    | has(Extension::PAuth, 3 << 51)
                    | if f.e0pd { 3 << 55 } else { 0 };
                (&mut s.tcr, kept, 0)
            }
            _ => (&mut s.mair, u64::MAX, 0),
        };
        let new = value & kept | ones;
        let old = std::mem::replace(&mut slot[1], new);
        // A switch of tables leaves cached translations as they are: ASIDs and TLBI say what holds.
        // Linux switches the controls of EL0 with tasks: of SCTLR, what translation depends on counts.
        let changed = match register {
            r::SCTLR_EL1 => (old ^ new) & sctlr::TRANSLATION,
            r::TCR_EL1 | r::MAIR_EL1 => old ^ new,
            _ => 0,
        };
        if changed != 0 {
            self.translation_epoch = self.translation_epoch.wrapping_add(1);
        }
        self.refresh();
    }

    /// MSR (immediate): `field` is op1:op2, `immediate` CRm.
    pub fn write_pstate(&mut self, field: u32, immediate: u32) -> Done {
        let (op1, op2) = (field >> 3 & 7, field & 7);
        let on = immediate & 1 != 0;
        let (bit, there) = match (op1, op2) {
            (0, 3) => (pstate::UAO, self.features.has(Extension::Uao)),
            (0, 4) => (pstate::PAN, self.features.has(Extension::Pan)),
            (0, 5) => (0, true),
            (3, 1) => (pstate::SSBS, self.features.has(Extension::Ssbs)),
            (3, 2) => (pstate::DIT, self.features.has(Extension::Dit)),
            (3, 6 | 7) => (0, true),
            _ => (0, false),
        };
        if !there || (self.state.el == 0 && op1 == 0) {
            return Err(self.undefined());
        }
        match (op1, op2) {
            (0, 5) => self.state.select_stack(self.state.el, on),
            (3, 6 | 7) => {
                if self.state.el == 0 && self.state.sctlr[1] & sctlr::UMA == 0 {
                    let encoding = r::encode(0, 3, 4, immediate as u16, op2 as u16);
                    return Err(self.system_trap(encoding, 31, false));
                }
                let bits = (immediate & 0xf) << 6;
                let p = &mut self.state.pstate;
                *p = if op2 == 6 { *p | bits } else { *p & !bits };
            }
            _ => {
                let p = &mut self.state.pstate;
                *p = *p & !bit | if on { bit } else { 0 };
            }
        }
        self.pstate_changed();
        Ok(Flow::Ends)
    }
}

/// Whether a register is one of the interrupt controller's interface to the processor.
pub fn is_gic(register: u16) -> bool {
    let (op0, op1, crn, crm, _) = r::fields(register);
    register == r::ICC_PMR_EL1 || (op0 == 3 && op1 == 0 && crn == 12 && (8..=12).contains(&crm))
}

/// Key (IA, IB, DA, DB, GA) and half of a pointer authentication key register.
fn pauth_key(register: u16) -> Option<(usize, usize)> {
    let first = r::APIAKEYLO_EL1;
    let (op0, op1, crn, crm, op2) = r::fields(register);
    let (_, _, key_crn, key_crm, _) = r::fields(first);
    if op0 != 3 || op1 != 0 || crn != key_crn || crm < key_crm || op2 > 3 {
        return None;
    }
    let key = usize::from((crm - key_crm) * 2 + op2 / 2);
    (key < 5).then_some((key, usize::from(op2 & 1)))
}

#[cfg(test)]
mod tests;
