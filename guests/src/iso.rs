//! Bootable installer media, as distributions lay them out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::packages::{Suite, run, unpacked};
use crate::{cache, initrd};

const INSTALLER: &str = "usr/lib/debian-installer/images/12/arm64/text/debian-installer/arm64";

/// Debian's arm64 network installer in text mode on `console=tty0`, started by the signed shim and GRUB.
pub fn installer() -> Result<PathBuf> {
    let (kernel, initrd) = installer_files()?;
    bootable("installer.iso", &kernel, &initrd, "console=tty0")
}

/// The network installer's kernel and initrd.
pub fn installer_files() -> Result<(PathBuf, PathBuf)> {
    let folder = unpacked(Suite::Bookworm, "debian-installer-12-netboot-arm64")?.join(INSTALLER);
    Ok((folder.join("linux"), folder.join("initrd.gz")))
}

/// A medium that boots `kernel` with `initrd` by shim and GRUB. Kept in the cache under `name` and its parts.
pub fn bootable(name: &str, kernel: &Path, initrd: &Path, append: &str) -> Result<PathBuf> {
    let key = format!("{} {} {append}", kernel.display(), initrd.display());
    let name = format!("media/{:016x}-{name}", initrd::fingerprint(key.as_bytes()));
    cache::once(&name, |path| write(path, kernel, initrd, append))
}

/// Writes a medium that boots `kernel` with `initrd` by shim and GRUB.
pub fn write(path: &Path, kernel: &Path, initrd: &Path, append: &str) -> Result<()> {
    let shim = unpacked(Suite::Bookworm, "shim-signed")?.join("usr/lib/shim/shimaa64.efi.signed");
    let grub = unpacked(Suite::Bookworm, "grub-efi-arm64-signed")?
        .join("usr/lib/grub/arm64-efi-signed/gcdaa64.efi.signed");
    let mut tree = path.as_os_str().to_owned();
    tree.push(".tree");
    let tree = PathBuf::from(tree);
    let _ = fs::remove_dir_all(&tree);
    for folder in [".disk", "boot/grub", "EFI/boot"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::write(tree.join(".disk/info"), "Dormer test medium, arm64\n")?;
    fs::copy(kernel, tree.join("boot/linux"))?;
    fs::copy(initrd, tree.join("boot/initrd.gz"))?;
    fs::write(
        tree.join("boot/grub/grub.cfg"),
        format!(
            "set timeout=1\nmenuentry \"Start\" {{\n linux /boot/linux {append}\n initrd /boot/initrd.gz\n}}\n"
        ),
    )?;
    let efi = tree.join("boot/grub/efi.img");
    efi_image(&efi, &[(&shim, "bootaa64.efi"), (&grub, "grubaa64.efi")])?;
    run(Command::new("xorriso")
        .args([
            "-as",
            "mkisofs",
            "-quiet",
            "-r",
            "-J",
            "-V",
            "DORMER_TEST",
            "-o",
        ])
        .arg(path)
        .args(["-e", "boot/grub/efi.img", "-no-emul-boot"])
        .arg(&tree))?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// Writes a FAT volume with programs where firmware looks for what to start, `EFI/boot`.
pub fn efi_image(path: &Path, programs: &[(&Path, &str)]) -> Result<()> {
    fs::File::create(path)?.set_len(16 << 20)?;
    run(Command::new("mformat")
        .arg("-i")
        .arg(path)
        .args(["-v", "DORMER", "::"]))?;
    run(Command::new("mmd")
        .arg("-i")
        .arg(path)
        .args(["::/EFI", "::/EFI/boot"]))?;
    for (from, name) in programs {
        let mut copy = Command::new("mcopy");
        copy.arg("-i").arg(path).arg(from);
        run(copy.arg(format!("::/EFI/boot/{name}")))?;
    }
    Ok(())
}
