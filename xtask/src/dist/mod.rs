//! Archives for the hosts Dormer is for, each made on any of them.

mod app;
mod licences;
pub mod sign;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use guests::packages::Suite;
use sha2::{Digest, Sha256};

const MAC: &str = "aarch64-apple-darwin";
const ARM_LINUX: &str = "aarch64-unknown-linux-gnu";
const LINUX: &str = "x86_64-unknown-linux-gnu";
/// The program's identifier in its signature.
const IDENTIFIER: &str = "org.dormer.dormer";
/// The oldest macOS that the Mac build starts on.
const OLDEST_MACOS: &str = "13.0";
/// Zig's compiler driver, with the stub of macOS's system library in it, comes as a Python package.
const ZIG: &str = "ziglang==0.15.2";

#[derive(clap::Args)]
pub struct Arguments {
    /// Which; all three without.
    #[arg(long)]
    target: Vec<String>,
    /// Where archives go.
    #[arg(long, default_value = "target/dist")]
    output: PathBuf,
    /// Build without optimisation for release: to try the packing.
    #[arg(long)]
    unoptimised: bool,
    /// On a Mac: sign with this identity of the keychain, such as `Developer ID Application: NAME (TEAM)`, not ad hoc.
    #[arg(long, requires = "notarise")]
    identity: Option<String>,
    /// On a Mac: have Apple notarise the signed app, by this profile of `xcrun notarytool store-credentials`.
    #[arg(long, requires = "identity")]
    notarise: Option<String>,
}

#[derive(clap::Args)]
pub struct SignArguments {
    /// The program, signed in place.
    program: PathBuf,
}

/// Signs a Mac program ad hoc, with the entitlement for Hypervisor.framework.
pub fn sign_program(arguments: &SignArguments) -> Result<()> {
    let path = &arguments.program;
    let file = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let signed =
        sign::sign(file, IDENTIFIER).with_context(|| format!("cannot sign {}", path.display()))?;
    replace(path, &signed)?;
    println!(
        "{} is signed ad hoc, with com.apple.security.hypervisor",
        path.display()
    );
    Ok(())
}

/// A program that is written over keeps the kernel's memory of its old signature: a new file does not.
fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let new = path.with_extension("new");
    std::fs::write(&new, contents)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    Ok(std::fs::rename(&new, path)?)
}

/// Builds, signs, packs and sums.
pub fn run(arguments: &Arguments) -> Result<()> {
    crate::setup::run(crate::setup::Purpose::Targets)?;
    let all = || [LINUX, ARM_LINUX, MAC].map(String::from).to_vec();
    let targets = if arguments.target.is_empty() {
        all()
    } else {
        arguments.target.clone()
    };
    let output = crate::root().join(&arguments.output);
    std::fs::create_dir_all(&output)?;
    for target in &targets {
        let program = build(target, !arguments.unoptimised)?;
        let folder = gather(target, &program, &output)?;
        if let (MAC, Some(identity), Some(profile)) =
            (target.as_str(), &arguments.identity, &arguments.notarise)
        {
            app::notarise(&folder, identity, profile)?;
        }
        let archive = pack(&folder)?;
        println!(
            "{} ({} MiB)",
            archive.display(),
            std::fs::metadata(&archive)?.len() >> 20
        );
    }
    sum(&output)
}

/// `SHA256SUMS` of all archives of this version there.
fn sum(output: &Path) -> Result<()> {
    let start = format!("dormer-{}-", env!("CARGO_PKG_VERSION"));
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(output)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&start) && name.ends_with(".tar.gz") {
            let sum: String = Sha256::digest(std::fs::read(entry.path())?)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            lines.push((name.clone(), format!("{sum}  {name}\n")));
        }
    }
    lines.sort();
    let text: String = lines.into_iter().map(|(_, line)| line).collect();
    Ok(std::fs::write(output.join("SHA256SUMS"), text)?)
}

fn build(target: &str, optimised: bool) -> Result<PathBuf> {
    match target {
        ARM_LINUX if !cfg!(target_arch = "aarch64") => crate::kvm::build(optimised),
        MAC if !cfg!(target_os = "macos") => mac(optimised),
        _ if target == host() => native(optimised),
        _ => bail!("{target} cannot be built on this host, {}", host()),
    }
}

fn host() -> &'static str {
    if cfg!(target_os = "macos") {
        MAC
    } else if cfg!(target_arch = "aarch64") {
        ARM_LINUX
    } else {
        LINUX
    }
}

fn profile(optimised: bool) -> &'static str {
    if optimised { "release" } else { "dev" }
}

fn folder_of(optimised: bool) -> &'static str {
    if optimised { "release" } else { "debug" }
}

fn native(optimised: bool) -> Result<PathBuf> {
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args([
            "build",
            "--package",
            "dormer",
            "--profile",
            profile(optimised),
        ])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the build failed");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate::root().join("target"), PathBuf::from);
    let program = target.join(folder_of(optimised)).join("dormer");
    if cfg!(target_os = "macos") {
        sign_program(&SignArguments {
            program: program.clone(),
        })?;
    }
    Ok(program)
}

/// The Mac build on another host: linked by Zig's driver against the stub of the system library that it brings, and our own
/// of the frameworks that the window and sound name. Hypervisor.framework is not among them: Dormer finds it at run time.
fn mac(optimised: bool) -> Result<PathBuf> {
    let linker = zig_linker()?;
    let status = crate::targets::cargo("cargo", "build", MAC)
        .env("CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER", &linker)
        .env("MACOSX_DEPLOYMENT_TARGET", OLDEST_MACOS)
        // Said, so that the compiler does not look for Apple's tools.
        .env("SDKROOT", linker.with_file_name("sdk"))
        .args(["--package", "dormer", "--profile", profile(optimised)])
        .args(["--config", "profile.dev.debug=false"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the build for {MAC} failed");
    let program = crate::targets::folder()
        .join(MAC)
        .join(folder_of(optimised))
        .join("dormer");
    sign_program(&SignArguments {
        program: program.clone(),
    })?;
    Ok(program)
}

/// A program that takes a linker's arguments and runs Zig's, fetched into the cache the first time.
fn zig_linker() -> Result<PathBuf> {
    let folder = guests::cache::once(&format!("zig/{}", ZIG.replace("==", "-")), |path| {
        guests::packages::run(
            Command::new("python3")
                .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
                .arg(path)
                .arg(ZIG),
        )?;
        Ok(())
    })?;
    let sdk = folder.join("sdk");
    stubs(&sdk)?;
    let linker = folder.join("linker");
    let zig = folder.join("ziglang/zig");
    // The compiler's driver for Apple's linker says the architecture and version in Apple's way; Zig wants its own, and would
    // name a library twice that is given twice.
    let script = format!(
        r#"#!/bin/sh
for word do
  shift
  case "$word" in
    arm64 | -arch | -mmacosx-version-min=*) continue ;;
    -l*)
      case "$seen" in *" $word "*) continue ;; esac
      seen="$seen $word "
      ;;
  esac
  set -- "$@" "$word"
done
exec '{}' cc -target aarch64-macos.{OLDEST_MACOS} -L'{}' -F'{}' -Wl,-undefined,dynamic_lookup "$@"
"#,
        zig.display(),
        sdk.join(LIBRARIES).display(),
        sdk.join(FRAMEWORKS).display()
    );
    replace(&linker, script.as_bytes())?;
    Ok(linker)
}

const LIBRARIES: &str = "usr/lib";
const FRAMEWORKS: &str = "System/Library/Frameworks";

/// What is linked beside the system library: where macOS has it, in [`LIBRARIES`] or [`FRAMEWORKS`].
const LINKED: [&str; 12] = [
    "libiconv.2.dylib",
    "libobjc.A.dylib",
    "AppKit.framework/Versions/C/AppKit",
    "ApplicationServices.framework/Versions/A/ApplicationServices",
    "AudioToolbox.framework/Versions/A/AudioToolbox",
    "Carbon.framework/Versions/A/Carbon",
    "CoreAudio.framework/Versions/A/CoreAudio",
    "CoreFoundation.framework/Versions/A/CoreFoundation",
    "CoreGraphics.framework/Versions/A/CoreGraphics",
    "CoreVideo.framework/Versions/A/CoreVideo",
    "Foundation.framework/Versions/C/Foundation",
    "QuartzCore.framework/Versions/A/QuartzCore",
];

/// Writes a stub of each library: its name, which the program then asks for, and no symbols. What the program takes of them
/// is looked up by name when it starts.
fn stubs(sdk: &Path) -> Result<()> {
    for name in LINKED {
        let file = name.rsplit('/').next().unwrap_or(name);
        // `libNAME.VERSION.dylib` is asked for as NAME.
        let (base, stub) = match name.strip_prefix("lib") {
            Some(library) => {
                let short = library.split('.').next().unwrap_or(library);
                (LIBRARIES, format!("lib{short}.tbd"))
            }
            None => (FRAMEWORKS, format!("{file}.framework/{file}.tbd")),
        };
        let text = format!(
            "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\ninstall-name: '/{base}/{name}'\n\
             current-version: 1\ncompatibility-version: 1\n...\n"
        );
        let path = sdk.join(base).join(stub);
        std::fs::create_dir_all(path.parent().unwrap_or(sdk))?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// What an archive holds, in a folder `dormer-VERSION-TARGET`.
fn gather(target: &str, program: &Path, output: &Path) -> Result<PathBuf> {
    let folder = output.join(format!("dormer-{}-{target}", env!("CARGO_PKG_VERSION")));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let copy = |from: &Path, to: PathBuf| {
        std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))
    };
    // The program finds its firmware beside its own folder, or in it.
    let beside = if target == MAC {
        let contents = app::bundle(&folder, program)?;
        std::os::unix::fs::symlink("Dormer.app/Contents/MacOS/dormer", folder.join("dormer"))?;
        contents
    } else {
        crate::kvm::strip(target, program, &folder.join("dormer"))?;
        folder.clone()
    };
    let share = beside.join("share/dormer/firmware");
    std::fs::create_dir_all(&share)?;
    for file in [
        "packaging/README.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "docs/mac.md",
        "docs/engines.md",
    ] {
        let from = crate::root().join(file);
        copy(&from, folder.join(from.file_name().unwrap_or_default()))?;
    }
    std::fs::write(folder.join("LICENSE-THIRD-PARTY"), licences::of(target)?)?;
    for (file, to) in [
        ("AAVMF_CODE.fd", "edk2-aarch64-code.fd"),
        ("AAVMF_VARS.fd", "edk2-arm-vars.fd"),
    ] {
        copy(&guests::firmware(Suite::Bookworm, file)?, share.join(to))?;
    }
    let package = guests::packages::unpacked(Suite::Bookworm, "qemu-efi-aarch64")?;
    copy(
        &package.join("usr/share/doc/qemu-efi-aarch64/copyright"),
        share.join("LICENSE-EDK2"),
    )?;
    Ok(folder)
}

/// `FOLDER.tar.gz`: with GNU tar, the same bytes each time for the same contents.
fn pack(folder: &Path) -> Result<PathBuf> {
    let mut archive = folder.as_os_str().to_owned();
    archive.push(".tar.gz");
    let archive = PathBuf::from(archive);
    let mut tar = Command::new("tar");
    // macOS has BSD's, which sorts nothing and takes none of these.
    if !cfg!(target_os = "macos") {
        tar.args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mtime=@0",
        ]);
    }
    guests::packages::run(
        tar.args(["--use-compress-program", "gzip -n"])
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(folder.parent().unwrap_or(Path::new(".")))
            .arg(folder.file_name().unwrap_or_default()),
    )?;
    Ok(archive)
}
