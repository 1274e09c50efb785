//! A monitor on standard input and output.

use std::io::{self, Read, Write};

use console::serial::RawTerminal;
use machine::control::Handle;

use super::Session;

/// Standard input and output, claimed for a monitor.
pub struct Terminal(Option<RawTerminal>);

impl Terminal {
    /// Keys come as they are typed from now on, if it is a terminal; Ctrl-C still ends the program.
    ///
    /// # Errors
    /// Of the host's.
    pub fn claim() -> io::Result<Terminal> {
        RawTerminal::new(io::stdin(), true).map(Terminal)
    }

    /// Serves whoever types, on a thread of its own.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn serve(&self, machine: &Handle) -> io::Result<()> {
        let mut session = Session::new(machine, self.0.is_some());
        std::thread::Builder::new()
            .name("monitor".into())
            .spawn(move || {
                // The program ends without it.
                let _ = talk(&mut session);
            })
            .map(drop)
    }
}

fn talk(session: &mut Session) -> io::Result<()> {
    let show = |bytes: &[u8]| {
        let mut output = io::stdout().lock();
        output.write_all(bytes).and_then(|()| output.flush())
    };
    show(&session.greeting())?;
    let mut chunk = [0; 4096];
    loop {
        let count = io::stdin().lock().read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        show(&session.typed(&chunk[..count]))?;
    }
}
