//! Image formats at rest: what the `disk` verbs work on. A running machine's disks are [`crate::Image`]s instead.
//!
//! [`Chain`] opens an image with all that is below it and shows the disk; a [`Source`] is one layer of it.

mod chain;
mod raw;
mod vhdx;
mod vmdk;
mod vpc;

pub use chain::{Chain, ChainLayer, ChainOptions, Node, Status};
pub use raw::RawFile;
pub use vhdx::Vhdx;
pub use vmdk::{Vmdk, VmdkExtent};
pub use vpc::Vpc;

use crate::host::Host;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

/// Why something did not work with an image.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("{}", crate::error::message(.0))]
    Io(#[from] io::Error),
    /// The image is damaged, or asks for what is not built; for users to read.
    #[error("{0}")]
    Image(String),
    /// What was asked for cannot be done with this image.
    #[error("{0}")]
    Refused(String),
    #[error("Operation not supported")]
    Unsupported,
    /// The user stopped it.
    #[error("Interrupted")]
    Interrupted,
}

impl FormatError {
    pub(crate) fn image(reason: impl Into<String>) -> FormatError {
        FormatError::Image(reason.into())
    }

    pub(crate) fn refused(reason: impl Into<String>) -> FormatError {
        FormatError::Refused(reason.into())
    }
}

pub type Result<T> = std::result::Result<T, FormatError>;

/// A format of image files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// The bytes of the disk, nothing else. ISO images are this.
    Raw,
    Qcow2,
    /// To read only, as those that follow.
    Vhdx,
    /// VHD, which QEMU names after Virtual PC.
    Vpc,
    Vmdk,
}

impl FileFormat {
    /// As QEMU names it.
    pub fn name(self) -> &'static str {
        match self {
            FileFormat::Raw => "raw",
            FileFormat::Qcow2 => "qcow2",
            FileFormat::Vhdx => "vhdx",
            FileFormat::Vpc => "vpc",
            FileFormat::Vmdk => "vmdk",
        }
    }
}

impl From<crate::Format> for FileFormat {
    fn from(format: crate::Format) -> FileFormat {
        match format {
            crate::Format::Raw => FileFormat::Raw,
            crate::Format::Qcow2 => FileFormat::Qcow2,
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FileFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> std::result::Result<FileFormat, UnknownFormat> {
        [
            FileFormat::Raw,
            FileFormat::Qcow2,
            FileFormat::Vhdx,
            FileFormat::Vpc,
            FileFormat::Vmdk,
        ]
        .into_iter()
        .find(|format| format.name() == name)
        .ok_or_else(|| UnknownFormat(name.into()))
    }
}

/// A name that is no format's, or of one that is not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unknown file format '{0}'")]
pub struct UnknownFormat(pub String);

/// What is at a place of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: what is below shows through, zeroes if nothing is.
    Unallocated,
    /// Reads as zeroes whatever is below. `offset` is where in the file it has space set aside, if it has.
    Zero { offset: Option<u64> },
    /// Data; `offset` is where in the file, if they are there as they are.
    Data {
        offset: Option<u64>,
        compressed: bool,
    },
}

/// A stretch of a layer that is all of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, never 0.
    pub length: u64,
    pub kind: Kind,
    /// Which of the layer's files `offset` is in (see [`Source::files`]).
    pub file: usize,
}

/// One layer of a disk, as far as it has its contents itself.
pub trait Source: Send + Sync {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// What is at `offset`, for `max` bytes at most. Both are within the disk, and `max` is not 0.
    fn extent(&self, offset: u64, max: u64) -> Result<Extent>;

    /// Reads a span that [`Source::extent`] calls data.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()>;

    /// The files that [`Extent::file`] counts.
    fn files(&self) -> Vec<PathBuf>;

    /// Bytes of the unit that space is set aside in.
    fn cluster_size(&self) -> Option<u64> {
        None
    }
}

/// Reads a span of a layer whose data all lie in `host` as they are, where [`Source::extent`] says.
fn read_extents(
    source: &dyn Source,
    host: &dyn Host,
    mut offset: u64,
    mut into: &mut [u8],
) -> Result<()> {
    while !into.is_empty() {
        let extent = source.extent(offset, into.len() as u64)?;
        let (now, later) = into.split_at_mut(extent.length as usize);
        match extent.kind {
            Kind::Data {
                offset: Some(at), ..
            } => host.read_exact_at(at, now).map_err(|error| {
                FormatError::image(format!(
                    "The block at {at:#x} of the file cannot be read: {}",
                    crate::error::message(&error)
                ))
            })?,
            _ => now.fill(0),
        }
        offset += extent.length;
        into = later;
    }
    Ok(())
}
