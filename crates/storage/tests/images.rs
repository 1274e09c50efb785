//! Images as `qemu-img` makes and checks them. Tests that need `qemu-img` are left out, with a word, where it is missing.

use dormer_storage::qcow2::{Compression, CreateOptions};
use dormer_storage::*;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

fn qemu_img(folder: &Path, arguments: &[&str]) -> Option<String> {
    match Command::new("qemu-img")
        .args(arguments)
        .current_dir(folder)
        .output()
    {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "qemu-img {arguments:?}: {text}");
            Some(text)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("left out: no qemu-img");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn options(path: impl Into<PathBuf>, format: Format) -> ImageOptions {
    ImageOptions {
        format: Some(format),
        discard: Discard::Unmap,
        ..ImageOptions::new(path)
    }
}

fn error(options: &ImageOptions) -> String {
    open(options).err().expect("must not open").to_string()
}

/// A repeatable sequence (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Random operations against a copy in memory.
fn exercise(disk: &dyn Disk, rounds: u32) {
    let size = disk.size();
    let model = MemoryDisk::new(size);
    let mut whole = vec![0; size as usize];
    disk.read(0, &mut whole).unwrap();
    model.write(0, &whole).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds {
        let offset = random.next() % size;
        let length = (random.next() % 200_000).min(size - offset);
        let (offset, length) = if random.next().is_multiple_of(2) {
            (offset & !511, length & !511)
        } else {
            (offset, length)
        };
        match random.next() % 6 {
            0..=2 => {
                let mut data = vec![random.next() as u8; length as usize];
                for byte in data.iter_mut().step_by(7) {
                    *byte = random.next() as u8;
                }
                disk.write(offset, &data).unwrap();
                model.write(offset, &data).unwrap();
            }
            3 => {
                disk.write_zeroes(offset, length, random.next().is_multiple_of(2))
                    .unwrap();
                model.write_zeroes(offset, length, true).unwrap();
            }
            4 => {
                // Old data or zeroes: the copy takes what is there.
                disk.discard(offset, length).unwrap();
                let mut now = vec![0; length as usize];
                let mut before = now.clone();
                disk.read(offset, &mut now).unwrap();
                model.read(offset, &mut before).unwrap();
                assert!(
                    now.iter()
                        .zip(&before)
                        .all(|(now, before)| now == before || *now == 0)
                );
                model.write(offset, &now).unwrap();
            }
            _ => {
                let mut now = vec![0; length as usize];
                let mut expected = now.clone();
                disk.read(offset, &mut now).unwrap();
                model.read(offset, &mut expected).unwrap();
                assert!(now == expected, "round {round}: {length} bytes at {offset}");
            }
        }
        if round % 50 == 49 {
            disk.flush().unwrap();
        }
    }
    disk.read(0, &mut whole).unwrap();
    assert!(whole == model.contents());
    disk.flush().unwrap();
}

#[test]
fn qcow2_keeps_what_is_written_and_passes_the_check() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.qcow2");
    create_qcow2(&path, 8 << 20).unwrap();
    let disk = open(&options(&path, Format::Qcow2)).unwrap();
    assert_eq!(disk.size(), 8 << 20);
    exercise(&*disk, 400);
    let mut ours = vec![0; 8 << 20];
    disk.read(0, &mut ours).unwrap();
    drop(disk);
    if qemu_img(folder.path(), &["check", "a.qcow2"]).is_some() {
        qemu_img(folder.path(), &["convert", "-O", "raw", "a.qcow2", "a.raw"]);
        assert!(fs::read(folder.path().join("a.raw")).unwrap() == ours);
    }
}

#[test]
fn raw_in_every_cache_mode() {
    let folder = TempDir::new().unwrap();
    for cache in ["writeback", "none", "writethrough", "directsync", "unsafe"] {
        let path = folder.path().join(cache);
        create_raw(&path, 4 << 20).unwrap();
        let cache: Cache = cache.parse().unwrap();
        let disk = open(&ImageOptions {
            cache,
            ..options(&path, Format::Raw)
        })
        .unwrap();
        exercise(&*disk, 60);
    }
}

#[test]
fn qcow2_with_direct_access() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.qcow2");
    create_qcow2(&path, 4 << 20).unwrap();
    let disk = open(&ImageOptions {
        cache: Cache::None,
        ..options(&path, Format::Qcow2)
    })
    .unwrap();
    exercise(&*disk, 100);
    assert!(error(&options(&path, Format::Qcow2)).contains("Failed to get \"write\" lock"));
}

#[test]
fn zeroes_are_detected_and_space_comes_back() {
    use std::os::unix::fs::MetadataExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.raw");
    create_raw(&path, 8 << 20).unwrap();
    let blocks = || fs::metadata(&path).unwrap().blocks();
    let disk = open(&ImageOptions {
        detect_zeroes: DetectZeroes::Unmap,
        ..options(&path, Format::Raw)
    })
    .unwrap();
    disk.write(0, &vec![1; 8 << 20]).unwrap();
    disk.flush().unwrap();
    let full = blocks();
    assert!(full >= (8 << 20) / 512);
    disk.discard(0, 4 << 20).unwrap();
    assert!(blocks() <= full / 2 + 64);
    disk.write(4 << 20, &vec![0; 4 << 20]).unwrap();
    assert!(blocks() <= 64);
    let mut back = vec![9; 1 << 20];
    disk.read(5 << 20, &mut back).unwrap();
    assert!(back.iter().all(|byte| *byte == 0));
    drop(disk);

    let ignoring = open(&ImageOptions {
        discard: Discard::Ignore,
        ..options(&path, Format::Raw)
    })
    .unwrap();
    ignoring.write(0, &vec![1; 1 << 20]).unwrap();
    ignoring.discard(0, 1 << 20).unwrap();
    let mut back = vec![0; 1 << 20];
    ignoring.read(0, &mut back).unwrap();
    assert!(
        back.iter().all(|byte| *byte == 1),
        "discard=ignore leaves the data"
    );
}

#[test]
fn overlays_show_what_is_below_and_leave_it_alone() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("base.raw"), vec![0xaa; 1 << 20]).unwrap();
    create_overlay(&at("middle.qcow2"), 2 << 20, "base.raw", Format::Raw).unwrap();
    create_overlay(&at("top.qcow2"), 3 << 20, "middle.qcow2", Format::Qcow2).unwrap();
    {
        let middle = open(&options(at("middle.qcow2"), Format::Qcow2)).unwrap();
        middle.write(4096, &[0xbb; 4096]).unwrap();
    }
    let image = Image::open(&ImageOptions::new(at("top.qcow2"))).unwrap();
    let names: Vec<_> = image
        .layers
        .iter()
        .map(|layer| layer.path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["top.qcow2", "middle.qcow2", "base.raw"]);
    assert!(!image.guessed_raw);
    let mut start = [0; 8192 + 4];
    image.disk.read(0, &mut start).unwrap();
    assert!(
        start[..4096] == [0xaa; 4096]
            && start[4096..8192] == [0xbb; 4096]
            && start[8192..] == [0xaa; 4]
    );
    let mut past = [1; 4096];
    image.disk.read((1 << 20) - 2048, &mut past).unwrap();
    assert!(
        past[..2048] == [0xaa; 2048] && past[2048..] == [0; 2048],
        "below it is shorter"
    );

    // Layers below are locked for reading: no writer, but other overlays may share them.
    assert!(error(&options(at("base.raw"), Format::Raw)).contains("Failed to get \"write\" lock"));
    assert!(
        open(&ImageOptions {
            read_only: true,
            ..options(at("base.raw"), Format::Raw)
        })
        .is_ok()
    );

    exercise(&*image.disk, 150);
    drop(image);
    assert!(fs::read(at("base.raw")).unwrap() == vec![0xaa; 1 << 20]);
    qemu_img(folder.path(), &["check", "top.qcow2"]);
}

#[test]
fn images_that_qemu_makes() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(
        at("data.raw"),
        (0..3 << 20)
            .map(|i: u32| (i >> 9) as u8)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    if qemu_img(
        folder.path(),
        &["convert", "-c", "-O", "qcow2", "data.raw", "packed.qcow2"],
    )
    .is_none()
    {
        return;
    }
    qemu_img(
        folder.path(),
        &[
            "convert",
            "-O",
            "qcow2",
            "-o",
            "compat=0.10",
            "data.raw",
            "old.qcow2",
        ],
    );
    qemu_img(
        folder.path(),
        &[
            "convert",
            "-O",
            "qcow2",
            "-o",
            "cluster_size=512,refcount_bits=1",
            "data.raw",
            "small.qcow2",
        ],
    );
    qemu_img(
        folder.path(),
        &[
            "convert",
            "-O",
            "qcow2",
            "-o",
            "lazy_refcounts=on",
            "data.raw",
            "lazy.qcow2",
        ],
    );
    qemu_img(
        folder.path(),
        &[
            "convert",
            "-O",
            "qcow2",
            "-o",
            "data_file=outside.bin",
            "data.raw",
            "split.qcow2",
        ],
    );
    let expected = fs::read(at("data.raw")).unwrap();
    for name in [
        "packed.qcow2",
        "old.qcow2",
        "small.qcow2",
        "lazy.qcow2",
        "split.qcow2",
    ] {
        let disk = open(&ImageOptions {
            discard: Discard::Unmap,
            ..ImageOptions::new(at(name))
        })
        .unwrap();
        let mut back = vec![0; expected.len()];
        disk.read(0, &mut back).unwrap();
        assert!(back == expected, "{name}");
        exercise(&*disk, 80);
        drop(disk);
        qemu_img(folder.path(), &["check", name]);
    }
}

#[test]
fn internal_snapshots_are_left_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.qcow2");
    create_qcow2(&path, 1 << 20).unwrap();
    open(&options(&path, Format::Qcow2))
        .unwrap()
        .write(0, &vec![1; 1 << 20])
        .unwrap();
    if qemu_img(folder.path(), &["snapshot", "-c", "before", "a.qcow2"]).is_none() {
        return;
    }
    exercise(&*open(&options(&path, Format::Qcow2)).unwrap(), 100);
    qemu_img(folder.path(), &["check", "a.qcow2"]);
    qemu_img(
        folder.path(),
        &[
            "convert",
            "-l",
            "before",
            "-O",
            "raw",
            "a.qcow2",
            "before.raw",
        ],
    );
    assert!(fs::read(folder.path().join("before.raw")).unwrap() == vec![1; 1 << 20]);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let create = |name: &str, format: &str, more: &[&str]| {
        let mut arguments = vec!["create", "-q", "-f", format];
        arguments.extend_from_slice(more);
        arguments.extend_from_slice(&[name, "4M"]);
        qemu_img(folder.path(), &arguments)
    };
    if create("sub.qcow2", "qcow2", &["-o", "extended_l2=on"]).is_none() {
        return;
    }
    create(
        "luks.qcow2",
        "qcow2",
        &[
            "--object",
            "secret,id=s,data=pass",
            "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        ],
    );
    create("a.vmdk", "vmdk", &[]);
    create("a.vdi", "vdi", &[]);
    create("a.vhdx", "vhdx", &[]);
    create("a.vpc", "vpc", &[]);
    for (name, word) in [
        ("sub.qcow2", "extended L2"),
        ("luks.qcow2", "LUKS"),
        ("a.vmdk", "'vmdk'"),
        ("a.vdi", "'vdi'"),
        ("a.vhdx", "'vhdx'"),
        ("a.vpc", "'vpc'"),
    ] {
        let before = fs::read(at(name)).unwrap();
        let message = error(&ImageOptions::new(at(name)));
        assert!(
            message.contains(word) && message.lines().count() == 1,
            "{message}"
        );
        assert!(fs::read(at(name)).unwrap() == before);
    }
}

#[test]
fn errors_are_qemus() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let missing = error(&ImageOptions::new("x.qcow2"));
    assert_eq!(
        missing,
        "Could not open 'x.qcow2': No such file or directory"
    );
    let directory = error(&ImageOptions::new(folder.path()));
    assert!(directory.ends_with("Is a directory"), "{directory}");
    assert!(
        error(&ImageOptions::new("/dev/zero"))
            .contains("neither a regular file nor a block device")
    );
    fs::write(at("not"), b"hello").unwrap();
    assert!(error(&options(at("not"), Format::Qcow2)).ends_with("Image is not in qcow2 format"));
    fs::write(at("seven"), b"QFI\xfb\0\0\0\x07aaa").unwrap();
    assert!(error(&ImageOptions::new(at("seven"))).ends_with("Unsupported qcow2 version 7"));

    create_qcow2(&at("cut"), 1 << 30).unwrap();
    for length in [8, 70, 200, 65536, 65537] {
        create_qcow2(&at("cut"), 1 << 30).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(at("cut"))
            .unwrap()
            .set_len(length)
            .unwrap();
        let message = error(&ImageOptions::new(at("cut")));
        assert!(
            message.contains("Could not open") && message.lines().count() == 1,
            "{message}"
        );
    }

    create_overlay(&at("loop"), 1 << 20, "loop", Format::Qcow2).unwrap();
    assert!(error(&ImageOptions::new(at("loop"))).contains("its own backing file"));
    create_overlay(&at("orphan"), 1 << 20, "gone.raw", Format::Raw).unwrap();
    let orphan = error(&ImageOptions::new(at("orphan")));
    assert!(
        orphan.contains("backing file of") && orphan.contains("gone.raw': No such file"),
        "{orphan}"
    );
    create_overlay(&at("net"), 1 << 20, "nbd:localhost:1", Format::Raw).unwrap();
    assert!(error(&ImageOptions::new(at("net"))).contains("protocol 'nbd' is not supported"));
}

#[test]
fn one_writer_or_many_readers() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.qcow2");
    create_qcow2(&path, 1 << 20).unwrap();
    let writing = options(&path, Format::Qcow2);
    let reading = ImageOptions {
        read_only: true,
        ..writing.clone()
    };
    {
        let _writer = open(&writing).unwrap();
        let message = error(&writing);
        let expected = format!(
            "Could not open '{0}': Failed to get \"write\" lock\nIs another process using the image [{0}]?",
            path.display()
        );
        assert_eq!(message, expected);
        assert!(error(&reading).contains("Failed to get shared \"write\" lock"));
        assert!(
            create_qcow2(&path, 1).is_err(),
            "an image in use is not overwritten"
        );
        assert!(
            open(&ImageOptions {
                locking: Locking::Off,
                ..reading.clone()
            })
            .is_ok()
        );
        // QEMU's programs see it too.
        if let Ok(output) = Command::new("qemu-img").arg("info").arg(&path).output() {
            assert!(
                String::from_utf8_lossy(&output.stderr)
                    .contains("Failed to get shared \"write\" lock")
            );
        }
    }
    let _reader = open(&reading).unwrap();
    let second = open(&reading).unwrap();
    assert!(error(&writing).contains("Failed to get \"write\" lock"));
    assert!(second.read_only());
    assert!(second.write(0, b"no").is_err());
}

#[test]
fn a_guessed_raw_image_stays_raw() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk.img");
    create_raw(&path, 1 << 20).unwrap();
    let image = Image::open(&ImageOptions::new(&path)).unwrap();
    assert!(image.guessed_raw);
    let disk = image.disk;
    assert_eq!(
        disk.write(0, b"QFI\xfb\0\0\0\x03").unwrap_err().kind(),
        io::ErrorKind::PermissionDenied
    );
    disk.write(0, b"QF").unwrap();
    assert!(disk.write(2, b"I\xfb").is_err(), "nor in two halves");
    assert!(disk.write(64, &0xbeda_107f_u32.to_le_bytes()).is_err());
    disk.write(0, &[0x55; 4096]).unwrap();
    disk.write(512, b"QFI\xfb\0\0\0\x03").unwrap();
    drop(disk);
    let disk = open(&options(&path, Format::Raw)).unwrap();
    disk.write(0, b"QFI\xfb\0\0\0\x03").unwrap();
}

#[test]
fn a_file_of_odd_length_is_rounded_up() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("odd");
    fs::write(&path, [7; 1000]).unwrap();
    let disk = open(&options(&path, Format::Raw)).unwrap();
    assert_eq!(disk.size(), 1024);
    let mut back = [1; 1024];
    disk.read(0, &mut back).unwrap();
    assert!(back[..1000] == [7; 1000] && back[1000..] == [0; 24]);
    disk.write(512, &[8; 512]).unwrap();
    disk.read(0, &mut back).unwrap();
    assert!(back[512..] == [8; 512]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1024);
    assert_eq!(
        disk.read(1024, &mut [0]).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(
        disk.write(u64::MAX, &[0]).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
}

/// An empty image whose compressed clusters are zstd: those our own code has open, not imago.
fn create_zstd(path: &Path, size: u64) {
    let options = CreateOptions {
        compression: Compression::Zstd,
        ..CreateOptions::new(size)
    };
    create_image(path, &options, true).unwrap().close().unwrap();
}

/// A disk of packed clusters, read and written over while a machine runs, alone and below another image.
#[test]
fn zstd_clusters_are_read_and_written_over() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut contents = vec![0; 4 << 20];
    for (n, byte) in contents.iter_mut().enumerate() {
        *byte = (n / 777 % 251) as u8;
    }
    contents[1 << 20..2 << 20].fill(0);
    fs::write(at("plain.raw"), &contents).unwrap();
    let pack = |to: &str| {
        let line = [
            "convert",
            "-c",
            "-O",
            "qcow2",
            "-o",
            "compression_type=zstd",
        ];
        qemu_img(folder.path(), &[&line[..], &["plain.raw", to]].concat())
    };
    for (name, cache) in [
        ("back.qcow2", Cache::Writeback),
        ("none.qcow2", Cache::None),
        ("through.qcow2", Cache::Writethrough),
        ("unsafe.qcow2", Cache::Unsafe),
    ] {
        if pack(name).is_none() {
            return;
        }
        let options = ImageOptions {
            cache,
            discard: Discard::Unmap,
            ..options(at(name), Format::Qcow2)
        };
        let image = Image::open(&options).unwrap();
        assert_eq!(image.layers.len(), 1);
        let disk = image.disk;
        let mut now = vec![0; 4 << 20];
        disk.read(0, &mut now).unwrap();
        assert!(now == contents, "{name}");
        assert!(error(&options).contains("Failed to get \"write\" lock"));
        exercise(&*disk, 120);
        disk.read(0, &mut now).unwrap();
        drop(disk);
        qemu_img(folder.path(), &["check", name]);
        qemu_img(folder.path(), &["convert", "-O", "raw", name, "after.raw"]);
        assert!(fs::read(at("after.raw")).unwrap() == now, "{name}");
        let mut again = vec![0; 4 << 20];
        let reading = ImageOptions {
            read_only: true,
            ..options
        };
        open(&reading).unwrap().read(0, &mut again).unwrap();
        assert!(again == now, "{name}");
    }

    pack("base.qcow2");
    let base = fs::read(at("base.qcow2")).unwrap();
    create_overlay(&at("top.qcow2"), 6 << 20, "base.qcow2", Format::Qcow2).unwrap();
    let image = Image::open(&options(at("top.qcow2"), Format::Qcow2)).unwrap();
    assert_eq!(image.layers.len(), 2);
    let mut now = vec![1; 6 << 20];
    image.disk.read(0, &mut now).unwrap();
    assert!(now[..4 << 20] == contents && now[4 << 20..].iter().all(|byte| *byte == 0));
    exercise(&*image.disk, 120);
    image.disk.read(0, &mut now).unwrap();
    drop(image);
    qemu_img(folder.path(), &["check", "top.qcow2"]);
    qemu_img(
        folder.path(),
        &["convert", "-O", "raw", "top.qcow2", "after.raw"],
    );
    assert!(fs::read(at("after.raw")).unwrap() == now);
    assert!(fs::read(at("base.qcow2")).unwrap() == base);
}

/// An image whose refcounts are behind, as a machine leaves it that was killed with lazy refcounts.
#[test]
fn images_that_were_not_closed_are_repaired() {
    const REFCOUNTS: u64 = 2 * 65536;
    let folder = TempDir::new().unwrap();
    for compression in [Compression::Zlib, Compression::Zstd] {
        let path = folder.path().join(format!("{compression:?}.qcow2"));
        let options = CreateOptions {
            compression,
            lazy_refcounts: true,
            ..CreateOptions::new(8 << 20)
        };
        create_image(&path, &options, true)
            .unwrap()
            .close()
            .unwrap();
        let writing = self::options(&path, Format::Qcow2);
        let mut contents = vec![0; 8 << 20];
        for place in [0, 3 << 20, 5 << 20] {
            contents[place..place + (1 << 20)].fill((place >> 20) as u8 + 1);
        }
        let disk = open(&writing).unwrap();
        disk.write(0, &contents).unwrap();
        disk.flush().unwrap();
        drop(disk);
        // Nothing is counted but the header, and the header says so.
        let file = fs::File::options()
            .write(true)
            .read(true)
            .open(&path)
            .unwrap();
        let mut block = [0; 65536];
        file.read_exact_at(&mut block, REFCOUNTS).unwrap();
        assert!(
            block[2..].iter().any(|byte| *byte != 0),
            "no refcounts there"
        );
        file.write_all_at(&[0; 65534], REFCOUNTS + 2).unwrap();
        let mark = if compression == Compression::Zstd {
            8 | 1
        } else {
            1
        };
        file.write_all_at(&[mark], 79).unwrap();
        drop(file);

        // Who only reads changes nothing.
        let before = fs::read(&path).unwrap();
        let mut now = vec![0; 8 << 20];
        let reading = ImageOptions {
            read_only: true,
            ..writing.clone()
        };
        open(&reading).unwrap().read(0, &mut now).unwrap();
        assert!(now == contents && fs::read(&path).unwrap() == before);

        let disk = open(&writing).unwrap();
        assert!(error(&writing).contains("Failed to get \"write\" lock"));
        // New clusters: with the refcounts as they were, they would be put over others.
        contents[2 << 20..3 << 20].fill(0x77);
        disk.write(2 << 20, &[0x77; 1 << 20]).unwrap();
        disk.read(0, &mut now).unwrap();
        assert!(now == contents, "{compression:?}");
        drop(disk);
        assert_eq!(fs::read(&path).unwrap()[79] & 1, 0);
        qemu_img(folder.path(), &["check", path.to_str().unwrap()]);
        open(&writing).unwrap().read(0, &mut now).unwrap();
        assert!(now == contents, "{compression:?}");
    }
}

#[test]
fn many_threads() {
    threads(|path| create_qcow2(path, 16 << 20).unwrap());
}

#[test]
fn many_threads_on_zstd() {
    threads(|path| create_zstd(path, 16 << 20));
}

fn threads(create: fn(&Path)) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.qcow2");
    create(&path);
    let disk = open(&options(&path, Format::Qcow2)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let disk: Arc<dyn Disk> = disk.clone();
            scope.spawn(move || {
                // Interleaved, so that threads share clusters.
                let mut random = Random(thread + 1);
                let mut fills = vec![0u8; 1024];
                for round in 0..500 {
                    let slot = random.next() % 1024;
                    let offset = (slot * 4 + thread) * 4096;
                    let mut block = [0; 4096];
                    match random.next() % 4 {
                        0 => {
                            disk.discard(offset, 4096).unwrap();
                            disk.write_zeroes(offset, 4096, true).unwrap();
                            fills[slot as usize] = 0;
                        }
                        1 => {
                            disk.read(offset, &mut block).unwrap();
                            assert!(block.iter().all(|byte| *byte == fills[slot as usize]));
                        }
                        _ => {
                            fills[slot as usize] = random.next() as u8;
                            disk.write(offset, &[fills[slot as usize]; 4096]).unwrap();
                        }
                    }
                    if round % 100 == 0 {
                        disk.flush().unwrap();
                    }
                }
                for (slot, fill) in fills.iter().enumerate() {
                    let mut block = [0; 4096];
                    disk.read((slot as u64 * 4 + thread) * 4096, &mut block)
                        .unwrap();
                    assert!(block.iter().all(|byte| byte == fill));
                }
            });
        }
    });
    drop(disk);
    qemu_img(folder.path(), &["check", "a.qcow2"]);
}

/// Images with random damage in their tables open or not, work or fail, but never bring the program down.
#[test]
fn hostile_images() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.qcow2");
    create_qcow2(&path, 4 << 20).unwrap();
    exercise(&*open(&options(&path, Format::Qcow2)).unwrap(), 60);
    let whole = fs::read(&path).unwrap();
    let mut random = Random(77);
    let mut opened = 0;
    for _ in 0..300 {
        let mut image = whole.clone();
        for _ in 0..1 + random.next() % 6 {
            // The header, and the first entries of the tables, which lie in the first clusters.
            let cluster = random.next() % 8;
            let at = (cluster * 65536 + random.next() % 128) as usize;
            if let Some(byte) = image.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        fs::write(&path, &image).unwrap();
        let Ok(disk) = open(&options(&path, Format::Qcow2)) else {
            continue;
        };
        opened += 1;
        let size = disk.size();
        for _ in 0..20 {
            let length = (random.next() % 100_000).min(size);
            let offset = random.next() % (size - length + 1).min(8 << 20);
            let _ = match random.next() % 5 {
                0 => disk.read(offset, &mut vec![0; length as usize]),
                1 => disk.discard(offset, length),
                2 => disk.write_zeroes(offset, length, false),
                3 => disk.flush(),
                _ => disk.write(offset, &vec![3; length as usize]),
            };
        }
    }
    assert!(opened > 30, "most damage is in entries, not in the header");
}
