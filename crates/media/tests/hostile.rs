//! Files that were cut or changed: a clear error or correct data, never a panic, a hang, or much memory.

mod exercise;

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;

use dormer_media::bcd::{Setting, Store};
use dormer_media::fat::Fat;
use dormer_media::filesystem::FileSystem;
use dormer_media::hive::{Hive, kind};
use dormer_media::iso::Descriptors;
use dormer_media::source::Shared;
use dormer_media::udf::Udf;
use dormer_media::volume::{Bridge, Files, fat, iso};
use dormer_media::wim::Wim;
use proptest::prelude::*;

type Trees = fn(&Shared) -> Vec<Box<dyn FileSystem>>;

/// Cuts of each sample, and changes.
const ROUNDS: usize = 1000;

fn files() -> Files {
    let mut files = Files::new();
    for number in 0..20 {
        let path = format!("folder {}/a file of some length {number}.txt", number % 3);
        files.add(&path, format!("{number} ").repeat(400)).unwrap();
    }
    files.add("$WinPEDriver$/viostor.inf", INF).unwrap();
    files
}

const INF: &str = "[Version]\r\nSignature=\"$WINDOWS NT$\"\r\nClass=%c%\r\nDriverVer=01/02/2024,1.2.3.4\r\n\
[Manufacturer]\r\n%v%=M,NTarm64\r\n[M.NTarm64]\r\n%d%=i,PCI\\VEN_1AF4\r\n[Strings]\r\nc=\"x\"\r\nv=\"y\"\r\nd=\"z\"\r\n";

fn bridge() -> Vec<u8> {
    let mut bridge = Bridge::new("LABEL");
    let image = bridge
        .add("boot.img", Arc::new(fat("BOOT", &files(), 0).unwrap()))
        .unwrap();
    for number in 0..30 {
        let contents = format!("{number} ").repeat(900).into_bytes();
        bridge
            .add(&format!("sources/Größe {number}.txt"), Arc::new(contents))
            .unwrap();
    }
    bridge.boot(image, &[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    bridge.write(file.as_file()).unwrap();
    std::fs::read(file.path()).unwrap()
}

fn wim(options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("folder")).unwrap();
    for number in 0..12usize {
        let line = format!(
            "line of file {number} that comes again, {}\n",
            number * 7919
        );
        std::fs::write(
            tree.join(format!("folder/file {number}")),
            line.repeat(number * 60),
        )
        .unwrap();
    }
    let wim = folder.path().join("test.wim");
    let status = Command::new("wimlib-imagex")
        .arg("capture")
        .args([&tree, &wim])
        .args(options)
        .args(["--no-acls", "--threads=1"])
        .stdout(std::process::Stdio::null())
        .status()
        .expect("wimlib-imagex starts: cargo xtask setup installs it");
    assert!(status.success());
    std::fs::read(&wim).unwrap()
}

fn hive() -> Vec<u8> {
    let mut hive = Hive::create("ROOT").unwrap();
    for number in 0..60 {
        let key = hive
            .make(&format!("ControlSet001\\Services\\s{number}"))
            .unwrap();
        hive.set_number(&key, "Start", number).unwrap();
        hive.set(&key, "Data", kind::BINARY, &vec![7; number as usize * 300])
            .unwrap();
    }
    hive.into_bytes()
}

fn store() -> Vec<u8> {
    let mut hive = Store::create().unwrap();
    let id = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";
    Store::set_object(&mut hive, id, 0x1010_0002).unwrap();
    let device = dormer_media::bcd::Device::ram_disk("\\sources\\boot.wim", id);
    Store::set_element(&mut hive, id, 0x1100_0001, &Setting::Device(device)).unwrap();
    hive.into_bytes()
}

fn pe() -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[60] = 64;
    bytes[64..68].copy_from_slice(b"PE\0\0");
    bytes[68..70].copy_from_slice(&0xAA64u16.to_le_bytes());
    bytes[70] = 1;
    bytes[84..86].copy_from_slice(&240u16.to_le_bytes());
    bytes[88..90].copy_from_slice(&0x20Bu16.to_le_bytes());
    bytes[88 + 108] = 16;
    // Resources at 0x1000, in a section that lies at 1024 of the file.
    bytes[88 + 112 + 17] = 0x10;
    bytes[88 + 112 + 20] = 200;
    let section = 88 + 240;
    bytes[section + 13] = 0x10;
    bytes[section + 17] = 4;
    bytes[section + 21] = 4;
    bytes
}

fn discs(source: &Shared) -> Vec<Box<dyn FileSystem>> {
    let mut found: Vec<Box<dyn FileSystem>> = Vec::new();
    if let Ok(descriptors) = Descriptors::read(source) {
        for volume in [descriptors.primary, descriptors.joliet]
            .into_iter()
            .flatten()
        {
            found.push(Box::new(volume));
        }
    }
    if let Ok(udf) = Udf::read(source) {
        found.push(Box::new(udf));
    }
    found
}

fn fats(source: &Shared) -> Vec<Box<dyn FileSystem>> {
    match Fat::read(source.clone()) {
        Ok(fat) => vec![Box::new(fat)],
        Err(_) => Vec::new(),
    }
}

fn wims(source: &Shared) -> Vec<Box<dyn FileSystem>> {
    let image = Wim::open(source.clone()).and_then(|wim| wim.image(1));
    match image {
        Ok(image) => vec![Box::new(image)],
        Err(_) => Vec::new(),
    }
}

/// What can be read of a file that was cut is what was there.
fn cut(name: &str, bytes: &[u8], trees: Trees, all: fn(&[u8])) {
    let contents = |bytes: &[u8]| -> HashMap<(String, String), Vec<u8>> {
        let source: Shared = Arc::new(bytes.to_vec());
        let mut found = HashMap::new();
        for system in trees(&source) {
            for (path, contents) in exercise::tree(system.as_ref()) {
                if let Some(contents) = contents {
                    found.insert((system.name(), path), contents);
                }
            }
        }
        found
    };
    let whole = contents(bytes);
    assert!(!whole.is_empty(), "{name} can be read");
    let mut complete = 0;
    for round in 0..ROUNDS {
        let length = bytes.len() * round / ROUNDS;
        for (key, found) in contents(&bytes[..length]) {
            assert!(
                whole.get(&key) == Some(&found),
                "{name} cut at {length}: {key:?}"
            );
            complete += 1;
        }
        all(&bytes[..length]);
    }
    println!(
        "{name:<16} {:>8} bytes, {ROUNDS} cuts, {complete} files still right",
        bytes.len()
    );
}

/// A generator that gives the same numbers every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Bytes changed at random, most of them where structures are.
fn changed(name: &str, bytes: &[u8], all: fn(&[u8])) {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    for _ in 0..ROUNDS {
        let mut copy = bytes.to_vec();
        let near = 1 << (8 + numbers.below(16));
        for _ in 0..=numbers.below(6) {
            let at = numbers.below(copy.len().min(near));
            copy[at] = match numbers.below(4) {
                0 => 0xFF,
                1 => 0,
                2 => copy[at] ^ 1 << numbers.below(8),
                _ => numbers.below(256) as u8,
            };
        }
        all(&copy);
        exercise::any(&copy);
    }
    println!("{name:<16} {:>8} bytes, {ROUNDS} changes", bytes.len());
    little_memory();
}

/// The most memory that this process ever had, where the host says.
fn little_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    if let Some(most) = most {
        assert!(most < 256 << 10, "{most} KiB of memory were taken");
    }
}

#[test]
fn discs_cut_and_changed() {
    let joliet = iso("LABEL", &files()).unwrap();
    cut("ISO and Joliet", &joliet, discs, exercise::disc);
    changed("ISO and Joliet", &joliet, exercise::disc);
    let udf = bridge();
    cut("UDF bridge", &udf, discs, exercise::disc);
    changed("UDF bridge", &udf, exercise::disc);
    changed("UDF", &udf, exercise::udf);
    let catalog = &udf[22 * 2048..24 * 2048];
    changed("boot catalog", catalog, exercise::el_torito);
}

#[test]
fn fat_cut_and_changed() {
    let bytes = fat("LABEL", &files(), 0).unwrap();
    cut("FAT", &bytes, fats, exercise::fat);
    changed("FAT", &bytes, exercise::fat);
}

#[test]
fn wims_cut_and_changed() {
    for (name, options) in [
        ("WIM", &["--compress=none"][..]),
        ("WIM XPRESS", &["--compress=XPRESS"]),
        ("WIM LZX", &["--compress=LZX"]),
        ("WIM LZMS", &["--compress=LZMS"]),
        ("ESD", &["--compress=LZMS", "--solid"]),
    ] {
        let bytes = wim(options);
        cut(name, &bytes, wims, exercise::wim);
        changed(name, &bytes, exercise::wim);
    }
}

#[test]
fn hives_cut_and_changed() {
    for (name, bytes) in [("hive", hive()), ("BCD", store())] {
        for round in 0..ROUNDS {
            exercise::hive(&bytes[..bytes.len() * round / ROUNDS]);
        }
        changed(name, &bytes, exercise::hive);
    }
    let mut log = hive();
    log[28] = 6;
    changed("hive log", &log, exercise::hive_log);
}

#[test]
fn executables_and_drivers_cut_and_changed() {
    for (name, bytes, all) in [
        ("PE", pe(), exercise::pe as fn(&[u8])),
        ("INF", INF.as_bytes().to_vec(), exercise::inf),
    ] {
        for round in 0..bytes.len() {
            all(&bytes[..round]);
        }
        changed(name, &bytes, all);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn decompressors_take_anything(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        exercise::codec(&bytes);
    }

    #[test]
    fn anything_is_something(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        exercise::any(&bytes);
        exercise::inf(&bytes);
        exercise::el_torito(&bytes);
    }
}
