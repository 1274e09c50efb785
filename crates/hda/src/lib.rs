//! Intel High Definition Audio (High Definition Audio Specification 1.0a): a controller on PCI, and codecs on its link.
//!
//! - `state` has the register file, `rings` the ways commands take, `stream` the DMA of sound, `codec` the widgets,
//!   `format` samples, `spec` the layouts.
//! - [`Hda`] puts them together: it moves what is due by the guest's clock, from a timer and whenever the guest looks.
//!
//! There is no worker: nothing here waits for the host. Sound goes to an [`audio::Voice`] and comes from an
//! [`audio::Microphone`], which are queues.

mod codec;
mod format;
mod rings;
mod spec;
mod state;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use audio::{Audio, Frame, Microphone, Voice};
use device::{Access, Clock, Device, Dma, Registers, Timer};
use parking_lot::Mutex;
use pci::{BarKind, Endpoint, EndpointState, Function, Identity, RestoreError};
use serde::{Deserialize, Serialize};

pub use codec::{Config as CodecConfig, Model as CodecModel};
use spec::*;
use state::State;

/// Which chip's controller it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// `intel-hda`: 82801FB, ICH6.
    Ich6,
    /// `ich9-intel-hda`: 82801I, ICH9.
    Ich9,
}

/// What a controller is made as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// For logs.
    pub name: String,
    pub chip: Chip,
    /// Whether it has message-signalled interrupts.
    pub msi: bool,
}

/// Why a codec cannot be put on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error("CODEC address {0} is already in use")]
    Taken(u8),
    #[error("there is no CODEC address {0}: 0 to 14")]
    NoSuchAddress(u8),
    #[error("no more CODEC addresses")]
    NoFreeAddress,
}

/// All that a guest can observe of the function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HdaState {
    endpoint: EndpointState,
    controller: State,
}

/// The controller as a PCI function.
pub struct Hda {
    inner: Arc<Inner>,
}

/// Locks, in the order they are taken: core, the endpoint; core, sound's queues.
struct Inner {
    name: String,
    endpoint: Endpoint,
    dma: Dma,
    clock: Clock,
    core: Mutex<Core>,
    timer: OnceLock<Timer>,
}

struct Core {
    state: State,
    /// By address.
    codecs: Vec<Option<CodecConfig>>,
    sounds: Vec<Option<Sound>>,
}

/// A codec's way to the host. None of it is the machine's state: it follows from that.
struct Sound {
    voice: Voice,
    microphone: Microphone,
    /// The stream that is played and recorded, and its rate.
    playing: Option<(usize, u32)>,
    recording: Option<(usize, u32)>,
}

/// Addresses of codecs: as many as STATESTS has bits.
const ADDRESSES: usize = 15;
const BAR_SIZE: u64 = 0x4000;
/// HDCTL of the ICH's configuration space: the link is HD Audio's, not AC '97's.
const HDCTL: u16 = 0x40;

impl Hda {
    /// A controller without codecs.
    pub fn new(config: Config, dma: Dma, clock: &Clock) -> Arc<Hda> {
        let (device, revision) = match config.chip {
            Chip::Ich6 => (0x2668, 1),
            Chip::Ich9 => (0x293e, 3),
        };
        let identity = Identity {
            vendor: 0x8086,
            device,
            revision,
            class: 0x04_0300,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        let mut builder = Endpoint::builder(identity)
            .bar(0, BarKind::Memory32, BAR_SIZE)
            .interrupt_pin()
            .fixed(HDCTL, &[1], &[]);
        if config.msi {
            builder = builder.msi(1);
        }
        let codecs = vec![None; ADDRESSES];
        let inner = Arc::new(Inner {
            name: config.name,
            endpoint: builder.build(),
            dma,
            clock: clock.clone(),
            core: Mutex::new(Core {
                state: State::power_on(&codecs),
                codecs,
                sounds: (0..ADDRESSES).map(|_| None).collect(),
            }),
            timer: OnceLock::new(),
        });
        let of_timer = Arc::downgrade(&inner);
        let _ = inner.timer.set(clock.timer(move || {
            if let Some(inner) = of_timer.upgrade() {
                inner.change(|_, _| ());
            }
        }));
        Arc::new(Hda { inner })
    }

    /// Puts a codec on the link: at an address, or the next free one. Before the machine starts. Returns the address.
    pub fn attach(
        &self,
        address: Option<u8>,
        name: &str,
        config: CodecConfig,
        audio: &Arc<Audio>,
    ) -> Result<u8, AttachError> {
        let mut core = self.inner.core.lock();
        let free = core.codecs.iter().position(Option::is_none);
        let at = match address {
            Some(address) => usize::from(address),
            None => free.ok_or(AttachError::NoFreeAddress)?,
        };
        match core.codecs.get(at) {
            None => return Err(AttachError::NoSuchAddress(at as u8)),
            Some(Some(_)) => return Err(AttachError::Taken(at as u8)),
            Some(None) => {}
        }
        core.codecs[at] = Some(config);
        core.sounds[at] = Some(Sound {
            voice: audio.voice(name),
            microphone: audio.microphone(name),
            playing: None,
            recording: None,
        });
        core.state = State::power_on(&core.codecs);
        Ok(at as u8)
    }

    /// A copy of the state, for a snapshot.
    pub fn state(&self) -> HdaState {
        let core = self.inner.core.lock();
        HdaState {
            endpoint: self.inner.endpoint.state(),
            controller: core.state.clone(),
        }
    }

    /// Takes over a state that [`Hda::state`] gave.
    pub fn restore(&self, saved: HdaState) -> Result<(), RestoreError> {
        let mut core = self.inner.core.lock();
        let present = |codecs: &[Option<codec::State>]| -> Vec<bool> {
            codecs.iter().map(Option::is_some).collect()
        };
        if saved.controller.streams.len() != STREAMS
            || present(&saved.controller.codecs) != present(&core.state.codecs)
        {
            return Err(RestoreError);
        }
        self.inner.endpoint.restore(saved.endpoint)?;
        core.state = saved.controller;
        let now = self.inner.clock.now();
        for stream in &mut core.state.streams {
            stream.restart(now);
        }
        self.inner.update(&mut core, now);
        Ok(())
    }
}

impl Inner {
    /// Moves what is due, changes the state, and derives what follows.
    fn change<R>(&self, with: impl FnOnce(&mut Core, u64) -> R) -> R {
        let mut core = self.core.lock();
        let now = self.clock.now();
        self.advance(&mut core, now);
        let result = with(&mut core, now);
        let synchronized = core.state.ssync;
        for (i, stream) in core.state.streams.iter_mut().enumerate() {
            stream.settle(now, synchronized & 1 << i != 0);
        }
        if self.endpoint.bus_master() {
            let Core { state, codecs, .. } = &mut *core;
            state.run_corb(&self.dma, codecs);
        }
        self.update(&mut core, now);
        result
    }

    /// Moves sound between memory and codecs, as much as is due.
    fn advance(&self, core: &mut Core, now: u64) {
        let patient = core.state.intctl & INT_GLOBAL != 0;
        for i in 0..STREAMS {
            let enabled = core.state.intctl & 1 << i != 0;
            let stream = &mut core.state.streams[i];
            if !stream.flowing() {
                continue;
            }
            if !self.endpoint.bus_master() {
                stream.restart(now);
                continue;
            }
            let step = stream.step(&self.dma, now, patient && enabled);
            let position = stream.lpib;
            if i < INPUT_STREAMS {
                self.record(core, i, &step);
            } else {
                self.play(core, i, &step);
            }
            if core.state.dplbase & DPLBASE_ENABLE != 0 {
                let at = (core.state.dplbase & !0x7f).wrapping_add(i as u64 * 8);
                // Memory that is not there is as good as any the driver does not look at.
                let _ = self.dma.write_u32(at, position);
            }
        }
    }

    fn play(&self, core: &mut Core, number: usize, step: &stream::Step) {
        let stream = &core.state.streams[number];
        let (format, tag) = (stream.format(), stream.tag());
        if step.bytes == 0 || tag == 0 {
            return;
        }
        let mut bytes = vec![0; step.bytes];
        let mut at = 0;
        for &(address, length) in &step.pieces {
            // What is no memory is silent.
            let _ = self.dma.read(address, &mut bytes[at..at + length as usize]);
            at += length as usize;
        }
        let mut frames: Vec<Frame> = Vec::new();
        for (codec, sound) in core.state.codecs.iter().zip(&mut core.sounds) {
            let (Some(codec), Some(sound)) = (codec, sound) else {
                continue;
            };
            if codec.dac.stream != tag || !codec.audible() {
                continue;
            }
            if sound.playing != Some((number, format.rate)) {
                sound.voice.start(format.rate);
                sound.playing = Some((number, format.rate));
            }
            frames.clear();
            format.decode(&bytes, codec.dac.channel, &mut frames);
            apply(&mut frames, codec.dac.gains());
            sound.voice.write(&frames);
        }
    }

    fn record(&self, core: &mut Core, number: usize, step: &stream::Step) {
        let stream = &core.state.streams[number];
        let (format, tag) = (stream.format(), stream.tag());
        if step.bytes == 0 {
            return;
        }
        let mut frames = vec![audio::SILENCE; step.bytes / format.frame()];
        let mut channel = 0;
        for (codec, sound) in core.state.codecs.iter().zip(&mut core.sounds) {
            let (Some(codec), Some(sound)) = (codec, sound) else {
                continue;
            };
            if tag == 0 || codec.adc.stream != tag {
                continue;
            }
            if sound.recording != Some((number, format.rate)) {
                sound.microphone.start(format.rate);
                sound.recording = Some((number, format.rate));
            }
            sound.microphone.read(&mut frames);
            if !codec.listening() {
                frames.fill(audio::SILENCE);
            }
            apply(&mut frames, codec.adc.gains());
            channel = codec.adc.channel;
            // One converter fills a stream; a second with the same number is the driver's mistake.
            break;
        }
        let mut bytes = Vec::with_capacity(step.bytes);
        format.encode(&frames, channel, &mut bytes);
        bytes.resize(step.bytes, 0);
        let mut at = 0;
        for &(address, length) in &step.pieces {
            let _ = self.dma.write(address, &bytes[at..at + length as usize]);
            at += length as usize;
        }
    }

    /// Derives lines, timers and what sounds from the state.
    fn update(&self, core: &mut Core, now: u64) {
        let Core { state, sounds, .. } = core;
        for (codec, sound) in state.codecs.iter().zip(sounds) {
            let (Some(codec), Some(sound)) = (codec, sound) else {
                continue;
            };
            let goes_on = |wanted: u8, on: &Option<(usize, u32)>| {
                on.is_none_or(|(i, _)| {
                    state.streams[i].flowing() && state.streams[i].tag() == wanted
                })
            };
            if !goes_on(codec.dac.stream, &sound.playing) {
                sound.voice.stop();
                sound.playing = None;
            }
            if !goes_on(codec.adc.stream, &sound.recording) {
                sound.microphone.stop();
                sound.recording = None;
            }
        }
        let level = state.interrupts();
        if level && !state.raised && self.endpoint.message_signalled() {
            self.endpoint.signal(0);
        }
        state.raised = level;
        self.endpoint.set_intx(level);
        let streams = state.streams.iter();
        let next = streams.filter_map(|s| s.deadline(&self.dma, now));
        if let (Some(next), Some(timer)) = (next.min(), self.timer.get()) {
            timer.arm(next);
        }
    }
}

fn apply(frames: &mut [Frame], gains: [f32; 2]) {
    if gains != [1.0; 2] {
        for frame in frames {
            frame[0] *= gains[0];
            frame[1] *= gains[1];
        }
    }
}

impl Registers for Inner {
    fn read_register(&self, offset: u64, _: u32) -> u32 {
        // Positions and the wall clock are those of now.
        let moves = offset >= register::SD0 || offset == register::INTSTS;
        if moves {
            self.change(|core, now| core.state.read(offset, now))
        } else {
            self.core.lock().state.read(offset, self.clock.now())
        }
    }

    fn write_register(&self, offset: u64, _: u32, value: u32, mask: u32) {
        self.change(|core, now| {
            let Core { state, codecs, .. } = core;
            state.write(offset, value, mask, now, codecs);
        });
    }
}

impl Device for Hda {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn reset(&self) {
        let mut core = self.inner.core.lock();
        self.inner.endpoint.reset();
        core.state = State::power_on(&core.codecs);
        self.inner.update(&mut core, self.inner.clock.now());
    }
}

impl Function for Hda {
    fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    fn read_bar(&self, _: u8, access: Access) -> u64 {
        self.inner.read_any(access)
    }

    fn write_bar(&self, _: u8, access: Access, value: u64) {
        self.inner.write_any(access, value);
    }

    fn config_written(&self, _: u16, _: u8) {
        // Bus mastering and interrupts are read where they matter.
        self.inner.change(|_, _| ());
    }
}
