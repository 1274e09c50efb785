//! `create`, and the format options that several verbs take.

use crate::arguments::{Arguments, switch, value};
use crate::names::{self, FORMAT, OBJECT, QUIET};
use crate::number::{Wrong, size};
use crate::parse;
use crate::session::{Failure, Session};
use std::path::{Path, PathBuf};
use storage::OpenError;
use storage::format::{Chain, ChainOptions, FileFormat};
use storage::qcow2::{Compression, CreateOptions, Preallocation};

pub const USAGE: &str = "[-q] [-f FORMAT] [-o OPTION=VALUE,…] [-b BACKING_FILE -F FORMAT] [-u] FILE [SIZE]\n\
    SIZE in bytes, or with k, M, G, T, P or E; not needed with -b\n\
    -o help lists the options of a format\n\
    -u does not open the backing file";

const MAX_SIZE: u64 = i64::MAX as u64;

/// What a new image is to be like, as the words say it. What is given is kept as it is, to be shown.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub format: FileFormat,
    given: Vec<(String, String)>,
}

/// Name, kind, what it is, whether an existing image's can be changed.
const QCOW2: &[(&str, &str, &str, bool)] = &[
    ("backing_file", "str", "File name of a base image", true),
    ("backing_fmt", "str", "Image format of the base image", true),
    ("cluster_size", "size", "qcow2 cluster size", false),
    (
        "compat",
        "str",
        "Compatibility level (v2 [0.10] or v3 [1.1])",
        true,
    ),
    (
        "compression_type",
        "str",
        "Compression method used for image cluster compression",
        false,
    ),
    (
        "data_file",
        "str",
        "File name of an external data file",
        true,
    ),
    (
        "data_file_raw",
        "bool (on/off)",
        "The external data file must stay valid as a raw image",
        true,
    ),
    (
        "extended_l2",
        "bool (on/off)",
        "Extended L2 tables (not supported: off only)",
        false,
    ),
    (
        "lazy_refcounts",
        "bool (on/off)",
        "Postpone refcount updates",
        true,
    ),
    (
        "preallocation",
        "str",
        "Preallocation mode (allowed values: off, metadata, falloc, full)",
        false,
    ),
    (
        "refcount_bits",
        "num",
        "Width of a reference count entry in bits",
        true,
    ),
    ("size", "size", "Virtual disk size", true),
];

const RAW: &[(&str, &str, &str, bool)] = &[
    (
        "preallocation",
        "str",
        "Preallocation mode (allowed values: off, falloc, full)",
        false,
    ),
    ("size", "size", "Virtual disk size", false),
];

/// The options of a format that is written.
fn known(
    format: FileFormat,
) -> Result<&'static [(&'static str, &'static str, &'static str, bool)], Failure> {
    match format {
        FileFormat::Qcow2 => Ok(QCOW2),
        FileFormat::Raw => Ok(RAW),
        other => Err(Failure::message(format!(
            "Images of format '{other}' can be read only: they cannot be made"
        ))),
    }
}

/// The text of `-o help`.
pub fn options_help(format: FileFormat, amend: bool) -> Result<String, Failure> {
    let mut text = if amend {
        format!("Amend options for '{format}':\n")
    } else {
        format!("Supported {format} options:\n")
    };
    for (name, kind, what, changeable) in known(format)? {
        if !amend || *changeable {
            text += &format!("  {:<22} - {what}\n", format!("{name}=<{kind}>"));
        }
    }
    Ok(text)
}

/// Whether the words of `-o` ask for help.
pub fn asks_for_help<'a>(mut options: impl Iterator<Item = &'a str>) -> bool {
    options.any(|text| text.split(',').any(|word| word == "help" || word == "?"))
}

impl Wanted {
    /// Of a new image, in the words of `-o`.
    pub fn new<'a>(
        format: FileFormat,
        options: impl Iterator<Item = &'a str>,
    ) -> Result<Wanted, Failure> {
        let mut wanted = Wanted {
            format,
            given: Vec::new(),
        };
        for text in options {
            for (key, value) in names::pairs(text) {
                wanted.set(&key, &value)?;
            }
        }
        Ok(wanted)
    }

    pub fn set(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        let invalid = |what: &str| Failure::message(format!("Parameter '{key}' expects {what}"));
        let encryption = key == "encryption" || key.starts_with("encrypt.");
        if self.format == FileFormat::Qcow2 && encryption {
            return Err(Failure::message(format!(
                "Parameter '{key}': encryption is not supported"
            )));
        }
        let Some((_, kind, ..)) = known(self.format)?.iter().find(|(name, ..)| *name == key) else {
            return Err(Failure::message(format!("Invalid parameter '{key}'")));
        };
        let value = match *kind {
            "size" => size(value).map_err(|_| invalid(NOT_A_SIZE))?.to_string(),
            "num" => {
                value.parse::<u64>().map_err(|_| invalid("a number"))?;
                value.into()
            }
            "bool (on/off)" => on_off(value)
                .ok_or_else(|| invalid("'on' or 'off'"))?
                .into(),
            _ => value.to_string(),
        };
        self.given.retain(|(name, _)| name != key);
        self.given.push((key.into(), value));
        Ok(())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.given.iter().find(|(name, _)| name == key)?;
        Some(&found.1)
    }

    /// All that was given.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.given.iter().map(|(key, _)| key.as_str())
    }

    /// What is created, on one line, as QEMU shows it.
    pub fn describe(&self) -> String {
        let mut text = format!("fmt={}", self.format);
        let order: &[(&str, Option<&str>)] = match self.format {
            FileFormat::Qcow2 => &[
                ("cluster_size", Some("65536")),
                ("extended_l2", Some("off")),
                ("preallocation", None),
                ("compression_type", Some("zlib")),
                ("size", None),
                ("compat", None),
                ("data_file", None),
                ("data_file_raw", None),
                ("backing_file", None),
                ("backing_fmt", None),
                ("lazy_refcounts", Some("off")),
                ("refcount_bits", Some("16")),
            ],
            _ => &[("size", None), ("preallocation", None)],
        };
        for (key, default) in order {
            if let Some(value) = self.get(key).or(*default) {
                text += &format!(" {key}={value}");
            }
        }
        text
    }

    fn preallocation(&self) -> Result<Preallocation, Failure> {
        match self.get("preallocation") {
            None => Ok(Preallocation::Off),
            Some(name) => preallocation(name).ok_or_else(|| {
                Failure::message(format!(
                    "Parameter 'preallocation' does not accept value '{name}'"
                ))
            }),
        }
    }

    /// For a qcow2 image of `size` bytes.
    pub fn qcow2(&self, size: u64) -> Result<CreateOptions, Failure> {
        let mut options = CreateOptions::new(size);
        let refuse = |what: &str, value: &str| {
            Failure::message(format!(
                "Parameter '{what}' does not accept value '{value}'"
            ))
        };
        let number = |key| {
            self.get(key)
                .and_then(|value: &str| value.parse::<u64>().ok())
        };
        options.version = match self.get("compat") {
            None | Some("1.1" | "v3") => 3,
            Some("0.10" | "v2") => 2,
            Some(other) => return Err(refuse("version", other)),
        };
        options.compression = match self.get("compression_type") {
            None | Some("zlib") => Compression::Zlib,
            Some("zstd") => Compression::Zstd,
            Some(other) => return Err(refuse("compression-type", other)),
        };
        if self.get("extended_l2") == Some("on") {
            return Err(Failure::message(
                "Images with extended L2 entries (extended_l2=on) are not supported",
            ));
        }
        options.preallocation = self.preallocation()?;
        if let Some(bytes) = number("cluster_size") {
            options.cluster_size = bytes;
        }
        if let Some(bits) = number("refcount_bits") {
            options.refcount_bits = u32::try_from(bits).unwrap_or(u32::MAX);
        }
        options.lazy_refcounts = self.get("lazy_refcounts") == Some("on");
        options.data_file = self.get("data_file").map(Into::into);
        options.data_file_raw = self.get("data_file_raw") == Some("on");
        options.backing_file = self.get("backing_file").map(Into::into);
        options.backing_format = self.get("backing_fmt").map(Into::into);
        if options.backing_format.is_some() && options.backing_file.is_none() {
            return Err(Failure::message(
                "Backing format cannot be used without backing file",
            ));
        }
        options.check().map_err(Failure::from)?;
        Ok(options)
    }

    /// Makes the image and opens it to be written. Says which files there are now.
    pub fn create(
        &self,
        path: &Path,
        size: u64,
        durable: bool,
        backing: bool,
    ) -> Result<(Chain, Vec<PathBuf>), Failure> {
        let mut files = vec![path.to_path_buf()];
        let preallocation = self.preallocation()?;
        let named = |error: OpenError| match error {
            OpenError::Io { error, .. } => {
                let error = OpenError::Io {
                    path: path.into(),
                    error,
                };
                Failure::message(error.to_string().replacen(
                    "Could not open",
                    "Could not create",
                    1,
                ))
            }
            OpenError::Locked { path, what } => Failure::message(format!(
                "Failed to get {what} lock\nIs another process using the image [{}]?",
                path.display()
            )),
            OpenError::Image { reason, .. } => Failure::message(reason),
            other => Failure::message(other.to_string()),
        };
        match self.format {
            FileFormat::Qcow2 => {
                let options = self.qcow2(size)?;
                if let Some(name) = &options.data_file {
                    files.push(names::backing_path(path, name));
                }
                drop(storage::create_image(path, &options, durable).map_err(named)?);
            }
            FileFormat::Raw => {
                if preallocation == Preallocation::Metadata {
                    return Err(Failure::message("Unsupported preallocation mode: metadata"));
                }
                storage::create_raw(path, 0).map_err(named)?;
            }
            other => {
                known(other)?;
            }
        }
        let chain = Chain::open(
            path,
            &ChainOptions {
                format: Some(self.format),
                write: true,
                durable,
                backing,
                ..ChainOptions::default()
            },
        )
        .map_err(Failure::from)?;
        if self.format == FileFormat::Raw {
            chain.resize(size, preallocation)?;
        }
        Ok((chain, files))
    }
}

pub const NOT_A_SIZE: &str = "a non-negative number below 2^64\n\
    Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
    and exabytes, respectively.";

pub fn on_off(text: &str) -> Option<&'static str> {
    match text {
        "on" | "yes" | "true" | "y" => Some("on"),
        "off" | "no" | "false" | "n" => Some("off"),
        _ => None,
    }
}

pub fn preallocation(name: &str) -> Option<Preallocation> {
    [
        Preallocation::Off,
        Preallocation::Metadata,
        Preallocation::Falloc,
        Preallocation::Full,
    ]
    .into_iter()
    .find(|mode| mode.name() == name)
}

/// The size of an image, with QEMU's words for what is none.
pub fn image_size(text: &str) -> Result<u64, Failure> {
    names::count(text, "image size", 0, MAX_SIZE)
}

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        value('o', "options"),
        value('b', "backing"),
        value('F', "backing-format"),
        switch('u', "backing-unsafe"),
        QUIET,
        OBJECT,
    ];
    let arguments = parse("create", &flags, words)?;
    names::no_objects(&arguments)?;
    let by_name = arguments.get("format").unwrap_or("raw");
    if asks_for_help(arguments.all("options")) {
        session.print(&options_help(names::format(by_name)?, false)?);
        return Ok(0);
    }
    let (file, size) = match &arguments.names[..] {
        [] => return Err(Failure::usage("Expecting image file name")),
        [file] => (file, None),
        [file, size] => (file, Some(image_size(size)?)),
        [_, _, more, ..] => {
            return Err(Failure::usage(format!("Unexpected argument: {more}")));
        }
    };
    create(session, &arguments, by_name, file, size).map_err(|failure| failure.about(file))?;
    Ok(0)
}

fn create(
    session: &Session,
    arguments: &Arguments,
    format: &str,
    file: &str,
    size: Option<u64>,
) -> Result<(), Failure> {
    let format = names::format(format)?;
    let path = names::protocol_free(file)
        .map_err(|protocol| Failure::message(format!("Unknown protocol '{protocol}'")))?;
    let path = Path::new(path);
    let mut wanted = Wanted::new(format, arguments.all("options"))?;
    for (option, key) in [
        ("backing", "backing_file"),
        ("backing-format", "backing_fmt"),
    ] {
        if let Some(value) = arguments.get(option) {
            if format == FileFormat::Raw {
                return Err(Failure::message(match key {
                    "backing_file" => "Backing file not supported for file format 'raw'",
                    _ => "Backing format not supported for file format 'raw'",
                }));
            }
            wanted.set(key, value)?;
        }
    }
    if let Some(size) = size {
        wanted.set("size", &size.to_string())?;
    }
    let size = match backing(&wanted, path, arguments.has("backing-unsafe"))? {
        Some(below) if wanted.get("size").is_none() => {
            wanted.set("size", &below.to_string())?;
            below
        }
        _ => {
            let size = wanted.get("size").and_then(|size| size.parse().ok());
            size.ok_or_else(|| Failure::message("Image creation needs a size parameter"))?
        }
    };
    if !arguments.has("quiet") {
        session.print(&format!("Formatting '{file}', {}\n", wanted.describe()));
    }
    // Nobody waits for a new image to reach the drive; what is put into it will.
    wanted
        .create(path, size, false, false)
        .map_err(|failure| match failure {
            // QEMU names the format here.
            Failure::Message(text) => Failure::Message(text.replace(
                "image size is too large (",
                &format!("image size is too large for file format '{format}' ("),
            )),
            other => other,
        })?;
    Ok(())
}

/// Looks at the backing file that a new image at `path` is to have: the bytes of its disk.
fn backing(wanted: &Wanted, path: &Path, unseen: bool) -> Result<Option<u64>, Failure> {
    let Some(name) = wanted.get("backing_file").filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let format =
        match wanted.get("backing_fmt") {
            None => None,
            Some(format) => Some(format.parse().map_err(|_| {
                Failure::message(format!("Unknown backing file format '{format}'"))
            })?),
        };
    let below = names::backing_path(path, name);
    if below == path {
        return Err(Failure::message(
            "Error: Trying to create an image with the same filename as the backing file",
        ));
    }
    let no_format = "Backing file specified without backing format";
    if unseen {
        return match format {
            None => Err(Failure::message(no_format)),
            Some(_) => Ok(None),
        };
    }
    let options = ChainOptions {
        format,
        ..ChainOptions::default()
    };
    let chain = Chain::open(&below, &options)
        .map_err(|error| Failure::message(format!("{error}\nCould not open backing image.")))?;
    if format.is_none() {
        return Err(Failure::message(format!(
            "{no_format}\nDetected format of {}.",
            chain.top().format
        )));
    }
    Ok(Some(chain.size()))
}

impl From<Wrong> for Failure {
    fn from(_: Wrong) -> Failure {
        Failure::message(NOT_A_SIZE)
    }
}
