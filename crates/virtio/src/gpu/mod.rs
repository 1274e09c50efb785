//! The GPU device (VIRTIO 5.7) in its 2D mode: resources in host memory that the guest fills and flushes to outputs,
//! cursors, EDID, and blobs of guest memory.
//!
//! - `state` has what the guest makes of it and what the commands do; `backing` its memory behind resources.
//! - `scanout` has what consoles see: the picture as of the last flush. They ask for sizes there.
//! - `edid` describes the monitors; `format` the pixels; `spec` the layouts.

mod backing;
mod edid;
mod format;
mod scanout;
mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock, Weak};

use ::device::screen::Screen;
use ::device::{Ticket, Workers};
use memory::Dma;
use parking_lot::Mutex;

use crate::device::{DeviceKind, Running, VirtioDevice};
use crate::{Chain, ConfigError, Cursor, Interrupts, Virtqueue};
use scanout::{Head, Rectangle, Wish};
use spec::{config, feature};
use state::{Body, Kind, State, Wiring};

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuConfig {
    /// Outputs, 1 to 16. The first has a monitor from the start.
    pub max_outputs: u32,
    /// Its size in pixels until somebody asks for another.
    pub xres: u32,
    pub yres: u32,
    /// Whether monitors describe themselves.
    pub edid: bool,
    /// Whether the guest may show its own memory without copies.
    pub blob: bool,
    /// Host memory that the guest's resources may take, in bytes.
    pub max_hostmem: u64,
}

impl Default for GpuConfig {
    fn default() -> Self {
        GpuConfig {
            max_outputs: 1,
            xres: 1280,
            yres: 800,
            edid: true,
            blob: false,
            max_hostmem: 256 << 20,
        }
    }
}

/// A virtio GPU.
pub struct Gpu {
    inner: Arc<Inner>,
    workers: Arc<Workers>,
}

/// Locks, in the order they are taken: state, a head.
struct Inner {
    name: String,
    config: GpuConfig,
    dma: Dma,
    heads: Vec<Arc<Head>>,
    /// With the life of the device that it belongs to: commands of another change nothing.
    state: Mutex<(State, Option<u64>)>,
    running: Mutex<Option<Arc<Running>>>,
    interrupts: OnceLock<Arc<Interrupts>>,
}

/// Commands done before the driver hears of them.
const TURN: usize = 16;

impl Gpu {
    /// A device. `name` is for logs; `dma` is the guest's RAM.
    pub fn new(name: &str, config: GpuConfig, dma: Dma) -> Result<Gpu, ConfigError> {
        let check = |option, value: u64, range: std::ops::RangeInclusive<u64>, rule| {
            if range.contains(&value) {
                return Ok(());
            }
            Err(ConfigError::Option {
                device: name.into(),
                option,
                value,
                rule,
            })
        };
        let most = u64::from(scanout::LARGEST);
        check("max_outputs", config.max_outputs.into(), 1..=16, "1 to 16")?;
        check("xres", config.xres.into(), 1..=most, "1 to 16384")?;
        check("yres", config.yres.into(), 1..=most, "1 to 16384")?;
        let inner = Arc::new_cyclic(|this: &Weak<Inner>| {
            let head = |number: u32| {
                let this = this.clone();
                let wish = Wish {
                    enabled: number == 0,
                    width: config.xres,
                    height: config.yres,
                };
                Head::new(
                    wish,
                    Box::new(move || {
                        if let Some(inner) = this.upgrade() {
                            inner.outputs_changed();
                        }
                    }),
                )
            };
            Inner {
                name: name.into(),
                heads: (0..config.max_outputs).map(head).collect(),
                state: Mutex::new((State::power_on(&config), None)),
                config,
                dma,
                running: Mutex::new(None),
                interrupts: OnceLock::new(),
            }
        });
        let job = inner.clone();
        let workers = Workers::new(name, 1, move |ticket| job.work(ticket)).map_err(|e| {
            ConfigError::Thread {
                device: name.into(),
                reason: e.to_string(),
            }
        })?;
        Ok(Gpu {
            inner,
            workers: Arc::new(workers),
        })
    }

    /// How the device tells that its outputs have changed. Once, after [`crate::VirtioPci::new`].
    pub fn connect(&self, interrupts: &Arc<Interrupts>) {
        let _ = self.inner.interrupts.set(interrupts.clone());
    }

    /// What each output shows, for consoles.
    pub fn screens(&self) -> Vec<Arc<dyn Screen>> {
        let heads = self.inner.heads.iter();
        heads.map(|head| head.clone() as Arc<dyn Screen>).collect()
    }
}

impl VirtioDevice for Gpu {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind {
            device_type: 16,
            transitional: None,
            // Display controller, other: no VGA registers.
            class: 0x03_8000,
        }
    }

    fn features(&self) -> u64 {
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        let config = &self.inner.config;
        bit(config.edid, feature::EDID) | bit(config.blob, feature::RESOURCE_BLOB)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![64, 16]
    }

    fn config_size(&self) -> u64 {
        config::SIZE
    }

    fn read_config(&self, offset: u64, into: &mut [u8]) {
        let mut bytes = [0; config::SIZE as usize];
        let events = self.inner.state.lock().0.events;
        bytes[config::EVENTS_READ as usize..][..4].copy_from_slice(&events.to_le_bytes());
        bytes[config::NUM_SCANOUTS as usize..][..4]
            .copy_from_slice(&self.inner.config.max_outputs.to_le_bytes());
        let from = bytes.get(offset as usize..).unwrap_or(&[]);
        let length = into.len().min(from.len());
        into[..length].copy_from_slice(&from[..length]);
    }

    fn write_config(&self, offset: u64, from: &[u8]) {
        // Any part of events_clear.
        let mut clear = [0; 4];
        for (at, byte) in (offset..).zip(from) {
            if let Some(slot) = at
                .checked_sub(config::EVENTS_CLEAR)
                .and_then(|i| clear.get_mut(i as usize))
            {
                *slot = *byte;
            }
        }
        self.inner.state.lock().0.events &= !u32::from_le_bytes(clear);
    }

    fn start(&self, running: Arc<Running>) {
        self.inner.state.lock().1 = Some(running.epoch);
        *self.inner.running.lock() = Some(running);
        self.workers.wake();
    }

    fn notify(&self, _: u16) {
        self.workers.wake();
    }

    fn stop(&self) {
        *self.inner.running.lock() = None;
        let mut state = self.inner.state.lock();
        *state = (State::power_on(&self.inner.config), None);
        for head in &self.inner.heads {
            head.clear();
        }
    }

    fn drain(&self) {
        self.workers.drain();
    }

    /// The length of the state without pixels as 32 bits, that state as JSON, and the pixels of all images by resource.
    fn state(&self) -> Vec<u8> {
        let state = &self.inner.state.lock().0;
        let text = serde_json::to_vec(state).unwrap_or_default();
        let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
        bytes.extend(text);
        for resource in state.resources.values() {
            if let Kind::Image(image) = &resource.kind {
                bytes.extend(&image.bytes);
            }
        }
        bytes
    }

    fn restore(&self, saved: &[u8]) -> bool {
        let inner = &self.inner;
        let Some(state) = parse(saved).filter(|s| s.is_sound(&inner.config, &inner.dma)) else {
            return false;
        };
        let mut slot = inner.state.lock();
        slot.0 = state;
        let wiring = inner.wiring();
        for (number, scanout) in slot.0.scanouts.iter().enumerate() {
            if let Some(Rectangle { width, height, .. }) = scanout.map(|s| s.part) {
                inner.heads[number].set(width, height);
                let all = Rectangle {
                    x: 0,
                    y: 0,
                    width: u32::MAX,
                    height: u32::MAX,
                };
                slot.0.redraw(&wiring, number, all);
            }
        }
        true
    }
}

fn parse(saved: &[u8]) -> Option<State> {
    let (length, rest) = saved.split_first_chunk::<4>()?;
    let (text, mut pixels) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let mut state: State = serde_json::from_slice(text).ok()?;
    for resource in state.resources.values_mut() {
        if let Kind::Image(image) = &mut resource.kind {
            let (own, rest) = pixels.split_at_checked(usize::try_from(image.size()).ok()?)?;
            image.bytes = own.to_vec();
            pixels = rest;
        }
    }
    pixels.is_empty().then_some(state)
}

impl Inner {
    fn wiring(&self) -> Wiring<'_> {
        Wiring {
            config: &self.config,
            heads: &self.heads,
            dma: &self.dma,
        }
    }

    /// Somebody would like another size.
    fn outputs_changed(&self) {
        self.state.lock().0.events |= config::EVENT_DISPLAY;
        if let Some(interrupts) = self.interrupts.get() {
            interrupts.config_changed();
        }
    }

    fn work(&self, ticket: &Ticket) {
        let Some(running) = self.running.lock().clone() else {
            return;
        };
        let mut chain = Chain::default();
        loop {
            let served = ticket.run(running.epoch, || self.turn(&running, &mut chain));
            if !served {
                break;
            }
        }
    }

    /// Serves both queues for a while; whether there was anything.
    fn turn(&self, running: &Running, chain: &mut Chain) -> bool {
        let mut served = false;
        // The pointer first: it is what lags the most visibly.
        for number in [spec::CURSOR_QUEUE, spec::CONTROL_QUEUE] {
            let Some(queue) = running.queues.get(number) else {
                continue;
            };
            for _ in 0..TURN {
                if !queue.pop(running.epoch, chain) {
                    break;
                }
                served = true;
                let written = self.serve(queue, number, running.epoch, chain);
                queue.complete(chain, written);
            }
            queue.flush();
        }
        served
    }

    /// One command: how many bytes of answer.
    fn serve(&self, queue: &Virtqueue, number: usize, epoch: u64, chain: &Chain) -> u32 {
        let mut body = Body {
            dma: &self.dma,
            cursor: Cursor::new(&chain.readable),
        };
        let mut header = [0; spec::HEADER];
        if !matches!(body.cursor.read(&self.dma, &mut header), Ok(spec::HEADER)) {
            tracing::debug!(device = self.name, "a command without a header");
            return 0;
        }
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let kind = word(0);
        let mut state = self.state.lock();
        if state.1 != Some(epoch) {
            return 0;
        }
        let wiring = self.wiring();
        if number == spec::CURSOR_QUEUE {
            if let Err(refusal) = state.0.cursor(&wiring, kind, &mut body) {
                tracing::debug!(device = self.name, kind, ?refusal, "a cursor command");
            }
            // Nothing is said on the cursor queue (VIRTIO 5.7.6.9).
            return 0;
        }
        let answer = state.0.control(&wiring, kind, &mut body);
        drop(state);
        let (code, rest) = answer.unwrap_or_else(|refusal| {
            tracing::debug!(device = self.name, kind, ?refusal, "a command was refused");
            (refusal as u32, Vec::new())
        });
        // A fence is done when its command is; the answer names it (VIRTIO 5.7.6.7).
        let flags = word(4) & (spec::FLAG_FENCE | spec::FLAG_INFO_RING_IDX);
        let mut bytes = Vec::with_capacity(spec::HEADER + rest.len());
        bytes.extend(code.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        if flags & spec::FLAG_FENCE != 0 {
            bytes.extend(&header[8..]);
        } else {
            bytes.resize(spec::HEADER, 0);
        }
        bytes.extend(rest);
        let mut target = Cursor::new(&chain.writable);
        let written = queue.write(chain, |dma| target.write(dma, &bytes));
        written.and_then(Result::ok).unwrap_or(0) as u32
    }
}
