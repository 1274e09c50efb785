//! What lets Windows Setup go on without some of the hardware it asks for.

use crate::error::{Error, Result};
use crate::hive::Hive;

/// Values of `Setup\LabConfig` that switch off one check each.
pub const CHECKS: [&str; 5] = [
    "BypassTPMCheck",
    "BypassSecureBootCheck",
    "BypassRAMCheck",
    "BypassCPUCheck",
    "BypassStorageCheck",
];

/// Sets the values in an offline `SYSTEM` hive, such as `Windows\System32\config\SYSTEM` of `boot.wim`.
pub fn bypass(system: &mut Hive, checks: &[&str]) -> Result<()> {
    if system.find("ControlSet001")?.is_none() && system.find("Setup")?.is_none() {
        return Err(Error::Unsupported(
            "this hive is no SYSTEM: it has neither ControlSet001 nor Setup".into(),
        ));
    }
    let key = system.make("Setup\\LabConfig")?;
    for check in checks {
        system.set_number(&key, check, 1)?;
    }
    Ok(())
}
