//! Errors of a command line.

use std::fmt;

/// What is wrong with a command line: the message that QEMU's users know, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    message: String,
    hint: Option<String>,
}

impl Error {
    /// A message without its `program: ` in front.
    pub fn new(message: impl Into<String>) -> Error {
        Error {
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what to do, on lines of its own.
    pub fn hint(self, hint: impl Into<String>) -> Error {
        Error {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Puts the option that is wrong in front.
    pub fn of(self, option: &str) -> Error {
        Error {
            message: format!("{option}: {}", self.message),
            ..self
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<crate::keyval::ValueError> for Error {
    fn from(error: crate::keyval::ValueError) -> Error {
        Error::new(error.to_string())
    }
}
