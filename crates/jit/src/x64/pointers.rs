//! Pointer authentication in generated code, by thunks: what [`cpu`]'s does, for pointers that are as they are to be; others go
//! to its function.

use super::assembler::{Alu, Assembler, Cc, Mem, RAX, RCX, RDI, RDX, RSI, Reg};
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
    asm.push(RDI);
    code(asm, key);
    asm.pop(RDI);
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
    asm.push(RSI);
    asm.push(RDI);
    code(asm, key);
    asm.pop(RDI);
    asm.pop(RSI);
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

/// RAX: the code of RCX with the modifier RSI. RDX, RSI and RDI are lost.
fn code(asm: &mut Assembler, key: usize) {
    let [low, high] = [0, 1].map(|half| frame::pac_key(key, half));
    let [c1, c2, c3, c4] = cpu::pac_constants();
    let xor = |asm: &mut Assembler, reg: Reg, by: Mem| asm.alu(Alu::Xor, true, reg, by);
    let xor_constant = |asm: &mut Assembler, reg: Reg, by: u64| {
        asm.constant(RDX, by);
        asm.alu(Alu::Xor, true, reg, RDX);
    };
    let fold = |asm: &mut Assembler, by: Reg| {
        asm.mul_wide(false, by);
        asm.alu(Alu::Xor, true, RAX, RDX);
    };
    asm.load(true, RAX, RCX);
    xor_constant(asm, RAX, c1);
    xor(asm, RAX, low);
    asm.load(true, RDX, RSI);
    xor(asm, RDX, high);
    asm.alu_constant(Alu::Or, true, RDX, 1);
    fold(asm, RDX);
    // The first half is in RDI from here on.
    asm.load(true, RDI, RAX);
    asm.rotate_right(true, RAX, RCX, 64 - 17);
    xor(asm, RAX, high);
    xor_constant(asm, RAX, c2);
    asm.rotate_right(true, RSI, RSI, 32);
    xor(asm, RSI, low);
    fold(asm, RSI);
    // The second in RSI.
    asm.load(true, RSI, RAX);
    asm.rotate_right(true, RAX, low, 64 - 29);
    asm.alu(Alu::Xor, true, RAX, RSI);
    xor_constant(asm, RAX, c4);
    asm.constant(RDX, c3);
    asm.alu(Alu::Xor, true, RDX, RDI);
    xor(asm, RDX, high);
    fold(asm, RDX);
    asm.rotate_right(true, RDI, RDI, 64 - 23);
    asm.alu(Alu::Xor, true, RAX, RDI);
    asm.alu(Alu::Xor, true, RAX, RSI);
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
