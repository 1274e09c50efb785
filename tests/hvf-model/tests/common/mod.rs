//! A machine on any engine, and the far side of its serial line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use device::serial::SerialOutput;
use engine::Engine;
use machine::description::Description;
use machine::{Board, Machine};
use parking_lot::{Condvar, Mutex};

/// For a slow, busy machine.
pub const PATIENCE: Duration = Duration::from_secs(200);

/// The far side of the machine's UART.
#[derive(Default)]
struct Console {
    said: Mutex<Vec<u8>>,
    grown: Condvar,
}

impl SerialOutput for Console {
    fn write(&self, bytes: &[u8]) {
        self.said.lock().extend_from_slice(bytes);
        self.grown.notify_all();
    }
}

/// A machine that runs.
pub struct Running {
    pub machine: Machine,
    console: Arc<Console>,
    seen: usize,
}

impl Running {
    pub fn start(engine: &dyn Engine, description: &Description) -> Result<Running> {
        let console = Arc::new(Console::default());
        let board = Board::build_on(engine, description, console.clone())?;
        Ok(Running {
            machine: Machine::start(board)?,
            console,
            seen: 0,
        })
    }

    /// Waits until the serial line has said `text` since the last time.
    pub fn expect(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.console.said.lock();
        loop {
            let new = &said[self.seen..];
            if let Some(at) = new
                .windows(text.len())
                .position(|window| window == text.as_bytes())
            {
                self.seen += at + text.len();
                return Ok(());
            }
            if self
                .console
                .grown
                .wait_until(&mut said, deadline)
                .timed_out()
            {
                let tail = String::from_utf8_lossy(&said[self.seen..]).into_owned();
                bail!("waited too long for {text:?}; the serial line said:\n{tail}");
            }
        }
    }

    /// Types.
    #[allow(dead_code)] // not every test does
    pub fn send(&self, text: &str) {
        let input = self.machine.handle().board().serial_input();
        let mut left = text.as_bytes();
        while !left.is_empty() {
            left = &left[input.receive(left)..];
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All that the serial line has said.
    #[allow(dead_code)] // not every test asks
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.console.said.lock()).into_owned()
    }
}
