//! A TPM: measured into by stock EDK II, used by the distribution's kernel.

mod common;

use std::time::Duration;

use anyhow::{Result, ensure};
use common::{PATIENCE, dormer};
use guests::initrd;
use guests::packages::Suite;
use guests::run::{Builder, Machine};

/// What the kernel makes of it: its log, PCRs, random numbers by TPM2_GetRandom on the device itself, the event log.
const SCRIPT: &str = r#"
mount -t securityfs none /sys/kernel/security
exec 3<>/dev/tpm0
printf '\200\001\000\000\000\014\000\000\001\173\000\020' >&3
echo "dormer: random $(dd bs=4096 count=1 <&3 2>/dev/null | od -An -tx1 | tr -d ' \n')"
exec 3>&-
for pcr in 0 1 4 7 16; do
  echo "dormer: pcr$pcr $(cat /sys/class/tpm/tpm0/pcr-sha256/$pcr)"
done
echo "dormer: log $(cat /sys/kernel/security/tpm0/binary_bios_measurements | wc -c)"
dmesg | grep -i 'tpm tpm0'
echo "dormer: done"
read again
[ "$again" = reboot ] && reboot -f
poweroff -f
"#;

fn start(backend: &[String], device: &str) -> Result<Machine> {
    let kernel = guests::kernel()?;
    let modules = ["tpm_tis", "efivarfs"];
    let mut builder = Builder::new(dormer())
        .args("-machine virt -cpu max -m 1G -smp 2 -bios")
        .arg(guests::firmware(Suite::Bookworm, "QEMU_EFI.fd")?)
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd::build(&kernel, &modules, SCRIPT, &[])?)
        .arg("-append")
        // Not `quiet`, which the kernel's EFI stub obeys too.
        .arg("console=ttyAMA0 loglevel=3")
        .args(device);
    for word in backend {
        builder = builder.arg(word);
    }
    builder.start()
}

/// The value that the script tells of `what`.
fn told(log: &str, what: &str) -> Result<String> {
    let words = format!("dormer: {what} ");
    let found = log.lines().rev().find_map(|line| line.split_once(&words));
    let (_, value) =
        found.ok_or_else(|| anyhow::anyhow!("the guest does not tell '{what}': {log}"))?;
    Ok(value.trim().to_string())
}

fn check(log: &str) -> Result<()> {
    let random = told(log, "random")?;
    // 28 bytes in all, success, 16 of them random.
    ensure!(random.len() == 56, "{random}");
    ensure!(random.starts_with("80010000001c000000000010"), "{random}");
    for pcr in [0, 1, 4, 7] {
        let value = told(log, &format!("pcr{pcr}"))?;
        ensure!(value.len() == 64, "PCR {pcr}: {value}");
        ensure!(
            value.bytes().any(|digit| digit != b'0'),
            "firmware did not measure into PCR {pcr}"
        );
    }
    let untouched = told(log, "pcr16")?;
    ensure!(untouched.bytes().all(|digit| digit == b'0'), "{untouched}");
    ensure!(told(log, "log")?.parse::<u32>()? > 1000, "no event log");
    ensure!(!log.contains("field failure"), "{log}");
    Ok(())
}

/// By a child process: firmware measures the same again after a reset, and the state outlives the machine.
#[test]
fn managed_and_through_a_reset() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("tpm");
    let backend = [
        "-tpmdev".to_string(),
        format!("managed,id=t,state={}", state.display()),
    ];
    let mut machine = start(&backend, "-device tpm-crb-device,tpmdev=t")?;
    let first = machine.expect("dormer: done", PATIENCE)?;
    check(&first)?;
    machine.send("reboot\n")?;
    let second = machine.expect("dormer: done", PATIENCE)?;
    check(&second)?;
    ensure!(told(&first, "pcr0")? == told(&second, "pcr0")?);
    ensure!(told(&first, "random")? != told(&second, "random")?);
    machine.send("\n")?;
    ensure!(machine.wait(Duration::from_secs(60))?.success());
    ensure!(state.join("tpm2-00.permall").exists());
    Ok(())
}

/// By swtpm's socket, as people's command lines have it. Debian's kernel has no driver for the FIFO: firmware's measurements
/// are the evidence.
#[test]
fn emulator_by_its_socket() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("swtpm-sock");
    let mut swtpm = std::process::Command::new("swtpm")
        .args(["socket", "--tpm2", "--tpmstate"])
        .arg(format!("dir={}", folder.path().display()))
        .arg("--ctrl")
        .arg(format!("type=unixio,path={}", socket.display()))
        .spawn()?;
    for _ in 0..200 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let backend = [
        "-chardev".to_string(),
        format!("socket,id=chrtpm,path={}", socket.display()),
        "-tpmdev".into(),
        "emulator,id=tpm0,chardev=chrtpm".into(),
    ];
    let mut machine = start(&backend, "-device tpm-tis-device,tpmdev=tpm0")?;
    let log = machine.expect("dormer: done", PATIENCE)?;
    ensure!(
        log.contains("EFI stub: Measured initrd data into PCR 9"),
        "{log}"
    );
    machine.send("\n")?;
    ensure!(machine.wait(Duration::from_secs(60))?.success());
    // It ends with the machine, as QEMU's does.
    for _ in 0..250 {
        if swtpm.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    swtpm.kill()?;
    anyhow::bail!("swtpm is left behind")
}
