//! One 16-bit chip: its command state machine. Addresses are in words of 16 bits within the chip.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::spec::*;

/// What a chip awaits, and what reading it gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    Array,
    Status,
    Identifier,
    Query,
    /// The next write is a word to program.
    Program,
    /// The next write must confirm the erase.
    Erase,
    /// The next write is a lock command.
    Lock,
    /// The next write would be a word for a protection register.
    Protection,
    /// The next write says how many words follow, less one.
    BufferCount {
        block: u32,
    },
    /// That many writes are data.
    BufferData {
        block: u32,
        left: u16,
        words: Vec<Word>,
    },
    /// The next write must confirm the buffer.
    BufferConfirm {
        words: Vec<Word>,
    },
}

/// A word to program. Bits can only be cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Word {
    pub address: u32,
    pub value: u16,
}

/// What a command does to the array.
pub(super) enum Effect {
    Program(Vec<Word>),
    /// Erase the block.
    Erase(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chip {
    mode: Mode,
    status: u8,
    locked: BTreeSet<u32>,
}

impl Chip {
    pub fn power_on() -> Chip {
        Chip {
            mode: Mode::Array,
            status: SR_READY,
            locked: BTreeSet::new(),
        }
    }

    pub fn reads_array(&self) -> bool {
        self.mode == Mode::Array
    }

    /// Whether the next write is data, not a command.
    pub fn awaits_data(&self) -> bool {
        matches!(self.mode, Mode::Program | Mode::BufferData { .. })
    }

    /// Puts a saved state in bounds.
    pub fn sanitize(&mut self) {
        match &mut self.mode {
            Mode::BufferData { left, words, .. } => {
                *left = (*left).min(BUFFER_WORDS);
                words.truncate(usize::from(BUFFER_WORDS - *left));
            }
            Mode::BufferConfirm { words } => words.truncate(usize::from(BUFFER_WORDS)),
            _ => {}
        }
    }

    /// What a read gives in any mode but that of the array.
    pub fn read(&self, address: u32, query: &[u8]) -> u16 {
        match self.mode {
            Mode::Identifier => match address & 0xff {
                ID_MANUFACTURER => MANUFACTURER,
                ID_DEVICE => DEVICE,
                ID_LOCK => self.locked.contains(&block(address)).into(),
                _ => 0,
            },
            Mode::Query => query
                .get((address & 0xff) as usize)
                .copied()
                .unwrap_or(0)
                .into(),
            _ => self.status.into(),
        }
    }

    /// A write to `address`. Bits of `value` beyond the written bytes are ones. What it does to the array is to be done
    /// at once; if that fails, [`Chip::failed`].
    pub fn write(&mut self, address: u32, value: u16, read_only: bool) -> Option<Effect> {
        let command = value as u8;
        match std::mem::replace(&mut self.mode, Mode::Status) {
            Mode::Array => self.command(command, address, Mode::Array),
            Mode::Status => self.command(command, address, Mode::Status),
            Mode::Identifier => self.command(command, address, Mode::Identifier),
            Mode::Query => self.command(command, address, Mode::Query),
            Mode::Program => return self.program(vec![Word { address, value }], read_only),
            Mode::Erase if command == CONFIRM => {
                if read_only || self.locked.contains(&block(address)) {
                    self.status |= SR_ERASE_ERROR | SR_PROTECTED;
                    return None;
                }
                return Some(Effect::Erase(block(address)));
            }
            Mode::Lock if command == LOCK || command == LOCK_DOWN => {
                self.locked.insert(block(address));
            }
            Mode::Lock if command == CONFIRM => {
                self.locked.remove(&block(address));
            }
            Mode::Erase | Mode::Lock => self.sequence_error(),
            Mode::Protection => self.status |= SR_PROGRAM_ERROR | SR_PROTECTED,
            Mode::BufferCount { block } if count(value) < BUFFER_WORDS => {
                self.mode = Mode::BufferData {
                    block,
                    left: count(value) + 1,
                    words: Vec::new(),
                };
            }
            Mode::BufferCount { .. } => self.sequence_error(),
            Mode::BufferData {
                block: within,
                left,
                mut words,
            } => {
                if block(address) != within {
                    self.sequence_error();
                    return None;
                }
                words.push(Word { address, value });
                self.mode = match left {
                    0 | 1 => Mode::BufferConfirm { words },
                    _ => Mode::BufferData {
                        block: within,
                        left: left - 1,
                        words,
                    },
                };
            }
            Mode::BufferConfirm { words } if command == CONFIRM => {
                return self.program(words, read_only);
            }
            Mode::BufferConfirm { .. } => self.sequence_error(),
        }
        None
    }

    /// A command where no other is half done. `present` is the mode that goes on if the command changes none.
    fn command(&mut self, command: u8, address: u32, present: Mode) {
        self.mode = match command {
            READ_ARRAY | RESET_AMD => Mode::Array,
            READ_STATUS => Mode::Status,
            READ_IDENTIFIER => Mode::Identifier,
            READ_QUERY => Mode::Query,
            CLEAR_STATUS => {
                self.status = SR_READY;
                present
            }
            PROGRAM | PROGRAM_ALTERNATE => Mode::Program,
            BLOCK_ERASE => Mode::Erase,
            LOCK_SETUP => Mode::Lock,
            PROTECTION_PROGRAM => Mode::Protection,
            WRITE_TO_BUFFER => Mode::BufferCount {
                block: block(address),
            },
            // All is done the moment it is begun: there is nothing to suspend or resume.
            SUSPEND | CONFIRM => Mode::Status,
            _ => {
                tracing::debug!(command, "unknown flash command");
                Mode::Array
            }
        };
    }

    fn program(&mut self, words: Vec<Word>, read_only: bool) -> Option<Effect> {
        if read_only
            || words
                .iter()
                .any(|w| self.locked.contains(&block(w.address)))
        {
            self.status |= SR_PROGRAM_ERROR | SR_PROTECTED;
            return None;
        }
        Some(Effect::Program(words))
    }

    fn sequence_error(&mut self) {
        self.status |= SR_PROGRAM_ERROR | SR_ERASE_ERROR;
    }

    /// The host could not keep what was written.
    pub fn failed(&mut self, effect: &Effect) {
        self.status |= match effect {
            Effect::Program(_) => SR_PROGRAM_ERROR,
            Effect::Erase(_) => SR_ERASE_ERROR,
        };
    }
}

/// A count of words less one, out of a write of 16 bits or of the lower 8.
fn count(value: u16) -> u16 {
    if value >> 8 == 0xff {
        value & 0xff
    } else {
        value
    }
}

/// The block of a word address.
fn block(address: u32) -> u32 {
    address / (BLOCK_SIZE / 2) as u32
}
