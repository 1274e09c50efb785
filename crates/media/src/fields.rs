//! Integers and text out of on-disk structures, never past their end.

use crate::error::{Error, Result};

/// A little- or big-endian integer at a byte offset of a structure; [`Error::Truncated`] where the structure ends first.
pub(crate) trait Fields {
    fn span(&self, at: usize, length: usize) -> Result<&[u8]>;

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let mut value = [0; N];
        value.copy_from_slice(self.span(at, N)?);
        Ok(value)
    }
    fn byte(&self, at: usize) -> Result<u8> {
        Ok(self.span(at, 1)?[0])
    }
    fn le16(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }
    fn le32(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }
    fn le64(&self, at: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }
    fn be32(&self, at: usize) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array(at)?))
    }
    fn be64(&self, at: usize) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array(at)?))
    }
}

impl Fields for [u8] {
    fn span(&self, at: usize, length: usize) -> Result<&[u8]> {
        at.checked_add(length)
            .and_then(|end| self.get(at..end))
            .ok_or(Error::Truncated {
                at: at as u64,
                length: length as u64,
                size: self.len() as u64,
            })
    }
}

/// UTF-16LE text; lone surrogates become U+FFFD, an odd last byte is dropped.
pub(crate) fn utf16(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// [`utf16`] up to the first NUL.
pub(crate) fn utf16_until_nul(bytes: &[u8]) -> String {
    let end = bytes
        .chunks_exact(2)
        .position(|pair| pair == [0, 0])
        .map_or(bytes.len(), |units| units * 2);
    utf16(&bytes[..end])
}

/// Text as UTF-16LE bytes.
pub(crate) fn to_utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
