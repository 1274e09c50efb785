//! Advanced SIMD on floating-point numbers: Arm DDI 0487, C4.1.90.

use crate::emit::{Emit, Flow, Outcome};
use crate::float::Rounding;
use crate::vector::{FloatBinary, FloatUnary, Lane, Operation, Shape};

use super::vector::{
    Zero, apply_one, apply_three, apply_two, check_enabled, duplicate, element, float_lane,
    is_scalar, q, rows, set_narrowed, shape_of,
};
use super::{bit, rd, rn, undefined};

rows! {
    fmaxnm_vector, fmaxnm_vector_half => three(FloatBinary::MaxNm);
    fminnm_vector, fminnm_vector_half => three(FloatBinary::MinNm);
    fadd_vector, fadd_vector_half => three(FloatBinary::Add);
    fsub_vector, fsub_vector_half => three(FloatBinary::Sub);
    fabd_vector, fabd_vector_half, fabd_scalar, fabd_scalar_half => three(FloatBinary::Abd);
    fmulx_vector, fmulx_vector_half, fmulx_scalar, fmulx_scalar_half => three(FloatBinary::MulX);
    fmul_vector, fmul_vector_half => three(FloatBinary::Mul);
    fcmeq_vector, fcmeq_vector_half, fcmeq_scalar, fcmeq_scalar_half => three(FloatBinary::CmEq);
    fcmge_vector, fcmge_vector_half, fcmge_scalar, fcmge_scalar_half => three(FloatBinary::CmGe);
    fcmgt_vector, fcmgt_vector_half, fcmgt_scalar, fcmgt_scalar_half => three(FloatBinary::CmGt);
    facge_vector, facge_vector_half, facge_scalar, facge_scalar_half => three(FloatBinary::AcGe);
    facgt_vector, facgt_vector_half, facgt_scalar, facgt_scalar_half => three(FloatBinary::AcGt);
    fmax_vector, fmax_vector_half => three(FloatBinary::Max);
    fmin_vector, fmin_vector_half => three(FloatBinary::Min);
    frecps_vector, frecps_vector_half, frecps_scalar, frecps_scalar_half => three(FloatBinary::RecpS);
    frsqrts_vector, frsqrts_vector_half, frsqrts_scalar, frsqrts_scalar_half => three(FloatBinary::RSqrtS);
    fdiv_vector, fdiv_vector_half => three(FloatBinary::Div);
    fmaxnmp_vector, fmaxnmp_vector_half => pairwise(FloatBinary::MaxNm);
    fminnmp_vector, fminnmp_vector_half => pairwise(FloatBinary::MinNm);
    faddp_vector, faddp_vector_half => pairwise(FloatBinary::Add);
    fmaxp_vector, fmaxp_vector_half => pairwise(FloatBinary::Max);
    fminp_vector, fminp_vector_half => pairwise(FloatBinary::Min);
    fmla_vector, fmla_vector_half => multiply_add(false);
    fmls_vector, fmls_vector_half => multiply_add(true);
    fcvtn => narrow(false);
    fcvtl => widen();
    fcvtxn_vector, fcvtxn_scalar => narrow(true);
    frintn_vector, frintn_vector_half => round_to_integral(Some(Rounding::TiesToEven), false);
    frintp_vector, frintp_vector_half => round_to_integral(Some(Rounding::PlusInfinity), false);
    frintm_vector, frintm_vector_half => round_to_integral(Some(Rounding::MinusInfinity), false);
    frintz_vector, frintz_vector_half => round_to_integral(Some(Rounding::Zero), false);
    frinta_vector, frinta_vector_half => round_to_integral(Some(Rounding::TiesAway), false);
    frintx_vector, frintx_vector_half => round_to_integral(None, true);
    frinti_vector, frinti_vector_half => round_to_integral(None, false);
    fcvtns_vector, fcvtns_vector_half, fcvtns_scalar, fcvtns_scalar_half => to_integer(Rounding::TiesToEven, true);
    fcvtnu_vector, fcvtnu_vector_half, fcvtnu_scalar, fcvtnu_scalar_half => to_integer(Rounding::TiesToEven, false);
    fcvtps_vector, fcvtps_vector_half, fcvtps_scalar, fcvtps_scalar_half => to_integer(Rounding::PlusInfinity, true);
    fcvtpu_vector, fcvtpu_vector_half, fcvtpu_scalar, fcvtpu_scalar_half => to_integer(Rounding::PlusInfinity, false);
    fcvtms_vector, fcvtms_vector_half, fcvtms_scalar, fcvtms_scalar_half => to_integer(Rounding::MinusInfinity, true);
    fcvtmu_vector, fcvtmu_vector_half, fcvtmu_scalar, fcvtmu_scalar_half => to_integer(Rounding::MinusInfinity, false);
    fcvtzs_vector, fcvtzs_vector_half, fcvtzs_scalar, fcvtzs_scalar_half => to_integer(Rounding::Zero, true);
    fcvtzu_vector, fcvtzu_vector_half, fcvtzu_scalar, fcvtzu_scalar_half => to_integer(Rounding::Zero, false);
    fcvtas_vector, fcvtas_vector_half, fcvtas_scalar, fcvtas_scalar_half => to_integer(Rounding::TiesAway, true);
    fcvtau_vector, fcvtau_vector_half, fcvtau_scalar, fcvtau_scalar_half => to_integer(Rounding::TiesAway, false);
    scvtf_vector, scvtf_vector_half, scvtf_scalar, scvtf_scalar_half => from_integer(true);
    ucvtf_vector, ucvtf_vector_half, ucvtf_scalar, ucvtf_scalar_half => from_integer(false);
    frecpe_vector, frecpe_vector_half, frecpe_scalar, frecpe_scalar_half => two(FloatUnary::RecpE);
    frsqrte_vector, frsqrte_vector_half, frsqrte_scalar, frsqrte_scalar_half => two(FloatUnary::RSqrtE);
    frecpx_scalar, frecpx_scalar_half => two(FloatUnary::RecpX);
    fabs_vector, fabs_vector_half => two(FloatUnary::Abs);
    fneg_vector, fneg_vector_half => two(FloatUnary::Neg);
    fsqrt_vector, fsqrt_vector_half => two(FloatUnary::Sqrt);
    fcmgt_zero_vector, fcmgt_zero_vector_half, fcmgt_zero_scalar, fcmgt_zero_scalar_half => with_zero(Zero::Second, FloatBinary::CmGt);
    fcmeq_zero_vector, fcmeq_zero_vector_half, fcmeq_zero_scalar, fcmeq_zero_scalar_half => with_zero(Zero::Second, FloatBinary::CmEq);
    fcmlt_zero_vector, fcmlt_zero_vector_half, fcmlt_zero_scalar, fcmlt_zero_scalar_half => with_zero(Zero::First, FloatBinary::CmGt);
    fcmge_zero_vector, fcmge_zero_vector_half, fcmge_zero_scalar, fcmge_zero_scalar_half => with_zero(Zero::Second, FloatBinary::CmGe);
    fcmle_zero_vector, fcmle_zero_vector_half, fcmle_zero_scalar, fcmle_zero_scalar_half => with_zero(Zero::First, FloatBinary::CmGe);
    fmaxnmv => reduce(FloatBinary::MaxNm, Lane::S);
    fmaxnmv_half => reduce(FloatBinary::MaxNm, Lane::H);
    fminnmv => reduce(FloatBinary::MinNm, Lane::S);
    fminnmv_half => reduce(FloatBinary::MinNm, Lane::H);
    fmaxv => reduce(FloatBinary::Max, Lane::S);
    fmaxv_half => reduce(FloatBinary::Max, Lane::H);
    fminv => reduce(FloatBinary::Min, Lane::S);
    fminv_half => reduce(FloatBinary::Min, Lane::H);
    fmaxnmp_scalar => pair(FloatBinary::MaxNm, false);
    fmaxnmp_scalar_half => pair(FloatBinary::MaxNm, true);
    fminnmp_scalar => pair(FloatBinary::MinNm, false);
    fminnmp_scalar_half => pair(FloatBinary::MinNm, true);
    faddp_scalar => pair(FloatBinary::Add, false);
    faddp_scalar_half => pair(FloatBinary::Add, true);
    fmaxp_scalar => pair(FloatBinary::Max, false);
    fmaxp_scalar_half => pair(FloatBinary::Max, true);
    fminp_scalar => pair(FloatBinary::Min, false);
    fminp_scalar_half => pair(FloatBinary::Min, true);
    fmla_element, fmla_element_scalar => multiply_add_by_element(false);
    fmla_element_half, fmla_element_scalar_half => multiply_add_by_element(false);
    fmls_element, fmls_element_scalar => multiply_add_by_element(true);
    fmls_element_half, fmls_element_scalar_half => multiply_add_by_element(true);
    fmul_element, fmul_element_scalar => three_by_element(FloatBinary::Mul);
    fmul_element_half, fmul_element_scalar_half => three_by_element(FloatBinary::Mul);
    fmulx_element, fmulx_element_scalar => three_by_element(FloatBinary::MulX);
    fmulx_element_half, fmulx_element_scalar_half => three_by_element(FloatBinary::MulX);
}

/// Three registers of one type: bit 21 is clear for half precision.
fn three_shape(word: u32) -> Option<Shape> {
    shape_of(word, float_lane(word, !bit(word, 21)))
}

/// Two registers, miscellaneous: bit 20 is set for half precision.
fn two_shape(word: u32) -> Option<Shape> {
    shape_of(word, float_lane(word, bit(word, 20)))
}

/// By element: bit 23 is clear for half precision.
fn element_shape(word: u32) -> Option<(Shape, (u32, u8))> {
    let lane = float_lane(word, !bit(word, 23));
    Some((shape_of(word, lane)?, element(word, lane)?))
}

fn three<E: Emit>(e: &mut E, word: u32, operation: FloatBinary) -> Outcome<E> {
    let Some(shape) = three_shape(word) else {
        return undefined(e, word);
    };
    apply_two(e, word, Operation::Float(operation, shape))
}

fn pairwise<E: Emit>(e: &mut E, word: u32, operation: FloatBinary) -> Outcome<E> {
    let Some(shape) = three_shape(word) else {
        return undefined(e, word);
    };
    apply_two(e, word, Operation::FloatPairwise(operation, shape))
}

fn multiply_add<E: Emit>(e: &mut E, word: u32, negate_product: bool) -> Outcome<E> {
    let Some(shape) = three_shape(word) else {
        return undefined(e, word);
    };
    let operation = Operation::FloatMultiplyAdd {
        negate_product,
        negate_addend: false,
        shape,
    };
    apply_three(e, word, operation)
}

fn three_by_element<E: Emit>(e: &mut E, word: u32, operation: FloatBinary) -> Outcome<E> {
    let Some((shape, element)) = element_shape(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let n = e.v(rn(word));
    let m = duplicate(e, element, shape);
    let result = e.vector(Operation::Float(operation, shape), [n, m, m]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn multiply_add_by_element<E: Emit>(e: &mut E, word: u32, negate_product: bool) -> Outcome<E> {
    let Some((shape, element)) = element_shape(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let (n, d) = (e.v(rn(word)), e.v(rd(word)));
    let m = duplicate(e, element, shape);
    let operation = Operation::FloatMultiplyAdd {
        negate_product,
        negate_addend: false,
        shape,
    };
    let result = e.vector(operation, [n, m, d]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn two<E: Emit>(e: &mut E, word: u32, operation: FloatUnary) -> Outcome<E> {
    let Some(shape) = two_shape(word) else {
        return undefined(e, word);
    };
    apply_one(e, word, Operation::FloatUnary(operation, shape))
}

fn with_zero<E: Emit>(e: &mut E, word: u32, zero: Zero, operation: FloatBinary) -> Outcome<E> {
    let Some(shape) = two_shape(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let n = e.v(rn(word));
    let nothing = e.vector_constant(0);
    let operands = match zero {
        Zero::First => [nothing, n, n],
        Zero::Second => [n, nothing, nothing],
    };
    let result = e.vector(Operation::Float(operation, shape), operands);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// `rounding` is FPCR's if not given.
fn round_to_integral<E: Emit>(
    e: &mut E,
    word: u32,
    rounding: Option<Rounding>,
    exact: bool,
) -> Outcome<E> {
    let Some(shape) = two_shape(word) else {
        return undefined(e, word);
    };
    let rounding = rounding.unwrap_or_else(|| Rounding::from_fpcr(e.key().fpcr));
    let operation = Operation::FloatRound {
        rounding,
        exact,
        shape,
    };
    apply_one(e, word, operation)
}

fn to_integer<E: Emit>(e: &mut E, word: u32, rounding: Rounding, signed: bool) -> Outcome<E> {
    let Some(shape) = two_shape(word) else {
        return undefined(e, word);
    };
    let operation = Operation::FloatToFixed {
        signed,
        rounding,
        fraction: 0,
        shape,
    };
    apply_one(e, word, operation)
}

fn from_integer<E: Emit>(e: &mut E, word: u32, signed: bool) -> Outcome<E> {
    let Some(shape) = two_shape(word) else {
        return undefined(e, word);
    };
    let operation = Operation::FixedToFloat {
        signed,
        fraction: 0,
        shape,
    };
    apply_one(e, word, operation)
}

/// FCVTL.
fn widen<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let from = if bit(word, 22) { Lane::S } else { Lane::H };
    let high = q(word);
    apply_one(e, word, Operation::FloatWiden { high, from })
}

/// FCVTN, FCVTXN.
fn narrow<E: Emit>(e: &mut E, word: u32, odd: bool) -> Outcome<E> {
    check_enabled!(e);
    let to = if bit(word, 22) { Lane::S } else { Lane::H };
    let shape = if is_scalar(word) {
        Shape::scalar(to)
    } else {
        Shape::vector(to, false)
    };
    let n = e.v(rn(word));
    let result = e.vector(Operation::FloatNarrow { odd, shape }, [n, n, n]);
    set_narrowed(e, word, result);
    Ok(Flow::Next)
}

fn reduce<E: Emit>(e: &mut E, word: u32, operation: FloatBinary, lane: Lane) -> Outcome<E> {
    let shape = Shape::vector(lane, q(word));
    apply_one(e, word, Operation::FloatReduce(operation, shape))
}

/// Pairwise instructions of scalars: two lanes to one.
fn pair<E: Emit>(e: &mut E, word: u32, operation: FloatBinary, half: bool) -> Outcome<E> {
    let lane = float_lane(word, half);
    let shape = Shape {
        lane,
        bytes: 2 * lane.bytes() as u8,
    };
    apply_one(e, word, Operation::FloatReduce(operation, shape))
}
