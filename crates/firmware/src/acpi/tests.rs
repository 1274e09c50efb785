use super::*;
use crate::board::{Gic, PowerButton, Range, Topology, Tpm, TpmInterface};
use std::collections::HashMap;
use std::process::Command;

fn boards() -> Vec<(&'static str, Board)> {
    let plain = Board::virt(4, 4 << 30);
    let mut its = Board::virt(2, 4 << 30);
    its.msi = Board::ITS;
    its.tpm = Some(Tpm {
        interface: TpmInterface::Crb,
        registers: Range::new(0x0c00_0000, 0x1000),
    });
    let mut old = Board::virt(8, 1 << 30);
    old.gic = Board::GIC_V2;
    old.pmu = None;
    old.power_button = Some(PowerButton::Gpio(Board::GPIO));
    old.topology = Topology {
        sockets: 2,
        clusters: 2,
        cores: 1,
        threads: 2,
    };
    if let Some(pcie) = &mut old.pcie {
        pcie.ecam = Board::LOW_ECAM;
        pcie.memory64 = None;
    }
    old.tpm = Some(Tpm {
        interface: TpmInterface::Tis,
        registers: Range::new(0x0c00_0000, 0x5000),
    });
    vec![
        ("plain", plain),
        ("its", its),
        ("gicv2", old),
        ("many", Board::virt(200, 4 << 30)),
    ]
}

fn signatures(board: &Board) -> Vec<String> {
    tables(board)
        .iter()
        .map(|t| String::from_utf8(t[..4].to_vec()).unwrap())
        .collect()
}

#[test]
fn each_board_has_its_tables() {
    let boards: HashMap<_, _> = boards().into_iter().collect();
    let plain = [
        "DSDT", "FACP", "APIC", "PPTT", "GTDT", "SPCR", "DBG2", "MCFG",
    ];
    assert_eq!(signatures(&boards["plain"]), plain);
    assert_eq!(signatures(&boards["its"])[8..], ["IORT", "TPM2"]);
    assert_eq!(signatures(&boards["gicv2"])[8..], ["TPM2"]);
}

/// Runs `iasl` in a directory of its own; all that it says.
fn iasl(dir: &std::path::Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("iasl")
        .current_dir(dir)
        .args(arguments)
        .output()
        .ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Needs `iasl` (Debian: acpica-tools): each table is disassembled and compiled again, without a complaint.
#[test]
fn iasl_has_no_complaint() {
    for (which, board) in boards() {
        let dir = tempfile::tempdir().unwrap();
        for table in tables(&board) {
            let name = String::from_utf8(table[..4].to_vec()).unwrap();
            let (aml, dsl) = (format!("{name}.aml"), format!("{name}.dsl"));
            std::fs::write(dir.path().join(&aml), &table).unwrap();
            let Some(said) = iasl(dir.path(), &["-d", &aml]) else {
                eprintln!("iasl is not installed: the tables are not checked");
                return;
            };
            let text = std::fs::read_to_string(dir.path().join(&dsl)).unwrap_or_default();
            for bad in [
                "Incorrect checksum",
                "Invalid",
                "Unknown",
                "**** ",
                "Error",
                "exceeds",
            ] {
                let at = said
                    .find(bad)
                    .map(|_| &said)
                    .or(text.find(bad).map(|_| &text));
                assert_eq!(at, None, "{which} {name}: {bad}");
            }
            let said = iasl(dir.path(), &["-vr", &dsl]).unwrap();
            let clean = said.contains("Compilation successful. 0 Errors, 0 Warnings")
                || said.contains("0 Errors, 0 Warnings");
            assert!(clean, "{which} {name}:\n{said}");
            let again = std::fs::read(dir.path().join(&aml)).unwrap();
            // But for who compiled it, the data tables come out as they went in.
            if name != "DSDT" {
                assert_eq!(again.len(), table.len(), "{which} {name}");
                assert_eq!(again[36..], table[36..], "{which} {name}");
            }
        }
    }
}

/// What firmware does: places the files and runs the commands.
fn place(board: &Board) -> HashMap<String, (u64, Vec<u8>)> {
    let files: HashMap<_, _> = files(board).into_iter().collect();
    let mut placed: HashMap<String, (u64, Vec<u8>)> = HashMap::new();
    let script = &files[LOADER];
    assert_eq!(script.len() % linker::COMMAND, 0);
    for command in script.chunks(linker::COMMAND) {
        let u32_at = |at: usize| u32::from_le_bytes(command[at..at + 4].try_into().unwrap());
        let name = |at: usize| {
            let bytes = &command[at..at + 56];
            String::from_utf8(bytes[..bytes.iter().position(|b| *b == 0).unwrap()].to_vec())
                .unwrap()
        };
        match u32_at(0) {
            1 => {
                let base = 0x7000_0000 + 0x10_0000 * placed.len() as u64;
                assert!(u32_at(60).is_power_of_two());
                placed.insert(name(4), (base, files[&*name(4)].clone()));
            }
            2 => {
                let base = placed[&name(60)].0;
                let at = u32_at(116) as usize;
                assert_eq!(command[120], 8);
                let pointee = placed[&name(60)].1.len() as u64;
                let (_, bytes) = placed.get_mut(&name(4)).unwrap();
                let field: &mut [u8; 8] = (&mut bytes[at..at + 8]).try_into().unwrap();
                let offset = u64::from_le_bytes(*field);
                assert!(offset < pointee);
                *field = (offset + base).to_le_bytes();
            }
            3 => {
                let [result, start, length] = [60, 64, 68].map(|at| u32_at(at) as usize);
                let (_, bytes) = placed.get_mut(&name(4)).unwrap();
                let sum = bytes[start..start + length]
                    .iter()
                    .fold(0u8, |s, b| s.wrapping_add(*b));
                bytes[result] = bytes[result].wrapping_sub(sum);
            }
            other => panic!("command {other}"),
        }
    }
    placed
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |s, b| s.wrapping_add(*b))
}

#[test]
fn firmware_finds_every_table_from_the_rsdp() {
    for (which, board) in boards() {
        let placed = place(&board);
        let (_, rsdp) = &placed[RSDP];
        assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        let (base, blob) = &placed[TABLES];
        let u64_at = |b: &[u8], at: usize| u64::from_le_bytes(b[at..at + 8].try_into().unwrap());
        let table = |address: u64| {
            let at = (address - base) as usize;
            let length = u32::from_le_bytes(blob[at + 4..at + 8].try_into().unwrap()) as usize;
            let bytes = &blob[at..at + length];
            assert_eq!(sum(bytes), 0, "{which}: checksum at {at:#x}");
            bytes
        };
        let xsdt = table(u64_at(rsdp, 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        let listed: Vec<&[u8]> = xsdt[36..].chunks(8).map(|e| table(u64_at(e, 0))).collect();
        let mut names: Vec<&[u8]> = listed.iter().map(|t| &t[..4]).collect();
        names.insert(0, b"DSDT");
        let expected = tables(&board);
        assert_eq!(names, expected.iter().map(|t| &t[..4]).collect::<Vec<_>>());
        assert_eq!(&table(u64_at(listed[0], fadt::X_DSDT))[..4], b"DSDT");
        if let Some(tpm) = listed.iter().find(|t| &t[..4] == b"TPM2") {
            assert_eq!(u64_at(tpm, tpm2::LOG_AREA), placed[TPM_LOG].0);
        }
    }
}

#[test]
fn fields_are_those_the_contract_names() {
    let board = Board::virt(2, 4 << 30);
    let find = |name: &[u8]| {
        tables(&board)
            .into_iter()
            .find(|t| &t[..4] == name)
            .unwrap()
    };
    let fadt = find(b"FACP");
    assert_eq!((fadt.len(), fadt[8], fadt[131]), (276, 6, 3));
    assert_eq!(fadt[112..116], (1u32 << 20).to_le_bytes());
    assert_eq!(fadt[129..131], [3, 0]);
    assert_eq!(find(b"GTDT").len(), 104);
    assert_eq!(find(b"SPCR").len(), 80);
    assert_eq!(find(b"DBG2").len(), 87);
    let madt = find(b"APIC");
    // Distributor, two processors, redistributors, MSI frame with 64 interrupts from 80 on.
    assert_eq!(madt.len(), 44 + 24 + 2 * 80 + 16 + 24);
    assert_eq!(madt[madt.len() - 4..], [64, 0, 80, 0]);
    assert!(matches!(board.gic, Gic::V3 { .. }));
}
