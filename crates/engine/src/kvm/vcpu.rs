//! One vCPU: its run loop.

use std::sync::Arc;

use aarch64::psci::function;
use cpu::{CallOutcome, Core, Interpreter, State, World};
use kvm_bindings as k;
use kvm_ioctls::{VcpuExit, VcpuFd};
use memory::AddressSpace;

use super::thread::Thread;
use super::{Shared, host, registers};
use crate::{Error, Exit, Vcpu};

pub struct KvmVcpu {
    shared: Arc<Shared>,
    thread: Arc<Thread>,
    index: u32,
    vcpu: VcpuFd,
    init: k::kvm_vcpu_init,
    /// Completes what the hardware could not describe.
    shadow: Interpreter,
}

impl Drop for KvmVcpu {
    fn drop(&mut self) {
        self.thread.end();
    }
}

/// The shadow processor's clock: it has no timers of its own.
struct GuestTime(device::Clock);

impl cpu::Clock for GuestTime {
    fn now(&self) -> u64 {
        self.0.now()
    }

    fn arm(&self, _: u32, _: u64) {}
}

/// The world, for the shadow: private interrupts are the kernel's.
struct Surroundings<'a>(&'a dyn World);

impl World for Surroundings<'_> {
    fn space(&self) -> &AddressSpace {
        self.0.space()
    }

    fn read_system_register(&self, _: u32, _: u16) -> Option<u64> {
        None
    }

    fn write_system_register(&self, _: u32, _: u16, _: u64) -> Option<()> {
        None
    }

    fn private_interrupt(&self, _: u32, _: u32, _: bool) {}

    fn call(&self, cpu: u32, x: &mut [u64; 18]) -> CallOutcome {
        self.0.call(cpu, x)
    }
}

/// What a run of the kernel's came to, when its exit no longer borrows the vCPU.
enum Next {
    Again,
    Kicked,
    /// Nothing answers there: an external abort.
    Abort,
    /// An access without a syndrome.
    Complete,
    System(u32),
    Fault(String),
}

impl KvmVcpu {
    pub fn new(
        shared: Arc<Shared>,
        index: u32,
        mut vcpu: VcpuFd,
        init: k::kvm_vcpu_init,
    ) -> KvmVcpu {
        let thread = shared.threads[index as usize].clone();
        thread.begin(&raw mut vcpu.get_kvm_run().immediate_exit);
        let cores = cpu::Shared::new(
            shared.config.mpidrs.len() as u32,
            Arc::new(GuestTime(shared.config.clock.clone())),
            shared.frequency(),
        );
        let core = Core::new(
            index,
            shared.config.mpidrs[index as usize],
            shared.config.features.clone(),
            Arc::new(cores),
        );
        KvmVcpu {
            shared,
            thread,
            index,
            vcpu,
            init,
            shadow: Interpreter::new(core),
        }
    }

    /// The guest's counter goes with the guest's clock: it is set when the machine first runs, and after each stop. All vCPUs
    /// have one offset in the kernel; none runs before it is set.
    fn set_counter(&self) -> Result<(), Error> {
        let clock = &self.shared.config.clock;
        let mut counter = self.shared.counter.lock();
        let stopped = clock.stopped();
        if *counter == Some(stopped) {
            return Ok(());
        }
        let ticks = u128::from(clock.now()) * u128::from(self.shared.frequency()) / 1_000_000_000;
        registers::set(&self.vcpu, registers::TIMER_CNT, ticks)?;
        *counter = Some(stopped);
        Ok(())
    }

    /// Executes the instruction at the PC in the shadow.
    fn complete(&mut self, world: &dyn World) -> Result<(), Error> {
        let core = self.shadow.core_mut();
        registers::load(&self.vcpu, &mut core.state)?;
        core.refresh();
        let before = core.state.clone();
        self.shadow.step(&Surroundings(world));
        registers::store(&self.vcpu, &self.shadow.core().state, Some(&before))
    }

    /// The guest takes a synchronous external abort for the access that ended the last run.
    fn abort(&self) -> Result<(), Error> {
        let mut events = self
            .vcpu
            .get_vcpu_events()
            .map_err(host("KVM_GET_VCPU_EVENTS"))?;
        events.exception.ext_dabt_pending = 1;
        self.vcpu
            .set_vcpu_events(&events)
            .map_err(host("KVM_SET_VCPU_EVENTS"))
    }

    fn enter(&mut self, world: &dyn World) -> Next {
        let index = self.index;
        match self.vcpu.run() {
            Ok(VcpuExit::MmioRead(address, data)) => {
                let width = data.len().min(8) as u8;
                match world.space().read(index, address, width) {
                    Some(value) => {
                        let bytes = value.to_le_bytes();
                        data.copy_from_slice(&bytes[..data.len()]);
                        Next::Again
                    }
                    None => {
                        data.fill(0);
                        Next::Abort
                    }
                }
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                let mut bytes = [0; 8];
                let width = data.len().min(8);
                bytes[..width].copy_from_slice(&data[..width]);
                let value = u64::from_le_bytes(bytes);
                match world.space().write(index, address, width as u8, value) {
                    Some(()) => Next::Again,
                    None => Next::Abort,
                }
            }
            Ok(VcpuExit::SystemEvent(event, _)) => Next::System(event),
            Ok(VcpuExit::Intr) => Next::Kicked,
            Ok(VcpuExit::Unsupported(k::KVM_EXIT_ARM_NISV)) if self.shared.describes => {
                Next::Complete
            }
            Ok(VcpuExit::FailEntry(reason, cpu)) => Next::Fault(format!(
                "KVM_RUN: the hardware refused to enter the guest: {reason:#x} on host CPU {cpu}"
            )),
            Ok(other) => Next::Fault(format!("KVM_RUN: {other:?}")),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Next::Kicked,
            Err(error) => Next::Fault(format!("KVM_RUN: {error}")),
        }
    }

    fn run_on(&mut self, world: &dyn World) -> Result<Exit, Error> {
        let shared = self.shared.clone();
        loop {
            shared
                .regions
                .follow(world.space(), |region| shared.change(region))?;
            self.set_counter()?;
            match self.enter(world) {
                Next::Again => {}
                Next::Kicked => {
                    // An access that was answered above is finished by the next entry, which may be after the machine's
                    // state was saved: `immediate_exit` has it finished now (api.rst, "KVM_RUN").
                    self.vcpu.set_kvm_immediate_exit(0);
                    if self.thread.kicked() {
                        return Ok(Exit::Kicked);
                    }
                }
                Next::Abort => self.abort()?,
                Next::Complete => self.complete(world)?,
                Next::System(event) => {
                    let id = match event {
                        k::KVM_SYSTEM_EVENT_SHUTDOWN | k::KVM_SYSTEM_EVENT_CRASH => {
                            function::SYSTEM_OFF
                        }
                        k::KVM_SYSTEM_EVENT_RESET => function::SYSTEM_RESET,
                        other => {
                            return Ok(Exit::Fault(format!("KVM_EXIT_SYSTEM_EVENT {other}")));
                        }
                    };
                    // The machine hears of it as of the guest's own call.
                    let mut x = [0; 18];
                    x[0] = id.into();
                    if world.call(self.index, &mut x) == CallOutcome::Stop {
                        return Ok(Exit::Off);
                    }
                }
                Next::Fault(reason) => return Ok(Exit::Fault(reason)),
            }
        }
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, world: &dyn World) -> Exit {
        if self.thread.kicked() {
            return Exit::Kicked;
        }
        match self.run_on(world) {
            Ok(exit) => exit,
            Err(error) => Exit::Fault(error.to_string()),
        }
    }

    /// KVM_ARM_VCPU_INIT again is a reset; processors other than the first are off after it.
    fn reset(&mut self) {
        if let Err(error) = self.vcpu.vcpu_init(&self.init) {
            tracing::error!(cpu = self.index, %error, "KVM_ARM_VCPU_INIT");
        }
        if let Err(error) =
            registers::set_mpidr(&self.vcpu, self.shared.config.mpidrs[self.index as usize])
        {
            tracing::error!(cpu = self.index, %error, "MPIDR_EL1");
        }
    }

    fn state(&mut self) -> Result<State, Error> {
        let core = self.shadow.core_mut();
        registers::load(&self.vcpu, &mut core.state)?;
        Ok(core.state.clone())
    }

    fn set_state(&mut self, state: &State) -> Result<(), Error> {
        if state.el > 1 {
            return Err(Error::State(format!(
                "exception level {} is not there",
                state.el
            )));
        }
        registers::store(&self.vcpu, state, None)
    }

    fn start(&mut self, entry: u64, context: u64) -> Result<(), Error> {
        self.reset();
        registers::start(&self.vcpu, entry, context)
    }
}
