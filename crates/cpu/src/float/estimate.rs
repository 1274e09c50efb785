//! Estimates of reciprocals and reciprocal square roots: eight bits, exactly those of the architecture.

use super::{Class, DZC, Format, IXC, OFC, Rounding, UFC, invalid, process_nan, signed, unpack};

/// RecipEstimate: 256 to 511 in (0.5 to 1.0), 256 to 511 out (1.0 to 2.0).
fn recip(a: u64) -> u64 {
    let a = a * 2 + 1;
    ((1 << 19) / a).div_ceil(2)
}

/// RecipSqrtEstimate: 128 to 511 in, 256 to 511 out.
fn rsqrt(a: u64) -> u64 {
    const TABLE: [u16; 512] = {
        let mut table = [0; 512];
        let mut i = 128;
        while i < 512 {
            let a = if i < 256 {
                i * 2 + 1
            } else {
                ((i >> 1 << 1) + 1) * 2
            };
            let mut b = 512;
            while a * (b + 1) * (b + 1) < 1 << 28 {
                b += 1;
            }
            table[i] = b.div_ceil(2) as u16;
            i += 1;
        }
        table
    };
    TABLE[(a & 511) as usize].into()
}

/// UnsignedRecipEstimate (URECPE).
pub fn unsigned_recip_estimate(a: u32) -> u32 {
    if a >> 31 == 0 {
        u32::MAX
    } else {
        (recip((a >> 23).into()) << 23) as u32
    }
}

/// UnsignedRSqrtEstimate (URSQRTE).
pub fn unsigned_rsqrt_estimate(a: u32) -> u32 {
    if a >> 30 == 0 {
        u32::MAX
    } else {
        (rsqrt((a >> 23).into()) << 23) as u32
    }
}

/// FPRecipEstimate.
pub fn recip_estimate<F: Format>(a: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    match x.class {
        Class::Quiet | Class::Signaling => process_nan::<F>(a, x.class, fpcr, fpsr),
        Class::Infinity => signed::<F>(x.sign, 0),
        Class::Zero => {
            *fpsr |= DZC;
            signed::<F>(x.sign, F::INFINITY)
        }
        Class::Finite if x.exponent < -(F::BIAS + 1) => {
            let to_infinity = match Rounding::from_fpcr(fpcr) {
                Rounding::PlusInfinity => !x.sign,
                Rounding::MinusInfinity => x.sign,
                Rounding::Zero => false,
                _ => true,
            };
            *fpsr |= OFC | IXC;
            let magnitude = if to_infinity {
                F::INFINITY
            } else {
                F::MAX_NORMAL
            };
            signed::<F>(x.sign, magnitude)
        }
        Class::Finite if fpcr & F::FLUSH != 0 && x.exponent >= F::BIAS - 1 => {
            *fpsr |= UFC;
            signed::<F>(x.sign, 0)
        }
        Class::Finite => {
            let estimate = recip(x.significand >> 55);
            let fraction = (estimate & 0xff) << (F::FRACTION - 8);
            let exponent = 2 * F::BIAS - 1 - (x.exponent + F::BIAS);
            let magnitude = match exponent {
                // The result is denormal.
                0 => (1 << F::FRACTION | fraction) >> 1,
                -1 => (1 << F::FRACTION | fraction) >> 2,
                _ => (exponent as u64) << F::FRACTION | fraction,
            };
            signed::<F>(x.sign, magnitude & (F::SIGN - 1))
        }
    }
}

/// FPRSqrtEstimate.
pub fn rsqrt_estimate<F: Format>(a: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    match x.class {
        Class::Quiet | Class::Signaling => process_nan::<F>(a, x.class, fpcr, fpsr),
        Class::Zero => {
            *fpsr |= DZC;
            signed::<F>(x.sign, F::INFINITY)
        }
        _ if x.sign => invalid::<F>(fpsr),
        Class::Infinity => 0,
        Class::Finite => {
            let biased = x.exponent + F::BIAS;
            let estimate = rsqrt(x.significand >> (55 + (biased & 1)));
            let exponent = (3 * F::BIAS - 1 - biased) / 2;
            (exponent as u64) << F::FRACTION | (estimate & 0xff) << (F::FRACTION - 8)
        }
    }
}

/// FPRecpX.
pub fn recip_exponent<F: Format>(a: u64, fpcr: u32, fpsr: &mut u32) -> u64 {
    let x = unpack::<F>(a, fpcr, fpsr);
    if x.is_nan() {
        return process_nan::<F>(a, x.class, fpcr, fpsr);
    }
    let exponent = a & F::INFINITY;
    let magnitude = if exponent == 0 {
        F::INFINITY - (1 << F::FRACTION)
    } else {
        F::INFINITY ^ exponent
    };
    signed::<F>(x.sign, magnitude)
}
