//! A file in memory that stops, fills up or loses writes when told to, to put beneath images in tests.

use crate::host::Host;
use parking_lot::Mutex;
use std::io;

/// The unit that a drive writes as a whole.
const SECTOR: usize = 512;

/// What goes wrong with a [`FaultyFile`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// From this change of the file on, nothing works any more: the program was killed.
    Stop(u64),
    /// The file cannot become longer than this, in bytes.
    Full(u64),
}

/// See the module.
#[derive(Default)]
pub struct FaultyFile {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// As the host's cache has it.
    view: Vec<u8>,
    /// As it was at the last sync: on the drive for sure.
    durable: Vec<u8>,
    /// What may or may not have reached the drive since, oldest first.
    pending: Vec<Change>,
    changes: u64,
    fault: Fault,
}

enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl State {
    /// Counts a change, unless nothing works any more.
    fn change(&mut self, end: u64) -> io::Result<()> {
        match self.fault {
            Fault::Stop(at) if self.changes >= at => Err(io::Error::other("stopped")),
            Fault::Full(length) if end > length && end > self.view.len() as u64 => {
                Err(rustix::io::Errno::NOSPC.into())
            }
            _ => {
                self.changes += 1;
                Ok(())
            }
        }
    }
}

fn apply(bytes: &mut Vec<u8>, offset: u64, from: &[u8]) {
    let end = offset as usize + from.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset as usize..end].copy_from_slice(from);
}

impl FaultyFile {
    /// A file with these contents, all of them on the drive.
    pub fn new(contents: Vec<u8>, fault: Fault) -> FaultyFile {
        FaultyFile {
            state: Mutex::new(State {
                durable: contents.clone(),
                view: contents,
                fault,
                ..State::default()
            }),
        }
    }

    /// Changes and syncs so far.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    pub fn set_fault(&self, fault: Fault) {
        self.state.lock().fault = fault;
    }

    /// The contents as every program of the host sees them, also after the one that wrote was killed.
    pub fn contents(&self) -> Vec<u8> {
        self.state.lock().view.clone()
    }

    /// Contents after the host itself stopped: what was synced, and of what came later each sector or not, as `lost` says
    /// when it is asked for one after the other.
    pub fn after_power_loss(&self, mut lost: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.state.lock();
        let mut bytes = state.durable.clone();
        for change in &state.pending {
            match change {
                Change::Length(length) => {
                    if !lost() {
                        bytes.resize(*length as usize, 0);
                    }
                }
                Change::Write(offset, from) => {
                    let mut at = 0;
                    while at < from.len() {
                        let place = *offset as usize + at;
                        let count = (SECTOR - place % SECTOR).min(from.len() - at);
                        if !lost() {
                            apply(&mut bytes, place as u64, &from[at..at + count]);
                        }
                        at += count;
                    }
                }
            }
        }
        bytes
    }
}

impl Host for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.state.lock().view.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock();
        let start = usize::try_from(offset).map_or(state.view.len(), |at| at.min(state.view.len()));
        let count = into.len().min(state.view.len() - start);
        into[..count].copy_from_slice(&state.view[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change(offset + from.len() as u64)?;
        apply(&mut state.view, offset, from);
        state.pending.push(Change::Write(offset, from.to_vec()));
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change(length)?;
        state.view.resize(length as usize, 0);
        state.pending.push(Change::Length(length));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change(0)?;
        state.durable = state.view.clone();
        state.pending.clear();
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = (offset + length).min(self.length()?);
        match end.checked_sub(offset) {
            Some(count) if count > 0 => self.write_at(offset, &vec![0; count as usize]),
            _ => Ok(()),
        }
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.length()? < offset + length {
            self.set_length(offset + length)?;
        }
        Ok(())
    }
}
