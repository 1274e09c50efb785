use std::sync::Arc;

use device::Clock;
use device::input::{Button, Event, Input, Key};

use super::*;

fn make<R: Reports>() -> Arc<Hid<R>> {
    let config = Config {
        name: String::new(),
        serial: "1".into(),
        high_speed: true,
    };
    let hid = Hid::<R>::new(config, Clock::new());
    hid.connect(Speed::High, Notifier::default());
    assert_eq!(
        request(&*hid, [0, 9, 1, 0, 0, 0, 0, 0], &mut []),
        Outcome::Done
    );
    hid
}

fn request(hid: &dyn UsbDevice, setup: [u8; 8], data: &mut [u8]) -> Outcome {
    hid.control(Setup::from_bytes(setup), &mut Packet::host(data))
}

fn poll(hid: &dyn UsbDevice) -> Option<Vec<u8>> {
    let mut bytes = [0; 8];
    let mut packet = Packet::host(&mut bytes);
    match hid.transfer(REPORTS, &mut packet) {
        Outcome::Done => {
            let n = packet.done() as usize;
            Some(bytes[..n].to_vec())
        }
        Outcome::Nak => None,
        Outcome::Stall => panic!("stalled"),
    }
}

fn key(key: u8, down: bool) -> Event {
    Event::Key {
        key: Key(key),
        down,
    }
}

#[test]
fn a_press_and_a_release_between_two_polls_are_both_seen() {
    let kbd = make::<KeyboardReports>();
    assert_eq!(poll(&*kbd), None);
    kbd.event(key(0xe1, true));
    kbd.event(key(4, true));
    kbd.event(key(4, true));
    kbd.event(key(4, false));
    kbd.event(key(0xe1, false));
    assert_eq!(poll(&*kbd).unwrap(), [2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(poll(&*kbd).unwrap(), [2, 0, 4, 0, 0, 0, 0, 0]);
    assert_eq!(poll(&*kbd).unwrap(), [2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(poll(&*kbd).unwrap(), [0; 8]);
    assert_eq!(poll(&*kbd), None);
}

#[test]
fn seven_keys_roll_over_and_the_queue_is_bounded() {
    let kbd = make::<KeyboardReports>();
    for k in 4..11 {
        kbd.event(key(k, true));
    }
    let mut last = Vec::new();
    while let Some(report) = poll(&*kbd) {
        last = report;
    }
    assert_eq!(last, [0, 0, 1, 1, 1, 1, 1, 1]);
    for _ in 0..1000 {
        kbd.event(key(20, true));
        kbd.event(key(20, false));
    }
    for k in 4..11 {
        kbd.event(key(k, false));
    }
    let mut count = 0;
    while let Some(report) = poll(&*kbd) {
        last = report;
        count += 1;
    }
    assert_eq!((count, last), (QUEUE, vec![0; 8]));
}

#[test]
fn class_requests() {
    let kbd = make::<KeyboardReports>();
    let mut report = [0; 256];
    assert_eq!(
        request(&*kbd, [0x81, 6, 0, 0x22, 0, 0, 0, 1], &mut report),
        Outcome::Done
    );
    assert_eq!(
        &report[..KeyboardReports::DESCRIPTOR.len()],
        KeyboardReports::DESCRIPTOR
    );
    assert_eq!(
        request(&*kbd, [0x21, 9, 0, 2, 0, 0, 1, 0], &mut [3]),
        Outcome::Done
    );
    assert_eq!(
        kbd.leds(),
        Leds {
            num_lock: true,
            caps_lock: true,
            ..Leds::default()
        }
    );
    assert_eq!(
        request(&*kbd, [0x21, 11, 0, 0, 0, 0, 0, 0], &mut []),
        Outcome::Done
    );
    let mut byte = [9];
    assert_eq!(
        request(&*kbd, [0xa1, 3, 0, 0, 0, 0, 1, 0], &mut byte),
        Outcome::Done
    );
    assert_eq!(byte, [0]);
    kbd.event(key(5, true));
    let mut now = [0; 8];
    assert_eq!(
        request(&*kbd, [0xa1, 1, 0, 1, 0, 0, 8, 0], &mut now),
        Outcome::Done
    );
    assert_eq!(now[2], 5);
    kbd.bus_reset();
    assert_eq!(
        kbd.transfer(REPORTS, &mut Packet::host(&mut now)),
        Outcome::Stall
    );
    let tablet = make::<TabletReports>();
    assert_eq!(
        request(&*tablet, [0x21, 11, 0, 0, 0, 0, 0, 0], &mut []),
        Outcome::Stall
    );
}

#[test]
fn idle_repeats_the_report() {
    let kbd = make::<KeyboardReports>();
    // 4 ms.
    assert_eq!(
        request(&*kbd, [0x21, 10, 0, 1, 0, 0, 0, 0], &mut []),
        Outcome::Done
    );
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(poll(&*kbd), Some(vec![0; 8]));
    assert_eq!(
        request(&*kbd, [0x21, 10, 0, 0, 0, 0, 0, 0], &mut []),
        Outcome::Done
    );
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(poll(&*kbd), None);
    // The timer had gone off before, and its thread was late.
    assert!(!kbd.state.lock().idle_time_passed());
    assert_eq!(poll(&*kbd), None);
}

#[test]
fn a_tablet_keeps_clicks_where_they_were() {
    let tablet = make::<TabletReports>();
    for x in 1..=100 {
        tablet.event(Event::Position { x, y: 0 });
    }
    tablet.event(Event::Button {
        button: Button::Left,
        down: true,
    });
    for x in 101..=200 {
        tablet.event(Event::Position { x, y: 0xffff });
    }
    tablet.event(Event::Button {
        button: Button::Left,
        down: false,
    });
    tablet.event(Event::Wheel { steps: -1 });
    let mut seen = Vec::new();
    while let Some(report) = poll(&*tablet) {
        seen.push(report);
    }
    assert_eq!(
        seen,
        [
            [0, 1, 0, 0, 0, 0],
            [0, 100, 0, 0, 0, 0],
            [1, 100, 0, 0, 0, 0],
            [1, 200, 0, 0xff, 0x7f, 0],
            [0, 200, 0, 0xff, 0x7f, 0],
            [0, 200, 0, 0xff, 0x7f, 0xff],
        ]
    );
}

#[test]
fn a_mouse_loses_no_motion() {
    let mouse = make::<MouseReports>();
    for _ in 0..10 {
        mouse.event(Event::Motion { x: 100, y: -3 });
    }
    mouse.event(Event::Button {
        button: Button::Right,
        down: true,
    });
    mouse.event(Event::Wheel { steps: 2 });
    let (mut x, mut y, mut wheel, mut buttons) = (0, 0, 0, 0);
    while let Some(r) = poll(&*mouse) {
        assert_eq!(r.len(), 4);
        buttons = r[0];
        x += i32::from(r[1] as i8);
        y += i32::from(r[2] as i8);
        wheel += i32::from(r[3] as i8);
    }
    assert_eq!((x, y, wheel, buttons), (1000, -30, 2, 2));
    assert_eq!(
        request(&*mouse, [0x21, 11, 0, 0, 0, 0, 0, 0], &mut []),
        Outcome::Done
    );
    mouse.event(Event::Motion { x: 1, y: i32::MIN });
    assert_eq!(poll(&*mouse).unwrap(), [2, 1, 0x81]);
}
