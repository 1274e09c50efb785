//! `Dormer.app`: the program, its firmware and a launcher, as macOS's Finder opens them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{IDENTIFIER, OLDEST_MACOS, replace, sign};

/// What Finder starts. Not `Dormer`: macOS's file systems take that for `dormer`.
const LAUNCHER: &str = "launch";

/// Bundle Programming Guide and Information Property List Key Reference.
fn information() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let strings = [
        ("CFBundleDevelopmentRegion", "en"),
        ("CFBundleExecutable", LAUNCHER),
        ("CFBundleIdentifier", IDENTIFIER),
        ("CFBundleInfoDictionaryVersion", "6.0"),
        ("CFBundleName", "Dormer"),
        ("CFBundlePackageType", "APPL"),
        ("CFBundleShortVersionString", version),
        ("CFBundleVersion", version),
        (
            "LSApplicationCategoryType",
            "public.app-category.developer-tools",
        ),
        ("LSMinimumSystemVersion", OLDEST_MACOS),
        (
            "NSMicrophoneUsageDescription",
            "A guest with a sound card may record.",
        ),
    ];
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n",
    );
    for (key, value) in strings {
        text.push_str(&format!(
            "    <key>{key}</key>\n    <string>{value}</string>\n"
        ));
    }
    text.push_str("    <key>NSHighResolutionCapable</key>\n    <true/>\n</dict>\n</plist>\n");
    text
}

/// Makes the bundle in `folder`; gives its `Contents`, in whose `share` the firmware is still to go.
pub fn bundle(folder: &Path, program: &Path) -> Result<PathBuf> {
    let contents = folder.join("Dormer.app/Contents");
    let programs = contents.join("MacOS");
    std::fs::create_dir_all(&programs)?;
    std::fs::write(contents.join("Info.plist"), information())?;
    std::fs::write(contents.join("PkgInfo"), "APPL????")?;
    let launcher = std::fs::read(crate::root().join("packaging").join(LAUNCHER))
        .context("cannot read the launcher")?;
    replace(&programs.join(LAUNCHER), &launcher)?;
    let bytes =
        std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    replace(&programs.join("dormer"), &bytes)?;
    Ok(contents)
}

/// Signs the bundle in `folder` with a developer's identity, has Apple notarise it, and staples the ticket to it: Apple's
/// tools do this, so it takes a Mac, an account, and its password in the keychain as `notarytool store-credentials` puts it there.
pub fn notarise(folder: &Path, identity: &str, keychain_profile: &str) -> Result<()> {
    ensure!(
        cfg!(target_os = "macos"),
        "only a Mac can have its programs notarised: give --identity and --notarise there"
    );
    let app = folder.join("Dormer.app");
    let scratch = tempfile::tempdir()?;
    let entitlements = scratch.path().join("entitlements.plist");
    std::fs::write(&entitlements, sign::ENTITLEMENTS)?;
    let zip = scratch.path().join("Dormer.zip");
    // What is inside first: the bundle's signature seals it.
    for part in [&app.join("Contents/MacOS/dormer"), &app] {
        guests::packages::run(
            Command::new("codesign")
                .args([
                    "--force",
                    "--timestamp",
                    "--options",
                    "runtime",
                    "--sign",
                    identity,
                ])
                .arg("--entitlements")
                .arg(&entitlements)
                .arg(part),
        )?;
    }
    guests::packages::run(
        Command::new("ditto")
            .args(["-c", "-k", "--keepParent"])
            .args([&app, &zip]),
    )?;
    guests::packages::run(
        Command::new("xcrun")
            .args(["notarytool", "submit", "--wait", "--keychain-profile"])
            .arg(keychain_profile)
            .arg(&zip),
    )?;
    guests::packages::run(Command::new("xcrun").args(["stapler", "staple"]).arg(&app))?;
    Ok(())
}
