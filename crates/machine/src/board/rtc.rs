//! The real-time clock, and how far it is ahead of the host's.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use device::{Clock, Line};
use devices::pl031::{Config, Pl031};

use crate::description::{Description, Rtc, RtcClock};

/// The board's, as the description wants it.
pub fn rtc(description: &Description, line: Line, clock: &Clock) -> Arc<Pl031> {
    let config = |offset| Config {
        name: "rtc".into(),
        offset,
    };
    match description.rtc_clock {
        RtcClock::Host => Pl031::new(config(offset(description.rtc)), line, clock),
        RtcClock::Vm => {
            let guest = clock.clone();
            let time = move || i64::try_from(guest.now()).unwrap_or(i64::MAX);
            let start = match description.rtc {
                Rtc::Date(seconds) => seconds,
                rtc => now().saturating_add(offset(rtc)),
            };
            Pl031::with_host_time(config(start), line, clock, Arc::new(time))
        }
    }
}

/// Seconds since 1970, UTC.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}

/// Seconds to add to the host's UTC time, as of now.
fn offset(rtc: Rtc) -> i64 {
    let now = now();
    match rtc {
        Rtc::Utc => 0,
        Rtc::LocalTime => local_offset(now),
        Rtc::Date(seconds) => seconds.saturating_sub(now),
    }
}

/// The host's time zone: seconds east of Greenwich at `now`.
#[allow(unsafe_code)] // no permissive library in use here asks the C library for the zone
fn local_offset(now: i64) -> i64 {
    let seconds = now as libc::time_t;
    // SAFETY: all zeroes is a valid `tm`.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to living values of the right types; localtime_r keeps neither.
    let done = unsafe { libc::localtime_r(&seconds, &mut broken_down) };
    if done.is_null() {
        0
    } else {
        broken_down.tm_gmtoff as i64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use device::{Access, Mmio};
    use devices::pl031::registers;

    use super::*;

    #[test]
    fn a_date_is_reached_by_its_distance() {
        let now = now();
        let reached = now + offset(Rtc::Date(1_000_000_000));
        assert!((1_000_000_000 - 1..=1_000_000_000).contains(&reached) || reached == 1_000_000_001);
        assert_eq!(offset(Rtc::Utc), 0);
        assert!(offset(Rtc::LocalTime).abs() <= 15 * 3600);
    }

    #[test]
    fn a_clock_of_guest_time_stands_where_that_stands() {
        let clock = Clock::counted();
        let description = Description {
            rtc: Rtc::Date(1_000),
            rtc_clock: RtcClock::Vm,
            ..Description::default()
        };
        let (line, level) = Line::probe();
        let rtc = rtc(&description, line, &clock);
        let read = || rtc.read(Access::new(registers::RTCDR, 4));
        assert_eq!(read(), 1_000);
        rtc.write(Access::new(registers::RTCIMSC, 4), 1);
        rtc.write(Access::new(registers::RTCMR, 4), 1_003);
        assert_eq!(clock.next_deadline(), Some(3_000_000_000));
        clock.set(2_999_999_999);
        clock.run_due();
        assert_eq!((read(), level.load(Ordering::SeqCst)), (1_002, false));
        clock.advance(1);
        clock.run_due();
        assert_eq!((read(), level.load(Ordering::SeqCst)), (1_003, true));
    }
}
