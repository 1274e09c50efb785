use super::*;

const DISK: Medium = Medium {
    blocks: 1000,
    block_size: 512,
    read_only: false,
};
const DISC: Medium = Medium {
    blocks: 500,
    block_size: 2048,
    read_only: true,
};

fn config(kind: Kind) -> Config {
    Config {
        kind,
        removable: false,
        serial: "S1".into(),
        product: String::new(),
    }
}

/// A unit past its first unit attention.
fn unit(kind: Kind) -> Unit {
    let mut unit = Unit::power_on(&config(kind));
    assert_eq!(unit.execute(&config(kind), None, 0, &[0; 16]), Action::Fail);
    assert_eq!(unit.sense, sense::POWER_ON);
    unit
}

fn cdb(bytes: &[u8]) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..bytes.len()].copy_from_slice(bytes);
    cdb
}

fn disk(u: &mut Unit, bytes: &[u8]) -> Result<Action, Sense> {
    match u.execute(&config(Kind::Disk), Some(DISK), 0, &cdb(bytes)) {
        Action::Fail => Err(u.sense),
        action => Ok(action),
    }
}

fn disc(u: &mut Unit, bytes: &[u8]) -> Result<Vec<u8>, Sense> {
    match u.execute(&config(Kind::Cdrom), Some(DISC), 0, &cdb(bytes)) {
        Action::Fail => Err(u.sense),
        Action::Reply(data) => Ok(data),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_and_writes_by_every_size() {
    let mut u = unit(Kind::Disk);
    let read = |offset, length| Ok(Action::Read { offset, length });
    assert_eq!(
        disk(&mut u, &[0x08, 0, 1, 2, 0]),
        read(0x102 * 512, 256 * 512)
    );
    assert_eq!(
        disk(&mut u, &[0x28, 0, 0, 0, 0, 9, 0, 0, 3]),
        read(9 * 512, 3 * 512)
    );
    assert_eq!(
        disk(&mut u, &[0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 3]),
        read(9 * 512, 3 * 512)
    );
    assert_eq!(
        disk(&mut u, &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3]),
        read(9 * 512, 3 * 512)
    );
    assert_eq!(
        disk(&mut u, &[0x28, 0, 0, 0, 3, 0xe8, 0, 0, 0]),
        Ok(Action::Done)
    );
    assert_eq!(
        disk(&mut u, &[0x28, 0, 0, 0, 3, 0xe7, 0, 0, 2]),
        Err(sense::LBA_OUT_OF_RANGE)
    );
    let far = [
        0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    ];
    assert_eq!(disk(&mut u, &far), Err(sense::LBA_OUT_OF_RANGE));
    let write = |flush| {
        Ok(Action::Write {
            offset: 512,
            length: 512,
            flush,
        })
    };
    assert_eq!(disk(&mut u, &[0x2a, 0, 0, 0, 0, 1, 0, 0, 1]), write(false));
    assert_eq!(disk(&mut u, &[0x2a, 8, 0, 0, 0, 1, 0, 0, 1]), write(true));
    let read_only = Medium {
        read_only: true,
        ..DISK
    };
    let action = u.execute(
        &config(Kind::Disk),
        Some(read_only),
        0,
        &cdb(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 1]),
    );
    assert_eq!((action, u.sense), (Action::Fail, sense::WRITE_PROTECTED));
    let Action::Reply(data) = u.execute(
        &config(Kind::Disk),
        Some(read_only),
        0,
        &cdb(&[0x1a, 0, 0x3f, 0, 192]),
    ) else {
        panic!()
    };
    assert_eq!(data[2] & 0x80, 0x80);
    assert_eq!(usize::from(data[0]) + 1, data.len());
    assert_eq!(disk(&mut u, &[0xff]), Err(sense::INVALID_OPERATION_CODE));
    let Ok(Action::Reply(data)) = disk(&mut u, &[3, 0, 0, 0, 18]) else {
        panic!()
    };
    assert_eq!((data[2], data[12]), (5, 0x20));
    let Ok(Action::Reply(data)) = disk(&mut u, &[3, 0, 0, 0, 18]) else {
        panic!()
    };
    assert_eq!((data[2], data[12]), (0, 0));
}

#[test]
fn the_write_cache_can_be_turned_off() {
    let mut u = unit(Kind::Disk);
    let c = config(Kind::Disk);
    let select = cdb(&[0x15, 0x10, 0, 0, 24]);
    assert_eq!(
        disk(&mut u, &select),
        Ok(Action::Parameters {
            length: 24,
            of: select
        })
    );
    let Ok(Action::Reply(mut page)) = disk(&mut u, &[0x1a, 8, 8, 0, 255]) else {
        panic!()
    };
    assert_eq!((page.len(), page[4 + 2]), (24, 4));
    page[4 + 2] = 0;
    assert_eq!(
        u.parameters(&c, Some(DISK), &select, &page),
        Action::Work(Work::Flush)
    );
    let written = disk(&mut u, &[0x2a, 0, 0, 0, 0, 1, 0, 0, 1]);
    assert_eq!(
        written,
        Ok(Action::Write {
            offset: 512,
            length: 512,
            flush: true
        })
    );
    page[4 + 3] = 1;
    assert_eq!(u.parameters(&c, Some(DISK), &select, &page), Action::Fail);
    assert_eq!(u.sense, sense::INVALID_FIELD_IN_PARAMETERS);
}

#[test]
fn unmap_and_write_same() {
    let mut u = unit(Kind::Disk);
    let c = config(Kind::Disk);
    let unmap = cdb(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24]);
    assert_eq!(
        disk(&mut u, &unmap),
        Ok(Action::Parameters {
            length: 24,
            of: unmap
        })
    );
    let mut list = vec![0; 24];
    (list[1], list[3], list[15], list[19]) = (22, 16, 8, 16);
    let done = u.parameters(&c, Some(DISK), &unmap, &list);
    assert_eq!(done, Action::Work(Work::Discard(vec![(8 * 512, 16 * 512)])));
    list[14] = 0xff;
    assert_eq!(u.parameters(&c, Some(DISK), &unmap, &list), Action::Fail);
    let same = cdb(&[0x93, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4]);
    assert_eq!(
        disk(&mut u, &same),
        Ok(Action::Parameters {
            length: 512,
            of: same
        })
    );
    let zero = Work::Zero {
        offset: 1024,
        length: 2048,
        may_unmap: true,
    };
    assert_eq!(
        u.parameters(&c, Some(DISK), &same, &[0; 512]),
        Action::Work(zero)
    );
    let fill = Work::Fill {
        offset: 1024,
        length: 2048,
        block: vec![1; 512],
    };
    assert_eq!(
        u.parameters(&c, Some(DISK), &same, &[1; 512]),
        Action::Work(fill)
    );
    assert_eq!(
        disk(&mut u, &[0x41, 0, 0, 0, 0, 0, 0, 0, 0]),
        Err(sense::INVALID_FIELD_IN_CDB)
    );
}

#[test]
fn inquiry_and_its_pages() {
    let mut u = unit(Kind::Disk);
    let Ok(Action::Reply(data)) = disk(&mut u, &[0x12, 0, 0, 0, 36]) else {
        panic!()
    };
    assert_eq!((data.len(), data[0], data[4]), (36, 0, 31));
    assert_eq!(&data[8..16], b"Dormer  ");
    let Ok(Action::Reply(list)) = disk(&mut u, &[0x12, 1, 0, 0, 255]) else {
        panic!()
    };
    for &page in &list[4..] {
        let Ok(Action::Reply(data)) = disk(&mut u, &[0x12, 1, page, 0, 255]) else {
            panic!("{page:#x}")
        };
        assert_eq!((data[1], usize::from(data[3]) + 4), (page, data.len()));
    }
    assert_eq!(
        disk(&mut u, &[0x12, 1, 0xb3, 0, 255]),
        Err(sense::INVALID_FIELD_IN_CDB)
    );
    let other = u.execute(
        &config(Kind::Disk),
        Some(DISK),
        3,
        &cdb(&[0x12, 0, 0, 0, 36]),
    );
    assert!(matches!(other, Action::Reply(data) if data[0] == 0x7f));
    assert_eq!(
        u.execute(&config(Kind::Disk), Some(DISK), 3, &[0; 16]),
        Action::Fail
    );
    assert_eq!(u.sense, sense::LOGICAL_UNIT_NOT_SUPPORTED);
}

#[test]
fn a_disc() {
    let mut u = unit(Kind::Cdrom);
    assert_eq!(disc(&mut u, &[0x25]).unwrap(), [0, 0, 1, 0xf3, 0, 0, 8, 0]);
    let toc = disc(&mut u, &[0x43, 0, 0, 0, 0, 0, 0, 0, 255]).unwrap();
    assert_eq!(
        toc,
        [
            0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 1, 0xf4
        ]
    );
    let toc = disc(&mut u, &[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 255]).unwrap();
    assert_eq!(&toc[8..], [0, 0, 8, 50]);
    assert_eq!(
        disc(&mut u, &[0x43, 0, 1, 0, 0, 0, 0, 0, 255])
            .unwrap()
            .len(),
        12
    );
    let features = disc(&mut u, &[0x46, 0, 0, 0, 0, 0, 0, 1, 0]).unwrap();
    assert_eq!(features[6..8], [0, 8]);
    let mut at = 8;
    while at < features.len() {
        at += 4 + usize::from(features[at + 3]);
        assert_eq!(at % 4, 0);
    }
    assert_eq!(at, features.len());
    assert_eq!(
        disc(&mut u, &[0x51, 0, 0, 0, 0, 0, 0, 0, 64])
            .unwrap()
            .len(),
        34
    );
    assert_eq!(
        disc(&mut u, &[0x52, 1, 0, 0, 0, 1, 0, 0, 64]).unwrap()[26..28],
        [1, 0xf4]
    );
    let caps = disc(&mut u, &[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 255]).unwrap();
    assert_eq!((caps[8], usize::from(caps[1]) + 2), (0x2a, caps.len()));
    assert_eq!(
        disc(&mut u, &[0x2a, 0, 0, 0, 0, 1, 0, 0, 1]),
        Err(sense::INVALID_OPERATION_CODE)
    );
}

#[test]
fn ejecting_locking_and_changing() {
    let mut u = unit(Kind::Cdrom);
    let c = config(Kind::Cdrom);
    let run = |u: &mut Unit, medium, bytes: &[u8]| match u.execute(&c, medium, 0, &cdb(bytes)) {
        Action::Fail => Err(u.sense),
        action => Ok(action),
    };
    let eject = [0x1b, 0, 0, 0, 2];
    run(&mut u, Some(DISC), &[0x1e, 0, 0, 0, 1]).unwrap();
    assert_eq!(
        run(&mut u, Some(DISC), &eject),
        Err(sense::MEDIUM_REMOVAL_PREVENTED)
    );
    run(&mut u, Some(DISC), &[0x1e, 0, 0, 0, 0]).unwrap();
    run(&mut u, Some(DISC), &eject).unwrap();
    assert!(!u.loaded());
    assert_eq!(
        run(&mut u, Some(DISC), &[0]),
        Err(sense::MEDIUM_NOT_PRESENT_TRAY_OPEN)
    );
    assert_eq!(
        run(&mut u, Some(DISC), &[0x25]),
        Err(sense::MEDIUM_NOT_PRESENT_TRAY_OPEN)
    );
    let poll = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8];
    let event = |u: &mut Unit| match u.execute(&c, Some(DISC), 0, &cdb(&poll)) {
        Action::Reply(data) => (data[4], data[5]),
        other => panic!("{other:?}"),
    };
    assert_eq!(event(&mut u), (3, 1));
    assert!(u.close_tray(true) && !u.close_tray(true));
    assert_eq!(event(&mut u), (2, 2));
    assert_eq!(event(&mut u), (0, 2));
    assert_eq!(u.execute(&c, Some(DISC), 0, &[0; 16]), Action::Fail);
    assert_eq!(u.sense, sense::MEDIUM_MAY_HAVE_CHANGED);
    assert_eq!(u.execute(&c, Some(DISC), 0, &[0; 16]), Action::Done);
    // The button, while the guest holds the disc.
    u.ask_to_eject();
    assert_eq!(event(&mut u), (1, 2));
    assert!(u.open_tray(true) && !u.open_tray(true));
    assert_eq!(event(&mut u), (3, 1));
    // An empty tray tells of no new medium.
    assert!(u.close_tray(false));
    assert_eq!(run(&mut u, None, &[0]), Err(sense::MEDIUM_NOT_PRESENT));
}
