//! The arm64 `Image` header (Linux, `Documentation/arch/arm64/booting.rst`).

use super::{Kernel, LoadError};

/// Offsets in the header, all little-endian.
const TEXT_OFFSET: usize = 8;
const IMAGE_SIZE: usize = 16;
const MAGIC: usize = 56;
const HEADER: usize = 64;
/// Where a PE image has the offset of its signature.
const PE_OFFSET: usize = 60;

/// Kernels before 3.17 leave the size 0 and go here.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;

pub(super) fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    let bytes = file.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    let bytes = file.get(at..at.checked_add(8)?)?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// The kernel, if the file has the header.
pub(super) fn parse(file: &[u8]) -> Result<Option<Kernel>, LoadError> {
    if file.get(MAGIC..MAGIC + 4) != Some(b"ARM\x64") {
        return Ok(None);
    }
    let (Some(offset), Some(size), true) = (
        u64_at(file, TEXT_OFFSET),
        u64_at(file, IMAGE_SIZE),
        file.len() >= HEADER,
    ) else {
        return Err(LoadError::Truncated("its header is incomplete"));
    };
    let text_offset = if size == 0 { OLD_TEXT_OFFSET } else { offset };
    let size = size.max(file.len() as u64);
    Ok(Some(Kernel::Linux {
        bytes: file.into(),
        text_offset,
        size,
    }))
}

/// Whether the file is a PE image (which starts with "MZ", and so do some kernels' first instructions).
pub(super) fn is_efi_program(file: &[u8]) -> bool {
    let signature = u32_at(file, PE_OFFSET).and_then(|at| {
        let at = usize::try_from(at).ok()?;
        file.get(at..at.checked_add(4)?)
    });
    file.starts_with(b"MZ") && signature == Some(b"PE\0\0")
}
