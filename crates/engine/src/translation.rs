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
}

impl FromStr for Tier {
    type Err = Error;

    fn from_str(name: &str) -> Result<Tier, Error> {
        match name {
            "auto" => Ok(Tier::Auto),
            "interpreter" => Ok(Tier::Interpreter),
            "baseline" => Ok(Tier::Baseline),
            "optimizing" => Err(Error::Unavailable(
                "the optimizing tier is not built yet".into(),
            )),
            _ => Err(Error::Unavailable(format!(
                "no tier is called {name}: auto, interpreter and baseline are"
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
    /// Host processor features to do without, by their names in /proc/cpuinfo.
    pub masked: Vec<String>,
}

/// Bytes of generated code that a processor keeps if nothing else was said.
const DEFAULT_CACHE: u64 = 32 << 20;

impl Translation {
    /// Bytes of generated code for each of so many processors.
    pub fn cache_of_each(&self, processors: usize) -> usize {
        let each = match self.cache {
            Some(all) => all / processors.max(1) as u64,
            None => DEFAULT_CACHE,
        };
        usize::try_from(each).unwrap_or(usize::MAX)
    }
}
