//! Loads and stores of general registers: Arm DDI 0487, C4.1.88.

use crate::emit::{Access, AccessKind, Emit, Flow, Order, Outcome, Width};

use super::integer::extended;
use super::system::authenticate;
use super::{bit, bits, rd, rm, rn, signed, undefined};

/// A plain access of one register of `size` bytes, with base register `n`.
#[inline(always)]
fn plain(kind: AccessKind, size: u8, n: u32) -> Access {
    Access {
        bytes: size.into(),
        size,
        kind,
        order: Order::Plain,
        unprivileged: false,
        sp_base: n == 31,
    }
}

#[inline(always)]
fn size(word: u32) -> u8 {
    1 << bits(word, 31, 30)
}

/// What LDRSB, LDRSH and LDRSW extend to, or nothing where the encoding is reserved.
#[inline(always)]
fn signed_width(word: u32) -> Option<Width> {
    match (bits(word, 31, 30), bit(word, 22)) {
        (0..=1, true) => Some(Width::W32),
        (0..=2, false) => Some(Width::W64),
        _ => None,
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

/// The value at `address`, zero-extended.
#[inline(always)]
fn load<E: Emit>(e: &mut E, address: E::Value, access: Access) -> Result<E::Value, E::Stop> {
    let place = e.access(address, access)?;
    e.read(place, 0, access.size)
}

/// Stores Xt.
#[inline(always)]
fn store<E: Emit>(e: &mut E, word: u32, address: E::Value, access: Access) -> Result<(), E::Stop> {
    let place = e.access(address, access)?;
    let value = e.x(rd(word));
    e.write(place, 0, access.size, value)
}

// ---- immediate offset, scaled

#[inline(always)]
fn scaled_address<E: Emit>(e: &mut E, word: u32) -> E::Value {
    let base = e.x_or_sp(rn(word));
    offset_by(e, base, i64::from(bits(word, 21, 10)) << bits(word, 31, 30))
}

#[inline(always)]
pub fn store_offset<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = scaled_address(e, word);
    store(
        e,
        word,
        address,
        plain(AccessKind::Write, size(word), rn(word)),
    )?;
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_offset<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = scaled_address(e, word);
    let value = load(e, address, plain(AccessKind::Read, size(word), rn(word)))?;
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_signed_offset<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(w) = signed_width(word) else {
        return undefined(e, word);
    };
    let address = scaled_address(e, word);
    let value = load(e, address, plain(AccessKind::Read, size(word), rn(word)))?;
    let value = e.sign_extend(w, value, 8 * u32::from(size(word)));
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn prefetch_offset<E: Emit>(_: &mut E, _: u32) -> Outcome<E> {
    Ok(Flow::Next)
}

// ---- immediate offset, unscaled

#[inline(always)]
fn unscaled_address<E: Emit>(e: &mut E, word: u32) -> E::Value {
    let base = e.x_or_sp(rn(word));
    offset_by(e, base, signed(word, 20, 12))
}

#[inline(always)]
pub fn store_unscaled<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = unscaled_address(e, word);
    store(
        e,
        word,
        address,
        plain(AccessKind::Write, size(word), rn(word)),
    )?;
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_unscaled<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = unscaled_address(e, word);
    let value = load(e, address, plain(AccessKind::Read, size(word), rn(word)))?;
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_signed_unscaled<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(w) = signed_width(word) else {
        return undefined(e, word);
    };
    let address = unscaled_address(e, word);
    let value = load(e, address, plain(AccessKind::Read, size(word), rn(word)))?;
    let value = e.sign_extend(w, value, 8 * u32::from(size(word)));
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn prefetch_unscaled<E: Emit>(_: &mut E, _: u32) -> Outcome<E> {
    Ok(Flow::Next)
}

// ---- as EL0 (LDTR, STTR)

#[inline(always)]
fn unprivileged<E: Emit>(e: &mut E, kind: AccessKind, word: u32) -> Access {
    let key = e.key();
    Access {
        unprivileged: key.el == 1 && !key.uao,
        ..plain(kind, size(word), rn(word))
    }
}

pub fn store_unprivileged<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = unscaled_address(e, word);
    let access = unprivileged(e, AccessKind::Write, word);
    store(e, word, address, access)?;
    Ok(Flow::Next)
}

pub fn load_unprivileged<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = unscaled_address(e, word);
    let access = unprivileged(e, AccessKind::Read, word);
    let value = load(e, address, access)?;
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

pub fn load_signed_unprivileged<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(w) = signed_width(word) else {
        return undefined(e, word);
    };
    let address = unscaled_address(e, word);
    let access = unprivileged(e, AccessKind::Read, word);
    let value = load(e, address, access)?;
    let value = e.sign_extend(w, value, 8 * u32::from(size(word)));
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

// ---- pre- and post-index

/// The address of the access, and what the base register becomes.
#[inline(always)]
fn indexed_address<E: Emit>(e: &mut E, word: u32) -> (E::Value, E::Value) {
    let base = e.x_or_sp(rn(word));
    let moved = offset_by(e, base, signed(word, 20, 12));
    (if bit(word, 11) { moved } else { base }, moved)
}

#[inline(always)]
pub fn store_indexed<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let (address, moved) = indexed_address(e, word);
    store(
        e,
        word,
        address,
        plain(AccessKind::Write, size(word), rn(word)),
    )?;
    e.set_x_or_sp(rn(word), moved);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_indexed<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let (address, moved) = indexed_address(e, word);
    let value = load(e, address, plain(AccessKind::Read, size(word), rn(word)))?;
    e.set_x_or_sp(rn(word), moved);
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_signed_indexed<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(w) = signed_width(word) else {
        return undefined(e, word);
    };
    let (address, moved) = indexed_address(e, word);
    let value = load(e, address, plain(AccessKind::Read, size(word), rn(word)))?;
    let value = e.sign_extend(w, value, 8 * u32::from(size(word)));
    e.set_x_or_sp(rn(word), moved);
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

// ---- register offset

/// Options without bit 1 (8- and 16-bit extensions) are reserved.
#[inline(always)]
fn option_is_reserved(word: u32) -> bool {
    !bit(word, 14)
}

#[inline(always)]
fn register_address<E: Emit>(e: &mut E, word: u32) -> E::Value {
    let base = e.x_or_sp(rn(word));
    let shift = if bit(word, 12) { bits(word, 31, 30) } else { 0 };
    let offset = extended(e, rm(word), bits(word, 15, 13), shift);
    e.add(Width::W64, base, offset)
}

#[inline(always)]
pub fn store_register<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if option_is_reserved(word) {
        return undefined(e, word);
    }
    let address = register_address(e, word);
    store(
        e,
        word,
        address,
        plain(AccessKind::Write, size(word), rn(word)),
    )?;
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_register<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if option_is_reserved(word) {
        return undefined(e, word);
    }
    let address = register_address(e, word);
    let value = load(e, address, plain(AccessKind::Read, size(word), rn(word)))?;
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_signed_register<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(w) = signed_width(word) else {
        return undefined(e, word);
    };
    if option_is_reserved(word) {
        return undefined(e, word);
    }
    let address = register_address(e, word);
    let value = load(e, address, plain(AccessKind::Read, size(word), rn(word)))?;
    let value = e.sign_extend(w, value, 8 * u32::from(size(word)));
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn prefetch_register<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if option_is_reserved(word) {
        return undefined(e, word);
    }
    Ok(Flow::Next)
}

// ---- literals

#[inline(always)]
pub fn load_literal<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = e.pc(signed(word, 23, 5) << 2);
    let size = if bit(word, 30) { 8 } else { 4 };
    let value = load(e, address, plain(AccessKind::Read, size, 0))?;
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_signed_literal<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = e.pc(signed(word, 23, 5) << 2);
    let value = load(e, address, plain(AccessKind::Read, 4, 0))?;
    let value = e.sign_extend(Width::W64, value, 32);
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn prefetch_literal<E: Emit>(_: &mut E, _: u32) -> Outcome<E> {
    Ok(Flow::Next)
}

// ---- pairs

/// An access of two registers of `size` bytes each.
#[inline(always)]
fn pair(kind: AccessKind, size: u8, n: u32) -> Access {
    Access {
        bytes: 2 * u16::from(size),
        ..plain(kind, size, n)
    }
}

/// The address of the access, and what the base register becomes if it changes: bits 24:23 are non-temporal, post-index,
/// offset, pre-index.
#[inline(always)]
fn pair_address<E: Emit>(e: &mut E, word: u32, size: u8) -> (E::Value, Option<E::Value>) {
    let base = e.x_or_sp(rn(word));
    let moved = offset_by(e, base, signed(word, 21, 15) * i64::from(size));
    match bits(word, 24, 23) {
        1 => (base, Some(moved)),
        3 => (moved, Some(moved)),
        _ => (moved, None),
    }
}

#[inline(always)]
pub fn store_pair<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let size = if bit(word, 31) { 8 } else { 4 };
    let (address, moved) = pair_address(e, word, size);
    let place = e.access(address, pair(AccessKind::Write, size, rn(word)))?;
    let first = e.x(rd(word));
    let second = e.x(bits(word, 14, 10));
    e.write(place, 0, size, first)?;
    e.write(place, u32::from(size), size, second)?;
    if let Some(moved) = moved {
        e.set_x_or_sp(rn(word), moved);
    }
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_pair<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let size = if bit(word, 31) { 8 } else { 4 };
    let (address, moved) = pair_address(e, word, size);
    let place = e.access(address, pair(AccessKind::Read, size, rn(word)))?;
    let first = e.read(place, 0, size)?;
    let second = e.read(place, u32::from(size), size)?;
    if let Some(moved) = moved {
        e.set_x_or_sp(rn(word), moved);
    }
    e.set_x(rd(word), first);
    e.set_x(bits(word, 14, 10), second);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_pair_signed<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if bits(word, 24, 23) == 0 {
        return undefined(e, word);
    }
    let (address, moved) = pair_address(e, word, 4);
    let place = e.access(address, pair(AccessKind::Read, 4, rn(word)))?;
    let first = e.read(place, 0, 4)?;
    let second = e.read(place, 4, 4)?;
    if let Some(moved) = moved {
        e.set_x_or_sp(rn(word), moved);
    }
    let first = e.sign_extend(Width::W64, first, 32);
    let second = e.sign_extend(Width::W64, second, 32);
    e.set_x(rd(word), first);
    e.set_x(bits(word, 14, 10), second);
    Ok(Flow::Next)
}

// ---- authenticated (LDRAA, LDRAB)

pub fn load_authenticated<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let base = e.x_or_sp(rn(word));
    let zero = e.constant(0);
    let base = authenticate(e, 2 + bits(word, 23, 23), base, zero);
    let high = if bit(word, 22) { -512 } else { 0 };
    let address = offset_by(e, base, (high + i64::from(bits(word, 20, 12))) * 8);
    let value = load(e, address, plain(AccessKind::Read, 8, rn(word)))?;
    if bit(word, 11) {
        e.set_x_or_sp(rn(word), address);
    }
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}
