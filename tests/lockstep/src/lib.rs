//! Random programs, run by every way that the jit engine has to run them: state, memory and calls must be the same.
//!
//! - [`program`] is programs as trees (loops, calls, jump tables, stores into code, changes of translation and of exception
//!   level) and the words they become.
//! - [`generate`] makes them from seeds.
//! - [`machine`] runs them through the engine's seam, one after the other on the same processor.
//! - [`compare`] says what differs, and makes the program that shows it small.
//! - [`shadow`] follows generated code through whole systems, and [`boot`] starts Linux that way.

pub mod boot;
pub mod compare;
pub mod generate;
pub mod layout;
pub mod machine;
pub mod program;
pub mod shadow;
