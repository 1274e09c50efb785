//! How often each cluster of the file is referred to, and which are free.

use super::header::Header;
use super::{Meta, bytes_of, in_table, read_table};
use crate::format::{FormatError, Result};
use crate::host::Host;
use std::collections::{BTreeSet, HashMap, HashSet};

/// More bytes of unchanged blocks than this are not kept.
const CACHE: usize = 32 << 20;

/// The refcount table and its blocks, as far as they were needed.
pub(super) struct Refcounts {
    order: u32,
    cluster_bits: u32,
    /// Host offsets of blocks, 0 for none.
    pub(super) table: Vec<u64>,
    table_offset: u64,
    table_clusters: u32,
    /// Entries that are not on the disk yet.
    table_dirty: BTreeSet<usize>,
    /// The table is where the header does not know it yet.
    moved: bool,
    cache: HashMap<usize, Block>,
    /// No cluster below is free.
    hint: u64,
}

struct Block {
    bytes: Vec<u8>,
    dirty: bool,
}

impl Refcounts {
    pub(super) fn open(host: &dyn Host, header: &Header) -> Result<Refcounts> {
        let bytes = (header.refcount_table_clusters as usize) << header.cluster_bits;
        let table = read_table(host, header.refcount_table_offset, bytes / 8)
            .map_err(|error| in_table("reference count table", error))?;
        Ok(Refcounts {
            order: header.refcount_order,
            cluster_bits: header.cluster_bits,
            table,
            table_offset: header.refcount_table_offset,
            table_clusters: header.refcount_table_clusters,
            table_dirty: BTreeSet::new(),
            moved: false,
            cache: HashMap::new(),
            hint: 0,
        })
    }

    /// A table that is all new, at `offset`: nothing of it is on the disk.
    pub(super) fn renew(&mut self, table: Vec<u64>, blocks: Vec<(usize, Vec<u8>)>, offset: u64) {
        self.table = table;
        self.table_offset = offset;
        self.table_clusters = ((self.table.len() * 8) >> self.cluster_bits) as u32;
        self.table_dirty = (0..self.table.len()).collect();
        self.moved = true;
        self.cache = blocks
            .into_iter()
            .map(|(index, bytes)| (index, Block { bytes, dirty: true }))
            .collect();
        self.hint = 0;
    }

    /// Clusters that a block counts.
    pub(super) fn per_block(&self) -> u64 {
        1 << (self.cluster_bits + 3 - self.order)
    }

    pub(super) fn maximum(&self) -> u64 {
        maximum(self.order)
    }

    /// The width of entries from now on: all that is in memory is of no use any more.
    pub(super) fn set_order(&mut self, order: u32) {
        self.order = order;
        self.cache.clear();
    }

    pub(super) fn blocks(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn forget(&mut self) {
        self.cache.clear();
    }

    pub(super) fn look_from_start(&mut self) {
        self.hint = 0;
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.moved || !self.table_dirty.is_empty() || self.cache.values().any(|block| block.dirty)
    }

    pub(super) fn flush_blocks(&mut self, host: &dyn Host) -> Result<()> {
        let mut dirty: Vec<_> = self
            .cache
            .iter_mut()
            .filter(|(_, block)| block.dirty)
            .collect();
        dirty.sort_by_key(|(index, _)| **index);
        for (index, block) in dirty {
            host.write_at(self.table[*index], &block.bytes)?;
            block.dirty = false;
        }
        Ok(())
    }

    /// Writes blocks, then the table. Says where the table is now if the header has to be changed for it, again and again until
    /// [`Refcounts::found`] says that it was.
    pub(super) fn flush(&mut self, host: &dyn Host, durable: bool) -> Result<Option<(u64, u32)>> {
        self.flush_blocks(host)?;
        if self.moved {
            host.write_at(self.table_offset, &bytes_of(&self.table))?;
            self.table_dirty.clear();
            return Ok(Some((self.table_offset, self.table_clusters)));
        }
        if !self.table_dirty.is_empty() && durable {
            host.sync()?;
        }
        while let Some(index) = self.table_dirty.first().copied() {
            let entry = self.table[index].to_be_bytes();
            host.write_at(self.table_offset + index as u64 * 8, &entry)?;
            self.table_dirty.remove(&index);
        }
        Ok(None)
    }

    /// The header on the disk says where the table is.
    pub(super) fn found(&mut self) {
        self.moved = false;
    }

    fn block(&mut self, host: &dyn Host, index: usize) -> Result<Option<&mut Block>> {
        use std::collections::hash_map::Entry;
        let offset = match self.table.get(index) {
            None | Some(0) => return Ok(None),
            Some(offset) => *offset,
        };
        if self.cache.len() << self.cluster_bits > CACHE && !self.cache.contains_key(&index) {
            self.cache.retain(|_, block| block.dirty);
        }
        match self.cache.entry(index) {
            Entry::Occupied(block) => Ok(Some(block.into_mut())),
            Entry::Vacant(place) => {
                if offset & ((1 << self.cluster_bits) - 1) != 0 || offset >> 56 != 0 {
                    return Err(FormatError::image(format!(
                        "Refblock offset {offset:#x} unaligned (reftable index: {index:#x})"
                    )));
                }
                let mut bytes = vec![0; 1 << self.cluster_bits];
                host.read_exact_at(offset, &mut bytes).map_err(|error| {
                    in_table(&format!("the reference count block at {offset:#x}"), error)
                })?;
                let block = Block {
                    bytes,
                    dirty: false,
                };
                Ok(Some(place.insert(block)))
            }
        }
    }

    pub(super) fn get(&mut self, host: &dyn Host, cluster: u64) -> Result<u64> {
        let per_block = self.per_block();
        let order = self.order;
        let index = usize::try_from(cluster / per_block).unwrap_or(usize::MAX);
        Ok(self
            .block(host, index)?
            .map_or(0, |block| get(&block.bytes, order, cluster % per_block)))
    }

    /// The cluster's block must be there.
    pub(super) fn set(&mut self, host: &dyn Host, cluster: u64, value: u64) -> Result<()> {
        let per_block = self.per_block();
        let order = self.order;
        if value > self.maximum() {
            return Err(FormatError::refused(format!(
                "The refcount of a cluster would exceed the {} bits that the image has for it",
                1 << self.order
            )));
        }
        let index = usize::try_from(cluster / per_block).unwrap_or(usize::MAX);
        let Some(block) = self.block(host, index)? else {
            return Err(FormatError::image(format!(
                "The image refers to cluster {cluster}, for which it has no refcount"
            )));
        };
        put(&mut block.bytes, order, cluster % per_block, value);
        block.dirty = true;
        if value == 0 {
            self.hint = self.hint.min(cluster);
        }
        Ok(())
    }
}

/// The largest refcount of 1 << `order` bits.
pub(super) fn maximum(order: u32) -> u64 {
    if order == 6 {
        u64::MAX
    } else {
        (1 << (1 << order)) - 1
    }
}

/// Entry `index` of a block: big-endian words, or bits from the lowest.
pub(super) fn get(bytes: &[u8], order: u32, index: u64) -> u64 {
    let index = index as usize;
    match order {
        0..=2 => {
            let bits = 1usize << order;
            let at = index * bits;
            u64::from(bytes[at / 8] >> (at % 8)) & ((1 << bits) - 1)
        }
        // Nearly every image.
        4 => u64::from(u16::from_be_bytes([bytes[index * 2], bytes[index * 2 + 1]])),
        _ => {
            let width = 1 << (order - 3);
            bytes[index * width..(index + 1) * width]
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
    }
}

pub(super) fn put(bytes: &mut [u8], order: u32, index: u64, value: u64) {
    let index = index as usize;
    match order {
        0..=2 => {
            let bits = 1usize << order;
            let at = index * bits;
            let mask = ((1u16 << bits) - 1) as u8;
            let byte = &mut bytes[at / 8];
            *byte = *byte & !(mask << (at % 8)) | ((value as u8) & mask) << (at % 8);
        }
        _ => {
            let width = 1 << (order - 3);
            bytes[index * width..(index + 1) * width]
                .copy_from_slice(&value.to_be_bytes()[8 - width..]);
        }
    }
}

impl Meta {
    pub(super) fn refcount(&mut self, cluster: u64) -> Result<u64> {
        self.refcounts.get(&*self.host, cluster)
    }

    /// The refcounts of those clusters that are any and whose refcount can be read, each with its index in `clusters`.
    pub(super) fn refcounts_of(&mut self, clusters: &[Option<u64>]) -> Vec<(usize, u64)> {
        let (per_block, order) = (self.refcounts.per_block(), self.refcounts.order);
        let mut found = Vec::with_capacity(clusters.len());
        let mut wanted = clusters
            .iter()
            .enumerate()
            .filter_map(|(at, cluster)| Some((at, (*cluster)?)))
            .peekable();
        // A block is looked up once for all clusters in a row that it counts.
        while let Some((_, cluster)) = wanted.peek().copied() {
            let index = cluster / per_block;
            let block = usize::try_from(index).map_err(|_| FormatError::Unsupported);
            let block = block.and_then(|index| self.refcounts.block(&*self.host, index));
            while let Some((at, cluster)) = wanted.next_if(|(_, c)| c / per_block == index) {
                match &block {
                    Ok(Some(block)) => {
                        found.push((at, get(&block.bytes, order, cluster % per_block)));
                    }
                    Ok(None) => found.push((at, 0)),
                    Err(_) => {}
                }
            }
        }
        found
    }

    pub(super) fn set_refcount(&mut self, cluster: u64, value: u64) -> Result<()> {
        self.refcounts.set(&*self.host, cluster, value)
    }

    pub(super) fn increase(&mut self, cluster: u64, by: u64) -> Result<()> {
        let now = self.refcount(cluster)?;
        if now == 0 {
            return Err(FormatError::image(format!(
                "The image refers to cluster {cluster}, whose refcount is 0: it must be checked and repaired first"
            )));
        }
        self.set_refcount(cluster, now.saturating_add(by))
    }

    pub(super) fn decrease(&mut self, cluster: u64) -> Result<()> {
        let now = self.refcount(cluster)?;
        if now == 0 {
            return Err(FormatError::image(format!(
                "Cluster {cluster} is freed although its refcount is 0: the image must be checked and repaired"
            )));
        }
        self.set_refcount(cluster, now - 1)?;
        if now == 1 {
            if let Some(reserved) = &mut self.reserved {
                reserved.remove(&cluster);
            }
            // Something else may come to be there: no compressed data behind it.
            if self.compressed_end >> self.cluster_bits() == cluster {
                self.compressed_end = 0;
            }
        }
        Ok(())
    }

    /// Sets aside up to `want` clusters in a row, at least one: the first, and how many.
    pub(super) fn allocate(&mut self, want: u64) -> Result<(u64, u64)> {
        let host = self.host.clone();
        let per_block = self.refcounts.per_block();
        let order = self.refcounts.order;
        let mut cluster = self.refcounts.hint;
        loop {
            let index = self.block_index(cluster)?;
            let Some(block) = self.refcounts.block(&*host, index)? else {
                cluster = self.add_block(cluster)?;
                continue;
            };
            let first = index as u64 * per_block;
            let mut at = cluster - first;
            while at < per_block && get(&block.bytes, order, at) != 0 {
                at += 1;
            }
            if at == per_block {
                cluster = first + per_block;
                self.refcounts.hint = cluster;
                continue;
            }
            let start = at;
            while at < per_block && at - start < want && get(&block.bytes, order, at) == 0 {
                put(&mut block.bytes, order, at, 1);
                at += 1;
            }
            block.dirty = true;
            let (cluster, count) = (first + start, at - start);
            self.refcounts.hint = cluster + count;
            self.not_reserved(cluster, count)?;
            return Ok((cluster, count));
        }
    }

    /// Sets aside exactly `count` clusters in a row: one anywhere, several behind everything.
    pub(super) fn allocate_row(&mut self, count: u64) -> Result<u64> {
        if count == 1 {
            let (cluster, _) = self.allocate(1)?;
            let end = (cluster + 1) << self.cluster_bits();
            if self.host.length()? < end {
                self.host.set_length(end)?;
            }
            return Ok(cluster);
        }
        let bits = self.cluster_bits();
        let per_block = self.refcounts.per_block();
        // Blocks that are missing come first, then the clusters themselves.
        let (start, missing) = loop {
            let start = self
                .host
                .length()?
                .div_ceil(1 << bits)
                .max(self.used_end()?);
            let mut missing: Vec<usize> = Vec::new();
            loop {
                let last = start + missing.len() as u64 + count - 1;
                let found: Vec<_> = (start / per_block..=last / per_block)
                    .map(|index| index as usize)
                    .filter(|index| self.refcounts.table.get(*index).is_none_or(|at| *at == 0))
                    .collect();
                if found.len() == missing.len() {
                    break;
                }
                missing = found;
            }
            let last = start + missing.len() as u64 + count - 1;
            let before = self.refcounts.table.len();
            self.block_index(last)?;
            if self.refcounts.table.len() == before {
                break (start, missing);
            }
        };
        let end = start + missing.len() as u64 + count;
        if self.host.length()? < end << bits {
            self.host.set_length(end << bits)?;
        }
        for (place, index) in (start..).zip(&missing) {
            self.refcounts.table[*index] = place << bits;
            self.refcounts.table_dirty.insert(*index);
            let bytes = vec![0; 1 << bits];
            let block = Block { bytes, dirty: true };
            self.refcounts.cache.insert(*index, block);
        }
        for cluster in start..end {
            self.set_refcount(cluster, 1)?;
        }
        Ok(start + missing.len() as u64)
    }

    /// No cluster from here on has a refcount.
    pub(super) fn used_end(&mut self) -> Result<u64> {
        let host = self.host.clone();
        let (per_block, order) = (self.refcounts.per_block(), self.refcounts.order);
        for index in (0..self.refcounts.table.len()).rev() {
            let Some(block) = self.refcounts.block(&*host, index)? else {
                continue;
            };
            if crate::host::is_zero(&block.bytes) {
                continue;
            }
            let last = (0..per_block)
                .rev()
                .find(|at| get(&block.bytes, order, *at) != 0);
            return Ok(index as u64 * per_block + last.map_or(0, |last| last + 1));
        }
        Ok(0)
    }

    /// Sets aside this very cluster if it is free.
    pub(super) fn allocate_at(&mut self, cluster: u64) -> Result<bool> {
        let index = self.block_index(cluster)?;
        if self.refcounts.table[index] == 0 || self.refcount(cluster)? != 0 {
            return Ok(false);
        }
        self.not_reserved(cluster, 1)?;
        self.set_refcount(cluster, 1)?;
        Ok(true)
    }

    /// Takes a block out of the table that counts nothing but itself.
    pub(super) fn drop_block_if_alone(&mut self, cluster: u64, index: usize) -> Result<bool> {
        let host = self.host.clone();
        let per_block = self.refcounts.per_block();
        let order = self.refcounts.order;
        if cluster / per_block != index as u64 {
            return Ok(false);
        }
        let Some(block) = self.refcounts.block(&*host, index)? else {
            return Ok(false);
        };
        let alone = (0..per_block)
            .all(|at| (get(&block.bytes, order, at) != 0) == (at == cluster % per_block));
        if alone {
            self.refcounts.cache.remove(&index);
            self.refcounts.table[index] = 0;
            self.refcounts.table_dirty.insert(index);
            if let Some(reserved) = &mut self.reserved {
                reserved.remove(&cluster);
            }
        }
        Ok(alone)
    }

    /// Which block counts `cluster`, after making the table long enough.
    fn block_index(&mut self, cluster: u64) -> Result<usize> {
        if cluster >> (56 - self.cluster_bits()) != 0 {
            return Err(FormatError::refused("The image file would be too large"));
        }
        let index = (cluster / self.refcounts.per_block()) as usize;
        if index >= self.refcounts.table.len() {
            self.grow_refcount_table(index + 1)?;
        }
        Ok(index)
    }

    /// Makes the block for `cluster`, in the first cluster that it counts and that is surely free. Returns the cluster to
    /// go on with.
    fn add_block(&mut self, cluster: u64) -> Result<u64> {
        let per_block = self.refcounts.per_block();
        let index = (cluster / per_block) as usize;
        // A cluster without a refcount should be free; what is in the file already may be something all the same.
        let end = self.host.length()?.div_ceil(self.cluster_size());
        let place = cluster.max(end);
        if place / per_block != index as u64 {
            return Ok(place);
        }
        let mut bytes = vec![0; self.cluster_size() as usize];
        put(&mut bytes, self.refcounts.order, place % per_block, 1);
        let offset = place << self.cluster_bits();
        // The file must be as long as the table says, whatever fails between.
        self.host.write_at(offset, &bytes)?;
        self.refcounts.table[index] = offset;
        self.refcounts.table_dirty.insert(index);
        self.refcounts
            .cache
            .insert(index, Block { bytes, dirty: true });
        if let Some(reserved) = &mut self.reserved {
            reserved.insert(place);
        }
        Ok(place + 1)
    }

    /// Moves the table behind everything, with room for `needed` blocks and more.
    fn grow_refcount_table(&mut self, needed: usize) -> Result<()> {
        let bits = self.cluster_bits();
        let per_block = self.refcounts.per_block();
        let old = self.refcounts.table.len() as u64;
        let end = self.host.length()?.div_ceil(1 << bits);
        // Everything up to here has a block already or is past the end of the file.
        let start = (old * per_block).max(end.next_multiple_of(per_block));
        let mut entries = (needed as u64)
            .max(start / per_block)
            .max(old + old / 2 + 1)
            .next_multiple_of(self.l2_entries());
        let (table_clusters, blocks) = loop {
            let table_clusters = (entries * 8) >> bits;
            let mut blocks = 1;
            while blocks * per_block < blocks + table_clusters {
                blocks += 1;
            }
            if start / per_block + blocks <= entries {
                break (table_clusters, blocks);
            }
            entries = (start / per_block + blocks).next_multiple_of(self.l2_entries());
        };
        if entries * 8 > 8 << 20 {
            return Err(FormatError::refused("The image file would be too large"));
        }
        let used = blocks + table_clusters;
        self.host
            .set_length(self.host.length()?.max((start + used) << bits))?;
        self.refcounts.table.resize(entries as usize, 0);
        for block in 0..blocks {
            let mut bytes = vec![0; 1 << bits];
            let first = block * per_block;
            for cluster in first..used.min(first + per_block) {
                put(&mut bytes, self.refcounts.order, cluster - first, 1);
            }
            let index = (start / per_block + block) as usize;
            self.refcounts.table[index] = (start + block) << bits;
            self.refcounts
                .cache
                .insert(index, Block { bytes, dirty: true });
        }
        self.refcounts.table_offset = (start + blocks) << bits;
        self.refcounts.table_clusters = table_clusters as u32;
        self.refcounts.moved = true;
        self.reserved = None;
        Ok(())
    }

    /// Fails if one of the clusters holds metadata, as only a damaged image has it.
    fn not_reserved(&mut self, cluster: u64, count: u64) -> Result<()> {
        if self.reserved.is_none() {
            self.reserved = Some(self.metadata_clusters());
        }
        let reserved = self.reserved.as_ref().unwrap();
        match (cluster..cluster + count).find(|cluster| reserved.contains(cluster)) {
            None => Ok(()),
            Some(cluster) => Err(FormatError::image(format!(
                "Cluster {cluster} holds metadata although its refcount is 0: the image must be checked and repaired"
            ))),
        }
    }

    fn metadata_clusters(&self) -> HashSet<u64> {
        let bits = self.cluster_bits();
        let mut found = HashSet::from([0]);
        let mut add = |offset: u64, bytes: u64| {
            if bytes > 0 {
                found.extend(offset >> bits..(offset + bytes).div_ceil(1 << bits));
            }
        };
        add(self.header.l1_offset, self.l1.len() as u64 * 8);
        add(
            self.header.refcount_table_offset,
            u64::from(self.header.refcount_table_clusters) << bits,
        );
        add(
            self.refcounts.table_offset,
            self.refcounts.table.len() as u64 * 8,
        );
        add(
            self.header.snapshots_offset,
            u64::from(self.header.snapshots) * 40,
        );
        for snapshot in &self.snapshots {
            add(snapshot.l1_offset, u64::from(snapshot.l1_entries) * 8);
        }
        for entry in self.l1.iter().filter(|entry| **entry != 0) {
            found.insert((entry & super::OFFSET) >> bits);
        }
        for offset in self.refcounts.table.iter().filter(|offset| **offset != 0) {
            found.insert(offset >> bits);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_every_width() {
        for order in 0..=6 {
            let mut bytes = vec![0; 512];
            let count = (512 * 8) >> order;
            let mask = if order == 6 {
                u64::MAX
            } else {
                (1 << (1 << order)) - 1
            };
            let value = |index: u64| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3) & mask;
            for index in 0..count {
                put(&mut bytes, order, index, value(index));
            }
            for index in 0..count {
                assert_eq!(get(&bytes, order, index), value(index), "order {order}");
            }
        }
        // From the specification: 16 bits are a big-endian word; single bits begin with the lowest.
        let mut bytes = [0; 4];
        put(&mut bytes, 4, 1, 0x102);
        assert_eq!(bytes, [0, 0, 1, 2]);
        put(&mut bytes, 0, 3, 1);
        assert_eq!(bytes[0], 8);
    }
}
