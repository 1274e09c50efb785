//! What an extraction will make, before it makes anything.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::filesystem::{self, Entry, FileSystem, Kind, Node, Solid};

/// A file to make.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub path: PathBuf,
    pub modified: Option<i64>,
}

/// Contents and the files that have them.
#[derive(Clone, Debug)]
pub(super) struct Content {
    /// The path within the image, for messages.
    pub name: String,
    pub node: Node,
    pub stream: Option<String>,
    pub size: u64,
    pub sha1: Option<[u8; 20]>,
    pub solid: Option<Solid>,
    order: u64,
    pub targets: Vec<Target>,
}

/// A symbolic link to make.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub path: PathBuf,
    pub name: String,
    /// In the words of its system.
    pub target: String,
    /// That is Windows.
    pub windows: bool,
    /// Folders of the destination above it.
    pub depth: usize,
    /// The destination has the image's top folder.
    pub whole: bool,
}

#[derive(Default)]
pub(super) struct Plan {
    /// Those above before those below.
    pub folders: Vec<Target>,
    /// In the order in which they lie in the image.
    pub contents: Vec<Content>,
    /// A file that will be there, and another name for it.
    pub hard_links: Vec<(PathBuf, PathBuf)>,
    pub links: Vec<Link>,
    pub notes: Vec<String>,
    pub failed: Vec<(String, Error)>,
}

/// Finds what is one file already.
#[derive(Default)]
struct Same {
    contents: HashMap<[u8; 20], usize>,
    files: HashMap<u64, PathBuf>,
}

impl Plan {
    pub fn new(system: &dyn FileSystem, path: &str, to: &Path) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut same = Same::default();
        let (entry, stream) = find(system, path)?;
        if stream.is_some() || !entry.is_directory() {
            let name = stream.clone().unwrap_or_else(|| entry.name.clone());
            let slash = to.as_os_str().as_encoded_bytes().ends_with(b"/");
            let to = if slash || to.is_dir() {
                to.join(host_name(&name)?)
            } else {
                to.to_path_buf()
            };
            match stream {
                Some(stream) => plan.stream(system, path, &entry, stream, to)?,
                None => plan.add(system, path, &entry, to, (0, false), &mut same)?,
            }
        } else {
            let whole = entry.node == system.root();
            let to = if !whole && to.is_dir() {
                to.join(host_name(&entry.name)?)
            } else {
                to.to_path_buf()
            };
            plan.folders.push(Target {
                path: to.clone(),
                modified: entry.modified,
            });
            filesystem::walk(system, entry.node, &mut |path, entry| {
                let mut host = to.clone();
                for name in path.split('/') {
                    host.push(host_name(name)?);
                }
                let depth = path.split('/').count() - 1;
                plan.add(system, path, entry, host, (depth, whole), &mut same)
            })?;
        }
        plan.contents.sort_by_key(|content| content.order);
        Ok(plan)
    }

    /// The contents of one file or stream alone.
    pub fn one(system: &dyn FileSystem, path: &str) -> Result<Content> {
        let mut plan = Plan::default();
        let (entry, stream) = find(system, path)?;
        match stream {
            Some(stream) => plan.stream(system, path, &entry, stream, PathBuf::new())?,
            None if entry.kind != Kind::File => {
                return Err(Error::Unsupported(format!("{path} is no file")));
            }
            None => {
                let same = &mut Same::default();
                plan.add(system, path, &entry, PathBuf::new(), (0, false), same)?;
            }
        }
        plan.contents
            .pop()
            .ok_or_else(|| Error::NotFound(path.to_string()))
    }

    fn add(
        &mut self,
        system: &dyn FileSystem,
        name: &str,
        entry: &Entry,
        path: PathBuf,
        (depth, whole): (usize, bool),
        same: &mut Same,
    ) -> Result<()> {
        for (stream, size) in &entry.streams {
            self.notes.push(format!(
                "{name}: its stream {stream} ({size} bytes) is left out; \"{name}:{stream}\" extracts it"
            ));
        }
        let target = Target {
            path,
            modified: entry.modified,
        };
        match entry.kind {
            Kind::Directory => self.folders.push(target),
            Kind::Link | Kind::Reparse { .. } => match system.link(entry.node) {
                Ok(Some(text)) => self.links.push(Link {
                    path: target.path,
                    name: name.to_string(),
                    target: text,
                    windows: entry.kind != Kind::Link,
                    depth,
                    whole,
                }),
                Ok(None) => {
                    let tag = match entry.kind {
                        Kind::Reparse { tag } => tag,
                        _ => 0,
                    };
                    self.notes.push(format!(
                        "{name}: a reparse point of type {tag:#010x} is left out"
                    ));
                }
                Err(error) => self.failed.push((name.to_string(), error)),
            },
            Kind::File => self.file(system, name, entry, target, same),
        }
        Ok(())
    }

    fn file(
        &mut self,
        system: &dyn FileSystem,
        name: &str,
        entry: &Entry,
        target: Target,
        same: &mut Same,
    ) {
        if entry.hard_link != 0 {
            if let Some(existing) = same.files.get(&entry.hard_link) {
                self.hard_links.push((existing.clone(), target.path));
                return;
            }
            same.files.insert(entry.hard_link, target.path.clone());
        }
        if let Some(hash) = entry.sha1 {
            if let Some(index) = same.contents.get(&hash) {
                self.contents[*index].targets.push(target);
                return;
            }
            same.contents.insert(hash, self.contents.len());
        }
        match system.solid(entry.node, None) {
            Ok(solid) => self.contents.push(Content {
                name: name.to_string(),
                node: entry.node,
                stream: None,
                size: entry.size,
                sha1: entry.sha1,
                solid,
                order: system.order(entry.node),
                targets: vec![target],
            }),
            Err(error) => self.failed.push((name.to_string(), error)),
        }
    }

    fn stream(
        &mut self,
        system: &dyn FileSystem,
        name: &str,
        entry: &Entry,
        stream: String,
        path: PathBuf,
    ) -> Result<()> {
        self.contents.push(Content {
            name: name.to_string(),
            node: entry.node,
            size: system.open_stream(entry.node, &stream)?.size(),
            sha1: system.stream_sha1(entry.node, &stream),
            solid: system.solid(entry.node, Some(&stream))?,
            stream: Some(stream),
            order: 0,
            targets: vec![Target {
                path,
                modified: entry.modified,
            }],
        });
        Ok(())
    }
}

/// The entry that a path names, and the stream behind a colon.
fn find(system: &dyn FileSystem, path: &str) -> Result<(Entry, Option<String>)> {
    match filesystem::find(system, path) {
        Err(Error::NotFound(missing)) => match path.rsplit_once(':') {
            Some((file, stream)) if !stream.is_empty() => {
                Ok((filesystem::find(system, file)?, Some(stream.to_string())))
            }
            _ => Err(Error::NotFound(missing)),
        },
        result => Ok((result?, None)),
    }
}

/// A name that is one name on the host: every file system here refuses others, but this is where it counts.
fn host_name(name: &str) -> Result<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(Error::Unsupported(format!(
            "\"{name}\" cannot be a file's name here"
        )));
    }
    Ok(name)
}
