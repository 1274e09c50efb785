//! Compares for as long as wanted: `cargo xtask lockstep --seconds 600`.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use dormer_lockstep::compare::{Plan, compare, ways};

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
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut failed = 0;
    for way in ways() {
        if !way.name.contains(&arguments.way) {
            continue;
        }
        let report = compare(
            &way,
            &Plan {
                seed: arguments.seed,
                programs: arguments.programs,
                time: Duration::from_secs(arguments.seconds),
            },
        )?;
        println!(
            "{}: {} programs, {} exceptions, {} calls",
            way.name, report.programs, report.exceptions, report.calls
        );
        if let Some(difference) = report.difference {
            failed += 1;
            println!("{difference}");
        }
    }
    ensure!(failed == 0, "{failed} ways differ from the interpreter");
    Ok(())
}
