//! What waits between a device and the host, and how it keeps to its level.

use std::collections::VecDeque;

use crate::resample::Resampler;
use crate::{Frame, SILENCE};

/// How much waits for a sound card, in milliseconds: what a busy host may be late by. With what the device gives at
/// once and the card's own buffer it is under 60.
const TARGET: f64 = 25.0;
/// The level's own noise: each piece that a device gives or a card takes moves it by some milliseconds.
const SMOOTHING: f64 = 0.02;
/// How fast the level goes back, and the most that the pitch may change for it (inaudible).
const GAIN: f64 = 0.004;
const MOST: f64 = 0.004;
/// More than that waits only if nobody takes it; the oldest goes.
const FULL: f64 = 200.0;
/// Of a file: its writer is a minute late.
const FILE_FULL: f64 = 60_000.0;

/// Frames of one voice or microphone, at the rate of who takes them.
pub struct Queue {
    name: String,
    frames: VecDeque<Frame>,
    active: bool,
    /// Its device is gone.
    ended: bool,
    /// Frames a second: in and out.
    rates: (u32, u32),
    /// Who takes has a clock of its own.
    paced: bool,
    resampler: Option<Resampler>,
    /// Enough has come to begin with.
    primed: bool,
    /// Smoothed level in milliseconds.
    level: f64,
    /// How often there was nothing where there should have been.
    pub underruns: u64,
}

impl Queue {
    pub fn new(name: &str) -> Queue {
        Queue {
            name: name.into(),
            frames: VecDeque::new(),
            active: false,
            ended: false,
            rates: (0, 0),
            paced: false,
            resampler: None,
            primed: false,
            level: TARGET,
            underruns: 0,
        }
    }

    /// Frames at rate `from` will come; `to` (0: not known yet) is what is taken.
    pub fn start(&mut self, from: u32, to: u32, paced: bool) {
        self.active = true;
        self.paced = paced;
        self.primed = !paced;
        self.level = TARGET;
        if self.paced {
            self.frames.clear();
        }
        self.set_rates(from, to);
    }

    /// The rate at which frames are taken is known now, or is another.
    #[cfg_attr(not(any(feature = "cpal", target_os = "macos", test)), expect(unused))]
    pub fn retarget(&mut self, to: u32) {
        let from = self.rates.0;
        self.set_rates(from, to);
    }

    /// The rate of what comes is known now, or is another.
    #[cfg_attr(not(any(feature = "cpal", target_os = "macos")), expect(unused))]
    pub fn resource(&mut self, from: u32) {
        let to = self.rates.1;
        self.set_rates(from, to);
    }

    fn set_rates(&mut self, from: u32, to: u32) {
        if self.rates == (from, to) && self.resampler.is_some() == self.paced {
            return;
        }
        self.rates = (from, to);
        let ratio = self.ratio();
        // At one rate and with nobody else's clock, what comes out is what went in.
        self.resampler = (self.paced || from != to).then(|| Resampler::new(ratio));
    }

    fn ratio(&self) -> f64 {
        match self.rates {
            (0, _) | (_, 0) => 1.0,
            (from, to) => f64::from(to) / f64::from(from),
        }
    }

    /// Nothing more comes.
    pub fn stop(&mut self) {
        self.active = false;
    }

    /// Its device is gone: nothing ever comes again.
    pub fn end(&mut self) {
        self.active = false;
        self.ended = true;
    }

    /// Whether nothing is left of it.
    pub fn over(&self) -> bool {
        self.ended && self.frames.is_empty()
    }

    pub fn active(&self) -> bool {
        self.active
    }

    /// Frames that wait.
    pub fn level(&self) -> usize {
        self.frames.len()
    }

    fn milliseconds(&self) -> f64 {
        self.frames.len() as f64 * 1000.0 / f64::from(self.rates.1.max(1))
    }

    /// Takes frames in.
    pub fn push(&mut self, frames: &[Frame]) {
        if !self.active || (self.paced && (self.rates.0 == 0 || self.rates.1 == 0)) {
            return;
        }
        let mut ratio = self.ratio();
        if self.paced && self.primed {
            self.level += (self.milliseconds() - self.level) * SMOOTHING;
            let error = (self.level - TARGET) / TARGET;
            ratio *= 1.0 - (error * GAIN).clamp(-MOST, MOST);
        }
        match &mut self.resampler {
            Some(resampler) => resampler.process(frames, ratio, &mut self.frames),
            None => self.frames.extend(frames),
        }
        let full = if self.paced { FULL } else { FILE_FULL };
        if self.milliseconds() > full {
            let keep = if self.paced { TARGET } else { full };
            let keep = (keep * f64::from(self.rates.1) / 1000.0) as usize;
            let extra = self.frames.len().saturating_sub(keep);
            tracing::debug!(
                name = self.name,
                extra,
                "the host does not take what is played"
            );
            self.frames.drain(..extra);
        }
    }

    /// Adds what waits to `into`; what is missing stays as it is. How many frames there were.
    pub fn mix(&mut self, into: &mut [Frame]) -> usize {
        if !self.primed {
            // The end of something short is played too.
            if self.active && self.milliseconds() < TARGET {
                return 0;
            }
            self.primed = true;
        }
        let n = self.frames.len().min(into.len());
        for (target, frame) in into.iter_mut().zip(self.frames.drain(..n)) {
            target[0] += frame[0];
            target[1] += frame[1];
        }
        if self.paced && n < into.len() {
            if self.active {
                self.underruns += 1;
                tracing::debug!(name = self.name, "nothing to play");
            }
            self.primed = false;
            self.level = TARGET;
        }
        n
    }

    /// Takes frames out, silence where there are none.
    pub fn fill(&mut self, into: &mut [Frame]) {
        into.fill(SILENCE);
        self.mix(into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that gives 5 ms at a time by one clock, a card that takes 10 ms by another, both late at times: seconds
    /// of it, underruns, the longest wait in milliseconds.
    fn simulate(drift: f64, rate_in: u32, rate_out: u32, seconds: u32) -> (u64, f64) {
        let mut queue = Queue::new("test");
        queue.start(rate_in, 0, true);
        queue.retarget(rate_out);
        let mut random = 1u64;
        let mut late = |most: f64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            (random >> 40) as f64 / (1u64 << 24) as f64 * most
        };
        let (mut given, mut device, mut card, mut worst) = (0u64, 0.0, 0.0, 0.0f64);
        let mut taken = vec![SILENCE; rate_out as usize / 100];
        while card < f64::from(seconds) * 1000.0 {
            if device <= card {
                // As a device does it: all that is due by its clock, however late it is.
                let due = (device * (1.0 + drift) * f64::from(rate_in) / 1000.0) as u64;
                queue.push(&vec![[0.25; 2]; (due - given) as usize]);
                given = due;
                device = (device / 5.0).floor() * 5.0 + 5.0 + late(4.0);
            } else {
                queue.fill(&mut taken);
                if card > 2000.0 {
                    worst = worst.max(queue.milliseconds());
                }
                card = (card / 10.0).floor() * 10.0 + 10.0 + late(3.0);
            }
        }
        (queue.underruns, worst)
    }

    #[test]
    fn clocks_that_differ_neither_drop_nor_pile_up() {
        for drift in [-0.0005, 0.0, 0.0005] {
            for (from, to) in [(48000, 48000), (44100, 48000), (48000, 44100)] {
                let (underruns, worst) = simulate(drift, from, to, 40);
                assert_eq!(underruns, 0, "{drift} {from} {to}");
                assert!(worst < 45.0, "{drift} {from} {to}: {worst} ms");
            }
        }
    }

    #[test]
    fn a_file_gets_what_was_played() {
        let mut queue = Queue::new("test");
        queue.start(48000, 48000, false);
        let frames: Vec<Frame> = (0..1000).map(|i| [i as f32 / 32768.0, -1.0]).collect();
        queue.push(&frames);
        let mut out = vec![SILENCE; 1000];
        assert_eq!(queue.mix(&mut out), 1000);
        assert_eq!(out, frames);
    }

    #[test]
    fn nobody_who_takes_costs_no_memory() {
        let mut queue = Queue::new("test");
        queue.start(48000, 48000, true);
        for _ in 0..10_000 {
            queue.push(&[[0.5; 2]; 480]);
        }
        assert!(queue.level() <= 48000 / 5);
    }
}
