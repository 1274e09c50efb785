//! Names of objects and elements, as `bcdedit` prints them ("BCD Elements", "BcdLibraryElementTypes",
//! "BcdBootMgrElementTypes", "BcdOSLoaderElementTypes", "BcdDeviceObjectElementTypes", Microsoft).

pub(super) const DEFAULT: u32 = 0x2300_0003;
pub(super) const DISPLAY_ORDER: u32 = 0x2400_0001;

/// Well-known objects.
const OBJECTS: &[(&str, &str)] = &[
    ("{9dea862c-5cdd-4e70-acc1-f32b344d4795}", "{bootmgr}"),
    ("{a5a30fa2-3d06-4e9f-b5f4-a01df9d1fcba}", "{fwbootmgr}"),
    ("{b2721d73-1db4-4c62-bf78-c548a880142d}", "{memdiag}"),
    ("{7ea2e1ac-2e61-4728-aaa3-896d9d0a9f0e}", "{globalsettings}"),
    (
        "{6efb52bf-1766-41db-a6b3-0ee5eff72bd7}",
        "{bootloadersettings}",
    ),
    (
        "{1afa9c49-16ab-4a5c-901b-212802da9460}",
        "{resumeloadersettings}",
    ),
    ("{4636856e-540f-4170-a130-a84776f4c654}", "{dbgsettings}"),
    ("{0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9}", "{emssettings}"),
    ("{5189b25c-5558-4bf2-bca4-289b11bd29e2}", "{badmemory}"),
    (
        "{7ff607e0-4395-11db-b0de-0800200c9a66}",
        "{hypervisorsettings}",
    ),
    ("{ae5534e0-a924-466c-b836-758539a3ee3a}", "{ramdiskoptions}"),
    ("{466f5a88-0af2-4f76-9038-095b170dc21c}", "{ntldr}"),
    ("{fa926493-6f1c-4193-a414-58f0b2456d1e}", "{current}"),
];

pub(super) fn alias(id: &str) -> Option<&'static str> {
    OBJECTS
        .iter()
        .find(|(guid, _)| guid.eq_ignore_ascii_case(id))
        .map(|(_, name)| *name)
}

/// What an object of a type is.
pub(super) fn object(kind: u32) -> &'static str {
    match kind {
        0x1010_0001 => "firmware boot manager",
        0x1010_0002 => "Windows boot manager",
        0x1020_0003 => "Windows loader",
        0x1020_0004 => "resume from hibernation",
        0x1020_0005 => "memory test",
        0x1030_0006 => "legacy Windows loader",
        0x1040_0008 => "boot sector",
        0x1040_0009 => "startup module",
        _ => match kind >> 28 {
            1 => "application",
            2 => "inherited settings",
            3 => "device options",
            _ => "object",
        },
    }
}

/// Elements of every object.
const LIBRARY: &[(u32, &str)] = &[
    (0x1100_0001, "device"),
    (0x1200_0002, "path"),
    (0x1200_0004, "description"),
    (0x1200_0005, "locale"),
    (0x1400_0006, "inherit"),
    (0x1500_0007, "truncatememory"),
    (0x1400_0008, "recoverysequence"),
    (0x1600_0009, "recoveryenabled"),
    (0x1700_000A, "badmemorylist"),
    (0x1600_000B, "badmemoryaccess"),
    (0x1500_000C, "firstmegabytepolicy"),
    (0x1500_000D, "relocatephysical"),
    (0x1500_000E, "avoidlowmemory"),
    (0x1600_0010, "bootdebug"),
    (0x1500_0011, "debugtype"),
    (0x1500_0012, "debugaddress"),
    (0x1500_0013, "debugport"),
    (0x1500_0014, "baudrate"),
    (0x1500_0015, "channel"),
    (0x1200_0016, "targetname"),
    (0x1600_0017, "noumex"),
    (0x1500_0018, "debugstart"),
    (0x1600_0020, "bootems"),
    (0x1500_0022, "emsport"),
    (0x1500_0023, "emsbaudrate"),
    (0x1200_0030, "loadoptions"),
    (0x1600_0040, "advancedoptions"),
    (0x1600_0041, "optionsedit"),
    (0x1100_0043, "bsdlogdevice"),
    (0x1200_0044, "bsdlogpath"),
    (0x1600_0045, "preservebsdlog"),
    (0x1600_0046, "graphicsmodedisabled"),
    (0x1500_0047, "configaccesspolicy"),
    (0x1600_0048, "nointegritychecks"),
    (0x1600_0049, "testsigning"),
    (0x1200_004A, "fontpath"),
    (0x1500_004B, "integrityservices"),
    (0x1500_0052, "graphicsresolution"),
    (0x1600_0053, "restartonfailure"),
    (0x1600_0054, "highestmode"),
    (0x1600_0060, "isolatedcontext"),
    (0x1500_0065, "displaymessage"),
    (0x1600_006C, "bootuxdisabled"),
];

const MANAGER: &[(u32, &str)] = &[
    (0x2400_0001, "displayorder"),
    (0x2400_0002, "bootsequence"),
    (0x2300_0003, "default"),
    (0x2500_0004, "timeout"),
    (0x2600_0005, "resume"),
    (0x2300_0006, "resumeobject"),
    (0x2400_0010, "toolsdisplayorder"),
    (0x2600_0020, "displaybootmenu"),
    (0x2600_0021, "noerrordisplay"),
    (0x2100_0022, "bcddevice"),
    (0x2200_0023, "bcdfilepath"),
    (0x2600_0025, "hormenabled"),
    (0x2700_0030, "customactions"),
];

const LOADER: &[(u32, &str)] = &[
    (0x2100_0001, "osdevice"),
    (0x2200_0002, "systemroot"),
    (0x2300_0003, "resumeobject"),
    (0x2600_0004, "stampdisks"),
    (0x2600_0010, "detecthal"),
    (0x2200_0011, "kernel"),
    (0x2200_0012, "hal"),
    (0x2200_0013, "dbgtransport"),
    (0x2500_0020, "nx"),
    (0x2500_0021, "pae"),
    (0x2600_0022, "winpe"),
    (0x2600_0024, "nocrashautoreboot"),
    (0x2600_0025, "lastknowngood"),
    (0x2600_0026, "oslnointegritychecks"),
    (0x2600_0027, "osltestsigning"),
    (0x2600_0030, "nolowmem"),
    (0x2500_0031, "removememory"),
    (0x2500_0032, "increaseuserva"),
    (0x2600_0040, "vga"),
    (0x2600_0041, "quietboot"),
    (0x2600_0042, "novesa"),
    (0x2500_0050, "clustermodeaddressing"),
    (0x2600_0051, "usephysicaldestination"),
    (0x2500_0060, "numproc"),
    (0x2500_0061, "numproc"),
    (0x2600_0062, "maxproc"),
    (0x2500_0063, "configflags"),
    (0x2600_0070, "usefirmwarepcisettings"),
    (0x2500_0071, "msi"),
    (0x2500_0080, "safeboot"),
    (0x2600_0081, "safebootalternateshell"),
    (0x2600_0090, "bootlog"),
    (0x2600_0091, "sos"),
    (0x2600_00A0, "debug"),
    (0x2600_00A1, "halbreakpoint"),
    (0x2600_00A2, "useplatformclock"),
    (0x2600_00B0, "ems"),
    (0x2500_00C0, "forcefailure"),
    (0x2500_00C1, "driverloadfailurepolicy"),
    (0x2500_00C2, "bootmenupolicy"),
    (0x2600_00C3, "onetimeadvancedoptions"),
    (0x2500_00E0, "bootstatuspolicy"),
    (0x2600_00E1, "disableelamdrivers"),
    (0x2500_00F0, "hypervisorlaunchtype"),
];

const DEVICE: &[(u32, &str)] = &[
    (0x3500_0001, "ramdiskimageoffset"),
    (0x3500_0002, "ramdisktftpclientport"),
    (0x3100_0003, "ramdisksdidevice"),
    (0x3200_0004, "ramdisksdipath"),
    (0x3500_0005, "ramdiskimagelength"),
    (0x3600_0006, "exportascd"),
    (0x3500_0007, "ramdisktftpblocksize"),
    (0x3500_0008, "ramdisktftpwindowsize"),
];

/// The name of an element of an object of a type.
pub(super) fn element(id: u32, object: u32) -> Option<&'static str> {
    let table = match id >> 28 {
        1 => LIBRARY,
        2 => match object & 0xFFFFF {
            1 | 2 => MANAGER,
            _ => LOADER,
        },
        3 => DEVICE,
        _ => return None,
    };
    table
        .iter()
        .find(|(number, _)| *number == id)
        .map(|(_, name)| *name)
}
