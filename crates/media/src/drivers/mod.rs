//! Drivers on a medium such as virtio-win: which INF serves a device, a version of Windows and a processor.

mod inf;
#[cfg(test)]
mod tests;

pub use inf::{Inf, Model};
use std::collections::HashMap;

use serde::Serialize;

use crate::error::Result;
use crate::filesystem::{self, Entry, FileSystem};
use crate::pe::Pe;

/// Bytes of an INF beyond which it is not one.
const INF: u64 = 4 << 20;

/// A driver package: a folder with an INF.
#[derive(Clone, Debug, Serialize)]
pub struct Driver {
    /// The INF's path on the medium.
    pub inf: String,
    /// Its folder, to give to Windows.
    pub folder: String,
    /// The folders above, from the top: on virtio-win the driver, the version of Windows and the processor.
    pub driver: Option<String>,
    pub windows: Option<String>,
    pub architecture: Option<String>,
    pub class: Option<String>,
    pub provider: Option<String>,
    /// `DriverVer`: the date as it is written, and the version.
    pub date: Option<String>,
    pub version: Option<String>,
    /// The catalog's path, if it is there.
    pub catalog: Option<String>,
    pub binaries: Vec<Binary>,
    pub models: Vec<Model>,
}

/// A `.sys` beside the INF.
#[derive(Clone, Debug, Serialize)]
pub struct Binary {
    pub path: String,
    #[serde(flatten)]
    pub pe: Option<Pe>,
}

/// All driver packages of a tree.
pub fn find_all(system: &dyn FileSystem) -> Result<Vec<Driver>> {
    let mut files = Vec::new();
    filesystem::walk(system, system.root(), &mut |path, entry| {
        if !entry.is_directory() {
            files.push((path.to_string(), entry.clone()));
        }
        Ok(())
    })?;
    let ends = |path: &str, end: &str| path.to_ascii_lowercase().ends_with(end);
    let folder_of = |path: &str| path.rsplit_once('/').map_or(0, |(folder, _)| folder.len());
    let mut by_folder: HashMap<&str, Vec<&(String, Entry)>> = HashMap::new();
    for file in &files {
        let folder = &file.0[..folder_of(&file.0)];
        by_folder.entry(folder).or_default().push(file);
    }
    let mut drivers = Vec::new();
    for (path, entry) in files.iter().filter(|(path, _)| ends(path, ".inf")) {
        let text = system.open(entry.node)?.read_all(path, INF)?;
        let inf = Inf::parse(&text);
        let folder = &path[..folder_of(path)];
        let beside = by_folder.get(folder).map_or(&[][..], Vec::as_slice);
        let mut binaries = Vec::new();
        for (path, entry) in beside.iter().filter(|(path, _)| ends(path, ".sys")) {
            binaries.push(Binary {
                path: path.clone(),
                pe: Pe::read(&system.open(entry.node)?).ok(),
            });
        }
        let named = |name: &str| {
            beside
                .iter()
                .find(|(path, _)| {
                    path.rsplit('/')
                        .next()
                        .is_some_and(|n| n.eq_ignore_ascii_case(name))
                })
                .map(|file| file.0.clone())
        };
        let parts: Vec<&str> = folder.split('/').collect();
        let part = |index: usize| {
            (parts.len() == 3)
                .then(|| parts.get(index).map(ToString::to_string))
                .flatten()
        };
        drivers.push(Driver {
            folder: folder.to_string(),
            driver: part(0),
            windows: part(1),
            architecture: part(2),
            class: inf.version("Class"),
            provider: inf.version("Provider"),
            date: inf.driver_version().map(|(date, _)| date),
            version: inf.driver_version().map(|(_, version)| version),
            catalog: inf.catalog().and_then(|name| named(&name)),
            binaries,
            models: inf.models(),
            inf: path.clone(),
        });
    }
    drivers.sort_by(|a, b| a.inf.cmp(&b.inf));
    Ok(drivers)
}

impl Driver {
    /// Whether its INF names a device for a processor, such as `PCI\VEN_1AF4&DEV_1001` for `arm64`. An identifier with more
    /// parts (subsystem, revision) is served by an INF that names fewer of them.
    pub fn serves(&self, device: &str, architecture: &str) -> bool {
        let device = device.to_ascii_uppercase();
        self.models.iter().any(|model| {
            let id = model.id.to_ascii_uppercase();
            let same = device == id || device.starts_with(&format!("{id}&"));
            same && model.is_for(architecture)
        })
    }
}

/// The packages for a device, a version of Windows (as the medium's folders name it: `w11`) and a processor (`arm64`), the newest
/// first. Only signed packages whose binaries are for that processor count.
pub fn select<'a>(
    drivers: &'a [Driver],
    device: &str,
    windows: &str,
    architecture: &str,
) -> Vec<&'a Driver> {
    let is = |there: &Option<String>, wanted: &str| {
        there
            .as_deref()
            .is_some_and(|name| name.eq_ignore_ascii_case(wanted))
    };
    let mut found: Vec<&Driver> = drivers
        .iter()
        .filter(|d| {
            is(&d.windows, windows)
                && is(&d.architecture, architecture)
                && d.catalog.is_some()
                && d.serves(device, architecture)
                && d.binaries.iter().all(|b| {
                    b.pe.as_ref()
                        .is_some_and(|pe| pe.machine.to_string().eq_ignore_ascii_case(architecture))
                })
        })
        .collect();
    found.sort_by_key(|d| std::cmp::Reverse(numbers(d.version.as_deref().unwrap_or_default())));
    found
}

fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|n| n.parse().unwrap_or(0)).collect()
}
