//! The processors' interrupt lines, and a set of processors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use crate::CpuLines;

/// Bit of a processor's wanted levels.
pub const IRQ: u8 = 1;
/// Bit of a processor's wanted levels.
pub const FIQ: u8 = 2;

/// At most so many processors.
pub const MAXIMUM_CPUS: usize = 512;

/// A set of processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSet([u64; MAXIMUM_CPUS / 64]);

impl CpuSet {
    pub fn insert(&mut self, cpu: usize) {
        self.0[cpu / 64] |= 1 << (cpu % 64);
    }

    pub fn take(&mut self) -> CpuSet {
        std::mem::take(self)
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(word, mut bits)| {
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        })
    }
}

/// Levels as the state wants them. Written under the state's lock.
#[derive(Clone)]
pub struct Wanted(Arc<[AtomicU8]>);

impl Wanted {
    /// Notes the levels a processor's lines are to have; whether that is news.
    pub fn set(&self, cpu: usize, levels: u8) -> bool {
        let was = self.0[cpu].load(Ordering::Relaxed);
        if was != levels {
            self.0[cpu].store(levels, Ordering::Release);
        }
        was != levels
    }
}

/// The lines. The state decides their levels under its lock; they are driven after it is released. As each that
/// changes the levels afterwards comes here, and drives what is wanted *then*, the last one leaves the lines right,
/// in whatever order they come.
pub struct Outputs {
    wanted: Wanted,
    driven: Vec<Mutex<u8>>,
    lines: Vec<CpuLines>,
}

impl Outputs {
    pub fn new(lines: Vec<CpuLines>) -> Outputs {
        Outputs {
            wanted: Wanted(lines.iter().map(|_| AtomicU8::new(0)).collect()),
            driven: lines.iter().map(|_| Mutex::new(0)).collect(),
            lines,
        }
    }

    pub fn wanted(&self) -> Wanted {
        self.wanted.clone()
    }

    /// Drives the lines of `cpus`. Not to be called with the state's lock held.
    pub fn settle(&self, cpus: CpuSet) {
        for cpu in cpus.iter() {
            let mut driven = self.driven[cpu].lock();
            let wanted = self.wanted.0[cpu].load(Ordering::Acquire);
            let changed = *driven ^ wanted;
            *driven = wanted;
            if changed & FIQ != 0 {
                self.lines[cpu].fiq.set(wanted & FIQ != 0);
            }
            if changed & IRQ != 0 {
                self.lines[cpu].irq.set(wanted & IRQ != 0);
            }
        }
    }
}
