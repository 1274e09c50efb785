//! The host's sound card, through cpal: CoreAudio on macOS, ALSA (and what takes its clients) on Linux.
//!
//! A thread of its own opens a stream while a device plays or records, and closes it a little after the last has
//! stopped. The card's callbacks only mix what waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{
    BufferSize, Device, FromSample, Sample, SampleFormat, SizedSample, Stream, StreamConfig,
    SupportedBufferSize, SupportedStreamConfig, SupportedStreamConfigRange,
};

use crate::{Frame, Options, SILENCE, Shared};

/// What is asked of the card: guests play this, mostly.
const RATE: u32 = 48000;
/// A card's buffer, in parts of a second: with what waits for it the latency stays under 60 ms.
const BUFFER: u32 = 100;
/// After the last voice has stopped.
const LINGER: Duration = Duration::from_secs(2);
/// Before a card that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Starts the thread; why there is no sound otherwise.
pub fn start(shared: Arc<Shared>, options: &Options) -> Result<JoinHandle<()>, String> {
    let wanted = options.device.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("audio".into())
        .spawn(move || {
            let cards = Cards::find(wanted.as_deref());
            let _ = tell.send(cards.as_ref().map(|_| ()).map_err(String::clone));
            if let Ok(cards) = cards {
                cards.serve(&shared);
            }
        })
        .map_err(|e| e.to_string())?;
    match told.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(why)) => Err(why),
        Err(_) => Err("the host's sound system failed".into()),
    }
}

struct Cards {
    output: Option<Device>,
    input: Option<Device>,
}

/// A running stream.
struct Running {
    _stream: Stream,
    rate: u32,
    /// The card is gone or has failed.
    broken: Arc<AtomicBool>,
    /// When somebody last used it.
    used: Instant,
}

impl Cards {
    fn find(wanted: Option<&str>) -> Result<Cards, String> {
        let host = cpal::default_host();
        let cards = match wanted {
            None => Cards {
                output: host.default_output_device(),
                input: host.default_input_device(),
            },
            Some(name) => {
                let named = |device: &Device| {
                    device.description().is_ok_and(|d| d.name() == name)
                        || device.id().is_ok_and(|id| id.to_string() == name)
                };
                let mut all: Vec<Device> = host.devices().map_err(|e| e.to_string())?.collect();
                all.retain(named);
                let first = |able: fn(&Device) -> bool| all.iter().find(|d| able(d)).cloned();
                Cards {
                    output: first(|d| d.supports_output()),
                    input: first(|d| d.supports_input()),
                }
            }
        };
        match (&cards.output, &cards.input, wanted) {
            (None, None, None) => Err("this host has no sound device".into()),
            (None, None, Some(name)) => Err(format!("this host has no sound device '{name}'")),
            _ => Ok(cards),
        }
    }

    fn serve(&self, shared: &Arc<Shared>) {
        let (mut output, mut input) = (None, None);
        let mut failed: Option<Instant> = None;
        loop {
            let (voices, microphones, ended) = {
                let mut state = shared.state.lock();
                (state.voices(), state.microphones(), state.ended)
            };
            if ended {
                return;
            }
            let playing = voices.iter().any(|v| {
                let voice = v.lock();
                voice.active() || voice.level() > 0
            });
            let recording = microphones.iter().any(|m| m.lock().active());
            let patient = failed.is_some_and(|at| at.elapsed() < AGAIN);
            let mut keep = |running: &mut Option<Running>, wanted: bool, make: Make| {
                if let Some(stream) = running
                    && (stream.broken.load(Ordering::SeqCst) || stream.used.elapsed() > LINGER)
                {
                    *running = None;
                }
                if !wanted {
                    return;
                }
                if running.is_none() && !patient {
                    match make(self, shared) {
                        Ok(stream) => *running = stream,
                        Err(error) => {
                            tracing::warn!("audiodev '{}': {error}", shared.id);
                            failed = Some(Instant::now());
                        }
                    }
                }
                if let Some(stream) = running {
                    stream.used = Instant::now();
                }
            };
            keep(&mut output, playing, Cards::play);
            keep(&mut input, recording, Cards::record);
            let rate = |running: &Option<Running>| running.as_ref().map_or(0, |r| r.rate);
            shared.state.lock().rate = rate(&output);
            voices.iter().for_each(|v| v.lock().retarget(rate(&output)));
            if let Some(stream) = &input {
                microphones
                    .iter()
                    .for_each(|m| m.lock().resource(stream.rate));
            }
            drop((voices, microphones));
            let mut state = shared.state.lock();
            if state.ended {
                return;
            }
            if playing || recording || output.is_some() || input.is_some() {
                shared.woken.wait_for(&mut state, LINGER / 4);
            } else {
                shared.woken.wait(&mut state);
            }
        }
    }

    fn play(&self, shared: &Arc<Shared>) -> Result<Option<Running>, cpal::Error> {
        let Some(device) = &self.output else {
            return Ok(None);
        };
        let ranges = device.supported_output_configs()?;
        let config = choose(ranges).map_or_else(|| device.default_output_config(), Ok)?;
        match config.sample_format() {
            SampleFormat::F32 => playing::<f32>(device, &config, shared),
            SampleFormat::I16 => playing::<i16>(device, &config, shared),
            SampleFormat::I32 => playing::<i32>(device, &config, shared),
            _ => playing::<f32>(device, &config, shared),
        }
        .map(Some)
    }

    fn record(&self, shared: &Arc<Shared>) -> Result<Option<Running>, cpal::Error> {
        let Some(device) = &self.input else {
            return Ok(None);
        };
        let ranges = device.supported_input_configs()?;
        let config = choose(ranges).map_or_else(|| device.default_input_config(), Ok)?;
        match config.sample_format() {
            SampleFormat::F32 => recording::<f32>(device, &config, shared),
            SampleFormat::I16 => recording::<i16>(device, &config, shared),
            SampleFormat::I32 => recording::<i32>(device, &config, shared),
            _ => recording::<f32>(device, &config, shared),
        }
        .map(Some)
    }
}

type Make = fn(&Cards, &Arc<Shared>) -> Result<Option<Running>, cpal::Error>;

/// Two channels at our rate in a format that we have, if the card has that.
fn choose(
    ranges: impl Iterator<Item = SupportedStreamConfigRange>,
) -> Option<SupportedStreamConfig> {
    let known = [SampleFormat::F32, SampleFormat::I16, SampleFormat::I32];
    let rank =
        |range: &SupportedStreamConfigRange| known.iter().position(|f| *f == range.sample_format());
    ranges
        .filter(|range| range.channels() == 2)
        .filter_map(|range| Some((rank(&range)?, range.try_with_sample_rate(RATE)?)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, config)| config)
}

/// The stream's configuration with a short buffer, if the card lets one ask for that; and without.
fn configs(config: &SupportedStreamConfig) -> Vec<StreamConfig> {
    let plain = config.config();
    let wanted = config.sample_rate() / BUFFER;
    match config.buffer_size() {
        SupportedBufferSize::Range { min, max } => {
            let mut short = plain;
            short.buffer_size = BufferSize::Fixed(wanted.clamp(*min, *max));
            vec![short, plain]
        }
        SupportedBufferSize::Unknown => vec![plain],
    }
}

/// Makes a stream by the first configuration that works.
fn open(
    config: &SupportedStreamConfig,
    mut make: impl FnMut(StreamConfig, Arc<AtomicBool>) -> Result<Stream, cpal::Error>,
) -> Result<Running, cpal::Error> {
    let broken = Arc::new(AtomicBool::new(false));
    let mut result = None;
    for config in configs(config) {
        let stream = make(config, broken.clone());
        let works = stream.is_ok();
        result = Some(stream);
        if works {
            break;
        }
    }
    let stream = result.unwrap_or_else(|| Err(cpal::ErrorKind::UnsupportedConfig.into()))?;
    stream.play()?;
    Ok(Running {
        _stream: stream,
        rate: config.sample_rate(),
        broken,
        used: Instant::now(),
    })
}

/// What is done about an error of a stream: a late callback is none, all others end it.
fn on_error(broken: Arc<AtomicBool>) -> impl FnMut(cpal::Error) + Send + 'static {
    move |error| match error.kind() {
        cpal::ErrorKind::Xrun | cpal::ErrorKind::RealtimeDenied => {
            tracing::debug!("the host's sound: {error}");
        }
        _ => {
            tracing::warn!("the host's sound: {error}");
            broken.store(true, Ordering::SeqCst);
        }
    }
}

fn playing<T: SizedSample + FromSample<f32>>(
    device: &Device,
    config: &SupportedStreamConfig,
    shared: &Arc<Shared>,
) -> Result<Running, cpal::Error> {
    let channels = usize::from(config.channels()).max(1);
    open(config, |config, broken| {
        let shared = shared.clone();
        let mut frames: Vec<Frame> = Vec::new();
        let fill = move |data: &mut [T], _: &cpal::OutputCallbackInfo| {
            frames.clear();
            frames.resize(data.len() / channels, SILENCE);
            for voice in shared.state.lock().voices() {
                voice.lock().mix(&mut frames);
            }
            for (samples, frame) in data.chunks_mut(channels).zip(&frames) {
                samples.fill(T::from_sample(0.0f32));
                match samples {
                    [one] => *one = T::from_sample((frame[0] + frame[1]) / 2.0),
                    [left, right, ..] => {
                        *left = T::from_sample(frame[0].clamp(-1.0, 1.0));
                        *right = T::from_sample(frame[1].clamp(-1.0, 1.0));
                    }
                    [] => {}
                }
            }
        };
        device.build_output_stream(config, fill, on_error(broken), None)
    })
}

fn recording<T: SizedSample>(
    device: &Device,
    config: &SupportedStreamConfig,
    shared: &Arc<Shared>,
) -> Result<Running, cpal::Error>
where
    f32: FromSample<T>,
{
    let channels = usize::from(config.channels()).max(1);
    open(config, |config, broken| {
        let shared = shared.clone();
        let mut frames: Vec<Frame> = Vec::new();
        let take = move |data: &[T], _: &cpal::InputCallbackInfo| {
            frames.clear();
            frames.extend(data.chunks_exact(channels).map(|samples| {
                let left = f32::from_sample(samples[0]);
                let right = samples.get(1).map_or(left, |s| f32::from_sample(*s));
                [left, right]
            }));
            for microphone in shared.state.lock().microphones() {
                microphone.lock().push(&frames);
            }
        };
        device.build_input_stream(config, take, on_error(broken), None)
    })
}
