//! `filter-dump`: frames to a file in the pcap format (draft-ietf-opsawg-pcap).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::OpenError;
use crate::frame::Frame;
use crate::link::Filter;

/// Which frames are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    /// What the guest gets (`queue=rx` in QEMU is what the back end gets from the NIC's view).
    ToGuest,
    FromGuest,
}

/// Writes frames to a file.
pub struct Dump {
    which: Which,
    /// Bytes kept of each frame.
    limit: usize,
    /// `None` after an error, which was told.
    file: Mutex<Option<BufWriter<File>>>,
}

/// A header that says: little-endian, microseconds, version 2.4.
const MAGIC: u32 = 0xa1b2_c3d4;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

impl Dump {
    /// Makes the file and begins. `limit`: bytes kept of each frame (QEMU's `maxlen`).
    pub fn create(path: &Path, which: Which, limit: u32) -> Result<Dump, OpenError> {
        let fail = |error| OpenError::Io {
            what: format!("filter dump: can't open {}", path.display()),
            error,
        };
        let mut file = BufWriter::new(File::create(path).map_err(fail)?);
        let mut header = Vec::new();
        header.extend(MAGIC.to_le_bytes());
        header.extend(2u16.to_le_bytes());
        header.extend(4u16.to_le_bytes());
        for value in [0, 0, limit, ETHERNET] {
            header.extend(value.to_le_bytes());
        }
        file.write_all(&header)
            .and_then(|()| file.flush())
            .map_err(fail)?;
        Ok(Dump {
            which,
            limit: limit as usize,
            file: Mutex::new(Some(file)),
        })
    }

    fn write(file: &mut BufWriter<File>, frame: &Frame<'_>, limit: usize) -> std::io::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let length = frame.length();
        let mut left = length.min(limit);
        let fields = [
            now.as_secs() as u32,
            now.subsec_micros(),
            left as u32,
            length as u32,
        ];
        for field in fields {
            file.write_all(&field.to_le_bytes())?;
        }
        for part in frame.parts {
            let n = part.len().min(left);
            file.write_all(&part[..n])?;
            left -= n;
        }
        // A machine that is killed leaves whole records.
        file.flush()
    }
}

impl Filter for Dump {
    fn passed(&self, frame: &Frame<'_>, from_guest: bool) {
        let wanted = match self.which {
            Which::All => true,
            Which::ToGuest => !from_guest,
            Which::FromGuest => from_guest,
        };
        let mut file = self.file.lock();
        if let Some(open) = file.as_mut().filter(|_| wanted)
            && let Err(error) = Self::write(open, frame, self.limit)
        {
            tracing::error!("filter-dump stops: {error}");
            *file = None;
        }
    }

    fn stop(&self) {
        if let Some(file) = self.file.lock().as_mut() {
            let _ = file.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_whole_and_cut_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcap");
        let dump = Dump::create(&path, Which::FromGuest, 64).unwrap();
        dump.passed(&Frame::plain(&[&[1; 40], &[2; 60]]), true);
        dump.passed(&Frame::plain(&[&[3; 40]]), false);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 16 + 64);
        assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(bytes[32..40], [64, 0, 0, 0, 100, 0, 0, 0]);
        assert_eq!(bytes[40 + 39..40 + 41], [1, 2]);
    }
}
