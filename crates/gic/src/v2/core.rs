//! The distributor: its registers, where SPIs go, and which processor is to be interrupted.

use std::sync::Arc;

use super::spec::{gicc, gicd};
use super::state::{Config, Pe, State};
use crate::bank::{Candidate, Rules, locate};
use crate::inputs::{Input, Inputs};
use crate::outputs::{CpuSet, FIQ, IRQ, Wanted};
use crate::{FIRST_SPI, SPI_BANKS, SPIS, StateError};

const SPI_RULES: Rules = Rules {
    always_enabled: 0,
    settable: u32::MAX,
    fixed_trigger: 0,
    priority_mask: 0xff,
};

/// SGIs are always enabled, and pending by SGIR, SPENDSGIR and CPENDSGIR only.
const PRIVATE_RULES: Rules = Rules {
    always_enabled: 0xffff,
    settable: 0xffff_0000,
    fixed_trigger: 0xffff,
    priority_mask: 0xff,
};

/// All of the GIC, guarded by one lock.
pub struct Core {
    pub state: State,
    config: Arc<Config>,
    /// Derived from `state.targets`: the SPIs that go to each processor. An SPI with several targets is presented to all
    /// of them and taken by the first (the 1-N model, section 1.4.3).
    routed: Vec<[u32; SPI_BANKS]>,
    wanted: Wanted,
    /// Processors whose lines are to be driven once the lock is released.
    pub changed: CpuSet,
}

impl Core {
    pub fn new(config: Arc<Config>, wanted: Wanted) -> Core {
        let cpus = config.cpus as usize;
        let mut core = Core {
            state: State::power_on(&config),
            config,
            routed: vec![[0; SPI_BANKS]; cpus],
            wanted,
            changed: CpuSet::default(),
        };
        core.derive();
        core
    }

    /// Power-on state, with the lines as they are.
    pub fn reset(&mut self, inputs: &Inputs) {
        self.state = State::power_on(&self.config);
        for (i, bank) in self.state.spis.iter_mut().enumerate() {
            bank.level = inputs.spis(i);
        }
        for (i, pe) in self.state.pes.iter_mut().enumerate() {
            pe.private.level = inputs.private(i);
        }
        self.derive();
    }

    /// Takes over a snapshot's state.
    pub fn restore(&mut self, state: State) -> Result<(), StateError> {
        let fits = |what, found, expected| {
            if found == expected {
                Ok(())
            } else {
                Err(StateError {
                    what,
                    found,
                    expected,
                })
            }
        };
        fits("the number of processors", state.pes.len(), self.cpus())?;
        fits("the number of banks of SPIs", state.spis.len(), SPI_BANKS)?;
        fits("the number of SPIs", state.targets.len(), SPIS as usize)?;
        self.state = state;
        self.state.pes.iter_mut().for_each(Pe::check);
        self.derive();
        Ok(())
    }

    fn derive(&mut self) {
        for n in 0..SPIS {
            self.route(n);
        }
        self.update_all();
    }

    pub fn cpus(&self) -> usize {
        self.config.cpus as usize
    }

    fn all_cpus(&self) -> u8 {
        (0xffu32 >> (8 - self.config.cpus)) as u8
    }

    /// Notes where SPI `n` goes. The caller updates the processors.
    fn route(&mut self, n: u32) {
        let (bank, bit) = (n as usize / 32, 1 << (n % 32));
        let targets = self.state.targets[n as usize];
        for (cpu, routed) in self.routed.iter_mut().enumerate() {
            if targets >> cpu & 1 != 0 {
                routed[bank] |= bit;
            } else {
                routed[bank] &= !bit;
            }
        }
    }

    /// An input line changed to `level`.
    pub fn drive(&mut self, input: Input, level: bool, inputs: &Inputs) {
        match input {
            Input::Spi { bank, bit } => {
                let now = inputs.spis(bank) & bit != 0;
                self.state.spis[bank].drive(bit, now, level);
                self.update_all();
            }
            Input::Private { cpu, bit } => {
                let now = inputs.private(cpu) & bit != 0;
                self.state.pes[cpu].private.drive(bit, now, level);
                self.update(cpu);
            }
        }
    }

    /// A pulse on an SPI's input, as the v2m frame makes: nothing for a level-sensitive one.
    pub fn pulse_spi(&mut self, n: u32) {
        if let Some(spis) = self.state.spis.get_mut(n as usize / 32) {
            spis.latched |= 1 << (n % 32) & spis.edge;
            self.update_all();
        }
    }

    /// The highest priority pending interrupt of a processor, of the groups that both the distributor and the
    /// processor's interface enable (section 3.3).
    pub fn candidate(&self, cpu: usize) -> Candidate {
        let pe = &self.state.pes[cpu];
        let enabled = pe.ctlr & self.state.ctlr;
        let group0 = enabled & gicd::CTLR_ENABLE_GRP0 != 0;
        let group1 = enabled & gicd::CTLR_ENABLE_GRP1 != 0;
        let mut best = Candidate::NONE;
        if !group0 && !group1 {
            return best;
        }
        best.consider(&pe.private, pe.private.ready_in(group0, group1), 0);
        for (i, (bank, routed)) in self.state.spis.iter().zip(&self.routed[cpu]).enumerate() {
            best.consider(
                bank,
                bank.ready_in(group0, group1) & routed,
                FIRST_SPI + i as u32 * 32,
            );
        }
        best
    }

    /// Derives a processor's lines: group 1 is IRQ; group 0 is FIQ if FIQEn says so (section 2.3).
    pub fn update(&mut self, cpu: usize) {
        let candidate = self.candidate(cpu);
        let pe = &self.state.pes[cpu];
        let levels = if !candidate.is_some() || !pe.deliverable(&candidate) {
            0
        } else if !candidate.group1 && pe.ctlr & gicc::CTLR_FIQ_EN != 0 {
            FIQ
        } else {
            IRQ
        };
        if self.wanted.set(cpu, levels) {
            self.changed.insert(cpu);
        }
    }

    pub fn update_all(&mut self) {
        for cpu in 0..self.cpus() {
            self.update(cpu);
        }
    }

    /// Reads a register as processor `cpu` sees it.
    pub fn read_gicd(&self, cpu: usize, offset: u64) -> u32 {
        if let Some((bank, register)) = locate(offset) {
            return match bank {
                0 => self.state.pes[cpu].private.read(register),
                bank => self
                    .state
                    .spis
                    .get(bank - 1)
                    .map_or(0, |bank| bank.read(register)),
            };
        }
        match offset {
            gicd::CTLR => self.state.ctlr,
            gicd::TYPER => gicd::TYPER_VALUE | (self.config.cpus - 1) << 5,
            gicd::IIDR => gicd::IIDR_VALUE,
            gicd::ITARGETSR..gicd::ITARGETSR_END => self.read_targets(cpu, offset),
            gicd::CPENDSGIR..gicd::SPENDSGIR_END => {
                let first = (offset & 0xf) as usize;
                let sources = &self.state.pes[cpu].sgi_sources[first..first + 4];
                sources
                    .iter()
                    .rev()
                    .fold(0, |value, &source| value << 8 | u32::from(source))
            }
            _ => gicd::identification(offset),
        }
    }

    /// With one processor these are RAZ/WI. Those of private interrupts tell a processor its own bit
    /// (section 4.3.12).
    fn read_targets(&self, cpu: usize, offset: u64) -> u32 {
        if self.config.cpus == 1 {
            return 0;
        }
        let Some(first) = (offset - gicd::ITARGETSR).checked_sub(FIRST_SPI.into()) else {
            return 0x0101_0101 << cpu;
        };
        let targets = self.state.targets.get(first as usize..first as usize + 4);
        targets.map_or(0, |t| {
            t.iter()
                .rev()
                .fold(0, |value, &target| value << 8 | u32::from(target))
        })
    }

    /// Writes the bits of `mask` of a register as processor `cpu`.
    pub fn write_gicd(&mut self, cpu: usize, offset: u64, value: u32, mask: u32) {
        if let Some((bank, register)) = locate(offset) {
            if bank == 0 {
                self.state.pes[cpu]
                    .private
                    .write(register, value, mask, &PRIVATE_RULES);
            } else if let Some(spis) = self.state.spis.get_mut(bank - 1) {
                spis.write(register, value, mask, &SPI_RULES);
            }
            self.update_all();
            return;
        }
        match offset {
            gicd::CTLR => {
                let writable = (gicd::CTLR_ENABLE_GRP0 | gicd::CTLR_ENABLE_GRP1) & mask;
                self.state.ctlr = self.state.ctlr & !writable | value & writable;
            }
            gicd::ITARGETSR..gicd::ITARGETSR_END => self.write_targets(offset, value, mask),
            gicd::SGIR if mask == u32::MAX => self.send_sgi(cpu, value),
            gicd::CPENDSGIR..gicd::SPENDSGIR_END => {
                let first = (offset & 0xf) as usize;
                let set = offset >= gicd::SPENDSGIR;
                for (byte, sgi) in (first..first + 4).enumerate() {
                    let sources = (value >> (8 * byte)) as u8 & self.all_cpus();
                    let pe = &mut self.state.pes[cpu];
                    pe.sgi_sources[sgi] = if set {
                        pe.sgi_sources[sgi] | sources
                    } else {
                        pe.sgi_sources[sgi] & !sources
                    };
                    pe.latch_sgi(sgi);
                }
            }
            _ => return,
        }
        self.update_all();
    }

    fn write_targets(&mut self, offset: u64, value: u32, mask: u32) {
        if self.config.cpus == 1 {
            return;
        }
        let Some(first) = (offset - gicd::ITARGETSR).checked_sub(FIRST_SPI.into()) else {
            return;
        };
        for byte in (0..4).filter(|byte| mask >> (8 * byte) & 0xff != 0) {
            let n = first as u32 + byte;
            if n < SPIS {
                self.state.targets[n as usize] = (value >> (8 * byte)) as u8 & self.all_cpus();
                self.route(n);
            }
        }
    }

    /// GICD_SGIR (section 4.3.15). NSATT counts only with the Security Extensions.
    fn send_sgi(&mut self, from: usize, value: u32) {
        let me = 1u8 << from;
        let targets = match value >> 24 & 3 {
            0 => (value >> 16) as u8 & self.all_cpus(),
            1 => self.all_cpus() & !me,
            2 => me,
            _ => 0,
        };
        let sgi = value as usize & 0xf;
        for (cpu, pe) in self.state.pes.iter_mut().enumerate() {
            if targets >> cpu & 1 != 0 {
                pe.sgi_sources[sgi] |= me;
                pe.latch_sgi(sgi);
            }
        }
    }
}

impl Pe {
    /// An SGI is pending while it has a source.
    pub(super) fn latch_sgi(&mut self, sgi: usize) {
        if self.sgi_sources[sgi] != 0 {
            self.private.latched |= 1 << sgi;
        } else {
            self.private.latched &= !(1 << sgi);
        }
    }
}
