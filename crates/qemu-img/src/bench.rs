//! `bench`.

use crate::arguments::{long_switch, long_value, switch, value};
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, QUIET, SHARE};
use crate::parse;
use crate::session::{Failure, Session};
use parking_lot::{Mutex, RwLock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use storage::format::{Chain, ChainOptions, FormatError};

pub const USAGE: &str = "[-q] [-f FORMAT | --image-opts] [-t CACHE] [-c COUNT] [-d DEPTH] [-o OFFSET] [-s BYTES] [-S STEP]\n\
    [-U] [-w [--pattern BYTE] [--flush-interval REQUESTS [--no-drain]]] FILE";

/// More threads than this do not make requests faster.
const MAX_THREADS: u64 = 64;
const MAX: u64 = i32::MAX as u64;

struct Plan {
    count: u64,
    depth: u64,
    offset: u64,
    bytes: u64,
    step: u64,
    write: bool,
    pattern: u8,
    flush_interval: u64,
    drain: bool,
}

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        value('t', "cache"),
        value('c', "count"),
        value('d', "depth"),
        value('o', "offset"),
        value('s', "buffer-size"),
        value('S', "step-size"),
        value('i', "aio"),
        switch('n', "native"),
        switch('w', "write"),
        long_value("pattern"),
        long_value("flush-interval"),
        long_switch("no-drain"),
        SHARE,
        QUIET,
        OBJECT,
    ];
    let arguments = parse("bench", &flags, words)?;
    names::no_objects(&arguments)?;
    for option in ["native", "aio"] {
        if arguments.has(option) && arguments.get("aio") != Some("threads") {
            return Err(Failure::message(format!(
                "--{option}: requests are made by threads; other back ends are not supported"
            )));
        }
    }
    let durable = names::durable(&arguments, "cache", true, "cache")?;
    let number = |option: &str, what: &str, least, default| -> Result<u64, Failure> {
        arguments
            .get(option)
            .map_or(Ok(default), |text| names::count(text, what, least, MAX))
    };
    let mut plan = Plan {
        count: number("count", "request count", 1, 75_000)?,
        depth: number("depth", "queue depth", 1, 64)?,
        offset: arguments.get("offset").map_or(Ok(0), |text| {
            names::count(text, "offset", 0, i64::MAX as u64)
        })?,
        bytes: number("buffer-size", "buffer size", 1, 4096)?,
        step: number("step-size", "step size", 0, 0)?,
        write: arguments.has("write"),
        pattern: arguments
            .get("pattern")
            .map_or(Ok(0), |text| names::count(text, "pattern byte", 0, 255))?
            as u8,
        flush_interval: number("flush-interval", "flush interval", 0, 0)?,
        drain: !arguments.has("no-drain"),
    };
    if plan.step == 0 {
        plan.step = plan.bytes;
    }
    let name = names::one(&arguments)?;
    if !plan.write && plan.flush_interval > 0 {
        return Err(Failure::message(
            "--flush-interval is only available in write tests",
        ));
    }
    if plan.flush_interval > 0 && plan.flush_interval < plan.depth {
        return Err(Failure::message(
            "Flush interval can't be smaller than depth",
        ));
    }
    let named = Named::new(&arguments, name, "format")?;
    let options = ChainOptions {
        durable,
        ..names::reading(&arguments)
    };
    let chain = if plan.write {
        named.open_to_write(session, &options)?
    } else {
        named.open(&options)?
    };
    if plan.bytes > chain.size() {
        return Err(Failure::message("The image is smaller than one request"));
    }
    if !arguments.has("quiet") {
        session.print(&format!(
            "Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size {})\n",
            plan.count,
            if plan.write { "write" } else { "read" },
            plan.bytes,
            plan.depth,
            plan.offset,
            plan.step
        ));
        if plan.flush_interval > 0 {
            session.print(&format!(
                "Sending flush every {} requests\n",
                plan.flush_interval
            ));
        }
    }
    let start = Instant::now();
    requests(session, &chain, &plan)?;
    if !arguments.has("quiet") {
        session.print(&format!(
            "Run completed in {:.3} seconds.\n",
            start.elapsed().as_secs_f64()
        ));
    }
    chain.top().flush()?;
    Ok(0)
}

fn requests(session: &Session, chain: &Chain, plan: &Plan) -> Result<(), Failure> {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None);
    // Requests share it; a flush that drains has it alone.
    let in_flight = RwLock::new(());
    let meter = session.progress(false);
    let work = || -> Result<(), FormatError> {
        let mut buffer = vec![plan.pattern; plan.bytes as usize];
        let span = chain.size() - plan.bytes + 1;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.count || failed.lock().is_some() {
                return Ok(());
            }
            meter.tell(number, plan.count)?;
            // Past the end it begins again at the start.
            let offset = (plan.offset + number.wrapping_mul(plan.step)) % span;
            let request = in_flight.read();
            if plan.write {
                chain.write(offset, &buffer)?;
            } else {
                chain.read(offset, &mut buffer)?;
            }
            drop(request);
            if plan.flush_interval > 0 && (number + 1).is_multiple_of(plan.flush_interval) {
                let drained = plan.drain.then(|| in_flight.write());
                chain.top().flush()?;
                drop(drained);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.depth.min(MAX_THREADS).min(plan.count) {
            scope.spawn(|| {
                if let Err(error) = work() {
                    failed.lock().get_or_insert(error);
                }
            });
        }
    });
    match failed.into_inner() {
        None => Ok(()),
        Some(FormatError::Interrupted) => Err(Failure::Interrupted),
        Some(error) => Err(Failure::message(format!("Failed request: {error}"))),
    }
}
