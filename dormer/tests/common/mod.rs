//! What boot tests share.
#![allow(dead_code)] // each test program uses its part

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use guests::initrd;
use guests::packages::Suite;
use guests::run::{Builder, Machine};

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

/// The distribution's kernel by `-kernel`, whose init runs a script; `words` come to it as variables.
pub fn run_linux(builder: Builder, script: &str, words: &str) -> Result<Machine> {
    let kernel = guests::kernel()?;
    let initrd = initrd::build(&kernel, initrd::MODULES, script, &[])?;
    builder
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(format!("console=ttyAMA0 {words}"))
        .start()
}
