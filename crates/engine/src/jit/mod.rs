//! Dormer's own engine: guest code by the interpreter of `dormer-cpu`.

use std::sync::Arc;

use crate::{Config, Engine, Error, Vm};

/// The engine.
pub struct Jit;

impl Engine for Jit {
    fn name(&self) -> &'static str {
        "jit"
    }

    fn create(&self, config: Config) -> Result<Arc<dyn Vm>, Error> {
        let _ = config;
        Err(Error::Unavailable(
            "the interpreter is being written".into(),
        ))
    }
}
