//! The software TLB: virtual pages to host memory.
//!
//! A direct-mapped set for each of: EL1 with PAN clear, EL1 with PAN set, and EL0 in each of the address spaces (ASIDs)
//! used last. So exceptions and context switches change which set is looked at, and forget nothing, but for what EL1
//! found in the lower half: its non-global entries are listed, and go when the ASID changes.
//!
//! An entry holds a 4 KiB page. Larger pages and blocks are cached in such pieces; a set remembers where it
//! has pieces of them, so that an invalidation by one address of a block finds them all.

#![allow(unsafe_code)] // sets are also reached by pointers that live across calls

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::tlbi::{Invalidate, Invalidation};

/// Entries in a set.
pub const ENTRIES: usize = 4096;
/// EL0 sets: address spaces remembered.
const SPACES: usize = 16;
/// More non-global entries in EL1's sets than these, and a switch empties the sets.
const LISTED: usize = 64;

const PAGE: u64 = 0xfff;

/// Low bits of a tag: none of them set means host memory, any access. None is a bit that a misaligned address has set: one
/// that is to be a multiple of 16 at most is compared with those bits in it.
pub const ALIGNED_ONLY: u64 = 1 << 4;
/// No host memory: a device answers, or nothing.
pub const NO_HOST: u64 = 1 << 5;
/// Not an entry (for this kind of access).
const ABSENT: u64 = 1 << 6;

/// What an access needs to know of a page.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Entry {
    /// The page's virtual address and the bits above, for each kind of access.
    pub read: u64,
    pub write: u64,
    pub execute: u64,
    /// Host address minus virtual address.
    pub addend: usize,
}

const EMPTY: Entry = Entry {
    read: ABSENT,
    write: ABSENT,
    execute: ABSENT,
    addend: 0,
};

/// What is rarely needed of a page.
#[derive(Clone, Copy, Default)]
pub struct Details {
    /// Physical address of the page.
    pub physical: u64,
    /// Not nG.
    pub global: bool,
    /// Of the page or block: 12 and more.
    pub block_bits: u8,
}

/// Bits that tell 2 MiB of addresses apart.
const LARGE: usize = 4096;

/// Where pages larger than an entry are.
struct Large {
    /// A bit for some pieces of 2 MiB each, in which there are such pages.
    pieces: [u64; LARGE / 64],
    /// There are larger ones than that.
    huge: bool,
}

impl Large {
    const NONE: Large = Large {
        pieces: [0; LARGE / 64],
        huge: false,
    };

    fn bit(address: u64) -> usize {
        let piece = address >> 21;
        (piece ^ piece >> 12) as usize % LARGE
    }

    fn add(&mut self, address: u64, block_bits: u8) {
        if block_bits > 21 {
            self.huge = true;
        } else {
            let bit = Large::bit(address);
            self.pieces[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn may_hold(&self, address: u64) -> bool {
        let bit = Large::bit(address);
        self.huge || self.pieces[bit / 64] >> (bit % 64) & 1 != 0
    }
}

/// Entries of one regime.
pub struct Set {
    entries: [Entry; ENTRIES],
    details: [Details; ENTRIES],
    large: Large,
    empty: bool,
}

#[inline(always)]
const fn index(address: u64) -> usize {
    (address >> 12) as usize % ENTRIES
}

/// The address with bits 63:56 copies of bit 55: tags of pointers do not matter to invalidation.
const fn canonical(address: u64) -> u64 {
    ((address << 8) as i64 >> 8) as u64
}

impl Set {
    /// Where the entries are in it.
    pub const ENTRIES_AT: usize = std::mem::offset_of!(Set, entries);

    // Made on the stack: not for who only looks.
    #[inline(never)]
    fn allocate() -> Owned {
        Owned(NonNull::from(Box::leak(Box::new(Set {
            entries: [EMPTY; ENTRIES],
            details: [Details::default(); ENTRIES],
            large: Large::NONE,
            empty: true,
        }))))
    }

    /// The only entry that may be the page's.
    #[inline(always)]
    pub fn entry(&self, address: u64) -> &Entry {
        &self.entries[index(address)]
    }

    /// What else is known of that entry.
    pub fn details(&self, address: u64) -> &Details {
        &self.details[index(address)]
    }

    fn clear(&mut self) {
        if !self.empty {
            self.entries.fill(EMPTY);
            self.large = Large::NONE;
            self.empty = true;
        }
    }

    /// Puts an entry in; its tags' low bits say what is allowed. The kinds that `entry` lacks, and the present entry of
    /// the same page has, stay.
    fn insert(&mut self, address: u64, entry: Entry, details: Details) {
        let i = index(address);
        self.empty = false;
        self.entries[i] = entry;
        self.details[i] = details;
        if details.block_bits > 12 {
            self.large.add(canonical(address), details.block_bits);
        }
    }

    /// Forgets the entries that `matches` (virtual page, details) holds for.
    fn remove_if(&mut self, matches: impl Fn(u64, &Details) -> bool) {
        if self.empty {
            return;
        }
        for (entry, details) in self.entries.iter_mut().zip(&self.details) {
            if entry.is_there() && matches(entry.page(), details) {
                *entry = EMPTY;
            }
        }
    }

    /// Takes the permission to write pages of an entry of [`memory::Code`].
    fn protect(&mut self, slot: u32) {
        if self.empty {
            return;
        }
        for (entry, details) in self.entries.iter_mut().zip(&self.details) {
            if memory::Code::slot(details.physical) == slot {
                entry.write = ABSENT;
            }
        }
    }

    /// Forgets the page or block that holds `address`; global entries only if `also_local` is false.
    fn remove_address(&mut self, address: u64, also_local: bool) {
        if self.empty {
            return;
        }
        if self.large.may_hold(address) {
            self.remove_if(|page, details| {
                let size = 1u64.checked_shl(details.block_bits.into()).unwrap_or(0);
                (details.global || also_local)
                    && (canonical(page) ^ address) & size.wrapping_neg() & !PAGE == 0
            });
            return;
        }
        let i = index(address);
        let entry = &mut self.entries[i];
        if (self.details[i].global || also_local)
            && entry.is_there()
            && canonical(entry.page()) == address & !PAGE
        {
            *entry = EMPTY;
        }
    }
}

/// A set in its own allocation, whose address may be kept for as long as the [`Tlb`] lives.
struct Owned(NonNull<Set>);

impl Deref for Owned {
    type Target = Set;

    fn deref(&self) -> &Set {
        // SAFETY: allocated in `Set::allocate`, freed in `drop` only.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Owned {
    fn deref_mut(&mut self) -> &mut Set {
        // SAFETY: as above; `Tlb::pointer`'s users do not hold references across calls.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: from `Box::leak`, and not used after this.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

// SAFETY: it owns plain data.
unsafe impl Send for Owned {}

impl Entry {
    fn is_there(&self) -> bool {
        (self.read & self.write & self.execute) & ABSENT == 0
    }

    /// The virtual address of the page.
    fn page(&self) -> u64 {
        let tag = [self.read, self.write, self.execute]
            .into_iter()
            .find(|tag| tag & ABSENT == 0);
        tag.unwrap_or(0) & !PAGE
    }

    /// An entry of a page with some tag bits, for the permitted kinds.
    pub fn new(address: u64, bits: u64, permitted: [bool; 3], addend: usize) -> Entry {
        let tag = |permitted: bool| {
            if permitted {
                address & !PAGE | bits
            } else {
                ABSENT
            }
        };
        Entry {
            read: tag(permitted[0]),
            write: tag(permitted[1]),
            execute: tag(permitted[2]),
            addend,
        }
    }

    /// Whether a tag is of this page, whatever its low bits.
    #[inline(always)]
    pub fn holds(tag: u64, address: u64) -> bool {
        tag & (!PAGE | ABSENT) == address & !PAGE
    }
}

/// Which translations an access uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// EL0, and LDTR/STTR.
    User,
    /// EL1, with or without PAN.
    Kernel { pan: bool },
}

/// All sets of one processor.
pub struct Tlb {
    kernel: [Owned; 2],
    users: Vec<User>,
    /// The present address space's place in `users`.
    user: usize,
    turn: u64,
    /// Non-global pages in `kernel`'s sets; `None`: too many.
    listed: Option<Vec<u64>>,
    /// Always empty.
    nothing: Owned,
    /// Where code was found, by EL1 and by EL0.
    kernel_code: FoundCode,
    user_code: FoundCode,
    /// Code of EL1 was found through an entry that is not global.
    local_kernel_code: bool,
    /// The last number that was given to a version of where code is found.
    versions: u64,
    /// That of EL1.
    kernel_version: u64,
    /// Translated code that is to be forgotten; `None`: all.
    pub stale_code: Vec<Option<(u32, u64)>>,
    pub counts: Counts,
}

/// What was done to a TLB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries put in.
    pub refills: u64,
    /// Invalidations of everything, of an ASID, of an address.
    pub all: u64,
    pub asid: u64,
    pub address: u64,
    /// Changes of address space.
    pub switches: u64,
}

struct User {
    asid: u16,
    last_used: u64,
    set: Owned,
    /// Names where code is found in this address space, until that may have changed.
    version: u64,
}

impl Default for Tlb {
    fn default() -> Tlb {
        Tlb {
            kernel: [Set::allocate(), Set::allocate()],
            users: vec![User {
                asid: 0,
                last_used: 0,
                set: Set::allocate(),
                version: 1,
            }],
            user: 0,
            turn: 0,
            listed: Some(Vec::with_capacity(LISTED)),
            nothing: Set::allocate(),
            kernel_code: FoundCode::default(),
            user_code: FoundCode::default(),
            local_kernel_code: false,
            versions: 1,
            kernel_version: 1,
            stale_code: Vec::new(),
            counts: Counts::default(),
        }
    }
}

impl Tlb {
    /// Where in it [`Tlb::versions`] is.
    pub const VERSIONS_AT: usize = std::mem::offset_of!(Tlb, versions);

    /// Makes `asid` the present address space.
    #[inline(always)]
    pub fn switch(&mut self, asid: u16) {
        if self.users[self.user].asid != asid {
            self.switch_to(asid);
        }
    }

    #[cold]
    #[inline(never)]
    fn switch_to(&mut self, asid: u16) {
        self.drop_local_kernel_entries();
        self.counts.switches += 1;
        self.turn += 1;
        let version = self.versions + 1;
        self.user = if let Some(i) = self.users.iter().position(|u| u.asid == asid) {
            i
        } else if self.users.len() < SPACES {
            self.versions = version;
            self.users.push(User {
                asid,
                last_used: 0,
                set: Set::allocate(),
                version,
            });
            self.users.len() - 1
        } else {
            let oldest = (0..SPACES)
                .min_by_key(|&i| self.users[i].last_used)
                .unwrap_or(0);
            self.versions = version;
            self.users[oldest].asid = asid;
            self.users[oldest].set.clear();
            self.users[oldest].version = version;
            oldest
        };
        self.users[self.user].last_used = self.turn;
    }

    fn drop_local_kernel_entries(&mut self) {
        match &mut self.listed {
            Some(listed) => {
                for page in listed.drain(..) {
                    let i = index(page);
                    for set in &mut self.kernel {
                        if !set.details[i].global && set.entries[i].is_there() {
                            set.entries[i] = EMPTY;
                        }
                    }
                }
            }
            None => {
                for set in &mut self.kernel {
                    set.remove_if(|_, details| !details.global);
                }
                self.listed = Some(Vec::with_capacity(LISTED));
            }
        }
    }

    /// The present address space's ASID.
    pub fn address_space(&self) -> u16 {
        self.users[self.user].asid
    }

    /// Code is found at that address, in a page or block of that kind, until [`Tlb::version`] says otherwise.
    pub fn executes(&mut self, regime: Regime, address: u64) {
        let details = *self.set(regime).details(address);
        let code = match regime {
            Regime::User => &mut self.user_code,
            Regime::Kernel { .. } => {
                self.local_kernel_code |= !details.global;
                &mut self.kernel_code
            }
        };
        code.add(canonical(address), details.block_bits);
    }

    /// Names where code is found by a regime in the present address space: another number, and it may be elsewhere. Of
    /// EL1, it holds for code in global pages in every address space.
    pub fn version(&self, regime: Regime) -> u64 {
        match regime {
            Regime::User => self.users[self.user].version,
            Regime::Kernel { .. } => self.kernel_version,
        }
    }

    /// How many versions there were.
    pub fn versions(&self) -> u64 {
        self.versions
    }

    /// Before an invalidation: gives new versions to those for whom code may be found elsewhere after it.
    fn renew_versions(&mut self, invalidation: &Invalidation) {
        let (kernel, user, asid) = match *invalidation {
            Invalidation::Writes(_) | Invalidation::Code { .. } | Invalidation::AllCode => return,
            Invalidation::All => (true, true, None),
            Invalidation::Asid(asid) => (self.local_kernel_code, true, Some(asid)),
            Invalidation::Address { address, .. } => {
                let address = canonical(address);
                let (kernel, user) = (&self.kernel_code, &self.user_code);
                (kernel.touches(address), user.touches(address), None)
            }
        };
        if kernel {
            self.versions += 1;
            self.kernel_version = self.versions;
            self.kernel_code.clear();
            self.local_kernel_code = false;
        }
        if user {
            for user in &mut self.users {
                if asid.is_none_or(|asid| asid == user.asid) {
                    self.versions += 1;
                    user.version = self.versions;
                }
            }
            if asid.is_none() {
                self.user_code.clear();
            }
        }
    }

    /// The set of a regime, in the present address space.
    pub fn set(&self, regime: Regime) -> &Set {
        match regime {
            Regime::User => &self.users[self.user].set,
            Regime::Kernel { pan } => &self.kernel[usize::from(pan)],
        }
    }

    /// The address of a regime's set, in the present address space; good until [`Tlb::switch`].
    pub fn pointer(&self, regime: Regime) -> NonNull<Set> {
        match regime {
            Regime::User => self.users[self.user].set.0,
            Regime::Kernel { pan } => self.kernel[usize::from(pan)].0,
        }
    }

    /// A set in which nothing is found.
    pub fn nothing(&self) -> NonNull<Set> {
        self.nothing.0
    }

    /// Adds an entry.
    pub fn insert(&mut self, regime: Regime, address: u64, entry: Entry, details: Details) {
        self.counts.refills += 1;
        let set = match regime {
            Regime::User => &mut self.users[self.user].set,
            Regime::Kernel { pan } => {
                if !details.global {
                    match &mut self.listed {
                        Some(listed) if listed.len() < LISTED => listed.push(address),
                        listed => *listed = None,
                    }
                }
                &mut self.kernel[usize::from(pan)]
            }
        };
        set.insert(address, entry, details);
    }
}

impl Invalidate for Tlb {
    fn invalidate(&mut self, invalidation: &Invalidation) {
        let present = self.users[self.user].asid;
        self.renew_versions(invalidation);
        match *invalidation {
            Invalidation::Writes(slot) => {
                let users = self.users.iter_mut().map(|user| &mut user.set);
                for set in self.kernel.iter_mut().chain(users) {
                    set.protect(slot);
                }
            }
            Invalidation::Code { slot, lines } => {
                self.stale_code.push(Some((slot, lines)));
            }
            Invalidation::AllCode => {
                self.stale_code.clear();
                self.stale_code.push(None);
            }
            Invalidation::All => {
                self.counts.all += 1;
                for set in &mut self.kernel {
                    set.clear();
                }
                for user in &mut self.users {
                    user.set.clear();
                }
                if let Some(listed) = &mut self.listed {
                    listed.clear();
                } else {
                    self.listed = Some(Vec::with_capacity(LISTED));
                }
            }
            Invalidation::Asid(asid) => {
                self.counts.asid += 1;
                if asid == present {
                    self.drop_local_kernel_entries();
                }
                for user in &mut self.users {
                    if user.asid == asid {
                        // Global entries may stay, and rarely are here.
                        user.set.clear();
                    }
                }
            }
            Invalidation::Address { address, asid } => {
                self.counts.address += 1;
                let address = canonical(address);
                for set in &mut self.kernel {
                    set.remove_address(address, asid.is_none_or(|asid| asid == present));
                }
                for user in &mut self.users {
                    user.set
                        .remove_address(address, asid.is_none_or(|asid| asid == user.asid));
                }
            }
        }
    }
}

/// Bits that tell pages that code was found in.
const CODE_PAGES: usize = 1 << 15;
/// Larger blocks that code was found in, told one by one.
const CODE_BLOCKS: usize = 16;

/// Where code was found; it may say so of other addresses too.
struct FoundCode {
    /// A bit for some pages each.
    pages: Box<[u64; CODE_PAGES / 64]>,
    /// Larger blocks: an address, and the block's bits.
    blocks: Vec<(u64, u8)>,
    /// There were more of them.
    many: bool,
}

impl Default for FoundCode {
    fn default() -> FoundCode {
        FoundCode {
            pages: Box::new([0; CODE_PAGES / 64]),
            blocks: Vec::with_capacity(CODE_BLOCKS),
            many: false,
        }
    }
}

impl FoundCode {
    fn bit(address: u64) -> usize {
        let page = address >> 12;
        (page ^ page >> 15) as usize % CODE_PAGES
    }

    fn contains(block: (u64, u8), address: u64) -> bool {
        let size = 1u64.checked_shl(block.1.into()).unwrap_or(0);
        (block.0 ^ address) & size.wrapping_neg() == 0
    }

    fn add(&mut self, address: u64, block_bits: u8) {
        let bit = FoundCode::bit(address);
        self.pages[bit / 64] |= 1 << (bit % 64);
        if block_bits > 12
            && !self.many
            && !self
                .blocks
                .iter()
                .any(|&b| b.1 == block_bits && FoundCode::contains(b, address))
        {
            self.many = self.blocks.len() == CODE_BLOCKS;
            if !self.many {
                self.blocks.push((address, block_bits));
            }
        }
    }

    /// Whether code may have been found in the page or block that an address is in.
    fn touches(&self, address: u64) -> bool {
        let bit = FoundCode::bit(address);
        self.many
            || self.pages[bit / 64] >> (bit % 64) & 1 != 0
            || self.blocks.iter().any(|&b| FoundCode::contains(b, address))
    }

    fn clear(&mut self) {
        self.pages.fill(0);
        self.blocks.clear();
        self.many = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(tlb: &mut Tlb, regime: Regime, address: u64, global: bool, block_bits: u8) {
        let entry = Entry::new(address, 0, [true; 3], 0);
        tlb.insert(
            regime,
            address,
            entry,
            Details {
                physical: 0,
                global,
                block_bits,
            },
        );
    }

    fn has(tlb: &Tlb, regime: Regime, address: u64) -> bool {
        Entry::holds(tlb.set(regime).entry(address).read, address)
    }

    const KERNEL: Regime = Regime::Kernel { pan: false };
    const HIGH: u64 = 0xffff_8000_0000_0000;

    #[test]
    fn a_switch_keeps_each_address_space() {
        let mut tlb = Tlb::default();
        tlb.switch(1);
        put(&mut tlb, Regime::User, 0x1000, false, 12);
        put(&mut tlb, KERNEL, 0x2000, false, 12);
        put(&mut tlb, KERNEL, HIGH | 0x3000, true, 12);
        tlb.switch(2);
        assert!(!has(&tlb, Regime::User, 0x1000));
        assert!(!has(&tlb, KERNEL, 0x2000));
        assert!(has(&tlb, KERNEL, HIGH | 0x3000));
        tlb.switch(1);
        assert!(has(&tlb, Regime::User, 0x1000));
        for asid in 3..40 {
            tlb.switch(asid);
            put(&mut tlb, Regime::User, 0x1000, false, 12);
        }
        tlb.switch(1);
        assert!(!has(&tlb, Regime::User, 0x1000));
    }

    #[test]
    fn many_local_kernel_entries_go_too() {
        let mut tlb = Tlb::default();
        for i in 0..200 {
            put(&mut tlb, KERNEL, i << 12, false, 12);
        }
        tlb.switch(9);
        assert!((0..200).all(|i| !has(&tlb, KERNEL, i << 12)));
    }

    #[test]
    fn an_address_takes_its_block_with_it() {
        let mut tlb = Tlb::default();
        put(&mut tlb, KERNEL, HIGH | 0x20_5000, true, 21);
        put(&mut tlb, KERNEL, HIGH | 0x40_5000, true, 12);
        put(&mut tlb, Regime::User, 0x7000 | 0xaa << 56, false, 12);
        tlb.invalidate(&Invalidation::Address {
            address: HIGH | 0x20_0000,
            asid: Some(7),
        });
        assert!(!has(&tlb, KERNEL, HIGH | 0x20_5000));
        assert!(has(&tlb, KERNEL, HIGH | 0x40_5000));
        tlb.invalidate(&Invalidation::Address {
            address: 0x7000,
            asid: Some(7),
        });
        assert!(has(&tlb, Regime::User, 0x7000 | 0xaa << 56));
        tlb.invalidate(&Invalidation::Address {
            address: 0x7000,
            asid: None,
        });
        assert!(!has(&tlb, Regime::User, 0x7000 | 0xaa << 56));
        put(&mut tlb, KERNEL, HIGH | 0x7000, true, 48);
        tlb.invalidate(&Invalidation::Asid(0));
        assert!(has(&tlb, KERNEL, HIGH | 0x7000));
        tlb.invalidate(&Invalidation::All);
        assert!(!has(&tlb, KERNEL, HIGH | 0x7000));
    }
}
