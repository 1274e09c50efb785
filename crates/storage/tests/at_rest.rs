//! qcow2 images at rest: against a model in memory, killed, cut off from the drive and out of space at every moment.

use dormer_storage::format::{FormatError, Source};
use dormer_storage::host::Host;
use dormer_storage::qcow2::{
    Access, Compression, Compressor, CreateOptions, Preallocation, Qcow2, Repair,
};
use dormer_storage::{Fault, FaultyFile};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const CLUSTER: u64 = 512;
/// Blocks of the disk that are written as a whole, half a cluster each.
const BLOCK: u64 = 256;
const BLOCKS: u64 = 640;
const SIZE: u64 = BLOCKS * BLOCK;

fn options(version: u32, refcount_bits: u32) -> CreateOptions {
    CreateOptions {
        version,
        refcount_bits,
        cluster_size: CLUSTER,
        ..CreateOptions::new(SIZE)
    }
}

fn open(file: &Arc<FaultyFile>, write: bool) -> Result<Qcow2, FormatError> {
    let access = Access {
        write,
        damaged: false,
        durable: true,
    };
    Qcow2::open(file.clone(), Path::new("test.qcow2"), None, access)
}

fn new_image(options: &CreateOptions) -> Vec<u8> {
    let file = Arc::new(FaultyFile::default());
    let image = Qcow2::create(file.clone(), Path::new("test.qcow2"), None, options, true).unwrap();
    image.close().unwrap();
    file.contents()
}

fn nothing_below(_: u64, into: &mut [u8]) -> Result<(), FormatError> {
    into.fill(0);
    Ok(())
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

/// What each block may hold: what it held at the last flush, and all that was put there since.
struct Model {
    blocks: Vec<Vec<u8>>,
}

impl Model {
    fn new() -> Model {
        Model {
            blocks: vec![vec![0]; BLOCKS as usize],
        }
    }

    fn put(&mut self, first: u64, count: u64, value: u8) {
        for block in &mut self.blocks[first as usize..(first + count) as usize] {
            block.push(value);
        }
    }

    fn flushed(&mut self) {
        for block in &mut self.blocks {
            block.drain(..block.len() - 1);
        }
    }

    fn values(&self) -> Vec<u8> {
        self.blocks
            .iter()
            .map(|block| block[block.len() - 1])
            .collect()
    }

    fn fits(&self, image: &Qcow2) {
        let mut back = vec![0; SIZE as usize];
        image.read(0, &mut back).unwrap();
        for (index, (block, values)) in back.chunks(BLOCK as usize).zip(&self.blocks).enumerate() {
            assert!(
                values.contains(&block[0]) && block.iter().all(|byte| *byte == block[0]),
                "block {index} holds {} … {}, allowed is {values:?}",
                block[0],
                block[BLOCK as usize - 1]
            );
        }
    }
}

/// Works on an image until something fails, telling the model.
fn work(image: &Qcow2, model: &mut Model, seed: u64, rounds: u32) -> Result<(), FormatError> {
    let mut random = Random(seed);
    let mut compressor = Compressor::new(image.compression());
    let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..rounds {
        let value = (random.next() % 200) as u8 + 1;
        let first = random.next() % (BLOCKS - 16);
        let count = random.next() % 16 + 1;
        match random.next() % 14 {
            0..=5 => {
                model.put(first, count, value);
                let bytes = vec![value; (count * BLOCK) as usize];
                image.write(first * BLOCK, &bytes, &nothing_below)?;
            }
            6 => {
                model.put(first, count, 0);
                image.write_zeroes(
                    first * BLOCK,
                    count * BLOCK,
                    round % 2 == 0,
                    true,
                    &nothing_below,
                )?;
            }
            7 => {
                let first = first / 2 * 2;
                model.put(first, 2, value);
                let packed = compressor.compress(&[value; CLUSTER as usize]).unwrap();
                image.write_compressed(first * BLOCK, &packed)?;
            }
            8 if kept.len() < 3 => {
                let name = format!("s{round}");
                image.create_snapshot(&name)?;
                model.flushed();
                kept.push((name, model.values()));
            }
            9 if !kept.is_empty() => {
                let (name, _) = kept.remove(random.next() as usize % kept.len());
                assert!(image.delete_snapshot(&name)?);
                model.flushed();
            }
            10 if !kept.is_empty() => {
                let (name, values) = &kept[random.next() as usize % kept.len()];
                for (block, value) in model.blocks.iter_mut().zip(values) {
                    block.push(*value);
                }
                assert!(image.apply_snapshot(name)?);
                model.flushed();
            }
            11 => {
                image.reclaim(true, &|_, _| Ok(()))?;
                model.flushed();
            }
            _ => {
                image.flush()?;
                model.flushed();
            }
        }
    }
    image.close()?;
    model.flushed();
    Ok(())
}

/// The image opens, whatever happened: whole but for leaks, with everything that was flushed.
fn survives(contents: Vec<u8>, model: &Model, what: &str) {
    let file = Arc::new(FaultyFile::new(contents, Fault::None));
    // A dirty image is mended when it is opened; any other must need no mending.
    let look = open(&file, false).unwrap_or_else(|error| panic!("{what}: {error}"));
    let dirty = look.marked_dirty();
    if !dirty {
        let report = look.check(Repair::Nothing).unwrap();
        assert_eq!(
            (report.corruptions, report.check_errors),
            (0, 0),
            "{what}: {:?}",
            report.messages
        );
    }
    model.fits(&look);
    drop(look);
    let image = open(&file, true).unwrap_or_else(|error| panic!("{what}: {error}"));
    let report = image.check(Repair::All).unwrap();
    assert_eq!(report.corruptions, 0, "{what}: {:?}", report.messages);
    model.fits(&image);
    image.write(0, &[7; 3000], &nothing_below).unwrap();
    image.close().unwrap();
    let report = image.check(Repair::Nothing).unwrap();
    assert_eq!(
        (report.corruptions, report.leaks),
        (0, 0),
        "{what}: {:?}",
        report.messages
    );
}

const SEEDS: [u64; 4] = [3, 0x1234_5678, 0xdead_beef, 0x0f0f_1357_9bdf];

#[test]
fn killed_and_powered_off_at_every_moment() {
    for (seed, bits) in SEEDS.into_iter().zip([16, 64, 16, 8]) {
        let start = new_image(&options(3, bits));
        let file = Arc::new(FaultyFile::new(start.clone(), Fault::None));
        let mut model = Model::new();
        work(&open(&file, true).unwrap(), &mut model, seed, 40).unwrap();
        model.fits(&open(&file, false).unwrap());
        let all = file.changes();
        assert!(all > 120, "{all}");
        for stop in 0..all {
            let file = Arc::new(FaultyFile::new(start.clone(), Fault::Stop(stop)));
            let mut model = Model::new();
            if let Ok(image) = open(&file, true) {
                let _ = work(&image, &mut model, seed, 40);
            }
            let what = format!("seed {seed:#x}, stopped at {stop} of {all}");
            survives(file.contents(), &model, &what);
            let mut random = Random(seed ^ (stop + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            for chance in [2, 4] {
                let after = file.after_power_loss(|| random.next().is_multiple_of(chance));
                survives(after, &model, &format!("{what}, writes lost"));
            }
        }
    }
}

#[test]
fn version_2_stays_whole_too() {
    // Without snapshots: for these, version 2 has no mark that says "mend me".
    let start = new_image(&options(2, 16));
    let plain = |image: &Qcow2, model: &mut Model| -> Result<(), FormatError> {
        let mut random = Random(99);
        for round in 0..60u64 {
            let (first, value) = (random.next() % (BLOCKS - 8), round as u8 + 1);
            model.put(first, 8, value);
            image.write(first * BLOCK, &[value; 8 * BLOCK as usize], &nothing_below)?;
            if round % 5 == 4 {
                image.flush()?;
                model.flushed();
            }
        }
        image.close()?;
        model.flushed();
        Ok(())
    };
    let file = Arc::new(FaultyFile::new(start.clone(), Fault::None));
    plain(&open(&file, true).unwrap(), &mut Model::new()).unwrap();
    for stop in 0..file.changes() {
        let file = Arc::new(FaultyFile::new(start.clone(), Fault::Stop(stop)));
        let mut model = Model::new();
        if let Ok(image) = open(&file, true) {
            let _ = plain(&image, &mut model);
        }
        survives(file.contents(), &model, &format!("stopped at {stop}"));
        let mut random = Random(stop + 1);
        let after = file.after_power_loss(|| random.next().is_multiple_of(2));
        survives(after, &model, &format!("stopped at {stop}, writes lost"));
    }
}

#[test]
fn a_full_disk_at_every_length() {
    let start = new_image(&options(3, 16));
    for seed in SEEDS {
        let file = Arc::new(FaultyFile::new(start.clone(), Fault::None));
        work(&open(&file, true).unwrap(), &mut Model::new(), seed, 40).unwrap();
        let last = file.length().unwrap();
        let mut full = start.len() as u64;
        while full < last {
            let file = Arc::new(FaultyFile::new(start.clone(), Fault::Full(full)));
            let mut model = Model::new();
            if let Ok(image) = open(&file, true) {
                let _ = work(&image, &mut model, seed, 40);
                // Whoever closes it cannot do more than try.
                let _ = image.close();
            }
            survives(
                file.contents(),
                &model,
                &format!("seed {seed:#x}, full at {full}"),
            );
            full += 509;
        }
    }
}

/// What cannot be written takes no room.
#[test]
fn a_failed_write_leaks_nothing() {
    let start = new_image(&options(3, 16));
    let mut random = Random(11);
    let cluster: Vec<u8> = (0..CLUSTER)
        .map(|n| (n / 8 * (random.next() % 2)) as u8)
        .collect();
    let packed = Compressor::new(Compression::Zlib)
        .compress(&cluster)
        .unwrap();
    type Write<'a> = &'a dyn Fn(&Qcow2, u64) -> Result<(), FormatError>;
    let writes: [Write<'_>; 2] = [
        &|image, at| image.write_compressed(at, &packed),
        &|image, at| image.write(at, &[7; 3 * CLUSTER as usize], &nothing_below),
    ];
    for write in writes {
        let mut failures = 0;
        // A table covers 64 clusters: some writes fail for want of one.
        for full in (start.len() as u64..start.len() as u64 + 64 * CLUSTER).step_by(100) {
            let file = Arc::new(FaultyFile::new(start.clone(), Fault::None));
            let image = open(&file, true).unwrap();
            file.set_fault(Fault::Full(full));
            for n in 0..BLOCKS / 32 {
                failures += u32::from(write(&image, n * 16 * CLUSTER).is_err());
            }
            file.set_fault(Fault::None);
            write(&image, 0).unwrap();
            image.close().unwrap();
            drop(image);
            let report = open(&file, false).unwrap().check(Repair::Nothing).unwrap();
            assert_eq!(
                (report.leaks, report.corruptions),
                (0, 0),
                "full at {full}: {:?}",
                report.messages
            );
        }
        assert!(failures > 100, "{failures}");
    }
}

#[test]
fn a_shrunk_image_is_whole_at_every_moment() {
    let start = {
        let file = Arc::new(FaultyFile::new(new_image(&options(3, 16)), Fault::None));
        let image = open(&file, true).unwrap();
        image
            .write(0, &vec![5; SIZE as usize], &nothing_below)
            .unwrap();
        image.close().unwrap();
        file.contents()
    };
    let resize = |file: &Arc<FaultyFile>| -> Result<(), FormatError> {
        let image = open(file, true)?;
        image.resize(SIZE / 4, Preallocation::Off, None, &nothing_below)?;
        image.resize(SIZE * 40, Preallocation::Off, None, &nothing_below)?;
        image.close()
    };
    let file = Arc::new(FaultyFile::new(start.clone(), Fault::None));
    resize(&file).unwrap();
    for stop in 0..file.changes() {
        let file = Arc::new(FaultyFile::new(start.clone(), Fault::Stop(stop)));
        let _ = resize(&file);
        let mut random = Random(stop + 7);
        for contents in [
            file.contents(),
            file.after_power_loss(|| random.next().is_multiple_of(2)),
        ] {
            let file = Arc::new(FaultyFile::new(contents, Fault::None));
            let image = open(&file, true).unwrap();
            let report = image.check(Repair::Nothing).unwrap();
            assert_eq!(
                report.corruptions, 0,
                "stopped at {stop}: {:?}",
                report.messages
            );
            let mut back = vec![0; SIZE as usize / 4];
            image.read(0, &mut back).unwrap();
            assert!(back.iter().all(|byte| *byte == 5), "stopped at {stop}");
        }
    }
}

#[test]
fn reclaim_gives_back_what_is_not_needed() {
    let file = Arc::new(FaultyFile::new(new_image(&options(3, 16)), Fault::None));
    let image = open(&file, true).unwrap();
    image
        .write(0, &vec![5; SIZE as usize], &nothing_below)
        .unwrap();
    image
        .write(0, &vec![0; SIZE as usize - 2048], &nothing_below)
        .unwrap();
    image.close().unwrap();
    let before = file.length().unwrap();
    let won = image.reclaim(true, &|_, _| Ok(())).unwrap();
    assert_eq!(won.zeroed, SIZE / CLUSTER - 4);
    assert!(won.length.1 < before / 8, "{won:?}");
    assert_eq!(won.length.1, file.length().unwrap());
    let mut back = vec![1; SIZE as usize];
    image.read(0, &mut back).unwrap();
    assert!(back[..SIZE as usize - 2048].iter().all(|byte| *byte == 0));
    assert!(back[SIZE as usize - 2048..].iter().all(|byte| *byte == 5));
    let report = image.check(Repair::Nothing).unwrap();
    assert_eq!(
        (report.corruptions, report.leaks),
        (0, 0),
        "{:?}",
        report.messages
    );
}

/// An image with all that reclaiming changes: holes between data, written zeroes, clusters set aside for zeroes, tables that
/// nothing needs any more, leaks; and, if asked for, a snapshot that shares half of it.
fn full_of_waste(version: u32, refcount_bits: u32, snapshot: bool) -> Vec<u8> {
    let file = Arc::new(FaultyFile::new(
        new_image(&options(version, refcount_bits)),
        Fault::None,
    ));
    let image = open(&file, true).unwrap();
    let mut random = Random(0x5eed ^ u64::from(version * refcount_bits));
    let mut places: Vec<u64> = (0..SIZE / CLUSTER).collect();
    for index in (1..places.len()).rev() {
        places.swap(index, random.next() as usize % (index + 1));
    }
    for place in &places {
        let value = (place % 250) as u8 + 1;
        image
            .write(place * CLUSTER, &[value; CLUSTER as usize], &nothing_below)
            .unwrap();
    }
    if snapshot {
        image.create_snapshot("half").unwrap();
    }
    for (n, place) in places.iter().enumerate() {
        let at = place * CLUSTER;
        let zeroes = [0; CLUSTER as usize];
        match n % 4 {
            _ if snapshot && n % 8 < 4 => {}
            0 => image.write(at, &zeroes, &nothing_below).unwrap(),
            1 if version >= 3 => image
                .write_zeroes(at, CLUSTER, false, false, &nothing_below)
                .unwrap(),
            2 => image.forget(at, CLUSTER).unwrap(),
            _ => {}
        }
    }
    // The first and the last quarter are empty altogether, tables and all that counts them.
    image.forget(0, SIZE / 4).unwrap();
    image.forget(SIZE / 4 * 3, SIZE / 4).unwrap();
    // Not closed: what was freed last stays counted.
    image.flush().unwrap();
    drop(image);
    file.contents()
}

/// What is on the disk, and of which clusters the image says so itself.
fn everything(image: &Qcow2) -> (Vec<u8>, Vec<bool>) {
    let mut bytes = vec![0; SIZE as usize];
    image.read(0, &mut bytes).unwrap();
    let own = (0..SIZE).step_by(CLUSTER as usize).map(|at| {
        let kind = image.extent(at, CLUSTER).unwrap().kind;
        kind != dormer_storage::format::Kind::Unallocated
    });
    (bytes, own.collect())
}

#[test]
fn reclaim_loses_no_byte_at_any_moment() {
    for (version, bits, snapshot, hollow) in [
        (3, 16, false, true),
        (3, 64, false, true),
        (3, 64, false, false),
        (3, 64, true, true),
        (2, 16, false, true),
    ] {
        let start = full_of_waste(version, bits, snapshot);
        let reclaim = |file: &Arc<FaultyFile>| {
            let image = open(file, true)?;
            image.reclaim(hollow, &|_, _| Ok(()))
        };
        let file = Arc::new(FaultyFile::new(start.clone(), Fault::None));
        let (bytes, own) = everything(&open(&file, false).unwrap());
        let won = reclaim(&file).unwrap();
        assert!(won.leaked > 0 && won.zeroed > 0, "{won:?}");
        assert!(won.moved > 0 || snapshot, "{won:?}");
        assert!(won.length.1 < won.length.0 || snapshot, "{won:?}");
        let all = file.changes();
        assert!(all > 20, "{all}");
        // Unharmed: the contents as they were, nothing to repair, and whatever is below shows where it did.
        let unharmed = |contents: Vec<u8>, what: &str| {
            let file = Arc::new(FaultyFile::new(contents, Fault::None));
            let image = open(&file, true).unwrap_or_else(|error| panic!("{what}: {error}"));
            let report = image.check(Repair::Nothing).unwrap();
            assert_eq!(
                (report.corruptions, report.check_errors),
                (0, 0),
                "{what}: {:?}",
                report.messages
            );
            let (now, now_own) = everything(&image);
            assert!(now == bytes, "{what}: other contents");
            assert!(hollow || now_own == own, "{what}: other clusters");
            if snapshot {
                assert!(image.apply_snapshot("half").unwrap());
                let (then, _) = everything(&image);
                let kept =
                    |(n, part): (usize, &[u8])| part.iter().all(|b| *b == (n % 250) as u8 + 1);
                assert!(
                    then.chunks(CLUSTER as usize).enumerate().all(kept),
                    "{what}"
                );
            }
            file
        };
        unharmed(file.contents(), "not stopped");
        for stop in 0..all {
            let file = Arc::new(FaultyFile::new(start.clone(), Fault::Stop(stop)));
            assert!(reclaim(&file).is_err());
            let what = format!("version {version}, {bits} bits, stopped at {stop} of {all}");
            let left = unharmed(file.contents(), &what);
            let mut random = Random(stop * 31 + u64::from(bits));
            for chance in [2, 3, 8] {
                let after = file.after_power_loss(|| random.next().is_multiple_of(chance));
                unharmed(after, &format!("{what}, writes lost"));
            }
            // Once more, and it comes to its end.
            if !snapshot {
                reclaim(&left).unwrap();
                unharmed(left.contents(), &format!("{what}, then done again"));
            }
        }
    }
}

/// An image with all kinds of clusters, two snapshots and a name for its backing file.
fn sample(compression: Compression) -> Vec<u8> {
    let options = CreateOptions {
        compression,
        backing_file: Some("below.raw".into()),
        backing_format: Some("raw".into()),
        ..options(3, 16)
    };
    let file = Arc::new(FaultyFile::new(new_image(&options), Fault::None));
    let image = open(&file, true).unwrap();
    work(&image, &mut Model::new(), 77, 60).unwrap();
    image.create_snapshot("one").unwrap();
    image.write(5000, &[3; 9000], &nothing_below).unwrap();
    image.create_snapshot("two").unwrap();
    image.close().unwrap();
    file.contents()
}

/// Everything that can be done with whatever this is must end, without a panic.
fn handle(contents: Vec<u8>) {
    let file = Arc::new(FaultyFile::new(contents, Fault::None));
    for damaged in [true, false] {
        let access = Access {
            write: true,
            damaged,
            durable: true,
        };
        let Ok(image) = Qcow2::open(file.clone(), Path::new("x"), None, access) else {
            continue;
        };
        let size = image.disk_size().min(4 << 20);
        let mut buffer = vec![0; 4096];
        for at in (0..size).step_by(4096) {
            let count = (size - at).min(4096) as usize;
            let _ = image.read(at, &mut buffer[..count]);
        }
        let mut at = 0;
        while at < size {
            match image.extent(at, size - at) {
                Ok(extent) => at += extent.length,
                Err(_) => break,
            }
        }
        let _ = image.check(Repair::Nothing);
        if damaged {
            let _ = image.check(Repair::All);
            continue;
        }
        let _ = image.write(size / 2, &buffer, &nothing_below);
        let _ = image.create_snapshot("x");
        let _ = image.apply_snapshot("one");
        let _ = image.delete_snapshot("two");
        let _ = image.resize(
            size / 2 / 512 * 512 + 512,
            Preallocation::Off,
            None,
            &nothing_below,
        );
        let _ = image.reclaim(false, &|_, _| Ok(()));
        let _ = image.close();
    }
}

#[test]
fn cut_short_anywhere_it_is_an_error_or_right() {
    for compression in [Compression::Zlib, Compression::Zstd] {
        let whole = sample(compression);
        let file = Arc::new(FaultyFile::new(whole.clone(), Fault::None));
        let right = open(&file, false).unwrap();
        let mut values = vec![0; SIZE as usize];
        right.read(0, &mut values).unwrap();
        let mut errors = 0;
        for n in 0..1000 {
            let cut = whole.len() * n / 1000;
            let file = Arc::new(FaultyFile::new(whole[..cut].to_vec(), Fault::None));
            let Ok(image) = open(&file, false) else {
                errors += 1;
                continue;
            };
            let mut back = vec![0; CLUSTER as usize];
            for at in (0..SIZE).step_by(CLUSTER as usize) {
                match image.read(at, &mut back) {
                    Ok(()) => assert!(
                        back == values[at as usize..][..CLUSTER as usize],
                        "cut at {cut}: wrong data at {at}"
                    ),
                    Err(error) => {
                        errors += 1;
                        assert!(!error.to_string().is_empty());
                    }
                }
            }
        }
        assert!(errors > 900, "{errors}");
    }
}

#[test]
fn any_bytes_changed() {
    let whole = sample(Compression::Zlib);
    let mut random = Random(0xabcdef);
    for _ in 0..600 {
        let mut bytes = whole.clone();
        for _ in 0..random.next() % 4 + 1 {
            // Metadata are at the front mostly.
            let span = if random.next().is_multiple_of(2) {
                4096
            } else {
                bytes.len() as u64
            };
            let at = (random.next() % span) as usize;
            bytes[at] = random.next() as u8;
        }
        handle(bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_vector(seed in 1u64.., rounds in 5u32..80, order in 3u32..7, version in 2u32..4) {
        let bits = if version == 2 { 16 } else { 1 << order };
        let file = Arc::new(FaultyFile::new(new_image(&options(version, bits)), Fault::None));
        let image = open(&file, true).unwrap();
        let mut model = Model::new();
        work(&image, &mut model, seed, rounds).unwrap();
        model.fits(&image);
        let report = image.check(Repair::Nothing).unwrap();
        prop_assert_eq!((report.corruptions, report.leaks, report.check_errors), (0, 0, 0));
        drop(image);
        model.fits(&open(&file, false).unwrap());
    }

    #[test]
    fn any_header_is_survived(changes in prop::collection::vec((0usize..600, any::<u8>()), 1..10), cut in any::<prop::sample::Index>()) {
        let mut bytes = new_image(&options(3, 16));
        for (at, value) in changes {
            bytes[at] = value;
        }
        handle(bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        handle(bytes);
    }
}
