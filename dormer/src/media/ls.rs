//! `dormer ls`.

use std::io::{BufWriter, Write};

use anyhow::{Context, Result};
use media::filesystem::{self, Entry, FileSystem, Kind};
use serde::Serialize;

#[derive(clap::Args)]
pub struct Arguments {
    /// A medium or image: `win.iso`, `win.iso:sources/boot.wim#2`, `disk.qcow2#1`.
    #[arg(value_name = super::PLACE)]
    place: String,
    /// A file or folder in it; the top folder without.
    #[arg(default_value = "")]
    path: String,
    /// What folders hold too, as paths.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Names only.
    #[arg(short = '1', long)]
    names: bool,
    /// Print the list for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    kind: &'static str,
    size: u64,
    /// Seconds since 1970.
    modified: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reparse_tag: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha1: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    streams: &'a [(String, u64)],
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let system = media::place::open(&arguments.place).with_context(|| arguments.place.clone())?;
    let system = system.as_ref();
    let entry =
        filesystem::find(system, &arguments.path).with_context(|| arguments.place.clone())?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut first = true;
    let mut print = |path: &str, entry: &Entry| -> Result<()> {
        if arguments.json {
            write!(
                out,
                "{}",
                if std::mem::take(&mut first) {
                    "[\n "
                } else {
                    ",\n "
                }
            )?;
            serde_json::to_writer(&mut out, &line(system, path, entry))?;
        } else if arguments.names {
            writeln!(out, "{path}")?;
        } else {
            text(&mut out, system, path, entry)?;
        }
        Ok(())
    };
    if !entry.is_directory() {
        print(&arguments.path, &entry)?;
    } else if arguments.recursive {
        let mut failed = None;
        let walked = filesystem::walk(system, entry.node, &mut |path, entry| {
            print(path, entry).map_err(|error| {
                failed = Some(error);
                media::Error::Unsupported("the list cannot be written".into())
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        walked.with_context(|| arguments.place.clone())?;
    } else {
        let mut entries = system
            .list(entry.node)
            .with_context(|| arguments.place.clone())?;
        entries.sort_by(|a, b| {
            let key = |e: &Entry| (!e.is_directory(), e.name.to_lowercase());
            key(a).cmp(&key(b))
        });
        for entry in &entries {
            print(&entry.name, entry)?;
        }
    }
    if arguments.json {
        writeln!(out, "{}", if first { "[]" } else { "\n]" })?;
    }
    out.flush()?;
    Ok(())
}

fn line<'a>(system: &dyn FileSystem, path: &'a str, entry: &'a Entry) -> Line<'a> {
    Line {
        path,
        kind: match entry.kind {
            Kind::File => "file",
            Kind::Directory => "folder",
            Kind::Link => "link",
            Kind::Reparse { .. } => "reparse-point",
        },
        size: entry.size,
        modified: entry.modified,
        target: target(system, entry),
        reparse_tag: match entry.kind {
            Kind::Reparse { tag } => Some(tag),
            _ => None,
        },
        hard_link: (entry.hard_link != 0).then_some(entry.hard_link),
        sha1: entry.sha1.as_ref().map(|hash| media::hex(hash)),
        streams: &entry.streams,
    }
}

fn target(system: &dyn FileSystem, entry: &Entry) -> Option<String> {
    match entry.kind {
        Kind::File | Kind::Directory => None,
        Kind::Link | Kind::Reparse { .. } => system.link(entry.node).ok().flatten(),
    }
}

fn text(out: &mut dyn Write, system: &dyn FileSystem, path: &str, entry: &Entry) -> Result<()> {
    let size = match entry.kind {
        Kind::File => entry.size.to_string(),
        Kind::Directory => "folder".into(),
        Kind::Link => "link".into(),
        Kind::Reparse { .. } => "reparse".into(),
    };
    let modified = entry.modified.map_or_else(String::new, media::time::utc);
    write!(out, "{size:>14}  {modified:<19}  {path}")?;
    match (target(system, entry), &entry.kind) {
        (Some(target), _) => write!(out, " -> {target}")?,
        (None, Kind::Reparse { tag }) => write!(out, " (reparse point {tag:#010x})")?,
        _ => {}
    }
    writeln!(out)?;
    for (stream, size) in &entry.streams {
        writeln!(out, "{size:>14}  {:<19}  {path}:{stream}", "stream")?;
    }
    Ok(())
}
