//! The window on an X display of its own: typed in, clicked, resized, paused and closed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guests::packages;

/// An X server without a screen.
struct Display {
    child: Child,
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
                "1280x900x24",
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
        Ok(Display { child, name })
    }

    /// What `xdotool` says.
    fn tool(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("xdotool");
        let said = packages::run(command.args(words).env("DISPLAY", &self.name))?;
        Ok(said.trim().to_string())
    }

    fn picture(&self, path: &Path) -> Result<()> {
        let mut command = Command::new("import");
        command
            .args(["-window", "root"])
            .arg(path)
            .env("DISPLAY", &self.name);
        packages::run(&mut command)?;
        println!("screenshot  {}", path.display());
        Ok(())
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    Ok(())
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
