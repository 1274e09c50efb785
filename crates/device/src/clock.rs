//! The guest's time, and timers on it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The guest's clock: nanoseconds since the machine started, standing still while it is stopped. Monotonic.
///
/// It follows the host's time, or is *counted*: then it stands where the engine puts it, and its timers go off on the
/// engine's threads.
#[derive(Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

struct Shared {
    /// Where host time is counted from.
    epoch: Instant,
    /// Host time since `epoch` that was no guest time, nanoseconds.
    stopped: AtomicU64,
    /// Guest time while stopped; `RUNNING` otherwise.
    frozen: AtomicU64,
    queue: Mutex<Queue>,
    wake: Condvar,
    counted: Option<Counted>,
}

/// What a counted clock has in the place of host time and a thread.
struct Counted {
    now: AtomicU64,
    /// The first deadline; `u64::MAX` if there is none.
    next: AtomicU64,
    /// Called when a timer is set to go off before all others.
    earlier: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

const RUNNING: u64 = u64::MAX;

/// The timers that are set, each at most once.
#[derive(Default)]
struct Queue {
    due: BTreeSet<(u64, u64)>,
    set: HashMap<u64, (u64, Arc<TimerInner>)>,
    next: u64,
    thread: bool,
    /// When the thread looks next, at the latest; guest time. 0: it is about to look.
    looks: u64,
}

struct TimerInner {
    callback: Box<dyn Fn() + Send + Sync>,
}

/// One timer. Dropping it cancels it.
pub struct Timer {
    id: u64,
    inner: Arc<TimerInner>,
    clock: Arc<Shared>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

impl Clock {
    /// A running clock at zero.
    pub fn new() -> Clock {
        Clock::with(None)
    }

    /// A counted clock at zero.
    pub fn counted() -> Clock {
        Clock::with(Some(Counted {
            now: AtomicU64::new(0),
            next: AtomicU64::new(u64::MAX),
            earlier: OnceLock::new(),
        }))
    }

    fn with(counted: Option<Counted>) -> Clock {
        Clock {
            shared: Arc::new(Shared {
                epoch: Instant::now(),
                stopped: AtomicU64::new(0),
                frozen: AtomicU64::new(RUNNING),
                queue: Mutex::default(),
                wake: Condvar::new(),
                counted,
            }),
        }
    }

    /// Nanoseconds of guest time.
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Nanoseconds of host time since the clock was made that were no guest time. It grows when the clock is started
    /// again; counters of hardware that go on meanwhile are set back by as much.
    pub fn stopped(&self) -> u64 {
        self.shared.stopped.load(Ordering::SeqCst)
    }

    /// Stops guest time; timers wait. A counted clock has nothing to stop.
    pub fn stop(&self) {
        if self.is_counted() {
            return;
        }
        let _queue = self.shared.queue.lock();
        self.shared
            .frozen
            .store(self.shared.now(), Ordering::SeqCst);
    }

    /// Lets it go on from where it stopped.
    pub fn start(&self) {
        let _queue = self.shared.queue.lock();
        let frozen = self.shared.frozen.load(Ordering::SeqCst);
        if frozen != RUNNING {
            self.shared
                .stopped
                .store(self.shared.host() - frozen, Ordering::SeqCst);
            self.shared.frozen.store(RUNNING, Ordering::SeqCst);
        }
        self.shared.wake.notify_all();
    }

    /// A timer that calls `callback` on the clock's thread, or where [`Clock::run_due`] is called. The callback must be short
    /// and may arm the timer again.
    pub fn timer(&self, callback: impl Fn() + Send + Sync + 'static) -> Timer {
        let mut queue = self.shared.queue.lock();
        let id = queue.next;
        queue.next += 1;
        if !queue.thread && !self.is_counted() {
            queue.thread = true;
            let shared = Arc::downgrade(&self.shared);
            std::thread::Builder::new()
                .name("clock".into())
                .spawn(move || run(shared))
                .expect("a host that starts no thread runs no machine");
        }
        Timer {
            id,
            inner: Arc::new(TimerInner {
                callback: Box::new(callback),
            }),
            clock: self.shared.clone(),
        }
    }
}

/// Counted clocks. Others follow the host's time, whatever is said here. One thread at a time moves a clock.
impl Clock {
    /// Whether the clock is counted.
    pub fn is_counted(&self) -> bool {
        self.shared.counted.is_some()
    }

    /// Puts the clock forward to `now` (nanoseconds).
    pub fn set(&self, now: u64) {
        if let Some(counted) = &self.shared.counted {
            counted.now.fetch_max(now, Ordering::SeqCst);
        }
    }

    /// Puts it forward by so many nanoseconds; whether a timer is due then.
    #[inline]
    pub fn advance(&self, nanoseconds: u64) -> bool {
        let Some(counted) = &self.shared.counted else {
            return false;
        };
        let now = counted.now.load(Ordering::Relaxed);
        let now = now.saturating_add(nanoseconds);
        counted.now.store(now, Ordering::Relaxed);
        now >= counted.next.load(Ordering::Relaxed)
    }

    /// When the first timer goes off, nanoseconds of guest time.
    pub fn next_deadline(&self) -> Option<u64> {
        let counted = self.shared.counted.as_ref()?;
        let next = counted.next.load(Ordering::SeqCst);
        (next != u64::MAX).then_some(next)
    }

    /// Calls the callbacks of the timers that are due, on this thread: by their deadlines, and of one deadline by their age.
    /// What a callback arms again has its turn in the next call.
    pub fn run_due(&self) {
        if !self.is_counted() {
            return;
        }
        let now = self.now();
        let due: Vec<_> = {
            let queue = self.shared.queue.lock();
            queue.due.range(..=(now, u64::MAX)).copied().collect()
        };
        for (deadline, id) in due {
            let timer = {
                let mut queue = self.shared.queue.lock();
                // Another's callback may have set it anew.
                match queue.set.get(&id) {
                    Some((set, timer)) if *set == deadline => {
                        let timer = timer.clone();
                        queue.cancel(id);
                        self.shared.note_next(&queue);
                        timer
                    }
                    _ => continue,
                }
            };
            (timer.callback)();
        }
    }

    /// Has `hook` called, once for all, whenever a timer is set to go off before all others.
    pub fn on_earlier(&self, hook: impl Fn() + Send + Sync + 'static) {
        if let Some(counted) = &self.shared.counted {
            let _ = counted.earlier.set(Box::new(hook));
        }
    }
}

impl Shared {
    /// Keeps the first deadline of a counted clock; whether it is earlier than before.
    fn note_next(&self, queue: &Queue) -> bool {
        let Some(counted) = &self.counted else {
            return false;
        };
        let next = queue
            .due
            .first()
            .map_or(u64::MAX, |(deadline, _)| *deadline);
        next < counted.next.swap(next, Ordering::SeqCst)
    }

    fn host(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn now(&self) -> u64 {
        if let Some(counted) = &self.counted {
            return counted.now.load(Ordering::Relaxed);
        }
        match self.frozen.load(Ordering::SeqCst) {
            RUNNING => self.host() - self.stopped.load(Ordering::SeqCst),
            frozen => frozen,
        }
    }
}

impl Queue {
    fn cancel(&mut self, id: u64) {
        if let Some((deadline, _)) = self.set.remove(&id) {
            self.due.remove(&(deadline, id));
        }
    }
}

impl Timer {
    /// Sets the timer to go off once guest time reaches `deadline` (nanoseconds), in the place of an earlier setting.
    pub fn arm(&self, deadline: u64) {
        let mut queue = self.clock.queue.lock();
        queue.cancel(self.id);
        queue.set.insert(self.id, (deadline, self.inner.clone()));
        queue.due.insert((deadline, self.id));
        if self.clock.note_next(&queue) {
            drop(queue);
            let counted = self.clock.counted.as_ref();
            if let Some(earlier) = counted.and_then(|counted| counted.earlier.get()) {
                earlier();
            }
            return;
        }
        // A deadline that is put off, as most are, wakes nobody: the thread looks in time, and waits again.
        if deadline < queue.looks {
            queue.looks = 0;
            self.clock.wake.notify_all();
        }
    }

    /// Takes the setting back. A callback that has begun goes on.
    pub fn cancel(&self) {
        let mut queue = self.clock.queue.lock();
        queue.cancel(self.id);
        self.clock.note_next(&queue);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

fn run(shared: Weak<Shared>) {
    while let Some(clock) = shared.upgrade() {
        let mut queue = clock.queue.lock();
        let now = clock.now();
        let mut due = None;
        match queue.due.first().copied() {
            Some((deadline, id)) if deadline <= now => {
                due = queue.set.get(&id).map(|(_, timer)| timer.clone());
                queue.cancel(id);
            }
            // Wakes now and then, so that the thread ends with the clock.
            next => {
                let running = clock.frozen.load(Ordering::SeqCst) == RUNNING;
                let wait = match next {
                    Some((deadline, _)) if running => deadline - now,
                    _ => u64::MAX,
                };
                let wait = wait.min(1_000_000_000);
                queue.looks = now.saturating_add(wait);
                clock.wake.wait_for(&mut queue, Duration::from_nanos(wait));
                queue.looks = 0;
            }
        }
        drop(queue);
        if let Some(timer) = due {
            (timer.callback)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn the_latest_setting_counts() {
        let clock = Clock::new();
        let (send, receive) = channel();
        let at = clock.clone();
        let timer = clock.timer(move || send.send(at.now()).unwrap());
        timer.arm(1);
        timer.arm(30_000_000);
        let fired = receive.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(fired >= 30_000_000);
        // A slow host may have let it fire before it was cancelled.
        let cancelled = (0..100).any(|_| {
            let deadline = clock.now() + 20_000_000;
            timer.arm(deadline);
            timer.cancel();
            let in_time = clock.now() < deadline;
            let fired = receive.recv_timeout(Duration::from_millis(60)).is_ok();
            assert!(!(in_time && fired));
            in_time
        });
        assert!(cancelled);
    }

    #[test]
    fn stands_still_while_stopped() {
        let clock = Clock::new();
        clock.stop();
        let then = clock.now();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(clock.now(), then);
        clock.start();
        std::thread::sleep(Duration::from_millis(5));
        assert!(clock.now() > then);
    }

    #[test]
    fn a_counted_clock_goes_where_it_is_put() {
        let clock = Clock::counted();
        clock.start();
        clock.stop();
        assert_eq!((clock.now(), clock.next_deadline()), (0, None));
        let (send, receive) = channel();
        let timer = |name: &'static str| {
            let (send, at) = (send.clone(), clock.clone());
            clock.timer(move || send.send((name, at.now())).unwrap())
        };
        let timers = [timer("a"), timer("b"), timer("c"), timer("d")];
        let earlier = Arc::new(AtomicU64::new(0));
        let count = earlier.clone();
        clock.on_earlier(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        for (timer, deadline) in timers.iter().zip([30, 20, 20, 5]) {
            timer.arm(deadline);
        }
        assert_eq!(earlier.load(Ordering::SeqCst), 3);
        timers[3].cancel();
        assert_eq!(clock.next_deadline(), Some(20));
        assert!(!clock.advance(19));
        clock.run_due();
        assert!(receive.try_recv().is_err());
        assert!(clock.advance(1));
        clock.run_due();
        assert_eq!(
            receive.try_iter().collect::<Vec<_>>(),
            [("b", 20), ("c", 20)]
        );
        assert_eq!(clock.next_deadline(), Some(30));
        clock.set(40);
        clock.set(35);
        clock.run_due();
        assert_eq!(receive.try_iter().collect::<Vec<_>>(), [("a", 40)]);
        assert_eq!(clock.next_deadline(), None);
    }

    #[test]
    fn a_timer_that_arms_itself_in_the_past_has_its_turn_in_the_next_call() {
        let clock = Clock::counted();
        let calls = Arc::new(AtomicU64::new(0));
        let itself: Arc<OnceLock<Timer>> = Arc::default();
        let (again, count) = (itself.clone(), calls.clone());
        let timer = clock.timer(move || {
            count.fetch_add(1, Ordering::SeqCst);
            again.get().unwrap().arm(0);
        });
        timer.arm(0);
        let _ = itself.set(timer);
        clock.run_due();
        clock.run_due();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}
