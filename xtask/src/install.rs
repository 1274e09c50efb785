//! Debian installs itself, unattended, from a mirror on the host's loopback onto NVMe, and starts from its own disk: by each
//! kind of network card. Then the installed system runs on the machine that people start afterwards.
//! docs/installed.md tells what is checked.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guests::mirror::{Server, mirror};
use guests::packages::Suite;
use guests::run::{Builder, Machine};
use guests::screen::Picture;
use guests::sound::{position, samples, tones};
use guests::unattended;
use guests::vnc::ask_for_size;

/// For each step, on a slow, busy host.
const PATIENCE: Duration = Duration::from_secs(2400);
/// Bytes that go each way by HTTP.
const LENGTH: usize = 8 << 20;

#[derive(clap::Args)]
pub struct Arguments {
    /// The network card; both without.
    #[arg(long, value_enum)]
    network: Vec<Network>,
    /// Dormer, built before.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Where disks, variables and pictures go.
    #[arg(long, default_value = "target/install")]
    output: PathBuf,
    /// Use what was installed there before.
    #[arg(long)]
    installed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Network {
    VirtioNet,
    UsbNcm,
}

impl Network {
    fn name(self) -> &'static str {
        match self {
            Network::VirtioNet => "virtio-net",
            Network::UsbNcm => "usb-ncm",
        }
    }

    fn device(self) -> &'static str {
        match self {
            Network::VirtioNet => "virtio-net-pci,netdev=n",
            Network::UsbNcm => "usb-ncm,netdev=n",
        }
    }

    /// Linux's.
    fn driver(self) -> &'static str {
        match self {
            Network::VirtioNet => "virtio_net",
            Network::UsbNcm => "cdc_ncm",
        }
    }
}

/// Installs, and looks at what came of it.
pub fn run(arguments: &Arguments) -> Result<()> {
    crate::setup::run(crate::setup::Purpose::Everything)?;
    let program = match &arguments.program {
        // The last machine is started in another folder.
        Some(program) => std::path::absolute(program)?,
        None => crate::demo::build()?,
    };
    let networks = match arguments.network.as_slice() {
        [] => &[Network::VirtioNet, Network::UsbNcm],
        given => given,
    };
    let component = unattended::component()?;
    let folder = mirror(Suite::Bookworm, &unattended::PACKAGES, &component)?;
    for network in networks {
        let output = arguments.output.join(network.name());
        std::fs::create_dir_all(&output)?;
        let output = output.canonicalize()?;
        println!("{} in {}", network.name(), output.display());
        let server = Server::start(&folder)?;
        install(&program, *network, &server, &output, arguments.installed)
            .with_context(|| format!("with {}", network.name()))?;
    }
    let output = arguments.output.join(networks[0].name()).canonicalize()?;
    println!("the machine of afterwards in {}", output.display());
    afterwards(&program, &output)?;
    println!("with Secure Boot");
    secure(&program, &output)
}

/// A machine whose system is driven on its serial line.
struct Guest {
    machine: Machine,
    start: Instant,
}

impl Guest {
    fn start(builder: Builder) -> Result<Guest> {
        let start = Instant::now();
        let machine = builder.start()?;
        Ok(Guest { machine, start })
    }

    fn phase(&self, name: &str) {
        println!("{:>8.1} s  {name}", self.start.elapsed().as_secs_f64());
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        // What the installer says when it cannot go on.
        let failures = ["install: failed", "!! ERROR", "Prompt: '?' for help"];
        let all = [&[text], &failures[..]].concat();
        let (which, before) = self.machine.expect_any(&all, PATIENCE)?;
        ensure!(which == 0, "it cannot go on: {before}\n{}", self.tail());
        self.phase(text);
        Ok(())
    }

    fn tail(&self) -> String {
        let log = self.machine.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn log_in(&mut self) -> Result<()> {
        self.machine.expect(" login: ", PATIENCE)?;
        self.phase("login");
        self.machine.send("root\n")?;
        self.machine.expect("Password: ", PATIENCE)?;
        self.machine.send(&format!("{}\n", unattended::PASSWORD))?;
        self.machine.expect("~#", PATIENCE)?;
        // Neither the kernel's messages nor escape sequences in the middle of answers.
        self.said(
            "dmesg -n 1; stty -echo; export TERM=dumb PS1=; bind 'set enable-bracketed-paste off'",
        )?;
        Ok(())
    }

    /// What a command says; it has to succeed.
    fn said(&mut self, command: &str) -> Result<String> {
        self.machine
            .send(&format!("{command}; echo \"stat\"\"us: $?\"\n"))?;
        // What is typed is echoed, and looks different there.
        let before = self.machine.expect("status: ", PATIENCE)?;
        let status = self.machine.expect("\n", PATIENCE)?;
        ensure!(
            status.trim() == "0",
            "{command}: status {}: {before}",
            status.trim()
        );
        Ok(before.replace('\r', ""))
    }

    /// A command says something.
    fn says(&mut self, command: &str, wanted: &str) -> Result<()> {
        let said = self.said(command)?;
        ensure!(said.contains(wanted), "{command}: no '{wanted}' in {said}");
        println!("            {command}: {wanted}");
        Ok(())
    }

    fn power_off(mut self) -> Result<()> {
        self.machine.send("systemctl poweroff\n")?;
        let status = self.machine.wait(PATIENCE)?;
        self.phase("off");
        ensure!(status.success(), "{status}: {}", self.machine.errors());
        Ok(())
    }
}

fn install(
    program: &Path,
    network: Network,
    server: &Server,
    output: &Path,
    installed: bool,
) -> Result<()> {
    let port = server.port();
    server.add(
        "/preseed.cfg",
        unattended::answers(port, "/dev/nvme0n1").into_bytes(),
    );
    let (disk, variables) = (output.join("disk.qcow2"), output.join("variables.fd"));
    let medium = output.join("installer.iso");
    if !installed {
        unattended::medium(&medium, port)?;
        let _ = std::fs::remove_file(&disk);
        guests::image(&disk, "qcow2", "8G")?;
        std::fs::copy(
            guests::firmware(Suite::Bookworm, "AAVMF_VARS.fd")?,
            &variables,
        )?;
    }
    let code = guests::firmware(Suite::Bookworm, "AAVMF_CODE.fd")?;
    let (web, iperf) = (free_port()?, free_port()?);
    let builder = Builder::new(program)
        .args("-machine virt -cpu max -accel jit -m 2G -smp 2")
        .flash(&code, &variables)
        .args("-device qemu-xhci -device usb-kbd -device usb-tablet -drive")
        .arg(format!(
            "file={},media=cdrom,if=none,id=inst",
            medium.display()
        ))
        .args("-device usb-storage,drive=inst -drive")
        .arg(format!(
            "file={},if=none,id=disk,cache=unsafe",
            disk.display()
        ))
        .args("-device nvme,drive=disk,serial=disk -netdev")
        .arg(format!(
            "user,id=n,hostfwd=tcp:127.0.0.1:{web}-:80,hostfwd=tcp:127.0.0.1:{iperf}-:5201"
        ))
        .args(&format!("-device {}", network.device()));
    let mut guest = Guest::start(builder)?;
    if !installed {
        for step in [
            "partitions",
            "base system",
            "packages",
            "boot loader",
            "done",
        ] {
            guest.expect(&format!("install: {step}"))?;
        }
        let reset = guest.machine.qmp()?.event("RESET", PATIENCE)?;
        ensure!(reset["data"]["guest"] == true, "{reset}");
        let (files, bytes) = server.served();
        println!(
            "            the mirror sent {files} files of {} MiB",
            bytes >> 20
        );
        ensure!(files > 100, "the system did not come from the mirror");
    }
    guest.log_in()?;
    // The installer's medium is still there: the firmware's first entry is the disk's.
    guest.says(
        "efibootmgr | grep \"$(efibootmgr | sed -n 's/BootCurrent: //p')\\*\"",
        "debian",
    )?;
    guest.says("findmnt -no SOURCE /", "/dev/nvme0n1p2")?;
    guest.says("findmnt -no SOURCE /boot/efi", "/dev/nvme0n1p1")?;
    guest.says("lsblk -no NAME,TYPE /dev/sr0", "rom")?;
    guest.says("lsusb", "Dormer USB CD-ROM")?;
    on_the_network(&mut guest, network, server, web, iperf)?;
    guest.says("systemctl is-system-running --wait || true", "running")?;
    guest.power_off()
}

/// A port that is free now, and hardly anybody else's soon.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn pattern() -> Vec<u8> {
    (0..LENGTH).map(|i| ((i * 31) >> 7) as u8).collect()
}

fn on_the_network(
    guest: &mut Guest,
    network: Network,
    server: &Server,
    web: u16,
    iperf: u16,
) -> Result<()> {
    guest.says("ip -4 -o addr show scope global", "10.0.2.15/24")?;
    guest.says(
        "readlink /sys/class/net/$(ip -o route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/')/device/driver",
        network.driver(),
    )?;
    // By HTTP, from the guest: there and back.
    let data = pattern();
    server.add("/pattern", data.clone());
    let there = format!("http://10.0.2.2:{}", server.port());
    guest.said(&format!(
        "curl -sSf -o pattern {there}/pattern && curl -sSf -T pattern {there}/back"
    ))?;
    let back = server.document("/back").unwrap_or_default();
    ensure!(
        back == data,
        "{} bytes came back, not the {LENGTH} that went",
        back.len()
    );
    // And from the host.
    guest.said("mkdir -p web && mv pattern web && busybox httpd -p 80 -h /root/web")?;
    let got = get(web, "/pattern")?;
    ensure!(
        got == data,
        "{} bytes came from the guest, not {LENGTH}",
        got.len()
    );
    println!(
        "            HTTP: {} MiB each way, from each side",
        LENGTH >> 20
    );
    for (way, option) in [
        ("to the guest", None),
        ("from the guest", Some("--reverse")),
    ] {
        // One for each run: between two, a server does not listen for a moment, and the guest resets who asks then.
        guest.said(
            "iperf3 --server --one-off --daemon; until ss -ltn | grep -q ':5201 '; do sleep 0.1; done",
        )?;
        let mut command = Command::new("iperf3");
        command.args(["--client", "127.0.0.1", "--time", "5", "--json", "--port"]);
        let said = guests::packages::run(command.arg(iperf.to_string()).args(option))?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        let rate = said["end"]["sum_received"]["bits_per_second"].as_f64();
        let rate = rate.with_context(|| format!("iperf3 says no rate: {said}"))?;
        ensure!(rate > 1e6, "{rate} bit/s {way}");
        println!("            iperf3 {way}: {:.0} Mbit/s", rate / 1e6);
    }
    Ok(())
}

/// A page of a server on the loopback.
fn get(port: u16, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.context("an answer without a head")?;
    ensure!(
        answer.starts_with(b"HTTP/1") && answer[..end].windows(5).any(|w| w == b" 200 "),
        "{}",
        String::from_utf8_lossy(&answer[..end])
    );
    Ok(answer.split_off(end + 4))
}

/// What firmware says of Secure Boot: 1 is on (UEFI 2.10, 3.3).
const SECURE_BOOT: &str = "tail -c 1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c | od -An -tu1";

/// The installed system with Secure Boot on: shim, GRUB and the kernel are signed as they were installed.
fn secure(program: &Path, output: &Path) -> Result<()> {
    let code = guests::firmware(Suite::Bookworm, "AAVMF_CODE.ms.fd")?;
    std::fs::copy(
        guests::firmware(Suite::Bookworm, "AAVMF_VARS.ms.fd")?,
        output.join("secure.fd"),
    )?;
    let builder = Builder::new(program)
        .within(output)
        .args("-machine virt -cpu max -accel jit -m 2G -smp 2")
        .flash(&code, Path::new("secure.fd"))
        .args("-drive file=disk.qcow2,if=virtio");
    let mut guest = Guest::start(builder)?;
    guest.log_in()?;
    guest.says(SECURE_BOOT, "1")?;
    guest.says("dmesg | grep -i 'secure *boot'", "enabled")?;
    guest.says("cat /sys/kernel/security/lockdown", "[integrity]")?;
    guest.power_off()
}

/// What people start once their system is installed, but for the engine; sound goes to a file, and there is a TPM.
const AFTERWARDS: &str = "-machine virt -cpu host -accel jit -m 4G -smp 4 -bios edk2-aarch64-code.fd \
    -device qemu-xhci -device usb-kbd -device usb-tablet \
    -device ramfb -vnc 127.0.0.1:0,to=99 \
    -drive file=disk.qcow2,if=virtio \
    -nic user,model=virtio-net-pci \
    -device virtio-gpu-pci \
    -device intel-hda -device hda-duplex,audiodev=sound \
    -audiodev wav,id=sound,path=played.wav,in.path=tone.wav \
    -tpmdev managed,id=tpm,state=tpm -device tpm-crb-device,tpmdev=tpm";

/// The installed system on that machine: each device is found and used.
fn afterwards(program: &Path, output: &Path) -> Result<()> {
    std::fs::copy(
        guests::firmware(Suite::Bookworm, "QEMU_EFI.fd")?,
        output.join("edk2-aarch64-code.fd"),
    )?;
    let tones = tones(&output.join("tone.wav"), 96_000)?;
    let builder = Builder::new(program).within(output).args(AFTERWARDS);
    let mut guest = Guest::start(builder)?;
    guest.log_in()?;
    guest.says("findmnt -no SOURCE /", "/dev/vda2")?;
    for (name, device) in [
        ("usb-kbd", "Dormer USB Keyboard"),
        ("usb-tablet", "Dormer USB Tablet"),
    ] {
        // Its table of names has others for these.
        let products = "lsusb -v 2> /dev/null | grep iProduct";
        guest.says(products, device).context(name)?;
        guest
            .says("cat /proc/bus/input/devices", device)
            .context(name)?;
    }
    // The card has another place than in the machine of the installation, and so another name.
    guest.said(
        "card=$(ls -d /sys/bus/pci/drivers/virtio-pci/*/virtio*/net/* | head -n 1 | sed 's,.*/,,')",
    )?;
    guest.said("dhclient -1 $card")?;
    guest.says("ip -4 -o addr show scope global", "10.0.2.15/24")?;
    guest.says("ping -c 2 10.0.2.2", "2 received")?;

    // The mode of the kernel's own console, which the driver of the GPU sets, and what is written on it.
    guest.says("cat /sys/class/drm/card0-Virtual-1/status", "connected")?;
    guest.says("cat /proc/fb", "virtio_gpu")?;
    // The console is on the firmware's frame buffer, which is ramfb's, until that is taken away.
    let firmware = "/sys/bus/platform/drivers/efi-framebuffer";
    guest.said(&format!("echo efi-framebuffer.0 > {firmware}/unbind"))?;
    guest.said("echo 1 > /sys/class/vtconsole/vtcon1/bind")?;
    let mode = guest.said("head -n 1 /sys/class/drm/card0-Virtual-1/modes")?;
    let mode = mode.lines().rev().find(|line| !line.is_empty());
    let (width, height) = mode
        .and_then(|mode| mode.split_once('x'))
        .context("no mode")?;
    let picture = grey(&mut guest, output, |_| true)?;
    ensure!(
        (picture.width.to_string(), picture.height.to_string())
            == (width.trim().into(), height.trim().into()),
        "the screen has {} x {}, and the mode is {width} x {height}",
        picture.width,
        picture.height
    );
    println!("            DRM: {width} x {height}");
    // A client of the screen is another size; the console follows.
    ask_for_size(&guest.machine.vnc()?, 1280, 720)?;
    guest.said(
        "until [ $(head -n 1 /sys/class/drm/card0-Virtual-1/modes) = 1280x720 ]; do sleep 1; done",
    )?;
    grey(&mut guest, output, |picture| {
        (picture.width, picture.height) == (1280, 720)
    })?;
    println!("            DRM: 1280 x 720 when a client asks");

    guest.says("aplay -l", "HDA Intel")?;
    guest.said("amixer -q -c 0 sset Master 100% unmute; amixer -q -c 0 sset Capture 100% cap; arecord -q -D hw:0,0 -f S16_LE -r 48000 -c 2 -s 48000 /root/recorded.wav")?;
    guest.said("aplay -q -D hw:0,0 /root/recorded.wav")?;
    guest.says(
        "tpm2_getrandom --hex 8 | grep -xE '[0-9a-f]{16}' > /dev/null && echo random",
        "random",
    )?;
    guest.says("tpm2_pcrread sha256:0,7", "0x")?;
    // This firmware has no keys.
    guest.says(SECURE_BOOT, "0")?;
    guest.power_off()?;
    heard(&tones, &samples(&output.join("played.wav"))?.1)
}

/// The picture once it is such a one and most of it is what the console is filled with.
fn grey(guest: &mut Guest, folder: &Path, wanted: impl Fn(&Picture) -> bool) -> Result<Picture> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        guest.said("printf '\\033[47m\\033[2J' > /dev/tty1")?;
        let picture = guest.machine.qmp()?.screen(folder)?;
        if wanted(&picture) && picture.share([0xaa, 0xaa, 0xaa], 24) > 0.9 {
            return Ok(picture);
        }
        ensure!(
            Instant::now() < deadline,
            "the console is not on the screen of {} x {}",
            picture.width,
            picture.height
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// What the guest recorded and played again is in the file, sample by sample.
fn heard(tones: &[i16], played: &[i16]) -> Result<()> {
    let tones = &tones[200..];
    let at = position(played, &tones[..2048])
        .context("the tone that was recorded is not in what was played")?;
    let same = tones.iter().zip(&played[at..]);
    let same = same.take_while(|(a, b)| a == b).count();
    // One second was recorded.
    ensure!(same > 75_000, "only {same} samples of the tone were played");
    println!("            sound: {same} samples of the tone, recorded and played");
    Ok(())
}
