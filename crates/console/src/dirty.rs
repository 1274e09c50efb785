//! What of the picture a console's client has not got yet.

use crate::frames::{Frame, Rectangle, TILE};

/// Rectangles have about so many pixels at most: it bounds the memory of a client. The tiles of the largest picture, in
/// rectangles of their own, are fewer than a VNC update can count.
pub(crate) const MAX_RECTANGLE: u32 = 256 * 1024;

/// The tiles that a client has not got.
#[derive(Default)]
pub(crate) struct Dirty {
    tiles: Vec<bool>,
    columns: u32,
}

impl Dirty {
    /// Everything of a picture of this size.
    pub(crate) fn all(size: (u32, u32)) -> Dirty {
        let columns = size.0.div_ceil(TILE);
        Dirty {
            tiles: vec![true; (columns * size.1.div_ceil(TILE)) as usize],
            columns,
        }
    }

    fn range(&self, area: Rectangle) -> (std::ops::Range<u32>, std::ops::Range<u32>) {
        let rows = (self.tiles.len() as u32)
            .checked_div(self.columns)
            .unwrap_or(0);
        let end = |start: u32, length: u32, most: u32| match length {
            0 => 0,
            _ => (start + length).div_ceil(TILE).min(most),
        };
        (
            area.x / TILE..end(area.x, area.width, self.columns),
            area.y / TILE..end(area.y, area.height, rows),
        )
    }

    pub(crate) fn mark(&mut self, area: Rectangle) {
        let (columns, rows) = self.range(area);
        for row in rows {
            for column in columns.clone() {
                self.tiles[(row * self.columns + column) as usize] = true;
            }
        }
    }

    /// Whether something in `area` is still owed.
    pub(crate) fn any(&self, area: Rectangle) -> bool {
        let (columns, mut rows) = self.range(area);
        rows.any(|row| {
            columns
                .clone()
                .any(|column| self.tiles[(row * self.columns + column) as usize])
        })
    }

    /// Takes what lies in `area`, as few rectangles: runs of tiles, and equal runs below each other. Whole tiles are sent,
    /// even if `area` has only a part of them. It stops after `most` pixels or a few more; the rest stays to be taken.
    pub(crate) fn take(&mut self, area: Rectangle, size: (u32, u32), most: u64) -> Vec<Rectangle> {
        let (columns, rows) = self.range(area);
        let mut rectangles: Vec<Rectangle> = Vec::new();
        let mut pixels = 0;
        for row in rows {
            let mut column = columns.start;
            while column < columns.end {
                if pixels >= most {
                    return rectangles;
                }
                let start = column;
                while column < columns.end
                    && std::mem::take(&mut self.tiles[(row * self.columns + column) as usize])
                {
                    column += 1;
                }
                if start == column {
                    column += 1;
                    continue;
                }
                let (x, y) = (start * TILE, row * TILE);
                let width = (column * TILE).min(size.0) - x;
                let height = TILE.min(size.1 - y);
                pixels += u64::from(width) * u64::from(height);
                let above = rectangles.iter_mut().find(|above| {
                    above.x == x
                        && above.width == width
                        && above.y + above.height == y
                        && (above.height + height).saturating_mul(width) <= MAX_RECTANGLE
                });
                match above {
                    Some(above) => above.height += height,
                    None => rectangles.push(Rectangle {
                        x,
                        y,
                        width,
                        height,
                    }),
                }
            }
        }
        rectangles
    }
}

/// The pixels of a part; what lies outside of the picture is black.
pub(crate) fn copy(frame: &Frame, part: Rectangle, into: &mut Vec<u32>) {
    into.clear();
    for y in part.y..part.y + part.height {
        let row = frame.row(y, part.x, part.width);
        into.extend_from_slice(row);
        into.resize(into.len() + part.width as usize - row.len(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is marked comes out once, in however many steps.
        #[test]
        fn marked_tiles_are_taken_once(
            size in (1u32..700, 1u32..500),
            marks in prop::collection::vec((0u32..700, 0u32..500, 0u32..300, 0u32..300), 0..8),
            most in 1u64..50_000,
        ) {
            let mut dirty = Dirty::all(size);
            let all = Rectangle { x: 0, y: 0, width: size.0, height: size.1 };
            dirty.take(all, size, u64::MAX);
            prop_assert!(!dirty.any(all));
            let mut owed = vec![false; (size.0 * size.1) as usize];
            for (x, y, width, height) in marks {
                dirty.mark(Rectangle { x, y, width, height });
                for y in y..(y + height).min(size.1) {
                    for x in x..(x + width).min(size.0) {
                        owed[(y * size.0 + x) as usize] = true;
                    }
                }
            }
            let mut got = vec![false; owed.len()];
            while dirty.any(all) {
                let parts = dirty.take(all, size, most);
                prop_assert!(!parts.is_empty());
                for part in parts {
                    for y in part.y..part.y + part.height {
                        for x in part.x..part.x + part.width {
                            let got = &mut got[(y * size.0 + x) as usize];
                            prop_assert!(!*got, "twice");
                            *got = true;
                        }
                    }
                }
            }
            prop_assert!(owed.iter().zip(&got).all(|(owed, got)| *got || !owed));
        }
    }
}
