//! `dormer firmware`: UEFI variables, and Secure Boot's keys among them.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use firmware::variables::keys::{
    Certificate, Keys, certificate_folders, platform_key, read_certificate, signatures,
};
use firmware::variables::{Attributes, Guid, Store, Variable, guid};
use storage::Locking;

#[derive(Subcommand)]
pub enum Command {
    /// The variable store: what `-drive if=pflash,unit=1` is.
    #[command(subcommand)]
    Vars(Vars),
}

#[derive(Subcommand)]
pub enum Vars {
    /// Make a store with Secure Boot's keys: Microsoft's of 2011 and 2023, which Windows and the distributions' shims need,
    /// and those that are given.
    Create(Create),
    /// List a store's variables.
    List {
        file: PathBuf,
        /// Whose signatures the key variables hold.
        #[arg(long)]
        signatures: bool,
    },
    /// Set a variable.
    Set(Set),
    /// Delete a variable.
    Delete {
        file: PathBuf,
        name: String,
        /// The vendor's GUID.
        #[arg(long, default_value = GLOBAL)]
        vendor: String,
    },
}

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

#[derive(Args)]
pub struct Create {
    /// The store to make.
    file: PathBuf,
    /// Without keys: Secure Boot stays off, in set-up mode.
    #[arg(long, conflicts_with_all = ["pk", "kek", "db", "dbx", "no_microsoft"])]
    empty: bool,
    /// Leave Microsoft's certificates out.
    #[arg(long)]
    no_microsoft: bool,
    /// Folder of Microsoft's certificates.
    #[arg(long)]
    certificates: Option<PathBuf>,
    /// Platform key, a certificate in PEM or DER; without it, one that nobody has the private half of.
    #[arg(long)]
    pk: Option<PathBuf>,
    /// Further certificate that may change db and dbx.
    #[arg(long)]
    kek: Vec<PathBuf>,
    /// Further certificate whose programs start.
    #[arg(long)]
    db: Vec<PathBuf>,
    /// What does not start: signature lists, as published for dbx.
    #[arg(long)]
    dbx: Option<PathBuf>,
}

#[derive(Args)]
pub struct Set {
    file: PathBuf,
    name: String,
    /// The vendor's GUID.
    #[arg(long, default_value = GLOBAL)]
    vendor: String,
    /// Contents in hexadecimal.
    #[arg(
        long,
        conflicts_with = "data_file",
        required_unless_present = "data_file"
    )]
    data: Option<String>,
    /// Contents out of a file.
    #[arg(long)]
    data_file: Option<PathBuf>,
    /// EFI_VARIABLE attributes: 7 is kept, for firmware and system.
    #[arg(long, default_value_t = Attributes::RUNTIME.0)]
    attributes: u32,
}

pub fn run(command: Command) -> Result<()> {
    let Command::Vars(vars) = command;
    match vars {
        Vars::Create(create) => make(&create),
        Vars::List { file, signatures } => list(&file, signatures),
        Vars::Set(set) => {
            let data = match (&set.data, &set.data_file) {
                (Some(text), _) => hexadecimal(text)?,
                (None, Some(path)) => std::fs::read(path)
                    .with_context(|| format!("could not read '{}'", path.display()))?,
                (None, None) => bail!("give --data or --data-file"),
            };
            let vendor = vendor(&set.vendor)?;
            change(&set.file, |store| {
                store.put(Variable {
                    name: set.name.clone(),
                    vendor,
                    attributes: Attributes(set.attributes),
                    time: [0; 16],
                    count: 0,
                    data,
                });
                Ok(())
            })
        }
        Vars::Delete {
            file,
            name,
            vendor: of,
        } => {
            let vendor = vendor(&of)?;
            change(&file, |store| {
                ensure!(
                    store.remove(&name, vendor),
                    "there is no variable '{name}' of {of}"
                );
                Ok(())
            })
        }
    }
}

fn vendor(text: &str) -> Result<Guid> {
    Guid::parse(text).with_context(|| format!("'{text}' is no GUID"))
}

fn hexadecimal(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs
        .collect::<Option<Vec<u8>>>()
        .with_context(|| format!("'{text}' is not hexadecimal"))
}

fn make(create: &Create) -> Result<()> {
    let mut store = Store::default();
    if !create.empty {
        keys(create)?.enroll(&mut store);
    }
    let volume = store.to_volume()?;
    let file = &create.file;
    let failed = || format!("could not create '{}'", file.display());
    let mut out = File::create_new(file).with_context(failed)?;
    out.write_all(&volume).with_context(failed)?;
    // As large as the flash, without taking the room.
    out.set_len(64 << 20).with_context(failed)?;
    println!("{}: {} variables", file.display(), store.variables().len());
    Ok(())
}

fn keys(create: &Create) -> Result<Keys> {
    let mut keys = if create.no_microsoft {
        Keys::default()
    } else {
        let folders = match &create.certificates {
            Some(folder) => vec![folder.clone()],
            None => certificate_folders(),
        };
        Keys::microsoft(&folders).context(
            "take the package `virt-firmware` from PyPI, and give the folder virt/firmware/certs/microsoft.com in it \
             with --certificates; or leave them out with --no-microsoft",
        )?
    };
    let ours = |path: &PathBuf| -> Result<Certificate> {
        Ok(Certificate {
            owner: guid::DORMER,
            der: read_certificate(path)?,
        })
    };
    keys.platform = Some(match &create.pk {
        Some(path) => ours(path)?,
        None => platform_key()?,
    });
    for path in &create.kek {
        keys.exchange.push(ours(path)?);
    }
    for path in &create.db {
        keys.allowed.push(ours(path)?);
    }
    if let Some(path) = &create.dbx {
        let data =
            std::fs::read(path).with_context(|| format!("could not read '{}'", path.display()))?;
        ensure!(
            signatures(&data).is_some_and(|all| !all.is_empty()),
            "'{}' is not made of signature lists",
            path.display()
        );
        keys.forbidden = data;
    }
    Ok(keys)
}

/// The variables' part of an image.
fn read(file: &mut File, path: &Path) -> Result<Store> {
    let mut volume = Vec::new();
    file.take(1 << 20)
        .read_to_end(&mut volume)
        .with_context(|| format!("could not read '{}'", path.display()))?;
    Store::parse(&volume).with_context(|| path.display().to_string())
}

fn list(path: &Path, with_signatures: bool) -> Result<()> {
    let mut file =
        File::open(path).with_context(|| format!("could not open '{}'", path.display()))?;
    for variable in read(&mut file, path)?.variables() {
        println!(
            "{} {:#04x} {:>6} {}",
            variable.vendor,
            variable.attributes.0,
            variable.data.len(),
            variable.name
        );
        let keys = matches!(variable.name.as_str(), "PK" | "KEK" | "db" | "dbx");
        if with_signatures && keys {
            for (kind, owner, data) in signatures(&variable.data).unwrap_or_default() {
                let kind = match kind {
                    guid::CERT_X509 => "certificate".to_string(),
                    guid::CERT_SHA256 => "SHA-256".to_string(),
                    other => other.to_string(),
                };
                println!("    {kind} of {owner}, {} bytes", data.len());
            }
        }
    }
    Ok(())
}

/// Changes a store that no machine uses meanwhile.
fn change(path: &Path, with: impl FnOnce(&mut Store) -> Result<()>) -> Result<()> {
    let mut file = storage::open_locked(path, true, Locking::default())?;
    let mut store = read(&mut file, path)?;
    with(&mut store)?;
    let volume = store.to_volume()?;
    let failed = || format!("could not write '{}'", path.display());
    file.rewind().with_context(failed)?;
    file.write_all(&volume).with_context(failed)?;
    file.sync_all().with_context(failed)
}
