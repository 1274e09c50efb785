//! `dormer extract`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use media::extract::{Progress, Summary};
use media::inspect::text::size;

use super::progress::shown;

/// Lines of one kind that are printed.
const LINES: usize = 20;

#[derive(clap::Args)]
pub struct Arguments {
    /// A medium or image: `win.iso`, `win.iso:sources/boot.wim#2`, `disk.qcow2#1`.
    #[arg(value_name = super::PLACE)]
    place: String,
    /// A file or folder in it, or a file's alternate stream (`FILE:STREAM`); `/` is everything.
    path: String,
    /// Where it goes: a folder that is there, or the new name; `-` is the standard output.
    dest: PathBuf,
    /// Threads that decompress; as many as there are processors without.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Do not say what was extracted.
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let system = media::place::open(&arguments.place).with_context(|| arguments.place.clone())?;
    let threads = arguments.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    let progress = Progress::default();
    if arguments.dest.as_os_str() == "-" {
        let mut out = std::io::stdout().lock();
        let copied = media::extract::copy(
            system.as_ref(),
            &arguments.path,
            threads,
            &progress,
            &mut out,
        );
        return copied.with_context(|| arguments.place.clone());
    }
    let summary = shown(&progress, || {
        media::extract::extract(
            system.as_ref(),
            &arguments.path,
            &arguments.dest,
            threads,
            &progress,
        )
    })
    .with_context(|| arguments.place.clone())?;
    report(arguments, &summary)
}

fn report(arguments: &Arguments, summary: &Summary) -> Result<()> {
    lines(&summary.notes, |note| format!("note: {note}"));
    lines(&summary.failed, |(path, error)| format!("{path}: {error}"));
    if !arguments.quiet {
        let mut parts = Vec::new();
        for (count, one, many) in [
            (summary.files, "file", "files"),
            (summary.folders, "folder", "folders"),
            (summary.links, "link", "links"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {}", if count == 1 { one } else { many }));
            }
        }
        println!("{} ({})", parts.join(", "), size(summary.bytes));
    }
    match summary.failed.len() {
        0 => Ok(()),
        1 => bail!("one file could not be read"),
        count => bail!("{count} files could not be read"),
    }
}

fn lines<T>(list: &[T], line: impl Fn(&T) -> String) {
    for one in list.iter().take(LINES) {
        eprintln!("{}", line(one));
    }
    if list.len() > LINES {
        eprintln!("… and {} more", list.len() - LINES);
    }
}
