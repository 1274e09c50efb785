//! Pointer authentication in generated code, by thunks: what [`cpu`]'s does, for pointers that are as they are to be; others go
//! to its function.

use super::assembler::{Alu, Assembler, Cc, RAX, RCX, RDI, RDX, RSI};
use super::emitter::{Emitter, Node, Value};
use super::{frame, functions};

/// Keys that sign pointers: IA, IB, DA, DB.
pub const KEYS: usize = 4;

/// Emits both thunks of a key: where the one that adds a code is, and the one that checks it. RAX: the pointer, and the
/// result; RSI: the modifier. RCX, RDX and RDI are lost.
pub fn emit(asm: &mut Assembler, origin: usize, key: usize, call: usize) -> (usize, usize) {
    let add = origin + asm.at();
    let slow = asm.label();
    half(asm);
    // Bits that a code will be in, or that choose its place, are to be copies of bit 55.
    asm.alu(Alu::Xor, true, RDX, RAX);
    asm.test(true, RDX, frame::pac_mask(key, RDI, 0));
    asm.jcc(Cc::Ne, slow);
    asm.load(true, RCX, RAX);
    code(asm, key);
    asm.alu(Alu::Xor, true, RAX, RCX);
    asm.alu(Alu::And, true, RAX, frame::pac_mask(key, RDI, 1));
    asm.alu(Alu::Xor, true, RAX, RCX);
    asm.ret();
    asm.bind(slow);
    asm.load(true, RDX, RSI);
    asm.load(true, RSI, RAX);
    by_function(asm, functions::pac_add as *const () as usize, key, call);

    let check = origin + asm.at();
    let slow = asm.label();
    half(asm);
    asm.alu(Alu::Xor, true, RDX, RAX);
    asm.alu(Alu::And, true, RDX, frame::pac_mask(key, RDI, 0));
    asm.alu(Alu::Xor, true, RDX, RAX);
    asm.load(true, RCX, RDX);
    asm.push(RAX);
    code(asm, key);
    asm.pop(RDX);
    asm.alu(Alu::Xor, true, RAX, RDX);
    asm.test(true, RAX, frame::pac_mask(key, RDI, 1));
    asm.jcc(Cc::Ne, slow);
    asm.load(true, RAX, RCX);
    asm.ret();
    asm.bind(slow);
    asm.load(true, RCX, RSI);
    asm.load(true, RSI, RDX);
    asm.load(true, RDX, RCX);
    let function = functions::pac_authenticate as *const () as usize;
    by_function(asm, function, key, call);
    (add, check)
}

/// RDX: copies of RAX's bit 55; RDI: where the masks of its half are.
fn half(asm: &mut Assembler) {
    asm.bit_test(true, RAX, 55);
    asm.alu(Alu::Sbb, true, RDX, RDX);
    asm.load(false, RDI, RDX);
    asm.alu_constant(Alu::And, false, RDI, 16);
}

/// RSI: the pointer; RDX: the modifier.
fn by_function(asm: &mut Assembler, function: usize, key: usize, call: usize) {
    asm.constant(RCX, key as u64);
    asm.lea(true, RDI, frame::MACHINE);
    asm.constant(RAX, function as u64);
    asm.jmp_to(call);
}

/// RAX: the code of RCX with the modifier RSI. RDX is lost.
fn code(asm: &mut Assembler, key: usize) {
    let [low, high] = [0, 1].map(|half| frame::pac_key(key, half));
    let [c0, c1] = cpu::pac_constants();
    asm.load(true, RAX, RCX);
    asm.alu(Alu::Xor, true, RAX, low);
    asm.alu_constant(Alu::Xor, true, RAX, c0);
    asm.load(true, RDX, RSI);
    asm.alu(Alu::Xor, true, RDX, high);
    asm.alu_constant(Alu::Xor, true, RDX, c1);
    asm.mul_wide(false, RDX);
    asm.alu(Alu::Xor, true, RAX, high);
    asm.alu(Alu::Xor, true, RDX, low);
    asm.mul_wide(false, RDX);
    asm.alu(Alu::Xor, true, RAX, RDX);
}

impl Emitter {
    /// A pointer with a code added, or (`check`) taken off.
    pub(super) fn authenticated(
        &mut self,
        check: bool,
        key: u32,
        pointer: Value,
        modifier: Value,
    ) -> Value {
        if self.busy_registers() != 0 {
            self.fail("a call in the middle");
            return pointer;
        }
        let (add, checks) = self.thunks.pointers[key as usize % KEYS];
        self.take_this(RDX);
        self.evaluate(pointer, RDX);
        self.take_this(RSI);
        self.evaluate(modifier, RSI);
        self.release(RSI);
        self.release(RDX);
        self.asm.load(true, RAX, RDX);
        self.asm.call_to(if check { checks } else { add });
        self.asm.flags_changed = true;
        let to = self.take();
        self.asm.load(true, to, RAX);
        self.node(Node::Register(to))
    }
}
