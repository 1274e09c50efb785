//! A disk that stops the machine instead of failing its guest.

use crate::disk::Disk;
use crate::error::message;
use crate::faulty::Operation;
use crate::options::UnknownOption;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::str::FromStr;
use std::sync::Arc;

/// What happens when the host cannot do what the guest asks of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The guest is told.
    Report,
    /// The guest is told that all went well. Reads give zeroes.
    Ignore,
    /// The machine stops if the host's disk is full; other errors are reported.
    Enospc,
    /// The machine stops.
    Stop,
}

impl FromStr for OnError {
    type Err = UnknownOption;

    fn from_str(text: &str) -> Result<OnError, UnknownOption> {
        match text {
            "report" => Ok(OnError::Report),
            "ignore" => Ok(OnError::Ignore),
            "enospc" => Ok(OnError::Enospc),
            "stop" => Ok(OnError::Stop),
            _ => Err(UnknownOption {
                what: "Parameter 'werror' or 'rerror'",
                value: text.into(),
            }),
        }
    }
}

/// `rerror=` and `werror=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub read: OnError,
    /// Flushes and discards too.
    pub write: OnError,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            read: OnError::Report,
            write: OnError::Enospc,
        }
    }
}

/// Why the machine has to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The disk's name, as the user gave it.
    pub disk: String,
    pub operation: Operation,
    /// The host's disk is full, rather than broken.
    pub full: bool,
    /// What to tell the user: what happened, to which disk, what to do.
    pub message: String,
}

type Hook = Box<dyn Fn(&Stall) + Send + Sync>;

/// Passes everything to another disk. An operation that fails in a way the [`Policy`] stops for calls the hook, waits in
/// the calling (worker) thread, and is tried again on [`PausingDisk::resume`]: to the guest it was a slow disk.
///
/// A flush that fails stalls too, so nothing that a guest believes to be durable is lost.
pub struct PausingDisk {
    inner: Arc<dyn Disk>,
    name: String,
    policy: Policy,
    on_stall: Hook,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts calls of `resume`.
    resumed: u64,
    /// Counts calls of `cancel`.
    cancelled: u64,
    closed: bool,
    /// Between `cancel` and `restart`: what fails meanwhile fails at once.
    resetting: bool,
    waiting: usize,
}

impl PausingDisk {
    /// `on_stall` is called on the thread that asked for the operation, once for each that stalls. It must not wait; the
    /// machine's run loop does the stopping.
    pub fn new(
        inner: Arc<dyn Disk>,
        name: impl Into<String>,
        policy: Policy,
        on_stall: impl Fn(&Stall) + Send + Sync + 'static,
    ) -> Arc<PausingDisk> {
        Arc::new(PausingDisk {
            inner,
            name: name.into(),
            policy,
            on_stall: Box::new(on_stall),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Tries again what waits. It may stall again, and then calls the hook again.
    pub fn resume(&self) {
        self.state.lock().resumed += 1;
        self.changed.notify_all();
    }

    /// What waits fails now, and so does what would wait until [`PausingDisk::restart`]: the machine is reset, and nobody
    /// wants it any more. Without the latter a device that ends its work before it resets would wait for the next stall.
    pub fn cancel(&self) {
        let mut state = self.state.lock();
        state.cancelled += 1;
        state.resetting = true;
        drop(state);
        self.changed.notify_all();
    }

    /// The reset is over.
    pub fn restart(&self) {
        self.state.lock().resetting = false;
    }

    /// As [`PausingDisk::cancel`], and whatever fails later is reported at once: the machine ends.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// How many operations wait.
    pub fn stalled(&self) -> usize {
        self.state.lock().waiting
    }

    fn attempt(
        &self,
        operation: Operation,
        mut work: impl FnMut() -> io::Result<()>,
    ) -> io::Result<Done> {
        let policy = if operation == Operation::Read {
            self.policy.read
        } else {
            self.policy.write
        };
        loop {
            // Counted before the attempt: a resume in the meantime then leads to another try instead of being missed.
            let (resumed, cancelled) = {
                let state = self.state.lock();
                (state.resumed, state.cancelled)
            };
            let Err(error) = work() else {
                return Ok(Done::Worked);
            };
            // What the device got wrong, or the guest may not do, no waiting mends.
            use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
            if matches!(
                error.kind(),
                InvalidInput | PermissionDenied | ReadOnlyFilesystem
            ) {
                return Err(error);
            }
            let full = matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            );
            match policy {
                OnError::Ignore => return Ok(Done::Ignored),
                OnError::Stop => {}
                OnError::Enospc if full => {}
                OnError::Report | OnError::Enospc => return Err(error),
            }
            let state = self.state.lock();
            if state.closed || state.resetting || state.cancelled != cancelled {
                return Err(error);
            }
            drop(state);
            (self.on_stall)(&self.stall(operation, full, &error));

            let mut state = self.state.lock();
            state.waiting += 1;
            while !state.closed && state.cancelled == cancelled && state.resumed == resumed {
                self.changed.wait(&mut state);
            }
            state.waiting -= 1;
            if state.closed || state.cancelled != cancelled {
                return Err(error);
            }
        }
    }

    fn stall(&self, operation: Operation, full: bool, error: &io::Error) -> Stall {
        let did = match operation {
            Operation::Read => "be read",
            Operation::Write | Operation::WriteZeroes => "be written",
            Operation::Flush => "be made durable",
            Operation::Discard => "give space back",
        };
        let advice = if full {
            "free some space on the host, then continue"
        } else {
            "mend the cause, then continue"
        };
        let message = format!(
            "disk '{}' cannot {did}: {}; the machine is paused: {advice}",
            self.name,
            message(error)
        );
        Stall {
            disk: self.name.clone(),
            operation,
            full,
            message,
        }
    }
}

enum Done {
    Worked,
    Ignored,
}

impl Disk for PausingDisk {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn block_size(&self) -> u32 {
        self.inner.block_size()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self.attempt(Operation::Read, || self.inner.read(offset, into))? {
            Done::Worked => {}
            // Whatever was in the buffer must not reach the guest.
            Done::Ignored => into.fill(0),
        }
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.attempt(Operation::Write, || self.inner.write(offset, from))
            .map(|_| ())
    }

    fn flush(&self) -> io::Result<()> {
        self.attempt(Operation::Flush, || self.inner.flush())
            .map(|_| ())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.attempt(Operation::Discard, || self.inner.discard(offset, length))
            .map(|_| ())
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
        self.attempt(Operation::WriteZeroes, || {
            self.inner.write_zeroes(offset, length, may_unmap)
        })
        .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FaultyDisk, MemoryDisk};
    use std::sync::mpsc;
    use std::thread;

    struct Bench {
        memory: Arc<MemoryDisk>,
        faulty: Arc<FaultyDisk>,
        disk: Arc<PausingDisk>,
        stalls: mpsc::Receiver<Stall>,
    }

    fn bench(policy: Policy) -> Bench {
        let memory = Arc::new(MemoryDisk::new(4096));
        let faulty = Arc::new(FaultyDisk::new(memory.clone()));
        let (sender, stalls) = mpsc::channel();
        let disk = PausingDisk::new(faulty.clone(), "d0", policy, move |stall| {
            sender.send(stall.clone()).unwrap()
        });
        Bench {
            memory,
            faulty,
            disk,
            stalls,
        }
    }

    fn full(_: Operation, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn broken(_: Operation, _: u64, _: u64) -> io::Result<()> {
        Err(io::Error::from(rustix::io::Errno::IO))
    }

    fn wait_until_stalled(disk: &PausingDisk) {
        while disk.stalled() == 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_full_host_disk_waits_and_goes_on() {
        let bench = bench(Policy::default());
        bench.faulty.set_plan(full);
        let disk = bench.disk.clone();
        let writer = thread::spawn(move || disk.write(512, b"hello"));
        let stall = bench.stalls.recv().unwrap();
        assert!(
            stall.full
                && stall.message.contains("'d0'")
                && stall.message.contains("free some space"),
            "{stall:?}"
        );

        // Still full: it stalls again.
        wait_until_stalled(&bench.disk);
        bench.disk.resume();
        bench.stalls.recv().unwrap();
        assert_eq!(&bench.memory.contents()[512..517], &[0; 5]);

        wait_until_stalled(&bench.disk);
        bench.faulty.set_plan(|_, _, _| Ok(()));
        bench.disk.resume();
        writer.join().unwrap().unwrap();
        assert_eq!(&bench.memory.contents()[512..517], b"hello");
        assert_eq!(bench.disk.stalled(), 0);
    }

    #[test]
    fn a_reset_cancels_but_only_what_waits() {
        let bench = bench(Policy {
            read: OnError::Stop,
            write: OnError::Stop,
        });
        bench.faulty.set_plan(broken);
        let disk = bench.disk.clone();
        let flush = thread::spawn(move || disk.flush());
        assert!(!bench.stalls.recv().unwrap().full);
        wait_until_stalled(&bench.disk);
        bench.disk.cancel();
        assert!(flush.join().unwrap().is_err());
        // More work of a device that is being reset fails at once, too.
        assert!(bench.disk.flush().is_err());
        assert!(bench.stalls.try_recv().is_err());
        bench.disk.restart();

        let disk = bench.disk.clone();
        let read = thread::spawn(move || disk.read(0, &mut [0; 16]));
        assert_eq!(bench.stalls.recv().unwrap().operation, Operation::Read);
        bench.disk.close();
        assert!(read.join().unwrap().is_err());
        assert!(bench.disk.flush().is_err(), "after the end nothing waits");
    }

    #[test]
    fn report_and_ignore() {
        let bench = bench(Policy {
            read: OnError::Ignore,
            write: OnError::Report,
        });
        bench.faulty.set_plan(full);
        let mut buffer = [7; 4];
        bench.disk.read(0, &mut buffer).unwrap();
        assert_eq!(buffer, [0; 4]);
        assert_eq!(
            bench.disk.write(0, &buffer).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        bench.faulty.set_plan(|_, _, _| Ok(()));
        assert!(
            bench.disk.read(4095, &mut [0; 2]).is_err(),
            "a device's mistake is not ignored"
        );
    }
}
