//! One vCPU: its run loop.

use std::sync::Arc;

use aarch64::esr::class;
use aarch64::psci::function;
use cpu::mmu::{Purpose, Request};
use cpu::{CallOutcome, Core, Debugger, Interpreter, State, Stop, World};
use kvm_bindings as k;
use kvm_ioctls::{VcpuExit, VcpuFd};
use memory::{AddressSpace, Found};

use super::thread::Thread;
use super::{Shared, host, registers};
use crate::{Error, Exit, Vcpu, debugging};

/// PSTATE.SS.
const SINGLE_STEP: u64 = 1 << 21;
/// MDSCR_EL1.SS.
const MDSCR_SS: u64 = 1;
/// SCTLR_EL1.nTWI.
const NTWI: u64 = 1 << 16;

pub struct KvmVcpu {
    shared: Arc<Shared>,
    thread: Arc<Thread>,
    index: u32,
    vcpu: VcpuFd,
    init: k::kvm_vcpu_init,
    registers: registers::List,
    debugger: Debugger,
    /// The debugger's step was done without the hardware, and is to be told.
    stepped: bool,
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
    Kicked,
    /// Nothing answers there: an external abort.
    Abort,
    /// An access without a syndrome.
    Complete,
    /// An access of a device, which the next entry finishes.
    Accessed,
    /// A debug exception, by its syndrome and address.
    Debug(u32, u64),
    System(u32),
    Fault(String),
}

impl KvmVcpu {
    pub fn new(
        shared: Arc<Shared>,
        index: u32,
        mut vcpu: VcpuFd,
        init: k::kvm_vcpu_init,
    ) -> Result<KvmVcpu, Error> {
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
        let registers = registers::List::read(&vcpu)?;
        Ok(KvmVcpu {
            shared,
            thread,
            index,
            vcpu,
            init,
            registers,
            debugger: Debugger::default(),
            stepped: false,
            shadow: Interpreter::new(core),
        })
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

    /// Takes what the kernel holds into the shadow, and gives it as it was.
    fn load(&mut self) -> Result<State, Error> {
        let core = self.shadow.core_mut();
        registers::load(&self.vcpu, &mut core.state)?;
        if self.debugger.step {
            // Not the guest's.
            core.state.pstate &= !(SINGLE_STEP as u32);
        }
        core.refresh();
        Ok(core.state.clone())
    }

    /// Executes the instruction at the PC in the shadow, or takes the exception that is due in its place.
    fn complete(&mut self, world: &dyn World) -> Result<(), Error> {
        let before = self.load()?;
        self.shadow.step(&Surroundings(world));
        registers::store(&self.vcpu, &self.shadow.core().state, Some(&before))?;
        if self.debugger.step {
            self.stepped = true;
        } else if self.guest_steps()? {
            // As of any instruction that a hypervisor does (DDI 0487, D2.12.4).
            let p = registers::get(&self.vcpu, registers::PSTATE)?;
            registers::set(&self.vcpu, registers::PSTATE, p & !u128::from(SINGLE_STEP))?;
        }
        Ok(())
    }

    // ---- debuggers

    /// The guest has a debugger of its own that steps.
    fn guest_steps(&self) -> Result<bool, Error> {
        let mdscr = registers::get(&self.vcpu, registers::MDSCR)? as u64;
        Ok(mdscr & MDSCR_SS != 0)
    }

    /// Has the kernel do what the debugger wants (api.rst, "KVM_SET_GUEST_DEBUG").
    fn set_debugger(&self) -> Result<(), Error> {
        let mut debug = k::kvm_guest_debug::default();
        if self.debugger.is_active() {
            // The guest's own breakpoints wait meanwhile.
            debug.control =
                k::KVM_GUESTDBG_ENABLE | k::KVM_GUESTDBG_USE_SW_BP | k::KVM_GUESTDBG_USE_HW;
            if self.debugger.step {
                debug.control |= k::KVM_GUESTDBG_SINGLESTEP;
            }
            let wanted = debugging::registers(&self.debugger);
            let arch = &mut debug.arch;
            let sets = [
                (&mut arch.dbg_bvr, &wanted.breakpoint_value[..]),
                (&mut arch.dbg_bcr, &wanted.breakpoint_control[..]),
                (&mut arch.dbg_wvr, &wanted.watchpoint_value[..]),
                (&mut arch.dbg_wcr, &wanted.watchpoint_control[..]),
            ];
            for (to, from) in sets {
                to[..from.len()].copy_from_slice(from);
            }
        }
        self.vcpu
            .set_guest_debug(&debug)
            .map_err(host("KVM_SET_GUEST_DEBUG"))
    }

    /// A debugger's step over WFI, which would wait inside the kernel. True if that is what it was.
    fn step_over_wait(&mut self, world: &dyn World) -> Result<bool, Error> {
        let before = self.load()?;
        let core = self.shadow.core_mut();
        let request = Request {
            purpose: Purpose::Execute,
            el0: before.el == 0,
            pan: false,
            misaligned: false,
        };
        let space = world.space();
        let word = core
            .translate(space, before.pc, request)
            .ok()
            .filter(|found| {
                let place = space.find(found.physical, false);
                matches!(place, Some(Found::Memory { .. }))
            })
            .and_then(|found| space.read(self.index, found.physical, 4));
        // WFI; WFIT (DDI 0487, C6.2).
        let waits = word.is_some_and(|word| word == 0xd503_207f || word & !31 == 0xd503_1020);
        if !waits || before.el == 0 && before.sctlr[1] & NTWI == 0 {
            return Ok(false);
        }
        // A wait may end early.
        core.state.pc = before.pc.wrapping_add(4);
        registers::store(&self.vcpu, &core.state, Some(&before))?;
        Ok(true)
    }

    /// The debugger's step is done. An exception on the way has saved PSTATE.SS, which is not the guest's.
    fn step_done(&mut self) -> Result<Exit, Error> {
        self.stepped = false;
        if !self.guest_steps()? {
            for register in [registers::SPSR, registers::PSTATE] {
                let value = registers::get(&self.vcpu, register)?;
                let without = value & !u128::from(SINGLE_STEP);
                if value != without {
                    registers::set(&self.vcpu, register, without)?;
                }
            }
        }
        Ok(Exit::Debug(Stop::Step))
    }

    /// A debug exception that came to us; `None` if it was the guest's.
    fn debug_exception(
        &mut self,
        world: &dyn World,
        syndrome: u32,
        address: u64,
    ) -> Result<Option<Exit>, Error> {
        Ok(Some(match syndrome >> 26 {
            class::STEP_LOWER => self.step_done()?,
            class::BREAKPOINT_LOWER => Exit::Debug(Stop::Breakpoint),
            class::WATCHPOINT_LOWER => Exit::Debug(Stop::Watchpoint(address)),
            class::BRK if self.debugger.breaks => Exit::Debug(Stop::Break(syndrome as u16)),
            class::BRK => {
                self.complete(world)?;
                return Ok(None);
            }
            _ => Exit::Fault(format!("KVM_EXIT_DEBUG, syndrome {syndrome:#x}")),
        }))
    }

    /// Has the kernel finish the access that it was answered, without running the guest (api.rst, "KVM_RUN").
    fn finish_access(&mut self) -> Result<(), Error> {
        self.vcpu.set_kvm_immediate_exit(1);
        let result = self.vcpu.run().map(|exit| format!("{exit:?}"));
        self.vcpu.set_kvm_immediate_exit(0);
        match result {
            Err(error) if error.errno() == libc::EINTR => Ok(()),
            other => Err(Error::Host(format!("KVM_RUN, to leave at once: {other:?}"))),
        }
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
                        Next::Accessed
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
                    Some(()) => Next::Accessed,
                    None => Next::Abort,
                }
            }
            Ok(VcpuExit::Debug(debug)) => Next::Debug(debug.hsr, debug.far),
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
            if self.stepped || self.debugger.step && self.step_over_wait(world)? {
                return self.step_done();
            }
            match self.enter(world) {
                Next::Accessed if self.debugger.step => {
                    // Else the kernel would arm the step again for the next instruction.
                    self.finish_access()?;
                    self.stepped = true;
                    if self.thread.kicked() {
                        return Ok(Exit::Kicked);
                    }
                }
                Next::Accessed => {}
                Next::Debug(syndrome, address) => {
                    if let Some(exit) = self.debug_exception(world, syndrome, address)? {
                        return Ok(exit);
                    }
                }
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
        self.stepped = false;
    }

    fn state(&mut self) -> Result<State, Error> {
        let mut state = self.load()?;
        self.registers.load_all(&self.vcpu, &mut state)?;
        if self.debugger.step {
            state.pstate &= !(SINGLE_STEP as u32);
        }
        Ok(state)
    }

    fn set_state(&mut self, state: &State) -> Result<(), Error> {
        if state.el > 1 {
            return Err(Error::State(format!(
                "exception level {} is not there",
                state.el
            )));
        }
        self.stepped = false;
        self.registers.store_all(&self.vcpu, state)
    }

    fn debug(&mut self, wanted: &Debugger) -> Result<(), Error> {
        let count = |capability: u32| {
            let count = self.shared.vm.check_extension_raw(capability.into());
            usize::try_from(count).unwrap_or(0)
        };
        let breakpoints = count(k::KVM_CAP_GUEST_DEBUG_HW_BPS);
        let watchpoints = count(k::KVM_CAP_GUEST_DEBUG_HW_WPS);
        debugging::check(wanted, breakpoints, watchpoints)?;
        self.debugger = wanted.clone();
        self.stepped = false;
        self.set_debugger()
    }

    fn start(&mut self, entry: u64, context: u64) -> Result<(), Error> {
        self.reset();
        registers::start(&self.vcpu, entry, context)
    }
}
