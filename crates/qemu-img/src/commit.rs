//! `commit`.

use crate::arguments::{switch, value};
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, PROGRESS, QUIET};
use crate::parse;
use crate::session::{Failure, Session};
use storage::format::{Chain, ChainOptions};
use storage::verbs;

pub const USAGE: &str = "[-q] [-p] [-f FORMAT | --image-opts] [-t CACHE] [-b BASE] [-d] FILE\n\
    -b an image further down the chain (implies -d); -d does not empty FILE";

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        value('t', "cache"),
        value('b', "base"),
        switch('d', "drop"),
        value('r', "rate"),
        PROGRESS,
        QUIET,
        OBJECT,
    ];
    let arguments = parse("commit", &flags, words)?;
    names::no_objects(&arguments)?;
    if arguments.get("rate").is_some() {
        return Err(Failure::message(
            "commit: a rate limit (-r) is not supported",
        ));
    }
    let durable = names::durable(&arguments, "cache", true, "cache")?;
    let name = names::one(&arguments)?;
    let named = Named::new(&arguments, name, "format")?;
    let mut options = ChainOptions {
        durable,
        ..ChainOptions::default()
    };
    let look = named.open(&options)?;
    if look.top().guessed_raw {
        names::warn_of_guess(session, &named.name);
    }
    if look.layers.len() < 2 {
        return Err(Failure::message("Image does not have a backing file"));
    }
    let base = match arguments.get("base") {
        None => 1,
        Some(wanted) => find(&look, wanted).ok_or_else(|| {
            Failure::message(format!(
                "Did not find '{wanted}' in the backing chain of '{}'",
                named.name
            ))
        })?,
    };
    drop(look);
    options.write_below = Some(base);
    let chain = named.open_to_write(session, &options)?;
    let meter = session.progress(arguments.has("progress") && !arguments.has("quiet"));
    verbs::commit(&chain, base, &|done, of| meter.tell(done, of))?;
    let keep = arguments.has("drop") || arguments.get("base").is_some();
    if let (false, Some(image)) = (keep, chain.top().qcow2()) {
        image.empty()?;
    }
    chain.top().flush()?;
    meter.end();
    if !arguments.has("quiet") {
        session.print("Image committed.\n");
    }
    Ok(0)
}

/// The layer that is called so, by its overlay or by its own path.
fn find(chain: &Chain, wanted: &str) -> Option<usize> {
    (1..chain.layers.len()).find(|index| {
        let above = chain.layers[index - 1].qcow2();
        above.and_then(|image| image.backing_file()).as_deref() == Some(wanted)
            || chain.layers[*index].path == std::path::Path::new(wanted)
    })
}
