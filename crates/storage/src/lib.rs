//! Disk images: raw and qcow2 with their backing chains, and what stands between an image and a device.
//!
//! [`open`] takes [`ImageOptions`] and gives a [`Disk`] for a running machine. There the qcow2 format is the work of the
//! crate `imago`; what it does not look at is looked at here first: encryption, features it lacks, truncated files, and
//! locks. Images that were not closed are repaired first, and those with zstd clusters are the work of [`qcow2::Qcow2`] here,
//! too. [`PausingDisk`] stops the machine instead of failing a guest's write when the host's disk is full.
//!
//! Images at rest are [`format::Chain`]s, which [`verbs`] work on: all of qcow2 ([`qcow2::Qcow2`]), and what other programs
//! make, to convert from.

mod access;
mod buffer;
mod create;
mod direct;
mod disk;
mod error;
mod faulty;
mod faulty_file;
mod file;
pub mod format;
pub mod host;
mod image;
mod lock;
mod memory;
mod native;
mod options;
mod pausing;
mod probe;
pub mod qcow2;
pub mod verbs;

pub use buffer::Buffer;
pub use create::{create_image, create_overlay, create_qcow2, create_raw};
pub use disk::Disk;
pub use error::OpenError;
pub use faulty::{FaultyDisk, Operation};
pub use faulty_file::{Fault, FaultyFile};
pub use image::{Image, Layer, open, open_locked};
pub use memory::MemoryDisk;
pub use options::{Cache, DetectZeroes, Discard, Format, ImageOptions, Locking, UnknownOption};
pub use pausing::{OnError, PausingDisk, Policy, Stall};
