//! The command line's options: their names, and which of them take an argument.

use crate::Error;

/// One option as given.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Without its dash, by its first name (`machine` for `-M`).
    pub name: &'static str,
    pub value: String,
    /// As the user wrote it, for messages: `-device usb-kbd`.
    pub text: String,
}

/// What an option is to us.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Support {
    /// Taken.
    Yes,
    /// Known to QEMU's users, not built; and what it is.
    NotYet(&'static str),
}

/// (names, takes an argument, support)
const OPTIONS: &[(&[&str], bool, Support)] = &[
    (&["help", "h"], false, Support::Yes),
    (&["version"], false, Support::Yes),
    (&["machine", "M"], true, Support::Yes),
    (&["cpu"], true, Support::Yes),
    (&["accel"], true, Support::Yes),
    (&["enable-kvm"], false, Support::Yes),
    (&["m"], true, Support::Yes),
    (&["smp"], true, Support::Yes),
    (&["name"], true, Support::Yes),
    (&["uuid"], true, Support::Yes),
    (&["bios"], true, Support::Yes),
    (&["pflash"], true, Support::Yes),
    (&["firmware"], true, Support::Yes),
    (&["kernel"], true, Support::Yes),
    (&["initrd"], true, Support::Yes),
    (&["append"], true, Support::Yes),
    (&["dtb"], true, Support::Yes),
    (&["device"], true, Support::Yes),
    (&["drive"], true, Support::Yes),
    (&["blockdev"], true, Support::Yes),
    (&["cdrom"], true, Support::Yes),
    (&["hda"], true, Support::Yes),
    (&["hdb"], true, Support::Yes),
    (&["hdc"], true, Support::Yes),
    (&["hdd"], true, Support::Yes),
    (&["snapshot"], false, Support::Yes),
    (&["object"], true, Support::Yes),
    (&["serial"], true, Support::Yes),
    (&["monitor"], true, Support::Yes),
    (&["qmp"], true, Support::Yes),
    (&["qmp-pretty"], true, Support::Yes),
    (&["display"], true, Support::Yes),
    (&["vnc"], true, Support::Yes),
    (&["nographic"], false, Support::Yes),
    (&["nodefaults"], false, Support::Yes),
    (&["no-user-config"], false, Support::Yes),
    (&["no-reboot"], false, Support::Yes),
    (&["no-shutdown"], false, Support::Yes),
    (&["action"], true, Support::Yes),
    (&["S"], false, Support::Yes),
    (&["rtc"], true, Support::Yes),
    (&["icount"], true, Support::Yes),
    (&["seed"], true, Support::Yes),
    (&["boot"], true, Support::Yes),
    (&["fw_cfg"], true, Support::Yes),
    (&["smbios"], true, Support::Yes),
    (&["nic"], true, Support::Yes),
    (&["net"], true, Support::Yes),
    (&["netdev"], true, Support::Yes),
    (&["vga"], true, Support::Yes),
    (&["parallel"], true, Support::Yes),
    (&["pidfile"], true, Support::Yes),
    (&["audiodev"], true, Support::Yes),
    (&["audio"], true, Support::Yes),
    (&["tpmdev"], true, Support::Yes),
    (&["chardev"], true, Support::Yes),
    (
        &["mon"],
        true,
        Support::NotYet("monitors on character devices; use -monitor or -qmp"),
    ),
    (
        &["global"],
        true,
        Support::NotYet("global properties; give them with -device"),
    ),
    (&["set"], true, Support::NotYet("setting options by id")),
    (
        &["usb"],
        false,
        Support::NotYet("a default USB controller; use -device qemu-xhci"),
    ),
    (
        &["usbdevice"],
        true,
        Support::NotYet("USB devices by this option; use -device"),
    ),
    (&["numa"], true, Support::NotYet("NUMA")),
    (&["mem-path"], true, Support::NotYet("file-backed memory")),
    (
        &["mem-prealloc"],
        false,
        Support::NotYet("preallocated memory"),
    ),
    (&["overcommit"], true, Support::NotYet("memory locking")),
    (
        &["daemonize"],
        false,
        Support::NotYet("running in the background"),
    ),
    (&["runas"], true, Support::NotYet("changing the user")),
    (
        &["run-with"],
        true,
        Support::NotYet("changing the user or the root directory"),
    ),
    (&["sandbox"], true, Support::NotYet("the sandbox")),
    (
        &["chroot"],
        true,
        Support::NotYet("changing the root directory"),
    ),
    (&["spice"], true, Support::NotYet("SPICE; use -vnc")),
    (&["full-screen"], false, Support::NotYet("the window")),
    (&["k"], true, Support::NotYet("keyboard layouts")),
    (&["gdb"], true, Support::NotYet("the debugger")),
    (&["s"], false, Support::NotYet("the debugger")),
    (&["d"], true, Support::NotYet("QEMU's logs; set RUST_LOG")),
    (&["D"], true, Support::NotYet("QEMU's logs; set RUST_LOG")),
    (
        &["trace"],
        true,
        Support::NotYet("QEMU's traces; set RUST_LOG"),
    ),
    (&["loadvm"], true, Support::NotYet("snapshots")),
    (&["incoming"], true, Support::NotYet("migration")),
    (&["fsdev"], true, Support::NotYet("shared folders")),
    (&["virtfs"], true, Support::NotYet("shared folders")),
    (&["watchdog-action"], true, Support::NotYet("watchdogs")),
    (&["semihosting"], false, Support::NotYet("semihosting")),
    (
        &["semihosting-config"],
        true,
        Support::NotYet("semihosting"),
    ),
    (
        &["readconfig"],
        true,
        Support::NotYet("configuration files"),
    ),
    (
        &["acpitable"],
        true,
        Support::NotYet("the user's ACPI tables"),
    ),
    (
        &["add-fd"],
        true,
        Support::NotYet("passed file descriptors"),
    ),
    (&["plugin"], true, Support::NotYet("plugins")),
    (&["msg"], true, Support::NotYet("message formats")),
    (&["iscsi"], true, Support::NotYet("iSCSI")),
    (
        &["mtdblock"],
        true,
        Support::NotYet("flash by this option; use -drive if=pflash"),
    ),
    (&["sd"], true, Support::NotYet("SD cards")),
    (&["option-rom"], true, Support::NotYet("option ROMs")),
    (&["shim"], true, Support::NotYet("shims")),
];

/// Splits the arguments into options. A lone argument is a disk image, as `-hda`.
pub fn split(arguments: &[String]) -> Result<Vec<Given>, Error> {
    let mut given = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(name) = argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'))
        else {
            given.push(Given {
                name: "hda",
                value: argument.clone(),
                text: format!("-hda {argument}"),
            });
            continue;
        };
        let Some((names, takes_value, support)) = OPTIONS.iter().find(|o| o.0.contains(&name))
        else {
            return Err(Error::new(format!("{argument}: invalid option")));
        };
        let value = if *takes_value {
            arguments
                .next()
                .cloned()
                .ok_or_else(|| Error::new(format!("{argument}: requires an argument")))?
        } else {
            String::new()
        };
        let text = if *takes_value {
            format!("-{name} {value}")
        } else {
            format!("-{name}")
        };
        if let Support::NotYet(what) = support {
            return Err(Error::new(format!(
                "{text}: Dormer does not have this option yet ({what})"
            )));
        }
        given.push(Given {
            name: names[0],
            value,
            text,
        });
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| w.to_string()).collect()
    }

    #[test]
    fn aliases_values_and_lone_images() {
        let given = split(&arguments(&["-M", "virt", "--nographic", "disk.img"])).unwrap();
        let names: Vec<_> = given.iter().map(|g| (g.name, g.value.as_str())).collect();
        assert_eq!(
            names,
            [("machine", "virt"), ("nographic", ""), ("hda", "disk.img")]
        );
        assert_eq!(given[0].text, "-M virt");
    }

    #[test]
    fn unknown_missing_and_later() {
        let text = |words: &[&str]| split(&arguments(words)).unwrap_err().to_string();
        assert_eq!(text(&["-foo"]), "-foo: invalid option");
        assert_eq!(text(&["-m"]), "-m: requires an argument");
        assert!(text(&["-loadvm", "1"]).contains("does not have this option yet (snapshots"));
    }
}
