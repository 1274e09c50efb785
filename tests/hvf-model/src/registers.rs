//! The interpreter's registers by the framework's names.

use aarch64::registers as r;
use cpu::State;

/// SP_EL1 by EL2's name for it.
pub const SP_EL1: u16 = r::encode(3, 4, 4, 1, 0);

/// A system register that is held as it is.
pub fn place(state: &mut State, register: u16) -> Option<&mut u64> {
    Some(match register {
        r::SCTLR_EL1 => &mut state.sctlr[1],
        r::CPACR_EL1 => &mut state.cpacr[1],
        r::TTBR0_EL1 => &mut state.ttbr0[1],
        r::TTBR1_EL1 => &mut state.ttbr1[1],
        r::TCR_EL1 => &mut state.tcr[1],
        r::MAIR_EL1 => &mut state.mair[1],
        r::AMAIR_EL1 => &mut state.amair[1],
        r::VBAR_EL1 => &mut state.vbar[1],
        r::ELR_EL1 => &mut state.elr[1],
        r::SPSR_EL1 => &mut state.spsr[1],
        r::ESR_EL1 => &mut state.esr[1],
        r::FAR_EL1 => &mut state.far[1],
        r::AFSR0_EL1 => &mut state.afsr0[1],
        r::AFSR1_EL1 => &mut state.afsr1[1],
        r::PAR_EL1 => &mut state.par_el1,
        r::CONTEXTIDR_EL1 => &mut state.contextidr[1],
        r::TPIDR_EL0 => &mut state.tpidr[0],
        r::TPIDR_EL1 => &mut state.tpidr[1],
        r::TPIDRRO_EL0 => &mut state.tpidrro_el0,
        r::CSSELR_EL1 => &mut state.csselr_el1,
        r::CNTKCTL_EL1 => &mut state.cntkctl_el1,
        r::CNTV_CVAL_EL0 => &mut state.timers.cntv_cval,
        r::CNTV_CTL_EL0 => &mut state.timers.cntv_ctl,
        r::MDSCR_EL1 => &mut state.debug.mdscr,
        _ => return array(state, register),
    })
}

/// Keys, breakpoints and watchpoints.
fn array(state: &mut State, register: u16) -> Option<&mut u64> {
    let (op0, op1, crn, crm, op2) = r::fields(register);
    match (op0, op1, crn) {
        (3, 0, 2) if (1..=3).contains(&crm) && op2 < 4 => {
            let key = usize::from((crm - 1) * 2 + op2 / 2);
            state
                .pac_keys
                .get_mut(key)
                .map(|halves| &mut halves[usize::from(op2 & 1)])
        }
        (2, 0, 0) => {
            let debug = &mut state.debug;
            let n = usize::from(crm);
            match op2 {
                4 => debug.breakpoint_value.get_mut(n),
                5 => debug.breakpoint_control.get_mut(n),
                6 => debug.watchpoint_value.get_mut(n),
                7 => debug.watchpoint_control.get_mut(n),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether accesses of the register exit, debug registers apart.
pub fn trapped(register: u16) -> bool {
    let (op0, op1, crn, crm, _) = r::fields(register);
    let icc =
        register == r::ICC_PMR_EL1 || (op0, op1, crn) == (3, 0, 12) && (8..=12).contains(&crm);
    let pmu = op0 == 3 && crn == 9 && (12..=14).contains(&crm)
        || (op0, op1, crn) == (3, 3, 14) && crm >= 8;
    let physical_timer = matches!(
        register,
        r::CNTPCT_EL0 | r::CNTP_CTL_EL0 | r::CNTP_CVAL_EL0 | r::CNTP_TVAL_EL0
    );
    let regions = (op0, op1, crn, crm) == (3, 0, 10, 4);
    icc || pmu || physical_timer || regions
}
