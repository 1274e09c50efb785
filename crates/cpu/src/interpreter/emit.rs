//! Instruction semantics, executed at once.

use std::sync::atomic::{Ordering, fence};

use crate::core::Taken;
use crate::emit::{
    Access, AtomicOperation, Barrier, Emit, Exception, Flow, Jump, Key, Outcome, Width,
};
use crate::{pac, vector};

use super::Interpreter;
use super::memory::Place;

const N: u32 = 1 << 31;
const Z: u32 = 1 << 30;
const C: u32 = 1 << 29;
const V: u32 = 1 << 28;

/// For each condition code, the sixteen values of NZCV (bit 3 is N) that it holds for.
const CONDITIONS: [u16; 16] = {
    let mut table = [0; 16];
    let mut code = 0;
    while code < 16 {
        let mut nzcv = 0;
        while nzcv < 16 {
            let (n, z, c, v) = (nzcv & 8 != 0, nzcv & 4 != 0, nzcv & 2 != 0, nzcv & 1 != 0);
            let base = match code >> 1 {
                0 => z,
                1 => c,
                2 => n,
                3 => v,
                4 => c && !z,
                5 => n == v,
                6 => n == v && !z,
                _ => true,
            };
            if base != (code & 1 != 0 && code != 15) {
                table[code] |= 1 << nzcv;
            }
            nzcv += 1;
        }
        code += 1;
    }
    table
};

/// Cuts to the width.
#[inline(always)]
fn cut(w: Width, value: u64) -> u64 {
    match w {
        Width::W32 => value as u32 as u64,
        Width::W64 => value,
    }
}

#[inline(always)]
fn nz(w: Width, result: u64) -> u32 {
    let negative = match w {
        Width::W32 => result as u32 & N,
        Width::W64 => (result >> 32) as u32 & N,
    };
    negative | if cut(w, result) == 0 { Z } else { 0 }
}

#[inline(always)]
fn cv(carry: bool, overflow: bool) -> u32 {
    (if carry { C } else { 0 }) | (if overflow { V } else { 0 })
}

/// Each byte's remainder, reflected.
const fn crc_table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { polynomial } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

static CRC32: [u32; 256] = crc_table(0x04c1_1db7_u32.reverse_bits());
static CRC32C: [u32; 256] = crc_table(0x1edc_6f41_u32.reverse_bits());

impl Interpreter {
    /// After a system operation that ends the block.
    #[inline(always)]
    fn ended(&mut self, flow: Flow) -> Flow {
        if flow == Flow::Ends {
            self.core.state.pc = self.core.state.pc.wrapping_add(4);
            self.retarget();
        }
        flow
    }
}

impl Emit for Interpreter {
    type Value = u64;
    type Cond = bool;
    type Flags = u32;
    type Vector = u128;
    type Place = Place;
    type Stop = Taken;

    #[inline(always)]
    fn key(&self) -> &Key {
        self.core.key()
    }

    #[inline(always)]
    fn pc(&mut self, offset: i64) -> u64 {
        self.core.state.pc.wrapping_add_signed(offset)
    }

    // ---- registers

    #[inline(always)]
    fn x(&mut self, n: u32) -> u64 {
        let value = self.core.state.x[(n & 31) as usize];
        if n & 31 == 31 { 0 } else { value }
    }

    #[inline(always)]
    fn x_or_sp(&mut self, n: u32) -> u64 {
        self.core.state.x[(n & 31) as usize]
    }

    #[inline(always)]
    fn set_x(&mut self, n: u32, value: u64) {
        if n & 31 != 31 {
            self.core.state.x[(n & 31) as usize] = value;
        }
    }

    #[inline(always)]
    fn set_x_or_sp(&mut self, n: u32, value: u64) {
        self.core.state.x[(n & 31) as usize] = value;
    }

    #[inline(always)]
    fn v(&mut self, n: u32) -> u128 {
        self.core.state.v[(n & 31) as usize]
    }

    #[inline(always)]
    fn set_v(&mut self, n: u32, value: u128) {
        self.core.state.v[(n & 31) as usize] = value;
    }

    // ---- integers

    #[inline(always)]
    fn constant(&mut self, value: u64) -> u64 {
        value
    }

    #[inline(always)]
    fn add(&mut self, w: Width, a: u64, b: u64) -> u64 {
        cut(w, a.wrapping_add(b))
    }

    #[inline(always)]
    fn sub(&mut self, w: Width, a: u64, b: u64) -> u64 {
        cut(w, a.wrapping_sub(b))
    }

    #[inline(always)]
    fn and(&mut self, w: Width, a: u64, b: u64) -> u64 {
        cut(w, a & b)
    }

    #[inline(always)]
    fn or(&mut self, w: Width, a: u64, b: u64) -> u64 {
        cut(w, a | b)
    }

    #[inline(always)]
    fn xor(&mut self, w: Width, a: u64, b: u64) -> u64 {
        cut(w, a ^ b)
    }

    #[inline(always)]
    fn not(&mut self, w: Width, a: u64) -> u64 {
        cut(w, !a)
    }

    #[inline(always)]
    fn mul(&mut self, w: Width, a: u64, b: u64) -> u64 {
        cut(w, a.wrapping_mul(b))
    }

    #[inline(always)]
    fn mul_high(&mut self, signed: bool, a: u64, b: u64) -> u64 {
        if signed {
            ((a as i64 as i128 * b as i64 as i128) >> 64) as u64
        } else {
            ((u128::from(a) * u128::from(b)) >> 64) as u64
        }
    }

    #[inline(always)]
    fn div(&mut self, w: Width, signed: bool, a: u64, b: u64) -> u64 {
        match (w, signed) {
            (Width::W64, false) => a.checked_div(b).unwrap_or(0),
            (Width::W32, false) => (a as u32).checked_div(b as u32).unwrap_or(0).into(),
            (Width::W64, true) if b == 0 => 0,
            (Width::W64, true) => (a as i64).wrapping_div(b as i64) as u64,
            (Width::W32, true) if b as u32 == 0 => 0,
            (Width::W32, true) => (a as i32).wrapping_div(b as i32) as u32 as u64,
        }
    }

    #[inline(always)]
    fn shl(&mut self, w: Width, a: u64, amount: u64) -> u64 {
        match w {
            Width::W32 => (a as u32).wrapping_shl(amount as u32).into(),
            Width::W64 => a.wrapping_shl(amount as u32),
        }
    }

    #[inline(always)]
    fn lsr(&mut self, w: Width, a: u64, amount: u64) -> u64 {
        match w {
            Width::W32 => (a as u32).wrapping_shr(amount as u32).into(),
            Width::W64 => a.wrapping_shr(amount as u32),
        }
    }

    #[inline(always)]
    fn asr(&mut self, w: Width, a: u64, amount: u64) -> u64 {
        match w {
            Width::W32 => (a as i32).wrapping_shr(amount as u32) as u32 as u64,
            Width::W64 => (a as i64).wrapping_shr(amount as u32) as u64,
        }
    }

    #[inline(always)]
    fn ror(&mut self, w: Width, a: u64, amount: u64) -> u64 {
        match w {
            Width::W32 => (a as u32).rotate_right(amount as u32 & 31).into(),
            Width::W64 => a.rotate_right(amount as u32 & 63),
        }
    }

    #[inline(always)]
    fn shl_by(&mut self, w: Width, a: u64, amount: u32) -> u64 {
        self.shl(w, a, amount.into())
    }

    #[inline(always)]
    fn lsr_by(&mut self, w: Width, a: u64, amount: u32) -> u64 {
        self.lsr(w, a, amount.into())
    }

    #[inline(always)]
    fn asr_by(&mut self, w: Width, a: u64, amount: u32) -> u64 {
        self.asr(w, a, amount.into())
    }

    #[inline(always)]
    fn ror_by(&mut self, w: Width, a: u64, amount: u32) -> u64 {
        self.ror(w, a, amount.into())
    }

    #[inline(always)]
    fn extract_pair(&mut self, w: Width, high: u64, low: u64, lsb: u32) -> u64 {
        match w {
            Width::W32 => ((high << 32 | low & 0xffff_ffff) >> (lsb & 31)) as u32 as u64,
            Width::W64 => ((u128::from(high) << 64 | u128::from(low)) >> (lsb & 63)) as u64,
        }
    }

    #[inline(always)]
    fn sign_extend(&mut self, w: Width, a: u64, bits: u32) -> u64 {
        let unused = (64 - bits) & 63;
        cut(w, ((a << unused) as i64 >> unused) as u64)
    }

    #[inline(always)]
    fn zero_extend(&mut self, a: u64, bits: u32) -> u64 {
        a & (u64::MAX >> ((64 - bits) & 63))
    }

    #[inline(always)]
    fn count_leading_zeros(&mut self, w: Width, a: u64) -> u64 {
        match w {
            Width::W32 => (a as u32).leading_zeros().into(),
            Width::W64 => a.leading_zeros().into(),
        }
    }

    #[inline(always)]
    fn count_leading_signs(&mut self, w: Width, a: u64) -> u64 {
        // Bits that equal the one above them.
        match w {
            Width::W32 => {
                let a = a as u32;
                u64::from(((a ^ (a as i32 >> 1) as u32) << 1 | 1).leading_zeros())
            }
            Width::W64 => u64::from(((a ^ (a as i64 >> 1) as u64) << 1 | 1).leading_zeros()),
        }
    }

    #[inline(always)]
    fn reverse_bits(&mut self, w: Width, a: u64) -> u64 {
        match w {
            Width::W32 => (a as u32).reverse_bits().into(),
            Width::W64 => a.reverse_bits(),
        }
    }

    #[inline(always)]
    fn reverse_bytes(&mut self, w: Width, a: u64, chunk: u32) -> u64 {
        let reversed = match chunk {
            16 => (a & 0x00ff_00ff_00ff_00ff) << 8 | a >> 8 & 0x00ff_00ff_00ff_00ff,
            32 => a.swap_bytes().rotate_left(32),
            _ => a.swap_bytes(),
        };
        cut(w, reversed)
    }

    fn crc32(&mut self, castagnoli: bool, accumulator: u64, data: u64, bits: u32) -> u64 {
        let table = if castagnoli { &CRC32C } else { &CRC32 };
        let mut crc = accumulator as u32;
        for byte in &data.to_le_bytes()[..(bits / 8) as usize] {
            crc = crc >> 8 ^ table[(crc as u8 ^ byte) as usize];
        }
        crc.into()
    }

    // ---- conditions and flags

    #[inline(always)]
    fn select(&mut self, w: Width, condition: bool, yes: u64, no: u64) -> u64 {
        cut(w, if condition { yes } else { no })
    }

    #[inline(always)]
    fn is_zero(&mut self, w: Width, a: u64) -> bool {
        cut(w, a) == 0
    }

    #[inline(always)]
    fn bit_is_set(&mut self, a: u64, bit: u32) -> bool {
        a >> (bit & 63) & 1 != 0
    }

    #[inline(always)]
    fn not_cond(&mut self, a: bool) -> bool {
        !a
    }

    #[inline(always)]
    fn flags(&mut self) -> u32 {
        self.core.state.nzcv
    }

    #[inline(always)]
    fn set_flags(&mut self, flags: u32) {
        self.core.state.nzcv = flags;
    }

    #[inline(always)]
    fn condition(&mut self, code: u32) -> bool {
        CONDITIONS[(code & 15) as usize] >> (self.core.state.nzcv >> 28) & 1 != 0
    }

    #[inline(always)]
    fn carry(&mut self) -> u64 {
        u64::from(self.core.state.nzcv >> 29 & 1)
    }

    #[inline(always)]
    fn add_with_flags(&mut self, w: Width, a: u64, b: u64, carry: u64) -> (u64, u32) {
        match w {
            Width::W32 => {
                let wide = u64::from(a as u32) + u64::from(b as u32) + carry;
                let sum = wide as u32;
                let overflow = (a as u32 ^ sum) & (b as u32 ^ sum);
                (
                    sum.into(),
                    nz(w, wide) | cv(wide >> 32 != 0, overflow >> 31 != 0),
                )
            }
            Width::W64 => {
                let (sum, first) = a.overflowing_add(b);
                let (sum, second) = sum.overflowing_add(carry);
                let overflow = (a ^ sum) & (b ^ sum);
                (sum, nz(w, sum) | cv(first | second, overflow >> 63 != 0))
            }
        }
    }

    #[inline(always)]
    fn sub_with_flags(&mut self, w: Width, a: u64, b: u64) -> (u64, u32) {
        match w {
            Width::W32 => {
                let (a, b) = (a as u32, b as u32);
                let difference = a.wrapping_sub(b);
                let overflow = (a ^ b) & (a ^ difference);
                let flags = nz(w, difference.into()) | cv(a >= b, overflow >> 31 != 0);
                (difference.into(), flags)
            }
            Width::W64 => {
                let difference = a.wrapping_sub(b);
                let overflow = (a ^ b) & (a ^ difference);
                (
                    difference,
                    nz(w, difference) | cv(a >= b, overflow >> 63 != 0),
                )
            }
        }
    }

    #[inline(always)]
    fn logic_flags(&mut self, w: Width, result: u64) -> u32 {
        nz(w, result)
    }

    #[inline(always)]
    fn flags_from(&mut self, value: u64) -> u32 {
        value as u32 & 0xf000_0000
    }

    #[inline(always)]
    fn flags_to(&mut self, flags: u32) -> u64 {
        flags.into()
    }

    #[inline(always)]
    fn select_flags(&mut self, condition: bool, flags: u32, otherwise: u32) -> u32 {
        if condition { flags } else { otherwise << 28 }
    }

    // ---- memory

    #[inline(always)]
    fn access(&mut self, address: u64, access: Access) -> Result<Place, Taken> {
        self.access_memory(address, access)
    }

    #[inline(always)]
    fn read(&mut self, place: Place, offset: u32, size: u8) -> Result<u64, Taken> {
        self.read_memory(place, offset, size)
    }

    #[inline(always)]
    fn write(&mut self, place: Place, offset: u32, size: u8, value: u64) -> Result<(), Taken> {
        self.write_memory(place, offset, size, value)
    }

    #[inline(always)]
    fn read_ordered(&mut self, place: Place, size: u8) -> Result<u64, Taken> {
        self.read_memory_ordered(place, size)
    }

    #[inline(always)]
    fn write_ordered(&mut self, place: Place, size: u8, value: u64) -> Result<(), Taken> {
        self.write_memory_ordered(place, size, value)
    }

    #[inline(always)]
    fn read_vector(&mut self, place: Place, offset: u32, size: u8) -> Result<u128, Taken> {
        if size <= 8 {
            return self.read_memory(place, offset, size).map(u128::from);
        }
        let low = self.read_memory(place, offset, 8)?;
        let high = self.read_memory(place, offset + 8, size - 8)?;
        Ok(u128::from(low) | u128::from(high) << 64)
    }

    #[inline(always)]
    fn write_vector(
        &mut self,
        place: Place,
        offset: u32,
        size: u8,
        value: u128,
    ) -> Result<(), Taken> {
        if size <= 8 {
            return self.write_memory(place, offset, size, value as u64);
        }
        self.write_memory(place, offset, 8, value as u64)?;
        self.write_memory(place, offset + 8, size - 8, (value >> 64) as u64)
    }

    #[inline(always)]
    fn atomic(
        &mut self,
        operation: AtomicOperation,
        place: Place,
        size: u8,
        operand: u64,
    ) -> Result<u64, Taken> {
        self.modify_memory(operation, place, size, operand)
    }

    #[inline(always)]
    fn compare_and_swap(
        &mut self,
        place: Place,
        size: u8,
        expected: u64,
        new: u64,
    ) -> Result<u64, Taken> {
        self.swap_memory_if(place, size, expected, new)
    }

    fn compare_and_swap_pair(
        &mut self,
        place: Place,
        size: u8,
        expected: (u64, u64),
        new: (u64, u64),
    ) -> Result<(u64, u64), Taken> {
        self.swap_pair_if(place, size, expected, new)
    }

    fn load_exclusive(&mut self, place: Place, size: u8, pair: bool) -> Result<(u64, u64), Taken> {
        self.load_memory_exclusive(place, size, pair)
    }

    fn store_exclusive(
        &mut self,
        place: Place,
        size: u8,
        pair: bool,
        value: (u64, u64),
    ) -> Result<u64, Taken> {
        self.store_memory_exclusive(place, size, pair, value)
    }

    fn clear_exclusive(&mut self) {
        self.core.state.monitor.armed = false;
    }

    fn barrier(&mut self, barrier: Barrier) -> Outcome<Self> {
        match barrier {
            // Types are in bits 1:0: 1 loads, 2 stores, 3 all.
            Barrier::Dmb(domain) => match domain & 3 {
                1 => fence(Ordering::Acquire),
                2 => fence(Ordering::Release),
                _ => fence(Ordering::SeqCst),
            },
            Barrier::Dsb(_) => {
                fence(Ordering::SeqCst);
                self.core.synchronize(&mut self.tlb);
                self.forget_code();
            }
            // What executes is compared with memory at every step, and system registers take effect at once.
            Barrier::Isb => return Ok(self.ended(Flow::Ends)),
            Barrier::Speculation => {}
        }
        Ok(Flow::Next)
    }

    fn zero_block(&mut self, rt: u32, address: u64) -> Result<(), Taken> {
        self.core.check_zero_block(rt)?;
        self.zero_memory(address)
    }

    // ---- vectors and floating point

    #[inline(always)]
    fn vector_constant(&mut self, value: u128) -> u128 {
        value
    }

    #[inline(always)]
    fn vector(&mut self, operation: vector::Operation, operands: [u128; 3]) -> u128 {
        let state = &mut self.core.state;
        operation.apply(operands, state.fpcr, &mut state.fpsr)
    }

    #[inline(always)]
    fn vector_to_value(&mut self, operation: vector::ToValue, a: u128) -> u64 {
        let state = &mut self.core.state;
        operation.apply(a, state.fpcr, &mut state.fpsr)
    }

    #[inline(always)]
    fn value_to_vector(&mut self, operation: vector::FromValue, into: u128, a: u64) -> u128 {
        let state = &mut self.core.state;
        operation.apply(into, a, state.fpcr, &mut state.fpsr)
    }

    #[inline(always)]
    fn float_compare(&mut self, operation: vector::Compare, a: u128, b: u128) -> u32 {
        let state = &mut self.core.state;
        operation.apply(a, b, state.fpcr, &mut state.fpsr)
    }

    #[inline(always)]
    fn select_vector(&mut self, condition: bool, yes: u128, no: u128) -> u128 {
        if condition { yes } else { no }
    }

    // ---- system

    fn read_system_register(&mut self, register: u16, rt: u32) -> Result<u64, Taken> {
        self.core.read_register(self.world(), register, rt)
    }

    fn write_system_register(&mut self, register: u16, rt: u32, value: u64) -> Outcome<Self> {
        let flow = self
            .core
            .write_register(self.world(), register, rt, value)?;
        Ok(self.ended(flow))
    }

    fn write_pstate(&mut self, field: u32, immediate: u32) -> Outcome<Self> {
        let flow = self.core.write_pstate(field, immediate)?;
        Ok(self.ended(flow))
    }

    fn system(&mut self, register: u16, rt: u32, value: u64) -> Outcome<Self> {
        let world = self.world();
        let flow = self
            .core
            .system(world, &mut self.tlb, register, rt, value)?;
        self.forget_code();
        Ok(self.ended(flow))
    }

    fn pac_add(&mut self, key: u32, pointer: u64, modifier: u64) -> u64 {
        pac::add(&self.core.state, key, pointer, modifier)
    }

    fn pac_authenticate(&mut self, key: u32, pointer: u64, modifier: u64) -> u64 {
        pac::authenticate(&self.core.state, key, pointer, modifier)
    }

    fn pac_strip(&mut self, data: bool, pointer: u64) -> u64 {
        pac::strip(&self.core.state, data, pointer)
    }

    fn pac_generic(&mut self, a: u64, b: u64) -> u64 {
        pac::generic(&self.core.state, a, b)
    }

    fn hint(&mut self, number: u32) -> Outcome<Self> {
        if !(1..=5).contains(&number) {
            return Ok(Flow::Next);
        }
        let world = self.world();
        let flow = self.core.hint(world, &mut self.tlb, number)?;
        Ok(self.ended(flow))
    }

    // ---- terminators

    #[inline(always)]
    fn jump(&mut self, offset: i64) -> Flow {
        self.core.state.pc = self.core.state.pc.wrapping_add_signed(offset);
        Flow::Ends
    }

    #[inline(always)]
    fn jump_if(&mut self, condition: bool, offset: i64) -> Flow {
        let offset = if condition { offset } else { 4 };
        self.core.state.pc = self.core.state.pc.wrapping_add_signed(offset);
        Flow::Ends
    }

    #[inline(always)]
    fn jump_to(&mut self, target: u64, _: Jump) -> Flow {
        // Most targets are in this page, where there is no tag to remove.
        self.core.state.pc = if (target ^ self.code_page) & !0xfff == 0 {
            target
        } else {
            self.core.branch_address(target)
        };
        Flow::Ends
    }

    fn exception_link(&mut self) -> u64 {
        self.core.state.elr[1]
    }

    fn exception_return(&mut self, target: u64) -> Outcome<Self> {
        let elr = std::mem::replace(&mut self.core.state.elr[1], target);
        self.core.exception_return();
        self.core.state.elr[1] = elr;
        self.retarget();
        Ok(Flow::Ends)
    }

    #[cold]
    fn exception(&mut self, exception: Exception) -> Outcome<Self> {
        self.core.exception(self.world(), exception);
        Err(Taken)
    }
}
