//! Processors that execute generated code.

use std::sync::Arc;

use cpu::{Interpreter, World};
use jit::{HostFeatures, Options, PerfMap, Translator};
use parking_lot::Mutex;

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
    let perf_map = if config.translation.perf_map {
        Some(perf_map()?)
    } else {
        None
    };
    Ok(Options {
        cache: config.translation.cache_of_each(config.mpidrs.len()),
        features,
        warm: config.translation.warm(),
        hot: config.translation.hot(),
        perf_map,
    })
}

/// The process's map for `perf`.
fn perf_map() -> Result<Arc<PerfMap>, Error> {
    static MAP: Mutex<Option<Arc<PerfMap>>> = Mutex::new(None);
    let mut map = MAP.lock();
    if let Some(map) = &*map {
        return Ok(map.clone());
    }
    let new = PerfMap::create().map_err(|error| {
        let path = PerfMap::path();
        Error::Host(format!("{}: {error}", path.display()))
    })?;
    Ok(map.insert(Arc::new(new)).clone())
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

    fn report(&mut self) -> Option<String> {
        Some(self.counters().to_string())
    }
}
