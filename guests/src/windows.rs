//! Media with the layout of Windows' for Arm64, out of free parts: what is on them boots, and is no Windows.
//!
//! UDF 1.02 beside a note in ISO 9660, El Torito for UEFI with both `efisys` images, a signed shim and GRUB for boot manager,
//! both boot configurations, `boot.wim` with two images and `install.wim` (or `.esd`) with several, whose XML names
//! architecture, build, editions and languages as Windows' does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use media::bcd::{Device, Setting, Store};
use media::hive::Hive;
use media::source::{Extents, FileSource, Run, Shared};
use media::volume::{Bridge, Files, fat};

use crate::cache;
use crate::packages::{Suite, run, unpacked};

/// What the installed images are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `install.wim` of LZX, of more than 4 GiB (most of them a hole).
    Large,
    /// `install.wim` of XPRESS.
    Xpress,
    /// `install.wim` without compression.
    Plain,
    /// `install.esd`: LZMS, solid.
    Esd,
    /// For x64, which Dormer refuses.
    X64,
    /// Before the first build for processors of Armv8.1, which Dormer refuses.
    Old,
}

/// All of them.
pub const VARIANTS: [Variant; 6] = [
    Variant::Large,
    Variant::Xpress,
    Variant::Plain,
    Variant::Esd,
    Variant::X64,
    Variant::Old,
];

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Variant::Large => "large",
            Variant::Xpress => "xpress",
            Variant::Plain => "plain",
            Variant::Esd => "esd",
            Variant::X64 => "x64",
            Variant::Old => "old",
        }
    }

    fn compression(self) -> &'static [&'static str] {
        match self {
            Variant::Xpress => &["--compress=XPRESS"],
            Variant::Plain => &["--compress=none"],
            Variant::Esd => &["--compress=LZMS", "--solid"],
            _ => &["--compress=LZX"],
        }
    }

    fn architecture(self) -> u32 {
        if self == Variant::X64 { 9 } else { 12 }
    }

    fn build(self) -> u32 {
        if self == Variant::Old { 22000 } else { 26100 }
    }
}

/// The medium's label, of the kind that Windows' have.
pub const LABEL: &str = "CCCOMA_A64FRE_EN-US_DV9";
/// Editions of the installed images: name, `EDITIONID`.
pub const EDITIONS: [(&str, &str); 4] = [
    ("Windows 11 Home", "Core"),
    ("Windows 11 Home N", "CoreN"),
    ("Windows 11 Pro", "Professional"),
    ("Windows 11 Education", "Education"),
];
/// Bytes of the large variant's `install.wim`.
const LARGE: u64 = (4 << 30) + (512 << 20);

const MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";
const SETUP: &str = "{7619dcc9-fafe-11d9-b411-000476eba25f}";
const RAM_DISK: &str = "{7619dcc8-fafe-11d9-b411-000476eba25f}";

/// The medium, made once and kept in the cache.
pub fn medium(variant: Variant) -> Result<PathBuf> {
    cache::once(&format!("media/windows-2-{}.iso", variant.name()), |path| {
        let mut folder = path.as_os_str().to_owned();
        folder.push(".parts");
        let folder = PathBuf::from(folder);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        write(variant, &folder, path)?;
        fs::remove_dir_all(&folder)?;
        Ok(())
    })
}

fn write(variant: Variant, folder: &Path, path: &Path) -> Result<()> {
    let shim = unpacked(Suite::Bookworm, "shim-signed")?.join("usr/lib/shim/shimaa64.efi.signed");
    let grub = unpacked(Suite::Bookworm, "grub-efi-arm64-signed")?
        .join("usr/lib/grub/arm64-efi-signed/gcdaa64.efi.signed");
    let (shim, grub) = (fs::read(shim)?, fs::read(grub)?);
    let mut disc = Bridge::new(LABEL);
    let bytes = |bytes: &[u8]| -> Shared { Arc::new(bytes.to_vec()) };
    let boot_image = |note: &str| -> Result<Shared> {
        let mut files = Files::new();
        files.add("EFI/BOOT/BOOTAA64.EFI", shim.as_slice())?;
        files.add("EFI/BOOT/GRUBAA64.EFI", grub.as_slice())?;
        files.add("EFI/BOOT/NOTE.TXT", note)?;
        Ok(Arc::new(fat("EFISECTOR", &files, 1440 << 10)?))
    };
    let store = store()?;
    disc.add(
        "autorun.inf",
        bytes(b"[AutoRun.Amd64]\r\nopen=setup.exe\r\n"),
    )?;
    disc.add("boot/bcd", bytes(&store))?;
    disc.add("boot/boot.sdi", Arc::new(vec![0; 3_170_304]))?;
    disc.add("bootmgr.efi", bytes(&grub))?;
    if variant == Variant::X64 {
        // Its name alone says so: there is no signed x64 loader among arm64 packages.
        disc.add("efi/boot/bootx64.efi", bytes(&for_x64(&shim)))?;
    } else {
        disc.add("efi/boot/bootaa64.efi", bytes(&shim))?;
    }
    disc.add("efi/microsoft/boot/bcd", bytes(&store))?;
    let asks = disc.add(
        "efi/microsoft/boot/efisys.bin",
        boot_image("asks for a key")?,
    )?;
    disc.add(
        "efi/microsoft/boot/efisys_noprompt.bin",
        boot_image("asks for no key")?,
    )?;
    disc.add("setup.exe", bytes(&shim))?;
    for number in 0..200 {
        let name = format!("sources/component {number:03}.mui");
        disc.add(&name, bytes(name.repeat(number).as_bytes()))?;
    }
    disc.add("sources/boot.wim", boot_wim(variant, folder)?)?;
    let (name, install) = install(variant, folder)?;
    disc.add(&format!("sources/{name}"), install)?;
    disc.boot(asks, &[]);
    Ok(disc.write(&fs::File::create(path)?)?)
}

/// The same executable as if for x64.
fn for_x64(loader: &[u8]) -> Vec<u8> {
    let mut bytes = loader.to_vec();
    let at = u32::from_le_bytes([bytes[60], bytes[61], bytes[62], bytes[63]]) as usize + 4;
    bytes[at..at + 2].copy_from_slice(&0x8664u16.to_le_bytes());
    bytes
}

/// A boot configuration as install media have it.
fn store() -> Result<Vec<u8>> {
    let mut hive = Store::create()?;
    for (object, kind) in [
        (MANAGER, 0x1010_0002),
        (SETUP, 0x1020_0003),
        (RAM_DISK, 0x3000_0000),
    ] {
        Store::set_object(&mut hive, object, kind)?;
    }
    let text = |text: &str| Setting::Text(text.into());
    let ram_disk = Setting::Device(Device::ram_disk("\\sources\\boot.wim", RAM_DISK));
    for (object, element, value) in [
        (MANAGER, 0x1200_0004, text("Windows Boot Manager")),
        (MANAGER, 0x1200_0005, text("en-US")),
        (MANAGER, 0x2300_0003, Setting::Object(SETUP.into())),
        (MANAGER, 0x2400_0001, Setting::Objects(vec![SETUP.into()])),
        (MANAGER, 0x2500_0004, Setting::Integer(30)),
        (SETUP, 0x1100_0001, ram_disk.clone()),
        (
            SETUP,
            0x1200_0002,
            text("\\windows\\system32\\boot\\winload.efi"),
        ),
        (SETUP, 0x1200_0004, text("Windows Setup")),
        (SETUP, 0x1200_0005, text("en-US")),
        (SETUP, 0x2100_0001, ram_disk),
        (SETUP, 0x2200_0002, text("\\windows")),
        (SETUP, 0x2600_0010, Setting::Boolean(true)),
        (SETUP, 0x2600_0022, Setting::Boolean(true)),
        (SETUP, 0x2600_00B0, Setting::Boolean(true)),
        (RAM_DISK, 0x3100_0003, Setting::Device(Device::boot())),
        (RAM_DISK, 0x3200_0004, text("\\boot\\boot.sdi")),
    ] {
        Store::set_element(&mut hive, object, element, &value)?;
    }
    Ok(hive.into_bytes())
}

/// Files that an image of Windows has, by name; their contents are generated.
fn tree(folder: &Path, seed: usize) -> Result<()> {
    let system = folder.join("Windows/System32");
    fs::create_dir_all(system.join("config"))?;
    fs::create_dir_all(system.join("Boot"))?;
    fs::create_dir_all(folder.join("Users/Default"))?;
    let mut hive = Hive::create("ROOT")?;
    hive.make("ControlSet001\\Services")?;
    let setup = hive.make("Setup")?;
    hive.set_text(&setup, "CmdLine", "winpeshl.exe")?;
    fs::write(system.join("config/SYSTEM"), hive.into_bytes())?;
    for number in 0..300usize {
        let line = format!("component {number} of image {seed}\r\n");
        fs::write(
            system.join(format!("file{number:03}.dll")),
            line.repeat(number * 7),
        )?;
    }
    fs::write(system.join("Boot/winload.efi"), "a loader would be here")?;
    fs::write(
        folder.join("Windows/Größe 日本語.txt"),
        "names of all kinds",
    )?;
    fs::hard_link(
        system.join("file299.dll"),
        folder.join("Windows/explorer.exe"),
    )?;
    std::os::unix::fs::symlink("../Windows", folder.join("Users/Shortcut"))?;
    Ok(())
}

struct Image<'a> {
    name: &'a str,
    edition: &'a str,
    installation: &'a str,
}

/// Captures trees into a WIM, with the XML that Windows' have.
fn capture(
    variant: Variant,
    folder: &Path,
    path: &Path,
    images: &[Image<'_>],
    options: &[&str],
) -> Result<()> {
    for (index, image) in images.iter().enumerate() {
        let tree_folder = folder.join(format!("tree of {}", image.name));
        tree(&tree_folder, index)?;
        let verb = if index == 0 { "capture" } else { "append" };
        let mut command = Command::new("wimlib-imagex");
        command.arg(verb).arg(&tree_folder).arg(path).args([
            image.name,
            image.name,
            "--no-acls",
            "--threads=1",
        ]);
        // How an image is compressed is the file's affair once it is there.
        let of_file = |option: &&&str| index == 0 || **option == "--solid";
        command.args(options.iter().filter(of_file));
        let mut properties = vec![
            format!("DISPLAYNAME={}", image.name),
            format!("DISPLAYDESCRIPTION={}", image.name),
            format!("FLAGS={}", image.edition),
            format!("WINDOWS/ARCH={}", variant.architecture()),
            "WINDOWS/PRODUCTNAME=Microsoft® Windows® Operating System".into(),
            format!("WINDOWS/EDITIONID={}", image.edition),
            format!("WINDOWS/INSTALLATIONTYPE={}", image.installation),
            "WINDOWS/LANGUAGES/LANGUAGE=en-US".into(),
            "WINDOWS/LANGUAGES/DEFAULT=en-US".into(),
            "WINDOWS/VERSION/MAJOR=10".into(),
            "WINDOWS/VERSION/MINOR=0".into(),
            format!("WINDOWS/VERSION/BUILD={}", variant.build()),
            "WINDOWS/VERSION/SPBUILD=1742".into(),
        ];
        for property in properties.drain(..) {
            command.arg(format!("--image-property={property}"));
        }
        run(&mut command).context("wimlib-imagex: cargo xtask setup installs it")?;
        fs::remove_dir_all(&tree_folder)?;
    }
    Ok(())
}

fn boot_wim(variant: Variant, folder: &Path) -> Result<Shared> {
    let path = folder.join("boot.wim");
    let image = |name| Image {
        name,
        edition: "WindowsPE",
        installation: "WindowsPE",
    };
    let images = [
        image("Microsoft Windows PE"),
        image("Microsoft Windows Setup"),
    ];
    capture(variant, folder, &path, &images, &["--compress=LZX"])?;
    run(Command::new("wimlib-imagex")
        .arg("info")
        .arg(&path)
        .args(["2", "--boot"]))?;
    Ok(Arc::new(FileSource::open(&path)?))
}

fn install(variant: Variant, folder: &Path) -> Result<(&'static str, Shared)> {
    let path = folder.join("install");
    let images: Vec<Image<'_>> = EDITIONS
        .iter()
        .map(|(name, edition)| Image {
            name,
            edition,
            installation: "Client",
        })
        .collect();
    capture(variant, folder, &path, &images, variant.compression())?;
    let file: Shared = Arc::new(FileSource::open(&path)?);
    Ok(match variant {
        Variant::Esd => ("install.esd", file),
        Variant::Large => {
            // What lies behind the last resource is no part of a WIM.
            let runs = [
                Run {
                    at: Some(0),
                    length: file.size(),
                },
                Run {
                    at: None,
                    length: LARGE - file.size(),
                },
            ];
            ("install.wim", Arc::new(Extents::new(file, runs, LARGE)?))
        }
        _ => ("install.wim", file),
    })
}
