//! The PCI Express root bus of the board, and what functions on it are made of.
//!
//! - [`Endpoint`] is a function's configuration space: header, BARs, capabilities, MSI, MSI-X and INTx.
//! - [`Function`] is what a device implements on top of it.
//! - [`Bus`] has the slots; it answers ECAM and the windows of the host bridge.
//!
//! Sources: PCI Local Bus Specification 3.0 ("PCI"), PCI Express Base Specification 5.0 ("PCIe").

mod bus;
mod endpoint;
mod function;
mod host_bridge;
mod msi;
mod msix;
pub mod registers;
mod space;
#[cfg(test)]
mod tests;

pub use bus::{Bus, BusConfig, PlugError, Window};
pub use endpoint::{Endpoint, EndpointState, RestoreError};
pub use function::Function;
pub use space::{BarKind, EndpointBuilder, Identity};
