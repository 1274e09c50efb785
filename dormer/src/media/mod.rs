//! What is in the box: `dormer inspect`, `ls`, `extract`, `hive`.

mod extract;
mod hive;
mod inspect;
mod ls;
mod progress;

use std::process::ExitCode;

use clap::Subcommand;

/// A name within files, as all these commands take it.
const PLACE: &str = "FILE[:INNER][#IMAGE]";

#[derive(Subcommand)]
pub enum Command {
    /// Say what a file is: install medium, Windows image, boot configuration, disk image, firmware, executable.
    Inspect(inspect::Arguments),
    /// List what a medium or image holds.
    Ls(ls::Arguments),
    /// Copy files and folders out of a medium or image.
    Extract(extract::Arguments),
    /// Read and change a registry hive, such as a boot configuration or an offline SYSTEM.
    #[command(subcommand)]
    Hive(hive::Command),
}

/// Runs a command; what goes wrong is printed.
pub fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Ls(arguments) => ls::run(&arguments),
        Command::Extract(arguments) => extract::run(&arguments),
        Command::Hive(command) => hive::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dormer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
