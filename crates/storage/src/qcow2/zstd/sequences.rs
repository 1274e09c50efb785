//! The sequences of a block (3.1.1.3.2).

use super::Bits;
use super::fse::{Encoder, SYMBOLS, Shares};
use super::matches::Sequence;

/// Extra bits of literal length codes from 16 on; below, the code is the length (3.1.1.3.2.1.1).
const LITERAL_BITS: [u8; 9] = [1, 1, 1, 1, 2, 2, 3, 3, 4];
/// Extra bits of match length codes from 32 on; below, the code is the length less 3.
const MATCH_BITS: [u8; 11] = [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5];

/// Code and extra bits of each small length.
const fn small<const N: usize, const M: usize>(plain: usize, bits: [u8; M]) -> [(u8, u8); N] {
    let mut table = [(0, 0); N];
    let (mut at, mut code) = (0, 0);
    while at < N {
        if code < plain {
            table[at] = (code as u8, 0);
            at += 1;
        } else {
            let extra = bits[code - plain];
            let end = at + (1 << extra);
            while at < end {
                table[at] = (code as u8, extra);
                at += 1;
            }
        }
        code += 1;
    }
    table
}

static LITERAL_CODES: [(u8, u8); 64] = small(16, LITERAL_BITS);
static MATCH_CODES: [(u8, u8); 128] = small(32, MATCH_BITS);

/// A value's code, extra bits and what is in them.
#[inline(always)]
fn code(table: &[(u8, u8)], beyond: u32, value: u32) -> (u8, u32, u64) {
    let (code, bits) = match table.get(value as usize) {
        Some((code, bits)) => (*code, u32::from(*bits)),
        None => ((value.ilog2() + beyond) as u8, value.ilog2()),
    };
    (code, bits, u64::from(value) & ((1 << bits) - 1))
}

#[inline(always)]
fn literal_code(sequence: &Sequence) -> (u8, u32, u64) {
    code(&LITERAL_CODES, 19, sequence.literals)
}

#[inline(always)]
fn match_code(sequence: &Sequence) -> (u8, u32, u64) {
    code(&MATCH_CODES, 36, sequence.length - 3)
}

#[inline(always)]
fn offset_code(sequence: &Sequence) -> (u8, u32, u64) {
    code(&[], 0, sequence.offset)
}

/// Shares of a table that is given, of 2^`log` states.
const fn given<const N: usize>(shares: [i16; N], log: u32) -> Shares {
    let mut of = [0; SYMBOLS];
    let mut symbol = 0;
    while symbol < N {
        of[symbol] = shares[symbol];
        symbol += 1;
    }
    Shares { of, log }
}

/// 3.1.1.3.2.2.
const LITERALS: Shares = given(
    [
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1,
        1, 1, -1, -1, -1, -1,
    ],
    6,
);
const MATCHES: Shares = given(
    [
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ],
    6,
);
const OFFSETS: Shares = given(
    [
        1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
    ],
    5,
);

/// How a kind of code is written (3.1.1.3.2.1).
enum Mode {
    Given,
    /// One code for all.
    Same(u8),
    Own(Shares),
}

impl Mode {
    /// The one that takes the least room.
    fn choose(counts: &[u32; SYMBOLS], given: &Shares, most: u32) -> Mode {
        let mut used = (0..SYMBOLS as u8).filter(|symbol| counts[usize::from(*symbol)] != 0);
        if let (Some(only), None) = (used.next(), used.next()) {
            return Mode::Same(only);
        }
        let own = Shares::new(counts, most);
        let mut written = Vec::new();
        own.write(&mut written);
        let own_cost = own
            .cost(counts)
            .map(|cost| cost + ((written.len() as u64 * 8) << 8));
        match (given.cost(counts), own_cost) {
            (Some(given), Some(own)) if given <= own => Mode::Given,
            _ => Mode::Own(own),
        }
    }

    fn number(&self) -> u8 {
        match self {
            Mode::Given => 0,
            Mode::Same(_) => 1,
            Mode::Own(_) => 2,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Mode::Given => {}
            Mode::Same(symbol) => out.push(*symbol),
            Mode::Own(shares) => shares.write(out),
        }
    }
}

/// An encoder of one kind of code with the state it is in, or none where all are the same.
struct Side<'a> {
    encoder: Option<&'a Encoder>,
    state: u32,
}

impl<'a> Side<'a> {
    fn new(mode: &Mode, given: &'a Encoder, own: &'a mut Option<Encoder>, last: u8) -> Side<'a> {
        let encoder = match mode {
            Mode::Given => Some(given),
            Mode::Same(_) => None,
            Mode::Own(shares) => Some(&*own.insert(Encoder::new(shares))),
        };
        Side {
            encoder,
            state: encoder.map_or(0, |encoder| encoder.begin(last)),
        }
    }

    #[inline(always)]
    fn put(&mut self, symbol: u8, bits: &mut Bits<'_>) {
        if let Some(encoder) = self.encoder {
            encoder.put(&mut self.state, symbol, bits);
        }
    }

    fn end(&self, bits: &mut Bits<'_>) {
        if let Some(encoder) = self.encoder {
            encoder.end(self.state, bits);
        }
    }
}

/// The most bits of a sequence: of its codes and of what these leave open.
const SEQUENCE: usize = 9 + 8 + 9 + 53;

/// Writes sequences sections.
pub(super) struct Sections {
    literals: Encoder,
    matches: Encoder,
    offsets: Encoder,
}

impl Default for Sections {
    fn default() -> Sections {
        Sections {
            literals: Encoder::new(&LITERALS),
            matches: Encoder::new(&MATCHES),
            offsets: Encoder::new(&OFFSETS),
        }
    }
}

impl Sections {
    pub fn write(&self, sequences: &[Sequence], out: &mut Vec<u8>) {
        let count = sequences.len();
        match count {
            0..128 => out.push(count as u8),
            128..0x7f00 => out.extend_from_slice(&[(count >> 8) as u8 + 128, count as u8]),
            _ => {
                out.push(255);
                out.extend_from_slice(&((count - 0x7f00) as u16).to_le_bytes());
            }
        }
        let Some((last, others)) = sequences.split_last() else {
            return;
        };
        let mut counts = [[0u32; SYMBOLS]; 3];
        for sequence in sequences {
            counts[0][usize::from(literal_code(sequence).0)] += 1;
            counts[1][usize::from(offset_code(sequence).0)] += 1;
            counts[2][usize::from(match_code(sequence).0)] += 1;
        }
        let modes = [
            Mode::choose(&counts[0], &LITERALS, 9),
            Mode::choose(&counts[1], &OFFSETS, 8),
            Mode::choose(&counts[2], &MATCHES, 9),
        ];
        out.push(modes[0].number() << 6 | modes[1].number() << 4 | modes[2].number() << 2);
        for mode in &modes {
            mode.write(out);
        }
        let mut own = [None, None, None];
        let [own0, own1, own2] = &mut own;
        let mut literals = Side::new(&modes[0], &self.literals, own0, literal_code(last).0);
        let mut offsets = Side::new(&modes[1], &self.offsets, own1, offset_code(last).0);
        let mut matches = Side::new(&modes[2], &self.matches, own2, match_code(last).0);
        let mut bits = Bits::new(out, count * SEQUENCE);
        extra(last, &mut bits);
        // Whoever reads begins at the end: everything is the other way round here.
        for sequence in others.iter().rev() {
            offsets.put(offset_code(sequence).0, &mut bits);
            matches.put(match_code(sequence).0, &mut bits);
            literals.put(literal_code(sequence).0, &mut bits);
            bits.flush();
            extra(sequence, &mut bits);
        }
        matches.end(&mut bits);
        offsets.end(&mut bits);
        literals.end(&mut bits);
        bits.end();
    }
}

/// The bits that codes leave open: 53 at most.
#[inline(always)]
fn extra(sequence: &Sequence, bits: &mut Bits<'_>) {
    let (_, count, value) = literal_code(sequence);
    bits.put(value, count);
    let (_, count, value) = match_code(sequence);
    bits.put(value, count);
    let (_, count, value) = offset_code(sequence);
    bits.put(value, count);
    bits.flush();
}
