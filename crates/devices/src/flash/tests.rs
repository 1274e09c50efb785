use super::spec::*;
use super::*;
use memory::{Found, Mapping};
use proptest::prelude::*;

const SMALL: u64 = 4 * SECTOR_SIZE;

struct Bench {
    flash: Arc<Flash>,
    space: Arc<AddressSpace>,
}

fn config(read_only: bool) -> Config {
    Config {
        name: "flash1".into(),
        size: SMALL,
        read_only,
    }
}

fn bench_of(image: Image, read_only: bool) -> Bench {
    let space = Arc::new(AddressSpace::new());
    let flash = Flash::new(config(read_only), image, &space).unwrap();
    space.map(0, SMALL, Mapping::Rom(flash.rom())).unwrap();
    Bench { flash, space }
}

fn bench() -> Bench {
    bench_of(Image::Blank, false)
}

impl Bench {
    fn read(&self, address: u64) -> u32 {
        self.space.read(0, address, 4).unwrap() as u32
    }

    fn write(&self, address: u64, value: u32) {
        self.space.write(0, address, 4, value.into()).unwrap();
    }

    /// The command to both chips.
    fn both(&self, address: u64, command: u8) {
        self.write(address, u32::from(command) * 0x1_0001);
    }

    fn erase(&self, address: u64) {
        self.both(address, BLOCK_ERASE);
        self.both(address, CONFIRM);
    }
}

#[test]
fn answers_the_query_as_the_board_does() {
    let space = Arc::new(AddressSpace::new());
    let config = Config {
        name: "flash0".into(),
        size: SIZE,
        read_only: true,
    };
    let flash = Flash::new(config, Image::Blank, &space).unwrap();
    flash.write(Access::new(0x55 * 4, 4), 0x0098_0098);
    let at = |word: u64| flash.read(Access::new(word * 4, 4));
    // Observed: those that are not zero, on QEMU's board.
    let seen = [
        (0x10, 0x51),
        (0x11, 0x52),
        (0x12, 0x59),
        (0x13, 0x01),
        (0x15, 0x31),
        (0x1b, 0x45),
        (0x1c, 0x55),
        (0x1f, 0x07),
        (0x20, 0x07),
        (0x21, 0x0a),
        (0x23, 0x04),
        (0x24, 0x04),
        (0x25, 0x04),
        (0x27, 0x19),
        (0x28, 0x02),
        (0x2a, 0x0b),
        (0x2c, 0x01),
        (0x2d, 0xff),
        (0x30, 0x02),
        (0x31, 0x50),
        (0x32, 0x52),
        (0x33, 0x49),
        (0x34, 0x31),
        (0x35, 0x30),
        (0x3f, 0x01),
    ];
    for word in 0..0x60 {
        let expected = seen.iter().find(|s| s.0 == word).map_or(0, |s| s.1);
        assert_eq!(at(word), expected * 0x1_0001, "word {word:#x}");
    }
}

#[test]
fn memory_shows_only_in_array_mode() {
    let b = bench();
    assert!(matches!(
        b.space.find(0, false),
        Some(Found::Memory {
            writable: false,
            ..
        })
    ));
    let before = b.space.generation();
    b.both(0, READ_STATUS);
    assert_ne!(b.space.generation(), before);
    assert!(matches!(b.space.find(0, false), Some(Found::Device { .. })));
    assert_eq!(b.read(0), 0x0080_0080);
    b.both(0, READ_IDENTIFIER);
    assert_eq!(
        [b.read(0), b.read(4), b.read(8)],
        [0x0089_0089, 0x0018_0018, 0]
    );
    b.both(0, READ_ARRAY);
    assert!(matches!(b.space.find(0, false), Some(Found::Memory { .. })));
}

/// What EDK II's VirtNorFlashDxe does to a sector.
#[test]
fn unlock_erase_program_and_buffer() {
    let b = bench();
    let sector = SECTOR_SIZE;
    b.both(sector, LOCK_SETUP);
    b.both(sector, CONFIRM);
    assert_eq!(b.read(sector), 0x0080_0080);
    b.erase(sector);
    assert_eq!(b.read(sector), 0x0080_0080);
    b.both(sector, PROGRAM);
    b.write(sector + 8, 0x1234_5678);
    assert_eq!(b.read(sector), 0x0080_0080);
    b.both(sector, WRITE_TO_BUFFER);
    assert_eq!(b.read(sector), 0x0080_0080);
    b.write(sector, 0x001f_001f);
    for i in 0..32 {
        b.write(sector + 128 + 4 * i, 0x0101_0101 * i as u32);
    }
    b.both(sector, CONFIRM);
    assert_eq!(b.read(sector), 0x0080_0080);
    b.both(sector, READ_ARRAY);
    assert_eq!(b.read(sector - 4), 0);
    assert_eq!(
        [b.read(sector), b.read(sector + 8)],
        [0xffff_ffff, 0x1234_5678]
    );
    assert_eq!(
        [b.read(sector + 132), b.read(sector + 252)],
        [0x0101_0101, 0x1f1f_1f1f]
    );
    assert_eq!(
        [b.read(2 * sector - 4), b.read(2 * sector)],
        [0xffff_ffff, 0]
    );
    // Programming clears bits and sets none.
    b.both(sector, PROGRAM_ALTERNATE);
    b.write(sector + 8, 0xffff_00ff);
    b.both(sector, READ_ARRAY);
    assert_eq!(b.read(sector + 8), 0x1234_0078);
}

#[test]
fn narrow_accesses_reach_one_chip() {
    let b = bench();
    b.erase(0);
    b.both(0, READ_ARRAY);
    b.space.write(0, 2, 2, u64::from(PROGRAM)).unwrap();
    b.space.write(0, 6, 2, 0x1234).unwrap();
    b.space.write(0, 2, 2, u64::from(READ_ARRAY)).unwrap();
    assert_eq!(b.read(4), 0x1234_ffff);
    b.space.write(0, 0, 1, u64::from(PROGRAM)).unwrap();
    b.space.write(0, 5, 1, 0x0f).unwrap();
    assert_eq!(b.space.read(0, 0, 1), Some(0x80));
    assert_eq!(
        b.space.read(0, 6, 2),
        Some(0x1234),
        "the other chip still reads its array"
    );
    b.space.write(0, 0, 1, u64::from(READ_ARRAY)).unwrap();
    assert_eq!(b.read(4), 0x1234_0fff);
}

#[test]
fn wrong_sequences_set_both_error_bits() {
    let b = bench();
    for steps in [
        vec![BLOCK_ERASE, READ_ARRAY],
        vec![WRITE_TO_BUFFER, 0, 0, READ_ARRAY],
        vec![LOCK_SETUP, READ_ARRAY],
    ] {
        steps.iter().for_each(|&s| b.both(0, s));
        assert_eq!(b.read(0), 0x00b0_00b0);
        b.both(0, CLEAR_STATUS);
        assert_eq!(b.read(0), 0x0080_0080);
    }
    b.both(0, WRITE_TO_BUFFER);
    b.write(0, 0x0400_0400);
    assert_eq!(b.read(0), 0x00b0_00b0, "more than the buffer holds");
    b.both(0, CLEAR_STATUS);
    b.both(0, WRITE_TO_BUFFER);
    b.write(0, 0x0001_0001);
    b.write(SECTOR_SIZE, 0);
    assert_eq!(b.read(0), 0x00b0_00b0, "data for another block");
}

#[test]
fn locked_blocks_and_read_only_devices_keep_their_contents() {
    let b = bench();
    b.both(SECTOR_SIZE, LOCK_SETUP);
    b.both(SECTOR_SIZE, LOCK);
    b.both(0, READ_IDENTIFIER);
    assert_eq!([b.read(8), b.read(SECTOR_SIZE + 8)], [0, 0x0001_0001]);
    b.erase(SECTOR_SIZE);
    assert_eq!(b.read(0), 0x00a2_00a2);
    b.both(0, CLEAR_STATUS);
    b.flash.reset();
    b.erase(SECTOR_SIZE);
    assert_eq!(b.read(0), 0x0080_0080);

    let b = bench_of(Image::Bios(Arc::from([1; 8])), true);
    b.both(0, PROGRAM);
    b.write(0, 0);
    assert_eq!(b.read(0), 0x0092_0092);
    b.flash.reset();
    assert_eq!(b.read(0), 0x0101_0101);
}

#[test]
fn the_file_has_what_the_guest_saw_completed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vars.fd");
    std::fs::write(&path, vec![0; SMALL as usize]).unwrap();
    let b = bench_of(Image::open(&path, SMALL, false).unwrap(), false);
    b.erase(SECTOR_SIZE);
    let file = std::fs::read(&path).unwrap();
    assert!(
        file[SECTOR_SIZE as usize..2 * SECTOR_SIZE as usize]
            .iter()
            .all(|&x| x == 0xff)
    );
    b.both(SECTOR_SIZE, PROGRAM);
    b.write(SECTOR_SIZE + 4, 0x1122_3344);
    assert_eq!(std::fs::read(&path).unwrap(), b.flash.contents());
    b.flash.reset();
    assert_eq!(b.read(SECTOR_SIZE + 4), 0x1122_3344);
    let again = bench_of(Image::open(&path, SMALL, true).unwrap(), true);
    assert_eq!(again.read(SECTOR_SIZE + 4), 0x1122_3344);
}

#[test]
fn sizes_are_checked_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("short.fd");
    std::fs::write(&path, [0; 5]).unwrap();
    let error = Image::open(&path, SMALL, true).err().unwrap().to_string();
    assert!(
        error.contains("requires 1048576 bytes") && error.contains("provides 5 bytes"),
        "{error}"
    );
    let space = Arc::new(AddressSpace::new());
    let image = Image::Bios(vec![0; SMALL as usize + 1].into());
    assert!(matches!(
        Flash::new(config(true), image, &space),
        Err(FlashError::TooLarge { .. })
    ));
    let odd = Config {
        size: SMALL + 1,
        ..config(true)
    };
    assert!(matches!(
        Flash::new(odd, Image::Blank, &space),
        Err(FlashError::BadSize(_))
    ));
}

#[test]
fn a_failing_host_is_a_failing_write() {
    struct Broken;
    impl Backing for Broken {
        fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }
    let contents = vec![0xff; SMALL as usize];
    let b = bench_of(
        Image::Drive {
            contents,
            backing: Some(Arc::new(Broken)),
        },
        false,
    );
    b.both(0, PROGRAM);
    b.write(0, 0);
    assert_eq!(b.read(0), 0x0090_0090);
    b.both(0, CLEAR_STATUS);
    b.erase(0);
    assert_eq!(b.read(0), 0x00a0_00a0);
}

#[test]
fn memory_is_aligned_for_every_host() {
    assert_eq!(bench().flash.rom().host as usize % (16 << 10), 0);
}

#[test]
fn a_snapshot_goes_on_inside_of_a_buffer() {
    let b = bench();
    b.erase(0);
    b.both(0, WRITE_TO_BUFFER);
    b.write(0, 0x0001_0001);
    b.write(0, 1);
    let saved = serde_json::to_string(&b.flash.save()).unwrap();
    let other = bench();
    other.flash.set_contents(&b.flash.contents()).unwrap();
    other.flash.restore(serde_json::from_str(&saved).unwrap());
    other.write(4, 2);
    other.both(0, CONFIRM);
    other.both(0, READ_ARRAY);
    assert_eq!(
        [other.read(0), other.read(4), other.read(8)],
        [1, 2, u32::MAX]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn survives_anything(
        steps in prop::collection::vec((0u64..SMALL, 0usize..4, any::<u64>(), 0u8..16), 1..120)
    ) {
        const COMMANDS: [u8; 13] = [
            READ_ARRAY, READ_IDENTIFIER, READ_QUERY, READ_STATUS, CLEAR_STATUS, PROGRAM, WRITE_TO_BUFFER,
            BLOCK_ERASE, CONFIRM, SUSPEND, LOCK_SETUP, LOCK, PROTECTION_PROGRAM,
        ];
        let b = bench();
        for (offset, width, value, kind) in steps {
            let access = Access::new(offset, 1 << width);
            match kind {
                0..3 => drop(b.flash.read(access)),
                3 => b.flash.write(access, value & access.mask()),
                4..8 => b.flash.write(access, value & 0x0003_0003 & access.mask()),
                _ => {
                    let command = COMMANDS[(value % 13) as usize];
                    b.both(offset & !3, command);
                }
            }
            let array = b.flash.save().chips.iter().all(Chip::reads_array);
            prop_assert_eq!(b.flash.array_mode.load(Ordering::SeqCst), array);
        }
    }
}
