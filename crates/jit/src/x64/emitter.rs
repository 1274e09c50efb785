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

use aarch64::Instruction;
use cpu::{Access, AccessKind, Flow, Key, Layout, Order, Width};

use super::assembler::{
    Alu, Assembler, Cc, Label, Mem, RAX, RCX, RDI, RDX, RSI, Reg, Rm, ShiftOp, Xmm,
};
use super::emit::run;
use super::features::HostFeatures;
use super::flags::FlagsOf;
use super::frame::{self, Homes, SCRATCH};
use super::places::Places;
use super::thunks;

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
    /// In the frame and in the host's flags already.
    Written,
}

/// An operand of what flags are of: a guest register as it was when written for the n-th time in the block, or a constant.
#[derive(Clone, Copy, Debug)]
enum Source {
    Register(u8, u32),
    Constant(i32),
}

/// What the guest's flags are of, for as long as the registers are what they were: made again, they need not be fetched from
/// the frame, where the host has just put them.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Difference(bool, Source, Source),
    /// Of a logical product: C and V are clear.
    Product(bool, Source, Source),
    /// N and Z of a result; C and V are not known.
    Result(bool, Source),
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
        address: Reg,
        access: Access,
        /// The host address, and another register.
        place: Reg,
        entry: Reg,
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
    /// Scratch registers in use, by number.
    busy: u16,
    pub(super) next_xmm: u8,
    next_slot: u8,
    /// Of the instruction.
    pub(super) word: u32,
    pub(super) offset: u32,
    pub(super) flags_are_dead: bool,
    pub(super) accessed: bool,
    pub(super) committed: bool,
    pub(super) failed: Option<Cause>,
    /// The interpreter's stub of this instruction.
    slow: Option<(Label, Label)>,
    /// The host address of the place, or with an index its offset in the page.
    place: Reg,
    page_of_place: Option<Reg>,
    /// The value whose flags the host's are.
    flags_node: Option<Value>,
    /// What the guest's flags are of.
    flags_origin: Option<Origin>,
    /// The stack pointer was found aligned, and moved by multiples of 16 only since.
    stack_is_aligned: bool,
    pub(super) places: Places,
    /// This instruction, and those that follow it in memory. What is read of those here need not last: it is for guesses.
    pub(super) ahead: Vec<u32>,
    pub(super) stubs: Vec<Stub>,
    pub(super) end: Option<End>,
    pub exits: Vec<Exit>,
    /// The next jump's to another page.
    next_patience: u16,
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
    flags_are_in_host: bool,
    /// What the flags are of that there are before the instruction, if they are not in the frame.
    pub(super) sunk: Option<FlagsOf>,
    /// The MMU is off, so that all data is in Device memory.
    pub strict_memory: bool,
    /// Of the instruction, in a loop.
    pub(super) window: Option<u8>,
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
    /// Pages that are kept.
    pub windows: u8,
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
            busy: 0,
            next_xmm: 0,
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
        self.flags_unstored = false;
        self.leaves_after = false;
        self.flags_are_in_host = false;
        self.sunk = None;
        self.flags_origin = None;
        self.epochs = [0; 32];
        self.vector_epochs = [0; 32];
        self.stack_is_aligned = false;
        self.forget_places();
        self.ahead.clear();
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
    }

    fn call_interpreter(&mut self, word: u32, offset: u32, cause: Cause) {
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

    // ---- values

    pub(super) fn node(&mut self, node: Node) -> Value {
        self.nodes.push(node);
        Value((self.nodes.len() - 1) as u16)
    }

    pub(super) fn get(&self, value: Value) -> Node {
        self.nodes[usize::from(value.0)]
    }

    pub(super) fn constant_of(&self, value: Value) -> Option<u64> {
        match self.get(value) {
            Node::Constant(c) => Some(c),
            _ => None,
        }
    }

    /// A scratch register, until it is released.
    pub(super) fn take(&mut self) -> Reg {
        match SCRATCH.iter().find(|r| self.busy & 1 << r.0 == 0) {
            Some(&reg) => {
                self.busy |= 1 << reg.0;
                reg
            }
            None => {
                self.fail("out of registers");
                RAX
            }
        }
    }

    /// A register's value in a stack slot, to the end of the instruction.
    pub(super) fn put_in_slot(&mut self, reg: Reg) -> u8 {
        let slot = self.take_slot();
        self.asm.store(8, frame::slot(slot), reg);
        slot
    }

    /// A stack slot, to the end of the instruction.
    pub(super) fn take_slot(&mut self) -> u8 {
        if self.next_slot >= frame::SLOTS {
            self.fail("out of slots");
            self.next_slot = 0;
        }
        self.next_slot += 1;
        self.next_slot - 1
    }

    pub(super) fn release(&mut self, reg: Reg) {
        self.busy &= !(1 << reg.0);
    }

    /// Takes a certain scratch register.
    pub(super) fn take_this(&mut self, reg: Reg) {
        if self.busy & 1 << reg.0 != 0 {
            self.fail("register in use");
        }
        self.busy |= 1 << reg.0;
    }

    pub(super) fn busy_registers(&self) -> u16 {
        self.busy
    }

    /// Where a guest's general register lives.
    pub(super) fn general(&self, n: u8) -> Rm {
        match self.homes.general[usize::from(n)] {
            Some(reg) => reg.into(),
            None => frame::general(n).into(),
        }
    }

    /// Where a value is, if that takes no code.
    pub(super) fn direct(&mut self, value: Value) -> Option<Direct> {
        match self.get(value) {
            Node::Constant(c) => i32::try_from(c as i64).ok().map(Direct::Constant),
            Node::Guest(n, epoch) => {
                if self.epochs[usize::from(n)] != epoch {
                    self.fail("a register is read after it was written");
                }
                Some(Direct::Rm(self.general(n)))
            }
            Node::Register(reg) => Some(Direct::Rm(reg.into())),
            Node::Slot(i) => Some(Direct::Rm(frame::slot(i).into())),
            _ => None,
        }
    }

    /// A register that holds the value, and whether it is to be released.
    pub(super) fn in_register(&mut self, value: Value) -> (Reg, bool) {
        if let Some(Direct::Rm(Rm::Reg(reg))) = self.direct(value) {
            return (reg, false);
        }
        let reg = self.take();
        self.evaluate(value, reg);
        (reg, true)
    }

    pub(super) fn release_if(&mut self, (reg, taken): (Reg, bool)) {
        if taken {
            self.release(reg);
        }
    }

    /// The value as an operand other than a constant, and a register to be released.
    fn operand(&mut self, value: Value) -> (Rm, Option<Reg>) {
        if let Some(Direct::Rm(rm)) = self.direct(value) {
            return (rm, None);
        }
        let reg = self.take();
        self.evaluate(value, reg);
        (reg.into(), Some(reg))
    }

    fn release_operand(&mut self, taken: Option<Reg>) {
        if let Some(reg) = taken {
            self.release(reg);
        }
    }

    /// Computes a value into a register. What else is in use stays; the host's flags may not.
    pub(super) fn evaluate(&mut self, value: Value, to: Reg) {
        if self.failed.is_some() {
            return;
        }
        match self.get(value) {
            Node::Constant(c) => self.asm.constant(to, c),
            Node::Guest(..) | Node::Register(_) | Node::Slot(_) => {
                if let Some(Direct::Rm(rm)) = self.direct(value) {
                    self.asm.load(true, to, rm);
                }
            }
            Node::Pc(offset) => {
                self.asm.load(true, to, frame::PAGE);
                match i32::try_from(offset) {
                    Ok(0) => {}
                    Ok(offset) => self.asm.lea(true, to, Mem::at(to, offset)),
                    Err(_) => {
                        self.asm.constant(RAX, offset as u64);
                        self.asm.lea(true, to, Mem::indexed(to, RAX, 1, 0));
                    }
                }
            }
            Node::Binary(op, w, a, b) => self.binary(op, w == Width::W64, a, b, to),
            Node::Unary(op, w, a) => self.unary(op, w == Width::W64, a, to),
            Node::Shift(op, w, a, amount) => {
                let w = w == Width::W64;
                if op == ShiftOp::Ror {
                    let (rm, taken) = self.operand(a);
                    self.asm.rotate_right(w, to, rm, amount);
                    self.release_operand(taken);
                } else {
                    self.evaluate_narrow(w, a, to);
                    self.asm.shift(op, w, to, amount);
                }
            }
            Node::ShiftBy(op, w, a, amount) => self.shift_by(op, w == Width::W64, a, amount, to),
            Node::ExtractPair(w, high, low, lsb) => {
                let w = w == Width::W64;
                let high = self.in_register(high);
                let t = self.take();
                self.evaluate_narrow(w, low, t);
                self.asm.shift_double_right(w, t, high.0, lsb);
                self.asm.load(w, to, t);
                self.release(t);
                self.release_if(high);
            }
            Node::Select(w, cond, yes, no) => self.select(w == Width::W64, cond, yes, no, to),
            Node::Carry => {
                self.need_flags_in_frame();
                // The inverse is in bit 8.
                self.asm.load_zero_extended(
                    1,
                    to,
                    Mem::at(frame::FLAGS.base, frame::FLAGS.disp + 1),
                );
                self.asm.not(false, to);
                self.asm.alu_constant(Alu::And, false, to, 1);
            }
            Node::WithFlags {
                subtract,
                w,
                a,
                b,
                carry,
            } => self.with_flags(value, subtract, w == Width::W64, a, b, carry, to),
            Node::Read { offset, size } => {
                let from = self.memory(offset);
                self.asm.load_zero_extended(size, to, from);
            }
        }
    }

    /// The same, where only the low half counts if not `w`.
    fn evaluate_narrow(&mut self, w: bool, value: Value, to: Reg) {
        match self.direct(value) {
            Some(Direct::Rm(rm)) if !w => {
                if rm != Rm::Reg(to) {
                    self.asm.load(false, to, rm);
                }
            }
            _ => self.evaluate(value, to),
        }
    }

    fn binary(&mut self, op: Binary, w: bool, a: Value, b: Value, to: Reg) {
        let alu = match op {
            Binary::Add => Alu::Add,
            Binary::Sub => Alu::Sub,
            Binary::And => Alu::And,
            Binary::Or => Alu::Or,
            Binary::Xor => Alu::Xor,
            Binary::Mul => return self.multiply(w, a, b, to),
            Binary::MulHigh(signed) => return self.multiply_high(signed, a, b, to),
            Binary::Div(signed) => return self.divide(signed, w, a, b, to),
        };
        let commutes = alu != Alu::Sub;
        let (mut a, mut b) = (a, b);
        // Of a narrow operation only the low half of a constant counts.
        for value in [&mut a, &mut b] {
            if !w && let Some(c) = self.constant_of(*value) {
                *value = self.node(Node::Constant(c as u32 as i32 as u64));
            }
        }
        if commutes
            && (self.constant_of(a).is_some()
                || (self.direct(b).is_none() && self.direct(a).is_some()))
        {
            (a, b) = (b, a);
        }
        match self.direct(b) {
            Some(Direct::Constant(c)) => {
                if matches!(alu, Alu::Add | Alu::Sub) {
                    let c = if alu == Alu::Sub { c.wrapping_neg() } else { c };
                    let reg = match self.direct(a) {
                        Some(Direct::Rm(Rm::Reg(reg))) => reg,
                        _ => {
                            self.evaluate_narrow(w, a, to);
                            to
                        }
                    };
                    // i32::MIN has no negative; its wrapped value is right in 32 bits only.
                    if c == i32::MIN && w {
                        return self.fail("constant");
                    }
                    return self.asm.lea(w, to, Mem::at(reg, c));
                }
                if alu == Alu::And && matches!(c, 0xff | 0xffff) {
                    let (rm, taken) = self.operand(a);
                    self.asm
                        .load_zero_extended(if c == 0xff { 1 } else { 2 }, to, rm);
                    return self.release_operand(taken);
                }
                self.evaluate_narrow(w, a, to);
                self.asm.alu_constant(alu, w, to, c);
            }
            Some(Direct::Rm(Rm::Reg(reg))) if reg == to => {
                if commutes && let Some(Direct::Rm(rm)) = self.direct(a) {
                    if alu == Alu::Add
                        && let Rm::Reg(a) = rm
                    {
                        return self.asm.lea(w, to, Mem::indexed(a, reg, 1, 0));
                    }
                    return self.asm.alu(alu, w, to, rm);
                }
                let t = self.take();
                self.evaluate_narrow(w, a, t);
                self.asm.alu(alu, w, t, reg);
                self.asm.load(w, to, t);
                self.release(t);
            }
            Some(Direct::Rm(rm)) => {
                if alu == Alu::Add
                    && let Rm::Reg(b) = rm
                    && let Some(Direct::Rm(Rm::Reg(a))) = self.direct(a)
                {
                    return self.asm.lea(w, to, Mem::indexed(a, b, 1, 0));
                }
                self.evaluate_narrow(w, a, to);
                self.asm.alu(alu, w, to, rm);
            }
            None => {
                let t = self.take();
                self.evaluate_narrow(w, b, t);
                if alu == Alu::Add
                    && let Some(Direct::Rm(Rm::Reg(a))) = self.direct(a)
                {
                    self.asm.lea(w, to, Mem::indexed(a, t, 1, 0));
                } else {
                    self.evaluate_narrow(w, a, to);
                    self.asm.alu(alu, w, to, t);
                }
                self.release(t);
            }
        }
    }

    fn multiply(&mut self, w: bool, a: Value, b: Value, to: Reg) {
        let (b, taken) = self.operand(b);
        if b == Rm::Reg(to) {
            let t = self.take();
            self.evaluate_narrow(w, a, t);
            self.asm.imul(w, t, b);
            self.asm.load(w, to, t);
            self.release(t);
        } else {
            self.evaluate_narrow(w, a, to);
            self.asm.imul(w, to, b);
        }
        self.release_operand(taken);
    }

    fn multiply_high(&mut self, signed: bool, a: Value, b: Value, to: Reg) {
        let keeps = to == RDX;
        if !keeps {
            self.take_this(RDX);
        }
        let (b, taken) = self.operand(b);
        if b == Rm::Reg(RDX) {
            return self.fail("register in use");
        }
        self.evaluate(a, RAX);
        self.asm.mul_wide(signed, b);
        self.asm.load(true, to, RDX);
        self.release_operand(taken);
        if !keeps {
            self.release(RDX);
        }
    }

    /// By zero gives zero; the lowest number by −1 gives itself.
    fn divide(&mut self, signed: bool, w: bool, a: Value, b: Value, to: Reg) {
        let keeps = to == RDX;
        if !keeps {
            self.take_this(RDX);
        }
        let divisor = self.take();
        self.evaluate_narrow(w, b, divisor);
        self.evaluate_narrow(w, a, RAX);
        let (zero, done) = (self.asm.label(), self.asm.label());
        self.asm.test(w, divisor, divisor);
        self.asm.jcc(Cc::E, zero);
        if signed {
            let ordinary = self.asm.label();
            self.asm.alu_constant(Alu::Cmp, w, divisor, -1);
            self.asm.jcc(Cc::Ne, ordinary);
            self.asm.neg(w, RAX);
            self.asm.jmp(done);
            self.asm.bind(ordinary);
            self.asm.sign_into_rdx(w);
        } else {
            self.asm.alu(Alu::Xor, false, RDX, RDX);
        }
        self.asm.div(signed, w, divisor);
        self.asm.jmp(done);
        self.asm.bind(zero);
        self.asm.alu(Alu::Xor, false, RAX, RAX);
        self.asm.bind(done);
        self.asm.load(w, to, RAX);
        self.release(divisor);
        if !keeps {
            self.release(RDX);
        }
    }

    fn shift_by(&mut self, op: ShiftOp, w: bool, a: Value, amount: Value, to: Reg) {
        if op == ShiftOp::Ror {
            let keeps = to == RCX;
            if !keeps {
                self.take_this(RCX);
            }
            self.evaluate_narrow(w, a, RAX);
            self.evaluate(amount, RCX);
            self.asm.shift_by_cl(ShiftOp::Ror, w, RAX);
            self.asm.load(w, to, RAX);
            if !keeps {
                self.release(RCX);
            }
            return;
        }
        let amount = self.in_register(amount);
        let (rm, taken) = self.operand(a);
        self.asm.shift_by(op, w, to, rm, amount.0);
        self.release_operand(taken);
        self.release_if(amount);
    }

    /// Whether the instruction after this RBIT is the CLZ of its result in place, as it is in each search through a string.
    pub(super) fn counts_zeros(&self, w: Width) -> bool {
        let Some((word, Instruction::clz)) = self.following_in_place() else {
            return false;
        };
        let same_width = (word >> 31 != 0) == (w == Width::W64);
        same_width && word & 31 != 31
    }

    /// The instruction after this, if it takes its operand from where this puts its result, and puts its own there.
    pub(super) fn following_in_place(&self) -> Option<(u32, Instruction)> {
        let word = self.following?;
        let (d, n) = (word & 31, word >> 5 & 31);
        let instruction = aarch64::decode(word, self.key.extensions)?;
        (d == n && d == self.word & 31).then_some((word, instruction))
    }

    fn unary(&mut self, op: Unary, w: bool, a: Value, to: Reg) {
        match op {
            Unary::Not => {
                self.evaluate_narrow(w, a, to);
                self.asm.not(w, to);
            }
            Unary::ZeroExtend(bits) => match bits {
                8 | 16 | 32 => {
                    let (rm, taken) = self.operand(a);
                    self.asm.load_zero_extended(bits / 8, to, rm);
                    self.release_operand(taken);
                }
                64 => self.evaluate(a, to),
                _ if bits < 32 => {
                    self.evaluate_narrow(false, a, to);
                    self.asm
                        .alu_constant(Alu::And, false, to, ((1u32 << bits) - 1) as i32);
                }
                _ => {
                    self.evaluate(a, to);
                    self.asm.shift(ShiftOp::Shl, true, to, 64 - bits);
                    self.asm.shift(ShiftOp::Shr, true, to, 64 - bits);
                }
            },
            Unary::SignExtend(bits) => match bits {
                8 | 16 | 32 => {
                    if let Node::Read { offset, size } = self.get(a)
                        && size == bits / 8
                    {
                        let from = self.memory(offset);
                        return self.asm.load_sign_extended(w, size, to, from);
                    }
                    let (rm, taken) = self.operand(a);
                    self.asm.load_sign_extended(w, bits / 8, to, rm);
                    self.release_operand(taken);
                }
                64 => self.evaluate_narrow(w, a, to),
                _ => {
                    self.evaluate(a, to);
                    self.asm.shift(ShiftOp::Shl, true, to, 64 - bits);
                    self.asm.shift(ShiftOp::Sar, true, to, 64 - bits);
                    if !w {
                        self.asm.load(false, to, to);
                    }
                }
            },
            Unary::LeadingZeros => {
                let (rm, taken) = self.operand(a);
                self.asm.lzcnt(w, to, rm);
                self.release_operand(taken);
            }
            Unary::TrailingZeros => {
                let (rm, taken) = self.operand(a);
                self.asm.tzcnt(w, to, rm);
                self.release_operand(taken);
            }
            Unary::LeadingSigns => {
                // Bits that equal the one above them.
                let t = self.take();
                self.evaluate_narrow(w, a, t);
                self.asm.load(w, RAX, t);
                self.asm.shift(ShiftOp::Sar, w, RAX, 1);
                self.asm.alu(Alu::Xor, w, t, RAX);
                self.asm.alu(Alu::Add, w, t, t);
                self.asm.alu_constant(Alu::Or, w, t, 1);
                self.asm.lzcnt(w, to, t);
                self.release(t);
            }
            Unary::ReverseBytes(chunk) => {
                self.evaluate_narrow(w, a, to);
                match chunk {
                    16 => {
                        let t = self.take();
                        let mask = if w {
                            0x00ff_00ff_00ff_00ff
                        } else {
                            0x00ff_00ff
                        };
                        self.asm.constant(RAX, mask);
                        self.asm.load(w, t, to);
                        self.asm.shift(ShiftOp::Shr, w, t, 8);
                        self.asm.alu(Alu::And, w, t, RAX);
                        self.asm.alu(Alu::And, w, to, RAX);
                        self.asm.shift(ShiftOp::Shl, w, to, 8);
                        self.asm.alu(Alu::Or, w, to, t);
                        self.release(t);
                    }
                    32 if w => {
                        self.asm.bswap(true, to);
                        self.asm.rotate_right(true, to, to, 32);
                    }
                    _ => self.asm.bswap(w, to),
                }
            }
            Unary::ReverseBits => {
                self.evaluate_narrow(w, a, to);
                self.asm.bswap(w, to);
                let t = self.take();
                for (shift, mask) in [
                    (4, 0x0f0f_0f0f_0f0f_0f0f_u64),
                    (2, 0x3333_3333_3333_3333),
                    (1, 0x5555_5555_5555_5555),
                ] {
                    let mask = if w { mask } else { mask & 0xffff_ffff };
                    self.asm.constant(RAX, mask);
                    self.asm.load(w, t, to);
                    self.asm.shift(ShiftOp::Shr, w, t, shift);
                    self.asm.alu(Alu::And, w, t, RAX);
                    self.asm.alu(Alu::And, w, to, RAX);
                    self.asm.shift(ShiftOp::Shl, w, to, shift);
                    self.asm.alu(Alu::Or, w, to, t);
                }
                self.release(t);
            }
        }
    }

    fn select(&mut self, w: bool, cond: Cond, yes: Value, no: Value, to: Reg) {
        if let Test::True = cond.test {
            let value = if cond.not { no } else { yes };
            self.evaluate_narrow(w, value, to);
            if !w {
                self.asm.load(false, to, to);
            }
            return;
        }
        if let (Some(yes), Some(no)) = (self.constant_of(yes), self.constant_of(no))
            && matches!((yes, no), (0, 1) | (1, 0))
        {
            return self.set(cond, yes == 1, to);
        }
        let t = self.take();
        self.evaluate_narrow(w, no, t);
        let (yes, taken) = self.operand(yes);
        let cc = self.condition_code(cond);
        self.asm.cmov(cc, w, t, yes);
        self.asm.load(w, to, t);
        self.release_operand(taken);
        self.release(t);
    }

    /// 1 if the condition is `wanted`, else 0.
    fn set(&mut self, cond: Cond, wanted: bool, to: Reg) {
        let cc = self.condition_code(cond);
        self.asm.setcc(if wanted { cc } else { cc.not() }, RAX);
        self.asm.load_zero_extended(1, to, RAX);
    }

    /// Makes the host's flags such that the condition is that code.
    pub(super) fn condition_code(&mut self, cond: Cond) -> Cc {
        let cc = match cond.test {
            Test::True => {
                self.fail("constant condition");
                Cc::E
            }
            Test::Code(code) => {
                if !self.remake_flags(code) {
                    match self.sunk {
                        Some(of) => self.make_flags(of),
                        None => self.restore_flags(),
                    }
                }
                let cc = [Cc::E, Cc::Ae, Cc::S, Cc::O, Cc::A, Cc::Ge, Cc::G, Cc::E]
                    [usize::from(code >> 1 & 7)];
                if code & 1 == 0 { cc } else { cc.not() }
            }
            Test::Zero(w, value) => {
                let w = w == Width::W64;
                match self.direct(value) {
                    Some(Direct::Rm(Rm::Mem(mem))) => {
                        self.asm.alu_constant(Alu::Cmp, w, mem, 0);
                    }
                    _ => {
                        let reg = self.in_register(value);
                        self.asm.test(w, reg.0, reg.0);
                        self.release_if(reg);
                    }
                }
                Cc::E
            }
            Test::Bit(value, bit) => match self.direct(value) {
                Some(Direct::Rm(Rm::Mem(mem))) => {
                    let mem = Mem::at(mem.base, mem.disp + i32::from(bit / 8));
                    self.asm.test_byte(mem, 1 << (bit % 8));
                    Cc::Ne
                }
                _ => {
                    let reg = self.in_register(value);
                    let cc = match bit {
                        0..=7 => {
                            self.asm.test_byte(reg.0, 1 << bit);
                            Cc::Ne
                        }
                        8..=30 => {
                            self.asm.test_constant(false, reg.0, 1 << bit);
                            Cc::Ne
                        }
                        _ => {
                            self.asm.bit_test(true, reg.0, bit);
                            Cc::B
                        }
                    };
                    self.release_if(reg);
                    cc
                }
            },
        };
        if cond.not { cc.not() } else { cc }
    }

    // ---- flags: the host's carry is a borrow, the inverse of C

    /// Makes the host's flags the guest's.
    pub(super) fn restore_flags(&mut self) {
        if !self.asm.flags_changed {
            return;
        }
        self.need_flags_in_frame();
        self.asm.load_zero_extended(2, RAX, frame::FLAGS);
        // OF from bit 0.
        self.asm.bytes.extend_from_slice(&[0x04, 0x7f]); // add al, 0x7f
        self.asm.sahf();
        self.asm.flags_changed = false;
    }

    /// Makes the host's flags such that a condition code on them is as on the guest's, if the registers that those are of are
    /// still what they were; whether they are.
    fn remake_flags(&mut self, code: u8) -> bool {
        if !self.asm.flags_changed {
            return true;
        }
        let is_fresh = |source: Source| match source {
            Source::Register(n, epoch) => self.epochs[usize::from(n)] == epoch,
            Source::Constant(_) => true,
        };
        // Where the frame does not have them, all of them may be stored from the host's.
        let all = self.flags_are_in_host;
        match self.flags_origin {
            Some(Origin::Difference(w, a, b)) if is_fresh(a) && is_fresh(b) => {
                let a = self.source_in_register(w, a);
                match b {
                    Source::Constant(c) => self.asm.alu_constant(Alu::Cmp, w, a, c),
                    Source::Register(n, _) => {
                        let b = self.general(n);
                        self.asm.alu(Alu::Cmp, w, a, b);
                    }
                }
                self.asm.flags_changed = false;
            }
            Some(Origin::Product(w, a, b)) if is_fresh(a) && is_fresh(b) => {
                let a = self.source_in_register(w, a);
                match b {
                    Source::Constant(c) => self.asm.test_constant(w, a, c),
                    Source::Register(n, _) => {
                        let b = self.general(n);
                        self.asm.test(w, a, b);
                    }
                }
                // Of the codes, CS, HI and their opposites look at C.
                if all || matches!(code >> 1 & 7, 1 | 4) {
                    self.asm.cmc();
                    self.asm.flags_changed = false;
                }
            }
            // EQ, MI and their opposites.
            Some(Origin::Result(w, a)) if is_fresh(a) && !all && matches!(code >> 1 & 7, 0 | 2) => {
                let a = self.source_in_register(w, a);
                self.asm.test(w, a, a);
            }
            _ => return false,
        }
        true
    }

    /// A source in its register or in RAX.
    fn source_in_register(&mut self, w: bool, source: Source) -> Reg {
        match source {
            Source::Register(n, _) => match self.general(n) {
                Rm::Reg(reg) => reg,
                Rm::Mem(mem) => {
                    self.asm.load(w, RAX, mem);
                    RAX
                }
            },
            Source::Constant(c) => {
                self.asm.constant(RAX, c as u64);
                RAX
            }
        }
    }

    /// A value that registers still hold.
    fn source(&self, value: Value) -> Option<Source> {
        match self.get(value) {
            Node::Guest(n, epoch) if self.epochs[usize::from(n)] == epoch => {
                Some(Source::Register(n, epoch))
            }
            Node::Constant(c) => i32::try_from(c as i64).ok().map(Source::Constant),
            _ => None,
        }
    }

    /// What these flags are of, once the instruction's result is written.
    fn origin(&self, flags: Flags) -> Option<Origin> {
        let (w, value) = match flags {
            Flags::Of(value) => match self.get(value) {
                Node::WithFlags { w, .. } => (w == Width::W64, value),
                _ => return None,
            },
            Flags::Logic(w, value) => (w == Width::W64, value),
            _ => return None,
        };
        let operands = match self.get(value) {
            Node::WithFlags {
                subtract: true,
                carry: false,
                a,
                b,
                ..
            } => self
                .source(a)
                .zip(self.source(b))
                .map(|(a, b)| Origin::Difference(w, a, b)),
            Node::Binary(Binary::And, _, a, b) => self
                .source(a)
                .zip(self.source(b))
                .map(|(a, b)| Origin::Product(w, a, b)),
            _ => None,
        };
        // The result is in the destination, if there is one.
        let to = (self.word & 31) as u8;
        let result = (self.committed && to != 31).then(|| {
            let result = Source::Register(to, self.epochs[usize::from(to)]);
            match flags {
                Flags::Logic(..) => Origin::Product(w, result, result),
                _ => Origin::Result(w, result),
            }
        });
        operands.or(result)
    }

    /// They are to be looked up there.
    fn need_flags_in_frame(&mut self) {
        if self.flags_are_in_host || self.sunk.is_some() {
            self.fail(FLAGS_ARE_GONE);
        }
    }

    /// The host's flags are the guest's new ones: has them in the frame too.
    fn save_flags(&mut self) {
        self.flags_are_in_host = self.flags_are_dead && self.flags_unstored;
        if !self.flags_are_dead {
            self.store_flags();
        }
        self.asm.flags_changed = false;
    }

    /// The host's flags to the frame.
    pub(super) fn store_flags(&mut self) {
        self.asm.lahf();
        self.asm.setcc(Cc::O, RAX);
        self.asm.store(2, frame::FLAGS, RAX);
    }

    /// Has flags in the frame from here on that are not.
    pub(super) fn store_sunk_now(&mut self) {
        let sunk = self.sunk.take();
        if sunk.is_some() && !self.asm.flags_changed {
            return self.store_flags();
        }
        self.store_sunk(sunk);
    }

    /// A sum or difference, leaving its flags in the host's: the carry is a borrow.
    #[expect(clippy::too_many_arguments, reason = "the parts of a node")]
    fn with_flags(
        &mut self,
        value: Value,
        subtract: bool,
        w: bool,
        a: Value,
        b: Value,
        carry: bool,
        to: Reg,
    ) {
        // Adding the inverse with carry is subtracting with borrow.
        let (subtract, b) = match self.get(b) {
            Node::Unary(Unary::Not, _, inner) if carry && !subtract => (true, inner),
            _ => (subtract, b),
        };
        let op = match (subtract, carry) {
            (false, false) => Alu::Add,
            (true, false) => Alu::Sub,
            (false, true) => Alu::Adc,
            (true, true) => Alu::Sbb,
        };
        let b = self.direct(b).map_or_else(
            || {
                let t = self.take();
                self.evaluate_narrow(w, b, t);
                (Direct::Rm(t.into()), Some(t))
            },
            |b| (b, None),
        );
        let result = if b.0 == Direct::Rm(to.into()) {
            self.take()
        } else {
            to
        };
        self.evaluate_narrow(w, a, result);
        if carry {
            self.restore_flags();
            if !subtract {
                self.asm.cmc();
            }
        }
        match b.0 {
            Direct::Constant(c) => self.asm.alu_constant(op, w, result, c),
            Direct::Rm(rm) => self.asm.alu(op, w, result, rm),
        }
        if !subtract {
            self.asm.cmc();
        }
        if result != to {
            self.asm.load(w, to, result);
            self.release(result);
        }
        self.release_operand(b.1);
        self.flags_node = Some(value);
        self.asm.flags_changed = false;
    }

    /// Makes these the guest's flags.
    pub(super) fn write_flags(&mut self, flags: Flags) {
        if self.failed.is_some() {
            return;
        }
        let origin = self.origin(flags);
        match flags {
            Flags::Current => return,
            Flags::Written => {}
            Flags::Of(value) => {
                if self.flags_node != Some(value) || self.asm.flags_changed {
                    self.flags_of(value);
                }
                self.save_flags();
            }
            Flags::Logic(w, value) => {
                let w = w == Width::W64;
                self.logic_flags(w, value);
                self.asm.cmc();
                self.save_flags();
            }
            Flags::From(value) => {
                let t = self.take();
                self.evaluate_narrow(false, value, t);
                self.flags_from(t);
                self.release(t);
            }
            Flags::Select(i) => {
                let (cond, flags, otherwise) = self.selections[usize::from(i)];
                if let Test::True = cond.test {
                    return self.write_flags(flags);
                }
                let (no, done) = (self.asm.label(), self.asm.label());
                let dead = std::mem::replace(&mut self.flags_are_dead, false);
                let cc = self.condition_code(cond);
                self.asm.jcc(cc.not(), no);
                self.write_flags(flags);
                self.asm.jmp(done);
                self.asm.bind(no);
                let constant = frame::flags_to_host(otherwise << 28);
                self.asm.store_constant(2, frame::FLAGS, constant as i32);
                self.asm.bind(done);
                self.flags_are_dead = dead;
                self.asm.flags_changed = true;
            }
        }
        self.flags_origin = origin;
    }

    /// The host's flags of a node, with no result.
    fn flags_of(&mut self, value: Value) {
        let Node::WithFlags {
            subtract,
            w,
            a,
            b,
            carry,
        } = self.get(value)
        else {
            return self.fail("flags of another value");
        };
        let w = w == Width::W64;
        if subtract && !carry {
            let a = self.operand(a);
            let b = match self.direct(b) {
                Some(b) => (b, None),
                None => {
                    let t = self.take();
                    self.evaluate_narrow(w, b, t);
                    (Direct::Rm(t.into()), Some(t))
                }
            };
            match (a.0, b.0) {
                (rm, Direct::Constant(c)) => self.asm.alu_constant(Alu::Cmp, w, rm, c),
                (Rm::Reg(a), Direct::Rm(b)) => self.asm.alu(Alu::Cmp, w, a, b),
                (Rm::Mem(a), Direct::Rm(Rm::Reg(b))) => self.asm.alu_memory(Alu::Cmp, w, a, b),
                (Rm::Mem(a), Direct::Rm(b)) => {
                    self.asm.load(w, RAX, a);
                    self.asm.alu(Alu::Cmp, w, RAX, b);
                }
            }
            self.release_operand(a.1);
            self.release_operand(b.1);
            self.asm.flags_changed = false;
        } else {
            let t = self.take();
            self.evaluate(value, t);
            self.release(t);
        }
    }

    /// SF and ZF of a value, CF and OF clear.
    fn logic_flags(&mut self, w: bool, value: Value) {
        if let Node::Binary(Binary::And, _, a, b) = self.get(value) {
            // Where the result was just written, its register is unchanged only if it is no operand; look there.
            let fresh = |e: &Emitter, v: Value| match e.get(v) {
                Node::Guest(n, epoch) => e.epochs[usize::from(n)] == epoch,
                Node::Constant(_) => true,
                _ => false,
            };
            if fresh(self, a) && fresh(self, b) {
                let a = self.in_register(a);
                match self.direct(b) {
                    Some(Direct::Constant(c)) => self.asm.test_constant(w, a.0, c),
                    Some(Direct::Rm(rm)) => self.asm.test(w, a.0, rm),
                    None => {
                        let b = self.in_register(b);
                        self.asm.test(w, a.0, b.0);
                        self.release_if(b);
                    }
                }
                return self.release_if(a);
            }
        }
        // The result is in the destination, if there is one.
        if self.committed && self.word & 31 != 31 {
            let n = (self.word & 31) as u8;
            match self.general(n) {
                Rm::Reg(reg) => self.asm.test(w, reg, reg),
                Rm::Mem(mem) => self.asm.alu_constant(Alu::Cmp, w, mem, 0),
            }
            return;
        }
        let t = self.take();
        self.evaluate(value, t);
        self.asm.test(w, t, t);
        self.release(t);
    }

    /// Flags from bits 31:28 of a register, which is changed.
    fn flags_from(&mut self, reg: Reg) {
        // N, Z to bits 15, 14; C to bit 8, inverted; V to bit 0.
        self.asm.load(false, RAX, reg);
        self.asm.shift(ShiftOp::Shr, false, RAX, 16);
        self.asm.alu_constant(Alu::And, false, RAX, 0xc000);
        let t = self.take();
        self.asm.load(false, t, reg);
        self.asm.shift(ShiftOp::Shr, false, t, 21);
        self.asm.alu_constant(Alu::And, false, t, 0x100);
        self.asm.alu_constant(Alu::Xor, false, t, 0x100);
        self.asm.alu(Alu::Or, false, RAX, t);
        self.asm.shift(ShiftOp::Shr, false, reg, 28);
        self.asm.alu_constant(Alu::And, false, reg, 1);
        self.asm.alu(Alu::Or, false, RAX, reg);
        self.asm.store(2, frame::FLAGS, RAX);
        self.release(t);
        self.asm.flags_changed = true;
    }

    /// NZCV in bits 31:28 of a register.
    pub(super) fn flags_to_register(&mut self) -> Value {
        self.need_flags_in_frame();
        let to = self.take();
        let t = self.take();
        self.asm.load_zero_extended(2, to, frame::FLAGS);
        self.asm.load(false, t, to);
        self.asm.load(false, RAX, to);
        self.asm.alu_constant(Alu::And, false, to, 0xc000);
        self.asm.shift(ShiftOp::Shl, false, to, 16);
        self.asm.alu_constant(Alu::And, false, t, 0x100);
        self.asm.alu_constant(Alu::Xor, false, t, 0x100);
        self.asm.shift(ShiftOp::Shl, false, t, 21);
        self.asm.alu(Alu::Or, false, to, t);
        self.asm.alu_constant(Alu::And, false, RAX, 1);
        self.asm.shift(ShiftOp::Shl, false, RAX, 28);
        self.asm.alu(Alu::Or, false, to, RAX);
        self.release(t);
        self.node(Node::Register(to))
    }

    // ---- registers

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

    // ---- memory

    /// The label to go to for the interpreter to execute the instruction.
    pub(super) fn slow_label(&mut self) -> Label {
        match self.slow {
            Some((from, _)) => from,
            None => {
                let labels = (self.asm.label(), self.asm.label());
                self.slow = Some(labels);
                labels.0
            }
        }
    }

    /// Memory at an offset into the present place.
    pub(super) fn memory(&self, offset: i32) -> Mem {
        match self.page_of_place {
            Some(page) => Mem::indexed(page, self.place, 1, offset),
            None => Mem::at(self.place, offset),
        }
    }

    /// Looks a span of memory up in the TLB: the host address, in a register of its own.
    pub(super) fn look_up(&mut self, address: Value, access: Access, align: Option<u8>) -> Place {
        if self.accessed || self.committed {
            self.fail("second access");
        }
        self.accessed = true;
        self.page_of_place = None;
        if self.failed.is_some() {
            return Place(RAX);
        }
        let slow = self.slow_label();
        if access.sp_base && self.key.sp_align_check && !self.stack_is_aligned {
            match self.general(31) {
                Rm::Reg(sp) => self.asm.test_byte(sp, 15),
                Rm::Mem(sp) => self.asm.test_byte(sp, 15),
            }
            self.asm.jcc(Cc::Ne, slow);
            self.stack_is_aligned = true;
        }
        let window = self.window.filter(|_| !self.strict_memory);
        let align = align.unwrap_or(1);
        if window.is_none()
            && align == 1
            && let Some(place) = self.look_up_near(address, access, slow)
        {
            self.place = place.0;
            return place;
        }
        let address = self.in_register(address);
        // Of an access that is to be aligned as a whole, the page is compared and the alignment in one.
        let at_once = window.is_none() && u16::from(align) == access.bytes;
        if align > 1 && !at_once {
            self.asm.test_byte(address.0, align - 1);
            self.asm.jcc(Cc::Ne, slow);
        }
        let entry = self.take();
        let place = self.take();
        match window {
            Some(window) => {
                let (from, back) = (self.asm.label(), self.asm.label());
                let kept = frame::window(window);
                let homes = self.homes.windows[usize::from(window)];
                match homes.minus_base {
                    Some(base) => self
                        .asm
                        .lea(true, place, Mem::indexed(address.0, base, 1, 0)),
                    None => {
                        self.asm.load(true, place, address.0);
                        self.asm.alu(Alu::Sub, true, place, kept.base);
                    }
                }
                self.asm.alu(Alu::Cmp, true, place, kept.limit);
                self.asm.jcc(Cc::Ae, from);
                let plain = matches!(access.order, Order::Plain | Order::Element(_));
                match homes.host {
                    Some(host) if plain => {
                        self.asm.bind(back);
                        self.page_of_place = Some(host);
                    }
                    Some(host) => {
                        self.asm.bind(back);
                        self.asm.alu(Alu::Add, true, place, host);
                    }
                    None => {
                        self.asm.alu(Alu::Add, true, place, kept.host);
                        self.asm.bind(back);
                    }
                }
                self.stubs.push(Stub::Window {
                    from,
                    back,
                    slow,
                    window,
                    address: address.0,
                    access,
                    place,
                    entry,
                });
            }
            None => {
                let whole = at_once && align > 1;
                self.look_up_in_tlb(address.0, access, whole, place, entry, slow);
            }
        }
        self.release_if(address);
        self.release(entry);
        self.place = place;
        Place(place)
    }

    /// The TLB's entry for a byte `from` bytes beyond an address.
    fn find_entry(&mut self, address: Reg, from: i32, access: Access, entry: Reg) {
        let layout = &Layout::THIS;
        // The entry's place in the array: bits of the page's number times its size.
        let size_bits = layout.entry.trailing_zeros() as u8;
        if from == 0 {
            self.asm.load(false, entry, address);
        } else {
            self.asm.lea(false, entry, Mem::at(address, from));
        }
        self.asm.shift(ShiftOp::Shr, false, entry, 12 - size_bits);
        let mask = ((layout.count - 1) << size_bits) as i32;
        self.asm.alu_constant(Alu::And, false, entry, mask);
        let set = if access.unprivileged {
            frame::USER
        } else {
            frame::DATA
        };
        self.asm.alu(Alu::Add, true, entry, set);
    }

    /// What an entry is compared with, for an access.
    fn tag(access: Access, entry: Reg) -> Mem {
        let layout = &Layout::THIS;
        let tag = match access.kind {
            AccessKind::Read => layout.read,
            AccessKind::Write | AccessKind::ReadWrite => layout.write,
        };
        Mem::at(entry, (layout.entries + tag) as i32)
    }

    /// The host address of an address in the page of an entry, to `page`.
    fn by_entry(&mut self, address: Reg, page: Reg, entry: Reg) {
        let layout = &Layout::THIS;
        let addend = Mem::at(entry, (layout.entries + layout.addend) as i32);
        self.asm.load(true, page, addend);
        self.asm.alu(Alu::Add, true, page, address);
    }

    /// The host address of an access, by the TLB's entry in `entry`, to `page`, if the entry is that of all from `ends[0]` to
    /// `ends[1]` bytes beyond the address; else goes to `elsewhere`.
    pub(super) fn look_up_around(
        &mut self,
        address: Reg,
        access: Access,
        ends: [i32; 2],
        [page, entry]: [Reg; 2],
        elsewhere: Label,
    ) {
        self.find_entry(address, ends[0], access, entry);
        self.asm.lea(true, page, Mem::at(address, ends[1] - 1));
        self.asm.alu_constant(Alu::And, true, page, -4096);
        self.asm.alu(Alu::Cmp, true, page, Self::tag(access, entry));
        self.asm.jcc(Cc::Ne, elsewhere);
        self.by_entry(address, page, entry);
    }

    /// The host address of an access, by the TLB's entry in `entry`, to `page`. `aligned`: goes to `slow` unless the address
    /// is a multiple of the access's bytes.
    pub(super) fn look_up_in_tlb(
        &mut self,
        address: Reg,
        access: Access,
        aligned: bool,
        page: Reg,
        entry: Reg,
        slow: Label,
    ) {
        self.find_entry(address, 0, access, entry);
        let last = i32::from(access.bytes) - 1;
        if aligned {
            // Low bits that are set match no entry.
            self.asm.load(true, page, address);
            self.asm.alu_constant(Alu::And, true, page, -4096 | last);
        } else {
            // The page of the last byte: of another page than the first, it does not match this entry.
            if last > 0 {
                self.asm.lea(true, page, Mem::at(address, last));
            } else {
                self.asm.load(true, page, address);
            }
            self.asm.alu_constant(Alu::And, true, page, -4096);
        }
        let tag = Self::tag(access, entry);
        self.asm.alu(Alu::Cmp, true, page, tag);
        let align = match access.order {
            Order::Plain => access.size,
            Order::Element(unit) => unit,
            _ => 0,
        };
        if self.strict_memory && align != 0 {
            let (from, back) = (self.asm.label(), self.asm.label());
            self.asm.jcc(Cc::Ne, from);
            self.asm.bind(back);
            self.stubs.push(Stub::Strict {
                from,
                back,
                slow,
                address,
                page,
                tag,
                align,
            });
        } else {
            self.asm.jcc(Cc::Ne, slow);
        }
        self.by_entry(address, page, entry);
    }

    // ---- ways out

    /// A jump to an offset from the page's address, at the end of a block or out of line.
    pub(super) fn leave_to(&mut self, to: i64) {
        if (0..0x1000).contains(&to) {
            self.leave_loop();
            // Patched when linked. Until then it goes to the next instruction, which is the stub.
            let at = self.asm.at() as u32 + 1;
            let stub = at + 4;
            self.asm.jmp_to(self.asm.origin + self.asm.at() + 5);
            self.load_exit_number();
            self.asm.jmp_to(self.thunks.link);
            let (to, far) = (to as i32, None);
            self.exits.push(Exit { at, stub, to, far });
        } else if let Ok(to) = i32::try_from(to) {
            self.leave_page(to);
        } else {
            self.asm.load(true, RAX, frame::PAGE);
            self.asm.constant(RCX, to as u64);
            self.asm.alu(Alu::Add, true, RAX, RCX);
            self.jump_indirect();
        }
    }

    /// Jumps to another page: straight, if it is linked for the present context and page. What goes forwards only ends where
    /// the code does that is in the cache; what goes backwards polls.
    fn leave_page(&mut self, to: i32) {
        self.leave_loop();
        let slow = self.asm.label();
        if to < 0 {
            self.asm.load(true, RAX, frame::PENDING);
            self.asm.alu_constant(Alu::Cmp, false, Mem::at(RAX, 0), 0);
            self.asm.jcc(Cc::Ne, slow);
        }
        let context = self.compare_constant(frame::CONTEXT);
        self.asm.jcc(Cc::Ne, slow);
        let page = self.compare_constant(frame::PAGE);
        self.asm.jcc(Cc::Ne, slow);
        self.asm
            .alu_constant(Alu::Add, true, frame::PAGE, to & -4096);
        let at = self.asm.at() as u32 + 1;
        self.asm.jmp_to(self.asm.origin + self.asm.at() + 5);
        self.asm.bind(slow);
        let patience = self.next_patience;
        self.next_patience = (patience + 1) % frame::PATIENCES as u16;
        self.asm.constant(RAX, i64::from(to) as u64);
        self.asm.constant(RCX, patience.into());
        let stub = self.asm.at() as u32;
        self.load_exit_number();
        self.asm.jmp_to(self.thunks.far);
        let far = Some(Far {
            context,
            page,
            patience,
        });
        self.exits.push(Exit { at, stub, to, far });
    }

    /// Compares 64 bits with a constant that is to be filled in: where that is. It is 0 until then. RCX is changed.
    fn compare_constant(&mut self, with: Mem) -> u32 {
        self.asm.bytes.extend_from_slice(&[0x48, 0xb9]); // mov rcx, constant
        let at = self.asm.at() as u32;
        self.asm.bytes.extend_from_slice(&[0; 8]);
        self.asm.alu(Alu::Cmp, true, RCX, with);
        at
    }

    /// To RSI; the number is filled in when the block is placed.
    fn load_exit_number(&mut self) {
        self.asm.bytes.extend_from_slice(&[0xbe, 0, 0, 0, 0]); // mov esi, exit
    }

    /// Jumps to the guest address in RAX, if it is in the jump cache and nothing wants attention.
    pub(super) fn jump_indirect(&mut self) {
        self.leave_loop();
        thunks::look_up_jump(&mut self.asm, self.thunks.indirect);
    }

    /// Leaves the block for an offset, polling if that is backwards.
    pub(super) fn go_to(&mut self, from: u32, to: i64) {
        // Only calls write a register. What is known in a loop is not known on that way, were it to lead into it.
        let calls = self.committed;
        // A branch on no condition.
        if std::mem::take(&mut self.flags_are_in_host) {
            self.store_flags();
        }
        let entry = self.entry(to).copied().filter(|_| !calls);
        if !entry.is_some_and(|entry| entry.takes(self.sunk)) {
            self.store_sunk_now();
        }
        let sunk = self.sunk;
        let inside = entry.map(|entry| entry.label_for(sunk));
        if to <= i64::from(from) && to >= 0 {
            let attend = self.asm.label();
            self.poll();
            self.stubs.push(Stub::Back {
                from: attend,
                to,
                thunk: self.thunks.indirect,
                flags: false,
                sunk,
            });
            if let Some(label) = inside {
                self.asm.jcc(Cc::E, label);
                return self.asm.jmp(attend);
            }
            self.asm.jcc(Cc::Ne, attend);
            if !calls
                && self.in_loop.is_none()
                && let Some(page) = self.counts_jumps
            {
                let hot = self.asm.label();
                let count = frame::heat(page, to as u32);
                self.asm.alu_constant(Alu::Sub, false, count, 1);
                self.asm.jcc(Cc::S, hot);
                self.stubs.push(Stub::Back {
                    from: hot,
                    to,
                    thunk: self.thunks.hot,
                    flags: false,
                    sunk: None,
                });
            }
        }
        match inside {
            Some(label) => self.asm.jmp(label),
            None => self.leave_to(to),
        }
    }

    /// Jumps back in a loop, polling, with flags that are only in the host's.
    fn go_back_with_flags(&mut self, head: Label, to: i64) {
        let attend = self.asm.label();
        // What compares would change them.
        self.take_this(RCX);
        let pending = match self.homes.pending {
            Some(reg) => reg,
            None => {
                self.asm.load(true, RCX, frame::PENDING);
                RCX
            }
        };
        self.asm.load(false, RCX, Mem::at(pending, 0));
        self.asm.jmp_unless_rcx_is_zero(attend);
        self.release(RCX);
        self.asm.jmp(head);
        self.stubs.push(Stub::Back {
            from: attend,
            to,
            thunk: self.thunks.indirect,
            flags: true,
            sunk: None,
        });
    }

    /// A conditional branch out of the block, which goes on after it.
    pub(super) fn branch(&mut self, cond: Cond, to: i64) {
        let cc = self.condition_code(cond);
        if self.failed.is_some() {
            return;
        }
        let keep = self.asm.flags_changed;
        let flags = std::mem::take(&mut self.flags_are_in_host);
        if to <= i64::from(self.offset) && to >= 0 {
            let over = self.asm.label();
            self.asm.jcc(cc.not(), over);
            match self.entry(to).copied() {
                // Flags that are only in the host's nobody looks at inside.
                Some(head) if flags && !self.committed => self.go_back_with_flags(head.label, to),
                _ => {
                    self.flags_are_in_host = flags;
                    let sunk = self.sunk;
                    self.go_to(self.offset, to);
                    self.sunk = sunk;
                }
            }
            self.asm.bind(over);
        } else if let Some(entry) = self.entry(to).copied() {
            if entry.takes(self.sunk) {
                self.asm.jcc(cc, entry.label_for(self.sunk));
            } else {
                let from = self.asm.label();
                self.asm.jcc(cc, from);
                self.stubs.push(Stub::Edge {
                    from,
                    to: entry.label_for(None),
                    sunk: self.sunk,
                });
            }
        } else {
            let from = self.asm.label();
            self.asm.jcc(cc, from);
            self.stubs.push(Stub::Exit {
                from,
                to,
                flags,
                sunk: self.sunk,
            });
        }
        if flags && self.leaves_after {
            self.store_flags();
        }
        self.asm.flags_changed = keep;
    }

    /// Ends the block after the instruction before `next`, and emits what is out of line.
    pub fn finish(&mut self, next: u32) {
        match self.end.take() {
            Some(End::Jump(to)) => self.go_to(self.offset, to),
            Some(End::Indirect) => {}
            None => self.leave_to(next.into()),
        }
        self.finish_stubs();
        self.asm.finish();
    }

    /// Emits what is out of line.
    pub(super) fn finish_stubs(&mut self) {
        let mut stubs = std::mem::take(&mut self.stubs);
        self.busy = 0;
        for stub in stubs.drain(..) {
            match stub {
                Stub::Interpret {
                    from,
                    back,
                    word,
                    offset,
                    cause,
                    open,
                    sunk,
                } => {
                    self.asm.bind(from);
                    self.store_sunk(sunk);
                    self.call_interpreter(word, offset, cause);
                    self.close_places(open);
                    self.asm.jmp(back);
                }
                Stub::Exit {
                    from,
                    to,
                    flags,
                    sunk,
                } => {
                    self.asm.bind(from);
                    if flags {
                        self.store_flags();
                    }
                    self.store_sunk(sunk);
                    self.leave_to(to);
                }
                Stub::Edge { from, to, sunk } => {
                    self.asm.bind(from);
                    self.store_sunk(sunk);
                    self.asm.jmp(to);
                }
                Stub::Back {
                    from,
                    to,
                    thunk,
                    flags,
                    sunk,
                } => {
                    self.asm.bind(from);
                    if flags {
                        self.store_flags();
                    }
                    self.store_sunk(sunk);
                    self.leave_loop();
                    self.asm.load(true, RAX, frame::PAGE);
                    self.asm.alu_constant(Alu::Add, true, RAX, to as i32);
                    self.asm.jmp_to(thunk);
                }
                Stub::Window {
                    from,
                    back,
                    slow,
                    window,
                    address,
                    access,
                    place,
                    entry,
                } => {
                    self.asm.bind(from);
                    self.look_up_in_tlb(address, access, false, place, entry, slow);
                    let kept = frame::window(window);
                    let homes = self.homes.windows[usize::from(window)];
                    self.asm.load(true, entry, address);
                    self.asm.alu_constant(Alu::And, true, entry, -4096);
                    match homes.minus_base {
                        Some(base) => {
                            self.asm.load(true, base, entry);
                            self.asm.neg(true, base);
                        }
                        None => self.asm.store(8, kept.base, entry),
                    }
                    // The page's host address: that of the access, less the offset in the page.
                    self.asm.alu(Alu::Sub, true, entry, address);
                    match homes.host {
                        Some(host) => {
                            self.asm.lea(true, host, Mem::indexed(entry, place, 1, 0));
                            self.asm.load(true, place, entry);
                            self.asm.neg(true, place);
                        }
                        None => {
                            self.asm.alu(Alu::Add, true, entry, place);
                            self.asm.store(8, kept.host, entry);
                        }
                    }
                    let limit = 4097 - i32::from(access.bytes);
                    self.asm.store_constant(8, kept.limit, limit);
                    self.asm.jmp(back);
                }
                Stub::Leader {
                    from,
                    back,
                    slow,
                    number,
                    access,
                    registers: [address, entry, place],
                } => {
                    self.asm.bind(from);
                    self.asm.store_constant(8, frame::place(number), 0);
                    self.look_up_in_tlb(address, access, false, place, entry, slow);
                    self.asm.jmp(back);
                }
                Stub::Near {
                    from,
                    back,
                    slow,
                    base,
                    offset,
                    access,
                    registers,
                } => {
                    self.asm.bind(from);
                    self.emit_near(base, offset, access, registers, slow);
                    self.asm.jmp(back);
                }
                Stub::Strict {
                    from,
                    back,
                    slow,
                    address,
                    page,
                    tag,
                    align,
                } => {
                    self.asm.bind(from);
                    if align > 1 {
                        self.asm.test_byte(address, align - 1);
                        self.asm.jcc(Cc::Ne, slow);
                    }
                    self.asm
                        .alu_constant(Alu::Or, true, page, Layout::THIS.aligned_only as i32);
                    self.asm.alu(Alu::Cmp, true, page, tag);
                    self.asm.jcc(Cc::Ne, slow);
                    self.asm.jmp(back);
                }
                Stub::Function {
                    from,
                    back,
                    operation,
                    function,
                    operands,
                    result,
                } => {
                    self.asm.bind(from);
                    self.call_vector_function(operation, function, operands);
                    self.load_vector_from(result, frame::RESULT);
                    self.asm.jmp(back);
                }
            }
        }
        // Its memory is for the next block's.
        self.stubs = stubs;
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
