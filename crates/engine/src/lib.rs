//! The seam between the machine and what runs guest code: Hypervisor.framework, KVM, or Dormer's own translator.
//!
//! A [`Vm`] is made for a number of processors; each [`Vcpu`] is created and run on its own thread; [`Vm`] methods that
//! take a processor's number work from any thread. What guest code does to its surroundings goes through [`World`], in
//! line, so that [`Vcpu::run`] returns only for what ends a run. Memory is found through [`World::space`]; an engine that
//! must tell its host of it does so in [`Vm::map`].

use std::fmt;
use std::sync::Arc;

pub use cpu::{CallOutcome, Clock, Features, State, World};

pub mod jit;
pub mod psci;
mod translation;

pub use translation::{Tier, Translation};

/// What a virtual machine is made of, as far as an engine is concerned.
#[derive(Clone)]
pub struct Config {
    /// MPIDR_EL1 of each processor.
    pub mpidrs: Vec<u64>,
    pub features: Arc<Features>,
    /// CNTFRQ_EL0, ticks a second, where the engine is free to choose ([`Vm::frequency`]).
    pub frequency: u64,
    /// Guest time: the counters are made of it, and stand still with it.
    pub clock: device::Clock,
    /// How code is generated, where that is the engine's work.
    pub translation: Translation,
}

/// Makes virtual machines.
pub trait Engine: Send + Sync {
    /// `jit`, `kvm` or `hvf`.
    fn name(&self) -> &'static str;
    fn create(&self, config: Config) -> Result<Arc<dyn Vm>, Error>;
}

/// Whose interrupt controller the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptController {
    /// The board's: it drives [`Vm::set_irq`] and [`Vm::set_fiq`], and answers ICC registers through [`World`].
    Ours,
    InKernel,
}

/// One virtual machine.
pub trait Vm: Send + Sync {
    fn interrupt_controller(&self) -> InterruptController;
    /// CNTFRQ_EL0 as the guest sees it.
    fn frequency(&self) -> u64;
    /// Host memory of `size` bytes at `host` becomes guest memory at `start`; it must stay valid until it is unmapped or
    /// the machine ends. What is not mapped goes to [`World::space`]; engines that find all memory there do nothing.
    fn map(&self, start: u64, size: u64, host: usize, writable: bool) -> Result<(), Error>;
    fn unmap(&self, start: u64, size: u64) -> Result<(), Error>;
    /// Processor `index`, once, on the thread that will run it; in power-on state.
    fn vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, Error>;
    /// Level of a processor's IRQ input. From any thread, at any time.
    fn set_irq(&self, cpu: u32, level: bool);
    /// Level of its FIQ input.
    fn set_fiq(&self, cpu: u32, level: bool);
    /// Makes its [`Vcpu::run`], or the next one, return [`Exit::Kicked`] soon, in WFI too.
    fn kick(&self, cpu: u32);
}

/// One processor, on its own thread.
pub trait Vcpu {
    /// Runs guest code until something ends it.
    fn run(&mut self, world: &dyn World) -> Exit;
    /// Power-on state. Interrupt inputs keep the levels they are driven to.
    fn reset(&mut self);
    /// All registers: for snapshots and debuggers. Between runs only.
    fn state(&mut self) -> Result<State, Error>;
    fn set_state(&mut self, state: &State) -> Result<(), Error>;

    /// PSCI CPU_ON: power-on state, then to `entry` with `context` in X0 (DEN 0022, 6.4).
    fn start(&mut self, entry: u64, context: u64) -> Result<(), Error> {
        self.reset();
        let mut state = self.state()?;
        state.pc = entry;
        state.x[0] = context;
        self.set_state(&state)
    }
}

/// What ends a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// [`Vm::kick`]. Running again goes on where it was.
    Kicked,
    /// [`CallOutcome::Stop`]: the call turned the processor off or ended the machine.
    Off,
    /// The engine cannot go on; what happened.
    Fault(String),
}

/// Why an engine cannot do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no processor {0}")]
    NoProcessor(u32),
    #[error("processor {0} was created before")]
    AlreadyCreated(u32),
    #[error("{0}")]
    Unavailable(String),
    #[error("the host refused: {0}")]
    Host(String),
    #[error("not a state of this processor: {0}")]
    State(String),
}

/// An accelerator and what this host says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    pub name: &'static str,
    /// Why it cannot be used here; `None` if it can.
    pub unavailable: Option<String>,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unavailable {
            None => f.write_str(self.name),
            Some(reason) => write!(f, "{} (not here: {reason})", self.name),
        }
    }
}

/// Every accelerator, best first.
pub fn accelerators() -> Vec<Accelerator> {
    vec![
        Accelerator {
            name: "hvf",
            unavailable: Some(hvf_missing()),
        },
        Accelerator {
            name: "kvm",
            unavailable: Some(kvm_missing()),
        },
        Accelerator {
            name: "jit",
            unavailable: None,
        },
    ]
}

/// The engine of that name (`tcg` is another for `jit`).
pub fn engine(name: &str) -> Result<Box<dyn Engine>, Error> {
    match name {
        "jit" | "tcg" => Ok(Box::new(jit::Jit)),
        "hvf" => Err(Error::Unavailable(hvf_missing())),
        "kvm" => Err(Error::Unavailable(kvm_missing())),
        _ => Err(Error::Unavailable(format!(
            "no accelerator is called {name}"
        ))),
    }
}

/// The best engine of this host.
pub fn best() -> Box<dyn Engine> {
    Box::new(jit::Jit)
}

fn hvf_missing() -> String {
    if cfg!(all(target_os = "macos", target_arch = "aarch64")) {
        "Hypervisor.framework is not supported by this build yet".into()
    } else {
        "Hypervisor.framework needs macOS on Apple silicon".into()
    }
}

fn kvm_missing() -> String {
    if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
        "KVM is not supported by this build yet".into()
    } else {
        "KVM needs Linux on Arm".into()
    }
}
