//! Boots an installer from a USB stick and moves through its first menu.

use std::path::PathBuf;

use anyhow::Result;

#[derive(clap::Args)]
pub struct Arguments {
    /// An installer's ISO; without it, one is made from distribution packages.
    iso: Option<PathBuf>,
}

/// The demo.
pub fn run(_arguments: &Arguments) -> Result<()> {
    anyhow::bail!("not yet")
}
