//! `rebase`.

use crate::arguments::{switch, value};
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, PROGRESS, QUIET, SHARE};
use crate::parse;
use crate::session::{Failure, Session};
use storage::format::{Chain, ChainOptions};
use storage::verbs;

pub const USAGE: &str = "[-q] [-p] [-f FORMAT | --image-opts] [-t CACHE] [-U] [-u] [-c]\n\
    -b BACKING_FILE [-F FORMAT] [-T CACHE] FILE\n\
    -b \"\" for none; -u changes the name only";

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        value('t', "cache"),
        value('b', "backing"),
        value('F', "backing-format"),
        value('T', "backing-cache"),
        switch('u', "backing-unsafe"),
        switch('c', "compress"),
        SHARE,
        PROGRESS,
        QUIET,
        OBJECT,
    ];
    let arguments = parse("rebase", &flags, words)?;
    names::no_objects(&arguments)?;
    let name = names::one(&arguments)?;
    let unsafely = arguments.has("backing-unsafe");
    let backing = arguments.get("backing");
    if backing.is_none() && !unsafely {
        return Err(Failure::usage(
            "Must specify backing file (-b) or use unsafe mode (-u)",
        ));
    }
    let format = arguments.get("backing-format");
    let parsed = format
        .map(|name| {
            name.parse()
                .map_err(|_| Failure::message(format!("Invalid format name: '{name}'")))
        })
        .transpose()?;
    let durable = names::durable(&arguments, "cache", true, "cache")?;
    names::durable(&arguments, "backing-cache", true, "source cache")?;
    let named = Named::new(&arguments, name, "format")?;
    let chain = named.open_to_write(
        session,
        &ChainOptions {
            durable,
            backing: !unsafely,
            ..names::reading(&arguments)
        },
    )?;
    let failed = |reason: String| {
        Failure::message(format!(
            "Could not change the backing file to '{}': {reason}",
            backing.unwrap_or("")
        ))
    };
    let target = backing.filter(|name| !name.is_empty());
    let new = match target {
        Some(target) if !unsafely => {
            let path = names::backing_path(&named.path, target);
            let options = ChainOptions {
                format: parsed,
                ..names::reading(&arguments)
            };
            let refused = |error: storage::OpenError| {
                let Failure::Message(reason) = Failure::from(error) else {
                    return Failure::Silent(1);
                };
                // The name as it was given, and then the file.
                let reason = reason
                    .strip_prefix(&format!("Could not open '{}': ", path.display()))
                    .unwrap_or(&reason)
                    .to_string();
                Failure::message(format!(
                    "Could not open new backing file '{target}': {reason}"
                ))
            };
            Some(Chain::open(&path, &options).map_err(refused)?)
        }
        _ => None,
    };
    let Some(image) = chain.top().qcow2() else {
        return Err(failed("Operation not supported".into()));
    };
    if target.is_some() && parsed.is_none() {
        return Err(failed("backing format must be specified".into()));
    }
    if !unsafely {
        let meter = session.progress(arguments.has("progress") && !arguments.has("quiet"));
        verbs::rebase(
            &chain,
            new.as_ref(),
            arguments.has("compress"),
            &|done, of| meter.tell(done, of),
        )?;
        meter.end();
    }
    image
        .set_backing(target, format)
        .map_err(|error| failed(error.to_string()))?;
    Ok(0)
}
