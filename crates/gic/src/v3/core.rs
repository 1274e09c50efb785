//! State and what is derived from it: who gets which SPI, and which processor is to be interrupted.

use std::collections::BTreeSet;
use std::sync::Arc;

use device::Dma;

use super::spec::{PRIORITY_MASK, gicd};
use super::state::{Config, Pe, State};
use crate::bank::{BankRegister, Candidate, Rules};
use crate::inputs::{Input, Inputs};
use crate::outputs::{CpuSet, FIQ, IRQ, Wanted};
use crate::{FIRST_SPI, SPI_BANKS, SPIS, StateError};

/// No processor.
const NOBODY: u16 = u16::MAX;

const SPI_RULES: Rules = Rules {
    always_enabled: 0,
    settable: u32::MAX,
    fixed_trigger: 0,
    priority_mask: PRIORITY_MASK,
};

const PRIVATE_RULES: Rules = Rules {
    fixed_trigger: 0xffff,
    ..SPI_RULES
};

/// All of the GIC that its one lock guards; the ITS's own registers have another.
pub struct Core {
    pub state: State,
    pub(super) config: Arc<Config>,
    pub(super) dma: Dma,
    /// (affinity, processor), sorted.
    by_affinity: Vec<(u32, u16)>,
    /// Derived: the SPIs that go to each processor.
    routed: Vec<[u32; SPI_BANKS]>,
    /// Derived: the processor of each SPI.
    target: Vec<u16>,
    /// Derived: SPIs that go to any one processor.
    one_of_n: [u32; SPI_BANKS],
    /// Derived: pending and enabled LPIs of each processor, the most urgent first.
    pub(super) ready_lpis: Vec<BTreeSet<(u8, u32)>>,
    wanted: Wanted,
    /// Processors whose lines are to be driven once the lock is released.
    pub changed: CpuSet,
}

impl Core {
    pub fn new(config: Arc<Config>, dma: Dma, wanted: Wanted) -> Core {
        let mut by_affinity: Vec<_> = config
            .affinities
            .iter()
            .enumerate()
            .map(|(i, &a)| (a, i as u16))
            .collect();
        by_affinity.sort_unstable();
        let cpus = config.affinities.len();
        let mut core = Core {
            state: State::power_on(&config),
            config,
            dma,
            by_affinity,
            routed: vec![[0; SPI_BANKS]; cpus],
            target: vec![NOBODY; SPIS as usize],
            one_of_n: [0; SPI_BANKS],
            ready_lpis: vec![BTreeSet::new(); cpus],
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
        fits("the number of SPIs", state.irouter.len(), SPIS as usize)?;
        self.state = state;
        self.state.pes.iter_mut().for_each(Pe::check);
        self.derive();
        Ok(())
    }

    /// Makes everything that is derived anew.
    fn derive(&mut self) {
        for n in 0..SPIS {
            self.route(n);
        }
        for (pe, ready) in self.state.pes.iter().zip(&mut self.ready_lpis) {
            let enabled = pe.lpis.iter().filter(|(_, config)| *config & 1 != 0);
            *ready = enabled
                .map(|(&intid, config)| (config & PRIORITY_MASK, intid))
                .collect();
        }
        self.update_all();
    }

    pub fn cpus(&self) -> usize {
        self.config.affinities.len()
    }

    /// The processor with an affinity.
    pub fn cpu_at(&self, affinity: u32) -> Option<usize> {
        let at = self
            .by_affinity
            .binary_search_by_key(&affinity, |x| x.0)
            .ok()?;
        Some(self.by_affinity[at].1 as usize)
    }

    pub fn pe(&mut self, cpu: usize) -> &mut Pe {
        &mut self.state.pes[cpu]
    }

    // Routing

    /// Works out anew where SPI `n` goes, by its IROUTER.
    pub fn route(&mut self, n: u32) {
        let (bank, bit) = (n as usize / 32, 1 << (n % 32));
        let irouter = self.state.irouter[n as usize];
        if irouter & gicd::IROUTER_IRM != 0 {
            self.one_of_n[bank] |= bit;
        } else {
            self.one_of_n[bank] &= !bit;
        }
        let target = if irouter & gicd::IROUTER_IRM != 0 {
            Some(self.any_processor(self.state.spis[bank].group & bit != 0))
        } else {
            self.cpu_at((irouter >> 32 << 24) as u32 | irouter as u32 & 0xff_ffff)
        };
        let target = target.map_or(NOBODY, |cpu| cpu as u16);
        let was = std::mem::replace(&mut self.target[n as usize], target);
        if was != target {
            if was != NOBODY {
                self.routed[was as usize][bank] &= !bit;
                self.update(was as usize);
            }
            if target != NOBODY {
                self.routed[target as usize][bank] |= bit;
            }
        }
        if target != NOBODY {
            self.update(target as usize);
        }
    }

    /// Who takes a 1-of-N interrupt: the first processor that has its group enabled and nothing else to do; else the
    /// first that has the group enabled (section 3.3: the choice is ours).
    fn any_processor(&self, group1: bool) -> usize {
        let open = |pe: &&Pe| if group1 { pe.igrpen1 } else { pe.igrpen0 };
        let idle = |pe: &Pe| pe.ap0r | pe.ap1r == 0;
        let pes = || self.state.pes.iter().enumerate().filter(|(_, pe)| open(pe));
        let found = pes().find(|(_, pe)| idle(pe)).or_else(|| pes().next());
        found.map_or(0, |(cpu, _)| cpu)
    }

    /// The SPIs of `bits` of a bank have changed: those who may get them are looked at again.
    pub fn spis_changed(&mut self, bank: usize, bits: u32) {
        let mut last = NOBODY;
        for i in ones(bits) {
            if self.one_of_n[bank] & 1 << i != 0 {
                self.route(bank as u32 * 32 + i);
                last = NOBODY;
                continue;
            }
            let target = self.target[bank * 32 + i as usize];
            if target != last && target != NOBODY {
                self.update(target as usize);
                last = target;
            }
        }
    }

    /// A processor enabled or disabled a group: 1-of-N interrupts may go elsewhere.
    pub fn participation_changed(&mut self) {
        for bank in 0..SPI_BANKS {
            for i in ones(self.one_of_n[bank]) {
                self.route(bank as u32 * 32 + i);
            }
        }
    }

    // Inputs

    /// An input line changed to `level`.
    pub fn drive(&mut self, input: Input, level: bool, inputs: &Inputs) {
        // Of two that race, both must leave the level at what it is last; an edge counts in any case.
        match input {
            Input::Spi { bank, bit } => {
                let now = inputs.spis(bank) & bit != 0;
                self.state.spis[bank].drive(bit, now, level);
                self.spis_changed(bank, bit);
            }
            Input::Private { cpu, bit } => {
                let now = inputs.private(cpu) & bit != 0;
                self.state.pes[cpu].private.drive(bit, now, level);
                self.update(cpu);
            }
        }
    }

    /// A message makes an SPI pending, or no longer (GICD_SETSPI_NSR, GICD_CLRSPI_NSR).
    pub fn message(&mut self, intid: u32, pending: bool) {
        let Some(n) = intid.checked_sub(FIRST_SPI).filter(|&n| n < SPIS) else {
            return;
        };
        let (bank, bit) = (n as usize / 32, 1 << (n % 32));
        if pending {
            self.state.spis[bank].latched |= bit;
        } else {
            self.state.spis[bank].latched &= !bit;
        }
        self.spis_changed(bank, bit);
    }

    /// A pulse on an SPI's input, as the v2m frame makes: nothing for a level-sensitive one.
    pub fn pulse_spi(&mut self, n: u32) {
        let (bank, bit) = (n as usize / 32, 1 << (n % 32));
        let Some(spis) = self.state.spis.get_mut(bank) else {
            return;
        };
        spis.latched |= bit & spis.edge;
        self.spis_changed(bank, bit);
    }

    // Registers of banks

    /// Reads a register of the banks of SPIs; `bank` counts the private interrupts' as 0, which reads as zero here.
    pub fn read_spis(&self, bank: usize, register: BankRegister) -> u32 {
        let bank = bank.checked_sub(1).and_then(|i| self.state.spis.get(i));
        bank.map_or(0, |bank| bank.read(register))
    }

    pub fn write_spis(&mut self, bank: usize, register: BankRegister, value: u32, mask: u32) {
        let Some(at) = bank.checked_sub(1) else {
            return;
        };
        let Some(spis) = self.state.spis.get_mut(at) else {
            return;
        };
        let changed = spis.write(register, value, mask, &SPI_RULES);
        self.spis_changed(at, changed);
    }

    pub fn read_private(&self, cpu: usize, register: BankRegister) -> u32 {
        self.state.pes[cpu].private.read(register)
    }

    pub fn write_private(&mut self, cpu: usize, register: BankRegister, value: u32, mask: u32) {
        self.pe(cpu)
            .private
            .write(register, value, mask, &PRIVATE_RULES);
        self.update(cpu);
    }

    // Which interrupt a processor is to take

    /// The highest priority pending interrupt of a processor, of the groups that the distributor enables (section 4.6).
    /// One whose group the processor has disabled hides others behind it, as observed on QEMU.
    pub fn candidate(&self, cpu: usize) -> Candidate {
        let pe = &self.state.pes[cpu];
        let group0 = self.state.ctlr & gicd::CTLR_ENABLE_GRP0 != 0;
        let group1 = self.state.ctlr & gicd::CTLR_ENABLE_GRP1 != 0;
        let mut best = Candidate::NONE;
        if !group0 && !group1 {
            return best;
        }
        best.consider(&pe.private, pe.private.ready_in(group0, group1), 0);
        for (i, (bank, routed)) in self.state.spis.iter().zip(&self.routed[cpu]).enumerate() {
            let ready = bank.ready_in(group0, group1) & routed;
            best.consider(bank, ready, FIRST_SPI + i as u32 * 32);
        }
        if group1
            && pe.enable_lpis
            && let Some(&(priority, intid)) = self.ready_lpis[cpu].first()
            && u16::from(priority) < best.priority
        {
            best = Candidate {
                priority: u16::from(priority),
                intid,
                group1: true,
            };
        }
        best
    }

    /// Whether a processor is to take `candidate` now: its group is enabled, it passes the priority mask and preempts what
    /// runs (sections 4.8.3 to 4.8.6).
    pub fn deliverable(&self, cpu: usize, candidate: &Candidate) -> bool {
        let pe = &self.state.pes[cpu];
        (if candidate.group1 {
            pe.igrpen1
        } else {
            pe.igrpen0
        }) && candidate.priority < u16::from(pe.pmr)
            && pe.preempts(candidate)
    }

    /// Derives a processor's lines: group 0 is FIQ, group 1 IRQ.
    pub fn update(&mut self, cpu: usize) {
        let candidate = self.candidate(cpu);
        let levels = match candidate {
            c if !c.is_some() || !self.deliverable(cpu, &c) => 0,
            c if c.group1 => IRQ,
            _ => FIQ,
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
}

/// The positions of the ones.
pub fn ones(mut bits: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(bit)
    })
}
