//! Programs on the bare machine, by words, run through the engine's seam. Tests of other engines take the same files in.

mod assembler;
mod attacks;
mod board;
mod crossings;
mod debugging;
mod litmus;
mod numbers;
mod programs;

use dormer_engine::Engine;

/// The engine under test.
fn engine() -> Box<dyn Engine> {
    Box::new(dormer_engine::jit::Jit)
}
