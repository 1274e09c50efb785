//! The `virt` board: assembled, run, reset, stopped.
//!
//! - [`description`]: what is asked for, in plain data.
//! - [`Board`]: its parts, wired and mapped.
//! - [`control`]: processors' threads and what changes the whole machine.

mod board;
pub mod control;
pub mod description;

use std::path::PathBuf;

pub use board::{
    BarEntry, Board, DriveEntry, ImageEntry, MediumError, NetworkEntry, NicEntry, NodeError, Nodes,
    PciEntry, UsbEntry,
};
pub use control::{Handle, Machine};
use engine::{Engine, Features};

/// Processors at most: as many redistributors as the map has room for.
pub const MAX_CPUS: u32 = 512;

/// Why a machine cannot be built, in words for its user.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{} MiB of RAM do not fit: {} MiB at most{}", asked >> 20, most >> 20, if *highmem { "" } else { " with highmem=off" })]
    TooMuchMemory {
        asked: u64,
        most: u64,
        highmem: bool,
    },
    #[error(
        "cannot set up guest memory of {} MiB: Cannot allocate memory\nThis host has {} MiB with its swap: give less with -m", asked >> 20, has >> 20
    )]
    HostMemory { asked: u64, has: u64 },
    #[error(
        "Number of SMP CPUs requested ({asked}) exceeds max CPUs supported by this machine ({most})"
    )]
    TooManyProcessors { asked: u32, most: u32 },
    #[error("an ITS needs GICv3: give gic-version=3, or msi=gicv2m")]
    ItsWithoutGicv3,
    #[error(
        "ACPI tables reach the guest through firmware: give -bios or pflash drives, or leave acpi=force out"
    )]
    AcpiWithoutFirmware,
    #[error("the board needs a power button")]
    NoPowerButton,
    #[error("the board needs a PCIe host bridge")]
    NoPcie,
    #[error("{0}")]
    Accelerator(String),
    #[error("-icount needs -accel jit")]
    IcountWithoutJit,
    #[error("{0}")]
    Cpu(String),
    #[error("the interrupt controller: {0}")]
    Gic(String),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Map(#[from] memory::MapError),
    #[error(transparent)]
    Ram(#[from] memory::RamError),
    #[error(transparent)]
    Flash(#[from] devices::flash::FlashError),
    #[error("the flash drive '{0}' has no file")]
    EmptyFlash(String),
    #[error("the flash drive '{0}' must be a raw image (format=raw)")]
    FlashFormat(String),
    #[error("{error}")]
    Image {
        drive: String,
        error: storage::OpenError,
    },
    #[error("{error}")]
    Node { node: String, error: NodeError },
    #[error(
        "Could not use '{}': the medium has {expected} bytes, the file only {size}: it is cut short\nDownload or copy it again", path.display()
    )]
    ShortMedium {
        path: PathBuf,
        expected: u64,
        size: u64,
    },
    #[error("{name}: {reason}")]
    Device { name: String, reason: String },
    #[error(transparent)]
    Audio(#[from] audio::OpenError),
    #[error("{reason}")]
    Network { id: String, reason: String },
    #[error("{0}")]
    Firmware(String),
    #[error("could not load {what} '{}': {reason}", path.display())]
    Load {
        what: &'static str,
        path: PathBuf,
        reason: String,
    },
}

/// An engine, and why this host does not have it if so.
#[derive(Clone, Debug)]
pub struct Accelerator {
    pub name: &'static str,
    pub available: Result<(), String>,
}

/// Every engine, the best first.
pub fn accelerators() -> Vec<Accelerator> {
    engine::accelerators()
        .into_iter()
        .map(|a| Accelerator {
            name: a.name,
            available: a.unavailable.map_or(Ok(()), Err),
        })
        .collect()
}

/// The first of `wanted` that this host has; with none wanted, the best there is.
fn choose_engine(wanted: &[String]) -> Result<Box<dyn Engine>, BuildError> {
    if wanted.is_empty() {
        return Ok(engine::best());
    }
    let mut refusal = String::new();
    for name in wanted {
        match engine::engine(name) {
            Ok(engine) => return Ok(engine),
            Err(error) if refusal.is_empty() => {
                refusal = format!("invalid accelerator {name}\n{error}")
            }
            Err(_) => {}
        }
    }
    Err(BuildError::Accelerator(refusal))
}

/// CPU models of `-cpu`.
pub fn cpu_models() -> Vec<String> {
    cpu::MODELS
        .iter()
        .map(|m| m.to_string())
        .chain(["host".to_string()])
        .collect()
}

/// Whether there is such a model with such properties.
pub fn check_cpu(model: &str, properties: &[(String, String)]) -> Result<(), BuildError> {
    cpu_features(model, properties).map(drop)
}

fn cpu_features(model: &str, properties: &[(String, String)]) -> Result<Features, BuildError> {
    // Under the translator the host's processor is no Arm: its best is what we have.
    let model = if model == "host" { "max" } else { model };
    let fail = |error: cpu::FeatureError| BuildError::Cpu(error.to_string());
    let mut features = Features::model(model).map_err(fail)?;
    for (property, value) in properties {
        let on = match value.as_str() {
            "on" | "true" | "yes" => true,
            "off" | "false" | "no" => false,
            _ => {
                return Err(BuildError::Cpu(format!(
                    "Property '{property}' of CPU '{model}' takes on or off"
                )));
            }
        };
        features.set(property, on).map_err(fail)?;
    }
    Ok(features)
}

/// An I/O error in the words users know: without the number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_string(),
        None => text,
    }
}

/// The 16 bytes of a UUID in its usual notation.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<_> = text.split('-').collect();
    if groups.iter().map(|g| g.len()).ne([8, 4, 4, 4, 12]) {
        return None;
    }
    let digits = groups.concat();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    digits
        .bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then_some(bytes)
}
