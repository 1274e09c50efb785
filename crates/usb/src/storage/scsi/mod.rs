//! A SCSI logical unit: a disk or a CD-ROM drive (SPC-4; the block and multimedia commands beside it).
//!
//! Commands are decided here, from the command descriptor block and the state alone; what they do to the medium
//! is told to the transport as an [`Action`].

mod block;
mod cdrom;
mod mode;
pub mod spec;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use spec::{Sense, operation, sense};

/// What kind of logical unit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Direct access, peripheral device type 0.
    Disk,
    /// Multimedia, peripheral device type 5.
    Cdrom,
}

/// What a unit is made as.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    pub kind: Kind,
    /// Whether the medium can be taken out. Always so with a CD-ROM drive.
    pub removable: bool,
    /// The serial number of VPD page 0x80.
    pub serial: String,
    /// The product identification, at most 16 ASCII characters; empty: one of ours.
    pub product: String,
}

/// The medium in the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medium {
    pub blocks: u64,
    pub block_size: u32,
    pub read_only: bool,
}

/// What the command asks for; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// GOOD.
    Done,
    /// CHECK CONDITION; the sense data is kept.
    Fail,
    /// Data to the host, then GOOD.
    Reply(Vec<u8>),
    /// That part of the medium to the host.
    Read { offset: u64, length: u64 },
    /// Data from the host to that part of the medium, then to the host's disk if `flush`.
    Write {
        offset: u64,
        length: u64,
        flush: bool,
    },
    /// `length` bytes of parameters from the host, for [`Unit::parameters`].
    Parameters { length: u32, of: [u8; 16] },
    /// No data; work on the medium.
    Work(Work),
}

/// Work on the medium that takes its time; in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    Flush,
    Discard(Vec<(u64, u64)>),
    Zero {
        offset: u64,
        length: u64,
        may_unmap: bool,
    },
    /// One block again and again.
    Fill {
        offset: u64,
        length: u64,
        block: Vec<u8>,
    },
}

/// The state of a logical unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Of the last command that failed, until asked for.
    sense: Sense,
    /// A unit attention not told yet.
    attention: Option<Sense>,
    /// The host keeps the medium in.
    prevent: bool,
    /// Whether the tray is closed: a medium that lies in an open one is not in its place.
    loaded: bool,
    /// The caching page's WCE.
    write_cache: bool,
    /// MMC media event not told yet: 1 eject request, 2 new media, 3 removal (MMC-6, table 309).
    media_event: u8,
}

impl Unit {
    /// At power-on.
    pub fn power_on(_: &Config) -> Unit {
        Unit {
            sense: sense::NONE,
            attention: Some(sense::POWER_ON),
            prevent: false,
            loaded: true,
            write_cache: true,
            media_event: 0,
        }
    }

    /// Whether the host holds the medium in place.
    pub fn prevents_removal(&self) -> bool {
        self.prevent
    }

    /// Whether the tray is closed.
    pub fn loaded(&self) -> bool {
        self.loaded
    }

    /// The drive's button was pressed while the host keeps the medium in: the host is asked to let it go (MMC-6, table 309).
    pub fn ask_to_eject(&mut self) {
        self.media_event = 1;
    }

    /// The tray opens, with a medium in it or without: whether it was closed.
    pub fn open_tray(&mut self, present: bool) -> bool {
        if present && self.loaded {
            self.media_event = 3;
        }
        std::mem::replace(&mut self.loaded, false)
    }

    /// The tray closes: whether it was open.
    pub fn close_tray(&mut self, present: bool) -> bool {
        if present && !self.loaded {
            self.media_event = 2;
            self.attention = Some(sense::MEDIUM_MAY_HAVE_CHANGED);
        }
        !std::mem::replace(&mut self.loaded, true)
    }

    /// Keeps the sense data of a failure.
    pub fn fail(&mut self, with: Sense) -> Action {
        self.sense = with;
        Action::Fail
    }

    /// Decides a command for logical unit `lun`.
    pub fn execute(
        &mut self,
        config: &Config,
        medium: Option<Medium>,
        lun: u8,
        cdb: &[u8; 16],
    ) -> Action {
        let result = self.decide(config, medium, lun, cdb);
        if cdb[0] != operation::REQUEST_SENSE {
            self.sense = sense::NONE;
        }
        result.unwrap_or_else(|with| self.fail(with))
    }

    fn decide(
        &mut self,
        config: &Config,
        medium: Option<Medium>,
        lun: u8,
        cdb: &[u8; 16],
    ) -> Result<Action, Sense> {
        if lun != 0
            && !matches!(
                cdb[0],
                operation::INQUIRY | operation::REQUEST_SENSE | operation::REPORT_LUNS
            )
        {
            return Err(sense::LOGICAL_UNIT_NOT_SUPPORTED);
        }
        // SPC-4, 5.14: these tell of no unit attention; MMC-6, 4.1.6.1 adds its two.
        match cdb[0] {
            operation::INQUIRY => return inquiry(config, lun, cdb),
            operation::REPORT_LUNS => return report_luns(cdb),
            operation::REQUEST_SENSE => return self.request_sense(lun, cdb),
            operation::GET_CONFIGURATION | operation::GET_EVENT_STATUS_NOTIFICATION => {}
            _ => {
                if let Some(attention) = self.attention.take() {
                    return Err(attention);
                }
            }
        }
        let ready = medium.filter(|_| self.loaded);
        let here = ready.ok_or(self.not_present());
        match cdb[0] {
            operation::TEST_UNIT_READY => here.map(|_| Action::Done),
            operation::MODE_SENSE_6 | operation::MODE_SENSE_10 => {
                self.mode_sense(config, ready, cdb)
            }
            operation::MODE_SELECT_6 | operation::MODE_SELECT_10 => mode::select(cdb),
            operation::START_STOP_UNIT => self.start_stop(config, medium.is_some(), cdb),
            operation::PREVENT_ALLOW_MEDIUM_REMOVAL if self.removable(config) => {
                if cdb[4] & 2 != 0 {
                    return Err(sense::INVALID_FIELD_IN_CDB);
                }
                self.prevent = cdb[4] & 1 != 0;
                Ok(Action::Done)
            }
            _ => {
                let own = match config.kind {
                    Kind::Disk => self.block_command(ready, cdb),
                    Kind::Cdrom => self.cdrom_command(ready, cdb),
                };
                let own = own.unwrap_or(Err(sense::INVALID_OPERATION_CODE));
                own.map_err(|with| match with {
                    sense::MEDIUM_NOT_PRESENT => self.not_present(),
                    with => with,
                })
            }
        }
    }

    /// The parameters of a command that asked for them have arrived.
    pub fn parameters(
        &mut self,
        config: &Config,
        medium: Option<Medium>,
        cdb: &[u8; 16],
        data: &[u8],
    ) -> Action {
        let medium = medium.filter(|_| self.loaded);
        let result = match cdb[0] {
            operation::MODE_SELECT_6 | operation::MODE_SELECT_10 => {
                self.mode_selected(config, cdb, data)
            }
            _ => match medium {
                Some(medium) => block::parameters(medium, cdb, data),
                None => Err(sense::MEDIUM_NOT_PRESENT),
            },
        };
        result.unwrap_or_else(|with| self.fail(with))
    }

    fn removable(&self, config: &Config) -> bool {
        config.removable || config.kind == Kind::Cdrom
    }

    /// Why there is no medium to work on (MMC-6, annex F).
    fn not_present(&self) -> Sense {
        match self.loaded {
            true => sense::MEDIUM_NOT_PRESENT,
            false => sense::MEDIUM_NOT_PRESENT_TRAY_OPEN,
        }
    }

    /// SPC-4, 6.39.
    fn request_sense(&mut self, lun: u8, cdb: &[u8; 16]) -> Result<Action, Sense> {
        if cdb[1] & 1 != 0 {
            return Err(sense::INVALID_FIELD_IN_CDB);
        }
        let mut told = self.sense;
        if lun != 0 {
            told = sense::LOGICAL_UNIT_NOT_SUPPORTED;
        } else if told == sense::NONE {
            told = self.attention.take().unwrap_or(sense::NONE);
        }
        self.sense = sense::NONE;
        let mut data = vec![0; 18];
        data[0] = 0x70;
        data[2] = told.key;
        data[7] = 10;
        data[12] = told.asc;
        data[13] = told.ascq;
        Ok(reply(data, cdb[4].into()))
    }

    /// SBC-3, 5.25; MMC-6, 6.42.
    fn start_stop(
        &mut self,
        config: &Config,
        present: bool,
        cdb: &[u8; 16],
    ) -> Result<Action, Sense> {
        let (start, eject) = (cdb[4] & 1 != 0, cdb[4] & 2 != 0);
        if cdb[4] & 0xf0 != 0 {
            // Power conditions: always active.
            return Ok(Action::Done);
        }
        if eject && !self.removable(config) {
            return Err(sense::INVALID_FIELD_IN_CDB);
        }
        if eject && !start {
            if self.prevent {
                return Err(sense::MEDIUM_REMOVAL_PREVENTED);
            }
            self.open_tray(present);
        } else if eject {
            self.close_tray(present);
        }
        Ok(if start || !present {
            Action::Done
        } else {
            Action::Work(Work::Flush)
        })
    }
}

/// As much of the data as the host has room for.
fn reply(mut data: Vec<u8>, allocation: u32) -> Action {
    data.truncate(allocation as usize);
    Action::Reply(data)
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn be64(b: &[u8], at: usize) -> u64 {
    u64::from(be32(b, at)) << 32 | u64::from(be32(b, at + 4))
}

/// `text` padded with blanks to `n` bytes.
fn padded(text: &str, n: usize) -> Vec<u8> {
    let printable = text
        .bytes()
        .map(|b| if (0x20..0x7f).contains(&b) { b } else { b'_' });
    printable.chain(std::iter::repeat(b' ')).take(n).collect()
}

const VENDOR: &str = "Dormer";

fn product(config: &Config) -> &str {
    match config.kind {
        _ if !config.product.is_empty() => &config.product,
        Kind::Disk => "USB Disk",
        Kind::Cdrom => "USB CD-ROM",
    }
}

/// SPC-4, 6.6; vital product data in 7.8.
fn inquiry(config: &Config, lun: u8, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let device = match config.kind {
        // Qualifier 3: no unit can be here.
        _ if lun != 0 => 0x7f,
        Kind::Disk => 0x00,
        Kind::Cdrom => 0x05,
    };
    let allocation = be16(cdb, 3).into();
    let (vital, page) = (cdb[1] & 1 != 0, cdb[2]);
    if !vital {
        if page != 0 {
            return Err(sense::INVALID_FIELD_IN_CDB);
        }
        let removable = config.removable || config.kind == Kind::Cdrom;
        // SPC-3, response format 2, 31 bytes to follow.
        let mut data = vec![device, u8::from(removable) << 7, 5, 2, 31, 0, 0, 0];
        data.extend(padded(VENDOR, 8));
        data.extend(padded(product(config), 16));
        data.extend(padded("1.0", 4));
        return Ok(reply(data, allocation));
    }
    if lun != 0 {
        return Err(sense::LOGICAL_UNIT_NOT_SUPPORTED);
    }
    let disk = config.kind == Kind::Disk;
    let mut body = match page {
        0x00 if disk => vec![0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2],
        0x00 => vec![0x00, 0x80, 0x83],
        0x80 => config.serial.bytes().take(252).collect(),
        0x83 => identification(config),
        0xb0 if disk => block::limits(),
        // Not rotating.
        0xb1 if disk => {
            let mut body = vec![0; 60];
            body[1] = 1;
            body
        }
        // UNMAP and both WRITE SAMEs unmap; thin provisioned.
        0xb2 if disk => vec![0, 0xe0, 2, 0],
        _ => return Err(sense::INVALID_FIELD_IN_CDB),
    };
    let mut data = vec![device, page];
    data.extend((body.len() as u16).to_be_bytes());
    data.append(&mut body);
    Ok(reply(data, allocation))
}

/// One designator: the vendor, product and serial number (T10 vendor identification, ASCII).
fn identification(config: &Config) -> Vec<u8> {
    let mut name = padded(VENDOR, 8);
    name.extend(padded(product(config), 16));
    name.extend(config.serial.bytes().take(200));
    let mut body = vec![0x02, 0x01, 0, name.len() as u8];
    body.extend(name);
    body
}

/// SPC-4, 6.33: one unit, number 0.
fn report_luns(cdb: &[u8; 16]) -> Result<Action, Sense> {
    let allocation = be32(cdb, 6);
    if allocation < 16 || cdb[2] > 2 {
        return Err(sense::INVALID_FIELD_IN_CDB);
    }
    let mut data = vec![0; if cdb[2] == 1 { 8 } else { 16 }];
    data[3] = (data.len() - 8) as u8;
    Ok(reply(data, allocation))
}
