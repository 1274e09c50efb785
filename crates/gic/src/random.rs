//! A random walk for tests: the same as `tests/observed/walk.h`.

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    pub fn next64(&mut self) -> u64 {
        u64::from(self.next()) << 32 | u64::from(self.next())
    }

    pub fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }

    /// One in eight.
    pub fn few(&mut self) -> u32 {
        self.next() & self.next() & self.next()
    }
}

/// What an observed walk went over.
pub const INTIDS: [u32; 12] = [0, 1, 2, 3, 20, 21, 22, 40, 42, 43, 44, 45];

/// Compares a walk with the hashes of what was observed.
pub struct Observed {
    hash: u64,
    step: usize,
    lines: Vec<&'static str>,
}

impl Observed {
    pub fn new(text: &'static str) -> Observed {
        Observed {
            hash: 0xcbf2_9ce4_8422_2325,
            step: 0,
            lines: text.lines().map(str::trim).collect(),
        }
    }

    /// The answers of one step.
    pub fn step(&mut self, answers: &[u64]) {
        for answer in answers {
            self.hash = (self.hash ^ answer).wrapping_mul(0x100_0000_01b3);
        }
        self.step += 1;
        if self.step.is_multiple_of(100) {
            let line = self.lines[self.step / 100 - 1];
            let last = self.step;
            assert_eq!(
                format!("{:x}", self.hash),
                line,
                "one of the hundred steps to {last}"
            );
        }
    }

    pub fn steps(&self) -> usize {
        self.lines.len() * 100
    }
}
