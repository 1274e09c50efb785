//! Compressed kernels: `Image.gz` and the like, and zboot images (Linux, `drivers/firmware/efi/libstub/zboot-header.S`).

use std::io::Read;

use super::image::u32_at;
use super::{LARGEST_KERNEL, LoadError};

/// zboot header: "zimg" behind the "MZ" of a PE image, where the payload is, and how it is compressed.
const ZBOOT_TYPE: usize = 4;
const ZBOOT_PAYLOAD_OFFSET: usize = 8;
const ZBOOT_PAYLOAD_SIZE: usize = 12;
const ZBOOT_COMPRESSION: usize = 24;
const ZBOOT_COMPRESSION_END: usize = 56;

/// What compressed files start with.
const GZIP: &[u8] = &[0x1f, 0x8b, 8];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const OTHERS: [(&[u8], &str); 5] = [
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x5d, 0, 0, 0x80, 0], "lzma"),
    (b"BZh", "bzip2"),
    (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
    (&[0x89, b'L', b'Z', b'O', 0], "lzo"),
];

/// The kernel within a compressed file, or `None` if it is not compressed.
pub(super) fn unpack(file: &[u8]) -> Result<Option<Vec<u8>>, LoadError> {
    if file.starts_with(b"MZ") && file.get(ZBOOT_TYPE..ZBOOT_TYPE + 4) == Some(b"zimg") {
        return zboot(file).map(Some);
    }
    if file.starts_with(GZIP) {
        return gzip(file).map(Some);
    }
    if file.starts_with(ZSTD) {
        return zstd(file).map(Some);
    }
    match OTHERS.iter().find(|(magic, _)| file.starts_with(magic)) {
        Some((_, name)) => Err(LoadError::Compression(name.to_string())),
        None => Ok(None),
    }
}

fn zboot(file: &[u8]) -> Result<Vec<u8>, LoadError> {
    let truncated = LoadError::Truncated("its payload is past the end of the file");
    let field = |at| u32_at(file, at).and_then(|v| usize::try_from(v).ok());
    let payload = field(ZBOOT_PAYLOAD_OFFSET)
        .zip(field(ZBOOT_PAYLOAD_SIZE))
        .and_then(|(offset, size)| file.get(offset..offset.checked_add(size)?));
    let (Some(payload), Some(name)) = (payload, file.get(ZBOOT_COMPRESSION..ZBOOT_COMPRESSION_END))
    else {
        return Err(truncated);
    };
    let name = name.split(|b| *b == 0).next().unwrap_or_default();
    match name {
        b"gzip" => gzip(payload),
        b"zstd" | b"zstd22" => zstd(payload),
        other => Err(LoadError::Compression(
            String::from_utf8_lossy(other).into_owned(),
        )),
    }
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    limited(flate2::read::GzDecoder::new(bytes))
}

fn zstd(bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes);
    limited(decoder.map_err(|e| LoadError::Corrupt(e.to_string()))?)
}

fn limited(reader: impl Read) -> Result<Vec<u8>, LoadError> {
    let mut unpacked = Vec::new();
    let mut reader = reader.take(LARGEST_KERNEL as u64 + 1);
    reader
        .read_to_end(&mut unpacked)
        .map_err(|e| LoadError::Corrupt(e.to_string()))?;
    match unpacked.len() {
        0 => Err(LoadError::Empty),
        n if n > LARGEST_KERNEL => Err(LoadError::TooLarge),
        _ => Ok(unpacked),
    }
}
