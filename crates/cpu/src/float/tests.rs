//! Values out of the definitions; the whole is compared with another implementation in `tests/instructions`.

use super::*;

const ONE: u64 = 0x3ff0_0000_0000_0000;
const MINIMUM: u64 = 1 << 52;
const INFINITY: u64 = 0x7ff0_0000_0000_0000;
const DEFAULT_NAN: u64 = 0x7ff8_0000_0000_0000;
const TO_PLUS: u32 = 1 << 22;
const TO_MINUS: u32 = 2 << 22;
const TO_ZERO: u32 = 3 << 22;

/// The result and the flags it raises.
fn flags(f: impl FnOnce(&mut u32) -> u64) -> (u64, u32) {
    let mut fpsr = 0;
    let result = f(&mut fpsr);
    (result, fpsr)
}

#[test]
fn sums_round_as_fpcr_says() {
    let tiny = 1;
    for (fpcr, expected) in [
        (0, ONE),
        (TO_PLUS, ONE + 1),
        (TO_MINUS, ONE),
        (TO_ZERO, ONE),
    ] {
        assert_eq!(
            flags(|s| add::<Double>(ONE, tiny, fpcr, s)),
            (expected, IXC)
        );
    }
    // x − x is +0, or −0 towards minus infinity.
    assert_eq!(flags(|s| sub::<Double>(ONE, ONE, 0, s)), (0, 0));
    assert_eq!(
        flags(|s| sub::<Double>(ONE, ONE, TO_MINUS, s)),
        (1 << 63, 0)
    );
    assert_eq!(
        flags(|s| sub::<Double>(INFINITY, INFINITY, 0, s)),
        (DEFAULT_NAN, IOC)
    );
}

#[test]
fn overflow_and_underflow() {
    let largest = INFINITY - 1;
    assert_eq!(
        flags(|s| add::<Double>(largest, largest, 0, s)),
        (INFINITY, OFC | IXC)
    );
    assert_eq!(
        flags(|s| add::<Double>(largest, largest, TO_ZERO, s)),
        (largest, OFC | IXC)
    );
    // Tininess is before rounding: this rounds up to the smallest normal number, and underflows.
    let below_one = ONE - 1;
    assert_eq!(
        flags(|s| mul::<Double>(MINIMUM, below_one, 0, s)),
        (MINIMUM, UFC | IXC)
    );
    // An exact denormal does not underflow.
    let half = ONE - (1 << 52);
    assert_eq!(flags(|s| mul::<Double>(MINIMUM, half, 0, s)), (1 << 51, 0));
    // Flushed, it does, and is not inexact; a flushed operand is told by IDC.
    assert_eq!(flags(|s| mul::<Double>(MINIMUM, half, FZ, s)), (0, UFC));
    assert_eq!(flags(|s| add::<Double>(1, ONE, FZ, s)), (ONE, IDC));
    // Half precision tells of no flushed operand.
    assert_eq!(flags(|s| add::<Half>(1, 0x3c00, FZ16, s)), (0x3c00, 0));
}

#[test]
fn nans_come_in_order() {
    let (quiet, signaling) = (INFINITY | 1 << 51 | 5, INFINITY | 7);
    assert_eq!(
        flags(|s| add::<Double>(quiet, signaling, 0, s)),
        (signaling | 1 << 51, IOC)
    );
    assert_eq!(
        flags(|s| add::<Double>(quiet, signaling, DN, s)),
        (DEFAULT_NAN, IOC)
    );
    // The addend first; infinity times zero beside a quiet addend is the default NaN.
    assert_eq!(
        flags(|s| mul_add::<Double>(quiet, ONE, quiet + 1, 0, s)),
        (quiet, 0)
    );
    assert_eq!(
        flags(|s| mul_add::<Double>(quiet, INFINITY, 0, 0, s)),
        (DEFAULT_NAN, IOC)
    );
    assert_eq!(flags(|s| max_num::<Double>(quiet, ONE, 0, s)), (ONE, 0));
    assert_eq!(
        flags(|s| max_num::<Double>(signaling, ONE, 0, s)),
        (signaling | 1 << 51, IOC)
    );
}

#[test]
fn fused_products_are_exact() {
    // (1 + 2^-52)² − (1 + 2^-51) is 2^-104.
    let expected = (1023 - 104) << 52;
    let minus = (ONE + 2) | 1 << 63;
    assert_eq!(
        flags(|s| mul_add::<Double>(minus, ONE + 1, ONE + 1, 0, s)),
        (expected, 0)
    );
}

#[test]
fn quotients_and_roots() {
    let single = |v: u64| v << 23;
    assert_eq!(
        flags(|s| div::<Single>(single(127), 0x4040_0000, 0, s)),
        (0x3eaa_aaab, IXC)
    );
    assert_eq!(
        flags(|s| div::<Double>(ONE, 0x4008_0000_0000_0000, 0, s)),
        (0x3fd5_5555_5555_5555, IXC)
    );
    assert_eq!(
        flags(|s| div::<Double>(ONE, 1 << 63, 0, s)),
        (1 << 63 | INFINITY, DZC)
    );
    assert_eq!(
        flags(|s| sqrt::<Double>(0x4000_0000_0000_0000, 0, s)),
        (0x3ff6_a09e_667f_3bcd, IXC)
    );
    assert_eq!(
        flags(|s| sqrt::<Single>(0x4110_0000, 0, s)),
        (0x4040_0000, 0)
    );
    assert_eq!(
        flags(|s| sqrt::<Single>(0x8000_0000, 0, s)),
        (0x8000_0000, 0)
    );
    assert_eq!(flags(|s| sqrt::<Half>(0xbc00, 0, s)), (0x7e00, IOC));
}

#[test]
fn conversions() {
    let even = Rounding::TiesToEven;
    // 65520 overflows half precision; the alternative format has it, and saturates.
    let large = 0x477f_f000;
    assert_eq!(
        flags(|s| convert::<Single, Half>(large, even, 0, s)),
        (0x7c00, OFC | IXC)
    );
    assert_eq!(
        flags(|s| convert::<Single, Half>(large, even, AHP, s)),
        (0x7c00, IXC)
    );
    assert_eq!(
        flags(|s| convert::<Single, Half>(0x4880_0000, even, AHP, s)),
        (0x7fff, IOC)
    );
    assert_eq!(
        flags(|s| to_fixed::<Double>(0xbfe0_0000_0000_0000, 32, false, 0, Rounding::Zero, 0, s)),
        (0, IXC)
    );
    assert_eq!(
        flags(|s| to_fixed::<Double>(INFINITY, 32, true, 0, Rounding::Zero, 0, s)),
        (0x7fff_ffff, IOC)
    );
    assert_eq!(
        flags(|s| fixed_to_float::<Single>(u64::MAX, 64, false, 0, even, 0, s)),
        (0x5f80_0000, IXC)
    );
    assert_eq!(
        flags(|s| round_to_integral::<Double>(ONE + 1, Rounding::PlusInfinity, true, 0, s)),
        (0x4000_0000_0000_0000, IXC)
    );
}

#[test]
fn estimates() {
    assert_eq!(
        flags(|s| recip_estimate::<Single>(0x3f80_0000, 0, s)),
        (0x3f7f_8000, 0)
    );
    assert_eq!(
        flags(|s| rsqrt_estimate::<Single>(0x3f80_0000, 0, s)),
        (0x3f7f_8000, 0)
    );
    assert_eq!(
        flags(|s| recip_estimate::<Single>(0, 0, s)),
        (0x7f80_0000, DZC)
    );
    assert_eq!(unsigned_recip_estimate(0x7fff_ffff), u32::MAX);
}

/// Nothing panics, and no result has bits beyond its format.
#[test]
fn any_operands() {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let value = seed ^ seed >> 29;
        // Often special exponents.
        match value >> 61 {
            0 => value | INFINITY,
            1 => value & !INFINITY,
            2 => value & 0x8000_0000_ffff_ffff,
            _ => value,
        }
    };
    fn all<F: Format>(a: u64, b: u64, c: u64, fpcr: u32) {
        let s = &mut 0;
        let (a, b, c) = (a & F::MASK, b & F::MASK, c & F::MASK);
        for f in [
            add::<F>,
            sub::<F>,
            mul::<F>,
            mulx::<F>,
            div::<F>,
            max::<F>,
            min_num::<F>,
            abd::<F>,
            recip_step::<F>,
            rsqrt_step::<F>,
        ] {
            assert_eq!(f(a, b, fpcr, s) & !F::MASK, 0);
        }
        for f in [
            sqrt::<F>,
            recip_estimate::<F>,
            rsqrt_estimate::<F>,
            recip_exponent::<F>,
        ] {
            assert_eq!(f(a, fpcr, s) & !F::MASK, 0);
        }
        assert_eq!(mul_add::<F>(a, b, c, fpcr, s) & !F::MASK, 0);
        assert_eq!(*s & !0x9f, 0);
    }
    for _ in 0..20_000 {
        let (a, b, c) = (next(), next(), next());
        let fpcr = (next() as u32) & 0x07c8_0000;
        all::<Half>(a, b, c, fpcr);
        all::<Single>(a, b, c, fpcr);
        all::<Double>(a, b, c, fpcr);
        let s = &mut 0;
        let rounding = Rounding::from_fpcr(fpcr);
        for narrow in [convert::<Double, Half>, convert::<Single, Half>] {
            assert_eq!(narrow(a, rounding, fpcr, s) >> 16, 0);
        }
        for bits in [16, 32, 64] {
            for fraction in [0, 1, bits] {
                let fixed =
                    to_fixed::<Double>(a, bits, true, fraction, Rounding::TiesAway, fpcr, s);
                fixed_to_float::<Half>(fixed, bits, true, fraction, rounding, fpcr, s);
            }
        }
    }
}
