//! Loads and stores of SIMD and floating-point registers: Arm DDI 0487, C4.1.88.

use crate::emit::{Access, AccessKind, Emit, Flow, Order, Outcome, Width};
use crate::vector::{FromValue, Lane, Operation, Permutation, Shape, ToValue};

use super::integer::extended;
use super::vector::check_enabled;
use super::{bit, bits, rd, rm, rn, signed, undefined};

/// log2 of the bytes of a register by `size` and `opc<1>`; nothing where that is reserved.
#[inline(always)]
fn scale_of(word: u32) -> Option<u32> {
    match (bit(word, 23), bits(word, 31, 30)) {
        (false, size) => Some(size),
        (true, 0) => Some(4),
        (true, _) => None,
    }
}

#[inline(always)]
fn offset_by<E: Emit>(e: &mut E, base: E::Value, offset: i64) -> E::Value {
    if offset == 0 {
        return base;
    }
    let offset = e.constant(offset as u64);
    e.add(Width::W64, base, offset)
}

#[inline(always)]
fn plain(kind: AccessKind, bytes: u32, size: u32, sp_base: bool) -> Access {
    Access {
        bytes: bytes as u16,
        size: size as u8,
        kind,
        order: Order::Plain,
        unprivileged: false,
        sp_base,
    }
}

/// Stores or loads (bit 22) Vt, `1 << scale` bytes, and then moves the base.
#[inline(always)]
fn transfer<E: Emit>(
    e: &mut E,
    word: u32,
    scale: u32,
    address: E::Value,
    moved: Option<E::Value>,
) -> Outcome<E> {
    let size = 1 << scale;
    if bit(word, 22) {
        let place = e.access(address, plain(AccessKind::Read, size, size, rn(word) == 31))?;
        let value = e.read_vector(place, 0, size as u8)?;
        e.set_v(rd(word), value);
    } else {
        let place = e.access(
            address,
            plain(AccessKind::Write, size, size, rn(word) == 31),
        )?;
        let value = e.v(rd(word));
        e.write_vector(place, 0, size as u8, value)?;
    }
    if let Some(moved) = moved {
        e.set_x_or_sp(rn(word), moved);
    }
    Ok(Flow::Next)
}

#[inline(always)]
fn offset<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(scale) = scale_of(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let base = e.x_or_sp(rn(word));
    let address = offset_by(e, base, i64::from(bits(word, 21, 10)) << scale);
    transfer(e, word, scale, address, None)
}

#[inline(always)]
pub fn store_vector_offset<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    offset(e, word)
}

#[inline(always)]
pub fn load_vector_offset<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    offset(e, word)
}

#[inline(always)]
fn unscaled<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(scale) = scale_of(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let base = e.x_or_sp(rn(word));
    let address = offset_by(e, base, signed(word, 20, 12));
    transfer(e, word, scale, address, None)
}

#[inline(always)]
pub fn store_vector_unscaled<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    unscaled(e, word)
}

#[inline(always)]
pub fn load_vector_unscaled<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    unscaled(e, word)
}

/// Bit 11 is pre-index.
#[inline(always)]
fn indexed<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(scale) = scale_of(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let base = e.x_or_sp(rn(word));
    let moved = offset_by(e, base, signed(word, 20, 12));
    let address = if bit(word, 11) { moved } else { base };
    transfer(e, word, scale, address, Some(moved))
}

#[inline(always)]
pub fn store_vector_post<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    indexed(e, word)
}

#[inline(always)]
pub fn load_vector_post<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    indexed(e, word)
}

#[inline(always)]
pub fn store_vector_pre<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    indexed(e, word)
}

#[inline(always)]
pub fn load_vector_pre<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    indexed(e, word)
}

#[inline(always)]
fn register<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(scale) = scale_of(word) else {
        return undefined(e, word);
    };
    // Options without bit 1 (8- and 16-bit extensions) are reserved.
    if !bit(word, 14) {
        return undefined(e, word);
    }
    check_enabled!(e);
    let base = e.x_or_sp(rn(word));
    let shift = if bit(word, 12) { scale } else { 0 };
    let offset = extended(e, rm(word), bits(word, 15, 13), shift);
    let address = e.add(Width::W64, base, offset);
    transfer(e, word, scale, address, None)
}

#[inline(always)]
pub fn store_vector_register<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    register(e, word)
}

#[inline(always)]
pub fn load_vector_register<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    register(e, word)
}

pub fn load_vector_literal<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let scale = 2 + bits(word, 31, 30);
    if scale == 5 {
        return undefined(e, word);
    }
    check_enabled!(e);
    let address = e.pc(signed(word, 23, 5) << 2);
    let place = e.access(
        address,
        plain(AccessKind::Read, 1 << scale, 1 << scale, false),
    )?;
    let value = e.read_vector(place, 0, 1 << scale)?;
    e.set_v(rd(word), value);
    Ok(Flow::Next)
}

/// The base's address, and what it becomes if it changes: bits 24:23 are non-temporal, post-index, offset, pre-index.
#[inline(always)]
fn pair_address<E: Emit>(e: &mut E, word: u32, size: u32) -> (E::Value, Option<E::Value>) {
    let base = e.x_or_sp(rn(word));
    let moved = offset_by(e, base, signed(word, 21, 15) * i64::from(size));
    match bits(word, 24, 23) {
        1 => (base, Some(moved)),
        3 => (moved, Some(moved)),
        _ => (moved, None),
    }
}

#[inline(always)]
pub fn store_vector_pair<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if bits(word, 31, 30) == 3 {
        return undefined(e, word);
    }
    check_enabled!(e);
    let size = 4 << bits(word, 31, 30);
    let (address, moved) = pair_address(e, word, size);
    let access = plain(AccessKind::Write, 2 * size, size, rn(word) == 31);
    let place = e.access(address, access)?;
    let first = e.v(rd(word));
    let second = e.v(bits(word, 14, 10));
    e.write_vector(place, 0, size as u8, first)?;
    e.write_vector(place, size, size as u8, second)?;
    if let Some(moved) = moved {
        e.set_x_or_sp(rn(word), moved);
    }
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_vector_pair<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if bits(word, 31, 30) == 3 {
        return undefined(e, word);
    }
    check_enabled!(e);
    let size = 4 << bits(word, 31, 30);
    let (address, moved) = pair_address(e, word, size);
    let access = plain(AccessKind::Read, 2 * size, size, rn(word) == 31);
    let place = e.access(address, access)?;
    let first = e.read_vector(place, 0, size as u8)?;
    let second = e.read_vector(place, size, size as u8)?;
    if let Some(moved) = moved {
        e.set_x_or_sp(rn(word), moved);
    }
    e.set_v(rd(word), first);
    e.set_v(bits(word, 14, 10), second);
    Ok(Flow::Next)
}

// ---- structures

/// LD1 to LD4, ST1 to ST4 of whole registers.
#[derive(Clone, Copy)]
struct Structures {
    /// Registers in all.
    registers: u32,
    /// Elements of a structure, one a register; 1 if registers follow each other.
    elements: u32,
    shape: Shape,
}

impl Structures {
    fn of(word: u32) -> Option<Structures> {
        let (registers, elements) = match bits(word, 15, 12) {
            0b0000 => (4, 4),
            0b0010 => (4, 1),
            0b0100 => (3, 3),
            0b0110 => (3, 1),
            0b0111 => (1, 1),
            0b1000 => (2, 2),
            0b1010 => (2, 1),
            _ => return None,
        };
        let lane = Lane::from_size(bits(word, 11, 10));
        if lane == Lane::D && !bit(word, 30) && elements != 1 {
            return None;
        }
        Some(Structures {
            registers,
            elements,
            shape: Shape::vector(lane, bit(word, 30)),
        })
    }
}

/// Structure accesses check alignment by element.
fn by_element(kind: AccessKind, bytes: u32, lane: Lane, sp_base: bool) -> Access {
    Access {
        order: Order::Element(lane.bytes() as u8),
        ..plain(kind, bytes, lane.bytes(), sp_base)
    }
}

/// Moves the base of post-indexed forms (bit 23): by Xm, or by what was accessed if that is 31.
fn move_base<E: Emit>(e: &mut E, word: u32, base: E::Value, bytes: u32) {
    if !bit(word, 23) {
        return;
    }
    let by = match rm(word) {
        31 => e.constant(bytes.into()),
        m => e.x(m),
    };
    let moved = e.add(Width::W64, base, by);
    e.set_x_or_sp(rn(word), moved);
}

/// Register `i` from Vt on.
fn nth(word: u32, i: usize) -> u32 {
    (rd(word) + i as u32) & 31
}

fn permute<E: Emit>(
    e: &mut E,
    permutation: Permutation,
    shape: Shape,
    a: E::Vector,
    b: E::Vector,
) -> E::Vector {
    e.vector(Operation::Permute(permutation, shape), [a, b, b])
}

fn load_all<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(structures) = Structures::of(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let shape = structures.shape;
    let size = u32::from(shape.bytes);
    let bytes = structures.registers * size;
    let base = e.x_or_sp(rn(word));
    let access = by_element(AccessKind::Read, bytes, shape.lane, rn(word) == 31);
    let place = e.access(base, access)?;
    let zero = e.vector_constant(0);
    let mut vectors = [zero; 4];
    if structures.elements == 3 {
        for i in 0..3 * shape.lanes() {
            let element = e.read(place, i * shape.lane.bytes(), shape.lane.bytes() as u8)?;
            let insert = FromValue::Insert {
                lane: shape.lane,
                index: (i / 3) as u8,
            };
            let vector = vectors[(i % 3) as usize];
            vectors[(i % 3) as usize] = e.value_to_vector(insert, vector, element);
        }
    } else {
        for i in 0..structures.registers {
            vectors[i as usize] = e.read_vector(place, i * size, shape.bytes)?;
        }
    }
    use Permutation::{Uzp1, Uzp2};
    let [a, b, c, d] = vectors;
    if structures.elements == 2 {
        vectors[0] = permute(e, Uzp1, shape, a, b);
        vectors[1] = permute(e, Uzp2, shape, a, b);
    } else if structures.elements == 4 {
        let (even, even_too) = (permute(e, Uzp1, shape, a, b), permute(e, Uzp1, shape, c, d));
        let (odd, odd_too) = (permute(e, Uzp2, shape, a, b), permute(e, Uzp2, shape, c, d));
        vectors[0] = permute(e, Uzp1, shape, even, even_too);
        vectors[1] = permute(e, Uzp1, shape, odd, odd_too);
        vectors[2] = permute(e, Uzp2, shape, even, even_too);
        vectors[3] = permute(e, Uzp2, shape, odd, odd_too);
    }
    move_base(e, word, base, bytes);
    for (i, &vector) in vectors[..structures.registers as usize].iter().enumerate() {
        e.set_v(nth(word, i), vector);
    }
    Ok(Flow::Next)
}

fn store_all<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(structures) = Structures::of(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let shape = structures.shape;
    let size = u32::from(shape.bytes);
    let bytes = structures.registers * size;
    let base = e.x_or_sp(rn(word));
    let access = by_element(AccessKind::Write, bytes, shape.lane, rn(word) == 31);
    let place = e.access(base, access)?;
    let [a, b, c, d] = std::array::from_fn(|i| e.v(nth(word, i)));
    use Permutation::{Zip1, Zip2};
    let vectors = match structures.elements {
        2 => [
            permute(e, Zip1, shape, a, b),
            permute(e, Zip2, shape, a, b),
            a,
            a,
        ],
        4 => {
            let (low, low_too) = (permute(e, Zip1, shape, a, c), permute(e, Zip1, shape, b, d));
            let (high, high_too) = (permute(e, Zip2, shape, a, c), permute(e, Zip2, shape, b, d));
            [
                permute(e, Zip1, shape, low, low_too),
                permute(e, Zip2, shape, low, low_too),
                permute(e, Zip1, shape, high, high_too),
                permute(e, Zip2, shape, high, high_too),
            ]
        }
        _ => [a, b, c, d],
    };
    if structures.elements == 3 {
        for i in 0..3 * shape.lanes() {
            let lane = ToValue::Lane {
                lane: shape.lane,
                index: (i / 3) as u8,
            };
            let element = e.vector_to_value(lane, vectors[(i % 3) as usize]);
            let bytes = shape.lane.bytes();
            e.write(place, i * bytes, bytes as u8, element)?;
        }
    } else {
        for i in 0..structures.registers {
            e.write_vector(place, i * size, shape.bytes, vectors[i as usize])?;
        }
    }
    move_base(e, word, base, bytes);
    Ok(Flow::Next)
}

pub fn load_structures<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    load_all(e, word)
}

pub fn load_structures_post<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    load_all(e, word)
}

pub fn store_structures<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    store_all(e, word)
}

pub fn store_structures_post<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    store_all(e, word)
}

/// One structure, to one lane of some registers or (loads) to all lanes.
#[derive(Clone, Copy)]
struct Structure {
    elements: u32,
    lane: Lane,
    /// None: all lanes.
    index: Option<u8>,
}

impl Structure {
    fn of(word: u32) -> Option<Structure> {
        let opcode = bits(word, 15, 13);
        let (q, s, size) = (bits(word, 30, 30), bits(word, 12, 12), bits(word, 11, 10));
        let load = bit(word, 22);
        let position = q << 3 | s << 2 | size;
        let (lane, index) = match opcode >> 1 {
            0 => (Lane::B, Some(position)),
            1 if size & 1 == 0 => (Lane::H, Some(position >> 1)),
            2 if size == 0 => (Lane::S, Some(position >> 2)),
            2 if size == 1 && s == 0 => (Lane::D, Some(q)),
            3 if load && s == 0 => (Lane::from_size(size), None),
            _ => return None,
        };
        Some(Structure {
            elements: ((opcode & 1) << 1 | bits(word, 21, 21)) + 1,
            lane,
            index: index.map(|index| index as u8),
        })
    }
}

fn load_one<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(structure) = Structure::of(word) else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let Structure {
        elements,
        lane,
        index,
    } = structure;
    let bytes = elements * lane.bytes();
    let base = e.x_or_sp(rn(word));
    let access = by_element(AccessKind::Read, bytes, lane, rn(word) == 31);
    let place = e.access(base, access)?;
    let operation = match index {
        Some(index) => FromValue::Insert { lane, index },
        None => FromValue::Duplicate(Shape::vector(lane, bit(word, 30))),
    };
    let zero = e.vector_constant(0);
    let mut vectors = [zero; 4];
    for i in 0..elements {
        let element = e.read(place, i * lane.bytes(), lane.bytes() as u8)?;
        let into = e.v(nth(word, i as usize));
        vectors[i as usize] = e.value_to_vector(operation, into, element);
    }
    move_base(e, word, base, bytes);
    for (i, &vector) in vectors[..elements as usize].iter().enumerate() {
        e.set_v(nth(word, i), vector);
    }
    Ok(Flow::Next)
}

fn store_one<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(Structure {
        elements,
        lane,
        index: Some(index),
    }) = Structure::of(word)
    else {
        return undefined(e, word);
    };
    check_enabled!(e);
    let bytes = elements * lane.bytes();
    let base = e.x_or_sp(rn(word));
    let access = by_element(AccessKind::Write, bytes, lane, rn(word) == 31);
    let place = e.access(base, access)?;
    for i in 0..elements {
        let vector = e.v(nth(word, i as usize));
        let element = e.vector_to_value(ToValue::Lane { lane, index }, vector);
        e.write(place, i * lane.bytes(), lane.bytes() as u8, element)?;
    }
    move_base(e, word, base, bytes);
    Ok(Flow::Next)
}

pub fn load_structure<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    load_one(e, word)
}

pub fn load_structure_post<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    load_one(e, word)
}

pub fn store_structure<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    store_one(e, word)
}

pub fn store_structure_post<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    store_one(e, word)
}
