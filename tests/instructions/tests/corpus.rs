//! The seeded part of the comparison that every test run does.

use dormer_instructions::compare::{Plan, compare};
use dormer_instructions::subject::Tier;

fn agree(tier: Tier, seed: u64) {
    let plan = Plan {
        seed,
        encodings: 12,
        states: 4,
        only: String::new(),
        tier,
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

#[test]
fn the_interpreter_agrees_with_the_oracle() {
    agree(Tier::Interpreter, 20_241);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn generated_code_agrees_with_the_oracle() {
    let without = Vec::new();
    agree(Tier::Baseline { without }, 20_242);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn generated_code_agrees_on_a_host_without_extensions() {
    let without = vec!["aes", "sha_ni", "pclmulqdq", "fma", "f16c"];
    agree(Tier::Baseline { without }, 20_243);
}
