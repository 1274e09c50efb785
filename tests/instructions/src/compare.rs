//! Batches of cases on both sides, and what differs.

use std::collections::BTreeMap;

use aarch64::Instruction;
use anyhow::Result;

use crate::corpus;
use crate::oracle::Oracle;
use crate::random::Random;
use crate::subject::{Subject, Tier};
use crate::{BRK, Case, End, Outcome, SLOTS};

/// How much to compare.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Encodings of each instruction.
    pub encodings: u32,
    /// States of each encoding.
    pub states: u32,
    /// Only instructions whose names contain this.
    pub only: String,
    /// What executes on our side.
    pub tier: Tier,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    pub instructions: usize,
    pub encodings: u64,
    pub cases: u64,
    /// Cases that both sides found undefined, and those that faulted.
    pub undefined: u64,
    pub faults: u64,
    pub differences: u64,
    /// By instruction: how many of its cases differ, and the first few told.
    pub failures: BTreeMap<&'static str, (u64, Vec<String>)>,
}

/// Compares all that the plan says.
pub fn compare(plan: &Plan) -> Result<Report> {
    let mut oracle = Oracle::start()?;
    let mut subject = Subject::new(&plan.tier)?;
    let mut random = Random::new(plan.seed);
    let mut report = Report::default();
    let mut batch = Vec::with_capacity(SLOTS);
    for instruction in corpus::instructions().filter(|i| i.name().contains(&plan.only)) {
        report.instructions += 1;
        for _ in 0..plan.encodings {
            let word = corpus::encoding(instruction, &mut random);
            // Another row may claim the word.
            if aarch64::decode(word, n1()) != Some(instruction) {
                continue;
            }
            add(
                word,
                instruction.name(),
                plan,
                &mut random,
                &mut subject,
                &mut batch,
                &mut report,
            )?;
            if batch.len() + plan.states as usize > SLOTS {
                run(&mut oracle, &mut subject, &mut batch, &mut report)?;
            }
        }
    }
    if "system".contains(&plan.only) {
        for _ in 0..plan.encodings * 4 {
            let word = corpus::system_encoding(&mut random);
            add(
                word,
                "system",
                plan,
                &mut random,
                &mut subject,
                &mut batch,
                &mut report,
            )?;
            if batch.len() + plan.states as usize > SLOTS {
                run(&mut oracle, &mut subject, &mut batch, &mut report)?;
            }
        }
    }
    if "exclusives".contains(&plan.only) {
        for _ in 0..plan.encodings * 4 {
            let (load, store) = corpus::exclusives(&mut random);
            report.encodings += 1;
            for _ in 0..plan.states {
                let case = corpus::case(load, &mut random, &mut subject)?;
                batch.extend(case.map(|case| {
                    (
                        "exclusives",
                        Case {
                            then: store,
                            ..case
                        },
                    )
                }));
            }
            if batch.len() + plan.states as usize > SLOTS {
                run(&mut oracle, &mut subject, &mut batch, &mut report)?;
            }
        }
    }
    // Words of all kinds: most are unallocated, and both must say so.
    if plan.only.is_empty() {
        for _ in 0..plan.encodings * 256 {
            let word = random.draw() as u32;
            let name = aarch64::decode(word, n1()).map_or("unallocated", Instruction::name);
            if name != "unallocated" {
                continue;
            }
            add(
                word,
                name,
                &Plan {
                    states: 1,
                    ..plan.clone()
                },
                &mut random,
                &mut subject,
                &mut batch,
                &mut report,
            )?;
            if batch.len() + plan.states as usize > SLOTS {
                run(&mut oracle, &mut subject, &mut batch, &mut report)?;
            }
        }
    }
    run(&mut oracle, &mut subject, &mut batch, &mut report)?;
    Ok(report)
}

fn n1() -> aarch64::Extensions {
    cpu::Features::model("neoverse-n1")
        .map(|f| f.extensions)
        .unwrap_or_default()
}

fn add(
    word: u32,
    name: &'static str,
    plan: &Plan,
    random: &mut Random,
    subject: &mut Subject,
    batch: &mut Vec<(&'static str, Case)>,
    report: &mut Report,
) -> Result<()> {
    let before = batch.len();
    for _ in 0..plan.states {
        batch.extend(corpus::case(word, random, subject)?.map(|case| (name, case)));
    }
    report.encodings += u64::from(batch.len() > before);
    Ok(())
}

fn run(
    oracle: &mut Oracle,
    subject: &mut Subject,
    batch: &mut Vec<(&'static str, Case)>,
    report: &mut Report,
) -> Result<()> {
    // Branches are tried first: those that would go on to another case are not made.
    subject.place(batch.iter().map(|(_, case)| (case.word, case.then)))?;
    for (slot, (_, case)) in batch.iter_mut().enumerate() {
        let outcome = subject.run(slot, &case.state, case.then != BRK)?.outcome;
        if !corpus::lands_well(outcome.end) {
            case.word = corpus::NOTHING;
        }
    }
    let cases: Vec<Case> = batch.iter().map(|(_, case)| case.clone()).collect();
    subject.place(cases.iter().map(|case| (case.word, case.then)))?;
    let expected = oracle.run(&cases)?;
    for (slot, ((name, case), expected)) in batch.drain(..).zip(expected).enumerate() {
        if case.word == corpus::NOTHING {
            continue;
        }
        let found = subject.run(slot, &case.state, case.then != BRK)?.outcome;
        report.cases += 1;
        match found.end {
            End::Undefined => report.undefined += 1,
            End::DataFault | End::Alignment => report.faults += 1,
            _ => {}
        }
        // Whether a store-exclusive without reservation checks its address is left open.
        if name.starts_with("store_exclusive") && found.end != expected.end {
            continue;
        }
        let differences = difference(&case, &found, &expected);
        if !differences.is_empty() {
            report.differences += 1;
            let (count, told) = report.failures.entry(name).or_default();
            *count += 1;
            if told.len() < 3 {
                told.push(format!(
                    "{:#010x} fpcr {:#x}: {differences}",
                    case.word, case.state.fpcr
                ));
            }
        }
    }
    Ok(())
}

/// What differs, told for a reader; nothing if nothing does.
pub fn difference(case: &Case, found: &Outcome, expected: &Outcome) -> String {
    let mut told = Vec::new();
    if found.end != expected.end {
        told.push(format!(
            "ends {:x?}, expected {:x?}",
            found.end, expected.end
        ));
    }
    let before = &case.state;
    // What a fault leaves of destinations and memory is open, but here it is all as it was.
    let faulted = matches!(expected.end, End::DataFault | End::Alignment) && case.then == BRK;
    let (f, e) = (&found.state, if faulted { before } else { &expected.state });
    for i in 0..31 {
        if f.x[i] != e.x[i] {
            told.push(format!(
                "x{i} {:#x}, expected {:#x} (was {:#x})",
                f.x[i], e.x[i], before.x[i]
            ));
        }
    }
    for i in 0..32 {
        if f.v[i] != e.v[i] {
            told.push(format!(
                "v{i} {:#034x}, expected {:#034x} (was {:#034x})",
                f.v[i], e.v[i], before.v[i]
            ));
        }
    }
    if f.sp != e.sp {
        told.push(format!("sp {:#x}, expected {:#x}", f.sp, e.sp));
    }
    for (name, f, e, before) in [
        ("nzcv", f.nzcv, e.nzcv, before.nzcv),
        ("fpcr", f.fpcr, e.fpcr, before.fpcr),
        ("fpsr", f.fpsr, e.fpsr, before.fpsr),
    ] {
        if f != e {
            told.push(format!("{name} {f:#x}, expected {e:#x} (was {before:#x})"));
        }
    }
    if let Some(i) = (0..f.data.len()).find(|&i| f.data[i] != e.data[i]) {
        told.push(format!(
            "memory at data + {i}: {:#x}, expected {:#x}",
            f.data[i], e.data[i]
        ));
    }
    if f.rest != e.rest {
        told.push("memory beyond the data".into());
    }
    if !told.is_empty() {
        let (n, m, a, d) = (
            case.word >> 5 & 31,
            case.word >> 16 & 31,
            case.word >> 10 & 31,
            case.word & 31,
        );
        told.push(format!(
            "operands n {:#x} m {:#x} a {:#x} d {:#x}",
            before.v[n as usize], before.v[m as usize], before.v[a as usize], before.v[d as usize]
        ));
    }
    told.join("; ")
}
