//! Reports in words, and sizes.

use std::fmt::{self, Display, Formatter};

use super::{BootImage, Contents, DiskImage, Loader, Medium, Report, WindowsImage};
use crate::bcd::Store;

/// Bytes as people say them.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let bytes = size(self.size);
        match &self.contents {
            Contents::Medium(medium) => medium_text(f, medium, &bytes),
            Contents::WindowsImage(image) => {
                let kind = if image.solid { "ESD" } else { "WIM" };
                writeln!(f, "Windows image ({kind}), {bytes}")?;
                image_text(f, image, "  ")?;
                for why in &image.why_not {
                    writeln!(f, "Dormer cannot install from it: {why}")?;
                }
                Ok(())
            }
            Contents::BootConfiguration { store } => {
                writeln!(f, "Boot configuration (BCD store), {bytes}")?;
                store_text(f, store, "  ")
            }
            Contents::RegistryHive { file_name, keys } => {
                writeln!(f, "Registry hive, {bytes}")?;
                if !file_name.is_empty() {
                    writeln!(f, "  file name  {file_name}")?;
                }
                writeln!(f, "  keys       {}", keys.join(", "))
            }
            Contents::Executable(pe) => {
                let kind = if pe.is_efi() {
                    "EFI executable"
                } else {
                    "Executable"
                };
                writeln!(f, "{kind}, {bytes}")?;
                writeln!(
                    f,
                    "  {} for {}{}",
                    pe.subsystem_name(),
                    pe.machine,
                    signed(pe.signed)
                )?;
                for (name, value) in [
                    ("version", &pe.file_version),
                    ("description", &pe.description),
                    ("product", &pe.product),
                ] {
                    if let Some(value) = value {
                        writeln!(f, "  {name:<12}{value}")?;
                    }
                }
                Ok(())
            }
            Contents::DiskImage(disk) => disk_text(f, disk, &bytes),
            Contents::Firmware(firmware) => {
                let kind = match (firmware.variables, firmware.aarch64) {
                    (true, _) => "UEFI variables",
                    (false, true) => "UEFI firmware for AArch64",
                    (false, false) => "UEFI firmware",
                };
                writeln!(f, "{kind}, {bytes} ({} used)", size(firmware.used))
            }
            Contents::Unknown if self.size == 0 => writeln!(f, "An empty file"),
            Contents::Unknown => writeln!(
                f,
                "Unknown, {bytes}: no install medium, Windows image, registry hive, disk image, firmware or executable that \
                 Dormer knows"
            ),
        }
    }
}

fn disk_text(f: &mut Formatter<'_>, disk: &DiskImage, bytes: &str) -> fmt::Result {
    writeln!(f, "Disk image ({}), {bytes}", disk.format)?;
    if let Some(virtual_size) = disk.virtual_size {
        writeln!(f, "  a machine sees  {}", size(virtual_size))?;
    }
    if let Some(host_size) = disk.host_size {
        writeln!(f, "  on this host    {}", size(host_size))?;
    }
    if let Some(backing) = &disk.backing_file {
        writeln!(f, "  stands on       {backing}")?;
    }
    if !disk.details.is_empty() {
        writeln!(f, "  format          {}", disk.details.join(", "))?;
    }
    if let Some(system) = &disk.file_system {
        writeln!(f, "  holds           {system}")?;
    }
    for partition in &disk.partitions {
        writeln!(
            f,
            "  #{:<3} {:>12} at {:<12} {}{}{}",
            partition.number,
            size(partition.size),
            size(partition.start),
            partition.kind,
            if partition.name.is_empty() { "" } else { ", " },
            partition.name
        )?;
    }
    for line in &disk.damage {
        writeln!(f, "  cannot be read: {line}")?;
    }
    Ok(())
}

fn signed(signed: bool) -> &'static str {
    if signed { ", signed" } else { "" }
}

fn medium_text(f: &mut Formatter<'_>, medium: &Medium, bytes: &str) -> fmt::Result {
    let what = if medium.windows.is_some() {
        "Windows install medium"
    } else {
        "Disc image"
    };
    writeln!(f, "{what}, {bytes}")?;
    writeln!(f, "  label         {}", medium.label)?;
    let systems: Vec<&str> = medium
        .file_systems
        .iter()
        .map(|s| s.name.as_str())
        .collect();
    writeln!(f, "  file systems  {}", systems.join(", "))?;
    if let Some(verdict) = &medium.windows {
        if verdict.installable {
            writeln!(f, "  Dormer can install it.")?;
        } else {
            writeln!(f, "  Dormer cannot install it:")?;
            for why in &verdict.why_not {
                writeln!(f, "  - {why}")?;
            }
        }
    }
    if !medium.boot.is_empty() {
        writeln!(f, "\nWhat boots (El Torito)")?;
        for image in &medium.boot {
            boot_text(f, image)?;
        }
    }
    if !medium.loaders.is_empty() {
        writeln!(f, "\nLoaders")?;
        for loader in &medium.loaders {
            loader_text(f, loader, "  ")?;
        }
    }
    for configuration in &medium.boot_configurations {
        writeln!(f, "\nBoot configuration {}", configuration.path)?;
        store_text(f, &configuration.store, "  ")?;
    }
    for file in &medium.images {
        writeln!(f, "\n{}, {}", file.path, size(file.size))?;
        image_text(f, &file.image, "  ")?;
    }
    if medium.windows.is_none() {
        for line in &medium.damage {
            writeln!(f, "\nCannot be read: {line}")?;
        }
    }
    Ok(())
}

fn boot_text(f: &mut Formatter<'_>, image: &BootImage) -> fmt::Result {
    write!(
        f,
        "  {}, {}, sector {}",
        image.platform, image.emulation, image.start
    )?;
    if let Some(file) = &image.file {
        write!(f, " ({file})")?;
    }
    if let Some(system) = &image.file_system {
        write!(f, ", {system}")?;
    }
    if !image.bootable {
        write!(f, ", not bootable")?;
    }
    writeln!(
        f,
        "{}",
        match image.asks_for_key {
            Some(true) => ", asks for a key",
            Some(false) => ", asks for no key",
            None => "",
        }
    )?;
    for loader in &image.loaders {
        loader_text(f, loader, "    ")?;
    }
    Ok(())
}

fn loader_text(f: &mut Formatter<'_>, loader: &Loader, indent: &str) -> fmt::Result {
    let version = loader
        .pe
        .file_version
        .as_deref()
        .map(|v| format!(", version {v}"))
        .unwrap_or_default();
    writeln!(
        f,
        "{indent}{}  {}, {}{version}{}",
        loader.path,
        loader.pe.machine,
        size(loader.size),
        signed(loader.pe.signed)
    )
}

fn store_text(f: &mut Formatter<'_>, store: &Store, indent: &str) -> fmt::Result {
    for object in &store.objects {
        writeln!(
            f,
            "{indent}{} {}",
            object.kind_name,
            object.alias.unwrap_or(&object.id)
        )?;
        for element in &object.elements {
            writeln!(f, "{indent}  {:<22} {}", element.name, element.value)?;
        }
    }
    Ok(())
}

fn image_text(f: &mut Formatter<'_>, image: &WindowsImage, indent: &str) -> fmt::Result {
    let solid = if image.solid { ", solid" } else { "" };
    writeln!(f, "{indent}compression {}{solid}", image.compression)?;
    if let Some((part, parts)) = image.part {
        writeln!(f, "{indent}part {part} of {parts}")?;
    }
    if !image.complete {
        writeln!(f, "{indent}it was not completed")?;
    }
    for one in &image.images {
        let mut line = format!(
            "{}. {}",
            one.index,
            one.display_name
                .as_deref()
                .or(one.name.as_deref())
                .unwrap_or("(no name)")
        );
        if let Some(edition) = &one.edition {
            line += &format!(", {edition}");
        }
        if let Some(architecture) = one.architecture {
            line += &format!(", {architecture}");
        }
        if let Some(build) = one.build {
            line += &format!(", build {build}");
            if let Some(revision) = one.revision {
                line += &format!(".{revision}");
            }
        }
        if !one.languages.is_empty() {
            line += &format!(", {}", one.languages.join(" "));
        }
        if let Some(bytes) = one.bytes {
            line += &format!(", {}", size(bytes));
        }
        if image.boots == Some(one.index) {
            line += " (boots)";
        }
        writeln!(f, "{indent}{line}")?;
    }
    Ok(())
}
