//! `reclaim`, which `qemu-img` has not.

use crate::arguments::{Arguments, long_value};
use crate::create::Wanted;
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, PROGRESS, QUIET};
use crate::number::human;
use crate::parse;
use crate::session::{Failure, Session};
use std::os::unix::fs::MetadataExt;
use storage::format::{ChainOptions, FileFormat};
use storage::verbs::{self, CopyOptions, Sources};

pub const USAGE: &str = "[-q] [-p] [-f FORMAT | --image-opts] [--into NEW_FILE] FILE\n\
    clusters of zeroes and what nothing refers to go, the rest moves to the front, the file is cut;\n\
    may be interrupted at any time, and loses nothing whenever the host stops";

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        PROGRESS,
        QUIET,
        OBJECT,
        long_value("into"),
    ];
    let arguments = parse("reclaim", &flags, words)?;
    names::no_objects(&arguments)?;
    let name = names::one(&arguments)?;
    let named = Named::new(&arguments, name, "format")?;
    if let Some(new) = arguments.get("into") {
        return into(session, &arguments, &named, new);
    }
    let chain = named.open_to_write(session, &ChainOptions::default())?;
    let meter = session.progress(arguments.has("progress") && !arguments.has("quiet"));
    let tell = |done, of| meter.tell(done, of);
    let quiet = arguments.has("quiet");
    if let Some(image) = chain.top().qcow2() {
        let won = image.reclaim(chain.hollow(), &tell)?;
        meter.end();
        if !quiet {
            session.print(&format!(
                "{} clusters of zeroes and {} that nothing referred to are free; {} were moved.\n",
                won.zeroed, won.leaked, won.moved
            ));
            saved(session, won.length, won.allocated);
        }
        return Ok(0);
    }
    if chain.top().format != FileFormat::Raw {
        return Err(Failure::message(format!(
            "reclaim: images of format '{}' can be read only",
            chain.top().format
        )));
    }
    let before = std::fs::metadata(&named.path).map_err(storage::format::FormatError::from)?;
    storage::verbs::punch_zeroes(&chain, &tell)?;
    chain.top().flush()?;
    meter.end();
    let after = std::fs::metadata(&named.path).map_err(storage::format::FormatError::from)?;
    if !quiet {
        saved(
            session,
            (before.len(), after.len()),
            (before.blocks() * 512, after.blocks() * 512),
        );
    }
    Ok(0)
}

/// Copies what counts into a new image of the same kind; the old one stays as it is.
fn into(session: &Session, arguments: &Arguments, named: &Named, new: &str) -> Result<u8, Failure> {
    let chain = named.open(&ChainOptions::default())?;
    let top = chain.top();
    let mut wanted = Wanted::new(top.format, std::iter::empty())?;
    let mut copy = CopyOptions::new(crate::convert::threads());
    if let Some(image) = top.qcow2() {
        if !image.snapshots().is_empty() {
            return Err(Failure::message(
                "reclaim: internal snapshots cannot be copied into a new file; leave --into out, or delete them",
            ));
        }
        if image.has_external_data() {
            return Err(Failure::message(
                "reclaim: an image with an external data file cannot be copied; leave --into out",
            ));
        }
        let compat = if image.version() < 3 { "0.10" } else { "1.1" };
        wanted.set("compat", compat)?;
        wanted.set("cluster_size", &image.cluster_bytes().to_string())?;
        wanted.set("refcount_bits", &image.refcount_bits().to_string())?;
        wanted.set("compression_type", image.compression().name())?;
        if image.lazy_refcounts() {
            wanted.set("lazy_refcounts", "on")?;
        }
        if let Some(file) = image.backing_file() {
            wanted.set("backing_file", &file)?;
            if let Some(format) = image.backing_format() {
                wanted.set("backing_fmt", &format)?;
            }
            copy.over_backing = true;
            copy.zeroed = false;
        }
        copy.compress = image.has_compressed()?;
    }
    let old = (top.host.length(), top.host.allocated());
    let path = names::path(new)?;
    if path.exists() {
        return Err(Failure::message(format!("'{new}' exists already")));
    }
    let size = chain.size();
    let (target, files) = wanted.create(&path, size, true, true)?;
    let meter = session.progress(arguments.has("progress") && !arguments.has("quiet"));
    let copied = verbs::copy(Sources::new(vec![chain]), &target, &copy, &|done, of| {
        meter.tell(done, of)
    });
    if let Err(error) = copied {
        drop(target);
        for file in files {
            let _ = std::fs::remove_file(file);
        }
        return Err(error.into());
    }
    meter.end();
    if !arguments.has("quiet") {
        let host = &target.top().host;
        let now = (host.length(), host.allocated());
        let bytes = |result: std::io::Result<u64>| result.unwrap_or(0);
        saved(
            session,
            (bytes(old.0), bytes(now.0)),
            (bytes(old.1), bytes(now.1)),
        );
    }
    Ok(0)
}

fn saved(session: &Session, length: (u64, u64), allocated: (u64, u64)) {
    session.print(&format!(
        "File: {} before, {} now. On the host's disk: {} before, {} now; saved {}.\n",
        human(length.0),
        human(length.1),
        human(allocated.0),
        human(allocated.1),
        human(allocated.0.saturating_sub(allocated.1))
    ));
}
