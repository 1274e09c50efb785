//! Where the picture is in the window.

use crate::frames::Rectangle;

/// A picture's place. Window pixels are the host's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The window's size.
    pub(super) window: (u32, u32),
    /// The guest's picture's size.
    pub(super) picture: (u32, u32),
    /// Where the picture's left upper corner is: negative if it does not fit.
    pub(super) x: i32,
    pub(super) y: i32,
    /// The size it is shown in.
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Layout {
    /// The largest that fits, in proportion.
    pub(super) fn fit(window: (u32, u32), picture: (u32, u32)) -> Layout {
        let (width, height) = (u64::from(picture.0.max(1)), u64::from(picture.1.max(1)));
        let (most_x, most_y) = (u64::from(window.0), u64::from(window.1));
        let size = if most_x * height <= most_y * width {
            (most_x, most_x * height / width)
        } else {
            (most_y * width / height, most_y)
        };
        Layout::centred(window, picture, (size.0 as u32, size.1 as u32))
    }

    /// `scale` window pixels for one of the guest's, each way.
    pub(super) fn scaled(window: (u32, u32), picture: (u32, u32), scale: u32) -> Layout {
        let size = (
            picture.0.saturating_mul(scale),
            picture.1.saturating_mul(scale),
        );
        Layout::centred(window, picture, size)
    }

    fn centred(window: (u32, u32), picture: (u32, u32), size: (u32, u32)) -> Layout {
        let centre = |window: u32, size: u32| ((i64::from(window) - i64::from(size)) / 2) as i32;
        Layout {
            window,
            picture,
            x: centre(window.0, size.0),
            y: centre(window.1, size.1),
            width: size.0,
            height: size.1,
        }
    }

    /// The place on the guest's screen, 0 to 0x7fff each way, of a place in the window; the nearest edge for what is beside
    /// the picture.
    pub(super) fn position(&self, x: f64, y: f64) -> (u16, u16) {
        let scale = |at: f64, start: i32, size: u32| {
            let last = f64::from(size.max(2) - 1);
            ((at - f64::from(start)) / last * f64::from(0x7fff))
                .round()
                .clamp(0.0, f64::from(0x7fff)) as u16
        };
        (scale(x, self.x, self.width), scale(y, self.y, self.height))
    }

    /// Whether a place in the window is on the picture.
    pub(super) fn contains(&self, x: f64, y: f64) -> bool {
        let inside = |at: f64, start: i32, size: u32| {
            at >= f64::from(start) && at < f64::from(start) + f64::from(size)
        };
        inside(x, self.x, self.width) && inside(y, self.y, self.height)
    }

    /// The part of the window in which a part of the picture is seen, with the pixels around it that it is blended into.
    pub(super) fn area(&self, part: Rectangle) -> Rectangle {
        let span = |at: u32, length: u32, start: i32, shown: u32, size: u32, window: u32| {
            let size = i64::from(size.max(1));
            let scale = |at: i64| at * i64::from(shown) / size;
            let margin = i64::from(shown) / size + 2;
            let from = i64::from(start) + scale(i64::from(at)) - margin;
            let to = i64::from(start) + scale(i64::from(at) + i64::from(length)) + margin;
            let clip = |at: i64| {
                let first = i64::from(start).max(0);
                let last = (i64::from(start) + i64::from(shown)).min(i64::from(window));
                at.clamp(first.min(last), last) as u32
            };
            let from = clip(from);
            (from, clip(to) - from)
        };
        let (x, width) = span(
            part.x,
            part.width,
            self.x,
            self.width,
            self.picture.0,
            self.window.0,
        );
        let (y, height) = span(
            part.y,
            part.height,
            self.y,
            self.height,
            self.picture.1,
            self.window.1,
        );
        Rectangle {
            x,
            y,
            width,
            height,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fits_in_proportion() {
        let wide = Layout::fit((1000, 500), (800, 600));
        assert_eq!(
            (wide.x, wide.y, wide.width, wide.height),
            (167, 0, 666, 500)
        );
        let tall = Layout::fit((800, 1000), (800, 600));
        assert_eq!(
            (tall.x, tall.y, tall.width, tall.height),
            (0, 200, 800, 600)
        );
        let small = Layout::scaled((400, 300), (800, 600), 1);
        assert_eq!((small.x, small.y, small.width), (-200, -150, 800));
    }

    #[test]
    fn corners_are_corners() {
        let layout = Layout::fit((1000, 500), (800, 600));
        assert_eq!(layout.position(167.0, 0.0), (0, 0));
        assert_eq!(layout.position(832.0, 499.0), (0x7fff, 0x7fff));
        assert_eq!(layout.position(-5.0, 9999.0), (0, 0x7fff));
        assert!(layout.contains(167.0, 0.0) && !layout.contains(166.0, 0.0));
    }

    proptest! {
        #[test]
        fn areas_lie_in_the_window(
            window in (0u32..3000, 0u32..2000), picture in (1u32..4000, 1u32..3000), scale in 0u32..4,
            part in (0u32..4000, 0u32..3000, 1u32..65, 1u32..65)) {
            let layout = match scale {
                0 => Layout::fit(window, picture),
                scale => Layout::scaled(window, picture, scale),
            };
            let part = Rectangle { x: part.0 % picture.0, y: part.1 % picture.1, width: part.2, height: part.3 };
            let area = layout.area(part);
            prop_assert!(area.x + area.width <= window.0 && area.y + area.height <= window.1);
            let (x, y) = layout.position(f64::from(area.x), f64::from(area.y));
            prop_assert!(x <= 0x7fff && y <= 0x7fff);
        }
    }
}
