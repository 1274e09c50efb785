//! How far the guest's clock is ahead of the host's.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::description::Rtc;

/// Seconds to add to the host's UTC time, as of now.
pub fn offset(rtc: Rtc) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64);
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
    use super::*;

    #[test]
    fn a_date_is_reached_by_its_distance() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs() as i64;
        let reached = now + offset(Rtc::Date(1_000_000_000));
        assert!((1_000_000_000 - 1..=1_000_000_000).contains(&reached) || reached == 1_000_000_001);
        assert_eq!(offset(Rtc::Utc), 0);
        assert!(offset(Rtc::LocalTime).abs() <= 15 * 3600);
    }
}
