//! Runs a machine: Dormer, or a peer with the same command line.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::qmp::Qmp;

/// A machine in a child process, its serial line on our pipes.
pub struct Machine {
    child: Child,
    input: ChildStdin,
    output: Arc<Output>,
    errors: Arc<Output>,
    /// How much of the output [`Machine::expect`] has passed.
    seen: usize,
    folder: PathBuf,
    qmp: Option<Qmp>,
}

#[derive(Default)]
struct Output {
    bytes: Mutex<(Vec<u8>, bool)>,
    grown: Condvar,
}

impl Output {
    fn collect(self: Arc<Self>, mut from: impl Read + Send + 'static) {
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let n = from.read(&mut chunk).unwrap_or(0);
                if let Ok(mut bytes) = self.bytes.lock() {
                    bytes.0.extend_from_slice(&chunk[..n]);
                    bytes.1 |= n == 0;
                }
                self.grown.notify_all();
                if n == 0 {
                    break;
                }
            }
        });
    }

    /// Waits until all is here that was said, a while at most: a child of the machine's may have the pipe, too.
    fn wait_for_the_end(&self) {
        let Ok(bytes) = self.bytes.lock() else { return };
        let patience = Duration::from_secs(5);
        let _ = self
            .grown
            .wait_timeout_while(bytes, patience, |bytes| !bytes.1);
    }

    fn text(&self) -> String {
        self.bytes
            .lock()
            .map(|b| String::from_utf8_lossy(&b.0).into_owned())
            .unwrap_or_default()
    }
}

/// The variable of the environment that says how Dormer is to run a machine whose command line does not: what -accel is
/// given.
pub const ACCELERATOR: &str = "DORMER_TEST_ACCEL";

/// A command line under construction.
pub struct Builder {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    within: Option<PathBuf>,
    qmp: bool,
}

impl Builder {
    /// `dormer system`, or `qemu-system-aarch64`.
    pub fn new(program: &Path) -> Builder {
        let mut arguments = Vec::new();
        if program.file_name().is_some_and(|name| name == "dormer") {
            arguments.push("system".into());
        }
        Builder {
            program: program.into(),
            arguments,
            environment: Vec::new(),
            within: None,
            qmp: true,
        }
    }

    /// More arguments, split at spaces.
    pub fn args(mut self, words: &str) -> Builder {
        self.arguments
            .extend(words.split_whitespace().map(OsString::from));
        self
    }

    /// A variable of the program's environment.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Builder {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// One argument, spaces and all.
    pub fn arg(mut self, word: impl Into<OsString>) -> Builder {
        self.arguments.push(word.into());
        self
    }

    /// Firmware in two flash memories: its code, which is not written, and its variables.
    pub fn flash(self, code: &Path, variables: &Path) -> Builder {
        self.arg("-drive")
            .arg(format!(
                "if=pflash,format=raw,readonly=on,file={}",
                code.display()
            ))
            .arg("-drive")
            .arg(format!("if=pflash,format=raw,file={}", variables.display()))
    }

    /// The folder it is started in.
    pub fn within(mut self, folder: &Path) -> Builder {
        self.within = Some(folder.into());
        self
    }

    /// Starts the machine with its serial line on pipes, no screen window, and QMP.
    pub fn start(mut self) -> Result<Machine> {
        let folder = std::env::temp_dir().join(format!("dormer-{}-{}", std::process::id(), next()));
        std::fs::create_dir_all(&folder)?;
        let socket = folder.join("qmp");
        let given = |name: &str| self.arguments.iter().any(|a| a == name);
        let mut add = Vec::new();
        if !given("-serial") {
            add.extend(["-serial".to_string(), "stdio".into()]);
        }
        if !given("-display") && !given("-vnc") {
            add.extend(["-display".into(), "none".into()]);
        }
        // A network is for those who ask for one: firmware would try to boot from it.
        if !given("-nic") && !given("-netdev") && !given("-net") {
            add.extend(["-nic".into(), "none".into()]);
        }
        let ours = self.program.file_name() == Some("dormer".as_ref());
        if let Ok(accelerator) = std::env::var(ACCELERATOR)
            && ours
            && !given("-accel")
        {
            add.extend(["-accel".into(), accelerator]);
        }
        if self.qmp {
            add.extend([
                "-qmp".into(),
                format!("unix:{},server=on,wait=off", socket.display()),
            ]);
        }
        self.arguments.extend(add.into_iter().map(OsString::from));
        let mut child = Command::new(&self.program)
            .current_dir(self.within.as_deref().unwrap_or(Path::new(".")))
            .args(&self.arguments)
            .envs(self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let (output, errors) = (Arc::new(Output::default()), Arc::new(Output::default()));
        output
            .clone()
            .collect(child.stdout.take().context("a pipe was asked for")?);
        errors
            .clone()
            .collect(child.stderr.take().context("a pipe was asked for")?);
        let input = child.stdin.take().context("a pipe was asked for")?;
        Ok(Machine {
            child,
            input,
            output,
            errors,
            seen: 0,
            folder,
            qmp: None,
        })
    }
}

fn next() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Machine {
    /// Waits until the serial line says `text`, past what was expected before; what came until then.
    pub fn expect(&mut self, text: &str, patience: Duration) -> Result<String> {
        let (_, before) = self.expect_any(&[text], patience)?;
        Ok(before)
    }

    /// Waits for the first of several texts: which, and what came before it.
    pub fn expect_any(&mut self, texts: &[&str], patience: Duration) -> Result<(usize, String)> {
        let deadline = Instant::now() + patience;
        let mut guard = self
            .output
            .bytes
            .lock()
            .map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        loop {
            let new = &guard.0[self.seen..];
            let found = texts
                .iter()
                .enumerate()
                .filter_map(|(i, text)| Some((find(new, text.as_bytes())?, i)))
                .min();
            if let Some((at, which)) = found {
                let before = String::from_utf8_lossy(&new[..at]).into_owned();
                self.seen += at + texts[which].len();
                return Ok((which, before));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || guard.1 {
                let why = if guard.1 {
                    "the machine ended"
                } else {
                    "waited too long"
                };
                let tail =
                    String::from_utf8_lossy(&new[new.len().saturating_sub(3000)..]).into_owned();
                drop(guard);
                bail!(
                    "{why} for {texts:?}; the serial line said:\n{tail}\n{}",
                    self.errors.text()
                );
            }
            guard = self
                .output
                .grown
                .wait_timeout(guard, left)
                .map_err(|_| anyhow::anyhow!("a reader panicked"))?
                .0;
        }
    }

    /// Types on the serial line.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.input.write_all(text.as_bytes())?;
        self.input.flush()?;
        Ok(())
    }

    /// All that the serial line has said.
    pub fn log(&self) -> String {
        self.output.text()
    }

    /// All that the program has said on standard error.
    pub fn errors(&self) -> String {
        self.errors.text()
    }

    /// The machine's QMP connection.
    pub fn qmp(&mut self) -> Result<&mut Qmp> {
        if self.qmp.is_none() {
            let socket = self.folder.join("qmp");
            let deadline = Instant::now() + Duration::from_secs(10);
            let connection = loop {
                match Qmp::connect(&socket) {
                    Ok(connection) => break connection,
                    Err(error) if Instant::now() > deadline => {
                        return Err(error.context(self.errors.text()));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            };
            self.qmp = Some(connection);
        }
        self.qmp.as_mut().context("it was just made")
    }

    /// Where the machine's VNC server listens, as it printed.
    pub fn vnc(&mut self) -> Result<String> {
        self.announced("VNC server running on ")
    }

    /// The rest of the line that begins with `words`, among those that the program prints when it starts.
    pub fn announced(&mut self, words: &str) -> Result<String> {
        self.said(words, |machine| {
            machine.errors.text() + &machine.output.text()
        })
    }

    /// The rest of a line of standard error, after `words`.
    pub fn complained(&mut self, words: &str) -> Result<String> {
        self.said(words, Machine::errors)
    }

    /// What follows `words` in a whole line of what `from` gives.
    fn said(&mut self, words: &str, from: impl Fn(&Machine) -> String) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let said = from(self);
            if let Some(at) = said.find(words) {
                let rest = &said[at + words.len()..];
                if let Some((line, _)) = rest.split_once(['\n', '\r']) {
                    return Ok(line.trim().to_string());
                }
            }
            if Instant::now() > deadline || self.child.try_wait()?.is_some() {
                bail!("the program does not say '{words}…': {said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the program's end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // What it said last may still be in the pipes.
                self.output.wait_for_the_end();
                self.errors.wait_for_the_end();
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "the machine did not end; the serial line said:\n{}",
                    self.output.text()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A folder of the machine's own, gone when it ends.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes
        .windows(text.len().max(1))
        .position(|window| window == text)
}
