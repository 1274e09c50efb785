//! A vCPU's registers: between the framework and [`State`].

use aarch64::registers as r;
use cpu::State;
use cpu::exception::pstate;

use super::framework::{Framework, Handle, Refusal, reg};

/// Where a register is in a [`State`].
type Place = fn(&mut State) -> &mut u64;
/// What a register's value is, by a [`State`].
type Value = fn(&State) -> u64;

/// Registers that the hardware holds, and where [`State`] has them. Stack pointers and PSTATE are apart.
const SYSTEM: &[(u16, Place)] = &[
    (r::SCTLR_EL1, |s| &mut s.sctlr[1]),
    (r::CPACR_EL1, |s| &mut s.cpacr[1]),
    (r::TTBR0_EL1, |s| &mut s.ttbr0[1]),
    (r::TTBR1_EL1, |s| &mut s.ttbr1[1]),
    (r::TCR_EL1, |s| &mut s.tcr[1]),
    (r::MAIR_EL1, |s| &mut s.mair[1]),
    (r::AMAIR_EL1, |s| &mut s.amair[1]),
    (r::VBAR_EL1, |s| &mut s.vbar[1]),
    (r::ELR_EL1, |s| &mut s.elr[1]),
    (r::SPSR_EL1, |s| &mut s.spsr[1]),
    (r::ESR_EL1, |s| &mut s.esr[1]),
    (r::FAR_EL1, |s| &mut s.far[1]),
    (r::AFSR0_EL1, |s| &mut s.afsr0[1]),
    (r::AFSR1_EL1, |s| &mut s.afsr1[1]),
    (r::PAR_EL1, |s| &mut s.par_el1),
    (r::CONTEXTIDR_EL1, |s| &mut s.contextidr[1]),
    (r::TPIDR_EL0, |s| &mut s.tpidr[0]),
    (r::TPIDR_EL1, |s| &mut s.tpidr[1]),
    (r::TPIDRRO_EL0, |s| &mut s.tpidrro_el0),
    (r::CSSELR_EL1, |s| &mut s.csselr_el1),
    (r::CNTKCTL_EL1, |s| &mut s.cntkctl_el1),
    (r::APIAKEYLO_EL1, |s| &mut s.pac_keys[0][0]),
    (r::APIAKEYHI_EL1, |s| &mut s.pac_keys[0][1]),
    (r::APIBKEYLO_EL1, |s| &mut s.pac_keys[1][0]),
    (r::APIBKEYHI_EL1, |s| &mut s.pac_keys[1][1]),
    (r::APDAKEYLO_EL1, |s| &mut s.pac_keys[2][0]),
    (r::APDAKEYHI_EL1, |s| &mut s.pac_keys[2][1]),
    (r::APDBKEYLO_EL1, |s| &mut s.pac_keys[3][0]),
    (r::APDBKEYHI_EL1, |s| &mut s.pac_keys[3][1]),
    (r::APGAKEYLO_EL1, |s| &mut s.pac_keys[4][0]),
    (r::APGAKEYHI_EL1, |s| &mut s.pac_keys[4][1]),
    (r::CNTV_CVAL_EL0, |s| &mut s.timers.cntv_cval),
    (r::CNTV_CTL_EL0, |s| &mut s.timers.cntv_ctl),
];

/// `hv_sys_reg_t` of the stack pointers: SP_EL0, and SP_EL1 by EL2's name for it.
const STACKS: [u16; 2] = [r::SP_EL0, r::encode(3, 4, 4, 1, 0)];

/// CNTV_CTL_EL0: ENABLE and IMASK; ISTATUS is computed.
const TIMER_CONTROL: u64 = 3;

/// PSTATE as the framework's CPSR has it.
pub fn cpsr(state: &State) -> u64 {
    u64::from(state.nzcv | state.pstate) | u64::from(state.el & 3) << 2 | u64::from(state.sp_sel)
}

/// Sets PSTATE, the stack pointers apart.
pub fn set_cpsr(state: &mut State, cpsr: u64) {
    let cpsr = cpsr as u32;
    state.nzcv = cpsr & pstate::NZCV;
    state.pstate = cpsr & !pstate::NZCV & !0x1f;
    state.el = (cpsr >> 2 & 3) as u8;
    state.sp_sel = cpsr & 1 != 0;
}

/// Takes what the hardware holds into `state`. What only we hold (performance monitors, the physical timer, debug
/// registers, MPIDR) stays.
pub fn load(f: &dyn Framework, vcpu: Handle, state: &mut State) -> Result<(), Refusal> {
    for n in 0..31 {
        state.x[n as usize] = f.get_reg(vcpu, reg::X0 + n)?;
    }
    state.pc = f.get_reg(vcpu, reg::PC)?;
    state.fpcr = f.get_reg(vcpu, reg::FPCR)? as u32;
    state.fpsr = f.get_reg(vcpu, reg::FPSR)? as u32;
    set_cpsr(state, f.get_reg(vcpu, reg::CPSR)?);
    for n in 0..32 {
        state.v[n as usize] = f.get_simd_fp_reg(vcpu, n)?;
    }
    for (register, place) in SYSTEM {
        *place(state) = f.get_sys_reg(vcpu, *register)?;
    }
    state.timers.cntv_ctl &= TIMER_CONTROL;
    for (el, register) in STACKS.into_iter().enumerate() {
        state.sp[el] = f.get_sys_reg(vcpu, register)?;
    }
    state.x[31] = state.sp[stack(state)];
    Ok(())
}

/// The stack pointer in use.
fn stack(state: &State) -> usize {
    if state.sp_sel {
        usize::from(state.el & 1)
    } else {
        0
    }
}

/// Gives `state` to the hardware: all, or what differs from `before`.
pub fn store(
    f: &dyn Framework,
    vcpu: Handle,
    state: &State,
    before: Option<&State>,
) -> Result<(), Refusal> {
    let mut new = state.clone();
    new.sp[stack(state)] = state.x[31];
    let mut old = before.cloned();
    if let Some(old) = &mut old {
        old.sp[stack(old)] = old.x[31];
    }
    for n in 0..31u32 {
        let value = new.x[n as usize];
        if old.as_ref().is_none_or(|old| old.x[n as usize] != value) {
            f.set_reg(vcpu, reg::X0 + n, value)?;
        }
    }
    let plain: [(u32, Value); 4] = [
        (reg::PC, |s| s.pc),
        (reg::FPCR, |s| s.fpcr.into()),
        (reg::FPSR, |s| s.fpsr.into()),
        (reg::CPSR, cpsr),
    ];
    for (register, value) in plain {
        if old.as_ref().is_none_or(|old| value(old) != value(&new)) {
            f.set_reg(vcpu, register, value(&new))?;
        }
    }
    for n in 0..32u32 {
        let value = new.v[n as usize];
        if old.as_ref().is_none_or(|old| old.v[n as usize] != value) {
            f.set_simd_fp_reg(vcpu, n, value)?;
        }
    }
    for (register, place) in SYSTEM {
        let value = *place(&mut new);
        if old.as_mut().is_none_or(|old| *place(old) != value) {
            f.set_sys_reg(vcpu, *register, value)?;
        }
    }
    for (el, register) in STACKS.into_iter().enumerate() {
        if old.as_ref().is_none_or(|old| old.sp[el] != new.sp[el]) {
            f.set_sys_reg(vcpu, register, new.sp[el])?;
        }
    }
    Ok(())
}

/// Gives breakpoints, watchpoints and steps to the hardware, which does what they say.
pub fn store_debug(f: &dyn Framework, vcpu: Handle, d: &cpu::Debug) -> Result<(), Refusal> {
    let sets = [
        (r::DBGBVR0_EL1, &d.breakpoint_value[..]),
        (r::DBGBCR0_EL1, &d.breakpoint_control[..]),
        (r::DBGWVR0_EL1, &d.watchpoint_value[..]),
        (r::DBGWCR0_EL1, &d.watchpoint_control[..]),
    ];
    for (first, values) in sets {
        for (n, value) in values.iter().enumerate() {
            f.set_sys_reg(vcpu, first + (n as u16) * 8, *value)?;
        }
    }
    f.set_sys_reg(vcpu, r::MDSCR_EL1, if d.os_lock { 0 } else { d.mdscr })
}
