//! Disk images by their heads, and what lies on the disk.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fat::Fat;
use crate::fields::Fields;
use crate::filesystem::FileSystem;
use crate::partition::{self, Partition};
use crate::source::Shared;

/// A disk image.
#[derive(Clone, Debug, Serialize)]
pub struct DiskImage {
    pub format: &'static str,
    /// Bytes that a machine sees, where it can be told.
    pub virtual_size: Option<u64>,
    /// Bytes that the image takes on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_file: Option<String>,
    /// What the head says beyond that, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    pub partitions: Vec<Partition>,
    /// The file system of a disk without partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_system: Option<String>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<String>,
}

impl DiskImage {
    fn new(format: &'static str, virtual_size: Option<u64>) -> DiskImage {
        DiskImage {
            format,
            virtual_size,
            host_size: None,
            backing_file: None,
            details: Vec::new(),
            partitions: Vec::new(),
            file_system: None,
            damage: Vec::new(),
        }
    }

    /// Adds what lies on the disk, seen as a machine sees it.
    pub(super) fn look_inside(&mut self, disk: &Shared) {
        self.virtual_size = Some(disk.size());
        match inside(disk) {
            Ok((partitions, file_system)) => {
                self.partitions = partitions;
                self.file_system = file_system;
            }
            Err(error) => self.damage.push(error.to_string()),
        }
    }
}

/// The format of a file that is a disk in a container; `None` for anything else, raw disks among it.
pub fn container_format(source: &Shared) -> Result<Option<&'static str>> {
    let start = source.read_up_to(0, 512)?;
    let at_start: &[(&[u8], &str)] = &[
        (b"QFI\xFB", "qcow2"),
        (b"vhdxfile", "VHDX"),
        (b"KDMV", "VMDK"),
        (b"COWD", "VMDK"),
        (b"# Disk DescriptorFile", "VMDK"),
        (b"conectix", "VHD"),
    ];
    if let Some((_, format)) = at_start.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Ok(Some(format));
    }
    // A fixed VHD has its footer alone.
    if let Some(at) = source.size().checked_sub(512)
        && source.read_vec(at, 512)?.starts_with(b"conectix")
    {
        return Ok(Some("VHD"));
    }
    Ok(None)
}

/// What the head of a container says.
pub(super) fn head(source: &Shared, format: &'static str) -> DiskImage {
    let mut image = DiskImage::new(format, None);
    let read = match format {
        "qcow2" => qcow2(source, &mut image),
        "VMDK" => source.read_up_to(0, 512).map(|start| {
            if start.starts_with(b"KDMV") {
                image.virtual_size = start.le64(12).ok().and_then(|s| s.checked_mul(512));
                image.details.push("sparse".into());
            }
        }),
        "VHD" => vhd(source, &mut image),
        _ => Ok(()),
    };
    if let Err(error) = read {
        image.damage.push(error.to_string());
    }
    image
}

/// The header ("The QCOW2 Image Format", QEMU's documentation of the format).
fn qcow2(source: &Shared, image: &mut DiskImage) -> Result<()> {
    let start = source.read_up_to(0, 4096)?;
    let version = start.be32(4)?;
    image.virtual_size = Some(start.be64(24)?);
    image.details.push(format!("version {version}"));
    let bits = start.be32(20)?;
    if !(9..=21).contains(&bits) {
        return Err(Error::damaged(
            "the head of a qcow2 image",
            20,
            format!("clusters of 2^{bits} bytes"),
        ));
    }
    let cluster = super::text::size(1 << bits);
    image.details.push(format!("clusters of {cluster}"));
    let (name, length) = (start.be64(8)?, start.be32(16)?);
    if name != 0 && length != 0 {
        if length > 1023 {
            return Err(Error::damaged(
                "the head of a qcow2 image",
                16,
                format!("a backing file's name of {length} bytes"),
            ));
        }
        let bytes = source.read_vec(name, length as usize)?;
        image.backing_file = Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    match start.be32(32)? {
        0 => {}
        1 => image.details.push("encrypted (AES)".into()),
        2 => image.details.push("encrypted (LUKS)".into()),
        other => image.details.push(format!("encrypted (method {other})")),
    }
    match start.be32(60)? {
        0 => {}
        1 => image.details.push("1 snapshot".into()),
        count => image.details.push(format!("{count} snapshots")),
    }
    if version < 3 {
        return Ok(());
    }
    let (incompatible, compatible) = (start.be64(72)?, start.be64(80)?);
    let length = start.be32(100)? as usize;
    if incompatible & 1 << 3 != 0 {
        let zstd = length > 104 && start.byte(104)? == 1;
        let kind = if zstd { "zstd" } else { "unknown" };
        image.details.push(format!("compression {kind}"));
    }
    for (set, text) in [
        (
            incompatible & 1 != 0,
            "not closed cleanly: its reference counts need repair",
        ),
        (incompatible & 1 << 1 != 0, "marked as damaged"),
        (incompatible & 1 << 2 != 0, "data in a file of its own"),
        (incompatible & 1 << 4 != 0, "extended L2 entries"),
        (compatible & 1 != 0, "lazy reference counts"),
    ] {
        if set {
            image.details.push(text.into());
        }
    }
    Ok(())
}

/// The footer ("Virtual Hard Disk Image Format Specification", Microsoft).
fn vhd(source: &Shared, image: &mut DiskImage) -> Result<()> {
    let footer = source.read_vec(source.size().saturating_sub(512), 512)?;
    if !footer.starts_with(b"conectix") {
        return Err(Error::damaged(
            "the footer of a VHD",
            source.size().saturating_sub(512),
            "it is missing",
        ));
    }
    image.virtual_size = Some(footer.be64(48)?);
    image.details.push(match footer.be32(60)? {
        2 => "fixed".into(),
        3 => "dynamic".into(),
        4 => "differencing".into(),
        other => format!("type {other}"),
    });
    Ok(())
}

/// A disk as its bytes: partitions or a volume. `None` if there is neither.
pub(super) fn raw(source: &Shared) -> Result<Option<DiskImage>> {
    let (partitions, file_system) = inside(source)?;
    if partitions.is_empty() && file_system.is_none() {
        return Ok(None);
    }
    let mut image = DiskImage::new("raw", Some(source.size()));
    image.partitions = partitions;
    image.file_system = file_system;
    Ok(Some(image))
}

fn inside(disk: &Shared) -> Result<(Vec<Partition>, Option<String>)> {
    let start = disk.read_up_to(0, 512)?;
    let volume = match start.get(3..11) {
        Some(b"NTFS    ") => Some("NTFS volume".into()),
        Some(b"EXFAT   ") => Some("exFAT volume".into()),
        _ => None,
    };
    if volume.is_some() {
        return Ok((Vec::new(), volume));
    }
    if Fat::probe(&start)
        && let Ok(fat) = Fat::read(disk.clone())
    {
        let label = match fat.label.as_str() {
            "" => String::new(),
            label => format!(" \"{label}\""),
        };
        return Ok((Vec::new(), Some(format!("{} volume{label}", fat.name()))));
    }
    Ok((partition::read(disk)?.unwrap_or_default(), None))
}
