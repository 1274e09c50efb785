//! New images.

use super::header::{self, Compression, Header, l1_entries};
use super::{Access, Qcow2, refcounts};
use crate::format::{FormatError, Result};
use crate::host::Host;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is set aside when an image is made or grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    #[default]
    Off,
    /// Tables, and places for the data, which need no space yet.
    Metadata,
    /// And space for the data.
    Falloc,
    /// And zeroes written there.
    Full,
}

impl Preallocation {
    pub fn name(self) -> &'static str {
        match self {
            Preallocation::Off => "off",
            Preallocation::Metadata => "metadata",
            Preallocation::Falloc => "falloc",
            Preallocation::Full => "full",
        }
    }
}

/// What a new image is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// Bytes.
    pub size: u64,
    /// 2 (`compat=0.10`) or 3 (`1.1`).
    pub version: u32,
    /// Bytes: a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// 1, 2, 4 … 64.
    pub refcount_bits: u32,
    pub lazy_refcounts: bool,
    pub compression: Compression,
    pub backing_file: Option<String>,
    pub backing_format: Option<String>,
    /// The name that the image is to have for its external data file.
    pub data_file: Option<String>,
    /// The external data file is a raw image of the disk.
    pub data_file_raw: bool,
    pub preallocation: Preallocation,
}

impl CreateOptions {
    pub fn new(size: u64) -> CreateOptions {
        CreateOptions {
            size,
            version: 3,
            cluster_size: 65536,
            refcount_bits: 16,
            lazy_refcounts: false,
            compression: Compression::Zlib,
            backing_file: None,
            backing_format: None,
            data_file: None,
            data_file_raw: false,
            preallocation: Preallocation::Off,
        }
    }

    /// Says what does not go together, in `qemu-img`'s words.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: &str| Err(FormatError::refused(reason));
        if !self.cluster_size.is_power_of_two() || !(512..=2 << 20).contains(&self.cluster_size) {
            return refuse("Cluster size must be a power of two between 512 and 2048k");
        }
        if !self.refcount_bits.is_power_of_two() || self.refcount_bits > 64 {
            return refuse("Refcount width must be a power of two and may not exceed 64 bits");
        }
        if self.version < 3 {
            if self.refcount_bits != 16 {
                return refuse(
                    "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)",
                );
            }
            if self.lazy_refcounts {
                return refuse(
                    "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
                );
            }
            if self.data_file.is_some() {
                return refuse(
                    "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
                );
            }
            if self.compression != Compression::Zlib {
                return refuse(
                    "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)",
                );
            }
        }
        if self.data_file_raw && self.data_file.is_none() {
            return refuse("data-file-raw requires data-file");
        }
        if self.data_file_raw && self.backing_file.is_some() {
            return refuse("Backing file and data-file-raw cannot be used at the same time");
        }
        if self.backing_file.is_some()
            && self.preallocation == Preallocation::Metadata
            && self.data_file.is_some()
        {
            return refuse(
                "Backing file and preallocation can only be used at the same time if extended_l2 is enabled",
            );
        }
        if self.backing_file.is_some() && self.preallocation != Preallocation::Off {
            return refuse(
                "Backing file and preallocation can only be used at the same time if extended_l2 is enabled",
            );
        }
        let bits = self.cluster_size.trailing_zeros();
        if l1_entries(self.size, bits) * 8 > 32 << 20 {
            return refuse("The image size is too large (try using a larger cluster size)");
        }
        Ok(())
    }
}

impl Qcow2 {
    /// Makes an image in an empty file, and opens it. `data` is its external data file.
    pub fn create(
        host: Arc<dyn Host>,
        path: &Path,
        data: Option<(Arc<dyn Host>, PathBuf)>,
        options: &CreateOptions,
        durable: bool,
    ) -> Result<Qcow2> {
        options.check()?;
        let size = options.size.next_multiple_of(512);
        let bits = options.cluster_size.trailing_zeros();
        let order = options.refcount_bits.trailing_zeros();
        let cluster = options.cluster_size;
        let l1 = l1_entries(size, bits);
        let l1_clusters = (l1 * 8).div_ceil(cluster).max(1);
        // The header, the refcount table, its blocks, the L1 table.
        let per_block = (cluster * 8) >> order;
        let mut blocks = 1;
        let table_clusters = 1;
        while blocks * per_block < 1 + table_clusters + blocks + l1_clusters {
            blocks += 1;
        }
        if blocks > cluster / 8 {
            return Err(FormatError::refused(
                "The image size is too large (try using a larger cluster size)",
            ));
        }
        let used = 1 + table_clusters + blocks + l1_clusters;
        let mut incompatible = 0;
        let mut autoclear = 0;
        if options.data_file.is_some() {
            incompatible |= header::EXTERNAL_DATA;
        }
        if options.data_file_raw {
            autoclear |= header::RAW_EXTERNAL;
        }
        if options.compression != Compression::Zlib {
            incompatible |= header::COMPRESSION;
        }
        let header = Header {
            version: options.version,
            cluster_bits: bits,
            size,
            l1_entries: l1 as u32,
            l1_offset: (1 + table_clusters + blocks) << bits,
            refcount_table_offset: 1 << bits,
            refcount_table_clusters: table_clusters as u32,
            incompatible,
            compatible: if options.lazy_refcounts {
                header::LAZY_REFCOUNTS
            } else {
                0
            },
            autoclear,
            refcount_order: order,
            compression: options.compression,
            backing_file: options.backing_file.clone(),
            backing_format: options.backing_format.clone(),
            data_file: options.data_file.clone(),
            ..Header::default()
        };
        let start = header.bytes()?;
        let mut table = Vec::new();
        for block in 0..blocks {
            let offset = (1 + table_clusters + block) << bits;
            table.extend(offset.to_be_bytes());
            let mut bytes = vec![0; cluster as usize];
            let first = block * per_block;
            for at in first..used.min(first + per_block) {
                refcounts::put(&mut bytes, order, at - first, 1);
            }
            host.write_at(offset, &bytes)?;
        }
        let end = (header.l1_offset + l1 * 8).next_multiple_of(512);
        host.set_length(end.max(header.l1_offset + 512))?;
        host.write_at(1 << bits, &table)?;
        if durable {
            host.sync()?;
        }
        // Last: until then the file is no image.
        host.write_at(0, &start)?;
        if let Some((data, _)) = &data {
            data.set_length(size)?;
        }
        let access = Access {
            write: true,
            damaged: false,
            durable,
        };
        let image = Qcow2::open(host, path, data, access)?;
        let preallocation = match options.preallocation {
            // A raw data file is right only if everything is mapped to it.
            Preallocation::Off if options.data_file_raw => Preallocation::Metadata,
            other => other,
        };
        image.preallocate(0, size, preallocation)?;
        image.close()?;
        Ok(image)
    }

    /// Maps a span of the disk that has nothing yet.
    pub(super) fn preallocate(&self, from: u64, to: u64, how: Preallocation) -> Result<()> {
        if how == Preallocation::Off || from >= to {
            return Ok(());
        }
        let size = self.cluster_bytes();
        let mut at = from / size * size;
        while at < to {
            let (host, count) = {
                let mut meta = self.changing()?;
                let (l1, first) = meta.indices(at);
                let want = (to - at)
                    .div_ceil(size)
                    .min(meta.l2_entries() - first as u64);
                let table = meta.own_table(l1)?;
                if meta.table(table)?.entries[first] != 0 {
                    at += size;
                    continue;
                }
                let (host, count) = if self.external {
                    (at, want)
                } else {
                    let (cluster, count) = meta.allocate(want)?;
                    (cluster * size, count)
                };
                for n in 0..count {
                    let entry = &mut meta.table(table)?.entries[first + n as usize];
                    if *entry != 0 {
                        return Err(FormatError::image(
                            "a cluster past the disk's end is in use",
                        ));
                    }
                    *entry = (host + n * size) | super::COPIED;
                }
                meta.table(table)?.dirty = true;
                (host, count)
            };
            let length = if self.external {
                (count * size).min(to - at)
            } else {
                count * size
            };
            match how {
                Preallocation::Falloc => match self.data.reserve(host, length) {
                    Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                        self.zero_out(host, length)?;
                    }
                    other => other?,
                },
                Preallocation::Full => self.zero_out(host, length)?,
                _ => {}
            }
            if self.data.length()? < host + length {
                self.data.set_length(host + length)?;
            }
            at += count * size;
        }
        Ok(())
    }

    fn zero_out(&self, offset: u64, length: u64) -> Result<()> {
        let zeroes = vec![0; length.min(1 << 20) as usize];
        let mut at = 0;
        while at < length {
            let count = (length - at).min(zeroes.len() as u64) as usize;
            self.data.write_at(offset + at, &zeroes[..count])?;
            at += count as u64;
        }
        Ok(())
    }
}

/// How large a file becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    pub required: u64,
    pub fully_allocated: u64,
}

/// How large an image of these options becomes that holds `data` bytes of whole clusters.
pub fn measure(options: &CreateOptions, data: u64) -> Result<Measurement> {
    options.check()?;
    let cluster = options.cluster_size;
    let size = options.size.next_multiple_of(cluster);
    let clusters = size / cluster;
    let l2 = clusters.next_multiple_of(cluster / 8) * 8 / cluster;
    let l1 = (l2 * 8).div_ceil(cluster);
    let fixed = 1 + l2 + l1;
    let per_block = cluster * 8 / u64::from(options.refcount_bits);
    let (mut blocks, mut table) = (0, 0);
    // As if the data were in the image, wherever they are to be.
    let counted = fixed + clusters;
    loop {
        let next = (counted + blocks + table).div_ceil(per_block);
        let next_table = next.div_ceil(cluster / 8);
        if (next, next_table) == (blocks, table) {
            break;
        }
        (blocks, table) = (next, next_table);
    }
    let metadata = (fixed + blocks + table) * cluster;
    let fully = metadata + size;
    let required = match options.preallocation {
        Preallocation::Off | Preallocation::Metadata => metadata + data,
        _ => fully,
    };
    Ok(Measurement {
        required,
        fully_allocated: fully,
    })
}
