//! A reset comes to every processor before any runs: an engine that has PSCI of its own relies on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dormer_machine::control::Cause;
use dormer_machine::description::Description;
use dormer_machine::{Board, Machine};
use engine::{AddressBits, Config, Engine, Error, Exit, InterruptController, Vcpu, Vm, World};

const CPUS: u32 = 3;

/// What the processors have done.
#[derive(Default)]
struct Seen {
    resets: [AtomicU64; CPUS as usize],
    /// Runs since the last count.
    runs: [AtomicU64; CPUS as usize],
    kicked: [AtomicBool; CPUS as usize],
    /// A processor ran before another had been reset.
    early: AtomicBool,
}

struct Fake(Arc<Seen>);

impl Engine for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn address_bits(&self) -> AddressBits {
        AddressBits {
            most: 48,
            preferred: 48,
        }
    }

    fn create(&self, _: Config) -> Result<Arc<dyn Vm>, Error> {
        Ok(Arc::new(FakeVm(self.0.clone())))
    }
}

struct FakeVm(Arc<Seen>);

impl Vm for FakeVm {
    fn interrupt_controller(&self) -> InterruptController {
        InterruptController::Ours
    }

    fn powers_processors(&self) -> bool {
        true
    }

    fn frequency(&self) -> u64 {
        62_500_000
    }

    fn map(&self, _: u64, _: u64, _: usize, _: bool) -> Result<(), Error> {
        Ok(())
    }

    fn unmap(&self, _: u64, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, Error> {
        Ok(Box::new(FakeVcpu {
            seen: self.0.clone(),
            index: index as usize,
        }))
    }

    fn set_irq(&self, _: u32, _: bool) {}

    fn set_fiq(&self, _: u32, _: bool) {}

    fn kick(&self, cpu: u32) {
        self.0.kicked[cpu as usize].store(true, Ordering::SeqCst);
    }
}

struct FakeVcpu {
    seen: Arc<Seen>,
    index: usize,
}

impl Vcpu for FakeVcpu {
    fn run(&mut self, _: &dyn World) -> Exit {
        let mine = self.seen.resets[self.index].load(Ordering::SeqCst);
        if self
            .seen
            .resets
            .iter()
            .any(|other| other.load(Ordering::SeqCst) != mine)
        {
            self.seen.early.store(true, Ordering::SeqCst);
        }
        self.seen.runs[self.index].fetch_add(1, Ordering::SeqCst);
        while !self.seen.kicked[self.index].swap(false, Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Exit::Kicked
    }

    fn reset(&mut self) {
        // The later ones take their time.
        std::thread::sleep(Duration::from_millis(20 * self.index as u64));
        self.seen.resets[self.index].fetch_add(1, Ordering::SeqCst);
    }

    /// In the place of a reset again.
    fn start(&mut self, _: u64, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn state(&mut self) -> Result<engine::State, Error> {
        Err(Error::State("a fake has none".into()))
    }

    fn set_state(&mut self, _: &engine::State) -> Result<(), Error> {
        Err(Error::State("a fake has none".into()))
    }
}

struct Silence;

impl device::serial::SerialOutput for Silence {
    fn write(&self, _: &[u8]) {}
}

#[test]
fn none_runs_before_all_are_reset() {
    let seen = Arc::new(Seen::default());
    let description = Description {
        cpus: CPUS,
        ..Description::default()
    };
    let board = Board::build_on(&Fake(seen.clone()), &description, Arc::new(Silence)).unwrap();
    let machine = Machine::start(board).unwrap();
    for round in 1..=5 {
        let end = Instant::now() + Duration::from_secs(20);
        while seen
            .runs
            .iter()
            .any(|runs| runs.load(Ordering::SeqCst) == 0)
        {
            assert!(Instant::now() < end, "a processor does not run");
            std::thread::sleep(Duration::from_millis(1));
        }
        for resets in &seen.resets {
            assert_eq!(resets.load(Ordering::SeqCst), round);
        }
        for runs in &seen.runs {
            runs.store(0, Ordering::SeqCst);
        }
        machine.handle().reset(Cause::HostQmpReset).unwrap();
    }
    machine.handle().quit(Cause::HostQmpQuit).unwrap();
    assert!(!seen.early.load(Ordering::SeqCst));
}
