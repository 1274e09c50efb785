//! A function's configuration space, alive.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use device::{Access, Line, Msi, MsiTarget};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::msi::MsiCapability;
use crate::msix::Msix;
use crate::registers::*;
use crate::space::{BarKind, EndpointBuilder, Identity, Layout};

/// Everything of an [`Endpoint`] that a guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    space: Vec<u8>,
    msix: Msix,
    intx: bool,
}

/// A saved state belongs to another kind of function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved PCI function has another layout of configuration space")]
pub struct RestoreError;

impl EndpointState {
    fn power_on(layout: &Layout) -> EndpointState {
        EndpointState {
            space: layout.reset.clone(),
            msix: layout
                .msix
                .map_or_else(Msix::default, |m| Msix::power_on(m.vectors)),
            intx: false,
        }
    }

    fn word(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.space[offset as usize], self.space[offset as usize + 1]])
    }

    fn dword(&self, offset: u16) -> u32 {
        u32::from(self.word(offset)) | u32::from(self.word(offset + 2)) << 16
    }
}

struct Wiring {
    requester: u32,
    msi: Arc<dyn MsiTarget>,
    intx: Line,
}

struct Inner {
    state: EndpointState,
    wiring: Option<Wiring>,
    /// Bumped when what the BARs claim may have changed.
    decode: Arc<AtomicU64>,
}

/// Configuration space of one function: header, BARs, capabilities, MSI-X (table and pending bits are answered here,
/// not by the device), MSI, INTx.
///
/// Its lock is held while lines are set and messages sent, which keeps them in order; so neither may lead back here.
pub struct Endpoint {
    layout: Layout,
    inner: Mutex<Inner>,
    /// Copies of what devices ask often, so that they need no lock.
    bus_master: AtomicBool,
    message_signalled: AtomicBool,
}

/// What an enabled BAR claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub bar: u8,
    pub io: bool,
    pub range: Range<u64>,
}

impl Endpoint {
    /// Starts a layout.
    pub fn builder(identity: Identity) -> EndpointBuilder {
        EndpointBuilder::new(identity)
    }

    pub(crate) fn new(layout: Layout) -> Endpoint {
        let state = EndpointState::power_on(&layout);
        Endpoint {
            layout,
            inner: Mutex::new(Inner {
                state,
                wiring: None,
                decode: Arc::default(),
            }),
            bus_master: AtomicBool::new(false),
            message_signalled: AtomicBool::new(false),
        }
    }

    /// Wires the function up; the bus does it when plugging. `requester` is bus << 8 | device << 3 | function.
    pub fn connect(&self, requester: u32, msi: Arc<dyn MsiTarget>, intx: Line) {
        let mut inner = self.inner.lock();
        inner.wiring = Some(Wiring {
            requester,
            msi,
            intx,
        });
        self.update(&mut inner);
    }

    pub(crate) fn watch(&self, decode: Arc<AtomicU64>) {
        decode.fetch_add(1, Ordering::SeqCst);
        self.inner.lock().decode = decode;
    }

    /// Where the `nth` capability (from 0) with this ID is.
    pub fn capability(&self, id: u8, nth: usize) -> Option<u16> {
        self.layout
            .capabilities
            .iter()
            .filter(|c| c.0 == id)
            .nth(nth)
            .map(|c| c.1)
    }

    /// Sends the message of this vector if MSI-X or MSI is on; while it may not go out (masked, bus mastering off) its
    /// pending bit is set instead. No effect when both are off.
    pub fn signal(&self, vector: u16) {
        let mut inner = self.inner.lock();
        if self.msix_control(&inner.state) & MSIX_ENABLE != 0 {
            inner.state.msix.set_pending(vector);
        } else if let Some(mut msi) = self.msi(&mut inner.state).filter(|m| m.enabled()) {
            msi.request(vector);
        } else {
            return;
        }
        self.update(&mut inner);
    }

    /// Whether the guest turned MSI or MSI-X on.
    pub fn message_signalled(&self) -> bool {
        self.message_signalled.load(Ordering::Acquire)
    }

    /// The level of the function's interrupt request. Reaches the line unless Interrupt Disable or message-signalled
    /// interrupts are on, and shows in Interrupt Status.
    pub fn set_intx(&self, level: bool) {
        let mut inner = self.inner.lock();
        if inner.state.intx != level {
            inner.state.intx = level;
            self.update(&mut inner);
        }
    }

    /// Whether the function may do DMA: Bus Master is on (and it is not in D3).
    pub fn bus_master(&self) -> bool {
        self.bus_master.load(Ordering::Acquire)
    }

    /// Back to power-on state; lines fall.
    pub fn reset(&self) {
        let mut inner = self.inner.lock();
        inner.state = EndpointState::power_on(&self.layout);
        self.update(&mut inner);
        inner.decode.fetch_add(1, Ordering::SeqCst);
    }

    /// A copy of the state, for a snapshot.
    pub fn state(&self) -> EndpointState {
        self.inner.lock().state.clone()
    }

    /// Takes over a state that [`Endpoint::state`] gave. The interrupt line follows it.
    pub fn restore(&self, state: EndpointState) -> Result<(), RestoreError> {
        let mut inner = self.inner.lock();
        let fits = |a: &EndpointState, b: &EndpointState| {
            a.space.len() == b.space.len()
                && a.msix.table.len() == b.msix.table.len()
                && a.msix.pending.len() == b.msix.pending.len()
                && a.space[..4] == b.space[..4]
        };
        if !fits(&state, &inner.state) {
            return Err(RestoreError);
        }
        inner.state = state;
        self.update(&mut inner);
        inner.decode.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Reads configuration space: `width` bytes, 1 to 4. All ones past its end.
    pub fn read_config(&self, offset: u16, width: u8) -> u32 {
        let inner = self.inner.lock();
        (0..u32::from(width.min(4))).fold(0, |value, i| {
            let at = usize::from(offset).saturating_add(i as usize);
            let mut byte = inner.state.space.get(at).copied().unwrap_or(0xff);
            if at == usize::from(STATUS) && inner.state.intx {
                byte |= STATUS_INTERRUPT as u8;
            }
            value | u32::from(byte) << (i * 8)
        })
    }

    /// Writes configuration space as the guest does: `width` bytes, 1 to 4, of which the writable bits change.
    pub fn write_config(&self, offset: u16, width: u8, value: u32) {
        let mut inner = self.inner.lock();
        let bytes = value.to_le_bytes();
        for (i, &byte) in bytes.iter().enumerate().take(width.into()) {
            let at = usize::from(offset) + i;
            let Some(&writable) = self.layout.writable.get(at) else {
                break;
            };
            let old = inner.state.space[at];
            inner.state.space[at] = old & !writable | byte & writable;
            // D1 and D2 are not there: a write of those is dropped (PCI Power Management 1.2, 3.2.4).
            let power_state = self.layout.power_management.map(|p| usize::from(p + PMCSR));
            if power_state == Some(at) && matches!(byte & 3, 0 | 3) {
                inner.state.space[at] = old & !3 | byte & 3;
            }
        }
        self.update(&mut inner);
        inner.decode.fetch_add(1, Ordering::SeqCst);
    }

    /// The device's own change of a register of one of its capabilities: `bytes` at `offset`, writable or not.
    pub fn set_config(&self, offset: u16, bytes: &[u8]) {
        let mut inner = self.inner.lock();
        if let Some(space) = inner
            .state
            .space
            .get_mut(offset.into()..usize::from(offset) + bytes.len())
        {
            space.copy_from_slice(bytes);
        }
        self.update(&mut inner);
    }

    /// What the enabled BARs claim.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        let inner = self.inner.lock();
        let state = &inner.state;
        if self.in_d3(state) {
            return Vec::new();
        }
        let command = state.word(COMMAND);
        let bars = self.layout.bars.iter().filter_map(|bar| {
            let io = bar.kind == BarKind::Io;
            if command & if io { COMMAND_IO } else { COMMAND_MEMORY } == 0 {
                return None;
            }
            let offset = BAR0 + u16::from(bar.index) * 4;
            let low = u64::from(state.dword(offset) & if io { !3 } else { !0xf });
            let start = match bar.kind {
                BarKind::Memory64 { .. } => u64::from(state.dword(offset + 4)) << 32 | low,
                _ => low,
            };
            Some(Claim {
                bar: bar.index,
                io,
                range: start..start.checked_add(bar.size)?,
            })
        });
        bars.collect()
    }

    /// MSI-X vectors, 0 without MSI-X.
    pub fn msix_vectors(&self) -> u16 {
        self.layout.msix.map_or(0, |m| m.vectors)
    }

    /// The size of a BAR, 0 if there is none.
    pub fn bar_size(&self, index: u8) -> u64 {
        self.layout
            .bars
            .iter()
            .find(|b| b.index == index)
            .map_or(0, |b| b.size)
    }

    /// Answers a read of the MSI-X table or pending bits; `None` if it is not theirs.
    pub fn read_msix(&self, bar: u8, access: Access) -> Option<u64> {
        let parts = self.msix_parts(bar, access)?;
        let inner = self.inner.lock();
        let bytes = (0..u64::from(access.width)).map(|i| match parts {
            MsixPart::Table(at) => inner.state.msix.table_byte(at.wrapping_add(i)),
            MsixPart::Pending(at) => inner.state.msix.pending_byte(at.wrapping_add(i)),
        });
        Some(
            bytes
                .enumerate()
                .fold(0, |value, (i, b)| value | u64::from(b) << (i * 8)),
        )
    }

    /// Takes a write to the MSI-X table or pending bits; whether it was theirs.
    pub fn write_msix(&self, bar: u8, access: Access, value: u64) -> bool {
        match self.msix_parts(bar, access) {
            None => false,
            Some(MsixPart::Pending(_)) => true,
            Some(MsixPart::Table(at)) => {
                let mut inner = self.inner.lock();
                for (i, byte) in value
                    .to_le_bytes()
                    .into_iter()
                    .enumerate()
                    .take(access.width.into())
                {
                    inner.state.msix.set_table_byte(at + i as u64, byte);
                }
                self.update(&mut inner);
                true
            }
        }
    }

    fn msix_parts(&self, bar: u8, access: Access) -> Option<MsixPart> {
        let msix = self.layout.msix.filter(|m| m.bar == bar)?;
        let within = |start: u64, size: u64| access.offset.checked_sub(start).filter(|&o| o < size);
        let vectors = u64::from(msix.vectors);
        within(msix.table, vectors * u64::from(MSIX_ENTRY_SIZE))
            .map(MsixPart::Table)
            .or_else(|| within(msix.pba, vectors.div_ceil(64) * 8).map(MsixPart::Pending))
    }

    fn in_d3(&self, state: &EndpointState) -> bool {
        self.layout
            .power_management
            .is_some_and(|p| state.word(p + PMCSR) & 3 == 3)
    }

    fn msix_control(&self, state: &EndpointState) -> u16 {
        self.layout
            .msix
            .map_or(0, |m| state.word(m.capability + MSIX_CONTROL))
    }

    fn msi<'a>(&self, state: &'a mut EndpointState) -> Option<MsiCapability<'a>> {
        self.layout
            .msi
            .map(|offset| MsiCapability::new(&mut state.space, offset))
    }

    /// Derives messages and lines from state.
    fn update(&self, inner: &mut Inner) {
        let Inner { state, wiring, .. } = inner;
        let bus_master = state.word(COMMAND) & COMMAND_BUS_MASTER != 0 && !self.in_d3(state);
        let msix_control = self.msix_control(state);
        let msix = msix_control & MSIX_ENABLE != 0;
        let msi = self.msi(state).is_some_and(|m| m.enabled());
        self.bus_master.store(bus_master, Ordering::Release);
        self.message_signalled.store(msix || msi, Ordering::Release);

        // Turning MSI-X or MSI off takes back what was pending there.
        if !msix {
            state.msix.pending.fill(0);
        }
        if !msi && let Some(mut msi) = self.msi(state) {
            msi.forget();
        }
        let Some(wiring) = wiring else { return };
        if bus_master {
            let send = |(address, data)| {
                wiring.msi.send(Msi {
                    address,
                    data,
                    device: wiring.requester,
                })
            };
            if msix && msix_control & MSIX_FUNCTION_MASK == 0 {
                while let Some(message) = state.msix.take_message() {
                    send(message);
                }
            } else if msi && !msix {
                while let Some(message) = self.msi(state).and_then(|mut m| m.take_message()) {
                    send(message);
                }
            }
        }
        let disabled = state.word(COMMAND) & COMMAND_INTERRUPT_DISABLE != 0;
        wiring.intx.set(state.intx && !disabled && !msix && !msi);
    }
}

#[derive(Clone, Copy)]
enum MsixPart {
    Table(u64),
    Pending(u64),
}
