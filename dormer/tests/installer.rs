//! The whole machine that people start to install a system: QEMU's command line by QEMU's name, a real installer in the
//! place of Windows'. From power-on by firmware, signed shim, GRUB and kernel to its first menu, moved by keys; and every
//! device, as its shell sees them.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use common::{PATIENCE, dormer};
use guests::iso;
use guests::qmp::Qmp;
use guests::run::Builder;
use guests::screen::Picture;

/// The installer counts 11 thousand million instructions to its menu.
const MENU: Duration = Duration::from_secs(900);
/// Rows of the text console.
const LINE: u32 = 16;

/// What people paste, but for the engine.
const COMMAND: &str = "-machine virt -cpu host -accel jit -m 4G -smp 4 -bios edk2-aarch64-code.fd \
    -device qemu-xhci -device usb-kbd -device usb-tablet \
    -drive file=Win11_24H2_English_Arm64.iso,media=cdrom,if=none,id=inst -device usb-storage,drive=inst \
    -device ramfb \
    -drive file=virtio-win.iso,media=cdrom,if=none,id=iso -device usb-storage,drive=iso \
    -drive file=win11-arm.qcow2,if=virtio \
    -nic user,model=virtio-net-pci \
    -device virtio-gpu-pci \
    -device intel-hda -device hda-duplex";

/// What the shell is asked. The drivers of disk and sound card are not of the installer's first part: these are only seen.
const QUESTIONS: &str = "(lspci -n; cat /sys/bus/usb/devices/*/product; ls /sys/class/drm; ip link set enp0s1 up; \
    udhcpc -i enp0s1 -nqs /bin/true; echo all is said) > /dev/ttyAMA0 2>&1";

#[test]
fn the_whole_machine_to_the_language_menu() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    guests::image(&at("win11-arm.qcow2"), "qcow2", "64G")?;
    std::os::unix::fs::symlink(dormer(), at("qemu-system-aarch64"))?;
    std::os::unix::fs::symlink(iso::installer()?, at("Win11_24H2_English_Arm64.iso"))?;
    std::fs::copy(common::firmware("QEMU_EFI.fd")?, at("edk2-aarch64-code.fd"))?;
    std::fs::create_dir(at("drivers"))?;
    std::fs::write(at("drivers/readme.txt"), "In the place of drivers.\n")?;
    guests::packages::run(
        std::process::Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-J", "-o"])
            .arg(at("virtio-win.iso"))
            .arg(at("drivers")),
    )?;
    let mut machine = Builder::new(&at("qemu-system-aarch64"))
        .within(folder.path())
        .args(COMMAND)
        .start()?;
    machine.expect("EFI stub: Booting Linux Kernel", PATIENCE)?;
    let qmp = machine.qmp()?;
    let menu = language_menu(qmp, folder.path())?;
    moves_by_keys(qmp, folder.path(), &menu)?;

    // The shell on the second console. It tells nobody when it is there to be typed to.
    let mut answered = Ok(String::new());
    for _ in 0..10 {
        let qmp = machine.qmp()?;
        qmp.keys("alt-f2")?;
        std::thread::sleep(Duration::from_secs(2));
        qmp.keys("ret")?;
        std::thread::sleep(Duration::from_secs(3));
        qmp.text(QUESTIONS)?;
        qmp.keys("ret")?;
        answered = machine.expect("0600: 1b36:0008", Duration::from_secs(30));
        if answered.is_ok() {
            break;
        }
    }
    answered?;
    let said = machine.expect("all is said", PATIENCE)?;
    for (what, wanted) in [
        ("virtio-net-pci", "0200: 1af4:1000"),
        ("qemu-xhci", "0c03: 1b36:000d"),
        ("virtio-gpu-pci", "0380: 1af4:1050"),
        ("intel-hda", "0403: 8086:2668"),
        ("virtio-blk-pci", "0100: 1af4:1001"),
        ("usb-kbd", "Dormer USB Keyboard"),
        ("usb-tablet", "Dormer USB Tablet"),
        ("virtio-gpu-pci's driver", "card0-Virtual-1"),
        ("the network", "lease of 10.0.2.15 obtained"),
    ] {
        ensure!(said.contains(wanted), "{what} is missing:\n{said}");
    }
    let media = said.matches("Dormer USB CD-ROM").count();
    ensure!(media == 2, "{media} USB media, not 2:\n{said}");
    Ok(())
}

/// Waits for the installer's first menu.
fn language_menu(qmp: &mut Qmp, folder: &Path) -> Result<Picture> {
    let deadline = Instant::now() + MENU;
    loop {
        ensure!(Instant::now() < deadline, "no menu came");
        std::thread::sleep(Duration::from_secs(2));
        let picture = qmp.screen(folder)?;
        if picture.is_text_installer() && picture == qmp.screen(folder)? {
            return Ok(picture);
        }
    }
}

/// The language menu: a highlighted line in newt's red or blue on grey, which two presses of Down move.
fn moves_by_keys(qmp: &mut Qmp, folder: &Path, menu: &Picture) -> Result<()> {
    qmp.keys("down down")?;
    let deadline = Instant::now() + PATIENCE;
    let moved = loop {
        let picture = qmp.screen(folder)?;
        if picture != *menu {
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
