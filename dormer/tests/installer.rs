//! A real installer from a USB stick: firmware, signed shim, GRUB, kernel, and its first menu, moved by keys.

mod common;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use common::{PATIENCE, dormer};
use guests::iso;
use guests::run::Builder;
use guests::screen::Picture;

/// The installer counts 11 thousand million instructions to its menu.
const MENU: Duration = Duration::from_secs(900);
/// Rows of the text console.
const LINE: u32 = 16;

#[test]
fn language_menu_moves_by_keys() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.qcow2");
    guests::packages::run(
        std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&disk)
            .arg("8G"),
    )?;
    let mut machine = Builder::new(dormer())
        .args("-machine virt -cpu host -accel jit -m 4G -smp 4 -bios")
        .arg(common::firmware("QEMU_EFI.fd")?)
        .args("-device qemu-xhci -device usb-kbd -device usb-tablet -drive")
        .arg(format!(
            "file={},media=cdrom,if=none,id=inst",
            iso::installer()?.display()
        ))
        .args("-device usb-storage,drive=inst -device ramfb -drive")
        .arg(format!("file={},if=virtio", disk.display()))
        .start()?;
    machine.expect("EFI stub: Booting Linux Kernel", PATIENCE)?;
    let qmp = machine.qmp()?;
    let deadline = Instant::now() + MENU;
    let menu = loop {
        ensure!(Instant::now() < deadline, "no menu came");
        std::thread::sleep(Duration::from_secs(2));
        let picture = qmp.screen(folder.path())?;
        if picture.is_text_installer() && settled(&picture, &qmp.screen(folder.path())?) {
            break picture;
        }
    };
    // The language menu: a highlighted line in newt's red or blue on grey, which two presses of Down move.
    qmp.keys("down down")?;
    let deadline = Instant::now() + PATIENCE;
    let moved = loop {
        let picture = qmp.screen(folder.path())?;
        if picture != menu {
            break picture;
        }
        if Instant::now() > deadline {
            bail!("the keys moved nothing");
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    // Two presses move the mark by two lines at the most: the line it left, and the one it came to, change.
    let lines = menu.changed_lines(&moved, LINE);
    ensure!(
        (1..=3).contains(&lines.len()),
        "the lines {lines:?} changed, which is no mark that moves"
    );
    Ok(())
}

fn settled(one: &Picture, two: &Picture) -> bool {
    one == two
}
