//! Where UEFI images are found on the host.
//!
//! First by firmware descriptors (QEMU's `docs/interop/firmware.json`): JSON files in three directories, of which a
//! later one's file replaces those of the same name in earlier ones, and an empty file hides them. They are tried in
//! the order of their names. Then in the places that distributions without descriptors are known to use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Descriptor directories under the root, lowest priority first; the user's own comes after them.
const DESCRIPTORS: [&str; 4] = [
    "opt/homebrew/share/qemu/firmware",
    "usr/local/share/qemu/firmware",
    "usr/share/qemu/firmware",
    "etc/qemu/firmware",
];

/// Pairs of code and variables outside of descriptors: Debian, Fedora, Arch, SUSE, Homebrew on either Mac, MacPorts.
/// `no-secboot` goes first: it starts anything, the shell included.
const PAIRS: [(&str, &str); 9] = [
    (
        "usr/share/AAVMF/AAVMF_CODE.no-secboot.fd",
        "usr/share/AAVMF/AAVMF_VARS.fd",
    ),
    (
        "usr/share/AAVMF/AAVMF_CODE.fd",
        "usr/share/AAVMF/AAVMF_VARS.fd",
    ),
    (
        "usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
        "usr/share/edk2/aarch64/vars-template-pflash.raw",
    ),
    (
        "usr/share/edk2/aarch64/QEMU_CODE.fd",
        "usr/share/edk2/aarch64/QEMU_VARS.fd",
    ),
    (
        "usr/share/qemu/aavmf-aarch64-code.bin",
        "usr/share/qemu/aavmf-aarch64-vars.bin",
    ),
    (
        "opt/homebrew/share/qemu/edk2-aarch64-code.fd",
        "opt/homebrew/share/qemu/edk2-arm-vars.fd",
    ),
    (
        "usr/local/share/qemu/edk2-aarch64-code.fd",
        "usr/local/share/qemu/edk2-arm-vars.fd",
    ),
    (
        "opt/local/share/qemu/edk2-aarch64-code.fd",
        "opt/local/share/qemu/edk2-arm-vars.fd",
    ),
    (
        "usr/share/qemu/edk2-aarch64-code.fd",
        "usr/share/qemu/edk2-arm-vars.fd",
    ),
];

/// Directories where `-bios NAME` looks for a bare name.
const DATA: [&str; 7] = [
    "usr/local/share/qemu",
    "opt/homebrew/share/qemu",
    "opt/local/share/qemu",
    "usr/share/qemu",
    "usr/share/qemu-efi-aarch64",
    "usr/share/AAVMF",
    "usr/share/edk2/aarch64",
];

/// A descriptor larger than this is none.
const LARGEST_DESCRIPTOR: u64 = 1 << 20;

/// Why there is no firmware.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(
        "no UEFI firmware for AArch64 was found{}; install it (Debian and Ubuntu: qemu-efi-aarch64, \
         Fedora: edk2-aarch64, Arch: edk2-aarch64, macOS: brew install qemu) or name it with -bios or if=pflash",
        if *secure_boot { " that enforces Secure Boot" } else { "" }
    )]
    NotFound { secure_boot: bool },
    #[error("Could not find ROM image '{0}'")]
    NoRom(String),
}

/// An image file and its format, `raw` or `qcow2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    pub path: PathBuf,
    pub format: String,
}

/// Firmware in two flash images, or one for `-bios`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// From the descriptor, or the file's name.
    pub description: String,
    /// For flash 0, read-only.
    pub code: ImageFile,
    /// To be copied for flash 1; `None`: firmware starts with empty variables.
    pub variables: Option<ImageFile>,
    /// Enforces Secure Boot.
    pub secure_boot: bool,
    /// Its variables hold the keys of Microsoft or of the distribution.
    pub enrolled_keys: bool,
}

/// What firmware is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// With Secure Boot and enrolled keys, or without it.
    pub secure_boot: bool,
}

/// The host's files: under `/`, and the user's configuration.
#[derive(Clone, Debug)]
pub struct Host {
    /// `/`, or a directory that stands for it.
    pub root: PathBuf,
    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    pub config: Option<PathBuf>,
    /// `share/dormer/firmware` of the archive that this program came in: for hosts whose distribution has no firmware.
    pub own: Option<PathBuf>,
}

/// Code and variables in [`Host::own`].
const OWN: (&str, &str) = ("edk2-aarch64-code.fd", "edk2-arm-vars.fd");

/// The firmware's folder beside a program, or beside the folder that the program is in.
fn beside(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    [Some(folder), folder.parent()]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("share/dormer/firmware"))
        .find(|folder| folder.is_dir())
}

impl Host {
    /// This host, this user.
    pub fn this() -> Host {
        let set = |name| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        Host {
            root: "/".into(),
            config,
            own: std::env::current_exe()
                .and_then(|program| program.canonicalize())
                .ok()
                .and_then(|program| beside(&program)),
        }
    }

    /// The firmware that fits best: the first descriptor's, then the first known place's.
    pub fn find(&self, wanted: Wanted) -> Result<Firmware, ImageError> {
        let not_found = || ImageError::NotFound {
            secure_boot: wanted.secure_boot,
        };
        self.all()
            .into_iter()
            .find(|f| suits(f, wanted))
            .ok_or_else(not_found)
    }

    /// All firmware for this board whose files are there, best first.
    pub fn all(&self) -> Vec<Firmware> {
        let described = self.descriptors().into_values().filter_map(|text| {
            let descriptor: Descriptor = serde_json::from_str(&text).ok()?;
            self.described_by(descriptor)
        });
        let places = PAIRS
            .iter()
            .map(|(code, variables)| (self.root.join(code), self.root.join(variables)));
        let own = self
            .own
            .iter()
            .map(|folder| (folder.join(OWN.0), folder.join(OWN.1)));
        let known = places.chain(own).filter_map(|(code, variables)| {
            code.is_file().then(|| Firmware {
                description: code.display().to_string(),
                code: ImageFile {
                    path: code,
                    format: "raw".into(),
                },
                variables: variables.is_file().then(|| ImageFile {
                    path: variables,
                    format: "raw".into(),
                }),
                secure_boot: false,
                enrolled_keys: false,
            })
        });
        let mut all: Vec<Firmware> = described.collect();
        for firmware in known {
            // A descriptor knows more about a file than its name.
            if !all.iter().any(|f| f.code.path == firmware.code.path) {
                all.push(firmware);
            }
        }
        all
    }

    /// `-bios NAME`: a path as it is, or a bare name in `directories` (`-L`) and the usual places.
    pub fn rom(&self, name: &str, directories: &[PathBuf]) -> Result<PathBuf, ImageError> {
        let path = Path::new(name);
        if path.is_file() {
            return Ok(path.into());
        }
        if path.components().count() == 1 {
            let usual = DATA.iter().map(|d| self.root.join(d));
            let own = self.own.iter().cloned();
            for directory in directories.iter().cloned().chain(usual).chain(own) {
                let path = directory.join(name);
                if path.is_file() {
                    return Ok(path);
                }
            }
        }
        Err(ImageError::NoRom(name.into()))
    }

    /// Descriptors by file name, in order; of each name the one that counts.
    fn descriptors(&self) -> BTreeMap<String, String> {
        let system = DESCRIPTORS.iter().map(|d| self.root.join(d));
        let own = self.config.iter().map(|c| c.join("qemu/firmware"));
        let mut found = BTreeMap::new();
        for directory in system.chain(own) {
            let Ok(entries) = std::fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                if !name.ends_with(".json") {
                    continue;
                }
                let size = std::fs::metadata(entry.path()).map_or(u64::MAX, |m| m.len());
                if size > LARGEST_DESCRIPTOR {
                    continue;
                }
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                found.insert(name, text);
            }
        }
        found.retain(|_, text| !text.trim().is_empty());
        found
    }

    /// What a descriptor offers, if it is for this board and its files are there.
    fn described_by(&self, descriptor: Descriptor) -> Option<Firmware> {
        let ours = descriptor
            .targets
            .iter()
            .any(|t| t.architecture == "aarch64" && t.machines.iter().any(|m| machine_matches(m)));
        if !ours || !descriptor.interface_types.iter().any(|i| i == "uefi") {
            return None;
        }
        let (code, variables) = match descriptor.mapping {
            Mapping::Flash {
                executable,
                nvram_template,
            } => (executable, nvram_template),
            Mapping::Memory { filename } => (
                File {
                    filename,
                    format: "raw".into(),
                },
                None,
            ),
            Mapping::Other => return None,
        };
        let file = |file: File| {
            let path = self.root.join(file.filename.trim_start_matches('/'));
            path.is_file().then_some(ImageFile {
                path,
                format: file.format,
            })
        };
        let has = |name: &str| descriptor.features.iter().any(|f| f == name);
        let (secure_boot, enrolled_keys) = (has("secure-boot"), has("enrolled-keys"));
        let code = file(code)?;
        let variables = match variables {
            Some(template) => Some(file(template)?),
            None => None,
        };
        let description = descriptor.description;
        Some(Firmware {
            description,
            code,
            variables,
            secure_boot,
            enrolled_keys,
        })
    }
}

fn suits(firmware: &Firmware, wanted: Wanted) -> bool {
    match wanted.secure_boot {
        true => firmware.secure_boot && firmware.enrolled_keys,
        false => !firmware.secure_boot,
    }
}

/// Whether a machine pattern, in which `*` stands for anything, means the `virt` board of any version.
fn machine_matches(pattern: &str) -> bool {
    pattern == "virt" || pattern.starts_with("virt-") || pattern == "*" || pattern == "virt*"
}

/// A descriptor, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    #[serde(default)]
    description: String,
    #[serde(default)]
    interface_types: Vec<String>,
    mapping: Mapping,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
#[serde(
    tag = "device",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
enum Mapping {
    /// Two images, or (modes `combined` and `stateless`) one.
    Flash {
        executable: File,
        nvram_template: Option<File>,
    },
    /// One image, for `-bios`.
    Memory { filename: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    #[serde(default = "raw")]
    format: String,
}

fn raw() -> String {
    "raw".into()
}

#[derive(Deserialize)]
struct Target {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    machines: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Tree {
        dir: tempfile::TempDir,
        host: Host,
    }

    fn tree() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let host = Host {
            root: dir.path().join("root"),
            config: Some(dir.path().join("config")),
            own: None,
        };
        Tree { dir, host }
    }

    impl Tree {
        fn put(&self, path: &str, text: &str) {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn descriptor(&self, path: &str, code: &str, features: &str) {
            self.put(&format!("root{code}"), "code");
            self.put("root/vars.fd", "vars");
            self.put(
                path,
                &format!(
                    r#"{{ "description": "{code}", "interface-types": ["uefi"], "mapping": {{ "device": "flash",
                    "executable": {{ "filename": "{code}", "format": "raw" }},
                    "nvram-template": {{ "filename": "/vars.fd", "format": "qcow2" }} }},
                    "targets": [{{ "architecture": "aarch64", "machines": ["virt-*"] }}],
                    "features": [{features}], "tags": [] }}"#
                ),
            );
        }
    }

    const SYSTEM: &str = "root/usr/share/qemu/firmware";

    #[test]
    fn descriptors_are_chosen_by_name_and_feature() {
        let t = tree();
        t.descriptor(
            &format!("{SYSTEM}/40-ms.json"),
            "/ms.fd",
            r#""secure-boot", "enrolled-keys""#,
        );
        t.descriptor(&format!("{SYSTEM}/60-plain.json"), "/plain.fd", "");
        t.descriptor(&format!("{SYSTEM}/70-later.json"), "/later.fd", "");
        let plain = t.host.find(Wanted::default()).unwrap();
        assert_eq!(plain.code.path, t.host.root.join("plain.fd"));
        assert_eq!(plain.variables.unwrap().format, "qcow2");
        let secure = t.host.find(Wanted { secure_boot: true }).unwrap();
        assert_eq!(secure.code.path, t.host.root.join("ms.fd"));
        // The administrator hides one, the user replaces another.
        t.put("root/etc/qemu/firmware/60-plain.json", "");
        t.descriptor("config/qemu/firmware/70-later.json", "/own.fd", "");
        let own = t.host.find(Wanted::default()).unwrap();
        assert_eq!(own.code.path, t.host.root.join("own.fd"));
    }

    #[test]
    fn known_places_and_their_absence() {
        let t = tree();
        let error = t
            .host
            .find(Wanted { secure_boot: true })
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("Secure Boot") && error.contains("qemu-efi-aarch64"),
            "{error}"
        );
        t.put("root/usr/share/AAVMF/AAVMF_CODE.fd", "");
        let found = t.host.find(Wanted::default()).unwrap();
        assert!(found.code.path.ends_with("AAVMF_CODE.fd"));
        assert_eq!(found.variables, None);
        assert!(t.host.find(Wanted { secure_boot: true }).is_err());
        // A descriptor that says it enforces Secure Boot is believed.
        let feature = r#""secure-boot""#;
        t.descriptor(
            &format!("{SYSTEM}/1.json"),
            "/usr/share/AAVMF/AAVMF_CODE.fd",
            feature,
        );
        assert!(t.host.find(Wanted::default()).is_err());
    }

    #[test]
    fn other_machines_and_missing_files_are_passed_over() {
        let t = tree();
        t.descriptor(&format!("{SYSTEM}/1.json"), "/gone.fd", "");
        std::fs::remove_file(t.host.root.join("gone.fd")).unwrap();
        let pc = r#"{"interface-types":["uefi"],"mapping":{"device":"memory","filename":"/vars.fd"},
            "targets":[{"architecture":"x86_64","machines":["pc-*"]}]}"#;
        t.put(&format!("{SYSTEM}/2.json"), pc);
        t.put(&format!("{SYSTEM}/3.json"), "not JSON");
        assert!(t.host.all().is_empty());
        t.put(
            &format!("{SYSTEM}/2.json"),
            &pc.replace("x86_64", "aarch64").replace("pc-*", "virt-*"),
        );
        assert_eq!(t.host.all()[0].code.path, t.host.root.join("vars.fd"));
    }

    #[test]
    fn roms_are_searched_by_bare_name() {
        let t = tree();
        t.put("root/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "");
        t.put("extra/QEMU_EFI.fd", "");
        let found = t.host.rom("QEMU_EFI.fd", &[]).unwrap();
        assert!(found.ends_with("usr/share/qemu-efi-aarch64/QEMU_EFI.fd"));
        let extra = t.dir.path().join("extra");
        assert!(
            t.host
                .rom("QEMU_EFI.fd", std::slice::from_ref(&extra))
                .unwrap()
                .starts_with(extra)
        );
        let error = t.host.rom("nope.fd", &[]).unwrap_err().to_string();
        assert_eq!(error, "Could not find ROM image 'nope.fd'");
        assert!(t.host.rom("a/QEMU_EFI.fd", &[]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_descriptors_are_passed_over(text in "[ -~]{0,200}", device in "[a-z]{0,8}") {
            let t = tree();
            t.put(&format!("{SYSTEM}/1.json"), &text);
            t.put(&format!("{SYSTEM}/2.json"), &format!(r#"{{"mapping":{{"device":"{device}"}}}}"#));
            prop_assert!(t.host.all().is_empty());
        }
    }
}
