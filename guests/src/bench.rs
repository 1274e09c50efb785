//! The benchmark program, `guests/bench`: for a guest's Linux, and for the host to compare with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

use crate::packages::run;
use crate::{cache, initrd};

/// Whom the program is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A64 Linux.
    Guest,
    /// This host, with all its processor has: the measure of what emulation costs.
    Host,
}

/// Neither side may contract multiplications and additions where the other does not: checksums are compared.
const FLAGS: &[&str] = &[
    "-std=gnu11",
    "-O2",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-static",
    "-pthread",
];

/// The program; built the first time.
///
/// # Errors
///
/// What is to be installed, if there is no compiler.
pub fn program(target: Target) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench");
    let (compiler, machine) = match target {
        Target::Guest => ("aarch64-linux-gnu-gcc", "-march=armv8-a+crypto"),
        Target::Host => ("gcc", "-march=native"),
    };
    let mut key = format!("{compiler} {machine} {FLAGS:?}").into_bytes();
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "c") {
            sources.push(path);
        }
    }
    sources.sort();
    for source in sources.iter().chain([&folder.join("bench.h")]) {
        key.extend(std::fs::read(source)?);
    }
    let name = format!("programs/bench-{:016x}", initrd::fingerprint(&key));
    cache::once(&name, |path| {
        run(Command::new(compiler)
            .args(FLAGS)
            .arg(machine)
            .arg("-o")
            .arg(path)
            .args(&sources)
            .arg("-lm"))?;
        Ok(())
    })
}

/// A program of `guests/io` for a guest, built the first time: `io` measures networks and disks, `hostile` means harm to
/// its network.
///
/// # Errors
///
/// What is to be installed, if there is no compiler.
pub fn tool(name: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("io/{name}.c"));
    let mut key = format!("{FLAGS:?}").into_bytes();
    key.extend(std::fs::read(&source)?);
    let kept = format!("programs/{name}-{:016x}", initrd::fingerprint(&key));
    cache::once(&kept, |path| {
        run(Command::new("aarch64-linux-gnu-gcc")
            .args(FLAGS)
            .arg("-o")
            .arg(path)
            .arg(&source))?;
        Ok(())
    })
}

/// A line `result …` of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub name: String,
    pub checksum: u64,
    /// Pieces of work done.
    pub units: u64,
    /// Nanoseconds of the program's clock that count.
    pub counted: u64,
    /// From the line `begin …` to this one.
    pub all: u64,
}

impl FromStr for Line {
    type Err = anyhow::Error;

    /// What follows `result `.
    fn from_str(line: &str) -> Result<Line> {
        let fields: Vec<_> = line.split_whitespace().collect();
        ensure!(fields.len() == 5, "not a result: {line}");
        let number = |at: usize| {
            fields[at]
                .parse::<u64>()
                .with_context(|| format!("not a result: {line}"))
        };
        Ok(Line {
            name: fields[0].to_string(),
            checksum: u64::from_str_radix(fields[1], 16)
                .with_context(|| format!("not a result: {line}"))?,
            units: number(2)?,
            counted: number(3)?,
            all: number(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let line: Line = "sieve 000000000000198e 5077 1146 1147".parse().unwrap();
        assert_eq!(line.name, "sieve");
        assert_eq!(line.checksum, 0x198e);
        assert_eq!((line.units, line.counted, line.all), (5077, 1146, 1147));
        assert!("sieve 198e 5077 1146".parse::<Line>().is_err());
        assert!("sieve 198e x 1146 1147".parse::<Line>().is_err());
    }
}
