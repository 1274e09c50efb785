//! What users get wrong: one clear error each, an exit code that says so, and nothing on disk changed.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use common::{PATIENCE, dormer};
use guests::image;
use guests::run::Builder;

/// What the program answers; it must end by itself, and at once.
fn answer(arguments: &str) -> Result<Output> {
    let mut child = Command::new(dormer())
        .arg("system")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            bail!("`{arguments}` started a machine");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child.wait_with_output()?)
}

/// The arguments fail with words that hold each of `says`; files in the folder stay as they are.
fn refused(folder: &Path, arguments: &str, says: &[&str]) -> Result<()> {
    let before = contents(folder)?;
    let mut all = arguments.to_string();
    for default in ["-display none", "-serial null"] {
        let (option, _) = default.split_once(' ').unwrap_or_default();
        let given =
            arguments.contains(option) || option == "-display" && arguments.contains("-vnc");
        if !given {
            all = format!("{default} {all}");
        }
    }
    let output = answer(&all)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success(),
        "`{arguments}` succeeded: {errors}"
    );
    for words in says {
        ensure!(
            errors.contains(words),
            "`{arguments}` says: {errors}\nand not: {words}"
        );
    }
    ensure!(
        errors.lines().count() <= 3 && !errors.contains("panicked"),
        "`{arguments}` says more than one thing: {errors}"
    );
    ensure!(before == contents(folder)?, "`{arguments}` changed files");
    Ok(())
}

fn contents(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            files.push((path.clone(), fs::read(path)?));
        }
    }
    files.sort();
    Ok(files)
}

const VIRT: &str = "-machine virt -cpu max -m 128M";

#[test]
fn images() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let show = |name: &str| at(name).display().to_string();

    // An ISO that broke off half-way: the volume says 4,000 sectors.
    let mut medium = vec![0; 4_000_000];
    let descriptor = &mut medium[16 * 2048..17 * 2048];
    descriptor[..7].copy_from_slice(b"\x01CD001\x01");
    descriptor[80..84].copy_from_slice(&4000u32.to_le_bytes());
    descriptor[84..88].copy_from_slice(&4000u32.to_be_bytes());
    descriptor[128..132].copy_from_slice(&[0, 8, 8, 0]);
    fs::write(at("half.iso"), &medium)?;
    refused(
        folder.path(),
        &format!(
            "{VIRT} -device qemu-xhci -drive file={},media=cdrom,if=none,id=i -device usb-storage,drive=i",
            show("half.iso")
        ),
        &["half.iso", "cut short", "8192000"],
    )?;

    image(&at("good.qcow2"), "qcow2", "8M")?;
    let good = fs::read(at("good.qcow2"))?;
    fs::write(at("short.qcow2"), &good[..100])?;
    let mut bad = good.clone();
    // The mapping's offset, far outside.
    bad[40..48].copy_from_slice(&0x7fff_ffff_ffff_0000u64.to_be_bytes());
    fs::write(at("bad.qcow2"), &bad)?;
    let mut encrypted = good.clone();
    encrypted[32..36].copy_from_slice(&2u32.to_be_bytes());
    fs::write(at("luks.qcow2"), &encrypted)?;
    for (name, says) in [("short", ""), ("bad", ""), ("luks", "encrypt")] {
        let name = format!("{name}.qcow2");
        for options in ["", ",format=qcow2"] {
            refused(
                folder.path(),
                &format!("{VIRT} -drive if=virtio,file={}{options}", show(&name)),
                &[&name, says],
            )?;
        }
    }
    fs::write(at("text"), b"not a disk at all\n")?;
    refused(
        folder.path(),
        &format!("{VIRT} -drive if=virtio,format=qcow2,file={}", show("text")),
        &["text"],
    )?;
    let here = folder.path().display();
    refused(
        folder.path(),
        &format!("{VIRT} -drive if=virtio,file={here}"),
        &["directory"],
    )?;
    refused(
        folder.path(),
        &format!("{VIRT} -drive if=virtio,file={here}/none"),
        &["none", "No such file"],
    )
}

#[test]
fn firmware_and_kernels() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let here = folder.path().display();
    fs::write(at("large.fd"), vec![0; (64 << 20) + 1])?;
    refused(
        folder.path(),
        &format!("{VIRT} -bios {}", at("large.fd")),
        &["large.fd"],
    )?;
    fs::write(at("vars.fd"), vec![0xff; 1 << 20])?;
    refused(
        folder.path(),
        &format!(
            "{VIRT} -bios {} -drive if=pflash,unit=1,format=raw,file={}",
            common::firmware("QEMU_EFI.fd")?.display(),
            at("vars.fd")
        ),
        &["vars.fd", "67108864"],
    )?;
    refused(
        folder.path(),
        &format!("{VIRT} -bios {here}"),
        &["directory"],
    )?;
    refused(
        folder.path(),
        &format!("{VIRT} -bios {here}/none"),
        &["none"],
    )?;
    refused(
        folder.path(),
        &format!("{VIRT} -kernel {here}"),
        &["directory"],
    )?;
    fs::write(at("empty"), b"")?;
    refused(
        folder.path(),
        &format!("{VIRT} -kernel {}", at("empty")),
        &["empty"],
    )?;
    refused(
        folder.path(),
        &format!(
            "{VIRT} -kernel {} -initrd {here}/none",
            guests::kernel()?.image.display()
        ),
        &["none"],
    )
}

#[test]
fn taken_places() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.qcow2");
    image(&disk, "qcow2", "8M")?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    for option in [
        format!("-qmp tcp:127.0.0.1:{port},server=on,wait=off"),
        format!("-serial tcp:127.0.0.1:{port},server=on,wait=off"),
    ] {
        refused(
            folder.path(),
            &format!(
                "{VIRT} -kernel {} {option}",
                guests::kernel()?.image.display()
            ),
            &["in use", &port.to_string()],
        )?;
    }
    // Ports of VNC count from 5900.
    if let Some(taken) = (0..100).find_map(|n| TcpListener::bind(("127.0.0.1", 5950 + n)).ok()) {
        let number = taken.local_addr()?.port() - 5900;
        refused(
            folder.path(),
            &format!(
                "{VIRT} -kernel {} -vnc 127.0.0.1:{number}",
                guests::kernel()?.image.display()
            ),
            &["in use"],
        )?;
    }

    let mut first = Builder::new(dormer())
        .args(&format!("{VIRT} -S -kernel"))
        .arg(&guests::kernel()?.image)
        .arg("-drive")
        .arg(format!("if=virtio,file={}", disk.display()))
        .start()?;
    first.qmp()?.call("query-status", serde_json::json!({}))?;
    refused(
        folder.path(),
        &format!("{VIRT} -drive if=virtio,file={}", disk.display()),
        &["disk.qcow2", "lock"],
    )?;
    first.qmp()?.call("quit", serde_json::json!({}))?;
    ensure!(first.wait(PATIENCE)?.success());
    Ok(())
}

#[test]
fn options() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (arguments, says) in [
        (
            "",
            "No machine specified, and there is no default\nUse -machine help to list supported machines",
        ),
        (
            "-machine virt -device usb-kbd",
            "No 'usb-bus' bus found for device 'usb-kbd'",
        ),
        ("-machine virt -accel xen", "invalid accelerator xen"),
        (
            "-machine virt -device nonsense",
            "'nonsense' is not a valid device model name",
        ),
        ("-machine q35", "unsupported machine type"),
        ("-machine virt -cpu 486", "486"),
        ("-nonsense", "invalid option"),
        ("-machine virt -smp 0", ""),
    ] {
        refused(folder.path(), arguments, &[says])?;
    }
    #[cfg(not(target_os = "macos"))]
    refused(
        folder.path(),
        "-machine virt -accel hvf",
        &["invalid accelerator hvf"],
    )?;
    Ok(())
}

/// What QEMU has and Dormer has not is refused by its name, with what to use instead where there is something.
#[test]
fn what_is_not_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (arguments, says) in [
        ("-netdev hubport,id=n,hubid=0", "'hubport'"),
        ("-netdev dgram,id=n,local.type=inet", "'dgram'"),
        ("-netdev l2tpv3,id=n", "'l2tpv3'"),
        ("-netdev socket,id=n,mcast=230.0.0.1:1234", "mcast="),
        ("-netdev user,id=n,smb=/tmp", "smb="),
        ("-nic user,model=e1000e", "Unsupported NIC model: e1000e"),
        ("-nic user,model=usb-ncm", "Add -device qemu-xhci"),
        ("-netdev user,id=n -device usb-net,netdev=n", "use usb-ncm"),
        ("-device virtio-gpu-gl-pci", "use virtio-gpu-pci"),
        ("-device virtio-sound-pci", "intel-hda"),
        ("-audiodev sdl,id=a", "'sdl'"),
        ("-tpmdev passthrough,id=t", "-tpmdev managed"),
        ("-display spice-app", "-display web"),
        ("-object filter-mirror,id=f,netdev=n", "'filter-mirror'"),
    ] {
        refused(folder.path(), &format!("{VIRT} {arguments}"), &[says])?;
    }
    #[cfg(not(target_os = "macos"))]
    refused(
        folder.path(),
        &format!("{VIRT} -nic vmnet-shared"),
        &["'vmnet-shared'", "macOS"],
    )?;
    Ok(())
}
