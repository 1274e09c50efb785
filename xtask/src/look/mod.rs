//! `cargo xtask look`: consoles used as a person would, with pictures to look at.

mod browser;
mod web;
mod window;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use guests::packages::Suite;
use guests::run::{Builder, Machine};

#[derive(clap::Args)]
pub struct Arguments {
    console: Console,
    /// The program to run; without it, a release build is made.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Where the pictures go.
    #[arg(long, default_value = "target/look")]
    output: PathBuf,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Console {
    /// The web console, in a headless browser.
    Web,
    /// The window, on a display of its own.
    Window,
}

/// For slow hosts.
const PATIENCE: Duration = Duration::from_secs(300);

/// Sets up, builds, and looks.
pub fn run(arguments: &Arguments) -> Result<()> {
    crate::setup::run(crate::setup::Purpose::Look)?;
    let program = match &arguments.program {
        Some(program) => program.canonicalize()?,
        None => crate::demo::build()?,
    };
    std::fs::create_dir_all(&arguments.output)?;
    match arguments.console {
        Console::Web => web::run(&program, &arguments.output),
        Console::Window => window::run(&program, &arguments.output),
    }
}

/// Firmware's shell on the screen, which takes keys and prints what it does on the serial line as well.
fn shell(program: &Path, display: &str) -> Result<Builder> {
    Ok(Builder::new(program)
        .args("-machine virt -cpu max -m 512M -name Shell")
        .args("-device qemu-xhci -device usb-kbd -device usb-tablet -device ramfb")
        .arg("-bios")
        .arg(guests::firmware(Suite::Bookworm, "QEMU_EFI.fd")?)
        .args("-display")
        .arg(display))
}

/// Waits for the shell's prompt, past its countdown.
fn prompt(machine: &mut Machine) -> Result<()> {
    machine.expect("any other key to continue", PATIENCE)?;
    machine.send("\x1b")?;
    machine.expect("Shell>", PATIENCE)?;
    Ok(())
}
