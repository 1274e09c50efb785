//! Controller registers and doorbells (NVMe 3.1).

use device::Registers;

use crate::controller::Nvme;
use crate::events::{INVALID_DOORBELL_REGISTER, INVALID_DOORBELL_VALUE};
use crate::spec::{self, cc, csts, register};
use crate::state::State;

impl Registers for Nvme {
    fn read_register(&self, offset: u64, _: u32) -> u32 {
        let state = self.inner.state.lock();
        match offset {
            register::CAP => spec::CAPABILITIES as u32,
            0x04 => (spec::CAPABILITIES >> 32) as u32,
            register::VS => spec::VERSION,
            register::INTMS | register::INTMC => state.masked,
            register::CC => state.cc,
            register::CSTS => state.csts,
            register::AQA => state.aqa,
            register::ASQ => state.asq as u32,
            0x2c => (state.asq >> 32) as u32,
            register::ACQ => state.acq as u32,
            0x34 => (state.acq >> 32) as u32,
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, _: u32, value: u32, mask: u32) {
        if offset == register::CC {
            return self.write_cc(value, mask);
        }
        let mut state = self.inner.state.lock();
        let merge = |old: u32| old & !mask | value;
        let low = |old: u64, keep: u32| old >> 32 << 32 | u64::from(merge(old as u32) & keep);
        let high = |old: u64| u64::from(merge((old >> 32) as u32)) << 32 | old & 0xffff_ffff;
        match offset {
            register::INTMS => {
                state.masked |= value;
                self.inner.update(&mut state);
            }
            register::INTMC => {
                state.masked &= !value;
                self.inner.update(&mut state);
            }
            register::AQA => state.aqa = merge(state.aqa) & 0x0fff_0fff,
            register::ASQ => state.asq = low(state.asq, 0xffff_f000),
            0x2c => state.asq = high(state.asq),
            register::ACQ => state.acq = low(state.acq, 0xffff_f000),
            0x34 => state.acq = high(state.acq),
            register::DOORBELLS.. if state.csts & csts::RDY != 0 => {
                let number = (offset - register::DOORBELLS) / 4;
                self.ring(&mut state, number, value);
                drop(state);
                self.workers.wake();
            }
            _ => {}
        }
    }
}

impl Nvme {
    /// Doorbell `number`: submission queue tails are even, completion queue heads odd (NVMe 3.1.24, 3.1.25).
    fn ring(&self, state: &mut State, number: u64, value: u32) {
        let value = value & 0xffff;
        let id = (number / 2).min(u64::from(u16::MAX)) as u16;
        let accepted = if number.is_multiple_of(2) {
            state.sq(id).map(|sq| {
                let fits = value < sq.size;
                if fits {
                    sq.tail = value;
                }
                fits
            })
        } else {
            state.cq(id).map(|cq| {
                // The head moves over what was posted, and no further.
                let step = (value + cq.size - cq.head) % cq.size;
                let fits = value < cq.size && step <= cq.used();
                if fits {
                    cq.head = value;
                }
                fits
            })
        };
        match accepted {
            Some(true) => {
                if id == 0 {
                    self.inner.post_events(state);
                    self.inner.signal(state, 0);
                }
                self.inner.update(state);
            }
            Some(false) => self.inner.error_event(state, INVALID_DOORBELL_VALUE),
            None => self.inner.error_event(state, INVALID_DOORBELL_REGISTER),
        }
    }

    fn write_cc(&self, value: u32, mask: u32) {
        let mut epoch = self.inner.epoch.write();
        let mut state = self.inner.state.lock();
        let before = state.cc;
        let now = (before & !mask | value) & 0x00ff_fff1;
        if before & cc::EN != 0 && now & cc::EN == 0 {
            *epoch = epoch.wrapping_add(1);
            state.controller_reset(self.inner.config.write_cache);
            state.cc = now;
            return self.inner.update(&mut state);
        }
        state.cc = now;
        if before & cc::EN == 0 && now & cc::EN != 0 {
            let possible = cc::css(now) == 0 && cc::ams(now) == 0 && cc::mps(now) <= spec::MAX_MPS;
            if possible && self.inner.create_admin_queues(&mut state) {
                state.csts |= csts::RDY;
            } else {
                self.inner.fatal(&mut state, "an impossible configuration");
            }
        }
        // A shutdown: the worker flushes and then says that it is complete (NVMe 7.6.2).
        if cc::shn(before) == 0 && cc::shn(now) != 0 {
            state.csts = state.csts & !csts::SHST | csts::SHST_OCCURRING;
            drop(state);
            drop(epoch);
            self.workers.wake();
        }
    }
}
