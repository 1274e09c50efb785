//! A client's session: what it asks for, and the pictures it gets.

use super::encode::Encoder;
use super::keyboard::Keyboard;
use super::pixel::PixelFormat;
use super::server::Shared;
use super::spec;
use crate::dirty::{Dirty, MAX_RECTANGLE, copy};
use crate::frames::{Rectangle, Viewer};
use crate::stream::Stream;
use crate::typist::Typist;
use crate::{Display, Seat};
use device::input::{Button, Key};
use device::screen::CursorImage;
use parking_lot::{Condvar, Mutex};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// A client may not name more encodings.
const MAX_ENCODINGS: u16 = 1024;

/// More text than that in a message is an attack.
const MAX_CUT_TEXT: u32 = 16 << 20;

/// Text that a client copies is kept, to be typed when the user asks for it; longer ones are not.
const MAX_TYPED: u32 = 64 << 10;

/// What the reading side tells the writing side.
struct Client {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    format: PixelFormat,
    encodings: Vec<i32>,
    /// What the client wants next: incremental requests are added up.
    request: Option<Rectangle>,
    /// The client has nothing of this part: it asked non-incrementally.
    whole: Option<Rectangle>,
    /// The client asked for another size: the answer.
    resize: Option<u16>,
    ended: bool,
}

/// Serves a client that has been let in, until it leaves.
pub(super) fn run(mut stream: Stream, shared: &Arc<Shared>) -> io::Result<()> {
    let client = Arc::new(Client {
        state: Mutex::new(State {
            format: PixelFormat::NATIVE,
            encodings: Vec::new(),
            request: None,
            whole: None,
            resize: None,
            ended: false,
        }),
        changed: Condvar::new(),
    });
    let notified = client.clone();
    let viewer = shared.display.viewer(move || {
        // The lock, so that the writer does not fall asleep between looking and being told.
        drop(notified.state.lock());
        notified.changed.notify_all();
    });
    viewer.refresh();
    let size = viewer.size();
    server_init(&mut stream, size, &shared.name)?;
    let writer = Writer {
        stream: stream.try_clone()?,
        client: client.clone(),
        display: shared.display.clone(),
        viewer,
        encoder: Encoder::new(),
        size,
        picture: size,
        dirty: Dirty::default(),
        told: Told::default(),
    };
    let writing = std::thread::Builder::new()
        .name("vnc update".into())
        .spawn(move || writer.run())?;
    let seat = Arc::new(shared.display.seat());
    let result = Reader {
        stream: &mut stream,
        client: &client,
        typist: Typist::new(seat.clone(), |note| tracing::info!("VNC: {note}")),
        copied: String::new(),
        seat,
        keyboard: Keyboard::default(),
        buttons: 0,
    }
    .run(&shared.display);
    client.state.lock().ended = true;
    client.changed.notify_all();
    stream.shut_down();
    let _ = writing.join();
    result
}

/// ServerInit, section 7.3.2.
fn server_init(stream: &mut Stream, size: (u32, u32), name: &str) -> io::Result<()> {
    let mut message = Vec::with_capacity(24 + name.len());
    message.extend_from_slice(&(size.0 as u16).to_be_bytes());
    message.extend_from_slice(&(size.1 as u16).to_be_bytes());
    message.extend_from_slice(&PixelFormat::NATIVE.to_bytes());
    message.extend_from_slice(&(name.len() as u32).to_be_bytes());
    message.extend_from_slice(name.as_bytes());
    stream.write_all(&message)
}

struct Reader<'a> {
    stream: &'a mut Stream,
    client: &'a Client,
    seat: Arc<Seat>,
    typist: Typist,
    /// What the client copied last.
    copied: String,
    keyboard: Keyboard,
    /// The pointer's buttons as last told.
    buttons: u8,
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn run(mut self, display: &Display) -> io::Result<()> {
        loop {
            let mut kind = [0];
            match self.stream.read(&mut kind) {
                Ok(0) => return Ok(()),
                Ok(_) => self.message(kind[0], display)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn message(&mut self, kind: u8, display: &Display) -> io::Result<()> {
        match kind {
            spec::SET_PIXEL_FORMAT => {
                let message = self.take::<19>()?;
                let mut format = [0; 16];
                format.copy_from_slice(&message[3..]);
                let format = PixelFormat::from_bytes(&format)
                    .ok_or_else(|| wrong("a pixel format that cannot be"))?;
                self.client.state.lock().format = format;
            }
            spec::SET_ENCODINGS => {
                let message = self.take::<3>()?;
                let count = u16::from_be_bytes([message[1], message[2]]);
                if count > MAX_ENCODINGS {
                    return Err(wrong("too many encodings"));
                }
                let mut encodings = Vec::with_capacity(usize::from(count));
                for _ in 0..count {
                    encodings.push(i32::from_be_bytes(self.take::<4>()?));
                }
                self.client.state.lock().encodings = encodings;
            }
            spec::FRAMEBUFFER_UPDATE_REQUEST => {
                let message = self.take::<9>()?;
                let part =
                    |at: usize| u32::from(u16::from_be_bytes([message[at], message[at + 1]]));
                self.request(
                    message[0] != 0,
                    Rectangle {
                        x: part(1),
                        y: part(3),
                        width: part(5),
                        height: part(7),
                    },
                );
            }
            spec::KEY_EVENT => {
                let message = self.take::<7>()?;
                let keysym = u32::from_be_bytes([message[3], message[4], message[5], message[6]]);
                let down = message[0] != 0;
                if !(down && matches!(keysym, 0x56 | 0x76) && self.paste()) {
                    self.keyboard.keysym(&self.seat, keysym, down);
                }
            }
            spec::POINTER_EVENT => {
                let message = self.take::<5>()?;
                let x = u16::from_be_bytes([message[1], message[2]]);
                let y = u16::from_be_bytes([message[3], message[4]]);
                self.pointer(message[0], x, y, display);
            }
            spec::CLIENT_CUT_TEXT => {
                let message = self.take::<7>()?;
                let length = i32::from_be_bytes([message[3], message[4], message[5], message[6]]);
                match u32::try_from(length) {
                    Ok(length) if length <= MAX_TYPED => {
                        let mut text = vec![0; length as usize];
                        self.stream.read_exact(&mut text)?;
                        // Latin-1, section 7.5.6.
                        self.copied = text.into_iter().map(char::from).collect();
                    }
                    // Negative: the extended clipboard's messages, which this server does not announce.
                    _ => self.skip(length.unsigned_abs())?,
                }
            }
            spec::SET_DESKTOP_SIZE => {
                let message = self.take::<7>()?;
                for _ in 0..message[5] {
                    self.take::<16>()?;
                }
                let size =
                    |at: usize| u32::from(u16::from_be_bytes([message[at], message[at + 1]]));
                let answer = match display.request_size(size(1), size(3)) {
                    true => spec::RESIZE_FORWARDED,
                    false => spec::RESIZE_PROHIBITED,
                };
                self.client.state.lock().resize = Some(answer);
                self.client.changed.notify_all();
            }
            spec::QEMU => {
                let sub = self.take::<1>()?;
                if sub[0] != spec::QEMU_EXTENDED_KEY_EVENT {
                    return Err(wrong("an extension that was not announced"));
                }
                let message = self.take::<10>()?;
                let down = u16::from_be_bytes([message[0], message[1]]) != 0;
                let word = |at: usize| {
                    u32::from_be_bytes([
                        message[at],
                        message[at + 1],
                        message[at + 2],
                        message[at + 3],
                    ])
                };
                /// Scan code of V.
                const V: u32 = 0x2f;
                if !(down && word(6) == V && self.paste()) {
                    self.keyboard.key_code(&self.seat, word(2), word(6), down);
                }
            }
            _ => return Err(wrong("an unknown message")),
        }
        Ok(())
    }

    /// Ctrl-Alt-Shift-V types what the client copied last. Never by itself: viewers tell of every copy, passwords among them.
    fn paste(&mut self) -> bool {
        let holds = |keys: [u8; 2]| keys.iter().any(|usage| self.seat.holds(Key(*usage)));
        let asked = holds([0xe0, 0xe4]) && holds([0xe2, 0xe6]) && holds([0xe1, 0xe5]);
        if asked && !self.copied.is_empty() {
            self.seat.release_all();
            self.typist.add(self.copied.clone());
            return true;
        }
        false
    }

    fn skip(&mut self, length: u32) -> io::Result<()> {
        if length > MAX_CUT_TEXT {
            return Err(wrong("too long a text"));
        }
        let skipped = io::copy(
            &mut (&mut *self.stream).take(length.into()),
            &mut io::sink(),
        )?;
        if skipped < u64::from(length) {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }

    fn request(&mut self, incremental: bool, area: Rectangle) {
        let mut state = self.client.state.lock();
        if !incremental {
            state.whole = Some(state.whole.map_or(area, |whole| around(whole, area)));
        }
        state.request = Some(state.request.map_or(area, |request| around(request, area)));
        drop(state);
        self.client.changed.notify_all();
    }

    /// PointerEvent, section 7.5.5. Buttons 4 and 5 are the wheel.
    fn pointer(&mut self, buttons: u8, x: u16, y: u16, display: &Display) {
        let relative = !display.absolute()
            && self
                .client
                .state
                .lock()
                .encodings
                .contains(&spec::POINTER_MOTION_CHANGE);
        if relative {
            // The client grabs the pointer and tells motion as the distance from 0x7fff.
            let (dx, dy) = (i32::from(x) - 0x7fff, i32::from(y) - 0x7fff);
            if (dx, dy) != (0, 0) {
                self.seat.motion(dx, dy);
            }
        } else {
            self.seat.pixel(x.into(), y.into());
        }
        let pressed = |bit: u8, now: u8| now >> bit & 1 != 0;
        for (bit, button) in [
            (0, Button::Left),
            (1, Button::Middle),
            (2, Button::Right),
            (7, Button::Side),
        ] {
            if pressed(bit, buttons) != pressed(bit, self.buttons) {
                self.seat.button(button, pressed(bit, buttons));
            }
        }
        for (bit, steps) in [(3, 1), (4, -1)] {
            if pressed(bit, buttons) && !pressed(bit, self.buttons) {
                self.seat.wheel(steps);
            }
        }
        self.buttons = buttons;
    }
}

/// The smallest rectangle around two.
fn around(a: Rectangle, b: Rectangle) -> Rectangle {
    if a.width == 0 || a.height == 0 {
        return b;
    }
    if b.width == 0 || b.height == 0 {
        return a;
    }
    let (x, y) = (a.x.min(b.x), a.y.min(b.y));
    let right = (a.x + a.width).max(b.x + b.width);
    let bottom = (a.y + a.height).max(b.y + b.height);
    Rectangle {
        x,
        y,
        width: right - x,
        height: bottom - y,
    }
}

/// What a client was told beside pictures.
#[derive(Default)]
struct Told {
    extended_keys: bool,
    extended_size: bool,
    /// Whether positions are absolute.
    absolute: Option<bool>,
    /// The pointer's picture; in it `None`: hidden.
    cursor: Option<Option<Arc<CursorImage>>>,
}

struct Writer {
    stream: Stream,
    client: Arc<Client>,
    display: Arc<Display>,
    viewer: Viewer,
    encoder: Encoder,
    /// The size that the client believes in.
    size: (u32, u32),
    /// The size that the picture last had.
    picture: (u32, u32),
    dirty: Dirty,
    told: Told,
}

/// One update's orders.
struct Order {
    format: PixelFormat,
    encodings: Vec<i32>,
    area: Rectangle,
    whole: Option<Rectangle>,
    resize: Option<u16>,
}

impl Writer {
    fn run(mut self) {
        self.dirty = Dirty::all(self.size);
        while let Some(order) = self.next_order() {
            if let Err(error) = self.update(&order) {
                tracing::debug!(%error, "a VNC client takes no updates");
                break;
            }
        }
        // Also wakes the reading side.
        self.stream.shut_down();
    }

    /// Waits until the client wants something and there is something new for it.
    fn next_order(&mut self) -> Option<Order> {
        let client = self.client.clone();
        let mut state = client.state.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(area) = state.request {
                // Look first, then ask whether anything has changed: what changes afterwards wakes this thread.
                self.viewer.look(true);
                let ready = self.viewer.stale()
                    || state.whole.is_some()
                    || state.resize.is_some()
                    || self.dirty.any(area)
                    || self.news(&state.encodings);
                if ready {
                    self.viewer.look(false);
                    state.request = None;
                    return Some(Order {
                        format: state.format,
                        encodings: state.encodings.clone(),
                        area,
                        whole: state.whole.take(),
                        resize: state.resize.take(),
                    });
                }
            }
            client.changed.wait(&mut state);
        }
    }

    /// Whether the client is to be told something beside pictures.
    fn news(&self, encodings: &[i32]) -> bool {
        let knows = |encoding| encodings.contains(&encoding);
        (knows(spec::EXTENDED_KEY_EVENT) && !self.told.extended_keys)
            || (knows(spec::EXTENDED_DESKTOP_SIZE) && !self.told.extended_size)
            || (knows(spec::POINTER_MOTION_CHANGE)
                && self.told.absolute != Some(self.display.absolute()))
            || (cursor_encoding(encodings).is_some() && self.viewer.cursor_stale())
    }

    fn update(&mut self, order: &Order) -> io::Result<()> {
        let mut message = Update::new();
        let dirty = &mut self.dirty;
        // What has changed since, and the size it has now.
        let now = self.viewer.changes(
            |_, tile| dirty.mark(tile),
            |frame| (frame.width(), frame.height()),
        );
        if self.tell(order, now, &mut message) {
            // A change of size ends an update (RFC 6143, section 7.8.2); the client asks for the pixels itself.
            return message.send(&mut self.stream);
        }
        if let Some(whole) = order.whole {
            self.dirty.mark(whole);
        }
        let encoding = Encoder::choose(&order.encodings);
        let mut parts = Vec::new();
        for whole in self.dirty.take(order.area, self.size, u64::MAX) {
            // Tall and wide rectangles in bands.
            let band = (MAX_RECTANGLE / whole.width.max(1)).max(1);
            for y in (whole.y..whole.y + whole.height).step_by(band as usize) {
                parts.push(Rectangle {
                    y,
                    height: band.min(whole.y + whole.height - y),
                    ..whole
                });
            }
        }
        if message.count == 0 && parts.is_empty() {
            // Nothing of what has changed lies in the area: the request stands, unless a newer one has come.
            let mut state = self.client.state.lock();
            state.request = Some(
                state
                    .request
                    .map_or(order.area, |request| around(request, order.area)),
            );
            return Ok(());
        }
        message.expect(parts.len());
        let mut pixels = Vec::new();
        for part in parts {
            self.viewer.frame(|frame| copy(frame, part, &mut pixels));
            message.rectangle(part, encoding);
            self.encoder.encode(
                encoding,
                order.format,
                &pixels,
                part.width as usize,
                &mut message.bytes,
            );
            message.send_if_large(&mut self.stream)?;
        }
        message.send(&mut self.stream)
    }

    /// Size and other news, as pseudo-rectangles. Returns whether the client's size has changed.
    fn tell(&mut self, order: &Order, now: (u32, u32), message: &mut Update) -> bool {
        let knows = |encoding| order.encodings.contains(&encoding);
        let extended = knows(spec::EXTENDED_DESKTOP_SIZE);
        let resized = now != self.size && (extended || knows(spec::DESKTOP_SIZE));
        if !resized && now != self.picture {
            // The client's size is fixed: it sees the part that fits, and black around it.
            self.dirty = Dirty::all(self.size);
        }
        self.picture = now;
        if extended && !resized && !self.told.extended_size {
            message.desktop_size(spec::REASON_SERVER, spec::RESIZE_OK, self.size);
            self.told.extended_size = true;
        }
        if let Some(answer) = order.resize
            && extended
        {
            message.desktop_size(spec::REASON_THIS_CLIENT, answer, self.size);
        }
        if knows(spec::EXTENDED_KEY_EVENT) && !self.told.extended_keys {
            message.rectangle(Rectangle::default(), spec::EXTENDED_KEY_EVENT);
            self.told.extended_keys = true;
        }
        let absolute = self.display.absolute();
        if knows(spec::POINTER_MOTION_CHANGE) && self.told.absolute != Some(absolute) {
            let x = u32::from(absolute);
            message.rectangle(
                Rectangle {
                    x,
                    ..Rectangle::default()
                },
                spec::POINTER_MOTION_CHANGE,
            );
            self.told.absolute = Some(absolute);
        }
        if let Some(encoding) = cursor_encoding(&order.encodings)
            && let Some(cursor) = self.viewer.cursor()
            && self.told.cursor.as_ref() != Some(&cursor.image)
        {
            message.cursor(encoding, order.format, cursor.image.as_deref());
            self.told.cursor = Some(cursor.image);
        }
        if resized {
            self.size = now;
            self.dirty = Dirty::all(now);
            if extended {
                message.desktop_size(spec::REASON_SERVER, spec::RESIZE_OK, now);
                self.told.extended_size = true;
            } else {
                message.rectangle(
                    Rectangle {
                        x: 0,
                        y: 0,
                        width: now.0,
                        height: now.1,
                    },
                    spec::DESKTOP_SIZE,
                );
            }
        }
        resized
    }
}

/// The way in which the client takes the pointer's picture, if it does.
fn cursor_encoding(encodings: &[i32]) -> Option<i32> {
    [spec::CURSOR_WITH_ALPHA, spec::CURSOR]
        .into_iter()
        .find(|encoding| encodings.contains(encoding))
}

/// A FramebufferUpdate message, section 7.6.1. It is one for one request, as viewers expect, but it is never whole in memory.
struct Update {
    bytes: Vec<u8>,
    count: u16,
    /// The count is final, as it must be before the first bytes are sent.
    fixed: bool,
}

impl Update {
    /// Sent at once from here on.
    const LARGE: usize = 1 << 20;

    fn new() -> Update {
        Update {
            bytes: vec![spec::FRAMEBUFFER_UPDATE, 0, 0, 0],
            count: 0,
            fixed: false,
        }
    }

    /// Only `more` rectangles follow.
    fn expect(&mut self, more: usize) {
        self.count += more as u16;
        self.bytes[2..4].copy_from_slice(&self.count.to_be_bytes());
        self.fixed = true;
    }

    fn rectangle(&mut self, part: Rectangle, encoding: i32) {
        for number in [part.x, part.y, part.width, part.height] {
            self.bytes.extend_from_slice(&(number as u16).to_be_bytes());
        }
        self.bytes.extend_from_slice(&encoding.to_be_bytes());
        self.count += u16::from(!self.fixed);
    }

    /// An ExtendedDesktopSize rectangle with one screen.
    fn desktop_size(&mut self, reason: u16, status: u16, size: (u32, u32)) {
        let part = Rectangle {
            x: reason.into(),
            y: status.into(),
            width: size.0,
            height: size.1,
        };
        self.rectangle(part, spec::EXTENDED_DESKTOP_SIZE);
        self.bytes.extend_from_slice(&[1, 0, 0, 0]);
        self.bytes.extend_from_slice(&[0; 8]); // id, x, y
        self.bytes.extend_from_slice(&(size.0 as u16).to_be_bytes());
        self.bytes.extend_from_slice(&(size.1 as u16).to_be_bytes());
        self.bytes.extend_from_slice(&[0; 4]); // flags
    }

    /// The pointer's picture; `None`: none is to be drawn.
    fn cursor(&mut self, encoding: i32, format: PixelFormat, image: Option<&CursorImage>) {
        let nothing = CursorImage::default();
        let image = image.unwrap_or(&nothing);
        let part = Rectangle {
            x: image.hot_x,
            y: image.hot_y,
            width: image.width,
            height: image.height,
        };
        self.rectangle(part, encoding);
        if encoding == spec::CURSOR_WITH_ALPHA {
            self.bytes.extend_from_slice(&spec::RAW.to_be_bytes());
            for pixel in &image.pixels {
                let [alpha, red, green, blue] = pixel.to_be_bytes();
                self.bytes.extend_from_slice(&[red, green, blue, alpha]);
            }
            return;
        }
        format.put(&image.pixels, &mut self.bytes);
        // A bit a pixel, rows of whole bytes: drawn or not.
        for row in image.pixels.chunks(image.width.max(1) as usize) {
            for eight in row.chunks(8) {
                let bits = eight.iter().enumerate();
                let byte = bits.fold(0, |byte, (i, pixel)| {
                    byte | u8::from(pixel >> 31 != 0) << (7 - i)
                });
                self.bytes.push(byte);
            }
        }
    }

    fn send(&mut self, stream: &mut Stream) -> io::Result<()> {
        if !self.fixed {
            self.expect(0);
        }
        stream.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }

    fn send_if_large(&mut self, stream: &mut Stream) -> io::Result<()> {
        if self.bytes.len() < Update::LARGE {
            Ok(())
        } else {
            self.send(stream)
        }
    }
}
