//! Advanced SIMD and floating point: operations on whole vectors, and their reference functions.
//!
//! An operation says what happens to whole vectors (128 bits, lane 0 in the low bits) with no reference to registers or
//! encodings. Its reference function — [`Operation::apply`], [`ToValue::apply`], [`FromValue::apply`],
//! [`Compare::apply`] — is exact; code generators replace them one by one and are tested against them. Bits of a result
//! above its [`Shape`] are zero; bits of an operand above it are ignored. What FPCR.RMode decides for a whole
//! instruction is resolved into a [`Rounding`] where an instruction may also name its own mode; other operations take
//! FPCR's.
//!
//! Forms that the instruction set builds out of others are built here likewise: by-element instructions are
//! [`Operation::Duplicate`] and the plain operation, accumulating ones are followed by [`IntegerBinary::Add`],
//! comparisons with zero compare with a zero vector.

mod crypto;
mod float;
mod integer;
mod permute;
#[cfg(test)]
mod tests;

use crate::float::Rounding;

/// The size of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    /// 8 bits.
    B = 0,
    /// 16 bits; half precision.
    H = 1,
    /// 32 bits; single precision.
    S = 2,
    /// 64 bits; double precision.
    D = 3,
}

impl Lane {
    /// From an encoding's two-bit `size`.
    #[inline(always)]
    pub fn from_size(size: u32) -> Lane {
        match size & 3 {
            0 => Lane::B,
            1 => Lane::H,
            2 => Lane::S,
            _ => Lane::D,
        }
    }

    /// 8, 16, 32 or 64.
    #[inline(always)]
    pub fn bits(self) -> u32 {
        8 << self as u32
    }

    /// 1, 2, 4 or 8.
    #[inline(always)]
    pub fn bytes(self) -> u32 {
        1 << self as u32
    }

    /// The lane of twice the size; `D` stays.
    #[inline(always)]
    pub fn wider(self) -> Lane {
        Lane::from_size((self as u32 + 1).min(3))
    }

    /// The lane of half the size; `B` stays.
    #[inline(always)]
    pub fn narrower(self) -> Lane {
        Lane::from_size((self as u32).saturating_sub(1))
    }
}

/// Which lanes there are: `bytes` (1, 2, 4, 8 or 16) of the vector, from the low end on, in lanes of one size. A
/// scalar is one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub lane: Lane,
    pub bytes: u8,
}

impl Shape {
    /// 64 bits, or 128 with `q`.
    #[inline(always)]
    pub const fn vector(lane: Lane, q: bool) -> Shape {
        Shape {
            lane,
            bytes: if q { 16 } else { 8 },
        }
    }

    /// One lane.
    #[inline(always)]
    pub const fn scalar(lane: Lane) -> Shape {
        Shape {
            lane,
            bytes: 1 << lane as u8,
        }
    }

    /// How many lanes.
    #[inline(always)]
    pub fn lanes(self) -> u32 {
        u32::from(self.bytes) >> self.lane as u32
    }

    /// The bits of the shape.
    #[inline(always)]
    pub fn mask(self) -> u128 {
        if self.bytes >= 16 {
            u128::MAX
        } else {
            (1 << (8 * u32::from(self.bytes))) - 1
        }
    }
}

/// Integer operations on two vectors, lane by lane. S: signed, U: unsigned, Q: saturating (FPSR.QC), H: halving or
/// high half, R: rounding; names are the instructions'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegerBinary {
    Add,
    Sub,
    Mul,
    /// Polynomial multiplication over {0, 1}, low half; lanes of 8 bits.
    PMul,
    SMax,
    SMin,
    UMax,
    UMin,
    SHAdd,
    UHAdd,
    SRHAdd,
    URHAdd,
    SHSub,
    UHSub,
    SQAdd,
    UQAdd,
    SQSub,
    UQSub,
    /// Signed `a` plus unsigned `b`.
    SUQAdd,
    /// Unsigned `a` plus signed `b`.
    USQAdd,
    SAbd,
    UAbd,
    CmEq,
    CmGt,
    CmGe,
    CmHi,
    CmHs,
    CmTst,
    /// Shifts left by the signed low byte of each lane of `b`; right if negative.
    SShl,
    UShl,
    SRShl,
    URShl,
    SQShl,
    UQShl,
    SQRShl,
    UQRShl,
    SQDMulH,
    SQRDMulH,
}

/// Integer operations on two vectors and an accumulator (operand `c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegerTernary {
    /// c + a × b.
    Mla,
    /// c − a × b.
    Mls,
    SAba,
    UAba,
    SQRDMlaH,
    SQRDMlsH,
    /// Dot product of four 8-bit parts of each 32-bit lane.
    SDot,
    UDot,
}

/// Integer operations on one vector, lane by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegerUnary {
    Abs,
    Neg,
    SQAbs,
    SQNeg,
    Cls,
    Clz,
    /// Population count.
    Cnt,
    /// Bits in reverse.
    RBit,
    Not,
    /// Lanes in reverse order in each 16, 32, 64 bits.
    Rev16,
    Rev32,
    Rev64,
    URecpE,
    URSqrtE,
}

/// Shifts by a constant: left 0 to bits − 1, right 1 to bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shift {
    Shl,
    SShr,
    UShr,
    SRShr,
    URShr,
    SQShl,
    UQShl,
    /// Signed to unsigned saturating.
    SQShlu,
}

/// Bitwise operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Logic {
    And,
    /// a AND NOT b.
    Bic,
    Orr,
    /// a OR NOT b.
    Orn,
    Eor,
}

/// Products of twice the lanes' size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LongProduct {
    SMull,
    UMull,
    /// Doubled and saturated (FPSR.QC).
    SQDMull,
    /// Polynomial; lanes of 8 or 64 bits.
    PMull,
}

/// How a lane is made narrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Narrowing {
    Truncate,
    /// Signed to signed, saturating (FPSR.QC), and so on.
    SQ,
    UQ,
    SQU,
}

/// Combinations of all lanes into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    Add,
    SMax,
    SMin,
    UMax,
    UMin,
    /// Sum of twice the lanes' size.
    SAddL,
    UAddL,
}

/// Rearrangements of two vectors' lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permutation {
    Zip1,
    Zip2,
    Uzp1,
    Uzp2,
    Trn1,
    Trn2,
}

/// Floating-point operations on two vectors, lane by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatBinary {
    Add,
    Sub,
    Mul,
    /// Negated product.
    NMul,
    MulX,
    Div,
    Max,
    Min,
    MaxNm,
    MinNm,
    Abd,
    RecpS,
    RSqrtS,
    /// All ones where true.
    CmEq,
    CmGe,
    CmGt,
    /// Of absolute values.
    AcGe,
    AcGt,
}

/// Floating-point operations on one vector, lane by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatUnary {
    Abs,
    Neg,
    Sqrt,
    RecpE,
    RecpX,
    RSqrtE,
}

/// AES, SHA1 and SHA256 instructions; operands in the order `d`, `n`, `m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Crypto {
    /// d, n.
    AesE,
    AesD,
    /// n.
    AesMc,
    AesImc,
    /// d, n (scalar), m.
    Sha1C,
    Sha1P,
    Sha1M,
    Sha1Su0,
    /// n (scalar).
    Sha1H,
    /// d, n.
    Sha1Su1,
    /// d, n, m.
    Sha256H,
    Sha256H2,
    /// d, n.
    Sha256Su0,
    /// d, n, m.
    Sha256Su1,
}

/// An operation on up to three vectors `a`, `b`, `c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The low bytes of `a`, the others zero.
    Low(Shape),
    Integer(IntegerBinary, Shape),
    IntegerAccumulate(IntegerTernary, Shape),
    IntegerUnary(IntegerUnary, Shape),
    /// Lanes combined in pairs: first the pairs of `a`, then those of `b`. One of Add, SMax, SMin, UMax, UMin.
    Pairwise(IntegerBinary, Shape),
    /// Sums of pairs of lanes of `a`, each twice the lane's size (SADDLP, UADDLP).
    AddLongPairwise {
        signed: bool,
        shape: Shape,
    },
    /// All lanes of `a` combined.
    Reduce(Reduction, Shape),
    Shift(Shift, Shape, u8),
    /// SLI and SRI: `b` shifted into `a`, whose other bits stay.
    ShiftInsert {
        left: bool,
        shape: Shape,
        amount: u8,
    },
    /// Each lane of a half of `a` (the upper with `high`) extended to twice its size.
    Widen {
        signed: bool,
        high: bool,
        lane: Lane,
    },
    /// Each lane of `a` shifted right by `shift` (0 to its bits / 2), rounded if so, and made half its size. `shape` is the
    /// result's: 8 bytes, or one lane.
    Narrow {
        how: Narrowing,
        round: bool,
        shift: u8,
        shape: Shape,
    },
    /// The upper halves of the lanes of a + b or a − b, `lane` being the result's (ADDHN, RSUBHN, …). 8 bytes.
    NarrowHigh {
        subtract: bool,
        round: bool,
        lane: Lane,
    },
    /// Products of the lanes of halves of `a` and `b`; `shape` is the sources': 8 bytes, or one lane.
    MultiplyLong {
        product: LongProduct,
        high: bool,
        shape: Shape,
    },
    Logic(Logic, Shape),
    /// (a AND b) OR (NOT a AND c).
    Select(Shape),
    /// Lane `index` of `a` to all lanes of the shape.
    Duplicate {
        shape: Shape,
        index: u8,
    },
    /// `a` with its lane `to` replaced by lane `from` of `b`.
    Insert {
        lane: Lane,
        to: u8,
        from: u8,
    },
    Permute(Permutation, Shape),
    /// EXT: bytes of b:a from `position` on.
    Extract {
        shape: Shape,
        position: u8,
    },
    /// One register of TBL or TBX: bytes of `a`, replaced where the index in `c` is within 16 of `first` by that byte of
    /// `b`.
    TableLookup {
        shape: Shape,
        first: u8,
    },
    Float(FloatBinary, Shape),
    FloatUnary(FloatUnary, Shape),
    /// c + a × b, rounded once.
    FloatMultiplyAdd {
        negate_product: bool,
        negate_addend: bool,
        shape: Shape,
    },
    /// As [`Operation::Pairwise`]. One of Add, Max, Min, MaxNm, MinNm.
    FloatPairwise(FloatBinary, Shape),
    /// All lanes combined, halves first. One of Add, Max, Min, MaxNm, MinNm.
    FloatReduce(FloatBinary, Shape),
    /// FRINT: to an integral value; `exact` reports Inexact.
    FloatRound {
        rounding: Rounding,
        exact: bool,
        shape: Shape,
    },
    /// To integers (fixed-point with `fraction` bits) of the lane's size.
    FloatToFixed {
        signed: bool,
        rounding: Rounding,
        fraction: u8,
        shape: Shape,
    },
    /// From integers or fixed-point of the lane's size.
    FixedToFloat {
        signed: bool,
        fraction: u8,
        shape: Shape,
    },
    /// FCVT of a scalar.
    FloatConvert {
        from: Lane,
        to: Lane,
    },
    /// FCVTL: the lanes of a half of `a`, of size `from`, to the next precision.
    FloatWiden {
        high: bool,
        from: Lane,
    },
    /// FCVTN, FCVTXN (`odd`): to the next lower precision, that of `shape`: 8 bytes, or one lane.
    FloatNarrow {
        odd: bool,
        shape: Shape,
    },
    Crypto(Crypto),
}

/// An operation from a vector to a general register. 32-bit results are zero-extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ToValue {
    /// UMOV, FMOV: lane `index`, zero-extended.
    Lane { lane: Lane, index: u8 },
    /// SMOV: lane `index`, sign-extended to 32 or 64 bits.
    SignedLane { lane: Lane, index: u8, wide: bool },
    /// FCVT* to an integer or fixed-point number of 32 or 64 bits.
    FloatToFixed {
        from: Lane,
        wide: bool,
        signed: bool,
        rounding: Rounding,
        fraction: u8,
    },
}

/// An operation from a general register to a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FromValue {
    /// FMOV: the low `lane` bits, the rest of the vector zero.
    Move(Lane),
    /// INS, FMOV to the upper half: the other lanes stay.
    Insert { lane: Lane, index: u8 },
    /// DUP: to all lanes.
    Duplicate(Shape),
    /// SCVTF, UCVTF of 32 or 64 bits.
    FixedToFloat {
        to: Lane,
        wide: bool,
        signed: bool,
        fraction: u8,
    },
}

/// A scalar comparison, giving NZCV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compare {
    pub lane: Lane,
    /// FCMPE: quiet NaNs are invalid too.
    pub signaling: bool,
}

impl Operation {
    /// The result, exactly; FPSR's cumulative bits are added to `fpsr`.
    #[inline]
    pub fn apply(self, operands: [u128; 3], fpcr: u32, fpsr: &mut u32) -> u128 {
        let [a, b, c] = operands;
        match self {
            Operation::Low(shape) => a & shape.mask(),
            Operation::Logic(operation, shape) => {
                (match operation {
                    Logic::And => a & b,
                    Logic::Bic => a & !b,
                    Logic::Orr => a | b,
                    Logic::Orn => a | !b,
                    Logic::Eor => a ^ b,
                }) & shape.mask()
            }
            Operation::Select(shape) => ((a & b) | (!a & c)) & shape.mask(),
            Operation::Integer(operation, shape) => integer::binary(operation, shape, a, b, fpsr),
            Operation::IntegerAccumulate(operation, shape) => {
                integer::ternary(operation, shape, a, b, c, fpsr)
            }
            Operation::IntegerUnary(operation, shape) => integer::unary(operation, shape, a, fpsr),
            Operation::Pairwise(operation, shape) => {
                let (even, odd) = permute::pairs(shape, a, b);
                integer::binary(operation, shape, even, odd, fpsr)
            }
            Operation::AddLongPairwise { signed, shape } => {
                integer::add_long_pairwise(signed, shape, a)
            }
            Operation::Reduce(reduction, shape) => integer::reduce(reduction, shape, a),
            Operation::Shift(shift, shape, amount) => {
                integer::shift(shift, shape, a, amount.into(), fpsr)
            }
            Operation::ShiftInsert {
                left,
                shape,
                amount,
            } => integer::shift_insert(left, shape, a, b, amount.into()),
            Operation::Widen { signed, high, lane } => integer::widen(signed, high, lane, a),
            Operation::Narrow {
                how,
                round,
                shift,
                shape,
            } => integer::narrow(how, round, shift.into(), shape, a, fpsr),
            Operation::NarrowHigh {
                subtract,
                round,
                lane,
            } => integer::narrow_high(subtract, round, lane, a, b),
            Operation::MultiplyLong {
                product,
                high,
                shape,
            } => integer::multiply_long(product, high, shape, a, b, fpsr),
            Operation::Duplicate { shape, index } => permute::duplicate(shape, index.into(), a),
            Operation::Insert { lane, to, from } => {
                let value = permute::lane(lane, from.into(), b);
                permute::insert(lane, to.into(), a, value)
            }
            Operation::Permute(permutation, shape) => integer::permute(permutation, shape, a, b),
            Operation::Extract { shape, position } => {
                permute::extract(shape, position.into(), a, b)
            }
            Operation::TableLookup { shape, first } => permute::table_lookup(shape, first, a, b, c),
            Operation::Float(operation, shape) => float::binary(operation, shape, a, b, fpcr, fpsr),
            Operation::FloatUnary(operation, shape) => {
                float::unary(operation, shape, a, fpcr, fpsr)
            }
            Operation::FloatMultiplyAdd {
                negate_product,
                negate_addend,
                shape,
            } => float::multiply_add(negate_product, negate_addend, shape, a, b, c, fpcr, fpsr),
            Operation::FloatPairwise(operation, shape) => {
                let (even, odd) = permute::pairs(shape, a, b);
                float::binary(operation, shape, even, odd, fpcr, fpsr)
            }
            Operation::FloatReduce(operation, shape) => {
                float::reduce(operation, shape, a, fpcr, fpsr)
            }
            Operation::FloatRound {
                rounding,
                exact,
                shape,
            } => float::round(rounding, exact, shape, a, fpcr, fpsr),
            Operation::FloatToFixed {
                signed,
                rounding,
                fraction,
                shape,
            } => float::to_fixed(signed, rounding, fraction.into(), shape, a, fpcr, fpsr),
            Operation::FixedToFloat {
                signed,
                fraction,
                shape,
            } => float::from_fixed(signed, fraction.into(), shape, a, fpcr, fpsr),
            Operation::FloatConvert { from, to } => float::convert(from, to, a, fpcr, fpsr),
            Operation::FloatWiden { high, from } => float::widen(high, from, a, fpcr, fpsr),
            Operation::FloatNarrow { odd, shape } => float::narrow(odd, shape, a, fpcr, fpsr),
            Operation::Crypto(operation) => crypto::apply(operation, a, b, c),
        }
    }
}

impl ToValue {
    /// The result, exactly; FPSR's cumulative bits are added to `fpsr`.
    #[inline]
    pub fn apply(self, a: u128, fpcr: u32, fpsr: &mut u32) -> u64 {
        match self {
            ToValue::Lane { lane, index } => permute::lane(lane, index.into(), a),
            ToValue::SignedLane { lane, index, wide } => {
                let unused = 64 - lane.bits();
                let value = ((permute::lane(lane, index.into(), a) << unused) as i64) >> unused;
                if wide {
                    value as u64
                } else {
                    u64::from(value as u32)
                }
            }
            ToValue::FloatToFixed {
                from,
                wide,
                signed,
                rounding,
                fraction,
            } => {
                float::scalar_to_fixed(from, wide, signed, rounding, fraction.into(), a, fpcr, fpsr)
            }
        }
    }
}

impl FromValue {
    /// The result, exactly; FPSR's cumulative bits are added to `fpsr`. `into` is what [`FromValue::Insert`] leaves of.
    #[inline]
    pub fn apply(self, into: u128, value: u64, fpcr: u32, fpsr: &mut u32) -> u128 {
        match self {
            FromValue::Move(lane) => permute::lane(lane, 0, value.into()).into(),
            FromValue::Insert { lane, index } => permute::insert(lane, index.into(), into, value),
            FromValue::Duplicate(shape) => permute::duplicate(shape, 0, value.into()),
            FromValue::FixedToFloat {
                to,
                wide,
                signed,
                fraction,
            } => float::scalar_from_fixed(to, wide, signed, fraction.into(), value, fpcr, fpsr),
        }
    }
}

impl Compare {
    /// NZCV in bits 31:28; FPSR's cumulative bits are added to `fpsr`.
    #[inline]
    pub fn apply(self, a: u128, b: u128, fpcr: u32, fpsr: &mut u32) -> u32 {
        float::compare(self.lane, self.signaling, a, b, fpcr, fpsr)
    }
}

/// VFPExpandImm (DDI 0487, C2.2.3): the 8-bit immediate of FMOV as a float of the lane's size.
pub fn expand_float_immediate(imm8: u32, lane: Lane) -> u64 {
    let sign = u64::from(imm8 >> 7 & 1);
    let fraction = u64::from(imm8 & 0xf);
    let (exponent_bits, fraction_bits) = match lane {
        Lane::B | Lane::H => (5, 10),
        Lane::S => (8, 23),
        Lane::D => (11, 52),
    };
    let b = u64::from(imm8 >> 6 & 1);
    let low = u64::from(imm8 >> 4 & 3);
    let repeated = if b == 1 {
        (1 << (exponent_bits - 3)) - 1
    } else {
        0
    };
    let exponent = (b ^ 1) << (exponent_bits - 1) | repeated << 2 | low;
    sign << (exponent_bits + fraction_bits)
        | exponent << fraction_bits
        | fraction << (fraction_bits - 4)
}

/// AdvSIMDExpandImm (DDI 0487): the 64-bit pattern of MOVI, MVNI, FMOV, ORR and BIC immediates; MVNI and BIC invert it
/// themselves.
pub fn expand_immediate(op: bool, cmode: u32, imm8: u32) -> u64 {
    let imm = u64::from(imm8 & 0xff);
    let twice = |v: u64| v | v << 32;
    let four = |v: u64| twice(v | v << 16);
    match cmode >> 1 & 7 {
        0 => twice(imm),
        1 => twice(imm << 8),
        2 => twice(imm << 16),
        3 => twice(imm << 24),
        4 => four(imm),
        5 => four(imm << 8),
        6 if cmode & 1 == 0 => twice(imm << 8 | 0xff),
        6 => twice(imm << 16 | 0xffff),
        _ => match (cmode & 1 == 1, op) {
            (false, false) => imm * 0x0101_0101_0101_0101,
            (false, true) => (0..8).fold(0, |v, i| {
                v | if imm >> i & 1 == 1 {
                    0xff << (8 * i)
                } else {
                    0
                }
            }),
            (true, false) => twice(expand_float_immediate(imm8, Lane::S)),
            (true, true) => expand_float_immediate(imm8, Lane::D),
        },
    }
}
