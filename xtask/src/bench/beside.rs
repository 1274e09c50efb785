//! Programs beside each other: the same work in alternated runs, medians, spread and processor time.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::table::Summary;

/// Less processor time than this in all, and the kernel's hundredths of a second say nothing.
const LEAST: f64 = 0.1;

/// Seconds of a run that says little alone.
const SHORT: f64 = 0.1;

/// What the runs of one program took.
#[derive(Default)]
pub struct Runs {
    /// Seconds by the clock, of each.
    clock: Vec<f64>,
    /// Seconds of the host's processors, of all.
    processor: f64,
}

impl Runs {
    /// Runs a command, which must succeed, with its output thrown away.
    pub fn add(&mut self, command: &mut Command) -> Result<()> {
        let (before, start) = (processor_time()?, Instant::now());
        let output = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{command:?}"))?;
        self.clock.push(start.elapsed().as_secs_f64());
        self.processor += processor_time()? - before;
        let status = output.status;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(status.success(), "{command:?}: {status}: {said}");
        Ok(())
    }

    /// Whether `pairs` runs were made, and of what is over in a moment ten times as many.
    pub fn enough(&self, pairs: usize) -> bool {
        let pairs = pairs.max(1);
        let short = self.clock.iter().sum::<f64>() < SHORT * self.clock.len() as f64;
        self.clock.len() >= if short { 10 * pairs } else { pairs }
    }

    fn summary(&self) -> Option<Summary> {
        Summary::of(&self.clock)
    }
}

/// Runs programs in rounds until each ran `pairs` times, after a round that does not count: it brings programs and
/// files into the host's cache. Each round begins with another program, since the first that fills memory pays for
/// what the host under a virtual machine took back.
pub fn rounds(
    pairs: usize,
    programs: usize,
    run: &mut dyn FnMut(usize, &mut Runs) -> Result<()>,
) -> Result<Vec<Runs>> {
    for program in 0..programs {
        run(program, &mut Runs::default())?;
    }
    let mut all: Vec<Runs> = (0..programs).map(|_| Runs::default()).collect();
    let mut first = 0;
    while !all[0].enough(pairs) {
        for program in (0..programs).map(|turn| (first + turn) % programs) {
            run(program, &mut all[program])?;
        }
        first += 1;
    }
    Ok(all)
}

/// Seconds of processor time of all children that have ended.
fn processor_time() -> Result<f64> {
    super::guest::ticks("self", 13)
}

/// The head of the table; `peers` are the programs that Dormer stands beside.
pub fn head(peers: &[&str]) -> String {
    let mut lines = [
        row("", "Dormer", peers, "ratio", "by CPU time"),
        String::new(),
    ];
    let columns = peers.len() + 4;
    lines[1] = format!("|{}", "---|".repeat(columns));
    lines.join("\n")
}

fn row(name: &str, ours: &str, peers: &[&str], ratio: &str, processor: &str) -> String {
    let peers: Vec<String> = peers.iter().map(|peer| format!("{peer:>15}")).collect();
    format!(
        "| {name:<18} | {ours:>15} | {} | {ratio:>11} | {processor:>11} |",
        peers.join(" | ")
    )
}

/// A line of the table; the ratio is that to the best of the peers. Peers that cannot do the work have no runs.
pub fn line(name: &str, ours: &Runs, peers: &[Runs]) -> String {
    let show = |runs: &Runs| {
        runs.summary().map_or("-".into(), |s| {
            let spread = 100.0 * (s.most - s.least) / s.median;
            if s.median < 0.1 {
                format!("{:.1} ms ({spread:.0} %)", s.median * 1e3)
            } else {
                format!("{:.2} s ({spread:.0} %)", s.median)
            }
        })
    };
    let best = |of: &dyn Fn(&Runs) -> Option<f64>| {
        let values: Vec<f64> = peers.iter().filter_map(of).collect();
        values.into_iter().reduce(f64::min)
    };
    let ratio = |peer: Option<f64>, ours: Option<f64>| match (peer, ours) {
        (Some(peer), Some(ours)) if ours > 0.0 => {
            let ratio = peer / ours;
            // What is within the noise is no loss.
            let mark = if ratio < super::rows::EVEN {
                " LOSS"
            } else {
                ""
            };
            format!("{ratio:.2}x{mark}")
        }
        _ => "-".into(),
    };
    let clock = |runs: &Runs| runs.summary().map(|s| s.median);
    let processor = |runs: &Runs| (runs.processor >= LEAST).then_some(runs.processor);
    let peer_texts: Vec<String> = peers.iter().map(show).collect();
    let peer_texts: Vec<&str> = peer_texts.iter().map(String::as_str).collect();
    row(
        name,
        &show(ours),
        &peer_texts,
        &ratio(best(&clock), clock(ours)),
        &ratio(best(&processor), processor(ours)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(clock: &[f64], processor: f64) -> Runs {
        Runs {
            clock: clock.to_vec(),
            processor,
        }
    }

    #[test]
    fn the_best_peer_counts() {
        let text = line(
            "row",
            &runs(&[2.0, 2.0, 3.0], 4.0),
            &[runs(&[1.0], 8.0), runs(&[5.0], 6.0), Runs::default()],
        );
        assert!(text.contains("2.00 s (50 %)"), "{text}");
        assert!(text.contains("0.50x LOSS"), "{text}");
        assert!(text.contains("1.50x"), "{text}");
        assert!(text.contains(" - |"), "{text}");
    }

    #[test]
    fn short_work_is_done_more_often() {
        assert!(!runs(&[], 0.0).enough(1));
        assert!(runs(&[1.0, 2.0], 0.0).enough(2));
        assert!(!runs(&[1.0, 2.0], 0.0).enough(3));
        assert!(!runs(&[0.01; 19], 0.0).enough(2));
        assert!(runs(&[0.01; 20], 0.0).enough(2));
    }

    #[test]
    fn every_program_goes_first() {
        let mut order = Vec::new();
        let all = rounds(3, 2, &mut |program, runs| {
            order.push(program);
            runs.clock.push(1.0);
            Ok(())
        })
        .unwrap();
        assert_eq!(order, [0, 1, 0, 1, 1, 0, 0, 1]);
        assert!(all.iter().all(|runs| runs.clock.len() == 3));
    }

    #[test]
    fn children_are_counted() {
        let mut runs = Runs::default();
        let busy = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";
        runs.add(Command::new("sh").args(["-c", busy])).unwrap();
        assert!(runs.processor > 0.0 && runs.clock[0] > 0.0);
        assert!(runs.add(&mut Command::new("false")).is_err());
    }
}
