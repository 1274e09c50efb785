//! How the `jit` engine is to generate code.

use std::str::FromStr;

use crate::Error;

/// What runs guest code in the `jit` engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// The best that this host has.
    #[default]
    Auto,
    /// Instruction by instruction.
    Interpreter,
    /// Generated code, each block in one pass.
    Baseline,
    /// The same, and loops that are taken often made anew, with registers kept over them.
    Optimizing,
}

impl FromStr for Tier {
    type Err = Error;

    fn from_str(name: &str) -> Result<Tier, Error> {
        match name {
            "auto" => Ok(Tier::Auto),
            "interpreter" => Ok(Tier::Interpreter),
            "baseline" => Ok(Tier::Baseline),
            "optimizing" => Ok(Tier::Optimizing),
            _ => Err(Error::Unavailable(format!(
                "no tier is called {name}: auto, interpreter, baseline and optimizing are"
            ))),
        }
    }
}

/// Options of code generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    pub tier: Tier,
    /// Bytes of generated code that all processors keep, at most. `None`: 32 MiB each.
    pub cache: Option<u64>,
    /// How often code is executed by the interpreter before code is generated for it. `None`: six times, or never where a tier
    /// is asked for.
    pub warm: Option<u8>,
    /// How often a jump back is taken before its loop is made anew by the optimizing tier. `None`: 64 times.
    pub hot: Option<u32>,
    /// Host processor features to do without, by their names in /proc/cpuinfo.
    pub masked: Vec<String>,
    /// Tell `perf` where code is, by `/tmp/perf-PID.map`.
    pub perf_map: bool,
}

/// How often code is executed by the interpreter before code is generated for it, if nothing else was said: that costs as
/// much as some twenty executions.
const DEFAULT_WARM: u8 = 6;

/// How often a jump back is taken before its loop is made anew, if nothing else was said: making it costs about as much.
const DEFAULT_HOT: u32 = 64;

/// Bytes of generated code that a processor keeps if nothing else was said.
const DEFAULT_CACHE: u64 = 32 << 20;

impl Translation {
    /// How often code is executed by the interpreter before code is generated for it.
    pub fn warm(&self) -> u8 {
        self.warm.unwrap_or(match self.tier {
            Tier::Auto => DEFAULT_WARM,
            Tier::Interpreter | Tier::Baseline | Tier::Optimizing => 0,
        })
    }

    /// How often a jump back is taken before its loop is made anew; `None`: never.
    pub fn hot(&self) -> Option<u32> {
        match self.tier {
            Tier::Interpreter | Tier::Baseline => None,
            Tier::Auto | Tier::Optimizing => Some(self.hot.unwrap_or(DEFAULT_HOT)),
        }
    }

    /// Bytes of generated code for each of so many processors.
    pub fn cache_of_each(&self, processors: usize) -> usize {
        let each = match self.cache {
            Some(all) => all / processors.max(1) as u64,
            None => DEFAULT_CACHE,
        };
        usize::try_from(each).unwrap_or(usize::MAX)
    }
}
