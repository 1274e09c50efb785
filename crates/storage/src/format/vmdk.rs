//! VMDK images of VMware, sparse, stream-optimised and flat, to convert from.
//!
//! Specification: "Virtual Disk Format 5.0", VMware.

use super::{Extent, FormatError, Kind, Result, Source};
use crate::host::Host;
use flate2::{Decompress, FlushDecompress};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

const SECTOR: u64 = 512;
const FLAG_ZEROED_GRAINS: u32 = 1 << 2;
const FLAG_COMPRESSED: u32 = 1 << 16;
const GD_AT_END: u64 = u64::MAX;
const MAX_DESCRIPTOR: u64 = 1 << 20;

/// First sector and sectors of a descriptor.
type Place = (u64, u64);

/// Opens a file that a descriptor names.
pub type Opener<'a> = &'a dyn Fn(&Path) -> Result<Arc<dyn Host>>;

/// An open VMDK image, of one file or several.
pub struct Vmdk {
    extents: Vec<VmdkExtent>,
    pub cid: u32,
    pub parent_cid: u32,
    /// As `monolithicSparse`.
    pub create_type: String,
    path: PathBuf,
    size: u64,
}

/// One part of the disk.
pub struct VmdkExtent {
    /// Bytes of the disk.
    pub size: u64,
    pub path: PathBuf,
    /// As the descriptor names its kind; empty for the file that holds the descriptor itself.
    pub kind: String,
    pub compressed: bool,
    /// Bytes of a grain.
    pub grain: Option<u64>,
    start: u64,
    storage: Storage,
}

enum Storage {
    Zeroes,
    Flat { host: Arc<dyn Host>, offset: u64 },
    Sparse(Sparse),
}

struct Sparse {
    host: Arc<dyn Host>,
    /// Bytes of the disk.
    size: u64,
    grain: u64,
    per_table: u64,
    /// Sectors of grain tables.
    directory: Vec<u32>,
    compressed: bool,
    zeroed_grains: bool,
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn short(_: std::io::Error) -> FormatError {
    FormatError::image("VMDK: it is cut short")
}

impl Sparse {
    /// Opens a sparse extent: it, and the bytes of the disk it has, and where its descriptor is.
    fn open(host: Arc<dyn Host>) -> Result<(Sparse, u64, Option<Place>)> {
        let refuse = |reason: String| FormatError::image(format!("VMDK: {reason}"));
        let mut header = [0; 512];
        host.read_exact_at(0, &mut header).map_err(short)?;
        if !header.starts_with(b"KDMV") {
            return Err(refuse("an extent has no sparse header".into()));
        }
        let descriptor = (le64(&header, 28), le64(&header, 36));
        let descriptor = (descriptor.0 != 0 && descriptor.1 != 0).then_some(descriptor);
        if le64(&header, 56) == GD_AT_END {
            let length = host.length()?;
            host.read_exact_at(length.saturating_sub(1024), &mut header)
                .map_err(short)?;
            if !header.starts_with(b"KDMV") {
                return Err(refuse("its footer is missing: it is cut short".into()));
            }
        }
        let version = le32(&header, 4);
        if !(1..=3).contains(&version) {
            return Err(refuse(format!("Unsupported VMDK version {version}")));
        }
        let flags = le32(&header, 8);
        let capacity = le64(&header, 12);
        let grain = le64(&header, 20);
        let per_table = u64::from(le32(&header, 44));
        let directory = le64(&header, 56);
        if grain == 0 || !grain.is_power_of_two() || grain > 16384 {
            return Err(refuse(format!(
                "its grains have an impossible size, {grain} sectors"
            )));
        }
        if per_table == 0 || per_table > 512 {
            return Err(refuse(format!("L2 table size too big: {per_table}")));
        }
        let compressed = flags & FLAG_COMPRESSED != 0;
        if compressed && u16::from_le_bytes([header[77], header[78]]) != 1 {
            return Err(refuse("its compression is not known".into()));
        }
        let tables = capacity.div_ceil(grain * per_table);
        if tables > 64 << 20 || tables * 4 > host.length()? {
            return Err(refuse("L1 size too big".into()));
        }
        let mut bytes = vec![0; tables as usize * 4];
        let at = directory
            .checked_mul(SECTOR)
            .ok_or_else(|| refuse("its grain directory is nowhere".into()))?;
        host.read_exact_at(at, &mut bytes).map_err(short)?;
        let sparse = Sparse {
            host,
            size: capacity * SECTOR,
            grain: grain * SECTOR,
            per_table,
            directory: bytes.chunks_exact(4).map(|entry| le32(entry, 0)).collect(),
            compressed,
            zeroed_grains: flags & FLAG_ZEROED_GRAINS != 0,
        };
        Ok((sparse, capacity * SECTOR, descriptor))
    }

    fn extent(&self, offset: u64, max: u64) -> Result<(Kind, u64)> {
        let grain = offset / self.grain;
        let mut length = self.grain - offset % self.grain;
        let table = self.directory[(grain / self.per_table) as usize];
        if table == 0 {
            let span = self.grain * self.per_table;
            return Ok((Kind::Unallocated, (span - offset % span).min(max)));
        }
        let mut entries = vec![0; self.per_table as usize * 4];
        self.host
            .read_exact_at(u64::from(table) * SECTOR, &mut entries)
            .map_err(short)?;
        let first = (grain % self.per_table) as usize;
        let kind = |index: usize| match le32(&entries, index * 4) {
            0 => Kind::Unallocated,
            1 if self.zeroed_grains => Kind::Zero { offset: None },
            sector if self.compressed => Kind::Data {
                offset: Some(u64::from(sector) * SECTOR),
                compressed: true,
            },
            sector => Kind::Data {
                offset: Some(u64::from(sector) * SECTOR),
                compressed: false,
            },
        };
        let start = kind(first);
        let mut index = first + 1;
        while length < max && index < self.per_table as usize {
            let along = (index - first) as u64 * self.grain;
            let same = match (start, kind(index)) {
                (
                    Kind::Data {
                        offset: Some(a),
                        compressed: false,
                    },
                    Kind::Data {
                        offset: Some(b), ..
                    },
                ) => b == a + along,
                (Kind::Data { .. }, _) => false,
                (a, b) => a == b,
            };
            if !same {
                break;
            }
            length += self.grain;
            index += 1;
        }
        let start = match start {
            Kind::Data {
                offset: Some(at),
                compressed: false,
            } => Kind::Data {
                offset: Some(at + offset % self.grain),
                compressed: false,
            },
            other => other,
        };
        Ok((start, length.min(max)))
    }

    fn unpack(&self, at: u64, start: u64) -> Result<Vec<u8>> {
        let mut marker = [0; 12];
        self.host.read_exact_at(at, &mut marker).map_err(short)?;
        let size = u64::from(le32(&marker, 8));
        if size > 2 * self.grain + 512 {
            return Err(FormatError::image(format!(
                "VMDK: the compressed grain at {at:#x} has an impossible size"
            )));
        }
        let mut packed = vec![0; size as usize];
        self.host
            .read_exact_at(at + 12, &mut packed)
            .map_err(short)?;
        let mut grain = vec![0; self.grain as usize];
        let broken = |reason: &str| {
            FormatError::image(format!(
                "VMDK: the compressed grain at {at:#x} cannot be unpacked: {reason}"
            ))
        };
        if le64(&marker, 0).checked_mul(SECTOR) != Some(start) {
            return Err(broken("it is of another place of the disk"));
        }
        let mut inflate = Decompress::new(true);
        inflate
            .decompress(&packed, &mut grain, FlushDecompress::Finish)
            .map_err(|error| broken(&error.to_string()))?;
        // The last grain of a disk may be short.
        if inflate.total_out() < self.grain.min(self.size.saturating_sub(start)) {
            return Err(broken("it is cut short"));
        }
        Ok(grain)
    }

    fn read(&self, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let (kind, length) = self.extent(offset, into.len() as u64)?;
            let (now, later) = into.split_at_mut(length as usize);
            match kind {
                Kind::Data {
                    offset: Some(at),
                    compressed: false,
                } => self.host.read_exact_at(at, now).map_err(short)?,
                Kind::Data {
                    offset: Some(at), ..
                } => {
                    let grain = self.unpack(at, offset / self.grain * self.grain)?;
                    let inside = (offset % self.grain) as usize;
                    now.copy_from_slice(&grain[inside..inside + now.len()]);
                }
                _ => now.fill(0),
            }
            offset += length;
            into = later;
        }
        Ok(())
    }
}

/// What the text of a descriptor says.
struct Descriptor {
    cid: u32,
    parent_cid: u32,
    create_type: String,
    /// Sectors, kind, file, first sector in it.
    extents: Vec<(u64, String, String, u64)>,
}

impl Descriptor {
    fn parse(text: &str) -> Result<Descriptor> {
        let mut descriptor = Descriptor {
            cid: 0,
            parent_cid: u32::MAX,
            create_type: String::new(),
            extents: Vec::new(),
        };
        for line in text.lines().map(str::trim) {
            if let Some((key, value)) = line.split_once('=') {
                let value = value.trim().trim_matches('"');
                match key.trim() {
                    "CID" => descriptor.cid = u32::from_str_radix(value, 16).unwrap_or(0),
                    "parentCID" => {
                        descriptor.parent_cid = u32::from_str_radix(value, 16).unwrap_or(u32::MAX);
                    }
                    "createType" => descriptor.create_type = value.into(),
                    _ => {}
                }
                continue;
            }
            let mut words = line.splitn(4, ' ');
            if !matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS")) {
                continue;
            }
            let invalid = || FormatError::image(format!("Invalid extent line: {line}"));
            let sectors: u64 = words
                .next()
                .and_then(|n| n.parse().ok())
                .ok_or_else(invalid)?;
            let kind = words.next().ok_or_else(invalid)?.to_string();
            let (file, first) = match words.next() {
                None => (String::new(), 0),
                Some(rest) => {
                    let rest = rest.strip_prefix('"').ok_or_else(invalid)?;
                    let (file, rest) = rest.split_once('"').ok_or_else(invalid)?;
                    let first = match rest.split_whitespace().next() {
                        None => 0,
                        Some(word) => word.parse().map_err(|_| invalid())?,
                    };
                    (file.to_string(), first)
                }
            };
            if sectors > 1 << 46 || first > 1 << 46 || descriptor.extents.len() > 4096 {
                return Err(invalid());
            }
            descriptor.extents.push((sectors, kind, file, first));
        }
        if descriptor.parent_cid != u32::MAX {
            return Err(FormatError::image(
                "VMDK: images with a parent (snapshots) are not supported",
            ));
        }
        Ok(descriptor)
    }
}

impl Vmdk {
    pub fn open(host: Arc<dyn Host>, path: PathBuf, opener: Opener<'_>) -> Result<Vmdk> {
        let mut start = [0; 4];
        host.read_exact_at(0, &mut start).map_err(short)?;
        if &start == b"COWD" {
            return Err(FormatError::image(
                "VMDK: ESX sparse extents (COWD) are not supported",
            ));
        }
        let text = |at: u64, length: u64| -> Result<String> {
            if length > MAX_DESCRIPTOR {
                return Err(FormatError::image("VMDK: its descriptor is too long"));
            }
            let mut bytes = vec![0; length as usize];
            let have = host.read_at(at, &mut bytes)?;
            bytes.truncate(have);
            let end = bytes.iter().position(|byte| *byte == 0);
            bytes.truncate(end.unwrap_or(have));
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        if &start == b"KDMV" {
            let (sparse, size, descriptor) = Sparse::open(host.clone())?;
            let descriptor = match descriptor {
                Some((at, sectors)) => Descriptor::parse(&text(
                    at.saturating_mul(SECTOR),
                    sectors.saturating_mul(SECTOR),
                )?)?,
                None => Descriptor::parse("")?,
            };
            let extent = VmdkExtent {
                size,
                path: path.clone(),
                kind: String::new(),
                compressed: sparse.compressed,
                grain: Some(sparse.grain),
                start: 0,
                storage: Storage::Sparse(sparse),
            };
            return Ok(Vmdk {
                extents: vec![extent],
                cid: descriptor.cid,
                parent_cid: descriptor.parent_cid,
                create_type: descriptor.create_type,
                path,
                size,
            });
        }
        let descriptor = Descriptor::parse(&text(0, host.length()?)?)?;
        if descriptor.extents.is_empty() {
            return Err(FormatError::image("VMDK: its descriptor names no extents"));
        }
        let mut extents = Vec::new();
        let mut at = 0u64;
        for (sectors, kind, file, first) in descriptor.extents {
            let size = sectors * SECTOR;
            // Names stay inside the image's folder: a descriptor from elsewhere must not reach for other files.
            let name = Path::new(&file);
            if name
                .components()
                .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
            {
                return Err(FormatError::image(format!(
                    "VMDK: extent '{file}' is not in the image's folder"
                )));
            }
            let path = path.parent().unwrap_or(Path::new("")).join(name);
            let (storage, grain, compressed) = match kind.as_str() {
                "ZERO" => (Storage::Zeroes, None, false),
                "FLAT" | "VMFS" => {
                    let host = opener(&path)?;
                    let offset = first * SECTOR;
                    if host.length()? < offset + size {
                        return Err(FormatError::image(format!(
                            "VMDK: extent '{file}' is shorter than the descriptor says"
                        )));
                    }
                    (Storage::Flat { host, offset }, None, false)
                }
                "SPARSE" => {
                    let (sparse, has, _) = Sparse::open(opener(&path)?)?;
                    if has < size {
                        return Err(FormatError::image(format!(
                            "VMDK: extent '{file}' is shorter than the descriptor says"
                        )));
                    }
                    let (grain, compressed) = (sparse.grain, sparse.compressed);
                    (Storage::Sparse(sparse), Some(grain), compressed)
                }
                other => {
                    return Err(FormatError::image(format!(
                        "Unsupported extent type '{other}'"
                    )));
                }
            };
            extents.push(VmdkExtent {
                size,
                path,
                kind,
                compressed,
                grain,
                start: at,
                storage,
            });
            at = at
                .checked_add(size)
                .ok_or_else(|| FormatError::image("VMDK: its extents are too large"))?;
        }
        Ok(Vmdk {
            extents,
            cid: descriptor.cid,
            parent_cid: descriptor.parent_cid,
            create_type: descriptor.create_type,
            path,
            size: at,
        })
    }

    pub fn extents(&self) -> &[VmdkExtent] {
        &self.extents
    }

    /// Whether the file of a flat extent has data at `offset` or a hole, and up to where.
    pub fn span(&self, extent: usize, offset: u64) -> Option<(bool, u64)> {
        match &self.extents.get(extent)?.storage {
            Storage::Flat { host, .. } => host.span(offset).ok(),
            _ => None,
        }
    }

    fn at(&self, offset: u64) -> usize {
        self.extents
            .partition_point(|extent| extent.start + extent.size <= offset)
    }
}

impl Source for Vmdk {
    fn size(&self) -> u64 {
        self.size
    }

    fn extent(&self, offset: u64, max: u64) -> Result<Extent> {
        let index = self.at(offset);
        let extent = &self.extents[index];
        let inside = offset - extent.start;
        let max = max.min(extent.size - inside);
        let (kind, length) = match &extent.storage {
            Storage::Zeroes => (Kind::Zero { offset: None }, max),
            Storage::Flat { offset, .. } => {
                let kind = Kind::Data {
                    offset: Some(offset + inside),
                    compressed: false,
                };
                (kind, max)
            }
            Storage::Sparse(sparse) => sparse.extent(inside, max)?,
        };
        // Where compressed data are is of no use to anybody.
        let kind = match kind {
            Kind::Data {
                compressed: true, ..
            } => Kind::Data {
                offset: None,
                compressed: true,
            },
            other => other,
        };
        Ok(Extent {
            length,
            kind,
            file: index,
        })
    }

    fn read(&self, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let extent = &self.extents[self.at(offset)];
            let inside = offset - extent.start;
            let count = (extent.size - inside).min(into.len() as u64);
            let (now, later) = into.split_at_mut(count as usize);
            match &extent.storage {
                Storage::Zeroes => now.fill(0),
                Storage::Flat { host, offset } => {
                    host.read_exact_at(offset + inside, now).map_err(short)?;
                }
                Storage::Sparse(sparse) => sparse.read(inside, now)?,
            }
            offset += count;
            into = later;
        }
        Ok(())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = self
            .extents
            .iter()
            .map(|extent| extent.path.clone())
            .collect();
        if files.is_empty() {
            files.push(self.path.clone());
        }
        files
    }

    fn cluster_size(&self) -> Option<u64> {
        self.extents.first().and_then(|extent| extent.grain)
    }
}
