//! Facts of the A64 architecture, no state.

pub mod decode;

pub use decode::{Extension, Extensions, Instruction, decode};
