//! Everything that a parser does with a file, for hostile files: the tests and the fuzz targets call these.

use std::sync::Arc;

use dormer_media::Result;
use dormer_media::bcd::Store;
use dormer_media::drivers::{self, Inf};
use dormer_media::fat::Fat;
use dormer_media::filesystem::{self, FileSystem};
use dormer_media::hive::{Hive, Key};
use dormer_media::inspect;
use dormer_media::iso::{BootCatalog, Descriptors};
use dormer_media::partition;
use dormer_media::pe::Pe;
use dormer_media::source::Shared;
use dormer_media::udf::Udf;
use dormer_media::wim::{Codec, Compression, Wim};

/// Contents that are read of one file, and entries that are looked at, at most.
const CONTENTS: u64 = 1 << 20;
const ENTRIES: usize = 4096;

fn source(bytes: &[u8]) -> Shared {
    Arc::new(bytes.to_vec())
}

/// The names and contents of a tree as far as they can be read.
pub fn tree(system: &dyn FileSystem) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let _ = filesystem::walk(system, system.root(), &mut |path, entry| {
        let _ = system.link(entry.node);
        for (name, _) in &entry.streams {
            let _ = system.open_stream(entry.node, name);
        }
        let contents = if entry.is_directory() {
            None
        } else {
            let read = || -> Result<Vec<u8>> {
                let file = system.open(entry.node)?;
                let _ = (file.place(0), file.hole(0));
                file.read_vec(0, file.size().min(CONTENTS) as usize)
            };
            read().ok()
        };
        found.push((path.to_string(), contents));
        if found.len() > ENTRIES {
            return Err(dormer_media::Error::Unsupported("enough".into()));
        }
        Ok(())
    });
    found
}

/// Every file system of a disc, and its boot catalog.
pub fn disc(bytes: &[u8]) {
    let source = source(bytes);
    let Ok(descriptors) = Descriptors::read(&source) else {
        return;
    };
    if let Some(catalog) = descriptors.boot_catalog {
        let _ = BootCatalog::read(&source, catalog);
    }
    for volume in [&descriptors.primary, &descriptors.joliet]
        .into_iter()
        .flatten()
    {
        tree(volume);
    }
    udf(bytes);
}

/// UDF alone.
pub fn udf(bytes: &[u8]) {
    if let Ok(udf) = Udf::read(&source(bytes)) {
        tree(&udf);
    }
}

/// A boot catalog at sector 0.
pub fn el_torito(bytes: &[u8]) {
    if let Ok(catalog) = BootCatalog::read(&source(bytes), 0) {
        let _ = catalog.efi().map(|entry| entry.length(bytes.len() as u64));
    }
}

/// FAT, and partition tables.
pub fn fat(bytes: &[u8]) {
    let source = source(bytes);
    if let Ok(Some(partitions)) = partition::read(&source) {
        for partition in partitions {
            let _ = partition.contents(&source);
        }
    }
    if let Ok(fat) = Fat::read(source) {
        tree(&fat);
    }
}

/// A WIM with all its images.
pub fn wim(bytes: &[u8]) {
    let Ok(wim) = Wim::open(source(bytes)) else {
        return;
    };
    let _ = wim.information();
    for index in 1..=wim.header.images.min(4) {
        if let Ok(image) = wim.image(index) {
            tree(&image);
        }
    }
}

/// A decompressor: the first byte chooses it, the next the size of what comes out.
pub fn codec(bytes: &[u8]) {
    let [kind, size, input @ ..] = bytes else {
        return;
    };
    let kind = match kind % 3 {
        0 => Compression::Xpress,
        1 => Compression::Lzx,
        _ => Compression::Lzms,
    };
    let mut out = vec![0; (usize::from(*size) + 1) * 128];
    if let Some(mut codec) = Codec::new(kind, 1 << 15) {
        let _ = codec.decompress(input, &mut out);
        // What was kept from the first time must not matter.
        let mut again = vec![0; out.len()];
        let first = codec.decompress(input, &mut out).is_ok();
        let second = Codec::new(kind, 1 << 15)
            .is_some_and(|mut codec| codec.decompress(input, &mut again).is_ok());
        assert_eq!(first, second);
        assert!(!first || out == again);
    }
}

fn keys(hive: &Hive, key: &Key, left: &mut usize) {
    let _ = hive.values(key);
    for child in hive.children(key).unwrap_or_default() {
        match left.checked_sub(1) {
            Some(less) => *left = less,
            None => return,
        }
        keys(hive, &child, left);
    }
}

/// A hive: read, changed, and what comes out opened again.
pub fn hive(bytes: &[u8]) {
    let Ok(mut hive) = Hive::open(bytes.to_vec()) else {
        return;
    };
    if let Ok(root) = hive.root() {
        keys(&hive, &root, &mut { ENTRIES });
    }
    if let Ok(true) = Store::probe(&hive) {
        let _ = Store::read(&hive);
    }
    let unchanged = hive.clone().into_bytes();
    assert!(unchanged == bytes, "nothing was changed");
    if let Ok(key) = hive.make("Setup\\LabConfig") {
        let _ = hive.set_number(&key, "BypassTPMCheck", 1);
    }
    let _ = hive.remove("ControlSet001");
    let _ = Hive::open(hive.into_bytes());
}

/// A log beside a hive that needs it: `bytes` are the log.
pub fn hive_log(bytes: &[u8]) {
    if let Ok(hive) = Hive::create("ROOT") {
        let mut dirty = hive.into_bytes();
        dirty[4] = dirty[4].wrapping_add(1);
        // Hashes stand before everything: what is behind them is reached with them made right, too.
        for log in [bytes.to_vec(), Hive::log_with_checksums(bytes.to_vec())] {
            if let Ok(hive) = Hive::open_with_logs(dirty.clone(), &[log]) {
                let _ = hive.root();
            }
        }
    }
}

/// A PE.
pub fn pe(bytes: &[u8]) {
    let _ = Pe::read(&source(bytes));
}

/// An INF.
pub fn inf(bytes: &[u8]) {
    let inf = Inf::parse(bytes);
    let _ = (inf.version("Class"), inf.driver_version(), inf.catalog());
    for model in inf.models() {
        let _ = model.is_for("arm64");
    }
}

/// Whatever it is.
pub fn any(bytes: &[u8]) {
    if let Ok(report) = inspect::inspect(&source(bytes)) {
        let _ = report.to_string();
    }
    if let Ok(descriptors) = Descriptors::read(&source(bytes))
        && let Some(volume) = descriptors.joliet
    {
        let _ = drivers::find_all(&volume);
    }
}
