//! Sounds for guests to play and to record, and finding them again.

use std::path::Path;

use anyhow::Result;

/// Two tones at 48 kHz, 16 bits, so many frames of them: samples, and as a WAV file.
pub fn tones(path: &Path, frames: u32) -> Result<Vec<i16>> {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 48000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let tone = |i: u32, hertz: f64| {
        ((f64::from(i) * hertz * std::f64::consts::TAU / 48000.0).sin() * 12000.0) as i16
    };
    let mut writer = hound::WavWriter::create(path, spec)?;
    let mut samples = Vec::new();
    for i in 0..frames {
        // Never silent, so that the beginning is found.
        for sample in [tone(i, 440.0) | 1, tone(i, 1000.0) | 1] {
            writer.write_sample(sample)?;
            samples.push(sample);
        }
    }
    writer.finalize()?;
    Ok(samples)
}

/// The rate (Hz) and the samples of a WAV file, its channels in turn.
pub fn samples(path: &Path) -> Result<(u32, Vec<i16>)> {
    let mut reader = hound::WavReader::open(path)?;
    let rate = reader.spec().sample_rate;
    let samples = reader.samples().collect::<Result<Vec<i16>, _>>()?;
    Ok((rate, samples))
}

/// Where `part` begins in `whole`.
pub fn position(whole: &[i16], part: &[i16]) -> Option<usize> {
    (0..(whole.len() + 1).saturating_sub(part.len())).find(|&at| whole[at..].starts_with(part))
}
