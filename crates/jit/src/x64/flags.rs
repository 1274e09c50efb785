//! Flags of a loop that need not be stored: who looks at them makes them again from what they are of.
//!
//! An access looks at the flags, as the interpreter may have to execute it; but that is out of line, and so can be the
//! storing. What they are of is known where all ways to an instruction agree. The first round of a loop comes with flags
//! from elsewhere: it is emitted once more, up to where they are written anew.

use cpu::Width;

use super::assembler::{Alu, Mem, RAX, Reg, Rm};
use super::emitter::Emitter;
use super::loops::{Flags, Loop, Places, Step};

/// A register and a constant; or a constant only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    pub register: Option<u8>,
    pub plus: i32,
}

impl Operand {
    /// With a constant more, if there is room for the sum.
    pub fn plus(self, by: i64) -> Option<Operand> {
        let plus = i32::try_from(i64::from(self.plus).checked_add(by)?).ok()?;
        Some(Operand { plus, ..self })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Difference,
    Sum,
}

/// What the guest's flags are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagsOf {
    pub operation: Operation,
    pub w: Width,
    pub a: Operand,
    pub b: Operand,
}

/// Instructions of a first round, at most.
const FIRST_ROUND: usize = 12;
/// Rounds of the search for what flags are of.
const ROUNDS: usize = 24;

/// What flags are of at an instruction, as far as is known; `None` inside: they are in the frame.
type Known = Option<Option<FlagsOf>>;

/// A way from an instruction to another.
struct Way {
    from: usize,
    /// Steps that leave the loop lead nowhere.
    to: Option<usize>,
    weight: u32,
}

impl Loop {
    /// Finds flags that need not be stored, and what they are of where somebody may look. To be called with what
    /// [`Loop::find_dead_flags`] has found.
    pub fn sink_flags(&mut self, interpreted: &[bool], wanted: bool) {
        for step in &mut self.steps {
            step.flags_before = None;
            step.flags_after = None;
            step.stores_flags = false;
            step.first_round = false;
        }
        if !wanted {
            return;
        }
        let place = Places::of(&self.steps);
        let ways = self.ways(&place);
        let mut sunk: Vec<bool> = self
            .steps
            .iter()
            .zip(interpreted)
            .map(|(step, interpreted)| {
                step.flags != Flags::Dead && step.effects.flags_of.is_some() && !interpreted
            })
            .collect();
        loop {
            if !sunk.contains(&true) {
                return;
            }
            let Some(before) = self.known(&ways, &sunk, interpreted) else {
                return;
            };
            let costs = self.costs(&ways, &sunk, &before, interpreted);
            let dear = |i: usize| sunk[i] && costs[i] >= self.steps[i].weight;
            let dear: Vec<usize> = (0..sunk.len()).filter(|&i| dear(i)).collect();
            if dear.is_empty() {
                return self.settle_flags(&ways, &sunk, &before, interpreted);
            }
            for i in dear {
                sunk[i] = false;
            }
        }
    }

    fn ways(&self, place: &Places) -> Vec<Way> {
        let mut ways = Vec::new();
        for (from, step) in self.steps.iter().enumerate() {
            for to in step.successors() {
                let to = place.at(to);
                let weight = to.map_or(1, |to| step.weight.min(self.steps[to].weight));
                ways.push(Way { from, to, weight });
            }
        }
        ways
    }

    /// What flags are of after an instruction, if `before` is what they were of.
    fn flags_after(
        &self,
        i: usize,
        before: Option<FlagsOf>,
        sunk: &[bool],
        interpreted: &[bool],
    ) -> Option<FlagsOf> {
        let effects = &self.steps[i].effects;
        if interpreted[i] || effects.goes_anywhere() {
            return None;
        }
        if effects.writes_flags {
            return effects.flags_of.filter(|_| sunk[i]);
        }
        before
            .filter(|_| !effects.reads_all_flags)
            .and_then(|of| effects.after(of))
    }

    /// Whether flags that are not in the frame have to be put there before an instruction.
    fn needs_frame(&self, i: usize, before: Option<FlagsOf>, interpreted: &[bool]) -> bool {
        let (step, effects) = (&self.steps[i], &self.steps[i].effects);
        let Some(of) = before.filter(|_| step.flags_looked_at) else {
            return false;
        };
        let lost = !effects.writes_flags && step.flags_wanted_after && effects.after(of).is_none();
        interpreted[i] || effects.reads_all_flags || effects.goes_anywhere() || lost
    }

    /// What flags are of before each instruction; `None` if that does not come to rest.
    fn known(
        &self,
        ways: &[Way],
        sunk: &[bool],
        interpreted: &[bool],
    ) -> Option<Vec<Option<FlagsOf>>> {
        let mut known: Vec<Known> = vec![None; self.steps.len()];
        for _ in 0..ROUNDS {
            let mut changed = false;
            for i in 0..known.len() {
                let new = self.agreed(i, ways, &known, sunk, interpreted);
                changed |= new != known[i];
                known[i] = new;
            }
            if !changed {
                return Some(known.into_iter().map(Option::flatten).collect());
            }
        }
        None
    }

    /// What the ways to an instruction agree on, or the one that is taken most is to be served with.
    fn agreed(
        &self,
        i: usize,
        ways: &[Way],
        known: &[Known],
        sunk: &[bool],
        interpreted: &[bool],
    ) -> Known {
        if !self.steps[i].flags_looked_at {
            return None;
        }
        let start = (self.steps[i].offset == self.head).then_some((0, None));
        let inside = ways
            .iter()
            .filter(|way| way.to == Some(i))
            .filter_map(|way| {
                let before = known[way.from];
                let anew = self.steps[way.from].effects.writes_flags || interpreted[way.from];
                let before = if anew { Some(before.flatten()) } else { before };
                before.map(|before| {
                    (
                        way.weight,
                        self.flags_after(way.from, before, sunk, interpreted),
                    )
                })
            });
        let all: Vec<(u32, Option<FlagsOf>)> = inside.chain(start).collect();
        let most = all.iter().map(|(weight, _)| *weight).max()?;
        let mut often = all.iter().filter(|(weight, _)| *weight == most);
        let (_, first) = *often.next()?;
        let agree = often.all(|(_, other)| *other == first);
        let one = all.iter().all(|(_, other)| *other == first);
        Some(first.filter(|_| one || (agree && self.first_round(i, interpreted).is_some())))
    }

    /// The end of a round that begins at an instruction with flags in the frame: where nobody looks at them any more.
    pub(super) fn first_round(&self, from: usize, interpreted: &[bool]) -> Option<usize> {
        let steps = self.steps.iter().zip(interpreted).enumerate();
        for (i, (step, interpreted)) in steps.skip(from).take(FIRST_ROUND) {
            if i > from && step.offset != self.steps[i - 1].offset + 4 {
                return None;
            }
            if !step.flags_looked_at {
                return Some(i);
            }
            let effects = &step.effects;
            let joined = i > from && step.target;
            // Out of the loop, flags are expected in the frame.
            let inside = |to| self.steps.iter().any(|step| i64::from(step.offset) == to);
            let goes = effects.ends || step.jump().is_some_and(inside);
            if joined || goes || effects.writes_flags || *interpreted {
                return None;
            }
        }
        None
    }

    /// How often, at most, flags that an instruction leaves unstored have to be stored later.
    fn costs(
        &self,
        ways: &[Way],
        sunk: &[bool],
        before: &[Option<FlagsOf>],
        interpreted: &[bool],
    ) -> Vec<u32> {
        let mut costs = vec![0; before.len()];
        loop {
            let mut changed = false;
            for way in ways.iter().rev() {
                let after = self.flags_after(way.from, before[way.from], sunk, interpreted);
                let cost = match way.to {
                    Some(to) if self.steps[to].flags_looked_at => {
                        if after != before[to] {
                            way.weight
                        } else if self.needs_frame(to, before[to], interpreted) {
                            self.steps[to].weight
                        } else if self.steps[to].effects.writes_flags {
                            0
                        } else {
                            costs[to]
                        }
                    }
                    _ => 0,
                };
                if after.is_some() && cost > costs[way.from] {
                    costs[way.from] = cost;
                    changed = true;
                }
            }
            if !changed {
                return costs;
            }
        }
    }

    fn settle_flags(
        &mut self,
        ways: &[Way],
        sunk: &[bool],
        before: &[Option<FlagsOf>],
        interpreted: &[bool],
    ) {
        let mut first_rounds = Vec::new();
        for way in ways {
            let after = self.flags_after(way.from, before[way.from], sunk, interpreted);
            if let Some(to) = way.to
                && self.steps[to].flags_looked_at
                && before[to].is_some()
                && after != before[to]
            {
                first_rounds.push(to);
            }
        }
        first_rounds.extend(
            (0..before.len()).filter(|&i| self.steps[i].offset == self.head && before[i].is_some()),
        );
        let resumed: Vec<Option<usize>> = first_rounds
            .iter()
            .map(|&i| self.first_round(i, interpreted))
            .collect();
        for i in 0..before.len() {
            let stores = self.needs_frame(i, before[i], interpreted);
            let after = self.flags_after(i, before[i], sunk, interpreted);
            let step = &mut self.steps[i];
            step.flags_before = before[i];
            step.stores_flags = stores;
            step.flags_after = after;
            if sunk[i] {
                step.flags = Flags::Sunk;
            }
        }
        for (&i, resumed) in first_rounds.iter().zip(resumed) {
            self.steps[i].first_round = true;
            if let Some(resumed) = resumed {
                self.steps[resumed].target = true;
            }
        }
    }
}

impl Step {
    /// Whether flags are to be where they are expected here.
    pub(super) fn expects_flags(&self, flags: Option<FlagsOf>) -> bool {
        !self.flags_looked_at || self.flags_before == flags
    }
}

impl Emitter {
    /// Makes the host's flags the guest's, of what those are of. Changes RAX.
    pub(super) fn make_flags(&mut self, of: FlagsOf) {
        let w = of.w == Width::W64;
        let difference = of.operation == Operation::Difference;
        let a = match self.in_home(of.a).filter(|_| difference) {
            Some(Rm::Reg(reg)) => reg,
            _ => {
                self.sum_into(RAX, w, of.a);
                RAX
            }
        };
        let operation = if difference { Alu::Cmp } else { Alu::Add };
        match (of.b.register, self.in_home(of.b)) {
            (None, _) => self.asm.alu_constant(operation, w, a, of.b.plus),
            (_, Some(b)) => self.asm.alu(operation, w, a, b),
            _ => {
                let b = self.take();
                self.sum_into(b, w, of.b);
                self.asm.alu(operation, w, a, b);
                self.release(b);
            }
        }
        if !difference {
            self.asm.cmc();
        }
        self.asm.flags_changed = false;
    }

    /// Where an operand is without further code, if it is a register's.
    fn in_home(&self, operand: Operand) -> Option<Rm> {
        let register = operand.register.filter(|_| operand.plus == 0)?;
        Some(self.general(register))
    }

    fn sum_into(&mut self, to: Reg, w: bool, operand: Operand) {
        let Some(register) = operand.register else {
            return self.asm.constant(to, i64::from(operand.plus) as u64);
        };
        let from = self.general(register);
        self.asm.load(w, to, from);
        if operand.plus != 0 {
            let sum = Mem::at(to, operand.plus);
            self.asm.lea(w, to, sum);
        }
    }

    /// Has flags in the frame that are not, if there are such.
    pub(super) fn store_sunk(&mut self, flags: Option<FlagsOf>) {
        if let Some(of) = flags {
            self.make_flags(of);
            self.store_flags();
        }
    }
}
