//! The programs of `guests/programs` on every engine that this host has: the interpreter, each tier of generated code,
//! `hvf` on the model of its framework, and the hosts' own. Their lines are the same.

mod common;

use std::collections::HashSet;
use std::sync::Arc;

use engine::hvf::Hvf;
use engine::jit::Jit;
use engine::{AddressBits, Config, Debugger, Engine, Stop, Vm};
use hvf_model::{Model, Options};
use machine::control::{Cause, ControlError, Event, RunState};
use machine::description::{Description, GicChoice, Tier, Translation};

use common::{PATIENCE, Running};

/// `hvf` on a host with as many address bits as the interpreter has, all of them used: what the guest sees of them, in
/// ID_AA64MMFR0_EL1.PARange and in the faults of its tables, is the same.
struct Wide(Hvf);

const BITS: u32 = 48;

impl Engine for Wide {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn address_bits(&self) -> AddressBits {
        AddressBits {
            most: BITS,
            preferred: BITS,
        }
    }

    fn create(&self, config: Config) -> Result<Arc<dyn Vm>, engine::Error> {
        self.0.create(config)
    }
}

fn modelled() -> Wide {
    let max_ipa_size = BITS;
    Wide(Hvf::new(Model::new(Options {
        max_ipa_size,
        ..Options::default()
    })))
}

/// An engine, and how it is to generate code.
struct Way {
    name: &'static str,
    engine: Box<dyn Engine>,
    translation: Translation,
}

/// The first is the reference.
fn ways() -> Vec<Way> {
    let jit = |name, tier| Way {
        name,
        engine: Box::new(Jit),
        translation: Translation {
            tier,
            // Every loop is made anew.
            hot: (tier == Tier::Optimizing).then_some(1),
            ..Translation::default()
        },
    };
    let mut ways = vec![jit("interpreter", Tier::Interpreter)];
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        ways.push(jit("baseline", Tier::Baseline));
        ways.push(jit("optimizing", Tier::Optimizing));
    }
    ways.push(Way {
        name: "hvf, modelled",
        engine: Box::new(modelled()),
        translation: Translation::default(),
    });
    for name in ["hvf", "kvm"] {
        if let Ok(engine) = engine::engine(name) {
            ways.push(Way {
                name,
                engine,
                translation: Translation::default(),
            });
        }
    }
    ways
}

fn description(image: std::path::PathBuf, translation: Translation) -> Description {
    Description {
        cpus: 2,
        cpu_model: "host".into(),
        memory: 256 << 20,
        gic: GicChoice::V3,
        kernel: Some(image),
        translation,
        ..Description::default()
    }
}

/// A program's lines.
fn lines(way: &Way, image: &std::path::Path) -> Vec<String> {
    let description = description(image.into(), way.translation.clone());
    let mut running = Running::start(&*way.engine, &description).unwrap();
    running
        .expect("end: of program")
        .unwrap_or_else(|e| panic!("{}: {e}", way.name));
    let log = running.log();
    assert_eq!(running.machine.wait(), Cause::GuestShutdown);
    log.lines().map(|line| line.trim_end().into()).collect()
}

/// All engines' lines are those of the first; `same` may leave out a line, or what it does not have to say.
fn compare(program: &str, seed: u64, count: u32, same: impl Fn(&str) -> Option<String>) {
    let image = guests::bare::system(program, seed, count).unwrap();
    let ways = ways();
    let told = |way| -> Vec<String> {
        let lines = lines(way, &image);
        lines.iter().filter_map(|line| same(line)).collect()
    };
    let reference = told(&ways[0]);
    assert!(reference.len() > 10);
    let mut failed = Vec::new();
    for way in &ways[1..] {
        let lines = told(way);
        if lines == reference {
            continue;
        }
        let only = |sign, these: &[String], others: &[String]| -> Vec<String> {
            let others: HashSet<_> = others.iter().collect();
            let only = these.iter().filter(|line| !others.contains(line));
            only.map(|line| format!("{sign} {line}")).collect()
        };
        let mut different = only('-', &reference, &lines);
        different.extend(only('+', &lines, &reference));
        let count = different.len();
        different.truncate(60);
        let some = different.join("\n");
        failed.push(format!("{}: {count} lines differ:\n{some}", way.name));
    }
    assert!(failed.is_empty(), "{program}:\n{}", failed.join("\n"));
}

fn all(line: &str) -> Option<String> {
    Some(line.into())
}

#[test]
fn exceptions() {
    compare("exceptions", 1, 0, all);
}

#[test]
fn interrupts() {
    // The host's counter is as fast as it is. With hardware beneath, nobody tells when the guest goes to EL0, which is all
    // that its cycle counter is to count here. Its overflow comes by a thread of the host, on a busy one too late for the
    // program.
    const OTHERS: &[&str] = &[
        "frequency: ",
        "cycles at EL0: ",
        "cycles overflow: ",
        "cycles interrupt: ",
    ];
    compare("interrupts", 1, 0, |line| {
        let other = OTHERS.iter().any(|start| line.starts_with(start));
        (!other).then(|| line.into())
    });
}

#[test]
fn translation() {
    compare("translation", 1, 1000, all);
}

#[test]
fn registers() {
    // CNTFRQ_EL0 as above. What EL0 may do with performance monitors that the hardware traps is for a register to say that
    // it traps as well: the guest's PMUSERENR_EL0 does not get there, and EL0 has nothing.
    let is_monitor = |line: &str| {
        let (_, register) = line.split_once(" EL0 S3_3_")?;
        let (crn, rest) = register.split_once("_C")?;
        let crm: u32 = rest.split('_').next()?.parse().ok()?;
        Some(crn == "C9" && crm >= 12 || crn == "C14" && crm >= 8)
    };
    compare("registers", 1, 0, |line| {
        let other = line.contains(" S3_3_C14_C0_0:") || is_monitor(line) == Some(true);
        (!other).then(|| line.into())
    });
}

/// A debugger stops the machine at its kernel's entry, on every engine that debugs, and lets it go on.
#[test]
fn debuggers_stop_machines() {
    let image = guests::bare::system("exceptions", 1, 0).unwrap();
    for way in ways().into_iter().filter(|way| way.name != "kvm") {
        let description = Description {
            start_stopped: true,
            ..description(image.clone(), way.translation.clone())
        };
        let mut running = Running::start(&*way.engine, &description).unwrap();
        let handle = running.machine.handle();
        let events = handle.events();
        let entry = Debugger {
            breakpoints: vec![0x4020_0000],
            ..Debugger::default()
        };
        assert_eq!(
            handle.debug(2, entry.clone()),
            Err(ControlError::NoProcessor(2))
        );
        handle.debug(0, entry).unwrap();
        handle.resume().unwrap();
        let seen: Vec<_> = (0..2)
            .map(|_| events.recv_timeout(PATIENCE).unwrap().1)
            .collect();
        assert_eq!(seen, [Event::Resume, Event::Stop], "{}", way.name);
        assert_eq!(handle.state(), RunState::Debug);
        assert_eq!(handle.debugged(), Some((0, Stop::Breakpoint)));
        assert_eq!(running.log(), "");
        handle.debug(0, Debugger::default()).unwrap();
        assert_eq!(handle.state(), RunState::Debug);
        handle.resume().unwrap();
        assert_eq!(handle.debugged(), None);
        running.expect("end: of program").unwrap();
        assert_eq!(running.machine.wait(), Cause::GuestShutdown);
    }
}
