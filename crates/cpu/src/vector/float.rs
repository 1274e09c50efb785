//! Floating-point operations, lane by lane.

use super::{FloatBinary, FloatUnary, Lane, Shape, permute};
use crate::float::{self, Comparison, Double, Format, Half, Rounding, Single};

/// Calls a function for the format of a lane; lanes of 8 bits have none and are taken as half precision.
macro_rules! for_format {
    ($lane:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $lane {
            Lane::B | Lane::H => $function::<Half>($($argument),*),
            Lane::S => $function::<Single>($($argument),*),
            Lane::D => $function::<Double>($($argument),*),
        }
    };
}

/// Each lane of the shape through `f`.
#[inline(always)]
fn map(shape: Shape, a: u128, mut f: impl FnMut(u64) -> u64) -> u128 {
    if shape.lanes() == 1 {
        return f(permute::lane(shape.lane, 0, a)).into();
    }
    let mut result = 0;
    for i in 0..shape.lanes() {
        let value = f(permute::lane(shape.lane, i, a));
        result |= u128::from(value) << (i * shape.lane.bits());
    }
    result
}

#[inline(always)]
fn zip(shape: Shape, a: u128, b: u128, mut f: impl FnMut(u64, u64) -> u64) -> u128 {
    if shape.lanes() == 1 {
        let (x, y) = (
            permute::lane(shape.lane, 0, a),
            permute::lane(shape.lane, 0, b),
        );
        return f(x, y).into();
    }
    let mut result = 0;
    for i in 0..shape.lanes() {
        let value = f(
            permute::lane(shape.lane, i, a),
            permute::lane(shape.lane, i, b),
        );
        result |= u128::from(value) << (i * shape.lane.bits());
    }
    result
}

fn truth<F: Format>(condition: bool) -> u64 {
    if condition { F::MASK } else { 0 }
}

#[inline]
fn lane_binary<F: Format>(
    operation: FloatBinary,
    a: u64,
    b: u64,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    use Comparison::{Equal, Greater};
    match operation {
        FloatBinary::Add => float::add::<F>(a, b, fpcr, fpsr),
        FloatBinary::Sub => float::sub::<F>(a, b, fpcr, fpsr),
        FloatBinary::Mul => float::mul::<F>(a, b, fpcr, fpsr),
        FloatBinary::NMul => float::neg::<F>(float::mul::<F>(a, b, fpcr, fpsr)),
        FloatBinary::MulX => float::mulx::<F>(a, b, fpcr, fpsr),
        FloatBinary::Div => float::div::<F>(a, b, fpcr, fpsr),
        FloatBinary::Max => float::max::<F>(a, b, fpcr, fpsr),
        FloatBinary::Min => float::min::<F>(a, b, fpcr, fpsr),
        FloatBinary::MaxNm => float::max_num::<F>(a, b, fpcr, fpsr),
        FloatBinary::MinNm => float::min_num::<F>(a, b, fpcr, fpsr),
        FloatBinary::Abd => float::abd::<F>(a, b, fpcr, fpsr),
        FloatBinary::RecpS => float::recip_step::<F>(a, b, fpcr, fpsr),
        FloatBinary::RSqrtS => float::rsqrt_step::<F>(a, b, fpcr, fpsr),
        FloatBinary::CmEq => truth::<F>(float::compare::<F>(a, b, false, fpcr, fpsr) == Equal),
        FloatBinary::CmGe => truth::<F>(matches!(
            float::compare::<F>(a, b, true, fpcr, fpsr),
            Equal | Greater
        )),
        FloatBinary::CmGt => truth::<F>(float::compare::<F>(a, b, true, fpcr, fpsr) == Greater),
        FloatBinary::AcGe => {
            let (a, b) = (float::abs::<F>(a), float::abs::<F>(b));
            truth::<F>(matches!(
                float::compare::<F>(a, b, true, fpcr, fpsr),
                Equal | Greater
            ))
        }
        FloatBinary::AcGt => {
            let (a, b) = (float::abs::<F>(a), float::abs::<F>(b));
            truth::<F>(float::compare::<F>(a, b, true, fpcr, fpsr) == Greater)
        }
    }
}

#[inline(always)]
fn vector_binary<F: Format>(
    operation: FloatBinary,
    shape: Shape,
    a: u128,
    b: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    zip(shape, a, b, |x, y| {
        lane_binary::<F>(operation, x, y, fpcr, fpsr)
    })
}

pub fn binary(
    operation: FloatBinary,
    shape: Shape,
    a: u128,
    b: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    for_format!(
        shape.lane,
        vector_binary(operation, shape, a, b, fpcr, fpsr)
    )
}

fn vector_unary<F: Format>(
    operation: FloatUnary,
    shape: Shape,
    a: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    map(shape, a, |x| match operation {
        FloatUnary::Abs => float::abs::<F>(x),
        FloatUnary::Neg => float::neg::<F>(x),
        FloatUnary::Sqrt => float::sqrt::<F>(x, fpcr, fpsr),
        FloatUnary::RecpE => float::recip_estimate::<F>(x, fpcr, fpsr),
        FloatUnary::RecpX => float::recip_exponent::<F>(x, fpcr, fpsr),
        FloatUnary::RSqrtE => float::rsqrt_estimate::<F>(x, fpcr, fpsr),
    })
}

pub fn unary(operation: FloatUnary, shape: Shape, a: u128, fpcr: u32, fpsr: &mut u32) -> u128 {
    for_format!(shape.lane, vector_unary(operation, shape, a, fpcr, fpsr))
}

#[expect(
    clippy::too_many_arguments,
    reason = "an operation's parts, operands and controls"
)]
fn vector_multiply_add<F: Format>(
    negate_product: bool,
    negate_addend: bool,
    shape: Shape,
    a: u128,
    b: u128,
    c: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    let mut result = 0;
    for i in 0..shape.lanes() {
        let lane = |v| permute::lane(shape.lane, i, v);
        let (mut x, mut z) = (lane(a), lane(c));
        if negate_product {
            x = float::neg::<F>(x);
        }
        if negate_addend {
            z = float::neg::<F>(z);
        }
        let value = float::mul_add::<F>(z, x, lane(b), fpcr, fpsr);
        result |= u128::from(value) << (i * shape.lane.bits());
    }
    result
}

#[expect(
    clippy::too_many_arguments,
    reason = "an operation's parts, operands and controls"
)]
pub fn multiply_add(
    negate_product: bool,
    negate_addend: bool,
    shape: Shape,
    a: u128,
    b: u128,
    c: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    for_format!(
        shape.lane,
        vector_multiply_add(negate_product, negate_addend, shape, a, b, c, fpcr, fpsr)
    )
}

/// Halves against each other until one lane is left.
pub fn reduce(operation: FloatBinary, shape: Shape, a: u128, fpcr: u32, fpsr: &mut u32) -> u128 {
    let mut shape = shape;
    let mut values = a & shape.mask();
    while shape.lanes() > 1 {
        // Reduce() splits the vector in halves down to single lanes: neighbours are combined first.
        let (even, odd) = permute::pairs(shape, values, 0);
        shape.bytes /= 2;
        values = binary(operation, shape, even, odd, fpcr, fpsr);
    }
    values
}

fn vector_round<F: Format>(
    rounding: Rounding,
    exact: bool,
    shape: Shape,
    a: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    map(shape, a, |x| {
        float::round_to_integral::<F>(x, rounding, exact, fpcr, fpsr)
    })
}

pub fn round(
    rounding: Rounding,
    exact: bool,
    shape: Shape,
    a: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    for_format!(
        shape.lane,
        vector_round(rounding, exact, shape, a, fpcr, fpsr)
    )
}

fn vector_to_fixed<F: Format>(
    signed: bool,
    rounding: Rounding,
    fraction: u32,
    shape: Shape,
    a: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    map(shape, a, |x| {
        float::to_fixed::<F>(x, F::BITS, signed, fraction, rounding, fpcr, fpsr)
    })
}

pub fn to_fixed(
    signed: bool,
    rounding: Rounding,
    fraction: u32,
    shape: Shape,
    a: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    for_format!(
        shape.lane,
        vector_to_fixed(signed, rounding, fraction, shape, a, fpcr, fpsr)
    )
}

fn vector_from_fixed<F: Format>(
    signed: bool,
    fraction: u32,
    shape: Shape,
    a: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    let rounding = Rounding::from_fpcr(fpcr);
    map(shape, a, |x| {
        float::fixed_to_float::<F>(x, F::BITS, signed, fraction, rounding, fpcr, fpsr)
    })
}

pub fn from_fixed(
    signed: bool,
    fraction: u32,
    shape: Shape,
    a: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    for_format!(
        shape.lane,
        vector_from_fixed(signed, fraction, shape, a, fpcr, fpsr)
    )
}

#[expect(
    clippy::too_many_arguments,
    reason = "an operation's parts, operands and controls"
)]
pub fn scalar_to_fixed(
    from: Lane,
    wide: bool,
    signed: bool,
    rounding: Rounding,
    fraction: u32,
    a: u128,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    use float::to_fixed;
    let a = permute::lane(from, 0, a);
    let bits = if wide { 64 } else { 32 };
    for_format!(
        from,
        to_fixed(a, bits, signed, fraction, rounding, fpcr, fpsr)
    )
}

pub fn scalar_from_fixed(
    to: Lane,
    wide: bool,
    signed: bool,
    fraction: u32,
    a: u64,
    fpcr: u32,
    fpsr: &mut u32,
) -> u128 {
    use float::fixed_to_float;
    let bits = if wide { 64 } else { 32 };
    let rounding = Rounding::from_fpcr(fpcr);
    for_format!(
        to,
        fixed_to_float(a, bits, signed, fraction, rounding, fpcr, fpsr)
    )
    .into()
}

fn lane_convert(
    from: Lane,
    to: Lane,
    a: u64,
    rounding: Rounding,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    match (from, to) {
        (Lane::H, Lane::S) => float::convert::<Half, Single>(a, rounding, fpcr, fpsr),
        (Lane::H, Lane::D) => float::convert::<Half, Double>(a, rounding, fpcr, fpsr),
        (Lane::S, Lane::H) => float::convert::<Single, Half>(a, rounding, fpcr, fpsr),
        (Lane::S, Lane::D) => float::convert::<Single, Double>(a, rounding, fpcr, fpsr),
        (Lane::D, Lane::H) => float::convert::<Double, Half>(a, rounding, fpcr, fpsr),
        (Lane::D, Lane::S) => float::convert::<Double, Single>(a, rounding, fpcr, fpsr),
        _ => a,
    }
}

pub fn convert(from: Lane, to: Lane, a: u128, fpcr: u32, fpsr: &mut u32) -> u128 {
    let a = permute::lane(from, 0, a);
    lane_convert(from, to, a, Rounding::from_fpcr(fpcr), fpcr, fpsr).into()
}

pub fn widen(high: bool, from: Lane, a: u128, fpcr: u32, fpsr: &mut u32) -> u128 {
    let a = if high { a >> 64 } else { a };
    let rounding = Rounding::from_fpcr(fpcr);
    let mut result = 0;
    for i in 0..8 / from.bytes() {
        let value = permute::lane(from, i, a);
        let value = lane_convert(from, from.wider(), value, rounding, fpcr, fpsr);
        result = permute::insert(from.wider(), i, result, value);
    }
    result
}

pub fn narrow(odd: bool, shape: Shape, a: u128, fpcr: u32, fpsr: &mut u32) -> u128 {
    let rounding = if odd {
        Rounding::Odd
    } else {
        Rounding::from_fpcr(fpcr)
    };
    let to = shape.lane;
    let mut result = 0;
    for i in 0..shape.lanes() {
        let value = permute::lane(to.wider(), i, a);
        let value = lane_convert(to.wider(), to, value, rounding, fpcr, fpsr);
        result = permute::insert(to, i, result, value);
    }
    result
}

/// FPCompare's NZCV.
pub fn compare(lane: Lane, signaling: bool, a: u128, b: u128, fpcr: u32, fpsr: &mut u32) -> u32 {
    use float::compare;
    let (a, b) = (permute::lane(lane, 0, a), permute::lane(lane, 0, b));
    let flags = match for_format!(lane, compare(a, b, signaling, fpcr, fpsr)) {
        Comparison::Less => 0b1000,
        Comparison::Equal => 0b0110,
        Comparison::Greater => 0b0010,
        Comparison::Unordered => 0b0011,
    };
    flags << 28
}
