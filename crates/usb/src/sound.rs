//! `usb-audio`: a loudspeaker of the USB Audio Device Class 1.0 (ADC, Audio Device Class Definition; FMT, data formats).
//!
//! Stereo, 48 kHz, 16 bits, at full speed: 192 bytes a frame on an isochronous endpoint, which adapts to what it is given.
//! The controller paces it by the guest's clock.

use std::sync::Arc;

use ::audio::{Audio, Frame, Voice};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::device::{Bus, Notifier, Outcome, Packet, Setup, Speed, UsbDevice};
use crate::spec::{descriptor, request, transfer};
use crate::standard::{Answer, Descriptors, Endpoint, Interface, Standard};

/// Frames a second, and bytes of one.
const RATE: u32 = 48000;
const FRAME: usize = 4;
/// Bytes of a USB frame of a millisecond.
const PACKET: u16 = (RATE / 1000) as u16 * FRAME as u16;
/// The streaming endpoint.
const STREAM: u8 = 0x01;
/// Interfaces: control, and streaming with alternate settings 0 (no bandwidth) and 1.
const CONTROL: u8 = 0;
const STREAMING: u8 = 1;
/// Entities of the audio function.
const INPUT_TERMINAL: u8 = 1;
const FEATURE_UNIT: u8 = 2;
const OUTPUT_TERMINAL: u8 = 3;

/// Class requests (ADC, table A-9).
mod class {
    pub const SET_CUR: u8 = 0x01;
    pub const GET_CUR: u8 = 0x81;
    pub const GET_MIN: u8 = 0x82;
    pub const GET_MAX: u8 = 0x83;
    pub const GET_RES: u8 = 0x84;
    /// Feature unit control selectors (ADC, table A-11).
    pub const MUTE: u8 = 1;
    pub const VOLUME: u8 = 2;
}

/// Volume in 1/256 dB: from -60 dB to 0 dB by 1 dB (ADC 5.2.2.4.3.2).
const VOLUME: std::ops::RangeInclusive<i16> = -60 * 256..=0;
const VOLUME_STEP: i16 = 256;

/// What a device is made as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Name in logs, the user's `id=`.
    pub name: String,
    /// The serial number string.
    pub serial: String,
}

/// Everything that a host can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    standard: Standard,
    /// The streaming interface's alternate setting.
    alternate: u8,
    mute: bool,
    /// Left and right.
    volume: [i16; 2],
}

impl State {
    fn power_on() -> State {
        State {
            standard: Standard::default(),
            alternate: 0,
            mute: false,
            volume: [0; 2],
        }
    }

    fn gains(&self) -> [f32; 2] {
        self.volume.map(|volume| match volume {
            _ if self.mute => 0.0,
            0 => 1.0,
            volume => 10f32.powf(f32::from(volume) / 256.0 / 20.0),
        })
    }

    /// Reads or writes a control of the feature unit (ADC 5.2.2.4).
    fn feature(&mut self, setup: Setup, data: &mut Packet<'_>) -> Outcome {
        let [channel, selector] = setup.value.to_le_bytes();
        match (selector, channel) {
            (class::MUTE, 0) => match setup.request {
                class::GET_CUR => drop(data.write(&[self.mute.into()])),
                class::SET_CUR => {
                    let mut byte = [0];
                    if data.read(&mut byte) != 1 {
                        return Outcome::Stall;
                    }
                    self.mute = byte[0] != 0;
                }
                _ => return Outcome::Stall,
            },
            (class::VOLUME, 1 | 2) => {
                let side = usize::from(channel) - 1;
                let value = match setup.request {
                    class::GET_CUR => self.volume[side],
                    class::GET_MIN => *VOLUME.start(),
                    class::GET_MAX => *VOLUME.end(),
                    class::GET_RES => VOLUME_STEP,
                    class::SET_CUR => {
                        let mut bytes = [0; 2];
                        if data.read(&mut bytes) != 2 {
                            return Outcome::Stall;
                        }
                        // Silence (-32768) and what is below the range are the lowest there is.
                        let value = i16::from_le_bytes(bytes);
                        self.volume[side] = value.clamp(*VOLUME.start(), *VOLUME.end());
                        return Outcome::Done;
                    }
                    _ => return Outcome::Stall,
                };
                data.write(&value.to_le_bytes());
            }
            _ => return Outcome::Stall,
        }
        Outcome::Done
    }
}

/// A USB loudspeaker.
pub struct UsbAudio {
    config: Config,
    state: Mutex<State>,
    voice: Voice,
}

impl UsbAudio {
    /// An unplugged one, that plays to `audio`.
    pub fn new(config: Config, audio: &Arc<Audio>) -> Arc<UsbAudio> {
        Arc::new(UsbAudio {
            voice: audio.voice(&config.name),
            config,
            state: Mutex::new(State::power_on()),
        })
    }

    /// A copy of the state.
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// What the requests that all devices share need to know.
    fn descriptors(&self) -> Descriptors {
        Descriptors {
            speed: Speed::Full,
            vendor: 0x46f4,
            product: 0x0002,
            manufacturer_name: "Dormer",
            product_name: "Dormer USB Audio",
            serial: self.config.serial.clone(),
            self_powered: false,
            remote_wakeup: false,
            milliamperes: 100,
            interface: Interface {
                class: [1, 1, 0],
                extra: Vec::new(),
                endpoints: vec![Endpoint {
                    address: STREAM,
                    kind: transfer::ISOCHRONOUS,
                    max_packet: PACKET,
                    interval: 1,
                    max_burst: 0,
                }],
            },
            other_speed: None,
        }
    }

    fn set_alternate(&self, state: &mut State, alternate: u8) {
        if alternate == 1 && state.alternate != 1 {
            self.voice.start(RATE);
        } else if alternate == 0 {
            self.voice.stop();
        }
        state.alternate = alternate;
    }

    /// The requests that differ from those of a device with one interface.
    fn interface_request(
        &self,
        state: &mut State,
        setup: Setup,
        data: &mut Packet<'_>,
    ) -> Option<Outcome> {
        let configured = state.standard.configuration != 0;
        let interface = setup.index as u8;
        let outcome = match (setup.request_type, setup.request) {
            (0x80, request::GET_DESCRIPTOR)
                if setup.value >> 8 == u16::from(descriptor::CONFIGURATION) =>
            {
                if setup.value as u8 != 0 {
                    return Some(Outcome::Stall);
                }
                data.write(&configuration());
                Outcome::Done
            }
            (0x81, request::GET_STATUS) if configured && interface <= STREAMING => {
                data.write(&[0, 0]);
                Outcome::Done
            }
            (0x81, request::GET_INTERFACE) if configured && interface <= STREAMING => {
                let alternate = if interface == STREAMING {
                    state.alternate
                } else {
                    0
                };
                data.write(&[alternate]);
                Outcome::Done
            }
            (0x01, request::SET_INTERFACE) if configured => match (interface, setup.value) {
                (CONTROL, 0) => Outcome::Done,
                (STREAMING, value @ (0 | 1)) => {
                    self.set_alternate(state, value as u8);
                    Outcome::Done
                }
                _ => Outcome::Stall,
            },
            (0x21 | 0xa1, _) if configured && setup.index == u16::from(FEATURE_UNIT) << 8 => {
                state.feature(setup, data)
            }
            _ => return None,
        };
        Some(outcome)
    }
}

/// The configuration descriptor with everything below it (ADC 4, FMT 2.2).
fn configuration() -> Vec<u8> {
    const CS_INTERFACE: u8 = 0x24;
    const CS_ENDPOINT: u8 = 0x25;
    let [low, high] = PACKET.to_le_bytes();
    let rate = RATE.to_le_bytes();
    #[rustfmt::skip]
    let mut bytes = vec![
        9, descriptor::CONFIGURATION, 0, 0, 2, 1, 0, 0x80, 50,
        9, descriptor::INTERFACE, CONTROL, 0, 0, 1, 1, 0, 0,
        // Header: version 1.00, 40 bytes of it and the units, one streaming interface.
        9, CS_INTERFACE, 1, 0x00, 0x01, 40, 0, 1, STREAMING,
        // Input terminal: USB streaming, left and right.
        12, CS_INTERFACE, 2, INPUT_TERMINAL, 0x01, 0x01, 0, 2, 3, 0, 0, 0,
        // Feature unit: mute of all, volume of each.
        10, CS_INTERFACE, 6, FEATURE_UNIT, INPUT_TERMINAL, 1, 1, 2, 2, 0,
        // Output terminal: loudspeaker.
        9, CS_INTERFACE, 3, OUTPUT_TERMINAL, 0x01, 0x03, 0, FEATURE_UNIT, 0,
        9, descriptor::INTERFACE, STREAMING, 0, 0, 1, 2, 0, 0,
        9, descriptor::INTERFACE, STREAMING, 1, 1, 1, 2, 0, 0,
        // General: PCM to the input terminal, a frame's delay.
        7, CS_INTERFACE, 1, INPUT_TERMINAL, 1, 0x01, 0x00,
        // Format type I: two channels, two bytes, 16 bits, one rate.
        11, CS_INTERFACE, 2, 1, 2, 2, 16, 1, rate[0], rate[1], rate[2],
        // Isochronous, adaptive, each frame.
        9, descriptor::ENDPOINT, STREAM, transfer::ISOCHRONOUS | 8, low, high, 1, 0, 0,
        7, CS_ENDPOINT, 1, 0, 0, 0, 0,
    ];
    let total = (bytes.len() as u16).to_le_bytes();
    bytes[2..4].copy_from_slice(&total);
    bytes
}

impl UsbDevice for UsbAudio {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn speed(&self, bus: Bus) -> Option<Speed> {
        (bus == Bus::Usb2).then_some(Speed::Full)
    }

    fn connect(&self, _: Speed, _: Notifier) {}

    fn disconnect(&self) {
        self.bus_reset();
    }

    fn power_cycle(&self) {
        self.bus_reset();
    }

    fn bus_reset(&self) {
        self.voice.stop();
        *self.state.lock() = State::power_on();
    }

    fn control(&self, setup: Setup, data: &mut Packet<'_>) -> Outcome {
        let mut state = self.state.lock();
        if let Some(outcome) = self.interface_request(&mut state, setup, data) {
            return outcome;
        }
        match state.standard.request(&self.descriptors(), setup, data) {
            Answer::Answered(outcome) => outcome,
            Answer::Configured => {
                self.set_alternate(&mut state, 0);
                Outcome::Done
            }
            Answer::HaltCleared(_) => Outcome::Done,
            Answer::NotStandard => Outcome::Stall,
        }
    }

    fn transfer(&self, endpoint: u8, data: &mut Packet<'_>) -> Outcome {
        let state = self.state.lock();
        if endpoint != STREAM || state.alternate != 1 {
            return Outcome::Stall;
        }
        let gains = state.gains();
        drop(state);
        let mut bytes = [0; PACKET as usize];
        loop {
            let n = data.read(&mut bytes);
            let sample = |b: &[u8]| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0;
            let frames: Vec<Frame> = bytes[..n]
                .chunks_exact(FRAME)
                .map(|b| [sample(b) * gains[0], sample(&b[2..]) * gains[1]])
                .collect();
            self.voice.write(&frames);
            if n < bytes.len() {
                return Outcome::Done;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::audio::{Driver, Options};

    fn device() -> Arc<UsbAudio> {
        let audio = Audio::open(&Options::new("none", Driver::None)).unwrap();
        let config = Config {
            name: "usb-audio".into(),
            serial: "1".into(),
        };
        UsbAudio::new(config, &audio)
    }

    fn ask(device: &UsbAudio, bytes: [u8; 8], data: &[u8]) -> (Outcome, Vec<u8>) {
        let setup = Setup::from_bytes(bytes);
        let mut buffer = vec![0; setup.length.into()];
        buffer[..data.len()].copy_from_slice(data);
        let mut packet = Packet::host(&mut buffer);
        let outcome = device.control(setup, &mut packet);
        let n = packet.done() as usize;
        buffer.truncate(n);
        (outcome, buffer)
    }

    #[test]
    fn descriptors_are_well_formed() {
        let all = configuration();
        assert_eq!(usize::from(all[2]) | usize::from(all[3]) << 8, all.len());
        let (mut at, mut control) = (0, 0);
        let mut interface = (0, 0);
        while at < all.len() {
            let part = &all[at..at + usize::from(all[at])];
            match part[1] {
                4 => interface = (part[2], part[3]),
                0x24 if interface.0 == 0 => control += part.len(),
                _ => {}
            }
            at += part.len();
        }
        assert_eq!((at, control), (all.len(), 40));
        assert_eq!(interface, (1, 1));
        let d = device();
        let (outcome, start) = ask(&d, [0x80, 6, 0, 2, 0, 0, 9, 0], &[]);
        assert_eq!((outcome, &start[..]), (Outcome::Done, &all[..9]));
        assert_eq!(
            ask(&d, [0x80, 6, 0, 1, 0, 0, 18, 0], &[]).1[8..12],
            [0xf4, 0x46, 2, 0]
        );
    }

    #[test]
    fn volume_and_mute() {
        let d = device();
        let set = |d: &UsbAudio, selector, channel, data: &[u8]| {
            ask(
                d,
                [0x21, 1, channel, selector, 0, 2, data.len() as u8, 0],
                data,
            )
            .0
        };
        let get = |d: &UsbAudio, what, selector, channel, n| {
            ask(d, [0xa1, what, channel, selector, 0, 2, n, 0], &[]).1
        };
        assert_eq!(set(&d, 1, 0, &[1]), Outcome::Stall, "not configured");
        assert_eq!(ask(&d, [0, 9, 1, 0, 0, 0, 0, 0], &[]).0, Outcome::Done);
        assert_eq!(set(&d, 2, 1, &(-20i16 * 256).to_le_bytes()), Outcome::Done);
        assert_eq!(get(&d, 0x81, 2, 1, 2), (-20i16 * 256).to_le_bytes());
        assert_eq!(get(&d, 0x82, 2, 2, 2), (-60i16 * 256).to_le_bytes());
        assert_eq!(get(&d, 0x83, 2, 2, 2), [0, 0]);
        assert_eq!(get(&d, 0x84, 2, 2, 2), [0, 1]);
        assert_eq!(set(&d, 2, 2, &i16::MIN.to_le_bytes()), Outcome::Done);
        let gains = d.state().gains();
        assert!((gains[0] - 0.1).abs() < 1e-6 && (gains[1] - 0.001).abs() < 1e-6);
        assert_eq!(set(&d, 1, 0, &[1]), Outcome::Done);
        assert_eq!(
            (get(&d, 0x81, 1, 0, 1), d.state().gains()),
            (vec![1], [0.0; 2])
        );
        assert_eq!(set(&d, 2, 0, &[0, 0]), Outcome::Stall);
        assert_eq!(set(&d, 3, 0, &[0]), Outcome::Stall);
    }

    #[test]
    fn streams_only_in_its_alternate_setting() {
        let d = device();
        let mut bytes = [0; 192];
        ask(&d, [0, 9, 1, 0, 0, 0, 0, 0], &[]);
        assert_eq!(d.transfer(1, &mut Packet::host(&mut bytes)), Outcome::Stall);
        assert_eq!(ask(&d, [1, 11, 1, 0, 1, 0, 0, 0], &[]).0, Outcome::Done);
        assert_eq!(ask(&d, [0x81, 10, 0, 0, 1, 0, 1, 0], &[]).1, [1]);
        let mut packet = Packet::host(&mut bytes);
        assert_eq!(d.transfer(1, &mut packet), Outcome::Done);
        assert_eq!(packet.remaining(), 0);
        assert_eq!(ask(&d, [1, 11, 2, 0, 1, 0, 0, 0], &[]).0, Outcome::Stall);
        d.bus_reset();
        assert_eq!(d.state(), State::power_on());
    }
}
