//! A vCPU: an interpreter, and what beneath it ends its runs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ThreadId;

use aarch64::esr::{self, abort, class, status};
use aarch64::registers as r;
use cpu::mmu::{Purpose, Request};
use cpu::{CallOutcome, Core, Event, Features, Hypervisor, Interpreter, World, exception};
use engine::hvf::framework::{Exception, Interrupt, Refusal, VcpuExit, reg};
use memory::{AddressSpace, Found};
use parking_lot::Mutex;

use crate::{Counts, Options, Vm, registers, syndrome};

const CANCELED: u32 = 64;
const VTIMER: u32 = 65;
/// Exception classes of EL2 only.
const HVC: u32 = 0x16;
const SMC: u32 = 0x17;
/// ISS of data aborts.
const S1PTW: u32 = 1 << 7;
/// The virtual timer's interrupt, as the interpreter numbers it.
const VIRTUAL_TIMER: u32 = 27;
/// Every fourth fire meets a cancellation that is late, where fires can be lost.
const LATE: u64 = 4;

/// What exits by request.
pub struct Traps {
    pub exceptions: AtomicBool,
    pub registers: AtomicBool,
    /// WFE.
    events: bool,
}

pub struct Vcpu {
    owner: ThreadId,
    counts: Arc<Counts>,
    signals: Arc<cpu::Signals>,
    pub traps: Arc<Traps>,
    canceled: AtomicBool,
    inside: AtomicBool,
    /// The generation of stage 2 that the present run goes by.
    seen: AtomicU64,
    options: Options,
    inner: Mutex<Inner>,
}

struct Inner {
    interpreter: Interpreter,
    masked: bool,
    irq: bool,
    fiq: bool,
    /// The fire of the timer's present level was lost.
    lost: bool,
    /// Fires of the timer, lost ones too; counted where they can be lost.
    fires: u64,
}

/// What is around the processor: stage 2, and the timer's line. Everything else has exited before it gets here.
struct Around<'a> {
    space: &'a AddressSpace,
    signals: &'a cpu::Signals,
    /// The virtual timer asserts.
    level: AtomicBool,
    /// Its assertion ends the run.
    exits: bool,
}

impl World for Around<'_> {
    fn space(&self) -> &AddressSpace {
        self.space
    }

    fn read_system_register(&self, _: u32, _: u16) -> Option<u64> {
        None
    }

    fn write_system_register(&self, _: u32, _: u16, _: u64) -> Option<()> {
        None
    }

    fn private_interrupt(&self, _: u32, intid: u32, level: bool) {
        if intid == VIRTUAL_TIMER {
            self.level.store(level, Ordering::SeqCst);
            if level && self.exits {
                self.signals.kick();
            }
        }
    }

    fn call(&self, _: u32, _: &mut [u64; 18]) -> CallOutcome {
        CallOutcome::Resume
    }
}

/// How an exit leaves the interpreter.
struct Left(Event);

/// Decides what exits.
struct Beneath {
    traps: Arc<Traps>,
}

impl Hypervisor for Beneath {
    fn event(&self, event: Event) {
        let exits = match event {
            Event::WaitForInterrupt | Event::Call { .. } => true,
            Event::WaitForEvent => self.traps.events,
            Event::ReadRegister { register, .. } | Event::WriteRegister { register, .. } => {
                let debug = r::fields(register).0 == 2;
                registers::trapped(register) || debug && self.traps.registers.load(Ordering::SeqCst)
            }
            Event::Synchronous { class: c, iss, .. } => match c {
                // The interpreter has external aborts where nothing is mapped only, and atomics need memory to write.
                class::DATA_ABORT
                | class::DATA_ABORT_LOWER
                | class::INSTRUCTION_ABORT
                | class::INSTRUCTION_ABORT_LOWER => {
                    let atomic = iss & 0x3f == status::UNSUPPORTED_ATOMIC;
                    is_external(iss) || is_on_walk(iss) || atomic
                }
                class::BRK
                | class::BREAKPOINT
                | class::BREAKPOINT_LOWER
                | class::STEP
                | class::STEP_LOWER
                | class::WATCHPOINT
                | class::WATCHPOINT_LOWER => self.traps.exceptions.load(Ordering::SeqCst),
                _ => false,
            },
        };
        if exits {
            resume_unwind(Box::new(Left(event)));
        }
    }
}

fn is_external(iss: u32) -> bool {
    iss & 0x3f == status::EXTERNAL
}

fn is_on_walk(iss: u32) -> bool {
    iss & 0x3c == status::EXTERNAL_ON_WALK
}

impl Vcpu {
    pub fn new(index: u32, vm: &Arc<Vm>, counts: Arc<Counts>, options: Options) -> Arc<Vcpu> {
        let mut features = Features::model("max").unwrap_or_else(|e| unreachable!("{e}"));
        features.gic_registers = false;
        let traps = Arc::new(Traps {
            exceptions: AtomicBool::new(false),
            registers: AtomicBool::new(true),
            events: options.trap_events,
        });
        let mut core = Core::new(index, 0, Arc::new(features), vm.cores.clone());
        core.hypervisor = Some(Arc::new(Beneath {
            traps: traps.clone(),
        }));
        core.state.debug.os_lock = false;
        Arc::new(Vcpu {
            owner: std::thread::current().id(),
            counts,
            signals: vm.cores.processors()[index as usize].clone(),
            traps,
            canceled: AtomicBool::new(false),
            inside: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            options,
            inner: Mutex::new(Inner {
                interpreter: Interpreter::new(core),
                masked: false,
                irq: false,
                fiq: false,
                lost: false,
                fires: 0,
            }),
        })
    }

    pub fn is_owner(&self) -> bool {
        std::thread::current().id() == self.owner
    }

    pub fn cancel(&self) {
        self.canceled.store(true, Ordering::SeqCst);
        self.signals.kick();
    }

    /// Waits until the vCPU goes by that generation of stage 2, or does not run.
    pub fn settle(&self, generation: u64) {
        while self.inside.load(Ordering::SeqCst) && self.seen.load(Ordering::SeqCst) < generation {
            self.signals.kick();
            std::thread::yield_now();
        }
    }

    pub fn run(&self, space: &AddressSpace) -> VcpuExit {
        let mut inner = self.inner.lock();
        self.signals.set_irq(inner.irq);
        self.signals.set_fiq(inner.fiq);
        self.inside.store(true, Ordering::SeqCst);
        let exit = self.run_on(&mut inner, space);
        self.inside.store(false, Ordering::SeqCst);
        // Gone with every exit.
        (inner.irq, inner.fiq) = (false, false);
        self.signals.set_irq(false);
        self.signals.set_fiq(false);
        exit
    }

    fn run_on(&self, inner: &mut Inner, space: &AddressSpace) -> VcpuExit {
        loop {
            self.seen.store(space.generation(), Ordering::SeqCst);
            if self.canceled.swap(false, Ordering::SeqCst) {
                self.signals.cancel_kick();
                self.counts.exit(CANCELED);
                return VcpuExit::Canceled;
            }
            let around = Around {
                space,
                signals: &self.signals,
                level: AtomicBool::new(false),
                exits: !inner.masked && !inner.lost,
            };
            let result = catch_unwind(AssertUnwindSafe(|| inner.interpreter.run(&around)));
            let level = around.level.load(Ordering::SeqCst);
            inner.lost &= level;
            match result {
                Ok(_) => {
                    if level && !inner.masked && !inner.lost {
                        if self.options.lose_fires {
                            inner.fires += 1;
                            // Whether a kick meets a fire is chance; a cancellation that is late is not.
                            if inner.fires.is_multiple_of(LATE) {
                                self.canceled.store(true, Ordering::SeqCst);
                            }
                            if self.canceled.load(Ordering::SeqCst) {
                                inner.lost = true;
                                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                                continue;
                            }
                        }
                        inner.masked = true;
                        self.counts.exit(VTIMER);
                        return VcpuExit::VtimerActivated;
                    }
                }
                Err(payload) => match payload.downcast::<Left>() {
                    Ok(left) => return self.exit(inner, space, left.0),
                    Err(panic) => resume_unwind(panic),
                },
            }
        }
    }

    /// What an event looks like from EL2.
    fn exit(&self, inner: &mut Inner, space: &AddressSpace, event: Event) -> VcpuExit {
        let core = inner.interpreter.core_mut();
        let mut told = Exception::default();
        let (class, iss) = match event {
            // CV = 1, COND = 14, TI = 0.
            Event::WaitForInterrupt => (class::WFX, 1 << 24 | 14 << 20),
            Event::WaitForEvent => (class::WFX, 1 << 24 | 14 << 20 | 1),
            Event::ReadRegister { register, rt } => {
                (class::SYSTEM, esr::system_iss(register, rt, true))
            }
            Event::WriteRegister { register, rt } => {
                (class::SYSTEM, esr::system_iss(register, rt, false))
            }
            Event::Call {
                smc: true,
                immediate,
            } => (SMC, immediate.into()),
            Event::Call { immediate, .. } => {
                // A stepped HVC is done (SSAdvance); a trapped SMC is not.
                core.state.pc = core.state.pc.wrapping_add(4);
                core.state.pstate &= !exception::pstate::SS;
                (HVC, immediate.into())
            }
            Event::Synchronous { class: c, iss, far } => {
                told.virtual_address = far.unwrap_or(core.state.pc);
                match c {
                    class::DATA_ABORT | class::DATA_ABORT_LOWER => {
                        let (iss, ipa) = self.data_abort(core, space, iss, far);
                        told.physical_address = ipa;
                        (class::DATA_ABORT_LOWER, iss)
                    }
                    class::INSTRUCTION_ABORT | class::INSTRUCTION_ABORT_LOWER => {
                        let pc = core.state.pc;
                        told.physical_address = physical(core, space, pc, Purpose::Execute);
                        let walk = if is_on_walk(iss) { S1PTW } else { 0 };
                        (
                            class::INSTRUCTION_ABORT_LOWER,
                            status::TRANSLATION | 3 | walk,
                        )
                    }
                    // EL2 takes them from a lower level always.
                    class::BREAKPOINT => (class::BREAKPOINT_LOWER, iss),
                    class::STEP => (class::STEP_LOWER, iss),
                    class::WATCHPOINT => (class::WATCHPOINT_LOWER, iss),
                    c => (c, iss),
                }
            }
        };
        self.counts.exit(class);
        told.syndrome = esr::syndrome(class, iss);
        VcpuExit::Exception(told)
    }

    fn data_abort(
        &self,
        core: &Core,
        space: &AddressSpace,
        iss: u32,
        far: Option<u64>,
    ) -> (u32, u64) {
        let address = far.unwrap_or_default();
        let kind = iss & (abort::WRITE | abort::CACHE_MAINTENANCE);
        if is_on_walk(iss) {
            self.counts.no_syndrome.fetch_add(1, Ordering::Relaxed);
            return (kind | S1PTW | status::TRANSLATION | 3, 0);
        }
        let maintenance = kind & abort::CACHE_MAINTENANCE != 0;
        let purpose = match kind & abort::WRITE != 0 && !maintenance {
            true => Purpose::Write,
            false => Purpose::Read,
        };
        let ipa = physical(core, space, address, purpose);
        // Present for reading: it was a write that is not allowed.
        let fault = match space.find(ipa, false) {
            Some(_) => status::PERMISSION | 3,
            None => status::TRANSLATION | 3,
        };
        if maintenance {
            self.counts.maintenance.fetch_add(1, Ordering::Relaxed);
            return (kind | fault, ipa);
        }
        let access = instruction(core, space).map_or(0, syndrome::access);
        if access == 0 {
            self.counts.no_syndrome.fetch_add(1, Ordering::Relaxed);
        }
        (kind | fault | access, ipa)
    }

    // ---- registers

    pub fn get_reg(&self, register: u32) -> Result<u64, Refusal> {
        let inner = self.inner.lock();
        let s = &inner.interpreter.core().state;
        Ok(match register {
            reg::X0..reg::PC => s.x[register as usize],
            reg::PC => s.pc,
            reg::FPCR => s.fpcr.into(),
            reg::FPSR => s.fpsr.into(),
            reg::CPSR => u64::from(s.nzcv | s.pstate) | u64::from(s.el) << 2 | u64::from(s.sp_sel),
            _ => return Err(Refusal::BAD_ARGUMENT),
        })
    }

    pub fn set_reg(&self, register: u32, value: u64) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        let s = &mut inner.interpreter.core_mut().state;
        match register {
            reg::X0..reg::PC => s.x[register as usize] = value,
            reg::PC => s.pc = value,
            reg::FPCR => s.fpcr = value as u32,
            reg::FPSR => s.fpsr = value as u32,
            reg::CPSR => {
                let value = value as u32;
                if value >> 2 & 3 > 1 || value & 0x12 != 0 {
                    return Err(Refusal::BAD_ARGUMENT);
                }
                s.nzcv = value & 0xf000_0000;
                s.pstate = value & 0x0fff_ffe0;
                s.select_stack((value >> 2 & 3) as u8, value & 1 != 0);
            }
            _ => return Err(Refusal::BAD_ARGUMENT),
        }
        Ok(())
    }

    pub fn get_sys_reg(&self, register: u16) -> Result<u64, Refusal> {
        let mut inner = self.inner.lock();
        let core = inner.interpreter.core_mut();
        let (op0, op1, crn, crm, _) = r::fields(register);
        if let Some(el) = stack(register) {
            let s = &core.state;
            let used = usize::from(s.sp_sel && s.el == 1);
            return Ok(if el == used { s.x[31] } else { s.sp[el] });
        }
        if register == r::MPIDR_EL1 {
            return Ok(core.state.mpidr);
        }
        if (op0, op1, crn) == (3, 0, 0) && (1..=7).contains(&crm) {
            return Ok(core.features.id_register(register));
        }
        let place = registers::place(&mut core.state, register);
        place.map(|value| *value).ok_or(Refusal::BAD_ARGUMENT)
    }

    pub fn set_sys_reg(&self, register: u16, value: u64) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        let core = inner.interpreter.core_mut();
        if let Some(el) = stack(register) {
            let s = &mut core.state;
            if el == usize::from(s.sp_sel && s.el == 1) {
                s.x[31] = value;
            }
            s.sp[el] = value;
            return Ok(());
        }
        let mut features = (*core.features).clone();
        match register {
            r::MPIDR_EL1 => core.state.mpidr = value,
            r::ID_AA64PFR0_EL1 => features.gic_registers = value >> 24 & 0xf != 0,
            r::ID_AA64DFR0_EL1 => features.pmu = value >> 8 & 0xf != 0,
            r::ID_AA64MMFR0_EL1 => features.pa_range = (value & 0xf) as u8,
            _ => {
                *registers::place(&mut core.state, register).ok_or(Refusal::BAD_ARGUMENT)? = value;
                return Ok(());
            }
        }
        core.features = Arc::new(features);
        Ok(())
    }

    pub fn simd(&self, register: u32, value: Option<u128>) -> Result<u128, Refusal> {
        let mut inner = self.inner.lock();
        let place = match value {
            None => {
                let v = &inner.interpreter.core().state.v;
                return v
                    .get(register as usize)
                    .copied()
                    .ok_or(Refusal::BAD_ARGUMENT);
            }
            Some(_) => &mut inner.interpreter.core_mut().state.v,
        };
        let place = place
            .get_mut(register as usize)
            .ok_or(Refusal::BAD_ARGUMENT)?;
        *place = value.unwrap_or_default();
        Ok(*place)
    }

    pub fn set_pending(&self, interrupt: Interrupt, pending: bool) {
        let mut inner = self.inner.lock();
        match interrupt {
            Interrupt::Irq => inner.irq = pending,
            Interrupt::Fiq => inner.fiq = pending,
        }
    }

    pub fn set_vtimer_mask(&self, masked: bool) {
        self.inner.lock().masked = masked;
    }

    pub fn trap_debug_exceptions(&self, trap: bool) {
        self.traps.exceptions.store(trap, Ordering::SeqCst);
        self.inner.lock().interpreter.core_mut().debug_beneath = trap;
    }

    pub fn set_vtimer_offset(&self, offset: u64) {
        self.inner
            .lock()
            .interpreter
            .core_mut()
            .state
            .timers
            .cntvoff = offset.wrapping_sub(self.options.counter_ahead);
    }
}

/// The exception level of a stack pointer's register.
fn stack(register: u16) -> Option<usize> {
    match register {
        r::SP_EL0 => Some(0),
        registers::SP_EL1 => Some(1),
        _ => None,
    }
}

/// Where a virtual address leads in stage 1.
fn physical(core: &Core, space: &AddressSpace, address: u64, purpose: Purpose) -> u64 {
    let request = Request {
        purpose,
        el0: core.state.el == 0,
        pan: false,
        misaligned: false,
    };
    core.translate(space, address, request)
        .map_or(0, |found| found.physical)
}

/// The instruction at the PC.
fn instruction(core: &Core, space: &AddressSpace) -> Option<u32> {
    let at = physical(core, space, core.state.pc, Purpose::Execute);
    match space.find(at, false)? {
        Found::Memory { .. } => space.read(0, at, 4).map(|word| word as u32),
        Found::Device { .. } => None,
    }
}
