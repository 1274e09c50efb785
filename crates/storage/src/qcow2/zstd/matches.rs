//! Finds what came before: by two tables, of where eight bytes were last and of where five were.

use super::Repeats;

/// Bytes before the end of the block in which no match begins: what is looked at reaches so far.
const END: usize = 9;
/// Every so many bytes without a match the next places are looked at more coarsely by one.
const PATIENCE: u32 = 6;

/// Some literals, then a match.
#[derive(Clone, Copy)]
pub(super) struct Sequence {
    pub literals: u32,
    /// Bytes, 3 at least.
    pub length: u32,
    /// 1 to 3 for repeats, else 3 more than the offset (3.1.1.3.2.1.1).
    pub offset: u32,
}

/// Entries of the tables, of which large frames use all.
const LONG: usize = 1 << 17;
const SHORT: usize = LONG / 2;

pub(super) struct Finder {
    /// Places, with `base` added.
    long: Box<[u32; LONG]>,
    short: Box<[u32; SHORT]>,
    log: u32,
    /// Entries below are of frames before.
    base: u32,
    /// Bytes of this frame.
    size: u32,
}

impl Default for Finder {
    fn default() -> Finder {
        Finder {
            long: zeroes(),
            short: zeroes(),
            log: 0,
            base: 1,
            size: 0,
        }
    }
}

/// Too many for the stack.
fn zeroes<const N: usize>() -> Box<[u32; N]> {
    match vec![0; N].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("there are as many"),
    }
}

#[inline(always)]
fn eight(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline(always)]
fn four(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// How many bytes at `a` and, further on, at `b` are the same.
#[inline(always)]
fn same(bytes: &[u8], mut a: usize, mut b: usize) -> usize {
    let start = b;
    while b + 8 <= bytes.len() {
        let differ = eight(bytes, a) ^ eight(bytes, b);
        if differ != 0 {
            return b - start + differ.trailing_zeros() as usize / 8;
        }
        a += 8;
        b += 8;
    }
    while b < bytes.len() && bytes[a] == bytes[b] {
        a += 1;
        b += 1;
    }
    b - start
}

impl Finder {
    /// A new frame of `size` bytes: nothing that came before counts.
    pub fn begin(&mut self, size: usize) {
        let log = size
            .max(1 << 12)
            .next_power_of_two()
            .ilog2()
            .min(LONG.ilog2());
        let next = self.base.saturating_add(self.size);
        if log != self.log || next > u32::MAX / 2 {
            self.long.fill(0);
            self.short.fill(0);
            self.log = log;
            self.base = 1;
        } else {
            self.base = next;
        }
        self.size = size as u32;
    }

    /// Takes `bytes` from `start` on apart, which matches may reach back from.
    pub fn find(
        &mut self,
        bytes: &[u8],
        start: usize,
        repeats: &mut Repeats,
        literals: &mut Vec<u8>,
        sequences: &mut Vec<Sequence>,
    ) {
        let Some(limit) = bytes.len().checked_sub(END) else {
            literals.extend_from_slice(&bytes[start..]);
            return;
        };
        let mut tables = Tables {
            long: &mut self.long,
            short: &mut self.short,
            shift: 64 - self.log,
            base: self.base,
        };
        let base = self.base;
        let (mut at, mut from) = (start, start);
        while at < limit {
            let word = eight(bytes, at);
            let (long, short) = (tables.long_place(word), tables.short_place(word));
            let now = base + at as u32;
            let far = std::mem::replace(&mut tables.long[long], now);
            let near = std::mem::replace(&mut tables.short[short], now);
            let repeat = repeats[0] as usize;
            // The next byte on as far back as the last match.
            if repeat <= at + 1 && four(bytes, at + 1) == four(bytes, at + 1 - repeat) {
                at += 1;
                let length = 4 + same(bytes, at + 4 - repeat, at + 4);
                emit(
                    bytes, from, at, length, repeat, repeats, literals, sequences,
                );
                tables.remember(bytes, at);
                at += length;
            } else {
                let (far, near) = (before(far, base, at), before(near, base, at));
                let found = if (eight(bytes, far) == word) & (far < at) {
                    Some((at, far))
                } else if (four(bytes, near) == word as u32) & (near < at) {
                    // A longer one may begin one byte later.
                    let later = eight(bytes, at + 1);
                    let place = tables.long_place(later);
                    let far = std::mem::replace(&mut tables.long[place], now + 1);
                    let far = before(far, base, at + 1);
                    match (eight(bytes, far) == later) & (far <= at) {
                        true => Some((at + 1, far)),
                        false => Some((at, near)),
                    }
                } else {
                    None
                };
                let Some((mut here, mut there)) = found else {
                    at += 1 + ((at - from) >> PATIENCE);
                    continue;
                };
                let mut length = 4 + same(bytes, there + 4, here + 4);
                while here > from && there > 0 && bytes[here - 1] == bytes[there - 1] {
                    here -= 1;
                    there -= 1;
                    length += 1;
                }
                let offset = here - there;
                emit(
                    bytes, from, here, length, offset, repeats, literals, sequences,
                );
                if at + 2 < limit {
                    tables.remember(bytes, at + 2);
                }
                at = here + length;
            }
            from = at;
            if at >= limit {
                break;
            }
            tables.remember(bytes, at - 2);
            // Right behind a match the offset before that one is often good again.
            loop {
                let repeat = repeats[1] as usize;
                if at >= limit || repeat > at || four(bytes, at) != four(bytes, at - repeat) {
                    break;
                }
                let length = 4 + same(bytes, at + 4 - repeat, at + 4);
                tables.remember(bytes, at);
                emit(bytes, at, at, length, repeat, repeats, literals, sequences);
                at += length;
                from = at;
            }
        }
        literals.extend_from_slice(&bytes[from..]);
    }
}

/// A finder's tables in a frame.
struct Tables<'a> {
    long: &'a mut [u32; LONG],
    short: &'a mut [u32; SHORT],
    /// What is left of a product for a place in `long`; in `short` it is one less.
    shift: u32,
    base: u32,
}

impl Tables<'_> {
    #[inline(always)]
    fn long_place(&self, word: u64) -> usize {
        (word.wrapping_mul(0xcf1b_bcdc_b7a5_6463) >> self.shift) as usize % LONG
    }

    #[inline(always)]
    fn short_place(&self, word: u64) -> usize {
        ((word << 24).wrapping_mul(0x9fb2_1c65_1e98_df25) >> (self.shift + 1)) as usize % SHORT
    }

    #[inline(always)]
    fn remember(&mut self, bytes: &[u8], at: usize) {
        let word = eight(bytes, at);
        let (long, short) = (self.long_place(word), self.short_place(word));
        let now = self.base + at as u32;
        self.long[long] = now;
        self.short[short] = now;
    }
}

/// Where an entry says that bytes are, or `at` if it is one of a frame before: what is there is compared in any case, since
/// nobody could guess beforehand which entries are old.
#[inline(always)]
fn before(entry: u32, base: u32, at: usize) -> usize {
    (entry.wrapping_sub(base) as usize).min(at)
}

/// Notes the literals between `from` and `at` and the match that follows them.
#[expect(
    clippy::too_many_arguments,
    reason = "inlined, and all of it in registers"
)]
#[inline(always)]
fn emit(
    bytes: &[u8],
    from: usize,
    at: usize,
    length: usize,
    offset: usize,
    repeats: &mut Repeats,
    literals: &mut Vec<u8>,
    sequences: &mut Vec<Sequence>,
) {
    // Most are few, and there is always more behind a match's begin.
    match bytes[from..].first_chunk::<16>() {
        Some(sixteen) if at - from <= 16 => {
            let end = literals.len() + at - from;
            literals.extend_from_slice(sixteen);
            literals.truncate(end);
        }
        _ => literals.extend_from_slice(&bytes[from..at]),
    }
    let offset = offset as u32;
    // Without literals before it, the last offset would only make the last match longer: the numbers mean those after it
    // (3.1.1.5).
    let skipped = u32::from(from == at);
    let which = repeats.iter().position(|repeat| *repeat == offset);
    let value = match which {
        Some(which) if which as u32 >= skipped => which as u32 + 1 - skipped,
        _ => offset + 3,
    };
    match which {
        Some(which) if which as u32 >= skipped => repeats[..=which].rotate_right(1),
        _ => {
            repeats.rotate_right(1);
            repeats[0] = offset;
        }
    }
    sequences.push(Sequence {
        literals: (at - from) as u32,
        length: length as u32,
        offset: value,
    });
}
