//! Values out of the definitions; the whole is compared with another implementation in `tests/instructions`.

use super::*;
use crate::float::QC;

fn apply(operation: Operation, operands: [u128; 3]) -> (u128, u32) {
    let mut fpsr = 0;
    let result = operation.apply(operands, 0, &mut fpsr);
    (result, fpsr)
}

fn bytes(hex: &str) -> u128 {
    // As in memory: the first byte is the lowest.
    u128::from_str_radix(hex, 16).unwrap().swap_bytes()
}

/// FIPS 197, appendix B: the first round.
#[test]
fn aes() {
    let crypto = |operation, a, b| apply(Operation::Crypto(operation), [a, b, 0]).0;
    let input = bytes("3243f6a8885a308d313198a2e0370734");
    let key = bytes("2b7e151628aed2a6abf7158809cf4f3c");
    let shifted = crypto(Crypto::AesE, input, key);
    assert_eq!(shifted, bytes("d4bf5d30e0b452aeb84111f11e2798e5"));
    let mixed = crypto(Crypto::AesMc, shifted, 0);
    assert_eq!(mixed, bytes("046681e5e0cb199a48f8d37a2806264c"));
    assert_eq!(crypto(Crypto::AesImc, mixed, 0), shifted);
    assert_eq!(crypto(Crypto::AesD, shifted, 0), input ^ key);
}

/// FIPS 180-4: the digest of "abc" begins with ba7816bf.
#[test]
fn sha256() {
    const K: [u32; 64] = {
        // The fractional parts of cube roots of primes, by integers: floor(cbrt(p) × 2^32).
        let mut k = [0; 64];
        let (mut p, mut i) = (2u128, 0);
        while i < 64 {
            let mut d = 2;
            while d * d <= p && p % d != 0 {
                d += 1;
            }
            if d * d > p {
                let (mut low, mut high) = (0u128, 1 << 36);
                while high - low > 1 {
                    let middle = (low + high) / 2;
                    if middle * middle * middle <= p << 96 {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                k[i] = low as u32;
                i += 1;
            }
            p += 1;
        }
        k
    };
    let join = |w: &[u32]| w.iter().rev().fold(0u128, |v, &w| v << 32 | u128::from(w));
    let crypto = |operation, operands| apply(Operation::Crypto(operation), operands).0;
    let add = |a, b| {
        let shape = Shape::vector(Lane::S, true);
        apply(Operation::Integer(IntegerBinary::Add, shape), [a, b, 0]).0
    };
    let start = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    let (low, high) = (join(&start[..4]), join(&start[4..]));
    let mut message = [0u32; 16];
    (message[0], message[15]) = (0x6162_6380, 24);
    let mut w: Vec<u128> = message.chunks(4).map(join).collect();
    let (mut abcd, mut efgh) = (low, high);
    for round in 0..16 {
        let wk = add(w[round], join(&K[4 * round..][..4]));
        let next = crypto(Crypto::Sha256H, [abcd, efgh, wk]);
        efgh = crypto(Crypto::Sha256H2, [efgh, abcd, wk]);
        abcd = next;
        let partial = crypto(Crypto::Sha256Su0, [w[round], w[round + 1], 0]);
        w.push(crypto(
            Crypto::Sha256Su1,
            [partial, w[round + 2], w[round + 3]],
        ));
    }
    assert_eq!(
        add(abcd, low),
        join(&[0xba78_16bf, 0x8f01_cfea, 0x4141_40de, 0x5dae_2223])
    );
    assert_eq!(
        add(efgh, high),
        join(&[0xb003_61a3, 0x9617_7a9c, 0xb410_ff61, 0xf200_15ad])
    );
}

#[test]
fn saturation_is_told() {
    let binary = |operation, lane, a, b| {
        apply(
            Operation::Integer(operation, Shape::scalar(lane)),
            [a, b, 0],
        )
    };
    assert_eq!(binary(IntegerBinary::SQAdd, Lane::B, 0x7f, 1), (0x7f, QC));
    assert_eq!(binary(IntegerBinary::UQSub, Lane::H, 1, 2), (0, QC));
    assert_eq!(
        binary(IntegerBinary::SQDMulH, Lane::S, 0x8000_0000, 0x8000_0000),
        (0x7fff_ffff, QC)
    );
    assert_eq!(
        binary(IntegerBinary::SQShl, Lane::D, 1, 63),
        (i64::MAX as u128, QC)
    );
    assert_eq!(binary(IntegerBinary::UQShl, Lane::D, 1, 63), (1 << 63, 0));
    // What lies beyond the lanes of the shape is not looked at.
    assert_eq!(binary(IntegerBinary::SQAdd, Lane::B, 0x7f00, 0x100), (0, 0));
}

#[test]
fn shapes_bound_results() {
    let shape = Shape::vector(Lane::H, false);
    let all = u128::MAX;
    for operation in [
        Operation::Low(shape),
        Operation::Logic(Logic::Orn, shape),
        Operation::IntegerUnary(IntegerUnary::Not, shape),
        Operation::Integer(IntegerBinary::CmEq, shape),
        Operation::Permute(Permutation::Zip1, shape),
        Operation::Duplicate { shape, index: 7 },
        Operation::ShiftInsert {
            left: true,
            shape,
            amount: 3,
        },
        Operation::TableLookup { shape, first: 0 },
        Operation::FloatUnary(FloatUnary::Neg, shape),
    ] {
        assert_eq!(apply(operation, [all; 3]).0 >> 64, 0, "{operation:?}");
    }
}

#[test]
fn immediates_expand() {
    assert_eq!(expand_float_immediate(0x70, Lane::D), 0x3ff0_0000_0000_0000);
    assert_eq!(expand_float_immediate(0x80, Lane::S), 0xc000_0000);
    assert_eq!(expand_float_immediate(0x00, Lane::H), 0x4000);
    assert_eq!(
        expand_immediate(true, 14, 0b1000_0001),
        0xff00_0000_0000_00ff
    );
    assert_eq!(expand_immediate(false, 13, 0x12), 0x0012_ffff_0012_ffff);
}
