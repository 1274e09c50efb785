//! Network, disks, screen, and the whole machine at rest.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use guests::run::{Builder, Machine};

use super::guest::{Figure, PATIENCE, Side, idleness};
use super::rows::Row;
use super::viewer::Viewer;

/// Bytes of the disks. They are in the host's memory: its own disk is not what is measured.
const DISK: usize = 512 << 20;

/// A folder in memory, where the host has one.
fn folder() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() {
        tempfile::tempdir_in(memory)?
    } else {
        tempfile::tempdir()?
    })
}

/// What reaches the guest's address by the user network.
const ADDRESS: &str = "10.0.2.2";

impl Side<'_> {
    /// A server on the host's loopback sends, takes, or answers.
    pub(super) fn network(&self, rows: &[&'static Row]) -> Result<Vec<Figure>> {
        let mut script = String::from(
            "until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done\n\
             ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; sleep 1\n",
        );
        // Ports come as variables by the kernel's command line, so that the initial RAM disk is one for all runs.
        let mut words = String::new();
        for row in rows {
            let port = match row.name {
                "receive" => serve(send_for_ever)?,
                "send" => serve(take_all)?,
                _ => serve(answer)?,
            };
            script += &format!("/bin/io {0} {0} {ADDRESS} $port_{0}\n", row.name);
            words += &format!(" port_{}={port}", row.name);
        }
        let builder = self
            .machine()
            .args("-netdev user,id=n -device virtio-net-pci,netdev=n,romfile=");
        self.figures(
            builder,
            &["virtio_pci", "virtio_net"],
            &script,
            &words,
            rows,
        )
    }

    pub(super) fn storage(&self, rows: &[&'static Row]) -> Result<Vec<Figure>> {
        let folder = folder()?;
        let mut script = String::from(
            "until [ -b /dev/vda ] && [ -b /dev/nvme0n1 ] && [ -b /dev/sda ]; do sleep 0.1; done\n",
        );
        for row in rows {
            let mut words = row.name.split('-');
            let device = match words.next() {
                Some("blk") => "/dev/vda",
                Some("nvme") => "/dev/nvme0n1",
                _ => "/dev/sda",
            };
            let what = words.next().context("a row reads or writes")?;
            let how = match words.next() {
                Some(depth) => format!("4096 {depth} random"),
                None => "131072 4".into(),
            };
            script += &format!("/bin/io {what} {} {device} {how}\n", row.name);
        }
        let mut builder = self.machine().args("-device qemu-xhci,id=usb");
        for (id, device) in [
            ("b", "virtio-blk-pci,drive=b"),
            ("n", "nvme,drive=n,serial=1"),
            ("u", "usb-storage,drive=u"),
        ] {
            let path = folder.path().join(id);
            fill(&path)?;
            builder = builder
                .arg("-drive")
                .arg(format!(
                    "file={},format=raw,if=none,id={id}",
                    path.display()
                ))
                .arg("-device")
                .arg(device);
        }
        let modules = [
            "virtio_pci",
            "virtio_blk",
            "nvme",
            "xhci-pci",
            "usb-storage",
            "sd_mod",
            "crc32c_generic",
        ];
        self.figures(builder, &modules, &script, "", rows)
    }

    /// The whole screen anew as fast as the guest can, with a viewer that always asks for more.
    pub(super) fn screen(&self) -> Result<Vec<Figure>> {
        let folder = folder()?;
        let socket = folder.path().join("vnc");
        let builder = self
            .machine()
            .args("-device virtio-gpu-pci -vnc")
            .arg(format!("unix:{}", socket.display()));
        let script = "echo init is here\nuntil [ -e /dev/dri/card0 ]; do sleep 0.1; done\n\
             /bin/io video video /dev/dri/card0\npoweroff -f\n";
        let program = std::fs::read(guests::bench::tool("io")?)?;
        let modules = ["virtio_pci", "virtio-gpu"];
        let mut machine = start(builder, &modules, script, "", &[("bin/io", &program)])?;
        let viewer = Viewer::start(&socket)?;
        let failed = "failed: ";
        if machine.expect_any(&["steady video", failed], PATIENCE)?.0 == 1 {
            bail!("the guest's program failed: {}", machine.log());
        }
        let (start, before) = (Instant::now(), viewer.pictures()?);
        machine.expect("figure video ", PATIENCE)?;
        let seen = (viewer.pictures()? - before) / start.elapsed().as_secs_f64();
        let drawn = machine.expect("\n", PATIENCE)?.trim().parse()?;
        Ok(vec![
            Figure::new("video", drawn),
            Figure::new("viewer", seen),
        ])
    }

    /// The machine that people start, but for its disks' contents; sound goes nowhere.
    pub(super) fn idle_whole(&self) -> Result<Vec<Figure>> {
        let folder = folder()?;
        let disk = folder.path().join("disk");
        fill(&disk)?;
        let builder = self
            .machine()
            .args("-device qemu-xhci -device usb-kbd -device usb-tablet -device ramfb")
            .args("-netdev user,id=n -device virtio-net-pci,netdev=n,romfile=")
            .args("-device virtio-gpu-pci -device intel-hda")
            .args("-audiodev none,id=a -device hda-duplex,audiodev=a -drive")
            .arg(format!("file={},format=raw,if=virtio", disk.display()));
        let modules = [
            "virtio_pci",
            "virtio_blk",
            "virtio_net",
            "virtio-gpu",
            "snd-hda-intel",
            "snd-hda-codec-generic",
            "xhci-pci",
            "usbhid",
            "hid-generic",
            "evdev",
        ];
        let script = "ip link set eth0 up; udhcpc -i eth0 -n -q -s /bin/true\n\
             echo init is here\nexec setsid cttyhack sh\n";
        let machine = start(builder, &modules, script, "", &[])?;
        Ok(vec![Figure::new("idle-whole", idleness(&machine)?)])
    }

    fn figures(
        &self,
        builder: Builder,
        modules: &[&str],
        script: &str,
        words: &str,
        rows: &[&'static Row],
    ) -> Result<Vec<Figure>> {
        let script = format!("echo init is here\n{script}poweroff -f\n");
        let program = std::fs::read(guests::bench::tool("io")?)?;
        let mut machine = start(builder, modules, &script, words, &[("bin/io", &program)])?;
        let mut figures = Vec::new();
        for _ in rows {
            let (which, _) = machine.expect_any(&["figure ", "failed: "], PATIENCE)?;
            if which == 1 {
                bail!("the guest's program failed: {}", machine.log());
            }
            let line = machine.expect("\n", PATIENCE)?;
            let (name, value) = line.trim().split_once(' ').context("half a figure")?;
            let row = rows
                .iter()
                .find(|row| row.name == name)
                .with_context(|| format!("{name} was not asked for"))?;
            figures.push(Figure::new(row.name, value.parse()?));
        }
        Ok(figures)
    }
}

/// Boots a Linux until its init says that it is there.
fn start(
    builder: Builder,
    modules: &[&str],
    script: &str,
    words: &str,
    files: &[(&str, &[u8])],
) -> Result<Machine> {
    let kernel = guests::kernel()?;
    let initrd = guests::initrd::build(&kernel, modules, script, files)?;
    let mut machine = builder
        .args("-m 1G -smp 2 -kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args("-append")
        .arg(format!("console=ttyAMA0 quiet{words}"))
        .start()?;
    machine.expect("init is here", PATIENCE)?;
    Ok(machine)
}

fn fill(path: &Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    let piece: Vec<u8> = (0..1 << 20).map(|i: u32| (i >> 3) as u8).collect();
    for _ in 0..DISK / piece.len() {
        file.write_all(&piece)?;
    }
    Ok(())
}

/// A server of one port for all connections that come; it ends with the program.
fn serve(with: fn(&mut TcpStream) -> std::io::Result<()>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_nodelay(true);
            // It ends when the guest hangs up.
            let _ = with(&mut stream);
        }
    });
    Ok(port)
}

fn send_for_ever(stream: &mut TcpStream) -> std::io::Result<()> {
    let piece = vec![0; 256 << 10];
    loop {
        stream.write_all(&piece)?;
    }
}

fn take_all(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut piece = vec![0; 256 << 10];
    while stream.read(&mut piece)? > 0 {}
    Ok(())
}

fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut piece = [0; 64];
    loop {
        let n = stream.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&piece[..n])?;
    }
}
