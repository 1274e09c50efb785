//! Pages as programs: a WebSocket client against the server.

use super::*;
use crate::{Controls, Display, RemovableDrive};
use device::input::{Button, Event, Input, Key, Wants};
use device::screen::{Screen, Surface, next_setup};
use flate2::read::ZlibDecoder;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::{Message as Frame, WebSocket};

struct Picture(u64, Mutex<Surface>);

impl Screen for Picture {
    fn setup(&self) -> u64 {
        self.0
    }

    fn capture(&self, surface: &mut Surface) -> bool {
        surface.clone_from(&self.1.lock());
        true
    }
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Input for Recorder {
    fn wants(&self) -> Wants {
        Wants {
            keys: true,
            position: true,
            motion: false,
        }
    }

    fn event(&self, event: Event) {
        self.0.lock().push(event);
    }
}

/// Waits until `found` returns something.
fn wait<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Machine(
    Mutex<(&'static str, Vec<&'static str>)>,
    Mutex<Option<String>>,
);

impl Machine {
    fn did(&self, what: &'static str) {
        self.0.lock().1.push(what);
    }
}

impl Controls for Machine {
    fn name(&self) -> String {
        "test".into()
    }

    fn state(&self) -> &'static str {
        self.0.lock().0
    }

    fn power_button(&self) {
        self.did("power");
    }

    fn reset(&self) {
        self.did("reset");
    }

    fn pause(&self) {
        self.0.lock().0 = "paused";
    }

    fn resume(&self) {
        self.0.lock().0 = "running";
    }

    fn quit(&self) {
        self.did("quit");
    }

    fn removable_drives(&self) -> Vec<RemovableDrive> {
        let medium = self.1.lock().clone();
        vec![RemovableDrive {
            id: "/cd0".into(),
            name: "cd0".into(),
            open: medium.is_none(),
            medium,
            locked: false,
        }]
    }

    fn eject(&self, drive: Option<&str>) -> Result<String, String> {
        assert_eq!(drive, Some("/cd0"));
        *self.1.lock() = None;
        Ok("cd0".into())
    }

    fn insert(&self, drive: Option<&str>, path: &std::path::Path) -> Result<String, String> {
        if drive != Some("/cd0") {
            return Err("no drive".into());
        }
        *self.1.lock() = Some(path.display().to_string());
        Ok("cd0".into())
    }
}

struct Bench {
    server: WebServer,
    picture: Arc<Picture>,
    input: Arc<Recorder>,
    machine: Arc<Machine>,
}

fn bench() -> Bench {
    let display = Display::new();
    let mut surface = Surface::new(200, 100);
    for (n, pixel) in surface.pixels.iter_mut().enumerate() {
        *pixel = (n as u32).wrapping_mul(0x0001_2345) & 0x00ff_ffff;
    }
    let picture = Arc::new(Picture(next_setup(), Mutex::new(surface)));
    let input = Arc::new(Recorder::default());
    let machine = Arc::new(Machine(
        Mutex::new(("running", Vec::new())),
        Mutex::default(),
    ));
    display.add_screen(picture.clone());
    display.add_input(input.clone());
    Bench {
        server: WebServer::start(display, machine.clone(), &WebOptions::default()).unwrap(),
        picture,
        input,
        machine,
    }
}

impl Bench {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    fn token(&self) -> String {
        self.server.url().split('/').nth(3).unwrap().to_string()
    }

    /// One request's whole answer.
    fn get(&self, path: &str, fields: &str) -> String {
        let mut stream = self.connect();
        let host = self.server.address();
        let fields = if fields.contains("Host:") {
            fields.to_string()
        } else {
            format!("Host: {host}\r\n{fields}")
        };
        write!(stream, "GET {path} HTTP/1.1\r\n{fields}\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

struct Page {
    socket: WebSocket<TcpStream>,
    size: (usize, usize),
    pixels: Vec<u32>,
    state: Value,
    notes: Vec<String>,
    /// What came of changes of media.
    changes: Vec<Value>,
}

impl Page {
    fn new(bench: &Bench, deflate: bool) -> Page {
        let url = bench.server.url().replace("http://", "ws://") + "socket";
        let (socket, _) = tungstenite::client(url, bench.connect()).unwrap();
        let mut page = Page {
            socket,
            size: (0, 0),
            pixels: Vec::new(),
            state: Value::Null,
            notes: Vec::new(),
            changes: Vec::new(),
        };
        page.send(&format!(r#"{{"t":"start","deflate":{deflate}}}"#));
        page
    }

    fn send(&mut self, text: &str) {
        self.socket.send(Frame::text(text)).unwrap();
    }

    /// Takes one message; updates are drawn, and not acknowledged. Returns the rectangles.
    fn hear(&mut self) -> Vec<[u16; 4]> {
        let data = match self.socket.read().unwrap() {
            Frame::Text(text) => {
                let value: Value = serde_json::from_str(&text).unwrap();
                match value["t"].as_str().unwrap() {
                    "state" => self.state = value,
                    "note" => self.notes.push(value["text"].as_str().unwrap().into()),
                    "drive" => self.changes.push(value),
                    other => panic!("{other}"),
                }
                return Vec::new();
            }
            Frame::Binary(data) => data,
            _ => return Vec::new(),
        };
        let word = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
        assert_eq!(data[0], 1);
        let count = usize::from(word(2));
        let size = (usize::from(word(4)), usize::from(word(6)));
        if size != self.size {
            self.size = size;
            self.pixels = vec![0; size.0 * size.1];
        }
        let mut plain = Vec::new();
        let rest = &data[8 + count * 8..];
        match data[1] {
            0 => plain.extend_from_slice(rest),
            _ => drop(ZlibDecoder::new(rest).read_to_end(&mut plain).unwrap()),
        }
        let mut pixels = plain.chunks_exact(4);
        let mut parts = Vec::new();
        for n in 0..count {
            let part = [0, 2, 4, 6].map(|at| word(8 + n * 8 + at));
            let [x, y, width, height] = part.map(usize::from);
            for y in y..y + height {
                for x in x..x + width {
                    let pixel = pixels.next().unwrap();
                    assert_eq!(pixel[3], 255);
                    self.pixels[y * size.0 + x] =
                        u32::from_be_bytes([0, pixel[0], pixel[1], pixel[2]]);
                }
            }
            parts.push(part);
        }
        assert!(pixels.next().is_none());
        parts
    }

    fn update(&mut self) -> Vec<[u16; 4]> {
        loop {
            let parts = self.hear();
            if !parts.is_empty() {
                self.send(r#"{"t":"ack"}"#);
                return parts;
            }
        }
    }

    fn see(&mut self, expected: &[u32]) {
        while self.pixels != expected {
            self.update();
        }
    }
}

#[test]
fn only_those_with_the_token_from_our_own_page() {
    let bench = bench();
    let token = bench.token();
    assert_eq!(token.len(), 32);
    let page = bench.get(&format!("/{token}/"), "");
    assert!(
        page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<canvas"),
        "{page}"
    );
    assert!(page.contains("frame-ancestors 'none'"));
    assert!(
        bench
            .get(&format!("/{token}/client.js"), "")
            .contains("WebSocket")
    );
    assert!(
        bench
            .get(&format!("/{token}/style.css"), "")
            .contains("canvas")
    );
    assert!(
        bench
            .get(&format!("/{token}"), "")
            .contains(&format!("Location: /{token}/\r\n"))
    );
    assert!(
        bench
            .get(&format!("/{token}/../x"), "")
            .starts_with("HTTP/1.1 404")
    );
    assert!(
        bench
            .get(&format!("/{token}/socket"), "")
            .starts_with("HTTP/1.1 426")
    );
    assert!(
        bench
            .get(&format!("/{token}/screen.png"), "")
            .contains("PNG")
    );
    let refused = |path: &str, fields: &str| {
        let answer = bench.get(path, fields);
        assert!(!answer.contains(&token), "{answer}");
        answer.split(' ').nth(1).unwrap().to_string()
    };
    let wrong = format!("{}0", &token[..31]).replace(&token, "0");
    assert_eq!(refused("/", ""), "403");
    assert_eq!(refused(&format!("/{wrong}x/"), ""), "403");
    assert_eq!(
        refused(&format!("/{token}/"), "Host: evil.example\r\n"),
        "421"
    );
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YWJj\r\n";
    let foreign = format!("{upgrade}Origin: http://evil.example\r\n");
    assert_eq!(refused(&format!("/{token}/socket"), &foreign), "403");
    // A page that knows our host, from another port of it.
    let near = format!("{upgrade}Origin: http://127.0.0.1:1\r\n");
    assert_eq!(refused(&format!("/{token}/socket"), &near), "403");
}

#[test]
fn pages_see_the_picture_and_then_its_changes() {
    let bench = bench();
    let mut pages = [Page::new(&bench, true), Page::new(&bench, false)];
    for page in &mut pages {
        let expected = bench.picture.1.lock().pixels.clone();
        page.see(&expected);
        assert_eq!(page.state["state"], "running");
        assert_eq!(page.state["absolute"], true);
    }
    bench.picture.1.lock().pixels[70 * 200 + 130] ^= 0x0055_5555;
    let expected = bench.picture.1.lock().pixels.clone();
    for page in &mut pages {
        assert_eq!(page.update(), [[128, 64, 64, 36]]);
        assert!(page.pixels == expected);
    }
    let mut large = Surface::new(1000, 700);
    large.pixels.fill(0x0012_3456);
    *bench.picture.1.lock() = large;
    for page in &mut pages {
        page.see(&[0x0012_3456; 1000 * 700]);
    }
}

#[test]
fn a_slow_page_gets_the_newest_picture_and_costs_no_memory() {
    let bench = bench();
    *bench.picture.1.lock() = Surface::new(1024, 1024);
    let mut page = Page::new(&bench, false);
    // Nothing is acknowledged while the picture changes: what is sent stops.
    let mut pixels = 0;
    let mut updates = 0;
    page.socket
        .get_ref()
        .set_read_timeout(Some(Duration::from_millis(400)))
        .unwrap();
    for round in 1..12 {
        bench.picture.1.lock().pixels.fill(round);
        std::thread::sleep(Duration::from_millis(40));
    }
    while let Ok(frame) = page.socket.read() {
        if let Frame::Binary(data) = frame {
            updates += 1;
            pixels += data.len() / 4;
        }
    }
    assert!(updates <= 3, "{updates} updates under way");
    assert!(pixels < 4 * 256 * 1024 + 4 * 1024 * 64, "{pixels} pixels");
    page.socket
        .get_ref()
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    page.size = (1024, 1024);
    page.pixels = vec![u32::MAX; 1024 * 1024];
    bench.picture.1.lock().pixels.fill(77);
    for _ in 0..3 {
        page.send(r#"{"t":"ack"}"#);
    }
    page.see(&[77; 1024 * 1024]);
}

#[test]
fn keys_pointer_and_text() {
    let bench = bench();
    let mut page = Page::new(&bench, true);
    for text in [
        r#"{"t":"key","code":"KeyQ","down":true}"#,
        r#"{"t":"key","code":"KeyQ","down":false}"#,
        r#"{"t":"key","code":"Fn","down":true}"#,
        r#"{"t":"pointer","x":32767,"y":0}"#,
        r#"{"t":"button","button":2,"down":true}"#,
        r#"{"t":"button","button":9,"down":true}"#,
        r#"{"t":"wheel","steps":-2}"#,
        r#"{"t":"release"}"#,
        r#"{"t":"type","text":"Bü"}"#,
    ] {
        page.send(text);
    }
    let key = |usage, down| Event::Key {
        key: Key(usage),
        down,
    };
    let button = |down| Event::Button {
        button: Button::Right,
        down,
    };
    let expected = [
        key(0x14, true),
        key(0x14, false),
        Event::Position { x: 0x7fff, y: 0 },
        button(true),
        Event::Wheel { steps: -2 },
        button(false),
        key(0xe1, true),
        key(0x05, true),
        key(0x05, false),
        key(0xe1, false),
    ];
    wait(|| (bench.input.0.lock().len() >= expected.len()).then_some(()));
    assert_eq!(*bench.input.0.lock(), expected);
    while page.notes.is_empty() {
        page.hear();
    }
    assert!(page.notes[0].contains('ü'), "{:?}", page.notes);
    // A page that goes leaves nothing pressed, and types no more.
    page.send(r#"{"t":"key","code":"ShiftLeft","down":true}"#);
    page.send(&format!(r#"{{"t":"type","text":"{}"}}"#, "x".repeat(1000)));
    wait(|| {
        bench
            .input
            .0
            .lock()
            .contains(&key(0x1b, true))
            .then_some(())
    });
    drop(page);
    wait(|| (bench.server.clients() == 0).then_some(()));
    wait(|| (bench.input.0.lock().last() == Some(&key(0xe1, false))).then_some(()));
}

#[test]
fn the_machine_is_told_and_tells() {
    let bench = bench();
    let mut page = Page::new(&bench, true);
    for action in ["power", "reset", "pause"] {
        page.send(&format!(r#"{{"t":"machine","action":"{action}"}}"#));
    }
    while page.state["state"] != "paused" {
        page.hear();
    }
    page.send(r#"{"t":"machine","action":"resume"}"#);
    while page.state["state"] != "running" {
        page.hear();
    }
    assert_eq!(page.state["name"], "test");
    assert_eq!(bench.machine.0.lock().1, ["power", "reset"]);
    // Pings are answered, between updates.
    page.socket.send(Frame::Ping(b"hi"[..].into())).unwrap();
    while !matches!(page.socket.read().unwrap(), Frame::Pong(data) if &data[..] == b"hi") {}
    // What is no message ends the page.
    page.send("nonsense");
    while page.socket.read().is_ok() {}
    wait(|| (bench.server.clients() == 0).then_some(()));
}

#[test]
fn media_are_changed() {
    let bench = bench();
    let mut page = Page::new(&bench, true);
    let drive = |medium: Value, open: bool| json!([{ "id": "/cd0", "name": "cd0", "medium": medium, "open": open, "locked": false }]);
    let see = |page: &mut Page, drives: Value| {
        while page.state["drives"] != drives {
            page.hear();
        }
    };
    see(&mut page, drive(Value::Null, true));
    page.send(r#"{"t":"insert","drive":"/x","path":"/a.iso"}"#);
    page.send(r#"{"t":"insert","drive":"/cd0","path":"/discs/ä b.iso"}"#);
    see(&mut page, drive("/discs/ä b.iso".into(), false));
    page.send(r#"{"t":"eject","drive":"/cd0"}"#);
    see(&mut page, drive(Value::Null, true));
    while page.changes.len() < 3 {
        page.hear();
    }
    let change = |id, done, text| json!({ "t": "drive", "id": id, "done": done, "text": text });
    assert_eq!(
        page.changes,
        [
            change("/x", false, "no drive"),
            change("/cd0", true, "ä b.iso is in cd0"),
            change("/cd0", true, "cd0 is empty"),
        ]
    );
    // Changed by others, it is told, too; and to a page that comes later.
    *bench.machine.1.lock() = Some("/by-qmp.iso".into());
    see(&mut page, drive("/by-qmp.iso".into(), false));
    let mut later = Page::new(&bench, false);
    see(&mut later, drive("/by-qmp.iso".into(), false));
}
