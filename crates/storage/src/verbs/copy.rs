//! Copying disks into an image, on several threads.

use super::{CHUNK, Progress};
use crate::buffer::Buffer;
use crate::format::{Chain, FormatError, Kind, Node, Result, Status};
use crate::host::is_zero;
use crate::qcow2::{Compressor, Prepared, Qcow2};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How a copy is made.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// Clusters are compressed where that makes them smaller.
    pub compress: bool,
    /// Bytes in a row that have to be zeroes to be left out; 0 writes everything.
    pub sparse: u64,
    pub threads: usize,
    /// Places in the target are given out in the order of the disk.
    pub in_order: bool,
    /// The target reads as zeroes before.
    pub zeroed: bool,
    /// Only what the source's own image has is copied: the target has the rest from what is below it.
    pub over_backing: bool,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// What cannot be read becomes zeroes.
    pub salvage: bool,
}

impl CopyOptions {
    /// For a new image of its own.
    pub fn new(threads: usize) -> CopyOptions {
        CopyOptions {
            compress: false,
            sparse: 4096,
            threads,
            in_order: true,
            zeroed: true,
            over_backing: false,
            rate: None,
            salvage: false,
        }
    }
}

/// Disks, one behind the other.
pub struct Sources {
    chains: Vec<Chain>,
    /// Where each begins, and the end.
    starts: Vec<u64>,
    own: bool,
    /// A stretch of data in the file of a disk's layer: some file systems look through all of it to say where it ends.
    data: Mutex<Option<(usize, usize, Range<u64>)>>,
}

impl Sources {
    pub fn new(chains: Vec<Chain>) -> Sources {
        let mut starts = vec![0];
        for chain in &chains {
            starts.push(starts[starts.len() - 1] + chain.size());
        }
        Sources {
            chains,
            starts,
            own: false,
            data: Mutex::default(),
        }
    }

    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    fn at(&self, offset: u64) -> (usize, u64) {
        let index = self.starts.partition_point(|start| *start <= offset) - 1;
        (index, offset - self.starts[index])
    }

    fn status(&self, offset: u64, max: u64) -> Result<Status> {
        let (index, inside) = self.at(offset);
        let chain = &self.chains[index];
        let max = max.min(chain.size() - inside);
        let mut status = if self.own {
            chain.status_below(0, 1, inside, max)?
        } else {
            chain.status(inside, max)?
        };
        // Places of a qcow2 image that were only set aside are holes of its file.
        let layer = &chain.layers[status.depth];
        if let (
            Kind::Data {
                offset: Some(at),
                compressed: false,
            },
            Node::Qcow2(image),
        ) = (status.kind, &layer.node)
            && !image.has_external_data()
        {
            let mut known = self.data.lock();
            let (data, end) = match &*known {
                Some((disk, depth, span))
                    if (*disk, *depth) == (index, status.depth) && span.contains(&at) =>
                {
                    (true, span.end)
                }
                _ => layer.host.span(at)?,
            };
            if data {
                *known = Some((index, status.depth, at..end));
            }
            if end > at {
                status.length = status.length.min(end - at);
                if !data {
                    status.kind = Kind::Zero { offset: Some(at) };
                }
            }
        }
        Ok(status)
    }

    fn read(&self, mut offset: u64, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let (index, inside) = self.at(offset);
            let chain = &self.chains[index];
            let count = (chain.size() - inside).min(into.len() as u64);
            let (now, later) = into.split_at_mut(count as usize);
            chain.read(inside, now)?;
            offset += count;
            into = later;
        }
        Ok(())
    }
}

/// Copies the sources into `target`, which is at least as large. What was copied is flushed as the target was opened.
pub fn copy(
    mut sources: Sources,
    target: &Chain,
    options: &CopyOptions,
    progress: Progress<'_>,
) -> Result<()> {
    sources.own = options.over_backing;
    let unit = match (&target.top().node, options.sparse) {
        (Node::Qcow2(image), _) => image.cluster_bytes(),
        (_, 0) => 4096,
        (_, sparse) => sparse.clamp(512, 1 << 20),
    };
    let work = Work {
        size: sources.size(),
        sources,
        target,
        options,
        unit,
        chunk: CHUNK.next_multiple_of(unit),
        next: Mutex::default(),
        turn: Mutex::default(),
        turned: Condvar::new(),
        writing: target.top().host.one_writer().then(Mutex::default),
        failed: Mutex::default(),
        stop: AtomicBool::new(false),
        written: AtomicU64::new(0),
        start: Instant::now(),
        progress,
    };
    if options.over_backing {
        work.over_backing()?;
    } else {
        std::thread::scope(|scope| {
            for _ in 1..options.threads.max(1) {
                scope.spawn(|| work.run());
            }
            work.run();
        });
        if let Some(error) = work.failed.into_inner() {
            return Err(error);
        }
    }
    target.top().flush()?;
    progress(work.size, work.size)
}

/// A span of the disk, on its way.
enum Job {
    Zero {
        at: u64,
        length: u64,
    },
    /// `ticket` says when it may have places in the target.
    Data {
        at: u64,
        length: u64,
        ticket: u64,
    },
}

#[derive(Default)]
struct Next {
    at: u64,
    ticket: u64,
    /// Data up to here: the host is not asked again for each chunk, while the other threads wait.
    data: u64,
}

#[derive(Default)]
struct Turn {
    /// The ticket that may have places now.
    ticket: u64,
    /// What was packed before its turn, by its ticket.
    early: BTreeMap<u64, Vec<Cluster>>,
}

/// A cluster's place on the disk, and what it was packed into, or its bytes if that made it no smaller.
struct Cluster {
    offset: u64,
    bytes: Vec<u8>,
    packed: bool,
}

/// Chunks that may be packed before their turn, for each thread.
const EARLY: usize = 4;

struct Work<'a> {
    sources: Sources,
    target: &'a Chain,
    options: &'a CopyOptions,
    size: u64,
    /// What is zeroes as a whole or not at all.
    unit: u64,
    chunk: u64,
    next: Mutex<Next>,
    turn: Mutex<Turn>,
    turned: Condvar,
    /// Held to write, where the host lets only one do so: waiting for it there would take its processors' time.
    writing: Option<Mutex<()>>,
    failed: Mutex<Option<FormatError>>,
    stop: AtomicBool,
    written: AtomicU64,
    start: Instant,
    progress: Progress<'a>,
}

impl Work<'_> {
    fn run(&self) {
        let mut buffer = Buffer::new(self.chunk as usize);
        let mut compressor = match &self.target.top().node {
            Node::Qcow2(image) if self.options.compress => {
                Some(Compressor::new(image.compression()))
            }
            _ => None,
        };
        loop {
            let done = match self.take() {
                Ok(None) => return,
                Ok(Some(Job::Zero { at, length })) => self
                    .target
                    .write_zeroes(at, length, true)
                    .map_err(|error| in_write(at, error)),
                Ok(Some(Job::Data { at, length, ticket })) => {
                    self.data(at, length, ticket, &mut buffer, compressor.as_mut())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                self.failed.lock().get_or_insert(error);
                self.stop.store(true, Ordering::Release);
                let _turn = self.turn.lock();
                self.turned.notify_all();
                return;
            }
        }
    }

    fn take(&self) -> Result<Option<Job>> {
        let mut next = self.next.lock();
        loop {
            let at = next.at;
            if at >= self.size || self.stop.load(Ordering::Acquire) {
                return Ok(None);
            }
            (self.progress)(at, self.size)?;
            let status = if at < next.data {
                None
            } else {
                match self.sources.status(at, self.size - at) {
                    Err(_) if self.options.salvage => None,
                    other => Some(other.map_err(|error| in_read(at, error))?),
                }
            };
            if let Some(status) = status.filter(|status| !status.zero()) {
                next.data = at + status.length;
            }
            if let Some(status) = status
                && status.zero()
                && self.options.sparse > 0
            {
                let end = at + status.length;
                let end = if end < self.size {
                    end / self.unit * self.unit
                } else {
                    end
                };
                if end > at {
                    next.at = end;
                    if self.options.zeroed {
                        continue;
                    }
                    return Ok(Some(Job::Zero {
                        at,
                        length: end - at,
                    }));
                }
            }
            let length = (self.chunk - at % self.chunk).min(self.size - at);
            let ticket = next.ticket;
            next.at = at + length;
            next.ticket += 1;
            return Ok(Some(Job::Data { at, length, ticket }));
        }
    }

    /// Waits until it is the ticket's turn. `false` if somebody failed.
    fn wait(&self, ticket: u64) -> bool {
        if !self.options.in_order {
            return true;
        }
        let mut turn = self.turn.lock();
        while turn.ticket != ticket && !self.stop.load(Ordering::Acquire) {
            self.turned.wait(&mut turn);
        }
        turn.ticket == ticket
    }

    fn pass(&self, ticket: u64) {
        if self.options.in_order {
            self.turn.lock().ticket = ticket + 1;
            self.turned.notify_all();
        }
    }

    fn writing(&self) -> Option<MutexGuard<'_, ()>> {
        self.writing.as_ref().map(Mutex::lock)
    }

    fn throttle(&self, bytes: u64) {
        let Some(rate) = self.options.rate.filter(|rate| *rate > 0) else {
            return;
        };
        let total = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let due = Duration::from_secs_f64(total as f64 / rate as f64);
        while let Some(early) = due.checked_sub(self.start.elapsed()) {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(early.min(Duration::from_millis(100)));
        }
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        match self.sources.read(at, into) {
            Ok(()) => Ok(()),
            Err(_) if self.options.salvage => {
                for (index, sector) in into.chunks_mut(512).enumerate() {
                    let place = at + index as u64 * 512;
                    if let Err(error) = self.sources.read(place, sector) {
                        tracing::warn!("error while reading offset {place}: {error}");
                        sector.fill(0);
                    }
                }
                Ok(())
            }
            Err(error) => Err(in_read(at, error)),
        }
    }

    fn data(
        &self,
        at: u64,
        length: u64,
        ticket: u64,
        buffer: &mut [u8],
        compressor: Option<&mut Compressor>,
    ) -> Result<()> {
        let padded = length.next_multiple_of(self.unit) as usize;
        let buffer = &mut buffer[..padded];
        self.read(at, &mut buffer[..length as usize])?;
        buffer[length as usize..].fill(0);
        self.throttle(length);
        let runs = self.runs(buffer);
        for (start, end, zero) in runs.iter().copied() {
            if zero && !self.options.zeroed {
                let end = (end as u64).min(length);
                self.target
                    .write_zeroes(at + start as u64, end - start as u64, true)
                    .map_err(|error| in_write(at, error))?;
            }
        }
        let data = runs.iter().filter(|run| !run.2).map(|run| (run.0, run.1));
        match &self.target.top().node {
            Node::Qcow2(image) => match compressor {
                Some(compressor) => self.compressed(image, at, ticket, buffer, data, compressor),
                None => self.clusters(image, at, ticket, buffer, data),
            },
            _ => {
                let _writing = self.writing();
                for (start, end) in data {
                    let end = end.min(length as usize);
                    self.target
                        .write(at + start as u64, &buffer[start..end])
                        .map_err(|error| in_write(at + start as u64, error))?;
                }
                Ok(())
            }
        }
    }

    /// Stretches of the buffer: from, to, whether they are zeroes that need not be written.
    fn runs(&self, buffer: &[u8]) -> Vec<(usize, usize, bool)> {
        let unit = self.unit as usize;
        let mut runs: Vec<(usize, usize, bool)> = Vec::new();
        for (index, part) in buffer.chunks(unit).enumerate() {
            let zero = self.options.sparse > 0 && is_zero(part);
            let start = index * unit;
            match runs.last_mut() {
                Some((_, end, before)) if *before == zero => *end = start + part.len(),
                _ => runs.push((start, start + part.len(), zero)),
            }
        }
        runs
    }

    fn clusters(
        &self,
        image: &Qcow2,
        at: u64,
        ticket: u64,
        buffer: &[u8],
        data: impl Iterator<Item = (usize, usize)>,
    ) -> Result<()> {
        let failed = |error| in_write(at, error);
        if !self.wait(ticket) {
            return Ok(());
        }
        let mut prepared: Vec<(usize, Prepared)> = Vec::new();
        for (start, end) in data {
            let mut from = start;
            while from < end {
                let place = image
                    .prepare(at + from as u64, (end - from) as u64)
                    .map_err(failed)?;
                let length = place.length() as usize;
                prepared.push((from, place));
                from += length;
            }
        }
        self.pass(ticket);
        let _writing = self.writing();
        for (from, place) in prepared {
            let length = place.length() as usize;
            image
                .put(place, &buffer[from..from + length])
                .map_err(failed)?;
        }
        Ok(())
    }

    fn compressed(
        &self,
        image: &Qcow2,
        at: u64,
        ticket: u64,
        buffer: &[u8],
        data: impl Iterator<Item = (usize, usize)>,
        compressor: &mut Compressor,
    ) -> Result<()> {
        let cluster = self.unit as usize;
        let packed = data
            .flat_map(|(start, end)| (start..end).step_by(cluster))
            .map(|start| {
                let bytes = &buffer[start..start + cluster];
                let packed = compressor.compress(bytes);
                Cluster {
                    offset: at + start as u64,
                    packed: packed.is_some(),
                    bytes: packed.unwrap_or_else(|| bytes.to_vec()),
                }
            })
            .collect();
        // Nobody waits for those before: whoever's turn it is writes what was packed early, too.
        let mut turn = self.turn.lock();
        while turn.ticket != ticket && turn.early.len() >= EARLY * self.options.threads {
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            self.turned.wait(&mut turn);
        }
        turn.early.insert(ticket, packed);
        if turn.ticket != ticket {
            return Ok(());
        }
        let mut ticket = ticket;
        while let Some(clusters) = turn.early.remove(&ticket) {
            drop(turn);
            for cluster in clusters {
                let Cluster {
                    offset,
                    bytes,
                    packed,
                } = &cluster;
                match packed {
                    true => image.write_compressed(*offset, bytes),
                    false => image.write(*offset, bytes, &|_, _| Ok(())),
                }
                .map_err(|error| in_write(*offset, error))?;
            }
            ticket += 1;
            turn = self.turn.lock();
            turn.ticket = ticket;
            self.turned.notify_all();
        }
        Ok(())
    }

    /// Copies extent by extent: those of the source's own image only.
    fn over_backing(&self) -> Result<()> {
        let mut buffer = Buffer::new(self.chunk as usize);
        let mut at = 0;
        while at < self.size {
            (self.progress)(at, self.size)?;
            let status = self
                .sources
                .status(at, self.size - at)
                .map_err(|error| in_read(at, error))?;
            let failed = |error| in_write(at, error);
            match status.kind {
                Kind::Unallocated => at += status.length,
                Kind::Zero { .. } => {
                    self.target
                        .write_zeroes(at, status.length, true)
                        .map_err(failed)?;
                    at += status.length;
                }
                Kind::Data { .. } => {
                    let length = status.length.min(self.chunk - at % self.chunk);
                    let now = &mut buffer[..length as usize];
                    self.read(at, now)?;
                    self.throttle(length);
                    self.target.write(at, now).map_err(failed)?;
                    at += length;
                }
            }
        }
        Ok(())
    }
}

fn in_read(at: u64, error: FormatError) -> FormatError {
    match error {
        FormatError::Interrupted => error,
        error => FormatError::refused(format!("error while reading at byte {at}: {error}")),
    }
}

fn in_write(at: u64, error: FormatError) -> FormatError {
    match error {
        FormatError::Interrupted => error,
        error => FormatError::refused(format!("error while writing at byte {at}: {error}")),
    }
}
