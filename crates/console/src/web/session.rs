//! A page's WebSocket: the picture's changes go out, messages come in.
//!
//! The server sends texts (JSON) with news of the machine, and binary messages with changed parts of the picture, numbers in
//! little endian:
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | 1: an update |
//! | 1 | 1 if the pixels are compressed by zlib |
//! | 2 | count of rectangles |
//! | 2, 2 | width and height of the whole picture |
//! | 8 each | x, y, width, height of each rectangle |
//! | … | their pixels, one after the other: red, green, blue, 255 |
//!
//! The page acknowledges each update once it is drawn, and at most [`AHEAD`] are under way: a slow page gets fewer and newer
//! pictures, and costs no memory.

use super::message::{Action, LONGEST, Message};
use super::server::Shared;
use crate::dirty::{Dirty, copy};
use crate::frames::{Rectangle, Viewer};
use crate::stream::Stream;
use crate::typist::Typist;
use crate::{Controls, Display, RemovableDrive, Seat, keys};
use device::input::Button;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use parking_lot::{Condvar, Mutex};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

/// Updates under way to a page.
const AHEAD: u32 = 3;

/// An update has about so many pixels at most.
const UPDATE: u64 = 256 * 1024;

/// Between looks at what the machine is doing.
const STATE: Duration = Duration::from_millis(400);

/// What the reading side tells the writing side.
struct Client {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether the page is ready, and takes compressed pixels.
    started: Option<bool>,
    /// Updates that may be sent.
    credit: u32,
    /// Texts and answers to pings. Bounded: what does not fit is dropped.
    news: VecDeque<tungstenite::Message>,
    ended: bool,
}

impl Client {
    fn tell(&self, message: tungstenite::Message) {
        let mut state = self.state.lock();
        if state.news.len() < 16 {
            state.news.push_back(message);
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Reads from the stream, and never writes: tungstenite would answer pings and closes by itself, into the middle of what the
/// writing side sends.
struct ReadOnly(Stream);

impl Read for ReadOnly {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for ReadOnly {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wrong(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Serves a page until it leaves. `begun` is what has come of its messages already.
pub(super) fn run(stream: Stream, begun: Vec<u8>, shared: &Arc<Shared>) -> io::Result<()> {
    let client = Arc::new(Client {
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let notified = client.clone();
    let viewer = shared.display.viewer(move || {
        // The lock, so that the writer does not fall asleep between looking and being told.
        drop(notified.state.lock());
        notified.changed.notify_all();
    });
    viewer.refresh();
    let writer = Writer {
        socket: WebSocket::from_raw_socket(stream.try_clone()?, Role::Server, None),
        client: client.clone(),
        display: shared.display.clone(),
        controls: shared.controls.clone(),
        size: viewer.size(),
        dirty: Dirty::all(viewer.size()),
        viewer,
        told: None,
        drives: (Instant::now(), shared.controls.removable_drives()),
        pixels: Vec::new(),
    };
    let end = stream.try_clone()?;
    let writing = std::thread::Builder::new()
        .name("web update".into())
        .spawn(move || writer.run())?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST));
    let seat = Arc::new(shared.display.seat());
    let result = Reader {
        typist: {
            let client = client.clone();
            Typist::new(seat.clone(), move |note| tell_note(&client, note))
        },
        client: &client,
        seat,
        controls: &*shared.controls,
    }
    .run(WebSocket::from_partially_read(
        ReadOnly(stream),
        begun,
        Role::Server,
        Some(config),
    ));
    client.state.lock().ended = true;
    client.changed.notify_all();
    end.shut_down();
    let _ = writing.join();
    result
}

struct Reader<'a> {
    client: &'a Arc<Client>,
    seat: Arc<Seat>,
    typist: Typist,
    controls: &'a dyn Controls,
}

impl Reader<'_> {
    fn run(mut self, mut socket: WebSocket<ReadOnly>) -> io::Result<()> {
        loop {
            match socket.read().map_err(wrong)? {
                tungstenite::Message::Text(text) => match Message::parse(&text) {
                    Ok(message) => self.take(message),
                    Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                },
                tungstenite::Message::Ping(data) => {
                    self.client.tell(tungstenite::Message::Pong(data));
                }
                tungstenite::Message::Close(_) => return Ok(()),
                tungstenite::Message::Binary(_) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "not a text"));
                }
                tungstenite::Message::Pong(_) | tungstenite::Message::Frame(_) => {}
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Start { deflate } => {
                let mut state = self.client.state.lock();
                if state.started.is_none() {
                    state.started = Some(deflate);
                    state.credit = AHEAD;
                }
                drop(state);
                self.client.changed.notify_all();
            }
            Message::Ack => {
                let mut state = self.client.state.lock();
                state.credit = (state.credit + 1).min(AHEAD);
                drop(state);
                self.client.changed.notify_all();
            }
            Message::Key { code, down } => match keys::from_code(&code) {
                Some(key) => self.seat.key(key, down),
                None => tracing::debug!(code, "no such key"),
            },
            Message::Pointer { x, y } => self.seat.position(x, y),
            Message::Motion { x, y } => self.seat.motion(x.into(), y.into()),
            Message::Button { button, down } => {
                let buttons = [
                    Button::Left,
                    Button::Middle,
                    Button::Right,
                    Button::Side,
                    Button::Extra,
                ];
                if let Some(button) = buttons.get(usize::from(button)) {
                    self.seat.button(*button, down);
                }
            }
            Message::Wheel { steps } => self.seat.wheel(steps.into()),
            Message::Type { text } => self.typist.add(text),
            Message::Stop => self.typist.stop(),
            Message::Release => self.seat.release_all(),
            Message::Machine { action } => match action {
                Action::Power => self.controls.power_button(),
                Action::Reset => self.controls.reset(),
                Action::Pause => self.controls.pause(),
                Action::Resume => self.controls.resume(),
                Action::Quit => self.controls.quit(),
            },
            Message::Eject { drive } => {
                let done = self.controls.eject(Some(&drive));
                self.tell_drive(&drive, done.map(|name| format!("{name} is empty")));
            }
            Message::Insert { drive, path } => {
                let done = self.controls.insert(Some(&drive), &path);
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                self.tell_drive(&drive, done.map(|name| format!("{file} is in {name}")));
            }
        }
    }

    /// What came of a change of a medium.
    fn tell_drive(&self, drive: &str, what: Result<String, String>) {
        let done = what.is_ok();
        let (Ok(text) | Err(text)) = what;
        let text = json!({ "t": "drive", "id": drive, "done": done, "text": text }).to_string();
        self.client.tell(tungstenite::Message::text(text));
    }
}

/// Something for the user to read.
fn tell_note(client: &Client, note: &str) {
    let text = json!({ "t": "note", "text": note }).to_string();
    client.tell(tungstenite::Message::text(text));
}

struct Writer {
    socket: WebSocket<Stream>,
    client: Arc<Client>,
    display: Arc<Display>,
    controls: Arc<dyn Controls>,
    viewer: Viewer,
    /// The size that the page was told.
    size: (u32, u32),
    dirty: Dirty,
    /// As the page was told.
    told: Option<News>,
    /// When the drives were looked at, and what was there.
    drives: (Instant, Vec<RemovableDrive>),
    pixels: Vec<u32>,
}

/// The machine's state, whether positions are absolute, and its drives.
type News = (&'static str, bool, Vec<RemovableDrive>);

/// What the writer does next.
enum Order {
    Send(tungstenite::Message),
    Update { deflate: bool },
    LookAtState,
}

impl Writer {
    fn run(mut self) {
        while let Some(order) = self.next_order() {
            let done = match order {
                Order::Send(message) => self.send(message),
                Order::Update { deflate } => self.update(deflate),
                Order::LookAtState => self.tell_state(),
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a web client takes no updates");
                break;
            }
        }
        // Also wakes the reading side.
        self.socket.get_ref().shut_down();
    }

    fn send(&mut self, message: tungstenite::Message) -> io::Result<()> {
        self.socket.send(message).map_err(wrong)
    }

    fn whole(&self) -> Rectangle {
        Rectangle {
            x: 0,
            y: 0,
            width: self.size.0,
            height: self.size.1,
        }
    }

    fn next_order(&mut self) -> Option<Order> {
        let client = self.client.clone();
        let mut state = client.state.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(message) = state.news.pop_front() {
                return Some(Order::Send(message));
            }
            if let Some(deflate) = state.started {
                if self.drives.0.elapsed() >= STATE {
                    self.drives = (Instant::now(), self.controls.removable_drives());
                }
                let is = (self.controls.state(), self.display.absolute());
                let told = self.told.as_ref();
                if !told.is_some_and(|t| (t.0, t.1) == is && t.2 == self.drives.1) {
                    return Some(Order::LookAtState);
                }
                if state.credit > 0 {
                    // Look first, then ask whether anything has changed: what changes afterwards wakes this thread.
                    self.viewer.look(true);
                    if self.viewer.stale() || self.dirty.any(self.whole()) {
                        state.credit -= 1;
                        return Some(Order::Update { deflate });
                    }
                } else {
                    self.viewer.look(false);
                }
            }
            client.changed.wait_for(&mut state, STATE);
        }
    }

    fn tell_state(&mut self) -> io::Result<()> {
        let (state, absolute) = (self.controls.state(), self.display.absolute());
        let drives = self.drives.1.iter().map(|drive| {
            json!({
                "id": drive.id,
                "name": drive.name,
                "medium": drive.medium,
                "open": drive.open,
                "locked": drive.locked,
            })
        });
        let text = json!({
            "t": "state",
            "name": self.controls.name(),
            "state": state,
            "absolute": absolute,
            "drives": drives.collect::<Vec<_>>(),
        });
        self.told = Some((state, absolute, self.drives.1.clone()));
        self.send(tungstenite::Message::text(text.to_string()))
    }

    fn update(&mut self, deflate: bool) -> io::Result<()> {
        let Writer { viewer, dirty, .. } = self;
        let now = viewer.changes(
            |_, tile| dirty.mark(tile),
            |frame| (frame.width(), frame.height()),
        );
        if now != self.size {
            self.size = now;
            self.dirty = Dirty::all(now);
        }
        let parts = self.dirty.take(self.whole(), self.size, UPDATE);
        let mut message = vec![1, deflate.into()];
        let number = |message: &mut Vec<u8>, n: u32| {
            message.extend_from_slice(&(n as u16).to_le_bytes());
        };
        for n in [parts.len() as u32, self.size.0, self.size.1] {
            number(&mut message, n);
        }
        for part in &parts {
            for n in [part.x, part.y, part.width, part.height] {
                number(&mut message, n);
            }
        }
        let mut plain = Vec::new();
        for part in parts {
            let pixels = &mut self.pixels;
            self.viewer.frame(|frame| copy(frame, part, pixels));
            plain.extend(pixels.iter().flat_map(|pixel| {
                let [blue, green, red, _] = pixel.to_le_bytes();
                [red, green, blue, 255]
            }));
        }
        let message = if deflate {
            let mut encoder = ZlibEncoder::new(message, Compression::fast());
            encoder.write_all(&plain)?;
            encoder.finish()?
        } else {
            message.extend_from_slice(&plain);
            message
        };
        self.send(tungstenite::Message::binary(message))
    }
}
