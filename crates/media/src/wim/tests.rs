//! Against `wimlib-imagex`, which makes WIMs of every compression.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::filesystem::{self, FileSystem, Kind};
use crate::source::FileSource;

fn wimlib(arguments: &[&std::ffi::OsStr]) {
    let output = Command::new("wimlib-imagex")
        .args(arguments)
        .output()
        .expect("wimlib-imagex starts: cargo xtask setup installs it");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A generator that gives the same numbers every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Contents of many kinds: text, noise, code with calls and relative addresses, samples whose differences repeat, runs, nothing.
pub(crate) fn contents(seed: u64) -> Vec<(&'static str, Vec<u8>)> {
    let mut numbers = Numbers(seed | 1);
    let mut noise = vec![0; 200_000];
    noise.fill_with(|| numbers.next() as u8);
    let mut code = Vec::new();
    let targets: Vec<u32> = (0..40).map(|_| numbers.next() as u32 % 300_000).collect();
    while code.len() < 400_000 {
        let at = code.len() as u32;
        let target = targets[numbers.next() as usize % targets.len()];
        let opcode: &[u8] = match numbers.next() % 9 {
            0 | 1 => &[0xE8],
            2 => &[0x48, 0x8B, 0x05],
            3 => &[0x48, 0x8B, 0x0D],
            4 => &[0x48, 0x8D, 0x15],
            5 => &[0x4C, 0x8D, 0x3D],
            6 => &[0xFF, 0x15],
            7 => &[0xF0, 0x83, 0x05],
            _ => &[0xE9],
        };
        code.extend_from_slice(opcode);
        let next = at + opcode.len() as u32 + 4;
        code.extend_from_slice(&target.wrapping_sub(next).to_le_bytes());
        for _ in 0..numbers.next() % 12 {
            code.push([0x90, 0x55, 0x48, 0x89, 0xE5, 0xC3][numbers.next() as usize % 6]);
        }
    }
    let mut samples = Vec::new();
    let (mut value, mut step) = (0u32, 3u32);
    while samples.len() < 300_000 {
        if numbers.next().is_multiple_of(50) {
            step = numbers.next() as u32 % 1000;
        }
        value = value.wrapping_add(step);
        samples.extend_from_slice(&value.to_le_bytes());
    }
    let words = [
        "window", "install", "medium", "boot", "driver", "the", "a", "of",
    ];
    let mut text = String::new();
    while text.len() < 300_000 {
        text.push_str(words[numbers.next() as usize % words.len()]);
        text.push(if numbers.next().is_multiple_of(9) {
            '\n'
        } else {
            ' '
        });
    }
    let mut runs = Vec::new();
    while runs.len() < 500_000 {
        let byte = numbers.next() as u8;
        let length = numbers.next() as usize % 70_000;
        runs.resize(runs.len() + length, byte);
    }
    let mut starts_with_call = vec![0xE8, 1, 0, 0, 0];
    starts_with_call.extend_from_slice(&code[..5000]);
    vec![
        ("noise", noise),
        ("code.bin", code.clone()),
        ("samples.wav", samples),
        ("text.txt", text.into_bytes()),
        ("runs", runs),
        ("zeroes", vec![0; 1_000_000]),
        ("empty", Vec::new()),
        ("one", vec![7]),
        ("call", starts_with_call),
        ("seventeen", code[..17].to_vec()),
        ("eighteen", code[..18].to_vec()),
        ("exactly a chunk", code[..32768].to_vec()),
        ("two and one", code[..65537].to_vec()),
    ]
}

fn tree(folder: &Path, seed: u64) {
    fs::create_dir_all(folder.join("Windows/System32/de-DE")).unwrap();
    fs::create_dir_all(folder.join("empty folder")).unwrap();
    for (name, bytes) in contents(seed) {
        fs::write(folder.join("Windows").join(name), bytes).unwrap();
    }
    fs::write(folder.join("Windows/System32/winload.efi"), b"not really").unwrap();
    fs::write(
        folder.join("Windows/System32/de-DE/Größe-日本語.txt"),
        "Länge".repeat(3000),
    )
    .unwrap();
    fs::hard_link(
        folder.join("Windows/text.txt"),
        folder.join("Windows/same.txt"),
    )
    .unwrap();
    std::os::unix::fs::symlink("Windows/text.txt", folder.join("link")).unwrap();
    fs::write(folder.join("x".repeat(250)), "long").unwrap();
}

/// A WIM of two images.
pub(crate) fn made(folder: &Path, options: &[&str]) -> PathBuf {
    let wim = folder.join("test.wim");
    for image in 1..=2u64 {
        let source = folder.join(format!("tree{image}"));
        tree(&source, image * 77);
        let name = format!("Windows {image}");
        let verb = if image == 1 { "capture" } else { "append" };
        let mut arguments = vec![
            verb.as_ref(),
            source.as_os_str(),
            wim.as_os_str(),
            name.as_ref(),
        ];
        arguments.extend(
            options
                .iter()
                .filter(|o| image == 1 || !o.starts_with("--compress") && !o.starts_with("--chunk"))
                .map(|o| std::ffi::OsStr::new(*o)),
        );
        wimlib(&arguments);
    }
    wim
}

fn check(options: &[&str], compression: Compression) {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), options);
    let wim = Wim::open(Arc::new(FileSource::open(&path).unwrap())).unwrap();
    assert_eq!(wim.header.compression, compression);
    assert_eq!(wim.header.images, 2);
    let information = wim.information().unwrap();
    assert_eq!(information.len(), 2);
    assert_eq!(information[1].name.as_deref(), Some("Windows 2"));
    for index in 1..=2u32 {
        let image = wim.image(index).unwrap();
        let source = folder.path().join(format!("tree{index}"));
        let mut found = BTreeMap::new();
        let mut links = Vec::new();
        filesystem::walk(&image, image.root(), &mut |path, entry| {
            let host = source.join(path);
            match entry.kind {
                Kind::Directory => assert!(host.is_dir()),
                Kind::File => {
                    let expected = fs::read(&host).unwrap();
                    assert_eq!(entry.size, expected.len() as u64, "{path}");
                    let contents = image.open(entry.node)?;
                    let bytes = contents.read_vec(0, expected.len())?;
                    assert!(bytes == expected, "{path} of image {index} differs");
                    // Some pieces out of order too.
                    for at in [100_000usize, 3, 32_767, 65_535] {
                        if at + 10 < bytes.len() {
                            assert_eq!(contents.read_vec(at as u64, 10)?, expected[at..at + 10]);
                        }
                    }
                    if let Some(hash) = &entry.sha1 {
                        verify(path, hash, &bytes)?;
                    }
                }
                Kind::Link => panic!("{path}: a WIM has reparse points"),
                Kind::Reparse { .. } => {
                    assert_eq!(
                        image.link(entry.node)?.as_deref(),
                        Some("Windows\\text.txt")
                    );
                }
            }
            if entry.hard_link != 0 && entry.kind == Kind::File {
                links.push((entry.hard_link, path.to_string()));
            }
            found.insert(path.to_string(), ());
            Ok(())
        })
        .unwrap();
        let same = |name: &str| links.iter().find(|(_, p)| p == name).map(|(l, _)| *l);
        assert!(same("Windows/text.txt").is_some());
        assert_eq!(same("Windows/text.txt"), same("Windows/same.txt"));
        assert!(found.contains_key("Windows/System32/de-DE/Größe-日本語.txt"));
        assert_eq!(found.len(), 4 + contents(1).len() + 5);
        let any_case = filesystem::find(&image, "WINDOWS\\system32\\WinLoad.efi").unwrap();
        assert_eq!(any_case.name, "winload.efi");
    }
    assert!(matches!(wim.image(3), Err(Error::NotFound(_))));
    assert!(matches!(wim.image(0), Err(Error::NotFound(_))));
}

#[test]
fn uncompressed() {
    check(&["--compress=none"], Compression::None);
}

#[test]
fn xpress() {
    check(&["--compress=XPRESS"], Compression::Xpress);
    check(
        &["--compress=XPRESS:80", "--chunk-size=4096"],
        Compression::Xpress,
    );
}

#[test]
fn lzx() {
    check(&["--compress=LZX"], Compression::Lzx);
    check(&["--compress=LZX:100", "--chunk-size=2M"], Compression::Lzx);
    check(&["--compress=LZX:20", "--chunk-size=64K"], Compression::Lzx);
}

#[test]
fn lzms() {
    check(&["--compress=LZMS"], Compression::Lzms);
    check(
        &["--compress=LZMS:100", "--chunk-size=1M"],
        Compression::Lzms,
    );
}

#[test]
fn solid() {
    check(&["--compress=LZMS", "--solid"], Compression::Lzms);
    check(
        &[
            "--compress=LZX",
            "--solid",
            "--solid-compress=XPRESS",
            "--solid-chunk-size=64K",
        ],
        Compression::Lzx,
    );
}
