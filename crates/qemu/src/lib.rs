//! QEMU's command line, QMP and monitor, on Dormer's machine.
//!
//! [`main`] is `qemu-system-aarch64`: [`options`] splits its arguments, [`command_line`] makes a machine's description of
//! them, [`run`] builds and runs it, [`qmp`] controls it for programs and [`monitor`] for people, on the sockets of
//! [`servers`] or the user's terminal.

pub mod blockdev;
pub mod catalog;
pub mod command_line;
mod error;
pub mod help;
pub mod keyval;
pub mod monitor;
mod network;
pub mod options;
pub mod qmp;
mod rtc;
mod run;
pub mod servers;
mod sound;
mod window;

use std::process::ExitCode;

pub use error::Error;
pub use machine::reason;

use command_line::Request;

/// Does what `qemu-system-aarch64` does with these arguments. `program` is the name it was called by, for messages.
pub fn main(program: &str, arguments: &[String]) -> ExitCode {
    let result = match command_line::parse(arguments) {
        Ok(Request::Print(text)) => {
            print!("{text}");
            Ok(())
        }
        Ok(Request::DumpDtb(line, path)) => run::dump_device_tree(*line, &path),
        Ok(Request::Run(line)) => run::run(program, *line),
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}
