//! The compressions of WIM: chunks that stand for themselves.

mod bits;
mod huffman;
mod lzms;
mod lzx;
mod xpress;

/// How chunks of a resource are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Compression {
    None,
    Xpress,
    Lzx,
    Lzms,
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Xpress => "XPRESS",
            Compression::Lzx => "LZX",
            Compression::Lzms => "LZMS",
        })
    }
}

/// Compressed data that no compressor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// A decompressor with its tables, for chunk after chunk.
pub struct Codec(Kind);

enum Kind {
    None,
    Xpress(Box<xpress::Xpress>),
    Lzx(Box<lzx::Lzx>),
    Lzms(Box<lzms::Lzms>),
}

impl Codec {
    /// For chunks of at most `chunk` bytes.
    pub fn new(compression: Compression, chunk: u32) -> Option<Codec> {
        Some(Codec(match compression {
            Compression::None => Kind::None,
            Compression::Xpress => Kind::Xpress(Box::default()),
            Compression::Lzx => Kind::Lzx(Box::new(lzx::Lzx::new(chunk)?)),
            Compression::Lzms => Kind::Lzms(Box::new(lzms::Lzms::new())),
        }))
    }

    /// Fills `out`, whose length is the chunk's.
    pub fn decompress(&mut self, input: &[u8], out: &mut [u8]) -> Result<(), Corrupt> {
        match &mut self.0 {
            Kind::None if input.len() == out.len() => {
                out.copy_from_slice(input);
                Ok(())
            }
            Kind::None => Err(Corrupt),
            Kind::Xpress(codec) => codec.decompress(input, out),
            Kind::Lzx(codec) => codec.decompress(input, out),
            Kind::Lzms(codec) => codec.decompress(input, out),
        }
    }
}

/// Copies `length` bytes from `offset` bytes before `at`; both must have been checked against what is there.
#[inline(always)]
fn copy_match(out: &mut [u8], at: usize, offset: usize, length: usize) {
    const WIDE: usize = 16;
    if length > 4 * WIDE && offset >= length {
        out.copy_within(at - offset..at - offset + length, at);
    } else if offset >= WIDE && out.len() - at >= length + WIDE {
        // What is written past the match is written again by the next.
        let mut done = 0;
        while done < length {
            copy_piece::<WIDE>(out, at + done, offset);
            done += WIDE;
        }
    } else if offset == 1 {
        let byte = out[at - 1];
        out[at..at + length].fill(byte);
    } else if out.len() - at >= length + WIDE {
        // The first bytes one by one, until those that are copied lie eight behind.
        let far = offset * 8usize.div_ceil(offset);
        let window = &mut out[at - offset..at + far - offset];
        for i in offset..window.len() {
            window[i] = window[i - offset];
        }
        let mut done = far - offset;
        while done < length {
            copy_piece::<8>(out, at + done, far);
            done += 8;
        }
    } else {
        let window = &mut out[at - offset..at + length];
        for i in offset..window.len() {
            window[i] = window[i - offset];
        }
    }
}

/// Copies `N` bytes from `N` or more before.
#[inline(always)]
fn copy_piece<const N: usize>(out: &mut [u8], at: usize, offset: usize) {
    let (before, after) = out.split_at_mut(at);
    let mut piece = [0; N];
    piece.copy_from_slice(&before[at - offset..at - offset + N]);
    after[..N].copy_from_slice(&piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_copied_byte_by_byte_so_to_say() {
        for offset in 1..40 {
            for length in 1..120 {
                for room in [0, 1, 7, 8, 15, 16, 17, 40] {
                    let mut expected: Vec<u8> = (0..50).collect();
                    expected.resize(50 + length, 0);
                    let mut out = expected.clone();
                    out.resize(50 + length + room, 0xee);
                    for at in 50..50 + length {
                        expected[at] = expected[at - offset];
                    }
                    copy_match(&mut out, 50, offset, length);
                    assert_eq!(out[..50 + length], expected, "{offset} {length} {room}");
                }
            }
        }
    }
}
