//! `qemu-img`'s arguments and words for the verbs of [`storage::verbs`], and what Dormer adds to them.
//!
//! [`main`] is the program; [`run`] is that with its output going where one likes. Each verb has a file of its own name.

mod amend;
mod arguments;
mod bench;
mod check;
mod commit;
mod compare;
mod convert;
mod create;
mod dd;
mod info;
mod json;
mod local_time;
mod map;
mod measure;
mod names;
mod number;
mod rebase;
mod reclaim;
mod resize;
mod session;
mod snapshot;

pub use session::Session;

use arguments::{Arguments, Flag};
use session::Failure;
use std::process::ExitCode;

/// Runs the program `name` ("qemu-img", "dormer disk") with its arguments.
pub fn main(name: &str, arguments: &[String]) -> ExitCode {
    let session = Session::standard(name);
    ExitCode::from(run(&session, arguments))
}

type Verb = fn(&Session, &[String]) -> Result<u8, Failure>;

/// Name, what it does, arguments in short, the function, whether it is Dormer's own.
const VERBS: &[(&str, &str, &str, Verb)] = &[
    (
        "amend",
        "change an image's format options",
        amend::USAGE,
        amend::run,
    ),
    (
        "bench",
        "measure reading or writing an image",
        bench::USAGE,
        bench::run,
    ),
    (
        "check",
        "look for damage, and repair it",
        check::USAGE,
        check::run,
    ),
    (
        "commit",
        "write an image into the one below it",
        commit::USAGE,
        commit::run,
    ),
    (
        "compare",
        "say whether two images have the same contents",
        compare::USAGE,
        compare::run,
    ),
    (
        "convert",
        "copy images into a new one, of any format",
        convert::USAGE,
        convert::run,
    ),
    ("create", "make a new image", create::USAGE, create::run),
    ("dd", "copy a part of an image", dd::USAGE, dd::run),
    ("info", "say what an image is", info::USAGE, info::run),
    ("map", "say where an image has what", map::USAGE, map::run),
    (
        "measure",
        "say how large a new image would be",
        measure::USAGE,
        measure::run,
    ),
    (
        "rebase",
        "put an image over another one",
        rebase::USAGE,
        rebase::run,
    ),
    (
        "reclaim",
        "give space back that an image does not need",
        reclaim::USAGE,
        reclaim::run,
    ),
    (
        "resize",
        "make an image's disk larger or smaller",
        resize::USAGE,
        resize::run,
    ),
    (
        "snapshot",
        "list, make, apply and delete internal snapshots",
        snapshot::USAGE,
        snapshot::run,
    ),
];

/// Runs one command line. Returns the exit code.
pub fn run(session: &Session, arguments: &[String]) -> u8 {
    let Some((verb, rest)) = arguments.split_first() else {
        return session.failed("", &Failure::usage("Not enough arguments"));
    };
    match verb.as_str() {
        "-h" | "--help" => {
            overview(session);
            return 0;
        }
        "-V" | "--version" => {
            session.print(&format!(
                "{} of Dormer {}, with the arguments of qemu-img 10.0\n",
                session.program(),
                env!("CARGO_PKG_VERSION")
            ));
            return 0;
        }
        "bitmap" => {
            return session.failed(
                "",
                &Failure::message("Persistent bitmaps are not supported"),
            );
        }
        option if option.starts_with('-') => {
            return session.failed(
                "",
                &Failure::usage(format!("option '{option}' is not supported")),
            );
        }
        _ => {}
    }
    let Some((name, what, usage, function)) = VERBS.iter().find(|(name, ..)| name == verb) else {
        return session.failed("", &Failure::usage(format!("Command not found: {verb}")));
    };
    if rest
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--help" || word == "-h")
    {
        session.print(&format!(
            "{} {name}: {what}\n\n  {} {name} {}\n",
            session.program(),
            session.program(),
            usage.replace('\n', "\n        ")
        ));
        return 0;
    }
    match function(session, rest) {
        Ok(code) => code,
        Err(failure) => session.failed(name, &failure),
    }
}

fn overview(session: &Session) {
    session.print(&format!(
        "Usage: {} COMMAND [OPTIONS]\n\n",
        session.program()
    ));
    for (name, what, ..) in VERBS {
        session.print(&format!("  {name:<10} {what}\n"));
    }
    session.print(&format!(
        "\n{} COMMAND --help shows a command's arguments.\nImage formats: raw qcow2; to read: vhdx vpc vmdk\n",
        session.program()
    ));
}

/// Parses a verb's arguments.
fn parse(verb: &str, flags: &[Flag], words: &[String]) -> Result<Arguments, Failure> {
    Arguments::parse(flags, words).map_err(|reason| Failure::Option {
        verb: verb.into(),
        reason,
    })
}
