//! A disc: what boots from it, and what Windows it installs.

use serde::Serialize;

use super::{WindowsImage, windows_image};
use crate::bcd::Store;
use crate::error::{Error, Result};
use crate::fat::Fat;
use crate::fields::to_utf16;
use crate::filesystem::{self, FileSystem};
use crate::hive::Hive;
use crate::iso::{BootCatalog, BootEntry, Descriptors, Emulation, Platform, SECTOR};
use crate::pe::{Machine, Pe};
use crate::source::{Extents, Shared};
use crate::udf::Udf;
use crate::wim::Architecture;

/// The first build of Windows that needs the atomic instructions of Armv8.1; older ones are not for this machine.
pub const FIRST_BUILD: u32 = 25188;

/// Bytes of a boot loader or boot image that are looked through at most.
const LOADER: u64 = 8 << 20;
const HIVE: u64 = 16 << 20;

const STORES: [&str; 2] = ["boot/bcd", "efi/microsoft/boot/bcd"];
const LOADERS: [&str; 6] = [
    "efi/boot/bootaa64.efi",
    "efi/boot/bootx64.efi",
    "efi/boot/bootia32.efi",
    "efi/boot/bootarm.efi",
    "efi/boot/bootriscv64.efi",
    "bootmgr.efi",
];
const IMAGES: [&str; 4] = [
    "sources/boot.wim",
    "sources/install.wim",
    "sources/install.esd",
    "sources/install.swm",
];
/// Boot images of Windows media, and whether they ask for a key.
const BOOT_IMAGES: [(&str, bool); 2] = [
    ("efi/microsoft/boot/efisys.bin", true),
    ("efi/microsoft/boot/efisys_noprompt.bin", false),
];

/// A disc.
#[derive(Clone, Debug, Serialize)]
pub struct Medium {
    pub label: String,
    pub file_systems: Vec<NamedFileSystem>,
    /// Bytes that its file systems say there are.
    pub expected_size: u64,
    pub boot: Vec<BootImage>,
    pub loaders: Vec<Loader>,
    pub boot_configurations: Vec<BootConfiguration>,
    pub images: Vec<ImageFile>,
    /// `None` for what is no Windows medium.
    pub windows: Option<Verdict>,
    /// What could not be read.
    pub damage: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct NamedFileSystem {
    pub name: String,
    pub label: String,
}

/// An El Torito entry.
#[derive(Clone, Debug, Serialize)]
pub struct BootImage {
    pub platform: Platform,
    pub bootable: bool,
    pub emulation: Emulation,
    /// Sectors: the first of 2048 bytes, their count in 512.
    pub start: u32,
    pub sectors: u16,
    /// The file of the tree that lies there.
    pub file: Option<String>,
    /// Its file system, if it is one.
    pub file_system: Option<String>,
    pub loaders: Vec<Loader>,
    /// "Press any key to boot from CD or DVD": whether it asks.
    pub asks_for_key: Option<bool>,
}

/// An EFI loader.
#[derive(Clone, Debug, Serialize)]
pub struct Loader {
    pub path: String,
    pub size: u64,
    #[serde(flatten)]
    pub pe: Pe,
}

#[derive(Clone, Debug, Serialize)]
pub struct BootConfiguration {
    pub path: String,
    pub store: Store,
}

#[derive(Clone, Debug, Serialize)]
pub struct ImageFile {
    pub path: String,
    pub size: u64,
    #[serde(flatten)]
    pub image: WindowsImage,
}

/// Whether Windows can be installed from it.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub installable: bool,
    /// Each in a sentence a user understands.
    pub why_not: Vec<String>,
    pub architecture: Option<Architecture>,
    pub build: Option<u32>,
}

pub(super) fn read(source: &Shared, descriptors: Descriptors) -> Result<Medium> {
    let mut damage = Vec::new();
    let udf = if descriptors.udf {
        match Udf::read(source) {
            Ok(udf) => Some(udf),
            Err(error) => {
                damage.push(format!("UDF: {error}"));
                None
            }
        }
    } else {
        None
    };
    let mut file_systems = Vec::new();
    let mut expected = 0;
    let mut label = String::new();
    let mut add = |name: String, own: &str, sectors: u64| {
        file_systems.push(NamedFileSystem {
            name,
            label: own.to_string(),
        });
        expected = expected.max(sectors * SECTOR);
        if !own.is_empty() {
            label = own.to_string();
        }
    };
    if let Some(volume) = &descriptors.primary {
        add(volume.name(), &volume.label, volume.sectors.into());
    }
    if let Some(volume) = &descriptors.joliet {
        add(volume.name(), &volume.label, volume.sectors.into());
    }
    if let Some(udf) = &udf {
        add(udf.name(), &udf.label, udf.sectors);
    }
    // The fullest tree: on Windows media ISO 9660 holds a note only.
    let tree: Option<&dyn FileSystem> = match (&udf, &descriptors.joliet, &descriptors.primary) {
        (Some(udf), ..) => Some(udf),
        (None, Some(volume), _) | (None, None, Some(volume)) => Some(volume),
        _ => None,
    };
    let mut medium = Medium {
        label,
        file_systems,
        expected_size: expected,
        boot: Vec::new(),
        loaders: Vec::new(),
        boot_configurations: Vec::new(),
        images: Vec::new(),
        windows: None,
        damage,
    };
    if let Some(sector) = descriptors.boot_catalog {
        match BootCatalog::read(source, sector) {
            Ok(catalog) => {
                for entry in &catalog.entries {
                    medium.boot.push(boot_image(source, tree, entry));
                }
            }
            Err(error) => medium.damage.push(error.to_string()),
        }
    }
    if let Some(tree) = tree {
        medium.read_tree(tree);
    }
    medium.windows = medium.verdict(source.size());
    Ok(medium)
}

impl Medium {
    /// Runs `read` on a file of the tree; what fails is noted, a file that is not there is not.
    fn look<T>(
        &mut self,
        tree: &dyn FileSystem,
        path: &str,
        read: impl FnOnce(&Shared) -> Result<T>,
    ) -> Option<(u64, T)> {
        let result = filesystem::open(tree, path)
            .and_then(|file| read(&file).map(|value| (file.size(), value)));
        match result {
            Ok(found) => Some(found),
            Err(Error::NotFound(_)) => None,
            Err(error) => {
                self.damage.push(format!("{path}: {error}"));
                None
            }
        }
    }

    fn read_tree(&mut self, tree: &dyn FileSystem) {
        for path in LOADERS {
            if let Some((size, pe)) = self.look(tree, path, Pe::read) {
                self.loaders.push(Loader {
                    path: path.into(),
                    size,
                    pe,
                });
            }
        }
        for path in STORES {
            let store = |file: &Shared| Store::read(&Hive::open(file.read_all(path, HIVE)?)?);
            if let Some((_, store)) = self.look(tree, path, store) {
                self.boot_configurations.push(BootConfiguration {
                    path: path.into(),
                    store,
                });
            }
        }
        for path in IMAGES {
            if let Some((size, image)) = self.look(tree, path, windows_image) {
                self.images.push(ImageFile {
                    path: path.into(),
                    size,
                    image,
                });
            }
        }
    }

    fn verdict(&self, size: u64) -> Option<Verdict> {
        let of = |prefix: &str| self.images.iter().find(|i| i.path.starts_with(prefix));
        let boot = of("sources/boot");
        let install = of("sources/install");
        let named = self
            .damage
            .iter()
            .any(|line| line.contains("sources/") || line.contains("microsoft"));
        if boot.is_none() && install.is_none() && !named {
            return None;
        }
        let mut why_not = Vec::new();
        if size < self.expected_size {
            why_not.push(format!(
                "The file is cut short: the medium has {} bytes, the file {}. Download it again.",
                self.expected_size, size
            ));
        }
        let images = install.map_or(&[][..], |i| i.image.images.as_slice());
        let architecture = images
            .iter()
            .find_map(|i| i.architecture)
            .or_else(|| boot?.image.images.iter().find_map(|i| i.architecture));
        let build = images.iter().filter_map(|i| i.build).max();
        match architecture {
            Some(Architecture::Arm64) => {}
            Some(other) => why_not.push(format!(
                "This is Windows for {other} processors; Dormer runs Windows for Arm64."
            )),
            None => why_not.push("No image says for which processor it is.".into()),
        }
        if let Some(build) = build.filter(|build| *build < FIRST_BUILD) {
            why_not.push(format!(
                "This is build {build}, older than {FIRST_BUILD}, the first that is made for processors with atomic \
                 instructions (Armv8.1). Take a newer Windows 11."
            ));
        }
        if architecture.is_none_or(|a| a == Architecture::Arm64) {
            let arm64 = |l: &Loader| l.pe.machine == Machine::Arm64;
            if !self
                .boot
                .iter()
                .any(|b| b.platform == Platform::Efi && b.bootable)
            {
                why_not.push("It has no boot image for UEFI firmware.".into());
            }
            if !self.loaders.iter().any(arm64)
                && !self.boot.iter().flat_map(|b| &b.loaders).any(arm64)
            {
                why_not.push("It has no Arm64 boot loader (efi/boot/bootaa64.efi).".into());
            }
        }
        // What is there and cannot be read is told below.
        let there = |name: &str| self.damage.iter().any(|line| line.starts_with(name));
        match boot {
            None if there("sources/boot.wim:") => {}
            None => why_not.push("sources/boot.wim, the setup program, is missing.".into()),
            Some(boot) if boot.image.boots.is_none() => {
                why_not.push("No image of sources/boot.wim is marked to boot.".into());
            }
            Some(_) => {}
        }
        match install {
            None if there("sources/install.") => {}
            None => why_not.push(
                "sources/install.wim (or install.esd), which holds Windows itself, is missing."
                    .into(),
            ),
            Some(file) if images.is_empty() => {
                why_not.push(format!("{} lists no edition.", file.path));
            }
            Some(_) => {}
        }
        for line in &self.damage {
            why_not.push(format!("Something cannot be read: {line}"));
        }
        Some(Verdict {
            installable: why_not.is_empty(),
            why_not,
            architecture,
            build,
        })
    }
}

/// Why a WIM or ESD by itself is no medium.
pub(super) fn why_no_medium(image: &WindowsImage) -> Vec<String> {
    let mut why = Vec::new();
    let setup = |name: &Option<String>| {
        name.as_deref()
            .is_some_and(|name| name.starts_with("Windows Setup Media"))
    };
    if image.solid || image.images.iter().any(|i| setup(&i.name)) {
        why.push(
            "This is an ESD download, the images that an install medium is made of: it does not boot. Take the ISO file."
                .into(),
        );
    } else {
        why.push(
            "This is a Windows image without a medium: it does not boot. Take the ISO file.".into(),
        );
    }
    match image.images.iter().find_map(|i| i.architecture) {
        Some(Architecture::Arm64) | None => {}
        Some(other) => why.push(format!(
            "It holds Windows for {other} processors; Dormer runs Windows for Arm64."
        )),
    }
    why
}

fn boot_image(source: &Shared, tree: Option<&dyn FileSystem>, entry: &BootEntry) -> BootImage {
    let mut image = BootImage {
        platform: entry.platform,
        bootable: entry.bootable,
        emulation: entry.emulation,
        start: entry.start,
        sectors: entry.sectors,
        file: None,
        file_system: None,
        loaders: Vec::new(),
        asks_for_key: None,
    };
    let start = u64::from(entry.start) * SECTOR;
    for (path, asks) in BOOT_IMAGES {
        let file = tree.and_then(|tree| filesystem::open(tree, path).ok());
        if file.and_then(|file| file.place(0)).map(|(at, _)| at) == Some(start) {
            image.file = Some(path.into());
            image.asks_for_key = Some(asks);
        }
    }
    if entry.platform != Platform::Efi || start >= source.size() {
        return image;
    }
    let contents = Extents::slice(source.clone(), start, entry.length(source.size()));
    let Ok(fat) = Fat::read(std::sync::Arc::new(contents)) else {
        return image;
    };
    image.file_system = Some(fat.name());
    for path in LOADERS {
        let Ok(file) = filesystem::open(&fat, path) else {
            continue;
        };
        let Ok(pe) = Pe::read(&file) else {
            continue;
        };
        if image.asks_for_key.is_none() {
            image.asks_for_key = asks(&file);
        }
        image.loaders.push(Loader {
            path: path.into(),
            size: file.size(),
            pe,
        });
    }
    image
}

/// Whether a loader has the text of the question in it.
fn asks(loader: &Shared) -> Option<bool> {
    let bytes = loader.read_all("a boot loader", LOADER).ok()?;
    let text = to_utf16("Press any key to boot from CD");
    Some(bytes.windows(text.len()).any(|window| window == text))
}
