//! Virtual machines on Apple's Hypervisor.framework.
//!
//! The framework is behind [`Framework`], so that the engine runs, unchanged, on a model of it where there is no Mac.
//!
//! - [`framework`]: its functions, as documented.
//! - `apple`: the real one (macOS on Apple silicon only).
//! - `vcpu`: the run loop, and an answer to each kind of exit.
//! - `registers`, `identification`: between the framework's registers and [`cpu::State`].
//!
//! What the hardware cannot describe or does not have (accesses without a syndrome, trapped registers, the physical timer,
//! the performance monitors) a shadow [`cpu::Core`] does: one description of the architecture serves all engines.

#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
pub mod apple;
pub mod framework;
mod identification;
mod mailbox;
mod registers;
mod vcpu;

use std::any::Any;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use self::framework::{Framework, Refusal, memory};
use self::mailbox::Mailbox;
use crate::regions::{Region, Regions};
use crate::tracking::{self, Tracking};
use crate::{AddressBits, Config, Engine, Error, InterruptController, Vcpu, Vm};

/// The engine, on a framework.
pub struct Hvf {
    framework: Arc<dyn Framework>,
}

/// Guests of this size or less save the hardware a level of its tables.
const PREFERRED_BITS: u32 = 36;
/// The unit of mappings, bytes; and a smaller one, which costs the hardware more walks of its tables.
const GRANULE: u64 = 16 << 10;
const SMALL_GRANULE: u64 = 4 << 10;

impl Hvf {
    /// On that framework.
    pub fn new(framework: Arc<dyn Framework>) -> Hvf {
        Hvf { framework }
    }
}

/// The unit of mappings for memory that comes in units of `wanted`.
fn granule(f: &dyn Framework, wanted: u64) -> Result<u64, Error> {
    match wanted {
        GRANULE.. => Ok(GRANULE),
        SMALL_GRANULE.. if f.chooses_granule() => Ok(SMALL_GRANULE),
        _ => Err(Error::Unavailable(format!(
            "the machine's memory comes in units of {wanted} bytes; this host maps 16 KiB (4 KiB needs macOS 26): \
             give -m a multiple of 16 KiB"
        ))),
    }
}

/// What a refusal means to the user.
fn refused(what: &str, refusal: Refusal) -> Error {
    if refusal == Refusal::DENIED {
        return Error::Unavailable(
            "Hypervisor.framework denied access: the program is not signed with the entitlement \
             com.apple.security.hypervisor (`cargo xtask sign` signs it)"
                .into(),
        );
    }
    Error::Host(format!("{what}: {refusal}"))
}

impl Engine for Hvf {
    fn name(&self) -> &'static str {
        "hvf"
    }

    fn address_bits(&self) -> AddressBits {
        let most = self.framework.max_ipa_size().unwrap_or(PREFERRED_BITS);
        AddressBits {
            most,
            preferred: PREFERRED_BITS.min(most),
        }
    }

    fn create(&self, config: Config) -> Result<Arc<dyn Vm>, Error> {
        let f = self.framework.clone();
        if config.features.name != "max" {
            return Err(Error::Unavailable(format!(
                "Hypervisor.framework has the host's processor only, not '{}': give -cpu host",
                config.features.name
            )));
        }
        let default = f
            .default_ipa_size()
            .map_err(|r| refused("hv_vm_config_get_default_ipa_size", r))?;
        let most = f
            .max_ipa_size()
            .map_err(|r| refused("hv_vm_config_get_max_ipa_size", r))?;
        if config.address_bits > most {
            return Err(Error::Unavailable(format!(
                "the machine needs {} bits of guest-physical addresses; this host has {most}",
                config.address_bits
            )));
        }
        let granule = granule(f.as_ref(), config.granule)?;
        let ipa_size = config.address_bits.max(default.min(PREFERRED_BITS));
        f.vm_create(ipa_size, granule)
            .map_err(|r| refused("hv_vm_create", r))?;
        let frequency = f.counter_frequency();
        let mailboxes: Vec<Arc<Mailbox>> = config.mpidrs.iter().map(|_| Arc::default()).collect();
        let deadlines = Arc::new(Deadlines {
            clock: config.clock.clone(),
            due: Mutex::new(vec![None; mailboxes.len()]),
            timers: OnceLock::new(),
        });
        let timer = |mailbox: &Arc<Mailbox>| {
            let (mailbox, f) = (mailbox.clone(), f.clone());
            config
                .clock
                .timer(move || mailbox.deadline_passed(f.as_ref()))
        };
        // Set once, just now.
        let _ = deadlines.timers.set(mailboxes.iter().map(timer).collect());
        let count = u32::try_from(mailboxes.len()).unwrap_or(u32::MAX);
        Ok(Arc::new(HvfVm(Arc::new(Shared {
            regions: Regions::new(granule),
            tracking: Tracking::new(granule),
            _awake: f.stay_awake(),
            framework: f,
            ipa_size,
            cores: Arc::new(cpu::Shared::new(count, deadlines.clone(), frequency)),
            created: Mutex::new(vec![false; mailboxes.len()]),
            mailboxes,
            deadlines,
            offset: Mutex::new(None),
            config,
        }))))
    }
}

/// Deadlines of what the shadow processors keep: the guest's clock, and a timer a processor on it.
struct Deadlines {
    clock: device::Clock,
    /// Nanoseconds of guest time; what [`cpu::Clock::arm`] was last told.
    due: Mutex<Vec<Option<u64>>>,
    timers: OnceLock<Vec<device::Timer>>,
}

impl Deadlines {
    fn due(&self, cpu: u32) -> Option<u64> {
        self.due.lock().get(cpu as usize).copied().flatten()
    }

    /// Has the clock end the processor's run at its deadline.
    fn watch(&self, cpu: u32, deadline: Option<u64>) {
        let timers = self.timers.get();
        if let Some(timer) = timers.and_then(|timers| timers.get(cpu as usize)) {
            match deadline {
                Some(deadline) => timer.arm(deadline),
                None => timer.cancel(),
            }
        }
    }
}

impl cpu::Clock for Deadlines {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn arm(&self, cpu: u32, deadline: u64) {
        if let Some(due) = self.due.lock().get_mut(cpu as usize) {
            *due = Some(deadline);
        }
    }
}

/// What the virtual machine's handle and its vCPUs share; the framework's machine goes with the last of them.
struct Shared {
    framework: Arc<dyn Framework>,
    config: Config,
    ipa_size: u32,
    regions: Regions,
    tracking: Tracking,
    cores: Arc<cpu::Shared>,
    created: Mutex<Vec<bool>>,
    mailboxes: Vec<Arc<Mailbox>>,
    deadlines: Arc<Deadlines>,
    /// CNTVOFF of all vCPUs, and [`device::Clock::stopped`] when it was taken.
    offset: Mutex<Option<(u64, u64)>>,
    _awake: Box<dyn Any + Send + Sync>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(refusal) = self.framework.vm_destroy() {
            tracing::warn!(%refusal, "hv_vm_destroy");
        }
    }
}

impl Shared {
    /// Has the framework's tables be as `region` says.
    fn change(&self, region: &Region) -> Result<(), Error> {
        let Region {
            start, size, host, ..
        } = *region;
        if !region.mapped {
            let done = self.framework.vm_unmap(start, size);
            return done.map_err(|r| refused("hv_vm_unmap", r));
        }
        let flags = match region.writable {
            true => memory::READ | memory::WRITE | memory::EXECUTE,
            false => memory::READ | memory::EXECUTE,
        };
        self.framework
            .vm_map(host, start, size, flags)
            .map_err(|r| refused("hv_vm_map", r))
    }

    /// Permits writes of mapped memory, or not.
    fn protect(&self, start: u64, size: u64, writable: bool) -> Result<(), Error> {
        let write = if writable { memory::WRITE } else { 0 };
        let flags = memory::READ | memory::EXECUTE | write;
        self.framework
            .vm_protect(start, size, flags)
            .map_err(|r| refused("hv_vm_protect", r))
    }

    /// What to take from the host's counter so that the guest's goes with the guest's clock: the same for all vCPUs, and
    /// larger by as long as the machine was stopped. While the host sleeps, both stand still.
    fn counter_offset(&self) -> u64 {
        let ticks = |nanoseconds: u64| {
            let frequency = u128::from(self.cores.frequency);
            (u128::from(nanoseconds) * frequency / 1_000_000_000) as u64
        };
        let stopped = self.config.clock.stopped();
        let mut offset = self.offset.lock();
        match *offset {
            Some((offset, at)) if at == stopped => offset,
            Some((old, at)) => {
                let new = old.wrapping_add(ticks(stopped - at));
                *offset = Some((new, stopped));
                new
            }
            None => {
                let now = self.config.clock.now();
                let new = self.framework.counter().wrapping_sub(ticks(now));
                *offset = Some((new, stopped));
                new
            }
        }
    }
}

struct HvfVm(Arc<Shared>);

impl HvfVm {
    fn mailbox(&self, cpu: u32) -> Option<&Mailbox> {
        self.0.mailboxes.get(cpu as usize).map(Arc::as_ref)
    }
}

impl Vm for HvfVm {
    fn interrupt_controller(&self) -> InterruptController {
        InterruptController::Ours
    }

    fn frequency(&self) -> u64 {
        self.0.cores.frequency
    }

    fn map(&self, start: u64, size: u64, host: usize, writable: bool) -> Result<(), Error> {
        if start.saturating_add(size) > 1 << self.0.ipa_size {
            return Err(Error::Host(format!(
                "memory at {start:#x} lies past {} bits of addresses",
                self.0.ipa_size
            )));
        }
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
        self.0.tracking.remove(start, size, |_, _| Ok(()))?;
        self.0.regions.remove(start, size, unmap)
    }

    fn track_writes(&self, start: u64, size: u64, track: bool) -> Result<(), Error> {
        let shared = &self.0;
        if !track {
            let permit = |start, size| shared.protect(start, size, true);
            return shared.tracking.remove(start, size, permit);
        }
        if shared.regions.writable(start, size).is_none() {
            return Err(tracking::not_memory(start, size));
        }
        let protect = || shared.protect(start, size, false);
        shared.tracking.add(start, size, protect)
    }

    fn take_writes(&self, start: u64, size: u64) -> Result<Vec<(u64, u64)>, Error> {
        let within = start..start.saturating_add(size);
        let protect = |start, size| self.0.protect(start, size, false);
        self.0.tracking.take(within, protect)
    }

    fn vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, Error> {
        let mut created = self.0.created.lock();
        let created = created
            .get_mut(index as usize)
            .ok_or(Error::NoProcessor(index))?;
        if std::mem::replace(created, true) {
            return Err(Error::AlreadyCreated(index));
        }
        Ok(Box::new(vcpu::HvfVcpu::new(self.0.clone(), index)?))
    }

    fn set_irq(&self, cpu: u32, level: bool) {
        if let Some(mailbox) = self.mailbox(cpu) {
            mailbox.set_irq(level, self.0.framework.as_ref());
        }
    }

    fn set_fiq(&self, cpu: u32, level: bool) {
        if let Some(mailbox) = self.mailbox(cpu) {
            mailbox.set_fiq(level, self.0.framework.as_ref());
        }
    }

    fn kick(&self, cpu: u32) {
        if let Some(mailbox) = self.mailbox(cpu) {
            mailbox.kick(self.0.framework.as_ref());
        }
    }
}
