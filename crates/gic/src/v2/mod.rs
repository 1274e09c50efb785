//! GICv2 (Arm IHI 0048B), as QEMU's `virt` board has it: no Security Extensions, 256 SPIs, 8 bits of priority, up to
//! eight processors.

mod core;
mod cpu_interface;
pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use device::{Access, Device, Line, LineSink, Mmio, Msi, Registers};
use parking_lot::Mutex;

use self::core::Core;
use self::spec::{MAXIMUM_CPUS, gicc, gicd};
pub use self::state::{Config, Pe, State};
use crate::inputs::Inputs;
use crate::outputs::Outputs;
use crate::{CpuLines, Frame, InterruptController, StateError, v2m};

/// A GICv2.
pub struct Gicv2 {
    me: Weak<Gicv2>,
    config: Arc<Config>,
    core: Mutex<Core>,
    inputs: Inputs,
    outputs: Outputs,
}

/// Why there can be no such GIC.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0} processors: a GICv2 has 1 to {MAXIMUM_CPUS}")]
    Processors(u32),
    #[error("{lines} pairs of interrupt lines for {cpus} processors")]
    Lines { lines: usize, cpus: u32 },
}

impl Gicv2 {
    /// A GIC at power-on. `lines` are each processor's inputs.
    pub fn new(config: Config, lines: Vec<CpuLines>) -> Result<Arc<Gicv2>, ConfigError> {
        let cpus = config.cpus;
        if !(1..=MAXIMUM_CPUS as u32).contains(&cpus) {
            return Err(ConfigError::Processors(cpus));
        }
        if lines.len() != cpus as usize {
            return Err(ConfigError::Lines {
                lines: lines.len(),
                cpus,
            });
        }
        let config = Arc::new(config);
        let outputs = Outputs::new(lines);
        Ok(Arc::new_cyclic(|me| Gicv2 {
            me: me.clone(),
            core: Mutex::new(Core::new(config.clone(), outputs.wanted())),
            config,
            inputs: Inputs::new(cpus as usize),
            outputs,
        }))
    }

    /// What a snapshot is to keep. No processor runs meanwhile, nor do devices drive lines.
    pub fn save(&self) -> State {
        self.core.lock().state.clone()
    }

    /// Goes on from a snapshot, input lines included.
    pub fn restore(&self, state: State) -> Result<(), StateError> {
        self.with(|core| {
            core.restore(state)?;
            let spis = core.state.spis.iter().map(|bank| bank.level);
            self.inputs
                .restore(spis.chain(core.state.pes.iter().map(|pe| pe.private.level)));
            Ok(())
        })
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
}

impl LineSink for Gicv2 {
    fn set(&self, number: u32, level: bool) {
        if let Some(input) = self.inputs.change(number, level) {
            self.with(|core| core.drive(input, level, &self.inputs));
        }
    }
}

impl Device for Gicv2 {
    fn name(&self) -> &str {
        "gicv2"
    }

    /// Input lines keep their levels: they are the devices', which drive them anew as they are reset themselves.
    fn reset(&self) {
        self.with(|core| core.reset(&self.inputs));
    }
}

impl InterruptController for Gicv2 {
    fn frames(&self) -> Vec<Frame> {
        let frame = |name, base, size, kind| Frame {
            name,
            base,
            size,
            mmio: Arc::new(GicFrame {
                gic: self.me.clone(),
                kind,
            }),
        };
        let config = &self.config;
        let mut frames = vec![
            frame(
                "gicd",
                config.distributor,
                gicd::SIZE,
                FrameKind::Distributor,
            ),
            frame(
                "gicc",
                config.cpu_interface,
                gicc::SIZE,
                FrameKind::CpuInterface,
            ),
        ];
        if let Some(base) = config.v2m {
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

    /// A GICv2 has no system registers.
    fn read_system_register(&self, _cpu: u32, _register: u32) -> Option<u64> {
        None
    }

    fn write_system_register(&self, _cpu: u32, _register: u32, _value: u64) -> Option<()> {
        None
    }

    fn msi(&self, message: Msi) {
        let doorbell = self
            .config
            .v2m
            .map(|base| base.wrapping_add(v2m::MSI_SETSPI_NS));
        if Some(message.address) == doorbell
            && let Some(n) = v2m::spi(message.data)
        {
            self.with(|core| core.pulse_spi(n));
        }
    }
}

/// One register frame.
struct GicFrame {
    gic: Weak<Gicv2>,
    kind: FrameKind,
}

enum FrameKind {
    Distributor,
    CpuInterface,
}

impl Registers for GicFrame {
    fn read_register(&self, offset: u64, cpu: u32) -> u32 {
        let Some(gic) = self.gic.upgrade().filter(|gic| cpu < gic.config.cpus) else {
            return 0;
        };
        match self.kind {
            FrameKind::Distributor => gic.core.lock().read_gicd(cpu as usize, offset),
            FrameKind::CpuInterface => gic.with(|core| core.read_gicc(cpu as usize, offset)),
        }
    }

    fn write_register(&self, offset: u64, cpu: u32, value: u32, mask: u32) {
        let Some(gic) = self.gic.upgrade().filter(|gic| cpu < gic.config.cpus) else {
            return;
        };
        gic.with(|core| match self.kind {
            FrameKind::Distributor => core.write_gicd(cpu as usize, offset, value, mask),
            FrameKind::CpuInterface => core.write_gicc(cpu as usize, offset, value, mask),
        });
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
