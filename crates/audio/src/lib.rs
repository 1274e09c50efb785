//! Sound between devices and whatever the host has for it.
//!
//! - [`Audio`] is one `-audiodev`: a back end that voices play to and microphones listen to.
//! - [`Voice`] takes the frames that a device plays, at the device's pace: the guest's clock drives it, not the host's.
//! - [`Microphone`] gives the frames that a device records; where there is nothing to hear it gives silence.
//!
//! A device's clock and a sound card's differ a little. A voice that goes to a card is resampled on its way into the
//! queue, by a ratio that keeps the queue at its level ([`queue`]): nothing is dropped or doubled. A voice that goes to a
//! file has no other clock to obey: what the device played is in the file, sample by sample.

#[cfg(any(feature = "cpal", target_os = "macos"))]
mod host;
mod options;
mod queue;
mod resample;
mod wav;

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

pub use options::{Driver, Options, OptionsError, drivers};
use queue::Queue;

/// A left and a right sample, full scale being -1 to 1.
pub type Frame = [f32; 2];

/// Silence.
pub const SILENCE: Frame = [0.0; 2];

/// Why a back end cannot be had, in words for its user.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("audiodev '{id}': cannot {what} '{path}': {reason}")]
    File {
        id: String,
        what: &'static str,
        path: String,
        reason: String,
    },
    #[error("audiodev '{id}': cannot start a thread: {reason}")]
    Thread { id: String, reason: String },
}

/// One `-audiodev`.
pub struct Audio {
    shared: Arc<Shared>,
    notice: Option<String>,
    /// The back end's thread.
    worker: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What devices, the back end and its thread share.
pub(crate) struct Shared {
    pub id: String,
    /// Whether anybody takes what is played: with `none` it goes nowhere at once.
    plays: bool,
    /// Whether voices keep pace with another clock.
    paced: bool,
    pub state: Mutex<State>,
    /// Something was played, started or stopped; or the end has come.
    pub woken: Condvar,
}

/// Who plays and who listens.
#[derive(Default)]
pub(crate) struct State {
    pub voices: Vec<Arc<Mutex<Queue>>>,
    pub microphones: Vec<Arc<Mutex<Queue>>>,
    /// The rate that voices are mixed at, in Hz; 0: that of the first to play.
    pub rate: u32,
    /// What microphones hear, if it comes from a file: frames, and their rate.
    pub tape: Option<Arc<(Vec<Frame>, u32)>>,
    pub ended: bool,
}

impl State {
    /// The queues of voices that still exist, or still have something to be played.
    pub fn voices(&mut self) -> Vec<Arc<Mutex<Queue>>> {
        self.voices.retain(|v| !v.lock().over());
        self.voices.clone()
    }

    /// The queues of microphones that still exist.
    #[cfg_attr(not(any(feature = "cpal", target_os = "macos")), expect(unused))]
    pub fn microphones(&mut self) -> Vec<Arc<Mutex<Queue>>> {
        self.microphones.retain(|m| !m.lock().over());
        self.microphones.clone()
    }
}

impl Audio {
    /// Opens a back end. A host without sound is no error: [`Audio::notice`] says so, and all is silent.
    ///
    /// # Errors
    /// A file that cannot be written or read.
    pub fn open(options: &Options) -> Result<Arc<Audio>, OpenError> {
        let mut state = State {
            rate: options.frequency.unwrap_or(0),
            ..State::default()
        };
        if let Some(path) = &options.input {
            state.tape = Some(Arc::new(wav::read(&options.id, path)?));
        }
        let shared = |plays, paced, state| {
            Arc::new(Shared {
                id: options.id.clone(),
                plays,
                paced,
                state: Mutex::new(state),
                woken: Condvar::new(),
            })
        };
        let silent = |notice, state| {
            Arc::new(Audio {
                shared: shared(false, false, state),
                notice,
                worker: Mutex::new(None),
            })
        };
        match options.driver {
            Driver::None => Ok(silent(None, state)),
            Driver::Wav => {
                let path = options.path.as_deref().unwrap_or("qemu.wav");
                let file = wav::create(&options.id, path)?;
                let shared = shared(true, false, state);
                let worker = wav::start(shared.clone(), file, path)?;
                Ok(Arc::new(Audio {
                    shared,
                    notice: None,
                    worker: Mutex::new(Some(worker)),
                }))
            }
            #[cfg(any(feature = "cpal", target_os = "macos"))]
            Driver::Host => {
                state.rate = 0;
                let shared = shared(true, true, state);
                match host::start(shared.clone(), options) {
                    Ok(worker) => Ok(Arc::new(Audio {
                        shared,
                        notice: None,
                        worker: Mutex::new(Some(worker)),
                    })),
                    Err(why) => {
                        let state = std::mem::take(&mut *shared.state.lock());
                        Ok(silent(Some(format!("no sound: {why}")), state))
                    }
                }
            }
            #[cfg(not(any(feature = "cpal", target_os = "macos")))]
            Driver::Host => Ok(silent(
                Some(
                    "no sound: this build has none of the host's (cargo build --features cpal, with libasound2-dev)"
                        .into(),
                ),
                state,
            )),
        }
    }

    /// What its user is to be told, in one line.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Its `id=`.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// The machine ends: what was played goes where it belongs, a file is complete. May wait.
    pub fn finish(&self) {
        self.shared.state.lock().ended = true;
        self.shared.woken.notify_all();
        if let Some(worker) = self.worker.lock().take() {
            let _ = worker.join();
        }
    }

    /// A voice, not playing yet. `name` is for logs.
    pub fn voice(self: &Arc<Audio>, name: &str) -> Voice {
        let queue = Arc::new(Mutex::new(Queue::new(name)));
        self.shared.state.lock().voices.push(queue.clone());
        Voice {
            audio: self.clone(),
            queue,
        }
    }

    /// A microphone, not listening yet. `name` is for logs.
    pub fn microphone(self: &Arc<Audio>, name: &str) -> Microphone {
        let queue = Arc::new(Mutex::new(Queue::new(name)));
        self.shared.state.lock().microphones.push(queue.clone());
        Microphone {
            audio: self.clone(),
            queue,
            tape: Mutex::default(),
        }
    }
}

impl Drop for Audio {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What a device plays. Its calls never wait for the host.
pub struct Voice {
    audio: Arc<Audio>,
    queue: Arc<Mutex<Queue>>,
}

impl Voice {
    /// The device begins to play, at that many frames a second.
    pub fn start(&self, rate: u32) {
        let shared = &self.audio.shared;
        if !shared.plays {
            return;
        }
        let mut state = shared.state.lock();
        if state.rate == 0 && !shared.paced {
            state.rate = rate;
        }
        let mix = state.rate;
        self.queue.lock().start(rate, mix, shared.paced);
        drop(state);
        shared.woken.notify_all();
    }

    /// Plays frames, as many as the guest's clock says are due.
    pub fn write(&self, frames: &[Frame]) {
        let shared = &self.audio.shared;
        if !shared.plays || frames.is_empty() {
            return;
        }
        self.queue.lock().push(frames);
        if !shared.paced {
            shared.woken.notify_all();
        }
    }

    /// The device stops. What it has given is still played.
    pub fn stop(&self) {
        self.queue.lock().stop();
        self.audio.shared.woken.notify_all();
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.queue.lock().end();
        self.audio.shared.woken.notify_all();
    }
}

/// What a device records. Its calls never wait for the host.
pub struct Microphone {
    audio: Arc<Audio>,
    queue: Arc<Mutex<Queue>>,
    tape: Mutex<Tape>,
}

/// How far a file that stands for what is heard has been played.
#[derive(Default)]
struct Tape {
    /// The file at the device's rate.
    frames: Vec<Frame>,
    rate: u32,
    at: usize,
}

impl Microphone {
    /// The device begins to record, at that many frames a second.
    pub fn start(&self, rate: u32) {
        let shared = &self.audio.shared;
        let state = shared.state.lock();
        if let Some(file) = &state.tape {
            let mut tape = self.tape.lock();
            if tape.rate != rate {
                *tape = Tape {
                    frames: resample::whole(&file.0, file.1, rate),
                    rate,
                    at: 0,
                };
            }
        }
        self.queue.lock().start(rate, rate, shared.paced);
        drop(state);
        shared.woken.notify_all();
    }

    /// Records: fills all of `frames`, with silence where nothing was heard.
    pub fn read(&self, frames: &mut [Frame]) {
        let mut tape = self.tape.lock();
        if tape.rate != 0 {
            let rest = &tape.frames[tape.at..];
            let n = rest.len().min(frames.len());
            frames[..n].copy_from_slice(&rest[..n]);
            frames[n..].fill(SILENCE);
            tape.at += n;
            return;
        }
        self.queue.lock().fill(frames);
    }

    /// The device stops.
    pub fn stop(&self) {
        self.queue.lock().stop();
        self.audio.shared.woken.notify_all();
    }
}

impl Drop for Microphone {
    fn drop(&mut self) {
        self.queue.lock().end();
        self.audio.shared.woken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_back_end_all_is_silent() {
        let audio = Audio::open(&Options::new("none", Driver::None)).unwrap();
        let (voice, microphone) = (audio.voice("v"), audio.microphone("m"));
        voice.start(48000);
        voice.write(&[[0.5; 2]; 4800]);
        assert_eq!(voice.queue.lock().level(), 0);
        microphone.start(48000);
        let mut heard = [[1.0; 2]; 100];
        microphone.read(&mut heard);
        assert_eq!(heard, [SILENCE; 100]);
        assert_eq!(audio.notice(), None);
    }

    #[cfg(not(any(feature = "cpal", target_os = "macos")))]
    #[test]
    fn a_host_without_sound_is_told_of_in_one_line() {
        let audio = Audio::open(&Options::new("host", Driver::Host)).unwrap();
        assert_eq!(audio.notice().map(|n| n.lines().count()), Some(1));
    }
}
