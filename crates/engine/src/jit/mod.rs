//! Dormer's own engine: guest code by generated host code where there is a back end for the host, else by the interpreter
//! of `dormer-cpu`; a thread a processor. With guest time counted in instructions, by the interpreter, in turns.

mod counted;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod translated;

use std::sync::{Arc, OnceLock};

use cpu::signals::attention;
use cpu::{Core, Interpreter, Shared, State, World};
use parking_lot::Mutex;

pub use counted::Icount;
use counted::{Counted, Turns};

use crate::{
    AddressBits, Config, Debugger, Engine, Error, Exit, InterruptController, Tier, Vcpu, Vm,
};

/// The engine.
pub struct Jit;

impl Engine for Jit {
    fn name(&self) -> &'static str {
        "jit"
    }

    fn address_bits(&self) -> AddressBits {
        AddressBits {
            most: 48,
            preferred: 48,
        }
    }

    fn create(&self, config: Config) -> Result<Arc<dyn Vm>, Error> {
        if config.icount.is_some() {
            check_counted(&config)?;
        }
        let deadlines = Arc::new(Deadlines {
            clock: config.clock.clone(),
            timers: OnceLock::new(),
        });
        let count = u32::try_from(config.mpidrs.len()).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared::new(count, deadlines.clone(), config.frequency));
        let timer = |signals: &Arc<cpu::Signals>| {
            let signals = signals.clone();
            config.clock.timer(move || signals.raise(attention::TIMER))
        };
        // Set once, just now.
        let _ = deadlines
            .timers
            .set(shared.processors().iter().map(timer).collect());
        let created = Mutex::new(vec![false; config.mpidrs.len()]);
        let turns = config
            .icount
            .map(|icount| Turns::new(icount, &config.clock, shared.processors(), &config.mpidrs));
        Ok(Arc::new(JitVm {
            config,
            shared,
            created,
            turns,
        }))
    }
}

/// Whether instructions can be counted with such a configuration.
fn check_counted(config: &Config) -> Result<(), Error> {
    if !config.clock.is_counted() {
        return Err(Error::Unavailable(
            "counted instructions need a counted clock".into(),
        ));
    }
    match config.translation.tier {
        Tier::Auto | Tier::Interpreter => Ok(()),
        Tier::Baseline | Tier::Optimizing => Err(Error::Unavailable(
            "-icount counts what the interpreter executes: leave tier= out, or say tier=interpreter"
                .into(),
        )),
    }
}

/// The machine's clock, and a timer a processor on it.
struct Deadlines {
    clock: device::Clock,
    timers: OnceLock<Vec<device::Timer>>,
}

impl cpu::Clock for Deadlines {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn arm(&self, cpu: u32, deadline: u64) {
        if let Some(timer) = self
            .timers
            .get()
            .and_then(|timers| timers.get(cpu as usize))
        {
            timer.arm(deadline);
        }
    }
}

struct JitVm {
    config: Config,
    shared: Arc<Shared>,
    /// Which processors exist.
    created: Mutex<Vec<bool>>,
    /// Processors count what they execute, and take turns.
    turns: Option<Arc<Turns>>,
}

impl JitVm {
    fn signals(&self, cpu: u32) -> Option<&Arc<cpu::Signals>> {
        self.shared.processors().get(cpu as usize)
    }

    /// A line that rises may end a wait of all processors.
    fn look(&self, level: bool) {
        if level && let Some(turns) = &self.turns {
            turns.look();
        }
    }
}

impl Vm for JitVm {
    fn interrupt_controller(&self) -> InterruptController {
        InterruptController::Ours
    }

    fn frequency(&self) -> u64 {
        self.shared.frequency
    }

    fn map(&self, _start: u64, _size: u64, _host: usize, _writable: bool) -> Result<(), Error> {
        Ok(())
    }

    fn unmap(&self, _start: u64, _size: u64) -> Result<(), Error> {
        Ok(())
    }

    fn vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, Error> {
        let mut created = self.created.lock();
        let created = created
            .get_mut(index as usize)
            .ok_or(Error::NoProcessor(index))?;
        if std::mem::replace(created, true) {
            return Err(Error::AlreadyCreated(index));
        }
        let mpidr = self.config.mpidrs[index as usize];
        let core = Core::new(
            index,
            mpidr,
            self.config.features.clone(),
            self.shared.clone(),
        );
        if let Some(turns) = &self.turns {
            return Ok(Box::new(JitVcpu(Counted::new(core, turns.clone()))));
        }
        match self.config.translation.tier {
            Tier::Interpreter => Ok(interpreted(core)),
            tier => translated(core, &self.config, tier != Tier::Auto),
        }
    }

    fn set_irq(&self, cpu: u32, level: bool) {
        if let Some(signals) = self.signals(cpu) {
            signals.set_irq(level);
        }
        self.look(level);
    }

    fn set_fiq(&self, cpu: u32, level: bool) {
        if let Some(signals) = self.signals(cpu) {
            signals.set_fiq(level);
        }
        self.look(level);
    }

    fn kick(&self, cpu: u32) {
        if let Some(signals) = self.signals(cpu) {
            signals.kick();
        }
        if let Some(turns) = &self.turns {
            turns.ring();
        }
    }
}

fn interpreted(core: Core) -> Box<dyn Vcpu> {
    Box::new(JitVcpu(Interpreter::new(core)))
}

/// A processor by generated code. `forced`: by nothing else.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn translated(core: Core, config: &Config, forced: bool) -> Result<Box<dyn Vcpu>, Error> {
    let options = translated::options(config)?;
    if !translated::has_back_end(&config.translation) {
        if forced {
            return Err(Error::Unavailable(
                "the translator needs AVX2, BMI2, LZCNT and SSE4.2".into(),
            ));
        }
        return Ok(interpreted(core));
    }
    let translator = jit::Translator::new(core, &options)
        .map_err(|e| Error::Host(format!("no memory for generated code: {e}")))?;
    Ok(Box::new(JitVcpu(translator)))
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn translated(core: Core, _: &Config, forced: bool) -> Result<Box<dyn Vcpu>, Error> {
    if forced {
        return Err(Error::Unavailable(
            "the translator has no back end for this host".into(),
        ));
    }
    Ok(interpreted(core))
}

/// What executes instructions.
trait Executor {
    fn run(&mut self, world: &dyn World) -> cpu::Exit;
    fn interpreter(&self) -> &Interpreter;
    fn interpreter_mut(&mut self) -> &mut Interpreter;

    /// The processor is in power-on state, with the whole machine.
    fn was_reset(&mut self) {}

    /// It was turned on.
    fn was_started(&mut self) {}

    /// See [`Vcpu::report`].
    fn report(&mut self) -> Option<String> {
        None
    }
}

impl Executor for Interpreter {
    fn run(&mut self, world: &dyn World) -> cpu::Exit {
        Interpreter::run(self, world)
    }

    fn interpreter(&self) -> &Interpreter {
        self
    }

    fn interpreter_mut(&mut self) -> &mut Interpreter {
        self
    }
}

struct JitVcpu<E>(E);

impl<E: Executor> Vcpu for JitVcpu<E> {
    fn run(&mut self, world: &dyn World) -> Exit {
        match self.0.run(world) {
            cpu::Exit::Kicked => Exit::Kicked,
            cpu::Exit::Off => Exit::Off,
            cpu::Exit::Debug(stop) => Exit::Debug(stop),
        }
    }

    fn reset(&mut self) {
        self.0.interpreter_mut().core_mut().reset();
        self.0.was_reset();
    }

    fn start(&mut self, entry: u64, context: u64) -> Result<(), Error> {
        let core = self.0.interpreter_mut().core_mut();
        core.reset();
        core.state.pc = entry;
        core.state.x[0] = context;
        self.0.was_started();
        Ok(())
    }

    fn state(&mut self) -> Result<State, Error> {
        Ok(self.0.interpreter().core().state.clone())
    }

    fn set_state(&mut self, state: &State) -> Result<(), Error> {
        if state.el > 1 {
            return Err(Error::State(format!(
                "exception level {} is not there",
                state.el
            )));
        }
        self.0.interpreter_mut().core_mut().set_state(state.clone());
        Ok(())
    }

    fn debug(&mut self, wanted: &Debugger) -> Result<(), Error> {
        crate::debugging::check_watchpoints(wanted)?;
        let core = self.0.interpreter_mut().core_mut();
        core.set_debugger(wanted.clone());
        Ok(())
    }

    fn report(&mut self) -> Option<String> {
        self.0.report()
    }
}
