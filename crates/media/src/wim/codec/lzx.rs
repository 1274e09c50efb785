//! LZX as WIM has it ([MS-PATCH] 2): each chunk begins anew, no header, blocks of 2^15 bytes by default, and calls of x86
//! always translated with a file size of 12,000,000.

use super::bits::Forward;
use super::huffman::Decoder;
use super::{Corrupt, copy_match};

/// Offset slots of windows of 2^15 to 2^21 bytes.
const SLOTS: [usize; 7] = [30, 32, 34, 36, 38, 42, 50];
const MAIN: usize = 256 + 8 * 50;
const LENGTHS: usize = 249;
const PRETREE: usize = 20;
/// What call targets are relative to.
const TRANSLATION_SIZE: i32 = 12_000_000;

pub(super) struct Lzx {
    order: u32,
    slots: usize,
    main: Decoder<11, MAIN>,
    length: Decoder<10, LENGTHS>,
    aligned: Decoder<7, 8>,
    pretree: Decoder<6, PRETREE>,
}

/// First offset (formatted: 2 more than the real one) of each slot, and its extra bits.
const SLOT: [(u32, u32); 51] = {
    let mut table = [(0, 0); 51];
    let mut slot = 0;
    let mut base = 0u32;
    while slot < 51 {
        let bits = if slot < 4 {
            0
        } else if slot < 36 {
            slot as u32 / 2 - 1
        } else {
            17
        };
        table[slot] = (base, bits);
        base += 1 << bits;
        slot += 1;
    }
    table
};

impl Lzx {
    /// `None` if no window has that size.
    pub fn new(chunk: u32) -> Option<Self> {
        let order = chunk.checked_next_power_of_two()?.ilog2();
        let slots = *SLOTS.get(order.checked_sub(15)? as usize)?;
        Some(Lzx {
            order,
            slots,
            main: Decoder::default(),
            length: Decoder::default(),
            aligned: Decoder::default(),
            pretree: Decoder::default(),
        })
    }

    pub fn decompress(&mut self, input: &[u8], out: &mut [u8]) -> Result<(), Corrupt> {
        let mut bits = Forward::new(input);
        let mut recent = [1u32; 3];
        let mut main_lengths = [0; MAIN];
        let mut length_lengths = [0; LENGTHS];
        let mut at = 0;
        while at < out.len() {
            let kind = bits.read(3);
            let size = if bits.read(1) == 1 {
                1 << 15
            } else {
                let size = bits.read(16);
                if self.order >= 16 {
                    size << 8 | bits.read(8)
                } else {
                    size
                }
            } as usize;
            if size == 0 || size > out.len() - at {
                return Err(Corrupt);
            }
            match kind {
                1 | 2 => {
                    if kind == 2 {
                        let mut lengths = [0; 8];
                        for length in &mut lengths {
                            *length = bits.read(3) as u8;
                        }
                        self.aligned.build(&lengths)?;
                    }
                    let symbols = 256 + 8 * self.slots;
                    self.read_lengths(&mut bits, &mut main_lengths[..256])?;
                    self.read_lengths(&mut bits, &mut main_lengths[256..symbols])?;
                    self.main.build(&main_lengths[..symbols])?;
                    self.read_lengths(&mut bits, &mut length_lengths)?;
                    self.length.build(&length_lengths)?;
                    let end = at + size;
                    if kind == 2 {
                        self.block::<true>(&mut bits, out, at, end, &mut recent)?;
                    } else {
                        self.block::<false>(&mut bits, out, at, end, &mut recent)?;
                    }
                }
                3 => {
                    let start = bits.align();
                    let head = input.get(start..start + 12).ok_or(Corrupt)?;
                    for (offset, four) in recent.iter_mut().zip(head.chunks_exact(4)) {
                        *offset = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                        if *offset == 0 {
                            return Err(Corrupt);
                        }
                    }
                    let data = input.get(start + 12..start + 12 + size).ok_or(Corrupt)?;
                    out[at..at + size].copy_from_slice(data);
                    bits.seek((start + 12 + size).next_multiple_of(2));
                }
                _ => return Err(Corrupt),
            }
            at += size;
            if bits.overrun() {
                return Err(Corrupt);
            }
        }
        translate_calls(out);
        Ok(())
    }

    /// Lengths of codewords as differences from those of the block before ([MS-PATCH] 2.4).
    fn read_lengths(&mut self, bits: &mut Forward<'_>, lengths: &mut [u8]) -> Result<(), Corrupt> {
        let mut of_pretree = [0; PRETREE];
        for length in &mut of_pretree {
            *length = bits.read(4) as u8;
        }
        self.pretree.build(&of_pretree)?;
        let mut at = 0;
        while at < lengths.len() {
            let symbol = self.presymbol(bits)?;
            let (value, run) = match symbol {
                17 => (0, 4 + bits.read(4)),
                18 => (0, 20 + bits.read(5)),
                19 => {
                    let run = 4 + bits.read(1);
                    let symbol = self.presymbol(bits)?;
                    if symbol > 16 {
                        return Err(Corrupt);
                    }
                    ((lengths[at] + 17 - symbol) % 17, run)
                }
                symbol => ((lengths[at] + 17 - symbol) % 17, 1),
            };
            // A run may go past the end: what is there then does not count.
            let end = (at + run as usize).min(lengths.len());
            lengths[at..end].fill(value);
            at = end;
            if bits.overrun() {
                return Err(Corrupt);
            }
        }
        Ok(())
    }

    fn presymbol(&self, bits: &mut Forward<'_>) -> Result<u8, Corrupt> {
        bits.fill();
        let (symbol, length) = self.pretree.decode(bits.peek())?;
        bits.skip(length);
        Ok(symbol as u8)
    }

    fn block<const ALIGNED: bool>(
        &self,
        bits: &mut Forward<'_>,
        out: &mut [u8],
        mut at: usize,
        end: usize,
        recent: &mut [u32; 3],
    ) -> Result<(), Corrupt> {
        while at < end {
            bits.fill();
            let (mut symbol, mut taken) = self.main.decode(bits.peek())?;
            bits.skip(taken);
            if symbol < 256 {
                out[at] = symbol as u8;
                at += 1;
                if at == end {
                    break;
                }
                // As many bits are left as the longest codeword has.
                (symbol, taken) = self.main.decode(bits.peek())?;
                bits.skip(taken);
                if symbol < 256 {
                    out[at] = symbol as u8;
                    at += 1;
                    continue;
                }
            }
            let symbol = symbol - 256;
            let mut length = symbol & 7;
            let slot = symbol >> 3;
            if length == 7 {
                bits.fill();
                let (more, taken) = self.length.decode(bits.peek())?;
                bits.skip(taken);
                length += more;
            }
            length += 2;
            let offset = if slot < 3 {
                let offset = recent[slot];
                recent[slot] = recent[0];
                offset
            } else {
                let (base, extra) = SLOT[slot];
                bits.fill();
                let low = if ALIGNED && extra >= 3 {
                    let high = bits.take(extra - 3);
                    bits.fill();
                    let (low, taken) = self.aligned.decode(bits.peek())?;
                    bits.skip(taken);
                    high << 3 | low as u32
                } else {
                    bits.take(extra)
                };
                recent[2] = recent[1];
                recent[1] = recent[0];
                base + low - 2
            };
            recent[0] = offset;
            let offset = offset as usize;
            if offset > at || length > end - at {
                return Err(Corrupt);
            }
            copy_match(&mut out[..end], at, offset, length);
            at += length;
        }
        Ok(())
    }
}

/// Makes the absolute targets of `E8` calls relative again ([MS-PATCH] 2.6).
fn translate_calls(out: &mut [u8]) {
    let Some(end) = out.len().checked_sub(10) else {
        return;
    };
    let mut at = 0;
    while at < end {
        // Most bytes are none.
        match memchr::memchr(0xE8, &out[at..end]) {
            Some(skip) => at += skip,
            None => break,
        }
        let mut target = [0; 4];
        target.copy_from_slice(&out[at + 1..at + 5]);
        let target = i32::from_le_bytes(target);
        let here = at as i32;
        if target >= -here && target < TRANSLATION_SIZE {
            let relative = if target >= 0 {
                target - here
            } else {
                target + TRANSLATION_SIZE
            };
            out[at + 1..at + 5].copy_from_slice(&relative.to_le_bytes());
        }
        at += 5;
    }
}
