//! What boot tests share.
#![allow(dead_code)] // each test program uses its part

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use guests::packages::Suite;

/// For a slow, busy machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The program under test.
pub fn dormer() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_dormer"))
}

/// A firmware image of the distribution.
pub fn firmware(name: &str) -> Result<PathBuf> {
    guests::firmware(Suite::Bookworm, name)
}
