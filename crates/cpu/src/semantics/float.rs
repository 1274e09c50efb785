//! Floating point on scalars: Arm DDI 0487, C4.1.91.

use crate::emit::{Emit, Flow, Outcome};
use crate::float::Rounding;
use crate::vector::{
    Compare, FloatBinary, FloatUnary, FromValue, Lane, Operation, Shape, ToValue,
    expand_float_immediate,
};

use super::vector::{apply_one, apply_two, check_enabled, rows};
use super::{bit, bits, rd, rm, rn, undefined};

/// FMOV Vd.D[1], Xn.
const UPPER: FromValue = FromValue::Insert {
    lane: Lane::D,
    index: 1,
};

rows! {
    scvtf_fixed, scvtf_fixed_half => from_fixed(true);
    ucvtf_fixed, ucvtf_fixed_half => from_fixed(false);
    fcvtzs_fixed, fcvtzs_fixed_half => to_fixed(true);
    fcvtzu_fixed, fcvtzu_fixed_half => to_fixed(false);
    fcvtns, fcvtns_half => to_integer(Rounding::TiesToEven, true);
    fcvtnu, fcvtnu_half => to_integer(Rounding::TiesToEven, false);
    fcvtps, fcvtps_half => to_integer(Rounding::PlusInfinity, true);
    fcvtpu, fcvtpu_half => to_integer(Rounding::PlusInfinity, false);
    fcvtms, fcvtms_half => to_integer(Rounding::MinusInfinity, true);
    fcvtmu, fcvtmu_half => to_integer(Rounding::MinusInfinity, false);
    fcvtzs, fcvtzs_half => to_integer(Rounding::Zero, true);
    fcvtzu, fcvtzu_half => to_integer(Rounding::Zero, false);
    fcvtas, fcvtas_half => to_integer(Rounding::TiesAway, true);
    fcvtau, fcvtau_half => to_integer(Rounding::TiesAway, false);
    scvtf, scvtf_half => from_integer(true);
    ucvtf, ucvtf_half => from_integer(false);
    fmov_to_w => move_to_general(Lane::S, 0);
    fmov_to_x => move_to_general(Lane::D, 0);
    fmov_to_x_upper => move_to_general(Lane::D, 1);
    fmov_to_general_half => move_to_general(Lane::H, 0);
    fmov_from_w => move_from_general(FromValue::Move(Lane::S));
    fmov_from_x => move_from_general(FromValue::Move(Lane::D));
    fmov_from_x_upper => move_from_general(UPPER);
    fmov_from_general_half => move_from_general(FromValue::Move(Lane::H));
    fmov_register, fmov_register_half => one(Operation::Low);
    fabs, fabs_half => one(|shape| Operation::FloatUnary(FloatUnary::Abs, shape));
    fneg, fneg_half => one(|shape| Operation::FloatUnary(FloatUnary::Neg, shape));
    fsqrt, fsqrt_half => one(|shape| Operation::FloatUnary(FloatUnary::Sqrt, shape));
    frintn, frintn_half => round_to_integral(Some(Rounding::TiesToEven), false);
    frintp, frintp_half => round_to_integral(Some(Rounding::PlusInfinity), false);
    frintm, frintm_half => round_to_integral(Some(Rounding::MinusInfinity), false);
    frintz, frintz_half => round_to_integral(Some(Rounding::Zero), false);
    frinta, frinta_half => round_to_integral(Some(Rounding::TiesAway), false);
    frintx, frintx_half => round_to_integral(None, true);
    frinti, frinti_half => round_to_integral(None, false);
    fcmp, fcmp_half => compare();
    fmov_immediate, fmov_immediate_half => move_immediate();
    fccmp, fccmp_half => conditional_compare();
    fmul, fmul_half => two(FloatBinary::Mul);
    fdiv, fdiv_half => two(FloatBinary::Div);
    fadd, fadd_half => two(FloatBinary::Add);
    fsub, fsub_half => two(FloatBinary::Sub);
    fmax, fmax_half => two(FloatBinary::Max);
    fmin, fmin_half => two(FloatBinary::Min);
    fmaxnm, fmaxnm_half => two(FloatBinary::MaxNm);
    fminnm, fminnm_half => two(FloatBinary::MinNm);
    fnmul, fnmul_half => two(FloatBinary::NMul);
    fcsel, fcsel_half => select();
    fmadd, fmadd_half => multiply_add(false, false);
    fmsub, fmsub_half => multiply_add(true, false);
    fnmadd, fnmadd_half => multiply_add(true, true);
    fnmsub, fnmsub_half => multiply_add(false, true);
}

/// The precision by `ftype`; the rows leave no reserved value.
#[inline(always)]
fn lane_of(word: u32) -> Lane {
    match bits(word, 23, 22) {
        0 => Lane::S,
        1 => Lane::D,
        _ => Lane::H,
    }
}

fn to_fixed_of<E: Emit>(
    e: &mut E,
    word: u32,
    rounding: Rounding,
    signed: bool,
    fraction: u8,
) -> Outcome<E> {
    check_enabled!(e);
    let n = e.v(rn(word));
    let operation = ToValue::FloatToFixed {
        from: lane_of(word),
        wide: bit(word, 31),
        signed,
        rounding,
        fraction,
    };
    let result = e.vector_to_value(operation, n);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

fn from_fixed_of<E: Emit>(e: &mut E, word: u32, signed: bool, fraction: u8) -> Outcome<E> {
    let operation = FromValue::FixedToFloat {
        to: lane_of(word),
        wide: bit(word, 31),
        signed,
        fraction,
    };
    move_from_general(e, word, operation)
}

/// The bits of the fraction, nothing where there are more than the register has.
fn fraction_of(word: u32) -> Option<u8> {
    let scale = bits(word, 15, 10) as u8;
    (bit(word, 31) || scale >= 32).then_some(64 - scale)
}

fn to_fixed<E: Emit>(e: &mut E, word: u32, signed: bool) -> Outcome<E> {
    match fraction_of(word) {
        Some(fraction) => to_fixed_of(e, word, Rounding::Zero, signed, fraction),
        None => undefined(e, word),
    }
}

fn from_fixed<E: Emit>(e: &mut E, word: u32, signed: bool) -> Outcome<E> {
    match fraction_of(word) {
        Some(fraction) => from_fixed_of(e, word, signed, fraction),
        None => undefined(e, word),
    }
}

fn to_integer<E: Emit>(e: &mut E, word: u32, rounding: Rounding, signed: bool) -> Outcome<E> {
    to_fixed_of(e, word, rounding, signed, 0)
}

fn from_integer<E: Emit>(e: &mut E, word: u32, signed: bool) -> Outcome<E> {
    from_fixed_of(e, word, signed, 0)
}

fn move_to_general<E: Emit>(e: &mut E, word: u32, lane: Lane, index: u8) -> Outcome<E> {
    check_enabled!(e);
    let n = e.v(rn(word));
    let result = e.vector_to_value(ToValue::Lane { lane, index }, n);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

fn move_from_general<E: Emit>(e: &mut E, word: u32, operation: FromValue) -> Outcome<E> {
    check_enabled!(e);
    let (d, n) = (e.v(rd(word)), e.x(rn(word)));
    let result = e.value_to_vector(operation, d, n);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

#[inline(always)]
fn one<E: Emit>(e: &mut E, word: u32, operation: impl Fn(Shape) -> Operation) -> Outcome<E> {
    apply_one(e, word, operation(Shape::scalar(lane_of(word))))
}

#[inline(always)]
fn two<E: Emit>(e: &mut E, word: u32, operation: FloatBinary) -> Outcome<E> {
    let shape = Shape::scalar(lane_of(word));
    apply_two(e, word, Operation::Float(operation, shape))
}

/// Between precisions; none to itself.
pub fn fcvt<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let (from, to) = (bits(word, 23, 22), bits(word, 16, 15));
    if from == to || from == 2 || to == 2 {
        return undefined(e, word);
    }
    let operation = Operation::FloatConvert {
        from: lane_of(word),
        to: match to {
            0 => Lane::S,
            1 => Lane::D,
            _ => Lane::H,
        },
    };
    apply_one(e, word, operation)
}

/// `rounding` is FPCR's if not given.
fn round_to_integral<E: Emit>(
    e: &mut E,
    word: u32,
    rounding: Option<Rounding>,
    exact: bool,
) -> Outcome<E> {
    let rounding = rounding.unwrap_or_else(|| Rounding::from_fpcr(e.key().fpcr));
    let operation = Operation::FloatRound {
        rounding,
        exact,
        shape: Shape::scalar(lane_of(word)),
    };
    apply_one(e, word, operation)
}

/// FCMP, FCMPE, with a register or zero.
fn compare<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    check_enabled!(e);
    let n = e.v(rn(word));
    let m = if bit(word, 3) {
        e.vector_constant(0)
    } else {
        e.v(rm(word))
    };
    let operation = Compare {
        lane: lane_of(word),
        signaling: bit(word, 4),
    };
    let flags = e.float_compare(operation, n, m);
    e.set_flags(flags);
    Ok(Flow::Next)
}

/// FCCMP, FCCMPE.
fn conditional_compare<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    check_enabled!(e);
    let condition = e.condition(bits(word, 15, 12));
    // Where the condition fails nothing is compared: zeros raise no flag in FPSR.
    let (n, m) = (e.v(rn(word)), e.v(rm(word)));
    let zero = e.vector_constant(0);
    let n = e.select_vector(condition, n, zero);
    let m = e.select_vector(condition, m, zero);
    let operation = Compare {
        lane: lane_of(word),
        signaling: bit(word, 4),
    };
    let flags = e.float_compare(operation, n, m);
    let flags = e.select_flags(condition, flags, bits(word, 3, 0));
    e.set_flags(flags);
    Ok(Flow::Next)
}

fn select<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    check_enabled!(e);
    let condition = e.condition(bits(word, 15, 12));
    let (n, m) = (e.v(rn(word)), e.v(rm(word)));
    let chosen = e.select_vector(condition, n, m);
    let low = Operation::Low(Shape::scalar(lane_of(word)));
    let result = e.vector(low, [chosen, chosen, chosen]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn move_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    check_enabled!(e);
    let value = expand_float_immediate(bits(word, 20, 13), lane_of(word));
    let result = e.vector_constant(value.into());
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn multiply_add<E: Emit>(
    e: &mut E,
    word: u32,
    negate_product: bool,
    negate_addend: bool,
) -> Outcome<E> {
    check_enabled!(e);
    let operation = Operation::FloatMultiplyAdd {
        negate_product,
        negate_addend,
        shape: Shape::scalar(lane_of(word)),
    };
    let (n, m, a) = (e.v(rn(word)), e.v(rm(word)), e.v(bits(word, 14, 10)));
    let result = e.vector(operation, [n, m, a]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}
