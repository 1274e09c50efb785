//! Sums, products, quotients, roots, minima, comparisons.

use std::cmp::Ordering;

use super::{
    Class, DZC, Format, IOC, Rounding, Unpacked, abs, invalid, neg, process_nan, process_nans,
    round, shift_right_sticky, shift_right_sticky_long, signed, unpack,
};

/// FPAdd.
#[inline]
pub fn add<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    sum::<F>(a, b, false, fpcr, fpsr)
}

/// FPSub.
#[inline]
pub fn sub<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    sum::<F>(a, b, true, fpcr, fpsr)
}

/// FABD: the magnitude of the difference.
#[inline]
pub fn abd<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    abs::<F>(sub::<F>(a, b, fpcr, fpsr))
}

/// The sign of a sum that is exactly zero.
#[inline(always)]
fn zero_sign(rounding: Rounding) -> bool {
    rounding == Rounding::MinusInfinity
}

#[inline(always)]
fn sum<F: Format>(a: u64, b: u64, subtract: bool, fpcr: u32, fpsr: &mut u32) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    let mut y = unpack::<F>(b, fpcr, fpsr);
    let rounding = Rounding::from_fpcr(fpcr);
    if let Some(nan) = process_nans::<F>(&[(a, x), (b, y)], fpcr, fpsr) {
        return nan;
    }
    y.sign ^= subtract;
    match (x.class, y.class) {
        (Class::Infinity, Class::Infinity) if x.sign != y.sign => invalid::<F>(fpsr),
        (Class::Infinity, _) => signed::<F>(x.sign, F::INFINITY),
        (_, Class::Infinity) => signed::<F>(y.sign, F::INFINITY),
        (Class::Zero, Class::Zero) if x.sign == y.sign => signed::<F>(x.sign, 0),
        (Class::Zero, Class::Zero) => signed::<F>(zero_sign(rounding), 0),
        (Class::Zero, _) => round::<F>(y.sign, y.exponent, y.significand, rounding, fpcr, fpsr),
        (_, Class::Zero) => round::<F>(x.sign, x.exponent, x.significand, rounding, fpcr, fpsr),
        _ => {
            let (large, small) = if (x.exponent, x.significand) >= (y.exponent, y.significand) {
                (x, y)
            } else {
                (y, x)
            };
            let distance = (large.exponent - small.exponent) as u32;
            // One bit for the carry; at least ten below the last bit stay.
            let high = large.significand >> 1;
            let low = shift_right_sticky(small.significand >> 1, distance);
            let total = if x.sign == y.sign {
                high + low
            } else {
                high - low
            };
            if total == 0 {
                return signed::<F>(zero_sign(rounding), 0);
            }
            let zeros = total.leading_zeros();
            round::<F>(
                large.sign,
                large.exponent + 1 - zeros as i32,
                total << zeros,
                rounding,
                fpcr,
                fpsr,
            )
        }
    }
}

#[inline(always)]
fn product<F: Format>(x: Unpacked, y: Unpacked, fpcr: u32, fpsr: &mut u32) -> u64 {
    let wide = u128::from(x.significand) * u128::from(y.significand);
    let zeros = wide.leading_zeros();
    let wide = wide << zeros;
    let significand = (wide >> 64) as u64 | u64::from(wide as u64 != 0);
    round::<F>(
        x.sign != y.sign,
        x.exponent + y.exponent + 1 - zeros as i32,
        significand,
        Rounding::from_fpcr(fpcr),
        fpcr,
        fpsr,
    )
}

/// FPMul.
#[inline]
pub fn mul<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    multiply::<F>(a, b, false, fpcr, fpsr)
}

/// FPMulX: zero times infinity is two.
#[inline]
pub fn mulx<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    multiply::<F>(a, b, true, fpcr, fpsr)
}

fn two<F: Format>() -> u64 {
    (F::BIAS as u64 + 1) << F::FRACTION
}

fn one_and_half<F: Format>() -> u64 {
    (F::BIAS as u64) << F::FRACTION | F::QUIET
}

#[inline(always)]
fn multiply<F: Format>(a: u64, b: u64, extended: bool, fpcr: u32, fpsr: &mut u32) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    let y = unpack::<F>(b, fpcr, fpsr);
    if x.class == Class::Finite && y.class == Class::Finite {
        return product::<F>(x, y, fpcr, fpsr);
    }
    if let Some(nan) = process_nans::<F>(&[(a, x), (b, y)], fpcr, fpsr) {
        return nan;
    }
    let sign = x.sign != y.sign;
    if (x.is_infinity() && y.is_zero()) || (x.is_zero() && y.is_infinity()) {
        if extended {
            signed::<F>(sign, two::<F>())
        } else {
            invalid::<F>(fpsr)
        }
    } else if x.is_infinity() || y.is_infinity() {
        signed::<F>(sign, F::INFINITY)
    } else {
        signed::<F>(sign, 0)
    }
}

/// FPDiv.
pub fn div<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    let y = unpack::<F>(b, fpcr, fpsr);
    if let Some(nan) = process_nans::<F>(&[(a, x), (b, y)], fpcr, fpsr) {
        return nan;
    }
    let sign = x.sign != y.sign;
    match (x.class, y.class) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => invalid::<F>(fpsr),
        (Class::Infinity, _) => signed::<F>(sign, F::INFINITY),
        (Class::Zero, _) | (_, Class::Infinity) => signed::<F>(sign, 0),
        (_, Class::Zero) => {
            *fpsr |= DZC;
            signed::<F>(sign, F::INFINITY)
        }
        _ => {
            let (quotient, inexact, exponent) = if F::BITS <= 32 {
                // 24 bits by 24: a quotient of 39 or 40 bits.
                let divisor = y.significand >> 40;
                let dividend = x.significand >> 1;
                (
                    dividend / divisor,
                    !dividend.is_multiple_of(divisor),
                    x.exponent - y.exponent + 24,
                )
            } else {
                let dividend = u128::from(x.significand) << 63;
                let divisor = u128::from(y.significand);
                let quotient = (dividend / divisor) as u64;
                let inexact = u128::from(quotient) * divisor != dividend;
                (quotient, inexact, x.exponent - y.exponent)
            };
            let zeros = quotient.leading_zeros();
            let significand = quotient << zeros;
            round::<F>(
                sign,
                // quotient = ratio × 2^63 (double) or × 2^39 (others).
                exponent - zeros as i32,
                significand | u64::from(inexact),
                Rounding::from_fpcr(fpcr),
                fpcr,
                fpsr,
            )
        }
    }
}

/// FPSqrt.
pub fn sqrt<F: Format>(a: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    match x.class {
        Class::Quiet | Class::Signaling => process_nan::<F>(a, x.class, fpcr, fpsr),
        Class::Zero => signed::<F>(x.sign, 0),
        _ if x.sign => invalid::<F>(fpsr),
        Class::Infinity => F::INFINITY,
        Class::Finite => {
            // significand × 2^63 or 2^64 is the square of a number of 63.5 to 64 bits; exponents halve.
            let odd = x.exponent & 1;
            let (root, inexact) = if F::BITS <= 32 {
                let square = x.significand >> (1 - odd);
                let root = square.isqrt();
                (root << 32, root * root != square)
            } else {
                let square = u128::from(x.significand) << (63 + odd);
                let root = square.isqrt() as u64;
                (root, u128::from(root) * u128::from(root) != square)
            };
            let zeros = root.leading_zeros();
            round::<F>(
                false,
                (x.exponent - odd) / 2 - zeros as i32,
                root << zeros | u64::from(inexact),
                Rounding::from_fpcr(fpcr),
                fpcr,
                fpsr,
            )
        }
    }
}

/// x × y + c × 2^`scale`, all finite and x × y not zero, rounded once, with the whole scaled by 2^−`halved`.
#[inline(always)]
fn fused<F: Format>(
    x: Unpacked,
    y: Unpacked,
    c: Unpacked,
    halved: i32,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    let rounding = Rounding::from_fpcr(fpcr);
    let wide = u128::from(x.significand) * u128::from(y.significand);
    // Leading bit at 126, one for the carry; exact, since significands have 53 bits at most.
    let zeros = wide.leading_zeros();
    let mut p = wide << zeros >> 1;
    let mut p_exponent = x.exponent + y.exponent + 1 - zeros as i32;
    let p_sign = x.sign != y.sign;
    let mut sign = p_sign;
    if c.class == Class::Finite {
        let addend = u128::from(c.significand) << 63;
        let larger = (p_exponent, p) >= (c.exponent, addend);
        let distance = p_exponent.abs_diff(c.exponent);
        let (high, low) = if larger { (p, addend) } else { (addend, p) };
        let low = shift_right_sticky_long(low, distance);
        p_exponent = p_exponent.max(c.exponent);
        sign = if larger { p_sign } else { c.sign };
        p = if p_sign == c.sign {
            high + low
        } else {
            high - low
        };
        if p == 0 {
            return signed::<F>(zero_sign(rounding), 0);
        }
    }
    let zeros = p.leading_zeros();
    let p = p << zeros;
    round::<F>(
        sign,
        p_exponent + 1 - zeros as i32 - halved,
        (p >> 64) as u64 | u64::from(p as u64 != 0),
        rounding,
        fpcr,
        fpsr,
    )
}

/// FPMulAdd: c + a × b.
pub fn mul_add<F: Format>(c: u64, a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    let z = unpack::<F>(c, fpcr, fpsr);
    let x = unpack::<F>(a, fpcr, fpsr);
    let y = unpack::<F>(b, fpcr, fpsr);
    let zero_by_infinity = (x.is_infinity() && y.is_zero()) || (x.is_zero() && y.is_infinity());
    if let Some(nan) = process_nans::<F>(&[(c, z), (a, x), (b, y)], fpcr, fpsr) {
        if z.class == Class::Quiet && zero_by_infinity {
            return invalid::<F>(fpsr);
        }
        return nan;
    }
    let sign = x.sign != y.sign;
    let infinite = x.is_infinity() || y.is_infinity();
    if zero_by_infinity || (z.is_infinity() && infinite && z.sign != sign) {
        return invalid::<F>(fpsr);
    }
    if z.is_infinity() {
        return signed::<F>(z.sign, F::INFINITY);
    }
    if infinite {
        return signed::<F>(sign, F::INFINITY);
    }
    let rounding = Rounding::from_fpcr(fpcr);
    if x.is_zero() || y.is_zero() {
        if !z.is_zero() {
            return round::<F>(z.sign, z.exponent, z.significand, rounding, fpcr, fpsr);
        }
        let sign = if sign == z.sign {
            sign
        } else {
            zero_sign(rounding)
        };
        return signed::<F>(sign, 0);
    }
    fused::<F>(x, y, z, 0, fpcr, fpsr)
}

/// FPRecipStepFused: 2 − a × b.
pub fn recip_step<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    step::<F>(a, b, two::<F>(), 0, fpcr, fpsr)
}

/// FPRSqrtStepFused: (3 − a × b) / 2.
pub fn rsqrt_step<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    step::<F>(a, b, two::<F>() | F::QUIET, 1, fpcr, fpsr)
}

#[inline(always)]
fn step<F: Format>(a: u64, b: u64, from: u64, halved: i32, fpcr: u32, fpsr: &mut u32) -> u64 {
    let a = neg::<F>(a);
    let x = unpack::<F>(a, fpcr, fpsr);
    let y = unpack::<F>(b, fpcr, fpsr);
    if let Some(nan) = process_nans::<F>(&[(a, x), (b, y)], fpcr, fpsr) {
        return nan;
    }
    if (x.is_infinity() && y.is_zero())
        || (x.is_zero() && y.is_infinity())
        || x.is_zero()
        || y.is_zero()
    {
        return if halved == 0 {
            two::<F>()
        } else {
            one_and_half::<F>()
        };
    }
    if x.is_infinity() || y.is_infinity() {
        return signed::<F>(x.sign != y.sign, F::INFINITY);
    }
    let from = unpack::<F>(from, fpcr, fpsr);
    fused::<F>(x, y, from, halved, fpcr, fpsr)
}

/// The order of two numbers that are not NaN.
#[inline(always)]
fn order(x: Unpacked, y: Unpacked) -> Ordering {
    let magnitude = |u: Unpacked| match u.class {
        Class::Zero => (i32::MIN, 0),
        Class::Finite => (u.exponent, u.significand),
        _ => (i32::MAX, 0),
    };
    match (x.is_zero() && y.is_zero(), x.sign, y.sign) {
        (true, ..) => Ordering::Equal,
        (_, false, true) => Ordering::Greater,
        (_, true, false) => Ordering::Less,
        (_, false, false) => magnitude(x).cmp(&magnitude(y)),
        (_, true, true) => magnitude(y).cmp(&magnitude(x)),
    }
}

#[inline(always)]
fn extreme<F: Format>(a: u64, b: u64, largest: bool, fpcr: u32, fpsr: &mut u32) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    let y = unpack::<F>(b, fpcr, fpsr);
    if let Some(nan) = process_nans::<F>(&[(a, x), (b, y)], fpcr, fpsr) {
        return nan;
    }
    let first = match order(x, y) {
        Ordering::Greater => largest,
        Ordering::Less => !largest,
        Ordering::Equal => false,
    };
    let (bits, chosen) = if first { (a, x) } else { (b, y) };
    if chosen.is_zero() {
        // Zeros of both signs: + is larger. A flushed operand is a zero too.
        let sign = if !(x.is_zero() && y.is_zero()) {
            chosen.sign
        } else if largest {
            x.sign && y.sign
        } else {
            x.sign || y.sign
        };
        return signed::<F>(sign, 0);
    }
    bits & F::MASK
}

/// FPMax.
pub fn max<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    extreme::<F>(a, b, true, fpcr, fpsr)
}

/// FPMin.
pub fn min<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    extreme::<F>(a, b, false, fpcr, fpsr)
}

/// A quiet NaN beside a number is replaced by the infinity that loses.
#[inline(always)]
fn extreme_number<F: Format>(a: u64, b: u64, largest: bool, fpcr: u32, fpsr: &mut u32) -> u64 {
    let quiet = |bits: u64| unpack::<F>(bits, fpcr, &mut 0).class == Class::Quiet;
    let loser = signed::<F>(largest, F::INFINITY);
    match (quiet(a), quiet(b)) {
        (true, false) => extreme::<F>(loser, b, largest, fpcr, fpsr),
        (false, true) => extreme::<F>(a, loser, largest, fpcr, fpsr),
        _ => extreme::<F>(a, b, largest, fpcr, fpsr),
    }
}

/// FPMaxNum.
pub fn max_num<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    extreme_number::<F>(a, b, true, fpcr, fpsr)
}

/// FPMinNum.
pub fn min_num<F: Format>(a: u64, b: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    extreme_number::<F>(a, b, false, fpcr, fpsr)
}

/// How two numbers relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Less,
    Equal,
    Greater,
    Unordered,
}

/// FPCompare; with `signaling` a quiet NaN is invalid too.
pub fn compare<F: Format>(
    a: u64,
    b: u64,
    signaling: bool,
    fpcr: u32,
    fpsr: &mut u32,
) -> Comparison {
    let x = unpack::<F>(a, fpcr, fpsr);
    let y = unpack::<F>(b, fpcr, fpsr);
    if x.is_nan() || y.is_nan() {
        if signaling || x.class == Class::Signaling || y.class == Class::Signaling {
            *fpsr |= IOC;
        }
        return Comparison::Unordered;
    }
    match order(x, y) {
        Ordering::Less => Comparison::Less,
        Ordering::Equal => Comparison::Equal,
        Ordering::Greater => Comparison::Greater,
    }
}
