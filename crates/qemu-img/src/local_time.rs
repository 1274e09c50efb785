//! The time of day where the user is.
#![allow(unsafe_code)] // One call of the C library, which knows the time zones.

/// Seconds since 1970 as "YYYY-MM-DD HH:MM:SS".
pub fn format(seconds: i64) -> String {
    // SAFETY: a structure of numbers, and pointers that may be null.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    let time = seconds as libc::time_t;
    // SAFETY: both point to what is ours and outlives the call.
    if unsafe { libc::localtime_r(&time, &mut parts) }.is_null() {
        return seconds.to_string();
    }
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        i64::from(parts.tm_year) + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_a_date() {
        let text = super::format(1_795_621_702);
        assert!(text.starts_with("2026-11-2"), "{text}");
        assert_eq!(text.len(), 19);
    }
}
