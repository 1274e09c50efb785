//! The GPU and the sound cards, by the distribution's kernel drivers and ALSA's own programs.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{PATIENCE, dormer};
use guests::packages::Suite;
use guests::run::{Builder, Machine};
use guests::screen::Picture;
use guests::sound::{position, samples, tones};
use guests::vnc::ask_for_size;
use guests::{initrd, programs};

/// ALSA's programs and what they are linked with.
fn alsa() -> Result<Vec<(String, Vec<u8>)>> {
    programs::files(
        Suite::Bookworm,
        &["alsa-utils", "libasound2", "libasound2-data", "libc6"],
        &[
            "usr/bin/aplay",
            "usr/bin/arecord",
            "usr/bin/amixer",
            "usr/lib/aarch64-linux-gnu/libasound.so.2",
            "usr/share/alsa",
            "lib/ld-linux-aarch64.so.1",
            "lib/aarch64-linux-gnu/libc.so.6",
            "lib/aarch64-linux-gnu/libm.so.6",
        ],
    )
}

fn start(
    modules: &[&str],
    script: &str,
    files: &[(String, Vec<u8>)],
    append: &str,
    devices: &str,
) -> Result<Machine> {
    let kernel = guests::kernel()?;
    let files: Vec<_> = files.iter().map(|(n, d)| (n.as_str(), &d[..])).collect();
    let initrd = initrd::build(&kernel, modules, script, &files)?;
    Builder::new(dormer())
        .args("-machine virt -cpu max -m 512M -smp 2")
        .args(devices)
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(append)
        .start()
}

/// A picture of the screen, by QMP.
fn picture(machine: &mut Machine, name: &str) -> Result<Picture> {
    let path = machine.folder().join(name);
    machine.qmp()?.call(
        "screendump",
        serde_json::json!({ "filename": path, "format": "png" }),
    )?;
    if let Some(folder) = std::env::var_os("DORMER_PICTURES") {
        std::fs::copy(&path, Path::new(&folder).join(name))?;
    }
    Picture::read(&path)
}

const SCREEN: &str = r#"
card=/sys/class/drm/card0-Virtual-1
echo "dormer: frame buffer $(cat /proc/fb)"
echo "dormer: status $(cat $card/status)"
echo "dormer: mode $(head -n 1 $card/modes)"
echo "dormer: edid $(wc -c < $card/edid)"
echo "dormer: size $(cat /sys/class/graphics/fb0/virtual_size)"
echo "dormer: lines ready"
read go
# The console clears the screen to light grey.
printf '\033[47m\033[2J' > /dev/tty0
echo "dormer: grey"
read go
for i in $(seq 100); do
    [ "$(head -n 1 $card/modes)" = 800x600 ] && break
    echo detect > $card/status
    sleep 0.1
done
echo "dormer: now $(head -n 1 $card/modes)"
read go
rmmod virtio_gpu 2>/dev/null || echo 0 > /sys/class/vtconsole/vtcon1/bind
poweroff -f
"#;

/// What the guest said after `dormer: KEY `.
fn said(log: &str, key: &str) -> String {
    let found = log.lines().find_map(|line| {
        line.trim()
            .strip_prefix("dormer: ")?
            .strip_prefix(key)
            .map(str::trim)
    });
    found.unwrap_or_default().to_string()
}

#[test]
fn linux_sets_modes_on_the_gpu() -> Result<()> {
    let mut machine = start(
        &["virtio_pci", "virtio-gpu"],
        SCREEN,
        &[],
        "console=tty0 console=ttyAMA0",
        "-device ramfb -device virtio-gpu-pci,id=gpu0,xres=1024,yres=768 -vnc :0,to=99",
    )?;
    machine.expect("dormer: lines ready", PATIENCE)?;
    let log = machine.log();
    for (key, value) in [
        ("frame buffer", "0 virtio_gpudrmfb"),
        ("status", "connected"),
        ("mode", "1024x768"),
        ("edid", "128"),
        ("size", "1024,768"),
    ] {
        let said = said(&log, key);
        ensure!(said == value, "{key} is {said:?}, not {value}\n{log}");
    }
    // The kernel's console has been drawing text.
    let text = picture(&mut machine, "gpu-text.png")?;
    ensure!((text.width, text.height) == (1024, 768));
    let black = text.share([0, 0, 0], 8);
    ensure!(
        (0.5..0.995).contains(&black),
        "{black} of the console is black"
    );
    machine.send("go\n")?;
    machine.expect("dormer: grey", PATIENCE)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    // What is drawn through fbdev is flushed a little later.
    while picture(&mut machine, "gpu-grey.png")?.share([0xaa; 3], 0) < 0.9 {
        ensure!(Instant::now() < deadline, "the screen does not become grey");
        std::thread::sleep(Duration::from_millis(100));
    }
    let vnc = machine.vnc()?;
    ask_for_size(&vnc, 800, 600)?;
    machine.send("go\n")?;
    machine.expect("dormer: now ", PATIENCE)?;
    machine.expect("800x600", Duration::from_secs(10))?;
    // The kernel's console follows a little later.
    let deadline = Instant::now() + Duration::from_secs(30);
    while picture(&mut machine, "gpu-resized.png")?.width != 800 {
        ensure!(Instant::now() < deadline, "the console keeps its size");
        std::thread::sleep(Duration::from_millis(100));
    }
    machine.send("go\n")?;
    ensure!(machine.wait(PATIENCE)?.success());
    Ok(())
}

const TWO_SCREENS: &str = r#"
echo "dormer: first"
read go
# From the firmware's frame buffer to the driver's.
basename /sys/bus/platform/drivers/efi-framebuffer/efi* > /sys/bus/platform/drivers/efi-framebuffer/unbind
for console in /sys/class/vtconsole/*; do grep -q frame $console/name && echo 1 > $console/bind; done
printf '\033[47m\033[2J' > /dev/tty0
echo "dormer: second"
read go
poweroff -f
"#;

/// EDK II programs both, and Linux goes on with ramfb, until the GPU's driver takes over.
#[test]
fn the_screen_shows_what_was_programmed_last() -> Result<()> {
    let firmware = common::firmware("QEMU_EFI.fd")?;
    let mut machine = start(
        &["virtio_pci", "virtio-gpu"],
        TWO_SCREENS,
        &[],
        "console=tty0 console=ttyAMA0",
        &format!(
            "-device ramfb -device virtio-gpu-pci,xres=1280,yres=720 -bios {}",
            firmware.display()
        ),
    )?;
    machine.expect("dormer: first", PATIENCE)?;
    let text = picture(&mut machine, "ramfb.png")?;
    ensure!(
        (text.width, text.height) == (800, 600),
        "{}x{} is not ramfb's",
        text.width,
        text.height
    );
    let black = text.share([0; 3], 8);
    ensure!(
        (0.5..0.995).contains(&black),
        "{black} of the console is black"
    );
    machine.send("go\n")?;
    machine.expect("dormer: second", PATIENCE)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let grey = picture(&mut machine, "gpu.png")?;
        if (grey.width, grey.height) == (1280, 720) && grey.share([0xaa; 3], 0) > 0.9 {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "the GPU's picture does not come; {}x{} is shown",
            grey.width,
            grey.height
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    machine.send("go\n")?;
    ensure!(machine.wait(PATIENCE)?.success());
    Ok(())
}

/// Plays a file and records one with a sound card; the guest sends the recording over the serial line, as text.
const SOUND: &str = r#"
export PATH=/bin:/usr/bin
# The folder of a card is there before the card is.
for i in $(seq 100); do
    [ -e /proc/asound/card0/id ] && grep -q : /proc/asound/pcm && grep -q '^ 0' /proc/asound/cards && break
    sleep 0.1
done
echo "dormer: card $(cat /proc/asound/card0/id) $(grep -c : /proc/asound/pcm)"
cat /proc/asound/cards
head -n 12 "/proc/asound/card0/codec#0" 2>/dev/null
amixer -c 0 -q sset Master 100% unmute 2>/dev/null || amixer -c 0 -q sset PCM 100% unmute
amixer -c 0 -q sset Speaker 100% unmute 2>/dev/null
amixer -c 0 -q sset Capture 100% cap 2>/dev/null
amixer -c 0 | grep -e Simple -e Mono: -e Left:
aplay -q -D hw:0,0 /tones.wav
echo "dormer: played $?"
if grep -q capture /proc/asound/pcm; then
    arecord -q -D hw:0,0 -f S16_LE -r 48000 -c 2 -s 12000 /recorded.wav
    echo "dormer: recorded $?"
    echo "dormer: sum $(tail -c 48000 /recorded.wav | md5sum)"
fi
echo "dormer: warnings $(dmesg | grep -c -i -e 'hda.*timeout' -e 'hda.*error' -e 'xrun' -e 'usb.*error')"
poweroff -f
"#;

/// `lost`: frames at the end that the guest's driver does not play.
fn play(devices: &str, modules: &[&str], captures: bool, lost: usize) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let (source, played) = (
        folder.path().join("tones.wav"),
        folder.path().join("out.wav"),
    );
    let expected = tones(&source, 24_000)?;
    let mut files = alsa()?;
    files.push(("tones.wav".into(), std::fs::read(&source)?));
    let devices = format!(
        "-audiodev wav,id=snd,path={},in.path={} {devices}",
        played.display(),
        source.display()
    );
    let mut machine = start(modules, SOUND, &files, "console=ttyAMA0", &devices)?;
    let status = machine.wait(PATIENCE)?;
    let log = machine.log();
    ensure!(status.success(), "{status}\n{log}");
    ensure!(said(&log, "played") == "0", "{log}");
    let (rate, all) = samples(&played)?;
    ensure!(rate == 48000, "{rate} Hz");
    let at = position(&all, &expected[..64]).with_context(|| format!("no tone\n{log}"))?;
    let same = all[at..].iter().zip(&expected).take_while(|(a, b)| a == b);
    let same = same.count();
    ensure!(
        same + lost * 2 >= expected.len(),
        "{same} of {} samples arrived, {} in the file from {at}\n{log}",
        expected.len(),
        all.len()
    );
    if captures {
        ensure!(said(&log, "recorded") == "0", "{log}");
        // What arecord got is the beginning of the source.
        let bytes: Vec<u8> = expected[..24000]
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .collect();
        let check = folder.path().join("check");
        std::fs::write(&check, bytes)?;
        let sum = guests::packages::run(std::process::Command::new("md5sum").arg(&check))?;
        let sum = sum.split_whitespace().next().unwrap_or_default();
        ensure!(said(&log, "sum").starts_with(sum), "{sum}\n{log}");
    }
    ensure!(said(&log, "warnings") == "0", "{log}");
    Ok(log)
}

#[test]
fn linux_plays_and_records_on_hd_audio() -> Result<()> {
    let log = play(
        "-device intel-hda -device hda-duplex,audiodev=snd",
        // The kernel's own modprobe is not there: what drives the codec has to be there before it.
        &["virtio_pci", "snd-hda-codec-generic", "snd-hda-intel"],
        true,
        0,
    )?;
    ensure!(said(&log, "card").starts_with("Intel"), "{log}");
    println!("{}", &log[log.find("dormer: card").unwrap_or(0)..]);
    Ok(())
}

#[test]
fn linux_plays_on_usb_audio() -> Result<()> {
    let log = play(
        "-device qemu-xhci -device usb-audio,audiodev=snd",
        &["xhci-pci", "snd-usb-audio"],
        false,
        // Linux 6.1 closes the stream before its last packets: QEMU's guest loses as much.
        240,
    )?;
    println!("{}", &log[log.find("dormer: card").unwrap_or(0)..]);
    Ok(())
}
