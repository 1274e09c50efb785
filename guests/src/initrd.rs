//! Initial RAM disks: busybox, a script, and the modules that a test needs.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::packages::{Suite, run, unpacked};
use crate::{Kernel, cache};

/// The modules (with what they depend on) that reach every device of the board.
pub const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio-rng",
    "nvme",
    "xhci-pci",
    "usb-storage",
    "uas",
    "sd_mod",
    "sr_mod",
    "usbhid",
    "hid-generic",
    "evdev",
    "ext4",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "isofs",
    "udf",
    "efivarfs",
    "gpio-pl061",
    "gpio_keys",
    "button",
    "rtc-efi",
    "crc32c_generic",
];

/// What `init` runs first.
const PROLOGUE: &str = "#!/bin/sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
mkdir -p /dev/pts /mnt /tmp; mount -t devpts none /dev/pts
exec </dev/console >/dev/console 2>&1
";

/// From there on the kernel's messages go to its log only: one would come in the middle of a line of the script's.
const QUIET: &str = "echo 1 > /proc/sys/kernel/printk\n";

/// An initrd whose `/init` runs `script` (busybox sh, everything mounted) after loading `modules`; `files` are put in
/// besides. Kept in the cache by its contents.
pub fn build(
    kernel: &Kernel,
    modules: &[&str],
    script: &str,
    files: &[(&str, &[u8])],
) -> Result<PathBuf> {
    let mut key = format!("{} {modules:?} {PROLOGUE}{QUIET}{script}", kernel.version).into_bytes();
    for (name, data) in files {
        key.extend_from_slice(name.as_bytes());
        key.extend_from_slice(data);
    }
    let name = format!("initrd/{:016x}", fingerprint(&key));
    cache::once(&name, |path| {
        let mut archive =
            Archive::new(GzEncoder::new(fs::File::create(path)?, Compression::fast()));
        for folder in ["bin", "dev", "proc", "sys", "etc", "root", "lib"] {
            archive.folder(folder)?;
        }
        let busybox = unpacked(Suite::Bookworm, "busybox-static")?;
        let busybox = ["bin/busybox", "usr/bin/busybox"]
            .iter()
            .map(|p| busybox.join(p))
            .find(|p| p.exists())
            .context("busybox-static has no busybox")?;
        archive.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
        archive.file("bin/sh", 0o120777, b"busybox")?;
        archive.device("dev/console", 5, 1)?;
        archive.file(
            "init",
            0o755,
            format!("{PROLOGUE}{}{QUIET}{script}", load(modules)).as_bytes(),
        )?;
        if !modules.is_empty() {
            add_modules(&mut archive, kernel, modules)?;
        }
        for (name, data) in files {
            for (at, _) in name.match_indices('/') {
                archive.folder(&name[..at])?;
            }
            archive.file(name, 0o755, data)?;
        }
        archive.finish()
    })
}

fn load(modules: &[&str]) -> String {
    modules
        .iter()
        .map(|module| format!("modprobe {module} 2>/dev/null\n"))
        .collect()
}

/// The files of the modules and of what they depend on, below the kernel's folder of modules.
pub(crate) fn module_files(kernel: &Kernel, modules: &[&str]) -> Result<BTreeSet<String>> {
    let root = kernel
        .modules
        .ancestors()
        .nth(3)
        .context("a modules folder is below lib/modules")?;
    cache::locked("depmod", || {
        if !kernel.modules.join("modules.dep.bin").exists() {
            run(Command::new(depmod())
                .arg("-b")
                .arg(root)
                .arg(&kernel.version))?;
        }
        Ok(())
    })?;
    let stem = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.split(".ko").next().unwrap_or(name).replace('-', "_")
    };
    let wanted: Vec<_> = modules.iter().map(|m| m.replace('-', "_")).collect();
    let mut files = BTreeSet::new();
    for line in fs::read_to_string(kernel.modules.join("modules.dep"))?.lines() {
        if let Some((module, needs)) = line.split_once(':')
            && wanted.contains(&stem(module))
        {
            files.insert(module.to_string());
            files.extend(needs.split_whitespace().map(str::to_string));
        }
    }
    Ok(files)
}

/// The modules and what they depend on, with the files modprobe reads.
fn add_modules<W: Write>(
    archive: &mut Archive<W>,
    kernel: &Kernel,
    modules: &[&str],
) -> Result<()> {
    let files = module_files(kernel, modules)?;
    let dependencies = fs::read_to_string(kernel.modules.join("modules.dep"))?;
    let base = format!("lib/modules/{}", kernel.version);
    let mut folders = BTreeSet::new();
    for file in &files {
        let path = format!("{base}/{file}");
        folders.extend(
            path.match_indices('/')
                .map(|(at, _)| path[..at].to_string()),
        );
    }
    folders.insert(base.clone());
    for folder in folders {
        archive.folder(&folder)?;
    }
    for file in &files {
        archive.file(
            &format!("{base}/{file}"),
            0o644,
            &fs::read(kernel.modules.join(file))?,
        )?;
    }
    let kept: String = dependencies
        .lines()
        .filter(|line| {
            line.split_once(':')
                .is_some_and(|(module, _)| files.contains(module))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    archive.file(&format!("{base}/modules.dep"), 0o644, kept.as_bytes())?;
    Ok(())
}

fn depmod() -> &'static str {
    if Path::new("/sbin/depmod").exists() {
        "/sbin/depmod"
    } else {
        "depmod"
    }
}

/// FNV-1a: names things in the cache by what they are made of.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A cpio archive of the `newc` kind (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
struct Archive<W: Write> {
    out: W,
    inode: u32,
    folders: std::collections::HashSet<String>,
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Archive<W> {
        Archive {
            out,
            inode: 1,
            folders: Default::default(),
        }
    }

    fn folder(&mut self, name: &str) -> Result<()> {
        if self.folders.insert(name.to_string()) {
            self.entry(name, 0o040755, (0, 0), &[])?;
        }
        Ok(())
    }

    /// A file; a mode with a type (a symbolic link's) is taken as it is.
    fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> Result<()> {
        let mode = if mode & 0o170000 == 0 {
            0o100000 | mode
        } else {
            mode
        };
        self.entry(name, mode, (0, 0), data)
    }

    fn device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(name, 0o020600, (major, minor), &[])
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> Result<()> {
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            u32::try_from(data.len())?,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        self.inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(name);
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(data)
    }

    fn padded(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 4][..padding])?;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(())
    }
}
