//! PL061 GPIO (Arm DDI 0190B) with the machine's power button on pin 3.

use std::sync::{Arc, Weak};

use device::{Access, Clock, Device, Line, Mmio, Registers, Timer};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::primecell;

/// Register offsets (DDI 0190B, table 3-1).
pub mod registers {
    /// The last of the 256 places of GPIODATA; address bits 9:2 say which pins an access is about.
    pub const GPIODATA_LAST: u64 = 0x3fc;
    /// Direction: 1 is output.
    pub const GPIODIR: u64 = 0x400;
    /// Interrupt sense: 1 is level.
    pub const GPIOIS: u64 = 0x404;
    /// Both edges.
    pub const GPIOIBE: u64 = 0x408;
    /// Interrupt event: 1 is rising or high.
    pub const GPIOIEV: u64 = 0x40c;
    /// Interrupt mask: 1 lets through.
    pub const GPIOIE: u64 = 0x410;
    pub const GPIORIS: u64 = 0x414;
    pub const GPIOMIS: u64 = 0x418;
    pub const GPIOIC: u64 = 0x41c;
    pub const GPIOAFSEL: u64 = 0x420;

    /// PeriphID0–3: part 0x061, Arm.
    pub const PERIPHERAL_ID: [u8; 4] = [0x61, 0x10, 0x04, 0x00];
}

use registers::*;

/// The pin of the power button.
pub const POWER_BUTTON: u8 = 3;

/// How long a press lasts: longer than the debouncing of drivers, which look at the pin after some milliseconds.
const PRESS: u64 = 100_000_000;

/// What the board decides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name for logs.
    pub name: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: "pl061".into(),
        }
    }
}

/// Everything a guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Levels at the pins that are inputs.
    inputs: u8,
    /// What was written for the pins that are outputs.
    outputs: u8,
    direction: u8,
    sense: u8,
    both_edges: u8,
    event: u8,
    mask: u8,
    /// Edges seen and not cleared.
    edges: u8,
    alternate: u8,
    /// Guest time at which the power button is let go.
    release: Option<u64>,
}

impl State {
    /// The state after power-on or reset.
    pub fn power_on(_: &Config) -> State {
        State {
            inputs: 0,
            outputs: 0,
            direction: 0,
            sense: 0,
            both_edges: 0,
            event: 0,
            mask: 0,
            edges: 0,
            alternate: 0,
            release: None,
        }
    }

    fn pins(&self) -> u8 {
        self.inputs & !self.direction | self.outputs & self.direction
    }

    /// GPIORIS: latched edges, and present levels of the pins that are sensed by level (3.3.7).
    fn raw(&self) -> u8 {
        let level = !(self.pins() ^ self.event) & !self.direction;
        level & self.sense | self.edges & !self.sense
    }

    /// Makes a change that may move pins, and latches the edges (2.2.2).
    fn change(&mut self, change: impl FnOnce(&mut State)) {
        let before = self.pins();
        change(self);
        let moved = (before ^ self.pins()) & !self.direction & !self.sense;
        let wanted = self.both_edges | !(self.pins() ^ self.event);
        self.edges |= moved & wanted;
    }
}

/// The device.
pub struct Pl061 {
    config: Config,
    state: Mutex<State>,
    line: Line,
    clock: Clock,
    timer: Timer,
}

impl Pl061 {
    /// A GPIO block that interrupts by `line` (level-high).
    pub fn new(config: Config, line: Line, clock: &Clock) -> Arc<Pl061> {
        Arc::new_cyclic(|this: &Weak<Pl061>| {
            let this = this.clone();
            let timer = clock.timer(move || {
                if let Some(gpio) = this.upgrade() {
                    gpio.release();
                }
            });
            Pl061 {
                state: Mutex::new(State::power_on(&config)),
                config,
                line,
                clock: clock.clone(),
                timer,
            }
        })
    }

    /// Presses the power button and lets it go a little later.
    pub fn press(&self) {
        let mut state = self.state.lock();
        state.change(|s| s.inputs |= 1 << POWER_BUTTON);
        state.release = Some(self.clock.now().saturating_add(PRESS));
        self.update(&state);
    }

    fn release(&self) {
        let mut state = self.state.lock();
        if state.release.is_some_and(|at| at <= self.clock.now()) {
            state.release = None;
            state.change(|s| s.inputs &= !(1 << POWER_BUTTON));
            self.update(&state);
        }
    }

    /// The state, for a snapshot.
    pub fn save(&self) -> State {
        self.state.lock().clone()
    }

    /// Takes over a saved state.
    pub fn restore(&self, state: State) {
        let mut now = self.state.lock();
        *now = state;
        self.update(&now);
    }

    /// Derives line and timer from the state.
    fn update(&self, state: &State) {
        self.line.set(state.raw() & state.mask != 0);
        match state.release {
            Some(at) => self.timer.arm(at),
            None => self.timer.cancel(),
        }
    }
}

impl Registers for Pl061 {
    fn read_register(&self, offset: u64, _: u32) -> u32 {
        let state = self.state.lock();
        let value = match offset {
            0..=GPIODATA_LAST => state.pins() & (offset >> 2) as u8,
            GPIODIR => state.direction,
            GPIOIS => state.sense,
            GPIOIBE => state.both_edges,
            GPIOIEV => state.event,
            GPIOIE => state.mask,
            GPIORIS => state.raw(),
            GPIOMIS => state.raw() & state.mask,
            GPIOAFSEL => state.alternate,
            _ => {
                return primecell::identification(PERIPHERAL_ID, offset).unwrap_or_else(|| {
                    tracing::debug!(name = self.config.name, offset, "read of no register");
                    0
                });
            }
        };
        u32::from(value)
    }

    fn write_register(&self, offset: u64, _: u32, value: u32, mask: u32) {
        // All registers are 8 bits wide.
        if mask & 0xff == 0 {
            return;
        }
        let value = value as u8;
        let mut state = self.state.lock();
        match offset {
            0..=GPIODATA_LAST => {
                let pins = (offset >> 2) as u8;
                state.change(|s| s.outputs = s.outputs & !pins | value & pins);
            }
            GPIODIR => state.change(|s| s.direction = value),
            GPIOIS => state.sense = value,
            GPIOIBE => state.both_edges = value,
            GPIOIEV => state.event = value,
            GPIOIE => state.mask = value,
            GPIOIC => state.edges &= !value,
            GPIOAFSEL => state.alternate = value,
            _ => tracing::debug!(
                name = self.config.name,
                offset,
                value,
                "write to no register"
            ),
        }
        self.update(&state);
    }
}

impl Mmio for Pl061 {
    fn read(&self, access: Access) -> u64 {
        self.read_any(access)
    }

    fn write(&self, access: Access, value: u64) {
        self.write_any(access, value);
    }
}

impl Device for Pl061 {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        *state = State::power_on(&self.config);
        self.update(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn bench() -> (Arc<Pl061>, Arc<AtomicBool>) {
        let (line, level) = Line::probe();
        (Pl061::new(Config::default(), line, &Clock::new()), level)
    }

    fn read(gpio: &Pl061, offset: u64) -> u32 {
        gpio.read(Access::new(offset, 4)) as u32
    }

    fn write(gpio: &Pl061, offset: u64, value: u32) {
        gpio.write(Access::new(offset, 4), value.into());
    }

    #[test]
    fn a_press_is_an_edge_up_and_an_edge_down() {
        let (gpio, level) = bench();
        write(&gpio, GPIOIBE, 8);
        write(&gpio, GPIOIE, 8);
        gpio.press();
        assert!(level.load(Ordering::SeqCst));
        assert_eq!(read(&gpio, 0x3fc), 8);
        assert_eq!(read(&gpio, 8 << 2), 8);
        assert_eq!(read(&gpio, 7 << 2), 0);
        write(&gpio, GPIOIC, 8);
        assert!(!level.load(Ordering::SeqCst));
        let start = std::time::Instant::now();
        while !level.load(Ordering::SeqCst) {
            assert!(start.elapsed().as_secs() < 20, "never let go");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(read(&gpio, 0x3fc), 0);
        assert_eq!(read(&gpio, GPIOMIS), 8);
    }

    #[test]
    fn levels_and_single_edges() {
        let (gpio, level) = bench();
        write(&gpio, GPIOIE, 8);
        gpio.press();
        assert!(!level.load(Ordering::SeqCst), "falling edges only");
        write(&gpio, GPIOIS, 8);
        write(&gpio, GPIOIEV, 8);
        assert!(level.load(Ordering::SeqCst));
        write(&gpio, GPIOIC, 8);
        assert!(level.load(Ordering::SeqCst), "a level cannot be cleared");
        write(&gpio, GPIOIEV, 0);
        assert!(!level.load(Ordering::SeqCst));
    }

    #[test]
    fn outputs_are_written_through_the_address_mask() {
        let (gpio, _) = bench();
        write(&gpio, GPIODIR, 0xf0);
        write(&gpio, 0x30 << 2, 0xff);
        assert_eq!(read(&gpio, 0x3fc), 0x30);
        assert_eq!(read(&gpio, 0xfe0), 0x61);
        gpio.reset();
        assert_eq!(gpio.save(), State::power_on(&Config::default()));
    }

    proptest! {
        #[test]
        fn survives_anything(
            steps in prop::collection::vec((0u64..0x1000, 0usize..4, any::<u64>(), 0u8..8), 1..100)
        ) {
            let (gpio, level) = bench();
            for (offset, width, value, kind) in steps {
                let offset = if kind & 4 == 0 { 0x400 | offset & 0x3f } else { offset };
                let access = Access::new(offset, 1 << width);
                match kind & 3 {
                    0 => drop(gpio.read(access)),
                    1 | 2 => gpio.write(access, value & access.mask()),
                    _ => gpio.press(),
                }
                let state = gpio.state.lock();
                prop_assert_eq!(level.load(Ordering::SeqCst), state.raw() & state.mask != 0);
            }
        }
    }
}
