//! What the figures come to, and how it is shown.

use super::rows::{EVEN, Row, Target};

/// Least, median and most of some figures.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Summary {
    /// `None` of none.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(half)?
        } else {
            (values.get(half.checked_sub(1)?)? + values.get(half)?) / 2.0
        };
        Some(Summary {
            least: *values.first()?,
            median,
            most: *values.last()?,
        })
    }
}

/// A row with its figures.
pub struct Result {
    pub row: &'static Row,
    pub ours: Summary,
    pub peer: Summary,
    /// Ratio by the host's processor time.
    pub processor: Option<f64>,
    /// The host's own time for the same work.
    pub native: Option<f64>,
}

/// What a row's figures mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Reached,
    /// Better than the peer, and not as much as it must.
    Short,
    /// Worse than the peer.
    Loss,
}

impl Result {
    /// How many times as fast (or as cheap) as the peer.
    pub fn ratio(&self) -> f64 {
        if self.row.unit.is_rate() {
            self.ours.median / self.peer.median
        } else {
            self.peer.median / self.ours.median
        }
    }

    pub fn verdict(&self) -> Verdict {
        let reached = match self.row.target {
            Target::Ratio(least) => self.ratio() >= least,
            Target::Most(most) => self.ours.median <= most,
            Target::More(more) => self.ours.median <= self.peer.median + more,
        };
        match self.row.target {
            _ if reached => Verdict::Reached,
            Target::Ratio(_) if self.ratio() >= EVEN => Verdict::Short,
            _ => Verdict::Loss,
        }
    }

    fn cells(&self) -> [String; 9] {
        let unit = self.row.unit;
        let show = |s: &Summary| {
            format!(
                "{} ({:.0}%)",
                unit.show(s.median),
                100.0 * (s.most - s.least) / s.median
            )
        };
        let times = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.2}x"));
        [
            self.row.class.into(),
            self.row.name.into(),
            show(&self.ours),
            show(&self.peer),
            format!("{:.2}x", self.ratio()),
            match self.row.target {
                Target::Ratio(least) => format!("{least}x"),
                Target::Most(most) => format!("at most {}", unit.show(most)),
                Target::More(more) => format!("at most {} more", unit.show(more)),
            },
            match self.verdict() {
                Verdict::Reached => "",
                Verdict::Short => "short",
                Verdict::Loss => "LOSS",
            }
            .into(),
            times(self.processor),
            times(self.native.map(|native| self.ours.median / native)),
        ]
    }
}

const HEAD: [&str; 9] = [
    "class",
    "row",
    "Dormer",
    "peer",
    "ratio",
    "at least",
    "",
    "by CPU time",
    "native",
];

/// The table, in columns or as Markdown.
pub fn show(results: &[Result], markdown: bool) -> String {
    let mut lines = vec![HEAD.map(String::from)];
    lines.extend(results.iter().map(Result::cells));
    let mut widths = [0; HEAD.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        let cells: Vec<_> = line
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                if (2..6).contains(&column) || column > 6 {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        if markdown {
            text += &format!("| {} |\n", cells.join(" | "));
            if i == 0 {
                text += &format!("|{}\n", "---|".repeat(HEAD.len()));
            }
        } else {
            text += cells.join("  ").trim_end();
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::ROWS;

    fn one(value: f64) -> Summary {
        Summary::of(&[value]).unwrap()
    }

    fn result(name: &str, ours: f64, peer: f64) -> Result {
        Result {
            row: ROWS.iter().find(|row| row.name == name).unwrap(),
            ours: one(ours),
            peer: one(peer),
            processor: None,
            native: None,
        }
    }

    #[test]
    fn medians_of_even_and_odd_numbers() {
        assert!(Summary::of(&[]).is_none());
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }

    #[test]
    fn targets_are_held_against_the_figures() {
        assert_eq!(result("sieve", 1.0, 4.0).verdict(), Verdict::Reached);
        assert_eq!(result("sieve", 1.0, 3.9).verdict(), Verdict::Short);
        assert_eq!(result("sieve", 1.0, 0.9).verdict(), Verdict::Loss);
        // A rate: more is better.
        assert_eq!(
            result("instructions", 200.0, 100.0).verdict(),
            Verdict::Reached
        );
        assert_eq!(result("instructions", 50.0, 100.0).verdict(), Verdict::Loss);
        assert_eq!(result("first", 49.0, 10.0).verdict(), Verdict::Reached);
        assert_eq!(result("first", 51.0, 100.0).verdict(), Verdict::Loss);
        assert_eq!(result("resident", 150.0, 100.0).verdict(), Verdict::Reached);
        assert_eq!(result("resident", 165.0, 100.0).verdict(), Verdict::Loss);
    }

    #[test]
    fn losses_are_marked() {
        let text = show(&[result("sieve", 2.0, 1.0)], true);
        assert!(text.contains("LOSS") && text.contains("0.50x"), "{text}");
    }
}
