//! Advanced SIMD on integers: Arm DDI 0487, C4.1.90.

use crate::emit::{Emit, Flow, Outcome};
use crate::vector::{
    IntegerBinary, IntegerTernary, IntegerUnary, Lane, Logic, Narrowing, Operation, Reduction,
    Shape, Shift,
};

use super::vector::{
    B, BH, BHS, BHSD, D, HS, Lanes, S, Zero, apply_one, apply_three, apply_two, check_enabled,
    duplicate, element, integer_shape, q, rows, set_narrowed,
};
use super::{bits, rd, rm, rn, undefined};

rows! {
    shadd_vector => three(IntegerBinary::SHAdd, BHS);
    uhadd_vector => three(IntegerBinary::UHAdd, BHS);
    sqadd_vector => three(IntegerBinary::SQAdd, BHSD);
    sqadd_scalar => three(IntegerBinary::SQAdd, BHSD);
    uqadd_vector => three(IntegerBinary::UQAdd, BHSD);
    uqadd_scalar => three(IntegerBinary::UQAdd, BHSD);
    srhadd_vector => three(IntegerBinary::SRHAdd, BHS);
    urhadd_vector => three(IntegerBinary::URHAdd, BHS);
    shsub_vector => three(IntegerBinary::SHSub, BHS);
    uhsub_vector => three(IntegerBinary::UHSub, BHS);
    sqsub_vector => three(IntegerBinary::SQSub, BHSD);
    sqsub_scalar => three(IntegerBinary::SQSub, BHSD);
    uqsub_vector => three(IntegerBinary::UQSub, BHSD);
    uqsub_scalar => three(IntegerBinary::UQSub, BHSD);
    cmgt_vector => three(IntegerBinary::CmGt, BHSD);
    cmgt_scalar => three(IntegerBinary::CmGt, D);
    cmhi_vector => three(IntegerBinary::CmHi, BHSD);
    cmhi_scalar => three(IntegerBinary::CmHi, D);
    cmge_vector => three(IntegerBinary::CmGe, BHSD);
    cmge_scalar => three(IntegerBinary::CmGe, D);
    cmhs_vector => three(IntegerBinary::CmHs, BHSD);
    cmhs_scalar => three(IntegerBinary::CmHs, D);
    sshl_vector => three(IntegerBinary::SShl, BHSD);
    sshl_scalar => three(IntegerBinary::SShl, D);
    ushl_vector => three(IntegerBinary::UShl, BHSD);
    ushl_scalar => three(IntegerBinary::UShl, D);
    sqshl_vector => three(IntegerBinary::SQShl, BHSD);
    sqshl_scalar => three(IntegerBinary::SQShl, BHSD);
    uqshl_vector => three(IntegerBinary::UQShl, BHSD);
    uqshl_scalar => three(IntegerBinary::UQShl, BHSD);
    srshl_vector => three(IntegerBinary::SRShl, BHSD);
    srshl_scalar => three(IntegerBinary::SRShl, D);
    urshl_vector => three(IntegerBinary::URShl, BHSD);
    urshl_scalar => three(IntegerBinary::URShl, D);
    sqrshl_vector => three(IntegerBinary::SQRShl, BHSD);
    sqrshl_scalar => three(IntegerBinary::SQRShl, BHSD);
    uqrshl_vector => three(IntegerBinary::UQRShl, BHSD);
    uqrshl_scalar => three(IntegerBinary::UQRShl, BHSD);
    smax_vector => three(IntegerBinary::SMax, BHS);
    umax_vector => three(IntegerBinary::UMax, BHS);
    smin_vector => three(IntegerBinary::SMin, BHS);
    umin_vector => three(IntegerBinary::UMin, BHS);
    sabd_vector => three(IntegerBinary::SAbd, BHS);
    uabd_vector => three(IntegerBinary::UAbd, BHS);
    add_vector => three(IntegerBinary::Add, BHSD);
    add_scalar => three(IntegerBinary::Add, D);
    sub_vector => three(IntegerBinary::Sub, BHSD);
    sub_scalar => three(IntegerBinary::Sub, D);
    cmtst_vector => three(IntegerBinary::CmTst, BHSD);
    cmtst_scalar => three(IntegerBinary::CmTst, D);
    cmeq_vector => three(IntegerBinary::CmEq, BHSD);
    cmeq_scalar => three(IntegerBinary::CmEq, D);
    mul_vector => three(IntegerBinary::Mul, BHS);
    pmul_vector => three(IntegerBinary::PMul, B);
    sqdmulh_vector => three(IntegerBinary::SQDMulH, HS);
    sqdmulh_scalar => three(IntegerBinary::SQDMulH, HS);
    sqrdmulh_vector => three(IntegerBinary::SQRDMulH, HS);
    sqrdmulh_scalar => three(IntegerBinary::SQRDMulH, HS);
    mla_vector => accumulate(IntegerTernary::Mla, BHS);
    mls_vector => accumulate(IntegerTernary::Mls, BHS);
    saba_vector => accumulate(IntegerTernary::SAba, BHS);
    uaba_vector => accumulate(IntegerTernary::UAba, BHS);
    smaxp_vector => pairwise(IntegerBinary::SMax, BHS);
    umaxp_vector => pairwise(IntegerBinary::UMax, BHS);
    sminp_vector => pairwise(IntegerBinary::SMin, BHS);
    uminp_vector => pairwise(IntegerBinary::UMin, BHS);
    addp_vector => pairwise(IntegerBinary::Add, BHSD);
    and_vector => logic(Logic::And);
    bic_vector => logic(Logic::Bic);
    orr_vector => logic(Logic::Orr);
    orn_vector => logic(Logic::Orn);
    eor_vector => logic(Logic::Eor);
    bsl_vector => bit_select(SelectBy::Destination);
    bit_vector => bit_select(SelectBy::Second);
    bif_vector => bit_select(SelectBy::NotSecond);
    sqrdmlah_vector, sqrdmlah_scalar => accumulate(IntegerTernary::SQRDMlaH, HS);
    sqrdmlsh_vector, sqrdmlsh_scalar => accumulate(IntegerTernary::SQRDMlsH, HS);
    sdot_vector => accumulate(IntegerTernary::SDot, S);
    udot_vector => accumulate(IntegerTernary::UDot, S);
    rev64_vector => two(IntegerUnary::Rev64, BHS);
    rev32_vector => two(IntegerUnary::Rev32, BH);
    rev16_vector => two(IntegerUnary::Rev16, B);
    saddlp_vector => add_long_pairwise(true, false);
    uaddlp_vector => add_long_pairwise(false, false);
    sadalp_vector => add_long_pairwise(true, true);
    uadalp_vector => add_long_pairwise(false, true);
    suqadd_vector => saturating_accumulate(IntegerBinary::SUQAdd);
    suqadd_scalar => saturating_accumulate(IntegerBinary::SUQAdd);
    usqadd_vector => saturating_accumulate(IntegerBinary::USQAdd);
    usqadd_scalar => saturating_accumulate(IntegerBinary::USQAdd);
    cls_vector => two(IntegerUnary::Cls, BHS);
    clz_vector => two(IntegerUnary::Clz, BHS);
    cnt_vector => two(IntegerUnary::Cnt, B);
    not_vector => two(IntegerUnary::Not, B);
    rbit_vector => reverse_bits();
    sqabs_vector => two(IntegerUnary::SQAbs, BHSD);
    sqabs_scalar => two(IntegerUnary::SQAbs, BHSD);
    sqneg_vector => two(IntegerUnary::SQNeg, BHSD);
    sqneg_scalar => two(IntegerUnary::SQNeg, BHSD);
    cmgt_zero_vector => with_zero(Zero::Second, IntegerBinary::CmGt, BHSD);
    cmgt_zero_scalar => with_zero(Zero::Second, IntegerBinary::CmGt, D);
    cmeq_zero_vector => with_zero(Zero::Second, IntegerBinary::CmEq, BHSD);
    cmeq_zero_scalar => with_zero(Zero::Second, IntegerBinary::CmEq, D);
    cmlt_zero_vector => with_zero(Zero::First, IntegerBinary::CmGt, BHSD);
    cmlt_zero_scalar => with_zero(Zero::First, IntegerBinary::CmGt, D);
    cmge_zero_vector => with_zero(Zero::Second, IntegerBinary::CmGe, BHSD);
    cmge_zero_scalar => with_zero(Zero::Second, IntegerBinary::CmGe, D);
    cmle_zero_vector => with_zero(Zero::First, IntegerBinary::CmGe, BHSD);
    cmle_zero_scalar => with_zero(Zero::First, IntegerBinary::CmGe, D);
    abs_vector => two(IntegerUnary::Abs, BHSD);
    abs_scalar => two(IntegerUnary::Abs, D);
    neg_vector => two(IntegerUnary::Neg, BHSD);
    neg_scalar => two(IntegerUnary::Neg, D);
    xtn_vector => narrow(Narrowing::Truncate);
    sqxtun_vector => narrow(Narrowing::SQU);
    sqxtun_scalar => narrow(Narrowing::SQU);
    sqxtn_vector => narrow(Narrowing::SQ);
    sqxtn_scalar => narrow(Narrowing::SQ);
    uqxtn_vector => narrow(Narrowing::UQ);
    uqxtn_scalar => narrow(Narrowing::UQ);
    shll_vector => shift_left_long_by_size();
    urecpe_vector => two(IntegerUnary::URecpE, S);
    ursqrte_vector => two(IntegerUnary::URSqrtE, S);
    saddlv => reduce(Reduction::SAddL);
    uaddlv => reduce(Reduction::UAddL);
    smaxv => reduce(Reduction::SMax);
    umaxv => reduce(Reduction::UMax);
    sminv => reduce(Reduction::SMin);
    uminv => reduce(Reduction::UMin);
    addv => reduce(Reduction::Add);
    addp_scalar => add_pair();
    mul_element => three_by_element(IntegerBinary::Mul);
    sqdmulh_element, sqdmulh_element_scalar => three_by_element(IntegerBinary::SQDMulH);
    sqrdmulh_element, sqrdmulh_element_scalar => three_by_element(IntegerBinary::SQRDMulH);
    mla_element => accumulate_by_element(IntegerTernary::Mla);
    mls_element => accumulate_by_element(IntegerTernary::Mls);
    sqrdmlah_element, sqrdmlah_element_scalar => accumulate_by_element(IntegerTernary::SQRDMlaH);
    sqrdmlsh_element, sqrdmlsh_element_scalar => accumulate_by_element(IntegerTernary::SQRDMlsH);
    sdot_element => dot_by_element(IntegerTernary::SDot);
    udot_element => dot_by_element(IntegerTernary::UDot);
}

fn three<E: Emit>(e: &mut E, word: u32, operation: IntegerBinary, lanes: Lanes) -> Outcome<E> {
    let Some(shape) = integer_shape(word, lanes) else {
        return undefined(e, word);
    };
    apply_two(e, word, Operation::Integer(operation, shape))
}

fn accumulate<E: Emit>(
    e: &mut E,
    word: u32,
    operation: IntegerTernary,
    lanes: Lanes,
) -> Outcome<E> {
    let Some(shape) = integer_shape(word, lanes) else {
        return undefined(e, word);
    };
    apply_three(e, word, Operation::IntegerAccumulate(operation, shape))
}

fn pairwise<E: Emit>(e: &mut E, word: u32, operation: IntegerBinary, lanes: Lanes) -> Outcome<E> {
    let Some(shape) = integer_shape(word, lanes) else {
        return undefined(e, word);
    };
    apply_two(e, word, Operation::Pairwise(operation, shape))
}

fn logic<E: Emit>(e: &mut E, word: u32, operation: Logic) -> Outcome<E> {
    let shape = Shape::vector(Lane::B, q(word));
    apply_two(e, word, Operation::Logic(operation, shape))
}

/// Which register's bits choose.
#[derive(Clone, Copy)]
enum SelectBy {
    /// BSL: Vd chooses between Vn and Vm.
    Destination,
    /// BIT: Vm chooses between Vn and Vd.
    Second,
    /// BIF: Vm chooses between Vd and Vn.
    NotSecond,
}

fn bit_select<E: Emit>(e: &mut E, word: u32, by: SelectBy) -> Outcome<E> {
    check_enabled!(e);
    let (n, m, d) = (e.v(rn(word)), e.v(rm(word)), e.v(rd(word)));
    let operands = match by {
        SelectBy::Destination => [d, n, m],
        SelectBy::Second => [m, n, d],
        SelectBy::NotSecond => [m, d, n],
    };
    let result = e.vector(Operation::Select(Shape::vector(Lane::B, q(word))), operands);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn two<E: Emit>(e: &mut E, word: u32, operation: IntegerUnary, lanes: Lanes) -> Outcome<E> {
    let Some(shape) = integer_shape(word, lanes) else {
        return undefined(e, word);
    };
    apply_one(e, word, Operation::IntegerUnary(operation, shape))
}

/// RBIT has a `size` of its own.
fn reverse_bits<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let shape = Shape::vector(Lane::B, q(word));
    apply_one(e, word, Operation::IntegerUnary(IntegerUnary::RBit, shape))
}

fn add_long_pairwise<E: Emit>(e: &mut E, word: u32, signed: bool, accumulate: bool) -> Outcome<E> {
    let Some(shape) = integer_shape(word, BHS) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let n = e.v(rn(word));
    let mut result = e.vector(Operation::AddLongPairwise { signed, shape }, [n, n, n]);
    if accumulate {
        let d = e.v(rd(word));
        let wider = Shape::vector(shape.lane.wider(), q(word));
        let add = Operation::Integer(IntegerBinary::Add, wider);
        result = e.vector(add, [d, result, result]);
    }
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// SUQADD, USQADD: Vd and Vn.
fn saturating_accumulate<E: Emit>(e: &mut E, word: u32, operation: IntegerBinary) -> Outcome<E> {
    let Some(shape) = integer_shape(word, BHSD) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let (d, n) = (e.v(rd(word)), e.v(rn(word)));
    let result = e.vector(Operation::Integer(operation, shape), [d, n, n]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn with_zero<E: Emit>(
    e: &mut E,
    word: u32,
    zero: Zero,
    operation: IntegerBinary,
    lanes: Lanes,
) -> Outcome<E> {
    let Some(shape) = integer_shape(word, lanes) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let n = e.v(rn(word));
    let nothing = e.vector_constant(0);
    let operands = match zero {
        Zero::First => [nothing, n, n],
        Zero::Second => [n, nothing, nothing],
    };
    let result = e.vector(Operation::Integer(operation, shape), operands);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// `size` is the result's.
fn narrow<E: Emit>(e: &mut E, word: u32, how: Narrowing) -> Outcome<E> {
    let Some(shape) = integer_shape(word, BHS) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let shape = Shape {
        bytes: shape.bytes.min(8),
        ..shape
    };
    let n = e.v(rn(word));
    let operation = Operation::Narrow {
        how,
        round: false,
        shift: 0,
        shape,
    };
    let result = e.vector(operation, [n, n, n]);
    set_narrowed(e, word, result);
    Ok(Flow::Next)
}

/// SHLL.
fn shift_left_long_by_size<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(shape) = integer_shape(word, BHS) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let n = e.v(rn(word));
    let widen = Operation::Widen {
        signed: false,
        high: q(word),
        lane: shape.lane,
    };
    let wide = e.vector(widen, [n, n, n]);
    let shift = Operation::Shift(
        Shift::Shl,
        Shape::vector(shape.lane.wider(), true),
        shape.lane.bits() as u8,
    );
    let result = e.vector(shift, [wide, wide, wide]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn reduce<E: Emit>(e: &mut E, word: u32, reduction: Reduction) -> Outcome<E> {
    match integer_shape(word, BHS) {
        // 2S is reserved.
        Some(shape) if shape.lanes() > 2 => apply_one(e, word, Operation::Reduce(reduction, shape)),
        _ => undefined(e, word),
    }
}

/// ADDP of a scalar.
fn add_pair<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let shape = Shape::vector(Lane::D, true);
    apply_one(e, word, Operation::Reduce(Reduction::Add, shape))
}

fn three_by_element<E: Emit>(e: &mut E, word: u32, operation: IntegerBinary) -> Outcome<E> {
    let Some(shape) = integer_shape(word, HS) else {
        return undefined(e, word);
    };
    let Some(element) = element(word, shape.lane) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let n = e.v(rn(word));
    let m = duplicate(e, element, shape);
    let result = e.vector(Operation::Integer(operation, shape), [n, m, m]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn accumulate_by_element<E: Emit>(e: &mut E, word: u32, operation: IntegerTernary) -> Outcome<E> {
    let Some(shape) = integer_shape(word, HS) else {
        return undefined(e, word);
    };
    let Some(element) = element(word, shape.lane) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let (n, d) = (e.v(rn(word)), e.v(rd(word)));
    let m = duplicate(e, element, shape);
    let result = e.vector(Operation::IntegerAccumulate(operation, shape), [n, m, d]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// An element of a dot product is four bytes.
fn dot_by_element<E: Emit>(e: &mut E, word: u32, operation: IntegerTernary) -> Outcome<E> {
    check_enabled!(e);
    let shape = Shape::vector(Lane::S, q(word));
    let index = (bits(word, 11, 11) << 1 | bits(word, 21, 21)) as u8;
    let (n, d) = (e.v(rn(word)), e.v(rd(word)));
    let m = duplicate(e, (rm(word), index), shape);
    let result = e.vector(Operation::IntegerAccumulate(operation, shape), [n, m, d]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}
