//! Secure Boot, with variables that Dormer has written and stock firmware.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use common::{PATIENCE, dormer};
use guests::packages::{Suite, dependency, run, unpacked};
use guests::run::{Builder, Machine};
use guests::{initrd, iso};

/// A key of the test's own, that only db knows.
fn make_key(folder: &Path) -> Result<()> {
    run(Command::new("openssl")
        .args([
            "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "3650",
        ])
        .args(["-subj", "/CN=A test's key/", "-keyout"])
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("certificate.pem")))?;
    Ok(())
}

/// Variables with Microsoft's keys, and the test's own in db.
fn variables(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("vars.fd");
    run(Command::new(dormer())
        .args(["firmware", "vars", "create"])
        .arg(&file)
        .arg("--certificates")
        .arg(guests::certificates()?)
        .arg("--db")
        .arg(folder.join("certificate.pem")))?;
    Ok(file)
}

/// A machine that starts from a USB medium.
fn start(variables: &Path, medium: &Path) -> Result<Machine> {
    let code = guests::firmware(Suite::Bookworm, "AAVMF_CODE.ms.fd")?;
    Builder::new(dormer())
        .args("-machine virt -cpu max -m 1G -smp 2 -device qemu-xhci")
        .flash(&code, variables)
        .arg("-drive")
        .arg(format!(
            "if=none,id=stick,format=raw,readonly=on,file={}",
            medium.display()
        ))
        .args("-device usb-storage,drive=stick,bootindex=0")
        .start()
}

/// A stick that starts one program.
fn stick(program: &Path, folder: &Path) -> Result<PathBuf> {
    let image = folder.join("stick.img");
    guests::iso::efi_image(&image, &[(program, "BOOTAA64.EFI")])?;
    Ok(image)
}

/// Shim, GRUB and kernel of the distribution, each signed as it is delivered, by Microsoft's certificates in db.
#[test]
fn the_distributions_chain_starts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    make_key(folder.path())?;
    let variables = variables(folder.path())?;
    let package = dependency(Suite::Bookworm, "linux-image-arm64", "linux-image-")?;
    let version = package.trim_start_matches("linux-image-");
    let signed = unpacked(Suite::Bookworm, &package)?.join(format!("boot/vmlinuz-{version}"));
    let script = "mount -t efivarfs none /sys/firmware/efi/efivars\n\
        v=/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c\n\
        echo \"dormer: secure $(tail -c 1 $v | od -An -tu1 | tr -d ' ')\"\n\
        dmesg | grep -i 'secure *boot'\necho dormer: done\npoweroff -f\n";
    let kernel = guests::kernel()?;
    let initrd = initrd::build(&kernel, &["efivarfs"], script, &[])?;
    let medium = iso::bootable("secure.iso", &signed, &initrd, "console=ttyAMA0 quiet")?;
    let mut machine = start(&variables, &medium)?;
    let log = machine.expect("dormer: done", PATIENCE)?;
    ensure!(log.contains("dormer: secure 1"), "{log}");
    ensure!(log.to_lowercase().contains("secure boot enabled"), "{log}");
    ensure!(machine.wait(Duration::from_secs(60))?.success());
    // What firmware has made of the store is still one.
    let list = run(Command::new(dormer())
        .args(["firmware", "vars", "list", "--signatures"])
        .arg(&variables))?;
    ensure!(
        list.contains(" PK") && list.contains(" BootOrder"),
        "{list}"
    );
    Ok(())
}

/// In the boot loader's menu.
const MENU: &str = "Reboot Into Firmware Interface";

/// The same program: signed by a key in db it starts, unsigned it does not.
#[test]
fn only_what_is_signed_starts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    make_key(folder)?;
    let program = unpacked(Suite::Bookworm, "systemd-boot-efi")?
        .join("usr/lib/systemd/boot/efi/systemd-bootaa64.efi");
    let signed = folder.join("signed.efi");
    run(Command::new("sbsign")
        .arg("--key")
        .arg(folder.join("key.pem"))
        .arg("--cert")
        .arg(folder.join("certificate.pem"))
        .arg("--output")
        .arg(&signed)
        .arg(&program))?;
    let variables = variables(folder)?;
    let mut machine = start(&variables, &stick(&program, folder)?)?;
    machine.expect_any(&["Access Denied", "Security Violation"], PATIENCE)?;
    ensure!(
        !machine.log().contains("No loader found"),
        "an unsigned program starts"
    );
    machine.kill()?;
    let mut machine = start(&variables, &stick(&signed, folder)?)?;
    machine.expect(MENU, PATIENCE)?;
    Ok(())
}

/// Stores are made, changed and listed.
#[test]
fn variables_by_command() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("vars.fd");
    let vars = |words: &[&str]| {
        let mut command = Command::new(dormer());
        command
            .args(["firmware", "vars", words[0]])
            .arg(&file)
            .args(&words[1..]);
        run(&mut command)
    };
    vars(&["create", "--no-microsoft"])?;
    ensure!(std::fs::metadata(&file)?.len() == 64 << 20);
    ensure!(vars(&["create", "--empty"]).is_err(), "it was there");
    vars(&["set", "Timeout", "--data", "0500"])?;
    let list = vars(&["list"])?;
    ensure!(
        list.contains("8be4df61-93ca-11d2-aa0d-00e098032b8c 0x07      2 Timeout"),
        "{list}"
    );
    ensure!(
        list.contains(" PK") && list.contains("SecureBootEnable") && !list.contains(" KEK"),
        "{list}"
    );
    vars(&["delete", "Timeout"])?;
    ensure!(vars(&["delete", "Timeout"]).is_err());
    ensure!(!vars(&["list"])?.contains("Timeout"));
    Ok(())
}
