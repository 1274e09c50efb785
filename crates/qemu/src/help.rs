//! The texts of `-help`, `-version` and `-X help`.

use crate::Error;
use crate::catalog;
use crate::options::Given;

/// `-version`.
pub fn version() -> String {
    format!(
        "QEMU emulator version {}.{}.{} (Dormer {})\nDormer's own machine; command line of QEMU\n",
        QEMU_VERSION.0,
        QEMU_VERSION.1,
        QEMU_VERSION.2,
        env!("CARGO_PKG_VERSION")
    )
}

/// The version of QEMU whose command line, QMP and monitor this is.
pub const QEMU_VERSION: (u32, u32, u32) = (10, 0, 2);

/// `-help`.
pub fn usage() -> String {
    format!("{}{}", version(), USAGE)
}

const USAGE: &str = "\
usage: dormer system [options] [disk_image]
       qemu-system-aarch64 [options] [disk_image]

Machine
  -machine virt[,prop=value...]  the board; `-machine help`, `-machine virt,help`
  -accel NAME[:NAME...]          engines to try: hvf, kvm, jit (tcg is jit); `-accel help`
        jit[,tier=auto|interpreter|baseline|optimizing][,warm=TIMES][,hot=JUMPS][,tb-size=MiB]
        [,perfmap=on][,host-features=-NAME:-NAME...]
                                 how code is generated, how much of it is kept, what to do without,
                                 whether perf is told of it (/tmp/perf-PID.map)
  -cpu MODEL[,prop=on|off...]    `-cpu help`; under jit, host means max
  -smp [cpus=]N[,cores=N,...]    processors
  -m [size=]N[M|G]               memory
  -name TEXT, -uuid UUID         what the machine is called
  -rtc base=utc|localtime|DATE[,clock=host|vm]
                                 the real-time clock's start, and whose time it follows
  -icount [shift=]N[,sleep=off]  guest time is instructions executed, 2^N ns each: runs that repeat (jit only)
  -seed N                        what the device tree's random numbers begin from
  -boot menu=on[,splash-time=MS] how long the firmware waits
  -smbios type=1,...             fields of the system's description
  -fw_cfg name=opt/...,file=F|string=S

What starts
  -bios FILE | -firmware FILE    firmware image
  -drive if=pflash,...           firmware code (unit 0) and its variables (unit 1); -pflash FILE
  -kernel FILE [-initrd FILE] [-append TEXT] [-dtb FILE]

Devices
  -device NAME[,prop=value...]   `-device help`, `-device NAME,help`
  -drive file=FILE[,if=virtio|none|pflash][,id=ID][,format=raw|qcow2][,media=disk|cdrom]
         [,readonly=on][,snapshot=on][,cache=...][,discard=...][,werror=...][,rerror=...]
  -blockdev [driver=]raw|qcow2,node-name=NAME,file.driver=file,file.filename=FILE[,read-only=on][,...]
         or JSON             an image for -device NAME,drive=NAME, and for QMP's blockdev-insert-medium
  -cdrom FILE, -hda FILE, -snapshot
  -object rng-builtin,id=ID | secret,id=ID,data=TEXT|file=FILE[,format=base64]
  -tpmdev managed,id=ID[,state=FOLDER][,optional=on]   a TPM 2.0 by swtpm, which Dormer starts
  -tpmdev emulator,id=ID,chardev=C -chardev socket,id=C,path=SOCKET   or by a running one

Sound
  -audiodev none|wav|cpal,id=ID  where it goes: nowhere, a file, this host (coreaudio, alsa, pa mean that too)
         wav: [,path=FILE][,in.path=FILE][,out.frequency=HZ]; cpal: [,out.dev=NAME]
  -audio DRIVER[,model=hda]      the same for devices that name none; with model, a sound card too

Network
  -nic user|…[,model=virtio-net-pci|usb-ncm][,mac=MAC][,...] | none
                                 a NIC and its back end; without any network option: -nic user
  -netdev user,id=ID[,net=ADDR/BITS][,host=][,dns=][,dhcpstart=][,restrict=on][,hostname=]
         [,hostfwd=tcp|udp:[HADDR]:HPORT-[GADDR]:GPORT][,guestfwd=tcp:ADDR:PORT-cmd:COMMAND]
         [,tftp=DIR][,bootfile=FILE][,ipv6=off][,resolver=ADDR[:PORT]][,...]   `-netdev help`
  -device virtio-net-pci,netdev=ID[,mac=MAC][,mq=on]
  -device usb-ncm,netdev=ID[,mac=MAC]   its driver is in the box on Windows 11
  -object filter-dump,id=ID,netdev=ID,file=FILE[,maxlen=N][,queue=all|rx|tx]

Screen, serial line, control
  -display window[,full-screen=on][,zoom-to-fit=off][,show-cursor=on][,window-close=off]
                                 a window (gtk, sdl and cocoa mean it too); Ctrl-Alt-H in it lists its keys
  -display none|vnc=...          without -display: a window if there is a display, else VNC on the first free port
  -display web[=[HOST]:PORT][,name=NAME]  a page for browsers, at the address printed
  -vnc [HOST]:N[,to=L][,password=on|password-secret=ID] | unix:PATH
                                 Ctrl-Alt-Shift-V in a viewer types what was copied there
  -serial stdio|mon:stdio|file:F|unix:F[,server=on]|tcp:H:P[,server=on]|pty|null|none
  -qmp unix:F[,server=on][,wait=off] | tcp:H:P[,server=on][,wait=off]
  -monitor stdio|unix:F[,server=on][,wait=off]|tcp:H:P[,...]|telnet:H:P[,...]|none
                                 commands that people type: `help` lists them
  -nographic                     no screen; serial line and monitor on this terminal, as -serial mon:stdio
                                 (Ctrl-A X ends, Ctrl-A C switches, Ctrl-A H lists more)
  -S                             wait for `cont`
  -no-reboot, -no-shutdown, -action reboot=...,shutdown=...
  -pidfile FILE
";

/// The text that a `help` among the options asks for.
pub fn requested(given: &[Given]) -> Result<Option<String>, Error> {
    for option in given {
        let value = option.value.as_str();
        let (first, rest) = value.split_once(',').unwrap_or((value, ""));
        let wants = |text: &str| text == "help" || text == "?";
        let of_model = |text: &str| text.strip_prefix("model=").is_some_and(wants);
        let nic = matches!(option.name, "nic" | "net") && value.split(',').any(of_model);
        let asked = nic || wants(first) || rest.split(',').any(wants);
        if !asked {
            continue;
        }
        let text = match option.name {
            "machine" if wants(first) => {
                "Supported machines are:\nvirt                 QEMU's virt board, as Dormer has it\n".to_string()
            }
            "machine" => MACHINE.to_string(),
            "cpu" => {
                let mut text = String::from("Available CPUs:\n");
                for model in machine::cpu_models() {
                    text.push_str(&format!("  {model}\n"));
                }
                text
            }
            "accel" => {
                let mut text = String::from("Accelerators supported on this host:\n");
                for accelerator in machine::accelerators() {
                    match accelerator.available {
                        Ok(()) => text.push_str(&format!("{}\n", accelerator.name)),
                        Err(why) => text.push_str(&format!("{} is not: {why}\n", accelerator.name)),
                    }
                }
                text
            }
            "device" if wants(first) => catalog::list(),
            "device" => match catalog::find(first) {
                Some(model) => catalog::describe(model),
                None => continue,
            },
            "display" => "Available display backend types:\nnone\nvnc\nweb\nwindow\n".to_string(),
            "audio" if value.contains("model=") => crate::sound::cards().to_string(),
            "audiodev" | "audio" => crate::sound::drivers(),
            "object" => "List of user creatable objects:\n  rng-builtin\n  rng-random\n  filter-dump\n  secret\n".to_string(),
            "netdev" => crate::network::BACKENDS.to_string(),
            "nic" | "net" => crate::network::MODELS.to_string(),
            "drive" => "Supported formats: raw qcow2\n".to_string(),
            "blockdev" => "Supported drivers: file host_device qcow2 raw\n".to_string(),
            _ => continue,
        };
        return Ok(Some(text));
    }
    Ok(None)
}

const MACHINE: &str = "\
virt-machine options:
  accel=<string>         - Engines to try, as -accel
  acpi=<OnOffAuto>       - Enable ACPI; `force`: fail without firmware
  append=<string>        - Linux kernel command line
  dtb=<string>           - Linux kernel device tree file
  dtb-randomness=<bool>  - Set off to leave random numbers out of the device tree
  dumpdtb=<string>       - Dump current dtb to a file and quit
  firmware=<string>      - Firmware image
  gic-version=<string>   - Set GIC version. Valid values are 2, 3, host and max
  highmem=<bool>         - Set on/off to enable/disable using physical address space above 32 bits
  initrd=<string>        - Linux initial ramdisk file
  its=<bool>             - Set on/off to enable/disable ITS instantiation
  kernel=<string>        - Linux kernel image file
  msi=<string>           - How messages become interrupts. Valid values are auto, its, gicv2m and none
";
