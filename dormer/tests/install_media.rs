//! The stand-in for Windows' medium starts, and by the overlay it does so from the image that asks for no key.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use common::{PATIENCE, dormer};
use guests::run::{Builder, Machine};
use guests::windows::{LABEL, Variant, medium};
use media::filesystem::{self, FileSystem};
use media::overlay::{NO_PROMPT, boot_from};
use media::source::{DiskSource, Shared};
use media::udf::Udf;
use storage::Disk;

/// The image that Windows media boot by themselves.
const PROMPT: &str = "efi/microsoft/boot/efisys.bin";
/// What EDK II says once it has found nothing to boot but its shell.
const SHELL: &str = "any other key to continue";

fn start(medium: &Path) -> Result<Machine> {
    Builder::new(dormer())
        .args("-machine virt -cpu max -m 1G -smp 1 -bios")
        .arg(common::firmware("QEMU_EFI.fd")?)
        .args("-device qemu-xhci -device usb-kbd -device ramfb -drive")
        .arg(format!(
            "file={},media=cdrom,if=none,id=stick",
            medium.display()
        ))
        .args("-device usb-storage,drive=stick")
        .start()
}

/// Firmware, shim and GRUB come out of the El Torito image; GRUB sees the disc that it came from.
fn boots_to_grub(medium: &Path) -> Result<()> {
    let mut machine = start(medium)?;
    let (which, log) = machine.expect_any(&["grub>", SHELL], PATIENCE)?;
    ensure!(which == 0, "nothing on the medium was started: {log}");
    machine.send("set pager=0\rls -l (cd0)\r")?;
    machine.expect(&LABEL.replace('-', "_"), PATIENCE)?;
    machine.kill()
}

#[test]
fn the_medium_boots() -> Result<()> {
    boots_to_grub(&medium(Variant::Plain)?)
}

/// A copy of what a disk shows, without the image that asks for a key: only the other one can start.
fn without_prompt(disk: Arc<dyn Disk>, to: &Path) -> Result<()> {
    let source: Shared = Arc::new(DiskSource(disk));
    let file = File::create(to)?;
    let mut at = 0;
    while at < source.size() {
        let length = (source.size() - at).min(1 << 20) as usize;
        file.write_all_at(&source.read_vec(at, length)?, at)?;
        at += length as u64;
    }
    let udf = Udf::read(&source)?;
    let asks = udf.open(filesystem::find(&udf, PROMPT)?.node)?;
    let (at, length) = asks.place(0).context("it lies on the disc as it is")?;
    ensure!(length == asks.size());
    file.write_all_at(&vec![0; length as usize], at)?;
    Ok(())
}

#[test]
fn the_overlay_boots_the_image_without_a_question() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = medium(Variant::Plain)?;
    let mut options = storage::ImageOptions::new(&path);
    options.read_only = true;
    let disk = storage::open(&options)?;
    let (plain, patched) = (folder.path().join("plain"), folder.path().join("patched"));
    without_prompt(disk.clone(), &plain)?;
    without_prompt(Arc::new(boot_from(disk, NO_PROMPT)?), &patched)?;
    let mut machine = start(&plain)?;
    let (which, _) = machine.expect_any(&["grub>", SHELL], PATIENCE)?;
    ensure!(which == 1, "something started out of an image of zeroes");
    machine.kill()?;
    boots_to_grub(&patched)
}
