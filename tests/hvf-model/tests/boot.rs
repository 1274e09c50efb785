//! Stock firmware and the distribution's kernel on the `hvf` engine and the model of its framework, through resets. Each
//! also with a framework that loses timer fires while somebody cancels runs all the time.
//!
//! On two processors, as hosts of tests have; `DORMER_HVF_CPUS=4` is how the engine is to be tried.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use engine::hvf::Hvf;
use engine::hvf::framework::Framework;
use guests::packages::Suite;
use hvf_model::{Model, Options};
use machine::control::Cause;
use machine::description::{Description, Device, Kind};

use common::Running;

/// Guest resets of each machine, and of one that is disturbed.
const RESETS: u32 = 5;
const DISTURBED_RESETS: u32 = 1;

fn cpus() -> u32 {
    std::env::var("DORMER_HVF_CPUS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2)
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
        cpus: cpus(),
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

/// Cancels every vCPU's run over and over until it is dropped.
struct Disturber {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Disturber {
    fn start(model: &Arc<Model>) -> Disturber {
        let stop = Arc::new(AtomicBool::new(false));
        let (model, stopped) = (model.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                for cpu in 0..u64::from(cpus()) {
                    // Before there is such a vCPU it is refused.
                    let _ = model.vcpus_exit(&[cpu]);
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        Disturber {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Disturber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A model, and what disturbs it if fires are to be lost.
fn model(lose_fires: bool) -> (Arc<Model>, Option<Disturber>) {
    let model = Model::new(Options {
        lose_fires,
        ..Options::default()
    });
    let disturber = lose_fires.then(|| Disturber::start(&model));
    (model, disturber)
}

fn resets(disturbed: bool) -> u32 {
    if disturbed { DISTURBED_RESETS } else { RESETS }
}

fn firmware_to_its_prompt(lose_fires: bool) -> Result<()> {
    let (model, _disturber) = model(lose_fires);
    let firmware = guests::firmware(Suite::Bookworm, "QEMU_EFI.fd")?;
    let description = Description {
        bios: Some(firmware),
        ..description()
    };
    let mut running = Running::start(&Hvf::new(model.clone()), &description)?;
    let resets = resets(lose_fires);
    for boot in 0..=resets {
        running
            .expect("any other key to continue")
            .with_context(|| format!("after {boot} resets"))?;
        running.send("\x1b");
        running.expect("Shell>")?;
        running.send(if boot < resets {
            "reset\r"
        } else {
            "reset -s\r"
        });
    }
    ensure!(running.machine.wait() == Cause::GuestShutdown);
    ensure!(lose_fires == (model.counts.lost.load(Ordering::Relaxed) > 0));
    Ok(())
}

fn linux_to_its_shell(lose_fires: bool) -> Result<()> {
    let kernel = guests::kernel()?;
    // A second is one by the guest's clock, on every processor.
    let script = "echo dormer: up $(grep -c ^processor /proc/cpuinfo)\n\
         for cpu in $(seq 0 $(($(nproc) - 1))); do taskset $((1 << cpu)) sleep 1; done\n\
         echo dormer: $(dmesg | grep -c 'detected stall\\|soft lockup') stalls\n\
         exec setsid cttyhack sh\n";
    let initrd = guests::initrd::build(&kernel, &["virtio_pci"], script, &[])?;
    let (model, _disturber) = model(lose_fires);
    let description = Description {
        kernel: Some(kernel.image),
        initrd: Some(initrd),
        append: Some("console=ttyAMA0 quiet".into()),
        ..description()
    };
    let mut running = Running::start(&Hvf::new(model.clone()), &description)?;
    let resets = resets(lose_fires);
    for boot in 0..=resets {
        let up = format!("dormer: up {}\r", cpus());
        running
            .expect(&up)
            .with_context(|| format!("after {boot} resets"))?;
        running.expect("dormer: 0 stalls")?;
        running.expect("# ")?;
        if boot == 0 {
            // Stopped and resumed, it goes on.
            let handle = running.machine.handle();
            handle.stop()?;
            std::thread::sleep(Duration::from_millis(50));
            handle.resume()?;
            running.send("echo dormer: a shell''\n");
            running.expect("dormer: a shell\r")?;
        }
        running.send(if boot < resets {
            "reboot -f\n"
        } else {
            "poweroff -f\n"
        });
    }
    ensure!(running.machine.wait() == Cause::GuestShutdown);
    ensure!(lose_fires == (model.counts.lost.load(Ordering::Relaxed) > 0));
    Ok(())
}

#[test]
fn firmware() -> Result<()> {
    firmware_to_its_prompt(false)
}

#[test]
fn firmware_though_fires_are_lost() -> Result<()> {
    firmware_to_its_prompt(true)
}

#[test]
fn linux() -> Result<()> {
    linux_to_its_shell(false)
}

#[test]
fn linux_though_fires_are_lost() -> Result<()> {
    linux_to_its_shell(true)
}
