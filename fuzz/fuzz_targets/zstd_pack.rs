//! Clusters packed by the zstd compressor: what a decoder that is not ours makes of them is what they were.
#![no_main]

use dormer_storage::qcow2::{Compression, Compressor, decompress};
use libfuzzer_sys::fuzz_target;

/// The input again and again, changed a little each time, up to a cluster of 2^`bits` bytes.
fn cluster(bytes: &[u8], bits: u32, stride: usize) -> Vec<u8> {
    let size = 1usize << bits;
    let mut cluster = Vec::with_capacity(size);
    let mut round = 0usize;
    while cluster.len() < size && !bytes.is_empty() {
        let start = cluster.len();
        cluster.extend_from_slice(&bytes[..bytes.len().min(size - start)]);
        if stride != 0 {
            let end = cluster.len();
            for at in (start + round % stride..end).step_by(stride) {
                cluster[at] = cluster[at].wrapping_add(round as u8);
            }
        }
        round += 1;
    }
    cluster.resize(size, 0);
    cluster
}

fuzz_target!(|input: &[u8]| {
    let [bits, stride, bytes @ ..] = input else {
        return;
    };
    // The largest is two blocks.
    let bits = 9 + u32::from(bits % 10);
    let mut compressor = Compressor::new(Compression::Zstd);
    let half = bytes.len() / 2;
    // Of one compressor: what it keeps from one cluster must not matter for the next.
    for bytes in [bytes, &bytes[..half], &bytes[half..]] {
        let cluster = cluster(bytes, bits, usize::from(*stride));
        let Some(packed) = compressor.compress(&cluster) else {
            continue;
        };
        assert!(packed.len() < cluster.len());
        let mut back = vec![0xee; cluster.len()];
        decompress(Compression::Zstd, &packed, &mut back).unwrap();
        assert!(back == cluster);
    }
});
