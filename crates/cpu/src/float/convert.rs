//! Conversions between formats, and to and from integers and fixed point.

use super::{
    AHP, Class, DN, FZ16, Format, IOC, IXC, Rounding, process_nan, round, round_to, signed, unpack,
};

/// FPConvert, with FPCR.AHP.
pub fn convert<From: Format, To: Format>(
    a: u64,
    rounding: Rounding,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    // Conversions do not flush half-precision denormals.
    let fpcr = fpcr & !FZ16;
    let alternative = fpcr & AHP != 0;
    let mut x = unpack::<From>(a, fpcr, fpsr);
    if From::BITS == 16
        && alternative
        && matches!(x.class, Class::Infinity | Class::Quiet | Class::Signaling)
    {
        // An exponent of all ones is an ordinary one: significand and exponent are in place.
        x.class = Class::Finite;
    }
    let alternative = alternative && To::BITS == 16;
    match x.class {
        Class::Quiet | Class::Signaling => {
            if x.class == Class::Signaling || alternative {
                *fpsr |= IOC;
            }
            if alternative {
                signed::<To>(x.sign, 0)
            } else if fpcr & DN != 0 {
                To::DEFAULT_NAN
            } else {
                // The significand holds the fraction below bit 63.
                let fraction = x.significand << 1 >> 1 >> (63 - To::FRACTION);
                signed::<To>(x.sign, To::INFINITY | To::QUIET | fraction)
            }
        }
        Class::Infinity if alternative => {
            *fpsr |= IOC;
            signed::<To>(x.sign, To::SIGN - 1)
        }
        Class::Infinity => signed::<To>(x.sign, To::INFINITY),
        Class::Zero => signed::<To>(x.sign, 0),
        Class::Finite => round_to::<To>(
            x.sign,
            x.exponent,
            x.significand,
            rounding,
            alternative,
            fpcr,
            fpsr,
        ),
    }
}

/// The integer part of significand × 2^(exponent − 63), and the rest as a fraction of 2⁶⁴ (bit 0 is sticky);
/// `exponent` below 64.
#[inline(always)]
fn split(exponent: i32, significand: u64) -> (u64, u64) {
    match exponent {
        63 => (significand, 0),
        0..=62 => (
            significand >> (63 - exponent),
            significand << (exponent + 1),
        ),
        -1 => (0, significand),
        _ => (0, 1),
    }
}

/// FPRoundInt, and with `exact` FPRoundIntExact's Inexact.
pub fn round_to_integral<F: Format>(
    a: u64,
    rounding: Rounding,
    exact: bool,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    match x.class {
        Class::Quiet | Class::Signaling => process_nan::<F>(a, x.class, fpcr, fpsr),
        Class::Infinity => signed::<F>(x.sign, F::INFINITY),
        Class::Zero => signed::<F>(x.sign, 0),
        Class::Finite if x.exponent >= F::FRACTION as i32 => a & F::MASK,
        Class::Finite => {
            let (mut integer, rest) = split(x.exponent, x.significand);
            if rounding.up(x.sign, integer & 1 != 0, rest) {
                integer += 1;
            }
            if exact && rest != 0 {
                *fpsr |= IXC;
            }
            if integer == 0 {
                return signed::<F>(x.sign, 0);
            }
            let zeros = integer.leading_zeros();
            round::<F>(
                x.sign,
                63 - zeros as i32,
                integer << zeros,
                rounding,
                fpcr,
                fpsr,
            )
        }
    }
}

/// FPToFixed: a × 2^`fraction` as an integer of `bits` (16, 32 or 64), saturated.
pub fn to_fixed<F: Format>(
    a: u64,
    bits: u32,
    is_signed: bool,
    fraction: u32,
    rounding: Rounding,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    let (most, least) = if is_signed {
        ((1 << (bits - 1)) - 1, 1 << (bits - 1))
    } else {
        (u64::MAX >> (64 - bits), 0)
    };
    let limit = if x.sign { least } else { most };
    let (magnitude, inexact) = match x.class {
        Class::Quiet | Class::Signaling => {
            *fpsr |= IOC;
            return 0;
        }
        Class::Zero => return 0,
        Class::Finite if x.exponent + (fraction as i32) < 64 => {
            let (integer, rest) = split(x.exponent + fraction as i32, x.significand);
            let up = rounding.up(x.sign, integer & 1 != 0, rest);
            (u128::from(integer) + u128::from(up), rest != 0)
        }
        Class::Infinity | Class::Finite => (u128::MAX, false),
    };
    let magnitude = if magnitude > u128::from(limit) {
        *fpsr |= IOC;
        limit
    } else {
        if inexact {
            *fpsr |= IXC;
        }
        magnitude as u64
    };
    let value = if x.sign {
        magnitude.wrapping_neg()
    } else {
        magnitude
    };
    value & (u64::MAX >> (64 - bits))
}

/// FixedToFP: the low `bits` (16, 32 or 64) of `a` as an integer, times 2^−`fraction`.
pub fn fixed_to_float<F: Format>(
    a: u64,
    bits: u32,
    is_signed: bool,
    fraction: u32,
    rounding: Rounding,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    let unused = 64 - bits;
    let (sign, magnitude) = if is_signed {
        let value = ((a << unused) as i64) >> unused;
        (value < 0, value.unsigned_abs())
    } else {
        (false, a << unused >> unused)
    };
    if magnitude == 0 {
        return 0;
    }
    let zeros = magnitude.leading_zeros();
    round::<F>(
        sign,
        63 - zeros as i32 - fraction as i32,
        magnitude << zeros,
        rounding,
        fpcr,
        fpsr,
    )
}
