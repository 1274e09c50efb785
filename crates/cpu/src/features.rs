//! What a processor implements, and the identification registers that say so (DDI 0487, D17.2.57 and on).
//!
//! Named models have the instruction set and identity of their technical reference manuals, less what Dormer does not
//! build: EL2, EL3, AArch32, mixed endianness, RAS, statistical profiling, trace. Their identification registers say so.

use aarch64::registers as r;
use aarch64::{Extension, Extensions};

/// Feature set of a processor, fixed when the machine is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// The model's name.
    pub name: &'static str,
    pub extensions: Extensions,
    /// Performance monitors (a cycle counter, no event counters) are there.
    pub pmu: bool,
    /// The interrupt controller's system registers are there: GICv3, not GICv2. The board says.
    pub gic_registers: bool,
    pub midr: u64,
    pub revidr: u64,
    /// ID_AA64MMFR0_EL1.PARange: 2 for 40 bits, 4 for 44, 5 for 48.
    pub pa_range: u8,
    /// 16 KiB pages.
    pub granule16: bool,
    /// ID_AA64MMFR1_EL1.HAFDBS: 1 hardware sets the access flag, 2 dirty state too.
    pub hafdbs: u8,
    /// TCR_EL1.HPD0, HPD1.
    pub hpds: bool,
    /// TCR_EL1.E0PD0, E0PD1.
    pub e0pd: bool,
    /// ID_AA64PFR0_EL1.CSV2, CSV3: branch predictions and faulting loads leak nothing.
    pub csv2: u8,
    pub csv3: u8,
    /// ID_AA64PFR1_EL1.SSBS.
    pub ssbs: u8,
    pub ctr: u64,
    pub clidr: u64,
    /// CCSIDR_EL1 by CSSELR_EL1.
    pub ccsidr: [u64; 4],
}

/// A model or property that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    #[error("unable to find CPU model '{0}'")]
    Model(String),
    #[error("the CPU model '{model}' has no property '{property}'")]
    Property {
        model: &'static str,
        property: String,
    },
}

/// The names of all models, the default first.
pub const MODELS: &[&str] = &[
    "max",
    "cortex-a57",
    "cortex-a72",
    "cortex-a76",
    "neoverse-n1",
];

const V8_0: Extensions = Extensions::NONE
    .with(Extension::Crc32)
    .with(Extension::Aes)
    .with(Extension::Pmull)
    .with(Extension::Sha1)
    .with(Extension::Sha256);

const V8_2: Extensions = V8_0
    .with(Extension::Lse)
    .with(Extension::Lor)
    .with(Extension::Pan)
    .with(Extension::Uao)
    .with(Extension::Rdm)
    .with(Extension::DotProd)
    .with(Extension::Fp16)
    .with(Extension::Rcpc)
    .with(Extension::DcPop);

/// log2 of bytes a line − 4, associativity − 1, sets − 1.
const fn ccsidr(ways: u64, kib: u64) -> u64 {
    let sets = kib * 1024 / 64 / ways;
    (sets - 1) << 13 | (ways - 1) << 3 | 2
}

impl Features {
    /// The model of that name.
    pub fn model(name: &str) -> Result<Features, FeatureError> {
        let v8_0 = Features {
            name: "cortex-a57",
            extensions: V8_0,
            pmu: true,
            gic_registers: true,
            midr: 0x411f_d070,
            revidr: 0,
            pa_range: 4,
            granule16: false,
            hafdbs: 0,
            hpds: false,
            e0pd: false,
            csv2: 0,
            csv3: 0,
            ssbs: 0,
            ctr: 0x8444_c004,
            clidr: 0x0a20_0023,
            ccsidr: [ccsidr(2, 32), ccsidr(3, 48), ccsidr(16, 2048), 0],
        };
        Ok(match name {
            "max" => Features {
                name: "max",
                extensions: V8_2
                    .with(Extension::PAuth)
                    .with(Extension::Sb)
                    .with(Extension::Ssbs)
                    .with(Extension::Dit),
                midr: 0x000f_0510,
                pa_range: 5,
                granule16: true,
                hafdbs: 2,
                hpds: true,
                e0pd: true,
                csv2: 1,
                csv3: 1,
                ssbs: 2,
                // IDC: data need not be cleaned for instruction fetches to see it.
                ctr: 0x9444_c004,
                clidr: 0x0200_0023,
                ..v8_0
            },
            "cortex-a57" => v8_0,
            "cortex-a72" => Features {
                name: "cortex-a72",
                midr: 0x410f_d083,
                ..v8_0
            },
            "cortex-a76" => Features {
                name: "cortex-a76",
                extensions: V8_2,
                midr: 0x414f_d0b1,
                pa_range: 2,
                granule16: true,
                hafdbs: 2,
                hpds: true,
                csv2: 1,
                csv3: 1,
                ssbs: 1,
                ccsidr: [ccsidr(4, 64), ccsidr(4, 64), ccsidr(8, 512), 0],
                ..v8_0
            },
            "neoverse-n1" => Features {
                name: "neoverse-n1",
                extensions: V8_2.with(Extension::Ssbs),
                midr: 0x414f_d0c1,
                pa_range: 5,
                granule16: true,
                hafdbs: 2,
                hpds: true,
                csv2: 1,
                csv3: 1,
                ssbs: 2,
                ccsidr: [ccsidr(4, 64), ccsidr(4, 64), ccsidr(8, 1024), 0],
                ..v8_0
            },
            _ => return Err(FeatureError::Model(name.to_string())),
        })
    }

    /// Turns a property of `-cpu model,property=on|off` on or off: `pauth` (of models that have it), `pmu`.
    pub fn set(&mut self, property: &str, on: bool) -> Result<(), FeatureError> {
        match property {
            "pmu" => self.pmu = on,
            "pauth" if self.name == "max" => {
                self.extensions = match on {
                    true => self.extensions.with(Extension::PAuth),
                    false => self.extensions.without(Extension::PAuth),
                }
            }
            _ => {
                let property = property.to_string();
                return Err(FeatureError::Property {
                    model: self.name,
                    property,
                });
            }
        }
        Ok(())
    }

    /// Whether it has an extension.
    pub fn has(&self, extension: Extension) -> bool {
        self.extensions.has(extension)
    }

    /// Bits of physical addresses.
    pub fn physical_bits(&self) -> u32 {
        [32, 36, 40, 42, 44, 48, 48, 48][usize::from(self.pa_range & 7)]
    }

    /// A register that says what the processor is, and always the same; `None` for others.
    pub fn fixed_register(&self, register: u16) -> Option<u64> {
        let (op0, op1, crn, crm, _) = r::fields(register);
        Some(match register {
            r::MIDR_EL1 => self.midr,
            r::REVIDR_EL1 => self.revidr,
            r::AIDR_EL1 | r::RVBAR_EL1 => 0,
            r::CTR_EL0 => self.ctr,
            r::CLIDR_EL1 => self.clidr,
            _ if op0 == 3 && op1 == 0 && crn == 0 && (1..=7).contains(&crm) => {
                self.id_register(register)
            }
            _ => return None,
        })
    }

    /// An identification register of `op0 = 3, op1 = 0, CRn = 0, CRm = 1 to 7`; what is not defined reads as zero.
    /// AArch32's are all zero: there is no AArch32.
    pub fn id_register(&self, register: u16) -> u64 {
        let has = |extension, value: u64, at: u32| {
            if self.has(extension) { value << at } else { 0 }
        };
        match register {
            r::ID_AA64PFR0_EL1 => {
                // FP and Advanced SIMD: 1 with half precision, 0 without.
                0x11 | has(Extension::Fp16, 0x11, 16)
                    | u64::from(self.gic_registers) << 24
                    | has(Extension::Dit, 1, 48)
                    | u64::from(self.csv2) << 56
                    | u64::from(self.csv3) << 60
            }
            r::ID_AA64PFR1_EL1 => u64::from(self.ssbs) << 4,
            // Debug architecture v8.0, 6 breakpoints (2 of them context-aware), 4 watchpoints, no double lock.
            r::ID_AA64DFR0_EL1 => {
                6 | u64::from(self.pmu) << 8 | 5 << 12 | 3 << 20 | 1 << 28 | 0xf << 36
            }
            r::ID_AA64ISAR0_EL1 => {
                let aes = if self.has(Extension::Pmull) { 2 } else { 1 };
                has(Extension::Aes, aes, 4)
                    | has(Extension::Sha1, 1, 8)
                    | has(Extension::Sha256, 1, 12)
                    | has(Extension::Crc32, 1, 16)
                    | has(Extension::Lse, 2, 20)
                    | has(Extension::Rdm, 1, 28)
                    | has(Extension::DotProd, 1, 44)
            }
            r::ID_AA64ISAR1_EL1 => {
                has(Extension::DcPop, 1, 0)
                    // API, GPI: an algorithm of our own.
                    | has(Extension::PAuth, 1, 8)
                    | has(Extension::JsCvt, 1, 12)
                    | has(Extension::Fcma, 1, 16)
                    | has(Extension::Rcpc, 1, 20)
                    | has(Extension::PAuth, 1, 28)
                    | has(Extension::Sb, 1, 36)
            }
            // 16-bit ASIDs; 4 and 64 KiB granules; little endian only.
            r::ID_AA64MMFR0_EL1 => {
                u64::from(self.pa_range) | 2 << 4 | u64::from(self.granule16) << 20
            }
            r::ID_AA64MMFR1_EL1 => {
                u64::from(self.hafdbs)
                    | u64::from(self.hpds) << 12
                    | has(Extension::Lor, 1, 16)
                    | has(Extension::Pan, 2, 20)
            }
            r::ID_AA64MMFR2_EL1 => has(Extension::Uao, 1, 4) | u64::from(self.e0pd) << 60,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_say_what_is_there() {
        let max = Features::model("max").unwrap();
        // EL1 and EL0 in AArch64 only, FP16, GIC registers, no EL2, EL3, SVE.
        assert_eq!(max.id_register(r::ID_AA64PFR0_EL1), 0x1101_0000_0111_0011);
        assert_eq!(max.id_register(r::ID_AA64ISAR0_EL1), 0x0000_1000_1021_1120);
        assert_eq!(max.id_register(r::ID_AA64ISAR1_EL1), 0x0000_0010_1010_0101);
        assert_eq!(max.id_register(r::ID_AA64MMFR0_EL1), 0x0010_0025);
        assert_eq!(max.id_register(r::ID_AA64ZFR0_EL1), 0);
        let a57 = Features::model("cortex-a57").unwrap();
        // The manual's 0x11120.
        assert_eq!(a57.id_register(r::ID_AA64ISAR0_EL1), 0x1_1120);
        assert_eq!(a57.id_register(r::ID_AA64MMFR1_EL1), 0);
    }

    #[test]
    fn properties_change_them() {
        let mut max = Features::model("max").unwrap();
        max.set("pauth", false).unwrap();
        max.set("pmu", false).unwrap();
        assert_eq!(max.id_register(r::ID_AA64ISAR1_EL1), 0x0000_0010_0010_0001);
        assert_eq!(max.id_register(r::ID_AA64DFR0_EL1) >> 8 & 0xf, 0);
        assert!(max.set("sve", true).is_err());
        assert!(
            Features::model("cortex-a57")
                .unwrap()
                .set("pauth", true)
                .is_err()
        );
        assert!(MODELS.iter().all(|m| Features::model(m).is_ok()));
        assert_eq!(
            Features::model("pentium"),
            Err(FeatureError::Model("pentium".into()))
        );
    }
}
