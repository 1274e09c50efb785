//! What every device is made of.
//!
//! A device is `Config` + `State` + contents that outlive a reset, all plain and serde, plus wiring: the interrupt
//! [`Line`], the [`Dma`] view, the [`Clock`], and back ends. `State::power_on(&Config)` is its power-on state, and a reset
//! is that again. One `update` a device derives its interrupt lines from state after every change.
//!
//! Registers are reached through [`Mmio`]; [`Registers`] settles width, alignment and straddling once.

mod clock;
pub mod input;
mod line;
mod registers;
pub mod screen;
pub mod serial;
mod workers;

pub use clock::{Clock, Timer};
pub use line::{Line, LineSink, Msi, MsiTarget};
pub use memory::{Access, Dma, DmaError, Mmio};
pub use registers::Registers;
pub use workers::{Ticket, Workers};

/// What the board does to any device.
pub trait Device: Send + Sync {
    /// A short name for logs and errors, such as `pl011` or the user's `id=`.
    fn name(&self) -> &str;

    /// Back to power-on state. Work in flight is cancelled or drained; a completion that belongs to the time before is
    /// dropped. No processor runs meanwhile.
    fn reset(&self);

    /// Called before processors stop for good or the machine ends: write back what the host must keep.
    fn shutdown(&self) {}
}
