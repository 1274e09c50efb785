//! `map`.

use crate::arguments::value;
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, OUTPUT, SHARE};
use crate::number::{Wrong, size};
use crate::parse;
use crate::session::{Failure, Session};
use storage::format::{Chain, FileFormat, FormatError, Kind, Node};

pub const USAGE: &str = "[-f FORMAT | --image-opts] [-s|--start-offset BYTES] [-l|--max-length BYTES] [-U] [--output human|json] FILE";

/// One line of the output.
#[derive(Clone, PartialEq)]
struct Entry {
    start: u64,
    length: u64,
    depth: usize,
    present: bool,
    zero: bool,
    data: bool,
    compressed: bool,
    /// Where, in which file.
    offset: Option<(u64, String)>,
}

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        value('s', "start-offset"),
        value('l', "max-length"),
        SHARE,
        OUTPUT,
        OBJECT,
    ];
    let arguments = parse("map", &flags, words)?;
    names::no_objects(&arguments)?;
    let json = names::json(&arguments)?;
    let number = |option: &str, what: &str| -> Result<Option<u64>, Failure> {
        arguments
            .get(option)
            .map(|text| {
                size(text).map_err(|wrong| {
                    Failure::message(match wrong {
                        Wrong::Invalid => format!("Invalid {what} specified: '{text}'."),
                        Wrong::TooLarge => format!(
                            "Invalid {what} specified. Must be between 0 and {}.",
                            i64::MAX
                        ),
                    })
                })
            })
            .transpose()
    };
    let start = number("start-offset", "start offset")?.unwrap_or(0);
    let length = number("max-length", "max length")?;
    let name = names::one(&arguments)?;
    let named = Named::new(&arguments, name, "format")?;
    let chain = named.open(&names::reading(&arguments))?;
    let end = length.map_or(chain.size(), |length| {
        chain.size().min(start.saturating_add(length))
    });
    if json {
        session.print("[");
    } else {
        session.print(&format!(
            "{:<15} {:<15} {:<15} File\n",
            "Offset", "Length", "Mapped to"
        ));
    }
    let mut first = true;
    let mut held: Option<Entry> = None;
    let mut at = start;
    while at < end {
        let entry = entry(&chain, at, end - at)?;
        at += entry.length;
        match &mut held {
            Some(before) if joins(before, &entry) => before.length += entry.length,
            _ => {
                if let Some(before) = held.replace(entry) {
                    show(session, &before, json, &mut first)?;
                }
            }
        }
    }
    let last = held.unwrap_or(Entry {
        start,
        length: 0,
        depth: 0,
        present: false,
        zero: false,
        data: false,
        compressed: false,
        offset: None,
    });
    show(session, &last, json, &mut first)?;
    if json {
        session.print("]\n");
    }
    Ok(0)
}

fn joins(before: &Entry, next: &Entry) -> bool {
    let along = match (&before.offset, &next.offset) {
        (Some((a, one)), Some((b, other))) => one == other && a + before.length == *b,
        (None, None) => true,
        _ => false,
    };
    along
        && (
            before.depth,
            before.present,
            before.zero,
            before.data,
            before.compressed,
        ) == (
            next.depth,
            next.present,
            next.zero,
            next.data,
            next.compressed,
        )
}

fn entry(chain: &Chain, at: u64, max: u64) -> Result<Entry, FormatError> {
    let status = chain.status(at, max)?;
    let layer = &chain.layers[status.depth];
    let mut entry = Entry {
        start: at,
        length: status.length,
        depth: status.depth,
        present: status.present,
        zero: status.zero(),
        data: !status.zero(),
        compressed: false,
        offset: None,
    };
    let file = |index: usize| {
        let files = layer.node.source().files();
        files
            .get(index)
            .map_or_else(String::new, |path| path.display().to_string())
    };
    let place = match status.kind {
        Kind::Unallocated => None,
        Kind::Zero { offset } => offset,
        Kind::Data { offset, compressed } => {
            entry.compressed = compressed;
            offset
        }
    };
    entry.offset = place.map(|place| (place, file(status.file)));
    match (&layer.node, layer.format) {
        // QEMU does not say more of these.
        (_, FileFormat::Vhdx) => {
            entry.present = true;
            entry.zero = false;
            entry.data = true;
            entry.offset = None;
        }
        (_, FileFormat::Vpc) if !status.present => {
            entry.present = true;
        }
        (Node::Qcow2(image), _) if entry.data && !image.has_external_data() => {
            // What was only set aside is a hole of the file; other images are not worth looking.
            let sparse = layer.host.allocated()? < layer.host.length()? / 2;
            if let Some(place) = place.filter(|_| sparse) {
                let (data, end) = layer.host.span(place)?;
                if end > place {
                    entry.length = entry.length.min(end - place);
                    entry.zero = !data;
                }
            }
        }
        (Node::Vmdk(image), _) if entry.data && !entry.compressed => {
            if let (Some(place), Some((data, end))) = (
                place,
                place.and_then(|place| image.span(status.file, place)),
            ) && end > place
            {
                entry.length = entry.length.min(end - place);
                entry.zero = !data;
            }
        }
        _ => {}
    }
    Ok(entry)
}

fn show(session: &Session, entry: &Entry, json: bool, first: &mut bool) -> Result<(), Failure> {
    if json {
        let before = if *first { "" } else { ",\n" };
        *first = false;
        let offset = match &entry.offset {
            Some((offset, _)) => format!(", \"offset\": {offset}"),
            None => String::new(),
        };
        session.print(&format!(
            "{before}{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \"data\": {}, \
             \"compressed\": {}{offset}}}",
            entry.start,
            entry.length,
            entry.depth,
            entry.present,
            entry.zero,
            entry.data,
            entry.compressed
        ));
        return Ok(());
    }
    if !entry.data || entry.zero {
        return Ok(());
    }
    let Some((offset, file)) = &entry.offset else {
        return Err(Failure::message(
            "File contains external, encrypted or compressed clusters.",
        ));
    };
    session.print(&format!(
        "{:<15} {:<15} {:<15} {file}\n",
        hex(entry.start),
        hex(entry.length),
        hex(*offset)
    ));
    Ok(())
}

/// As C's `%#x`: zero has no prefix.
fn hex(value: u64) -> String {
    if value == 0 {
        "0".into()
    } else {
        format!("{value:#x}")
    }
}
