//! The distribution's kernel on Dormer's machine: by device tree and by ACPI, over processors and interrupt controllers.
//!
//! CI runs one row an axis; `DORMER_MATRIX=full` runs them all.

mod common;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{PATIENCE, dormer};
use guests::run::{Builder, Machine};
use guests::{initrd, iso};

/// Tells what the kernel found, then ends.
const SCRIPT: &str = r#"
n=0; until grep -q Keyboard /proc/bus/input/devices || [ $n -ge 100 ]; do sleep 0.1; n=$((n + 1)); done
echo "dormer: cpus $(grep -c ^processor /proc/cpuinfo)"
echo "dormer: acpi $([ -d /sys/firmware/acpi/tables ] && echo yes || echo no)"
echo "dormer: efi $([ -d /sys/firmware/efi ] && echo yes || echo no)"
echo "dormer: gic $(grep -o -m1 'GIC[a-zA-Z0-9-]*' /proc/interrupts)"
echo "dormer: disk $(ls /sys/class/block | tr '\n' ' ')"
echo "dormer: input $(grep -c Keyboard /proc/bus/input/devices)"
grep -i -e msi -e LPI /proc/interrupts | head -n 3
echo "dormer: log begins"
dmesg -r | grep '^<[0-4]>' | sed 's/^<.>\[ *[0-9.]*\] //'
echo "dormer: log ends"
poweroff -f
"#;

#[derive(Clone, Copy, Debug)]
enum Boot {
    /// `-kernel` alone: device tree.
    Kernel,
    /// Firmware with `-kernel`: ACPI.
    Firmware,
    /// Firmware, shim and GRUB from a USB stick: ACPI.
    Grub,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    boot: Boot,
    machine: &'static str,
    acpi: bool,
    cpus: u32,
}

/// One row an axis: boot, interrupt controller, MSI kind, processors, tables.
const ROWS: &[Row] = &[
    Row {
        boot: Boot::Kernel,
        machine: "virt",
        acpi: false,
        cpus: 1,
    },
    Row {
        boot: Boot::Kernel,
        machine: "virt,gic-version=2",
        acpi: false,
        cpus: 2,
    },
    Row {
        boot: Boot::Kernel,
        machine: "virt,gic-version=3",
        acpi: false,
        cpus: 4,
    },
    Row {
        boot: Boot::Firmware,
        machine: "virt",
        acpi: true,
        cpus: 2,
    },
    Row {
        boot: Boot::Firmware,
        machine: "virt,gic-version=3",
        acpi: true,
        cpus: 4,
    },
    Row {
        boot: Boot::Firmware,
        machine: "virt,gic-version=2",
        acpi: true,
        cpus: 1,
    },
    Row {
        boot: Boot::Firmware,
        machine: "virt,acpi=off",
        acpi: false,
        cpus: 2,
    },
    Row {
        boot: Boot::Grub,
        machine: "virt",
        acpi: true,
        cpus: 4,
    },
    Row {
        boot: Boot::Kernel,
        machine: "virt,msi=none",
        acpi: false,
        cpus: 2,
    },
    Row {
        boot: Boot::Kernel,
        machine: "virt,highmem=off",
        acpi: false,
        cpus: 2,
    },
];

fn rows() -> Vec<Row> {
    if std::env::var("DORMER_MATRIX").as_deref() != Ok("full") {
        return ROWS.to_vec();
    }
    let mut rows = Vec::new();
    for boot in [Boot::Kernel, Boot::Firmware, Boot::Grub] {
        for machine in [
            "virt",
            "virt,gic-version=2",
            "virt,gic-version=3",
            "virt,gic-version=3,msi=gicv2m",
            "virt,msi=none",
            "virt,acpi=off",
            "virt,acpi=off,gic-version=2",
            "virt,acpi=off,gic-version=3",
            "virt,highmem=off",
        ] {
            for cpus in [1, 2, 4] {
                let acpi = !matches!(boot, Boot::Kernel) && !machine.contains("acpi=off");
                rows.push(Row {
                    boot,
                    machine,
                    acpi,
                    cpus,
                });
            }
        }
    }
    rows
}

fn start(program: &std::path::Path, row: Row, script: &str, devices: &str) -> Result<Machine> {
    let kernel = guests::kernel()?;
    let initrd = initrd::build(&kernel, initrd::MODULES, script, &[])?;
    let mut builder = Builder::new(program)
        .args(&format!(
            "-machine {} -cpu max -m 1G -smp {}",
            row.machine, row.cpus
        ))
        .args("-device qemu-xhci -device usb-kbd -device usb-tablet -device ramfb")
        .args(devices);
    if !matches!(row.boot, Boot::Kernel) {
        builder = builder.arg("-bios").arg(common::firmware("QEMU_EFI.fd")?);
    }
    if matches!(row.boot, Boot::Grub) {
        let medium = iso::bootable("linux.iso", &kernel.image, &initrd, "console=ttyAMA0")?;
        return builder
            .arg("-drive")
            .arg(format!(
                "file={},media=cdrom,if=none,id=inst",
                medium.display()
            ))
            .args("-device usb-storage,drive=inst")
            .start();
    }
    builder
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args("-append console=ttyAMA0")
        .start()
}

/// What the guest said after `dormer: KEY `.
fn said<'a>(log: &'a str, key: &str) -> Option<&'a str> {
    log.lines().find_map(|line| {
        line.trim()
            .strip_prefix("dormer: ")?
            .strip_prefix(key)
            .map(str::trim)
    })
}

fn warnings(log: &str) -> Vec<String> {
    log.lines()
        .map(str::trim_end)
        .skip_while(|line| !line.contains("dormer: log begins"))
        .skip(1)
        .take_while(|line| !line.contains("dormer: log ends"))
        // How long an interrupt took is the host's load, or what a tier is slowed down by on purpose.
        .filter(|line| !line.starts_with("hrtimer: interrupt took"))
        .map(str::to_string)
        .collect()
}

#[test]
fn boots_in_every_row() -> Result<()> {
    for row in rows() {
        let mut machine = start(dormer(), row, SCRIPT, "").with_context(|| format!("{row:?}"))?;
        machine
            .expect("dormer: log ends", PATIENCE)
            .with_context(|| format!("{row:?}"))?;
        let status = machine
            .wait(Duration::from_secs(60))
            .with_context(|| format!("{row:?}"))?;
        ensure!(status.success(), "{row:?}: {status} {}", machine.errors());
        let log = machine.log();
        let facts = [
            ("cpus", row.cpus.to_string()),
            ("acpi", if row.acpi { "yes" } else { "no" }.to_string()),
            (
                "efi",
                if matches!(row.boot, Boot::Kernel) {
                    "no"
                } else {
                    "yes"
                }
                .to_string(),
            ),
            (
                "gic",
                if row.machine.contains("gic-version=2") {
                    "GIC-0"
                } else {
                    "GICv3"
                }
                .to_string(),
            ),
            ("input", "1".to_string()),
        ];
        for (key, value) in facts {
            ensure!(
                said(&log, key) == Some(&value),
                "{row:?}: {key} is {:?}, not {value}\n{log}",
                said(&log, key)
            );
        }
        println!("{row:?}: {} lines of warnings", warnings(&log).len());
    }
    Ok(())
}

/// The kernel warns of nothing that it does not warn of on QEMU.
#[test]
fn log_is_as_clean_as_on_qemu() -> Result<()> {
    let rows = [
        Row {
            boot: Boot::Kernel,
            machine: "virt,gic-version=3",
            acpi: false,
            cpus: 2,
        },
        Row {
            boot: Boot::Firmware,
            machine: "virt,gic-version=3",
            acpi: true,
            cpus: 2,
        },
    ];
    for row in rows {
        let mut logs = Vec::new();
        for program in [dormer(), std::path::Path::new("qemu-system-aarch64")] {
            let mut machine = start(program, row, SCRIPT, "")?;
            machine.expect("dormer: log ends", PATIENCE)?;
            logs.push(warnings(&machine.log()));
        }
        let ours: Vec<_> = logs[0]
            .iter()
            .filter(|line| !logs[1].contains(line))
            .collect();
        ensure!(
            ours.is_empty(),
            "{row:?}: warnings that QEMU's guest does not have: {ours:#?}"
        );
    }
    Ok(())
}

/// Ten guest resets in a row at four processors each come up again.
#[test]
fn ten_resets_from_linux() -> Result<()> {
    let row = Row {
        boot: Boot::Kernel,
        machine: "virt",
        acpi: false,
        cpus: 4,
    };
    let script = "echo \"dormer: up $(grep -c ^processor /proc/cpuinfo)\"\nread go\nreboot -f\n";
    let mut machine = start(dormer(), row, script, "")?;
    for _ in 0..=10 {
        machine.expect("dormer: up 4", PATIENCE)?;
        machine.send("go\n")?;
    }
    Ok(())
}

/// QMP resets in the middle of whatever the guest does.
#[test]
fn ten_resets_by_qmp() -> Result<()> {
    let row = Row {
        boot: Boot::Kernel,
        machine: "virt",
        acpi: false,
        cpus: 4,
    };
    let script = "echo \"dormer: up $(grep -c ^processor /proc/cpuinfo)\"\nwhile :; do :; done\n";
    let mut machine = start(dormer(), row, script, "")?;
    for round in 0..10u64 {
        if round % 2 == 0 {
            machine.expect("dormer: up 4", PATIENCE)?;
        } else {
            std::thread::sleep(Duration::from_millis(150 * round));
        }
        machine.qmp()?.call("system_reset", serde_json::json!({}))?;
        machine.qmp()?.event("RESET", PATIENCE)?;
    }
    machine.expect("dormer: up 4", PATIENCE)?;
    Ok(())
}
