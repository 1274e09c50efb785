//! The bare-metal programs on the Mac's own framework: one at a time, as a process has one virtual machine, and signed
//! (docs/mac.md).
#![cfg(all(target_os = "macos", target_arch = "aarch64"))]

#[path = "bare_metal/assembler.rs"]
mod assembler;
#[path = "bare_metal/board.rs"]
mod board;
#[path = "bare_metal/debugging.rs"]
mod debugging;
#[path = "bare_metal/programs.rs"]
mod programs;

use dormer_engine::Engine;

/// The engine under test.
fn engine() -> Box<dyn Engine> {
    dormer_engine::engine("hvf").unwrap()
}
