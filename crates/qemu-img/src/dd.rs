//! `dd`.

use crate::arguments::value;
use crate::create::Wanted;
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, SHARE};
use crate::number::{Wrong, size};
use crate::parse;
use crate::session::{Failure, Session};
use storage::Buffer;
use storage::format::FormatError;

pub const USAGE: &str = "[-f FORMAT | --image-opts] [-O FORMAT] [-U] [bs=BYTES] [count=BLOCKS] [skip=BLOCKS] if=FILE of=FILE\n    count begins at the start of the input, skipped blocks included";

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        value('O', "output-format"),
        SHARE,
        OBJECT,
    ];
    let arguments = parse("dd", &flags, words)?;
    names::no_objects(&arguments)?;
    let (mut input, mut output) = (None, None);
    let (mut block, mut count, mut skip) = (512u64, None, 0u64);
    for operand in &arguments.names {
        let (key, text) = operand.split_once('=').unwrap_or((operand, ""));
        match key {
            "if" => input = Some(text),
            "of" => output = Some(text),
            "bs" => block = names::count(text, "bs", 1, i32::MAX as u64)?,
            "count" => count = Some(number(text, "count")?),
            "skip" => skip = number(text, "skip")?,
            other => return Err(Failure::message(format!("unrecognized operand {other}"))),
        }
    }
    let (Some(input), Some(output)) = (input, output) else {
        return Err(Failure::message("Must specify both input and output files"));
    };
    let named = Named::new(&arguments, input, "format")?;
    let source = named.open(&names::reading(&arguments))?;
    let format = arguments.get("output-format").unwrap_or("raw");
    let format = format.parse().map_err(|_| {
        Failure::message(match names::unknown_format(format) {
            known if known.starts_with("Images") => known,
            _ => "Unknown file format".into(),
        })
    })?;
    let total = source.size();
    let from = skip.saturating_mul(block);
    // As with `qemu-img`, the count begins at the start of the input, not where it skips to.
    let length = match count {
        Some(count) => total.min(count.saturating_mul(block)),
        None => total,
    };
    let length = length.saturating_sub(from);
    let path = names::path(output)?;
    let (target, files) = Wanted::new(format, std::iter::empty())?
        .create(&path, length, false, true)
        .map_err(|failure| {
            failure.about(&format!(
                "{output}: error while creating output image of type {format}"
            ))
        })?;
    if from > total || (from == total && skip > 0) {
        session.say(&format!("{input}: cannot skip to specified offset"));
        return Ok(0);
    }
    let meter = session.progress(false);
    let copy = || -> Result<(), FormatError> {
        let mut buffer = Buffer::new(block.clamp(1 << 20, 64 << 20) as usize);
        let mut at = 0;
        while at < length {
            meter.tell(at, length)?;
            let count = (length - at).min(buffer.len() as u64) as usize;
            source.read(from + at, &mut buffer[..count])?;
            target.write(at, &buffer[..count])?;
            at += count as u64;
        }
        target.top().flush()
    };
    if let Err(error) = copy() {
        drop(target);
        for file in files {
            let _ = std::fs::remove_file(file);
        }
        return Err(error.into());
    }
    Ok(0)
}

fn number(text: &str, what: &str) -> Result<u64, Failure> {
    size(text).map_err(|wrong| {
        Failure::message(match wrong {
            Wrong::Invalid => format!("Invalid {what} specified: '{text}'."),
            Wrong::TooLarge => format!(
                "Invalid {what} specified. Must be between 0 and {}.",
                i64::MAX
            ),
        })
    })
}
