//! ISO 9660 level 1 with Joliet (ECMA-119; "Joliet Specification", Microsoft, 1.0).

use super::{Files, Folder, Item, short_name};
use crate::error::{Error, Result};

const SECTOR: usize = 2048;
/// Descriptors lie here: primary, Joliet, terminator; then path tables and folders.
const FIRST_FREE: usize = 19;

/// One folder of the tree, flat: breadth first, as path tables want it.
struct Flat<'a> {
    parent: usize,
    name: &'a str,
    short: String,
    files: Vec<(&'a str, String, &'a [u8], usize)>,
    folders: Vec<usize>,
}

/// The volume's bytes. `label` has 16 characters at most in Joliet; ISO 9660 takes its letters and digits.
pub fn iso(label: &str, files: &Files) -> Result<Vec<u8>> {
    let folders = flatten(&files.0)?;
    // Both sets of names: folders' sectors, then the files' once.
    let mut next = FIRST_FREE;
    let mut place = |length: usize| {
        let at = next;
        next += length.div_ceil(SECTOR).max(1);
        at
    };
    let mut sets = Vec::new();
    for joliet in [false, true] {
        let table_length: usize = folders
            .iter()
            .map(|f| {
                8 + identifier(f.short.as_str(), f.name, joliet)
                    .len()
                    .next_multiple_of(2)
            })
            .sum();
        let tables = [place(table_length), place(table_length)];
        let sizes: Vec<usize> = (0..folders.len())
            .map(|index| folder_size(&folders, index, joliet))
            .collect();
        let places: Vec<usize> = sizes.iter().map(|size| place(*size)).collect();
        sets.push((joliet, table_length, tables, sizes, places));
    }
    let mut file_places = Vec::new();
    for folder in &folders {
        file_places.push(
            folder
                .files
                .iter()
                .map(|(_, _, bytes, _)| {
                    if bytes.is_empty() {
                        0
                    } else {
                        place(bytes.len())
                    }
                })
                .collect::<Vec<_>>(),
        );
    }
    let sectors = next;
    if sectors > u32::MAX as usize / SECTOR {
        return Err(Error::Unsupported("a volume of 4 GiB or more".into()));
    }
    let mut image = vec![0; sectors * SECTOR];
    for (index, (joliet, table_length, tables, sizes, places)) in sets.iter().enumerate() {
        let descriptor = descriptor(
            label,
            *joliet,
            sectors,
            *table_length,
            *tables,
            places[0],
            sizes[0],
        );
        let at = (16 + index) * SECTOR;
        image[at..at + SECTOR].copy_from_slice(&descriptor);
        for (table, big) in tables.iter().zip([false, true]) {
            let bytes = path_table(&folders, places, *joliet, big);
            image[table * SECTOR..table * SECTOR + bytes.len()].copy_from_slice(&bytes);
        }
        for (number, folder) in folders.iter().enumerate() {
            let mut bytes = Vec::new();
            let own = (places[number], sizes[number]);
            let parent = (places[folder.parent], sizes[folder.parent]);
            push(&mut bytes, &record(&[0], own.0, own.1, true));
            push(&mut bytes, &record(&[1], parent.0, parent.1, true));
            let mut records = Vec::new();
            for &child in &folder.folders {
                let name = identifier(&folders[child].short, folders[child].name, *joliet);
                records.push((
                    name.clone(),
                    record(&name, places[child], sizes[child], true),
                ));
            }
            for (file, place) in folder.files.iter().zip(&file_places[number]) {
                let name = file_identifier(&file.1, file.0, *joliet);
                records.push((name.clone(), record(&name, *place, file.2.len(), false)));
            }
            // Readers may search with the order of names (9.3).
            records.sort();
            for (_, record) in &records {
                push(&mut bytes, record);
            }
            let at = places[number] * SECTOR;
            image[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }
    let end = (16 + 2) * SECTOR;
    image[end..end + 7].copy_from_slice(b"\xFFCD001\x01");
    for (folder, places) in folders.iter().zip(&file_places) {
        for (file, place) in folder.files.iter().zip(places) {
            let at = place * SECTOR;
            if !file.2.is_empty() {
                image[at..at + file.2.len()].copy_from_slice(file.2);
            }
        }
    }
    Ok(image)
}

fn flatten(root: &Folder) -> Result<Vec<Flat<'_>>> {
    let mut folders = vec![Flat {
        parent: 0,
        name: "",
        short: String::new(),
        files: Vec::new(),
        folders: Vec::new(),
    }];
    let mut sources = vec![root];
    let mut index = 0;
    while index < folders.len() {
        let mut taken = Vec::new();
        for (name, item) in &sources[index].entries {
            let (short, _) = short_name(name, &mut taken);
            match item {
                Item::File(bytes) => {
                    if u32::try_from(bytes.len()).is_err() {
                        return Err(Error::Unsupported(format!("{name} is 4 GiB or more")));
                    }
                    let order = folders[index].files.len();
                    folders[index].files.push((name, short, bytes, order));
                }
                Item::Folder(folder) => {
                    let child = folders.len();
                    folders[index].folders.push(child);
                    folders.push(Flat {
                        parent: index,
                        name,
                        short: short.replace('.', "_"),
                        files: Vec::new(),
                        folders: Vec::new(),
                    });
                    sources.push(folder);
                }
            }
        }
        index += 1;
        if folders.len() > usize::from(u16::MAX) {
            return Err(Error::Unsupported("more than 65535 folders".into()));
        }
    }
    Ok(folders)
}

/// A folder's identifier; the top one's is a zero byte.
fn identifier(short: &str, name: &str, joliet: bool) -> Vec<u8> {
    match (name.is_empty(), joliet) {
        (true, _) => vec![0],
        (false, true) => name.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        (false, false) => short.bytes().map(plain_character).collect(),
    }
}

fn file_identifier(short: &str, name: &str, joliet: bool) -> Vec<u8> {
    if joliet {
        return format!("{name};1")
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
    }
    let dot = if short.contains('.') { "" } else { "." };
    let mut bytes: Vec<u8> = short
        .bytes()
        .map(|b| if b == b'.' { b } else { plain_character(b) })
        .collect();
    bytes.extend(dot.bytes());
    bytes.extend(b";1");
    bytes
}

/// ISO 9660 has capital letters, digits and the underscore.
fn plain_character(byte: u8) -> u8 {
    if byte.is_ascii_uppercase() || byte.is_ascii_digit() {
        byte
    } else {
        b'_'
    }
}

/// Bytes of a folder: records do not straddle sectors.
fn folder_size(folders: &[Flat<'_>], index: usize, joliet: bool) -> usize {
    let folder = &folders[index];
    let mut names: Vec<Vec<u8>> = folder
        .folders
        .iter()
        .map(|&child| identifier(&folders[child].short, folders[child].name, joliet))
        .chain(
            folder
                .files
                .iter()
                .map(|f| file_identifier(&f.1, f.0, joliet)),
        )
        .collect();
    names.sort();
    let mut size: usize = 2 * 34;
    for name in names {
        let length = record_length(name.len());
        if size % SECTOR + length > SECTOR {
            size = size.next_multiple_of(SECTOR);
        }
        size += length;
    }
    size.next_multiple_of(SECTOR)
}

fn record_length(name: usize) -> usize {
    (33 + name).next_multiple_of(2)
}

/// Appends a record, to the next sector if it does not fit this one.
fn push(bytes: &mut Vec<u8>, record: &[u8]) {
    if bytes.len() % SECTOR + record.len() > SECTOR {
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    }
    bytes.extend(record);
}

/// 1 January 2024: volumes of the same files are the same bytes.
const DATE: [u8; 7] = [124, 1, 1, 0, 0, 0, 0];
const LONG_DATE: &[u8; 17] = b"2024010100000000\0";

fn both32(value: usize) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&(value as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(value as u32).to_be_bytes());
    bytes
}

fn both16(value: u16) -> [u8; 4] {
    let [a, b] = value.to_le_bytes();
    [a, b, b, a]
}

pub(super) fn record(name: &[u8], place: usize, length: usize, folder: bool) -> Vec<u8> {
    let mut bytes = vec![record_length(name.len()) as u8, 0];
    bytes.extend(both32(place));
    bytes.extend(both32(length));
    bytes.extend(DATE);
    bytes.extend([if folder { 2 } else { 0 }, 0, 0]);
    bytes.extend(both16(1));
    bytes.push(name.len() as u8);
    bytes.extend(name);
    bytes.resize(record_length(name.len()), 0);
    bytes
}

fn path_table(folders: &[Flat<'_>], places: &[usize], joliet: bool, big: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (folder, place) in folders.iter().zip(places) {
        let name = identifier(&folder.short, folder.name, joliet);
        bytes.extend([name.len() as u8, 0]);
        let (place, parent) = (*place as u32, folder.parent as u16 + 1);
        if big {
            bytes.extend(place.to_be_bytes());
            bytes.extend(parent.to_be_bytes());
        } else {
            bytes.extend(place.to_le_bytes());
            bytes.extend(parent.to_le_bytes());
        }
        bytes.extend(&name);
        if name.len() % 2 == 1 {
            bytes.push(0);
        }
    }
    bytes
}

pub(super) fn descriptor(
    label: &str,
    joliet: bool,
    sectors: usize,
    table_length: usize,
    tables: [usize; 2],
    root: usize,
    root_size: usize,
) -> Vec<u8> {
    let mut bytes = vec![if joliet { 2 } else { 1 }];
    bytes.extend(b"CD001\x01\0");
    let text = |text: &str, length: usize| -> Vec<u8> {
        if joliet {
            let mut bytes: Vec<u8> = text
                .encode_utf16()
                .take(length / 2)
                .flat_map(u16::to_be_bytes)
                .collect();
            while bytes.len() + 1 < length {
                bytes.extend([0, b' ']);
            }
            bytes.resize(length, 0);
            bytes
        } else {
            let mut bytes: Vec<u8> = text
                .bytes()
                .take(length)
                .map(|b| plain_character(b.to_ascii_uppercase()))
                .collect();
            bytes.resize(length, b' ');
            bytes
        }
    };
    bytes.extend(text("", 32));
    bytes.extend(text(label, 32));
    bytes.extend([0; 8]);
    bytes.extend(both32(sectors));
    let mut escape = [0; 32];
    if joliet {
        // UCS-2 level 3.
        escape[..3].copy_from_slice(b"%/E");
    }
    bytes.extend(escape);
    bytes.extend(both16(1));
    bytes.extend(both16(1));
    bytes.extend(both16(SECTOR as u16));
    bytes.extend(both32(table_length));
    bytes.extend((tables[0] as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((tables[1] as u32).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(record(&[0], root, root_size, true));
    for length in [128, 128, 128, 128, 37, 37, 37] {
        bytes.extend(text("", length));
    }
    bytes.extend(LONG_DATE);
    bytes.extend(LONG_DATE);
    bytes.extend(b"0000000000000000\0");
    bytes.extend(b"0000000000000000\0");
    bytes.push(1);
    bytes.resize(SECTOR, 0);
    bytes
}
