//! A guest's frames into a user network that lets nothing out, so that no fuzzer talks to anybody.
#![no_main]

use std::sync::Arc;
use std::time::Instant;

use dormer_network::user::{Config, Guest, Nat};
use dormer_network::{Accepts, Frame};
use libfuzzer_sys::fuzz_target;

struct Nobody;

impl Guest for Nobody {
    fn deliver(&self, frame: &Frame<'_>) -> bool {
        frame.length() % 3 != 0
    }

    fn accepts(&self) -> Accepts {
        Accepts::ALL
    }
}

fuzz_target!(|frames: Vec<Vec<u8>>| {
    let Ok(poller) = polling::Poller::new() else {
        return;
    };
    let config = Config {
        restricted: true,
        ..Config::default()
    };
    let now = Instant::now();
    let Ok(mut nat) = Nat::new(config, Arc::new(poller), &Nobody, now) else {
        return;
    };
    for frame in &frames {
        nat.frame(&Nobody, now, &Frame::plain(&[frame]));
        nat.flush(&Nobody, now);
        nat.resume(&Nobody, now);
    }
    let usage = nat.usage();
    assert!(usage.connections == 0 && usage.udp_flows == 0);
});
