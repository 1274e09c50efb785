//! Stream formats (3.7.1) and the samples that they describe.

use audio::Frame;

/// What lies in a stream's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Frames a second.
    pub rate: u32,
    /// Bits of a sample: 8, 16, 20, 24 or 32.
    bits: u8,
    /// Samples of a frame.
    channels: usize,
}

impl Format {
    /// Out of SDnFMT or a converter's format.
    pub fn new(register: u16) -> Format {
        let base = if register & 1 << 14 != 0 {
            44100
        } else {
            48000
        };
        let multiply = u32::from((register >> 11 & 7).min(3)) + 1;
        let divide = u32::from(register >> 8 & 7) + 1;
        let bits = match register >> 4 & 7 {
            0 => 8,
            1 => 16,
            2 => 20,
            3 => 24,
            _ => 32,
        };
        Format {
            rate: base * multiply / divide,
            bits,
            channels: usize::from(register & 0xf) + 1,
        }
    }

    /// Bytes that a sample takes: a container of 8, 16 or 32 bits (4.5.1).
    fn container(&self) -> usize {
        match self.bits {
            8 => 1,
            16 => 2,
            _ => 4,
        }
    }

    /// Bytes of a frame.
    pub fn frame(&self) -> usize {
        self.container() * self.channels
    }

    /// Left and right of each frame; `channel` is the one that goes to the left (the converter's lowest).
    pub fn decode(&self, bytes: &[u8], channel: u8, into: &mut Vec<Frame>) {
        let size = self.container();
        let left = usize::from(channel).min(self.channels - 1);
        let right = (left + 1).min(self.channels - 1);
        into.extend(bytes.chunks_exact(self.frame()).map(|frame| {
            let sample = |i: usize| self.sample(&frame[i * size..][..size]);
            [sample(left), sample(right)]
        }));
    }

    /// Samples are left-justified in their containers; 8-bit ones are signed too.
    fn sample(&self, bytes: &[u8]) -> f32 {
        match *bytes {
            [a] => f32::from(a as i8) / 128.0,
            [a, b] => f32::from(i16::from_le_bytes([a, b])) / 32768.0,
            [a, b, c, d] => {
                let mask = u32::MAX << (32 - u32::from(self.bits));
                let value = u32::from_le_bytes([a, b, c, d]) & mask;
                value as i32 as f32 / 2_147_483_648.0
            }
            _ => 0.0,
        }
    }

    /// The bytes of frames that were recorded: left and right from `channel` on, the same for one channel, silence on
    /// others.
    pub fn encode(&self, frames: &[Frame], channel: u8, into: &mut Vec<u8>) {
        for frame in frames {
            for i in 0..self.channels {
                let value = match i.checked_sub(usize::from(channel)) {
                    Some(side @ (0 | 1)) => frame[side],
                    _ => 0.0,
                };
                let full = f64::from(value) * 2_147_483_648.0;
                let step = f64::from(1u32 << (32 - u32::from(self.bits)).min(31));
                // Rounded to the sample's own bits; `as` stops at the ends.
                let value = ((full / step).round() * step) as i32;
                let value = value & (u32::MAX << (32 - u32::from(self.bits))) as i32;
                into.extend(&value.to_le_bytes()[4 - self.container()..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_sizes_as_the_register_says() {
        for (register, rate, frame) in [
            (0x0011, 48000, 4),
            (0x4011, 44100, 4),
            (0x0811, 96000, 4),
            (0x1841, 192000, 8),
            (0x1831, 192000, 8),
            (0x4821, 88200, 8),
            (0x0511, 8000, 4),
            (0x0000, 48000, 1),
            (0x001f, 48000, 32),
        ] {
            let format = Format::new(register);
            assert_eq!(
                (format.rate, format.frame()),
                (rate, frame),
                "{register:#x}"
            );
        }
    }

    #[test]
    fn samples_go_there_and_back() {
        for register in [0x0001u16, 0x0011, 0x0021, 0x0031] {
            let format = Format::new(register);
            let step = 1u32 << (32 - u32::from(format.bits));
            let mut bytes = Vec::new();
            for i in 0..64u32 {
                let value = i.wrapping_mul(0x0765_4321).wrapping_mul(7) / step * step;
                bytes.extend(&value.to_le_bytes()[4 - format.container()..]);
            }
            let mut frames = Vec::new();
            format.decode(&bytes, 0, &mut frames);
            let mut back = Vec::new();
            format.encode(&frames, 0, &mut back);
            assert_eq!(back, bytes, "{register:#x}");
        }
    }

    #[test]
    fn too_loud_is_as_loud_as_can_be() {
        let mut bytes = Vec::new();
        Format::new(0x0011).encode(&[[2.0, -2.0]], 0, &mut bytes);
        assert_eq!(bytes, [0xff, 0x7f, 0x00, 0x80]);
        let mut bytes = Vec::new();
        Format::new(0x0041).encode(&[[2.0, -2.0]], 0, &mut bytes);
        assert_eq!(bytes, [0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0x80]);
    }
}
