//! The interpreter or the translator, one instruction at a time, at EL0.

use std::sync::Arc;

use anyhow::Result;
use cpu::{CallOutcome, Clock, Core, Features, Interpreter, Shared, World};
use memory::{AddressSpace, Mapping, Ram};

use crate::{BRK, CODE, Case, DATA, End, Outcome, PAGE, SLOT, SLOTS, State, WINDOW};

const RAM: u64 = 0x4000_0000;
const RAM_SIZE: u64 = 0x40_0000;
/// Translation tables: levels 1, 2 and 3.
const TABLES: u64 = RAM + 0x20_0000;

struct Still;

impl Clock for Still {
    fn now(&self) -> u64 {
        0
    }

    fn arm(&self, _: u32, _: u64) {}
}

struct Bare {
    space: AddressSpace,
}

impl World for Bare {
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

    fn call(&self, _: u32, _: &mut [u64; 18]) -> CallOutcome {
        CallOutcome::Resume
    }
}

/// What executes.
enum Executor {
    Interpreter(Box<Interpreter>),
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Translator(Box<jit::Translator>),
}

impl Executor {
    fn interpreter(&mut self) -> &mut Interpreter {
        match self {
            Executor::Interpreter(interpreter) => interpreter,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Executor::Translator(translator) => translator.interpreter_mut(),
        }
    }

    fn step(&mut self, world: &dyn World) {
        match self {
            Executor::Interpreter(interpreter) => interpreter.step(world),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Executor::Translator(translator) => translator.step(world),
        };
    }
}

/// What executes on our side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    #[default]
    Interpreter,
    /// Generated code, by a host without some features.
    Baseline { without: Vec<&'static str> },
}

/// A processor, with the oracle's memory around it.
pub struct Subject {
    executor: Executor,
    world: Bare,
    ram: Ram,
}

/// What a run says beyond the outcome.
pub struct Run {
    pub outcome: Outcome,
    /// FAR_EL1 of a fault.
    pub fault: u64,
}

impl Subject {
    /// A processor of the oracle's model, at EL0 with the oracle's pages mapped as they are there.
    pub fn new(tier: &Tier) -> Result<Subject> {
        let ram = Ram::new(&[(RAM, RAM_SIZE)])?;
        let space = AddressSpace::new();
        for (start, size, host) in ram.ranges() {
            space.map(
                start,
                size,
                Mapping::Ram {
                    host: host as usize,
                },
            )?;
        }
        ram.report_writes_to(space.code());
        let dma = ram.dma();
        let table = 3;
        // Page, access flag, inner shareable, EL0 read and write, attribute 0; executable.
        let page = 3 | 1 << 10 | 3 << 8 | 1 << 6;
        let never_executable = 1 << 54 | 1 << 53;
        let level2 = TABLES + PAGE;
        let level3 = TABLES + 2 * PAGE;
        dma.write_u64(TABLES + 8 * (RAM >> 30), level2 | table)?;
        dma.write_u64(level2, level3 | table)?;
        let entry = |address: u64| level3 + 8 * ((address - RAM) / PAGE);
        dma.write_u64(entry(WINDOW), WINDOW | page | never_executable)?;
        for i in 0..SLOT * SLOTS as u64 / PAGE {
            let address = CODE + i * PAGE;
            // Read-only: no case may change another.
            dma.write_u64(entry(address), address | page | 1 << 7)?;
        }

        let features = Arc::new(Features::model("neoverse-n1")?);
        let shared = Arc::new(Shared::new(1, Arc::new(Still), 62_500_000));
        let mut core = Core::new(0, 1 << 31, features, shared);
        let state = &mut core.state;
        state.pstate = 0;
        state.ttbr0[1] = TABLES;
        // 39 bits of address from TTBR0, none from TTBR1; top byte ignored; 48 bits of physical address.
        state.tcr[1] = 25 | 25 << 16 | 1 << 23 | 1 << 37 | 5 << 32 | 2 << 30 | 0x3500_3500;
        state.mair[1] = 0xff;
        // M, C, I, DZE, UCT, nTWI, nTWE, UCI.
        state.sctlr[1] |= 1 | 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 26;
        state.cpacr[1] = 3 << 20;
        state.vbar[1] = CODE;
        core.refresh();
        Ok(Subject {
            executor: executor(core, tier)?,
            world: Bare { space },
            ram,
        })
    }

    /// Puts the instructions of a batch in their slots.
    pub fn place(&mut self, words: impl Iterator<Item = (u32, u32)>) -> Result<()> {
        let mut code = Vec::with_capacity(SLOTS * SLOT as usize);
        for (word, then) in words {
            code.extend(word.to_le_bytes());
            code.extend(then.to_le_bytes());
            for _ in 2..SLOT / 4 {
                code.extend(BRK.to_le_bytes());
            }
        }
        while code.len() < SLOTS * SLOT as usize {
            code.extend(BRK.to_le_bytes());
        }
        Ok(self.ram.dma().write(CODE, &code)?)
    }

    /// Executes the instruction of a slot, and the second if `both` and the first went on to it.
    pub fn run(&mut self, slot: usize, state: &State, both: bool) -> Result<Run> {
        let dma = self.ram.dma();
        dma.fill(WINDOW, PAGE - DATA as u64, 0)?;
        dma.write(WINDOW + PAGE - DATA as u64, &state.data)?;
        let core = self.executor.interpreter().core_mut();
        let pc = CODE + SLOT * slot as u64;
        let s = &mut core.state;
        s.x[..31].copy_from_slice(&state.x);
        s.x[31] = state.sp;
        s.v = state.v;
        s.nzcv = state.nzcv;
        s.fpcr = state.fpcr;
        s.fpsr = state.fpsr;
        s.pc = pc;
        s.el = 0;
        s.sp_sel = false;
        s.pstate = 0;
        s.monitor.armed = false;
        core.refresh();
        self.executor.step(&self.world);
        let s = &self.executor.interpreter().core().state;
        if both && s.el == 0 && s.pc == pc + 4 {
            self.executor.step(&self.world);
        }

        let s = &self.executor.interpreter().core().state;
        let end = if s.el == 0 {
            End::Next(s.pc)
        } else {
            let (class, fault_status) = (s.esr[1] >> 26, s.esr[1] & 0x3f);
            match class {
                0 => End::Undefined,
                0x3c => End::Breakpoint,
                0x24 if fault_status == 0x21 => End::Alignment,
                0x24 => End::DataFault,
                class => End::Other(class << 8 | fault_status),
            }
        };
        let sp = if s.el == 0 { s.x[31] } else { s.sp[0] };
        let nzcv = if s.el == 0 {
            s.nzcv
        } else {
            s.spsr[1] as u32 & 0xf000_0000
        };
        let fault = s.far[1];
        let mut after = State {
            x: std::array::from_fn(|i| s.x[i]),
            sp,
            nzcv,
            fpcr: s.fpcr,
            fpsr: s.fpsr,
            v: s.v,
            data: [0; DATA],
            rest: 0,
        };
        dma.read(WINDOW + PAGE - DATA as u64, &mut after.data)?;
        let mut rest = [0; PAGE as usize - DATA];
        dma.read(WINDOW, &mut rest)?;
        let (words, _) = rest.as_chunks::<8>();
        for word in words {
            after.rest = after
                .rest
                .wrapping_mul(31)
                .wrapping_add(u64::from_le_bytes(*word));
        }
        Ok(Run {
            outcome: Outcome { end, state: after },
            fault,
        })
    }

    /// Executes one case in the first slot.
    pub fn run_alone(&mut self, case: &Case) -> Result<Run> {
        self.ram.dma().write_u32(CODE, case.word)?;
        self.run(0, &case.state, false)
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn executor(core: Core, tier: &Tier) -> Result<Executor> {
    let Tier::Baseline { without } = tier else {
        return Ok(Executor::Interpreter(Box::new(Interpreter::new(core))));
    };
    anyhow::ensure!(
        jit::HostFeatures::is_enough(),
        "this host lacks what the translator needs: AVX2, BMI2, LZCNT, SSE4.2"
    );
    let mut features = jit::HostFeatures::detect();
    for name in without {
        anyhow::ensure!(features.mask(name), "there is no host feature {name}");
    }
    let options = jit::Options {
        cache: 16 << 20,
        features,
        warm: 0,
        hot: None,
        perf_map: None,
    };
    let translator = jit::Translator::new(core, &options)?;
    Ok(Executor::Translator(Box::new(translator)))
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn executor(core: Core, tier: &Tier) -> Result<Executor> {
    anyhow::ensure!(
        *tier == Tier::Interpreter,
        "the translator has no back end for this host"
    );
    Ok(Executor::Interpreter(Box::new(Interpreter::new(core))))
}
