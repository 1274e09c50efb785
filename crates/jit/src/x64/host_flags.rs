//! The guest's flags in the host's, in the frame, and made again from what they are of.
//!
//! The host's carry is a borrow, the inverse of C.

use cpu::Width;

use super::assembler::{Alu, Cc, RAX, Reg, Rm, ShiftOp};
use super::emitter::{Binary, Direct, Emitter, FLAGS_ARE_GONE, Flags, Node, Test, Unary, Value};
use super::frame;

/// An operand of what flags are of: a guest register as it was when written for the n-th time in the block, or a constant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Register(u8, u32),
    Constant(i32),
}

/// What the guest's flags are of, for as long as the registers are what they were: made again, they need not be fetched from
/// the frame, where the host has just put them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Difference(bool, Source, Source),
    /// Of a logical product: C and V are clear.
    Product(bool, Source, Source),
    /// N and Z of a result; C and V are not known.
    Result(bool, Source),
}

impl Emitter {
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
    pub(super) fn remake_flags(&mut self, code: u8) -> bool {
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
    pub(super) fn origin(&self, flags: Flags) -> Option<Origin> {
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
    pub(super) fn need_flags_in_frame(&mut self) {
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
    pub(super) fn with_flags(
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
            Flags::Written => self.flags_are_in_host = false,
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
                self.flags_are_in_host = false;
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
                self.flags_are_in_host = false;
                self.asm.flags_changed = true;
            }
        }
        self.flags_origin = origin;
    }

    /// The host's flags of a node, with no result.
    pub(super) fn flags_of(&mut self, value: Value) {
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
    pub(super) fn logic_flags(&mut self, w: bool, value: Value) {
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
    pub(super) fn flags_from(&mut self, reg: Reg) {
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
}
