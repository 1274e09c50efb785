//! Why an image does not open, in the words users know from `qemu-img`.

use std::io;
use std::path::{Path, PathBuf};

/// An image that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host refused: no such file, no permission, a directory.
    #[error("Could not open '{path}': {}", message(error), path = path.display())]
    Io { path: PathBuf, error: io::Error },

    /// Another process, or another device of this machine, holds the image.
    #[error("Could not open '{path}': Failed to get {what} lock\nIs another process using the image [{path}]?", path = path.display())]
    Locked { path: PathBuf, what: &'static str },

    /// The image is damaged, or of a kind that is not built.
    #[error("Could not open '{path}': {reason}", path = path.display())]
    Image { path: PathBuf, reason: String },

    /// A layer below the image does not open.
    #[error("Could not open backing file of '{path}': {error}", path = path.display())]
    Backing {
        path: PathBuf,
        error: Box<OpenError>,
    },
}

impl OpenError {
    pub(crate) fn image(path: &Path, reason: impl Into<String>) -> OpenError {
        OpenError::Image {
            path: path.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> OpenError {
        OpenError::Io {
            path: path.into(),
            error,
        }
    }
}

/// An error's text without Rust's "(os error 2)".
pub(crate) fn message(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) if text.ends_with(')') => text[..at].to_string(),
        _ => text,
    }
}
