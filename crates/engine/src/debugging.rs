//! Debuggers outside of the guest, by the hardware's breakpoints, watchpoints and steps.

use cpu::{Debug, Debugger, Watch};

use crate::Error;

/// What hardware can watch, so that all engines watch the same.
pub fn check_watchpoints(debugger: &Debugger) -> Result<(), Error> {
    let fits = |w: &Watch| {
        w.bytes.is_power_of_two() && w.bytes <= 1 << 31 && w.address.is_multiple_of(w.bytes)
    };
    if debugger.watchpoints.iter().all(fits) {
        return Ok(());
    }
    Err(Error::Unavailable(
        "a watchpoint covers a power of two of bytes, up to 2 GiB, at a multiple of it".into(),
    ))
}

/// The same, and that no more is wanted than a host has, or [`registers`] can hold.
pub fn check(wanted: &Debugger, breakpoints: usize, watchpoints: usize) -> Result<(), Error> {
    check_watchpoints(wanted)?;
    let known = Debug::default();
    let breakpoints = breakpoints.min(known.breakpoint_value.len());
    let watchpoints = watchpoints.min(known.watchpoint_value.len());
    if wanted.breakpoints.len() > breakpoints || wanted.watchpoints.len() > watchpoints {
        return Err(Error::Unavailable(format!(
            "this host has {breakpoints} breakpoints and {watchpoints} watchpoints"
        )));
    }
    Ok(())
}

/// Breakpoints and watchpoints as a debugger outside of the guest wants them: at EL1 and EL0 (DDI 0487, D2.8, D2.9).
pub fn registers(wanted: &Debugger) -> Debug {
    const ENABLED: u64 = 1;
    const EL1_AND_EL0: u64 = 3 << 1;
    const STEP: u64 = 1;
    const MONITOR: u64 = 1 << 15;
    let mut d = Debug {
        mdscr: MONITOR | if wanted.step { STEP } else { 0 },
        ..Debug::default()
    };
    let places = d.breakpoint_value.iter_mut().zip(&mut d.breakpoint_control);
    for ((value, control), address) in places.zip(&wanted.breakpoints) {
        *value = address & !3;
        *control = 0xf << 5 | EL1_AND_EL0 | ENABLED;
    }
    let places = d.watchpoint_value.iter_mut().zip(&mut d.watchpoint_control);
    for ((value, control), watch) in places.zip(&wanted.watchpoints) {
        *value = watch.address & !7;
        let range = match watch.bytes {
            // BAS: bytes of a doubleword.
            bytes @ ..8 => ((1 << bytes) - 1) << (watch.address & 7) << 5,
            8 => 0xff << 5,
            // MASK: a power of two.
            bytes => u64::from(bytes.trailing_zeros()) << 24 | 0xff << 5,
        };
        let kind = u64::from(watch.read) | u64::from(watch.write) << 1;
        *control = range | kind << 3 | EL1_AND_EL0 | ENABLED;
    }
    d
}
