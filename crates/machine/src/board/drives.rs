//! Disks: images opened, wrapped so that a full host disk stops the machine, and what is told of them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use storage::{Disk, Image, ImageOptions, OpenError, PausingDisk, Stall};

use crate::BuildError;
use crate::description::Drive;

use super::medium;

/// Called with a drive's stall. Set once the machine runs.
pub type StallHook = Arc<OnceLock<Box<dyn Fn(&Stall) + Send + Sync>>>;

/// A drive of the machine.
pub struct DriveEntry {
    /// `-drive`'s id.
    pub id: String,
    /// The device that has it, as `/machine/peripheral/ID`.
    pub holder: String,
    pub removable: bool,
    pub image: Option<ImageEntry>,
    disk: Option<Arc<PausingDisk>>,
}

/// The image in a drive.
pub struct ImageEntry {
    pub file: String,
    pub format: String,
    pub read_only: bool,
    /// Bytes.
    pub size: u64,
    /// Images below the first.
    pub backing_depth: usize,
}

impl DriveEntry {
    /// Opens a drive. Its disk is the guest's; the entry is ours.
    pub fn open(
        drive: &Drive,
        holder: String,
        removable: bool,
        hook: &StallHook,
    ) -> Result<(DriveEntry, Option<Arc<dyn Disk>>), BuildError> {
        let mut entry = DriveEntry {
            id: drive.id.clone(),
            holder,
            removable,
            image: None,
            disk: None,
        };
        let Some(options) = &drive.image else {
            return Ok((entry, None));
        };
        let fail = |error| BuildError::Image {
            drive: drive.id.clone(),
            error,
        };
        let snapshot = drive.snapshot && !options.read_only;
        let image = if snapshot {
            overlay(options).map_err(fail)?
        } else {
            Image::open(options).map_err(fail)?
        };
        let size = image.disk.size();
        if drive.cdrom
            && let Some(expected) = medium::missing(&image.disk)
        {
            return Err(BuildError::ShortMedium {
                path: options.path.clone(),
                expected,
                size,
            });
        }
        let layers = &image.layers[usize::from(snapshot)..];
        entry.image = Some(ImageEntry {
            file: options.path.display().to_string(),
            format: layers
                .first()
                .map(|l| l.format.to_string())
                .unwrap_or_default(),
            read_only: image.disk.read_only(),
            size,
            backing_depth: layers.len().saturating_sub(1),
        });
        let hook = hook.clone();
        let told = move |stall: &Stall| {
            if let Some(hook) = hook.get() {
                hook(stall);
            }
        };
        let disk = PausingDisk::new(image.disk, &drive.id, drive.policy, told);
        entry.disk = Some(disk.clone());
        Ok((entry, Some(disk)))
    }

    /// Whether the drive waits for the host.
    pub fn stalled(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.stalled() > 0)
    }

    /// Tries again what waits.
    pub fn retry(&self) {
        if let Some(disk) = &self.disk {
            disk.resume();
        }
    }

    /// Lets fail what waits, and what would wait until [`DriveEntry::restart`].
    pub fn cancel(&self) {
        if let Some(disk) = &self.disk {
            disk.cancel();
        }
    }

    /// The devices are reset: the disk waits for the host again.
    pub fn restart(&self) {
        if let Some(disk) = &self.disk {
            disk.restart();
        }
    }

    /// Brings what was written to the host's disk; nothing waits any more.
    pub fn close(&self) {
        if let Some(disk) = &self.disk {
            disk.close();
            if let Err(error) = disk.flush() {
                tracing::error!("{}: what was not flushed may be lost: {error}", self.id);
            }
        }
    }
}

/// A temporary overlay on an image: its file has no name any more once it is open.
fn overlay(options: &ImageOptions) -> Result<Image, OpenError> {
    let base = Image::open(&ImageOptions {
        read_only: true,
        ..options.clone()
    })?;
    let fail = |error| OpenError::Io {
        path: options.path.clone(),
        error,
    };
    let file = std::fs::canonicalize(&options.path).map_err(fail)?;
    let format = options
        .format
        .or(base.layers.first().map(|l| l.format))
        .unwrap_or(storage::Format::Raw);
    let folder =
        std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let path = folder.join(format!(
        "dormer-overlay-{}-{:x}",
        std::process::id(),
        device::screen::next_setup()
    ));
    storage::create_overlay(&path, base.disk.size(), &file.to_string_lossy(), format)?;
    drop(base);
    let mut over = ImageOptions::new(&path);
    over.format = Some(storage::Format::Qcow2);
    over.cache = storage::Cache::Unsafe;
    let image = Image::open(&over);
    let _ = std::fs::remove_file(&path);
    image
}
