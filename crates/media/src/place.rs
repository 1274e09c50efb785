//! Names of what lies within files: `win.iso`, `win.iso:sources/boot.wim#2`, `disk.qcow2#1`.
//!
//! A colon goes into a file of the tree so far; `#` chooses one of several trees: an image of a WIM by its number or name, a
//! partition of a disk, or `udf`, `joliet`, `iso` on a disc.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fat::Fat;
use crate::filesystem::{self, FileSystem};
use crate::iso::Descriptors;
use crate::partition;
use crate::source::{DiskSource, FileSource, Shared};
use crate::udf::Udf;
use crate::wim::Wim;

/// The tree that a name stands for.
pub fn open(name: &str) -> Result<Box<dyn FileSystem>> {
    let (source, mut rest) = file(name)?;
    let mut image = None;
    if let Some(after) = rest.strip_prefix('#') {
        let end = after.find(':').unwrap_or(after.len());
        image = Some(&after[..end]);
        rest = &after[end..];
    }
    let mut system = tree(source, image)?;
    for step in rest.split(':').skip(1) {
        let (inner, image) = inner(system.as_ref(), step)?;
        system = tree(inner, image)?;
    }
    Ok(system)
}

/// The bytes that a name stands for, which must not end in `#`.
pub fn open_file(name: &str) -> Result<Shared> {
    let (source, rest) = file(name)?;
    if rest.is_empty() {
        return Ok(source);
    }
    let (container, inside) = match rest.rsplit_once(':') {
        Some((before, inside)) => (&name[..name.len() - rest.len() + before.len()], inside),
        None => {
            return Err(Error::Unsupported(format!(
                "{name} is a tree; name a file in it after a colon"
            )));
        }
    };
    filesystem::open(open(container)?.as_ref(), inside)
}

/// The file of the host that a name begins with, and the rest of the name.
fn file(name: &str) -> Result<(Shared, &str)> {
    let marks = name.char_indices().filter(|(_, c)| matches!(c, ':' | '#'));
    // A file's own name may have those characters.
    let longest = marks
        .map(|(at, _)| at)
        .chain([name.len()])
        .rfind(|end| Path::new(&name[..*end]).is_file());
    let at = longest.unwrap_or_else(|| name.find([':', '#']).unwrap_or(name.len()));
    Ok((host_file(Path::new(&name[..at]))?, &name[at..]))
}

/// A file of the host; what is a disk image is the disk.
pub fn host_file(path: &Path) -> Result<Shared> {
    let source: Shared = Arc::new(FileSource::open(path)?);
    if crate::inspect::container_format(&source)?.is_none() {
        return Ok(source);
    }
    let mut options = storage::ImageOptions::new(path);
    options.read_only = true;
    let disk = storage::open(&options).map_err(|error| Error::Unsupported(error.to_string()))?;
    Ok(Arc::new(DiskSource(disk)))
}

fn inner<'a>(system: &dyn FileSystem, step: &'a str) -> Result<(Shared, Option<&'a str>)> {
    match filesystem::open(system, step) {
        Err(Error::NotFound(missing)) => match step.rsplit_once('#') {
            Some((path, image)) => Ok((filesystem::open(system, path)?, Some(image))),
            None => Err(Error::NotFound(missing)),
        },
        result => Ok((result?, None)),
    }
}

/// The tree in a file. `choice` is what follows the `#`.
pub fn tree(source: Shared, choice: Option<&str>) -> Result<Box<dyn FileSystem>> {
    let start = source.read_up_to(0, 4096)?;
    if Wim::probe(&start) {
        return wim_image(&Wim::open(source)?, choice);
    }
    let descriptors = Descriptors::read(&source)?;
    if descriptors.any() {
        return disc(&source, descriptors, choice);
    }
    if Fat::probe(&start) && choice.is_none() {
        return Ok(Box::new(Fat::read(source)?));
    }
    match partition::read(&source)? {
        Some(partitions) => in_partition(&source, &partitions, choice),
        None => Err(Error::Unsupported(
            match start.get(3..11) {
                Some(b"NTFS    ") => "an NTFS volume: its files cannot be read yet",
                Some(b"EXFAT   ") => "an exFAT volume: its files cannot be read yet",
                _ => {
                    "no file system that Dormer reads (ISO 9660, UDF, FAT, WIM) and no partition table"
                }
            }
            .into(),
        )),
    }
}

/// The tree of a disc that has everything: UDF, then ISO 9660 with names of Rock Ridge, Joliet, plain ISO 9660.
pub fn disc(
    source: &Shared,
    descriptors: Descriptors,
    choice: Option<&str>,
) -> Result<Box<dyn FileSystem>> {
    let Descriptors {
        primary,
        joliet,
        udf,
        ..
    } = descriptors;
    let missing = |what: &str| Error::NotFound(format!("{what} on this disc"));
    match choice.map(str::to_ascii_lowercase).as_deref() {
        Some("udf") if udf => Ok(Box::new(Udf::read(source)?)),
        Some("udf") => Err(missing("UDF")),
        Some("joliet") => Ok(Box::new(joliet.ok_or_else(|| missing("Joliet"))?)),
        Some("iso") => Ok(Box::new(primary.ok_or_else(|| missing("ISO 9660"))?)),
        Some(other) => Err(Error::Unsupported(format!(
            "#{other}: a disc has udf, joliet and iso to choose from"
        ))),
        None => {
            let mut failed = None;
            if udf {
                match Udf::read(source) {
                    Ok(udf) => return Ok(Box::new(udf)),
                    Err(error) => failed = Some(error),
                }
            }
            match (primary, joliet) {
                (Some(volume), _) if volume.rock_ridge => Ok(Box::new(volume)),
                (_, Some(volume)) => Ok(Box::new(volume)),
                (Some(volume), None) => Ok(Box::new(volume)),
                (None, None) => Err(failed.unwrap_or_else(|| missing("a file system"))),
            }
        }
    }
}

fn wim_image(wim: &Arc<Wim>, choice: Option<&str>) -> Result<Box<dyn FileSystem>> {
    let index = match choice {
        Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => number
            .parse()
            .map_err(|_| Error::NotFound(format!("image {number}")))?,
        None if wim.header.images == 1 => 1,
        other => {
            let images = wim.information()?;
            let named = |name: &str| {
                images.iter().find(|i| {
                    let is = |own: &Option<String>| {
                        own.as_deref().is_some_and(|o| o.eq_ignore_ascii_case(name))
                    };
                    is(&i.name) || is(&i.display_name) || is(&i.edition)
                })
            };
            match other.map(named) {
                Some(Some(image)) => image.index,
                _ => {
                    let list: Vec<String> = images
                        .iter()
                        .map(|i| format!("#{} {}", i.index, i.name.as_deref().unwrap_or("")))
                        .collect();
                    let what = match other {
                        Some(name) => format!("there is no image #{name}"),
                        None => "it holds several images".into(),
                    };
                    return Err(Error::Unsupported(format!(
                        "{what}; choose one of {}",
                        list.join(", ")
                    )));
                }
            }
        }
    };
    Ok(Box::new(wim.image(index)?))
}

fn in_partition(
    disk: &Shared,
    partitions: &[partition::Partition],
    choice: Option<&str>,
) -> Result<Box<dyn FileSystem>> {
    let chosen = match choice {
        Some(number) => partitions.iter().find(|p| p.number.to_string() == number),
        None if partitions.len() == 1 => partitions.first(),
        None => None,
    };
    let Some(chosen) = chosen else {
        let list: Vec<String> = partitions
            .iter()
            .map(|p| {
                format!("#{} {} {}", p.number, p.kind, p.name)
                    .trim_end()
                    .into()
            })
            .collect();
        return Err(Error::Unsupported(format!(
            "this disk has partitions; choose one of {}",
            list.join(", ")
        )));
    };
    let contents = chosen.contents(disk)?;
    let start = contents.read_up_to(0, 4096)?;
    if partition::read(&contents)?.is_some() && !Fat::probe(&start) {
        return Err(Error::Unsupported(
            "a partition with a partition table inside".into(),
        ));
    }
    tree(contents, None)
}
