//! Stream descriptors and their DMA (3.3.35, 3.6, 4.5).
//!
//! A stream runs by the guest's clock: what is due by it is moved, however late the host is. One thing holds it up: a
//! buffer whose end is to interrupt is not ended while the driver has yet to hear of the end of the one before. So a host
//! that was late makes the stream late, and does not play what the driver had no chance to write.

use device::Dma;
use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::spec::*;

/// One stream descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    pub ctl: u32,
    pub sts: u8,
    pub lpib: u32,
    pub cbl: u32,
    pub lvi: u8,
    pub fmt: u16,
    pub bdl: u64,
    /// Data moves: it runs and is not held by SSYNC.
    flowing: bool,
    /// Guest time from which frames are counted, and how many have been moved since.
    since: u64,
    frames: u64,
    /// The buffer descriptor that is next, and bytes of it that are done.
    entry: u8,
    offset: u32,
    /// Since when it has been held up.
    held: Option<u64>,
}

/// What is to be moved between memory and the link.
#[derive(Default)]
pub struct Step {
    /// Addresses and bytes.
    pub pieces: Vec<(u64, u32)>,
    pub bytes: usize,
}

/// More is not moved at once, in milliseconds: time that stood still for the host has not passed for the stream.
const MOST: u64 = 200;
/// Buffers that are gone through at once: guests have a few.
const MOST_PIECES: usize = 1024;
/// A driver that has not heard of a buffer's end after so long does not want to.
const PATIENCE: u64 = 200_000_000;
/// Between looks at a running stream, in nanoseconds.
pub const TICK: u64 = 2_000_000;
/// Interrupts are no closer to one another.
const SHORTEST: u64 = 500_000;

struct Descriptor {
    address: u64,
    length: u32,
    interrupt: bool,
}

impl Stream {
    /// Bits of the stream's tag on the link (4.5.1); 0: none.
    pub fn tag(&self) -> u8 {
        (self.ctl >> 20 & 0xf) as u8
    }

    pub fn format(&self) -> Format {
        Format::new(self.fmt)
    }

    pub fn flowing(&self) -> bool {
        self.flowing
    }

    /// SDnSTS: FIFORDY is what a running stream has.
    pub fn status(&self) -> u8 {
        let ready = self.ctl & SDCTL_RUN != 0;
        self.sts | if ready { SDSTS_FIFORDY } else { 0 }
    }

    /// Whether it asks for an interrupt.
    pub fn interrupts(&self) -> bool {
        [
            (SDCTL_IOCE, SDSTS_BCIS),
            (SDCTL_FEIE, SDSTS_FIFOE),
            (SDCTL_DEIE, SDSTS_DESE),
        ]
        .into_iter()
        .any(|(enable, status)| self.ctl & enable != 0 && self.sts & status != 0)
    }

    /// Writes SDnCTL.
    pub fn set_control(&mut self, value: u32) {
        if value & SDCTL_SRST != 0 {
            // All of it is reset, and stays so until the bit is cleared.
            *self = Stream {
                ctl: SDCTL_SRST,
                ..Stream::default()
            };
        } else {
            self.ctl = value & SDCTL_WRITABLE;
        }
    }

    /// A new list of buffers begins at its start.
    pub fn set_list(&mut self, address: u64) {
        if self.ctl & SDCTL_RUN == 0 {
            self.bdl = address & !0x7f;
            (self.entry, self.offset) = (0, 0);
        }
    }

    /// Starts or stops the clock as RUN and SSYNC say.
    pub fn settle(&mut self, now: u64, synchronized: bool) {
        let flowing = self.ctl & SDCTL_RUN != 0 && !synchronized;
        if flowing && !self.flowing {
            self.restart(now);
        }
        self.flowing = flowing;
    }

    /// Counts from now on.
    pub fn restart(&mut self, now: u64) {
        (self.since, self.frames) = (now, 0);
    }

    fn descriptor(&self, dma: &Dma) -> Option<Descriptor> {
        let at = self.bdl.wrapping_add(u64::from(self.entry) * 16);
        let mut bytes = [0; 16];
        dma.read(at, &mut bytes).ok()?;
        let raw = u128::from_le_bytes(bytes);
        Some(Descriptor {
            address: raw as u64,
            length: (raw >> 64) as u32,
            interrupt: (raw >> 96) as u32 & BDL_IOC != 0,
        })
    }

    /// Moves on by what is due: the pieces of memory that are to be read or written. `patient`: the driver is to be
    /// waited for.
    pub fn step(&mut self, dma: &Dma, now: u64, patient: bool) -> Step {
        let mut step = Step::default();
        if !self.flowing {
            return step;
        }
        let format = self.format();
        let frame = format.frame() as u32;
        let elapsed = u128::from(now.saturating_sub(self.since));
        let due = (elapsed * u128::from(format.rate) / 1_000_000_000) as u64;
        let mut frames = due.saturating_sub(self.frames);
        let most = (u64::from(format.rate) * MOST / 1000).max(1);
        if frames > most {
            frames = most;
            self.restart(now);
        } else {
            self.frames += frames;
        }
        let mut left = frames * u64::from(frame);
        let mut empty = 0;
        while left > 0 && step.pieces.len() < MOST_PIECES {
            let Some(descriptor) = self.descriptor(dma) else {
                return self.failed(step);
            };
            let rest = descriptor.length.saturating_sub(self.offset);
            if rest == 0 {
                empty += 1;
                if empty > usize::from(u8::MAX) {
                    return self.failed(step);
                }
                self.end_of(&descriptor);
                continue;
            }
            let until_wrap = match self.cbl {
                0 => u32::MAX,
                length => length.saturating_sub(self.lpib).max(1),
            };
            let mut take = left.min(rest.min(until_wrap).into()) as u32;
            if take == rest && descriptor.interrupt && patient && self.must_wait(now) {
                take = rest.saturating_sub(frame);
                if take == 0 {
                    break;
                }
            }
            empty = 0;
            let address = descriptor.address.wrapping_add(self.offset.into());
            step.pieces.push((address, take));
            step.bytes += take as usize;
            left -= u64::from(take);
            self.offset += take;
            self.lpib = self.lpib.wrapping_add(take);
            if self.cbl != 0 && self.lpib >= self.cbl {
                self.lpib = 0;
            }
            if self.offset >= descriptor.length {
                self.end_of(&descriptor);
            }
        }
        if left > 0 {
            // What was not moved now is not due at once later.
            self.restart(now);
        }
        step
    }

    fn must_wait(&mut self, now: u64) -> bool {
        if self.sts & SDSTS_BCIS == 0 || self.ctl & SDCTL_IOCE == 0 {
            return false;
        }
        now.saturating_sub(*self.held.get_or_insert(now)) < PATIENCE
    }

    fn end_of(&mut self, descriptor: &Descriptor) {
        self.offset = 0;
        self.entry = if self.entry >= self.lvi {
            0
        } else {
            self.entry + 1
        };
        if descriptor.interrupt {
            self.sts |= SDSTS_BCIS;
            self.held = None;
        }
    }

    /// A descriptor that cannot be fetched, or a list without any memory: the stream stops (3.3.36).
    fn failed(&mut self, step: Step) -> Step {
        self.sts |= SDSTS_DESE;
        self.ctl &= !SDCTL_RUN;
        self.flowing = false;
        step
    }

    /// When to look at it again.
    pub fn deadline(&self, dma: &Dma, now: u64) -> Option<u64> {
        if !self.flowing {
            return None;
        }
        let soon = now + TICK;
        let format = self.format();
        let end = self.descriptor(dma).filter(|d| d.interrupt).map(|d| {
            let rest = u64::from(d.length.saturating_sub(self.offset));
            let frames = self.frames + rest.div_ceil(format.frame() as u64);
            let time = u128::from(frames) * 1_000_000_000 / u128::from(format.rate.max(1));
            self.since.saturating_add(time as u64 + 1)
        });
        Some(end.map_or(soon, |end| end.clamp(now + SHORTEST, soon)))
    }
}
