//! The window on an X display of its own: typed in, clicked, resized, paused and closed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guests::packages;
use guests::run::{Builder, Machine};

/// An X server without a screen, and a window manager for titles and frames.
struct Display {
    child: Child,
    manager: Option<Child>,
    name: String,
}

impl Display {
    fn start() -> Result<Display> {
        let mut child = Command::new("Xvfb")
            .args([
                "-displayfd",
                "1",
                "-screen",
                "0",
                "1400x900x24",
                "-wr",
                "-nolisten",
                "tcp",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start Xvfb: `cargo xtask look` installs it")?;
        let output = child.stdout.take().context("a pipe was asked for")?;
        let mut number = String::new();
        BufReader::new(output).read_line(&mut number)?;
        ensure!(!number.trim().is_empty(), "Xvfb did not start");
        let name = format!(":{}", number.trim());
        let mut display = Display {
            child,
            manager: None,
            name,
        };
        let manager = Command::new("openbox")
            .env("DISPLAY", &display.name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        display.manager =
            Some(manager.context("cannot start openbox: `cargo xtask look` installs it")?);
        Ok(display)
    }

    /// What `xdotool` says.
    fn tool(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("xdotool");
        let said = packages::run(command.args(words).env("DISPLAY", &self.name))?;
        Ok(said.trim().to_string())
    }

    /// The screen, but for the white around windows.
    fn picture(&self, path: &Path) -> Result<()> {
        let mut command = Command::new("import");
        command
            .args(["-window", "root", "-trim", "+repage"])
            .arg(path)
            .env("DISPLAY", &self.name);
        packages::run(&mut command)?;
        println!("screenshot  {}", path.display());
        Ok(())
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        for child in self.manager.iter_mut().chain([&mut self.child]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn run(program: &Path, output: &Path) -> Result<()> {
    let display = Display::start()?;
    let mut machine = super::shell(program, "window")?
        .env("DISPLAY", &display.name)
        .env("WAYLAND_DISPLAY", "")
        .start()?;
    super::prompt(&mut machine)?;
    let window = display.tool(&["search", "--sync", "--onlyvisible", "--name", "Shell"])?;
    let window = window.lines().next().context("no window")?.to_string();
    display.tool(&["windowfocus", "--sync", &window])?;
    display.tool(&["type", "--delay", "80", "echo Typed in the window!"])?;
    display.tool(&["key", "Return"])?;
    // The shell's echo is in pieces, with moves of the cursor between them: what is whole is what `echo` said.
    machine.expect("Typed in the window!", super::PATIENCE)?;
    println!("keys        reached the shell");
    display.tool(&[
        "mousemove",
        "--window",
        &window,
        "100",
        "80",
        "click",
        "1",
        "click",
        "4",
    ])?;
    std::thread::sleep(Duration::from_secs(1));
    display.picture(&output.join("window.png"))?;

    display.tool(&["key", "ctrl+alt+p"])?;
    title(&display, &window, "[paused]")?;
    display.tool(&["key", "ctrl+alt+p"])?;
    title(&display, &window, "Shell")?;
    println!("pause       and on again, by Ctrl-Alt-P");

    display.tool(&["windowsize", "--sync", &window, "1100", "600"])?;
    std::thread::sleep(Duration::from_secs(1));
    display.picture(&output.join("window-resized.png"))?;

    display.tool(&["key", "ctrl+alt+q"])?;
    title(&display, &window, "again ends the machine")?;
    display.tool(&["key", "ctrl+alt+q"])?;
    ensure!(
        machine.wait(Duration::from_secs(30))?.success(),
        "the machine ended with an error"
    );
    println!("end         by Ctrl-Alt-Q twice");
    pointer(&display, program)
}

/// Prints what the tablet's driver tells, an event a line: `struct input_event` in hexadecimal digits.
const EVENTS: &str = r#"
until tablet=$(grep -l Tablet /sys/class/input/event*/device/name 2>/dev/null); do sleep 0.1; done
hexdump -v -e '24/1 "%02x" "\n"' /dev/input/$(echo $tablet | cut -d/ -f5) &
sleep 1
echo "dormer: pointer ready"
read go
poweroff -f
"#;

/// Kinds and codes of events (Linux, input-event-codes.h).
const KEY_LEFT: (u16, u16) = (1, 0x110);
const KEY_RIGHT: (u16, u16) = (1, 0x111);
const ABS_X: (u16, u16) = (3, 0);
const ABS_Y: (u16, u16) = (3, 1);

/// The guest's screen gets the window's size, and where the pointer is in the window is where it is in the guest.
fn pointer(display: &Display, program: &Path) -> Result<()> {
    let kernel = guests::kernel()?;
    let modules = [
        "virtio_pci",
        "virtio-gpu",
        "xhci-pci",
        "usbhid",
        "hid-generic",
        "evdev",
    ];
    let initrd = guests::initrd::build(&kernel, &modules, EVENTS, &[])?;
    let mut machine = Builder::new(program)
        .args("-machine virt -cpu max -m 512M -name Linux -display window")
        .args("-device qemu-xhci -device usb-kbd -device usb-tablet -device virtio-gpu-pci")
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args("-append")
        .arg("console=tty0 console=ttyAMA0 quiet")
        .env("DISPLAY", &display.name)
        .env("WAYLAND_DISPLAY", "")
        .start()?;
    machine.expect("dormer: pointer ready", super::PATIENCE)?;
    let window = display.tool(&["search", "--sync", "--onlyvisible", "--name", "Linux"])?;
    let window = window.lines().next().context("no window")?.to_string();
    let click = |machine: &Machine, at: (&str, &str), button: &str, wanted: [i32; 2], key| {
        let place = ["mousemove", "--window", &window, at.0, at.1];
        display.tool(&[&place[..], &["click", button]].concat())?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let events = events(&machine.log());
            let last = |kind| {
                let of_kind = |e: &&((u16, u16), i32)| e.0 == kind;
                events.iter().rev().find(of_kind).map(|e| e.1)
            };
            let found = [last(ABS_X), last(ABS_Y)].map(|v| v.unwrap_or(-1));
            // 0 to 32767 are the edges; a pixel of the host is a few hundredths.
            let near = (0..2).all(|i| found[i].abs_diff(wanted[i]) < 80);
            if near && events.contains(&(key, 0)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("clicked at {at:?}, the guest has {found:?} in place of {wanted:?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    click(&machine, ("640", "200"), "1", [16384, 8192], KEY_LEFT)?;
    println!("click       reached the tablet where it was");
    display.tool(&["windowsize", "--sync", &window, "1000", "400"])?;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let folder = machine.folder().to_path_buf();
        let picture = machine.qmp()?.screen(&folder)?;
        if (picture.width, picture.height) == (1000, 400) {
            break;
        }
        let (width, height) = (picture.width, picture.height);
        ensure!(
            Instant::now() < deadline,
            "the guest keeps {width}x{height}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("size        of the window is the guest's");
    click(&machine, ("250", "100"), "3", [8192, 8192], KEY_RIGHT)?;
    println!("click       the same there");
    machine.send("go\n")?;
    ensure!(machine.wait(Duration::from_secs(60))?.success());
    Ok(())
}

/// Kind, code and value of the events in a log.
fn events(log: &str) -> Vec<((u16, u16), i32)> {
    let event = |line: &str| {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(line.trim().as_bytes())
            .ok()?;
        let bytes: [u8; 24] = bytes.try_into().ok()?;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let value = i32::from_le_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]);
        Some(((half(16), half(18)), value))
    };
    log.lines().filter_map(event).collect()
}

/// Waits until the title says so; "Shell" is all of it.
fn title(display: &Display, window: &str, wanted: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let title = display.tool(&["getwindowname", window])?;
        if title == wanted || (wanted != "Shell" && title.contains(wanted)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the title stays '{title}', without '{wanted}'");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
