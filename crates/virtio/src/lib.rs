//! Virtio devices (Virtual I/O Device 1.2, "VIRTIO") on PCI.
//!
//! - [`VirtioDevice`] is what a device implements: features, configuration, and work on its queues.
//! - [`VirtioPci`] is the transport: it makes a [`pci::Function`] out of a device, modern, legacy or both.
//! - [`Virtqueue`] is a split ring whose every content is the guest's: nothing in it is believed.
//!
//! A reset ends an epoch. Work that a worker took before it may go on in the host, but reaches neither guest memory nor
//! rings nor interrupts: [`Virtqueue`] drops what comes from an older epoch. A device's work of the next epoch begins
//! when the old is over ([`device::Workers`] see to it), so that an old write cannot overtake a new one.

pub mod block;
mod chain;
mod device;
pub mod gpu;
mod interrupts;
pub mod net;
mod pci;
mod queue;
pub mod rng;
pub mod spec;
#[cfg(test)]
mod testing;

pub use chain::{Chain, Cursor, Segment};
pub use device::{DeviceKind, Running, VirtioDevice};
pub use interrupts::Interrupts;
pub use pci::{ConfigError, PciOptions, VirtioPci, VirtioPciState};
pub use queue::Virtqueue;
