//! Guest memory: from virtual addresses to host memory and devices.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use ::memory::Found;
use aarch64::esr::{class, status};
use portable_atomic::AtomicU128;

use crate::core::Taken;
use crate::emit::{Access, AccessKind, AtomicOperation, Order};
use crate::exception::DataAccess;
use crate::mmu::{Fault, MemoryType, Purpose, Request};

use super::Interpreter;
use super::tlb::{ALIGNED_ONLY, Details, Entry, NO_HOST, Regime, Set};

/// Memory that was proven accessible: at a host address, or, if that is null, in the interpreter's `spans`.
#[derive(Clone, Copy)]
pub struct Place {
    host: *mut u8,
    /// The virtual address, for faults and the monitor.
    address: u64,
}

/// A part of a place, in one page.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    /// Null for devices.
    host: *mut u8,
    physical: u64,
    bytes: u32,
    /// Device memory.
    strict: bool,
}

/// A value that may be at any address; volatile accesses of it are single moves on hosts that allow that.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Anywhere<T>(T);

/// Reads `size` bytes (1, 2, 4 or 8) of guest memory.
///
/// # Safety
/// `host` points to that much guest memory.
#[inline(always)]
unsafe fn load(host: *const u8, size: u8) -> u64 {
    // SAFETY: the caller's promise. Volatile: guest memory changes under us, and no reference to it is made.
    unsafe {
        match size {
            1 => host.read_volatile().into(),
            2 => u16::from_le(host.cast::<Anywhere<u16>>().read_volatile().0).into(),
            4 => u32::from_le(host.cast::<Anywhere<u32>>().read_volatile().0).into(),
            _ => u64::from_le(host.cast::<Anywhere<u64>>().read_volatile().0),
        }
    }
}

/// Writes `size` bytes (1, 2, 4 or 8) of guest memory.
///
/// # Safety
/// `host` points to that much guest memory.
#[inline(always)]
unsafe fn store(host: *mut u8, size: u8, value: u64) {
    // SAFETY: as in `load`.
    unsafe {
        match size {
            1 => host.write_volatile(value as u8),
            2 => host
                .cast::<Anywhere<u16>>()
                .write_volatile(Anywhere((value as u16).to_le())),
            4 => host
                .cast::<Anywhere<u32>>()
                .write_volatile(Anywhere((value as u32).to_le())),
            _ => host
                .cast::<Anywhere<u64>>()
                .write_volatile(Anywhere(value.to_le())),
        }
    }
}

/// Runs an expression on the atomic of `size` bytes at an aligned host address.
macro_rules! with_atomic {
    ($host:expr, $size:expr, |$atomic:ident: $integer:ident| $body:expr) => {
        // SAFETY: the place was proven accessible and aligned to its size; guest memory is accessed by atomic and
        // volatile operations only.
        match $size {
            1 => with_atomic!(@ $host, AtomicU8, u8, $atomic, $integer, $body),
            2 => with_atomic!(@ $host, AtomicU16, u16, $atomic, $integer, $body),
            4 => with_atomic!(@ $host, AtomicU32, u32, $atomic, $integer, $body),
            _ => with_atomic!(@ $host, AtomicU64, u64, $atomic, $integer, $body),
        }
    };
    (@ $host:expr, $type:ident, $width:ident, $atomic:ident, $integer:ident, $body:expr) => {{
        type $integer = $width;
        // SAFETY: as above.
        let $atomic = unsafe { $type::from_ptr($host.cast()) };
        $body
    }};
}

/// One value of both halves of a pair, the lower address in the low half.
fn joined(size: u8, pair: (u64, u64)) -> u128 {
    let low = pair.0 & (u64::MAX >> (64 - 8 * u32::from(size)));
    u128::from(low) | u128::from(pair.1) << (8 * u32::from(size))
}

fn split(size: u8, value: u128) -> (u64, u64) {
    let mask = u64::MAX >> (64 - 8 * u32::from(size));
    (
        value as u64 & mask,
        (value >> (8 * u32::from(size))) as u64 & mask,
    )
}

/// A compare-and-swap of up to 16 bytes at an aligned host address; the old value.
fn swap_if(host: *mut u8, bytes: u8, expected: u128, new: u128) -> u128 {
    if bytes == 16 {
        // SAFETY: the place was proven accessible and aligned to its size.
        let atomic = unsafe { AtomicU128::from_ptr(host.cast()) };
        let result = atomic.compare_exchange(
            expected.to_le(),
            new.to_le(),
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        return u128::from_le(result.unwrap_or_else(|old| old));
    }
    with_atomic!(host, bytes, |atomic: N| {
        let result = atomic.compare_exchange(
            (expected as N).to_le(),
            (new as N).to_le(),
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        u128::from(N::from_le(result.unwrap_or_else(|old| old)))
    })
}

/// How a failed access is reported.
fn reported(kind: AccessKind) -> DataAccess {
    match kind {
        AccessKind::Read => DataAccess::Read,
        AccessKind::Write | AccessKind::ReadWrite => DataAccess::Write,
    }
}

impl Interpreter {
    /// Where to look first.
    #[inline(always)]
    fn fast_set(&self, unprivileged: bool) -> &Set {
        let set = if unprivileged { self.user } else { self.data };
        // SAFETY: `retarget` keeps it pointing into `self.tlb`.
        unsafe { set.as_ref() }
    }

    fn regime(&self, unprivileged: bool) -> Regime {
        if unprivileged {
            Regime::User
        } else {
            self.regime
        }
    }

    /// Proves a span accessible.
    #[inline(always)]
    pub(super) fn access_memory(&mut self, address: u64, access: Access) -> Result<Place, Taken> {
        let entry = self.fast_set(access.unprivileged).entry(address);
        let tag = match access.kind {
            AccessKind::Read => entry.read,
            AccessKind::Write | AccessKind::ReadWrite => entry.write,
        };
        // The last byte's page: if that is another one, its number does not fit this entry.
        let last = address.wrapping_add(u64::from(access.bytes) - 1) & !0xfff;
        let checked = self.core.key().align_check;
        let aligned = match access.order {
            Order::Plain => !checked || address & (u64::from(access.size) - 1) == 0,
            Order::Element(unit) => !checked || address & (u64::from(unit) - 1) == 0,
            _ => address & (u64::from(access.size) - 1) == 0,
        };
        let stack = !access.sp_base || self.core.state.x[31] & 15 == 0;
        if last == tag && aligned && stack {
            let host = entry.addend.wrapping_add(address as usize) as *mut u8;
            return Ok(Place { host, address });
        }
        self.access_slowly(address, access)
    }

    #[cold]
    #[inline(never)]
    fn access_slowly(&mut self, address: u64, access: Access) -> Result<Place, Taken> {
        let key = self.core.key();
        if access.sp_base && key.sp_align_check && self.core.state.x[31] & 15 != 0 {
            return Err(self.core.sp_alignment_fault());
        }
        let (unit, checked) = match access.order {
            Order::Plain => (access.size, key.align_check),
            Order::Element(unit) => (unit, key.align_check),
            _ => (access.size, true),
        };
        let misaligned = address & (u64::from(unit.max(1)) - 1) != 0;
        if checked && misaligned {
            return Err(self.core.alignment_fault(address, reported(access.kind)));
        }
        let bytes = u32::from(access.bytes);
        let first = (0x1000 - (address & 0xfff) as u32).min(bytes);
        let span = self.resolve(address, first, access, misaligned)?;
        if span.strict && misaligned {
            return Err(self.core.alignment_fault(address, reported(access.kind)));
        }
        if self.core.debugging {
            self.check_watchpoints(address, access)?;
        }
        if first == bytes {
            self.spans[0] = span;
            return Ok(Place {
                host: span.host,
                address,
            });
        }
        let second = address.wrapping_add(first.into());
        let rest = self.resolve(second, bytes - first, access, misaligned)?;
        if rest.strict && misaligned {
            return Err(self.core.alignment_fault(second, reported(access.kind)));
        }
        self.spans = [span, rest];
        Ok(Place {
            host: std::ptr::null_mut(),
            address,
        })
    }

    /// Takes the exception of a watchpoint on the access.
    #[cold]
    fn check_watchpoints(&mut self, address: u64, access: Access) -> Result<(), Taken> {
        let upper = address >> 55 & 1 != 0;
        let ignores_tag = self.core.state.tcr[1] >> if upper { 38 } else { 37 } & 1 != 0;
        let untagged = ((address << 8) as i64 >> 8) as u64;
        let address = if ignores_tag { untagged } else { address };
        let (read, write) = match access.kind {
            AccessKind::Read => (true, false),
            AccessKind::Write => (false, true),
            AccessKind::ReadWrite => (true, true),
        };
        let el0 = self.regime(access.unprivileged) == Regime::User;
        self.core
            .check_watchpoints(address, access.bytes.into(), read, write, el0)
    }

    /// Where the bytes at `address`, all in one page, are.
    fn resolve(
        &mut self,
        address: u64,
        bytes: u32,
        access: Access,
        misaligned: bool,
    ) -> Result<Span, Taken> {
        let regime = self.regime(access.unprivileged);
        let set = self.tlb.set(regime);
        let entry = *set.entry(address);
        let tag = match access.kind {
            AccessKind::Read => entry.read,
            AccessKind::Write | AccessKind::ReadWrite => entry.write,
        };
        self.writes_code = false;
        let (bits, addend, page) = if Entry::holds(tag, address) {
            (tag & 0xfff, entry.addend, set.details(address).physical)
        } else {
            let purpose = match access.kind {
                AccessKind::Read => Purpose::Read,
                AccessKind::Write => Purpose::Write,
                AccessKind::ReadWrite => Purpose::ReadWrite,
            };
            match self.fill(regime, address, purpose, misaligned) {
                Ok(filled) => filled,
                Err(fault) => return Err(self.report(regime, address, access.kind, fault)),
            }
        };
        if self.writes_code && access.kind != AccessKind::Read {
            self.code_writes
                .push((page | address & 0xfff, bytes.into()));
        }
        let host = if bits & NO_HOST == 0 {
            addend.wrapping_add(address as usize)
        } else {
            0
        };
        Ok(Span {
            host: host as *mut u8,
            physical: page | address & 0xfff,
            bytes,
            strict: bits & ALIGNED_ONLY != 0,
        })
    }

    /// Takes the abort. An atomic's says read if reading alone would fail.
    fn report(&mut self, regime: Regime, address: u64, kind: AccessKind, fault: Fault) -> Taken {
        let mut access = reported(kind);
        let mut fault = fault;
        if kind == AccessKind::ReadWrite
            && let Err(first) = self.fill(regime, address, Purpose::Read, false)
        {
            access = DataAccess::Read;
            fault = first;
        }
        self.core.data_abort(fault, address, access)
    }

    /// Translates and remembers: the tag's low bits, the addend, and the page's physical address.
    fn fill(
        &mut self,
        regime: Regime,
        address: u64,
        purpose: Purpose,
        misaligned: bool,
    ) -> Result<(u64, usize, u64), Fault> {
        let space = self.world().space();
        if space.generation() != self.map_generation {
            // What executes goes on up to the next branch.
            self.retarget();
        }
        let el0 = regime == Regime::User;
        let pan = regime == Regime::Kernel { pan: true };
        let request = Request {
            purpose,
            el0,
            pan: pan && purpose != Purpose::Execute,
            misaligned,
        };
        let found = self.core.translate(space, address, request)?;
        let page = found.physical & !0xfff;
        let virtual_page = address & !0xfff;
        let memory = |write: bool| match space.find(page, write) {
            Some(Found::Memory {
                host,
                contiguous,
                writable,
            }) if contiguous >= 0x1000 && (writable || !write) => Some(host as usize),
            _ => None,
        };
        let readable = memory(false);
        let writable = memory(true).filter(|host| Some(*host) == readable);
        let strict = match found.memory {
            MemoryType::Device => ALIGNED_ONLY,
            MemoryType::Normal => 0,
        };
        let addend = readable.unwrap_or(0).wrapping_sub(virtual_page as usize);
        let permissions = found.permissions(el0, pan);
        let bits = |host: Option<usize>| strict | if host.is_some() { 0 } else { NO_HOST };
        let mut entry = Entry::new(address, 0, [false; 3], addend);
        // Stores to pages with translated code come here each time, and are reported when done.
        self.writes_code = writable.is_some() && space.code().marks(page) != 0;
        if permissions.read || purpose == Purpose::Read {
            entry.read = virtual_page | bits(readable);
        }
        let writes = matches!(purpose, Purpose::Write | Purpose::ReadWrite);
        if (permissions.write || writes) && !self.writes_code {
            entry.write = virtual_page | bits(writable);
        }
        if (permissions.execute || purpose == Purpose::Execute) && readable.is_some() {
            entry.execute = virtual_page;
        }
        let details = Details {
            physical: page,
            global: found.global,
            block_bits: found.block_bits,
        };
        self.tlb.insert(regime, address, entry, details);
        let host = match purpose {
            Purpose::Read | Purpose::Execute => readable,
            Purpose::Write | Purpose::ReadWrite => writable,
        };
        Ok((bits(host), addend, page))
    }

    /// The host address of the page that is fetched from at `address`.
    pub(super) fn fetch_page(&mut self, address: u64) -> Result<*const u8, Fault> {
        let page = address & !0xfff;
        let entry = self.tlb.set(self.regime).entry(address);
        if entry.execute == page {
            return Ok(entry.addend.wrapping_add(page as usize) as *const u8);
        }
        let (bits, addend, _) = self.fill(self.regime, address, Purpose::Execute, false)?;
        if bits & NO_HOST != 0 {
            // Nothing there, or a device: it does not give instructions.
            return Err(Fault {
                status: status::EXTERNAL,
            });
        }
        Ok(addend.wrapping_add(page as usize) as *const u8)
    }

    // ---- plain

    #[inline(always)]
    pub(super) fn read_memory(
        &mut self,
        place: Place,
        offset: u32,
        size: u8,
    ) -> Result<u64, Taken> {
        if place.host.is_null() {
            return self.read_slowly(place, offset, size);
        }
        // SAFETY: `access_memory` proved the whole place.
        Ok(unsafe { load(place.host.wrapping_add(offset as usize), size) })
    }

    #[inline(always)]
    pub(super) fn write_memory(
        &mut self,
        place: Place,
        offset: u32,
        size: u8,
        value: u64,
    ) -> Result<(), Taken> {
        if place.host.is_null() {
            return self.write_slowly(place, offset, size, value);
        }
        // SAFETY: as above.
        unsafe { store(place.host.wrapping_add(offset as usize), size, value) };
        Ok(())
    }

    /// The part of the present place at `offset`, and how many bytes of it follow there.
    fn span_at(&self, offset: u32) -> (Span, u32) {
        let [first, second] = self.spans;
        let (mut span, into) = if offset < first.bytes {
            (first, offset)
        } else {
            (second, offset - first.bytes)
        };
        if !span.host.is_null() {
            span.host = span.host.wrapping_add(into as usize);
        }
        span.physical = span.physical.wrapping_add(into.into());
        (span, span.bytes.saturating_sub(into))
    }

    /// The largest aligned piece of at most `size` bytes at `offset`.
    fn piece(&self, offset: u32, size: u8) -> (Span, u8) {
        let (span, left) = self.span_at(offset);
        let mut piece = 8;
        while piece > 1
            && (u32::from(piece) > left
                || piece > size
                || span.physical & (u64::from(piece) - 1) != 0)
        {
            piece /= 2;
        }
        (span, piece)
    }

    #[cold]
    #[inline(never)]
    fn read_slowly(&mut self, place: Place, offset: u32, size: u8) -> Result<u64, Taken> {
        let mut value = 0;
        let mut done = 0;
        while done < size {
            let at = offset + u32::from(done);
            let (span, piece) = self.piece(at, size - done);
            let part = if span.host.is_null() {
                let answer = self
                    .world()
                    .space()
                    .read(self.core.index, span.physical, piece);
                let Some(answer) = answer else {
                    let address = place.address.wrapping_add(at.into());
                    let fault = Fault {
                        status: status::EXTERNAL,
                    };
                    return Err(self.core.data_abort(fault, address, DataAccess::Read));
                };
                answer
            } else {
                // SAFETY: `piece` is inside the span, which was proven.
                unsafe { load(span.host, piece) }
            };
            value |= part << (8 * u32::from(done));
            done += piece;
        }
        Ok(value)
    }

    #[cold]
    #[inline(never)]
    fn write_slowly(
        &mut self,
        place: Place,
        offset: u32,
        size: u8,
        value: u64,
    ) -> Result<(), Taken> {
        let mut done = 0;
        while done < size {
            let at = offset + u32::from(done);
            let (span, piece) = self.piece(at, size - done);
            let part = value >> (8 * u32::from(done));
            if span.host.is_null() {
                let space = self.world().space();
                let answer = space.write(self.core.index, span.physical, piece, part);
                if space.generation() != self.map_generation {
                    // The device changed the map: what is cached is forgotten; what executes goes on up to the next
                    // branch.
                    self.retarget();
                }
                if answer.is_none() {
                    let address = place.address.wrapping_add(at.into());
                    let fault = Fault {
                        status: status::EXTERNAL,
                    };
                    return Err(self.core.data_abort(fault, address, DataAccess::Write));
                }
            } else {
                // SAFETY: `piece` is inside the span, which was proven.
                unsafe { store(span.host, piece, part) };
            }
            done += piece;
        }
        Ok(())
    }

    // ---- ordered and atomic: places are aligned

    /// Atomics need host memory.
    fn atomic_host(&mut self, place: Place) -> Result<*mut u8, Taken> {
        if place.host.is_null() {
            let fault = Fault {
                status: status::UNSUPPORTED_ATOMIC,
            };
            return Err(self
                .core
                .data_abort(fault, place.address, DataAccess::Write));
        }
        Ok(place.host)
    }

    #[allow(clippy::useless_conversion)] // of u64, one of four types
    #[inline(always)]
    pub(super) fn read_memory_ordered(&mut self, place: Place, size: u8) -> Result<u64, Taken> {
        if place.host.is_null() {
            let value = self.read_slowly(place, 0, size)?;
            fence(Ordering::SeqCst);
            return Ok(value);
        }
        Ok(with_atomic!(place.host, size, |atomic: N| {
            u64::from(N::from_le(atomic.load(Ordering::SeqCst)))
        }))
    }

    #[inline(always)]
    pub(super) fn write_memory_ordered(
        &mut self,
        place: Place,
        size: u8,
        value: u64,
    ) -> Result<(), Taken> {
        if place.host.is_null() {
            fence(Ordering::SeqCst);
            self.write_slowly(place, 0, size, value)?;
            fence(Ordering::SeqCst);
            return Ok(());
        }
        with_atomic!(place.host, size, |atomic: N| {
            atomic.store((value as N).to_le(), Ordering::SeqCst)
        });
        Ok(())
    }

    #[allow(clippy::useless_conversion)] // of u64, one of four types
    #[inline(always)]
    pub(super) fn modify_memory(
        &mut self,
        operation: AtomicOperation,
        place: Place,
        size: u8,
        operand: u64,
    ) -> Result<u64, Taken> {
        let host = self.atomic_host(place)?;
        self.core.shared.granules.advance(host as usize);
        // Guest memory is little-endian; arithmetic in place needs a little-endian host.
        const { assert!(cfg!(target_endian = "little")) };
        use AtomicOperation::*;
        let order = Ordering::SeqCst;
        // Signed comparisons are unsigned ones with the sign bit inverted; on the host, signed types do that.
        macro_rules! signed {
            ($unsigned:ident, $signed:ident, $method:ident) => {{
                // SAFETY: as in `with_atomic!`.
                let atomic = unsafe { std::sync::atomic::$signed::from_ptr(host.cast()) };
                u64::from(atomic.$method(operand as _, order) as $unsigned)
            }};
            ($method:ident) => {
                match size {
                    1 => signed!(u8, AtomicI8, $method),
                    2 => signed!(u16, AtomicI16, $method),
                    4 => signed!(u32, AtomicI32, $method),
                    _ => signed!(u64, AtomicI64, $method),
                }
            };
        }
        Ok(match operation {
            SignedMax => signed!(fetch_max),
            SignedMin => signed!(fetch_min),
            _ => with_atomic!(host, size, |atomic: N| {
                let operand = operand as N;
                u64::from(match operation {
                    Add => atomic.fetch_add(operand, order),
                    Clear => atomic.fetch_and(!operand, order),
                    Xor => atomic.fetch_xor(operand, order),
                    Set => atomic.fetch_or(operand, order),
                    UnsignedMax => atomic.fetch_max(operand, order),
                    UnsignedMin => atomic.fetch_min(operand, order),
                    _ => atomic.swap(operand, order),
                })
            }),
        })
    }

    pub(super) fn swap_memory_if(
        &mut self,
        place: Place,
        size: u8,
        expected: u64,
        new: u64,
    ) -> Result<u64, Taken> {
        let host = self.atomic_host(place)?;
        self.core.shared.granules.advance(host as usize);
        Ok(swap_if(host, size, expected.into(), new.into()) as u64)
    }

    pub(super) fn swap_pair_if(
        &mut self,
        place: Place,
        size: u8,
        expected: (u64, u64),
        new: (u64, u64),
    ) -> Result<(u64, u64), Taken> {
        let host = self.atomic_host(place)?;
        self.core.shared.granules.advance(host as usize);
        let old = swap_if(host, 2 * size, joined(size, expected), joined(size, new));
        Ok(split(size, old))
    }

    // ---- exclusives

    pub(super) fn load_memory_exclusive(
        &mut self,
        place: Place,
        size: u8,
        pair: bool,
    ) -> Result<(u64, u64), Taken> {
        let host = self.atomic_host(place)?;
        let version = if self.core.alone {
            0
        } else {
            self.core.shared.granules.observe(host as usize)
        };
        let value = match (size, pair) {
            // Two single accesses: the store-exclusive finds out if they do not belong together.
            (8, true) => (
                self.read_memory_ordered(place, 8)?,
                self.read_memory_ordered(
                    Place {
                        host: host.wrapping_add(8),
                        ..place
                    },
                    8,
                )?,
            ),
            (_, true) => split(size, self.read_memory_ordered(place, 2 * size)?.into()),
            (_, false) => (self.read_memory_ordered(place, size)?, 0),
        };
        let monitor = &mut self.core.state.monitor;
        monitor.armed = true;
        monitor.host_address = host as u64;
        monitor.bytes = u32::from(size) << u32::from(pair);
        monitor.value = [value.0, value.1];
        monitor.version = version;
        Ok(value)
    }

    /// 0 if stored, 1 if not.
    pub(super) fn store_memory_exclusive(
        &mut self,
        place: Place,
        size: u8,
        pair: bool,
        value: (u64, u64),
    ) -> Result<u64, Taken> {
        let host = self.atomic_host(place)?;
        let bytes = u32::from(size) << u32::from(pair);
        let monitor = &mut self.core.state.monitor;
        let armed = std::mem::take(&mut monitor.armed);
        if !armed || monitor.host_address != host as u64 || monitor.bytes != bytes {
            return Ok(1);
        }
        let [low, high] = monitor.value;
        let (expected, new) = if pair {
            (joined(size, (low, high)), joined(size, value))
        } else {
            (low.into(), value.0.into())
        };
        let store = || swap_if(host, bytes as u8, expected, new) == expected;
        let stored = if self.core.alone {
            store()
        } else {
            self.core
                .shared
                .granules
                .store_if(host as usize, monitor.version, store)
        };
        Ok(u64::from(!stored))
    }

    /// DC ZVA: 64 bytes.
    pub(super) fn zero_memory(&mut self, address: u64) -> Result<(), Taken> {
        const BLOCK: u16 = 64;
        let access = Access::bytes(AccessKind::Write, BLOCK);
        let start = address & !u64::from(BLOCK - 1);
        let place = match self.access_memory(start, access) {
            Ok(place) => place,
            Err(Taken) => {
                // FAR has the address that was given, where it is not a watchpoint's (MemZero).
                let class = self.core.state.esr[1] as u32 >> 26;
                if matches!(class, class::DATA_ABORT | class::DATA_ABORT_LOWER) {
                    self.core.state.far[1] = address;
                }
                return Err(Taken);
            }
        };
        let strict = self.tlb.set(self.regime).entry(start).write & ALIGNED_ONLY != 0;
        if place.host.is_null() || strict {
            return Err(self.core.alignment_fault(address, DataAccess::Write));
        }
        for offset in (0..BLOCK.into()).step_by(8) {
            self.write_memory(place, offset, 8, 0)?;
        }
        Ok(())
    }
}
