//! The thread that waits for the TPM, so that processors need not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::Backend;
use crate::command::{self, HEADER, LARGEST, RC_COMMAND_SIZE, RC_FAILURE};

/// A command on its way.
struct Job {
    epoch: u64,
    locality: u8,
    command: Vec<u8>,
}

/// What the thread does next.
enum Order {
    Execute(Job),
    ResetEstablished(u8),
}

#[derive(Default)]
struct Queue {
    job: Option<Job>,
    reset_established: Option<u8>,
    busy: bool,
    ended: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    backend: Arc<dyn Backend>,
    established: AtomicBool,
    /// Cancellations asked for and not yet passed on.
    cancellations: AtomicU32,
}

/// Executes one command at a time. Dropping it waits for the one under way.
pub(crate) struct Executor {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Executor {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Executor {
        Executor {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                changed: Condvar::new(),
                established: AtomicBool::new(false),
                cancellations: AtomicU32::new(0),
                backend,
            }),
            thread: Mutex::new(None),
        }
    }

    /// Starts the thread. `done` gets each command's epoch and response on it.
    pub(crate) fn begin(
        &self,
        done: impl Fn(u64, Vec<u8>) + Send + 'static,
    ) -> std::io::Result<()> {
        let own = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name("tpm".into())
            .spawn(move || own.run(done))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Whether a dynamic launch has happened, as far as is known: processors do not wait for the emulator.
    pub(crate) fn established(&self) -> bool {
        self.shared.established.load(Ordering::SeqCst)
    }

    /// Has [`Backend::reset_established`] called, without waiting.
    pub(crate) fn reset_established(&self, locality: u8) {
        self.shared.queue.lock().reset_established = Some(locality);
        self.shared.changed.notify_all();
    }

    /// `_TPM_Init`, once nothing is executed. Not on a processor's thread.
    pub(crate) fn reset(&self) {
        self.drain();
        let backend = &self.shared.backend;
        if let Err(error) = backend.reset() {
            // Its commands will fail, and the guest will tell.
            tracing::error!("the TPM does not start again: {error}");
        }
        self.shared
            .established
            .store(backend.established(), Ordering::SeqCst);
    }

    /// The machine ends.
    pub(crate) fn shut_down(&self) {
        self.drain();
        self.shared.backend.shut_down();
    }

    /// Has a command executed. The interfaces give one at a time.
    pub(crate) fn start(&self, epoch: u64, locality: u8, command: Vec<u8>) {
        let job = Job {
            epoch,
            locality,
            command,
        };
        self.shared.queue.lock().job = Some(job);
        self.shared.changed.notify_all();
    }

    /// Asks the TPM to give the command up, without waiting.
    pub(crate) fn cancel(&self) {
        // Emulators may take as long for this as for the command: one such thread at a time, which also sees to what is
        // asked for meanwhile.
        if self.shared.cancellations.fetch_add(1, Ordering::SeqCst) != 0 {
            return;
        }
        let shared = self.shared.clone();
        let spawned = std::thread::Builder::new()
            .name("tpm cancel".into())
            .spawn(move || {
                loop {
                    let asked = shared.cancellations.load(Ordering::SeqCst);
                    shared.backend.cancel();
                    let all = shared.cancellations.compare_exchange(
                        asked,
                        0,
                        Ordering::SeqCst,
                        Ordering::SeqCst,
                    );
                    if all.is_ok() {
                        break;
                    }
                }
            });
        if spawned.is_err() {
            self.shared.cancellations.store(0, Ordering::SeqCst);
        }
    }

    /// Waits until nothing is executed; what has not begun does not begin. Not on a processor's thread.
    fn drain(&self) {
        let mut queue = self.shared.queue.lock();
        queue.job = None;
        if queue.busy {
            self.shared.backend.cancel();
        }
        while queue.busy {
            self.shared.changed.wait(&mut queue);
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.shared.queue.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.lock().take()
            // The last reference can be the thread's own, in `done`.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, done: impl Fn(u64, Vec<u8>)) {
        while let Some(order) = self.next() {
            let job = match order {
                Order::Execute(job) => job,
                Order::ResetEstablished(locality) => {
                    self.backend.reset_established(locality);
                    let established = self.backend.established();
                    self.established.store(established, Ordering::SeqCst);
                    continue;
                }
            };
            let response = self.execute(&job);
            done(job.epoch, response);
            self.queue.lock().busy = false;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Order> {
        let mut queue = self.queue.lock();
        loop {
            if queue.ended {
                return None;
            }
            if let Some(locality) = queue.reset_established.take() {
                return Some(Order::ResetEstablished(locality));
            }
            if let Some(job) = queue.job.take() {
                queue.busy = true;
                return Some(Order::Execute(job));
            }
            self.changed.wait(&mut queue);
        }
    }

    /// The response, or that of an error: a guest always gets one that is sound.
    fn execute(&self, job: &Job) -> Vec<u8> {
        match command::size(&job.command) {
            Some(size) if size >= HEADER && size <= job.command.len() => {
                match self.backend.execute(job.locality, &job.command[..size]) {
                    Ok(response)
                        if (HEADER..=LARGEST).contains(&response.len())
                            && command::size(&response) == Some(response.len()) =>
                    {
                        response
                    }
                    Ok(_) => {
                        tracing::error!("the TPM's response makes no sense");
                        command::error(RC_FAILURE)
                    }
                    Err(error) => {
                        tracing::error!("{error}");
                        command::error(RC_FAILURE)
                    }
                }
            }
            _ => command::error(RC_COMMAND_SIZE),
        }
    }
}
