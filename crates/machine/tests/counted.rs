//! Counted instructions are `jit`'s alone.

use std::sync::Arc;

use dormer_machine::Board;
use dormer_machine::description::{Description, Icount};
use engine::{AddressBits, Config, Engine, Error, Vm};

/// Another engine.
struct Other;

impl Engine for Other {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn address_bits(&self) -> AddressBits {
        AddressBits {
            most: 48,
            preferred: 48,
        }
    }

    fn create(&self, _: Config) -> Result<Arc<dyn Vm>, Error> {
        Err(Error::Unavailable("it was asked".into()))
    }
}

struct Silence;

impl device::serial::SerialOutput for Silence {
    fn write(&self, _: &[u8]) {}
}

#[test]
fn other_engines_are_not_asked_to_count() {
    let build = |icount| {
        let description = Description {
            icount,
            ..Description::default()
        };
        let board = Board::build_on(&Other, &description, Arc::new(Silence));
        board.err().unwrap().to_string()
    };
    let icount = Icount {
        shift: 3,
        sleep: true,
    };
    assert_eq!(build(Some(icount)), "-icount needs -accel jit");
    assert_eq!(build(None), "it was asked");
}
