//! Names of what the meaning of addresses of code depends on, and where code is by its address under each name.
//!
//! A name ([`Frame::context`]) is made of the version of what translates addresses of code, the ASID where that matters, and
//! the number of the key. It changes with exceptions and returns from them, and comes back with them; what the jump cache
//! holds under it is good again then.
#![allow(unsafe_code)] // the jump caches begin as zeros

use cpu::Key;

use super::exceptions::NEVER;
use super::frame::{JUMPS, Jump, Machine};

/// Keys with a number, at most.
const KEYS: usize = 0x1000;
/// Keys found without a search.
const RECENT: usize = 32;
/// Jump caches, and those of them that are for EL1; the others are for EL0.
const TABLES: usize = 12;
const EL1_TABLES: usize = 4;

/// The keys' numbers, and the jump caches.
pub struct Names {
    jumps: Box<[[Jump; JUMPS]]>,
    /// Those of them that are not empty.
    used: [bool; TABLES],
    /// Keys that code was made for, by their number.
    keys: Vec<Key>,
    recent: [Option<(Key, u16)>; RECENT],
    /// Versions there were when the jump caches were last known to hold none of a number to come.
    versions: u64,
}

impl Names {
    pub fn new() -> Names {
        // Memory that is not touched is not there: a mebibyte each.
        let jumps = Box::new_zeroed_slice(TABLES);
        Names {
            // SAFETY: zeros are entries that hold nothing.
            jumps: unsafe { jumps.assume_init() },
            used: [false; TABLES],
            keys: Vec::new(),
            recent: [None; RECENT],
            versions: 0,
        }
    }

    /// The jump cache of that number.
    pub fn table(&self, number: usize) -> *const Jump {
        self.jumps[number % TABLES].as_ptr()
    }

    /// Names that take turns are to have tables of their own: address spaces, and keys. Linux changes the controls of
    /// pointer authentication between tasks, and so EL1's key.
    fn table_of(context: u64) -> usize {
        let (asid, number) = ((context >> 16) as usize & 0xffff, (context >> 1) as usize);
        if context & USER != 0 {
            EL1_TABLES + asid % (TABLES - EL1_TABLES)
        } else {
            number % EL1_TABLES
        }
    }

    /// Has an address lead to code under a name.
    pub fn put(&mut self, pc: u64, context: u64, code: u64) {
        let table = Names::table_of(context);
        self.used[table] = true;
        self.jumps[table][slot(pc)] = Jump {
            pc,
            context,
            code,
            padding: 0,
        };
    }

    /// The entry that may say where the code at an address is under a name.
    pub fn entry(&self, pc: u64, context: u64) -> &Jump {
        &self.jumps[Names::table_of(context)][slot(pc)]
    }

    /// The code at an address under a name.
    fn find(&self, pc: u64, context: u64) -> Option<u64> {
        let jump = self.entry(pc, context);
        (jump.pc == pc && jump.context == context).then_some(jump.code)
    }

    /// Forgets where all code is.
    pub fn forget(&mut self) {
        for (table, used) in self.jumps.iter_mut().zip(&mut self.used) {
            if std::mem::take(used) {
                table.fill(Jump::default());
            }
        }
    }

    /// The number of a key; `None`: there are too many.
    fn number(&mut self, key: &Key) -> Option<u16> {
        let slot = (usize::from(key.el)
            ^ usize::from(key.sp_sel) << 1
            ^ usize::from(key.fp_enabled) << 2
            ^ (key.fpcr >> 22) as usize)
            % RECENT;
        if let Some((recent, number)) = &self.recent[slot]
            && recent == key
        {
            return Some(*number);
        }
        let number = self.keys.iter().position(|k| k == key).or_else(|| {
            (self.keys.len() < KEYS).then(|| {
                self.keys.push(*key);
                self.keys.len() - 1
            })
        })? as u16;
        self.recent[slot] = Some((*key, number));
        Some(number)
    }
}

fn slot(pc: u64) -> usize {
    (pc >> 2) as usize % JUMPS
}

/// In a name: EL0.
const USER: u64 = 1 << 15;
/// The number.
const NUMBER: u64 = (KEYS as u64 - 1) << 1;

/// The name of a version, an ASID and a key's number.
fn name(version: u64, asid: u16, user: bool, number: u16) -> u64 {
    version << 32 | u64::from(asid) << 16 | if user { USER } else { 0 } | u64::from(number) << 1 | 1
}

impl Machine {
    /// Finds the number of the present key, and the name of what addresses mean at present.
    pub(super) fn refresh(&mut self) {
        let core = self.interpreter.core();
        let key = core.key();
        let user = key.el == 0;
        let number = match self.side.names.number(key) {
            Some(number) => number,
            None => {
                // Numbers would go to other keys than they did.
                self.side.names.keys.clear();
                self.side.names.recent.fill(None);
                self.side.cache.clear();
                self.frame.levels_version = NEVER;
                self.side.names.number(key).unwrap_or(0)
            }
        };
        self.side.key = number;
        let tcr = self.interpreter.core().state.tcr[1];
        if tcr != self.side.tcr {
            self.side.tcr = tcr;
            self.frame.pac_masks = self.interpreter.core().state.pac_masks();
        }
        let asid = if user || self.side.local_kernel {
            self.interpreter.address_space()
        } else {
            0
        };
        let context = name(self.interpreter.code_version(), asid, user, number);
        if context != self.frame.context {
            self.frame.context = context;
            let table = Names::table_of(context);
            self.frame.jumps = self.side.names.table(table);
        }
        let versions = self.interpreter.code_versions();
        if versions >> 31 != self.side.names.versions >> 31 {
            // Names have 32 bits of the version, and are about to come again.
            self.side.names.forget();
            self.side.cache.clear();
        }
        self.side.names.versions = versions;
        self.remember_level();
    }

    /// Whether addresses mean what they did when the present name was found.
    pub(super) fn still_here(&self) -> bool {
        // The version's low half.
        self.frame.context >> 32 == self.interpreter.code_version() & 0xffff_ffff
            && self.interpreter.map_generation() == self.side.map_generation
    }

    /// After a change of the ASID at EL1, before which all that is remembered of levels held: EL0's name is another.
    pub(super) fn rename_user(&mut self) {
        let Some(surroundings) = &mut self.side.surroundings.0 else {
            return;
        };
        surroundings.asid = self.interpreter.address_space();
        self.frame.levels_version = self.interpreter.code_versions();
        let level = &mut self.frame.levels[0];
        if level.context != 0 {
            let number = (level.context & NUMBER) >> 1;
            let version = self.interpreter.user_version();
            level.context = name(version, surroundings.asid, true, number as u16);
            level.jumps = self.side.names.table(Names::table_of(level.context));
        }
    }

    /// Where execution goes on from the state's PC: an address of code, or 0. The same as [`Machine::go`], but faster where
    /// the way was gone before.
    pub(super) fn resume(&mut self) -> usize {
        match self.known() {
            Some(code) => {
                self.before_code();
                code as usize
            }
            None => self.go(),
        }
    }

    fn known(&mut self) -> Option<u64> {
        if self.interpreter.wants_attention()
            || self.interpreter.is_diverted()
            || self.side.limit == 1
            || !self.interpreter.stale_code().is_empty()
            || self.interpreter.map_generation() != self.side.map_generation
        {
            return None;
        }
        self.refresh();
        if self.side.evictions != self.side.cache.evictions {
            return None;
        }
        let pc = self.interpreter.state().pc;
        let code = self.side.names.find(pc, self.frame.context)?;
        self.frame.page = pc & !0xfff;
        Some(code)
    }
}
