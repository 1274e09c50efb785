//! A command, as fetched from a submission queue (NVMe 4.2).

use crate::spec::Status;

/// A submission queue entry, and where it came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub epoch: u64,
    pub sq: u16,
    pub dwords: [u32; 16],
    /// Bytes of a memory page when it was fetched.
    pub page_size: u64,
}

impl Command {
    pub fn opcode(&self) -> u8 {
        self.dwords[0] as u8
    }

    pub fn id(&self) -> u16 {
        (self.dwords[0] >> 16) as u16
    }

    /// Neither fused nor with SGLs: those are not supported.
    pub fn is_plain(&self) -> bool {
        self.dwords[0] & 0xc300 == 0
    }

    pub fn namespace(&self) -> u32 {
        self.dwords[1]
    }

    pub fn prps(&self) -> (u64, u64) {
        let pair = |i: usize| u64::from(self.dwords[i + 1]) << 32 | u64::from(self.dwords[i]);
        (pair(6), pair(8))
    }

    /// Command dword 10 to 15.
    pub fn dword(&self, number: usize) -> u32 {
        self.dwords[number]
    }

    /// Starting LBA of an I/O command.
    pub fn lba(&self) -> u64 {
        u64::from(self.dwords[11]) << 32 | u64::from(self.dwords[10])
    }

    /// Logical blocks of an I/O command.
    pub fn blocks(&self) -> u64 {
        u64::from(self.dwords[12] & 0xffff) + 1
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Successful, with this dword 0.
    Done(u32),
    Failed(Status),
    /// It waits for an event, and holds no entry of the completion queue meanwhile.
    Waiting,
    /// It deletes this submission queue, and completes once nothing of that is in flight.
    Deleting(u16),
    /// The controller was reset meanwhile.
    Stale,
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        Outcome::Failed(status)
    }
}

/// `Ok` is dword 0 of the completion.
pub(crate) type Done = Result<u32, Outcome>;
