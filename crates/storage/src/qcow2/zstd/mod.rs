//! A compressor that writes Zstandard frames of one cluster each, as fast as zstd's own at its usual level.
//!
//! Specification: RFC 8878, whose sections the comments name.

mod bits;
mod fse;
mod huffman;
mod matches;
mod sequences;

use bits::Bits;
use matches::{Finder, Sequence};
use sequences::Sections;

/// 3.1.1.
const MAGIC: [u8; 4] = 0xfd2f_b528u32.to_le_bytes();
/// The largest block (3.1.1.2.4), in bytes.
const BLOCK: usize = 128 << 10;

/// Kinds of blocks (3.1.1.2.2).
const RAW: u32 = 0;
const REPEATED: u32 = 1;
const COMPRESSED: u32 = 2;

/// The offsets that a sequence can repeat (3.1.1.5), the last one first.
type Repeats = [u32; 3];

/// Compresses one frame after another, with the same tables.
#[derive(Default)]
pub(super) struct Zstd {
    finder: Finder,
    literals: Vec<u8>,
    sequences: Vec<Sequence>,
    sections: Sections,
}

impl Zstd {
    /// A frame of all of `bytes`, at most 2^31 of them.
    pub fn compress(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 16 + 1024);
        out.extend_from_slice(&MAGIC);
        frame_header(&mut out, bytes.len());
        self.finder.begin(bytes.len());
        let mut repeats = [1, 4, 8];
        let mut start = 0;
        loop {
            let end = (start + BLOCK).min(bytes.len());
            self.block(bytes, start, end, &mut repeats, &mut out);
            start = end;
            if start == bytes.len() {
                return out;
            }
        }
    }

    fn block(
        &mut self,
        bytes: &[u8],
        start: usize,
        end: usize,
        repeats: &mut Repeats,
        out: &mut Vec<u8>,
    ) {
        let header = out.len();
        out.extend_from_slice(&[0; 3]);
        let block = &bytes[start..end];
        let finish = |out: &mut Vec<u8>, kind: u32, size: usize| {
            let word = u32::from(end == bytes.len()) | kind << 1 | (size as u32) << 3;
            out[header..header + 3].copy_from_slice(&word.to_le_bytes()[..3]);
        };
        if let [first, rest @ ..] = block
            && rest.iter().all(|byte| byte == first)
        {
            out.push(*first);
            return finish(out, REPEATED, block.len());
        }
        self.literals.clear();
        self.sequences.clear();
        let mut now = *repeats;
        self.finder.find(
            &bytes[..end],
            start,
            &mut now,
            &mut self.literals,
            &mut self.sequences,
        );
        huffman::literals(&self.literals, out);
        self.sections.write(&self.sequences, out);
        let size = out.len() - header - 3;
        if size < block.len() {
            // The decoder has seen these repeats only if it sees these sequences.
            *repeats = now;
            finish(out, COMPRESSED, size);
        } else {
            out.truncate(header + 3);
            out.extend_from_slice(block);
            finish(out, RAW, block.len());
        }
    }
}

/// One segment of a known size, without checksum or dictionary (3.1.1.1).
fn frame_header(out: &mut Vec<u8>, size: usize) {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    match size {
        0..256 => out.extend_from_slice(&[SINGLE_SEGMENT, size as u8]),
        256..65792 => {
            out.push(1 << 6 | SINGLE_SEGMENT);
            out.extend_from_slice(&((size - 256) as u16).to_le_bytes());
        }
        _ => {
            out.push(2 << 6 | SINGLE_SEGMENT);
            out.extend_from_slice(&(size as u32).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    fn ours(frame: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        ruzstd::decoding::StreamingDecoder::new(frame)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % limit
        }
    }

    /// Bytes of any kind: noise, few values, skewed ones, runs, copies from before, near and far.
    fn sample(seed: u64, size: usize) -> Vec<u8> {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut bytes = Vec::new();
        while bytes.len() < size {
            let most = 2 << random.below(13);
            let length = 1 + random.below(most) as usize;
            match random.below(6) {
                0 => bytes.extend((0..length).map(|_| random.below(256) as u8)),
                1 => {
                    let values = 1 + random.below(36);
                    bytes.extend((0..length).map(|_| random.below(values) as u8 * 7));
                }
                2 => bytes.extend((0..length).map(|_| {
                    let limit = 1 + random.below(256);
                    random.below(limit) as u8 & random.below(limit) as u8
                })),
                3 => bytes.resize(bytes.len() + length, random.below(256) as u8),
                _ if bytes.is_empty() => {}
                _ => {
                    let most = bytes.len().min(1 << random.below(22));
                    let offset = 1 + random.below(most as u64);
                    for _ in 0..length {
                        bytes.push(bytes[bytes.len() - offset as usize]);
                    }
                }
            }
        }
        bytes.truncate(size);
        bytes
    }

    #[test]
    fn any_bytes_come_back() {
        let mut zstd = Zstd::default();
        for seed in 0..300u64 {
            let size = match seed % 10 {
                0 => seed as usize,
                1 => 2 << 20,
                2 => (128 << 10) + seed as usize - 150,
                3..6 => 65536,
                _ => (seed * 7919 % 200_000) as usize,
            };
            let bytes = sample(seed, size);
            let frame = zstd.compress(&bytes);
            assert!(ours(&frame) == bytes, "seed {seed}");
            assert!(frame.len() <= size + 12 + 3 * size.div_ceil(BLOCK).max(1));
        }
    }

    /// Frames behind each other in one stream, through zstd's own decoder.
    #[test]
    fn zstd_reads_them() {
        let mut zstd = Zstd::default();
        let (mut all, mut frames) = (Vec::new(), Vec::new());
        for seed in 0..120u64 {
            let bytes = sample(
                seed + 1000,
                [65536, 300_000, 4096, 777, 0][seed as usize % 5],
            );
            frames.extend(zstd.compress(&bytes));
            all.extend(bytes);
        }
        let child = Command::new("zstd")
            .args(["-d", "-c", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("left out: no zstd");
            return;
        };
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(&frames));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success() && output.stdout == all);
    }

    /// As small as what zstd makes of it.
    #[test]
    fn text_becomes_small() {
        let mut text = Vec::new();
        for n in 0..20_000u32 {
            writeln!(text, "line {n}: {} of {}", n * n % 1013, n / 7).unwrap();
        }
        text.truncate(65536 * 4);
        let mut zstd = Zstd::default();
        let packed: usize = text.chunks(65536).map(|c| zstd.compress(c).len()).sum();
        // zstd makes 57,361 bytes of it at its usual level, 59,843 at level 1.
        assert!(packed < 59_000, "{packed}");
    }

    proptest! {
        #[test]
        fn short_ones_too(bytes in prop::collection::vec(0u8..5, 0..600)) {
            prop_assert_eq!(ours(&Zstd::default().compress(&bytes)), bytes);
        }
    }
}
