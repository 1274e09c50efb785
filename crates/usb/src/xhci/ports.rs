//! Root hub ports (4.19).

use serde::{Deserialize, Serialize};

use super::registers::{link, portsc};
use crate::device::{Bus, Speed};

/// A reset that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reset {
    Hot,
    Warm,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub bus: Bus,
    /// The device that is plugged in runs at this speed. Outlives resets.
    pub present: Option<Speed>,
    /// CCS, PED, PP.
    pub connected: bool,
    pub enabled: bool,
    powered: bool,
    /// PR: the worker has yet to reset the device.
    pub resetting: Option<Reset>,
    /// PLS.
    pub link: u8,
    /// The change bits, in place.
    changes: u32,
    /// Wake enables and indicator, in place.
    kept: u32,
    /// PORTPMSC, PORTHLPMC.
    power_management: u32,
    hardware_lpm: u32,
    /// A change is to be told by an event.
    pub event: bool,
}

impl Port {
    /// At power-on or after a controller reset, with that device in it.
    pub fn power_on(bus: Bus, present: Option<Speed>) -> Port {
        let mut port = Port {
            bus,
            present,
            connected: false,
            enabled: false,
            powered: true,
            resetting: None,
            link: link::RX_DETECT,
            changes: 0,
            kept: 0,
            power_management: 0,
            hardware_lpm: 0,
            event: false,
        };
        port.connect();
        port
    }

    /// Sets change bits. An event tells of the first (4.19.2: PSCEG rises).
    fn change(&mut self, bits: u32) {
        if self.changes == 0 && bits != 0 {
            self.event = true;
        }
        self.changes |= bits;
    }

    /// When the controller starts to run: changes of before are told.
    pub fn started(&mut self) {
        self.event |= self.changes != 0;
    }

    /// Whether transfers may go to the device.
    pub fn active(&self) -> bool {
        self.connected && self.enabled && self.link <= link::U2 && self.resetting.is_none()
    }

    fn connect(&mut self) {
        if self.present.is_none() || !self.powered {
            return;
        }
        self.connected = true;
        // A SuperSpeed link trains by itself; USB 2 waits for a reset.
        let usb3 = self.bus == Bus::Usb3;
        self.enabled = usb3;
        self.link = if usb3 { link::U0 } else { link::POLLING };
        self.change(portsc::CSC);
    }

    fn disconnect(&mut self) {
        self.resetting = None;
        self.enabled = false;
        self.link = link::RX_DETECT;
        if std::mem::take(&mut self.connected) {
            self.change(portsc::CSC);
        }
    }

    /// A device was plugged in.
    pub fn attach(&mut self, speed: Speed) {
        self.present = Some(speed);
        self.connect();
    }

    /// It was pulled out.
    pub fn detach(&mut self) {
        self.present = None;
        self.disconnect();
    }

    /// The device is reset.
    pub fn reset_done(&mut self) {
        let Some(reset) = self.resetting.take() else {
            return;
        };
        if self.connected {
            self.enabled = true;
            self.link = link::U0;
        }
        self.change(portsc::PRC | if reset == Reset::Warm { portsc::WRC } else { 0 });
    }

    /// The device wakes the host; whether it was asleep.
    pub fn wake(&mut self) -> bool {
        let asleep = self.connected && self.link == link::U3;
        if asleep {
            self.link = link::RESUME;
            self.change(portsc::PLC);
        }
        asleep
    }

    pub fn read(&self, register: u64) -> u32 {
        match register {
            0x0 => {
                let bit = |on: bool, bit: u32| if on { bit } else { 0 };
                let speed = self
                    .present
                    .filter(|_| self.connected)
                    .map_or(0, |s| s as u32);
                bit(self.connected, portsc::CCS)
                    | bit(self.enabled, portsc::PED)
                    | bit(self.resetting.is_some(), portsc::PR)
                    | u32::from(self.link) << portsc::PLS_SHIFT
                    | bit(self.powered, portsc::PP)
                    | speed << portsc::SPEED_SHIFT
                    | self.changes
                    | self.kept
            }
            0x4 => self.power_management,
            0xc => self.hardware_lpm,
            // PORTLI: no link errors.
            _ => 0,
        }
    }

    /// A write of PORTSC (register 0) and its companions. Returns whether transfers may go on that could not before.
    pub fn write(&mut self, register: u64, value: u32) -> bool {
        let before = self.active();
        match (register, self.bus) {
            (0x0, _) => self.write_status(value),
            // USB 3: U1 and U2 timeouts, force link PM accept. USB 2: L1 status is read-only, test mode is not there.
            (0x4, Bus::Usb3) => self.power_management = value & 0x1_ffff,
            (0x4, Bus::Usb2) => self.power_management = value & 0x0001_fff8,
            // USB 2 hardware LPM: HIRDM, L1 timeout, BESLD.
            (0xc, Bus::Usb2) => self.hardware_lpm = value & 0x3fff,
            _ => {}
        }
        !before && self.active()
    }

    fn write_status(&mut self, value: u32) {
        self.changes &= !(value & portsc::CHANGES);
        self.kept = value & (portsc::WAKE | portsc::PIC);
        let power = value & portsc::PP != 0;
        if power != self.powered {
            self.powered = power;
            if power {
                self.connect();
            } else {
                self.disconnect();
                self.link = link::DISABLED;
                self.changes = 0;
                self.event = false;
            }
            return;
        }
        if !self.powered {
            return;
        }
        if value & portsc::PED != 0 && self.enabled {
            self.enabled = false;
            self.link = if self.bus == Bus::Usb3 {
                link::DISABLED
            } else {
                link::POLLING
            };
            return;
        }
        let warm = value & portsc::WPR != 0 && self.bus == Bus::Usb3;
        if (value & portsc::PR != 0 || warm) && self.resetting.is_none() {
            if self.connected {
                self.resetting = Some(if warm { Reset::Warm } else { Reset::Hot });
                if self.bus == Bus::Usb2 {
                    self.enabled = false;
                }
            }
            return;
        }
        if value & portsc::LWS != 0 {
            self.set_link((value >> portsc::PLS_SHIFT & 0xf) as u8);
        }
    }

    /// A write of PLS (table 5-27, 4.19.1).
    fn set_link(&mut self, to: u8) {
        match (to, self.bus) {
            (link::U3, _) if self.enabled && self.link <= link::U2 => self.link = link::U3,
            (link::U2, Bus::Usb2) if self.enabled && self.link == link::U0 => self.link = link::U2,
            // Resume signalling, and its end by U0.
            (link::RESUME, Bus::Usb2) if self.enabled && self.link == link::U3 => {
                self.link = link::RESUME
            }
            (link::U0, _) if self.enabled && self.link != link::U0 => {
                let resumed = matches!(self.link, link::U3 | link::RESUME);
                self.link = link::U0;
                if resumed {
                    self.change(portsc::PLC);
                }
            }
            (link::DISABLED, Bus::Usb3) => {
                self.enabled = false;
                self.link = link::DISABLED;
                // The link is down: nothing is seen on it any more.
                self.connected = false;
            }
            (link::RX_DETECT, Bus::Usb3) if self.link == link::DISABLED => {
                self.link = link::RX_DETECT;
                self.connect();
            }
            _ => {}
        }
    }
}
