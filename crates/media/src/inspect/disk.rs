//! Disk images by their heads, and the partitions of raw ones.

use serde::Serialize;

use crate::bcd::guid;
use crate::error::Result;
use crate::fat::Fat;
use crate::fields::{Fields, utf16_until_nul};
use crate::filesystem::FileSystem;
use crate::source::Shared;

/// A disk image.
#[derive(Clone, Debug, Serialize)]
pub struct DiskImage {
    pub format: &'static str,
    /// Bytes that a machine sees, where the head says.
    pub virtual_size: Option<u64>,
    pub backing_file: Option<String>,
    pub partitions: Vec<Partition>,
}

/// A partition of a GPT, or a volume without partitions.
#[derive(Clone, Debug, Serialize)]
pub struct Partition {
    pub name: String,
    pub kind: String,
    /// Bytes.
    pub start: u64,
    pub size: u64,
}

pub(super) fn read(source: &Shared, start: &[u8]) -> Result<Option<DiskImage>> {
    let image = |format, virtual_size| {
        Ok(Some(DiskImage {
            format,
            virtual_size,
            backing_file: None,
            partitions: Vec::new(),
        }))
    };
    if start.starts_with(b"QFI\xFB") {
        let (name, length) = (start.be64(8)?, start.be32(16)?);
        let backing_file = if name != 0 && length <= 1023 {
            let bytes = source.read_vec(name, length as usize)?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        } else {
            None
        };
        return Ok(Some(DiskImage {
            format: "qcow2",
            virtual_size: Some(start.be64(24)?),
            backing_file,
            partitions: Vec::new(),
        }));
    }
    if start.starts_with(b"vhdxfile") {
        return image("VHDX", None);
    }
    if start.starts_with(b"KDMV") {
        return image("VMDK", start.le64(12)?.checked_mul(512));
    }
    if start.starts_with(b"# Disk DescriptorFile") {
        return image("VMDK (descriptor)", None);
    }
    if let Some(at) = source.size().checked_sub(512)
        && let Ok(footer) = source.read_vec(at, 512)
        && footer.starts_with(b"conectix")
    {
        return image("VHD", Some(footer.be64(48)?));
    }
    if Fat::probe(start)
        && let Ok(fat) = Fat::read(source.clone())
    {
        let partition = Partition {
            name: fat.label.clone(),
            kind: format!("{} volume", fat.name()),
            start: 0,
            size: fat.size,
        };
        return Ok(Some(DiskImage {
            format: "raw",
            virtual_size: Some(source.size()),
            backing_file: None,
            partitions: vec![partition],
        }));
    }
    let Some(partitions) = gpt(source)? else {
        return Ok(None);
    };
    Ok(Some(DiskImage {
        format: "raw",
        virtual_size: Some(source.size()),
        backing_file: None,
        partitions,
    }))
}

/// The GUID partition table (UEFI 2.10, 5.3), of disks with sectors of 512 or 4096 bytes.
fn gpt(source: &Shared) -> Result<Option<Vec<Partition>>> {
    for sector in [512, 4096] {
        let head = source.read_up_to(sector, 512)?;
        if !head.starts_with(b"EFI PART") {
            continue;
        }
        let at = head.le64(72)?.saturating_mul(sector);
        let (count, each) = (head.le32(80)?.min(1024), head.le32(84)?.clamp(128, 4096));
        let mut partitions = Vec::new();
        for index in 0..u64::from(count) {
            let Ok(entry) = source.read_vec(at.saturating_add(index * u64::from(each)), 128) else {
                break;
            };
            let kind: [u8; 16] = entry.array(0)?;
            if kind == [0; 16] {
                continue;
            }
            let (first, last) = (entry.le64(32)?, entry.le64(40)?);
            partitions.push(Partition {
                name: utf16_until_nul(entry.span(56, 72)?),
                kind: kind_name(&guid(&kind)),
                start: first.saturating_mul(sector),
                size: (last.saturating_sub(first).saturating_add(1)).saturating_mul(sector),
            });
        }
        return Ok(Some(partitions));
    }
    Ok(None)
}

fn kind_name(kind: &str) -> String {
    match kind {
        "{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}" => "EFI system partition".into(),
        "{e3c9e316-0b5c-4db8-817d-f92df00215ae}" => "Microsoft reserved".into(),
        "{ebd0a0a2-b9e5-4433-87c0-68b6b72699c7}" => "Windows data".into(),
        "{de94bba4-06d1-4d40-a16a-bfd50179d6ac}" => "Windows recovery".into(),
        "{0fc63daf-8483-4772-8e79-3d69d8477de4}" => "Linux data".into(),
        other => other.into(),
    }
}
