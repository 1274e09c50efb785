//! Internal snapshots: an L1 table each, whose clusters are counted once for each table that reaches them.

use super::header::{Header, l1_entries};
use super::mapping::Entry;
use super::{COPIED, Meta, OFFSET, Qcow2, bytes_of, in_table, read_table};
use crate::format::{FormatError, Result};
use crate::host::Host;
use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

/// The table of snapshots may not be larger, as QEMU's.
const MAX_TABLE: u64 = 64 << 20;

/// A snapshot, as its entry in the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub id: String,
    pub name: String,
    /// Seconds since 1970 and nanoseconds.
    pub date: (u32, u32),
    /// How long the machine had run, in nanoseconds.
    pub vm_clock: u64,
    /// Bytes.
    pub vm_state_size: u64,
    /// Instructions, −1 if not counted.
    pub icount: u64,
    /// Bytes of the disk then.
    pub disk_size: u64,
    pub(super) l1_offset: u64,
    pub(super) l1_entries: u32,
    /// The entry's extra data beyond what is known.
    extra: Vec<u8>,
    known_extra: usize,
}

/// Reads the table that the header names.
pub(super) fn read(host: &dyn Host, header: &Header) -> Result<Vec<Snapshot>> {
    let mut found = Vec::new();
    let mut at = header.snapshots_offset;
    let failed = |error| in_table("the snapshot table", error);
    for _ in 0..header.snapshots {
        let mut fixed = [0; 40];
        host.read_exact_at(at, &mut fixed).map_err(failed)?;
        let be16 = |at: usize| usize::from(u16::from_be_bytes([fixed[at], fixed[at + 1]]));
        let be32 = |at: usize| u32::from_be_bytes(fixed[at..at + 4].try_into().unwrap());
        let be64 = |at: usize| u64::from_be_bytes(fixed[at..at + 8].try_into().unwrap());
        let (id_length, name_length) = (be16(12), be16(14));
        let extra_length = be32(36) as usize;
        if extra_length > 1024 {
            return Err(FormatError::image(
                "Too much extra metadata in snapshot table entry",
            ));
        }
        let mut rest = vec![0; extra_length + id_length + name_length];
        host.read_exact_at(at + 40, &mut rest).map_err(failed)?;
        let extra64 = |at: usize| {
            rest[..extra_length]
                .get(at..at + 8)
                .map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let l1_entries = be32(8);
        if u64::from(l1_entries) * 8 > 32 << 20 {
            return Err(FormatError::image("Snapshot L1 table too large"));
        }
        found.push(Snapshot {
            l1_offset: be64(0),
            l1_entries,
            id: text(&rest[extra_length..extra_length + id_length]),
            name: text(&rest[extra_length + id_length..]),
            date: (be32(16), be32(20)),
            vm_clock: be64(24),
            vm_state_size: extra64(0).unwrap_or(u64::from(be32(32))),
            disk_size: extra64(8).unwrap_or(header.size),
            icount: extra64(16).unwrap_or(u64::MAX),
            known_extra: extra_length.min(24),
            extra: rest[extra_length.min(24)..extra_length].to_vec(),
        });
        at += (40 + rest.len() as u64).next_multiple_of(8);
        if at - header.snapshots_offset > MAX_TABLE {
            return Err(FormatError::image("Snapshot table is too large"));
        }
    }
    Ok(found)
}

/// The table's bytes.
fn table(snapshots: &[Snapshot]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for snapshot in snapshots {
        let mut extra = Vec::new();
        extra.extend(snapshot.vm_state_size.to_be_bytes());
        extra.extend(snapshot.disk_size.to_be_bytes());
        extra.extend(snapshot.icount.to_be_bytes());
        extra.extend(&snapshot.extra);
        bytes.extend(snapshot.l1_offset.to_be_bytes());
        bytes.extend(snapshot.l1_entries.to_be_bytes());
        bytes.extend((snapshot.id.len() as u16).to_be_bytes());
        bytes.extend((snapshot.name.len() as u16).to_be_bytes());
        bytes.extend(snapshot.date.0.to_be_bytes());
        bytes.extend(snapshot.date.1.to_be_bytes());
        bytes.extend(snapshot.vm_clock.to_be_bytes());
        // The old field; what does not fit is in the extra data.
        let old = u32::try_from(snapshot.vm_state_size).unwrap_or(0);
        bytes.extend(old.to_be_bytes());
        bytes.extend((extra.len() as u32).to_be_bytes());
        bytes.extend(extra);
        bytes.extend(snapshot.id.as_bytes());
        bytes.extend(snapshot.name.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// What to do with the refcounts of all that an L1 table reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Increase,
    Decrease,
}

impl Meta {
    /// How often each L2 table is named by an L1 table, by its offset.
    fn l2_tables(&self, l1: &[u64]) -> BTreeMap<u64, u64> {
        let mut tables = BTreeMap::new();
        for entry in l1 {
            if entry & OFFSET != 0 {
                *tables.entry(entry & OFFSET).or_insert(0) += 1;
            }
        }
        tables
    }

    /// How often each cluster is referred to through an L1 table.
    fn references(&mut self, l1: &[u64]) -> Result<HashMap<u64, u64>> {
        let bits = self.cluster_bits();
        let external = self.header.incompatible & super::header::EXTERNAL_DATA != 0;
        let mut found: HashMap<u64, u64> = HashMap::new();
        for (offset, times) in self.l2_tables(l1) {
            *found.entry(offset >> bits).or_default() += times;
            for index in 0..self.l2_entries() as usize {
                let entry = self.table(offset)?.entries[index];
                match self.entry_of(entry) {
                    Entry::Unallocated | Entry::Zero { offset: 0, .. } => {}
                    Entry::Zero { .. } | Entry::Data { .. } if external => {}
                    Entry::Zero { offset, .. } | Entry::Data { offset, .. } => {
                        *found.entry(offset >> bits).or_default() += times;
                    }
                    Entry::Compressed { offset, length } => {
                        for cluster in offset >> bits..=(offset + length - 1) >> bits {
                            *found.entry(cluster).or_default() += times;
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    fn change_refcounts(&mut self, l1: &[u64], change: Change) -> Result<()> {
        let references = self.references(l1)?;
        // All of it or nothing.
        let maximum = self.refcounts.maximum();
        for (cluster, times) in &references {
            let now = self.refcount(*cluster)?;
            if now == 0 || (change == Change::Decrease && now < *times) {
                return Err(FormatError::image(format!(
                    "Cluster {cluster} is referred to more often than its refcount says: the image must be checked and repaired first"
                )));
            }
            if change == Change::Increase && maximum - now < *times {
                return Err(FormatError::refused(format!(
                    "The refcount of a cluster would exceed the {} bits that the image has for it",
                    1 << self.header.refcount_order
                )));
            }
        }
        for (cluster, times) in references {
            match change {
                Change::Increase => self.increase(cluster, times)?,
                Change::Decrease => {
                    for _ in 0..times {
                        self.decrease(cluster)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Fails if an L1 table cannot be followed.
    pub(super) fn check_references(&mut self, l1: &[u64]) -> Result<()> {
        self.references(l1).map(drop)
    }

    /// Takes one reference from everything that an L1 table reaches. Nothing on the disk may name it any more.
    pub(super) fn drop_references(&mut self, l1: &[u64]) -> Result<()> {
        self.change_refcounts(l1, Change::Decrease)
    }

    /// Sets the flags "nobody else refers to it" in the active tables by the refcounts.
    fn refresh_copied(&mut self) -> Result<()> {
        let bits = self.cluster_bits();
        for l1 in 0..self.l1.len() {
            let table = self.l1[l1] & OFFSET;
            if table == 0 {
                continue;
            }
            let flag = if self.refcount(table >> bits)? == 1 {
                COPIED
            } else {
                0
            };
            if self.l1[l1] != table | flag {
                self.l1[l1] = table | flag;
                self.l1_dirty.insert(l1);
            }
            for index in 0..self.l2_entries() as usize {
                let old = self.table(table)?.entries[index];
                let new = match self.entry_of(old) {
                    Entry::Zero { offset, .. } | Entry::Data { offset, .. } if offset != 0 => {
                        if self.refcount(offset >> bits)? == 1 {
                            old | COPIED
                        } else {
                            old & !COPIED
                        }
                    }
                    _ => old,
                };
                if new != old {
                    let table = self.table(table)?;
                    table.entries[index] = new;
                    table.dirty = true;
                }
            }
        }
        Ok(())
    }

    /// Puts a new table of snapshots in the place of the old one.
    fn store_snapshots(&mut self, snapshots: Vec<Snapshot>) -> Result<()> {
        let bits = self.cluster_bits();
        let bytes = table(&snapshots);
        if bytes.len() as u64 > MAX_TABLE {
            return Err(FormatError::refused("Snapshot table is too large"));
        }
        let old_clusters = Qcow2::snapshot_table_bytes(self).div_ceil(1 << bits);
        let old = self.header.snapshots_offset >> bits;
        let offset = if bytes.is_empty() {
            0
        } else {
            let clusters = (bytes.len() as u64).div_ceil(1 << bits);
            let start = self.allocate_row(clusters)?;
            self.host.write_at(start << bits, &bytes)?;
            start << bits
        };
        // Refcounts and tables first, then the header that names them.
        self.flush()?;
        self.header.snapshots_offset = offset;
        self.header.snapshots = snapshots.len() as u32;
        let mut snapshots = snapshots;
        for snapshot in &mut snapshots {
            snapshot.known_extra = 24;
        }
        self.snapshots = snapshots;
        self.header_dirty = true;
        if old != 0 {
            self.freed.extend(old..old + old_clusters);
        }
        self.flush()
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.snapshots
            .iter()
            .position(|snapshot| snapshot.id == name)
            .or_else(|| {
                self.snapshots
                    .iter()
                    .position(|snapshot| snapshot.name == name)
            })
    }

    fn snapshot_l1(&self, snapshot: &Snapshot) -> Result<Vec<u64>> {
        if snapshot.l1_offset & (self.cluster_size() - 1) != 0 {
            return Err(FormatError::image("Snapshot L1 table offset invalid"));
        }
        read_table(
            &*self.host,
            snapshot.l1_offset,
            snapshot.l1_entries as usize,
        )
        .map_err(|error| in_table("a snapshot's L1 table", error))
    }

    /// Makes `l1` the active table, at a new place, of a disk of `size` bytes.
    pub(super) fn replace_l1(&mut self, l1: Vec<u64>, size: u64) -> Result<()> {
        let bits = self.cluster_bits();
        let old = self.header.l1_offset >> bits;
        let old_clusters = (self.l1.len() as u64 * 8).div_ceil(1 << bits);
        let clusters = (l1.len() as u64 * 8).div_ceil(1 << bits).max(1);
        let start = self.allocate_row(clusters)?;
        self.host.write_at(start << bits, &bytes_of(&l1))?;
        self.flush()?;
        self.header.size = size;
        self.header.l1_offset = start << bits;
        self.header.l1_entries = l1.len() as u32;
        self.l1 = l1;
        self.l1_dirty.clear();
        self.header_dirty = true;
        if old != 0 {
            self.freed.extend(old..old + old_clusters);
        }
        self.flush()
    }
}

impl Qcow2 {
    /// Keeps the disk as it is now under `name`.
    pub fn create_snapshot(&self, name: &str) -> Result<()> {
        let mut meta = self.changing()?;
        if self.external {
            return Err(FormatError::Unsupported);
        }
        if meta.snapshots.len() >= 65536 {
            return Err(FormatError::refused("Too many snapshots"));
        }
        if name.len() > usize::from(u16::MAX) {
            return Err(FormatError::refused("The snapshot's name is too long"));
        }
        let next = meta
            .snapshots
            .iter()
            .filter_map(|snapshot| snapshot.id.parse::<u64>().ok())
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        meta.begin_update()?;
        let l1 = meta.l1.clone();
        meta.change_refcounts(&l1, Change::Increase)?;
        meta.flush()?;
        // From here on nothing that the snapshot will need is written in place.
        meta.refresh_copied()?;
        meta.flush()?;
        let bits = meta.cluster_bits();
        let clusters = (l1.len() as u64 * 8).div_ceil(1 << bits).max(1);
        let start = meta.allocate_row(clusters)?;
        let copy: Vec<u64> = l1.iter().map(|entry| entry & !COPIED).collect();
        meta.host.write_at(start << bits, &bytes_of(&copy))?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut snapshots = meta.snapshots.clone();
        snapshots.push(Snapshot {
            id: next.to_string(),
            name: name.into(),
            date: (now.as_secs() as u32, now.subsec_nanos()),
            vm_clock: 0,
            vm_state_size: 0,
            icount: 0,
            disk_size: meta.header.size,
            l1_offset: start << bits,
            l1_entries: l1.len() as u32,
            extra: Vec::new(),
            known_extra: 24,
        });
        meta.store_snapshots(snapshots)?;
        meta.end_update()
    }

    /// Drops a snapshot, by its ID or name. `false` if there is none.
    pub fn delete_snapshot(&self, name: &str) -> Result<bool> {
        let mut meta = self.changing()?;
        let Some(index) = meta.find(name) else {
            return Ok(false);
        };
        let mut snapshots = meta.snapshots.clone();
        let gone = snapshots.remove(index);
        let l1 = meta.snapshot_l1(&gone)?;
        // Whether the counts can be right is known before anything is changed.
        meta.references(&l1)?;
        meta.begin_update()?;
        meta.store_snapshots(snapshots)?;
        meta.change_refcounts(&l1, Change::Decrease)?;
        let bits = meta.cluster_bits();
        let first = gone.l1_offset >> bits;
        let clusters = (u64::from(gone.l1_entries) * 8).div_ceil(1 << bits).max(1);
        for cluster in first..first + clusters {
            meta.decrease(cluster)?;
        }
        meta.refresh_copied()?;
        meta.end_update()?;
        Ok(true)
    }

    /// Makes the disk what it was. `false` if there is no such snapshot.
    pub fn apply_snapshot(&self, name: &str) -> Result<bool> {
        let mut meta = self.changing()?;
        let Some(index) = meta.find(name) else {
            return Ok(false);
        };
        let snapshot = meta.snapshots[index].clone();
        let size = snapshot.disk_size;
        if size != meta.header.size && meta.header.version < 3 {
            return Err(FormatError::refused(
                "The snapshot has another size than the image",
            ));
        }
        let mut l1 = meta.snapshot_l1(&snapshot)?;
        if l1_entries(size, meta.cluster_bits()) > l1.len() as u64 {
            return Err(FormatError::image("The snapshot's L1 table is too small"));
        }
        for entry in &mut l1 {
            *entry &= OFFSET;
        }
        meta.begin_update()?;
        meta.change_refcounts(&l1, Change::Increase)?;
        meta.flush()?;
        let old = meta.l1.clone();
        meta.replace_l1(l1, size)?;
        self.size.store(size, std::sync::atomic::Ordering::Release);
        meta.change_refcounts(&old, Change::Decrease)?;
        meta.refresh_copied()?;
        meta.end_update()?;
        self.unpacked.lock().clear();
        Ok(true)
    }

    /// Shows a snapshot instead of the disk; for reading only. `false` if there is none.
    pub fn show_snapshot(&self, name: &str) -> Result<bool> {
        let mut meta = self.meta.lock();
        let Some(index) = meta.find(name) else {
            return Ok(false);
        };
        if self.writable {
            return Err(FormatError::refused("the image is open for writing"));
        }
        let snapshot = meta.snapshots[index].clone();
        if l1_entries(snapshot.disk_size, self.cluster_bits) > u64::from(snapshot.l1_entries) {
            return Err(FormatError::image("The snapshot's L1 table is too small"));
        }
        meta.l1 = meta.snapshot_l1(&snapshot)?;
        meta.header.size = snapshot.disk_size;
        self.size
            .store(snapshot.disk_size, std::sync::atomic::Ordering::Release);
        Ok(true)
    }

    /// The L1 tables of all snapshots: where, and what is in them.
    pub(super) fn snapshot_tables(meta: &Meta) -> Vec<(u64, Result<Vec<u64>>)> {
        meta.snapshots
            .iter()
            .map(|snapshot| (snapshot.l1_offset, meta.snapshot_l1(snapshot)))
            .collect()
    }

    /// Bytes of the table of snapshots.
    pub(super) fn snapshot_table_bytes(meta: &Meta) -> u64 {
        meta.snapshots
            .iter()
            .map(|snapshot| {
                let extra = snapshot.known_extra + snapshot.extra.len();
                (40 + extra + snapshot.id.len() + snapshot.name.len()).next_multiple_of(8) as u64
            })
            .sum()
    }
}
