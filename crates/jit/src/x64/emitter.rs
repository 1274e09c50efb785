//! Emits code for one block of guest instructions, in one pass.
//!
//! Values are small expressions: they are evaluated when something is done with them (a register written, memory accessed,
//! a branch taken), with the place that the result goes to known. They die with the instruction, so an expression that is
//! used twice is computed twice.
//!
//! What an instruction cannot be emitted for, for whatever reason, is undone and left to the interpreter: [`Emitter::fail`].
//! An access that the TLB does not answer does the same at run time: as nothing was done before it, the interpreter executes
//! the whole instruction in its place.

use std::sync::Arc;

use cpu::{Access, Flow, Key, Width};

use super::assembler::{Assembler, Label, Mem, RAX, RCX, RDI, RDX, RSI, Reg, Rm, ShiftOp, Xmm};
use super::atomic::Loaded;
use super::copies::Copies;
use super::emit::run;
use super::features::HostFeatures;
use super::flags::FlagsOf;
use super::frame::{self, Homes};
use super::host_flags::Origin;
use super::places::Places;

/// A 64-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub(super) u16);

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    Constant(u64),
    /// A guest register as it was when written for the n-th time in the block.
    Guest(u8, u32),
    /// The address of the page that executes, and an offset.
    Pc(i64),
    Binary(Binary, Width, Value, Value),
    Unary(Unary, Width, Value),
    Shift(ShiftOp, Width, Value, u8),
    ShiftBy(ShiftOp, Width, Value, Value),
    ExtractPair(Width, Value, Value, u8),
    Select(Width, Cond, Value, Value),
    /// C as 0 or 1.
    Carry,
    /// A sum or difference whose flags may be wanted, with the carry in if any.
    WithFlags {
        subtract: bool,
        w: Width,
        a: Value,
        b: Value,
        carry: bool,
    },
    /// Memory of the present place.
    Read {
        offset: i32,
        size: u8,
    },
    /// A register that is this value's to the end of the instruction.
    Register(Reg),
    /// A stack slot.
    Slot(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Sub,
    And,
    Or,
    Xor,
    Mul,
    MulHigh(bool),
    Div(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Not,
    ZeroExtend(u8),
    SignExtend(u8),
    LeadingZeros,
    TrailingZeros,
    LeadingSigns,
    ReverseBits,
    ReverseBytes(u8),
}

/// A truth value.
#[derive(Clone, Copy, Debug)]
pub struct Cond {
    pub(super) test: Test,
    pub(super) not: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    True,
    /// A condition code on the flags.
    Code(u8),
    Zero(Width, Value),
    Bit(Value, u8),
}

/// N, Z, C and V.
#[derive(Clone, Copy, Debug)]
pub enum Flags {
    Current,
    Of(Value),
    Logic(Width, Value),
    From(Value),
    /// An entry of [`Emitter::selections`].
    Select(u16),
    /// In the frame already.
    Written,
}

/// Where a vector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place128 {
    Guest(u8, u32),
    Xmm(Xmm),
    Constant(u128),
}

/// 128 bits: an entry of [`Emitter::vectors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector(pub(super) u8);

/// Memory that was proven accessible: its host address is in a register.
#[derive(Clone, Copy, Debug)]
pub struct Place(pub(super) Reg);

/// Where a value is without further code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direct {
    Constant(i32),
    Rm(Rm),
}

/// How a block goes on after an instruction that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the address of its page plus this.
    Jump(i64),
    /// Where RAX says; the code for it is there.
    Indirect,
}

/// Code out of line.
pub(super) enum Stub {
    /// Executes an instruction by the interpreter.
    Interpret {
        from: Label,
        back: Label,
        word: u32,
        offset: u32,
        cause: Cause,
        /// Host addresses that are kept for what follows.
        open: [Option<u8>; frame::PLACES as usize],
        sunk: Option<FlagsOf>,
        /// What the host's vector registers are taken to hold after it.
        copies: Copies,
    },
    /// A side exit to an offset. `flags`: the guest's are only in the host's.
    Exit {
        from: Label,
        to: i64,
        flags: bool,
        sunk: Option<FlagsOf>,
    },
    /// A way inside a loop to where flags are expected in the frame.
    Edge {
        from: Label,
        to: Label,
        sunk: Option<FlagsOf>,
    },
    /// A jump back to an offset by a thunk: something wants attention before it, or it was taken often.
    Back {
        from: Label,
        to: i64,
        thunk: usize,
        /// The guest's flags are only in the host's.
        flags: bool,
        sunk: Option<FlagsOf>,
    },
    /// An access that is not in the page that the loop keeps for it.
    Window {
        from: Label,
        back: Label,
        slow: Label,
        window: u8,
        /// It is not kept where this guest register is zero.
        stride: Option<u8>,
        address: Reg,
        access: Access,
        /// The host address, and another register.
        place: Reg,
        entry: Reg,
    },
    /// An access, or several near each other from `ends[0]` to `ends[1]` bytes beyond its address, that are not in the page that
    /// is kept for them on trial.
    Trial {
        from: Label,
        back: Label,
        elsewhere: Label,
        window: u8,
        access: Access,
        ends: [i32; 2],
        /// Its address, the TLB's entry, the place.
        registers: [Reg; 3],
    },
    /// An access near others, where not all of those are in one page. `registers`: its address, the TLB's entry, the place.
    Leader {
        from: Label,
        back: Label,
        slow: Label,
        number: u8,
        access: Access,
        registers: [Reg; 3],
    },
    /// An access near an earlier one whose host address is not kept.
    Near {
        from: Label,
        back: Label,
        slow: Label,
        base: u8,
        offset: i32,
        access: Access,
        registers: [Reg; 3],
    },
    /// An access that no entry of ordinary memory answers; aligned, one of Device memory may.
    Strict {
        from: Label,
        back: Label,
        slow: Label,
        address: Reg,
        page: Reg,
        tag: Mem,
        align: u8,
    },
    /// A vector operation by its function.
    Function {
        from: Label,
        back: Label,
        operation: usize,
        function: usize,
        operands: [Place128; 3],
        result: Xmm,
    },
}

/// Addresses of the code that all blocks share.
#[derive(Clone, Copy, Debug, Default)]
pub struct Thunks {
    pub enter: usize,
    pub leave: usize,
    pub link: usize,
    pub dead: usize,
    pub indirect: usize,
    /// A jump to another page that is not linked, or not for the present context and page.
    pub far: usize,
    pub interpret: usize,
    /// Where [`Thunks::interpret`] goes on if not after the instruction.
    pub interpreted: usize,
    pub call: usize,
    /// A target in RAX that is jumped back to often.
    pub hot: usize,
    /// The function that [`Thunks::interpret`] calls.
    pub interpret_function: usize,
    /// Of each key for pointers: adds a code, checks it.
    pub pointers: [(usize, usize); super::pointers::KEYS],
    /// SVC and ERET.
    pub crossings: super::exceptions::Crossings,
}

/// A direct jump out of a block that is not linked yet.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// Where in the block its 32-bit displacement is, and the code that links it.
    pub at: u32,
    pub stub: u32,
    /// Where it goes, from the start of the page.
    pub to: i32,
    /// If that is another page.
    pub far: Option<Far>,
}

/// What a jump to another page compares before it is taken as it is linked: where in the block that is.
#[derive(Clone, Copy, Debug)]
pub struct Far {
    /// The [`frame::Frame::context`] that the link holds in: 0 for none.
    pub context: u32,
    /// The address of the page that the block is in.
    pub page: u32,
    /// An index into [`frame::Frame::patience`].
    pub patience: u16,
}

/// Why an instruction was left to the interpreter.
pub type Cause = &'static str;

pub struct Emitter {
    pub asm: Assembler,
    pub thunks: Thunks,
    pub(super) features: HostFeatures,
    /// What the guest's processor says that it is.
    pub(super) identification: Arc<cpu::Features>,
    /// Causes by their number in generated code.
    pub causes: Vec<Cause>,
    pub(super) key: Key,
    pub(super) nodes: Vec<Node>,
    pub(super) vectors: Vec<Place128>,
    pub(super) selections: Vec<(Cond, Flags, u32)>,
    /// Where guest registers live in this block.
    pub(super) homes: Homes,
    /// How often each guest register was written in this block: general, vector.
    pub(super) epochs: [u32; 32],
    pub(super) vector_epochs: [u32; 32],
    /// Vector registers whose value was moved from another: from which, and both epochs then.
    pub(super) copied: [Option<(u8, [u32; 2])>; 32],
    /// Scratch registers in use, by number.
    pub(super) busy: u16,
    pub(super) next_xmm: u8,
    /// In a block: guest vectors that host registers have beside the state.
    pub(super) copies: Copies,
    pub(super) next_slot: u8,
    /// Of the instruction.
    pub(super) word: u32,
    pub(super) offset: u32,
    pub(super) flags_are_dead: bool,
    pub(super) accessed: bool,
    pub(super) committed: bool,
    pub(super) failed: Option<Cause>,
    /// The interpreter's stub of this instruction.
    pub(super) slow: Option<(Label, Label)>,
    /// The host address of the place, or with an index its offset in the page.
    pub(super) place: Reg,
    pub(super) page_of_place: Option<Reg>,
    /// The value whose flags the host's are.
    pub(super) flags_node: Option<Value>,
    /// What the guest's flags are of.
    pub(super) flags_origin: Option<Origin>,
    /// The stack pointer was found aligned, and moved by multiples of 16 only since.
    pub(super) stack_is_aligned: bool,
    pub(super) places: Places,
    /// This instruction, and those that follow it in memory. What is read of those here need not last: it is for guesses.
    pub(super) ahead: Vec<u32>,
    /// How many of those are executed one after the other, whatever leads to any of them.
    pub(super) straight: usize,
    /// Where a store-exclusive is to come that was seen from its load.
    pub(super) exclusive: Option<Loaded>,
    pub(super) stubs: Vec<Stub>,
    pub(super) end: Option<End>,
    pub exits: Vec<Exit>,
    /// The next jump's to another page.
    pub(super) next_patience: u16,
    pub(super) kept: super::vector::Kept,
    /// Constants that code finds in the frame.
    pub pool: Vec<u128>,
    /// How many low bytes of each entry of `vectors` may be other than zero.
    pub(super) vector_extents: Vec<u8>,
    /// The same of guest registers.
    pub(super) extents: [u8; 32],
    pub(super) in_loop: Option<InLoop>,
    /// The instruction that is executed after this one, if nothing comes between.
    pub(super) following: Option<u32>,
    /// What was emitted does that one's work too.
    pub(super) took_following: bool,
    /// The flags that the instruction writes are not stored though they are looked at.
    pub(super) flags_unstored: bool,
    /// What follows the instruction is outside of the loop.
    pub(super) leaves_after: bool,
    /// The present flags are only in the host's.
    pub(super) flags_are_in_host: bool,
    /// What the flags are of that there are before the instruction, if they are not in the frame.
    pub(super) sunk: Option<FlagsOf>,
    /// The MMU is off, so that all data is in Device memory.
    pub strict_memory: bool,
    /// Of the instruction, in a loop.
    pub(super) window: Option<u8>,
    pub(super) trial: Option<u8>,
    /// Of the instruction, in a loop: a jump back that need not poll.
    pub(super) paced: bool,
    /// Of its window: [`Stub::Window::stride`].
    pub(super) stride: Option<u8>,
    /// The page's number: jumps back are counted.
    pub counts_jumps: Option<u64>,
}

/// What is undone if an instruction fails.
struct Snapshot {
    at: usize,
    stubs: usize,
    exits: usize,
    flags_changed: bool,
    stack_is_aligned: bool,
}

/// Code that is inside a loop.
pub(super) struct InLoop {
    pub entries: Vec<Entry>,
    /// What stands for [`Thunks::interpret`] there.
    pub interpret: Label,
    /// Registers that are written in the loop.
    pub writes: u32,
    pub vector_writes: u32,
    /// Pages that are kept, and how many of those, the last, are on trial.
    pub windows: u8,
    pub trials: u8,
}

/// An instruction that is jumped to in a loop.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// In the page.
    pub offset: u32,
    pub label: Label,
    /// Where to go with flags in the frame, if they are expected elsewhere.
    pub first_round: Option<Label>,
    /// Somebody may look at the flags, and expects them to be of this, or else in the frame.
    pub looks: bool,
    pub flags: Option<FlagsOf>,
}

impl Entry {
    /// Whether flags of that can be left as they are.
    pub fn takes(&self, flags: Option<FlagsOf>) -> bool {
        !self.looks || flags == self.flags || flags.is_none()
    }

    /// Where to go with such flags.
    pub fn label_for(&self, flags: Option<FlagsOf>) -> Label {
        match self.first_round {
            Some(label) if flags.is_none() && self.looks && self.flags.is_some() => label,
            _ => self.label,
        }
    }
}

/// Flags that are not stored were wanted from the frame.
pub(super) const FLAGS_ARE_GONE: Cause = "flags that are gone";
pub(super) const OUT_OF_VECTORS: Cause = "out of vector registers";

/// Instructions in a block, at most.
pub const BLOCK: usize = 96;

impl Emitter {
    pub fn new(features: HostFeatures, identification: Arc<cpu::Features>) -> Emitter {
        Emitter {
            features,
            identification,
            causes: Vec::new(),
            asm: Assembler::default(),
            thunks: Thunks::default(),
            key: Key {
                el: 0,
                sp_sel: false,
                fp_enabled: false,
                fpcr: 0,
                align_check: false,
                sp_align_check: false,
                uao: false,
                pac: [false; 4],
                extensions: Default::default(),
                btype: 0,
            },
            nodes: Vec::new(),
            vectors: Vec::new(),
            selections: Vec::new(),
            homes: Homes::between_blocks(),
            epochs: [0; 32],
            vector_epochs: [0; 32],
            copied: [None; 32],
            busy: 0,
            next_xmm: 0,
            copies: Copies::default(),
            next_slot: 0,
            word: 0,
            offset: 0,
            flags_are_dead: false,
            accessed: false,
            committed: false,
            failed: None,
            slow: None,
            place: RAX,
            page_of_place: None,
            flags_node: None,
            flags_origin: None,
            stack_is_aligned: false,
            places: Places::default(),
            ahead: Vec::new(),
            straight: 0,
            exclusive: None,
            stubs: Vec::new(),
            end: None,
            exits: Vec::new(),
            next_patience: 0,
            kept: Default::default(),
            pool: Vec::new(),
            vector_extents: Vec::new(),
            extents: [16; 32],
            in_loop: None,
            following: None,
            took_following: false,
            flags_unstored: false,
            leaves_after: false,
            flags_are_in_host: false,
            sunk: None,
            strict_memory: false,
            window: None,
            trial: None,
            paced: false,
            stride: None,
            counts_jumps: None,
        }
    }

    /// Starts a block at an address.
    pub fn start(&mut self, origin: usize, key: &Key) {
        self.asm.restart(origin);
        self.key = *key;
        self.homes = Homes::between_blocks();
        self.extents = [16; 32];
        self.in_loop = None;
        self.window = None;
        self.trial = None;
        self.paced = false;
        self.stride = None;
        self.flags_unstored = false;
        self.leaves_after = false;
        self.flags_are_in_host = false;
        self.sunk = None;
        self.flags_origin = None;
        self.epochs = [0; 32];
        self.vector_epochs = [0; 32];
        self.copied = [None; 32];
        self.stack_is_aligned = false;
        self.forget_places();
        self.ahead.clear();
        self.exclusive = None;
        self.copies = Copies::default();
        self.stubs.clear();
        self.exits.clear();
        self.end = None;
    }

    /// Emits the instruction `word` at `offset` into the page, or leaves it to the interpreter and says why; and whether
    /// what follows it in memory is executed after it.
    pub fn instruction(
        &mut self,
        word: u32,
        offset: u32,
        flags_are_dead: bool,
    ) -> (Option<Cause>, Flow) {
        let snapshot = Snapshot {
            at: self.asm.at(),
            stubs: self.stubs.len(),
            exits: self.exits.len(),
            flags_changed: self.asm.flags_changed,
            stack_is_aligned: self.stack_is_aligned,
        };
        self.nodes.clear();
        self.vectors.clear();
        self.vector_extents.clear();
        self.selections.clear();
        self.busy = 0;
        self.next_xmm = self.homes.vectors_taken;
        self.copies.release();
        self.next_slot = 0;
        self.word = word;
        self.offset = offset;
        self.flags_are_dead = flags_are_dead;
        self.accessed = false;
        self.committed = false;
        self.failed = None;
        self.slow = None;
        self.flags_node = None;
        self.took_following = false;
        let flow = run(self, word);
        if let Some(cause) = self.failed {
            self.took_following = false;
            self.flags_are_in_host = false;
            self.asm.rewind(snapshot.at);
            self.asm.flags_changed = snapshot.flags_changed;
            self.stack_is_aligned = snapshot.stack_is_aligned;
            self.stubs.truncate(snapshot.stubs);
            self.exits.truncate(snapshot.exits);
            self.end = None;
            self.interpret(cause);
            return (Some(cause), flow);
        }
        if let Some((from, back)) = self.slow.take() {
            // What the interpreter comes back to does not have the flags in the host's.
            self.asm.bind(back);
            self.asm.flags_changed = true;
            self.stubs.push(Stub::Interpret {
                from,
                back,
                word,
                offset,
                cause: "memory",
                open: self.open_places(),
                sunk: self.sunk,
                copies: self.copies,
            });
        }
        (None, flow)
    }

    /// Something else than the instruction before leads here: nothing is known of the stack pointer, nor what flags are of.
    pub(super) fn forget_the_past(&mut self) {
        self.stack_is_aligned = false;
        self.forget_places();
        self.asm.flags_changed = true;
        self.flags_origin = None;
        self.copied = [None; 32];
    }

    /// Gives the instruction up.
    #[cold]
    pub(super) fn fail(&mut self, cause: Cause) {
        self.failed.get_or_insert(cause);
    }

    /// Calls the interpreter for this instruction. It goes on with the next, or leaves the block.
    fn interpret(&mut self, cause: Cause) {
        self.busy = 0;
        self.store_sunk_now();
        self.call_interpreter(self.word, self.offset, cause);
        self.asm.flags_changed = true;
        self.flags_origin = None;
        // It may have written any register.
        self.stack_is_aligned = false;
        self.forget_places();
        for epoch in self.epochs.iter_mut().chain(&mut self.vector_epochs) {
            *epoch += 1;
        }
        if self.in_loop.is_none() {
            self.extents = [16; 32];
        }
        self.copies = Copies::default();
    }

    pub(super) fn call_interpreter(&mut self, word: u32, offset: u32, cause: Cause) {
        self.load_site(word, offset, cause);
        match &self.in_loop {
            Some(inside) => self.asm.call(inside.interpret),
            None => self.asm.call_to(self.thunks.interpret),
        }
    }

    /// What [`Thunks::interpret`] has in registers.
    pub(super) fn load_site(&mut self, word: u32, offset: u32, cause: Cause) {
        let number = match self.causes.iter().position(|c| *c == cause) {
            Some(number) => number,
            None => {
                self.causes.push(cause);
                self.causes.len() - 1
            }
        };
        self.asm.constant(RSI, word.into());
        self.asm
            .constant(RDX, u64::from(offset) | (number as u64) << 12);
    }

    /// Writes a guest register.
    pub(super) fn write_general(&mut self, n: u8, value: Value) {
        if self.failed.is_some() {
            return;
        }
        self.committed = true;
        if n == 31 {
            let moved = match self.get(value) {
                Node::Guest(31, _) => true,
                Node::Binary(Binary::Add | Binary::Sub, Width::W64, a, b) => {
                    matches!(self.get(a), Node::Guest(31, _))
                        && self.constant_of(b).is_some_and(|c| c % 16 == 0)
                }
                _ => false,
            };
            self.stack_is_aligned &= moved;
        }
        self.move_places(n, value);
        match self.general(n) {
            Rm::Reg(reg) => self.evaluate(value, reg),
            Rm::Mem(to) => match self.direct(value) {
                Some(Direct::Constant(c)) => self.asm.store_constant(8, to, c),
                Some(Direct::Rm(Rm::Mem(mem))) if mem == to => {}
                _ => {
                    let reg = self.in_register(value);
                    self.asm.store(8, to, reg.0);
                    self.release_if(reg);
                }
            },
        }
        self.epochs[usize::from(n)] += 1;
        // A value that is not to be computed again is from now on the register's.
        if matches!(self.get(value), Node::Read { .. }) {
            self.nodes[usize::from(value.0)] = Node::Guest(n, self.epochs[usize::from(n)]);
        }
    }

    /// Calls a function with the machine and up to two values; the result is in RAX. Only values in slots survive.
    pub(super) fn call(&mut self, function: usize, arguments: &[Value]) -> Value {
        if self.busy != 0 {
            self.fail("a call in the middle");
        }
        for (&value, reg) in arguments.iter().zip([RSI, RDX, RCX]) {
            self.take_this(reg);
            self.evaluate(value, reg);
        }
        self.busy = 0;
        self.asm.lea(true, RDI, frame::MACHINE);
        self.asm.constant(RAX, function as u64);
        self.asm.call_to(self.thunks.call);
        self.asm.flags_changed = true;
        self.result_in_slot()
    }
}
