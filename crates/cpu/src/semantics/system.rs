//! System instructions, hints, barriers, and pointer authentication of registers: Arm DDI 0487, C4.1.87 and C4.1.89.

use aarch64::{Extension, registers};

use crate::emit::{Barrier, Emit, Flow, Outcome};

use super::{bits, rd, rm, rn};

/// The register of MSR, MRS and SYS, as `aarch64::registers` encodes it.
#[inline(always)]
fn register(word: u32) -> u16 {
    bits(word, 20, 5) as u16
}

pub fn mrs<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let value = e.read_system_register(register(word), rd(word))?;
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

pub fn msr<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let value = e.x(rd(word));
    e.write_system_register(register(word), rd(word), value)
}

pub fn msr_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let field = bits(word, 18, 16) << 3 | bits(word, 7, 5);
    e.write_pstate(field, bits(word, 11, 8))
}

pub fn sys<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let value = e.x(rd(word));
    if register(word) == registers::DC_ZVA {
        e.zero_block(rd(word), value)?;
        return Ok(Flow::Next);
    }
    e.system(register(word), rd(word), value)
}

// ---- barriers

pub fn clrex<E: Emit>(e: &mut E, _: u32) -> Outcome<E> {
    e.clear_exclusive();
    Ok(Flow::Next)
}

pub fn dsb<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    e.barrier(match bits(word, 11, 8) {
        0 | 4 => Barrier::Speculation, // SSBB, PSSBB
        domain => Barrier::Dsb(domain as u8),
    })
}

pub fn dmb<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    e.barrier(Barrier::Dmb(bits(word, 11, 8) as u8))
}

pub fn isb<E: Emit>(e: &mut E, _: u32) -> Outcome<E> {
    e.barrier(Barrier::Isb)
}

pub fn sb<E: Emit>(e: &mut E, _: u32) -> Outcome<E> {
    e.barrier(Barrier::Speculation)
}

// ---- hints

pub fn hint<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let number = bits(word, 11, 5);
    match number {
        7 | 8 | 10 | 12 | 14 | 24..=31 => {
            if e.key().extensions.has(Extension::PAuth) {
                pac_hint(e, number);
            }
            Ok(Flow::Next)
        }
        _ => e.hint(number),
    }
}

/// The forms of PACI*, AUTI* and XPACLRI that do nothing on older processors.
fn pac_hint<E: Emit>(e: &mut E, number: u32) {
    let register = if number < 16 && number != 7 { 17 } else { 30 };
    let pointer = e.x(register);
    let modifier = match number {
        8..=14 => e.x(16),
        24 | 26 | 28 | 30 => e.constant(0),
        _ => e.x_or_sp(31),
    };
    let result = match number {
        7 => e.pac_strip(false, pointer),
        8 | 24 | 25 => sign(e, 0, pointer, modifier),
        10 | 26 | 27 => sign(e, 1, pointer, modifier),
        12 | 28 | 29 => authenticate(e, 0, pointer, modifier),
        _ => authenticate(e, 1, pointer, modifier),
    };
    e.set_x(register, result);
}

// ---- pointer authentication of registers

/// Adds a code with key IA, IB, DA or DB if that key is enabled.
#[inline(always)]
fn sign<E: Emit>(e: &mut E, key: u32, pointer: E::Value, modifier: E::Value) -> E::Value {
    if !e.key().pac[key as usize & 3] {
        return pointer;
    }
    e.pac_add(key, pointer, modifier)
}

/// Checks and removes a code with key IA, IB, DA or DB if that key is enabled.
#[inline(always)]
pub(super) fn authenticate<E: Emit>(
    e: &mut E,
    key: u32,
    pointer: E::Value,
    modifier: E::Value,
) -> E::Value {
    if !e.key().pac[key as usize & 3] {
        return pointer;
    }
    e.pac_authenticate(key, pointer, modifier)
}

pub fn pac_add<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let pointer = e.x(rd(word));
    let modifier = e.x_or_sp(rn(word));
    let result = sign(e, bits(word, 11, 10), pointer, modifier);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

pub fn pac_add_zero<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let pointer = e.x(rd(word));
    let modifier = e.constant(0);
    let result = sign(e, bits(word, 11, 10), pointer, modifier);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

pub fn pac_authenticate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let pointer = e.x(rd(word));
    let modifier = e.x_or_sp(rn(word));
    let result = authenticate(e, bits(word, 11, 10), pointer, modifier);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

pub fn pac_authenticate_zero<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let pointer = e.x(rd(word));
    let modifier = e.constant(0);
    let result = authenticate(e, bits(word, 11, 10), pointer, modifier);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

pub fn pac_strip<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let pointer = e.x(rd(word));
    let result = e.pac_strip(bits(word, 10, 10) != 0, pointer);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

pub fn pacga<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let a = e.x(rn(word));
    let b = e.x_or_sp(rm(word));
    let result = e.pac_generic(a, b);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}
