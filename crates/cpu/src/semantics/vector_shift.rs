//! Advanced SIMD immediates, and shifts by them: Arm DDI 0487, C4.1.90.
//!
//! Vector shifts and MOVI share their encoding space (`immh` of zero is MOVI's), so that the decode table has one row for
//! all shifts of vectors and one for those of scalars.

use crate::emit::{Emit, Flow, Outcome};
use crate::float::Rounding;
use crate::vector::{
    IntegerBinary, Lane, Logic, Narrowing, Operation, Shape, Shift, expand_float_immediate,
    expand_immediate,
};

use super::vector::{apply_one, check_enabled, is_scalar, q, rows, set_narrowed, shape_of};
use super::{bit, bits, rd, rn, undefined};

rows! {
    scvtf_fixed_vector_half => from_fixed(true);
    ucvtf_fixed_vector_half => from_fixed(false);
    fcvtzs_fixed_vector_half => to_fixed(true);
    fcvtzu_fixed_vector_half => to_fixed(false);
    scvtf_fixed_scalar_half => from_fixed(true);
    ucvtf_fixed_scalar_half => from_fixed(false);
    fcvtzs_fixed_scalar_half => to_fixed(true);
    fcvtzu_fixed_scalar_half => to_fixed(false);
}

fn immediate_of(word: u32) -> u32 {
    bits(word, 18, 16) << 5 | bits(word, 9, 5)
}

/// MOVI, MVNI, ORR, BIC, FMOV of single and double precision.
pub fn modified_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let op = bit(word, 29);
    let cmode = bits(word, 15, 12);
    if cmode == 15 && op && !q(word) {
        return undefined(e, word);
    }
    check_enabled!(e);
    let shape = Shape::vector(Lane::D, q(word));
    let pattern = u128::from(expand_immediate(op, cmode, immediate_of(word)));
    let inverted = op && cmode < 14;
    let pattern = (pattern | pattern << 64) & shape.mask();
    let result = if cmode & 1 == 1 && cmode < 12 {
        let d = e.v(rd(word));
        let pattern = e.vector_constant(pattern);
        let logic = if inverted { Logic::Bic } else { Logic::Orr };
        e.vector(Operation::Logic(logic, shape), [d, pattern, pattern])
    } else if inverted {
        e.vector_constant(!pattern & shape.mask())
    } else {
        e.vector_constant(pattern)
    };
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

pub fn fmov_vector_half_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    check_enabled!(e);
    let value = expand_float_immediate(immediate_of(word), Lane::H);
    let ones = 0x0001_0001_0001_0001_0001_0001_0001_0001;
    let shape = Shape::vector(Lane::H, q(word));
    let result = e.vector_constant((u128::from(value) * ones) & shape.mask());
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// The lane that `immh` names, or none for 0.
fn lane_of(word: u32) -> Option<Lane> {
    match bits(word, 22, 19) {
        0 => None,
        1 => Some(Lane::B),
        2..=3 => Some(Lane::H),
        4..=7 => Some(Lane::S),
        _ => Some(Lane::D),
    }
}

/// By how much to shift right, 1 to the lane's size.
fn right(word: u32, lane: Lane) -> u8 {
    (2 * lane.bits() - bits(word, 22, 16)) as u8
}

/// By how much to shift left, 0 to the lane's size − 1.
fn left(word: u32, lane: Lane) -> u8 {
    (bits(word, 22, 16) - lane.bits()) as u8
}

pub fn vector_shift_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(lane) = lane_of(word) else {
        return undefined(e, word);
    };
    match (bit(word, 29), bits(word, 15, 11)) {
        (false, 0b10000) => narrow(e, word, lane, Narrowing::Truncate, false),
        (false, 0b10001) => narrow(e, word, lane, Narrowing::Truncate, true),
        (unsigned, 0b10100) => shift_long(e, word, lane, !unsigned),
        _ => either_shift_immediate(e, word, lane),
    }
}

pub fn scalar_shift_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(lane) = lane_of(word) else {
        return undefined(e, word);
    };
    // Without saturation, narrowing or conversion there are only 64-bit scalars.
    if bits(word, 15, 11) < 0b01100 && lane != Lane::D {
        return undefined(e, word);
    }
    either_shift_immediate(e, word, lane)
}

/// What vectors and scalars have in common.
fn either_shift_immediate<E: Emit>(e: &mut E, word: u32, lane: Lane) -> Outcome<E> {
    let unsigned = bit(word, 29);
    let (plain, rounding) = if unsigned {
        (Shift::UShr, Shift::URShr)
    } else {
        (Shift::SShr, Shift::SRShr)
    };
    let saturating = if unsigned {
        Narrowing::UQ
    } else {
        Narrowing::SQ
    };
    match (unsigned, bits(word, 15, 11)) {
        (_, 0b00000) => shift(e, word, lane, plain, false),
        (_, 0b00010) => shift(e, word, lane, plain, true),
        (_, 0b00100) => shift(e, word, lane, rounding, false),
        (_, 0b00110) => shift(e, word, lane, rounding, true),
        (true, 0b01000) => shift_insert(e, word, lane, false),
        (false, 0b01010) => shift(e, word, lane, Shift::Shl, false),
        (true, 0b01010) => shift_insert(e, word, lane, true),
        (true, 0b01100) => shift(e, word, lane, Shift::SQShlu, false),
        (false, 0b01110) => shift(e, word, lane, Shift::SQShl, false),
        (true, 0b01110) => shift(e, word, lane, Shift::UQShl, false),
        (true, 0b10000) => narrow(e, word, lane, Narrowing::SQU, false),
        (true, 0b10001) => narrow(e, word, lane, Narrowing::SQU, true),
        (_, 0b10010) => narrow(e, word, lane, saturating, false),
        (_, 0b10011) => narrow(e, word, lane, saturating, true),
        (_, 0b11100) => from_fixed(e, word, !unsigned),
        (_, 0b11111) => to_fixed(e, word, !unsigned),
        _ => undefined(e, word),
    }
}

fn shift<E: Emit>(e: &mut E, word: u32, lane: Lane, kind: Shift, accumulate: bool) -> Outcome<E> {
    let Some(shape) = shape_of(word, lane) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let amount = match kind {
        Shift::SShr | Shift::UShr | Shift::SRShr | Shift::URShr => right(word, lane),
        _ => left(word, lane),
    };
    let n = e.v(rn(word));
    let mut result = e.vector(Operation::Shift(kind, shape, amount), [n, n, n]);
    if accumulate {
        let d = e.v(rd(word));
        let add = Operation::Integer(IntegerBinary::Add, shape);
        result = e.vector(add, [d, result, result]);
    }
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// SLI, SRI.
fn shift_insert<E: Emit>(e: &mut E, word: u32, lane: Lane, to_left: bool) -> Outcome<E> {
    let Some(shape) = shape_of(word, lane) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let operation = Operation::ShiftInsert {
        left: to_left,
        shape,
        amount: if to_left {
            left(word, lane)
        } else {
            right(word, lane)
        },
    };
    let (d, n) = (e.v(rd(word)), e.v(rn(word)));
    let result = e.vector(operation, [d, n, n]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// SHRN and its kin; `lane` is the result's.
fn narrow<E: Emit>(e: &mut E, word: u32, lane: Lane, how: Narrowing, round: bool) -> Outcome<E> {
    if lane == Lane::D {
        return undefined(e, word);
    }
    check_enabled!(e);
    let shape = if is_scalar(word) {
        Shape::scalar(lane)
    } else {
        Shape::vector(lane, false)
    };
    let n = e.v(rn(word));
    let operation = Operation::Narrow {
        how,
        round,
        shift: right(word, lane),
        shape,
    };
    let result = e.vector(operation, [n, n, n]);
    set_narrowed(e, word, result);
    Ok(Flow::Next)
}

/// SSHLL, USHLL; `lane` is the source's.
fn shift_long<E: Emit>(e: &mut E, word: u32, lane: Lane, signed: bool) -> Outcome<E> {
    if lane == Lane::D {
        return undefined(e, word);
    }
    check_enabled!(e);
    let n = e.v(rn(word));
    let widen = Operation::Widen {
        signed,
        high: q(word),
        lane,
    };
    let mut result = e.vector(widen, [n, n, n]);
    let amount = left(word, lane);
    if amount != 0 {
        let shift = Operation::Shift(Shift::Shl, Shape::vector(lane.wider(), true), amount);
        result = e.vector(shift, [result, result, result]);
    }
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// The lanes of conversions: of 16 bits or more.
fn fixed_shape(word: u32) -> Option<Shape> {
    match lane_of(word)? {
        Lane::B => None,
        lane => shape_of(word, lane),
    }
}

fn from_fixed<E: Emit>(e: &mut E, word: u32, signed: bool) -> Outcome<E> {
    let Some(shape) = fixed_shape(word) else {
        return undefined(e, word);
    };
    let operation = Operation::FixedToFloat {
        signed,
        fraction: right(word, shape.lane),
        shape,
    };
    apply_one(e, word, operation)
}

fn to_fixed<E: Emit>(e: &mut E, word: u32, signed: bool) -> Outcome<E> {
    let Some(shape) = fixed_shape(word) else {
        return undefined(e, word);
    };
    let operation = Operation::FloatToFixed {
        signed,
        rounding: Rounding::Zero,
        fraction: right(word, shape.lane),
        shape,
    };
    apply_one(e, word, operation)
}
