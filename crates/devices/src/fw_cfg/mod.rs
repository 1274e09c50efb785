//! fw_cfg: what the machine tells its firmware, as items under 16-bit keys, some of which are files with names.
//!
//! Items are added by the board before the machine starts. A file can be writable: its owner is called with the new
//! contents after each write, and a reset brings the first contents back.

pub mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use device::{Access, Device, Dma, Mmio};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use spec::*;

/// Bytes that several can hold: a kernel is not copied for being offered to the guest.
pub type Content = Arc<[u8]>;

/// Called with all of a file after the guest has written some of it.
pub type OnWrite = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The largest file a guest may write to.
const LARGEST_WRITABLE: usize = 1 << 20;

/// Why an item cannot be added.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    #[error("the fw_cfg file name '{0}' is longer than {max} bytes", max = FILE_NAME - 1)]
    NameTooLong(String),
    #[error("a fw_cfg file must have a name of printable ASCII characters, not '{0}'")]
    BadName(String),
    #[error("there is a fw_cfg file '{0}' already")]
    Duplicate(String),
    #[error("there is no fw_cfg file '{0}'")]
    Missing(String),
    #[error("{0:#x} is not a key for a fixed fw_cfg item, or is taken")]
    BadKey(u16),
    #[error("the fw_cfg item '{name}' is too large ({size} bytes)")]
    TooLarge { name: String, size: usize },
    #[error("there is no room for another fw_cfg file")]
    Full,
}

struct File {
    content: Content,
    on_write: Option<OnWrite>,
}

/// Everything a guest can observe beside what the board put in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    selected: u16,
    offset: u64,
    /// The upper half of the DMA address, written first.
    dma_high: u32,
    /// What the guest made of writable files.
    written: BTreeMap<String, Vec<u8>>,
}

impl State {
    /// The state after power-on or reset.
    pub fn power_on() -> State {
        State {
            selected: 0,
            offset: 0,
            dma_high: 0,
            written: BTreeMap::new(),
        }
    }
}

struct Inner {
    items: BTreeMap<u16, Content>,
    /// The directory; a file's key is its place, and changes while the board adds files.
    files: BTreeMap<String, File>,
    directory: Content,
    state: State,
}

impl Inner {
    fn file(&self, selected: u16) -> Option<(&String, &File)> {
        let place = selected.checked_sub(key::FIRST_FILE)?;
        self.files.iter().nth(usize::from(place))
    }

    /// The selected item's bytes; of no item, none.
    fn selected(&self) -> &[u8] {
        let key = self.state.selected;
        if key == key::FILE_DIRECTORY {
            return &self.directory;
        }
        if let Some(item) = self.items.get(&key) {
            return item;
        }
        match self.file(key) {
            Some((name, file)) => self.state.written.get(name).map_or(&*file.content, |w| w),
            None => &[],
        }
    }

    /// Up to `length` bytes from the present offset on.
    fn rest(&self, length: u64) -> &[u8] {
        let item = self.selected();
        let from = usize::try_from(self.state.offset).map_or(item.len(), |o| o.min(item.len()));
        let length =
            usize::try_from(length).map_or(item.len() - from, |l| l.min(item.len() - from));
        &item[from..from + length]
    }

    fn select(&mut self, selector: u16) {
        self.state.selected = selector & !KEY_WRITE;
        self.state.offset = 0;
    }

    /// Reads the data register: the next bytes, then zeroes.
    fn next(&mut self, width: u8) -> u64 {
        let mut bytes = [0; 8];
        let rest = self.rest(u64::from(width.min(8)));
        bytes[..rest.len()].copy_from_slice(rest);
        self.state.offset = self.state.offset.saturating_add(u64::from(width));
        u64::from_le_bytes(bytes)
    }

    fn update_directory(&mut self) {
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        for (place, (name, file)) in self.files.iter().enumerate() {
            let mut entry = [0; DIRECTORY_ENTRY];
            entry[..4].copy_from_slice(&(file.content.len() as u32).to_be_bytes());
            entry[4..6].copy_from_slice(&(key::FIRST_FILE + place as u16).to_be_bytes());
            entry[8..8 + name.len()].copy_from_slice(name.as_bytes());
            directory.extend(entry);
        }
        self.directory = directory.into();
    }
}

/// The device.
pub struct FwCfg {
    name: String,
    dma: Dma,
    inner: Mutex<Inner>,
}

impl FwCfg {
    /// A device with signature and features, and no files yet.
    pub fn new(name: &str, dma: Dma) -> Arc<FwCfg> {
        let mut inner = Inner {
            items: BTreeMap::new(),
            files: BTreeMap::new(),
            directory: Arc::from([]),
            state: State::power_on(),
        };
        inner.items.insert(key::SIGNATURE, Arc::from(*b"QEMU"));
        inner
            .items
            .insert(key::FEATURES, Arc::from(FEATURES.to_le_bytes()));
        inner.update_directory();
        Arc::new(FwCfg {
            name: name.into(),
            dma,
            inner: Mutex::new(inner),
        })
    }

    /// Adds or replaces a fixed item ([`spec::key`]). Numbers are little-endian: `7u16.to_le_bytes()`.
    pub fn set_item(&self, key: u16, content: impl Into<Content>) -> Result<(), ItemError> {
        let fixed = key::UUID..key::FIRST_FILE;
        let local = 0x8000..0xc000;
        if key == key::FILE_DIRECTORY || !(fixed.contains(&key) || local.contains(&key)) {
            return Err(ItemError::BadKey(key));
        }
        self.inner.lock().items.insert(key, content.into());
        Ok(())
    }

    /// Adds a file that the guest can read.
    pub fn add_file(&self, name: &str, content: impl Into<Content>) -> Result<(), ItemError> {
        self.add(
            name,
            File {
                content: content.into(),
                on_write: None,
            },
        )
    }

    /// Adds a file that the guest can write to as well, at most 1 MiB; its size stays. `on_write` gets the whole
    /// file after each write, on a processor's thread.
    pub fn add_writable_file(
        &self,
        name: &str,
        content: impl Into<Content>,
        on_write: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> Result<(), ItemError> {
        let content = content.into();
        if content.len() > LARGEST_WRITABLE {
            return Err(ItemError::TooLarge {
                name: name.into(),
                size: content.len(),
            });
        }
        self.add(
            name,
            File {
                content,
                on_write: Some(Arc::new(on_write)),
            },
        )
    }

    /// Gives a file other contents, say at a reset.
    pub fn replace_file(&self, name: &str, content: impl Into<Content>) -> Result<(), ItemError> {
        let mut inner = self.inner.lock();
        let Some(file) = inner.files.get_mut(name) else {
            return Err(ItemError::Missing(name.into()));
        };
        file.content = content.into();
        inner.state.written.remove(name);
        inner.update_directory();
        Ok(())
    }

    /// Whether there is a file of this name.
    pub fn has_file(&self, name: &str) -> bool {
        self.inner.lock().files.contains_key(name)
    }

    fn add(&self, name: &str, file: File) -> Result<(), ItemError> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return Err(ItemError::BadName(name.into()));
        }
        if name.len() >= FILE_NAME {
            return Err(ItemError::NameTooLong(name.into()));
        }
        let size = file.content.len();
        if u32::try_from(size).is_err() {
            return Err(ItemError::TooLarge {
                name: name.into(),
                size,
            });
        }
        let mut inner = self.inner.lock();
        if inner.files.contains_key(name) {
            return Err(ItemError::Duplicate(name.into()));
        }
        if inner.files.len() >= usize::from(key::END - key::FIRST_FILE) {
            return Err(ItemError::Full);
        }
        inner.files.insert(name.into(), file);
        inner.update_directory();
        Ok(())
    }

    /// The state, for a snapshot.
    pub fn save(&self) -> State {
        self.inner.lock().state.clone()
    }

    /// Takes over a saved state. Owners of writable files restore themselves.
    pub fn restore(&self, mut state: State) {
        let mut inner = self.inner.lock();
        state.written.retain(|name, content| {
            let file = inner.files.get(name);
            file.is_some_and(|f| f.on_write.is_some() && f.content.len() == content.len())
        });
        inner.state = state;
    }

    /// Does what the descriptor at `address` says (16 bytes, big-endian: control, length, address).
    fn transfer(&self, address: u64) {
        let mut descriptor = [0; 16];
        if self.dma.read(address, &mut descriptor).is_err() {
            tracing::debug!(name = self.name, address, "DMA descriptor outside of RAM");
            return;
        }
        let word = |at: usize| {
            let b = &descriptor[at..at + 4];
            u32::from_be_bytes([b[0], b[1], b[2], b[3]])
        };
        let (control, length) = (word(0), word(4));
        let buffer = u64::from(word(8)) << 32 | u64::from(word(12));

        let mut inner = self.inner.lock();
        if control & CONTROL_SELECT != 0 {
            inner.select((control >> 16) as u16);
        }
        let mut written = None;
        let done = if control & CONTROL_READ != 0 {
            self.read_to(&mut inner, buffer, length)
        } else if control & CONTROL_WRITE != 0 {
            written = self.write_from(&mut inner, buffer, length);
            written.is_some()
        } else {
            if control & CONTROL_SKIP != 0 {
                inner.state.offset = inner.state.offset.saturating_add(length.into());
            }
            true
        };
        drop(inner);
        if let Some((on_write, content)) = written {
            on_write(&content);
        }
        // All else of the control word is zero once the transfer is over.
        let control: u32 = if done { 0 } else { CONTROL_ERROR };
        if self.dma.write(address, &control.to_be_bytes()).is_err() {
            tracing::debug!(name = self.name, address, "DMA descriptor outside of RAM");
        }
    }

    fn read_to(&self, inner: &mut Inner, buffer: u64, length: u32) -> bool {
        // Nothing is copied unless all fits: the work is bounded by the guest's RAM.
        if length != 0 && !self.dma.contains(buffer, length.into()) {
            return false;
        }
        let rest = inner.rest(length.into());
        let (copied, zeroes) = (rest.len() as u64, u64::from(length) - rest.len() as u64);
        let done = (copied == 0 || self.dma.write(buffer, rest).is_ok())
            && self
                .dma
                .fill(buffer.wrapping_add(copied), zeroes, 0)
                .is_ok();
        inner.state.offset = inner.state.offset.saturating_add(length.into());
        done
    }

    /// Writes to the selected file, if it is writable and all fits; what to tell its owner.
    fn write_from(
        &self,
        inner: &mut Inner,
        buffer: u64,
        length: u32,
    ) -> Option<(OnWrite, Vec<u8>)> {
        let (name, file) = inner.file(inner.state.selected)?;
        let on_write = file.on_write.clone()?;
        let (name, original) = (name.clone(), file.content.clone());
        let from = usize::try_from(inner.state.offset).ok()?;
        let to = from.checked_add(usize::try_from(length).ok()?)?;
        let content = inner
            .state
            .written
            .entry(name)
            .or_insert_with(|| original.to_vec());
        let part = content.get_mut(from..to)?;
        if !part.is_empty() {
            let mut bytes = vec![0; part.len()];
            self.dma.read(buffer, &mut bytes).ok()?;
            part.copy_from_slice(&bytes);
        }
        let content = content.clone();
        inner.state.offset = to as u64;
        Some((on_write, content))
    }
}

impl Mmio for FwCfg {
    fn read(&self, access: Access) -> u64 {
        match access.offset {
            DATA..SELECTOR => self.inner.lock().next(access.width),
            DMA..SIZE => {
                // The bytes of the big-endian register that the access covers.
                let bytes = DMA_SIGNATURE.to_be_bytes();
                let from = (access.offset - DMA) as usize;
                let to = (from + usize::from(access.width)).min(8);
                let mut value = [0; 8];
                value[..to - from].copy_from_slice(&bytes[from..to]);
                u64::from_le_bytes(value)
            }
            _ => 0,
        }
    }

    fn write(&self, access: Access, value: u64) {
        match (access.offset, access.width) {
            (SELECTOR, 2) => self.inner.lock().select((value as u16).swap_bytes()),
            (DMA, 8) => {
                self.inner.lock().state.dma_high = 0;
                self.transfer(value.swap_bytes());
            }
            (DMA, 4) => self.inner.lock().state.dma_high = (value as u32).swap_bytes(),
            (offset, 4) if offset == DMA + 4 => {
                let high = std::mem::take(&mut self.inner.lock().state.dma_high);
                self.transfer(u64::from(high) << 32 | u64::from((value as u32).swap_bytes()));
            }
            (offset, width) => {
                tracing::debug!(name = self.name, offset, width, value, "write ignored")
            }
        }
    }
}

impl Device for FwCfg {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&self) {
        self.inner.lock().state = State::power_on();
    }
}
