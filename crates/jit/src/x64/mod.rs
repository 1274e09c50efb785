//! The back end for x86-64.
//!
//! - [`assembler`] encodes instructions.
//! - [`emitter`] is what instruction semantics are run on to make code: `emit` is its side of [`cpu::Emit`], `vector` its
//!   part for vectors and floating point.
//! - `atomic`: atomics and exclusives; `interrupts`: masks of interrupts.
//! - [`frame`] is what generated code works on; [`functions`] what it calls for single operations.
//! - [`region`], [`cache`]: where code is. [`thunks`]: code that all blocks share. [`blocks`]: how blocks are made.
//! - [`translator`] is the processor that executes all that.

mod assembler;
mod atomic;
mod blocks;
mod cache;
mod emit;
mod emitter;
mod features;
mod frame;
mod functions;
mod interrupts;
mod region;
mod thunks;
mod translator;
mod vector;

pub use features::HostFeatures;
pub use translator::Translator;
