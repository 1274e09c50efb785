//! Device elements: where a loader and its files lie.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::fields::{Fields, to_utf16, utf16_until_nul};

/// Bytes of the identifier of further options, and of the head that follows it.
const OPTIONS: usize = 16;
const HEAD: usize = 16;
/// `boot` and other plain devices are this long in all.
const PLAIN: usize = 0x48;
/// Devices in devices beyond which an element counts as damaged.
const DEPTH: u32 = 4;

/// A device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Device {
    /// The object with further options: `{7619dcc8-…}` for the RAM disk of install media.
    pub options: Option<String>,
    #[serde(flatten)]
    pub kind: DeviceKind,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "device")]
pub enum DeviceKind {
    /// The device that was booted from.
    Boot,
    /// A file that is loaded into memory and taken for a disk.
    RamDisk {
        parent: String,
        path: String,
    },
    /// A file, such as a VHD.
    File {
        parent: String,
        path: String,
    },
    /// A partition by the identifiers of its disk and itself.
    Partition {
        identifier: String,
    },
    /// Wherever an element's file is found.
    Locate {
        path: String,
    },
    Other {
        number: u32,
    },
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            DeviceKind::Boot => f.write_str("boot"),
            DeviceKind::RamDisk { parent, path } => write!(f, "ramdisk=[{parent}]{path}"),
            DeviceKind::File { parent, path } => write!(f, "file=[{parent}]{path}"),
            DeviceKind::Partition { identifier } => write!(f, "partition={identifier}"),
            DeviceKind::Locate { path } => write!(f, "locate={path}"),
            DeviceKind::Other { number } => write!(f, "device of type {number}"),
        }?;
        match &self.options {
            Some(options) => write!(f, ",{options}"),
            None => Ok(()),
        }
    }
}

impl Device {
    /// The device that was booted from.
    pub fn boot() -> Device {
        Device {
            options: None,
            kind: DeviceKind::Boot,
        }
    }

    /// A RAM disk from a file of the boot device.
    pub fn ram_disk(path: &str, options: &str) -> Device {
        Device {
            options: Some(options.to_string()),
            kind: DeviceKind::RamDisk {
                parent: "boot".into(),
                path: path.to_string(),
            },
        }
    }

    /// Reads an element's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Device> {
        let options: [u8; OPTIONS] = bytes.array(0)?;
        Ok(Device {
            options: (options != [0; OPTIONS]).then(|| guid(&options)),
            kind: parse(bytes.span(OPTIONS, bytes.len() - OPTIONS)?, 0)?,
        })
    }

    /// The element's bytes. A partition's are not kept and become "boot".
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self
            .options
            .as_deref()
            .and_then(parse_guid)
            .unwrap_or_default()
            .to_vec();
        match &self.kind {
            DeviceKind::RamDisk { path, .. } => {
                let mut body = Vec::new();
                body.extend(3u32.to_le_bytes());
                // Base, size and offset are for RAM disks in memory already.
                body.extend([0; 20]);
                body.extend(file_path(path));
                bytes.extend(head(0, 1, body.len()));
                bytes.extend(body);
            }
            DeviceKind::File { path, .. } => {
                let mut body = Vec::new();
                body.extend(5u32.to_le_bytes());
                body.extend(file_path(path));
                bytes.extend(head(0, 0, body.len()));
                bytes.extend(body);
            }
            _ => bytes.extend(boot()),
        }
        bytes
    }
}

fn head(kind: u32, flags: u32, body: usize) -> Vec<u8> {
    [kind, flags, (HEAD + body) as u32, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn boot() -> Vec<u8> {
    let mut bytes = head(5, 0, PLAIN - HEAD);
    bytes.resize(PLAIN, 0);
    bytes
}

/// A path with the device it lies on before it: version 1, length, kind 5.
fn file_path(path: &str) -> Vec<u8> {
    let mut inside = boot();
    inside.extend(to_utf16(path));
    inside.extend([0, 0]);
    let mut bytes: Vec<u8> = [1, 12 + inside.len() as u32, 5]
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect();
    bytes.extend(inside);
    bytes
}

fn parse(bytes: &[u8], depth: u32) -> Result<DeviceKind> {
    if depth > DEPTH {
        return Err(Error::damaged(
            "a device of a boot configuration",
            0,
            "it contains itself",
        ));
    }
    let number = bytes.le32(0)?;
    let length = (bytes.le32(8)? as usize).clamp(HEAD, bytes.len().max(HEAD));
    let body = bytes.span(HEAD, length - HEAD)?;
    Ok(match number {
        0 => match body.le32(0)? {
            3 => {
                let (parent, path) = path(body.get(24..).unwrap_or_default(), depth)
                    .or_else(|_| loose_path(body))?;
                DeviceKind::RamDisk { parent, path }
            }
            5 => {
                let (parent, path) =
                    path(body.get(4..).unwrap_or_default(), depth).or_else(|_| loose_path(body))?;
                DeviceKind::File { parent, path }
            }
            other => DeviceKind::Other { number: other },
        },
        5 => DeviceKind::Boot,
        2 | 6 => DeviceKind::Partition {
            identifier: body
                .array::<16>(0)
                .map_or_else(|_| crate::hex(body), |id| guid(&id)),
        },
        8 => {
            let (_, path) = loose_path(body).unwrap_or_default();
            DeviceKind::Locate { path }
        }
        other => DeviceKind::Other { number: other },
    })
}

/// A path structure as [`file_path`] writes it.
fn path(bytes: &[u8], depth: u32) -> Result<(String, String)> {
    let (version, length) = (bytes.le32(0)?, bytes.le32(4)? as usize);
    if version != 1 || length < 12 {
        return Err(Error::damaged(
            "a path of a boot configuration",
            0,
            "it is of another kind",
        ));
    }
    let inside = bytes.span(12, length - 12)?;
    let device = inside.le32(8)? as usize;
    let parent = Device {
        options: None,
        kind: parse(inside.span(0, device)?, depth + 1)?,
    };
    let text = utf16_until_nul(inside.get(device..).unwrap_or_default());
    Ok((parent.to_string(), text))
}

/// The last text in `bytes` that begins with a backslash, whatever is before it.
fn loose_path(bytes: &[u8]) -> Result<(String, String)> {
    let start = bytes
        .chunks_exact(2)
        .position(|pair| pair == [b'\\', 0])
        .ok_or_else(|| Error::damaged("a path of a boot configuration", 0, "there is none"))?;
    let text = utf16_until_nul(&bytes[start * 2..]);
    Ok(("?".into(), text))
}

/// A GUID as Windows prints it; its first three fields are little-endian.
pub(crate) fn guid(bytes: &[u8; 16]) -> String {
    let hex = crate::hex;
    let swapped = |range: std::ops::Range<usize>| {
        let mut part = bytes[range].to_vec();
        part.reverse();
        hex(&part)
    };
    format!(
        "{{{}-{}-{}-{}-{}}}",
        swapped(0..4),
        swapped(4..6),
        swapped(6..8),
        hex(&bytes[8..10]),
        hex(&bytes[10..])
    )
}

/// The bytes of a GUID's text.
pub(crate) fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    if digits.len() != 32 {
        return None;
    }
    let number = u128::from_str_radix(&digits, 16).ok()?;
    let mut bytes = number.to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}
