//! Bits out of 16-bit little-endian words, the most significant first.

/// A reader from the start (LZX).
pub(super) struct Forward<'a> {
    input: &'a [u8],
    /// The next byte to load.
    at: usize,
    /// Loaded bits, from the top.
    bits: u64,
    count: u32,
}

impl<'a> Forward<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Forward {
            input,
            at: 0,
            bits: 0,
            count: 0,
        }
    }

    /// Loads until there are 32 bits at least; past the end they are zeroes.
    #[inline(always)]
    pub fn fill(&mut self) {
        if self.count < 32 {
            if let Some(four) = self.input.get(self.at..self.at + 4) {
                let word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]).rotate_left(16);
                self.bits |= u64::from(word) << (32 - self.count);
            } else if let Some(two) = self.input.get(self.at..self.at + 2) {
                let word = u32::from(u16::from_le_bytes([two[0], two[1]])) << 16;
                self.bits |= u64::from(word) << (32 - self.count);
            }
            self.at += 4;
            self.count += 32;
        }
    }

    /// The next 32 bits, after [`Forward::fill`].
    #[inline(always)]
    pub fn peek(&self) -> u32 {
        (self.bits >> 32) as u32
    }

    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.bits <<= count;
        self.count = self.count.wrapping_sub(count);
    }

    /// Up to 31 bits, after [`Forward::fill`].
    #[inline(always)]
    pub fn take(&mut self, count: u32) -> u32 {
        let value = (self.bits >> 1 >> (63 - count)) as u32;
        self.skip(count);
        value
    }

    /// Fills, then takes up to 31 bits.
    pub fn read(&mut self, count: u32) -> u32 {
        self.fill();
        self.take(count)
    }

    /// Drops bits up to a 16-bit boundary, a whole word if already there (LZX uncompressed blocks); the byte that follows.
    pub fn align(&mut self) -> usize {
        let consumed = (self.at * 8) as u64 - u64::from(self.count);
        (consumed / 16 + 1) as usize * 2
    }

    /// Goes on at a byte.
    pub fn seek(&mut self, at: usize) {
        *self = Forward {
            at,
            ..Forward::new(self.input)
        };
    }

    /// Whether more was taken than there is.
    pub fn overrun(&self) -> bool {
        self.at * 8 > self.input.len() * 8 + self.count as usize + 16
    }
}

/// A reader from the end (LZMS).
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    /// What is not loaded yet.
    input: &'a [u8],
    bits: u64,
    count: u32,
}

impl<'a> Backward<'a> {
    /// The length of `input` must be even.
    pub fn new(input: &'a [u8]) -> Self {
        Backward {
            input,
            bits: 0,
            count: 0,
        }
    }

    /// Loads until there are 32 bits at least; before the start they are zeroes.
    #[inline(always)]
    pub fn fill(&mut self) {
        if self.count < 32 {
            let word = if let Some((rest, four)) = self.input.split_last_chunk() {
                self.input = rest;
                u32::from_le_bytes(*four)
            } else if let Some((rest, two)) = self.input.split_last_chunk() {
                self.input = rest;
                u32::from(u16::from_le_bytes(*two)) << 16
            } else {
                0
            };
            self.bits |= u64::from(word) << (32 - self.count);
            self.count += 32;
        }
    }

    #[inline(always)]
    pub fn peek(&self) -> u32 {
        (self.bits >> 32) as u32
    }

    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.bits <<= count;
        self.count -= count;
    }

    /// Up to 31 bits, after [`Backward::fill`].
    #[inline(always)]
    pub fn take(&mut self, count: u32) -> u32 {
        let value = (self.bits >> 1 >> (63 - count)) as u32;
        self.skip(count);
        value
    }
}
