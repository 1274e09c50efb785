//! A monitor on the other side of a terminal that the serial line has, by Ctrl-A c.

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use console::serial::OtherSide;
use machine::control::Handle;

use super::Session;

/// The other side.
pub struct Mux {
    /// Filled once the machine runs.
    running: Arc<OnceLock<Handle>>,
    session: Option<Session>,
}

impl Mux {
    pub fn new(running: Arc<OnceLock<Handle>>) -> Mux {
        Mux {
            running,
            session: None,
        }
    }
}

impl OtherSide for Mux {
    fn enter(&mut self) -> Vec<u8> {
        if let Some(session) = &mut self.session {
            return session.again();
        }
        match self.running.get() {
            Some(machine) => {
                let session = Session::new(machine, std::io::stdin().is_terminal());
                self.session.insert(session).greeting()
            }
            None => b"\r\nthe machine is not there yet\r\n".to_vec(),
        }
    }

    fn typed(&mut self, bytes: &[u8]) -> Vec<u8> {
        match &mut self.session {
            Some(session) => session.typed(bytes),
            None => Vec::new(),
        }
    }
}
