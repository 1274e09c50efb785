//! Finds loops, and decides where guest registers live in them.
//!
//! A loop is found by its head, the target of a backward jump that was taken often: it is what can be reached from the
//! head within the page and leads back to it. What leaves that, or works on more of the processor than registers and
//! memory, is outside. For as long as a loop executes, the guest registers that it uses most live in host registers.

use cpu::Key;

use super::assembler::{Reg, Xmm};
use super::flags::FlagsOf;
use super::frame::{Homes, PINNED};
use super::nesting::{self, Cycle};
use super::record::Effects;
use super::windows::{open_windows, set_paces, try_windows};

/// Instructions that are looked at, and that a loop has, at most.
const SEEN: usize = 384;
pub const MOST: usize = 256;
/// Jumps back that are tried as the end of an inner loop.
const INNER: usize = 8;
/// Instructions in a page.
const WORDS: usize = 1024;

/// What becomes of the flags that an instruction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    Kept,
    /// Nothing looks at them before they are written again.
    Dead,
    /// Nothing but instructions that follow at once and find them in the host's or make them again, and what a branch among
    /// those leads to outside of the loop.
    Unstored,
    /// Those who look make them again: [`Loop::sink_flags`].
    Sunk,
}

/// An instruction of a loop.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// In the page.
    pub offset: u32,
    pub word: u32,
    pub effects: Effects,
    /// Something else than the instruction before leads to it: a jump, or the way into the loop.
    pub target: bool,
    pub flags: Flags,
    /// How many low bytes of each vector register may be other than zero before it.
    pub extents: [u8; 32],
    /// Memory that it accesses is most likely in the page that it accessed before: which page is kept with this number.
    pub window: Option<u8>,
    /// That is not certain: it follows what it finds in memory.
    pub on_trial: bool,
    /// It jumps back, and need not poll: each round moves a window on, which polls where it ends.
    pub paced: bool,
    /// Its window, of those that poll, moves on by this register, and is not kept where that is zero.
    pub stride: Option<u8>,
    /// Windows that end after it, as it writes such a register.
    pub closes: u16,
    pub(super) weight: u32,
    /// No loop is inside the one that it is in.
    inmost: bool,
    /// Somebody may look at the flags that there are before it; at those that there are after it.
    pub flags_looked_at: bool,
    pub flags_wanted_after: bool,
    /// What they are of, if they are not in the frame: before it, and after it.
    pub flags_before: Option<FlagsOf>,
    pub flags_after: Option<FlagsOf>,
    /// They are to be stored before it.
    pub stores_flags: bool,
    /// Some come here with other flags: [`Loop::first_round`].
    pub first_round: bool,
}

impl Step {
    /// Where it may go, in the page.
    pub(super) fn successors(&self) -> impl Iterator<Item = i64> {
        let next = (!self.effects.ends).then_some(i64::from(self.offset) + 4);
        next.into_iter().chain(self.jump())
    }

    /// Where it jumps to, unless that is a call.
    pub(super) fn jump(&self) -> Option<i64> {
        let call = self.effects.ends && self.effects.writes != 0;
        self.effects
            .branch
            .filter(|_| !call)
            .map(|by| i64::from(self.offset) + by)
    }
}

/// A loop to be emitted.
pub struct Loop {
    pub head: u32,
    /// By address.
    pub steps: Vec<Step>,
    pub homes: Homes,
    /// Registers that are written in it: general, vectors.
    pub writes: u32,
    pub vector_writes: u32,
    /// Lines of the page that it has instructions in.
    pub lines: u64,
    /// How many pages are kept, and how many of those, the last, are on trial.
    pub windows: u8,
    pub trials: u8,
}

/// What is looked at to find a loop.
pub struct Search<'a, F: FnMut(u32) -> u32> {
    pub key: &'a Key,
    /// The instruction at an offset into the page.
    pub read: F,
}

impl<F: FnMut(u32) -> u32> Search<'_, F> {
    /// The loop with its head at an offset into the page, if there is one.
    pub fn find(mut self, head: u32) -> Option<Loop> {
        let mut steps = self.reachable(head);
        leads_back(&mut steps, head);
        if steps.len() > MOST {
            keep_inner(&mut steps, head);
        }
        if steps.is_empty() {
            return None;
        }
        let place = Places::of(&steps);
        mark_targets(&mut steps, &place, head);
        let next: Vec<Vec<usize>> = steps
            .iter()
            .map(|step| step.successors().filter_map(|to| place.at(to)).collect())
            .collect();
        let cycles = nesting::cycles(&next);
        weigh(&mut steps, &cycles);
        find_extents(&mut steps, &place, head);
        let walking = open_windows(&mut steps, &cycles);
        let trials = try_windows(&mut steps, &cycles, walking);
        set_paces(&mut steps);
        let mut lines = 0u64;
        let (mut writes, mut vector_writes) = (0, 0);
        for step in &steps {
            lines |= 1 << (step.offset >> 6);
            writes |= step.effects.writes;
            vector_writes |= step.effects.vector_writes;
        }
        Some(Loop {
            head,
            homes: Homes::between_blocks(),
            steps,
            writes,
            vector_writes,
            lines,
            windows: walking + trials,
            trials,
        })
    }

    /// What can be reached from an offset, by address.
    fn reachable(&mut self, head: u32) -> Vec<Step> {
        let mut seen = [false; WORDS];
        let mut todo = std::collections::VecDeque::from([head]);
        let mut steps = Vec::new();
        while let Some(offset) = todo.pop_front() {
            let index = (offset >> 2) as usize;
            if seen[index] || steps.len() >= SEEN {
                continue;
            }
            seen[index] = true;
            let word = (self.read)(offset);
            let effects = Effects::of(self.key, word);
            if effects.system {
                continue;
            }
            let step = Step {
                offset,
                word,
                effects,
                target: false,
                flags: Flags::Kept,
                extents: [16; 32],
                window: None,
                on_trial: false,
                paced: false,
                stride: None,
                closes: 0,
                weight: 1,
                inmost: false,
                flags_looked_at: true,
                flags_wanted_after: true,
                flags_before: None,
                flags_after: None,
                stores_flags: false,
                first_round: false,
            };
            for to in step.successors() {
                if (0..4 * WORDS as i64).contains(&to) && to & 3 == 0 {
                    todo.push_back(to as u32);
                }
            }
            steps.push(step);
        }
        steps.sort_unstable_by_key(|step| step.offset);
        steps
    }
}

/// Where an instruction at an offset is among the steps.
pub(super) struct Places([u16; WORDS]);

impl Places {
    const NONE: u16 = u16::MAX;

    pub(super) fn of(steps: &[Step]) -> Places {
        let mut places = [Places::NONE; WORDS];
        for (i, step) in steps.iter().enumerate() {
            places[(step.offset >> 2) as usize] = i as u16;
        }
        Places(places)
    }

    pub(super) fn at(&self, offset: i64) -> Option<usize> {
        let index = usize::try_from(offset >> 2).ok()?;
        let place = *self.0.get(index)?;
        (place != Places::NONE).then_some(place.into())
    }
}

/// Keeps what leads to the head.
fn leads_back(steps: &mut Vec<Step>, head: u32) {
    let place = Places::of(steps);
    let mut leads = vec![false; steps.len()];
    loop {
        let mut changed = false;
        for (i, step) in steps.iter().enumerate().rev() {
            let does = step
                .successors()
                .any(|to| to == i64::from(head) || place.at(to).is_some_and(|i| leads[i]));
            changed |= does && !leads[i];
            leads[i] |= does;
        }
        if !changed {
            break;
        }
    }
    let mut leads = leads.into_iter();
    steps.retain(|_| leads.next().unwrap_or(false));
}

/// Of a loop that is too large, being most of one around it, keeps what is between the head and a jump back to it, the furthest
/// that does.
fn keep_inner(steps: &mut Vec<Step>, head: u32) {
    let back = |step: &&Step| step.offset >= head && step.jump() == Some(head.into());
    let ends = steps.iter().rev().filter(back).map(|step| step.offset);
    for end in ends.take(INNER).collect::<Vec<u32>>() {
        let mut inner = steps.clone();
        inner.retain(|step| (head..=end).contains(&step.offset));
        leads_back(&mut inner, head);
        // Where the ways round from the head go further, what is left leads to it, but it does not.
        let is_round = inner.iter().any(|step| step.offset == head);
        if is_round && inner.len() <= MOST {
            *steps = inner;
            return;
        }
    }
    steps.clear();
}

fn mark_targets(steps: &mut [Step], place: &Places, head: u32) {
    let jumps = steps.iter().filter_map(Step::jump);
    let targets: Vec<i64> = jumps.chain([head.into()]).collect();
    for to in targets.into_iter().filter_map(|to| place.at(to)) {
        steps[to].target = true;
    }
}

/// Counts an instruction of an inner loop for more.
fn weigh(steps: &mut [Step], cycles: &[Cycle]) {
    for (i, step) in steps.iter_mut().enumerate() {
        let around = nesting::inmost(cycles, i).map(|cycle| &cycles[cycle]);
        let depth = around.map_or(0, |cycle| cycle.depth);
        step.weight = 1 << (3 * depth).min(15);
        step.inmost = around.is_some_and(|cycle| cycle.inmost);
    }
}

fn find_extents(steps: &mut [Step], place: &Places, head: u32) {
    let mut before = vec![[0u8; 32]; steps.len()];
    if let Some(head) = place.at(head.into()) {
        before[head] = [16; 32];
    }
    loop {
        let mut changed = false;
        for (i, step) in steps.iter().enumerate() {
            let mut after = before[i];
            for (n, extent) in after.iter_mut().enumerate() {
                let bit = 1 << n;
                if step.effects.vector_writes & bit != 0 {
                    *extent = match (step.effects.four & bit != 0, step.effects.eight & bit != 0) {
                        (true, _) => 4,
                        (_, true) => 8,
                        _ => 16,
                    };
                }
            }
            for to in step.successors().filter_map(|to| place.at(to)) {
                for (old, &new) in before[to].iter_mut().zip(&after) {
                    changed |= new > *old;
                    *old = new.max(*old);
                }
            }
        }
        if !changed {
            break;
        }
    }
    for (step, before) in steps.iter_mut().zip(before) {
        step.extents = before.map(|extent| if extent == 0 { 16 } else { extent });
    }
}

impl Loop {
    /// Finds which flags nobody looks at. `interpreted`: instructions that are left to the interpreter, which looks.
    /// `unstored`: some need not be stored for those who do.
    pub fn find_dead_flags(&mut self, interpreted: &[bool], unstored: bool) {
        let place = Places::of(&self.steps);
        let mut live = vec![false; self.steps.len()];
        let live_at = |live: &[bool], to: i64| place.at(to).is_none_or(|i| live[i]);
        loop {
            let mut changed = false;
            for i in (0..self.steps.len()).rev() {
                let step = &self.steps[i];
                // At a jump back the loop may be left for an interrupt.
                let back = step.jump().is_some_and(|to| to <= i64::from(step.offset));
                let after = back
                    || step.successors().any(|to| live_at(&live, to))
                    || (step.effects.ends && step.jump().is_none());
                let effects = &step.effects;
                let looks = effects.reads_flags || effects.may_stop || interpreted[i];
                let now = looks || (after && !effects.writes_flags);
                changed |= now && !live[i];
                live[i] |= now;
                self.steps[i].flags_looked_at = live[i];
                self.steps[i].flags_wanted_after = after;
                self.steps[i].flags = if after { Flags::Kept } else { Flags::Dead };
            }
            if !changed {
                break;
            }
        }
        for i in 0..self.steps.len() {
            let kept = self.steps[i].flags == Flags::Kept && self.steps[i].effects.writes_flags;
            if unstored && kept && !interpreted[i] && self.need_no_store(i, interpreted, &live) {
                self.steps[i].flags = Flags::Unstored;
            }
        }
    }

    /// Whether all that look at what an instruction makes of the flags follow it at once, up to a branch on them or to what
    /// writes them again.
    fn need_no_store(&self, writer: usize, interpreted: &[bool], live: &[bool]) -> bool {
        let place = Places::of(&self.steps);
        let live_inside = |to: i64| place.at(to).is_some_and(|i| live[i]);
        let steps = self.steps[writer..].windows(2);
        for (steps, interpreted) in steps.zip(&interpreted[writer + 1..]) {
            let (before, step) = (&steps[0], &steps[1]);
            let effects = &step.effects;
            let follows = step.offset == before.offset + 4 && !step.target;
            if !follows || *interpreted || effects.may_stop || effects.ends {
                return false;
            }
            if let Some(to) = step.jump() {
                let next = i64::from(step.offset) + 4;
                return effects.reads_flags && !live_inside(to) && !live_inside(next);
            }
            if effects.writes_flags {
                return true;
            }
        }
        false
    }

    /// The instruction in memory after one, if it is in the loop.
    pub fn after(&self, index: usize) -> Option<&Step> {
        let next = self.steps[index].offset + 4;
        self.steps.get(index + 1).filter(|step| step.offset == next)
    }

    /// One, and those after it in memory that nothing else leads to.
    pub fn straight_from(&self, index: usize) -> impl Iterator<Item = &Step> {
        let first = self.steps[index].offset;
        let after = (0..).zip(&self.steps[index..]);
        after
            .take_while(move |(i, step)| step.offset == first + 4 * i && (*i == 0 || !step.target))
            .map(|(_, step)| step)
    }

    /// What general registers of the host are best used for. `uses`: of the guest's registers.
    fn wanted(&self, uses: &[u32; 32]) -> Vec<Wanted> {
        let registers = (0..32u8).map(|n| (Wanted::Register(n), uses[usize::from(n)]));
        let mut wanted: Vec<(Wanted, u32)> = registers.filter(|(_, uses)| *uses != 0).collect();
        for step in &self.steps {
            if let Some(window) = step.window {
                wanted.push((Wanted::Host(window), step.weight));
                wanted.push((Wanted::Base(window), step.weight));
            }
        }
        let back = |step: &&Step| step.jump().is_some_and(|to| to <= i64::from(step.offset));
        let polls = self.steps.iter().filter(back).map(|step| step.weight);
        wanted.push((Wanted::Pending, polls.sum()));
        wanted.sort_by_key(|(_, uses)| std::cmp::Reverse(*uses));
        wanted.truncate(PINNED.len());
        wanted.into_iter().map(|(want, _)| want).collect()
    }

    /// Decides where registers live, `vectors` vector registers at most.
    pub fn settle(&mut self, vectors: u8) {
        let mut uses = [0u32; 32];
        let mut vector_uses = [0u32; 32];
        for step in &self.steps {
            let effects = &step.effects;
            // What is in memory takes longer to come from one instruction to the next. That is worth more than a window
            // where nothing but it goes round.
            let general = if step.inmost { 8 } else { 1 };
            for n in 0..32 {
                let count = |mask: u32| (mask >> n & 1) * step.weight;
                uses[n] += general * (count(effects.reads) + count(effects.writes));
                vector_uses[n] += count(effects.vector_reads) + count(effects.vector_writes);
            }
        }
        let mut homes = Homes::between_blocks();
        let wanted = self.wanted(&uses);
        let pinned = |n: u8| homes.general[usize::from(n)].is_some();
        let stay = |n: u8| wanted.contains(&Wanted::Register(n));
        let newcomers: Vec<Wanted> = wanted
            .iter()
            .copied()
            .filter(|want| !matches!(want, Wanted::Register(n) if pinned(*n)))
            .collect();
        let mut given_up: Vec<(u8, Reg)> = PINNED.into_iter().filter(|(n, _)| !stay(*n)).collect();
        for want in newcomers {
            let Some((old, reg)) = given_up.pop() else {
                break;
            };
            homes.general[usize::from(old)] = None;
            match want {
                Wanted::Register(n) => homes.general[usize::from(n)] = Some(reg),
                Wanted::Base(window) => {
                    homes.windows[usize::from(window)].minus_base = Some(reg);
                }
                Wanted::Host(window) => homes.windows[usize::from(window)].host = Some(reg),
                Wanted::Pending => homes.pending = Some(reg),
            }
        }
        for (xmm, n) in most_used(&vector_uses, vectors.into()).iter().enumerate() {
            homes.vectors[usize::from(*n)] = Some(Xmm(xmm as u8));
            homes.vectors_taken += 1;
        }
        self.homes = homes;
    }
}

/// What may live in a general register of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Register(u8),
    /// Of windows: by their number.
    Base(u8),
    Host(u8),
    Pending,
}

/// Numbers of the registers that are used most, of those that are used.
fn most_used(uses: &[u32; 32], count: usize) -> Vec<u8> {
    let mut used: Vec<u8> = (0..32).filter(|&n| uses[usize::from(n)] != 0).collect();
    used.sort_by_key(|&n| std::cmp::Reverse(uses[usize::from(n)]));
    used.truncate(count);
    used
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::x64::record::tests::key;

    pub fn find(words: &[u32], head: u32) -> Option<Loop> {
        let read = |offset: u32| words.get(offset as usize / 4).copied().unwrap_or(0);
        let key = key();
        Search { key: &key, read }.find(head)
    }

    /// ldr w1, [x0], #4; add w2, w2, w1; subs x3, x3, #1; b.ne 0; ret
    pub const SUM: [u32; 5] = [
        0xb840_4401,
        0x0b01_0042,
        0xf100_0463,
        0x54ff_ffa1,
        0xd65f_03c0,
    ];

    #[test]
    fn a_loop_is_what_leads_back() {
        let found = find(&SUM, 0).unwrap();
        let offsets: Vec<u32> = found.steps.iter().map(|step| step.offset).collect();
        assert_eq!(offsets, [0, 4, 8, 12]);
        assert_eq!(found.writes, 0b1111);
        assert_eq!(found.lines, 1);
        assert!(found.steps[0].target);
        assert!(!found.steps[1].target);
        assert!(find(&SUM, 16).is_none());
    }

    #[test]
    fn of_a_loop_that_is_too_large_the_inner_one_is_found() {
        // ldr x0, [x0]; cbnz x0, 0; 300 times add x1, x1, #1; b 0
        let mut words = vec![0xf940_0000, 0xb5ff_ffe0];
        words.extend([0x9100_0421; 300]);
        words.push(0x17ff_fffe - 300);
        let found = find(&words, 0).unwrap();
        let offsets: Vec<u32> = found.steps.iter().map(|step| step.offset).collect();
        assert_eq!(offsets, [0, 4]);
        // Without the inner one there is none.
        assert!(find(&words[2..], 0).is_none());
    }

    #[test]
    fn what_only_leads_to_the_head_is_no_inner_loop() {
        // add x1, x1, #1; b to the end; add x1, x1, #1; cbnz x1, 0; 300 times add x1, x1, #1; b to the third
        let mut words = vec![0x9100_0421, 0x1400_0000 + 303, 0x9100_0421, 0xb5ff_ffa1];
        words.extend([0x9100_0421; 300]);
        words.push(0x17ff_ffff - 301);
        assert!(find(&words, 0).is_none());
    }

    #[test]
    fn a_head_that_is_fallen_into_is_entered_all_the_same() {
        // add x1, x1, #1; add x2, x2, #1; b 0
        let found = find(&[0x9100_0421, 0x9100_0442, 0x17ff_fffe], 4).unwrap();
        assert_eq!(found.steps[1].offset, 4);
        assert!(found.steps[1].target);
    }

    #[test]
    fn flags_are_live_where_an_access_may_stop() {
        let mut found = find(&SUM, 0).unwrap();
        found.find_dead_flags(&[false; 4], true);
        // The load that follows the branch may be left to the interpreter.
        assert_eq!(found.steps[2].flags, Flags::Kept);
        // The jump back may be left at, and stores them there; cmp x0, x1; subs x3, x3, #1; b.ne 0
        let mut found = find(&[0xeb01_001f, 0xf100_0463, 0x54ff_ffc1], 0).unwrap();
        found.find_dead_flags(&[false; 3], true);
        assert_eq!(found.steps[0].flags, Flags::Dead);
        assert_eq!(found.steps[1].flags, Flags::Unstored);
        found.find_dead_flags(&[false; 3], false);
        assert_eq!(found.steps[1].flags, Flags::Kept);
        found.find_dead_flags(&[false, true, false], true);
        assert_eq!(found.steps[0].flags, Flags::Kept);
    }

    #[test]
    fn flags_that_are_made_again_need_no_store() {
        // tst x4, #1; and x2, x2, #1; csel x1, x1, x2, eq; subs x3, x3, #1; b.ne 0
        let words = [
            0xf240_009f,
            0x9240_0042,
            0x9a82_0021,
            0xf100_0463,
            0x54ff_ff81,
        ];
        let mut found = find(&words, 0).unwrap();
        found.find_dead_flags(&[false; 5], true);
        assert_eq!(found.steps[0].flags, Flags::Unstored);
        // Where the second is left to the interpreter, which looks.
        found.find_dead_flags(&[false, true, false, false, false], true);
        assert_eq!(found.steps[0].flags, Flags::Kept);
    }

    #[test]
    fn a_branch_takes_the_flags_before_it() {
        // cmp x0, #1; b.eq out; subs x3, x3, #1; b.ne 0
        let words = [0xf100_041f, 0x5400_0100, 0xf100_0463, 0x54ff_ffa1];
        let mut found = find(&words, 0).unwrap();
        found.find_dead_flags(&[false; 4], true);
        assert_eq!(found.steps[0].flags, Flags::Unstored);
        assert_eq!(found.steps[2].flags, Flags::Unstored);
        found.find_dead_flags(&[false; 4], false);
        assert_eq!(found.steps[0].flags, Flags::Kept);
    }

    /// With flags stored where that is needed.
    fn sunk(words: &[u32]) -> Loop {
        let mut found = find(words, 0).unwrap();
        let interpreted = vec![false; words.len()];
        found.find_dead_flags(&interpreted, true);
        found.sink_flags(&interpreted, true);
        found
    }

    #[test]
    fn flags_for_an_access_are_made_again_out_of_line() {
        // ldr x1, [x2], #8; add x0, x0, x1; cmp x2, x3; b.ne 0
        let words = [0xf840_8441, 0x8b01_0000, 0xeb03_005f, 0x54ff_ffa1];
        let found = sunk(&words);
        assert_eq!(found.steps[2].flags, Flags::Sunk);
        assert_eq!(found.steps[0].flags_before, found.steps[2].effects.flags_of);
        // The first time they are in the frame.
        assert!(found.steps[0].first_round);
        assert!(found.steps.iter().all(|step| !step.stores_flags));
        // Nobody looks at those that there are after the access.
        assert_eq!(found.first_round(0, &[false; 4]), Some(1));
    }

    #[test]
    fn a_first_round_may_leave_the_loop() {
        // ldr x0, [x0]; cbz x0, out; ldrb w1, [x0, #8]; cmp w1, w2; b.ne 0
        let words = [
            0xf940_0000,
            0xb400_0100,
            0x3940_2001,
            0x6b02_003f,
            0x54ff_ff81,
        ];
        let found = sunk(&words);
        assert_eq!(found.steps[3].flags, Flags::Sunk);
        assert_eq!(found.first_round(0, &[false; 5]), Some(3));
        // Not where the branch is inside.
        let mut inside = words;
        inside[1] = 0xb400_0040;
        assert_eq!(sunk(&inside).first_round(0, &[false; 5]), None);
    }

    #[test]
    fn flags_are_stored_where_what_they_are_of_is_lost_each_time() {
        // cmp x2, x3; mul x2, x2, x4; ldr x1, [x5]; b.ne 0
        let words = [0xeb03_005f, 0x9b04_7c42, 0xf940_00a1, 0x54ff_ffa1];
        let found = sunk(&words);
        assert_eq!(found.steps[0].flags, Flags::Kept);
    }

    #[test]
    fn flags_are_of_registers_as_they_are_after_it() {
        // subs x3, x3, #1
        let of = Effects::of(&key(), 0xf100_0463).flags_of.unwrap();
        assert_eq!((of.a.register, of.a.plus), (Some(3), 1));
        assert_eq!((of.b.register, of.b.plus), (None, 1));
        // add x3, x3, #4 after it
        let of = Effects::of(&key(), 0x9100_1063).after(of).unwrap();
        assert_eq!((of.a.register, of.a.plus), (Some(3), -3));
        // add w3, w3, #4 loses the upper half.
        assert!(Effects::of(&key(), 0x1100_1063).after(of).is_none());
        // subs x3, x4, x3: what was in x3 is gone.
        assert!(Effects::of(&key(), 0xeb03_0083).flags_of.is_none());
        // adds w3, w3, #1: its low half is all that flags are of.
        let of = Effects::of(&key(), 0x3100_0463).flags_of.unwrap();
        assert_eq!((of.a.register, of.a.plus), (Some(3), -1));
    }

    #[test]
    fn a_loop_with_a_system_instruction_has_no_way_round() {
        // msr daifset, #2; b 0
        assert!(find(&[0xd503_42df, 0x17ff_ffff], 0).is_none());
    }

    #[test]
    fn the_most_used_registers_have_homes() {
        // add x21, x21, x22; add x21, x21, x23; cbnz x21, 0
        let mut found = find(&[0x8b16_02b5, 0x8b17_02b5, 0xb5ff_ffd5], 0).unwrap();
        found.settle(8);
        for n in [21, 22, 23] {
            assert!(found.homes.general[n].is_some());
        }
        let kept = found.homes.general.iter().flatten().count();
        // One polls.
        assert!(found.homes.pending.is_some());
        assert_eq!(kept + 1, PINNED.len());
    }

    #[test]
    fn scalars_are_known_to_be_narrow() {
        // fadd d0, d0, d1; fadd v2.2d, v0.2d, v1.2d; b 0
        let found = find(&[0x1e61_2800, 0x4e61_d402, 0x17ff_fffe], 0).unwrap();
        assert_eq!(found.steps[0].extents[0], 16);
        assert_eq!(found.steps[1].extents[0], 8);
        assert_eq!(found.steps[1].extents[1], 16);
    }
}
