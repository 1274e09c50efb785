//! What processors find around them.

use std::sync::{Arc, OnceLock};

use device::Line;
use engine::psci::{Psci, SystemRequest};
use engine::{CallOutcome, World};
use gic::InterruptController;
use memory::AddressSpace;

/// Called when the guest ends or resets the machine. Set once it runs.
pub type SystemHook = Arc<OnceLock<Box<dyn Fn(SystemRequest) + Send + Sync>>>;

/// INTIDs of private interrupts begin here.
const FIRST_PPI: u32 = 16;

/// The board, as a processor sees it.
pub struct Wiring {
    space: Arc<AddressSpace>,
    gic: Arc<dyn InterruptController>,
    pub psci: Psci,
    /// Private interrupt lines, sixteen a processor.
    private: Vec<Line>,
}

impl Wiring {
    pub fn new(
        space: Arc<AddressSpace>,
        gic: Arc<dyn InterruptController>,
        psci: Psci,
        cpus: u32,
    ) -> Wiring {
        let private = (0..cpus).flat_map(|cpu| (FIRST_PPI..32).map(move |intid| (cpu, intid)));
        let private = private.map(|(cpu, intid)| gic.ppi(cpu, intid)).collect();
        Wiring {
            space,
            gic,
            psci,
            private,
        }
    }
}

impl World for Wiring {
    fn space(&self) -> &AddressSpace {
        &self.space
    }

    fn read_system_register(&self, cpu: u32, register: u16) -> Option<u64> {
        self.gic.read_system_register(cpu, register.into())
    }

    fn write_system_register(&self, cpu: u32, register: u16, value: u64) -> Option<()> {
        self.gic.write_system_register(cpu, register.into(), value)
    }

    fn private_interrupt(&self, cpu: u32, intid: u32, level: bool) {
        if (FIRST_PPI..32).contains(&intid)
            && let Some(line) = self.private.get((cpu * 16 + intid - FIRST_PPI) as usize)
        {
            line.set(level);
        }
    }

    fn call(&self, cpu: u32, x: &mut [u64; 18]) -> CallOutcome {
        self.psci.call(cpu, x)
    }
}
