//! What an A64 processor does.
//!
//! - [`State`]: its registers, plain data.
//! - [`Emit`]: the interface instruction semantics are written against, once for all engines.
//! - [`World`]: what it finds around it.

mod emit;
mod state;
pub mod vector;
mod world;

pub use emit::{
    Access, AccessKind, AtomicOperation, Barrier, Emit, Exception, Flow, Jump, Key, Order, Outcome,
    Width,
};
pub use state::{Debug, Monitor, Pmu, State, Timers};
pub use world::{CallOutcome, World};
