//! The interpreter: instructions executed as they are found.
//!
//! A decoded instruction is cached by its address with the word it was decoded from, and each execution compares that
//! with memory. So code that changes itself, or is changed by another processor or a device, is always executed as it
//! is, and nothing has to be invalidated.
#![allow(unsafe_code)] // guest memory by host pointers, and the world for the time of a run

mod crossing;
mod emit;
pub(crate) mod granules;
mod memory;
#[cfg(test)]
mod tests;
mod tlb;
mod translated;

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use aarch64::{Extensions, decode};

use crate::core::{Core, Exit, Idle, Taken};
use crate::emit::{Exception, Flow};
use crate::exception::pstate;
use crate::semantics::{self, Function};
use crate::world::World;

pub use self::crossing::Surroundings;
pub use self::translated::{Code, Layout, TlbCounts};

use self::memory::Span;
use self::tlb::{Regime, Set, Tlb};

/// Entries of the decode cache.
const DECODED: usize = 1 << 14;

/// A decoded instruction.
#[derive(Clone, Copy)]
struct Decoded {
    word: u32,
    run: Function<Interpreter>,
}

/// One processor, executing.
pub struct Interpreter {
    core: Core,
    tlb: Tlb,
    /// The sets that data accesses look at first: of this exception level, and of EL0. Watched accesses are to go the
    /// long way: then it is `nothing`.
    data: NonNull<Set>,
    user: NonNull<Set>,
    regime: Regime,
    /// What the TLB was filled under.
    translation_epoch: u64,
    map_generation: u64,
    /// The page being executed (no multiple of 4096: none), and its host address.
    code_page: u64,
    code_host: *const u8,
    decoded: Box<[Decoded; DECODED]>,
    /// The pieces of a place that is not one span of host memory.
    spans: [Span; 2],
    world: Option<&'static dyn World>,
    /// The state was changed from outside: nothing cached of translations holds.
    stale: bool,
    /// The page just looked up has translated code.
    writes_code: bool,
    /// What was written of pages with translated code: physical address and bytes.
    code_writes: Vec<(u64, u64)>,
}

// SAFETY: the pointers are into `tlb`, which goes along, and into guest memory, which any thread may access.
unsafe impl Send for Interpreter {}

/// No page is at this address.
const NO_PAGE: u64 = 1;

impl Interpreter {
    /// Executes `core`'s instructions.
    pub fn new(core: Core) -> Interpreter {
        let tlb = Tlb::default();
        let nothing = Decoded {
            word: 0,
            run: semantics::undefined,
        };
        // Built on the heap: it is too large for a stack.
        let decoded = vec![nothing; DECODED].into_boxed_slice();
        Interpreter {
            data: tlb.pointer(Regime::User),
            user: tlb.pointer(Regime::User),
            regime: Regime::User,
            tlb,
            translation_epoch: core.translation_epoch,
            map_generation: u64::MAX,
            code_page: NO_PAGE,
            code_host: std::ptr::null(),
            decoded: decoded
                .try_into()
                .unwrap_or_else(|_| unreachable!("it has that length")),
            spans: [Span::default(); 2],
            world: None,
            stale: false,
            writes_code: false,
            code_writes: Vec::new(),
            core,
        }
    }

    /// The processor. Between runs its state may be changed freely.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The same, to change.
    pub fn core_mut(&mut self) -> &mut Core {
        // Translations may depend on what changes.
        self.stale = true;
        &mut self.core
    }

    /// Executes until something ends the run.
    pub fn run(&mut self, world: &dyn World) -> Exit {
        self.within(world, |interpreter, world| {
            loop {
                if let Some(exit) = interpreter.attend(world) {
                    return exit;
                }
                if interpreter.core.debugging {
                    interpreter.execute_debugged();
                } else if interpreter.find_code() {
                    interpreter.execute();
                }
            }
        })
    }

    /// Executes one instruction, or takes one exception or interrupt that is due in its place.
    pub fn step(&mut self, world: &dyn World) -> Option<Exit> {
        self.within(world, |interpreter, world| {
            let exit = interpreter.attend(world);
            if exit.is_none() {
                interpreter.execute_single();
            }
            exit
        })
    }

    /// Does as [`Interpreter::step`] does, again and again, as long as `go_on` says before a step. Nothing waits: what would
    /// sleep until an interrupt goes on at once, as it may.
    pub fn walk(
        &mut self,
        world: &dyn World,
        mut go_on: impl FnMut(&Core) -> bool,
    ) -> Option<Exit> {
        self.core.impatient = true;
        let exit = self.within(world, |interpreter, world| {
            while go_on(&interpreter.core) {
                if interpreter.wants_attention() {
                    // An interrupt that is taken is a step.
                    match interpreter.attend(world) {
                        None => continue,
                        exit => return exit,
                    }
                }
                interpreter.execute_single();
            }
            None
        });
        self.core.impatient = false;
        exit
    }

    /// Executes instruction after instruction as long as `executed`, called after each, says so. Nothing waits in here: where
    /// the processor would, the run ends, and goes on with what wakes it ([`Interpreter::waits`]). No other processor of the
    /// machine may execute until this returns `None`.
    pub fn count(&mut self, world: &dyn World, mut executed: impl FnMut() -> bool) -> Option<Exit> {
        (self.core.impatient, self.core.alone) = (true, true);
        let exit = self.within(world, |interpreter, world| {
            loop {
                if let Some(exit) = interpreter.attend(world) {
                    return Some(exit);
                }
                match interpreter.core.idle {
                    Idle::No => {}
                    Idle::Interrupt if !interpreter.core.wake_up() => return None,
                    Idle::Interrupt => interpreter.core.idle = Idle::No,
                    Idle::Event => {
                        interpreter.core.idle = Idle::No;
                        return None;
                    }
                }
                interpreter.execute_single();
                if !executed() {
                    return None;
                }
            }
        });
        (self.core.impatient, self.core.alone) = (false, false);
        if exit.is_none() {
            self.core.state.monitor.armed = false;
        }
        exit
    }

    /// Whether [`Interpreter::count`] has nothing to do until an interrupt is there, masked or not.
    pub fn waits(&self) -> bool {
        self.core.idle == Idle::Interrupt
    }

    /// Sets up what an execution needs, and takes it down.
    fn within<T>(
        &mut self,
        world: &dyn World,
        execute: impl FnOnce(&mut Interpreter, &dyn World) -> T,
    ) -> T {
        /// Takes the world back however the execution ends.
        struct Scope<'a>(&'a mut Interpreter);

        impl Drop for Scope<'_> {
            fn drop(&mut self) {
                self.0.world = None;
                self.0.core.leave();
            }
        }

        // SAFETY: only the lifetime changes; `Scope` drops the copy before `world` may go.
        let unbound = unsafe { std::mem::transmute::<&dyn World, &'static dyn World>(world) };
        self.world = Some(unbound);
        let scope = Scope(self);
        let interpreter = &mut *scope.0;
        interpreter.core.enter(world, &mut interpreter.tlb);
        interpreter.retarget();
        execute(interpreter, world)
    }

    /// The world of the present run.
    fn world(&self) -> &'static dyn World {
        self.world
            .expect("instructions are executed inside of a run only")
    }

    /// Polls: interrupts, kicks, shoot-downs.
    #[inline(always)]
    fn attend(&mut self, world: &dyn World) -> Option<Exit> {
        if self.core.signals.pending.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let exit = self.core.service(world, &mut self.tlb);
        self.retarget();
        exit
    }

    /// Finds what translations apply, after anything that they depend on may have changed: exception level, PAN, ASID,
    /// translation controls, the machine's memory map, entries of the TLB.
    fn retarget(&mut self) {
        self.code_page = NO_PAGE;
        let generation = self.world().space().generation();
        if self.map_generation != generation
            || self.translation_epoch != self.core.translation_epoch
            || self.stale
        {
            self.stale = false;
            self.map_generation = generation;
            self.translation_epoch = self.core.translation_epoch;
            crate::tlbi::Invalidate::invalidate(&mut self.tlb, &crate::tlbi::Invalidation::All);
        }
        let state = &self.core.state;
        let tcr = state.tcr[1];
        let base = if tcr >> 22 & 1 == 0 {
            state.ttbr0[1]
        } else {
            state.ttbr1[1]
        };
        let asid = (base >> 48) as u16;
        let asid = if tcr >> 36 & 1 == 0 {
            asid & 0xff
        } else {
            asid
        };
        self.tlb.switch(asid);
        self.regime = if state.el == 0 {
            Regime::User
        } else {
            Regime::Kernel {
                pan: state.pstate & pstate::PAN != 0,
            }
        };
        if self.core.debugging {
            (self.data, self.user) = (self.tlb.nothing(), self.tlb.nothing());
        } else {
            self.data = self.tlb.pointer(self.regime);
            self.user = self.tlb.pointer(Regime::User);
        }
    }

    /// Makes the next branch look the code's page up again.
    fn forget_code(&mut self) {
        self.code_page = NO_PAGE;
    }

    /// Finds the page of the PC; false if that took an exception instead.
    #[inline(always)]
    fn find_code(&mut self) -> bool {
        // The same page, and aligned.
        (self.core.state.pc ^ self.code_page) & !0xffc == 0 || self.find_new_code()
    }

    #[cold]
    #[inline(never)]
    fn find_new_code(&mut self) -> bool {
        self.code_page = NO_PAGE;
        let pc = self.core.state.pc;
        let due = if pc & 3 != 0 {
            Some(Exception::PcAlignment)
        } else if self.core.state.pstate & pstate::IL != 0 {
            Some(Exception::IllegalState)
        } else {
            None
        };
        if let Some(exception) = due {
            self.core.exception(self.world(), exception);
            self.retarget();
            return false;
        }
        match self.fetch_page(pc) {
            Ok(host) => {
                self.code_page = pc & !0xfff;
                self.code_host = host;
                true
            }
            Err(fault) => {
                self.core.instruction_abort(fault);
                self.retarget();
                false
            }
        }
    }

    /// Executes from the PC, which is in the code page, until a branch leaves the page, an exception is taken, or
    /// something wants attention.
    fn execute(&mut self) {
        let mut pc = self.core.state.pc;
        loop {
            let (word, run) = self.fetch(pc);
            self.core.state.pc = pc;
            match run(self, word) {
                Ok(Flow::Next) => {
                    pc = pc.wrapping_add(4);
                    if pc & 0xfff == 0 {
                        self.core.state.pc = pc;
                        return;
                    }
                }
                Ok(Flow::Ends) => {
                    pc = self.core.state.pc;
                    if (pc ^ self.code_page) & !0xffc != 0
                        || self.core.signals.pending.load(Ordering::Relaxed) != 0
                    {
                        return;
                    }
                }
                Err(Taken) => {
                    self.retarget();
                    return;
                }
            }
        }
    }

    /// Executes the instruction at the PC, which is in the code page; whether it took no exception.
    fn execute_one(&mut self) -> bool {
        let pc = self.core.state.pc;
        let (word, run) = self.fetch(pc);
        match run(self, word) {
            Ok(Flow::Next) => self.core.state.pc = pc.wrapping_add(4),
            Ok(Flow::Ends) => {}
            Err(Taken) => {
                self.retarget();
                return false;
            }
        }
        true
    }

    /// Executes the instruction at the PC, or takes an exception in its place.
    #[inline(always)]
    fn execute_single(&mut self) {
        if self.core.debugging {
            self.execute_debugged();
        } else if self.find_code() {
            self.execute_one();
        }
    }

    /// One instruction under the guest's own debugger: steps, breakpoints, watchpoints.
    #[cold]
    fn execute_debugged(&mut self) {
        if self.core.before_instruction().is_err() {
            self.retarget();
        } else if self.find_code() && self.execute_one() {
            self.core.after_instruction();
        }
    }

    /// The instruction at `pc`, an aligned address in the code page.
    #[inline(always)]
    fn fetch(&mut self, pc: u64) -> (u32, Function<Interpreter>) {
        // SAFETY: `code_host` is a whole page of host memory, and this a word in it.
        let word = unsafe {
            self.code_host
                .add((pc & 0xffc) as usize)
                .cast::<u32>()
                .read_volatile()
        };
        let word = u32::from_le(word);
        let slot = (pc >> 2) as usize % DECODED;
        let mut decoded = self.decoded[slot];
        if decoded.word != word {
            decoded = decode_word(word, self.core.key().extensions);
            self.decoded[slot] = decoded;
        }
        (word, decoded.run)
    }
}

#[cold]
#[inline(never)]
fn decode_word(word: u32, extensions: Extensions) -> Decoded {
    let run = match decode(word, extensions) {
        Some(instruction) => semantics::specialised(instruction, word),
        None => semantics::undefined,
    };
    Decoded { word, run }
}
