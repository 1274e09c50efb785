//! NOR flash: two 16-bit chips side by side on a 32-bit bus, with the Intel command set (CFI 0x0001).
//!
//! Chip 0 holds the lower half of each 32-bit word, chip 1 the upper. Drivers write a command to both at once
//! (0x0098_0098); a narrower access reaches one chip. While both read their arrays the guest's reads and fetches go
//! straight to host memory, see [`RomDevice`].
//!
//! A program or erase is done, and written to the drive's file, before the write that starts it returns: a guest that
//! sees it completed finds it there even if the process is killed next. Such writes end in the host's page cache;
//! a thread of its own asks the host to bring them to disk.

mod chip;
mod contents;
pub mod spec;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use device::{Access, Device, Mmio};
use memory::{AddressSpace, RomDevice};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use chip::{Chip, Effect};
use contents::Contents;
use spec::BLOCK_SIZE;

/// Bytes of the board's flash devices.
pub const SIZE: u64 = 64 << 20;
/// Bytes erased at once: a block of each chip.
pub const SECTOR_SIZE: u64 = 2 * BLOCK_SIZE;

/// Why a flash device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    #[error("cannot open the flash image {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("device requires {wanted} bytes, pflash file {} provides {found} bytes", path.display())]
    WrongSize {
        path: PathBuf,
        wanted: u64,
        found: u64,
    },
    #[error("the firmware image has {found} bytes, which is more than the flash's {wanted}")]
    TooLarge { wanted: u64, found: u64 },
    #[error("flash must be a power of two of at least {SECTOR_SIZE} bytes, not {0}")]
    BadSize(u64),
    #[error("cannot set up memory for flash: {0}")]
    Memory(io::Error),
}

/// What the board decides about a flash device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name for logs.
    pub name: String,
    /// Bytes: a power of two, at least a sector.
    pub size: u64,
    /// Whether programming and erasing fail, as with a protected part.
    pub read_only: bool,
}

/// Where a drive's contents are kept. Offsets are of the device.
pub trait Backing: Send + Sync {
    /// Writes so that it outlives the process.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Brings what was written to the host's disk.
    fn flush(&self) -> io::Result<()>;
}

impl Backing for File {
    #[cfg(unix)]
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    #[cfg(not(unix))]
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::io::{Seek, SeekFrom, Write};
        let mut file = self;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn flush(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// What a flash device holds at first.
pub enum Image {
    /// Nothing; contents last as long as the process.
    Blank,
    /// `-bios`: an image no larger than the device, put back at each reset.
    Bios(Arc<[u8]>),
    /// A drive: contents exactly of the device's size, and where to keep changes (`None`: nowhere).
    Drive {
        contents: Vec<u8>,
        backing: Option<Arc<dyn Backing>>,
    },
}

impl Image {
    /// Opens a raw image file of exactly `size` bytes as a drive; for writing too unless `read_only`.
    pub fn open(path: &Path, size: u64, read_only: bool) -> Result<Image, FlashError> {
        let fail = |source| FlashError::Open {
            path: path.into(),
            source,
        };
        let file = File::options()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(fail)?;
        Image::of_file(file, path, size, !read_only)
    }

    /// As [`Image::open`], of a file that is open already; changes go to it if they are to be kept.
    pub fn of_file(file: File, path: &Path, size: u64, keep: bool) -> Result<Image, FlashError> {
        let fail = |source| FlashError::Open {
            path: path.into(),
            source,
        };
        let found = file.metadata().map_err(fail)?.len();
        if found != size {
            return Err(FlashError::WrongSize {
                path: path.into(),
                wanted: size,
                found,
            });
        }
        let mut contents = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(&file, size), &mut contents).map_err(fail)?;
        if contents.len() as u64 != size {
            let found = contents.len() as u64;
            return Err(FlashError::WrongSize {
                path: path.into(),
                wanted: size,
                found,
            });
        }
        let backing: Option<Arc<dyn Backing>> = if keep { Some(Arc::new(file)) } else { None };
        Ok(Image::Drive { contents, backing })
    }
}

/// Everything a guest can observe beside the contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    chips: [Chip; 2],
}

impl State {
    /// The state after power-on or reset: both chips read their arrays, no block is locked.
    pub fn power_on(_: &Config) -> State {
        State {
            chips: [Chip::power_on(), Chip::power_on()],
        }
    }
}

/// The device.
pub struct Flash {
    config: Config,
    query: [u8; 0x60],
    state: Mutex<State>,
    contents: Contents,
    array_mode: Arc<AtomicBool>,
    space: Weak<AddressSpace>,
    bios: Option<Arc<[u8]>>,
    backing: Option<Arc<dyn Backing>>,
    /// Wakes the thread that flushes `backing`.
    dirty: Option<Sender<()>>,
}

impl Flash {
    /// A device that tells `space` whenever what reads give has changed. Map [`Flash::rom`] there.
    pub fn new(
        config: Config,
        image: Image,
        space: &Arc<AddressSpace>,
    ) -> Result<Arc<Flash>, FlashError> {
        if !config.size.is_power_of_two() || config.size < SECTOR_SIZE || config.size > 1 << 32 {
            return Err(FlashError::BadSize(config.size));
        }
        let contents = Contents::new(config.size as usize).map_err(FlashError::Memory)?;
        let (mut bios, mut backing) = (None, None);
        match image {
            Image::Blank => {}
            Image::Bios(image) => {
                if image.len() as u64 > config.size {
                    let found = image.len() as u64;
                    return Err(FlashError::TooLarge {
                        wanted: config.size,
                        found,
                    });
                }
                contents.load(&image);
                bios = Some(image);
            }
            Image::Drive {
                contents: image,
                backing: file,
            } => {
                if image.len() as u64 != config.size {
                    let found = image.len() as u64;
                    let path = PathBuf::from(&config.name);
                    return Err(FlashError::WrongSize {
                        path,
                        wanted: config.size,
                        found,
                    });
                }
                contents.load(&image);
                backing = file;
            }
        }
        let dirty = backing.as_ref().map(|b| flusher(&config.name, b.clone()));
        Ok(Arc::new(Flash {
            query: spec::query(config.size / 2),
            state: Mutex::new(State::power_on(&config)),
            config,
            contents,
            array_mode: Arc::new(AtomicBool::new(true)),
            space: Arc::downgrade(space),
            bios,
            backing,
            dirty,
        }))
    }

    /// What to map: reads go to memory while both chips read their arrays, everything else comes here.
    pub fn rom(self: &Arc<Self>) -> Arc<RomDevice> {
        Arc::new(RomDevice {
            host: self.contents.host(),
            size: self.config.size,
            array_mode: self.array_mode.clone(),
            device: self.clone(),
        })
    }

    /// The state, for a snapshot.
    pub fn save(&self) -> State {
        self.state.lock().clone()
    }

    /// Takes over a saved state.
    pub fn restore(&self, mut state: State) {
        state.chips.iter_mut().for_each(Chip::sanitize);
        let mut now = self.state.lock();
        *now = state;
        self.update(&now, true);
    }

    /// All the contents, for a snapshot of a device without a drive.
    pub fn contents(&self) -> Vec<u8> {
        let _state = self.state.lock();
        let mut bytes = vec![0; self.contents.size()];
        self.contents.read(0, &mut bytes);
        bytes
    }

    /// Takes over saved contents, also into the drive's file.
    pub fn set_contents(&self, bytes: &[u8]) -> io::Result<()> {
        let state = self.state.lock();
        if bytes.len() != self.contents.size() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "contents of another size",
            ));
        }
        self.contents.load(bytes);
        self.update(&state, true);
        match &self.backing {
            Some(backing) => backing.write(0, bytes),
            None => Ok(()),
        }
    }

    /// Derives from the state where reads go. `changed`: they give something else for another reason.
    fn update(&self, state: &State, changed: bool) {
        let array = state.chips.iter().all(Chip::reads_array);
        let moved = self.array_mode.swap(array, Ordering::AcqRel) != array;
        if let (true, Some(space)) = (moved || changed, self.space.upgrade()) {
            space.changed();
        }
    }

    /// Reads 32 bits at a multiple of 4.
    fn read_bus(&self, state: &State, offset: u64) -> u32 {
        let mut value = 0;
        for (i, chip) in state.chips.iter().enumerate() {
            let half = match chip.reads_array() {
                true => self.contents.word(offset as usize + 2 * i),
                false => chip.read((offset / 4) as u32, &self.query),
            };
            value |= u32::from(half) << (16 * i);
        }
        value
    }

    /// Writes the bytes of `lanes` (one bit a byte) of 32 bits at a multiple of 4.
    fn write_bus(&self, state: &mut State, offset: u64, value: u32, lanes: u32) {
        let mut effects = [None, None];
        for (i, chip) in state.chips.iter_mut().enumerate() {
            let half = (value >> (16 * i)) as u16;
            // Commands are in the lower byte. Bits that are not written are ones: they program nothing.
            let half = match lanes >> (2 * i) & 3 {
                0b11 => half,
                0b01 => half | 0xff00,
                0b10 if chip.awaits_data() => half | 0x00ff,
                _ => continue,
            };
            effects[i] = chip.write((offset / 4) as u32, half, self.config.read_only);
        }
        let mut span: Option<(u64, u64)> = None;
        for (i, effect) in effects.iter().enumerate() {
            let Some((start, end)) = effect.as_ref().map(|e| self.apply(i, e)) else {
                continue;
            };
            span = Some(span.map_or((start, end), |(s, e)| (s.min(start), e.max(end))));
        }
        let kept = span.map_or(Ok(()), |(start, end)| self.write_through(start, end));
        if let Err(error) = kept {
            tracing::error!(name = self.config.name, %error, "cannot write to the flash image");
            for (chip, effect) in state.chips.iter_mut().zip(&effects) {
                effect.iter().for_each(|e| chip.failed(e));
            }
        }
        self.update(state, false);
    }

    /// Changes the array; the span of bytes that it changed.
    fn apply(&self, chip: usize, effect: &Effect) -> (u64, u64) {
        match effect {
            Effect::Program(words) => {
                let (mut start, mut end) = (self.config.size, 0);
                for word in words {
                    let at = u64::from(word.address) * 4;
                    let cell = at as usize + 2 * chip;
                    self.contents
                        .set_word(cell, self.contents.word(cell) & word.value);
                    start = start.min(at);
                    end = end.max(at + 4);
                }
                (start.min(end), end)
            }
            Effect::Erase(block) => {
                let start = u64::from(*block) * SECTOR_SIZE;
                for at in (start..start + SECTOR_SIZE).step_by(4) {
                    self.contents.set_word(at as usize + 2 * chip, 0xffff);
                }
                (start, start + SECTOR_SIZE)
            }
        }
    }

    fn write_through(&self, start: u64, end: u64) -> io::Result<()> {
        let Some(backing) = &self.backing else {
            return Ok(());
        };
        let mut bytes = vec![0; (end - start) as usize];
        self.contents.read(start as usize, &mut bytes);
        backing.write(start, &bytes)?;
        if let Some(dirty) = &self.dirty {
            // The thread is gone only if it could not be started: the shutdown flushes then.
            let _ = dirty.send(());
        }
        Ok(())
    }
}

/// Starts the thread that brings a drive's writes to disk, a while after the first of a burst; it ends with the device.
fn flusher(name: &str, backing: Arc<dyn Backing>) -> Sender<()> {
    let (sender, receiver) = channel();
    let name = name.to_string();
    let thread = std::thread::Builder::new()
        .name(format!("{name} flush"))
        .spawn(move || {
            while receiver.recv().is_ok() {
                std::thread::sleep(Duration::from_millis(200));
                while receiver.try_recv().is_ok() {}
                if let Err(error) = backing.flush() {
                    tracing::error!(name, %error, "cannot flush the flash image");
                }
            }
        });
    if let Err(error) = thread {
        tracing::warn!(%error, "flash is flushed at shutdown only");
    }
    sender
}

impl Mmio for Flash {
    fn read(&self, access: Access) -> u64 {
        let state = self.state.lock();
        let mut bytes = [0; 8];
        for (i, byte) in bytes.iter_mut().enumerate().take(access.width.into()) {
            let at = access.offset.saturating_add(i as u64);
            if at >= self.config.size {
                break;
            }
            *byte = self.read_bus(&state, at & !3).to_le_bytes()[(at & 3) as usize];
        }
        u64::from_le_bytes(bytes)
    }

    fn write(&self, access: Access, value: u64) {
        let mut state = self.state.lock();
        let bytes = value.to_le_bytes();
        let end = access
            .offset
            .saturating_add(access.width.min(8).into())
            .min(self.config.size);
        let mut at = access.offset;
        // Whole 32-bit bus cycles, or the part of one that the access covers.
        while at < end {
            let word = at & !3;
            let until = end.min(word + 4);
            let (mut data, mut lanes) = (0, 0);
            for byte in at..until {
                let lane = (byte - word) as u32;
                data |= u32::from(bytes[(byte - access.offset) as usize]) << (8 * lane);
                lanes |= 1 << lane;
            }
            self.write_bus(&mut state, word, data, lanes);
            at = until;
        }
    }
}

impl Device for Flash {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        *state = State::power_on(&self.config);
        if let Some(bios) = &self.bios {
            self.contents.load(bios);
        }
        self.update(&state, self.bios.is_some());
    }

    fn shutdown(&self) {
        if let Some(Err(error)) = self.backing.as_ref().map(|b| b.flush()) {
            tracing::error!(name = self.config.name, %error, "cannot flush the flash image");
        }
    }
}
