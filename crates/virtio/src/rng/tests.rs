use std::sync::Arc;

use device::Clock;

use super::{Rng, RngConfig};
use crate::PciOptions;
use crate::spec::feature;
use crate::testing::{BUFFERS, Buffer, Rig};

fn rig(config: RngConfig, clock: &Clock) -> Rig {
    let rng = Rng::new("rng", config, clock).unwrap();
    let mut rig = Rig::new(Arc::new(rng), &PciOptions::default());
    assert!(rig.negotiate(feature::VERSION_1));
    rig.go(8);
    rig
}

fn ask(rig: &mut Rig, length: u32) {
    rig.submit(
        0,
        0,
        &[Buffer {
            address: BUFFERS,
            length,
            writable: true,
        }],
    );
    rig.notify(0);
}

#[test]
fn gives_random_numbers() {
    let mut rig = rig(RngConfig::default(), &Clock::new());
    assert_eq!(rig.config(0, 4), 0x1005_1af4);
    assert_eq!(rig.config(8, 4), 0x00ff_0000);
    assert_eq!(rig.config(0x2c, 4), 0x0004_1af4);
    ask(&mut rig, 64);
    assert_eq!(rig.wait(0), (0, 64));
    let mut bytes = [0; 65];
    rig.dma.read(BUFFERS, &mut bytes).unwrap();
    assert_ne!(bytes[..32], bytes[32..64]);
    assert_eq!(bytes[64], 0);
    ask(&mut rig, 1 << 20);
    assert_eq!(rig.wait(0), (0, 4096));
}

#[test]
fn keeps_to_its_quota() {
    let clock = Clock::new();
    let mut rig = rig(
        RngConfig {
            max_bytes: Some(100),
            period: 200,
        },
        &clock,
    );
    ask(&mut rig, 64);
    assert_eq!(rig.wait(0).1, 64);
    ask(&mut rig, 64);
    assert_eq!(rig.wait(0).1, 36);
    let before = clock.now();
    ask(&mut rig, 64);
    assert_eq!(rig.wait(0).1, 64);
    assert!(
        clock.now() - before > 50_000_000,
        "had to wait for the next period"
    );
    assert!(
        Rng::new(
            "rng",
            RngConfig {
                max_bytes: Some(0),
                period: 1
            },
            &clock
        )
        .is_err()
    );
}
