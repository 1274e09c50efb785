use super::*;
use memory::Ram;
use proptest::prelude::*;

const BASE: u64 = 0x4000_0000;

struct Bench {
    fw: Arc<FwCfg>,
    ram: Dma,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

fn bench() -> Bench {
    let ram = Ram::new(&[(BASE, 0x10000)]).unwrap().dma();
    let fw = FwCfg::new("fw_cfg", ram.clone());
    fw.set_item(key::CPUS, 4u16.to_le_bytes()).unwrap();
    fw.add_file("opt/z", *b"last").unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    fw.add_writable_file("etc/ramfb", [0; 4], move |c| record.lock().push(c.to_vec()))
        .unwrap();
    fw.add_file("bootorder", *b"/pci@0\0").unwrap();
    Bench { fw, ram, seen }
}

impl Bench {
    fn select(&self, key: u16) {
        self.fw
            .write(Access::new(SELECTOR, 2), key.swap_bytes().into());
    }

    fn bytes(&self, n: usize) -> Vec<u8> {
        (0..n)
            .map(|_| self.fw.read(Access::new(DATA, 1)) as u8)
            .collect()
    }

    /// Runs a descriptor, its buffer at `BASE + 0x100`; the control word afterwards.
    fn dma(&self, control: u32, length: u32, buffer: u64) -> u32 {
        let mut d = control.to_be_bytes().to_vec();
        d.extend(length.to_be_bytes());
        d.extend(buffer.to_be_bytes());
        self.ram.write(BASE, &d).unwrap();
        self.fw.write(Access::new(DMA, 4), 0);
        self.fw
            .write(Access::new(DMA + 4, 4), (BASE as u32).swap_bytes().into());
        self.ram.read_u32(BASE).unwrap().swap_bytes()
    }
}

#[test]
fn gives_items_and_a_sorted_directory() {
    let b = bench();
    assert_eq!(b.bytes(6), b"QEMU\0\0");
    b.select(key::FEATURES);
    assert_eq!(b.fw.read(Access::new(DATA, 4)), 3);
    b.select(key::CPUS);
    assert_eq!(b.fw.read(Access::new(DATA, 8)), 4);
    b.select(key::FILE_DIRECTORY);
    assert_eq!(b.bytes(4), [0, 0, 0, 3]);
    for (i, (name, size)) in [("bootorder", 7), ("etc/ramfb", 4), ("opt/z", 4)]
        .iter()
        .enumerate()
    {
        let entry = b.bytes(64);
        assert_eq!(entry[..4], u32::to_be_bytes(*size));
        assert_eq!(entry[4..8], [0, 0x20 + i as u8, 0, 0]);
        assert_eq!(&entry[8..8 + name.len()], name.as_bytes());
        assert_eq!(entry[8 + name.len()], 0);
    }
    b.select(0x22);
    assert_eq!(
        b.fw.read(Access::new(DATA, 2)),
        u64::from(u16::from_le_bytes(*b"la"))
    );
    assert_eq!(b.bytes(3), b"st\0");
    b.select(0x3fff);
    assert_eq!(b.bytes(2), [0, 0]);
}

#[test]
fn the_dma_register_tells_its_presence() {
    let b = bench();
    assert_eq!(b.fw.read(Access::new(DMA, 8)), 0x4746_4320_554d_4551);
    assert_eq!(b.fw.read(Access::new(DMA, 4)), 0x554d_4551);
    assert_eq!(b.fw.read(Access::new(DMA + 4, 4)), 0x4746_4320);
}

#[test]
fn dma_selects_skips_reads_and_pads() {
    let b = bench();
    b.ram.fill(BASE + 0x100, 16, 0xee).unwrap();
    assert_eq!(b.dma(0x22 << 16 | CONTROL_SELECT | CONTROL_SKIP, 2, 0), 0);
    assert_eq!(b.dma(CONTROL_READ, 4, BASE + 0x100), 0);
    let mut got = [0; 5];
    b.ram.read(BASE + 0x100, &mut got).unwrap();
    assert_eq!(got, *b"st\0\0\xee");
    assert_eq!(b.dma(CONTROL_READ, 4, 0), CONTROL_ERROR);
    assert_eq!(b.dma(CONTROL_READ, u32::MAX, BASE + 0x100), CONTROL_ERROR);
    // One 64-bit write starts a transfer as well.
    let mut d = (0x22 << 16 | CONTROL_SELECT | CONTROL_READ)
        .to_be_bytes()
        .to_vec();
    d.extend(4u32.to_be_bytes());
    d.extend((BASE + 0x200).to_be_bytes());
    b.ram.write(BASE, &d).unwrap();
    b.fw.write(Access::new(DMA, 8), BASE.swap_bytes());
    assert_eq!(
        b.ram.read_u32(BASE + 0x200).unwrap(),
        u32::from_le_bytes(*b"last")
    );
}

#[test]
fn writes_reach_the_owner_and_are_forgotten_by_a_reset() {
    let b = bench();
    b.ram.write(BASE + 0x100, b"abcd").unwrap();
    let select = 0x21 << 16 | CONTROL_SELECT;
    assert_eq!(b.dma(select | CONTROL_WRITE, 4, BASE + 0x100), 0);
    assert_eq!(b.dma(select | CONTROL_SKIP, 3, 0), 0);
    assert_eq!(b.dma(CONTROL_WRITE, 1, BASE + 0x100), 0);
    assert_eq!(
        b.dma(CONTROL_WRITE, 1, BASE + 0x100),
        CONTROL_ERROR,
        "past the end"
    );
    assert_eq!(
        b.dma(0x22 << 16 | CONTROL_SELECT | CONTROL_WRITE, 4, BASE + 0x100),
        CONTROL_ERROR
    );
    assert_eq!(*b.seen.lock(), [b"abcd".to_vec(), b"abca".to_vec()]);
    b.select(0x21);
    assert_eq!(b.bytes(4), b"abca");
    let saved = b.fw.save();
    b.fw.reset();
    b.select(0x21);
    assert_eq!(b.bytes(4), [0; 4]);
    b.fw.restore(saved);
    b.select(0x21);
    assert_eq!(b.bytes(4), b"abca");
}

#[test]
fn refuses_what_cannot_be_a_file() {
    let b = bench();
    assert_eq!(
        b.fw.add_file("opt/z", []),
        Err(ItemError::Duplicate("opt/z".into()))
    );
    assert!(matches!(
        b.fw.add_file(&"x".repeat(56), []),
        Err(ItemError::NameTooLong(_))
    ));
    assert!(b.fw.add_file(&"x".repeat(55), []).is_ok());
    assert!(matches!(b.fw.add_file("", []), Err(ItemError::BadName(_))));
    assert!(matches!(
        b.fw.set_item(key::FILE_DIRECTORY, []),
        Err(ItemError::BadKey(_))
    ));
    assert!(matches!(
        b.fw.replace_file("no", []),
        Err(ItemError::Missing(_))
    ));
    b.fw.replace_file("opt/z", *b"longer now").unwrap();
    b.select(0x22);
    assert_eq!(b.bytes(10), b"longer now");
}

proptest! {
    #[test]
    fn survives_anything(
        steps in prop::collection::vec((0u64..0x18, 0usize..4, any::<u64>(), 0u8..4), 1..100)
    ) {
        let b = bench();
        for (offset, width, value, kind) in steps {
            let access = Access::new(offset, 1 << width);
            match kind {
                0 => drop(b.fw.read(access)),
                1 => b.fw.write(access, value & access.mask()),
                2 => {
                    b.dma(value as u32 & 0x3f_ffff, (value >> 32) as u32 & 0xff, BASE + (value >> 40 & 0xffff));
                }
                _ => b.select((value & 0x3f) as u16),
            }
            prop_assert!(b.fw.save().written.values().all(|c| c.len() == 4));
        }
    }
}
