//! Stock firmware and the distribution's kernel on the `hvf` engine and the model of its framework. Not seen to pass yet, so
//! no test of each change: `cargo run --release -p dormer-hvf-model --example boot`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use device::serial::SerialOutput;
use engine::hvf::Hvf;
use guests::packages::Suite;
use hvf_model::{Model, Options};
use machine::control::Cause;
use machine::description::{Description, Device, Kind};
use machine::{Board, Machine};
use parking_lot::{Condvar, Mutex};

/// For a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(400);

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

struct Running {
    machine: Machine,
    console: Arc<Console>,
    seen: usize,
}

impl Running {
    fn start(model: &Arc<Model>, description: &Description) -> Result<Running> {
        let console = Arc::new(Console::default());
        let engine = Hvf::new(model.clone());
        let board = Board::build_on(&engine, description, console.clone())?;
        Ok(Running {
            machine: Machine::start(board)?,
            console,
            seen: 0,
        })
    }

    fn expect(&mut self, text: &str) -> Result<()> {
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

    fn send(&self, text: &str) {
        let input = self.machine.handle().board().serial_input();
        let mut left = text.as_bytes();
        while !left.is_empty() {
            left = &left[input.receive(left)..];
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn description() -> Description {
    let device = |kind| Device {
        id: None,
        bus: None,
        address: None,
        bootindex: None,
        kind,
    };
    Description {
        cpus: 4,
        cpu_model: "host".into(),
        memory: 512 << 20,
        devices: vec![
            device(Kind::Xhci { p2: 4, p3: 4 }),
            device(Kind::UsbKeyboard),
            device(Kind::Ramfb),
        ],
        ..Description::default()
    }
}

fn firmware_to_its_prompt_and_reset() -> Result<()> {
    let model = Model::new(Options::default());
    let firmware = guests::firmware(Suite::Bookworm, "QEMU_EFI.fd")?;
    let mut running = Running::start(
        &model,
        &Description {
            bios: Some(firmware),
            ..description()
        },
    )?;
    for word in ["reset\r", "reset -s\r"] {
        running.expect("any other key to continue")?;
        running.send("\x1b");
        running.expect("Shell>")?;
        running.send(word);
    }
    ensure!(running.machine.wait() == Cause::GuestShutdown);
    Ok(())
}

fn linux_to_its_shell_on_four_processors() -> Result<()> {
    let kernel = guests::kernel()?;
    let script = "echo dormer: up $(grep -c ^processor /proc/cpuinfo)\n\
         echo dormer: $(dmesg | grep -c 'detected stall\\|soft lockup') stalls\n\
         sleep 1\n\
         exec setsid cttyhack sh\n";
    let initrd = guests::initrd::build(&kernel, &["virtio_pci"], script, &[])?;
    let model = Model::new(Options {
        lose_fires: true,
        ..Options::default()
    });
    let mut running = Running::start(
        &model,
        &Description {
            kernel: Some(kernel.image),
            initrd: Some(initrd),
            append: Some("console=ttyAMA0 quiet".into()),
            ..description()
        },
    )?;
    running.expect("dormer: up 4").context("no processors")?;
    running.expect("dormer: 0 stalls")?;
    running.expect("# ")?;
    // Stopped and resumed, it goes on.
    let handle = running.machine.handle();
    handle.stop()?;
    std::thread::sleep(Duration::from_millis(50));
    handle.resume()?;
    running.send("echo dormer: a shell''\n");
    running.expect("dormer: a shell\r")?;
    running.send("poweroff -f\n");
    ensure!(running.machine.wait() == Cause::GuestShutdown);
    Ok(())
}

fn main() -> Result<()> {
    firmware_to_its_prompt_and_reset()?;
    println!("firmware: passes");
    linux_to_its_shell_on_four_processors()?;
    println!("linux: passes");
    Ok(())
}
