//! Bits into bytes, the lowest first; who reads them begins at the end.

pub(super) struct Bits<'a> {
    out: &'a mut Vec<u8>,
    /// Where the next whole bytes go.
    at: usize,
    waiting: u64,
    count: u32,
}

impl Bits<'_> {
    /// Bits behind what is in `out`, `most` at most.
    pub fn new(out: &mut Vec<u8>, most: usize) -> Bits<'_> {
        let at = out.len();
        // The last word is written whole.
        out.resize(at + most / 8 + 16, 0);
        Bits {
            out,
            at,
            waiting: 0,
            count: 0,
        }
    }

    /// Adds bits: `value` has no more than `count`. At most 56 fit between two calls of [`Bits::flush`].
    #[inline(always)]
    pub fn put(&mut self, value: u64, count: u32) {
        debug_assert!(value >> count == 0 && self.count + count < 64);
        self.waiting |= value << self.count;
        self.count += count;
    }

    /// Writes whole bytes; at most 7 bits wait after it.
    #[inline(always)]
    pub fn flush(&mut self) {
        let whole = self.count / 8;
        self.out[self.at..self.at + 8].copy_from_slice(&self.waiting.to_le_bytes());
        self.at += whole as usize;
        self.waiting >>= whole * 8;
        self.count %= 8;
    }

    /// Fills the last byte up with zeroes.
    pub fn align(mut self) {
        self.count = self.count.next_multiple_of(8);
        self.flush();
        self.out.truncate(self.at);
    }

    /// The mark from which whoever reads backwards begins: a 1, and zeroes up to a whole byte.
    pub fn end(mut self) {
        self.flush();
        self.put(1, 1);
        self.align();
    }
}
