//! Compressed clusters.

use super::header::Compression;
use super::zstd::Zstd;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use std::io::Read;

/// The window that readers of zlib clusters keep: 4 KiB.
const WINDOW_BITS: u8 = 12;

fn deflate() -> Compress {
    Compress::new_with_window_bits(flate2::Compression::default(), false, WINDOW_BITS)
}

/// Compresses clusters, one after another.
pub struct Compressor {
    kind: Compression,
    deflate: Compress,
    zstd: Zstd,
}

impl Compressor {
    pub fn new(kind: Compression) -> Compressor {
        Compressor {
            kind,
            deflate: deflate(),
            zstd: Zstd::default(),
        }
    }

    /// The compressed bytes, or `None` if they are not fewer.
    pub fn compress(&mut self, cluster: &[u8]) -> Option<Vec<u8>> {
        match self.kind {
            Compression::Zlib => {
                // Room for all of it, whatever it is: zlib-rs keeps what did not fit over a reset, and panics later.
                let room = cluster.len() + cluster.len() / 16 + 1024;
                let mut packed = Vec::with_capacity(room);
                let result = self
                    .deflate
                    .compress_vec(cluster, &mut packed, FlushCompress::Finish);
                match result {
                    Ok(Status::StreamEnd) => self.deflate.reset(),
                    _ => self.deflate = deflate(),
                }
                let whole = matches!(result, Ok(Status::StreamEnd));
                (whole && packed.len() < cluster.len()).then_some(packed)
            }
            Compression::Zstd => {
                let packed = self.zstd.compress(cluster);
                (packed.len() < cluster.len()).then_some(packed)
            }
        }
    }
}

/// Fills `into`, a whole cluster, from compressed bytes that rubbish may follow. An error is for users to read.
pub fn decompress(kind: Compression, packed: &[u8], into: &mut [u8]) -> Result<(), String> {
    match kind {
        Compression::Zlib => {
            // Whatever window it was made with.
            let mut inflate = Decompress::new(false);
            match inflate.decompress(packed, into, FlushDecompress::Finish) {
                Ok(Status::StreamEnd | Status::BufError | Status::Ok)
                    if inflate.total_out() == into.len() as u64 =>
                {
                    Ok(())
                }
                Ok(_) => Err("the compressed data are cut short".into()),
                Err(error) => Err(error.to_string()),
            }
        }
        Compression::Zstd => {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(
                packed,
                (into.len() as u64).max(8 << 20),
            )
            .map_err(|error| error.to_string())?;
            decoder.read_exact(into).map_err(|error| error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for kind in [Compression::Zlib, Compression::Zstd] {
            for size in [512usize, 4096, 65536, 1 << 20, 2 << 20] {
                let mut cluster: Vec<u8> = (0..size).map(|n| (n / 7 % 251) as u8).collect();
                cluster[size / 2..size / 2 + 100].fill(7);
                let mut packed = Compressor::new(kind).compress(&cluster).unwrap();
                packed.extend([0xaa; 300]);
                let mut back = vec![0; size];
                decompress(kind, &packed, &mut back).unwrap();
                assert!(back == cluster, "{kind:?} {size}");
                assert!(decompress(kind, &packed[..packed.len() / 8], &mut back).is_err());
            }
            let mut x = 1u64;
            let noise: Vec<u8> = (0..65536)
                .map(|_| {
                    x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    (x >> 56) as u8
                })
                .collect();
            assert!(Compressor::new(kind).compress(&noise).is_none());
        }
    }

    /// Clusters that do not become smaller leave nothing behind for those that follow.
    #[test]
    fn after_much_noise() {
        let mut compressor = Compressor::new(Compression::Zlib);
        let mut x = 1u64;
        for round in 0..600 {
            let mut cluster: Vec<u8> = (0..512)
                .map(|_| {
                    x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    (x >> 56) as u8
                })
                .collect();
            if round % 100 == 99 {
                cluster[50..].fill(3);
            }
            let Some(packed) = compressor.compress(&cluster) else {
                continue;
            };
            let mut back = vec![0; 512];
            decompress(Compression::Zlib, &packed, &mut back).unwrap();
            assert!(back == cluster);
        }
    }

    #[test]
    fn noise_is_an_error() {
        let mut x = 3u64;
        for round in 0..400 {
            let bytes: Vec<u8> = (0..round)
                .map(|_| {
                    x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    (x >> 56) as u8
                })
                .collect();
            let mut into = vec![0; 4096];
            let _ = decompress(Compression::Zlib, &bytes, &mut into);
            let _ = decompress(Compression::Zstd, &bytes, &mut into);
            let mut framed = vec![0x28, 0xb5, 0x2f, 0xfd];
            framed.extend(&bytes);
            let _ = decompress(Compression::Zstd, &framed, &mut into);
        }
    }
}
