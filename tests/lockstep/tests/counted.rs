//! With guest time counted in instructions, a whole Linux does the same again, to the instruction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormer_lockstep::boot::Console;
use machine::control::RunState;
use machine::description::{Description, Icount, MsiChoice, Rtc, RtcClock};
use machine::{Board, Machine};

/// What hangs on time: processes that race, sleep and are scheduled, the clock, interrupts so far.
const SCRIPT: &str = r#"
for i in 1 2 3; do
    (seq 1 500 | sort -r | md5sum; echo $i) &
    dd if=/dev/urandom bs=1k count=64 2>/dev/null | sha256sum
done
wait
sleep 2
date
cat /proc/uptime /proc/interrupts
dmesg | tail -n 20
poweroff -f
"#;

/// What can be seen of a machine after its guest has turned it off.
#[derive(PartialEq)]
struct Seen {
    said: String,
    registers: Vec<String>,
    reports: Vec<String>,
}

fn run(cpus: u32) -> Seen {
    let kernel = guests::kernel().unwrap();
    let initrd = guests::initrd::build(&kernel, &[], SCRIPT, &[]).unwrap();
    let description = Description {
        cpus,
        memory: 128 << 20,
        accelerators: vec!["jit".into()],
        icount: Some(Icount {
            shift: 3,
            sleep: false,
        }),
        seed: Some(1),
        rtc: Rtc::Date(1_577_836_800),
        rtc_clock: RtcClock::Vm,
        kernel: Some(kernel.image),
        initrd: Some(initrd),
        append: Some("console=ttyAMA0 panic=-1".into()),
        msi: MsiChoice::None,
        serial: Some("null".into()),
        no_shutdown: true,
        ..Description::default()
    };
    let console = Arc::new(Console::default());
    let machine = Machine::start(Board::build(&description, console.clone()).unwrap()).unwrap();
    let handle = machine.handle();
    let started = Instant::now();
    while handle.state() != RunState::Shutdown {
        let late = started.elapsed() > Duration::from_secs(600);
        assert!(!late, "{}", console.said.lock());
        std::thread::sleep(Duration::from_millis(50));
    }
    let registers = (0..cpus).map(|cpu| {
        let mut state = handle.registers(cpu).unwrap();
        // An address of the host's.
        state.monitor.host_address = 0;
        format!("{state:x?}")
    });
    let reports = (0..cpus).map(|cpu| handle.report(cpu).unwrap().unwrap());
    Seen {
        registers: registers.collect(),
        reports: reports.collect(),
        said: std::mem::take(&mut *console.said.lock()),
    }
}

fn the_same_again(cpus: u32) {
    let (one, other) = (run(cpus), run(cpus));
    for (line, again) in one.said.lines().zip(other.said.lines()) {
        assert_eq!(line, again, "{}", one.said);
    }
    assert_eq!(one.said, other.said);
    assert_eq!(one.reports, other.reports);
    assert_eq!(one.registers, other.registers);
    // It went all the way, with time stamps, at that date.
    for part in ["[    0.000000] Booting Linux", "Jan  1 00:00", "Power down"] {
        assert!(one.said.contains(part), "{}", one.said);
    }
    println!("{:?}", one.reports);
}

#[test]
fn linux_on_one_processor_does_the_same_again() {
    the_same_again(1);
}

#[test]
fn linux_on_two_processors_does_the_same_again() {
    the_same_again(2);
}
