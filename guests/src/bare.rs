//! Programs of our own that run with no system beneath them: `guests/programs/NAME.S`, and those of `guests/programs/system`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::packages::run;
use crate::{cache, initrd};

/// The ELF file of a program, linked at the flat binaries' place in RAM; built the first time.
pub fn program(name: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(format!("{name}.S"));
    let text =
        std::fs::read(&source).with_context(|| format!("no program {}", source.display()))?;
    cache::once(
        &format!("programs/{name}-{:016x}", initrd::fingerprint(&text)),
        |path| {
            run(Command::new("aarch64-linux-gnu-gcc")
                .args([
                    "-nostdlib",
                    "-static",
                    "-march=armv8.3-a+crypto",
                    "-Wl,-Ttext=0x40080000",
                    "-Wl,--build-id=none",
                    "-o",
                ])
                .arg(path)
                .arg(&source))?;
            Ok(())
        },
    )
}

/// The ELF file of a system-level program (`guests/programs/system/NAME.c`), which prints lines to be compared between two
/// machines; what it draws at random follows from `seed`, `count` times.
///
/// # Errors
///
/// What is to be installed, if there is no compiler.
pub fn system(name: &str, seed: u64, count: u32) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/system");
    let sources: Vec<_> = ["start.S", "machine.c", &format!("{name}.c")]
        .iter()
        .map(|file| folder.join(file))
        .collect();
    // The text is one block of 2 MiB, which the programs map read-only, and the data begins behind it.
    let flags = [
        "-std=gnu11",
        "-O2",
        "-ffreestanding",
        "-nostdlib",
        "-static",
        "-march=armv8.2-a",
        "-mgeneral-regs-only",
        "-mstrict-align",
        "-fno-tree-loop-distribute-patterns",
        "-Wl,-Ttext=0x40200000,-Tdata=0x40400000,--build-id=none,-z,norelro",
    ];
    let mut key = format!("{flags:?} {seed} {count}").into_bytes();
    for source in sources.iter().chain([&folder.join("machine.h")]) {
        key.extend(
            std::fs::read(source).with_context(|| format!("no program {}", source.display()))?,
        );
    }
    let name = format!("programs/{name}-{:016x}", initrd::fingerprint(&key));
    cache::once(&name, |path| {
        run(Command::new("aarch64-linux-gnu-gcc")
            .args(flags)
            .arg(format!("-DSEED={seed}ul"))
            .arg(format!("-DCOUNT={count}"))
            .arg("-o")
            .arg(path)
            .args(&sources))?;
        Ok(())
    })
}
