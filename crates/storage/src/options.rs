//! How an image is to be opened.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An image format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The bytes of the disk, nothing else. ISO images are this.
    Raw,
    Qcow2,
}

/// When data reaches the host's disk (`cache=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Through the host's page cache; a guest's flush makes it durable.
    #[default]
    Writeback,
    /// Past the host's page cache; a flush is still needed for the drive's own cache.
    None,
    /// Through the page cache, and durable before each write completes.
    Writethrough,
    /// Past the page cache, and durable before each write completes.
    DirectSync,
    /// Flushes are ignored: for disks that are thrown away.
    Unsafe,
}

/// What a guest's discard does (`discard=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discard {
    /// Nothing.
    #[default]
    Ignore,
    /// It gives the space back to the host.
    Unmap,
}

/// Whether writes of zeroes are noticed (`detect-zeroes=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    #[default]
    Off,
    /// They become zero extents, which stay allocated.
    On,
    /// They give their space back, if [`Discard::Unmap`] allows it.
    Unmap,
}

/// Whether the image is locked against other users (`locking=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locking {
    /// If the file system can.
    #[default]
    Auto,
    /// Fails where the file system cannot.
    On,
    /// Not at all: two writers destroy the image.
    Off,
}

/// How to open an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    pub path: PathBuf,
    /// `None`: by the magic number; what has none is raw, and then guests may not write a magic number into sector 0.
    pub format: Option<Format>,
    pub read_only: bool,
    pub cache: Cache,
    pub discard: Discard,
    pub detect_zeroes: DetectZeroes,
    pub locking: Locking,
}

impl ImageOptions {
    /// QEMU's defaults: writable, format probed, write-back, discard ignored.
    pub fn new(path: impl Into<PathBuf>) -> ImageOptions {
        ImageOptions {
            path: path.into(),
            format: None,
            read_only: false,
            cache: Cache::default(),
            discard: Discard::default(),
            detect_zeroes: DetectZeroes::default(),
            locking: Locking::default(),
        }
    }
}

impl Cache {
    /// Past the host's page cache.
    pub(crate) fn direct(self) -> bool {
        matches!(self, Cache::None | Cache::DirectSync)
    }

    /// Every write is durable when it completes.
    pub(crate) fn through(self) -> bool {
        matches!(self, Cache::Writethrough | Cache::DirectSync)
    }
}

/// A word that is none of an option's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} does not accept value '{value}'")]
pub struct UnknownOption {
    pub what: &'static str,
    pub value: String,
}

macro_rules! words {
    ($type:ty, $what:literal, $($($word:literal)|+ => $value:expr),+ $(,)?) => {
        impl FromStr for $type {
            type Err = UnknownOption;

            fn from_str(text: &str) -> Result<Self, UnknownOption> {
                match text {
                    $($($word)|+ => Ok($value),)+
                    _ => Err(UnknownOption { what: $what, value: text.into() }),
                }
            }
        }
    };
}

words!(Format, "Parameter 'format'", "raw" => Format::Raw, "qcow2" => Format::Qcow2);
words!(
    Cache, "Parameter 'cache'",
    "writeback" => Cache::Writeback,
    "none" | "off" => Cache::None,
    "writethrough" => Cache::Writethrough,
    "directsync" => Cache::DirectSync,
    "unsafe" => Cache::Unsafe,
);
words!(
    Discard, "Parameter 'discard'",
    "ignore" | "off" => Discard::Ignore,
    "unmap" | "on" => Discard::Unmap,
);
words!(
    DetectZeroes, "Parameter 'detect-zeroes'",
    "off" => DetectZeroes::Off,
    "on" => DetectZeroes::On,
    "unmap" => DetectZeroes::Unmap,
);
words!(
    Locking, "Parameter 'locking'",
    "auto" => Locking::Auto,
    "on" => Locking::On,
    "off" => Locking::Off,
);

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        })
    }
}
