//! Programs out of packages, for guests that are an initial RAM disk.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages::{Suite, unpacked};

/// Files of arm64 packages: each path is looked for in all of them, symbolic links are followed, and a folder stands for
/// all that is in it. Names are as the guest has them, without a slash in front.
pub fn files(suite: Suite, packages: &[&str], paths: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let roots = packages
        .iter()
        .map(|package| unpacked(suite, package))
        .collect::<Result<Vec<_>>>()?;
    let mut files = Vec::new();
    for path in paths {
        let found: Vec<PathBuf> = roots
            .iter()
            .filter_map(|root| resolve(&roots, root, Path::new(path)))
            .collect();
        let first = found
            .first()
            .with_context(|| format!("none of {packages:?} has {path}"))?;
        if !first.is_dir() {
            add(&roots, first, path, &mut files)?;
            continue;
        }
        // A folder may have parts in several packages.
        for folder in &found {
            add(&roots, folder, path, &mut files)?;
        }
    }
    Ok(files)
}

fn add(
    roots: &[PathBuf],
    found: &Path,
    name: &str,
    files: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if !found.is_dir() {
        files.push((name.to_string(), fs::read(found)?));
        return Ok(());
    }
    let mut entries: Vec<_> = fs::read_dir(found)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let below = format!("{name}/{}", entry.file_name().to_string_lossy());
        let root = roots.iter().find(|root| found.starts_with(root));
        let inside =
            root.and_then(|root| Some((root, entry.path().strip_prefix(root).ok()?.to_path_buf())));
        // A link to what no package has is left out.
        if let Some((root, path)) = inside
            && let Some(target) = resolve(roots, root, &path)
        {
            add(roots, &target, &below, files)?;
        }
    }
    Ok(())
}

/// The file that a path of the guest means, following its last part's symbolic links from package to package.
fn resolve(roots: &[PathBuf], root: &Path, path: &Path) -> Option<PathBuf> {
    let mut root = root;
    let mut path = path.to_path_buf();
    for _ in 0..8 {
        let whole = root.join(&path);
        let Ok(target) = fs::read_link(&whole) else {
            return whole.exists().then_some(whole);
        };
        path = match target.strip_prefix("/") {
            Ok(absolute) => absolute.to_path_buf(),
            Err(_) => plain(&path.parent()?.join(target)),
        };
        root = roots
            .iter()
            .find(|root| root.join(&path).symlink_metadata().is_ok())?;
    }
    None
}

/// A path without its `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
