//! Identification registers: the host's, less what the guest does not get.

use aarch64::Extension;
use aarch64::registers as r;
use cpu::Features;

use super::framework::{Framework, Handle, Refusal};

/// A field of a register that the guest gets as we say.
struct Field {
    register: u16,
    name: &'static str,
    shift: u32,
    value: u64,
}

/// What is set, whatever the host has.
fn fields(features: &Features, ipa_size: u32) -> Vec<Field> {
    let field = |register, name, shift, value| Field {
        register,
        name,
        shift,
        value,
    };
    let range = match ipa_size {
        0..36 => 0,
        36..40 => 1,
        40..42 => 2,
        42..44 => 3,
        44..48 => 4,
        _ => 5,
    };
    let mut fields = vec![
        field(r::ID_AA64PFR0_EL1, "EL2", 8, 0),
        field(r::ID_AA64PFR0_EL1, "EL3", 12, 0),
        field(r::ID_AA64PFR0_EL1, "GIC", 24, features.gic_registers.into()),
        // No RAS errors are reported, no scalable vectors, no activity monitors, no realms.
        field(r::ID_AA64PFR0_EL1, "SVE", 32, 0),
        field(r::ID_AA64PFR0_EL1, "AMU", 44, 0),
        field(r::ID_AA64PFR0_EL1, "RME", 52, 0),
        field(r::ID_AA64PFR1_EL1, "MTE", 8, 0),
        field(r::ID_AA64PFR1_EL1, "SME", 24, 0),
        field(r::ID_AA64ISAR0_EL1, "RNDR", 60, 0),
        field(r::ID_AA64MMFR0_EL1, "PARange", 0, range),
        field(r::ID_AA64MMFR2_EL1, "CnP", 0, 0),
        field(r::ID_AA64MMFR2_EL1, "NV", 24, 0),
        // The cycle counter that we answer for.
        field(r::ID_AA64DFR0_EL1, "PMUVer", 8, features.pmu.into()),
        field(r::ID_AA64DFR0_EL1, "TraceVer", 4, 0),
        field(r::ID_AA64DFR0_EL1, "PMSVer", 32, 0),
        field(r::ID_AA64DFR0_EL1, "BRPs", 12, 5),
        field(r::ID_AA64DFR0_EL1, "WRPs", 20, 3),
    ];
    if !features.has(Extension::PAuth) {
        for (name, shift) in [("APA", 4), ("API", 8), ("GPA", 24), ("GPI", 28)] {
            fields.push(field(r::ID_AA64ISAR1_EL1, name, shift, 0));
        }
    }
    fields
}

/// Sets the registers and reads them back: what the host did not take is in the answer, by name.
pub fn set(
    f: &dyn Framework,
    vcpu: Handle,
    features: &Features,
    ipa_size: u32,
) -> Result<Vec<&'static str>, Refusal> {
    let fields = fields(features, ipa_size);
    let mut registers: Vec<u16> = fields.iter().map(|field| field.register).collect();
    registers.dedup();
    let mut refused = Vec::new();
    for register in registers {
        let of_it = || fields.iter().filter(|field| field.register == register);
        let has = f.get_sys_reg(vcpu, register)?;
        let wanted = of_it().fold(has, |value, field| {
            let now = value >> field.shift & 0xf;
            // Never more than the host has, but for what is ours to give.
            let ours = matches!(field.name, "GIC" | "PMUVer");
            let new = if ours {
                field.value
            } else {
                field.value.min(now)
            };
            value & !(0xf << field.shift) | new << field.shift
        });
        if wanted == has {
            continue;
        }
        // A refusal shows when it is read back.
        if let Err(refusal) = f.set_sys_reg(vcpu, register, wanted) {
            tracing::debug!(register = r::name(register), %refusal, "not set");
        }
        let got = f.get_sys_reg(vcpu, register)?;
        for field in of_it() {
            if (got ^ wanted) >> field.shift & 0xf != 0 {
                refused.push(field.name);
            }
        }
    }
    Ok(refused)
}
