//! Pixel formats of clients (RFC 6143, section 7.4).

/// How a client wants its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PixelFormat {
    pub(super) bits_per_pixel: u8,
    pub(super) depth: u8,
    pub(super) big_endian: bool,
    /// Largest value of red, green and blue.
    pub(super) max: [u16; 3],
    pub(super) shift: [u8; 3],
}

impl PixelFormat {
    /// What the server has: 32 bits, 0x00RRGGBB, little-endian.
    pub(super) const NATIVE: PixelFormat = PixelFormat {
        bits_per_pixel: 32,
        depth: 24,
        big_endian: false,
        max: [255; 3],
        shift: [16, 8, 0],
    };

    /// The 16 bytes on the wire.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = self.bits_per_pixel;
        bytes[1] = self.depth;
        bytes[2] = self.big_endian.into();
        bytes[3] = 1; // true colour
        for (n, max) in self.max.iter().enumerate() {
            bytes[4 + 2 * n..6 + 2 * n].copy_from_slice(&max.to_be_bytes());
        }
        bytes[10..13].copy_from_slice(&self.shift);
        bytes
    }

    /// `None` for a format that cannot be: clients that ask for a colour map are refused, as by most servers.
    pub(super) fn from_bytes(bytes: &[u8; 16]) -> Option<PixelFormat> {
        let bits_per_pixel = bytes[0];
        if !matches!(bits_per_pixel, 8 | 16 | 32) || bytes[3] == 0 {
            return None;
        }
        let max = [4, 6, 8].map(|at| u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let shift = [bytes[10], bytes[11], bytes[12]];
        let fits = max.iter().zip(shift).all(|(max, shift)| {
            u32::from(shift) + (16 - max.leading_zeros()) <= u32::from(bits_per_pixel)
        });
        fits.then_some(PixelFormat {
            bits_per_pixel,
            depth: bytes[1],
            big_endian: bytes[2] != 0,
            max,
            shift,
        })
    }

    /// Bytes of a pixel.
    pub(super) fn bytes(self) -> usize {
        usize::from(self.bits_per_pixel / 8)
    }

    /// A pixel's value in this format.
    fn value(self, pixel: u32) -> u32 {
        if self.max == [255; 3] && self.shift == [16, 8, 0] {
            return pixel & 0x00ff_ffff;
        }
        (0..3).fold(0, |value, n| {
            let colour = pixel >> (16 - 8 * n) & 0xff;
            let scaled = (colour * u32::from(self.max[n]) + 127) / 255;
            value | scaled << self.shift[n]
        })
    }

    /// Appends pixels as this format has them.
    pub(super) fn put(self, pixels: &[u32], into: &mut Vec<u8>) {
        into.reserve(pixels.len() * self.bytes());
        match (self.bits_per_pixel, self.big_endian) {
            (8, _) => into.extend(pixels.iter().map(|pixel| self.value(*pixel) as u8)),
            (16, false) => into.extend(
                pixels
                    .iter()
                    .flat_map(|pixel| (self.value(*pixel) as u16).to_le_bytes()),
            ),
            (16, true) => into.extend(
                pixels
                    .iter()
                    .flat_map(|pixel| (self.value(*pixel) as u16).to_be_bytes()),
            ),
            (_, false) => into.extend(
                pixels
                    .iter()
                    .flat_map(|pixel| self.value(*pixel).to_le_bytes()),
            ),
            (_, true) => into.extend(
                pixels
                    .iter()
                    .flat_map(|pixel| self.value(*pixel).to_be_bytes()),
            ),
        }
    }

    /// Which of a 32-bit pixel's bytes make its CPIXEL (section 7.7.5): the three that matter, where three are enough.
    fn compressed(self) -> Option<std::ops::Range<usize>> {
        if self.bits_per_pixel != 32 || self.depth > 24 {
            return None;
        }
        let used = (0..3).fold(0u32, |used, n| {
            used | u32::from(self.max[n]) << self.shift[n]
        });
        let low = used & 0xff00_0000 == 0;
        let high = used & 0x0000_00ff == 0;
        match (low, high, self.big_endian) {
            (true, _, false) | (false, true, true) => Some(0..3),
            (true, _, true) | (false, true, false) => Some(1..4),
            (false, false, _) => None,
        }
    }

    /// Appends pixels as ZRLE has them.
    pub(super) fn put_compressed(self, pixels: &[u32], into: &mut Vec<u8>) {
        let Some(part) = self.compressed() else {
            return self.put(pixels, into);
        };
        into.reserve(pixels.len() * 3);
        for pixel in pixels {
            let value = self.value(*pixel);
            let bytes = if self.big_endian {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            };
            into.extend_from_slice(&bytes[part.clone()]);
        }
    }

    /// Bytes of a CPIXEL.
    pub(super) fn compressed_bytes(self) -> usize {
        if self.compressed().is_some() {
            3
        } else {
            self.bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(format: PixelFormat, pixel: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        format.put(&[pixel], &mut bytes);
        bytes
    }

    #[test]
    fn formats() {
        assert_eq!(put(PixelFormat::NATIVE, 0x0011_2233), [0x33, 0x22, 0x11, 0]);
        let big = PixelFormat {
            big_endian: true,
            ..PixelFormat::NATIVE
        };
        assert_eq!(put(big, 0x0011_2233), [0, 0x11, 0x22, 0x33]);
        let rgb565 = PixelFormat {
            bits_per_pixel: 16,
            depth: 16,
            big_endian: false,
            max: [31, 63, 31],
            shift: [11, 5, 0],
        };
        assert_eq!(put(rgb565, 0x00ff_0000), [0x00, 0xf8]);
        assert_eq!(put(rgb565, 0x0000_ff00), [0xe0, 0x07]);
        assert_eq!(
            put(
                PixelFormat {
                    big_endian: true,
                    ..rgb565
                },
                0x0000_ff00
            ),
            [0x07, 0xe0]
        );
        let bgr233 = PixelFormat {
            bits_per_pixel: 8,
            depth: 8,
            big_endian: false,
            max: [7, 7, 3],
            shift: [0, 3, 6],
        };
        assert_eq!(put(bgr233, 0x00ff_ffff), [0xff]);
        assert_eq!(put(bgr233, 0x00ff_0000), [0x07]);
        assert_eq!(PixelFormat::from_bytes(&rgb565.to_bytes()), Some(rgb565));
    }

    #[test]
    fn cpixels_leave_the_unused_byte_out() {
        let put = |format: PixelFormat| {
            let mut bytes = Vec::new();
            format.put_compressed(&[0x0011_2233], &mut bytes);
            assert_eq!(bytes.len(), format.compressed_bytes());
            bytes
        };
        let native = PixelFormat::NATIVE;
        assert_eq!(put(native), [0x33, 0x22, 0x11]);
        assert_eq!(
            put(PixelFormat {
                big_endian: true,
                ..native
            }),
            [0x11, 0x22, 0x33]
        );
        let high = PixelFormat {
            shift: [24, 16, 8],
            ..native
        };
        assert_eq!(put(high), [0x33, 0x22, 0x11]);
        assert_eq!(
            put(PixelFormat {
                big_endian: true,
                ..high
            }),
            [0x11, 0x22, 0x33]
        );
        assert_eq!(
            put(PixelFormat {
                depth: 32,
                ..native
            })
            .len(),
            4
        );
    }

    proptest! {
        #[test]
        fn any_format_is_refused_or_works(bytes in any::<[u8; 16]>(), pixel in any::<u32>()) {
            let mut bytes = bytes;
            bytes[0] = [8, 16, 32][usize::from(bytes[0] % 3)];
            if let Some(format) = PixelFormat::from_bytes(&bytes) {
                let mut out = Vec::new();
                format.put(&[pixel], &mut out);
                prop_assert_eq!(out.len(), format.bytes());
                out.clear();
                format.put_compressed(&[pixel], &mut out);
                prop_assert_eq!(out.len(), format.compressed_bytes());
            }
        }
    }
}
