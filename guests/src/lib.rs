//! Real guests out of distribution packages, and a way to run and drive them.
//!
//! - [`packages`] downloads and unpacks arm64 packages with the host's package manager, under a state of its own, into a
//!   cache outside of the tree.
//! - [`initrd`] and [`iso`] put boot media together from them.
//! - [`run`] starts Dormer (or a peer with the same command line), reads its serial line and speaks QMP with it.

pub mod bare;
pub mod bench;
pub mod cache;
pub mod initrd;
pub mod iso;
pub mod packages;
pub mod programs;
pub mod qmp;
pub mod run;
pub mod screen;

use std::path::PathBuf;

use anyhow::Result;
use packages::{Suite, unpacked};

/// A Linux kernel of the distribution: an EFI-stub `Image`.
pub struct Kernel {
    pub image: PathBuf,
    /// `lib/modules/VERSION`.
    pub modules: PathBuf,
    pub version: String,
}

/// Debian's current arm64 kernel.
pub fn kernel() -> Result<Kernel> {
    let package = packages::dependency(Suite::Bookworm, "linux-image-arm64", "linux-image-")?;
    let root = match unpacked(Suite::Bookworm, &format!("{package}-unsigned")) {
        Ok(root) => root,
        Err(_) => unpacked(Suite::Bookworm, &package)?,
    };
    let version = package.trim_start_matches("linux-image-").to_string();
    let image = root.join("boot").join(format!("vmlinuz-{version}"));
    anyhow::ensure!(image.exists(), "{} has no {}", package, image.display());
    let modules = root.join("lib/modules").join(&version);
    Ok(Kernel {
        image,
        modules,
        version,
    })
}

/// A firmware image of the distribution's `qemu-efi-aarch64`.
pub fn firmware(suite: Suite, name: &str) -> Result<PathBuf> {
    let root = unpacked(suite, "qemu-efi-aarch64")?;
    for folder in ["usr/share/qemu-efi-aarch64", "usr/share/AAVMF"] {
        let path = root.join(folder).join(name);
        if path.exists() {
            return Ok(path);
        }
    }
    anyhow::bail!(
        "the package qemu-efi-aarch64 of {} has no {name}",
        suite.name()
    )
}
