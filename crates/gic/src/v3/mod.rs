//! GICv3 (Arm IHI 0069H), as QEMU's `virt` board has it: one Security state, affinity routing only, system registers
//! only, 256 SPIs, 32 levels of priority.

mod core;
mod cpu_interface;
mod distributor;
mod its;
mod lpi;
mod redistributor;
pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use device::{Access, Device, Dma, Line, LineSink, Mmio, Msi, Registers};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use self::core::Core;
use self::its::Its;
use self::spec::{gicd, gicr, gits};
pub use self::state::{Config, ItsState, Pe, State, affinity};
use crate::inputs::Inputs;
use crate::outputs::{MAXIMUM_CPUS, Outputs};
use crate::{CpuLines, Frame, InterruptController, StateError, v2m};

/// A GICv3.
///
/// The ITS has a lock of its own, which is taken before the rest's.
pub struct Gicv3 {
    me: Weak<Gicv3>,
    config: Arc<Config>,
    core: Mutex<Core>,
    its: Option<Mutex<Its>>,
    inputs: Inputs,
    outputs: Outputs,
}

/// What a snapshot keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub state: State,
    pub its: Option<ItsState>,
}

/// Why there can be no such GIC.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0} processors: a GICv3 here has 1 to {MAXIMUM_CPUS}")]
    Processors(usize),
    #[error("{lines} pairs of interrupt lines for {cpus} processors")]
    Lines { lines: usize, cpus: usize },
    #[error("two processors have the affinity {0:#x}")]
    Affinity(u32),
    #[error("there is room for {room} redistributors, but there are {cpus} processors")]
    Room { room: u64, cpus: usize },
}

impl Gicv3 {
    /// A GIC at power-on. `lines` are each processor's inputs; `dma` is where LPI and ITS tables are.
    pub fn new(config: Config, lines: Vec<CpuLines>, dma: Dma) -> Result<Arc<Gicv3>, ConfigError> {
        let cpus = config.affinities.len();
        if !(1..=MAXIMUM_CPUS).contains(&cpus) {
            return Err(ConfigError::Processors(cpus));
        }
        if lines.len() != cpus {
            return Err(ConfigError::Lines {
                lines: lines.len(),
                cpus,
            });
        }
        let mut affinities = config.affinities.clone();
        affinities.sort_unstable();
        if let Some(same) = affinities.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::Affinity(same[0]));
        }
        let room = config.redistributors.iter().map(|r| u64::from(r.1)).sum();
        if room < cpus as u64 {
            return Err(ConfigError::Room { room, cpus });
        }
        let config = Arc::new(config);
        let outputs = Outputs::new(lines);
        let its = Its {
            state: ItsState::power_on(),
            dma: dma.clone(),
        };
        Ok(Arc::new_cyclic(|me| Gicv3 {
            me: me.clone(),
            core: Mutex::new(Core::new(config.clone(), dma, outputs.wanted())),
            its: config.its.map(|_| Mutex::new(its)),
            config,
            inputs: Inputs::new(cpus),
            outputs,
        }))
    }

    /// What a snapshot is to keep. No processor runs meanwhile, nor do devices drive lines.
    pub fn save(&self) -> Snapshot {
        let its = self.its.as_ref().map(|its| its.lock().state.clone());
        Snapshot {
            state: self.core.lock().state.clone(),
            its,
        }
    }

    /// Goes on from a snapshot, input lines included.
    pub fn restore(&self, snapshot: Snapshot) -> Result<(), StateError> {
        let (found, expected) = (snapshot.its.is_some().into(), self.its.is_some().into());
        if found != expected {
            return Err(StateError {
                what: "the number of ITSs",
                found,
                expected,
            });
        }
        self.with(|core| {
            core.restore(snapshot.state)?;
            let spis = core.state.spis.iter().map(|bank| bank.level);
            self.inputs
                .restore(spis.chain(core.state.pes.iter().map(|pe| pe.private.level)));
            Ok(())
        })?;
        if let (Some(its), Some(state)) = (&self.its, snapshot.its) {
            its.lock().state = state.checked();
        }
        Ok(())
    }

    /// Changes state under the lock, then drives the lines that are to change.
    fn with<R>(&self, change: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.core.lock();
        let result = change(&mut core);
        let changed = core.changed.take();
        drop(core);
        self.outputs.settle(changed);
        result
    }

    fn line(&self, number: Option<u32>) -> Line {
        match (number, self.me.upgrade()) {
            (Some(number), Some(gic)) => Line::new(gic, number),
            _ => Line::unconnected(),
        }
    }

    /// Lets the ITS execute commands.
    fn run_its(&self, its: &mut Its) {
        let mut budget = its::BUDGET;
        while budget > 0
            && let Some(command) = its.fetch()
        {
            let cost = self.with(|core| its.execute(&command, core));
            budget = budget.saturating_sub(cost);
        }
    }

    /// A device's write to GITS_TRANSLATER.
    fn translate(&self, device: u32, event: u32) {
        let Some(its) = &self.its else { return };
        let its = its.lock();
        if !its.state.enabled {
            return;
        }
        match its.translate(device, event) {
            Ok((cpu, intid)) => self.with(|core| core.lpi_pend(cpu, intid)),
            Err(error) => tracing::debug!(%error, "ITS: message dropped"),
        }
    }

    fn frame(&self, kind: FrameKind) -> Arc<dyn Mmio> {
        Arc::new(GicFrame {
            gic: self.me.clone(),
            kind,
        })
    }
}

impl LineSink for Gicv3 {
    fn set(&self, number: u32, level: bool) {
        if let Some(input) = self.inputs.change(number, level) {
            self.with(|core| core.drive(input, level, &self.inputs));
        }
    }
}

impl Device for Gicv3 {
    fn name(&self) -> &str {
        "gicv3"
    }

    /// Input lines keep their levels: they are the devices', which drive them anew as they are reset themselves.
    fn reset(&self) {
        if let Some(its) = &self.its {
            its.lock().state = ItsState::power_on();
        }
        self.with(|core| core.reset(&self.inputs));
    }
}

impl InterruptController for Gicv3 {
    fn frames(&self) -> Vec<Frame> {
        let frame = |name, base, size, kind| Frame {
            name,
            base,
            size,
            mmio: self.frame(kind),
        };
        let mut frames = vec![frame(
            "gicd",
            self.config.distributor,
            gicd::SIZE,
            FrameKind::Distributor,
        )];
        let (mut first, cpus) = (0, self.config.affinities.len());
        for &(base, room) in &self.config.redistributors {
            let count = (room as usize).min(cpus - first);
            if count > 0 {
                let kind = FrameKind::Redistributors { first };
                frames.push(frame("gicr", base, count as u64 * gicr::SIZE, kind));
            }
            first += count;
        }
        if let Some(base) = self.config.its {
            frames.push(frame("gits", base, gits::SIZE, FrameKind::Its));
        }
        if let Some(base) = self.config.v2m {
            let gic = self.me.clone();
            let raise = move |n| {
                if let Some(gic) = gic.upgrade() {
                    gic.with(|core| core.pulse_spi(n));
                }
            };
            frames.push(Frame {
                name: "v2m",
                base,
                size: v2m::SIZE,
                mmio: Arc::new(v2m::V2m { raise }),
            });
        }
        frames
    }

    fn spi(&self, n: u32) -> Line {
        self.line(Inputs::spi(n))
    }

    fn ppi(&self, cpu: u32, intid: u32) -> Line {
        self.line(self.inputs.ppi(cpu, intid))
    }

    fn read_system_register(&self, cpu: u32, register: u32) -> Option<u64> {
        let cpu = cpu as usize;
        if cpu >= self.config.affinities.len() {
            return None;
        }
        self.with(|core| core.read_icc(cpu, register))
    }

    fn write_system_register(&self, cpu: u32, register: u32, value: u64) -> Option<()> {
        let cpu = cpu as usize;
        if cpu >= self.config.affinities.len() {
            return None;
        }
        self.with(|core| core.write_icc(cpu, register, value))
    }

    fn msi(&self, message: Msi) {
        let is = |base: Option<u64>, offset| {
            base.is_some_and(|b| message.address == b.wrapping_add(offset))
        };
        if is(self.config.v2m, v2m::MSI_SETSPI_NS) {
            if let Some(n) = v2m::spi(message.data) {
                self.with(|core| core.pulse_spi(n));
            }
        } else if is(self.config.its, gits::TRANSLATER) {
            self.translate(message.device, message.data);
        } else if self.config.message_based_spis {
            if is(Some(self.config.distributor), gicd::SETSPI_NSR) {
                self.with(|core| core.message(message.data & 0x1fff, true));
            } else if is(Some(self.config.distributor), gicd::CLRSPI_NSR) {
                self.with(|core| core.message(message.data & 0x1fff, false));
            }
        }
    }
}

/// One register frame.
struct GicFrame {
    gic: Weak<Gicv3>,
    kind: FrameKind,
}

enum FrameKind {
    Distributor,
    /// A region of redistributors; the first one's processor.
    Redistributors {
        first: usize,
    },
    Its,
}

/// The processor of a redistributor's register, and the offset in its frames.
fn redistributor(gic: &Gicv3, first: usize, offset: u64) -> Option<(usize, u64)> {
    let cpu = usize::try_from(offset / gicr::SIZE)
        .ok()?
        .checked_add(first)?;
    (cpu < gic.config.affinities.len()).then_some((cpu, offset % gicr::SIZE))
}

impl Registers for GicFrame {
    fn read_register(&self, offset: u64, _cpu: u32) -> u32 {
        let Some(gic) = self.gic.upgrade() else {
            return 0;
        };
        match self.kind {
            FrameKind::Distributor => gic.core.lock().read_gicd(offset),
            FrameKind::Redistributors { first } => redistributor(&gic, first, offset)
                .map_or(0, |(cpu, offset)| gic.core.lock().read_gicr(cpu, offset)),
            FrameKind::Its => gic.its.as_ref().map_or(0, |its| {
                let mut its = its.lock();
                gic.run_its(&mut its);
                its.read(offset)
            }),
        }
    }

    fn write_register(&self, offset: u64, _cpu: u32, value: u32, mask: u32) {
        let Some(gic) = self.gic.upgrade() else {
            return;
        };
        match self.kind {
            FrameKind::Distributor => gic.with(|core| core.write_gicd(offset, value, mask)),
            FrameKind::Redistributors { first } => {
                if let Some((cpu, offset)) = redistributor(&gic, first, offset) {
                    gic.with(|core| core.write_gicr(cpu, offset, value, mask));
                }
            }
            // A processor has no DeviceID: its writes of GITS_TRANSLATER come to nothing.
            FrameKind::Its => {
                if let Some(its) = &gic.its {
                    let mut its = its.lock();
                    its.write(offset, value, mask);
                    gic.run_its(&mut its);
                }
            }
        }
    }
}

impl Mmio for GicFrame {
    fn read(&self, access: Access) -> u64 {
        self.read_any(access)
    }

    fn write(&self, access: Access, value: u64) {
        self.write_any(access, value);
    }
}
