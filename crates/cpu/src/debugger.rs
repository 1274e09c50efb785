//! A debugger outside of the guest: what it asked for ends the run, before the guest's own debugging sees anything of it.

use crate::core::{Core, Exit, Taken};
use crate::signals::attention;

/// What a debugger wants to see of a processor. Nothing at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debugger {
    /// Each run ends after one instruction, or at the handler of the exception taken in its place. WFI does not wait.
    pub step: bool,
    /// BRK ends the run in the place of its exception.
    pub breaks: bool,
    /// Virtual addresses of instructions whose execution ends the run before it. To go on from one, step without it.
    pub breakpoints: Vec<u64>,
    pub watchpoints: Vec<Watch>,
}

/// Data accesses that end the run before they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// A virtual address, a multiple of `bytes`.
    pub address: u64,
    /// A power of two.
    pub bytes: u64,
    pub read: bool,
    pub write: bool,
}

/// What a debugger asked for happened. The PC is the instruction that was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// One instruction is done.
    Step,
    /// BRK with that immediate.
    Break(u16),
    Breakpoint,
    /// An access of what is watched, at that address.
    Watchpoint(u64),
}

impl Debugger {
    /// Whether it wants anything.
    pub fn is_active(&self) -> bool {
        self.step || self.breaks || !self.breakpoints.is_empty() || !self.watchpoints.is_empty()
    }
}

impl Watch {
    fn covers(&self, address: u64, bytes: u64, read: bool, write: bool) -> bool {
        let last = address.wrapping_add(bytes.max(1) - 1);
        let end = self.address.wrapping_add(self.bytes.max(1) - 1);
        (self.read && read || self.write && write) && address <= end && last >= self.address
    }
}

impl Core {
    /// Has a debugger see what it wants, in the place of what was wanted before. Between runs.
    pub fn set_debugger(&mut self, debugger: Debugger) {
        self.debugger = debugger;
        self.debugger_stepped = false;
        self.refresh_debug();
    }

    /// Ends the run: as if an exception were taken, but the state stays.
    fn stop(&mut self, stop: Stop) -> Taken {
        self.debugger_stepped = false;
        self.exit = Some(Exit::Debug(stop));
        self.signals.remind(attention::LEAVE);
        Taken
    }

    /// Before the instruction at the PC.
    pub(crate) fn stop_before_instruction(&mut self) -> Result<(), Taken> {
        if !self.debugger.is_active() {
            return Ok(());
        }
        if self.debugger.step && self.debugger_stepped {
            return Err(self.stop(Stop::Step));
        }
        if self.debugger.breakpoints.contains(&self.state.pc) {
            return Err(self.stop(Stop::Breakpoint));
        }
        self.debugger_stepped = true;
        Ok(())
    }

    /// Before a data access.
    pub(crate) fn stop_before_access(
        &mut self,
        address: u64,
        bytes: u64,
        read: bool,
        write: bool,
    ) -> Result<(), Taken> {
        let watched = &self.debugger.watchpoints;
        if watched
            .iter()
            .any(|w| w.covers(address, bytes, read, write))
        {
            return Err(self.stop(Stop::Watchpoint(address)));
        }
        Ok(())
    }

    /// BRK: the debugger's, if it wants it.
    pub(crate) fn stop_at_break(&mut self, immediate: u16) -> Option<Taken> {
        self.debugger
            .breaks
            .then(|| self.stop(Stop::Break(immediate)))
    }
}
