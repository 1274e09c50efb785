//! MODE SENSE and MODE SELECT (SPC-4, 6.9 to 6.12 and 7.5).

use super::spec::{Sense, operation, page, sense};
use super::{Action, Config, Kind, Medium, Unit, be16, reply};

/// The caching page's write cache enable.
const WCE: u8 = 0x04;

impl Unit {
    pub(super) fn mode_sense(
        &self,
        config: &Config,
        medium: Option<Medium>,
        cdb: &[u8; 16],
    ) -> Result<Action, Sense> {
        let ten = cdb[0] == operation::MODE_SENSE_10;
        let (control, asked) = (cdb[2] >> 6, cdb[2] & 0x3f);
        if control == 3 {
            return Err(sense::SAVING_NOT_SUPPORTED);
        }
        if cdb[3] != 0 && !(asked == page::ALL && cdb[3] == 0xff) {
            return Err(sense::INVALID_FIELD_IN_CDB);
        }
        let mut descriptor = Vec::new();
        if let (Kind::Disk, Some(medium), true) = (config.kind, medium, cdb[1] & 8 == 0) {
            descriptor.extend((medium.blocks.min(0xff_ffff) as u32).to_be_bytes());
            descriptor.extend(medium.block_size.to_be_bytes());
        }
        let mut pages = Vec::new();
        let known = [page::ERROR_RECOVERY, page::CACHING, page::CAPABILITIES];
        for number in known
            .into_iter()
            .filter(|&p| asked == p || asked == page::ALL)
        {
            pages.extend(self.page(config, number, control).unwrap_or_default());
        }
        if pages.is_empty() {
            return Err(sense::INVALID_FIELD_IN_CDB);
        }
        // The device-specific parameter of a disk: write-protected, and DPO and FUA are understood.
        let specific = match config.kind {
            Kind::Disk => u8::from(medium.is_some_and(|m| m.read_only)) << 7 | 0x10,
            Kind::Cdrom => 0,
        };
        let mut data = if ten {
            let mut header = vec![0, 0, 0, specific, 0, 0, 0, descriptor.len() as u8];
            header[..2]
                .copy_from_slice(&((6 + descriptor.len() + pages.len()) as u16).to_be_bytes());
            header
        } else {
            vec![
                (3 + descriptor.len() + pages.len()) as u8,
                0,
                specific,
                descriptor.len() as u8,
            ]
        };
        data.extend(descriptor);
        data.extend(pages);
        let allocation = if ten {
            be16(cdb, 7).into()
        } else {
            cdb[4].into()
        };
        Ok(reply(data, allocation))
    }

    /// A page's values: control 0 the current ones, 1 a mask of what can be changed, 2 the defaults.
    fn page(&self, config: &Config, number: u8, control: u8) -> Option<Vec<u8>> {
        let (mut data, changeable) = match (config.kind, number) {
            (Kind::Cdrom, page::ERROR_RECOVERY) => (vec![number, 6, 0, 5, 0, 0, 0, 0], vec![0; 8]),
            (Kind::Disk, page::CACHING) => {
                let on = control == 2 || self.write_cache;
                let (mut data, mut mask) = (vec![0; 20], vec![0; 20]);
                data[2] = if on { WCE } else { 0 };
                mask[2] = WCE;
                (data, mask)
            }
            (Kind::Cdrom, page::CAPABILITIES) => (self.capabilities(), vec![0; 22]),
            _ => return None,
        };
        if control == 1 {
            data = changeable;
        }
        data[0] = number;
        data[1] = (data.len() - 2) as u8;
        Some(data)
    }

    /// What a read-only drive can do.
    fn capabilities(&self) -> Vec<u8> {
        let mut data = vec![0; 22];
        data[2] = 0x3b; // reads CD-R, CD-RW, DVD-ROM, DVD-R, DVD-RAM
        data[4] = 0x70; // mode 2 form 1 and 2, multisession
        data[6] = 0x29 | u8::from(self.prevent) << 1; // tray, ejects, locks; whether it is locked now
        let speed = 176 * 50u16; // 50 times, in kB/s
        data[8..10].copy_from_slice(&speed.to_be_bytes());
        data[12..14].copy_from_slice(&2048u16.to_be_bytes()); // buffer in KiB
        data[14..16].copy_from_slice(&speed.to_be_bytes());
        data
    }

    /// The parameter list of MODE SELECT.
    pub(super) fn mode_selected(
        &mut self,
        config: &Config,
        cdb: &[u8; 16],
        data: &[u8],
    ) -> Result<Action, Sense> {
        let ten = cdb[0] == operation::MODE_SELECT_10;
        let header = if ten { 8 } else { 4 };
        if data.is_empty() {
            return Ok(Action::Done);
        }
        if data.len() < header {
            return Err(sense::PARAMETER_LIST_LENGTH_ERROR);
        }
        let descriptor = if ten {
            be16(data, 6).into()
        } else {
            usize::from(data[3])
        };
        let mut rest = data
            .get(header + descriptor..)
            .ok_or(sense::PARAMETER_LIST_LENGTH_ERROR)?;
        let mut write_cache = self.write_cache;
        while let [number, length, ..] = *rest {
            let whole = usize::from(length) + 2;
            let given = rest
                .get(..whole)
                .ok_or(sense::PARAMETER_LIST_LENGTH_ERROR)?;
            // PS is reserved here.
            let number = number & 0x3f;
            let current = self
                .page(config, number, 0)
                .ok_or(sense::INVALID_FIELD_IN_PARAMETERS)?;
            let mask = self
                .page(config, number, 1)
                .ok_or(sense::INVALID_FIELD_IN_PARAMETERS)?;
            if given.len() != current.len() {
                return Err(sense::INVALID_FIELD_IN_PARAMETERS);
            }
            if (2..whole).any(|i| (given[i] ^ current[i]) & !mask[i] != 0) {
                return Err(sense::INVALID_FIELD_IN_PARAMETERS);
            }
            if number == page::CACHING {
                write_cache = given[2] & WCE != 0;
            }
            rest = &rest[whole..];
        }
        if !rest.is_empty() {
            return Err(sense::PARAMETER_LIST_LENGTH_ERROR);
        }
        let turned_off = self.write_cache && !write_cache;
        self.write_cache = write_cache;
        Ok(if turned_off {
            Action::Work(super::Work::Flush)
        } else {
            Action::Done
        })
    }
}

/// MODE SELECT: what it is about comes with the data.
pub(super) fn select(cdb: &[u8; 16]) -> Result<Action, Sense> {
    // Page format; nothing is saved.
    if cdb[1] & 0x11 != 0x10 {
        return Err(sense::INVALID_FIELD_IN_CDB);
    }
    let length = if cdb[0] == operation::MODE_SELECT_10 {
        be16(cdb, 7).into()
    } else {
        cdb[4].into()
    };
    Ok(if length == 0 {
        Action::Done
    } else {
        Action::Parameters { length, of: *cdb }
    })
}
