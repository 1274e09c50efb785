//! The register file, as the guest reads and writes it.

use super::registers::*;
use super::state::{Config, MFINDEX, MICROFRAME, State};
use super::{commands, ports};

/// What a write asks of the controller beyond the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The worker may have something to do.
    pub work: bool,
}

impl State {
    /// The register at an offset of BAR 0 (a multiple of 4).
    pub fn read_register(&self, config: &Config, offset: u64, now: u64) -> u32 {
        match offset {
            ..OPERATIONAL => self.read_capability(config, offset),
            OPERATIONAL..PORTS => self.read_operational(offset - OPERATIONAL),
            PORTS..RUNTIME => {
                let (port, register) = (
                    (offset - PORTS) / PORT_STRIDE,
                    (offset - PORTS) % PORT_STRIDE,
                );
                self.ports
                    .get(port as usize)
                    .map_or(0, |p: &ports::Port| p.read(register))
            }
            RUNTIME => self.microframe(now),
            INTERRUPTERS_AT..DOORBELLS => {
                let at = offset - INTERRUPTERS_AT;
                let interrupter = self.interrupters.get((at / INTERRUPTER_STRIDE) as usize);
                interrupter.map_or(0, |i| i.read(at % INTERRUPTER_STRIDE))
            }
            // Doorbells read as zero.
            _ => 0,
        }
    }

    fn read_capability(&self, config: &Config, offset: u64) -> u32 {
        let (p2, p3) = (u32::from(config.p2), u32::from(config.p3));
        // Supported Protocol: revision, "USB ", ports, slot type 0 (7.2.1).
        let usb = u32::from_le_bytes(*b"USB ");
        match offset {
            capability::CAPLENGTH => capability::VERSION << 16 | OPERATIONAL as u32,
            capability::HCSPARAMS1 => (p2 + p3) << 24 | (INTERRUPTERS as u32) << 8 | SLOTS as u32,
            capability::HCSPARAMS2 => capability::PARAMS2,
            capability::HCSPARAMS3 => 0,
            capability::HCCPARAMS1 => capability::PARAMS1,
            capability::DBOFF => DOORBELLS as u32,
            capability::RTSOFF => RUNTIME as u32,
            capability::HCCPARAMS2 => 0,
            0x20 => 0x0200_0402,
            0x24 | 0x34 => usb,
            0x28 => p2 << 8 | (p3 + 1),
            0x30 => 0x0300_0002,
            0x38 => p3 << 8 | 1,
            _ => 0,
        }
    }

    fn read_operational(&self, offset: u64) -> u32 {
        match offset {
            operational::USBCMD => self.usbcmd | if self.resetting { usbcmd::HCRST } else { 0 },
            operational::USBSTS => self.usbsts,
            operational::PAGESIZE => 1,
            operational::DNCTRL => self.dnctrl,
            operational::CRCR if self.command_running => crcr::CRR,
            operational::DCBAAP => self.dcbaap as u32,
            0x34 => (self.dcbaap >> 32) as u32,
            operational::CONFIG => self.config,
            _ => 0,
        }
    }

    /// Writes a register.
    pub fn write_register(&mut self, offset: u64, value: u32, now: u64) -> Effect {
        // Nothing is taken in while the reset is under way (5.4.1: HCRST).
        if self.resetting {
            return Effect::default();
        }
        let work = match offset {
            OPERATIONAL..PORTS => self.write_operational(offset - OPERATIONAL, value, now),
            PORTS..RUNTIME => self.write_port(offset - PORTS, value),
            INTERRUPTERS_AT..DOORBELLS => {
                let at = offset - INTERRUPTERS_AT;
                let interrupter = self
                    .interrupters
                    .get_mut((at / INTERRUPTER_STRIDE) as usize);
                let flush = interrupter.is_some_and(|i| i.write(at % INTERRUPTER_STRIDE, value));
                self.flush_due |= flush;
                flush
            }
            DOORBELLS.. => self.ring((offset - DOORBELLS) / 4, value),
            _ => false,
        };
        Effect { work }
    }

    fn write_operational(&mut self, offset: u64, value: u32, now: u64) -> bool {
        match offset {
            operational::USBCMD => return self.write_usbcmd(value, now),
            operational::USBSTS => self.usbsts &= !(value & usbsts::CLEARED),
            operational::DNCTRL => self.dnctrl = value & 0xffff,
            operational::CRCR => return self.write_crcr(value),
            0x1c => self.write_crcr_high(value),
            operational::DCBAAP => {
                self.dcbaap = self.dcbaap & !0xffff_ffff | u64::from(value & !0x3f)
            }
            0x34 => self.dcbaap = self.dcbaap & 0xffff_ffff | u64::from(value) << 32,
            // MaxSlotsEn; U3E and CIE are not supported.
            operational::CONFIG => self.config = (value & 0xff).min(SLOTS as u32),
            _ => {}
        }
        false
    }

    fn write_usbcmd(&mut self, value: u32, now: u64) -> bool {
        if value & usbcmd::HCRST != 0 {
            self.resetting = true;
            return true;
        }
        // What is saved and restored is what the controller would lose with its power. Restoring what was not saved
        // fails (4.23.2).
        if value & usbcmd::CSS != 0 && !self.running() {
            self.saved = Some(self.interrupters.iter().map(|i| i.position).collect());
            self.usbsts &= !usbsts::SRE;
        }
        if value & usbcmd::CRS != 0 && !self.running() {
            match &self.saved {
                Some(saved) => {
                    for (interrupter, position) in self.interrupters.iter_mut().zip(saved) {
                        interrupter.position = *position;
                    }
                }
                None => self.usbsts |= usbsts::SRE,
            }
        }
        let before = self.usbcmd;
        self.usbcmd = value & usbcmd::KEPT;
        let run = self.usbcmd & usbcmd::RUN != 0;
        if run && self.usbsts & usbsts::HSE != 0 {
            // Only a reset helps.
            self.usbcmd &= !usbcmd::RUN;
            return false;
        }
        let ran = self.running() && !self.halting;
        if run && !ran {
            // A halt that was asked for and not yet made is off.
            let halted = !std::mem::take(&mut self.halting);
            if halted {
                self.usbsts &= !usbsts::HCH;
                self.mfindex_zero = now.wrapping_sub(u64::from(self.mfindex) * MICROFRAME);
                self.ports.iter_mut().for_each(ports::Port::started);
                self.kick_port(0);
            }
        } else if !run && ran {
            self.halting = true;
        }
        if (self.usbcmd ^ before) & (usbcmd::EWE | usbcmd::RUN) != 0 {
            let on = run && self.usbcmd & usbcmd::EWE != 0;
            let left = MFINDEX - u64::from(self.microframe(now));
            self.wrap = on.then_some(now + left * MICROFRAME);
        }
        true
    }

    fn write_port(&mut self, at: u64, value: u32) -> bool {
        let (port, register) = ((at / PORT_STRIDE) as usize, at % PORT_STRIDE);
        let Some(p) = self.ports.get_mut(port) else {
            return false;
        };
        let active = p.write(register, value);
        let work = p.event || p.resetting.is_some() || active;
        if active {
            self.kick_port(port as u8 + 1);
        }
        work
    }

    /// A doorbell (5.6).
    fn ring(&mut self, slot: u64, value: u32) -> bool {
        if !self.running() || slot > SLOTS as u64 {
            return false;
        }
        let target = (value & 0xff) as u8;
        match slot {
            0 if target == 0 => {
                self.command_running = true;
                self.command_doorbell = true;
                self.command_budget = commands::BUDGET;
            }
            0 => return false,
            // The upper half is a stream ID: there are no streams.
            slot => self.doorbell(slot as u8, target),
        }
        true
    }
}
