//! PSTATE.DAIF in generated code. What concerns D, which debugging depends on, is left to the interpreter; so is unmasking
//! while an interrupt line is high.

use super::assembler::{Alu, Cc, Mem};
use super::emitter::{Emitter, Node, Value};
use super::frame;

/// D, A, I, F in PSTATE.
const DAIF: i32 = 0x3c0;
const D: i32 = 0x200;

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
        if bits & D != 0 || self.key.el != 1 {
            return self.fail("pstate");
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
        let changed = self.take();
        self.asm.load(false, changed, frame::PSTATE);
        self.asm.alu(Alu::Xor, false, changed, new);
        self.asm.test_constant(false, changed, D);
        self.asm.jcc(Cc::Ne, slow);
        self.release(changed);
        self.leave_if_interrupted();
        self.asm.alu_constant(Alu::And, false, frame::PSTATE, !DAIF);
        self.asm.alu_memory(Alu::Or, false, frame::PSTATE, new);
        self.release(new);
    }
}
