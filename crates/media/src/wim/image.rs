//! The tree of an image out of its metadata resource.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Hash, Wim};
use crate::error::{Error, Result};
use crate::fields::{Fields, utf16};
use crate::filesystem::{Entry, FileSystem, Kind, Node, Solid};
use crate::source::Shared;

/// Bytes of a directory entry before its names (`DIRENTRY`).
const FIXED: usize = 102;
/// `FILE_ATTRIBUTE_*`.
const DIRECTORY: u32 = 0x10;
const REPARSE: u32 = 0x400;
/// `IO_REPARSE_TAG_*`.
const MOUNT_POINT: u32 = 0xA000_0003;
const SYMLINK: u32 = 0xA000_000C;
/// Bytes of reparse data at most ([MS-FSCC] 2.1.2).
const REPARSE_DATA: u64 = 16 << 10;

/// A file or folder.
struct Inode {
    name: String,
    attributes: u32,
    reparse_tag: u32,
    hard_link: u64,
    modified: u64,
    /// SHA-1 of the contents; of the reparse data for a reparse point.
    hash: Hash,
    streams: Vec<(String, Hash)>,
    children: std::ops::Range<u32>,
}

impl Inode {
    /// The hash of its contents, or of a stream's.
    fn contents(&self, stream: Option<&str>) -> Result<&Hash> {
        let Some(name) = stream else {
            return Ok(&self.hash);
        };
        self.streams
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, hash)| hash)
            .ok_or_else(|| Error::NotFound(format!("stream {name} of {}", self.name)))
    }
}

/// The tree of an image.
pub struct Image {
    wim: Arc<Wim>,
    pub index: u32,
    inodes: Vec<Inode>,
}

impl Image {
    pub(super) fn parse(wim: Arc<Wim>, index: u32, bytes: &[u8]) -> Result<Image> {
        const WHAT: &str = "the metadata of an image";
        // Security descriptors come first: their length, aligned to 8; some files have 0 there for none.
        let security = bytes.le32(0)? as usize;
        let root = security.max(8).next_multiple_of(8);
        let (first, subfolder, _) = inode(bytes, root)?;
        let mut inodes = vec![first];
        let most = bytes.len() / FIXED + 1;
        let mut pending = VecDeque::from([(0usize, subfolder)]);
        while let Some((of, at)) = pending.pop_front() {
            let start = inodes.len() as u32;
            let mut at = usize::try_from(at).unwrap_or(usize::MAX);
            // No offset: an empty folder.
            while at != 0 && at < bytes.len() && bytes.le64(at)? > 8 {
                let (child, subfolder, next) = inode(bytes, at)?;
                if child.name.is_empty()
                    || child.name.contains(['/', '\0'])
                    || child.name == "."
                    || child.name == ".."
                {
                    return Err(Error::damaged(WHAT, at as u64, "a name that is no name"));
                }
                if child.attributes & DIRECTORY != 0 && subfolder != 0 {
                    pending.push_back((inodes.len(), subfolder));
                }
                inodes.push(child);
                // Entries do not overlap, so that more of them than fit are a folder within itself.
                if inodes.len() > most {
                    return Err(Error::damaged(WHAT, at as u64, "a folder contains itself"));
                }
                at = next;
            }
            inodes[of].children = start..inodes.len() as u32;
        }
        Ok(Image { wim, index, inodes })
    }

    fn inode(&self, node: Node) -> Result<&Inode> {
        self.inodes
            .get(node.0 as usize)
            .ok_or_else(|| Error::NotFound(format!("file {}", node.0)))
    }

    /// Files, folders and links in all, the top folder among them.
    pub fn count(&self) -> usize {
        self.inodes.len()
    }

    /// The Windows attributes of a file (`FILE_ATTRIBUTE_*`).
    pub fn attributes(&self, node: Node) -> Result<u32> {
        Ok(self.inode(node)?.attributes)
    }
}

/// The directory entry at `at`, where its children lie, and where the next entry begins.
fn inode(bytes: &[u8], at: usize) -> Result<(Inode, u64, usize)> {
    const WHAT: &str = "a directory entry of an image";
    let length = usize::try_from(bytes.le64(at)?).unwrap_or(usize::MAX);
    let short = || Error::damaged(WHAT, at as u64, format!("it claims {length} bytes"));
    if length < FIXED {
        return Err(short());
    }
    let entry = bytes.span(at, length).map_err(|_| short())?;
    let attributes = entry.le32(8)?;
    let reparse = attributes & REPARSE != 0;
    let name_length = usize::from(entry.le16(100)?);
    let name = utf16(entry.span(FIXED, name_length).map_err(|_| short())?);
    let mut inode = Inode {
        name,
        attributes,
        reparse_tag: if reparse { entry.le32(88)? } else { 0 },
        hard_link: if reparse { 0 } else { entry.le64(88)? },
        modified: entry.le64(56)?,
        hash: entry.array(64)?,
        streams: Vec::new(),
        children: 0..0,
    };
    let mut next = (at + length).next_multiple_of(8);
    for _ in 0..entry.le16(96)? {
        let length = usize::try_from(bytes.le64(next)?).unwrap_or(usize::MAX);
        let stream = bytes
            .span(next, length)
            .ok()
            .filter(|s| s.len() >= 38)
            .ok_or_else(|| Error::damaged(WHAT, next as u64, "a stream entry past the end"))?;
        let hash: Hash = stream.array(16)?;
        let name_length = usize::from(stream.le16(36)?);
        let name = utf16(
            stream
                .span(38, name_length)
                .map_err(|_| Error::damaged(WHAT, next as u64, "a stream name past the end"))?,
        );
        if !name.is_empty() {
            if name.contains(['/', '\0']) {
                return Err(Error::damaged(
                    WHAT,
                    next as u64,
                    "a stream name that is none",
                ));
            }
            inode.streams.push((name, hash));
        } else if inode.hash == [0; 20] {
            // With other streams, the unnamed one may be among them.
            inode.hash = hash;
        }
        next = (next + length).next_multiple_of(8);
    }
    Ok((inode, entry.le64(16)?, next))
}

impl FileSystem for Image {
    fn name(&self) -> String {
        format!("image {} of a WIM", self.index)
    }

    fn root(&self) -> Node {
        Node(0)
    }

    fn list(&self, folder: Node) -> Result<Vec<Entry>> {
        let children = self.inode(folder)?.children.clone();
        let mut entries = Vec::with_capacity(children.len());
        for index in children {
            let inode = &self.inodes[index as usize];
            let directory = inode.attributes & DIRECTORY != 0;
            let kind = if inode.attributes & REPARSE != 0 {
                Kind::Reparse {
                    tag: inode.reparse_tag,
                }
            } else if directory {
                Kind::Directory
            } else {
                Kind::File
            };
            let file = kind == Kind::File;
            entries.push(Entry {
                name: inode.name.clone(),
                size: if file {
                    self.wim.contents_size(&inode.hash)
                } else {
                    0
                },
                kind,
                node: Node(index.into()),
                modified: crate::time::filetime(inode.modified),
                streams: inode
                    .streams
                    .iter()
                    .map(|(name, hash)| (name.clone(), self.wim.contents_size(hash)))
                    .collect(),
                hard_link: inode.hard_link,
                sha1: (file && inode.hash != [0; 20]).then_some(inode.hash),
            });
        }
        Ok(entries)
    }

    fn open(&self, file: Node) -> Result<Shared> {
        self.wim.contents(&self.inode(file)?.hash)
    }

    fn open_stream(&self, file: Node, name: &str) -> Result<Shared> {
        self.wim.contents(self.inode(file)?.contents(Some(name))?)
    }

    fn stream_sha1(&self, file: Node, name: &str) -> Option<Hash> {
        let hash = *self.inode(file).ok()?.contents(Some(name)).ok()?;
        (hash != [0; 20]).then_some(hash)
    }

    fn solid(&self, file: Node, stream: Option<&str>) -> Result<Option<Solid>> {
        let hash = self.inode(file)?.contents(stream)?;
        let place = self.wim.contents_in_solid(hash)?;
        Ok(place.map(|(resource, at)| Solid {
            id: resource.at,
            at,
        }))
    }

    fn open_solid(&self, file: Node, stream: Option<&str>) -> Result<Shared> {
        let hash = self.inode(file)?.contents(stream)?;
        match self.wim.contents_in_solid(hash)? {
            Some((resource, _)) => Ok(self.wim.solid(resource)?),
            None => self.wim.contents(hash),
        }
    }

    fn link(&self, file: Node) -> Result<Option<String>> {
        let inode = self.inode(file)?;
        let path = match inode.reparse_tag {
            SYMLINK => 12,
            MOUNT_POINT => 8,
            _ => return Ok(None),
        };
        let data = self
            .wim
            .contents(&inode.hash)?
            .read_all("reparse data", REPARSE_DATA)?;
        // The print name if there is one ([MS-FSCC] 2.1.2.4, without its header of 8 bytes).
        let (mut at, mut length) = (data.le16(4)?, data.le16(6)?);
        if length == 0 {
            (at, length) = (data.le16(0)?, data.le16(2)?);
        }
        let name = data.span(path + usize::from(at), length.into())?;
        Ok(Some(utf16(name)))
    }

    fn order(&self, file: Node) -> u64 {
        self.inode(file)
            .map_or(0, |inode| self.wim.contents_order(&inode.hash))
    }
}
