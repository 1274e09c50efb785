//! Registry hives, read and written (the format `regf` 1.3 to 1.6).
//!
//! A hive is kept as its bytes: what is not changed stays as it is, and a hive that is not changed is written back
//! byte for byte.

mod cell;
mod edit;
mod key;
mod log;
#[cfg(test)]
mod tests;

pub use key::{Key, Value};

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::source::{FileSource, Shared};

/// Bytes of the base block, which cell offsets count from the end of.
const BASE: usize = 4096;
/// Bins are multiples of this.
const BIN: usize = 4096;
/// No hive is larger.
const LARGEST: usize = 0x7FFF_F000;

/// Kinds of values (`REG_*`).
pub mod kind {
    pub const NONE: u32 = 0;
    pub const SZ: u32 = 1;
    pub const EXPAND_SZ: u32 = 2;
    pub const BINARY: u32 = 3;
    pub const DWORD: u32 = 4;
    pub const MULTI_SZ: u32 = 7;
    pub const QWORD: u32 = 11;
}

/// A registry hive.
#[derive(Clone)]
pub struct Hive {
    /// The whole file.
    bytes: Vec<u8>,
    changed: bool,
    /// The sequence number of the last log entry that was replayed.
    pub replayed: Option<u32>,
}

impl Hive {
    /// Whether a file begins like a hive.
    pub fn probe(start: &[u8]) -> bool {
        start.starts_with(b"regf")
    }

    /// A hive from the bytes of its file. A hive that was not written in full (its two sequence numbers differ) is refused:
    /// see [`Hive::open_with_logs`].
    pub fn open(bytes: Vec<u8>) -> Result<Hive> {
        Self::open_with_logs(bytes, &[])
    }

    /// The same, with the contents of its `.LOG1` and `.LOG2`: a hive that was not written in full is completed from them.
    pub fn open_with_logs(mut bytes: Vec<u8>, logs: &[Vec<u8>]) -> Result<Hive> {
        const WHAT: &str = "a registry hive";
        if !Self::probe(&bytes) || bytes.len() < BASE {
            return Err(Error::damaged(WHAT, 0, "it does not begin with regf"));
        }
        let mut replayed = None;
        if is_dirty(&bytes)? {
            replayed = Some(log::replay(&mut bytes, logs)?);
        }
        let (major, minor) = (bytes.le32(20)?, bytes.le32(24)?);
        if major != 1 || !(3..=6).contains(&minor) {
            return Err(Error::Unsupported(format!(
                "a registry hive of version {major}.{minor}"
            )));
        }
        let length = bytes.le32(40)? as usize;
        if !length.is_multiple_of(BIN) || length == 0 {
            return Err(Error::damaged(
                WHAT,
                40,
                format!("bins of {length} bytes in all"),
            ));
        }
        crate::source::within(bytes.len() as u64, BASE as u64, length as u64)?;
        let hive = Hive {
            bytes,
            changed: false,
            replayed,
        };
        hive.check_bins()?;
        hive.root()?;
        Ok(hive)
    }

    /// The bytes of a log with its checksums made right: for tests that damage what they protect.
    pub fn log_with_checksums(log: Vec<u8>) -> Vec<u8> {
        log::with_checksums(log)
    }

    /// A hive of the host with the logs that lie beside it (`NAME.LOG1`, `NAME.LOG2`).
    pub fn open_file(path: &Path) -> Result<Hive> {
        let source: Shared = Arc::new(FileSource::open(path)?);
        let bytes = source.read_all("this registry hive", LARGEST as u64)?;
        let logs: Vec<Vec<u8>> = ["LOG1", "LOG2", "LOG"]
            .iter()
            .filter_map(|end| {
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".{end}"));
                let source: Shared = Arc::new(FileSource::open(Path::new(&name)).ok()?);
                source
                    .read_all("a log of a registry hive", LARGEST as u64)
                    .ok()
            })
            .collect();
        Self::open_with_logs(bytes, &logs)
    }

    /// Writes the hive in the place of a file, in one step. Nothing is written if nothing has changed.
    pub fn write_file(self, path: &Path) -> Result<()> {
        if !self.changed && self.replayed.is_none() {
            return Ok(());
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = Path::new(&name);
        let written = std::fs::write(new, self.into_bytes())
            .and_then(|()| std::fs::File::open(new)?.sync_all())
            .and_then(|()| std::fs::rename(new, path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(new);
            Error::write(path)(error)
        })
    }

    /// The bins fill their space, one behind the other.
    fn check_bins(&self) -> Result<()> {
        const WHAT: &str = "a registry hive's bin";
        let end = BASE + self.length();
        let mut at = BASE;
        while at < end {
            let size = self.bytes.le32(at + 8)? as usize;
            if self.bytes.span(at, 4)? != b"hbin"
                || self.bytes.le32(at + 4)? as usize != at - BASE
                || size == 0
                || !size.is_multiple_of(BIN)
                || size > end - at
            {
                return Err(Error::damaged(WHAT, at as u64, "its header is wrong"));
            }
            at += size;
        }
        Ok(())
    }

    /// Bytes of all bins.
    fn length(&self) -> usize {
        // Checked when the hive was opened.
        self.bytes.le32(40).map_or(0, |length| length as usize)
    }

    /// The top key.
    pub fn root(&self) -> Result<Key> {
        self.key(self.bytes.le32(36)?)
    }

    /// The file name that the base block has, as far as it goes.
    pub fn file_name(&self) -> String {
        self.bytes
            .span(48, 64)
            .map_or_else(|_| String::new(), crate::fields::utf16_until_nul)
    }

    /// The key at a path of names between `\`, without regard to case.
    pub fn find(&self, path: &str) -> Result<Option<Key>> {
        let mut key = self.root()?;
        for name in path.split(['\\', '/']).filter(|name| !name.is_empty()) {
            match self.child(&key, name)? {
                Some(child) => key = child,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    /// The file's bytes: those it was opened with if nothing has changed.
    pub fn into_bytes(mut self) -> Vec<u8> {
        if self.changed {
            self.finish();
        }
        self.bytes
    }
}

/// The XOR of the words of the base block before it (at byte 508).
fn checksum(base: &[u8]) -> u32 {
    let sum = base[..508].chunks_exact(4).fold(0, |sum, w| {
        sum ^ u32::from_le_bytes([w[0], w[1], w[2], w[3]])
    });
    match sum {
        u32::MAX => u32::MAX - 1,
        0 => 1,
        sum => sum,
    }
}

/// Whether the hive was not written in full.
fn is_dirty(bytes: &[u8]) -> Result<bool> {
    Ok(bytes.le32(4)? != bytes.le32(8)? || bytes.le32(508)? != checksum(bytes))
}
