//! Fetches and builds guests.

use anyhow::Result;
use guests::packages::Suite;

#[derive(clap::Args)]
pub struct Arguments {
    /// Which; all without.
    #[arg(value_enum)]
    which: Vec<Which>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The distribution's kernel.
    Kernel,
    /// An initrd with busybox and the modules of every device.
    Initrd,
    /// The installer's medium.
    Installer,
    /// Firmware images of both releases.
    Firmware,
    /// Media with the layout of Windows', out of free parts.
    Windows,
}

/// Prints where each guest is, fetching or building it first if need be.
pub fn run(arguments: &Arguments) -> Result<()> {
    let wants = |which| arguments.which.is_empty() || arguments.which.contains(&which);
    crate::setup::run(crate::setup::Purpose::Demo)?;
    if wants(Which::Kernel) {
        println!("kernel     {}", guests::kernel()?.image.display());
    }
    if wants(Which::Initrd) {
        let kernel = guests::kernel()?;
        let initrd = guests::initrd::build(
            &kernel,
            guests::initrd::MODULES,
            "echo 7 > /proc/sys/kernel/printk\nexec setsid cttyhack sh\n",
            &[],
        )?;
        println!("initrd     {}", initrd.display());
    }
    if wants(Which::Installer) {
        println!("installer  {}", guests::iso::installer()?.display());
    }
    if wants(Which::Windows) {
        crate::setup::run(crate::setup::Purpose::Everything)?;
        for variant in guests::windows::VARIANTS {
            println!(
                "windows    {} ({variant:?})",
                guests::windows::medium(variant)?.display()
            );
        }
    }
    if wants(Which::Firmware) {
        for suite in [Suite::Bookworm, Suite::Trixie] {
            println!(
                "firmware   {} ({})",
                guests::firmware(suite, "QEMU_EFI.fd")?.display(),
                suite.name()
            );
        }
    }
    Ok(())
}
