//! What all file systems and images here have in common.

use crate::error::{Error, Result};
use crate::source::Shared;

/// A file or folder of a [`FileSystem`]; what the number means is that file system's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(pub u64);

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// A symbolic link of a POSIX system.
    Link,
    /// A reparse point of Windows, by its tag.
    Reparse {
        tag: u32,
    },
}

/// One name in a folder.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
    /// Bytes; 0 for folders.
    pub size: u64,
    pub node: Node,
    /// Seconds since 1970, where the file system says.
    pub modified: Option<i64>,
    /// Names and sizes of alternate streams.
    pub streams: Vec<(String, u64)>,
    /// Other than zero: files with the same number are one file.
    pub hard_link: u64,
    /// SHA-1 of the contents, where the image names it.
    pub sha1: Option<[u8; 20]>,
}

impl Entry {
    /// A plain file or folder.
    pub fn plain(name: String, directory: bool, size: u64, node: Node) -> Entry {
        Entry {
            name,
            kind: if directory {
                Kind::Directory
            } else {
                Kind::File
            },
            size: if directory { 0 } else { size },
            node,
            modified: None,
            streams: Vec::new(),
            hard_link: 0,
            sha1: None,
        }
    }

    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// A place in a container of many contents, compressed together.
#[derive(Clone, Copy, Debug)]
pub struct Solid {
    /// The same for all contents of a container.
    pub id: u64,
    /// Byte of the container.
    pub at: u64,
}

/// A tree of names.
pub trait FileSystem: Send + Sync {
    /// In words, such as `UDF 1.02`.
    fn name(&self) -> String;

    /// The top folder.
    fn root(&self) -> Node;

    /// The entries of a folder, without `.` and `..`, in stored order.
    fn list(&self, folder: Node) -> Result<Vec<Entry>>;

    /// The contents of a file.
    fn open(&self, file: Node) -> Result<Shared>;

    /// An alternate stream of a file.
    fn open_stream(&self, _file: Node, name: &str) -> Result<Shared> {
        Err(Error::NotFound(format!("stream {name}")))
    }

    /// The SHA-1 that the image names for an alternate stream.
    fn stream_sha1(&self, _file: Node, _name: &str) -> Option<[u8; 20]> {
        None
    }

    /// What a link or reparse point stands for, in the words of its own system; `None` if it stands for no path.
    fn link(&self, _file: Node) -> Result<Option<String>> {
        Ok(None)
    }

    /// Where the contents of a file (or of its stream) lie in a compressed container that they share with others; `None` if
    /// they can be opened by themselves.
    fn solid(&self, _file: Node, _stream: Option<&str>) -> Result<Option<Solid>> {
        Ok(None)
    }

    /// That container.
    fn open_solid(&self, file: Node, _stream: Option<&str>) -> Result<Shared> {
        self.open(file)
    }

    /// Where contents lie: reading files in this order reads the medium once.
    fn order(&self, file: Node) -> u64 {
        file.0
    }
}

/// The entry that `path` names: `/` or `\` between names, upper and lower case as stored if there is such a name, any case
/// otherwise. The empty path is the top folder.
pub fn find(system: &dyn FileSystem, path: &str) -> Result<Entry> {
    let mut entry = Entry::plain(String::new(), true, 0, system.root());
    for name in names(path) {
        if !entry.is_directory() {
            return Err(Error::NotFound(path.to_string()));
        }
        let mut entries = system.list(entry.node)?;
        let exact = entries.iter().position(|e| e.name == name);
        let folded = || {
            let name = name.to_lowercase();
            entries.iter().position(|e| e.name.to_lowercase() == name)
        };
        let at = exact
            .or_else(folded)
            .ok_or_else(|| Error::NotFound(path.to_string()))?;
        entry = entries.swap_remove(at);
    }
    Ok(entry)
}

/// The contents of the file at `path`.
pub fn open(system: &dyn FileSystem, path: &str) -> Result<Shared> {
    let entry = find(system, path)?;
    if entry.is_directory() {
        return Err(Error::Unsupported(format!("{path} is a folder")));
    }
    system.open(entry.node)
}

/// The names of a path.
pub fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split(['/', '\\'])
        .filter(|name| !name.is_empty() && *name != ".")
}

/// Folders in folders beyond which a tree counts as damaged.
pub const DEPTH: usize = 256;

/// Calls `visit` with every path under `from` (which itself is not visited), folders before what they hold.
pub fn walk(
    system: &dyn FileSystem,
    from: Node,
    visit: &mut dyn FnMut(&str, &Entry) -> Result<()>,
) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![(String::new(), from, 0)];
    while let Some((path, folder, depth)) = pending.pop() {
        if !seen.insert(folder) || depth > DEPTH {
            return Err(Error::damaged(
                "a folder",
                folder.0,
                format!("/{path} contains itself"),
            ));
        }
        let mut folders = Vec::new();
        for entry in system.list(folder)? {
            let path = if path.is_empty() {
                entry.name.clone()
            } else {
                format!("{path}/{}", entry.name)
            };
            visit(&path, &entry)?;
            if entry.is_directory() {
                folders.push((path, entry.node, depth + 1));
            }
        }
        pending.extend(folders.into_iter().rev());
    }
    Ok(())
}
