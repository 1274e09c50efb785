//! A model of Apple's Hypervisor.framework, over Dormer's interpreter.
//!
//! It is as the framework's documentation says, or, where that says nothing, as the architecture manual says of EL2 (Arm DDI
//! 0487), or else as we assume. Rule by rule:
//!
//! | rule | from |
//! | --- | --- |
//! | one virtual machine a process: `hv_vm_create` again gives HV_BUSY | "Hypervisor", hv_vm_create |
//! | without the entitlement, HV_DENIED | "com.apple.security.hypervisor" |
//! | guest-physical sizes: a default of 36 bits, a larger one by request up to a maximum | hv_vm_config_get_default_ipa_size, hv_vm_config_get_max_ipa_size; 36 and 40 are what users report |
//! | mappings in multiples of the page, 16 KiB | hv_vm_map |
//! | a vCPU belongs to the thread that created it; other threads get HV_BAD_ARGUMENT | hv_vcpu_create; the code is assumed |
//! | hv_vcpus_exit ends the present run, or the next if there is none | hv_vcpus_exit |
//! | an exit says ESR_EL2, FAR_EL2 and the guest-physical address | hv_vcpu_exit_exception_t; DDI 0487, D17.2.37 |
//! | pending interrupts are gone after each exit | hv_vcpu_set_pending_interrupt |
//! | the virtual timer's exit masks it until hv_vcpu_set_vtimer_mask | HV_EXIT_REASON_VTIMER_ACTIVATED |
//! | the virtual timer is seen to only inside hv_vcpu_run | assumed; as users report |
//! | a fire that meets a cancellation may be lost ([`Options::lose_fires`]) | reported by users |
//! | CNTVCT_EL0 is mach_absolute_time less the offset | hv_vcpu_set_vtimer_offset |
//! | WFI exits (EC 0x01), WFE does not; the PC is the instruction's | DDI 0487, HCR_EL2.TWI; that TWE is off is assumed |
//! | HVC exits with the PC past it, SMC (HCR_EL2.TSC) with its own | DDI 0487, preferred exception return |
//! | ICC_*, PMU, CNTP_*, CNTPCT and LOR registers exit (EC 0x18) | assumed; as users report |
//! | debug registers exit while hv_vcpu_set_trap_debug_reg_accesses says so; at first they do | the function; the default is assumed |
//! | debug exceptions exit while hv_vcpu_set_trap_debug_exceptions says so | the function |
//! | aborts where nothing is mapped, and of writes to read-only memory, exit (EC 0x24, 0x20); ISV as the manual has it | DDI 0487, "ISS encoding for an exception from a Data Abort" |
//! | cache maintenance of an address that is not mapped exits with CM = 1 | DDI 0487 |
//! | of the identification registers, PFR0.GIC, DFR0.PMUVer and MMFR0.PARange take what they are given; others stay | assumed |
//!
//! The other identification registers are the interpreter's (`max`). Host memory has this host's page size, not 16 KiB.

mod registers;
mod syndrome;
mod vcpu;

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use engine::hvf::framework::{Framework, Handle, Interrupt, Refusal, VcpuExit, memory as flags};
use memory::{AddressSpace, Mapping};
use parking_lot::Mutex;

use vcpu::Vcpu;

/// The unit of mappings.
const GRANULE: u64 = 16 << 10;
/// Ticks a second of an Apple silicon Mac's counter.
const FREQUENCY: u64 = 24_000_000;
/// vCPUs at most.
const VCPUS: u32 = 8;

/// What kind of Mac it is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bits of guest-physical addresses at most.
    pub max_ipa_size: u32,
    /// The program has the entitlement.
    pub entitled: bool,
    /// A virtual timer's fire that comes with a cancellation is never told.
    pub lose_fires: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_ipa_size: 40,
            entitled: true,
            lose_fires: false,
        }
    }
}

/// How often things happened.
#[derive(Debug)]
pub struct Counts {
    /// Exits by exception class; class 64 is a cancellation, 65 the virtual timer.
    exits: [AtomicU64; 66],
    /// Of the data aborts, those without a syndrome.
    pub no_syndrome: AtomicU64,
    /// Data aborts of cache maintenance.
    pub maintenance: AtomicU64,
    /// Fires lost.
    pub lost: AtomicU64,
    /// Threads with a scheduling class.
    pub threads: AtomicU64,
    /// Who keeps the host awake.
    pub awake: Arc<AtomicU32>,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            exits: std::array::from_fn(|_| AtomicU64::new(0)),
            no_syndrome: AtomicU64::new(0),
            maintenance: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            threads: AtomicU64::new(0),
            awake: Arc::default(),
        }
    }
}

impl Counts {
    /// Exits of an exception class.
    pub fn exits(&self, class: u32) -> u64 {
        self.exits
            .get(class as usize)
            .map_or(0, |n| n.load(Ordering::Relaxed))
    }

    fn exit(&self, class: u32) {
        if let Some(count) = self.exits.get(class as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The framework of one process.
pub struct Model {
    options: Options,
    /// The host's time: it never stops.
    clock: device::Clock,
    vm: Mutex<Option<Arc<Vm>>>,
    /// What happened so far.
    pub counts: Arc<Counts>,
}

/// The process's virtual machine.
struct Vm {
    ipa_size: u32,
    /// Stage 2.
    space: AddressSpace,
    mapped: Mutex<HashMap<u64, u64>>,
    cores: Arc<cpu::Shared>,
    vcpus: Mutex<Vec<Option<Arc<Vcpu>>>>,
}

/// The host's counter, and a timer a vCPU for what its processor waits for.
struct HostTime {
    clock: device::Clock,
    timers: OnceLock<Vec<device::Timer>>,
}

impl cpu::Clock for HostTime {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn arm(&self, cpu: u32, deadline: u64) {
        if let Some(timer) = self.timers.get().and_then(|t| t.get(cpu as usize)) {
            timer.arm(deadline);
        }
    }
}

impl Model {
    pub fn new(options: Options) -> Arc<Model> {
        Arc::new(Model {
            options,
            clock: device::Clock::new(),
            vm: Mutex::new(None),
            counts: Arc::default(),
        })
    }

    fn vm(&self) -> Result<Arc<Vm>, Refusal> {
        self.vm.lock().clone().ok_or(Refusal::NO_DEVICE)
    }

    /// A vCPU, for its own thread.
    fn vcpu(&self, handle: Handle) -> Result<Arc<Vcpu>, Refusal> {
        let vcpu = self.any_vcpu(handle)?;
        if vcpu.is_owner() {
            Ok(vcpu)
        } else {
            Err(Refusal::BAD_ARGUMENT)
        }
    }

    fn any_vcpu(&self, handle: Handle) -> Result<Arc<Vcpu>, Refusal> {
        let vm = self.vm()?;
        let vcpus = vm.vcpus.lock();
        let vcpu = usize::try_from(handle)
            .ok()
            .and_then(|i| vcpus.get(i)?.clone());
        vcpu.ok_or(Refusal::BAD_ARGUMENT)
    }
}

impl Vm {
    fn check(&self, ipa: u64, size: u64) -> Result<(), Refusal> {
        let end = ipa.checked_add(size).ok_or(Refusal::BAD_ARGUMENT)?;
        let aligned = ipa.is_multiple_of(GRANULE) && size.is_multiple_of(GRANULE) && size > 0;
        if aligned && end <= 1 << self.ipa_size {
            Ok(())
        } else {
            Err(Refusal::BAD_ARGUMENT)
        }
    }

    /// Stage 2 has changed: no vCPU goes on with what was.
    fn settle(&self) {
        let vcpus: Vec<_> = self.vcpus.lock().iter().flatten().cloned().collect();
        let generation = self.space.generation();
        for vcpu in vcpus {
            vcpu.settle(generation);
        }
    }
}

impl Framework for Model {
    fn default_ipa_size(&self) -> Result<u32, Refusal> {
        Ok(36)
    }

    fn max_ipa_size(&self) -> Result<u32, Refusal> {
        Ok(self.options.max_ipa_size)
    }

    fn granule(&self) -> u64 {
        GRANULE
    }

    fn vm_create(&self, ipa_size: u32) -> Result<(), Refusal> {
        if !self.options.entitled {
            return Err(Refusal::DENIED);
        }
        if !(32..=self.options.max_ipa_size).contains(&ipa_size) {
            return Err(Refusal::BAD_ARGUMENT);
        }
        let mut vm = self.vm.lock();
        if vm.is_some() {
            return Err(Refusal::BUSY);
        }
        let time = Arc::new(HostTime {
            clock: self.clock.clone(),
            timers: OnceLock::new(),
        });
        let cores = Arc::new(cpu::Shared::new(VCPUS, time.clone(), FREQUENCY));
        let timer = |signals: &Arc<cpu::Signals>| {
            let signals = signals.clone();
            self.clock
                .timer(move || signals.raise(cpu::signals::attention::TIMER))
        };
        let _ = time
            .timers
            .set(cores.processors().iter().map(timer).collect());
        *vm = Some(Arc::new(Vm {
            ipa_size,
            space: AddressSpace::new(),
            mapped: Mutex::default(),
            cores,
            vcpus: Mutex::default(),
        }));
        Ok(())
    }

    fn vm_destroy(&self) -> Result<(), Refusal> {
        let mut vm = self.vm.lock();
        match vm.as_ref() {
            None => Err(Refusal::NO_DEVICE),
            Some(vm) if vm.vcpus.lock().iter().any(Option::is_some) => Err(Refusal::BUSY),
            Some(_) => {
                *vm = None;
                Ok(())
            }
        }
    }

    fn vm_map(&self, host: usize, ipa: u64, size: u64, permissions: u64) -> Result<(), Refusal> {
        let vm = self.vm()?;
        vm.check(ipa, size)?;
        if host == 0 || !host.is_multiple_of(4096) {
            return Err(Refusal::BAD_ARGUMENT);
        }
        let all = flags::READ | flags::WRITE | flags::EXECUTE;
        let mapping = match permissions {
            p if p == all => Mapping::Ram { host },
            p if p == flags::READ | flags::EXECUTE => Mapping::ReadOnly { host },
            _ => return Err(Refusal::UNSUPPORTED),
        };
        vm.space
            .map(ipa, size, mapping)
            .map_err(|_| Refusal::ERROR)?;
        vm.mapped.lock().insert(ipa, size);
        vm.settle();
        Ok(())
    }

    fn vm_unmap(&self, ipa: u64, size: u64) -> Result<(), Refusal> {
        let vm = self.vm()?;
        vm.check(ipa, size)?;
        {
            // Whole mappings only: that is all the engine does.
            let mut mapped = vm.mapped.lock();
            if mapped.get(&ipa) != Some(&size) {
                return Err(Refusal::BAD_ARGUMENT);
            }
            mapped.remove(&ipa);
            vm.space.unmap(ipa);
        }
        vm.settle();
        Ok(())
    }

    fn vm_protect(&self, ipa: u64, size: u64, _permissions: u64) -> Result<(), Refusal> {
        self.vm()?.check(ipa, size)?;
        Err(Refusal::UNSUPPORTED)
    }

    fn vcpu_create(&self) -> Result<Handle, Refusal> {
        let vm = self.vm()?;
        let mut vcpus = vm.vcpus.lock();
        let index = vcpus.len() as u32;
        if index >= VCPUS {
            return Err(Refusal::NO_RESOURCES);
        }
        let lose = self.options.lose_fires;
        vcpus.push(Some(Vcpu::new(index, &vm, self.counts.clone(), lose)));
        Ok(index.into())
    }

    fn vcpu_destroy(&self, handle: Handle) -> Result<(), Refusal> {
        self.vcpu(handle)?;
        let vm = self.vm()?;
        if let Some(vcpu) = vm.vcpus.lock().get_mut(handle as usize) {
            *vcpu = None;
        }
        Ok(())
    }

    fn vcpu_run(&self, handle: Handle) -> Result<VcpuExit, Refusal> {
        let vm = self.vm()?;
        Ok(self.vcpu(handle)?.run(&vm.space))
    }

    fn vcpus_exit(&self, handles: &[Handle]) -> Result<(), Refusal> {
        for handle in handles {
            self.any_vcpu(*handle)?.cancel();
        }
        Ok(())
    }

    fn get_reg(&self, handle: Handle, reg: u32) -> Result<u64, Refusal> {
        self.vcpu(handle)?.get_reg(reg)
    }

    fn set_reg(&self, handle: Handle, reg: u32, value: u64) -> Result<(), Refusal> {
        self.vcpu(handle)?.set_reg(reg, value)
    }

    fn get_sys_reg(&self, handle: Handle, reg: u16) -> Result<u64, Refusal> {
        self.vcpu(handle)?.get_sys_reg(reg)
    }

    fn set_sys_reg(&self, handle: Handle, reg: u16, value: u64) -> Result<(), Refusal> {
        self.vcpu(handle)?.set_sys_reg(reg, value)
    }

    fn get_simd_fp_reg(&self, handle: Handle, reg: u32) -> Result<u128, Refusal> {
        self.vcpu(handle)?.simd(reg, None)
    }

    fn set_simd_fp_reg(&self, handle: Handle, reg: u32, value: u128) -> Result<(), Refusal> {
        self.vcpu(handle)?.simd(reg, Some(value)).map(drop)
    }

    fn set_pending_interrupt(
        &self,
        handle: Handle,
        interrupt: Interrupt,
        pending: bool,
    ) -> Result<(), Refusal> {
        self.vcpu(handle)?.set_pending(interrupt, pending);
        Ok(())
    }

    fn set_vtimer_mask(&self, handle: Handle, masked: bool) -> Result<(), Refusal> {
        self.vcpu(handle)?.set_vtimer_mask(masked);
        Ok(())
    }

    fn set_vtimer_offset(&self, handle: Handle, offset: u64) -> Result<(), Refusal> {
        self.vcpu(handle)?.set_vtimer_offset(offset);
        Ok(())
    }

    fn set_trap_debug_exceptions(&self, handle: Handle, trap: bool) -> Result<(), Refusal> {
        self.vcpu(handle)?
            .traps
            .exceptions
            .store(trap, Ordering::SeqCst);
        Ok(())
    }

    fn set_trap_debug_reg_accesses(&self, handle: Handle, trap: bool) -> Result<(), Refusal> {
        self.vcpu(handle)?
            .traps
            .registers
            .store(trap, Ordering::SeqCst);
        Ok(())
    }

    fn counter(&self) -> u64 {
        (u128::from(self.clock.now()) * u128::from(FREQUENCY) / 1_000_000_000) as u64
    }

    fn counter_frequency(&self) -> u64 {
        FREQUENCY
    }

    fn vcpu_thread(&self) {
        self.counts.threads.fetch_add(1, Ordering::Relaxed);
    }

    fn stay_awake(&self) -> Box<dyn Any + Send + Sync> {
        struct Awake(Arc<AtomicU32>);

        impl Drop for Awake {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }

        self.counts.awake.fetch_add(1, Ordering::SeqCst);
        Box::new(Awake(self.counts.awake.clone()))
    }
}
