//! Compares for as long as wanted: `cargo xtask lockstep --seconds 600`, and Linux: `cargo xtask lockstep --linux`.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use dormer_lockstep::boot;
use dormer_lockstep::compare::{Plan, compare, systems, ways};

#[derive(Parser)]
struct Arguments {
    /// Time for each way of running programs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first program's.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// No more than so many programs.
    #[arg(long, default_value_t = u64::MAX)]
    programs: u64,
    /// Only ways whose name contains this.
    #[arg(long, default_value = "")]
    way: String,
    /// Linux from its start to the end of a script, in the place of programs; the time is then the most that it may take.
    #[arg(long)]
    linux: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let time = Duration::from_secs(arguments.seconds);
    let mut failed = 0;
    let all = if arguments.linux { systems() } else { ways() };
    for way in all {
        if !way.name.contains(&arguments.way) {
            continue;
        }
        let difference = if arguments.linux {
            let report = boot::boot(&way, time)?;
            println!("{}: {report}", way.name);
            report.difference
        } else {
            let report = compare(
                &way,
                &Plan {
                    seed: arguments.seed,
                    programs: arguments.programs,
                    time,
                },
            )?;
            println!(
                "{}: {} programs, {} exceptions, {} calls",
                way.name, report.programs, report.exceptions, report.calls
            );
            report.difference
        };
        if let Some(difference) = difference {
            failed += 1;
            println!("{difference}");
        }
    }
    ensure!(failed == 0, "{failed} ways differ from the interpreter");
    Ok(())
}
