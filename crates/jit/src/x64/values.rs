//! Values into registers: evaluates [`Node`]s where they are wanted.

use aarch64::Instruction;
use cpu::Width;

use super::assembler::{Alu, Cc, Mem, RAX, RCX, RDX, Reg, Rm, ShiftOp};
use super::emitter::{Binary, Cond, Direct, Emitter, Node, Test, Unary, Value};
use super::frame::{self, SCRATCH};

impl Emitter {
    pub(super) fn node(&mut self, node: Node) -> Value {
        self.nodes.push(node);
        Value((self.nodes.len() - 1) as u16)
    }

    pub(super) fn get(&self, value: Value) -> Node {
        self.nodes[usize::from(value.0)]
    }

    pub(super) fn constant_of(&self, value: Value) -> Option<u64> {
        match self.get(value) {
            Node::Constant(c) => Some(c),
            _ => None,
        }
    }

    /// A scratch register, until it is released.
    pub(super) fn take(&mut self) -> Reg {
        match SCRATCH.iter().find(|r| self.busy & 1 << r.0 == 0) {
            Some(&reg) => {
                self.busy |= 1 << reg.0;
                reg
            }
            None => {
                self.fail("out of registers");
                RAX
            }
        }
    }

    /// A register's value in a stack slot, to the end of the instruction.
    pub(super) fn put_in_slot(&mut self, reg: Reg) -> u8 {
        let slot = self.take_slot();
        self.asm.store(8, frame::slot(slot), reg);
        slot
    }

    /// A stack slot, to the end of the instruction.
    pub(super) fn take_slot(&mut self) -> u8 {
        if self.next_slot >= frame::SLOTS {
            self.fail("out of slots");
            self.next_slot = 0;
        }
        self.next_slot += 1;
        self.next_slot - 1
    }

    pub(super) fn release(&mut self, reg: Reg) {
        self.busy &= !(1 << reg.0);
    }

    /// Takes a certain scratch register.
    pub(super) fn take_this(&mut self, reg: Reg) {
        if self.busy & 1 << reg.0 != 0 {
            self.fail("register in use");
        }
        self.busy |= 1 << reg.0;
    }

    pub(super) fn busy_registers(&self) -> u16 {
        self.busy
    }

    /// Where a guest's general register lives.
    pub(super) fn general(&self, n: u8) -> Rm {
        match self.homes.general[usize::from(n)] {
            Some(reg) => reg.into(),
            None => frame::general(n).into(),
        }
    }

    /// Where a value is, if that takes no code.
    pub(super) fn direct(&mut self, value: Value) -> Option<Direct> {
        match self.get(value) {
            Node::Constant(c) => i32::try_from(c as i64).ok().map(Direct::Constant),
            Node::Guest(n, epoch) => {
                if self.epochs[usize::from(n)] != epoch {
                    self.fail("a register is read after it was written");
                }
                Some(Direct::Rm(self.general(n)))
            }
            Node::Register(reg) => Some(Direct::Rm(reg.into())),
            Node::Slot(i) => Some(Direct::Rm(frame::slot(i).into())),
            _ => None,
        }
    }

    /// A register that holds the value, and whether it is to be released.
    pub(super) fn in_register(&mut self, value: Value) -> (Reg, bool) {
        if let Some(Direct::Rm(Rm::Reg(reg))) = self.direct(value) {
            return (reg, false);
        }
        let reg = self.take();
        self.evaluate(value, reg);
        (reg, true)
    }

    pub(super) fn release_if(&mut self, (reg, taken): (Reg, bool)) {
        if taken {
            self.release(reg);
        }
    }

    /// The value as an operand other than a constant, and a register to be released.
    pub(super) fn operand(&mut self, value: Value) -> (Rm, Option<Reg>) {
        if let Some(Direct::Rm(rm)) = self.direct(value) {
            return (rm, None);
        }
        let reg = self.take();
        self.evaluate(value, reg);
        (reg.into(), Some(reg))
    }

    pub(super) fn release_operand(&mut self, taken: Option<Reg>) {
        if let Some(reg) = taken {
            self.release(reg);
        }
    }

    /// Computes a value into a register. What else is in use stays; the host's flags may not.
    pub(super) fn evaluate(&mut self, value: Value, to: Reg) {
        if self.failed.is_some() {
            return;
        }
        match self.get(value) {
            Node::Constant(c) => self.asm.constant(to, c),
            Node::Guest(..) | Node::Register(_) | Node::Slot(_) => {
                if let Some(Direct::Rm(rm)) = self.direct(value) {
                    self.asm.load(true, to, rm);
                }
            }
            Node::Pc(offset) => {
                self.asm.load(true, to, frame::PAGE);
                match i32::try_from(offset) {
                    Ok(0) => {}
                    Ok(offset) => self.asm.lea(true, to, Mem::at(to, offset)),
                    Err(_) => {
                        self.asm.constant(RAX, offset as u64);
                        self.asm.lea(true, to, Mem::indexed(to, RAX, 1, 0));
                    }
                }
            }
            Node::Binary(op, w, a, b) => self.binary(op, w == Width::W64, a, b, to),
            Node::Unary(op, w, a) => self.unary(op, w == Width::W64, a, to),
            Node::Shift(op, w, a, amount) => {
                let w = w == Width::W64;
                if op == ShiftOp::Ror {
                    let (rm, taken) = self.operand(a);
                    self.asm.rotate_right(w, to, rm, amount);
                    self.release_operand(taken);
                } else {
                    self.evaluate_narrow(w, a, to);
                    self.asm.shift(op, w, to, amount);
                }
            }
            Node::ShiftBy(op, w, a, amount) => self.shift_by(op, w == Width::W64, a, amount, to),
            Node::ExtractPair(w, high, low, lsb) => {
                let w = w == Width::W64;
                let high = self.in_register(high);
                let t = self.take();
                self.evaluate_narrow(w, low, t);
                self.asm.shift_double_right(w, t, high.0, lsb);
                self.asm.load(w, to, t);
                self.release(t);
                self.release_if(high);
            }
            Node::Select(w, cond, yes, no) => self.select(w == Width::W64, cond, yes, no, to),
            Node::Carry => {
                self.need_flags_in_frame();
                // The inverse is in bit 8.
                self.asm.load_zero_extended(
                    1,
                    to,
                    Mem::at(frame::FLAGS.base, frame::FLAGS.disp + 1),
                );
                self.asm.not(false, to);
                self.asm.alu_constant(Alu::And, false, to, 1);
            }
            Node::WithFlags {
                subtract,
                w,
                a,
                b,
                carry,
            } => self.with_flags(value, subtract, w == Width::W64, a, b, carry, to),
            Node::Read { offset, size } => {
                let from = self.memory(offset);
                self.asm.load_zero_extended(size, to, from);
            }
        }
    }

    /// The same, where only the low half counts if not `w`.
    pub(super) fn evaluate_narrow(&mut self, w: bool, value: Value, to: Reg) {
        match self.direct(value) {
            Some(Direct::Rm(rm)) if !w => {
                if rm != Rm::Reg(to) {
                    self.asm.load(false, to, rm);
                }
            }
            _ => self.evaluate(value, to),
        }
    }

    fn binary(&mut self, op: Binary, w: bool, a: Value, b: Value, to: Reg) {
        let alu = match op {
            Binary::Add => Alu::Add,
            Binary::Sub => Alu::Sub,
            Binary::And => Alu::And,
            Binary::Or => Alu::Or,
            Binary::Xor => Alu::Xor,
            Binary::Mul => return self.multiply(w, a, b, to),
            Binary::MulHigh(signed) => return self.multiply_high(signed, a, b, to),
            Binary::Div(signed) => return self.divide(signed, w, a, b, to),
        };
        let commutes = alu != Alu::Sub;
        let (mut a, mut b) = (a, b);
        // Of a narrow operation only the low half of a constant counts.
        for value in [&mut a, &mut b] {
            if !w && let Some(c) = self.constant_of(*value) {
                *value = self.node(Node::Constant(c as u32 as i32 as u64));
            }
        }
        if commutes
            && (self.constant_of(a).is_some()
                || (self.direct(b).is_none() && self.direct(a).is_some()))
        {
            (a, b) = (b, a);
        }
        match self.direct(b) {
            Some(Direct::Constant(c)) => {
                if matches!(alu, Alu::Add | Alu::Sub) {
                    let c = if alu == Alu::Sub { c.wrapping_neg() } else { c };
                    let reg = match self.direct(a) {
                        Some(Direct::Rm(Rm::Reg(reg))) => reg,
                        _ => {
                            self.evaluate_narrow(w, a, to);
                            to
                        }
                    };
                    // i32::MIN has no negative; its wrapped value is right in 32 bits only.
                    if c == i32::MIN && w {
                        return self.fail("constant");
                    }
                    return self.asm.lea(w, to, Mem::at(reg, c));
                }
                if alu == Alu::And && matches!(c, 0xff | 0xffff) {
                    let (rm, taken) = self.operand(a);
                    self.asm
                        .load_zero_extended(if c == 0xff { 1 } else { 2 }, to, rm);
                    return self.release_operand(taken);
                }
                self.evaluate_narrow(w, a, to);
                self.asm.alu_constant(alu, w, to, c);
            }
            Some(Direct::Rm(Rm::Reg(reg))) if reg == to => {
                if commutes && let Some(Direct::Rm(rm)) = self.direct(a) {
                    if alu == Alu::Add
                        && let Rm::Reg(a) = rm
                    {
                        return self.asm.lea(w, to, Mem::indexed(a, reg, 1, 0));
                    }
                    return self.asm.alu(alu, w, to, rm);
                }
                let t = self.take();
                self.evaluate_narrow(w, a, t);
                self.asm.alu(alu, w, t, reg);
                self.asm.load(w, to, t);
                self.release(t);
            }
            Some(Direct::Rm(rm)) => {
                if alu == Alu::Add
                    && let Rm::Reg(b) = rm
                    && let Some(Direct::Rm(Rm::Reg(a))) = self.direct(a)
                {
                    return self.asm.lea(w, to, Mem::indexed(a, b, 1, 0));
                }
                self.evaluate_narrow(w, a, to);
                self.asm.alu(alu, w, to, rm);
            }
            None => {
                let t = self.take();
                self.evaluate_narrow(w, b, t);
                if alu == Alu::Add
                    && let Some(Direct::Rm(Rm::Reg(a))) = self.direct(a)
                {
                    self.asm.lea(w, to, Mem::indexed(a, t, 1, 0));
                } else {
                    self.evaluate_narrow(w, a, to);
                    self.asm.alu(alu, w, to, t);
                }
                self.release(t);
            }
        }
    }

    pub(super) fn multiply(&mut self, w: bool, a: Value, b: Value, to: Reg) {
        let (b, taken) = self.operand(b);
        if b == Rm::Reg(to) {
            let t = self.take();
            self.evaluate_narrow(w, a, t);
            self.asm.imul(w, t, b);
            self.asm.load(w, to, t);
            self.release(t);
        } else {
            self.evaluate_narrow(w, a, to);
            self.asm.imul(w, to, b);
        }
        self.release_operand(taken);
    }

    fn multiply_high(&mut self, signed: bool, a: Value, b: Value, to: Reg) {
        let keeps = to == RDX;
        if !keeps {
            self.take_this(RDX);
        }
        let (b, taken) = self.operand(b);
        if b == Rm::Reg(RDX) {
            return self.fail("register in use");
        }
        self.evaluate(a, RAX);
        self.asm.mul_wide(signed, b);
        self.asm.load(true, to, RDX);
        self.release_operand(taken);
        if !keeps {
            self.release(RDX);
        }
    }

    /// By zero gives zero; the lowest number by −1 gives itself.
    pub(super) fn divide(&mut self, signed: bool, w: bool, a: Value, b: Value, to: Reg) {
        let keeps = to == RDX;
        if !keeps {
            self.take_this(RDX);
        }
        let divisor = self.take();
        self.evaluate_narrow(w, b, divisor);
        self.evaluate_narrow(w, a, RAX);
        let (zero, done) = (self.asm.label(), self.asm.label());
        self.asm.test(w, divisor, divisor);
        self.asm.jcc(Cc::E, zero);
        if signed {
            let ordinary = self.asm.label();
            self.asm.alu_constant(Alu::Cmp, w, divisor, -1);
            self.asm.jcc(Cc::Ne, ordinary);
            self.asm.neg(w, RAX);
            self.asm.jmp(done);
            self.asm.bind(ordinary);
            self.asm.sign_into_rdx(w);
        } else {
            self.asm.alu(Alu::Xor, false, RDX, RDX);
        }
        self.asm.div(signed, w, divisor);
        self.asm.jmp(done);
        self.asm.bind(zero);
        self.asm.alu(Alu::Xor, false, RAX, RAX);
        self.asm.bind(done);
        self.asm.load(w, to, RAX);
        self.release(divisor);
        if !keeps {
            self.release(RDX);
        }
    }

    pub(super) fn shift_by(&mut self, op: ShiftOp, w: bool, a: Value, amount: Value, to: Reg) {
        if op == ShiftOp::Ror {
            let keeps = to == RCX;
            if !keeps {
                self.take_this(RCX);
            }
            self.evaluate_narrow(w, a, RAX);
            self.evaluate(amount, RCX);
            self.asm.shift_by_cl(ShiftOp::Ror, w, RAX);
            self.asm.load(w, to, RAX);
            if !keeps {
                self.release(RCX);
            }
            return;
        }
        let amount = self.in_register(amount);
        let (rm, taken) = self.operand(a);
        self.asm.shift_by(op, w, to, rm, amount.0);
        self.release_operand(taken);
        self.release_if(amount);
    }

    /// Whether the instruction after this RBIT is the CLZ of its result in place, as it is in each search through a string.
    pub(super) fn counts_zeros(&self, w: Width) -> bool {
        let Some((word, Instruction::clz)) = self.following_in_place() else {
            return false;
        };
        let same_width = (word >> 31 != 0) == (w == Width::W64);
        same_width && word & 31 != 31
    }

    /// The instruction after this, if it takes its operand from where this puts its result, and puts its own there.
    pub(super) fn following_in_place(&self) -> Option<(u32, Instruction)> {
        self.following_instruction().filter(|&(word, _)| {
            let (d, n) = (word & 31, word >> 5 & 31);
            d == n && d == self.word & 31
        })
    }

    /// The instruction after this.
    pub(super) fn following_instruction(&self) -> Option<(u32, Instruction)> {
        let word = self.following?;
        Some((word, aarch64::decode(word, self.key.extensions)?))
    }

    fn unary(&mut self, op: Unary, w: bool, a: Value, to: Reg) {
        match op {
            Unary::Not => {
                self.evaluate_narrow(w, a, to);
                self.asm.not(w, to);
            }
            Unary::ZeroExtend(bits) => match bits {
                8 | 16 | 32 => {
                    let (rm, taken) = self.operand(a);
                    self.asm.load_zero_extended(bits / 8, to, rm);
                    self.release_operand(taken);
                }
                64 => self.evaluate(a, to),
                _ if bits < 32 => {
                    self.evaluate_narrow(false, a, to);
                    self.asm
                        .alu_constant(Alu::And, false, to, ((1u32 << bits) - 1) as i32);
                }
                _ => {
                    self.evaluate(a, to);
                    self.asm.shift(ShiftOp::Shl, true, to, 64 - bits);
                    self.asm.shift(ShiftOp::Shr, true, to, 64 - bits);
                }
            },
            Unary::SignExtend(bits) => match bits {
                8 | 16 | 32 => {
                    if let Node::Read { offset, size } = self.get(a)
                        && size == bits / 8
                    {
                        let from = self.memory(offset);
                        return self.asm.load_sign_extended(w, size, to, from);
                    }
                    let (rm, taken) = self.operand(a);
                    self.asm.load_sign_extended(w, bits / 8, to, rm);
                    self.release_operand(taken);
                }
                64 => self.evaluate_narrow(w, a, to),
                _ => {
                    self.evaluate(a, to);
                    self.asm.shift(ShiftOp::Shl, true, to, 64 - bits);
                    self.asm.shift(ShiftOp::Sar, true, to, 64 - bits);
                    if !w {
                        self.asm.load(false, to, to);
                    }
                }
            },
            Unary::LeadingZeros => {
                let (rm, taken) = self.operand(a);
                self.asm.lzcnt(w, to, rm);
                self.release_operand(taken);
            }
            Unary::TrailingZeros => {
                let (rm, taken) = self.operand(a);
                self.asm.tzcnt(w, to, rm);
                self.release_operand(taken);
            }
            Unary::LeadingSigns => {
                // Bits that equal the one above them.
                let t = self.take();
                self.evaluate_narrow(w, a, t);
                self.asm.load(w, RAX, t);
                self.asm.shift(ShiftOp::Sar, w, RAX, 1);
                self.asm.alu(Alu::Xor, w, t, RAX);
                self.asm.alu(Alu::Add, w, t, t);
                self.asm.alu_constant(Alu::Or, w, t, 1);
                self.asm.lzcnt(w, to, t);
                self.release(t);
            }
            Unary::ReverseBytes(chunk) => {
                self.evaluate_narrow(w, a, to);
                match chunk {
                    16 => {
                        let t = self.take();
                        let mask = if w {
                            0x00ff_00ff_00ff_00ff
                        } else {
                            0x00ff_00ff
                        };
                        self.asm.constant(RAX, mask);
                        self.asm.load(w, t, to);
                        self.asm.shift(ShiftOp::Shr, w, t, 8);
                        self.asm.alu(Alu::And, w, t, RAX);
                        self.asm.alu(Alu::And, w, to, RAX);
                        self.asm.shift(ShiftOp::Shl, w, to, 8);
                        self.asm.alu(Alu::Or, w, to, t);
                        self.release(t);
                    }
                    32 if w => {
                        self.asm.bswap(true, to);
                        self.asm.rotate_right(true, to, to, 32);
                    }
                    _ => self.asm.bswap(w, to),
                }
            }
            Unary::ReverseBits => {
                self.evaluate_narrow(w, a, to);
                self.asm.bswap(w, to);
                let t = self.take();
                for (shift, mask) in [
                    (4, 0x0f0f_0f0f_0f0f_0f0f_u64),
                    (2, 0x3333_3333_3333_3333),
                    (1, 0x5555_5555_5555_5555),
                ] {
                    let mask = if w { mask } else { mask & 0xffff_ffff };
                    self.asm.constant(RAX, mask);
                    self.asm.load(w, t, to);
                    self.asm.shift(ShiftOp::Shr, w, t, shift);
                    self.asm.alu(Alu::And, w, t, RAX);
                    self.asm.alu(Alu::And, w, to, RAX);
                    self.asm.shift(ShiftOp::Shl, w, to, shift);
                    self.asm.alu(Alu::Or, w, to, t);
                }
                self.release(t);
            }
        }
    }

    pub(super) fn select(&mut self, w: bool, cond: Cond, yes: Value, no: Value, to: Reg) {
        if let Test::True = cond.test {
            let value = if cond.not { no } else { yes };
            self.evaluate_narrow(w, value, to);
            if !w {
                self.asm.load(false, to, to);
            }
            return;
        }
        if let (Some(yes), Some(no)) = (self.constant_of(yes), self.constant_of(no))
            && matches!((yes, no), (0, 1) | (1, 0))
        {
            return self.set(cond, yes == 1, to);
        }
        let t = self.take();
        self.evaluate_narrow(w, no, t);
        let (yes, taken) = self.operand(yes);
        let cc = self.condition_code(cond);
        self.asm.cmov(cc, w, t, yes);
        self.asm.load(w, to, t);
        self.release_operand(taken);
        self.release(t);
    }

    /// 1 if the condition is `wanted`, else 0.
    pub(super) fn set(&mut self, cond: Cond, wanted: bool, to: Reg) {
        let cc = self.condition_code(cond);
        self.asm.setcc(if wanted { cc } else { cc.not() }, RAX);
        self.asm.load_zero_extended(1, to, RAX);
    }

    /// Makes the host's flags such that the condition is that code.
    pub(super) fn condition_code(&mut self, cond: Cond) -> Cc {
        let cc = match cond.test {
            Test::True => {
                self.fail("constant condition");
                Cc::E
            }
            Test::Code(code) => {
                if !self.remake_flags(code) {
                    match self.sunk {
                        Some(of) => self.make_flags(of),
                        None => self.restore_flags(),
                    }
                }
                let cc = [Cc::E, Cc::Ae, Cc::S, Cc::O, Cc::A, Cc::Ge, Cc::G, Cc::E]
                    [usize::from(code >> 1 & 7)];
                if code & 1 == 0 { cc } else { cc.not() }
            }
            Test::Zero(w, value) => {
                let w = w == Width::W64;
                match self.direct(value) {
                    Some(Direct::Rm(Rm::Mem(mem))) => {
                        self.asm.alu_constant(Alu::Cmp, w, mem, 0);
                    }
                    _ => {
                        let reg = self.in_register(value);
                        self.asm.test(w, reg.0, reg.0);
                        self.release_if(reg);
                    }
                }
                Cc::E
            }
            Test::Bit(value, bit) => match self.direct(value) {
                Some(Direct::Rm(Rm::Mem(mem))) => {
                    let mem = Mem::at(mem.base, mem.disp + i32::from(bit / 8));
                    self.asm.test_byte(mem, 1 << (bit % 8));
                    Cc::Ne
                }
                _ => {
                    let reg = self.in_register(value);
                    let cc = match bit {
                        0..=7 => {
                            self.asm.test_byte(reg.0, 1 << bit);
                            Cc::Ne
                        }
                        8..=30 => {
                            self.asm.test_constant(false, reg.0, 1 << bit);
                            Cc::Ne
                        }
                        _ => {
                            self.asm.bit_test(true, reg.0, bit);
                            Cc::B
                        }
                    };
                    self.release_if(reg);
                    cc
                }
            },
        };
        if cond.not { cc.not() } else { cc }
    }
}
