//! Floating-point operations that take the host several instructions. All with FPCR at zero; see [`super::vector`].

use cpu::float::Rounding;
use cpu::vector::{FloatBinary, Lane, Operation, Permutation, Shape, ToValue};

use super::assembler::{Alu, Cc, Label, Map, Pp, RAX, Reg, ShiftOp, Vex, Xm, Xmm};
use super::emitter::{Emitter, Stub, Value, Vector};
use super::functions;
use super::vector::{
    AND, Doubt, MOVD_STORE, MOVD_WIDE, MOVQ_TO_GENERAL, OR, T0, T1, XOR, float_op, v66,
};
use super::vector_lanes::in_lanes;

fn sign(lane: Lane) -> u64 {
    1 << (lane.bits() - 1)
}

/// 2 to a power, as a number of that lane.
fn power(lane: Lane, exponent: i32) -> u64 {
    match lane {
        Lane::D => ((1023 + exponent) as u64) << 52,
        _ => ((127 + exponent) as u64) << 23,
    }
}

impl Emitter {
    pub(super) fn float_by_host(
        &mut self,
        operation: Operation,
        [a, b, _]: [Vector; 3],
    ) -> Option<Vector> {
        if self.key.fpcr != 0 {
            return None;
        }
        match operation {
            Operation::FloatPairwise(op, shape) => {
                let even = self.permute(Permutation::Uzp1, shape, a, b)?;
                let odd = self.permute(Permutation::Uzp2, shape, a, b)?;
                Some(self.vector_operation(Operation::Float(op, shape), [even, odd, odd]))
            }
            Operation::FloatReduce(op, shape) if shape.lanes() == 2 => {
                let x = self.xmm(a);
                let second = self.new_xmm();
                let lane = shape.lane.bytes() as u8;
                self.asm.vector_shift(0x73, 3, second, x, lane);
                let second = self.in_new(second);
                let scalar = Operation::Float(op, Shape::scalar(shape.lane));
                Some(self.vector_operation(scalar, [a, second, second]))
            }
            Operation::FixedToFloat {
                signed,
                fraction,
                shape,
            } => self.integers_to_floats(signed, fraction, shape, a),
            Operation::FloatToFixed {
                signed: true,
                rounding: rounding @ (Rounding::Zero | Rounding::TiesToEven),
                fraction: 0,
                shape,
            } => self.floats_to_integers(operation, rounding, shape, a),
            Operation::FloatWiden {
                high,
                from: Lane::S,
            } => {
                let x = self.xmm(a);
                let to = self.new_xmm();
                let mut half = x;
                if high {
                    self.asm.vector_shift(0x73, 3, to, x, 8);
                    half = to;
                }
                self.asm
                    .vector2(Vex(Pp::None, Map::M0f, false, 0x5a), to, half);
                let shape = Shape::vector(Lane::D, true);
                self.check(operation, shape, Doubt::Nan, [a, a, a], to)
            }
            Operation::FloatNarrow { odd: false, shape }
                if shape.lane == Lane::S && shape.bytes == 8 =>
            {
                let x = self.xmm(a);
                let to = self.new_xmm();
                self.asm.vector2(v66(0x5a), to, x);
                self.check(operation, shape, Doubt::NanOrTiny, [a, a, a], to)
            }
            _ => None,
        }
    }

    /// What [`Emitter::float`] has no single instruction for.
    pub(super) fn odd_float(
        &mut self,
        operation: Operation,
        op: FloatBinary,
        shape: Shape,
        a: Vector,
        b: Vector,
    ) -> Option<Vector> {
        use FloatBinary as F;
        let bytes = shape.bytes;
        let v = |opcode| float_op(shape, opcode);
        match op {
            F::NMul => {
                let multiply = v(0x59)?;
                let (x, y) = (self.low(a, bytes), self.low(b, bytes));
                let to = self.new_xmm();
                self.asm.vector3(multiply, to, x, y);
                self.load_constant(T0, in_lanes(shape, sign(shape.lane)));
                self.asm.vector3(XOR, to, to, T0);
                self.check(operation, shape, Doubt::NanOrTiny, [a, b, b], to)
            }
            F::Abd => {
                let subtract = v(0x5c)?;
                let (x, y) = (self.low(a, bytes), self.low(b, bytes));
                let to = self.new_xmm();
                self.asm.vector3(subtract, to, x, y);
                self.load_constant(T0, in_lanes(shape, sign(shape.lane) - 1));
                self.asm.vector3(AND, to, to, T0);
                self.check(operation, shape, Doubt::Nan, [a, b, b], to)
            }
            F::Div => {
                let divide = v(0x5e)?;
                let (x, y) = (self.low(a, bytes), self.low(b, bytes));
                let (to, divisor) = (self.new_xmm(), self.new_xmm());
                // The lanes that are not there divide nothing by one.
                self.load_constant(T0, u128::from(0x3f80_0000_3f80_0000u64) << 64);
                self.asm.vector3(OR, divisor, y, T0);
                self.asm.vector3(divide, to, x, divisor);
                self.check(operation, shape, Doubt::NanOrTiny, [a, b, b], to)
            }
            F::AcGe | F::AcGt => {
                let compare = v(0xc2)?;
                let (x, y) = (self.low(a, bytes), self.low(b, bytes));
                let to = self.new_xmm();
                self.load_constant(T0, in_lanes(shape, sign(shape.lane) - 1));
                self.asm.vector3(AND, to, x, T0);
                self.asm.vector3(AND, T0, y, T0);
                let predicate = if op == F::AcGe { 0x0d } else { 0x0e };
                self.asm.vector3_constant(compare, to, to, T0, predicate);
                self.trim(to, bytes);
                Some(self.in_new(to))
            }
            F::Max | F::MaxNm | F::Min | F::MinNm => {
                let greater = matches!(op, F::Max | F::MaxNm);
                let extreme = v(if greater { 0x5f } else { 0x5d })?;
                let (x, y) = (self.low(a, bytes), self.low(b, bytes));
                let to = self.new_xmm();
                let (from, back) = self.by_function_out_of_line(operation, [a, b, b], to);
                self.jump_if_unordered(shape, x, y, from)?;
                // Of equal operands the host gives the second: those may be zeros of both signs.
                self.asm.vector3(extreme, to, x, y);
                self.asm.vector3(extreme, T0, y, x);
                self.asm.vector3(if greater { AND } else { OR }, to, to, T0);
                self.asm.bind(back);
                self.asm.flags_changed = true;
                Some(self.in_new(to))
            }
            _ => None,
        }
    }

    /// Jumps if a lane of one of both is NaN.
    pub(super) fn jump_if_unordered(
        &mut self,
        shape: Shape,
        x: Xmm,
        y: Xmm,
        to: Label,
    ) -> Option<()> {
        if shape.lanes() == 1 {
            let pp = if shape.lane == Lane::D {
                Pp::P66
            } else {
                Pp::None
            };
            let compare = Vex(pp, Map::M0f, false, 0x2e);
            self.asm.vector_compare_flags(compare, x, y);
            self.asm.jcc(Cc::P, to);
        } else {
            let compare = float_op(shape, 0xc2)?;
            self.asm.vector3_constant(compare, T0, x, y, 3);
            self.jump_if_any(T0, to);
        }
        Some(())
    }

    /// Jumps if the top bit of a byte is set.
    pub(super) fn jump_if_any(&mut self, bytes: Xmm, to: Label) {
        self.asm.general_vector(v66(0xd7), RAX, bytes);
        self.asm.test(false, RAX, RAX);
        self.asm.jcc(Cc::Ne, to);
    }

    /// A way out to the operation's function, and back with its result in a register.
    pub(super) fn by_function_out_of_line(
        &mut self,
        operation: Operation,
        operands: [Vector; 3],
        result: Xmm,
    ) -> (Label, Label) {
        self.free_for_function();
        let (from, back) = (self.asm.label(), self.asm.label());
        let operands = operands.map(|v| self.place_of(v));
        let operation = self.keep(operation);
        self.stubs.push(Stub::Function {
            from,
            back,
            operation,
            function: functions::vector as *const () as usize,
            operands,
            result,
        });
        (from, back)
    }

    fn integers_to_floats(
        &mut self,
        signed: bool,
        fraction: u8,
        shape: Shape,
        a: Vector,
    ) -> Option<Vector> {
        let x = self.low(a, shape.bytes);
        let to = self.new_xmm();
        let convert = Vex(Pp::None, Map::M0f, false, 0x5b);
        match (shape.lane, signed) {
            (Lane::S, true) => self.asm.vector2(convert, to, x),
            (Lane::S, false) => {
                // The upper halves times 2^16, which is exact, and the lower halves: rounded once, in their sum.
                self.asm.vector_shift(0x72, 2, to, x, 16);
                self.asm.vector2(convert, to, to);
                self.load_constant(T0, in_lanes(shape, power(Lane::S, 16)));
                let packed = |opcode| Vex(Pp::None, Map::M0f, false, opcode);
                self.asm.vector3(packed(0x59), to, to, T0);
                self.asm.vector_shift(0x72, 6, T0, x, 16);
                self.asm.vector_shift(0x72, 2, T0, T0, 16);
                self.asm.vector2(convert, T0, T0);
                self.asm.vector3(packed(0x58), to, to, T0);
            }
            (Lane::D, true) => {
                if shape.lanes() == 2 {
                    self.asm.vector_general(v3a_wide(0x16), x, 0, RAX);
                    self.asm.trailing(1);
                    self.integer_to_double(T0, RAX);
                }
                self.asm.vector_general(MOVQ_TO_GENERAL, x, 0, RAX);
                self.integer_to_double(to, RAX);
                if shape.lanes() == 2 {
                    self.asm.vector3(v66(0x6c), to, to, T0);
                }
            }
            _ => return None,
        }
        if fraction != 0 {
            let scale = in_lanes(shape, power(shape.lane, -i32::from(fraction)));
            self.load_constant(T0, scale);
            self.asm.vector3(float_op(shape, 0x59)?, to, to, T0);
        }
        Some(self.in_new(to))
    }

    /// A signed integer of 64 bits to double precision, zeros above.
    fn integer_to_double(&mut self, to: Xmm, from: Reg) {
        self.asm.vector3(XOR, to, to, to);
        let convert = Vex(Pp::Pf2, Map::M0f, true, 0x2a);
        self.asm.vector_general(convert, to, to.0, from);
    }

    fn floats_to_integers(
        &mut self,
        operation: Operation,
        rounding: Rounding,
        shape: Shape,
        a: Vector,
    ) -> Option<Vector> {
        let x = self.low(a, shape.bytes);
        let to = self.new_xmm();
        let truncates = rounding == Rounding::Zero;
        match shape.lane {
            Lane::S => {
                // The host has one result for what does not fit.
                let pp = if truncates { Pp::Pf3 } else { Pp::P66 };
                let (from, back) = self.by_function_out_of_line(operation, [a, a, a], to);
                self.asm.vector2(Vex(pp, Map::M0f, false, 0x5b), to, x);
                self.load_constant(T0, in_lanes(shape, sign(Lane::S)));
                // Lanes that are not there are 0, and the constant's are too.
                self.load_constant(T1, u128::MAX ^ shape.mask());
                self.asm.vector3(OR, T0, T0, T1);
                self.asm.vector3(v66(0x76), T0, T0, to);
                self.jump_if_any(T0, from);
                self.asm.bind(back);
                self.asm.flags_changed = true;
                Some(self.in_new(to))
            }
            Lane::D if shape.lanes() == 1 => {
                let (from, back) = self.by_function_out_of_line(operation, [a, a, a], to);
                let opcode = if truncates { 0x2c } else { 0x2d };
                let convert = Vex(Pp::Pf2, Map::M0f, true, opcode);
                self.asm.general_vector(convert, RAX, x);
                self.asm.vector_general(MOVD_WIDE, to, 0, RAX);
                // The lowest number is the only one that one less is above.
                self.asm.alu_constant(Alu::Cmp, true, RAX, 1);
                self.asm.jcc(Cc::O, from);
                self.asm.bind(back);
                self.asm.flags_changed = true;
                Some(self.in_new(to))
            }
            _ => None,
        }
    }

    /// FCVTZU to a general register: numbers from 0 up to what fits by the host, others by the function.
    pub(super) fn truncate_unsigned(
        &mut self,
        operation: ToValue,
        from: Lane,
        wide: bool,
        a: Vector,
    ) -> Value {
        let double = from == Lane::D;
        let x = self.low(a, from.bytes() as u8);
        let (done, other) = (self.asm.label(), self.asm.label());
        let v = if double { MOVQ_TO_GENERAL } else { MOVD_STORE };
        self.asm.vector_general(v, x, 0, RAX);
        // As integers, the numbers from 0 on are in their order, and all others are above.
        let limit = power(from, if wide { 63 } else { 32 });
        if double {
            self.asm.shift(ShiftOp::Shr, true, RAX, 32);
        }
        let high = if double { limit >> 32 } else { limit };
        self.asm.alu_constant(Alu::Cmp, false, RAX, high as i32);
        self.asm.jcc(Cc::Ae, other);
        let pp = if double { Pp::Pf2 } else { Pp::Pf3 };
        let convert = Vex(pp, Map::M0f, true, 0x2c);
        self.asm.general_vector(convert, RAX, x);
        self.asm.jmp(done);
        self.asm.bind(other);
        self.call_to_value(operation, a);
        self.asm.bind(done);
        self.asm.flags_changed = true;
        self.result_in_slot()
    }

    /// An unsigned integer of 64 bits to a scalar. RAX and another register are changed.
    pub(super) fn wide_unsigned_to_float(&mut self, to: Xmm, lane: Lane, from: Reg) {
        let pp = if lane == Lane::D { Pp::Pf2 } else { Pp::Pf3 };
        let convert = Vex(pp, Map::M0f, true, 0x2a);
        let (high, done) = (self.asm.label(), self.asm.label());
        self.asm.vector3(XOR, to, to, to);
        self.asm.load(true, RAX, from);
        self.asm.test(true, RAX, RAX);
        self.asm.jcc(Cc::S, high);
        self.asm.vector_general(convert, to, to.0, RAX);
        self.asm.jmp(done);
        self.asm.bind(high);
        // Half of it, the lost bit kept for rounding, twice.
        let odd = self.take();
        self.asm.load(false, odd, RAX);
        self.asm.alu_constant(Alu::And, false, odd, 1);
        self.asm.shift(ShiftOp::Shr, true, RAX, 1);
        self.asm.alu(Alu::Or, true, RAX, odd);
        self.release(odd);
        self.asm.vector_general(convert, to, to.0, RAX);
        let add = Vex(pp, Map::M0f, false, 0x58);
        self.asm.vector3(add, to, to, Xm::Reg(to));
        self.asm.bind(done);
        self.asm.flags_changed = true;
    }
}

const fn v3a_wide(opcode: u8) -> Vex {
    Vex(Pp::P66, Map::M0f3a, true, opcode)
}
