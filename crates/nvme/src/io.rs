//! NVM commands, and data between the guest and the host (NVMe 6).

use std::io;

use crate::command::{Command, Done, Outcome};
use crate::controller::{Inner, Scratch};
use crate::prp;
use crate::spec::{ALL_NAMESPACES, Status, nvm};

/// Bytes of a range of Dataset Management.
const RANGE_SIZE: usize = 16;

impl Inner {
    pub(crate) fn io(&self, command: &Command, scratch: &mut Scratch) -> Done {
        if !command.is_plain() {
            return Err(Status::INVALID_FIELD.into());
        }
        if command.opcode() == nvm::FLUSH && command.namespace() == ALL_NAMESPACES {
            return self.flush();
        }
        Self::check_namespace(command)?;
        match command.opcode() {
            nvm::FLUSH => self.flush(),
            nvm::READ => self.read(command, scratch),
            nvm::WRITE => self.write(command, scratch),
            nvm::COMPARE => self.compare(command, scratch),
            nvm::WRITE_ZEROES => self.write_zeroes(command),
            nvm::DATASET_MANAGEMENT => self.dataset_management(command, scratch),
            _ => Err(Status::INVALID_OPCODE.into()),
        }
    }

    /// Whole logical blocks of the disk.
    pub(crate) fn blocks(&self) -> u64 {
        self.disk.size() >> self.block_shift
    }

    /// Byte offset and length of a span of blocks that lies on the disk.
    fn span(&self, lba: u64, blocks: u64) -> Result<(u64, u64), Outcome> {
        match lba.checked_add(blocks) {
            Some(end) if end <= self.blocks() => {
                Ok((lba << self.block_shift, blocks << self.block_shift))
            }
            _ => Err(Status::LBA_OUT_OF_RANGE.into()),
        }
    }

    /// What the host's error is to the guest.
    fn fault(&self, error: &io::Error, status: Status) -> Outcome {
        tracing::debug!(device = self.config.name, "disk: {error}");
        status.into()
    }

    fn flush(&self) -> Done {
        self.disk
            .flush()
            .map_err(|e| self.fault(&e, Status::WRITE_FAULT))?;
        Ok(0)
    }

    fn check_writable(&self) -> Result<(), Outcome> {
        if self.read_only {
            Err(Status::WRITE_PROTECTED.into())
        } else {
            Ok(())
        }
    }

    /// With the write cache off, or Force Unit Access, what is written is on the disk.
    fn write_through(&self, command: &Command) -> Done {
        let zero_or_write = matches!(command.opcode(), nvm::WRITE | nvm::WRITE_ZEROES);
        let fua = zero_or_write && command.dword(12) & nvm::FUA != 0;
        if fua || !self.state.lock().features.write_cache {
            self.flush()
        } else {
            Ok(0)
        }
    }

    fn read(&self, command: &Command, scratch: &mut Scratch) -> Done {
        let (offset, length) = self.span(command.lba(), command.blocks())?;
        prp::walk(&self.dma, command, length, &mut scratch.pieces)?;
        let bytes = scratch.buffer.of(length as usize);
        self.disk
            .read(offset, bytes)
            .map_err(|e| self.fault(&e, Status::UNRECOVERED_READ_ERROR))?;
        self.scatter(command, bytes, &scratch.pieces)?;
        let statistics = &mut self.state.lock().statistics;
        statistics.bytes_read = statistics.bytes_read.saturating_add(length);
        statistics.reads = statistics.reads.wrapping_add(1);
        Ok(0)
    }

    fn write(&self, command: &Command, scratch: &mut Scratch) -> Done {
        self.check_writable()?;
        let (offset, length) = self.span(command.lba(), command.blocks())?;
        let bytes = self.gather(command, length, scratch)?;
        self.disk
            .write(offset, bytes)
            .map_err(|e| self.fault(&e, Status::WRITE_FAULT))?;
        {
            let statistics = &mut self.state.lock().statistics;
            statistics.bytes_written = statistics.bytes_written.saturating_add(length);
            statistics.writes = statistics.writes.wrapping_add(1);
        }
        self.write_through(command)
    }

    fn compare(&self, command: &Command, scratch: &mut Scratch) -> Done {
        let (offset, length) = self.span(command.lba(), command.blocks())?;
        let mut other = vec![0; length.min(crate::spec::MAX_TRANSFER) as usize];
        let bytes = self.gather(command, length, scratch)?;
        self.disk
            .read(offset, &mut other)
            .map_err(|e| self.fault(&e, Status::UNRECOVERED_READ_ERROR))?;
        if bytes == other {
            Ok(0)
        } else {
            Err(Status::COMPARE_FAILURE.into())
        }
    }

    fn write_zeroes(&self, command: &Command) -> Done {
        self.check_writable()?;
        let (offset, length) = self.span(command.lba(), command.blocks())?;
        let may_unmap = command.dword(12) & nvm::DEAC != 0;
        let done = self.disk.write_zeroes(offset, length, may_unmap);
        done.map_err(|e| self.fault(&e, Status::WRITE_FAULT))?;
        self.write_through(command)
    }

    fn dataset_management(&self, command: &Command, scratch: &mut Scratch) -> Done {
        let count = (command.dword(10) & 0xff) as usize + 1;
        let bytes = self.gather(command, (count * RANGE_SIZE) as u64, scratch)?;
        // Other attributes are hints of no use here.
        if command.dword(11) & nvm::AD == 0 {
            return Ok(0);
        }
        self.check_writable()?;
        let mut ranges = Vec::with_capacity(count);
        for range in bytes.chunks_exact(RANGE_SIZE) {
            let mut raw = [0; RANGE_SIZE];
            raw.copy_from_slice(range);
            let raw = u128::from_le_bytes(raw);
            ranges.push(self.span((raw >> 64) as u64, (raw >> 32) as u32 as u64)?);
        }
        for (offset, length) in ranges.into_iter().filter(|r| r.1 > 0) {
            self.disk
                .discard(offset, length)
                .map_err(|e| self.fault(&e, Status::WRITE_FAULT))?;
        }
        self.write_through(command)
    }

    /// Gives the guest the data of a command.
    pub(crate) fn give(&self, command: &Command, bytes: &[u8], scratch: &mut Scratch) -> Done {
        prp::walk(&self.dma, command, bytes.len() as u64, &mut scratch.pieces)?;
        self.scatter(command, bytes, &scratch.pieces)?;
        Ok(0)
    }

    fn scatter(
        &self,
        command: &Command,
        bytes: &[u8],
        pieces: &prp::Pieces,
    ) -> Result<(), Outcome> {
        let epoch = self.epoch.read();
        if *epoch != command.epoch {
            return Err(Outcome::Stale);
        }
        let mut at = 0;
        for &(address, length) in pieces {
            let part = &bytes[at..at + length as usize];
            self.dma
                .write(address, part)
                .map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            at += part.len();
        }
        Ok(())
    }

    fn gather<'a>(
        &self,
        command: &Command,
        length: u64,
        scratch: &'a mut Scratch,
    ) -> Result<&'a [u8], Outcome> {
        prp::walk(&self.dma, command, length, &mut scratch.pieces)?;
        let bytes = scratch.buffer.of(length as usize);
        let mut at = 0;
        for &(address, length) in &scratch.pieces {
            let part = &mut bytes[at..at + length as usize];
            self.dma
                .read(address, part)
                .map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            at += length as usize;
        }
        Ok(bytes)
    }
}
