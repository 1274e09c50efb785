//! `usb-ncm`: a network card by CDC's Network Control Model, with the descriptor by which Windows 11 finds its own driver.

mod descriptors;
pub mod ntb;
pub mod spec;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use network::{Accepts, Frame, Link, Nic};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::device::{Bus, Notifier, Outcome, Packet, Setup, Speed, UsbDevice};
use crate::spec::{descriptor, request as standard_request};
use crate::standard::{Answer, Standard};
use descriptors::{CONTROL, DATA, MAC_STRING};
use ntb::Format;
use spec::{NTB_MAX, NTB_MIN, filter, notification, request};

/// Endpoints.
const NOTIFICATIONS: u8 = 0x81;
const IN: u8 = 0x82;
const OUT: u8 = 0x03;
/// Frames and bytes that wait for the guest at most.
const FRAMES: usize = 512;
const BYTES: usize = 512 << 10;
/// Bit/s that the guest is told.
const BIT_RATE: u32 = 4_000_000_000;

/// What a `usb-ncm` device is made as.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name in logs, the user's `id=`.
    pub name: String,
    /// The guest's address.
    pub mac: [u8; 6],
}

/// What the guest set, and what waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    standard: Standard,
    /// The data interface's alternate setting: 1 has endpoints.
    alternate: u8,
    format: Format,
    input_size: u32,
    /// Frames in a block to the guest at most; 0 for no limit.
    input_frames: u16,
    filter: u16,
    sequence: u16,
    notifications: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// What is left of a block that did not fit a transfer.
    block: Vec<u8>,
    /// A block from the guest, as far as it came.
    partial: Vec<u8>,
    /// Frames from the guest that the back end had no room for. Their transfer is not over before they went: with none under
    /// way, nobody would come back to them.
    from_guest: VecDeque<Vec<u8>>,
    /// The transfer under way is such a one.
    held: bool,
}

impl State {
    fn power_on() -> State {
        State {
            standard: Standard::default(),
            alternate: 0,
            format: Format::Ntb16,
            input_size: NTB_MAX,
            input_frames: 0,
            filter: filter::DIRECTED | filter::BROADCAST | filter::ALL_MULTICAST,
            sequence: 0,
            notifications: VecDeque::new(),
            to_guest: VecDeque::new(),
            waiting_bytes: 0,
            block: Vec::new(),
            partial: Vec::new(),
            from_guest: VecDeque::new(),
            held: false,
        }
    }

    /// The data interface starts afresh (NCM 1.0, 7.2).
    fn set_alternate(&mut self, alternate: u8, up: bool) {
        self.alternate = alternate;
        self.clear_data();
        self.notifications.clear();
        if alternate == 1 {
            self.announce(up);
        } else {
            self.format = Format::Ntb16;
            self.input_size = NTB_MAX;
            self.input_frames = 0;
        }
    }

    fn clear_data(&mut self) {
        self.to_guest.clear();
        self.waiting_bytes = 0;
        self.block.clear();
        self.partial.clear();
        self.from_guest.clear();
        self.held = false;
    }

    /// Tells of the link: its speed first, or hosts think that it is slow (NCM 1.0, 7.1).
    fn announce(&mut self, up: bool) {
        let head = |kind: u8, value: u16, length: u16| {
            let mut bytes = vec![0xa1, kind];
            bytes.extend(value.to_le_bytes());
            bytes.extend(u16::from(CONTROL).to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes
        };
        self.notifications.clear();
        if up {
            let mut speed = head(notification::CONNECTION_SPEED_CHANGE, 0, 8);
            speed.extend(BIT_RATE.to_le_bytes());
            speed.extend(BIT_RATE.to_le_bytes());
            self.notifications.push_back(speed);
        }
        let connection = head(notification::NETWORK_CONNECTION, up.into(), 0);
        self.notifications.push_back(connection);
    }

    /// Whether the guest wants a frame to this address (ECM 1.2, 6.2.4).
    fn wants(&self, to: [u8; 6], mac: [u8; 6]) -> bool {
        let needed = if to == [0xff; 6] {
            filter::BROADCAST
        } else if to[0] & 1 != 0 {
            filter::ALL_MULTICAST | filter::MULTICAST
        } else if to == mac {
            filter::DIRECTED
        } else {
            0
        };
        self.filter & (needed | filter::PROMISCUOUS) != 0
    }

    /// A block of what waits, as large as the host takes.
    fn next_block(&mut self) -> bool {
        let most = self.input_size as usize;
        let limit = match self.input_frames {
            0 => usize::MAX,
            n => n.into(),
        };
        let (mut count, mut lengths) = (0, Vec::new());
        for frame in self.to_guest.iter().take(limit.min(64)) {
            lengths.push(frame.len());
            if self.format.length(lengths.iter().copied()) > most {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return false;
        }
        let frames: Vec<_> = self.to_guest.drain(..count).collect();
        self.waiting_bytes -= frames.iter().map(Vec::len).sum::<usize>();
        self.block = ntb::build(self.format, self.sequence, &frames);
        self.sequence = self.sequence.wrapping_add(1);
        true
    }
}

struct Wiring {
    notifier: Notifier,
    speed: Speed,
    /// The back end was refused a frame.
    starved: bool,
}

/// A `usb-ncm` device.
pub struct Ncm {
    config: Config,
    link: Arc<Link>,
    // Taken after nothing; never held while the wire is called, which may call back.
    state: Mutex<State>,
    wiring: Mutex<Wiring>,
}

impl Ncm {
    /// A card on `link`, not plugged in. None if the link has a NIC.
    pub fn new(config: Config, link: Arc<Link>) -> Option<Arc<Ncm>> {
        let ncm = Arc::new(Ncm {
            config,
            link: link.clone(),
            state: Mutex::new(State::power_on()),
            wiring: Mutex::new(Wiring {
                notifier: Notifier::default(),
                speed: Speed::High,
                starved: false,
            }),
        });
        let nic: Arc<dyn Nic> = ncm.clone();
        link.connect_nic(Arc::downgrade(&nic)).then_some(ncm)
    }

    fn speed_now(&self) -> Speed {
        self.wiring.lock().speed
    }

    fn notify(&self, endpoint: u8) {
        let notifier = self.wiring.lock().notifier.clone();
        notifier.ready(endpoint);
    }

    /// Descriptors that standard devices do not have.
    fn descriptor(&self, value: u16, speed: Speed) -> Option<Vec<u8>> {
        let [index, kind] = value.to_le_bytes();
        let other = if speed == Speed::High {
            Speed::Full
        } else {
            Speed::High
        };
        Some(match (kind, index) {
            (descriptor::DEVICE, 0) => {
                let standard = descriptors::for_requests(speed, &self.mac_string());
                descriptors::device(standard.find(value)?)
            }
            (descriptor::DEVICE_QUALIFIER, 0) => {
                let standard = descriptors::for_requests(speed, &self.mac_string());
                descriptors::composite(standard.find(value)?)
            }
            (descriptor::CONFIGURATION, 0) => descriptors::configuration(kind, speed),
            (descriptor::OTHER_SPEED_CONFIGURATION, 0) if speed != Speed::Super => {
                descriptors::configuration(kind, other)
            }
            (descriptor::BOS, 0) => descriptors::bos(speed),
            (descriptor::STRING, MAC_STRING) => descriptors::string(&self.mac_string()),
            (descriptor::STRING, spec::MS_STRING) => descriptors::ms_string(),
            _ => return None,
        })
    }

    /// Twelve digits (ECM 1.2, 5.4).
    fn mac_string(&self) -> String {
        self.config.mac.iter().map(|b| format!("{b:02X}")).collect()
    }

    /// Requests of two interfaces, and of the class; nothing if it is for the standard ones.
    fn request(
        &self,
        state: &mut State,
        setup: Setup,
        data: &mut Packet<'_>,
        speed: Speed,
    ) -> Option<Outcome> {
        let interface = setup.index as u8;
        let done = |wrote: usize, expected: usize| {
            if wrote == expected {
                Outcome::Done
            } else {
                Outcome::Stall
            }
        };
        match (setup.request_type, setup.request) {
            (0x80, standard_request::GET_DESCRIPTOR) => {
                let bytes = self.descriptor(setup.value, speed)?;
                data.write(&bytes);
            }
            (0x01, standard_request::SET_INTERFACE) if state.standard.configuration != 0 => {
                match (interface, setup.value) {
                    (CONTROL, 0) => {}
                    (DATA, 0 | 1) => {
                        state.set_alternate(setup.value as u8, self.link.is_up());
                    }
                    _ => return Some(Outcome::Stall),
                }
            }
            (0x81, standard_request::GET_INTERFACE) if state.standard.configuration != 0 => {
                match interface {
                    CONTROL => data.write(&[0]),
                    DATA => data.write(&[state.alternate]),
                    _ => return Some(Outcome::Stall),
                };
            }
            (0x81, standard_request::GET_STATUS) if interface == DATA => {
                data.write(&[0, 0]);
            }
            (0xc0 | 0xc1, spec::MS_VENDOR) if setup.index == spec::MS_COMPAT_ID => {
                data.write(&descriptors::ms_compat_id());
            }
            (0xc0, spec::MS_VENDOR) if setup.index == spec::MS_OS_20_DESCRIPTOR_INDEX => {
                data.write(&descriptors::ms_descriptor_set());
            }
            (0xa1 | 0x21, _) if interface != CONTROL => return Some(Outcome::Stall),
            (0xa1, request::GET_NTB_PARAMETERS) => {
                data.write(&parameters());
            }
            (0xa1, request::GET_NTB_FORMAT) => {
                data.write(&u16::from(state.format == Format::Ntb32).to_le_bytes());
            }
            // Only while the data interface is off (NCM 1.0, 6.2.5).
            (0x21, request::SET_NTB_FORMAT) if state.alternate == 0 => {
                state.format = match setup.value {
                    0 => Format::Ntb16,
                    1 => Format::Ntb32,
                    _ => return Some(Outcome::Stall),
                };
            }
            (0xa1, request::GET_NTB_INPUT_SIZE) => {
                let mut bytes = Vec::from(state.input_size.to_le_bytes());
                bytes.extend(state.input_frames.to_le_bytes());
                bytes.extend([0, 0]);
                data.write(&bytes);
            }
            (0x21, request::SET_NTB_INPUT_SIZE) => {
                let mut bytes = [0; 8];
                let n = data.read(&mut bytes);
                let [a, b, c, d, e, f, ..] = bytes;
                let size = u32::from_le_bytes([a, b, c, d]);
                if !matches!(n, 4 | 8) || !(NTB_MIN..=NTB_MAX).contains(&size) {
                    return Some(Outcome::Stall);
                }
                state.input_size = size;
                state.input_frames = if n == 8 {
                    u16::from_le_bytes([e, f])
                } else {
                    0
                };
            }
            (0x21, request::SET_ETHERNET_PACKET_FILTER) => state.filter = setup.value,
            // All groups come as long as any do.
            (0x21, request::SET_ETHERNET_MULTICAST_FILTERS) => {
                let mut left = usize::from(setup.length);
                let mut bytes = [0; 64];
                while left > 0 {
                    let n = data.read(&mut bytes[..left.min(64)]);
                    if n == 0 {
                        return Some(done(left, 0));
                    }
                    left -= n;
                }
            }
            (0x21 | 0xa1, _) => return Some(Outcome::Stall),
            _ => return None,
        }
        Some(Outcome::Done)
    }

    /// Sends what the back end had no room for: whether all went.
    fn send_rest(&self) -> bool {
        loop {
            let Some(frame) = self.state.lock().from_guest.pop_front() else {
                return true;
            };
            if !self.link.send(&Frame::plain(&[&frame])) {
                self.state.lock().from_guest.push_front(frame);
                return false;
            }
        }
    }

    fn bulk_out(&self, data: &mut Packet<'_>, max_packet: usize) -> Outcome {
        if !self.send_rest() {
            return Outcome::Nak;
        }
        let (block, frames) = {
            let mut state = self.state.lock();
            if std::mem::take(&mut state.held) && data.remaining() == 0 {
                drop(state);
                self.link.flush();
                return Outcome::Done;
            }
            let length = data.remaining() as usize;
            let before = state.partial.len();
            let room = (NTB_MAX as usize).saturating_sub(before);
            if length > room {
                // More than was agreed on: none of it is a block.
                state.partial.clear();
                let mut rest = [0; 4096];
                while data.read(&mut rest) > 0 {}
                return Outcome::Done;
            }
            state.partial.resize(before + length, 0);
            data.read(&mut state.partial[before..]);
            let expected = ntb::block_length(state.format, &state.partial).unwrap_or(0);
            let goes_on = length > 0
                && length.is_multiple_of(max_packet)
                && state.partial.len() < expected.min(NTB_MAX as usize);
            if goes_on {
                return Outcome::Done;
            }
            let block = std::mem::take(&mut state.partial);
            let frames = ntb::parse(state.format, &block);
            (block, frames)
        };
        let mut refused = false;
        for range in frames {
            let frame = &block[range];
            if !(14..=usize::from(spec::SEGMENT)).contains(&frame.len()) {
                continue;
            }
            refused |= refused || !self.link.send(&Frame::plain(&[frame]));
            if refused {
                self.state.lock().from_guest.push_back(frame.to_vec());
            }
        }
        self.link.flush();
        // The buffer is used again.
        let mut state = self.state.lock();
        if state.partial.is_empty() {
            let mut block = block;
            block.clear();
            state.partial = block;
        }
        state.held = refused;
        if refused { Outcome::Nak } else { Outcome::Done }
    }

    fn bulk_in(&self, data: &mut Packet<'_>) -> Outcome {
        {
            let mut state = self.state.lock();
            if state.block.is_empty() && !state.next_block() {
                return Outcome::Nak;
            }
            let n = data.write(&state.block);
            state.block.drain(..n);
        }
        let starved = std::mem::take(&mut self.wiring.lock().starved);
        if starved {
            self.link.nic_ready();
        }
        Outcome::Done
    }
}

/// The NTB parameter structure (NCM 1.0, table 6-3).
fn parameters() -> Vec<u8> {
    let align = spec::ALIGN as u16;
    let mut bytes = Vec::from(28u16.to_le_bytes());
    bytes.extend(3u16.to_le_bytes());
    bytes.extend(NTB_MAX.to_le_bytes());
    for field in [align, 0, align, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(NTB_MAX.to_le_bytes());
    for field in [align, 0, align, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes
}

impl Nic for Ncm {
    fn receive(&self, frame: &Frame<'_>) -> bool {
        let length = frame.length();
        let mut to = [0; 6];
        frame.peek(&mut to);
        {
            let mut state = self.state.lock();
            if state.alternate != 1
                || length > spec::SEGMENT.into()
                || !state.wants(to, self.config.mac)
            {
                return true;
            }
            if state.to_guest.len() >= FRAMES || state.waiting_bytes + length > BYTES {
                drop(state);
                self.wiring.lock().starved = true;
                return false;
            }
            let first = state.to_guest.is_empty();
            state.waiting_bytes += length;
            state.to_guest.push_back(frame.to_vec());
            if !first {
                return true;
            }
        }
        self.notify(IN);
        true
    }

    fn accepts(&self) -> Accepts {
        Accepts::default()
    }

    fn send_ready(&self) {
        self.notify(OUT);
    }

    fn link_changed(&self, up: bool) {
        {
            let mut state = self.state.lock();
            if state.alternate != 1 {
                return;
            }
            state.announce(up);
        }
        self.notify(NOTIFICATIONS);
    }
}

impl UsbDevice for Ncm {
    fn name(&self) -> &str {
        if self.config.name.is_empty() {
            "usb-ncm"
        } else {
            &self.config.name
        }
    }

    fn speed(&self, bus: Bus) -> Option<Speed> {
        Some(match bus {
            Bus::Usb2 => Speed::High,
            Bus::Usb3 => Speed::Super,
        })
    }

    fn connect(&self, speed: Speed, notifier: Notifier) {
        let mut wiring = self.wiring.lock();
        wiring.notifier = notifier;
        wiring.speed = speed;
    }

    fn disconnect(&self) {
        self.wiring.lock().notifier = Notifier::default();
        *self.state.lock() = State::power_on();
    }

    fn power_cycle(&self) {
        *self.state.lock() = State::power_on();
    }

    fn bus_reset(&self) {
        *self.state.lock() = State::power_on();
    }

    fn control(&self, setup: Setup, data: &mut Packet<'_>) -> Outcome {
        let speed = self.speed_now();
        let mut state = self.state.lock();
        if let Some(outcome) = self.request(&mut state, setup, data, speed) {
            let announced = !state.notifications.is_empty();
            drop(state);
            if announced {
                self.notify(NOTIFICATIONS);
            }
            return outcome;
        }
        let standard = descriptors::for_requests(speed, &self.mac_string());
        match state.standard.request(&standard, setup, data) {
            Answer::Answered(outcome) => outcome,
            Answer::Configured => {
                state.set_alternate(0, false);
                Outcome::Done
            }
            Answer::HaltCleared(_) => Outcome::Done,
            Answer::NotStandard => Outcome::Stall,
        }
    }

    fn transfer(&self, endpoint: u8, data: &mut Packet<'_>) -> Outcome {
        let max_packet = match self.speed_now() {
            Speed::Super => 1024,
            Speed::High => 512,
            Speed::Full | Speed::Low => 64,
        };
        {
            let mut state = self.state.lock();
            let missing = state.standard.configuration == 0 || state.standard.halted(endpoint);
            if missing || (endpoint != NOTIFICATIONS && state.alternate != 1) {
                return Outcome::Stall;
            }
            if endpoint == NOTIFICATIONS {
                let Some(bytes) = state.notifications.pop_front() else {
                    return Outcome::Nak;
                };
                data.write(&bytes);
                return Outcome::Done;
            }
        }
        match endpoint {
            IN => self.bulk_in(data),
            OUT => self.bulk_out(data, max_packet),
            _ => Outcome::Stall,
        }
    }
}
