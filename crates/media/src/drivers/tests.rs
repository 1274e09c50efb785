use std::sync::Arc;

use super::*;
use crate::iso::Descriptors;
use crate::source::Shared;
use crate::volume::{Files, iso};

const VIOSTOR: &str = "; VirtIO storage\r\n[Version]\r\nSignature=\"$WINDOWS NT$\"\r\nClass=SCSIAdapter\r\n\
ClassGUID={4D36E97B-E325-11CE-BFC1-08002BE10318}\r\nProvider=%VENDOR% ; who\r\nDriverVer=08/06/2024,100.95.104.26200\r\n\
CatalogFile=viostor.cat\r\n\r\n[Manufacturer]\r\n%VENDOR%=RHEL,NTARM64.10.0...16299,NTamd64\r\n\r\n\
[RHEL.NTARM64.10.0...16299]\r\n%DESC%=install, PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00, PCI\\VEN_1AF4&DEV_1042\r\n\
[RHEL.NTamd64]\r\n%DESC%=install, \\\r\n  PCI\\VEN_1AF4&DEV_1001\r\n[Strings]\r\nvendor=\"Red Hat, Inc.; here\"\r\nDESC=\"Red Hat VirtIO \"\"SCSI\"\" controller\"\r\n";

/// A small PE of a machine.
fn pe(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[60] = 64;
    bytes[64..68].copy_from_slice(b"PE\0\0");
    bytes[68..70].copy_from_slice(&machine.to_le_bytes());
    bytes[84..86].copy_from_slice(&240u16.to_le_bytes());
    bytes[88..90].copy_from_slice(&0x20Bu16.to_le_bytes());
    bytes[88 + 68] = 1;
    bytes
}

#[test]
fn by_device_windows_and_processor() {
    let mut files = Files::new();
    for (folder, version, machine) in [
        ("viostor/w11/ARM64", "100.95.104.26200", 0xAA64),
        ("viostor/w10/ARM64", "100.93.104.22900", 0xAA64),
        ("viostor/w11/amd64", "100.95.104.26200", 0x8664),
        ("broken/w11/ARM64", "200.0.0.0", 0x8664),
    ] {
        let text = VIOSTOR.replace("100.95.104.26200", version);
        let mut utf16 = vec![0xFF, 0xFE];
        utf16.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        files.add(&format!("{folder}/viostor.inf"), utf16).unwrap();
        files
            .add(&format!("{folder}/viostor.cat"), "signed")
            .unwrap();
        files
            .add(&format!("{folder}/viostor.sys"), pe(machine))
            .unwrap();
    }
    files
        .add("NetKVM/w11/ARM64/netkvm.inf", "[Version]\nClass=Net\n")
        .unwrap();
    let source: Shared = Arc::new(iso("virtio-win", &files).unwrap());
    let joliet = Descriptors::read(&source).unwrap().joliet.unwrap();
    let drivers = find_all(&joliet).unwrap();
    assert_eq!(drivers.len(), 5);
    let device = "PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00";
    let found = select(&drivers, device, "w11", "arm64");
    assert_eq!(found.len(), 1, "not the one whose binary is for x64");
    let driver = found[0];
    assert_eq!(driver.folder, "viostor/w11/ARM64");
    assert_eq!(driver.version.as_deref(), Some("100.95.104.26200"));
    assert_eq!(driver.date.as_deref(), Some("08/06/2024"));
    assert_eq!(driver.provider.as_deref(), Some("Red Hat, Inc.; here"));
    assert_eq!(
        driver.catalog.as_deref(),
        Some("viostor/w11/ARM64/viostor.cat")
    );
    assert_eq!(
        driver.models[0].description,
        "Red Hat VirtIO \"SCSI\" controller"
    );
    assert!(driver.serves("pci\\ven_1af4&dev_1042&rev_01", "arm64"));
    assert!(!driver.serves("PCI\\VEN_1AF4&DEV_10421", "arm64"));
    assert!(!driver.serves("PCI\\VEN_1AF4&DEV_1042", "x64"));
    assert!(driver.serves("PCI\\VEN_1AF4&DEV_1001", "x64"));
}
