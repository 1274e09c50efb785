//! The commands of a CD-ROM drive (MMC-6). The disc has one session with one data track.

use super::spec::{Sense, operation, sense};
use super::{Action, Medium, Unit, be16, be32, block, reply};

/// Profiles (MMC-6, table 93).
mod profile {
    pub const CD_ROM: u16 = 0x08;
    pub const DVD_ROM: u16 = 0x10;
    pub const BD_ROM: u16 = 0x40;
    pub const ALL: [u16; 3] = [BD_ROM, DVD_ROM, CD_ROM];
}

/// More blocks than this fit on no CD (99 minutes).
const CD_BLOCKS: u64 = 99 * 60 * 75;
/// More than this on no dual-layer DVD.
const DVD_BLOCKS: u64 = 4_173_824;

/// The track that is outside of the program area.
const LEAD_OUT: u8 = 0xaa;
/// ADR 1, a data track.
const DATA_TRACK: u8 = 0x14;

fn profile(medium: Option<Medium>) -> u16 {
    match medium {
        None => 0,
        Some(m) if m.blocks <= CD_BLOCKS => profile::CD_ROM,
        Some(m) if m.blocks <= DVD_BLOCKS => profile::DVD_ROM,
        Some(_) => profile::BD_ROM,
    }
}

/// A block address in the form asked for: a number, or minutes, seconds, frames.
fn address(lba: u64, msf: bool) -> [u8; 4] {
    let lba = lba.min(u32::MAX.into()) as u32;
    if !msf {
        return lba.to_be_bytes();
    }
    let frames = lba.saturating_add(150);
    [
        0,
        (frames / (60 * 75)).min(255) as u8,
        (frames / 75 % 60) as u8,
        (frames % 75) as u8,
    ]
}

impl Unit {
    /// `None`: no such command.
    pub(super) fn cdrom_command(
        &mut self,
        medium: Option<Medium>,
        cdb: &[u8; 16],
    ) -> Option<Result<Action, Sense>> {
        // Answered without a medium too.
        match cdb[0] {
            operation::GET_CONFIGURATION => return Some(Ok(get_configuration(medium, cdb))),
            operation::GET_EVENT_STATUS_NOTIFICATION => {
                return Some(self.event_status(medium, cdb));
            }
            operation::MECHANISM_STATUS => {
                // The door; no changer.
                let door = u8::from(!self.loaded()) << 4;
                return Some(Ok(reply(
                    vec![0, door, 0, 0, 0, 0, 0, 0],
                    be16(cdb, 8).into(),
                )));
            }
            operation::READ_FORMAT_CAPACITIES => {
                return Some(block::format_capacities(medium, cdb));
            }
            _ => {}
        }
        let run: fn(Medium, &[u8; 16]) -> Result<Action, Sense> = match cdb[0] {
            operation::READ_CAPACITY_10 => |medium, _| Ok(block::capacity(medium)),
            operation::READ_10 | operation::READ_12 => block::read,
            operation::READ_CD => read_cd,
            operation::VERIFY_10 | operation::VERIFY_12 => {
                |medium, cdb| medium.bytes(block::extent(cdb)).map(|_| Action::Done)
            }
            operation::SYNCHRONIZE_CACHE_10 => |_, _| Ok(Action::Done),
            operation::READ_TOC_PMA_ATIP => read_toc,
            operation::READ_DISC_INFORMATION => disc_information,
            operation::READ_TRACK_INFORMATION => track_information,
            operation::READ_DVD_STRUCTURE => dvd_structure,
            _ => return None,
        };
        Some(
            medium
                .ok_or(sense::MEDIUM_NOT_PRESENT)
                .and_then(|medium| run(medium, cdb)),
        )
    }

    /// MMC-6, 6.6: media events, polled.
    fn event_status(&mut self, medium: Option<Medium>, cdb: &[u8; 16]) -> Result<Action, Sense> {
        const MEDIA: u8 = 4;
        if cdb[1] & 1 == 0 {
            // Asynchronous notification.
            return Err(sense::INVALID_FIELD_IN_CDB);
        }
        let allocation = be16(cdb, 7).into();
        let supported = 1 << MEDIA;
        if cdb[4] & supported == 0 {
            // NEA: no event available, of no supported class.
            return Ok(reply(vec![0, 2, 0x80, supported], allocation));
        }
        let event = self.media_event;
        // An event is told once, if there was room for it.
        if allocation >= 5 {
            self.media_event = 0;
        }
        let status = u8::from(!self.loaded()) | u8::from(medium.is_some()) << 1;
        Ok(reply(
            vec![0, 6, MEDIA, supported, event, status, 0, 0],
            allocation,
        ))
    }
}

/// MMC-6, 6.5 and chapter 5.
fn get_configuration(medium: Option<Medium>, cdb: &[u8; 16]) -> Action {
    let current = profile(medium);
    let (wanted, starting) = (cdb[1] & 3, be16(cdb, 2));
    let mut profiles = Vec::new();
    for p in profile::ALL {
        profiles.extend(p.to_be_bytes());
        profiles.extend([u8::from(p == current), 0]);
    }
    let on = |p: u16| current == p;
    // Number, version << 2, current, persistent, data.
    let features: [(u16, u8, bool, bool, Vec<u8>); 8] = [
        (0x0000, 0, true, true, profiles),
        // Core: on USB; this drive understands device-busy events no more than it must.
        (0x0001, 2, true, true, vec![0, 0, 0, 8, 1, 0, 0, 0]),
        // Removable medium: a tray that locks, loads and ejects.
        (0x0003, 1, true, true, vec![0x39, 0, 0, 0]),
        // Random readable: blocks of 2048, one by one, no read-write error page.
        (
            0x0010,
            0,
            medium.is_some(),
            false,
            vec![0, 0, 8, 0, 0, 1, 0, 0],
        ),
        // CD read.
        (0x001e, 2, on(profile::CD_ROM), false, vec![0, 0, 0, 0]),
        // DVD read.
        (0x001f, 1, on(profile::DVD_ROM), false, vec![0, 0, 0, 0]),
        // BD read: no classes beyond BD-ROM version 1.
        (0x0040, 0, on(profile::BD_ROM), false, {
            let mut data = vec![0; 28];
            data[22] = 0x02;
            data
        }),
        // Power management, always there.
        (0x0100, 0, true, true, Vec::new()),
    ];
    let mut data = vec![0; 8];
    data[6..8].copy_from_slice(&current.to_be_bytes());
    for (number, version, now, persistent, body) in features {
        let chosen = match wanted {
            0 => number >= starting,
            1 => number >= starting && now,
            _ => number == starting,
        };
        if chosen {
            data.extend(number.to_be_bytes());
            data.extend([
                version << 2 | u8::from(persistent) << 1 | u8::from(now),
                body.len() as u8,
            ]);
            data.extend(body);
        }
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    reply(data, be16(cdb, 7).into())
}

/// MMC-6, 6.26: formats 0 (tracks) and 1 (sessions).
fn read_toc(medium: Medium, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let msf = cdb[1] & 2 != 0;
    // Old hosts put the format into the control byte.
    let format = if cdb[2] & 0xf != 0 {
        cdb[2] & 0xf
    } else {
        cdb[9] >> 6
    };
    let start = cdb[6];
    let mut data = vec![0, 0, 1, 1];
    match format {
        0 => {
            if start > 1 && start != LEAD_OUT {
                return Err(sense::INVALID_FIELD_IN_CDB);
            }
            for (track, lba) in [(1, 0), (LEAD_OUT, medium.blocks)] {
                if track >= start {
                    data.extend([0, DATA_TRACK, track, 0]);
                    data.extend(address(lba, msf));
                }
            }
        }
        1 => {
            data.extend([0, DATA_TRACK, 1, 0]);
            data.extend(address(0, msf));
        }
        _ => return Err(sense::INVALID_FIELD_IN_CDB),
    }
    let length = (data.len() - 2) as u16;
    data[..2].copy_from_slice(&length.to_be_bytes());
    Ok(reply(data, be16(cdb, 7).into()))
}

/// MMC-6, 6.19: user data of mode 1 sectors; the rest of a sector is not on an image.
fn read_cd(medium: Medium, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let blocks = be32(cdb, 5) & 0xff_ffff;
    let (offset, length) = medium.bytes((be32(cdb, 2).into(), blocks.into()))?;
    // Any type, mode 1; no sub-channel.
    if !matches!(cdb[1] >> 2 & 7, 0 | 2) {
        return Err(sense::ILLEGAL_MODE_FOR_THIS_TRACK);
    }
    if cdb[10] & 7 != 0 {
        return Err(sense::INVALID_FIELD_IN_CDB);
    }
    match cdb[9] & 0xf8 {
        0x10 if length != 0 => Ok(Action::Read { offset, length }),
        0x00 | 0x10 => Ok(Action::Done),
        _ => Err(sense::INVALID_FIELD_IN_CDB),
    }
}

/// MMC-6, 6.21: a finished disc of one session.
fn disc_information(_: Medium, cdb: &[u8; 16]) -> Result<Action, Sense> {
    if cdb[1] & 7 != 0 {
        return Err(sense::INVALID_FIELD_IN_CDB);
    }
    let mut data = vec![0; 34];
    data[1] = 32;
    data[2] = 0x0e; // complete disc, complete last session
    data[3..7].fill(1); // first track, sessions, first and last track of the last session
    data[7] = 0x20; // unrestricted use
    data[16..24].fill(0xff); // no lead-in, no lead-out to start at
    Ok(reply(data, be16(cdb, 7).into()))
}

/// MMC-6, 6.27.
fn track_information(medium: Medium, cdb: &[u8; 16]) -> Result<Action, Sense> {
    let number = be32(cdb, 2);
    let known = match cdb[1] & 3 {
        0 => u64::from(number) < medium.blocks,
        1 | 2 => number == 1,
        _ => false,
    };
    if !known {
        return Err(sense::INVALID_FIELD_IN_CDB);
    }
    let mut data = vec![0; 36];
    data[1] = 34;
    data[2] = 1;
    data[3] = 1;
    data[5] = 4; // data
    data[6] = 1; // mode 1
    data[24..28].copy_from_slice(&address(medium.blocks, false));
    Ok(reply(data, be16(cdb, 7).into()))
}

/// MMC-6, 6.22: physical format, copyright, the list of these.
fn dvd_structure(medium: Medium, cdb: &[u8; 16]) -> Result<Action, Sense> {
    if profile(Some(medium)) != profile::DVD_ROM {
        return Err(sense::INVALID_FIELD_IN_CDB);
    }
    // Layer 0 only.
    if cdb[6] != 0 {
        return Err(sense::INVALID_FIELD_IN_CDB);
    }
    /// Where the data of a DVD begins.
    const FIRST: u32 = 0x3_0000;
    let mut data = vec![0; 4];
    match cdb[7] {
        0x00 => {
            let mut body = vec![0; 2048];
            body[0] = 0x01; // DVD-ROM, part version 1
            body[1] = 0x0f; // 120 mm, no maximum rate
            body[2] = 0x01; // one layer, read-only
            body[4..8].copy_from_slice(&FIRST.to_be_bytes());
            let last = FIRST.saturating_add(medium.blocks.saturating_sub(1) as u32);
            body[8..12].copy_from_slice(&last.to_be_bytes());
            data.extend(body);
        }
        // No copyright protection; all regions.
        0x01 => data.extend([0; 4]),
        0xff => {
            for (format, length) in [(0x00u8, 2052u16), (0x01, 8)] {
                data.extend([format, 0x40]);
                data.extend(length.to_be_bytes());
            }
        }
        _ => return Err(sense::INVALID_FIELD_IN_CDB),
    }
    let length = (data.len() - 2) as u16;
    data[..2].copy_from_slice(&length.to_be_bytes());
    Ok(reply(data, be16(cdb, 8).into()))
}
