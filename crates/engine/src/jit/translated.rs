//! Processors that execute generated code.

use cpu::{Interpreter, World};
use jit::{HostFeatures, Options, Translator};

use super::Executor;
use crate::{Config, Error, Translation};

/// What the translator cannot do without.
const NEEDED: [&str; 5] = ["avx2", "bmi1", "bmi2", "abm", "sse4_2"];

/// The translator's options out of the engine's.
pub fn options(config: &Config) -> Result<Options, Error> {
    let mut features = HostFeatures::detect();
    for name in &config.translation.masked {
        if !features.mask(name) && !NEEDED.contains(&name.as_str()) {
            return Err(Error::Unavailable(format!(
                "the translator uses no host feature called {name}"
            )));
        }
    }
    Ok(Options {
        cache: config.translation.cache_of_each(config.mpidrs.len()),
        features,
        hot: config.translation.hot(),
    })
}

/// Whether this host, less what is masked, has what generated code needs.
pub fn has_back_end(translation: &Translation) -> bool {
    HostFeatures::is_enough()
        && !translation
            .masked
            .iter()
            .any(|name| NEEDED.contains(&name.as_str()))
}

impl Executor for Translator {
    fn run(&mut self, world: &dyn World) -> cpu::Exit {
        Translator::run(self, world)
    }

    fn interpreter(&self) -> &Interpreter {
        Translator::interpreter(self)
    }

    fn interpreter_mut(&mut self) -> &mut Interpreter {
        Translator::interpreter_mut(self)
    }
}
