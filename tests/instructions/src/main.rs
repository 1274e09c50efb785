//! A run of any length: `dormer-instructions [seed] [encodings] [states] [name] [tier]`.

use anyhow::{Result, bail};
use dormer_instructions::compare::{Plan, compare};
use dormer_instructions::subject::Tier;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u64| -> Result<u64> { arguments.next().map_or(Ok(default), |a| Ok(a.parse()?)) };
    let plan = Plan {
        seed: number(1)?,
        encodings: number(64)? as u32,
        states: number(16)? as u32,
        only: arguments.next().unwrap_or_default(),
        tier: match arguments.next().as_deref() {
            None | Some("interpreter") => Tier::Interpreter,
            Some("baseline") => Tier::Baseline {
                without: Vec::new(),
            },
            Some(other) => bail!("no tier is called {other}"),
        },
    };
    let report = compare(&plan)?;
    for (name, (count, told)) in &report.failures {
        println!("{name}: {count} cases differ");
        for line in told {
            println!("    {line}");
        }
    }
    println!(
        "{} instructions, {} encodings, {} cases ({} undefined, {} faults): {} differ",
        report.instructions,
        report.encodings,
        report.cases,
        report.undefined,
        report.faults,
        report.differences
    );
    if report.differences > 0 {
        std::process::exit(1);
    }
    Ok(())
}
