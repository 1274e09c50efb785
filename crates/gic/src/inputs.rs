//! The levels of the input lines, kept so that setting a level that does not change costs no lock.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::{FIRST_SPI, SPI_BANKS, SPIS};

/// The input lines' levels: the banks of SPIs, then a private bank a processor. They are wires, not state: a reset
/// leaves them at what the devices drive.
pub struct Inputs(Vec<AtomicU32>);

/// An input line, by the number its `Line` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Spi { bank: usize, bit: u32 },
    Private { cpu: usize, bit: u32 },
}

impl Inputs {
    pub fn new(cpus: usize) -> Inputs {
        Inputs((0..SPI_BANKS + cpus).map(|_| AtomicU32::new(0)).collect())
    }

    /// The number of SPI `n`'s line.
    pub fn spi(n: u32) -> Option<u32> {
        (n < SPIS).then_some(n)
    }

    /// The number of a PPI's line.
    pub fn ppi(&self, cpu: u32, intid: u32) -> Option<u32> {
        let cpus = (self.0.len() - SPI_BANKS) as u32;
        (cpu < cpus && (16..FIRST_SPI).contains(&intid)).then(|| SPIS + cpu * 32 + intid)
    }

    /// Notes a level. `None` if it is what it was; whose it is otherwise.
    pub fn change(&self, number: u32, level: bool) -> Option<Input> {
        let (word, bit) = (number as usize / 32, 1 << (number % 32));
        let levels = self.0.get(word)?;
        if (levels.load(Ordering::Acquire) & bit != 0) == level {
            return None;
        }
        let was = if level {
            levels.fetch_or(bit, Ordering::AcqRel)
        } else {
            levels.fetch_and(!bit, Ordering::AcqRel)
        };
        if (was & bit != 0) == level {
            return None;
        }
        Some(match word.checked_sub(SPI_BANKS) {
            None => Input::Spi { bank: word, bit },
            Some(cpu) => Input::Private { cpu, bit },
        })
    }

    /// The present levels of a bank of SPIs.
    pub fn spis(&self, bank: usize) -> u32 {
        self.0[bank].load(Ordering::Acquire)
    }

    /// The present levels of a processor's private interrupts.
    pub fn private(&self, cpu: usize) -> u32 {
        self.0[SPI_BANKS + cpu].load(Ordering::Acquire)
    }

    /// Takes all levels from elsewhere: the banks of SPIs, then the private ones.
    pub fn restore(&self, levels: impl Iterator<Item = u32>) {
        for (word, level) in self.0.iter().zip(levels) {
            word.store(level, Ordering::Release);
        }
    }
}
