//! Type-checks and lints the whole workspace for the hosts that this one is not.
//!
//! Only the host's standard library comes with the toolchain. The others' is built from source, by the compiler and linter
//! of the distribution, which come with that source (the packages `rustc-web`, `rust-web-clippy` and `rust-web-src`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// The hosts that Dormer is for and that CI does not run on.
pub const TARGETS: &[&str] = &["aarch64-apple-darwin", "aarch64-unknown-linux-gnu"];

/// The distribution's compiler, of one version with its library's source.
pub const RUSTC: &str = "/usr/bin/rustc";
const CARGO_CLIPPY: &str = "/usr/bin/cargo-clippy";

#[derive(clap::Args)]
pub struct Arguments {
    /// Which; all without.
    targets: Vec<String>,
}

/// Where everything of these targets is built: their compiler is another than the host's, and what one has built the other
/// would build anew each time.
pub fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate::root().join("target"), PathBuf::from);
    target.join("targets")
}

/// A cargo command for a target, with a standard library from source.
pub fn cargo(program: &str, verb: &str, target: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(crate::root())
        .env("RUSTC", RUSTC)
        // The flag that builds the library from source is not a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        .arg(verb)
        .args(["--target", target, "-Zbuild-std=std,panic_abort"])
        .arg("--target-dir")
        .arg(folder());
    command
}

/// Checks every crate, test and example.
pub fn run(arguments: &Arguments) -> Result<()> {
    crate::setup::run(crate::setup::Purpose::Targets)?;
    ensure!(
        Path::new(RUSTC).exists() && Path::new(CARGO_CLIPPY).exists(),
        "{RUSTC} and {CARGO_CLIPPY} are needed: on Debian they are in rustc-web and rust-web-clippy"
    );
    let all = || TARGETS.iter().map(|t| t.to_string()).collect();
    let targets: Vec<String> = if arguments.targets.is_empty() {
        all()
    } else {
        arguments.targets.clone()
    };
    for target in &targets {
        let start = Instant::now();
        let status = cargo(CARGO_CLIPPY, "clippy", target)
            // What runs at build time only: optimising that takes longer than it saves.
            .args([
                "--config",
                "profile.dev.package.\"*\".opt-level=0",
                "--quiet",
                "--keep-going",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ])
            .status()
            .with_context(|| format!("cannot start {CARGO_CLIPPY}"))?;
        ensure!(status.success(), "{target}: does not pass");
        println!("{target}: passes ({:.0} s)", start.elapsed().as_secs_f64());
    }
    Ok(())
}
