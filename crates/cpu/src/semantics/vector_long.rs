//! Advanced SIMD with operands and results of different sizes: Arm DDI 0487, C4.1.90.

use crate::emit::{Emit, Flow, Outcome};
use crate::vector::{IntegerBinary, IntegerTernary, Lane, LongProduct, Operation, Shape};

use super::vector::{
    BHS, HS, check_enabled, duplicate, element, integer_shape, is_scalar, q, rows, set_narrowed,
};
use super::{bits, rd, rm, rn, undefined};

rows! {
    saddl_vector => long(IntegerBinary::Add, true);
    saddw_vector => wide(IntegerBinary::Add, true);
    ssubl_vector => long(IntegerBinary::Sub, true);
    ssubw_vector => wide(IntegerBinary::Sub, true);
    sabdl_vector => long(IntegerBinary::SAbd, true);
    sabal_vector => absolute_difference_accumulate(true);
    smlal_vector => multiply(LongProduct::SMull, Some(IntegerBinary::Add));
    smlsl_vector => multiply(LongProduct::SMull, Some(IntegerBinary::Sub));
    smull_vector => multiply(LongProduct::SMull, None);
    uaddl_vector => long(IntegerBinary::Add, false);
    uaddw_vector => wide(IntegerBinary::Add, false);
    usubl_vector => long(IntegerBinary::Sub, false);
    usubw_vector => wide(IntegerBinary::Sub, false);
    uabdl_vector => long(IntegerBinary::UAbd, false);
    uabal_vector => absolute_difference_accumulate(false);
    umlal_vector => multiply(LongProduct::UMull, Some(IntegerBinary::Add));
    umlsl_vector => multiply(LongProduct::UMull, Some(IntegerBinary::Sub));
    umull_vector => multiply(LongProduct::UMull, None);
    addhn_vector => narrow_high(false, false);
    subhn_vector => narrow_high(true, false);
    raddhn_vector => narrow_high(false, true);
    rsubhn_vector => narrow_high(true, true);
    sqdmlal_vector, sqdmlal_scalar => multiply(LongProduct::SQDMull, Some(IntegerBinary::SQAdd));
    sqdmlsl_vector, sqdmlsl_scalar => multiply(LongProduct::SQDMull, Some(IntegerBinary::SQSub));
    sqdmull_vector, sqdmull_scalar => multiply(LongProduct::SQDMull, None);
    pmull_bytes, pmull_doubles => multiply(LongProduct::PMull, None);
    smlal_element => multiply_by_element(LongProduct::SMull, Some(IntegerBinary::Add));
    smlsl_element => multiply_by_element(LongProduct::SMull, Some(IntegerBinary::Sub));
    smull_element => multiply_by_element(LongProduct::SMull, None);
    umlal_element => multiply_by_element(LongProduct::UMull, Some(IntegerBinary::Add));
    umlsl_element => multiply_by_element(LongProduct::UMull, Some(IntegerBinary::Sub));
    umull_element => multiply_by_element(LongProduct::UMull, None);
    sqdmlal_element, sqdmlal_element_scalar => multiply_by_element(LongProduct::SQDMull, Some(IntegerBinary::SQAdd));
    sqdmlsl_element, sqdmlsl_element_scalar => multiply_by_element(LongProduct::SQDMull, Some(IntegerBinary::SQSub));
    sqdmull_element, sqdmull_element_scalar => multiply_by_element(LongProduct::SQDMull, None);
}

/// The half of Vn or Vm that is used, widened.
fn widened<E: Emit>(e: &mut E, word: u32, register: u32, signed: bool, lane: Lane) -> E::Vector {
    let vector = e.v(register);
    let operation = Operation::Widen {
        signed,
        high: q(word),
        lane,
    };
    e.vector(operation, [vector, vector, vector])
}

fn long<E: Emit>(e: &mut E, word: u32, operation: IntegerBinary, signed: bool) -> Outcome<E> {
    let Some(Shape { lane, .. }) = integer_shape(word, BHS) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let n = widened(e, word, rn(word), signed, lane);
    let m = widened(e, word, rm(word), signed, lane);
    let operation = Operation::Integer(operation, Shape::vector(lane.wider(), true));
    let result = e.vector(operation, [n, m, m]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn wide<E: Emit>(e: &mut E, word: u32, operation: IntegerBinary, signed: bool) -> Outcome<E> {
    let Some(Shape { lane, .. }) = integer_shape(word, BHS) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let n = e.v(rn(word));
    let m = widened(e, word, rm(word), signed, lane);
    let operation = Operation::Integer(operation, Shape::vector(lane.wider(), true));
    let result = e.vector(operation, [n, m, m]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// SABAL, UABAL.
fn absolute_difference_accumulate<E: Emit>(e: &mut E, word: u32, signed: bool) -> Outcome<E> {
    let Some(Shape { lane, .. }) = integer_shape(word, BHS) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let n = widened(e, word, rn(word), signed, lane);
    let m = widened(e, word, rm(word), signed, lane);
    let d = e.v(rd(word));
    let operation = if signed {
        IntegerTernary::SAba
    } else {
        IntegerTernary::UAba
    };
    let shape = Shape::vector(lane.wider(), true);
    let result = e.vector(Operation::IntegerAccumulate(operation, shape), [n, m, d]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// The lanes that are multiplied: 64 bits of them, or one.
fn factors(word: u32, product: LongProduct) -> Option<Shape> {
    let lane = match product {
        // The rows leave 8 and 64 bits.
        LongProduct::PMull => Lane::from_size(bits(word, 23, 22)),
        LongProduct::SQDMull => integer_shape(word, HS)?.lane,
        LongProduct::SMull | LongProduct::UMull => integer_shape(word, BHS)?.lane,
    };
    Some(if is_scalar(word) {
        Shape::scalar(lane)
    } else {
        Shape::vector(lane, false)
    })
}

/// Multiplies, adds to Vd if so, and writes.
fn finish<E: Emit>(
    e: &mut E,
    word: u32,
    product: LongProduct,
    accumulate: Option<IntegerBinary>,
    shape: Shape,
    m: E::Vector,
) -> Outcome<E> {
    let n = e.v(rn(word));
    let operation = Operation::MultiplyLong {
        product,
        high: q(word),
        shape,
    };
    let mut result = e.vector(operation, [n, m, m]);
    if let Some(operation) = accumulate {
        let d = e.v(rd(word));
        let shape = Shape {
            lane: shape.lane.wider(),
            bytes: 2 * shape.bytes,
        };
        result = e.vector(Operation::Integer(operation, shape), [d, result, result]);
    }
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn multiply<E: Emit>(
    e: &mut E,
    word: u32,
    product: LongProduct,
    accumulate: Option<IntegerBinary>,
) -> Outcome<E> {
    let Some(shape) = factors(word, product) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let m = e.v(rm(word));
    finish(e, word, product, accumulate, shape, m)
}

fn multiply_by_element<E: Emit>(
    e: &mut E,
    word: u32,
    product: LongProduct,
    accumulate: Option<IntegerBinary>,
) -> Outcome<E> {
    let Some(shape) = factors(word, product) else {
        return undefined(e, word);
    };
    let Some(element) = element(word, shape.lane) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let m = duplicate(e, element, Shape::vector(shape.lane, true));
    finish(e, word, product, accumulate, shape, m)
}

/// ADDHN and its kin; `size` is the result's.
fn narrow_high<E: Emit>(e: &mut E, word: u32, subtract: bool, round: bool) -> Outcome<E> {
    let Some(Shape { lane, .. }) = integer_shape(word, BHS) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let (n, m) = (e.v(rn(word)), e.v(rm(word)));
    let operation = Operation::NarrowHigh {
        subtract,
        round,
        lane,
    };
    let result = e.vector(operation, [n, m, m]);
    set_narrowed(e, word, result);
    Ok(Flow::Next)
}
