//! Boots an installer from a USB stick and moves through its first menu.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guests::qmp::Qmp;
use guests::run::{Builder, Machine};
use guests::screen::Picture;

#[derive(clap::Args)]
pub struct Arguments {
    /// An installer's ISO; without it, Debian's is made from distribution packages.
    iso: Option<PathBuf>,
    /// Firmware image; without it, the distribution's is found.
    #[arg(long)]
    firmware: Option<PathBuf>,
    /// Where pictures of the screen go.
    #[arg(long, default_value = "target/demo")]
    output: PathBuf,
    /// Leave the machine running at its menu, to be used in a VNC viewer.
    #[arg(long)]
    stay: bool,
}

/// What the machine must have done by when, at the latest.
const PATIENCE: Duration = Duration::from_secs(900);

/// Sets up, builds, boots and looks.
pub fn run(arguments: &Arguments) -> Result<()> {
    crate::setup::run(crate::setup::Purpose::Demo)?;
    let ours = arguments.iso.is_none();
    let iso = match &arguments.iso {
        Some(iso) => iso.clone(),
        None => guests::iso::installer()?,
    };
    println!("medium      {}", iso.display());
    let dormer = build()?;
    std::fs::create_dir_all(&arguments.output)?;
    let disk = arguments.output.join("disk.qcow2");
    let _ = std::fs::remove_file(&disk);
    guests::image(&disk, "qcow2", "8G").context("no disk for the demo")?;
    let start = Instant::now();
    let mut machine = start_machine(&dormer, arguments.firmware.as_deref(), &iso, &disk)?;
    let vnc = machine.vnc()?;
    println!("screen      VNC on {vnc}");
    let phase = |name: &str| println!("{:>8.1} s  {name}", start.elapsed().as_secs_f64());
    if ours {
        machine.expect_any(&["UEFI firmware", "BdsDxe"], PATIENCE)?;
        phase("firmware");
        machine.expect_any(&["GRUB", "grub"], PATIENCE)?;
        phase("boot loader");
        machine.expect("EFI stub: Booting Linux Kernel", PATIENCE)?;
        phase("kernel");
    }
    let folder = arguments.output.canonicalize()?;
    let qmp = machine.qmp()?;
    let first = settled(qmp, &folder, ours)?;
    phase("installer");
    std::fs::rename(folder.join("screen.png"), folder.join("installer.png"))?;
    println!("screenshot  {}", folder.join("installer.png").display());
    qmp.keys("down down")?;
    let second = moved(qmp, &folder, &first)?;
    std::fs::rename(folder.join("screen.png"), folder.join("moved.png"))?;
    println!(
        "screenshot  {} ({} lines of the menu changed)",
        folder.join("moved.png").display(),
        second
    );
    if arguments.stay {
        println!("The machine runs until its end, or Ctrl-C: use it with a viewer on {vnc}");
        machine.wait(Duration::from_secs(u64::from(u32::MAX)))?;
    } else {
        machine.qmp()?.call("quit", serde_json::json!({}))?;
        ensure!(
            machine.wait(Duration::from_secs(30))?.success(),
            "the machine ended with an error"
        );
    }
    Ok(())
}

/// Builds the program for use.
pub fn build() -> Result<PathBuf> {
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args(["build", "--release", "--package", "dormer"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the build failed");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate::root().join("target"), PathBuf::from);
    Ok(target.join("release/dormer"))
}

/// The command of the seed, on this host's best engine.
fn start_machine(
    dormer: &Path,
    firmware: Option<&Path>,
    iso: &Path,
    disk: &Path,
) -> Result<Machine> {
    let mut builder = Builder::new(dormer).args("-machine virt -cpu host -m 4G -smp 4");
    if let Some(firmware) = firmware {
        builder = builder.arg("-bios").arg(firmware);
    }
    builder
        .args("-device qemu-xhci -device usb-kbd -device usb-tablet")
        .arg("-drive")
        .arg(format!("file={},media=cdrom,if=none,id=inst", escaped(iso)))
        .args("-device usb-storage,drive=inst -device ramfb")
        .arg("-drive")
        .arg(format!("file={},if=virtio", escaped(disk)))
        .args("-display vnc=127.0.0.1:0,to=99")
        .start()
}

/// A path in an option: commas are doubled.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The installer's first screen: the text installer's colours for ours, and in any case a picture that stands still.
fn settled(qmp: &mut Qmp, folder: &Path, ours: bool) -> Result<Picture> {
    let deadline = Instant::now() + PATIENCE;
    let mut last: Option<Picture> = None;
    let mut still = 0;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1000));
        // Before the firmware has set a mode there is no picture.
        let Ok(picture) = qmp.screen(folder) else {
            continue;
        };
        let blank = picture
            .pixels
            .first()
            .is_some_and(|first| picture.pixels.iter().all(|p| p == first));
        let same = last.as_ref() == Some(&picture);
        still = if same && !blank && (!ours || picture.is_text_installer()) {
            still + 1
        } else {
            0
        };
        if still >= if ours { 2 } else { 20 } {
            return Ok(picture);
        }
        last = Some(picture);
    }
    bail!("the installer's first screen did not come")
}

/// Waits until the picture has changed after keys were sent; how many lines of text did.
fn moved(qmp: &mut Qmp, folder: &Path, before: &Picture) -> Result<usize> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let picture = qmp.screen(folder)?;
        let lines = before.changed_lines(&picture, 16).len();
        if lines > 0 {
            return Ok(lines);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    bail!("the keys moved nothing on the screen")
}
