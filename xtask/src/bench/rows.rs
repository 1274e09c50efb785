//! What is measured: rows, their classes, and what each must reach.

/// What a row must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At least so many times as fast (or cheap) as the peer.
    Ratio(f64),
    /// At most so much, whatever the peer does.
    Most(f64),
    /// At most so much more than the peer.
    More(f64),
}

/// How a row is measured: rows of one experiment come out of one run of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Experiment {
    /// The benchmark program in a Linux guest, each row a workload.
    Workloads,
    /// Start of the process to the first line of a Linux init; and the memory it takes by then.
    Linux,
    /// The host's processor time from the start of the process to the first line of the firmware's shell.
    Firmware,
    /// A program with no system beneath it.
    Bare,
    /// A guest that idles at its prompt.
    Idle,
    /// The same, with every device of the whole machine, and its driver.
    IdleWhole,
    /// A guest's TCP through the user network, by virtio-net.
    Network,
    /// A guest's disks: virtio-blk, NVMe, USB storage.
    Storage,
    /// A guest's pictures by virtio-gpu, and what of them reaches a VNC viewer.
    Screen,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub class: &'static str,
    pub name: &'static str,
    pub experiment: Experiment,
    pub unit: Unit,
    pub target: Target,
    /// Of a workload: how many of what the row tells are in one of its units.
    pub pieces: f64,
}

/// What the figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A workload's time for a piece, in nanoseconds.
    Nanoseconds,
    Seconds,
    Milliseconds,
    MillionsPerSecond,
    /// Bytes per second.
    Bandwidth,
    /// Bytes per second, told as blocks of 4 KiB per second.
    Blocks,
    Mebibytes,
    PercentOfCore,
    PerSecond,
}

impl Unit {
    /// Whether more is better.
    pub fn is_rate(self) -> bool {
        matches!(
            self,
            Unit::MillionsPerSecond | Unit::Bandwidth | Unit::Blocks | Unit::PerSecond
        )
    }

    /// A figure, in the unit's best multiple.
    pub fn show(self, value: f64) -> String {
        let (scaled, name) = match self {
            Unit::Nanoseconds if value >= 1e6 => (value / 1e6, "ms"),
            Unit::Nanoseconds if value >= 1e3 => (value / 1e3, "us"),
            Unit::Nanoseconds => (value, "ns"),
            Unit::Seconds => (value, "s"),
            Unit::Milliseconds => (value, "ms"),
            Unit::MillionsPerSecond => (value, "M/s"),
            Unit::Bandwidth => (value / f64::from(1 << 20), "MiB/s"),
            Unit::Blocks => (value / 4096.0 / 1000.0, "k/s"),
            Unit::Mebibytes => (value, "MiB"),
            Unit::PercentOfCore => (value, "%"),
            Unit::PerSecond => (value, "/s"),
        };
        let digits = if scaled >= 100.0 {
            0
        } else if scaled >= 10.0 {
            1
        } else {
            2
        };
        format!("{scaled:.digits$} {name}")
    }
}

const fn work(class: &'static str, name: &'static str, least: f64, pieces: f64) -> Row {
    Row {
        class,
        name,
        experiment: Experiment::Workloads,
        unit: Unit::Nanoseconds,
        target: Target::Ratio(least),
        pieces,
    }
}

const fn other(
    class: &'static str,
    name: &'static str,
    experiment: Experiment,
    unit: Unit,
    target: Target,
) -> Row {
    Row {
        class,
        name,
        experiment,
        unit,
        target,
        pieces: 1.0,
    }
}

const fn network(name: &'static str, unit: Unit, least: f64) -> Row {
    other(
        "network",
        name,
        Experiment::Network,
        unit,
        Target::Ratio(least),
    )
}

/// `DEVICE-read` by 128 KiB and in order; with a number, by 4 KiB, anywhere, so many at a time.
const fn storage(name: &'static str, unit: Unit, least: f64) -> Row {
    other(
        "storage",
        name,
        Experiment::Storage,
        unit,
        Target::Ratio(least),
    )
}

const fn screen(name: &'static str) -> Row {
    other(
        "screen",
        name,
        Experiment::Screen,
        Unit::PerSecond,
        Target::Ratio(1.0),
    )
}

/// Instructions written by a unit of `cold`: five kinds of operations, equally often, of 1, 2, 1, 3 and 2.
const COLD: f64 = 180_000.0;

/// Noise: no loss.
pub const EVEN: f64 = 0.95;

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    work("calls", "recursion", 2.5, 1.0),
    work("calls", "qsort", 2.5, 1.0),
    work("calls", "mark", 2.5, 1.0),
    work("loops", "sieve", 4.0, 1.0),
    work("loops", "format", 4.0, 100.0),
    work("loops", "hash", 4.0, 1.0),
    work("loops", "states", 4.0, 1.0),
    work("dispatch", "indirect", 3.0, 1024.0),
    work("dispatch", "threaded", 3.0, 1.0),
    work("dispatch", "switched", 3.0, 1.0),
    work("double", "nbody", 6.0, 100.0),
    work("double", "roots", 6.0, 1000.0),
    work("double", "series", 6.0, 1000.0),
    work("simd", "f32-matrix", 20.0, 1.0),
    work("simd", "f64-matrix", 20.0, 1.0),
    work("simd", "u32-lanes", 20.0, 1.0),
    work("simd", "aes", 20.0, 1024.0),
    work("simd", "sha256", 20.0, 64.0),
    work("blocks", "copy-4k", 1.5, 256.0),
    work("blocks", "copy-1m", 1.5, 1.0),
    work("blocks", "fill", 1.5, 8.0),
    work("memory", "chase", EVEN, 10_000.0),
    work("memory", "stream", EVEN, 32_768.0),
    work("syscalls", "syscall", 5.0, 100.0),
    work("syscalls", "signal", 5.0, 100.0),
    work("faults", "fault", 1.7, 256.0),
    work("processes", "fork", 1.5, 1.0),
    work("processes", "exec", 1.5, 1.0),
    work("switches", "pipe-1", 4.0, 1.0),
    work("switches", "pipe-2", 4.0, 1.0),
    work("switches", "thread-1", 4.0, 1.0),
    work("switches", "thread-2", 4.0, 1.0),
    work("atomics", "exclusive", 2.0, 1000.0),
    work("atomics", "ordered", 2.0, 1000.0),
    work("atomics", "exclusive-2", 2.0, 1000.0),
    work("contention", "lse-2", 1.0, 1000.0),
    work("code", "fresh", 4.0, 16.0),
    work("code", "patch", 4.0, 64.0),
    work("code", "cold", 4.0, COLD),
    other(
        "boot",
        "linux",
        Experiment::Linux,
        Unit::Seconds,
        Target::Ratio(2.0),
    ),
    other(
        "boot",
        "firmware",
        Experiment::Firmware,
        Unit::Seconds,
        Target::Ratio(2.0),
    ),
    other(
        "machine",
        "instructions",
        Experiment::Bare,
        Unit::MillionsPerSecond,
        Target::Ratio(EVEN),
    ),
    other(
        "machine",
        "first",
        Experiment::Bare,
        Unit::Milliseconds,
        Target::Most(50.0),
    ),
    other(
        "machine",
        "resident",
        Experiment::Linux,
        Unit::Mebibytes,
        Target::More(64.0),
    ),
    other(
        "machine",
        "idle",
        Experiment::Idle,
        Unit::PercentOfCore,
        Target::Most(3.0),
    ),
    other(
        "machine",
        "idle-whole",
        Experiment::IdleWhole,
        Unit::PercentOfCore,
        Target::Most(3.0),
    ),
    network("receive", Unit::Bandwidth, 3.0),
    network("send", Unit::Bandwidth, 3.0),
    network("trip", Unit::Nanoseconds, 2.0),
    storage("blk-read", Unit::Bandwidth, 1.5),
    storage("blk-write", Unit::Bandwidth, 1.5),
    storage("blk-read-1", Unit::Blocks, 1.5),
    storage("blk-read-32", Unit::Blocks, 1.5),
    storage("blk-write-1", Unit::Blocks, 1.5),
    storage("blk-write-32", Unit::Blocks, 1.5),
    storage("nvme-read", Unit::Bandwidth, 1.5),
    storage("nvme-write", Unit::Bandwidth, 1.5),
    storage("nvme-read-1", Unit::Blocks, 1.5),
    storage("nvme-read-32", Unit::Blocks, 1.5),
    storage("nvme-write-1", Unit::Blocks, 1.5),
    storage("nvme-write-32", Unit::Blocks, 1.5),
    storage("usb-read", Unit::Bandwidth, 1.0),
    storage("usb-write", Unit::Bandwidth, 1.0),
    // Pictures that the guest draws and flushes; and those of them that a viewer gets, whole.
    screen("video"),
    screen("viewer"),
];
