//! Integer operations, lane by lane.

use super::{
    IntegerBinary, IntegerTernary, IntegerUnary, Lane, LongProduct, Narrowing, Permutation,
    Reduction, Shape, Shift, permute,
};
use crate::float::{self, QC};

/// A value saturated to `bits`, and whether it was.
#[inline(always)]
fn saturate(value: i128, bits: u32, signed: bool) -> (u64, bool) {
    let (least, most) = if signed {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    };
    let clamped = value.clamp(least, most);
    (clamped as u64, clamped != value)
}

/// Shifts of one lane: `amount` is positive to the left. Wide enough for every lane; saturation is the caller's.
#[inline(always)]
fn shift_right_wide(value: i128, amount: u32, round: bool) -> i128 {
    // Beyond 65 places nothing is left but the sign.
    let amount = amount.min(100);
    if round && amount > 0 {
        (value + (1 << (amount - 1))) >> amount
    } else {
        value >> amount
    }
}

macro_rules! lanes {
    ($module:ident, $unsigned:ty, $signed:ty, $count:literal) => {
        mod $module {
            use super::*;

            pub type Lanes = [$unsigned; $count];
            const BITS: u32 = <$unsigned>::BITS;

            #[inline(always)]
            pub fn split(vector: u128) -> Lanes {
                let bytes = vector.to_le_bytes();
                let (chunks, _) = bytes.as_chunks::<{ (BITS / 8) as usize }>();
                std::array::from_fn(|i| <$unsigned>::from_le_bytes(chunks[i]))
            }

            #[inline(always)]
            pub fn join(lanes: Lanes) -> u128 {
                let mut bytes = [0; 16];
                let (chunks, _) = bytes.as_chunks_mut::<{ (BITS / 8) as usize }>();
                for (chunk, lane) in chunks.iter_mut().zip(lanes) {
                    *chunk = lane.to_le_bytes();
                }
                u128::from_le_bytes(bytes)
            }

            #[inline(always)]
            fn map(a: u128, f: impl Fn($unsigned) -> $unsigned) -> u128 {
                join(split(a).map(f))
            }

            #[inline(always)]
            fn zip(a: u128, b: u128, f: impl Fn($unsigned, $unsigned) -> $unsigned) -> u128 {
                let (a, b) = (split(a), split(b));
                join(std::array::from_fn(|i| f(a[i], b[i])))
            }

            #[inline(always)]
            fn zip_signed(a: u128, b: u128, f: impl Fn($signed, $signed) -> $signed) -> u128 {
                zip(a, b, |x, y| f(x as $signed, y as $signed) as $unsigned)
            }

            /// Saturating operations say for each lane whether they did.
            #[inline(always)]
            fn zip_saturating(
                a: u128,
                b: u128,
                fpsr: &mut u32,
                f: impl Fn($unsigned, $unsigned) -> ($unsigned, bool),
            ) -> u128 {
                let (a, b) = (split(a), split(b));
                let mut saturated = false;
                let result = std::array::from_fn(|i| {
                    let (value, lane) = f(a[i], b[i]);
                    saturated |= lane;
                    value
                });
                if saturated {
                    *fpsr |= QC;
                }
                join(result)
            }

            #[inline(always)]
            fn truth(condition: bool) -> $unsigned {
                if condition { <$unsigned>::MAX } else { 0 }
            }

            /// SSHL and its kin: by the signed low byte of `by`.
            #[inline(always)]
            fn shift_by(
                x: $unsigned,
                by: $unsigned,
                signed: bool,
                round: bool,
                saturating: bool,
            ) -> ($unsigned, bool) {
                let amount = i32::from(by as u8 as i8);
                let value = if signed {
                    x as $signed as i128
                } else {
                    x as i128
                };
                if amount < 0 {
                    let shifted = shift_right_wide(value, amount.unsigned_abs(), round);
                    return (shifted as $unsigned, false);
                }
                if !saturating {
                    let shifted = if amount as u32 >= BITS {
                        0
                    } else {
                        x << amount
                    };
                    return (shifted, false);
                }
                let shifted = value.saturating_mul(1 << (amount as u32).min(64));
                let (value, saturated) = saturate(shifted, BITS, signed);
                (value as $unsigned, saturated)
            }

            pub fn binary(operation: IntegerBinary, a: u128, b: u128, fpsr: &mut u32) -> u128 {
                use IntegerBinary::*;
                match operation {
                    Add => zip(a, b, <$unsigned>::wrapping_add),
                    Sub => zip(a, b, <$unsigned>::wrapping_sub),
                    Mul => zip(a, b, <$unsigned>::wrapping_mul),
                    PMul => zip(a, b, |x, y| {
                        permute::polynomial_product(x as u64, y as u64) as $unsigned
                    }),
                    SMax => zip_signed(a, b, <$signed>::max),
                    SMin => zip_signed(a, b, <$signed>::min),
                    UMax => zip(a, b, <$unsigned>::max),
                    UMin => zip(a, b, <$unsigned>::min),
                    SHAdd => zip_signed(a, b, |x, y| (x & y) + ((x ^ y) >> 1)),
                    UHAdd => zip(a, b, |x, y| (x & y) + ((x ^ y) >> 1)),
                    SRHAdd => zip_signed(a, b, |x, y| (x | y) - ((x ^ y) >> 1)),
                    URHAdd => zip(a, b, |x, y| (x | y) - ((x ^ y) >> 1)),
                    SHSub => zip_signed(a, b, |x, y| {
                        (x >> 1).wrapping_sub(y >> 1).wrapping_sub(!x & y & 1)
                    }),
                    UHSub => zip(a, b, |x, y| {
                        (x >> 1).wrapping_sub(y >> 1).wrapping_sub(!x & y & 1)
                    }),
                    SQAdd => zip_saturating(a, b, fpsr, |x, y| {
                        let (x, y) = (x as $signed, y as $signed);
                        (x.saturating_add(y) as $unsigned, x.checked_add(y).is_none())
                    }),
                    UQAdd => zip_saturating(a, b, fpsr, |x, y| {
                        (x.saturating_add(y), x.checked_add(y).is_none())
                    }),
                    SQSub => zip_saturating(a, b, fpsr, |x, y| {
                        let (x, y) = (x as $signed, y as $signed);
                        (x.saturating_sub(y) as $unsigned, x.checked_sub(y).is_none())
                    }),
                    UQSub => zip_saturating(a, b, fpsr, |x, y| {
                        (x.saturating_sub(y), x.checked_sub(y).is_none())
                    }),
                    SUQAdd => zip_saturating(a, b, fpsr, |x, y| {
                        let x = x as $signed;
                        let sum = x.checked_add_unsigned(y);
                        (sum.unwrap_or(<$signed>::MAX) as $unsigned, sum.is_none())
                    }),
                    USQAdd => zip_saturating(a, b, fpsr, |x, y| {
                        let y = y as $signed;
                        (
                            x.saturating_add_signed(y),
                            x.checked_add_signed(y).is_none(),
                        )
                    }),
                    SAbd => zip(a, b, |x, y| (x as $signed).abs_diff(y as $signed)),
                    UAbd => zip(a, b, <$unsigned>::abs_diff),
                    CmEq => zip(a, b, |x, y| truth(x == y)),
                    CmGt => zip(a, b, |x, y| truth(x as $signed > y as $signed)),
                    CmGe => zip(a, b, |x, y| truth(x as $signed >= y as $signed)),
                    CmHi => zip(a, b, |x, y| truth(x > y)),
                    CmHs => zip(a, b, |x, y| truth(x >= y)),
                    CmTst => zip(a, b, |x, y| truth(x & y != 0)),
                    SShl => zip(a, b, |x, y| shift_by(x, y, true, false, false).0),
                    UShl => zip(a, b, |x, y| shift_by(x, y, false, false, false).0),
                    SRShl => zip(a, b, |x, y| shift_by(x, y, true, true, false).0),
                    URShl => zip(a, b, |x, y| shift_by(x, y, false, true, false).0),
                    SQShl => zip_saturating(a, b, fpsr, |x, y| shift_by(x, y, true, false, true)),
                    UQShl => zip_saturating(a, b, fpsr, |x, y| shift_by(x, y, false, false, true)),
                    SQRShl => zip_saturating(a, b, fpsr, |x, y| shift_by(x, y, true, true, true)),
                    UQRShl => zip_saturating(a, b, fpsr, |x, y| shift_by(x, y, false, true, true)),
                    SQDMulH | SQRDMulH => zip_saturating(a, b, fpsr, |x, y| {
                        let product = 2 * (x as $signed as i128) * (y as $signed as i128);
                        let half = i128::from(operation == SQRDMulH) << (BITS - 1);
                        let (value, saturated) = saturate((product + half) >> BITS, BITS, true);
                        (value as $unsigned, saturated)
                    }),
                }
            }

            pub fn ternary(
                operation: IntegerTernary,
                a: u128,
                b: u128,
                c: u128,
                fpsr: &mut u32,
            ) -> u128 {
                use IntegerTernary::*;
                match operation {
                    Mla => zip(zip(a, b, <$unsigned>::wrapping_mul), c, |x, y| {
                        y.wrapping_add(x)
                    }),
                    Mls => zip(zip(a, b, <$unsigned>::wrapping_mul), c, |x, y| {
                        y.wrapping_sub(x)
                    }),
                    SAba => zip(binary(IntegerBinary::SAbd, a, b, fpsr), c, |x, y| {
                        y.wrapping_add(x)
                    }),
                    UAba => zip(binary(IntegerBinary::UAbd, a, b, fpsr), c, |x, y| {
                        y.wrapping_add(x)
                    }),
                    SQRDMlaH | SQRDMlsH => {
                        let (a, b, c) = (split(a), split(b), split(c));
                        join(std::array::from_fn(|i| {
                            let product = 2 * (a[i] as $signed as i128) * (b[i] as $signed as i128);
                            let product = if operation == SQRDMlaH {
                                product
                            } else {
                                -product
                            };
                            let sum =
                                ((c[i] as $signed as i128) << BITS) + product + (1 << (BITS - 1));
                            let (value, saturated) = saturate(sum >> BITS, BITS, true);
                            if saturated {
                                *fpsr |= QC;
                            }
                            value as $unsigned
                        }))
                    }
                    SDot | UDot => dot(operation == SDot, a, b, c),
                }
            }

            pub fn unary(operation: IntegerUnary, a: u128, fpsr: &mut u32) -> u128 {
                use IntegerUnary::*;
                match operation {
                    Abs => map(a, |x| (x as $signed).unsigned_abs()),
                    Neg => map(a, <$unsigned>::wrapping_neg),
                    SQAbs => zip_saturating(a, 0, fpsr, |x, _| {
                        let x = x as $signed;
                        (x.saturating_abs() as $unsigned, x == <$signed>::MIN)
                    }),
                    SQNeg => zip_saturating(a, 0, fpsr, |x, _| {
                        let x = x as $signed;
                        (x.saturating_neg() as $unsigned, x == <$signed>::MIN)
                    }),
                    Cls => map(a, |x| {
                        let x = x as $signed;
                        ((x ^ (x >> 1)).leading_zeros() as $unsigned)
                            .saturating_sub(1)
                            .min(BITS as $unsigned - 1)
                    }),
                    Clz => map(a, |x| x.leading_zeros() as $unsigned),
                    Cnt => map(a, |x| x.count_ones() as $unsigned),
                    RBit => map(a, <$unsigned>::reverse_bits),
                    Not => !a,
                    Rev16 => reverse(a, 16),
                    Rev32 => reverse(a, 32),
                    Rev64 => reverse(a, 64),
                    URecpE => map(a, |x| float::unsigned_recip_estimate(x as u32) as $unsigned),
                    URSqrtE => map(a, |x| float::unsigned_rsqrt_estimate(x as u32) as $unsigned),
                }
            }

            /// The order of lanes in each group of `group` bits reversed.
            fn reverse(a: u128, group: u32) -> u128 {
                let mut lanes = split(a);
                for part in lanes.chunks_mut((group / BITS).max(1) as usize) {
                    part.reverse();
                }
                join(lanes)
            }

            pub fn shift(shift: Shift, a: u128, amount: u32, fpsr: &mut u32) -> u128 {
                match shift {
                    Shift::Shl => map(a, |x| x << (amount & (BITS - 1))),
                    Shift::SShr => {
                        map(a, |x| ((x as $signed) >> amount.min(BITS - 1)) as $unsigned)
                    }
                    Shift::UShr => map(a, |x| x.checked_shr(amount).unwrap_or(0)),
                    Shift::SRShr => map(a, |x| {
                        shift_right_wide(x as $signed as i128, amount, true) as $unsigned
                    }),
                    Shift::URShr => map(a, |x| {
                        shift_right_wide(x as i128, amount, true) as $unsigned
                    }),
                    Shift::SQShl | Shift::UQShl | Shift::SQShlu => {
                        zip_saturating(a, 0, fpsr, |x, _| {
                            let value = if shift == Shift::UQShl {
                                x as i128
                            } else {
                                x as $signed as i128
                            };
                            let (value, saturated) =
                                saturate(value << amount.min(63), BITS, shift == Shift::SQShl);
                            (value as $unsigned, saturated)
                        })
                    }
                }
            }

            /// Rearranges whole vectors; the order is known to the compiler.
            pub fn permute(permutation: Permutation, a: u128, b: u128) -> u128 {
                let (a, b) = (split(a), split(b));
                let choose = |from: usize| {
                    if from < $count {
                        a[from]
                    } else {
                        b[from - $count]
                    }
                };
                // Even lanes of the result from `a`, odd ones from `b`, but for UZP.
                let from_b = |i: usize| (i & 1) * $count;
                join(match permutation {
                    Permutation::Zip1 => std::array::from_fn(|i| choose(i / 2 + from_b(i))),
                    Permutation::Zip2 => {
                        std::array::from_fn(|i| choose($count / 2 + i / 2 + from_b(i)))
                    }
                    Permutation::Uzp1 => std::array::from_fn(|i| choose(2 * i)),
                    Permutation::Uzp2 => std::array::from_fn(|i| choose(2 * i + 1)),
                    Permutation::Trn1 => std::array::from_fn(|i| choose((i & !1) + from_b(i))),
                    Permutation::Trn2 => std::array::from_fn(|i| choose((i | 1) + from_b(i))),
                })
            }

            pub fn shift_insert(left: bool, a: u128, b: u128, amount: u32) -> u128 {
                zip(a, b, |x, y| {
                    let (value, mask) = if left {
                        let amount = amount & (BITS - 1);
                        (y << amount, <$unsigned>::MAX << amount)
                    } else {
                        (
                            y.checked_shr(amount).unwrap_or(0),
                            <$unsigned>::MAX.checked_shr(amount).unwrap_or(0),
                        )
                    };
                    (x & !mask) | value
                })
            }
        }
    };
}

lanes!(bytes, u8, i8, 16);
lanes!(halves, u16, i16, 8);
lanes!(words, u32, i32, 4);
lanes!(doubles, u64, i64, 2);

macro_rules! for_lane {
    ($lane:expr, $function:ident($($argument:expr),*)) => {
        match $lane {
            Lane::B => bytes::$function($($argument),*),
            Lane::H => halves::$function($($argument),*),
            Lane::S => words::$function($($argument),*),
            Lane::D => doubles::$function($($argument),*),
        }
    };
}

/// Rearranges lanes. Of 64-bit vectors too, by whole ones: their lanes to be taken apart are put in one, and those
/// interleaved come as one.
pub fn permute(permutation: Permutation, shape: Shape, a: u128, b: u128) -> u128 {
    if shape.bytes == 16 {
        return for_lane!(shape.lane, permute(permutation, a, b));
    }
    let mask = shape.mask();
    let bits = 8 * u32::from(shape.bytes);
    let both = (a & mask) | (b & mask) << bits;
    let result = match permutation {
        Permutation::Uzp1 | Permutation::Uzp2 => {
            for_lane!(shape.lane, permute(permutation, both, 0))
        }
        Permutation::Zip2 => for_lane!(shape.lane, permute(Permutation::Zip1, a, b)) >> bits,
        _ => for_lane!(shape.lane, permute(permutation, a, b)),
    };
    result & mask
}

/// Each 32-bit lane gains the products of its four bytes.
fn dot(signed: bool, a: u128, b: u128, c: u128) -> u128 {
    let (a, b, mut sums) = (bytes::split(a), bytes::split(b), words::split(c));
    for (i, (x, y)) in a.into_iter().zip(b).enumerate() {
        let product = if signed {
            i32::from(x as i8) * i32::from(y as i8)
        } else {
            i32::from(x) * i32::from(y)
        };
        sums[i / 4] = sums[i / 4].wrapping_add(product as u32);
    }
    words::join(sums)
}

#[inline(always)]
pub fn binary(operation: IntegerBinary, shape: Shape, a: u128, b: u128, fpsr: &mut u32) -> u128 {
    let mask = shape.mask();
    for_lane!(shape.lane, binary(operation, a & mask, b & mask, fpsr)) & mask
}

pub fn ternary(
    operation: IntegerTernary,
    shape: Shape,
    a: u128,
    b: u128,
    c: u128,
    fpsr: &mut u32,
) -> u128 {
    let mask = shape.mask();
    for_lane!(
        shape.lane,
        ternary(operation, a & mask, b & mask, c & mask, fpsr)
    ) & mask
}

pub fn unary(operation: IntegerUnary, shape: Shape, a: u128, fpsr: &mut u32) -> u128 {
    let mask = shape.mask();
    for_lane!(shape.lane, unary(operation, a & mask, fpsr)) & mask
}

pub fn shift(shift: Shift, shape: Shape, a: u128, amount: u32, fpsr: &mut u32) -> u128 {
    let mask = shape.mask();
    for_lane!(shape.lane, shift(shift, a & mask, amount, fpsr)) & mask
}

pub fn shift_insert(left: bool, shape: Shape, a: u128, b: u128, amount: u32) -> u128 {
    for_lane!(shape.lane, shift_insert(left, a, b, amount)) & shape.mask()
}

/// Lane `index` of `vector`, extended.
#[inline(always)]
fn extended(lane: Lane, index: u32, signed: bool, vector: u128) -> i128 {
    let value = permute::lane(lane, index, vector);
    if signed {
        let unused = 64 - lane.bits();
        i128::from(((value << unused) as i64) >> unused)
    } else {
        i128::from(value)
    }
}

pub fn add_long_pairwise(signed: bool, shape: Shape, a: u128) -> u128 {
    let wider = shape.lane.wider();
    let mut result = 0;
    for i in 0..shape.lanes() / 2 {
        let sum =
            extended(shape.lane, 2 * i, signed, a) + extended(shape.lane, 2 * i + 1, signed, a);
        result = permute::insert(wider, i, result, sum as u64);
    }
    result
}

pub fn reduce(reduction: Reduction, shape: Shape, a: u128) -> u128 {
    let signed = matches!(
        reduction,
        Reduction::SMax | Reduction::SMin | Reduction::SAddL
    );
    let lanes = (0..shape.lanes()).map(|i| extended(shape.lane, i, signed, a));
    let result = match reduction {
        Reduction::Add | Reduction::SAddL | Reduction::UAddL => lanes.sum(),
        Reduction::SMax | Reduction::UMax => lanes.max().unwrap_or(0),
        Reduction::SMin | Reduction::UMin => lanes.min().unwrap_or(0),
    };
    let lane = match reduction {
        Reduction::SAddL | Reduction::UAddL => shape.lane.wider(),
        _ => shape.lane,
    };
    (result as u128) & Shape::scalar(lane).mask()
}

/// The half of a vector that a widening operation reads.
#[inline(always)]
fn half(high: bool, a: u128) -> u128 {
    if high {
        a >> 64
    } else {
        a & u128::from(u64::MAX)
    }
}

pub fn widen(signed: bool, high: bool, lane: Lane, a: u128) -> u128 {
    let a = half(high, a);
    let whole = Shape::vector(lane, true);
    let above = if signed {
        shift(Shift::SShr, whole, a, lane.bits() - 1, &mut 0)
    } else {
        0
    };
    permute(Permutation::Zip1, whole, a, above)
}

pub fn narrow(
    how: Narrowing,
    round: bool,
    shift: u32,
    shape: Shape,
    a: u128,
    fpsr: &mut u32,
) -> u128 {
    if how == Narrowing::Truncate && !round {
        // What comes from the lane above is cut off.
        let lanes = permute(
            Permutation::Uzp1,
            Shape::vector(shape.lane, true),
            a >> shift,
            0,
        );
        return lanes & shape.mask();
    }
    let mut result = 0;
    let signed = matches!(how, Narrowing::SQ | Narrowing::SQU);
    for i in 0..shape.lanes() {
        let value = extended(shape.lane.wider(), i, signed, a);
        let value = shift_right_wide(value, shift, round);
        let value = if how == Narrowing::Truncate {
            value as u64
        } else {
            let (value, saturated) = saturate(value, shape.lane.bits(), how == Narrowing::SQ);
            if saturated {
                *fpsr |= QC;
            }
            value
        };
        result = permute::insert(shape.lane, i, result, value);
    }
    result
}

pub fn narrow_high(subtract: bool, round: bool, lane: Lane, a: u128, b: u128) -> u128 {
    let wider = lane.wider();
    let mut result = 0;
    for i in 0..8 / lane.bytes() {
        let (x, y) = (permute::lane(wider, i, a), permute::lane(wider, i, b));
        let sum = if subtract {
            x.wrapping_sub(y)
        } else {
            x.wrapping_add(y)
        };
        let half = u64::from(round) << (lane.bits() - 1);
        result = permute::insert(lane, i, result, sum.wrapping_add(half) >> lane.bits());
    }
    result
}

pub fn multiply_long(
    product: LongProduct,
    high: bool,
    shape: Shape,
    a: u128,
    b: u128,
    fpsr: &mut u32,
) -> u128 {
    let (a, b) = (half(high, a), half(high, b));
    let lane = shape.lane;
    if product == LongProduct::PMull && lane == Lane::D {
        return permute::polynomial_product(a as u64, b as u64);
    }
    let mut result = 0;
    let signed = matches!(product, LongProduct::SMull | LongProduct::SQDMull);
    for i in 0..shape.lanes() {
        let (x, y) = (extended(lane, i, signed, a), extended(lane, i, signed, b));
        let value = match product {
            LongProduct::PMull => permute::polynomial_product(x as u64, y as u64) as u64,
            LongProduct::SQDMull => {
                let (value, saturated) = saturate(2 * x * y, 2 * lane.bits(), true);
                if saturated {
                    *fpsr |= QC;
                }
                value
            }
            LongProduct::SMull | LongProduct::UMull => (x * y) as u64,
        };
        result = permute::insert(lane.wider(), i, result, value);
    }
    result
}
