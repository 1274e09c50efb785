//! The bounded part of the comparison that every test run does.

use std::time::Duration;

use dormer_lockstep::compare::{Plan, compare, reference, ways};
use dormer_lockstep::generate::Generator;
use dormer_lockstep::machine::Machine;

const SEED: u64 = 1_000_000;

#[test]
fn programs_do_what_they_are_made_for() {
    let generator = Generator::new();
    let mut machine = Machine::new(&reference()).unwrap();
    let mut ended = 0;
    for seed in 0..100 {
        let outcome = machine.run(&generator.program(SEED + seed)).unwrap();
        assert!(!outcome.hung, "seed {seed} does not end");
        ended += usize::from(!outcome.calls.is_empty());
    }
    assert_eq!(ended, 100);
}

#[test]
fn every_way_agrees_with_the_interpreter() {
    let mut failures = Vec::new();
    for (i, way) in ways().iter().enumerate() {
        let plan = Plan {
            seed: SEED + 10_000 * i as u64,
            programs: if i == 0 { 400 } else { 120 },
            time: Duration::from_secs(60),
        };
        let report = compare(way, &plan).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(report.exceptions > 100, "{}: {report:?}", way.name);
        failures.extend(report.difference);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
