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
/// A target of a translated address counts if it was used within less than so many bytes.
const FAR: i32 = 65_536;
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
    /// From 1 to 63: no bit is for certain.
    share: u32,
}

const EVEN: Probability = Probability {
    last: 0x5555_5555,
    zeroes: 48,
    share: 48,
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
#[derive(Clone, Copy)]
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
        if self.range <= 0xFFFF {
            self.range <<= 16;
            self.code = self.code << 16 | self.word();
        }
        let bound = (self.range >> 6) * entry.share;
        let bit = self.code >= bound;
        if bit {
            self.range -= bound;
            self.code -= bound;
        } else {
            self.range = bound;
        }
        entry.zeroes = entry.zeroes + (entry.last >> 63) as u32 - u32::from(bit);
        entry.last = entry.last << 1 | u64::from(bit);
        entry.share = entry.zeroes.clamp(1, 63);
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
        let lengths = code_lengths(&self.frequencies, self.symbols);
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

/// Lengths of an optimal prefix code for the first `symbols`; which of the optimal ones is part of the format. Symbols are
/// taken by frequency, then value; of a symbol and an inner node of the same frequency the symbol is taken first.
fn code_lengths<const N: usize>(frequencies: &[u32; N], symbols: usize) -> [u8; N] {
    let mut lengths = [0; N];
    if symbols < 2 {
        // A code needs two codewords to be complete.
        lengths[..symbols].fill(1);
        return lengths;
    }
    let mut sorted = [0u32; N];
    let sorted = &mut sorted[..symbols];
    sort(&frequencies[..symbols], sorted);
    // Inner nodes come into being in the order of their frequencies.
    let mut weight = [0u32; N];
    let mut parent = [0u16; N];
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
    // They are taken in that order, too, so those of a depth lie in a row. Each turns a codeword of its depth into two that
    // are longer by one.
    let mut count = [0usize; LONGEST + 1];
    let (mut first, mut nodes) = (symbols - 2, 1);
    for (depth, count) in count.iter_mut().enumerate().skip(1) {
        let below = parent[..first]
            .iter()
            .rev()
            .take_while(|above| usize::from(**above) >= first)
            .count();
        *count = 2 * nodes;
        if below == 0 || depth == LONGEST {
            break;
        }
        *count -= below;
        first -= below;
        nodes = below;
    }
    // No codeword is longer than the longest: those of other nodes are made from shorter ones.
    for _ in 0..first {
        let mut at = LONGEST - 1;
        while count[at] == 0 {
            at -= 1;
        }
        count[at] -= 1;
        count[at + 1] += 2;
    }
    // The rarest get the longest.
    let mut next = sorted.iter();
    for length in (1..=LONGEST).rev() {
        for symbol in next.by_ref().take(count[length]) {
            lengths[(symbol & 0x3FF) as usize] = length as u8;
        }
    }
    lengths
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
    /// Where each target was last, counted from `base`, which is far behind all that was there in chunks before.
    last_use: Box<[i32]>,
    base: i32,
}

/// What is known of matches of differences: their powers and offsets in units of these.
struct Deltas {
    fresh: Context<64>,
    repeat: [Context<64>; 2],
    recent: [(u32, u32); 4],
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
            base: FAR,
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
        let mut delta = Deltas {
            fresh: Context::new(),
            repeat: [Context::new(), Context::new()],
            recent: [(0, 1), (0, 2), (0, 3), (0, 4)],
        };
        let mut recent = [1u32, 2, 3, 4];
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
                // Copies, so that those of this loop can stay in registers.
                let (mut its_range, mut its_bits) = (range, bits);
                at = self.delta(
                    &mut its_range,
                    &mut its_bits,
                    &mut delta,
                    before == Item::Delta,
                    out,
                    at,
                )?;
                (range, bits) = (its_range, its_bits);
                before = Item::Delta;
            }
        }
        self.translate(out);
        Ok(())
    }

    /// A match of differences; `again` if the item before was one. Where the next item goes.
    #[inline(never)]
    fn delta(
        &mut self,
        range: &mut Range<'_>,
        bits: &mut Backward<'_>,
        deltas: &mut Deltas,
        again: bool,
        out: &mut [u8],
        at: usize,
    ) -> Result<usize, Corrupt> {
        let (power, raw) = if !range.bit(&mut deltas.fresh) {
            let power = self.delta_power.decode(bits)? as u32;
            let raw = value(&mut self.delta_offset, &OFFSET, bits)?;
            push(&mut deltas.recent, (power, raw));
            (power, raw)
        } else {
            let which = which(range, &mut deltas.repeat);
            repeat(&mut deltas.recent, which + usize::from(again))
        };
        let length = value(&mut self.length, &LENGTH, bits)? as usize;
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
        Ok(at + length)
    }

    /// Makes absolute x86 addresses relative again, where the compressor saw that others near by had the same target.
    fn translate(&mut self, data: &mut [u8]) {
        /// Addresses are translated within so many bytes of one that counted.
        const REACH: i32 = 1023;
        if data.len() <= 17 {
            return;
        }
        // A chunk's size fits, see `resource::LARGEST`.
        let size = data.len() as i32 + FAR;
        if self.base > i32::MAX - size {
            self.last_use.fill(0);
            self.base = FAR;
        }
        let base = self.base;
        self.base += size;
        let mut last = -REACH - 1;
        let end = data.len() - 16;
        let mut at = 1;
        while at < end {
            // Most bytes begin no instruction that counts.
            let Some(ahead) = data[at..].first_chunk() else {
                break;
            };
            match may_begin(ahead) {
                Some(skip) if at + skip < end => at += skip,
                Some(_) => break,
                None => {
                    at += 16;
                    continue;
                }
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
            if base + here - self.last_use[target] < FAR {
                last = here;
            }
            self.last_use[target] = base + here;
            at = field + 4;
        }
    }
}

/// Where in the first sixteen bytes an instruction may begin that [`Lzms::translate`] looks for, going by two bytes of it: by a
/// few comparisons of all of them at once.
#[inline(always)]
fn may_begin(bytes: &[u8; 17]) -> Option<usize> {
    let mut may = [0u8; 16];
    for (n, may) in may.iter_mut().enumerate() {
        let (first, second) = (bytes[n], bytes[n + 1]);
        *may = u8::from(
            (first & !1 == 0xE8)
                | (first & !4 == 0x48) & (second & !6 == 0x89)
                | (first == 0xF0) & (second == 0x83)
                | (first == 0xFF) & (second == 0x15),
        );
    }
    let may = u128::from_le_bytes(may);
    (may != 0).then(|| may.trailing_zeros() as usize / 8)
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
    fn few_comparisons_find_the_first_instruction() {
        let instructions: [&[u8]; 10] = [
            &[0x48, 0x8B, 0x05],
            &[0x48, 0x8B, 0x0D],
            &[0x48, 0x8D, 0x05],
            &[0x48, 0x8D, 0x3D],
            &[0x4C, 0x8D, 0x05],
            &[0xE8],
            &[0xE9],
            &[0xF0, 0x83, 0x05],
            &[0xFF, 0x15],
            &[0xFF, 0x15],
        ];
        for (n, instruction) in instructions.iter().enumerate() {
            for place in 0..16 {
                for filler in [0, 0x15, 0x48, 0x8B, 0xF0, 0xFF] {
                    let mut bytes = [filler; 17];
                    let count = instruction.len().min(17 - place);
                    bytes[place..place + count].copy_from_slice(&instruction[..count]);
                    // A filler may begin one with what follows it.
                    let found = may_begin(&bytes).unwrap();
                    assert!(found == place || found + 1 == place, "{n} {place} {found}");
                }
            }
        }
        assert_eq!(may_begin(&[0x48; 17]), None);
        assert_eq!(may_begin(b"no instruction is"), None);
    }

    /// The same, one inner node after the other.
    fn plain_code_lengths(frequencies: &[u32]) -> Vec<u8> {
        let symbols = frequencies.len();
        let mut sorted: Vec<(u32, usize)> = (0..symbols)
            .map(|symbol| (frequencies[symbol], symbol))
            .collect();
        sorted.sort_unstable();
        let mut leaves = sorted.iter().map(|leaf| leaf.0).peekable();
        let mut weights: Vec<u32> = Vec::new();
        let mut parents = vec![0; symbols];
        let mut taken = 0;
        for node in 0..symbols - 1 {
            let mut total = 0;
            for _ in 0..2 {
                let inner = weights.get(taken).copied();
                match leaves.next_if(|leaf| inner.is_none_or(|inner| *leaf <= inner)) {
                    Some(leaf) => total += leaf,
                    None => {
                        total += weights[taken];
                        parents[taken] = node;
                        taken += 1;
                    }
                }
            }
            weights.push(total);
        }
        let mut count = [0; LONGEST + 2];
        let mut depth = vec![0; symbols];
        count[1] = 2;
        for node in (0..symbols - 2).rev() {
            depth[node] = depth[parents[node]] + 1;
            let mut at = depth[node];
            if at >= LONGEST {
                at = LONGEST - 1;
                while count[at] == 0 {
                    at -= 1;
                }
            }
            count[at] -= 1;
            count[at + 1] += 2;
        }
        let mut lengths = vec![0; symbols];
        let mut next = sorted.iter();
        for length in (1..=LONGEST).rev() {
            for (_, symbol) in next.by_ref().take(count[length]) {
                lengths[*symbol] = length as u8;
            }
        }
        lengths
    }

    #[test]
    fn code_lengths_are_those_of_the_plain_way() {
        let mut x = 1u32;
        for round in 0..3000usize {
            let symbols = 2 + round % (OFFSETS - 1);
            let mut frequencies = [0; OFFSETS];
            let (mut small, mut large) = (1, 1);
            for frequency in &mut frequencies[..symbols] {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *frequency = match round % 3 {
                    0 => 1 + (x >> 20) % (1 + (x >> 8) % 200),
                    1 => 1 + (x >> 24 & x >> 16) % 8,
                    // Codewords that would be too long.
                    _ => {
                        (small, large) = (large, (small + large) % 20_000 + 1);
                        small
                    }
                };
            }
            assert_eq!(
                code_lengths(&frequencies, symbols)[..symbols],
                plain_code_lengths(&frequencies[..symbols]),
                "{round}"
            );
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
