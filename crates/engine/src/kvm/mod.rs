//! Virtual machines on Linux's KVM for Arm (Documentation/virt/kvm/api.rst and devices/arm-*.rst of the kernel).
//!
//! The interrupt controller, the timers, the performance monitors and PSCI are the kernel's. Accesses that the hardware gives
//! no syndrome for come to us (KVM_CAP_ARM_NISV_TO_USER) and are completed by a shadow processor of `dormer-cpu`.
#![allow(unsafe_code)] // guest memory by host address, the thread's signal, and the kernel's union of exits

mod gic;
mod registers;
mod thread;
mod vcpu;

use std::collections::HashMap;
use std::sync::Arc;

use aarch64::Extension;
use kvm_bindings as k;
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use parking_lot::Mutex;

use self::gic::KernelGic;
use self::thread::Thread;
use crate::regions::{Region, Regions};
use crate::tracking::{self, Tracking};
use crate::{AddressBits, Config, Engine, Error, InterruptController, Vcpu, Vm};

/// The engine.
pub struct KvmEngine;

/// Without KVM_CAP_ARM_VM_IPA_SIZE, and for a machine type of 0.
const DEFAULT_BITS: u32 = 40;
/// More is LPA2, which guests do not get.
const MOST_BITS: u32 = 48;
/// INTID of the performance monitors' interrupt.
const PMU_INTERRUPT: i32 = 23;

/// An error of the kernel's in words.
fn host(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |error| Error::Host(format!("{what}: {error}"))
}

/// Why KVM cannot be used here; `None` if it can.
pub fn missing() -> Option<String> {
    match Kvm::new() {
        Ok(kvm) if kvm.get_api_version() != 12 => Some(format!(
            "/dev/kvm speaks version {} of its interface, not 12",
            kvm.get_api_version()
        )),
        Ok(kvm) if !kvm.check_extension(Cap::OneReg) => {
            Some("this kernel's KVM gives no access to registers (KVM_CAP_ONE_REG)".into())
        }
        Ok(_) => None,
        Err(error) => Some(match error.errno() {
            libc::ENOENT => "/dev/kvm is not there: the kernel has no KVM, or the processor starts it without EL2".into(),
            libc::EACCES | libc::EPERM => {
                "no permission for /dev/kvm: `sudo usermod -aG kvm $USER`, then log in again".into()
            }
            _ => format!("/dev/kvm: {error}"),
        }),
    }
}

fn address_bits(kvm: &Kvm) -> u32 {
    let limit = kvm.get_host_ipa_limit();
    if limit > 0 {
        (limit as u32).min(MOST_BITS)
    } else {
        DEFAULT_BITS
    }
}

impl Engine for KvmEngine {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn address_bits(&self) -> AddressBits {
        let most = Kvm::new().map_or(DEFAULT_BITS, |kvm| address_bits(&kvm));
        AddressBits {
            most,
            preferred: most,
        }
    }

    fn create(&self, config: Config) -> Result<Arc<dyn Vm>, Error> {
        let kvm = Kvm::new().map_err(host("/dev/kvm"))?;
        if config.features.name != "max" {
            return Err(Error::Unavailable(format!(
                "KVM has the host's processor only, not '{}': give -cpu host",
                config.features.name
            )));
        }
        let bits = config.address_bits;
        if bits > address_bits(&kvm) {
            return Err(Error::Unavailable(format!(
                "the machine needs {bits} bits of guest-physical addresses; this host has {}",
                address_bits(&kvm)
            )));
        }
        // Kernels that cannot be told have one size, which 0 stands for.
        let vm = match kvm.get_host_ipa_limit() {
            limit if limit > 0 => kvm.create_vm_with_ipa_size(bits.max(32)),
            _ => kvm.create_vm(),
        }
        .map_err(host("KVM_CREATE_VM"))?;
        let vm = Arc::new(vm);
        let describes = enable_nisv(&vm);
        let mut vcpus = Vec::new();
        let features = Features::find(&vm, &config);
        for (index, mpidr) in (0u64..).zip(&config.mpidrs) {
            let vcpu = vm.create_vcpu(index).map_err(host("KVM_CREATE_VCPU"))?;
            let init = features.init(&vm, index != 0)?;
            vcpu.vcpu_init(&init).map_err(host("KVM_ARM_VCPU_INIT"))?;
            registers::set_mpidr(&vcpu, *mpidr)?;
            vcpus.push(Some((vcpu, init)));
        }
        let gic = Arc::new(KernelGic::new(vm.clone(), &config)?);
        gic.start()?;
        // After the interrupt controller that takes their interrupt (devices/vcpu.rst).
        if features.pmu {
            for (vcpu, _) in vcpus.iter().flatten() {
                start_pmu(vcpu)?;
            }
        }
        let threads = config.mpidrs.iter().map(|_| Arc::default()).collect();
        Ok(Arc::new(KvmVm(Arc::new(Shared {
            vm,
            gic,
            regions: Regions::new(page_size()),
            tracking: Tracking::new(page_size()),
            slots: Mutex::default(),
            threads,
            vcpus: Mutex::new(vcpus),
            describes,
            counter: Mutex::new(None),
            config,
        }))))
    }
}

/// Has accesses without a syndrome come to us; whether they do.
fn enable_nisv(vm: &VmFd) -> bool {
    if vm.check_extension_raw(k::KVM_CAP_ARM_NISV_TO_USER.into()) <= 0 {
        return false;
    }
    let capability = k::kvm_enable_cap {
        cap: k::KVM_CAP_ARM_NISV_TO_USER,
        ..Default::default()
    };
    vm.enable_cap(&capability).is_ok()
}

/// What a vCPU is made with.
struct Features {
    pmu: bool,
    pauth: bool,
}

impl Features {
    fn find(vm: &VmFd, config: &Config) -> Features {
        let has = |capability: u32| vm.check_extension_raw(capability.into()) > 0;
        let pmu = config.features.pmu && has(k::KVM_CAP_ARM_PMU_V3);
        if config.features.pmu && !pmu {
            tracing::warn!(
                "this host's KVM has no performance monitors: guests that need them will not find them"
            );
        }
        Features {
            pmu,
            pauth: config.features.has(Extension::PAuth)
                && has(k::KVM_CAP_ARM_PTRAUTH_ADDRESS)
                && has(k::KVM_CAP_ARM_PTRAUTH_GENERIC),
        }
    }

    fn init(&self, vm: &VmFd, off: bool) -> Result<k::kvm_vcpu_init, Error> {
        let mut init = k::kvm_vcpu_init::default();
        vm.get_preferred_target(&mut init)
            .map_err(host("KVM_ARM_PREFERRED_TARGET"))?;
        let mut wanted = vec![k::KVM_ARM_VCPU_PSCI_0_2];
        if off {
            wanted.push(k::KVM_ARM_VCPU_POWER_OFF);
        }
        if self.pmu {
            wanted.push(k::KVM_ARM_VCPU_PMU_V3);
        }
        if self.pauth {
            wanted.extend([
                k::KVM_ARM_VCPU_PTRAUTH_ADDRESS,
                k::KVM_ARM_VCPU_PTRAUTH_GENERIC,
            ]);
        }
        for feature in wanted {
            init.features[0] |= 1 << feature;
        }
        Ok(init)
    }
}

/// The performance monitors' interrupt, which the in-kernel interrupt controller takes (devices/vcpu.rst).
fn start_pmu(vcpu: &VcpuFd) -> Result<(), Error> {
    let interrupt = PMU_INTERRUPT;
    let attribute = |attr: u32, addr: u64| k::kvm_device_attr {
        group: k::KVM_ARM_VCPU_PMU_V3_CTRL,
        attr: attr.into(),
        addr,
        flags: 0,
    };
    vcpu.set_device_attr(&attribute(
        k::KVM_ARM_VCPU_PMU_V3_IRQ,
        (&raw const interrupt) as u64,
    ))
    .map_err(host("KVM_ARM_VCPU_PMU_V3_IRQ"))?;
    vcpu.set_device_attr(&attribute(k::KVM_ARM_VCPU_PMU_V3_INIT, 0))
        .map_err(host("KVM_ARM_VCPU_PMU_V3_INIT"))
}

fn page_size() -> u64 {
    // SAFETY: no argument but a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096).max(4096)
}

/// A created vCPU and how it is reset, until its thread takes it.
type Waiting = Option<(VcpuFd, k::kvm_vcpu_init)>;

struct Shared {
    vm: Arc<VmFd>,
    gic: Arc<KernelGic>,
    config: Config,
    regions: Regions,
    tracking: Tracking,
    /// By address. Held while logs are read, so that nothing of them is on its way between two threads.
    slots: Mutex<HashMap<u64, Slot>>,
    threads: Vec<Arc<Thread>>,
    vcpus: Mutex<Vec<Waiting>>,
    /// Accesses without a syndrome come to us.
    describes: bool,
    /// [`device::Clock::stopped`] when the guest's counter was last set.
    counter: Mutex<Option<u64>>,
}

/// A memory slot of the kernel's.
struct Slot {
    number: u32,
    region: Region,
    /// The kernel notes its pages that are written.
    logged: bool,
}

impl Slot {
    /// Has the kernel take it as it is here.
    fn set(&self, vm: &VmFd) -> Result<(), Error> {
        let region = &self.region;
        let mut flags = 0;
        if !region.writable {
            flags |= k::KVM_MEM_READONLY;
        }
        if self.logged {
            flags |= k::KVM_MEM_LOG_DIRTY_PAGES;
        }
        let memory = k::kvm_userspace_memory_region {
            slot: self.number,
            flags,
            guest_phys_addr: region.start,
            // A slot of no size is one that is not there.
            memory_size: if region.mapped { region.size } else { 0 },
            userspace_addr: region.host as u64,
        };
        // SAFETY: the memory stays valid until it is unmapped, as `Vm::map` says.
        unsafe { vm.set_user_memory_region(memory) }.map_err(host("KVM_SET_USER_MEMORY_REGION"))
    }

    /// Notes what the kernel's log has of it, which is empty from here on (api.rst, "KVM_GET_DIRTY_LOG").
    fn read_log(&self, vm: &VmFd, tracking: &Tracking) -> Result<(), Error> {
        let log = vm
            .get_dirty_log(self.number, self.region.size as usize)
            .map_err(host("KVM_GET_DIRTY_LOG"))?;
        let page = page_size();
        for (word, mut bits) in (0u64..).zip(log) {
            while bits != 0 {
                let index = word * 64 + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                tracking.wrote(self.region.start + index * page, |_, _| Ok(()))?;
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Has the kernel's memory slots be as `region` says.
    fn change(&self, region: &Region) -> Result<(), Error> {
        let mut slots = self.slots.lock();
        let next = slots.len() as u32;
        let slot = slots.entry(region.start).or_insert(Slot {
            number: next,
            region: *region,
            logged: false,
        });
        slot.region = *region;
        slot.set(&self.vm)
    }

    /// [`Vm::track_writes`]: the kernel logs a slot for as long as any of it is tracked.
    fn track(&self, start: u64, size: u64) -> Result<(), Error> {
        let refusal = || tracking::not_memory(start, size);
        let region = self.regions.writable(start, size).ok_or_else(refusal)?;
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&region.start).ok_or_else(refusal)?;
        if slot.logged {
            // Written before, which is for the other spans only.
            slot.read_log(&self.vm, &self.tracking)?;
        }
        self.tracking.add(start, size, || {
            let logged = std::mem::replace(&mut slot.logged, true);
            if logged {
                return Ok(());
            }
            let set = slot.set(&self.vm);
            slot.logged = set.is_ok();
            set
        })
    }

    fn track_no_longer(&self, start: u64, size: u64) -> Result<(), Error> {
        let mut slots = self.slots.lock();
        self.tracking.remove(start, size, |_, _| Ok(()))?;
        for slot in slots.values_mut().filter(|slot| slot.logged) {
            if !self.tracking.any(slot.region.start, slot.region.size) {
                slot.logged = false;
                slot.set(&self.vm)?;
            }
        }
        Ok(())
    }

    fn take(&self, start: u64, size: u64) -> Result<Vec<(u64, u64)>, Error> {
        let slots = self.slots.lock();
        for slot in slots.values().filter(|slot| slot.logged) {
            slot.read_log(&self.vm, &self.tracking)?;
        }
        let within = start..start.saturating_add(size);
        self.tracking.take(within, |_, _| Ok(()))
    }

    fn frequency(&self) -> u64 {
        frequency()
    }
}

/// CNTFRQ_EL0.
fn frequency() -> u64 {
    let value: u64;
    // SAFETY: Linux lets EL0 read it.
    unsafe { core::arch::asm!("mrs {}, cntfrq_el0", out(reg) value, options(nomem, nostack)) };
    value.max(1)
}

struct KvmVm(Arc<Shared>);

impl Vm for KvmVm {
    fn interrupt_controller(&self) -> InterruptController {
        InterruptController::InKernel(self.0.gic.clone())
    }

    fn powers_processors(&self) -> bool {
        true
    }

    fn frequency(&self) -> u64 {
        self.0.frequency()
    }

    fn map(&self, start: u64, size: u64, host: usize, writable: bool) -> Result<(), Error> {
        let map = |region: &Region| {
            self.0.change(&Region {
                mapped: true,
                ..*region
            })
        };
        self.0.regions.add(start, size, host, writable, map)
    }

    fn unmap(&self, start: u64, size: u64) -> Result<(), Error> {
        let unmap = |region: &Region| {
            self.0.change(&Region {
                mapped: false,
                ..*region
            })
        };
        self.0.track_no_longer(start, size)?;
        self.0.regions.remove(start, size, unmap)
    }

    fn track_writes(&self, start: u64, size: u64, track: bool) -> Result<(), Error> {
        if track {
            self.0.track(start, size)
        } else {
            self.0.track_no_longer(start, size)
        }
    }

    fn take_writes(&self, start: u64, size: u64) -> Result<Vec<(u64, u64)>, Error> {
        self.0.take(start, size)
    }

    fn vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, Error> {
        let mut vcpus = self.0.vcpus.lock();
        let slot = vcpus
            .get_mut(index as usize)
            .ok_or(Error::NoProcessor(index))?;
        let (vcpu, init) = slot.take().ok_or(Error::AlreadyCreated(index))?;
        let vcpu = vcpu::KvmVcpu::new(self.0.clone(), index, vcpu, init)?;
        Ok(Box::new(vcpu))
    }

    /// The interrupt controller drives it, inside the kernel.
    fn set_irq(&self, _cpu: u32, _level: bool) {}

    /// The same.
    fn set_fiq(&self, _cpu: u32, _level: bool) {}

    fn kick(&self, cpu: u32) {
        if let Some(thread) = self.0.threads.get(cpu as usize) {
            thread.kick();
        }
    }
}
