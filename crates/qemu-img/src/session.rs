//! Where a command's words go, and how it is interrupted.

use parking_lot::Mutex;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use storage::OpenError;
use storage::format::{FormatError, Result};

/// The exit code of a command that Ctrl-C ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// Why a command did not do what it was to.
#[derive(Debug)]
pub enum Failure {
    /// One of `getopt`'s.
    Option {
        verb: String,
        reason: String,
    },
    /// Wrong arguments: users are pointed to the help.
    Usage(String),
    Message(String),
    /// As [`Failure::Message`], with this exit code.
    Code(u8, String),
    /// Everything was said.
    Silent(u8),
    Interrupted,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::Usage(message.into())
    }

    pub fn message(message: impl Into<String>) -> Failure {
        Failure::Message(message.into())
    }

    /// Puts what it was about before the message.
    pub fn about(self, what: &str) -> Failure {
        match self {
            Failure::Message(message) => Failure::Message(format!("{what}: {message}")),
            other => other,
        }
    }

    /// With another exit code.
    pub fn code(self, code: u8) -> Failure {
        match self {
            Failure::Message(message) => Failure::Code(code, message),
            other => other,
        }
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Failure {
        match error {
            FormatError::Interrupted => Failure::Interrupted,
            error => Failure::Message(error.to_string()),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        // QEMU names the image, and then the file that it could not open.
        match &error {
            OpenError::Io { path, .. } => {
                Failure::Message(format!("Could not open '{}': {error}", path.display()))
            }
            _ => Failure::Message(error.to_string()),
        }
    }
}

type Sink = Mutex<Box<dyn Write + Send>>;

/// One run of the program.
pub struct Session {
    program: String,
    out: Sink,
    err: Sink,
    interrupted: Arc<AtomicBool>,
}

impl Session {
    /// Writes to the standard streams, and stops at Ctrl-C.
    pub fn standard(program: &str) -> Session {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            // The second one ends the program where it is.
            let _ = signal_hook::flag::register_conditional_shutdown(
                signal,
                INTERRUPTED.into(),
                interrupted.clone(),
            );
            let _ = signal_hook::flag::register(signal, interrupted.clone());
        }
        Session {
            program: program.into(),
            out: Mutex::new(Box::new(io::stdout())),
            err: Mutex::new(Box::new(io::stderr())),
            interrupted,
        }
    }

    /// Writes elsewhere; stops when `interrupted` is set.
    pub fn new(
        program: &str,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        interrupted: Arc<AtomicBool>,
    ) -> Session {
        Session {
            program: program.into(),
            out: Mutex::new(out),
            err: Mutex::new(err),
            interrupted,
        }
    }

    pub fn program(&self) -> &str {
        &self.program
    }

    /// Writes to standard output. There is nobody to tell if that fails.
    pub fn print(&self, text: &str) {
        let _ = self.out.lock().write_all(text.as_bytes());
    }

    /// Writes to standard error as it is.
    pub fn error(&self, text: &str) {
        let _ = self.out.lock().flush();
        let _ = self.err.lock().write_all(text.as_bytes());
    }

    /// Says something to the user that is no output, after the program's name.
    pub fn say(&self, text: &str) {
        self.error(&format!("{}: {text}\n", self.program));
    }

    /// Says why a command failed, and gives its exit code.
    pub fn failed(&self, verb: &str, failure: &Failure) -> u8 {
        let verb = if verb.is_empty() {
            String::new()
        } else {
            format!("{verb} ")
        };
        match failure {
            Failure::Option { verb, reason } => {
                self.error(&format!(
                    "{} {verb}: {reason}\nTry '{} {verb} --help' for more info\n",
                    self.program, self.program
                ));
                1
            }
            Failure::Usage(message) => {
                self.say(message);
                self.error(&format!(
                    "Try '{} {verb}--help' for more info\n",
                    self.program
                ));
                1
            }
            Failure::Message(message) => {
                self.say(message);
                1
            }
            Failure::Code(code, message) => {
                self.say(message);
                *code
            }
            Failure::Silent(code) => *code,
            Failure::Interrupted => {
                self.say("interrupted");
                INTERRUPTED
            }
        }
    }

    /// What a long command is to tell its progress to.
    pub fn progress(&self, show: bool) -> Meter<'_> {
        Meter {
            session: self,
            show,
            shown: Mutex::new((Instant::now() - STEP, -1.0)),
        }
    }
}

/// The progress is not shown more often than this.
const STEP: Duration = Duration::from_millis(100);

/// Shows how far a command is, as QEMU does, and stops it when the user says so.
pub struct Meter<'a> {
    session: &'a Session,
    show: bool,
    shown: Mutex<(Instant, f64)>,
}

impl Meter<'_> {
    pub fn tell(&self, done: u64, of: u64) -> Result<()> {
        if self.session.interrupted.load(Ordering::Relaxed) {
            return Err(FormatError::Interrupted);
        }
        if self.show {
            let percent = 100.0 * done as f64 / of.max(1) as f64;
            let mut shown = self.shown.lock();
            if shown.0.elapsed() >= STEP && percent - shown.1 >= 0.1 {
                *shown = (Instant::now(), percent);
                self.write(percent);
            }
        }
        Ok(())
    }

    /// The command is done.
    pub fn end(&self) {
        self.show_end();
        self.line();
    }

    /// As [`Meter::end`], with the line still to be ended.
    pub fn show_end(&self) {
        if self.show {
            self.write(100.0);
        }
    }

    pub fn line(&self) {
        if self.show {
            self.session.print("\n");
        }
    }

    fn write(&self, percent: f64) {
        self.session.print(&format!("    ({percent:.2}/100%)\r"));
        let _ = self.session.out.lock().flush();
    }
}
