//! Changes: values set and removed, keys added and removed, and new hives.

use super::key::{INLINE, KEY_COMPRESSED, NOTHING, SEGMENT, VALUE_COMPRESSED, folded, nk, vk};
use super::{BASE, BIN, Hive, Key, checksum, kind};
use crate::error::{Error, Result};
use crate::fields::{Fields, to_utf16};

/// Keys of one leaf of a list; more make a list of leaves.
const LEAF: usize = 500;
/// `KEY_HIVE_ENTRY | KEY_NO_DELETE | KEY_COMP_NAME`.
const ROOT_FLAGS: u16 = 0x2C;
/// Keys in keys beyond which a hive counts as damaged.
const DEPTH: u32 = 512;

impl Hive {
    /// An empty hive of version 1.5, whose top key has `root` for its name and whose security lets administrators and the
    /// system do anything.
    pub fn create(root: &str) -> Result<Hive> {
        let mut bytes = vec![0; BASE];
        bytes[..4].copy_from_slice(b"regf");
        for (at, value) in [(4, 1u32), (8, 1), (20, 1), (24, 5), (32, 1), (44, 1)] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let mut hive = Hive {
            bytes,
            changed: true,
            replayed: None,
        };
        let security = security_descriptor();
        let sk = hive.allocate(20 + security.len())?;
        let cell = hive.cell_mut(sk)?;
        cell[..2].copy_from_slice(b"sk");
        // A list of one, in both directions.
        put32(cell, 4, sk);
        put32(cell, 8, sk);
        put32(cell, 12, 0);
        put32(cell, 16, security.len() as u32);
        cell[20..20 + security.len()].copy_from_slice(&security);
        let key = hive.new_key(root, NOTHING, sk)?;
        let cell = hive.cell_mut(key)?;
        cell[nk::FLAGS..nk::FLAGS + 2].copy_from_slice(&ROOT_FLAGS.to_le_bytes());
        hive.put32(36, key);
        Ok(hive)
    }

    /// The key at a path of names between `\`; those that are missing are made.
    pub fn make(&mut self, path: &str) -> Result<Key> {
        let mut key = self.root()?;
        for name in path.split(['\\', '/']).filter(|name| !name.is_empty()) {
            key = match self.child(&key, name)? {
                Some(child) => child,
                None => self.add_child(&key, name)?,
            };
        }
        Ok(key)
    }

    fn new_key(&mut self, name: &str, parent: u32, security: u32) -> Result<u32> {
        let (name, compressed) = stored_name(name)?;
        let offset = self.allocate(nk::NAME + name.len())?;
        let cell = self.cell_mut(offset)?;
        cell[..2].copy_from_slice(b"nk");
        if compressed {
            cell[nk::FLAGS..nk::FLAGS + 2].copy_from_slice(&KEY_COMPRESSED.to_le_bytes());
        }
        for at in [nk::LIST, nk::VOLATILE_LIST, nk::VALUE_LIST, nk::CLASS] {
            put32(cell, at, NOTHING);
        }
        put32(cell, nk::PARENT, parent);
        put32(cell, nk::SECURITY, security);
        cell[nk::NAME_LENGTH..nk::NAME_LENGTH + 2]
            .copy_from_slice(&(name.len() as u16).to_le_bytes());
        cell[nk::NAME..nk::NAME + name.len()].copy_from_slice(&name);
        // One more key has this security.
        let sk = self.cell_mut(security)?;
        let count = sk.le32(12)?;
        put32(sk, 12, count.saturating_add(1));
        Ok(offset)
    }

    fn add_child(&mut self, parent: &Key, name: &str) -> Result<Key> {
        let cell = self.cell(parent.offset)?;
        let security = cell.le32(nk::SECURITY)?;
        // Not a key without security: it must be one before anything is changed.
        if self.cell(security)?.span(0, 2)? != b"sk" {
            return Err(Error::damaged(
                "a registry key",
                parent.offset.into(),
                "it has no security",
            ));
        }
        let mut children = self.children(parent)?;
        let offset = self.new_key(name, parent.offset, security)?;
        let key = self.key(offset)?;
        let wanted = folded(name);
        let place = children.partition_point(|child| folded(&child.name) < wanted);
        children.insert(place, key.clone());
        self.set_children(parent, &children)?;
        let length = name.encode_utf16().count() as u32 * 2;
        self.raise(parent, nk::LONGEST_CHILD, length)?;
        Ok(key)
    }

    /// Raises a key's record of what is longest in it. The upper half of the word at [`nk::LONGEST_CHILD`] is flags.
    fn raise(&mut self, key: &Key, at: usize, length: u32) -> Result<()> {
        let cell = self.cell_mut(key.offset)?;
        let there = cell.le32(at)?;
        let mask = if at == nk::LONGEST_CHILD {
            0xFFFF
        } else {
            u32::MAX
        };
        if there & mask < length {
            put32(cell, at, there & !mask | length);
        }
        Ok(())
    }

    /// Writes the list of a key's children, who are in the order of their names.
    fn set_children(&mut self, parent: &Key, children: &[Key]) -> Result<()> {
        let old = self.cell(parent.offset)?.le32(nk::LIST)?;
        let had = self.cell(parent.offset)?.le32(nk::CHILDREN)?;
        let mut leaves = Vec::new();
        for part in children.chunks(LEAF) {
            leaves.push(self.new_leaf(part)?);
        }
        let list = match leaves[..] {
            [] => NOTHING,
            [leaf] => leaf,
            _ => {
                let offset = self.allocate(4 + leaves.len() * 4)?;
                let cell = self.cell_mut(offset)?;
                cell[..2].copy_from_slice(b"ri");
                cell[2..4].copy_from_slice(&(leaves.len() as u16).to_le_bytes());
                for (index, leaf) in leaves.iter().enumerate() {
                    put32(cell, 4 + index * 4, *leaf);
                }
                offset
            }
        };
        let cell = self.cell_mut(parent.offset)?;
        put32(cell, nk::CHILDREN, children.len() as u32);
        put32(cell, nk::LIST, list);
        if had != 0 && old != NOTHING {
            let cell = self.cell(old)?;
            if cell.span(0, 2)? == b"ri" {
                let count = usize::from(cell.le16(2)?);
                let leaves: Vec<u32> = cell
                    .span(4, count * 4)?
                    .chunks_exact(4)
                    .map(|entry| entry.le32(0))
                    .collect::<Result<_>>()?;
                for leaf in leaves {
                    self.free(leaf)?;
                }
            }
            self.free(old)?;
        }
        Ok(())
    }

    /// `lh` since version 1.5, `lf` before.
    fn new_leaf(&mut self, keys: &[Key]) -> Result<u32> {
        let hashed = self.bytes.le32(24)? >= 5;
        let offset = self.allocate(4 + keys.len() * 8)?;
        let cell = self.cell_mut(offset)?;
        cell[..2].copy_from_slice(if hashed { b"lh" } else { b"lf" });
        cell[2..4].copy_from_slice(&(keys.len() as u16).to_le_bytes());
        for (index, key) in keys.iter().enumerate() {
            let hint = if hashed {
                folded(&key.name).iter().fold(0u32, |hash, unit| {
                    hash.wrapping_mul(37).wrapping_add((*unit).into())
                })
            } else {
                let mut start = [0; 4];
                for (to, c) in start.iter_mut().zip(key.name.chars()) {
                    *to = u8::try_from(u32::from(c)).unwrap_or(0);
                }
                u32::from_le_bytes(start)
            };
            put32(cell, 4 + index * 8, key.offset);
            put32(cell, 8 + index * 8, hint);
        }
        Ok(offset)
    }

    /// Sets a value, which is made if it is not there; the empty name is the default value.
    pub fn set(&mut self, key: &Key, name: &str, kind: u32, data: &[u8]) -> Result<()> {
        let existing = self.value_offset(key, name)?;
        if let Some(offset) = existing {
            let old = self.value(key, name)?;
            if old.is_some_and(|old| old.kind == kind && old.data == data) {
                return Ok(());
            }
            self.free_data(offset)?;
        }
        let (length, at) = self.new_data(data)?;
        let offset = match existing {
            Some(offset) => offset,
            None => self.new_value(key, name)?,
        };
        let cell = self.cell_mut(offset)?;
        put32(cell, vk::LENGTH, length);
        put32(cell, vk::DATA, at);
        put32(cell, vk::KIND, kind);
        self.raise(key, nk::LONGEST_DATA, data.len() as u32)
    }

    /// Sets a `REG_SZ`.
    pub fn set_text(&mut self, key: &Key, name: &str, text: &str) -> Result<()> {
        let mut data = to_utf16(text);
        data.extend([0, 0]);
        self.set(key, name, kind::SZ, &data)
    }

    /// Sets a `REG_MULTI_SZ`.
    pub fn set_texts(&mut self, key: &Key, name: &str, texts: &[&str]) -> Result<()> {
        let mut data = Vec::new();
        for text in texts {
            data.extend(to_utf16(text));
            data.extend([0, 0]);
        }
        data.extend([0, 0]);
        self.set(key, name, kind::MULTI_SZ, &data)
    }

    /// Sets a `REG_DWORD`.
    pub fn set_number(&mut self, key: &Key, name: &str, number: u32) -> Result<()> {
        self.set(key, name, kind::DWORD, &number.to_le_bytes())
    }

    fn new_value(&mut self, key: &Key, name: &str) -> Result<u32> {
        let units = name.encode_utf16().count() as u32;
        let (stored, compressed) = if name.is_empty() {
            (Vec::new(), true)
        } else {
            stored_name(name)?
        };
        let mut values = self.value_offsets(key)?;
        let offset = self.allocate(vk::NAME + stored.len())?;
        let cell = self.cell_mut(offset)?;
        cell[..2].copy_from_slice(b"vk");
        cell[vk::NAME_LENGTH..vk::NAME_LENGTH + 2]
            .copy_from_slice(&(stored.len() as u16).to_le_bytes());
        if compressed && !stored.is_empty() {
            cell[vk::FLAGS..vk::FLAGS + 2].copy_from_slice(&VALUE_COMPRESSED.to_le_bytes());
        }
        cell[vk::NAME..vk::NAME + stored.len()].copy_from_slice(&stored);
        values.push(offset);
        self.set_values(key, &values)?;
        self.raise(key, nk::LONGEST_VALUE, units * 2)?;
        Ok(offset)
    }

    fn set_values(&mut self, key: &Key, values: &[u32]) -> Result<()> {
        let cell = self.cell(key.offset)?;
        let (had, old) = (cell.le32(nk::VALUES)?, cell.le32(nk::VALUE_LIST)?);
        let list = if values.is_empty() {
            NOTHING
        } else {
            let list = self.allocate(values.len() * 4)?;
            let cell = self.cell_mut(list)?;
            for (index, value) in values.iter().enumerate() {
                put32(cell, index * 4, *value);
            }
            list
        };
        let cell = self.cell_mut(key.offset)?;
        put32(cell, nk::VALUES, values.len() as u32);
        put32(cell, nk::VALUE_LIST, list);
        if had != 0 && old != NOTHING {
            self.free(old)?;
        }
        Ok(())
    }

    /// Stores data: the length and offset for its `vk`.
    fn new_data(&mut self, data: &[u8]) -> Result<(u32, u32)> {
        let length = u32::try_from(data.len())
            .ok()
            .filter(|length| *length < 64 << 20)
            .ok_or_else(|| Error::Unsupported("a registry value of 64 MiB or more".into()))?;
        if data.len() <= 4 {
            let mut inline = [0; 4];
            inline[..data.len()].copy_from_slice(data);
            return Ok((length | INLINE, u32::from_le_bytes(inline)));
        }
        if data.len() <= SEGMENT || self.bytes.le32(24)? < 4 {
            let offset = self.allocate(data.len())?;
            self.cell_mut(offset)?[..data.len()].copy_from_slice(data);
            return Ok((length, offset));
        }
        let mut segments = Vec::new();
        for part in data.chunks(SEGMENT) {
            // Windows leaves room for four bytes more in each.
            let offset = self.allocate(part.len() + 4)?;
            self.cell_mut(offset)?[..part.len()].copy_from_slice(part);
            segments.push(offset);
        }
        let list = self.allocate(segments.len() * 4)?;
        let cell = self.cell_mut(list)?;
        for (index, segment) in segments.iter().enumerate() {
            put32(cell, index * 4, *segment);
        }
        let db = self.allocate(8)?;
        let cell = self.cell_mut(db)?;
        cell[..2].copy_from_slice(b"db");
        cell[2..4].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        put32(cell, 4, list);
        Ok((length, db))
    }

    fn free_data(&mut self, value: u32) -> Result<()> {
        let cell = self.cell(value)?;
        let (length, at) = (cell.le32(vk::LENGTH)?, cell.le32(vk::DATA)?);
        if length & INLINE != 0 || length == 0 {
            return Ok(());
        }
        let cell = self.cell(at)?;
        if length as usize > SEGMENT && cell.span(0, 2)? == b"db" && cell.len() < length as usize {
            let (count, list) = (usize::from(cell.le16(2)?), cell.le32(4)?);
            let segments: Vec<u32> = self
                .cell(list)?
                .span(0, count * 4)?
                .chunks_exact(4)
                .map(|entry| entry.le32(0))
                .collect::<Result<_>>()?;
            for segment in segments {
                self.free(segment)?;
            }
            self.free(list)?;
        }
        self.free(at)
    }

    /// Removes a value; whether it was there.
    pub fn remove_value(&mut self, key: &Key, name: &str) -> Result<bool> {
        let Some(offset) = self.value_offset(key, name)? else {
            return Ok(false);
        };
        let values: Vec<u32> = self
            .value_offsets(key)?
            .into_iter()
            .filter(|value| *value != offset)
            .collect();
        self.free_data(offset)?;
        self.free(offset)?;
        self.set_values(key, &values)?;
        Ok(true)
    }

    /// Removes a key with all that is in it; whether it was there.
    pub fn remove(&mut self, path: &str) -> Result<bool> {
        let path = path.trim_matches(['\\', '/']);
        let (parent, name) = path.rsplit_once(['\\', '/']).unwrap_or(("", path));
        let Some(parent) = self.find(parent)? else {
            return Ok(false);
        };
        let Some(key) = self.child(&parent, name)? else {
            return Ok(false);
        };
        let children: Vec<Key> = self
            .children(&parent)?
            .into_iter()
            .filter(|child| child.offset != key.offset)
            .collect();
        self.set_children(&parent, &children)?;
        self.free_key(&key, 0)?;
        Ok(true)
    }

    fn free_key(&mut self, key: &Key, depth: u32) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::damaged(
                "a registry key",
                key.offset.into(),
                "it contains itself",
            ));
        }
        for child in self.children(key)? {
            self.free_key(&child, depth + 1)?;
        }
        self.set_children(key, &[])?;
        for value in self.value_offsets(key)? {
            self.free_data(value)?;
            self.free(value)?;
        }
        self.set_values(key, &[])?;
        let cell = self.cell(key.offset)?;
        let (security, class) = (cell.le32(nk::SECURITY)?, cell.le32(nk::CLASS)?);
        if class != NOTHING {
            self.free(class)?;
        }
        // The security stays in its list even when no key has it any more: Windows does not mind.
        let sk = self.cell_mut(security)?;
        let count = sk.le32(12)?;
        put32(sk, 12, count.saturating_sub(1).max(1));
        self.free(key.offset)
    }

    /// Numbers the base block anew after changes.
    pub(super) fn finish(&mut self) {
        let sequence = self.bytes.le32(4).unwrap_or(0).wrapping_add(1);
        self.put32(4, sequence);
        self.put32(8, sequence);
        let sum = checksum(&self.bytes);
        self.put32(508, sum);
        debug_assert!(self.length().is_multiple_of(BIN));
    }
}

fn put32(cell: &mut [u8], at: usize, value: u32) {
    cell[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// A name as Latin-1 where that holds it, as UTF-16 otherwise.
fn stored_name(name: &str) -> Result<(Vec<u8>, bool)> {
    if name.is_empty() || name.encode_utf16().count() > 255 || name.contains('\\') {
        return Err(Error::Unsupported(format!(
            "\"{name}\" cannot be a name in a registry"
        )));
    }
    let latin: Option<Vec<u8>> = name
        .chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect();
    Ok(match latin {
        Some(latin) => (latin, true),
        None => (to_utf16(name), false),
    })
}

/// A self-relative security descriptor ([MS-DTYP] 2.4.6): owned by administrators; they and the system have full access,
/// inherited below.
fn security_descriptor() -> Vec<u8> {
    const ADMINISTRATORS: [u8; 16] = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
    const SYSTEM: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
    const FULL: u32 = 0x000F_003F;
    let mut entries = Vec::new();
    for sid in [&ADMINISTRATORS[..], &SYSTEM[..]] {
        // ACCESS_ALLOWED, inherited by containers.
        entries.extend([0, 2]);
        entries.extend((8 + sid.len() as u16).to_le_bytes());
        entries.extend(FULL.to_le_bytes());
        entries.extend(sid);
    }
    let list = 8 + entries.len();
    let mut bytes = vec![1, 0];
    // SE_DACL_PRESENT | SE_SELF_RELATIVE.
    bytes.extend(0x8004u16.to_le_bytes());
    let owner = 20 + list as u32;
    for offset in [owner, owner + 16, 0, 20] {
        bytes.extend(offset.to_le_bytes());
    }
    bytes.extend([2, 0]);
    bytes.extend((list as u16).to_le_bytes());
    bytes.extend(2u32.to_le_bytes());
    bytes.extend(entries);
    bytes.extend(ADMINISTRATORS);
    bytes.extend(SYSTEM);
    bytes
}
