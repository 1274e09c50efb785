//! The licences of the libraries that a build has in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What of a package's texts is about its licence, by how a file's name begins.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key]
        .as_str()
        .with_context(|| format!("cargo metadata says no {key}"))
}

/// Every library in the program for `target`: its licence, and the texts that come with it, each once.
pub fn of(target: &str) -> Result<String> {
    let output = Command::new("cargo")
        .current_dir(crate::root())
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", target])
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    written(&metadata)
}

fn written(metadata: &Value) -> Result<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| Ok((text(&package, "id")?.to_string(), package)))
        .collect::<Result<_>>()?;
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| Ok((text(&node, "id")?.to_string(), node)))
        .collect::<Result<_>>()?;
    let program = packages
        .iter()
        .find(|(_, package)| package["name"] == "dormer")
        .context("there is no package dormer")?
        .0;
    // What is linked: neither tests' nor build scripts' libraries.
    let (mut linked, mut left) = (BTreeSet::new(), vec![program.clone()]);
    while let Some(id) = left.pop() {
        if !linked.insert(id.clone()) {
            continue;
        }
        let node = nodes.get(&id).context("a package is in no graph")?;
        for dependency in list(&node["deps"]) {
            let kinds = list(&dependency["dep_kinds"]);
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                left.push(text(&dependency, "pkg")?.into());
            }
        }
    }
    let mut contents = String::from(
        "Dormer has these libraries in it, beside the standard library of Rust (MIT OR Apache-2.0).\n\n",
    );
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked.iter().filter_map(|id| packages.get(id)) {
        // Those of this workspace have no source.
        if package["source"].is_null() {
            continue;
        }
        let name = format!("{} {}", text(package, "name")?, text(package, "version")?);
        let licence = package["license"].as_str().unwrap_or("see its text");
        contents.push_str(&format!("{name}: {licence}\n"));
        let folder = Path::new(text(package, "manifest_path")?)
            .parent()
            .context("a manifest is in a folder")?;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().to_uppercase();
            if NAMES.iter().any(|start| file.starts_with(start)) && entry.path().is_file() {
                let text = std::fs::read(entry.path())?;
                let text = String::from_utf8_lossy(&text).replace('\r', "");
                texts
                    .entry(text.trim_end().to_string())
                    .or_default()
                    .push(name.clone());
            }
        }
    }
    for (text, names) in texts {
        let rule = "-".repeat(72);
        contents.push_str(&format!(
            "\n{rule}\n{}\n{rule}\n\n{text}\n",
            names.join(", ")
        ));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_linked_is_listed_and_what_builds_or_tests_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let package = |name: &str, licence: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("LICENSE-MIT"), "Permission is granted\r\n").unwrap();
            json!({"id": name, "name": name, "version": "1.0.0", "license": licence,
                   "source": if name == "dormer" { Value::Null } else { "registry".into() },
                   "manifest_path": path.join("Cargo.toml")})
        };
        let node = |id: &str, deps: &[(&str, Option<&str>)]| {
            let deps: Vec<_> = deps
                .iter()
                .map(|(pkg, kind)| json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]}))
                .collect();
            json!({"id": id, "deps": deps})
        };
        let metadata = json!({
            "packages": [package("dormer", "MIT"), package("near", "MIT"), package("far", "BSD-3-Clause"),
                         package("builds", "MIT"), package("tests", "MIT")],
            "resolve": {"nodes": [
                node("dormer", &[("near", None), ("builds", Some("build")), ("tests", Some("dev"))]),
                node("near", &[("far", None), ("near", None)]), node("far", &[]), node("builds", &[]), node("tests", &[]),
            ]},
        });
        let text = written(&metadata).unwrap();
        assert!(text.contains("near 1.0.0: MIT\n") && text.contains("far 1.0.0: BSD-3-Clause\n"));
        assert!(!text.contains("builds") && !text.contains("tests") && !text.contains("dormer 1"));
        assert_eq!(text.matches("Permission is granted").count(), 1);
        assert!(text.contains("far 1.0.0, near 1.0.0\n"));
    }
}
