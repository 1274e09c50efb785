//! Block nodes as `-blockdev` and `blockdev-add` describe them (QEMU QMP Reference Manual, `BlockdevOptions`).
//!
//! JSON types are strict; on the command line everything is a text, and `file.filename=` is a member of a member.

use std::str::FromStr;

use machine::description::{Node, NodeDriver, NodeFile};
use serde_json::{Map, Value};
use storage::{DetectZeroes, Discard, Format, Locking};

use crate::keyval::parse_bool;

/// Members of members of members: more are nothing that is known.
const DEEPEST: usize = 6;
const LONGEST_NAME: usize = 31;

/// Drivers of QEMU's that are not here.
const OTHER_DRIVERS: [&str; 37] = [
    "blkdebug",
    "blklogwrites",
    "blkreplay",
    "blkverify",
    "bochs",
    "cloop",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "curl",
    "dmg",
    "ftp",
    "ftps",
    "gluster",
    "host_cdrom",
    "http",
    "https",
    "io_uring",
    "iscsi",
    "luks",
    "nbd",
    "nfs",
    "null-aio",
    "null-co",
    "nvme",
    "parallels",
    "preallocate",
    "qcow",
    "qed",
    "quorum",
    "rbd",
    "ssh",
    "throttle",
    "vdi",
    "vhdx",
    "vmdk",
    "vpc",
];

/// Options of QEMU's that are not here, by driver; empty: of all.
const OTHER_OPTIONS: &[(&str, &[&str])] = &[
    ("raw", &["offset", "size"]),
    (
        "file",
        &[
            "aio-max-batch",
            "drop-cache",
            "pr-manager",
            "x-check-cache-dropped",
        ],
    ),
    (
        "qcow2",
        &[
            "backing",
            "cache-clean-interval",
            "cache-size",
            "data-file",
            "discard-no-unref",
            "encrypt",
            "l2-cache-entry-size",
            "l2-cache-size",
            "lazy-refcounts",
            "overlap-check",
            "pass-discard-other",
            "pass-discard-request",
            "pass-discard-snapshot",
            "refcount-cache-size",
        ],
    ),
];

/// Reads `-blockdev`'s argument: JSON, or `key=value,...`.
///
/// # Errors
/// In QEMU's words.
pub fn parse(text: &str) -> Result<Node, String> {
    if text.starts_with('{') {
        let value =
            serde_json::from_str(text).map_err(|error| format!("JSON parse error, {error}"))?;
        return root(&value);
    }
    node(&Value::Object(members(text)?), "", None, true).and_then(named)
}

/// Reads `blockdev-add`'s arguments.
///
/// # Errors
/// In QEMU's words.
pub fn root(value: &Value) -> Result<Node, String> {
    node(value, "", None, false).and_then(named)
}

/// The names that a node was given, and the file inside it.
pub fn names(node: &Node) -> impl Iterator<Item = &str> {
    let inside = match &node.driver {
        NodeDriver::Format {
            file: NodeFile::Inside(file),
            ..
        } => file.name.as_deref(),
        _ => None,
    };
    [node.name.as_deref(), inside].into_iter().flatten()
}

fn named(node: Node) -> Result<Node, String> {
    match node.name {
        None => Err("'node-name' must be specified for the root node".into()),
        Some(_) => Ok(node),
    }
}

/// `a.b=c,...` as objects in each other; `,,` is a comma.
fn members(text: &str) -> Result<Map<String, Value>, String> {
    let mut all = Map::new();
    // No file's name has a NUL.
    let parts = text.replace(",,", "\0");
    for (n, part) in parts.split(',').enumerate() {
        let part = part.replace('\0', ",");
        let (key, value) = match part.split_once('=') {
            Some(both) => both,
            None if n == 0 => ("driver", part.as_str()),
            None => return Err(format!("Expected '=' after parameter '{part}'")),
        };
        let names: Vec<&str> = key.split('.').collect();
        if names.len() > DEEPEST || names.contains(&"") {
            return Err(format!("Invalid parameter '{key}'"));
        }
        let mut object = &mut all;
        for (depth, name) in names.iter().enumerate() {
            let so_far = || names[..=depth].join(".");
            if depth + 1 == names.len() {
                if object.get(*name).is_some_and(Value::is_object) {
                    return Err(format!("Parameters '{}.*' used inconsistently", so_far()));
                }
                object.insert(name.to_string(), value.into());
                break;
            }
            let member = object
                .entry(name.to_string())
                .or_insert_with(|| Value::Object(Map::new()));
            object = match member {
                Value::Object(inner) => inner,
                _ => return Err(format!("Parameters '{}.*' used inconsistently", so_far())),
            };
        }
    }
    Ok(all)
}

/// An object whose members are taken one by one.
struct Members<'a> {
    object: &'a Map<String, Value>,
    taken: Vec<&'a str>,
    /// Of the members' names, for messages.
    prefix: String,
    /// Everything is a text.
    texts: bool,
}

impl<'a> Members<'a> {
    fn new(value: &'a Value, prefix: &str, texts: bool) -> Result<Members<'a>, String> {
        let Some(object) = value.as_object() else {
            let name = prefix.trim_end_matches('.');
            return Err(format!(
                "Invalid parameter type for '{name}', expected: object"
            ));
        };
        Ok(Members {
            object,
            taken: Vec::new(),
            prefix: prefix.into(),
            texts,
        })
    }

    fn take(&mut self, key: &str) -> Option<&'a Value> {
        let (name, value) = self.object.get_key_value(key)?;
        self.taken.push(name);
        Some(value)
    }

    fn wrong_type(&self, key: &str, expected: &str) -> String {
        let prefix = &self.prefix;
        format!("Invalid parameter type for '{prefix}{key}', expected: {expected}")
    }

    fn missing(&self, key: &str) -> String {
        format!("Parameter '{}{key}' is missing", self.prefix)
    }

    fn text(&mut self, key: &str) -> Result<Option<&'a str>, String> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.wrong_type(key, "string"));
        match self.object.get_key_value(key) {
            None => Ok(None),
            Some((name, value)) => {
                let text = text(value)?;
                self.taken.push(name);
                Ok(Some(text))
            }
        }
    }

    fn switch(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(*on)),
            Some(Value::String(text)) if self.texts => {
                let name = format!("{}{key}", self.prefix);
                parse_bool(&name, text)
                    .map(Some)
                    .map_err(|error| error.to_string())
            }
            Some(_) => Err(self.wrong_type(key, "boolean")),
        }
    }

    fn word<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, String> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let wrong = |_| format!("Parameter '{key}' does not accept value '{text}'");
        text.parse().map(Some).map_err(wrong)
    }

    /// Nothing may be left.
    fn finish(&self, driver: &str) -> Result<(), String> {
        let left = self
            .object
            .keys()
            .find(|k| !self.taken.contains(&k.as_str()));
        let Some(key) = left else { return Ok(()) };
        let of = |(whose, options): &&(&str, &[&str])| {
            *whose == driver && options.contains(&key.as_str())
        };
        let name = format!("{}{key}", self.prefix);
        Err(match OTHER_OPTIONS.iter().find(of) {
            Some(_) => format!("Dormer does not have the option '{name}' of block nodes"),
            None => format!("Parameter '{name}' is unexpected"),
        })
    }
}

/// A node, or the file inside `above`, which then has its options where it says nothing else.
fn node(value: &Value, prefix: &str, above: Option<&Node>, texts: bool) -> Result<Node, String> {
    let mut members = Members::new(value, prefix, texts)?;
    let driver = members
        .text("driver")?
        .ok_or_else(|| members.missing("driver"))?;
    let driver = match driver {
        "host_device" => "file",
        known @ ("file" | "raw" | "qcow2") => known,
        other if OTHER_DRIVERS.contains(&other) => {
            return Err(format!("Dormer does not have the block driver '{other}'"));
        }
        other => {
            return Err(format!(
                "Parameter '{prefix}driver' does not accept value '{other}'"
            ));
        }
    };
    let name = members.text("node-name")?;
    if let Some(name) = name {
        check_name(name)?;
    }
    let mut cache = (
        above.is_some_and(|node| node.direct),
        above.is_some_and(|node| node.no_flush),
    );
    if let Some(value) = members.take("cache") {
        let mut inner = Members::new(value, &format!("{prefix}cache."), texts)?;
        cache.0 = inner.switch("direct")?.unwrap_or(cache.0);
        cache.1 = inner.switch("no-flush")?.unwrap_or(cache.1);
        inner.finish("cache")?;
    }
    let read_only = members.switch("read-only")?;
    let auto_read_only = members.switch("auto-read-only")?;
    // What the image passes on is wanted.
    let discard = match above {
        Some(_) => Discard::Unmap,
        None => Discard::Ignore,
    };
    let mut node = Node {
        name: name.map(String::from),
        read_only: read_only.unwrap_or(above.is_some_and(|node| node.read_only)),
        auto_read_only: auto_read_only.unwrap_or(above.is_some_and(|node| node.auto_read_only)),
        direct: cache.0,
        no_flush: cache.1,
        discard: members.word("discard")?.unwrap_or(discard),
        detect_zeroes: members.word("detect-zeroes")?.unwrap_or_default(),
        driver: NodeDriver::File {
            filename: Default::default(),
            locking: Locking::Auto,
        },
    };
    if node.detect_zeroes == DetectZeroes::Unmap && node.discard != Discard::Unmap {
        return Err(
            "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap"
                .into(),
        );
    }
    if members.switch("force-share")? == Some(true) {
        return Err(match node.read_only {
            true => "Dormer does not have force-share=on for block nodes".into(),
            false => "force-share=on can only be used with read-only images".into(),
        });
    }
    node.driver = match driver {
        "file" => {
            let filename = members.text("filename")?;
            let filename = filename.ok_or_else(|| members.missing("filename"))?;
            // Threads or io_uring are ours to choose.
            match members.text("aio")? {
                None | Some("threads" | "io_uring") => {}
                Some("native") if node.direct => {}
                Some("native") => {
                    return Err(
                        "aio=native was specified, but it requires cache.direct=on, which was not specified."
                            .into(),
                    );
                }
                Some(other) => {
                    return Err(format!("Parameter 'aio' does not accept value '{other}'"));
                }
            }
            NodeDriver::File {
                filename: filename.into(),
                locking: members.word("locking")?.unwrap_or_default(),
            }
        }
        _ => {
            let file = match members.take("file") {
                None => return Err(members.missing("file")),
                Some(Value::String(name)) => NodeFile::Named(name.clone()),
                Some(value @ Value::Object(_)) => {
                    let inner = self::node(value, &format!("{prefix}file."), Some(&node), texts);
                    NodeFile::Inside(Box::new(inner?))
                }
                Some(_) => return Err(members.wrong_type("file", "BlockdevRef")),
            };
            let backing = |value: &&Value| value.is_null() || value.as_str() == Some("");
            let alone =
                driver == "qcow2" && members.object.get("backing").as_ref().is_some_and(backing);
            if alone {
                members.take("backing");
            }
            NodeDriver::Format {
                format: driver.parse().unwrap_or(Format::Raw),
                file,
                alone,
            }
        }
    };
    members.finish(driver)?;
    Ok(node)
}

/// A letter, then letters, digits, `-`, `.` and `_`.
fn check_name(name: &str) -> Result<(), String> {
    let letter = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if !letter || !name.chars().all(rest) {
        return Err(format!("Invalid node-name: '{name}'"));
    }
    if name.len() > LONGEST_NAME {
        return Err("Node name too long".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn file(filename: &str) -> Node {
        Node {
            name: None,
            driver: NodeDriver::File {
                filename: filename.into(),
                locking: Locking::Auto,
            },
            read_only: false,
            auto_read_only: false,
            direct: false,
            no_flush: false,
            discard: Discard::Unmap,
            detect_zeroes: DetectZeroes::Off,
        }
    }

    fn image(name: &str, format: Format, file: NodeFile) -> Node {
        Node {
            name: Some(name.into()),
            driver: NodeDriver::Format {
                format,
                file,
                alone: false,
            },
            discard: Discard::Ignore,
            ..self::file("")
        }
    }

    #[test]
    fn texts_and_json_say_the_same() {
        let inside = image("n", Format::Qcow2, NodeFile::Inside(Box::new(file("a,b"))));
        assert_eq!(
            parse("driver=qcow2,node-name=n,file.driver=file,file.filename=a,,b").as_ref(),
            Ok(&inside)
        );
        assert_eq!(
            parse("qcow2,file.driver=file,file.filename=a,,b,node-name=n").as_ref(),
            Ok(&inside)
        );
        let value = json!({ "driver": "qcow2", "node-name": "n", "file": { "driver": "file", "filename": "a,b" } });
        assert_eq!(parse(&value.to_string()).as_ref(), Ok(&inside));
        assert_eq!(root(&value), Ok(inside));
        let named = image("n", Format::Raw, NodeFile::Named("f".into()));
        assert_eq!(parse("raw,node-name=n,file=f"), Ok(named));
    }

    #[test]
    fn files_have_the_options_of_what_is_above_them() {
        let node = parse(
            "raw,node-name=n,read-only=on,cache.direct=on,file.cache.no-flush=on,file.driver=file,file.filename=a,\
             file.aio=native,file.locking=off,discard=unmap,detect-zeroes=unmap",
        )
        .unwrap();
        let NodeDriver::Format {
            file: NodeFile::Inside(file),
            ..
        } = &node.driver
        else {
            panic!("{node:?}")
        };
        assert!(node.direct && !node.no_flush && node.read_only);
        assert!(file.direct && file.no_flush && file.read_only);
        assert_eq!(
            (node.discard, file.discard),
            (Discard::Unmap, Discard::Unmap)
        );
        assert_eq!(node.detect_zeroes, DetectZeroes::Unmap);
        assert_eq!(file.detect_zeroes, DetectZeroes::Off);
        let node = parse("qcow2,node-name=n,file=f,backing=").unwrap();
        assert!(matches!(
            node.driver,
            NodeDriver::Format { alone: true, .. }
        ));
        let null = json!({ "driver": "qcow2", "node-name": "n", "file": "f", "backing": null });
        assert_eq!(root(&null), Ok(node));
    }

    /// As QEMU 10.0 has them, but for those that name Dormer.
    #[test]
    fn errors() {
        let a = "file.driver=file,file.filename=a";
        for (text, error) in [
            (format!("node-name=x,{a}"), "Parameter 'driver' is missing"),
            (
                format!("driver=raw,{a}"),
                "'node-name' must be specified for the root node",
            ),
            (
                format!("raw,node-name=x,{a},foo=1"),
                "Parameter 'foo' is unexpected",
            ),
            (
                format!("raw,node-name=x,{a},file.foo=1"),
                "Parameter 'file.foo' is unexpected",
            ),
            (
                format!("raw,node-name=x,{a},locking=on"),
                "Parameter 'locking' is unexpected",
            ),
            (
                format!("raw,node-name=x,{a},read-only"),
                "Expected '=' after parameter 'read-only'",
            ),
            (
                format!("raw,node-name=x,{a},read-only=x"),
                "Parameter 'read-only' expects 'on' or 'off'",
            ),
            (
                format!("raw,node-name=x,{a},force-share=on"),
                "force-share=on can only be used with read-only images",
            ),
            (
                format!("raw,node-name=x,{a},file.locking=foo"),
                "Parameter 'locking' does not accept value 'foo'",
            ),
            (
                format!("raw,node-name=x,{a},file.driver.foo=1"),
                "Parameters 'file.driver.*' used inconsistently",
            ),
            (
                format!("raw,node-name=x,file=f,{a}"),
                "Parameters 'file.*' used inconsistently",
            ),
            (
                format!("raw,node-name=x,{a},file=f"),
                "Parameters 'file.*' used inconsistently",
            ),
            (format!("raw,node-name=1x,{a}"), "Invalid node-name: '1x'"),
            (
                format!("raw,node-name={},{a}", "x".repeat(32)),
                "Node name too long",
            ),
            (
                format!("raw,node-name=x,{a},file.aio=native"),
                "aio=native was specified, but it requires cache.direct=on, which was not specified.",
            ),
            (
                format!("raw,node-name=x,{a},discard=x"),
                "Parameter 'discard' does not accept value 'x'",
            ),
            (
                format!("raw,node-name=x,{a},detect-zeroes=unmap"),
                "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
            ),
            (
                format!("raw,node-name=x,{a},offset=1"),
                "Dormer does not have the option 'offset' of block nodes",
            ),
            (
                format!("qcow2,node-name=x,{a},backing=y"),
                "Dormer does not have the option 'backing' of block nodes",
            ),
            (
                "bad".into(),
                "Parameter 'driver' does not accept value 'bad'",
            ),
            (
                "nbd,node-name=x".into(),
                "Dormer does not have the block driver 'nbd'",
            ),
            ("raw,node-name=x".into(), "Parameter 'file' is missing"),
            (
                "raw,node-name=x,file.driver=file".into(),
                "Parameter 'file.filename' is missing",
            ),
            (
                "raw,node-name=x,a.b.c.d.e.f.g=1".into(),
                "Invalid parameter 'a.b.c.d.e.f.g'",
            ),
            (
                "{\"driver\":".into(),
                "JSON parse error, EOF while parsing a value at line 1 column 10",
            ),
        ] {
            assert_eq!(parse(&text), Err(error.to_string()), "{text}");
        }
        let inside = json!({ "driver": "file", "filename": "a" });
        for (key, value, error) in [
            (
                "read-only",
                json!("on"),
                "Invalid parameter type for 'read-only', expected: boolean",
            ),
            (
                "file",
                json!(5),
                "Invalid parameter type for 'file', expected: BlockdevRef",
            ),
            (
                "cache",
                json!(true),
                "Invalid parameter type for 'cache', expected: object",
            ),
            (
                "cache",
                json!({ "foo": true }),
                "Parameter 'cache.foo' is unexpected",
            ),
            (
                "file",
                json!({ "filename": "a" }),
                "Parameter 'file.driver' is missing",
            ),
        ] {
            let mut value_of = json!({ "driver": "raw", "node-name": "x", "file": inside });
            value_of[key] = value;
            assert_eq!(root(&value_of), Err(error.to_string()), "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "\\PC*", key in "[a-z.-]{0,12}", value in "\\PC{0,8}") {
            let _ = parse(&text);
            let _ = parse(&format!("raw,node-name=x,{key}={value},file.{key}={value}"));
            let _ = parse(&format!("{{\"driver\":\"raw\",{key:?}:{value:?}}}"));
        }
    }
}
