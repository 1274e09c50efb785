//! Kernels: what an image is, where it and its companions go, and how the first processor starts.
//!
//! Without firmware the machine does what a boot loader would: [`Kernel::parse`] recognises the image, [`plan`] places
//! it with initrd and device tree, and [`Boot`] is applied to RAM at power-on and again at each reset. With firmware,
//! [`fw_cfg_items`] hands the files to it as they are.

mod compressed;
mod elf;
mod image;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::board::Range;

/// Most bytes that a compressed kernel may unpack to.
pub const LARGEST_KERNEL: usize = 512 << 20;

/// Where flat binaries go, from the start of RAM.
const FLAT_OFFSET: u64 = 0x8_0000;
/// Kernels are placed at multiples of this (Linux, `Documentation/arch/arm64/booting.rst`).
const KERNEL_ALIGNMENT: u64 = 2 << 20;
/// Where the initrd goes at most, from the start of RAM; in the middle of less.
const INITRD_OFFSET: u64 = 128 << 20;
const PAGE: u64 = 4096;
/// A device tree is mapped with 2 MiB at a time, and may not be larger.
const LARGEST_TREE: u64 = 2 << 20;

/// Why a kernel cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("the kernel image is empty")]
    Empty,
    #[error("the kernel image is cut short: {0}")]
    Truncated(&'static str),
    #[error("the kernel image is not for AArch64: {0}")]
    WrongMachine(String),
    #[error(
        "the kernel is compressed with {0}, which cannot be unpacked here; use a gzip, zstd or unpacked image"
    )]
    Compression(String),
    #[error("the kernel image cannot be unpacked: {0}")]
    Corrupt(String),
    #[error("the kernel image unpacks to more than {LARGEST_KERNEL} bytes")]
    TooLarge,
    #[error("this is a UEFI program but no Linux kernel: start it from firmware")]
    EfiProgram,
    #[error(
        "the {what} ({size:#x} bytes at {address:#x}) does not fit into RAM ({ram_base:#x} + {ram_size:#x})"
    )]
    NoRoom {
        what: &'static str,
        address: u64,
        size: u64,
        ram_base: u64,
        ram_size: u64,
    },
    #[error("the {0} is larger than 4 GiB, which fw_cfg cannot tell firmware")]
    TooLargeForFirmware(&'static str),
}

/// Bytes for guest memory, followed by zeroes up to `size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub address: u64,
    pub bytes: Arc<[u8]>,
    /// At least the bytes' length.
    pub size: u64,
}

impl Segment {
    fn whole(address: u64, bytes: Arc<[u8]>) -> Segment {
        let size = bytes.len() as u64;
        Segment {
            address,
            bytes,
            size,
        }
    }

    fn range(&self) -> Range {
        Range::new(self.address, self.size)
    }
}

/// A recognised kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Linux, or whatever has its header. Offset from a multiple of 2 MiB, and bytes with what it clears itself.
    Linux {
        bytes: Arc<[u8]>,
        text_offset: u64,
        size: u64,
    },
    /// A program that says where it goes.
    Elf { segments: Vec<Segment>, entry: u64 },
    /// Anything else.
    Flat { bytes: Arc<[u8]> },
}

impl Kernel {
    /// Recognises an image: `Image`, that compressed with gzip or zstd, zboot's `vmlinuz.efi`, ELF, or flat.
    pub fn parse(file: &[u8]) -> Result<Kernel, LoadError> {
        if file.is_empty() {
            return Err(LoadError::Empty);
        }
        if let Some(unpacked) = compressed::unpack(file)? {
            // One layer: what is inside is a kernel, or flat.
            return Kernel::plain(&unpacked);
        }
        Kernel::plain(file)
    }

    fn plain(file: &[u8]) -> Result<Kernel, LoadError> {
        if elf::is_elf(file) {
            return elf::parse(file);
        }
        if let Some(kernel) = image::parse(file)? {
            return Ok(kernel);
        }
        if image::is_efi_program(file) {
            return Err(LoadError::EfiProgram);
        }
        Ok(Kernel::Flat { bytes: file.into() })
    }
}

/// Where things go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    kernel: Vec<Segment>,
    /// Where the first processor starts.
    pub entry: u64,
    /// Where the initrd is to be, for `/chosen`.
    pub initrd: Option<Range>,
    /// Where the device tree is to be; `None` if an ELF program takes its place.
    pub tree: Option<u64>,
    /// x0 at the entry point.
    pub x0: u64,
}

/// Everything to be written to RAM at power-on and reset, and the first processor's registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    pub segments: Vec<Segment>,
    pub entry: u64,
    pub x0: u64,
}

/// Places a kernel, an initrd of `initrd_size` bytes and a device tree of at most `tree_size` bytes in `ram`, none
/// over another.
pub fn plan(
    kernel: &Kernel,
    initrd_size: Option<u64>,
    tree_size: u64,
    ram: Range,
) -> Result<Plan, LoadError> {
    let check = |what, range: Range| fits(what, range.base, range.size, ram);
    if tree_size > LARGEST_TREE {
        return Err(no_room("device tree", ram.base, tree_size, ram));
    }
    let (segments, entry, is_elf) = match kernel {
        Kernel::Linux {
            bytes,
            text_offset,
            size,
        } => {
            // The first 2 MiB are the device tree's.
            let base = ram
                .base
                .next_multiple_of(KERNEL_ALIGNMENT)
                .saturating_add(KERNEL_ALIGNMENT);
            let address = base.checked_add(*text_offset);
            let address = address.ok_or_else(|| no_room("kernel", base, *size, ram))?;
            (
                vec![Segment {
                    address,
                    bytes: bytes.clone(),
                    size: *size,
                }],
                address,
                false,
            )
        }
        Kernel::Flat { bytes } => {
            let address = ram.base + FLAT_OFFSET;
            (vec![Segment::whole(address, bytes.clone())], address, false)
        }
        Kernel::Elf { segments, entry } => (segments.clone(), *entry, true),
    };
    for segment in &segments {
        fits("kernel", segment.address, segment.size, ram)?;
    }
    let mut taken: Vec<Range> = segments.iter().map(Segment::range).collect();

    let initrd = match initrd_size {
        None | Some(0) => None,
        Some(size) => {
            let end = taken.iter().map(|r| r.end()).max().unwrap_or(ram.base);
            let middle = ram.base + INITRD_OFFSET.min(ram.size / 2);
            // Past the kernel; where it usually is, if that is free and large enough.
            let usual = middle.max(end).next_multiple_of(PAGE);
            let first = end.next_multiple_of(PAGE);
            let range = [usual, first]
                .map(|at| Range::new(at, size))
                .into_iter()
                .find(|r| check("initrd", *r).is_ok())
                .ok_or_else(|| no_room("initrd", first, size, ram))?;
            taken.push(range);
            Some(range)
        }
    };

    // The start of RAM is where firmware and bare programs look for it.
    let free = |at: u64| {
        let range = Range::new(at, tree_size);
        check("device tree", range).is_ok() && !taken.iter().any(|t| t.overlaps(range))
    };
    let end = taken.iter().map(|r| r.end()).max().unwrap_or(ram.base);
    let after = end.next_multiple_of(KERNEL_ALIGNMENT);
    let tree = match (free(ram.base), is_elf) {
        (true, _) => Some(ram.base),
        (false, true) => None,
        (false, false) if free(after) => Some(after),
        (false, false) => return Err(no_room("device tree", after, tree_size, ram)),
    };
    let x0 = if is_elf { 0 } else { tree.unwrap_or(0) };
    Ok(Plan {
        kernel: segments,
        entry,
        initrd,
        tree,
        x0,
    })
}

impl Plan {
    /// Joins the plan with what it placed. `tree` is no larger than was planned for.
    pub fn boot(&self, initrd: Option<Arc<[u8]>>, tree: Arc<[u8]>) -> Boot {
        let mut segments = self.kernel.clone();
        if let (Some(range), Some(bytes)) = (self.initrd, initrd) {
            segments.push(Segment::whole(range.base, bytes));
        }
        if let Some(at) = self.tree {
            segments.push(Segment::whole(at, tree));
        }
        Boot {
            segments,
            entry: self.entry,
            x0: self.x0,
        }
    }
}

/// `size` bytes at `address` must be in RAM.
fn fits(what: &'static str, address: u64, size: u64, ram: Range) -> Result<(), LoadError> {
    let end = address.checked_add(size);
    match end {
        Some(end) if address >= ram.base && end <= ram.end() => Ok(()),
        _ => Err(no_room(what, address, size, ram)),
    }
}

fn no_room(what: &'static str, address: u64, size: u64, ram: Range) -> LoadError {
    LoadError::NoRoom {
        what,
        address,
        size,
        ram_base: ram.base,
        ram_size: ram.size,
    }
}

/// A fixed fw_cfg item: key and contents.
pub type Item = (u16, Arc<[u8]>);

/// What firmware is told of a kernel: fw_cfg keys (`devices::fw_cfg::spec::key`) and contents. Files go as they are:
/// EDK II starts them as UEFI programs.
pub fn fw_cfg_items(
    kernel: Option<Arc<[u8]>>,
    initrd: Option<Arc<[u8]>>,
    command_line: Option<&str>,
) -> Result<Vec<Item>, LoadError> {
    let mut items = Vec::new();
    let mut add = |what, size_key, key, bytes: Arc<[u8]>| {
        let size = u32::try_from(bytes.len()).map_err(|_| LoadError::TooLargeForFirmware(what))?;
        items.push((size_key, Arc::from(size.to_le_bytes())));
        items.push((key, bytes));
        Ok(())
    };
    if let Some(kernel) = kernel {
        add("kernel", 0x08, 0x11, kernel)?;
    }
    if let Some(initrd) = initrd {
        add("initrd", 0x0b, 0x12, initrd)?;
    }
    if let Some(text) = command_line {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        add("command line", 0x14, 0x15, bytes.into())?;
    }
    Ok(items)
}
