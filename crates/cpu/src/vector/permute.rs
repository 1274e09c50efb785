//! Lanes moved about, and polynomial products.

use super::{Lane, Permutation, Shape, integer};

/// Lane `index`, zero-extended; zero beyond the vector.
#[inline(always)]
pub fn lane(lane: Lane, index: u32, vector: u128) -> u64 {
    let value = vector.checked_shr(index * lane.bits()).unwrap_or(0) as u64;
    value & (u64::MAX >> (64 - lane.bits()))
}

/// `vector` with lane `index` replaced by the low bits of `value`.
#[inline(always)]
pub fn insert(lane: Lane, index: u32, vector: u128, value: u64) -> u128 {
    let mask = u128::from(u64::MAX >> (64 - lane.bits()));
    let shift = (index * lane.bits()) & 127;
    (vector & !(mask << shift)) | ((u128::from(value) & mask) << shift)
}

/// Lane `index` in all lanes of the shape.
#[inline(always)]
pub fn duplicate(shape: Shape, index: u32, vector: u128) -> u128 {
    let ones: u128 = match shape.lane {
        Lane::B => 0x0101_0101_0101_0101_0101_0101_0101_0101,
        Lane::H => 0x0001_0001_0001_0001_0001_0001_0001_0001,
        Lane::S => 0x0000_0001_0000_0001_0000_0001_0000_0001,
        Lane::D => 0x0000_0000_0000_0001_0000_0000_0000_0001,
    };
    ones.wrapping_mul(lane(shape.lane, index, vector).into()) & shape.mask()
}

/// The even and the odd lanes of `a` followed by `b`.
pub fn pairs(shape: Shape, a: u128, b: u128) -> (u128, u128) {
    (
        integer::permute(Permutation::Uzp1, shape, a, b),
        integer::permute(Permutation::Uzp2, shape, a, b),
    )
}

/// EXT.
pub fn extract(shape: Shape, position: u32, a: u128, b: u128) -> u128 {
    let bytes = u32::from(shape.bytes);
    let position = position % bytes;
    let mask = shape.mask();
    let low = (a & mask) >> (8 * position);
    let high = (b & mask).checked_shl(8 * (bytes - position)).unwrap_or(0);
    (low | high) & mask
}

/// One table register of TBL, TBX.
pub fn table_lookup(shape: Shape, first: u8, a: u128, table: u128, indices: u128) -> u128 {
    let table = table.to_le_bytes();
    let mut result = a.to_le_bytes();
    for (byte, index) in result.iter_mut().zip(indices.to_le_bytes()) {
        if let Some(&found) = table.get(usize::from(index.wrapping_sub(first))) {
            *byte = found;
        }
    }
    u128::from_le_bytes(result) & shape.mask()
}

/// The product of polynomials over {0, 1}.
pub fn polynomial_product(a: u64, b: u64) -> u128 {
    let mut result = 0;
    let a = u128::from(a);
    let mut rest = b;
    while rest != 0 {
        result ^= a << rest.trailing_zeros();
        rest &= rest - 1;
    }
    result
}
