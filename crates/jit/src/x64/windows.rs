//! Chooses the accesses of a loop that keep the page which they were in, its window, and the jumps back that need not poll,
//! as a window ends in time.

use super::frame::WINDOWS;
use super::loops::Step;
use super::nesting::{self, Cycle};
use super::record::fields;

/// Instructions between polls, at most.
const PACE: i64 = 1 << 16;

/// Chooses the instructions that walk through memory: by sums of registers that change by such sums only, as far as the
/// inner loop around them goes. How many.
pub(super) fn open_windows(steps: &mut [Step], cycles: &[Cycle]) -> u8 {
    let steady: Vec<u32> = cycles.iter().map(|cycle| steady_in(steps, cycle)).collect();
    give_windows(steps, 0, |i, step| {
        let steady = nesting::inmost(cycles, i).map_or(0, |cycle| steady[cycle]);
        let address = step.effects.address;
        address.is_some_and(|terms| terms & !steady == 0)
    })
}

/// Gives the instructions that want one a window, the most executed first, with numbers from `taken` on. How many.
fn give_windows(steps: &mut [Step], taken: u8, wants: impl Fn(usize, &Step) -> bool) -> u8 {
    let mut wanting: Vec<&mut Step> = steps
        .iter_mut()
        .enumerate()
        .filter_map(|(i, step)| wants(i, step).then_some(step))
        .collect();
    wanting.sort_by_key(|step| std::cmp::Reverse(step.weight));
    wanting.truncate(usize::from(WINDOWS - taken));
    for (number, step) in (taken..).zip(&mut wanting) {
        step.window = Some(number);
    }
    wanting.len() as u8
}

/// Finds the jumps back that need not poll, and has the windows that poll for them known.
pub(super) fn set_paces(steps: &mut [Step]) {
    for last in 0..steps.len() {
        let Some(pace) = pace(steps, last) else {
            continue;
        };
        steps[last].paced = true;
        let window = steps[pace.step].window;
        let (Some(stride), Some(window)) = (pace.stride, window) else {
            continue;
        };
        steps[pace.step].stride = Some(stride);
        for step in steps.iter_mut() {
            if step.effects.writes >> stride & 1 != 0 {
                step.closes |= 1 << window;
            }
        }
    }
}

/// What moves on in each round of a loop inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    /// The access whose address that is.
    step: usize,
    /// By this register, which may be zero; `None`: by a constant that is not.
    stride: Option<u8>,
}

/// Of an instruction that closes a round, straight from its head but for ways out: an access with a window in the round whose
/// address moves on, so that the window ends after [`PACE`] instructions at most. A path without end that takes such jumps only
/// takes one of them all the time, as no other jump back is in a round.
fn pace(steps: &[Step], last: usize) -> Option<Pace> {
    let end = &steps[last];
    let head = end.jump().filter(|&to| to <= i64::from(end.offset))?;
    let length = (i64::from(end.offset) - head) / 4 + 1;
    let first = (last + 1).checked_sub(length as usize)?;
    let round = &steps[first..=last];
    if i64::from(round[0].offset) != head || round.len() < 2 {
        return None;
    }
    let leaves = |step: &Step| {
        let out = |to| !(head..=i64::from(end.offset)).contains(&to) && to > head;
        !step.effects.ends && step.jump().is_none_or(out)
    };
    if !round[..round.len() - 1].iter().all(leaves) {
        return None;
    }
    (first..=last).find_map(|step| {
        let stride = moves_on(round, &steps[step], length)?;
        Some(Pace { step, stride })
    })
}

/// By what the address of an access moves on in each round, if its window ends soon enough: a constant, or a register.
fn moves_on(round: &[Step], step: &Step, length: i64) -> Option<Option<u8>> {
    let exclusive = step.word >> 24 & 0x3f == 8;
    if step.window.is_none() || step.on_trial || exclusive {
        return None;
    }
    let writers = |n: u8| {
        let writes = move |step: &&Step| step.effects.writes >> n & 1 != 0;
        round.iter().filter(writes)
    };
    let by_constants = |n: u8| {
        let moves = writers(n).map(|step| {
            let moved = step.effects.moved.filter(|moved| moved.0 == n);
            moved.map(|moved| moved.1)
        });
        let by: i64 = moves.sum::<Option<i64>>()?;
        (by != 0 && length * (4096 / by.unsigned_abs() as i64) <= PACE).then_some(None)
    };
    let by_register = |n: u8| {
        let mut writers = writers(n);
        let (add, None) = (writers.next()?, writers.next()) else {
            return None;
        };
        let [d, a, b] = fields(add.word);
        // add xN, xN, xM
        let stride = match add.word & 0xffe0_fc00 == 0x8b00_0000 && d == n {
            true if a == n => b,
            true if b == n => a,
            _ => return None,
        };
        let still = round.iter().all(|s| s.effects.writes >> stride & 1 == 0);
        (stride != 31 && still && length * 4096 <= PACE).then_some(Some(stride))
    };
    if let Some(span) = step.effects.span {
        return by_constants(span.base).or_else(|| by_register(span.base));
    }
    // Of [xN, xM]: one moves, and the other does not.
    let [_, n, m] = fields(step.word);
    let by_index = step.word & 0x3b20_fc00 == 0x3820_6800 && m != 31;
    if !by_index || n == m || n == 31 {
        return None;
    }
    match (writers(n).next(), writers(m).next()) {
        (Some(_), None) => by_constants(n).or_else(|| by_register(n)),
        (None, Some(_)) => by_constants(m).or_else(|| by_register(m)),
        _ => None,
    }
}

/// Chooses the instructions that follow a list, or what else is found from one piece to the next: through registers that come
/// from memory at themselves, as far as the inner loop around goes. The pieces may be in one page, or anywhere. `taken`:
/// numbers of windows. How many.
pub(super) fn try_windows(steps: &mut [Step], cycles: &[Cycle], taken: u8) -> u8 {
    let followed: Vec<u32> = cycles
        .iter()
        .map(|cycle| followed_in(steps, cycle))
        .collect();
    let trials = give_windows(steps, taken, |i, step| {
        let followed = nesting::inmost(cycles, i).map_or(0, |cycle| followed[cycle]);
        let span = step.effects.span;
        step.window.is_none() && span.is_some_and(|s| followed >> s.base & 1 != 0)
    });
    for step in steps {
        step.on_trial = step.window.is_some_and(|number| number >= taken);
    }
    trials
}

/// Registers with addresses that come from memory at an earlier one of them, from round to round.
fn followed_in(steps: &[Step], cycle: &Cycle) -> u32 {
    let inside = || {
        let members = steps.iter().enumerate();
        members.filter_map(|(i, step)| nesting::has(&cycle.members, i).then_some(&step.effects))
    };
    let loads = inside().filter_map(|effects| {
        let span = effects.span.filter(|span| !span.write)?;
        Some((span.base, effects.writes & !effects.sums))
    });
    let mut followed = 0;
    for (base, loaded) in loads {
        let mut from = loaded;
        loop {
            let sums = inside().filter(|effects| effects.sum_terms & from != 0);
            let more = sums.fold(from, |all, effects| all | effects.sums);
            if more == from {
                break;
            }
            from = more;
        }
        if from >> base & 1 != 0 {
            followed |= from;
        }
    }
    followed
}

/// Registers that instructions of a cycle change by sums of such registers only.
fn steady_in(steps: &[Step], cycle: &Cycle) -> u32 {
    let mut steady = u32::MAX;
    loop {
        let before = steady;
        for (i, step) in steps.iter().enumerate() {
            let effects = &step.effects;
            let sums = if effects.sum_terms & !steady == 0 {
                effects.sums
            } else {
                0
            };
            if nesting::has(&cycle.members, i) {
                steady &= !(effects.writes & !sums);
            }
        }
        if steady == before {
            return steady;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::x64::loops::tests::{SUM, find};

    /// Numbers of windows that are on trial, by instruction.
    fn on_trial(words: &[u32]) -> Vec<Option<u8>> {
        let found = find(words, 0).unwrap();
        let trials = found.steps.iter().filter(|step| step.on_trial).count();
        assert_eq!(usize::from(found.trials), trials);
        found
            .steps
            .iter()
            .map(|step| step.window.filter(|_| step.on_trial))
            .collect()
    }

    #[test]
    fn what_walks_on_polls_where_its_window_ends() {
        let paced = |words: &[u32]| {
            let found = find(words, 0).unwrap();
            found.steps.last().unwrap().paced
        };
        assert!(paced(&SUM[..4]));
        // By the next value of w1 instead of 4: ldr w1, [x0]; add x0, x0, x1
        let words = [0xb940_0001, 0x8b01_0000, 0xf100_0463, 0x54ff_ffa1];
        assert!(!paced(&words));
        // To and fro: ldr w1, [x0], #4; sub x0, x0, #4
        let words = [0xb840_4401, 0xd100_1000, 0xf100_0463, 0x54ff_ffa1];
        assert!(!paced(&words));
        // The access is jumped over: cbz x4, #8
        let words = [0xb400_0044, 0xb840_4401, 0xf100_0463, 0x54ff_ffa1];
        assert!(!paced(&words));
        // Left instead: cbz x4, #32; ldr w1, [x0], #4
        let words = [0xb400_0104, 0xb840_4401, 0xf100_0463, 0x54ff_ffa1];
        assert!(paced(&words));
        // Another jump to the head: cbz x4, 0 before or after the access
        let words = [0xb840_4401, 0xb4ff_ffe4, 0xf100_0463, 0x54ff_ffa1];
        assert!(!paced(&words));
        // A loop inside: sub x4, x4, #1; cbnz x4, -4
        let words = [
            0xb840_4401,
            0xd100_0484,
            0xb5ff_ffe4,
            0xf100_0463,
            0x54ff_ff81,
        ];
        assert!(!paced(&words));
        // Byte by byte, with so many instructions that it takes long.
        let mut words = vec![0x3840_1401];
        words.extend([0x9100_0442; 20]);
        words.extend([0xf100_0463, 0x54ff_fd41]);
        assert!(!paced(&words));
        words.drain(2..10);
        words[13] = 0xf100_0463;
        words[14] = 0x54ff_fe41;
        assert!(paced(&words));
    }

    #[test]
    fn a_window_that_moves_on_by_a_register_is_not_kept_if_that_is_zero() {
        // strb w1, [x2, x0]; add x0, x0, x3; subs x4, x4, #1; b.ne 0; add x3, x3, #1; cbnz x3, 0
        let words = [
            0x3820_6841,
            0x8b03_0000,
            0xf100_0484,
            0x54ff_ffa1,
            0x9100_0463,
            0xb5ff_ff63,
        ];
        let found = find(&words, 0).unwrap();
        assert!(found.steps[3].paced);
        assert!(!found.steps[5].paced);
        assert_eq!(found.steps[0].window, Some(0));
        assert_eq!(found.steps[0].stride, Some(3));
        let closes: Vec<u16> = found.steps.iter().map(|step| step.closes).collect();
        assert_eq!(closes, [0, 0, 0, 0, 1, 0]);
        let paced = |words: &[u32]| find(words, 0).unwrap().steps[3].paced;
        // add x0, x3, x0
        assert!(paced(&[0x3820_6841, 0x8b00_0060, 0xf100_0484, 0x54ff_ffa1]));
        // Eight times the index: str x1, [x2, x0, lsl #3]; with a shift: add x0, x0, x3, lsl #1; half of it: add w0, w0, w3
        assert!(!paced(&[
            0xf820_7841,
            0x8b03_0000,
            0xf100_0484,
            0x54ff_ffa1
        ]));
        assert!(!paced(&[
            0x3820_6841,
            0x8b03_0400,
            0xf100_0484,
            0x54ff_ffa1
        ]));
        assert!(!paced(&[
            0x3820_6841,
            0x0b03_0000,
            0xf100_0484,
            0x54ff_ffa1
        ]));
        // Both registers move.
        let words = [0x3820_6841, 0x8b03_0000, 0xcb03_0042, 0xb5ff_ffa0];
        assert!(!paced(&words));
    }

    #[test]
    fn what_follows_a_list_is_tried() {
        // ldr x0, [x0]; ldrb w1, [x0, #8]; cbnz x0, 0
        let words = [0xf940_0000, 0x3940_2001, 0xb5ff_ffc0];
        assert_eq!(on_trial(&words), [Some(0), Some(1), None]);
        // ldr x2, [x0, #8]; str x1, [x0]; mov x0, x2; cbnz x2, 0
        let words = [0xf940_0402, 0xf900_0001, 0xaa02_03e0, 0xb5ff_ffa2];
        assert_eq!(on_trial(&words), [Some(0), Some(1), None, None]);
        // ldr x2, [x0], #8; ldr x3, [x2]; cbnz x3, 0: what is pointed to points to nothing that is accessed.
        let words = [0xf840_8402, 0xf940_0043, 0xb5ff_ffc3];
        assert_eq!(on_trial(&words), [None; 3]);
    }

    #[test]
    fn what_walks_has_a_window() {
        let found = find(&SUM, 0).unwrap();
        assert_eq!(found.steps[0].window, Some(0));
        assert_eq!(found.windows, 1);
        // mul x1, x2, x2; strb w3, [x1]; add x1, x1, x2; cbnz x3, 4; cbnz x2, 0
        let sieve = [
            0x9b02_7c41,
            0x3900_0023,
            0x8b02_0021,
            0xb5ff_ffc3,
            0xb5ff_ff82,
        ];
        assert_eq!(find(&sieve, 0).unwrap().windows, 1);
        // ldr x2, [x0, x1, lsl #3]; add x1, x1, x3; b 0
        let found = find(&[0xf861_7802, 0x8b03_0021, 0x17ff_fffe], 0).unwrap();
        assert_eq!(found.windows, 1);
    }
}
