//! The picture's pixels in the window's size.

use super::layout::Layout;
use crate::frames::{Frame, Rectangle};

/// Where a window's pixel finds its colour along one axis: two of the picture's pixels, and how much of the second of them,
/// of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    first: u32,
    second: u32,
    weight: u32,
}

/// Samples for the window's pixels `from..from + count` along an axis.
fn samples(from: u32, count: u32, start: i32, shown: u32, size: u32) -> Vec<Sample> {
    let (shown, size) = (i64::from(shown.max(1)), i64::from(size.max(1)));
    let last = size - 1;
    (0..count)
        .map(|n| {
            let at = i64::from(from + n) - i64::from(start);
            if shown % size == 0 {
                // Whole multiples stay sharp.
                let pixel = (at * size / shown).clamp(0, last) as u32;
                return Sample {
                    first: pixel,
                    second: pixel,
                    weight: 0,
                };
            }
            // The middles of pixels lie over each other, in 256ths.
            let place = ((2 * at + 1) * size * 128 / shown - 128).clamp(0, last * 256);
            Sample {
                first: (place / 256) as u32,
                second: (place / 256 + 1).min(last) as u32,
                weight: (place % 256) as u32,
            }
        })
        .collect()
}

/// Two colours, `weight` 256ths of the second.
fn blend(a: u32, b: u32, weight: u32) -> u32 {
    const ODD: u32 = 0x00ff_00ff;
    const EVEN: u32 = 0x0000_ff00;
    let odd = ((a & ODD) * (256 - weight) + (b & ODD) * weight) >> 8 & ODD;
    let even = ((a & EVEN) * (256 - weight) + (b & EVEN) * weight) >> 8 & EVEN;
    odd | even
}

/// Paints `area` of the window, whose rows are `layout.window.0` pixels of `into`, with what of the picture is there.
pub(super) fn paint(into: &mut [u32], layout: &Layout, frame: &Frame, area: Rectangle) {
    if area.width == 0 || area.height == 0 || layout.width == 0 || layout.height == 0 {
        return;
    }
    let columns = samples(area.x, area.width, layout.x, layout.width, layout.picture.0);
    let rows = samples(
        area.y,
        area.height,
        layout.y,
        layout.height,
        layout.picture.1,
    );
    let same = layout.width == layout.picture.0;
    for (n, row) in rows.iter().enumerate() {
        let start = (area.y as usize + n) * layout.window.0 as usize + area.x as usize;
        let Some(into) = into.get_mut(start..start + area.width as usize) else {
            return;
        };
        let upper = frame.row(row.first, 0, layout.picture.0);
        let lower = frame.row(row.second, 0, layout.picture.0);
        if row.weight == 0 && same {
            let first = columns[0].first as usize;
            if let Some(from) = upper.get(first..first + into.len()) {
                into.copy_from_slice(from);
            }
            continue;
        }
        let at = |row: &[u32], x: u32| row.get(x as usize).copied().unwrap_or(0);
        for (pixel, column) in into.iter_mut().zip(&columns) {
            let mix = |row: &[u32]| match column.weight {
                0 => at(row, column.first),
                weight => blend(at(row, column.first), at(row, column.second), weight),
            };
            *pixel = match row.weight {
                0 => mix(upper),
                weight => blend(mix(upper), mix(lower), weight),
            };
        }
    }
}

/// Paints what is beside the picture black.
pub(super) fn paint_borders(into: &mut [u32], layout: &Layout) {
    let width = layout.window.0 as usize;
    if width == 0 {
        return;
    }
    let clip = |at: i64, most: u32| at.clamp(0, i64::from(most)) as usize;
    let left = clip(layout.x.into(), layout.window.0);
    let right = clip(
        i64::from(layout.x) + i64::from(layout.width),
        layout.window.0,
    );
    let top = clip(layout.y.into(), layout.window.1);
    let bottom = clip(
        i64::from(layout.y) + i64::from(layout.height),
        layout.window.1,
    );
    for (y, row) in into.chunks_exact_mut(width).enumerate() {
        if (top..bottom).contains(&y) {
            row[..left].fill(0);
            row[right..].fill(0);
        } else {
            row.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Display;
    use device::screen::{Screen, Surface};
    use proptest::prelude::*;
    use std::sync::Arc;

    struct Still(Surface);

    impl Screen for Still {
        fn setup(&self) -> u64 {
            1
        }

        fn capture(&self, surface: &mut Surface) -> bool {
            surface.clone_from(&self.0);
            true
        }
    }

    /// The window's pixels with a picture in it.
    fn shown(surface: Surface, layout: impl Fn((u32, u32)) -> Layout) -> Vec<u32> {
        let display = Display::new();
        let size = (surface.width, surface.height);
        display.add_screen(Arc::new(Still(surface)));
        let viewer = display.viewer(|| {});
        viewer.refresh();
        let layout = layout(size);
        let mut pixels = vec![0xdead_beef; (layout.window.0 * layout.window.1) as usize];
        let whole = Rectangle {
            x: 0,
            y: 0,
            width: size.0,
            height: size.1,
        };
        paint_borders(&mut pixels, &layout);
        viewer.frame(|frame| paint(&mut pixels, &layout, frame, layout.area(whole)));
        pixels
    }

    fn checks(width: u32, height: u32) -> Surface {
        let mut surface = Surface::new(width, height);
        for (n, pixel) in surface.pixels.iter_mut().enumerate() {
            *pixel = (n as u32).wrapping_mul(0x0003_0507) & 0x00ff_ffff;
        }
        surface
    }

    #[test]
    fn multiples_are_sharp_and_borders_black() {
        let picture = checks(3, 2);
        let pixels = shown(picture.clone(), |size| Layout::fit((8, 4), size));
        let expected: Vec<u32> = (0..4)
            .flat_map(|y| (0..8).map(move |x| (x, y)))
            .map(|(x, y)| match x {
                1..=6 => picture.pixels[y / 2 * 3 + (x - 1) / 2],
                _ => 0,
            })
            .collect();
        assert_eq!(pixels, expected);
        // Larger than the window: its middle.
        let pixels = shown(checks(6, 6), |size| Layout::scaled((2, 2), size, 1));
        let whole = checks(6, 6).pixels;
        assert_eq!(pixels, [whole[14], whole[15], whole[20], whole[21]]);
    }

    #[test]
    fn blends_between() {
        let mut picture = Surface::new(2, 1);
        picture.pixels = vec![0, 0x00ff_8040];
        let pixels = shown(picture, |size| {
            Layout::scaled((3, 1), size, 1).stretched(3, 1)
        });
        assert_eq!(pixels[0], 0);
        assert_eq!(pixels[2], 0x00ff_8040);
        let middle = pixels[1];
        assert!((0x70..0x90).contains(&(middle >> 16)), "{middle:#x}");
    }

    impl Layout {
        fn stretched(mut self, width: u32, height: u32) -> Layout {
            (self.x, self.y, self.width, self.height) = (0, 0, width, height);
            self
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// A part painted for itself is what the whole shows there.
        #[test]
        fn parts_agree_with_the_whole(
            window in (1u32..120, 1u32..120), size in (1u32..90, 1u32..90), part in (0u32..90, 0u32..90, 1u32..40, 1u32..40)) {
            let display = Display::new();
            display.add_screen(Arc::new(Still(checks(size.0, size.1))));
            let viewer = display.viewer(|| {});
            viewer.refresh();
            let layout = Layout::fit(window, size);
            let paint_all = |pixels: &mut Vec<u32>, part| {
                viewer.frame(|frame| paint(pixels, &layout, frame, layout.area(part)));
            };
            let mut whole = vec![0; (window.0 * window.1) as usize];
            paint_all(&mut whole, Rectangle { x: 0, y: 0, width: size.0, height: size.1 });
            let mut again = whole.clone();
            paint_all(&mut again, Rectangle { x: part.0 % size.0, y: part.1 % size.1, width: part.2, height: part.3 });
            prop_assert_eq!(whole, again);
        }
    }
}
