//! What an A64 processor does.
//!
//! - [`State`]: its registers, plain data.
//! - [`Emit`]: the interface instruction semantics are written against, once for all engines.
//! - [`World`]: what it finds around it.

mod core;
mod debug;
mod debugger;
mod emit;
pub mod exception;
mod features;
pub mod float;
mod hypervisor;
mod interpreter;
pub mod mmu;
mod pac;
mod pmu;
pub mod registers;
pub mod semantics;
mod service;
pub mod signals;
mod state;
mod timer;
pub mod tlbi;
pub mod vector;
mod world;

pub use self::core::{Clock, Core, Done, Exit, Shared, Taken};
pub use debugger::{Debugger, Stop, Watch};
pub use emit::{
    Access, AccessKind, AtomicOperation, Barrier, Emit, Exception, Flow, Jump, Key, Order, Outcome,
    Width,
};
pub use exception::DataAccess;
pub use features::{FeatureError, Features, MODELS};
pub use hypervisor::{Event, Hypervisor};
pub use interpreter::{Code, Interpreter, Layout, Surroundings, TlbCounts};
pub use pac::pac_constants;
pub use signals::Signals;
pub use state::{Debug, Monitor, Pmu, State, Timers};
pub use world::{CallOutcome, World};
