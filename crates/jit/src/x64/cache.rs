//! The code cache of one processor: blocks, where they came from, and how they lead to each other.
//!
//! The region is filled a segment at a time. When all are full, the oldest segment's blocks go to make room: so the
//! cache is bounded, and what a full cache costs is spread. Blocks are found by the physical page that they were made of
//! and the key that they were made for, so that they outlive changes of translation.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;

use memory::Code as Marks;

use super::emitter::{self, Thunks};
use super::region::Region;
use super::thunks;

/// More than a block's code ever takes, however long its instructions' code is: what is longer is cut and made again.
pub const BLOCK_BYTES: usize = 48 << 10;
/// For the thunks.
const HEAD: usize = 8192;
const ABSENT: u32 = u32::MAX;

/// How often a jump to another page is looked up before it is linked for the first time.
pub const PATIENCE: i32 = 8;
/// And how often before it is linked again, for another context or page: twice as often each time, up to so many times. Two
/// processes that execute the same code would otherwise have it linked at each switch.
const AGAIN: i32 = 64;
const MOST_LINKS: u8 = 12;
/// Instructions in a page.
const WORDS: usize = 1024;

/// A segment's number in bits 31:24, and a number in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitId(pub u32);

fn id(segment: usize, index: usize) -> u32 {
    (segment as u32) << 24 | index as u32
}

fn parts(id: u32) -> (usize, usize) {
    ((id >> 24) as usize, (id & 0xff_ffff) as usize)
}

struct Block {
    /// Index into [`Cache::pages`].
    page: u32,
    /// The first instruction.
    first: u16,
    /// The lines of the page that it was made of.
    lines: u64,
    /// It is a whole loop.
    loops: bool,
    /// Where its code is in the region.
    entry: u32,
    alive: bool,
    /// Numbers of its exits in its segment: the first, and how many.
    exits: (u32, u32),
    /// Exits that were linked to it.
    incoming: Vec<ExitId>,
}

/// A direct jump out of a block.
struct Exit {
    /// Of its displacement in the region, and of the code it leads to when not linked.
    at: u32,
    stub: u32,
    page: u32,
    /// From the start of the page.
    to: i32,
    /// To another page: what it compares, in the region.
    far: Option<emitter::Far>,
    /// How often it was linked, up to a number.
    links: u8,
    linked: Option<BlockId>,
    /// Its block is: else its code may have made way to what leads elsewhere, and is not to be patched.
    alive: bool,
}

struct Segment {
    start: usize,
    end: usize,
    cursor: usize,
    blocks: Vec<Block>,
    exits: Vec<Exit>,
}

struct Page {
    physical: u64,
    key: u16,
    /// Not plain RAM: what is read there may change with the memory map.
    foreign: bool,
    blocks: Vec<BlockId>,
    /// The block that starts at each instruction.
    starts: Box<[Start; WORDS]>,
}

/// A block and where its code is in the region: what a look-up needs lies in one line of the host's cache.
#[derive(Clone, Copy)]
struct Start {
    id: u32,
    entry: u32,
}

const NO_START: Start = Start {
    id: ABSENT,
    entry: 0,
};

/// A block and the address of its code.
#[derive(Clone, Copy)]
pub struct Entry {
    pub block: BlockId,
    pub address: usize,
}

/// A hasher for keys that are numbers.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 29;
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// Pages remembered by their address alone.
const RECENT: usize = 256;

pub struct Cache {
    region: Region,
    thunks: Thunks,
    segments: Vec<Segment>,
    current: usize,
    pages: Vec<Page>,
    free: Vec<u32>,
    by_address: Map<(u64, u16), u32>,
    by_slot: Map<u32, Vec<u32>>,
    recent: Box<[(u64, u16, u32); RECENT]>,
    /// Counts segments emptied, and everything forgotten at once: numbers of exits from before mean nothing.
    pub evictions: u64,
    pub invalidated: u64,
}

impl Cache {
    /// A cache of about `size` bytes, in memory without a file if `anonymous`. The thunks call `functions`.
    pub fn new(size: usize, anonymous: bool, functions: &thunks::Functions) -> io::Result<Cache> {
        let size = size.clamp(4 * BLOCK_BYTES, 1 << 30).next_multiple_of(4096);
        let mut region = Region::new(size, anonymous)?;
        let (code, thunks) = thunks::emit(region.address(0), functions);
        assert!(code.len() <= HEAD);
        region.put(0, &code);
        let count = if size < 4 << 20 { 2 } else { 8 };
        let each = ((size - HEAD) / count) & !63;
        let segments = (0..count)
            .map(|i| Segment {
                start: HEAD + i * each,
                end: HEAD + (i + 1) * each,
                cursor: HEAD + i * each,
                blocks: Vec::new(),
                exits: Vec::new(),
            })
            .collect();
        Ok(Cache {
            region,
            thunks,
            segments,
            current: 0,
            pages: Vec::new(),
            free: Vec::new(),
            by_address: Map::default(),
            by_slot: Map::default(),
            recent: Box::new([(u64::MAX, 0, 0); RECENT]),
            evictions: 0,
            invalidated: 0,
        })
    }

    pub fn thunks(&self) -> &Thunks {
        &self.thunks
    }

    fn block(&self, id: BlockId) -> Option<&Block> {
        let (segment, index) = parts(id.0);
        self.segments[segment].blocks.get(index)
    }

    fn block_mut(&mut self, id: BlockId) -> Option<&mut Block> {
        let (segment, index) = parts(id.0);
        self.segments[segment].blocks.get_mut(index)
    }

    // ---- finding

    /// The page at a physical address, for a key's number, if it is known.
    pub fn page(&mut self, physical: u64, key: u16) -> Option<u32> {
        let slot = (physical >> 12) as usize % RECENT;
        let recent = self.recent[slot];
        if recent.0 == physical && recent.1 == key {
            return Some(recent.2);
        }
        let page = *self.by_address.get(&(physical, key))?;
        self.recent[slot] = (physical, key, page);
        Some(page)
    }

    /// Makes a page known. `foreign`: it is not plain RAM.
    pub fn add_page(&mut self, physical: u64, key: u16, foreign: bool) -> u32 {
        let page = Page {
            physical,
            key,
            foreign,
            blocks: Vec::new(),
            starts: Box::new([NO_START; WORDS]),
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.pages[index as usize] = page;
                index
            }
            None => {
                self.pages.push(page);
                self.pages.len() as u32 - 1
            }
        };
        self.by_address.insert((physical, key), index);
        self.by_slot
            .entry(Marks::slot(physical))
            .or_default()
            .push(index);
        index
    }

    /// The block that starts at an offset into a page.
    pub fn at(&self, page: u32, offset: u32) -> Option<Entry> {
        let start = self.pages[page as usize].starts[(offset >> 2) as usize % WORDS];
        (start.id != ABSENT).then(|| Entry {
            block: BlockId(start.id),
            address: self.region.address(start.entry as usize),
        })
    }

    /// Where a block's code is.
    pub fn address(&self, id: BlockId) -> usize {
        self.block(id)
            .map_or(0, |block| self.region.address(block.entry as usize))
    }

    /// Whether a block is a whole loop.
    pub fn is_loop(&self, id: BlockId) -> bool {
        self.block(id).is_some_and(|block| block.loops)
    }

    // ---- adding

    /// Makes room for a block; the address that its code will have. Blocks may go for it.
    pub fn reserve(&mut self) -> usize {
        // A page's table takes as much memory as the code of a few blocks.
        if self.by_address.len() >= (self.region.size() >> 12).max(64) {
            self.clear();
        }
        if self.segments[self.current].end - self.segments[self.current].cursor < BLOCK_BYTES {
            self.current = (self.current + 1) % self.segments.len();
            self.evict(self.current);
        }
        self.region.address(self.segments[self.current].cursor)
    }

    /// Adds the block whose code was emitted at the address [`Cache::reserve`] gave, and that was made of some lines of
    /// its page. It takes the place of one that starts there already.
    pub fn place(
        &mut self,
        page: u32,
        first: u32,
        lines: u64,
        loops: bool,
        code: &mut [u8],
        exits: &[emitter::Exit],
    ) -> BlockId {
        if let Some(old) = self.at(page, first) {
            self.kill(old.block);
            self.pages[page as usize]
                .blocks
                .retain(|&id| id != old.block);
        }
        let current = self.current;
        let segment = &mut self.segments[current];
        let at = segment.cursor;
        let numbers = (segment.exits.len() as u32, exits.len() as u32);
        for exit in exits {
            let number = id(current, segment.exits.len());
            // The operand of the stub's first instruction.
            let operand = exit.stub as usize + 1;
            code[operand..operand + 4].copy_from_slice(&number.to_le_bytes());
            segment.exits.push(Exit {
                at: at as u32 + exit.at,
                stub: at as u32 + exit.stub,
                page,
                to: exit.to,
                far: exit.far.map(|far| emitter::Far {
                    context: at as u32 + far.context,
                    page: at as u32 + far.page,
                    ..far
                }),
                links: 0,
                linked: None,
                alive: true,
            });
        }
        self.region.put(at, code);
        segment.cursor = (at + code.len()).next_multiple_of(16).min(segment.end);
        let block = BlockId(id(current, segment.blocks.len()));
        segment.blocks.push(Block {
            page,
            first: (first >> 2) as u16,
            lines,
            loops,
            entry: at as u32,
            alive: true,
            exits: numbers,
            incoming: Vec::new(),
        });
        let page = &mut self.pages[page as usize];
        page.starts[(first >> 2) as usize % WORDS] = Start {
            id: block.0,
            entry: at as u32,
        };
        page.blocks.push(block);
        block
    }

    // ---- links

    /// Where an exit goes, from the start of its page; if that is another page, the index of its count of patience.
    pub fn exit(&self, exit: ExitId) -> Option<(i32, Option<u16>)> {
        let (segment, index) = parts(exit.0);
        let exit = self.segments.get(segment)?.exits.get(index)?;
        Some((exit.to, exit.far.map(|far| far.patience)))
    }

    /// Has an exit lead to a block directly: of the same page, or of another while the context is this and the exit's page at
    /// this address. How often it is to be looked up before it is linked again.
    pub fn link(&mut self, exit: ExitId, block: BlockId, context: u64, address: u64) -> i32 {
        let (segment, index) = parts(exit.0);
        let Some(target) = self.block(block).filter(|target| target.alive) else {
            return PATIENCE;
        };
        let (entry, page) = (target.entry, target.page as usize);
        let known = target.incoming.contains(&exit);
        let Some(from) = self.segments[segment].exits.get_mut(index) else {
            return PATIENCE;
        };
        // Code for another key is not for the same context.
        let same = match from.far {
            Some(_) => self.pages[from.page as usize].key == self.pages[page].key,
            None => from.page as usize == page,
        };
        if !same || !from.alive {
            return PATIENCE;
        }
        from.linked = Some(block);
        from.links = (from.links + 1).min(MOST_LINKS);
        let again = AGAIN << (from.links - 1);
        let (at, far) = (from.at, from.far);
        self.lead(at, entry);
        if let Some(far) = far {
            self.region.put(far.page as usize, &address.to_le_bytes());
            let at = far.context as usize;
            self.region.put(at, &context.to_le_bytes());
        }
        if !known && let Some(target) = self.block_mut(block) {
            target.incoming.push(exit);
        }
        again
    }

    fn lead(&mut self, at: u32, to: u32) {
        let displacement = to.wrapping_sub(at + 4);
        self.region.put(at as usize, &displacement.to_le_bytes());
    }

    // ---- forgetting

    /// Has the exits that lead to a block go their own way again.
    fn unlink(&mut self, id: BlockId, incoming: &[ExitId]) {
        for exit in incoming {
            let (segment, index) = parts(exit.0);
            let Some(from) = self.segments[segment].exits.get_mut(index) else {
                continue;
            };
            if from.linked == Some(id) {
                from.linked = None;
                match from.far {
                    // No context is 0.
                    Some(far) => self.region.put(far.context as usize, &[0; 8]),
                    None => {
                        let (at, stub) = (from.at, from.stub);
                        self.lead(at, stub);
                    }
                }
            }
        }
    }

    /// Forgets a block. Its code stays, but for its start.
    fn kill(&mut self, id: BlockId) {
        let Some(block) = self.block_mut(id) else {
            return;
        };
        if !std::mem::replace(&mut block.alive, false) {
            return;
        }
        let incoming = std::mem::take(&mut block.incoming);
        let (exit, count) = (block.exits.0 as usize, block.exits.1 as usize);
        let (first, entry, page) = (block.first, block.entry as usize, block.page as usize);
        self.unlink(id, &incoming);
        // Where its own exits were may be what is put at its start now.
        for exit in &mut self.segments[parts(id.0).0].exits[exit..exit + count] {
            exit.alive = false;
            exit.linked = None;
        }
        let origin = self.region.address(entry);
        let code = thunks::dead(origin, u32::from(first) << 2, &self.thunks);
        self.region.put(entry, &code);
        let start = &mut self.pages[page].starts[usize::from(first) % WORDS];
        if start.id == id.0 {
            *start = NO_START;
        }
        self.invalidated += 1;
    }

    /// Forgets the blocks that touch lines of the pages of an entry of [`Marks`].
    pub fn invalidate(&mut self, slot: u32, lines: u64) {
        let Some(pages) = self.by_slot.get(&slot) else {
            return;
        };
        for page in pages.clone() {
            self.forget_in(page, |block| block.lines & lines != 0);
        }
    }

    fn forget_in(&mut self, page: u32, goes: impl Fn(&Block) -> bool) {
        let mut blocks = std::mem::take(&mut self.pages[page as usize].blocks);
        blocks.retain(|&id| {
            let gone = self.block(id).is_none_or(&goes);
            if gone {
                self.kill(id);
            }
            !gone
        });
        self.pages[page as usize].blocks = blocks;
    }

    /// Forgets blocks made of anything but plain RAM.
    pub fn forget_foreign(&mut self) {
        for page in 0..self.pages.len() {
            if self.pages[page].foreign {
                self.forget_in(page as u32, |_| true);
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for segment in &mut self.segments {
            segment.cursor = segment.start;
            segment.blocks.clear();
            segment.exits.clear();
        }
        self.pages.clear();
        self.free.clear();
        self.by_address.clear();
        self.by_slot.clear();
        self.recent.fill((u64::MAX, 0, 0));
        self.evictions += 1;
    }

    /// Empties a segment.
    fn evict(&mut self, segment: usize) {
        self.evictions += 1;
        let blocks = std::mem::take(&mut self.segments[segment].blocks);
        self.segments[segment].exits.clear();
        self.segments[segment].cursor = self.segments[segment].start;
        let mut touched = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            if !block.alive {
                continue;
            }
            let block_id = BlockId(id(segment, index));
            self.unlink(block_id, &block.incoming);
            let page = &mut self.pages[block.page as usize];
            let start = &mut page.starts[usize::from(block.first) % WORDS];
            if start.id == block_id.0 {
                *start = NO_START;
            }
            touched.push(block.page);
        }
        touched.sort_unstable();
        touched.dedup();
        for page in touched {
            let number = segment as u32;
            self.pages[page as usize]
                .blocks
                .retain(|id| id.0 >> 24 != number);
            if self.pages[page as usize].blocks.is_empty() {
                self.free_page(page);
            }
        }
    }

    fn free_page(&mut self, index: u32) {
        let page = &mut self.pages[index as usize];
        let (physical, key) = (page.physical, page.key);
        page.foreign = false;
        self.by_address.remove(&(physical, key));
        let slot = Marks::slot(physical);
        if let Some(pages) = self.by_slot.get_mut(&slot) {
            pages.retain(|&i| i != index);
            if pages.is_empty() {
                self.by_slot.remove(&slot);
            }
        }
        self.recent[(physical >> 12) as usize % RECENT] = (u64::MAX, 0, 0);
        self.free.push(index);
    }
}
