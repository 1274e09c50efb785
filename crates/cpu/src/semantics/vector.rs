//! What the functions of Advanced SIMD and floating point share: which lanes a word names, and the trap.

use crate::emit::{Emit, Flow, Outcome};
use crate::vector::{Lane, Operation, Permutation, Shape};

use super::{bit, bits, rd};

/// Takes the trap of CPACR_EL1.FPEN where it is set; after everything that makes a word unallocated.
macro_rules! check_enabled {
    ($e:expr) => {
        if !$e.key().fp_enabled {
            return $e.exception($crate::emit::Exception::FpTrap);
        }
    };
}

/// Semantic functions by table: names of rows of the decode table, what they have in common, and what is theirs.
macro_rules! rows {
    ($($($name:ident),+ => $function:ident $arguments:tt;)*) => {
        $($(rows! { @ $name $function $arguments })+)*
    };
    (@ $name:ident $function:ident ($($argument:expr),*)) => {
        pub fn $name<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
            $function(e, word $(, $argument)*)
        }
    };
}

pub(super) use {check_enabled, rows};

/// A set of lane sizes, as bits by `size`.
pub(super) type Lanes = u8;
pub(super) const B: Lanes = 1;
pub(super) const S: Lanes = 4;
pub(super) const D: Lanes = 8;
pub(super) const BH: Lanes = 3;
pub(super) const HS: Lanes = 6;
pub(super) const BHS: Lanes = 7;
pub(super) const BHSD: Lanes = 15;

/// Whether this is a scalar instruction of Advanced SIMD.
#[inline(always)]
pub(super) fn is_scalar(word: u32) -> bool {
    bit(word, 28)
}

/// Whether the instruction works on 128 bits, or on the upper half (`…2`).
#[inline(always)]
pub(super) fn q(word: u32) -> bool {
    bit(word, 30) && !is_scalar(word)
}

/// One lane, or all of the vector: nothing for the reserved 1D.
#[inline(always)]
pub(super) fn shape_of(word: u32, lane: Lane) -> Option<Shape> {
    if is_scalar(word) {
        Some(Shape::scalar(lane))
    } else if lane == Lane::D && !q(word) {
        None
    } else {
        Some(Shape::vector(lane, q(word)))
    }
}

/// The lanes by `size`, if it is one of those.
#[inline(always)]
pub(super) fn integer_shape(word: u32, lanes: Lanes) -> Option<Shape> {
    let size = bits(word, 23, 22);
    if lanes >> size & 1 == 0 {
        return None;
    }
    shape_of(word, Lane::from_size(size))
}

/// The lane by `sz`, or half precision.
#[inline(always)]
pub(super) fn float_lane(word: u32, half: bool) -> Lane {
    match (half, bit(word, 22)) {
        (true, _) => Lane::H,
        (false, false) => Lane::S,
        (false, true) => Lane::D,
    }
}

/// Lane `index` of register Vm of by-element instructions; nothing where it is reserved.
#[inline(always)]
pub(super) fn element(word: u32, lane: Lane) -> Option<(u32, u8)> {
    let (h, l, m) = (bits(word, 11, 11), bits(word, 21, 21), bits(word, 20, 20));
    match lane {
        Lane::B => None,
        Lane::H => Some((bits(word, 19, 16), (h << 2 | l << 1 | m) as u8)),
        Lane::S => Some((bits(word, 20, 16), (h << 1 | l) as u8)),
        Lane::D if l == 0 => Some((bits(word, 20, 16), h as u8)),
        Lane::D => None,
    }
}

/// An element of Vm in all lanes of the shape.
#[inline(always)]
pub(super) fn duplicate<E: Emit>(
    e: &mut E,
    (register, index): (u32, u8),
    shape: Shape,
) -> E::Vector {
    let m = e.v(register);
    e.vector(Operation::Duplicate { shape, index }, [m, m, m])
}

/// Writes a narrowed result: `…2` instructions leave the lower half of Vd and write the upper.
#[inline(always)]
pub(super) fn set_narrowed<E: Emit>(e: &mut E, word: u32, result: E::Vector) {
    let result = if q(word) {
        let d = e.v(rd(word));
        let join = Operation::Permute(Permutation::Zip1, Shape::vector(Lane::D, true));
        e.vector(join, [d, result, result])
    } else {
        result
    };
    e.set_v(rd(word), result);
}

/// Where an operation on one register has zero for the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    First,
    Second,
}

/// One operation on Vn.
#[inline(always)]
pub(super) fn apply_one<E: Emit>(e: &mut E, word: u32, operation: Operation) -> Outcome<E> {
    check_enabled!(e);
    let n = e.v(super::rn(word));
    let result = e.vector(operation, [n, n, n]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// One operation on Vn and Vm.
#[inline(always)]
pub(super) fn apply_two<E: Emit>(e: &mut E, word: u32, operation: Operation) -> Outcome<E> {
    check_enabled!(e);
    let n = e.v(super::rn(word));
    let m = e.v(super::rm(word));
    let result = e.vector(operation, [n, m, m]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

/// One operation on Vn, Vm and, as accumulator, Vd.
#[inline(always)]
pub(super) fn apply_three<E: Emit>(e: &mut E, word: u32, operation: Operation) -> Outcome<E> {
    check_enabled!(e);
    let n = e.v(super::rn(word));
    let m = e.v(super::rm(word));
    let d = e.v(rd(word));
    let result = e.vector(operation, [n, m, d]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}
