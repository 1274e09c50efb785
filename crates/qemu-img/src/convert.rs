//! `convert`.

use crate::arguments::{Arguments, Flag, long_switch, switch, value};
use crate::create::{Wanted, asks_for_help, options_help};
use crate::names::{self, Named, OBJECT, PROGRESS, QUIET, SHARE};
use crate::parse;
use crate::session::{Failure, Session};
use std::path::{Path, PathBuf};
use storage::format::{Chain, ChainOptions, FileFormat};
use storage::verbs::{self, CopyOptions, Sources};

pub const USAGE: &str = "[-q] [-p] [-f FORMAT | --image-opts] [-l SNAPSHOT] [-T CACHE] [-U]\n\
    [-O FORMAT] [-o OPTION=VALUE,…] [-t CACHE] [-c] [-B BACKING_FILE -F FORMAT] [-n [--target-is-zero]]\n\
    [-S SPARSE_BYTES] [-m THREADS] [-W] [-r BYTES_PER_SECOND] [--salvage] SOURCE… TARGET";

const FLAGS: &[Flag] = &[
    value('f', "source-format"),
    long_switch("source-image-opts"),
    long_switch("image-opts"),
    long_switch("target-image-opts"),
    value('l', "source-snapshot"),
    value('T', "source-cache"),
    value('O', "target-format"),
    value('o', "target-options"),
    switch('c', "compress"),
    value('t', "target-cache"),
    value('B', "backing"),
    value('F', "backing-format"),
    switch('n', "no-create"),
    long_switch("target-is-zero"),
    value('S', "sparse-size"),
    long_switch("bitmaps"),
    long_switch("skip-broken-bitmaps"),
    value('r', "rate"),
    value('m', "parallel"),
    switch('C', "copy-range-offloading"),
    long_switch("salvage"),
    switch('W', "oob-writes"),
    SHARE,
    PROGRESS,
    QUIET,
    OBJECT,
];

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let arguments = parse("convert", FLAGS, words)?;
    names::no_objects(&arguments)?;
    if arguments.has("bitmaps") || arguments.has("skip-broken-bitmaps") {
        return Err(Failure::message("Persistent bitmaps are not supported"));
    }
    if asks_for_help(arguments.all("target-options")) {
        let format = names::format(arguments.get("target-format").unwrap_or("raw"))?;
        session.print(&options_help(format, false)?);
        return Ok(0);
    }
    let Some((target, sources)) = arguments
        .names
        .split_last()
        .filter(|(_, rest)| !rest.is_empty())
    else {
        return Err(Failure::message("Must specify image file name"));
    };
    let mut plan = Plan::new(&arguments)?;
    let sources = open_sources(&arguments, sources, &mut plan)?;
    let size = sources.size();
    let mut made = Vec::new();
    let chain = target_chain(session, &arguments, &mut plan, target, size, &mut made)?;
    let meter = session.progress(arguments.has("progress") && !arguments.has("quiet"));
    let copied = verbs::copy(sources, &chain, &plan.copy, &|done, of| {
        meter.tell(done, of)
    });
    if let Err(error) = copied {
        // What is half made is of no use to anybody.
        drop(chain);
        for file in made {
            let _ = std::fs::remove_file(file);
        }
        return Err(error.into());
    }
    meter.end();
    Ok(0)
}

/// What the arguments ask for.
struct Plan {
    format: FileFormat,
    copy: CopyOptions,
    backing: Option<(String, Option<String>)>,
    durable: bool,
}

impl Plan {
    fn new(arguments: &Arguments) -> Result<Plan, Failure> {
        let format = arguments.get("target-format").unwrap_or("raw");
        let mut copy = CopyOptions::new(REQUESTS);
        if let Some(text) = arguments.get("sparse-size") {
            let invalid = || {
                Failure::message(
                    "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to 16777216. \
                     Select 0 to disable sparse detection (fully allocates output).",
                )
            };
            copy.sparse = crate::number::size(text).map_err(|_| invalid())?;
            if copy.sparse > 16 << 20 || !copy.sparse.is_multiple_of(512) {
                return Err(invalid());
            }
        }
        if let Some(text) = arguments.get("parallel") {
            copy.threads = names::count(text, "number of coroutines", 1, 16)? as usize;
        }
        if let Some(text) = arguments.get("rate") {
            copy.rate = Some(crate::number::size(text).map_err(|_| {
                Failure::message(format!("Invalid rate limit specified: '{text}'."))
            })?);
        }
        if arguments.has("copy-range-offloading") {
            if arguments.has("sparse-size") {
                return Err(Failure::message(
                    "Cannot enable copy offloading when -S is used",
                ));
            }
            if arguments.has("compress") {
                return Err(Failure::message(
                    "Cannot enable copy offloading when -c is used",
                ));
            }
        }
        copy.compress = arguments.has("compress");
        if copy.compress {
            copy.threads = copy.threads.min(threads());
        }
        copy.in_order = !arguments.has("oob-writes");
        copy.salvage = arguments.has("salvage");
        if copy.compress && !copy.in_order {
            return Err(Failure::message(
                "Out of order write and compress are mutually exclusive",
            ));
        }
        let create = !arguments.has("no-create");
        if arguments.has("target-is-zero") && create {
            return Err(Failure::message("--target-is-zero requires use of -n flag"));
        }
        if !create && arguments.has("target-options") {
            return Err(Failure::message(
                "-o has no effect when skipping image creation",
            ));
        }
        if arguments.has("target-image-opts") && create {
            return Err(Failure::message(
                "--target-image-opts requires use of -n flag",
            ));
        }
        copy.zeroed = create || arguments.has("target-is-zero");
        names::durable(arguments, "source-cache", true, "source cache")?;
        Ok(Plan {
            format: names::format(format)?,
            copy,
            backing: None,
            durable: names::durable(arguments, "target-cache", false, "cache")?,
        })
    }
}

/// So many requests are on their way at a time unless `-m` says otherwise, a thread each: more than a host may have processors,
/// since those that wait for a drive need none.
const REQUESTS: usize = 8;

/// How many threads are of use to work that does not wait.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(8))
}

fn open_sources(
    arguments: &Arguments,
    names: &[String],
    plan: &mut Plan,
) -> Result<Sources, Failure> {
    let by_options = arguments.has("image-opts") || arguments.has("source-image-opts");
    let mut chains: Vec<Chain> = Vec::new();
    for name in names {
        let named = if by_options {
            Named::by_options(name)?
        } else {
            Named::new(arguments, name, "source-format")?
        };
        chains.push(named.open(&names::reading(arguments))?);
    }
    if let Some(snapshot) = arguments.get("source-snapshot") {
        if chains.len() > 1 {
            return Err(Failure::message(
                "No support for concatenating multiple snapshot",
            ));
        }
        names::show_snapshot(&chains[0], snapshot)?;
    }
    let named = |key| arguments.get(key).map(String::from);
    plan.backing = named("backing").map(|file| (file, named("backing-format")));
    if plan.backing.is_some() && chains.len() > 1 {
        return Err(Failure::message(
            "Having a backing file for the target makes no sense when concatenating multiple input images",
        ));
    }
    Ok(Sources::new(chains))
}

/// Opens or makes the target. `made` are the files that are new then.
fn target_chain(
    session: &Session,
    arguments: &Arguments,
    plan: &mut Plan,
    target: &str,
    size: u64,
    made: &mut Vec<PathBuf>,
) -> Result<Chain, Failure> {
    let no_compression = Failure::message("Compression not supported for this file format");
    if plan.copy.compress && plan.format != FileFormat::Qcow2 {
        return Err(no_compression);
    }
    if arguments.has("no-create") {
        let mut named = if arguments.has("target-image-opts") {
            Named::by_options(target)?
        } else {
            Named::new(&Arguments::default(), target, "")?
        };
        named.format = named.format.or(Some(plan.format));
        let chain = named.open_to_write(
            session,
            &ChainOptions {
                durable: plan.durable,
                ..ChainOptions::default()
            },
        )?;
        if chain.size() < size {
            return Err(Failure::message("output file is smaller than input file"));
        }
        plan.copy.zeroed = arguments.has("target-is-zero");
        return Ok(chain);
    }
    let path = names::path(target)?;
    let mut wanted = Wanted::new(plan.format, arguments.all("target-options"))?;
    if let Some((file, format)) = plan.backing.take() {
        if plan.format != FileFormat::Qcow2 {
            return Err(Failure::message(format!(
                "Backing file not supported for file format '{}'",
                plan.format
            )));
        }
        wanted.set("backing_file", &file)?;
        if let Some(format) = format {
            wanted.set("backing_fmt", &format)?;
        }
    }
    if let Some(file) = wanted.get("backing_file").map(String::from) {
        if wanted.get("backing_fmt").is_none() {
            return Err(Failure::message(
                "Use of backing file requires explicit backing format",
            ));
        }
        plan.copy.over_backing = true;
        plan.copy.zeroed = false;
        look_at_backing(&wanted, &path, &file)?;
    }
    let size = match wanted.get("size").and_then(|size| size.parse().ok()) {
        Some(larger) if larger >= size => larger,
        Some(_) => return Err(Failure::message("output file is smaller than input file")),
        None => size,
    };
    let before = path.exists();
    let (chain, files) = wanted
        .create(&path, size, plan.durable, true)
        .map_err(|failure| {
            // What was there before the command is the user's.
            if !before {
                let _ = std::fs::remove_file(&path);
            }
            failure.about(&format!("{target}: error while converting {}", plan.format))
        })?;
    *made = files;
    if plan.copy.compress
        && chain
            .top()
            .qcow2()
            .is_some_and(|image| image.has_external_data())
    {
        drop(chain);
        for file in made.drain(..) {
            let _ = std::fs::remove_file(file);
        }
        return Err(Failure::message(
            "Compressed clusters cannot be written to an image with an external data file",
        ));
    }
    Ok(chain)
}

fn look_at_backing(wanted: &Wanted, path: &Path, file: &str) -> Result<(), Failure> {
    let options = ChainOptions {
        format: wanted.get("backing_fmt").map(names::format).transpose()?,
        ..ChainOptions::default()
    };
    Chain::open(&names::backing_path(path, file), &options)?;
    Ok(())
}
