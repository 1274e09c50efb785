//! CPU interfaces: the GICC registers (IHI 0048B chapter 3 and section 4.4).

use super::core::Core;
use super::spec::{GROUP1_PENDING, gicc};
use super::state::Pe;
use crate::bank::Candidate;
use crate::{FIRST_SPI, SPIS, SPURIOUS};

/// The running priority while nothing is active.
const IDLE: u16 = 0x100;

/// The lowest bit that is set: an active priority's level.
fn highest(levels: &[u32; 4]) -> u32 {
    let at = levels.iter().position(|word| *word != 0);
    at.map_or(128, |at| at as u32 * 32 + levels[at].trailing_zeros())
}

impl Pe {
    /// The bits of a priority that count for preemption (section 3.3.3). Group 1's binary point is one further up.
    fn group_mask(&self, group1: bool) -> u16 {
        let own = group1 && self.ctlr & gicc::CTLR_CBPR == 0;
        let below = if own { self.abpr } else { self.bpr + 1 };
        0xff << below & 0xff
    }

    fn group_priority(&self, candidate: &Candidate) -> u16 {
        candidate.priority & self.group_mask(candidate.group1)
    }

    /// Whether an interrupt preempts what runs: both priorities by the binary point of the interrupt that would preempt.
    fn preempts(&self, candidate: &Candidate) -> bool {
        let mask = self.group_mask(candidate.group1) | IDLE;
        candidate.priority & mask < self.running_priority() & mask
    }

    fn running_priority(&self) -> u16 {
        match highest(&self.apr).min(highest(&self.nsapr)) {
            128 => IDLE,
            level => 2 * level as u16,
        }
    }

    /// Whether an interrupt is to be taken now: it passes the priority mask and preempts what runs (section 3.3).
    pub(super) fn deliverable(&self, candidate: &Candidate) -> bool {
        candidate.priority < u16::from(self.pmr) && self.preempts(candidate)
    }
}

/// Which registers an access is by: IAR, EOIR and HPPIR, or the aliased ones, which are for group 1 only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Plain,
    Aliased,
}

impl Core {
    /// Reads a register of processor `cpu`'s interface.
    pub fn read_gicc(&mut self, cpu: usize, offset: u64) -> u32 {
        let pe = &self.state.pes[cpu];
        match offset {
            gicc::CTLR => pe.ctlr,
            gicc::PMR => pe.pmr.into(),
            gicc::BPR => pe.bpr.into(),
            gicc::IAR => self.acknowledge(cpu, View::Plain),
            gicc::RPR => pe.running_priority().min(0xff).into(),
            gicc::HPPIR => self.highest_pending(cpu, View::Plain),
            gicc::ABPR => pe.abpr.into(),
            gicc::AIAR => self.acknowledge(cpu, View::Aliased),
            gicc::AHPPIR => self.highest_pending(cpu, View::Aliased),
            gicc::APR..gicc::NSAPR => pe.apr[(offset - gicc::APR) as usize / 4],
            gicc::NSAPR..gicc::NSAPR_END => pe.nsapr[(offset - gicc::NSAPR) as usize / 4],
            gicc::IIDR => gicc::IIDR_VALUE,
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of a register of processor `cpu`'s interface.
    pub fn write_gicc(&mut self, cpu: usize, offset: u64, value: u32, mask: u32) {
        let pe = &mut self.state.pes[cpu];
        let low = mask & 0xff != 0;
        match offset {
            gicc::CTLR => {
                let writable = mask & gicc::CTLR_WRITABLE;
                pe.ctlr = pe.ctlr & !writable | value & writable;
            }
            gicc::PMR if low => pe.pmr = value as u8,
            gicc::BPR if low => pe.bpr = value as u8 & 7,
            gicc::ABPR if low => pe.abpr = (value as u8 & 7).max(gicc::MINIMUM_ABPR),
            gicc::EOIR if low => self.end(cpu, value, View::Plain),
            gicc::AEOIR if low => self.end(cpu, value, View::Aliased),
            gicc::APR..gicc::NSAPR => {
                let word = &mut pe.apr[(offset - gicc::APR) as usize / 4];
                *word = *word & !mask | value;
            }
            gicc::NSAPR..gicc::NSAPR_END => {
                let word = &mut pe.nsapr[(offset - gicc::NSAPR) as usize / 4];
                *word = *word & !mask | value;
            }
            // With EOImode 0 a write of DIR is UNPREDICTABLE: ignored.
            gicc::DIR if low && pe.ctlr & gicc::CTLR_EOIMODE != 0 => {
                self.deactivate(cpu, value & 0x3ff)
            }
            _ => return,
        }
        self.update(cpu);
    }

    /// The candidate as a view shows it: its INTID, or why not (table 3-1).
    fn visible(&self, cpu: usize, candidate: &Candidate, view: View) -> Result<u32, u32> {
        let ack_ctl = self.state.pes[cpu].ctlr & gicc::CTLR_ACK_CTL != 0;
        match (candidate.is_some(), candidate.group1, view) {
            (false, ..) | (_, false, View::Aliased) => Err(SPURIOUS),
            (_, true, View::Plain) if !ack_ctl => Err(GROUP1_PENDING),
            _ => Ok(candidate.intid),
        }
    }

    /// IAR and AIAR: takes the interrupt that is signalled. An SGI comes with the number of a processor that sent it, one
    /// at a time.
    fn acknowledge(&mut self, cpu: usize, view: View) -> u32 {
        let candidate = self.candidate(cpu);
        if candidate.priority >= self.state.pes[cpu].pmr.into() {
            return SPURIOUS;
        }
        let intid = match self.visible(cpu, &candidate, view) {
            Ok(intid) if self.state.pes[cpu].deliverable(&candidate) => intid,
            Ok(_) => return SPURIOUS,
            Err(special) => return special,
        };
        let pe = &mut self.state.pes[cpu];
        let level = u32::from(pe.group_priority(&candidate) >> 1);
        let active = if candidate.group1 {
            &mut pe.nsapr
        } else {
            &mut pe.apr
        };
        active[level as usize / 32] |= 1 << (level % 32);
        let mut value = intid;
        if intid < FIRST_SPI {
            pe.private.acknowledge(1 << intid);
            if intid < 16 {
                let sources = &mut pe.sgi_sources[intid as usize];
                value |= source(*sources) << 10;
                *sources &= sources.wrapping_sub(1);
                pe.latch_sgi(intid as usize);
            }
            self.update(cpu);
        } else {
            let n = intid - FIRST_SPI;
            self.state.spis[n as usize / 32].acknowledge(1 << (n % 32));
            self.update_all();
        }
        value
    }

    /// HPPIR and AHPPIR: what IAR might return, priority mask and running priority aside.
    fn highest_pending(&self, cpu: usize, view: View) -> u32 {
        let candidate = self.candidate(cpu);
        match self.visible(cpu, &candidate, view) {
            Ok(intid) if intid < 16 => {
                intid | source(self.state.pes[cpu].sgi_sources[intid as usize]) << 10
            }
            Ok(intid) | Err(intid) => intid,
        }
    }

    /// EOIR and AEOIR: priority drop of the interrupt's group, and deactivation unless EOImode leaves that to DIR
    /// (section 3.2.1). AEOIR is for group 1 only. Ending what is not the running interrupt is UNPREDICTABLE: here it
    /// drops its group's highest active priority, if there is one; with nothing running it does nothing.
    fn end(&mut self, cpu: usize, value: u32, view: View) {
        let intid = value & 0x3ff;
        if intid >= FIRST_SPI + SPIS {
            return;
        }
        let bank = match intid.checked_sub(FIRST_SPI) {
            None => &self.state.pes[cpu].private,
            Some(n) => &self.state.spis[n as usize / 32],
        };
        let group1 = bank.group >> (intid % 32) & 1 != 0;
        let pe = &mut self.state.pes[cpu];
        if view == View::Aliased && !group1 || pe.running_priority() == IDLE {
            return;
        }
        let active = if group1 { &mut pe.nsapr } else { &mut pe.apr };
        if let Some(word) = active.iter_mut().find(|word| **word != 0) {
            *word &= word.wrapping_sub(1);
        }
        if pe.ctlr & gicc::CTLR_EOIMODE == 0 {
            self.deactivate(cpu, intid);
        }
    }

    /// The interrupt is no longer active.
    fn deactivate(&mut self, cpu: usize, intid: u32) {
        if intid < FIRST_SPI {
            self.state.pes[cpu].private.active &= !(1 << intid);
            self.update(cpu);
        } else if let Some(spis) = self.state.spis.get_mut((intid - FIRST_SPI) as usize / 32) {
            spis.active &= !(1 << (intid % 32));
            self.update_all();
        }
    }
}

/// The lowest-numbered processor of some; 0 if there is none.
fn source(sources: u8) -> u32 {
    if sources == 0 {
        0
    } else {
        sources.trailing_zeros()
    }
}
