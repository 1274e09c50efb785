//! The user's terminal, while it is the guest's.
//!
//! Whatever way the program ends, the terminal must be usable afterwards: the settings are put back when [`RawTerminal`] is
//! dropped, when a thread panics, and, with [`restore_on_signals`], when a signal ends the program.
#![allow(unsafe_code)] // signal handlers

use parking_lot::Mutex;
use rustix::termios::{self, OptionalActions, SpecialCodeIndex, Termios};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Once, OnceLock};

/// The terminal that has to be put right, and how.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// A terminal that hands over every byte as it is typed. There can be one at a time.
pub struct RawTerminal(());

impl RawTerminal {
    /// Sets the terminal `fd` to raw mode; `None` if `fd` is no terminal, and then there is nothing to do. With `signals`,
    /// Ctrl-C and its like still make signals.
    pub fn new(fd: impl AsFd, signals: bool) -> io::Result<Option<RawTerminal>> {
        if !termios::isatty(&fd) {
            return Ok(None);
        }
        let mut saved = SAVED.lock();
        if saved.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the terminal is already used by another serial line",
            ));
        }
        let before = termios::tcgetattr(&fd)?;
        let mut raw = before.clone();
        raw.make_raw();
        // The guest sends its own carriage returns, but what this program prints meanwhile does not.
        raw.output_modes |= termios::OutputModes::OPOST;
        if signals {
            raw.local_modes |= termios::LocalModes::ISIG;
        }
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        let kept = fd.as_fd().try_clone_to_owned()?;
        remember_for_signals(&kept)?;
        termios::tcsetattr(&fd, OptionalActions::Now, &raw)?;
        *saved = Some((kept, before));
        drop(saved);
        restore_on_panic();
        Ok(Some(RawTerminal(())))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore_terminal();
    }
}

/// Puts the terminal right, if it was changed. To be called before the process ends in a way that drops nothing.
pub fn restore_terminal() {
    if let Some((fd, before)) = SAVED.lock().take() {
        SIGNAL_FD.store(-1, Ordering::SeqCst);
        let _ = termios::tcsetattr(&fd, OptionalActions::Now, &before);
    }
}

fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // So that the message can be read; a panic that is caught leaves a cooked terminal, which is the smaller evil.
            if !SAVED.is_locked() {
                restore_terminal();
            }
            next(info);
        }));
    });
}

/// The terminal and its settings for the handler, which may take no lock.
static SIGNAL_FD: AtomicI32 = AtomicI32::new(-1);
static SIGNAL_TERMIOS: OnceLock<libc::termios> = OnceLock::new();

fn remember_for_signals(fd: &OwnedFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the descriptor is open, and the call fills the structure if it succeeds.
    let settings = unsafe {
        if libc::tcgetattr(fd.as_raw_fd(), settings.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        settings.assume_init()
    };
    // The settings of the first time: later ones are those that were put back.
    SIGNAL_TERMIOS.get_or_init(|| settings);
    SIGNAL_FD.store(fd.as_raw_fd(), Ordering::SeqCst);
    Ok(())
}

extern "C" fn restore_and_die(signal: libc::c_int) {
    let fd = SIGNAL_FD.load(Ordering::SeqCst);
    if let (true, Some(settings)) = (fd >= 0, SIGNAL_TERMIOS.get()) {
        // SAFETY: tcsetattr is async-signal-safe (POSIX.1-2017, 2.4.3); the settings live for ever.
        unsafe { libc::tcsetattr(fd, libc::TCSANOW, settings) };
    }
    // SAFETY: both are async-signal-safe. The signal is delivered again, with its default action, when this returns.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Makes the signals that end a program (hang-up, interrupt, quit, terminate) put the terminal right first. Signals that
/// the program handles itself, or ignores, are left alone: it then calls [`restore_terminal`].
pub fn restore_on_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the structures are plain data for which zeroes are valid; the handler is async-signal-safe.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &mut now) != 0
                || now.sa_sigaction != libc::SIG_DFL
            {
                continue;
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = restore_and_die as extern "C" fn(libc::c_int) as usize;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Sets a new pseudo terminal's far side to raw mode: bytes pass as they are.
pub(super) fn make_raw(terminal: &File) -> io::Result<()> {
    let mut settings = termios::tcgetattr(terminal)?;
    settings.make_raw();
    termios::tcsetattr(terminal, OptionalActions::Now, &settings)?;
    Ok(())
}
