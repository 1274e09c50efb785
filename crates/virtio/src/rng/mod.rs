//! The entropy device (VIRTIO 5.4).

#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use ::device::{Clock, Ticket, Timer, Workers};
use parking_lot::Mutex;

use crate::device::{DeviceKind, Running, VirtioDevice};
use crate::{Chain, ConfigError, Cursor};

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RngConfig {
    /// Bytes that the guest gets in a period; without it there is no limit.
    pub max_bytes: Option<u64>,
    /// The period in milliseconds.
    pub period: u32,
}

impl Default for RngConfig {
    fn default() -> Self {
        RngConfig {
            max_bytes: None,
            period: 1 << 16,
        }
    }
}

/// Bytes one request gets at most; the driver asks again for more.
const LIMIT: u64 = 4096;

/// A virtio entropy device: the host's random numbers.
pub struct Rng {
    inner: Arc<Inner>,
    workers: Arc<Workers>,
}

struct Inner {
    name: String,
    config: RngConfig,
    clock: Clock,
    running: Mutex<Option<Arc<Running>>>,
    quota: Mutex<Quota>,
    /// Ends the period for a driver that waits.
    timer: Mutex<Option<Timer>>,
}

/// State: what is left of the present period.
#[derive(Default)]
struct Quota {
    left: u64,
    /// Guest time at which the period ends, nanoseconds.
    until: u64,
}

impl Rng {
    /// A device. `name` is for logs.
    pub fn new(name: &str, config: RngConfig, clock: &Clock) -> Result<Rng, ConfigError> {
        for (option, value) in [
            ("period", Some(u64::from(config.period))),
            ("max-bytes", config.max_bytes),
        ] {
            if value == Some(0) {
                let rule = "at least 1";
                return Err(ConfigError::Option {
                    device: name.into(),
                    option,
                    value: 0,
                    rule,
                });
            }
        }
        let inner = Arc::new(Inner {
            name: name.into(),
            config,
            clock: clock.clone(),
            running: Mutex::new(None),
            quota: Mutex::default(),
            timer: Mutex::new(None),
        });
        let job = inner.clone();
        let workers = Workers::new(name, 1, move |ticket| job.work(ticket)).map_err(|e| {
            ConfigError::Thread {
                device: name.into(),
                reason: e.to_string(),
            }
        })?;
        let workers = Arc::new(workers);
        if inner.config.max_bytes.is_some() {
            let wake: Weak<Workers> = Arc::downgrade(&workers);
            let timer = clock.timer(move || {
                if let Some(workers) = wake.upgrade() {
                    workers.wake();
                }
            });
            *inner.timer.lock() = Some(timer);
        }
        Ok(Rng { inner, workers })
    }
}

impl VirtioDevice for Rng {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind {
            device_type: 4,
            transitional: Some(0x1005),
            class: 0x00_ff00,
        }
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![8]
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
        *self.inner.quota.lock() = Quota::default();
    }

    fn drain(&self) {
        self.workers.drain();
    }
}

impl Inner {
    fn work(&self, ticket: &Ticket) {
        let Some(running) = self.running.lock().clone() else {
            return;
        };
        let mut chain = Chain::default();
        ticket.run(running.epoch, || {
            for queue in &running.queues {
                while self.allowed() > 0 && queue.pop(running.epoch, &mut chain) {
                    let mut bytes = [0; LIMIT as usize];
                    let length = chain.writable_length().min(LIMIT).min(self.allowed()) as usize;
                    let filled = getrandom::fill(&mut bytes[..length]);
                    if let Err(error) = filled {
                        tracing::error!(
                            device = self.name,
                            "the host has no random numbers: {error}"
                        );
                        queue.complete(&chain, 0);
                        continue;
                    }
                    let mut target = Cursor::new(&chain.writable);
                    let written = queue.write(&chain, |dma| target.write(dma, &bytes[..length]));
                    let written = written.and_then(Result::ok).unwrap_or(0);
                    self.use_up(written as u64);
                    queue.complete(&chain, written as u32);
                }
                queue.flush();
            }
        });
    }

    /// Bytes that may be given now. Sets the timer if there are none.
    fn allowed(&self) -> u64 {
        let Some(max) = self.config.max_bytes else {
            return u64::MAX;
        };
        let now = self.clock.now();
        let mut quota = self.quota.lock();
        if now >= quota.until {
            *quota = Quota {
                left: max,
                until: now + u64::from(self.config.period) * 1_000_000,
            };
        }
        if quota.left == 0
            && let Some(timer) = self.timer.lock().as_ref()
        {
            timer.arm(quota.until);
        }
        quota.left
    }

    fn use_up(&self, bytes: u64) {
        let mut quota = self.quota.lock();
        quota.left = quota.left.saturating_sub(bytes);
    }
}
