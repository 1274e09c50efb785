//! `compare`.

use crate::arguments::{switch, value};
use crate::names::{self, IMAGE_OPTS, Named, OBJECT, PROGRESS, QUIET, SHARE};
use crate::parse;
use crate::session::{Failure, Session};
use storage::verbs::{self, Comparison};

pub const USAGE: &str = "[-q] [-p] [-f FORMAT] [-F FORMAT] [-s] [-T CACHE] [-U] FILE1 FILE2\n\
    exit code: 0 the same, 1 different, 2 could not open, 3 could not look at, 4 could not read";

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        value('f', "a-format"),
        value('F', "b-format"),
        IMAGE_OPTS,
        switch('s', "strict"),
        value('T', "cache"),
        SHARE,
        PROGRESS,
        QUIET,
        OBJECT,
    ];
    let arguments = parse("compare", &flags, words)?;
    names::no_objects(&arguments)?;
    let [first, second] = &arguments.names[..] else {
        return Err(Failure::usage("Expecting two image file names"));
    };
    names::durable(&arguments, "cache", true, "source cache")?;
    let options = names::reading(&arguments);
    let open = |name: &str, format: &str| -> Result<_, Failure> {
        let named = Named::new(&arguments, name, format)?;
        Ok(named.open(&options)?)
    };
    let first = open(first, "a-format").map_err(|failure| failure.code(2))?;
    let second = open(second, "b-format").map_err(|failure| failure.code(2))?;
    let say = |text: &str| {
        if !arguments.has("quiet") {
            session.print(&format!("{text}\n"));
        }
    };
    let strict = arguments.has("strict");
    let sizes_differ = first.size() != second.size();
    if sizes_differ && strict {
        say("Strict mode: Image size mismatch!");
        return Ok(1);
    }
    let meter = session.progress(arguments.has("progress") && !arguments.has("quiet"));
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let result = verbs::compare(&first, &second, strict, threads, &|done, of| {
        meter.tell(done, of)
    })
    .map_err(|error| Failure::from(error).code(4))?;
    meter.show_end();
    let common = first.size().min(second.size());
    // What is past the shorter one's end is looked at last.
    let tail = !matches!(result, Comparison::Differs(at) if at < common);
    if sizes_differ && tail {
        say("Warning: Image size mismatch!");
    }
    let code = match result {
        Comparison::Identical => {
            say("Images are identical.");
            0
        }
        Comparison::Differs(at) => {
            say(&format!("Content mismatch at offset {at}!"));
            1
        }
        Comparison::StatusDiffers(at) => {
            say(&format!("Strict mode: Offset {at} block status mismatch!"));
            1
        }
    };
    meter.line();
    Ok(code)
}
