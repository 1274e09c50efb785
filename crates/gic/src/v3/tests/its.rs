//! LPIs and the ITS.

use super::*;

pub const QUEUE: u64 = RAM + 0x1_0000;
pub const DEVICES: u64 = RAM + 0x2_0000;
pub const COLLECTIONS: u64 = RAM + 0x3_0000;
pub const PROPERTIES: u64 = RAM + 0x4_0000;
pub const PENDING: u64 = RAM + 0x10_0000;
pub const ITT: u64 = RAM + 0x20_0000;

pub fn its_board(cpus: u32) -> Board {
    let b = Board::ready(cpus, true);
    open_its(&b, cpus);
    b
}

/// Tables and the command queue in place, LPIs and the ITS enabled.
pub fn open_its(b: &Board, cpus: u32) {
    for cpu in 0..cpus {
        b.w64(b.rd(cpu) + gicr::PROPBASER, PROPERTIES | 15);
        b.w64(
            b.rd(cpu) + gicr::PENDBASER,
            (PENDING + 0x1_0000 * u64::from(cpu)) | 1 << 62,
        );
        b.w(b.rd(cpu), 1);
    }
    b.w64(GITS + gits::BASER, gits::BASER_VALID | DEVICES);
    b.w64(GITS + gits::BASER + 8, gits::BASER_VALID | COLLECTIONS);
    b.w64(GITS + gits::CBASER, gits::CBASER_VALID | QUEUE | 0xf);
    b.w64(GITS + gits::CWRITER, 0);
    b.w(GITS, 1);
}

impl Board {
    pub fn commands(&self, commands: &[[u64; 4]]) {
        let mut at = self.r64(GITS + gits::CWRITER);
        for command in commands {
            for (i, word) in command.iter().enumerate() {
                self.dma
                    .write_u64(QUEUE + at + 8 * i as u64, *word)
                    .unwrap();
            }
            at = (at + 32) % 0x1_0000;
        }
        self.w64(GITS + gits::CWRITER, at);
        assert_eq!(self.r64(GITS + gits::CREADR), at, "all done");
    }

    pub fn property(&self, lpi: u64, byte: u8) {
        self.dma.write(PROPERTIES + lpi - 8192, &[byte]).unwrap();
    }

    pub fn signal(&self, device: u32, event: u32) {
        self.gic.msi(Msi {
            address: GITS + gits::TRANSLATER,
            data: event,
            device,
        });
    }
}

pub fn mapd(device: u64, bits: u64, table: u64) -> [u64; 4] {
    [device << 32 | 8, bits - 1, 1 << 63 | table, 0]
}
pub fn mapc(collection: u64, cpu: u64) -> [u64; 4] {
    [9, 0, 1 << 63 | cpu << 16 | collection, 0]
}
pub fn mapti(device: u64, event: u64, lpi: u64, collection: u64) -> [u64; 4] {
    [device << 32 | 0xa, lpi << 32 | event, collection, 0]
}
pub fn event(command: u64, device: u64, event: u64) -> [u64; 4] {
    [device << 32 | command, event, 0, 0]
}

#[test]
fn lpi_from_message_to_end() {
    let b = its_board(4);
    b.property(8200, 0xa1);
    b.commands(&[
        mapd(0x10, 5, ITT),
        mapc(3, 2),
        mapti(0x10, 4, 8200, 3),
        [5, 0, 2 << 16, 0],
    ]);
    b.signal(0x10, 5);
    b.signal(0x11, 4);
    b.signal(0x10, 32);
    b.gic.msi(Msi {
        address: GITS + 0x40,
        data: 4,
        device: 0x10,
    });
    assert!((0..4).all(|cpu| !b.irq(cpu)));
    b.signal(0x10, 4);
    assert!(b.irq(2));
    assert_eq!(b.get(2, IAR1_EL1), 8200);
    assert_eq!(b.get(2, RPR_EL1), 0xa0);
    assert!(!b.irq(2));
    b.signal(0x10, 4);
    assert!(!b.irq(2), "masked by the running priority");
    b.set(2, EOIR1_EL1, 8200);
    assert!(b.irq(2), "LPIs have no active state, but pend again");
    // MOVI takes the pending state along.
    b.commands(&[mapc(1, 3), [0x10 << 32 | 1, 4, 1, 0]]);
    assert!(!b.irq(2) && b.irq(3));
    // MOVALL too.
    b.commands(&[[0xe, 0, 3 << 16, 0]]);
    assert!(b.irq(0) && !b.irq(3));
    b.commands(&[[0xe, 0, 0, 3 << 16]]);
    // CLEAR, INT, DISCARD.
    b.commands(&[event(4, 0x10, 4)]);
    assert!(!b.irq(3));
    b.commands(&[event(3, 0x10, 4)]);
    assert!(b.irq(3));
    b.commands(&[event(0xf, 0x10, 4)]);
    assert!(!b.irq(3));
    b.signal(0x10, 4);
    assert!(!b.irq(3));
    // An unmapped device.
    b.commands(&[mapti(0x10, 4, 8200, 3), [0x10 << 32 | 8, 0, 0, 0]]);
    b.signal(0x10, 4);
    assert!(!b.irq(2));
}

#[test]
fn lpi_configuration_changes_with_inv() {
    let b = its_board(1);
    b.property(8192, 0x80);
    b.commands(&[mapd(0, 1, ITT), mapc(0, 0), mapti(0, 0, 8192, 0)]);
    b.signal(0, 0);
    assert!(!b.irq(0), "disabled");
    b.property(8192, 0x81);
    assert!(!b.irq(0), "the old configuration holds until INV");
    b.commands(&[event(0xc, 0, 0)]);
    assert!(b.irq(0), "it was pending all along");
    b.property(8192, 0x80);
    b.commands(&[[0xd, 0, 0, 0]]);
    assert!(!b.irq(0), "INVALL disables it");
    b.property(8192, 0x41);
    b.commands(&[[0xd, 0, 0, 0]]);
    assert_eq!(b.get(0, IAR1_EL1), 8192);
    assert_eq!(b.get(0, RPR_EL1), 0x40);
}

#[test]
fn pending_table_is_written_and_read() {
    let b = its_board(1);
    b.property(8201, 0xa1);
    b.commands(&[mapd(0, 5, ITT), mapc(0, 0), mapti(0, 0, 8201, 0)]);
    b.signal(0, 0);
    b.w(GICR, 0);
    assert_eq!(b.r(GICR), 2);
    assert!(!b.irq(0));
    let mut byte = [0];
    b.dma.read(PENDING + 8201 / 8, &mut byte).unwrap();
    assert_eq!(byte, [1 << 1]);
    b.w(GICR, 1);
    assert!(b.irq(0), "the table says so");
    assert_eq!(b.get(0, IAR1_EL1), 8201);
    b.set(0, EOIR1_EL1, 8201);
    b.w(GICR, 0);
    b.w64(GICR + gicr::PENDBASER, PENDING | 1 << 62);
    assert_eq!(b.r64(GICR + gicr::PENDBASER), PENDING, "PTZ is write-only");
    b.dma.write(PENDING + 8201 / 8, &[0xff]).unwrap();
    b.w(GICR, 1);
    assert!(!b.irq(0), "PTZ: the table is taken to be zero");
}

#[test]
fn two_level_device_table() {
    let b = Board::ready(1, true);
    b.w64(GICR + gicr::PROPBASER, PROPERTIES | 15);
    b.w64(GICR + gicr::PENDBASER, PENDING | 1 << 62);
    b.w(GICR, 1);
    // Pages of 4 KiB: 512 devices each. Only the second is there.
    b.w64(
        GITS + gits::BASER,
        gits::BASER_VALID | gits::BASER_INDIRECT | DEVICES,
    );
    b.w64(GITS + gits::BASER + 8, gits::BASER_VALID | COLLECTIONS);
    b.w64(GITS + gits::CBASER, gits::CBASER_VALID | QUEUE | 0xf);
    b.w(GITS, 1);
    b.dma
        .write_u64(DEVICES + 8, 1 << 63 | (DEVICES + 0x1000))
        .unwrap();
    b.property(9000, 0xa1);
    b.commands(&[
        mapd(5, 5, ITT),
        mapd(0x200, 5, ITT),
        mapc(0, 0),
        mapti(5, 0, 9000, 0),
        mapti(0x200, 1, 9000, 0),
        mapd(0xffff, 5, ITT),
    ]);
    assert_ne!(b.dma.read_u64(DEVICES + 0x1000), Ok(0));
    b.signal(5, 0);
    b.signal(0xffff, 0);
    assert!(!b.irq(0));
    b.signal(0x200, 1);
    assert!(b.irq(0));
}

#[test]
fn queue_wraps_and_stalls() {
    let b = its_board(1);
    for i in 0..5000 {
        b.commands(&[mapc(i % 512, 0)]);
    }
    b.w(GITS, 0);
    b.w64(GITS + gits::CBASER, gits::CBASER_VALID | 0x1_0000 | 0xf);
    b.w64(GITS + gits::CWRITER, 32);
    b.w(GITS, 1);
    assert_eq!(b.r64(GITS + gits::CREADR), 1, "stalled: no memory there");
    assert_eq!(b.r(GITS) >> 31, 1);
    b.w64(GITS + gits::CWRITER, 33);
    assert_eq!(b.r64(GITS + gits::CREADR), 1, "and again");
    b.w64(GITS + gits::CWRITER, 0xf_ffe0);
    assert_eq!(b.r64(GITS + gits::CREADR), 1);
}

#[test]
fn a_costly_queue_goes_on_with_the_next_look() {
    let b = its_board(1);
    b.commands(&[mapc(0, 0)]);
    b.w(GICR, 0);
    b.dma.fill(PENDING + 1024, 7168, 0xff).unwrap();
    b.w64(GICR + gicr::PENDBASER, PENDING);
    b.w(GICR, 1);
    for i in 0..255 {
        for (j, word) in [0xd, 0, 0, 0].into_iter().enumerate() {
            b.dma
                .write_u64(QUEUE + 32 * (1 + i) + 8 * j as u64, word)
                .unwrap();
        }
    }
    b.w64(GITS + gits::CWRITER, 32 * 256);
    let mut looks = 0;
    while b.r64(GITS + gits::CREADR) != 32 * 256 {
        looks += 1;
        assert!(looks < 2000);
    }
    assert!(looks > 1, "the budget bounds what one access does");
}
