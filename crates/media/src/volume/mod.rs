//! Small volumes made from files: what the installer hands to Windows Setup, the boot image of a medium, and whole media.

mod bridge;
mod fat;
mod iso;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use bridge::Bridge;
pub use fat::fat;
pub use iso::iso;

use crate::error::{Error, Result};
use crate::filesystem::names;

/// Files by their paths, with `/` between names.
#[derive(Clone, Debug, Default)]
pub struct Files(Folder);

/// A folder of a volume to be made.
#[derive(Clone, Debug, Default)]
struct Folder {
    entries: BTreeMap<String, Item>,
}

#[derive(Clone, Debug)]
enum Item {
    File(Vec<u8>),
    Folder(Folder),
}

impl Files {
    pub fn new() -> Files {
        Files::default()
    }

    /// Adds a file and the folders above it.
    pub fn add(&mut self, path: &str, contents: impl Into<Vec<u8>>) -> Result<()> {
        let refused = |why: &str| Error::Unsupported(format!("{path}: {why}"));
        let mut parts: Vec<&str> = names(path).collect();
        let name = parts.pop().ok_or_else(|| refused("a file needs a name"))?;
        let mut folder = &mut self.0;
        for part in parts.iter().chain([&name]) {
            if part.encode_utf16().count() > 64 {
                return Err(refused(
                    "names of more than 64 characters do not fit Joliet",
                ));
            }
            if part.contains(['*', '?', ':', '"', '<', '>', '|', ';']) || *part == ".." {
                return Err(refused("Windows does not take such a name"));
            }
        }
        for part in parts {
            // Windows does not tell names apart by case.
            let key = existing(folder, part);
            folder = match folder
                .entries
                .entry(key)
                .or_insert_with(|| Item::Folder(Folder::default()))
            {
                Item::Folder(inner) => inner,
                Item::File(_) => return Err(refused("a file is in the place of a folder")),
            };
        }
        let key = existing(folder, name);
        if matches!(folder.entries.get(&key), Some(Item::Folder(_))) {
            return Err(refused("a folder has that name"));
        }
        folder.entries.insert(key, Item::File(contents.into()));
        Ok(())
    }
}

/// The name that a folder has for `name`, whatever its case.
fn existing(folder: &Folder, name: &str) -> String {
    let wanted = name.to_lowercase();
    folder
        .entries
        .keys()
        .find(|key| key.to_lowercase() == wanted)
        .map_or_else(|| name.to_string(), Clone::clone)
}

/// A short name of 8 + 3 characters that no other in `taken` has; the name itself if it is one.
fn short_name(name: &str, taken: &mut Vec<String>) -> (String, bool) {
    let fits = |part: &str, length: usize| {
        part.len() <= length
            && part.bytes().all(|b| {
                b.is_ascii_uppercase() || b.is_ascii_digit() || b"_-~!#$%&@^()".contains(&b)
            })
    };
    let (base, extension) = match name.rsplit_once('.') {
        Some((base, extension)) if !base.is_empty() => (base, extension),
        _ => (name, ""),
    };
    if !base.is_empty() && fits(base, 8) && fits(extension, 3) && !taken.contains(&name.to_string())
    {
        taken.push(name.to_string());
        return (name.to_string(), true);
    }
    let clean = |part: &str, length: usize| -> String {
        part.chars()
            .filter(|c| *c != ' ' && *c != '.')
            .map(|c| {
                let c = c.to_ascii_uppercase();
                if c.is_ascii_uppercase() || c.is_ascii_digit() {
                    c
                } else {
                    '_'
                }
            })
            .take(length)
            .collect()
    };
    let (base, extension) = (clean(base, 8), clean(extension, 3));
    let mut number = 1u32;
    loop {
        let tail = format!("~{number}");
        let head: String = base.chars().take(8 - tail.len()).collect();
        let short = if extension.is_empty() {
            format!("{head}{tail}")
        } else {
            format!("{head}{tail}.{extension}")
        };
        if !taken.contains(&short) {
            taken.push(short.clone());
            return (short, false);
        }
        number += 1;
    }
}
