//! Random programs by every way of generated code, for as long as wanted; or Linux.

use std::process::Command;

use anyhow::{Context, Result, ensure};

#[derive(clap::Args)]
pub struct Arguments {
    /// `--seconds N` for each way, `--seed N`, `--programs N`, `--way NAME`; `--linux`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the comparison for speed, and runs it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args(["run", "--release", "--package", "dormer-lockstep", "--"])
        .args(&arguments.rest)
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the ways differ");
    Ok(())
}
