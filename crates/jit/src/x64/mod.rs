//! The back end for x86-64.
//!
//! - [`assembler`] encodes instructions.
//! - [`emitter`] is what instruction semantics are run on to make code: `emit` is its side of [`cpu::Emit`]; `values` computes,
//!   `host_flags` sees to the flags, `memory` to accesses, `places` to those near others, and `ways` leaves blocks; `vector` is
//!   its part for vectors and floating point, with `vector_lanes`, `vector_float` and `vector_crypto`, `copies` those at hand.
//! - `loops` finds loops that are worth more, by what `record` says that instructions do, with `nesting`; `loop_code` emits
//!   them, and `flags` finds which of their flags need not be stored.
//! - `atomic`: atomics and exclusives; `interrupts`: masks of interrupts; `exceptions`: SVC and ERET; `control`:
//!   address spaces and the interrupt controller; `system`: other system registers, and barriers; `pointers`: pointer
//!   authentication.
//! - [`frame`] is what generated code works on; [`functions`] what it calls for single operations.
//! - [`region`], [`cache`], [`names`]: where code is. [`thunks`]: code that all blocks share. [`blocks`]: how blocks are made.
//! - [`translator`] is the processor that executes all that.

mod assembler;
mod atomic;
mod blocks;
mod cache;
mod control;
mod copies;
mod emit;
mod emitter;
mod exceptions;
mod features;
mod flags;
mod frame;
mod functions;
mod host_flags;
mod interrupts;
mod loop_code;
mod loops;
mod memory;
mod names;
mod nesting;
mod places;
mod pointers;
mod record;
mod region;
mod system;
mod thunks;
mod translator;
mod values;
mod vector;
mod vector_crypto;
mod vector_float;
mod vector_lanes;
mod ways;
mod windows;

pub use features::HostFeatures;
pub use translator::Translator;
