//! PSTATE.DAIF in generated code. Changes of D are left to the interpreter where debug exceptions may come; so is unmasking
//! while an interrupt line is high.

use super::assembler::{Alu, Cc, Mem};
use super::emitter::{Emitter, Node, Value};
use super::frame;

/// D, A, I, F in PSTATE.
const DAIF: i32 = 0x3c0;
const D: i32 = 0x200;
/// MDSCR_EL1's SS and MDE: without both, debug exceptions are off and D means nothing.
const DEBUGGING: i32 = 0x8001;

impl Emitter {
    fn leave_if_interrupted(&mut self) {
        let slow = self.slow_label();
        let t = self.take();
        self.asm.load(true, t, frame::LINES);
        self.asm.alu_constant(Alu::Cmp, false, Mem::at(t, 0), 0);
        self.asm.jcc(Cc::Ne, slow);
        self.release(t);
    }

    /// DAIFSet and DAIFClr of EL1.
    pub(super) fn change_masks(&mut self, set: bool, immediate: u32) {
        let bits = (immediate as i32 & 15) << 6;
        if self.key.el != 1 {
            return self.fail("pstate");
        }
        if bits & D != 0 {
            let slow = self.slow_label();
            self.asm.test_constant(false, frame::MDSCR_EL1, DEBUGGING);
            self.asm.jcc(Cc::Ne, slow);
        }
        if set {
            self.asm.alu_constant(Alu::Or, false, frame::PSTATE, bits);
        } else {
            self.leave_if_interrupted();
            self.asm.alu_constant(Alu::And, false, frame::PSTATE, !bits);
        }
    }

    /// MRS of DAIF at EL1.
    pub(super) fn masks(&mut self) -> Value {
        let to = self.take();
        self.asm.load(false, to, frame::PSTATE);
        self.asm.alu_constant(Alu::And, false, to, DAIF);
        self.node(Node::Register(to))
    }

    /// MSR of DAIF at EL1.
    pub(super) fn write_masks(&mut self, value: Value) {
        let slow = self.slow_label();
        let new = self.take();
        self.evaluate(value, new);
        self.asm.alu_constant(Alu::And, false, new, DAIF);
        self.asm.test_constant(false, frame::MDSCR_EL1, DEBUGGING);
        self.asm.jcc(Cc::Ne, slow);
        self.leave_if_interrupted();
        self.asm.alu_constant(Alu::And, false, frame::PSTATE, !DAIF);
        self.asm.alu_memory(Alu::Or, false, frame::PSTATE, new);
        self.release(new);
    }
}
