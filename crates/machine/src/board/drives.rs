//! Disks: images opened, wrapped so that a full host disk stops the machine, and what is told of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use storage::{
    Cache, DetectZeroes, Disk, Image, ImageOptions, Layer, OpenError, PausingDisk, Stall,
};
use usb::storage::UsbStorage;

use crate::BuildError;
use crate::description::Drive;

use super::medium;
use super::nodes::{Held, NodeError, Nodes};

/// Called with a drive's stall. Set once the machine runs.
pub type StallHook = Arc<OnceLock<Box<dyn Fn(&Stall) + Send + Sync>>>;

/// A drive of the machine.
pub struct DriveEntry {
    /// `-drive`'s id; empty if it began with a node.
    pub id: String,
    /// The device that has it, as `/machine/peripheral/ID`.
    pub holder: String,
    pub removable: bool,
    /// As it was asked for; its image may have been changed since.
    drive: Drive,
    hook: StallHook,
    nodes: Arc<Nodes>,
    inside: Mutex<Inside>,
    /// The device, if media can be changed in it.
    tray: OnceLock<Arc<UsbStorage>>,
    /// Held by who changes the medium.
    changing: Mutex<()>,
}

#[derive(Default)]
struct Inside {
    image: Option<ImageEntry>,
    disk: Option<Arc<PausingDisk>>,
    /// Keeps the node that it is from others.
    _node: Option<Held>,
}

/// The image in a drive, or of a node.
#[derive(Clone, Debug)]
pub struct ImageEntry {
    /// The node's name; if it has none of its own, the drive's.
    pub node: String,
    pub file: String,
    /// The format's name; `file` for a node without one.
    pub format: String,
    pub read_only: bool,
    /// Bytes.
    pub size: u64,
    /// Images below the first.
    pub backing_depth: usize,
    /// The first of them.
    pub backing: Option<String>,
    pub cache: Cache,
    pub detect_zeroes: DetectZeroes,
}

impl ImageEntry {
    /// An image that was opened so.
    pub(super) fn new(options: &ImageOptions, disk: &dyn Disk, layers: &[Layer]) -> ImageEntry {
        let path = |layer: &Layer| layer.path.display().to_string();
        ImageEntry {
            node: String::new(),
            file: options.path.display().to_string(),
            format: layers
                .first()
                .map(|l| l.format.to_string())
                .unwrap_or_default(),
            read_only: disk.read_only(),
            size: disk.size(),
            backing_depth: layers.len().saturating_sub(1),
            backing: layers.get(1).map(path),
            cache: options.cache,
            detect_zeroes: options.detect_zeroes,
        }
    }
}

/// A medium that could not be changed, in QEMU's words.
#[derive(Debug, thiserror::Error)]
pub enum MediumError {
    #[error("Device '{0}' is not removable")]
    NotRemovable(String),
    /// The guest holds it, and has been asked to let it go.
    #[error(
        "Device '{0}' is locked and force was not specified, wait for tray to open and try again"
    )]
    Locked(String),
    #[error("Tray of device '{0}' is not open")]
    TrayClosed(String),
    #[error("There already is a medium in device '{0}'")]
    Full(String),
    #[error("Device '{0}' takes media to be read only")]
    ReadOnly(String),
    #[error(transparent)]
    Image(#[from] BuildError),
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl DriveEntry {
    /// Opens a drive. Its disk is the guest's; the entry is ours.
    pub fn open(
        drive: &Drive,
        holder: String,
        removable: bool,
        hook: &StallHook,
        nodes: &Arc<Nodes>,
    ) -> Result<(DriveEntry, Option<Arc<dyn Disk>>), BuildError> {
        let entry = DriveEntry {
            id: drive.id.clone(),
            holder,
            removable,
            drive: drive.clone(),
            hook: hook.clone(),
            nodes: nodes.clone(),
            inside: Mutex::default(),
            tray: OnceLock::new(),
            changing: Mutex::default(),
        };
        let inside = match (&drive.node, &drive.image) {
            (Some(node), _) => entry.take_node(node, false)?,
            (None, Some(options)) => entry.open_image(options)?,
            (None, None) => Inside::default(),
        };
        let disk = inside.disk.clone().map(|disk| disk as Arc<dyn Disk>);
        *entry.inside.lock() = inside;
        Ok((entry, disk))
    }

    /// What the drive is called in messages: its id, or its device's.
    pub fn name(&self) -> &str {
        match self.id.is_empty() {
            true => self.holder.rsplit('/').next().unwrap_or_default(),
            false => &self.id,
        }
    }

    fn open_image(&self, options: &ImageOptions) -> Result<Inside, BuildError> {
        let fail = |error| BuildError::Image {
            drive: self.id.clone(),
            error,
        };
        let snapshot = self.drive.snapshot && !options.read_only;
        let image = if snapshot {
            overlay(options).map_err(fail)?
        } else {
            Image::open(options).map_err(fail)?
        };
        let layers = &image.layers[usize::from(snapshot)..];
        let entry = ImageEntry {
            node: self.name().into(),
            ..ImageEntry::new(options, image.disk.as_ref(), layers)
        };
        self.inside(image.disk, entry, None)
    }

    /// Takes a node; `alone`, if no other drive may have it.
    fn take_node(&self, name: &str, alone: bool) -> Result<Inside, BuildError> {
        let held = self.nodes.hold(name, alone, self.drive.cdrom);
        let (held, disk, entry) = held.map_err(|error| BuildError::Node {
            node: name.into(),
            error,
        })?;
        self.inside(disk, entry, Some(held))
    }

    /// Looks at the medium, and has its stalls told.
    fn inside(
        &self,
        disk: Arc<dyn Disk>,
        entry: ImageEntry,
        node: Option<Held>,
    ) -> Result<Inside, BuildError> {
        if self.drive.cdrom
            && let Some(expected) = medium::missing(&disk)
        {
            return Err(BuildError::ShortMedium {
                path: entry.file.into(),
                expected,
                size: entry.size,
            });
        }
        let name = entry.node.clone();
        let hook = self.hook.clone();
        let told = move |stall: &Stall| {
            if let Some(hook) = hook.get() {
                hook(stall);
            }
        };
        Ok(Inside {
            image: Some(entry),
            disk: Some(PausingDisk::new(disk, &name, self.drive.policy, told)),
            _node: node,
        })
    }

    /// Media are changed in that device.
    pub(crate) fn set_tray(&self, tray: &Arc<UsbStorage>) {
        let _ = self.tray.set(tray.clone());
    }

    /// Has `hook` called whenever the tray has moved, with whether it is open.
    pub(crate) fn on_tray(&self, hook: impl Fn(bool) + Send + Sync + 'static) {
        if let Some(tray) = self.tray.get() {
            tray.on_tray(hook);
        }
    }

    /// Whether it takes discs (`media=cdrom`).
    pub fn cdrom(&self) -> bool {
        self.drive.cdrom
    }

    /// The image that is in it.
    pub fn image(&self) -> Option<ImageEntry> {
        self.inside.lock().image.clone()
    }

    /// Whether the guest holds the medium in its place.
    pub fn locked(&self) -> bool {
        self.tray.get().is_some_and(|tray| tray.locked())
    }

    /// Whether the tray is open, if it has one.
    pub fn tray_open(&self) -> Option<bool> {
        self.tray.get().map(|tray| tray.tray_open())
    }

    fn removable(&self) -> Result<&Arc<UsbStorage>, MediumError> {
        let tray = self.tray.get().filter(|_| self.removable);
        tray.ok_or_else(|| MediumError::NotRemovable(self.name().into()))
    }

    /// Opens the tray.
    ///
    /// # Errors
    /// It has none, or the guest holds the medium and it is not forced; then the guest has been asked to let it go.
    pub fn open_tray(&self, force: bool) -> Result<(), MediumError> {
        let opened = self.removable()?.open_tray(force);
        opened.map_err(|_| MediumError::Locked(self.name().into()))
    }

    /// Closes the tray.
    ///
    /// # Errors
    /// It has none.
    pub fn close_tray(&self) -> Result<(), MediumError> {
        self.removable()?.close_tray();
        Ok(())
    }

    /// Takes the medium out of the open tray; what was written to it is on the host's disk then.
    ///
    /// # Errors
    /// It has no tray, or that is closed.
    pub fn remove_medium(&self) -> Result<(), MediumError> {
        let _alone = self.changing.lock();
        let tray = self.removable()?;
        if !tray.tray_open() {
            return Err(MediumError::TrayClosed(self.name().into()));
        }
        self.put(tray, Inside::default());
        Ok(())
    }

    /// Puts a node into the open tray, which is empty.
    ///
    /// # Errors
    /// It has no tray, that is closed or not empty, or there is no such node or it is in use.
    pub fn insert_medium(&self, node: &str) -> Result<(), MediumError> {
        let _alone = self.changing.lock();
        let tray = self.removable()?;
        if !tray.tray_open() {
            return Err(MediumError::TrayClosed(self.name().into()));
        }
        if self.image().is_some() {
            return Err(MediumError::Full(self.name().into()));
        }
        let inside = self.take_node(node, true).map_err(|error| match error {
            BuildError::Node { error, .. } => MediumError::Node(error),
            other => MediumError::Image(other),
        })?;
        self.put(tray, inside);
        Ok(())
    }

    /// Opens the tray and takes the medium out.
    ///
    /// # Errors
    /// As [`DriveEntry::open_tray`].
    pub fn eject(&self, force: bool) -> Result<(), MediumError> {
        self.open_tray(force)?;
        self.remove_medium()
    }

    /// Puts an image in, in the place of what is there: its file, its format if it is known, and whether it is to be read
    /// only; else that is as it was.
    ///
    /// # Errors
    /// As [`DriveEntry::open_tray`], or the image does not open. The drive is then as it was.
    pub fn change_medium(
        &self,
        path: &Path,
        format: Option<storage::Format>,
        read_only: Option<bool>,
        force: bool,
    ) -> Result<(), MediumError> {
        let _alone = self.changing.lock();
        let tray = self.removable()?;
        let mut options = match &self.drive.image {
            Some(options) => options.clone(),
            None => ImageOptions {
                read_only: self.image().is_some_and(|image| image.read_only),
                ..ImageOptions::new(path)
            },
        };
        if self.drive.cdrom && read_only == Some(false) {
            return Err(MediumError::ReadOnly(self.name().into()));
        }
        options.path = path.into();
        options.format = format;
        options.read_only = self.drive.cdrom || read_only.unwrap_or(options.read_only);
        let inside = self.open_image(&options)?;
        self.open_tray(force)?;
        self.put(tray, inside);
        tray.close_tray();
        Ok(())
    }

    /// Changes what lies in the open tray.
    fn put(&self, tray: &UsbStorage, inside: Inside) {
        let before = self.inside.lock().disk.clone();
        if let Some(before) = &before {
            // What waits for the host would be waited for below.
            before.close();
        }
        tray.change_medium(inside.disk.clone().map(|disk| disk as Arc<dyn Disk>));
        // A node is free once nothing of it is on its way.
        let _taken_out = std::mem::replace(&mut *self.inside.lock(), inside);
        if let Some(before) = before {
            self.flush(&before);
        }
    }

    fn disk(&self) -> Option<Arc<PausingDisk>> {
        self.inside.lock().disk.clone()
    }

    fn flush(&self, disk: &PausingDisk) {
        if !disk.read_only()
            && let Err(error) = disk.flush()
        {
            tracing::error!("{}: what was not flushed may be lost: {error}", self.name());
        }
    }

    /// Whether the drive waits for the host.
    pub fn stalled(&self) -> bool {
        self.disk().is_some_and(|disk| disk.stalled() > 0)
    }

    /// Tries again what waits.
    pub fn retry(&self) {
        if let Some(disk) = self.disk() {
            disk.resume();
        }
    }

    /// Lets fail what waits, and what would wait until [`DriveEntry::restart`].
    pub fn cancel(&self) {
        if let Some(disk) = self.disk() {
            disk.cancel();
        }
    }

    /// The devices are reset: the disk waits for the host again.
    pub fn restart(&self) {
        if let Some(disk) = self.disk() {
            disk.restart();
        }
    }

    /// Brings what was written to the host's disk; nothing waits any more.
    pub fn close(&self) {
        if let Some(disk) = self.disk() {
            disk.close();
            self.flush(&disk);
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
