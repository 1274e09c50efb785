//! The bare-metal programs on the host's own hypervisor: one at a time, as a process of a Mac's has one virtual machine, and
//! there signed (docs/mac.md). On Linux the host must have a GICv3.
#![cfg(all(any(target_os = "macos", target_os = "linux"), target_arch = "aarch64"))]

#[path = "bare_metal/assembler.rs"]
mod assembler;
#[path = "bare_metal/board.rs"]
mod board;
#[path = "bare_metal/debugging.rs"]
mod debugging;
#[path = "bare_metal/moves.rs"]
mod moves;
#[path = "bare_metal/programs.rs"]
mod programs;
#[path = "bare_metal/tracking.rs"]
mod tracking;

use dormer_engine::Engine;

/// The engine under test.
fn engine() -> Box<dyn Engine> {
    let name = if cfg!(target_os = "macos") {
        "hvf"
    } else {
        "kvm"
    };
    dormer_engine::engine(name).unwrap()
}
