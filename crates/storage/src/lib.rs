//! Disk images: qcow2, raw, overlays.

mod disk;

pub use disk::Disk;
