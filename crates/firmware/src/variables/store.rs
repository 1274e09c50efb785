//! The image of flash 1.
//!
//! Three blocks of 256 KiB: variables, the working block of fault-tolerant writes, and its spare. Variables follow each
//! other at multiples of four bytes; a changed one is written anew, and the bits of its old state are cleared.

use super::guid::{self, Guid};

/// The flash device's size, and the image's: as large as it is mapped.
pub const IMAGE: u64 = 64 << 20;
/// A sector of the flash.
const BLOCK: usize = 256 << 10;
/// The volume: variables, working block, spare block.
const VOLUME: usize = 3 * BLOCK;
/// EFI_FIRMWARE_VOLUME_HEADER with a block map of one entry and its end.
const VOLUME_HEADER: usize = 0x48;
const VOLUME_SIGNATURE: &[u8] = b"_FVH";
/// EFI_FVB2: can be read, written and locked, is memory-mapped, and erases to ones.
const VOLUME_ATTRIBUTES: u32 = 0x0000_0e36;
const VOLUME_REVISION: u8 = 2;
/// VARIABLE_STORE_HEADER.
const STORE_HEADER: usize = 28;
/// VARIABLE_STORE_FORMATTED and VARIABLE_STORE_HEALTHY.
const FORMATTED: u8 = 0x5a;
const HEALTHY: u8 = 0xfe;
/// AUTHENTICATED_VARIABLE_HEADER.
const HEADER: usize = 60;
/// VARIABLE_DATA.
const START: u16 = 0x55aa;
/// VAR_ADDED: the bits of a complete variable. Each later state clears one more.
const ADDED: u8 = 0x3f;
/// VAR_IN_DELETED_TRANSITION, as the bit that it clears; VAR_DELETED clears the next.
const IN_DELETED_TRANSITION: u8 = 0x01;

/// EFI_VARIABLE attributes (UEFI Specification 2.10, 8.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(pub u32);

impl Attributes {
    pub const NON_VOLATILE: u32 = 1 << 0;
    pub const BOOTSERVICE_ACCESS: u32 = 1 << 1;
    pub const RUNTIME_ACCESS: u32 = 1 << 2;
    pub const TIME_BASED_AUTHENTICATED: u32 = 1 << 5;
    /// Kept, for firmware only.
    pub const BOOT: Attributes = Attributes(Self::NON_VOLATILE | Self::BOOTSERVICE_ACCESS);
    /// Kept, for the system too.
    pub const RUNTIME: Attributes = Attributes(Self::BOOT.0 | Self::RUNTIME_ACCESS);
    /// Kept, for the system too, changed by signatures only.
    pub const AUTHENTICATED: Attributes =
        Attributes(Self::RUNTIME.0 | Self::TIME_BASED_AUTHENTICATED);
}

/// One variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub vendor: Guid,
    pub attributes: Attributes,
    /// EFI_TIME of the last authenticated write, zeroes without one.
    pub time: [u8; 16],
    /// The monotonic count of the older kind of authenticated writes.
    pub count: u64,
    pub data: Vec<u8>,
}

/// An image that is no variable store, or has no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("this is no UEFI variable store: {0}")]
    NotAStore(&'static str),
    #[error("the variable store is damaged at offset {0:#x}")]
    Damaged(usize),
    #[error("the variables do not fit into the store ({0} bytes too many)")]
    Full(usize),
    #[error("'{0}' is not a name that a variable can have")]
    Name(String),
}

/// The variables of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    variables: Vec<Variable>,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn align(at: usize) -> usize {
    at.next_multiple_of(4)
}

impl Store {
    /// Reads an image. One of zeroes or ones only, which firmware formats itself, has no variables.
    ///
    /// # Errors
    /// It is another kind of image, or damaged.
    pub fn parse(image: &[u8]) -> Result<Store, StoreError> {
        let head = image.get(..VOLUME_HEADER).unwrap_or(image);
        if image.len() >= VOLUME
            && (head.iter().all(|b| *b == 0) || head.iter().all(|b| *b == 0xff))
        {
            return Ok(Store::default());
        }
        let variables = area(image)?;
        let mut store = Store::default();
        let mut at = 0;
        // Those that another write of theirs was under way for: they count if that was not completed.
        let mut superseded = Vec::new();
        while field(variables, at).map(u16::from_le_bytes) == Some(START) {
            let (variable, state, next) = variable(variables, at).ok_or(StoreError::Damaged(at))?;
            match (state, variable) {
                (_, None) => {}
                (ADDED, Some(variable)) => store.put(variable),
                (state, Some(variable)) if state == ADDED & !IN_DELETED_TRANSITION => {
                    superseded.push(variable)
                }
                // Deleted, or never completed.
                _ => {}
            }
            at = next;
        }
        for variable in superseded {
            if store.get(&variable.name, variable.vendor).is_none() {
                store.put(variable);
            }
        }
        Ok(store)
    }

    /// The image: the volume with these variables, blank working blocks behind them. What follows up to [`IMAGE`] is zero.
    ///
    /// # Errors
    /// They do not fit, or a name is none.
    pub fn to_volume(&self) -> Result<Vec<u8>, StoreError> {
        let mut image = volume_header();
        image.extend_from_slice(&guid::AUTHENTICATED_STORE.0);
        image.extend_from_slice(&((BLOCK - VOLUME_HEADER) as u32).to_le_bytes());
        image.extend_from_slice(&[FORMATTED, HEALTHY, 0, 0, 0, 0, 0, 0]);
        for variable in &self.variables {
            put(variable, &mut image)?;
        }
        if image.len() > BLOCK {
            return Err(StoreError::Full(image.len() - BLOCK));
        }
        image.resize(BLOCK, 0xff);
        image.extend(working_block());
        image.resize(VOLUME, 0xff);
        Ok(image)
    }

    /// All variables, in the order they were written.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// A variable by its name and vendor.
    pub fn get(&self, name: &str, vendor: Guid) -> Option<&Variable> {
        self.variables
            .iter()
            .find(|v| v.name == name && v.vendor == vendor)
    }

    /// Adds a variable, in the place of the one of its name and vendor.
    pub fn put(&mut self, variable: Variable) {
        self.remove(&variable.name, variable.vendor);
        self.variables.push(variable);
    }

    /// Removes a variable; whether there was one.
    pub fn remove(&mut self, name: &str, vendor: Guid) -> bool {
        let before = self.variables.len();
        self.variables
            .retain(|v| v.name != name || v.vendor != vendor);
        self.variables.len() < before
    }
}

/// The part of an image that holds variables.
fn area(image: &[u8]) -> Result<&[u8], StoreError> {
    let wrong = StoreError::NotAStore;
    if image.get(0x28..0x2c) != Some(VOLUME_SIGNATURE) {
        return Err(wrong("it does not begin with a firmware volume"));
    }
    if field(image, 0x10) != Some(guid::NV_DATA_VOLUME.0) {
        return Err(wrong("its volume is not for variables"));
    }
    let header = field(image, 0x30)
        .map(u16::from_le_bytes)
        .map_or(0, usize::from);
    let sum = image
        .get(..header & !1)
        .ok_or(wrong("it is cut short"))?
        .chunks_exact(2)
        .fold(0u16, |sum, pair| {
            sum.wrapping_add(u16::from_le_bytes([pair[0], pair[1]]))
        });
    if header < VOLUME_HEADER || sum != 0 {
        return Err(wrong("its volume's checksum is wrong"));
    }
    if field(image, header) != Some(guid::AUTHENTICATED_STORE.0) {
        return Err(wrong("its variables are not authenticated ones"));
    }
    let size = u32_at(image, header + 16).unwrap_or(0) as usize;
    if field(image, header + 20) != Some([FORMATTED, HEALTHY]) {
        return Err(wrong("its store is not formatted"));
    }
    // Offsets in it are multiples of four from the image's start.
    let start = header + STORE_HEADER;
    match header.checked_add(size) {
        Some(end) if size >= STORE_HEADER => image.get(start..end).ok_or(wrong("it is cut short")),
        _ => Err(wrong("its store's size is wrong")),
    }
}

/// The variable at an offset (`None` if its name is none), its state, and where the next one is.
fn variable(area: &[u8], at: usize) -> Option<(Option<Variable>, u8, usize)> {
    let state = *area.get(at + 2)?;
    let attributes = Attributes(u32_at(area, at + 4)?);
    let count = u64::from_le_bytes(field(area, at + 8)?);
    let time = field(area, at + 16)?;
    let (name_size, data_size) = (
        u32_at(area, at + 36)? as usize,
        u32_at(area, at + 40)? as usize,
    );
    let vendor = Guid(field(area, at + 44)?);
    let name_end = (at + HEADER).checked_add(name_size)?;
    let data_end = name_end.checked_add(data_size)?;
    let name = area.get(at + HEADER..name_end)?;
    let data = area.get(name_end..data_end)?.to_vec();
    let units: Vec<u16> = name
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    let variable = String::from_utf16(&units).ok().map(|name| Variable {
        name,
        vendor,
        attributes,
        time,
        count,
        data,
    });
    Some((variable, state, align(data_end)))
}

fn put(variable: &Variable, image: &mut Vec<u8>) -> Result<(), StoreError> {
    let name: Vec<u8> = variable
        .name
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect();
    if variable.name.is_empty() || variable.name.contains('\0') || name.len() > 2048 {
        return Err(StoreError::Name(variable.name.clone()));
    }
    image.extend_from_slice(&START.to_le_bytes());
    image.extend_from_slice(&[ADDED, 0]);
    image.extend_from_slice(&variable.attributes.0.to_le_bytes());
    image.extend_from_slice(&variable.count.to_le_bytes());
    image.extend_from_slice(&variable.time);
    // The index of a public key, of the older kind of authenticated writes.
    image.extend_from_slice(&[0; 4]);
    image.extend_from_slice(&(name.len() as u32).to_le_bytes());
    image.extend_from_slice(&(variable.data.len() as u32).to_le_bytes());
    image.extend_from_slice(&variable.vendor.0);
    image.extend_from_slice(&name);
    image.extend_from_slice(&variable.data);
    image.resize(align(image.len()), 0xff);
    Ok(())
}

fn volume_header() -> Vec<u8> {
    let mut header = vec![0; 16];
    header.extend_from_slice(&guid::NV_DATA_VOLUME.0);
    header.extend_from_slice(&(VOLUME as u64).to_le_bytes());
    header.extend_from_slice(VOLUME_SIGNATURE);
    header.extend_from_slice(&VOLUME_ATTRIBUTES.to_le_bytes());
    header.extend_from_slice(&(VOLUME_HEADER as u16).to_le_bytes());
    let checksum = header.len();
    header.extend_from_slice(&[0, 0, 0, 0, 0, VOLUME_REVISION]);
    // The block map: the whole flash, in sectors, then its end.
    header.extend_from_slice(&((IMAGE as usize / BLOCK) as u32).to_le_bytes());
    header.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    let sum = header.chunks_exact(2).fold(0u16, |sum, pair| {
        sum.wrapping_add(u16::from_le_bytes([pair[0], pair[1]]))
    });
    header[checksum..checksum + 2].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    header
}

/// EFI_FAULT_TOLERANT_WORKING_BLOCK_HEADER of an empty queue. Its checksum is of the header before the checksum and the
/// valid bit (bit 0 of the flags, cleared when valid) are written.
fn working_block() -> Vec<u8> {
    let queue = ((BLOCK - 32) as u64).to_le_bytes();
    let mut crc = flate2::Crc::new();
    crc.update(&guid::WORKING_BLOCK.0);
    crc.update(&[0xff; 8]);
    crc.update(&queue);
    let mut header = guid::WORKING_BLOCK.0.to_vec();
    header.extend_from_slice(&crc.sum().to_le_bytes());
    header.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
    header.extend_from_slice(&queue);
    header
}
