//! The picture that all consoles share, and which parts of it each of them has not seen.

use device::screen::{Cursor, Surface};
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Changes are told by squares of so many pixels.
pub const TILE: u32 = 64;

/// Between captures while the picture changes: 60 a second, as a monitor.
const LIVELY: Duration = Duration::from_nanos(1_000_000_000 / 60);

/// Between captures when it has not changed for [`QUIET_AFTER`]: an idle guest is to cost little.
const QUIET: Duration = Duration::from_millis(100);
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// What is shown while no screen was ever set up.
const BLANK: (u32, u32) = (640, 480);

/// A part of the picture, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rectangle {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// The picture at a moment.
pub struct Frame {
    surface: Surface,
    /// The version of the last change, a tile; rows of `columns`.
    tiles: Vec<u64>,
    columns: u32,
    version: u64,
    /// The version when the size was last changed.
    sized: u64,
}

impl Frame {
    fn new(width: u32, height: u32, version: u64) -> Frame {
        let columns = width.div_ceil(TILE);
        let tiles = vec![version; (columns * height.div_ceil(TILE)) as usize];
        Frame {
            surface: Surface::new(width, height),
            tiles,
            columns,
            version,
            sized: version,
        }
    }

    /// Pixels.
    pub fn width(&self) -> u32 {
        self.surface.width
    }

    /// Pixels.
    pub fn height(&self) -> u32 {
        self.surface.height
    }

    /// The pixels of one row, from `x` on, `width` of them; what is outside is missing.
    pub fn row(&self, y: u32, x: u32, width: u32) -> &[u32] {
        if y >= self.surface.height || x >= self.surface.width {
            return &[];
        }
        let start = y as usize * self.surface.width as usize;
        let end = x.saturating_add(width).min(self.surface.width) as usize;
        &self.surface.pixels[start + x as usize..start + end]
    }

    /// Takes over what differs in `new`, and says whether anything does.
    fn take(&mut self, new: &mut Surface) -> bool {
        if (new.width, new.height) != (self.surface.width, self.surface.height) {
            *self = Frame::new(new.width, new.height, self.version + 1);
            std::mem::swap(&mut self.surface, new);
            return true;
        }
        let width = new.width as usize;
        let next = self.version + 1;
        let mut any = false;
        for (y, (old, new)) in self
            .surface
            .pixels
            .chunks_exact_mut(width)
            .zip(new.pixels.chunks_exact(width))
            .enumerate()
        {
            if old == new {
                continue;
            }
            any = true;
            let row = y / TILE as usize * self.columns as usize;
            let parts = old.chunks_mut(TILE as usize).zip(new.chunks(TILE as usize));
            for (column, (old, new)) in parts.enumerate().filter(|(_, (old, new))| old != new) {
                old.copy_from_slice(new);
                self.tiles[row + column] = next;
            }
        }
        if any {
            self.version = next;
        }
        any
    }
}

/// The shared picture and the thread that keeps it.
pub(crate) struct Frames {
    frame: RwLock<Frame>,
    /// The pointer over the picture, and how often it has changed.
    cursor: Mutex<(u64, Option<Cursor>)>,
    viewers: Mutex<Vec<Weak<Look>>>,
    wake: Mutex<bool>,
    woken: Condvar,
    /// With `wake`: told after each capture.
    captured: Condvar,
    /// How many captures are complete.
    captures: AtomicU64,
}

/// One viewer, as the frames know it.
struct Look {
    looking: AtomicBool,
    on_change: Arc<dyn Fn() + Send + Sync>,
}

impl Frames {
    /// `capture` puts the picture into a surface, or returns false: there is none, or it has not changed. `cursor` gives
    /// the pointer over it.
    pub(crate) fn new(
        capture: impl FnMut(&mut Surface) -> bool + Send + 'static,
        cursor: impl Fn() -> Option<Cursor> + Send + 'static,
    ) -> Arc<Frames> {
        let frames = Arc::new(Frames {
            frame: RwLock::new(Frame::new(BLANK.0, BLANK.1, 1)),
            cursor: Mutex::new((1, None)),
            viewers: Mutex::default(),
            wake: Mutex::new(false),
            woken: Condvar::new(),
            captured: Condvar::new(),
            captures: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&frames);
        let spawned = std::thread::Builder::new()
            .name("display".into())
            .spawn(move || Frames::run(&weak, capture, cursor));
        if let Err(error) = spawned {
            tracing::error!(%error, "the display has no thread: consoles stay black");
        }
        frames
    }

    pub(crate) fn viewer(self: &Arc<Self>, on_change: Arc<dyn Fn() + Send + Sync>) -> Viewer {
        let look = Arc::new(Look {
            looking: AtomicBool::new(false),
            on_change,
        });
        self.viewers.lock().push(Arc::downgrade(&look));
        Viewer {
            frames: self.clone(),
            look,
            seen: 0,
            seen_cursor: 0,
        }
    }

    /// The picture's size in pixels.
    pub(crate) fn size(&self) -> (u32, u32) {
        let frame = self.frame.read();
        (frame.width(), frame.height())
    }

    /// Looks at once: somebody looks anew, or did something that will change the picture.
    pub(crate) fn hurry(&self) {
        *self.wake.lock() = true;
        self.woken.notify_all();
    }

    fn watched(&self) -> bool {
        let mut viewers = self.viewers.lock();
        viewers.retain(|viewer| viewer.strong_count() > 0);
        viewers
            .iter()
            .filter_map(Weak::upgrade)
            .any(|viewer| viewer.looking.load(Ordering::SeqCst))
    }

    /// The display's thread: captures while somebody looks, sleeps otherwise, ends with the display.
    fn run(
        weak: &Weak<Frames>,
        mut capture: impl FnMut(&mut Surface) -> bool,
        cursor: impl Fn() -> Option<Cursor>,
    ) {
        let mut surface = Surface::default();
        let mut changed_at = Instant::now();
        loop {
            let Some(frames) = weak.upgrade() else { return };
            let began = Instant::now();
            let watched = frames.watched();
            if watched {
                let moved = frames.take_cursor(cursor());
                if (capture(&mut surface) && frames.frame.write().take(&mut surface)) || moved {
                    changed_at = began;
                    frames.tell();
                }
                let wake = frames.wake.lock();
                frames.captures.fetch_add(1, Ordering::SeqCst);
                drop(wake);
                frames.captured.notify_all();
            }
            let quiet = changed_at.elapsed() > QUIET_AFTER;
            let pause = if !watched {
                // Only so that the thread notices the end; `hurry` wakes it.
                Duration::from_millis(500)
            } else if quiet {
                QUIET
            } else {
                LIVELY
            };
            let mut wake = frames.wake.lock();
            if !*wake {
                frames.woken.wait_until(&mut wake, began + pause);
            }
            if std::mem::take(&mut *wake) {
                // Lively again; but never faster than lively.
                changed_at = Instant::now();
                drop(wake);
                std::thread::sleep(LIVELY.saturating_sub(began.elapsed()));
            }
        }
    }

    /// Whether the pointer is another.
    fn take_cursor(&self, new: Option<Cursor>) -> bool {
        let mut cursor = self.cursor.lock();
        let changed = cursor.1 != new;
        if changed {
            *cursor = (cursor.0 + 1, new);
        }
        changed
    }

    fn tell(&self) {
        let viewers: Vec<_> = self
            .viewers
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for viewer in viewers
            .iter()
            .filter(|viewer| viewer.looking.load(Ordering::SeqCst))
        {
            (viewer.on_change)();
        }
    }
}

/// One console's view of the picture: it remembers what the console has seen.
pub struct Viewer {
    frames: Arc<Frames>,
    look: Arc<Look>,
    seen: u64,
    seen_cursor: u64,
}

impl Viewer {
    /// Whether the picture is kept up to date for this viewer. A console that waits for its client does not look.
    pub fn look(&self, looking: bool) {
        if self.look.looking.swap(looking, Ordering::SeqCst) != looking && looking {
            self.frames.hurry();
        }
    }

    /// Waits until the picture has been captured anew: for a console that begins, which is to show no old picture.
    pub fn refresh(&self) {
        let before = self.frames.captures.load(Ordering::SeqCst);
        let looked = self.look.looking.swap(true, Ordering::SeqCst);
        self.frames.hurry();
        let mut wake = self.frames.wake.lock();
        let until = Instant::now() + Duration::from_secs(1);
        // A capture that had begun before may have missed what has happened since: the one after it counts.
        while self.frames.captures.load(Ordering::SeqCst) < before + 2 {
            *wake = true;
            self.frames.woken.notify_all();
            if self
                .frames
                .captured
                .wait_until(&mut wake, until)
                .timed_out()
            {
                break;
            }
        }
        self.look.looking.store(looked, Ordering::SeqCst);
    }

    /// The picture's size in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.frames.size()
    }

    /// Whether the picture has changed since [`Viewer::changes`].
    pub fn stale(&self) -> bool {
        self.frames.frame.read().version > self.seen
    }

    /// Whether the pointer has changed since [`Viewer::cursor`].
    pub fn cursor_stale(&self) -> bool {
        self.frames.cursor.lock().0 > self.seen_cursor
    }

    /// The pointer that belongs over the picture: `None` if the guest draws its own (there is no hardware cursor).
    pub fn cursor(&mut self) -> Option<Cursor> {
        let cursor = self.frames.cursor.lock();
        self.seen_cursor = cursor.0;
        cursor.1.clone()
    }

    /// Calls `each` for every tile that has changed since the last call (all of them at first and after a change of size),
    /// then returns what `finish` makes of the frame. The picture stands still meanwhile: be quick.
    pub fn changes<T>(
        &mut self,
        mut each: impl FnMut(&Frame, Rectangle),
        finish: impl FnOnce(&Frame) -> T,
    ) -> T {
        let frame = self.frames.frame.read();
        let all = frame.sized > self.seen;
        for (index, _) in frame
            .tiles
            .iter()
            .enumerate()
            .filter(|(_, version)| all || **version > self.seen)
        {
            let x = index as u32 % frame.columns * TILE;
            let y = index as u32 / frame.columns * TILE;
            let width = TILE.min(frame.width() - x);
            let height = TILE.min(frame.height() - y);
            each(
                &frame,
                Rectangle {
                    x,
                    y,
                    width,
                    height,
                },
            );
        }
        self.seen = frame.version;
        finish(&frame)
    }

    /// Calls `work` with the picture as it is, which stands still meanwhile.
    pub fn frame<T>(&self, work: impl FnOnce(&Frame) -> T) -> T {
        work(&self.frames.frame.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn only_changed_tiles_are_told_to_each_viewer() {
        let mut frame = Frame::new(200, 100, 1);
        let mut surface = Surface::new(200, 100);
        assert!(!frame.take(&mut surface));
        surface.pixels[70 * 200 + 199] = 5;
        assert!(frame.take(&mut surface));
        assert_eq!(frame.tiles, [1, 1, 1, 1, 1, 1, 1, 2]);
        assert_eq!(frame.surface.pixels[70 * 200 + 199], 5);
        assert_eq!(frame.row(70, 198, 10), [0, 5]);
        assert!(frame.row(100, 0, 10).is_empty());
        assert!(frame.take(&mut Surface::new(10, 10)));
        assert_eq!((frame.tiles.len(), frame.sized), (1, 3));
    }

    #[test]
    fn captures_only_while_somebody_looks() {
        let picture = Arc::new(Mutex::new(Surface::new(128, 64)));
        let source = picture.clone();
        let pointer = Arc::new(Mutex::new(None));
        let cursor = pointer.clone();
        let frames = Frames::new(
            move |surface| {
                surface.clone_from(&source.lock());
                true
            },
            move || cursor.lock().clone(),
        );
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(frames.captures.load(Ordering::Relaxed), 0);

        let (sender, changed) = mpsc::channel();
        let mut viewer = frames.viewer(Arc::new(move || sender.send(()).unwrap()));
        viewer.look(true);
        changed.recv_timeout(Duration::from_secs(10)).unwrap();
        let mut tiles = Vec::new();
        assert_eq!(
            viewer.changes(|_, tile| tiles.push(tile), |frame| frame.width()),
            128
        );
        assert_eq!(tiles.len(), 2);
        assert!(!viewer.stale());

        picture.lock().pixels[127] = 9;
        changed.recv_timeout(Duration::from_secs(10)).unwrap();
        tiles.clear();
        viewer.changes(|_, tile| tiles.push(tile), |_| ());
        assert_eq!(
            tiles,
            [Rectangle {
                x: 64,
                y: 0,
                width: 64,
                height: 64
            }]
        );

        assert!(viewer.cursor_stale() && viewer.cursor().is_none());
        let at = Cursor {
            x: 3,
            y: -1,
            image: None,
        };
        *pointer.lock() = Some(at.clone());
        changed.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(viewer.cursor_stale() && !viewer.stale());
        assert_eq!(viewer.cursor(), Some(at));
        assert!(!viewer.cursor_stale());

        drop(viewer);
        std::thread::sleep(Duration::from_millis(120));
        let before = frames.captures.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(250));
        assert!(frames.captures.load(Ordering::Relaxed) <= before + 1);
    }
}
