//! The threads on which a device does what waits for the host.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// A few threads that run the same job whenever woken, and an account of what is in flight. Dropping it lets the
/// jobs at hand end and waits for the threads.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    /// Wakes that no thread has seen.
    wakes: usize,
    waiting: usize,
    stop: bool,
    /// The epoch of what is in flight.
    epoch: u64,
    in_flight: usize,
}

/// A handle for the job itself: it wakes other threads and accounts for work.
#[derive(Clone)]
pub struct Ticket {
    shared: Arc<Shared>,
}

impl Workers {
    /// Starts `count` threads with this name. `job` is called after a wake, on one of them, and works until it finds
    /// nothing more.
    pub fn new(
        name: &str,
        count: usize,
        job: impl Fn(&Ticket) + Send + Sync + 'static,
    ) -> std::io::Result<Workers> {
        let mut workers = Workers {
            shared: Arc::default(),
            threads: Vec::new(),
        };
        let job = Arc::new(job);
        for _ in 0..count {
            let (job, ticket) = (
                job.clone(),
                Ticket {
                    shared: workers.shared.clone(),
                },
            );
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn(move || {
                    while ticket.shared.next() {
                        job(&ticket);
                    }
                })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Has a thread look for work: at once if one is idle, else after what it does now.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Waits until nothing is in flight. Never on a processor's thread.
    pub fn drain(&self) {
        let mut state = self.shared.state.lock();
        while state.in_flight > 0 {
            self.shared.idle.wait(&mut state);
        }
    }
}

impl Ticket {
    /// Has another thread look for work.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Accounts for a piece of work of an epoch while `work` runs. Work of a new epoch waits here until that of the
    /// old one is over: an old write must not land on a new one.
    pub fn run<R>(&self, epoch: u64, work: impl FnOnce() -> R) -> R {
        let mut state = self.shared.state.lock();
        while state.in_flight > 0 && state.epoch != epoch {
            self.shared.idle.wait(&mut state);
        }
        state.epoch = epoch;
        state.in_flight += 1;
        drop(state);
        // Also when `work` panics, or the next epoch would wait for ever.
        let _done = Done(&self.shared);
        work()
    }
}

struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            self.0.idle.notify_all();
        }
    }
}

impl Shared {
    fn wake(&self) {
        let mut state = self.state.lock();
        // One wake too many costs a look around; one too few would lose work.
        state.wakes = state.wakes.saturating_add(1).min(64);
        if state.waiting > 0 {
            self.wake.notify_one();
        }
    }

    fn next(&self) -> bool {
        let mut state = self.state.lock();
        while state.wakes == 0 && !state.stop {
            state.waiting += 1;
            self.wake.wait(&mut state);
            state.waiting -= 1;
        }
        if state.stop {
            return false;
        }
        // A burst is one wake for each thread that takes it up.
        state.wakes = if state.waiting > 0 {
            state.wakes - 1
        } else {
            0
        };
        true
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn no_wake_is_lost() {
        let work = Arc::new(AtomicUsize::new(0));
        let done = Arc::new(AtomicUsize::new(0));
        let (left, count) = (work.clone(), done.clone());
        let workers = Workers::new("test", 3, move |_| {
            while left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok()
            {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        let workers = workers.unwrap();
        for round in 1..=2000 {
            work.fetch_add(1, Ordering::SeqCst);
            workers.wake();
            if round % 10 == 0 {
                while done.load(Ordering::SeqCst) != round {
                    std::thread::yield_now();
                }
            }
        }
    }

    #[test]
    fn a_new_epoch_waits_for_the_old() {
        let workers = Workers::new("test", 0, |_| {}).unwrap();
        let ticket = Ticket {
            shared: workers.shared.clone(),
        };
        let (start, started) = channel();
        let (end, ended) = channel::<()>();
        let (report, reports) = channel();
        std::thread::scope(|scope| {
            let (old, new) = (ticket.clone(), ticket.clone());
            let old_report = report.clone();
            scope.spawn(move || {
                old.run(1, || {
                    start.send(()).unwrap();
                    ended.recv().unwrap();
                    old_report.send("old").unwrap();
                });
            });
            started.recv().unwrap();
            scope.spawn(move || new.run(2, || report.send("new").unwrap()));
            assert!(reports.recv_timeout(Duration::from_millis(20)).is_err());
            end.send(()).unwrap();
            assert_eq!(
                (reports.recv().unwrap(), reports.recv().unwrap()),
                ("old", "new")
            );
        });
        workers.drain();
    }
}
