//! The `wav` back end: what is played goes to a file, and what is heard may come from one.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};
use parking_lot::Mutex;

use crate::queue::Queue;
use crate::{Frame, OpenError, SILENCE, Shared};

/// Of several voices, one that gives nothing for so long is silent.
const PATIENCE: Duration = Duration::from_millis(100);
/// Between updates of the header: a file of a process that was killed is whole but for so much.
const FLUSH: Duration = Duration::from_secs(1);
/// Frames mixed at once.
const PIECE: usize = 4800;

fn failed(id: &str, what: &'static str, path: &str, reason: impl ToString) -> OpenError {
    OpenError::File {
        id: id.into(),
        what,
        path: path.into(),
        reason: reason.to_string(),
    }
}

/// Makes the file, so that one that cannot be made is known at once.
pub fn create(id: &str, path: &str) -> Result<File, OpenError> {
    File::create(path).map_err(|e| failed(id, "write to", path, e))
}

/// Reads a file: PCM of 8 to 32 bits or floats, one channel or the first two.
pub fn read(id: &str, path: &str) -> Result<(Vec<Frame>, u32), OpenError> {
    let fail = |e: hound::Error| failed(id, "read", path, e);
    let mut reader = WavReader::open(path).map_err(fail)?;
    let spec = reader.spec();
    let samples: Vec<f32> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>(),
        SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample - 1)) as f32;
            let samples = reader.samples::<i32>();
            samples.map(|s| s.map(|s| s as f32 * scale)).collect()
        }
    }
    .map_err(fail)?;
    let channels = usize::from(spec.channels.max(1));
    let frame = |f: &[f32]| [f[0], f[usize::from(channels > 1)]];
    let frames = samples.chunks_exact(channels).map(frame).collect();
    Ok((frames, spec.sample_rate))
}

/// Starts the thread that mixes voices into the file.
pub fn start(shared: Arc<Shared>, file: File, path: &str) -> Result<JoinHandle<()>, OpenError> {
    let (id, path) = (shared.id.clone(), path.to_string());
    std::thread::Builder::new()
        .name("audio".into())
        .spawn(move || {
            if let Err(error) = run(&shared, file) {
                tracing::error!(
                    "audiodev '{}': cannot write to '{path}': {error}",
                    shared.id
                );
                // What is played from now on goes nowhere.
                shared.state.lock().voices.clear();
            }
        })
        .map_err(|e| OpenError::Thread {
            id,
            reason: e.to_string(),
        })
}

type Writer = WavWriter<BufWriter<File>>;

fn run(shared: &Shared, file: File) -> Result<(), hound::Error> {
    let mut mixer = Mixer::default();
    let mut file = Some(file);
    let mut writer: Option<Writer> = None;
    let mut flushed = Instant::now();
    loop {
        let (voices, rate, ended) = {
            let mut state = shared.state.lock();
            (state.voices(), state.rate, state.ended)
        };
        let mixed = mixer.mix(&voices, ended);
        if !mixed.is_empty() || (ended && writer.is_none()) {
            if let Some(file) = file.take() {
                let spec = WavSpec {
                    channels: 2,
                    sample_rate: if rate == 0 { 48000 } else { rate },
                    bits_per_sample: 16,
                    sample_format: SampleFormat::Int,
                };
                writer = Some(WavWriter::new(BufWriter::new(file), spec)?);
            }
            if let Some(writer) = &mut writer {
                for sample in mixed.iter().flatten() {
                    writer.write_sample(to_16_bits(*sample))?;
                }
            }
        }
        if ended && mixed.is_empty() {
            return writer.map_or(Ok(()), Writer::finalize);
        }
        if flushed.elapsed() > FLUSH
            && let Some(writer) = &mut writer
        {
            writer.flush()?;
            flushed = Instant::now();
        }
        let mut state = shared.state.lock();
        if mixed.is_empty() && !state.ended {
            let playing = voices.iter().any(|v| v.lock().active());
            drop(voices);
            if playing || writer.is_some() {
                shared.woken.wait_for(&mut state, FLUSH / 10);
            } else {
                shared.woken.wait(&mut state);
            }
        }
    }
}

fn to_16_bits(sample: f32) -> i16 {
    (sample * 32768.0).round().clamp(-32768.0, 32767.0) as i16
}

/// Mixes voices by what they have given, not by a clock.
#[derive(Default)]
struct Mixer {
    /// Since when a voice that plays has had nothing while another had.
    waiting: Option<Instant>,
}

impl Mixer {
    /// What all voices that play have given; without regard for those that have given nothing for long.
    fn mix(&mut self, voices: &[Arc<Mutex<Queue>>], ended: bool) -> Vec<Frame> {
        let mut least = usize::MAX;
        let mut most = 0;
        for voice in voices {
            let voice = voice.lock();
            most = most.max(voice.level());
            if voice.active() {
                least = least.min(voice.level());
            }
        }
        if most == 0 {
            self.waiting = None;
            return Vec::new();
        }
        let impatient = ended || self.waiting.get_or_insert_with(Instant::now).elapsed() > PATIENCE;
        let n = if least == 0 && !impatient {
            return Vec::new();
        } else if least == 0 || least == usize::MAX {
            most
        } else {
            least
        };
        self.waiting = None;
        let mut mixed = vec![SILENCE; n.min(PIECE)];
        for voice in voices {
            voice.lock().mix(&mut mixed);
        }
        mixed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Audio, Driver, Options};

    fn samples(path: &std::path::Path) -> (u32, Vec<i16>) {
        let mut reader = WavReader::open(path).unwrap();
        let rate = reader.spec().sample_rate;
        (rate, reader.samples().map(Result::unwrap).collect())
    }

    fn options(folder: &tempfile::TempDir) -> (std::path::PathBuf, Options) {
        let path = folder.path().join("out.wav");
        let mut options = Options::new("snd", Driver::Wav);
        options.path = Some(path.display().to_string());
        (path, options)
    }

    #[test]
    fn every_sample_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, options) = options(&folder);
        let audio = Audio::open(&options).unwrap();
        let voice = audio.voice("v");
        voice.start(44100);
        let values: Vec<i16> = (0..40000u32).map(|i| (i * 31) as i16).collect();
        let frames: Vec<Frame> = values
            .chunks(2)
            .map(|v| [f32::from(v[0]) / 32768.0, f32::from(v[1]) / 32768.0])
            .collect();
        for piece in frames.chunks(333) {
            voice.write(piece);
        }
        voice.stop();
        drop((voice, audio));
        assert!(samples(&path) == (44100, values));
    }

    #[test]
    fn voices_are_mixed_and_one_that_says_nothing_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut options) = options(&folder);
        options.frequency = Some(48000);
        let audio = Audio::open(&options).unwrap();
        let (a, b) = (audio.voice("a"), audio.voice("b"));
        a.start(48000);
        b.start(48000);
        a.write(&[[0.25; 2]; 1000]);
        b.write(&[[0.5; 2]; 500]);
        std::thread::sleep(PATIENCE * 3);
        b.stop();
        a.stop();
        drop((a, b, audio));
        let (rate, got) = samples(&path);
        assert_eq!((rate, got.len()), (48000, 2000));
        assert_eq!((got[0], got[999], got[1000]), (0x6000, 0x6000, 0x2000));
    }

    #[test]
    fn what_is_heard_may_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut options) = options(&folder);
        let spec = WavSpec {
            channels: 1,
            sample_rate: 48000,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let source = folder.path().join("in.wav");
        let mut writer = WavWriter::create(&source, spec).unwrap();
        for i in 0..100i16 {
            writer.write_sample(i * 256).unwrap();
        }
        writer.finalize().unwrap();
        options.input = Some(source.display().to_string());
        let audio = Audio::open(&options).unwrap();
        let microphone = audio.microphone("m");
        microphone.start(48000);
        let mut heard = [SILENCE; 150];
        microphone.read(&mut heard[..40]);
        microphone.read(&mut heard[40..]);
        assert_eq!(heard[99], [99.0 * 256.0 / 32768.0; 2]);
        assert_eq!(heard[100], SILENCE);
        drop((microphone, audio));
        assert_eq!(samples(&path).1.len(), 0, "a whole file without a sample");
        options.input = Some("/nowhere.wav".into());
        assert!(Audio::open(&options).is_err());
    }
}
