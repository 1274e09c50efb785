//! The software TLB: virtual pages to host memory.
//!
//! A direct-mapped set for each of: EL1 with PAN clear, EL1 with PAN set, and EL0 in each of the address spaces (ASIDs)
//! used last. So exceptions and context switches change which set is looked at, and forget nothing, but for what EL1
//! found in the lower half: its non-global entries are listed, and go when the ASID changes.
//!
//! An entry holds a 4 KiB page. Larger pages and blocks are cached in such pieces; a set remembers the ranges that it
//! has pieces of, so that an invalidation by one address of a block finds them all.

#![allow(unsafe_code)] // sets are also reached by pointers that live across calls

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::tlbi::{Invalidate, Invalidation};

/// Entries in a set.
pub const ENTRIES: usize = 1024;
/// EL0 sets: address spaces remembered.
const SPACES: usize = 16;
/// More non-global entries in EL1's sets than these, and a switch empties the sets.
const LISTED: usize = 64;

const PAGE: u64 = 0xfff;
/// Bits that tell pages that code was found in.
const CODE_PAGES: usize = 4096;

/// Low bits of a tag: none of them set means host memory, any access.
pub const ALIGNED_ONLY: u64 = 1;
/// No host memory: a device answers, or nothing.
pub const NO_HOST: u64 = 2;
/// Not an entry (for this kind of access).
const ABSENT: u64 = 4;

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

/// A range of addresses, for pages larger than an entry.
#[derive(Clone, Copy, Default)]
struct Range {
    first: u64,
    /// Included; below `first` when empty.
    last: u64,
    any: bool,
}

/// Entries of one regime.
pub struct Set {
    entries: [Entry; ENTRIES],
    details: [Details; ENTRIES],
    /// Spans that hold all large pages, of the lower and the upper half.
    large: [Range; 2],
    empty: bool,
}

#[inline(always)]
const fn index(address: u64) -> usize {
    (address >> 12) as usize % ENTRIES
}

/// The bit of [`Tlb::code_pages`] for an address.
const fn code_bit(address: u64) -> usize {
    let page = address >> 12;
    (page ^ page >> 12) as usize % CODE_PAGES
}

/// The address with bits 63:56 copies of bit 55: tags of pointers do not matter to invalidation.
const fn canonical(address: u64) -> u64 {
    ((address << 8) as i64 >> 8) as u64
}

impl Set {
    /// Where the entries are in it.
    pub const ENTRIES_AT: usize = std::mem::offset_of!(Set, entries);

    fn allocate() -> Owned {
        Owned(NonNull::from(Box::leak(Box::new(Set {
            entries: [EMPTY; ENTRIES],
            details: [Details::default(); ENTRIES],
            large: [Range::default(); 2],
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
            self.large = Default::default();
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
            let address = canonical(address);
            let size = 1u64.checked_shl(details.block_bits.into()).unwrap_or(0);
            let first = address & size.wrapping_neg();
            let last = first.wrapping_add(size.wrapping_sub(1));
            let half = (address >> 63) as usize;
            let range = &mut self.large[half];
            *range = if range.any {
                Range {
                    first: range.first.min(first),
                    last: range.last.max(last),
                    any: true,
                }
            } else {
                Range {
                    first,
                    last,
                    any: true,
                }
            };
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

    /// Whether `address` may be in a page larger than an entry.
    fn has_large_page(&self, address: u64) -> bool {
        let range = &self.large[(address >> 63) as usize];
        range.any && range.first <= address && address <= range.last
    }

    /// Forgets the page or block that holds `address`; global entries only if `also_local` is false.
    fn remove_address(&mut self, address: u64, also_local: bool) {
        if self.empty {
            return;
        }
        if self.has_large_page(address) {
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
    /// Counts what may have changed where code is found: changes of translations.
    pub changes: u64,
    /// A bit for some pages each: those that code was found in since.
    code_pages: [u64; CODE_PAGES / 64],
    /// Translated code that is to be forgotten; `None`: all.
    pub stale_code: Vec<Option<(u32, u64)>>,
}

struct User {
    asid: u16,
    last_used: u64,
    set: Owned,
}

impl Default for Tlb {
    fn default() -> Tlb {
        Tlb {
            kernel: [Set::allocate(), Set::allocate()],
            users: vec![User {
                asid: 0,
                last_used: 0,
                set: Set::allocate(),
            }],
            user: 0,
            turn: 0,
            listed: Some(Vec::with_capacity(LISTED)),
            nothing: Set::allocate(),
            changes: 0,
            code_pages: [0; CODE_PAGES / 64],
            stale_code: Vec::new(),
        }
    }
}

impl Tlb {
    /// Makes `asid` the present address space.
    pub fn switch(&mut self, asid: u16) {
        if self.users[self.user].asid == asid {
            return;
        }
        self.drop_local_kernel_entries();
        self.turn += 1;
        self.user = if let Some(i) = self.users.iter().position(|u| u.asid == asid) {
            i
        } else if self.users.len() < SPACES {
            self.users.push(User {
                asid,
                last_used: 0,
                set: Set::allocate(),
            });
            self.users.len() - 1
        } else {
            let oldest = (0..SPACES)
                .min_by_key(|&i| self.users[i].last_used)
                .unwrap_or(0);
            self.users[oldest].asid = asid;
            self.users[oldest].set.clear();
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

    /// Code is found at that address, until [`Tlb::changes`] says otherwise.
    pub fn executes(&mut self, address: u64) {
        let bit = code_bit(address);
        self.code_pages[bit / 64] |= 1 << (bit % 64);
    }

    /// Whether an invalidation may change where code is found.
    fn moves_code(&self, invalidation: &Invalidation) -> bool {
        match *invalidation {
            Invalidation::Writes(_) | Invalidation::Code { .. } | Invalidation::AllCode => false,
            Invalidation::All | Invalidation::Asid(_) => true,
            Invalidation::Address { address, .. } => {
                let address = canonical(address);
                let bit = code_bit(address);
                let users = self.users.iter().map(|user| &user.set);
                self.code_pages[bit / 64] >> (bit % 64) & 1 != 0
                    || self
                        .kernel
                        .iter()
                        .chain(users)
                        .any(|set| set.has_large_page(address))
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
        if self.moves_code(invalidation) {
            self.changes += 1;
            self.code_pages.fill(0);
        }
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
