//! Exceptions, translation, interrupts and system registers: the same programs on Dormer and on QEMU, their lines compared.
//!
//! Where QEMU does something else than the architecture says, or either may do as it likes, the lines are made equal by a
//! rule that says why.

mod common;

use std::path::Path;
use std::time::Duration;

use common::dormer;
use guests::run::Builder;

/// A program's lines on one machine.
fn lines(program: &Path, image: &Path, options: &str) -> Vec<String> {
    let mut machine = Builder::new(program)
        .args("-machine virt,gic-version=3 -cpu neoverse-n1 -m 256M -smp 2")
        .args(options)
        .arg("-kernel")
        .arg(image)
        .start()
        .unwrap();
    machine.wait(Duration::from_secs(240)).unwrap();
    let log = machine.log();
    assert!(
        log.contains("end: of program"),
        "{}: {log}\n{}",
        program.display(),
        machine.errors()
    );
    log.lines().map(|l| l.trim_end().to_string()).collect()
}

/// Our lines, if they are the same but for the rule.
fn compare(name: &str, seed: u64, count: u32, rule: impl Fn(&str) -> String) -> Vec<String> {
    let image = guests::bare::system(name, seed, count).unwrap();
    let ours = lines(dormer(), &image, "-accel jit");
    let theirs = lines(Path::new("qemu-system-aarch64"), &image, "-accel tcg");
    assert_eq!(ours.len(), theirs.len(), "{name}, seed {seed}");
    let different: Vec<_> = ours
        .iter()
        .zip(&theirs)
        .filter(|(a, b)| rule(a) != rule(b))
        .map(|(a, b)| format!("- {b}\n+ {a}"))
        .collect();
    assert!(
        different.is_empty(),
        "{name}, seed {seed}: {} of {} lines differ from QEMU's:\n{}",
        different.len(),
        ours.len(),
        different.join("\n")
    );
    ours
}

/// The number after a word.
fn field(line: &str, name: &str) -> Option<u64> {
    let rest = &line[line.find(&format!(" {name} "))? + name.len() + 2..];
    u64::from_str_radix(rest.split(' ').next()?, 16).ok()
}

/// A line without what follows a word, up to the next space.
fn without(line: &str, name: &str) -> String {
    let Some(at) = line.find(&format!(" {name} ")) else {
        return line.into();
    };
    let value = at + name.len() + 2;
    let end = line[value..].find(' ').map_or(line.len(), |n| value + n);
    format!("{}{}", &line[..at], &line[end..])
}

fn with(line: &str, name: &str, value: u64) -> String {
    format!("{} {name} {value:x}", without(line, name))
}

#[test]
fn exceptions() {
    compare("exceptions", 1, 0, |line| {
        // WnR of an atomic is 0 where reading alone would fail (ESR_ELx, ISS of a Data Abort); QEMU says 1.
        if line.starts_with("atomic_nowhere")
            && let Some(esr) = field(line, "esr")
        {
            return with(line, "esr", esr & !(1 << 6));
        }
        // No debug exceptions while the OS lock is locked (AArch64.GenerateDebugExceptionsFrom); QEMU goes on.
        let is_locked = line.starts_with("step") && line.contains("locked:");
        // SMC never faults on our board (machine contract), and SMCCC_VERSION is answered.
        let is_call =
            line.starts_with("call ") && (line.contains("kind 1") || line.contains("80000000"));
        if is_locked || is_call {
            String::new()
        } else {
            line.into()
        }
    });
}

#[test]
fn interrupts() {
    // Our PSCI is 1.1 with SYSTEM_RESET2 and SMCCC, and checks its arguments (DEN 0022).
    const OURS: &[&str] = &[
        "PSCI features of 84000012",
        "PSCI features of c4000012",
        "PSCI features of 80000000",
        "PSCI affinity level 4",
        "PSCI on at nothing",
        "PSCI reset2 of no kind",
    ];
    // QEMU sees an overflow of the cycle counter when a timer of the host tells it, on a busy host too late for the program.
    const LATE: &[&str] = &["cycles overflow: ", "cycles interrupt: "];
    let ours = compare("interrupts", 1, 0, |line| {
        let other = OURS.iter().chain(LATE).any(|start| line.starts_with(start));
        if other { String::new() } else { line.into() }
    });
    for line in ["cycles overflow: 80000000", "cycles interrupt: 17"] {
        assert!(ours.iter().any(|l| l == line), "no '{line}'");
    }
}

/// By seeds in whose programs nothing writes to the tables through a block of memory, which each machine may see sooner or
/// later.
#[test]
fn translation() {
    for seed in [1, 4] {
        compare("translation", seed, 1000, translation_rule);
    }
}

fn translation_rule(line: &str) -> String {
    let (operation, is_random) = match line.split_once(' ') {
        Some((number, rest)) if number.parse::<u32>().is_ok() => (rest, true),
        _ => (line, false),
    };
    let is = |names: &[&str]| {
        names
            .iter()
            .any(|n| operation.starts_with(&format!("{n} ")))
    };
    // Cache maintenance by address is translated, and faults; QEMU does nothing.
    if is(&["dc civac", "dc cvac", "dc cvau", "dc ivac", "ic ivau"]) {
        return String::new();
    }
    // Vectors and DC ZVA to Device memory have to be aligned, LD1 and ST1 to their elements only; QEMU has it otherwise.
    if line.starts_with("attribute 1 ") || line.starts_with("attribute 3 ") {
        return String::new();
    }
    if !is_random {
        return line.into();
    }
    let mut line = line.to_string();
    let esr = field(&line, "esr").unwrap_or(0);
    let leaf = field(&line, "leaf").unwrap_or(0);
    let is_device = leaf >> 2 & 7 == 1 || leaf >> 2 & 7 == 3;
    if is(&["ld1", "st1", "dc zva"]) && is_device {
        return String::new();
    }
    // WXN counts a page as writable that hardware would make so (S1ComputePermissions by DBM); QEMU's does not.
    let wxn = field(&line, "sctlr").unwrap_or(0) & 1 << 19 != 0;
    if is(&["br"]) && wxn {
        return String::new();
    }
    let is_abort = matches!(esr >> 26, 0x24 | 0x25);
    if is_abort && is(&["ldadd", "swpb", "cas", "casp", "stxr", "ldxr", "ldxp"]) {
        // WnR as above; where no memory is, an external abort or "unsupported exclusive or atomic access" is as good.
        let esr = esr & !(1 << 6);
        let esr = if esr & 0x3f == 0x35 {
            esr & !0x3f | 0x10
        } else {
            esr
        };
        line = with(&line, "esr", esr);
    }
    if is(&["st1"]) {
        // It stores what was in the vectors.
        line = without(&line, "memory");
    }
    if is(&["at"]) || (is_abort && matches!(esr & 0x3c, 0x0c | 0x20)) {
        // Whether an access that fails, and AT, set the access flag is the implementation's choice; AT does not make
        // pages dirty (SettingDirtyStatePermitted), QEMU's does.
        let now = field(&line, "now").unwrap_or(0);
        line = with(&line, "now", now & !(1 << 10 | 1 << 7));
    }
    line
}
