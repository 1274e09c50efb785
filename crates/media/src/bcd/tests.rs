use super::*;

const SETUP: &str = "{7619dcc9-fafe-11d9-b411-000476eba25f}";
const OPTIONS: &str = "{7619dcc8-fafe-11d9-b411-000476eba25f}";
const MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";

#[test]
fn what_is_written_is_read() {
    let mut hive = Store::create().unwrap();
    Store::set_object(&mut hive, MANAGER, 0x1010_0002).unwrap();
    Store::set_object(&mut hive, SETUP, 0x1020_0003).unwrap();
    let mut set =
        |id: &str, element, value| Store::set_element(&mut hive, id, element, &value).unwrap();
    set(MANAGER, DEFAULT_ELEMENT, Setting::Object(SETUP.into()));
    set(MANAGER, 0x2500_0004, Setting::Integer(30));
    set(MANAGER, 0x2400_0001, Setting::Objects(vec![SETUP.into()]));
    let ram_disk = Device::ram_disk("\\sources\\boot.wim", OPTIONS);
    set(SETUP, 0x1100_0001, Setting::Device(ram_disk.clone()));
    set(SETUP, 0x2600_0022, Setting::Boolean(true));
    set(
        SETUP,
        0x1200_0002,
        Setting::Text("\\windows\\system32\\boot\\winload.efi".into()),
    );
    assert!(Store::set_element(&mut hive, SETUP, 0x2600_0022, &Setting::Integer(1)).is_err());
    let hive = Hive::open(hive.into_bytes()).unwrap();
    assert!(Store::probe(&hive).unwrap());
    let store = Store::read(&hive).unwrap();
    let entry = store.default().unwrap();
    assert_eq!(entry.kind_name, "Windows loader");
    assert_eq!(entry.named("device"), Some(&Setting::Device(ram_disk)));
    assert_eq!(
        entry.named("device").unwrap().to_string(),
        format!("ramdisk=[boot]\\sources\\boot.wim,{OPTIONS}")
    );
    assert_eq!(entry.named("winpe").unwrap().to_string(), "yes");
    assert_eq!(
        store.boot_manager().unwrap().named("timeout"),
        Some(&Setting::Integer(30))
    );
}

const DEFAULT_ELEMENT: u32 = super::names::DEFAULT;

#[test]
fn guids() {
    let bytes = device::parse_guid(MANAGER).unwrap();
    assert_eq!(bytes[..4], [0x2C, 0x86, 0xEA, 0x9D]);
    assert_eq!(device::guid(&bytes), MANAGER);
}
