//! A disk that fails and dawdles when told to, for tests of devices and of [`crate::PausingDisk`].

use crate::disk::Disk;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
}

type Plan = Box<dyn FnMut(Operation, u64, u64) -> io::Result<()> + Send>;

/// Passes everything to another disk, after asking a plan whether it should fail, and after a delay.
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    plan: Mutex<Plan>,
    delay: Mutex<Duration>,
}

impl FaultyDisk {
    /// Fails nothing as yet.
    pub fn new(inner: Arc<dyn Disk>) -> FaultyDisk {
        FaultyDisk {
            inner,
            plan: Mutex::new(Box::new(|_, _, _| Ok(()))),
            delay: Mutex::default(),
        }
    }

    /// `plan` is asked before each operation, with offset and length in bytes; what it returns as an error happens.
    pub fn set_plan(
        &self,
        plan: impl FnMut(Operation, u64, u64) -> io::Result<()> + Send + 'static,
    ) {
        *self.plan.lock() = Box::new(plan);
    }

    /// Each operation takes at least this long.
    pub fn set_delay(&self, delay: Duration) {
        *self.delay.lock() = delay;
    }

    fn before(&self, operation: Operation, offset: u64, length: u64) -> io::Result<()> {
        let delay = *self.delay.lock();
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        (self.plan.lock())(operation, offset, length)
    }
}

impl Disk for FaultyDisk {
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
        self.before(Operation::Read, offset, into.len() as u64)?;
        self.inner.read(offset, into)
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.before(Operation::Write, offset, from.len() as u64)?;
        self.inner.write(offset, from)
    }

    fn flush(&self) -> io::Result<()> {
        self.before(Operation::Flush, 0, 0)?;
        self.inner.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.before(Operation::Discard, offset, length)?;
        self.inner.discard(offset, length)
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
        self.before(Operation::WriteZeroes, offset, length)?;
        self.inner.write_zeroes(offset, length, may_unmap)
    }
}
