//! A guest that sends back what it gets, in capitals: `cargo run -p dormer-console --example serial_echo mon:stdio`.

use device::serial::{SerialInput, SerialOutput};
use dormer_console::serial::{Hooks, SerialPort, SerialSpec, restore_on_signals};
use std::sync::Arc;

struct Echo(Arc<SerialPort>);

impl SerialInput for Echo {
    fn receive(&self, bytes: &[u8]) -> usize {
        self.0.write(&bytes.to_ascii_uppercase());
        bytes.len()
    }

    fn on_room(&self, _: Box<dyn Fn() + Send + Sync>) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = std::env::args().nth(1).unwrap_or("mon:stdio".into());
    restore_on_signals();
    let Some(port) = SerialPort::open(&SerialSpec::parse(&text)?, Hooks::default())? else {
        return Ok(());
    };
    if let Some(location) = port.location() {
        println!("{location}");
    }
    port.connect(Arc::new(Echo(port.clone())));
    loop {
        std::thread::park();
    }
}
