//! The machine that programs run on: RAM, one register of a device, one processor.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use engine::{
    CallOutcome, Config, Engine, Exit, Features, GicPlan, State, Translation, Vcpu, Vm, World,
};
use memory::{AddressSpace, Dma, Mapping, Mmio, Ram};

use crate::layout::{self, DEVICE_AT, RAM, SIZE};
use crate::program::Program;

/// A way to run programs.
#[derive(Clone, Debug)]
pub struct Way {
    pub name: String,
    pub translation: Translation,
}

/// A call with this in X0 ends a program; any other only tells what is in X1 to X17.
pub const END: u64 = 0xdead;

/// Longer than any program takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of a program.
#[derive(Clone, PartialEq)]
pub struct Outcome {
    pub state: Vec<(String, u128)>,
    pub memory: Vec<u8>,
    /// Sums of the registers at each call.
    pub calls: Vec<u64>,
    /// It was stopped from outside.
    pub hung: bool,
}

/// A machine. Programs run on it one after the other, as on a real one: nothing is forgotten between them that the
/// architecture would not forget.
pub struct Machine {
    surroundings: Surroundings,
    vcpu: Box<dyn Vcpu>,
    dma: Dma,
    /// Tells when a run begins, and when it has ended.
    watch: mpsc::Sender<bool>,
}

struct Surroundings {
    space: AddressSpace,
    latch: Arc<Latch>,
    calls: Mutex<Vec<u64>>,
    _ram: Ram,
}

#[derive(Default)]
struct Latch(AtomicU64);

impl Mmio for Latch {
    fn read(&self, access: memory::Access) -> u64 {
        self.0.load(Ordering::SeqCst) ^ access.offset
    }

    fn write(&self, access: memory::Access, value: u64) {
        self.0
            .store(value ^ u64::from(access.width) << 56, Ordering::SeqCst);
    }
}

impl World for Surroundings {
    fn space(&self) -> &AddressSpace {
        &self.space
    }

    fn read_system_register(&self, _: u32, _: u16) -> Option<u64> {
        None
    }

    fn write_system_register(&self, _: u32, _: u16, _: u64) -> Option<()> {
        None
    }

    fn private_interrupt(&self, _: u32, _: u32, _: bool) {}

    fn call(&self, _: u32, x: &mut [u64; 18]) -> CallOutcome {
        let sum = x.iter().fold(0u64, |sum, x| {
            (sum.rotate_left(7) ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        if let Ok(mut calls) = self.calls.lock() {
            calls.push(sum);
        }
        if x[0] == END {
            CallOutcome::Stop
        } else {
            CallOutcome::Resume
        }
    }
}

impl Machine {
    /// A new one.
    pub fn new(way: &Way) -> Result<Machine> {
        let ram = Ram::new(&[(RAM, SIZE)])?;
        let space = AddressSpace::new();
        for (start, size, host) in ram.ranges() {
            let host = host as usize;
            space.map(start, size, Mapping::Ram { host })?;
        }
        ram.report_writes_to(space.code());
        let latch = Arc::new(Latch::default());
        space.map(DEVICE_AT, 0x1000, Mapping::Mmio(latch.clone()))?;
        let config = Config {
            mpidrs: vec![0],
            features: Arc::new(Features::model("max")?),
            frequency: 62_500_000,
            clock: device::Clock::new(),
            translation: way.translation.clone(),
            icount: None,
            address_bits: 40,
            granule: 64 << 10,
            // There is none; the engine does without.
            gic: GicPlan::V2 {
                distributor: 0x0800_0000,
                cpu_interface: 0x0801_0000,
            },
        };
        let vm = engine::jit::Jit.create(config)?;
        let vcpu = vm.vcpu(0)?;
        Ok(Machine {
            dma: ram.dma(),
            surroundings: Surroundings {
                space,
                latch,
                calls: Mutex::default(),
                _ram: ram,
            },
            vcpu,
            watch: watchdog(vm),
        })
    }

    /// Runs a program from its start to its end.
    pub fn run(&mut self, program: &Program) -> Result<Outcome> {
        self.load(program)?;
        self.vcpu.reset();
        let mut state = self.vcpu.state()?;
        program.start(&mut state);
        self.vcpu.set_state(&state)?;
        if let Ok(mut calls) = self.surroundings.calls.lock() {
            calls.clear();
        }
        self.watch.send(true).context("the watchdog is gone")?;
        let exit = self.vcpu.run(&self.surroundings);
        self.watch.send(false).context("the watchdog is gone")?;
        let hung = match exit {
            Exit::Off => false,
            Exit::Kicked => true,
            Exit::Debug(stop) => bail!("stopped for a debugger: {stop:?}"),
            Exit::Fault(what) => bail!("the engine gave up: {what}"),
        };
        let mut memory = vec![0; SIZE as usize];
        self.dma.read(RAM, &mut memory)?;
        let calls = match self.surroundings.calls.lock() {
            Ok(calls) => calls.clone(),
            Err(_) => bail!("a call panicked"),
        };
        let mut state = fields(&self.vcpu.state()?);
        let latch = self.surroundings.latch.0.load(Ordering::SeqCst);
        state.push(("device".into(), latch.into()));
        Ok(Outcome {
            state,
            memory,
            calls,
            hung,
        })
    }

    fn load(&mut self, program: &Program) -> Result<()> {
        self.surroundings.latch.0.store(0, Ordering::SeqCst);
        let mut memory = program.memory.clone();
        memory.resize(SIZE as usize, 0);
        for (address, entry) in layout::tables() {
            let at = (address - RAM) as usize;
            memory[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        }
        self.dma.write(RAM, &memory)?;
        Ok(())
    }
}

/// Kicks the processor out of a run that takes too long.
fn watchdog(vm: Arc<dyn Vm>) -> mpsc::Sender<bool> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(running) = receiver.recv() {
            if running && receiver.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                vm.kick(0);
                // Its end, which comes now.
                let _ = receiver.recv();
            }
        }
    });
    sender
}

/// What is compared of a state: all that a guest can see.
fn fields(state: &State) -> Vec<(String, u128)> {
    let mut fields = Vec::new();
    let mut add = |name: String, value: u128| fields.push((name, value));
    for (i, x) in state.x.iter().enumerate() {
        add(format!("x{i}"), (*x).into());
    }
    for (i, v) in state.v.iter().enumerate() {
        add(format!("v{i}"), *v);
    }
    add("pc".into(), state.pc.into());
    add("nzcv".into(), state.nzcv.into());
    add("pstate".into(), state.pstate.into());
    add("el".into(), state.el.into());
    add("spsel".into(), state.sp_sel.into());
    let in_use = if state.sp_sel {
        usize::from(state.el)
    } else {
        0
    };
    for el in [0, 1] {
        if el != in_use {
            add(format!("sp_el{el}"), state.sp[el].into());
        }
    }
    add("fpcr".into(), state.fpcr.into());
    add("fpsr".into(), state.fpsr.into());
    for (name, value) in [
        ("elr", state.elr[1]),
        ("spsr", state.spsr[1]),
        ("esr", state.esr[1]),
        ("far", state.far[1]),
        ("par", state.par_el1),
        ("tpidr_el0", state.tpidr[0]),
        ("tpidr_el1", state.tpidr[1]),
        ("tpidrro", state.tpidrro_el0),
        ("ttbr0", state.ttbr0[1]),
        ("sctlr", state.sctlr[1]),
        ("monitor", state.monitor.armed.into()),
    ] {
        add(name.into(), value.into());
    }
    fields
}
