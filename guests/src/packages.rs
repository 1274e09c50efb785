//! Debian's arm64 packages, through the host's package manager with a state of its own: the host's package set stays
//! as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cache;

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    Bookworm,
    Trixie,
}

impl Suite {
    /// Its code name.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Bookworm => "bookworm",
            Suite::Trixie => "trixie",
        }
    }
}

/// The folder that an arm64 package is unpacked in; downloads it the first time.
pub fn unpacked(suite: Suite, package: &str) -> Result<PathBuf> {
    cache::once(&format!("{}/{package}", suite.name()), |folder| {
        let downloads = cache::root()?
            .join("downloads")
            .join(suite.name())
            .join(package);
        fs::create_dir_all(&downloads)?;
        cache::locked("apt", || {
            let state = state(suite)?;
            download(&state, &["download", package], &downloads)
        })?;
        let archive = fs::read_dir(&downloads)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|e| e == "deb"))
            .with_context(|| format!("{package} was downloaded but is not there"))?;
        fs::create_dir_all(folder)?;
        run(Command::new("dpkg").arg("-x").arg(&archive).arg(folder))?;
        fs::remove_dir_all(&downloads)?;
        Ok(())
    })
}

/// The first dependency of `package` whose name begins with `prefix`.
pub fn dependency(suite: Suite, package: &str, prefix: &str) -> Result<String> {
    let answer = cache::once(&format!("{}/{package}.depends", suite.name()), |path| {
        let text = cache::locked("apt", || {
            let state = state(suite)?;
            apt(&state, "apt-cache", &["depends", package], Path::new("/"))
        })?;
        fs::write(path, text)?;
        Ok(())
    })?;
    let text = fs::read_to_string(answer)?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_string)
        .with_context(|| format!("{package} depends on nothing that begins with {prefix}"))
}

/// Downloads packages, by their names or apt's patterns, and what they depend on, but not what they recommend, into
/// `folder`. What the archive's index has of each.
pub fn with_dependencies(suite: Suite, wanted: &[&str], folder: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(folder.join("partial"))?;
    let archives = format!("Dir::Cache::archives={}", folder.display());
    let mut install = vec!["-o", &archives, "--yes", "--download-only"];
    install.extend(["--no-install-recommends", "install"]);
    install.extend(wanted);
    let stanzas = cache::locked("apt", || {
        let state = state(suite)?;
        download(&state, &install, folder)?;
        let mut names = vec!["show".to_string()];
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".deb") {
                let mut parts = name.split('_');
                let (package, version) = parts.next().zip(parts.next()).with_context(|| {
                    format!("apt has downloaded {name}, which is no package's name")
                })?;
                names.push(format!("{package}={}", version.replace("%3a", ":")));
            }
        }
        names[1..].sort();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        apt(&state, "apt-cache", &names, folder)
    })?;
    let stanzas = stanzas.split("\n\n").map(str::trim);
    Ok(stanzas
        .filter(|stanza| !stanza.is_empty())
        .map(str::to_string)
        .collect())
}

/// Runs `apt-get`, with new lists if those that are there have grown old: versions that they name may be gone.
fn download(state: &Path, arguments: &[&str], folder: &Path) -> Result<()> {
    if apt(state, "apt-get", arguments, folder).is_err() {
        apt(state, "apt-get", &["update"], folder)?;
        apt(state, "apt-get", arguments, folder)?;
    }
    Ok(())
}

/// An apt state for a suite: its folder, with package lists.
fn state(suite: Suite) -> Result<PathBuf> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "guests are made from Debian's arm64 packages, which need apt-get and dpkg on this host; \
             give an installer's ISO by hand instead: cargo xtask demo FILE.iso"
        );
    }
    let root = cache::root()?.join("apt").join(suite.name());
    let ready = root.join("ready");
    if !ready.exists() {
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::write(root.join("state/status"), "")?;
        fs::write(root.join("sources.list"), sources(suite.name())?)?;
        apt(&root, "apt-get", &["update"], &root)?;
        fs::write(ready, "")?;
    }
    Ok(root)
}

fn apt(root: &Path, program: &str, arguments: &[&str], folder: &Path) -> Result<String> {
    let mut command = Command::new(program);
    let at = |path: &str| root.join(path).display().to_string();
    for option in [
        format!("Dir::State={}", at("state")),
        format!("Dir::State::status={}", at("state/status")),
        format!("Dir::Cache={}", at("cache")),
        format!("Dir::Etc::sourcelist={}", at("sources.list")),
        "Dir::Etc::sourceparts=-".into(),
        "Dir::Etc::preferencesparts=-".into(),
        "APT::Default-Release=".into(),
        "APT::Architecture=arm64".into(),
        "APT::Architectures::=arm64".into(),
        "APT::Sandbox::User=root".into(),
    ] {
        command.arg("-o").arg(option);
    }
    run(command.args(arguments).current_dir(folder))
}

/// Runs a program; its standard output, or an error with what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| {
            format!("cannot start {name}; cargo xtask setup installs what is needed")
        })?;
    ensure!(
        output.status.success(),
        "{name} {:?} failed: {}",
        command
            .get_args()
            .map(|a| a.to_string_lossy())
            .collect::<Vec<_>>(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// apt sources of a suite: the host's own mirrors, with the suite in the place of the host's.
///
/// # Errors
///
/// A host without Debian's mirrors.
pub fn sources(suite: &str) -> Result<String> {
    let mut lines = Vec::new();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|e| Some(e.ok()?.path())));
    }
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        if file.extension().is_some_and(|e| e == "sources") {
            lines.extend(
                text.split("\n\n")
                    .filter_map(|stanza| from_stanza(stanza, suite)),
            );
        } else {
            lines.extend(text.lines().filter_map(|line| from_line(line, suite)));
        }
    }
    lines.sort();
    lines.dedup();
    ensure!(
        !lines.is_empty(),
        "no Debian mirror is among this host's apt sources; guests are made from Debian's arm64 packages"
    );
    Ok(lines.join("\n") + "\n")
}

/// Debian's releases whose mirror also has the others.
const RELEASES: [&str; 4] = ["bullseye", "bookworm", "trixie", "stable"];

fn from_line(line: &str, suite: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .map(|(o, r)| (format!("[{o}] "), r.trim()))?,
        None => (String::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, release) = (words.next()?, words.next()?);
    let main = words.any(|component| component == "main");
    (main && RELEASES.contains(&release)).then(|| format!("deb {options}{uri} {suite} main"))
}

fn from_stanza(stanza: &str, suite: &str) -> Option<String> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')
                .map(|v| v.trim().to_string())
        })
    };
    let uri = field("URIs")?;
    let suites = field("Suites")?;
    let main = field("Components")?.split_whitespace().any(|c| c == "main");
    if !main || !suites.split_whitespace().any(|s| RELEASES.contains(&s)) {
        return None;
    }
    let key = field("Signed-By")
        .filter(|k| k.starts_with('/'))
        .map(|k| format!("[signed-by={k}] "));
    let uri = uri.split_whitespace().next()?;
    Some(format!("deb {}{uri} {suite} main", key.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mirrors_with_another_suite() {
        let line = "deb [signed-by=/k.gpg] http://mirror.test/debian bookworm main contrib";
        assert_eq!(
            from_line(line, "trixie").as_deref(),
            Some("deb [signed-by=/k.gpg] http://mirror.test/debian trixie main")
        );
        assert_eq!(
            from_line("deb http://mirror.test/x jammy main", "trixie"),
            None
        );
        let stanza = "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg";
        assert_eq!(
            from_stanza(stanza, "bookworm").as_deref(),
            Some("deb [signed-by=/k.gpg] http://mirror.test/debian bookworm main")
        );
    }
}
