//! What a newcomer types: `cargo xtask demo`, `cargo xtask test`, and what they are made of.

mod bench;
mod demo;
mod dist;
mod guest;
mod install;
mod kvm;
mod lockstep;
mod look;
mod setup;
mod targets;
mod test;
mod tiers;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Dormer's set-up, demo, tests and benchmarks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing, through the system's package manager.
    Setup,
    /// Boot an installer from a USB stick and move through its first menu.
    Demo(demo::Arguments),
    /// Set up, then run all tests. Further arguments go to `cargo test`.
    Test(test::Arguments),
    /// Run the tests of whole machines by each tier, with thresholds and caches of the least size: an hour.
    Tiers(tiers::Arguments),
    /// Measure side by side with QEMU.
    Bench(bench::Arguments),
    /// Run random programs by generated code and by the interpreter, and compare.
    Lockstep(lockstep::Arguments),
    /// Use a console as a person would, in a browser or on a display of its own, and keep pictures of it.
    Look(look::Arguments),
    /// Type-check and lint for macOS and Linux on Arm.
    CheckTargets(targets::Arguments),
    /// Run the KVM engine on a real KVM, inside an emulated Arm host: a quarter of an hour.
    KvmInQemu(kvm::Arguments),
    /// Make the archives that are given out: Linux, Linux on Arm, and the Mac.
    Dist(dist::Arguments),
    /// Sign a Mac program with the entitlement for Hypervisor.framework.
    Sign(dist::SignArguments),
    /// Fetch and build guests.
    Guest(guest::Arguments),
    /// Have Debian install itself from a mirror on this host, by each network card, and use what came of it.
    InstallDebian(install::Arguments),
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Setup => {
            setup::run(setup::Purpose::Targets)?;
            guests::certificates().map(drop)
        }
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Tiers(arguments) => tiers::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Lockstep(arguments) => lockstep::run(&arguments),
        Task::Look(arguments) => look::run(&arguments),
        Task::CheckTargets(arguments) => targets::run(&arguments),
        Task::KvmInQemu(arguments) => kvm::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Sign(arguments) => dist::sign_program(&arguments),
        Task::Guest(arguments) => guest::run(&arguments),
        Task::InstallDebian(arguments) => install::run(&arguments),
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default()
}
