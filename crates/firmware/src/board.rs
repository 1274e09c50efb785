//! The board in plain data: what there is, where it lies and which interrupt it has.
//!
//! Interrupts are INTIDs throughout: shared ones from 32 on, per-processor ones (PPIs) from 16 to 31.

use serde::{Deserialize, Serialize};

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

impl Range {
    /// `size` bytes from `base` on.
    pub const fn new(base: u64, size: u64) -> Range {
        Range { base, size }
    }

    /// One past the last address. A range never reaches the end of the address space.
    pub const fn end(self) -> u64 {
        self.base + self.size
    }

    /// Whether any address is in both.
    pub const fn overlaps(self, other: Range) -> bool {
        self.base < other.end() && other.base < self.end()
    }
}

/// A device with one range of registers and one interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peripheral {
    pub registers: Range,
    /// INTID.
    pub interrupt: u32,
}

/// A processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Affinity fields of MPIDR_EL1.
    pub mpidr: u64,
    /// Device tree `compatible`, such as `arm,cortex-a57`.
    pub compatible: String,
}

/// How processors are grouped; the product is at least their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub sockets: u32,
    /// Clusters a socket.
    pub clusters: u32,
    /// Cores a cluster.
    pub cores: u32,
    /// Threads a core.
    pub threads: u32,
}

/// The interrupt controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gic {
    V2 {
        distributor: Range,
        cpu_interface: Range,
    },
    V3 {
        distributor: Range,
        redistributors: Vec<Range>,
    },
}

/// How message-signalled interrupts arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Msi {
    None,
    /// A GICv2m frame and the INTIDs it raises.
    V2m {
        frame: Range,
        first: u32,
        count: u32,
    },
    Its {
        registers: Range,
    },
}

/// PPIs of the generic timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    pub secure: u32,
    pub non_secure: u32,
    pub virtual_: u32,
    pub hypervisor: u32,
}

/// The PCIe host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pcie {
    /// 1 MiB a bus, from bus 0 on.
    pub ecam: Range,
    /// I/O ports 0 and up.
    pub io: Range,
    /// Window below 4 GiB.
    pub memory32: Range,
    /// Window above.
    pub memory64: Option<Range>,
    /// INTIDs of INTA to INTD of slot 0.
    pub interrupts: [u32; 4],
}

impl Pcie {
    /// Buses that the ECAM window covers.
    pub fn buses(&self) -> u32 {
        (self.ecam.size >> 20) as u32
    }

    /// The INTID of pin 0–3 (INTA–INTD) of a slot: swizzled (PCI-to-PCI Bridge Architecture 1.2, 9.1).
    pub fn interrupt(&self, slot: u32, pin: u32) -> u32 {
        self.interrupts[((slot + pin) % 4) as usize]
    }
}

/// What presses the power button.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerButton {
    /// PL061, pin 3: with a device tree.
    Gpio(Peripheral),
    /// Generic event device: with ACPI.
    Ged(Peripheral),
}

/// A TPM 2.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tpm {
    pub interface: TpmInterface,
    pub registers: Range,
}

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TpmInterface {
    /// Command response buffer.
    Crb,
    /// FIFO.
    Tis,
}

/// How PSCI is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conduit {
    Hvc,
    Smc,
}

/// Everything that tables and trees tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    pub cpus: Vec<Cpu>,
    pub topology: Topology,
    /// RAM, in order of addresses.
    pub memory: Vec<Range>,
    pub psci: Conduit,
    pub gic: Gic,
    pub msi: Msi,
    pub timers: Timers,
    /// PPI of the performance monitors, if there are any.
    pub pmu: Option<u32>,
    pub flash: Option<[Range; 2]>,
    pub uart: Peripheral,
    pub rtc: Peripheral,
    pub fw_cfg: Range,
    pub power_button: Option<PowerButton>,
    pub pcie: Option<Pcie>,
    /// Where platform devices such as the TPM lie.
    pub platform_bus: Option<Range>,
    pub tpm: Option<Tpm>,
}

/// INTID of shared peripheral interrupt `n`.
pub const fn spi(n: u32) -> u32 {
    32 + n
}

impl Board {
    /// Where RAM starts.
    pub const RAM_BASE: u64 = 0x4000_0000;

    /// The `virt` board with `cpus` processors in one cluster and `ram` bytes of RAM: GICv3, GICv2m frame, ACPI's
    /// power button, everything above 4 GiB that may be.
    pub fn virt(cpus: u32, ram: u64) -> Board {
        let peripheral = |base, n| Peripheral {
            registers: Range::new(base, 0x1000),
            interrupt: spi(n),
        };
        let cpu = |i: u64| Cpu {
            // Sixteen to an Aff0, as target lists of SGIs want it.
            mpidr: ((i / 16) << 8) | (i % 16),
            compatible: "arm,arm-v8".into(),
        };
        let redistributors = |base, most: u64, n| Range::new(base, 0x2_0000 * most.min(n));
        let mut regions = vec![redistributors(0x080a_0000, 123, u64::from(cpus).max(123))];
        if cpus > 123 {
            regions.push(redistributors(0x40_0000_0000, 512, u64::from(cpus) - 123));
        }
        Board {
            cpus: (0..u64::from(cpus)).map(cpu).collect(),
            topology: Topology {
                sockets: 1,
                clusters: 1,
                cores: cpus,
                threads: 1,
            },
            memory: vec![Range::new(Board::RAM_BASE, ram)],
            psci: Conduit::Hvc,
            gic: Gic::V3 {
                distributor: Range::new(0x0800_0000, 0x1_0000),
                redistributors: regions,
            },
            msi: Msi::V2m {
                frame: Range::new(0x0802_0000, 0x1000),
                first: 80,
                count: 64,
            },
            timers: Timers {
                secure: 29,
                non_secure: 30,
                virtual_: 27,
                hypervisor: 26,
            },
            pmu: Some(23),
            flash: Some([Range::new(0, 64 << 20), Range::new(64 << 20, 64 << 20)]),
            uart: peripheral(0x0900_0000, 1),
            rtc: peripheral(0x0901_0000, 2),
            fw_cfg: Range::new(0x0902_0000, 0x18),
            power_button: Some(PowerButton::Ged(Peripheral {
                registers: Range::new(0x0908_0000, 4),
                interrupt: spi(9),
            })),
            pcie: Some(Pcie {
                ecam: Range::new(0x40_1000_0000, 256 << 20),
                io: Range::new(0x3eff_0000, 64 << 10),
                memory32: Range::new(0x1000_0000, 0x2eff_0000),
                memory64: Some(Range::new(0x80_0000_0000, 512 << 30)),
                interrupts: [spi(3), spi(4), spi(5), spi(6)],
            }),
            platform_bus: Some(Range::new(0x0c00_0000, 32 << 20)),
            tpm: None,
        }
    }

    /// The PL061 with the power button on pin 3, which machines without ACPI have in the place of the GED.
    pub const GPIO: Peripheral = Peripheral {
        registers: Range::new(0x0903_0000, 0x1000),
        interrupt: spi(7),
    };

    /// GICv2's registers.
    pub const GIC_V2: Gic = Gic::V2 {
        distributor: Range::new(0x0800_0000, 0x1_0000),
        cpu_interface: Range::new(0x0801_0000, 0x1_0000),
    };

    /// The ITS.
    pub const ITS: Msi = Msi::Its {
        registers: Range::new(0x0808_0000, 0x2_0000),
    };

    /// The ECAM window below 4 GiB: buses 0–15.
    pub const LOW_ECAM: Range = Range::new(0x3f00_0000, 16 << 20);

    /// Bytes of RAM.
    pub fn ram_size(&self) -> u64 {
        self.memory.iter().map(|r| r.size).sum()
    }
}
