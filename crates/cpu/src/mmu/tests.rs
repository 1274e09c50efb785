use std::sync::Arc;

use memory::{Mapping, Ram};

use super::*;
use crate::core::tests::core;
use crate::features::Features;

const BASE: u64 = 0x4000_0000;

struct Tables {
    ram: Ram,
    space: AddressSpace,
    core: Core,
    next: u64,
    granule_bits: u32,
}

impl Tables {
    /// MMU on, both halves of `bits` bits, tables at the start of RAM.
    fn new(granule_bits: u32, bits: u32) -> Tables {
        let ram = Ram::new(&[(BASE, 0x40_0000)]).unwrap();
        let space = AddressSpace::new();
        for (start, size, host) in ram.ranges() {
            space
                .map(
                    start,
                    size,
                    Mapping::Ram {
                        host: host as usize,
                    },
                )
                .unwrap();
        }
        let mut core = core("max");
        let (tg0, tg1) = match granule_bits {
            12 => (0u64, 2u64),
            14 => (2, 1),
            _ => (1, 3),
        };
        let size = u64::from(64 - bits);
        core.state.tcr[1] = size | size << 16 | tg0 << 14 | tg1 << 30 | 5 << 32;
        core.state.sctlr[1] |= 1;
        core.state.mair[1] = 0xff;
        let root = BASE;
        core.state.ttbr0[1] = root;
        core.state.ttbr1[1] = root;
        let next = BASE + (1 << granule_bits);
        Tables {
            ram,
            space,
            core,
            next,
            granule_bits,
        }
    }

    fn slot(&self, table: u64, address: u64, bits: u32, level: u32) -> u64 {
        let stride = self.granule_bits - 3;
        let shift = self.granule_bits + (3 - level) * stride;
        let input = address & ((1 << bits) - 1);
        table + (input >> shift & ((1 << stride) - 1)) * 8
    }

    /// Maps the page or block (at `leaf_level`) of `address` with `descriptor`'s address and attributes.
    fn map(&mut self, address: u64, bits: u32, leaf_level: u32, descriptor: u64) -> u64 {
        let stride = self.granule_bits - 3;
        let start = 4 - (bits - self.granule_bits).div_ceil(stride);
        let mut table = self.core.state.ttbr0[1] & descriptor::ADDRESS;
        for level in start..leaf_level {
            let at = self.slot(table, address, bits, level);
            let dma = self.ram.dma();
            let mut entry = dma.read_u64(at).unwrap();
            if entry == 0 {
                entry = self.next | 3;
                self.next += 1 << self.granule_bits;
                dma.write_u64(at, entry).unwrap();
            }
            table = entry & descriptor::ADDRESS;
        }
        let at = self.slot(table, address, bits, leaf_level);
        let kind = if leaf_level == 3 { 3 } else { 1 };
        self.ram.dma().write_u64(at, descriptor | kind).unwrap();
        at
    }

    fn at(&self, address: u64, purpose: Purpose) -> Result<Translation, Fault> {
        self.core.translate(
            &self.space,
            address,
            Request {
                purpose,
                el0: false,
                pan: false,
                misaligned: false,
            },
        )
    }

    fn el0(&self, address: u64, purpose: Purpose) -> Result<Translation, Fault> {
        self.core.translate(
            &self.space,
            address,
            Request {
                purpose,
                el0: true,
                pan: false,
                misaligned: false,
            },
        )
    }
}

fn fault(code: u32, level: u32) -> Fault {
    Fault {
        status: code | level,
    }
}

#[test]
fn each_granule_and_size_walks() {
    for granule in [12u32, 14, 16] {
        for bits in [25, 32, 36, 39, 42, 47, 48] {
            if granule == 16 && bits == 25 {
                continue;
            }
            let mut t = Tables::new(granule, bits);
            let page = 1u64 << granule;
            let address = (1 << (bits - 1)) + 5 * page;
            t.map(address, bits, 3, 0x12_3450_0000 | descriptor::AF);
            let found = t.at(address + 0x123, Purpose::Read).unwrap();
            assert_eq!(found.physical, 0x12_3450_0123, "{granule} {bits}");
            assert_eq!(u32::from(found.block_bits), granule);
            // The same tables in the upper half.
            let upper = address | u64::MAX << bits;
            assert_eq!(t.at(upper, Purpose::Read).unwrap().physical, 0x12_3450_0000);
            assert_eq!(
                t.at(address + page, Purpose::Read),
                Err(fault(status::TRANSLATION, 3))
            );
            // Out of range: level 0.
            assert_eq!(
                t.at(address | 1 << bits, Purpose::Read),
                Err(fault(status::TRANSLATION, 0))
            );
            assert_eq!(
                t.at(upper ^ 1 << 56, Purpose::Read),
                Err(fault(status::TRANSLATION, 0))
            );
        }
    }
}

#[test]
fn blocks() {
    let mut t = Tables::new(12, 39);
    t.map(0x4000_0000, 39, 1, 0x80_0000_0000 | descriptor::AF);
    t.map(0x20_0000, 39, 2, 0x1_0020_0000 | descriptor::AF);
    assert_eq!(
        t.at(0x4123_4567, Purpose::Read).unwrap().physical,
        0x80_0123_4567
    );
    let two = t.at(0x21_2345, Purpose::Read).unwrap();
    assert_eq!((two.physical, two.block_bits), (0x1_0021_2345, 21));
    // A level 3 entry must say page.
    let at = t.map(0x1000, 39, 3, 0x1000 | descriptor::AF);
    t.ram
        .dma()
        .write_u64(at, 0x1000 | descriptor::AF | 1)
        .unwrap();
    assert_eq!(
        t.at(0x1000, Purpose::Read),
        Err(fault(status::TRANSLATION, 3))
    );
    // 64 KiB granules have no block at level 1.
    let mut t = Tables::new(16, 48);
    t.map(0, 48, 1, descriptor::AF);
    assert_eq!(t.at(0, Purpose::Read), Err(fault(status::TRANSLATION, 1)));
    t.map(1 << 42, 48, 2, 0x2000_0000 | descriptor::AF);
    assert_eq!(
        t.at((1 << 42) + 0x1234_5678, Purpose::Read)
            .unwrap()
            .physical,
        0x3234_5678
    );
    let mut t = Tables::new(14, 47);
    t.map(0, 47, 2, 0x1_0200_0000 | descriptor::AF);
    assert_eq!(
        t.at(0x123_4567, Purpose::Read).unwrap().physical,
        0x1_0323_4567
    );
}

#[test]
fn permissions_follow_the_table() {
    use descriptor as d;
    let mut t = Tables::new(12, 39);
    // (descriptor, EL0 rwx, EL1 rwx)
    let cases = [
        (0, "--x", "rwx"),
        (d::USER, "rwx", "rw-"),
        (d::READ_ONLY, "--x", "r-x"),
        (d::READ_ONLY | d::USER, "r-x", "r-x"),
        (d::UXN, "---", "rwx"),
        (d::PXN | d::UXN | d::USER, "rw-", "rw-"),
        (d::PXN | d::READ_ONLY | d::USER, "r-x", "r--"),
    ];
    let text = |p: Permissions| {
        let c = |on, c| if on { c } else { '-' };
        [c(p.read, 'r'), c(p.write, 'w'), c(p.execute, 'x')]
            .iter()
            .collect::<String>()
    };
    for (bits, el0, el1) in cases {
        t.map(0x5000, 39, 3, 0x5000 | d::AF | bits);
        let found = t.at(0x5000, Purpose::Read).unwrap();
        assert_eq!(text(found.el0), el0, "{bits:#x}");
        assert_eq!(text(found.el1), el1, "{bits:#x}");
        let check = |who: &str, c: char| who.contains(c);
        for (purpose, c) in [
            (Purpose::Read, 'r'),
            (Purpose::Write, 'w'),
            (Purpose::Execute, 'x'),
        ] {
            let denied = Err(fault(status::PERMISSION, 3));
            assert_eq!(t.el0(0x5000, purpose).is_ok(), check(el0, c));
            assert_eq!(t.at(0x5000, purpose).is_ok(), check(el1, c));
            if !check(el0, c) {
                assert_eq!(t.el0(0x5000, purpose), denied);
            }
        }
    }
    // WXN takes execution from what is writable.
    t.core.state.sctlr[1] |= SCTLR_WXN;
    t.map(0x5000, 39, 3, 0x5000 | d::AF);
    assert_eq!(text(t.at(0x5000, Purpose::Read).unwrap().el1), "rw-");
    t.map(0x5000, 39, 3, 0x5000 | d::AF | d::USER);
    assert_eq!(text(t.at(0x5000, Purpose::Read).unwrap().el0), "rw-");
    // PAN: no data of EL0's, by EL1.
    let pan = Request {
        purpose: Purpose::Read,
        el0: false,
        pan: true,
        misaligned: false,
    };
    assert_eq!(
        t.core.translate(&t.space, 0x5000, pan),
        Err(fault(status::PERMISSION, 3))
    );
}

#[test]
fn tables_restrict_unless_hierarchy_is_disabled() {
    use descriptor as d;
    let mut t = Tables::new(12, 39);
    t.map(0x5000, 39, 3, 0x5000 | d::AF | d::USER);
    let at = t.slot(t.core.state.ttbr0[1], 0x5000, 39, 1);
    let entry = t.ram.dma().read_u64(at).unwrap();
    let limits = d::READ_ONLY_TABLE | d::NO_USER_TABLE | d::PXN_TABLE;
    t.ram.dma().write_u64(at, entry | limits).unwrap();
    let found = t.at(0x5000, Purpose::Read).unwrap();
    assert!(!found.user && !found.el1.write && !found.el1.execute && !found.el0.read);
    assert_eq!(
        t.at(0x5000, Purpose::Write),
        Err(fault(status::PERMISSION, 3))
    );
    t.core.state.tcr[1] |= 1 << 41;
    let found = t.at(0x5000, Purpose::Write).unwrap();
    assert!(found.user && found.el0.write);
}

#[test]
fn access_flag_and_dirty_state() {
    use descriptor as d;
    let mut t = Tables::new(12, 39);
    let at = t.map(0x5000, 39, 3, 0x5000 | d::DBM | d::READ_ONLY);
    let read = |t: &Tables| t.ram.dma().read_u64(at).unwrap();
    assert_eq!(
        t.at(0x5000, Purpose::Read),
        Err(fault(status::ACCESS_FLAG, 3))
    );
    t.core.state.tcr[1] |= 1 << tcr::HA;
    // AT leaves memory as it is.
    let request = Request {
        purpose: Purpose::Read,
        el0: false,
        pan: false,
        misaligned: false,
    };
    assert!(t.core.probe(&t.space, 0x5000, request).is_ok());
    assert_eq!(read(&t) & d::AF, 0);
    assert!(t.at(0x5000, Purpose::Read).is_ok());
    assert_ne!(read(&t) & d::AF, 0);
    assert_eq!(
        t.at(0x5000, Purpose::Write),
        Err(fault(status::PERMISSION, 3))
    );
    t.core.state.tcr[1] |= 1 << tcr::HD;
    // Clean: the write permission is withheld until a write.
    assert!(!t.at(0x5000, Purpose::Read).unwrap().el1.write);
    assert_ne!(read(&t) & d::READ_ONLY, 0);
    assert!(t.at(0x5000, Purpose::ReadWrite).unwrap().el1.write);
    assert_eq!(read(&t) & d::READ_ONLY, 0);
    // A model without it ignores the controls.
    t.core.features = Arc::new(Features::model("cortex-a57").unwrap());
    t.map(0x5000, 39, 3, 0x5000);
    assert_eq!(
        t.at(0x5000, Purpose::Read),
        Err(fault(status::ACCESS_FLAG, 3))
    );
}

#[test]
fn top_bytes_and_halves() {
    use descriptor as d;
    let mut t = Tables::new(12, 39);
    t.map(0x5000, 39, 3, 0x5000 | d::AF | d::USER);
    let tagged = 0xab << 56 | 0x5000;
    assert_eq!(
        t.at(tagged, Purpose::Read),
        Err(fault(status::TRANSLATION, 0))
    );
    t.core.state.tcr[1] |= 1 << 37;
    assert_eq!(t.at(tagged, Purpose::Read).unwrap().physical, 0x5000);
    assert!(t.el0(tagged, Purpose::Execute).is_ok());
    // TBID0: not of instruction addresses.
    t.core.state.tcr[1] |= 1 << 51;
    assert_eq!(
        t.el0(tagged, Purpose::Execute),
        Err(fault(status::TRANSLATION, 0))
    );
    assert!(t.el0(tagged, Purpose::Read).is_ok());
    // E0PD0, EPD0.
    t.core.state.tcr[1] |= 1 << 55;
    assert_eq!(
        t.el0(0x5000, Purpose::Read),
        Err(fault(status::TRANSLATION, 0))
    );
    assert!(t.at(0x5000, Purpose::Read).is_ok());
    t.core.state.tcr[1] |= 1 << 7;
    assert_eq!(
        t.at(0x5000, Purpose::Read),
        Err(fault(status::TRANSLATION, 0))
    );
}

#[test]
fn sizes_of_addresses() {
    use descriptor as d;
    let mut t = Tables::new(12, 39);
    t.map(0x5000, 39, 3, 0x1000_0000_5000 | d::AF);
    assert!(t.at(0x5000, Purpose::Read).is_ok());
    t.core.state.tcr[1] &= !(7 << 32);
    t.core.state.tcr[1] |= 2 << 32; // 40 bits
    assert_eq!(
        t.at(0x5000, Purpose::Read),
        Err(fault(status::ADDRESS_SIZE, 3))
    );
    t.core.state.ttbr0[1] = 1 << 44;
    assert_eq!(
        t.at(0x5000, Purpose::Read),
        Err(fault(status::ADDRESS_SIZE, 0))
    );
    // Tables where nothing is.
    t.core.state.ttbr0[1] = 1 << 36;
    assert_eq!(
        t.at(0x5000, Purpose::Read),
        Err(fault(status::EXTERNAL_ON_WALK, 1))
    );
    // MMU off: physical, Device, and no larger than PARange.
    t.core.state.sctlr[1] &= !1;
    let found = t.at(0x5000, Purpose::Write).unwrap();
    assert_eq!((found.physical, found.memory), (0x5000, MemoryType::Device));
    assert_eq!(
        t.at(1 << 48, Purpose::Read),
        Err(fault(status::ADDRESS_SIZE, 0))
    );
}

/// Random tables, controls and addresses: no panic, and every walk ends.
#[test]
fn survives_anything() {
    let mut t = Tables::new(12, 39);
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    for i in 0..4096 {
        let value = if i % 3 == 0 {
            random()
        } else {
            BASE | random() & 0x3f_f000 | 3
        };
        t.ram.dma().write_u64(BASE + i * 8, value).unwrap();
    }
    let mut hits = 0;
    for _ in 0..200_000 {
        t.core.state.tcr[1] = random();
        t.core.state.sctlr[1] = random() | u64::from(random() & 7 != 0);
        let table = BASE | random() & 0x7fff;
        t.core.state.ttbr0[1] = if random() & 1 == 0 { random() } else { table };
        t.core.state.ttbr1[1] = table;
        let mut address = random() >> (random() & 63);
        if random() & 1 == 0 {
            address = !address;
        }
        let purpose = [
            Purpose::Read,
            Purpose::Write,
            Purpose::ReadWrite,
            Purpose::Execute,
        ][(random() & 3) as usize];
        let request = Request {
            purpose,
            el0: random() & 1 == 0,
            pan: random() & 1 == 0,
            misaligned: false,
        };
        hits += u32::from(t.core.translate(&t.space, address, request).is_ok());
    }
    assert!(hits > 100);
}

#[test]
fn misaligned_accesses_of_devices_are_that_before_they_are_forbidden() {
    let mut t = Tables::new(12, 39);
    t.core.state.mair[1] = 0x04ff;
    let (device, normal) = (0x1000, 0x2000);
    let attributes = descriptor::AF | descriptor::READ_ONLY;
    t.map(device, 39, 3, 0x1000 | attributes | 1 << 2);
    t.map(normal, 39, 3, 0x2000 | attributes);
    let write = |t: &Tables, address: u64, misaligned: bool| {
        let request = Request {
            purpose: Purpose::Write,
            el0: false,
            pan: false,
            misaligned,
        };
        t.core.translate(&t.space, address, request).unwrap_err()
    };
    assert_eq!(write(&t, device + 1, true).status, status::ALIGNMENT);
    assert_eq!(write(&t, device, false), fault(status::PERMISSION, 3));
    assert_eq!(write(&t, normal + 1, true), fault(status::PERMISSION, 3));
}
