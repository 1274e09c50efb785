use std::process::Command;

use super::*;
use crate::labconfig;

/// A hive as the program `hivexregedit` (libhivex) exports it.
fn exported(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("hivexregedit")
        .args(["--export", "--prefix", "X"])
        .arg(file.path())
        .arg("\\")
        .output()
        .expect("hivexregedit starts: cargo xtask setup installs it");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n")
}

fn system() -> Hive {
    let mut hive = Hive::create("ROOT").unwrap();
    hive.make("ControlSet001\\Services\\viostor").unwrap();
    let setup = hive.make("Setup").unwrap();
    hive.set_text(&setup, "CmdLine", "winpeshl.exe").unwrap();
    hive
}

#[test]
fn a_new_hive_is_what_others_read() {
    let mut hive = system();
    labconfig::bypass(&mut hive, &labconfig::CHECKS).unwrap();
    let key = hive.make("Größe\\日本語").unwrap();
    hive.set_texts(&key, "many", &["eins", "zwei"]).unwrap();
    hive.set(&key, "", kind::BINARY, &[1, 2, 3, 4, 5]).unwrap();
    let bytes = hive.into_bytes();
    let text = exported(&bytes);
    for line in [
        "[X\\Setup\\LabConfig]",
        "\"BypassTPMCheck\"=dword:00000001",
        "\"BypassStorageCheck\"=dword:00000001",
        "@=hex(3):01,02,03,04,05",
        "\"CmdLine\"=hex(1):77,00,69,00,6e,00,70,00,65,00,73,00,68,00,6c,00,2e,00,65,00,78,00,65,00,00,00",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let hive = Hive::open(bytes.clone()).unwrap();
    let key = hive.find("GRÖSSE").unwrap();
    assert!(key.is_none(), "ß has no upper case of one character");
    let key = hive.find("grÖße\\日本語").unwrap().unwrap();
    let value = hive.value(&key, "MANY").unwrap().unwrap();
    assert_eq!(value.texts().unwrap(), ["eins", "zwei"]);
    assert_eq!(hive.into_bytes(), bytes, "nothing changed, so no byte may");
}

#[test]
fn what_reged_imports_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, reg) = (folder.path().join("hive"), folder.path().join("a.reg"));
    std::fs::write(&path, system().into_bytes()).unwrap();
    std::fs::write(
        &reg,
        "Windows Registry Editor Version 5.00\r\n\r\n[P\\Setup\\LabConfig]\r\n\"BypassRAMCheck\"=dword:00000001\r\n\r\n",
    )
    .unwrap();
    // It answers 2 for "changed".
    let status = Command::new("reged")
        .args(["-C", "-I"])
        .arg(&path)
        .arg("P")
        .arg(&reg)
        .output()
        .expect("reged starts: cargo xtask setup installs it");
    assert!(matches!(status.status.code(), Some(0 | 2)), "{status:?}");
    let hive = Hive::open(std::fs::read(&path).unwrap()).unwrap();
    let key = hive.find("Setup\\LabConfig").unwrap().unwrap();
    let value = hive.value(&key, "BypassRAMCheck").unwrap().unwrap();
    assert_eq!(value.number(), Some(1));
}

/// Many keys and values, set, changed and removed at random, against a plain map; the result as another program reads it.
#[test]
fn random_changes() {
    use std::collections::BTreeMap;
    let mut seed = 0x1234_5678_9ABC_DEFFu64;
    let mut next = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut hive = Hive::create("ROOT").unwrap();
    let mut model: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for step in 0..4000 {
        let path = format!("a{}\\k{}", next(2), next(900));
        match next(10) {
            0 => {
                assert_eq!(
                    hive.remove(&path).unwrap(),
                    model.remove(&path).is_some(),
                    "{path}"
                );
            }
            1 => {
                let name = format!("v{}", next(4));
                if let Some(key) = hive.find(&path).unwrap() {
                    let there = model.get_mut(&path).unwrap().remove(&name).is_some();
                    assert_eq!(hive.remove_value(&key, &name).unwrap(), there);
                }
            }
            _ => {
                let length = match next(20) {
                    0 => 16_000 + next(40_000),
                    1 => 16_344,
                    2 => 16_345,
                    _ => next(40),
                } as usize;
                let data = vec![step as u8; length];
                let name = format!("v{}", next(4));
                let key = hive.make(&path).unwrap();
                hive.set(&key, &name, kind::BINARY, &data).unwrap();
                model.entry(path).or_default().insert(name, data);
            }
        }
    }
    let bytes = hive.into_bytes();
    let hive = Hive::open(bytes.clone()).unwrap();
    let mut found = BTreeMap::new();
    for top in hive.children(&hive.root().unwrap()).unwrap() {
        let mut last = String::new();
        for key in hive.children(&top).unwrap() {
            assert!(
                last.is_empty() || key::folded(&last) < key::folded(&key.name),
                "keys are in order"
            );
            last.clone_from(&key.name);
            let values = hive.values(&key).unwrap();
            let values = values.into_iter().map(|v| (v.name, v.data)).collect();
            found.insert(format!("{}\\{}", top.name, key.name), values);
        }
    }
    assert!(found == model);
    let text = exported(&bytes);
    assert_eq!(
        text.lines().filter(|l| l.starts_with("[X\\a")).count(),
        model.len() + 2
    );
    let values: usize = model.values().map(BTreeMap::len).sum();
    assert_eq!(
        text.lines().filter(|l| l.starts_with("\"v")).count(),
        values
    );
}

#[test]
fn marvin() {
    // Published vectors.
    const KEY: u64 = 0x004F_B61A_001B_DBCC;
    assert_eq!(log::marvin32(KEY, b""), 0x30ED_35C1_00CD_3C7D);
    assert_eq!(log::marvin32(KEY, &[0xAF]), 0x48E7_3FC7_7D75_DDC1);
    assert_eq!(log::marvin32(KEY, &[0xE7, 0x0F]), 0xB5F6_E1FC_485D_BFF8);
}

/// A log made as Windows does; the hive beside it is half written.
#[test]
fn logs_are_replayed() {
    let old = system().into_bytes();
    let mut hive = Hive::open(old.clone()).unwrap();
    labconfig::bypass(&mut hive, &labconfig::CHECKS).unwrap();
    let new = hive.into_bytes();
    let mut dirty = old.clone();
    let first = u32::from_le_bytes([dirty[4], dirty[5], dirty[6], dirty[7]]) + 1;
    dirty[4..8].copy_from_slice(&first.to_le_bytes());
    let sum = checksum(&dirty);
    dirty[508..512].copy_from_slice(&sum.to_le_bytes());
    assert!(
        matches!(Hive::open(dirty.clone()), Err(Error::Unsupported(text)) if text.contains("LOG1"))
    );
    let second = first - 1;
    let mut log = dirty[..512].to_vec();
    log[28..32].copy_from_slice(&6u32.to_le_bytes());
    let bins = new[BASE..].to_vec();
    let pages = bins.len() / 4096;
    let mut entry = vec![0; 40];
    for page in 0..pages {
        entry.extend((page as u32 * 4096).to_le_bytes());
        entry.extend(4096u32.to_le_bytes());
    }
    entry.extend(&bins);
    entry.resize(entry.len().next_multiple_of(512), 0);
    let size = entry.len() as u32;
    entry[..4].copy_from_slice(b"HvLE");
    for (at, value) in [
        (4, size),
        (12, second),
        (16, bins.len() as u32),
        (20, pages as u32),
    ] {
        entry[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    log.extend(&entry);
    let mut log = Hive::log_with_checksums(log);
    let hive = Hive::open_with_logs(dirty.clone(), &[Vec::new(), log.clone()]).unwrap();
    assert_eq!(hive.replayed, Some(second));
    assert!(hive.find("Setup\\LabConfig").unwrap().is_some());
    exported(&hive.into_bytes());
    // A log whose data was changed is refused.
    *log.last_mut().unwrap() ^= 1;
    assert!(Hive::open_with_logs(dirty, &[log]).is_err());
}

/// A hive grows by what its log holds, not by what it says.
#[test]
fn a_log_that_claims_much_takes_no_memory() {
    let mut dirty = Hive::create("ROOT").unwrap().into_bytes();
    dirty[4] += 1;
    let mut log = dirty[..512].to_vec();
    log[28..32].copy_from_slice(&6u32.to_le_bytes());
    log.resize(1024, 0);
    log[512..516].copy_from_slice(b"HvLE");
    log[516..520].copy_from_slice(&512u32.to_le_bytes());
    log[528..532].copy_from_slice(&0x7000_0000u32.to_le_bytes());
    let log = Hive::log_with_checksums(log);
    let error = Hive::open_with_logs(dirty, &[log]).err().unwrap();
    assert!(error.to_string().contains("grow"), "{error}");
}

/// Windows sets space aside behind the bins of hives that grow: it may hold anything.
#[test]
fn what_lies_behind_the_bins_is_no_matter() {
    let mut bytes = Hive::create("ROOT").unwrap().into_bytes();
    bytes.extend([0xF9; 109]);
    let mut hive = Hive::open(bytes.clone()).unwrap();
    let key = hive.make("Setup").unwrap();
    hive.set_number(&key, "Here", 7).unwrap();
    let changed = hive.into_bytes();
    assert_eq!(changed.len(), bytes.len());
    let hive = Hive::open(changed).unwrap();
    assert!(hive.find("Setup").unwrap().is_some());
}
