use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::fat::Fat;
use crate::filesystem::{self, FileSystem};
use crate::iso::Descriptors;
use crate::source::Shared;

fn files() -> Files {
    let mut files = Files::new();
    files.add("autounattend.xml", "<unattend/>").unwrap();
    files.add("EFI/BOOT/BOOTAA64.EFI", vec![7; 70_000]).unwrap();
    files.add("efi/boot/grub.cfg", "boot").unwrap();
    files
        .add("$OEM$/Größe und Länge eines langen Namens.txt", "ja")
        .unwrap();
    files.add("empty", "").unwrap();
    for number in 0..120 {
        files
            .add(
                &format!("drivers/viostor number {number}.sys"),
                vec![number; 3000],
            )
            .unwrap();
    }
    files
}

fn check(system: &dyn FileSystem) {
    let read = |path: &str| {
        filesystem::open(system, path)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .read_all(path, 1 << 20)
            .unwrap()
    };
    assert_eq!(read("autounattend.xml"), b"<unattend/>");
    assert_eq!(read("efi/boot/bootaa64.efi"), vec![7; 70_000]);
    assert_eq!(read("EFI/BOOT/grub.cfg"), b"boot");
    assert_eq!(read("$OEM$/Größe und Länge eines langen Namens.txt"), b"ja");
    assert_eq!(read("empty"), b"");
    for number in 0..120 {
        assert_eq!(
            read(&format!("drivers/viostor number {number}.sys")),
            vec![number; 3000]
        );
    }
    let mut count = 0;
    filesystem::walk(system, system.root(), &mut |_, _| {
        count += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(count, 125 + 4);
}

fn seven_zip(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("7z")
        .args(["t", "-bb1"])
        .arg(file.path())
        .output()
        .expect("7z starts: cargo xtask setup installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn iso_and_joliet() {
    let bytes = iso("ANSWER", &files()).unwrap();
    let listed = seven_zip(&bytes);
    assert!(
        listed.contains("drivers/viostor number 119.sys"),
        "{listed}"
    );
    let source: Shared = Arc::new(bytes);
    let descriptors = Descriptors::read(&source).unwrap();
    let joliet = descriptors.joliet.unwrap();
    assert_eq!(joliet.label, "ANSWER");
    check(&joliet);
    let primary = descriptors.primary.unwrap();
    assert_eq!(primary.label, "ANSWER");
    let mut names = Vec::new();
    filesystem::walk(&primary, primary.root(), &mut |path, _| {
        names.push(path.to_string());
        Ok(())
    })
    .unwrap();
    assert_eq!(names.len(), 125 + 4);
    assert!(names.contains(&"EFI/BOOT/BOOTAA64.EFI".to_string()));
}

#[test]
fn fat_of_each_width() {
    for (size, bits) in [(0, 12), (1 << 20, 12), (3 << 20, 16), (40 << 20, 16)] {
        let bytes = fat("ANSWER", &files(), size).unwrap();
        seven_zip(&bytes);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let listed = Command::new("mdir")
            .args(["-/", "-b", "-i"])
            .arg(file.path())
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains("::/EFI/BOOT/BOOTAA64.EFI"), "{listed}");
        assert!(listed.contains("viostor number 119.sys"), "{listed}");
        let volume = Fat::read(Arc::new(bytes)).unwrap();
        assert_eq!(volume.bits, bits);
        check(&volume);
    }
}

#[test]
fn names_that_cannot_be() {
    let mut files = files();
    assert!(files.add("empty/below", "").is_err());
    assert!(files.add("drivers", "").is_err());
    assert!(files.add("a:b", "").is_err());
    assert!(files.add(&"x".repeat(65), "").is_err());
    assert!(files.add("", "").is_err());
}
