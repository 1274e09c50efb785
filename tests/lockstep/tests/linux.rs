//! Linux in lockstep, as far as a test run has time: `cargo xtask lockstep --linux` goes to the end, by each tier.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::sync::Arc;
use std::time::Duration;

use dormer_lockstep::boot::{boot, boot_beside};
use dormer_lockstep::compare::systems;
use engine::Features;

#[test]
fn linux_starts_the_same_by_generated_code_and_by_the_interpreter() {
    let optimizing = systems()
        .into_iter()
        .find(|way| way.name == "optimizing")
        .unwrap();
    let report = boot(&optimizing, Duration::from_secs(45)).unwrap();
    assert_eq!(report.difference, None, "{report}");
    // On the slowest host that is on the way to init.
    assert!(report.instructions > 50_000_000, "{report}");
    assert!(report.compared > 50, "{report}");
}

#[test]
fn another_processor_differs() {
    let other = Arc::new(Features::model("cortex-a72").unwrap());
    let report = boot_beside(&systems()[0], Some(other), Duration::from_secs(60)).unwrap();
    let difference = report.difference.expect("it is another processor");
    // The kernel looks at what the processor has, and branches.
    assert!(difference.contains("generated code"), "{difference}");
    assert!(!report.ended);
}
