//! PL031 real-time clock (Arm DDI 0224C): seconds since 1970, and one alarm.
//!
//! The time is the host's, or another source's, plus an offset. The guest sets the clock by changing the offset, which outlives a reset as
//! it would in a battery-backed part.

use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use device::{Access, Clock, Device, Line, Mmio, Registers, Timer};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::primecell;

/// Register offsets (DDI 0224C, table 3-1).
pub mod registers {
    /// The time.
    pub const RTCDR: u64 = 0x00;
    /// When to interrupt.
    pub const RTCMR: u64 = 0x04;
    /// Sets the time.
    pub const RTCLR: u64 = 0x08;
    /// Bit 0: running.
    pub const RTCCR: u64 = 0x0c;
    pub const RTCIMSC: u64 = 0x10;
    pub const RTCRIS: u64 = 0x14;
    pub const RTCMIS: u64 = 0x18;
    pub const RTCICR: u64 = 0x1c;

    /// PeriphID0–3: part 0x031, Arm.
    pub const PERIPHERAL_ID: [u8; 4] = [0x31, 0x10, 0x14, 0x00];
}

use registers::*;

const SECOND: i64 = 1_000_000_000;

/// What the board decides about the clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name for logs.
    pub name: String,
    /// Seconds to add to the host's UTC time when the machine is first started: 0 for `-rtc base=utc`, the zone's
    /// offset for `localtime`, and the difference for a date.
    pub offset: i64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: "pl031".into(),
            offset: 0,
        }
    }
}

/// What outlives a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Guest time less the host's, in seconds.
    pub offset: i64,
}

/// Everything else a guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    matches: u32,
    load: u32,
    imsc: bool,
    ris: bool,
    /// The time, not cut to 32 bits, at which the counter next equals RTCMR.
    alarm: Option<i64>,
}

impl State {
    /// The state after power-on or reset.
    pub fn power_on(_: &Config) -> State {
        State {
            matches: 0,
            load: 0,
            imsc: false,
            ris: false,
            alarm: None,
        }
    }
}

/// Where the time comes from: nanoseconds since 1970, UTC.
pub type HostTime = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The device.
pub struct Pl031 {
    config: Config,
    inner: Mutex<(State, Contents)>,
    line: Line,
    clock: Clock,
    timer: Timer,
    host: HostTime,
}

impl Pl031 {
    /// A clock that follows the host's and interrupts by `line` (level-high).
    pub fn new(config: Config, line: Line, clock: &Clock) -> Arc<Pl031> {
        let host = || match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(_) => 0,
        };
        Pl031::with_host_time(config, line, clock, Arc::new(host))
    }

    /// The same with another source of time.
    pub fn with_host_time(config: Config, line: Line, clock: &Clock, host: HostTime) -> Arc<Pl031> {
        Arc::new_cyclic(|this: &Weak<Pl031>| {
            let this = this.clone();
            let timer = clock.timer(move || {
                if let Some(rtc) = this.upgrade() {
                    rtc.update(&mut rtc.inner.lock());
                }
            });
            let contents = Contents {
                offset: config.offset,
            };
            Pl031 {
                inner: Mutex::new((State::power_on(&config), contents)),
                config,
                line,
                clock: clock.clone(),
                timer,
                host,
            }
        })
    }

    /// State and contents, for a snapshot.
    pub fn save(&self) -> (State, Contents) {
        self.inner.lock().clone()
    }

    /// Takes over a saved state.
    pub fn restore(&self, state: State, contents: Contents) {
        let mut inner = self.inner.lock();
        *inner = (state, contents);
        self.update(&mut inner);
    }

    /// Guest time in seconds.
    fn seconds(&self, contents: &Contents) -> i64 {
        (self.host)()
            .div_euclid(SECOND)
            .saturating_add(contents.offset)
    }

    /// Counts RTCMR from now on.
    fn set_alarm(&self, inner: &mut (State, Contents)) {
        let now = self.seconds(&inner.1);
        let ahead = inner.0.matches.wrapping_sub(now as u32);
        inner.0.alarm = Some(now.saturating_add(i64::from(ahead)));
    }

    /// Raises what is due, and derives line and timer from the state.
    fn update(&self, inner: &mut (State, Contents)) {
        let now = self.seconds(&inner.1);
        let (state, contents) = inner;
        if state.alarm.is_some_and(|alarm| alarm <= now) {
            state.ris = true;
            // The counter meets the value again after it has wrapped.
            let ahead = state.matches.wrapping_sub(now as u32).wrapping_sub(1);
            state.alarm = Some(now.saturating_add(i64::from(ahead)).saturating_add(1));
        }
        self.line.set(state.ris && state.imsc);
        match state.alarm {
            Some(alarm) => {
                let host = i128::from(alarm) - i128::from(contents.offset);
                let wait = host * i128::from(SECOND) - i128::from((self.host)());
                // The host's clock may be set meanwhile: look again now and then.
                let wait = wait.clamp(1, 3600 * i128::from(SECOND)) as u64;
                self.timer.arm(self.clock.now().saturating_add(wait));
            }
            None => self.timer.cancel(),
        }
    }
}

impl Registers for Pl031 {
    fn read_register(&self, offset: u64, _: u32) -> u32 {
        let mut inner = self.inner.lock();
        match offset {
            RTCDR => self.seconds(&inner.1) as u32,
            RTCMR => inner.0.matches,
            RTCLR => inner.0.load,
            RTCCR => 1,
            RTCIMSC => u32::from(inner.0.imsc),
            RTCRIS | RTCMIS => {
                self.update(&mut inner);
                u32::from(inner.0.ris && (offset == RTCRIS || inner.0.imsc))
            }
            _ => primecell::identification(PERIPHERAL_ID, offset).unwrap_or_else(|| {
                tracing::debug!(name = self.config.name, offset, "read of no register");
                0
            }),
        }
    }

    fn write_register(&self, offset: u64, _: u32, value: u32, mask: u32) {
        let mut inner = self.inner.lock();
        match offset {
            RTCMR => {
                inner.0.matches = inner.0.matches & !mask | value;
                self.set_alarm(&mut inner);
            }
            RTCLR => {
                inner.0.load = inner.0.load & !mask | value;
                let now = self.seconds(&inner.1);
                let ahead = i64::from(inner.0.load) - i64::from(now as u32);
                inner.1.offset = inner.1.offset.saturating_add(ahead);
                if inner.0.alarm.is_some() {
                    self.set_alarm(&mut inner);
                }
            }
            // It runs from power-on, and once it runs writes are ignored (3.3.4).
            RTCCR => {}
            RTCIMSC if mask & 1 != 0 => inner.0.imsc = value & 1 != 0,
            RTCICR if value & 1 != 0 => inner.0.ris = false,
            RTCIMSC | RTCICR => {}
            _ => tracing::debug!(
                name = self.config.name,
                offset,
                value,
                "write to no register"
            ),
        }
        self.update(&mut inner);
    }
}

impl Mmio for Pl031 {
    fn read(&self, access: Access) -> u64 {
        self.read_any(access)
    }

    fn write(&self, access: Access, value: u64) {
        self.write_any(access, value);
    }
}

impl Device for Pl031 {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reset(&self) {
        let mut inner = self.inner.lock();
        inner.0 = State::power_on(&self.config);
        self.update(&mut inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

    struct Bench {
        rtc: Arc<Pl031>,
        line: Arc<AtomicBool>,
        host: Arc<AtomicI64>,
    }

    fn bench(offset: i64) -> Bench {
        let (line, level) = Line::probe();
        let host = Arc::new(AtomicI64::new(1_000 * SECOND));
        let source = host.clone();
        let config = Config {
            offset,
            ..Config::default()
        };
        let time: HostTime = Arc::new(move || source.load(Ordering::SeqCst));
        Bench {
            rtc: Pl031::with_host_time(config, line, &Clock::new(), time),
            line: level,
            host,
        }
    }

    impl Bench {
        fn read(&self, offset: u64) -> u32 {
            self.rtc.read(Access::new(offset, 4)) as u32
        }

        fn write(&self, offset: u64, value: u32) {
            self.rtc.write(Access::new(offset, 4), value.into());
        }
    }

    #[test]
    fn tells_the_time_and_keeps_the_one_it_was_given() {
        let b = bench(50);
        assert_eq!(b.read(RTCDR), 1_050);
        assert_eq!(b.read(RTCCR), 1);
        assert_eq!(
            [b.read(0xfe0), b.read(0xfe4), b.read(0xffc)],
            [0x31, 0x10, 0xb1]
        );
        b.write(RTCLR, 7);
        assert_eq!(b.read(RTCDR), 7);
        b.rtc.reset();
        b.host.fetch_add(3 * SECOND + 1, Ordering::SeqCst);
        assert_eq!(b.read(RTCDR), 10);
        assert_eq!(b.read(RTCLR), 0);
        assert_eq!(b.rtc.save().1.offset, -993);
    }

    #[test]
    fn interrupts_at_the_match_once() {
        let b = bench(0);
        b.write(RTCIMSC, 1);
        b.write(RTCMR, 1_002);
        assert_eq!(b.read(RTCRIS), 0);
        b.host.fetch_add(5 * SECOND, Ordering::SeqCst);
        assert_eq!(b.read(RTCMIS), 1);
        assert!(b.line.load(Ordering::SeqCst));
        b.write(RTCICR, 1);
        assert!(!b.line.load(Ordering::SeqCst));
        assert_eq!(b.read(RTCRIS), 0);
        b.write(RTCMR, 1_005);
        assert_eq!(
            b.read(RTCRIS),
            1,
            "a match with the present time is a match"
        );
    }

    #[test]
    fn the_timer_raises_the_line_unasked() {
        let (line, level) = Line::probe();
        let rtc = Pl031::new(Config::default(), line, &Clock::new());
        let now = rtc.read(Access::new(RTCDR, 4));
        rtc.write(Access::new(RTCIMSC, 4), 1);
        rtc.write(Access::new(RTCMR, 4), now + 1);
        let start = std::time::Instant::now();
        while !level.load(Ordering::SeqCst) {
            assert!(start.elapsed().as_secs() < 20, "no alarm");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    proptest! {
        #[test]
        fn survives_anything(
            host in any::<i64>(),
            steps in prop::collection::vec((0u64..0x24, 0usize..4, any::<u64>(), any::<bool>()), 1..100)
        ) {
            let b = bench(0);
            b.host.store(host, Ordering::SeqCst);
            for (offset, width, value, write) in steps {
                let access = Access::new(offset, 1 << width);
                if write {
                    b.rtc.write(access, value & access.mask());
                } else {
                    b.rtc.read(access);
                }
                let (state, _) = b.rtc.save();
                prop_assert_eq!(b.line.load(Ordering::SeqCst), state.ris && state.imsc);
            }
        }
    }
}
