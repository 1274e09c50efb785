//! What can be wrong with a file.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file, or something inside one, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A structure that contradicts its format.
    #[error("{what} at byte {at:#x}: {problem}")]
    Damaged {
        what: &'static str,
        at: u64,
        problem: String,
    },
    /// A read past the end of the file, or of the part of it that a structure lies in.
    #[error(
        "{length} bytes are needed at byte {at:#x}, but there are only {size} in all: the file is cut short or damaged"
    )]
    Truncated { at: u64, length: u64, size: u64 },
    /// The contents do not have the SHA-1 that the file itself names for them.
    #[error("{what}: its SHA-1 is {found}, the image says {expected}: the file is damaged")]
    Checksum {
        what: String,
        expected: String,
        found: String,
    },
    /// Something that the format has and this program does not read.
    #[error("{0}")]
    Unsupported(String),
    /// A path or image that is not there.
    #[error("{0} is not there")]
    NotFound(String),
    /// A file of the host that cannot be made or written.
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    /// Its text is the host's and said once, however the chain of causes is shown.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `what` at byte `at` of its container has a `problem`.
    pub fn damaged(what: &'static str, at: u64, problem: impl Into<String>) -> Error {
        Error::Damaged {
            what,
            at,
            problem: problem.into(),
        }
    }
}

impl Error {
    /// What went wrong with a file of the host that was to be written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        |error| Error::Write { path, error }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        match error {
            Error::Io(error) => error,
            Error::Truncated { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn the_hosts_errors_are_said_once() {
        let error = Error::from(io::Error::from(io::ErrorKind::NotFound));
        let cause = error.source().map(|cause| cause.to_string());
        assert_ne!(cause, Some(error.to_string()));
    }
}
