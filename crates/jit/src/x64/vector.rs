//! Vectors and floating point.
//!
//! What the host computes as Arm does is done by host instructions; the rest by the operations' functions. Arithmetic is
//! done by the host only with FPCR at zero, and differs from Arm's only where a result is NaN (which NaN it is) or, for
//! tininess being found before or after rounding, is the smallest normal number: those are found by a test after the
//! operation, and computed again by its function. What the host raises is a part of what Arm raises, so that flags gathered
//! in MXCSR are added to FPSR.

use cpu::float::Rounding;
use cpu::vector::{
    Compare, FloatBinary, FloatUnary, FromValue, IntegerBinary, IntegerTernary, IntegerUnary, Lane,
    Logic, LongProduct, Narrowing, Operation, Permutation, Shape, Shift, ToValue,
};

use super::assembler::{Alu, Cc, Map, Mem, Pp, RAX, RDI, RSI, ShiftOp, Vex, Xm, Xmm};
use super::emitter::{Cond, Emitter, Flags, Node, OUT_OF_VECTORS, Place128, Test, Value, Vector};
use super::frame;
use super::functions;
use super::record::{self, fields};
use super::vector_lanes::lanes_of;

/// ORR of whole vectors, with its fields blanked: MOV where both operands are one.
const MOVE: u32 = 0x4ea0_1c00;

/// For the insides of one operation.
pub(super) const T0: Xmm = Xmm(14);
pub(super) const T1: Xmm = Xmm(15);

pub(super) const fn v66(opcode: u8) -> Vex {
    Vex(Pp::P66, Map::M0f, false, opcode)
}

pub(super) const fn v38(opcode: u8) -> Vex {
    Vex(Pp::P66, Map::M0f38, false, opcode)
}

pub(super) const fn v3a(opcode: u8) -> Vex {
    Vex(Pp::P66, Map::M0f3a, false, opcode)
}

pub(super) const LOAD: Vex = Vex(Pp::Pf3, Map::M0f, false, 0x6f);
pub(super) const STORE: Vex = Vex(Pp::Pf3, Map::M0f, false, 0x7f);
/// 64 bits, the rest zero.
const MOVQ: Vex = Vex(Pp::Pf3, Map::M0f, false, 0x7e);
const MOVQ_STORE: Vex = v66(0xd6);
/// 32 or (W) 64 bits from a general register or memory, the rest zero.
const MOVD: Vex = v66(0x6e);
pub(super) const MOVD_WIDE: Vex = Vex(Pp::P66, Map::M0f, true, 0x6e);
pub(super) const MOVD_STORE: Vex = v66(0x7e);
pub(super) const MOVQ_TO_GENERAL: Vex = Vex(Pp::P66, Map::M0f, true, 0x7e);
pub(super) const AND: Vex = v66(0xdb);
pub(super) const ANDN: Vex = v66(0xdf);
pub(super) const OR: Vex = v66(0xeb);
pub(super) const XOR: Vex = v66(0xef);
pub(super) const ADD_S: Vex = v66(0xfe);
pub(super) const SUB_S: Vex = v66(0xfa);
pub(super) const SHUFFLE_WORDS: Vex = v66(0x70);
pub(super) const SHUFFLE: Vex = v38(0x00);
const ALIGN: Vex = v3a(0x0f);

/// The opcode for a lane size out of four; 0 for none.
fn by_lane(lane: Lane, opcodes: [u8; 4]) -> Option<u8> {
    let opcode = opcodes[lane as usize];
    (opcode != 0).then_some(opcode)
}

/// Packed or scalar arithmetic of S or D.
pub(super) fn float_op(shape: Shape, opcode: u8) -> Option<Vex> {
    let scalar = shape.lanes() == 1;
    let pp = match (shape.lane, scalar) {
        (Lane::S, true) => Pp::Pf3,
        (Lane::D, true) => Pp::Pf2,
        (Lane::S, false) => Pp::None,
        (Lane::D, false) => Pp::P66,
        _ => return None,
    };
    Some(Vex(pp, Map::M0f, false, opcode))
}

/// What of a result may differ from Arm's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    Nan,
    /// And tininess.
    NanOrTiny,
}

impl Emitter {
    // ---- where vectors are

    pub(super) fn vector_at(&mut self, place: Place128) -> Vector {
        self.vectors.push(place);
        self.vector_extents.push(match place {
            Place128::Guest(n, _) => self.extents[usize::from(n)],
            Place128::Constant(value) => record::extent_of_constant(value),
            Place128::Xmm(_) => 16,
        });
        if self.vectors.len() > 250 {
            self.fail("too many vectors");
            self.vectors.truncate(1);
            self.vector_extents.truncate(1);
        }
        Vector((self.vectors.len() - 1) as u8)
    }

    pub(super) fn place_of(&mut self, v: Vector) -> Place128 {
        let place = self.vectors[usize::from(v.0)];
        if let Place128::Guest(n, epoch) = place
            && self.vector_epochs[usize::from(n)] != epoch
        {
            self.fail("a vector is read after it was written");
        }
        place
    }

    pub(super) fn new_xmm(&mut self) -> Xmm {
        if self.in_loop.is_none() {
            return self.copies.take().unwrap_or_else(|| {
                self.fail(OUT_OF_VECTORS);
                T0
            });
        }
        if self.next_xmm >= frame::XMMS {
            self.fail(OUT_OF_VECTORS);
            return T0;
        }
        self.next_xmm += 1;
        Xmm(self.next_xmm - 1)
    }

    pub(super) fn in_new(&mut self, xmm: Xmm) -> Vector {
        self.vector_at(Place128::Xmm(xmm))
    }

    /// Where a guest's vector register lives.
    fn guest_vector(&mut self, n: u8) -> Xm {
        match self.home_or_copy(n) {
            Some(xmm) => xmm.into(),
            None => frame::vector(n).into(),
        }
    }

    /// The host register that has a guest's vector register.
    fn home_or_copy(&mut self, n: u8) -> Option<Xmm> {
        self.homes.vectors[usize::from(n)].or_else(|| self.copies.find(n))
    }

    /// Any place into a register.
    fn load_place(&mut self, to: Xmm, place: Place128) {
        match place {
            Place128::Guest(n, _) => {
                let from = self.guest_vector(n);
                self.asm.vector2(LOAD, to, from);
            }
            Place128::Xmm(from) if from == to => {}
            Place128::Xmm(from) => self.asm.vector2(LOAD, to, from),
            Place128::Constant(value) => self.load_constant(to, value),
        }
    }

    pub(super) fn load_constant(&mut self, to: Xmm, value: u128) {
        let (low, high) = (value as u64, (value >> 64) as u64);
        if value == 0 {
            return self.asm.vector3(XOR, to, to, to);
        }
        if value == u128::MAX {
            return self.asm.vector3(v66(0x76), to, to, to);
        }
        if let Some(place) = self.pooled(value) {
            return self.asm.vector2(LOAD, to, place);
        }
        self.asm.constant(RAX, low);
        self.asm.vector_general(MOVD_WIDE, to, 0, RAX);
        if low == high {
            self.asm.vector3(v66(0x6c), to, to, to);
        } else if high != 0 {
            self.asm.constant(RAX, high);
            let insert = Vex(Pp::P66, Map::M0f3a, true, 0x22);
            self.asm.vector_general(insert, to, to.0, RAX);
            self.asm.trailing(1);
        }
    }

    /// Where a constant is in the frame, if there is room for it.
    fn pooled(&mut self, value: u128) -> Option<Mem> {
        let index = self.pool.iter().position(|&other| other == value);
        let index = index.or_else(|| {
            (self.pool.len() < frame::POOL).then(|| {
                self.pool.push(value);
                self.pool.len() - 1
            })
        });
        index.map(frame::pool)
    }

    /// A constant as an operand: in the frame, or else in a register that is given for it.
    pub(super) fn constant_operand(&mut self, value: u128, spare: Xmm) -> Xm {
        match self.pooled(value) {
            Some(place) => place.into(),
            None => {
                self.load_constant(spare, value);
                spare.into()
            }
        }
    }

    pub(super) fn load_vector_from(&mut self, to: Xmm, from: Mem) {
        self.asm.vector2(LOAD, to, from);
    }

    /// A register that holds the vector. It is not to be changed.
    pub(super) fn xmm(&mut self, v: Vector) -> Xmm {
        let place = self.place_of(v);
        if let Place128::Xmm(xmm) = place {
            return xmm;
        }
        if let Place128::Guest(n, _) = place
            && let Some(xmm) = self.home_or_copy(n)
        {
            return xmm;
        }
        let xmm = self.new_xmm();
        self.load_place(xmm, place);
        if let Place128::Guest(n, _) = place
            && self.in_loop.is_none()
        {
            self.copies.hold(n, xmm);
        }
        self.vectors[usize::from(v.0)] = Place128::Xmm(xmm);
        xmm
    }

    /// The vector as an operand.
    pub(super) fn operand128(&mut self, v: Vector) -> Xm {
        match self.place_of(v) {
            Place128::Guest(n, _) => self.guest_vector(n),
            Place128::Xmm(xmm) => xmm.into(),
            Place128::Constant(_) => self.xmm(v).into(),
        }
    }

    /// A register with the low 4 or 8 bytes of the vector and zeros above, or all of it. It is not to be changed.
    pub(super) fn low(&mut self, v: Vector, bytes: u8) -> Xmm {
        if bytes == 16 {
            return self.xmm(v);
        }
        let place = self.place_of(v);
        let extent = self.vector_extents[usize::from(v.0)];
        if extent <= bytes
            && !matches!(place, Place128::Constant(_))
            && let Xm::Reg(xmm) = self.operand128(v)
        {
            return xmm;
        }
        let to = self.new_xmm();
        let from = match place {
            Place128::Guest(n, _) => self.guest_vector(n),
            _ => Xm::Reg(self.xmm(v)),
        };
        match (bytes, from) {
            (8, from) => self.asm.vector2(MOVQ, to, from),
            (4, Xm::Mem(from)) => self.asm.vector_general(MOVD, to, 0, from),
            (4, Xm::Reg(from)) => self.asm.vector3_constant(v3a(0x21), to, from, from, 0x0e),
            _ => self.fail("narrow vector"),
        }
        to
    }

    /// Clears what is above the shape.
    pub(super) fn trim(&mut self, xmm: Xmm, bytes: u8) {
        match bytes {
            16 => {}
            8 => self.asm.vector2(MOVQ, xmm, xmm),
            4 => self.asm.vector3_constant(v3a(0x21), xmm, xmm, xmm, 0x0e),
            _ => {
                self.load_constant(T0, (1 << (8 * u32::from(bytes))) - 1);
                self.asm.vector3(AND, xmm, xmm, T0);
            }
        }
    }

    /// Notes what this instruction writes, where that is another register's value.
    fn note_copy(&mut self, n: u8) {
        let [d, from, other] = fields(self.word);
        let moves = self.word & 0xffe0_fc00 == MOVE && from == other && d == n;
        let epoch = |n: u8| self.vector_epochs[usize::from(n)];
        self.copied[usize::from(n)] = moves.then(|| (from, [epoch(n), epoch(from)]));
    }

    /// Whether one of two registers was moved to the other, and both have that value still.
    pub(super) fn are_copies(&self, a: u8, b: u8) -> bool {
        let epoch = |n: u8| self.vector_epochs[usize::from(n)];
        [(a, b), (b, a)].into_iter().any(|(to, from)| {
            self.copied[usize::from(to)] == Some((from, [epoch(to), epoch(from)]))
        })
    }

    pub(super) fn write_vector_register(&mut self, n: u8, v: Vector) {
        if self.failed.is_some() {
            return;
        }
        self.committed = true;
        let place = self.place_of(v);
        let xmm = match place {
            Place128::Xmm(xmm) => xmm,
            _ if self.in_loop.is_none() => self.xmm(v),
            _ => {
                self.load_place(T0, place);
                T0
            }
        };
        self.vector_epochs[usize::from(n)] += 1;
        self.note_copy(n);
        match self.homes.vectors[usize::from(n)] {
            // Into its home at once, and not by way of a register of the instruction's own.
            Some(home) if xmm.0 >= self.homes.vectors_taken && self.asm.redirect(xmm, home) => {
                let written = Place128::Guest(n, self.vector_epochs[usize::from(n)]);
                for vector in &mut self.vectors {
                    if *vector == place {
                        *vector = written;
                    }
                }
            }
            Some(home) => self.asm.vector2(LOAD, home, xmm),
            None => self.asm.vector2(STORE, xmm, frame::vector(n)),
        }
        if self.in_loop.is_none() {
            self.copies.forget(n);
            self.copies.hold(n, xmm);
            self.extents[usize::from(n)] = self.vector_extents[usize::from(v.0)];
        }
    }

    pub(super) fn load_vector(&mut self, from: Mem, size: u8) -> Vector {
        let to = self.new_xmm();
        match size {
            16 => self.asm.vector2(LOAD, to, from),
            8 => self.asm.vector2(MOVQ, to, from),
            4 => self.asm.vector_general(MOVD, to, 0, from),
            _ => {
                self.asm.load_zero_extended(size, RAX, from);
                self.asm.vector_general(MOVD, to, 0, RAX);
            }
        }
        let v = self.in_new(to);
        self.narrow_to(v, size.max(4));
        v
    }

    pub(super) fn store_vector(&mut self, to: Mem, size: u8, v: Vector) {
        if self.failed.is_some() {
            return;
        }
        let xmm = self.xmm(v);
        match size {
            16 => self.asm.vector2(STORE, xmm, to),
            8 => self.asm.vector2(MOVQ_STORE, xmm, to),
            4 => self.asm.vector_general(MOVD_STORE, xmm, 0, to),
            _ => {
                self.asm.vector_general(MOVD_STORE, xmm, 0, RAX);
                self.asm.store(size, to, RAX);
            }
        }
    }

    // ---- functions

    /// The address of an operation, which stays.
    pub(super) fn keep<T: 'static + Copy + Eq + std::hash::Hash>(&mut self, operation: T) -> usize
    where
        Self: Keeps<T>,
    {
        let kept = self.kept();
        &raw const **kept.entry(operation).or_insert_with(|| Box::new(operation)) as usize
    }

    /// A call keeps no scratch registers: none may be in use.
    pub(super) fn free_for_function(&mut self) {
        if self.busy_registers() != 0 {
            self.fail("a function in the middle of an access");
        }
    }

    /// Calls a function of the frame's operands.
    pub(super) fn call_vector_function(
        &mut self,
        operation: usize,
        function: usize,
        operands: [Place128; 3],
    ) {
        for (i, &place) in operands.iter().enumerate() {
            let xmm = match place {
                Place128::Xmm(xmm) => xmm,
                _ => {
                    self.load_place(T0, place);
                    T0
                }
            };
            let to = Mem::at(frame::OPERANDS.base, frame::OPERANDS.disp + 16 * i as i32);
            self.asm.vector2(STORE, xmm, to);
        }
        self.asm.lea(true, RDI, frame::MACHINE);
        self.asm.constant(RSI, operation as u64);
        self.asm.constant(RAX, function as u64);
        self.asm.call_to(self.thunks.call);
        self.asm.flags_changed = true;
    }

    /// An operation by its function, in line.
    fn by_function(&mut self, operation: Operation, operands: [Vector; 3]) -> Vector {
        let operation = self.keep(operation);
        let operands = operands.map(|v| self.place_of(v));
        self.call_now(operation, functions::vector as *const () as usize, operands);
        let to = self.new_xmm();
        self.asm.vector2(LOAD, to, frame::RESULT);
        self.in_new(to)
    }

    fn call_now(&mut self, operation: usize, function: usize, operands: [Place128; 3]) {
        if self.failed.is_some() {
            return;
        }
        self.free_for_function();
        self.call_vector_function(operation, function, operands);
    }

    // ---- operations

    pub(super) fn vector_operation(
        &mut self,
        operation: Operation,
        operands: [Vector; 3],
    ) -> Vector {
        if self.failed.is_some() {
            return Vector(0);
        }
        let result = match self.by_host(operation, operands) {
            Some(result) => result,
            None => self.by_function(operation, operands),
        };
        self.narrow_to(result, record::extent(operation));
        result
    }

    /// What is above the low bytes of a vector is known to be zero.
    fn narrow_to(&mut self, v: Vector, bytes: u8) {
        if let Some(extent) = self.vector_extents.get_mut(usize::from(v.0)) {
            *extent = bytes.min(*extent);
        }
    }

    /// `to = a op b` in a new register, cut to the shape.
    fn three(&mut self, v: Vex, a: Vector, b: Vector, bytes: u8) -> Option<Vector> {
        let a = self.xmm(a);
        let b = self.operand128(b);
        let to = self.new_xmm();
        self.asm.vector3(v, to, a, b);
        self.trim(to, bytes);
        Some(self.in_new(to))
    }

    fn by_host(&mut self, operation: Operation, [a, b, c]: [Vector; 3]) -> Option<Vector> {
        match operation {
            Operation::Low(shape) => match shape.bytes {
                16 => Some(a),
                bytes @ (4 | 8) => {
                    let to = self.low(a, bytes);
                    Some(self.in_new(to))
                }
                _ => None,
            },
            Operation::Logic(op, shape) => self.logic(op, shape, a, b),
            Operation::Select(shape) => {
                let (mask, no) = (self.xmm(a), self.operand128(c));
                let yes = self.operand128(b);
                let to = self.new_xmm();
                self.asm.vector3(AND, to, mask, yes);
                self.asm.vector3(ANDN, T0, mask, no);
                self.asm.vector3(OR, to, to, T0);
                self.trim(to, shape.bytes);
                Some(self.in_new(to))
            }
            Operation::Integer(op, shape) => self.integer(op, shape, a, b),
            Operation::IntegerAccumulate(op, shape) => {
                let add = match op {
                    IntegerTernary::Mla => true,
                    IntegerTernary::Mls => false,
                    _ => return None,
                };
                let product = self.integer(IntegerBinary::Mul, shape, a, b)?;
                let op = if add {
                    IntegerBinary::Add
                } else {
                    IntegerBinary::Sub
                };
                self.integer(op, shape, c, product)
            }
            Operation::IntegerUnary(op, shape) => self.integer_unary(op, shape, a),
            Operation::Shift(op, shape, amount) => self.vector_shift(op, shape, a, amount),
            Operation::Widen { signed, high, lane } => {
                let opcode = by_lane(
                    lane,
                    if signed {
                        [0x20, 0x23, 0x25, 0]
                    } else {
                        [0x30, 0x33, 0x35, 0]
                    },
                )?;
                let to = self.new_xmm();
                if high {
                    let a = self.xmm(a);
                    self.asm.vector_shift(0x73, 3, to, a, 8);
                    self.asm.vector2(v38(opcode), to, to);
                } else {
                    let a = self.operand128(a);
                    self.asm.vector2(v38(opcode), to, a);
                }
                Some(self.in_new(to))
            }
            Operation::Narrow {
                how: Narrowing::Truncate,
                round: false,
                shift,
                shape,
            } if shape.bytes == 8 => {
                let a = self.xmm(a);
                let to = self.new_xmm();
                let wide = shape.lane.wider();
                let opcode = [0, 0x71, 0x72, 0x73][wide as usize];
                let pattern: u128 = match shape.lane {
                    Lane::B => 0xffff_ffff_ffff_ffff_0e0c_0a08_0604_0200,
                    Lane::H => 0xffff_ffff_ffff_ffff_0d0c_0908_0504_0100,
                    _ => 0xffff_ffff_ffff_ffff_0b0a_0908_0302_0100,
                };
                let mut from = a;
                if shift != 0 {
                    self.asm.vector_shift(opcode, 2, to, a, shift);
                    from = to;
                }
                self.load_constant(T0, pattern);
                self.asm.vector3(SHUFFLE, to, from, T0);
                Some(self.in_new(to))
            }
            Operation::MultiplyLong {
                product,
                high,
                shape,
            } => self.multiply_long(product, high, shape, a, b),
            Operation::Duplicate { shape, index } => self.duplicate(shape, index, a),
            Operation::Insert { lane, to, from } => {
                let size = lane.bytes() as u8;
                let value = self.vector_to_general(ToValue::Lane { lane, index: from }, b);
                let _ = size;
                Some(self.general_to_vector(FromValue::Insert { lane, index: to }, a, value))
            }
            Operation::Permute(op, shape) => self.permute(op, shape, a, b),
            Operation::Extract { shape, position } => {
                if shape.bytes == 16 {
                    let (high, low) = (self.xmm(b), self.operand128(a));
                    let to = self.new_xmm();
                    self.asm.vector3_constant(ALIGN, to, high, low, position);
                    return Some(self.in_new(to));
                }
                // Both halves in one register.
                let low = self.low(a, 8);
                let high = self.operand128(b);
                let to = self.new_xmm();
                self.asm.vector3(v66(0x6c), to, low, high);
                self.asm.vector_shift(0x73, 3, to, to, position);
                self.trim(to, 8);
                Some(self.in_new(to))
            }
            Operation::TableLookup { shape, first: 0 } if self.is_zero(a) => {
                let (table, index) = (self.xmm(b), self.xmm(c));
                let to = self.new_xmm();
                // Indices from 16 on get their top bit set, which gives zero.
                self.load_constant(T0, 0x7070_7070_7070_7070_7070_7070_7070_7070);
                self.asm.vector3(v66(0xdc), T0, T0, index);
                self.asm.vector3(SHUFFLE, to, table, T0);
                self.trim(to, shape.bytes);
                Some(self.in_new(to))
            }
            Operation::Float(op, shape) => self.float(operation, op, shape, a, b),
            Operation::FloatUnary(op, shape) => self.float_unary(operation, op, shape, a),
            Operation::FloatMultiplyAdd {
                negate_product,
                negate_addend,
                shape,
            } => {
                if !self.features.fma
                    || self.key.fpcr != 0
                    || !matches!(shape.lane, Lane::S | Lane::D)
                {
                    return None;
                }
                let bytes = shape.bytes;
                let (x, y, z) = (self.low(a, bytes), self.low(b, bytes), self.low(c, bytes));
                let to = self.new_xmm();
                self.asm.vector2(LOAD, to, z);
                let scalar = u8::from(shape.lanes() == 1);
                let opcode = scalar
                    + match (negate_product, negate_addend) {
                        (false, false) => 0xb8,
                        (false, true) => 0xba,
                        (true, false) => 0xbc,
                        (true, true) => 0xbe,
                    };
                let v = Vex(Pp::P66, Map::M0f38, shape.lane == Lane::D, opcode);
                self.asm.vector3(v, to, x, y);
                self.check(operation, shape, Doubt::NanOrTiny, [a, b, c], to)
            }
            Operation::FloatRound {
                rounding,
                exact,
                shape,
            } => {
                let mode = match rounding {
                    Rounding::TiesToEven => 0,
                    Rounding::MinusInfinity => 1,
                    Rounding::PlusInfinity => 2,
                    Rounding::Zero => 3,
                    _ => return None,
                };
                if self.key.fpcr != 0 || !matches!(shape.lane, Lane::S | Lane::D) {
                    return None;
                }
                let scalar = if shape.lanes() == 1 { 2 } else { 0 };
                let v = v3a(0x08 + scalar + u8::from(shape.lane == Lane::D));
                let x = self.low(a, shape.bytes);
                let to = self.new_xmm();
                let mode = mode | if exact { 0 } else { 8 };
                if scalar != 0 {
                    self.asm.vector3_constant(v, to, x, x, mode);
                } else {
                    self.asm.vector2_constant(v, to, x, mode);
                }
                self.check(operation, shape, Doubt::Nan, [a, a, a], to)
            }
            Operation::FloatConvert { from, to } => {
                let (pp, bytes, shape, doubt) = match (from, to) {
                    (Lane::S, Lane::D) => (Pp::Pf3, 4, Shape::scalar(Lane::D), Doubt::Nan),
                    (Lane::D, Lane::S) => (Pp::Pf2, 8, Shape::scalar(Lane::S), Doubt::NanOrTiny),
                    _ => return None,
                };
                if self.key.fpcr != 0 {
                    return None;
                }
                let x = self.low(a, bytes);
                let result = self.new_xmm();
                self.asm.vector3(XOR, T0, T0, T0);
                self.asm
                    .vector3(Vex(pp, Map::M0f, false, 0x5a), result, T0, x);
                self.check(operation, shape, doubt, [a, a, a], result)
            }
            Operation::Crypto(op) => self.crypto(op, [a, b, c]),
            Operation::FloatPairwise(..)
            | Operation::FloatReduce(..)
            | Operation::FixedToFloat { .. }
            | Operation::FloatToFixed { .. }
            | Operation::FloatWiden { .. }
            | Operation::FloatNarrow { .. } => self.float_by_host(operation, [a, b, c]),
            _ => self.lanes_by_host(operation, [a, b, c]),
        }
    }

    fn is_zero(&mut self, v: Vector) -> bool {
        self.place_of(v) == Place128::Constant(0)
    }

    fn logic(&mut self, op: Logic, shape: Shape, a: Vector, b: Vector) -> Option<Vector> {
        let bytes = shape.bytes;
        if !matches!(bytes, 8 | 16) {
            return None;
        }
        match op {
            Logic::And => self.three(AND, a, b, bytes),
            // ANDN inverts its first operand.
            Logic::Bic => self.three(ANDN, b, a, bytes),
            Logic::Orr if self.place_of(a) == self.place_of(b) => {
                let to = self.low(a, bytes);
                Some(self.in_new(to))
            }
            Logic::Orr => self.three(OR, a, b, bytes),
            Logic::Eor => self.three(XOR, a, b, bytes),
            Logic::Orn => {
                let (a, b) = (self.operand128(a), self.xmm(b));
                let to = self.new_xmm();
                self.load_constant(T0, u128::MAX);
                self.asm.vector3(XOR, T0, T0, b);
                self.asm.vector3(OR, to, T0, a);
                self.trim(to, bytes);
                Some(self.in_new(to))
            }
        }
    }

    pub(super) fn integer(
        &mut self,
        op: IntegerBinary,
        shape: Shape,
        a: Vector,
        b: Vector,
    ) -> Option<Vector> {
        use IntegerBinary as I;
        let (lane, bytes) = (shape.lane, shape.bytes);
        if !matches!(bytes, 8 | 16) {
            return None;
        }
        let three =
            |e: &mut Emitter, v: Option<Vex>, a: Vector, b: Vector| e.three(v?, a, b, bytes);
        let max = |signed: bool| match (signed, lane) {
            (false, Lane::B) => Some(v66(0xde)),
            (false, Lane::H) => Some(v38(0x3e)),
            (false, Lane::S) => Some(v38(0x3f)),
            (true, Lane::B) => Some(v38(0x3c)),
            (true, Lane::H) => Some(v66(0xee)),
            (true, Lane::S) => Some(v38(0x3d)),
            _ => None,
        };
        let min = |signed: bool| match (signed, lane) {
            (false, Lane::B) => Some(v66(0xda)),
            (false, Lane::H) => Some(v38(0x3a)),
            (false, Lane::S) => Some(v38(0x3b)),
            (true, Lane::B) => Some(v38(0x38)),
            (true, Lane::H) => Some(v66(0xea)),
            (true, Lane::S) => Some(v38(0x39)),
            _ => None,
        };
        let equal = match lane {
            Lane::D => v38(0x29),
            _ => v66([0x74, 0x75, 0x76, 0][lane as usize]),
        };
        let greater = match lane {
            Lane::D => v38(0x37),
            _ => v66([0x64, 0x65, 0x66, 0][lane as usize]),
        };
        match op {
            I::Add => three(self, by_lane(lane, [0xfc, 0xfd, 0xfe, 0xd4]).map(v66), a, b),
            I::Sub => three(self, by_lane(lane, [0xf8, 0xf9, 0xfa, 0xfb]).map(v66), a, b),
            I::Mul => match lane {
                Lane::H => three(self, Some(v66(0xd5)), a, b),
                Lane::S => three(self, Some(v38(0x40)), a, b),
                _ => self.odd_integer(op, shape, a, b),
            },
            I::SMax => three(self, max(true), a, b),
            I::UMax => three(self, max(false), a, b),
            I::SMin => three(self, min(true), a, b),
            I::UMin => three(self, min(false), a, b),
            I::CmEq => three(self, Some(equal), a, b),
            I::CmGt => three(self, Some(greater), a, b),
            // a >= b: not b > a. a > b unsigned: not max(a, b) = b … by the minimum: a <= b is min(a, b) = a.
            I::CmGe => self.inverse_of(greater, b, a, bytes),
            I::CmHs => {
                let max = max(false)?;
                let (x, y) = (self.xmm(a), self.operand128(b));
                let to = self.new_xmm();
                self.asm.vector3(max, to, x, y);
                self.asm.vector3(equal, to, to, x);
                self.trim(to, bytes);
                Some(self.in_new(to))
            }
            I::CmHi => {
                let min = min(false)?;
                let (x, y) = (self.xmm(a), self.operand128(b));
                let to = self.new_xmm();
                self.asm.vector3(min, to, x, y);
                self.asm.vector3(equal, to, to, x);
                self.invert(to, bytes)
            }
            I::CmTst => {
                let (x, y) = (self.xmm(a), self.operand128(b));
                let to = self.new_xmm();
                self.asm.vector3(AND, to, x, y);
                self.asm.vector3(XOR, T0, T0, T0);
                self.asm.vector3(equal, to, to, T0);
                self.invert(to, bytes)
            }
            I::SAbd | I::UAbd => {
                let (max, min) = (max(op == I::SAbd)?, min(op == I::SAbd)?);
                let (x, y) = (self.xmm(a), self.operand128(b));
                let to = self.new_xmm();
                self.asm.vector3(max, to, x, y);
                self.asm.vector3(min, T0, x, y);
                let sub = v66([0xf8, 0xf9, 0xfa, 0xfb][lane as usize]);
                self.asm.vector3(sub, to, to, T0);
                self.trim(to, bytes);
                Some(self.in_new(to))
            }
            I::URHAdd => three(self, by_lane(lane, [0xe0, 0xe3, 0, 0]).map(v66), a, b),
            _ => self.odd_integer(op, shape, a, b),
        }
    }

    fn inverse_of(&mut self, v: Vex, a: Vector, b: Vector, bytes: u8) -> Option<Vector> {
        let (x, y) = (self.xmm(a), self.operand128(b));
        let to = self.new_xmm();
        self.asm.vector3(v, to, x, y);
        self.invert(to, bytes)
    }

    fn invert(&mut self, to: Xmm, bytes: u8) -> Option<Vector> {
        self.load_constant(T0, u128::MAX);
        self.asm.vector3(XOR, to, to, T0);
        self.trim(to, bytes);
        Some(self.in_new(to))
    }

    fn integer_unary(&mut self, op: IntegerUnary, shape: Shape, a: Vector) -> Option<Vector> {
        use IntegerUnary as I;
        let (lane, bytes) = (shape.lane, shape.bytes);
        if !matches!(bytes, 8 | 16) {
            return None;
        }
        let rows = |chunk: u32| {
            let size = lane.bytes();
            (0..16u32).fold(0u128, |v, i| {
                let within = i % chunk;
                let from = i - within + (chunk / size - 1 - within / size) * size + within % size;
                v | u128::from(from) << (8 * i)
            })
        };
        match op {
            I::Not => {
                let x = self.xmm(a);
                let to = self.new_xmm();
                self.asm.vector2(LOAD, to, x);
                self.invert(to, bytes)
            }
            I::Neg => {
                let x = self.operand128(a);
                let to = self.new_xmm();
                self.asm.vector3(XOR, to, to, to);
                let sub = v66([0xf8, 0xf9, 0xfa, 0xfb][lane as usize]);
                self.asm.vector3(sub, to, to, x);
                self.trim(to, bytes);
                Some(self.in_new(to))
            }
            I::Abs => {
                let opcode = by_lane(lane, [0x1c, 0x1d, 0x1e, 0])?;
                let x = self.operand128(a);
                let to = self.new_xmm();
                self.asm.vector2(v38(opcode), to, x);
                self.trim(to, bytes);
                Some(self.in_new(to))
            }
            I::Rev16 | I::Rev32 | I::Rev64 => {
                let chunk = match op {
                    I::Rev16 => 2,
                    I::Rev32 => 4,
                    _ => 8,
                };
                if lane.bytes() >= chunk {
                    return None;
                }
                let x = self.xmm(a);
                let to = self.new_xmm();
                self.load_constant(T0, rows(chunk));
                self.asm.vector3(SHUFFLE, to, x, T0);
                self.trim(to, bytes);
                Some(self.in_new(to))
            }
            I::Cnt if lane == Lane::B => {
                // Bits of each half of a byte, by a table.
                let x = self.xmm(a);
                let (to, table) = (self.new_xmm(), self.new_xmm());
                self.load_constant(T0, 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f);
                self.load_constant(table, 0x0403_0302_0302_0201_0302_0201_0201_0100);
                self.asm.vector_shift(0x71, 2, T1, x, 4);
                self.asm.vector3(AND, T1, T1, T0);
                self.asm.vector3(AND, T0, T0, x);
                self.asm.vector3(SHUFFLE, to, table, T0);
                self.asm.vector3(SHUFFLE, T1, table, T1);
                self.asm.vector3(v66(0xfc), to, to, T1);
                self.trim(to, bytes);
                Some(self.in_new(to))
            }
            _ => None,
        }
    }

    pub(super) fn vector_shift(
        &mut self,
        op: Shift,
        shape: Shape,
        a: Vector,
        amount: u8,
    ) -> Option<Vector> {
        let (lane, bytes) = (shape.lane, shape.bytes);
        if !matches!(bytes, 8 | 16) {
            return None;
        }
        if lane == Lane::B || (op, lane) == (Shift::SShr, Lane::D) {
            return self.odd_shift(op, shape, a, amount);
        }
        let opcode = [0, 0x71, 0x72, 0x73][lane as usize];
        let extension = match op {
            Shift::Shl => 6,
            Shift::UShr => 2,
            Shift::SShr => 4,
            _ => return None,
        };
        let x = self.xmm(a);
        let to = self.new_xmm();
        self.asm.vector_shift(opcode, extension, to, x, amount);
        self.trim(to, bytes);
        Some(self.in_new(to))
    }

    fn multiply_long(
        &mut self,
        product: LongProduct,
        high: bool,
        shape: Shape,
        a: Vector,
        b: Vector,
    ) -> Option<Vector> {
        if product == LongProduct::PMull && shape.lane == Lane::D && self.features.pclmul {
            let (x, y) = (self.xmm(a), self.operand128(b));
            let to = self.new_xmm();
            let which = if high { 0x11 } else { 0 };
            self.asm.vector3_constant(v3a(0x44), to, x, y, which);
            return Some(self.in_new(to));
        }
        if shape.bytes != 8 {
            return None;
        }
        let signed = match product {
            LongProduct::SMull => true,
            LongProduct::UMull => false,
            _ => return None,
        };
        let multiply = match (shape.lane, signed) {
            (Lane::B, _) => v66(0xd5),
            (Lane::H, _) => v38(0x40),
            (Lane::S, true) => v38(0x28),
            (Lane::S, false) => v66(0xf4),
            _ => return None,
        };
        let lane = shape.lane;
        let wide =
            |e: &mut Emitter, v| e.by_host(Operation::Widen { signed, high, lane }, [v, v, v]);
        let (x, y) = (wide(self, a)?, wide(self, b)?);
        self.three(multiply, x, y, 16)
    }

    fn duplicate(&mut self, shape: Shape, index: u8, a: Vector) -> Option<Vector> {
        let size = shape.lane.bytes() as u8;
        let x = self.xmm(a);
        let to = self.new_xmm();
        let mut from = x;
        if index != 0 {
            self.asm.vector_shift(0x73, 3, to, x, index * size);
            from = to;
        }
        if shape.lanes() > 1 {
            let opcode = [0x78, 0x79, 0x58, 0x59][shape.lane as usize];
            self.asm.vector2(v38(opcode), to, from);
        } else if from == x {
            self.asm.vector2(LOAD, to, x);
        }
        self.trim(to, shape.bytes);
        Some(self.in_new(to))
    }

    pub(super) fn permute(
        &mut self,
        op: Permutation,
        shape: Shape,
        a: Vector,
        b: Vector,
    ) -> Option<Vector> {
        use Permutation as P;
        let (lane, bytes) = (shape.lane, shape.bytes);
        if !matches!(bytes, 8 | 16) {
            return None;
        }
        let (x, y) = (self.xmm(a), self.xmm(b));
        let to = self.new_xmm();
        let low = v66([0x60, 0x61, 0x62, 0x6c][lane as usize]);
        let high = v66([0x68, 0x69, 0x6a, 0x6d][lane as usize]);
        let zip = |e: &mut Emitter, to: Xmm, x: Xmm, y: Xmm, second: bool| {
            if bytes == 16 {
                e.asm.vector3(if second { high } else { low }, to, x, y);
            } else {
                e.asm.vector3(low, to, x, y);
                if second {
                    e.asm.vector_shift(0x73, 3, to, to, 8);
                }
                e.trim(to, 8);
            }
        };
        match op {
            P::Zip1 | P::Zip2 => zip(self, to, x, y, op == P::Zip2),
            _ if lane == Lane::D => {
                let second = matches!(op, P::Uzp2 | P::Trn2);
                zip(self, to, x, y, second);
            }
            P::Trn1 | P::Trn2 if bytes == 8 && lane == Lane::S => {
                zip(self, to, x, y, op == P::Trn2);
            }
            P::Uzp1 | P::Uzp2 => {
                let odd = op == P::Uzp2;
                let size = lane.bytes();
                // The even or odd lanes of each operand to its low half, then both halves together.
                let half = u32::from(bytes) / 2;
                let pattern = (0..16u32).fold(0u128, |v, i| {
                    let from = if i < half {
                        (i / size * 2 + u32::from(odd)) * size + i % size
                    } else {
                        0x80
                    };
                    v | u128::from(from) << (8 * i)
                });
                self.load_constant(T0, pattern);
                self.asm.vector3(SHUFFLE, to, x, T0);
                self.asm.vector3(SHUFFLE, T0, y, T0);
                if bytes == 16 {
                    self.asm.vector3(v66(0x6c), to, to, T0);
                } else {
                    self.asm.vector3(v66(0x62), to, to, T0);
                }
            }
            P::Trn1 | P::Trn2 => {
                let odd = u32::from(op == P::Trn2);
                let size = lane.bytes();
                let pattern = |second: bool| {
                    (0..16u32).fold(0u128, |v, i| {
                        let l = i / size;
                        let from = if i >= u32::from(bytes) || (l % 2 == 1) != second {
                            0x80
                        } else {
                            (l / 2 * 2 + odd) * size + i % size
                        };
                        v | u128::from(from) << (8 * i)
                    })
                };
                self.load_constant(T0, pattern(false));
                self.asm.vector3(SHUFFLE, to, x, T0);
                self.load_constant(T0, pattern(true));
                self.asm.vector3(SHUFFLE, T0, y, T0);
                self.asm.vector3(OR, to, to, T0);
            }
        }
        Some(self.in_new(to))
    }

    // ---- floating point

    fn float(
        &mut self,
        operation: Operation,
        op: FloatBinary,
        shape: Shape,
        a: Vector,
        b: Vector,
    ) -> Option<Vector> {
        if self.key.fpcr != 0 {
            return None;
        }
        let bytes = shape.bytes;
        let (opcode, doubt) = match op {
            FloatBinary::Add => (0x58, Doubt::Nan),
            FloatBinary::Sub => (0x5c, Doubt::Nan),
            FloatBinary::Mul => (0x59, Doubt::NanOrTiny),
            // Empty lanes would raise Invalid.
            FloatBinary::Div if bytes != 8 || shape.lanes() == 1 => (0x5e, Doubt::NanOrTiny),
            FloatBinary::CmEq | FloatBinary::CmGe | FloatBinary::CmGt => {
                let v = float_op(shape, 0xc2)?;
                // Equal, ordered and quiet; greater (or equal), ordered and signaling.
                let predicate = match op {
                    FloatBinary::CmEq => 0,
                    FloatBinary::CmGe => 0x0d,
                    _ => 0x0e,
                };
                let (x, y) = (self.low(a, bytes), self.low(b, bytes));
                let to = self.new_xmm();
                self.asm.vector3_constant(v, to, x, y, predicate);
                self.trim(to, bytes);
                return Some(self.in_new(to));
            }
            _ => return self.odd_float(operation, op, shape, a, b),
        };
        let v = float_op(shape, opcode)?;
        let (x, y) = (self.low(a, bytes), self.low(b, bytes));
        let to = self.new_xmm();
        self.asm.vector3(v, to, x, y);
        self.check(operation, shape, doubt, [a, b, b], to)
    }

    fn float_unary(
        &mut self,
        operation: Operation,
        op: FloatUnary,
        shape: Shape,
        a: Vector,
    ) -> Option<Vector> {
        let (lane, bytes) = (shape.lane, shape.bytes);
        if !matches!(lane, Lane::S | Lane::D) {
            return None;
        }
        let opcode = if lane == Lane::D { 0x73 } else { 0x72 };
        let top = (lane.bits() - 1) as u8;
        match op {
            FloatUnary::Abs | FloatUnary::Neg => {
                let x = self.low(a, bytes);
                let to = self.new_xmm();
                self.load_constant(T0, u128::MAX);
                if op == FloatUnary::Abs {
                    self.asm.vector_shift(opcode, 2, T0, T0, 1);
                    self.asm.vector3(AND, to, x, T0);
                } else {
                    self.asm.vector_shift(opcode, 6, T0, T0, top);
                    self.asm.vector3(XOR, to, x, T0);
                    self.trim(to, bytes);
                }
                Some(self.in_new(to))
            }
            FloatUnary::Sqrt if self.key.fpcr == 0 => {
                let v = float_op(shape, 0x51)?;
                let x = self.low(a, bytes);
                let to = self.new_xmm();
                if shape.lanes() == 1 {
                    self.asm.vector3(v, to, x, x);
                } else {
                    self.asm.vector2(v, to, x);
                }
                self.check(operation, shape, Doubt::Nan, [a, a, a], to)
            }
            _ => None,
        }
    }

    /// Has the operation's function compute the result again where the host's may differ.
    pub(super) fn check(
        &mut self,
        operation: Operation,
        shape: Shape,
        doubt: Doubt,
        operands: [Vector; 3],
        result: Xmm,
    ) -> Option<Vector> {
        let (from, back) = self.by_function_out_of_line(operation, operands, result);
        let double = shape.lane == Lane::D;
        if doubt == Doubt::Nan {
            self.jump_if_unordered(shape, result, result, from)?;
        } else {
            // Without its sign, and whether it is the smallest normal number or NaN is one comparison.
            let (magnitude, tiny) = if double {
                (i64::MAX as u64, 1 << 52)
            } else {
                (i32::MAX as u64, 1 << 23)
            };
            let magnitude = self.constant_operand(lanes_of(shape.lane, magnitude), T0);
            self.asm.vector3(v66(0x54), T0, result, magnitude);
            let tiny = self.constant_operand(lanes_of(shape.lane, tiny), T1);
            if shape.lanes() > 1 {
                // Equal or unordered, quiet.
                let compare = float_op(shape, 0xc2)?;
                self.asm.vector3_constant(compare, T0, T0, tiny, 8);
                self.jump_if_any(T0, from);
            } else {
                let pp = if double { Pp::P66 } else { Pp::None };
                let compare = Vex(pp, Map::M0f, false, 0x2e);
                self.asm.vector_compare_flags(compare, T0, tiny);
                // ZF is set if unordered, too.
                self.asm.jcc(Cc::E, from);
            }
        }
        self.asm.bind(back);
        self.asm.flags_changed = true;
        Some(self.in_new(result))
    }

    pub(super) fn compare_floats(&mut self, operation: Compare, a: Vector, b: Vector) -> Flags {
        if self.failed.is_some() {
            return Flags::Written;
        }
        if self.key.fpcr != 0 || operation.lane == Lane::H {
            let operation = self.keep(operation);
            let places = [a, b, b].map(|v| self.place_of(v));
            self.call_now(operation, functions::compare as *const () as usize, places);
            self.asm.store(2, frame::FLAGS, RAX);
            self.asm.flags_changed = true;
            return Flags::Written;
        }
        let double = operation.lane == Lane::D;
        let x = self.low(a, if double { 8 } else { 4 });
        let y = self.operand128(b);
        let pp = if double { Pp::P66 } else { Pp::None };
        let opcode = if operation.signaling { 0x2f } else { 0x2e };
        self.asm
            .vector_compare_flags(Vex(pp, Map::M0f, false, opcode), x, y);
        // Less: CF; equal: ZF; unordered: PF and both others.
        let (unordered, done) = (self.asm.label(), self.asm.label());
        self.asm.jcc(Cc::P, unordered);
        // N is the host's borrow.
        let t = super::assembler::RCX;
        self.take_this(t);
        self.asm.setcc(Cc::B, t);
        self.asm.lahf();
        self.asm.shift(ShiftOp::Shl, false, t, 7);
        self.asm.or_ah_cl();
        self.release(t);
        // OF is clear.
        self.asm.bytes.extend_from_slice(&[0xb0, 0]); // mov al, 0
        self.asm.store(2, frame::FLAGS, RAX);
        self.asm.jmp(done);
        self.asm.bind(unordered);
        let flags = frame::flags_to_host(3 << 28);
        self.asm
            .store_constant(2, frame::FLAGS, i32::from(flags as i16));
        self.asm.bind(done);
        self.asm.flags_changed = true;
        Flags::Written
    }

    pub(super) fn choose_vector(&mut self, cond: Cond, yes: Vector, no: Vector) -> Vector {
        if self.failed.is_some() {
            return Vector(0);
        }
        if let Test::True = cond.test {
            return if cond.not { no } else { yes };
        }
        let extent = [yes, no].map(|v| self.vector_extents[usize::from(v.0)]);
        let extent = extent[0].max(extent[1]);
        let (yes, no) = (self.place_of(yes), self.place_of(no));
        let to = self.new_xmm();
        // Loading constants does not change the host's flags.
        self.load_place(to, no);
        let over = self.asm.label();
        let cc = self.condition_code(cond);
        let keep = self.asm.flags_changed;
        self.asm.jcc(cc.not(), over);
        self.load_place(to, yes);
        self.asm.bind(over);
        self.asm.flags_changed = keep;
        let v = self.in_new(to);
        self.narrow_to(v, extent);
        v
    }

    // ---- to and from general registers

    pub(super) fn vector_to_general(&mut self, operation: ToValue, a: Vector) -> Value {
        if self.failed.is_some() {
            return Value(0);
        }
        let (lane, index, signed) = match operation {
            ToValue::Lane { lane, index } => (lane, index, None),
            ToValue::SignedLane { lane, index, wide } => (lane, index, Some(wide)),
            ToValue::FloatToFixed {
                from: from @ (Lane::S | Lane::D),
                wide,
                signed: true,
                rounding: Rounding::Zero,
                fraction: 0,
            } if self.key.fpcr == 0 => return self.truncate(operation, from, wide, a),
            ToValue::FloatToFixed {
                from: from @ (Lane::S | Lane::D),
                wide,
                signed: false,
                rounding: Rounding::Zero,
                fraction: 0,
            } if self.key.fpcr == 0 => return self.truncate_unsigned(operation, from, wide, a),
            _ => {
                let operation = self.keep(operation);
                let places = [a, a, a].map(|v| self.place_of(v));
                self.call_now(operation, functions::to_value as *const () as usize, places);
                return self.result_in_slot();
            }
        };
        let to = self.take();
        let size = lane.bytes() as u8;
        match self.operand128(a) {
            Xm::Mem(from) => {
                let from = Mem::at(from.base, from.disp + i32::from(index * size));
                match signed {
                    Some(wide) => self.asm.load_sign_extended(wide, size, to, from),
                    None => self.asm.load_zero_extended(size, to, from),
                }
            }
            Xm::Reg(x) if index == 0 && size >= 4 => {
                let v = if size == 8 {
                    MOVQ_TO_GENERAL
                } else {
                    MOVD_STORE
                };
                self.asm.vector_general(v, x, 0, to);
                if let Some(wide) = signed {
                    self.asm.load_sign_extended(wide, size, to, to);
                }
            }
            Xm::Reg(x) => {
                let v = match lane {
                    Lane::B => v3a(0x14),
                    Lane::H => v3a(0x15),
                    Lane::S => v3a(0x16),
                    Lane::D => Vex(Pp::P66, Map::M0f3a, true, 0x16),
                };
                self.asm.vector_general(v, x, 0, to);
                self.asm.trailing(index);
                if let Some(wide) = signed {
                    self.asm.load_sign_extended(wide, size, to, to);
                }
            }
        }
        self.node(Node::Register(to))
    }

    /// The result of a function, kept from further calls.
    pub(super) fn result_in_slot(&mut self) -> Value {
        let slot = self.put_in_slot(RAX);
        self.node(Node::Slot(slot))
    }

    /// FCVTZS to a register. The host has one result for all that does not fit.
    fn truncate(&mut self, operation: ToValue, from: Lane, wide: bool, a: Vector) -> Value {
        let double = from == Lane::D;
        let pp = if double { Pp::Pf2 } else { Pp::Pf3 };
        let x = self.low(a, if double { 8 } else { 4 });
        self.asm
            .general_vector(Vex(pp, Map::M0f, wide, 0x2c), RAX, x);
        let done = self.asm.label();
        // The lowest number is the only one that one less is above.
        self.asm.alu_constant(Alu::Cmp, wide, RAX, 1);
        self.asm.jcc(Cc::No, done);
        self.call_to_value(operation, a);
        self.asm.bind(done);
        self.asm.flags_changed = true;
        self.result_in_slot()
    }

    /// Has an operation's function compute its result, to RAX.
    pub(super) fn call_to_value(&mut self, operation: ToValue, a: Vector) {
        self.free_for_function();
        let operation = self.keep(operation);
        let place = self.place_of(a);
        let function = functions::to_value as *const () as usize;
        self.call_vector_function(operation, function, [place, place, place]);
    }

    pub(super) fn general_to_vector(
        &mut self,
        operation: FromValue,
        into: Vector,
        a: Value,
    ) -> Vector {
        if self.failed.is_some() {
            return Vector(0);
        }
        let v = self.convert_general(operation, into, a);
        self.narrow_to(v, record::extent_from(operation));
        v
    }

    fn convert_general(&mut self, operation: FromValue, into: Vector, a: Value) -> Vector {
        match operation {
            FromValue::Move(lane @ (Lane::S | Lane::D)) => {
                let to = self.new_xmm();
                let reg = self.in_register(a);
                let v = if lane == Lane::D { MOVD_WIDE } else { MOVD };
                self.asm.vector_general(v, to, 0, reg.0);
                self.release_if(reg);
                self.in_new(to)
            }
            FromValue::Insert { lane, index } => {
                let x = self.xmm(into);
                let to = self.new_xmm();
                let reg = self.in_register(a);
                let v = match lane {
                    Lane::B => v3a(0x20),
                    Lane::H => v66(0xc4),
                    Lane::S => v3a(0x22),
                    Lane::D => Vex(Pp::P66, Map::M0f3a, true, 0x22),
                };
                self.asm.vector_general(v, to, x.0, reg.0);
                self.asm.trailing(index);
                self.release_if(reg);
                self.in_new(to)
            }
            FromValue::Duplicate(shape) => {
                let to = self.new_xmm();
                let reg = self.in_register(a);
                let v = if shape.lane == Lane::D {
                    MOVD_WIDE
                } else {
                    MOVD
                };
                self.asm.vector_general(v, to, 0, reg.0);
                self.release_if(reg);
                let opcode = [0x78, 0x79, 0x58, 0x59][shape.lane as usize];
                self.asm.vector2(v38(opcode), to, to);
                self.trim(to, shape.bytes);
                self.in_new(to)
            }
            FromValue::FixedToFloat {
                to: to_lane @ (Lane::S | Lane::D),
                wide,
                signed,
                fraction: 0,
            } if self.key.fpcr == 0 => {
                let to = self.new_xmm();
                let reg = self.in_register(a);
                if wide && !signed {
                    self.wide_unsigned_to_float(to, to_lane, reg.0);
                    self.release_if(reg);
                    return self.in_new(to);
                }
                let mut from = reg.0;
                // 32 bits unsigned are 64 signed.
                let w = wide || !signed;
                if !signed {
                    self.asm.load(false, RAX, from);
                    from = RAX;
                }
                self.asm.vector3(XOR, to, to, to);
                let pp = if to_lane == Lane::D { Pp::Pf2 } else { Pp::Pf3 };
                self.asm
                    .vector_general(Vex(pp, Map::M0f, w, 0x2a), to, to.0, from);
                self.release_if(reg);
                self.in_new(to)
            }
            _ => {
                let operation = self.keep(operation);
                let place = self.place_of(into);
                self.free_for_function();
                // The value goes along in RDX, which nothing here uses.
                self.take_this(super::assembler::RDX);
                self.evaluate(a, super::assembler::RDX);
                self.release(super::assembler::RDX);
                let function = functions::from_value as *const () as usize;
                self.call_vector_function(operation, function, [place, place, place]);
                let to = self.new_xmm();
                self.asm.vector2(LOAD, to, frame::RESULT);
                self.in_new(to)
            }
        }
    }
}

/// Operations that generated code names by their address.
pub(super) trait Keeps<T> {
    fn kept(&mut self) -> &mut std::collections::HashMap<T, Box<T>>;
}

macro_rules! keeps {
    ($($type:ident $field:ident;)*) => {
        /// What generated code names by its address; kept as long as the emitter.
        #[derive(Default)]
        pub(super) struct Kept {
            $($field: std::collections::HashMap<$type, Box<$type>>,)*
        }

        $(impl Keeps<$type> for Emitter {
            fn kept(&mut self) -> &mut std::collections::HashMap<$type, Box<$type>> {
                &mut self.kept.$field
            }
        })*
    };
}

keeps! {
    Operation operations;
    ToValue to_values;
    FromValue from_values;
    Compare compares;
}
