//! The NVM Express controller (NVM Express Base Specification 1.4, "NVMe") as a PCI function, with one namespace.
//!
//! Doorbells wake worker threads, which fetch commands, do them and post completions. A reset (of the controller, or the
//! machine) ends an epoch: what a worker took before it reaches neither guest memory nor a queue afterwards, and the
//! next epoch's work waits until it is over ([`device::Workers`]).

mod admin;
mod command;
mod controller;
mod events;
mod features;
mod identify;
mod interrupts;
mod io;
mod log;
mod prp;
mod queues;
mod registers;
pub mod spec;
mod state;
#[cfg(test)]
mod tests;

pub use controller::{ConfigError, Nvme, NvmeConfig, NvmeState};
