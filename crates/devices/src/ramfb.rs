//! ramfb: a linear frame buffer in guest RAM, set up through the fw_cfg file `etc/ramfb`.
//!
//! The guest writes 28 bytes, all big-endian: address (64 bits), DRM fourcc, flags, width, height, stride (32 bits each).

use std::sync::Arc;

use device::screen::{Screen, Surface, next_setup};
use device::{Device, Dma};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

/// The fw_cfg file's name.
pub const FILE: &str = "etc/ramfb";
/// Its size in bytes.
pub const FILE_SIZE: usize = 28;

/// The largest width and height in pixels.
const LARGEST: u32 = 16384;
/// The largest picture in pixels: 8K and a little, 256 MiB of host memory to show.
const MOST_PIXELS: u64 = 8192 * 8192;

/// How a pixel lies in memory, by its DRM fourcc (`drm_fourcc.h`); all little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// `XR24` and `AR24`: 32 bits, blue lowest; the top byte is of no concern.
    Xrgb8888,
    /// `RG24`: three bytes: blue, green, red.
    Rgb888,
    /// `RG16`: 16 bits, blue lowest.
    Rgb565,
}

impl Format {
    fn from_fourcc(code: u32) -> Option<Format> {
        match &code.to_le_bytes() {
            b"XR24" | b"AR24" => Some(Format::Xrgb8888),
            b"RG24" => Some(Format::Rgb888),
            b"RG16" => Some(Format::Rgb565),
            _ => None,
        }
    }

    /// Bytes a pixel.
    fn bytes(self) -> u32 {
        match self {
            Format::Xrgb8888 => 4,
            Format::Rgb888 => 3,
            Format::Rgb565 => 2,
        }
    }
}

/// A mode that the guest has set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    address: u64,
    format: Format,
    width: u32,
    height: u32,
    /// Bytes from a row to the next.
    stride: u32,
}

impl Mode {
    /// Reads the file's contents; `None` if no picture can come of them.
    pub fn parse(file: &[u8]) -> Option<Mode> {
        let word = |at: usize| {
            file.get(at..at + 4)
                .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        };
        let address = u64::from(word(0)?) << 32 | u64::from(word(4)?);
        let format = Format::from_fourcc(word(8)?)?;
        let (width, height) = (word(16)?, word(20)?);
        if !(1..=LARGEST).contains(&width) || !(1..=LARGEST).contains(&height) {
            return None;
        }
        if u64::from(width) * u64::from(height) > MOST_PIXELS {
            return None;
        }
        let row = width * format.bytes();
        let stride = match word(24)? {
            0 => row,
            stride if stride >= row => stride,
            _ => return None,
        };
        let mode = Mode {
            address,
            format,
            width,
            height,
            stride,
        };
        mode.address.checked_add(mode.span())?;
        Some(mode)
    }

    /// Bytes from the first pixel to the end of the last.
    fn span(&self) -> u64 {
        let row = u64::from(self.width * self.format.bytes());
        u64::from(self.stride) * u64::from(self.height - 1) + row
    }
}

/// Everything a guest can observe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    mode: Option<Mode>,
}

impl State {
    /// The state after power-on or reset: no picture.
    pub fn power_on() -> State {
        State::default()
    }
}

/// The device. The board passes what is written to [`FILE`] on to [`Ramfb::configure`].
pub struct Ramfb {
    name: String,
    dma: Dma,
    /// With the count for [`Screen::setup`], which belongs to the console and not to the machine.
    state: Mutex<(State, u64)>,
}

impl Ramfb {
    /// A frame buffer that lies somewhere in `dma`'s memory.
    pub fn new(name: &str, dma: Dma) -> Arc<Ramfb> {
        Arc::new(Ramfb {
            name: name.into(),
            dma,
            state: Mutex::new((State::power_on(), 0)),
        })
    }

    /// The guest wrote the file. What makes no picture leaves the screen as it was.
    pub fn configure(&self, file: &[u8]) {
        match Mode::parse(file) {
            Some(mode) if self.dma.contains(mode.address, mode.span()) => {
                tracing::debug!(name = self.name, ?mode, "set up");
                *self.state.lock() = (State { mode: Some(mode) }, next_setup());
            }
            mode => tracing::debug!(name = self.name, ?mode, "not a mode"),
        }
    }

    /// The state, for a snapshot.
    pub fn save(&self) -> State {
        self.state.lock().0.clone()
    }

    /// Takes over a saved state.
    pub fn restore(&self, state: State) {
        let valid = |m: &Mode| {
            let row = u64::from(m.width) * u64::from(m.format.bytes());
            (1..=LARGEST).contains(&m.width)
                && (1..=LARGEST).contains(&m.height)
                && u64::from(m.width) * u64::from(m.height) <= MOST_PIXELS
                && u64::from(m.stride) >= row
        };
        let state = State {
            mode: state.mode.filter(valid),
        };
        let setup = if state.mode.is_some() {
            next_setup()
        } else {
            0
        };
        *self.state.lock() = (state, setup);
    }
}

impl Screen for Ramfb {
    fn setup(&self) -> u64 {
        self.state.lock().1
    }

    fn capture(&self, surface: &mut Surface) -> bool {
        let Some(mode) = self.state.lock().0.mode.clone() else {
            return false;
        };
        if !self.dma.contains(mode.address, mode.span()) {
            return false;
        }
        let (width, height) = (mode.width as usize, mode.height as usize);
        surface.width = mode.width;
        surface.height = mode.height;
        surface.pixels.resize(width * height, 0);
        let row = width * mode.format.bytes() as usize;
        let mut bytes = vec![
            0;
            if mode.format == Format::Xrgb8888 {
                0
            } else {
                row
            }
        ];
        for (y, pixels) in surface.pixels.chunks_exact_mut(width).enumerate() {
            let at = mode.address + y as u64 * u64::from(mode.stride);
            let done = match mode.format {
                Format::Xrgb8888 => {
                    let done = self.dma.read(at, pixels.as_mut_bytes());
                    pixels
                        .iter_mut()
                        .for_each(|p| *p = u32::from_le(*p) & 0xff_ffff);
                    done
                }
                Format::Rgb888 => {
                    let done = self.dma.read(at, &mut bytes);
                    for (pixel, b) in pixels.iter_mut().zip(bytes.chunks_exact(3)) {
                        *pixel = u32::from_le_bytes([b[0], b[1], b[2], 0]);
                    }
                    done
                }
                Format::Rgb565 => {
                    let done = self.dma.read(at, &mut bytes);
                    for (pixel, b) in pixels.iter_mut().zip(bytes.chunks_exact(2)) {
                        *pixel = from_565(u16::from_le_bytes([b[0], b[1]]));
                    }
                    done
                }
            };
            if done.is_err() {
                return false;
            }
        }
        true
    }
}

/// Widens a pixel so that full intensity stays full.
fn from_565(pixel: u16) -> u32 {
    let pixel = u32::from(pixel);
    let (r, g, b) = (pixel >> 11, pixel >> 5 & 0x3f, pixel & 0x1f);
    (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2)
}

impl Device for Ramfb {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&self) {
        *self.state.lock() = (State::power_on(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Ram;
    use proptest::prelude::*;

    const BASE: u64 = 0x4000_0000;

    fn file(address: u64, fourcc: &[u8; 4], width: u32, height: u32, stride: u32) -> Vec<u8> {
        let mut file = address.to_be_bytes().to_vec();
        for word in [u32::from_le_bytes(*fourcc), 0, width, height, stride] {
            file.extend(word.to_be_bytes());
        }
        file
    }

    #[test]
    fn shows_each_format() {
        let ram = Ram::new(&[(BASE, 0x10000)]).unwrap();
        let fb = Ramfb::new("ramfb", ram.dma());
        let mut surface = Surface::default();
        assert!(!fb.capture(&mut surface));
        assert_eq!(fb.setup(), 0);
        ram.dma()
            .write(BASE, &[1, 2, 3, 0xff, 4, 5, 6, 0xff])
            .unwrap();
        ram.dma()
            .write(BASE + 16, &[7, 8, 9, 0, 10, 11, 12, 0])
            .unwrap();
        fb.configure(&file(BASE, b"XR24", 2, 2, 16));
        let first = fb.setup();
        assert!(fb.capture(&mut surface));
        assert_eq!((surface.width, surface.height), (2, 2));
        assert_eq!(surface.pixels, [0x030201, 0x060504, 0x090807, 0x0c0b0a]);
        fb.configure(&file(BASE, b"RG24", 1, 2, 0));
        assert!(fb.setup() > first);
        assert!(fb.capture(&mut surface));
        assert_eq!(surface.pixels, [0x030201, 0x0504ff]);
        ram.dma().write(BASE, &[0xff, 0xff, 0x00, 0xf8]).unwrap();
        fb.configure(&file(BASE, b"RG16", 2, 1, 0));
        assert!(fb.capture(&mut surface));
        assert_eq!(surface.pixels, [0xff_ffff, 0xff_0000]);
        fb.reset();
        assert!(!fb.capture(&mut surface));
        assert_eq!(fb.setup(), 0);
    }

    #[test]
    fn refuses_what_is_no_picture() {
        let ram = Ram::new(&[(BASE, 0x10000)]).unwrap();
        let fb = Ramfb::new("ramfb", ram.dma());
        for bad in [
            file(BASE, b"XR24", 0, 2, 16),
            file(BASE, b"XR24", 2, u32::MAX, 16),
            file(BASE, b"XR24", 2, 2, 7),
            file(BASE, b"YUYV", 2, 2, 16),
            file(BASE + 0xfff9, b"XR24", 2, 1, 0),
            file(u64::MAX - 3, b"XR24", 2, 1, 0),
            file(BASE, b"XR24", 2, 3, u32::MAX),
            vec![0; 27],
        ] {
            fb.configure(&bad);
            assert_eq!(fb.save(), State::power_on());
        }
    }

    proptest! {
        #[test]
        fn survives_anything(
            address in any::<u64>(), format in 0usize..4, words in any::<[u32; 3]>(), small in any::<bool>()
        ) {
            let ram = Ram::new(&[(BASE, 0x10000)]).unwrap();
            let fb = Ramfb::new("ramfb", ram.dma());
            let [mut w, mut h, mut stride] = words;
            let mut at = address;
            if small {
                (w, h, stride) = (w & 0x7f, h & 0x7f, stride & 0x3ff);
                at = BASE + (address & 0xffff);
            }
            fb.configure(&file(at, [b"XR24", b"AR24", b"RG24", b"RG16"][format], w, h, stride));
            let mut surface = Surface::default();
            prop_assert_eq!(fb.capture(&mut surface), fb.save().mode.is_some());
        }
    }
}
