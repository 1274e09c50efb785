//! Programs of our own that run with no system beneath them: `guests/programs/NAME.S`.

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
