//! The qcow2 header, checked before the image is opened: what imago does not look at or cannot do is refused by name.
//!
//! Specification: "Qcow2 Image File Format", QEMU's `docs/interop/qcow2.txt`.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const V2_HEADER_LENGTH: usize = 72;
const V3_HEADER_LENGTH: u32 = 104;

const INCOMPATIBLE_DIRTY: u64 = 1 << 0;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_EXTERNAL_DATA: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
const INCOMPATIBLE_KNOWN: u64 = 0x1f;

const AUTOCLEAR_RAW_EXTERNAL: u64 = 1 << 1;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;

/// The largest tables that are read into memory, the same as QEMU's.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;

/// What the header says that matters before imago opens the image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes, as the guest sees them.
    pub(crate) size: u64,
    pub(crate) backing_file: Option<String>,
    pub(crate) backing_format: Option<String>,
    /// Guest data are in another file; its name, if the header has one.
    pub(crate) data_file: Option<Option<String>>,
    /// The image was not closed properly: refcounts may be too low.
    pub(crate) dirty: bool,
    /// Compressed clusters are zstd, which imago cannot unpack.
    pub(crate) zstd: bool,
}

/// Reads and checks the header of an image in `file`, which has `length` bytes. An error is for users to read.
pub(crate) fn read(file: &std::fs::File, length: u64, write: bool) -> Result<Header, String> {
    let mut start = Vec::new();
    let unreadable = |error: io::Error| {
        format!(
            "Could not read qcow2 header: {}",
            crate::error::message(&error)
        )
    };
    // All that counts lies in the first cluster, of 2 MiB at most.
    let wanted = length.min(4096);
    At { file, at: 0 }
        .take(wanted)
        .read_to_end(&mut start)
        .map_err(unreadable)?;
    let cluster_bits = be32(&start, 20).unwrap_or(0);
    if (9..=21).contains(&cluster_bits) && start.starts_with(&MAGIC) {
        start.clear();
        At { file, at: 0 }
            .take(length.min(1 << cluster_bits))
            .read_to_end(&mut start)
            .map_err(unreadable)?;
    }
    check(&start, length, write)
}

struct At<'a> {
    file: &'a std::fs::File,
    at: u64,
}

impl Read for At<'_> {
    /// Whole pages at a time into a page-aligned buffer would be needed for direct I/O: the header is read before that.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

/// Checks the first cluster of an image file of `length` bytes.
pub(crate) fn check(start: &[u8], length: u64, write: bool) -> Result<Header, String> {
    if !start.starts_with(&MAGIC) {
        return Err("Image is not in qcow2 format".into());
    }
    let short = || "qcow2 header is cut short".to_string();
    let version = be32(start, 4).ok_or_else(short)?;
    if version != 2 && version != 3 {
        return Err(format!("Unsupported qcow2 version {version}"));
    }
    if start.len() < V2_HEADER_LENGTH {
        return Err(short());
    }
    let field32 = |at| be32(start, at).ok_or_else(short);
    let field64 = |at| be64(start, at).ok_or_else(short);

    let cluster_bits = field32(20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(format!("Unsupported cluster size: 2^{cluster_bits}"));
    }
    let cluster_size = 1u64 << cluster_bits;
    match field32(32)? {
        0 => {}
        1 => return Err("AES-encrypted qcow2 images are not supported".into()),
        2 => return Err("LUKS-encrypted qcow2 images are not supported".into()),
        method => return Err(format!("Unsupported encryption method {method}")),
    }

    let mut header_length = V2_HEADER_LENGTH as u32;
    let mut data_file = None;
    let (mut dirty, mut zstd) = (false, false);
    if version == 3 {
        header_length = field32(100)?;
        if header_length < V3_HEADER_LENGTH {
            return Err("qcow2 header too short".into());
        }
        if u64::from(header_length) > cluster_size {
            return Err("qcow2 header exceeds cluster size".into());
        }
        let refcount_order = field32(96)?;
        if refcount_order > 6 {
            return Err("Reference count entry width too large; may not exceed 64 bits".into());
        }
    }
    let extensions = extensions(start, header_length as usize)?;
    if version == 3 {
        let incompatible = field64(72)?;
        zstd = features(start, incompatible, header_length, &extensions)?;
        dirty = incompatible & INCOMPATIBLE_DIRTY != 0;
        if incompatible & INCOMPATIBLE_EXTERNAL_DATA != 0 {
            if write && field64(88)? & AUTOCLEAR_RAW_EXTERNAL != 0 {
                return Err("Images with data_file_raw=on are supported read-only".into());
            }
            data_file = Some(extensions.data_file.clone());
        }
    }

    let size = field64(24)?;
    let l1_entries = u64::from(field32(36)?);
    let l1_offset = field64(40)?;
    if l1_entries * 8 > MAX_L1_BYTES {
        return Err("Active L1 table too large".into());
    }
    let covered_by_l1_entry = cluster_size * (cluster_size / 8);
    if size.div_ceil(covered_by_l1_entry) > l1_entries {
        return Err("L1 table is too small".into());
    }
    table(l1_offset, l1_entries * 8, cluster_size, length, "L1 table")?;

    let refcount_bytes = u64::from(field32(56)?) * cluster_size;
    if refcount_bytes == 0 {
        return Err("Image does not contain a reference count table".into());
    }
    if refcount_bytes > MAX_REFCOUNT_TABLE_BYTES {
        return Err("Image has too large a reference count table".into());
    }
    table(
        field64(48)?,
        refcount_bytes,
        cluster_size,
        length,
        "Reference count table",
    )?;

    Ok(Header {
        size,
        backing_file: backing(start, cluster_size)?,
        backing_format: extensions.backing_format,
        data_file,
        dirty,
        zstd,
    })
}

/// A table must be where a table can be.
fn table(
    offset: u64,
    bytes: u64,
    cluster_size: u64,
    length: u64,
    name: &str,
) -> Result<(), String> {
    if !offset.is_multiple_of(cluster_size) {
        return Err(format!("{name} offset invalid"));
    }
    match offset.checked_add(bytes) {
        // The end may be a hole that was never written: a table's first cluster is always there.
        Some(_) if bytes == 0 || offset < length => {}
        _ => {
            return Err(format!(
                "{name} is past the end of the file: the image is cut short"
            ));
        }
    }
    if bytes > 0 && offset == 0 {
        return Err(format!("{name} offset invalid"));
    }
    Ok(())
}

/// Refuses what is not built; whether clusters are zstd.
fn features(
    start: &[u8],
    incompatible: u64,
    header_length: u32,
    extensions: &Extensions,
) -> Result<bool, String> {
    let unknown = incompatible & !INCOMPATIBLE_KNOWN;
    if unknown != 0 {
        return Err(unknown_features(unknown, extensions));
    }
    if incompatible & INCOMPATIBLE_CORRUPT != 0 {
        return Err("Image is corrupt; run 'qemu-img check -r all' on a copy of it".into());
    }
    if incompatible & INCOMPATIBLE_EXTENDED_L2 != 0 {
        return Err("Images with extended L2 entries (extended_l2=on) are not supported".into());
    }
    let compression = if header_length > 104 {
        start.get(104).copied().unwrap_or(0)
    } else {
        0
    };
    match (incompatible & INCOMPATIBLE_COMPRESSION != 0, compression) {
        (false, 0) => Ok(false),
        (true, 1) => Ok(true),
        (_, other) => Err(format!("Unsupported compression type {other}")),
    }
}

/// Names the bits that are set in `unknown`, by the image's own table where it has them.
pub(super) fn unknown_features(unknown: u64, extensions: &Extensions) -> String {
    let names: Vec<String> = (0..64)
        .filter(|bit| unknown >> bit & 1 != 0)
        .map(|bit| {
            match extensions
                .incompatible_names
                .iter()
                .find(|(b, _)| *b == bit)
            {
                Some((_, name)) => name.clone(),
                None => format!("Unknown incompatible feature: {:x}", 1u64 << bit),
            }
        })
        .collect();
    format!("Unsupported qcow2 feature(s): {}", names.join(", "))
}

#[derive(Default)]
pub(super) struct Extensions {
    backing_format: Option<String>,
    data_file: Option<String>,
    /// Bits of incompatible features that the image itself names.
    incompatible_names: Vec<(u8, String)>,
}

pub(super) fn extensions(start: &[u8], header_length: usize) -> Result<Extensions, String> {
    let mut found = Extensions::default();
    // In version 2 the area ends at the backing file's name; there, as everywhere, an end marker comes before.
    let end = match be64(start, 8) {
        Some(0) | None => start.len(),
        Some(name) => usize::try_from(name).unwrap_or(usize::MAX).min(start.len()),
    };
    let mut at = header_length;
    while let (Some(kind), Some(length)) = (be32(start, at), be32(start, at + 4)) {
        if kind == EXTENSION_END || at + 8 > end {
            break;
        }
        let length = length as usize;
        let Some(data) = start.get(at + 8..).and_then(|rest| rest.get(..length)) else {
            return Err("Header extension too large".into());
        };
        let text = || {
            String::from_utf8_lossy(data)
                .trim_end_matches('\0')
                .to_string()
        };
        match kind {
            EXTENSION_BACKING_FORMAT => found.backing_format = Some(text()),
            EXTENSION_DATA_FILE => found.data_file = Some(text()),
            EXTENSION_FEATURE_NAMES => {
                for entry in data.chunks_exact(48).filter(|entry| entry[0] == 0) {
                    let name = String::from_utf8_lossy(&entry[2..]);
                    let printable: String = name.chars().take_while(|c| !c.is_control()).collect();
                    found.incompatible_names.push((entry[1], printable));
                }
            }
            _ => {}
        }
        at += 8 + length.next_multiple_of(8);
    }
    Ok(found)
}

pub(super) fn backing(start: &[u8], cluster_size: u64) -> Result<Option<String>, String> {
    let (Some(offset), Some(length)) = (be64(start, 8), be32(start, 16)) else {
        return Ok(None);
    };
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    if length > 1023 {
        return Err("Backing file name too long".into());
    }
    let name = usize::try_from(offset)
        .ok()
        .filter(|_| offset < cluster_size)
        .and_then(|offset| start.get(offset..)?.get(..length as usize))
        .ok_or("Invalid backing file offset")?;
    match std::str::from_utf8(name) {
        Ok(name) if !name.contains('\0') => Ok(Some(name.into())),
        _ => Err("Backing file name is not valid text".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A version 3 header of a 1 GiB image with tables at clusters 1 and 3, as `qemu-img create` lays it out.
    fn sample() -> Vec<u8> {
        let mut start = vec![0; 65536];
        start[..4].copy_from_slice(&MAGIC);
        start[4..8].copy_from_slice(&3u32.to_be_bytes());
        start[20..24].copy_from_slice(&16u32.to_be_bytes());
        start[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        start[36..40].copy_from_slice(&2u32.to_be_bytes());
        start[40..48].copy_from_slice(&0x30000u64.to_be_bytes());
        start[48..56].copy_from_slice(&0x10000u64.to_be_bytes());
        start[56..60].copy_from_slice(&1u32.to_be_bytes());
        start[96..100].copy_from_slice(&4u32.to_be_bytes());
        start[100..104].copy_from_slice(&112u32.to_be_bytes());
        start
    }

    fn refused(change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut start = sample();
        change(&mut start);
        check(&start, 0x40000, true).unwrap_err()
    }

    #[test]
    fn a_good_header_passes() {
        let header = check(&sample(), 0x40000, true).unwrap();
        assert_eq!(
            header,
            Header {
                size: 1 << 30,
                ..Header::default()
            }
        );
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        assert!(refused(|h| h[35] = 2).contains("LUKS"));
        assert!(refused(|h| h[35] = 1).contains("AES"));
        assert!(refused(|h| h[79] = 2).contains("corrupt"));
        assert!(refused(|h| h[79] = 16).contains("extended L2"));
        assert!(refused(|h| h[79] = 32).contains("Unknown incompatible feature: 20"));
        assert!(refused(|h| h[104] = 1).contains("compression type 1"));
        assert!(refused(|h| h[79] = 8).contains("compression type 0"));
    }

    #[test]
    fn what_imago_cannot_do_is_noticed() {
        let mut start = sample();
        start[79] = 1;
        let header = check(&start, 0x40000, true).unwrap();
        assert!(header.dirty && !header.zstd);
        start[79] = 8;
        start[104] = 1;
        let header = check(&start, 0x40000, true).unwrap();
        assert!(header.zstd && !header.dirty);
    }

    #[test]
    fn broken_headers_are_refused() {
        assert!(refused(|h| h[7] = 9).contains("version 9"));
        assert!(refused(|h| h[23] = 40).contains("2^40"));
        assert!(refused(|h| h[36] = 0xff).contains("too large"));
        assert!(refused(|h| h[39] = 1).contains("too small"));
        assert!(refused(|h| h[47] = 1).contains("L1 table offset"));
        assert!(refused(|h| h[40] = 1).contains("cut short"));
        assert!(refused(|h| h[59] = 0).contains("reference count table"));
        assert!(
            check(&sample()[..60], 60, true)
                .unwrap_err()
                .contains("cut short")
        );
    }

    #[test]
    fn a_feature_is_named_by_the_image() {
        let message = refused(|h| {
            h[78] = 1; // bit 8
            h[112..116].copy_from_slice(&EXTENSION_FEATURE_NAMES.to_be_bytes());
            h[116..120].copy_from_slice(&48u32.to_be_bytes());
            h[120] = 0;
            h[121] = 8;
            h[122..129].copy_from_slice(b"quantum");
        });
        assert!(message.contains("quantum"), "{message}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(changes in prop::collection::vec((0usize..200, any::<u8>()), 0..12), cut in 0usize..300) {
            let mut start = sample();
            for (at, value) in changes {
                start[at] = value;
            }
            let _ = check(&start, 0x40000, true);
            start.truncate(cut);
            let _ = check(&start, cut as u64, false);
        }
    }
}
