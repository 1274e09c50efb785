//! A monitor for a client of a socket.

use std::io::{Read, Write};

use crossbeam_channel::{bounded, never, select};
use machine::control::Handle;

use super::Session;
use super::telnet::{OFFER, Telnet};
use crate::servers::Stream;

/// Serves a client until it hangs up or the machine has ended.
pub fn run(mut stream: Stream, telnet: bool, machine: &Handle) {
    let Ok(other) = stream.try_clone() else {
        return;
    };
    // Nothing more is read once the machine has ended: the client is let go.
    let (done, gone) = bounded::<()>(0);
    let events = machine.events();
    let watching = std::thread::Builder::new()
        .name("monitor end".into())
        .spawn(move || {
            let mut events = events;
            loop {
                select! {
                    recv(events) -> event => if event.is_err() {
                        other.close_reading();
                        events = never();
                    },
                    recv(gone) -> _ => return,
                }
            }
        });
    if watching.is_ok() {
        talk(&mut stream, telnet, machine);
    }
    drop(done);
    stream.close();
}

fn talk(stream: &mut Stream, telnet: bool, machine: &Handle) {
    // A telnet program shows what it is told to; others show what they send, or are programs.
    let mut session = Session::new(machine, telnet);
    let mut negotiation = telnet.then(Telnet::default);
    let mut shown = if telnet { OFFER.to_vec() } else { Vec::new() };
    shown.extend(session.greeting());
    let mut chunk = [0; 4096];
    loop {
        if stream.write_all(&shown).is_err() {
            return;
        }
        let count = match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        shown = Vec::new();
        match &mut negotiation {
            None => shown.extend(session.typed(&chunk[..count])),
            Some(telnet) => {
                let typed: Vec<u8> = chunk[..count]
                    .iter()
                    .filter_map(|byte| telnet.feed(*byte, &mut shown))
                    .collect();
                shown.extend(session.typed(&typed));
            }
        }
    }
}
