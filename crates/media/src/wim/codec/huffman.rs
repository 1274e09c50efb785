//! Canonical prefix codes, read from the most significant bit.

use super::Corrupt;

/// The longest codeword of any of the formats.
pub(super) const LONGEST: usize = 16;

/// The most bits of any table.
const WIDEST: usize = 11;

/// A decoder: codewords of up to `BITS` bits by table, longer ones by their place among those of their length.
pub(super) struct Decoder<const BITS: usize, const SYMBOLS: usize> {
    /// Symbol and length (4 bits); 0 for longer codewords. 2^BITS of them count.
    table: [u16; 1 << WIDEST],
    /// Symbols by length, then by value.
    sorted: [u16; SYMBOLS],
    /// For each length: the codewords' end, aligned to 16 bits, and what to add to a codeword for its place in `sorted`.
    end: [u32; LONGEST + 1],
    place: [i32; LONGEST + 1],
    longest: usize,
}

impl<const BITS: usize, const SYMBOLS: usize> Default for Decoder<BITS, SYMBOLS> {
    fn default() -> Self {
        Decoder {
            table: [0; 1 << WIDEST],
            sorted: [0; SYMBOLS],
            end: [0; LONGEST + 1],
            place: [0; LONGEST + 1],
            longest: 0,
        }
    }
}

impl<const BITS: usize, const SYMBOLS: usize> Decoder<BITS, SYMBOLS> {
    /// Makes the decoder of codewords of these lengths, which must use the whole code space, or none of it.
    pub fn build(&mut self, lengths: &[u8]) -> Result<(), Corrupt> {
        let mut count = [0u32; LONGEST + 1];
        for &length in lengths {
            *count.get_mut(usize::from(length)).ok_or(Corrupt)? += 1;
        }
        let mut start = [0usize; LONGEST + 2];
        let mut used = 0u32;
        for length in 1..=LONGEST {
            start[length + 1] = start[length] + count[length] as usize;
            used += count[length] << (LONGEST - length);
        }
        self.longest = 0;
        if used == 0 {
            self.table[..1 << BITS].fill(0);
            return Ok(());
        }
        if used != 1 << LONGEST {
            return Err(Corrupt);
        }
        let mut next = start;
        for (symbol, &length) in lengths.iter().enumerate() {
            if length != 0 {
                let place = &mut next[usize::from(length)];
                self.sorted[*place] = symbol as u16;
                *place += 1;
            }
        }
        let mut code = 0u32;
        let mut filled = 0;
        for length in 1..=LONGEST {
            let first = code >> (LONGEST - length);
            self.place[length] = start[length] as i32 - first as i32;
            code += count[length] << (LONGEST - length);
            self.end[length] = code;
            if count[length] == 0 {
                continue;
            }
            self.longest = length;
            if length <= BITS {
                let each = 1 << (BITS - length);
                for &symbol in &self.sorted[start[length]..start[length + 1]] {
                    self.table[filled..filled + each].fill(symbol << 4 | length as u16);
                    filled += each;
                }
            }
        }
        self.table[filled..1 << BITS].fill(0);
        Ok(())
    }

    /// The symbol that the top of `bits` begins with, and its length. The lower bits may be anything.
    #[inline(always)]
    pub fn decode(&self, bits: u32) -> Result<(usize, u32), Corrupt> {
        let entry = self.table[(bits >> (32 - BITS)) as usize];
        // A codeword of 16 bits has length 0 here, and is longer than any table.
        if entry & 15 != 0 {
            return Ok((usize::from(entry >> 4), u32::from(entry & 15)));
        }
        self.decode_long(bits)
    }

    #[cold]
    fn decode_long(&self, bits: u32) -> Result<(usize, u32), Corrupt> {
        let word = bits >> 16;
        for length in BITS + 1..=self.longest {
            if word < self.end[length] {
                let place = (word >> (LONGEST - length)) as i32 + self.place[length];
                let symbol = self.sorted.get(place as usize).ok_or(Corrupt)?;
                return Ok((usize::from(*symbol), length as u32));
            }
        }
        Err(Corrupt)
    }
}
