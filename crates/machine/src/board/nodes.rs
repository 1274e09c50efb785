//! Block nodes: images that are open under names of their own, to be put into drives and taken out again.

use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use storage::{
    Cache, DetectZeroes, Discard, Disk, Format, Image, ImageOptions, Locking, OpenError,
};

use super::drives::ImageEntry;
use crate::description::{Node, NodeDriver, NodeFile};

/// A node that cannot be made, used or deleted, in QEMU's words.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("'node-name' must be specified for the root node")]
    Unnamed,
    #[error("Duplicate nodes with node-name='{0}'")]
    Duplicate(String),
    #[error("Cannot find device='{0}' nor node-name='{0}'")]
    NoFile(String),
    #[error("Node '{0}' not found")]
    NotFound(String),
    #[error("Failed to find node with node-name='{0}'")]
    NothingToDelete(String),
    #[error("Node '{0}' is already in use")]
    InUse(String),
    #[error("Node {0} is in use")]
    InDrive(String),
    #[error("Block device {0} is in use")]
    BelowAnother(String),
    #[error("Node {0} is not owned by the monitor")]
    NotOwned(String),
    #[error("Block node is read-only")]
    ReadOnly,
    #[error("Dormer opens images in files only: '{0}' is an image itself")]
    NoPlainFile(String),
    #[error("Dormer detects zeroes in images only, not in the files below them (detect-zeroes=)")]
    DetectZeroes,
    #[error("Dormer does not have cache.no-flush=on together with cache.direct=on")]
    DirectWithoutFlush,
    #[error("Dormer cannot open '{0}' without its backing file (backing=null)")]
    NotAlone(String),
    #[error(transparent)]
    Image(#[from] OpenError),
}

/// All nodes.
#[derive(Default)]
pub struct Nodes(Mutex<Graph>);

#[derive(Default)]
struct Graph {
    entries: Vec<Entry>,
    /// Names made up so far.
    unnamed: u32,
}

struct Entry {
    name: String,
    node: Node,
    /// Came inside another node's description, and goes with it.
    inside: bool,
    /// The node of its file.
    below: Option<String>,
    options: ImageOptions,
    /// An image is open as long as its node is there. A file is opened by who uses it.
    disk: Option<Arc<dyn Disk>>,
    shown: ImageEntry,
    /// In how many drives it is.
    drives: usize,
}

/// A node that is in a drive, until this is dropped.
pub(crate) struct Held {
    nodes: Arc<Nodes>,
    name: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(entry) = self.nodes.0.lock().find(&self.name) {
            entry.drives -= 1;
        }
    }
}

impl Nodes {
    /// Opens a node, and what it has inside.
    ///
    /// # Errors
    /// It does not open, or the name is taken; then everything is as it was.
    pub fn add(&self, node: &Node) -> Result<(), NodeError> {
        self.0.lock().add(node)
    }

    /// Closes a node, and what it has inside.
    ///
    /// # Errors
    /// There is none of that name, or it is in use.
    pub fn delete(&self, name: &str) -> Result<(), NodeError> {
        self.0.lock().delete(name)
    }

    /// All of them, the newest first: their drivers, and what is open.
    pub fn list(&self) -> Vec<ImageEntry> {
        let graph = self.0.lock();
        let shown = graph.entries.iter().rev().map(|entry| entry.shown.clone());
        shown.collect()
    }

    /// Takes a node for a drive, which may only read it (`reads`). One that is only read can be in several from the start, if it
    /// is not wanted `alone`.
    pub(crate) fn hold(
        self: &Arc<Self>,
        name: &str,
        alone: bool,
        reads: bool,
    ) -> Result<(Held, Arc<dyn Disk>, ImageEntry), NodeError> {
        let mut graph = self.0.lock();
        let written = graph.written(name);
        let below_another = graph.above(name).next().is_some();
        let entry = graph
            .find(name)
            .ok_or_else(|| NodeError::NotFound(name.into()))?;
        let used = below_another || entry.drives > 0;
        if used && (written || !entry.shown.read_only || alone && entry.drives > 0) {
            return Err(NodeError::InUse(name.into()));
        }
        let disk = match &entry.disk {
            Some(disk) => disk.clone(),
            None => {
                let mut options = entry.options.clone();
                options.read_only |= reads && entry.node.auto_read_only;
                let image = open(&mut options, entry.node.auto_read_only)?;
                entry.shown.read_only = image.disk.read_only();
                image.disk
            }
        };
        entry.drives += 1;
        let held = Held {
            nodes: self.clone(),
            name: name.into(),
        };
        Ok((held, disk, entry.shown.clone()))
    }
}

impl Graph {
    fn find(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.name == name)
    }

    /// The images in that file.
    fn above(&self, name: &str) -> impl Iterator<Item = &Entry> {
        let is = move |entry: &&Entry| entry.below.as_deref() == Some(name);
        self.entries.iter().filter(is)
    }

    /// Whether somebody may write to the node.
    fn written(&self, name: &str) -> bool {
        let drives = |entry: &Entry| entry.name == name && entry.drives > 0;
        let mut users = self
            .above(name)
            .chain(self.entries.iter().filter(|e| drives(e)));
        users.any(|user| !user.shown.read_only)
    }

    fn free_name(&self, name: &str) -> Result<(), NodeError> {
        match self.entries.iter().any(|entry| entry.name == name) {
            true => Err(NodeError::Duplicate(name.into())),
            false => Ok(()),
        }
    }

    fn add(&mut self, node: &Node) -> Result<(), NodeError> {
        let name = node.name.clone().ok_or(NodeError::Unnamed)?;
        self.free_name(&name)?;
        let (format, file, alone) = match &node.driver {
            NodeDriver::File { filename, locking } => {
                let mut options = file_options(node, filename, *locking)?;
                // Who uses it opens it again: a file below an image would be locked twice.
                let image = open(&mut options, node.auto_read_only)?;
                let shown = shown(&name, "file", &options, &image);
                drop(image);
                self.entries.push(Entry {
                    name,
                    node: node.clone(),
                    inside: false,
                    below: None,
                    options,
                    disk: None,
                    shown,
                    drives: 0,
                });
                return Ok(());
            }
            NodeDriver::Format {
                format,
                file,
                alone,
            } => (*format, file, *alone),
        };
        let (below, file, inside) = match file {
            NodeFile::Named(below) => {
                let missing = || NodeError::NoFile(below.clone());
                let entry = self.find(below).ok_or_else(missing)?;
                (below.clone(), entry.node.clone(), false)
            }
            NodeFile::Inside(file) => {
                let below = match &file.name {
                    Some(name) => name.clone(),
                    None => loop {
                        self.unnamed += 1;
                        let made_up = format!("#block{:03}", self.unnamed);
                        if self.free_name(&made_up).is_ok() {
                            break made_up;
                        }
                    },
                };
                (below, (**file).clone(), true)
            }
        };
        let mut options = options(node, format, &file, &below)?;
        if inside {
            self.free_name(&below)?;
            if below == name {
                return Err(NodeError::Duplicate(name));
            }
        } else {
            let drives = self.find(&below).is_some_and(|entry| entry.drives > 0);
            let used = drives || self.above(&below).next().is_some();
            if used && (!options.read_only || self.written(&below)) {
                return Err(NodeError::InUse(below));
            }
        }
        let image = open(&mut options, node.auto_read_only)?;
        if alone && image.layers.len() > 1 {
            return Err(NodeError::NotAlone(options.path.display().to_string()));
        }
        if inside {
            let mut own = options.clone();
            own.format = Some(Format::Raw);
            let shown = ImageEntry {
                node: below.clone(),
                format: "file".into(),
                size: length(&own.path)?,
                backing_depth: 0,
                backing: None,
                ..shown(&below, "file", &own, &image)
            };
            self.entries.push(Entry {
                name: below.clone(),
                node: file,
                inside: true,
                below: None,
                options: own,
                disk: None,
                shown,
                drives: 0,
            });
        }
        self.entries.push(Entry {
            shown: shown(&name, &format.to_string(), &options, &image),
            name,
            node: node.clone(),
            inside: false,
            below: Some(below),
            options,
            disk: Some(image.disk),
            drives: 0,
        });
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), NodeError> {
        let below_another = self.above(name).next().is_some();
        let missing = || NodeError::NothingToDelete(name.into());
        let entry = self.find(name).ok_or_else(missing)?;
        if entry.drives > 0 {
            return Err(NodeError::InDrive(name.into()));
        }
        if entry.inside {
            return Err(NodeError::NotOwned(name.into()));
        }
        if below_another {
            return Err(NodeError::BelowAnother(name.into()));
        }
        let below = entry.below.clone();
        if let Some(below) = &below
            && let Some(file) = self.find(below)
            && file.inside
        {
            if file.drives > 0 {
                return Err(NodeError::InDrive(below.clone()));
            }
            self.entries.retain(|entry| entry.name != *below);
        }
        self.entries.retain(|entry| entry.name != name);
        Ok(())
    }
}

/// Opens an image; where it may not be written, and need not, to be read only.
fn open(options: &mut ImageOptions, auto_read_only: bool) -> Result<Image, OpenError> {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match Image::open(options) {
        Err(OpenError::Io { error, .. })
            if auto_read_only
                && !options.read_only
                && matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) =>
        {
            options.read_only = true;
            Image::open(options)
        }
        other => other,
    }
}

fn shown(name: &str, driver: &str, options: &ImageOptions, image: &Image) -> ImageEntry {
    ImageEntry {
        node: name.into(),
        format: driver.into(),
        ..ImageEntry::new(options, image.disk.as_ref(), &image.layers)
    }
}

/// Bytes of a file or a block device.
fn length(path: &Path) -> Result<u64, OpenError> {
    let mut file = storage::open_locked(path, false, Locking::Off)?;
    file.seek(SeekFrom::End(0)).map_err(|error| OpenError::Io {
        path: path.into(),
        error,
    })
}

fn cache(direct: bool, no_flush: bool) -> Result<Cache, NodeError> {
    match (direct, no_flush) {
        (false, false) => Ok(Cache::Writeback),
        (true, false) => Ok(Cache::None),
        (false, true) => Ok(Cache::Unsafe),
        (true, true) => Err(NodeError::DirectWithoutFlush),
    }
}

/// How a file is opened that is an image by itself.
fn file_options(node: &Node, path: &Path, locking: Locking) -> Result<ImageOptions, NodeError> {
    let mut options = ImageOptions::new(path);
    options.format = Some(Format::Raw);
    options.read_only = node.read_only;
    options.cache = cache(node.direct, node.no_flush)?;
    options.discard = node.discard;
    options.detect_zeroes = node.detect_zeroes;
    options.locking = locking;
    Ok(options)
}

/// How an image in a file is opened: what both have to want is wanted by both.
fn options(
    node: &Node,
    format: Format,
    file: &Node,
    name: &str,
) -> Result<ImageOptions, NodeError> {
    let NodeDriver::File { filename, locking } = &file.driver else {
        return Err(NodeError::NoPlainFile(name.into()));
    };
    if file.detect_zeroes != DetectZeroes::Off {
        return Err(NodeError::DetectZeroes);
    }
    let mut options = file_options(file, filename, *locking)?;
    options.format = Some(format);
    options.cache = cache(file.direct, node.no_flush || file.no_flush)?;
    options.detect_zeroes = node.detect_zeroes;
    if node.discard == Discard::Ignore {
        options.discard = Discard::Ignore;
    }
    if file.read_only && !node.read_only && !node.auto_read_only {
        return Err(NodeError::ReadOnly);
    }
    options.read_only |= node.read_only;
    Ok(options)
}
