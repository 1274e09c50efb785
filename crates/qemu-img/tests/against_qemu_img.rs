//! Images made by one program, read, checked and changed by the other, over every format option; and what both print.
//!
//! The other is the `qemu-img` of the host, which `cargo xtask setup` installs.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use tempfile::TempDir;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// A new process has the locks of this one's open files until it has become another program: nothing of ours is open then.
static FORKING: RwLock<()> = RwLock::new(());

/// Exit code, standard output, standard error.
type Said = (i32, String, String);

/// Ours. There is one current folder for all threads, so names are made absolute, and relative again in what is said.
fn ours(folder: &Path, words: &[&str]) -> Said {
    let (out, err) = (Sink::default(), Sink::default());
    let session = qemu_img::Session::new(
        "qemu-img",
        Box::new(out.clone()),
        Box::new(err.clone()),
        Arc::new(AtomicBool::new(false)),
    );
    let prefix = format!("{}/", folder.display());
    let words: Vec<String> = words
        .iter()
        .map(|word| word.replace('@', &prefix))
        .collect();
    let _running = FORKING.read().unwrap();
    let code = qemu_img::run(&session, &words);
    (
        i32::from(code),
        out.text().replace(&prefix, "@"),
        err.text().replace(&prefix, "@"),
    )
}

fn theirs(folder: &Path, words: &[&str]) -> Said {
    let prefix = format!("{}/", folder.display());
    let words = words.iter().map(|word| word.replace('@', &prefix));
    let child = {
        let _alone = FORKING.write().unwrap();
        Command::new("qemu-img")
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("qemu-img: {error}; `cargo xtask setup` installs it"))
    };
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&prefix, "@");
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn done(program: fn(&Path, &[&str]) -> Said, folder: &Path, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let said = program(folder, &words);
    assert_eq!(said.0, 0, "{line}: {said:?}");
}

fn random(seed: u64, bytes: usize) -> Vec<u8> {
    let mut x = seed;
    (0..bytes)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

/// A raw image with noise, text, holes and an odd end.
fn write_source(path: &Path) {
    let mut bytes = vec![0; 2 << 20];
    bytes[..200_000].copy_from_slice(&random(1, 200_000));
    for (at, byte) in bytes[700_000..1_500_000].iter_mut().enumerate() {
        *byte = b"the quick brown fox "[at % 20];
    }
    bytes[1_800_000..1_800_700].fill(9);
    let end = bytes.len() - 512;
    bytes.truncate(end);
    std::fs::write(path, bytes).unwrap();
}

/// Every value of every option, and those that meet.
fn matrix() -> Vec<(String, bool)> {
    let mut all = Vec::new();
    for bits in 9..=21u32 {
        all.push((format!("cluster_size={}", 1u32 << bits), bits % 2 == 0));
    }
    for bits in 0..=6 {
        all.push((format!("refcount_bits={}", 1 << bits), bits > 3));
    }
    all.push(("compat=0.10,cluster_size=4096".into(), true));
    all.push(("compat=0.10".into(), false));
    all.push(("lazy_refcounts=on".into(), false));
    for bits in [9, 12, 16, 21u32] {
        let size = 1 << bits;
        all.push((format!("compression_type=zstd,cluster_size={size}"), true));
    }
    for mode in ["metadata", "falloc", "full"] {
        all.push((format!("preallocation={mode}"), false));
    }
    all.push((
        "preallocation=full,cluster_size=2097152,refcount_bits=1".into(),
        false,
    ));
    all
}

#[test]
fn every_option_in_both_directions() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    write_source(&folder.join("source.raw"));
    println!(
        "{:<58} {:>10} {:>10}  both read, checked, compared",
        "options", "ours", "qemu-img"
    );
    for (options, compressed) in matrix() {
        let compress = if compressed { "-c" } else { "" };
        let mut lengths = Vec::new();
        for (maker, name) in [
            (ours as fn(&Path, &[&str]) -> Said, "ours.qcow2"),
            (theirs, "theirs.qcow2"),
        ] {
            done(
                maker,
                folder,
                &format!("convert {compress} -f raw -O qcow2 -o {options} @source.raw @{name}"),
            );
            for reader in [ours as fn(&Path, &[&str]) -> Said, theirs] {
                done(reader, folder, &format!("check @{name}"));
                done(
                    reader,
                    folder,
                    &format!("compare -f raw @source.raw @{name}"),
                );
            }
            // The whole description, but for what the layout decides.
            let described = |program: fn(&Path, &[&str]) -> Said| {
                let name = format!("@{name}");
                program(folder, &["info", "--output", "json", &name]).1
            };
            assert_eq!(described(ours), described(theirs), "{options}");
            // Snapshots, changes and growth on top, by the other one.
            let other: fn(&Path, &[&str]) -> Said =
                if name == "ours.qcow2" { theirs } else { ours };
            lengths.push(std::fs::metadata(folder.join(name)).unwrap().len());
            if !options.contains("refcount_bits=1,") && !options.ends_with("refcount_bits=1") {
                done(other, folder, &format!("snapshot -c one @{name}"));
                done(other, folder, &format!("snapshot -a one @{name}"));
                done(maker, folder, &format!("check @{name}"));
                done(maker, folder, &format!("snapshot -d one @{name}"));
            }
            done(other, folder, &format!("resize @{name} +1M"));
            done(maker, folder, &format!("resize --shrink @{name} -1M"));
            for reader in [ours as fn(&Path, &[&str]) -> Said, theirs] {
                done(reader, folder, &format!("check @{name}"));
                done(
                    reader,
                    folder,
                    &format!("compare -f raw @source.raw @{name}"),
                );
            }
            if !options.contains("preallocation") {
                done(ours, folder, &format!("reclaim @{name}"));
                done(theirs, folder, &format!("check @{name}"));
                done(
                    theirs,
                    folder,
                    &format!("compare -f raw @source.raw @{name}"),
                );
            }
        }
        let shown = format!("{options}{}", if compressed { " -c" } else { "" });
        println!("{shown:<58} {:>10} {:>10}  yes", lengths[0], lengths[1]);
        // The same in hardly more space.
        assert!(
            lengths[0] <= lengths[1] + lengths[1] / 2 + (4 << 20),
            "{shown}: {lengths:?}"
        );
    }
}

#[test]
fn formats_to_convert_from() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    write_source(&folder.join("source.raw"));
    println!("{:<44} converted by us, compared by qemu-img", "format");
    for (format, options) in [
        ("vhdx", "subformat=dynamic"),
        ("vhdx", "subformat=fixed"),
        ("vhdx", "subformat=dynamic,block_size=1048576"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vpc", "subformat=dynamic"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "subformat=twoGbMaxExtentFlat"),
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    ] {
        let image = format!("image.{format}");
        done(
            theirs,
            folder,
            &format!("convert -f raw -O {format} -o {options} @source.raw @{image}"),
        );
        done(
            ours,
            folder,
            &format!("convert -f {format} -O qcow2 @{image} @back.qcow2"),
        );
        done(theirs, folder, "check @back.qcow2");
        done(
            theirs,
            folder,
            &format!("compare -f {format} @{image} @back.qcow2"),
        );
        done(
            ours,
            folder,
            &format!("compare -f {format} @{image} @back.qcow2"),
        );
        println!("{:<44} yes", format!("{format} {options}"));
    }
}

#[test]
fn external_data_and_backing_chains() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    write_source(&folder.join("source.raw"));
    for raw in ["on", "off"] {
        for (maker, reader) in [
            (
                ours as fn(&Path, &[&str]) -> Said,
                theirs as fn(&Path, &[&str]) -> Said,
            ),
            (theirs, ours),
        ] {
            done(
                maker,
                folder,
                &format!(
                    "convert -f raw -O qcow2 -o data_file=@data.raw,data_file_raw={raw} @source.raw @external.qcow2"
                ),
            );
            done(reader, folder, "check @external.qcow2");
            done(reader, folder, "compare -f raw @source.raw @external.qcow2");
            if raw == "on" {
                done(
                    reader,
                    folder,
                    "compare -f raw -F raw @source.raw @data.raw",
                );
            }
        }
    }
    // A chain of three; each program rebases and commits what the other one made.
    for (one, other) in [
        (
            ours as fn(&Path, &[&str]) -> Said,
            theirs as fn(&Path, &[&str]) -> Said,
        ),
        (theirs, ours),
    ] {
        done(
            one,
            folder,
            "convert -f raw -O qcow2 @source.raw @base.qcow2",
        );
        done(
            other,
            folder,
            "create -q -f qcow2 -b base.qcow2 -F qcow2 @middle.qcow2",
        );
        done(
            one,
            folder,
            "bench -q -w -c 40 -s 3000 -S 70000 --pattern 7 -d 1 @middle.qcow2",
        );
        done(
            other,
            folder,
            "create -q -f qcow2 -b middle.qcow2 -F qcow2 -o cluster_size=4096 @top.qcow2",
        );
        done(
            one,
            folder,
            "bench -q -w -c 30 -s 9000 -S 90000 --pattern 8 -d 1 @top.qcow2",
        );
        done(other, folder, "convert -O raw @top.qcow2 @flat.raw");
        for reader in [one, other] {
            done(
                reader,
                folder,
                "compare -f qcow2 -F raw @top.qcow2 @flat.raw",
            );
        }
        done(one, folder, "rebase -b base.qcow2 -F qcow2 @top.qcow2");
        done(
            other,
            folder,
            "compare -f qcow2 -F raw @top.qcow2 @flat.raw",
        );
        done(other, folder, "commit -q @top.qcow2");
        for image in ["top", "base"] {
            done(one, folder, &format!("check @{image}.qcow2"));
            done(other, folder, &format!("check @{image}.qcow2"));
            done(
                one,
                folder,
                &format!("compare -f qcow2 -F raw @{image}.qcow2 @flat.raw"),
            );
            done(
                other,
                folder,
                &format!("compare -f qcow2 -F raw @{image}.qcow2 @flat.raw"),
            );
        }
    }
}

/// Breaks a copy of an image and has both programs look at and mend it.
/// Into a new file goes what counts and nothing else; the old one is left as it is, byte for byte.
#[test]
fn reclaim_into_a_new_file() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    write_source(&folder.join("source.raw"));
    let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
    for options in [
        "convert -f raw -O qcow2",
        "convert -c -f raw -O qcow2 -o cluster_size=4096,refcount_bits=8",
        "convert -c -f raw -O qcow2 -o compression_type=zstd",
        "convert -f raw -O qcow2 -o compat=0.10",
        "convert -f raw -O qcow2 -o preallocation=full,lazy_refcounts=on",
        "convert -f raw -O raw -S 0",
    ] {
        done(theirs, folder, &format!("{options} @source.raw @old"));
        let old = bytes("old");
        let format = if options.contains("-O raw") {
            "raw"
        } else {
            "qcow2"
        };
        done(
            ours,
            folder,
            &format!("reclaim -f {format} --into @new @old"),
        );
        assert!(bytes("old") == old, "{options}: the old file has changed");
        done(
            theirs,
            folder,
            &format!("compare -f raw -F {format} @source.raw @new"),
        );
        if format == "qcow2" {
            done(theirs, folder, "check @new");
            let [was, is] = ["@old", "@new"].map(|name| {
                let said = theirs(folder, &["info", "--output", "json", name]).1;
                let value: serde_json::Value = serde_json::from_str(&said).unwrap();
                value["format-specific"].clone()
            });
            assert_eq!(was, is, "{options}");
        }
        let length = bytes("new").len();
        // Two programs do not pack alike to the byte.
        let most = old.len() + old.len() / 50;
        assert!(length <= most, "{options}: {length} of {}", old.len());
        if options.contains("preallocation") {
            assert!(length < old.len() / 4 * 3, "{length} of {}", old.len());
        }
        // What is there already stays.
        let said = ours(folder, &["reclaim", "-f", format, "--into", "@new", "@old"]);
        assert_eq!(said.0, 1, "{said:?}");
        assert!(said.2.contains("exists already"), "{said:?}");
        assert_eq!(bytes("new").len(), length);
        std::fs::remove_file(folder.join("new")).unwrap();
    }
    // What is below shows through as it did, and is not copied.
    done(theirs, folder, "convert -f raw -O qcow2 @source.raw @base");
    done(theirs, folder, "create -f qcow2 -b @base -F qcow2 @old");
    done(
        theirs,
        folder,
        "bench -w -c 40 -s 4096 -S 65536 --pattern 7 @old",
    );
    done(ours, folder, "reclaim --into @new @old");
    done(theirs, folder, "check @new");
    done(theirs, folder, "compare @old @new");
    assert!(bytes("new").len() <= bytes("old").len());
    let info = theirs(folder, &["info", "@new"]).1;
    assert!(info.contains("backing file: @base"), "{info}");
    std::fs::remove_file(folder.join("new")).unwrap();
    // Snapshots would be lost: refused, with nothing left behind.
    done(theirs, folder, "snapshot -c one @old");
    let said = ours(folder, &["reclaim", "--into", "@new", "@old"]);
    assert!(said.0 == 1 && said.2.contains("snapshots"), "{said:?}");
    assert!(!folder.join("new").exists());
}

#[test]
fn damage_is_found_and_mended_alike() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("data.raw"), random(5, 1 << 20)).unwrap();
    done(
        theirs,
        folder,
        "convert -f raw -O qcow2 @data.raw @whole.qcow2",
    );
    // Header, refcount table, refcount block, L1, L2, data.
    let entry = |n: u64| (0x40000 + n * 8, 0x8000_0000_0005_0000u64 + n * 0x10000);
    let cases: Vec<(&str, u64, Vec<u8>)> = vec![
        ("a leak", entry(1).0, vec![0; 8]),
        ("a refcount of 0", 0x2000c, vec![0, 0]),
        ("a refcount too high", 0x2000c, vec![0, 3]),
        ("no flag in an L2 entry", entry(1).0, vec![0]),
        ("no flag in an L1 entry", 0x30000, vec![0]),
        (
            "a cluster twice",
            entry(0).0,
            entry(1).1.to_be_bytes().to_vec(),
        ),
        ("an unaligned cluster", 0x40006, vec![2]),
        ("a cluster behind the end", 0x40004, vec![0x80, 5]),
        ("reserved bits of L2", 0x40007, vec![2]),
        ("reserved bits of L1", 0x30007, vec![2]),
        ("no refcount block", 0x10000, vec![0; 8]),
        ("marked dirty", 79, vec![1]),
        ("marked corrupt", 79, vec![2]),
    ];
    println!(
        "{:<28} {:>6} {:>8} {:>6}",
        "damage", "check", "-r leaks", "-r all"
    );
    for (what, at, bytes) in cases {
        let mut image = std::fs::read(folder.join("whole.qcow2")).unwrap();
        image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        let mut codes = Vec::new();
        for repair in ["", "-r leaks", "-r all"] {
            let mut said = Vec::new();
            for program in [theirs as fn(&Path, &[&str]) -> Said, ours] {
                std::fs::write(folder.join("broken.qcow2"), &image).unwrap();
                let line = format!("check {repair} @broken.qcow2");
                let words: Vec<&str> = line.split_whitespace().collect();
                said.push(program(folder, &words));
                // What one has mended, the other finds mended.
                let again = [
                    theirs(folder, &["check", "@broken.qcow2"]).0,
                    ours(folder, &["check", "@broken.qcow2"]).0,
                ];
                assert_eq!(again[0], again[1], "{what} {repair}");
            }
            // Where new refcounts are put is everybody's own business.
            let end = |text: &str| -> Vec<String> {
                text.lines()
                    .filter(|line| !line.starts_with("Image end offset"))
                    .map(String::from)
                    .collect()
            };
            assert_eq!(said[0].0, said[1].0, "{what} {repair}: {said:?}");
            assert_eq!(end(&said[0].1), end(&said[1].1), "{what} {repair}");
            assert_eq!(said[0].2, said[1].2, "{what} {repair}");
            codes.push(said[0].0);
        }
        println!("{what:<28} {:>6} {:>8} {:>6}", codes[0], codes[1], codes[2]);
    }
}

/// Leaves out what is of the moment or of the host's file system.
fn alike(said: Said) -> Said {
    let plain = |text: String| -> String {
        let mut plain = String::new();
        for line in text.lines() {
            let key = [
                "                \"virtual-size\":",
                "disk size:",
                "file length:",
                "\"actual-size\":",
                "\"date-sec\":",
                "\"date-nsec\":",
            ]
            .into_iter()
            .find(|key| line.contains(key));
            // A snapshot's line: number, name, size, unit, date, time …
            let words: Vec<&str> = line.split_whitespace().collect();
            let snapshot = words.len() == 8 && words[3] == "B";
            match key {
                Some(key) => plain += key,
                None if snapshot => {
                    plain += &format!("{} {} {} {}", words[0], words[1], words[6], words[7])
                }
                None => plain += line,
            }
            plain += "\n";
        }
        plain
    };
    (said.0, plain(said.1), plain(said.2))
}

/// Command lines whose output has to be the same to the letter.
#[test]
fn says_what_qemu_img_says() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    for folder in &folders {
        write_source(&folder.path().join("r.raw"));
        let mut file = std::fs::File::create(folder.path().join("long.raw")).unwrap();
        file.write_all(&std::fs::read(folder.path().join("r.raw")).unwrap())
            .unwrap();
        file.set_len(4 << 20).unwrap();
    }
    let mut count = 0;
    for line in include_str!("command_lines.txt").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line
            .split_whitespace()
            .map(|word| if word == "''" { "" } else { word })
            .collect();
        let real = theirs(folders[0].path(), &words);
        let own = ours(folders[1].path(), &words);
        assert_eq!(alike(own), alike(real), "{line}");
        count += 1;
    }
    println!("{count} command lines, the same answers");
    assert!(count > 100);
}
