//! SVC and ERET in generated code, by thunks, and MSR PAN.
//!
//! What code of an exception level is known by changes rarely. So it is remembered of EL0, and of EL1 on its own stack pointer
//! ([`frame::Level`]), when a function of the machine finds it ([`Machine::remember_level`]); and thunks go from one to the
//! other for as long as nothing that it was found from has changed. All else is left to the interpreter: illegal returns,
//! AArch32, PSTATE.UAO, debug exceptions, interrupts that a return would unmask.
#![allow(unsafe_code)] // the machine's pointer comes from generated code

use aarch64::Extension;
use aarch64::esr::{class, syndrome};
use cpu::exception::pstate;

use super::assembler::{Alu, Assembler, Cc, Label, Mem, RAX, RCX, RDI, RDX, RSI, Reg, ShiftOp};
use super::emitter::{Emitter, End, Node, Thunks, Value};
use super::frame::{self, Level, Machine};
use super::thunks;

/// SPSR_EL1 of a return that thunks may do: M but for EL and SP, and what changes the key or makes the return illegal.
const RETURN: i32 = (pstate::AARCH32 | 0xf | pstate::IL | pstate::UAO) as i32;
/// M of EL1 on its own stack pointer, and what PSTATE.EL and PSTATE.SP are in the state.
const EL1H: i32 = 5;
const EL1H_STATE: i32 = 0x101;
const VECTORS: i32 = !0x7ff;
/// The stack pointer's home between blocks.
const SP: Reg = {
    let mut i = 0;
    while frame::PINNED[i].0 != 31 {
        i += 1;
    }
    frame::PINNED[i].1
};

/// Thunks of this file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crossings {
    /// SVC by the exception level that it is executed at. RSI: the instruction; RDX: its offset in the page, and why it is
    /// left to the interpreter if it is.
    pub calls: [usize; 2],
    /// ERET at EL1 on its own stack pointer, without PSTATE.UAO. RSI and RDX: the same; RAX: where to.
    pub exception_return: usize,
}

/// Emits them.
pub fn emit(asm: &mut Assembler, origin: usize, thunks: &Thunks, arrive: usize) -> Crossings {
    let missed = origin + asm.at();
    asm.load(true, RSI, RAX);
    thunks::go_by(asm, arrive, thunks.leave);
    let mut crossings = Crossings::default();
    for el in 0..2 {
        crossings.calls[el] = origin + asm.at();
        emit_call(asm, el, thunks, missed);
    }
    crossings.exception_return = origin + asm.at();
    emit_return(asm, thunks);
    crossings
}

/// Has the interpreter execute the instruction if what is remembered of levels is of the past.
fn check_versions(asm: &mut Assembler, slow: Label) {
    asm.load(true, RCX, frame::VERSIONS);
    asm.alu(Alu::Cmp, true, RCX, frame::LEVELS_VERSION);
    asm.jcc(Cc::Ne, slow);
}

/// Makes a level the present one for code that is looked up, unless nothing is remembered of it. RCX and RDI are lost.
fn enter_level(asm: &mut Assembler, level: usize, slow: Label) {
    asm.load(true, RDI, frame::level_context(level));
    asm.test(true, RDI, RDI);
    asm.jcc(Cc::E, slow);
    asm.load(true, RCX, frame::level_jumps(level));
    asm.store(8, frame::CONTEXT, RDI);
    asm.store(8, frame::JUMP_CACHE, RCX);
}

fn change_stack(asm: &mut Assembler, from: Mem, to: Mem) {
    asm.store(8, from, SP);
    asm.load(true, SP, to);
}

/// Data accesses are EL1's with the PAN of a PSTATE in that register, which is lost.
fn use_kernel_set(asm: &mut Assembler, reg: Reg) {
    asm.shift(ShiftOp::Shr, false, reg, pstate::PAN.trailing_zeros() as u8);
    asm.alu_constant(Alu::And, false, reg, 1);
    asm.load(true, reg, frame::kernel_set_by(reg));
    asm.store(8, frame::DATA, reg);
}

fn crossed(asm: &mut Assembler) {
    asm.store_constant(1, frame::STEPPED, 0);
    asm.store_constant(4, frame::CROSSED, 1);
}

/// What could not be done is done by the interpreter, which goes on elsewhere.
fn leave_to_interpreter(asm: &mut Assembler, slow: Label, thunks: &Thunks) {
    asm.bind(slow);
    asm.call_to(thunks.interpret);
    // Not reached: neither is followed by the next instruction.
    asm.jmp_to(thunks.leave);
}

/// As [`cpu::Core`] takes the exception.
fn emit_call(asm: &mut Assembler, el: usize, thunks: &Thunks, missed: usize) {
    let slow = asm.label();
    check_versions(asm, slow);
    if el == 0 {
        enter_level(asm, 1, slow);
    }
    asm.alu_constant(Alu::And, false, RDX, 0xfff);
    asm.alu(Alu::Add, true, RDX, frame::PAGE);
    asm.alu_constant(Alu::Add, true, RDX, 4);
    asm.store(8, frame::ELR_EL1, RDX);
    // The immediate is in bits 20:5.
    asm.shift(ShiftOp::Shr, false, RSI, 5);
    asm.load_zero_extended(2, RSI, RSI);
    asm.alu_constant(Alu::Or, false, RSI, syndrome(class::SVC, 0) as i32);
    asm.store(8, frame::ESR_EL1, RSI);

    flags_to_nzcv(asm);
    asm.load(false, RCX, frame::PSTATE);
    let kept = !(pstate::SS | pstate::NZCV) as i32;
    asm.alu_constant(Alu::And, false, RCX, kept);
    asm.alu(Alu::Or, false, RAX, RCX);
    if el == 1 {
        asm.alu_constant(Alu::Or, false, RAX, EL1H);
    }
    asm.store(8, frame::SPSR_EL1, RAX);
    asm.alu(Alu::And, false, RCX, frame::ENTRY_KEEPS);
    asm.alu(Alu::Or, false, RCX, frame::ENTRY_SETS);
    asm.store(4, frame::PSTATE, RCX);
    use_kernel_set(asm, RCX);
    if el == 0 {
        change_stack(asm, frame::SP_EL0, frame::SP_EL1);
        asm.store_constant(2, frame::LEVEL, EL1H_STATE);
    }
    crossed(asm);
    asm.load(true, RAX, frame::VBAR_EL1);
    asm.alu_constant(Alu::And, true, RAX, VECTORS);
    let vector = if el == 0 { 0x400 } else { 0x200 };
    asm.alu_constant(Alu::Add, true, RAX, vector);
    thunks::look_up_jump(asm, missed);
    leave_to_interpreter(asm, slow, thunks);
}

/// The guest's flags as NZCV in RAX. RCX is lost.
fn flags_to_nzcv(asm: &mut Assembler) {
    asm.load_zero_extended(2, RCX, frame::FLAGS);
    // N, Z.
    asm.load(false, RAX, RCX);
    asm.alu_constant(Alu::And, false, RAX, 0xc000);
    asm.shift(ShiftOp::Shl, false, RAX, 16);
    // The inverse of C in bit 8, V in bit 0.
    asm.load(false, RDI, RCX);
    asm.alu_constant(Alu::And, false, RDI, 0x100);
    asm.alu_constant(Alu::Xor, false, RDI, 0x100);
    asm.shift(ShiftOp::Shl, false, RDI, 21);
    asm.alu(Alu::Or, false, RAX, RDI);
    asm.shift(ShiftOp::Shl, false, RCX, 28);
    asm.alu_constant(Alu::And, false, RCX, 1 << 28);
    asm.alu(Alu::Or, false, RAX, RCX);
}

/// The other way. RCX and RDI are lost.
fn nzcv_to_flags(asm: &mut Assembler) {
    asm.load(false, RCX, RAX);
    asm.shift(ShiftOp::Shr, false, RCX, 16);
    asm.alu_constant(Alu::And, false, RCX, 0xc000);
    asm.load(false, RDI, RAX);
    asm.shift(ShiftOp::Shr, false, RDI, 21);
    asm.alu_constant(Alu::And, false, RDI, 0x100);
    asm.alu_constant(Alu::Xor, false, RDI, 0x100);
    asm.alu(Alu::Or, false, RCX, RDI);
    asm.shift(ShiftOp::Shr, false, RAX, 28);
    asm.alu_constant(Alu::And, false, RAX, 1);
    asm.alu(Alu::Or, false, RCX, RAX);
    asm.store(2, frame::FLAGS, RCX);
}

/// As [`cpu::Core::exception_return`].
fn emit_return(asm: &mut Assembler, thunks: &Thunks) {
    let [slow, same, done] = [asm.label(), asm.label(), asm.label()];
    check_versions(asm, slow);
    asm.load(true, RCX, frame::LINES);
    asm.alu_constant(Alu::Cmp, false, Mem::at(RCX, 0), 0);
    asm.jcc(Cc::Ne, slow);
    asm.load(false, RCX, frame::SPSR_EL1);
    asm.alu_constant(Alu::And, false, RCX, RETURN);
    asm.alu_constant(Alu::Cmp, false, RCX, EL1H);
    asm.jcc(Cc::E, same);
    asm.test(false, RCX, RCX);
    asm.jcc(Cc::Ne, slow);

    enter_level(asm, 0, slow);
    asm.load(true, RSI, RAX);
    change_stack(asm, frame::SP_EL1, frame::SP_EL0);
    asm.store_constant(2, frame::LEVEL, 0);
    asm.load(true, RCX, frame::USER);
    asm.store(8, frame::DATA, RCX);
    asm.load(false, RAX, frame::SPSR_EL1);
    asm.load(false, RCX, RAX);
    asm.alu(Alu::And, false, RCX, frame::RETURN_KEEPS);
    asm.store(4, frame::PSTATE, RCX);
    asm.jmp(done);

    asm.bind(same);
    asm.load(true, RSI, RAX);
    asm.load(false, RAX, frame::SPSR_EL1);
    asm.load(false, RCX, RAX);
    asm.alu(Alu::And, false, RCX, frame::RETURN_KEEPS);
    asm.store(4, frame::PSTATE, RCX);
    use_kernel_set(asm, RCX);

    asm.bind(done);
    nzcv_to_flags(asm);
    asm.store_constant(1, frame::MONITOR_ARMED, 0);
    asm.store_constant(1, frame::EVENT, 1);
    crossed(asm);
    asm.load(true, RAX, RSI);
    thunks::look_up_jump(asm, thunks.indirect);
    leave_to_interpreter(asm, slow, thunks);
}

impl Emitter {
    /// SVC, and ERET with its target in RAX: the end of the block. Each is left to the interpreter, with that cause, where
    /// the thunk cannot do it.
    fn cross(&mut self, thunk: usize, cause: &'static str) {
        self.load_site(self.word, self.offset, cause);
        self.asm.jmp_to(thunk);
        self.end = Some(End::Indirect);
    }

    /// SVC.
    pub(super) fn supervisor_call(&mut self) {
        let cause = "svc";
        let el = usize::from(self.key.el);
        if el > 1 || self.key.sp_sel != (el == 1) || self.key.uao {
            return self.fail(cause);
        }
        self.cross(self.thunks.crossings.calls[el], cause);
    }

    /// ELR_EL1 at EL1.
    pub(super) fn return_address(&mut self) -> Value {
        let to = self.take();
        self.asm.load(true, to, frame::ELR_EL1);
        self.node(Node::Register(to))
    }

    /// ERET at EL1.
    pub(super) fn return_to(&mut self, target: Value) {
        let cause = "exception return";
        if self.key.el != 1 || !self.key.sp_sel || self.key.uao {
            return self.fail(cause);
        }
        self.evaluate(target, RAX);
        if self.failed.is_none() {
            self.cross(self.thunks.crossings.exception_return, cause);
        }
    }

    /// MSR (immediate) of PAN at EL1; whether it is there.
    pub(super) fn change_pan(&mut self, on: bool) -> bool {
        if self.key.el != 1 || !self.key.extensions.has(Extension::Pan) {
            return false;
        }
        let pan = pstate::PAN as i32;
        if on {
            self.asm.alu_constant(Alu::Or, false, frame::PSTATE, pan);
        } else {
            self.asm.alu_constant(Alu::And, false, frame::PSTATE, !pan);
        }
        let t = self.take();
        self.asm.load(true, t, frame::kernel_set(on));
        self.asm.store(8, frame::DATA, t);
        self.release(t);
        self.asm.store_constant(4, frame::CROSSED, 1);
        true
    }
}

/// What stands for versions if levels are not to be changed by generated code: there are not that many.
pub const NEVER: u64 = u64::MAX;

impl Machine {
    /// After generated code: has the interpreter see what level it is at.
    pub(super) fn settle(&mut self) {
        if self.frame.crossed != 0 {
            self.frame.crossed = 0;
            self.interpreter.crossed();
        }
    }

    /// Remembers what the present level is known by, and forgets it of the other where that may be something else now.
    pub(super) fn remember_level(&mut self) {
        let versions = self.interpreter.code_versions();
        let now = (self.interpreter.surroundings(), self.side.local_kernel);
        if now != self.side.surroundings || self.frame.levels_version != versions {
            self.side.surroundings = now;
            self.frame.levels = [Level::default(); 2];
            self.frame.levels_version = now.0.map_or(NEVER, |_| versions);
            let (keeps, sets, return_keeps) = self.interpreter.pstate_in_crossings();
            self.frame.entry_keeps = keeps;
            self.frame.entry_sets = sets;
            self.frame.return_keeps = return_keeps;
        }
        let key = self.interpreter.core().key();
        let level = match (key.el, key.sp_sel, key.uao) {
            (0, false, false) => 0,
            (1, true, false) => 1,
            _ => return,
        };
        self.frame.levels[level] = Level {
            context: self.frame.context,
            jumps: self.frame.jumps,
        };
    }
}

/// An exception was taken, and the code of its vector is not in the jump cache, or something wants attention before it.
pub extern "C" fn arrive(machine: *mut Machine, vector: u64) -> usize {
    // SAFETY: generated code passes its machine, which nothing else accesses while that code runs.
    let m = unsafe { &mut *machine };
    m.after_code();
    m.interpreter.state().pc = vector;
    m.go()
}
