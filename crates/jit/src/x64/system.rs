//! System registers and barriers in generated code.

use aarch64::{Extension, registers as r};
use cpu::registers::sctlr;
use cpu::{Access, AccessKind};

use super::assembler::{Alu, Cc, Mem, ShiftOp};
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

    /// MRS of FPSR, of which the host keeps a part.
    pub(super) fn status_register(&mut self) -> Value {
        let (to, t) = (self.take(), self.take());
        self.asm.store_mxcsr(frame::MXCSR);
        self.asm.load(false, to, frame::MXCSR);
        self.asm.load(false, t, to);
        // IE; ZE, OE, UE, PE, behind one more.
        self.asm.alu_constant(Alu::And, false, to, 1);
        self.asm.shift(ShiftOp::Shr, false, t, 1);
        self.asm.alu_constant(Alu::And, false, t, 0x1e);
        self.asm.alu(Alu::Or, false, to, t);
        self.asm.alu(Alu::Or, false, to, frame::FPSR);
        self.release(t);
        self.node(Node::Register(to))
    }

    /// MSR of FPSR.
    pub(super) fn write_status_register(&mut self, value: Value) {
        let new = self.take();
        self.evaluate(value, new);
        self.asm
            .alu_constant(Alu::And, false, new, cpu::registers::FPSR_BITS as i32);
        self.asm.store(4, frame::FPSR, new);
        self.asm.load_mxcsr(frame::MXCSR_START);
        self.release(new);
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

    /// At EL0, leaves the instruction to the interpreter if a bit of SCTLR_EL1 does not allow it: that is not part of the key.
    pub(super) fn slow_unless_allowed(&mut self, bit: u64) {
        if self.key.el != 0 {
            return;
        }
        let slow = self.slow_label();
        let at = bit.trailing_zeros();
        let byte = Mem::at(
            frame::SCTLR_EL1.base,
            frame::SCTLR_EL1.disp + (at / 8) as i32,
        );
        self.asm.test_byte(byte, 1 << (at % 8));
        self.asm.jcc(Cc::E, slow);
    }

    /// Registers whose value does not change.
    pub(super) fn constant_register(&mut self, register: u16) -> Option<Value> {
        let constant = match register {
            // 64 bytes.
            r::DCZID_EL0 => {
                self.slow_unless_allowed(sctlr::DZE);
                4
            }
            r::CTR_EL0 => {
                self.slow_unless_allowed(sctlr::UCT);
                self.identification.ctr
            }
            _ if self.key.el != 1 => return None,
            r::CURRENTEL => 4,
            r::SPSEL => self.key.sp_sel.into(),
            _ => self.identification.fixed_register(register)?,
        };
        Some(self.node(Node::Constant(constant)))
    }

    /// Maintenance of the data cache by address does nothing, memory being coherent, but fault where the address cannot be
    /// read; whether it is that.
    pub(super) fn clean_data_cache(&mut self, register: u16, address: Value) -> bool {
        if !matches!(register, r::DC_CVAC | r::DC_CVAU | r::DC_CIVAC) {
            return false;
        }
        self.slow_unless_allowed(sctlr::UCI);
        self.look_up(address, Access::bytes(AccessKind::Read, 1), None);
        true
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
