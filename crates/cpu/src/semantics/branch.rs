//! Branches and exception generation: Arm DDI 0487, C4.1.87.

use crate::emit::{Emit, Exception, Jump, Outcome, Width};

use super::system::authenticate;
use super::{bit, bits, rd, rn, signed, undefined};

#[inline(always)]
pub fn branch<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    Ok(e.jump(signed(word, 25, 0) << 2))
}

#[inline(always)]
pub fn branch_link<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let link = e.pc(4);
    e.set_x(30, link);
    Ok(e.jump(signed(word, 25, 0) << 2))
}

#[inline(always)]
pub fn b_cond<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let condition = e.condition(bits(word, 3, 0));
    Ok(e.jump_if(condition, signed(word, 23, 5) << 2))
}

#[inline(always)]
pub fn cbz<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let value = e.x(rd(word));
    let zero = e.is_zero(Width::from_sf(bit(word, 31)), value);
    Ok(e.jump_if(zero, signed(word, 23, 5) << 2))
}

#[inline(always)]
pub fn cbnz<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let value = e.x(rd(word));
    let zero = e.is_zero(Width::from_sf(bit(word, 31)), value);
    let not_zero = e.not_cond(zero);
    Ok(e.jump_if(not_zero, signed(word, 23, 5) << 2))
}

#[inline(always)]
fn tested_bit<E: Emit>(e: &mut E, word: u32) -> E::Cond {
    let value = e.x(rd(word));
    e.bit_is_set(value, bits(word, 31, 31) << 5 | bits(word, 23, 19))
}

#[inline(always)]
pub fn tbz<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let set = tested_bit(e, word);
    let clear = e.not_cond(set);
    Ok(e.jump_if(clear, signed(word, 18, 5) << 2))
}

#[inline(always)]
pub fn tbnz<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let set = tested_bit(e, word);
    Ok(e.jump_if(set, signed(word, 18, 5) << 2))
}

#[inline(always)]
pub fn br<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let target = e.x(rn(word));
    Ok(e.jump_to(target, Jump::Branch))
}

#[inline(always)]
pub fn blr<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let target = e.x(rn(word));
    let link = e.pc(4);
    e.set_x(30, link);
    Ok(e.jump_to(target, Jump::Call))
}

#[inline(always)]
pub fn ret<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let target = e.x(rn(word));
    Ok(e.jump_to(target, Jump::Return))
}

#[inline(always)]
pub fn eret<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if e.key().el == 0 {
        return undefined(e, word);
    }
    let target = e.exception_link();
    e.exception_return(target)
}

// ---- pointer authentication: instruction keys, A (0) or B (1) by the word's bit 10

/// The register's address, authenticated where the key is enabled.
#[inline(always)]
fn authenticated<E: Emit>(e: &mut E, word: u32, register: u32, modifier: E::Value) -> E::Value {
    let pointer = e.x(register);
    authenticate(e, bits(word, 10, 10), pointer, modifier)
}

pub fn br_authenticated_zero<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let zero = e.constant(0);
    let target = authenticated(e, word, rn(word), zero);
    Ok(e.jump_to(target, Jump::Branch))
}

pub fn br_authenticated<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let modifier = e.x_or_sp(rd(word));
    let target = authenticated(e, word, rn(word), modifier);
    Ok(e.jump_to(target, Jump::Branch))
}

pub fn blr_authenticated_zero<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let zero = e.constant(0);
    let target = authenticated(e, word, rn(word), zero);
    let link = e.pc(4);
    e.set_x(30, link);
    Ok(e.jump_to(target, Jump::Call))
}

pub fn blr_authenticated<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let modifier = e.x_or_sp(rd(word));
    let target = authenticated(e, word, rn(word), modifier);
    let link = e.pc(4);
    e.set_x(30, link);
    Ok(e.jump_to(target, Jump::Call))
}

pub fn ret_authenticated<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let modifier = e.x_or_sp(31);
    let target = authenticated(e, word, 30, modifier);
    Ok(e.jump_to(target, Jump::Return))
}

pub fn eret_authenticated<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if e.key().el == 0 {
        return undefined(e, word);
    }
    let link = e.exception_link();
    let modifier = e.x_or_sp(31);
    let target = authenticate(e, bits(word, 10, 10), link, modifier);
    e.exception_return(target)
}

// ---- exceptions

#[inline(always)]
fn immediate(word: u32) -> u16 {
    bits(word, 20, 5) as u16
}

pub fn svc<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    e.exception(Exception::Svc(immediate(word)))
}

pub fn hvc<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if e.key().el == 0 {
        return undefined(e, word);
    }
    e.exception(Exception::Hvc(immediate(word)))
}

pub fn smc<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if e.key().el == 0 {
        return undefined(e, word);
    }
    e.exception(Exception::Smc(immediate(word)))
}

pub fn brk<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    e.exception(Exception::Brk(immediate(word)))
}

/// Halting debug is not there: undefined.
pub fn hlt<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    e.exception(Exception::Hlt(immediate(word)))
}
