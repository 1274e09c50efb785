//! Interrupters: event rings (4.9.4), interrupts and their moderation (4.17).

use std::collections::VecDeque;

use device::{Dma, DmaError};
use serde::{Deserialize, Serialize};

use super::registers::interrupter::*;
use super::trb::{self, Trb, bit};

/// Where the next event goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The event ring segment table was read.
    loaded: bool,
    segment: u32,
    enqueue: u64,
    /// TRBs left in the segment, this one included.
    left: u32,
    cycle: bool,
}

/// One interrupter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupter {
    iman: u32,
    imod: u32,
    erstsz: u32,
    erstba: u64,
    erdp: u64,
    pub position: Position,
    /// IPE: the ring is not empty, and an event in it wants an interrupt.
    pending: bool,
    /// Guest time before which moderation lets no interrupt out, in nanoseconds.
    next: u64,
    /// Events the ring had no room for. While there are any, the controller takes on no new work: instead of losing
    /// events and saying so (Event Ring Full Error), it waits for the guest.
    backlog: VecDeque<(Trb, bool)>,
}

/// What [`Interrupter::update`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// IP rose.
    pub raised: bool,
    /// Moderation ends then.
    pub deadline: Option<u64>,
}

impl Interrupter {
    /// IMODI's default is 4000: 1 ms.
    pub fn power_on() -> Interrupter {
        Interrupter {
            imod: 4000,
            ..Interrupter::default()
        }
    }

    pub fn read(&self, register: u64) -> u32 {
        match register {
            IMAN => self.iman,
            IMOD => self.imod,
            ERSTSZ => self.erstsz,
            ERSTBA => self.erstba as u32,
            0x14 => (self.erstba >> 32) as u32,
            ERDP => self.erdp as u32,
            0x1c => (self.erdp >> 32) as u32,
            _ => 0,
        }
    }

    /// A write. Returns whether the worker may have something to do.
    pub fn write(&mut self, register: u64, value: u32) -> bool {
        let low = |old: u64, new: u32| old & !0xffff_ffff | u64::from(new);
        let high = |old: u64, new: u32| old & 0xffff_ffff | u64::from(new) << 32;
        match register {
            IMAN => {
                let ip = self.iman & IMAN_IP & !value;
                self.iman = ip | value & IMAN_IE;
            }
            IMOD => {
                self.imod = value;
                self.next = 0;
            }
            ERSTSZ => self.erstsz = (value & 0xffff).min(MOST_SEGMENTS),
            ERSTBA | 0x14 => {
                self.erstba = if register == ERSTBA {
                    low(self.erstba, value & !0x3f)
                } else {
                    high(self.erstba, value)
                };
                // The table is read when the first event is written: both halves are there by then.
                self.position = Position::default();
            }
            ERDP => {
                let busy = self.erdp & EHB & !u64::from(value);
                self.erdp = low(self.erdp, value & !(EHB as u32)) | busy;
                self.dequeued();
            }
            0x1c => {
                self.erdp = high(self.erdp, value);
                self.dequeued();
            }
            _ => {}
        }
        !self.backlog.is_empty()
    }

    /// The guest has taken events: with the last, its wish for an interrupt goes.
    fn dequeued(&mut self) {
        if self.erdp & !0xf == self.position.enqueue && self.backlog.is_empty() {
            self.pending = false;
        }
    }

    /// Whether events wait for room.
    pub fn blocked(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether it is due to raise IP, now or when moderation allows; whether its interrupt is asserted.
    pub fn update(&mut self, now: u64) -> Update {
        let mut update = Update::default();
        if self.pending && self.erdp & EHB == 0 {
            if now < self.next {
                update.deadline = Some(self.next);
            } else {
                update.raised = self.iman & IMAN_IP == 0;
                self.iman |= IMAN_IP;
                self.erdp |= EHB;
                self.next = now.saturating_add(u64::from(self.imod & 0xffff) * 250);
            }
        }
        update
    }

    /// IP and IE.
    pub fn asserted(&self) -> bool {
        self.iman & (IMAN_IP | IMAN_IE) == IMAN_IP | IMAN_IE
    }

    /// The message went out: IP falls by itself (5.5.2.1).
    pub fn message_sent(&mut self) {
        self.iman &= !IMAN_IP;
    }

    /// Queues an event. `block`: it wants no interrupt.
    pub fn post(&mut self, dma: &Dma, event: Trb, block: bool) -> Result<(), DmaError> {
        if self.erstsz == 0 {
            tracing::debug!("an event for an interrupter without a ring");
            return Ok(());
        }
        self.backlog.push_back((event, block));
        self.flush(dma)
    }

    /// Writes what there is room for.
    pub fn flush(&mut self, dma: &Dma) -> Result<(), DmaError> {
        while let Some(&(mut event, block)) = self.backlog.front() {
            if self.erstsz == 0 {
                self.backlog.clear();
                return Ok(());
            }
            if !self.position.loaded {
                self.position = self.segment(dma, 0, true)?;
            }
            let mut next = self.position;
            next.enqueue = next.enqueue.wrapping_add(trb::SIZE);
            next.left -= 1;
            if next.left == 0 {
                let last = next.segment + 1 >= self.erstsz;
                next = match last {
                    true => self.segment(dma, 0, !next.cycle)?,
                    false => self.segment(dma, next.segment + 1, next.cycle)?,
                };
            }
            // One TRB stays free: full is not empty.
            if next.enqueue == self.erdp & !0xf {
                return Ok(());
            }
            event.control = event.control & !bit::CYCLE | u32::from(self.position.cycle);
            event.write(dma, self.position.enqueue)?;
            self.position = next;
            self.pending |= !block;
            self.backlog.pop_front();
        }
        Ok(())
    }

    /// The start of a segment (6.5).
    fn segment(&self, dma: &Dma, segment: u32, cycle: bool) -> Result<Position, DmaError> {
        let entry = self.erstba.wrapping_add(u64::from(segment) * 16);
        let enqueue = dma.read_u64(entry)? & !0x3f;
        let left = dma.read_u32(entry.wrapping_add(8))? & 0xffff;
        if !(16..=4096).contains(&left) {
            return Err(DmaError {
                address: entry,
                length: 16,
            });
        }
        Ok(Position {
            loaded: true,
            segment,
            enqueue,
            left,
            cycle,
        })
    }
}
