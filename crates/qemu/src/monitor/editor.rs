//! A line under construction.

use std::collections::VecDeque;

use super::{LINE_BYTES, PROMPT};

/// Lines that arrow keys bring back.
const HISTORY: usize = 100;

/// What a byte made of the line.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// It is not at its end.
    Begun,
    /// It is, and here it is.
    Whole(String),
    /// It is, and longer than [`LINE_BYTES`].
    TooLong,
}

/// Where a sequence of keys that are no characters is (ECMA-48, 5.4).
#[derive(Clone, Copy, PartialEq)]
enum Sequence {
    None,
    /// After ESC.
    Escape,
    /// After ESC [ or ESC O.
    Control,
}

/// Takes bytes as they are typed.
pub struct Editor {
    /// Show what is typed; the other end is a terminal that does not.
    echo: bool,
    line: Vec<u8>,
    too_long: bool,
    sequence: Sequence,
    /// A new line that follows a carriage return is part of it.
    after_return: bool,
    history: VecDeque<Vec<u8>>,
    /// How many lines back the one shown is; 0 is none of the old ones.
    back: usize,
}

impl Editor {
    pub fn new(echo: bool) -> Editor {
        Editor {
            echo,
            line: Vec::new(),
            too_long: false,
            sequence: Sequence::None,
            after_return: false,
            history: VecDeque::new(),
            back: 0,
        }
    }

    /// Drops what was typed of a line.
    pub fn forget(&mut self) {
        self.line.clear();
        self.too_long = false;
        self.sequence = Sequence::None;
        self.back = 0;
    }

    /// Takes a byte; what the terminal is to show goes to `shown`.
    pub fn feed(&mut self, byte: u8, shown: &mut Vec<u8>) -> Line {
        let after_return = std::mem::take(&mut self.after_return);
        match (self.sequence, byte) {
            (Sequence::Escape, b'[' | b'O') => {
                self.sequence = Sequence::Control;
                return Line::Begun;
            }
            (Sequence::Escape, _) => {
                self.sequence = Sequence::None;
                return Line::Begun;
            }
            // Parameters and intermediate bytes.
            (Sequence::Control, 0x20..=0x3f) => return Line::Begun,
            (Sequence::Control, 0x40..=0x7e) => {
                self.sequence = Sequence::None;
                match byte {
                    b'A' => self.recall(self.back + 1, shown),
                    b'B' if self.back > 0 => self.recall(self.back - 1, shown),
                    _ => {}
                }
                return Line::Begun;
            }
            // It was none after all.
            (Sequence::Control, _) => self.sequence = Sequence::None,
            (Sequence::None, _) => {}
        }
        match byte {
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                self.after_return = byte == b'\r';
                self.show(b"\r\n", shown);
                return self.finish();
            }
            0x1b => self.sequence = Sequence::Escape,
            // Backspace and delete.
            0x08 | 0x7f => self.erase(shown),
            // Ctrl-W: a word.
            0x17 => {
                while self.line.last() == Some(&b' ') {
                    self.erase(shown);
                }
                while self.line.last().is_some_and(|last| *last != b' ') {
                    self.erase(shown);
                }
            }
            // Ctrl-U and Ctrl-C: all of it.
            0x15 | 0x03 => {
                self.forget();
                self.show_line(shown);
            }
            b'\t' => {}
            0..0x20 => {}
            _ if self.line.len() < LINE_BYTES => {
                self.line.push(byte);
                self.show(&[byte], shown);
            }
            _ => {
                self.too_long = true;
                self.show(b"\x07", shown);
            }
        }
        Line::Begun
    }

    fn finish(&mut self) -> Line {
        let line = std::mem::take(&mut self.line);
        let too_long = self.too_long;
        self.forget();
        if too_long {
            return Line::TooLong;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        // Passwords are not to be read over a shoulder later.
        let secret = text.contains("passw");
        if !text.trim().is_empty() && !secret && self.history.front() != Some(&line) {
            self.history.push_front(line);
            self.history.truncate(HISTORY);
        }
        Line::Whole(text)
    }

    /// Takes the last character away.
    fn erase(&mut self, shown: &mut Vec<u8>) {
        // UTF-8: the bytes that follow the first of a character are 10xxxxxx.
        while self.line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
        self.show_line(shown);
    }

    /// Shows the line of so many lines ago, if there is one; 0 is an empty one.
    fn recall(&mut self, back: usize, shown: &mut Vec<u8>) {
        let line = match back.checked_sub(1) {
            None => Vec::new(),
            Some(index) => match self.history.get(index) {
                Some(line) => line.clone(),
                None => return,
            },
        };
        self.back = back;
        self.line = line;
        self.too_long = false;
        self.show_line(shown);
    }

    /// Shows the line anew: to its start, and nothing after it (ECMA-48, EL).
    fn show_line(&self, shown: &mut Vec<u8>) {
        self.show(b"\r\x1b[K", shown);
        self.show(PROMPT.as_bytes(), shown);
        self.show(&self.line, shown);
    }

    fn show(&self, bytes: &[u8], shown: &mut Vec<u8>) {
        if self.echo {
            shown.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(editor: &mut Editor, bytes: &[u8]) -> (Vec<Line>, String) {
        let mut shown = Vec::new();
        let lines = bytes
            .iter()
            .map(|byte| editor.feed(*byte, &mut shown))
            .filter(|line| *line != Line::Begun)
            .collect();
        (lines, String::from_utf8_lossy(&shown).into_owned())
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.into())
    }

    #[test]
    fn lines_by_any_end() {
        let mut editor = Editor::new(false);
        let (found, shown) = lines(&mut editor, b"a\nb\rc\r\n\r\0\nd\n");
        let expected = [
            whole("a"),
            whole("b"),
            whole("c"),
            whole(""),
            whole(""),
            whole("d"),
        ];
        assert_eq!(found, expected);
        assert_eq!(shown, "", "the other end shows what it types itself");
    }

    #[test]
    fn what_is_typed_is_shown_and_mended() {
        let mut editor = Editor::new(true);
        assert_eq!(
            lines(&mut editor, b"ab\r"),
            (vec![whole("ab")], "ab\r\n".into())
        );
        let (found, shown) = lines(&mut editor, "x\u{fc}\u{7f}y\r".as_bytes());
        assert_eq!(found, [whole("xy")]);
        assert!(shown.ends_with("\r\x1b[K(qemu) xy\r\n"), "{shown:?}");
        let (found, _) = lines(&mut editor, b"wrong\x15right no\x17\x7f\x08\r");
        assert_eq!(found, [whole("righ")]);
        // Nothing is left to take away.
        let (found, _) = lines(&mut editor, b"\x7f\x7f\x17\r");
        assert_eq!(found, [whole("")]);
    }

    #[test]
    fn arrows_bring_lines_back() {
        let mut editor = Editor::new(true);
        lines(&mut editor, b"one\rtwo\rtwo\rset_password vnc x\r");
        let (found, shown) = lines(&mut editor, b"\x1b[A\x1b[A\x1b[A\x1bOB!\r");
        assert_eq!(found, [whole("two!")]);
        assert!(shown.contains("(qemu) one"), "{shown:?}");
        let (found, _) = lines(&mut editor, b"\x1b[A\x1b[B\x1b[B\x1b[1;5Cx\x1bqy\r");
        assert_eq!(found, [whole("xy")]);
    }

    #[test]
    fn long_lines_end() {
        let mut editor = Editor::new(false);
        let long = vec![b'x'; 3 * LINE_BYTES];
        assert!(lines(&mut editor, &long).0.is_empty());
        assert!(editor.line.len() <= LINE_BYTES);
        assert_eq!(
            lines(&mut editor, b"\nok\n").0,
            [Line::TooLong, whole("ok")]
        );
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), echo: bool) {
            lines(&mut Editor::new(echo), &bytes);
        }
    }
}
