//! `resize`.

use crate::arguments::{long_switch, long_value};
use crate::create::{NOT_A_SIZE, preallocation};
use crate::names::{FORMAT, IMAGE_OPTS, Named, OBJECT, QUIET};
use crate::number::size;
use crate::session::{Failure, Session};
use crate::{names, parse};
use storage::format::{ChainOptions, Node};
use storage::qcow2::Preallocation;

pub const USAGE: &str = "[-q] [-f FORMAT | --image-opts] [--preallocation off|metadata|falloc|full] [--shrink] FILE [+|-]SIZE";

/// How the size is meant.
#[derive(Clone, Copy, PartialEq)]
enum Relation {
    Absolute,
    Larger,
    Smaller,
}

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        long_value("preallocation"),
        long_switch("shrink"),
        QUIET,
        OBJECT,
    ];
    // "-5M" at the end is a size, not options.
    let mut words = words.to_vec();
    let size_text = words.pop_if(|last| words_is_size(last));
    let arguments = parse("resize", &flags, &words)?;
    names::no_objects(&arguments)?;
    let mut given = arguments.names.clone();
    given.extend(size_text);
    let [name, size_text] = &given[..] else {
        return Err(Failure::usage("Expecting image file name and size"));
    };
    let mode = match arguments.get("preallocation") {
        None => Preallocation::Off,
        Some(name) => preallocation(name)
            .ok_or_else(|| Failure::message(format!("Invalid preallocation mode '{name}'")))?,
    };
    let (relation, digits) = match size_text.as_bytes() {
        [b'+', ..] => (Relation::Larger, &size_text[1..]),
        [b'-', ..] => (Relation::Smaller, &size_text[1..]),
        _ => (Relation::Absolute, &size_text[..]),
    };
    let amount = size(digits)
        .map_err(|_| Failure::message(format!("Parameter 'size' expects {NOT_A_SIZE}")))?;
    let named = Named::new(&arguments, name, "format")?;
    let options = ChainOptions::default();
    // What cannot be resized is not even tried to be opened for writing.
    let look = named.open(&ChainOptions {
        backing: false,
        damaged: true,
        ..options
    })?;
    if !matches!(look.top().node, Node::Raw(_) | Node::Qcow2(_)) {
        return Err(Failure::message(
            "Image format driver does not support resize",
        ));
    }
    drop(look);
    let chain = named.open_to_write(session, &options)?;
    let old = chain.size();
    let new = match relation {
        Relation::Absolute => Some(amount),
        Relation::Larger => old.checked_add(amount),
        Relation::Smaller => old.checked_sub(amount),
    };
    let new = new
        .filter(|new| *new > 0 && i64::try_from(*new).is_ok())
        .ok_or_else(|| Failure::message("New image size must be positive"))?;
    if new <= old && mode != Preallocation::Off {
        return Err(Failure::message(
            "Preallocation can only be used for growing images",
        ));
    }
    if new < old && !arguments.has("shrink") {
        session.say("Use the --shrink option to perform a shrink operation.");
        session.say(
            "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an \
             operation, make sure there is no important data there.",
        );
        return Err(Failure::Silent(1));
    }
    chain.resize(new, mode)?;
    chain.top().flush()?;
    if !arguments.has("quiet") {
        session.print("Image resized.\n");
    }
    Ok(0)
}

fn words_is_size(word: &str) -> bool {
    word.strip_prefix(['+', '-'])
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
