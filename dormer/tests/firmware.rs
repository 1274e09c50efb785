//! Stock EDK II on Dormer's machine.

mod common;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use common::{PATIENCE, dormer};
use guests::packages::Suite;
use guests::run::{Builder, Machine};
use serde_json::json;

const DEVICES: &str =
    "-m 1G -smp 4 -device qemu-xhci -device usb-kbd -device usb-tablet -device ramfb";

fn by_bios(firmware: &Path) -> Result<Machine> {
    Builder::new(dormer())
        .args("-machine virt -cpu max")
        .args(DEVICES)
        .arg("-bios")
        .arg(firmware)
        .start()
}

fn by_flash(code: &Path, variables: &Path) -> Result<Machine> {
    Builder::new(dormer())
        .args("-machine virt -cpu max")
        .args(DEVICES)
        .flash(code, variables)
        .start()
}

/// Waits for the shell's prompt, past its countdown.
fn prompt(machine: &mut Machine) -> Result<()> {
    machine.expect("any other key to continue", PATIENCE)?;
    machine.send("\x1b")?;
    machine.expect("Shell>", PATIENCE)?;
    Ok(())
}

#[test]
fn shell_by_bios_and_resets() -> Result<()> {
    let mut machine = by_bios(&common::firmware("QEMU_EFI.fd")?)?;
    prompt(&mut machine)?;
    for _ in 0..10 {
        machine.send("reset\r")?;
        prompt(&mut machine)?;
    }
    // The shell's `reset -s` turns the machine off.
    machine.send("reset -s\r")?;
    ensure!(machine.wait(Duration::from_secs(30))?.success());
    Ok(())
}

#[test]
fn shell_of_the_newer_firmware() -> Result<()> {
    let mut machine = by_bios(&guests::firmware(Suite::Trixie, "QEMU_EFI.fd")?)?;
    prompt(&mut machine)
}

/// A vendor's own: under the specification's GUID, firmware takes only variables that the specification knows.
const VENDOR: &str = "5bb4fc6d-3c2e-4f6a-9d0c-6a1f0d9e3b71";

fn variables_survive(suite: Suite, code: &str) -> Result<()> {
    let code = guests::firmware(suite, code)?;
    let folder = tempfile::tempdir()?;
    let variables = folder.path().join("vars.fd");
    std::fs::copy(guests::firmware(suite, "AAVMF_VARS.fd")?, &variables)?;
    let mut machine = by_flash(&code, &variables)?;
    prompt(&mut machine)?;
    machine.send(&format!(
        "setvar dormer -guid {VENDOR} -nv -bs =L\"kept\"\r"
    ))?;
    let answer = machine.expect("Shell>", PATIENCE)?;
    ensure!(!answer.contains("Unable"), "not set: {answer}");
    // As a power cut: what the shell saw done must be in the file.
    machine.kill()?;
    let mut machine = by_flash(&code, &variables)?;
    prompt(&mut machine)?;
    machine.send(&format!("setvar dormer -guid {VENDOR}\r"))?;
    let answer = machine.expect("Shell>", PATIENCE)?;
    // UTF-16 "kept", in the shell's hexadecimal dump.
    ensure!(
        answer.contains("6B 00 65 00 70 00 74 00"),
        "the variable is gone: {answer}"
    );
    Ok(())
}

#[test]
fn variables_survive_a_power_cut() -> Result<()> {
    variables_survive(Suite::Bookworm, "AAVMF_CODE.fd")
}

#[test]
fn variables_survive_with_the_newer_firmware() -> Result<()> {
    variables_survive(Suite::Trixie, "AAVMF_CODE.no-secboot.fd")
}

/// The setup menu opens by a key of the USB keyboard, and is on the screen.
#[test]
fn setup_menu_by_key() -> Result<()> {
    let mut machine = by_bios(&common::firmware("QEMU_EFI.fd")?)?;
    machine.expect("UEFI firmware", PATIENCE)?;
    // The firmware listens for a short while only: press until the menu is there.
    let folder = machine.folder().to_path_buf();
    for _ in 0..200 {
        machine.qmp()?.call(
            "send-key",
            json!({ "keys": [{ "type": "qcode", "data": "esc" }], "hold-time": 50 }),
        )?;
        std::thread::sleep(Duration::from_millis(200));
        // EDK II's front page: white text and blue bars on black or grey, in a mode that ramfb shows.
        if let Ok(picture) = machine.qmp()?.screen(&folder)
            && machine.log().contains("Boot Manager")
        {
            ensure!(picture.width >= 640 && picture.height >= 400);
            let lit = 1.0 - picture.share([0, 0, 0], 8);
            ensure!(lit > 0.01, "nothing is on the screen");
            return Ok(());
        }
    }
    anyhow::bail!("no setup menu:\n{}", machine.log())
}
