//! The controller's state and its registers (3.3).

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::spec::*;
use crate::stream::Stream;

/// All of the controller that a guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub gctl: u32,
    pub wakeen: u16,
    pub statests: u16,
    pub gsts: u16,
    pub intctl: u32,
    pub ssync: u32,
    /// Guest time at which WALCLK was zero, nanoseconds.
    pub walclk_zero: u64,
    pub corbbase: u64,
    pub corbwp: u8,
    pub corbrp: u8,
    /// CORBRP.RST is set and waits to be cleared.
    pub corbrp_reset: bool,
    pub corbctl: u8,
    pub corbsts: u8,
    pub rirbbase: u64,
    pub rirbwp: u8,
    pub rintcnt: u8,
    pub rirbctl: u8,
    pub rirbsts: u8,
    /// Responses since the last interrupt.
    pub responses: u16,
    pub ic: u32,
    pub ir: u32,
    pub ics: u16,
    pub dplbase: u64,
    pub streams: Vec<Stream>,
    /// By address.
    pub codecs: Vec<Option<codec::State>>,
    /// The interrupt was asserted when it was last derived.
    pub raised: bool,
}

impl State {
    /// After power-on: the link is in reset.
    pub fn power_on(codecs: &[Option<codec::Config>]) -> State {
        let codecs = codecs.iter();
        State {
            gctl: 0,
            wakeen: 0,
            statests: 0,
            gsts: 0,
            intctl: 0,
            ssync: 0,
            walclk_zero: 0,
            corbbase: 0,
            corbwp: 0,
            corbrp: 0,
            corbrp_reset: false,
            corbctl: 0,
            corbsts: 0,
            rirbbase: 0,
            rirbwp: 0,
            rintcnt: 0,
            rirbctl: 0,
            rirbsts: 0,
            responses: 0,
            ic: 0,
            ir: 0,
            ics: 0,
            dplbase: 0,
            streams: vec![Stream::default(); STREAMS],
            codecs: codecs
                .map(|c| c.as_ref().map(codec::State::power_on))
                .collect(),
            raised: false,
        }
    }

    /// Whether the link is out of reset.
    pub fn running(&self) -> bool {
        self.gctl & GCTL_CRST != 0
    }

    /// INTSTS.
    pub fn interrupt_status(&self) -> u32 {
        let mut status = 0;
        for (i, stream) in self.streams.iter().enumerate() {
            if stream.interrupts() {
                status |= 1 << i;
            }
        }
        let rirb = (self.rirbctl & RIRBCTL_RINTCTL != 0 && self.rirbsts & RIRBSTS_RINTFL != 0)
            || (self.rirbctl & RIRBCTL_OIC != 0 && self.rirbsts & RIRBSTS_OIS != 0);
        let corb = self.corbctl & CORBCTL_CMEIE != 0 && self.corbsts & CORBSTS_CMEI != 0;
        if rirb || corb || self.statests & self.wakeen != 0 {
            status |= INT_CONTROLLER;
        }
        if status & self.intctl != 0 {
            status |= INT_GLOBAL;
        }
        status
    }

    /// Whether the controller asks for an interrupt.
    pub fn interrupts(&self) -> bool {
        self.intctl & INT_GLOBAL != 0 && self.interrupt_status() & INT_GLOBAL != 0
    }

    fn wall_clock(&self, now: u64) -> u32 {
        if !self.running() {
            return 0;
        }
        let elapsed = u128::from(now.saturating_sub(self.walclk_zero));
        (elapsed * 24 / u128::from(WALCLK_24)) as u32
    }

    /// A read of the 32-bit word at `offset`.
    pub fn read(&self, offset: u64, now: u64) -> u32 {
        let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        match offset {
            register::GCAP => GCAP,
            register::OUTPAY => PAYLOAD,
            register::GCTL => self.gctl,
            register::WAKEEN => pair(self.wakeen, self.statests),
            register::GSTS => self.gsts.into(),
            register::INTCTL => self.intctl,
            register::INTSTS => self.interrupt_status(),
            register::WALCLK | register::WALCLK_ALIAS => self.wall_clock(now),
            register::SSYNC => self.ssync,
            register::CORBLBASE => self.corbbase as u32,
            register::CORBUBASE => (self.corbbase >> 32) as u32,
            register::CORBWP => {
                let reset = if self.corbrp_reset { CORBRP_RST } else { 0 };
                pair(self.corbwp.into(), u16::from(self.corbrp) | reset)
            }
            register::CORBCTL => {
                u32::from(self.corbctl) | u32::from(self.corbsts) << 8 | RING_SIZE << 16
            }
            register::RIRBLBASE => self.rirbbase as u32,
            register::RIRBUBASE => (self.rirbbase >> 32) as u32,
            register::RIRBWP => pair(self.rirbwp.into(), self.rintcnt.into()),
            register::RIRBCTL => {
                u32::from(self.rirbctl) | u32::from(self.rirbsts) << 8 | RING_SIZE << 16
            }
            register::IC => self.ic,
            register::IR => self.ir,
            register::ICS => self.ics.into(),
            register::DPLBASE => self.dplbase as u32,
            register::DPUBASE => (self.dplbase >> 32) as u32,
            _ => self.read_stream(offset),
        }
    }

    fn read_stream(&self, offset: u64) -> u32 {
        if let Some(at) = offset.checked_sub(register::SD0_ALIAS) {
            let stream = self.streams.get((at / sd::SIZE) as usize);
            let lpib = stream.filter(|_| at % sd::SIZE == sd::LPIB);
            return lpib.map_or(0, |s| s.lpib);
        }
        let Some((number, at)) = stream_of(offset) else {
            return 0;
        };
        let s = &self.streams[number];
        match at {
            sd::CTL => s.ctl | u32::from(s.status()) << 24,
            sd::LPIB => s.lpib,
            sd::CBL => s.cbl,
            sd::LVI => s.lvi.into(),
            sd::FIFOS => FIFO_SIZE | u32::from(s.fmt) << 16,
            sd::BDPL => s.bdl as u32,
            sd::BDPU => (s.bdl >> 32) as u32,
            _ => 0,
        }
    }

    /// A write of some bytes of the word at `offset`; `codecs` are those on the link.
    pub fn write(
        &mut self,
        offset: u64,
        value: u32,
        mask: u32,
        now: u64,
        codecs: &[Option<codec::Config>],
    ) {
        let merge = |old: u32| old & !mask | value & mask;
        match offset {
            register::GCTL => return self.write_gctl(merge(self.gctl), now, codecs),
            register::WAKEEN => {
                // Wake enables outlive the link's reset; state changes are cleared by ones.
                self.wakeen = merge(self.wakeen.into()) as u16 & 0x7fff;
                self.statests &= !((value & mask) >> 16) as u16;
                return;
            }
            _ if !self.running() => return,
            _ => {}
        }
        let low = |old: u64| old & !0xffff_ffff | u64::from(merge(old as u32));
        let high = |old: u64| old & 0xffff_ffff | u64::from(merge((old >> 32) as u32)) << 32;
        let whole = value & mask;
        match offset {
            register::GSTS => self.gsts &= !(whole as u16),
            register::INTCTL => {
                let streams = (1 << STREAMS) - 1;
                self.intctl = merge(self.intctl) & (INT_GLOBAL | INT_CONTROLLER | streams);
            }
            register::SSYNC => {
                self.ssync = merge(self.ssync) & ((1 << STREAMS) - 1);
            }
            register::CORBLBASE => self.corbbase = low(self.corbbase) & !0x7f,
            register::CORBUBASE => self.corbbase = high(self.corbbase),
            register::CORBWP => {
                self.corbwp = merge(self.corbwp.into()) as u8;
                if mask >> 16 & u32::from(CORBRP_RST) != 0 {
                    self.corbrp_reset = whole >> 16 & u32::from(CORBRP_RST) != 0;
                    if self.corbrp_reset {
                        self.corbrp = 0;
                    }
                }
            }
            register::CORBCTL => {
                self.corbctl = merge(self.corbctl.into()) as u8 & (CORBCTL_CMEIE | RING_RUN);
                self.corbsts &= !(whole >> 8) as u8;
            }
            register::RIRBLBASE => self.rirbbase = low(self.rirbbase) & !0x7f,
            register::RIRBUBASE => self.rirbbase = high(self.rirbbase),
            register::RIRBWP => {
                if whole & u32::from(RIRBWP_RST) != 0 {
                    self.rirbwp = 0;
                }
                let count = merge(u32::from(self.rintcnt) << 16);
                self.rintcnt = (count >> 16) as u8;
            }
            register::RIRBCTL => {
                let kept = RIRBCTL_RINTCTL | RING_RUN | RIRBCTL_OIC;
                self.rirbctl = merge(self.rirbctl.into()) as u8 & kept;
                self.rirbsts &= !(whole >> 8) as u8;
            }
            register::IC => self.ic = merge(self.ic),
            register::ICS => self.immediate(codecs, whole as u16),
            register::DPLBASE => self.dplbase = low(self.dplbase) & !0x7e,
            register::DPUBASE => self.dplbase = high(self.dplbase),
            _ => self.write_stream(offset, value, mask),
        }
    }

    fn write_stream(&mut self, offset: u64, value: u32, mask: u32) {
        let Some((number, at)) = stream_of(offset) else {
            return;
        };
        let s = &mut self.streams[number];
        let merge = |old: u32| old & !mask | value & mask;
        let idle = s.ctl & SDCTL_RUN == 0;
        match at {
            sd::CTL => {
                if mask & 0xff_ffff != 0 {
                    s.set_control(merge(s.ctl));
                }
                s.sts &= !((value & mask) >> 24) as u8 | !SDSTS_CLEARED;
            }
            sd::CBL if idle => s.cbl = merge(s.cbl),
            sd::LVI if idle => s.lvi = merge(s.lvi.into()) as u8,
            sd::FIFOS if idle => {
                s.fmt = (merge(u32::from(s.fmt) << 16) >> 16) as u16 & 0x7f7f;
            }
            sd::BDPL => s.set_list(s.bdl & !0xffff_ffff | u64::from(merge(s.bdl as u32))),
            sd::BDPU => {
                let high = merge((s.bdl >> 32) as u32);
                s.set_list(s.bdl & 0xffff_ffff | u64::from(high) << 32);
            }
            _ => {}
        }
    }

    /// The link goes into reset and comes out of it (3.3.7, 4.3).
    fn write_gctl(&mut self, value: u32, now: u64, codecs: &[Option<codec::Config>]) {
        let run = value & GCTL_CRST != 0;
        if !run {
            *self = State {
                wakeen: self.wakeen,
                statests: self.statests,
                raised: self.raised,
                ..State::power_on(codecs)
            };
            return;
        }
        if !self.running() {
            self.walclk_zero = now;
            // Each codec announces itself.
            for (address, codec) in self.codecs.iter().enumerate() {
                if codec.is_some() {
                    self.statests |= 1 << address;
                }
            }
        }
        if value & GCTL_FCNTRL != 0 {
            self.gsts |= GSTS_FSTS;
        }
        self.gctl = value & (GCTL_CRST | GCTL_UNSOL);
    }
}

/// Which stream an offset belongs to, and where in its descriptor.
fn stream_of(offset: u64) -> Option<(usize, u64)> {
    let at = offset.checked_sub(register::SD0)?;
    let number = (at / sd::SIZE) as usize;
    (number < STREAMS).then_some((number, at % sd::SIZE))
}
