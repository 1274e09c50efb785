//! How fast clusters are packed, with one thread: `cargo run --release -p dormer-storage --example pack zlib|zstd FILE…`.

use dormer_storage::qcow2::{Compression, Compressor};
use std::time::Instant;

const CLUSTER: usize = 65536;

fn main() -> std::io::Result<()> {
    let mut words = std::env::args_os().skip(1);
    let kind = match words.next() {
        Some(word) if word == "zlib" => Compression::Zlib,
        _ => Compression::Zstd,
    };
    for file in words {
        let bytes = std::fs::read(&file)?;
        let mut compressor = Compressor::new(kind);
        let start = Instant::now();
        let packed: usize = (bytes.chunks(CLUSTER))
            .map(|cluster| {
                compressor
                    .compress(cluster)
                    .map_or(cluster.len(), |p| p.len())
            })
            .sum();
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{} bytes to {packed} in {seconds:.3} s, {:.0} MiB/s",
            bytes.len(),
            bytes.len() as f64 / seconds / f64::from(1 << 20)
        );
    }
    Ok(())
}
