//! What firmware and kernels find: fw_cfg, the device tree, images in RAM.

use std::path::Path;
use std::sync::Arc;

use devices::flash;
use devices::fw_cfg::FwCfg;
use firmware::board::Range;
use firmware::boot_order::{self, BootDevice};
use firmware::loader::{self, Kernel, Segment};
use firmware::{acpi, fdt, images, smbios};
use memory::Ram;

use crate::BuildError;
use crate::description::Description;

/// fw_cfg keys (QEMU Firmware Configuration Device, "Selector values").
mod key {
    pub const RAM_SIZE: u16 = 0x03;
    pub const CPUS: u16 = 0x05;
}

/// A device tree may grow to this with a long command line.
const LARGEST_TREE: u64 = 1 << 20;

/// Bytes that are in RAM at each start, and zeroes after them.
pub struct Placed {
    pub address: u64,
    pub bytes: Arc<[u8]>,
    pub zeroes: u64,
}

/// How the first processor starts, and what is in RAM then.
pub struct Boot {
    pub images: Vec<Placed>,
    pub entry: u64,
    pub x0: u64,
    /// The tree as the guest finds it.
    pub device_tree: Arc<[u8]>,
}

/// Reads the image for `-bios`, by its path or its name in the usual places.
pub fn bios(name: &Path) -> Result<Vec<u8>, BuildError> {
    if name.is_dir() {
        return read("firmware", name);
    }
    let missing =
        |_| BuildError::Firmware(format!("Could not find ROM image '{}'", name.display()));
    let path = images::Host::this()
        .rom(&name.to_string_lossy(), &[])
        .map_err(missing)?;
    let size = std::fs::metadata(&path).map_or(0, |m| m.len());
    if size > flash::SIZE {
        return Err(BuildError::Load {
            what: "firmware",
            reason: format!(
                "it has {size} bytes, which is more than the flash's {}",
                flash::SIZE
            ),
            path,
        });
    }
    read("firmware", &path)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, BuildError> {
    let fail = |reason: String| BuildError::Load {
        what,
        path: path.into(),
        reason,
    };
    if path.is_dir() {
        return Err(fail("it is a directory".into()));
    }
    std::fs::read(path).map_err(|error| fail(crate::reason(&error)))
}

/// Fills fw_cfg and lays out RAM.
pub fn prepare(
    description: &Description,
    layout: &firmware::Board,
    tables: bool,
    fw_cfg: &FwCfg,
    order: &[BootDevice],
    ram: &Ram,
) -> Result<Boot, BuildError> {
    let failed = |error: devices::fw_cfg::ItemError| BuildError::Firmware(error.to_string());
    let file = |name: &str, bytes: Vec<u8>| fw_cfg.add_file(name, bytes).map_err(failed);
    fw_cfg
        .set_item(key::RAM_SIZE, layout.ram_size().to_le_bytes().to_vec())
        .map_err(failed)?;
    fw_cfg
        .set_item(key::CPUS, (description.cpus as u16).to_le_bytes().to_vec())
        .map_err(failed)?;
    if tables {
        for (name, bytes) in acpi::files(layout) {
            file(name, bytes)?;
        }
    }
    for (name, bytes) in smbios::files(layout, &smbios_config(description)?) {
        file(name, bytes)?;
    }
    if !order.is_empty() {
        file(boot_order::FILE, boot_order::file(order))?;
    }
    if let Some(wait) = description.boot_menu_timeout {
        file(boot_order::MENU_WAIT, wait.to_le_bytes().to_vec())?;
    }
    for (name, bytes) in &description.fw_cfg {
        file(name, bytes.clone())?;
    }
    let kernel = match &description.kernel {
        Some(path) => Some((path, read("kernel", path)?)),
        None => None,
    };
    let initrd: Option<Arc<[u8]>> = match &description.initrd {
        Some(path) => Some(read("initrd", path)?.into()),
        None => None,
    };
    let mut chosen = fdt::Chosen {
        bootargs: description.append.clone(),
        ..Default::default()
    };
    if description.dtb_randomness {
        let mut random = Random {
            seed: description.seed,
        };
        chosen.kaslr_seed = Some(u64::from_le_bytes(random.bytes()?));
        chosen.rng_seed = Some(random.bytes()?);
    }
    let has_firmware = description.bios.is_some() || description.pflash[0].is_some();
    let range = Range::new(firmware::Board::RAM_BASE, ram.size());
    let Some((path, file)) = kernel.filter(|_| !has_firmware) else {
        if has_firmware && let Some(path) = &description.kernel {
            let fail = |e: loader::LoadError| load(path, e);
            let file = read("kernel", path)?;
            let items =
                loader::fw_cfg_items(Some(file.into()), initrd, description.append.as_deref());
            for (key, bytes) in items.map_err(fail)? {
                fw_cfg.set_item(key, bytes).map_err(failed)?;
            }
        }
        let tree: Arc<[u8]> = tree(description, layout, &chosen)?.into();
        let images = vec![Placed {
            address: range.base,
            bytes: tree.clone(),
            zeroes: 0,
        }];
        return Ok(Boot {
            images,
            entry: 0,
            x0: 0,
            device_tree: tree,
        });
    };
    let fail = |e: loader::LoadError| load(path, e);
    let kernel = Kernel::parse(&file).map_err(fail)?;
    drop(file);
    // The tree's size depends little on what the plan puts into it; the plan's room is for the largest.
    let size = (tree(description, layout, &chosen)?.len() as u64 + 4096).min(LARGEST_TREE);
    let plan = loader::plan(
        &kernel,
        initrd.as_ref().map(|i| i.len() as u64),
        size,
        range,
    )
    .map_err(fail)?;
    chosen.initrd = plan.initrd;
    let tree: Arc<[u8]> = tree(description, layout, &chosen)?.into();
    let boot = plan.boot(initrd, tree.clone());
    // What follows an ELF segment's bytes is zero at each start; Linux clears its own.
    let clears = matches!(kernel, Kernel::Elf { .. });
    let place = |Segment {
                     address,
                     bytes,
                     size,
                 }| {
        let zeroes = if clears {
            size.saturating_sub(bytes.len() as u64)
        } else {
            0
        };
        Placed {
            address,
            bytes,
            zeroes,
        }
    };
    let images = boot.segments.into_iter().map(place).collect();
    Ok(Boot {
        images,
        entry: boot.entry,
        x0: boot.x0,
        device_tree: tree,
    })
}

fn load(path: &Path, error: loader::LoadError) -> BuildError {
    BuildError::Load {
        what: "kernel",
        path: path.into(),
        reason: error.to_string(),
    }
}

/// Ours, or the user's with our `/chosen` left out: theirs is taken as it is.
fn tree(
    description: &Description,
    layout: &firmware::Board,
    chosen: &fdt::Chosen,
) -> Result<Vec<u8>, BuildError> {
    match &description.dtb {
        Some(path) => {
            let tree = read("device tree", path)?;
            check_tree(&tree).map_err(|reason| BuildError::Load {
                what: "device tree",
                path: path.clone(),
                reason: reason.into(),
            })?;
            Ok(tree)
        }
        None => fdt::build(layout, chosen)
            .map_err(|e| BuildError::Firmware(format!("the device tree: {e}"))),
    }
}

/// A flattened device tree has its magic number and its size in front (Devicetree Specification 0.4, 5.2).
fn check_tree(tree: &[u8]) -> Result<(), &'static str> {
    let field = |at: usize| {
        tree.get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_be_bytes)
    };
    match (field(0), field(4)) {
        (Some(0xd00d_feed), Some(size)) if size as usize <= tree.len() && size >= 40 => {
            if tree.len() as u64 > LARGEST_TREE {
                return Err("it is larger than 1 MiB");
            }
            Ok(())
        }
        (Some(0xd00d_feed), _) => Err("it is cut short"),
        _ => Err("it is not a flattened device tree"),
    }
}

/// Where random numbers come from: the host, or a seed.
struct Random {
    seed: Option<u64>,
}

impl Random {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], BuildError> {
        let mut bytes = [0; N];
        match &mut self.seed {
            Some(state) => {
                for chunk in bytes.chunks_mut(8) {
                    let word = split_mix(state).to_le_bytes();
                    chunk.copy_from_slice(&word[..chunk.len()]);
                }
            }
            None => getrandom::fill(&mut bytes)
                .map_err(|e| BuildError::Firmware(format!("no random numbers: {e}")))?,
        }
        Ok(bytes)
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014, figure 16 with the constants of
/// Stafford's Mix13).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = *state;
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn smbios_config(description: &Description) -> Result<smbios::Config, BuildError> {
    let mut config = smbios::Config::default();
    let uuid = |text: &str| {
        crate::parse_uuid(text).ok_or_else(|| BuildError::Firmware(format!("'{text}' is no UUID")))
    };
    if let Some(text) = &description.uuid {
        config.system.uuid = uuid(text)?;
    }
    let system = &mut config.system;
    for (key, value) in &description.smbios_system {
        match key.as_str() {
            "manufacturer" => system.manufacturer = value.clone(),
            "product" => system.product = value.clone(),
            "version" => system.version = value.clone(),
            "serial" => system.serial = value.clone(),
            "sku" => system.sku = value.clone(),
            "family" => system.family = value.clone(),
            "uuid" => system.uuid = uuid(value)?,
            other => {
                return Err(BuildError::Firmware(format!(
                    "SMBIOS type 1 has no field '{other}'"
                )));
            }
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same() {
        let take = |seed| Random { seed }.bytes::<32>().unwrap();
        assert_eq!(take(Some(1)), take(Some(1)));
        assert_ne!(take(Some(1)), take(Some(2)));
        assert_ne!(take(None), take(None));
        // The generator's first value from 0.
        assert_eq!(take(Some(0))[..8], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
    }
}
