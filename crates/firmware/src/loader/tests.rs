use super::*;
use proptest::prelude::*;
use std::io::Write;

const RAM: Range = Range::new(0x4000_0000, 256 << 20);
const TREE: u64 = 0x1_0000;

fn linux(text_offset: u64, size: u64, length: usize) -> Vec<u8> {
    let mut file = vec![0xaa; length.max(64)];
    file[8..16].copy_from_slice(&text_offset.to_le_bytes());
    file[16..24].copy_from_slice(&size.to_le_bytes());
    file[56..60].copy_from_slice(b"ARM\x64");
    file
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn zboot(kind: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 512];
    file[..8].copy_from_slice(b"MZ\0\0zimg");
    file[8..12].copy_from_slice(&512u32.to_le_bytes());
    file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[24..24 + kind.len()].copy_from_slice(kind);
    file[60..64].copy_from_slice(&64u32.to_le_bytes());
    file[64..68].copy_from_slice(b"PE\0\0");
    file.extend(payload);
    file
}

/// One program header a (virtual, physical, bytes, size in memory).
fn elf(entry: u64, segments: &[(u64, u64, &[u8], u64)]) -> Vec<u8> {
    let mut file = vec![0; 64 + 56 * segments.len()];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18..20].copy_from_slice(&183u16.to_le_bytes());
    file[24..32].copy_from_slice(&entry.to_le_bytes());
    file[32] = 64;
    file[54] = 56;
    file[56] = segments.len() as u8;
    for (i, (v, p, bytes, size)) in segments.iter().enumerate() {
        let at = 64 + 56 * i;
        let offset = file.len() as u64;
        file[at] = 1;
        for (field, value) in [
            (8, offset),
            (16, *v),
            (24, *p),
            (32, bytes.len() as u64),
            (40, *size),
        ] {
            file[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
        }
        file.extend(*bytes);
    }
    file
}

#[test]
fn recognises_each_kind() {
    let image = linux(0, 0x20_0000, 5000);
    let plain = Kernel::parse(&image).unwrap();
    let Kernel::Linux {
        text_offset: 0,
        size: 0x20_0000,
        ..
    } = plain
    else {
        panic!("{plain:?}")
    };
    assert_eq!(Kernel::parse(&gzipped(&image)).unwrap(), plain);
    assert_eq!(Kernel::parse(&zstandard(&image)).unwrap(), plain);
    assert_eq!(
        Kernel::parse(&zboot(b"gzip", &gzipped(&image))).unwrap(),
        plain
    );
    assert_eq!(
        Kernel::parse(&zboot(b"zstd22", &zstandard(&image))).unwrap(),
        plain
    );
    assert!(matches!(Kernel::parse(&[1, 2, 3]), Ok(Kernel::Flat { .. })));
    assert!(matches!(
        Kernel::parse(&linux(7, 0, 64)),
        Ok(Kernel::Linux {
            text_offset: 0x8_0000,
            ..
        })
    ));
}

#[test]
fn says_what_is_wrong() {
    assert_eq!(Kernel::parse(&[]), Err(LoadError::Empty));
    let xz = Kernel::parse(b"\xfd7zXZ\0 and so on")
        .unwrap_err()
        .to_string();
    assert!(xz.contains("xz"), "{xz}");
    let lzma = Kernel::parse(&zboot(b"lzma", &[1])).unwrap_err();
    assert_eq!(lzma, LoadError::Compression("lzma".into()));
    let mut cut = zboot(b"gzip", &gzipped(&[1; 100]));
    cut.pop();
    assert!(matches!(Kernel::parse(&cut), Err(LoadError::Truncated(_))));
    let mut corrupt = gzipped(&[1; 100]);
    corrupt.truncate(20);
    assert!(matches!(
        Kernel::parse(&corrupt),
        Err(LoadError::Corrupt(_))
    ));
    let mut efi = zboot(b"gzip", &[]);
    efi[4] = 0;
    assert_eq!(Kernel::parse(&efi), Err(LoadError::EfiProgram));
    let mut other = elf(0, &[]);
    other[18] = 62;
    assert!(matches!(
        Kernel::parse(&other),
        Err(LoadError::WrongMachine(_))
    ));
    assert!(matches!(
        Kernel::parse(&elf(0, &[])),
        Err(LoadError::Corrupt(_))
    ));
    let bomb = gzipped(&vec![0; LARGEST_KERNEL + 1]);
    assert_eq!(Kernel::parse(&bomb), Err(LoadError::TooLarge));
}

#[test]
fn linux_gets_its_place_and_the_tree_in_x0() {
    let kernel = Kernel::parse(&linux(0x8_0000, 40 << 20, 5000)).unwrap();
    let plan = plan(&kernel, Some(10 << 20), TREE, RAM).unwrap();
    assert_eq!(plan.entry, 0x4028_0000);
    assert_eq!(plan.tree, Some(0x4000_0000));
    assert_eq!(plan.x0, 0x4000_0000);
    assert_eq!(plan.initrd, Some(Range::new(0x4800_0000, 10 << 20)));
    let boot = plan.boot(Some(vec![7; 10 << 20].into()), vec![8; 100].into());
    let places: Vec<_> = boot
        .segments
        .iter()
        .map(|s| (s.address, s.bytes.len(), s.size))
        .collect();
    assert_eq!(
        places,
        [
            (0x4028_0000, 5000, 40 << 20),
            (0x4800_0000, 10 << 20, 10 << 20),
            (0x4000_0000, 100, 100)
        ]
    );
}

#[test]
fn flat_binaries_go_to_their_offset() {
    let kernel = Kernel::Flat {
        bytes: vec![0; 100].into(),
    };
    let small = plan(&kernel, None, TREE, RAM).unwrap();
    assert_eq!(
        (small.entry, small.x0, small.tree),
        (0x4008_0000, 0x4000_0000, Some(0x4000_0000))
    );
    let large = plan(&kernel, None, 1 << 20, RAM).unwrap();
    assert_eq!(
        (large.x0, large.tree),
        (0x4020_0000, Some(0x4020_0000)),
        "no room before the program"
    );
}

#[test]
fn elf_programs_go_where_they_say() {
    let file = elf(
        0xffff_0000_0000_0010,
        &[
            (0xffff_0000_0000_0000, 0x4010_0000, &[1; 32], 0x1000),
            (0, 0x4020_0000, &[], 64),
        ],
    );
    let kernel = Kernel::parse(&file).unwrap();
    let p = plan(&kernel, None, TREE, RAM).unwrap();
    assert_eq!((p.entry, p.x0, p.tree), (0x4010_0010, 0, Some(0x4000_0000)));
    let boot = p.boot(None, vec![0; 8].into());
    assert_eq!(
        (boot.segments[0].bytes.len(), boot.segments[0].size),
        (32, 0x1000)
    );
    let low = Kernel::parse(&elf(0x4000_0000, &[(0x4000_0000, 0x4000_0000, &[1], 8)])).unwrap();
    assert_eq!(plan(&low, None, TREE, RAM).unwrap().tree, None);
    let outside = Kernel::parse(&elf(0, &[(0, 0x1000, &[1], 8)])).unwrap();
    let error = plan(&outside, None, TREE, RAM).unwrap_err().to_string();
    assert!(
        error.contains("kernel") && error.contains("0x1000"),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let kernel = Kernel::parse(&linux(0, 300 << 20, 100)).unwrap();
    assert!(matches!(
        plan(&kernel, None, TREE, RAM),
        Err(LoadError::NoRoom { what: "kernel", .. })
    ));
    let kernel = Kernel::parse(&linux(u64::MAX, 100, 100)).unwrap();
    assert!(matches!(
        plan(&kernel, None, TREE, RAM),
        Err(LoadError::NoRoom { what: "kernel", .. })
    ));
    let kernel = Kernel::parse(&linux(0, 100, 100)).unwrap();
    // Past the usual place it does not fit, but right behind the kernel it does.
    let tight = plan(&kernel, Some(200 << 20), TREE, RAM).unwrap();
    assert_eq!(tight.initrd, Some(Range::new(0x4020_1000, 200 << 20)));
    let error = plan(&kernel, Some(u64::MAX), TREE, RAM).unwrap_err();
    assert!(matches!(error, LoadError::NoRoom { what: "initrd", .. }));
    assert!(matches!(
        plan(&kernel, None, 3 << 20, RAM),
        Err(LoadError::NoRoom { .. })
    ));
}

#[test]
fn firmware_is_told_sizes_and_contents() {
    let items = fw_cfg_items(Some(vec![1, 2].into()), None, Some("quiet")).unwrap();
    let keys: Vec<u16> = items.iter().map(|i| i.0).collect();
    assert_eq!(keys, [0x08, 0x11, 0x14, 0x15]);
    assert_eq!(&*items[0].1, 2u32.to_le_bytes());
    assert_eq!(&*items[3].1, b"quiet\0");
}

proptest! {
    #[test]
    fn hostile_files_are_refused_or_fit(
        kind in 0usize..5,
        mut noise in prop::collection::vec(any::<u8>(), 64..400),
        flips in prop::collection::vec((0usize..400, any::<u8>()), 0..20),
        initrd in prop::option::of(any::<u64>()),
    ) {
        let mut file = match kind {
            0 => linux(0, 0x10_0000, 300),
            1 => elf(0x4010_0000, &[(0, 0x4010_0000, &noise, 1000), (8, 0x4020_0000, &[], 8)]),
            2 => zboot(b"gzip", &gzipped(&linux(0, 4096, 200))),
            3 => zstandard(&linux(0, 4096, 200)),
            _ => std::mem::take(&mut noise),
        };
        for (at, value) in flips {
            if let Some(byte) = file.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(kernel) = Kernel::parse(&file)
            && let Ok(plan) = plan(&kernel, initrd, TREE, RAM)
        {
            let mut ranges: Vec<Range> = plan.kernel.iter().map(Segment::range).collect();
            for range in &ranges {
                prop_assert!(range.base >= RAM.base && range.end() <= RAM.end());
            }
            // Initrd and tree are apart from all else.
            for extra in plan.initrd.into_iter().chain(plan.tree.map(|t| Range::new(t, TREE))) {
                prop_assert!(extra.base >= RAM.base && extra.end() <= RAM.end());
                prop_assert!(!ranges.iter().any(|r| r.overlaps(extra)));
                ranges.push(extra);
            }
        }
    }
}
