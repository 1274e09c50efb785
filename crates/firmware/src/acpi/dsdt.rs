//! DSDT: processors, the UART, PCIe, the power button, and the TPM if there is one.

use acpi_tables::Aml;
use acpi_tables::aml::*;

use super::table::{Body, table};
use crate::board::{Board, Pcie, Peripheral, PowerButton, Range, Tpm};

/// The host bridge lets the system have control (PCI Firmware Specification 3.3, table 4-5) of: native hot plug, SHPC
/// hot plug, power management events, advanced error reporting, the PCIe capability.
const OSC_CONTROL: u8 = 0x1f;
/// `_OSC` (4.5.1), result bits of the first DWORD.
const OSC_UNRECOGNISED_UUID: u8 = 0x04;
const OSC_UNRECOGNISED_REVISION: u8 = 0x08;
const OSC_CAPABILITIES_MASKED: u8 = 0x10;

pub(super) fn build(board: &Board) -> Vec<u8> {
    let mut aml = Vec::new();
    let mut scope = Vec::new();
    for uid in 0..board.cpus.len() as u32 {
        processor(&mut scope, uid);
    }
    uart(&mut scope, &board.uart);
    fw_cfg(&mut scope, board.fw_cfg);
    if let Some(pcie) = &board.pcie {
        for link in 0..4 {
            interrupt_link(&mut scope, link, pcie.interrupts[usize::from(link)]);
        }
        host_bridge(&mut scope, pcie);
    }
    if let Some(PowerButton::Ged(ged)) = &board.power_button {
        power_button(&mut scope, ged);
    }
    if let Some(tpm) = &board.tpm {
        tpm_device(&mut scope, tpm);
    }
    aml.extend(Scope::raw("\\_SB_".into(), scope));
    table(b"DSDT", 2, Body(aml))
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(path.into(), value)
}

fn device(to: &mut Vec<u8>, path: &str, children: Vec<&dyn Aml>) {
    Device::new(path.into(), children).to_aml_bytes(to);
}

/// Bytes of AML that are made already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// Several objects, one after the other.
fn raw(objects: &[&dyn Aml]) -> Raw {
    let mut bytes = Vec::new();
    objects.iter().for_each(|o| o.to_aml_bytes(&mut bytes));
    Raw(bytes)
}

fn memory_fixed(range: Range) -> Memory32Fixed {
    Memory32Fixed::new(true, range.base as u32, range.size as u32)
}

/// A level-triggered, active-high interrupt of a device.
fn level(interrupt: u32) -> Interrupt {
    Interrupt::new(true, false, false, false, interrupt)
}

fn processor(to: &mut Vec<u8>, uid: u32) {
    let path = format!("C{uid:03X}");
    device(
        to,
        &path,
        vec![&name("_HID", &"ACPI0007"), &name("_UID", &uid)],
    );
}

fn uart(to: &mut Vec<u8>, uart: &Peripheral) {
    let (memory, interrupt) = (memory_fixed(uart.registers), level(uart.interrupt));
    let resources = ResourceTemplate::new(vec![&memory, &interrupt]);
    let (hid, uid) = (name("_HID", &"ARMH0011"), name("_UID", &ZERO));
    device(to, "COM0", vec![&hid, &uid, &name("_CRS", &resources)]);
}

fn fw_cfg(to: &mut Vec<u8>, registers: Range) {
    let memory = memory_fixed(registers);
    let resources = ResourceTemplate::new(vec![&memory]);
    // Present, functioning, but not for users to see.
    let (hid, sta) = (name("_HID", &"QEMU0002"), name("_STA", &0x0bu8));
    device(
        to,
        "FWCF",
        vec![&hid, &sta, &name("_CCA", &ONE), &name("_CRS", &resources)],
    );
}

fn link_path(link: u8) -> String {
    format!("L{link:03}")
}

/// A PCI interrupt link: INTA–INTD lead to fixed inputs of the GIC, so there is nothing to set.
fn interrupt_link(to: &mut Vec<u8>, link: u8, interrupt: u32) {
    let interrupt = level(interrupt);
    let resources = ResourceTemplate::new(vec![&interrupt]);
    let (hid, uid) = (name("_HID", &EISAName::new("PNP0C0F")), name("_UID", &link));
    let (possible, current) = (name("_PRS", &resources), name("_CRS", &resources));
    let set = Method::new("_SRS".into(), 1, false, vec![]);
    device(
        to,
        &link_path(link),
        vec![&hid, &uid, &possible, &current, &set],
    );
}

/// `_PRT` (ACPI 6.3, 6.2.13): slot and any function, pin, link, 0.
fn routing() -> Vec<u8> {
    let mut entries = PackageBuilder::new();
    for slot in 0..32u32 {
        for pin in 0..4u8 {
            let address = slot << 16 | 0xffff;
            let link = Path::new(&link_path((slot as u8 + pin) % 4));
            entries.add_element(&Package::new(vec![&address, &pin, &link, &ZERO]));
        }
    }
    let mut bytes = Vec::new();
    name("_PRT", &entries).to_aml_bytes(&mut bytes);
    bytes
}

fn host_bridge(to: &mut Vec<u8>, pcie: &Pcie) {
    let no_cache = AddressSpaceCacheable::NotCacheable;
    let buses = AddressSpace::new_bus_number(0u16, (pcie.buses() - 1) as u16);
    let (low, io) = (pcie.memory32, pcie.io);
    let memory32 = AddressSpace::new_memory(
        no_cache,
        true,
        low.base as u32,
        (low.end() - 1) as u32,
        None,
    );
    let ports = AddressSpace::new_io(0, (io.size - 1) as u32, Some(io.base as u32));
    let high = pcie.memory64;
    let memory64 =
        high.map(|r| AddressSpace::new_memory(no_cache, true, r.base, r.end() - 1, None));
    let mut windows: Vec<&dyn Aml> = vec![&buses, &memory32, &ports];
    if let Some(memory64) = &memory64 {
        windows.push(memory64);
    }
    let windows = ResourceTemplate::new(windows);

    // The ECAM window is taken by the board (PCI Firmware Specification 3.3, 4.1.2, note 2).
    let ecam = pcie.ecam;
    let reserved = AddressSpace::new_memory(no_cache, true, ecam.base, ecam.end() - 1, None);
    let reserved = ResourceTemplate::new(vec![&reserved]);
    let (reserved_hid, reserved) = (
        name("_HID", &EISAName::new("PNP0C02")),
        name("_CRS", &reserved),
    );
    let reservation = Device::new("RES0".into(), vec![&reserved_hid, &reserved]);

    let mut osc = Vec::new();
    control(&mut osc);
    device(
        to,
        "PCI0",
        vec![
            &name("_HID", &EISAName::new("PNP0A08")),
            &name("_CID", &EISAName::new("PNP0A03")),
            &name("_SEG", &ZERO),
            &name("_BBN", &ZERO),
            &name("_UID", &ZERO),
            &name("_CCA", &ONE),
            &Raw(routing()),
            &name("_CBA", &pcie.ecam.base),
            &name("_CRS", &windows),
            &Raw(osc),
            &reservation,
        ],
    );
}

/// `_OSC`: gives the system control of what [`OSC_CONTROL`] lists.
fn control(to: &mut Vec<u8>) {
    let (first, second, third) = (Path::new("CDW1"), Path::new("CDW2"), Path::new("CDW3"));
    let (support, granted) = (Path::new("SUPP"), Path::new("CTRL"));
    name("SUPP", &ZERO).to_aml_bytes(to);
    name("CTRL", &ZERO).to_aml_bytes(to);

    let (capabilities, uuid, revision) = (Arg(3), Arg(0), Arg(1));
    let host_bridge = Uuid::new("33db4d5b-1ff7-401c-9657-7441c03dd766");
    let bad_revision = raw(&[&Or::new(&first, &first, &OSC_UNRECOGNISED_REVISION)]);
    let masked = raw(&[&Or::new(&first, &first, &OSC_CAPABILITIES_MASKED)]);
    let known = raw(&[
        &CreateDWordField::new(&second, &capabilities, &4u8),
        &CreateDWordField::new(&third, &capabilities, &8u8),
        &Store::new(&support, &second),
        &Store::new(&granted, &third),
        &And::new(&granted, &granted, &OSC_CONTROL),
        &If::new(&NotEqual::new(&revision, &ONE), vec![&bad_revision]),
        &If::new(&NotEqual::new(&third, &granted), vec![&masked]),
        &Store::new(&third, &granted),
        &Return::new(&capabilities),
    ]);
    let unknown = raw(&[
        &Or::new(&first, &first, &OSC_UNRECOGNISED_UUID),
        &Return::new(&capabilities),
    ]);
    let body = raw(&[
        &CreateDWordField::new(&first, &capabilities, &ZERO),
        &If::new(&Equal::new(&uuid, &host_bridge), vec![&known]),
        &Else::new(vec![&unknown]),
    ]);
    Method::new("_OSC".into(), 4, true, vec![&body]).to_aml_bytes(to);
}

/// The generic event device (ACPI 6.3, 5.6.9), whose one event is the power button.
fn power_button(to: &mut Vec<u8>, ged: &Peripheral) {
    let interrupt = Interrupt::new(true, true, false, false, ged.interrupt);
    let resources = ResourceTemplate::new(vec![&interrupt]);
    let (base, size) = (ged.registers.base, ged.registers.size);
    let registers = OpRegion::new("EREG".into(), OpRegionSpace::SystemMemory, &base, &size);
    let selector = Field::new(
        "EREG".into(),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        vec![FieldEntry::Named(*b"ESEL", 32)],
    );
    // Reading takes the events away, so it is done once.
    let (events, button) = (Local(0), Path::new("PWRB"));
    let bit = And::new(&ZERO, &events, &POWER_BUTTON_EVENT);
    let notify = raw(&[&Notify::new(&button, &BUTTON_PRESSED)]);
    let body = raw(&[
        &Store::new(&events, &Path::new("ESEL")),
        &If::new(&Equal::new(&bit, &POWER_BUTTON_EVENT), vec![&notify]),
    ]);
    let handler = Method::new("_EVT".into(), 1, true, vec![&body]);
    let (hid, uid) = (name("_HID", &"ACPI0013"), name("_UID", &"GED"));
    let resources = name("_CRS", &resources);
    device(
        to,
        "GED_",
        vec![&hid, &uid, &resources, &registers, &selector, &handler],
    );
    let (hid, uid) = (name("_HID", &EISAName::new("PNP0C0C")), name("_UID", &ZERO));
    device(to, "PWRB", vec![&hid, &uid]);
}

/// The selector's bit for the power button.
const POWER_BUTTON_EVENT: u8 = 1 << 1;
/// Notification of a press (ACPI 6.3, table 5-169).
const BUTTON_PRESSED: u8 = 0x80;

fn tpm_device(to: &mut Vec<u8>, tpm: &Tpm) {
    let memory = memory_fixed(tpm.registers);
    let resources = ResourceTemplate::new(vec![&memory]);
    // One ID for both interfaces: the TPM2 table tells them apart (TCG ACPI Specification 1.2, 8).
    let (hid, uid, sta) = (
        name("_HID", &"MSFT0101"),
        name("_UID", &ZERO),
        name("_STA", &0x0fu8),
    );
    device(
        to,
        "TPM0",
        vec![&hid, &uid, &sta, &name("_CRS", &resources)],
    );
}
