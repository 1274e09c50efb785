//! How images, formats and options are named on the command line.

use crate::arguments::{Arguments, Flag, long_switch, long_value, switch, value};
use crate::session::{Failure, Session};
use std::path::{Path, PathBuf};
use storage::format::{Chain, ChainOptions, FileFormat, FormatError};
use storage::{Locking, OpenError};

pub const FORMAT: Flag = value('f', "format");
pub const IMAGE_OPTS: Flag = long_switch("image-opts");
pub const SHARE: Flag = switch('U', "force-share");
pub const QUIET: Flag = switch('q', "quiet");
pub const PROGRESS: Flag = switch('p', "progress");
pub const OBJECT: Flag = long_value("object");
pub const OUTPUT: Flag = long_value("output");

/// A format by name.
pub fn format(name: &str) -> Result<FileFormat, Failure> {
    name.parse()
        .map_err(|_| Failure::message(unknown_format(name)))
}

/// Formats that QEMU has and this program has not are told from those that nobody has.
pub fn unknown_format(name: &str) -> String {
    const OTHERS: &[&str] = &[
        "bochs",
        "cloop",
        "dmg",
        "luks",
        "parallels",
        "qcow",
        "qed",
        "vdi",
        "vvfat",
        "nbd",
        "host_device",
    ];
    if OTHERS.contains(&name) {
        format!("Images of format '{name}' are not supported")
    } else {
        format!("Unknown file format '{name}'")
    }
}

/// Refuses what is given to objects: secrets, mostly, for encryption.
pub fn no_objects(arguments: &Arguments) -> Result<(), Failure> {
    match arguments.get("object") {
        None => Ok(()),
        Some(object) => Err(Failure::message(format!(
            "--object {object}: objects are not supported, and with them encryption and throttling"
        ))),
    }
}

/// The cache modes: what they change is whether a command waits for the drive.
pub fn durable(
    arguments: &Arguments,
    option: &str,
    default: bool,
    what: &str,
) -> Result<bool, Failure> {
    match arguments.get(option) {
        None => Ok(default),
        Some("unsafe") => Ok(false),
        Some("writeback" | "writethrough" | "none" | "off" | "directsync") => Ok(true),
        Some(other) => Err(Failure::message(format!("Invalid {what} option: {other}"))),
    }
}

/// `human` or `json`.
pub fn json(arguments: &Arguments) -> Result<bool, Failure> {
    match arguments.get("output") {
        None | Some("human") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(Failure::usage(format!(
            "--output expects 'human' or 'json' not '{other}'"
        ))),
    }
}

/// The one image that a verb works on.
pub fn one(arguments: &Arguments) -> Result<&str, Failure> {
    match &arguments.names[..] {
        [name] => Ok(name),
        _ => Err(Failure::usage("Expecting one image file name")),
    }
}

/// The options of images that are only read.
pub fn reading(arguments: &Arguments) -> ChainOptions {
    ChainOptions {
        locking: if arguments.has("force-share") {
            Locking::Off
        } else {
            Locking::Auto
        },
        ..ChainOptions::default()
    }
}

/// An image as it was named: by a file name and perhaps a format, or by options.
pub struct Named {
    pub path: PathBuf,
    pub format: Option<FileFormat>,
    /// As the user wrote it.
    pub name: String,
    share: bool,
}

impl Named {
    /// `format` is the name of the option that says the format.
    pub fn new(arguments: &Arguments, name: &str, format: &str) -> Result<Named, Failure> {
        let format = arguments.get(format);
        if arguments.has("image-opts") {
            if format.is_some() {
                return Err(Failure::message(
                    "--image-opts and --format are mutually exclusive",
                ));
            }
            return Named::by_options(name);
        }
        Ok(Named {
            path: path(name)?,
            format: format.map(self::format).transpose()?,
            name: name.into(),
            share: false,
        })
    }

    /// `driver=qcow2,file.filename=…`.
    pub fn by_options(text: &str) -> Result<Named, Failure> {
        let failed =
            |reason: String| Failure::message(format!("Could not open '{text}': {reason}"));
        let mut named = Named {
            path: PathBuf::new(),
            format: None,
            name: text.into(),
            share: false,
        };
        for (key, value) in pairs(text) {
            match (key.as_str(), value.as_str()) {
                ("driver", "file") => named.format = Some(FileFormat::Raw),
                ("driver", name) => {
                    named.format = Some(name.parse().map_err(|_| {
                        failed(match unknown_format(name) {
                            known if known.starts_with("Images") => known,
                            _ => format!("Unknown driver '{name}'"),
                        })
                    })?);
                }
                ("file.filename" | "filename" | "file.file.filename", name) => {
                    named.path = path(name)?;
                    named.name = name.into();
                }
                ("file.driver" | "file.file.driver", "file" | "host_device") => {}
                ("file.driver", "raw") => {}
                ("force-share", value) => {
                    named.share = matches!(value, "on" | "true" | "yes" | "y")
                }
                ("read-only", "on" | "off") | ("file.locking", "auto") => {}
                (key, value) => {
                    return Err(failed(format!("option '{key}={value}' is not supported")));
                }
            }
        }
        if named.path.as_os_str().is_empty() {
            return Err(failed(
                "A block device must be specified for \"file\"".into(),
            ));
        }
        Ok(named)
    }

    pub fn open(&self, options: &ChainOptions) -> Result<Chain, OpenError> {
        let mut options = *options;
        options.format = self.format;
        if self.share {
            options.locking = Locking::Off;
        }
        Chain::open(&self.path, &options)
    }

    /// Opens for writing, with a word if that is dangerous.
    pub fn open_to_write(
        &self,
        session: &Session,
        options: &ChainOptions,
    ) -> Result<Chain, Failure> {
        let options = ChainOptions {
            write: true,
            ..*options
        };
        let chain = self.open(&options)?;
        if chain.top().guessed_raw {
            warn_of_guess(session, &self.name);
        }
        Ok(chain)
    }
}

/// As QEMU warns.
pub fn warn_of_guess(session: &Session, name: &str) {
    session.error(&format!(
        "WARNING: Image format was not specified for '{name}' and probing guessed raw.\n         \
         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n         \
         Specify the 'raw' format explicitly to remove the restrictions.\n"
    ));
}

/// A file name; protocols other than `file` are refused.
pub fn path(name: &str) -> Result<PathBuf, Failure> {
    protocol_free(name).map(PathBuf::from).map_err(|protocol| {
        Failure::message(format!(
            "Could not open '{name}': Unknown protocol '{protocol}'"
        ))
    })
}

/// The name without `file:`, or the protocol that it names.
pub fn protocol_free(name: &str) -> Result<&str, String> {
    if let Some(rest) = name.strip_prefix("file:") {
        return Ok(rest);
    }
    match name.split_once(':') {
        Some((protocol, _)) if !protocol.contains('/') => Err(protocol.into()),
        _ => Ok(name),
    }
}

/// `key=value,…`, with commas in values doubled. A key alone is `on`.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut item = String::new();
        loop {
            match rest.find(',') {
                None => {
                    item.push_str(rest);
                    rest = "";
                    break;
                }
                Some(at) if rest[at + 1..].starts_with(',') => {
                    item.push_str(&rest[..=at]);
                    rest = &rest[at + 2..];
                }
                Some(at) => {
                    item.push_str(&rest[..at]);
                    rest = &rest[at + 1..];
                    break;
                }
            }
        }
        if item.is_empty() {
            continue;
        }
        found.push(match item.split_once('=') {
            Some((key, value)) => (key.to_string(), value.to_string()),
            None => (item, "on".into()),
        });
    }
    found
}

/// A snapshot as `-l` names it: `snapshot.id=`, `snapshot.name=`, or either.
pub fn show_snapshot(chain: &Chain, text: &str) -> Result<(), Failure> {
    let failed = |reason: String| Failure::message(format!("Failed to load snapshot: {reason}"));
    let image = chain.top().qcow2().ok_or_else(|| {
        failed(format!(
            "Block format '{}' used by device '' does not support temporarily loading internal snapshots",
            chain.top().format
        ))
    })?;
    let (mut id, mut name) = (None, None);
    if text.starts_with("snapshot.") {
        for (key, value) in pairs(text) {
            match key.as_str() {
                "snapshot.id" => id = Some(value),
                "snapshot.name" => name = Some(value),
                other => return Err(Failure::message(format!("Invalid parameter '{other}'"))),
            }
        }
    }
    let wanted = image
        .snapshots()
        .into_iter()
        .find(|snapshot| match (&id, &name) {
            (None, None) => snapshot.id == text || snapshot.name == text,
            (id, name) => {
                id.as_ref().is_none_or(|id| *id == snapshot.id)
                    && name.as_ref().is_none_or(|name| *name == snapshot.name)
            }
        });
    let wanted = wanted.ok_or_else(|| failed("Can't find snapshot".into()))?;
    match image.show_snapshot(&wanted.id) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("Can't find snapshot".into())),
        Err(FormatError::Interrupted) => Err(Failure::Interrupted),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// A decimal number within bounds, with QEMU's words for what is not.
pub fn count(text: &str, what: &str, least: u64, most: u64) -> Result<u64, Failure> {
    use crate::number::{Wrong, size};
    let between = || {
        Failure::message(format!(
            "Invalid {what} specified. Must be between {least} and {most}."
        ))
    };
    // A sign is a number all the same, and out of bounds.
    if text
        .strip_prefix('-')
        .is_some_and(|rest| size(rest).is_ok())
    {
        return Err(between());
    }
    match size(text) {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        Ok(_) | Err(Wrong::TooLarge) => Err(between()),
        Err(Wrong::Invalid) => Err(Failure::message(format!(
            "Invalid {what} specified: '{text}'."
        ))),
    }
}

/// The full name of what an image at `path` calls its backing file.
pub fn backing_path(path: &Path, name: &str) -> PathBuf {
    let name = name.strip_prefix("file:").unwrap_or(name);
    path.parent().unwrap_or(Path::new("")).join(name)
}
