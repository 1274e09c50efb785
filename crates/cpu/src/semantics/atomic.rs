//! Exclusive, ordered and atomic loads and stores: Arm DDI 0487, C4.1.88.

use crate::emit::{Access, AccessKind, AtomicOperation, Emit, Flow, Order, Outcome};

use super::{bit, bits, rd, rm, rn, undefined};

#[inline(always)]
fn size(word: u32) -> u8 {
    1 << bits(word, 31, 30)
}

/// An access of `bytes` in one piece.
#[inline(always)]
fn whole(kind: AccessKind, bytes: u8, order: Order, n: u32) -> Access {
    Access {
        bytes: bytes.into(),
        size: bytes,
        kind,
        order,
        unprivileged: false,
        sp_base: n == 31,
    }
}

/// Ordered if any of the acquire and release bits is set.
#[inline(always)]
fn order(ordered: bool) -> Order {
    if ordered {
        Order::AcquireRelease
    } else {
        Order::Atomic
    }
}

// ---- exclusives

#[inline(always)]
fn exclusive_load<E: Emit>(e: &mut E, word: u32, size: u8, pair: bool) -> Outcome<E> {
    let address = e.x_or_sp(rn(word));
    let bytes = if pair { 2 * size } else { size };
    let order = order(bit(word, 15));
    let place = e.access(address, whole(AccessKind::Read, bytes, order, rn(word)))?;
    let (first, second) = e.load_exclusive(place, size, pair)?;
    e.set_x(rd(word), first);
    if pair {
        e.set_x(bits(word, 14, 10), second);
    }
    Ok(Flow::Next)
}

#[inline(always)]
fn exclusive_store<E: Emit>(e: &mut E, word: u32, size: u8, pair: bool) -> Outcome<E> {
    let address = e.x_or_sp(rn(word));
    let bytes = if pair { 2 * size } else { size };
    let order = order(bit(word, 15));
    let place = e.access(address, whole(AccessKind::Write, bytes, order, rn(word)))?;
    let first = e.x(rd(word));
    let second = if pair { e.x(bits(word, 14, 10)) } else { first };
    let status = e.store_exclusive(place, size, pair, (first, second))?;
    e.set_x(rm(word), status);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn load_exclusive<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    exclusive_load(e, word, size(word), false)
}

#[inline(always)]
pub fn load_exclusive_pair<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    exclusive_load(e, word, size(word), true)
}

#[inline(always)]
pub fn store_exclusive<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    exclusive_store(e, word, size(word), false)
}

#[inline(always)]
pub fn store_exclusive_pair<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    exclusive_store(e, word, size(word), true)
}

// ---- load-acquire, store-release

#[inline(always)]
fn ordered_load<E: Emit>(e: &mut E, word: u32, order: Order) -> Outcome<E> {
    let address = e.x_or_sp(rn(word));
    let place = e.access(
        address,
        whole(AccessKind::Read, size(word), order, rn(word)),
    )?;
    let value = e.read_ordered(place, size(word))?;
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn ldar<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    ordered_load(e, word, Order::AcquireRelease)
}

/// LDLAR: as strong as LDAR, which is allowed.
#[inline(always)]
pub fn ldlar<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    ordered_load(e, word, Order::AcquireRelease)
}

#[inline(always)]
pub fn ldapr<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    ordered_load(e, word, Order::AcquirePc)
}

#[inline(always)]
pub fn stlr<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = e.x_or_sp(rn(word));
    let access = whole(
        AccessKind::Write,
        size(word),
        Order::AcquireRelease,
        rn(word),
    );
    let place = e.access(address, access)?;
    let value = e.x(rd(word));
    e.write_ordered(place, size(word), value)?;
    Ok(Flow::Next)
}

/// STLLR: as strong as STLR, which is allowed.
#[inline(always)]
pub fn stllr<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    stlr(e, word)
}

// ---- Large System Extensions

#[inline(always)]
pub fn cas<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = e.x_or_sp(rn(word));
    let order = order(bit(word, 22) || bit(word, 15));
    let place = e.access(
        address,
        whole(AccessKind::ReadWrite, size(word), order, rn(word)),
    )?;
    let expected = e.x(rm(word));
    let new = e.x(rd(word));
    let old = e.compare_and_swap(place, size(word), expected, new)?;
    e.set_x(rm(word), old);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn casp<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let (s, t) = (rm(word), rd(word));
    if s & 1 != 0 || t & 1 != 0 {
        return undefined(e, word);
    }
    let size = if bit(word, 30) { 8 } else { 4 };
    let address = e.x_or_sp(rn(word));
    let order = order(bit(word, 22) || bit(word, 15));
    let place = e.access(
        address,
        whole(AccessKind::ReadWrite, 2 * size, order, rn(word)),
    )?;
    let expected = (e.x(s), e.x(s + 1));
    let new = (e.x(t), e.x(t + 1));
    let (first, second) = e.compare_and_swap_pair(place, size, expected, new)?;
    e.set_x(s, first);
    e.set_x(s + 1, second);
    Ok(Flow::Next)
}

#[inline(always)]
fn read_modify_write<E: Emit>(e: &mut E, word: u32, operation: AtomicOperation) -> Outcome<E> {
    let address = e.x_or_sp(rn(word));
    let order = order(bit(word, 23) || bit(word, 22));
    let place = e.access(
        address,
        whole(AccessKind::ReadWrite, size(word), order, rn(word)),
    )?;
    let operand = e.x(rm(word));
    let old = e.atomic(operation, place, size(word), operand)?;
    e.set_x(rd(word), old);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn atomic<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let operation = match bits(word, 14, 12) {
        0 => AtomicOperation::Add,
        1 => AtomicOperation::Clear,
        2 => AtomicOperation::Xor,
        3 => AtomicOperation::Set,
        4 => AtomicOperation::SignedMax,
        5 => AtomicOperation::SignedMin,
        6 => AtomicOperation::UnsignedMax,
        _ => AtomicOperation::UnsignedMin,
    };
    read_modify_write(e, word, operation)
}

#[inline(always)]
pub fn swap<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    read_modify_write(e, word, AtomicOperation::Swap)
}
