//! Disk images: `dormer disk` beside `qemu-img`, the same commands in alternated runs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

const PEER: &str = "qemu-img";
const SIZE: u64 = 16 << 30;
/// Data in the image: runs of 4 MiB all over it, half of them noise, half text.
const DATA: u64 = 1 << 30;
const RUN: u64 = 4 << 20;

/// Name, arguments; `{source}` is the raw image, `{packed}` the same as qcow2, `{new}` a file that is made.
const ROWS: &[(&str, &str)] = &[
    ("create", "create -q -f qcow2 {new} 64G"),
    ("convert", "convert -f raw -O qcow2 {source} {new}"),
    ("convert -W", "convert -W -f raw -O qcow2 {source} {new}"),
    ("convert -c", "convert -c -f raw -O qcow2 {source} {new}"),
    (
        "convert -c zstd",
        "convert -c -f raw -O qcow2 -o compression_type=zstd {source} {new}",
    ),
    ("convert to raw", "convert -f qcow2 -O raw {packed} {new}"),
    ("compare", "compare -q -f raw -F qcow2 {source} {packed}"),
    ("check", "check -q -f qcow2 {packed}"),
];

/// Runs every row `pairs` times on each side and prints medians, in seconds.
pub fn run(dormer: &Path, pairs: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    write_source(&path("source.raw"))?;
    let source = path("source.raw");
    seconds(
        Path::new(PEER),
        &[],
        "convert -f raw -O qcow2 {source} {new}",
        &source,
        &source,
        &path("packed.qcow2"),
    )?;
    let packed = path("packed.qcow2");
    println!(
        "{:<16} {:>10} {:>10} {:>7}",
        "", "Dormer", "qemu-img", "ratio"
    );
    for (name, line) in ROWS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..pairs.max(1) {
            for (program, prefix, times) in [
                (dormer, &["disk"][..], &mut ours),
                (Path::new(PEER), &[][..], &mut theirs),
            ] {
                let new = path("new");
                times.push(seconds(program, prefix, line, &source, &packed, &new)?);
                let _ = std::fs::remove_file(new);
            }
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "{name:<16} {ours:>9.3}s {theirs:>9.3}s {:>6.2}x",
            theirs / ours
        );
    }
    println!(
        "medians of {pairs} alternated pairs; a disk of {} GiB with {} GiB of data in the host's cache; ratio: more than 1 \
         is faster than qemu-img",
        SIZE >> 30,
        DATA >> 30
    );
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn seconds(
    program: &Path,
    prefix: &[&str],
    line: &str,
    source: &Path,
    packed: &Path,
    new: &Path,
) -> Result<f64> {
    let words = line.split(' ').map(|word| match word {
        "{source}" => PathBuf::from(source),
        "{packed}" => PathBuf::from(packed),
        "{new}" => PathBuf::from(new),
        word => PathBuf::from(word),
    });
    let start = Instant::now();
    let status = Command::new(program)
        .args(prefix)
        .args(words)
        .stdout(Stdio::null())
        .status()
        .with_context(|| program.display().to_string())?;
    let time = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{} {line}: {status}", program.display());
    Ok(time)
}

fn write_source(path: &Path) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(SIZE)?;
    let runs = DATA / RUN;
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = vec![0; RUN as usize];
    for run in 0..runs {
        for word in bytes.chunks_exact_mut(8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let value = if run % 2 == 0 {
                x
            } else {
                u64::from_le_bytes(*b"a word, ") ^ x & 0x0f
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
        file.write_all_at(&bytes, run * (SIZE / runs))?;
    }
    Ok(())
}
