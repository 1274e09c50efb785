//! XPRESS with Huffman codes ([MS-XCA] 2.1 and 2.2), as WIM has it: one block a chunk.

use super::huffman::Decoder;
use super::{Corrupt, copy_match};

const SYMBOLS: usize = 512;
/// [MS-XCA] 2.1.4.1: two lengths a byte.
const TABLE: usize = SYMBOLS / 2;

#[derive(Default)]
pub(super) struct Xpress {
    decoder: Decoder<11, SYMBOLS>,
}

/// 16-bit words that raw bytes lie between. A word counts as loaded as soon as fewer than 16 bits of those before are left,
/// and raw bytes lie behind the last one that does ([MS-XCA] 2.2.4).
struct Input<'a> {
    bytes: &'a [u8],
    /// The next byte to load: so many words behind that place as whole words fit into `count` beside the last.
    at: usize,
    /// Bits, from the top; those behind the first `count` are the same as those at `at`, or zeroes.
    bits: u64,
    count: u32,
}

impl Input<'_> {
    /// Loads until there are 48 bits at least; past the end they are zeroes.
    #[inline(always)]
    fn fill(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let eight = match rest.first_chunk() {
            Some(eight) => *eight,
            None => {
                let mut eight = [0; 8];
                eight[..rest.len()].copy_from_slice(rest);
                eight
            }
        };
        let word = u64::from_le_bytes(eight).rotate_left(32);
        let word = (word & 0xffff_0000_ffff) << 16 | word >> 16 & 0xffff_0000_ffff;
        self.bits |= word >> self.count;
        let more = (63 - self.count) / 16;
        self.at += more as usize * 2;
        self.count += more * 16;
    }

    #[inline(always)]
    fn peek(&self) -> u32 {
        (self.bits >> 32) as u32
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.bits <<= count;
        self.count -= count;
    }

    /// Raw bytes, while there are 16 bits at least.
    fn raw(&mut self, length: usize) -> Result<usize, Corrupt> {
        let loaded = self.count % 16 + 16;
        let at = self.at - (self.count - loaded) as usize / 8;
        let bytes = self.bytes.get(at..at + length).ok_or(Corrupt)?;
        self.at = at + length;
        self.count = loaded;
        self.bits &= !(u64::MAX >> loaded);
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | usize::from(byte)))
    }
}

impl Xpress {
    pub fn decompress(&mut self, input: &[u8], out: &mut [u8]) -> Result<(), Corrupt> {
        let head = input.get(..TABLE).ok_or(Corrupt)?;
        let mut lengths = [0; SYMBOLS];
        for (pair, &byte) in lengths.chunks_exact_mut(2).zip(head) {
            pair[0] = byte & 15;
            pair[1] = byte >> 4;
        }
        self.decoder.build(&lengths)?;
        let mut input = Input {
            bytes: input,
            at: TABLE,
            bits: 0,
            count: 0,
        };
        let mut at = 0;
        while at < out.len() {
            input.fill();
            let (mut symbol, mut taken) = self.decoder.decode(input.peek())?;
            input.skip(taken);
            if symbol < 256 {
                out[at] = symbol as u8;
                at += 1;
                if at == out.len() {
                    break;
                }
                (symbol, taken) = self.decoder.decode(input.peek())?;
                input.skip(taken);
                if symbol < 256 {
                    out[at] = symbol as u8;
                    at += 1;
                    continue;
                }
            }
            // 18 bits are left at least.
            let symbol = symbol - 256;
            let mut length = symbol & 15;
            let extra = (symbol >> 4) as u32;
            let offset = 1usize << extra | (input.bits >> 1 >> (63 - extra)) as usize;
            if length == 15 {
                // These bytes come before the offset's bits are consumed, which changes nothing in what is loaded.
                length += input.raw(1)?;
                if length == 15 + 255 {
                    length = input.raw(2)?;
                    if length == 0 {
                        length = input.raw(4)?;
                    }
                }
            }
            input.skip(extra);
            length += 3;
            if offset > at || length > out.len() - at {
                return Err(Corrupt);
            }
            copy_match(out, at, offset, length);
            at += length;
            if input.at > input.bytes.len() + 16 {
                return Err(Corrupt);
            }
        }
        Ok(())
    }
}
