//! The seeded part of the comparison that every test run does.

use dormer_instructions::compare::{Plan, compare};

#[test]
fn the_interpreter_agrees_with_the_oracle() {
    let plan = Plan {
        seed: 20_241,
        encodings: 12,
        states: 4,
        only: String::new(),
    };
    let report = compare(&plan).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(report.instructions > 600, "the table has shrunk");
    assert!(report.cases > 20_000, "cases were lost: {}", report.cases);
    assert!(
        report.failures.is_empty(),
        "{} of {} cases differ: {:#?}",
        report.differences,
        report.cases,
        report.failures
    );
}
