//! A processor that executes generated code.
#![allow(unsafe_code)] // generated code, and the machine's pointer that it passes on

use std::io;
use std::marker::PhantomData;

use cpu::{Core, Exit, Flow, Interpreter, State, Surroundings, World};

use super::blocks::word_at;
use super::cache::{self, Cache, Entry, ExitId};
use super::emitter::{BLOCK, Emitter};
use super::exceptions::{self, NEVER};
use super::frame::{self, Frame, HEATS, Level, Machine, PATIENCES, POOL};
use super::names::Names;
use super::thunks;
use crate::{Counters, Options};

/// MXCSR with every exception masked, rounding to nearest: its value at the start of a program.
const MXCSR: u32 = 0x1f80;

/// Counts of executions of code that is not translated.
const EXECUTIONS: usize = 1 << 16;

/// Of code that takes another's count, one in so many is translated at once.
const DISPLACED: u32 = 16;

/// What only functions use.
pub struct Side {
    pub cache: Cache,
    pub emitter: Emitter,
    pub(super) names: Names,
    /// TCR_EL1 that [`Frame::pac_masks`] are of.
    pub(super) tcr: u64,
    pub(super) perf_map: Option<std::sync::Arc<crate::PerfMap>>,
    /// Code of EL1 was found through an entry that is not global: where it is depends on the ASID.
    pub(super) local_kernel: bool,
    /// What [`Frame::levels`] was found in, and whether that was with [`Side::local_kernel`].
    pub(super) surroundings: (Option<Surroundings>, bool),
    /// What the cache was filled under.
    pub(super) map_generation: u64,
    pub(super) evictions: u64,
    /// The number of the present key.
    pub key: u16,
    pub counters: Counters,
    /// Instructions in a block, at most.
    pub limit: usize,
    /// Execution leaves after a block.
    pub(super) stepping: bool,
    /// How often code is executed by the interpreter before it is translated.
    warm: u8,
    /// How often that was, of code that is not translated, by a hash of where it is; before it a hash of what it is.
    executions: Box<[(u8, u8)]>,
    /// How often other code was counted there.
    displaced: u32,
    /// Jumps back until a loop is made; `None`: none is made.
    pub hot: Option<u32>,
    /// A loop is to be made at the PC.
    make_loop: bool,
    /// Constants of the emitter that the frame has.
    pub pooled: usize,
}

/// Jumps back until a loop is tried again that could not be made: by then the search takes a hundredth of what they took.
const RETRY: i32 = 1 << 20;

/// One processor, executing by generated code.
pub struct Translator {
    machine: Box<Machine>,
}

impl Translator {
    /// Executes `core`'s instructions, with a code cache of `options.cache` bytes.
    pub fn new(core: Core, options: &Options) -> io::Result<Translator> {
        let functions = thunks::Functions {
            link: link as *const () as usize,
            indirect: indirect as *const () as usize,
            interpret: interpret as *const () as usize,
            hot: hot as *const () as usize,
            arrive: exceptions::arrive as *const () as usize,
        };
        let cache = Cache::new(options.cache, options.perf_map.is_some(), &functions)?;
        let names = Names::new();
        let interpreter = Interpreter::new(core);
        let mut emitter = Emitter::new(options.features, interpreter.core().features.clone());
        emitter.thunks = *cache.thunks();
        let frame = Frame {
            operands: [0; 3],
            result: 0,
            page: 0,
            pending: interpreter.pending(),
            jumps: names.table(0),
            lines: interpreter.lines(),
            granules: interpreter.granules(),
            context: 1,
            flags: 0,
            mxcsr_start: MXCSR,
            mxcsr: MXCSR,
            crossed: 0,
            entry_keeps: 0,
            entry_sets: 0,
            return_keeps: 0,
            levels: [Level::default(); 2],
            levels_version: NEVER,
            kernel_sets: interpreter.kernel_sets(),
            patience: [0; PATIENCES],
            heat: [options.hot.map_or(0, initial_heat); HEATS],
            pool: [0; POOL],
            pac_masks: interpreter.core().state.pac_masks(),
        };
        Ok(Translator {
            machine: Box::new(Machine {
                interpreter,
                frame,
                side: Side {
                    cache,
                    emitter,
                    names,
                    tcr: 0,
                    perf_map: options.perf_map.clone(),
                    local_kernel: false,
                    surroundings: (None, false),
                    map_generation: 0,
                    evictions: 0,
                    key: 0,
                    counters: Counters::default(),
                    limit: BLOCK,
                    stepping: false,
                    warm: options.warm,
                    executions: vec![(0, 0); EXECUTIONS].into_boxed_slice(),
                    displaced: 0,
                    hot: options.hot,
                    make_loop: false,
                    pooled: 0,
                },
            }),
        })
    }

    /// The interpreter whose processor this is.
    pub fn interpreter(&self) -> &Interpreter {
        &self.machine.interpreter
    }

    /// The same, to change between runs.
    pub fn interpreter_mut(&mut self) -> &mut Interpreter {
        &mut self.machine.interpreter
    }

    /// What was done so far.
    pub fn counters(&mut self) -> &Counters {
        let tlb = self.machine.interpreter.tlb_counts();
        self.machine.side.counters.tlb = tlb;
        &self.machine.side.counters
    }

    /// Executes until something ends the run.
    pub fn run(&mut self, world: &dyn World) -> Exit {
        self.limit_blocks(BLOCK);
        let mut execution = Execution::start(&mut self.machine, world);
        loop {
            if let Some(exit) = execution.turn() {
                return exit;
            }
        }
    }

    /// Executes one instruction, by a block of its own, or takes one exception or interrupt that is due in its place.
    pub fn step(&mut self, world: &dyn World) -> Option<Exit> {
        self.limit_blocks(1);
        Execution::start(&mut self.machine, world).turn()
    }

    fn limit_blocks(&mut self, limit: usize) {
        let side = &mut self.machine.side;
        if side.limit != limit {
            side.limit = limit;
            side.cache.clear();
            side.names.forget();
        }
    }
}

impl Drop for Translator {
    fn drop(&mut self) {
        let cpu = self.machine.interpreter.core().index;
        tracing::debug!(cpu, "{}", self.counters());
    }
}

/// A run, which ends however it is left.
struct Execution<'a> {
    machine: *mut Machine,
    enter: unsafe extern "C" fn(usize, usize),
    /// The machine and the world are borrowed for as long.
    borrows: PhantomData<(&'a mut Machine, &'a dyn World)>,
}

impl<'a> Execution<'a> {
    fn start(machine: &'a mut Machine, world: &'a dyn World) -> Execution<'a> {
        listen(&machine.interpreter, world);
        let enter = machine.side.cache.thunks().enter;
        // SAFETY: the thunk is a C function of those arguments.
        let enter =
            unsafe { std::mem::transmute::<usize, unsafe extern "C" fn(usize, usize)>(enter) };
        // SAFETY: `drop` ends the run, within the borrow of the world.
        unsafe { machine.interpreter.start_run(world) };
        Execution {
            machine,
            enter,
            borrows: PhantomData,
        }
    }

    /// Sees to what is to be seen to, and executes generated code until it leaves.
    fn turn(&mut self) -> Option<Exit> {
        // SAFETY: the machine is borrowed, and generated code, which reaches it too, is left.
        let machine = unsafe { &mut *self.machine };
        if let Some(exit) = machine.interpreter.poll() {
            return Some(exit);
        }
        if machine.interpreter.debug() {
            return None;
        }
        machine.side.stepping = false;
        let code = machine.next()?.address;
        machine.side.stepping = machine.side.limit == 1;
        machine.side.counters.entries += 1;
        machine.before_code();
        let base = frame::base(self.machine);
        // SAFETY: `code` is a block's, made for the present key and page; it and the functions it calls work on the
        // machine, to which no reference is alive meanwhile.
        unsafe { (self.enter)(base, code) };
        None
    }
}

impl Drop for Execution<'_> {
    fn drop(&mut self) {
        // SAFETY: the machine is borrowed, and generated code is left.
        unsafe { (*self.machine).interpreter.end_run() };
    }
}

/// Has writes to translated code told to every processor of the machine.
fn listen(interpreter: &Interpreter, world: &dyn World) {
    let marks = world.space().code();
    if !marks.has_listener() {
        let shared = interpreter.core().shared.clone();
        // Another processor's may come first; it does the same.
        marks.listen(Box::new(move |slot, lines| {
            for signals in shared.processors() {
                signals.forget_code(slot, lines);
            }
        }));
    }
}

impl Machine {
    /// After generated code, before anything looks at the state.
    pub(super) fn after_code(&mut self) {
        let raised = self.frame.mxcsr & 0x3f;
        let state: &mut State = self.interpreter.state();
        state.nzcv = frame::flags_from_host(self.frame.flags);
        // IE, ZE, OE, UE, PE to IOC, DZC, OFC, UFC, IXC. An operand that is not normal is nothing to tell.
        state.fpsr |= raised & 1 | raised >> 1 & 0x1e;
        self.settle();
    }

    /// Before generated code.
    pub(super) fn before_code(&mut self) {
        self.frame.flags = frame::flags_to_host(self.interpreter.state().nzcv);
        self.frame.mxcsr = MXCSR;
    }

    /// The block at the PC, made if there is none; `None` if something is to be seen to first, or an exception was taken
    /// instead. Code that is not to be translated yet is executed in here, and the PC moves. Blocks may be forgotten.
    fn next(&mut self) -> Option<Entry> {
        loop {
            if self.interpreter.wants_attention()
                || self.interpreter.core().debugging
                || self.side.stepping
            {
                return None;
            }
            self.forget_stale();
            let code = self.interpreter.code()?;
            if !code.global && !self.side.local_kernel && self.interpreter.core().key().el != 0 {
                // Names of EL1 are of an ASID from now on, those up to now were of all.
                self.side.local_kernel = true;
                self.side.names.forget();
                self.side.cache.clear();
            }
            self.refresh();
            let pc = self.interpreter.state().pc;
            self.frame.page = pc & !0xfff;
            let offset = pc as u32 & 0xffc;
            if std::mem::take(&mut self.side.make_loop) {
                self.heat_again(code, offset);
            }
            let known = self.side.cache.page(code.physical, self.side.key);
            let known = known.and_then(|page| self.side.cache.at(page, offset));
            let entry = match known {
                Some(entry) => entry,
                None if self.is_cold(code, offset) => {
                    let count = self.interpreter.execute_straight(self.side.limit);
                    self.side.counters.cold += count as u64;
                    continue;
                }
                None => {
                    let block = self.translate(code, offset);
                    let address = self.side.cache.address(block);
                    Entry { block, address }
                }
            };
            if self.side.evictions != self.side.cache.evictions {
                self.side.evictions = self.side.cache.evictions;
                self.side.names.forget();
            }
            if self.side.limit != 1 {
                let code = entry.address as u64;
                self.side.names.put(pc, self.frame.context, code);
            }
            return Some(entry);
        }
    }

    /// Whether code that is not translated has not been executed often enough to be; counts an execution if so.
    fn is_cold(&mut self, code: cpu::Code, offset: u32) -> bool {
        if self.side.warm == 0 || self.side.limit == 1 {
            return false;
        }
        // Of multipliers any odd one does; this is 2^64 divided by the golden ratio.
        let mix = |value: u64| value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Starts of code in a page are neighbours.
        let slot = (mix(code.physical >> 12) >> 48) as usize ^ (offset >> 2) as usize;
        // What is written where other code was is executed for the first time.
        let word = word_at(code, offset);
        let tag = (mix(word.into()) >> 56) as u8;
        let known = &mut self.side.executions[slot % EXECUTIONS];
        let count = if known.0 == tag { known.1 } else { 0 };
        let mut cold = count < self.side.warm;
        if known.0 != tag {
            // Code that shares a slot with other code and is executed in turn with it would begin anew each time.
            self.side.displaced = self.side.displaced.wrapping_add(1);
            cold &= !self.side.displaced.is_multiple_of(DISPLACED);
        }
        *known = (tag, if cold { count + 1 } else { 0 });
        cold
    }

    /// Makes the loop at the PC, unless it is there already: then the jump back was out of a block that is entered before
    /// the loop's head. Blocks may be forgotten in here.
    fn heat_again(&mut self, code: cpu::Code, offset: u32) {
        let known = self.side.cache.page(code.physical, self.side.key);
        let known = known.and_then(|page| self.side.cache.at(page, offset));
        let is_there = known.is_some_and(|entry| self.side.cache.is_loop(entry.block));
        let heat = if !is_there && self.translate_loop(code, offset) {
            initial_heat(self.side.hot.unwrap_or(0))
        } else {
            // Not again soon; but code elsewhere may have the same count.
            RETRY
        };
        self.frame.heat[frame::heat_index(code.physical >> 12, offset)] = heat;
    }

    /// Forgets code that was written, or that what is mapped may have changed under.
    fn forget_stale(&mut self) {
        let generation = self.interpreter.map_generation();
        if generation != self.side.map_generation {
            self.side.map_generation = generation;
            self.side.cache.forget_foreign();
        }
        if self.interpreter.stale_code().is_empty() {
            return;
        }
        for stale in std::mem::take(self.interpreter.stale_code()) {
            match stale {
                Some((slot, lines)) => self.side.cache.invalidate(slot, lines),
                None => self.side.cache.clear(),
            }
        }
    }

    /// Where execution goes on from the state's PC: an address of code, or 0.
    pub(super) fn go(&mut self) -> usize {
        match self.next() {
            Some(entry) => {
                self.before_code();
                entry.address
            }
            None => 0,
        }
    }
}

/// An exit was taken that is not linked.
extern "C" fn link(machine: *mut Machine, exit: u32) -> usize {
    // SAFETY: generated code passes its machine, which nothing else accesses while that code runs.
    let m = unsafe { &mut *machine };
    m.after_code();
    let exit = ExitId(exit);
    let Some((to, patience)) = m.side.cache.exit(exit) else {
        return 0;
    };
    let page = m.frame.page;
    let target = page.wrapping_add(i64::from(to) as u64);
    m.interpreter.state().pc = target;
    let evictions = m.side.cache.evictions;
    let Some(entry) = m.next() else {
        return 0;
    };
    let mut again = cache::PATIENCE;
    if target == m.interpreter.state().pc && m.side.cache.evictions == evictions {
        m.side.counters.links += 1;
        let context = m.frame.context;
        again = m.side.cache.link(exit, entry.block, context, page);
    }
    if let Some(patience) = patience {
        m.frame.patience[usize::from(patience)] = again;
    }
    m.before_code();
    entry.address
}

/// A jump to an address that is not in the jump cache, or that something wants attention before.
extern "C" fn indirect(machine: *mut Machine, target: u64) -> usize {
    // SAFETY: as in `link`.
    let m = unsafe { &mut *machine };
    m.after_code();
    m.interpreter.branch_to(target);
    m.count_lookup(target);
    // Not `resume`: what the jump cache knows may be the code that led here because it is not to be executed any more.
    m.go()
}

/// A jump back to an address was taken often.
extern "C" fn hot(machine: *mut Machine, target: u64) -> usize {
    // SAFETY: as in `link`.
    let m = unsafe { &mut *machine };
    m.after_code();
    m.interpreter.branch_to(target);
    m.side.make_loop = m.side.limit == BLOCK && m.side.hot.is_some();
    let next = m.go();
    m.side.make_loop = false;
    next
}

/// What a count of jumps back starts at.
fn initial_heat(jumps: u32) -> i32 {
    i32::try_from(jumps).unwrap_or(i32::MAX).saturating_sub(1)
}

/// Executes an instruction by the interpreter. 1: generated code goes on after it.
extern "C" fn interpret(machine: *mut Machine, word: u32, site: u32) -> usize {
    // SAFETY: as in `link`.
    let m = unsafe { &mut *machine };
    m.after_code();
    m.interpreter.state().pc = m.frame.page.wrapping_add(u64::from(site & 0xfff));
    m.side.counters.fall_back(site >> 12);
    if let Ok(Flow::Next) = m.interpreter.execute_word(word) {
        if m.interpreter.stale_code().is_empty()
            && !m.interpreter.wants_attention()
            && m.still_here()
        {
            m.before_code();
            return 1;
        }
        let state = m.interpreter.state();
        state.pc = state.pc.wrapping_add(4);
    }
    m.resume()
}

impl Machine {
    /// Counts a look-up of an address, by why the jump cache did not do.
    fn count_lookup(&mut self, target: u64) {
        let jump = self.side.names.entry(target, self.frame.context);
        let counters = &mut self.side.counters;
        counters.lookups += 1;
        if self.interpreter.wants_attention() {
            counters.attended += 1;
        } else if jump.pc != target {
            counters.other_address += u64::from(jump.pc != 0);
        } else {
            counters.other_name += 1;
        }
    }
}
