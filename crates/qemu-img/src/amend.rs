//! `amend`.

use crate::arguments::{long_switch, value};
use crate::create::{Wanted, asks_for_help, options_help};
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, PROGRESS, QUIET};
use crate::parse;
use crate::session::{Failure, Session};
use storage::format::{ChainOptions, FileFormat};
use storage::qcow2::Preallocation;

pub const USAGE: &str = "[-q] [-p] [-f FORMAT | --image-opts] [-t CACHE] [--force] -o OPTION=VALUE,… FILE\n\
    of qcow2 images: compat, lazy_refcounts, refcount_bits, size";

const AT_CREATION_ONLY: &[&str] = &[
    "cluster_size",
    "compression_type",
    "extended_l2",
    "preallocation",
];

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        value('t', "cache"),
        value('o', "options"),
        long_switch("force"),
        PROGRESS,
        QUIET,
        OBJECT,
    ];
    let arguments = parse("amend", &flags, words)?;
    names::no_objects(&arguments)?;
    if !arguments.has("options") {
        return Err(Failure::usage("Must specify options (-o)"));
    }
    let unsupported = |format: FileFormat| {
        Failure::message(format!(
            "Format driver '{format}' does not support option amendment"
        ))
    };
    if asks_for_help(arguments.all("options")) {
        let format = match arguments.get("format") {
            Some(name) => names::format(name)?,
            None => FileFormat::Qcow2,
        };
        if format != FileFormat::Qcow2 {
            return Err(unsupported(format));
        }
        session.print(&options_help(format, true)?);
        return Ok(0);
    }
    let durable = names::durable(&arguments, "cache", true, "cache")?;
    let name = names::one(&arguments)?;
    let named = Named::new(&arguments, name, "format")?;
    let chain = named.open_to_write(
        session,
        &ChainOptions {
            durable,
            ..ChainOptions::default()
        },
    )?;
    let image = chain
        .top()
        .qcow2()
        .ok_or_else(|| unsupported(chain.top().format))?;
    let wanted = Wanted::new(FileFormat::Qcow2, arguments.all("options"))?;
    if let Some(key) = wanted.keys().find(|key| AT_CREATION_ONLY.contains(key)) {
        return Err(Failure::message(format!(
            "Invalid parameter '{key}'\nThis option is only supported for image creation"
        )));
    }
    let changes = |key, now: Option<String>| {
        wanted
            .get(key)
            .is_some_and(|value| Some(value) != now.as_deref())
    };
    if changes("backing_file", image.backing_file())
        || changes("backing_fmt", image.backing_format())
    {
        return Err(Failure::message(
            "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.",
        ));
    }
    if changes("data_file", image.data_file_name())
        || changes(
            "data_file_raw",
            Some(if image.data_file_raw() { "on" } else { "off" }.into()),
        )
    {
        return Err(Failure::message(
            "Amending the external data file is not supported",
        ));
    }
    let version = match wanted.get("compat") {
        None => image.version(),
        Some("0.10" | "v2") => 2,
        Some("1.1" | "v3") => 3,
        Some(other) => {
            return Err(Failure::message(format!(
                "Unknown compatibility level {other}"
            )));
        }
    };
    if version > image.version() {
        image.set_version(version)?;
    }
    if let Some(bits) = wanted
        .get("refcount_bits")
        .and_then(|bits| bits.parse::<u32>().ok())
    {
        if !bits.is_power_of_two() || bits > 64 {
            return Err(Failure::message(
                "Refcount width must be a power of two and may not exceed 64 bits",
            ));
        }
        image.set_refcount_bits(bits)?;
    }
    if let Some(lazy) = wanted.get("lazy_refcounts") {
        image.set_lazy_refcounts(lazy == "on")?;
    }
    if let Some(size) = wanted.get("size").and_then(|size| size.parse().ok())
        && size != chain.size()
    {
        chain.resize(size, Preallocation::Off)?;
    }
    if version < image.version() {
        chain.expand_zeroes()?;
        image.set_version(version)?;
    }
    image.close()?;
    Ok(0)
}
