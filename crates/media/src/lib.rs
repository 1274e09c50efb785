//! What install media and disk images hold.
//!
//! - [`source`]: bytes that can be read anywhere; a file inside an image is one too, so that a WIM in an ISO needs no unpacking.
//! - [`filesystem`]: what ISO 9660, Joliet, UDF, FAT and the images of a WIM have in common.
//! - [`iso`], [`udf`], [`fat`], [`wim`]: those.
//! - [`hive`]: registry hives, read and written; [`bcd`]: the boot configuration in them.
//! - [`pe`]: loaders and drivers; [`drivers`]: packages on a medium such as virtio-win.
//! - [`inspect`]: what any file is.
//! - [`place`]: names of what lies within files; [`extract`]: files and trees out of them; [`partition`]: tables of disks.
//! - [`volume`]: small volumes made from files; [`overlay`]: a medium that boots another of its images.

pub mod bcd;
pub mod drivers;
mod error;
pub mod extract;
pub mod fat;
mod fields;
pub mod filesystem;
pub mod hive;
pub mod inspect;
pub mod iso;
pub mod labconfig;
pub mod overlay;
pub mod partition;
pub mod pe;
pub mod place;
pub mod source;
pub mod time;
pub mod udf;
pub mod volume;
pub mod wim;
mod xml;

pub use error::{Error, Result};
pub use fields::hex;
