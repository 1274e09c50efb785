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
    if offset >= length && length > 16 {
        out.copy_within(at - offset..at - offset + length, at);
    } else if offset >= 16 && out.len() - at >= length + 16 {
        // Sixteen at a time; what is written past the match is written again by the next.
        let mut done = 0;
        while done < length {
            let from = at - offset + done;
            let (before, after) = out.split_at_mut(at + done);
            let mut piece = [0; 16];
            piece.copy_from_slice(&before[from..from + 16]);
            after[..16].copy_from_slice(&piece);
            done += 16;
        }
    } else if offset == 1 {
        let byte = out[at - 1];
        out[at..at + length].fill(byte);
    } else {
        let window = &mut out[at - offset..at + length];
        for i in offset..window.len() {
            window[i] = window[i - offset];
        }
    }
}
