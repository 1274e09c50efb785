//! The window itself: its pixels, its input, its title.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use device::input::Button;
use device::screen::CursorImage;
use softbuffer::{Context, Rect, Surface};
use winit::application::ApplicationHandler;
use winit::dpi::{LogicalSize, PhysicalSize};
use winit::event::{
    DeviceEvent, DeviceId, ElementState, KeyEvent, MouseButton, MouseScrollDelta, WindowEvent,
};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoopProxy, OwnedDisplayHandle};
use winit::keyboard::{KeyCode, ModifiersState, PhysicalKey};
use winit::window::{
    CursorGrabMode, CursorIcon, CustomCursor, CustomCursorSource, Fullscreen, Window, WindowId,
};

use super::chords::{Action, HELP};
use super::layout::Layout;
use super::options::WindowOptions;
use super::paint::{paint, paint_borders};
use super::{Wake, WindowError};
use crate::frames::{Rectangle, Viewer};
use crate::screenshot::write_png;
use crate::{Controls, Display, Seat, keys};

/// Between looks at what the machine is doing.
const STATE: Duration = Duration::from_millis(400);
/// A window's size is told to the guest once it has been the same for so long.
const SETTLED: Duration = Duration::from_millis(250);
/// The second press of what has to be asked for twice.
const TWICE: Duration = Duration::from_secs(3);
/// How long the title says what came of something.
const SAID: Duration = Duration::from_secs(6);
/// Frames whose changed parts are remembered, for surfaces with several buffers.
const HISTORY: usize = 3;
/// Pixels of a smooth wheel that make a step.
const WHEEL_STEP: f64 = 40.0;

type Pixels = Surface<OwnedDisplayHandle, Rc<Window>>;

pub(super) struct App {
    display: Arc<Display>,
    controls: Arc<dyn Controls>,
    options: WindowOptions,
    viewer: Viewer,
    seat: Seat,
    /// A [`Wake::Changed`] is on its way already.
    told: Arc<AtomicBool>,
    shown: Option<Shown>,
    fit: bool,
    modifiers: ModifiersState,
    /// Keys whose release is ours too.
    swallowed: Vec<KeyCode>,
    grabbed: bool,
    /// Motion and wheel that do not make a whole step yet.
    motion: (f64, f64),
    wheel: f64,
    /// What was asked for once, and when.
    asked: Option<(Action, Instant)>,
    /// What the title says for a while, and since when.
    said: Option<(String, Instant)>,
    failed: Option<WindowError>,
}

/// A window that is open.
struct Shown {
    window: Rc<Window>,
    pixels: Pixels,
    layout: Layout,
    /// The changed parts of the last frames, the newest first.
    history: VecDeque<Vec<Rectangle>>,
    /// Everything is to be painted.
    whole: bool,
    /// The user has chosen the window's size: it no longer follows the picture's.
    sized: bool,
    /// The size that we asked for.
    expected: PhysicalSize<u32>,
    /// When the guest is to be told of the window's size.
    tell_size: Option<Instant>,
    title: String,
    /// Where the pointer is.
    pointer: (f64, f64),
    cursor_visible: bool,
    guest_cursor: GuestCursor,
}

/// The guest's pointer.
enum GuestCursor {
    /// A part of the picture.
    Drawn,
    Hidden,
    /// Given by its device.
    Ours(Arc<CursorImage>),
}

/// The host's kind of pointer's picture. The guest's colours are multiplied by alpha, the host's are not.
fn cursor_source(image: &CursorImage) -> Option<CustomCursorSource> {
    let rgba: Vec<u8> = image
        .pixels
        .iter()
        .flat_map(|pixel| {
            let [blue, green, red, alpha] = pixel.to_le_bytes();
            let plain = |colour: u8| match alpha {
                0 => 0,
                alpha => (u32::from(colour) * 255 / u32::from(alpha)).min(255) as u8,
            };
            [plain(red), plain(green), plain(blue), alpha]
        })
        .collect();
    let size = |n: u32| u16::try_from(n).ok();
    let (width, height) = (size(image.width)?, size(image.height)?);
    let (x, y) = (size(image.hot_x)?, size(image.hot_y)?);
    CustomCursor::from_rgba(rgba, width, height, x, y).ok()
}

impl App {
    pub(super) fn new(
        proxy: EventLoopProxy<Wake>,
        display: Arc<Display>,
        controls: Arc<dyn Controls>,
        options: &WindowOptions,
    ) -> App {
        let told = Arc::new(AtomicBool::new(false));
        let telling = told.clone();
        let viewer = display.viewer(move || {
            if !telling.swap(true, Ordering::SeqCst) {
                let _ = proxy.send_event(Wake::Changed);
            }
        });
        App {
            seat: display.seat(),
            viewer,
            display,
            controls,
            fit: options.fit,
            options: options.clone(),
            told,
            shown: None,
            modifiers: ModifiersState::empty(),
            swallowed: Vec::new(),
            grabbed: false,
            motion: (0.0, 0.0),
            wheel: 0.0,
            asked: None,
            said: None,
            failed: None,
        }
    }

    /// What came of it.
    pub(super) fn result(self) -> Result<(), WindowError> {
        self.failed.map_or(Ok(()), Err)
    }

    fn open(&self, events: &ActiveEventLoop) -> Result<Shown, WindowError> {
        let failed = |error: &dyn std::fmt::Display| WindowError::Open(error.to_string());
        self.viewer.refresh();
        let size = self.viewer.size();
        let full = self
            .options
            .full_screen
            .then_some(Fullscreen::Borderless(None));
        let attributes = Window::default_attributes()
            .with_title(self.controls.name())
            .with_inner_size(LogicalSize::new(size.0, size.1))
            .with_min_inner_size(LogicalSize::new(160, 120))
            .with_fullscreen(full);
        let window = Rc::new(events.create_window(attributes).map_err(|e| failed(&e))?);
        let context = Context::new(events.owned_display_handle()).map_err(|e| failed(&e))?;
        let pixels = Surface::new(&context, window.clone()).map_err(|e| failed(&e))?;
        Ok(Shown {
            expected: window.inner_size(),
            window,
            pixels,
            layout: Layout::default(),
            history: VecDeque::new(),
            whole: true,
            sized: self.options.full_screen,
            tell_size: None,
            title: String::new(),
            pointer: (0.0, 0.0),
            cursor_visible: true,
            guest_cursor: GuestCursor::Drawn,
        })
    }

    /// Fits picture and window to each other again.
    fn arrange(&mut self) {
        let picture = self.viewer.size();
        let fit = self.fit;
        let Some(shown) = &mut self.shown else { return };
        let size = shown.window.inner_size();
        let (Some(width), Some(height)) =
            (NonZeroU32::new(size.width), NonZeroU32::new(size.height))
        else {
            return;
        };
        if let Err(error) = shown.pixels.resize(width, height) {
            tracing::debug!(%error, "the window's pixels");
            return;
        }
        let window = (size.width, size.height);
        shown.layout = match fit {
            true => Layout::fit(window, picture),
            false => Layout::scaled(window, picture, shown.scale()),
        };
        shown.whole = true;
        shown.window.request_redraw();
    }

    /// The picture has a new size: the window takes it too, unless the user has chosen one.
    fn follow(&mut self) {
        let picture = self.viewer.size();
        if let Some(shown) = &mut self.shown
            && !shown.sized
        {
            shown.take_size(picture);
        }
        self.arrange();
    }

    /// The guest's pointer, where its device draws it, becomes the host's: it moves with the hand.
    fn take_cursor(&mut self, events: &ActiveEventLoop) {
        if !self.viewer.cursor_stale() {
            return;
        }
        let image = self.viewer.cursor().map(|cursor| cursor.image);
        let Some(shown) = &mut self.shown else { return };
        shown.guest_cursor = match image {
            None => GuestCursor::Drawn,
            Some(None) => GuestCursor::Hidden,
            Some(Some(image)) => GuestCursor::Ours(image),
        };
        if let GuestCursor::Ours(image) = &shown.guest_cursor
            && let Some(source) = cursor_source(image)
        {
            shown.window.set_cursor(events.create_custom_cursor(source));
        } else {
            shown.window.set_cursor(CursorIcon::Default);
        }
        self.update_cursor();
    }

    fn redraw(&mut self) {
        self.told.store(false, Ordering::SeqCst);
        if self
            .shown
            .as_ref()
            .is_some_and(|shown| shown.layout.picture != self.viewer.size())
        {
            self.follow();
        }
        let Some(shown) = &mut self.shown else { return };
        if let Err(error) = shown.draw(&mut self.viewer) {
            tracing::debug!(%error, "the window shows nothing");
        }
    }

    /// Title, pointer, and what waits for its time. Returns when to look again.
    fn tick(&mut self) -> Instant {
        let now = Instant::now();
        if self.asked.is_some_and(|(_, at)| now > at + TWICE) {
            self.asked = None;
        }
        if self.said.as_ref().is_some_and(|(_, at)| now > *at + SAID) {
            self.said = None;
        }
        if self.grabbed && self.display.absolute() {
            // A tablet has come: nothing need be grabbed.
            self.grab(false);
        }
        let title = self.title();
        let mut next = now + STATE;
        let Some(shown) = &mut self.shown else {
            return next;
        };
        if shown.title != title {
            shown.window.set_title(&title);
            shown.title = title;
        }
        match shown.tell_size {
            Some(at) if now >= at => {
                shown.tell_size = None;
                let size: LogicalSize<u32> = shown
                    .window
                    .inner_size()
                    .to_logical(shown.window.scale_factor());
                self.display.request_size(size.width, size.height);
            }
            Some(at) => next = next.min(at),
            None => {}
        }
        self.update_cursor();
        next
    }

    fn title(&self) -> String {
        let mut title = self.controls.name();
        let state = self.controls.state();
        if state != "running" {
            title.push_str(&format!(" [{state}]"));
        }
        if let Some((action, _)) = self.asked
            && let Some(warning) = action.warning()
        {
            title.push_str(&format!(" – {warning}"));
        } else if let Some((said, _)) = &self.said {
            title.push_str(&format!(" – {said}"));
        } else if self.grabbed {
            title.push_str(" – Ctrl-Alt-G releases the pointer");
        }
        title
    }

    /// The guest draws a pointer of its own: ours is hidden over its picture.
    fn update_cursor(&mut self) {
        let running = self.controls.state() == "running";
        let (grabbed, show) = (self.grabbed, self.options.show_cursor || !running);
        let absolute = self.display.absolute();
        let Some(shown) = &mut self.shown else { return };
        let over = shown.layout.contains(shown.pointer.0, shown.pointer.1);
        let guests = matches!(shown.guest_cursor, GuestCursor::Ours(_));
        let visible = !grabbed && (show || guests || !absolute || !over);
        if visible != shown.cursor_visible {
            shown.window.set_cursor_visible(visible);
            shown.cursor_visible = visible;
        }
    }

    fn grab(&mut self, on: bool) {
        let Some(shown) = &self.shown else { return };
        let window = &shown.window;
        let done = match on {
            false => window.set_cursor_grab(CursorGrabMode::None),
            true => window
                .set_cursor_grab(CursorGrabMode::Locked)
                .or_else(|_| window.set_cursor_grab(CursorGrabMode::Confined)),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the pointer cannot be grabbed");
        }
        self.grabbed = on;
        self.update_cursor();
    }

    fn key(&mut self, event: &KeyEvent, synthetic: bool) {
        let PhysicalKey::Code(code) = event.physical_key else {
            tracing::debug!(?event.physical_key, "a key without a name");
            return;
        };
        let down = event.state == ElementState::Pressed;
        if !down && let Some(at) = self.swallowed.iter().position(|key| *key == code) {
            self.swallowed.swap_remove(at);
            return;
        }
        // What was pressed elsewhere is not for the guest; and guests repeat keys by themselves.
        if down && (synthetic || event.repeat) {
            return;
        }
        // winit's names are W3C's, but for these.
        let name = match format!("{code:?}").as_str() {
            "SuperLeft" => "MetaLeft".to_string(),
            "SuperRight" => "MetaRight".to_string(),
            name => name.to_string(),
        };
        if down
            && self.modifiers.control_key()
            && self.modifiers.alt_key()
            && let Some(action) = Action::of(&name)
        {
            self.swallowed.push(code);
            // Ctrl and Alt were for us.
            self.seat.release_all();
            self.act(action);
            return;
        }
        match keys::from_code(&name) {
            Some(key) => self.seat.key(key, down),
            None => tracing::debug!(name, "not on a USB keyboard"),
        }
    }

    fn act(&mut self, action: Action) {
        let again = self
            .asked
            .take()
            .is_some_and(|(asked, at)| asked == action && at.elapsed() < TWICE);
        if action.warning().is_some() && !again {
            self.asked = Some((action, Instant::now()));
            return;
        }
        match action {
            Action::Grab => self.grab(!self.grabbed),
            Action::FullScreen => self.toggle_full_screen(),
            Action::Fit | Action::OneToOne => {
                self.fit = action == Action::Fit;
                let picture = self.viewer.size();
                if let Some(shown) = &mut self.shown
                    && action == Action::OneToOne
                {
                    shown.take_size(picture);
                }
                self.arrange();
            }
            Action::Pause if self.controls.state() == "running" => self.controls.pause(),
            Action::Pause => self.controls.resume(),
            Action::PowerButton => self.controls.power_button(),
            Action::Reset => self.controls.reset(),
            Action::Quit => self.controls.quit(),
            Action::Screenshot => self.screenshot(),
            Action::Eject => {
                let done = self.controls.eject(None);
                self.say(done.map(|drive| format!("{drive} is empty")));
            }
            Action::CtrlAltDelete => {
                if let Ok(keys) = keys::combination("ctrl-alt-delete") {
                    self.seat.press_together(&keys, Duration::from_millis(60));
                }
            }
            Action::Help => print!("{HELP}"),
        }
    }

    /// The disc is in the file that was dropped.
    fn insert(&mut self, image: &Path) {
        let done = self.controls.insert(None, image);
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        self.say(done.map(|drive| format!("{name} is in {drive}")));
    }

    fn say(&mut self, what: Result<String, String>) {
        let (Ok(text) | Err(text)) = what;
        self.said = Some((text, Instant::now()));
    }

    fn toggle_full_screen(&mut self) {
        let Some(shown) = &mut self.shown else { return };
        let full = shown.window.fullscreen().is_none();
        shown
            .window
            .set_fullscreen(full.then_some(Fullscreen::Borderless(None)));
        shown.sized = true;
    }

    /// The picture in the first file of this name that is not there yet.
    fn screenshot(&self) {
        let Some(surface) = self.display.capture() else {
            eprintln!("screenshot: there is no picture on the screen yet");
            return;
        };
        let name: String = self.controls.name().replace(['/', '\0'], "-");
        for n in 1.. {
            let path = format!("{name}-{n:03}.png");
            let made = std::fs::File::create_new(&path);
            match made.and_then(|file| write_png(&surface, std::io::BufWriter::new(file))) {
                Ok(()) => println!("screenshot: {path}"),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => eprintln!("screenshot: {path}: {error}"),
            }
            return;
        }
    }

    fn pointer_moved(&mut self, x: f64, y: f64) {
        let Some(shown) = &mut self.shown else { return };
        shown.pointer = (x, y);
        if self.display.absolute() {
            let (x, y) = shown.layout.position(x, y);
            self.seat.position(x, y);
        }
        self.update_cursor();
    }

    fn mouse_button(&mut self, button: MouseButton, down: bool) {
        let button = match button {
            MouseButton::Left => Button::Left,
            MouseButton::Right => Button::Right,
            MouseButton::Middle => Button::Middle,
            MouseButton::Back => Button::Side,
            MouseButton::Forward => Button::Extra,
            MouseButton::Other(_) => return,
        };
        if down && !self.grabbed && !self.display.absolute() {
            return self.grab(true);
        }
        self.seat.button(button, down);
    }

    fn wheel(&mut self, delta: MouseScrollDelta) {
        self.wheel += match delta {
            MouseScrollDelta::LineDelta(_, y) => f64::from(y),
            MouseScrollDelta::PixelDelta(by) => by.y / WHEEL_STEP,
        };
        let steps = self.wheel.trunc();
        self.wheel -= steps;
        if steps != 0.0 {
            self.seat.wheel(steps.clamp(-20.0, 20.0) as i32);
        }
    }

    fn focus(&mut self, focused: bool) {
        if !focused {
            self.seat.release_all();
            self.swallowed.clear();
            if self.grabbed {
                self.grab(false);
            }
        }
    }

    fn resized(&mut self, size: PhysicalSize<u32>) {
        if let Some(shown) = &mut self.shown
            && size != shown.expected
        {
            // Not by us: by the user, who wants the guest to fill it.
            shown.sized = true;
            shown.expected = size;
            shown.tell_size = Some(Instant::now() + SETTLED);
        }
        self.arrange();
    }
}

impl Shown {
    /// Window pixels for one of the guest's, one for one.
    fn scale(&self) -> u32 {
        (self.window.scale_factor().floor() as u32).max(1)
    }

    /// The window takes the picture's size, as far as the host's screen has room.
    fn take_size(&mut self, picture: (u32, u32)) {
        let scale = self.scale();
        let mut size = PhysicalSize::new(picture.0 * scale, picture.1 * scale);
        if let Some(monitor) = self.window.current_monitor() {
            let most = monitor.size();
            size.width = size.width.min(most.width.max(160));
            size.height = size.height.min(most.height.max(120));
        }
        self.sized = false;
        self.tell_size = None;
        self.expected = size;
        if let Some(at_once) = self.window.request_inner_size(size) {
            self.expected = at_once;
        }
    }

    fn draw(&mut self, viewer: &mut Viewer) -> Result<(), softbuffer::SoftBufferError> {
        let layout = self.layout;
        if layout.window.0 == 0 || layout.window.1 == 0 {
            return Ok(());
        }
        let mut changed = Vec::new();
        viewer.changes(|_, tile| changed.push(tile), |_| ());
        self.history.push_front(changed);
        self.history.truncate(HISTORY);
        let mut buffer = self.pixels.buffer_mut()?;
        let age = usize::from(buffer.age());
        let known = age > 0 && age <= self.history.len() && !self.whole;
        let mut damage = Vec::new();
        if known {
            // What this buffer has missed since it was shown last.
            let missed = self.history.iter().take(age).flatten();
            let areas: Vec<_> = missed.map(|tile| layout.area(*tile)).collect();
            viewer.frame(|frame| {
                for area in &areas {
                    paint(&mut buffer, &layout, frame, *area);
                }
            });
            damage.extend(areas.into_iter().filter_map(rect));
            if damage.is_empty() {
                return Ok(());
            }
        } else {
            let whole = Rectangle {
                x: 0,
                y: 0,
                width: layout.picture.0,
                height: layout.picture.1,
            };
            paint_borders(&mut buffer, &layout);
            viewer.frame(|frame| paint(&mut buffer, &layout, frame, layout.area(whole)));
            let window = Rectangle {
                x: 0,
                y: 0,
                width: layout.window.0,
                height: layout.window.1,
            };
            damage.extend(rect(window));
        }
        self.window.pre_present_notify();
        buffer.present_with_damage(&damage)?;
        self.whole = false;
        Ok(())
    }
}

fn rect(area: Rectangle) -> Option<Rect> {
    Some(Rect {
        x: area.x,
        y: area.y,
        width: NonZeroU32::new(area.width)?,
        height: NonZeroU32::new(area.height)?,
    })
}

impl ApplicationHandler<Wake> for App {
    fn resumed(&mut self, events: &ActiveEventLoop) {
        if self.shown.is_some() {
            return;
        }
        match self.open(events) {
            Ok(shown) => {
                self.shown = Some(shown);
                self.viewer.look(true);
                self.follow();
            }
            Err(error) => {
                self.failed = Some(error);
                events.exit();
            }
        }
    }

    fn user_event(&mut self, events: &ActiveEventLoop, wake: Wake) {
        match wake {
            Wake::End => events.exit(),
            Wake::Changed => {
                self.take_cursor(events);
                match &self.shown {
                    Some(shown) => shown.window.request_redraw(),
                    None => self.told.store(false, Ordering::SeqCst),
                }
            }
        }
    }

    fn window_event(&mut self, _: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        match event {
            WindowEvent::CloseRequested if self.options.close => self.controls.quit(),
            WindowEvent::Resized(size) => self.resized(size),
            WindowEvent::ScaleFactorChanged { .. } => self.arrange(),
            WindowEvent::Occluded(hidden) => self.viewer.look(!hidden),
            WindowEvent::Focused(focused) => self.focus(focused),
            WindowEvent::ModifiersChanged(modifiers) => self.modifiers = modifiers.state(),
            WindowEvent::KeyboardInput {
                event,
                is_synthetic,
                ..
            } => self.key(&event, is_synthetic),
            WindowEvent::CursorMoved { position, .. } => self.pointer_moved(position.x, position.y),
            WindowEvent::MouseInput { state, button, .. } => {
                self.mouse_button(button, state == ElementState::Pressed);
            }
            WindowEvent::MouseWheel { delta, .. } => self.wheel(delta),
            WindowEvent::DroppedFile(path) => self.insert(&path),
            WindowEvent::RedrawRequested => self.redraw(),
            _ => {}
        }
    }

    fn device_event(&mut self, _: &ActiveEventLoop, _: DeviceId, event: DeviceEvent) {
        if let DeviceEvent::MouseMotion { delta } = event
            && self.grabbed
        {
            self.motion.0 += delta.0;
            self.motion.1 += delta.1;
            let (x, y) = (self.motion.0.trunc(), self.motion.1.trunc());
            self.motion.0 -= x;
            self.motion.1 -= y;
            if (x, y) != (0.0, 0.0) {
                self.seat.motion(x as i32, y as i32);
            }
        }
    }

    fn about_to_wait(&mut self, events: &ActiveEventLoop) {
        let next = self.tick();
        events.set_control_flow(ControlFlow::WaitUntil(next));
    }
}
