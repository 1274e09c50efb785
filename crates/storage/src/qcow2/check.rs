//! Whether all refcounts are what the references say, and making them so.

use super::header::{CORRUPT, DIRTY};
use super::mapping::Entry;
use super::refcounts;
use super::{COPIED, Meta, OFFSET, Qcow2, Table, read_table};
use crate::format::{FormatError, Result};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What [`Qcow2::check`] mends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    #[default]
    Nothing,
    /// Clusters that nothing refers to.
    Leaks,
    All,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Clusters that nothing refers to, or fewer than are counted: space lost, no harm.
    pub leaks: u64,
    pub corruptions: u64,
    pub leaks_fixed: u64,
    pub corruptions_fixed: u64,
    /// Parts that could not be looked at.
    pub check_errors: u64,
    /// Of the active disk's clusters: in use, not behind their predecessor, compressed.
    pub allocated: u64,
    pub fragmented: u64,
    pub compressed: u64,
    pub total_clusters: u64,
    /// Where the last cluster that is in use ends.
    pub image_end: u64,
    /// The refcounts have to be made anew, which only [`Repair::All`] does: nothing was repaired.
    pub incomplete: bool,
    /// Those of the corruptions that a new set of refcounts makes good.
    corruptions_in_refcounts: u64,
    /// One for each of the above that is wrong, up to [`CheckReport::MAX_MESSAGES`].
    pub messages: Vec<String>,
}

impl CheckReport {
    pub const MAX_MESSAGES: usize = 10_000;

    fn say(&mut self, message: String) {
        if self.messages.len() < CheckReport::MAX_MESSAGES {
            self.messages.push(message);
        }
    }

    fn corrupt(&mut self, message: String) {
        self.corruptions += 1;
        self.say(format!("ERROR {message}"));
    }
}

/// References to clusters, in pages that exist where there are any.
#[derive(Default)]
struct Counts {
    pages: BTreeMap<u64, Box<[u32]>>,
}

const PAGE: u64 = 4096;

/// Bits of an L2 entry of a standard cluster that mean nothing yet.
const RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// More wrong refcounts than this are not listed (and would be 96 MiB).
const MAX_WRONG: usize = 4 << 20;

impl Counts {
    /// Counts `times` references to each cluster from `first` to `last`.
    fn add(&mut self, mut first: u64, last: u64, times: u64) {
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        while first <= last {
            let end = last.min(first | (PAGE - 1));
            let page = self
                .pages
                .entry(first / PAGE)
                .or_insert_with(|| vec![0; PAGE as usize].into());
            for count in &mut page[(first % PAGE) as usize..=(end % PAGE) as usize] {
                *count = count.saturating_add(times);
            }
            first = end + 1;
        }
    }

    /// The counts from `cluster` on, up to the end of their page; `None` if they are all 0.
    fn from(&self, cluster: u64) -> Option<&[u32]> {
        let page = self.pages.get(&(cluster / PAGE))?;
        Some(&page[(cluster % PAGE) as usize..])
    }

    fn get(&self, cluster: u64) -> u64 {
        self.pages
            .get(&(cluster / PAGE))
            .map_or(0, |page| u64::from(page[(cluster % PAGE) as usize]))
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.pages.iter().flat_map(|(page, counts)| {
            counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count != 0)
                .map(move |(at, count)| (page * PAGE + at as u64, u64::from(*count)))
        })
    }
}

pub(super) struct Check<'a> {
    meta: &'a mut Meta,
    report: CheckReport,
    counts: Counts,
    /// Clusters of the file, the last one perhaps in part.
    clusters: u64,
    /// Refcount blocks that cannot be used: all must be made anew.
    rebuild: bool,
    bad_blocks: HashSet<usize>,
}

impl<'a> Check<'a> {
    fn new(meta: &'a mut Meta) -> Result<Check<'a>> {
        let bits = meta.cluster_bits();
        Ok(Check {
            report: CheckReport {
                total_clusters: meta.header.size.div_ceil(1 << bits),
                ..CheckReport::default()
            },
            clusters: meta.host.length()?.div_ceil(1 << bits),
            meta,
            counts: Counts::default(),
            rebuild: false,
            bad_blocks: HashSet::new(),
        })
    }

    /// Writes the refcounts of a whole image anew, 1 << `order` bits each.
    pub(super) fn change_width(meta: &mut Meta, order: u32) -> Result<()> {
        let maximum = refcounts::maximum(order);
        let mut check = Check::new(meta)?;
        check.count();
        if let Some((cluster, count)) = check.counts.iter().find(|(_, count)| *count > maximum) {
            return Err(FormatError::refused(format!(
                "Cannot decrease refcount entry width to {} bits: Cluster {cluster} has a refcount of {count}",
                1 << order
            )));
        }
        check.counts = Counts::default();
        check.meta.refcounts.set_order(order);
        check.meta.header.refcount_order = order;
        check.rebuild_refcounts()
    }

    /// Counts references to all clusters of a region of the file.
    fn region(&mut self, offset: u64, bytes: u64, times: u64) -> bool {
        let bits = self.meta.cluster_bits();
        if bytes == 0 {
            return true;
        }
        let last = (offset + bytes - 1) >> bits;
        // A region may go past the end in its last cluster.
        if last >= self.clusters {
            self.report.corruptions += 1;
            self.report.say(format!(
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset {offset:#x} size {bytes:#x}"
            ));
            return false;
        }
        self.counts.add(offset >> bits, last, times);
        true
    }

    fn table(&mut self, offset: u64) -> Option<Table> {
        let entries = self.meta.l2_entries() as usize;
        if let Some(table) = self.meta.tables.get(&offset) {
            return Some(Table {
                entries: table.entries.clone(),
                dirty: false,
            });
        }
        match read_table(&*self.meta.host, offset, entries) {
            Ok(entries) => Some(Table {
                entries,
                dirty: false,
            }),
            Err(_) => {
                self.report.check_errors += 1;
                self.report.say(format!("ERROR: I/O error in check_refcounts_l2: the L2 table at {offset:#x} cannot be read"));
                None
            }
        }
    }

    /// Counts what L1 tables refer to: each L2 table is read once, however many name it.
    fn references(&mut self, l1_tables: &[(bool, Vec<u64>)]) {
        let size = self.meta.cluster_size();
        let mut tables: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
        for (active, l1) in l1_tables {
            let mut here = HashSet::new();
            for entry in l1 {
                let offset = entry & OFFSET;
                if offset == 0 {
                    continue;
                }
                if entry & !(OFFSET | COPIED) != 0 {
                    self.report
                        .corrupt(format!("found L1 entry with reserved bits set: {entry:x}"));
                }
                if offset & (size - 1) != 0 {
                    self.report.corrupt(format!(
                        "l2_offset={offset:x}: Table is not cluster aligned; L1 entry corrupted"
                    ));
                    continue;
                }
                if !here.insert(offset) {
                    self.report.corrupt(format!(
                        "l2_offset={offset:x}: Table is named twice by one L1 table"
                    ));
                }
                let table = tables.entry(offset).or_insert((0, false));
                table.0 += 1;
                table.1 |= *active;
            }
        }
        for (offset, (times, active)) in tables {
            if !self.region(offset, size, times) {
                continue;
            }
            if let Some(table) = self.table(offset) {
                self.l2(&table.entries, times, active);
            }
        }
    }

    fn l2(&mut self, entries: &[u64], times: u64, active: bool) {
        let size = self.meta.cluster_size();
        let external = self.meta.header.incompatible & super::header::EXTERNAL_DATA != 0;
        let mut contiguous = 0;
        // Clusters in a row that are counted at once: offset and end.
        let mut row = (0, 0);
        for entry in entries {
            match self.meta.entry_of(*entry) {
                Entry::Unallocated | Entry::Zero { offset: 0, .. } => {}
                Entry::Compressed { offset, length } => {
                    if entry & COPIED != 0 {
                        self.report.corruptions += 1;
                        self.report.say(format!(
                            "ERROR: coffset={offset:#x}: copied flag must never be set for compressed clusters"
                        ));
                    }
                    if external {
                        self.report.corrupt(format!(
                            "compressed cluster at {offset:x} in image with external data file"
                        ));
                        continue;
                    }
                    self.region(offset, length, times);
                    if active {
                        self.report.allocated += 1;
                        self.report.compressed += 1;
                        self.report.fragmented += 1;
                    }
                }
                Entry::Zero { offset, .. } | Entry::Data { offset, .. } => {
                    if entry & RESERVED != 0 {
                        self.report
                            .corrupt(format!("found l2 entry with reserved bits set: {entry:x}"));
                    }
                    if offset & (size - 1) != 0 {
                        self.report.corrupt(format!(
                            "offset={offset:x}: Data cluster is not properly aligned; L2 entry corrupted."
                        ));
                    }
                    if active {
                        self.report.allocated += 1;
                        if contiguous != 0 && offset != contiguous {
                            self.report.fragmented += 1;
                        }
                        contiguous = offset + size;
                    }
                    if external {
                        continue;
                    }
                    let inside = offset & (size - 1) == 0
                        && offset >> self.meta.cluster_bits() < self.clusters;
                    if !inside {
                        self.region(offset, size, times);
                    } else if offset == row.1 {
                        row.1 += size;
                    } else {
                        self.region(row.0, row.1 - row.0, times);
                        row = (offset, offset + size);
                    }
                }
            }
        }
        self.region(row.0, row.1 - row.0, times);
    }

    /// Everything that is not the refcounts themselves.
    fn count(&mut self) {
        self.counts.add(0, 0, 1);
        let mut tables = vec![(true, self.meta.l1.clone())];
        let bytes = self.meta.l1.len() as u64 * 8;
        self.region(self.meta.header.l1_offset, bytes, 1);
        for (offset, l1) in Qcow2::snapshot_tables(self.meta) {
            match l1 {
                Ok(l1) => {
                    self.region(offset, l1.len() as u64 * 8, 1);
                    tables.push((false, l1));
                }
                Err(error) => {
                    self.report.check_errors += 1;
                    self.report.say(format!("ERROR {error}"));
                }
            }
        }
        self.references(&tables);
        let bytes = Qcow2::snapshot_table_bytes(self.meta);
        self.region(self.meta.header.snapshots_offset, bytes, 1);
    }

    fn count_refcount_structures(&mut self) {
        let bits = self.meta.cluster_bits();
        let header = &self.meta.header;
        let table = (
            header.refcount_table_offset,
            u64::from(header.refcount_table_clusters) << bits,
        );
        self.region(table.0, table.1, 1);
        let mut seen = HashSet::new();
        for (index, offset) in self.meta.refcounts.table.clone().into_iter().enumerate() {
            if offset == 0 {
                continue;
            }
            if offset & ((1 << bits) - 1) != 0 {
                self.report.corrupt(format!(
                    "refcount block {index} is not cluster aligned; refcount table entry corrupted"
                ));
            } else if offset >> bits >= self.clusters {
                self.report
                    .corrupt(format!("refcount block {index} is outside image"));
            } else if !seen.insert(offset) {
                self.report
                    .corrupt(format!("refcount block {index} is named twice"));
            } else {
                self.region(offset, 1 << bits, 1);
                continue;
            }
            self.rebuild = true;
            self.report.corruptions_in_refcounts += 1;
            self.bad_blocks.insert(index);
        }
        // What something else refers to is not a block of refcounts.
        for offset in seen {
            if self.counts.get(offset >> bits) > 1 {
                self.rebuild = true;
                self.report.corruptions_in_refcounts += 1;
                self.report.corrupt(format!(
                    "refcount block at {offset:#x} is used for something else too"
                ));
            }
        }
    }

    /// What each cluster's refcount is and should be, where that is not the same: cluster, has, should.
    fn compare(&mut self) -> Result<Vec<(u64, u64, u64)>> {
        let bits = self.meta.cluster_bits();
        let per_block = self.meta.refcounts.per_block();
        let order = self.meta.header.refcount_order;
        let mut wrong = Vec::new();
        let mut last = 0;
        let mut block = vec![0; 1 << bits];
        for index in 0..self.clusters.div_ceil(per_block) {
            let first = index * per_block;
            let end = self.clusters.min(first + per_block);
            if !self.load(index as usize, &mut block) {
                block.fill(0);
            }
            let referred = self
                .counts
                .pages
                .range(first / PAGE..=(end - 1) / PAGE)
                .next()
                .is_some();
            if !referred && crate::host::is_zero(&block) {
                continue;
            }
            let mut start = first;
            while start < end {
                let stop = end.min((start | (PAGE - 1)) + 1);
                let counts = self.counts.from(start);
                for cluster in start..stop {
                    let has = refcounts::get(&block, order, cluster - first);
                    let should =
                        counts.map_or(0, |counts| u64::from(counts[(cluster - start) as usize]));
                    if has > 0 || should > 0 {
                        last = cluster + 1;
                    }
                    if has != should {
                        wrong.push((cluster, has, should));
                        if wrong.len() > MAX_WRONG {
                            return Err(FormatError::image(
                                "so many refcounts are wrong that they cannot be listed",
                            ));
                        }
                    }
                }
                start = stop;
            }
        }
        self.report.image_end = last << bits;
        Ok(wrong)
    }

    /// Reads a block of refcounts from the disk, unless there is none that can be used.
    fn load(&mut self, index: usize, into: &mut [u8]) -> bool {
        let offset = self.meta.refcounts.table.get(index).copied().unwrap_or(0);
        if offset == 0 || self.bad_blocks.contains(&index) {
            return false;
        }
        let read = self.meta.host.read_exact_at(offset, into).is_ok();
        if !read {
            self.report
                .corrupt(format!("refcount block {index} cannot be read"));
            self.report.corruptions_in_refcounts += 1;
            self.bad_blocks.insert(index);
            self.rebuild = true;
        }
        read
    }

    /// Compares and, where `repair` says so, mends. Counts that are too low are raised before any is lowered.
    fn refcounts(&mut self, repair: Repair) -> Result<()> {
        let wrong = self.compare()?;
        for (cluster, has, should) in &wrong {
            let word = if has > should { "Leaked" } else { "ERROR" };
            self.report.say(format!(
                "{word} cluster {cluster} refcount={has} reference={should}"
            ));
        }
        let leaks = wrong.iter().filter(|(_, has, should)| has > should).count() as u64;
        let low = wrong.len() as u64 - leaks;
        // What is used but counts as free cannot be set right in place: where would the counts go that are missing?
        self.rebuild |= wrong.iter().any(|(_, has, _)| *has == 0);
        if self.rebuild && repair == Repair::Leaks {
            self.report
                .say("ERROR need to rebuild refcount structures".into());
            self.report.incomplete = true;
            return Ok(());
        }
        if self.rebuild && repair == Repair::All {
            // Blocks that cannot be used are gone with the rest.
            let structures = std::mem::take(&mut self.report.corruptions_in_refcounts);
            self.report.corruptions -= structures;
            self.report.corruptions_fixed += low + structures;
            self.report.leaks_fixed += leaks;
            return self.rebuild_refcounts();
        }
        let fixes = |leak: bool| repair == Repair::All || (leak && repair == Repair::Leaks);
        // The second pass, as QEMU's, says again what it leaves alone.
        let mending = repair != Repair::Nothing;
        let (mut raise, mut lower) = (Vec::new(), Vec::new());
        for (cluster, has, should) in wrong {
            let leak = has > should;
            let (counter, word) = match (leak, fixes(leak)) {
                (true, true) => (&mut self.report.leaks_fixed, "Repairing"),
                (true, false) => (&mut self.report.leaks, "Leaked"),
                (false, true) => (&mut self.report.corruptions_fixed, "Repairing"),
                (false, false) => (&mut self.report.corruptions, "ERROR"),
            };
            *counter += 1;
            if mending {
                self.report.say(format!(
                    "{word} cluster {cluster} refcount={has} reference={should}"
                ));
            }
            if fixes(leak) {
                let list = if leak { &mut lower } else { &mut raise };
                list.push((cluster, should));
            }
        }
        if repair != Repair::Nothing {
            lower.extend(self.counted_past_the_end()?);
        }
        for list in [raise, lower] {
            for (cluster, should) in list {
                self.meta.set_refcount(cluster, should)?;
            }
            self.meta.flush()?;
        }
        Ok(())
    }

    /// Clusters past the end of the file that count as used: they were set aside, and then the file could not grow. They are
    /// no leaks as yet, which is why nobody reports them.
    fn counted_past_the_end(&mut self) -> Result<Vec<(u64, u64)>> {
        let per_block = self.meta.refcounts.per_block();
        let order = self.meta.header.refcount_order;
        let mut found = Vec::new();
        let mut block = vec![0; 1 << self.meta.cluster_bits()];
        let blocks = self.meta.refcounts.table.len() as u64;
        for index in self.clusters / per_block..blocks {
            if !self.load(index as usize, &mut block) || crate::host::is_zero(&block) {
                continue;
            }
            let first = (index * per_block).max(self.clusters);
            for cluster in first..(index + 1) * per_block {
                if refcounts::get(&block, order, cluster % per_block) != 0
                    && self.counts.get(cluster) == 0
                    && found.len() < MAX_WRONG
                {
                    found.push((cluster, 0));
                }
            }
        }
        Ok(found)
    }

    /// Writes all refcounts anew, behind everything else, and only then lets the header name them.
    fn rebuild_refcounts(&mut self) -> Result<()> {
        self.report.say("Rebuilding refcount structure".into());
        let bits = self.meta.cluster_bits();
        let per_block = self.meta.refcounts.per_block();
        let order = self.meta.header.refcount_order;
        // Only what the disk itself needs: the old structures go.
        let before = self.report.clone();
        let old = std::mem::take(&mut self.counts);
        self.count();
        self.report = before;
        for (cluster, had) in old.iter() {
            let has = self.counts.get(cluster);
            if has < had {
                self.report.say(format!(
                    "Repairing cluster {cluster} refcount={had} reference={has}"
                ));
            }
        }
        let start = self.meta.host.length()?.div_ceil(1 << bits);
        let entries_per_cluster = self.meta.l2_entries();
        let mut used: std::collections::BTreeSet<u64> = self
            .counts
            .iter()
            .map(|(cluster, _)| cluster / per_block)
            .collect();
        let (mut blocks, mut table_clusters) = (used.len() as u64, 1);
        loop {
            let end = start + blocks + table_clusters;
            used.extend(start / per_block..=(end - 1) / per_block);
            let entries = used.last().unwrap() + 1;
            let next = (used.len() as u64, entries.div_ceil(entries_per_cluster));
            if next == (blocks, table_clusters) {
                break;
            }
            (blocks, table_clusters) = next;
        }
        if table_clusters << bits > 8 << 20 {
            return Err(FormatError::image("the refcount table would be too large"));
        }
        self.counts
            .add(start, start + blocks + table_clusters - 1, 1);
        let mut table = vec![0; (table_clusters * entries_per_cluster) as usize];
        let mut contents: HashMap<u64, Vec<u8>> = HashMap::new();
        let maximum = self.meta.refcounts.maximum();
        for (cluster, count) in self.counts.iter() {
            let block = contents
                .entry(cluster / per_block)
                .or_insert_with(|| vec![0; 1 << bits]);
            refcounts::put(block, order, cluster % per_block, count.min(maximum));
        }
        let mut list = Vec::new();
        for (place, index) in (start..).zip(&used) {
            table[*index as usize] = place << bits;
            let bytes = contents.remove(index).unwrap_or_else(|| vec![0; 1 << bits]);
            list.push((*index as usize, bytes));
        }
        let end = start + blocks + table_clusters;
        self.meta.host.set_length(end << bits)?;
        self.meta
            .refcounts
            .renew(table, list, (start + blocks) << bits);
        let durable = self.meta.durable;
        let host = self.meta.host.clone();
        self.meta.barrier()?;
        if let Some((offset, clusters)) = self.meta.refcounts.flush(&*host, durable)? {
            self.meta.barrier()?;
            self.meta.header.refcount_table_offset = offset;
            self.meta.header.refcount_table_clusters = clusters;
            self.meta.write_header()?;
            self.meta.barrier()?;
            self.meta.refcounts.found();
        }
        self.meta.reserved = None;
        self.report.image_end = end << bits;
        Ok(())
    }

    /// The flags "nobody else refers to it" must be so; without right refcounts they cannot be looked at.
    fn copied(&mut self, fix: bool) -> Result<()> {
        let bits = self.meta.cluster_bits();
        let size = self.meta.cluster_size();
        let external = self.meta.header.incompatible & super::header::EXTERNAL_DATA != 0;
        let mut seen = HashSet::new();
        for index in 0..self.meta.l1.len() {
            let entry = self.meta.l1[index];
            let offset = entry & OFFSET;
            if offset == 0 || offset & (size - 1) != 0 || !seen.insert(offset) {
                continue;
            }
            let Ok(refcount) = self.meta.refcount(offset >> bits) else {
                continue;
            };
            if (refcount == 1) != (entry & COPIED != 0) {
                self.flag(fix, format!("OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={refcount}"));
                if fix {
                    self.meta.l1[index] = if refcount == 1 {
                        offset | COPIED
                    } else {
                        offset
                    };
                    self.meta.l1_dirty.insert(index);
                }
            }
            let Some(mut table) = self.table(offset) else {
                self.report.check_errors -= 1;
                continue;
            };
            let clusters: Vec<Option<u64>> = table
                .entries
                .iter()
                .map(|entry| match self.meta.entry_of(*entry) {
                    Entry::Data { offset, .. } | Entry::Zero { offset, .. }
                        if !external && offset != 0 =>
                    {
                        Some(offset >> bits)
                    }
                    _ => None,
                })
                .collect();
            for (at, refcount) in self.meta.refcounts_of(&clusters) {
                let entry = table.entries[at];
                if (refcount == 1) != (entry & COPIED != 0) {
                    self.flag(
                        fix,
                        format!(
                            "OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={refcount}"
                        ),
                    );
                    if fix {
                        table.entries[at] = if refcount == 1 {
                            entry | COPIED
                        } else {
                            entry & !COPIED
                        };
                        table.dirty = true;
                    }
                }
            }
            if table.dirty {
                self.meta.trim()?;
                self.meta.tables.insert(offset, table);
            }
        }
        if fix {
            self.meta.flush()?;
        }
        Ok(())
    }

    fn flag(&mut self, fix: bool, what: String) {
        if fix {
            self.report.corruptions_fixed += 1;
            self.report.say(format!("Repairing {what}"));
        } else {
            self.report.corrupt(what);
        }
    }
}

impl Qcow2 {
    /// Compares all refcounts with all references, and mends what `repair` says.
    pub fn check(&self, repair: Repair) -> Result<CheckReport> {
        let mut meta = if repair == Repair::Nothing {
            self.meta.lock()
        } else {
            self.changing()?
        };
        if meta.header.has_bitmaps {
            return Err(FormatError::refused(
                "Images with persistent bitmaps cannot be checked",
            ));
        }
        if self.writable {
            meta.settle()?;
        }
        let mut check = Check::new(&mut meta)?;
        check.count();
        check.count_refcount_structures();
        check.refcounts(repair)?;
        if !check.report.incomplete {
            // The flags are set by the refcounts: these must be right before.
            let right = check.report.corruptions == 0 && repair == Repair::Leaks;
            check.copied(repair == Repair::All || right)?;
        }
        let report = check.report;
        let clean = report.corruptions == 0 && report.check_errors == 0 && !report.incomplete;
        let marks = DIRTY | CORRUPT;
        if repair != Repair::Nothing && clean && meta.header.incompatible & marks != 0 {
            meta.header.incompatible &= !marks;
            meta.header_dirty = true;
            meta.flush()?;
        }
        Ok(report)
    }
}
