//! Disk images: `dormer disk` beside `qemu-img`, the same commands in alternated runs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::beside::{self, Runs, head};

const PEER: &str = "qemu-img";
const SIZE: u64 = 16 << 30;
/// Data in the image: runs of 4 MiB all over it, half of them noise, half text.
const DATA: u64 = 2 << 30;
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
    ("check, 4 M clusters", "check -q -f qcow2 {full}"),
];

/// Runs every row `pairs` times on each side and prints medians.
pub fn run(dormer: &Path, pairs: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let (source, packed, new) = (path("source.raw"), path("packed.qcow2"), path("new"));
    write_source(&source)?;
    let command = |program: &Path, prefix: &[&str], line: &str| {
        let mut command = Command::new(program);
        command
            .args(prefix)
            .args(line.split(' ').map(|word| match word {
                "{source}" => source.clone(),
                "{packed}" => packed.clone(),
                "{new}" => new.clone(),
                "{full}" => path("full.qcow2"),
                word => PathBuf::from(word),
            }));
        command
    };
    let peer = Path::new(PEER);
    let mut made = Runs::default();
    for line in [
        "convert -f raw -O qcow2 {source} {packed}",
        "create -q -f qcow2 -o preallocation=metadata {full} 256G",
    ] {
        made.add(&mut command(peer, &[], line))?;
    }
    println!("{}", head(&[PEER]));
    for (name, line) in ROWS {
        let programs = [(dormer, &["disk"][..]), (peer, &[][..])];
        let all = beside::rounds(pairs, programs.len(), &mut |program, runs| {
            let (program, prefix) = programs[program];
            if line.starts_with("convert") {
                fill_memory(&new)?;
            }
            runs.add(&mut command(program, prefix, line))?;
            let _ = std::fs::remove_file(&new);
            Ok(())
        })?;
        println!("{}", beside::line(name, &all[0], &all[1..]));
    }
    println!(
        "medians of {pairs} alternated pairs, ten times as many of what is short, in brackets the spread; a disk of {} GiB \
         with {} GiB of data in the host's cache; ratio: more than 1 is faster than qemu-img",
        SIZE >> 30,
        DATA >> 30
    );
    Ok(())
}

/// Writes and removes a file larger than any that is made: a host that takes free memory back from a virtual machine has
/// to give it again, which takes longer than the copy and would be counted to whichever program comes next.
fn fill_memory(path: &Path) -> Result<()> {
    let (file, bytes) = (File::create(path)?, vec![0; RUN as usize]);
    for at in (0..DATA + DATA / 2).step_by(bytes.len()) {
        file.write_all_at(&bytes, at)?;
    }
    Ok(std::fs::remove_file(path)?)
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
