//! Discs that are changed while the machine runs, as Linux sees it.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use common::{PATIENCE, dormer};
use guests::packages::Suite;
use guests::run::{Builder, Machine};
use guests::{initrd, programs};
use serde_json::{Value, json};

/// What it says of the disc in the drive, each time it is told to look.
const SCRIPT: &str = r#"
n=0; until [ -b /dev/sr0 ] || [ $n -ge 600 ]; do sleep 0.1; n=$((n + 1)); done
echo "dormer: ready"
while read word; do
  case $word in
    mount) mount -t iso9660 -o ro /dev/sr0 /mnt 2>/dev/null && echo "dormer: disc $(cat /mnt/name)" || echo "dormer: disc none" ;;
    umount) umount /mnt && echo "dormer: unmounted" ;;
    eject) /usr/bin/eject /dev/sr0 && echo "dormer: ejected" ;;
    off) poweroff -f ;;
  esac
done
"#;

/// The program that busybox has not got, and what it is linked with.
fn eject() -> Result<Vec<(String, Vec<u8>)>> {
    programs::files(
        Suite::Bookworm,
        &[
            "eject",
            "libmount1",
            "libblkid1",
            "libselinux1",
            "libpcre2-8-0",
            "libc6",
        ],
        &[
            "usr/bin/eject",
            "usr/lib/aarch64-linux-gnu/libmount.so.1",
            "usr/lib/aarch64-linux-gnu/libblkid.so.1",
            "usr/lib/aarch64-linux-gnu/libpcre2-8.so.0",
            "lib/aarch64-linux-gnu/libselinux.so.1",
            "lib/ld-linux-aarch64.so.1",
            "lib/aarch64-linux-gnu/libc.so.6",
        ],
    )
}

fn disc(folder: &Path, name: &str) -> Result<PathBuf> {
    let tree = folder.join(name);
    std::fs::create_dir(&tree)?;
    std::fs::write(tree.join("name"), name)?;
    let image = folder.join(format!("{name}.iso"));
    guests::packages::run(
        Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-r", "-o"])
            .arg(&image)
            .arg(&tree),
    )?;
    Ok(image)
}

/// The drive, as `query-block` has it.
fn drive(machine: &mut Machine) -> Result<Value> {
    let drives = machine.qmp()?.call("query-block", json!({}))?;
    let found = drives.as_array().into_iter().flatten();
    let mut found = found.filter(|drive| drive["device"] == "cd0");
    Ok(found.next().cloned().unwrap_or_default())
}

fn told(machine: &mut Machine, word: &str, answer: &str) -> Result<()> {
    machine.send(&format!("{word}\n"))?;
    machine.expect(answer, PATIENCE)?;
    Ok(())
}

#[test]
fn discs_are_ejected_and_changed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (first, second) = (
        disc(folder.path(), "first")?,
        disc(folder.path(), "second")?,
    );
    let builder = Builder::new(dormer())
        .args("-machine virt -cpu max -m 512M -smp 1 -device qemu-xhci -drive")
        .arg(format!(
            "file={},media=cdrom,if=none,id=cd0",
            first.display()
        ))
        .args("-device usb-storage,drive=cd0,id=drive0");
    let kernel = guests::kernel()?;
    let programs = eject()?;
    let files: Vec<_> = programs.iter().map(|(n, d)| (n.as_str(), &d[..])).collect();
    let mut machine = builder
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd::build(&kernel, initrd::MODULES, SCRIPT, &files)?)
        .args("-append console=ttyAMA0")
        .start()?;
    machine.expect("dormer: ready", PATIENCE)?;
    told(&mut machine, "mount", "dormer: disc first")?;

    // A disc that is mounted stays, and so does what is on it.
    ensure!(drive(&mut machine)?["locked"] == true);
    let change = json!({ "id": "drive0", "filename": second });
    for (command, arguments) in [
        ("eject", json!({ "device": "cd0" })),
        ("blockdev-change-medium", change.clone()),
    ] {
        let refused = machine.qmp()?.call(command, arguments);
        let why = refused.err().map(|error| error.to_string());
        ensure!(
            why.as_deref()
                .is_some_and(|why| why.contains("Device 'cd0' is locked")),
            "{command}: {why:?}"
        );
    }
    ensure!(drive(&mut machine)?["tray_open"] == false);
    told(&mut machine, "umount", "dormer: unmounted")?;

    // By the guest.
    told(&mut machine, "eject", "dormer: ejected")?;
    let moved = machine.qmp()?.event("DEVICE_TRAY_MOVED", PATIENCE)?;
    ensure!(
        moved["data"]["device"] == "cd0" && moved["data"]["tray-open"] == true,
        "{moved}"
    );
    let ejected = drive(&mut machine)?;
    ensure!(
        ejected["tray_open"] == true && ejected["locked"] == false,
        "{ejected}"
    );
    machine.qmp()?.call("blockdev-change-medium", change)?;
    told(&mut machine, "mount", "dormer: disc second")?;
    told(&mut machine, "umount", "dormer: unmounted")?;

    // By the user: an empty drive, then a disc in it again.
    let monitor = |machine: &mut Machine, line: &str| -> Result<()> {
        let line = json!({ "command-line": line });
        let said = machine.qmp()?.call("human-monitor-command", line)?;
        ensure!(said == "", "{said}");
        Ok(())
    };
    monitor(&mut machine, "eject cd0")?;
    told(&mut machine, "mount", "dormer: disc none")?;
    ensure!(drive(&mut machine)?["inserted"].is_null());
    monitor(&mut machine, &format!("change cd0 {}", first.display()))?;
    told(&mut machine, "mount", "dormer: disc first")?;

    // By force.
    machine
        .qmp()?
        .call("eject", json!({ "id": "drive0", "force": true }))?;
    let forced = drive(&mut machine)?;
    ensure!(
        forced["tray_open"] == true && forced["inserted"].is_null(),
        "{forced}"
    );
    machine.send("off\n")?;
    ensure!(machine.wait(PATIENCE)?.success(), "{}", machine.errors());
    Ok(())
}
