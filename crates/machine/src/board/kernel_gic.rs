//! An interrupt controller inside the host's kernel, as the board sees any.

use std::sync::Arc;

use device::{Device, Line, Msi};
use engine::KernelController;
use gic::{Frame, InterruptController, v2m};

/// Its inputs are ours; its registers are the kernel's, but for the GICv2m frame, which the kernel does not have.
pub struct KernelGic {
    pub controller: Arc<dyn KernelController>,
    /// Where the frame is.
    pub v2m: Option<u64>,
}

/// A message raises an edge-triggered SPI.
fn pulse(controller: &dyn KernelController, spi: u32) {
    controller.set_spi(spi, true);
    controller.set_spi(spi, false);
}

impl Device for KernelGic {
    fn name(&self) -> &str {
        "gic"
    }

    fn reset(&self) {
        self.controller.reset();
    }
}

impl InterruptController for KernelGic {
    fn frames(&self) -> Vec<Frame> {
        let frame = |base| {
            let controller = self.controller.clone();
            Frame {
                name: "v2m",
                base,
                size: v2m::SIZE,
                mmio: Arc::new(v2m::V2m {
                    raise: move |spi| pulse(&*controller, spi),
                }),
            }
        };
        self.v2m.map(frame).into_iter().collect()
    }

    fn spi(&self, n: u32) -> Line {
        let controller = self.controller.clone();
        Line::new(Arc::new(move |n, level| controller.set_spi(n, level)), n)
    }

    fn ppi(&self, cpu: u32, intid: u32) -> Line {
        let controller = self.controller.clone();
        Line::new(
            Arc::new(move |intid, level| controller.set_ppi(cpu, intid, level)),
            intid,
        )
    }

    fn read_system_register(&self, _cpu: u32, _register: u32) -> Option<u64> {
        None
    }

    fn write_system_register(&self, _cpu: u32, _register: u32, _value: u64) -> Option<()> {
        None
    }

    fn msi(&self, message: Msi) {
        let frame = self.v2m.map(|base| base + v2m::MSI_SETSPI_NS);
        if frame != Some(message.address) {
            self.controller.message(message);
        } else if let Some(spi) = v2m::spi(message.data) {
            pulse(&*self.controller, spi);
        }
    }
}
