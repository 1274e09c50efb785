//! LZMS: a range decoder from the start for what kind of item comes, adaptive prefix codes from the end for literals,
//! lengths and offsets, matches of differences beside plain ones, and relative x86 addresses translated.
//!
//! No specification is public; this is the format as programs that read and write it agree on it.

use super::bits::Backward;
use super::huffman::Decoder;
use super::{Corrupt, copy_match};

const LITERALS: usize = 256;
const LENGTHS: usize = 54;
const OFFSETS: usize = 799;
const POWERS: usize = 8;
/// No codeword is longer.
const LONGEST: usize = 15;

/// How many slots have ranges of 2^0, 2^1, 2^2 … values before them.
const OFFSET_RUNS: [u8; 21] = [
    9, 0, 9, 7, 10, 15, 15, 20, 20, 30, 33, 40, 42, 45, 60, 73, 80, 85, 95, 105, 6,
];
const LENGTH_RUNS: [u8; 17] = [27, 4, 6, 4, 5, 2, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1];

/// First value of each slot and its extra bits; the last slot has `last` of them.
const fn slots<const N: usize>(runs: &[u8], last: u8) -> [(u32, u8); N] {
    let mut table = [(0, 0); N];
    let (mut slot, mut base, mut order) = (0, 0u32, 0);
    while order < runs.len() {
        let mut left = runs[order];
        while left > 0 {
            base += 1 << order;
            if slot > 0 {
                table[slot - 1].1 = order as u8;
            }
            table[slot].0 = base;
            slot += 1;
            left -= 1;
        }
        order += 1;
    }
    table[N - 1].1 = last;
    table
}

static OFFSET: [(u32, u8); OFFSETS] = slots(&OFFSET_RUNS, 30);
static LENGTH: [(u32, u8); LENGTHS] = slots(&LENGTH_RUNS, 30);

/// A bit's history: of the last 64, how many were 0 is its probability.
#[derive(Clone, Copy)]
struct Probability {
    last: u64,
    /// Counted along: many processors have no instruction for it that may be taken for granted.
    zeroes: u32,
}

const EVEN: Probability = Probability {
    last: 0x5555_5555,
    zeroes: 48,
};

/// Probabilities by the last few decisions of the same kind.
struct Context<const N: usize> {
    state: usize,
    entries: [Probability; N],
}

impl<const N: usize> Context<N> {
    const fn new() -> Self {
        Context {
            state: 0,
            entries: [EVEN; N],
        }
    }
}

/// The range decoder.
struct Range<'a> {
    input: &'a [u8],
    at: usize,
    range: u32,
    code: u32,
}

impl Range<'_> {
    #[inline(always)]
    fn bit<const N: usize>(&mut self, context: &mut Context<N>) -> bool {
        let entry = &mut context.entries[context.state & (N - 1)];
        let zeroes = entry.zeroes.clamp(1, 63);
        if self.range <= 0xFFFF {
            self.range <<= 16;
            self.code = self.code << 16 | self.word();
        }
        let bound = (self.range >> 6) * zeroes;
        let bit = self.code >= bound;
        if bit {
            self.range -= bound;
            self.code -= bound;
        } else {
            self.range = bound;
        }
        entry.zeroes = entry.zeroes + (entry.last >> 63) as u32 - u32::from(bit);
        entry.last = entry.last << 1 | u64::from(bit);
        context.state = (context.state << 1 | usize::from(bit)) & (N - 1);
        bit
    }

    #[inline(always)]
    fn word(&mut self) -> u32 {
        let word = self
            .input
            .get(self.at..self.at + 2)
            .map_or(0, |two| u32::from(u16::from_le_bytes([two[0], two[1]])));
        self.at += 2;
        word
    }
}

/// A prefix code that follows the frequencies of its symbols.
struct Adaptive<const BITS: usize, const SYMBOLS: usize> {
    decoder: Decoder<BITS, SYMBOLS>,
    frequencies: [u32; SYMBOLS],
    symbols: usize,
    period: u32,
    left: u32,
}

impl<const BITS: usize, const SYMBOLS: usize> Adaptive<BITS, SYMBOLS> {
    fn new(period: u32) -> Self {
        Adaptive {
            decoder: Decoder::default(),
            frequencies: [1; SYMBOLS],
            symbols: SYMBOLS,
            period,
            left: period,
        }
    }

    fn reset(&mut self, symbols: usize) -> Result<(), Corrupt> {
        self.symbols = symbols;
        self.frequencies.fill(1);
        self.rebuild()
    }

    fn rebuild(&mut self) -> Result<(), Corrupt> {
        let mut lengths = [0; SYMBOLS];
        code_lengths(
            &self.frequencies[..self.symbols],
            &mut lengths[..self.symbols],
        );
        self.left = self.period;
        self.decoder.build(&lengths[..self.symbols])
    }

    #[inline(always)]
    fn decode(&mut self, bits: &mut Backward<'_>) -> Result<usize, Corrupt> {
        bits.fill();
        let (symbol, length) = self.decoder.decode(bits.peek())?;
        bits.skip(length);
        self.frequencies[symbol] += 1;
        self.left -= 1;
        if self.left == 0 {
            self.age()?;
        }
        Ok(symbol)
    }

    #[cold]
    fn age(&mut self) -> Result<(), Corrupt> {
        self.rebuild()?;
        for frequency in &mut self.frequencies[..self.symbols] {
            *frequency = (*frequency >> 1) + 1;
        }
        Ok(())
    }
}

/// Symbols, with their frequency above them, by frequency, then value.
fn sort(frequencies: &[u32], sorted: &mut [u32]) {
    /// Most are rare: these are counted, the others compared.
    const RARE: usize = 64;
    let bucket = |frequency: u32| (frequency as usize).min(RARE);
    let mut next = [0u16; RARE + 2];
    for &frequency in frequencies {
        next[bucket(frequency) + 1] += 1;
    }
    for index in 1..next.len() {
        next[index] += next[index - 1];
    }
    let frequent = usize::from(next[RARE]);
    for (symbol, &frequency) in frequencies.iter().enumerate() {
        let place = &mut next[bucket(frequency)];
        sorted[usize::from(*place)] = frequency << 10 | symbol as u32;
        *place += 1;
    }
    sorted[frequent..].sort_unstable();
}

/// Lengths of an optimal prefix code; which of the optimal ones is part of the format. Symbols are taken by frequency, then
/// value; of a symbol and an inner node of the same frequency the symbol is taken first.
fn code_lengths(frequencies: &[u32], lengths: &mut [u8]) {
    let symbols = frequencies.len();
    lengths.fill(0);
    if symbols < 2 {
        // A code needs two codewords to be complete.
        lengths.fill(1);
        return;
    }
    let mut sorted = [0u32; OFFSETS];
    let sorted = &mut sorted[..symbols];
    sort(frequencies, sorted);
    // Inner nodes come into being in the order of their frequencies.
    let mut weight = [0u32; OFFSETS];
    let mut parent = [0u16; OFFSETS];
    let (mut leaf, mut inner) = (0, 0);
    for node in 0..symbols - 1 {
        let mut total = 0;
        for _ in 0..2 {
            let take_leaf =
                leaf < symbols && (inner >= node || sorted[leaf] >> 10 <= weight[inner]);
            if take_leaf {
                total += sorted[leaf] >> 10;
                leaf += 1;
            } else {
                total += weight[inner];
                parent[inner] = node as u16;
                inner += 1;
            }
        }
        weight[node] = total;
    }
    // From the root down: an inner node turns one codeword of its depth into two that are longer.
    let mut count = [0u32; LONGEST + 2];
    let mut depth = [0u8; OFFSETS];
    count[1] = 2;
    for node in (0..symbols - 2).rev() {
        depth[node] = depth[usize::from(parent[node])] + 1;
        let mut at = usize::from(depth[node]);
        if at >= LONGEST {
            at = LONGEST - 1;
            while count[at] == 0 {
                at -= 1;
            }
        }
        count[at] -= 1;
        count[at + 1] += 2;
    }
    // The rarest get the longest.
    let mut next = 0;
    for length in (1..=LONGEST).rev() {
        for _ in 0..count[length] {
            lengths[(sorted[next] & 0x3FF) as usize] = length as u8;
            next += 1;
        }
    }
}

/// Slots for offsets below `size`.
fn offset_slots(size: usize) -> usize {
    if size < 2 {
        return 0;
    }
    OFFSET.partition_point(|slot| (slot.0 as usize) < size)
}

/// The codes and the translator's memory, large enough to keep from chunk to chunk.
pub(super) struct Lzms {
    literal: Adaptive<10, LITERALS>,
    length: Adaptive<9, LENGTHS>,
    offset: Adaptive<11, OFFSETS>,
    delta_power: Adaptive<7, POWERS>,
    delta_offset: Adaptive<11, OFFSETS>,
    last_use: Box<[i32]>,
}

/// What the item before was; a repeat right after its own kind cannot mean that same offset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    Literal,
    Match,
    Delta,
}

/// The offset (or pair) that an item repeats, moved to the front; three can be named.
#[inline(always)]
fn repeat<T: Copy>(recent: &mut [T; 4], which: usize) -> T {
    let value = recent[which];
    recent.copy_within(0..which, 1);
    recent[0] = value;
    value
}

#[inline(always)]
fn push<T: Copy>(recent: &mut [T; 4], value: T) {
    recent.copy_within(0..3, 1);
    recent[0] = value;
}

impl Lzms {
    pub fn new() -> Self {
        Lzms {
            literal: Adaptive::new(1024),
            length: Adaptive::new(512),
            offset: Adaptive::new(1024),
            delta_power: Adaptive::new(512),
            delta_offset: Adaptive::new(1024),
            last_use: vec![0; 1 << 16].into_boxed_slice(),
        }
    }

    pub fn decompress(&mut self, input: &[u8], out: &mut [u8]) -> Result<(), Corrupt> {
        // Both streams are of 16-bit words.
        if input.len() < 4 || !input.len().is_multiple_of(2) {
            return Err(Corrupt);
        }
        let slots = offset_slots(out.len());
        self.literal.reset(LITERALS)?;
        self.length.reset(LENGTHS)?;
        self.delta_power.reset(POWERS)?;
        if slots >= 2 {
            self.offset.reset(slots)?;
            self.delta_offset.reset(slots)?;
        }
        let mut range = Range {
            input,
            at: 0,
            range: u32::MAX,
            code: 0,
        };
        range.code = range.word() << 16;
        range.code |= range.word();
        let mut bits = Backward::new(input);
        let mut main = Context::<16>::new();
        let mut kind = Context::<32>::new();
        let mut lz = Context::<64>::new();
        let mut lz_repeat = [Context::<64>::new(), Context::<64>::new()];
        let mut delta = Context::<64>::new();
        let mut delta_repeat = [Context::<64>::new(), Context::<64>::new()];
        let mut recent = [1u32, 2, 3, 4];
        let mut recent_delta = [(0u32, 1u32), (0, 2), (0, 3), (0, 4)];
        let mut before = Item::Literal;
        let mut at = 0;
        while at < out.len() {
            if !range.bit(&mut main) {
                out[at] = self.literal.decode(&mut bits)? as u8;
                at += 1;
                before = Item::Literal;
                continue;
            }
            if slots < 2 {
                return Err(Corrupt);
            }
            if !range.bit(&mut kind) {
                let offset = if !range.bit(&mut lz) {
                    let offset = value(&mut self.offset, &OFFSET, &mut bits)?;
                    push(&mut recent, offset);
                    offset
                } else {
                    let which = which(&mut range, &mut lz_repeat);
                    repeat(&mut recent, which + usize::from(before == Item::Match))
                } as usize;
                before = Item::Match;
                let length = value(&mut self.length, &LENGTH, &mut bits)? as usize;
                if offset > at || length > out.len() - at {
                    return Err(Corrupt);
                }
                copy_match(out, at, offset, length);
                at += length;
            } else {
                let (power, raw) = if !range.bit(&mut delta) {
                    let power = self.delta_power.decode(&mut bits)? as u32;
                    let raw = value(&mut self.delta_offset, &OFFSET, &mut bits)?;
                    push(&mut recent_delta, (power, raw));
                    (power, raw)
                } else {
                    let which = which(&mut range, &mut delta_repeat);
                    repeat(
                        &mut recent_delta,
                        which + usize::from(before == Item::Delta),
                    )
                };
                before = Item::Delta;
                let length = value(&mut self.length, &LENGTH, &mut bits)? as usize;
                let span = 1usize << power;
                let offset = (raw as usize) << power;
                if offset + span > at || length > out.len() - at {
                    return Err(Corrupt);
                }
                let window = &mut out[at - offset - span..at + length];
                for here in offset + span..window.len() {
                    window[here] = window[here - offset]
                        .wrapping_add(window[here - span])
                        .wrapping_sub(window[here - offset - span]);
                }
                at += length;
            }
        }
        self.translate(out);
        Ok(())
    }

    /// Makes absolute x86 addresses relative again, where the compressor saw that others near by had the same target.
    fn translate(&mut self, data: &mut [u8]) {
        /// A target counts if it was used within so many bytes.
        const TARGET: i32 = 65_535;
        /// Addresses are translated within so many bytes of one that counted.
        const REACH: i32 = 1023;
        if data.len() <= 17 {
            return;
        }
        self.last_use.fill(-TARGET - 1);
        let mut last = -REACH - 1;
        let end = data.len() - 16;
        let mut at = 1;
        while at < end {
            // Most bytes begin no instruction that counts.
            while let Some(sixteen) = data[at..end].first_chunk()
                && !may_begin(sixteen)
            {
                at += 16;
            }
            match data[at..end]
                .iter()
                .position(|byte| OPCODES[usize::from(*byte)])
            {
                Some(skip) => at += skip,
                None => break,
            }
            let (opcode, reach) = match data[at] {
                0x48 => match (data[at + 1], data[at + 2]) {
                    (0x8B, 0x05 | 0x0D) => (3, REACH),
                    (0x8D, modrm) if modrm & 7 == 5 => (3, REACH),
                    _ => (0, 0),
                },
                0x4C if data[at + 1] == 0x8D && data[at + 2] & 7 == 5 => (3, REACH),
                0xE8 => (1, REACH / 2),
                0xE9 => {
                    at += 5;
                    continue;
                }
                0xF0 if data[at + 1] == 0x83 && data[at + 2] == 0x05 => (3, REACH),
                0xFF if data[at + 1] == 0x15 => (2, REACH),
                _ => (0, 0),
            };
            if opcode == 0 {
                at += 1;
                continue;
            }
            let field = at + opcode;
            if at as i32 - last <= reach {
                let mut address = [0; 4];
                address.copy_from_slice(&data[field..field + 4]);
                let relative = u32::from_le_bytes(address).wrapping_sub(at as u32);
                data[field..field + 4].copy_from_slice(&relative.to_le_bytes());
            }
            let low = u16::from_le_bytes([data[field], data[field + 1]]);
            let target = usize::from((at as u16).wrapping_add(low));
            let here = (field + 3) as i32;
            if here - self.last_use[target] <= TARGET {
                last = here;
            }
            self.last_use[target] = here;
            at = field + 4;
        }
    }
}

/// The first bytes of what [`Lzms::translate`] looks for.
static OPCODES: [bool; 256] = {
    let mut table = [false; 256];
    let first = [0x48, 0x4C, 0xE8, 0xE9, 0xF0, 0xFF];
    let mut n = 0;
    while n < first.len() {
        table[first[n]] = true;
        n += 1;
    }
    table
};

/// Whether any of these is in [`OPCODES`], by a few comparisons of all of them at once.
#[inline(always)]
fn may_begin(bytes: &[u8; 16]) -> bool {
    let mut any = false;
    for byte in bytes {
        any |= (byte & !4 == 0x48) | (byte & !1 == 0xE8) | (*byte == 0xF0) | (*byte == 0xFF);
    }
    any
}

#[inline(always)]
fn which(range: &mut Range<'_>, contexts: &mut [Context<64>; 2]) -> usize {
    if !range.bit(&mut contexts[0]) {
        0
    } else {
        1 + usize::from(range.bit(&mut contexts[1]))
    }
}

#[inline(always)]
fn value<const BITS: usize, const SYMBOLS: usize>(
    code: &mut Adaptive<BITS, SYMBOLS>,
    slots: &[(u32, u8)],
    bits: &mut Backward<'_>,
) -> Result<u32, Corrupt> {
    let symbol = code.decode(bits)?;
    let (base, extra) = slots[symbol];
    bits.fill();
    Ok(base.wrapping_add(bits.take(u32::from(extra))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_comparisons_say_the_same_as_the_table() {
        for byte in 0..=255u8 {
            for place in 0..16 {
                let mut bytes = [0; 16];
                bytes[place] = byte;
                assert_eq!(may_begin(&bytes), OPCODES[usize::from(byte)], "{byte:#x}");
            }
        }
    }

    #[test]
    fn symbols_are_sorted_by_frequency_then_value() {
        let mut x = 1u32;
        for symbols in [2, 54, 256, 799] {
            let frequencies: Vec<u32> = (0..symbols)
                .map(|_| {
                    x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    1 + (x >> 20) % (1 + (x >> 8) % 200)
                })
                .collect();
            let mut sorted = vec![0; symbols];
            sort(&frequencies, &mut sorted);
            let mut expected: Vec<u32> = (0..symbols as u32)
                .map(|symbol| frequencies[symbol as usize] << 10 | symbol)
                .collect();
            expected.sort_unstable();
            assert_eq!(sorted, expected);
        }
    }
}
