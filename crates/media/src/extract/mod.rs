//! Files and trees out of media and images onto the host.
//!
//! Contents of up to [`SMALL`] bytes are spread over the threads, each of which decompresses, checks and writes whole files.
//! Larger ones and those of solid resources come one after the other, and the threads decompress their pieces ahead.
//! Nothing is written outside of the destination, and nothing through a link: links are made last.

mod host;
mod links;
mod pieces;
mod plan;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use host::Output;
use plan::{Content, Plan};

use crate::error::{Error, Result};
use crate::filesystem::FileSystem;
use crate::source::{Scratch, Shared};

/// Contents up to this are one thread's work.
const SMALL: u64 = 16 << 20;
/// Pieces up to this can be every thread's own.
const SMALL_PIECE: u64 = 4 << 20;
/// Bytes that are read at once of what is stored as it is.
const BLOCK: u64 = 256 << 10;

/// How far an extraction is, for another thread to look at.
#[derive(Default)]
pub struct Progress {
    /// Bytes of all contents; 0 while they are not known.
    pub total: AtomicU64,
    pub done: AtomicU64,
}

/// What an extraction did.
#[derive(Debug, Default)]
pub struct Summary {
    pub files: u64,
    pub folders: u64,
    /// Symbolic and hard links.
    pub links: u64,
    pub bytes: u64,
    /// What was left out because the host has no such thing: alternate streams, reparse points, links to outside.
    pub notes: Vec<String>,
    /// Files that could not be read, by their path, and why. They are not there.
    pub failed: Vec<(String, Error)>,
}

/// Extracts the file or folder at `path` to `to`.
///
/// A folder's contents go into `to`, which is made, but into a folder of its name if `to` is there already; the top folder's
/// always go into `to` itself. A file becomes `to`, or a file of its name in `to` if that is a folder. `FILE:STREAM` is an
/// alternate stream. Existing files are replaced.
///
/// A file that cannot be read is told in the summary; what cannot be written ends the extraction.
pub fn extract(
    system: &dyn FileSystem,
    path: &str,
    to: &Path,
    threads: usize,
    progress: &Progress,
) -> Result<Summary> {
    let plan = Plan::new(system, path, to)?;
    let bytes = plan.contents.iter().map(|c| c.size).sum();
    progress.total.store(bytes, Ordering::Relaxed);
    let mut summary = Summary {
        folders: plan.folders.len() as u64,
        bytes,
        ..Summary::default()
    };
    for folder in &plan.folders {
        host::make_folder(&folder.path)?;
    }
    let Plan {
        contents,
        hard_links,
        links,
        folders,
        notes,
        failed,
    } = plan;
    summary.notes = notes;
    summary.failed = failed;
    let run = Run {
        system,
        threads: threads.max(1),
        progress,
        failed: Mutex::default(),
    };
    let (solid, own): (Vec<Content>, Vec<Content>) =
        contents.into_iter().partition(|c| c.solid.is_some());
    run.own(&own)?;
    run.solid(solid.iter().collect())?;
    summary.files = (own.iter().chain(&solid))
        .map(|c| c.targets.len() as u64)
        .sum();
    let failed = run.failed.into_inner().unwrap_or_else(|e| e.into_inner());
    let mut missing = std::collections::HashSet::new();
    for (content, error) in failed {
        summary.files -= content.targets.len() as u64;
        summary.bytes -= content.size;
        missing.extend(content.targets.iter().map(|t| t.path.clone()));
        summary.failed.push((content.name.clone(), error));
    }
    for (existing, new) in &hard_links {
        // The file itself is told of already.
        if !missing.contains(existing) {
            host::hard_link(existing, new)?;
            summary.links += 1;
        }
    }
    for link in &links {
        links::make(link, &mut summary)?;
    }
    // Innermost first: what is made in a folder changes its time.
    for folder in folders.iter().rev() {
        host::set_time(&folder.path, folder.modified);
    }
    Ok(summary)
}

/// Writes the contents of a file, or of its stream, to `to`, such as the standard output.
pub fn copy(
    system: &dyn FileSystem,
    path: &str,
    threads: usize,
    progress: &Progress,
    to: &mut dyn std::io::Write,
) -> Result<()> {
    let content = Plan::one(system, path)?;
    progress.total.store(content.size, Ordering::Relaxed);
    let mut check = host::Check::new(&content);
    let mut write = |bytes: &[u8]| {
        check.update(bytes);
        progress
            .done
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(to.write_all(bytes)?)
    };
    let source = open(system, &content)?;
    read(&source, threads, &mut Scratch::default(), &mut write)?;
    check.finish()
}

struct Run<'a> {
    system: &'a dyn FileSystem,
    threads: usize,
    progress: &'a Progress,
    failed: Mutex<Vec<(Content, Error)>>,
}

fn open(system: &dyn FileSystem, content: &Content) -> Result<Shared> {
    match &content.stream {
        None => system.open(content.node),
        Some(stream) => system.open_stream(content.node, stream),
    }
}

/// Hands all bytes of a source to `take`, in order.
fn read(
    source: &Shared,
    threads: usize,
    scratch: &mut Scratch,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if let Some(pieces) = source.pieces() {
        let count = source.size().div_ceil(pieces.piece());
        return pieces::in_order(pieces, 0..count, threads, scratch, &mut |_, bytes| {
            take(bytes?)
        });
    }
    let mut buffer = std::mem::take(&mut scratch.plain);
    let mut at = 0;
    // Where the next data begins, as far as it was asked for: files with holes are large ones.
    let mut data = if source.size() > SMALL { 0 } else { u64::MAX };
    while at < source.size() {
        let buffer = buffer.first((source.size() - at).min(BLOCK) as usize);
        if at >= data {
            data = at + source.hole(at).unwrap_or(0);
        }
        if data != u64::MAX && at + buffer.len() as u64 <= data {
            buffer.fill(0);
        } else {
            source.read_at(at, buffer)?;
        }
        take(buffer)?;
        at += buffer.len() as u64;
    }
    scratch.plain = buffer;
    Ok(())
}

impl Run<'_> {
    /// Notes what could not be read; fails for what could not be written.
    fn judge(&self, content: &Content, result: Result<()>) -> Result<()> {
        match result {
            Err(error @ Error::Write { .. }) => Err(error),
            Err(error) => {
                let mut failed = self.failed.lock().unwrap_or_else(|e| e.into_inner());
                failed.push((content.clone(), error));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn one(&self, content: &Content, threads: usize, scratch: &mut Scratch) -> Result<()> {
        let source = match open(self.system, content) {
            Ok(source) => source,
            Err(error) => return self.judge(content, Err(error)),
        };
        let mut output = Output::create(content, self.progress)?;
        let result = read(&source, threads, scratch, &mut |bytes| output.write(bytes));
        let result = result.and_then(|()| output.finish());
        if result.is_err() {
            output.remove();
        }
        self.judge(content, result)
    }

    /// Contents that can be opened by themselves.
    fn own(&self, contents: &[Content]) -> Result<()> {
        let (small, large): (Vec<&Content>, Vec<&Content>) =
            contents.iter().partition(|c| c.size <= SMALL);
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let work = || {
            let mut scratch = Scratch::default();
            while !stop.load(Ordering::Relaxed) {
                let Some(content) = small.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                if let Err(error) = self.one(content, 1, &mut scratch) {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.threads.min(small.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let mine = work();
            others.into_iter().fold(mine, |result, other| {
                result.and(
                    other
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                )
            })
        })?;
        let mut scratch = Scratch::default();
        for content in large {
            self.one(content, self.threads, &mut scratch)?;
        }
        Ok(())
    }

    /// Contents of solid resources, one resource after the other.
    fn solid(&self, mut contents: Vec<&Content>) -> Result<()> {
        let place = |c: &Content| c.solid.map_or((0, 0), |solid| (solid.id, solid.at));
        contents.sort_by_key(|c| place(c));
        let mut scratch = Scratch::default();
        for group in contents.chunk_by(|a, b| place(a).0 == place(b).0) {
            let first = group[0];
            let container = self
                .system
                .open_solid(first.node, first.stream.as_deref())
                .and_then(|container| match container.pieces() {
                    Some(_) => Ok(container),
                    None => Err(Error::Unsupported("a solid resource without pieces".into())),
                });
            match &container {
                Ok(container) => self.solid_group(container, group, &mut scratch)?,
                Err(error) => {
                    for content in group {
                        let error = Error::Unsupported(error.to_string());
                        self.judge(content, Err(error))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn solid_group(
        &self,
        container: &Shared,
        group: &[&Content],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Some(pieces) = container.pieces() else {
            return Ok(());
        };
        let piece = pieces.piece();
        let start = |c: &Content| c.solid.map_or(0, |solid| solid.at);
        let mut wanted: Vec<u64> = Vec::new();
        for content in group.iter().filter(|c| c.size > 0) {
            let (first, last) = (
                start(content) / piece,
                (start(content) + content.size - 1) / piece,
            );
            let from = wanted.last().map_or(first, |w| first.max(w + 1));
            wanted.extend(from..=last);
        }
        for content in group.iter().filter(|c| c.size == 0) {
            self.one(content, 1, scratch)?;
        }
        // Those that have begun and not ended; contents may overlap, though no program writes such.
        let mut pending = group.iter().filter(|c| c.size > 0).peekable();
        let mut open: Vec<(&Content, Output<'_>)> = Vec::new();
        pieces::in_order(
            pieces,
            wanted,
            self.threads,
            scratch,
            &mut |index, bytes| {
                let from = index * piece;
                let end = from + piece;
                while let Some(content) = pending.next_if(|c| start(c) < end) {
                    let output = Output::create(content, self.progress)?;
                    self.feed(&mut open, content, output, from, &bytes)?;
                }
                for (content, output) in std::mem::take(&mut open) {
                    // Those of this round are in it already.
                    if start(content) >= from {
                        open.push((content, output));
                    } else {
                        self.feed(&mut open, content, output, from, &bytes)?;
                    }
                }
                Ok(())
            },
        )?;
        Ok(())
    }

    /// Gives a content its part of a piece that begins at `from`, and keeps it in `open` if more is to come.
    fn feed<'a>(
        &'a self,
        open: &mut Vec<(&'a Content, Output<'a>)>,
        content: &'a Content,
        mut output: Output<'a>,
        from: u64,
        bytes: &Result<&[u8]>,
    ) -> Result<()> {
        let at = content.solid.map_or(0, |solid| solid.at);
        let end = at + content.size;
        let result = match bytes {
            Err(error) => Err(Error::Unsupported(error.to_string())),
            Ok(bytes) => {
                let start = at.max(from) - from;
                let stop = (end - from).min(bytes.len() as u64);
                match bytes.get(start as usize..stop as usize) {
                    Some(part) => output.write(part),
                    None => Err(Error::Truncated {
                        at,
                        length: content.size,
                        size: from + bytes.len() as u64,
                    }),
                }
            }
        };
        let complete = bytes
            .as_ref()
            .is_ok_and(|bytes| end <= from + bytes.len() as u64);
        let result = match result {
            Ok(()) if complete => output.finish(),
            Ok(()) => {
                open.push((content, output));
                return Ok(());
            }
            Err(error) => Err(error),
        };
        if result.is_err() {
            output.remove();
        }
        self.judge(content, result)
    }
}
