//! The tests of whole machines, by each way that the translator can be told to work.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What `-accel` is given. Thresholds of 1 and caches of 1 MiB make events out of what is rare otherwise; not both at once,
/// where an operating system gets nowhere for translating. A masked feature takes the way of a host that has not got it.
const WAYS: [&str; 5] = [
    "jit,tier=baseline",
    "jit,tier=optimizing,hot=1",
    "jit,tb-size=1",
    "jit,tier=optimizing,hot=1,host-features=-aes:-sha_ni:-pclmulqdq:-fma:-f16c",
    "jit,tier=interpreter",
];

#[derive(clap::Args)]
pub struct Arguments {
    /// These instead of each: what -accel is given.
    #[arg(long = "accel")]
    ways: Vec<String>,
    /// For `cargo test`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the tests of the `dormer` package by each way.
pub fn run(arguments: &Arguments) -> Result<()> {
    crate::setup::run(crate::setup::Purpose::Everything)?;
    let ways = match arguments.ways.as_slice() {
        [] => WAYS.map(String::from).to_vec(),
        given => given.to_vec(),
    };
    let mut failed = Vec::new();
    for way in &ways {
        println!("---- {way}");
        let status = Command::new("cargo")
            .current_dir(crate::root())
            .args(["test", "--package", "dormer", "--no-fail-fast"])
            .args(&arguments.rest)
            .env(guests::run::ACCELERATOR, way)
            .status()
            .context("cannot start cargo")?;
        if !status.success() {
            failed.push(way.as_str());
        }
    }
    ensure!(failed.is_empty(), "tests failed by: {}", failed.join("; "));
    Ok(())
}
