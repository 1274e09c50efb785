use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// A disk in memory.
pub struct Memory {
    pub bytes: Mutex<Vec<u8>>,
    pub fail: AtomicBool,
    pub flushes: AtomicU32,
    pub read_only: bool,
}

impl Memory {
    pub fn new(size: usize) -> Arc<Memory> {
        let bytes = (0..size).map(|i| (i / 512 * 7 + i) as u8).collect();
        Arc::new(Memory {
            bytes: Mutex::new(bytes),
            fail: AtomicBool::new(false),
            flushes: AtomicU32::new(0),
            read_only: false,
        })
    }

    fn range(&self, offset: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
        if self.fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("told to fail"));
        }
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = start
            .checked_add(length)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if end > self.bytes.lock().len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(start..end)
    }
}

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let range = self.range(offset, into.len())?;
        into.copy_from_slice(&self.bytes.lock()[range]);
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let range = self.range(offset, from.len())?;
        self.bytes.lock()[range].copy_from_slice(from);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.range(offset, length as usize).map(|_| ())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> io::Result<()> {
        let range = self.range(offset, length as usize)?;
        self.bytes.lock()[range].fill(0);
        Ok(())
    }
}

pub fn config(kind: Kind) -> Config {
    let unit = scsi::Config {
        kind,
        removable: false,
        serial: "A1".into(),
        product: String::new(),
    };
    Config {
        name: String::new(),
        unit,
    }
}

/// A configured device, past its first unit attention.
fn make(disk: Arc<dyn Disk>) -> Arc<UsbStorage> {
    let device = UsbStorage::new(config(Kind::Disk), Some(disk)).unwrap();
    device.connect(Speed::Super, Notifier::default());
    assert_eq!(control(&device, [0, 9, 1, 0, 0, 0, 0, 0]), Outcome::Done);
    assert_eq!(command(&device, 0, false, &[0; 6]), Outcome::Done);
    assert_eq!(status(&device), (FAILED, 0));
    device
}

const PASSED: u8 = 0;
const FAILED: u8 = 1;
const PHASE: u8 = 2;

fn control(device: &UsbStorage, setup: [u8; 8]) -> Outcome {
    device.control(Setup::from_bytes(setup), &mut Packet::host(&mut [0; 64]))
}

/// Asks until there is an answer.
fn transfer(device: &UsbStorage, endpoint: u8, bytes: &mut [u8]) -> (Outcome, usize) {
    let start = Instant::now();
    let mut packet = Packet::host(bytes);
    loop {
        match device.transfer(endpoint, &mut packet) {
            Outcome::Nak if start.elapsed() < Duration::from_secs(20) => std::thread::yield_now(),
            outcome => return (outcome, packet.done() as usize),
        }
    }
}

fn wrapper(length: u32, to_host: bool, cdb: &[u8]) -> Vec<u8> {
    let mut cbw = b"USBC\x78\x56\x34\x12".to_vec();
    cbw.extend(length.to_le_bytes());
    cbw.extend([u8::from(to_host) << 7, 0, cdb.len() as u8]);
    cbw.extend(cdb);
    cbw.resize(31, 0);
    cbw
}

fn command(device: &UsbStorage, length: u32, to_host: bool, cdb: &[u8]) -> Outcome {
    transfer(device, OUT, &mut wrapper(length, to_host, cdb)).0
}

/// The status and the residue.
fn status(device: &UsbStorage) -> (u8, u32) {
    let mut csw = [0; 13];
    assert_eq!(transfer(device, IN, &mut csw), (Outcome::Done, 13));
    assert_eq!(&csw[..8], b"USBS\x78\x56\x34\x12");
    (
        csw[12],
        u32::from_le_bytes([csw[8], csw[9], csw[10], csw[11]]),
    )
}

fn clear(device: &UsbStorage, endpoint: u8) {
    assert_eq!(
        control(device, [2, 1, 0, 0, endpoint, 0, 0, 0]),
        Outcome::Done
    );
}

fn stalls(device: &UsbStorage, endpoint: u8, bytes: usize) {
    let mut data = vec![0; bytes];
    assert_eq!(transfer(device, endpoint, &mut data).0, Outcome::Stall);
    assert_eq!(transfer(device, endpoint, &mut data).0, Outcome::Stall);
    clear(device, endpoint);
}

fn read10(lba: u32, blocks: u16) -> Vec<u8> {
    let mut cdb = vec![0x28, 0];
    cdb.extend(lba.to_be_bytes());
    cdb.push(0);
    cdb.extend(blocks.to_be_bytes());
    cdb.push(0);
    cdb
}

fn write10(lba: u32, blocks: u16) -> Vec<u8> {
    let mut cdb = read10(lba, blocks);
    cdb[0] = 0x2a;
    cdb
}

#[test]
fn the_thirteen_cases() {
    let disk = Memory::new(1 << 20);
    let d = make(disk.clone());
    let mut data = vec![0; 4096];

    // 1: Hn = Dn.
    command(&d, 0, false, &[0; 6]);
    assert_eq!(status(&d), (PASSED, 0));
    // 2: Hn < Di. 3: Hn < Do.
    command(&d, 0, true, &read10(0, 1));
    assert_eq!(status(&d).0, PHASE);
    command(&d, 0, false, &write10(0, 1));
    assert_eq!(status(&d).0, PHASE);
    // 4: Hi > Dn.
    command(&d, 512, true, &[0; 6]);
    stalls(&d, IN, 512);
    assert_eq!(status(&d), (PASSED, 512));
    // 5: Hi > Di, with a short packet; and where the data ends with the host's transfer.
    command(&d, 255, true, &[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(transfer(&d, IN, &mut data[..255]), (Outcome::Done, 36));
    assert_eq!(status(&d), (PASSED, 219));
    command(&d, 2048, true, &read10(1, 1));
    assert_eq!(transfer(&d, IN, &mut data[..512]), (Outcome::Done, 512));
    stalls(&d, IN, 512);
    assert_eq!(status(&d), (PASSED, 1536));
    // 6: Hi = Di, in odd parts.
    command(&d, 1024, true, &read10(2, 2));
    assert_eq!(transfer(&d, IN, &mut data[..300]), (Outcome::Done, 300));
    assert_eq!(transfer(&d, IN, &mut data[300..1024]), (Outcome::Done, 724));
    assert_eq!(data[..1024], disk.bytes.lock()[1024..2048]);
    assert_eq!(status(&d), (PASSED, 0));
    // 7: Hi < Di.
    command(&d, 20, true, &[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(transfer(&d, IN, &mut data[..20]), (Outcome::Done, 20));
    assert_eq!(status(&d).0, PHASE);
    command(&d, 512, true, &read10(0, 2));
    stalls(&d, IN, 512);
    assert_eq!(status(&d).0, PHASE);
    // 8: Hi <> Do.
    command(&d, 512, true, &write10(0, 1));
    stalls(&d, IN, 512);
    assert_eq!(status(&d).0, PHASE);
    // 9: Ho > Dn.
    command(&d, 512, false, &[0; 6]);
    stalls(&d, OUT, 512);
    assert_eq!(status(&d), (PASSED, 512));
    // 10: Ho <> Di.
    command(&d, 512, false, &read10(0, 1));
    stalls(&d, OUT, 512);
    assert_eq!(status(&d).0, PHASE);
    // 11: Ho > Do.
    let mut ones = vec![1; 2048];
    command(&d, 2048, false, &write10(4, 1));
    assert_eq!(transfer(&d, OUT, &mut ones), (Outcome::Stall, 512));
    clear(&d, OUT);
    assert_eq!(status(&d), (PASSED, 1536));
    assert_eq!(disk.bytes.lock()[2048..2560], [1; 512]);
    // 12: Ho = Do.
    command(&d, 1024, false, &write10(6, 2));
    assert_eq!(transfer(&d, OUT, &mut ones[..1024]), (Outcome::Done, 1024));
    assert_eq!(status(&d), (PASSED, 0));
    assert_eq!(disk.bytes.lock()[3072..4096], [1; 1024]);
    // 13: Ho < Do.
    let before = disk.bytes.lock().clone();
    command(&d, 512, false, &write10(8, 2));
    stalls(&d, OUT, 512);
    assert_eq!(status(&d).0, PHASE);
    assert_eq!(before, *disk.bytes.lock());
}

#[test]
fn wrappers_that_are_none_need_reset_recovery() {
    let d = make(Memory::new(1 << 20));
    let good = wrapper(0, false, &[0; 6]);
    let mut bad = good.clone();
    bad[0] = b'X';
    let mut long = good.clone();
    long.push(0);
    let mut no_command = good.clone();
    no_command[14] = 0;
    for mut wrapper in [bad, good[..30].to_vec(), long, no_command] {
        assert_eq!(transfer(&d, OUT, &mut wrapper).0, Outcome::Stall);
        // Clearing the halts alone does not help (6.6.1).
        clear(&d, IN);
        clear(&d, OUT);
        assert_eq!(transfer(&d, IN, &mut [0; 13]).0, Outcome::Stall);
        assert_eq!(transfer(&d, OUT, &mut good.clone()).0, Outcome::Stall);
        assert_eq!(control(&d, [0x21, 0xff, 0, 0, 0, 0, 0, 0]), Outcome::Done);
        assert_eq!(transfer(&d, OUT, &mut good.clone()).0, Outcome::Stall);
        clear(&d, IN);
        clear(&d, OUT);
        assert_eq!(command(&d, 0, false, &[0; 6]), Outcome::Done);
        assert_eq!(status(&d), (PASSED, 0));
    }
    assert_eq!(control(&d, [0xa1, 0xfe, 0, 0, 0, 0, 1, 0]), Outcome::Done);
}

#[test]
fn large_transfers_both_ways() {
    let disk = Memory::new(8 << 20);
    let d = make(disk.clone());
    let mut data: Vec<u8> = (0..3 << 20).map(|i: u32| ((i * 31) >> 7) as u8).collect();
    command(&d, 3 << 20, false, &write10(100, 6144));
    for part in data.chunks_mut(100_000) {
        assert_eq!(transfer(&d, OUT, part), (Outcome::Done, part.len()));
    }
    assert_eq!(status(&d), (PASSED, 0));
    assert_eq!(disk.bytes.lock()[51200..][..3 << 20], data);
    command(&d, 3 << 20, true, &read10(100, 6144));
    let mut back = vec![0; 3 << 20];
    for part in back.chunks_mut(333_333) {
        assert_eq!(transfer(&d, IN, part), (Outcome::Done, part.len()));
    }
    assert_eq!(status(&d), (PASSED, 0));
    assert!(back == data);
    command(&d, 0, false, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(status(&d), (PASSED, 0));
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 1);
    // FUA.
    let mut force = write10(0, 1);
    force[1] = 8;
    command(&d, 512, false, &force);
    assert_eq!(transfer(&d, OUT, &mut [0; 512]).0, Outcome::Done);
    assert_eq!(status(&d), (PASSED, 0));
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 2);
}

fn sense(d: &UsbStorage) -> (u8, u8, u8) {
    let mut data = [0; 18];
    command(d, 18, true, &[3, 0, 0, 0, 18, 0]);
    assert_eq!(transfer(d, IN, &mut data), (Outcome::Done, 18));
    assert_eq!(status(d), (PASSED, 0));
    (data[2], data[12], data[13])
}

#[test]
fn a_failing_disk_is_told() {
    let disk = Memory::new(1 << 20);
    let d = make(disk.clone());
    disk.fail.store(true, Ordering::SeqCst);
    command(&d, 512, true, &read10(0, 1));
    stalls(&d, IN, 512);
    assert_eq!(status(&d), (FAILED, 512));
    assert_eq!(sense(&d), (3, 0x11, 0));
    command(&d, 512, false, &write10(0, 1));
    assert_eq!(transfer(&d, OUT, &mut [0; 512]), (Outcome::Done, 512));
    assert_eq!(status(&d).0, FAILED);
    assert_eq!(sense(&d), (3, 0x0c, 0));
    disk.fail.store(false, Ordering::SeqCst);
    command(&d, 512, true, &read10(0, 1));
    assert_eq!(transfer(&d, IN, &mut [0; 512]).0, Outcome::Done);
    assert_eq!(status(&d), (PASSED, 0));
}

#[test]
fn media_come_and_go() {
    let d = UsbStorage::new(config(Kind::Cdrom), None).unwrap();
    d.connect(Speed::High, Notifier::default());
    control(&d, [0, 9, 1, 0, 0, 0, 0, 0]);
    for expected in [(6, 0x29, 0), (2, 0x3a, 0)] {
        command(&d, 0, false, &[0; 6]);
        assert_eq!(status(&d), (FAILED, 0));
        assert_eq!(sense(&d), expected);
    }
    d.open_tray(false).unwrap();
    command(&d, 0, false, &[0; 6]);
    assert_eq!(status(&d), (FAILED, 0));
    assert_eq!(sense(&d), (2, 0x3a, 2));
    d.change_medium(Some(Memory::new(4096)));
    d.close_tray();
    command(&d, 0, false, &[0; 6]);
    assert_eq!(status(&d), (FAILED, 0));
    assert_eq!(sense(&d), (6, 0x28, 0));
    let mut data = [0; 2048];
    command(&d, 2048, true, &read10(1, 1));
    assert_eq!(transfer(&d, IN, &mut data), (Outcome::Done, 2048));
    assert_eq!(status(&d), (PASSED, 0));
    // The guest holds it, lets it go, and ejects it itself; whoever moves the tray, it is told.
    let moves = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let told = moves.clone();
    d.on_tray(move |open| told.lock().push(open));
    command(&d, 0, false, &[0x1e, 0, 0, 0, 1, 0]);
    assert_eq!(status(&d), (PASSED, 0));
    assert_eq!(d.open_tray(false), Err(Locked));
    assert!(d.locked() && !d.tray_open());
    command(&d, 8, true, &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0]);
    let mut event = [0; 8];
    assert_eq!(transfer(&d, IN, &mut event), (Outcome::Done, 8));
    assert_eq!((status(&d).0, event[4]), (PASSED, 1));
    command(&d, 0, false, &[0x1e, 0, 0, 0, 0, 0]);
    assert_eq!(status(&d), (PASSED, 0));
    command(&d, 0, false, &[0x1b, 0, 0, 0, 2, 0]);
    assert_eq!(status(&d), (PASSED, 0));
    assert!(d.tray_open());
    d.close_tray();
    d.open_tray(true).unwrap();
    assert_eq!(*moves.lock(), [true, false, true]);
}

/// A read of the medium before does not go on with the next one's data, and no write lands on it.
#[test]
fn a_change_ends_what_is_under_way() {
    let mut config = config(Kind::Disk);
    config.unit.removable = true;
    let disk = Memory::new(4 << 20);
    let d = UsbStorage::new(config, Some(disk)).unwrap();
    d.connect(Speed::High, Notifier::default());
    control(&d, [0, 9, 1, 0, 0, 0, 0, 0]);
    command(&d, 0, false, &[0; 6]);
    assert_eq!(status(&d).0, FAILED);
    let other = Memory::new(4 << 20);
    let change = || {
        d.open_tray(false).unwrap();
        d.change_medium(Some(other.clone()));
        d.close_tray();
    };
    for write in [false, true] {
        let mut data = vec![0; 1 << 20];
        if write {
            command(&d, 1 << 20, false, &write10(0, 2048));
            assert_eq!(transfer(&d, OUT, &mut vec![7; 4096]).0, Outcome::Done);
        } else {
            command(&d, 2 << 20, true, &read10(0, 4096));
            assert_eq!(transfer(&d, IN, &mut data[..512]).0, Outcome::Done);
        }
        change();
        // The rest of the transfer stalls, or ends with what was there already.
        let endpoint = if write { OUT } else { IN };
        loop {
            match transfer(&d, endpoint, &mut data) {
                (Outcome::Done, n) if n == data.len() => {}
                (Outcome::Done, _) => break,
                (outcome, _) => {
                    assert_eq!(outcome, Outcome::Stall);
                    clear(&d, endpoint);
                    break;
                }
            }
        }
        assert_eq!(status(&d).0, FAILED, "write: {write}");
        assert_eq!(sense(&d), (2, 0x3a, 0));
        command(&d, 0, false, &[0; 6]);
        assert_eq!(status(&d).0, FAILED);
        assert_eq!(sense(&d), (6, 0x28, 0));
    }
    let untouched = Memory::new(4 << 20);
    assert!(
        *other.bytes.lock() == *untouched.bytes.lock(),
        "the write landed on the other medium"
    );
}

#[test]
fn a_reset_drops_what_is_in_flight() {
    let d = make(Memory::new(1 << 20));
    command(&d, 512 * 1024, true, &read10(0, 1024));
    d.bus_reset();
    control(&d, [0, 9, 1, 0, 0, 0, 0, 0]);
    command(&d, 0, false, &[0; 6]);
    assert_eq!(status(&d), (PASSED, 0));
    d.power_cycle();
    assert_eq!(
        transfer(&d, OUT, &mut wrapper(0, false, &[0; 6])).0,
        Outcome::Stall
    );
}

#[test]
fn noise_does_no_harm() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let disk = Memory::new(1 << 20);
    let cd = UsbStorage::new(config(Kind::Cdrom), Some(disk.clone())).unwrap();
    let hd = make(disk);
    for device in [cd, hd] {
        control(&device, [0, 9, 1, 0, 0, 0, 0, 0]);
        for _ in 0..20_000 {
            let r = random();
            match r % 8 {
                0..=2 => {
                    let mut cdb: Vec<u8> = (0..16).map(|_| random() as u8).collect();
                    if r & 0x100 != 0 {
                        // Small numbers get further.
                        cdb.iter_mut()
                            .skip(1)
                            .for_each(|b| *b &= (random() & random() & random()) as u8);
                    }
                    let length = (random() as u32) >> (random() % 32);
                    let mut cbw = wrapper(length, r & 0x200 != 0, &cdb);
                    device.transfer(OUT, &mut Packet::host(&mut cbw));
                }
                3 | 4 => {
                    let mut data = vec![0xa5; (random() % 5000) as usize];
                    let endpoint = if r & 0x100 != 0 { IN } else { OUT };
                    device.transfer(endpoint, &mut Packet::host(&mut data));
                }
                5 => drop(device.transfer(IN, &mut Packet::host(&mut [0; 13]))),
                6 => {
                    let mut data = vec![0; 300];
                    let setup = Setup::from_bytes(random().to_le_bytes());
                    device.control(setup, &mut Packet::host(&mut data));
                    control(&device, [0, 9, 1, 0, 0, 0, 0, 0]);
                }
                _ => {
                    clear(&device, IN);
                    clear(&device, OUT);
                }
            }
        }
        control(&device, [0x21, 0xff, 0, 0, 0, 0, 0, 0]);
        control(&device, [0, 9, 1, 0, 0, 0, 0, 0]);
        command(&device, 0, false, &[0x12, 0, 0, 0, 0, 0]);
        assert_eq!(status(&device).1, 0);
    }
}
