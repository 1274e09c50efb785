//! The monitor: on a socket, by QMP, on standard input, and on a terminal that the guest has too.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use common::{PATIENCE, dormer, run_linux};
use guests::run::Builder;
use serde_json::json;

const GREETING: &str = "QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) ";

/// Somebody at a monitor's socket.
struct Client(UnixStream);

impl Client {
    fn connect(path: &Path) -> Result<Client> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Client(stream);
        let greeting = client.prompt()?;
        ensure!(GREETING.starts_with(&greeting), "{greeting}");
        Ok(client)
    }

    /// What comes until the next prompt.
    fn prompt(&mut self) -> Result<String> {
        let mut said = String::new();
        while !said.ends_with("(qemu) ") {
            let mut chunk = [0; 4096];
            match self.0.read(&mut chunk)? {
                0 => bail!("the monitor hung up after: {said}"),
                n => said.push_str(&String::from_utf8_lossy(&chunk[..n])),
            }
        }
        Ok(said.trim_end_matches("(qemu) ").to_string())
    }

    fn say(&mut self, line: &str) -> Result<String> {
        writeln!(self.0, "{line}")?;
        self.prompt().with_context(|| line.to_string())
    }
}

/// A machine with nothing but zeroes to run.
fn idle(folder: &Path) -> Result<Builder> {
    let firmware = folder.join("firmware");
    std::fs::write(&firmware, [0; 4096])?;
    Ok(Builder::new(dormer())
        .args("-machine virt -accel jit -smp 2 -name foo -S -bios")
        .arg(firmware))
}

#[test]
fn a_machine_is_driven_over_a_socket_and_by_qmp() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("monitor");
    let mut machine = idle(folder.path())?
        .arg("-monitor")
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .start()?;
    let mut client = Client::connect(&socket)?;
    let mut other = Client::connect(&socket)?;
    let by_qmp = |machine: &mut guests::run::Machine, line: &str| -> Result<String> {
        let arguments = json!({ "command-line": line });
        let answer = machine.qmp()?.call("human-monitor-command", arguments)?;
        Ok(answer.as_str().unwrap_or_default().to_string())
    };
    for line in [
        "info status",
        "info name",
        "info jit",
        "help",
        "nonsense",
        "stop x",
    ] {
        let (one, two) = (client.say(line)?, by_qmp(&mut machine, line)?);
        ensure!(!one.is_empty() && one == two, "{line}: {one:?}, {two:?}");
    }
    ensure!(client.say("info status")? == "VM status: paused (prelaunch)\r\n");
    ensure!(other.say("cont")?.is_empty());
    machine.qmp()?.event("RESUME", PATIENCE)?;
    ensure!(client.say("info status")? == "VM status: running\r\n");
    // A processor tells of itself while it runs.
    ensure!(client.say("info registers -a")?.contains("\r\nCPU#1\r\n"));
    ensure!(by_qmp(&mut machine, "stop")?.is_empty());
    machine.qmp()?.event("STOP", PATIENCE)?;
    ensure!(other.say("info status")? == "VM status: paused\r\n");
    ensure!(other.say("system_reset")?.is_empty());
    let event = machine.qmp()?.event("RESET", PATIENCE)?;
    ensure!(event["data"]["reason"] == "host-qmp-system-reset");
    // What is no text, and what is too long, ends nothing.
    client.0.write_all(b"\xff\xfe\x00\x1b[\n")?;
    ensure!(client.prompt()?.contains("unknown command"));
    let long = "x".repeat(1 << 20);
    ensure!(client.say(&long)? == "the line is too long\r\n");
    client.0.write_all(b"quit\n")?;
    let event = machine.qmp()?.event("SHUTDOWN", PATIENCE)?;
    ensure!(event["data"]["reason"] == "host-qmp-quit");
    ensure!(machine.wait(PATIENCE)?.success(), "{}", machine.errors());
    let mut rest = Vec::new();
    ensure!(other.0.read_to_end(&mut rest)? == 0);
    ensure!(!socket.exists());
    Ok(())
}

#[test]
fn on_standard_input() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut machine = idle(folder.path())?
        .args("-serial null -monitor stdio")
        .start()?;
    machine.expect(GREETING, PATIENCE)?;
    machine.send("info name\n")?;
    machine.expect("foo\r\n(qemu) ", PATIENCE)?;
    machine.send("q\n")?;
    ensure!(machine.wait(PATIENCE)?.success(), "{}", machine.errors());
    Ok(())
}

/// Says what it reads.
const ECHO: &str = r#"
echo 1 > /proc/sys/kernel/sysrq
# What the key does is the kernel's to say.
echo 7 > /proc/sys/kernel/printk
echo "dormer: ready"
while read line; do echo "dormer: got <$line>"; done
"#;

#[test]
fn a_terminal_changes_sides() -> Result<()> {
    let builder = Builder::new(dormer())
        .args("-machine virt -accel jit -cpu max -m 512M -smp 2 -serial mon:stdio");
    let mut machine = run_linux(builder, ECHO, "")?;
    machine.expect("dormer: ready", PATIENCE)?;
    machine.send("one\n")?;
    machine.expect("dormer: got <one>", PATIENCE)?;
    machine.send("\x01c")?;
    machine.expect(GREETING, PATIENCE)?;
    machine.send("info status\n")?;
    machine.expect("VM status: running\r\n(qemu) ", PATIENCE)?;
    machine.send("info jit\n")?;
    let jit = machine.expect("(qemu) ", PATIENCE)?;
    let translates = cfg!(all(target_arch = "x86_64", target_os = "linux"));
    for cpu in ["CPU #0:", "CPU #1:"] {
        ensure!(!translates || jit.contains(cpu), "{jit}");
    }
    ensure!(!jit.contains("translations 0 "), "{jit}");
    // The guest is stopped: what is typed for it waits, and the way back is open.
    machine.send("stop\n\x01c")?;
    machine.expect("(qemu) ", PATIENCE)?;
    machine.send("a line that is longer than the FIFO of the UART\n")?;
    machine.send("\x01cinfo status\n")?;
    machine.expect("\r\n(qemu) VM status: paused\r\n(qemu) ", PATIENCE)?;
    machine.send("c\n\x01c")?;
    machine.expect(
        "got <a line that is longer than the FIFO of the UART>",
        PATIENCE,
    )?;
    // Linux takes a break for the key that its console lacks.
    machine.send("\x01bh")?;
    machine.expect("sysrq: HELP", PATIENCE)?;
    machine.send("\x01h")?;
    machine.expect("C-a x    exit emulator", PATIENCE)?;
    machine.send("\x01x")?;
    ensure!(machine.wait(PATIENCE)?.success(), "{}", machine.errors());
    Ok(())
}
