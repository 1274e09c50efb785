//! Opening images.

use crate::access::{Behaviour, ImageDisk, Imago};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::file::HostFile;
use crate::format::{self, ChainOptions, FileFormat};
use crate::host::Host;
use crate::lock;
use crate::native::Native;
use crate::options::{Cache, Format, ImageOptions, Locking};
use crate::probe::{PROBE_SIZE, Probed, probe};
use crate::qcow2;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Storage};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A chain longer than this is a mistake.
const MAX_LAYERS: usize = 200;

/// One file of a chain of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub path: PathBuf,
    pub format: Format,
}

/// An open image and what was found out about it.
pub struct Image {
    pub disk: Arc<dyn Disk>,
    /// From the image itself down to the last backing file.
    pub layers: Vec<Layer>,
    /// The format was guessed to be raw, so sector 0 is guarded: users are to be told.
    pub guessed_raw: bool,
}

/// Opens an image and all that is below it.
pub fn open(options: &ImageOptions) -> Result<Arc<dyn Disk>, OpenError> {
    Ok(Image::open(options)?.disk)
}

impl Image {
    /// As [`open`], and says what was found.
    pub fn open(options: &ImageOptions) -> Result<Image, OpenError> {
        let mut chain = Chain {
            options,
            seen: Vec::new(),
            layers: Vec::new(),
            locks: Vec::new(),
            native: false,
        };
        let top = match chain.layer(&options.path, options.format, !options.read_only) {
            Err(_) if chain.native => {
                // Its locks first.
                drop(chain);
                return Image::open_native(options);
            }
            other => other?,
        };
        let raw = match (top.format, options.cache.direct()) {
            // With direct I/O imago serialises what shares a block; going around it would not.
            (Format::Raw, false) => Some(top.handle),
            _ => None,
        };
        let behaviour = behaviour(options, top.format, top.guessed_raw);
        if top.guessed_raw && !options.read_only {
            tracing::warn!(
                "Image format was not specified for '{}' and probing guessed raw: writes to sector 0 are restricted",
                options.path.display()
            );
        }
        let imago = Imago::new(top.access, raw, chain.locks, options.cache);
        Ok(Image {
            disk: Arc::new(ImageDisk::new(imago, behaviour)),
            layers: chain.layers,
            guessed_raw: top.guessed_raw,
        })
    }

    /// With our own code for all layers.
    fn open_native(options: &ImageOptions) -> Result<Image, OpenError> {
        let chain = format::Chain::open(
            &options.path,
            &ChainOptions {
                format: options.format.map(FileFormat::from),
                write: !options.read_only,
                durable: options.cache != Cache::Unsafe,
                direct: options.cache.direct(),
                locking: options.locking,
                ..ChainOptions::default()
            },
        )?;
        let layers = chain.layers.iter().map(|layer| {
            let format = match layer.format {
                FileFormat::Raw => Format::Raw,
                FileFormat::Qcow2 => Format::Qcow2,
                other => {
                    return Err(OpenError::image(
                        &layer.path,
                        format!("images of format '{other}' are not supported"),
                    ));
                }
            };
            Ok(Layer {
                path: layer.path.clone(),
                format,
            })
        });
        let layers: Vec<Layer> = layers.collect::<Result<_, _>>()?;
        let behaviour = behaviour(options, Format::Qcow2, false);
        Ok(Image {
            disk: Arc::new(ImageDisk::new(Native::new(chain), behaviour)),
            layers,
            guessed_raw: false,
        })
    }
}

/// Makes the refcounts of an image right that was not closed, before anything is put anywhere. It is locked already.
fn repair(path: &Path) -> Result<(), OpenError> {
    let options = ChainOptions {
        format: Some(FileFormat::Qcow2),
        write: true,
        backing: false,
        locking: Locking::Off,
        ..ChainOptions::default()
    };
    let chain = format::Chain::open(path, &options)?;
    if let Some(image) = chain.top().qcow2() {
        image
            .close()
            .map_err(|error| OpenError::image(path, error.to_string()))?;
    }
    tracing::warn!(
        "'{}' was not closed properly: its refcounts were looked through and are right now",
        path.display()
    );
    Ok(())
}

/// As the options want it.
fn behaviour(options: &ImageOptions, format: Format, guarded: bool) -> Behaviour {
    Behaviour {
        format,
        read_only: options.read_only,
        cache: options.cache,
        discard: options.discard,
        detect_zeroes: options.detect_zeroes,
        guarded,
    }
}

struct Opened {
    access: FormatAccess<HostFile>,
    handle: File,
    format: Format,
    guessed_raw: bool,
}

struct Chain<'a> {
    options: &'a ImageOptions,
    /// Device and inode of each layer: a chain must not come back to itself.
    seen: Vec<(u64, u64)>,
    layers: Vec<Layer>,
    /// Open files that are kept for their locks.
    locks: Vec<File>,
    /// A layer was refused that only [`Native`] opens.
    native: bool,
}

impl Chain<'_> {
    fn layer(
        &mut self,
        path: &Path,
        format: Option<Format>,
        write: bool,
    ) -> Result<Opened, OpenError> {
        let plain = open_file(path, write, false)?;
        let identity = plain
            .metadata()
            .map_err(|error| OpenError::io(path, error))?;
        let identity = (identity.dev(), identity.ino());
        if self.seen.contains(&identity) {
            return Err(OpenError::image(path, "the image is its own backing file"));
        }
        if self.seen.len() >= MAX_LAYERS {
            return Err(OpenError::image(path, "too many backing files"));
        }
        self.seen.push(identity);
        lock::lock(&plain, path, write, self.options.locking)?;

        let probed = probe_file(&plain).map_err(|error| OpenError::io(path, error))?;
        let (format, guessed_raw) = match (format, probed) {
            (Some(format), _) => (format, false),
            (None, Probed::Raw) => (Format::Raw, true),
            (None, Probed::Qcow2) => (Format::Qcow2, false),
            (None, Probed::Foreign(name)) => {
                return Err(OpenError::image(
                    path,
                    format!("images of format '{name}' are not supported"),
                ));
            }
        };
        self.layers.push(Layer {
            path: path.into(),
            format,
        });

        // The way of access belongs to the open file, so direct access needs one of its own; the first one keeps the locks.
        let direct = self.options.cache.direct();
        let file = if direct {
            let file = open_file(path, write, true)?;
            self.locks.push(plain);
            file
        } else {
            plain
        };
        let handle = file
            .try_clone()
            .map_err(|error| OpenError::io(path, error))?;
        let host =
            HostFile::new(file, path, write, direct).map_err(|error| OpenError::io(path, error))?;
        let access = match format {
            Format::Raw => Raw::open_image(host, write)
                .map(FormatAccess::new)
                .map_err(|error| OpenError::io(path, error))?,
            Format::Qcow2 => self.qcow2(host, &handle, path, write)?,
        };
        Ok(Opened {
            access,
            handle,
            format,
            guessed_raw,
        })
    }

    fn qcow2(
        &mut self,
        host: HostFile,
        handle: &File,
        path: &Path,
        write: bool,
    ) -> Result<FormatAccess<HostFile>, OpenError> {
        let length = host.size().map_err(|error| OpenError::io(path, error))?;
        // Direct I/O needs aligned buffers, which reading the header does without.
        let header_file = if self.options.cache.direct() {
            Some(open_file(path, false, false)?)
        } else {
            None
        };
        let header = qcow2::read(header_file.as_ref().unwrap_or(handle), length, write)
            .map_err(|reason| OpenError::image(path, reason))?;

        if header.zstd || (header.dirty && !write) {
            self.native = true;
            return Err(OpenError::image(path, "zstd clusters, or not closed"));
        }
        if header.dirty {
            repair(path)?;
        }

        let mut builder = Qcow2::<HostFile>::builder(host)
            .write(write)
            .backing(None)
            .data_file(None);
        if let Some(name) = &header.data_file {
            let name = name
                .as_ref()
                .ok_or_else(|| OpenError::image(path, "'data-file' is required for this image"))?;
            builder = builder.data_file(Some(self.data_file(path, name, write)?));
        }
        if let Some(name) = &header.backing_file {
            let backing = self
                .backing(path, name, header.backing_format.as_deref())
                .map_err(|error| OpenError::Backing {
                    path: path.into(),
                    error: Box::new(error),
                })?;
            builder = builder.backing(Some(backing));
        }
        let image = builder
            .open(DenyImplicitOpenGate::default())
            .map_err(|error| OpenError::io(path, error))?;
        Ok(FormatAccess::new(image))
    }

    fn backing(
        &mut self,
        path: &Path,
        name: &str,
        format: Option<&str>,
    ) -> Result<FormatAccess<HostFile>, OpenError> {
        let below = beside(path, name)?;
        let format = match format {
            None => None,
            Some("file" | "host_device") => Some(Format::Raw),
            Some(name) => Some(name.parse().map_err(|_| {
                OpenError::image(
                    &below,
                    format!("images of format '{name}' are not supported"),
                )
            })?),
        };
        Ok(self.layer(&below, format, false)?.access)
    }

    fn data_file(&mut self, path: &Path, name: &str, write: bool) -> Result<HostFile, OpenError> {
        let path = beside(path, name)?;
        let direct = self.options.cache.direct();
        let file = open_file(&path, write, direct)?;
        lock::lock(&file, &path, write, self.options.locking)?;
        HostFile::new(file, &path, write, direct).map_err(|error| OpenError::io(&path, error))
    }
}

/// A file that an image at `path` names.
pub(crate) fn beside(path: &Path, name: &str) -> Result<PathBuf, OpenError> {
    let name = name.strip_prefix("file:").unwrap_or(name);
    // "nbd:…", "json:{…}", "https://…": a colon before any slash is a protocol, as in QEMU.
    if let Some((protocol, _)) = name
        .split_once(':')
        .filter(|(protocol, _)| !protocol.contains('/'))
    {
        return Err(OpenError::image(
            path,
            format!("it refers to '{name}', and protocol '{protocol}' is not supported"),
        ));
    }
    Ok(path.parent().unwrap_or(Path::new("")).join(name))
}

/// Opens a file and locks it as the protocol of images says, for what keeps its contents in a plain file without being a
/// disk. The lock lasts as long as the file, or a duplicate of it, is open.
pub fn open_locked(path: &Path, write: bool, locking: Locking) -> Result<File, OpenError> {
    let file = open_file(path, write, false)?;
    lock::lock(&file, path, write, locking)?;
    Ok(file)
}

/// Opens a regular file or a block device; anything else could wait for ever or has no size.
pub(crate) fn open_file(path: &Path, write: bool, direct: bool) -> Result<File, OpenError> {
    let refuse = |error| OpenError::io(path, error);
    let kind = std::fs::metadata(path).map_err(refuse)?.file_type();
    if kind.is_dir() {
        return Err(OpenError::io(
            path,
            io::Error::from(rustix::io::Errno::ISDIR),
        ));
    }
    let device = kind.is_block_device() || (cfg!(target_os = "macos") && kind.is_char_device());
    if !kind.is_file() && !device {
        return Err(OpenError::image(
            path,
            "it is neither a regular file nor a block device",
        ));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(write);
    #[cfg(target_os = "linux")]
    if direct {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
    }
    let file = options.open(path).map_err(refuse)?;
    #[cfg(target_os = "macos")]
    if direct {
        rustix::fs::fcntl_nocache(&file, true).map_err(|error| refuse(error.into()))?;
    }
    Ok(file)
}

fn probe_file(file: &File) -> io::Result<Probed> {
    let mut start = [0; PROBE_SIZE];
    let have = Host::read_at(file, 0, &mut start)?;
    Ok(probe(&start[..have]))
}
