//! Vectors of the guest that host registers have beside the state, in the code of a block.
//!
//! What a vector register is written is stored at once, so that the state is right wherever a block is left. What reads the
//! register after that takes it from the host's: a store that is read back takes the host longer than most operations do.

use super::assembler::Xmm;
use super::frame::XMMS;

/// Host registers that keep what they have for as long as others are free: the interpreter loses them all, and each has to
/// be loaded again on its way back.
const KEPT: usize = 8;

#[derive(Clone, Copy, Default)]
pub(super) struct Copies {
    /// Guest registers whose value a host register has: a bit each.
    held: [u32; XMMS as usize],
    /// Host registers in use by the present instruction.
    busy: u16,
    /// Whose turn it is to be given away.
    turn: usize,
}

impl Copies {
    /// A new instruction: what the last one used may be given away.
    pub fn release(&mut self) {
        self.busy = 0;
    }

    /// A host register that nothing else is in, to the end of the instruction.
    pub fn take(&mut self) -> Option<Xmm> {
        let free = |i: &usize| self.busy >> *i & 1 == 0;
        let taken = (0..KEPT)
            .find(|i| free(i) && self.held[*i] == 0)
            .or_else(|| (0..KEPT).map(|i| (self.turn + i) % KEPT).find(free))
            .or_else(|| (KEPT..self.held.len()).find(free))?;
        self.turn = (taken + 1) % KEPT;
        self.held[taken] = 0;
        self.busy |= 1 << taken;
        Some(Xmm(taken as u8))
    }

    /// The host register that has a guest register's value. It stays to the end of the instruction.
    pub fn find(&mut self, n: u8) -> Option<Xmm> {
        let i = self.held.iter().position(|held| held >> n & 1 != 0)?;
        self.busy |= 1 << i;
        Some(Xmm(i as u8))
    }

    /// A guest register has another value than it had.
    pub fn forget(&mut self, n: u8) {
        for held in &mut self.held {
            *held &= !(1 << n);
        }
    }

    /// A host register has a guest register's value.
    pub fn hold(&mut self, n: u8, xmm: Xmm) {
        if let Some(held) = self.held.get_mut(usize::from(xmm.0)) {
            *held |= 1 << n;
        }
    }

    /// Host registers, and a guest register that each has the value of.
    pub fn iter(&self) -> impl Iterator<Item = (Xmm, u8)> + use<> {
        let held = self.held.into_iter().enumerate();
        held.filter(|(_, held)| *held != 0)
            .map(|(i, held)| (Xmm(i as u8), held.trailing_zeros() as u8))
    }
}
