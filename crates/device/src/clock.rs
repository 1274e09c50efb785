//! The guest's time, and timers on it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The guest's clock: nanoseconds since the machine started, standing still while it is stopped. Monotonic.
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
        Clock {
            shared: Arc::new(Shared {
                epoch: Instant::now(),
                stopped: AtomicU64::new(0),
                frozen: AtomicU64::new(RUNNING),
                queue: Mutex::default(),
                wake: Condvar::new(),
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

    /// Stops guest time; timers wait.
    pub fn stop(&self) {
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

    /// A timer that calls `callback` on the clock's thread. The callback must be short and may arm the timer again.
    pub fn timer(&self, callback: impl Fn() + Send + Sync + 'static) -> Timer {
        let mut queue = self.shared.queue.lock();
        let id = queue.next;
        queue.next += 1;
        if !queue.thread {
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

impl Shared {
    fn host(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn now(&self) -> u64 {
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
        // A deadline that is put off, as most are, wakes nobody: the thread looks in time, and waits again.
        if deadline < queue.looks {
            queue.looks = 0;
            self.clock.wake.notify_all();
        }
    }

    /// Takes the setting back. A callback that has begun goes on.
    pub fn cancel(&self) {
        self.clock.queue.lock().cancel(self.id);
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
        timer.arm(clock.now() + 20_000_000);
        timer.cancel();
        assert!(receive.recv_timeout(Duration::from_millis(60)).is_err());
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
}
