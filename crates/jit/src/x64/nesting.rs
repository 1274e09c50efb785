//! Which loops are inside which.

/// A set of instructions, by their place in a loop of at most [`MOST`](super::loops::MOST).
type Set = [u64; super::loops::MOST / 64];

/// What leads round and round.
pub struct Cycle {
    pub members: Set,
    /// Cycles that it is in, itself among them.
    pub depth: u32,
    /// None is in it.
    pub inmost: bool,
}

pub fn has(set: &Set, i: usize) -> bool {
    set[i / 64] >> (i % 64) & 1 != 0
}

/// The inmost of some cycles that an instruction is in, by its place among them.
pub fn inmost(cycles: &[Cycle], i: usize) -> Option<usize> {
    cycles.iter().rposition(|cycle| has(&cycle.members, i))
}

fn insert(set: &mut Set, i: usize) {
    set[i / 64] |= 1 << (i % 64);
}

/// All that the first is led to by edges, of the members, with the first itself.
fn reach(members: &Set, first: usize, edges: &[Vec<usize>]) -> Set {
    let mut reached = Set::default();
    let mut todo = vec![first];
    insert(&mut reached, first);
    while let Some(from) = todo.pop() {
        for &to in &edges[from] {
            if has(members, to) && !has(&reached, to) {
                insert(&mut reached, to);
                todo.push(to);
            }
        }
    }
    reached
}

/// The cycles, outer ones before those in them. `next`: what follows each instruction. Compilers put a loop's head before
/// the rest of it: what is still a cycle without the first instruction of one is a loop inside it.
pub fn cycles(next: &[Vec<usize>]) -> Vec<Cycle> {
    let mut before = vec![Vec::new(); next.len()];
    for (from, next) in next.iter().enumerate() {
        for &to in next {
            before[to].push(from);
        }
    }
    let mut all = Set::default();
    for i in 0..next.len() {
        insert(&mut all, i);
    }
    let mut found = Vec::new();
    let mut todo = vec![(all, 1, None)];
    while let Some((mut left, depth, around)) = todo.pop() {
        for first in 0..next.len() {
            if !has(&left, first) {
                continue;
            }
            let (ahead, behind) = (reach(&left, first, next), reach(&left, first, &before));
            let mut members = Set::default();
            for (i, word) in members.iter_mut().enumerate() {
                *word = ahead[i] & behind[i];
                left[i] &= !*word;
            }
            let alone = members.iter().map(|word| word.count_ones()).sum::<u32>() == 1;
            if alone && !next[first].contains(&first) {
                continue;
            }
            if let Some(around) = around {
                let around: &mut Cycle = &mut found[around];
                around.inmost = false;
            }
            let this = Some(found.len());
            found.push(Cycle {
                members,
                depth,
                inmost: true,
            });
            let mut inside = members;
            inside[first / 64] &= !(1 << (first % 64));
            todo.push((inside, depth + 1, this));
        }
    }
    found.sort_by_key(|cycle| cycle.depth);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depths(next: &[Vec<usize>]) -> Vec<u32> {
        let cycles = cycles(next);
        let depth = |i| {
            let around = cycles.iter().filter(|c| has(&c.members, i));
            around.map(|c| c.depth).max().unwrap_or(0)
        };
        (0..next.len()).map(depth).collect()
    }

    #[test]
    fn an_inner_loop_is_deeper() {
        // 1 and 2 in 0 to 3.
        let next = [vec![1], vec![2], vec![1, 3], vec![0, 4], vec![]];
        assert_eq!(depths(&next), [1, 2, 2, 1, 0]);
        assert!(!cycles(&next)[0].inmost);
        assert!(cycles(&next)[1].inmost);
    }

    #[test]
    fn ways_back_to_one_loop_do_not_make_more_of_it() {
        // Back from 1 and from 2, where 3 is inside.
        let next = [vec![1], vec![0, 2], vec![3], vec![3, 4], vec![0, 5], vec![]];
        assert_eq!(depths(&next), [1, 1, 1, 2, 1, 0]);
    }
}
