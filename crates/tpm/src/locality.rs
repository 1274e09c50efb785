//! Which locality has the TPM (PTP 1.05, 6.2): one at a time; others wait, and higher ones may seize it.

use serde::{Deserialize, Serialize};

use crate::LOCALITIES;

/// Who has the TPM, who wants it, who lost it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Localities {
    active: Option<u8>,
    requested: [bool; LOCALITIES],
    seized: [bool; LOCALITIES],
}

impl Localities {
    pub(crate) fn active(&self) -> Option<u8> {
        self.active
    }

    pub(crate) fn is_active(&self, locality: usize) -> bool {
        self.active.map(usize::from) == Some(locality)
    }

    /// Whether `locality` waits for it.
    pub(crate) fn requested(&self, locality: usize) -> bool {
        self.requested[locality]
    }

    /// Whether another one waits for it.
    pub(crate) fn others_request(&self, locality: usize) -> bool {
        (0..LOCALITIES).any(|other| other != locality && self.requested[other])
    }

    pub(crate) fn been_seized(&self, locality: usize) -> bool {
        self.seized[locality]
    }

    pub(crate) fn clear_seized(&mut self, locality: usize) {
        self.seized[locality] = false;
    }

    /// `locality` asks for it: it has it at once if nobody does.
    pub(crate) fn request(&mut self, locality: usize) {
        match self.active {
            None => self.active = Some(locality as u8),
            Some(_) if self.is_active(locality) => {}
            Some(_) => self.requested[locality] = true,
        }
    }

    /// `locality` is done, or does not want it any longer; the highest that waits is next. Returns whether it was active.
    pub(crate) fn relinquish(&mut self, locality: usize) -> bool {
        self.requested[locality] = false;
        if !self.is_active(locality) {
            return false;
        }
        let next = (0..LOCALITIES).rev().find(|other| self.requested[*other]);
        if let Some(next) = next {
            self.requested[next] = false;
        }
        self.active = next.map(|next| next as u8);
        true
    }

    /// `locality` takes it from a lower one. Returns whether one lost it.
    pub(crate) fn seize(&mut self, locality: usize) -> bool {
        match self.active {
            None => {
                self.active = Some(locality as u8);
                false
            }
            Some(active) if usize::from(active) < locality => {
                self.seized[usize::from(active)] = true;
                self.requested[locality] = false;
                self.active = Some(locality as u8);
                true
            }
            Some(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_and_higher_ones_come_first() {
        let mut l = Localities::default();
        l.request(0);
        l.request(1);
        l.request(3);
        assert_eq!(l.active(), Some(0));
        assert!(l.others_request(0) && l.requested(1));
        assert!(!l.relinquish(2));
        assert!(l.relinquish(0));
        assert_eq!(l.active(), Some(3));
        assert!(!l.seize(2));
        assert!(l.relinquish(3));
        assert_eq!(l.active(), Some(1));
        assert!(l.seize(2));
        assert!(l.been_seized(1));
        l.clear_seized(1);
        assert!(l.relinquish(2));
        assert_eq!(l, Localities::default());
    }
}
