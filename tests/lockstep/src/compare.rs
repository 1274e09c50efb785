//! Two ways to run programs, held against each other.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use engine::{Tier, Translation};

use crate::generate::Generator;
use crate::layout::{CODE, RAM};
use crate::machine::{Machine, Outcome, Way};
use crate::program::{Item, Program, Source};

/// A machine lives for so many programs: long enough for code to be replaced many times.
const PROGRAMS_OF_A_MACHINE: u64 = 40;

/// What the others are held against.
pub fn reference() -> Way {
    Way {
        name: "interpreter".into(),
        translation: Translation {
            tier: Tier::Interpreter,
            ..Translation::default()
        },
    }
}

/// Features of the host that generated code uses where it finds them, as /proc/cpuinfo names them.
const FEATURES: &[&str] = &["aes", "sha_ni", "pclmulqdq", "f16c", "fma"];

/// Every way of generated code: each tier, with all that the host has, with a cache that is full again and again, after
/// executions by the interpreter, and with each feature of the host masked.
pub fn ways() -> Vec<Way> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        // Code is generated for no other host.
        return Vec::new();
    }
    let baseline = Translation {
        tier: Tier::Baseline,
        ..Translation::default()
    };
    let way = |name: &str, translation: Translation| Way {
        name: name.into(),
        translation,
    };
    let mut ways = vec![
        way("baseline", baseline.clone()),
        way(
            "baseline, 1 MiB of cache",
            Translation {
                cache: Some(1 << 20),
                ..baseline.clone()
            },
        ),
    ];
    let optimizing = Translation {
        tier: Tier::Optimizing,
        hot: Some(1),
        ..Translation::default()
    };
    ways.push(way("optimizing", optimizing.clone()));
    ways.push(way(
        "optimizing, 1 MiB of cache",
        Translation {
            cache: Some(1 << 20),
            ..optimizing.clone()
        },
    ));
    // In and out of the interpreter, as code becomes warm and is written anew.
    ways.push(way(
        "optimizing, translated from the second time on",
        Translation {
            warm: Some(1),
            ..optimizing.clone()
        },
    ));
    for feature in FEATURES {
        for (name, tier) in [("baseline", &baseline), ("optimizing", &optimizing)] {
            ways.push(way(
                &format!("{name} without {feature}"),
                Translation {
                    masked: vec![(*feature).into()],
                    ..tier.clone()
                },
            ));
        }
    }
    ways
}

/// Ways of generated code that whole systems are followed by: as it is, and each tier from the first execution on.
pub fn systems() -> Vec<Way> {
    let mut systems = ways();
    systems.retain(|way| matches!(way.name.as_str(), "baseline" | "optimizing"));
    systems.insert(
        0,
        Way {
            name: "automatic".into(),
            translation: Translation::default(),
        },
    );
    systems
}

/// How long, and from which program on.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// At most.
    pub programs: u64,
    /// No new program is begun after this.
    pub time: Duration,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    pub programs: u64,
    /// Exceptions that the programs took (as the reference ran them), at least.
    pub exceptions: u64,
    pub calls: u64,
    /// The first difference, in words.
    pub difference: Option<String>,
}

/// Runs programs until something differs, or the plan is done.
///
/// # Errors
///
/// A way that this host does not have.
pub fn compare(way: &Way, plan: &Plan) -> Result<Report> {
    let generator = Generator::new();
    let start = Instant::now();
    let mut report = Report::default();
    let mut machines = None;
    for i in 0..plan.programs {
        if start.elapsed() > plan.time {
            break;
        }
        if i % PROGRAMS_OF_A_MACHINE == 0 {
            machines = None;
        }
        let (expected, subject) = match &mut machines {
            Some(machines) => machines,
            None => machines.insert((Machine::new(&reference())?, Machine::new(way)?)),
        };
        let program = generator.program(plan.seed + i);
        let expectation = expected.run(&program)?;
        if expectation.hung {
            let mut text = String::new();
            for (name, value) in &expectation.state {
                write!(text, "{name}={value:#x} ")?;
            }
            bail!(
                "seed {}: the program does not end on the reference either: {text}",
                plan.seed + i
            );
        }
        let outcome = subject.run(&program)?;
        report.programs += 1;
        report.exceptions += logged(&expectation);
        report.calls += expectation.calls.len() as u64;
        if outcome != expectation {
            report.difference = Some(explain(way, plan.seed + i, program)?);
            break;
        }
    }
    Ok(report)
}

/// Entries of the handler's log: four words and the vector.
fn logged(outcome: &Outcome) -> u64 {
    let log = (crate::layout::LOG - RAM) as usize;
    outcome.memory[log..log + 0x1_0000]
        .chunks_exact(40)
        .filter(|entry| entry[8..16] != [0; 8])
        .count() as u64
}

/// A difference in a fresh pair of machines, if there is one.
fn difference(way: &Way, program: &Program) -> Result<Option<(Outcome, Outcome)>> {
    let expected = Machine::new(&reference())?.run(program)?;
    let found = Machine::new(way)?.run(program)?;
    Ok((expected != found && !expected.hung).then_some((expected, found)))
}

fn explain(way: &Way, seed: u64, program: Program) -> Result<String> {
    let mut text = format!(
        "{}: the program of seed {seed} ends differently\n",
        way.name
    );
    if difference(way, &program)?.is_none() {
        text += "only after the programs before it on the same machine: run from a smaller seed to see it again\n";
        return Ok(text);
    }
    let program = shrink(way, program)?;
    let (expected, found) =
        difference(way, &program)?.context("the smaller program shows no difference any more")?;
    describe(&mut text, &expected, &found)?;
    text += "the smallest program that shows it:\n";
    for (address, word) in &program.words {
        let name = aarch64::decode::decode(*word, all()).map_or("undefined", |i| i.name());
        writeln!(text, "  {:#07x}: {word:08x} {name}", address - CODE)?;
    }
    let source = program.source();
    writeln!(
        text,
        "fpcr {:#x} nzcv {:#x} sctlr {:#x} tcr {:#x}",
        source.fpcr, source.nzcv, source.sctlr, source.tcr
    )?;
    for (i, x) in source.x.iter().enumerate() {
        write!(text, "x{i}={x:#x} ")?;
    }
    text.push('\n');
    for (i, v) in source.v.iter().enumerate() {
        write!(text, "v{i}={v:#x} ")?;
    }
    text.push('\n');
    Ok(text)
}

fn all() -> aarch64::Extensions {
    engine::Features::model("max")
        .map(|f| f.extensions)
        .unwrap_or_default()
}

fn describe(text: &mut String, expected: &Outcome, found: &Outcome) -> Result<()> {
    if found.hung {
        writeln!(text, "it does not end")?;
    }
    for ((name, a), (_, b)) in expected.state.iter().zip(&found.state) {
        if a != b {
            writeln!(text, "  {name}: expected {a:#x}, is {b:#x}")?;
        }
    }
    if expected.calls != found.calls {
        let same = expected
            .calls
            .iter()
            .zip(&found.calls)
            .take_while(|(a, b)| a == b)
            .count();
        writeln!(
            text,
            "  calls: {} expected, {} made, the first {same} the same",
            expected.calls.len(),
            found.calls.len()
        )?;
    }
    let bytes: Vec<_> = (0..expected.memory.len())
        .filter(|i| expected.memory[*i] != found.memory[*i])
        .collect();
    for i in bytes.iter().take(24) {
        writeln!(
            text,
            "  {:#x}: expected {:02x}, is {:02x}",
            RAM + *i as u64,
            expected.memory[*i],
            found.memory[*i]
        )?;
    }
    if bytes.len() > 24 {
        writeln!(text, "  and {} bytes more", bytes.len() - 24)?;
    }
    Ok(())
}

/// Takes items away as long as the difference stays.
fn shrink(way: &Way, program: Program) -> Result<Program> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut best = program;
    let mut at = 0;
    while Instant::now() < deadline {
        let mut source = best.source().clone();
        if !simplify(&mut source, at) {
            break;
        }
        let smaller = match Program::new(source) {
            Some(program) => difference(way, &program)?.is_some().then_some(program),
            None => None,
        };
        match smaller {
            Some(program) => best = program,
            None => at += 1,
        }
    }
    Ok(best)
}

/// The simplification of that number: an item less, or a loop with fewer turns; false if there are not so many.
fn simplify(source: &mut Source, number: usize) -> bool {
    let mut left = number;
    source
        .functions
        .iter_mut()
        .any(|function| simplify_items(&mut function.body, &mut left))
}

fn simplify_items(items: &mut Vec<Item>, left: &mut usize) -> bool {
    for i in 0..items.len() {
        if *left == 0 {
            items.remove(i);
            return true;
        }
        *left -= 1;
        // In the place of an item, what is in it.
        let unwrapped = match &items[i] {
            Item::Skip { body, .. } | Item::Loop { body, .. } => Some(body.clone()),
            Item::Words(words) if words.len() > 1 => {
                Some(words.iter().map(|w| Item::Words(vec![*w])).collect())
            }
            _ => None,
        };
        if let Some(body) = unwrapped {
            if *left == 0 {
                items.splice(i..=i, body);
                return true;
            }
            *left -= 1;
        }
        let simplified = match &mut items[i] {
            Item::Loop { body, .. } | Item::Skip { body, .. } => simplify_items(body, left),
            Item::Table { arms, .. } => arms.iter_mut().any(|arm| simplify_items(arm, left)),
            _ => false,
        };
        if simplified {
            return true;
        }
    }
    false
}
