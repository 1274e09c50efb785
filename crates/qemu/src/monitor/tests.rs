//! Commands on a machine that is built as a command line asks for it, and does not run.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use device::serial::SerialOutput;
use machine::control::RunState;
use machine::{Board, Machine};
use serde_json::json;

use super::*;
use crate::command_line::{self, Request};

struct Silence;

impl SerialOutput for Silence {
    fn write(&self, _: &[u8]) {}
}

/// Every kind of thing that the monitor tells of.
const DEVICES: &str = "-machine virt -accel jit -name foo -smp 2 -nodefaults -S \
    -netdev user,id=n0 -device virtio-net-pci,netdev=n0,id=nic0 -netdev user,id=n1 \
    -drive if=none,id=cd0,media=cdrom -device qemu-xhci -device usb-kbd -device usb-mouse,id=mouse \
    -device usb-storage,drive=cd0";

fn machine(more: &str) -> Machine {
    let words: Vec<String> = format!("{DEVICES} {more}")
        .split_whitespace()
        .map(str::to_string)
        .collect();
    let line = match command_line::parse(&words) {
        Ok(Request::Run(line)) => line,
        other => panic!("{other:?}"),
    };
    let board = Board::build(&line.machine, Arc::new(Silence)).unwrap();
    Machine::start(board).unwrap()
}

fn say(machine: &Machine, line: &str) -> String {
    Monitor::new(&machine.handle()).execute(line)
}

#[test]
fn words_of_qemu() {
    let machine = machine("");
    // What QEMU 10.0 answers to the same.
    for (line, answer) in [
        ("", ""),
        ("   ", ""),
        ("foo", "unknown command: 'foo'\r\n"),
        ("st", "unknown command: 'st'\r\n"),
        ("info x", "unknown command: 'info x'\r\n"),
        ("info s", "unknown command: 'info s'\r\n"),
        ("help foo", "unknown command: 'foo'\r\n"),
        ("help stop", "stop|s  -- stop emulation\r\n"),
        ("? cont", "cont|c  -- resume emulation\r\n"),
        (
            "help info status",
            "info status  -- show the current VM status (running|paused)\r\n",
        ),
        (
            "stop x",
            "stop|s: extraneous characters at the end of line\r\nTry \"help stop\" for more information\r\n",
        ),
        (
            "info name x",
            "name: extraneous characters at the end of line\r\nTry \"help info name\" for more information\r\n",
        ),
        ("info status", "VM status: paused (prelaunch)\r\n"),
        ("info name", "foo\r\n"),
        ("info uuid", "00000000-0000-0000-0000-000000000000\r\n"),
        ("cpu 5", "invalid CPU index\r\n"),
        (
            "cpu",
            "unexpected end of expression\r\nTry \"help cpu\" for more information\r\n",
        ),
        (
            "cpu x",
            "invalid char 'x' in expression\r\nTry \"help cpu\" for more information\r\n",
        ),
        (
            "sendkey",
            "sendkey: string expected\r\nTry \"help sendkey\" for more information\r\n",
        ),
        ("sendkey a-foo", "invalid parameter: foo\r\n"),
        ("sendkey a-", "invalid parameter: \r\n"),
        ("sendkey a 1", ""),
        ("sendkey 0x1e 0x1", ""),
        (
            "set_link n0",
            "Expected 'on' or 'off'\r\nTry \"help set_link\" for more information\r\n",
        ),
        ("set_link foo on", "Error: Device 'foo' not found\r\n"),
        (
            "screendump",
            "screendump: filename expected\r\nTry \"help screendump\" for more information\r\n",
        ),
        (
            "screendump /tmp/x -x",
            "screendump: unsupported option -x\r\nTry \"help screendump\" for more information\r\n",
        ),
        ("eject foo", "Error: Device 'foo' not found\r\n"),
        (
            "eject",
            "eject: block device name expected\r\nTry \"help eject\" for more information\r\n",
        ),
        ("change nope /x", "Error: Device 'nope' not found\r\n"),
    ] {
        assert_eq!(say(&machine, line), answer, "{line}");
    }
    let long = "x".repeat(LINE_BYTES + 1);
    assert_eq!(say(&machine, &long), "the line is too long\r\n");
}

#[test]
fn help_lists_what_there_is() {
    let machine = machine("");
    let all = say(&machine, "help");
    for command in commands::COMMANDS {
        assert!(
            all.contains(&format!("{} ", command.names)),
            "{}",
            command.names
        );
    }
    let infos = say(&machine, "info");
    assert_eq!(infos, say(&machine, "help info"));
    for line in infos.lines() {
        let name = line.split_whitespace().nth(1).unwrap();
        let said = say(&machine, &format!("info {name}"));
        assert!(
            !said.contains("unknown") && !said.starts_with("Error"),
            "{name}: {said}"
        );
    }
}

#[test]
fn the_machine_stops_and_goes_on_and_ends() {
    let machine = machine("");
    let handle = machine.handle();
    for (line, state, said) in [
        ("cont", RunState::Running, "VM status: running\r\n"),
        ("s", RunState::Paused, "VM status: paused\r\n"),
        ("c", RunState::Running, "VM status: running\r\n"),
        ("stop", RunState::Paused, "VM status: paused\r\n"),
        (
            "system_reset",
            RunState::Prelaunch,
            "VM status: paused (prelaunch)\r\n",
        ),
    ] {
        assert_eq!(say(&machine, line), "", "{line}");
        assert_eq!(handle.state(), state, "{line}");
        assert_eq!(say(&machine, "info status"), said, "{line}");
    }
    let events = handle.events();
    assert_eq!(say(&machine, "system_powerdown"), "");
    assert_eq!(events.recv().unwrap().1, machine::control::Event::Powerdown);
    let mut session = Session::new(&handle, false);
    assert_eq!(
        session.greeting(),
        b"QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) "
    );
    assert_eq!(session.typed(b"info name\n\n"), b"foo\r\n(qemu) (qemu) ");
    // Nobody is asked for more after that.
    assert_eq!(session.typed(b"q\ninfo name\n"), b"");
    assert_eq!(machine.wait(), machine::control::Cause::HostQmpQuit);
}

#[test]
fn devices_are_listed() {
    let machine = machine("");
    let said = |line: &str| say(&machine, line);
    let block = "cd0: [not inserted]\r\n    Attached to:      /machine/peripheral-anon/usb-storage.0\r\n    \
        Removable device: not locked, tray closed\r\n";
    assert_eq!(said("info block"), block);
    assert_eq!(said("info block cd0"), block);
    assert_eq!(said("info block x"), "Error: Device 'x' not found\r\n");

    let network = said("info network");
    let lines: Vec<_> = network.lines().collect();
    assert_eq!(
        lines[0],
        "nic0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56"
    );
    assert!(
        lines[1].starts_with(" \\ n0: index=0,type=user,"),
        "{network}"
    );
    assert!(lines[2].starts_with("n1: index=0,type=user,"), "{network}");
    assert_eq!(said("set_link nic0 off"), "");
    assert!(said("info network").contains("12:34:56,link=down\r\n"));
    assert_eq!(said("set_link n0 on"), "");
    assert_eq!(said("info network"), network);

    let usb = said("info usb");
    assert!(
        usb.contains("  Bus 0, Port 1, Speed 480 Mb/s, usb-kbd.0\r\n"),
        "{usb}"
    );
    assert!(usb.contains("Speed 480 Mb/s, mouse\r\n"), "{usb}");
    assert_eq!(usb.lines().count(), 3, "{usb}");

    let pci = said("info pci");
    assert!(
        pci.starts_with(
            "  Bus  0, device   0, function 0:\r\n    Host bridge: PCI device 1b36:0008\r\n      \
             PCI subsystem 1af4:1100\r\n"
        ),
        "{pci}"
    );
    assert!(
        pci.contains("    Ethernet controller: PCI device 1af4:1000\r\n"),
        "{pci}"
    );
    assert!(
        pci.contains("      BAR0: 64 bit memory (not mapped)\r\n      id \"qemu-xhci.0\"\r\n"),
        "{pci}"
    );
    assert!(pci.contains("      IRQ 0, pin A\r\n"), "{pci}");
}

#[test]
fn processors_tell_of_themselves() {
    let machine = machine("");
    let cpus = say(&machine, "info cpus");
    assert!(cpus.starts_with("* CPU #0: thread_id="), "{cpus}");
    assert!(cpus.contains("\r\n  CPU #1: thread_id="), "{cpus}");
    let mut monitor = Monitor::new(&machine.handle());
    assert_eq!(monitor.execute("cpu 1"), "");
    assert!(monitor.execute("info cpus").contains("* CPU #1"));
    assert!(
        monitor
            .execute("info registers")
            .starts_with("\r\nCPU#1\r\n PC=")
    );
    let all = monitor.execute("info registers -a");
    assert!(all.contains("\r\nCPU#0\r\n") && all.contains("\r\nCPU#1\r\n"));
    assert_eq!(
        monitor.execute("info registers 2"),
        "CPU#2 not available\r\n"
    );
    // Reset state: EL1h, all exceptions masked (DDI 0487, D1.9).
    assert!(all.contains("PSTATE=000003c5 ---- EL1h\r\n"), "{all}");

    let jit = say(&machine, "info jit");
    let translates = cfg!(all(target_arch = "x86_64", target_os = "linux"));
    if translates && jit.starts_with("CPU #0:") {
        assert!(jit.contains("  translations 0 and 0 loops"), "{jit}");
        assert!(jit.contains("\r\nCPU #1:\r\n"), "{jit}");
    } else {
        assert!(jit.starts_with("This machine's engine does not"), "{jit}");
    }
    // Whether it runs or not, and whether a processor is on or not.
    assert_eq!(say(&machine, "cont"), "");
    for _ in 0..20 {
        assert_eq!(
            say(&machine, "info jit").starts_with("CPU #0:"),
            jit.starts_with("CPU #0:")
        );
        assert!(say(&machine, "info registers -a").contains("CPU#1"));
    }
    let handle = machine.handle();
    drop(machine);
    let said = Monitor::new(&handle).execute("info registers");
    assert_eq!(said, "Error: the machine has ended\r\n");
}

#[test]
fn an_interpreter_counts_nothing() {
    let machine = machine("-accel jit,tier=interpreter");
    assert!(say(&machine, "info jit").starts_with("This machine's engine does not"));
}

#[test]
fn passwords() {
    let machine = machine("");
    assert_eq!(say(&machine, "info vnc"), "None\r\n");
    assert_eq!(
        say(&machine, "set_password vnc x"),
        "Error: Could not set password\r\n"
    );
    let display = machine.handle().board().display().clone();
    let options = console::vnc::VncOptions {
        password: true,
        ..console::vnc::VncOptions::local()
    };
    let server = console::vnc::VncServer::start(display, &options).unwrap();
    for line in [
        "set_password vnc secret",
        "set_password vnc \"se cret\" keep",
        "change vnc password other",
        "expire_password vnc +60",
        "expire_password vnc never",
    ] {
        assert_eq!(say(&machine, line), "", "{line}");
    }
    let expected = format!(
        "default:\r\n  Server: {} (ipv4)\r\n    Auth: vnc (Sub: none)\r\n  Clients: 0\r\n",
        server.location()
    );
    assert_eq!(say(&machine, "info vnc"), expected);
    for (line, start) in [
        ("set_password spice x", "Error: Parameter 'protocol'"),
        ("set_password vnc x bla", "Error: Parameter 'connected'"),
        ("expire_password vnc soon", "Error: Parameter 'time'"),
        ("change vnc password", "Error: give the password"),
        ("change vnc :1", "Error: a VNC server cannot"),
    ] {
        assert!(say(&machine, line).starts_with(start), "{line}");
    }
}

/// Answers as QEMU 10.0's, but for what is inserted when it cannot be: QEMU's drive is empty then.
#[test]
fn media_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let disc = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        path.display().to_string()
    };
    let (first, second) = (disc("first.iso"), disc("second.iso"));
    let hard_disk = disc("hd.img");
    let machine = machine(&format!(
        "-drive file={hard_disk},format=raw,if=virtio,id=hd"
    ));
    let said = |line: &str| say(&machine, line);
    let handle = machine.handle();
    let events = handle.events();
    let block = |inserted: &str, tray: &str| {
        format!(
            "cd0: {inserted}\r\n    Attached to:      /machine/peripheral-anon/usb-storage.0\r\n    \
             Removable device: not locked, tray {tray}\r\n"
        )
    };
    assert_eq!(said("info block cd0"), block("[not inserted]", "closed"));
    assert_eq!(said(&format!("change cd0 {first}")), "");
    let inserted = format!("{first} (raw, read-only)");
    assert_eq!(said("info block cd0"), block(&inserted, "closed"));
    for (line, answer) in [
        ("eject hd", "Error: Device 'hd' is not removable\r\n"),
        ("change hd /x", "Error: Device 'hd' is not removable\r\n"),
        (
            "change cd0 /none/x.iso",
            "Error: Could not open '/none/x.iso': No such file or directory\r\n",
        ),
        ("change cd0 /x vvv", "Error: Unknown driver 'vvv'\r\n"),
        (
            "change cd0 /x raw bad",
            "Error: invalid parameter value: bad\r\n",
        ),
        (
            "change cd0 /x raw read-write",
            "Error: Device 'cd0' takes media to be read only\r\n",
        ),
    ] {
        assert_eq!(said(line), answer, "{line}");
        assert_eq!(said("info block cd0"), block(&inserted, "closed"), "{line}");
    }
    assert_eq!(said(&format!("change -f cd0 {second} raw retain")), "");
    // What is not in a drive is nobody's: it can be locked again.
    let free = storage::ImageOptions::new(&first);
    drop(storage::Image::open(&free).unwrap());
    for _ in 0..2 {
        assert_eq!(said("eject cd0"), "");
        assert_eq!(said("info block cd0"), block("[not inserted]", "open"));
    }
    assert_eq!(said(&format!("change cd0 {first}")), "");
    let qmp = |name: &str, arguments: Value| {
        let command = qmp::find(name).unwrap();
        command(&arguments, &handle).map_err(|error| error.description)
    };
    let cd0 = || json!({ "device": "cd0" });
    let holder = "/machine/peripheral-anon/usb-storage.0";
    let by_id = || json!({ "id": holder });
    let done = Ok(json!({}));
    assert_eq!(
        qmp("blockdev-remove-medium", by_id()),
        Err("Tray of device 'cd0' is not open".into())
    );
    assert_eq!(qmp("blockdev-open-tray", cd0()), done);
    assert_eq!(qmp("blockdev-close-tray", by_id()), done);
    assert_eq!(said("info block cd0"), block(&inserted, "closed"));
    assert_eq!(qmp("blockdev-open-tray", by_id()), done);
    assert_eq!(qmp("blockdev-remove-medium", by_id()), done);
    assert_eq!(qmp("blockdev-close-tray", cd0()), done);
    assert_eq!(said("info block cd0"), block("[not inserted]", "closed"));
    let both = json!({ "device": "cd0", "id": holder });
    for (command, arguments, error) in [
        ("eject", both, "Need exactly one of 'device' and 'id'"),
        ("eject", json!({}), "Need exactly one of 'device' and 'id'"),
        ("eject", json!({ "id": "cd0" }), "Device 'cd0' not found"),
        (
            "blockdev-open-tray",
            json!({ "device": "hd" }),
            "Device 'hd' is not removable",
        ),
        (
            "blockdev-change-medium",
            json!({ "device": "cd0", "filename": first, "read-only-mode": "x" }),
            "Parameter 'read-only-mode' does not accept value 'x'",
        ),
    ] {
        assert_eq!(qmp(command, arguments), Err(error.into()), "{command}");
    }
    let moves: Vec<bool> = std::iter::from_fn(|| events.try_recv().ok())
        .map(|(_, event)| match event {
            machine::control::Event::TrayMoved {
                device,
                holder: whose,
                open,
            } => {
                assert_eq!((device.as_str(), whose.as_str()), ("cd0", holder));
                open
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let changes = [true, false].repeat(2);
    let by_hand = [true, false, true, false, true, false];
    assert_eq!(moves, [&changes[..], &by_hand[..]].concat());
}

/// The way managers change discs; errors are QEMU 10.0's.
#[test]
fn nodes_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        path.display().to_string()
    };
    let (first, second, hard_disk) = (file("first.iso"), file("second.iso"), file("hd.img"));
    let machine = machine(&format!(
        "-blockdev raw,node-name=hd,file.driver=file,file.filename={hard_disk},file.node-name=hdf \
         -device virtio-blk-pci,drive=hd,id=vb \
         -drive if=none,id=cd1,media=cdrom,file={second} -device usb-storage,drive=cd1,id=cdrom1"
    ));
    let handle = machine.handle();
    let events = handle.events();
    let qmp = |name: &str, arguments: Value| {
        let command = qmp::find(name).unwrap();
        command(&arguments, &handle).map_err(|error| error.description)
    };
    let done = Ok(json!({}));
    let no = |text: &str| Err(text.to_string());
    let id = "/machine/peripheral-anon/usb-storage.0";
    let insert = |id: &str, node: &str| {
        qmp(
            "blockdev-insert-medium",
            json!({ "id": id, "node-name": node }),
        )
    };
    let delete = |node: &str| qmp("blockdev-del", json!({ "node-name": node }));
    let add = |node: Value| qmp("blockdev-add", node);
    let storage = |name: &str, path: &str| {
        add(
            json!({ "driver": "file", "node-name": name, "filename": path, "auto-read-only": true, "discard": "unmap" }),
        )
    };
    let disc = |name: &str, file: Value| {
        add(json!({ "driver": "raw", "node-name": name, "read-only": true, "file": file }))
    };
    let inserted = |device: usize| {
        let all = qmp("query-block", json!({})).unwrap();
        let drive = all.as_array().unwrap()[device].clone();
        (drive["inserted"].clone(), drive["tray_open"].clone())
    };

    assert_eq!(storage("s1", &first), done);
    assert_eq!(disc("d1", json!("s1")), done);
    assert_eq!(insert(id, "d1"), no("Tray of device 'cd0' is not open"));
    assert_eq!(qmp("blockdev-open-tray", json!({ "id": id })), done);
    assert_eq!(insert(id, "d2"), no("Node 'd2' not found"));
    assert_eq!(qmp("blockdev-remove-medium", json!({ "id": id })), done);
    assert_eq!(insert(id, "d1"), done);
    assert_eq!(
        insert(id, "d1"),
        no("There already is a medium in device 'cd0'")
    );
    assert_eq!(qmp("blockdev-close-tray", json!({ "id": id })), done);
    let (disc_in, open) = inserted(0);
    assert_eq!(
        (
            &disc_in["file"],
            &disc_in["node-name"],
            &disc_in["drv"],
            &disc_in["ro"],
            open
        ),
        (
            &json!(first),
            &json!("d1"),
            &json!("raw"),
            &json!(true),
            json!(false)
        )
    );
    assert_eq!(
        say(&machine, "info block cd0").lines().next().unwrap(),
        format!("cd0: {first} (raw, read-only)")
    );
    // In use, each in its way.
    for (name, error) in [
        ("d1", "Node d1 is in use"),
        ("s1", "Block device s1 is in use"),
        ("hd", "Node hd is in use"),
        ("hdf", "Node hdf is not owned by the monitor"),
        ("cd1", "Node cd1 is in use"),
        ("x", "Failed to find node with node-name='x'"),
    ] {
        assert_eq!(delete(name), no(error), "{name}");
    }
    let other = "/machine/peripheral/cdrom1";
    assert_eq!(qmp("blockdev-open-tray", json!({ "id": "cdrom1" })), done);
    assert_eq!(
        qmp("blockdev-remove-medium", json!({ "id": "cdrom1" })),
        done
    );
    for node in ["d1", "hd"] {
        assert_eq!(
            insert(other, node),
            Err(format!("Node '{node}' is already in use"))
        );
    }
    assert_eq!(insert("vb", "d1"), no("Device 'vb' is not removable"));
    assert_eq!(insert("cd0", "d1"), no("Device 'cd0' not found"));
    // A second image in a file that is only read, but none that writes.
    assert_eq!(disc("d2", json!("s1")), done);
    assert_eq!(
        add(json!({ "driver": "raw", "node-name": "w", "file": "s1" })),
        no("Node 's1' is already in use")
    );
    assert_eq!(insert(other, "d2"), done);
    assert_eq!(qmp("eject", json!({ "id": "cdrom1" })), done);
    assert_eq!(delete("d2"), done);

    assert_eq!(qmp("blockdev-open-tray", json!({ "id": id })), done);
    assert_eq!(qmp("blockdev-remove-medium", json!({ "id": id })), done);
    assert_eq!(delete("s1"), no("Block device s1 is in use"));
    assert_eq!(delete("d1"), done);
    assert_eq!(delete("s1"), done);
    // A file is a disc by itself.
    assert_eq!(storage("s2", &second), done);
    assert_eq!(insert(id, "s2"), done);
    let (disc_in, _) = inserted(0);
    assert_eq!(
        (&disc_in["drv"], &disc_in["ro"]),
        (&json!("file"), &json!(true))
    );
    assert_eq!(qmp("eject", json!({ "id": id })), done);
    assert_eq!(delete("s2"), done);

    let inside = |path: &str| json!({ "driver": "file", "filename": path });
    let none = folder.path().join("none").display().to_string();
    for (node, error) in [
        (
            json!({ "driver": "raw", "node-name": "hd", "file": inside(&first) }),
            "Duplicate nodes with node-name='hd'".to_string(),
        ),
        (
            json!({ "driver": "raw", "node-name": "cd0", "file": inside(&first) }),
            "node-name=cd0 is conflicting with a device id".into(),
        ),
        (
            json!({ "driver": "raw", "node-name": "n", "file": inside(&none) }),
            format!("Could not open '{none}': No such file or directory"),
        ),
        (
            json!({ "driver": "raw", "node-name": "n", "file": "nofile" }),
            "Cannot find device='nofile' nor node-name='nofile'".into(),
        ),
        (
            json!({ "driver": "raw", "node-name": "n", "file": "hd" }),
            "Dormer opens images in files only: 'hd' is an image itself".into(),
        ),
        (
            json!({ "driver": "raw", "file": inside(&first) }),
            "'node-name' must be specified for the root node".into(),
        ),
    ] {
        assert_eq!(add(node), Err(error));
    }
    // What failed has left nothing.
    let nodes = qmp("query-named-block-nodes", json!({ "flat": true })).unwrap();
    let names = nodes
        .as_array()
        .unwrap()
        .iter()
        .map(|node| &node["node-name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["hd", "hdf"]);
    let (disk, _) = inserted(1);
    assert_eq!(disk, nodes[0]);
    assert_eq!(nodes[1]["drv"], "file");
    assert_eq!(
        say(&machine, "info block hd"),
        format!("hd: {hard_disk} (raw)\r\n    Attached to:      /machine/peripheral/vb\r\n")
    );
    let moves = std::iter::from_fn(|| events.try_recv().ok()).count();
    assert_eq!(moves, 4);
}

#[test]
fn nodes_have_one_writer_and_the_backing_files_they_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("base.img"), vec![0; 1 << 20]).unwrap();
    let base = path("base.img").display().to_string();
    let top = path("top.qcow2");
    storage::create_overlay(&top, 1 << 20, &base, storage::Format::Raw).unwrap();
    let build = |rest: &str| {
        let line = format!(
            "-machine virt -accel jit -nodefaults -S -blockdev qcow2,node-name=d,cache.no-flush=on,file.driver=file,\
             file.filename={}{rest}",
            top.display()
        );
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        match command_line::parse(&words) {
            Ok(Request::Run(line)) => Board::build(&line.machine, Arc::new(Silence)),
            other => panic!("{other:?}"),
        }
        .map_err(|error| error.to_string())
    };
    let two = " -device virtio-blk-pci,drive=d -device virtio-blk-pci,drive=d";
    assert_eq!(build(two).err().unwrap(), "Node 'd' is already in use");
    assert_eq!(
        build(",backing=").err().unwrap(),
        format!(
            "Dormer cannot open '{}' without its backing file (backing=null)",
            top.display()
        )
    );
    assert_eq!(
        build(",cache.direct=on").err().unwrap(),
        "Dormer does not have cache.no-flush=on together with cache.direct=on"
    );
    assert_eq!(
        build(",read-only=off,file.read-only=on").err().unwrap(),
        "Block node is read-only"
    );
    let machine = Machine::start(build(&format!(",read-only=on{two}")).unwrap()).unwrap();
    let query = qmp::find("query-named-block-nodes").unwrap();
    let nodes = query(&json!({}), &machine.handle()).unwrap();
    let wanted = json!({
        "drv": "qcow2", "ro": true, "backing_file": base, "backing_file_depth": 1,
        "cache": { "writeback": true, "direct": false, "no-flush": true },
    });
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(nodes[0][key], *value, "{key}");
    }
    assert_eq!(nodes[1]["node-name"], "#block001");
}

#[test]
fn the_pointer_moves() {
    let machine = machine("");
    for line in [
        "mouse_move 5 -7",
        "mouse_move 0 0 -2",
        "mouse_move 1 2 9223372036854775807",
        "mouse_button 5",
        "mouse_button 0",
    ] {
        assert_eq!(say(&machine, line), "", "{line}");
    }
    assert!(say(&machine, "mouse_move 1").starts_with("unexpected end of expression"));
    assert!(say(&machine, "screendump /x a -1").starts_with("Error: Parameter 'head'"));
    assert_eq!(
        say(&machine, "screendump /x"),
        "Error: there is no picture on the screen yet\r\n"
    );
}

/// A client and the stream that a server has of it.
fn pair() -> (TcpStream, crate::servers::Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, crate::servers::Stream::Tcp(server))
}

#[test]
fn clients_are_let_go_when_the_machine_ends() {
    use std::io::{Read, Write};
    let machine = machine("");
    let serve = |telnet: bool| {
        let (client, stream) = pair();
        let handle = machine.handle();
        (
            client,
            std::thread::spawn(move || socket::run(stream, telnet, &handle)),
        )
    };
    let (mut idle, first) = serve(false);
    let (mut telnet, second) = serve(true);
    let (gone, third) = serve(false);
    drop(gone);
    third.join().unwrap();
    telnet
        .write_all(b"\xff\xfd\x18info name\r\0quit\r\n")
        .unwrap();
    let mut said = Vec::new();
    telnet.read_to_end(&mut said).unwrap();
    let expected = [
        &b"\xff\xfb\x01\xff\xfb\x03QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) "[..],
        b"\xff\xfc\x18info name\r\nfoo\r\n(qemu) quit\r\n",
    ]
    .concat();
    assert_eq!(
        String::from_utf8_lossy(&said),
        String::from_utf8_lossy(&expected)
    );
    let mut said = String::new();
    idle.read_to_string(&mut said).unwrap();
    assert!(said.ends_with("(qemu) "), "{said}");
    first.join().unwrap();
    second.join().unwrap();
    assert_eq!(machine.wait(), machine::control::Cause::HostQmpQuit);
}
