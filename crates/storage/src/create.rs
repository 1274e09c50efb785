//! New images.

use crate::error::OpenError;
use crate::host::Host;
use crate::image::beside;
use crate::lock;
use crate::options::{Format, Locking};
use crate::qcow2::{CreateOptions, Qcow2};
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;

/// Makes an empty qcow2 image of `size` bytes (version 3, 64 KiB clusters). A file that exists is overwritten, unless it is
/// in use.
pub fn create_qcow2(path: &Path, size: u64) -> Result<(), OpenError> {
    create_image(path, &CreateOptions::new(size), true).map(drop)
}

/// Makes a qcow2 image over another one, whose contents it shows until they are written. `backing` is kept in the image as
/// it is given: relative to the new image's folder.
pub fn create_overlay(
    path: &Path,
    size: u64,
    backing: &str,
    format: Format,
) -> Result<(), OpenError> {
    let mut options = CreateOptions::new(size);
    options.backing_file = Some(backing.into());
    options.backing_format = Some(format.to_string());
    create_image(path, &options, true).map(drop)
}

/// Makes a qcow2 image of any kind, and its external data file if it is to have one. `durable` waits for the drive.
pub fn create_image(
    path: &Path,
    options: &CreateOptions,
    durable: bool,
) -> Result<Qcow2, OpenError> {
    let refused = |error: crate::format::FormatError| OpenError::image(path, error.to_string());
    // Before anything is overwritten.
    options.check().map_err(refused)?;
    let file: Arc<dyn Host> = Arc::new(truncated(path)?);
    let data = match &options.data_file {
        None => None,
        Some(name) => {
            let path = beside(path, name)?;
            Some((Arc::new(truncated(&path)?) as Arc<dyn Host>, path))
        }
    };
    Qcow2::create(file, path, data, options, durable).map_err(refused)
}

/// Makes a sparse file of `size` bytes.
pub fn create_raw(path: &Path, size: u64) -> Result<(), OpenError> {
    let file = truncated(path)?;
    file.set_len(size)
        .map_err(|error| OpenError::io(path, error))
}

/// An empty file at `path`: emptied only after the lock says that nobody uses it.
pub(crate) fn truncated(path: &Path) -> Result<File, OpenError> {
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
