//! Real guests out of distribution packages, and a way to run and drive them.
//!
//! - [`packages`] downloads and unpacks arm64 packages with the host's package manager, under a state of its own, into a
//!   cache outside of the tree.
//! - [`initrd`] and [`iso`] put boot media together from them.
//! - [`windows`] makes media with the layout of Windows' out of free parts.
//! - [`run`] starts Dormer (or a peer with the same command line), reads its serial line and speaks QMP with it.

pub mod bare;
pub mod bench;
pub mod cache;
pub mod initrd;
pub mod iso;
pub mod mirror;
pub mod packages;
pub mod programs;
pub mod qmp;
pub mod run;
pub mod screen;
pub mod sound;
pub mod unattended;
pub mod vnc;
pub mod windows;

use std::path::{Path, PathBuf};

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

/// Makes a disk image with `qemu-img`.
pub fn image(path: &Path, format: &str, size: &str) -> Result<()> {
    packages::run(
        std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", format])
            .arg(path)
            .arg(size),
    )?;
    Ok(())
}

/// Microsoft's certificates for Secure Boot, out of the Python package `virt-firmware`: data, in a folder of the cache.
pub fn certificates() -> Result<PathBuf> {
    cache::once("certificates", |path| {
        let folder = path.with_extension("download");
        std::fs::create_dir_all(&folder)?;
        let python = || std::process::Command::new("python3");
        packages::run(
            python()
                .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
                .arg(&folder)
                .arg("virt-firmware"),
        )?;
        let wheel = std::fs::read_dir(&folder)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|e| e == "whl"))
            .ok_or_else(|| anyhow::anyhow!("pip brought no wheel of virt-firmware"))?;
        packages::run(
            python()
                .args(["-m", "zipfile", "-e"])
                .arg(&wheel)
                .arg(&folder),
        )?;
        std::fs::rename(folder.join("virt/firmware/certs/microsoft.com"), path)?;
        std::fs::remove_dir_all(&folder)?;
        Ok(())
    })
}
