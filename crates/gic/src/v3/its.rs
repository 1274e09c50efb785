//! The Interrupt Translation Service (IHI 0069H chapter 5, sections 12.18 and 12.19): (DeviceID, EventID) becomes an
//! LPI of a processor.
//!
//! Its tables are in guest memory, as the architecture has it; nothing of them is cached, and everything read from them
//! is checked. A command that makes no sense is skipped; a queue that cannot be read stalls.

use device::{Dma, DmaError};

use super::core::Core;
use super::spec::{FIRST_LPI, IIDR, INTIDS, gits, identification};
use super::state::ItsState;

/// What one register access may spend on commands: a command is one, INVALL and MOVALL more if much is pending. A full
/// queue of plain commands (1 MiB) fits; a queue that costs more goes on with the next access, such as the guest's
/// next look at CREADR.
pub const BUDGET: usize = 32768;
/// So many pending LPIs make INVALL or MOVALL cost one more.
const PENDING_A_UNIT: usize = 8;

const DEVICE_ENTRY: u64 = 8;
const COLLECTION_ENTRY: u64 = 8;
const TRANSLATION_ENTRY: u64 = 12;
const VALID: u64 = 1;

/// Why a command or a translation came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ItsError {
    #[error("device {0:#x} is not mapped")]
    Device(u32),
    #[error("event {event:#x} of device {device:#x} is not mapped")]
    Event { device: u32, event: u32 },
    #[error("collection {0:#x} is not mapped")]
    Collection(u32),
    #[error("{0} is not the number of an LPI")]
    Intid(u32),
    #[error("there is no processor {0}")]
    Processor(u64),
    #[error("unknown command {0:#x}")]
    Command(u8),
    #[error("a table is not in memory")]
    Memory(#[from] DmaError),
}

/// Device table entry: bit 0 valid, 5:1 EventID bits minus one, 51:8 address of the translation table.
struct DeviceEntry {
    table: u64,
    events: u64,
}

/// Translation table entry: bit 0 valid, 31:8 LPI; then 16 bits of ICID in a word of its own.
struct Translation {
    address: u64,
    intid: u32,
    collection: u32,
}

/// A command: four doublewords.
pub struct Command([u64; 4]);

impl Command {
    fn number(&self) -> u8 {
        self.0[0] as u8
    }

    fn device(&self) -> u32 {
        (self.0[0] >> 32) as u32
    }

    fn event(&self) -> u32 {
        self.0[1] as u32
    }

    fn intid(&self) -> u32 {
        (self.0[1] >> 32) as u32
    }

    fn collection(&self) -> u32 {
        self.0[2] as u32 & 0xffff
    }

    fn valid(&self) -> bool {
        self.0[2] >> 63 != 0
    }

    /// RDbase of a doubleword: with PTA = 0 a processor's number.
    fn processor(&self, doubleword: usize) -> u64 {
        self.0[doubleword] >> 16 & 0xffff_ffff
    }
}

/// The ITS: its state and its view of memory.
pub struct Its {
    pub state: ItsState,
    pub dma: Dma,
}

impl Its {
    pub fn read(&self, offset: u64) -> u32 {
        let s = &self.state;
        let creadr = s.creadr | if s.stalled { gits::CREADR_STALLED } else { 0 };
        let half = |value: u64| (value >> (offset % 8 * 8)) as u32;
        match offset & !7 {
            _ if offset == gits::CTLR => {
                u32::from(s.enabled)
                    | if self.is_busy() {
                        0
                    } else {
                        gits::CTLR_QUIESCENT
                    }
            }
            _ if offset == gits::IIDR => IIDR,
            gits::TYPER => half(gits::TYPER_VALUE),
            gits::CBASER => half(s.cbaser),
            gits::CWRITER => half(s.cwriter),
            gits::CREADR => half(creadr),
            at @ (0x100 | 0x108) => half(s.baser[(at - gits::BASER) as usize / 8]),
            _ => identification(offset, 0x94),
        }
    }

    /// Writes a register. The caller then lets commands run.
    pub fn write(&mut self, offset: u64, value: u32, mask: u32) {
        let s = &mut self.state;
        let shift = offset % 8 * 8;
        let merge = |was: u64| was & !(u64::from(mask) << shift) | u64::from(value) << shift;
        match offset & !7 {
            _ if offset == gits::CTLR && mask & gits::CTLR_ENABLED != 0 => {
                s.enabled = value & gits::CTLR_ENABLED != 0;
            }
            // With the ITS enabled, writes of CBASER and BASER are UNPREDICTABLE: ignored.
            gits::CBASER if !s.enabled => {
                s.cbaser = merge(s.cbaser) & gits::CBASER_MASK;
                s.creadr = 0;
                s.stalled = false;
            }
            gits::CWRITER => {
                let written = merge(s.cwriter);
                s.cwriter = written & gits::QUEUE_OFFSET;
                if shift == 0 && written & gits::CWRITER_RETRY != 0 {
                    s.stalled = false;
                }
            }
            at @ (0x100 | 0x108) if !s.enabled => {
                let baser = &mut s.baser[(at - gits::BASER) as usize / 8];
                *baser = *baser & !gits::BASER_WRITABLE | merge(*baser) & gits::BASER_WRITABLE;
            }
            _ => {}
        }
    }

    fn queue_bytes(&self) -> u64 {
        ((self.state.cbaser & 0xff) + 1) << 12
    }

    /// Whether there are commands to execute.
    pub fn is_busy(&self) -> bool {
        let s = &self.state;
        s.enabled
            && !s.stalled
            && s.cbaser & gits::CBASER_VALID != 0
            && s.cwriter < self.queue_bytes()
            && s.creadr != s.cwriter
    }

    /// The next command, if one is to be executed; the queue moves on.
    pub fn fetch(&mut self) -> Option<Command> {
        if !self.is_busy() {
            return None;
        }
        let mut bytes = [0; 32];
        let at = (self.state.cbaser & gits::CBASER_ADDRESS) + self.state.creadr;
        if let Err(error) = self.dma.read(at, &mut bytes) {
            tracing::debug!(%error, "ITS: the command queue stalls");
            self.state.stalled = true;
            return None;
        }
        self.state.creadr = (self.state.creadr + 32) % self.queue_bytes();
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(Command(words))
    }

    /// Executes a command, or skips one that makes no sense; what it costs.
    pub fn execute(&self, command: &Command, core: &mut Core) -> usize {
        match self.carry_out(command, core) {
            Ok(more) => 1 + more,
            Err(error) => {
                tracing::debug!(%error, command = command.number(), "ITS: command skipped");
                1
            }
        }
    }

    /// Section 5.3. Returns what it costs beyond one.
    fn carry_out(&self, c: &Command, core: &mut Core) -> Result<usize, ItsError> {
        match c.number() {
            // All commands take effect at once.
            gits::SYNC => {}
            gits::MAPD => self.map_device(c)?,
            gits::MAPC => self.map_collection(c, core)?,
            gits::MAPTI => self.map_event(c, c.intid())?,
            gits::MAPI => self.map_event(c, c.event())?,
            gits::MOVI => {
                let t = self.translation(c.device(), c.event())?;
                let from = self.target(t.collection)?;
                let to = self.target(c.collection())?;
                self.dma.write_u32(t.address + 8, c.collection())?;
                core.lpi_move(from, to, t.intid);
            }
            gits::DISCARD => {
                let t = self.translation(c.device(), c.event())?;
                self.dma
                    .write(t.address, &[0; TRANSLATION_ENTRY as usize])?;
                core.lpi_clear(self.target(t.collection)?, t.intid);
            }
            gits::INT => {
                let (cpu, intid) = self.translate(c.device(), c.event())?;
                core.lpi_pend(cpu, intid);
            }
            gits::CLEAR => {
                let (cpu, intid) = self.translate(c.device(), c.event())?;
                core.lpi_clear(cpu, intid);
            }
            gits::INV => {
                let (cpu, intid) = self.translate(c.device(), c.event())?;
                core.lpi_invalidate(cpu, intid);
            }
            gits::INVALL => {
                let cpu = self.target(c.collection())?;
                core.lpi_invalidate_all(cpu);
                return Ok(core.lpis_pending(cpu) / PENDING_A_UNIT);
            }
            gits::MOVALL => {
                let (from, to) = (c.processor(2), c.processor(3));
                core.lpi_move_all(from as usize, to as usize);
                return Ok(core.lpis_pending(to as usize) / PENDING_A_UNIT);
            }
            unknown => return Err(ItsError::Command(unknown)),
        }
        Ok(0)
    }

    /// The LPI of an event and the processor it goes to.
    pub fn translate(&self, device: u32, event: u32) -> Result<(usize, u32), ItsError> {
        let t = self.translation(device, event)?;
        Ok((self.target(t.collection)?, t.intid))
    }

    /// Address of an entry of a table that a BASER describes, flat or of two levels (section 12.19.1). `None`: the table
    /// has no such entry.
    fn entry(&self, baser: u64, index: u32, bytes: u64) -> Result<Option<u64>, DmaError> {
        // Size 3 is reserved and treated as 2.
        let page_shift = [12, 14, 16, 16][(baser >> 8 & 3) as usize];
        let size = ((baser & 0xff) + 1) << page_shift;
        let base = match page_shift {
            // Bits 15:12 of a field for 64 KiB pages are bits 51:48 of the address.
            16 => baser & 0x0000_ffff_ffff_0000 | (baser >> 12 & 0xf) << 48,
            _ => baser & 0x0000_ffff_ffff_f000,
        };
        if baser & gits::BASER_VALID == 0 {
            return Ok(None);
        }
        let offset = u64::from(index) * bytes;
        if baser & gits::BASER_INDIRECT == 0 {
            return Ok((offset < size).then_some(base + offset));
        }
        let first = (offset >> page_shift) * 8;
        if first >= size {
            return Ok(None);
        }
        let page = self.dma.read_u64(base + first)?;
        let address = page & 0x000f_ffff_ffff_f000 & !((1 << page_shift) - 1);
        let within = offset & ((1 << page_shift) - 1);
        Ok((page >> 63 != 0).then_some(address + within))
    }

    fn device_entry(&self, device: u32) -> Result<DeviceEntry, ItsError> {
        let unmapped = ItsError::Device(device);
        if device > 0xffff {
            return Err(unmapped);
        }
        let Some(at) = self.entry(self.state.baser[0], device, DEVICE_ENTRY)? else {
            return Err(unmapped);
        };
        let entry = self.dma.read_u64(at)?;
        if entry & VALID == 0 {
            return Err(unmapped);
        }
        let bits = (entry >> 1 & 0x1f).min(15) + 1;
        Ok(DeviceEntry {
            table: entry & 0x000f_ffff_ffff_ff00,
            events: 1 << bits,
        })
    }

    fn event_address(&self, device: u32, event: u32) -> Result<u64, ItsError> {
        let entry = self.device_entry(device)?;
        if u64::from(event) >= entry.events {
            return Err(ItsError::Event { device, event });
        }
        Ok(entry.table + u64::from(event) * TRANSLATION_ENTRY)
    }

    fn translation(&self, device: u32, event: u32) -> Result<Translation, ItsError> {
        let address = self.event_address(device, event)?;
        let mut bytes = [0; TRANSLATION_ENTRY as usize];
        self.dma.read(address, &mut bytes)?;
        let [a, b, c, d, _, _, _, _, icid @ ..] = bytes;
        let first = u32::from_le_bytes([a, b, c, d]);
        let intid = first >> 8;
        if u64::from(first) & VALID == 0 || !(FIRST_LPI..INTIDS).contains(&intid) {
            return Err(ItsError::Event { device, event });
        }
        Ok(Translation {
            address,
            intid,
            collection: u32::from_le_bytes(icid) & 0xffff,
        })
    }

    /// The processor of a collection. It may be none of ours if the guest wrote to the table: callers check.
    fn target(&self, collection: u32) -> Result<usize, ItsError> {
        let unmapped = ItsError::Collection(collection);
        let Some(at) = self.entry(self.state.baser[1], collection, COLLECTION_ENTRY)? else {
            return Err(unmapped);
        };
        let entry = self.dma.read_u64(at)?;
        if entry & VALID == 0 {
            Err(unmapped)
        } else {
            Ok((entry >> 16 & 0xffff_ffff) as usize)
        }
    }

    fn map_device(&self, c: &Command) -> Result<(), ItsError> {
        let device = c.device();
        let unmapped = ItsError::Device(device);
        let bits = c.0[1] & 0x1f;
        if device > 0xffff || c.valid() && bits > 15 {
            return Err(unmapped);
        }
        let at = self
            .entry(self.state.baser[0], device, DEVICE_ENTRY)?
            .ok_or(unmapped)?;
        let table = c.0[2] & 0x000f_ffff_ffff_ff00;
        let entry = if c.valid() {
            table | bits << 1 | VALID
        } else {
            0
        };
        Ok(self.dma.write_u64(at, entry)?)
    }

    fn map_collection(&self, c: &Command, core: &Core) -> Result<(), ItsError> {
        let (collection, cpu) = (c.collection(), c.processor(2));
        if c.valid() && cpu >= core.cpus() as u64 {
            return Err(ItsError::Processor(cpu));
        }
        let at = self.entry(self.state.baser[1], collection, COLLECTION_ENTRY)?;
        let at = at.ok_or(ItsError::Collection(collection))?;
        Ok(self
            .dma
            .write_u64(at, if c.valid() { cpu << 16 | VALID } else { 0 })?)
    }

    fn map_event(&self, c: &Command, intid: u32) -> Result<(), ItsError> {
        if !(FIRST_LPI..INTIDS).contains(&intid) {
            return Err(ItsError::Intid(intid));
        }
        let at = self.event_address(c.device(), c.event())?;
        let mut entry = [0; TRANSLATION_ENTRY as usize];
        entry[..4].copy_from_slice(&(intid << 8 | VALID as u32).to_le_bytes());
        entry[8..].copy_from_slice(&c.collection().to_le_bytes());
        Ok(self.dma.write(at, &entry)?)
    }
}
