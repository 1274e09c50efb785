//! The standard requests, the same for every device (USB 2.0, 9.4; USB 3.2, 9.4).

use serde::{Deserialize, Serialize};

use crate::device::{Outcome, Packet, Setup, Speed};
use crate::spec::{attributes, descriptor, feature, request};

/// One endpoint of an interface.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `bEndpointAddress`.
    pub address: u8,
    /// Transfer type, of [`crate::spec::transfer`].
    pub kind: u8,
    /// `wMaxPacketSize`.
    pub max_packet: u16,
    /// `bInterval`.
    pub interval: u8,
    /// SuperSpeed: `bMaxBurst`.
    pub max_burst: u8,
}

/// The only interface of a device.
#[derive(Clone, Debug)]
pub struct Interface {
    /// `bInterfaceClass`, `bInterfaceSubClass`, `bInterfaceProtocol`.
    pub class: [u8; 3],
    /// Class descriptors, between the interface's and its endpoints'.
    pub extra: Vec<u8>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// What a device says of itself at one speed.
#[derive(Clone, Debug)]
pub struct Descriptors {
    pub speed: Speed,
    pub vendor: u16,
    pub product: u16,
    pub manufacturer_name: &'static str,
    pub product_name: &'static str,
    pub serial: String,
    pub self_powered: bool,
    pub remote_wakeup: bool,
    /// `bMaxPower` in mA.
    pub milliamperes: u16,
    pub interface: Interface,
    /// The interface at the speed's counterpart (high: full; full: high), for the qualifier descriptors.
    pub other_speed: Option<Interface>,
}

/// String indices.
const MANUFACTURER: u8 = 1;
const PRODUCT: u8 = 2;
const SERIAL: u8 = 3;

impl Descriptors {
    fn bcd_usb(&self) -> u16 {
        if self.speed == Speed::Super {
            0x0300
        } else {
            0x0200
        }
    }

    fn device(&self) -> Vec<u8> {
        // SuperSpeed gives endpoint 0's packet size as an exponent: 2^9.
        let packet_size = match self.speed {
            Speed::Super => 9,
            Speed::High => 64,
            Speed::Full | Speed::Low => 8,
        };
        let serial = if self.serial.is_empty() { 0 } else { SERIAL };
        let mut d = vec![18, descriptor::DEVICE];
        d.extend(self.bcd_usb().to_le_bytes());
        d.extend([0, 0, 0, packet_size]);
        d.extend(self.vendor.to_le_bytes());
        d.extend(self.product.to_le_bytes());
        d.extend([0x00, 0x01, MANUFACTURER, PRODUCT, serial, 1]);
        d
    }

    fn qualifier(&self) -> Option<Vec<u8>> {
        self.other_speed.as_ref()?;
        let packet_size = if self.speed == Speed::High { 8 } else { 64 };
        Some(vec![
            10,
            descriptor::DEVICE_QUALIFIER,
            0x00,
            0x02,
            0,
            0,
            0,
            packet_size,
            1,
            0,
        ])
    }

    fn configuration(&self, kind: u8, interface: &Interface) -> Vec<u8> {
        let mut bits = attributes::ONE;
        if self.self_powered {
            bits |= attributes::SELF_POWERED;
        }
        if self.remote_wakeup {
            bits |= attributes::REMOTE_WAKEUP;
        }
        let power = self.milliamperes / if self.speed == Speed::Super { 8 } else { 2 };
        let [class, sub_class, protocol] = interface.class;
        let endpoints = interface.endpoints.len() as u8;
        let mut d = vec![9, kind, 0, 0, 1, 1, 0, bits, power.min(255) as u8];
        d.extend([
            9,
            descriptor::INTERFACE,
            0,
            0,
            endpoints,
            class,
            sub_class,
            protocol,
            0,
        ]);
        d.extend(&interface.extra);
        for e in &interface.endpoints {
            let [low, high] = e.max_packet.to_le_bytes();
            d.extend([
                7,
                descriptor::ENDPOINT,
                e.address,
                e.kind,
                low,
                high,
                e.interval,
            ]);
            if self.speed == Speed::Super {
                let per_interval = if e.kind == crate::spec::transfer::BULK {
                    [0, 0]
                } else {
                    [low, high]
                };
                d.extend([6, descriptor::SUPERSPEED_ENDPOINT_COMPANION, e.max_burst, 0]);
                d.extend(per_interval);
            }
        }
        let total = (d.len() as u16).to_le_bytes();
        d[2..4].copy_from_slice(&total);
        d
    }

    fn bos(&self) -> Option<Vec<u8>> {
        (self.speed == Speed::Super).then(|| bos(self.speed, &[]))
    }

    fn string(&self, index: u8) -> Option<Vec<u8>> {
        let text = match index {
            0 => return Some(vec![4, descriptor::STRING, 0x09, 0x04]),
            MANUFACTURER => self.manufacturer_name,
            PRODUCT => self.product_name,
            SERIAL if !self.serial.is_empty() => &self.serial,
            _ => return None,
        };
        // bLength is one byte: 126 code units at most.
        let units: Vec<u8> = text
            .encode_utf16()
            .take(126)
            .flat_map(u16::to_le_bytes)
            .collect();
        let mut d = vec![2 + units.len() as u8, descriptor::STRING];
        d.extend(units);
        Some(d)
    }

    /// The descriptor of `GET_DESCRIPTOR`'s wValue.
    pub fn find(&self, value: u16) -> Option<Vec<u8>> {
        let [index, kind] = value.to_le_bytes();
        match (kind, index) {
            (descriptor::DEVICE, 0) => Some(self.device()),
            (descriptor::CONFIGURATION, 0) => Some(self.configuration(kind, &self.interface)),
            (descriptor::STRING, _) => self.string(index),
            (descriptor::DEVICE_QUALIFIER, 0) => self.qualifier(),
            (descriptor::OTHER_SPEED_CONFIGURATION, 0) => self
                .other_speed
                .as_ref()
                .map(|i| self.configuration(kind, i)),
            (descriptor::BOS, 0) => self.bos(),
            _ => None,
        }
    }

    fn has_endpoint(&self, address: u8) -> bool {
        self.interface
            .endpoints
            .iter()
            .any(|e| e.address == address)
    }
}

/// A Binary Object Store: USB 2.0 extension (no LPM), SuperSpeed capability at that speed (USB 3.2, 9.6.2), and `more`, one
/// other capability if it is not empty.
pub fn bos(speed: Speed, more: &[u8]) -> Vec<u8> {
    let mut d = vec![5, descriptor::BOS, 0, 0, 1];
    d.extend([7, descriptor::DEVICE_CAPABILITY, 2, 0, 0, 0, 0]);
    if speed == Speed::Super {
        d[4] += 1;
        // Full, high and SuperSpeed; all works from high speed up; exit latencies U1 10 us, U2 255 us.
        let bytes = [3, 0, 0x0e, 0, 2, 10, 0xff, 0];
        d.extend([10, descriptor::DEVICE_CAPABILITY]);
        d.extend(bytes);
    }
    if !more.is_empty() {
        d[4] += 1;
        d.extend(more);
    }
    let total = (d.len() as u16).to_le_bytes();
    d[2..4].copy_from_slice(&total);
    d
}

/// What the standard requests change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standard {
    /// The value of the current configuration: 0 or 1.
    pub configuration: u8,
    /// Whether the host lets the device wake it.
    pub remote_wakeup: bool,
    /// U1 enable, U2 enable, LTM enable.
    link_power: [bool; 3],
    /// Halted endpoints: bit n is OUT n, bit 16 + n is IN n.
    halted: u32,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not a standard request, or of a descriptor the class defines.
    NotStandard,
    /// Answered.
    Answered(Outcome),
    /// `SET_CONFIGURATION` or `SET_INTERFACE`: endpoints start afresh. Answered with success.
    Configured,
    /// An endpoint's halt was cleared by the host. Answered with success.
    HaltCleared(u8),
}

fn bit(address: u8) -> u32 {
    1 << ((address & 0xf) + if address & 0x80 != 0 { 16 } else { 0 })
}

impl Standard {
    /// Whether the endpoint is halted.
    pub fn halted(&self, address: u8) -> bool {
        self.halted & bit(address) != 0
    }

    /// Halts the endpoint: it stalls until the host clears it.
    pub fn halt(&mut self, address: u8) {
        self.halted |= bit(address);
    }

    /// Answers a standard request. Those of GET_DESCRIPTOR that `descriptors` does not know are left to the class when
    /// they are of the interface.
    pub fn request(
        &mut self,
        descriptors: &Descriptors,
        setup: Setup,
        data: &mut Packet<'_>,
    ) -> Answer {
        const DEVICE: u8 = 0;
        const INTERFACE: u8 = 1;
        const ENDPOINT: u8 = 2;
        if setup.request_type & 0x60 != 0 {
            return Answer::NotStandard;
        }
        let recipient = setup.request_type & 0x1f;
        let low = setup.index as u8;
        let reply = |data: &mut Packet<'_>, bytes: &[u8]| {
            if setup.is_in() {
                data.write(bytes);
                Answer::Answered(Outcome::Done)
            } else {
                Answer::Answered(Outcome::Stall)
            }
        };
        let stall = Answer::Answered(Outcome::Stall);
        let done = Answer::Answered(Outcome::Done);
        let endpoint_exists =
            low & 0x7f == 0 || (self.configuration != 0 && descriptors.has_endpoint(low));
        let interface_exists = self.configuration != 0 && low == 0;
        let super_speed = descriptors.speed == Speed::Super;

        match (setup.request, recipient) {
            (request::GET_DESCRIPTOR, DEVICE) => match descriptors.find(setup.value) {
                Some(bytes) => reply(data, &bytes),
                None => stall,
            },
            (request::GET_DESCRIPTOR, INTERFACE) => Answer::NotStandard,
            (request::GET_CONFIGURATION, DEVICE) => reply(data, &[self.configuration]),
            (request::SET_CONFIGURATION, DEVICE) if setup.value <= 1 => {
                self.configuration = setup.value as u8;
                self.halted = 0;
                Answer::Configured
            }
            (request::GET_INTERFACE, INTERFACE) if interface_exists => reply(data, &[0]),
            (request::SET_INTERFACE, INTERFACE) if interface_exists && setup.value == 0 => {
                self.halted = 0;
                Answer::Configured
            }
            (request::GET_STATUS, DEVICE) => {
                let [u1, u2, ltm] = self.link_power.map(u8::from);
                let wake = u8::from(self.remote_wakeup && !super_speed);
                let own = u8::from(descriptors.self_powered);
                reply(data, &[own | wake << 1 | u1 << 2 | u2 << 3 | ltm << 4, 0])
            }
            (request::GET_STATUS, INTERFACE) if interface_exists => {
                // SuperSpeed: function remote wake capable and enabled (USB 3.2, 9.4.5).
                let capable = super_speed && descriptors.remote_wakeup;
                let wake = u8::from(capable) | u8::from(capable && self.remote_wakeup) << 1;
                reply(data, &[wake, 0])
            }
            (request::GET_STATUS, ENDPOINT) if endpoint_exists => {
                reply(data, &[u8::from(self.halted(low)), 0])
            }
            (request::CLEAR_FEATURE | request::SET_FEATURE, DEVICE) => {
                let on = setup.request == request::SET_FEATURE;
                match setup.value {
                    feature::DEVICE_REMOTE_WAKEUP if descriptors.remote_wakeup && !super_speed => {
                        self.remote_wakeup = on;
                    }
                    feature::U1_ENABLE..=feature::LTM_ENABLE
                        if super_speed && self.configuration != 0 =>
                    {
                        self.link_power[usize::from(setup.value - feature::U1_ENABLE)] = on;
                    }
                    _ => return stall,
                }
                done
            }
            (request::CLEAR_FEATURE | request::SET_FEATURE, INTERFACE)
                if super_speed && interface_exists && setup.value == feature::FUNCTION_SUSPEND =>
            {
                // The upper byte of wIndex: low-power suspend state, remote wake enabled.
                let on = setup.request == request::SET_FEATURE && setup.index & 0x200 != 0;
                self.remote_wakeup = on && descriptors.remote_wakeup;
                done
            }
            (request::SET_FEATURE, ENDPOINT)
                if endpoint_exists && setup.value == feature::ENDPOINT_HALT =>
            {
                if low & 0x7f != 0 {
                    self.halt(low);
                }
                done
            }
            (request::CLEAR_FEATURE, ENDPOINT)
                if endpoint_exists && setup.value == feature::ENDPOINT_HALT =>
            {
                self.halted &= !bit(low);
                Answer::HaltCleared(low)
            }
            // Exit latencies and delays: nothing here depends on them.
            (request::SET_SEL, DEVICE) if super_speed && setup.length == 6 => done,
            (request::SET_ISOCH_DELAY, DEVICE) if super_speed => done,
            _ => stall,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::transfer;

    fn sample(speed: Speed) -> Descriptors {
        let interface = Interface {
            class: [8, 6, 0x50],
            extra: Vec::new(),
            endpoints: vec![Endpoint {
                address: 0x81,
                kind: transfer::BULK,
                max_packet: 1024,
                interval: 0,
                max_burst: 15,
            }],
        };
        Descriptors {
            speed,
            vendor: 0x46f4,
            product: 1,
            manufacturer_name: "Dormer",
            product_name: "Thing",
            serial: "42".into(),
            self_powered: false,
            remote_wakeup: true,
            milliamperes: 100,
            other_speed: (speed == Speed::High).then(|| interface.clone()),
            interface,
        }
    }

    fn ask(s: &mut Standard, d: &Descriptors, bytes: [u8; 8]) -> (Answer, Vec<u8>) {
        let setup = Setup::from_bytes(bytes);
        let mut buffer = vec![0; setup.length.into()];
        let mut packet = Packet::host(&mut buffer);
        let answer = s.request(d, setup, &mut packet);
        let n = packet.done() as usize;
        buffer.truncate(n);
        (answer, buffer)
    }

    const DONE: Answer = Answer::Answered(Outcome::Done);
    const STALL: Answer = Answer::Answered(Outcome::Stall);

    #[test]
    fn descriptors_are_well_formed() {
        for speed in [Speed::Full, Speed::High, Speed::Super] {
            let d = sample(speed);
            let mut s = Standard::default();
            let (answer, device) = ask(&mut s, &d, [0x80, 6, 0, 1, 0, 0, 64, 0]);
            assert_eq!(answer, DONE);
            assert_eq!(
                (device.len(), device[0], device[1], device[17]),
                (18, 18, 1, 1)
            );
            let (_, start) = ask(&mut s, &d, [0x80, 6, 0, 2, 0, 0, 9, 0]);
            assert_eq!(start.len(), 9);
            let (_, all) = ask(&mut s, &d, [0x80, 6, 0, 2, 0, 0, 255, 0]);
            assert_eq!(all.len(), usize::from(start[2]));
            let mut at = 0;
            let mut kinds = Vec::new();
            while at < all.len() {
                kinds.push(all[at + 1]);
                at += usize::from(all[at]);
            }
            assert_eq!(at, all.len());
            let expected: &[u8] = if speed == Speed::Super {
                &[2, 4, 5, 48]
            } else {
                &[2, 4, 5]
            };
            assert_eq!(kinds, expected);
            let (answer, bos) = ask(&mut s, &d, [0x80, 6, 0, 15, 0, 0, 255, 0]);
            if speed == Speed::Super {
                assert_eq!(usize::from(bos[2]), bos.len());
            } else {
                assert_eq!(answer, STALL);
            }
            let qualifier = ask(&mut s, &d, [0x80, 6, 0, 6, 0, 0, 10, 0]).0;
            assert_eq!(qualifier, if speed == Speed::High { DONE } else { STALL });
            let (_, text) = ask(&mut s, &d, [0x80, 6, 3, 3, 9, 4, 255, 0]);
            assert_eq!(text, [6, 3, b'4', 0, b'2', 0]);
        }
    }

    #[test]
    fn configuration_and_halt() {
        let d = sample(Speed::High);
        let mut s = Standard::default();
        assert_eq!(ask(&mut s, &d, [2, 3, 0, 0, 0x81, 0, 0, 0]).0, STALL);
        assert_eq!(
            ask(&mut s, &d, [0, 9, 1, 0, 0, 0, 0, 0]).0,
            Answer::Configured
        );
        assert_eq!(ask(&mut s, &d, [0, 9, 2, 0, 0, 0, 0, 0]).0, STALL);
        assert_eq!(ask(&mut s, &d, [0x80, 8, 0, 0, 0, 0, 1, 0]).1, [1]);
        assert_eq!(ask(&mut s, &d, [2, 3, 0, 0, 0x81, 0, 0, 0]).0, DONE);
        assert_eq!(ask(&mut s, &d, [0x82, 0, 0, 0, 0x81, 0, 2, 0]).1, [1, 0]);
        assert_eq!(
            ask(&mut s, &d, [2, 1, 0, 0, 0x81, 0, 0, 0]).0,
            Answer::HaltCleared(0x81)
        );
        assert_eq!(ask(&mut s, &d, [0x82, 0, 0, 0, 0x81, 0, 2, 0]).1, [0, 0]);
        assert_eq!(ask(&mut s, &d, [0, 3, 1, 0, 0, 0, 0, 0]).0, DONE);
        assert_eq!(ask(&mut s, &d, [0x80, 0, 0, 0, 0, 0, 2, 0]).1, [2, 0]);
        assert_eq!(
            ask(&mut s, &d, [0x21, 10, 0, 0, 0, 0, 0, 0]).0,
            Answer::NotStandard
        );
    }
}
