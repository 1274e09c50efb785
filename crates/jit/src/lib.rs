//! The translator: A64 code to host code. Absent on hosts that it has no back end for.
//!
//! - [`x64`] is the back end for x86-64: an assembler, the emitter that instruction semantics are run on, the code cache, and
//!   the processor that executes out of it.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod counters;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod perf;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod x64;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use counters::Counters;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use perf::PerfMap;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use x64::{HostFeatures, Translator};

/// How code is generated.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of generated code that a processor keeps, at most.
    pub cache: usize,
    pub features: HostFeatures,
    /// How often code is executed by the interpreter before it is translated.
    pub warm: u8,
    /// Jumps back that are taken before the loop that they close is made anew with more care; `None`: none is.
    pub hot: Option<u32>,
    /// Where code is told to `perf`.
    pub perf_map: Option<std::sync::Arc<PerfMap>>,
}
