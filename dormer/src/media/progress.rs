//! A line on the terminal that says how far long work is.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use media::extract::Progress;
use media::inspect::text::size;

/// Work that is over before this shows nothing.
const PATIENCE: Duration = Duration::from_millis(700);
const INTERVAL: Duration = Duration::from_millis(100);

/// Runs `work` and shows its progress, if the standard error is a terminal.
pub fn shown<T>(progress: &Progress, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let shower = scope.spawn(|| show(progress, &over));
        let result = work();
        over.store(true, Ordering::Release);
        shower.thread().unpark();
        result
    })
}

fn show(progress: &Progress, over: &AtomicBool) {
    let start = Instant::now();
    let mut shown = false;
    while !over.load(Ordering::Acquire) {
        let (done, total) = (
            progress.done.load(Ordering::Relaxed),
            progress.total.load(Ordering::Relaxed),
        );
        if start.elapsed() > PATIENCE && total > 0 {
            let speed = (done as f64 / start.elapsed().as_secs_f64()) as u64;
            eprint!(
                "\r{:3} %  {} of {}, {}/s \x1b[K",
                done.min(total) * 100 / total,
                size(done),
                size(total),
                size(speed)
            );
            let _ = std::io::stderr().flush();
            shown = true;
        }
        thread::park_timeout(INTERVAL);
    }
    if shown {
        eprint!("\r\x1b[K");
    }
}
