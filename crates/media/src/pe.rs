//! PE images: which processor and system they are for, and their version ("PE Format", Microsoft).

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fields::{Fields, to_utf16, utf16_until_nul};
use crate::source::Shared;

const WHAT: &str = "a PE image";
/// Resource data beyond which no version is looked for.
const RESOURCE: u32 = 1 << 20;

/// `IMAGE_FILE_MACHINE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    Arm64,
    X64,
    X86,
    Arm,
    Riscv64,
    LoongArch64,
    EfiByteCode,
    Other(u16),
}

impl Machine {
    fn from_number(number: u16) -> Machine {
        match number {
            // Arm64EC and Arm64X images name other numbers only inside.
            0xAA64 => Machine::Arm64,
            0x8664 => Machine::X64,
            0x014C => Machine::X86,
            0x01C0 | 0x01C2 | 0x01C4 => Machine::Arm,
            0x5064 => Machine::Riscv64,
            0x6264 => Machine::LoongArch64,
            0x0EBC => Machine::EfiByteCode,
            other => Machine::Other(other),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Machine::Arm64 => f.write_str("Arm64"),
            Machine::X64 => f.write_str("x64"),
            Machine::X86 => f.write_str("x86"),
            Machine::Arm => f.write_str("Arm (32 bit)"),
            Machine::Riscv64 => f.write_str("RISC-V (64 bit)"),
            Machine::LoongArch64 => f.write_str("LoongArch (64 bit)"),
            Machine::EfiByteCode => f.write_str("EFI byte code"),
            Machine::Other(number) => write!(f, "machine {number:#06x}"),
        }
    }
}

/// What a PE image says about itself.
#[derive(Clone, Debug, Serialize)]
pub struct Pe {
    pub machine: Machine,
    /// `IMAGE_SUBSYSTEM_*`.
    pub subsystem: u16,
    /// An Authenticode signature is attached.
    pub signed: bool,
    /// The fixed file version.
    pub file_version: Option<String>,
    /// `FileDescription`, `ProductName`.
    pub description: Option<String>,
    pub product: Option<String>,
}

struct Section {
    address: u32,
    size: u32,
    at: u32,
}

impl Pe {
    /// Whether a file begins like one.
    pub fn probe(start: &[u8]) -> bool {
        start.starts_with(b"MZ")
    }

    /// Reads the headers and the version resource.
    pub fn read(source: &Shared) -> Result<Pe> {
        let dos = source.read_vec(0, 64)?;
        if !Self::probe(&dos) {
            return Err(Error::damaged(WHAT, 0, "it does not begin with MZ"));
        }
        let at = u64::from(dos.le32(60)?);
        let coff = source.read_vec(at, 24)?;
        if &coff[..4] != b"PE\0\0" {
            return Err(Error::damaged(WHAT, at, "no PE header"));
        }
        let optional_length = usize::from(coff.le16(20)?);
        let optional = source.read_vec(at + 24, optional_length)?;
        let directories = match optional.le16(0)? {
            0x10B => 96,
            0x20B => 112,
            magic => {
                return Err(Error::damaged(
                    WHAT,
                    at + 24,
                    format!("an optional header of kind {magic:#x}"),
                ));
            }
        };
        let count = optional.le32(directories - 4)? as usize;
        let directory = |index: usize| -> (u32, u32) {
            if index >= count {
                return (0, 0);
            }
            let at = directories + index * 8;
            (
                optional.le32(at).unwrap_or(0),
                optional.le32(at + 4).unwrap_or(0),
            )
        };
        let mut pe = Pe {
            machine: Machine::from_number(coff.le16(4)?),
            subsystem: optional.le16(68)?,
            signed: directory(4).1 != 0,
            file_version: None,
            description: None,
            product: None,
        };
        let sections = source.read_vec(
            at + 24 + optional_length as u64,
            usize::from(coff.le16(6)?) * 40,
        )?;
        let sections: Vec<Section> = sections
            .chunks_exact(40)
            .map(|s| {
                Ok(Section {
                    size: s.le32(16)?,
                    address: s.le32(12)?,
                    at: s.le32(20)?,
                })
            })
            .collect::<Result<_>>()?;
        let (resources, size) = directory(2);
        if resources != 0 && size != 0 {
            // A damaged version does not make the image unreadable.
            if let Ok(Some(version)) = version_resource(source, &sections, resources) {
                pe.read_version(&version);
            }
        }
        Ok(pe)
    }

    fn read_version(&mut self, version: &[u8]) {
        // VS_FIXEDFILEINFO by its signature; strings by their keys.
        if let Some(at) = find(version, &0xFEEF_04BDu32.to_le_bytes())
            && let (Ok(high), Ok(low)) = (version.le32(at + 8), version.le32(at + 12))
        {
            self.file_version = Some(format!(
                "{}.{}.{}.{}",
                high >> 16,
                high & 0xFFFF,
                low >> 16,
                low & 0xFFFF
            ));
        }
        self.description = string(version, "FileDescription");
        self.product = string(version, "ProductName");
    }

    /// Whether UEFI runs it: `IMAGE_SUBSYSTEM_EFI_APPLICATION` to `EFI_ROM`, and Windows' own loaders.
    pub fn is_efi(&self) -> bool {
        matches!(self.subsystem, 10..=13 | 16)
    }

    /// The subsystem in words.
    pub fn subsystem_name(&self) -> &'static str {
        match self.subsystem {
            1 => "driver or native program",
            2 => "Windows program",
            3 => "console program",
            10 => "EFI application",
            11 => "EFI boot service driver",
            12 => "EFI runtime driver",
            13 => "EFI ROM image",
            16 => "Windows boot application",
            _ => "program",
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The value of a key of a string table.
fn string(version: &[u8], key: &str) -> Option<String> {
    let mut wanted = to_utf16(key);
    wanted.extend([0, 0]);
    let after = find(version, &wanted)? + wanted.len();
    // Values begin at a multiple of 4; the block did too.
    let rest = version.get(after..)?;
    let skip = rest
        .chunks_exact(2)
        .take_while(|pair| *pair == [0, 0])
        .count()
        * 2;
    let text = utf16_until_nul(rest.get(skip..)?.get(..512).unwrap_or(&rest[skip..]));
    (skip <= 2 && !text.is_empty()).then_some(text)
}

/// The first `RT_VERSION` resource.
fn version_resource(
    source: &Shared,
    sections: &[Section],
    directory: u32,
) -> Result<Option<Vec<u8>>> {
    const VERSION: u32 = 16;
    let place = |address: u32| -> Option<u64> {
        let section = sections
            .iter()
            .find(|s| address >= s.address && address - s.address < s.size)?;
        Some(u64::from(section.at) + u64::from(address - section.address))
    };
    let Some(base) = place(directory) else {
        return Ok(None);
    };
    // Type, name, language: three levels; of the lower two the first entry is taken.
    let mut at = base;
    for level in 0..3 {
        let head = source.read_vec(at, 16)?;
        let entries = usize::from(head.le16(12)?) + usize::from(head.le16(14)?);
        let entries = source.read_vec(at + 16, entries * 8)?;
        let mut found = None;
        for entry in entries.chunks_exact(8) {
            if level > 0 || entry.le32(0)? == VERSION {
                found = Some(entry.le32(4)?);
                break;
            }
        }
        let Some(offset) = found else {
            return Ok(None);
        };
        at = base + u64::from(offset & 0x7FFF_FFFF);
        if offset >> 31 == 0 {
            break;
        }
    }
    let data = source.read_vec(at, 16)?;
    let (address, size) = (data.le32(0)?, data.le32(4)?);
    match place(address) {
        Some(at) if size <= RESOURCE => Ok(Some(source.read_vec(at, size as usize)?)),
        _ => Ok(None),
    }
}
