//! Advanced SIMD copies, permutations and table look-ups: Arm DDI 0487, C4.1.90.

use crate::emit::{Emit, Flow, Outcome};
use crate::vector::{FromValue, Lane, Operation, Permutation, Shape, ToValue};

use super::vector::{BHSD, apply_one, apply_two, check_enabled, integer_shape, q, rows};
use super::{bit, bits, rd, rm, rn, undefined};

rows! {
    uzp1 => permute(Permutation::Uzp1);
    trn1 => permute(Permutation::Trn1);
    zip1 => permute(Permutation::Zip1);
    uzp2 => permute(Permutation::Uzp2);
    trn2 => permute(Permutation::Trn2);
    zip2 => permute(Permutation::Zip2);
    tbl => table_lookup(false);
    tbx => table_lookup(true);
}

/// The lane that `imm5` names: its lowest set bit is the size, the rest the index.
fn lane_of(word: u32) -> Option<(Lane, u8)> {
    let imm5 = bits(word, 20, 16);
    let size = imm5.trailing_zeros();
    (size < 4).then(|| (Lane::from_size(size), (imm5 >> (size + 1)) as u8))
}

pub fn dup_element_vector<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    match lane_of(word) {
        Some((lane, index)) if lane != Lane::D || q(word) => {
            let shape = Shape::vector(lane, q(word));
            apply_one(e, word, Operation::Duplicate { shape, index })
        }
        _ => undefined(e, word),
    }
}

pub fn dup_element_scalar<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some((lane, index)) = lane_of(word) else {
        return undefined(e, word);
    };
    let shape = Shape::scalar(lane);
    apply_one(e, word, Operation::Duplicate { shape, index })
}

fn from_general<E: Emit>(e: &mut E, word: u32, operation: FromValue) -> Outcome<E> {
    check_enabled!(e);
    let (d, n) = (e.v(rd(word)), e.x(rn(word)));
    let result = e.value_to_vector(operation, d, n);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn to_general<E: Emit>(e: &mut E, word: u32, operation: ToValue) -> Outcome<E> {
    check_enabled!(e);
    let n = e.v(rn(word));
    let result = e.vector_to_value(operation, n);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

pub fn dup_general<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    match lane_of(word) {
        Some((lane, _)) if lane != Lane::D || q(word) => {
            from_general(e, word, FromValue::Duplicate(Shape::vector(lane, q(word))))
        }
        _ => undefined(e, word),
    }
}

pub fn ins_general<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some((lane, index)) = lane_of(word) else {
        return undefined(e, word);
    };
    from_general(e, word, FromValue::Insert { lane, index })
}

pub fn smov<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let wide = q(word);
    match lane_of(word) {
        Some((lane, index)) if lane < Lane::S || (lane == Lane::S && wide) => {
            to_general(e, word, ToValue::SignedLane { lane, index, wide })
        }
        _ => undefined(e, word),
    }
}

pub fn umov<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    match lane_of(word) {
        Some((lane, index)) if (lane == Lane::D) == q(word) => {
            to_general(e, word, ToValue::Lane { lane, index })
        }
        _ => undefined(e, word),
    }
}

pub fn ins_element<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some((lane, to)) = lane_of(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let from = (bits(word, 14, 11) >> lane as u32) as u8;
    let (d, n) = (e.v(rd(word)), e.v(rn(word)));
    let result = e.vector(Operation::Insert { lane, to, from }, [d, n, n]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn permute<E: Emit>(e: &mut E, word: u32, permutation: Permutation) -> Outcome<E> {
    let Some(shape) = integer_shape(word, BHSD) else {
        return undefined(e, word);
    };
    apply_two(e, word, Operation::Permute(permutation, shape))
}

pub fn ext<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if !q(word) && bit(word, 14) {
        return undefined(e, word);
    }
    let shape = Shape::vector(Lane::B, q(word));
    let position = bits(word, 14, 11) as u8;
    apply_two(e, word, Operation::Extract { shape, position })
}

fn table_lookup<E: Emit>(e: &mut E, word: u32, keep: bool) -> Outcome<E> {
    check_enabled!(e);
    let shape = Shape::vector(Lane::B, q(word));
    let indices = e.v(rm(word));
    let mut result = if keep {
        e.v(rd(word))
    } else {
        e.vector_constant(0)
    };
    for i in 0..=bits(word, 14, 13) {
        let table = e.v((rn(word) + i) & 31);
        let first = 16 * i as u8;
        result = e.vector(
            Operation::TableLookup { shape, first },
            [result, table, indices],
        );
    }
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}
