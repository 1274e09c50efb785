//! The other implementation: `guests/oracle/oracle.c` under `qemu-aarch64`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::{BRK, CODE, Case, DATA, End, Outcome, SLOT, SLOTS, State};

const SOURCE: &str = include_str!("../../../guests/oracle/oracle.c");
/// Bytes of a case or result: X, SP, PC, four words, the sum, V, data.
const RECORD: usize = 33 * 8 + 4 * 4 + 8 + 32 * 16 + DATA;

const SIGILL: u32 = 4;
const SIGTRAP: u32 = 5;
const SIGBUS: u32 = 7;
const SIGSEGV: u32 = 11;

/// A running oracle.
pub struct Oracle {
    child: Child,
    program: PathBuf,
}

impl Oracle {
    /// Builds and starts it. It implements exactly what Neoverse N1 does (Armv8.2, no pointer authentication).
    ///
    /// # Errors
    ///
    /// What is to be installed, if a tool is missing.
    pub fn start() -> Result<Oracle> {
        let program = build()?;
        let child = Command::new("qemu-aarch64")
            .args(["-cpu", "neoverse-n1"])
            .arg(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("qemu-aarch64 does not start: install qemu-user")?;
        Ok(Oracle { child, program })
    }

    /// Executes up to [`SLOTS`] cases, the first in the first slot of code and so on.
    pub fn run(&mut self, cases: &[Case]) -> Result<Vec<Outcome>> {
        ensure!(cases.len() <= SLOTS, "a batch has at most {SLOTS} cases");
        let mut bytes = Vec::with_capacity(4 + cases.len() * RECORD);
        bytes.extend((cases.len() as u32).to_le_bytes());
        for case in cases {
            encode(case, &mut bytes);
        }
        let input = self.child.stdin.as_mut().context("no standard input")?;
        input.write_all(&bytes).context("the oracle is gone")?;
        input.flush()?;
        let mut results = vec![0; cases.len() * RECORD];
        let output = self.child.stdout.as_mut().context("no standard output")?;
        output
            .read_exact(&mut results)
            .context("the oracle ended in the middle of a batch")?;
        let (records, _) = results.as_chunks::<RECORD>();
        Ok(records
            .iter()
            .enumerate()
            .map(|(i, record)| decode(record, CODE + SLOT * i as u64, cases[i].then))
            .collect())
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.program);
    }
}

/// Compiles the program next to the one that runs.
fn build() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Tests may run side by side.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("oracle-{}-{number}", std::process::id());
    let program = own.with_file_name(name);
    let mut compiler = Command::new("aarch64-linux-gnu-gcc")
        // Where no edge case of an address points.
        .args(["-O2", "-static", "-Wl,-Ttext-segment=0x5a5a50000000"])
        .args(["-x", "c", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .context(
            "aarch64-linux-gnu-gcc does not start: install gcc-aarch64-linux-gnu and libc6-dev-arm64-cross",
        )?;
    if let Some(mut input) = compiler.stdin.take() {
        input.write_all(SOURCE.as_bytes())?;
    }
    if !compiler.wait()?.success() {
        bail!("the oracle does not compile");
    }
    Ok(program)
}

fn encode(case: &Case, bytes: &mut Vec<u8>) {
    let s = &case.state;
    for x in s.x {
        bytes.extend(x.to_le_bytes());
    }
    bytes.extend(s.sp.to_le_bytes());
    bytes.extend(u64::from(case.then).to_le_bytes());
    for word in [s.nzcv, s.fpcr, s.fpsr, case.word] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0u64.to_le_bytes());
    for v in s.v {
        bytes.extend(v.to_le_bytes());
    }
    bytes.extend(s.data);
}

fn decode(record: &[u8; RECORD], slot: u64, then: u32) -> Outcome {
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| record[at + i]));
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| record[at + i]));
    let u128_at = |at: usize| u128::from_le_bytes(std::array::from_fn(|i| record[at + i]));
    let pc = u64_at(32 * 8);
    let words = 33 * 8;
    let vectors = words + 4 * 4 + 8;
    let data = vectors + 32 * 16;
    let in_code = (CODE..CODE + SLOT * SLOTS as u64).contains(&pc);
    let within = pc == slot || (then != BRK && pc == slot + 4);
    let end = match u32_at(words + 12) {
        SIGTRAP if pc == slot => End::Breakpoint,
        SIGILL if within => End::Undefined,
        SIGSEGV if within => End::DataFault,
        SIGBUS if within => End::Alignment,
        SIGTRAP => End::Next(pc),
        // A branch to where nothing is, or that is not aligned.
        SIGSEGV | SIGBUS if !in_code || pc & 3 != 0 => End::Next(pc),
        signal => End::Other(signal.into()),
    };
    let state = State {
        x: std::array::from_fn(|i| u64_at(8 * i)),
        sp: u64_at(31 * 8),
        nzcv: u32_at(words),
        // Without what AArch32 has there: Len and Stride, and flags.
        fpcr: u32_at(words + 4) & !0x0037_0000,
        fpsr: u32_at(words + 8) & !0xf000_0000,
        v: std::array::from_fn(|i| u128_at(vectors + 16 * i)),
        data: std::array::from_fn(|i| record[data + i]),
        rest: u64_at(words + 16),
    };
    Outcome { end, state }
}
