//! Rings the guest produces and the controller consumes (4.9).

use device::{Dma, DmaError};
use serde::{Deserialize, Serialize};

use super::trb::{self, Trb, bit, kind};

/// A position in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// The TRB that is next.
    pub dequeue: u64,
    /// Its cycle bit if it is ours.
    pub cycle: bool,
}

/// Link TRBs one after the other; real rings have a TRB in each segment.
const MOST_LINKS: usize = 32;

/// What is next in a ring.
pub enum Next {
    /// Nothing of ours.
    Empty,
    /// A TRB and its address; the ring is past it.
    Trb(Trb, u64),
    /// Links that lead nowhere; the address of the last.
    Loop(u64),
}

impl Ring {
    /// Out of a dequeue pointer field: the cycle state in bit 0.
    pub fn from_pointer(pointer: u64) -> Ring {
        Ring {
            dequeue: pointer & !0xf,
            cycle: pointer & 1 != 0,
        }
    }

    /// As a dequeue pointer field.
    pub fn pointer(&self) -> u64 {
        self.dequeue | u64::from(self.cycle)
    }

    /// Takes the next TRB that is no link. `links` hears of each link on the way: the TRB and its address.
    pub fn next(&mut self, dma: &Dma, mut links: impl FnMut(Trb, u64)) -> Result<Next, DmaError> {
        let mut last = self.dequeue;
        for _ in 0..MOST_LINKS {
            let address = self.dequeue;
            let trb = Trb::read(dma, address)?;
            if trb.has(bit::CYCLE) != self.cycle {
                return Ok(Next::Empty);
            }
            if trb.kind() != kind::LINK {
                self.dequeue = address.wrapping_add(trb::SIZE);
                return Ok(Next::Trb(trb, address));
            }
            self.dequeue = trb.parameter & !0xf;
            self.cycle ^= trb.has(bit::TC);
            last = address;
            links(trb, address);
        }
        Ok(Next::Loop(last))
    }
}
