//! The engines' bare-metal programs on `hvf`, and those that look at its exits one by one.

extern crate engine as dormer_engine;

#[path = "../../../crates/engine/tests/bare_metal/assembler.rs"]
mod assembler;
#[path = "../../../crates/engine/tests/bare_metal/board.rs"]
mod board;
#[path = "../../../crates/engine/tests/bare_metal/debugging.rs"]
mod debugging;
mod exits;
#[path = "../../../crates/engine/tests/bare_metal/moves.rs"]
mod moves;
#[path = "../../../crates/engine/tests/bare_metal/programs.rs"]
mod programs;
#[path = "../../../crates/engine/tests/bare_metal/tracking.rs"]
mod tracking;

use engine::Engine;
use engine::hvf::Hvf;
use hvf_model::{Model, Options};

/// The engine under test.
fn engine() -> Box<dyn Engine> {
    Box::new(Hvf::new(Model::new(Options::default())))
}
