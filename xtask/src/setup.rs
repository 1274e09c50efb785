//! Installs what is missing, by name, through the system's package manager.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// What the tools are for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Firmware and what makes boot media.
    Demo,
    /// And compilers, oracles and checkers.
    Everything,
    /// And what builds for other hosts.
    Targets,
    /// And what `look` looks with.
    Look,
}

/// A tool: a program (or file) that shows it is there, and its packages.
struct Tool {
    purpose: Purpose,
    /// A program on the PATH, or an absolute path.
    probe: &'static str,
    debian: &'static str,
    /// `None`: not to be had there.
    homebrew: Option<&'static str>,
}

const TOOLS: &[Tool] = &[
    Tool {
        purpose: Purpose::Demo,
        probe: "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
        debian: "qemu-efi-aarch64",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Demo,
        probe: "xorriso",
        debian: "xorriso",
        homebrew: Some("xorriso"),
    },
    Tool {
        purpose: Purpose::Demo,
        probe: "mcopy",
        debian: "mtools",
        homebrew: Some("mtools"),
    },
    Tool {
        purpose: Purpose::Demo,
        probe: "depmod",
        debian: "kmod",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Demo,
        probe: "qemu-img",
        debian: "qemu-utils",
        homebrew: Some("qemu"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "iasl",
        debian: "acpica-tools",
        homebrew: Some("acpica"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "dtc",
        debian: "device-tree-compiler",
        homebrew: Some("dtc"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "qemu-aarch64",
        debian: "qemu-user",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "aarch64-linux-gnu-gcc",
        debian: "gcc-aarch64-linux-gnu",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "/usr/aarch64-linux-gnu/lib/libc.a",
        debian: "libc6-dev-arm64-cross",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "wimlib-imagex",
        debian: "wimtools",
        homebrew: Some("wimlib"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "7z",
        debian: "p7zip-full",
        homebrew: Some("p7zip"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "hivexregedit",
        debian: "libwin-hivex-perl",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "reged",
        debian: "chntpw",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "genisoimage",
        debian: "genisoimage",
        homebrew: Some("cdrtools"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "qemu-system-aarch64",
        debian: "qemu-system-arm",
        homebrew: Some("qemu"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "iperf3",
        debian: "iperf3",
        homebrew: Some("iperf3"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "swtpm",
        debian: "swtpm",
        homebrew: Some("swtpm"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "pip3",
        debian: "python3-pip",
        homebrew: Some("python"),
    },
    Tool {
        purpose: Purpose::Everything,
        probe: "sbsign",
        debian: "sbsigntool",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Look,
        probe: "chromium",
        debian: "chromium",
        homebrew: None,
    },
    // What the window loads on X11.
    Tool {
        purpose: Purpose::Look,
        probe: "/usr/share/doc/libxkbcommon-x11-0",
        debian: "libxkbcommon-x11-0",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Look,
        probe: "/usr/share/doc/libxcursor1",
        debian: "libxcursor1",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Look,
        probe: "/usr/share/doc/libxi6",
        debian: "libxi6",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Look,
        probe: "Xvfb",
        debian: "xvfb",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Look,
        probe: "openbox",
        debian: "openbox",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Look,
        probe: "xdotool",
        debian: "xdotool",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Look,
        probe: "import",
        debian: "imagemagick",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Targets,
        probe: "/usr/bin/rustc",
        debian: "rustc-web",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Targets,
        probe: "/usr/bin/cargo-clippy",
        debian: "rust-web-clippy",
        homebrew: None,
    },
    Tool {
        purpose: Purpose::Targets,
        probe: "/usr/lib/rustlib/src/rust/library/Cargo.lock",
        debian: "rust-web-src",
        homebrew: None,
    },
];

/// Installs the tools of a purpose that are not there.
pub fn run(purpose: Purpose) -> Result<()> {
    let old = purpose >= Purpose::Targets && compiler_is_old();
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|t| t.purpose <= purpose)
        .filter(|t| !present(t.probe) || (old && t.purpose == Purpose::Targets))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if cfg!(target_os = "macos") {
        let mut packages: Vec<_> = missing.iter().filter_map(|t| t.homebrew).collect();
        packages.dedup();
        if packages.is_empty() {
            return Ok(());
        }
        ensure!(
            present("brew"),
            "Homebrew is needed to install {}",
            packages.join(", ")
        );
        return call(Command::new("brew").arg("install").args(packages));
    }
    let mut packages: Vec<_> = missing.iter().map(|t| t.debian).collect();
    packages.sort_unstable();
    packages.dedup();
    if !present("apt-get") {
        bail!(
            "this host has no apt-get; install by hand what these Debian packages hold: {}",
            packages.join(", ")
        );
    }
    println!("Installing: {}", packages.join(", "));
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout.starts_with(b"0\n"));
    let apt = |arguments: &[&str]| {
        let mut command = if root {
            Command::new("apt-get")
        } else {
            Command::new("sudo")
        };
        if !root {
            command.arg("apt-get");
        }
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments);
        call(&mut command)
    };
    // Another installation may be under way.
    let install = [
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
        "-o",
        "DPkg::Lock::Timeout=600",
    ];
    let (peers, others): (Vec<_>, Vec<_>) = packages
        .into_iter()
        .partition(|package| OF_BACKPORTS.contains(package));
    if !others.is_empty() {
        // Lists as old as the host's image name old packages, or such as are gone. Without a network they may do.
        let updated = apt(&["update", "-q"]);
        apt(&[&install, &others[..]].concat()).or_else(|error| updated.and(Err(error)))?;
    }
    if !peers.is_empty() {
        let backports = backports()?;
        let options: Vec<_> = backports.iter().map(String::as_str).collect();
        apt(&[&options[..], &["update", "-q"]].concat())?;
        apt(&[&options[..], &install, &peers].concat())?;
    }
    Ok(())
}

/// Whether the distribution's compiler is older than the one that the workspace needs.
fn compiler_is_old() -> bool {
    let version = |text: &str| -> Option<(u32, u32)> {
        let mut numbers = text.split('.').map(|n| n.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    let said = Command::new(crate::targets::RUSTC)
        .arg("--version")
        .output();
    let said = said.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    let present = said.ok().and_then(|s| version(s.split(' ').nth(1)?));
    present < version(env!("CARGO_PKG_RUST_VERSION"))
}

/// QEMU itself: we are measured and compared with version 10, where bookworm has 7.2.
const OF_BACKPORTS: [&str; 3] = ["qemu-system-arm", "qemu-user", "qemu-utils"];

/// Options of apt-get that give it this release's backports for one call, and leave the host's own sources alone. None
/// where the release is not bookworm: its own QEMU is as good.
fn backports() -> Result<Vec<String>> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.lines().any(|l| l == "VERSION_CODENAME=bookworm") {
        return Ok(Vec::new());
    }
    let folder = guests::cache::root()?.join("apt/backports");
    std::fs::create_dir_all(folder.join("lists/partial"))?;
    let sources = folder.join("sources.list");
    let text =
        guests::packages::sources("bookworm")? + &guests::packages::sources("bookworm-backports")?;
    std::fs::write(&sources, text)?;
    let mut options = Vec::new();
    for option in [
        format!("Dir::Etc::sourcelist={}", sources.display()),
        "Dir::Etc::sourceparts=-".into(),
        format!("Dir::State::lists={}", folder.join("lists").display()),
        "APT::Sandbox::User=root".into(),
        "APT::Default-Release=bookworm-backports".into(),
    ] {
        options.extend(["-o".into(), option]);
    }
    Ok(options)
}

fn call(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(status.success(), "{:?} failed", command.get_program());
    Ok(())
}

/// Whether a program is on the PATH, or in the folders of system tools.
pub fn present(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/sbin".into(), "/usr/sbin".into()])
        .any(|folder| folder.join(program).exists())
}
