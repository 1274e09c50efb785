//! Files and folders of the host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use sha1::{Digest, Sha1};

use super::Progress;
use super::plan::Content;
use crate::error::{Error, Result};
use crate::hex;

/// Zeroes of at least this many bytes become holes.
const HOLE: usize = 64 << 10;

/// Whether contents are those that the image names.
pub(super) struct Check<'a> {
    content: &'a Content,
    hash: Option<Sha1>,
    length: u64,
}

impl<'a> Check<'a> {
    pub fn new(content: &'a Content) -> Check<'a> {
        Check {
            content,
            hash: content.sha1.map(|_| Sha1::new()),
            length: 0,
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.length += bytes.len() as u64;
    }

    pub fn finish(&mut self) -> Result<()> {
        if self.length != self.content.size {
            return Err(Error::Truncated {
                at: 0,
                length: self.content.size,
                size: self.length,
            });
        }
        let (Some(hash), Some(expected)) = (self.hash.take(), self.content.sha1) else {
            return Ok(());
        };
        let found: [u8; 20] = hash.finalize().into();
        if found != expected {
            return Err(Error::Checksum {
                what: self.content.name.clone(),
                expected: hex(&expected),
                found: hex(&found),
            });
        }
        Ok(())
    }
}

/// The files of a content while it is written: the first gets the bytes, the others are copies of it.
pub(super) struct Output<'a> {
    content: &'a Content,
    file: File,
    check: Check<'a>,
    at: u64,
    holes: bool,
    progress: &'a Progress,
}

impl<'a> Output<'a> {
    pub fn create(content: &'a Content, progress: &'a Progress) -> Result<Output<'a>> {
        let path = &content.targets[0].path;
        Ok(Output {
            file: create(path).map_err(Error::write(path))?,
            check: Check::new(content),
            content,
            at: 0,
            holes: false,
            progress,
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.check.update(bytes);
        if bytes.len() >= HOLE && is_zero(bytes) {
            self.holes = true;
        } else {
            self.file
                .write_all_at(bytes, self.at)
                .map_err(Error::write(&self.content.targets[0].path))?;
        }
        self.at += bytes.len() as u64;
        let done = &self.progress.done;
        done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Checks what was written, and makes the other files.
    pub fn finish(&mut self) -> Result<()> {
        self.check.finish()?;
        let first = &self.content.targets[0];
        if self.holes {
            self.file
                .set_len(self.at)
                .map_err(Error::write(&first.path))?;
        }
        if let Some(time) = first.modified.and_then(time) {
            // A host that does not keep this time is no reason to fail.
            let _ = self.file.set_modified(time);
        }
        for other in &self.content.targets[1..] {
            let copied =
                remove(&other.path).and_then(|()| fs::copy(&first.path, &other.path).map(|_| ()));
            copied.map_err(Error::write(&other.path))?;
            set_time(&other.path, other.modified);
        }
        Ok(())
    }

    /// Takes the files away again.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.content.targets[0].path);
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes[0] == 0
        && bytes
            .chunks(4096)
            .all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// A new file in the place of what may be there; a link there is replaced, never followed.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            remove(path)?;
            options.open(path)
        }
        result => result,
    }
}

/// Removes a file or link, if there is one.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Makes a folder and those above it; below the destination no link may be in its place.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    let made = match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(path) {
                Ok(there) if there.is_dir() => Ok(()),
                Ok(_) => Err(error),
                Err(error) => Err(error),
            }
        }
        result => result,
    };
    made.map_err(Error::write(path))
}

pub(super) fn hard_link(existing: &Path, new: &Path) -> Result<()> {
    remove(new)
        .and_then(|()| fs::hard_link(existing, new))
        // Some file systems have no hard links.
        .or_else(|_| remove(new).and_then(|()| fs::copy(existing, new).map(|_| ())))
        .map_err(Error::write(new))
}

pub(super) fn symbolic_link(target: &str, path: &Path) -> Result<()> {
    remove(path)
        .and_then(|()| std::os::unix::fs::symlink(target, path))
        .map_err(Error::write(path))
}

fn time(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// Sets when a file or folder was changed, as far as the host lets us.
pub(super) fn set_time(path: &Path, modified: Option<i64>) {
    if let Some(time) = modified.and_then(time)
        && let Ok(file) = File::open(path)
    {
        let _ = file.set_modified(time);
    }
}
