use super::*;
use machine::description::{TpmBackend, TpmInterface};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_string).collect()
}

fn run(line: &str) -> CommandLine {
    match parse(&words(line)) {
        Ok(Request::Run(line)) => *line,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    match parse(&words(line)) {
        Err(error) => error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_form_everybody_pastes() {
    let line = run(
        "-machine virt -cpu host -accel jit -m 4G -smp 4 -bios QEMU_EFI.fd \
        -device qemu-xhci -device usb-kbd -device usb-tablet \
        -drive file=installer.iso,media=cdrom,if=none,id=inst -device usb-storage,drive=inst \
        -device ramfb -drive file=disk.qcow2,if=virtio -nic user,model=virtio-net-pci",
    );
    let machine = line.machine;
    assert_eq!((machine.cpus, machine.memory), (4, 4 << 30));
    assert_eq!(machine.accelerators, ["jit"]);
    let mut kinds: Vec<_> = machine.devices.iter().map(|d| &d.kind).collect();
    assert!(
        matches!(kinds.remove(0), Kind::VirtioNet { netdev: Some(id), .. } if *id == machine.networks[0].id)
    );
    assert!(matches!(kinds[0], Kind::Xhci { p2: 4, p3: 4 }));
    assert!(matches!(kinds[1..3], [Kind::UsbKeyboard, Kind::UsbTablet]));
    assert!(
        matches!(kinds[3], Kind::UsbStorage { drive, .. } if drive.cdrom && drive.image.as_ref().is_some_and(|i| i.read_only))
    );
    assert_eq!(kinds[4], &Kind::Ramfb);
    assert!(
        matches!(kinds[5], Kind::VirtioBlk { drive, .. } if drive.id == "virtio1" && !drive.cdrom)
    );
    assert!(!line.displays.chosen);
}

#[test]
fn graphics() {
    let gpu = |line: &str| match &run(line).machine.devices[..] {
        [_default_nic, one] => one.kind.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        gpu("-M virt -device virtio-gpu-pci"),
        Kind::VirtioGpu {
            max_outputs: 1,
            xres: 1280,
            yres: 800,
            edid: true,
            blob: false,
            max_hostmem: 256 << 20,
        }
    );
    assert_eq!(
        gpu(
            "-M virt -device virtio-gpu,xres=1920,yres=1080,max_outputs=2,edid=off,blob=on,max_hostmem=64M"
        ),
        Kind::VirtioGpu {
            max_outputs: 2,
            xres: 1920,
            yres: 1080,
            edid: false,
            blob: true,
            max_hostmem: 64 << 20,
        }
    );
    assert_eq!(
        error("-M virt -device virtio-gpu-pci,max_outputs=17"),
        "-device virtio-gpu-pci,max_outputs=17: invalid max_outputs > 16"
    );
    assert_eq!(run("-M virt -vga std").warnings.len(), 1);
    assert!(run("-M virt -vga none").warnings.is_empty());
}

#[test]
fn sound() {
    let machine = run("-M virt -nic none -device intel-hda -device hda-duplex").machine;
    assert_eq!(
        machine.devices[0].kind,
        Kind::Hda {
            ich9: false,
            msi: true
        }
    );
    assert!(
        matches!(&machine.devices[1].kind, Kind::HdaCodec { codec: Codec::Duplex, audiodev, cad: None, mixer: true } if *audiodev == machine.audiodevs[0].id)
    );
    assert_eq!(machine.audiodevs[0].driver, audio::Driver::Host);

    let machine = run(
        "-M virt -nic none -device ich9-intel-hda,id=snd,msi=off -device hda-micro,bus=snd.0,cad=3,audiodev=a,mixer=off \
         -audiodev wav,id=a,path=x.wav,out.frequency=44100,in.path=y.wav",
    )
    .machine;
    assert!(matches!(
        &machine.devices[1].kind,
        Kind::HdaCodec {
            codec: Codec::Micro,
            cad: Some(3),
            mixer: false,
            ..
        }
    ));
    assert_eq!(machine.audiodevs.len(), 1);
    assert_eq!(machine.audiodevs[0].path.as_deref(), Some("x.wav"));
    assert_eq!(machine.audiodevs[0].frequency, Some(44100));

    let machine =
        run("-M virt -nic none -device qemu-xhci -device usb-audio,audiodev=a -audiodev none,id=a")
            .machine;
    assert!(matches!(&machine.devices[1].kind, Kind::UsbAudio { audiodev } if audiodev == "a"));

    let machine = run("-M virt -nic none -audio none,model=hda").machine;
    assert_eq!((machine.devices.len(), machine.audiodevs.len()), (2, 1));
    for (line, message) in [
        (
            "-M virt -device hda-duplex",
            "-device hda-duplex: No 'HDA' bus found for device 'hda-duplex'",
        ),
        (
            "-M virt -device intel-hda -device hda-duplex,audiodev=foo",
            "-device hda-duplex,audiodev=foo: audiodev 'foo' not found",
        ),
        (
            "-M virt -device intel-hda,id=snd -device hda-duplex,bus=hda.0",
            "-device hda-duplex,bus=hda.0: Bus 'hda.0' not found",
        ),
        (
            "-M virt -audiodev none,id=a -device intel-hda -device hda-duplex",
            "-device hda-duplex: no default audio driver available",
        ),
        (
            "-M virt -device intel-hda -device hda-duplex,cad=20",
            "-device hda-duplex,cad=20: HDA audio codec address is full",
        ),
        (
            "-M virt -audiodev wav",
            "-audiodev wav: Parameter 'id' is missing",
        ),
        (
            "-M virt -audiodev foo,id=x",
            "-audiodev foo,id=x: Parameter 'driver' does not accept value 'foo'",
        ),
        (
            "-M virt -audiodev wav,id=x,foo=1",
            "-audiodev wav,id=x,foo=1: Parameter 'foo' is unexpected",
        ),
        (
            "-M virt -audio none,model=foo",
            "-audio none,model=foo: Unknown sound card name `foo'",
        ),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
    assert!(error("-M virt -audiodev sdl,id=x").contains("does not have the audio driver 'sdl'"));
}

#[test]
fn what_qemus_users_know() {
    for (line, message) in [
        ("", "No machine specified, and there is no default"),
        (
            "-machine foo",
            "-machine foo: unsupported machine type: \"foo\"",
        ),
        (
            "-machine virt -accel hvf",
            "-accel hvf: invalid accelerator hvf",
        ),
        (
            "-machine virt -accel foo",
            "-accel foo: invalid accelerator foo",
        ),
        (
            "-machine virt,gic-version=9",
            "-machine virt,gic-version=9: Invalid gic-version value",
        ),
        (
            "-machine virt -device usb-kbd",
            "-device usb-kbd: No 'usb-bus' bus found for device 'usb-kbd'",
        ),
        (
            "-machine virt -device foo",
            "-device foo: 'foo' is not a valid device model name",
        ),
        (
            "-machine virt -device qemu-xhci,foo=1",
            "-device qemu-xhci,foo=1: Property 'qemu-xhci.foo' not found",
        ),
        (
            "-machine virt -cpu foo",
            "-cpu foo: unable to find CPU model 'foo'",
        ),
        (
            "-machine virt -device qemu-xhci -device usb-storage,drive=inst",
            "-device usb-storage,drive=inst: Property 'usb-storage.drive' can't find value 'inst'",
        ),
        (
            "-machine virt -device virtio-blk-pci",
            "-device virtio-blk-pci: drive property not set",
        ),
        (
            "-machine virt -drive if=none,id=a -device nvme,drive=a",
            "-device nvme,drive=a: serial property not set",
        ),
        (
            "-machine virt -icount 11",
            "-icount 11: icount: Invalid shift value",
        ),
        (
            "-machine virt -seed x",
            "-seed x: Parameter 'seed' expects a number",
        ),
        ("-foo", "-foo: invalid option"),
        ("-machine virt -m", "-m: requires an argument"),
        (
            "-machine virt -m foo",
            "-m foo: Parameter 'size' expects a non-negative number below 2^64",
        ),
        (
            "-machine virt -smp 0",
            "-smp 0: Invalid CPU topology: CPU topology parameters must be greater than zero",
        ),
        (
            "-machine virt -drive if=foo",
            "-drive if=foo: unsupported bus type 'foo'",
        ),
        (
            "-machine virt -rtc base=foo",
            "-rtc base=foo: invalid datetime format",
        ),
        (
            "-machine virt -append x",
            "-append only allowed with -kernel option",
        ),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn what_is_to_come_says_so() {
    for line in [
        "-machine virt -device e1000e",
        "-machine virt -device virtio-vga",
        "-machine virt -device virtio-sound-pci",
        "-machine virt -audio none,model=virtio",
        "-machine virt -device virtio-balloon-pci",
        "-machine virt,virtualization=on",
    ] {
        assert!(error(line).contains("yet"), "{line}: {}", error(line));
    }
}

#[test]
fn accelerators_in_order_fall_back() {
    assert_eq!(
        run("-machine virt -accel hvf:tcg").machine.accelerators,
        ["hvf", "jit"]
    );
    assert_eq!(
        run("-machine virt -accel kvm -accel tcg,thread=multi")
            .machine
            .accelerators,
        ["kvm", "jit"]
    );
    assert_eq!(
        run("-machine virt,accel=kvm:tcg").machine.accelerators,
        ["kvm", "jit"]
    );
    assert!(error("-machine virt -accel tcg,thread=single").contains("thread"));
}

#[test]
fn counted_instructions() {
    let icount = |text: &str| run(&format!("-machine virt -icount {text}")).machine.icount;
    let counted = |shift, sleep| Some(Icount { shift, sleep });
    assert_eq!(run("-machine virt").machine.icount, None);
    assert_eq!(icount("2"), counted(2, true));
    assert_eq!(icount("shift=10,align=off,sleep=off"), counted(10, false));
    for text in [
        "auto",
        "shift=auto",
        "sleep=off",
        "1,align=on",
        "-1",
        "1,foo=2",
        "1,rr=record",
        "1,rrfile=x",
        "1,rrsnapshot=x",
    ] {
        let said = error(&format!("-machine virt -icount {text}"));
        let name = text.rsplit(',').next().unwrap();
        assert!(said.starts_with(&format!("-icount {text}: ")), "{said}");
        assert!(
            said.contains(name) || said.contains("shift") || said.contains("foo"),
            "{said}"
        );
    }
}

#[test]
fn what_makes_runs_repeat() {
    let machine = run("-machine virt -seed 7 -rtc base=2020-01-01,clock=vm").machine;
    assert_eq!((machine.seed, machine.rtc_clock), (Some(7), RtcClock::Vm));
    assert!(machine.dtb_randomness);
    let machine = run("-machine virt,dtb-randomness=off -rtc clock=host").machine;
    assert_eq!((machine.seed, machine.rtc_clock), (None, RtcClock::Host));
    assert!(!machine.dtb_randomness);
    assert!(error("-machine virt -rtc clock=rt").contains("clock=rt"));
}

#[test]
fn drives_find_their_places() {
    let machine = run(
        "-M virt -drive if=pflash,format=raw,file=a,readonly=on -drive if=pflash,file=b -hda c",
    )
    .machine;
    let file = |i: usize| {
        machine.pflash[i]
            .as_ref()
            .and_then(|d| d.image.as_ref())
            .map(|i| i.path.display().to_string())
    };
    assert_eq!(
        (file(0).as_deref(), file(1).as_deref()),
        (Some("a"), Some("b"))
    );
    assert_eq!(machine.devices.len(), 2, "the disk and the default NIC");
    assert!(
        error("-M virt -drive if=pflash,file=a,unit=0 -drive if=pflash,file=b,unit=0")
            .contains("exists")
    );
    assert!(error("-M virt -drive if=none,id=a -drive if=none,id=a").contains("Duplicate"));
    assert!(
        error("-M virt -drive if=none,id=a,file=x -device virtio-blk-pci,drive=a -device virtio-blk-pci,drive=a")
            .contains("already in use")
    );
    assert!(error("-M virt -drive file=x,speed=9").contains("'speed'"));
}

#[test]
fn help_prints_and_nothing_runs() {
    for line in [
        "-help",
        "-version",
        "-machine help",
        "-M virt,help",
        "-cpu help",
        "-device help",
        "-device nvme,help",
        "-accel help",
    ] {
        match parse(&words(line)) {
            Ok(Request::Print(text)) => assert!(text.len() > 20, "{line}: {text}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn no_argument_makes_it_panic() {
    let parts = [
        "-machine",
        "virt",
        "-device",
        "qemu-xhci",
        "-drive",
        "-m",
        "-smp",
        ",",
        "=",
        "0x",
        "id=a",
        "if=none",
        "-1",
        "help",
        "99999999999999999999",
        "-boot",
        "order=",
        "-smbios",
        "type=1",
        "-rtc",
        "base=",
        "-fw_cfg",
        "name=opt/x,string=,",
    ];
    let mut seed = 7u64;
    for _ in 0..20_000 {
        let mut line = Vec::new();
        for _ in 0..6 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let one = parts[(seed >> 33) as usize % parts.len()];
            let two = parts[(seed >> 45) as usize % parts.len()];
            line.push(if seed & 1 << 20 == 0 {
                one.to_string()
            } else {
                format!("{one},{two}")
            });
        }
        let _ = parse(&line);
    }
}

#[test]
fn tpms() {
    let tpm = |line: &str| match &run(line).machine.devices.last().unwrap().kind {
        Kind::Tpm { interface, backend } => (*interface, backend.clone()),
        other => panic!("{other:?}"),
    };
    let socket = TpmBackend::Emulator {
        socket: "/run/swtpm".into(),
    };
    assert_eq!(
        tpm(
            "-machine virt -tpmdev emulator,id=tpm0,chardev=chrtpm -device tpm-tis-device,tpmdev=tpm0 \
             -chardev socket,id=chrtpm,path=/run/swtpm"
        ),
        (TpmInterface::Tis, socket)
    );
    let managed = |state: &str, optional| TpmBackend::Managed {
        state: state.into(),
        optional,
    };
    assert_eq!(
        tpm(
            "-machine virt -drive file=/vm/cd.iso,media=cdrom,if=none,id=c -device qemu-xhci -device usb-storage,drive=c \
             -drive file=/vm/win11.qcow2,if=none,id=d -device nvme,drive=d,serial=x \
             -tpmdev managed,id=t -device tpm-crb-device,tpmdev=t"
        ),
        (TpmInterface::Crb, managed("/vm/win11.tpm", false))
    );
    assert_eq!(
        tpm("-machine virt -tpmdev managed,id=t,state=/x,optional=on -device tpm-crb-device,tpmdev=t").1,
        managed("/x", true)
    );
    for (line, message) in [
        ("-device tpm-crb-device", "'tpmdev' property is not set"),
        ("-device tpm-crb-device,tpmdev=t", "can't find value 't'"),
        ("-tpmdev managed,id=t", "no device uses this TPM"),
        (
            "-tpmdev managed,id=t -device tpm-crb-device,tpmdev=t",
            "no disk to keep",
        ),
        (
            "-tpmdev emulator,id=t,chardev=c",
            "tpm chardev 'c' not found",
        ),
        (
            "-tpmdev passthrough,id=t",
            "does not pass a host's TPM through",
        ),
        ("-chardev socket,id=c,path=/x", "for -tpmdev emulator only"),
        ("-chardev pty,id=c", "'pty' yet"),
    ] {
        let line = format!("-machine virt {line}");
        assert!(error(&line).contains(message), "{line}: {}", error(&line));
    }
}

#[test]
fn displays() {
    let web = run("-machine virt -display web=:8080 -vnc :1 -display web").displays;
    assert_eq!((web.web.len(), web.vnc.len(), web.chosen), (2, 1, true));
    assert_eq!(web.web[0].1.port, 8080);
    assert!(!run("-machine virt -display default").displays.chosen);
    for line in [
        "-display web=x",
        "-display curses",
        "-display gtk,gl=on",
        "-display foo",
    ] {
        error(&format!("-machine virt {line}"));
    }
}

#[cfg(feature = "window")]
#[test]
fn windows_by_all_their_names() {
    for name in ["window", "gtk,gl=off", "sdl", "cocoa,full-screen=on"] {
        assert!(
            run(&format!("-machine virt -display {name}"))
                .displays
                .window
                .is_some()
        );
    }
}

#[test]
fn secrets() {
    let line = run(
        "-machine virt -object secret,id=a,data=geheim -object secret,id=b,data=Z2VoZWlt,format=base64 -vnc :1,password-secret=a",
    );
    assert_eq!(
        line.secrets,
        [("a".into(), "geheim".into()), ("b".into(), "geheim".into())]
    );
    for (line, message) in [
        ("secret,id=a", "Must provide 'file' or 'data'"),
        ("secret,id=a,data=x,file=y", "mutually exclusive"),
        (
            "secret,id=a,file=/nonexistent",
            "Unable to read /nonexistent",
        ),
        ("secret,id=a,data=?,format=base64", "Base64"),
        ("secret,id=a,data=x,keyid=k", "encrypted secrets"),
    ] {
        let line = format!("-machine virt -object {line}");
        assert!(error(&line).contains(message), "{line}: {}", error(&line));
    }
}

#[test]
fn monitors() {
    let places = |line: &str| run(&format!("-machine virt {line}")).monitors;
    assert_eq!(places("-monitor stdio"), [Place::Stdio]);
    assert_eq!(places("-monitor none -monitor null"), []);
    let socket = Address::parse("unix:/run/m,server=on,wait=off").unwrap();
    assert_eq!(
        places("-monitor unix:/run/m,server=on,wait=off -monitor stdio"),
        [Place::Socket(socket), Place::Stdio]
    );
    assert!(
        matches!(&places("-monitor telnet::4444,server,nowait")[..], [Place::Socket(a)] if a.telnet)
    );
    let bad = |line: &str| error(&format!("-machine virt {line}"));
    assert_eq!(
        bad("-monitor vc"),
        "-monitor vc: Dormer does not have its monitor on 'vc'"
    );
    assert_eq!(
        bad("-monitor frob"),
        "-monitor frob: 'frob' is not a valid char driver"
    );
    assert_eq!(
        bad("-monitor stdio,signal=off"),
        "-monitor stdio,signal=off: Dormer's monitor takes no options on stdio"
    );
    assert_eq!(
        bad("-qmp telnet::4444,server"),
        "-qmp telnet::4444,server: Dormer speaks QMP on plain sockets only"
    );
}

#[test]
fn one_has_standard_input() {
    let line = |text: &str| run(&format!("-machine virt {text}"));
    let serial = |text: &str| line(text).machine.serial;
    assert_eq!(serial("-nographic").as_deref(), Some("mon:stdio"));
    assert_eq!(line("-nographic").monitors, []);
    // As QEMU: the monitor is elsewhere, and Ctrl-A the guest's.
    for monitor in ["none", "unix:/run/m,server=on,wait=off"] {
        let text = format!("-nographic -monitor {monitor}");
        assert_eq!(serial(&text).as_deref(), Some("stdio,signal=off"), "{text}");
    }
    assert_eq!(line("-nographic -serial null").monitors, [Place::Stdio]);
    assert_eq!(line("-nographic -serial mon:stdio").monitors, []);
    assert_eq!(line("-nographic -serial stdio").monitors, []);
    for text in [
        "-serial stdio -monitor stdio",
        "-nographic -monitor stdio",
        "-serial mon:stdio -monitor stdio",
        "-monitor stdio -monitor stdio",
    ] {
        let said = error(&format!("-machine virt {text}"));
        assert!(
            said.ends_with("cannot use stdio by multiple character devices"),
            "{text}: {said}"
        );
    }
}

#[test]
fn nodes() {
    let a = "-blockdev raw,node-name=a,file.driver=file,file.filename=a.img,file.node-name=f";
    let line = run(&format!("-machine virt {a} -device virtio-blk-pci,drive=a"));
    assert_eq!(line.machine.nodes.len(), 1);
    let of = |line: &CommandLine| match &line.machine.devices.last().unwrap().kind {
        Kind::VirtioBlk { drive, .. } => (drive.id.clone(), drive.node.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(&line), (String::new(), Some("a".into())));
    let json = "-blockdev {\"driver\":\"raw\",\"node-name\":\"j\",\"file\":\"f\"}";
    let line = run(&format!(
        "-machine virt {a} {json} -device virtio-blk-pci,drive=j"
    ));
    assert_eq!(of(&line).1.as_deref(), Some("j"));
    for (rest, end) in [
        (
            "-drive if=none,id=f,file=x",
            "Device name 'f' conflicts with an existing node name",
        ),
        (
            "-snapshot",
            "Dormer does not have -snapshot for block nodes (-blockdev)",
        ),
        (
            "-blockdev nbd,node-name=x",
            "-blockdev nbd,node-name=x: Dormer does not have the block driver 'nbd'",
        ),
        (
            "-device virtio-blk-pci,drive=x",
            "Property 'virtio-blk-device.drive' can't find value 'x'",
        ),
    ] {
        let said = error(&format!("-machine virt {a} {rest}"));
        assert!(said.ends_with(end), "{said}");
    }
}
