//! The header of an image at rest: read whole, written back whole.

use super::gate;
use crate::format::{FormatError, Result};
use crate::host::Host;

/// Compression of clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Deflate without a header, in a window of 4 KiB.
    #[default]
    Zlib,
    Zstd,
}

impl Compression {
    pub fn name(self) -> &'static str {
        match self {
            Compression::Zlib => "zlib",
            Compression::Zstd => "zstd",
        }
    }
}

pub(super) const DIRTY: u64 = 1 << 0;
pub(super) const CORRUPT: u64 = 1 << 1;
pub(super) const EXTERNAL_DATA: u64 = 1 << 2;
pub(super) const COMPRESSION: u64 = 1 << 3;
pub(super) const EXTENDED_L2: u64 = 1 << 4;
const KNOWN_INCOMPATIBLE: u64 = 0x1f;

pub(super) const LAZY_REFCOUNTS: u64 = 1 << 0;

pub(super) const RAW_EXTERNAL: u64 = 1 << 1;

const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;

const V2_LENGTH: usize = 72;
const V3_LENGTH: usize = 112;

/// Kind (0 incompatible, 1 compatible, 2 autoclear), bit, name.
const FEATURES: &[(u8, u8, &str)] = &[
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// All fields of "Header" in the specification, and its extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) size: u64,
    pub(super) l1_entries: u32,
    pub(super) l1_offset: u64,
    pub(super) refcount_table_offset: u64,
    pub(super) refcount_table_clusters: u32,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    pub(super) incompatible: u64,
    pub(super) compatible: u64,
    pub(super) autoclear: u64,
    pub(super) refcount_order: u32,
    pub(super) compression: Compression,
    pub(super) backing_file: Option<String>,
    pub(super) backing_format: Option<String>,
    pub(super) data_file: Option<String>,
    pub(super) has_bitmaps: bool,
    /// Extensions that mean nothing here; they are kept.
    pub(super) others: Vec<(u32, Vec<u8>)>,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |field| u32::from_be_bytes(field.try_into().unwrap()))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

impl Header {
    pub(super) fn read(host: &dyn Host) -> Result<Header> {
        let length = host.length()?;
        let mut start = vec![0; length.min(4096) as usize];
        host.read_exact_at(0, &mut start)?;
        let bits = be32(&start, 20);
        if start.starts_with(b"QFI\xfb") && (13..=21).contains(&bits) {
            start = vec![0; length.min(1 << bits) as usize];
            host.read_exact_at(0, &mut start)?;
        }
        Header::parse(&start, length)
    }

    /// `start` is the first cluster, or what there is of it.
    pub(super) fn parse(start: &[u8], length: u64) -> Result<Header> {
        let refuse = |reason: &str| Err(FormatError::image(reason));
        if !start.starts_with(b"QFI\xfb") {
            return refuse("Image is not in qcow2 format");
        }
        let version = be32(start, 4);
        if start.len() >= 8 && version != 2 && version != 3 {
            return refuse(&format!("Unsupported qcow2 version {version}"));
        }
        if start.len() < V2_LENGTH || (version == 3 && start.len() < 104) {
            return refuse("qcow2 header is cut short");
        }
        let cluster_bits = be32(start, 20);
        if !(9..=21).contains(&cluster_bits) {
            return refuse(&format!("Unsupported cluster size: 2^{cluster_bits}"));
        }
        let cluster_size = 1u64 << cluster_bits;
        match be32(start, 32) {
            0 => {}
            1 => return refuse("AES-encrypted qcow2 images are not supported"),
            2 => return refuse("LUKS-encrypted qcow2 images are not supported"),
            method => return refuse(&format!("Unsupported encryption method {method}")),
        }
        let mut header = Header {
            version,
            cluster_bits,
            size: be64(start, 24),
            l1_entries: be32(start, 36),
            l1_offset: be64(start, 40),
            refcount_table_offset: be64(start, 48),
            refcount_table_clusters: be32(start, 56),
            snapshots: be32(start, 60),
            snapshots_offset: be64(start, 64),
            refcount_order: 4,
            ..Header::default()
        };
        let mut header_length = V2_LENGTH;
        if version == 3 {
            header.incompatible = be64(start, 72);
            header.compatible = be64(start, 80);
            header.autoclear = be64(start, 88);
            header.refcount_order = be32(start, 96);
            header_length = be32(start, 100) as usize;
            if header_length < 104 {
                return refuse("qcow2 header too short");
            }
            if header_length as u64 > cluster_size {
                return refuse("qcow2 header exceeds cluster size");
            }
            if header.refcount_order > 6 {
                return refuse("Reference count entry width too large; may not exceed 64 bits");
            }
        }
        header.extensions(start, header_length)?;
        let found = gate::extensions(start, header_length).map_err(FormatError::image)?;
        let unknown = header.incompatible & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            return refuse(&gate::unknown_features(unknown, &found));
        }
        if header.incompatible & EXTENDED_L2 != 0 {
            return refuse("Images with extended L2 entries (extended_l2=on) are not supported");
        }
        let compression = if header_length > 104 {
            start.get(104).copied().unwrap_or(0)
        } else {
            0
        };
        header.compression = match (header.incompatible & COMPRESSION != 0, compression) {
            (false, 0) => Compression::Zlib,
            (true, 1) => Compression::Zstd,
            (true, 0) | (false, _) => {
                return refuse("The compression type and its feature bit do not agree");
            }
            (true, other) => return refuse(&format!("Unsupported compression type {other}")),
        };
        header.backing_file = gate::backing(start, cluster_size).map_err(FormatError::image)?;
        header.check_tables(length)?;
        Ok(header)
    }

    fn extensions(&mut self, start: &[u8], header_length: usize) -> Result<()> {
        let end = match be64(start, 8) {
            0 => start.len(),
            name => usize::try_from(name).unwrap_or(usize::MAX).min(start.len()),
        };
        let mut at = header_length;
        while at + 8 <= end {
            let (kind, length) = (be32(start, at), be32(start, at + 4) as usize);
            if kind == 0 {
                break;
            }
            let Some(data) = start.get(at + 8..).and_then(|rest| rest.get(..length)) else {
                return Err(FormatError::image("Header extension too large"));
            };
            let text = || {
                String::from_utf8_lossy(data)
                    .trim_end_matches('\0')
                    .to_string()
            };
            match kind {
                EXTENSION_BACKING_FORMAT => self.backing_format = Some(text()),
                EXTENSION_DATA_FILE => self.data_file = Some(text()),
                EXTENSION_FEATURE_NAMES => {}
                EXTENSION_BITMAPS => {
                    self.has_bitmaps = true;
                    self.others.push((kind, data.to_vec()));
                }
                EXTENSION_ENCRYPTION => {
                    return Err(FormatError::image(
                        "Encrypted qcow2 images are not supported",
                    ));
                }
                _ => self.others.push((kind, data.to_vec())),
            }
            at += 8 + length.next_multiple_of(8);
        }
        Ok(())
    }

    fn check_tables(&self, length: u64) -> Result<()> {
        let cluster_size = self.cluster_size();
        let l1_bytes = u64::from(self.l1_entries) * 8;
        if l1_bytes > 32 << 20 {
            return Err(FormatError::image("Active L1 table too large"));
        }
        if l1_entries(self.size, self.cluster_bits) > u64::from(self.l1_entries) {
            return Err(FormatError::image("L1 table is too small"));
        }
        let placed = |offset: u64, bytes: u64, name: &str| {
            if !offset.is_multiple_of(cluster_size) || (bytes > 0 && offset == 0) {
                return Err(FormatError::image(format!("{name} offset invalid")));
            }
            match offset.checked_add(bytes) {
                Some(_) if bytes == 0 => Ok(()),
                Some(end) if end <= length.next_multiple_of(cluster_size) => Ok(()),
                _ => Err(FormatError::image(format!(
                    "{name} is past the end of the file: the image is cut short"
                ))),
            }
        };
        placed(self.l1_offset, l1_bytes, "L1 table")?;
        let refcount_bytes = u64::from(self.refcount_table_clusters) << self.cluster_bits;
        if refcount_bytes == 0 {
            return Err(FormatError::image(
                "Image does not contain a reference count table",
            ));
        }
        if refcount_bytes > 8 << 20 {
            return Err(FormatError::image(
                "Image has too large a reference count table",
            ));
        }
        placed(
            self.refcount_table_offset,
            refcount_bytes,
            "Reference count table",
        )?;
        if self.snapshots > 65536 {
            return Err(FormatError::image("Too many snapshots"));
        }
        placed(
            self.snapshots_offset,
            u64::from(self.snapshots) * 40,
            "Snapshot table",
        )
    }

    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The first cluster, up to what is used of it.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let put32 = |bytes: &mut Vec<u8>, value: u32| bytes.extend(value.to_be_bytes());
        let put64 = |bytes: &mut Vec<u8>, value: u64| bytes.extend(value.to_be_bytes());
        bytes.extend(b"QFI\xfb");
        put32(&mut bytes, self.version);
        put64(&mut bytes, 0);
        put32(&mut bytes, 0);
        put32(&mut bytes, self.cluster_bits);
        put64(&mut bytes, self.size);
        put32(&mut bytes, 0);
        put32(&mut bytes, self.l1_entries);
        put64(&mut bytes, self.l1_offset);
        put64(&mut bytes, self.refcount_table_offset);
        put32(&mut bytes, self.refcount_table_clusters);
        put32(&mut bytes, self.snapshots);
        put64(&mut bytes, self.snapshots_offset);
        if self.version == 3 {
            put64(&mut bytes, self.incompatible);
            put64(&mut bytes, self.compatible);
            put64(&mut bytes, self.autoclear);
            put32(&mut bytes, self.refcount_order);
            put32(&mut bytes, V3_LENGTH as u32);
            bytes.push(match self.compression {
                Compression::Zlib => 0,
                Compression::Zstd => 1,
            });
            bytes.resize(V3_LENGTH, 0);
        }
        let extension = |bytes: &mut Vec<u8>, kind: u32, data: &[u8]| {
            put32(bytes, kind);
            put32(bytes, data.len() as u32);
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        };
        if let Some(format) = &self.backing_format {
            extension(&mut bytes, EXTENSION_BACKING_FORMAT, format.as_bytes());
        }
        if let Some(name) = &self.data_file {
            extension(&mut bytes, EXTENSION_DATA_FILE, name.as_bytes());
        }
        for (kind, data) in &self.others {
            extension(&mut bytes, *kind, data);
        }
        let name = self.backing_file.as_deref().unwrap_or("");
        let room = self.cluster_size() as usize;
        // With a backing file they are left out: its name then is in the file's first sector with all that can change, which
        // is written as a whole or not at all.
        let fits = name.is_empty() && bytes.len() + 16 + FEATURES.len() * 48 <= room;
        if self.version == 3 && fits {
            let mut table = Vec::new();
            for (kind, bit, name) in FEATURES {
                table.extend([*kind, *bit]);
                table.extend(name.as_bytes());
                table.resize(table.len().next_multiple_of(48), 0);
            }
            extension(&mut bytes, EXTENSION_FEATURE_NAMES, &table);
        }
        // The end marker.
        put64(&mut bytes, 0);
        if !name.is_empty() {
            let at = bytes.len() as u64;
            bytes[8..16].copy_from_slice(&at.to_be_bytes());
            bytes[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            bytes.extend(name.as_bytes());
        }
        if bytes.len() > room {
            return Err(FormatError::refused(
                "The names do not fit into the image's first cluster",
            ));
        }
        Ok(bytes)
    }
}

/// How many entries an L1 table needs for a disk of `size` bytes.
pub(super) fn l1_entries(size: u64, cluster_bits: u32) -> u64 {
    size.div_ceil(1 << (2 * cluster_bits - 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let header = Header {
            version: 3,
            cluster_bits: 16,
            size: 1 << 30,
            l1_entries: 2,
            l1_offset: 0x30000,
            refcount_table_offset: 0x10000,
            refcount_table_clusters: 1,
            incompatible: COMPRESSION | EXTERNAL_DATA,
            compatible: LAZY_REFCOUNTS,
            refcount_order: 4,
            compression: Compression::Zstd,
            backing_file: Some("base.qcow2".into()),
            backing_format: Some("qcow2".into()),
            data_file: Some("data.raw".into()),
            others: vec![(0x1234, b"kept".to_vec())],
            ..Header::default()
        };
        let mut bytes = header.bytes().unwrap();
        bytes.resize(65536, 0);
        assert_eq!(Header::parse(&bytes, 0x40000).unwrap(), header);
        let small = Header {
            cluster_bits: 9,
            l1_entries: 1 << 15,
            l1_offset: 0x400,
            refcount_table_offset: 0x200,
            ..header
        };
        // No room for the names of features: they are left out.
        assert!(small.bytes().unwrap().len() <= 512);
    }
}
