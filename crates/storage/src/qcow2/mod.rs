//! qcow2 at rest: opened by one program, changed, closed. What a running machine uses is `imago` (see [`crate::Image`]),
//! behind [`gate`], which looks at the header first.
//!
//! Everything that refers to something is written after it: data, then refcounts, then L2 tables, then L1 tables, then the
//! header, with a barrier between each. What is no longer referred to is freed in memory only once that is on the disk. So
//! whenever the program or the host stops, the image is whole but for leaked clusters.
//!
//! Specification: "Qcow2 Image File Format", QEMU's `docs/interop/qcow2.txt`.

mod amend;
mod check;
mod compress;
mod create;
mod gate;
mod header;
mod mapping;
mod reclaim;
mod refcounts;
mod resize;
mod snapshots;
mod write;
mod zstd;

pub use check::{CheckReport, Repair};
pub use compress::{Compressor, decompress};
pub use create::{CreateOptions, Measurement, Preallocation, measure};
pub(crate) use gate::read;
pub use header::Compression;
pub use reclaim::Reclaimed;
pub use snapshots::Snapshot;
pub use write::Below;
pub(crate) use write::Prepared;

use crate::format::{FormatError, Result};
use crate::host::Host;
use header::Header;
use parking_lot::Mutex;
use refcounts::Refcounts;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// In an L1 entry, or an L2 entry of a standard cluster: nobody else refers to what it points to.
const COPIED: u64 = 1 << 63;
/// In an L2 entry: the rest describes a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// In an L2 entry of a standard cluster: it reads as zeroes.
const ZERO: u64 = 1;
/// Where an L1 entry or an L2 entry of a standard cluster points to.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// More bytes of tables than this are not kept in memory.
const TABLE_CACHE: usize = 64 << 20;

/// An open image, without what is below it. All calls may be made from several threads at once.
pub struct Qcow2 {
    host: Arc<dyn Host>,
    /// Where guest data are: the same file, but for an external data file.
    data: Arc<dyn Host>,
    external: bool,
    path: PathBuf,
    data_path: Option<PathBuf>,
    cluster_bits: u32,
    writable: bool,
    size: AtomicU64,
    meta: Mutex<Meta>,
    /// Compressed clusters that were read last, by their place in the file, the last one first.
    unpacked: Mutex<Vec<(u64, Arc<Vec<u8>>)>>,
}

/// All of the image's tables, as they are in memory.
struct Meta {
    host: Arc<dyn Host>,
    header: Header,
    header_dirty: bool,
    l1: Vec<u64>,
    l1_dirty: BTreeSet<usize>,
    tables: HashMap<u64, Table>,
    refcounts: Refcounts,
    /// Clusters whose references go away with the next flush: each takes one from the refcount then.
    freed: Vec<u64>,
    /// Such clusters stay taken until [`Qcow2::release`]: somebody may be reading what was there.
    keep: bool,
    kept: Vec<u64>,
    /// How often [`Meta::flush`] was called.
    flushes: u64,
    snapshots: Vec<Snapshot>,
    /// Where compressed data were put last: the next go behind them.
    compressed_end: u64,
    /// Metadata that no data may be put over, in case refcounts are wrong; made when first needed.
    reserved: Option<HashSet<u64>>,
    /// Barriers are the drive's, not only the host's.
    durable: bool,
}

/// An L2 table.
struct Table {
    entries: Vec<u64>,
    dirty: bool,
}

/// How an image is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    pub write: bool,
    /// Damaged images too: for `check`.
    pub damaged: bool,
    /// Flushes wait for the drive.
    pub durable: bool,
}

impl Qcow2 {
    /// The name of the external data file of an image, if there is one, `Some(None)` if it does not say which.
    pub fn external_data(host: &dyn Host) -> Result<Option<Option<String>>> {
        let header = Header::read(host)?;
        Ok((header.incompatible & header::EXTERNAL_DATA != 0).then_some(header.data_file))
    }

    /// Opens an image. `data` is its external data file.
    pub fn open(
        host: Arc<dyn Host>,
        path: &Path,
        data: Option<(Arc<dyn Host>, PathBuf)>,
        access: Access,
    ) -> Result<Qcow2> {
        let mut header = Header::read(&*host)?;
        let external = header.incompatible & header::EXTERNAL_DATA != 0;
        if external && data.is_none() {
            return Err(FormatError::image("'data-file' is required for this image"));
        }
        if access.write {
            if header.has_bitmaps {
                return Err(FormatError::image(
                    "Images with persistent bitmaps are supported read-only",
                ));
            }
            if !access.damaged && header.incompatible & header::CORRUPT != 0 {
                return Err(FormatError::image(
                    "qcow2: Image is corrupt; cannot be opened read/write",
                ));
            }
            // What is not known does not hold any more once something changes.
            header.autoclear &= header::RAW_EXTERNAL;
        }
        let l1 = read_table(&*host, header.l1_offset, header.l1_entries as usize)
            .map_err(|error| in_table("L1 table", error))?;
        let snapshots = snapshots::read(&*host, &header)?;
        let refcounts = Refcounts::open(&*host, &header)?;
        let dirty = header.incompatible & header::DIRTY != 0;
        let image = Qcow2 {
            data: data
                .as_ref()
                .filter(|_| external)
                .map_or_else(|| host.clone(), |(data, _)| data.clone()),
            external,
            path: path.into(),
            data_path: data.filter(|_| external).map(|(_, path)| path),
            cluster_bits: header.cluster_bits,
            writable: access.write,
            size: AtomicU64::new(header.size),
            meta: Mutex::new(Meta {
                host: host.clone(),
                header_dirty: false,
                header,
                l1,
                l1_dirty: BTreeSet::new(),
                tables: HashMap::new(),
                refcounts,
                freed: Vec::new(),
                keep: false,
                kept: Vec::new(),
                flushes: 0,
                snapshots,
                compressed_end: 0,
                reserved: None,
                durable: access.durable,
            }),
            unpacked: Mutex::default(),
            host,
        };
        // Refcounts of an image that was not closed may be too low: nothing may be put anywhere before they are right.
        if dirty && access.write && !access.damaged {
            let report = image.check(Repair::All)?;
            if report.corruptions > 0 || report.check_errors > 0 {
                return Err(FormatError::image(
                    "Image was not closed properly, and repairing it failed",
                ));
            }
        }
        Ok(image)
    }

    /// Bytes of the disk.
    pub fn disk_size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// 2 or 3.
    pub fn version(&self) -> u32 {
        self.meta.lock().header.version
    }

    pub fn compression(&self) -> Compression {
        self.meta.lock().header.compression
    }

    pub fn lazy_refcounts(&self) -> bool {
        self.meta.lock().header.compatible & header::LAZY_REFCOUNTS != 0
    }

    pub fn refcount_bits(&self) -> u32 {
        1 << self.meta.lock().header.refcount_order
    }

    /// The image says of itself that it is damaged.
    pub fn marked_corrupt(&self) -> bool {
        self.meta.lock().header.incompatible & header::CORRUPT != 0
    }

    /// The image was not closed properly.
    pub fn marked_dirty(&self) -> bool {
        self.meta.lock().header.incompatible & header::DIRTY != 0
    }

    pub fn has_external_data(&self) -> bool {
        self.external
    }

    /// As the image has it.
    pub fn data_file_name(&self) -> Option<String> {
        self.meta.lock().header.data_file.clone()
    }

    pub fn data_file_raw(&self) -> bool {
        self.external && self.meta.lock().header.autoclear & header::RAW_EXTERNAL != 0
    }

    /// As the image has it: relative to its folder.
    pub fn backing_file(&self) -> Option<String> {
        self.meta.lock().header.backing_file.clone()
    }

    pub fn backing_format(&self) -> Option<String> {
        self.meta.lock().header.backing_format.clone()
    }

    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.meta.lock().snapshots.clone()
    }

    /// Names another backing file, or none; nothing of it is looked at.
    pub fn set_backing(&self, file: Option<&str>, format: Option<&str>) -> Result<()> {
        if file.is_some_and(|name| name.len() > 1023) {
            return Err(FormatError::refused("Backing file name too long"));
        }
        let mut meta = self.changing()?;
        if file.is_some() && meta.header.autoclear & header::RAW_EXTERNAL != 0 && self.external {
            return Err(FormatError::refused(
                "data-file-raw images cannot have a backing file",
            ));
        }
        let old = meta.header.clone();
        meta.header.backing_file = file.filter(|name| !name.is_empty()).map(Into::into);
        meta.header.backing_format = match &meta.header.backing_file {
            Some(_) => format.map(Into::into),
            None => None,
        };
        if let Err(error) = meta.header.bytes() {
            meta.header = old;
            return Err(error);
        }
        meta.header_dirty = true;
        meta.flush()
    }

    /// Makes all changes durable, as far as [`Access::durable`] asks.
    pub fn flush(&self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        if self.external && self.meta.lock().durable {
            self.data.sync()?;
        }
        self.meta.lock().flush()
    }

    /// As [`Qcow2::flush`], of an image that others read and write at the same time: they wait for the tables only, not for the
    /// data.
    pub(crate) fn flush_beside(&self) -> Result<()> {
        let (durable, flushes) = {
            let meta = self.meta.lock();
            (meta.durable, meta.flushes)
        };
        if durable {
            self.data.sync()?;
        }
        let mut meta = self.meta.lock();
        // What another flush wrote in the meantime may not be on the drive: it may have failed.
        if meta.is_dirty() || meta.flushes != flushes {
            meta.flush()?;
        }
        Ok(())
    }

    /// From now on what is free stays as it is until [`Qcow2::release`].
    pub(crate) fn keep_freed(&self) {
        self.meta.lock().keep = true;
    }

    /// Clusters that [`Qcow2::release`] would give to others.
    pub(crate) fn kept(&self) -> usize {
        self.meta.lock().kept.len()
    }

    /// Lets others have what is free. Nobody may be reading or writing.
    pub(crate) fn release(&self) -> Result<()> {
        let mut meta = self.meta.lock();
        while let Some(cluster) = meta.kept.pop() {
            meta.decrease(cluster)?;
        }
        Ok(())
    }

    /// As [`Qcow2::flush`], and gives back what is free now. An image that is dropped without it has leaks.
    pub fn close(&self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        if self.external && self.meta.lock().durable {
            self.data.sync()?;
        }
        self.meta.lock().settle()
    }

    /// The tables, to change something.
    fn changing(&self) -> Result<parking_lot::MutexGuard<'_, Meta>> {
        if !self.writable {
            return Err(FormatError::refused("the image is open read-only"));
        }
        Ok(self.meta.lock())
    }
}

impl Meta {
    fn cluster_bits(&self) -> u32 {
        self.header.cluster_bits
    }

    fn cluster_size(&self) -> u64 {
        1 << self.header.cluster_bits
    }

    /// Entries of an L2 table.
    fn l2_entries(&self) -> u64 {
        self.cluster_size() / 8
    }

    fn barrier(&self) -> Result<()> {
        if self.durable {
            self.host.sync()?;
        }
        Ok(())
    }

    /// Writes everything that is not on the disk, in order.
    fn flush(&mut self) -> Result<()> {
        self.flushes += 1;
        if !self.compressed_end.is_multiple_of(512) {
            let end = self.compressed_end.next_multiple_of(512);
            if self.host.length()? < end {
                self.host.set_length(end)?;
            }
        }
        // Data, and what the file is long.
        self.barrier()?;
        if self.refcounts.is_dirty() {
            let moved = self.refcounts.flush(&*self.host, self.durable)?;
            self.barrier()?;
            if let Some((offset, clusters)) = moved {
                let old = (
                    self.header.refcount_table_offset,
                    self.header.refcount_table_clusters,
                );
                let mut header = self.header.clone();
                header.refcount_table_offset = offset;
                header.refcount_table_clusters = clusters;
                self.host.write_at(0, &header.bytes()?)?;
                self.barrier()?;
                self.header = header;
                self.header_dirty = false;
                self.refcounts.found();
                for cluster in 0..u64::from(old.1) {
                    self.freed.push((old.0 >> self.cluster_bits()) + cluster);
                }
            }
        }
        let mut any = false;
        let host = self.host.clone();
        let mut dirty: Vec<_> = self
            .tables
            .iter_mut()
            .filter(|(_, table)| table.dirty)
            .collect();
        dirty.sort_by_key(|(offset, _)| **offset);
        for (offset, table) in dirty {
            host.write_at(*offset, &bytes_of(&table.entries))?;
            table.dirty = false;
            any = true;
        }
        if any {
            self.barrier()?;
        }
        if !self.l1_dirty.is_empty() {
            while let Some(index) = self.l1_dirty.first().copied() {
                let entry = self.l1[index].to_be_bytes();
                self.host
                    .write_at(self.header.l1_offset + index as u64 * 8, &entry)?;
                self.l1_dirty.remove(&index);
            }
            self.barrier()?;
        }
        if self.header_dirty {
            self.write_header()?;
            self.barrier()?;
        }
        // Nothing on the disk refers to these any more.
        if self.keep {
            self.kept.append(&mut self.freed);
        }
        for cluster in std::mem::take(&mut self.freed) {
            self.decrease(cluster)?;
        }
        Ok(())
    }

    /// Whether [`Meta::flush`] would do anything but wait for the drive.
    fn is_dirty(&self) -> bool {
        !self.compressed_end.is_multiple_of(512)
            || self.refcounts.is_dirty()
            || self.tables.values().any(|table| table.dirty)
            || !self.l1_dirty.is_empty()
            || self.header_dirty
            || !self.freed.is_empty()
    }

    /// [`Meta::flush`] until what it freed is free on the disk, too.
    fn settle(&mut self) -> Result<()> {
        self.flush()?;
        if self.refcounts.is_dirty() {
            self.flush()?;
        }
        Ok(())
    }

    /// From here on refcounts and flags may not fit together until [`Meta::end_update`]: the mark in the header has whoever
    /// opens the image next repair it. Version 2 has no such mark.
    fn begin_update(&mut self) -> Result<()> {
        self.settle()?;
        if self.header.version >= 3 && self.header.incompatible & header::DIRTY == 0 {
            self.header.incompatible |= header::DIRTY;
            self.write_header()?;
            self.barrier()?;
        }
        Ok(())
    }

    fn end_update(&mut self) -> Result<()> {
        self.settle()?;
        if self.header.incompatible & header::DIRTY != 0 {
            self.header.incompatible &= !header::DIRTY;
            self.write_header()?;
            self.barrier()?;
        }
        Ok(())
    }

    fn write_header(&mut self) -> Result<()> {
        self.host.write_at(0, &self.header.bytes()?)?;
        self.header_dirty = false;
        Ok(())
    }

    /// Keeps the tables in memory from growing without bound.
    fn trim(&mut self) -> Result<()> {
        let table = self.cluster_size() as usize;
        if (self.tables.len() + self.refcounts.blocks()) * table > TABLE_CACHE.max(table * 8) {
            self.settle()?;
            self.tables.clear();
            self.refcounts.forget();
        }
        Ok(())
    }
}

/// Reads `entries` big-endian words.
fn read_table(host: &dyn Host, offset: u64, entries: usize) -> std::io::Result<Vec<u64>> {
    let mut bytes = vec![0; entries * 8];
    host.read_exact_at(offset, &mut bytes)?;
    Ok(words_of(&bytes))
}

fn words_of(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .map(|word| u64::from_be_bytes(word.try_into().unwrap()))
        .collect()
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// An error while reading `what`.
fn in_table(what: &str, error: std::io::Error) -> FormatError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        FormatError::image(format!(
            "{what} is past the end of the file: the image is cut short"
        ))
    } else {
        FormatError::image(format!(
            "Could not read {what}: {}",
            crate::error::message(&error)
        ))
    }
}
