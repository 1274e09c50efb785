//! Integer operations on vectors that take the host several instructions.

use cpu::vector::{IntegerBinary, Lane, Operation, Permutation, Reduction, Shape, Shift};

use super::assembler::Xmm;
use super::emitter::{Emitter, Vector};
use super::vector::{ADD_S, AND, ANDN, LOAD, OR, SHUFFLE, T0, T1, XOR, v38, v66};

/// A byte in all lanes.
fn bytes_of(value: u8) -> u128 {
    u128::from_le_bytes([value; 16])
}

/// The number in all lanes of a shape.
pub(super) fn in_lanes(shape: Shape, value: u64) -> u128 {
    let bits = shape.lane.bits();
    let value = u128::from(value) & (u128::MAX >> (128 - bits));
    (0..shape.lanes()).fold(0, |v, i| v | value << (i * bits))
}

/// The number in all lanes of 128 bits.
pub(super) fn lanes_of(lane: Lane, value: u64) -> u128 {
    in_lanes(Shape::vector(lane, true), value)
}

impl Emitter {
    pub(super) fn lanes_by_host(
        &mut self,
        operation: Operation,
        [a, b, c]: [Vector; 3],
    ) -> Option<Vector> {
        match operation {
            Operation::Pairwise(op, shape) => self.pairwise(op, shape, a, b),
            Operation::Reduce(how, shape) => self.reduce(how, shape, a),
            Operation::AddLongPairwise { signed, shape } => self.add_long_pairs(signed, shape, a),
            Operation::ShiftInsert {
                left,
                shape,
                amount,
            } => self.shift_insert(left, shape, amount, a, b),
            Operation::TableLookup { shape, first } => {
                // Of what is out of this register's reach, the byte of `a` stays.
                let (old, table, index) = (self.xmm(a), self.xmm(b), self.xmm(c));
                let to = self.new_xmm();
                self.load_constant(T0, bytes_of(first));
                self.asm.vector3(v66(0xf8), T1, index, T0);
                self.asm.vector3(SHUFFLE, to, table, T1);
                // Within reach: the index less the first is at most 15.
                self.load_constant(T0, bytes_of(15));
                self.asm.vector3(v66(0xda), T0, T0, T1);
                self.asm.vector3(v66(0x74), T0, T0, T1);
                self.asm.vector3(AND, to, to, T0);
                self.asm.vector3(ANDN, T0, T0, old);
                self.asm.vector3(OR, to, to, T0);
                self.trim(to, shape.bytes);
                Some(self.in_new(to))
            }
            _ => None,
        }
    }

    fn pairwise(
        &mut self,
        op: IntegerBinary,
        shape: Shape,
        a: Vector,
        b: Vector,
    ) -> Option<Vector> {
        let even = self.permute(Permutation::Uzp1, shape, a, b)?;
        let odd = self.permute(Permutation::Uzp2, shape, a, b)?;
        self.integer(op, shape, even, odd)
    }

    fn reduce(&mut self, how: Reduction, shape: Shape, a: Vector) -> Option<Vector> {
        let op = match how {
            Reduction::Add => IntegerBinary::Add,
            Reduction::SMax => IntegerBinary::SMax,
            Reduction::SMin => IntegerBinary::SMin,
            Reduction::UMax => IntegerBinary::UMax,
            Reduction::UMin => IntegerBinary::UMin,
            Reduction::UAddL if shape.lane == Lane::B => {
                let x = self.low(a, shape.bytes);
                let to = self.new_xmm();
                self.asm.vector3(XOR, T0, T0, T0);
                self.asm.vector3(v66(0xf6), to, x, T0);
                self.asm.vector_shift(0x73, 3, T0, to, 8);
                self.asm.vector3(ADD_S, to, to, T0);
                self.trim(to, 4);
                return Some(self.in_new(to));
            }
            _ => return None,
        };
        let lane = shape.lane.bytes() as u8;
        let mut v = a;
        let mut width = shape.bytes;
        let whole = Shape::vector(shape.lane, true);
        while width > lane {
            width /= 2;
            let x = self.xmm(v);
            let shifted = self.new_xmm();
            self.asm.vector_shift(0x73, 3, shifted, x, width);
            let shifted = self.in_new(shifted);
            v = self.integer(op, whole, v, shifted)?;
        }
        let x = self.xmm(v);
        let to = self.new_xmm();
        self.asm.vector2(LOAD, to, x);
        self.trim(to, lane);
        Some(self.in_new(to))
    }

    fn add_long_pairs(&mut self, signed: bool, shape: Shape, a: Vector) -> Option<Vector> {
        let x = self.xmm(a);
        let to = self.new_xmm();
        match (shape.lane, signed) {
            (Lane::B, signed) => {
                // The host multiplies unsigned bytes by signed ones and adds pairs of products.
                self.load_constant(T0, bytes_of(1));
                let (u, s) = if signed { (T0, x) } else { (x, T0) };
                self.asm.vector3(v38(0x04), to, u, s);
            }
            (Lane::H, true) => {
                self.load_constant(T0, lanes_of(Lane::H, 1));
                self.asm.vector3(v66(0xf5), to, x, T0);
            }
            (lane @ (Lane::H | Lane::S), false) => {
                let (opcode, bits) = if lane == Lane::H {
                    (0x72, 16)
                } else {
                    (0x73, 32)
                };
                self.asm.vector_shift(opcode, 2, to, x, bits);
                self.asm.vector_shift(opcode, 6, T0, x, bits);
                self.asm.vector_shift(opcode, 2, T0, T0, bits);
                let add = if lane == Lane::H {
                    v66(0xfe)
                } else {
                    v66(0xd4)
                };
                self.asm.vector3(add, to, to, T0);
            }
            _ => return None,
        }
        self.trim(to, shape.bytes);
        Some(self.in_new(to))
    }

    fn shift_insert(
        &mut self,
        left: bool,
        shape: Shape,
        amount: u8,
        a: Vector,
        b: Vector,
    ) -> Option<Vector> {
        let bits = shape.lane.bits();
        let ones = u64::MAX >> (64 - bits);
        let (op, written) = if left {
            (Shift::Shl, ones << amount)
        } else {
            (Shift::UShr, ones.checked_shr(amount.into()).unwrap_or(0))
        };
        let shifted = self.vector_shift(op, shape, b, amount)?;
        let (old, new) = (self.xmm(a), self.xmm(shifted));
        let to = self.new_xmm();
        self.load_constant(T0, lanes_of(shape.lane, written));
        self.asm.vector3(ANDN, to, T0, old);
        self.asm.vector3(OR, to, to, new);
        self.trim(to, shape.bytes);
        Some(self.in_new(to))
    }

    /// Shifts that the host has not for lanes of that size.
    pub(super) fn odd_shift(
        &mut self,
        op: Shift,
        shape: Shape,
        a: Vector,
        amount: u8,
    ) -> Option<Vector> {
        let x = self.xmm(a);
        let to = self.new_xmm();
        match (op, shape.lane) {
            (Shift::SShr, Lane::D) => {
                // Ones from the top where negative.
                self.asm.vector3(XOR, T0, T0, T0);
                self.asm.vector3(v38(0x37), T0, T0, x);
                if amount < 64 {
                    self.asm.vector_shift(0x73, 6, T0, T0, 64 - amount);
                }
                self.asm.vector_shift(0x73, 2, to, x, amount);
                self.asm.vector3(OR, to, to, T0);
            }
            (Shift::Shl, Lane::B) => {
                self.asm.vector_shift(0x71, 6, to, x, amount);
                self.load_constant(T0, bytes_of(0xff << amount));
                self.asm.vector3(AND, to, to, T0);
            }
            (Shift::UShr | Shift::SShr, Lane::B) => {
                let ones = 0xffu8.checked_shr(amount.into()).unwrap_or(0);
                if op == Shift::SShr && amount == 8 {
                    self.asm.vector3(XOR, T0, T0, T0);
                    self.asm.vector3(v66(0x64), to, T0, x);
                } else {
                    self.asm.vector_shift(0x71, 2, to, x, amount);
                    self.load_constant(T0, bytes_of(ones));
                    self.asm.vector3(AND, to, to, T0);
                    if op == Shift::SShr {
                        // The sign's bit, and all above it.
                        self.load_constant(T0, bytes_of(0x80 >> amount));
                        self.asm.vector3(XOR, to, to, T0);
                        self.asm.vector3(v66(0xf8), to, to, T0);
                    }
                }
            }
            _ => return None,
        }
        self.trim(to, shape.bytes);
        Some(self.in_new(to))
    }

    /// Products of bytes, and shifts by registers.
    pub(super) fn odd_integer(
        &mut self,
        op: IntegerBinary,
        shape: Shape,
        a: Vector,
        b: Vector,
    ) -> Option<Vector> {
        match (op, shape.lane) {
            (IntegerBinary::Mul, Lane::B) => {
                let (x, y) = (self.xmm(a), self.xmm(b));
                let (to, odd) = (self.new_xmm(), self.new_xmm());
                self.asm.vector3(v66(0xd5), to, x, y);
                self.asm.vector_shift(0x71, 2, odd, x, 8);
                self.asm.vector_shift(0x71, 2, T0, y, 8);
                self.asm.vector3(v66(0xd5), odd, odd, T0);
                self.asm.vector_shift(0x71, 6, odd, odd, 8);
                self.load_constant(T0, lanes_of(Lane::H, 0xff));
                self.asm.vector3(AND, to, to, T0);
                self.asm.vector3(OR, to, to, odd);
                self.trim(to, shape.bytes);
                Some(self.in_new(to))
            }
            (IntegerBinary::UShl | IntegerBinary::SShl, Lane::S) => {
                let to = self.shift_by_lanes(op == IntegerBinary::SShl, a, b);
                self.trim(to, shape.bytes);
                Some(self.in_new(to))
            }
            _ => None,
        }
    }

    /// Lanes of 32 bits shifted left by the signed low bytes of the other's, right if negative.
    fn shift_by_lanes(&mut self, signed: bool, a: Vector, b: Vector) -> Xmm {
        let (x, y) = (self.xmm(a), self.xmm(b));
        let to = self.new_xmm();
        // Amounts; those that are negative as unsigned numbers shift everything out, and so do those above 31.
        self.asm.vector_shift(0x72, 6, T1, y, 24);
        self.asm.vector_shift(0x72, 4, T1, T1, 24);
        self.asm.vector3(v38(0x47), to, x, T1);
        self.asm.vector3(XOR, T0, T0, T0);
        self.asm.vector3(v66(0xfa), T0, T0, T1);
        if signed {
            self.asm.vector3(v38(0x46), T0, x, T0);
            // By the sign of the amount.
            self.asm.vector_blend(to, to, T0, T1);
        } else {
            self.asm.vector3(v38(0x45), T0, x, T0);
            self.asm.vector3(OR, to, to, T0);
        }
        to
    }
}
