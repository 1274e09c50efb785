//! What each A64 instruction does, written once against [`Emit`].
//!
//! A function for each row of the decode table ([`aarch64::decode`]), with the row's name. What the row's pattern cannot
//! exclude, the function does, by taking Undefined before anything else.

mod atomic;
mod branch;
mod float;
mod integer;
mod memory;
mod system;
mod vector;
mod vector_crypto;
mod vector_float;
mod vector_integer;
mod vector_long;
mod vector_memory;
mod vector_permute;
mod vector_shift;

use aarch64::Instruction;

use crate::emit::{Emit, Exception, Outcome};

use self::{
    atomic::*, branch::*, float::*, integer::*, memory::*, system::*, vector_crypto::*,
    vector_float::*, vector_integer::*, vector_long::*, vector_memory::*, vector_permute::*,
    vector_shift::*,
};

/// The semantic function of an instruction, for one emitter.
pub type Function<E> = fn(&mut E, u32) -> Outcome<E>;

/// Bits `high:low` of an instruction word.
#[inline(always)]
pub(crate) const fn bits(word: u32, high: u32, low: u32) -> u32 {
    word >> low & (u32::MAX >> (31 - (high - low)))
}

/// Whether a bit of an instruction word is set.
#[inline(always)]
pub(crate) const fn bit(word: u32, at: u32) -> bool {
    word >> at & 1 != 0
}

/// Bits `high:low` of an instruction word as a signed number.
#[inline(always)]
pub(crate) const fn signed(word: u32, high: u32, low: u32) -> i64 {
    let unused = 31 - high;
    ((word << unused) as i32 >> (unused + low)) as i64
}

/// The register fields most encodings share.
#[inline(always)]
pub(crate) const fn rd(word: u32) -> u32 {
    word & 31
}

#[inline(always)]
pub(crate) const fn rn(word: u32) -> u32 {
    word >> 5 & 31
}

#[inline(always)]
pub(crate) const fn rm(word: u32) -> u32 {
    word >> 16 & 31
}

/// Takes Undefined: what unallocated words do, and encodings whose fields have reserved values.
pub fn undefined<E: Emit>(e: &mut E, _word: u32) -> Outcome<E> {
    e.exception(Exception::Undefined)
}

macro_rules! define_dispatch {
    ($($pattern:literal $name:ident $(if $extension:ident)?;)*) => {
        /// The semantic function of an instruction.
        pub fn function<E: Emit>(instruction: Instruction) -> Function<E> {
            match instruction {
                $(Instruction::$name => $name::<E>,)*
            }
        }

        /// Executes, emits or records one instruction.
        pub fn instruction<E: Emit>(e: &mut E, instruction: Instruction, word: u32) -> Outcome<E> {
            match instruction {
                $(Instruction::$name => $name(e, word),)*
            }
        }

        /// As [`function`], for words whose bits 31:30 are `TOP`: sizes and widths are known to the compiler.
        fn with_top<E: Emit, const TOP: u32>(instruction: Instruction) -> Function<E> {
            match instruction {
                $(Instruction::$name => |e, word| $name(e, word & 0x3fff_ffff | TOP << 30),)*
            }
        }
    };
}

aarch64::instructions!(define_dispatch);

/// The semantic function of an instruction, made for words that agree with `word` in bits 31:30.
pub fn specialised<E: Emit>(instruction: Instruction, word: u32) -> Function<E> {
    match word >> 30 {
        0 => with_top::<E, 0>(instruction),
        1 => with_top::<E, 1>(instruction),
        2 => with_top::<E, 2>(instruction),
        _ => with_top::<E, 3>(instruction),
    }
}
