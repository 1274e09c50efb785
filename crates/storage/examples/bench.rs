//! How fast images are through [`Disk`]: `cargo run --release -p dormer-storage --example bench [FOLDER]`.

use dormer_storage::*;
use std::path::PathBuf;
use std::time::Instant;

const SIZE: u64 = 1 << 30;

fn main() {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    for format in [Format::Raw, Format::Qcow2] {
        let path = folder.join(format!("bench.{}.{format}", std::process::id()));
        match format {
            Format::Raw => create_raw(&path, SIZE),
            Format::Qcow2 => create_qcow2(&path, SIZE),
        }
        .expect("creates");
        let options = ImageOptions {
            format: Some(format),
            ..ImageOptions::new(&path)
        };
        let disk = open(&options).expect("opens");
        let big = vec![0x5a; 1 << 20];
        sequential(&format!("{format}: write 1 MiB, fresh"), |at| {
            disk.write(at, &big).unwrap()
        });
        let start = Instant::now();
        disk.flush().unwrap();
        println!(
            "{format}: flush                     {:8.1} ms",
            start.elapsed().as_secs_f64() * 1e3
        );
        sequential(&format!("{format}: write 1 MiB, again"), |at| {
            disk.write(at, &big).unwrap()
        });
        let mut into = vec![0; 1 << 20];
        sequential(&format!("{format}: read 1 MiB        "), |at| {
            disk.read(at, &mut into).unwrap()
        });
        let mut small = vec![0x33; 4096];
        random(&format!("{format}: write 4 KiB, random"), |at| {
            disk.write(at, &small).unwrap()
        });
        random(&format!("{format}: read 4 KiB, random "), |at| {
            disk.read(at, &mut small).unwrap()
        });
        drop(disk);
        let _ = std::fs::remove_file(path);
    }
}

fn sequential(what: &str, mut work: impl FnMut(u64)) {
    let start = Instant::now();
    (0..SIZE).step_by(1 << 20).for_each(&mut work);
    println!(
        "{what}  {:8.1} MiB/s",
        (SIZE >> 20) as f64 / start.elapsed().as_secs_f64()
    );
}

fn random(what: &str, mut work: impl FnMut(u64)) {
    const COUNT: u32 = 200_000;
    let start = Instant::now();
    let mut x = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..COUNT {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        work(x % (SIZE / 4096) * 4096);
    }
    println!(
        "{what}  {:8.0} /s",
        f64::from(COUNT) / start.elapsed().as_secs_f64()
    );
}
