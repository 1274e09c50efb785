//! Side by side with QEMU in one run: alternated, medians and spread.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use guests::packages::Suite;
use guests::run::{Builder, Machine};

#[derive(clap::Args)]
pub struct Arguments {
    /// Which measurements; all without.
    #[arg(value_enum)]
    which: Vec<Which>,
    /// Pairs of runs of each.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// The peer.
    #[arg(long, default_value = "qemu-system-aarch64")]
    peer: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// Start of the process to the firmware's shell prompt.
    Firmware,
    /// Start of the process to the first line of a Linux init.
    Linux,
    /// Simple instructions a second on one processor.
    Instructions,
    /// Processor time of a guest that idles at its prompt, in per cent of a core.
    Idle,
}

const ALL: [Which; 4] = [
    Which::Firmware,
    Which::Linux,
    Which::Instructions,
    Which::Idle,
];

/// QEMU at its best for what we compare.
const PEER_CPU: &str = "-cpu max,pauth=off";
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs every pair and prints a table.
pub fn run(arguments: &Arguments) -> Result<()> {
    crate::setup::run(crate::setup::Purpose::Everything)?;
    let dormer = crate::demo::build()?;
    let version =
        guests::packages::run(std::process::Command::new(&arguments.peer).arg("--version"))?;
    println!("peer: {}", version.lines().next().unwrap_or_default());
    println!("{:<14} {:>24} {:>24} {:>8}", "", "Dormer", "peer", "ratio");
    for which in ALL {
        if !arguments.which.is_empty() && !arguments.which.contains(&which) {
            continue;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..arguments.pairs.max(1) {
            ours.push(measure(which, &dormer)?);
            theirs.push(measure(which, &arguments.peer)?);
        }
        let (ours, theirs) = (Summary::of(ours), Summary::of(theirs));
        let (unit, ratio) = match which {
            Which::Firmware | Which::Linux => ("s", theirs.median / ours.median),
            Which::Instructions => ("M/s", ours.median / theirs.median),
            Which::Idle => ("% core", theirs.median / ours.median),
        };
        println!(
            "{:<14} {:>24} {:>24} {ratio:>7.2}x",
            format!("{which:?}"),
            ours.show(unit),
            theirs.show(unit)
        );
    }
    println!(
        "ratio: more than 1 is faster (or cheaper) than the peer; medians of {} pairs, least to most",
        arguments.pairs
    );
    Ok(())
}

struct Summary {
    least: f64,
    median: f64,
    most: f64,
}

impl Summary {
    fn of(mut values: Vec<f64>) -> Summary {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        Summary {
            least: at(0),
            median: at(values.len() / 2),
            most: at(values.len().saturating_sub(1)),
        }
    }

    fn show(&self, unit: &str) -> String {
        format!(
            "{:.2} {unit} ({:.2}-{:.2})",
            self.median, self.least, self.most
        )
    }
}

fn measure(which: Which, program: &Path) -> Result<f64> {
    let ours = program.ends_with("dormer");
    let cpu = if ours { "-cpu max" } else { PEER_CPU };
    let base = Builder::new(program)
        .args("-machine virt,gic-version=3")
        .args(cpu);
    match which {
        Which::Firmware => {
            let firmware = guests::firmware(Suite::Bookworm, "QEMU_EFI.fd")?;
            let start = Instant::now();
            let mut machine = base.args("-m 1G -smp 2 -bios").arg(firmware).start()?;
            machine.expect("any other key to continue", PATIENCE)?;
            machine.send("\x1b")?;
            machine.expect("Shell>", PATIENCE)?;
            Ok(start.elapsed().as_secs_f64())
        }
        Which::Linux => {
            let (start, _machine) = linux(base)?;
            Ok(start.elapsed().as_secs_f64())
        }
        Which::Instructions => {
            let mut machine = base
                .args("-m 256M -kernel")
                .arg(guests::bare::program("simple")?)
                .start()?;
            machine.expect("start", PATIENCE)?;
            let start = Instant::now();
            machine.expect("done", PATIENCE)?;
            Ok(1000.0 / start.elapsed().as_secs_f64())
        }
        Which::Idle => {
            let (_, machine) = linux(base)?;
            std::thread::sleep(Duration::from_secs(3));
            let before = processor_time(machine.id())?;
            let start = Instant::now();
            std::thread::sleep(Duration::from_secs(10));
            let spent = processor_time(machine.id())? - before;
            Ok(100.0 * spent / start.elapsed().as_secs_f64())
        }
    }
}

fn linux(base: Builder) -> Result<(Instant, Machine)> {
    let kernel = guests::kernel()?;
    let initrd = guests::initrd::build(
        &kernel,
        &[],
        "echo init is here\nexec setsid cttyhack sh\n",
        &[],
    )?;
    let start = Instant::now();
    let mut machine = base
        .args("-m 1G -smp 2 -kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args("-append console=ttyAMA0")
        .start()?;
    machine.expect("init is here", PATIENCE)?;
    Ok((start, machine))
}

/// Seconds of processor time that a process has used.
fn processor_time(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .context("processor time is read from /proc, which this host does not have")?;
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) else {
        bail!("unexpected /proc/PID/stat")
    };
    // In clock ticks, which Linux shows as hundredths of a second.
    Ok((user.parse::<f64>()? + system.parse::<f64>()?) / 100.0)
}
