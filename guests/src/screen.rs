//! Pictures of a guest's screen, and what can be told from them.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Result, ensure};

/// Rows of RGB pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// Reads an 8-bit RGB or RGBA PNG.
    pub fn read(path: &Path) -> Result<Picture> {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path)?)).read_info()?;
        let mut bytes = vec![0; reader.output_buffer_size().unwrap_or(0)];
        let info = reader.next_frame(&mut bytes)?;
        let samples = info.color_type.samples();
        ensure!(
            info.bit_depth == png::BitDepth::Eight && samples >= 3,
            "not an RGB picture"
        );
        let pixels = bytes[..info.buffer_size()]
            .chunks_exact(samples)
            .map(|p| [p[0], p[1], p[2]])
            .collect();
        Ok(Picture {
            width: info.width,
            height: info.height,
            pixels,
        })
    }

    /// The part (0 to 1) of pixels that are within `tolerance` of a colour in each channel.
    pub fn share(&self, colour: [u8; 3], tolerance: u8) -> f64 {
        let near = |p: &&[u8; 3]| {
            p.iter()
                .zip(colour)
                .all(|(a, b)| a.abs_diff(b) <= tolerance)
        };
        self.pixels.iter().filter(near).count() as f64 / self.pixels.len().max(1) as f64
    }

    /// Whether this looks like a menu of Debian's text installer: a grey window, a red mark in it, newt's blue around.
    pub fn is_text_installer(&self) -> bool {
        let window = self.share([0xaa, 0xaa, 0xaa], 24);
        let mark = self.share([0xaa, 0, 0], 24);
        let around = self.share([0, 0, 0xaa], 24);
        window > 0.1 && around > 0.04 && window + around > 0.6 && mark > 0.004
    }

    /// The rows of `height`-pixel text lines that differ from another picture of the same size.
    pub fn changed_lines(&self, other: &Picture, height: u32) -> Vec<u32> {
        if (self.width, self.height) != (other.width, other.height) {
            return (0..self.height.div_ceil(height)).collect();
        }
        let row = self.width as usize * height as usize;
        self.pixels
            .chunks(row)
            .zip(other.pixels.chunks(row))
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(line, _)| line as u32)
            .collect()
    }
}
