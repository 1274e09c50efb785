//! What the host's processor has beside the x86-64 that the translator needs.

/// Extensions that code is made for if they are there, and for which there is another way if not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFeatures {
    pub aes: bool,
    pub sha: bool,
    pub pclmul: bool,
    pub fma: bool,
    pub f16c: bool,
}

impl HostFeatures {
    /// Of this host.
    pub fn detect() -> HostFeatures {
        HostFeatures {
            aes: std::arch::is_x86_feature_detected!("aes"),
            sha: std::arch::is_x86_feature_detected!("sha"),
            pclmul: std::arch::is_x86_feature_detected!("pclmulqdq"),
            fma: std::arch::is_x86_feature_detected!("fma"),
            f16c: std::arch::is_x86_feature_detected!("f16c"),
        }
    }

    /// Whether this host has what the translator cannot do without: AVX2, BMI1 and 2, LZCNT, SSE4.2.
    pub fn is_enough() -> bool {
        std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("lzcnt")
            && std::arch::is_x86_feature_detected!("sse4.2")
    }

    /// Does without a feature, by its name in /proc/cpuinfo; whether there is such a name.
    pub fn mask(&mut self, name: &str) -> bool {
        let feature = match name {
            "aes" => &mut self.aes,
            "sha_ni" => &mut self.sha,
            "pclmulqdq" => &mut self.pclmul,
            "fma" => &mut self.fma,
            "f16c" => &mut self.f16c,
            _ => return false,
        };
        *feature = false;
        true
    }
}
