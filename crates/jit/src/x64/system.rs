//! System registers and barriers in generated code.

use aarch64::{Extension, registers as r};

use super::assembler::{Alu, Cc, Mem};
use super::emitter::{Emitter, Node, Value};
use super::frame;

impl Emitter {
    /// A register of EL1 of which writing keeps the low half only, and does no more.
    fn half_register(&self, register: u16) -> Option<Mem> {
        if self.key.el != 1 {
            return None;
        }
        Some(match register {
            r::SPSR_EL1 => frame::SPSR_EL1,
            r::ESR_EL1 => frame::ESR_EL1,
            r::CONTEXTIDR_EL1 => frame::CONTEXTIDR_EL1,
            _ => return None,
        })
    }

    /// A half of a pointer authentication key.
    pub(super) fn key_register(&self, register: u16) -> Option<Mem> {
        if self.key.el != 1 || !self.key.extensions.has(Extension::PAuth) {
            return None;
        }
        let (key, half) = match register {
            r::APIAKEYLO_EL1 => (0, 0),
            r::APIAKEYHI_EL1 => (0, 1),
            r::APIBKEYLO_EL1 => (1, 0),
            r::APIBKEYHI_EL1 => (1, 1),
            r::APDAKEYLO_EL1 => (2, 0),
            r::APDAKEYHI_EL1 => (2, 1),
            r::APDBKEYLO_EL1 => (3, 0),
            r::APDBKEYHI_EL1 => (3, 1),
            r::APGAKEYLO_EL1 => (4, 0),
            r::APGAKEYHI_EL1 => (4, 1),
            _ => return None,
        };
        Some(frame::pac_key(key, half))
    }

    /// MSR of a register that keeps the low half; whether it is one.
    pub(super) fn write_half(&mut self, register: u16, value: Value) -> bool {
        let Some(to) = self.half_register(register) else {
            return false;
        };
        let reg = self.take();
        self.evaluate(value, reg);
        self.asm.load(false, reg, reg);
        self.asm.store(8, to, reg);
        self.release(reg);
        true
    }

    /// Leaves the instruction to the interpreter if something wants attention.
    fn slow_if_pending(&mut self) {
        let slow = self.slow_label();
        let t = self.take();
        self.asm.load(true, t, frame::PENDING);
        self.asm.alu_constant(Alu::Cmp, false, Mem::at(t, 0), 0);
        self.asm.jcc(Cc::Ne, slow);
        self.release(t);
    }

    /// ISB: what was written of code executes from here on. Where this processor wrote code, the block was left; where
    /// another did, that is pending.
    pub(super) fn instruction_barrier(&mut self) {
        self.slow_if_pending();
    }

    /// DSB: the host's barrier does, but where other processors are to answer.
    pub(super) fn data_barrier(&mut self) {
        let slow = self.slow_label();
        self.asm.barrier();
        self.asm.test_byte(frame::WAITS, 0xff);
        self.asm.jcc(Cc::Ne, slow);
        self.asm.flags_changed = true;
    }

    /// Registers whose value does not change, of EL1.
    pub(super) fn constant_register(&mut self, register: u16) -> Option<Value> {
        if self.key.el != 1 {
            return None;
        }
        Some(match register {
            r::CURRENTEL => self.node(Node::Constant(4)),
            r::SPSEL => self.node(Node::Constant(self.key.sp_sel.into())),
            _ => return None,
        })
    }

    /// CNTVCT_EL0 and CNTPCT_EL0.
    pub(super) fn counter(&mut self, register: u16, function: usize) -> Value {
        if self.key.el == 0 {
            // CNTKCTL_EL1: EL0VCTEN, EL0PCTEN.
            let bit = if register == r::CNTVCT_EL0 { 2 } else { 1 };
            let slow = self.slow_label();
            self.asm.test_byte(frame::CNTKCTL_EL1, bit);
            self.asm.jcc(Cc::E, slow);
        }
        let which = u64::from(register == r::CNTVCT_EL0);
        let which = self.node(Node::Constant(which));
        self.call(function, &[which])
    }
}
