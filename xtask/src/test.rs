//! Set-up, then all the tests.

use std::process::Command;

use anyhow::{Context, Result, ensure};

#[derive(clap::Args)]
pub struct Arguments {
    /// For `cargo test`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs every test of the workspace.
pub fn run(arguments: &Arguments) -> Result<()> {
    crate::setup::run(crate::setup::Purpose::Everything)?;
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(&arguments.rest)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "tests failed");
    Ok(())
}
