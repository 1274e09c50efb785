//! Keys (`nk`), their lists (`lf`, `lh`, `li`, `ri`) and values (`vk`, `db`).

use super::{Hive, kind};
use crate::error::{Error, Result};
use crate::fields::{Fields, utf16, utf16_until_nul};

/// No offset.
pub(super) const NOTHING: u32 = u32::MAX;
/// The name is in Latin-1, one byte a character.
pub(super) const KEY_COMPRESSED: u16 = 0x20;
pub(super) const VALUE_COMPRESSED: u16 = 1;
/// The four bytes of the offset are the data.
pub(super) const INLINE: u32 = 1 << 31;
/// Data in one cell at most; longer ones are split since version 1.4.
pub(super) const SEGMENT: usize = 16344;
/// Keys under a key beyond which a hive counts as damaged.
const CHILDREN: usize = 1 << 20;
/// A value's data beyond which it is refused.
const DATA: usize = 64 << 20;

/// Offsets within an `nk` cell.
pub(super) mod nk {
    pub const FLAGS: usize = 2;
    pub const PARENT: usize = 16;
    pub const CHILDREN: usize = 20;
    pub const LIST: usize = 28;
    pub const VOLATILE_LIST: usize = 32;
    pub const VALUES: usize = 36;
    pub const VALUE_LIST: usize = 40;
    pub const SECURITY: usize = 44;
    pub const CLASS: usize = 48;
    pub const LONGEST_CHILD: usize = 52;
    pub const LONGEST_VALUE: usize = 60;
    pub const LONGEST_DATA: usize = 64;
    pub const NAME_LENGTH: usize = 72;
    pub const NAME: usize = 76;
}

/// Offsets within a `vk` cell.
pub(super) mod vk {
    pub const NAME_LENGTH: usize = 2;
    pub const LENGTH: usize = 4;
    pub const DATA: usize = 8;
    pub const KIND: usize = 12;
    pub const FLAGS: usize = 16;
    pub const NAME: usize = 20;
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub(super) offset: u32,
    pub name: String,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Empty for the key's default value.
    pub name: String,
    /// `REG_*`, as [`kind`] has them.
    pub kind: u32,
    pub data: Vec<u8>,
}

impl Value {
    /// The text of `REG_SZ` and `REG_EXPAND_SZ`.
    pub fn text(&self) -> Option<String> {
        matches!(self.kind, kind::SZ | kind::EXPAND_SZ).then(|| utf16_until_nul(&self.data))
    }

    /// The texts of `REG_MULTI_SZ`.
    pub fn texts(&self) -> Option<Vec<String>> {
        (self.kind == kind::MULTI_SZ).then(|| {
            utf16(&self.data)
                .split('\0')
                .filter(|text| !text.is_empty())
                .map(str::to_string)
                .collect()
        })
    }

    /// The number of `REG_DWORD` and `REG_QWORD`.
    pub fn number(&self) -> Option<u64> {
        match self.kind {
            kind::DWORD => self.data.le32(0).ok().map(u64::from),
            kind::QWORD => self.data.le64(0).ok(),
            _ => None,
        }
    }
}

pub(super) fn name(bytes: &[u8], compressed: bool) -> String {
    if compressed {
        bytes.iter().map(|&b| char::from(b)).collect()
    } else {
        utf16(bytes)
    }
}

/// As names are compared: Windows makes them upper case one character at a time.
pub(super) fn folded(name: &str) -> Vec<u16> {
    name.encode_utf16()
        .map(|unit| {
            let upper = char::from_u32(unit.into()).map(char::to_uppercase);
            match upper {
                Some(mut chars) if chars.len() == 1 => chars
                    .next()
                    .and_then(|c| u16::try_from(u32::from(c)).ok())
                    .unwrap_or(unit),
                _ => unit,
            }
        })
        .collect()
}

/// Fails for a list that names something twice.
fn unique(offsets: &[u32], what: &'static str) -> Result<()> {
    let mut seen = std::collections::HashSet::with_capacity(offsets.len());
    match offsets.iter().find(|offset| !seen.insert(**offset)) {
        None => Ok(()),
        Some(twice) => Err(Error::damaged(
            what,
            (*twice).into(),
            "the same entry is in it twice",
        )),
    }
}

impl Hive {
    pub(super) fn key(&self, offset: u32) -> Result<Key> {
        let cell = self.cell(offset)?;
        if cell.span(0, 2)? != b"nk" {
            return Err(Error::damaged(
                "a registry key",
                offset.into(),
                "it is no nk",
            ));
        }
        let length = usize::from(cell.le16(nk::NAME_LENGTH)?);
        let compressed = cell.le16(nk::FLAGS)? & KEY_COMPRESSED != 0;
        let name = name(cell.span(nk::NAME, length)?, compressed);
        Ok(Key { offset, name })
    }

    /// The keys under a key.
    pub fn children(&self, key: &Key) -> Result<Vec<Key>> {
        self.child_offsets(key)?
            .into_iter()
            .map(|offset| self.key(offset))
            .collect()
    }

    pub(super) fn child_offsets(&self, key: &Key) -> Result<Vec<u32>> {
        let cell = self.cell(key.offset)?;
        let (count, list) = (cell.le32(nk::CHILDREN)?, cell.le32(nk::LIST)?);
        let mut offsets = Vec::new();
        if count != 0 && list != NOTHING {
            self.read_list(list, &mut offsets, 0)?;
        }
        unique(&offsets, "a list of registry keys")?;
        // A key has one parent, so that a walk ends.
        for child in &offsets {
            if self.cell(*child)?.le32(nk::PARENT)? != key.offset {
                return Err(Error::damaged(
                    "a registry key",
                    (*child).into(),
                    "it is listed under a key that is not its parent",
                ));
            }
        }
        Ok(offsets)
    }

    fn read_list(&self, list: u32, offsets: &mut Vec<u32>, depth: u32) -> Result<()> {
        const WHAT: &str = "a list of registry keys";
        let cell = self.cell(list)?;
        let count = usize::from(cell.le16(2)?);
        let each = match cell.span(0, 2)? {
            b"lf" | b"lh" => 8,
            b"li" | b"ri" => 4,
            _ => return Err(Error::damaged(WHAT, list.into(), "it is no list")),
        };
        for entry in cell.span(4, count * each)?.chunks_exact(each) {
            let offset = entry.le32(0)?;
            if &cell[..2] == b"ri" {
                if depth > 1 {
                    return Err(Error::damaged(WHAT, list.into(), "it contains itself"));
                }
                self.read_list(offset, offsets, depth + 1)?;
            } else {
                offsets.push(offset);
            }
            if offsets.len() > CHILDREN {
                return Err(Error::damaged(WHAT, list.into(), "it has no end"));
            }
        }
        Ok(())
    }

    /// The key of a name under a key.
    pub fn child(&self, key: &Key, name: &str) -> Result<Option<Key>> {
        let wanted = folded(name);
        for offset in self.child_offsets(key)? {
            let child = self.key(offset)?;
            if folded(&child.name) == wanted {
                return Ok(Some(child));
            }
        }
        Ok(None)
    }

    /// The values of a key.
    pub fn values(&self, key: &Key) -> Result<Vec<Value>> {
        let mut values = Vec::new();
        let mut bytes = 0;
        for offset in self.value_offsets(key)? {
            let value = self.read_value(offset)?;
            bytes += value.data.len();
            if bytes > self.length() {
                return Err(Error::damaged(
                    "a registry key",
                    key.offset.into(),
                    "its values have more data than the hive",
                ));
            }
            values.push(value);
        }
        Ok(values)
    }

    pub(super) fn value_offsets(&self, key: &Key) -> Result<Vec<u32>> {
        let cell = self.cell(key.offset)?;
        let (count, list) = (cell.le32(nk::VALUES)? as usize, cell.le32(nk::VALUE_LIST)?);
        if count == 0 || list == NOTHING {
            return Ok(Vec::new());
        }
        let cell = self.cell(list)?;
        let bytes = cell.span(0, count.saturating_mul(4))?;
        let offsets: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|entry| entry.le32(0))
            .collect::<Result<_>>()?;
        unique(&offsets, "a list of registry values")?;
        Ok(offsets)
    }

    /// The value of a name; the empty one is the default value.
    pub fn value(&self, key: &Key, name: &str) -> Result<Option<Value>> {
        match self.value_offset(key, name)? {
            Some(offset) => self.read_value(offset).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn value_offset(&self, key: &Key, name: &str) -> Result<Option<u32>> {
        let wanted = folded(name);
        for offset in self.value_offsets(key)? {
            if folded(&self.value_name(offset)?) == wanted {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    fn value_name(&self, offset: u32) -> Result<String> {
        let cell = self.cell(offset)?;
        if cell.span(0, 2)? != b"vk" {
            return Err(Error::damaged(
                "a registry value",
                offset.into(),
                "it is no vk",
            ));
        }
        let length = usize::from(cell.le16(vk::NAME_LENGTH)?);
        let compressed = cell.le16(vk::FLAGS)? & VALUE_COMPRESSED != 0;
        Ok(name(cell.span(vk::NAME, length)?, compressed))
    }

    fn read_value(&self, offset: u32) -> Result<Value> {
        let name = self.value_name(offset)?;
        let cell = self.cell(offset)?;
        let length = cell.le32(vk::LENGTH)?;
        let at = cell.le32(vk::DATA)?;
        let data = if length & INLINE != 0 {
            let length = (length & !INLINE) as usize;
            if length > 4 {
                return Err(Error::damaged(
                    "a registry value",
                    offset.into(),
                    format!("{length} bytes of data in four"),
                ));
            }
            at.to_le_bytes()[..length].to_vec()
        } else {
            self.read_data(at, length as usize)?
        };
        Ok(Value {
            name,
            kind: cell.le32(vk::KIND)?,
            data,
        })
    }

    fn read_data(&self, offset: u32, length: usize) -> Result<Vec<u8>> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let cell = self.cell(offset)?;
        if length <= SEGMENT || cell.span(0, 2)? != b"db" || cell.len() >= length {
            return Ok(cell.span(0, length)?.to_vec());
        }
        let damaged =
            |problem: &str| Error::damaged("the data of a registry value", offset.into(), problem);
        if length > DATA {
            return Err(damaged("it is longer than 64 MiB"));
        }
        let segments = usize::from(cell.le16(2)?);
        let list = self.cell(cell.le32(4)?)?;
        let mut data = Vec::new();
        for entry in list.span(0, segments * 4)?.chunks_exact(4) {
            let segment = self.cell(entry.le32(0)?)?;
            let part = segment.len().min(SEGMENT).min(length - data.len());
            data.extend_from_slice(&segment[..part]);
        }
        if data.len() < length {
            return Err(damaged("its segments are too short"));
        }
        Ok(data)
    }
}
