//! A vCPU's registers: between KVM_GET_ONE_REG and [`State`] (api.rst, "KVM_SET_ONE_REG", arm64).

use aarch64::registers as r;
use cpu::State;
use cpu::exception::pstate;
use kvm_bindings as k;
use kvm_ioctls::VcpuFd;

use super::host;
use crate::Error;

const ARM64: u64 = 0x6000_0000_0000_0000;
const U32: u64 = 2 << 52;
const U64: u64 = 3 << 52;
const U128: u64 = 4 << 52;
const CORE: u64 = 0x10 << 16;
const SYSREG: u64 = 0x13 << 16;

/// A field of `struct kvm_regs` by its offset in bytes.
const fn core(size: u64, offset: u64) -> u64 {
    ARM64 | size | CORE | (offset / 4)
}

const fn system(register: u16) -> u64 {
    ARM64 | U64 | SYSREG | register as u64
}

/// `struct kvm_regs`: `user_pt_regs`, SP_EL1, ELR_EL1, SPSRs, `user_fpsimd_state`.
mod at {
    pub const SP_EL0: u64 = 31 * 8;
    pub const PC: u64 = 32 * 8;
    pub const PSTATE: u64 = 33 * 8;
    pub const SP_EL1: u64 = 34 * 8;
    pub const ELR_EL1: u64 = 35 * 8;
    pub const SPSR_EL1: u64 = 36 * 8;
    /// On the next multiple of 16 after five SPSRs.
    pub const V0: u64 = 336;
    pub const FPSR: u64 = V0 + 32 * 16;
    pub const FPCR: u64 = FPSR + 4;
}

/// The counter and the compare value go by each other's encodings (api.rst): it cannot be changed any more.
pub const TIMER_CNT: u64 = system(r::encode(3, 3, 14, 3, 2));
const TIMER_CVAL: u64 = system(r::encode(3, 3, 14, 0, 2));
const TIMER_CTL: u64 = system(r::CNTV_CTL_EL0);
/// The physical counter, which goes with the host's time as the virtual one does.
const PHYSICAL_CNT: u64 = system(r::CNTPCT_EL0);
const MPIDR: u64 = system(r::MPIDR_EL1);
pub const MDSCR: u64 = system(r::MDSCR_EL1);
pub const SPSR: u64 = core(U64, at::SPSR_EL1);

/// Where a register is in a [`State`].
type Place = fn(&mut State) -> &mut u64;
/// What a register's value is, by a [`State`].
type Value<'a> = &'a dyn Fn(&State) -> u64;

const SYSTEM: &[(u64, Place)] = &[
    (system(r::SCTLR_EL1), |s| &mut s.sctlr[1]),
    (system(r::CPACR_EL1), |s| &mut s.cpacr[1]),
    (system(r::TTBR0_EL1), |s| &mut s.ttbr0[1]),
    (system(r::TTBR1_EL1), |s| &mut s.ttbr1[1]),
    (system(r::TCR_EL1), |s| &mut s.tcr[1]),
    (system(r::MAIR_EL1), |s| &mut s.mair[1]),
    (system(r::AMAIR_EL1), |s| &mut s.amair[1]),
    (system(r::VBAR_EL1), |s| &mut s.vbar[1]),
    (system(r::ESR_EL1), |s| &mut s.esr[1]),
    (system(r::FAR_EL1), |s| &mut s.far[1]),
    (system(r::AFSR0_EL1), |s| &mut s.afsr0[1]),
    (system(r::AFSR1_EL1), |s| &mut s.afsr1[1]),
    (system(r::PAR_EL1), |s| &mut s.par_el1),
    (system(r::CONTEXTIDR_EL1), |s| &mut s.contextidr[1]),
    (system(r::TPIDR_EL0), |s| &mut s.tpidr[0]),
    (system(r::TPIDR_EL1), |s| &mut s.tpidr[1]),
    (system(r::TPIDRRO_EL0), |s| &mut s.tpidrro_el0),
    (system(r::CSSELR_EL1), |s| &mut s.csselr_el1),
    (system(r::CNTKCTL_EL1), |s| &mut s.cntkctl_el1),
    (TIMER_CVAL, |s| &mut s.timers.cntv_cval),
    (TIMER_CTL, |s| &mut s.timers.cntv_ctl),
    (core(U64, at::ELR_EL1), |s| &mut s.elr[1]),
    (SPSR, |s| &mut s.spsr[1]),
];

/// What not every vCPU has. The instructions that the shadow completes need none of it.
const OPTIONAL: &[(u64, Place)] = &[
    (system(r::APIAKEYLO_EL1), |s| &mut s.pac_keys[0][0]),
    (system(r::APIAKEYHI_EL1), |s| &mut s.pac_keys[0][1]),
    (system(r::APIBKEYLO_EL1), |s| &mut s.pac_keys[1][0]),
    (system(r::APIBKEYHI_EL1), |s| &mut s.pac_keys[1][1]),
    (system(r::APDAKEYLO_EL1), |s| &mut s.pac_keys[2][0]),
    (system(r::APDAKEYHI_EL1), |s| &mut s.pac_keys[2][1]),
    (system(r::APDBKEYLO_EL1), |s| &mut s.pac_keys[3][0]),
    (system(r::APDBKEYHI_EL1), |s| &mut s.pac_keys[3][1]),
    (system(r::APGAKEYLO_EL1), |s| &mut s.pac_keys[4][0]),
    (system(r::APGAKEYHI_EL1), |s| &mut s.pac_keys[4][1]),
    (system(r::CNTP_CVAL_EL0), |s| &mut s.timers.cntp_cval),
    (system(r::CNTP_CTL_EL0), |s| &mut s.timers.cntp_ctl),
    (MDSCR, |s| &mut s.debug.mdscr),
];

/// Breakpoints and watchpoints: the first of each kind, eight encodings apart, and where they are in a [`State`].
type Places = fn(&mut State) -> &mut [u64];
const DEBUG: [(u16, Places); 4] = [
    (r::DBGBVR0_EL1, |s| &mut s.debug.breakpoint_value),
    (r::DBGBCR0_EL1, |s| &mut s.debug.breakpoint_control),
    (r::DBGWVR0_EL1, |s| &mut s.debug.watchpoint_value),
    (r::DBGWCR0_EL1, |s| &mut s.debug.watchpoint_control),
];

pub fn get(vcpu: &VcpuFd, id: u64) -> Result<u128, Error> {
    let mut bytes = [0; 16];
    let size = kvm_ioctls::reg_size(id).min(16);
    vcpu.get_one_reg(id, &mut bytes[..size])
        .map_err(host("KVM_GET_ONE_REG"))?;
    Ok(u128::from_le_bytes(bytes))
}

pub fn set(vcpu: &VcpuFd, id: u64, value: u128) -> Result<(), Error> {
    let size = kvm_ioctls::reg_size(id).min(16);
    vcpu.set_one_reg(id, &value.to_le_bytes()[..size])
        .map_err(host("KVM_SET_ONE_REG"))?;
    Ok(())
}

/// MPIDR_EL1, if it is not what the kernel makes of the vCPU's number.
pub fn set_mpidr(vcpu: &VcpuFd, mpidr: u64) -> Result<(), Error> {
    let wanted = u128::from(mpidr | 1 << 31);
    if get(vcpu, MPIDR)? == wanted {
        return Ok(());
    }
    set(vcpu, MPIDR, wanted)
}

/// Where the processor starts.
pub fn start(vcpu: &VcpuFd, entry: u64, x0: u64) -> Result<(), Error> {
    set(vcpu, core(U64, 0), x0.into())?;
    set(vcpu, core(U64, at::PC), entry.into())
}

/// PSTATE.
pub const PSTATE: u64 = core(U64, at::PSTATE);

/// The stack pointer in use.
fn stack(state: &State) -> usize {
    usize::from(state.sp_sel) * usize::from(state.el & 1)
}

/// The registers that a vCPU has (api.rst, "KVM_GET_REG_LIST").
pub struct List {
    all: Vec<u64>,
    /// Those that have no place in a [`State`]: performance monitors, identification, firmware's, what is new.
    others: Vec<u64>,
}

impl List {
    pub fn read(vcpu: &VcpuFd) -> Result<List, Error> {
        // More than any kernel has, and as many as the bindings can hold.
        const MOST: usize = 500;
        let mut list = k::RegList::new(MOST)
            .map_err(|error| Error::Host(format!("KVM_GET_REG_LIST: {error:?}")))?;
        vcpu.get_reg_list(&mut list)
            .map_err(host("KVM_GET_REG_LIST"))?;
        let all = list.as_slice().to_vec();
        let has_place = |id: u64| {
            let debug = DEBUG.iter().flat_map(|(first, places)| {
                let count = places(&mut State::zero(0)).len();
                (0..count).map(move |n| system(first + n as u16 * 8))
            });
            let known = SYSTEM.iter().chain(OPTIONAL).map(|(known, _)| *known);
            known.chain(debug).any(|known| known == id)
                || [TIMER_CNT, PHYSICAL_CNT, MPIDR].contains(&id)
                || id & 0x0fff_0000 == CORE
        };
        let others = all.iter().copied().filter(|id| !has_place(*id)).collect();
        Ok(List { all, others })
    }

    /// Does something with each register that has a place in a [`State`] but is not in every vCPU.
    fn each_optional(
        &self,
        state: &mut State,
        mut act: impl FnMut(u64, &mut u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (id, place) in OPTIONAL {
            if self.all.contains(id) {
                act(*id, place(state))?;
            }
        }
        for (first, places) in DEBUG {
            for (n, value) in (0u16..).zip(places(state)) {
                let id = system(first + n * 8);
                if self.all.contains(&id) {
                    act(id, value)?;
                }
            }
        }
        Ok(())
    }

    /// Takes everything that the kernel holds.
    pub fn load_all(&self, vcpu: &VcpuFd, state: &mut State) -> Result<(), Error> {
        load(vcpu, state)?;
        self.each_optional(state, |id, value| {
            *value = get(vcpu, id)? as u64;
            Ok(())
        })?;
        state.timers.cntp_ctl &= 3;
        let value = |id: &u64| Ok((*id, get(vcpu, *id)? as u64));
        state.host = self.others.iter().map(value).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Gives everything to the kernel. What is not there of the others is as it is at power-on.
    ///
    /// # Errors
    /// The host does not have a register, or not with that value.
    pub fn store_all(&self, vcpu: &VcpuFd, state: &State) -> Result<(), Error> {
        // Many of them are fixed, and only taken as they are.
        for &(id, value) in &state.host {
            let refused = |what: &dyn std::fmt::Display| {
                Error::State(format!(
                    "this host's KVM does not take {value:#x} for its register {id:#x}: {what}"
                ))
            };
            if !self.others.contains(&id) {
                return Err(refused(&"it has none of that number"));
            }
            if get(vcpu, id)? as u64 != value {
                set(vcpu, id, value.into()).map_err(|error| refused(&error))?;
            }
        }
        self.each_optional(&mut state.clone(), |id, value| {
            set(vcpu, id, (*value).into())
        })?;
        store(vcpu, state, None)
    }
}

/// Takes what the shadow needs of what the kernel holds into `state`.
pub fn load(vcpu: &VcpuFd, state: &mut State) -> Result<(), Error> {
    let get64 = |id: u64| get(vcpu, id).map(|value| value as u64);
    for n in 0..31 {
        state.x[n as usize] = get64(core(U64, n * 8))?;
    }
    state.pc = get64(core(U64, at::PC))?;
    let p = get64(core(U64, at::PSTATE))? as u32;
    state.nzcv = p & pstate::NZCV;
    state.pstate = p & !pstate::NZCV & !0x1f;
    state.el = (p >> 2 & 3) as u8;
    state.sp_sel = p & 1 != 0;
    state.sp[0] = get64(core(U64, at::SP_EL0))?;
    state.sp[1] = get64(core(U64, at::SP_EL1))?;
    state.x[31] = state.sp[stack(state)];
    state.fpsr = get64(core(U32, at::FPSR))? as u32;
    state.fpcr = get64(core(U32, at::FPCR))? as u32;
    for n in 0..32 {
        state.v[n as usize] = get(vcpu, core(U128, at::V0 + n * 16))?;
    }
    for (id, place) in SYSTEM {
        *place(state) = get64(*id)?;
    }
    state.timers.cntv_ctl &= 3;
    Ok(())
}

/// Gives `state` to the kernel: all, or what differs from `before`.
pub fn store(vcpu: &VcpuFd, state: &State, before: Option<&State>) -> Result<(), Error> {
    let p =
        |s: &State| u64::from(s.nzcv | s.pstate) | u64::from(s.el & 3) << 2 | u64::from(s.sp_sel);
    let with_stack = |s: &State| {
        let mut s = s.clone();
        let used = stack(&s);
        s.sp[used] = s.x[31];
        s
    };
    let mut new = with_stack(state);
    let mut old = before.map(with_stack);
    let put = |id: u64, value: u128, old: Option<u128>| match old {
        Some(old) if old == value => Ok(()),
        _ => set(vcpu, id, value),
    };
    let was = |value: Value<'_>| old.as_ref().map(|s| u128::from(value(s)));
    for n in 0..31usize {
        let old = was(&|s| s.x[n]);
        put(core(U64, n as u64 * 8), new.x[n].into(), old)?;
    }
    let plain: [(u64, Value<'_>); 6] = [
        (core(U64, at::PC), &|s| s.pc),
        (core(U64, at::PSTATE), &p),
        (core(U64, at::SP_EL0), &|s| s.sp[0]),
        (core(U64, at::SP_EL1), &|s| s.sp[1]),
        (core(U32, at::FPSR), &|s| s.fpsr.into()),
        (core(U32, at::FPCR), &|s| s.fpcr.into()),
    ];
    for (id, value) in plain {
        put(id, value(&new).into(), was(value))?;
    }
    for n in 0..32usize {
        let old = old.as_ref().map(|s| s.v[n]);
        put(core(U128, at::V0 + n as u64 * 16), new.v[n], old)?;
    }
    for (id, place) in SYSTEM {
        let was = old.as_mut().map(|old| u128::from(*place(old)));
        put(*id, (*place(&mut new)).into(), was)?;
    }
    Ok(())
}
