//! ISO 9660 (ECMA-119) with Joliet: volume descriptors, folders, files of several extents.

mod el_torito;
mod rock_ridge;

pub use el_torito::{BootCatalog, BootEntry, Emulation, Platform};

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::filesystem::{Entry, FileSystem, Kind, Node};
use crate::source::{Extents, Run, Shared};

/// Bytes of a sector of every optical medium.
pub const SECTOR: u64 = 2048;
/// The first volume descriptor (ECMA-119 6.2.1).
const FIRST_DESCRIPTOR: u64 = 16;
/// Descriptors beyond which a sequence without its terminator counts as damaged.
const DESCRIPTORS: u64 = 64;
/// Bytes of a folder beyond which it counts as damaged.
const FOLDER: u64 = 16 << 20;

/// A volume of one set of names: the primary one, or Joliet's.
pub struct Volume {
    source: Shared,
    pub label: String,
    pub joliet: bool,
    /// It has the names of POSIX systems (IEEE P1282).
    pub rock_ridge: bool,
    /// Bytes before the first entry of a system use area (IEEE P1281 5.3).
    skip: usize,
    /// Sectors that the volume says it has.
    pub sectors: u32,
    /// Of the descriptor's root record.
    root: u64,
    block: u64,
}

/// The volume descriptors of a medium.
pub struct Descriptors {
    pub primary: Option<Volume>,
    pub joliet: Option<Volume>,
    /// Sector of the boot catalog, if there is an El Torito boot record.
    pub boot_catalog: Option<u32>,
    /// Byte of the boot record's catalog pointer.
    pub boot_record: Option<u64>,
    /// There are `NSR02` or `NSR03` descriptors: the medium has UDF.
    pub udf: bool,
}

impl Descriptors {
    /// Reads the volume recognition area.
    pub fn read(source: &Shared) -> Result<Descriptors> {
        let mut found = Descriptors {
            primary: None,
            joliet: None,
            boot_catalog: None,
            boot_record: None,
            udf: false,
        };
        for sector in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + DESCRIPTORS {
            let at = sector * SECTOR;
            if at + SECTOR > source.size() {
                break;
            }
            let bytes = source.read_vec(at, SECTOR as usize)?;
            match bytes.span(1, 5)? {
                b"CD001" => match bytes[0] {
                    0 if bytes.span(7, 23)? == b"EL TORITO SPECIFICATION" => {
                        found.boot_catalog = Some(bytes.le32(71)?);
                        found.boot_record = Some(at + 71);
                    }
                    1 if found.primary.is_none() => {
                        found.primary = Some(Volume::read(source, at, &bytes, false)?);
                    }
                    2 if found.joliet.is_none()
                        && matches!(bytes.span(88, 3)?, b"%/@" | b"%/C" | b"%/E") =>
                    {
                        found.joliet = Some(Volume::read(source, at, &bytes, true)?);
                    }
                    _ => {}
                },
                b"NSR02" | b"NSR03" => found.udf = true,
                b"BEA01" | b"TEA01" | b"BOOT2" => {}
                _ => break,
            }
        }
        Ok(found)
    }

    /// Whether there was anything.
    pub fn any(&self) -> bool {
        self.primary.is_some() || self.joliet.is_some() || self.udf
    }
}

impl Volume {
    fn read(source: &Shared, at: u64, bytes: &[u8], joliet: bool) -> Result<Volume> {
        let block = u64::from(bytes.le16(128)?);
        if block != SECTOR {
            return Err(Error::Unsupported(format!(
                "an ISO 9660 volume with logical blocks of {block} bytes"
            )));
        }
        let mut volume = Volume {
            source: source.clone(),
            rock_ridge: false,
            skip: 0,
            label: text(bytes.span(40, 32)?, joliet)
                .trim_end_matches([' ', '\0'])
                .to_string(),
            joliet,
            sectors: bytes.le32(80)?,
            root: at + 156,
            block,
        };
        if !joliet {
            volume.look_for_rock_ridge();
        }
        Ok(volume)
    }

    /// The first record of the top folder has the mark (IEEE P1281 5.3); a volume that cannot be read has none.
    fn look_for_rock_ridge(&mut self) {
        let Ok((root, _)) = self.record(self.root) else {
            return;
        };
        let at = u64::from(root.extent) * self.block;
        let Ok(length) = self.source.read_vec(at, 1) else {
            return;
        };
        let Ok(bytes) = self.source.read_vec(at, length[0].into()) else {
            return;
        };
        if let Some(skip) = bytes.get(34..).and_then(rock_ridge::mark) {
            self.rock_ridge = true;
            self.skip = skip;
        }
    }

    /// The record of a folder or file, and those that continue it (ECMA-119 6.5.1, "multi-extent").
    fn record(&self, at: u64) -> Result<(Record, Vec<Run>)> {
        let mut runs = Vec::new();
        let mut at = at;
        let mut first: Option<Record> = None;
        let mut total = 0u64;
        loop {
            let length = usize::from(self.source.read_vec(at, 1)?[0]);
            if length < 34 {
                return Err(Error::damaged(
                    "a directory record of ISO 9660",
                    at,
                    format!("its length is {length}"),
                ));
            }
            let bytes = self.source.read_vec(at, length)?;
            let record = Record::parse(&bytes, at)?;
            runs.push(Run {
                at: Some(u64::from(record.extent) * self.block),
                length: u64::from(record.length),
            });
            total += u64::from(record.length);
            let more = record.flags & MULTI_EXTENT != 0;
            let head = first.get_or_insert(record);
            if !more {
                head.total = total;
                break;
            }
            at += length as u64;
            // A record never straddles sectors; the rest of a sector is zero.
            if at.is_multiple_of(SECTOR) || self.source.read_vec(at, 1)?[0] == 0 {
                at = at.div_ceil(SECTOR) * SECTOR;
            }
            if runs.len() > 1 << 16 {
                return Err(Error::damaged(
                    "a file of ISO 9660",
                    at,
                    "its extents have no end",
                ));
            }
        }
        let first = first.ok_or_else(|| Error::damaged("a file of ISO 9660", at, "no record"))?;
        Ok((first, runs))
    }
}

/// File flags (ECMA-119 9.1.6).
const DIRECTORY: u8 = 1 << 1;
const MULTI_EXTENT: u8 = 1 << 7;

/// A directory record (ECMA-119 9.1).
struct Record {
    extent: u32,
    length: u32,
    flags: u8,
    name: Vec<u8>,
    modified: Option<i64>,
    total: u64,
    /// What follows the name.
    system_use: Vec<u8>,
}

impl Record {
    fn parse(bytes: &[u8], at: u64) -> Result<Record> {
        let name_length = usize::from(bytes.byte(32)?);
        let name = bytes.span(33, name_length).map_err(|_| {
            Error::damaged(
                "a directory record of ISO 9660",
                at,
                "its name is longer than the record",
            )
        })?;
        let system_use = (33 + name_length).next_multiple_of(2);
        Ok(Record {
            extent: bytes.le32(2)?,
            length: bytes.le32(10)?,
            flags: bytes.byte(25)?,
            name: name.to_vec(),
            modified: time(bytes.span(18, 7)?),
            total: 0,
            system_use: bytes.get(system_use..).unwrap_or_default().to_vec(),
        })
    }
}

impl FileSystem for Volume {
    fn name(&self) -> String {
        if self.joliet { "Joliet" } else { "ISO 9660" }.into()
    }

    fn root(&self) -> Node {
        Node(self.root)
    }

    fn list(&self, folder: Node) -> Result<Vec<Entry>> {
        let (record, runs) = self.record(folder.0)?;
        if record.flags & DIRECTORY == 0 {
            return Err(Error::damaged(
                "a folder of ISO 9660",
                folder.0,
                "it is a file",
            ));
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut continued = false;
        if record.total > FOLDER {
            return Err(Error::damaged(
                "a folder of ISO 9660",
                folder.0,
                format!("it claims {} bytes", record.total),
            ));
        }
        for run in runs {
            let start = run.at.unwrap_or_default();
            let bytes = self.source.read_vec(start, run.length as usize)?;
            let mut at = 0;
            while at < bytes.len() {
                let length = usize::from(bytes[at]);
                if length == 0 {
                    at = (at + 1).next_multiple_of(SECTOR as usize);
                    continue;
                }
                if length < 34 {
                    return Err(Error::damaged(
                        "a directory record of ISO 9660",
                        start + at as u64,
                        format!("its length is {length}"),
                    ));
                }
                let record = Record::parse(bytes.span(at, length)?, start + at as u64)?;
                let node = Node(start + at as u64);
                at += length;
                let more = record.flags & MULTI_EXTENT != 0;
                if std::mem::replace(&mut continued, more) {
                    if let Some(last) = entries.last_mut() {
                        last.size = last.size.saturating_add(record.length.into());
                    }
                    continue;
                }
                if matches!(record.name[..], [0] | [1]) {
                    continue;
                }
                let extra = self.rock_ridge(&record)?;
                if extra.relocated {
                    continue;
                }
                let name = extra
                    .name
                    .unwrap_or_else(|| plain_name(&text(&record.name, self.joliet)));
                check_name(&name, node.0)?;
                let directory = record.flags & DIRECTORY != 0;
                let mut entry = Entry::plain(name, directory, record.length.into(), node);
                if let Some(sector) = extra.child {
                    // The folder lies elsewhere; its own first record is as good as this one.
                    entry = Entry::plain(entry.name, true, 0, Node(u64::from(sector) * SECTOR));
                }
                if extra.link.is_some() {
                    entry.kind = Kind::Link;
                }
                entry.modified = record.modified;
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn open(&self, file: Node) -> Result<Shared> {
        let (record, runs) = self.record(file.0)?;
        Ok(std::sync::Arc::new(Extents::new(
            self.source.clone(),
            runs,
            record.total,
        )?))
    }

    fn link(&self, file: Node) -> Result<Option<String>> {
        let (record, _) = self.record(file.0)?;
        Ok(self.rock_ridge(&record)?.link)
    }

    fn order(&self, file: Node) -> u64 {
        self.record(file.0)
            .map_or(0, |(record, _)| u64::from(record.extent))
    }
}

/// Fails for what would be no name, or another path, on the host.
fn check_name(name: &str, at: u64) -> Result<()> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(Error::damaged(
            "a directory record of ISO 9660",
            at,
            "its name is no name",
        ));
    }
    Ok(())
}

/// Without the version and an empty extension (`NAME.TXT;1`, `NAME.;1`).
fn plain_name(name: &str) -> String {
    let name = match name.rsplit_once(';') {
        Some((name, version)) if version.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => name,
    };
    name.strip_suffix('.').unwrap_or(name).to_string()
}

/// Names of Joliet are UCS-2, big endian; others are taken for Latin-1.
fn text(bytes: &[u8], joliet: bool) -> String {
    if !joliet {
        return bytes.iter().map(|&b| char::from(b)).collect();
    }
    let units = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// Seconds since 1970 of a recording date (ECMA-119 9.1.5).
fn time(bytes: &[u8]) -> Option<i64> {
    let [year, month, day, hour, minute, second, zone] = *bytes else {
        return None;
    };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = crate::time::days(1900 + i64::from(year), month.into(), day.into());
    let local = days * 86400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(local - i64::from(zone as i8) * 900)
}
