//! Power states of the processors, by PSCI 1.1 (DEN 0022) and SMCCC 1.1 (DEN 0028).

use cpu::CallOutcome;

/// What the guest wants of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemRequest {
    /// SYSTEM_OFF.
    Off,
    /// SYSTEM_RESET and SYSTEM_RESET2.
    Reset,
}

/// What a processor's thread is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start ([`crate::Vcpu::start`]), then run.
    Start { entry: u64, context: u64 },
    /// [`Psci::interrupt`] was called: look at what the board wants.
    Interrupted,
}

/// The power state of every processor. All methods from any thread.
pub struct Psci {}

impl Psci {
    /// For processors with those MPIDR values. `request` is called, on the calling processor's thread, when the guest
    /// ends or resets the machine; it must not wait for processors.
    pub fn new(mpidrs: &[u64], request: impl Fn(SystemRequest) + Send + Sync + 'static) -> Psci {
        let _ = (mpidrs, request);
        Psci {}
    }

    /// HVC or SMC of processor `cpu`: what [`cpu::World::call`] does.
    pub fn call(&self, cpu: u32, x: &mut [u64; 18]) -> CallOutcome {
        let _ = cpu;
        x[0] = u64::MAX;
        CallOutcome::Resume
    }

    /// Every processor off but the first, which starts at once: machine power-on and reset. `entry` and `context` (X0)
    /// are the first's. No processor runs meanwhile.
    pub fn reset(&self, entry: u64, context: u64) {
        let _ = (entry, context);
    }

    /// On an off processor's thread: waits until it is turned on or [`Psci::interrupt`] is called for it.
    pub fn wait(&self, cpu: u32) -> Order {
        let _ = cpu;
        Order::Interrupted
    }

    /// Ends the present or the next [`Psci::wait`] of a processor.
    pub fn interrupt(&self, cpu: u32) {
        let _ = cpu;
    }

    /// Whether the processor is on.
    pub fn is_on(&self, cpu: u32) -> bool {
        let _ = cpu;
        false
    }
}
