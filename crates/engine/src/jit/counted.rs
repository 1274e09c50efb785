//! Guest time as the number of instructions executed.
//!
//! The interpreter executes, and puts the machine's counted clock forward after each instruction; timers that are due then
//! go off on its thread, before the next one. Several processors take turns in the order of their numbers, a fixed number
//! of instructions each. One that waits (WFI, CPU_SUSPEND) is passed over until an interrupt is there for it; when all wait,
//! the thread of the one that was last has time go by, up to the next deadline. So what a machine does depends on
//! its guest alone, except for what comes from outside: lines that other threads drive, and timers that they set.
//!
//! [`crate::Vm::kick`] ends a run wherever it is, and the turn stays where it was: the next run has what was left of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aarch64::psci::{AFFINITY_MASK, function as f};
use cpu::signals::attention;
use cpu::{CallOutcome, Interpreter, Signals, World};
use memory::AddressSpace;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Executor;

/// Guest time is the number of instructions executed, by all processors together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icount {
    /// An instruction takes 2 to this power of nanoseconds; 10 at most.
    pub shift: u8,
    /// When all processors wait, the host does too; otherwise time jumps to the next deadline.
    pub sleep: bool,
}

impl Icount {
    /// The largest shift.
    pub const MOST_SHIFT: u8 = 10;
}

/// Instructions of a turn.
const TURN: u32 = 20_000;

/// A deadline from here on (146 years) is none: time would have no room left after it.
const NEVER: u64 = 1 << 62;

/// The host waits so long at once.
const WAIT: Duration = Duration::from_secs(1);

/// What a processor has to do with turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// None: it is off.
    Off,
    /// It was turned on; its turn is waited for until its thread has come.
    Awaited,
    On,
    /// It is on and waits for an interrupt.
    Waits,
}

struct Table {
    parts: Vec<Part>,
    /// Whose turn it is: one that waits has time go by.
    turn: usize,
    /// Instructions left of it.
    left: u32,
    /// How often each was turned on.
    starts: Vec<u64>,
}

/// The processors' turns.
pub struct Turns {
    icount: Icount,
    clock: device::Clock,
    processors: Vec<Arc<Signals>>,
    mpidrs: Vec<u64>,
    table: Mutex<Table>,
    moved: Condvar,
    /// All processors wait.
    idle: AtomicBool,
}

impl Turns {
    /// At power-on, for processors with those mailboxes and MPIDR values.
    pub fn new(
        icount: Icount,
        clock: &device::Clock,
        processors: &[Arc<Signals>],
        mpidrs: &[u64],
    ) -> Arc<Turns> {
        let mut parts = vec![Part::Off; processors.len()];
        if let Some(first) = parts.first_mut() {
            *first = Part::Awaited;
        }
        let turns = Arc::new(Turns {
            icount,
            clock: clock.clone(),
            processors: processors.to_vec(),
            mpidrs: mpidrs.iter().map(|m| m & AFFINITY_MASK).collect(),
            table: Mutex::new(Table {
                parts,
                turn: 0,
                left: TURN,
                starts: vec![0; processors.len()],
            }),
            moved: Condvar::new(),
            idle: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&turns);
        clock.on_earlier(move || {
            if let Some(turns) = weak.upgrade() {
                turns.look();
            }
        });
        turns
    }

    /// Something of a processor's mailbox has changed that every wait is to see.
    pub fn ring(&self) {
        drop(self.table.lock());
        self.moved.notify_all();
    }

    /// The same for what only matters when all processors wait.
    pub fn look(&self) {
        if self.idle.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    /// A processor is in power-on state: all are, and the first is about to start.
    fn reset(&self, cpu: usize) {
        let mut table = self.table.lock();
        table.parts[cpu] = if cpu == 0 { Part::Awaited } else { Part::Off };
        if cpu == 0 {
            table.turn = 0;
            table.left = TURN;
        }
    }

    /// A processor was turned on, and its thread has come.
    fn start(&self, cpu: usize) {
        let mut table = self.table.lock();
        table.parts[cpu] = Part::On;
        table.starts[cpu] += 1;
        self.moved.notify_all();
    }

    /// The index of the processor that CPU_ON names, and how often it was turned on.
    fn target(&self, id: u32, affinity: u64) -> Option<(usize, u64)> {
        let affinity = match id {
            f::CPU_ON_64 => affinity,
            f::CPU_ON_32 => affinity & 0xffff_ffff,
            _ => return None,
        };
        let index = self.mpidrs.iter().position(|m| *m == affinity)?;
        Some((index, self.table.lock().starts[index]))
    }

    /// Processor `cpu` turned another on: waits until that one's thread has come, so that what the guest sees of it does not
    /// depend on the host. A kick ends the wait; the next turn of the other is then waited for.
    fn await_start(&self, cpu: usize, (target, starts): (usize, u64)) {
        let mut table = self.table.lock();
        while table.starts[target] == starts {
            table.parts[target] = Part::Awaited;
            if is_kicked(&self.processors[cpu]) {
                return;
            }
            self.moved.wait(&mut table);
        }
    }

    /// Waits for a processor's turn, and has time go by in it if all wait: how many instructions it has. `None`: a kick,
    /// which is taken.
    fn begin(&self, cpu: usize) -> Option<u32> {
        let signals = &self.processors[cpu];
        let mut table = self.table.lock();
        if matches!(table.parts[cpu], Part::Off | Part::Awaited) {
            table.parts[cpu] = Part::On;
            self.moved.notify_all();
        }
        loop {
            if is_kicked(signals) {
                signals.cancel_kick();
                return None;
            }
            if table.turn != cpu {
                self.moved.wait(&mut table);
            } else if table.parts[cpu] != Part::Waits {
                return Some(table.left);
            } else {
                self.idle.store(true, Ordering::SeqCst);
                if !self.next(&mut table) {
                    self.pass_time(&mut table);
                }
                self.idle.store(false, Ordering::SeqCst);
            }
        }
    }

    /// The turn stays, with so many instructions left.
    fn keep(&self, left: u32) {
        self.table.lock().left = left;
    }

    /// A turn is over.
    fn end(&self, cpu: usize, part: Part) {
        let mut table = self.table.lock();
        table.parts[cpu] = part;
        if self.next(&mut table) {
            return;
        }
        // All wait; one that stays has time go by.
        let order = self.order(&table);
        let stays = order.rev().find(|i| table.parts[*i] == Part::Waits);
        if let Some(stays) = stays
            && stays != cpu
        {
            table.turn = stays;
            self.moved.notify_all();
        }
    }

    /// All processors, the one that has the turn last.
    fn order(&self, table: &Table) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let (turn, count) = (table.turn, self.processors.len());
        (1..=count).map(move |i| (turn + i) % count)
    }

    /// Gives the turn to the next processor that has something to do, if there is one.
    fn next(&self, table: &mut Table) -> bool {
        let ready = |i: &usize| match table.parts[*i] {
            Part::Off => false,
            Part::Awaited | Part::On => true,
            Part::Waits => is_woken(&self.processors[*i]),
        };
        let Some(next) = self.order(table).find(ready) else {
            return false;
        };
        // What woke it may be no interrupt after all: it finds out.
        if table.parts[next] == Part::Waits {
            table.parts[next] = Part::On;
        }
        table.turn = next;
        table.left = TURN;
        self.moved.notify_all();
        true
    }

    /// All processors wait: until the next deadline, or for something from outside.
    fn pass_time(&self, table: &mut MutexGuard<'_, Table>) {
        let now = self.clock.now();
        match self.clock.next_deadline().filter(|at| *at < NEVER) {
            None => self.moved.wait(table),
            Some(deadline) if self.icount.sleep && deadline > now => {
                let start = Instant::now();
                let left = Duration::from_nanos(deadline - now);
                self.moved.wait_for(table, left.min(WAIT));
                let waited = start.elapsed().min(left).as_nanos() as u64;
                self.clock.set(now + waited);
            }
            // A timer that is set into the past again and again does not hold time.
            Some(deadline) => self.clock.set(deadline.max(now + 1)),
        }
        // Callbacks drive lines, which ring.
        MutexGuard::unlocked(table, || self.clock.run_due());
    }
}

fn is_kicked(signals: &Signals) -> bool {
    signals.pending.load(Ordering::SeqCst) & attention::KICK != 0
}

/// Whether a processor that waits has something to look at.
fn is_woken(signals: &Signals) -> bool {
    const NOTHING: u32 = attention::KICK | attention::TLBI;
    signals.lines() != 0 || signals.pending.load(Ordering::SeqCst) & !NOTHING != 0
}

/// A processor that takes turns.
pub struct Counted {
    interpreter: Interpreter,
    turns: Arc<Turns>,
    executed: u64,
}

impl Counted {
    pub fn new(core: cpu::Core, turns: Arc<Turns>) -> Counted {
        Counted {
            interpreter: Interpreter::new(core),
            turns,
            executed: 0,
        }
    }

    fn cpu(&self) -> usize {
        self.interpreter.core().index as usize
    }
}

impl Executor for Counted {
    fn run(&mut self, world: &dyn World) -> cpu::Exit {
        let cpu = self.cpu();
        let turns = self.turns.clone();
        let step = 1 << turns.icount.shift;
        loop {
            let Some(mut left) = turns.begin(cpu) else {
                return cpu::Exit::Kicked;
            };
            let watched = Watched {
                world,
                turns: &turns,
                ended: AtomicBool::new(false),
            };
            let before = left;
            let exit = self.interpreter.count(&watched, || {
                left -= 1;
                if turns.clock.advance(step) {
                    turns.clock.run_due();
                }
                left > 0
            });
            self.executed += u64::from(before - left);
            match exit {
                None if self.interpreter.waits() => turns.end(cpu, Part::Waits),
                None => turns.end(cpu, Part::On),
                // Nothing is executed any more before the machine is reset.
                Some(cpu::Exit::Off) if watched.ended.into_inner() => return cpu::Exit::Off,
                Some(cpu::Exit::Off) => {
                    turns.end(cpu, Part::Off);
                    return cpu::Exit::Off;
                }
                Some(exit) => {
                    turns.keep(left);
                    return exit;
                }
            }
        }
    }

    fn interpreter(&self) -> &Interpreter {
        &self.interpreter
    }

    fn interpreter_mut(&mut self) -> &mut Interpreter {
        &mut self.interpreter
    }

    fn was_reset(&mut self) {
        self.turns.reset(self.cpu());
    }

    fn was_started(&mut self) {
        self.turns.start(self.cpu());
    }

    fn report(&mut self) -> Option<String> {
        Some(format!("{} instructions executed", self.executed))
    }
}

/// The world, and what calls mean for turns.
struct Watched<'a> {
    world: &'a dyn World,
    turns: &'a Turns,
    /// A call has ended or reset the machine.
    ended: AtomicBool,
}

impl World for Watched<'_> {
    fn space(&self) -> &AddressSpace {
        self.world.space()
    }

    fn read_system_register(&self, cpu: u32, register: u16) -> Option<u64> {
        self.world.read_system_register(cpu, register)
    }

    fn write_system_register(&self, cpu: u32, register: u16, value: u64) -> Option<()> {
        self.world.write_system_register(cpu, register, value)
    }

    fn private_interrupt(&self, cpu: u32, intid: u32, level: bool) {
        self.world.private_interrupt(cpu, intid, level);
    }

    fn call(&self, cpu: u32, x: &mut [u64; 18]) -> CallOutcome {
        let id = x[0] as u32;
        let target = self.turns.target(id, x[1]);
        let outcome = self.world.call(cpu, x);
        match outcome {
            CallOutcome::Stop => self.ended.store(id != f::CPU_OFF, Ordering::SeqCst),
            CallOutcome::Resume if x[0] == 0 => {
                if let Some(target) = target {
                    self.turns.await_start(cpu as usize, target);
                }
            }
            CallOutcome::Resume | CallOutcome::Wait => {}
        }
        outcome
    }
}
