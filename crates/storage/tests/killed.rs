//! A process that writes is killed at any moment: what it had flushed is there, and the image is whole but for leaks.

use dormer_storage::qcow2::{Compression, CreateOptions};
use dormer_storage::*;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const BLOCKS: u64 = 2048;
const BLOCK: u64 = 4096;
const WRITES_PER_FLUSH: u64 = 24;
const IMAGE: &str = "DORMER_TEST_KILLED_IMAGE";

/// The block that write number `n` goes to. Parent and child agree on it.
fn target(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 33) % BLOCKS
}

fn contents(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat((BLOCK / 8) as usize)
}

fn options(path: &Path) -> ImageOptions {
    ImageOptions {
        format: Some(Format::Qcow2),
        discard: Discard::Unmap,
        ..ImageOptions::new(path)
    }
}

#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Some(path) = std::env::var_os(IMAGE) else {
        return;
    };
    let disk = open(&options(Path::new(&path))).unwrap();
    for n in 1u64.. {
        disk.write(target(n) * BLOCK, &contents(n)).unwrap();
        if n % WRITES_PER_FLUSH == 0 {
            // Also frees clusters, outside the blocks that are looked at.
            disk.write((BLOCKS + n % 512) * BLOCK, &contents(n))
                .unwrap();
            disk.discard((BLOCKS + n % 512 / 16 * 16) * BLOCK, 16 * BLOCK)
                .unwrap();
            disk.flush().unwrap();
            println!("flushed {n}");
        }
    }
}

#[test]
fn nothing_flushed_is_lost() {
    let folder = tempfile::TempDir::new().unwrap();
    for round in 0..8u64 {
        let path = folder.path().join(format!("{round}.qcow2"));
        // imago has every second image open, our own code the others.
        let options = CreateOptions {
            compression: [Compression::Zlib, Compression::Zstd][(round % 2) as usize],
            ..CreateOptions::new((BLOCKS + 1024) * BLOCK)
        };
        create_image(&path, &options, true)
            .unwrap()
            .close()
            .unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(IMAGE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut flushed = 0;
        let mut seen = 0;
        for line in &mut lines {
            let Some(n) = line
                .unwrap()
                .strip_prefix("flushed ")
                .map(|n| n.parse::<u64>().unwrap())
            else {
                continue;
            };
            flushed = n;
            seen += 1;
            if seen == 3 + round * 5 {
                break;
            }
        }
        std::thread::sleep(Duration::from_micros(round * 700));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("flushed ").and_then(|n| n.parse().ok()) {
                flushed = n;
            }
        }
        assert!(flushed > 0);

        match Command::new("qemu-img")
            .args(["check", "-f", "qcow2"])
            .arg(&path)
            .output()
        {
            // 0: whole; 3: leaked clusters only.
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(
                    matches!(output.status.code(), Some(0 | 3)),
                    "{:?}: {text}",
                    output.status
                );
            }
            Err(_) => eprintln!("not checked: no qemu-img"),
        }

        let mut last_flushed = vec![0; BLOCKS as usize];
        for n in 1..=flushed {
            last_flushed[target(n) as usize] = n;
        }
        let disk = open(&self::options(&path)).unwrap();
        for (block, last) in last_flushed.iter().enumerate() {
            let mut back = vec![0; BLOCK as usize];
            disk.read(block as u64 * BLOCK, &mut back).unwrap();
            let n = u64::from_le_bytes(back[..8].try_into().unwrap());
            let right = if n == *last {
                true
            } else {
                n > flushed && target(n) == block as u64
            };
            assert!(
                right,
                "round {round}: block {block} holds write {n}, flushed was {last}"
            );
            if n == *last {
                assert!(back == contents(n));
            }
        }
    }
}
