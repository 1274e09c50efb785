//! What a file is, in one report.

mod disk;
mod medium;
pub mod text;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

pub use disk::{DiskImage, container_format};
pub use medium::{BootImage, Loader, Medium, Verdict};

use crate::bcd::Store;
use crate::error::Result;
use crate::fields::Fields;
use crate::hive::Hive;
use crate::iso::Descriptors;
use crate::pe::Pe;
use crate::source::{FileSource, Shared};
use crate::wim::{Compression, ImageInformation, Wim};

/// Hives beyond this are described by their head alone.
const HIVE: u64 = 48 << 20;

/// A file's report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Bytes.
    pub size: u64,
    #[serde(flatten)]
    pub contents: Contents,
}

/// What a file is.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Contents {
    /// A disc: ISO 9660, UDF.
    Medium(Box<Medium>),
    /// WIM or ESD.
    WindowsImage(WindowsImage),
    BootConfiguration {
        store: Store,
    },
    RegistryHive {
        file_name: String,
        keys: Vec<String>,
    },
    Executable(Pe),
    DiskImage(DiskImage),
    Firmware(Firmware),
    Unknown,
}

/// A WIM or ESD file.
#[derive(Clone, Debug, Serialize)]
pub struct WindowsImage {
    pub compression: Compression,
    /// Contents are compressed together, as in ESD downloads.
    pub solid: bool,
    /// Index of the image that boots.
    pub boots: Option<u32>,
    pub images: Vec<ImageInformation>,
    /// Which of how many files, for split images.
    pub part: Option<(u16, u16)>,
    pub complete: bool,
    /// Why it cannot be installed from as it is; empty within a medium.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why_not: Vec<String>,
}

/// A firmware image of UEFI's volumes.
#[derive(Clone, Debug, Serialize)]
pub struct Firmware {
    /// It begins with A64 code.
    pub aarch64: bool,
    /// It holds variables and no code.
    pub variables: bool,
    /// Bytes up to the end of the last volume.
    pub used: u64,
}

/// Looks at a file of the host: what is the image of a disk is looked into as well.
pub fn inspect_file(path: &Path) -> Result<Report> {
    let source: Shared = Arc::new(FileSource::open(path)?);
    if Hive::probe(&source.read_up_to(0, 4)?) && source.size() <= HIVE {
        // Its logs may lie beside it.
        return Ok(Report {
            size: source.size(),
            contents: hive_contents(&Hive::open_file(path)?)?,
        });
    }
    let mut report = inspect(&source)?;
    if let Contents::DiskImage(image) = &mut report.contents {
        image.host_size = std::fs::metadata(path)
            .ok()
            .map(|data| std::os::unix::fs::MetadataExt::blocks(&data) * 512);
        if image.format != "raw" {
            match crate::place::host_file(path) {
                Ok(disk) => image.look_inside(&disk),
                Err(error) => image.damage.push(error.to_string()),
            }
        }
    }
    Ok(report)
}

/// Looks at a file. What is damaged within a medium is told in its report; an error means that nothing could be said.
pub fn inspect(source: &Shared) -> Result<Report> {
    Ok(Report {
        size: source.size(),
        contents: contents(source)?,
    })
}

fn contents(source: &Shared) -> Result<Contents> {
    let start = source.read_up_to(0, 4096)?;
    if Wim::probe(&start) {
        let mut image = windows_image(source)?;
        image.why_not = medium::why_no_medium(&image);
        return Ok(Contents::WindowsImage(image));
    }
    if Hive::probe(&start) {
        return hive(source);
    }
    if Pe::probe(&start)
        && let Ok(pe) = Pe::read(source)
    {
        return Ok(Contents::Executable(pe));
    }
    if let Some(format) = container_format(source)? {
        return Ok(Contents::DiskImage(disk::head(source, format)));
    }
    // A hybrid disc has a partition table too: it is a disc first.
    let descriptors = Descriptors::read(source)?;
    if descriptors.any() {
        return Ok(Contents::Medium(Box::new(medium::read(
            source,
            descriptors,
        )?)));
    }
    if let Some(firmware) = firmware(source)? {
        return Ok(Contents::Firmware(firmware));
    }
    Ok(match disk::raw(source)? {
        Some(disk) => Contents::DiskImage(disk),
        None => Contents::Unknown,
    })
}

/// The head and XML of a WIM: its other parts are not touched.
pub(crate) fn windows_image(source: &Shared) -> Result<WindowsImage> {
    let wim = Wim::open(source.clone())?;
    let header = &wim.header;
    Ok(WindowsImage {
        compression: header.compression,
        solid: header.version == 0xE00,
        boots: (header.boot != 0).then_some(header.boot),
        part: (header.parts > 1).then_some((header.part, header.parts)),
        complete: !header.unfinished,
        images: wim.information()?,
        why_not: Vec::new(),
    })
}

fn hive(source: &Shared) -> Result<Contents> {
    let bytes = source.read_all("this registry hive", HIVE)?;
    hive_contents(&Hive::open(bytes)?)
}

fn hive_contents(hive: &Hive) -> Result<Contents> {
    if Store::probe(hive)? {
        return Ok(Contents::BootConfiguration {
            store: Store::read(hive)?,
        });
    }
    let keys = hive.children(&hive.root()?)?;
    Ok(Contents::RegistryHive {
        file_name: hive.file_name(),
        keys: keys.into_iter().map(|key| key.name).collect(),
    })
}

/// Firmware volumes begin at multiples of 4 KiB (UEFI PI 1.8, volume 3, 3.2.1).
fn firmware(source: &Shared) -> Result<Option<Firmware>> {
    /// EFI_SYSTEM_NV_DATA_FV_GUID.
    const VARIABLES: [u8; 16] = [
        0x8D, 0x2B, 0xF1, 0xFF, 0x96, 0x76, 0x8B, 0x4C, 0xA9, 0x85, 0x27, 0x47, 0x07, 0x5B, 0x4F,
        0x50,
    ];
    let mut at = 0;
    let mut found: Option<Firmware> = None;
    let first = source.read_up_to(0, 4)?;
    // A branch over the first volume's head.
    let aarch64 = first.le32(0).is_ok_and(|word| word >> 26 == 0b00_0101);
    while at + 56 <= source.size() && at < 128 << 20 {
        let head = source.read_vec(at, 56)?;
        if head.span(40, 4)? != b"_FVH" {
            if at >= 1 << 20 && found.is_none() {
                break;
            }
            at += 4096;
            continue;
        }
        let length = head.le64(32)?;
        let variables = head.span(16, 16)? == VARIABLES;
        let firmware = found.get_or_insert(Firmware {
            aarch64,
            variables: true,
            used: 0,
        });
        firmware.variables &= variables;
        at = at.saturating_add(length.max(4096)).next_multiple_of(4096);
        firmware.used = at.min(source.size());
    }
    Ok(found)
}
