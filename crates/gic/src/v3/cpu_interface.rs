//! CPU interfaces: the ICC registers (IHI 0069H sections 4.4 to 4.8 and 12.2).

use super::core::{Core, ones};
use super::spec::{FIRST_LPI, INTIDS, icc};
use super::state::Pe;
use crate::bank::Candidate;
use crate::{FIRST_SPI, SPIS, SPURIOUS};

/// The running priority while nothing is active.
const IDLE: u16 = 0x100;

impl Pe {
    /// The bits of a priority that count for preemption (section 4.8.2). Group 1's binary point is one further up.
    fn group_mask(&self, group1: bool) -> u16 {
        let below = if group1 && !self.cbpr {
            self.bpr1
        } else {
            self.bpr0 + 1
        };
        0xff << below & 0xff
    }

    fn group_priority(&self, candidate: &Candidate) -> u16 {
        candidate.priority & self.group_mask(candidate.group1)
    }

    /// Whether an interrupt preempts what runs: its group priority is higher than the running priority's, both by the
    /// binary point of the interrupt that would preempt.
    pub(super) fn preempts(&self, candidate: &Candidate) -> bool {
        let mask = self.group_mask(candidate.group1) | IDLE;
        candidate.priority & mask < self.running_priority() & mask
    }

    /// Highest active priority and whether it is group 1's. A bit is a level of the 32.
    fn highest_active(&self) -> Option<(u16, bool)> {
        let (group0, group1) = (self.ap0r.trailing_zeros(), self.ap1r.trailing_zeros());
        (group0 != 32 || group1 != 32).then(|| (8 * group0.min(group1) as u16, group1 < group0))
    }

    fn running_priority(&self) -> u16 {
        self.highest_active().map_or(IDLE, |(priority, _)| priority)
    }

    /// BPR1 as it is read: with CBPR it shows BPR0 plus one.
    fn visible_bpr1(&self) -> u8 {
        if self.cbpr {
            (self.bpr0 + 1).min(7)
        } else {
            self.bpr1
        }
    }
}

impl Core {
    /// Reads an ICC register. `None`: not there.
    pub fn read_icc(&mut self, cpu: usize, register: u32) -> Option<u64> {
        Some(match register {
            icc::IAR0_EL1 => self.acknowledge(cpu, false).into(),
            icc::IAR1_EL1 => self.acknowledge(cpu, true).into(),
            icc::HPPIR0_EL1 => self.highest_pending(cpu, false).into(),
            icc::HPPIR1_EL1 => self.highest_pending(cpu, true).into(),
            _ => {
                let pe = &self.state.pes[cpu];
                match register {
                    icc::PMR_EL1 => pe.pmr.into(),
                    icc::BPR0_EL1 => pe.bpr0.into(),
                    icc::BPR1_EL1 => pe.visible_bpr1().into(),
                    icc::AP0R0_EL1 => pe.ap0r.into(),
                    icc::AP1R0_EL1 => pe.ap1r.into(),
                    icc::RPR_EL1 => pe.running_priority().min(0xff).into(),
                    icc::CTLR_EL1 => {
                        let cbpr = if pe.cbpr { icc::CTLR_CBPR } else { 0 };
                        let eoimode = if pe.eoimode { icc::CTLR_EOIMODE } else { 0 };
                        icc::CTLR_VALUE | cbpr | eoimode
                    }
                    icc::SRE_EL1 => icc::SRE_VALUE,
                    icc::IGRPEN0_EL1 => pe.igrpen0.into(),
                    icc::IGRPEN1_EL1 => pe.igrpen1.into(),
                    _ => return None,
                }
            }
        })
    }

    /// Writes an ICC register. `None`: not there, or read-only.
    pub fn write_icc(&mut self, cpu: usize, register: u32, value: u64) -> Option<()> {
        match register {
            icc::EOIR0_EL1 => self.end(cpu, value as u32 & 0xff_ffff, false),
            icc::EOIR1_EL1 => self.end(cpu, value as u32 & 0xff_ffff, true),
            icc::DIR_EL1 if self.state.pes[cpu].eoimode => {
                self.deactivate(cpu, value as u32 & 0xff_ffff);
            }
            // With EOImode 0 a write of DIR has no effect (section 12.2.13).
            icc::DIR_EL1 => {}
            // "Group 1 of the other Security state" is group 0 where there is one state (section 12.1.10, "Forwarding an
            // SGI to a target PE"; QEMU does so too).
            icc::SGI0R_EL1 | icc::ASGI1R_EL1 => self.send_sgi(cpu, value, false),
            icc::SGI1R_EL1 => self.send_sgi(cpu, value, true),
            icc::IGRPEN0_EL1 | icc::IGRPEN1_EL1 => {
                let (pe, enable) = (self.pe(cpu), value & 1 != 0);
                let was = if register == icc::IGRPEN0_EL1 {
                    &mut pe.igrpen0
                } else {
                    &mut pe.igrpen1
                };
                if std::mem::replace(was, enable) != enable {
                    self.participation_changed();
                }
                self.update(cpu);
            }
            icc::SRE_EL1 => {}
            _ => {
                let (pe, low) = (self.pe(cpu), value as u8);
                match register {
                    icc::PMR_EL1 => pe.pmr = low & super::spec::PRIORITY_MASK,
                    icc::BPR0_EL1 => pe.bpr0 = (low & 7).max(icc::MINIMUM_BPR0),
                    icc::BPR1_EL1 if pe.cbpr => {}
                    icc::BPR1_EL1 => pe.bpr1 = (low & 7).max(icc::MINIMUM_BPR1),
                    icc::AP0R0_EL1 => pe.ap0r = value as u32,
                    icc::AP1R0_EL1 => pe.ap1r = value as u32,
                    icc::CTLR_EL1 => {
                        pe.cbpr = value & icc::CTLR_CBPR != 0;
                        pe.eoimode = value & icc::CTLR_EOIMODE != 0;
                    }
                    _ => return None,
                }
                self.update(cpu);
            }
        }
        Some(())
    }

    /// IAR: takes the interrupt that is signalled, if it is of this group (section 4.8).
    fn acknowledge(&mut self, cpu: usize, group1: bool) -> u32 {
        let candidate = self.candidate(cpu);
        if !candidate.is_some() || candidate.group1 != group1 || !self.deliverable(cpu, &candidate)
        {
            return SPURIOUS;
        }
        let pe = self.pe(cpu);
        let level = 1 << (pe.group_priority(&candidate) >> 3);
        if group1 {
            pe.ap1r |= level;
        } else {
            pe.ap0r |= level;
        }
        match candidate.intid {
            intid @ 0..FIRST_SPI => pe.private.acknowledge(1 << intid),
            // An LPI has no active state (section 4.1.2).
            intid @ FIRST_LPI.. => self.lpi_clear(cpu, intid),
            intid => {
                let n = intid - FIRST_SPI;
                self.state.spis[n as usize / 32].acknowledge(1 << (n % 32));
            }
        }
        self.update(cpu);
        candidate.intid
    }

    /// HPPIR: what IAR might return, priority mask and running priority aside.
    fn highest_pending(&self, cpu: usize, group1: bool) -> u32 {
        let candidate = self.candidate(cpu);
        let pe = &self.state.pes[cpu];
        let enabled = if group1 { pe.igrpen1 } else { pe.igrpen0 };
        if enabled && candidate.is_some() && candidate.group1 == group1 {
            candidate.intid
        } else {
            SPURIOUS
        }
    }

    /// EOIR: priority drop, and deactivation unless EOImode leaves that to DIR (section 4.5).
    fn end(&mut self, cpu: usize, intid: u32, group1: bool) {
        if !(intid < FIRST_SPI + SPIS || (FIRST_LPI..INTIDS).contains(&intid)) {
            return;
        }
        let pe = self.pe(cpu);
        // Ending what is not the running interrupt's group is UNPREDICTABLE: nothing happens.
        match pe.highest_active() {
            Some((_, group)) if group == group1 => {
                let active = if group1 { &mut pe.ap1r } else { &mut pe.ap0r };
                *active &= active.wrapping_sub(1);
            }
            _ => return,
        }
        if !pe.eoimode {
            self.deactivate(cpu, intid);
        }
        self.update(cpu);
    }

    /// The interrupt is no longer active.
    fn deactivate(&mut self, cpu: usize, intid: u32) {
        match intid {
            0..FIRST_SPI => {
                self.pe(cpu).private.active &= !(1 << intid);
                self.update(cpu);
            }
            _ => {
                let n = intid - FIRST_SPI;
                if n < SPIS {
                    self.state.spis[n as usize / 32].active &= !(1 << (n % 32));
                    self.spis_changed(n as usize / 32, 1 << (n % 32));
                }
            }
        }
    }

    /// SGI0R, SGI1R, ASGI1R: an SGI to a list of processors of one cluster, or to all but the sender. It arrives where it
    /// is of the right group.
    fn send_sgi(&mut self, from: usize, value: u64, group1: bool) {
        let bit = 1 << (value >> 24 & 0xf);
        if value >> 40 & 1 != 0 {
            for cpu in (0..self.cpus()).filter(|&cpu| cpu != from) {
                self.receive_sgi(cpu, bit, group1);
            }
            return;
        }
        let aff3 = (value >> 48 & 0xff) as u32;
        let aff2 = (value >> 32 & 0xff) as u32;
        let aff1 = (value >> 16 & 0xff) as u32;
        let range = (value >> 44 & 0xf) as u32;
        for i in ones(value as u32 & 0xffff) {
            let affinity = aff3 << 24 | aff2 << 16 | aff1 << 8 | (range * 16 + i);
            if let Some(cpu) = self.cpu_at(affinity) {
                self.receive_sgi(cpu, bit, group1);
            }
        }
    }

    fn receive_sgi(&mut self, cpu: usize, bit: u32, group1: bool) {
        let private = &mut self.pe(cpu).private;
        if (private.group & bit != 0) == group1 {
            private.latched |= bit;
            self.update(cpu);
        }
    }
}
