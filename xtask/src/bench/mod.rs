//! Side by side with QEMU: the same kernel, initial RAM disk and RAM on both, in alternated runs; medians and spread.

mod beside;
mod devices;
mod disk;
mod guest;
mod media;
mod rows;
mod table;
mod viewer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use guest::{Figure, Side};
use rows::{Experiment, ROWS, Row};
use table::{Summary, Verdict};

#[derive(clap::Args)]
pub struct Arguments {
    /// Rows or classes of the table, all without; or `disk`: images, beside `qemu-img`. `media` alone measures extracting beside 7-Zip and wimlib.
    which: Vec<String>,
    /// The same: `--only simd`.
    #[arg(long, value_name = "CLASS")]
    only: Vec<String>,
    /// Pairs of runs of each.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Print the table as Markdown.
    #[arg(long)]
    markdown: bool,
    /// The peer.
    #[arg(long, default_value = "qemu-system-aarch64")]
    peer: PathBuf,
    /// A Dormer that is built already, in the place of this tree's.
    #[arg(long)]
    dormer: Option<PathBuf>,
    /// Dormer's accelerator, with its options.
    #[arg(long, default_value = "jit")]
    accel: String,
    /// List the rows and what each must reach.
    #[arg(long)]
    list: bool,
}

/// QEMU at its best for what we compare.
const PEER: &str = "-machine virt,gic-version=3 -cpu max,pauth=off -accel tcg,thread=multi";
/// How far the guest's clock may be from the host's.
const DRIFT: f64 = 0.02;

/// Runs every pair and prints a table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let alone: Option<fn(&Path, usize) -> Result<()>> = match arguments.which.as_slice() {
        [which] if which == "media" => Some(media::run),
        [which] if which == "disk" => Some(disk::run),
        _ => None,
    };
    if let Some(measure) = alone {
        crate::setup::run(crate::setup::Purpose::Everything)?;
        return measure(&program(arguments)?, arguments.pairs);
    }
    let rows = select(&[&arguments.which[..], &arguments.only[..]].concat())?;
    if arguments.list {
        for row in rows {
            println!("{:<12} {:<14} {:?}", row.class, row.name, row.target);
        }
        return Ok(());
    }
    crate::setup::run(crate::setup::Purpose::Everything)?;
    let dormer = program(arguments)?;
    println!("host: {}", host());
    println!("Dormer: {}", version(&dormer)?);
    println!("peer: {} {PEER}", version(&arguments.peer)?);
    let ours = Side {
        program: &dormer,
        options: format!(
            "-machine virt,gic-version=3 -cpu max -accel {}",
            arguments.accel
        ),
    };
    let peer = Side {
        program: &arguments.peer,
        options: PEER.into(),
    };
    let pairs = arguments.pairs.max(1);
    let mut figures = Collected::default();
    let mut experiments: Vec<_> = rows.iter().map(|row| row.experiment).collect();
    experiments.sort();
    experiments.dedup();
    for experiment in experiments {
        let wanted: Vec<_> = rows
            .iter()
            .copied()
            .filter(|row| row.experiment == experiment)
            .collect();
        for pair in 1..=pairs {
            eprintln!("{experiment:?}: pair {pair} of {pairs}");
            figures.add(Who::Ours, ours.run(experiment, &wanted)?)?;
            figures.add(Who::Peer, peer.run(experiment, &wanted)?)?;
            if experiment == Experiment::Workloads {
                figures.add(Who::Host, guest::native(&wanted)?)?;
            }
        }
    }
    let results = figures.results(&rows)?;
    print!("{}", table::show(&results, arguments.markdown));
    summary(&results, &figures, pairs);
    Ok(())
}

/// The Dormer to measure, built if none was given.
fn program(arguments: &Arguments) -> Result<PathBuf> {
    match &arguments.dormer {
        Some(path) => Ok(path.clone()),
        None => crate::demo::build(),
    }
}

fn summary(results: &[table::Result], figures: &Collected, pairs: usize) {
    println!(
        "\nMedians of {pairs} alternated pairs; in brackets the spread, most less least. ratio: times as fast (or as \
         cheap) as the peer; native: times as slow as the same program on the host."
    );
    let of = |verdict| {
        let names: Vec<_> = results
            .iter()
            .filter(|result| result.verdict() == verdict)
            .map(|result| result.row.name)
            .collect();
        (names.len(), names.join(" "))
    };
    let (count, names) = of(Verdict::Loss);
    println!("losses: {count} {names}");
    let (count, names) = of(Verdict::Short);
    println!("short of their targets: {count} {names}");
    if let Some((drift, row)) = &figures.drift {
        println!(
            "the guests' clocks were within {:.2} % of the host's (at most {:.0} % is allowed; the most: {row}){}",
            100.0 * drift,
            100.0 * DRIFT,
            if *drift > DRIFT {
                ": NOT IN AGREEMENT"
            } else {
                ""
            }
        );
    }
}

/// The rows that are, or whose class is, among these names.
fn select(names: &[String]) -> Result<Vec<&'static Row>> {
    for name in names {
        ensure!(
            ROWS.iter().any(|row| row.name == name || row.class == name),
            "no row or class is called {name}; there are {}",
            ROWS.iter()
                .map(|row| format!("{}/{}", row.class, row.name))
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    Ok(ROWS
        .iter()
        .filter(|row| {
            names.is_empty()
                || names
                    .iter()
                    .any(|name| row.name == name || row.class == name)
        })
        .collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Ours,
    Peer,
    Host,
}

#[derive(Default)]
struct Collected {
    values: BTreeMap<(&'static str, Who), Vec<f64>>,
    processor: BTreeMap<(&'static str, Who), Vec<f64>>,
    checksums: BTreeMap<&'static str, u64>,
    /// The largest, and whose.
    drift: Option<(f64, String)>,
}

impl Collected {
    fn add(&mut self, who: Who, figures: Vec<Figure>) -> Result<()> {
        for figure in figures {
            let key = (figure.row, who);
            self.values.entry(key).or_default().push(figure.value);
            if let Some(processor) = figure.processor {
                self.processor.entry(key).or_default().push(processor);
            }
            if let Some(checksum) = figure.checksum {
                let first = *self.checksums.entry(figure.row).or_insert(checksum);
                ensure!(
                    first == checksum,
                    "{}: the checksum is {checksum:016x} ({who:?}), elsewhere {first:016x}",
                    figure.row
                );
            }
            if let Some(drift) = figure.drift
                && self.drift.as_ref().is_none_or(|(d, _)| drift.abs() > *d)
            {
                self.drift = Some((drift.abs(), format!("{} {who:?}", figure.row)));
            }
        }
        Ok(())
    }

    fn results(&self, rows: &[&'static Row]) -> Result<Vec<table::Result>> {
        let summary = |row: &Row, who| Summary::of(self.values.get(&(row.name, who))?);
        rows.iter()
            .map(|row| {
                let processor = |who| {
                    let summary = Summary::of(self.processor.get(&(row.name, who))?)?;
                    (summary.median > 0.0).then_some(summary.median)
                };
                let missing = || format!("{} was not measured", row.name);
                Ok(table::Result {
                    row,
                    ours: summary(row, Who::Ours).with_context(missing)?,
                    peer: summary(row, Who::Peer).with_context(missing)?,
                    processor: processor(Who::Peer)
                        .zip(processor(Who::Ours))
                        .map(|(peer, ours)| peer / ours),
                    native: summary(row, Who::Host).map(|summary| summary.median),
                })
            })
            .collect()
    }
}

fn version(program: &Path) -> Result<String> {
    let text = guests::packages::run(Command::new(program).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_string())
}

/// The host's processor, as Linux names it, and how many there are.
fn host() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("processor of an unknown kind");
    let count = std::thread::available_parallelism().map_or(1, |n| n.get());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{model}, {count} processors, load {}",
        load.split(' ').next().unwrap_or("unknown")
    )
}
