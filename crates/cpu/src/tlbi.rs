//! TLB maintenance: what TLBI instructions ask for, and how other processors are told.

use std::sync::atomic::Ordering;

use aarch64::registers as r;

use crate::Core;
use crate::signals::Signals;

/// What to forget of cached stage 1 translations of EL1 and EL0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Everything.
    All,
    /// Non-global entries of an ASID.
    Asid(u16),
    /// Entries of the page *or block* that holds the address: a 4 KiB piece of a 2 MiB block goes if the address is
    /// anywhere in that block, since guests invalidate a block by one address of it ([`crate::mmu::Translation::block_bits`]).
    Address {
        /// Page-aligned (4 KiB), bits 63:56 copies of bit 55.
        address: u64,
        /// Non-global entries of this ASID only (global ones too); `None`: of any.
        asid: Option<u16>,
    },
    /// Permission to write the pages of that entry of [`memory::Code`]: stores to them are to be reported from now on.
    Writes(u32),
    /// Translations of those lines of the pages of that entry of [`memory::Code`]: they were written.
    Code { slot: u32, lines: u64 },
    /// All translations of code.
    AllCode,
}

/// A cache of translations.
pub trait Invalidate {
    /// Forgets what `invalidation` covers, at once.
    fn invalidate(&mut self, invalidation: &Invalidation);
}

impl Invalidation {
    /// What a TLBI instruction asks for and whether it is broadcast; `None` for encodings that are not allocated.
    pub fn decode(register: u16, value: u64) -> Option<(Invalidation, bool)> {
        let asid = (value >> 48) as u16;
        let address = ((value << 20) as i64 >> 8) as u64 & !0xfff;
        let (_, _, _, crm, _) = r::fields(register);
        let local = match crm {
            3 => register + (4 << 3),
            7 => register,
            _ => return None,
        };
        let invalidation = match local {
            r::TLBI_VMALLE1 => Invalidation::All,
            r::TLBI_ASIDE1 => Invalidation::Asid(asid),
            r::TLBI_VAE1 | r::TLBI_VALE1 => Invalidation::Address {
                address,
                asid: Some(asid),
            },
            r::TLBI_VAAE1 | r::TLBI_VAALE1 => Invalidation::Address {
                address,
                asid: None,
            },
            _ => return None,
        };
        Some((invalidation, crm == 3))
    }
}

impl Core {
    /// A TLBI instruction: on this processor at once, on the others by their queues; [`Core::synchronize`] (DSB) waits
    /// for them.
    pub(crate) fn invalidate(
        &mut self,
        invalidation: Invalidation,
        broadcast: bool,
        tlb: &mut dyn Invalidate,
    ) {
        tlb.invalidate(&invalidation);
        if !broadcast {
            return;
        }
        for (i, other) in self.shared.processors().iter().enumerate() {
            if i != self.index as usize {
                self.waits[i] = other.invalidate(invalidation);
                self.has_waits = true;
            }
        }
    }

    /// DSB: returns when every other processor has done what this one broadcast. It serves its own queue meanwhile, so
    /// that two processors that wait for each other both go on.
    pub fn synchronize(&mut self, tlb: &mut dyn Invalidate) {
        if !self.has_waits {
            return;
        }
        self.has_waits = false;
        let shared = self.shared.clone();
        for (i, other) in shared.processors().iter().enumerate() {
            let ticket = std::mem::take(&mut self.waits[i]);
            let mut turns = 0u32;
            while ticket != 0 && !other.is_invalidated(ticket) {
                self.signals
                    .drain(|invalidation| tlb.invalidate(invalidation));
                turns = turns.saturating_add(1);
                if turns < 100 {
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Takes permission to write the pages of an entry of [`memory::Code`] from this processor, and asks the others to.
    pub(crate) fn protect_code(&mut self, slot: u32, tlb: &mut dyn Invalidate) {
        tlb.invalidate(&Invalidation::Writes(slot));
        self.tell_others(Invalidation::Writes(slot));
    }

    /// Queues an invalidation that nothing waits for on the other processors.
    pub(crate) fn tell_others(&self, invalidation: Invalidation) {
        for (i, other) in self.shared.processors().iter().enumerate() {
            if i != self.index as usize {
                other.invalidate(invalidation);
            }
        }
    }

    /// Drains the invalidation queue.
    pub(crate) fn drain(signals: &Signals, tlb: &mut dyn Invalidate) {
        signals
            .pending
            .fetch_and(!crate::signals::attention::TLBI, Ordering::SeqCst);
        signals.drain(|invalidation| tlb.invalidate(invalidation));
    }
}
