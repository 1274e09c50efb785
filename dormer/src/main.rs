//! Dormer: a virtual machine for Windows 11 on Arm and every other AArch64 UEFI system.

mod disk;
mod doctor;
mod firmware;
mod media;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A virtual machine for Windows 11 on Arm and every other AArch64 UEFI system.
#[derive(Parser)]
#[command(name = "dormer", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make, look at, check, convert, compare and repair disk images, as `qemu-img` does.
    #[command(disable_help_flag = true)]
    Disk(disk::Disk),
    /// Say which engine this host gives, and why not the others.
    Doctor,
    /// Run a machine that QEMU's arguments describe; `dormer system -help` lists them.
    #[command(disable_help_flag = true)]
    System {
        /// As for `qemu-system-aarch64`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    #[command(flatten)]
    Media(media::Command),
    /// UEFI variables, and Secure Boot's keys.
    #[command(subcommand)]
    Firmware(firmware::Command),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| EnvFilter::new("warn,winit=error")),
        )
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default().to_string();
    if name.starts_with("qemu-system-") {
        let rest: Vec<_> = words.collect();
        return qemu::main(&name, &rest);
    }
    if name == "qemu-img" {
        let rest: Vec<_> = words.collect();
        return qemu_img::main(&name, &rest);
    }
    match Arguments::parse().command {
        Command::Disk(disk) => disk::run(&disk),
        Command::Doctor => doctor::run(),
        Command::System { arguments } => qemu::main("dormer system", &arguments),
        Command::Media(command) => media::run(command),
        Command::Firmware(command) => match firmware::run(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("dormer firmware: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}
