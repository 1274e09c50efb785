//! `info`.

use crate::arguments::switch;
use crate::json::Json;
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, OUTPUT, SHARE};
use crate::number::human;
use crate::parse;
use crate::session::{Failure, Session};
use crate::snapshot;
use storage::format::{Chain, ChainLayer, ChainOptions, Node};
use storage::qcow2::Qcow2;

pub const USAGE: &str =
    "[-f FORMAT | --image-opts] [-b|--backing-chain] [-U] [--output human|json] FILE";

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        switch('b', "backing-chain"),
        SHARE,
        OUTPUT,
        OBJECT,
    ];
    let arguments = parse("info", &flags, words)?;
    names::no_objects(&arguments)?;
    let json = names::json(&arguments)?;
    let name = names::one(&arguments)?;
    let named = Named::new(&arguments, name, "format")?;
    let whole = arguments.has("backing-chain");
    let options = ChainOptions {
        damaged: true,
        backing: whole,
        ..names::reading(&arguments)
    };
    let chain = named.open(&options).map_err(|error| match error {
        storage::OpenError::Backing { error, .. } => Failure::from(*error),
        other => other.into(),
    })?;
    let found: Vec<Described> = chain
        .layers
        .iter()
        .map(|layer| Described::of(layer, layer_name(&chain, layer, &named.name)))
        .collect();
    if json {
        let all: Vec<Json> = found.iter().map(Described::json).collect();
        let value = if whole {
            Json::List(all)
        } else {
            all.into_iter().next().unwrap_or(Json::List(vec![]))
        };
        session.print(&format!("{}\n", value.pretty()));
    } else {
        let all: Vec<String> = found.iter().map(Described::text).collect();
        session.print(&all.join("\n"));
    }
    Ok(0)
}

/// The top layer is called what the user called it.
fn layer_name(chain: &Chain, layer: &ChainLayer, given: &str) -> String {
    if std::ptr::eq(chain.top(), layer) {
        given.strip_prefix("file:").unwrap_or(given).into()
    } else {
        layer.path.display().to_string()
    }
}

/// A file that an image consists of.
struct Part {
    name: String,
    file: String,
    length: u64,
    allocated: u64,
}

struct Described<'a> {
    layer: &'a ChainLayer,
    name: String,
    parts: Vec<Part>,
}

impl Described<'_> {
    fn of(layer: &ChainLayer, name: String) -> Described<'_> {
        let mut parts = Vec::new();
        if let Node::Vmdk(image) = &layer.node {
            for (index, extent) in image.extents().iter().enumerate().rev() {
                if extent.kind.is_empty() || extent.path == layer.path {
                    continue;
                }
                if let Ok(metadata) = std::fs::metadata(&extent.path) {
                    use std::os::unix::fs::MetadataExt;
                    parts.push(Part {
                        name: format!("extents.{index}"),
                        file: extent.path.display().to_string(),
                        length: metadata.len(),
                        allocated: metadata.blocks() * 512,
                    });
                }
            }
        }
        parts.push(Part {
            name: "file".into(),
            file: name.clone(),
            length: layer.host.length().unwrap_or(0).next_multiple_of(512),
            allocated: layer.host.allocated().unwrap_or(0),
        });
        Described { layer, name, parts }
    }

    /// Bytes of the unit of allocation, where QEMU shows it.
    fn cluster_size(&self) -> Option<u64> {
        self.layer.node.source().cluster_size()
    }

    fn allocated(&self) -> u64 {
        self.parts.iter().map(|part| part.allocated).sum()
    }

    fn backing(&self) -> Option<(String, String)> {
        let name = self.layer.qcow2()?.backing_file()?;
        let full = names::backing_path(&self.layer.path, &name);
        Some((name, full.display().to_string()))
    }

    fn text(&self) -> String {
        let size = self.layer.node.source().size();
        let mut text = format!(
            "image: {}\nfile format: {}\nvirtual size: {} ({size} bytes)\ndisk size: {}\n",
            self.name,
            self.layer.format,
            human(size),
            human(self.allocated())
        );
        if let Some(bytes) = self.cluster_size() {
            text += &format!("cluster_size: {bytes}\n");
        }
        if let Some(image) = self.layer.qcow2() {
            if image.marked_dirty() {
                text += "cleanly shut down: no\n";
            }
            if let Some((name, full)) = self.backing() {
                text += &format!("backing file: {name}");
                if name != full {
                    text += &format!(" (actual path: {full})");
                }
                text += "\n";
                if let Some(format) = image.backing_format() {
                    text += &format!("backing file format: {format}\n");
                }
            }
            let snapshots = image.snapshots();
            if !snapshots.is_empty() {
                text += &format!("Snapshot list:\n{}", snapshot::table(&snapshots));
            }
        }
        let specific = self.specific();
        if !specific.is_empty() {
            text += "Format specific information:\n";
            for (key, value) in &specific {
                write_specific(&mut text, 1, key, value);
            }
        }
        for part in &self.parts {
            text += &format!(
                "Child node '/{}':\n    filename: {}\n    protocol type: file\n    file length: {} ({} bytes)\n    \
                 disk size: {}\n",
                part.name,
                part.file,
                human(part.length),
                part.length,
                human(part.allocated)
            );
        }
        text
    }

    fn specific(&self) -> Vec<(&'static str, Json)> {
        match &self.layer.node {
            Node::Qcow2(image) => qcow2_specific(image),
            Node::Vmdk(image) => {
                let extents = image.extents().iter().map(|extent| {
                    let mut members = Vec::new();
                    if extent.compressed {
                        members.push(("compressed", Json::Bool(true)));
                    }
                    members.push(("virtual-size", Json::Number(extent.size)));
                    members.push(("filename", Json::text(extent.path.display().to_string())));
                    if let Some(grain) = extent.grain {
                        members.push(("cluster-size", Json::Number(grain)));
                    }
                    members.push(("format", Json::text(&extent.kind)));
                    Json::Object(members)
                });
                vec![
                    ("cid", Json::Number(image.cid.into())),
                    ("parent-cid", Json::Number(image.parent_cid.into())),
                    ("create-type", Json::text(&image.create_type)),
                    ("extents", Json::List(extents.collect())),
                ]
            }
            _ => Vec::new(),
        }
    }

    fn json(&self) -> Json {
        let children = self.parts.iter().map(|part| {
            let info = vec![
                ("children", Json::List(vec![])),
                ("virtual-size", Json::Number(part.length)),
                ("filename", Json::text(&part.file)),
                ("format", Json::text("file")),
                ("actual-size", Json::Number(part.allocated)),
                (
                    "format-specific",
                    Json::Object(vec![
                        ("type", Json::text("file")),
                        ("data", Json::Object(vec![])),
                    ]),
                ),
                ("dirty-flag", Json::Bool(false)),
            ];
            Json::Object(vec![
                ("name", Json::text(&part.name)),
                ("info", Json::Object(info)),
            ])
        });
        let mut members = vec![("children", Json::List(children.collect()))];
        let image = self.layer.qcow2();
        if let Some(format) = image.and_then(Qcow2::backing_format) {
            members.push(("backing-filename-format", Json::Text(format)));
        }
        let snapshots = image.map(Qcow2::snapshots).unwrap_or_default();
        if !snapshots.is_empty() {
            let list = snapshots.iter().map(snapshot::json).collect();
            members.push(("snapshots", Json::List(list)));
        }
        members.push((
            "virtual-size",
            Json::Number(self.layer.node.source().size()),
        ));
        members.push(("filename", Json::text(&self.name)));
        if let Some(bytes) = self.cluster_size() {
            members.push(("cluster-size", Json::Number(bytes)));
        }
        members.push(("format", Json::text(self.layer.format.name())));
        members.push(("actual-size", Json::Number(self.allocated())));
        let specific = self.specific();
        if !specific.is_empty() {
            members.push((
                "format-specific",
                Json::Object(vec![
                    ("type", Json::text(self.layer.format.name())),
                    ("data", Json::Object(specific)),
                ]),
            ));
        }
        if let Some((name, full)) = self.backing() {
            members.push(("full-backing-filename", Json::Text(full)));
            members.push(("backing-filename", Json::Text(name)));
        }
        let dirty = image.is_some_and(Qcow2::marked_dirty);
        members.push(("dirty-flag", Json::Bool(dirty)));
        Json::Object(members)
    }
}

fn qcow2_specific(image: &Qcow2) -> Vec<(&'static str, Json)> {
    let new = image.version() >= 3;
    let mut found = vec![
        ("compat", Json::text(if new { "1.1" } else { "0.10" })),
        ("compression-type", Json::text(image.compression().name())),
    ];
    if new {
        found.push(("lazy-refcounts", Json::Bool(image.lazy_refcounts())));
    }
    found.push(("refcount-bits", Json::Number(image.refcount_bits().into())));
    if let Some(name) = image.data_file_name().filter(|_| image.has_external_data()) {
        found.push(("data-file", Json::Text(name)));
        found.push(("data-file-raw", Json::Bool(image.data_file_raw())));
    }
    if new {
        found.push(("corrupt", Json::Bool(image.marked_corrupt())));
        found.push(("extended-l2", Json::Bool(false)));
    }
    found
}

/// The same for people: dashes become spaces.
fn write_specific(text: &mut String, depth: usize, key: &str, value: &Json) {
    let indent = "    ".repeat(depth);
    let key = key.replace('-', " ");
    match value {
        Json::Text(value) => *text += &format!("{indent}{key}: {value}\n"),
        Json::Number(value) => *text += &format!("{indent}{key}: {value}\n"),
        Json::Bool(value) => *text += &format!("{indent}{key}: {value}\n"),
        Json::List(items) => {
            *text += &format!("{indent}{key}:\n");
            for (index, item) in items.iter().enumerate() {
                write_specific(text, depth + 1, &format!("[{index}]"), item);
            }
        }
        Json::Object(members) => {
            *text += &format!("{indent}{key}:\n");
            for (key, value) in members {
                write_specific(text, depth + 1, key, value);
            }
        }
    }
}
