//! The back end for x86-64.
//!
//! - [`assembler`] encodes instructions.
//! - [`emitter`] is what instruction semantics are run on to make code: `emit` is its side of [`cpu::Emit`], `vector` its
//!   part for vectors and floating point, with `vector_lanes`, `vector_float` and `vector_crypto`; `places` its accesses near
//!   others.
//! - `loops` finds loops that are worth more, by what `record` says that instructions do, and `loop_code` emits them.
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
mod emit;
mod emitter;
mod exceptions;
mod features;
mod flags;
mod frame;
mod functions;
mod interrupts;
mod loop_code;
mod loops;
mod names;
mod nesting;
mod places;
mod pointers;
mod record;
mod region;
mod system;
mod thunks;
mod translator;
mod vector;
mod vector_crypto;
mod vector_float;
mod vector_lanes;

pub use features::HostFeatures;
pub use translator::Translator;
