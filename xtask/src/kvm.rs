//! The KVM engine on a real KVM: Dormer's Arm build, inside an Arm Linux that QEMU emulates with its EL2.
//!
//! Everything runs emulated twice, so that this takes a quarter of an hour rather than a minute: for nights, not for each change.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guests::initrd;
use guests::packages::Suite;
use guests::run::{Builder, Machine};

/// The target of the Arm build.
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// The dynamic linker and libraries of the cross compiler that the program needs.
const LIBRARIES: &[&str] = &[
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
];
const LIBRARY_FOLDER: &str = "/usr/aarch64-linux-gnu/lib";
/// For what is emulated twice on a busy host.
const PATIENCE: Duration = Duration::from_secs(1800);

#[derive(clap::Args)]
pub struct Arguments {
    /// The hosts' interrupt controllers; both without.
    #[arg(long)]
    gic: Vec<u32>,
    /// Guest resets of each machine.
    #[arg(long, default_value_t = 5)]
    resets: u32,
    /// Build optimised for release.
    #[arg(long)]
    release: bool,
    /// Dormer for Linux on Arm, built before.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Nothing but the engine's bare-metal programs.
    #[arg(long)]
    programs_only: bool,
}

/// What the innermost guest says of itself, until it is told to start again.
const GUEST: &str = r#"
echo "guest: up $(grep -c ^processor /proc/cpuinfo)"
echo "guest: disks $(ls /sys/class/block | tr '\n' ' ')"
for disk in vda nvme0n1 sda; do
  # A USB disk is asked a second after it was found.
  tries=0
  until [ -b /dev/$disk ] || [ $tries = 300 ]; do sleep 0.2; tries=$((tries + 1)); done
  [ -b /dev/$disk ] && dd if=/dev/$disk of=/dev/null bs=64k count=16 2>/dev/null && echo "guest: read $disk"
done
echo "guest: interrupts $(grep -c -e MSI -e LPI /proc/interrupts)"
echo "guest: waits"
read word
case "$word" in
  off) poweroff -f ;;
  *) reboot -f ;;
esac
"#;

/// The Arm host: a shell, with all that the runs need beside it.
const HOST: &str = r#"
for n in 1 2 3; do dd if=/dev/zero of=/tmp/disk$n bs=1M count=8 2>/dev/null; done
ls -l /dev/kvm
echo "host: is ready"
exec setsid cttyhack sh
"#;

/// Builds, and runs every machine on every host.
pub fn run(arguments: &Arguments) -> Result<()> {
    crate::setup::run(crate::setup::Purpose::Targets)?;
    // The host unpacks all of it into its memory.
    let folder = tempfile::tempdir()?;
    let kernel = guests::kernel()?;
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, path: &Path| -> Result<()> {
        files.push((name.into(), read(path)?));
        Ok(())
    };
    let programs = folder.path().join("hypervisor");
    strip(TARGET, &build_programs()?, &programs)?;
    add("root/hypervisor", &programs)?;
    if !arguments.programs_only {
        let dormer = match &arguments.program {
            Some(program) => program.clone(),
            None => build(arguments.release)?,
        };
        let program = folder.path().join("dormer");
        strip(TARGET, &dormer, &program)?;
        add("root/dormer", &program)?;
        add("root/kernel", &kernel.image)?;
        let guest = initrd::build(&kernel, initrd::MODULES, GUEST, &[])?;
        add("root/initrd", &guest)?;
        let firmware = guests::firmware(Suite::Bookworm, "QEMU_EFI.fd")?;
        add("root/QEMU_EFI.fd", &firmware)?;
    }
    for library in LIBRARIES {
        let path = Path::new(LIBRARY_FOLDER).join(library);
        files.push((format!("lib/{library}"), read(&path)?));
    }
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, data)| (name.as_str(), data.as_slice()))
        .collect();
    let host = initrd::build(&kernel, &[], HOST, &files)?;
    let gics = match arguments.gic.as_slice() {
        [] => &[3, 2],
        given => given,
    };
    for gic in gics {
        let start = Instant::now();
        on_host(*gic, &kernel.image, &host, arguments)
            .with_context(|| format!("on a host with GICv{gic}"))?;
        println!(
            "GICv{gic} host: passes ({:.0} s)",
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A cargo command whose programs are linked for Linux on Arm.
fn cargo(verb: &str) -> Command {
    let mut command = crate::targets::cargo("cargo", verb, TARGET);
    command
        .env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "aarch64-linux-gnu-gcc",
        )
        .args(["--config", "profile.dev.debug=false"]);
    command
}

/// The engine's bare-metal programs for Linux on Arm: a test, which is not run here.
fn build_programs() -> Result<PathBuf> {
    let package = ["--package", "dormer-engine", "--test", "hypervisor"];
    let output = cargo("build")
        .args(package)
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "the build for {TARGET} failed");
    // A message a line; the program's is the one with a path to it.
    let messages = String::from_utf8(output.stdout)?;
    let program = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    program.context("cargo names no test program")
}

/// Dormer for Linux on Arm.
pub fn build(release: bool) -> Result<PathBuf> {
    let mut command = cargo("build");
    command.args(["--package", "dormer"]);
    if release {
        command.arg("--release");
    }
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "the build for {TARGET} failed");
    let profile = if release { "release" } else { "debug" };
    Ok(crate::targets::folder()
        .join(TARGET)
        .join(profile)
        .join("dormer"))
}

/// A copy of a Linux program without what only debuggers read; names of functions stay, for backtraces.
pub fn strip(target: &str, program: &Path, to: &Path) -> Result<()> {
    let tool = if target == TARGET && !cfg!(target_arch = "aarch64") {
        "aarch64-linux-gnu-strip"
    } else {
        "strip"
    };
    guests::packages::run(
        Command::new(tool)
            .args(["--strip-debug", "-o"])
            .args([to, program]),
    )?;
    Ok(())
}

struct Host {
    machine: Machine,
    start: Instant,
}

impl Host {
    fn expect(&mut self, text: &str) -> Result<String> {
        let before = self.machine.expect(text, PATIENCE)?;
        println!("{:>8.1} s  {text}", self.start.elapsed().as_secs_f64());
        Ok(before)
    }

    /// Runs Dormer with the machine's arguments; the console is the guest's from here on.
    fn dormer(&mut self, arguments: &str) -> Result<()> {
        println!("dormer system {arguments}");
        // The shell echoes what is typed: what is waited for must look different there.
        self.machine.send(&format!(
            "/root/dormer system {arguments}; echo host: e''nded $?\n"
        ))
    }
}

fn on_host(gic: u32, kernel: &Path, initrd: &Path, arguments: &Arguments) -> Result<()> {
    let resets = arguments.resets;
    let machine = Builder::new(Path::new("qemu-system-aarch64"))
        .args(&format!(
            "-machine virt,virtualization=on,gic-version={gic} -cpu max,pauth=off,sve=off,sme=off,lpa2=off -m 2G -smp 2"
        ))
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args("-append")
        .arg("console=ttyAMA0 quiet mitigations=off")
        .start()?;
    let mut host = Host {
        machine,
        start: Instant::now(),
    };
    host.expect("host: is ready")?;
    if gic == 3 {
        // They know no other interrupt controller.
        host.machine
            .send("/root/hypervisor --test-threads=1; echo host: e''nded $?\n")?;
        let said = host.expect("host: ended ")?;
        println!("{said}");
        ensure!(said.contains("test result: ok."), "a program fails");
    }
    if arguments.programs_only {
        return Ok(());
    }
    let base = format!(
        "-machine virt,gic-version={gic} -accel kvm -cpu host -nic none -display none -serial stdio"
    );
    // Firmware to its prompt, and again after resets.
    host.dormer(&format!("{base} -m 256M -smp 1 -bios /root/QEMU_EFI.fd"))?;
    for round in 0..=resets {
        host.expect("any other key to continue")?;
        host.machine.send("\x1b")?;
        host.expect("Shell>")?;
        let word = if round == resets {
            "reset -s\r"
        } else {
            "reset\r"
        };
        host.machine.send(word)?;
    }
    host.expect("host: ended 0")?;
    // The kernel, on one processor and on two, with a disk on each bus.
    let mut machines = vec![(1, format!("{base} -smp 1")), (2, format!("{base} -smp 2"))];
    if gic == 3 {
        // The board's default: GICv3 with a GICv2m frame.
        let v2m = base.replace(",gic-version=3", "");
        machines.push((2, format!("{v2m} -smp 2")));
    }
    for (cpus, arguments) in machines {
        let devices = "-device qemu-xhci -drive file=/tmp/disk1,format=raw,if=none,id=u -device usb-storage,drive=u \
             -drive file=/tmp/disk2,format=raw,if=none,id=n -device nvme,drive=n,serial=n \
             -drive file=/tmp/disk3,format=raw,if=virtio";
        host.dormer(&format!(
            "{arguments} -m 384M -kernel /root/kernel -initrd /root/initrd -append 'console=ttyAMA0 quiet' {devices}"
        ))?;
        for round in 0..=resets {
            host.expect(&format!("guest: up {cpus}"))?;
            let said = host.expect("guest: waits")?;
            for disk in ["vda", "nvme0n1", "sda"] {
                ensure!(
                    said.contains(&format!("guest: read {disk}")),
                    "no disk {disk}: {said}"
                );
            }
            let word = if round == resets { "off\n" } else { "go\n" };
            host.machine.send(word)?;
        }
        host.expect("host: ended 0")?;
    }
    Ok(())
}
