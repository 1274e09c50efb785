//! Debian's installer, unattended: its medium, its answers, and its last part.
//!
//! The installer is Debian's, from its package: it boots, asks for a lease, fetches its answers, chooses a mirror and loads
//! components from there. Debian's components for what is left (partitions, base system, boot loader) are files of a kind
//! that package managers do not hand out (`udeb`). In their place the mirror has one of ours: `installer/postinst`, with the
//! programs of Debian's packages that it calls and the modules that the installer's own RAM disk has not got.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::packages::{Suite, run, unpacked};
use crate::{cache, initrd, iso, kernel};

const SCRIPT: &str = include_str!("../installer/postinst");

/// What the script calls, and what that is linked with.
const PROGRAMS: [&str; 15] = [
    "debootstrap",
    "perl-base",
    "libcrypt1",
    "e2fsprogs",
    "libext2fs2",
    "libcom-err2",
    "libss2",
    "dosfstools",
    "fdisk",
    "libfdisk1",
    "libmount1",
    "libsmartcols1",
    "libreadline8",
    "libtinfo6",
    "libncursesw6",
];
/// What it loads. The rest is in the installer's RAM disk.
const MODULES: [&str; 3] = ["nvme", "ext4", "efivarfs"];
/// What nobody reads there.
const UNUSED: [&str; 6] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "lib/systemd",
];

/// What the system is installed with, beside the base system.
pub const PACKAGES: [&str; 13] = [
    // What debootstrap adds by itself.
    "usr-is-merged",
    "linux-image-arm64",
    "initramfs-tools",
    "grub-efi-arm64",
    "grub-efi-arm64-signed",
    "shim-signed",
    "efibootmgr",
    "usbutils",
    "iperf3",
    "curl",
    "busybox",
    "alsa-utils",
    "tpm2-tools",
];
/// The password of `root`.
pub const PASSWORD: &str = "dormer";

/// The component that installs the system, for [`crate::mirror::mirror`].
pub fn component() -> Result<PathBuf> {
    let kernel = kernel()?;
    let (image, _) = iso::installer_files()?;
    let runs = kernel_version(&image)?;
    ensure!(
        runs == kernel.version,
        "the installer runs on {runs}, and the package has modules for {}",
        kernel.version
    );
    let control = format!(
        "Package: dormer-installer\nVersion: 1\nArchitecture: arm64\nMaintainer: Dormer <dormer@localhost>\n\
         Priority: standard\nSection: debian-installer\nKernel-Version: {runs}\nInstaller-Menu-Item: 6400\n\
         Description: Install the system\n"
    );
    let key = format!("{control}{SCRIPT}{PROGRAMS:?}{MODULES:?}");
    let name = format!(
        "installer/{:016x}.udeb",
        initrd::fingerprint(key.as_bytes())
    );
    cache::once(&name, |path| {
        let tree = path.with_extension("tree");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(tree.join("DEBIAN"))?;
        for package in PROGRAMS {
            let from = unpacked(Suite::Bookworm, package)?.join(".");
            run(Command::new("cp").arg("-a").arg(from).arg(&tree))?;
        }
        for folder in UNUSED {
            let _ = fs::remove_dir_all(tree.join(folder));
        }
        for file in initrd::module_files(&kernel, &MODULES)? {
            let to = tree.join("lib/modules").join(&runs).join(&file);
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::copy(kernel.modules.join(&file), to)?;
        }
        fs::write(tree.join("DEBIAN/control"), &control)?;
        let script = tree.join("DEBIAN/postinst");
        fs::write(&script, SCRIPT)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zgzip", "-z1", "--build"])
            .args([&tree, path]))?;
        fs::remove_dir_all(&tree)?;
        Ok(())
    })
}

/// The version that an image of the kernel says of itself.
fn kernel_version(image: &Path) -> Result<String> {
    const WORDS: &[u8] = b"Linux version ";
    let bytes = fs::read(image)?;
    let mut versions = bytes
        .windows(WORDS.len())
        .enumerate()
        .filter_map(|(at, window)| {
            let rest = (window == WORDS).then(|| &bytes[at + WORDS.len()..])?;
            let end = rest.iter().position(|byte| *byte == b' ')?;
            let version = std::str::from_utf8(&rest[..end]).ok()?;
            version
                .starts_with(|c: char| c.is_ascii_digit())
                .then(|| version.to_string())
        });
    let version = versions.next();
    version.with_context(|| format!("{} says no version of itself", image.display()))
}

/// Writes the medium of an installer that takes its answers from that port of the host's loopback, and talks on the serial
/// line.
pub fn medium(path: &Path, port: u16) -> Result<()> {
    let (kernel, initrd) = iso::installer_files()?;
    // On a dumb terminal there are lines, not screens.
    let append = format!(
        "auto=true priority=critical TERM=dumb DEBIAN_FRONTEND=text console=ttyAMA0 \
         preseed/url=http://10.0.2.2:{port}/preseed.cfg"
    );
    iso::write(path, &kernel, &initrd, &append)
}

/// The answers: everything is taken from the mirror on that port, onto `disk`.
pub fn answers(port: u16, disk: &str) -> String {
    let packages = PACKAGES.join(" ");
    format!(
        "d-i debian-installer/language string C
d-i debian-installer/country string US
d-i debian-installer/locale string C
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string dormer
d-i netcfg/get_domain string
d-i hw-detect/load_firmware boolean false
d-i mirror/country string manual
d-i mirror/protocol string http
d-i mirror/http/hostname string 10.0.2.2:{port}
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i mirror/suite string bookworm
d-i debian-installer/allow_unauthenticated boolean true
d-i partman-auto/disk string {disk}
d-i passwd/root-password password {PASSWORD}
d-i pkgsel/include string {packages}
"
    )
}
