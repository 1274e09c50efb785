//! What a processor is: its registers, plain data.

use serde::{Deserialize, Serialize};

/// The architectural state of one processor (PE), and nothing derived from it.
///
/// Arrays `[T; 4]` are indexed by exception level; EL0's entry of registers that it does not have is unused. EL2 and
/// EL3 entries stay at zero until those levels are built.
#[repr(C)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// X0 to X30, and at 31 the stack pointer in use (see [`State::select_stack`]).
    pub x: [u64; 32],
    pub pc: u64,
    /// N, Z, C, V in bits 31:28; the other bits are zero.
    pub nzcv: u32,
    /// PSTATE but for NZCV, SP and EL, as in SPSR_ELx: D, A, I, F (9:6), BTYPE, SSBS, IL, SS, PAN, UAO, DIT, TCO.
    pub pstate: u32,
    /// Current exception level.
    pub el: u8,
    /// PSTATE.SP.
    pub sp_sel: bool,
    /// The stack pointers not in use; the entry in use is stale.
    pub sp: [u64; 4],
    pub fpcr: u32,
    pub fpsr: u32,
    /// V0 to V31.
    pub v: [u128; 32],
    pub elr: [u64; 4],
    pub spsr: [u64; 4],
    pub esr: [u64; 4],
    pub far: [u64; 4],
    pub afsr0: [u64; 4],
    pub afsr1: [u64; 4],
    pub vbar: [u64; 4],
    pub sctlr: [u64; 4],
    pub actlr: [u64; 4],
    pub cpacr: [u64; 4],
    pub ttbr0: [u64; 4],
    pub ttbr1: [u64; 4],
    pub tcr: [u64; 4],
    pub mair: [u64; 4],
    pub amair: [u64; 4],
    pub contextidr: [u64; 4],
    /// TPIDR_EL0, _EL1, …
    pub tpidr: [u64; 4],
    pub tpidrro_el0: u64,
    pub par_el1: u64,
    pub csselr_el1: u64,
    pub cntkctl_el1: u64,
    /// Pointer authentication keys: IA, IB, DA, DB, GA, low and high halves.
    pub pac_keys: [[u64; 2]; 5],
    pub timers: Timers,
    pub pmu: Pmu,
    pub debug: Debug,
    /// Local exclusive monitor.
    pub monitor: Monitor,
    /// The event register of WFE.
    pub event: bool,
    /// MPIDR_EL1, fixed for the processor.
    pub mpidr: u64,
    /// Registers that a host's hypervisor has and that are nowhere above, by its numbers for them.
    #[serde(default)]
    pub host: Vec<(u64, u64)>,
}

/// Generic timers (DDI 0487, D12): control registers hold ENABLE and IMASK only; ISTATUS is computed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[repr(C)]
pub struct Timers {
    /// Virtual, physical.
    pub cntv_ctl: u64,
    pub cntv_cval: u64,
    pub cntp_ctl: u64,
    pub cntp_cval: u64,
    /// CNTVOFF_EL2.
    pub cntvoff: u64,
}

/// Performance monitors (D13).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[repr(C)]
pub struct Pmu {
    pub pmcr: u64,
    pub pmcnten: u64,
    pub pminten: u64,
    pub pmovs: u64,
    pub pmselr: u64,
    pub pmuserenr: u64,
    pub pmccfiltr: u64,
    /// PMCCNTR_EL0's value when [`Pmu::cycle_base`] was taken.
    pub pmccntr: u64,
    pub cycle_base: u64,
}

/// Self-hosted debug (D2, D13.3).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[repr(C)]
pub struct Debug {
    pub mdscr: u64,
    pub os_lock: bool,
    pub osdlr: u64,
    pub breakpoint_value: [u64; 6],
    pub breakpoint_control: [u64; 6],
    pub watchpoint_value: [u64; 4],
    pub watchpoint_control: [u64; 4],
    pub claim: u64,
}

/// The local exclusive monitor: armed memory and the value read, for compare-and-swap.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[repr(C)]
pub struct Monitor {
    pub armed: bool,
    /// Where in this process the memory is: as good as its physical address, but found faster. Elsewhere it fits nothing,
    /// and a store-exclusive fails, as it may.
    pub host_address: u64,
    /// Bytes, both halves of a pair included.
    pub bytes: u32,
    pub value: [u64; 2],
    /// Version of the granule when it was read.
    pub version: u64,
}

impl State {
    /// All zero but for `mpidr`; [`State::power_on`] is what a processor starts from.
    pub fn zero(mpidr: u64) -> State {
        State {
            x: [0; 32],
            pc: 0,
            nzcv: 0,
            pstate: 0,
            el: 0,
            sp_sel: false,
            sp: [0; 4],
            fpcr: 0,
            fpsr: 0,
            v: [0; 32],
            elr: [0; 4],
            spsr: [0; 4],
            esr: [0; 4],
            far: [0; 4],
            afsr0: [0; 4],
            afsr1: [0; 4],
            vbar: [0; 4],
            sctlr: [0; 4],
            actlr: [0; 4],
            cpacr: [0; 4],
            ttbr0: [0; 4],
            ttbr1: [0; 4],
            tcr: [0; 4],
            mair: [0; 4],
            amair: [0; 4],
            contextidr: [0; 4],
            tpidr: [0; 4],
            tpidrro_el0: 0,
            par_el1: 0,
            csselr_el1: 0,
            cntkctl_el1: 0,
            pac_keys: [[0; 2]; 5],
            timers: Timers::default(),
            pmu: Pmu::default(),
            debug: Debug::default(),
            monitor: Monitor::default(),
            event: false,
            mpidr,
            host: Vec::new(),
        }
    }

    /// Changes the exception level and PSTATE.SP, and with them the stack pointer in use.
    pub fn select_stack(&mut self, el: u8, sp_sel: bool) {
        let bank = |el: u8, sel: bool| if sel { usize::from(el & 3) } else { 0 };
        self.sp[bank(self.el, self.sp_sel)] = self.x[31];
        self.el = el;
        self.sp_sel = sp_sel;
        self.x[31] = self.sp[bank(el, sp_sel)];
    }
}
