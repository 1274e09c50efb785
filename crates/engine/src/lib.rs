//! The seam between the machine and what runs guest code: Hypervisor.framework, KVM, or Dormer's own translator.
//!
//! A [`Vm`] is made for a number of processors; each [`Vcpu`] is created and run on its own thread; [`Vm`] methods that
//! take a processor's number work from any thread. What guest code does to its surroundings goes through [`World`], in
//! line, so that [`Vcpu::run`] returns only for what ends a run. Memory is found through [`World::space`]; an engine that
//! must tell its host of it does so in [`Vm::map`].

use std::fmt;
use std::sync::Arc;

pub use cpu::{CallOutcome, Clock, Debugger, Features, State, Stop, Watch, World};

mod debugging;
pub mod hvf;
pub mod jit;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub mod kvm;
pub mod psci;
mod tracking;
mod translation;

pub use jit::Icount;
pub use translation::{Tier, Translation};
pub mod regions;

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
    /// Guest time is counted in instructions, on a counted `clock`: of `jit` only.
    pub icount: Option<Icount>,
    /// Bits of guest-physical addresses that the board's map takes, of those that the engine has
    /// ([`Engine::address_bits`]).
    pub address_bits: u32,
    /// Bytes, a power of two: guest memory starts and ends at multiples of it.
    pub granule: u64,
    /// Where the board has its interrupt controller: for engines whose host has one in its kernel.
    pub gic: GicPlan,
}

/// An interrupt controller's version and places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GicPlan {
    V2 {
        distributor: u64,
        cpu_interface: u64,
    },
    V3 {
        distributor: u64,
        /// Regions of redistributors: address, and how many there is room for.
        redistributors: Vec<(u64, u32)>,
        its: Option<u64>,
    },
}

/// Bits of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressBits {
    /// More cannot be had.
    pub most: u32,
    /// A machine that fits these runs faster; at most [`AddressBits::most`].
    pub preferred: u32,
}

/// Makes virtual machines.
pub trait Engine: Send + Sync {
    /// `jit`, `kvm` or `hvf`.
    fn name(&self) -> &'static str;
    /// How large a machine's map may be.
    fn address_bits(&self) -> AddressBits;
    fn create(&self, config: Config) -> Result<Arc<dyn Vm>, Error>;
}

/// Whose interrupt controller the guest sees.
#[derive(Clone)]
pub enum InterruptController {
    /// The board's: it drives [`Vm::set_irq`] and [`Vm::set_fiq`], and answers ICC registers through [`World`].
    Ours,
    /// The host kernel's, at the places of [`Config::gic`]. The board drives its inputs.
    InKernel(Arc<dyn KernelController>),
}

/// An interrupt controller inside the host's kernel. All methods from any thread.
pub trait KernelController: Send + Sync {
    /// Level of SPI `n`, INTID 32 + `n`.
    fn set_spi(&self, n: u32, level: bool);
    /// Level of a private interrupt that is not the engine's own (timers and performance monitors are), INTID 16 to 31.
    fn set_ppi(&self, cpu: u32, intid: u32, level: bool);
    /// A message to its ITS.
    fn message(&self, message: device::Msi);
    /// Power-on state. No processor runs meanwhile.
    fn reset(&self);
}

/// One virtual machine.
pub trait Vm: Send + Sync {
    fn interrupt_controller(&self) -> InterruptController;
    /// Whether PSCI is the engine's: its processors other than the first run from the start, and wait inside
    /// [`Vcpu::run`] to be turned on. Calls that end or reset the machine come through [`World::call`] all the same.
    fn powers_processors(&self) -> bool {
        false
    }
    /// CNTFRQ_EL0 as the guest sees it.
    fn frequency(&self) -> u64;
    /// Host memory of `size` bytes at `host` becomes guest memory at `start`; it must stay valid until it is unmapped or
    /// the machine ends. What is not mapped goes to [`World::space`]; engines that find all memory there do nothing.
    fn map(&self, start: u64, size: u64, host: usize, writable: bool) -> Result<(), Error>;
    fn unmap(&self, start: u64, size: u64) -> Result<(), Error>;
    /// Notes from now on what the processors write of a span of mapped memory, whole pages of the host; or no longer, and
    /// what was noted is forgotten. What devices write is theirs to note.
    ///
    /// # Errors
    /// The engine does not track, or not that span.
    fn track_writes(&self, start: u64, size: u64, track: bool) -> Result<(), Error> {
        let _ = (start, size);
        if track {
            return Err(Error::Unavailable(
                "this engine does not track what its guests write".into(),
            ));
        }
        Ok(())
    }
    /// What was written inside of a span since it is tracked, or since it was taken before: addresses and bytes, ascending,
    /// in whole pages of the host. From here on it is noted anew.
    fn take_writes(&self, start: u64, size: u64) -> Result<Vec<(u64, u64)>, Error> {
        let _ = (start, size);
        Ok(Vec::new())
    }
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

    /// Has runs end with [`Exit::Debug`] where the debugger wants it, in the place of what was wanted before; a reset
    /// leaves that alone.
    ///
    /// # Errors
    /// The engine has no debugging, or not that much of it.
    fn debug(&mut self, wanted: &Debugger) -> Result<(), Error> {
        if wanted.is_active() {
            return Err(Error::Unavailable(
                "this engine does not debug its guests".into(),
            ));
        }
        Ok(())
    }

    /// What the engine has done for this processor so far, in lines for people; `None` if it keeps no count. Between runs
    /// only.
    fn report(&mut self) -> Option<String> {
        None
    }

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
    /// What [`Vcpu::debug`] asked for.
    Debug(Stop),
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
            unavailable: hvf_missing(),
        },
        Accelerator {
            name: "kvm",
            unavailable: kvm_missing(),
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
        "hvf" => hvf_engine(),
        "kvm" => kvm_engine(),
        _ => Err(Error::Unavailable(format!(
            "no accelerator is called {name}"
        ))),
    }
}

/// The best engine of this host.
pub fn best() -> Box<dyn Engine> {
    accelerators()
        .iter()
        .filter(|accelerator| accelerator.unavailable.is_none())
        .find_map(|accelerator| engine(accelerator.name).ok())
        .unwrap_or_else(|| Box::new(jit::Jit))
}

#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
fn hvf_missing() -> Option<String> {
    hvf::apple::missing()
}

#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
fn hvf_engine() -> Result<Box<dyn Engine>, Error> {
    match hvf_missing() {
        Some(reason) => Err(Error::Unavailable(reason)),
        None => Ok(Box::new(hvf::Hvf::new(Arc::new(hvf::apple::Apple::new()?)))),
    }
}

#[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
fn hvf_missing() -> Option<String> {
    Some("Hypervisor.framework needs macOS on Apple silicon".into())
}

#[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
fn hvf_engine() -> Result<Box<dyn Engine>, Error> {
    Err(Error::Unavailable(hvf_missing().unwrap_or_default()))
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn kvm_missing() -> Option<String> {
    kvm::missing()
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn kvm_engine() -> Result<Box<dyn Engine>, Error> {
    match kvm_missing() {
        Some(reason) => Err(Error::Unavailable(reason)),
        None => Ok(Box::new(kvm::KvmEngine)),
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn kvm_missing() -> Option<String> {
    Some("KVM needs Linux on Arm".into())
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn kvm_engine() -> Result<Box<dyn Engine>, Error> {
    Err(Error::Unavailable(kvm_missing().unwrap_or_default()))
}
