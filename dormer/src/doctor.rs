//! `dormer doctor`: which engine this host gives, and why not the others.

use std::fmt::Write;
use std::process::ExitCode;

/// Tells on standard output. Fails where no engine can be had.
pub fn run() -> ExitCode {
    let engines = machine::accelerators();
    print!("{}", report(&engines));
    match engines.iter().any(|engine| engine.available.is_ok()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn report(engines: &[machine::Accelerator]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Dormer {} for {} on {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let best = engines
        .iter()
        .find(|engine| engine.available.is_ok())
        .map(|engine| engine.name);
    text.push_str("Engines, the best first:\n");
    for engine in engines {
        let state = match &engine.available {
            Ok(()) if Some(engine.name) == best => "ready, and used where no -accel is given",
            Ok(()) => "ready",
            Err(reason) => &format!("not here: {reason}"),
        };
        let _ = writeln!(text, "  {:<4} {state}", engine.name);
    }
    match best {
        Some("jit") => text.push_str(
            "Guests run on Dormer's own engine, without the help of an Arm processor: slower than on hardware.\n",
        ),
        Some(name) => {
            let _ = writeln!(text, "Guests run on this host's processor, by {name}.");
        }
        None => text.push_str("No guest can run here.\n"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(name: &'static str, available: Result<(), &str>) -> machine::Accelerator {
        machine::Accelerator {
            name,
            available: available.map_err(String::from),
        }
    }

    #[test]
    fn says_which_and_why_not() {
        let text = report(&[
            engine("hvf", Err("it needs macOS")),
            engine("kvm", Ok(())),
            engine("jit", Ok(())),
        ]);
        assert!(text.contains("  hvf  not here: it needs macOS\n"), "{text}");
        assert!(text.contains("  kvm  ready, and used"), "{text}");
        assert!(text.contains("  jit  ready\n"), "{text}");
        assert!(text.ends_with("by kvm.\n"));
    }

    #[test]
    fn this_host_has_one() {
        let engines = machine::accelerators();
        assert!(engines.iter().any(|engine| engine.available.is_ok()));
    }
}
