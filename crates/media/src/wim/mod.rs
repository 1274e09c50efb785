//! Windows images: WIM and ESD ("Windows Imaging File Format", Microsoft, and what programs that write them agree on).

mod codec;
mod image;
mod information;
mod resource;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

pub use codec::{Codec, Compression, Corrupt};
pub use image::Image;
pub use information::{Architecture, ImageInformation};
use resource::{Chunked, SolidHeader};

use crate::error::{Error, Result};
use crate::fields::{Fields, hex};
use crate::source::{Extents, Shared};

const HEADER: usize = 208;
const ENTRY: usize = 50;
/// Bytes of the table of resources, of an image's metadata and of the XML beyond which they cannot be kept; those of
/// Windows are a third of that.
const TABLE: u64 = 32 << 20;
const METADATA: u64 = 64 << 20;
const XML: u64 = 4 << 20;

/// The SHA-1 that names contents.
pub type Hash = [u8; 20];

/// `dwFlags` of the header.
mod flag {
    pub const COMPRESSION: u32 = 1 << 1;
    pub const WRITE_IN_PROGRESS: u32 = 1 << 6;
    pub const XPRESS: u32 = 1 << 17;
    pub const LZX: u32 = 1 << 18;
    pub const LZMS: u32 = 1 << 19;
}

/// `RESHDR_FLAG_*`.
mod resource_flag {
    pub const METADATA: u8 = 1 << 1;
    pub const COMPRESSED: u8 = 1 << 2;
    pub const SPANNED: u8 = 1 << 3;
    pub const SOLID: u8 = 1 << 4;
}

/// The original size that marks a resource of many contents, beside [`resource_flag::SOLID`].
const SOLID_MAGIC: u64 = 0x1_0000_0000;

/// Where a resource lies (`RESHDR_DISK_SHORT`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    stored: u64,
    flags: u8,
    at: u64,
    size: u64,
}

impl Place {
    fn parse(bytes: &[u8]) -> Result<Place> {
        let first = bytes.le64(0)?;
        Ok(Place {
            stored: first & 0x00FF_FFFF_FFFF_FFFF,
            flags: (first >> 56) as u8,
            at: bytes.le64(8)?,
            size: bytes.le64(16)?,
        })
    }
}

/// The header.
#[derive(Clone, Debug)]
pub struct Header {
    /// 0x10D00, or 0xE00 for files with solid resources.
    pub version: u32,
    pub compression: Compression,
    pub chunk: u32,
    pub guid: [u8; 16],
    pub part: u16,
    pub parts: u16,
    pub images: u32,
    /// Index of the image that boots; 0 for none.
    pub boot: u32,
    /// The file was not completed.
    pub unfinished: bool,
    table: Place,
    xml: Place,
    /// Hashes of the file's ranges are kept in it.
    pub integrity: bool,
}

impl Header {
    fn read(source: &Shared) -> Result<Header> {
        const WHAT: &str = "the WIM header";
        let bytes = source.read_vec(0, HEADER)?;
        if !Wim::probe(&bytes) {
            return Err(Error::damaged(WHAT, 0, "this is no WIM or ESD"));
        }
        let size = bytes.le32(8)?;
        if (size as usize) < HEADER {
            return Err(Error::damaged(WHAT, 8, format!("it claims {size} bytes")));
        }
        let flags = bytes.le32(16)?;
        let compression = if flags & flag::COMPRESSION == 0 {
            Compression::None
        } else if flags & flag::LZMS != 0 {
            Compression::Lzms
        } else if flags & flag::LZX != 0 {
            Compression::Lzx
        } else if flags & flag::XPRESS != 0 {
            Compression::Xpress
        } else {
            return Err(Error::Unsupported(format!(
                "a WIM of a compression that its flags {flags:#x} do not name"
            )));
        };
        Ok(Header {
            version: bytes.le32(12)?,
            compression,
            chunk: match bytes.le32(20)? {
                0 => 1 << 15,
                chunk => chunk,
            },
            guid: bytes.array(24)?,
            part: bytes.le16(40)?,
            parts: bytes.le16(42)?,
            images: bytes.le32(44)?,
            table: Place::parse(bytes.span(48, 24)?)?,
            xml: Place::parse(bytes.span(72, 24)?)?,
            boot: bytes.le32(120)?,
            integrity: Place::parse(bytes.span(124, 24)?)?.stored != 0,
            unfinished: flags & flag::WRITE_IN_PROGRESS != 0,
        })
    }
}

/// A WIM or ESD file.
pub struct Wim {
    source: Shared,
    pub header: Header,
    table: OnceLock<Table>,
    solid: Mutex<HashMap<u64, Arc<Chunked>>>,
}

/// The table of resources.
struct Table {
    blobs: HashMap<Hash, Blob>,
    /// Metadata of the images in order.
    images: Vec<(Place, Hash)>,
}

/// Contents by their hash.
#[derive(Clone, Copy, Debug)]
enum Blob {
    Own {
        place: Place,
        part: u16,
    },
    /// Part of a solid resource.
    Solid {
        resource: Place,
        at: u64,
        size: u64,
    },
}

impl Blob {
    fn size(&self) -> u64 {
        match self {
            Blob::Own { place, .. } => place.size,
            Blob::Solid { size, .. } => *size,
        }
    }
}

impl Wim {
    /// Whether a file begins like a WIM.
    pub fn probe(start: &[u8]) -> bool {
        start.starts_with(b"MSWIM\0\0\0")
    }

    /// Reads the header only.
    pub fn open(source: Shared) -> Result<Arc<Wim>> {
        let header = Header::read(&source)?;
        Ok(Arc::new(Wim {
            source,
            header,
            table: OnceLock::new(),
            solid: Mutex::default(),
        }))
    }

    /// The XML document about the images, as text.
    pub fn xml(&self) -> Result<String> {
        let place = self.header.xml;
        if place.size > XML {
            return Err(Error::damaged(
                "the XML of a WIM",
                place.at,
                format!("it claims {} bytes", place.size),
            ));
        }
        let bytes = self.resource(place)?.read_all("the XML of a WIM", XML)?;
        let bytes = bytes.strip_prefix(&[0xFF, 0xFE]).unwrap_or(&bytes);
        Ok(crate::fields::utf16(bytes))
    }

    /// What the XML says about each image.
    pub fn information(&self) -> Result<Vec<ImageInformation>> {
        information::parse(&self.xml()?)
    }

    /// The tree of an image, counted from 1.
    pub fn image(self: &Arc<Self>, index: u32) -> Result<Image> {
        let table = self.table()?;
        let missing =
            || Error::NotFound(format!("image {index} (there are {})", table.images.len()));
        let place = (index as usize).checked_sub(1).ok_or_else(missing)?;
        let (place, hash) = *table.images.get(place).ok_or_else(missing)?;
        if place.size > METADATA {
            return Err(Error::Unsupported(format!(
                "the metadata of image {index} is {} bytes",
                place.size
            )));
        }
        let bytes = self
            .resource(place)?
            .read_all("the metadata of a WIM", METADATA)?;
        verify("the metadata of an image", &hash, &bytes)?;
        Image::parse(self.clone(), index, &bytes)
    }

    fn table(&self) -> Result<&Table> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = self.read_table()?;
        Ok(self.table.get_or_init(|| table))
    }

    fn read_table(&self) -> Result<Table> {
        const WHAT: &str = "the table of resources of a WIM";
        let place = self.header.table;
        if place.size > TABLE {
            return Err(Error::damaged(
                WHAT,
                place.at,
                format!("it claims {} bytes", place.size),
            ));
        }
        let bytes = self.resource(place)?.read_all(WHAT, TABLE)?;
        let mut table = Table {
            blobs: HashMap::with_capacity(bytes.len() / ENTRY),
            images: Vec::new(),
        };
        let entries: Vec<&[u8]> = bytes.chunks_exact(ENTRY).collect();
        let solid = |entry: &[u8]| entry[7] & resource_flag::SOLID != 0;
        for run in entries.chunk_by(|a, b| solid(a) == solid(b)) {
            if solid(run[0]) {
                self.read_solid_run(run, &mut table)?;
                continue;
            }
            for entry in run {
                let place = Place::parse(entry)?;
                let part = entry.le16(24)?;
                let hash: Hash = entry.array(30)?;
                if place.flags & resource_flag::METADATA != 0 {
                    table.images.push((place, hash));
                } else {
                    table.blobs.insert(hash, Blob::Own { place, part });
                }
            }
        }
        Ok(table)
    }

    /// Solid resources and their contents, whose offsets count through all resources of the run.
    fn read_solid_run(&self, run: &[&[u8]], table: &mut Table) -> Result<()> {
        let mut resources: Vec<(u64, u64, Place)> = Vec::new();
        let mut end = 0u64;
        for entry in run {
            let place = Place::parse(entry)?;
            if place.size == SOLID_MAGIC {
                let size = SolidHeader::read(&self.source, place)?.size;
                resources.push((end, size, place));
                end = end.saturating_add(size);
            }
        }
        for entry in run {
            let place = Place::parse(entry)?;
            if place.size == SOLID_MAGIC {
                continue;
            }
            let size = place.stored;
            let after = resources.partition_point(|(base, ..)| *base <= place.at);
            let of = after.checked_sub(1).map(|index| resources[index]);
            let Some((base, _, resource)) = of.filter(|(base, length, _)| {
                let inside = (place.at - base).checked_add(size);
                inside.is_some_and(|end| end <= *length)
            }) else {
                return Err(Error::damaged(
                    "the table of resources of a WIM",
                    self.header.table.at,
                    format!("contents at {} of no solid resource", place.at),
                ));
            };
            table.blobs.insert(
                entry.array(30)?,
                Blob::Solid {
                    resource,
                    at: place.at - base,
                    size,
                },
            );
        }
        Ok(())
    }

    /// The bytes of a resource that is not solid.
    fn resource(&self, place: Place) -> Result<Shared> {
        if place.flags & resource_flag::SPANNED != 0 {
            return Err(Error::Unsupported(
                "a WIM with resources that span files".into(),
            ));
        }
        crate::source::within(self.source.size(), place.at, place.stored)?;
        if place.flags & resource_flag::COMPRESSED == 0 || place.size == 0 {
            if place.stored != place.size {
                return Err(Error::damaged(
                    "a resource of a WIM",
                    place.at,
                    "its two sizes differ, though it is not compressed",
                ));
            }
            return Ok(Arc::new(Extents::slice(
                self.source.clone(),
                place.at,
                place.size,
            )));
        }
        let chunked = Chunked::plain(
            self.source.clone(),
            place,
            self.header.compression,
            self.header.chunk,
        )?;
        Ok(Arc::new(chunked))
    }

    fn solid(&self, place: Place) -> Result<Arc<Chunked>> {
        let mut open = self.solid.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(chunked) = open.get(&place.at) {
            return Ok(chunked.clone());
        }
        let chunked = Arc::new(Chunked::solid(self.source.clone(), place)?);
        // Each may keep a chunk of up to 64 MiB.
        open.clear();
        open.insert(place.at, chunked.clone());
        Ok(chunked)
    }

    /// Contents by their SHA-1; the zero hash is the empty file's.
    pub fn contents(&self, hash: &Hash) -> Result<Shared> {
        if *hash == [0; 20] {
            return Ok(Arc::new(Vec::new()));
        }
        match self.blob(hash)? {
            Blob::Own { part, .. } if part != self.header.part && self.header.parts > 1 => {
                Err(Error::Unsupported(format!(
                    "contents that lie in part {part} of a split WIM; join the parts first"
                )))
            }
            Blob::Own { place, .. } => self.resource(place),
            Blob::Solid { resource, at, size } => {
                Ok(Arc::new(Extents::slice(self.solid(resource)?, at, size)))
            }
        }
    }

    /// The solid resource that contents lie in, and where; `None` for others.
    fn contents_in_solid(&self, hash: &Hash) -> Result<Option<(Place, u64)>> {
        if *hash == [0; 20] {
            return Ok(None);
        }
        Ok(match self.blob(hash)? {
            Blob::Own { .. } => None,
            Blob::Solid { resource, at, .. } => Some((resource, at)),
        })
    }

    fn blob(&self, hash: &Hash) -> Result<Blob> {
        let table = self.table()?;
        table
            .blobs
            .get(hash)
            .copied()
            .ok_or_else(|| Error::NotFound(format!("contents with SHA-1 {}", hex(hash))))
    }

    /// Bytes of contents; 0 if they are not there.
    fn contents_size(&self, hash: &Hash) -> u64 {
        self.blob(hash).map_or(0, |blob| blob.size())
    }

    /// A number that grows along the file.
    fn contents_order(&self, hash: &Hash) -> u64 {
        match self.blob(hash) {
            Ok(Blob::Own { place, .. }) => place.at,
            // Within a solid resource by the decompressed offset; resources are far apart.
            Ok(Blob::Solid { resource, at, .. }) => resource.at.saturating_add(at),
            Err(_) => 0,
        }
    }
}

/// Fails if `bytes` do not have the SHA-1 `expected`; a zero one says nothing.
fn verify(what: &str, expected: &Hash, bytes: &[u8]) -> Result<()> {
    use sha1::{Digest, Sha1};
    let found: Hash = Sha1::digest(bytes).into();
    if *expected != [0; 20] && found != *expected {
        return Err(Error::Checksum {
            what: what.into(),
            expected: hex(expected),
            found: hex(&found),
        });
    }
    Ok(())
}
