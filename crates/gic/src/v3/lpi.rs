//! LPIs in the redistributors: pending ones, their configuration table and pending table in memory
//! (IHI 0069H sections 5.1 and 5.2).

use super::core::Core;
use super::spec::{FIRST_LPI, INTIDS, PRIORITY_MASK, gicr};

impl Core {
    /// One past the last LPI of a processor, by PROPBASER.IDbits; [`FIRST_LPI`] or less if there is none.
    fn lpi_end(&self, cpu: usize) -> u32 {
        let bits = (self.state.pes[cpu].propbaser & gicr::PROPBASER_ID_BITS) as u32 + 1;
        1 << bits.min(INTIDS.ilog2())
    }

    /// Its byte of the configuration table; disabled if that is not in RAM.
    fn lpi_config(&self, cpu: usize, intid: u32) -> u8 {
        let table = self.state.pes[cpu].propbaser & gicr::PROPBASER_ADDRESS;
        let mut config = [0];
        let _ = self
            .dma
            .read(table + u64::from(intid - FIRST_LPI), &mut config);
        config[0]
    }

    fn is_lpi(&self, cpu: usize, intid: u32) -> bool {
        cpu < self.cpus()
            && self.state.pes[cpu].enable_lpis
            && (FIRST_LPI..self.lpi_end(cpu)).contains(&intid)
    }

    /// An LPI becomes pending at a processor.
    pub fn lpi_pend(&mut self, cpu: usize, intid: u32) {
        if !self.is_lpi(cpu, intid) || self.state.pes[cpu].lpis.contains_key(&intid) {
            return;
        }
        let config = self.lpi_config(cpu, intid);
        self.pe(cpu).lpis.insert(intid, config);
        if config & 1 != 0 {
            self.ready_lpis[cpu].insert((config & PRIORITY_MASK, intid));
            self.update(cpu);
        }
    }

    /// It is pending no longer; whether it was. The caller updates the processor.
    fn lpi_remove(&mut self, cpu: usize, intid: u32) -> bool {
        let Some(config) = self
            .state
            .pes
            .get_mut(cpu)
            .and_then(|pe| pe.lpis.remove(&intid))
        else {
            return false;
        };
        self.ready_lpis[cpu].remove(&(config & PRIORITY_MASK, intid));
        true
    }

    /// It is pending no longer.
    pub fn lpi_clear(&mut self, cpu: usize, intid: u32) {
        if self.lpi_remove(cpu, intid) {
            self.update(cpu);
        }
    }

    /// Its configuration has changed (INV). Only pending ones have theirs cached.
    pub fn lpi_invalidate(&mut self, cpu: usize, intid: u32) {
        if self.lpi_remove(cpu, intid) {
            self.lpi_pend(cpu, intid);
            self.update(cpu);
        }
    }

    /// All configurations may have changed (INVALL).
    pub fn lpi_invalidate_all(&mut self, cpu: usize) {
        let Some(pe) = self.state.pes.get_mut(cpu) else {
            return;
        };
        let pending: Vec<u32> = std::mem::take(&mut pe.lpis).into_keys().collect();
        self.lpi_load(cpu, &pending);
    }

    /// A pending LPI goes to another processor (MOVI).
    pub fn lpi_move(&mut self, from: usize, to: usize, intid: u32) {
        if from != to && self.lpi_remove(from, intid) {
            self.update(from);
            self.lpi_pend(to, intid);
        }
    }

    /// All pending LPIs go to another processor (MOVALL).
    pub fn lpi_move_all(&mut self, from: usize, to: usize) {
        if from == to || from >= self.cpus() || to >= self.cpus() {
            return;
        }
        let mut pending = std::mem::take(&mut self.pe(from).lpis);
        self.ready_lpis[from].clear();
        self.update(from);
        pending.append(&mut std::mem::take(&mut self.pe(to).lpis));
        let pending: Vec<u32> = pending.into_keys().collect();
        self.lpi_load(to, &pending);
    }

    /// How many are pending, as a measure of what INVALL and MOVALL cost.
    pub fn lpis_pending(&self, cpu: usize) -> usize {
        self.state.pes.get(cpu).map_or(0, |pe| pe.lpis.len())
    }

    /// `pending`, which is sorted, is all that is pending at a processor; configurations come from the table.
    fn lpi_load(&mut self, cpu: usize, pending: &[u32]) {
        let pe = &self.state.pes[cpu];
        let end = if pe.enable_lpis { self.lpi_end(cpu) } else { 0 };
        let mut table = vec![0; end.saturating_sub(FIRST_LPI) as usize];
        if !pending.is_empty() {
            let _ = self
                .dma
                .read(pe.propbaser & gicr::PROPBASER_ADDRESS, &mut table);
        }
        let pending = pending
            .iter()
            .filter(|&&intid| (FIRST_LPI..end).contains(&intid));
        let lpis = pending.map(|&intid| (intid, table[(intid - FIRST_LPI) as usize]));
        let lpis: std::collections::BTreeMap<u32, u8> = lpis.collect();
        let enabled = lpis.iter().filter(|(_, config)| *config & 1 != 0);
        self.ready_lpis[cpu] = enabled
            .map(|(&i, config)| (config & PRIORITY_MASK, i))
            .collect();
        self.pe(cpu).lpis = lpis;
        self.update(cpu);
    }

    /// GICR_CTLR.EnableLPIs changes: the pending table is read, or written back (section 12.11.2).
    pub fn enable_lpis(&mut self, cpu: usize, enable: bool) {
        let pe = self.pe(cpu);
        if std::mem::replace(&mut pe.enable_lpis, enable) == enable {
            return;
        }
        let table = pe.pendbaser & gicr::PENDBASER_ADDRESS;
        let zero = std::mem::take(&mut pe.pending_table_zero);
        let first = FIRST_LPI as usize / 8;
        let mut bits = vec![0u8; (self.lpi_end(cpu) as usize / 8).saturating_sub(first)];
        if enable {
            if !zero {
                let _ = self.dma.read(table + first as u64, &mut bits);
            }
            let pending: Vec<u32> = (0u32..)
                .zip(&bits)
                .filter(|(_, byte)| **byte != 0)
                .flat_map(|(at, byte)| {
                    (0..8)
                        .filter(move |i| byte >> i & 1 != 0)
                        .map(move |i| at * 8 + i)
                })
                .map(|n| FIRST_LPI + n)
                .collect();
            self.lpi_load(cpu, &pending);
        } else {
            for intid in std::mem::take(&mut self.pe(cpu).lpis).into_keys() {
                let n = (intid - FIRST_LPI) as usize;
                if let Some(byte) = bits.get_mut(n / 8) {
                    *byte |= 1 << (n % 8);
                }
            }
            let _ = self.dma.write(table + first as u64, &bits);
            self.ready_lpis[cpu].clear();
            self.update(cpu);
        }
    }
}
