//! Linux, executed by generated code and followed by the interpreter.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use device::serial::SerialOutput;
use engine::Features;
use machine::description::{Description, MsiChoice};
use machine::{Board, Machine};
use parking_lot::{Condvar, Mutex};

use crate::machine::Way;
use crate::shadow::{Findings, Shadowed};

/// The far side of the machine's UART.
#[derive(Default)]
pub struct Console {
    pub said: Mutex<String>,
    /// Something was said.
    pub grown: Condvar,
}

impl SerialOutput for Console {
    fn write(&self, bytes: &[u8]) {
        self.said.lock().push_str(&String::from_utf8_lossy(bytes));
        self.grown.notify_all();
    }
}

/// How far it came.
#[derive(Debug)]
pub struct Report {
    /// The script of the initial RAM disk came to its end.
    pub ended: bool,
    pub compared: u64,
    pub instructions: u64,
    pub events: u64,
    pub difference: Option<String>,
    /// What the serial line said.
    pub said: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.said.lines().last().unwrap_or_default().trim();
        write!(
            f,
            "{} million instructions, {} events; the same state {} times; {}, \"{last}\"",
            self.instructions / 1_000_000,
            self.events,
            self.compared,
            if self.ended {
                "to the end"
            } else {
                "as far as"
            },
        )
    }
}

/// What init does: programs, pipes, files, signals, memory.
const SCRIPT: &str = r#"
for i in 1 2 3; do
    seq 1 200 | sort -r | md5sum
    dd if=/dev/zero bs=64k count=8 2>/dev/null | sha256sum
done
cat /proc/cpuinfo /proc/meminfo /proc/interrupts | wc -l
echo "2^200 % 1000007" | bc
awk 'BEGIN { for (i = 0; i < 2000; i++) s += sqrt(i) / 3; printf "%.6f\n", s }'
(sleep 0.1; kill -USR1 $$) &
trap 'echo signal' USR1
wait
echo everything done
"#;

/// What the script says last.
const END: &str = "everything done";

/// Starts Linux by one way of generated code, and follows it until its script has ended or the time is over.
///
/// # Errors
/// There is no such guest, or no machine of that kind.
pub fn boot(way: &Way, time: Duration) -> Result<Report> {
    boot_beside(way, None, time)
}

/// The same with other features for the interpreter that follows.
///
/// # Errors
/// As [`boot`].
pub fn boot_beside(
    way: &Way,
    other_features: Option<Arc<Features>>,
    time: Duration,
) -> Result<Report> {
    let kernel = guests::kernel()?;
    let initrd = guests::initrd::build(&kernel, &[], SCRIPT, &[])?;
    let findings = Arc::new(Findings::default());
    let engine = Shadowed {
        translation: way.translation.clone(),
        other_features,
        findings: findings.clone(),
    };
    let description = Description {
        memory: 128 << 20,
        kernel: Some(kernel.image),
        initrd: Some(initrd),
        append: Some("console=ttyAMA0 panic=-1".into()),
        msi: MsiChoice::None,
        serial: Some("null".into()),
        ..Description::default()
    };
    let console = Arc::new(Console::default());
    let board = Board::build_on(&engine, &description, console.clone())?;
    let machine = Machine::start(board)?;
    let deadline = Instant::now() + time;
    let ended = loop {
        let mut said = console.said.lock();
        if said.contains(END) {
            break true;
        }
        if Instant::now() > deadline || findings.difference.lock().is_some() {
            break false;
        }
        console
            .grown
            .wait_for(&mut said, Duration::from_millis(200));
    };
    drop(machine);
    let said = std::mem::take(&mut *console.said.lock());
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::SeqCst);
    let report = Report {
        ended,
        compared: count(&findings.compared),
        instructions: count(&findings.instructions),
        events: count(&findings.events),
        difference: findings.difference.lock().clone(),
        said,
    };
    if report.compared == 0 && report.difference.is_none() {
        bail!("nothing was compared: {report:?}");
    }
    Ok(report)
}
