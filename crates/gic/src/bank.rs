//! Thirty-two interrupts: what one register of a bit each describes.

use serde::{Deserialize, Serialize};

/// The state of 32 interrupts, a bit each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bank {
    /// Group 1 rather than group 0 (IGROUPR).
    pub group: u32,
    /// Forwarding enabled (ISENABLER).
    pub enabled: u32,
    /// Pending by an edge, by software or by a message; an interrupt that is taken leaves it.
    pub latched: u32,
    /// The input lines' levels.
    pub level: u32,
    /// Active: taken and not yet deactivated (ISACTIVER).
    pub active: u32,
    /// Edge-triggered rather than level-sensitive (ICFGR).
    pub edge: u32,
    /// Lower is more urgent (IPRIORITYR).
    pub priority: [u8; 32],
}

/// What differs between banks and versions of the GIC.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// ISENABLER bits that always read as one (SGIs of a GICv2).
    pub always_enabled: u32,
    /// Bits that ISPENDR and ICPENDR change (not the SGIs of a GICv2, which have registers of their own).
    pub settable: u32,
    /// ICFGR bits that cannot be changed (SGIs).
    pub fixed_trigger: u32,
    /// The implemented bits of a priority.
    pub priority_mask: u8,
}

/// A register of a bank. They lie at the same offsets in GICD (either version) and GICR's SGI frame
/// (IHI 0069 sections 12.8 and 12.11, IHI 0048 section 4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BankRegister {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    /// Four priorities: word 0 to 7.
    Priority(usize),
    /// Sixteen triggers: half 0 or 1.
    Configuration(usize),
}

/// Which bank's which register lies at `offset` (a multiple of 4).
pub fn locate(offset: u64) -> Option<(usize, BankRegister)> {
    let within = |base: u64| (offset - base) as usize / 4;
    Some(match offset {
        0x080..0x100 => (within(0x080), BankRegister::Group),
        0x100..0x180 => (within(0x100), BankRegister::SetEnable),
        0x180..0x200 => (within(0x180), BankRegister::ClearEnable),
        0x200..0x280 => (within(0x200), BankRegister::SetPending),
        0x280..0x300 => (within(0x280), BankRegister::ClearPending),
        0x300..0x380 => (within(0x300), BankRegister::SetActive),
        0x380..0x400 => (within(0x380), BankRegister::ClearActive),
        0x400..0x800 => (within(0x400) / 8, BankRegister::Priority(within(0x400) % 8)),
        0xc00..0xd00 => (
            within(0xc00) / 2,
            BankRegister::Configuration(within(0xc00) % 2),
        ),
        _ => return None,
    })
}

impl Bank {
    /// SPIs at power-on.
    pub fn shared() -> Bank {
        Bank {
            group: 0,
            enabled: 0,
            latched: 0,
            level: 0,
            active: 0,
            edge: 0,
            priority: [0; 32],
        }
    }

    /// SGIs, which are edge-triggered, and PPIs at power-on.
    pub fn private() -> Bank {
        Bank {
            edge: 0xffff,
            ..Bank::shared()
        }
    }

    /// Which are pending. A level-sensitive interrupt is pending while its line is high or its latch is set
    /// (IHI 0048 figure 4-10; IHI 0069 section 4.1).
    pub fn pending(&self) -> u32 {
        self.latched | self.level & !self.edge
    }

    /// Which may be forwarded to a processor, groups aside.
    pub fn ready(&self) -> u32 {
        self.pending() & self.enabled & !self.active
    }

    /// Which may be forwarded, given what groups are enabled.
    pub fn ready_in(&self, group0: bool, group1: bool) -> u32 {
        let groups = if group0 { !self.group } else { 0 } | if group1 { self.group } else { 0 };
        self.ready() & groups
    }

    /// The input line of the interrupts of `bit` is now at `level`. `rose` if it was low before: the edge counts even if
    /// the line has fallen again since.
    pub fn drive(&mut self, bit: u32, level: bool, rose: bool) {
        if rose {
            self.latched |= bit & self.edge;
        }
        if level {
            self.level |= bit;
        } else {
            self.level &= !bit;
        }
    }

    /// An interrupt is taken: pending becomes active; a line that is still high makes it active and pending.
    pub fn acknowledge(&mut self, bit: u32) {
        self.active |= bit;
        self.latched &= !bit;
    }

    /// Reads a register.
    pub fn read(&self, register: BankRegister) -> u32 {
        match register {
            BankRegister::Group => self.group,
            BankRegister::SetEnable | BankRegister::ClearEnable => self.enabled,
            BankRegister::SetPending | BankRegister::ClearPending => self.pending(),
            BankRegister::SetActive | BankRegister::ClearActive => self.active,
            BankRegister::Priority(word) => {
                let at = word * 4;
                u32::from_le_bytes([
                    self.priority[at],
                    self.priority[at + 1],
                    self.priority[at + 2],
                    self.priority[at + 3],
                ])
            }
            BankRegister::Configuration(half) => {
                let edges = self.edge >> (16 * half);
                (0..16).fold(0, |value, i| value | (edges >> i & 1) << (2 * i + 1))
            }
        }
    }

    /// Writes the bits of `mask` of a register; `value` has no others. Returns the interrupts it may have changed.
    pub fn write(&mut self, register: BankRegister, value: u32, mask: u32, rules: &Rules) -> u32 {
        match register {
            BankRegister::Group => {
                self.group = self.group & !mask | value;
                mask
            }
            BankRegister::SetEnable => {
                self.enabled |= value;
                value
            }
            BankRegister::ClearEnable => {
                self.enabled &= !value | rules.always_enabled;
                value
            }
            BankRegister::SetPending => {
                self.latched |= value & rules.settable;
                value
            }
            BankRegister::ClearPending => {
                self.latched &= !(value & rules.settable);
                value
            }
            BankRegister::SetActive => {
                self.active |= value;
                value
            }
            BankRegister::ClearActive => {
                self.active &= !value;
                value
            }
            BankRegister::Priority(word) => {
                let mut changed = 0;
                for byte in 0..4 {
                    if mask >> (8 * byte) & 0xff != 0 {
                        let i = word * 4 + byte;
                        self.priority[i] = (value >> (8 * byte)) as u8 & rules.priority_mask;
                        changed |= 1 << i;
                    }
                }
                changed
            }
            BankRegister::Configuration(half) => {
                let mut changed = 0;
                for i in 0..16 {
                    let bit = 1 << (16 * half + i);
                    if mask >> (2 * i + 1) & 1 != 0 && rules.fixed_trigger & bit == 0 {
                        if value >> (2 * i + 1) & 1 != 0 {
                            self.edge |= bit;
                        } else {
                            self.edge &= !bit;
                        }
                        changed |= bit;
                    }
                }
                changed
            }
        }
    }
}

/// A pending interrupt that may be the one to present to a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 0 to 255; [`Candidate::NONE`] has a worse one than any.
    pub priority: u16,
    pub intid: u32,
    pub group1: bool,
}

impl Candidate {
    /// Nothing is pending.
    pub const NONE: Candidate = Candidate {
        priority: 0x100,
        intid: crate::SPURIOUS,
        group1: false,
    };

    /// Whether there is one.
    pub fn is_some(&self) -> bool {
        self.priority < 0x100
    }

    /// Puts the most urgent of `ready` in place of a less urgent one. Of equals the one that was there first stays:
    /// banks are to be considered in the order of INTIDs.
    pub fn consider(&mut self, bank: &Bank, mut ready: u32, first_intid: u32) {
        while ready != 0 {
            let i = ready.trailing_zeros();
            ready &= ready - 1;
            let priority = u16::from(bank.priority[i as usize]);
            if priority < self.priority {
                let group1 = bank.group >> i & 1 != 0;
                *self = Candidate {
                    priority,
                    intid: first_intid + i,
                    group1,
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        always_enabled: 0,
        settable: u32::MAX,
        fixed_trigger: 0,
        priority_mask: 0xf8,
    };

    #[test]
    fn level_is_line_or_latch() {
        let mut bank = Bank::shared();
        bank.drive(1, true, true);
        assert_eq!(bank.pending(), 1);
        bank.write(BankRegister::ClearPending, 1, u32::MAX, &RULES);
        assert_eq!(bank.pending(), 1, "the line still holds it");
        bank.write(BankRegister::SetPending, 1, u32::MAX, &RULES);
        bank.drive(1, false, false);
        assert_eq!(bank.pending(), 1, "the latch holds it");
        bank.acknowledge(1);
        assert_eq!((bank.pending(), bank.active), (0, 1));
    }

    #[test]
    fn edge_is_latched_once() {
        let mut bank = Bank::shared();
        bank.write(BankRegister::Configuration(0), 2, u32::MAX, &RULES);
        bank.drive(1, true, true);
        bank.acknowledge(1);
        assert_eq!(bank.pending(), 0, "a high line is no edge");
        bank.drive(1, false, false);
        bank.drive(1, false, true);
        assert_eq!(bank.pending(), 1, "a pulse is");
        bank.write(BankRegister::ClearPending, 1, u32::MAX, &RULES);
        assert_eq!(bank.pending(), 0);
    }

    #[test]
    fn registers_lie_where_the_manual_says() {
        assert_eq!(locate(0x104), Some((1, BankRegister::SetEnable)));
        assert_eq!(locate(0x424), Some((1, BankRegister::Priority(1))));
        assert_eq!(locate(0xc08), Some((1, BankRegister::Configuration(0))));
        assert_eq!(locate(0xc0c), Some((1, BankRegister::Configuration(1))));
        assert_eq!(locate(0x800), None);
        let mut bank = Bank::shared();
        bank.write(BankRegister::Priority(2), 0x00ff_0000, 0x00ff_0000, &RULES);
        assert_eq!(bank.priority[10], 0xf8);
        assert_eq!(bank.read(BankRegister::Priority(2)), 0x00f8_0000);
    }
}
