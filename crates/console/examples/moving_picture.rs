//! A VNC server with a moving picture and printed input, for trying viewers:
//! `cargo run -p dormer-console --example moving_picture [:DISPLAY[,password=on]]`. The password is `secret`.

use console::vnc::{VncOptions, VncServer};
use console::{Display, keys};
use device::input::{Event, Input, Wants};
use device::screen::{Screen, Surface, next_setup};
use dormer_console as console;
use std::sync::Arc;
use std::time::Instant;

struct Picture {
    setup: u64,
    start: Instant,
}

impl Screen for Picture {
    fn setup(&self) -> u64 {
        self.setup
    }

    fn capture(&self, surface: &mut Surface) -> bool {
        let seconds = self.start.elapsed().as_secs_f32();
        // The mode changes after a while, as it does when firmware hands over.
        let (width, height) = if seconds < 10.0 {
            (800, 600)
        } else {
            (1024, 768)
        };
        *surface = Surface::new(width, height);
        for (y, row) in surface.pixels.chunks_exact_mut(width as usize).enumerate() {
            for (x, pixel) in row.iter_mut().enumerate() {
                *pixel = (x as u32 * 255 / width) << 16 | (y as u32 * 255 / height) << 8 | 0x40;
            }
        }
        let left = ((seconds * 100.0) as u32 % (width - 80)) as usize;
        for row in surface
            .pixels
            .chunks_exact_mut(width as usize)
            .skip(200)
            .take(80)
        {
            row[left..left + 80].fill(0x00ff_ffff);
        }
        true
    }
}

struct Printer;

impl Input for Printer {
    fn wants(&self) -> Wants {
        Wants {
            keys: true,
            position: true,
            motion: false,
        }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Key { key, down } => println!("key {} {down}", keys::name(key).unwrap_or("?")),
            other => println!("{other:?}"),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let display = Display::new();
    display.add_screen(Arc::new(Picture {
        setup: next_setup(),
        start: Instant::now(),
    }));
    display.add_input(Arc::new(Printer));
    let options = match std::env::args().nth(1) {
        Some(text) => VncOptions::parse(&text)?.unwrap_or_else(VncOptions::local),
        None => VncOptions::local(),
    };
    let server = VncServer::start(display, &options)?;
    server.set_password(Some("secret"));
    println!("listening on {}; Enter ends it", server.location());
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
