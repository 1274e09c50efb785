//! Changes of address spaces, invalidations of the TLB and of code, and the interrupt controller's registers, each by a function that does
//! what the interpreter does for it.
#![allow(unsafe_code)] // the machine's pointer comes from generated code

use aarch64::registers as r;
use cpu::registers::{is_gic, sctlr};
use cpu::tlbi::Invalidation;

use super::assembler::{Alu, Cc, RAX};
use super::emitter::{Emitter, Node, Stub, Value};
use super::frame::{self, Machine};

/// What functions say: the next instruction follows; it is to be looked up; nothing was done, and the interpreter is to do it.
const FOLLOWS: u64 = 0;
const ELSEWHERE: u64 = 1;
const UNDONE: u64 = 2;

impl Emitter {
    /// Calls a function with a register and the value that is written to it.
    fn write_by(&mut self, function: *const (), register: u16, value: Value) {
        let register = self.node(Node::Constant(register.into()));
        self.call(function as usize, &[register, value]);
        let (slow, elsewhere) = (self.slow_label(), self.asm.label());
        self.asm
            .alu_constant(Alu::Cmp, false, RAX, ELSEWHERE as i32);
        self.asm.jcc(Cc::A, slow);
        self.asm.jcc(Cc::E, elsewhere);
        self.stubs.push(Stub::Back {
            from: elsewhere,
            to: i64::from(self.offset) + 4,
            thunk: self.thunks.indirect,
            flags: false,
            sunk: self.sunk,
        });
    }

    /// MSR of a register that has a function; whether it has.
    pub(super) fn write_by_function(&mut self, register: u16, value: Value) -> bool {
        let function = match register {
            r::TTBR0_EL1 | r::TTBR1_EL1 if self.key.el == 1 => write_table_base as *const (),
            _ if self.is_interrupt_register(register) => write_interrupt_register as *const (),
            _ => return false,
        };
        self.write_by(function, register, value);
        true
    }

    /// TLBI at EL1, and IC IVAU; whether it is one of them.
    pub(super) fn invalidate(&mut self, register: u16, value: Value) -> bool {
        if register == r::IC_IVAU {
            self.slow_unless_allowed(sctlr::UCI);
            self.write_by(invalidate_line as *const (), register, value);
            return true;
        }
        if self.key.el != 1 || Invalidation::decode(register, 0).is_none() {
            return false;
        }
        self.write_by(invalidate as *const (), register, value);
        true
    }

    /// Whether a register is the interrupt controller's, at EL1.
    pub(super) fn is_interrupt_register(&self, register: u16) -> bool {
        self.key.el == 1 && self.identification.gic_registers && is_gic(register)
    }

    /// MRS of one.
    pub(super) fn read_interrupt_register(&mut self, register: u16) -> Value {
        let register = self.node(Node::Constant(register.into()));
        self.call(read_interrupt_register as *const () as usize, &[register]);
        let slow = self.slow_label();
        self.asm.test(false, RAX, RAX);
        self.asm.jcc(Cc::Ne, slow);
        let to = self.take();
        self.asm.load(true, to, frame::RESULT);
        self.node(Node::Register(to))
    }
}

/// MSR of TTBR0_EL1 and TTBR1_EL1.
extern "C" fn write_table_base(machine: *mut Machine, register: u64, value: u64) -> u64 {
    // SAFETY: generated code passes its machine, which nothing else accesses while that code runs.
    let m = unsafe { &mut *machine };
    m.settle();
    let known = m.frame.levels_version == m.interpreter.code_versions();
    let before = m.interpreter.address_space();
    if !m.interpreter.write_table_base(register as u16, value) {
        return UNDONE;
    }
    let asid = m.interpreter.address_space();
    if !m.still_here() || (m.side.local_kernel && asid != before) {
        return ELSEWHERE;
    }
    if known && asid != before {
        m.rename_user();
    }
    FOLLOWS
}

/// TLBI.
extern "C" fn invalidate(machine: *mut Machine, register: u64, value: u64) -> u64 {
    // SAFETY: as in `write_table_base`.
    let m = unsafe { &mut *machine };
    m.settle();
    if !m
        .interpreter
        .invalidate_translations(register as u16, value)
    {
        return UNDONE;
    }
    if m.still_here() { FOLLOWS } else { ELSEWHERE }
}

/// IC IVAU.
extern "C" fn invalidate_line(machine: *mut Machine, _: u64, address: u64) -> u64 {
    // SAFETY: as in `write_table_base`.
    let m = unsafe { &mut *machine };
    m.settle();
    if !m.interpreter.invalidate_line(address) {
        UNDONE
    } else if m.interpreter.wants_attention() {
        // Translated code was to go.
        ELSEWHERE
    } else {
        FOLLOWS
    }
}

/// MRS of the interrupt controller's registers: to the frame's result.
extern "C" fn read_interrupt_register(machine: *mut Machine, register: u64) -> u64 {
    // SAFETY: as in `write_table_base`.
    let m = unsafe { &mut *machine };
    match m.interpreter.read_interrupt_register(register as u16) {
        Some(value) => {
            m.frame.result = value.into();
            FOLLOWS
        }
        None => UNDONE,
    }
}

/// MSR of the same. It may let an interrupt through.
extern "C" fn write_interrupt_register(machine: *mut Machine, register: u64, value: u64) -> u64 {
    // SAFETY: as in `write_table_base`.
    let m = unsafe { &mut *machine };
    match m
        .interpreter
        .write_interrupt_register(register as u16, value)
    {
        None => UNDONE,
        Some(()) if m.interpreter.wants_attention() => ELSEWHERE,
        Some(()) => FOLLOWS,
    }
}
