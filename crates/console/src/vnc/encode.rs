//! Encodings: Raw, Zlib and ZRLE (RFC 6143, section 7.7; Zlib as in rfbproto).

use super::pixel::PixelFormat;
use super::spec;
use flate2::{Compress, Compression, FlushCompress};

/// A ZRLE tile's side.
const TILE: usize = 64;

/// Where a run of colours stops being a palette.
const MAX_PALETTE: usize = 127;

/// Room for all that a compressor holds back: its window and its codes.
const HELD: usize = 256 << 10;

/// One client's encoder. The compressed encodings have a stream each, which runs through all rectangles.
pub(super) struct Encoder {
    zlib: Compress,
    zrle: Compress,
    plain: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Encoder {
        let compress = || Compress::new(Compression::fast(), true);
        Encoder {
            zlib: compress(),
            zrle: compress(),
            plain: Vec::new(),
        }
    }

    /// The encoding to use for a client that names `encodings`, best first.
    pub(super) fn choose(encodings: &[i32]) -> i32 {
        let known = [spec::ZRLE, spec::ZLIB, spec::RAW];
        encodings
            .iter()
            .copied()
            .find(|encoding| known.contains(encoding))
            .unwrap_or(spec::RAW)
    }

    /// Appends a rectangle's data: `pixels` in rows of `width`.
    pub(super) fn encode(
        &mut self,
        encoding: i32,
        format: PixelFormat,
        pixels: &[u32],
        width: usize,
        into: &mut Vec<u8>,
    ) {
        match encoding {
            spec::ZRLE => {
                self.plain.clear();
                tiles(pixels, width, |tile, width| {
                    zrle_tile(format, tile, width, &mut self.plain)
                });
                compress(&mut self.zrle, &self.plain, into);
            }
            spec::ZLIB => {
                self.plain.clear();
                format.put(pixels, &mut self.plain);
                compress(&mut self.zlib, &self.plain, into);
            }
            _ => format.put(pixels, into),
        }
    }
}

/// Appends the length, then `plain` compressed and flushed.
fn compress(stream: &mut Compress, mut plain: &[u8], into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    loop {
        into.reserve(plain.len() / 4 + (16 << 10));
        let before = stream.total_in();
        if let Err(error) = stream.compress_vec(plain, into, FlushCompress::None) {
            // Only a stream misused fails.
            tracing::error!(%error, "zlib");
            break;
        }
        plain = &plain[(stream.total_in() - before) as usize..];
        if plain.is_empty() && into.len() < into.capacity() {
            break;
        }
    }
    // What the compressor still holds is less than this, so that one call empties it. A flush that ran out of room would
    // have to be repeated, and nothing tells how often.
    into.reserve(HELD);
    if let Err(error) = stream.compress_vec(&[], into, FlushCompress::Sync) {
        tracing::error!(%error, "zlib");
    }
    let length = (into.len() - start - 4) as u32;
    into[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Calls `each` for the tiles of a picture, left to right and top to bottom.
fn tiles(pixels: &[u32], width: usize, mut each: impl FnMut(&[u32], usize)) {
    if width == 0 {
        return;
    }
    let mut tile = Vec::with_capacity(TILE * TILE);
    for rows in pixels.chunks(width * TILE) {
        for x in (0..width).step_by(TILE) {
            let tile_width = TILE.min(width - x);
            tile.clear();
            rows.chunks_exact(width)
                .for_each(|row| tile.extend_from_slice(&row[x..x + tile_width]));
            each(&tile, tile_width);
        }
    }
}

/// Appends one tile in the smallest of its subencodings (section 7.7.6).
fn zrle_tile(format: PixelFormat, tile: &[u32], width: usize, into: &mut Vec<u8>) {
    let mut palette: Vec<u32> = Vec::new();
    let mut runs = 0usize;
    let mut long = 0usize; // bytes of run lengths
    let mut single = 0usize;
    for run in tile.chunk_by(|a, b| a == b) {
        runs += 1;
        long += (run.len() - 1) / 255 + 1;
        single += usize::from(run.len() == 1);
        if palette.len() <= MAX_PALETTE && !palette.contains(&run[0]) {
            palette.push(run[0]);
        }
    }
    let pixel = format.compressed_bytes();
    let height = tile.len() / width;
    let raw = tile.len() * pixel;
    let plain_runs = runs * pixel + long;
    let bits = match palette.len() {
        0..=2 => 1,
        3..=4 => 2,
        5..=16 => 4,
        _ => 0,
    };
    let packed = if bits > 0 {
        palette.len() * pixel + height * (width * bits).div_ceil(8)
    } else {
        usize::MAX
    };
    let palette_runs = if palette.len() <= MAX_PALETTE {
        palette.len() * pixel + single + (runs - single) + (long - single)
    } else {
        usize::MAX
    };

    if palette.len() == 1 {
        into.push(1);
        format.put_compressed(&palette, into);
    } else if packed <= palette_runs && packed < plain_runs && packed < raw {
        into.push(palette.len() as u8);
        format.put_compressed(&palette, into);
        for row in tile.chunks(width) {
            put_packed(&palette, row, bits, into);
        }
    } else if palette_runs < plain_runs && palette_runs < raw {
        into.push(128 + palette.len() as u8);
        format.put_compressed(&palette, into);
        for run in tile.chunk_by(|a, b| a == b) {
            let index = index_of(&palette, run[0]);
            if run.len() == 1 {
                into.push(index);
            } else {
                into.push(128 + index);
                put_run_length(run.len(), into);
            }
        }
    } else if plain_runs < raw {
        into.push(128);
        for run in tile.chunk_by(|a, b| a == b) {
            format.put_compressed(&run[..1], into);
            put_run_length(run.len(), into);
        }
    } else {
        into.push(0);
        format.put_compressed(tile, into);
    }
}

fn index_of(palette: &[u32], pixel: u32) -> u8 {
    palette
        .iter()
        .position(|known| *known == pixel)
        .unwrap_or(0) as u8
}

/// A row of palette indices, the leftmost in the highest bits.
fn put_packed(palette: &[u32], row: &[u32], bits: usize, into: &mut Vec<u8>) {
    for pixels in row.chunks(8 / bits) {
        let byte = pixels.iter().enumerate().fold(0, |byte, (n, pixel)| {
            byte | index_of(palette, *pixel) << (8 - bits * (n + 1))
        });
        into.push(byte);
    }
}

fn put_run_length(length: usize, into: &mut Vec<u8>) {
    let rest = length - 1;
    into.extend(std::iter::repeat_n(255, rest / 255));
    into.push((rest % 255) as u8);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    /// The other side of a zlib stream.
    pub(in crate::vnc) fn inflate(stream: &mut Decompress, data: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(size + 64);
        stream
            .decompress_vec(data, &mut out, FlushDecompress::Sync)
            .unwrap();
        out
    }

    /// Decodes ZRLE of 3-byte CPIXELs, written from the RFC.
    pub(in crate::vnc) fn decode_zrle(mut data: &[u8], width: usize, height: usize) -> Vec<u32> {
        fn take<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
            let (now, rest) = data.split_at(count);
            *data = rest;
            now
        }
        fn pixel(data: &mut &[u8]) -> u32 {
            let bytes = take(data, 3);
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
        }
        fn run(data: &mut &[u8]) -> usize {
            let mut length = 1;
            loop {
                let byte = take(data, 1)[0];
                length += usize::from(byte);
                if byte != 255 {
                    return length;
                }
            }
        }
        let mut picture = vec![0; width * height];
        for y in (0..height).step_by(64) {
            for x in (0..width).step_by(64) {
                let (w, h) = (64.min(width - x), 64.min(height - y));
                let kind = take(&mut data, 1)[0];
                let palette: Vec<u32> = (0..kind & 0x7f).map(|_| pixel(&mut data)).collect();
                let mut tile = Vec::new();
                match kind {
                    0 => (0..w * h).for_each(|_| tile.push(pixel(&mut data))),
                    1 => tile = vec![palette[0]; w * h],
                    2..=16 => {
                        let bits = [1, 2, 4][usize::from(kind > 2) + usize::from(kind > 4)];
                        for _ in 0..h {
                            let row = take(&mut data, (w * bits).div_ceil(8));
                            for n in 0..w {
                                let byte = row[n * bits / 8] >> (8 - bits - n * bits % 8);
                                tile.push(palette[usize::from(byte) & ((1 << bits) - 1)]);
                            }
                        }
                    }
                    128 => {
                        while tile.len() < w * h {
                            let colour = pixel(&mut data);
                            let length = run(&mut data);
                            tile.resize(tile.len() + length, colour);
                        }
                    }
                    130..=255 => {
                        while tile.len() < w * h {
                            let index = take(&mut data, 1)[0];
                            let length = if index < 128 { 1 } else { run(&mut data) };
                            tile.resize(tile.len() + length, palette[usize::from(index & 127)]);
                        }
                    }
                    other => panic!("subencoding {other}"),
                }
                assert_eq!(tile.len(), w * h);
                for row in 0..h {
                    picture[(y + row) * width + x..][..w].copy_from_slice(&tile[row * w..][..w]);
                }
            }
        }
        assert!(data.is_empty());
        picture
    }

    fn round_trip(encoder: &mut Encoder, stream: &mut Decompress, pixels: &[u32], width: usize) {
        let mut out = Vec::new();
        encoder.encode(spec::ZRLE, PixelFormat::NATIVE, pixels, width, &mut out);
        let length = u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
        assert_eq!(length, out.len() - 4);
        let plain = inflate(stream, &out[4..], pixels.len() * 4 + 4096);
        assert!(decode_zrle(&plain, width, pixels.len() / width) == pixels);
    }

    #[test]
    fn every_subencoding_and_one_stream() {
        let mut encoder = Encoder::new();
        let mut stream = Decompress::new(true);
        let noise = |n: usize| (n as u32).wrapping_mul(0x9e37_79b9) >> 8;
        for colours in [1, 2, 3, 4, 5, 16, 17, 100, 127, 128, 5000] {
            for run in [1, 2, 40, 300] {
                let pixels: Vec<u32> = (0..150 * 70)
                    .map(|n| (noise(n / run) % colours * 0x0001_0203) & 0x00ff_ffff)
                    .collect();
                round_trip(&mut encoder, &mut stream, &pixels, 150);
            }
        }
        // What does not compress, in many sizes: the output runs over any room it is given.
        for width in (10..500).step_by(45) {
            let pixels: Vec<u32> = (0..width * 100).map(noise).collect();
            round_trip(&mut encoder, &mut stream, &pixels, width);
        }
        let pixels: Vec<u32> = (0..1024 * 768).map(noise).collect();
        round_trip(&mut encoder, &mut stream, &pixels, 1024);
    }

    proptest! {
        #[test]
        fn any_picture(width in 1usize..130, pixels in prop::collection::vec(0u32..20, 1..4000)) {
            let height = pixels.len().div_ceil(width);
            let mut pixels = pixels;
            pixels.resize(width * height, 0);
            round_trip(&mut Encoder::new(), &mut Decompress::new(true), &pixels, width);
        }
    }

    #[test]
    fn zlib_and_raw() {
        let pixels: Vec<u32> = (0..300).collect();
        let mut encoder = Encoder::new();
        let mut raw = Vec::new();
        encoder.encode(spec::RAW, PixelFormat::NATIVE, &pixels, 30, &mut raw);
        let mut packed = Vec::new();
        encoder.encode(spec::ZLIB, PixelFormat::NATIVE, &pixels, 30, &mut packed);
        assert_eq!(
            inflate(&mut Decompress::new(true), &packed[4..], raw.len()),
            raw
        );
        assert_eq!(Encoder::choose(&[7, 5, 6, 16, 0]), spec::ZLIB);
        assert_eq!(Encoder::choose(&[-223]), spec::RAW);
    }
}
