//! `dormer hive`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use media::hive::{Hive, Key, Value, kind};

#[derive(clap::Subcommand)]
pub enum Command {
    /// List a key: what is under it and its values.
    Ls {
        hive: PathBuf,
        /// Names between `\` or `/`; the top key without.
        #[arg(default_value = "")]
        key: String,
        /// All keys below too.
        #[arg(short = 'R', long)]
        recursive: bool,
    },
    /// Print one value.
    Get {
        hive: PathBuf,
        key: String,
        /// The key's default value without.
        #[arg(default_value = "")]
        name: String,
    },
    /// Set a value; the key is made if it is not there.
    Set {
        hive: PathBuf,
        key: String,
        name: String,
        /// `dword:1`, `qword:0x10`, `sz:text`, `expand:text`, `multi:one,two`, `hex:0102ff`, `hex(7):00…`.
        value: String,
    },
    /// Remove a value, or a key with all that is in it.
    Delete {
        hive: PathBuf,
        key: String,
        /// The value; the key itself without.
        name: Option<String>,
    },
    /// Let Windows Setup go on without TPM, Secure Boot and the other things it asks for: sets `Setup\LabConfig` of an offline
    /// SYSTEM hive.
    Labconfig { hive: PathBuf },
}

pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Ls {
            hive,
            key,
            recursive,
        } => {
            let hive = open(hive)?;
            let mut out = std::io::stdout().lock();
            list(&hive, &find(&hive, key)?, key, *recursive, &mut out)
        }
        Command::Get { hive, key, name } => {
            let hive = open(hive)?;
            let key = find(&hive, key)?;
            match hive.value(&key, name)? {
                Some(value) => Ok(writeln!(std::io::stdout(), "{}", text(&value))?),
                None => bail!("{} has no value \"{name}\"", key.name),
            }
        }
        Command::Set {
            hive: path,
            key,
            name,
            value,
        } => {
            let mut hive = open(path)?;
            let (kind, data) = parse(value)?;
            let key = hive.make(key)?;
            hive.set(&key, name, kind, &data)?;
            save(hive, path)
        }
        Command::Delete {
            hive: path,
            key,
            name,
        } => {
            let mut hive = open(path)?;
            let found = match name {
                Some(name) => {
                    let key = find(&hive, key)?;
                    hive.remove_value(&key, name)?
                }
                None => hive.remove(key)?,
            };
            if !found {
                bail!("{} is not there", name.as_ref().unwrap_or(key));
            }
            save(hive, path)
        }
        Command::Labconfig { hive: path } => {
            let mut hive = open(path)?;
            media::labconfig::bypass(&mut hive, &media::labconfig::CHECKS)?;
            save(hive, path)
        }
    }
}

/// A hive with the logs beside it.
fn open(path: &Path) -> Result<Hive> {
    Hive::open_file(path).with_context(|| path.display().to_string())
}

/// Writes a hive in the place of the old one, in one step; its logs have nothing for it any more.
fn save(hive: Hive, path: &Path) -> Result<()> {
    let written = hive.write_file(path);
    written.with_context(|| path.display().to_string())
}

fn find(hive: &Hive, path: &str) -> Result<Key> {
    hive.find(path)?
        .with_context(|| format!("the key {path} is not there"))
}

fn list(hive: &Hive, key: &Key, path: &str, deep: bool, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "[{path}]")?;
    for value in hive.values(key)? {
        let name = if value.name.is_empty() {
            "@"
        } else {
            &value.name
        };
        writeln!(out, "{name} = {}", text(&value))?;
    }
    for child in hive.children(key)? {
        let path = if path.is_empty() {
            child.name.clone()
        } else {
            format!("{path}\\{}", child.name)
        };
        if deep {
            writeln!(out)?;
            list(hive, &child, &path, true, out)?;
        } else {
            writeln!(out, "[{path}]")?;
        }
    }
    Ok(())
}

/// A value in the words that `set` takes.
fn text(value: &Value) -> String {
    let data = &value.data;
    match (value.kind, value.text(), value.texts(), value.number()) {
        (kind::SZ, Some(text), ..) => format!("sz:{text}"),
        (kind::EXPAND_SZ, Some(text), ..) => format!("expand:{text}"),
        (_, _, Some(texts), _) => format!("multi:{}", texts.join(",")),
        (kind::DWORD, .., Some(number)) => format!("dword:{number:#x}"),
        (kind::QWORD, .., Some(number)) => format!("qword:{number:#x}"),
        (kind::BINARY, ..) => format!("hex:{}", media::hex(data)),
        (other, ..) => format!("hex({other:x}):{}", media::hex(data)),
    }
}

fn parse(text: &str) -> Result<(u32, Vec<u8>)> {
    let (kind, value) = text.split_once(':').with_context(|| {
        format!("{text}: a value needs its kind before a colon, such as dword:1")
    })?;
    let zero_ended = |text: &str| -> Vec<u8> {
        let units = text.encode_utf16().chain([0]);
        units.flat_map(u16::to_le_bytes).collect()
    };
    let number = || -> Result<u64> {
        let parsed = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => value.parse(),
        };
        parsed.with_context(|| format!("{value} is no number"))
    };
    Ok(match kind {
        "sz" => (kind::SZ, zero_ended(value)),
        "expand" => (kind::EXPAND_SZ, zero_ended(value)),
        "multi" => {
            let mut data: Vec<u8> = value
                .split(',')
                .filter(|one| !one.is_empty())
                .flat_map(zero_ended)
                .collect();
            data.extend([0, 0]);
            (kind::MULTI_SZ, data)
        }
        "dword" => {
            let number = u32::try_from(number()?).context("a dword has 32 bits")?;
            (kind::DWORD, number.to_le_bytes().to_vec())
        }
        "qword" => (kind::QWORD, number()?.to_le_bytes().to_vec()),
        _ => {
            let kind = match kind.strip_prefix("hex") {
                Some("") => kind::BINARY,
                Some(other) => other
                    .strip_prefix('(')
                    .and_then(|o| u32::from_str_radix(o.strip_suffix(')')?, 16).ok())
                    .with_context(|| format!("{text}: hex(N) has the kind's number"))?,
                None => bail!("{kind} is no kind of value: dword, qword, sz, expand, multi, hex"),
            };
            let digits: Vec<u8> = value.bytes().filter(|b| *b != b',' && *b != b' ').collect();
            if !digits.len().is_multiple_of(2) {
                bail!("{value}: two digits make a byte");
            }
            let bytes = digits.chunks(2).map(|pair| {
                let pair = std::str::from_utf8(pair)?;
                u8::from_str_radix(pair, 16).with_context(|| format!("{pair} is no byte"))
            });
            (kind, bytes.collect::<Result<_>>()?)
        }
    })
}
