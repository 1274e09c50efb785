//! Disks as guests use them: contents that last, power cuts in the middle of writes, a host disk that fills.

mod common;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{PATIENCE, dormer, run_linux};
use guests::image;
use guests::run::Builder;

/// Every kind of disk, by the name that Linux gives it.
const KINDS: [&str; 3] = ["vda", "nvme0n1", "sda"];

/// Makes a file system on each disk and fills it, or checks what is there: the kernel's command line says which.
const KEEP: &str = r#"
for disk in vda nvme0n1 sda; do
  until [ -b /dev/$disk ]; do sleep 0.1; done
  [ $step = make ] && mke2fs /dev/$disk >/dev/null 2>&1
  mount -t ext2 /dev/$disk /mnt || echo "dormer: $disk cannot be mounted"
  if [ $step = make ]; then
    mkdir -p /mnt/a/b
    dd if=/dev/urandom of=/mnt/a/b/random bs=64k count=128 2>/dev/null
    for i in $(seq 200); do echo "file $i on $disk" > /mnt/a/$i; done
    (cd /mnt; find a -type f | sort | xargs sha256sum > sums; rm a/7; sync)
  fi
  (cd /mnt; sha256sum -c sums 2>/dev/null | grep -vc OK)
  echo "dormer: $disk $(sha256sum < /mnt/sums)"
  umount /mnt
done
poweroff -f
"#;

/// What the guest said of each disk: the checksum of its checksums.
fn sums(log: &str) -> Result<Vec<String>> {
    KINDS
        .iter()
        .map(|kind| {
            let said = format!("dormer: {kind} ");
            log.lines()
                .find_map(|line| Some(line.trim().split_once(&said)?.1.to_string()))
                .with_context(|| format!("nothing was said of {kind}:\n{log}"))
        })
        .collect()
}

fn with_disks(folder: &Path) -> Builder {
    Builder::new(dormer())
        .args("-machine virt -cpu max -m 512M -smp 2 -device qemu-xhci -drive")
        .arg(format!(
            "if=virtio,file={}",
            folder.join("virtio").display()
        ))
        .arg("-drive")
        .arg(format!(
            "if=none,id=n,file={}",
            folder.join("nvme").display()
        ))
        .args("-device nvme,drive=n,serial=n1 -drive")
        .arg(format!(
            "if=none,id=u,format=raw,file={}",
            folder.join("usb").display()
        ))
        .args("-device usb-storage,drive=u")
}

#[test]
fn file_systems_last() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["virtio", "nvme"] {
        image(&folder.path().join(name), "qcow2", "64M")?;
    }
    image(&folder.path().join("usb"), "raw", "64M")?;
    let mut seen = Vec::new();
    for step in ["make", "read"] {
        let mut machine = run_linux(with_disks(folder.path()), KEEP, &format!("step={step}"))?;
        ensure!(machine.wait(PATIENCE)?.success(), "{}", machine.errors());
        seen.push(sums(&machine.log())?);
    }
    ensure!(seen[0] == seen[1], "{seen:?}");
    for name in ["virtio", "nvme"] {
        check(&folder.path().join(name), &[0])?;
    }
    Ok(())
}

/// `qemu-img check`, which gives 3 for leaked clusters, 2 for damage.
fn check(image: &Path, allowed: &[i32]) -> Result<()> {
    let output = Command::new("qemu-img")
        .args(["check", "-f", "qcow2"])
        .arg(image)
        .output()?;
    ensure!(
        output
            .status
            .code()
            .is_some_and(|code| allowed.contains(&code)),
        "{}: {}{}",
        image.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Blocks of 64 KiB, in an order that leaves holes, each flushed before it is told.
const WRITE: &str = r#"
fill() {
  i=$from
  while :; do
    i=$((i + 1))
    at=$((i * 37 % 509))
    yes "$1 $i" | head -c 65536 | dd of=/dev/$1 bs=64k seek=$at conv=notrunc,fsync 2>/dev/null
    echo "dormer: $1 flushed $i"
  done
}
until [ -b /dev/vda -a -b /dev/nvme0n1 ]; do sleep 0.1; done
fill vda &
fill nvme0n1
"#;

fn line(disk: &str, i: u32) -> String {
    format!("{disk} {i}\n")
}

/// Whether a block of the image holds what was flushed last there, or what was under way when the power went.
fn holds(block: &[u8], disk: &str, least: u32, most: u32) -> bool {
    (least..=most).any(|i| {
        i * 37 % 509 == least * 37 % 509
            && block
                .chunks(line(disk, i).len())
                .all(|part| line(disk, i).as_bytes().starts_with(part))
    })
}

#[test]
fn power_cuts_lose_nothing_flushed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["virtio", "nvme"] {
        image(&folder.path().join(name), "qcow2", "40M")?;
    }
    image(&folder.path().join("usb"), "raw", "1M")?;
    let mut from = 0;
    for cut in 1..=3u32 {
        let mut machine = run_linux(with_disks(folder.path()), WRITE, &format!("from={from}"))?;
        // The two come in any order.
        let enough = |log: &str| {
            ["vda", "nvme0n1"]
                .iter()
                .all(|disk| log.contains(&format!("{disk} flushed {}\r\n", from + 8 * cut)))
        };
        while !enough(&machine.log()) {
            machine.expect("flushed", PATIENCE)?;
        }
        machine.kill()?;
        let log = machine.log();
        for (disk, name) in [("vda", "virtio"), ("nvme0n1", "nvme")] {
            let path = folder.path().join(name);
            check(&path, &[0, 3])?;
            let raw = folder.path().join("raw");
            guests::packages::run(
                Command::new("qemu-img")
                    .args(["convert", "-O", "raw"])
                    .arg(&path)
                    .arg(&raw),
            )?;
            let contents = std::fs::read(&raw)?;
            let said = format!("dormer: {disk} flushed ");
            let flushed: u32 = log
                .lines()
                .filter_map(|line| line.trim().split_once(&said)?.1.parse().ok())
                .max()
                .context("nothing was flushed")?;
            for i in from + 1..=flushed {
                let at = (i * 37 % 509) as usize * 65536;
                ensure!(
                    holds(&contents[at..at + 65536], disk, i, flushed + 1),
                    "cut {cut}: block {i} of {disk}, of {flushed} flushed, is gone"
                );
            }
        }
        from += 400;
    }
    Ok(())
}

/// Writes more than the host has room for, and tells what is there at the end.
#[cfg(target_os = "linux")]
const FILL: &str = r#"
until [ -b /dev/vda ]; do sleep 0.1; done
yes full | head -c 16777216 > /tmp/data
dd if=/tmp/data of=/dev/vda bs=1M conv=fsync 2>/dev/null && echo "dormer: written"
echo 3 > /proc/sys/vm/drop_caches
[ "$(dd if=/dev/vda bs=1M count=16 2>/dev/null | sha256sum)" = "$(sha256sum < /tmp/data)" ] && echo "dormer: whole"
poweroff -f
"#;

/// A file system of the host's own with little room, as a namespace of its own mounts it.
#[test]
#[cfg(target_os = "linux")]
fn a_full_host_disk_pauses_the_machine() -> Result<()> {
    use serde_json::json;

    let folder = tempfile::tempdir()?;
    let small = folder.path().join("small");
    std::fs::create_dir(&small)?;
    let script = folder.path().join("dormer");
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\nexec unshare --mount --map-root-user sh -c 'mount -t tmpfs -o size=12m none {0} && qemu-img create -q -f \
             qcow2 {0}/disk 64M && dd if=/dev/zero of={0}/ballast bs=1M count=4 2>/dev/null && exec {1} \"$@\"' dormer \"$@\"\n",
            small.display(),
            dormer().display()
        ),
    )?;
    guests::packages::run(Command::new("chmod").arg("+x").arg(&script))?;
    let builder = Builder::new(&script)
        .args("-machine virt -cpu max -m 512M -smp 1 -drive")
        .arg(format!("if=virtio,id=d,file={}/disk", small.display()));
    let mut machine = run_linux(builder, FILL, "")?;
    let event = machine.qmp()?.event("BLOCK_IO_ERROR", PATIENCE)?;
    ensure!(event["data"]["nospace"] == true, "{event}");
    ensure!(event["data"]["action"] == "stop", "{event}");
    machine.qmp()?.event("STOP", PATIENCE)?;
    let status = machine.qmp()?.call("query-status", json!({}))?;
    ensure!(status["status"] == "io-error", "{status}");
    // What is needed is said before the event is told, but may be read later.
    machine.complained("free some space")?;
    // With no more room it stops again, and has lost nothing.
    machine.qmp()?.call("cont", json!({}))?;
    machine.qmp()?.event("STOP", PATIENCE)?;
    // Room is made in the machine's own view of the host.
    let view = format!("/proc/{}/root{}", machine.id(), small.display());
    std::fs::remove_file(format!("{view}/ballast"))?;
    guests::packages::run(
        Command::new("nsenter")
            .args(["--user", "--mount", "--preserve-credentials", "-t"])
            .arg(machine.id().to_string())
            .args(["mount", "-o", "remount,size=64m"])
            .arg(&small),
    )?;
    machine.qmp()?.call("cont", json!({}))?;
    machine.expect("dormer: written", PATIENCE)?;
    machine.expect("dormer: whole", PATIENCE)?;
    ensure!(machine.wait(PATIENCE)?.success());
    Ok(())
}
