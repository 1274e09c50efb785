//! Code that all blocks share: the way in, the ways out, and calls of functions.
//!
//! Between instructions, generated code has the guest's pinned registers in host registers, its flags in
//! [`frame::FLAGS`], and everything else in the state. Functions that may look at, or change, any of the state are
//! called with all of it there; they answer where execution goes on, or 0 to leave generated code.

use super::assembler::{
    Alu, Assembler, Cc, Mem, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, Reg,
    ShiftOp, Xmm,
};
use super::emitter::Thunks;
use super::{exceptions, frame, pointers, vector};

/// What thunks call: addresses of functions.
pub struct Functions {
    pub link: usize,
    pub indirect: usize,
    pub interpret: usize,
    pub hot: usize,
    pub arrive: usize,
}

/// Registers that a C function keeps, in the order they are pushed.
const SAVED: [Reg; 6] = [RBX, RBP, R12, R13, R14, R15];
/// So that the stack is aligned to 16 in generated code.
const FRAME: i32 = frame::STACK + 8;

/// Emits the thunks at an address: their code, and where each is.
pub fn emit(origin: usize, functions: &Functions) -> (Vec<u8>, Thunks) {
    let mut asm = Assembler::default();
    asm.restart(origin);
    let mut thunks = Thunks::default();
    let here = |asm: &Assembler| origin + asm.at();

    // extern "C" fn(base: *mut u8, code: usize)
    thunks.enter = here(&asm);
    for reg in SAVED {
        asm.push(reg);
    }
    asm.alu_constant(Alu::Sub, true, RSP, FRAME);
    asm.load(true, RBP, RDI);
    load_state(&mut asm);
    asm.jmp_indirect(RSI);

    thunks.leave = here(&asm);
    asm.alu_constant(Alu::Add, true, RSP, FRAME);
    for reg in SAVED.into_iter().rev() {
        asm.pop(reg);
    }
    asm.ret();

    // RSI: the exit's number.
    thunks.link = here(&asm);
    go_by(&mut asm, functions.link, thunks.leave);

    // RAX: the guest address, less that of the page.
    thunks.dead = here(&asm);
    asm.alu(Alu::Add, true, RAX, frame::PAGE);
    // RAX: the guest address.
    thunks.indirect = here(&asm);
    asm.load(true, RSI, RAX);
    go_by(&mut asm, functions.indirect, thunks.leave);

    // RSI: the exit's number; RAX: where it goes, from the start of the page; RCX: its index into the counts of patience.
    thunks.far = here(&asm);
    asm.alu_constant(Alu::Sub, false, frame::patience(RCX), 1);
    asm.jcc_to(Cc::S, thunks.link);
    asm.alu(Alu::Add, true, RAX, frame::PAGE);
    look_up_jump(&mut asm, thunks.indirect);

    // RAX: the guest address.
    thunks.hot = here(&asm);
    asm.load(true, RSI, RAX);
    go_by(&mut asm, functions.hot, thunks.leave);

    // Called with RSI: the instruction; RDX: its offset in the page, and why.
    thunks.interpret = here(&asm);
    save_state(&mut asm);
    asm.alu_constant(Alu::Sub, true, RSP, 8);
    asm.lea(true, RDI, frame::MACHINE);
    asm.constant(RAX, functions.interpret as u64);
    asm.call_indirect(RAX);
    asm.alu_constant(Alu::Add, true, RSP, 8);
    let (elsewhere, leave) = (asm.label(), asm.label());
    asm.alu_constant(Alu::Cmp, true, RAX, 1);
    asm.jcc(Cc::Ne, elsewhere);
    load_state(&mut asm);
    asm.ret();
    asm.bind(elsewhere);
    thunks.interpreted = here(&asm);
    thunks.interpret_function = functions.interpret;
    asm.pop(RDX);
    asm.test(true, RAX, RAX);
    asm.jcc(Cc::E, leave);
    load_state(&mut asm);
    asm.jmp_indirect(RAX);
    asm.bind(leave);
    asm.jmp_to(thunks.leave);

    // Called with RAX: the function, which looks at the frame only. Whatever lives in which register stays.
    thunks.call = here(&asm);
    let general = frame::LOST_IN_CALLS.len() as i32;
    let vectors = i32::from(frame::XMMS);
    let size = (8 * general + 16 * vectors + 15) / 16 * 16 + 8;
    asm.alu_constant(Alu::Sub, true, RSP, size);
    let place = |i: i32| Mem::at(RSP, 16 * vectors + 8 * i);
    for (i, reg) in frame::LOST_IN_CALLS.into_iter().enumerate() {
        asm.store(8, place(i as i32), reg);
    }
    for i in 0..frame::XMMS {
        asm.vector2(vector::STORE, Xmm(i), Mem::at(RSP, 16 * i32::from(i)));
    }
    asm.call_indirect(RAX);
    for i in 0..frame::XMMS {
        asm.vector2(vector::LOAD, Xmm(i), Mem::at(RSP, 16 * i32::from(i)));
    }
    for (i, reg) in frame::LOST_IN_CALLS.into_iter().enumerate() {
        asm.load(true, reg, place(i as i32));
    }
    asm.alu_constant(Alu::Add, true, RSP, size);
    asm.ret();

    for key in 0..pointers::KEYS {
        thunks.pointers[key] = pointers::emit(&mut asm, origin, key, thunks.call);
    }

    thunks.crossings = exceptions::emit(&mut asm, origin, &thunks, functions.arrive);

    asm.finish();
    (asm.bytes, thunks)
}

/// Goes on where a function of the machine and RSI says.
pub fn go_by(asm: &mut Assembler, function: usize, leave: usize) {
    save_state(asm);
    asm.lea(true, RDI, frame::MACHINE);
    asm.constant(RAX, function as u64);
    asm.call_indirect(RAX);
    asm.test(true, RAX, RAX);
    asm.jcc_to(Cc::E, leave);
    load_state(asm);
    asm.jmp_indirect(RAX);
}

/// Jumps to the guest address in RAX, if it is in the jump cache and nothing wants attention, and else to `miss`.
pub fn look_up_jump(asm: &mut Assembler, miss: usize) {
    let entry = size_of::<frame::Jump>();
    asm.load(false, RCX, RAX);
    // Instructions are 4 bytes, entries 32.
    asm.shift(ShiftOp::Shl, false, RCX, (entry / 4).trailing_zeros() as u8);
    asm.alu_constant(Alu::And, false, RCX, ((frame::JUMPS - 1) * entry) as i32);
    asm.alu(Alu::Add, true, RCX, frame::JUMP_CACHE);
    asm.alu(Alu::Cmp, true, RAX, Mem::at(RCX, 0));
    asm.jcc_to(Cc::Ne, miss);
    asm.load(true, RDX, frame::CONTEXT);
    asm.alu(Alu::Cmp, true, RDX, Mem::at(RCX, 8));
    asm.jcc_to(Cc::Ne, miss);
    asm.load(true, RDX, frame::PENDING);
    asm.alu_constant(Alu::Cmp, false, Mem::at(RDX, 0), 0);
    asm.jcc_to(Cc::Ne, miss);
    asm.alu_constant(Alu::And, true, RAX, -4096);
    asm.store(8, frame::PAGE, RAX);
    asm.jmp_indirect(Mem::at(RCX, 16));
}

fn save_state(asm: &mut Assembler) {
    for (n, reg) in frame::PINNED {
        asm.store(8, frame::general(n), reg);
    }
    asm.store_mxcsr(frame::MXCSR);
}

fn load_state(asm: &mut Assembler) {
    for (n, reg) in frame::PINNED {
        asm.load(true, reg, frame::general(n));
    }
    asm.load_mxcsr(frame::MXCSR_START);
}

/// What is put at the start of code that is not to be executed any more: goes where it would go.
pub fn dead(origin: usize, offset: u32, thunks: &Thunks) -> Vec<u8> {
    let mut asm = Assembler::default();
    asm.restart(origin);
    asm.constant(RAX, offset.into());
    asm.jmp_to(thunks.dead);
    asm.bytes
}
