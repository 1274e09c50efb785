//! What is extracted against what was packed by other programs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::place;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: cargo xtask setup installs it"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Fails if two trees differ; links count by their targets.
fn same(one: &Path, other: &Path) {
    let paths = [one.to_str().unwrap(), other.to_str().unwrap()];
    run("diff", &["-r", "--no-dereference", paths[0], paths[1]]);
}

fn all(name: &str, path: &str, to: &Path, threads: usize) -> Summary {
    let system = place::open(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let progress = Progress::default();
    let summary = extract(system.as_ref(), path, to, threads, &progress).unwrap();
    assert!(summary.failed.is_empty(), "{:?}", summary.failed);
    assert_eq!(
        progress.done.into_inner(),
        progress.total.into_inner(),
        "what was announced was done"
    );
    summary
}

fn wim(options: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = crate::wim::tests::made(folder.path(), options);
    for (image, threads) in [(1, 1), (2, 2), (1, 3)] {
        let to = folder.path().join(format!("out {image} {threads}"));
        let name = format!("{}#{image}", path.display());
        let summary = all(&name, "/", &to, threads);
        let from = folder.path().join(format!("tree{image}"));
        same(&from, &to);
        assert_eq!(summary.links, 2, "a hard link and a symbolic one");
        assert!(summary.notes.is_empty(), "{:?}", summary.notes);
        let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
        assert_eq!(inode("Windows/text.txt"), inode("Windows/same.txt"));
        for name in ["Windows/runs", "Windows"] {
            let time = |folder: &Path| fs::metadata(folder.join(name)).unwrap().mtime();
            assert_eq!(time(&from), time(&to), "{name}");
        }
    }
    // One file, under its own name and another, and a folder.
    let (name, out) = (format!("{}#2", path.display()), folder.path().join("some"));
    all(&name, "windows/TEXT.txt", &out, 2);
    assert_eq!(
        fs::read(&out).unwrap(),
        fs::read(folder.path().join("tree2/Windows/text.txt")).unwrap()
    );
    let inside = folder.path().join("into");
    fs::create_dir(&inside).unwrap();
    all(&name, "Windows/text.txt", &inside, 2);
    all(&name, "Windows/System32", &inside, 2);
    assert!(inside.join("text.txt").is_file());
    same(
        &inside.join("System32"),
        &folder.path().join("tree2/Windows/System32"),
    );
}

#[test]
fn trees_out_of_wims() {
    wim(&["--compress=none"]);
    wim(&["--compress=XPRESS"]);
    wim(&["--compress=LZX", "--chunk-size=2M"]);
    wim(&["--compress=LZMS", "--chunk-size=128K"]);
    wim(&["--compress=LZMS", "--solid", "--solid-chunk-size=256K"]);
    wim(&["--compress=LZX", "--solid", "--solid-compress=LZX"]);
}

/// Each kind of disc, with the WIM that lies on it read where it lies.
#[test]
fn trees_out_of_discs() {
    let folder = tempfile::tempdir().unwrap();
    let wim = crate::wim::tests::made(folder.path(), &["--compress=XPRESS"]);
    let tree = folder.path().join("disc");
    fs::create_dir_all(tree.join("sources/a folder whose name is too long for plain ISO 9660"))
        .unwrap();
    fs::rename(&wim, tree.join("sources/boot.wim")).unwrap();
    fs::write(tree.join("sources/Größe 日本語.txt"), "x".repeat(5000)).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    let deep = "1/2/3/4/5/6/7/8/9/10/11";
    fs::create_dir_all(tree.join(deep)).unwrap();
    fs::write(tree.join(deep).join("deep.txt"), "deep").unwrap();
    let tree_text = tree.to_str().unwrap().to_string();
    for (kind, program, options) in [
        (
            "udf",
            "genisoimage",
            &[
                "-quiet",
                "-D",
                "-input-charset",
                "utf-8",
                "-udf",
                "-iso-level",
                "3",
                "-allow-limited-size",
            ][..],
        ),
        (
            "joliet",
            "xorriso",
            &["-as", "mkisofs", "-quiet", "-J", "-joliet-long"][..],
        ),
        (
            "rock ridge",
            "xorriso",
            &["-as", "mkisofs", "-quiet", "-r"][..],
        ),
        (
            "relocated",
            "genisoimage",
            &["-quiet", "-input-charset", "utf-8", "-r"][..],
        ),
    ] {
        if kind.starts_with('r') {
            let name = tree.join("sources").join("n".repeat(240));
            fs::write(name, "a long name").unwrap();
            let _ = std::os::unix::fs::symlink("../empty", tree.join("sources/link"));
        }
        let disc = folder.path().join("disc.iso");
        let disc = disc.to_str().unwrap();
        let mut arguments = options.to_vec();
        arguments.extend(["-o", disc, &tree_text]);
        run(program, &arguments);
        let out = folder.path().join(kind);
        all(disc, "", &out, 2);
        if kind == "relocated" {
            // It puts a folder of its own there for deep ones.
            let _ = fs::remove_dir(out.join("rr_moved"));
        }
        same(&tree, &out);
        let out = folder.path().join(format!("{kind} wim"));
        all(&format!("{disc}:sources/boot.wim#2"), "/", &out, 2);
        same(&folder.path().join("tree2"), &out);
    }
}

/// What is in the destination already is replaced, but never followed out of it.
#[test]
fn links_in_the_destination() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, out) = (folder.path().join("tree"), folder.path().join("out"));
    let outside = folder.path().join("outside");
    for path in [&tree.join("folder"), &out, &outside] {
        fs::create_dir_all(path).unwrap();
    }
    fs::write(tree.join("file"), "new").unwrap();
    fs::write(tree.join("folder/file"), "new").unwrap();
    fs::write(folder.path().join("victim"), "old").unwrap();
    let disc = folder.path().join("disc.iso");
    let (disc, tree) = (disc.to_str().unwrap(), tree.to_str().unwrap());
    run(
        "xorriso",
        &["-as", "mkisofs", "-quiet", "-J", "-o", disc, tree],
    );
    std::os::unix::fs::symlink("../victim", out.join("file")).unwrap();
    all(disc, "file", &out.join("file"), 1);
    assert_eq!(fs::read(out.join("file")).unwrap(), b"new");
    assert_eq!(fs::read(folder.path().join("victim")).unwrap(), b"old");
    std::os::unix::fs::symlink("../outside", out.join("folder")).unwrap();
    let system = place::open(disc).unwrap();
    let result = extract(system.as_ref(), "", &out, 1, &Progress::default());
    assert!(matches!(result, Err(Error::Write { .. })), "{result:?}");
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
}

/// A changed byte of compressed contents is found, told, and nothing of that file stays.
#[test]
fn damage_is_told() {
    for options in [&["--compress=XPRESS"][..], &["--compress=LZMS", "--solid"]] {
        let folder = tempfile::tempdir().unwrap();
        let path = crate::wim::tests::made(folder.path(), options);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 3;
        for at in (middle..middle + 40_000).step_by(997) {
            bytes[at] ^= 0x55;
        }
        fs::write(&path, &bytes).unwrap();
        let system = place::open(&format!("{}#1", path.display())).unwrap();
        let out = folder.path().join("out");
        let summary = extract(system.as_ref(), "", &out, 2, &Progress::default()).unwrap();
        assert!(!summary.failed.is_empty());
        for (name, error) in &summary.failed {
            assert!(!out.join(name).exists(), "{name}: {error}");
        }
        // What is there is right.
        filesystem_walk(&out, &mut |path| {
            let original = folder
                .path()
                .join("tree1")
                .join(path.strip_prefix(&out).unwrap());
            assert!(
                fs::read(path).unwrap() == fs::read(&original).unwrap(),
                "{path:?}"
            );
        });
    }
}

fn filesystem_walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            filesystem_walk(&path, visit);
        } else if path.exists() {
            visit(&path);
        }
    }
}

/// A directory entry of a WIM with its streams.
fn entry(
    name: &str,
    attributes: u32,
    hash: &[u8; 20],
    tag: u32,
    streams: &[(&str, [u8; 20])],
) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut bytes = vec![0; 102];
    bytes[8..12].copy_from_slice(&attributes.to_le_bytes());
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes[64..84].copy_from_slice(hash);
    bytes[88..92].copy_from_slice(&tag.to_le_bytes());
    bytes[96..98].copy_from_slice(&(streams.len() as u16).to_le_bytes());
    bytes[100..102].copy_from_slice(&(name.len() as u16).to_le_bytes());
    bytes.extend(&name);
    bytes.extend([0, 0]);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let length = bytes.len() as u64;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    for (name, hash) in streams {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let start = bytes.len();
        bytes.extend([0; 16]);
        bytes.extend(hash);
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend(&name);
        bytes.extend([0, 0]);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let length = (bytes.len() - start) as u64;
        bytes[start..start + 8].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

/// A WIM of one image, uncompressed, whose top folder has `entries`.
fn by_hand(contents: &[&[u8]], entries: &[Vec<u8>]) -> Vec<u8> {
    use sha1::{Digest, Sha1};
    let mut metadata = vec![8, 0, 0, 0, 0, 0, 0, 0];
    let mut root = entry("", 0x10, &[0; 20], 0, &[]);
    let children = (8 + root.len() + 8) as u64;
    root[16..24].copy_from_slice(&children.to_le_bytes());
    metadata.extend(root);
    metadata.extend([0; 8]);
    metadata.extend(entries.concat());
    metadata.extend([0; 8]);
    let mut bytes = vec![0; 208];
    let mut table = Vec::new();
    let mut resources = contents.to_vec();
    resources.push(&metadata);
    for (index, resource) in resources.iter().enumerate() {
        let flags = u64::from(index + 1 == resources.len()) << 57;
        table.extend((resource.len() as u64 | flags).to_le_bytes());
        table.extend((bytes.len() as u64).to_le_bytes());
        table.extend((resource.len() as u64).to_le_bytes());
        table.extend([1, 0, 1, 0, 0, 0]);
        table.extend(Sha1::digest(resource));
        bytes.extend(*resource);
    }
    let xml: Vec<u8> = "\u{feff}<WIM><IMAGE INDEX=\"1\"><NAME>x</NAME></IMAGE></WIM>"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (at, resource) in [(48, &table), (72, &xml)] {
        let place = bytes.len() as u64;
        for (index, number) in [resource.len() as u64, place, resource.len() as u64]
            .into_iter()
            .enumerate()
        {
            let at = at + index * 8;
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes.extend(resource);
    }
    bytes[..8].copy_from_slice(b"MSWIM\0\0\0");
    for (at, number) in [(8, 208u32), (12, 0x10D00), (40, 0x1_0001), (44, 1)] {
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Alternate streams and reparse points, which no file system of this host has, in a WIM made by hand.
#[test]
fn streams_and_reparse_points() {
    use sha1::{Digest, Sha1};
    let hash = |bytes: &[u8]| -> [u8; 20] { Sha1::digest(bytes).into() };
    let (file, stream) = (&b"the file"[..], &b"[ZoneTransfer]"[..]);
    // A junction to C:\Users: offsets and lengths of both names, then the names ([MS-FSCC] 2.1.2.5).
    let name = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let (substitute, print) = (name("\\??\\C:\\Users"), name("C:\\Users"));
    let mut junction = Vec::new();
    for number in [0, substitute.len(), substitute.len() + 2, print.len()] {
        junction.extend((number as u16).to_le_bytes());
    }
    junction.extend([&substitute[..], &[0, 0], &print, &[0, 0]].concat());
    let unknown = &b"a file that the cloud keeps"[..];
    let entries = [
        entry(
            "both",
            0x20,
            &[0; 20],
            0,
            &[("", hash(file)), ("Zone.Identifier", hash(stream))],
        ),
        entry("cloud", 0x420, &hash(unknown), 0x9000_001A, &[]),
        entry("junction", 0x410, &hash(&junction), 0xA000_0003, &[]),
        entry("Users", 0x10, &[0; 20], 0, &[]),
    ];
    let bytes = by_hand(&[file, stream, &junction, unknown], &entries);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hand.wim");
    fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap();
    run("wimlib-imagex", &["verify", path]);
    let out = folder.path().join("out");
    let summary = all(path, "/", &out, 1);
    assert_eq!(fs::read(out.join("both")).unwrap(), file);
    assert_eq!(
        fs::read_link(out.join("junction")).unwrap(),
        Path::new("Users")
    );
    assert_eq!(summary.notes.len(), 2, "{:?}", summary.notes);
    assert!(summary.notes[0].contains("Zone.Identifier (14 bytes)"));
    assert!(summary.notes[1].contains("0x9000001a"));
    let one = folder.path().join("stream");
    all(path, "both:zone.identifier", &one, 1);
    assert_eq!(fs::read(&one).unwrap(), stream);
    // Names that would lead elsewhere make the image unreadable.
    for bad in ["..", "a/b", "."] {
        let bytes = by_hand(&[file], &[entry(bad, 0x20, &hash(file), 0, &[])]);
        fs::write(path, bytes).unwrap();
        assert!(place::open(path).is_err(), "{bad}");
    }
}
