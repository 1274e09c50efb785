//! Running, stopping and resetting a machine.
//!
//! Each processor has a thread ([`processor`]) that runs guest code while the gate is open. One control thread does
//! what changes the whole machine: it closes the gate, waits until every processor has left its run, acts, and opens the
//! gate again. Everybody else (QMP, consoles, PSCI, stalled disks) sends it [`Request`]s.
//!
//! What only a processor's own thread can tell ([`Handle::registers`], [`Handle::report`]) it is asked between two runs, or
//! while it waits at the gate ([`Questions`]); nothing is stopped for that.

mod questions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, unbounded};
use engine::psci::{Order, SystemRequest};
use engine::{Debugger, Exit, State, Stop, Vcpu};
use parking_lot::{Condvar, Mutex, MutexGuard};
use storage::{Operation, Stall};

use crate::board::{Board, DriveEntry};
use questions::Questions;

/// What the machine is doing. Names as QMP's `RunState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Not started yet (`-S`).
    Prelaunch,
    Running,
    Paused,
    /// The guest is off, and `-no-shutdown` keeps the machine.
    Shutdown,
    /// A disk waits for the host.
    IoError,
    /// The engine could not go on.
    InternalError,
    /// A debugger's: something that it wants to see has happened ([`Handle::debugged`]).
    Debug,
}

impl RunState {
    /// QMP's name.
    pub fn name(self) -> &'static str {
        match self {
            RunState::Prelaunch => "prelaunch",
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::Shutdown => "shutdown",
            RunState::IoError => "io-error",
            RunState::InternalError => "internal-error",
            RunState::Debug => "debug",
        }
    }
}

/// Why the machine resets or ends. Names as QMP's `ShutdownCause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    GuestShutdown,
    GuestReset,
    HostQmpQuit,
    HostQmpReset,
    /// SIGINT, SIGTERM, SIGHUP.
    HostSignal,
    /// The user, at a console.
    HostUi,
    HostError,
}

impl Cause {
    /// QMP's name.
    pub fn name(self) -> &'static str {
        match self {
            Cause::GuestShutdown => "guest-shutdown",
            Cause::GuestReset => "guest-reset",
            Cause::HostQmpQuit => "host-qmp-quit",
            Cause::HostQmpReset => "host-qmp-system-reset",
            Cause::HostSignal => "host-signal",
            Cause::HostUi => "host-ui",
            Cause::HostError => "host-error",
        }
    }

    /// Whether the guest asked for it.
    pub fn guest(self) -> bool {
        matches!(self, Cause::GuestShutdown | Cause::GuestReset)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Stop,
    Resume,
    Reset(Cause),
    Shutdown(Cause),
    /// The power button was pressed.
    Powerdown,
    /// A drive's tray has moved: the drive's name, its device's, and whether it is open now.
    TrayMoved {
        device: String,
        holder: String,
        open: bool,
    },
    /// A disk cannot go on: its name, whether it was writing, why, and whether the machine waits.
    BlockIoError {
        device: String,
        node: String,
        write: bool,
        no_space: bool,
        reason: String,
    },
}

/// What the control thread is asked for.
enum Request {
    Stop,
    Resume,
    Reset(Cause),
    Shutdown(Cause),
    Stalled(Stall),
    EngineFault(String),
    Debug(u32, Debugger),
    Debugged(u32, Stop),
}

/// The machine cannot do that now.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ControlError {
    #[error("Resetting the Virtual Machine is required")]
    ResetRequired,
    #[error("the machine has ended")]
    Ended,
    #[error("there is no processor {0}")]
    NoProcessor(u32),
    #[error("{0}")]
    Engine(#[from] engine::Error),
}

struct Gate {
    state: RunState,
    /// Processors inside a run.
    inside: u32,
    ended: Option<Cause>,
    resets: u64,
    /// What is wanted to be seen of each processor, and how often that has changed.
    debuggers: Vec<(Debugger, u64)>,
    /// What stopped the machine in [`RunState::Debug`].
    debugged: Option<(u32, Stop)>,
    /// Processors that there are.
    processors: u32,
    /// Those that the last reset has not come to yet. Until it has, none runs: one that starts could turn on another whose
    /// reset would turn it off again, where that is the engine's work ([`engine::Vm::powers_processors`]).
    not_reset: u32,
}

pub(crate) struct Shared {
    pub board: Board,
    gate: Mutex<Gate>,
    moved: Condvar,
    /// Processors are to leave their runs.
    close: AtomicBool,
    requests: Sender<(Request, Sender<Result<(), ControlError>>)>,
    listeners: Mutex<Vec<Sender<(SystemTime, Event)>>>,
    threads: Mutex<Vec<u64>>,
    /// By processor.
    questions: Vec<Questions>,
}

/// A running machine. Dropping it ends it.
pub struct Machine {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

/// Controls a machine from any thread.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Machine {
    /// Starts the threads of a board; processors run unless the description says `start_stopped`.
    pub fn start(board: Board) -> std::io::Result<Machine> {
        let (send, receive) = unbounded();
        let cpus = board.cpus;
        let stopped = board.start_stopped;
        let shared = Arc::new(Shared {
            board,
            gate: Mutex::new(Gate {
                state: RunState::Prelaunch,
                inside: 0,
                ended: None,
                resets: 0,
                debuggers: vec![Default::default(); cpus as usize],
                debugged: None,
                processors: cpus,
                not_reset: 0,
            }),
            moved: Condvar::new(),
            close: AtomicBool::new(true),
            requests: send,
            listeners: Mutex::default(),
            threads: Mutex::new(vec![0; cpus as usize]),
            questions: (0..cpus).map(|_| Questions::default()).collect(),
        });
        let handle = Handle {
            shared: shared.clone(),
        };
        shared.connect(&handle);
        let mut threads = Vec::new();
        for cpu in 0..cpus {
            let shared = shared.clone();
            threads.push(
                std::thread::Builder::new()
                    .name(format!("cpu {cpu}"))
                    .spawn(move || processor(&shared, cpu))?,
            );
        }
        let control = shared.clone();
        threads.push(
            std::thread::Builder::new()
                .name("control".into())
                .spawn(move || run(&control, &receive))?,
        );
        shared.power_on();
        if !stopped {
            handle.ask(Request::Resume).map_err(std::io::Error::other)?;
        }
        Ok(Machine { handle, threads })
    }

    /// For everybody who controls it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until the machine has ended, and says why.
    pub fn wait(mut self) -> Cause {
        let shared = &self.handle.shared;
        let mut gate = shared.gate.lock();
        let cause = loop {
            match gate.ended {
                Some(cause) => break cause,
                None => shared.moved.wait(&mut gate),
            }
        };
        drop(gate);
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so already.
            let _ = thread.join();
        }
        cause
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            let _ = self.handle.quit(Cause::HostUi);
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

impl Handle {
    /// What the machine is doing.
    pub fn state(&self) -> RunState {
        self.shared.gate.lock().state
    }

    /// The board, for what it tells of itself.
    pub fn board(&self) -> &Board {
        &self.shared.board
    }

    /// Host thread numbers of the processors.
    pub fn processor_threads(&self) -> Vec<u64> {
        self.shared.threads.lock().clone()
    }

    /// All registers of a processor, whether the machine runs or not.
    ///
    /// # Errors
    /// There is no such processor, the machine has ended, or the engine cannot tell.
    pub fn registers(&self, cpu: u32) -> Result<State, ControlError> {
        Ok(self.shared.ask_processor(cpu, |vcpu| vcpu.state())??)
    }

    /// What the engine has done for a processor, in lines for people: `None` from engines that keep no count.
    ///
    /// # Errors
    /// There is no such processor, or the machine has ended.
    pub fn report(&self, cpu: u32) -> Result<Option<String>, ControlError> {
        self.shared.ask_processor(cpu, |vcpu| vcpu.report())
    }

    /// Stops the processors and the guest's time.
    pub fn stop(&self) -> Result<(), ControlError> {
        self.ask(Request::Stop)
    }

    /// Lets them go on; disks that wait try again.
    pub fn resume(&self) -> Result<(), ControlError> {
        self.ask(Request::Resume)
    }

    /// Back to power-on.
    pub fn reset(&self, cause: Cause) -> Result<(), ControlError> {
        self.ask(Request::Reset(cause))
    }

    /// Has the machine stop in [`RunState::Debug`] where `wanted` says, in the place of what was wanted of that processor
    /// before. An engine that cannot do it stops the machine with the reason, as its other faults.
    pub fn debug(&self, cpu: u32, wanted: Debugger) -> Result<(), ControlError> {
        self.ask(Request::Debug(cpu, wanted))
    }

    /// What stopped the machine for a debugger, and which processor.
    pub fn debugged(&self) -> Option<(u32, Stop)> {
        self.shared.gate.lock().debugged
    }

    /// Presses the power button: the guest shuts down if it listens.
    pub fn power_button(&self) {
        self.shared.board.press_power_button();
        self.shared.tell(Event::Powerdown);
    }

    /// Ends the machine. What the guest did not flush is flushed.
    pub fn quit(&self, cause: Cause) -> Result<(), ControlError> {
        self.ask(Request::Shutdown(cause))
    }

    /// What happens from now on. A listener that does not keep up with 1,024 events loses the newest.
    /// The channel is disconnected once the machine has ended.
    pub fn events(&self) -> Receiver<(SystemTime, Event)> {
        let (send, receive) = bounded(1024);
        let mut listeners = self.shared.listeners.lock();
        if self.shared.gate.lock().ended.is_none() {
            listeners.push(send);
        }
        receive
    }

    fn ask(&self, request: Request) -> Result<(), ControlError> {
        let (send, receive) = bounded(1);
        self.shared
            .requests
            .send((request, send))
            .map_err(|_| ControlError::Ended)?;
        receive.recv().unwrap_or(Err(ControlError::Ended))
    }

    fn send(&self, request: Request) {
        let (send, _) = bounded(1);
        // With the control thread gone there is nothing left to ask for.
        let _ = self.shared.requests.send((request, send));
    }
}

impl Shared {
    /// Lets the board's parts send requests.
    fn connect(self: &Arc<Self>, handle: &Handle) {
        let weak = Arc::downgrade(self);
        self.board.on_system_request(move |request| {
            if let Some(shared) = weak.upgrade() {
                let request = match request {
                    SystemRequest::Off => Request::Shutdown(Cause::GuestShutdown),
                    SystemRequest::Reset => Request::Reset(Cause::GuestReset),
                };
                Handle { shared }.send(request);
            }
        });
        let weak = Arc::downgrade(&handle.shared);
        self.board.on_stall(move |stall| {
            if let Some(shared) = weak.upgrade() {
                Handle { shared }.send(Request::Stalled(stall.clone()));
            }
        });
        for drive in self.board.drives() {
            let weak = Arc::downgrade(self);
            let (device, holder) = (drive.id.clone(), drive.holder.clone());
            drive.on_tray(move |open| {
                if let Some(shared) = weak.upgrade() {
                    let (device, holder) = (device.clone(), holder.clone());
                    shared.tell(Event::TrayMoved {
                        device,
                        holder,
                        open,
                    });
                }
            });
        }
    }

    fn tell(&self, event: Event) {
        let now = SystemTime::now();
        tracing::debug!(?event);
        self.listeners.lock().retain(|l| {
            !matches!(
                l.try_send((now, event.clone())),
                Err(TrySendError::Disconnected(_))
            )
        });
    }

    /// Closes the gate and waits until no processor runs or is being reset.
    fn halt(&self) {
        self.close.store(true, Ordering::SeqCst);
        let mut gate = self.gate.lock();
        while gate.inside > 0 || gate.not_reset > 0 {
            for cpu in 0..self.board.cpus {
                self.board.vm.kick(cpu);
                self.board.psci().interrupt(cpu);
            }
            self.moved.wait_for(&mut gate, Duration::from_millis(20));
        }
        drop(gate);
        self.board.clock.stop();
    }

    /// Has a question answered on a processor's thread.
    fn ask_processor<T: Send + 'static>(
        &self,
        cpu: u32,
        question: impl FnOnce(&mut dyn Vcpu) -> T + Send + 'static,
    ) -> Result<T, ControlError> {
        let questions = self.questions.get(cpu as usize);
        let questions = questions.ok_or(ControlError::NoProcessor(cpu))?;
        let (send, receive) = bounded(1);
        questions.put(Box::new(move |vcpu| {
            let _ = send.send(question(vcpu));
        }));
        loop {
            self.board.vm.kick(cpu);
            self.board.psci().interrupt(cpu);
            // With the gate's lock, so that nobody who is about to wait there misses it.
            drop(self.gate.lock());
            self.moved.notify_all();
            match receive.recv_timeout(Duration::from_millis(20)) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ControlError::Ended),
            }
        }
    }

    fn go(&self) {
        self.board.clock.start();
        // Under the lock: a processor that has just seen the gate closed is not waiting yet, and would not be woken.
        let mut gate = self.gate.lock();
        gate.state = RunState::Running;
        gate.debugged = None;
        self.close.store(false, Ordering::SeqCst);
        self.moved.notify_all();
    }

    fn power_on(&self) {
        self.board.power_on();
        let mut gate = self.gate.lock();
        gate.resets += 1;
        gate.not_reset = gate.processors;
        self.moved.notify_all();
    }

    fn enter(&self, state: RunState) {
        self.gate.lock().state = state;
    }
}

/// The control thread.
fn run(shared: &Shared, requests: &Receiver<(Request, Sender<Result<(), ControlError>>)>) {
    while let Ok((request, answer)) = requests.recv() {
        let result = act(shared, request);
        let _ = answer.send(result);
        if shared.gate.lock().ended.is_some() {
            break;
        }
    }
}

fn act(shared: &Shared, request: Request) -> Result<(), ControlError> {
    let state = shared.gate.lock().state;
    match request {
        Request::Stop => {
            if state == RunState::Running {
                shared.halt();
                shared.enter(RunState::Paused);
                shared.tell(Event::Stop);
            }
        }
        Request::Resume => match state {
            RunState::Running => {}
            RunState::Shutdown | RunState::InternalError => {
                return Err(ControlError::ResetRequired);
            }
            RunState::Prelaunch | RunState::Paused | RunState::IoError | RunState::Debug => {
                shared.board.retry_disks();
                shared.go();
                shared.tell(Event::Resume);
            }
        },
        Request::Reset(cause) => {
            // As QEMU: whoever asks.
            if shared.board.no_reboot {
                return end(shared, cause);
            }
            shared.halt();
            shared.power_on();
            shared.tell(Event::Reset(cause));
            // As QEMU: a machine that was stopped is one that has not started yet.
            match state {
                RunState::Running => shared.go(),
                _ => shared.enter(RunState::Prelaunch),
            }
        }
        Request::Shutdown(cause) => return end(shared, cause),
        Request::Stalled(stall) => {
            tracing::error!("{}", stall.message);
            let is = |drive: &&DriveEntry| drive.image().is_some_and(|i| i.node == stall.disk);
            let drive = shared.board.drives().iter().find(is);
            shared.tell(Event::BlockIoError {
                device: drive.map(|drive| drive.id.clone()).unwrap_or_default(),
                node: stall.disk,
                write: stall.operation != Operation::Read,
                no_space: stall.full,
                reason: stall.message,
            });
            if state == RunState::Running {
                shared.halt();
                shared.enter(RunState::IoError);
                shared.tell(Event::Stop);
            }
        }
        Request::Debug(cpu, wanted) => {
            // Processors take it on their way back in.
            let running = state == RunState::Running;
            if running {
                shared.halt();
            }
            let known = match shared.gate.lock().debuggers.get_mut(cpu as usize) {
                Some((debugger, changes)) => {
                    *debugger = wanted;
                    *changes += 1;
                    Ok(())
                }
                None => Err(ControlError::NoProcessor(cpu)),
            };
            if running {
                shared.go();
            }
            return known;
        }
        Request::Debugged(cpu, stop) => {
            // Another processor's may have come first; it comes again when this one runs on.
            if state == RunState::Running {
                shared.halt();
                shared.enter(RunState::Debug);
                shared.gate.lock().debugged = Some((cpu, stop));
                shared.tell(Event::Stop);
            }
        }
        Request::EngineFault(reason) => {
            shared.halt();
            tracing::error!("the machine stopped: {reason}");
            shared.enter(RunState::InternalError);
            shared.tell(Event::Stop);
        }
    }
    Ok(())
}

fn end(shared: &Shared, cause: Cause) -> Result<(), ControlError> {
    shared.halt();
    shared.tell(Event::Shutdown(cause));
    let pauses = cause.guest() || cause == Cause::HostQmpReset;
    if pauses && shared.board.no_shutdown {
        shared.enter(RunState::Shutdown);
        shared.tell(Event::Stop);
        return Ok(());
    }
    shared.board.shut_down();
    shared.gate.lock().ended = Some(cause);
    shared.moved.notify_all();
    // Listeners see the end, after all that happened before.
    shared.listeners.lock().clear();
    Ok(())
}

/// A processor's thread.
fn processor(shared: &Shared, cpu: u32) {
    let board = &shared.board;
    let questions = &shared.questions[cpu as usize];
    let _closes = questions.closes();
    if let Some(thread) = shared.threads.lock().get_mut(cpu as usize) {
        *thread = thread_number();
    }
    let vcpu = match board.vm.vcpu(cpu) {
        Ok(vcpu) => vcpu,
        Err(error) => {
            let mut gate = shared.gate.lock();
            gate.processors -= 1;
            // Nobody waits for the reset of one that is not there.
            if gate.resets > 0 {
                gate.not_reset -= 1;
            }
            drop(gate);
            fault(shared, format!("processor {cpu}: {error}"));
            return;
        }
    };
    let mut processor = Processor {
        cpu,
        vcpu,
        on: false,
    };
    let (mut seen, mut debuggers) = (0, 0);
    loop {
        let mut gate = shared.gate.lock();
        if gate.ended.is_some() {
            return;
        }
        if gate.resets != seen {
            seen = gate.resets;
            drop(gate);
            processor.vcpu.reset();
            processor.on = cpu != 0 && board.vm.powers_processors();
            let mut gate = shared.gate.lock();
            // Another reset since has everybody count anew.
            if gate.resets == seen {
                gate.not_reset -= 1;
                shared.moved.notify_all();
            }
            continue;
        }
        if shared.close.load(Ordering::SeqCst) || gate.not_reset > 0 {
            wait_at(&mut gate, shared, questions, &mut processor);
            continue;
        }
        gate.inside += 1;
        let wanted = gate.debuggers.get(cpu as usize).cloned();
        drop(gate);
        let mut reason = None;
        if let Some((wanted, changes)) = wanted
            && changes != debuggers
        {
            debuggers = changes;
            reason = processor.vcpu.debug(&wanted).err().map(|e| e.to_string());
        }
        if reason.is_none() {
            reason = processor.run(shared);
        }
        shared.gate.lock().inside -= 1;
        shared.moved.notify_all();
        if let Some(reason) = reason {
            fault(shared, format!("processor {cpu}: {reason}"));
            // Only a reset makes it run again.
            let mut gate = shared.gate.lock();
            while gate.resets == seen && gate.ended.is_none() {
                wait_at(&mut gate, shared, questions, &mut processor);
            }
        }
    }
}

/// Waits until something at the gate has moved, or has answered what was asked.
fn wait_at(
    gate: &mut MutexGuard<'_, Gate>,
    shared: &Shared,
    questions: &Questions,
    processor: &mut Processor,
) {
    if questions.any() {
        MutexGuard::unlocked(gate, || questions.answer(&mut *processor.vcpu));
    } else {
        shared.moved.wait(gate);
    }
}

struct Processor {
    cpu: u32,
    vcpu: Box<dyn Vcpu>,
    /// Turned on, by PSCI or at power-on.
    on: bool,
}

impl Processor {
    /// Runs until the gate closes; a reason if the engine cannot go on.
    fn run(&mut self, shared: &Shared) -> Option<String> {
        let board = &shared.board;
        let questions = &shared.questions[self.cpu as usize];
        while !shared.close.load(Ordering::SeqCst) {
            questions.answer(&mut *self.vcpu);
            if !self.on {
                match board.psci().wait(self.cpu) {
                    Order::Start { entry, context } => {
                        if let Err(error) = self.vcpu.start(entry, context) {
                            return Some(error.to_string());
                        }
                        self.on = true;
                    }
                    Order::Interrupted => continue,
                }
            }
            match self.vcpu.run(board.world()) {
                Exit::Kicked => {}
                Exit::Off => self.on = false,
                Exit::Debug(stop) => {
                    let (send, _) = bounded(1);
                    let _ = shared
                        .requests
                        .send((Request::Debugged(self.cpu, stop), send));
                    // It stays where it is until the machine has stopped.
                    let mut gate = shared.gate.lock();
                    while !shared.close.load(Ordering::SeqCst) && gate.ended.is_none() {
                        shared.moved.wait_for(&mut gate, Duration::from_millis(20));
                    }
                    return None;
                }
                Exit::Fault(reason) => return Some(reason),
            }
        }
        None
    }
}

fn fault(shared: &Shared, reason: String) {
    let (send, _) = bounded(1);
    let _ = shared.requests.send((Request::EngineFault(reason), send));
}

/// The host's number of this thread (TID), as debuggers and `query-cpus-fast` show it.
fn thread_number() -> u64 {
    #[cfg(target_os = "linux")]
    {
        rustix::thread::gettid().as_raw_nonzero().get() as u64
    }
    #[cfg(not(target_os = "linux"))]
    {
        0
    }
}
