//! What a translator needs of an interpreter: the state and TLB that its code works on, and single instructions executed
//! in the midst of that.
#![allow(unsafe_code)] // the world, for the time of a run

use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::core::{Core, Exit, Taken};
use crate::emit::Flow;
use crate::exception::pstate;
use crate::state::State;
use crate::world::World;

use super::Interpreter;
pub use super::tlb::Counts as TlbCounts;
use super::tlb::{ALIGNED_ONLY, ENTRIES, Entry, Set, Tlb};

/// Where generated code finds what it works on: offsets in bytes.
pub struct Layout {
    /// From an [`Interpreter`] to its processor's [`State`].
    pub state: usize,
    /// From an [`Interpreter`] to the pointer to the set of TLB entries of data accesses.
    pub data: usize,
    /// The same for unprivileged accesses.
    pub user: usize,
    /// Into a set: its array of entries, indexed by bits of the address from 12 on.
    pub entries: usize,
    /// How many there are, a power of two.
    pub count: usize,
    /// Bytes of an entry, and offsets into it.
    pub entry: usize,
    /// The page's address if it may be read with no further ado.
    pub read: usize,
    pub write: usize,
    /// What is added to both where only aligned accesses may.
    pub aligned_only: u64,
    /// What to add to the address.
    pub addend: usize,
    /// From an [`Interpreter`] to a byte that is not 0 while the next DSB has something to wait for.
    pub waits: usize,
    /// From an [`Interpreter`] to a byte that is to be 0 after an exception is taken or returned from.
    pub stepped: usize,
    /// From an [`Interpreter`] to the 64 bits that [`Interpreter::code_versions`] tells.
    pub versions: usize,
}

impl Layout {
    /// Of this build.
    pub const THIS: Layout = Layout {
        state: offset_of!(Interpreter, core) + offset_of!(Core, state),
        data: offset_of!(Interpreter, data),
        user: offset_of!(Interpreter, user),
        entries: Set::ENTRIES_AT,
        count: ENTRIES,
        entry: size_of::<Entry>(),
        read: offset_of!(Entry, read),
        write: offset_of!(Entry, write),
        aligned_only: ALIGNED_ONLY,
        addend: offset_of!(Entry, addend),
        waits: offset_of!(Interpreter, core) + offset_of!(Core, has_waits),
        stepped: offset_of!(Interpreter, core) + offset_of!(Core, stepped),
        versions: offset_of!(Interpreter, tlb) + Tlb::VERSIONS_AT,
    };
}

/// The code at the PC.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Host address of the page.
    pub host: *const u8,
    /// Its physical address.
    pub physical: u64,
    /// It is there in every address space.
    pub global: bool,
}

impl Interpreter {
    /// Sets up what an execution needs, as [`Interpreter::run`] does.
    ///
    /// # Safety
    /// [`Interpreter::end_run`] is called before `world`'s borrow ends.
    pub unsafe fn start_run(&mut self, world: &dyn World) {
        // SAFETY: only the lifetime changes; the caller promises to end the run in time.
        let unbound = unsafe { std::mem::transmute::<&dyn World, &'static dyn World>(world) };
        self.world = Some(unbound);
        self.core.enter(world, &mut self.tlb);
        self.retarget();
    }

    /// Takes down what [`Interpreter::start_run`] set up.
    pub fn end_run(&mut self) {
        self.world = None;
        self.core.leave();
    }

    /// The levels of the interrupt inputs, any of them: 0 for all low. The address stays as long as the interpreter.
    pub fn lines(&self) -> *const AtomicU32 {
        self.core.signals.lines_address()
    }

    /// In the version of a granule: a store-exclusive is at work.
    pub const AT_WORK: u64 = super::granules::AT_WORK;
    /// In the version of a granule: a load-exclusive watches. Who changes memory then adds this.
    pub const WATCHED: u64 = super::granules::WATCHED;

    /// Where the version of a host address `a` is among [`Interpreter::granules`]: with g = a >> 4, (g ^ g >> shift) & mask.
    pub const GRANULE_INDEX: (u8, u32) = (super::granules::SHIFT, super::granules::MASK);

    /// Versions of granules for exclusives. The address stays as long as the machine.
    pub fn granules(&self) -> *const AtomicU64 {
        self.core.shared.granules.table()
    }

    /// The world of the present run.
    pub fn present_world(&self) -> &'static dyn World {
        self.world()
    }

    /// The state, between instructions.
    pub fn state(&mut self) -> &mut State {
        &mut self.core.state
    }

    /// What the processor is to be asked for attention by; the address stays as long as the interpreter.
    pub fn pending(&self) -> *const AtomicU32 {
        &raw const self.core.signals.pending
    }

    /// Polls; `Some` ends the run.
    pub fn poll(&mut self) -> Option<Exit> {
        let world = self.world();
        self.attend(world)
    }

    /// Executes one instruction under the guest's debugger, if it is at work.
    pub fn debug(&mut self) -> bool {
        let debugging = self.core.debugging;
        if debugging {
            self.execute_debugged();
        }
        debugging
    }

    /// Finds the code at the PC; `None` if that took an exception instead.
    pub fn code(&mut self) -> Option<Code> {
        if !self.find_code() {
            return None;
        }
        let details = *self.tlb.set(self.regime).details(self.core.state.pc);
        let entry = self.tlb.set(self.regime).entry(self.core.state.pc);
        if entry.execute != self.code_page {
            // Something else took the entry's place since.
            self.code_page = super::NO_PAGE;
            return self.code();
        }
        self.tlb.executes(self.regime, self.core.state.pc);
        Some(Code {
            host: self.code_host,
            physical: details.physical,
            global: details.global,
        })
    }

    /// Executes from the PC, which [`Interpreter::code`] has just found, until another instruction than the next follows,
    /// an exception is taken, the page ends, or `limit` instructions are executed; how many were.
    pub fn execute_straight(&mut self, limit: usize) -> usize {
        let mut pc = self.core.state.pc;
        let mut count = 0;
        loop {
            let (word, run) = self.fetch(pc);
            self.core.state.pc = pc;
            count += 1;
            match run(self, word) {
                Ok(Flow::Next) => {
                    pc = pc.wrapping_add(4);
                    if pc & 0xfff == 0 || count == limit {
                        self.core.state.pc = pc;
                        break;
                    }
                }
                Ok(Flow::Ends) => break,
                Err(Taken) => {
                    self.retarget();
                    break;
                }
            }
        }
        if !self.code_writes.is_empty() {
            self.report_code_writes();
        }
        count
    }

    /// Makes the PC the target of an indirect branch.
    pub fn branch_to(&mut self, target: u64) {
        self.core.state.pc = self.core.branch_address(target);
    }

    /// Whether the MMU is on (SCTLR_EL1.M).
    pub fn translates(&self) -> bool {
        self.core.state.sctlr[1] & 1 != 0
    }

    /// The present ASID.
    pub fn address_space(&self) -> u16 {
        self.tlb.address_space()
    }

    /// Executes an instruction word at the PC. `Ok` with [`Flow::Next`]: the PC is unchanged, and the instruction that
    /// follows is next.
    pub fn execute_word(&mut self, word: u32) -> Result<Flow, Taken> {
        let slot = (self.core.state.pc >> 2) as usize % super::DECODED;
        let mut decoded = self.decoded[slot];
        if decoded.word != word {
            decoded = super::decode_word(word, self.core.key().extensions);
            self.decoded[slot] = decoded;
        }
        let result = (decoded.run)(self, word);
        if result.is_err() {
            self.retarget();
        }
        if !self.code_writes.is_empty() {
            self.report_code_writes();
        }
        result
    }

    /// Says what was written of pages with translated code.
    #[cold]
    fn report_code_writes(&mut self) {
        let code = self.world().space().code().clone();
        for (physical, bytes) in self.code_writes.drain(..) {
            code.written(physical, bytes);
        }
    }

    /// Has writes to a page reported from now on: at once where this processor writes, and where others do as soon as
    /// they poll. What they write until then is found by the maintenance that the architecture asks of them.
    pub fn protect_code(&mut self, slot: u32) {
        self.core.protect_code(slot, &mut self.tlb);
    }

    /// Whether something wants attention.
    pub fn wants_attention(&self) -> bool {
        self.core.signals.pending.load(Ordering::Relaxed) != 0
    }

    /// Whether the next instruction may not be what is at the PC: the guest's debugger is at work, or PSTATE.IL is set.
    pub fn is_diverted(&self) -> bool {
        self.core.debugging || self.core.state.pstate & pstate::IL != 0
    }

    /// Translated code that is to be forgotten: entry of [`::memory::Code`] and lines; `None` for all.
    pub fn stale_code(&mut self) -> &mut Vec<Option<(u32, u64)>> {
        &mut self.tlb.stale_code
    }

    /// Names where code is found at present: another number than before, and it may be elsewhere. Code of EL1 that is not
    /// global depends on the address space besides.
    pub fn code_version(&self) -> u64 {
        self.tlb.version(self.regime)
    }

    /// How many numbers [`Interpreter::code_version`] has had, of any exception level and address space.
    pub fn code_versions(&self) -> u64 {
        self.tlb.versions()
    }

    /// What was done to the TLB so far.
    pub fn tlb_counts(&self) -> TlbCounts {
        self.tlb.counts
    }

    /// Counts changes of the machine's memory map that were noticed.
    pub fn map_generation(&self) -> u64 {
        self.map_generation
    }
}
