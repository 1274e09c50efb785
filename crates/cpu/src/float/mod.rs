//! Floating point by integers, as DDI 0487's pseudocode defines it (shared/functions/float): FPAdd, FPMulAdd, FPConvert,
//! FPRecipEstimate and so on, with FPCR's controls and FPSR's cumulative flags.
//!
//! Values are their bits in a `u64`. Functions are generic over the [`Format`]: [`Half`], [`Single`], [`Double`].
//! Tininess is detected before rounding. Rust's own floats appear nowhere: their NaNs are not Arm's.

mod arithmetic;
mod convert;
mod estimate;
#[cfg(test)]
mod tests;

pub use arithmetic::{
    Comparison, abd, add, compare, div, max, max_num, min, min_num, mul, mul_add, mulx, recip_step,
    rsqrt_step, sqrt, sub,
};
pub use convert::{convert, fixed_to_float, round_to_integral, to_fixed};
pub use estimate::{
    recip_estimate, recip_exponent, rsqrt_estimate, unsigned_recip_estimate,
    unsigned_rsqrt_estimate,
};

/// FPSR's Invalid Operation flag.
pub const IOC: u32 = 1 << 0;
/// FPSR's Divide by Zero flag.
pub const DZC: u32 = 1 << 1;
/// FPSR's Overflow flag.
pub const OFC: u32 = 1 << 2;
/// FPSR's Underflow flag.
pub const UFC: u32 = 1 << 3;
/// FPSR's Inexact flag.
pub const IXC: u32 = 1 << 4;
/// FPSR's Input Denormal flag.
pub const IDC: u32 = 1 << 7;
/// FPSR's saturation flag.
pub const QC: u32 = 1 << 27;

/// FPCR: flush half-precision denormals to zero.
pub const FZ16: u32 = 1 << 19;
/// FPCR: flush denormals to zero.
pub const FZ: u32 = 1 << 24;
/// FPCR: default NaN.
pub const DN: u32 = 1 << 25;
/// FPCR: alternative half-precision format, for conversions.
pub const AHP: u32 = 1 << 26;

/// Rounding modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    TiesToEven,
    PlusInfinity,
    MinusInfinity,
    Zero,
    TiesAway,
    /// Von Neumann rounding (FCVTXN).
    Odd,
}

impl Rounding {
    /// FPCR.RMode.
    #[inline(always)]
    pub fn from_fpcr(fpcr: u32) -> Rounding {
        match fpcr >> 22 & 3 {
            0 => Rounding::TiesToEven,
            1 => Rounding::PlusInfinity,
            2 => Rounding::MinusInfinity,
            _ => Rounding::Zero,
        }
    }

    /// Whether a magnitude is rounded up that is odd (`odd`) and followed by `rest`, a fraction of 2⁶⁴.
    #[inline(always)]
    fn up(self, sign: bool, odd: bool, rest: u64) -> bool {
        const HALF: u64 = 1 << 63;
        match self {
            Rounding::TiesToEven => rest > HALF || (rest == HALF && odd),
            Rounding::PlusInfinity => rest != 0 && !sign,
            Rounding::MinusInfinity => rest != 0 && sign,
            Rounding::Zero | Rounding::Odd => false,
            Rounding::TiesAway => rest >= HALF,
        }
    }
}

/// A floating-point format.
pub trait Format: Copy {
    /// Bits in all.
    const BITS: u32;
    /// Bits of the exponent.
    const EXPONENT: u32;
    /// Bits of the fraction.
    const FRACTION: u32;

    const BIAS: i32 = (1 << (Self::EXPONENT - 1)) - 1;
    /// The exponent of the smallest normal number.
    const MINIMUM: i32 = 1 - Self::BIAS;
    const SIGN: u64 = 1 << (Self::BITS - 1);
    const FRACTION_MASK: u64 = (1 << Self::FRACTION) - 1;
    /// All bits of the exponent, in place: infinity.
    const INFINITY: u64 = Self::SIGN - (1 << Self::FRACTION);
    const MAX_NORMAL: u64 = Self::INFINITY - 1;
    const QUIET: u64 = 1 << (Self::FRACTION - 1);
    const DEFAULT_NAN: u64 = Self::INFINITY | Self::QUIET;
    /// All bits.
    const MASK: u64 = Self::SIGN | (Self::SIGN - 1);
    /// FPCR's control that flushes this format's denormals.
    const FLUSH: u32;
}

#[derive(Clone, Copy, Debug)]
pub struct Half;
#[derive(Clone, Copy, Debug)]
pub struct Single;
#[derive(Clone, Copy, Debug)]
pub struct Double;

impl Format for Half {
    const BITS: u32 = 16;
    const EXPONENT: u32 = 5;
    const FRACTION: u32 = 10;
    const FLUSH: u32 = FZ16;
}

impl Format for Single {
    const BITS: u32 = 32;
    const EXPONENT: u32 = 8;
    const FRACTION: u32 = 23;
    const FLUSH: u32 = FZ;
}

impl Format for Double {
    const BITS: u32 = 64;
    const EXPONENT: u32 = 11;
    const FRACTION: u32 = 52;
    const FLUSH: u32 = FZ;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Zero,
    Finite,
    Infinity,
    Quiet,
    Signaling,
}

/// A value taken apart.
#[derive(Clone, Copy, Debug)]
struct Unpacked {
    class: Class,
    sign: bool,
    /// Of the leading bit.
    exponent: i32,
    /// Leading bit at 63, if finite.
    significand: u64,
}

impl Unpacked {
    #[inline(always)]
    fn is_nan(self) -> bool {
        matches!(self.class, Class::Quiet | Class::Signaling)
    }

    #[inline(always)]
    fn is_zero(self) -> bool {
        self.class == Class::Zero
    }

    #[inline(always)]
    fn is_infinity(self) -> bool {
        self.class == Class::Infinity
    }
}

/// FPUnpack.
#[inline(always)]
fn unpack<F: Format>(bits: u64, fpcr: u32, fpsr: &mut u32) -> Unpacked {
    let sign = bits & F::SIGN != 0;
    let biased = (bits & F::INFINITY) >> F::FRACTION;
    let fraction = bits & F::FRACTION_MASK;
    let mut result = Unpacked {
        class: Class::Finite,
        sign,
        exponent: biased as i32 - F::BIAS,
        significand: 1 << 63 | fraction << (63 - F::FRACTION),
    };
    if biased == 0 {
        if fraction == 0 {
            result.class = Class::Zero;
        } else if fpcr & F::FLUSH != 0 {
            // Half precision has no Input Denormal.
            if F::BITS != 16 {
                *fpsr |= IDC;
            }
            result.class = Class::Zero;
        } else {
            let shift = fraction.leading_zeros();
            result.significand = fraction << shift;
            result.exponent = F::MINIMUM + (63 - F::FRACTION) as i32 - shift as i32;
        }
    } else if bits & F::INFINITY == F::INFINITY {
        result.class = if fraction == 0 {
            Class::Infinity
        } else if fraction & F::QUIET != 0 {
            Class::Quiet
        } else {
            Class::Signaling
        };
    }
    result
}

#[inline(always)]
fn signed<F: Format>(sign: bool, magnitude: u64) -> u64 {
    if sign { F::SIGN | magnitude } else { magnitude }
}

/// FPProcessNaN.
#[inline(always)]
fn process_nan<F: Format>(bits: u64, class: Class, fpcr: u32, fpsr: &mut u32) -> u64 {
    if class == Class::Signaling {
        *fpsr |= IOC;
    }
    if fpcr & DN != 0 {
        F::DEFAULT_NAN
    } else {
        bits & F::MASK | F::QUIET
    }
}

/// FPProcessNaNs and FPProcessNaNs3: signaling before quiet, and in order.
#[inline]
fn process_nans<F: Format>(operands: &[(u64, Unpacked)], fpcr: u32, fpsr: &mut u32) -> Option<u64> {
    if !operands.iter().any(|(_, u)| u.is_nan()) {
        return None;
    }
    let of_class = |class| operands.iter().find(|(_, u)| u.class == class);
    let &(bits, unpacked) = of_class(Class::Signaling).or_else(|| of_class(Class::Quiet))?;
    Some(process_nan::<F>(bits, unpacked.class, fpcr, fpsr))
}

#[inline(always)]
fn invalid<F: Format>(fpsr: &mut u32) -> u64 {
    *fpsr |= IOC;
    F::DEFAULT_NAN
}

/// FPRound of significand × 2^(exponent − 63), its leading bit at 63, bit 0 also standing for everything below.
#[inline(always)]
fn round<F: Format>(
    sign: bool,
    exponent: i32,
    significand: u64,
    rounding: Rounding,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    round_to::<F>(sign, exponent, significand, rounding, false, fpcr, fpsr)
}

/// FPRoundBase; `alternative` is Arm's half-precision format without infinities and NaNs.
#[inline(always)]
fn round_to<F: Format>(
    sign: bool,
    exponent: i32,
    significand: u64,
    rounding: Rounding,
    alternative: bool,
    fpcr: u32,
    fpsr: &mut u32,
) -> u64 {
    let mut shift = 63 - F::FRACTION;
    // One less than the biased exponent, as the leading bit adds one.
    let mut base = 0;
    let tiny = exponent < F::MINIMUM;
    if tiny {
        if fpcr & F::FLUSH != 0 {
            *fpsr |= UFC;
            return signed::<F>(sign, 0);
        }
        shift += ((F::MINIMUM - exponent) as u32).min(65);
    } else {
        base = ((exponent - F::MINIMUM) as u64).min(1 << F::EXPONENT);
    }
    let (integer, rest) = match shift {
        0..=63 => (significand >> shift, significand << (64 - shift)),
        64 => (0, significand),
        _ => (0, 1),
    };
    if tiny && rest != 0 {
        *fpsr |= UFC;
    }
    let mut result = (base << F::FRACTION) + integer;
    if rounding.up(sign, integer & 1 != 0, rest) {
        result += 1;
    }
    if rounding == Rounding::Odd && rest != 0 {
        result |= 1;
    }
    let inexact = if alternative {
        if result >> F::FRACTION >= 1 << F::EXPONENT {
            *fpsr |= IOC;
            result = F::SIGN - 1;
            false
        } else {
            rest != 0
        }
    } else if result >= F::INFINITY {
        *fpsr |= OFC;
        let to_infinity = match rounding {
            Rounding::TiesToEven | Rounding::TiesAway => true,
            Rounding::PlusInfinity => !sign,
            Rounding::MinusInfinity => sign,
            Rounding::Zero | Rounding::Odd => false,
        };
        result = if to_infinity {
            F::INFINITY
        } else {
            F::MAX_NORMAL
        };
        true
    } else {
        rest != 0
    };
    if inexact {
        *fpsr |= IXC;
    }
    signed::<F>(sign, result)
}

/// A right shift that keeps in bit 0 whether anything was lost.
#[inline(always)]
fn shift_right_sticky(value: u64, amount: u32) -> u64 {
    match amount {
        0 => value,
        1..=63 => value >> amount | u64::from(value << (64 - amount) != 0),
        _ => u64::from(value != 0),
    }
}

/// The same of 128 bits.
#[inline(always)]
fn shift_right_sticky_long(value: u128, amount: u32) -> u128 {
    match amount {
        0 => value,
        1..=127 => value >> amount | u128::from(value << (128 - amount) != 0),
        _ => u128::from(value != 0),
    }
}

/// FPAbs.
#[inline(always)]
pub fn abs<F: Format>(a: u64) -> u64 {
    a & F::MASK & !F::SIGN
}

/// FPNeg.
#[inline(always)]
pub fn neg<F: Format>(a: u64) -> u64 {
    a & F::MASK ^ F::SIGN
}
