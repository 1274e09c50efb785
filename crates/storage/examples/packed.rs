//! What a machine sees of a disk of zstd clusters, while four threads read and write at random and one flushes:
//! `cargo run --release -p dormer-storage --example packed [FOLDER]`.

use dormer_storage::qcow2::{Compression, Compressor, CreateOptions};
use dormer_storage::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SIZE: u64 = 256 << 20;
const CLUSTER: u64 = 65536;
const TIME: Duration = Duration::from_secs(4);

fn main() {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("packed.{}.qcow2", std::process::id()));
    let options = CreateOptions {
        compression: Compression::Zstd,
        ..CreateOptions::new(SIZE)
    };
    let image = create_image(&path, &options, false).expect("creates");
    let mut compressor = Compressor::new(Compression::Zstd);
    for n in 0..SIZE / CLUSTER {
        let text: Vec<u8> = (0..CLUSTER / 16)
            .flat_map(|line| format!("{:15}\n", (line * 31 + n * 7) % 8191).into_bytes())
            .collect();
        let packed = compressor.compress(&text).expect("text becomes smaller");
        image
            .write_compressed(n * CLUSTER, &packed)
            .expect("writes");
    }
    image.close().expect("closes");
    drop(image);
    let disk = open(&ImageOptions::new(&path)).expect("opens");
    let end = AtomicBool::new(false);
    let (disk, end) = (&*disk, &end);
    let mut times: [Vec<Duration>; 3] = Default::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..=4u64)
            .map(|thread| {
                scope.spawn(move || {
                    let mut times: [Vec<Duration>; 2] = Default::default();
                    let mut x = thread * 0x2545_f491_4f6c_dd1d;
                    let mut block = [0; 4096];
                    while !end.load(Ordering::Relaxed) {
                        x ^= x << 13;
                        x ^= x >> 7;
                        x ^= x << 17;
                        let offset = x % (SIZE / 4096) * 4096;
                        let write = x >> 32 & 7 < 2;
                        let start = Instant::now();
                        match write {
                            true => disk.write(offset, &block).unwrap(),
                            false => disk.read(offset, &mut block).unwrap(),
                        }
                        times[usize::from(write)].push(start.elapsed());
                    }
                    times
                })
            })
            .collect();
        let start = Instant::now();
        while start.elapsed() < TIME {
            std::thread::sleep(Duration::from_millis(50));
            let now = Instant::now();
            disk.flush().unwrap();
            times[2].push(now.elapsed());
        }
        end.store(true, Ordering::Relaxed);
        for worker in workers {
            for (all, its) in times.iter_mut().zip(worker.join().unwrap()) {
                all.extend(its);
            }
        }
    });
    let _ = std::fs::remove_file(path);
    for (what, mut times) in ["reads", "writes", "flushes"].into_iter().zip(times) {
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 1000].as_secs_f64() * 1e3;
        println!(
            "{what}: {:.0}/s, median {:.3} ms, 99 % {:.3} ms, 99.9 % {:.3} ms, longest {:.3} ms",
            times.len() as f64 / TIME.as_secs_f64(),
            at(500),
            at(990),
            at(999),
            at(1000)
        );
    }
}
