//! The server against a small client of our own.

use super::auth;
use super::encode::tests::{decode_zrle, inflate};
use super::pixel::PixelFormat;
use super::*;
use crate::Display;
use device::input::{Button, Event, Input, Key, Wants};
use device::screen::{Cursor, CursorImage, Screen, Surface, next_setup};
use flate2::Decompress;
use parking_lot::Mutex;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

struct Picture(u64, Mutex<Surface>);

/// A screen with a hardware cursor whose guest can be asked for a size.
struct Gpu {
    cursor: Mutex<Cursor>,
    wanted: Mutex<(u32, u32)>,
}

impl Screen for Gpu {
    fn setup(&self) -> u64 {
        1
    }

    fn capture(&self, surface: &mut Surface) -> bool {
        *surface = Surface::new(200, 100);
        true
    }

    fn cursor(&self) -> Option<Cursor> {
        Some(self.cursor.lock().clone())
    }

    fn request_size(&self, width: u32, height: u32) -> bool {
        *self.wanted.lock() = (width, height);
        true
    }
}

impl Screen for Picture {
    fn setup(&self) -> u64 {
        self.0
    }

    fn capture(&self, surface: &mut Surface) -> bool {
        surface.clone_from(&self.1.lock());
        true
    }
}

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

impl Recorder {
    /// Waits for `count` events and takes them.
    fn take(&self, count: usize) -> Vec<Event> {
        for _ in 0..1000 {
            if self.0.lock().len() >= count {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        std::mem::take(&mut *self.0.lock())
    }
}

struct Bench {
    display: Arc<Display>,
    server: VncServer,
    picture: Arc<Picture>,
    input: Arc<Recorder>,
}

fn bench(options: &str) -> Bench {
    let display = Display::new();
    let mut surface = Surface::new(200, 100);
    for (n, pixel) in surface.pixels.iter_mut().enumerate() {
        *pixel = (n as u32).wrapping_mul(0x0001_2345) & 0x00ff_ffff;
    }
    let picture = Arc::new(Picture(next_setup(), Mutex::new(surface)));
    let input = Arc::new(Recorder(Mutex::default()));
    display.add_screen(picture.clone());
    display.add_input(input.clone());
    let mut options = VncOptions::parse(&format!(":0,to=500{options}"))
        .unwrap()
        .unwrap();
    options.name = "test".into();
    Bench {
        server: VncServer::start(display.clone(), &options).unwrap(),
        display,
        picture,
        input,
    }
}

struct Client {
    stream: TcpStream,
    size: (usize, usize),
    pixels: Vec<u32>,
    zlib: Decompress,
    zrle: Decompress,
    format: PixelFormat,
    /// Pseudo-rectangles: encoding, x, y, width, height.
    pseudo: Vec<(i32, [u16; 4])>,
    /// What the last cursor's rectangle held.
    cursor: Vec<u8>,
}

impl Client {
    fn connect(bench: &Bench) -> TcpStream {
        let stream = TcpStream::connect(bench.server.address().unwrap()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    fn new(bench: &Bench) -> Client {
        let mut stream = Client::connect(bench);
        let mut greeting = [0; 12];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"RFB 003.008\n");
        stream.write_all(b"RFB 003.008\n").unwrap();
        assert_eq!(take::<2>(&mut stream), [1, 1]);
        stream.write_all(&[1]).unwrap();
        assert_eq!(take::<4>(&mut stream), [0; 4]);
        stream.write_all(&[1]).unwrap();
        Client::initialised(stream)
    }

    fn initialised(mut stream: TcpStream) -> Client {
        let head = take::<24>(&mut stream);
        assert_eq!(head[4..20], PixelFormat::NATIVE.to_bytes());
        let mut name = vec![0; head[23].into()];
        stream.read_exact(&mut name).unwrap();
        assert_eq!(name, b"test");
        let size = (
            usize::from(head[0]) << 8 | usize::from(head[1]),
            usize::from(head[2]) << 8 | usize::from(head[3]),
        );
        let mut client = Client {
            stream,
            size,
            pixels: vec![0; size.0 * size.1],
            zlib: Decompress::new(true),
            zrle: Decompress::new(true),
            format: PixelFormat::NATIVE,
            pseudo: Vec::new(),
            cursor: Vec::new(),
        };
        client.encodings(&[-223, 0]);
        assert_eq!(client.size, (200, 100));
        client
    }

    fn encodings(&mut self, encodings: &[i32]) {
        let mut message = vec![2, 0, 0, encodings.len() as u8];
        encodings
            .iter()
            .for_each(|encoding| message.extend_from_slice(&encoding.to_be_bytes()));
        self.stream.write_all(&message).unwrap();
    }

    fn format(&mut self, format: PixelFormat) {
        self.format = format;
        let mut message = vec![0; 4];
        message.extend_from_slice(&format.to_bytes());
        self.stream.write_all(&message).unwrap();
    }

    fn request(&mut self, incremental: bool) {
        let (width, height) = (self.size.0 as u16, self.size.1 as u16);
        let mut message = vec![3, incremental.into(), 0, 0, 0, 0];
        message.extend_from_slice(&width.to_be_bytes());
        message.extend_from_slice(&height.to_be_bytes());
        self.stream.write_all(&message).unwrap();
    }

    /// Takes one update and returns its rectangles.
    fn update(&mut self) -> Vec<[u16; 4]> {
        let head = take::<4>(&mut self.stream);
        assert_eq!(head[0], 0);
        let mut rectangles = Vec::new();
        for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
            let head = take::<12>(&mut self.stream);
            let part = [0, 2, 4, 6].map(|at| u16::from_be_bytes([head[at], head[at + 1]]));
            let encoding = i32::from_be_bytes(head[8..].try_into().unwrap());
            let [x, y, width, height] = part.map(usize::from);
            match encoding {
                0 | 6 => {
                    let size = width * height * self.format.bytes();
                    let data = if encoding == 0 {
                        let mut data = vec![0; size];
                        self.stream.read_exact(&mut data).unwrap();
                        data
                    } else {
                        let block = self.block();
                        inflate(&mut self.zlib, &block, size)
                    };
                    let mut expected = Vec::new();
                    for (n, bytes) in data.chunks_exact(self.format.bytes()).enumerate() {
                        let at = (y + n / width) * self.size.0 + x + n % width;
                        if self.format == PixelFormat::NATIVE {
                            self.pixels[at] = u32::from_le_bytes(bytes.try_into().unwrap());
                        } else {
                            expected.extend_from_slice(bytes);
                        }
                    }
                    rectangles.push(part);
                }
                16 => {
                    let block = self.block();
                    let plain = inflate(&mut self.zrle, &block, width * height * 4 + 4096);
                    let pixels = decode_zrle(&plain, width, height);
                    for (row, pixels) in pixels.chunks_exact(width).enumerate() {
                        self.pixels[(y + row) * self.size.0 + x..][..width].copy_from_slice(pixels);
                    }
                    rectangles.push(part);
                }
                -223 => {
                    self.size = (width, height);
                    self.pixels = vec![0; width * height];
                    self.pseudo.push((encoding, part));
                }
                -308 => {
                    let screens = take::<4>(&mut self.stream)[0];
                    for _ in 0..screens {
                        take::<16>(&mut self.stream);
                    }
                    if part[1] == 0 && self.size != (width, height) {
                        self.size = (width, height);
                        self.pixels = vec![0; width * height];
                    }
                    self.pseudo.push((encoding, part));
                }
                -239 => {
                    let mask = width.div_ceil(8) * height;
                    self.cursor = vec![0; width * height * self.format.bytes() + mask];
                    self.stream.read_exact(&mut self.cursor).unwrap();
                    self.pseudo.push((encoding, part));
                }
                -314 => {
                    assert_eq!(take::<4>(&mut self.stream), [0; 4]);
                    self.cursor = vec![0; width * height * 4];
                    self.stream.read_exact(&mut self.cursor).unwrap();
                    self.pseudo.push((encoding, part));
                }
                _ => self.pseudo.push((encoding, part)),
            }
        }
        rectangles
    }

    fn block(&mut self) -> Vec<u8> {
        let mut data = vec![0; u32::from_be_bytes(take::<4>(&mut self.stream)) as usize];
        self.stream.read_exact(&mut data).unwrap();
        data
    }
}

fn take<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn pictures_in_every_encoding() {
    let bench = bench("");
    for encoding in [0, 6, 16] {
        let mut client = Client::new(&bench);
        client.encodings(&[encoding, -223]);
        client.request(false);
        client.update();
        assert!(
            client.pixels == bench.picture.1.lock().pixels,
            "encoding {encoding}"
        );

        // Nothing changes, nothing comes; then only what has changed.
        client.request(true);
        client
            .stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        assert!(
            client.stream.peek(&mut [0]).is_err(),
            "an incremental request waits"
        );
        client
            .stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        bench.picture.1.lock().pixels[70 * 200 + 130] ^= 0x0055_5555;
        assert_eq!(client.update(), [[128, 64, 64, 36]]);
        assert!(client.pixels == bench.picture.1.lock().pixels);
    }
}

#[test]
fn pointers_and_sizes_of_a_gpu() {
    let bench = bench("");
    let image = CursorImage {
        width: 9,
        height: 1,
        hot_x: 2,
        hot_y: 0,
        pixels: (0..9)
            .map(|i| if i % 2 == 0 { 0xff12_3456 } else { 0 })
            .collect(),
    };
    let gpu = Arc::new(Gpu {
        cursor: Mutex::new(Cursor {
            x: 5,
            y: 6,
            image: Some(Arc::new(image)),
        }),
        wanted: Mutex::default(),
    });
    let display = Display::new();
    display.add_screen(gpu.clone());
    let mut options = VncOptions::parse(":0,to=500").unwrap().unwrap();
    options.name = "test".into();
    let bench = Bench {
        server: VncServer::start(display, &options).unwrap(),
        ..bench
    };
    let mut client = Client::new(&bench);
    client.encodings(&[0, -239]);
    client.request(false);
    client.update();
    assert_eq!(client.pseudo, [(-239, [2, 0, 9, 1])]);
    assert_eq!(client.cursor[..8], [0x56, 0x34, 0x12, 0, 0, 0, 0, 0]);
    assert_eq!(client.cursor[36..], [0b1010_1010, 0b1000_0000]);
    // It moves, which the client does by itself; then it is hidden.
    client.pseudo.clear();
    client.request(true);
    gpu.cursor.lock().x = 7;
    std::thread::sleep(Duration::from_millis(100));
    gpu.cursor.lock().image = None;
    client.update();
    assert_eq!(client.pseudo, [(-239, [0; 4])]);

    let mut alpha = Client::new(&bench);
    gpu.cursor.lock().image = Some(Arc::new(CursorImage {
        width: 1,
        height: 1,
        pixels: vec![0x8011_2233],
        ..CursorImage::default()
    }));
    alpha.encodings(&[0, -239, -314, -308]);
    alpha.request(false);
    while alpha.cursor.is_empty() {
        alpha.update();
        alpha.request(true);
    }
    assert_eq!(alpha.cursor, [0x11, 0x22, 0x33, 0x80]);
    // A size that is asked for is passed on.
    alpha.pseudo.clear();
    let mut message = vec![251, 0, 0x04, 0x00, 0x03, 0x00, 1, 0];
    message.extend([0; 16]);
    alpha.stream.write_all(&message).unwrap();
    alpha.update();
    assert_eq!(alpha.pseudo, [(-308, [1, 4, 200, 100])]);
    assert_eq!(*gpu.wanted.lock(), (1024, 768));
}

#[test]
fn several_clients_see_the_same() {
    let bench = bench("");
    let mut clients: Vec<Client> = (0..4).map(|_| Client::new(&bench)).collect();
    assert_eq!(bench.server.clients(), 4);
    for round in 0..5 {
        bench.picture.1.lock().pixels.fill(round * 0x0001_0101 + 1);
        for client in &mut clients {
            client.encodings(&[16]);
            client.request(false);
            client.update();
        }
        let expected = bench.picture.1.lock().pixels.clone();
        for client in &mut clients {
            // The first update may have come before the display looked.
            while client.pixels != expected {
                client.request(true);
                client.update();
            }
        }
    }
}

#[test]
fn sizes_change_as_the_client_can() {
    let bench = bench("");
    let mut old = Client::new(&bench);
    let mut new = Client::new(&bench);
    let mut fixed = Client::new(&bench);
    new.encodings(&[16, -308, -258, -257]);
    fixed.encodings(&[0]);
    for client in [&mut old, &mut new, &mut fixed] {
        client.request(false);
        client.update();
    }
    let told: Vec<i32> = new.pseudo.iter().map(|(encoding, _)| *encoding).collect();
    assert_eq!(told, [-308, -258, -257]);
    assert_eq!(new.pseudo[2].1[0], 1, "a tablet: positions are absolute");

    let mut large = Surface::new(300, 90);
    large.pixels.fill(0x0012_3456);
    *bench.picture.1.lock() = large;
    for client in [&mut old, &mut new, &mut fixed] {
        client.request(true);
        client.update();
    }
    assert_eq!((old.size, new.size), ((300, 90), (300, 90)));
    for client in [&mut old, &mut new] {
        client.request(true);
        client.update();
        assert!(client.pixels.iter().all(|pixel| *pixel == 0x0012_3456));
    }
    assert!(
        fixed.pixels[..200 * 90]
            .iter()
            .all(|pixel| *pixel == 0x0012_3456)
    );
    assert!(
        fixed.pixels[200 * 90..].iter().all(|pixel| *pixel == 0),
        "black below"
    );

    // SetDesktopSize is answered, and the answer is no.
    new.pseudo.clear();
    let mut message = vec![251, 0, 0, 100, 0, 100, 1, 0];
    message.extend_from_slice(&[0; 16]);
    new.stream.write_all(&message).unwrap();
    new.request(true);
    new.update();
    assert_eq!(new.pseudo, [(-308, [1, 1, 300, 90])]);
}

#[test]
fn pixel_formats() {
    let bench = bench("");
    let mut client = Client::new(&bench);
    client.encodings(&[0]);
    for (bits_per_pixel, max, shift) in [
        (8, [7, 7, 3], [0, 3, 6]),
        (16, [31, 63, 31], [11, 5, 0]),
        (32, [255, 255, 255], [0, 8, 16]),
    ] {
        for big_endian in [false, true] {
            let format = PixelFormat {
                bits_per_pixel,
                depth: bits_per_pixel.min(24),
                big_endian,
                max,
                shift,
            };
            client.format(format);
            client.request(false);
            // The sizes agree, or the next update is not one.
            assert!(!client.update().is_empty());
        }
    }
    client.format(PixelFormat::NATIVE);
    client.request(false);
    client.update();
    assert!(client.pixels == bench.picture.1.lock().pixels);
}

fn key(keysym: u32, down: bool) -> Vec<u8> {
    let mut message = vec![4, down.into(), 0, 0];
    message.extend_from_slice(&keysym.to_be_bytes());
    message
}

fn pressed(usage: u8, down: bool) -> Event {
    Event::Key {
        key: Key(usage),
        down,
    }
}

#[test]
fn keys_and_pointer() {
    let bench = bench("");
    let mut client = Client::new(&bench);
    let (a, shift, slash) = (0x04, 0xe1, 0x38);

    // 'A' without Shift: Shift is pressed for it. '/' under Shift, as on a German keyboard: Shift is let go for it.
    for message in [key(0x41, true), key(0x41, false)] {
        client.stream.write_all(&message).unwrap();
    }
    let expected = [
        pressed(shift, true),
        pressed(a, true),
        pressed(shift, false),
        pressed(a, false),
    ];
    assert_eq!(bench.input.take(4), expected);
    for message in [
        key(0xffe1, true),
        key(0x2f, true),
        key(0x2f, false),
        key(0xffe1, false),
    ] {
        client.stream.write_all(&message).unwrap();
    }
    let expected = [
        pressed(shift, true),
        pressed(shift, false),
        pressed(slash, true),
        pressed(shift, true),
        pressed(slash, false),
        pressed(shift, false),
    ];
    assert_eq!(bench.input.take(6), expected);

    // QEMU's extended key event: the right Control key, by its scan code.
    client
        .stream
        .write_all(&[255, 0, 0, 1, 0, 0, 0xff, 0xe4, 0, 0, 0, 0x9d])
        .unwrap();
    assert_eq!(bench.input.take(1), [pressed(0xe4, true)]);

    // Left button at the lower right corner, wheel up.
    client.stream.write_all(&[5, 1, 0, 199, 0, 99]).unwrap();
    client.stream.write_all(&[5, 9, 0, 199, 0, 99]).unwrap();
    let events = bench.input.take(4);
    assert_eq!(
        events[0],
        Event::Position {
            x: 0x7fff,
            y: 0x7fff
        }
    );
    assert_eq!(
        events[1],
        Event::Button {
            button: Button::Left,
            down: true
        }
    );
    assert!(events.contains(&Event::Wheel { steps: 1 }));

    // What is held down is released when the client is gone.
    drop(client);
    let events = bench.input.take(2);
    assert!(events.contains(&pressed(0xe4, false)), "{events:?}");
    assert!(
        events.contains(&Event::Button {
            button: Button::Left,
            down: false
        }),
        "{events:?}"
    );
}

#[test]
fn old_versions_and_passwords() {
    let bench = bench(",password=on,share=ignore");
    let attempt = |version: &[u8; 12], password: &str| {
        let mut stream = Client::connect(&bench);
        take::<12>(&mut stream);
        stream.write_all(version).unwrap();
        if version == b"RFB 003.003\n" {
            assert_eq!(take::<4>(&mut stream), [0, 0, 0, 2]);
        } else {
            assert_eq!(take::<2>(&mut stream), [1, 2]);
            stream.write_all(&[2]).unwrap();
        }
        let challenge = take::<16>(&mut stream);
        stream
            .write_all(&auth::response(password, &challenge))
            .unwrap();
        (u32::from_be_bytes(take::<4>(&mut stream)), stream)
    };
    assert_eq!(
        attempt(b"RFB 003.008\n", "").0,
        1,
        "nobody is let in before a password is set"
    );
    assert!(bench.server.set_password(Some("geheim")));
    for version in [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"] {
        let (result, mut stream) = attempt(version, "geheim");
        assert_eq!(result, 0);
        stream.write_all(&[0]).unwrap();
        let mut client = Client::initialised(stream);
        client.request(false);
        client.update();
        assert_eq!(attempt(version, "falsch").0, 1);
    }
}

#[test]
fn passwords_run_out() {
    let bench = bench(",password=on");
    let guarded = bench.display.guarded();
    assert_eq!(guarded.len(), 1);
    let lets_in = || {
        let mut stream = Client::connect(&bench);
        take::<12>(&mut stream);
        stream.write_all(b"RFB 003.008\n").unwrap();
        take::<2>(&mut stream);
        stream.write_all(&[2]).unwrap();
        let challenge = take::<16>(&mut stream);
        let answer = auth::response("x", &challenge);
        stream.write_all(&answer).unwrap();
        take::<4>(&mut stream) == [0; 4]
    };
    let now = std::time::SystemTime::now();
    assert!(guarded[0].set_password(Some("x")) && lets_in());
    assert!(guarded[0].expire(Some(now)) && !lets_in());
    assert!(guarded[0].expire(Some(now + Duration::from_secs(1000))) && lets_in());
    assert!(guarded[0].expire(None) && guarded[0].set_password(None) && !lets_in());
}

#[test]
fn copied_text_is_typed_when_asked_for() {
    let bench = bench("");
    let mut client = Client::new(&bench);
    let text = b"Ab";
    let mut message = vec![6, 0, 0, 0, 0, 0, 0, text.len() as u8];
    message.extend_from_slice(text);
    client.stream.write_all(&message).unwrap();
    // Control, Alt, Shift, V.
    for keysym in [0xffe3, 0xffe9, 0xffe1, 0x56] {
        client.stream.write_all(&key(keysym, true)).unwrap();
    }
    for keysym in [0x56, 0xffe1, 0xffe9, 0xffe3] {
        client.stream.write_all(&key(keysym, false)).unwrap();
    }
    let events = bench.input.take(12);
    let typed = [
        pressed(0xe1, true),
        pressed(0x04, true),
        pressed(0x04, false),
        pressed(0xe1, false),
        pressed(0x05, true),
        pressed(0x05, false),
    ];
    assert_eq!(events[6..], typed, "{events:?}");
}

#[test]
fn a_client_may_be_alone() {
    let bench = bench("");
    let mut first = Client::new(&bench);
    let mut stream = Client::connect(&bench);
    take::<12>(&mut stream);
    stream.write_all(b"RFB 003.007\n").unwrap();
    take::<2>(&mut stream);
    stream.write_all(&[1, 0]).unwrap();
    Client::initialised(stream);
    assert_eq!(first.stream.read(&mut [0]).unwrap_or(0), 0, "sent away");
}

/// Random messages after a good handshake: the connection may end, the server may not.
#[test]
fn hostile_clients() {
    let bench = bench("");
    let mut x = 0x1234_5678_9abc_def1u64;
    let mut random = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    for _ in 0..60 {
        let mut client = Client::new(&bench);
        for _ in 0..40 {
            let kind = [0, 2, 3, 3, 4, 5, 6, 251, 255, random() as u8][(random() % 10) as usize];
            let mut message = vec![kind];
            message.extend(
                (0..random() % 40).map(|_| if random() % 2 == 0 { 0 } else { random() as u8 }),
            );
            if client.stream.write_all(&message).is_err() {
                break;
            }
        }
    }
    // Clients that ask and never read, nor leave.
    let mut deaf: Vec<Client> = (0..3).map(|_| Client::new(&bench)).collect();
    for client in &mut deaf {
        for _ in 0..2000 {
            client.request(false);
        }
    }
    let mut client = Client::new(&bench);
    client.request(false);
    client.update();
    assert!(client.pixels == bench.picture.1.lock().pixels);
}

#[test]
fn addresses() {
    let display = Display::new();
    let first = VncServer::start(display.clone(), &VncOptions::local()).unwrap();
    let second = VncServer::start(display.clone(), &VncOptions::local()).unwrap();
    assert!(second.display() > first.display());
    assert!(first.address().unwrap().ip().is_loopback());
    let taken = format!(":{}", first.display().unwrap());
    let options = VncOptions::parse(&taken).unwrap().unwrap();
    assert!(VncServer::start(display.clone(), &options).is_err());

    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("vnc");
    let options = VncOptions::parse(&format!("unix:{}", path.display()))
        .unwrap()
        .unwrap();
    // A socket that a killed server left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = VncServer::start(display.clone(), &options).unwrap();
    assert!(VncServer::start(display, &options).is_err(), "in use");
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut greeting = [0; 12];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");
    drop(server);
    assert!(!path.exists());
}
