//! Data processing: Arm DDI 0487, C4.1.86 (immediate) and C4.1.89 (register).

use crate::emit::{Emit, Flow, Outcome, Width};

use super::{bit, bits, rd, rm, rn, signed, undefined};

#[inline(always)]
fn width(word: u32) -> Width {
    Width::from_sf(bit(word, 31))
}

// ---- addresses

#[inline(always)]
fn address_immediate(word: u32) -> i64 {
    signed(word, 23, 5) << 2 | i64::from(bits(word, 30, 29))
}

#[inline(always)]
pub fn adr<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let address = e.pc(address_immediate(word));
    e.set_x(rd(word), address);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn adrp<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let pc = e.pc(0);
    let mask = e.constant(!0xfff);
    let page = e.and(Width::W64, pc, mask);
    let offset = e.constant((address_immediate(word) << 12) as u64);
    let address = e.add(Width::W64, page, offset);
    e.set_x(rd(word), address);
    Ok(Flow::Next)
}

// ---- addition and subtraction

#[inline(always)]
fn arithmetic_immediate<E: Emit>(e: &mut E, word: u32) -> E::Value {
    let shift = if bit(word, 22) { 12 } else { 0 };
    e.constant(u64::from(bits(word, 21, 10)) << shift)
}

#[inline(always)]
pub fn add_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let a = e.x_or_sp(rn(word));
    let b = arithmetic_immediate(e, word);
    let sum = e.add(width(word), a, b);
    e.set_x_or_sp(rd(word), sum);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn sub_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let a = e.x_or_sp(rn(word));
    let b = arithmetic_immediate(e, word);
    let difference = e.sub(width(word), a, b);
    e.set_x_or_sp(rd(word), difference);
    Ok(Flow::Next)
}

#[inline(always)]
fn adds<E: Emit>(e: &mut E, word: u32, a: E::Value, b: E::Value) -> Outcome<E> {
    let zero = e.constant(0);
    let (sum, flags) = e.add_with_flags(width(word), a, b, zero);
    e.set_x(rd(word), sum);
    e.set_flags(flags);
    Ok(Flow::Next)
}

#[inline(always)]
fn subs<E: Emit>(e: &mut E, word: u32, a: E::Value, b: E::Value) -> Outcome<E> {
    let (difference, flags) = e.sub_with_flags(width(word), a, b);
    e.set_x(rd(word), difference);
    e.set_flags(flags);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn adds_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let a = e.x_or_sp(rn(word));
    let b = arithmetic_immediate(e, word);
    adds(e, word, a, b)
}

#[inline(always)]
pub fn subs_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let a = e.x_or_sp(rn(word));
    let b = arithmetic_immediate(e, word);
    subs(e, word, a, b)
}

/// Rm shifted by the immediate, as logical and arithmetic instructions take it.
#[inline(always)]
fn shifted<E: Emit>(e: &mut E, word: u32) -> E::Value {
    let w = width(word);
    let value = e.x(rm(word));
    let amount = bits(word, 15, 10);
    if bits(word, 23, 22) == 0 && amount == 0 {
        return value;
    }
    match bits(word, 23, 22) {
        0 => e.shl_by(w, value, amount),
        1 => e.lsr_by(w, value, amount),
        2 => e.asr_by(w, value, amount),
        _ => e.ror_by(w, value, amount),
    }
}

/// A shift of 32 or more of a 32-bit register is reserved.
#[inline(always)]
fn shift_is_reserved(word: u32) -> bool {
    !bit(word, 31) && bit(word, 15)
}

/// ROR is reserved for addition and subtraction.
#[inline(always)]
fn arithmetic_shift_is_reserved(word: u32) -> bool {
    shift_is_reserved(word) || bits(word, 23, 22) == 3
}

#[inline(always)]
pub fn add_shifted<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if arithmetic_shift_is_reserved(word) {
        return undefined(e, word);
    }
    let a = e.x(rn(word));
    let b = shifted(e, word);
    let sum = e.add(width(word), a, b);
    e.set_x(rd(word), sum);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn sub_shifted<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if arithmetic_shift_is_reserved(word) {
        return undefined(e, word);
    }
    let a = e.x(rn(word));
    let b = shifted(e, word);
    let difference = e.sub(width(word), a, b);
    e.set_x(rd(word), difference);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn adds_shifted<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if arithmetic_shift_is_reserved(word) {
        return undefined(e, word);
    }
    let a = e.x(rn(word));
    let b = shifted(e, word);
    adds(e, word, a, b)
}

#[inline(always)]
pub fn subs_shifted<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if arithmetic_shift_is_reserved(word) {
        return undefined(e, word);
    }
    let a = e.x(rn(word));
    let b = shifted(e, word);
    subs(e, word, a, b)
}

/// A register extended as `option` says (UXTB to SXTX) and shifted left.
#[inline(always)]
pub(super) fn extended<E: Emit>(e: &mut E, register: u32, option: u32, shift: u32) -> E::Value {
    let value = e.x(register);
    let from = 8 << (option & 3);
    let value = match option {
        3 | 7 => value,
        0..=3 => e.zero_extend(value, from),
        _ => e.sign_extend(Width::W64, value, from),
    };
    if shift == 0 {
        value
    } else {
        e.shl_by(Width::W64, value, shift)
    }
}

/// Shifts of more than 4 are reserved.
#[inline(always)]
fn extension_is_reserved(word: u32) -> bool {
    bits(word, 12, 10) > 4
}

#[inline(always)]
fn extended_operands<E: Emit>(e: &mut E, word: u32) -> (E::Value, E::Value) {
    let a = e.x_or_sp(rn(word));
    let b = extended(e, rm(word), bits(word, 15, 13), bits(word, 12, 10));
    (a, b)
}

#[inline(always)]
pub fn add_extended<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if extension_is_reserved(word) {
        return undefined(e, word);
    }
    let (a, b) = extended_operands(e, word);
    let sum = e.add(width(word), a, b);
    e.set_x_or_sp(rd(word), sum);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn sub_extended<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if extension_is_reserved(word) {
        return undefined(e, word);
    }
    let (a, b) = extended_operands(e, word);
    let difference = e.sub(width(word), a, b);
    e.set_x_or_sp(rd(word), difference);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn adds_extended<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if extension_is_reserved(word) {
        return undefined(e, word);
    }
    let (a, b) = extended_operands(e, word);
    adds(e, word, a, b)
}

#[inline(always)]
pub fn subs_extended<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if extension_is_reserved(word) {
        return undefined(e, word);
    }
    let (a, b) = extended_operands(e, word);
    subs(e, word, a, b)
}

#[inline(always)]
pub fn adc<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let w = width(word);
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let carry = e.carry();
    let sum = e.add(w, a, b);
    let sum = e.add(w, sum, carry);
    e.set_x(rd(word), sum);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn adcs<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let carry = e.carry();
    let (sum, flags) = e.add_with_flags(width(word), a, b, carry);
    e.set_x(rd(word), sum);
    e.set_flags(flags);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn sbc<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let w = width(word);
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let b = e.not(w, b);
    let carry = e.carry();
    let sum = e.add(w, a, b);
    let sum = e.add(w, sum, carry);
    e.set_x(rd(word), sum);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn sbcs<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let w = width(word);
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let b = e.not(w, b);
    let carry = e.carry();
    let (sum, flags) = e.add_with_flags(w, a, b, carry);
    e.set_x(rd(word), sum);
    e.set_flags(flags);
    Ok(Flow::Next)
}

// ---- logic

/// DecodeBitMasks for the logical immediates (DDI 0487, J1.3): `None` where the fields are reserved.
pub(super) const fn bit_mask(word: u32) -> Option<u64> {
    let n = bits(word, 22, 22);
    let imms = bits(word, 15, 10);
    let immr = bits(word, 21, 16);
    let combined = n << 6 | (!imms & 0x3f);
    // The element's size is the highest set bit of N:NOT(imms); 1 is too small, and N is for 64-bit registers only.
    if combined < 2 || (n == 1 && !bit(word, 31)) {
        return None;
    }
    let size = 1 << (31 - combined.leading_zeros());
    let ones = imms & (size - 1);
    if ones == size - 1 {
        return None;
    }
    let mut element = (1u64 << (ones + 1)) - 1;
    let rotation = immr & (size - 1);
    if rotation != 0 {
        element = element >> rotation | element << (size - rotation);
        if size < 64 {
            element &= (1 << size) - 1;
        }
    }
    let mut filled = size;
    while filled < 64 {
        element |= element << filled;
        filled *= 2;
    }
    Some(element)
}

macro_rules! logical_immediate {
    ($($name:ident $operation:ident;)*) => {$(
        #[inline(always)]
        pub fn $name<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
            let Some(mask) = bit_mask(word) else { return undefined(e, word) };
            let a = e.x(rn(word));
            let b = e.constant(mask);
            let result = e.$operation(width(word), a, b);
            e.set_x_or_sp(rd(word), result);
            Ok(Flow::Next)
        }
    )*};
}

logical_immediate! {
    and_immediate and;
    orr_immediate or;
    eor_immediate xor;
}

#[inline(always)]
pub fn ands_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let Some(mask) = bit_mask(word) else {
        return undefined(e, word);
    };
    let w = width(word);
    let a = e.x(rn(word));
    let b = e.constant(mask);
    let result = e.and(w, a, b);
    let flags = e.logic_flags(w, result);
    e.set_x(rd(word), result);
    e.set_flags(flags);
    Ok(Flow::Next)
}

macro_rules! logical_shifted {
    ($($name:ident $operation:ident $invert:literal;)*) => {$(
        #[inline(always)]
        pub fn $name<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
            if shift_is_reserved(word) {
                return undefined(e, word);
            }
            let w = width(word);
            let a = e.x(rn(word));
            let b = shifted(e, word);
            let b = if $invert { e.not(w, b) } else { b };
            let result = e.$operation(w, a, b);
            e.set_x(rd(word), result);
            Ok(Flow::Next)
        }
    )*};
}

logical_shifted! {
    and_shifted and false;
    bic_shifted and true;
    orr_shifted or false;
    orn_shifted or true;
    eor_shifted xor false;
    eon_shifted xor true;
}

#[inline(always)]
fn logical_with_flags<E: Emit>(e: &mut E, word: u32, invert: bool) -> Outcome<E> {
    if shift_is_reserved(word) {
        return undefined(e, word);
    }
    let w = width(word);
    let a = e.x(rn(word));
    let b = shifted(e, word);
    let b = if invert { e.not(w, b) } else { b };
    let result = e.and(w, a, b);
    let flags = e.logic_flags(w, result);
    e.set_x(rd(word), result);
    e.set_flags(flags);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn ands_shifted<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    logical_with_flags(e, word, false)
}

#[inline(always)]
pub fn bics_shifted<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    logical_with_flags(e, word, true)
}

// ---- moves

/// `hw` of 2 and 3 is reserved for 32-bit registers.
#[inline(always)]
fn move_is_reserved(word: u32) -> bool {
    !bit(word, 31) && bit(word, 22)
}

#[inline(always)]
fn move_immediate(word: u32) -> (u64, u32) {
    let shift = bits(word, 22, 21) * 16;
    (u64::from(bits(word, 20, 5)) << shift, shift)
}

#[inline(always)]
pub fn movz<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if move_is_reserved(word) {
        return undefined(e, word);
    }
    let value = e.constant(move_immediate(word).0);
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn movn<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if move_is_reserved(word) {
        return undefined(e, word);
    }
    let value = !move_immediate(word).0;
    let value = e.constant(if bit(word, 31) {
        value
    } else {
        value & 0xffff_ffff
    });
    e.set_x(rd(word), value);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn movk<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if move_is_reserved(word) {
        return undefined(e, word);
    }
    let w = width(word);
    let (value, shift) = move_immediate(word);
    let old = e.x(rd(word));
    let keep = e.constant(!(0xffff << shift));
    let old = e.and(w, old, keep);
    let value = e.constant(value);
    let result = e.or(w, old, value);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

// ---- bit fields

/// N must equal sf, and no field may be 32 or more for 32-bit registers.
#[inline(always)]
fn field_is_reserved(word: u32) -> bool {
    bit(word, 22) != bit(word, 31) || (!bit(word, 31) && (bit(word, 21) || bit(word, 15)))
}

#[inline(always)]
pub fn ubfm<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if field_is_reserved(word) {
        return undefined(e, word);
    }
    let w = width(word);
    let (r, s) = (bits(word, 21, 16), bits(word, 15, 10));
    let source = e.x(rn(word));
    let result = if s == w.bits() - 1 {
        e.lsr_by(w, source, r) // LSR
    } else if s >= r {
        let field = e.lsr_by(w, source, r); // UBFX
        e.zero_extend(field, s - r + 1)
    } else if s + 1 == r {
        e.shl_by(w, source, w.bits() - r) // LSL
    } else {
        let field = e.zero_extend(source, s + 1); // UBFIZ
        e.shl_by(w, field, w.bits() - r)
    };
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn sbfm<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if field_is_reserved(word) {
        return undefined(e, word);
    }
    let w = width(word);
    let (r, s) = (bits(word, 21, 16), bits(word, 15, 10));
    let source = e.x(rn(word));
    let result = if s == w.bits() - 1 {
        e.asr_by(w, source, r) // ASR
    } else if s >= r {
        let field = e.lsr_by(w, source, r); // SBFX, SXTB, …
        e.sign_extend(w, field, s - r + 1)
    } else {
        let field = e.sign_extend(w, source, s + 1); // SBFIZ
        e.shl_by(w, field, w.bits() - r)
    };
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn bfm<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if field_is_reserved(word) {
        return undefined(e, word);
    }
    let w = width(word);
    let (r, s) = (bits(word, 21, 16), bits(word, 15, 10));
    let source = e.x(rn(word));
    let old = e.x(rd(word));
    let ones = |n: u32| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    // Where the field ends up, and the source moved there.
    let (mask, moved) = if s >= r {
        (ones(s - r + 1), e.lsr_by(w, source, r)) // BFXIL
    } else {
        let to = w.bits() - r;
        (ones(s + 1) << to, e.shl_by(w, source, to)) // BFI
    };
    let field = e.constant(mask);
    let field = e.and(w, moved, field);
    let keep = e.constant(!mask);
    let old = e.and(w, old, keep);
    let result = e.or(w, old, field);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn extr<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    if bit(word, 22) != bit(word, 31) || shift_is_reserved(word) {
        return undefined(e, word);
    }
    let high = e.x(rn(word));
    let low = e.x(rm(word));
    let result = e.extract_pair(width(word), high, low, bits(word, 15, 10));
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

// ---- conditional

#[inline(always)]
fn ccm<E: Emit>(e: &mut E, word: u32, b: E::Value, subtract: bool) -> Outcome<E> {
    let w = width(word);
    let a = e.x(rn(word));
    let (_, flags) = if subtract {
        e.sub_with_flags(w, a, b)
    } else {
        let zero = e.constant(0);
        e.add_with_flags(w, a, b, zero)
    };
    let condition = e.condition(bits(word, 15, 12));
    let flags = e.select_flags(condition, flags, bits(word, 3, 0));
    e.set_flags(flags);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn ccmn_register<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let b = e.x(rm(word));
    ccm(e, word, b, false)
}

#[inline(always)]
pub fn ccmn_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let b = e.constant(u64::from(rm(word)));
    ccm(e, word, b, false)
}

#[inline(always)]
pub fn ccmp_register<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let b = e.x(rm(word));
    ccm(e, word, b, true)
}

#[inline(always)]
pub fn ccmp_immediate<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let b = e.constant(u64::from(rm(word)));
    ccm(e, word, b, true)
}

#[inline(always)]
fn select<E: Emit>(e: &mut E, word: u32, yes: E::Value, no: E::Value) -> Outcome<E> {
    let condition = e.condition(bits(word, 15, 12));
    let result = e.select(width(word), condition, yes, no);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn csel<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let yes = e.x(rn(word));
    let no = e.x(rm(word));
    select(e, word, yes, no)
}

#[inline(always)]
pub fn csinc<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let yes = e.x(rn(word));
    let no = e.x(rm(word));
    let one = e.constant(1);
    let no = e.add(width(word), no, one);
    select(e, word, yes, no)
}

#[inline(always)]
pub fn csinv<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let yes = e.x(rn(word));
    let no = e.x(rm(word));
    let no = e.not(width(word), no);
    select(e, word, yes, no)
}

#[inline(always)]
pub fn csneg<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let yes = e.x(rn(word));
    let no = e.x(rm(word));
    let zero = e.constant(0);
    let no = e.sub(width(word), zero, no);
    select(e, word, yes, no)
}

// ---- one and two sources

#[inline(always)]
fn divide<E: Emit>(e: &mut E, word: u32, signed: bool) -> Outcome<E> {
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let quotient = e.div(width(word), signed, a, b);
    e.set_x(rd(word), quotient);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn udiv<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    divide(e, word, false)
}

#[inline(always)]
pub fn sdiv<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    divide(e, word, true)
}

macro_rules! shift_variable {
    ($($name:ident $operation:ident;)*) => {$(
        #[inline(always)]
        pub fn $name<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
            let a = e.x(rn(word));
            let amount = e.x(rm(word));
            let result = e.$operation(width(word), a, amount);
            e.set_x(rd(word), result);
            Ok(Flow::Next)
        }
    )*};
}

shift_variable! {
    lslv shl;
    lsrv lsr;
    asrv asr;
    rorv ror;
}

#[inline(always)]
pub fn crc32<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let size = bits(word, 11, 10);
    if bit(word, 31) != (size == 3) {
        return undefined(e, word);
    }
    let accumulator = e.x(rn(word));
    let data = e.x(rm(word));
    let result = e.crc32(bit(word, 12), accumulator, data, 8 << size);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

macro_rules! one_source {
    ($($name:ident |$e:ident, $w:ident, $a:ident| $result:expr;)*) => {$(
        #[inline(always)]
        pub fn $name<E: Emit>($e: &mut E, word: u32) -> Outcome<E> {
            let $w = width(word);
            let $a = $e.x(rn(word));
            let result = $result;
            $e.set_x(rd(word), result);
            Ok(Flow::Next)
        }
    )*};
}

one_source! {
    rbit |e, w, a| e.reverse_bits(w, a);
    rev16 |e, w, a| e.reverse_bytes(w, a, 16);
    rev32 |e, w, a| e.reverse_bytes(w, a, 32);
    rev64 |e, w, a| e.reverse_bytes(w, a, 64);
    clz |e, w, a| e.count_leading_zeros(w, a);
    cls |e, w, a| e.count_leading_signs(w, a);
}

// ---- three sources

#[inline(always)]
pub fn madd<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let w = width(word);
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let product = e.mul(w, a, b);
    let addend = e.x(bits(word, 14, 10));
    let result = e.add(w, addend, product);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn msub<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let w = width(word);
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let product = e.mul(w, a, b);
    let minuend = e.x(bits(word, 14, 10));
    let result = e.sub(w, minuend, product);
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

/// The 64-bit product of two 32-bit registers.
#[inline(always)]
fn long_product<E: Emit>(e: &mut E, word: u32, signed: bool) -> E::Value {
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let (a, b) = if signed {
        (
            e.sign_extend(Width::W64, a, 32),
            e.sign_extend(Width::W64, b, 32),
        )
    } else {
        (e.zero_extend(a, 32), e.zero_extend(b, 32))
    };
    e.mul(Width::W64, a, b)
}

#[inline(always)]
fn multiply_add_long<E: Emit>(e: &mut E, word: u32, signed: bool, subtract: bool) -> Outcome<E> {
    let product = long_product(e, word, signed);
    let addend = e.x(bits(word, 14, 10));
    let result = if subtract {
        e.sub(Width::W64, addend, product)
    } else {
        e.add(Width::W64, addend, product)
    };
    e.set_x(rd(word), result);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn smaddl<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    multiply_add_long(e, word, true, false)
}

#[inline(always)]
pub fn smsubl<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    multiply_add_long(e, word, true, true)
}

#[inline(always)]
pub fn umaddl<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    multiply_add_long(e, word, false, false)
}

#[inline(always)]
pub fn umsubl<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    multiply_add_long(e, word, false, true)
}

#[inline(always)]
pub fn smulh<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let high = e.mul_high(true, a, b);
    e.set_x(rd(word), high);
    Ok(Flow::Next)
}

#[inline(always)]
pub fn umulh<E: Emit>(e: &mut E, word: u32) -> Outcome<E> {
    let a = e.x(rn(word));
    let b = e.x(rm(word));
    let high = e.mul_high(false, a, b);
    e.set_x(rd(word), high);
    Ok(Flow::Next)
}
