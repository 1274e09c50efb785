//! `dormer inspect`.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use media::inspect;

#[derive(clap::Args)]
pub struct Arguments {
    /// A file, or one within another: `win.iso:sources/boot.wim`.
    #[arg(value_name = "FILE[:INNER]")]
    file: String,
    /// Print the report for programs.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let name = &arguments.file;
    let report = if Path::new(name).exists() || !name.contains(':') {
        inspect::inspect_file(Path::new(name))
    } else {
        media::place::open_file(name).and_then(|source| inspect::inspect(&source))
    };
    let report = report.with_context(|| name.clone())?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}
