//! The in-kernel interrupt controller (devices/arm-vgic.rst, arm-vgic-v3.rst, arm-vgic-its.rst).

use std::sync::Arc;

use kvm_bindings as k;
use kvm_ioctls::{DeviceFd, VmFd};

use super::host;
use crate::{Config, Error, GicPlan, KernelController};

/// INTIDs: as many as the board's own controllers have.
const INTERRUPTS: u32 = 288;
/// The first SPI's INTID.
const FIRST_SPI: u32 = 32;

/// Registers, by their offsets, that a reset brings to zero (or, of the clearing kind, is done by ones).
mod reg {
    pub const CTLR: u64 = 0x000;
    /// GICD_ISPENDR and GICD_ICPENDR and so on: a word for 32 interrupts.
    pub const IGROUPR: u64 = 0x080;
    pub const ICENABLER: u64 = 0x180;
    pub const ISPENDR: u64 = 0x200;
    pub const ICPENDR: u64 = 0x280;
    pub const ICACTIVER: u64 = 0x380;
    /// A byte an interrupt.
    pub const IPRIORITYR: u64 = 0x400;
    /// A byte an interrupt: GICv2's targets. Those of private interrupts cannot be written.
    pub const ITARGETSR: u64 = 0x800;
    /// Two bits an interrupt: level or edge.
    pub const ICFGR: u64 = 0xc00;
    /// Eight bytes an interrupt, from the first SPI's on: GICv3's targets.
    pub const IROUTER: u64 = 0x6000;
    /// Of redistributors; eight bytes each.
    pub const PROPBASER: u64 = 0x70;
    pub const PENDBASER: u64 = 0x78;
    /// Redistributors' second frame.
    pub const SGI_FRAME: u64 = 0x1_0000;
}

/// ICC_CTLR_EL1's CBPR and EOImode: all of it that can be written.
const CONTROLS: u64 = 0b11;
/// GICC_CTLR, GICC_PMR, GICC_BPR, GICC_ABPR, GICC_APR0.
const V2_INTERFACE: [u64; 5] = [0x00, 0x04, 0x08, 0x1c, 0xd0];

/// ICC registers that a reset brings to zero, by their encodings.
const INTERFACE: [u64; 7] = [
    aarch64::registers::ICC_PMR_EL1 as u64,
    aarch64::registers::ICC_BPR0_EL1 as u64,
    aarch64::registers::ICC_IGRPEN0_EL1 as u64,
    aarch64::registers::ICC_IGRPEN1_EL1 as u64,
    aarch64::registers::ICC_AP0R0_EL1 as u64,
    aarch64::registers::ICC_AP1R0_EL1 as u64,
    aarch64::registers::ICC_BPR1_EL1 as u64,
];

pub struct KernelGic {
    vm: Arc<VmFd>,
    device: DeviceFd,
    its: Option<DeviceFd>,
    /// Affinities as the kernel's attributes take them, one a processor; of GICv2, numbers.
    processors: Vec<u64>,
    v3: bool,
}

impl KernelGic {
    /// Creates it where the board wants it; [`KernelGic::start`] is to follow once all vCPUs are there.
    pub fn new(vm: Arc<VmFd>, config: &Config) -> Result<KernelGic, Error> {
        let create = |kind: u32| {
            let mut device = k::kvm_create_device {
                type_: kind,
                fd: 0,
                flags: 0,
            };
            vm.create_device(&mut device)
        };
        let v2_only = |error: kvm_ioctls::Error| match error.errno() {
            libc::ENODEV => Error::Unavailable(
                "this host's KVM has no interrupt controller of that version: try the other \
                 (-machine gic-version=2 or 3), or -accel jit"
                    .into(),
            ),
            _ => Error::Host(format!("KVM_CREATE_DEVICE: {error}")),
        };
        let (device, its, v3) = match &config.gic {
            GicPlan::V2 {
                distributor,
                cpu_interface,
            } => {
                let device =
                    create(k::kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2).map_err(v2_only)?;
                address(&device, k::KVM_VGIC_V2_ADDR_TYPE_DIST, *distributor)?;
                address(&device, k::KVM_VGIC_V2_ADDR_TYPE_CPU, *cpu_interface)?;
                (device, None, false)
            }
            GicPlan::V3 {
                distributor,
                redistributors,
                its,
            } => {
                let device =
                    create(k::kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3).map_err(v2_only)?;
                address(&device, k::KVM_VGIC_V3_ADDR_TYPE_DIST, *distributor)?;
                let mut left = config.mpidrs.len() as u64;
                for (index, (base, room)) in (0u64..).zip(redistributors) {
                    let count = u64::from(*room).min(left);
                    if count > 0 {
                        // Count, base, index of the region.
                        let region = count << 52 | base | index;
                        address(&device, k::KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, region)?;
                    }
                    left -= count;
                }
                let its = match its {
                    None => None,
                    Some(base) => {
                        let its = create(k::kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS)
                            .map_err(host("KVM_CREATE_DEVICE of an ITS"))?;
                        address(&its, k::KVM_VGIC_ITS_ADDR_TYPE, *base)?;
                        Some(its)
                    }
                };
                (device, its, true)
            }
        };
        let affinity = |mpidr: u64| mpidr & 0xff_ffff | (mpidr >> 32 & 0xff) << 24;
        let processors = (0u64..)
            .zip(&config.mpidrs)
            .map(|(index, mpidr)| if v3 { affinity(*mpidr) } else { index })
            .collect();
        Ok(KernelGic {
            vm,
            device,
            its,
            processors,
            v3,
        })
    }

    /// After all vCPUs were created.
    pub fn start(&self) -> Result<(), Error> {
        let interrupts = INTERRUPTS;
        attribute(
            &self.device,
            k::KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
            0,
            (&raw const interrupts) as u64,
        )?;
        for device in [Some(&self.device), self.its.as_ref()]
            .into_iter()
            .flatten()
        {
            attribute(
                device,
                k::KVM_DEV_ARM_VGIC_GRP_CTRL,
                k::KVM_DEV_ARM_VGIC_CTRL_INIT.into(),
                0,
            )?;
        }
        Ok(())
    }

    fn line(&self, kind: u32, cpu: u32, intid: u32, level: bool) {
        let line = cpu >> 8 << 28 | kind << k::KVM_ARM_IRQ_TYPE_SHIFT | (cpu & 0xff) << 16 | intid;
        if let Err(error) = self.vm.set_irq_line(line, level) {
            tracing::debug!(intid, %error, "KVM_IRQ_LINE");
        }
    }

    fn write(&self, group: u32, processor: u64, offset: u64, value: u32) -> Result<(), Error> {
        let attr = processor << k::KVM_DEV_ARM_VGIC_CPUID_SHIFT | offset;
        attribute(&self.device, group, attr, (&raw const value) as u64)
    }

    /// GICv3: an ICC register.
    fn write_interface(&self, processor: u64, register: u64, value: u64) -> Result<(), Error> {
        let attr = processor << k::KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT | register;
        let group = k::KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS;
        attribute(&self.device, group, attr, (&raw const value) as u64)
    }

    fn read_interface(&self, processor: u64, register: u64) -> Result<u64, Error> {
        let mut value = 0u64;
        let mut attribute = k::kvm_device_attr {
            group: k::KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
            attr: processor << k::KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT | register,
            addr: (&raw mut value) as u64,
            flags: 0,
        };
        // SAFETY: the address is of a value of the size that this group has.
        unsafe { self.device.get_device_attr(&mut attribute) }
            .map_err(host("KVM_GET_DEVICE_ATTR"))?;
        Ok(value)
    }

    /// One bank of 32 interrupts: disabled, neither pending nor active, of group 0 and the highest priority.
    fn clear(&self, group: u32, processor: u64, base: u64, bank: u64) -> Result<(), Error> {
        for (register, value) in [
            (reg::ICENABLER, u32::MAX),
            (reg::ISPENDR, 0),
            (reg::ICPENDR, u32::MAX),
            (reg::ICACTIVER, u32::MAX),
            (reg::IGROUPR, 0),
        ] {
            self.write(group, processor, base + register + bank * 4, value)?;
        }
        for word in 0..8 {
            let offset = base + reg::IPRIORITYR + bank * 32 + word * 4;
            self.write(group, processor, offset, 0)?;
        }
        Ok(())
    }

    fn clear_all(&self) -> Result<(), Error> {
        let distributor = k::KVM_DEV_ARM_VGIC_GRP_DIST_REGS;
        self.write(distributor, 0, reg::CTLR, 0)?;
        for bank in 1..u64::from(INTERRUPTS / 32) {
            self.clear(distributor, 0, 0, bank)?;
            for word in 0..2 {
                self.write(distributor, 0, reg::ICFGR + bank * 8 + word * 4, 0)?;
            }
            let (targets, bytes) = if self.v3 {
                (reg::IROUTER, 8)
            } else {
                (reg::ITARGETSR, 1)
            };
            for word in 0..8 * bytes {
                let offset = targets + bank * 32 * bytes + word * 4;
                self.write(distributor, 0, offset, 0)?;
            }
        }
        if let Some(its) = &self.its {
            let reset = k::KVM_DEV_ARM_ITS_CTRL_RESET.into();
            attribute(its, k::KVM_DEV_ARM_VGIC_GRP_CTRL, reset, 0)?;
        }
        for &processor in &self.processors {
            if self.v3 {
                let redistributor = k::KVM_DEV_ARM_VGIC_GRP_REDIST_REGS;
                // Its tables can be moved once its LPIs are off.
                self.write(redistributor, processor, reg::CTLR, 0)?;
                for base in [reg::PROPBASER, reg::PENDBASER] {
                    for word in 0..2 {
                        self.write(redistributor, processor, base + word * 4, 0)?;
                    }
                }
                self.clear(redistributor, processor, reg::SGI_FRAME, 0)?;
                for register in INTERFACE {
                    self.write_interface(processor, register, 0)?;
                }
                // The rest of it says what the hardware has, and must be as it is.
                let control = aarch64::registers::ICC_CTLR_EL1.into();
                let value = self.read_interface(processor, control)?;
                self.write_interface(processor, control, value & !CONTROLS)?;
            } else {
                self.clear(distributor, processor, 0, 0)?;
                for register in V2_INTERFACE {
                    self.write(k::KVM_DEV_ARM_VGIC_GRP_CPU_REGS, processor, register, 0)?;
                }
            }
        }
        Ok(())
    }
}

fn attribute(device: &DeviceFd, group: u32, attr: u64, addr: u64) -> Result<(), Error> {
    let attribute = k::kvm_device_attr {
        group,
        attr,
        addr,
        flags: 0,
    };
    device.set_device_attr(&attribute).map_err(|error| {
        Error::Host(format!(
            "KVM_SET_DEVICE_ATTR, group {group}, attribute {attr:#x}: {error}"
        ))
    })
}

fn address(device: &DeviceFd, kind: u32, value: u64) -> Result<(), Error> {
    attribute(
        device,
        k::KVM_DEV_ARM_VGIC_GRP_ADDR,
        kind.into(),
        (&raw const value) as u64,
    )
}

impl KernelController for KernelGic {
    fn set_spi(&self, n: u32, level: bool) {
        self.line(k::KVM_ARM_IRQ_TYPE_SPI, 0, FIRST_SPI + n, level);
    }

    fn set_ppi(&self, cpu: u32, intid: u32, level: bool) {
        self.line(k::KVM_ARM_IRQ_TYPE_PPI, cpu, intid, level);
    }

    fn message(&self, message: device::Msi) {
        let msi = k::kvm_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            flags: k::KVM_MSI_VALID_DEVID,
            devid: message.device,
            ..Default::default()
        };
        if let Err(error) = self.vm.signal_msi(msi) {
            tracing::debug!(%error, "KVM_SIGNAL_MSI");
        }
    }

    fn reset(&self) {
        if let Err(error) = self.clear_all() {
            tracing::error!(%error, "resetting the interrupt controller");
        }
    }
}
