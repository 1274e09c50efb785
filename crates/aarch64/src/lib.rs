//! Facts of the A64 architecture, no state.

pub mod decode;
pub mod esr;
pub mod psci;
pub mod registers;

pub use decode::{Extension, Extensions, Instruction, decode};
