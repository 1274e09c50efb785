//! Partition tables of disks: GPT (UEFI 2.10, 5.3) and MBR (5.2).

use serde::Serialize;

use crate::bcd::guid;
use crate::error::{Error, Result};
use crate::fields::{Fields, utf16_until_nul};
use crate::source::{Extents, Shared};

/// Entries of a table that are looked at; disks have 128.
const ENTRIES: u32 = 1024;

/// A partition.
#[derive(Clone, Debug, Serialize)]
pub struct Partition {
    /// Its place in the table, counted from 1.
    pub number: u32,
    /// The name that a GPT has for it.
    pub name: String,
    pub kind: String,
    /// Byte of the disk.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

impl Partition {
    /// Its bytes, as far as the disk goes.
    pub fn contents(&self, disk: &Shared) -> Result<Shared> {
        let there = disk.size().saturating_sub(self.start).min(self.size);
        if there == 0 {
            return Err(Error::Truncated {
                at: self.start,
                length: self.size,
                size: disk.size(),
            });
        }
        Ok(std::sync::Arc::new(Extents::slice(
            disk.clone(),
            self.start,
            there,
        )))
    }
}

/// The partitions of a disk; `None` if it has no table.
pub fn read(disk: &Shared) -> Result<Option<Vec<Partition>>> {
    for sector in [512, 4096] {
        let last = (disk.size() / sector).saturating_sub(1);
        for at in [1, last] {
            let head = disk.read_up_to(at * sector, 512)?;
            if head.starts_with(b"EFI PART") {
                return gpt(disk, &head, sector).map(Some);
            }
        }
    }
    let start = disk.read_up_to(0, 512)?;
    Ok(mbr(&start, disk.size()))
}

fn gpt(disk: &Shared, head: &[u8], sector: u64) -> Result<Vec<Partition>> {
    let at = head.le64(72)?.saturating_mul(sector);
    let (count, each) = (head.le32(80)?.min(ENTRIES), head.le32(84)?);
    if !(128..=4096).contains(&each) {
        return Err(Error::damaged(
            "a GUID partition table",
            at,
            format!("entries of {each} bytes"),
        ));
    }
    let mut partitions = Vec::new();
    for number in 1..=count {
        let at = at.saturating_add(u64::from(number - 1) * u64::from(each));
        let entry = disk.read_vec(at, 128)?;
        let kind: [u8; 16] = entry.array(0)?;
        if kind == [0; 16] {
            continue;
        }
        let (first, last) = (entry.le64(32)?, entry.le64(40)?);
        if last < first {
            return Err(Error::damaged(
                "a GUID partition table",
                at,
                format!("partition {number} ends before it begins"),
            ));
        }
        partitions.push(Partition {
            number,
            name: utf16_until_nul(entry.span(56, 72)?),
            kind: gpt_kind(&guid(&kind)),
            start: first.saturating_mul(sector),
            size: (last - first).saturating_add(1).saturating_mul(sector),
        });
    }
    Ok(partitions)
}

/// Primary partitions only. A boot sector of a file system has the same signature, so that every entry must make sense.
fn mbr(start: &[u8], size: u64) -> Option<Vec<Partition>> {
    if start.get(510..512)? != [0x55, 0xAA] {
        return None;
    }
    let mut partitions: Vec<Partition> = Vec::new();
    for number in 1..=4 {
        let entry = start.get(446 + 16 * (number as usize - 1)..)?.get(..16)?;
        if !matches!(entry[0], 0 | 0x80) {
            return None;
        }
        let (first, sectors) = (entry.le32(8).ok()?, entry.le32(12).ok()?);
        if entry[4] == 0 {
            continue;
        }
        if first == 0 || sectors == 0 || u64::from(first) * 512 >= size {
            return None;
        }
        partitions.push(Partition {
            number,
            name: String::new(),
            kind: mbr_kind(entry[4]),
            start: u64::from(first) * 512,
            size: u64::from(sectors) * 512,
        });
    }
    (!partitions.is_empty()).then_some(partitions)
}

fn gpt_kind(kind: &str) -> String {
    match kind {
        "{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}" => "EFI system partition".into(),
        "{e3c9e316-0b5c-4db8-817d-f92df00215ae}" => "Microsoft reserved".into(),
        "{ebd0a0a2-b9e5-4433-87c0-68b6b72699c7}" => "Windows data".into(),
        "{de94bba4-06d1-4d40-a16a-bfd50179d6ac}" => "Windows recovery".into(),
        "{0fc63daf-8483-4772-8e79-3d69d8477de4}" => "Linux data".into(),
        "{0657fd6d-a4ab-43c4-84e5-0933c84b4f4f}" => "Linux swap".into(),
        "{e6d6d379-f507-44c2-a23c-238f2a3df928}" => "Linux LVM".into(),
        "{b921b045-1df0-41c3-af44-4c6f280d3fae}" => "Linux root (AArch64)".into(),
        other => other.into(),
    }
}

fn mbr_kind(kind: u8) -> String {
    match kind {
        0x01 | 0x04 | 0x06 | 0x0B | 0x0C | 0x0E => "FAT".into(),
        0x05 | 0x0F => "extended".into(),
        0x07 => "NTFS or exFAT".into(),
        0x82 => "Linux swap".into(),
        0x83 => "Linux data".into(),
        0x8E => "Linux LVM".into(),
        0xEE => "GPT guard".into(),
        0xEF => "EFI system partition".into(),
        other => format!("type {other:#04x}"),
    }
}
