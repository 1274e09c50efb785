//! Media with the layout of Windows': what the commands say of them, and what other programs say.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guests::windows::{EDITIONS, LABEL, Variant, medium};
use media::iso::{BootCatalog, Descriptors};
use media::source::{DiskSource, Shared};
use serde_json::Value;

fn dormer(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_dormer"))
        .args(arguments)
        .output()?)
}

fn text(output: Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn report(path: &Path) -> Result<Value> {
    let path = path.to_str().context("a path of text")?;
    Ok(serde_json::from_str(&text(dormer(&[
        "inspect", "--json", path,
    ])?)?)?)
}

/// Runs another program; what it prints.
fn peer(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program}: cargo xtask setup installs it"))?;
    text(output)
}

#[test]
fn a_windows_medium_is_told() -> Result<()> {
    let path = medium(Variant::Large)?;
    let start = Instant::now();
    let report = report(&path)?;
    // 0.2 s alone on a quiet machine; a full read of 4.5 GiB takes longer than this anywhere.
    ensure!(
        start.elapsed() < Duration::from_secs(2),
        "it reads too much"
    );
    ensure!(report["type"] == "medium" && report["label"] == LABEL);
    let systems: Vec<_> = report["file_systems"]
        .as_array()
        .context("a list")?
        .iter()
        .collect();
    ensure!(
        systems.iter().any(|s| s["name"] == "UDF 1.02"),
        "{systems:?}"
    );
    ensure!(
        systems.iter().any(|s| s["name"] == "ISO 9660"),
        "{systems:?}"
    );
    let boot = &report["boot"][0];
    ensure!(
        boot["platform"] == "efi" && boot["emulation"] == "none",
        "{boot}"
    );
    ensure!(boot["file"] == "efi/microsoft/boot/efisys.bin", "{boot}");
    ensure!(
        boot["asks_for_key"] == true && boot["loaders"][0]["machine"] == "arm64",
        "{boot}"
    );
    ensure!(report["loaders"][0]["machine"] == "arm64");
    for configuration in report["boot_configurations"].as_array().context("a list")? {
        let text = configuration.to_string();
        for part in [
            "timeout",
            "\\\\sources\\\\boot.wim",
            "ramdisksdipath",
            "winpe",
        ] {
            ensure!(text.contains(part), "{part} is missing in {text}");
        }
    }
    ensure!(report["boot_configurations"][1]["path"] == "efi/microsoft/boot/bcd");
    let (boot, install) = (&report["images"][0], &report["images"][1]);
    ensure!(boot["boots"] == 2 && boot["compression"] == "LZX", "{boot}");
    ensure!(install["size"].as_u64() > Some(4 << 30));
    for (image, (name, edition)) in install["images"]
        .as_array()
        .context("a list")?
        .iter()
        .zip(EDITIONS)
    {
        ensure!(
            image["name"] == name && image["edition"] == edition,
            "{image}"
        );
        ensure!(
            image["architecture"] == "arm64" && image["build"] == 26100,
            "{image}"
        );
        ensure!(image["languages"][0] == "en-US", "{image}");
    }
    ensure!(
        report["windows"]["installable"] == true,
        "{}",
        report["windows"]
    );
    let words = text(dormer(&["inspect", path.to_str().context("text")?])?)?;
    ensure!(words.contains("Dormer can install it."), "{words}");
    Ok(())
}

#[test]
fn what_cannot_be_installed_is_told_with_the_reason() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plain = medium(Variant::Plain)?;
    let cut = folder.path().join("cut.iso");
    let bytes = fs::read(&plain)?;
    fs::write(&cut, &bytes[..bytes.len() * 6 / 10])?;
    let esd = folder.path().join("download.esd");
    let from = medium(Variant::Esd)?;
    let place = from.to_str().context("text")?;
    text(dormer(&[
        "extract",
        place,
        "sources/install.esd",
        esd.to_str().context("text")?,
    ])?)?;
    ensure!(
        report(&from)?["windows"]["installable"] == true,
        "an ESD on a medium is fine"
    );
    for (path, why) in [
        (medium(Variant::X64)?, "x64"),
        (medium(Variant::Old)?, "25188"),
        (cut, "cut short"),
    ] {
        let report = report(&path)?;
        ensure!(report["windows"]["installable"] == false);
        ensure!(
            report["windows"]["why_not"].to_string().contains(why),
            "{report}"
        );
    }
    let why_not = report(&folder.path().join("cut.iso"))?["windows"]["why_not"].to_string();
    ensure!(
        !why_not.contains("is missing"),
        "what cannot be read is there: {why_not}"
    );
    ensure!(
        report(&esd)?["why_not"]
            .to_string()
            .contains("ESD download")
    );
    Ok(())
}

#[test]
fn other_programs_agree() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for variant in [Variant::Plain, Variant::Xpress, Variant::Esd] {
        let path = medium(variant)?;
        let disc = path.to_str().context("text")?;
        let at = |name: &str| -> String { folder.path().join(name).display().to_string() };
        let (ours, theirs) = (at("ours"), at("theirs"));
        text(dormer(&["extract", disc, "/", &ours])?)?;
        peer("7z", &["x", "-y", &format!("-o{theirs}"), disc])?;
        peer("diff", &["-r", &ours, &theirs])?;
        let boot = peer("xorriso", &["-indev", disc, "-report_el_torito", "plain"])?;
        ensure!(boot.contains("UEFI"), "{boot}");
        let (name, image) = match variant {
            Variant::Esd => ("sources/install.esd", "3"),
            _ => ("sources/install.wim", "4"),
        };
        let (from_disc, from_wim) = (at("from disc"), at("from wim"));
        text(dormer(&[
            "extract",
            &format!("{disc}:{name}#{image}"),
            "/",
            &from_disc,
        ])?)?;
        peer(
            "wimlib-imagex",
            &["apply", &format!("{theirs}/{name}"), image, &from_wim],
        )?;
        peer("diff", &["-r", "--no-dereference", &from_disc, &from_wim])?;
        println!("{variant:?}: 7z, xorriso and wimlib see the same");
        for folder in [ours, theirs, from_disc, from_wim] {
            fs::remove_dir_all(folder)?;
        }
    }
    Ok(())
}

/// The overlay that boots without a question changes the catalog's entry alone.
#[test]
fn a_medium_boots_another_of_its_images() -> Result<()> {
    let path = medium(Variant::Plain)?;
    let mut options = storage::ImageOptions::new(&path);
    options.read_only = true;
    let disk = storage::open(&options)?;
    let patched = media::overlay::boot_from(disk.clone(), media::overlay::NO_PROMPT)?;
    let source: Shared = Arc::new(DiskSource(Arc::new(patched)));
    let report = serde_json::to_value(media::inspect::inspect(&source)?)?;
    ensure!(
        report["boot"][0]["file"] == media::overlay::NO_PROMPT,
        "{report}"
    );
    ensure!(report["boot"][0]["asks_for_key"] == false);
    let sector = Descriptors::read(&source)?
        .boot_catalog
        .context("a catalog")?;
    let entry = BootCatalog::read(&source, sector)?.entries[0].at;
    let original: Shared = Arc::new(DiskSource(disk));
    let mut at = 0;
    while at < source.size() {
        let length = (source.size() - at).min(1 << 20) as usize;
        let (new, old) = (source.read_vec(at, length)?, original.read_vec(at, length)?);
        for (index, _) in new
            .iter()
            .zip(&old)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
        {
            let byte = at + index as u64;
            ensure!(
                (entry..entry + 32).contains(&byte),
                "byte {byte:#x} changed"
            );
        }
        at += length as u64;
    }
    Ok(())
}

#[test]
fn hives_are_changed_in_place() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = medium(Variant::Plain)?;
    let place = format!("{}:sources/boot.wim#2", path.display());
    let hive = folder.path().join("SYSTEM");
    let name = hive.to_str().context("text")?;
    text(dormer(&[
        "extract",
        &place,
        "windows/system32/config/system",
        name,
    ])?)?;
    let before = fs::read(&hive)?;
    text(dormer(&[
        "hive",
        "set",
        name,
        "Setup",
        "CmdLine",
        "sz:winpeshl.exe",
    ])?)?;
    ensure!(fs::read(&hive)? == before, "the same value changes nothing");
    text(dormer(&["hive", "labconfig", name])?)?;
    let said = text(dormer(&[
        "hive",
        "get",
        name,
        "Setup\\LabConfig",
        "BypassTPMCheck",
    ])?)?;
    ensure!(said.trim() == "dword:0x1", "{said}");
    let exported = peer("hivexregedit", &["--export", name, "\\Setup\\LabConfig"])?;
    ensure!(
        exported.contains("\"BypassStorageCheck\"=dword:00000001"),
        "{exported}"
    );
    text(dormer(&["hive", "delete", name, "Setup\\LabConfig"])?)?;
    let listed = text(dormer(&["hive", "ls", "-R", name])?)?;
    ensure!(
        !listed.contains("LabConfig") && listed.contains("CmdLine"),
        "{listed}"
    );
    Ok(())
}
