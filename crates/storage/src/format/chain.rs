//! An image with all that is below it, opened for the `disk` verbs.

use super::{FileFormat, FormatError, Kind, RawFile, Result, Source, Vhdx, Vmdk, Vpc};
use crate::direct::Direct;
use crate::error::OpenError;
use crate::host::Host;
use crate::image::{beside, open_file};
use crate::lock;
use crate::options::Locking;
use crate::probe::{PROBE_SIZE, Probed, probe};
use crate::qcow2::{Access, Qcow2};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A chain longer than this is a mistake.
const MAX_LAYERS: usize = 200;

/// How a chain is opened.
#[derive(Clone, Copy, Debug)]
pub struct ChainOptions {
    /// `None`: by the magic number.
    pub format: Option<FileFormat>,
    /// The top layer is written to.
    pub write: bool,
    /// Damaged images too: for `check`.
    pub damaged: bool,
    /// Flushes wait for the drive.
    pub durable: bool,
    /// Past the host's page cache.
    pub direct: bool,
    /// What is below is opened, too.
    pub backing: bool,
    /// One of the layers below that is written to as well.
    pub write_below: Option<usize>,
    pub locking: Locking,
}

impl Default for ChainOptions {
    fn default() -> ChainOptions {
        ChainOptions {
            format: None,
            write: false,
            damaged: false,
            durable: true,
            direct: false,
            backing: true,
            write_below: None,
            locking: Locking::Auto,
        }
    }
}

/// An open image, of any format.
pub enum Node {
    Raw(RawFile),
    Qcow2(Box<Qcow2>),
    Vhdx(Vhdx),
    Vpc(Vpc),
    Vmdk(Vmdk),
}

impl Node {
    pub fn source(&self) -> &dyn Source {
        match self {
            Node::Raw(node) => node,
            Node::Qcow2(node) => &**node,
            Node::Vhdx(node) => node,
            Node::Vpc(node) => node,
            Node::Vmdk(node) => node,
        }
    }
}

/// One image of a chain.
pub struct ChainLayer {
    pub path: PathBuf,
    pub format: FileFormat,
    /// The format was guessed to be raw.
    pub guessed_raw: bool,
    pub node: Node,
    pub host: Arc<dyn Host>,
}

/// An image and all that is below it: the disk that a guest would see.
pub struct Chain {
    /// From the image itself down; never empty.
    pub layers: Vec<ChainLayer>,
}

/// What is at a place of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Bytes, never 0.
    pub length: u64,
    /// Which layer says so.
    pub depth: usize,
    /// That layer has something there; otherwise no layer has.
    pub present: bool,
    pub kind: Kind,
    /// Which of the layer's files (see [`Source::files`]).
    pub file: usize,
}

impl Status {
    /// It reads as zeroes for sure.
    pub fn zero(&self) -> bool {
        !matches!(self.kind, Kind::Data { .. })
    }
}

impl Chain {
    pub fn open(path: &Path, options: &ChainOptions) -> std::result::Result<Chain, OpenError> {
        let mut opening = Opening {
            options,
            seen: Vec::new(),
            layers: Vec::new(),
        };
        opening.layer(path, options.format, options.write)?;
        Ok(Chain {
            layers: opening.layers,
        })
    }

    pub fn top(&self) -> &ChainLayer {
        &self.layers[0]
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.top().node.source().size()
    }

    /// What is at `offset`, for `max` bytes at most; both are within the disk, and `max` is not 0.
    pub fn status(&self, offset: u64, max: u64) -> Result<Status> {
        self.status_below(0, self.layers.len(), offset, max)
    }

    /// As [`Chain::status`], of the layers from `first` up to before `end`.
    pub fn status_below(&self, first: usize, end: usize, offset: u64, max: u64) -> Result<Status> {
        let mut length = max;
        let mut last = first;
        for (depth, layer) in self.layers.iter().enumerate().take(end).skip(first) {
            let source = layer.node.source();
            let size = source.size();
            if offset >= size {
                // Above here there is nothing, and this layer ends before: the one above shows zeroes.
                break;
            }
            last = depth;
            let extent = source.extent(offset, length.min(size - offset))?;
            length = extent.length;
            if extent.kind != Kind::Unallocated {
                return Ok(Status {
                    length,
                    depth,
                    present: true,
                    kind: extent.kind,
                    file: extent.file,
                });
            }
        }
        Ok(Status {
            length,
            depth: last,
            present: false,
            kind: Kind::Unallocated,
            file: 0,
        })
    }

    /// Reads any span of the disk.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.read_below(0, offset, into)
    }

    /// Reads what the layers from `first` on show; zeroes past their end.
    pub fn read_below(&self, first: usize, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let mut length = into.len() as u64;
            let mut found = None;
            let mut layers = self.layers.iter().skip(first).peekable();
            while let Some(layer) = layers.next() {
                let source = layer.node.source();
                let size = source.size();
                if offset >= size {
                    break;
                }
                length = length.min(size - offset);
                // The last one is read wherever it has data: a host may look through much of a file to say where these end.
                let kind = match layers.peek() {
                    None => Kind::Data {
                        offset: None,
                        compressed: false,
                    },
                    Some(_) => {
                        let extent = source.extent(offset, length)?;
                        length = extent.length;
                        extent.kind
                    }
                };
                match kind {
                    Kind::Unallocated => {}
                    Kind::Zero { .. } => break,
                    Kind::Data { .. } => {
                        found = Some(source);
                        break;
                    }
                }
            }
            let (now, later) = into.split_at_mut(length as usize);
            match found {
                Some(source) => source.read(offset, now)?,
                None => now.fill(0),
            }
            offset += length;
            into = later;
        }
        Ok(())
    }

    /// Nothing is below the image.
    pub fn hollow(&self) -> bool {
        self.layers.len() == 1
    }

    /// Bytes of the disk below, if there is one.
    pub fn below_size(&self) -> Option<u64> {
        Some(self.layers.get(1)?.node.source().size())
    }

    /// Writes any span of the disk.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<()> {
        self.write_layer(0, offset, from)
    }

    /// Writes to a layer that was opened for it.
    pub fn write_layer(&self, layer: usize, offset: u64, from: &[u8]) -> Result<()> {
        match &self.layers[layer].node {
            Node::Raw(raw) => raw.write(offset, from),
            Node::Qcow2(image) => image.write(offset, from, &|offset, into| {
                self.read_below(layer + 1, offset, into)
            }),
            _ => Err(self.read_only(layer)),
        }
    }

    /// Makes a span of a layer read as zeroes.
    pub fn zero_layer(&self, layer: usize, offset: u64, length: u64, unmap: bool) -> Result<()> {
        match &self.layers[layer].node {
            Node::Raw(raw) => raw.write_zeroes(offset, length),
            Node::Qcow2(image) => image.write_zeroes(
                offset,
                length,
                unmap,
                layer + 1 == self.layers.len(),
                &|offset, into| self.read_below(layer + 1, offset, into),
            ),
            _ => Err(self.read_only(layer)),
        }
    }

    pub fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> Result<()> {
        self.zero_layer(0, offset, length, unmap)
    }

    /// Makes the disk `size` bytes.
    pub fn resize(&self, size: u64, preallocation: crate::qcow2::Preallocation) -> Result<()> {
        self.resize_layer(0, size, preallocation)
    }

    pub fn resize_layer(
        &self,
        layer: usize,
        size: u64,
        preallocation: crate::qcow2::Preallocation,
    ) -> Result<()> {
        match &self.layers[layer].node {
            Node::Raw(raw) => raw.resize(size, preallocation),
            Node::Qcow2(image) => {
                let below = self.layers.get(layer + 1);
                image.resize(
                    size,
                    preallocation,
                    below.map(|below| below.node.source().size()),
                    &|offset, into| self.read_below(layer + 1, offset, into),
                )
            }
            _ => Err(FormatError::refused(
                "Image format driver does not support resize",
            )),
        }
    }

    /// Makes zero clusters of the image what they were before there were any: nothing, or zeroes written out.
    pub fn expand_zeroes(&self) -> Result<()> {
        let image = self.top().qcow2().ok_or(FormatError::Unsupported)?;
        let size = self.size();
        let cluster = image.cluster_bytes();
        let zeroes = vec![0; cluster as usize];
        let mut at = 0;
        while at < size {
            let extent = image.extent(at, size - at)?;
            if matches!(extent.kind, Kind::Zero { .. }) {
                let end = at + extent.length;
                if self.hollow() {
                    image.forget(at, extent.length.next_multiple_of(cluster))?;
                } else {
                    for place in (at..end).step_by(cluster as usize) {
                        let count = cluster.min(size - place) as usize;
                        self.write(place, &zeroes[..count])?;
                    }
                }
            }
            at += extent.length;
        }
        image.close()
    }

    /// Makes what was written durable, as far as the options ask.
    pub fn flush(&self) -> Result<()> {
        for layer in &self.layers {
            layer.flush()?;
        }
        Ok(())
    }

    fn read_only(&self, layer: usize) -> FormatError {
        FormatError::refused(format!(
            "images of format '{}' can be read only",
            self.layers[layer].format
        ))
    }
}

impl ChainLayer {
    pub fn qcow2(&self) -> Option<&Qcow2> {
        match &self.node {
            Node::Qcow2(image) => Some(image),
            _ => None,
        }
    }

    /// Makes what was written durable, as far as the options ask.
    pub fn flush(&self) -> Result<()> {
        match &self.node {
            Node::Raw(raw) => raw.flush(),
            Node::Qcow2(image) => image.close(),
            _ => Ok(()),
        }
    }
}

struct Opening<'a> {
    options: &'a ChainOptions,
    /// Device and inode of each layer: a chain must not come back to itself.
    seen: Vec<(u64, u64)>,
    layers: Vec<ChainLayer>,
}

impl Opening<'_> {
    fn layer(
        &mut self,
        path: &Path,
        format: Option<FileFormat>,
        write: bool,
    ) -> std::result::Result<(), OpenError> {
        let failed = |error| OpenError::io(path, error);
        let refused = |error: FormatError| OpenError::image(path, error.to_string());
        let file = open_file(path, write, false)?;
        let metadata = file.metadata().map_err(failed)?;
        let identity = (metadata.dev(), metadata.ino());
        if self.seen.contains(&identity) {
            return Err(OpenError::image(path, "the image is its own backing file"));
        }
        if self.seen.len() >= MAX_LAYERS {
            return Err(OpenError::image(path, "too many backing files"));
        }
        self.seen.push(identity);
        lock::lock(&file, path, write, self.options.locking)?;
        let host = self.host(file, path, write)?;
        let (format, guessed_raw) = match format {
            Some(format) => (format, false),
            None => probe_format(&*host, path)?,
        };
        let mut below = None;
        let node = match format {
            FileFormat::Raw => {
                let raw = RawFile::open(host.clone(), path.into(), self.options.durable);
                Node::Raw(raw.map_err(refused)?)
            }
            FileFormat::Qcow2 => {
                let image = self.qcow2(host.clone(), path, write)?;
                if let Some(name) = image.backing_file() {
                    below = Some((name, image.backing_format()));
                }
                Node::Qcow2(Box::new(image))
            }
            _ if write => {
                return Err(OpenError::image(
                    path,
                    format!("images of format '{format}' can be read only"),
                ));
            }
            FileFormat::Vhdx => Node::Vhdx(Vhdx::open(host.clone(), path.into()).map_err(refused)?),
            FileFormat::Vpc => Node::Vpc(Vpc::open(host.clone(), path.into()).map_err(refused)?),
            FileFormat::Vmdk => Node::Vmdk(
                Vmdk::open(host.clone(), path.into(), &|path| {
                    self.part(path)
                        .map_err(|error| FormatError::image(error.to_string()))
                })
                .map_err(refused)?,
            ),
        };
        self.layers.push(ChainLayer {
            path: path.into(),
            format,
            guessed_raw,
            node,
            host,
        });
        if let Some((name, format)) = below
            && self.options.backing
        {
            self.below(path, &name, format.as_deref())
                .map_err(|error| OpenError::Backing {
                    path: path.into(),
                    error: Box::new(error),
                })?;
        }
        Ok(())
    }

    fn below(
        &mut self,
        path: &Path,
        name: &str,
        format: Option<&str>,
    ) -> std::result::Result<(), OpenError> {
        let below = beside(path, name)?;
        let format = match format {
            None => None,
            Some("file" | "host_device") => Some(FileFormat::Raw),
            Some(name) => Some(name.parse().map_err(|_| {
                OpenError::image(
                    &below,
                    format!("images of format '{name}' are not supported"),
                )
            })?),
        };
        let write = self.options.write_below == Some(self.layers.len());
        self.layer(&below, format, write)
    }

    /// A file, locked if it has to be, read and written in the way that was asked for.
    fn host(
        &self,
        file: File,
        path: &Path,
        write: bool,
    ) -> std::result::Result<Arc<dyn Host>, OpenError> {
        if !self.options.direct {
            return Ok(Arc::new(file));
        }
        // The way of access belongs to the open file; the first one keeps the lock.
        let direct = open_file(path, write, true)?;
        Ok(Arc::new(Direct::new(file, direct)))
    }

    /// Another file that belongs to an image that is only read.
    fn part(&self, path: &Path) -> std::result::Result<Arc<dyn Host>, OpenError> {
        let file = open_file(path, false, false)?;
        lock::lock(&file, path, false, self.options.locking)?;
        self.host(file, path, false)
    }

    fn qcow2(
        &self,
        host: Arc<dyn Host>,
        path: &Path,
        write: bool,
    ) -> std::result::Result<Qcow2, OpenError> {
        let refused = |error: FormatError| OpenError::image(path, error.to_string());
        let data = match Qcow2::external_data(&*host).map_err(refused)? {
            None => None,
            Some(None) => {
                return Err(OpenError::image(
                    path,
                    "'data-file' is required for this image",
                ));
            }
            Some(Some(name)) => {
                let path = beside(path, &name)?;
                let file = open_file(&path, write, false)?;
                lock::lock(&file, &path, write, self.options.locking)?;
                Some((self.host(file, &path, write)?, path))
            }
        };
        let access = Access {
            write,
            damaged: self.options.damaged,
            durable: self.options.durable,
        };
        Qcow2::open(host, path, data, access).map_err(refused)
    }
}

/// What a file is, and whether that is a guess for want of anything known.
fn probe_format(
    host: &dyn Host,
    path: &Path,
) -> std::result::Result<(FileFormat, bool), OpenError> {
    let failed = |error| OpenError::io(path, error);
    let mut start = [0; PROBE_SIZE];
    let have = host.read_at(0, &mut start).map_err(failed)?;
    match probe(&start[..have]) {
        Probed::Qcow2 => Ok((FileFormat::Qcow2, false)),
        // A fixed VHD is here, too: its footer at the end could be a guest's own data.
        Probed::Raw => Ok((FileFormat::Raw, true)),
        Probed::Foreign(name) => match name.parse() {
            Ok(format) => Ok((format, false)),
            Err(_) => Err(OpenError::image(
                path,
                format!("images of format '{name}' are not supported"),
            )),
        },
    }
}
