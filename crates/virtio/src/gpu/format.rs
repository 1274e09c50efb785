//! Pixel formats (VIRTIO 5.7.6.8, `virtio_gpu_formats`). All have four bytes, named in the order they lie in memory.

use serde::{Deserialize, Serialize};

/// Bytes of a pixel.
pub const PIXEL: u64 = 4;

/// How a pixel lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    B8g8r8a8 = 1,
    B8g8r8x8 = 2,
    A8r8g8b8 = 3,
    X8r8g8b8 = 4,
    R8g8b8a8 = 67,
    X8b8g8r8 = 68,
    A8b8g8r8 = 121,
    R8g8b8x8 = 134,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 8] = [
        Format::B8g8r8a8,
        Format::B8g8r8x8,
        Format::A8r8g8b8,
        Format::X8r8g8b8,
        Format::R8g8b8a8,
        Format::X8b8g8r8,
        Format::A8b8g8r8,
        Format::R8g8b8x8,
    ];

    /// By its number.
    pub fn from_number(number: u32) -> Option<Format> {
        Format::ALL.into_iter().find(|f| *f as u32 == number)
    }

    /// Turns pixels as they lie in memory (four bytes each) into 0x00RRGGBB.
    pub fn to_rgb(self, from: &[u8], into: &mut [u32]) {
        let convert: fn(u32) -> u32 = match self {
            Format::B8g8r8a8 | Format::B8g8r8x8 => |v| v & 0xff_ffff,
            Format::A8r8g8b8 | Format::X8r8g8b8 => |v| v.swap_bytes() & 0xff_ffff,
            Format::R8g8b8a8 | Format::R8g8b8x8 => |v| v.swap_bytes() >> 8,
            Format::A8b8g8r8 | Format::X8b8g8r8 => |v| v >> 8,
        };
        for (pixel, bytes) in into.iter_mut().zip(from.as_chunks::<4>().0) {
            *pixel = convert(u32::from_le_bytes(*bytes));
        }
    }

    /// Turns one pixel into 0xAARRGGBB; formats without alpha are opaque.
    pub fn to_argb(self, bytes: [u8; 4]) -> u32 {
        let mut rgb = [0];
        self.to_rgb(&bytes, &mut rgb);
        let alpha = match self {
            Format::B8g8r8a8 | Format::R8g8b8a8 => bytes[3],
            Format::A8r8g8b8 | Format::A8b8g8r8 => bytes[0],
            _ => 0xff,
        };
        u32::from(alpha) << 24 | rgb[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_order_of_bytes() {
        for format in Format::ALL {
            let name = format!("{format:?}").to_uppercase();
            let mut bytes = [0; 4];
            for (byte, letter) in bytes.iter_mut().zip(name.bytes().step_by(2)) {
                *byte = match letter {
                    b'R' => 0x11,
                    b'G' => 0x22,
                    b'B' => 0x33,
                    _ => 0x44,
                };
            }
            let mut rgb = [0];
            format.to_rgb(&bytes, &mut rgb);
            assert_eq!(rgb, [0x11_2233], "{name}");
            let alpha = if name.contains('A') { 0x44 } else { 0xff };
            assert_eq!(format.to_argb(bytes), alpha << 24 | 0x11_2233, "{name}");
            assert_eq!(Format::from_number(format as u32), Some(format));
        }
        assert_eq!(Format::from_number(0), None);
    }
}
