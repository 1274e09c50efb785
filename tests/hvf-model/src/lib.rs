//! A model of Apple's Hypervisor.framework, over Dormer's interpreter.
//!
//! Each rule says where it is from:
//!
//! - **Apple**: Apple's reference of the framework ("Hypervisor", Apple silicon), under the name given.
//! - **Arm**: the architecture manual (DDI 0487), of what EL2 sees of EL1, as the framework hands EL2's syndrome on.
//! - **reported**: by users and maintainers of other virtual machines; no document says it.
//! - **assumed**: nobody says it. A Mac may contradict it, and docs/mac.md has a step for it.
//!
//! ## The machine
//!
//! | rule | from |
//! | --- | --- |
//! | one virtual machine a process: another is refused | Apple, `hv_vm_create` |
//! | the refusal is HV_BUSY | assumed |
//! | without the entitlement, HV_DENIED | Apple, "com.apple.security.hypervisor", `HV_DENIED` |
//! | guest-physical sizes: a default, and a larger one by request up to a maximum | Apple, `hv_vm_config_get_default_ipa_size`, `hv_vm_config_get_max_ipa_size`, `hv_vm_config_set_ipa_size` |
//! | 36 bits and 40 bits | reported |
//! | mappings, and changes of their permissions, in multiples of the page | Apple, `hv_vm_map`, `hv_vm_protect` |
//! | the page is 16 KiB; with macOS 26 ([`Options::chooses_granule`]) it may be 4 KiB | Apple, `hv_vm_config_set_ipa_granule`, `hv_ipa_granule_t` |
//! | mappings that overlap are refused; a part of one can be protected | assumed; unmapping a part of one is not modelled, and the engine does not do it |
//! | eight vCPUs | assumed: `hv_vm_get_max_vcpu_count` says it on a Mac |
//!
//! ## vCPUs
//!
//! | rule | from |
//! | --- | --- |
//! | a vCPU belongs to the thread that created it | Apple, `hv_vcpu_create` |
//! | other threads are refused with HV_BAD_ARGUMENT | assumed |
//! | `hv_vcpus_exit` ends the present run, or the next if there is none, from any thread | Apple, `hv_vcpus_exit` |
//! | it does not wake a thread of the program's own that waits | Apple: it is about `hv_vcpu_run` only |
//! | pending interrupts are gone after each exit | Apple, `hv_vcpu_set_pending_interrupt` |
//! | they are levels while a run lasts | assumed, as HCR_EL2.VI and VF are (Arm) |
//! | a register is named by its encoding; SP_EL1 is 3, 4, 4, 1, 0 | Apple, `hv_sys_reg_t` |
//! | CPSR takes EL0 and EL1 only | assumed |
//! | a vCPU starts with the OS lock open | assumed; the engine answers OSLAR and OSLSR itself |
//! | ID_AA64PFR0_EL1.GIC, ID_AA64DFR0_EL1.PMUVer, ID_AA64MMFR0_EL1.PARange take what they are given, other fields stay | assumed; the engine reads back what it sets |
//!
//! The other identification registers are the interpreter's (`max`).
//!
//! ## Time
//!
//! | rule | from |
//! | --- | --- |
//! | the exit of the virtual timer masks it until `hv_vcpu_set_vtimer_mask` | Apple, `HV_EXIT_REASON_VTIMER_ACTIVATED` |
//! | it is seen to only inside `hv_vcpu_run` | reported |
//! | the mask does not show in CNTV_CTL_EL0 | assumed |
//! | a fire that meets a cancellation may be lost ([`Options::lose_fires`]) | reported |
//! | CNTVCT_EL0 is `mach_absolute_time` less the offset | Apple, `hv_vcpu_set_vtimer_offset` |
//! | while the host sleeps it stands still, and the time of day goes on ([`Model::sleep`]) | Apple, `mach_absolute_time`, `mach_continuous_time` |
//! | it may be ahead of what the program reads at the same time ([`Options::counter_ahead`]) | assumed |
//! | 24 MHz | reported; the engine reads CNTFRQ_EL0 |
//!
//! ## Exits
//!
//! An exit tells ESR_EL2, FAR_EL2 and, of aborts, the guest-physical address (Apple, `hv_vcpu_exit_exception_t`).
//!
//! | rule | from |
//! | --- | --- |
//! | WFI exits (class 0x01), the PC on it | Arm, HCR_EL2.TWI; that it is set is reported |
//! | WFE does not, unless [`Options::trap_events`] | Arm, HCR_EL2.TWE; that it is clear is assumed |
//! | HVC exits (0x16) with the PC past it, and a step over it is done | Arm, AArch64.CallHypervisor |
//! | SMC exits (0x17) with the PC on it, and a step over it is not done | Arm, HCR_EL2.TSC; that it is set is reported |
//! | ICC_*, PMU, CNTP_*, CNTPCT and LOR registers exit (0x18), where EL1 itself does not forbid them | Arm, priorities of traps; which are trapped is reported |
//! | debug registers exit while `hv_vcpu_set_trap_debug_reg_accesses` says so | Apple, the function |
//! | at first they do | assumed; the engine says so itself |
//! | breakpoints, watchpoints, steps (0x30, 0x34, 0x32) and BRK (0x3c) exit while `hv_vcpu_set_trap_debug_exceptions` says so | Apple, the function |
//! | the first three are then enabled at EL1 whatever MDSCR_EL1.KDE and PSTATE.D are | Arm, AArch64.GenerateDebugExceptionsFrom with MDCR_EL2.TDE, which the function is assumed to set |
//! | the program sets the guest's breakpoints, watchpoints, MDSCR_EL1 and PSTATE.SS for its own debugger | Apple, `hv_sys_reg_t`, `HV_REG_CPSR`; that PSTATE.SS is kept over `hv_vcpu_run` is assumed |
//! | aborts where nothing is mapped, and of writes to memory without that permission, exit (0x24, 0x20) | Apple, `hv_vm_map`; Arm, stage 2 faults |
//! | ISV, SAS, SSE, SRT, SF, AR of one general register without writeback; none for others, exclusives and atomics | Arm, "ISS encoding for an exception from a Data Abort" |
//! | aborts on a walk of the guest's tables have S1PTW, and no ISV | Arm, the same |
//! | their guest-physical address is 0 | the model's limit: it is that of the table's entry |
//! | cache maintenance of an address that is not mapped exits with CM | Arm, the same |
//!
//! Exits that no guest of the model causes can be had by [`Model::inject`]. Host memory has this host's page size.

mod registers;
mod syndrome;
mod vcpu;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::hvf::framework::{Framework, Handle, Interrupt, Refusal, VcpuExit, memory as flags};
use memory::{AddressSpace, Mapping};
use parking_lot::Mutex;

use vcpu::Vcpu;

/// Ticks a second of an Apple silicon Mac's counter.
const FREQUENCY: u64 = 24_000_000;
/// vCPUs at most.
const VCPUS: u32 = 8;

/// What kind of Mac it is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bits of guest-physical addresses at most.
    pub max_ipa_size: u32,
    /// macOS 26: the unit of mappings can be chosen.
    pub chooses_granule: bool,
    /// The program has the entitlement.
    pub entitled: bool,
    /// A virtual timer's fire that comes with a cancellation is never told; every fourth does.
    pub lose_fires: bool,
    /// HCR_EL2.TWE: WFE exits too.
    pub trap_events: bool,
    /// Ticks by which the guest's counter is ahead of the host's: fires come that much before the program can tell.
    pub counter_ahead: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_ipa_size: 40,
            chooses_granule: false,
            entitled: true,
            lose_fires: false,
            trap_events: false,
            counter_ahead: 0,
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
    /// What the next runs end with.
    injected: Mutex<VecDeque<VcpuExit>>,
    /// How long the host has slept, nanoseconds.
    slept: AtomicU64,
}

/// The process's virtual machine.
struct Vm {
    ipa_size: u32,
    /// The unit of mappings, bytes.
    granule: u64,
    /// Stage 2.
    space: AddressSpace,
    mapped: Mutex<Mapped>,
    cores: Arc<cpu::Shared>,
    vcpus: Mutex<Vec<Option<Arc<Vcpu>>>>,
}

/// What `hv_vm_map` was told, and [`Vm::space`] as it is after `hv_vm_protect`.
#[derive(Default)]
struct Mapped {
    /// Sizes of whole mappings, by their start.
    whole: BTreeMap<u64, u64>,
    /// Size, host address, and whether it can be written.
    pieces: BTreeMap<u64, (u64, usize, bool)>,
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
            injected: Mutex::default(),
            slept: AtomicU64::new(0),
        })
    }

    /// The host sleeps and wakes up: the time of day is later by so much, and nothing else has moved.
    pub fn sleep(&self, time: Duration) {
        let nanoseconds = time.as_nanos() as u64;
        self.slept.fetch_add(nanoseconds, Ordering::SeqCst);
    }

    /// The host's time of day: nanoseconds since 1970.
    pub fn time_of_day(&self) -> i64 {
        /// Some day in 2025.
        const START: u64 = 1_750_000_000_000_000_000;
        (START + self.clock.now() + self.slept.load(Ordering::SeqCst)) as i64
    }

    /// Has the next run of any vCPU end with that, before it does anything: for exits that no guest gets out of the model.
    pub fn inject(&self, exit: VcpuExit) {
        self.injected.lock().push_back(exit);
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
        let aligned = [ipa, size].iter().all(|n| n.is_multiple_of(self.granule));
        if aligned && size > 0 && end <= 1 << self.ipa_size {
            Ok(())
        } else {
            Err(Refusal::BAD_ARGUMENT)
        }
    }

    /// Puts a piece in place.
    fn put(
        &self,
        mapped: &mut Mapped,
        start: u64,
        piece: (u64, usize, bool),
    ) -> Result<(), Refusal> {
        let (size, host, writable) = piece;
        let mapping = if writable {
            Mapping::Ram { host }
        } else {
            Mapping::ReadOnly { host }
        };
        let done = self.space.map(start, size, mapping);
        done.map_err(|_| Refusal::ERROR)?;
        mapped.pieces.insert(start, piece);
        Ok(())
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

/// Of `hv_memory_flags_t`: memory of guests is read and executed, and may be written.
fn is_writable(permissions: u64) -> Result<bool, Refusal> {
    let readable = flags::READ | flags::EXECUTE;
    match permissions {
        p if p == readable => Ok(false),
        p if p == readable | flags::WRITE => Ok(true),
        _ => Err(Refusal::UNSUPPORTED),
    }
}

impl Framework for Model {
    fn default_ipa_size(&self) -> Result<u32, Refusal> {
        Ok(36)
    }

    fn max_ipa_size(&self) -> Result<u32, Refusal> {
        Ok(self.options.max_ipa_size)
    }

    fn chooses_granule(&self) -> bool {
        self.options.chooses_granule
    }

    fn vm_create(&self, ipa_size: u32, granule: u64) -> Result<(), Refusal> {
        if !self.options.entitled {
            return Err(Refusal::DENIED);
        }
        if !(32..=self.options.max_ipa_size).contains(&ipa_size) {
            return Err(Refusal::BAD_ARGUMENT);
        }
        if granule != 16 << 10 && !(granule == 4 << 10 && self.options.chooses_granule) {
            return Err(Refusal::UNSUPPORTED);
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
            granule,
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
        let writable = is_writable(permissions)?;
        {
            let mut mapped = vm.mapped.lock();
            vm.put(&mut mapped, ipa, (size, host, writable))?;
            mapped.whole.insert(ipa, size);
        }
        vm.settle();
        Ok(())
    }

    fn vm_unmap(&self, ipa: u64, size: u64) -> Result<(), Refusal> {
        let vm = self.vm()?;
        vm.check(ipa, size)?;
        {
            // Whole mappings only: that is all the engine does.
            let mut mapped = vm.mapped.lock();
            if mapped.whole.get(&ipa) != Some(&size) {
                return Err(Refusal::BAD_ARGUMENT);
            }
            mapped.whole.remove(&ipa);
            let inside: Vec<u64> = mapped.pieces.range(ipa..ipa + size).map(|p| *p.0).collect();
            for start in inside {
                mapped.pieces.remove(&start);
                vm.space.unmap(start);
            }
        }
        vm.settle();
        Ok(())
    }

    fn vm_protect(&self, ipa: u64, size: u64, permissions: u64) -> Result<(), Refusal> {
        let vm = self.vm()?;
        vm.check(ipa, size)?;
        let writable = is_writable(permissions)?;
        let end = ipa + size;
        {
            let mut mapped = vm.mapped.lock();
            let touched: Vec<_> = mapped
                .pieces
                .range(..end)
                .filter(|(start, piece)| **start + piece.0 > ipa)
                .map(|(start, piece)| (*start, *piece))
                .collect();
            let covered: u64 = touched
                .iter()
                .map(|(start, (size, ..))| (start + size).min(end) - (*start).max(ipa))
                .sum();
            if covered != size {
                return Err(Refusal::BAD_ARGUMENT);
            }
            for (start, (size, host, was)) in touched {
                mapped.pieces.remove(&start);
                vm.space.unmap(start);
                // What is before, in, and behind the span.
                let cuts = [start, start.max(ipa), (start + size).min(end), start + size];
                for (i, can) in [was, writable, was].into_iter().enumerate() {
                    let (from, to) = (cuts[i], cuts[i + 1]);
                    if from < to {
                        let at = host + (from - start) as usize;
                        vm.put(&mut mapped, from, (to - from, at, can))?;
                    }
                }
            }
        }
        vm.settle();
        Ok(())
    }

    fn vcpu_create(&self) -> Result<Handle, Refusal> {
        let vm = self.vm()?;
        let mut vcpus = vm.vcpus.lock();
        let index = vcpus.len() as u32;
        if index >= VCPUS {
            return Err(Refusal::NO_RESOURCES);
        }
        let counts = self.counts.clone();
        vcpus.push(Some(Vcpu::new(index, &vm, counts, self.options)));
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
        let vcpu = self.vcpu(handle)?;
        if let Some(exit) = self.injected.lock().pop_front() {
            return Ok(exit);
        }
        Ok(vcpu.run(&vm.space))
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
        self.vcpu(handle)?.trap_debug_exceptions(trap);
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
