//! One run of a machine, and the figures that come out of it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guests::bench::{Line, Target};
use guests::packages::Suite;
use guests::run::{Builder, Machine};

use super::rows::{Experiment, Row};

/// A figure of a row, from one run.
pub struct Figure {
    pub row: &'static str,
    pub value: f64,
    /// The same, counted in the host's processor time: what a busy host does not falsify.
    pub processor: Option<f64>,
    /// Of workloads: what every engine must agree on.
    pub checksum: Option<u64>,
    /// How far the guest's clock was from the host's, as a part of the time measured.
    pub drift: Option<f64>,
}

impl Figure {
    pub(super) fn new(row: &'static str, value: f64) -> Figure {
        Figure {
            row,
            value,
            processor: None,
            checksum: None,
            drift: None,
        }
    }
}

/// A side of the comparison.
pub struct Side<'a> {
    pub program: &'a Path,
    /// Machine, processor and accelerator, split at spaces.
    pub options: String,
}

pub(super) const PATIENCE: Duration = Duration::from_secs(900);
/// Guest RAM of runs under Linux.
const RAM: u64 = 1 << 30;

impl Side<'_> {
    pub(super) fn machine(&self) -> Builder {
        Builder::new(self.program).args(&self.options)
    }

    /// Runs an experiment for those of its rows that are wanted.
    pub fn run(&self, experiment: Experiment, rows: &[&'static Row]) -> Result<Vec<Figure>> {
        match experiment {
            Experiment::Workloads => self.workloads(rows),
            Experiment::Linux => {
                let (start, machine) = self.linux()?;
                let seconds = start.elapsed().as_secs_f64();
                let resident = overhead(machine.id())?;
                Ok(vec![
                    Figure::new("linux", seconds),
                    Figure::new("resident", resident),
                ])
            }
            Experiment::Firmware => self.firmware(),
            Experiment::Bare => self.bare(),
            Experiment::Idle => self.idle(),
            Experiment::IdleWhole => self.idle_whole(),
            Experiment::Network => self.network(rows),
            Experiment::Storage => self.storage(rows),
            Experiment::Screen => self.screen(),
        }
    }

    fn firmware(&self) -> Result<Vec<Figure>> {
        let firmware = guests::firmware(Suite::Bookworm, "QEMU_EFI.fd")?;
        let mut machine = self
            .machine()
            .args("-m 1G -smp 2 -bios")
            .arg(firmware)
            .start()?;
        // It sleeps for five seconds on the way to its shell, whatever runs it, and the shell counts more down. So this is
        // the host's processor time to the shell's first line.
        machine.expect("UEFI Interactive Shell", PATIENCE)?;
        let spent = processor_time(machine.id())?;
        let mut figure = Figure::new("firmware", spent);
        figure.processor = Some(spent);
        Ok(vec![figure])
    }

    /// The program says "start" with its first instructions, and executes 10^9 before it says "done".
    fn bare(&self) -> Result<Vec<Figure>> {
        let program = guests::bare::program("simple")?;
        let begin = Instant::now();
        let mut machine = self
            .machine()
            .args("-m 256M -kernel")
            .arg(program)
            .start()?;
        machine.expect("start", PATIENCE)?;
        let start = Instant::now();
        machine.expect("done", PATIENCE)?;
        Ok(vec![
            Figure::new("first", (start - begin).as_secs_f64() * 1000.0),
            Figure::new("instructions", 1000.0 / start.elapsed().as_secs_f64()),
        ])
    }

    fn idle(&self) -> Result<Vec<Figure>> {
        let (_, machine) = self.linux()?;
        Ok(vec![Figure::new("idle", idleness(&machine)?)])
    }

    fn linux(&self) -> Result<(Instant, Machine)> {
        self.boot("echo init is here\nexec setsid cttyhack sh\n", &[])
    }

    /// Boots a Linux whose init runs `script`, until it says that it is there.
    fn boot(&self, script: &str, files: &[(&str, &[u8])]) -> Result<(Instant, Machine)> {
        let kernel = guests::kernel()?;
        let initrd = guests::initrd::build(&kernel, &[], script, files)?;
        let start = Instant::now();
        let mut machine = self
            .machine()
            .args("-m 1G -smp 2 -kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initrd)
            .args("-append")
            .arg("console=ttyAMA0 quiet")
            .start()?;
        machine.expect("init is here", PATIENCE)?;
        Ok((start, machine))
    }

    fn workloads(&self, rows: &[&'static Row]) -> Result<Vec<Figure>> {
        let program = std::fs::read(guests::bench::program(Target::Guest)?)?;
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        let script = format!(
            "echo init is here\n/bin/bench {}\npoweroff -f\n",
            names.join(" ")
        );
        let (_, mut machine) = self.boot(&script, &[("bin/bench", &program)])?;
        let mut figures: Vec<Figure> = Vec::new();
        loop {
            let (which, _) =
                machine.expect_any(&["begin ", "benchmarks done", "failed: "], PATIENCE)?;
            match which {
                0 => {}
                1 => break,
                _ => bail!("the guest's program failed: {}", machine.log()),
            }
            let start = Instant::now();
            let spent = processor_time(machine.id())?;
            machine.expect("result ", PATIENCE)?;
            let elapsed = start.elapsed();
            let spent = processor_time(machine.id())? - spent;
            let line: Line = machine.expect("\n", PATIENCE)?.parse()?;
            let row = rows
                .iter()
                .find(|row| row.name == line.name)
                .with_context(|| format!("no workload {} was asked for", line.name))?;
            let pieces = line.units as f64 * row.pieces;
            // A second result of the same workload takes the place of the first, which was too short.
            figures.retain(|figure| figure.row != row.name);
            let counted = line.counted as f64 / line.all as f64;
            figures.push(Figure {
                row: row.name,
                value: line.counted as f64 / pieces,
                processor: Some(spent * counted * 1e9 / pieces),
                checksum: Some(line.checksum),
                drift: Some(line.all as f64 / elapsed.as_nanos() as f64 - 1.0),
            });
        }
        for name in names {
            ensure!(
                figures.iter().any(|figure| figure.row == name),
                "the guest's program did not run {name}"
            );
        }
        Ok(figures)
    }
}

/// The same workloads on the host itself.
pub fn native(rows: &[&'static Row]) -> Result<Vec<Figure>> {
    let program = guests::bench::program(Target::Host)?;
    let output =
        guests::packages::run(Command::new(program).args(rows.iter().map(|row| row.name)))?;
    let mut figures: Vec<Figure> = Vec::new();
    for line in output.lines().filter_map(|l| l.strip_prefix("result ")) {
        let line: Line = line.parse()?;
        let Some(row) = rows.iter().find(|row| row.name == line.name) else {
            continue;
        };
        figures.retain(|figure| figure.row != row.name);
        figures.push(Figure {
            checksum: Some(line.checksum),
            ..Figure::new(
                row.name,
                line.counted as f64 / (line.units as f64 * row.pieces),
            )
        });
    }
    Ok(figures)
}

/// What a machine with nothing to do takes, in percent of a core.
pub(super) fn idleness(machine: &Machine) -> Result<f64> {
    std::thread::sleep(Duration::from_secs(3));
    let before = processor_time(machine.id())?;
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(10));
    let spent = processor_time(machine.id())? - before;
    Ok(100.0 * spent / start.elapsed().as_secs_f64())
}

/// Seconds of processor time that a process has used.
fn processor_time(process: u32) -> Result<f64> {
    ticks(&process.to_string(), 11)
}

/// Seconds of user and system time, out of two fields of a process's `stat` (proc(5)), counted from its state on.
pub fn ticks(process: &str, field: usize) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .context("processor time is read from /proc, which this host does not have")?;
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let (Some(user), Some(system)) = (fields.get(field), fields.get(field + 1)) else {
        bail!("unexpected /proc/{process}/stat")
    };
    // In clock ticks, which Linux shows as hundredths of a second.
    Ok((user.parse::<f64>()? + system.parse::<f64>()?) / 100.0)
}

/// Mebibytes that a machine's process has resident, besides its guest's RAM.
fn overhead(process: u32) -> Result<f64> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/smaps"))
        .context("memory is read from /proc, which this host does not have")?;
    let (mut all, mut ram) = (0, None);
    let mut size = 0;
    for line in maps.lines() {
        let field = |name: &str| -> Option<u64> {
            let kib = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
            Some(kib.parse::<u64>().ok()? << 10)
        };
        if let Some(bytes) = field("Size:") {
            size = bytes;
        } else if let Some(bytes) = field("Rss:") {
            all += bytes;
            // The kernel may have merged a neighbour to it.
            if (RAM..RAM + (16 << 20)).contains(&size) && bytes > 0 {
                ram = Some(ram.unwrap_or(0) + bytes);
            }
        }
    }
    let ram = ram.context("no mapping of the process is as large as the guest's RAM")?;
    Ok((all - ram) as f64 / f64::from(1 << 20))
}
