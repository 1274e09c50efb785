//! Accesses to a TPM's registers, through both interfaces.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use dormer_device::{Access, Device, Mmio};
use dormer_tpm::{Backend, BackendError, crb, tis};
use libfuzzer_sys::fuzz_target;

/// Answers every command with itself.
struct Echo;

impl Backend for Echo {
    fn execute(&self, _: u8, command: &[u8]) -> Result<Vec<u8>, BackendError> {
        Ok(command.to_vec())
    }

    fn cancel(&self) {}

    fn reset(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn established(&self) -> bool {
        false
    }

    fn reset_established(&self, _: u8) {}

    fn shut_down(&self) {}
}

#[derive(Arbitrary, Debug)]
struct One {
    offset: u16,
    width: u8,
    write: Option<u64>,
}

fuzz_target!(|accesses: Vec<One>| {
    let config = crb::Config {
        name: "crb".into(),
        base: 0x0c00_0000,
    };
    let crb = crb::Crb::new(config, Arc::new(Echo)).unwrap();
    let tis = tis::Tis::new(tis::Config { name: "tis".into() }, Arc::new(Echo)).unwrap();
    for One {
        offset,
        width,
        write,
    } in accesses
    {
        let access = Access::new(u64::from(offset) % dormer_tpm::SIZE, 1 << (width % 4));
        for device in [&*crb as &dyn Mmio, &*tis] {
            match write {
                Some(value) => device.write(access, value),
                None => {
                    device.read(access);
                }
            }
        }
    }
    crb.reset();
    tis.reset();
});
