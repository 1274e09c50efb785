//! One vCPU: its run loop, and an answer to each kind of exit.

use std::sync::Arc;
use std::time::Duration;

use aarch64::esr::{abort, class, status};
use aarch64::registers as r;
use cpu::{CallOutcome, Core, Debugger, Interpreter, State, Stop, World};

use super::framework::{Exception, Handle, Interrupt, Refusal, VcpuExit, reg};
use super::mailbox::Mailbox;
use super::{Shared, identification, refused, registers};
use crate::{Error, Exit, Vcpu, debugging};

/// Exception classes of EL2 (DDI 0487, D17.2.37, ESR_EL2.EC) that are not among EL1's.
mod el2 {
    pub const HVC: u32 = 0x16;
    pub const SMC: u32 = 0x17;
}

/// ISS of data aborts (DDI 0487, D17.2.37, "ISS encoding for an exception from a Data Abort").
mod iss {
    /// The rest describes the access.
    pub const ISV: u32 = 1 << 24;
    /// Sign-extended.
    pub const SSE: u32 = 1 << 21;
    /// A 64-bit register.
    pub const SF: u32 = 1 << 15;

    /// On a walk of the guest's tables.
    pub const S1PTW: u32 = 1 << 7;
    /// DFSC without the level.
    pub const STATUS: u32 = 0x3c;

    /// Bytes accessed.
    pub const fn bytes(iss: u32) -> u8 {
        1 << (iss >> 22 & 3)
    }

    /// The register accessed.
    pub const fn srt(iss: u32) -> u32 {
        iss >> 16 & 31
    }

    /// WFE, WFET rather than WFI, WFIT, in the ISS of trapped waits.
    pub const TI_EVENT: u32 = 1;
}

/// PSTATE.SS.
const SINGLE_STEP: u64 = 1 << 21;
/// MDSCR_EL1.SS.
const MDSCR_SS: u64 = 1;
/// CNTV_CTL_EL0.
const ENABLE: u64 = 1;
const IMASK: u64 = 1 << 1;

/// A host timer that would fire this close to the virtual timer is left out.
const SAME: u64 = 1_000;

pub struct HvfVcpu {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    index: u32,
    handle: Handle,
    /// Does what the hardware cannot. Holds the physical timer, performance monitors and debug registers; what else it
    /// holds is the hardware's only between [`HvfVcpu::load`] and [`HvfVcpu::store`].
    shadow: Interpreter,
    /// The framework's vtimer mask.
    vtimer_masked: bool,
    /// CNTVOFF as the framework has it.
    offset: Option<u64>,
    /// When the clock is to end the run.
    watched: Option<u64>,
    /// Waits as WFI does before it runs on: CPU_SUSPEND that a kick interrupted.
    waiting: bool,
    debugger: Debugger,
    /// The debugger's step is armed in PSTATE.SS, or done.
    armed: bool,
}

impl Drop for HvfVcpu {
    fn drop(&mut self) {
        self.mailbox.destroyed();
        if let Err(refusal) = self.shared.framework.vcpu_destroy(self.handle) {
            tracing::warn!(%refusal, "hv_vcpu_destroy");
        }
    }
}

impl HvfVcpu {
    /// Creates processor `index` on this thread, the only one that may use it.
    pub fn new(shared: Arc<Shared>, index: u32) -> Result<HvfVcpu, Error> {
        let f = shared.framework.clone();
        f.vcpu_thread();
        let handle = f.vcpu_create().map_err(|r| refused("hv_vcpu_create", r))?;
        let mailbox = shared.mailboxes[index as usize].clone();
        mailbox.created(handle);
        let features = shared.config.features.clone();
        let mpidr = shared.config.mpidrs[index as usize];
        let core = Core::new(index, mpidr, features.clone(), shared.cores.clone());
        let mut vcpu = HvfVcpu {
            mailbox,
            index,
            handle,
            shadow: Interpreter::new(core),
            vtimer_masked: false,
            offset: None,
            watched: None,
            waiting: false,
            debugger: Debugger::default(),
            armed: false,
            shared,
        };
        vcpu.host("setting up a vCPU", |f, handle| {
            f.set_sys_reg(handle, r::MPIDR_EL1, mpidr | 1 << 31)?;
            f.set_trap_debug_exceptions(handle, false)?;
            f.set_trap_debug_reg_accesses(handle, true)?;
            f.set_vtimer_mask(handle, false)
        })?;
        let ipa_size = vcpu.shared.ipa_size;
        let refused = vcpu.host("identification registers", |f, handle| {
            identification::set(f, handle, &features, ipa_size)
        })?;
        if !refused.is_empty() {
            tracing::debug!(?refused, "the host keeps these identification fields");
        }
        vcpu.reset();
        Ok(vcpu)
    }

    fn host<T>(
        &self,
        what: &str,
        act: impl FnOnce(&dyn super::Framework, Handle) -> Result<T, Refusal>,
    ) -> Result<T, Error> {
        act(self.shared.framework.as_ref(), self.handle).map_err(|refusal| refused(what, refusal))
    }

    fn get(&self, register: u32) -> Result<u64, Error> {
        self.host("hv_vcpu_get_reg", |f, v| f.get_reg(v, register))
    }

    fn set(&self, register: u32, value: u64) -> Result<(), Error> {
        self.host("hv_vcpu_set_reg", |f, v| f.set_reg(v, register, value))
    }

    /// Register Xt of an access: 31 is the zero register.
    fn xt(&self, t: u32) -> Result<u64, Error> {
        if t == 31 {
            Ok(0)
        } else {
            self.get(reg::X0 + t)
        }
    }

    fn set_xt(&self, t: u32, value: u64) -> Result<(), Error> {
        if t == 31 {
            return Ok(());
        }
        self.set(reg::X0 + t, value)
    }

    /// The instruction that trapped is done. If the guest steps itself, so is its step (DDI 0487, D2.12.4).
    fn advance(&self) -> Result<(), Error> {
        let pc = self.get(reg::PC)?;
        self.set(reg::PC, pc.wrapping_add(4))?;
        self.stepped()
    }

    /// What was to be stepped is done without the hardware.
    fn stepped(&self) -> Result<(), Error> {
        if self.debugger.step || self.shadow.core().state.debug.mdscr & MDSCR_SS != 0 {
            let cpsr = self.get(reg::CPSR)?;
            self.set(reg::CPSR, cpsr & !SINGLE_STEP)?;
        }
        Ok(())
    }

    /// Takes all that the hardware holds into the shadow.
    fn load(&mut self) -> Result<(), Error> {
        let (f, handle) = (self.shared.framework.clone(), self.handle);
        let core = self.shadow.core_mut();
        registers::load(f.as_ref(), handle, &mut core.state)
            .map_err(|r| refused("reading registers", r))?;
        if self.debugger.step {
            // Not the guest's.
            core.state.pstate &= !(SINGLE_STEP as u32);
        }
        core.refresh();
        Ok(())
    }

    fn store(&self, before: Option<&State>) -> Result<(), Error> {
        let state = &self.shadow.core().state;
        self.host("writing registers", |f, v| {
            registers::store(f, v, state, before)
        })
    }

    /// Executes the instruction at the PC (or takes the exception that is due in its place) in the shadow.
    fn complete(&mut self, world: &dyn World) -> Result<(), Error> {
        self.load()?;
        let before = self.shadow.core().state.clone();
        self.shadow.step(world);
        self.store(Some(&before))?;
        self.stepped()
    }

    // ---- debuggers

    /// Breakpoints, watchpoints and steps: those of a debugger, or else the guest's own.
    fn store_debug(&self) -> Result<(), Error> {
        let debug = if self.debugger.is_active() {
            debugging::registers(&self.debugger)
        } else {
            self.shadow.core().state.debug.clone()
        };
        self.host("debug registers", |f, v| {
            registers::store_debug(f, v, &debug)
        })
    }

    /// Arms the debugger's step.
    fn arm(&mut self) -> Result<(), Error> {
        if self.debugger.step && !self.armed {
            let cpsr = self.get(reg::CPSR)?;
            self.set(reg::CPSR, cpsr | SINGLE_STEP)?;
            self.armed = true;
        }
        Ok(())
    }

    /// The debugger's step is done. An exception on the way has saved PSTATE.SS, which is not the guest's.
    fn disarm(&mut self) -> Result<(), Error> {
        self.armed = false;
        let cpsr = self.get(reg::CPSR)?;
        self.set(reg::CPSR, cpsr & !SINGLE_STEP)?;
        if self.shadow.core().state.debug.mdscr & MDSCR_SS != 0 {
            return Ok(());
        }
        self.host("SPSR_EL1", |f, v| {
            let spsr = f.get_sys_reg(v, r::SPSR_EL1)?;
            f.set_sys_reg(v, r::SPSR_EL1, spsr & !SINGLE_STEP)
        })
    }

    // ---- time

    /// Follows the virtual timer, which the guest sets without an exit: its line is as it asserts it, and the framework's
    /// mask is on as long as it does. Fires that were lost on the way are seen here. Answers when it will fire,
    /// nanoseconds of guest time.
    fn follow_timers(&mut self, world: &dyn World) -> Result<Option<u64>, Error> {
        let offset = self.shared.counter_offset();
        if self.offset != Some(offset) {
            self.host("hv_vcpu_set_vtimer_offset", |f, v| {
                f.set_vtimer_offset(v, offset)
            })?;
            self.offset = Some(offset);
        }
        let (control, compare) = self.host("the virtual timer", |f, v| {
            Ok((
                f.get_sys_reg(v, r::CNTV_CTL_EL0)?,
                f.get_sys_reg(v, r::CNTV_CVAL_EL0)?,
            ))
        })?;
        // Before the line is looked at, so that a mask never goes on before the line that it stands for.
        let live = control & (ENABLE | IMASK) == ENABLE;
        let fires = live && self.shared.cores.counter() >= compare;
        self.mailbox.timer();
        let core = self.shadow.core_mut();
        core.state.timers.cntv_ctl = control & (ENABLE | IMASK);
        core.state.timers.cntv_cval = compare;
        core.update_timers(world);
        if fires != self.vtimer_masked {
            self.host("hv_vcpu_set_vtimer_mask", |f, v| {
                f.set_vtimer_mask(v, fires)
            })?;
            self.vtimer_masked = fires;
        }
        Ok((live && !fires).then(|| {
            let frequency = u128::from(self.shared.cores.frequency);
            (u128::from(compare) * 1_000_000_000 / frequency).min(u64::MAX.into()) as u64
        }))
    }

    /// The earliest deadline of any timer, if one is set.
    fn deadline(&self, virtual_due: Option<u64>) -> Option<u64> {
        let now = self.shared.config.clock.now();
        let due = self.shared.deadlines.due(self.index);
        due.filter(|due| *due > now)
            .into_iter()
            .chain(virtual_due)
            .min()
    }

    /// WFI: until an interrupt comes (masked or not). True if a kick ended it before.
    fn wait(&mut self, world: &dyn World) -> Result<bool, Error> {
        self.waiting = true;
        loop {
            let virtual_due = self.follow_timers(world)?;
            if self.mailbox.irq() || self.mailbox.fiq() {
                self.waiting = false;
                return Ok(false);
            }
            if self.mailbox.kicked() {
                return Ok(true);
            }
            let now = self.shared.config.clock.now();
            let deadline = self.deadline(virtual_due);
            let timeout = deadline.map(|d| Duration::from_nanos(d.saturating_sub(now)));
            self.mailbox.sleep(timeout);
        }
    }

    // ---- exits

    /// Runs until an exit that ends the run.
    fn run_on(&mut self, world: &dyn World) -> Result<Exit, Error> {
        let shared = self.shared.clone();
        self.arm()?;
        loop {
            if self.waiting && self.wait(world)? {
                return Ok(Exit::Kicked);
            }
            if self.mailbox.kicked() {
                return Ok(Exit::Kicked);
            }
            shared
                .regions
                .follow(world.space(), |region| shared.change(region))?;
            let virtual_due = self.follow_timers(world)?;
            // The virtual timer's exits come by themselves; what else there is must end the run.
            let other = self.deadline(None);
            let needed = other.filter(|d| virtual_due.is_none_or(|v| d.saturating_add(SAME) < v));
            if self.watched != needed {
                shared.deadlines.watch(self.index, needed);
                self.watched = needed;
            }
            let (irq, fiq) = (self.mailbox.irq(), self.mailbox.fiq());
            self.host("hv_vcpu_set_pending_interrupt", |f, v| {
                if irq {
                    f.set_pending_interrupt(v, Interrupt::Irq, true)?;
                }
                if fiq {
                    f.set_pending_interrupt(v, Interrupt::Fiq, true)?;
                }
                Ok(())
            })?;
            if !self.mailbox.begin(irq, fiq) {
                self.host("hv_vcpu_set_pending_interrupt", |f, v| {
                    f.set_pending_interrupt(v, Interrupt::Irq, false)?;
                    f.set_pending_interrupt(v, Interrupt::Fiq, false)
                })?;
                continue;
            }
            let exit = self.host("hv_vcpu_run", |f, v| f.vcpu_run(v));
            self.mailbox.end();
            match exit? {
                VcpuExit::Canceled => {}
                // It masked itself; `follow_timers` raises the line and takes the mask back when the guest is done.
                VcpuExit::VtimerActivated => self.vtimer_masked = true,
                VcpuExit::Exception(exception) => {
                    if let Some(exit) = self.exception(world, exception)? {
                        return Ok(exit);
                    }
                }
                VcpuExit::Unknown(reason) => {
                    return Ok(Exit::Fault(format!("hv_vcpu_run: exit reason {reason}")));
                }
            }
        }
    }

    fn exception(
        &mut self,
        world: &dyn World,
        exception: Exception,
    ) -> Result<Option<Exit>, Error> {
        let (class, iss) = (
            (exception.syndrome >> 26) as u32 & 0x3f,
            exception.syndrome as u32 & 0x01ff_ffff,
        );
        if self.vtimer_masked {
            // The guest may have set the timer anew since it fired, and be about to look whether its interrupt is gone.
            self.follow_timers(world)?;
        }
        match class {
            class::DATA_ABORT_LOWER => self.data_abort(world, iss, &exception)?,
            // Code in device memory, or where nothing is: the guest takes the abort.
            class::INSTRUCTION_ABORT_LOWER => self.complete(world)?,
            class::SYSTEM => self.system_register(world, iss)?,
            class::WFX => {
                self.advance()?;
                if iss & iss::TI_EVENT != 0 {
                    std::thread::yield_now();
                } else if !self.debugger.step && self.wait(world)? {
                    // A wait may end early.
                    self.waiting = false;
                    return Ok(Some(Exit::Kicked));
                }
            }
            // The PC is the next instruction's after HVC, and still its own after SMC (DDI 0487, D1.3: HVC's preferred
            // return address is past it; SMC is trapped).
            el2::HVC => return self.call(world),
            el2::SMC => {
                self.advance()?;
                return self.call(world);
            }
            class::STEP_LOWER => {
                self.disarm()?;
                return Ok(Some(Exit::Debug(Stop::Step)));
            }
            class::BREAKPOINT_LOWER => return Ok(Some(Exit::Debug(Stop::Breakpoint))),
            class::WATCHPOINT_LOWER => {
                let address = exception.virtual_address;
                return Ok(Some(Exit::Debug(Stop::Watchpoint(address))));
            }
            class::BRK if self.debugger.breaks => {
                return Ok(Some(Exit::Debug(Stop::Break(iss as u16))));
            }
            // The guest's own.
            class::BRK => self.complete(world)?,
            _ => {
                return Ok(Some(Exit::Fault(format!(
                    "exception {class:#x} of the guest, syndrome {:#x}, PC {:#x}",
                    exception.syndrome,
                    self.get(reg::PC)?
                ))));
            }
        }
        Ok(None)
    }

    /// PSCI and SMCCC.
    fn call(&mut self, world: &dyn World) -> Result<Option<Exit>, Error> {
        let mut x = [0; 18];
        for (n, x) in (0..).zip(&mut x) {
            *x = self.get(reg::X0 + n)?;
        }
        let before = x;
        let outcome = world.call(self.index, &mut x);
        for (n, (x, before)) in (0..).zip(x.into_iter().zip(before)) {
            if x != before {
                self.set(reg::X0 + n, x)?;
            }
        }
        match outcome {
            CallOutcome::Resume => Ok(None),
            CallOutcome::Stop => Ok(Some(Exit::Off)),
            CallOutcome::Wait => {
                // Goes on waiting in the next run if a kick ends it.
                Ok(self.wait(world)?.then_some(Exit::Kicked))
            }
        }
    }

    /// MRS or MSR that the hardware does not answer.
    fn system_register(&mut self, world: &dyn World, iss: u32) -> Result<(), Error> {
        let field = |shift: u32, mask: u32| (iss >> shift & mask) as u16;
        let register = r::encode(
            field(20, 3),
            field(14, 7),
            field(10, 15),
            field(1, 15),
            field(17, 7),
        );
        let (rt, read) = (iss >> 5 & 31, iss & 1 != 0);
        let cpsr = self.get(reg::CPSR)?;
        let value = if read { 0 } else { self.xt(rt)? };
        let core = self.shadow.core_mut();
        registers::set_cpsr(&mut core.state, cpsr);
        core.refresh();
        let mut done = self.access(world, register, rt, read, value);
        let mut before = None;
        if done.is_err() {
            // An exception, or what another register says of this one: once more, on all of the state.
            self.load()?;
            before = Some(self.shadow.core().state.clone());
            done = self.access(world, register, rt, read, value);
        }
        let Ok(value) = done else {
            self.store(before.as_ref())?;
            return self.stepped();
        };
        if let Some(value) = value {
            self.set_xt(rt, value)?;
        }
        if !read && r::fields(register).0 == 2 {
            self.store_debug()?;
        }
        self.advance()
    }

    /// A register that the shadow or the world has, read (`Some`) or written; an exception was taken in its place if not.
    fn access(
        &mut self,
        world: &dyn World,
        register: u16,
        rt: u32,
        read: bool,
        value: u64,
    ) -> Result<Option<u64>, cpu::Taken> {
        let core = self.shadow.core_mut();
        if read {
            return core.read_register(world, register, rt).map(Some);
        }
        core.write_register(world, register, rt, value)
            .map(|_| None)
    }

    fn data_abort(
        &mut self,
        world: &dyn World,
        iss: u32,
        exception: &Exception,
    ) -> Result<(), Error> {
        // Memory that may be read but not written: whether it is watched. If so the guest tries again.
        let permit = |start, size| self.shared.protect(start, size, true);
        if iss & iss::STATUS == status::PERMISSION
            && self
                .shared
                .tracking
                .wrote(exception.physical_address, permit)?
        {
            return Ok(());
        }
        // Caches of device memory: there is nothing to do (DDI 0487, ISS.CM). On a walk of the guest's tables it is their
        // abort, as of any access.
        if iss & abort::CACHE_MAINTENANCE != 0 && iss & iss::S1PTW == 0 {
            return self.advance();
        }
        // Nothing is said of the access, on a walk never.
        if iss & iss::ISV == 0 {
            return self.complete(world);
        }
        let (bytes, rt) = (iss::bytes(iss), iss::srt(iss));
        let address = exception.physical_address;
        if iss & abort::WRITE != 0 {
            let value = self.xt(rt)?;
            match world.space().write(self.index, address, bytes, value) {
                Some(()) => return self.advance(),
                // Nothing there: the guest takes an external abort.
                None => return self.complete(world),
            }
        }
        let Some(value) = world.space().read(self.index, address, bytes) else {
            return self.complete(world);
        };
        let value = if iss & iss::SSE != 0 {
            let unused = 64 - 8 * u32::from(bytes);
            let extended = ((value << unused) as i64 >> unused) as u64;
            match iss & iss::SF {
                0 => u64::from(extended as u32),
                _ => extended,
            }
        } else {
            value
        };
        self.set_xt(rt, value)?;
        self.advance()
    }
}

impl Vcpu for HvfVcpu {
    fn run(&mut self, world: &dyn World) -> Exit {
        match self.run_on(world) {
            Ok(exit) => exit,
            Err(error) => Exit::Fault(error.to_string()),
        }
    }

    fn reset(&mut self) {
        self.shadow.core_mut().reset();
        self.waiting = false;
        let state = self.shadow.core().state.clone();
        // A vCPU that does not take its state says so when it is run.
        if let Err(error) = self.set_state(&state) {
            tracing::error!(cpu = self.index, %error, "reset");
        }
    }

    fn state(&mut self) -> Result<State, Error> {
        self.load()?;
        Ok(self.shadow.core().state.clone())
    }

    fn set_state(&mut self, state: &State) -> Result<(), Error> {
        if state.el > 1 {
            return Err(Error::State(format!(
                "exception level {} is not there",
                state.el
            )));
        }
        self.waiting = false;
        self.armed = false;
        self.shadow.core_mut().set_state(state.clone());
        self.store(None)?;
        self.store_debug()
    }

    fn debug(&mut self, wanted: &Debugger) -> Result<(), Error> {
        let dfr0 = self.host("ID_AA64DFR0_EL1", |f, v| {
            f.get_sys_reg(v, r::ID_AA64DFR0_EL1)
        })?;
        let count = |shift: u32| (dfr0 >> shift & 15) as usize + 1;
        debugging::check(wanted, count(12), count(20))?;
        if self.armed {
            self.disarm()?;
        }
        self.debugger = wanted.clone();
        self.host("hv_vcpu_set_trap_debug_exceptions", |f, v| {
            f.set_trap_debug_exceptions(v, wanted.is_active())
        })?;
        self.store_debug()
    }
}
