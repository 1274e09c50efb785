//! Another sampling rate: windowed-sinc interpolation (J. O. Smith, "Digital Audio Resampling").

use std::collections::VecDeque;
use std::f64::consts::PI;

use crate::{Frame, SILENCE};

/// Frames on each side of a point that it is made of.
const HALF: usize = 16;
const TAPS: usize = HALF * 2;
/// Points between two frames that the filter is computed for; what is between them is interpolated.
const PHASES: usize = 256;
/// Slower than a sixteenth nobody plays; bounds what one frame can become.
const RATIO: std::ops::RangeInclusive<f64> = 1.0 / 16.0..=16.0;

/// Makes frames at one rate out of frames at another.
pub struct Resampler {
    /// `TAPS` coefficients for each of `PHASES + 1` points.
    filter: Vec<f32>,
    /// The last frames of the input.
    history: VecDeque<Frame>,
    /// Where the next frame of the output lies, in frames of the input after the middle of the history.
    position: f64,
}

impl Resampler {
    /// For an output of about `ratio` times the input's rate.
    pub fn new(ratio: f64) -> Resampler {
        // An output with less bandwidth than the input is filtered to it, with room for the filter's slope.
        let cutoff = ratio.clamp(*RATIO.start(), 1.0) * 0.95;
        let mut filter = Vec::with_capacity((PHASES + 1) * TAPS);
        for phase in 0..=PHASES {
            let shift = phase as f64 / PHASES as f64;
            let tap = |i: usize| {
                let x = i as f64 - (HALF - 1) as f64 - shift;
                let sinc = if x == 0.0 {
                    cutoff
                } else {
                    (PI * x * cutoff).sin() / (PI * x)
                };
                // Blackman's window over all taps.
                let w = (x / HALF as f64).clamp(-1.0, 1.0) * PI;
                sinc * (0.42 + 0.5 * w.cos() + 0.08 * (2.0 * w).cos())
            };
            let taps: Vec<f64> = (0..TAPS).map(tap).collect();
            let sum: f64 = taps.iter().sum();
            filter.extend(taps.iter().map(|t| (t / sum) as f32));
        }
        Resampler {
            filter,
            history: VecDeque::from(vec![SILENCE; TAPS]),
            position: 0.0,
        }
    }

    /// Takes frames in and puts `ratio` times as many out.
    pub fn process(&mut self, frames: &[Frame], ratio: f64, out: &mut impl Extend<Frame>) {
        let step = 1.0 / ratio.clamp(*RATIO.start(), *RATIO.end());
        for frame in frames {
            self.history.pop_front();
            self.history.push_back(*frame);
            let taken = self.history.make_contiguous();
            while self.position < 1.0 {
                let point = self.position * PHASES as f64;
                let phase = (point as usize).min(PHASES - 1);
                let between = (point - phase as f64) as f32;
                let (a, b) = self.filter[phase * TAPS..][..TAPS * 2].split_at(TAPS);
                let mut sum = SILENCE;
                for ((frame, a), b) in taken.iter().zip(a).zip(b) {
                    let weight = a + (b - a) * between;
                    sum[0] += frame[0] * weight;
                    sum[1] += frame[1] * weight;
                }
                out.extend([sum]);
                self.position += step;
            }
            self.position -= 1.0;
        }
    }
}

/// All of a recording at another rate.
pub fn whole(frames: &[Frame], from: u32, to: u32) -> Vec<Frame> {
    if from == to || from == 0 {
        return frames.to_vec();
    }
    let ratio = f64::from(to) / f64::from(from);
    let mut out = Vec::new();
    let mut resampler = Resampler::new(ratio);
    resampler.process(frames, ratio, &mut out);
    // The filter's delay.
    resampler.process(&[SILENCE; HALF], ratio, &mut out);
    let delay = (HALF as f64 * ratio) as usize;
    out.drain(..delay.min(out.len()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hertz: f64, length: usize) -> Vec<Frame> {
        let sample = |i: usize| (i as f64 * hertz * 2.0 * PI / f64::from(rate)).sin() * 0.5;
        (0..length)
            .map(|i| [sample(i) as f32, -sample(i) as f32])
            .collect()
    }

    #[test]
    fn a_tone_stays_the_tone() {
        for (from, to) in [
            (44100, 48000),
            (48000, 44100),
            (96000, 48000),
            (8000, 48000),
        ] {
            let out = whole(&tone(from, 440.0, from as usize / 2), from, to);
            let expected = tone(to, 440.0, to as usize / 2);
            assert!(out.len().abs_diff(expected.len()) <= 2, "{from} to {to}");
            // Away from the ends, which the filter sees silence behind. A frame's shift is the sampling grid's.
            let worst = (1000..out.len() - 1000)
                .map(|i| {
                    let near = |j: usize| (out[i][0] - expected[j][0]).abs();
                    near(i).min(near(i - 1)).min(near(i + 1))
                })
                .fold(0.0, f32::max);
            assert!(worst < 0.03, "{from} to {to}: {worst}");
            assert!(out.iter().all(|f| (f[0] + f[1]).abs() < 1e-5));
        }
    }

    #[test]
    fn what_the_output_cannot_hold_is_taken_out() {
        let out = whole(&tone(96000, 40000.0, 48000), 96000, 48000);
        let loudest = out[100..out.len() - 100]
            .iter()
            .fold(0.0f32, |m, f| m.max(f[0].abs()));
        assert!(loudest < 0.01, "{loudest}");
    }
}
