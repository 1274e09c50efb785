//! Names, links and deep folders of POSIX systems in system use areas (IEEE P1281 "SUSP", IEEE P1282 "RRIP").

use super::{Record, SECTOR, Volume};
use crate::error::{Error, Result};
use crate::fields::Fields;

/// Areas that continue each other beyond which a record counts as damaged.
const AREAS: usize = 64;

/// What the area of a record adds to it.
#[derive(Default)]
pub(super) struct Extra {
    /// `NM`.
    pub name: Option<String>,
    /// `SL`: the target of a symbolic link.
    pub link: Option<String>,
    /// `CL`: the folder that stands here lies at this sector.
    pub child: Option<u32>,
    /// `RE`: this folder stands elsewhere in the tree.
    pub relocated: bool,
}

/// The bytes to skip that the entry `SP` at the start of an area names; `None` if there is no such entry.
pub(super) fn mark(area: &[u8]) -> Option<usize> {
    let mark = area.get(..7)?;
    (mark.starts_with(b"SP") && mark[4..6] == [0xBE, 0xEF]).then_some(mark[6].into())
}

/// The target of a link as its components come (IEEE P1282 4.1.3).
#[derive(Default)]
struct Target {
    text: String,
    /// The last component goes on in the next.
    open: bool,
}

impl Target {
    fn add(&mut self, mut components: &[u8]) {
        while components.len() >= 2 {
            let (flags, length) = (components[0], usize::from(components[1]));
            let Some(content) = components.get(2..2 + length) else {
                break;
            };
            if !self.open && !self.text.is_empty() && !self.text.ends_with('/') {
                self.text.push('/');
            }
            match flags & 0xE {
                2 => self.text.push('.'),
                4 => self.text.push_str(".."),
                8 => self.text = "/".into(),
                _ => self.text.push_str(&String::from_utf8_lossy(content)),
            }
            self.open = flags & 1 != 0;
            components = &components[2 + length..];
        }
    }
}

impl Volume {
    pub(super) fn rock_ridge(&self, record: &Record) -> Result<Extra> {
        let mut extra = Extra::default();
        if !self.rock_ridge {
            return Ok(extra);
        }
        let mut name = Vec::new();
        let mut target: Option<Target> = None;
        let mut area = record
            .system_use
            .get(self.skip..)
            .unwrap_or_default()
            .to_vec();
        for _ in 0..AREAS {
            let mut continued = None;
            let mut rest = area.as_slice();
            while rest.len() >= 4 {
                let length = usize::from(rest[2]);
                if length < 4 || length > rest.len() {
                    break;
                }
                let (entry, after) = rest.split_at(length);
                match &entry[..2] {
                    b"NM" if length > 5 && entry[4] & 0b110 == 0 => {
                        name.extend_from_slice(&entry[5..]);
                    }
                    b"SL" if length > 5 => target.get_or_insert_default().add(&entry[5..]),
                    b"CL" => extra.child = Some(entry.le32(4)?),
                    b"RE" => extra.relocated = true,
                    b"CE" => continued = Some((entry.le32(4)?, entry.le32(12)?, entry.le32(20)?)),
                    b"ST" => break,
                    _ => {}
                }
                rest = after;
            }
            let Some((sector, offset, length)) = continued else {
                extra.name = (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into());
                extra.link = target.map(|target| target.text);
                return Ok(extra);
            };
            if u64::from(length) > SECTOR {
                break;
            }
            let at = u64::from(sector) * SECTOR + u64::from(offset);
            area = self.source.read_vec(at, length as usize)?;
        }
        Err(Error::damaged(
            "a system use area of ISO 9660",
            u64::from(record.extent) * SECTOR,
            "its continuations have no end",
        ))
    }
}
