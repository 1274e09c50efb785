//! The thread that waits for the disk.

use std::io;
use std::sync::Arc;

use storage::Disk;

use super::bot::{CHUNK, Chunk, Done, Job};
use super::scsi::Work;
use super::scsi::spec::{Sense, sense};
use super::{IN, OUT, Shared};

/// Runs until the device is dropped.
pub(super) fn run(shared: &Shared) {
    let mut inner = shared.inner.lock();
    loop {
        if inner.stop {
            return;
        }
        let Some(job) = inner.state.job() else {
            shared.changed.wait(&mut inner);
            continue;
        };
        let epoch = inner.state.epoch();
        let disk = inner.medium.clone();
        let mut chunk = match job {
            Job::Read { .. } => Some(Chunk::new(&mut inner.spare)),
            Job::Write { .. } => inner.state.take_written(),
            Job::Work(_) => None,
        };
        inner.busy = true;
        drop(inner);
        let done = perform(job, disk.as_ref(), &mut chunk);
        inner = shared.inner.lock();
        inner.busy = false;
        shared.changed.notify_all();
        let written = match (&done, chunk) {
            (Done::Read(_), _) | (_, None) => 0,
            (_, Some(chunk)) => {
                let length = chunk.end - chunk.at;
                chunk.recycle(&mut inner.spare);
                length
            }
        };
        if epoch != inner.state.epoch() {
            continue;
        }
        inner.state.job_done(done, written as u64);
        let notifier = inner.notifier.clone();
        drop(inner);
        notifier.ready(IN);
        notifier.ready(OUT);
        inner = shared.inner.lock();
    }
}

fn perform(job: Job, disk: Option<&Arc<dyn Disk>>, chunk: &mut Option<Chunk>) -> Done {
    let gone = sense::MEDIUM_NOT_PRESENT;
    match job {
        Job::Read { offset, length } => Done::Read(match (disk, chunk.take()) {
            (Some(disk), Some(mut chunk)) => match disk.read(offset, &mut chunk.data[..length]) {
                Ok(()) => {
                    chunk.end = length;
                    Ok(chunk)
                }
                Err(error) => Err(told(&error, sense::UNRECOVERED_READ_ERROR)),
            },
            _ => Err(gone),
        }),
        Job::Write { offset } => Done::Write(match (disk, chunk) {
            (Some(disk), Some(chunk)) => disk
                .write(offset, &chunk.data[chunk.at..chunk.end])
                .map_err(|error| told(&error, sense::WRITE_ERROR)),
            _ => Err(gone),
        }),
        Job::Work(work) => Done::Work(match disk {
            Some(disk) => {
                self::work(work, disk.as_ref()).map_err(|error| told(&error, sense::WRITE_ERROR))
            }
            None => Err(gone),
        }),
    }
}

fn work(work: Work, disk: &dyn Disk) -> io::Result<()> {
    match work {
        // Nothing to write back.
        Work::Flush if disk.read_only() => Ok(()),
        Work::Flush => disk.flush(),
        Work::Discard(ranges) => ranges
            .into_iter()
            .try_for_each(|(offset, length)| disk.discard(offset, length)),
        Work::Zero {
            offset,
            length,
            may_unmap,
        } => disk.write_zeroes(offset, length, may_unmap),
        Work::Fill {
            offset,
            length,
            block,
        } => {
            let many = block.repeat((CHUNK / block.len().max(1)).max(1));
            let mut done = 0;
            while done < length {
                let n = (length - done).min(many.len() as u64);
                disk.write(offset + done, &many[..n as usize])?;
                done += n;
            }
            Ok(())
        }
    }
}

/// The sense data of the host's error.
fn told(error: &io::Error, otherwise: Sense) -> Sense {
    tracing::warn!(%error, "a disk failed");
    match error.kind() {
        io::ErrorKind::StorageFull => sense::SPACE_ALLOCATION_FAILED,
        _ => otherwise,
    }
}
