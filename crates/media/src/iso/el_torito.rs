//! The boot catalog ("El Torito" Bootable CD-ROM Format Specification 1.0, chapter 2; UEFI 2.10, 13.3.2.1).

use serde::Serialize;

use super::SECTOR;
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::source::Shared;

/// Section headers beyond which a catalog counts as damaged.
const ENTRIES: usize = 64;

/// Which firmware an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    X86,
    PowerPc,
    Mac,
    Efi,
    Other(u8),
}

impl Platform {
    fn from_byte(byte: u8) -> Platform {
        match byte {
            0 => Platform::X86,
            1 => Platform::PowerPc,
            2 => Platform::Mac,
            0xEF => Platform::Efi,
            other => Platform::Other(other),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Platform::X86 => f.write_str("x86 BIOS"),
            Platform::PowerPc => f.write_str("PowerPC"),
            Platform::Mac => f.write_str("Mac"),
            Platform::Efi => f.write_str("UEFI"),
            Platform::Other(byte) => write!(f, "platform {byte:#04x}"),
        }
    }
}

/// As which kind of disk a BIOS shows the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Emulation {
    None,
    Floppy1200,
    Floppy1440,
    Floppy2880,
    HardDisk,
    Other(u8),
}

impl Emulation {
    fn from_byte(byte: u8) -> Emulation {
        match byte & 0xF {
            0 => Emulation::None,
            1 => Emulation::Floppy1200,
            2 => Emulation::Floppy1440,
            3 => Emulation::Floppy2880,
            4 => Emulation::HardDisk,
            other => Emulation::Other(other),
        }
    }
}

impl std::fmt::Display for Emulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Emulation::None => f.write_str("no emulation"),
            Emulation::Floppy1200 => f.write_str("1.2 MB floppy"),
            Emulation::Floppy1440 => f.write_str("1.44 MB floppy"),
            Emulation::Floppy2880 => f.write_str("2.88 MB floppy"),
            Emulation::HardDisk => f.write_str("hard disk"),
            Emulation::Other(byte) => write!(f, "media type {byte}"),
        }
    }
}

/// An initial or section entry.
#[derive(Clone, Debug)]
pub struct BootEntry {
    pub platform: Platform,
    pub bootable: bool,
    pub emulation: Emulation,
    /// Virtual sectors of 512 bytes; with UEFI 0 and 1 mean "to the end of the medium".
    pub sectors: u16,
    /// Sector of 2048 bytes that the image begins at.
    pub start: u32,
    /// Byte of the medium that this entry (32 bytes) lies at.
    pub at: u64,
}

impl BootEntry {
    /// Bytes of the image on a medium of `medium` bytes, by the catalog alone.
    pub fn length(&self, medium: u64) -> u64 {
        let start = u64::from(self.start) * SECTOR;
        let rest = medium.saturating_sub(start);
        match (self.platform, self.sectors) {
            (Platform::Efi, 0 | 1) => rest,
            (_, sectors) => (u64::from(sectors) * 512).min(rest),
        }
    }
}

/// All entries.
#[derive(Clone, Debug)]
pub struct BootCatalog {
    pub entries: Vec<BootEntry>,
}

impl BootCatalog {
    /// Reads the catalog that begins at `sector`.
    pub fn read(source: &Shared, sector: u32) -> Result<BootCatalog> {
        const WHAT: &str = "the El Torito boot catalog";
        let start = u64::from(sector) * SECTOR;
        let bytes = source.read_up_to(start, (SECTOR * 2) as usize)?;
        let head = bytes.span(0, 32)?;
        if head[0] != 1 || head[30..] != [0x55, 0xAA] {
            return Err(Error::damaged(WHAT, start, "no validation entry"));
        }
        let sum = head.chunks_exact(2).fold(0u16, |sum, w| {
            sum.wrapping_add(u16::from_le_bytes([w[0], w[1]]))
        });
        if sum != 0 {
            return Err(Error::damaged(WHAT, start, "its checksum is wrong"));
        }
        let mut platform = Platform::from_byte(head[1]);
        let mut entries = vec![entry(&bytes, 32, start, platform)?];
        let mut at = 64;
        while let Ok(header) = bytes.span(at, 32) {
            if !matches!(header[0], 0x90 | 0x91) || entries.len() > ENTRIES {
                break;
            }
            platform = Platform::from_byte(header[1]);
            let last = header[0] == 0x91;
            let count = header.le16(2)?;
            at += 32;
            for _ in 0..count {
                if entries.len() > ENTRIES {
                    return Err(Error::damaged(WHAT, start, "too many entries"));
                }
                entries.push(entry(&bytes, at, start, platform)?);
                // Extension records follow while the byte at 1 says so (chapter 2.5).
                let mut more = bytes.byte(at + 1)? & 1 << 5 != 0;
                at += 32;
                while more && bytes.byte(at)? == 0x44 {
                    more = bytes.byte(at + 1)? & 1 << 5 != 0;
                    at += 32;
                }
            }
            if last {
                break;
            }
        }
        Ok(BootCatalog { entries })
    }

    /// The entry that UEFI takes.
    pub fn efi(&self) -> Option<&BootEntry> {
        self.entries
            .iter()
            .find(|e| e.platform == Platform::Efi && e.bootable)
    }
}

fn entry(bytes: &[u8], at: usize, start: u64, platform: Platform) -> Result<BootEntry> {
    let entry = bytes.span(at, 32)?;
    Ok(BootEntry {
        platform,
        bootable: entry[0] == 0x88,
        emulation: Emulation::from_byte(entry[1]),
        sectors: entry.le16(6)?,
        start: entry.le32(8)?,
        at: start + at as u64,
    })
}
