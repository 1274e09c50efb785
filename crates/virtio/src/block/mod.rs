//! The block device (VIRTIO 5.2).

mod request;
pub mod spec;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::device::{Ticket, Workers};
use parking_lot::Mutex;
use storage::Disk;

use crate::device::{DeviceKind, Running, VirtioDevice};
use crate::{Chain, ConfigError};
use request::Buffer;
use spec::feature;

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// What GET_ID answers; the first 20 bytes count.
    pub serial: String,
    /// Request queues, 1 to 64.
    pub num_queues: u16,
    /// Descriptors of each, a power of two from 4 to 1024.
    pub queue_size: u16,
    /// Whether writes may wait in the host's cache for a flush. The driver may change it.
    pub write_cache: bool,
    /// Refuse writes even if the disk takes them.
    pub read_only: bool,
    /// Bytes; a power of two from 512. By default the disk's own.
    pub logical_block_size: Option<u32>,
    /// Bytes; a power of two, at least the logical one. By default the logical one.
    pub physical_block_size: Option<u32>,
    /// Whether the driver may discard.
    pub discard: bool,
}

impl Default for BlockConfig {
    fn default() -> Self {
        BlockConfig {
            serial: String::new(),
            num_queues: 1,
            queue_size: 256,
            write_cache: true,
            read_only: false,
            logical_block_size: None,
            physical_block_size: None,
            discard: true,
        }
    }
}

/// A virtio block device.
pub struct Block {
    inner: Arc<Inner>,
    workers: Workers,
}

struct Inner {
    name: String,
    config: BlockConfig,
    disk: Arc<dyn Disk>,
    read_only: bool,
    /// Logical and physical, as exponents of two.
    block_shift: u32,
    physical_shift: u32,
    /// State: the `writeback` field.
    write_back: AtomicBool,
    running: Mutex<Option<Arc<Running>>>,
    /// Buffers of threads that rest.
    buffers: Mutex<Vec<Buffer>>,
}

/// Chains of one queue before the next has its turn.
const TURN: usize = 32;
/// A request of so many bytes is worth waking another thread for what comes after it.
const LARGE: u64 = 128 << 10;

impl Block {
    /// A device on `disk`. `name` is for logs.
    pub fn new(name: &str, config: BlockConfig, disk: Arc<dyn Disk>) -> Result<Block, ConfigError> {
        let check = |ok: bool, option, value: u64, rule| {
            let error = ConfigError::Option {
                device: name.into(),
                option,
                value,
                rule,
            };
            if ok { Ok(()) } else { Err(error) }
        };
        let logical = config
            .logical_block_size
            .unwrap_or_else(|| disk.block_size());
        let physical = config.physical_block_size.unwrap_or(logical).max(logical);
        let block = |size: u32| size.is_power_of_two() && (512..=2 << 20).contains(&size);
        let rule = "a power of two between 512 and 2 MiB";
        check(block(logical), "logical_block_size", logical.into(), rule)?;
        check(
            block(physical),
            "physical_block_size",
            physical.into(),
            rule,
        )?;
        let queues = config.num_queues;
        check(
            (1..=64).contains(&queues),
            "num-queues",
            queues.into(),
            "between 1 and 64",
        )?;
        let size = config.queue_size;
        let rule = "a power of two between 4 and 1024";
        check(
            size.is_power_of_two() && (4..=1024).contains(&size),
            "queue-size",
            size.into(),
            rule,
        )?;
        let inner = Arc::new(Inner {
            name: name.into(),
            read_only: config.read_only || disk.read_only(),
            block_shift: logical.trailing_zeros(),
            physical_shift: physical.trailing_zeros(),
            write_back: AtomicBool::new(config.write_cache),
            config,
            disk,
            running: Mutex::new(None),
            buffers: Mutex::default(),
        });
        // Two at least, so that a flush does not hold up reads.
        let threads = usize::from(queues.clamp(2, 4));
        let job = inner.clone();
        let workers = Workers::new(name, threads, move |ticket| job.work(ticket)).map_err(|e| {
            ConfigError::Thread {
                device: name.into(),
                reason: e.to_string(),
            }
        })?;
        Ok(Block { inner, workers })
    }
}

impl VirtioDevice for Block {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind {
            device_type: 2,
            transitional: Some(0x1001),
            class: 0x01_0000,
        }
    }

    fn features(&self) -> u64 {
        let mut features = feature::SEG_MAX
            | feature::GEOMETRY
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY
            | feature::CONFIG_WCE;
        if self.inner.read_only {
            features |= feature::RO;
        } else {
            features |= feature::WRITE_ZEROES;
            if self.inner.config.discard {
                features |= feature::DISCARD;
            }
        }
        if self.inner.config.num_queues > 1 {
            features |= feature::MQ;
        }
        features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![self.inner.config.queue_size; self.inner.config.num_queues.into()]
    }

    fn config_size(&self) -> u64 {
        spec::CONFIG_SIZE as u64
    }

    fn read_config(&self, offset: u64, into: &mut [u8]) {
        let bytes = self.inner.config_bytes();
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = bytes.get(offset as usize + i).copied().unwrap_or(0);
        }
    }

    fn write_config(&self, offset: u64, from: &[u8]) {
        let at = (spec::WRITEBACK as u64)
            .checked_sub(offset)
            .map(|i| i as usize);
        if let Some(&value) = at.and_then(|i| from.get(i)) {
            self.inner
                .write_back
                .store(value & 1 != 0, Ordering::SeqCst);
        }
    }

    fn start(&self, running: Arc<Running>) {
        *self.inner.running.lock() = Some(running);
        self.workers.wake();
    }

    fn notify(&self, _: u16) {
        self.workers.wake();
    }

    fn stop(&self) {
        *self.inner.running.lock() = None;
        self.inner
            .write_back
            .store(self.inner.config.write_cache, Ordering::SeqCst);
    }

    fn drain(&self) {
        self.workers.drain();
    }

    fn state(&self) -> Vec<u8> {
        vec![self.inner.write_back.load(Ordering::SeqCst).into()]
    }

    fn restore(&self, state: &[u8]) -> bool {
        let &[write_back] = state else { return false };
        self.inner
            .write_back
            .store(write_back != 0, Ordering::SeqCst);
        true
    }

    fn shutdown(&self) {
        self.workers.drain();
        if !self.inner.read_only
            && let Err(error) = self.inner.disk.flush()
        {
            tracing::error!(device = self.inner.name, "cannot flush the disk: {error}");
        }
    }
}

impl Inner {
    /// Sectors of 512 bytes, of whole logical blocks.
    fn capacity(&self) -> u64 {
        self.disk.size() >> self.block_shift << (self.block_shift - 9)
    }

    fn config_bytes(&self) -> [u8; spec::CONFIG_SIZE] {
        let mut bytes = [0; spec::CONFIG_SIZE];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        let capacity = self.capacity();
        put(spec::CAPACITY, &capacity.to_le_bytes());
        // A header and a status take two descriptors of the ring.
        let segments = u32::from(self.config.queue_size) - 2;
        put(spec::SEG_MAX, &segments.to_le_bytes());
        // The translation that large disks have always had: 16 heads, 63 sectors.
        let cylinders = (capacity / (16 * 63)).clamp(2, 16383) as u16;
        put(spec::CYLINDERS, &cylinders.to_le_bytes());
        put(spec::HEADS, &[16, 63]);
        put(spec::BLK_SIZE, &(1u32 << self.block_shift).to_le_bytes());
        put(
            spec::PHYSICAL_BLOCK_EXP,
            &[(self.physical_shift - self.block_shift) as u8],
        );
        put(
            spec::MIN_IO_SIZE,
            &(1u16 << (self.physical_shift - self.block_shift)).to_le_bytes(),
        );
        put(
            spec::WRITEBACK,
            &[self.write_back.load(Ordering::SeqCst).into()],
        );
        put(spec::NUM_QUEUES, &self.config.num_queues.to_le_bytes());
        let alignment = 1u32 << (self.block_shift - 9);
        if !self.read_only {
            put(
                spec::MAX_WRITE_ZEROES_SECTORS,
                &spec::MAX_SECTORS.to_le_bytes(),
            );
            put(
                spec::MAX_WRITE_ZEROES_SEG,
                &spec::MAX_SEGMENTS.to_le_bytes(),
            );
            put(spec::WRITE_ZEROES_MAY_UNMAP, &[1]);
            if self.config.discard {
                put(spec::MAX_DISCARD_SECTORS, &spec::MAX_SECTORS.to_le_bytes());
                put(spec::MAX_DISCARD_SEG, &spec::MAX_SEGMENTS.to_le_bytes());
                put(spec::DISCARD_SECTOR_ALIGNMENT, &alignment.to_le_bytes());
            }
        }
        bytes
    }

    /// A worker's job: serves all queues until they are empty.
    fn work(&self, ticket: &Ticket) {
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let mut chain = Chain::default();
        loop {
            // A statement of its own, or the lock would be held for the whole round.
            let running = self.running.lock().clone();
            let Some(running) = running else { break };
            let mut served = 0;
            for queue in &running.queues {
                served += ticket.run(running.epoch, || {
                    let mut served = 0;
                    while served < TURN && queue.pop(running.epoch, &mut chain) {
                        served += 1;
                        if served == TURN || self.is_slow(&chain) {
                            queue.flush();
                            ticket.wake();
                        }
                        self.serve(&running, queue, &chain, &mut buffer);
                    }
                    queue.flush();
                    served
                });
            }
            if served == 0 {
                break;
            }
        }
        self.buffers.lock().push(buffer);
    }

    /// Whether others should not wait for this one: it is large, or carries no data (a flush, a discard).
    fn is_slow(&self, chain: &Chain) -> bool {
        let length = chain.readable_length() + chain.writable_length();
        !(512..LARGE).contains(&length)
    }
}
