//! AES (FIPS 197), SHA-1 and SHA-256 (FIPS 180-4), a round at a time.

use super::Crypto;

/// Multiplication by x in AES's field.
const fn times2(a: u8) -> u8 {
    a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 }
}

const fn product(mut a: u8, mut b: u8) -> u8 {
    let mut result = 0;
    while b != 0 {
        if b & 1 != 0 {
            result ^= a;
        }
        a = times2(a);
        b >>= 1;
    }
    result
}

/// SubBytes' table: inversion and an affine map.
const SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let (mut p, mut q) = (1u8, 1u8);
    // p runs through all elements but zero as powers of 3, q through their inverses.
    loop {
        p = product(p, 3);
        q = product(q, 0xf6);
        let mixed = q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4);
        table[p as usize] = mixed ^ 0x63;
        if p == 1 {
            break;
        }
    }
    table[0] = 0x63;
    table
};

const INVERSE_SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[SBOX[i] as usize] = i as u8;
        i += 1;
    }
    table
};

fn sub_and_shift(state: u128) -> u128 {
    let state = state.to_le_bytes();
    // ShiftRows: row r moves left by r.
    let result: [u8; 16] =
        std::array::from_fn(|i| SBOX[usize::from(state[(i + 4 * (i % 4)) % 16])]);
    u128::from_le_bytes(result)
}

fn inverse_sub_and_shift(state: u128) -> u128 {
    let state = state.to_le_bytes();
    let result: [u8; 16] =
        std::array::from_fn(|i| INVERSE_SBOX[usize::from(state[(i + 12 * (i % 4)) % 16])]);
    u128::from_le_bytes(result)
}

/// Multiplication of all bytes by x.
fn times2_all(state: u128) -> u128 {
    const ONES: u128 = u128::MAX / 0xff;
    ((state << 1) & (ONES * 0xfe)) ^ (((state >> 7) & ONES) * 0x1b)
}

/// Each column's bytes moved up by `rows`: row r is what row r + `rows` was.
fn rotate_columns(state: u128, rows: u32) -> u128 {
    vector(words(state).map(|column| column.rotate_right(8 * rows)))
}

fn mix_columns(state: u128) -> u128 {
    let next = rotate_columns(state, 1);
    times2_all(state ^ next) ^ next ^ rotate_columns(state ^ next, 2)
}

/// The inverse is the same after each byte gained four times the sum of it and the one two rows on.
fn inverse_mix_columns(state: u128) -> u128 {
    let sum = state ^ rotate_columns(state, 2);
    mix_columns(state ^ times2_all(times2_all(sum)))
}

fn words(vector: u128) -> [u32; 4] {
    std::array::from_fn(|i| (vector >> (32 * i)) as u32)
}

fn vector(words: [u32; 4]) -> u128 {
    words
        .into_iter()
        .rev()
        .fold(0, |v, word| v << 32 | u128::from(word))
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    ((y ^ z) & x) ^ z
}

fn parity(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    (x & y) | ((x | y) & z)
}

fn sha1_hash(d: u128, n: u128, m: u128, f: fn(u32, u32, u32) -> u32) -> u128 {
    let mut x = words(d);
    let mut y = n as u32;
    for w in words(m) {
        y = y
            .wrapping_add(x[0].rotate_left(5))
            .wrapping_add(f(x[1], x[2], x[3]))
            .wrapping_add(w);
        x[1] = x[1].rotate_left(30);
        // Rotate y:x left by a word.
        (x, y) = ([y, x[0], x[1], x[2]], x[3]);
    }
    vector(x)
}

fn sha1_schedule0(d: u128, n: u128, m: u128) -> u128 {
    (n << 64 | d >> 64) ^ d ^ m
}

fn sha1_schedule1(d: u128, n: u128) -> u128 {
    let t = words(d ^ n >> 32);
    vector([
        t[0].rotate_left(1),
        t[1].rotate_left(1),
        t[2].rotate_left(1),
        t[3].rotate_left(1) ^ t[0].rotate_left(2),
    ])
}

/// Four rounds; the upper half of the state with `part2`, else the lower.
fn sha256_hash(x: u128, y: u128, w: u128, part2: bool) -> u128 {
    let (mut x, mut y) = (words(x), words(y));
    for w in words(w) {
        let sigma1 = y[0].rotate_right(6) ^ y[0].rotate_right(11) ^ y[0].rotate_right(25);
        let sigma0 = x[0].rotate_right(2) ^ x[0].rotate_right(13) ^ x[0].rotate_right(22);
        let t = y[3]
            .wrapping_add(sigma1)
            .wrapping_add(choose(y[0], y[1], y[2]))
            .wrapping_add(w);
        let e = t.wrapping_add(x[3]);
        let a = t
            .wrapping_add(sigma0)
            .wrapping_add(majority(x[0], x[1], x[2]));
        x = [a, x[0], x[1], x[2]];
        y = [e, y[0], y[1], y[2]];
    }
    vector(if part2 { y } else { x })
}

fn sha256_schedule0(d: u128, n: u128) -> u128 {
    let (d, next) = (words(d), words(d >> 32 | n << 96));
    vector(std::array::from_fn(|i| {
        let x = next[i];
        d[i].wrapping_add(x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3)
    }))
}

fn sha256_schedule1(d: u128, n: u128, m: u128) -> u128 {
    let (d, t0, m) = (words(d), words(n >> 32 | m << 96), words(m));
    let mut result = [0u32; 4];
    for i in 0..4 {
        let x = if i < 2 { m[i + 2] } else { result[i - 2] };
        let sigma = x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
        result[i] = sigma.wrapping_add(d[i]).wrapping_add(t0[i]);
    }
    vector(result)
}

pub fn apply(operation: Crypto, a: u128, b: u128, c: u128) -> u128 {
    match operation {
        Crypto::AesE => sub_and_shift(a ^ b),
        Crypto::AesD => inverse_sub_and_shift(a ^ b),
        Crypto::AesMc => mix_columns(a),
        Crypto::AesImc => inverse_mix_columns(a),
        Crypto::Sha1C => sha1_hash(a, b, c, choose),
        Crypto::Sha1P => sha1_hash(a, b, c, parity),
        Crypto::Sha1M => sha1_hash(a, b, c, majority),
        Crypto::Sha1H => u128::from((a as u32).rotate_left(30)),
        Crypto::Sha1Su0 => sha1_schedule0(a, b, c),
        Crypto::Sha1Su1 => sha1_schedule1(a, b),
        Crypto::Sha256H => sha256_hash(a, b, c, false),
        // SHA256H2 Qd, Qn, Vm: Qd holds the upper half, Qn the lower.
        Crypto::Sha256H2 => sha256_hash(b, a, c, true),
        Crypto::Sha256Su0 => sha256_schedule0(a, b),
        Crypto::Sha256Su1 => sha256_schedule1(a, b, c),
    }
}
