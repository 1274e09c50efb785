//! A codec: an audio function group with a converter and a pin for each direction (7).

use serde::{Deserialize, Serialize};

use crate::spec::{parameter, verb};

/// What a codec has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// `hda-output`: line out.
    Output,
    /// `hda-duplex`: line out and line in.
    Duplex,
    /// `hda-micro`: loudspeaker and microphone.
    Micro,
}

/// What a codec is made as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub model: Model,
    /// Whether converters have volume and mute.
    pub mixer: bool,
}

/// Nodes.
const ROOT: u8 = 0;
const GROUP: u8 = 1;
const DAC: u8 = 2;
const OUT_PIN: u8 = 3;
const ADC: u8 = 4;
const IN_PIN: u8 = 5;

/// Sizes of 16, 20, 24 and 32 bits; rates of 44.1, 48, 88.2, 96, 176.4 and 192 kHz (7.3.4.7).
const PCM: u32 = 0x001e_07e0;
/// PCM (7.3.4.8).
const STREAM_FORMATS: u32 = 1;
/// D0 to D3 (7.3.4.12).
const POWER_STATES: u32 = 0xf;

/// An amplifier's steps, of 0.75 dB, the last of which is 0 dB; and mute (7.3.4.10).
const STEPS: u8 = 87;
const STEP_DB: f32 = 0.75;
const AMPLIFIER: u32 = 1 << 31 | 2 << 16 | (STEPS as u32) << 8 | STEPS as u32;
const MUTE: u8 = 0x80;

/// Pin widget control: output and input enable (7.3.3.13).
const PIN_OUT: u8 = 0x40;
const PIN_IN: u8 = 0x20;

/// Widget capabilities (7.3.4.6): types, and what they have.
mod widget {
    pub const DAC: u32 = 0;
    pub const ADC: u32 = 1 << 20;
    pub const PIN: u32 = 4 << 20;
    pub const STEREO: u32 = 1;
    pub const IN_AMPLIFIER: u32 = 1 << 1;
    pub const OUT_AMPLIFIER: u32 = 1 << 2;
    pub const OWN_AMPLIFIER: u32 = 1 << 3;
    pub const OWN_FORMAT: u32 = 1 << 4;
    pub const CONNECTIONS: u32 = 1 << 8;
}

/// A converter between a stream and sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Converter {
    /// Stream number; 0: none.
    pub stream: u8,
    /// The channel of the stream that is the left one.
    pub channel: u8,
    format: u16,
    /// Gain steps and mute, left and right.
    amplifier: [u8; 2],
}

impl Converter {
    fn power_on() -> Converter {
        Converter {
            stream: 0,
            channel: 0,
            format: 0x0011,
            // 0 dB.
            amplifier: [STEPS; 2],
        }
    }

    /// Sets gain and mute as the verb's payload says.
    fn set_amplifier(&mut self, payload: u16, direction: u16) {
        if payload & direction == 0 || payload >> 8 & 0xf != 0 {
            return;
        }
        let value = payload as u8 & MUTE | (payload as u8 & 0x7f).min(STEPS);
        for (side, bit) in [(0, 1 << 13), (1, 1 << 12)] {
            if payload & bit != 0 {
                self.amplifier[side] = value;
            }
        }
    }

    /// What each side's samples are multiplied by.
    pub fn gains(&self) -> [f32; 2] {
        self.amplifier.map(|a| {
            if a & MUTE != 0 {
                return 0.0;
            }
            match STEPS.saturating_sub(a) {
                0 => 1.0,
                below => 10f32.powf(-f32::from(below) * STEP_DB / 20.0),
            }
        })
    }
}

/// Everything of a codec that a guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub dac: Converter,
    pub adc: Converter,
    /// Power state of the function group.
    power: u8,
    /// Widget control of the output and the input pin.
    pins: [u8; 2],
    /// Configuration defaults of both. Outlive a function reset.
    configuration: [u32; 2],
    subsystem: u32,
    /// What the pins' unsolicited responses would be: no jack is ever plugged.
    unsolicited: [u8; 2],
}

impl State {
    /// After power-on.
    pub fn power_on(config: &Config) -> State {
        // Port, place, device, kind of plug, colour, no presence detection; association and sequence (7.3.3.31).
        let configuration = match config.model {
            // Loudspeakers that are always there; a line in.
            Model::Output | Model::Duplex => [0x9017_0110, 0x9087_0120],
            Model::Micro => [0x9017_0110, 0x90a7_0120],
        };
        State {
            dac: Converter::power_on(),
            adc: Converter::power_on(),
            power: 3,
            pins: [0; 2],
            configuration,
            subsystem: subsystem(config.model),
            unsolicited: [0; 2],
        }
    }

    /// A function group reset (7.3.3.33), or the link's.
    pub fn reset(&mut self, config: &Config) {
        *self = State {
            configuration: self.configuration,
            subsystem: self.subsystem,
            ..State::power_on(config)
        };
    }

    /// Whether what the DAC gets is heard.
    pub fn audible(&self) -> bool {
        self.power == 0 && self.pins[0] & PIN_OUT != 0
    }

    /// Whether the ADC hears what there is.
    pub fn listening(&self) -> bool {
        self.power == 0 && self.pins[1] & PIN_IN != 0
    }

    fn converter(&mut self, config: &Config, node: u8) -> Option<&mut Converter> {
        match node {
            DAC => Some(&mut self.dac),
            ADC if config.model != Model::Output => Some(&mut self.adc),
            _ => None,
        }
    }

    /// Which pin a node is.
    fn pin(config: &Config, node: u8) -> Option<usize> {
        match node {
            OUT_PIN => Some(0),
            IN_PIN if config.model != Model::Output => Some(1),
            _ => None,
        }
    }

    /// Carries out a command, all but the codec's address: its response.
    pub fn command(&mut self, config: &Config, command: u32) -> u32 {
        let node = (command >> 20 & 0x7f) as u8;
        let payload = command as u8;
        // Verbs of 12 bits are all those that begin with 7 or f.
        if !matches!(command >> 16 & 0xf, 0x7 | 0xf) {
            return self.short_command(config, node, (command >> 16 & 0xf) as u16, command as u16);
        }
        let verb = (command >> 8 & 0xfff) as u16;
        match verb {
            verb::GET_PARAMETER => return read_parameter(config, node, payload),
            verb::GET_CONNECTION_LIST if payload == 0 => {
                return connection(config, node).map_or(0, u32::from);
            }
            verb::GET_CONNECTION_SELECT | verb::SET_CONNECTION_SELECT => return 0,
            _ => {}
        }
        if node == GROUP {
            return self.group_command(config, verb, payload);
        }
        if let Some(converter) = self.converter(config, node) {
            match verb {
                verb::GET_CONVERTER_STREAM => {
                    return u32::from(converter.stream << 4 | converter.channel);
                }
                verb::SET_CONVERTER_STREAM => {
                    (converter.stream, converter.channel) = (payload >> 4, payload & 0xf);
                }
                _ => {}
            }
        }
        let Some(pin) = State::pin(config, node) else {
            return 0;
        };
        match verb {
            verb::GET_PIN_CONTROL => return self.pins[pin].into(),
            verb::SET_PIN_CONTROL => self.pins[pin] = payload & [PIN_OUT, PIN_IN][pin],
            verb::GET_UNSOLICITED => return self.unsolicited[pin].into(),
            verb::SET_UNSOLICITED => self.unsolicited[pin] = payload & 0xbf,
            // Always plugged; no impedance is known.
            verb::GET_PIN_SENSE => return u32::MAX,
            verb::GET_CONFIGURATION => return self.configuration[pin],
            verb::SET_CONFIGURATION..=0x71f => {
                let shift = (verb - verb::SET_CONFIGURATION) * 8;
                let word = &mut self.configuration[pin];
                *word = *word & !(0xff << shift) | u32::from(payload) << shift;
            }
            _ => {}
        }
        0
    }

    fn group_command(&mut self, config: &Config, verb: u16, payload: u8) -> u32 {
        match verb {
            // Set and actual state (7.3.3.10).
            verb::GET_POWER_STATE => return u32::from(self.power << 4 | self.power),
            verb::SET_POWER_STATE => self.power = (payload & 0xf).min(3),
            verb::GET_SUBSYSTEM => return self.subsystem,
            verb::SET_SUBSYSTEM..=0x723 => {
                let shift = (verb - verb::SET_SUBSYSTEM) * 8;
                self.subsystem = self.subsystem & !(0xff << shift) | u32::from(payload) << shift;
            }
            verb::FUNCTION_RESET => self.reset(config),
            _ => {}
        }
        0
    }

    fn short_command(&mut self, config: &Config, node: u8, verb: u16, payload: u16) -> u32 {
        // Bit 15 is an output amplifier, 14 an input one, in SET; 15 alone tells in GET.
        let (set, get) = if node == DAC {
            (1 << 15, 1 << 15)
        } else {
            (1 << 14, 0)
        };
        let Some(converter) = self.converter(config, node) else {
            return 0;
        };
        match verb {
            verb::GET_FORMAT => return converter.format.into(),
            verb::SET_FORMAT => converter.format = payload,
            verb::SET_AMPLIFIER if config.mixer => converter.set_amplifier(payload, set),
            verb::GET_AMPLIFIER
                if config.mixer && payload & 1 << 15 == get && payload & 0xf == 0 =>
            {
                let side = if payload & 1 << 13 != 0 { 0 } else { 1 };
                return converter.amplifier[side].into();
            }
            _ => {}
        }
        0
    }
}

fn vendor(model: Model) -> u32 {
    0x1af4_0000
        | match model {
            Model::Output => 0x12,
            Model::Duplex => 0x22,
            Model::Micro => 0x32,
        }
}

fn subsystem(model: Model) -> u32 {
    vendor(model)
}

/// The only entry of a widget's connection list.
fn connection(config: &Config, node: u8) -> Option<u8> {
    match node {
        OUT_PIN => Some(DAC),
        ADC if config.model != Model::Output => Some(IN_PIN),
        _ => None,
    }
}

/// A parameter of a node; those that it has not are zero.
fn read_parameter(config: &Config, node: u8, id: u8) -> u32 {
    let duplex = config.model != Model::Output;
    let amplifier = if config.mixer { AMPLIFIER } else { 0 };
    let with_amplifier = |bits| {
        if config.mixer {
            bits | widget::OWN_AMPLIFIER
        } else {
            0
        }
    };
    match (node, id) {
        (ROOT, parameter::VENDOR_ID) => vendor(config.model),
        (ROOT, parameter::REVISION_ID) => 0x0010_0101,
        (ROOT, parameter::SUBORDINATE_NODES) => u32::from(GROUP) << 16 | 1,
        (GROUP, parameter::SUBORDINATE_NODES) => u32::from(DAC) << 16 | if duplex { 4 } else { 2 },
        (GROUP, parameter::FUNCTION_TYPE) => 1,
        (GROUP, parameter::AUDIO_FUNCTION) => 0x0808,
        (GROUP | DAC, parameter::PCM) => PCM,
        (GROUP | DAC, parameter::STREAM_FORMATS) => STREAM_FORMATS,
        (GROUP, parameter::POWER_STATES) => POWER_STATES,
        (DAC, parameter::WIDGET) => {
            widget::DAC
                | widget::STEREO
                | widget::OWN_FORMAT
                | with_amplifier(widget::OUT_AMPLIFIER)
        }
        (DAC, parameter::OUTPUT_AMPLIFIER) => amplifier,
        (OUT_PIN, parameter::WIDGET) => widget::PIN | widget::STEREO | widget::CONNECTIONS,
        (OUT_PIN, parameter::PIN) => 1 << 4,
        (OUT_PIN, parameter::CONNECTIONS) => 1,
        (ADC, parameter::WIDGET) if duplex => {
            widget::ADC
                | widget::STEREO
                | widget::OWN_FORMAT
                | widget::CONNECTIONS
                | with_amplifier(widget::IN_AMPLIFIER)
        }
        (ADC, parameter::PCM) if duplex => PCM,
        (ADC, parameter::STREAM_FORMATS) if duplex => STREAM_FORMATS,
        (ADC, parameter::INPUT_AMPLIFIER) if duplex => amplifier,
        (ADC, parameter::CONNECTIONS) if duplex => 1,
        (IN_PIN, parameter::WIDGET) if duplex => widget::PIN | widget::STEREO,
        (IN_PIN, parameter::PIN) if duplex => 1 << 5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(model: Model) -> (Config, State) {
        let config = Config { model, mixer: true };
        let state = State::power_on(&config);
        (config, state)
    }

    #[test]
    fn a_driver_finds_a_path_from_stream_to_pin() {
        let (config, mut s) = codec(Model::Duplex);
        let mut ask = |node: u32, verb: u32, payload: u32| {
            s.command(&config, node << 20 | verb << 8 | payload)
        };
        assert_eq!(ask(0, 0xf00, 0), 0x1af4_0022);
        assert_eq!(ask(0, 0xf00, 4), 0x0001_0001);
        assert_eq!(ask(1, 0xf00, 4), 0x0002_0004);
        assert_eq!(ask(1, 0xf00, 5), 1);
        assert_eq!(ask(2, 0xf00, 9), 0x1d);
        assert_eq!((ask(3, 0xf00, 0xe), ask(3, 0xf02, 0)), (1, 2));
        assert_eq!((ask(4, 0xf00, 0xe), ask(4, 0xf02, 0)), (1, 5));
        assert_eq!(ask(4, 0xf00, 9), 0x0010_011b);
        // Converter: stream 5, channel 0; the pin's output on; power up.
        assert_eq!(ask(2, 0x706, 0x50), 0);
        assert_eq!(ask(2, 0xf06, 0), 0x50);
        assert_eq!(ask(3, 0x707, 0xc0), 0);
        assert_eq!(ask(3, 0xf07, 0), 0x40, "there are no headphones");
        assert_eq!(ask(1, 0xf05, 0), 0x33);
        assert_eq!(ask(1, 0x705, 0), 0);
        // Gain of both sides, mute of the right one.
        assert_eq!(ask(2, 0x3b0, 0x50), 0);
        assert_eq!(ask(2, 0x390, 0x80), 0);
        assert_eq!(ask(2, 0xba0, 0), 0x50);
        assert_eq!(ask(2, 0xb80, 0), 0x80);
        assert!(s.audible());
        assert_eq!(s.dac.gains()[1], 0.0);
        let seven_steps = 10f32.powf(-7.0 * 0.75 / 20.0);
        assert!((s.dac.gains()[0] - seven_steps).abs() < 1e-6);
        s.command(&config, 1 << 20 | 0x7ff << 8);
        assert!(!s.audible() && s.dac.stream == 0 && s.dac.gains() == [1.0; 2]);
    }

    #[test]
    fn an_output_has_no_input() {
        let (config, mut s) = codec(Model::Output);
        for node in 4..8u32 {
            for id in 0..0x14 {
                assert_eq!(s.command(&config, node << 20 | 0xf00 << 8 | id), 0);
            }
        }
        assert_eq!(s.command(&config, 1 << 20 | 0xf_0004), 0x0002_0002);
    }

    #[test]
    fn every_command_is_answered() {
        for model in [Model::Output, Model::Duplex, Model::Micro] {
            let (config, mut s) = codec(model);
            for node in 0..8u32 {
                for verb in 0..0x1000u32 {
                    for payload in [0, 1, 0x80, 0xff] {
                        s.command(&config, node << 20 | verb << 8 | payload);
                    }
                }
            }
        }
    }
}
