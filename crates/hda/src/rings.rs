//! How commands reach codecs: CORB and RIRB (4.4), and the immediate command registers (3.4).

use device::Dma;

use crate::codec;
use crate::spec::*;
use crate::state::State;

impl State {
    /// A command: its response, unless no codec has that address.
    pub fn command(&mut self, codecs: &[Option<codec::Config>], command: u32) -> Option<u32> {
        let address = (command >> 28) as usize;
        let config = codecs.get(address)?.as_ref()?;
        let codec = self.codecs.get_mut(address)?.as_mut()?;
        Some(codec.command(config, command & 0x0fff_ffff))
    }

    /// Takes commands out of the CORB as far as they go.
    pub fn run_corb(&mut self, dma: &Dma, codecs: &[Option<codec::Config>]) {
        if self.corbrp_reset {
            return;
        }
        while self.corbctl & RING_RUN != 0 && self.corbrp != self.corbwp {
            self.corbrp = self.corbrp.wrapping_add(1);
            let at = self.corbbase.wrapping_add(u64::from(self.corbrp) * 4);
            let Ok(command) = dma.read_u32(at) else {
                self.corbsts |= CORBSTS_CMEI;
                self.corbctl &= !RING_RUN;
                break;
            };
            if let Some(response) = self.command(codecs, command) {
                self.respond(dma, response, command >> 28);
            }
        }
        // No more responses are to come for now (3.3.26: or an empty response slot).
        if self.responses > 0 {
            self.responses = 0;
            self.rirbsts |= RIRBSTS_RINTFL;
        }
    }

    /// Puts a response into the RIRB.
    pub fn respond(&mut self, dma: &Dma, response: u32, extended: u32) {
        if self.rirbctl & RING_RUN == 0 {
            return;
        }
        self.rirbwp = self.rirbwp.wrapping_add(1);
        let at = self.rirbbase.wrapping_add(u64::from(self.rirbwp) * 8);
        let entry = u64::from(response) | u64::from(extended) << 32;
        if dma.write_u64(at, entry).is_err() {
            self.rirbsts |= RIRBSTS_OIS;
            self.rirbctl &= !RING_RUN;
            return;
        }
        self.responses += 1;
        let wanted = if self.rintcnt == 0 {
            256
        } else {
            self.rintcnt.into()
        };
        if self.responses >= wanted {
            self.responses = 0;
            self.rirbsts |= RIRBSTS_RINTFL;
        }
    }

    /// A write of ICS.
    pub fn immediate(&mut self, codecs: &[Option<codec::Config>], value: u16) {
        self.ics &= !(value & ICS_IRV);
        // While the CORB runs, it has the link (3.4.3).
        if value & ICS_ICB != 0 && self.corbctl & RING_RUN == 0 {
            self.ics &= !ICS_IRV;
            if let Some(response) = self.command(codecs, self.ic) {
                self.ir = response;
                self.ics |= ICS_IRV;
            }
        }
    }
}
