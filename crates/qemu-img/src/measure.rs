//! `measure`.

use crate::arguments::value;
use crate::create::{Wanted, asks_for_help, image_size, options_help};
use crate::json::Json;
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, OUTPUT, SHARE};
use crate::parse;
use crate::session::{Failure, Session};
use storage::format::FileFormat;
use storage::qcow2::{self, Measurement};
use storage::verbs;

pub const USAGE: &str = "[-O FORMAT] [-o OPTION=VALUE,…] [-f FORMAT | --image-opts] [-l SNAPSHOT] [-U] [--output human|json]\n\
    --size BYTES | FILE";

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        value('O', "target-format"),
        value('o', "options"),
        value('s', "size"),
        value('l', "snapshot"),
        SHARE,
        OUTPUT,
        OBJECT,
    ];
    let arguments = parse("measure", &flags, words)?;
    names::no_objects(&arguments)?;
    let json = names::json(&arguments)?;
    let format = arguments.get("target-format").unwrap_or("raw");
    let size = arguments.get("size").map(image_size).transpose()?;
    let name = match (&arguments.names[..], size) {
        ([], Some(_)) => None,
        ([name], None) => Some(name),
        ([_], Some(_)) => {
            return Err(Failure::message(
                "--size N cannot be used together with a filename.",
            ));
        }
        _ => {
            return Err(Failure::message(
                "Either --size N or one filename must be specified.",
            ));
        }
    };
    let format = names::format(format)?;
    if !matches!(format, FileFormat::Raw | FileFormat::Qcow2) {
        return Err(Failure::message(format!(
            "Block driver '{format}' does not support size measurement"
        )));
    }
    if asks_for_help(arguments.all("options")) {
        session.print(&options_help(format, false)?);
        return Ok(0);
    }
    let wanted = Wanted::new(format, arguments.all("options"))?;
    let chain = match name {
        None => None,
        Some(name) => {
            let named = Named::new(&arguments, name, "format")?;
            let chain = named.open(&names::reading(&arguments))?;
            if let Some(snapshot) = arguments.get("snapshot") {
                names::show_snapshot(&chain, snapshot)?;
            }
            Some(chain)
        }
    };
    let size = chain
        .as_ref()
        .map_or(size.unwrap_or(0), |chain| chain.size());
    let found = match format {
        FileFormat::Qcow2 => {
            // A name for the backing format alone is no mistake here.
            let options = wanted.qcow2(size)?;
            let data = match &chain {
                Some(chain) => verbs::data_bytes(chain, options.cluster_size)?,
                None => 0,
            };
            qcow2::measure(&options, data)?
        }
        _ => Measurement {
            required: size,
            fully_allocated: size,
        },
    };
    // QEMU says this of sources that can have bitmaps.
    let bitmaps = format == FileFormat::Qcow2
        && arguments.get("snapshot").is_none()
        && chain
            .as_ref()
            .is_some_and(|chain| chain.top().qcow2().is_some());
    if json {
        let mut members = Vec::new();
        if bitmaps {
            members.push(("bitmaps", Json::Number(0)));
        }
        members.push(("required", Json::Number(found.required)));
        members.push(("fully-allocated", Json::Number(found.fully_allocated)));
        session.print(&format!("{}\n", Json::Object(members).pretty()));
    } else {
        session.print(&format!(
            "required size: {}\nfully allocated size: {}\n",
            found.required, found.fully_allocated
        ));
        if bitmaps {
            session.print("bitmaps size: 0\n");
        }
    }
    Ok(0)
}
