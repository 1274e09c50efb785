//! Ctrl-A on a terminal that is the guest's, or the monitor's: what is meant for neither.

/// What a typed byte means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// It goes to whatever has the keyboard.
    Here(u8),
    /// Nothing as yet.
    Nothing,
    /// Ctrl-A h: what there is is to be told.
    Help,
    /// Ctrl-A x: the machine is to end.
    Quit,
    /// Ctrl-A b: the guest's serial line is to see a break.
    Break,
    /// Ctrl-A c: the other side of the terminal, the monitor, is wanted.
    Monitor,
}

/// What Ctrl-A h tells.
pub const HELP: &str = "\r\nC-a h    print this help\r\nC-a x    exit emulator\r\nC-a b    send break (magic sysrq)\r\nC-a c    switch between console and \
    monitor\r\nC-a C-a  sends C-a\r\n";

const CTRL_A: u8 = 1;

/// Finds the commands in what is typed.
#[derive(Default)]
pub struct Escape {
    armed: bool,
}

impl Escape {
    /// Takes one byte.
    pub fn feed(&mut self, byte: u8) -> Typed {
        if !std::mem::take(&mut self.armed) {
            self.armed = byte == CTRL_A;
            return if self.armed {
                Typed::Nothing
            } else {
                Typed::Here(byte)
            };
        }
        match byte {
            CTRL_A => Typed::Here(CTRL_A),
            b'x' => Typed::Quit,
            b'h' | b'?' => Typed::Help,
            b'b' => Typed::Break,
            b'c' => Typed::Monitor,
            _ => Typed::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let mut escape = Escape::default();
        let typed: Vec<Typed> = b"a\x01\x01b\x01h\x01z\x01c\x01b\x01x"
            .iter()
            .map(|byte| escape.feed(*byte))
            .collect();
        use Typed::*;
        let expected = [
            Here(b'a'),
            Nothing,
            Here(1),
            Here(b'b'),
            Nothing,
            Help,
            Nothing,
            Nothing,
            Nothing,
            Monitor,
            Nothing,
            Break,
            Nothing,
            Quit,
        ];
        assert_eq!(typed, expected);
    }
}
