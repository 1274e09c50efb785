//! How fast the contents of WIMs are unpacked, with one thread and nothing written:
//! `cargo run --release -p dormer-media --example unpack FILE…`.

use dormer_media::filesystem::{self, FileSystem};
use dormer_media::source::{FileSource, Scratch, Shared};
use dormer_media::wim::Wim;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

fn main() -> dormer_media::Result<()> {
    for file in std::env::args_os().skip(1) {
        let wim = Wim::open(Arc::new(FileSource::open(Path::new(&file))?))?;
        let image = wim.image(1)?;
        let mut sources: Vec<Shared> = Vec::new();
        let mut seen = HashSet::new();
        filesystem::walk(&image, image.root(), &mut |_, entry| {
            match image.solid(entry.node, None)? {
                _ if entry.is_directory() || entry.size == 0 => {}
                Some(solid) if seen.insert((true, solid.id)) => {
                    sources.push(image.open_solid(entry.node, None)?);
                }
                None if seen.insert((false, image.order(entry.node))) => {
                    sources.push(image.open(entry.node)?);
                }
                _ => {}
            }
            Ok(())
        })?;
        let start = Instant::now();
        let (mut scratch, mut out, mut bytes) = (Scratch::default(), Vec::new(), 0);
        for pieces in sources.iter().filter_map(|source| source.pieces()) {
            let mut index = 0;
            while pieces.read_piece(index, &mut scratch, &mut out).is_ok() {
                bytes += out.len();
                index += 1;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{}: {} MiB in {seconds:.3} s, {:.0} MiB/s",
            Path::new(&file).display(),
            bytes >> 20,
            bytes as f64 / seconds / f64::from(1 << 20)
        );
    }
    Ok(())
}
