//! Human interface devices (Device Class Definition for HID 1.11): keyboard, tablet, mouse.

mod keyboard;
mod pointer;

use std::collections::VecDeque;
use std::sync::Arc;

use device::Clock;
use device::input::{Event, Input, Wants};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use keyboard::{KeyboardReports, Leds};
pub use pointer::{MouseReports, TabletReports};

use crate::device::{Bus, Notifier, Outcome, Packet, Setup, Speed, UsbDevice};
use crate::spec::{descriptor, transfer};
use crate::standard::{Answer, Descriptors, Endpoint, Interface, Standard};

/// Class requests (HID 1.11, 7.2).
mod request {
    pub const GET_REPORT: u8 = 1;
    pub const GET_IDLE: u8 = 2;
    pub const GET_PROTOCOL: u8 = 3;
    pub const SET_REPORT: u8 = 9;
    pub const SET_IDLE: u8 = 10;
    pub const SET_PROTOCOL: u8 = 11;
}

/// Report types in the upper byte of GET_REPORT's and SET_REPORT's wValue.
mod report_type {
    pub const INPUT: u16 = 1;
    pub const OUTPUT: u16 = 2;
}

/// The interrupt-IN endpoint.
const REPORTS: u8 = 0x81;

/// A queue of more reports than this drops its oldest.
pub const QUEUE: usize = 64;

/// One input report, at most eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    bytes: [u8; 8],
    length: u8,
}

impl Report {
    /// Of at most eight bytes.
    pub fn new(from: &[u8]) -> Report {
        let mut bytes = [0; 8];
        let length = from.len().min(8);
        bytes[..length].copy_from_slice(&from[..length]);
        Report {
            bytes,
            length: length as u8,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length.min(8))]
    }
}

/// HID's two ways to report: a fixed layout for firmware, or what the report descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    Boot = 0,
    Report = 1,
}

/// What a kind of HID device makes of events.
pub trait Reports: Clone + Default + Send + Sync + Serialize + 'static {
    /// Name, product string and interface sub-class and protocol (1, 1: boot keyboard; 1, 2: boot mouse).
    const NAME: &'static str;
    const PRODUCT: &'static str;
    const SUBCLASS: [u8; 2];
    /// The report descriptor.
    const DESCRIPTOR: &'static [u8];
    /// wMaxPacketSize of the interrupt endpoint.
    const PACKET: u16;
    /// The events it wants.
    const WANTS: Wants;

    /// Takes an event; appends the reports that tell of it to `queue`, or merges it into the last one when that loses nothing.
    fn event(&mut self, event: Event, protocol: Protocol, queue: &mut VecDeque<Report>);

    /// The current state as a report.
    fn current(&self, protocol: Protocol) -> Report;

    /// An output report; whether there is such a thing.
    fn output(&mut self, _bytes: &[u8]) -> bool {
        false
    }
}

/// What a HID device is made as.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name in logs, the user's `id=`.
    pub name: String,
    /// The serial number string.
    pub serial: String,
    /// USB 2.0 (high speed) as QEMU's `usb_version=2`, or full speed.
    pub high_speed: bool,
}

/// The state of a HID device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State<R> {
    standard: Standard,
    protocol: Protocol,
    /// SET_IDLE's duration in 4 ms units; 0: reports only when something changed.
    idle: u8,
    /// The idle time has passed: the current report is due again.
    repeat: bool,
    /// Reports the host has not fetched. A report leaves when the host takes it, so that a press and a release
    /// between two polls are both seen. When more than [`QUEUE`] wait, the oldest go: the latest state is always told.
    queue: VecDeque<Report>,
    reports: R,
}

impl<R: Reports> State<R> {
    fn power_on() -> State<R> {
        State {
            standard: Standard::default(),
            protocol: Protocol::Report,
            idle: 0,
            repeat: false,
            queue: VecDeque::new(),
            reports: R::default(),
        }
    }

    /// The Default state: what is held down stays held down.
    fn bus_reset(&mut self) {
        *self = State {
            reports: self.reports.clone(),
            ..State::power_on()
        };
    }

    /// The idle timer went off: whether the report is due again. It may have gone off before a request or a reset
    /// ended the repeating, and say so only now.
    fn idle_time_passed(&mut self) -> bool {
        self.repeat = self.idle != 0;
        self.repeat
    }
}

struct Wiring {
    notifier: Notifier,
    speed: Speed,
}

/// A HID device.
pub struct Hid<R: Reports> {
    config: Config,
    state: Arc<Mutex<State<R>>>,
    wiring: Arc<Mutex<Wiring>>,
    clock: Clock,
    idle: device::Timer,
}

/// `usb-kbd`: a boot keyboard.
pub type Keyboard = Hid<KeyboardReports>;
/// `usb-tablet`: an absolute pointer.
pub type Tablet = Hid<TabletReports>;
/// `usb-mouse`: a boot mouse.
pub type Mouse = Hid<MouseReports>;

impl<R: Reports> Hid<R> {
    /// An unplugged one.
    pub fn new(config: Config, clock: Clock) -> Arc<Hid<R>> {
        let state = Arc::new(Mutex::new(State::<R>::power_on()));
        let wiring = Arc::new(Mutex::new(Wiring {
            notifier: Notifier::default(),
            speed: Speed::High,
        }));
        let (of_timer, notify) = (state.clone(), wiring.clone());
        let idle = clock.timer(move || {
            if !of_timer.lock().idle_time_passed() {
                return;
            }
            let notifier = notify.lock().notifier.clone();
            notifier.ready(REPORTS);
        });
        Arc::new(Hid {
            config,
            state,
            wiring,
            clock,
            idle,
        })
    }

    /// A copy of the state.
    pub fn state(&self) -> State<R> {
        self.state.lock().clone()
    }

    fn interface(&self, high_speed: bool) -> Interface {
        let mut extra = vec![9, descriptor::HID, 0x11, 0x01, 0, 1, descriptor::HID_REPORT];
        extra.extend((R::DESCRIPTOR.len() as u16).to_le_bytes());
        // Polled each millisecond: at high speed 2^(4-1) microframes.
        let interval = if high_speed { 4 } else { 1 };
        let endpoint = Endpoint {
            address: REPORTS,
            kind: transfer::INTERRUPT,
            max_packet: R::PACKET,
            interval,
            max_burst: 0,
        };
        Interface {
            class: [3, R::SUBCLASS[0], R::SUBCLASS[1]],
            extra,
            endpoints: vec![endpoint],
        }
    }

    fn descriptors(&self) -> Descriptors {
        let speed = self.wiring.lock().speed;
        let high = speed == Speed::High;
        Descriptors {
            speed,
            vendor: 0x0627,
            product: 0x0001,
            manufacturer_name: "Dormer",
            product_name: R::PRODUCT,
            serial: self.config.serial.clone(),
            self_powered: false,
            remote_wakeup: true,
            milliamperes: 100,
            interface: self.interface(high),
            other_speed: self.config.high_speed.then(|| self.interface(!high)),
        }
    }

    fn rearm(&self, state: &State<R>) {
        match state.idle {
            0 => self.idle.cancel(),
            units => self
                .idle
                .arm(self.clock.now() + u64::from(units) * 4_000_000),
        }
    }

    fn class_request(&self, state: &mut State<R>, setup: Setup, data: &mut Packet<'_>) -> Outcome {
        let interface_in = |setup: Setup, class: u8| setup.request_type == 0x81 | class;
        let interface_out = |setup: Setup| setup.request_type == 0x21;
        const CLASS: u8 = 0x20;
        if setup.index as u8 != 0 {
            return Outcome::Stall;
        }
        match setup.request {
            crate::spec::request::GET_DESCRIPTOR if interface_in(setup, 0) => {
                match (setup.value >> 8) as u8 {
                    descriptor::HID_REPORT => data.write(R::DESCRIPTOR),
                    descriptor::HID => data.write(&self.interface(true).extra),
                    _ => return Outcome::Stall,
                }
            }
            request::GET_REPORT
                if interface_in(setup, CLASS) && setup.value >> 8 == report_type::INPUT =>
            {
                data.write(state.reports.current(state.protocol).bytes())
            }
            request::GET_IDLE if interface_in(setup, CLASS) => data.write(&[state.idle]),
            request::GET_PROTOCOL if interface_in(setup, CLASS) && R::SUBCLASS[0] == 1 => {
                data.write(&[state.protocol as u8])
            }
            request::SET_REPORT
                if interface_out(setup) && setup.value >> 8 == report_type::OUTPUT =>
            {
                let mut bytes = [0; 8];
                let n = data.read(&mut bytes);
                if !state.reports.output(&bytes[..n]) {
                    return Outcome::Stall;
                }
                n
            }
            request::SET_IDLE if interface_out(setup) => {
                state.idle = (setup.value >> 8) as u8;
                state.repeat = false;
                self.rearm(state);
                0
            }
            request::SET_PROTOCOL
                if interface_out(setup) && R::SUBCLASS[0] == 1 && setup.value <= 1 =>
            {
                state.protocol = if setup.value == 0 {
                    Protocol::Boot
                } else {
                    Protocol::Report
                };
                0
            }
            _ => return Outcome::Stall,
        };
        Outcome::Done
    }
}

impl<R: Reports> UsbDevice for Hid<R> {
    fn name(&self) -> &str {
        if self.config.name.is_empty() {
            R::NAME
        } else {
            &self.config.name
        }
    }

    fn speed(&self, bus: Bus) -> Option<Speed> {
        match bus {
            Bus::Usb2 if self.config.high_speed => Some(Speed::High),
            Bus::Usb2 => Some(Speed::Full),
            Bus::Usb3 => None,
        }
    }

    fn connect(&self, speed: Speed, notifier: Notifier) {
        *self.wiring.lock() = Wiring { notifier, speed };
    }

    fn disconnect(&self) {
        self.wiring.lock().notifier = Notifier::default();
        self.idle.cancel();
        self.state.lock().bus_reset();
    }

    fn power_cycle(&self) {
        self.idle.cancel();
        *self.state.lock() = State::power_on();
    }

    fn bus_reset(&self) {
        self.idle.cancel();
        self.state.lock().bus_reset();
    }

    fn control(&self, setup: Setup, data: &mut Packet<'_>) -> Outcome {
        let descriptors = self.descriptors();
        let mut state = self.state.lock();
        match state.standard.request(&descriptors, setup, data) {
            Answer::Answered(outcome) => outcome,
            Answer::Configured => {
                state.queue.clear();
                Outcome::Done
            }
            Answer::HaltCleared(_) => Outcome::Done,
            Answer::NotStandard => self.class_request(&mut state, setup, data),
        }
    }

    fn transfer(&self, endpoint: u8, data: &mut Packet<'_>) -> Outcome {
        let mut state = self.state.lock();
        if endpoint != REPORTS
            || state.standard.configuration == 0
            || state.standard.halted(endpoint)
        {
            return Outcome::Stall;
        }
        let report = match state.queue.pop_front() {
            Some(report) => report,
            None if state.repeat => state.reports.current(state.protocol),
            None => return Outcome::Nak,
        };
        state.repeat = false;
        self.rearm(&state);
        data.write(report.bytes());
        Outcome::Done
    }
}

impl<R: Reports> Input for Hid<R> {
    fn wants(&self) -> Wants {
        R::WANTS
    }

    fn event(&self, event: Event) {
        let wake = {
            let mut state = self.state.lock();
            let State {
                reports,
                queue,
                protocol,
                standard,
                ..
            } = &mut *state;
            reports.event(event, *protocol, queue);
            // Nobody listens before the device is configured: what is held down is remembered, what happened is not.
            if standard.configuration == 0 {
                queue.clear();
            }
            while queue.len() > QUEUE {
                queue.pop_front();
            }
            standard.remote_wakeup && !queue.is_empty()
        };
        let notifier = self.wiring.lock().notifier.clone();
        if wake {
            notifier.wake();
        }
        notifier.ready(REPORTS);
    }
}

#[cfg(test)]
mod tests;
