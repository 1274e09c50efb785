//! New images.

use crate::error::OpenError;
use crate::file::HostFile;
use crate::lock;
use crate::options::{Format, Locking};
use imago::FormatCreateBuilder;
use imago::qcow2::Qcow2;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// Makes an empty qcow2 image of `size` bytes (version 3, 64 KiB clusters). A file that exists is overwritten, unless it is
/// in use.
pub fn create_qcow2(path: &Path, size: u64) -> Result<(), OpenError> {
    qcow2(path, size, None)
}

/// Makes a qcow2 image over another one, whose contents it shows until they are written. `backing` is kept in the image as
/// it is given: relative to the new image's folder.
pub fn create_overlay(
    path: &Path,
    size: u64,
    backing: &str,
    format: Format,
) -> Result<(), OpenError> {
    qcow2(path, size, Some((backing.to_string(), format)))
}

/// Makes a sparse file of `size` bytes.
pub fn create_raw(path: &Path, size: u64) -> Result<(), OpenError> {
    let file = truncated(path)?;
    file.set_len(size)
        .map_err(|error| OpenError::io(path, error))
}

fn qcow2(path: &Path, size: u64, backing: Option<(String, Format)>) -> Result<(), OpenError> {
    let file = truncated(path)?;
    let failed = |error| OpenError::io(path, error);
    let host = HostFile::new(file, path, true, false).map_err(failed)?;
    let mut builder = Qcow2::<HostFile>::create_builder(host).size(size.next_multiple_of(512));
    if let Some((name, format)) = backing {
        builder = builder.backing(name, format.to_string());
    }
    builder.create().map_err(failed)
}

/// An empty file at `path`: emptied only after the lock says that nobody uses it.
fn truncated(path: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::io(path, error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    lock::lock(&file, path, true, Locking::Auto)?;
    file.set_len(0).map_err(failed)?;
    Ok(file)
}
