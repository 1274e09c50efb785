mod driver;
mod noise;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use device::input::{Event, Input, Key};
use device::{Access, Device};
use pci::Function;

use super::registers::*;
use super::trb::{Trb, bit, kind};
use super::*;
use crate::device::{Outcome, Packet, Setup};
use crate::hid::{self, Keyboard};
use crate::storage::tests::{Memory, config as storage_config};
use crate::storage::{Kind, UsbStorage};
use driver::*;

fn keyboard(d: &Driver) -> Arc<Keyboard> {
    let config = hid::Config {
        name: "kbd".into(),
        serial: "1".into(),
        high_speed: true,
    };
    let keyboard = Keyboard::new(config, d.clock.clone());
    d.xhci.attach(None, keyboard.clone()).unwrap();
    keyboard
}

fn disk(d: &Driver, size: usize) -> Arc<Memory> {
    let disk = Memory::new(size);
    let device = UsbStorage::new(storage_config(Kind::Disk), Some(disk.clone())).unwrap();
    d.xhci.attach(None, device).unwrap();
    disk
}

/// The root hub port of connector 1's USB 2 half.
const USB2: u8 = 5;

/// A started controller with a configured keyboard, and its slot.
fn typing() -> (Driver, Arc<Keyboard>, u8) {
    let mut d = Driver::new();
    let keyboard = keyboard(&d);
    d.start();
    let slot = d.enumerate(USB2);
    assert_eq!(code(&d.configure(slot, &[(3, 7, 8)])), 1);
    assert_eq!(d.control(slot, setup(0, 9, 1, 0, 0)).0, 1);
    (d, keyboard, slot)
}

fn press(keyboard: &Keyboard, key: u8) {
    keyboard.event(Event::Key {
        key: Key(key),
        down: true,
    });
    keyboard.event(Event::Key {
        key: Key(key),
        down: false,
    });
}

#[test]
fn the_register_file_says_what_there_is() {
    let d = Driver::new();
    let e = d.xhci.endpoint();
    assert_eq!(e.read_config(0, 4), 0x000d_1b36);
    assert_eq!(e.read_config(8, 4), 0x0c03_3001);
    assert_eq!(e.read_config(0x2c, 4), 0x1100_1af4);
    assert_eq!(e.read_config(0x60, 1), 0x30);
    assert_eq!(e.bar_size(0), 0x4000);
    assert_eq!(e.msix_vectors(), 16);
    assert_eq!(d.read(0), 0x0110_0040);
    assert_eq!(d.read(4), 0x0800_1040);
    assert_eq!((d.read(0x14), d.read(0x18)), (0x2000, 0x1000));
    // The extended capabilities: USB 2 on ports 5 to 8, USB 3 on ports 1 to 4.
    let mut at = u64::from(d.read(0x10) >> 16) * 4;
    let mut found = Vec::new();
    loop {
        let head = d.read(at);
        found.push((
            head & 0xff,
            head >> 24,
            d.read(at + 8) & 0xff,
            d.read(at + 8) >> 8 & 0xff,
        ));
        match u64::from(head >> 8 & 0xff) {
            0 => break,
            next => at += next * 4,
        }
    }
    assert_eq!(found, [(2, 2, 5, 4), (2, 3, 1, 4)]);
    assert_eq!(d.read(OPERATIONAL + 4), usbsts::HCH);
    assert_eq!(d.xhci.read_bar(0, Access::new(OPERATIONAL + 8, 8)), 1);
}

#[test]
fn a_keyboard_is_enumerated_and_types() {
    let (mut d, keyboard, slot) = typing();
    assert_eq!(d.control(slot, setup(0x80, 6, 0x100, 0, 18)), (1, 18));
    assert_eq!(d.bytes(BUFFER, 12)[8..12], [0x27, 0x06, 0x01, 0x00]);
    // A short data stage.
    let (code_, moved) = d.control(slot, setup(0x80, 6, 0x200, 0, 255));
    assert_eq!((code_, moved), (1, u32::from(d.bytes(BUFFER, 4)[2])));
    // Not supported: stalls; the endpoint recovers.
    assert_eq!(d.control(slot, setup(0x80, 6, 0x0f00, 0, 255)).0, 6);
    assert_eq!(d.dma.read_u32(d.context(slot, 1)).unwrap() & 7, 2);
    d.recover(slot, 1);
    // LEDs: data to the device.
    d.dma.write(BUFFER, &[2]).unwrap();
    assert_eq!(d.control(slot, setup(0x21, 9, 0x200, 0, 1)).0, 1);
    assert!(keyboard.leds().caps_lock);

    // Reports wait for keys, keys for polls.
    let report = |i: u64| normal(BUFFER + i * 8, 8, bit::IOC | bit::ISP);
    d.submit(slot, 3, &[report(0)]);
    std::thread::sleep(Duration::from_millis(5));
    assert!(d.poll().is_none());
    press(&keyboard, 4);
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!(
        (code(&event), event.endpoint(), event.status & 0xff_ffff),
        (1, 3, 0)
    );
    assert_eq!(d.bytes(BUFFER, 8), [0, 0, 4, 0, 0, 0, 0, 0]);
    d.submit(slot, 3, &[report(1)]);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    assert_eq!(d.bytes(BUFFER + 8, 8), [0; 8]);
    // Round the ring and the event ring's two segments.
    for i in 0..200u64 {
        d.submit(slot, 3, &[report(i)]);
        if i % 2 == 0 {
            press(&keyboard, 5);
        }
        assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
        assert_eq!(
            d.bytes(BUFFER + i * 8, 8)[2],
            if i % 2 == 0 { 5 } else { 0 }
        );
    }
}

#[test]
fn event_data_immediate_data_and_short_packets() {
    let (mut d, keyboard, slot) = typing();
    // As Windows does it: a buffer in parts, and an Event Data TRB that tells of the whole.
    let td = [
        normal(BUFFER, 3, bit::CHAIN),
        normal(BUFFER + 0x100, 3, bit::CHAIN),
        normal(BUFFER + 0x200, 10, bit::CHAIN),
        trb(kind::EVENT_DATA, 0xabcd_0123_4567, 0, bit::IOC),
    ];
    d.submit(slot, 3, &td);
    keyboard.event(Event::Key {
        key: Key(9),
        down: true,
    });
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!(
        (code(&event), event.parameter, event.status & 0xff_ffff),
        (13, 0xabcd_0123_4567, 8)
    );
    assert!(event.has(bit::ED));
    assert_eq!(d.bytes(BUFFER + 2, 1), [9]);
    // ISP: one event where it fell short, one for the IOC behind (4.10.1.1).
    let td = [
        normal(BUFFER, 4, bit::CHAIN),
        normal(BUFFER, 8, bit::CHAIN | bit::ISP),
        normal(BUFFER, 8, bit::CHAIN | bit::ISP),
        normal(BUFFER, 16, bit::IOC),
    ];
    let start = d.position(slot, 3);
    d.submit(slot, 3, &td);
    keyboard.event(Event::Key {
        key: Key(9),
        down: false,
    });
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!(
        (code(&event), event.parameter, event.status & 0xff_ffff),
        (13, start + 16, 4)
    );
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!(
        (code(&event), event.parameter, event.status & 0xff_ffff),
        (13, start + 48, 16)
    );
    // Nothing more, and No Op works.
    d.submit(slot, 3, &[trb(kind::NO_OP, 0, 0, bit::IOC)]);
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!((code(&event), event.parameter), (1, start + 64));
    // A request whose one byte is in the TRB.
    let control = [
        trb(
            kind::SETUP_STAGE,
            setup(0x21, 9, 0x200, 0, 1),
            8,
            bit::IDT | 2 << 16,
        ),
        trb(kind::DATA_STAGE, 4, 1, bit::IDT),
        trb(kind::STATUS_STAGE, 0, 0, bit::IOC | 1 << 16),
    ];
    d.submit(slot, 1, &control);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    assert!(keyboard.leds().scroll_lock);
}

#[test]
fn endpoints_stop_restart_and_report_errors() {
    let (mut d, keyboard, slot) = typing();
    let to = |dci: u32| u32::from(slot) << 24 | dci << 16;
    let start = d.position(slot, 3);
    d.submit(slot, 3, &[normal(BUFFER, 8, bit::IOC)]);
    d.until("the transfer", |d| {
        d.xhci.state().endpoint(slot, 3).unwrap().td.is_some()
    });
    assert_eq!(code(&d.command(trb(kind::RESET_ENDPOINT, 0, 0, to(3)))), 19);
    assert_eq!(
        code(&d.command(trb(kind::SET_TR_DEQUEUE_POINTER, start | 1, 0, to(3)))),
        19
    );
    assert_eq!(code(&d.command(trb(kind::STOP_ENDPOINT, 0, 0, to(3)))), 1);
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!(
        (code(&event), event.parameter, event.status & 0xff_ffff),
        (26, start, 8)
    );
    assert_eq!(d.dma.read_u32(d.context(slot, 3)).unwrap() & 7, 3);
    assert_eq!(d.dma.read_u64(d.context(slot, 3) + 8).unwrap(), start | 1);
    assert_eq!(code(&d.command(trb(kind::STOP_ENDPOINT, 0, 0, to(3)))), 19);
    press(&keyboard, 7);
    std::thread::sleep(Duration::from_millis(5));
    assert!(d.poll().is_none());
    d.ring(slot, 3);
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!((code(&event), event.parameter), (1, start));
    assert_eq!(d.dma.read_u32(d.context(slot, 3)).unwrap() & 7, 1);
    // A TRB that cannot be here.
    d.submit(slot, 3, &[trb(kind::SETUP_STAGE, 0, 8, bit::IDT)]);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 5);
    assert_eq!(d.dma.read_u32(d.context(slot, 3)).unwrap() & 7, 4);
    let next = d.position(slot, 3);
    assert_eq!(
        code(&d.command(trb(kind::SET_TR_DEQUEUE_POINTER, next | 1, 0, to(3)))),
        1
    );
    d.submit(slot, 3, &[normal(BUFFER, 8, bit::IOC)]);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    // Links that lead to themselves.
    let here = d.position(slot, 3);
    d.submit(slot, 3, &[trb_link(here, 0)]);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 5);
    // Commands about what is not there.
    assert_eq!(
        code(&d.command(trb(kind::STOP_ENDPOINT, 0, 0, 9 << 24 | 3 << 16))),
        11
    );
    assert_eq!(code(&d.command(trb(kind::STOP_ENDPOINT, 0, 0, to(8)))), 19);
    assert_eq!(code(&d.command(trb(63, 0, 0, 0))), 5);
    assert_eq!(code(&d.command(trb(kind::NO_OP_COMMAND, 0, 0, 0))), 1);
    assert_eq!(code(&d.configure(slot, &[(5, 6, 0)])), 17);
    assert_eq!(code(&d.configure(slot, &[(5, 2, 512)])), 17);
    // Reset Device leaves the control endpoint only; then the slot goes.
    assert_eq!(code(&d.command(trb(kind::RESET_DEVICE, 0, 0, to(0)))), 1);
    assert_eq!(d.dma.read_u32(d.context(slot, 3)).unwrap() & 7, 0);
    assert_eq!(code(&d.command(trb(kind::RESET_DEVICE, 0, 0, to(0)))), 19);
    assert_eq!(code(&d.address_command(slot, USB2, 0)), 1);
    assert_eq!(code(&d.command(trb(kind::DISABLE_SLOT, 0, 0, to(0)))), 1);
    assert_eq!(code(&d.command(trb(kind::DISABLE_SLOT, 0, 0, to(0)))), 11);
    for _ in 0..64 {
        assert_eq!(code(&d.command(trb(kind::ENABLE_SLOT, 0, 0, 0))), 1);
    }
    assert_eq!(code(&d.command(trb(kind::ENABLE_SLOT, 0, 0, 0))), 9);
}

#[test]
fn a_superspeed_disk_is_read_and_written() {
    let mut d = Driver::new();
    let disk = disk(&d, 8 << 20);
    d.start();
    assert_eq!(d.read(PORTS) >> 10 & 0xf, 4);
    assert_ne!(d.read(PORTS) & portsc::PED, 0);
    let slot = d.enumerate(1);
    assert_eq!(d.control(slot, setup(0x80, 6, 0x0f00, 0, 255)), (1, 22));
    assert_eq!(code(&d.configure(slot, &[(3, 6, 1024), (4, 2, 1024)])), 1);
    assert_eq!(d.control(slot, setup(0, 9, 1, 0, 0)).0, 1);
    let cbw = |d: &mut Driver, length: u32, flags: u8, cdb: &[u8]| {
        let mut w = b"USBC\x01\x02\x03\x04".to_vec();
        w.extend(length.to_le_bytes());
        w.extend([flags, 0, cdb.len() as u8]);
        w.extend(cdb);
        w.resize(31, 0);
        d.dma.write(RAM + 0x8000, &w).unwrap();
        d.submit(slot, 4, &[normal(RAM + 0x8000, 31, bit::IOC)]);
        assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    };
    let csw = |d: &mut Driver| {
        d.submit(slot, 3, &[normal(RAM + 0x9000, 13, bit::IOC)]);
        let event = d.event(kind::TRANSFER_EVENT);
        assert_eq!((code(&event), event.status & 0xff_ffff), (1, 0));
        let csw = d.bytes(RAM + 0x9000, 13);
        assert_eq!(&csw[..8], b"USBS\x01\x02\x03\x04");
        csw[12]
    };
    cbw(&mut d, 0, 0, &[0; 6]);
    assert_eq!(csw(&mut d), 1);
    // 1 MiB in one descriptor of sixteen TRBs.
    let read = [0x28, 0, 0, 0, 0, 16, 0, 8, 0, 0];
    cbw(&mut d, 1 << 20, 0x80, &read);
    let mut td: Vec<Trb> = (0..16)
        .map(|i| normal(BUFFER + (i << 16), 1 << 16, bit::CHAIN))
        .collect();
    td[15].control = td[15].control & !bit::CHAIN | bit::IOC;
    d.submit(slot, 3, &td);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    assert!(d.bytes(BUFFER, 1 << 20) == disk.bytes.lock()[8192..][..1 << 20]);
    assert_eq!(csw(&mut d), 0);
    // And back to another place, with a descriptor longer than is taken at once.
    let mut write = read;
    (write[0], write[5]) = (0x2a, 32);
    cbw(&mut d, 1 << 20, 0, &write);
    let mut at = BUFFER;
    for part in 0..32 {
        let mut td: Vec<Trb> = (0..32)
            .map(|i| normal(at + i * 1024, 1024, bit::CHAIN))
            .collect();
        at += 32 * 1024;
        if part == 31 {
            td[31].control = td[31].control & !bit::CHAIN | bit::IOC;
        }
        d.submit(slot, 4, &td);
        // The ring has 63 places: as many as there are must be done first.
        if part < 31 {
            let position = d.position(slot, 4);
            d.until("part of a descriptor", |d| {
                d.xhci.state().endpoint(slot, 4).unwrap().ring.dequeue == position
            });
        }
    }
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    assert_eq!(csw(&mut d), 0);
    {
        let bytes = disk.bytes.lock();
        assert!(d.bytes(BUFFER, 1 << 20) == bytes[16384..][..1 << 20]);
    }
    // A stall in the data stage, and recovery as drivers do it.
    cbw(&mut d, 512, 0x80, &[0; 6]);
    d.submit(slot, 3, &[normal(BUFFER, 512, bit::IOC)]);
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!((code(&event), event.status & 0xff_ffff), (6, 512));
    d.recover(slot, 3);
    assert_eq!(d.control(slot, setup(2, 1, 0, 0x81, 0)).0, 1);
    assert_eq!(csw(&mut d), 0);
}

#[test]
fn throughput() {
    let mut d = Driver::new();
    let _disk = disk(&d, 64 << 20);
    d.start();
    let slot = d.enumerate(1);
    d.configure(slot, &[(3, 6, 1024), (4, 2, 1024)]);
    d.control(slot, setup(0, 9, 1, 0, 0));
    let start = std::time::Instant::now();
    const COUNT: u64 = 200;
    for i in 0..COUNT {
        let blocks = if i == 0 { 0u32 } else { 2048 };
        let mut w = b"USBC\x01\x02\x03\x04".to_vec();
        w.extend((blocks * 512).to_le_bytes());
        w.extend([
            0x80,
            0,
            10,
            0x28,
            0,
            0,
            0,
            (i % 32 * 8) as u8,
            0,
            0,
            8,
            0,
            0,
        ]);
        w.resize(31, 0);
        if i == 0 {
            w[15..25].fill(0);
        }
        d.dma.write(RAM + 0x8000, &w).unwrap();
        d.submit(slot, 4, &[normal(RAM + 0x8000, 31, 0)]);
        if i != 0 {
            let td: Vec<Trb> = (0..16)
                .map(|i| {
                    normal(
                        BUFFER + (i << 16),
                        1 << 16,
                        if i < 15 { bit::CHAIN } else { 0 },
                    )
                })
                .collect();
            d.submit(slot, 3, &td);
        }
        d.submit(slot, 3, &[normal(RAM + 0x9000, 13, bit::IOC)]);
        assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
        assert_eq!(d.bytes(RAM + 0x900c, 1), [u8::from(i == 0)]);
    }
    let rate = (COUNT - 1) as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} MiB/s");
    assert!(rate > 20.0, "{rate:.0} MiB/s even on a busy machine");
}

#[test]
fn ports_come_go_sleep_and_wake() {
    let (mut d, keyboard, slot) = typing();
    let at = PORTS + u64::from(USB2 - 1) * PORT_STRIDE;
    d.until("the port's events", |d| d.read(at) & portsc::CHANGES == 0);
    d.early.clear();
    // Suspend, with remote wake-up allowed.
    assert_eq!(d.control(slot, setup(0, 3, 1, 0, 0)).0, 1);
    while d.poll().is_some() {}
    d.acknowledge();
    d.early.clear();
    d.write(at, portsc::PP | portsc::LWS | 3 << portsc::PLS_SHIFT);
    assert_eq!(d.read(at) >> 5 & 0xf, 3);
    press(&keyboard, 4);
    let event = d.event(kind::PORT_STATUS_CHANGE_EVENT);
    assert_eq!(event.parameter >> 24, u64::from(USB2));
    assert_eq!(
        (d.read(at) >> 5 & 0xf, d.read(at) & portsc::CHANGES),
        (15, portsc::PLC)
    );
    d.write(at, portsc::PP | portsc::LWS | portsc::PLC);
    assert_eq!(
        (d.read(at) >> 5 & 0xf, d.read(at) & portsc::CHANGES),
        (0, portsc::PLC)
    );
    d.write(at, portsc::PP | portsc::PLC);
    d.submit(slot, 3, &[normal(BUFFER, 8, bit::IOC)]);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    assert_eq!(d.bytes(BUFFER + 2, 1), [4]);
    d.early.clear();

    // Pulled out while a transfer waits.
    d.submit(slot, 3, &[normal(BUFFER, 8, bit::IOC); 2]);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    assert!(d.xhci.detach(1).is_some());
    assert!(d.xhci.detach(1).is_none());
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 4);
    d.event(kind::PORT_STATUS_CHANGE_EVENT);
    assert_eq!(
        d.read(at) & (portsc::CCS | portsc::PED | portsc::CSC),
        portsc::CSC
    );
    d.write(at, portsc::PP | portsc::CSC);
    let again: Arc<dyn UsbDevice> = keyboard;
    assert_eq!(d.xhci.attach(Some(1), again.clone()), Ok(1));
    assert_eq!(
        d.xhci.attach(Some(1), again.clone()),
        Err(AttachError::Taken(1))
    );
    assert_eq!(
        d.xhci.attach(Some(5), again),
        Err(AttachError::NoSuchPort(5))
    );
    d.event(kind::PORT_STATUS_CHANGE_EVENT);
    // Power off and on.
    d.write(at, portsc::CSC);
    assert_eq!(d.read(at) & (portsc::CCS | portsc::PP), 0);
    d.write(at, portsc::PP);
    assert_eq!(
        d.read(at) & (portsc::CCS | portsc::CSC),
        portsc::CCS | portsc::CSC
    );
    assert_eq!(d.xhci.attached().len(), 1);
}

#[test]
fn interrupts_are_moderated_and_acknowledged() {
    let (mut d, keyboard, slot) = typing();
    // By pin: the line is up while IP is.
    d.until("the line", |d| d.line.load(Ordering::SeqCst));
    d.write(INTERRUPTERS_AT, interrupter::IMAN_IP | interrupter::IMAN_IE);
    while d.poll().is_some() {}
    d.acknowledge();
    assert!(!d.line.load(Ordering::SeqCst));
    assert_ne!(d.read(OPERATIONAL + operational::USBSTS) & usbsts::EINT, 0);

    // By MSI-X: one message until the handler is done, one more for what came meanwhile.
    let e = d.xhci.endpoint();
    let at = e.capability(0x11, 0).unwrap();
    e.write_msix(0, Access::new(MSIX_TABLE.into(), 8), 0x0802_0040);
    e.write_msix(0, Access::new(u64::from(MSIX_TABLE) + 8, 8), 0x51);
    e.write_config(at + 2, 2, 0x8000);
    d.xhci.config_written(at + 2, 2);
    d.messages.lock().clear();
    let poll = |d: &mut Driver| {
        d.submit(slot, 3, &[normal(BUFFER, 8, bit::IOC); 2]);
        press(&keyboard, 4);
        d.until("an event", |d| {
            d.xhci.state().endpoint(slot, 3).unwrap().ring.dequeue == d.position(slot, 3)
        });
    };
    poll(&mut d);
    assert_eq!(d.messages.lock().len(), 1);
    assert_eq!(d.messages.lock()[0].data, 0x51);
    assert_eq!(d.read(INTERRUPTERS_AT) & interrupter::IMAN_IP, 0);
    poll(&mut d);
    assert_eq!(d.messages.lock().len(), 1);
    // One of four events taken: three still want an interrupt.
    d.poll().unwrap();
    d.acknowledge();
    d.until("the second message", |d| d.messages.lock().len() == 2);
    while d.poll().is_some() {}
    d.acknowledge();
    assert_eq!(d.messages.lock().len(), 2);
    // 20 ms between interrupts.
    d.write(INTERRUPTERS_AT + interrupter::IMOD, 0xffff);
    let began = std::time::Instant::now();
    for _ in 0..3 {
        let before = d.messages.lock().len();
        poll(&mut d);
        d.until("a message", |d| d.messages.lock().len() > before);
        while d.poll().is_some() {}
        d.acknowledge();
    }
    assert!(began.elapsed() > Duration::from_millis(30));
}

#[test]
fn a_full_event_ring_loses_nothing() {
    let (mut d, _keyboard, slot) = typing();
    while d.poll().is_some() {}
    d.acknowledge();
    let mut told = Vec::new();
    let mut places = Vec::new();
    for _ in 0..60 {
        places.push(d.position(slot, 3));
        d.enqueue(slot, 3, &[trb(kind::NO_OP, 0, 0, bit::IOC)]);
    }
    d.ring(slot, 3);
    std::thread::sleep(Duration::from_millis(10));
    let start = std::time::Instant::now();
    while told.len() < 60 {
        assert!(start.elapsed() < Duration::from_secs(20));
        match d.poll() {
            Some(event) => told.push(event.parameter),
            None => d.acknowledge(),
        }
    }
    assert_eq!(told, places);
}

#[test]
fn errors_of_memory_halt_the_controller_and_a_reset_helps() {
    let (mut d, keyboard, slot) = typing();
    d.submit(slot, 3, &[normal(0x10, 8, bit::IOC)]);
    press(&keyboard, 4);
    d.until("the error", |d| {
        d.read(OPERATIONAL + 4) & (usbsts::HSE | usbsts::HCH) == usbsts::HSE | usbsts::HCH
    });
    d.write(OPERATIONAL, usbcmd::RUN);
    assert_ne!(d.read(OPERATIONAL + 4) & usbsts::HCH, 0);
    for round in 0..20 {
        if round % 2 == 0 {
            d.xhci.reset();
            d.xhci.endpoint().write_config(4, 2, 6);
            assert_eq!(d.read(OPERATIONAL + 4), usbsts::HCH);
        }
        d.start();
        let slot = d.enumerate(USB2);
        assert_eq!(slot, 1);
        assert_eq!(code(&d.configure(slot, &[(3, 7, 8)])), 1);
        assert_eq!(d.control(slot, setup(0, 9, 1, 0, 0)).0, 1);
        d.submit(slot, 3, &[normal(BUFFER, 8, bit::IOC)]);
        press(&keyboard, 4);
        assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    }
}

#[test]
fn the_command_ring_stops_and_the_controller_halts() {
    let (mut d, keyboard, slot) = typing();
    assert_ne!(d.read(OPERATIONAL + operational::CRCR) & crcr::CRR, 0);
    d.write(OPERATIONAL + operational::CRCR, crcr::CS);
    assert_eq!(code(&d.event(kind::COMMAND_COMPLETION_EVENT)), 24);
    assert_eq!(d.read(OPERATIONAL + operational::CRCR) & crcr::CRR, 0);
    d.submit(slot, 3, &[normal(BUFFER, 8, bit::IOC)]);
    d.write(OPERATIONAL, usbcmd::INTE);
    d.until("the halt", |d| d.read(OPERATIONAL + 4) & usbsts::HCH != 0);
    let stopped = d.read(RUNTIME);
    press(&keyboard, 4);
    std::thread::sleep(Duration::from_millis(5));
    d.early.clear();
    assert!(d.poll().is_none());
    assert_eq!(d.read(RUNTIME), stopped);
    // Saved and restored: the rings go on where they were.
    d.write(OPERATIONAL, usbcmd::CSS);
    d.write64(INTERRUPTERS_AT + interrupter::ERSTBA, RAM + 0x3000);
    d.write(OPERATIONAL, usbcmd::CRS);
    assert_eq!(d.read(OPERATIONAL + 4) & usbsts::SRE, 0);
    d.write(OPERATIONAL, usbcmd::RUN);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    d.until("time to pass", |d| d.read(RUNTIME) != stopped);
}

#[test]
fn a_saved_state_goes_on() {
    let (mut d, keyboard, slot) = typing();
    d.submit(slot, 3, &[normal(BUFFER, 8, bit::IOC)]);
    d.until("the transfer", |d| {
        d.xhci.state().endpoint(slot, 3).unwrap().td.is_some()
    });
    let state = d.xhci.state();
    d.xhci.restore(state.clone());
    assert_eq!(d.xhci.state().ports, state.ports);
    press(&keyboard, 4);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
}

/// Takes and gives isochronous data without end.
struct Stream;

impl UsbDevice for Stream {
    fn name(&self) -> &str {
        "stream"
    }

    fn speed(&self, bus: Bus) -> Option<Speed> {
        (bus == Bus::Usb2).then_some(Speed::High)
    }

    fn connect(&self, _: Speed, _: Notifier) {}
    fn disconnect(&self) {}
    fn power_cycle(&self) {}
    fn bus_reset(&self) {}

    fn control(&self, _: Setup, _: &mut Packet<'_>) -> Outcome {
        Outcome::Stall
    }

    fn transfer(&self, endpoint: u8, data: &mut Packet<'_>) -> Outcome {
        assert_eq!(endpoint, 0x81);
        data.write(&[0x5a; 24]);
        Outcome::Done
    }
}

#[test]
fn isochronous_descriptors_keep_time() {
    let mut d = Driver::new();
    d.xhci.attach(Some(1), Arc::new(Stream)).unwrap();
    d.start();
    let slot = d.enumerate(USB2);
    // The interval the driver writes is 2^3 microframes: a millisecond.
    assert_eq!(code(&d.configure(slot, &[(3, 5, 32)])), 1);
    let begin = d.clock.now();
    let td = |i: u64| {
        trb(
            kind::ISOCH,
            BUFFER + i * 32,
            32,
            bit::SIA | bit::IOC | bit::ISP,
        )
    };
    d.submit(
        slot,
        3,
        &[td(0), td(1), td(2), td(3), td(4), td(5), td(6), td(7)],
    );
    for _ in 0..8 {
        let event = d.event(kind::TRANSFER_EVENT);
        assert_eq!((code(&event), event.status & 0xff_ffff), (13, 8));
    }
    assert!(d.clock.now() - begin >= 7_000_000);
    assert_eq!(d.bytes(BUFFER + 7 * 32, 24), [0x5a; 24]);
    // Nothing more to do: told once.
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!((code(&event), event.parameter), (15, 0));
    assert!(d.poll().is_none());
    // By frame number, some frames ahead.
    let frame = d.read(RUNTIME) / 8 + 10;
    let begin = d.clock.now();
    d.submit(
        slot,
        3,
        &[trb(
            kind::ISOCH,
            BUFFER,
            24,
            bit::IOC | (frame & 0x7ff) << 20,
        )],
    );
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    let waited = d.clock.now() - begin;
    assert!(waited >= 5_000_000, "{waited}");
}

#[test]
fn a_loudspeaker_plays_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.wav");
    let mut options = audio::Options::new("snd", audio::Driver::Wav);
    options.path = Some(path.display().to_string());
    let audio = audio::Audio::open(&options).unwrap();
    let config = crate::sound::Config {
        name: "usb-audio".into(),
        serial: "1".into(),
    };
    let mut d = Driver::new();
    let speaker = crate::sound::UsbAudio::new(config, &audio);
    d.xhci.attach(Some(1), speaker.clone()).unwrap();
    d.start();
    let slot = d.enumerate(USB2);
    assert_eq!(code(&d.configure(slot, &[(2, 1, 192)])), 1);
    assert_eq!(d.control(slot, setup(0, 9, 1, 0, 0)).0, 1);
    assert_eq!(d.control(slot, setup(1, 11, 1, 1, 0)).0, 1);
    let sample = |i: u32| (i * 31) as i16;
    let bytes: Vec<u8> = (0..4800).flat_map(|i| sample(i).to_le_bytes()).collect();
    d.dma.write(BUFFER, &bytes).unwrap();
    // 50 milliseconds, all queued before: this thread may sleep for longer than any that are queued bit by bit.
    let begin = d.clock.now();
    let packets: Vec<_> = (0..50u64)
        .map(|i| {
            let told = if i % 10 == 9 { bit::IOC } else { 0 };
            trb(kind::ISOCH, BUFFER + i * 192, 192, bit::SIA | told)
        })
        .collect();
    d.submit(slot, 2, &packets);
    for _ in 0..5 {
        assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    }
    assert!(d.clock.now() - begin >= 45_000_000);
    let event = d.event(kind::TRANSFER_EVENT);
    assert_eq!(code(&event), 14, "an underrun, once nothing is queued");
    assert_eq!(d.control(slot, setup(1, 11, 0, 1, 0)).0, 1);
    drop((d, speaker));
    audio.finish();
    let mut file = hound::WavReader::open(&path).unwrap();
    let played: Vec<i16> = file.samples().map(Result::unwrap).collect();
    assert!(played == (0..4800).map(sample).collect::<Vec<_>>());
}

#[test]
fn the_microframe_index_wraps_with_an_event() {
    let mut d = Driver::new();
    d.start();
    d.write(OPERATIONAL, usbcmd::RUN | usbcmd::INTE | usbcmd::EWE);
    let event = d.event(kind::MFINDEX_WRAP_EVENT);
    assert_eq!(code(&event), 1);
    assert!(d.clock.now() >= 2_048_000_000);
    assert!(d.read(RUNTIME) < 0x2000);
}
