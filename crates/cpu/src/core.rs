//! One processor: its state, what it implements, and the ways by which others reach it.
//!
//! Rules for whoever executes instructions on a [`Core`]:
//!
//! - `state.pc` is the address of the current instruction whenever a method is called; methods that end it (exceptions,
//!   ERET, HVC) leave `state.pc` where execution goes on. Methods that return [`Flow`] leave the PC alone: the caller
//!   advances it by 4 and, for `Ends`, looks at [`Core::key`] and [`Core::translation_epoch`] again and polls.
//! - `Err(Taken)`: an exception was taken; the PC is at its vector.
//! - `run` calls [`Core::enter`] first and [`Core::leave`] last; in between, wherever a block ends and
//!   `signals.pending` is not zero, [`Core::service`].

use std::sync::Arc;

use aarch64::Extension;

use crate::debugger::{Debugger, Stop};
use crate::emit::{Flow, Key};
use crate::exception::pstate;
use crate::features::Features;
use crate::hypervisor::{Event, Hypervisor};
use crate::interpreter::granules::Granules;
use crate::signals::Signals;
use crate::state::State;

/// An exception was taken in the middle of an instruction: the state is at the handler's first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken;

/// What a system operation returns.
pub type Done = Result<Flow, Taken>;

/// Why a processor's run loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// [`Signals::kick`] was called. Running again goes on where it was.
    Kicked,
    /// A call (PSCI) turned the processor off, or ended the machine.
    Off,
    /// What the [`Debugger`] wants to see.
    Debug(Stop),
}

/// What a processor that does not wait would wait for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    No,
    /// WFE, and YIELD: it lets others go first.
    Event,
    /// WFI and CPU_SUSPEND.
    Interrupt,
}

/// The guest's time, for the generic timers and the cycle counter.
pub trait Clock: Send + Sync {
    /// Nanoseconds of guest time.
    fn now(&self) -> u64;
    /// Calls [`Signals::raise`] with [`crate::signals::attention::TIMER`] on processor `cpu` once guest time reaches
    /// `deadline` (nanoseconds), in the place of an earlier setting.
    fn arm(&self, cpu: u32, deadline: u64);
}

/// What all processors of a machine share.
pub struct Shared {
    processors: Vec<Arc<Signals>>,
    /// The guest's time.
    pub clock: Arc<dyn Clock>,
    /// CNTFRQ_EL0: counter ticks a second.
    pub frequency: u64,
    /// For exclusives.
    pub(crate) granules: Granules,
}

impl Shared {
    /// For `cpus` processors.
    pub fn new(cpus: u32, clock: Arc<dyn Clock>, frequency: u64) -> Shared {
        let processors = (0..cpus).map(|_| Arc::default()).collect();
        Shared {
            processors,
            clock,
            frequency: frequency.max(1),
            granules: Granules::default(),
        }
    }

    /// The mailbox of each processor.
    pub fn processors(&self) -> &[Arc<Signals>] {
        &self.processors
    }

    /// The physical counter: ticks of [`Shared::frequency`].
    pub fn counter(&self) -> u64 {
        (u128::from(self.clock.now()) * u128::from(self.frequency) / 1_000_000_000) as u64
    }
}

/// One processor (PE).
pub struct Core {
    pub state: State,
    pub features: Arc<Features>,
    /// Its number, 0 for the first.
    pub index: u32,
    /// Its mailbox, the same as `shared.processors()[index]`.
    pub signals: Arc<Signals>,
    pub shared: Arc<Shared>,
    pub(crate) key: Key,
    /// Counts changes of translation controls (SCTLR, TCR, MAIR) that cached translations depend on beyond ASID and
    /// regime: a cache filled at another value is stale.
    pub translation_epoch: u64,
    /// Tickets of shoot-downs that the next DSB waits for, by processor; 0 for none.
    pub(crate) waits: Vec<u64>,
    pub(crate) has_waits: bool,
    /// Why the run loop is to end, with `attention::LEAVE`.
    pub(crate) exit: Option<Exit>,
    /// In CPU_SUSPEND: waits for an interrupt before anything else.
    pub(crate) suspended: bool,
    /// How often WFI looks before it sleeps.
    pub(crate) spins: u32,
    /// It does not wait at all.
    pub(crate) impatient: bool,
    /// No other processor executes during its runs, and its exclusive monitor does not outlive its turn: exclusives do not
    /// look at what happens elsewhere in the process.
    pub(crate) alone: bool,
    /// What it would wait for, if it is impatient.
    pub(crate) idle: Idle,
    /// Debug exceptions may come: the run loop calls [`Core::before_instruction`] and the other hooks around each
    /// instruction. Follows [`Core::key`].
    pub debugging: bool,
    /// The current instruction is being stepped.
    pub(crate) stepping: bool,
    /// The instruction before was stepped (SoftwareStep_DidNotStep is false).
    pub(crate) stepped: bool,
    /// Levels last reported of the virtual and physical timer and the performance monitors.
    pub(crate) reported: [Option<bool>; 3],
    /// What the clock was last armed for.
    pub(crate) armed: Option<u64>,
    pub(crate) debugger: Debugger,
    /// It has seen the instruction before.
    pub(crate) debugger_stepped: bool,
    /// MDCR_EL2.TDE, for models of what is beneath: debug exceptions are for EL2, and enabled wherever the guest is.
    pub debug_beneath: bool,
    /// A model of what is beneath the guest, if there is one.
    pub hypervisor: Option<Arc<dyn Hypervisor>>,
}

impl Core {
    /// Processor `index` of the machine, at power-on.
    pub fn new(index: u32, mpidr: u64, features: Arc<Features>, shared: Arc<Shared>) -> Core {
        let signals = shared.processors()[index as usize].clone();
        let waits = vec![0; shared.processors().len()];
        let mut core = Core {
            state: State::power_on(mpidr),
            features,
            index,
            signals,
            shared,
            key: Key {
                el: 1,
                sp_sel: true,
                fp_enabled: false,
                fpcr: 0,
                align_check: false,
                sp_align_check: false,
                uao: false,
                pac: [false; 4],
                btype: 0,
                extensions: Default::default(),
            },
            translation_epoch: 0,
            waits,
            has_waits: false,
            exit: None,
            suspended: false,
            spins: crate::service::SPINS,
            impatient: false,
            alone: false,
            idle: Idle::No,
            debugging: false,
            stepping: false,
            stepped: false,
            reported: [None; 3],
            armed: None,
            debugger: Debugger::default(),
            debugger_stepped: false,
            debug_beneath: false,
            hypervisor: None,
        };
        core.refresh();
        core
    }

    /// Tells the hypervisor, which may end the run here.
    pub(crate) fn beneath(&self, event: Event) {
        if let Some(hypervisor) = &self.hypervisor {
            hypervisor.event(event);
        }
    }

    /// What is known of the surroundings of the next instruction.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl State {
    /// What a processor starts from: EL1h, all interrupts masked, MMU and caches off (DDI 0487, D1.9).
    pub fn power_on(mpidr: u64) -> State {
        let mut state = State::zero(mpidr);
        state.el = 1;
        state.sp_sel = true;
        state.pstate = pstate::DAIF;
        // RES1 bits; SPAN is 1 at reset and, without PAN, always.
        state.sctlr[1] = 0x30d0_0980;
        state.debug.os_lock = true;
        state
    }
}

impl Core {
    /// Recomputes all that is derived from `state` and `signals`: after either was changed from outside of the methods here.
    pub fn refresh(&mut self) {
        let s = &self.state;
        let el0 = s.el == 0;
        let sctlr = s.sctlr[1];
        let fpen = s.cpacr[1] >> 20 & 3;
        let pac = |bit: u32| self.features.has(Extension::PAuth) && sctlr >> bit & 1 != 0;
        self.key = Key {
            el: s.el,
            sp_sel: s.sp_sel,
            fp_enabled: fpen == 3 || (fpen == 1 && !el0),
            fpcr: s.fpcr,
            align_check: sctlr & 1 << 1 != 0,
            sp_align_check: sctlr & if el0 { 1 << 4 } else { 1 << 3 } != 0,
            uao: s.pstate & 1 << 23 != 0,
            pac: [pac(31), pac(30), pac(27), pac(13)],
            btype: 0,
            extensions: self.features.extensions,
        };
        self.refresh_debug();
    }

    /// Power-on state. Interrupt lines keep the levels they are driven to; what was under way is dropped.
    pub fn reset(&mut self) {
        self.set_state(State::power_on(self.state.mpidr));
    }

    /// Puts another state in the place of this, between runs.
    pub fn set_state(&mut self, state: State) {
        self.state = state;
        self.exit = None;
        self.suspended = false;
        self.idle = Idle::No;
        self.stepping = false;
        self.stepped = false;
        self.debugger_stepped = false;
        self.waits.fill(0);
        self.has_waits = false;
        self.translation_epoch = self.translation_epoch.wrapping_add(1);
        self.forget_reports();
        self.refresh();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A clock that stands where it was put.
    #[derive(Default)]
    pub(crate) struct Still {
        pub(crate) now: AtomicU64,
        pub(crate) armed: AtomicU64,
    }

    impl Clock for Still {
        fn now(&self) -> u64 {
            self.now.load(Ordering::SeqCst)
        }

        fn arm(&self, _: u32, deadline: u64) {
            self.armed.store(deadline, Ordering::SeqCst);
        }
    }

    /// The first of two processors of that model.
    pub(crate) fn core(model: &str) -> Core {
        still(model).0
    }

    /// The same, and its clock.
    pub(crate) fn still(model: &str) -> (Core, Arc<Still>) {
        let features = Arc::new(Features::model(model).unwrap());
        let clock = Arc::new(Still::default());
        let shared = Arc::new(Shared::new(2, clock.clone(), 62_500_000));
        (Core::new(0, 1 << 31, features, shared), clock)
    }
}
