//! Images of running machines with zstd clusters, which our own code has open, through the host's page cache and past it:
//! whatever is done to a disk, it holds what a model in memory holds, before and after it was closed.
#![no_main]

use dormer_storage::format::Source;
use dormer_storage::qcow2::{Access, Compression, Compressor, CreateOptions, Qcow2, Repair};
use dormer_storage::{Cache, DetectZeroes, Discard, Format, ImageOptions, create_image, open};
use libfuzzer_sys::fuzz_target;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const SIZE: usize = 64 << 10;

/// A folder in memory, of this process.
fn folder() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => memory.into(),
        false => std::env::temp_dir(),
    };
    folder.join(format!("dormer-fuzz-disk.{}", std::process::id()))
}

/// An image of which some clusters are packed, and what it holds.
fn image(path: &Path, cluster: u64, packed: u8) -> Vec<u8> {
    let options = CreateOptions {
        compression: Compression::Zstd,
        cluster_size: cluster,
        ..CreateOptions::new(SIZE as u64)
    };
    let image = create_image(path, &options, false).unwrap();
    let mut model = vec![0; SIZE];
    let mut compressor = Compressor::new(Compression::Zstd);
    for (n, part) in model.chunks_mut(cluster as usize).enumerate() {
        if packed >> (n % 8) & 1 != 0 {
            for (at, byte) in part.iter_mut().enumerate() {
                *byte = (at / 9 + n) as u8;
            }
            let offset = n as u64 * cluster;
            match compressor.compress(part) {
                Some(bytes) => image.write_compressed(offset, &bytes).unwrap(),
                None => part.fill(0),
            }
        }
    }
    image.close().unwrap();
    model
}

fn check(path: &Path, model: &[u8]) {
    let access = Access::default();
    let file = Arc::new(File::open(path).unwrap());
    let image = Qcow2::open(file, path, None, access).unwrap();
    let report = image.check(Repair::Nothing).unwrap();
    assert_eq!((report.leaks, report.corruptions), (0, 0), "{:?}", report.messages);
    let mut back = vec![0; SIZE];
    image.read(0, &mut back).unwrap();
    assert!(back == model);
}

fuzz_target!(|input: &[u8]| {
    let [how, packed, steps @ ..] = input else {
        return;
    };
    let path = folder();
    let mut model = image(&path, 512 << (how & 7).min(6), *packed);
    let options = ImageOptions {
        format: Some(Format::Qcow2),
        cache: [Cache::Unsafe, Cache::None][usize::from(how >> 3 & 1)],
        discard: [Discard::Unmap, Discard::Ignore][usize::from(how >> 4 & 1)],
        detect_zeroes: [DetectZeroes::Off, DetectZeroes::On, DetectZeroes::Unmap]
            [usize::from(how >> 5) % 3],
        ..ImageOptions::new(&path)
    };
    let mut disk = open(&options).unwrap();
    for step in steps.chunks_exact(6).take(64) {
        let number = |at: usize| usize::from(u16::from_le_bytes([step[at], step[at + 1]]));
        // Some of whole sectors, some of any bytes.
        let unit = [1, 512, 4096][usize::from(step[1] >> 3) % 3];
        let at = number(2) % SIZE / unit * unit;
        let length = (number(4) * unit % (24 << 10)).min(SIZE - at);
        let (offset, span) = (at as u64, at..at + length);
        match step[0] % 8 {
            0..3 => {
                let bytes: Vec<u8> = (0..length).map(|n| (n / 3) as u8 ^ step[1]).collect();
                disk.write(offset, &bytes).unwrap();
                model[span].copy_from_slice(&bytes);
            }
            3 => {
                disk.write_zeroes(offset, length as u64, step[1] & 1 != 0).unwrap();
                model[span].fill(0);
            }
            4 => {
                disk.discard(offset, length as u64).unwrap();
                // Whatever is there now stays.
                disk.read(offset, &mut model[span]).unwrap();
            }
            5 => disk.flush().unwrap(),
            6 if step[1] & 3 == 0 => {
                drop(disk);
                check(&path, &model);
                disk = open(&options).unwrap();
            }
            _ => {
                let mut back = vec![0xee; length];
                disk.read(offset, &mut back).unwrap();
                assert!(back == model[span]);
            }
        }
    }
    drop(disk);
    check(&path, &model);
    let _ = std::fs::remove_file(&path);
});
