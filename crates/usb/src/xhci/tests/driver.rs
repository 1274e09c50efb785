//! A small xHCI driver, as a guest's would be.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use device::{Access, Clock, Dma, Line, Msi};
use memory::Ram;
use parking_lot::Mutex;
use pci::Function;

use crate::xhci::registers::*;
use crate::xhci::trb::{Trb, bit, kind};
use crate::xhci::{Config, Xhci};

pub const RAM: u64 = 0x4000_0000;
const DCBAA: u64 = RAM + 0x1000;
const COMMANDS: u64 = RAM + 0x2000;
const ERST: u64 = RAM + 0x3000;
const EVENTS: [u64; 2] = [RAM + 0x4000, RAM + 0x5000];
const EVENTS_EACH: u64 = 16;
const INPUT: u64 = RAM + 0x6000;
/// Device contexts and rings by slot, then free memory.
const SLOTS: u64 = RAM + 0x1_0000;
pub const BUFFER: u64 = RAM + 0x40_0000;

pub struct Driver {
    pub xhci: Arc<Xhci>,
    pub dma: Dma,
    pub clock: Clock,
    pub messages: Arc<Mutex<Vec<Msi>>>,
    pub line: Arc<AtomicBool>,
    commands: (u64, u32),
    /// Segment, index, cycle.
    events: (usize, u64, u32),
    /// Enqueue position and cycle by (slot, endpoint).
    rings: std::collections::HashMap<(u8, u8), (u64, u32)>,
    pub early: Vec<Trb>,
}

pub fn setup(request_type: u8, request: u8, value: u16, index: u16, length: u16) -> u64 {
    u64::from(request_type)
        | u64::from(request) << 8
        | u64::from(value) << 16
        | u64::from(index) << 32
        | u64::from(length) << 48
}

pub fn trb(kind: u8, parameter: u64, status: u32, control: u32) -> Trb {
    Trb {
        parameter,
        status,
        control: control | u32::from(kind) << 10,
    }
}

pub fn code(event: &Trb) -> u8 {
    (event.status >> 24) as u8
}

impl Driver {
    pub fn new() -> Driver {
        let ram = Ram::new(&[(RAM, 16 << 20)]).unwrap();
        let clock = Clock::new();
        let xhci = Xhci::new(Config::default(), ram.dma(), clock.clone()).unwrap();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let sink = messages.clone();
        let (line, level) = Line::probe();
        let endpoint = xhci.endpoint();
        endpoint.connect(0x10, Arc::new(move |m: Msi| sink.lock().push(m)), line);
        endpoint.write_config(4, 2, 6);
        Driver {
            xhci,
            dma: ram.dma(),
            clock,
            messages,
            line: level,
            commands: (COMMANDS, 1),
            events: (0, 0, 1),
            rings: Default::default(),
            early: Vec::new(),
        }
    }

    pub fn read(&self, offset: u64) -> u32 {
        self.xhci.read_bar(0, Access::new(offset, 4)) as u32
    }

    pub fn write(&self, offset: u64, value: u32) {
        self.xhci.write_bar(0, Access::new(offset, 4), value.into());
    }

    pub fn write64(&self, offset: u64, value: u64) {
        self.xhci.write_bar(0, Access::new(offset, 8), value);
    }

    pub fn until(&self, what: &str, mut is: impl FnMut(&Driver) -> bool) {
        let start = Instant::now();
        while !is(self) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "waited for {what} in vain"
            );
            std::thread::yield_now();
        }
    }

    /// Resets the controller, sets up its rings and runs it.
    pub fn start(&mut self) {
        self.write(OPERATIONAL + operational::USBCMD, usbcmd::HCRST);
        self.until("the reset", |d| {
            d.read(OPERATIONAL + operational::USBCMD) & usbcmd::HCRST == 0
        });
        self.dma.fill(RAM, 0x40_0000, 0).unwrap();
        self.commands = (COMMANDS, 1);
        self.events = (0, 0, 1);
        self.rings.clear();
        self.early.clear();
        self.write(OPERATIONAL + operational::CONFIG, 64);
        self.write64(OPERATIONAL + operational::DCBAAP, DCBAA);
        self.write64(OPERATIONAL + operational::CRCR, COMMANDS | 1);
        for (i, segment) in EVENTS.into_iter().enumerate() {
            self.dma.write_u64(ERST + i as u64 * 16, segment).unwrap();
            self.dma
                .write_u32(ERST + i as u64 * 16 + 8, EVENTS_EACH as u32)
                .unwrap();
        }
        self.write(INTERRUPTERS_AT + interrupter::ERSTSZ, EVENTS.len() as u32);
        self.write64(INTERRUPTERS_AT + interrupter::ERDP, EVENTS[0]);
        self.write64(INTERRUPTERS_AT + interrupter::ERSTBA, ERST);
        self.write(INTERRUPTERS_AT + interrupter::IMOD, 0);
        self.write(INTERRUPTERS_AT + interrupter::IMAN, interrupter::IMAN_IE);
        self.write(
            OPERATIONAL + operational::USBCMD,
            usbcmd::RUN | usbcmd::INTE,
        );
        assert_eq!(
            self.read(OPERATIONAL + operational::USBSTS) & usbsts::HCH,
            0
        );
    }

    /// The next event, if it is there. Does not tell the controller.
    pub fn poll(&mut self) -> Option<Trb> {
        let (segment, index, cycle) = self.events;
        let event = Trb::read(&self.dma, EVENTS[segment] + index * 16).unwrap();
        if event.control & 1 != cycle {
            return None;
        }
        self.events = match (segment, index + 1) {
            (1, EVENTS_EACH) => (0, 0, cycle ^ 1),
            (0, EVENTS_EACH) => (1, 0, cycle),
            (_, next) => (segment, next, cycle),
        };
        Some(event)
    }

    /// Tells the controller how far the driver has come.
    pub fn acknowledge(&self) {
        let (segment, index, _) = self.events;
        let at = EVENTS[segment] + index * 16;
        self.write64(INTERRUPTERS_AT + interrupter::ERDP, at | interrupter::EHB);
    }

    /// The next event of a kind; others that come before it are kept in `early`.
    pub fn event(&mut self, kind: u8) -> Trb {
        let start = Instant::now();
        if let Some(at) = self.early.iter().position(|e| e.kind() == kind) {
            return self.early.remove(at);
        }
        loop {
            if let Some(event) = self.poll() {
                self.acknowledge();
                if event.kind() == kind {
                    return event;
                }
                self.early.push(event);
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "no event of type {kind}"
            );
            std::thread::yield_now();
        }
    }

    /// Enqueues without ringing.
    fn put(&self, (mut at, mut cycle): (u64, u32), mut trb: Trb) -> (u64, u32) {
        trb.control = trb.control & !1 | cycle;
        trb.write(&self.dma, at).unwrap();
        at += 16;
        // Rings of 64 with a link at the end.
        if at & 0x3ff == 0x3f0 {
            let start = at & !0x3ff;
            let chain = trb.control & bit::CHAIN;
            let link = trb_link(start, cycle | bit::TC | chain);
            link.write(&self.dma, at).unwrap();
            (at, cycle) = (start, cycle ^ 1);
        }
        (at, cycle)
    }

    pub fn command(&mut self, trb: Trb) -> Trb {
        let at = self.commands.0;
        self.commands = self.put(self.commands, trb);
        self.write(DOORBELLS, 0);
        let event = self.event(kind::COMMAND_COMPLETION_EVENT);
        assert_eq!(event.parameter, at);
        event
    }

    pub fn context(&self, slot: u8, dci: u8) -> u64 {
        SLOTS + u64::from(slot) * 0x1_0000 + u64::from(dci) * 32
    }

    pub fn ring_start(&self, slot: u8, dci: u8) -> u64 {
        SLOTS + u64::from(slot) * 0x1_0000 + 0x1000 + u64::from(dci) * 0x400
    }

    pub fn position(&self, slot: u8, dci: u8) -> u64 {
        self.rings[&(slot, dci)].0
    }

    /// Writes the input context's endpoint and starts its ring afresh.
    pub fn input_endpoint(&mut self, slot: u8, dci: u8, kind: u32, packet: u32) {
        let ring = self.ring_start(slot, dci);
        self.dma.fill(ring, 0x400, 0).unwrap();
        self.rings.insert((slot, dci), (ring, 1));
        let at = INPUT + 32 + u64::from(dci) * 32;
        self.dma.fill(at, 32, 0).unwrap();
        self.dma.write_u32(at, 3 << 16).unwrap();
        self.dma
            .write_u32(at + 4, packet << 16 | kind << 3 | 3 << 1)
            .unwrap();
        self.dma.write_u64(at + 8, ring | 1).unwrap();
    }

    pub fn input_flags(&self, drop: u32, add: u32) {
        self.dma.write_u32(INPUT, drop).unwrap();
        self.dma.write_u32(INPUT + 4, add).unwrap();
    }

    pub fn address_command(&mut self, slot: u8, port: u8, control: u32) -> Trb {
        self.dma.fill(INPUT, 0x800, 0).unwrap();
        self.input_flags(0, 3);
        self.dma.write_u32(INPUT + 32, 1 << 27).unwrap();
        self.dma
            .write_u32(INPUT + 36, u32::from(port) << 16)
            .unwrap();
        self.input_endpoint(slot, 1, 4, 64);
        self.dma
            .write_u64(DCBAA + u64::from(slot) * 8, self.context(slot, 0))
            .unwrap();
        self.command(trb(
            kind::ADDRESS_DEVICE,
            INPUT,
            0,
            u32::from(slot) << 24 | control,
        ))
    }

    /// Resets the port, enables a slot and addresses the device.
    pub fn enumerate(&mut self, port: u8) -> u8 {
        let at = PORTS + u64::from(port - 1) * PORT_STRIDE;
        self.until("a connection", |d| d.read(at) & portsc::CCS != 0);
        self.write(at, portsc::PP | portsc::PR | portsc::CSC);
        self.until("the port's reset", |d| d.read(at) & portsc::PRC != 0);
        assert_eq!(self.read(at) & (portsc::PR | portsc::PED), portsc::PED);
        self.write(at, portsc::PP | portsc::CHANGES);
        let event = self.command(trb(kind::ENABLE_SLOT, 0, 0, 0));
        assert_eq!(code(&event), 1);
        let slot = event.slot();
        assert_eq!(code(&self.address_command(slot, port, 0)), 1);
        assert_eq!(
            self.dma.read_u32(self.context(slot, 0) + 12).unwrap() >> 27,
            2
        );
        slot
    }

    pub fn configure(&mut self, slot: u8, endpoints: &[(u8, u32, u32)]) -> Trb {
        let mut add = 1;
        for &(dci, kind, packet) in endpoints {
            add |= 1 << dci;
            self.input_endpoint(slot, dci, kind, packet);
        }
        self.input_flags(0, add);
        self.command(trb(
            kind::CONFIGURE_ENDPOINT,
            INPUT,
            0,
            u32::from(slot) << 24,
        ))
    }

    pub fn enqueue(&mut self, slot: u8, dci: u8, trbs: &[Trb]) {
        let mut at = self.rings[&(slot, dci)];
        for trb in trbs {
            at = self.put(at, *trb);
        }
        self.rings.insert((slot, dci), at);
    }

    pub fn ring(&self, slot: u8, dci: u8) {
        self.write(DOORBELLS + u64::from(slot) * 4, dci.into());
    }

    pub fn submit(&mut self, slot: u8, dci: u8, trbs: &[Trb]) {
        self.enqueue(slot, dci, trbs);
        self.ring(slot, dci);
    }

    /// A control transfer; the data stage is at `BUFFER`. The completion code and bytes moved.
    pub fn control(&mut self, slot: u8, setup: u64) -> (u8, u32) {
        let (to_host, length) = (setup & 0x80 != 0, (setup >> 48) as u32);
        let stage = if length == 0 {
            0
        } else {
            2 + u32::from(to_host)
        };
        let mut trbs = vec![trb(kind::SETUP_STAGE, setup, 8, bit::IDT | stage << 16)];
        if length != 0 {
            trbs.push(trb(
                kind::DATA_STAGE,
                BUFFER,
                length,
                bit::ISP | u32::from(to_host) << 16,
            ));
        }
        let status_in = length == 0 || !to_host;
        trbs.push(trb(
            kind::STATUS_STAGE,
            0,
            0,
            bit::IOC | u32::from(status_in) << 16,
        ));
        let last = {
            self.enqueue(slot, 1, &trbs[..trbs.len() - 1]);
            let at = self.position(slot, 1);
            self.enqueue(slot, 1, &trbs[trbs.len() - 1..]);
            at
        };
        self.ring(slot, 1);
        let mut moved = length;
        loop {
            let event = self.event(kind::TRANSFER_EVENT);
            assert_eq!((event.slot(), event.endpoint()), (slot, 1));
            if code(&event) == 13 {
                moved = length - (event.status & 0xff_ffff);
            } else {
                assert!(code(&event) != 1 || event.parameter == last);
                return (code(&event), moved);
            }
        }
    }

    /// Recovers a halted endpoint.
    pub fn recover(&mut self, slot: u8, dci: u8) {
        let to = u32::from(slot) << 24 | u32::from(dci) << 16;
        assert_eq!(code(&self.command(trb(kind::RESET_ENDPOINT, 0, 0, to))), 1);
        let (at, cycle) = self.rings[&(slot, dci)];
        let event = self.command(trb(
            kind::SET_TR_DEQUEUE_POINTER,
            at | u64::from(cycle),
            0,
            to,
        ));
        assert_eq!(code(&event), 1);
    }

    pub fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.dma.read(at, &mut bytes).unwrap();
        bytes
    }
}

pub fn trb_link(to: u64, control: u32) -> Trb {
    trb(kind::LINK, to, 0, control)
}

pub fn normal(at: u64, length: u32, control: u32) -> Trb {
    trb(kind::NORMAL, at, length, control)
}
