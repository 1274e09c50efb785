//! An engine for whole machines of one processor: generated code, and an interpreter that follows it.
//!
//! Generated code runs for a while with the machine's clock standing still, and what it got from its surroundings is written
//! down: reads of devices, system registers, calls. Then the interpreter, on a copy of memory, executes one instruction after the
//! other and gets the same, until its registers and all of its memory are what the other's are. Interrupts rise only in between, so that both take them
//! at the same instruction. A state that the interpreter does not come to, or an access that the other did not make, is what is
//! looked for.
#![allow(unsafe_code)] // the guest's memory by its host address

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use cpu::{Core, Interpreter, Shared};
use engine::{
    AddressBits, CallOutcome, Config, Engine, Error, Exit, Features, InterruptController, State,
    Translation, Vcpu, Vm, World,
};
use memory::{Access, AddressSpace, Mapping, Mmio, Ram, RomDevice};
use parking_lot::Mutex;

/// Host time that generated code runs for at a time.
const RUN: Duration = Duration::from_millis(1);
/// Guest time that passes in between, and after a wait; nanoseconds.
const PASSES: u64 = 200_000;
const WAIT_PASSES: u64 = 5_000_000;
/// Instructions after which the interpreter will not come to the state any more: many times what is executed in a run, which a busy
/// host may end late.
const MOST_STEPS: u64 = 400_000_000;
/// Fewer are a wait.
const FEW_STEPS: u64 = 64;

/// What came of it.
#[derive(Default)]
pub struct Findings {
    /// Times that both were in the same state.
    pub compared: AtomicU64,
    /// Instructions that the interpreter executed.
    pub instructions: AtomicU64,
    /// Accesses to devices and system registers, calls, changes of interrupt lines.
    pub events: AtomicU64,
    /// The first difference, in words.
    pub difference: Mutex<Option<String>>,
}

/// The engine.
pub struct Shadowed {
    pub translation: Translation,
    /// What the follower has in the place of the machine's features, for seeing that differences are found.
    pub other_features: Option<Arc<Features>>,
    pub findings: Arc<Findings>,
}

impl Engine for Shadowed {
    fn name(&self) -> &'static str {
        "jit"
    }

    fn address_bits(&self) -> AddressBits {
        engine::jit::Jit.address_bits()
    }

    fn create(&self, config: Config) -> Result<Arc<dyn Vm>, Error> {
        if config.mpidrs.len() != 1 {
            return Err(Error::Unavailable(
                "only machines of one processor can be followed".into(),
            ));
        }
        let inner = engine::jit::Jit.create(Config {
            translation: self.translation.clone(),
            ..config.clone()
        })?;
        let inputs = Arc::new(Inputs {
            vm: inner.clone(),
            thread: Mutex::new(None),
            wanted: AtomicU32::new(0),
            applied: AtomicU32::new(0),
            kicked: AtomicBool::new(false),
            log: Arc::default(),
        });
        Ok(Arc::new(ShadowedVm {
            inner,
            features: match &self.other_features {
                Some(features) => features.clone(),
                None => config.features.clone(),
            },
            config,
            inputs,
            memory: Mutex::default(),
            findings: self.findings.clone(),
        }))
    }
}

struct ShadowedVm {
    inner: Arc<dyn Vm>,
    config: Config,
    /// The follower's.
    features: Arc<Features>,
    inputs: Arc<Inputs>,
    /// Start, size and host address of what was mapped.
    memory: Mutex<Vec<(u64, u64, usize)>>,
    findings: Arc<Findings>,
}

const IRQ: u32 = 1;
const FIQ: u32 = 2;

/// What reaches the processor from outside.
struct Inputs {
    vm: Arc<dyn Vm>,
    /// The processor's.
    thread: Mutex<Option<ThreadId>>,
    /// Lines as they are driven, and as the processors have them.
    wanted: AtomicU32,
    applied: AtomicU32,
    /// The machine wants the processor out of its run.
    kicked: AtomicBool,
    log: Arc<Log>,
}

impl Inputs {
    fn drive(&self, line: u32, level: bool) {
        if level {
            self.wanted.fetch_or(line, Ordering::SeqCst);
            // It rises at the run's end.
            return self.vm.kick(0);
        }
        self.wanted.fetch_and(!line, Ordering::SeqCst);
        if *self.thread.lock() != Some(std::thread::current().id()) {
            return self.vm.kick(0);
        }
        // In the midst of an access of the processor's own.
        if self.applied.fetch_and(!line, Ordering::SeqCst) & line != 0 {
            self.log.push(Event::Falls(line));
            self.pass_on(line, false);
        }
    }

    fn pass_on(&self, line: u32, level: bool) {
        if line == IRQ {
            self.vm.set_irq(0, level);
        } else {
            self.vm.set_fiq(0, level);
        }
    }
}

/// What the processor got from its surroundings, or did to them: written down after it, so that a line that falls in it
/// comes before it.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Read(u64, u8, u64),
    Write(u64, u8, u64),
    ReadRegister(u16, Option<u64>),
    WriteRegister(u16, u64, Option<()>),
    Private(u32, bool),
    /// X0 to X17 before and after.
    Call(Box<([u64; 18], [u64; 18])>, CallOutcome),
    Falls(u32),
}

#[derive(Default)]
struct Log {
    events: Mutex<VecDeque<Event>>,
    left: AtomicUsize,
}

impl Log {
    fn push(&self, event: Event) {
        self.events.lock().push_back(event);
        self.left.fetch_add(1, Ordering::SeqCst);
    }

    fn pop(&self) -> Option<Event> {
        let event = self.events.lock().pop_front()?;
        self.left.fetch_sub(1, Ordering::SeqCst);
        Some(event)
    }

    fn is_done(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn clear(&self) {
        self.events.lock().clear();
        self.left.store(0, Ordering::SeqCst);
    }
}

impl Vm for ShadowedVm {
    fn interrupt_controller(&self) -> InterruptController {
        self.inner.interrupt_controller()
    }

    fn frequency(&self) -> u64 {
        self.inner.frequency()
    }

    fn map(&self, start: u64, size: u64, host: usize, writable: bool) -> Result<(), Error> {
        if writable {
            self.memory.lock().push((start, size, host));
        }
        self.inner.map(start, size, host, writable)
    }

    fn unmap(&self, start: u64, size: u64) -> Result<(), Error> {
        self.inner.unmap(start, size)
    }

    fn vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, Error> {
        let vcpu = self.inner.vcpu(index)?;
        *self.inputs.thread.lock() = Some(std::thread::current().id());
        let clock = Arc::new(Time(self.config.clock.clone()));
        let shared = Arc::new(Shared::new(1, clock, self.config.frequency));
        let core = Core::new(0, self.config.mpidrs[0], self.features.clone(), shared);
        let memory = Memory::of(&self.memory.lock())?;
        let running = Arc::new(AtomicBool::new(false));
        pace(&self.inner, &running)?;
        Ok(Box::new(ShadowedVcpu {
            vcpu,
            follower: Interpreter::new(core),
            clock: self.config.clock.clone(),
            inputs: self.inputs.clone(),
            memory,
            copied: false,
            running,
            surroundings: None,
            recorder_reported: Mutex::default(),
            follower_reported: Mutex::default(),
            findings: self.findings.clone(),
        }))
    }

    fn set_irq(&self, _: u32, level: bool) {
        self.inputs.drive(IRQ, level);
    }

    fn set_fiq(&self, _: u32, level: bool) {
        self.inputs.drive(FIQ, level);
    }

    fn kick(&self, _: u32) {
        self.inputs.kicked.store(true, Ordering::SeqCst);
        self.inner.kick(0);
    }
}

/// Ends runs of generated code after a while.
fn pace(vm: &Arc<dyn Vm>, running: &Arc<AtomicBool>) -> Result<(), Error> {
    let (vm, running) = (vm.clone(), Arc::downgrade(running));
    std::thread::Builder::new()
        .name("pace".into())
        .spawn(move || {
            while let Some(running) = running.upgrade() {
                if running.load(Ordering::SeqCst) {
                    vm.kick(0);
                }
                drop(running);
                std::thread::sleep(RUN);
            }
        })
        .map(drop)
        .map_err(|e| Error::Host(e.to_string()))
}

/// The follower's time, which stands still while it runs; at each start it looks what is due.
struct Time(device::Clock);

impl cpu::Clock for Time {
    fn now(&self) -> u64 {
        self.0.now()
    }

    fn arm(&self, _: u32, _: u64) {}
}

struct ShadowedVcpu {
    vcpu: Box<dyn Vcpu>,
    follower: Interpreter,
    clock: device::Clock,
    inputs: Arc<Inputs>,
    memory: Memory,
    copied: bool,
    /// Generated code runs.
    running: Arc<AtomicBool>,
    /// The map's generation, and the same map as each has it.
    surroundings: Option<(u64, Arc<AddressSpace>, Arc<AddressSpace>)>,
    /// Levels of private interrupts as they were last told.
    recorder_reported: Mutex<Vec<(u32, bool)>>,
    follower_reported: Mutex<Vec<(u32, bool)>>,
    findings: Arc<Findings>,
}

impl ShadowedVcpu {
    /// The map as generated code has it, with devices that write down, and as the follower has it.
    fn surroundings(
        &mut self,
        world: &dyn World,
    ) -> Result<(Arc<AddressSpace>, Arc<AddressSpace>), String> {
        let generation = world.space().generation();
        if let Some((known, recorded, replayed)) = &self.surroundings
            && *known == generation
        {
            return Ok((recorded.clone(), replayed.clone()));
        }
        let (recorded, replayed) = (AddressSpace::new(), AddressSpace::new());
        for (start, size, mapping) in world.space().regions() {
            let other = match &mapping {
                Mapping::Ram { .. } => {
                    let Some(span) = self.memory.spans.iter().find(|span| span.start == start)
                    else {
                        return Err(format!("RAM at {start:#x} was not told of"));
                    };
                    (mapping, Mapping::Ram { host: span.copy })
                }
                Mapping::ReadOnly { .. } => (mapping.clone(), mapping),
                // What a change of its mode makes readable or not is seen from the next run on.
                Mapping::Rom(rom) => {
                    let with = |device| {
                        Mapping::Rom(Arc::new(RomDevice {
                            host: rom.host,
                            size: rom.size,
                            array_mode: rom.array_mode.clone(),
                            device,
                        }))
                    };
                    (
                        with(self.recorder(start, &rom.device)),
                        with(self.replayer(start)),
                    )
                }
                Mapping::Mmio(device) => (
                    Mapping::Mmio(self.recorder(start, device)),
                    Mapping::Mmio(self.replayer(start)),
                ),
            };
            let put = |space: &AddressSpace, mapping| {
                space.map(start, size, mapping).map_err(|e| e.to_string())
            };
            put(&recorded, other.0)?;
            put(&replayed, other.1)?;
        }
        let (recorded, replayed) = (Arc::new(recorded), Arc::new(replayed));
        self.surroundings = Some((generation, recorded.clone(), replayed.clone()));
        Ok((recorded, replayed))
    }

    fn recorder(&self, start: u64, device: &Arc<dyn Mmio>) -> Arc<dyn Mmio> {
        Arc::new(Recorder {
            device: device.clone(),
            start,
            log: self.inputs.log.clone(),
        })
    }

    fn replayer(&self, start: u64) -> Arc<dyn Mmio> {
        Arc::new(Replayer {
            start,
            log: self.inputs.log.clone(),
            signals: self.follower.core().signals.clone(),
            findings: self.findings.clone(),
        })
    }

    /// A run of generated code, and the follower after it.
    fn run_both(&mut self, world: &dyn World) -> Result<(Exit, u64), String> {
        let (recorded, replayed) = self.surroundings(world)?;
        if !self.copied {
            self.copied = true;
            self.memory.copy();
        }
        self.apply_lines();
        let before = self.follower.core().state.pc;
        let log = self.inputs.log.clone();
        log.clear();
        let recorder = RecordingWorld {
            world,
            space: &recorded,
            log: &log,
            reported: &self.recorder_reported,
        };
        self.running.store(true, Ordering::SeqCst);
        let exit = self.vcpu.run(&recorder);
        self.running.store(false, Ordering::SeqCst);
        let target = self.vcpu.state().map_err(|e| e.to_string())?;
        let events = log.left.load(Ordering::SeqCst);
        self.findings
            .events
            .fetch_add(events as u64, Ordering::Relaxed);

        let mut steps = 0;
        let mut nearest = Nearest::default();
        let memory = &self.memory;
        let mut is_there = |core: &Core| {
            core.state.pc == target.pc
                && log.is_done()
                && nearest.is_same(&target, &core.state, memory)
        };
        let replayer = ReplayingWorld {
            space: &replayed,
            log: &log,
            signals: self.follower.core().signals.clone(),
            reported: &self.follower_reported,
            findings: &self.findings,
        };
        let findings = self.findings.clone();
        self.follower.walk(&replayer, |core| {
            let goes_on = steps < MOST_STEPS
                && !is_there(core)
                && (steps % 64 != 0 || findings.difference.lock().is_none());
            steps += u64::from(goes_on);
            goes_on
        });
        self.findings
            .instructions
            .fetch_add(steps, Ordering::Relaxed);

        if let Some(difference) = self.findings.difference.lock().take() {
            let state = &self.follower.core().state;
            return Err(format!(
                "{difference}\n{steps} instructions after {before:#x}, at {:#x}; it was to come to {:#x}, and where it \
                 was next, there differed (generated code's value first):\n{}",
                state.pc, target.pc, nearest.differences
            ));
        }
        if steps == MOST_STEPS {
            return Err(format!(
                "{steps} instructions after {before:#x} the interpreter has not come to {:#x}; {} of {events} events are left; \
                 where it was next, there differed (generated code's value first):\n{}",
                target.pc,
                log.left.load(Ordering::SeqCst),
                nearest.differences
            ));
        }
        self.findings.compared.fetch_add(1, Ordering::Relaxed);
        Ok((exit, steps))
    }

    /// Gives both processors the lines as they are now.
    fn apply_lines(&self) {
        let wanted = self.inputs.wanted.load(Ordering::SeqCst);
        let applied = self.inputs.applied.swap(wanted, Ordering::SeqCst);
        for line in [IRQ, FIQ] {
            if (wanted ^ applied) & line != 0 {
                let level = wanted & line != 0;
                self.inputs.pass_on(line, level);
                set_line(&self.follower.core().signals, line, level);
            }
        }
    }

    fn follow(&mut self, world: &dyn World) -> Result<Exit, String> {
        self.clock.stop();
        loop {
            let (exit, steps) = self.run_both(world)?;
            if exit != Exit::Kicked || self.inputs.kicked.swap(false, Ordering::SeqCst) {
                return Ok(exit);
            }
            let passes = if steps < FEW_STEPS {
                WAIT_PASSES
            } else {
                PASSES
            };
            let until = self.clock.now() + passes;
            self.clock.start();
            while self.clock.now() < until {
                std::hint::spin_loop();
            }
            self.clock.stop();
        }
    }
}

impl Vcpu for ShadowedVcpu {
    fn run(&mut self, world: &dyn World) -> Exit {
        let exit = self.follow(world);
        self.clock.start();
        exit.unwrap_or_else(|difference| {
            let words = difference.clone();
            self.findings.difference.lock().get_or_insert(difference);
            Exit::Fault(words)
        })
    }

    fn reset(&mut self) {
        self.vcpu.reset();
        self.follower.core_mut().reset();
        // What the machine puts into memory for its start.
        self.copied = false;
    }

    fn state(&mut self) -> Result<State, Error> {
        self.vcpu.state()
    }

    fn set_state(&mut self, state: &State) -> Result<(), Error> {
        self.follower.core_mut().set_state(state.clone());
        self.copied = false;
        self.vcpu.set_state(state)
    }
}

fn set_line(signals: &cpu::Signals, line: u32, level: bool) {
    if line == IRQ {
        signals.set_irq(level);
    } else {
        signals.set_fiq(level);
    }
}

/// The machine's memory, and the follower's copy of it.
struct Memory {
    spans: Vec<Span>,
    _copy: Ram,
}

/// A span of it, and the host addresses where generated code and the follower have it.
struct Span {
    start: u64,
    size: usize,
    host: usize,
    copy: usize,
}

impl Memory {
    /// Of what was mapped: starts, sizes and host addresses.
    fn of(mapped: &[(u64, u64, usize)]) -> Result<Memory, Error> {
        let ranges: Vec<_> = mapped
            .iter()
            .map(|(start, size, _)| (*start, *size))
            .collect();
        let copy = Ram::new(&ranges).map_err(|e| Error::Host(e.to_string()))?;
        let spans = mapped.iter().zip(copy.ranges());
        let spans = spans.map(|((start, size, host), (_, _, copy))| Span {
            start: *start,
            size: *size as usize,
            host: *host,
            copy: copy as usize,
        });
        Ok(Memory {
            spans: spans.collect(),
            _copy: copy,
        })
    }

    /// Gives the follower what the machine has.
    fn copy(&self) {
        for span in &self.spans {
            let (from, to) = (span.host as *const u8, span.copy as *mut u8);
            // SAFETY: both are whole spans of guest memory, which live as long as the machine; no processor runs.
            unsafe { std::ptr::copy_nonoverlapping(from, to, span.size) };
        }
    }

    /// Both contents of a span.
    fn both(&self, span: usize) -> (&[u8], &[u8]) {
        let span = &self.spans[span];
        // SAFETY: whole spans of guest memory, which live as long as the machine; no processor executes meanwhile.
        unsafe {
            (
                std::slice::from_raw_parts(span.host as *const u8, span.size),
                std::slice::from_raw_parts(span.copy as *const u8, span.size),
            )
        }
    }
}

/// How near the follower came to a state at its PC.
struct Nearest {
    /// How many registers differed.
    registers: usize,
    differences: String,
    /// A byte that differed where no register did: its span and offset. It tells turns of a loop apart that differ in memory only.
    byte: Option<(usize, usize)>,
}

impl Default for Nearest {
    fn default() -> Nearest {
        Nearest {
            registers: usize::MAX,
            differences: "it was never there".into(),
            byte: None,
        }
    }
}

impl Nearest {
    fn is_same(&mut self, target: &State, state: &State, memory: &Memory) -> bool {
        let registers = state.x.iter().zip(&target.x);
        let differing = registers.filter(|(one, other)| one != other).count();
        if differing > self.registers || (differing > 0 && differing == self.registers) {
            return false;
        }
        self.registers = differing;
        if differing == 0
            && let Some((span, at)) = self.byte
        {
            let (one, other) = memory.both(span);
            if one[at] != other[at] {
                return false;
            }
        }
        self.differences = differences(target, state);
        if !self.differences.is_empty() {
            return false;
        }
        for (number, span) in memory.spans.iter().enumerate() {
            let (one, other) = memory.both(number);
            if one == other {
                continue;
            }
            let at = one.iter().zip(other).position(|(a, b)| a != b);
            let at = at.unwrap_or_default();
            let some = |bytes: &[u8]| format!("{:02x?}", &bytes[at..(at + 8).min(bytes.len())]);
            self.byte = Some((number, at));
            self.differences = format!(
                "memory at {:#x}: {} and {}\n",
                span.start + at as u64,
                some(one),
                some(other)
            );
            return false;
        }
        true
    }
}

/// What a guest can see of a state: where the memory of its exclusive monitor is in this process, and stack pointers that are
/// stale, are left out.
fn visible(state: &State) -> State {
    let mut state = state.clone();
    state.select_stack(state.el, state.sp_sel);
    state.monitor = cpu::Monitor {
        armed: state.monitor.armed,
        ..cpu::Monitor::default()
    };
    state
}

/// The fields that are not the same, in words.
fn differences(one: &State, other: &State) -> String {
    let text = |state: &State| format!("{:#x?}", visible(state));
    let (one, other) = (text(one), text(other));
    let mut field = String::new();
    let mut all = String::new();
    for (number, (a, b)) in one.lines().zip(other.lines()).enumerate() {
        if let Some((name, _)) = a.trim().split_once(": ") {
            field = format!("{name} (line {number})");
        }
        if a != b {
            all += &format!("{field}: {} and {}\n", a.trim(), b.trim());
        }
    }
    all
}

/// A device, for generated code.
struct Recorder {
    device: Arc<dyn Mmio>,
    start: u64,
    log: Arc<Log>,
}

impl Mmio for Recorder {
    fn read(&self, access: Access) -> u64 {
        let value = self.device.read(access);
        let at = self.start + access.offset;
        self.log.push(Event::Read(at, access.width, value));
        value
    }

    fn write(&self, access: Access, value: u64) {
        let at = self.start + access.offset;
        self.device.write(access, value);
        self.log.push(Event::Write(at, access.width, value));
    }
}

struct RecordingWorld<'a> {
    world: &'a dyn World,
    space: &'a AddressSpace,
    log: &'a Log,
    reported: &'a Mutex<Vec<(u32, bool)>>,
}

/// Whether a level is news.
fn changes(reported: &Mutex<Vec<(u32, bool)>>, intid: u32, level: bool) -> bool {
    let mut reported = reported.lock();
    match reported.iter_mut().find(|(n, _)| *n == intid) {
        Some((_, known)) => std::mem::replace(known, level) != level,
        None => {
            reported.push((intid, level));
            true
        }
    }
}

impl World for RecordingWorld<'_> {
    fn space(&self) -> &AddressSpace {
        self.space
    }

    fn read_system_register(&self, cpu: u32, register: u16) -> Option<u64> {
        let value = self.world.read_system_register(cpu, register);
        self.log.push(Event::ReadRegister(register, value));
        value
    }

    fn write_system_register(&self, cpu: u32, register: u16, value: u64) -> Option<()> {
        let known = self.world.write_system_register(cpu, register, value);
        self.log.push(Event::WriteRegister(register, value, known));
        known
    }

    fn private_interrupt(&self, cpu: u32, intid: u32, level: bool) {
        self.world.private_interrupt(cpu, intid, level);
        if changes(self.reported, intid, level) {
            self.log.push(Event::Private(intid, level));
        }
    }

    fn call(&self, cpu: u32, x: &mut [u64; 18]) -> CallOutcome {
        let before = *x;
        let outcome = self.world.call(cpu, x);
        self.log.push(Event::Call(Box::new((before, *x)), outcome));
        outcome
    }
}

/// A device, for the follower.
struct Replayer {
    start: u64,
    log: Arc<Log>,
    signals: Arc<cpu::Signals>,
    findings: Arc<Findings>,
}

/// The next event, once the lines that fell in it have.
fn next(log: &Log, signals: &cpu::Signals) -> Option<Event> {
    loop {
        let event = log.pop()?;
        if let Event::Falls(line) = event {
            set_line(signals, line, false);
            continue;
        }
        return Some(event);
    }
}

fn differs(findings: &Findings, did: &str, event: Option<Event>) {
    let mut difference = findings.difference.lock();
    difference.get_or_insert_with(|| match event {
        Some(event) => format!("the interpreter {did}, where generated code's was {event:x?}"),
        None => format!("the interpreter {did}, which generated code did not"),
    });
}

impl Mmio for Replayer {
    fn read(&self, access: Access) -> u64 {
        let at = self.start + access.offset;
        match next(&self.log, &self.signals) {
            Some(Event::Read(address, width, value)) if (address, width) == (at, access.width) => {
                value
            }
            other => {
                let did = format!("read {} bytes at {at:#x}", access.width);
                differs(&self.findings, &did, other);
                0
            }
        }
    }

    fn write(&self, access: Access, value: u64) {
        let at = self.start + access.offset;
        let event = next(&self.log, &self.signals);
        if event != Some(Event::Write(at, access.width, value)) {
            let did = format!("wrote {value:#x} as {} bytes at {at:#x}", access.width);
            differs(&self.findings, &did, event);
        }
    }
}

struct ReplayingWorld<'a> {
    space: &'a AddressSpace,
    log: &'a Log,
    signals: Arc<cpu::Signals>,
    reported: &'a Mutex<Vec<(u32, bool)>>,
    findings: &'a Findings,
}

impl World for ReplayingWorld<'_> {
    fn space(&self) -> &AddressSpace {
        self.space
    }

    fn read_system_register(&self, _: u32, register: u16) -> Option<u64> {
        match next(self.log, &self.signals) {
            Some(Event::ReadRegister(number, value)) if number == register => value,
            other => {
                differs(
                    self.findings,
                    &format!("read register {register:#x}"),
                    other,
                );
                None
            }
        }
    }

    fn write_system_register(&self, _: u32, register: u16, value: u64) -> Option<()> {
        match next(self.log, &self.signals) {
            Some(Event::WriteRegister(number, written, known))
                if (number, written) == (register, value) =>
            {
                known
            }
            other => {
                let did = format!("wrote {value:#x} to register {register:#x}");
                differs(self.findings, &did, other);
                None
            }
        }
    }

    fn private_interrupt(&self, _: u32, intid: u32, level: bool) {
        if !changes(self.reported, intid, level) {
            return;
        }
        let event = next(self.log, &self.signals);
        if event != Some(Event::Private(intid, level)) {
            let did = format!("had its interrupt {intid} at {level}");
            differs(self.findings, &did, event);
        }
    }

    fn call(&self, _: u32, x: &mut [u64; 18]) -> CallOutcome {
        match next(self.log, &self.signals) {
            Some(Event::Call(registers, outcome)) if registers.0 == *x => {
                *x = registers.1;
                outcome
            }
            other => {
                differs(self.findings, &format!("called with {x:x?}"), other);
                CallOutcome::Resume
            }
        }
    }
}
