use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Default)]
struct Sent(Mutex<Vec<u8>>);

impl SerialOutput for Sent {
    fn write(&self, bytes: &[u8]) {
        self.0.lock().extend_from_slice(bytes);
    }
}

struct Bench {
    uart: Arc<Pl011>,
    sent: Arc<Sent>,
    line: Arc<AtomicBool>,
}

fn bench() -> Bench {
    let sent = Arc::new(Sent::default());
    let (line, level) = Line::probe();
    let uart = Pl011::new(Config::default(), line, &Clock::new(), sent.clone());
    Bench {
        uart,
        sent,
        line: level,
    }
}

impl Bench {
    fn read(&self, offset: u64) -> u32 {
        self.uart.read(Access::new(offset, 4)) as u32
    }

    fn write(&self, offset: u64, value: u32) {
        self.uart.write(Access::new(offset, 4), u64::from(value));
    }

    fn level(&self) -> bool {
        self.line.load(Ordering::SeqCst)
    }
}

#[test]
fn powers_on_as_the_manual_says() {
    let b = bench();
    assert_eq!(b.read(UARTFR), FR_TXFE | FR_RXFE);
    assert_eq!(b.read(UARTCR), 0x300);
    assert_eq!(b.read(UARTIFLS), 0x12);
    let id: Vec<u32> = (0..8).map(|i| b.read(0xfe0 + 4 * i)).collect();
    assert_eq!(id, [0x11, 0x10, 0x14, 0, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn sends_at_once_and_by_any_width() {
    let b = bench();
    b.uart.write(Access::new(UARTDR, 1), b'h'.into());
    b.uart
        .write(Access::new(UARTDR, 2), 0xff00 | u64::from(b'i'));
    b.write(UARTDR, b'!'.into());
    assert_eq!(*b.sent.0.lock(), b"hi!");
    assert_eq!(b.read(UARTRIS), INT_TX);
    assert!(!b.level());
    b.write(UARTIMSC, INT_TX);
    assert!(b.level());
    b.write(UARTICR, INT_TX);
    assert!(!b.level());
}

#[test]
fn receives_by_level_and_by_timeout() {
    let b = bench();
    b.write(UARTLCR_H, LCR_H_FEN);
    b.write(UARTIMSC, INT_RX);
    assert_eq!(b.uart.receive(b"1234567"), 7);
    assert!(!b.level());
    assert_eq!(b.uart.receive(b"8"), 1);
    assert!(b.level());
    assert_eq!(b.read(UARTDR), u32::from(b'1'));
    assert!(!b.level());
    b.write(UARTIMSC, INT_RT);
    let start = std::time::Instant::now();
    while !b.level() {
        assert!(start.elapsed().as_secs() < 20, "no receive timeout");
        std::thread::yield_now();
    }
    for expected in b"2345678" {
        assert!(b.level());
        assert_eq!(b.read(UARTDR), u32::from(*expected));
    }
    assert!(!b.level());
    assert_eq!(b.read(UARTFR) & FR_RXFE, FR_RXFE);
}

#[test]
fn a_cleared_interrupt_comes_back_for_what_is_left() {
    let b = bench();
    b.write(UARTLCR_H, LCR_H_FEN);
    b.write(UARTIMSC, INT_RT | INT_RX);
    b.uart.receive(&[b'x'; 16]);
    b.write(UARTICR, INT_ALL);
    assert!(!b.level());
    let start = std::time::Instant::now();
    while !b.level() {
        assert!(
            start.elapsed().as_secs() < 20,
            "sixteen characters forgotten"
        );
        std::thread::yield_now();
    }
}

#[test]
fn tells_the_back_end_of_room() {
    let b = bench();
    let told = Arc::new(AtomicUsize::new(0));
    let (uart, count) = (Arc::downgrade(&b.uart), told.clone());
    b.uart.on_room(Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        uart.upgrade().unwrap().receive(b"c");
    }));
    assert_eq!(b.uart.receive(b"ab"), 1);
    assert_eq!(b.read(UARTFR) & FR_RXFF, FR_RXFF);
    assert_eq!(b.read(UARTDR), u32::from(b'a'));
    assert_eq!(told.load(Ordering::SeqCst), 1);
    assert_eq!(b.read(UARTDR), u32::from(b'c'));
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[test]
fn loops_back_with_overrun_and_modem_lines() {
    let b = bench();
    b.write(UARTCR, CR_LBE | CR_TXE | CR_RXE);
    b.write(UARTDR, 0x41);
    b.write(UARTDR, 0x42);
    assert!(b.sent.0.lock().is_empty());
    assert_eq!(b.read(UARTRSR_ECR), RSR_OE);
    assert_eq!(b.read(UARTDR), DR_OE | 0x41);
    b.write(UARTRSR_ECR, 0);
    assert_eq!(b.read(UARTRSR_ECR), 0);
    b.write(UARTCR, CR_LBE | CR_RTS);
    assert_eq!(b.read(UARTFR) & 0x107, FR_CTS);
    assert_ne!(b.read(UARTRIS) & INT_CTS, 0);
}

#[test]
fn reset_is_power_on() {
    let b = bench();
    b.write(UARTIMSC, INT_ALL);
    b.uart.receive(b"a");
    assert!(b.level());
    b.uart.reset();
    assert!(!b.level());
    assert_eq!(b.uart.save(), State::power_on(&Config::default()));
}

#[test]
fn a_break_is_a_character_with_a_flag() {
    let b = bench();
    b.write(UARTLCR_H, LCR_H_FEN);
    b.write(UARTIMSC, INT_BE);
    b.uart.receive(b"a");
    assert!(!b.level());
    b.uart.receive_break();
    b.uart.receive(b"h");
    assert!(b.level());
    b.write(UARTICR, INT_BE);
    assert!(!b.level());
    assert_eq!(b.read(UARTDR), u32::from(b'a'));
    assert_eq!(b.read(UARTRSR_ECR), 0);
    assert_eq!(b.read(UARTDR), DR_BE);
    assert_eq!(b.read(UARTRSR_ECR), RSR_BE);
    assert_eq!(b.read(UARTDR), u32::from(b'h'));
    assert_eq!(b.read(UARTRSR_ECR), 0);
    assert_eq!(b.read(UARTFR) & FR_RXFE, FR_RXFE);
}

#[test]
fn a_break_without_room_is_an_overrun() {
    let b = bench();
    b.uart.receive(b"x");
    b.uart.receive_break();
    assert_eq!(b.read(UARTRIS) & (INT_BE | INT_OE), INT_OE);
    assert_eq!(b.read(UARTDR), DR_OE | u32::from(b'x'));
    assert_eq!(b.read(UARTDR), 0);
}

#[test]
fn a_snapshot_round_trips() {
    let b = bench();
    b.write(UARTLCR_H, LCR_H_FEN);
    b.write(UARTIMSC, INT_RT | INT_RX);
    b.uart.receive(&[b'x'; 9]);
    let text = serde_json::to_string(&b.uart.save()).unwrap();
    let other = bench();
    other.uart.restore(serde_json::from_str(&text).unwrap());
    assert!(other.level());
    assert_eq!(other.read(UARTMIS) & INT_RX, INT_RX);
}

proptest! {
    #[test]
    fn survives_anything(
        steps in prop::collection::vec((0u64..0x1000, 0usize..4, any::<u64>(), any::<u8>()), 1..200)
    ) {
        let b = bench();
        for (offset, width, value, kind) in steps {
            let width = 1 << width;
            let access = Access::new(if kind & 0x80 == 0 { offset & 0x7f } else { offset }, width);
            match kind & 3 {
                0 => drop(b.uart.read(access)),
                1 | 2 => b.uart.write(access, value & access.mask()),
                _ if value & 7 == 0 => b.uart.receive_break(),
                _ => drop(b.uart.receive(&value.to_le_bytes())),
            }
            let state = b.uart.state.lock();
            prop_assert!(state.receive.len() <= FIFO_DEPTH);
            prop_assert!(state.breaks.iter().all(|place| *place < state.receive.len()));
            prop_assert_eq!(b.level(), state.ris & state.imsc != 0);
        }
    }
}
