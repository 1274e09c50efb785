//! Where downloads and media made of them are kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `$DORMER_CACHE`, or `dormer` in the user's cache folder.
pub fn root() -> Result<PathBuf> {
    let path = if let Some(path) = std::env::var_os("DORMER_CACHE") {
        PathBuf::from(path)
    } else if let Some(path) = std::env::var_os("XDG_CACHE_HOME") {
        PathBuf::from(path).join("dormer")
    } else {
        let home = std::env::var_os("HOME")
            .context("HOME is not set: give a cache folder in DORMER_CACHE")?;
        let caches = if cfg!(target_os = "macos") {
            "Library/Caches"
        } else {
            ".cache"
        };
        PathBuf::from(home).join(caches).join("dormer")
    };
    fs::create_dir_all(&path)
        .with_context(|| format!("cannot make the cache folder {}", path.display()))?;
    Ok(path)
}

/// Makes `name` in the cache once: `make` gets a path to fill, which becomes `name` when it is complete. Other processes
/// that want it wait.
pub fn once(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = root()?;
    let path = root.join(name);
    if path.exists() {
        return Ok(path);
    }
    let lock = File::create(root.join(format!("{}.lock", name.replace('/', "-"))))?;
    fs4::FileExt::lock(&lock)?;
    if path.exists() {
        return Ok(path);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let _ = fs::remove_dir_all(&partial);
    let _ = fs::remove_file(&partial);
    make(&partial).with_context(|| format!("cannot make {}", path.display()))?;
    fs::rename(&partial, &path)?;
    Ok(path)
}

/// Holds a lock of the cache while `work` runs.
pub fn locked<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let lock = File::create(root()?.join(format!("{name}.lock")))?;
    fs4::FileExt::lock(&lock)?;
    work()
}
