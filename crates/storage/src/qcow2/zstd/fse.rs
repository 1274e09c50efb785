//! Finite state entropy coding (4.1): tables, how they are written, and the encoder's side of the states.

use super::Bits;

/// No alphabet is larger: match lengths have 53 codes.
pub(super) const SYMBOLS: usize = 53;
/// No table is larger: 2^9 states.
const LARGEST: usize = 1 << 9;
/// The smallest accuracy, in bits.
const LEAST: u32 = 5;

/// How often each symbol comes in a table of 2^`log` states; −1 is a share below 1 (only in the tables that are given).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub of: [i16; SYMBOLS],
    pub log: u32,
}

impl Shares {
    /// The shares in a table for these counts, of which two at least are not 0. `most` is the largest accuracy.
    pub fn new(counts: &[u32; SYMBOLS], most: u32) -> Shares {
        let total: u32 = counts.iter().sum();
        let symbols = counts.iter().filter(|count| **count != 0).count() as u32;
        // Fine tables are long to write: none for few symbols.
        let log = (total - 1).ilog2().saturating_sub(2);
        let log = log.max(symbols.ilog2() + 1).clamp(LEAST, most);
        let size = 1u32 << log;
        let mut of = [0; SYMBOLS];
        let mut given = 0;
        for (share, &count) in of.iter_mut().zip(counts) {
            if count != 0 {
                let exact = u64::from(count) * u64::from(size) * 2 / u64::from(total);
                *share = (exact.div_ceil(2) as i16).max(1);
                given += i32::from(*share);
            }
        }
        // What rounding gave too much or too little is on those that have most.
        while given != size as i32 {
            let largest = (0..SYMBOLS).max_by_key(|symbol| of[*symbol]).unwrap_or(0);
            let change = (size as i32 - given)
                .max(-i32::from(of[largest] / 2))
                .max(-i32::from(of[largest] - 1));
            of[largest] += change as i16;
            given += change;
        }
        Shares { of, log }
    }

    /// About how many bits `counts` take, in 256ths; `None` if a symbol has no share.
    pub fn cost(&self, counts: &[u32; SYMBOLS]) -> Option<u64> {
        let mut cost = 0.0;
        for (&count, &share) in counts.iter().zip(&self.of) {
            if count != 0 {
                if share == 0 {
                    return None;
                }
                let bits = self.log as f32 - f32::from(share.max(1)).log2();
                cost += count as f32 * bits;
            }
        }
        Some((cost * 256.0) as u64)
    }

    /// The table's description (4.1.1).
    pub fn write(&self, out: &mut Vec<u8>) {
        // A share takes a bit more than the accuracy, those that are none less.
        let mut bits = Bits::new(out, SYMBOLS * 16);
        bits.put(u64::from(self.log - LEAST), 4);
        let mut threshold = 1i32 << self.log;
        let mut width = self.log + 1;
        let mut left = threshold + 1;
        let mut symbol = 0;
        while left > 1 {
            let share = self.of[symbol];
            symbol += 1;
            // Small values have a bit less.
            let short = 2 * threshold - 1 - left;
            left -= i32::from(share);
            let mut value = i32::from(share) + 1;
            if value >= threshold {
                value += short;
            }
            bits.put(value as u64, width - u32::from(value < short));
            bits.flush();
            while left < threshold && threshold > 1 {
                width -= 1;
                threshold >>= 1;
            }
            if share == 0 {
                // How many more have none, three at a time.
                let more = self.of[symbol..]
                    .iter()
                    .take_while(|share| **share == 0)
                    .count();
                symbol += more;
                for _ in 0..more / 3 {
                    bits.put(3, 2);
                    bits.flush();
                }
                bits.put(more as u64 % 3, 2);
            }
        }
        bits.align();
    }
}

/// What encodes with a table.
#[derive(Clone)]
pub(super) struct Encoder {
    log: u32,
    /// States by symbol, and by where the state after them lies.
    states: [u16; LARGEST],
    /// For each symbol: bits to write, in 65536ths, less the state from which on there is one more; and where in `states`
    /// its own begin, less its share.
    change: [(u32, i32); SYMBOLS],
}

impl Encoder {
    pub fn new(shares: &Shares) -> Encoder {
        let size = 1usize << shares.log;
        // Who is in which state (4.1.1): those below 1 at the end, the others strewn.
        let mut symbols = [0u8; LARGEST];
        let mut high = size;
        for (symbol, &share) in shares.of.iter().enumerate() {
            if share == -1 {
                high -= 1;
                symbols[high] = symbol as u8;
            }
        }
        let step = size / 2 + size / 8 + 3;
        let mut at = 0;
        for (symbol, &share) in shares.of.iter().enumerate() {
            for _ in 0..share.max(0) {
                symbols[at] = symbol as u8;
                at = (at + step) % size;
                while at >= high {
                    at = (at + step) % size;
                }
            }
        }
        let mut change = [(0, 0); SYMBOLS];
        let mut next = [0usize; SYMBOLS];
        let mut begin = 0;
        for (symbol, &share) in shares.of.iter().enumerate() {
            let share = u32::from(share.unsigned_abs());
            next[symbol] = begin;
            if share != 0 {
                let most = match share {
                    1 => shares.log,
                    _ => shares.log - (share - 1).ilog2(),
                };
                change[symbol] = (
                    (most << 16).wrapping_sub(share << most),
                    begin as i32 - share as i32,
                );
            }
            begin += share as usize;
        }
        let mut states = [0; LARGEST];
        for (state, &symbol) in symbols[..size].iter().enumerate() {
            let place = &mut next[usize::from(symbol)];
            states[*place] = (size + state) as u16;
            *place += 1;
        }
        Encoder {
            log: shares.log,
            states,
            change,
        }
    }

    /// The state for a symbol after which none comes: its first one, which needs the most bits.
    #[inline(always)]
    pub fn begin(&self, symbol: u8) -> u32 {
        let (bits, place) = self.change[usize::from(symbol)];
        let count = bits.wrapping_add(1 << 15) >> 16;
        let state = (count << 16).wrapping_sub(bits) >> count;
        u32::from(self.states[(state as i32 + place) as usize])
    }

    /// Puts a symbol before those that were put: its state, from which the bits lead to the one after it.
    #[inline(always)]
    pub fn put(&self, state: &mut u32, symbol: u8, bits: &mut Bits<'_>) {
        let (width, place) = self.change[usize::from(symbol)];
        let count = state.wrapping_add(width) >> 16;
        bits.put(u64::from(*state & ((1 << count) - 1)), count);
        *state = u32::from(self.states[((*state >> count) as i32 + place) as usize]);
    }

    /// The state to begin with.
    pub fn end(&self, state: u32, bits: &mut Bits<'_>) {
        bits.put(u64::from(state & ((1 << self.log) - 1)), self.log);
    }
}
