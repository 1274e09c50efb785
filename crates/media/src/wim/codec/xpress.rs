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

/// 16-bit words that raw bytes lie between: what is loaded when decides where those are ([MS-XCA] 2.2.4).
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    bits: u32,
    count: u32,
}

impl Input<'_> {
    #[inline(always)]
    fn fill(&mut self) -> Result<(), Corrupt> {
        if self.count < 16 {
            if let Some(two) = self.bytes.get(self.at..self.at + 2) {
                let word = u32::from(u16::from_le_bytes([two[0], two[1]]));
                self.bits |= word << (16 - self.count);
            } else if self.at > self.bytes.len() + 8 {
                return Err(Corrupt);
            }
            self.at += 2;
            self.count += 16;
        }
        Ok(())
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.bits <<= count;
        self.count -= count;
    }

    fn raw(&mut self, length: usize) -> Result<usize, Corrupt> {
        let bytes = self.bytes.get(self.at..self.at + length).ok_or(Corrupt)?;
        self.at += length;
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
            input.fill()?;
            let (symbol, length) = self.decoder.decode(input.bits)?;
            input.skip(length);
            if symbol < 256 {
                out[at] = symbol as u8;
                at += 1;
                continue;
            }
            input.fill()?;
            let symbol = symbol - 256;
            let mut length = symbol & 15;
            let extra = (symbol >> 4) as u32;
            let offset = 1usize << extra | (input.bits >> 1 >> (31 - extra)) as usize;
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
        }
        Ok(())
    }
}
