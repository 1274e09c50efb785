//! `dormer disk`, and the program called `qemu-img`.

use std::process::ExitCode;

/// The arguments of `dormer disk`.
#[derive(clap::Args)]
pub struct Disk {
    /// A command and its arguments, as for `qemu-img`; `dormer disk --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub fn run(disk: &Disk) -> ExitCode {
    qemu_img::main("dormer disk", &disk.arguments)
}
