//! Power states of the processors, by PSCI 1.1 (DEN 0022) and SMCCC 1.1 (DEN 0028).

use aarch64::psci::{
    AFFINITY_MASK, SMCCC_VERSION_1_1, VERSION_1_1, affinity, function as f, status,
};
use cpu::CallOutcome;
use parking_lot::{Condvar, Mutex};

/// What the guest wants of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemRequest {
    /// SYSTEM_OFF.
    Off,
    /// SYSTEM_RESET and SYSTEM_RESET2.
    Reset,
}

/// What a processor's thread is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start ([`crate::Vcpu::start`]), then run.
    Start { entry: u64, context: u64 },
    /// [`Psci::interrupt`] was called: look at what the board wants.
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    Off,
    /// CPU_ON was called; the processor's thread has not seen it yet.
    OnPending {
        entry: u64,
        context: u64,
    },
    On,
}

struct Processor {
    power: Power,
    interrupted: bool,
}

/// The power state of every processor. All methods from any thread.
pub struct Psci {
    mpidrs: Vec<u64>,
    processors: Mutex<Vec<Processor>>,
    changed: Condvar,
    request: Box<dyn Fn(SystemRequest) + Send + Sync>,
}

impl Psci {
    /// For processors with those MPIDR values, all off. `request` is called, on the calling processor's thread, when the
    /// guest ends or resets the machine; it must not wait for processors.
    pub fn new(mpidrs: &[u64], request: impl Fn(SystemRequest) + Send + Sync + 'static) -> Psci {
        let off = |_: &u64| Processor {
            power: Power::Off,
            interrupted: false,
        };
        Psci {
            mpidrs: mpidrs.iter().map(|m| m & AFFINITY_MASK).collect(),
            processors: Mutex::new(mpidrs.iter().map(off).collect()),
            changed: Condvar::new(),
            request: Box::new(request),
        }
    }

    /// HVC or SMC of processor `cpu`: what [`cpu::World::call`] does. Calls it does not know get −1.
    pub fn call(&self, cpu: u32, x: &mut [u64; 18]) -> CallOutcome {
        let id = x[0] as u32;
        // Calls of the 32-bit convention have 32-bit arguments.
        let mask = if id & 1 << 30 != 0 {
            u64::MAX
        } else {
            u32::MAX.into()
        };
        let argument = |n: usize| x[n] & mask;
        let result = match id {
            f::VERSION => VERSION_1_1.into(),
            f::FEATURES => feature(argument(1) as u32),
            f::CPU_ON_32 | f::CPU_ON_64 => self.cpu_on(argument(1), argument(2), argument(3)),
            f::AFFINITY_INFO_32 | f::AFFINITY_INFO_64 => {
                self.affinity_info(argument(1), argument(2))
            }
            // No trusted operating system: nothing to migrate.
            f::MIGRATE_INFO_TYPE => 2,
            f::CPU_SUSPEND_32 | f::CPU_SUSPEND_64 => {
                // The original format of power_state: reserved bits are zero.
                if argument(1) & !0x0301_ffff != 0 {
                    status::INVALID_PARAMETERS
                } else {
                    // Every state is a standby state here, and so is a power-down request allowed to be.
                    x[0] = status::SUCCESS as u64;
                    return CallOutcome::Wait;
                }
            }
            f::CPU_OFF => {
                let mut processors = self.processors.lock();
                if let Some(processor) = processors.get_mut(cpu as usize) {
                    processor.power = Power::Off;
                }
                return CallOutcome::Stop;
            }
            f::SYSTEM_OFF => {
                (self.request)(SystemRequest::Off);
                return CallOutcome::Stop;
            }
            f::SYSTEM_RESET => {
                (self.request)(SystemRequest::Reset);
                return CallOutcome::Stop;
            }
            f::SYSTEM_RESET2_32 | f::SYSTEM_RESET2_64 => match argument(1) as u32 {
                // SYSTEM_WARM_RESET: all that a reset of this machine keeps is kept by every reset.
                0 => {
                    (self.request)(SystemRequest::Reset);
                    return CallOutcome::Stop;
                }
                _ => status::INVALID_PARAMETERS,
            },
            f::SMCCC_VERSION => SMCCC_VERSION_1_1.into(),
            f::SMCCC_ARCH_FEATURES => arch_feature(argument(1) as u32),
            // Nothing to do: no speculation reaches from one context of the guest into another.
            f::SMCCC_ARCH_WORKAROUND_1
            | f::SMCCC_ARCH_WORKAROUND_2
            | f::SMCCC_ARCH_WORKAROUND_3 => status::SUCCESS,
            _ => {
                tracing::debug!(cpu, id = format_args!("{id:#x}"), "call of no function");
                status::NOT_SUPPORTED
            }
        };
        x[0] = result as u64;
        CallOutcome::Resume
    }

    fn cpu_on(&self, target: u64, entry: u64, context: u64) -> i64 {
        let Some(index) = self.mpidrs.iter().position(|m| *m == target) else {
            return status::INVALID_PARAMETERS;
        };
        if entry & 3 != 0 {
            return status::INVALID_ADDRESS;
        }
        let mut processors = self.processors.lock();
        match processors[index].power {
            Power::On => status::ALREADY_ON,
            Power::OnPending { .. } => status::ON_PENDING,
            Power::Off => {
                processors[index].power = Power::OnPending { entry, context };
                self.changed.notify_all();
                status::SUCCESS
            }
        }
    }

    fn affinity_info(&self, target: u64, level: u64) -> i64 {
        if level > 3 || target & !AFFINITY_MASK != 0 {
            return status::INVALID_PARAMETERS;
        }
        // Fields below the level are ignored.
        let bits = [0, 8, 16, 32][level as usize];
        let same = |mpidr: u64| (mpidr ^ target) >> bits == 0;
        let processors = self.processors.lock();
        let states = self
            .mpidrs
            .iter()
            .zip(processors.iter())
            .filter(|(m, _)| same(**m));
        // On if any is on; on the way if any is.
        let rank = |power: Power| match power {
            Power::Off => (0, affinity::OFF),
            Power::OnPending { .. } => (1, affinity::ON_PENDING),
            Power::On => (2, affinity::ON),
        };
        states
            .map(|(_, p)| rank(p.power))
            .max()
            .map_or(status::INVALID_PARAMETERS, |(_, state)| state)
    }

    /// Every processor off but the first, which starts at once: machine power-on and reset. `entry` and `context` (X0)
    /// are the first's. No processor runs meanwhile.
    pub fn reset(&self, entry: u64, context: u64) {
        let mut processors = self.processors.lock();
        for (i, processor) in processors.iter_mut().enumerate() {
            processor.power = if i == 0 {
                Power::OnPending { entry, context }
            } else {
                Power::Off
            };
        }
        self.changed.notify_all();
    }

    /// On the thread of a processor that does not run: waits until it is turned on or [`Psci::interrupt`] is called for
    /// it. A processor that is on (its run ended with SYSTEM_OFF or SYSTEM_RESET) waits for [`Psci::reset`].
    pub fn wait(&self, cpu: u32) -> Order {
        let mut processors = self.processors.lock();
        loop {
            let Some(processor) = processors.get_mut(cpu as usize) else {
                return Order::Interrupted;
            };
            if std::mem::take(&mut processor.interrupted) {
                return Order::Interrupted;
            }
            if let Power::OnPending { entry, context } = processor.power {
                processor.power = Power::On;
                return Order::Start { entry, context };
            }
            self.changed.wait(&mut processors);
        }
    }

    /// Ends the present or the next [`Psci::wait`] of a processor.
    pub fn interrupt(&self, cpu: u32) {
        if let Some(processor) = self.processors.lock().get_mut(cpu as usize) {
            processor.interrupted = true;
            self.changed.notify_all();
        }
    }

    /// Whether each processor is on, by index: for snapshots. One whose start is pending counts as off.
    pub fn power(&self) -> Vec<bool> {
        self.processors
            .lock()
            .iter()
            .map(|p| p.power == Power::On)
            .collect()
    }

    /// Puts a snapshot's power states back; processors that are on go on with the state that they are given, without
    /// [`Order::Start`].
    pub fn set_power(&self, on: &[bool]) {
        for (processor, on) in self.processors.lock().iter_mut().zip(on) {
            processor.power = if *on { Power::On } else { Power::Off };
        }
    }

    /// Whether the processor is on.
    pub fn is_on(&self, cpu: u32) -> bool {
        let processors = self.processors.lock();
        processors
            .get(cpu as usize)
            .is_some_and(|p| p.power == Power::On)
    }
}

/// PSCI_FEATURES.
fn feature(id: u32) -> i64 {
    match id {
        f::VERSION
        | f::FEATURES
        | f::CPU_SUSPEND_32
        | f::CPU_SUSPEND_64
        | f::CPU_OFF
        | f::CPU_ON_32
        | f::CPU_ON_64
        | f::AFFINITY_INFO_32
        | f::AFFINITY_INFO_64
        | f::MIGRATE_INFO_TYPE
        | f::SYSTEM_OFF
        | f::SYSTEM_RESET
        | f::SYSTEM_RESET2_32
        | f::SYSTEM_RESET2_64
        | f::SMCCC_VERSION => status::SUCCESS,
        _ => status::NOT_SUPPORTED,
    }
}

/// SMCCC_ARCH_FEATURES. Of a workaround, 1 says that it may be called and is not needed.
fn arch_feature(id: u32) -> i64 {
    match id {
        f::SMCCC_VERSION | f::SMCCC_ARCH_FEATURES => status::SUCCESS,
        f::SMCCC_ARCH_WORKAROUND_1 | f::SMCCC_ARCH_WORKAROUND_2 | f::SMCCC_ARCH_WORKAROUND_3 => 1,
        _ => status::NOT_SUPPORTED,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn call(psci: &Psci, cpu: u32, arguments: &[u64]) -> i64 {
        let mut x = [0x5555; 18];
        x[..arguments.len()].copy_from_slice(arguments);
        assert_eq!(psci.call(cpu, &mut x), CallOutcome::Resume);
        assert!(x[4..].iter().all(|v| *v == 0x5555));
        x[0] as i64
    }

    fn on(target: u64, entry: u64) -> [u64; 4] {
        [f::CPU_ON_64.into(), target, entry, 7]
    }

    fn info(psci: &Psci, target: u64, level: u64) -> i64 {
        call(psci, 0, &[f::AFFINITY_INFO_64.into(), target, level])
    }

    #[test]
    fn turning_on_and_off() {
        let psci = Psci::new(&[1 << 31, 1, 0x100], |_| {});
        psci.reset(0, 0);
        assert_eq!(
            psci.wait(0),
            Order::Start {
                entry: 0,
                context: 0
            }
        );
        assert_eq!(call(&psci, 0, &on(0, 0x1000)), status::ALREADY_ON);
        assert_eq!(call(&psci, 0, &on(2, 0x1000)), status::INVALID_PARAMETERS);
        assert_eq!(
            call(&psci, 0, &on(1 << 24 | 1, 0x1000)),
            status::INVALID_PARAMETERS
        );
        assert_eq!(call(&psci, 0, &on(1, 0x1001)), status::INVALID_ADDRESS);
        assert_eq!(info(&psci, 1, 0), affinity::OFF);
        assert_eq!(call(&psci, 0, &on(1, 0x1000)), status::SUCCESS);
        assert_eq!(info(&psci, 1, 0), affinity::ON_PENDING);
        assert_eq!(call(&psci, 0, &on(1, 0x2000)), status::ON_PENDING);
        assert_eq!(
            psci.wait(1),
            Order::Start {
                entry: 0x1000,
                context: 7
            }
        );
        assert_eq!(info(&psci, 1, 0), affinity::ON);
        assert_eq!(call(&psci, 0, &on(1, 0x2000)), status::ALREADY_ON);
        // Clusters: the one with processor 2 is off.
        assert_eq!(info(&psci, 0, 1), affinity::ON);
        assert_eq!(info(&psci, 0x1ff, 1), affinity::OFF);
        assert_eq!(info(&psci, 0x200, 1), status::INVALID_PARAMETERS);
        assert_eq!(info(&psci, 0, 4), status::INVALID_PARAMETERS);
        let mut x = [0; 18];
        x[0] = f::CPU_OFF.into();
        assert_eq!(psci.call(1, &mut x), CallOutcome::Stop);
        assert_eq!(info(&psci, 1, 0), affinity::OFF);
        assert_eq!(psci.power(), [true, false, false]);
        // The 32-bit form takes the low halves.
        let call_32 = [f::CPU_ON_32.into(), 1 << 32 | 1, 0x9_0000_3000, 1];
        assert_eq!(call(&psci, 0, &call_32), status::SUCCESS);
        psci.interrupt(1);
        assert_eq!(psci.wait(1), Order::Interrupted);
        assert_eq!(
            psci.wait(1),
            Order::Start {
                entry: 0x3000,
                context: 1
            }
        );
    }

    #[test]
    fn the_rest_of_the_interface() {
        let requests = Arc::new(AtomicU32::new(0));
        let seen = requests.clone();
        let psci = Psci::new(&[0], move |r| {
            seen.fetch_add(
                if r == SystemRequest::Off { 1 } else { 16 },
                Ordering::SeqCst,
            );
        });
        assert_eq!(call(&psci, 0, &[f::VERSION.into()]), 0x1_0001);
        assert_eq!(call(&psci, 0, &[f::SMCCC_VERSION.into()]), 0x1_0001);
        assert_eq!(call(&psci, 0, &[f::MIGRATE_INFO_TYPE.into()]), 2);
        assert_eq!(
            call(&psci, 0, &[f::FEATURES.into(), f::CPU_ON_64.into()]),
            0
        );
        assert_eq!(
            call(&psci, 0, &[f::FEATURES.into(), f::MIGRATE_64.into()]),
            -1
        );
        assert_eq!(
            call(&psci, 0, &[f::SMCCC_ARCH_FEATURES.into(), 0x8000_0002]),
            -1
        );
        // What Windows asks at boot, and the like.
        assert_eq!(call(&psci, 0, &[0xc300_0001]), -1);
        assert_eq!(call(&psci, 0, &[f::MIGRATE_64.into(), 0]), -1);
        assert_eq!(
            call(&psci, 0, &[f::CPU_SUSPEND_64.into(), 1 << 31]),
            status::INVALID_PARAMETERS
        );
        let mut x = [0; 18];
        x[0] = f::CPU_SUSPEND_64.into();
        assert_eq!(psci.call(0, &mut x), CallOutcome::Wait);
        assert_eq!(
            call(&psci, 0, &[f::SYSTEM_RESET2_64.into(), 1]),
            status::INVALID_PARAMETERS
        );
        for id in [f::SYSTEM_OFF, f::SYSTEM_RESET, f::SYSTEM_RESET2_64] {
            x = [0; 18];
            x[0] = id.into();
            assert_eq!(psci.call(0, &mut x), CallOutcome::Stop);
        }
        assert_eq!(requests.load(Ordering::SeqCst), 33);
    }

    /// Several processors turn the same one on at once, again and again: one wins each time.
    #[test]
    fn one_of_several_calls_wins() {
        let psci = Arc::new(Psci::new(&[0, 1, 2, 3], |_| {}));
        for round in 0..200u64 {
            psci.reset(0, 0);
            let callers: Vec<_> = (0..3)
                .map(|i| {
                    let psci = psci.clone();
                    std::thread::spawn(move || call(&psci, i, &on(3, round * 4)))
                })
                .collect();
            assert_eq!(
                psci.wait(3),
                Order::Start {
                    entry: round * 4,
                    context: 7
                }
            );
            let results: Vec<_> = callers.into_iter().map(|c| c.join().unwrap()).collect();
            let won = results.iter().filter(|r| **r == status::SUCCESS).count();
            assert_eq!(won, 1, "{results:?}");
            let lost = [status::ON_PENDING, status::ALREADY_ON];
            assert_eq!(results.iter().filter(|r| lost.contains(r)).count(), 2);
        }
    }
}
