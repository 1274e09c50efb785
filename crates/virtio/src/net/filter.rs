//! Which frames the guest wants (VIRTIO 5.1.6.5.1 to 5.1.6.5.3), and what it set by the control queue.

use serde::{Deserialize, Serialize};

use super::spec::{control, feature};

/// Addresses in each table at most; more make the device take all of the kind.
const TABLE: usize = 64;

/// What the control queue changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub mac: [u8; 6],
    promiscuous: bool,
    all_multicast: bool,
    all_unicast: bool,
    no_multicast: bool,
    no_unicast: bool,
    no_broadcast: bool,
    unicast: Vec<[u8; 6]>,
    unicast_overflow: bool,
    multicast: Vec<[u8; 6]>,
    multicast_overflow: bool,
    /// One bit a VLAN.
    vlans: Vec<u64>,
    /// Queue pairs in use.
    pub pairs: u16,
    /// Offloads that the driver takes, of [`feature::GUEST_OFFLOADS`]; `None`: what it negotiated.
    pub offloads: Option<u64>,
}

impl State {
    /// As after a reset: everything is received until the driver says otherwise.
    pub fn power_on(mac: [u8; 6]) -> State {
        State {
            mac,
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Vec::new(),
            unicast_overflow: false,
            multicast: Vec::new(),
            multicast_overflow: false,
            vlans: vec![0; 64],
            pairs: 1,
            offloads: None,
        }
    }

    /// Whether the guest gets a frame that begins like this.
    pub fn wants(&self, frame: &[u8], vlan_filter: bool) -> bool {
        let Some(destination) = frame.first_chunk::<6>() else {
            return false;
        };
        if self.promiscuous {
            return true;
        }
        if vlan_filter && frame.get(12..14) == Some(&[0x81, 0]) {
            let id = u16::from_be_bytes([
                frame.get(14).copied().unwrap_or(0),
                frame.get(15).copied().unwrap_or(0),
            ]) & 0xfff;
            let word = self.vlans.get(usize::from(id >> 6)).copied().unwrap_or(0);
            if word >> (id & 63) & 1 == 0 {
                return false;
            }
        }
        if destination == &[0xff; 6] {
            !self.no_broadcast
        } else if destination[0] & 1 != 0 {
            !self.no_multicast
                && (self.all_multicast
                    || self.multicast_overflow
                    || self.multicast.contains(destination))
        } else {
            !self.no_unicast
                && (self.all_unicast
                    || self.unicast_overflow
                    || destination == &self.mac
                    || self.unicast.contains(destination))
        }
    }

    /// Runs a command of the control queue: whether the device takes it. `features` are what was negotiated.
    pub fn command(&mut self, command: &[u8], features: u64, max_pairs: u16) -> bool {
        let [class, command, data @ ..] = command else {
            return false;
        };
        let has = |feature: u64| features & feature != 0;
        match *class {
            control::RX if has(feature::CTRL_RX) => self.mode(*command, data, features),
            control::MAC => match *command {
                control::MAC_TABLE_SET if has(feature::CTRL_RX) => self.tables(data),
                control::MAC_ADDR_SET if has(feature::CTRL_MAC_ADDR) => {
                    let Some(mac) = data.first_chunk() else {
                        return false;
                    };
                    self.mac = *mac;
                    true
                }
                _ => false,
            },
            control::VLAN if has(feature::CTRL_VLAN) => {
                let Some(id) = data.first_chunk().map(|b| u16::from_le_bytes(*b)) else {
                    return false;
                };
                let Some(word) = self.vlans.get_mut(usize::from(id >> 6)) else {
                    return false;
                };
                match *command {
                    control::VLAN_ADD => *word |= 1 << (id & 63),
                    control::VLAN_DEL => *word &= !(1 << (id & 63)),
                    _ => return false,
                }
                true
            }
            control::MQ if *command == control::MQ_VQ_PAIRS_SET && has(feature::MQ) => {
                match data.first_chunk().map(|b| u16::from_le_bytes(*b)) {
                    Some(pairs) if (1..=max_pairs).contains(&pairs) => {
                        self.pairs = pairs;
                        true
                    }
                    _ => false,
                }
            }
            control::GUEST_OFFLOADS
                if *command == control::GUEST_OFFLOADS_SET && has(feature::CTRL_GUEST_OFFLOADS) =>
            {
                match data.first_chunk().map(|b| u64::from_le_bytes(*b)) {
                    Some(wanted) if wanted & !(features & feature::GUEST_OFFLOADS) == 0 => {
                        self.offloads = Some(wanted);
                        true
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }

    fn mode(&mut self, command: u8, data: &[u8], features: u64) -> bool {
        let Some(&value) = data.first() else {
            return false;
        };
        if command > control::RX_ALLMULTI && features & feature::CTRL_RX_EXTRA == 0 {
            return false;
        }
        let flag = match command {
            control::RX_PROMISC => &mut self.promiscuous,
            control::RX_ALLMULTI => &mut self.all_multicast,
            control::RX_ALLUNI => &mut self.all_unicast,
            control::RX_NOMULTI => &mut self.no_multicast,
            control::RX_NOUNI => &mut self.no_unicast,
            control::RX_NOBCAST => &mut self.no_broadcast,
            _ => return false,
        };
        *flag = value != 0;
        true
    }

    /// Two tables behind each other, unicast and multicast, each with its count in front.
    fn tables(&mut self, data: &[u8]) -> bool {
        let table = |data: &mut &[u8]| -> Option<(Vec<[u8; 6]>, bool)> {
            let (count, rest) = data.split_first_chunk::<4>()?;
            let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
            let length = count.checked_mul(6)?;
            let (addresses, rest) = rest.split_at_checked(length)?;
            *data = rest;
            if count > TABLE {
                return Some((Vec::new(), true));
            }
            let addresses = addresses.chunks_exact(6).map(|a| {
                let mut mac = [0; 6];
                mac.copy_from_slice(a);
                mac
            });
            Some((addresses.collect(), false))
        };
        let mut data = data;
        let (Some(unicast), Some(multicast)) = (table(&mut data), table(&mut data)) else {
            return false;
        };
        (self.unicast, self.unicast_overflow) = unicast;
        (self.multicast, self.multicast_overflow) = multicast;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FEATURES: u64 = feature::CTRL_RX
        | feature::CTRL_RX_EXTRA
        | feature::CTRL_VLAN
        | feature::CTRL_MAC_ADDR
        | feature::MQ
        | feature::CTRL_GUEST_OFFLOADS
        | feature::GUEST_CSUM;
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn frame(to: [u8; 6]) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&to);
        frame
    }

    #[test]
    fn modes_and_tables() {
        let mut state = State::power_on(MAC);
        let (other, group) = ([2, 0, 0, 0, 0, 9], [1, 0, 0x5e, 0, 0, 1]);
        assert!(state.wants(&frame(other), true));
        assert!(state.command(&[0, 0, 0], FEATURES, 1));
        assert!(!state.wants(&frame(other), true));
        assert!(state.wants(&frame(MAC), true));
        assert!(state.wants(&frame([0xff; 6]), true));
        assert!(!state.wants(&frame(group), true));
        let mut set = vec![1, 0, 1, 0, 0, 0];
        set.extend(other);
        set.extend([1, 0, 0, 0]);
        set.extend(group);
        assert!(state.command(&set, FEATURES, 1));
        assert!(state.wants(&frame(other), true) && state.wants(&frame(group), true));
        assert!(!state.command(&set[..set.len() - 1], FEATURES, 1));
        assert!(state.command(&[0, control::RX_NOUNI, 1], FEATURES, 1));
        assert!(!state.wants(&frame(MAC), true));
        assert!(!state.command(&[0, control::RX_NOUNI, 0], feature::CTRL_RX, 1));
        // VLANs.
        let mut tagged = frame([0xff; 6]);
        tagged[12..16].copy_from_slice(&[0x81, 0, 0x60, 0x45]);
        assert!(!state.wants(&tagged, true));
        assert!(state.wants(&tagged, false));
        assert!(state.command(&[2, 0, 0x45, 0], FEATURES, 1));
        assert!(state.wants(&tagged, true));
        assert!(!state.command(&[2, 0, 0, 0x10], FEATURES, 1), "VLAN 4096");
        // Pairs, offloads.
        assert!(!state.command(&[4, 0, 3, 0], FEATURES, 2));
        assert!(state.command(&[4, 0, 2, 0], FEATURES, 2));
        assert!(state.command(&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0], FEATURES, 2));
        assert!(!state.command(&[5, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], FEATURES, 2));
        assert_eq!(state.offloads, Some(2));
    }

    proptest! {
        #[test]
        fn any_command_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut state = State::power_on(MAC);
            state.command(&bytes, FEATURES, 4);
            state.wants(&bytes, true);
        }
    }
}
