//! The device behind the ACPI generic event device (ACPI 6.3, 5.6.9): it says which events there were.
//!
//! The DSDT's `GED` (ACPI0013) names the interrupt; its `_EVT` method reads the one register here and notifies the
//! devices whose bits are set. The register is that of QEMU's board: reading gives and clears what is pending.

use std::sync::Arc;

use device::{Access, Device, Line, Mmio};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Offset of the event selector: 32 bits, cleared by reading.
pub const EVT_SEL: u64 = 0;
/// Size of the register block in bytes.
pub const SIZE: u64 = 4;

/// Event: the power button was pressed.
pub const EVENT_POWER_BUTTON: u32 = 1 << 1;

/// What the board decides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name for logs.
    pub name: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { name: "ged".into() }
    }
}

/// Everything a guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pending: u32,
}

impl State {
    /// The state after power-on or reset.
    pub fn power_on(_: &Config) -> State {
        State { pending: 0 }
    }
}

/// The device.
pub struct Ged {
    config: Config,
    state: Mutex<State>,
    line: Line,
}

impl Ged {
    /// A device that pulses `line` (edge-triggered) for each event.
    pub fn new(config: Config, line: Line) -> Arc<Ged> {
        Arc::new(Ged {
            state: Mutex::new(State::power_on(&config)),
            config,
            line,
        })
    }

    /// Presses the power button.
    pub fn press(&self) {
        self.state.lock().pending |= EVENT_POWER_BUTTON;
        self.line.pulse();
    }

    /// The state, for a snapshot.
    pub fn save(&self) -> State {
        self.state.lock().clone()
    }

    /// Takes over a saved state. The edge of a pending event is the interrupt controller's to remember.
    pub fn restore(&self, state: State) {
        *self.state.lock() = state;
    }
}

impl Mmio for Ged {
    fn read(&self, access: Access) -> u64 {
        if access.offset != EVT_SEL || access.width < 4 {
            tracing::debug!(
                name = self.config.name,
                access.offset,
                access.width,
                "odd read"
            );
            return 0;
        }
        u64::from(std::mem::take(&mut self.state.lock().pending))
    }

    fn write(&self, access: Access, value: u64) {
        tracing::debug!(
            name = self.config.name,
            access.offset,
            value,
            "write to a read-only register"
        );
    }
}

impl Device for Ged {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reset(&self) {
        *self.state.lock() = State::power_on(&self.config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn tells_each_event_once() {
        let edges = Arc::new(AtomicU32::new(0));
        let count = edges.clone();
        let sink = move |_: u32, level: bool| {
            count.fetch_add(level.into(), Ordering::SeqCst);
        };
        let ged = Ged::new(Config::default(), Line::new(Arc::new(sink), 9));
        assert_eq!(ged.read(Access::new(EVT_SEL, 4)), 0);
        ged.press();
        assert_eq!(edges.load(Ordering::SeqCst), 1);
        assert_eq!(
            ged.read(Access::new(EVT_SEL, 1)),
            0,
            "only whole reads clear"
        );
        ged.write(Access::new(EVT_SEL, 4), 0);
        assert_eq!(
            ged.read(Access::new(EVT_SEL, 4)),
            u64::from(EVENT_POWER_BUTTON)
        );
        assert_eq!(ged.read(Access::new(EVT_SEL, 4)), 0);
        ged.press();
        ged.reset();
        assert_eq!(ged.save(), State::power_on(&Config::default()));
    }
}
