//! What the page tells the server: JSON texts.

use std::path::PathBuf;

use serde::Deserialize;

/// Texts may be so long, in bytes: one of them can hold what the user wants to have typed.
pub(super) const LONGEST: usize = 64 << 10;

/// A message of the page.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase", deny_unknown_fields)]
pub enum Message {
    /// The page is ready. `deflate`: it can undo zlib's compression.
    Start { deflate: bool },
    /// One update has been drawn.
    Ack,
    /// A key by its place (`KeyA`), whatever it types.
    Key { code: String, down: bool },
    /// The pointer's place on the whole screen, 0 to 0x7fff each way.
    Pointer { x: u16, y: u16 },
    /// The pointer's motion in pixels, for guests without a tablet.
    Motion { x: i16, y: i16 },
    /// DOM's numbers: 0 left, 1 middle, 2 right, 3 back, 4 forward.
    Button { button: u8, down: bool },
    /// Positive is away from the user.
    Wheel { steps: i8 },
    /// Text to be typed on a US keyboard.
    Type { text: String },
    /// No more typing.
    Stop,
    /// The page has lost the focus: nothing is held down.
    Release,
    /// Something for the machine itself.
    Machine { action: Action },
    /// Take out what is in the drive of that id.
    Eject { drive: String },
    /// Put an image into it: a path on the machine's host.
    Insert { drive: String, path: PathBuf },
}

/// What the page's buttons do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Press the power button.
    Power,
    Reset,
    Pause,
    Resume,
    /// End the machine.
    Quit,
}

impl Message {
    /// Reads a text.
    ///
    /// # Errors
    /// In words for the page's developer.
    pub fn parse(text: &str) -> Result<Message, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages() {
        let parse = |text| Message::parse(text).unwrap();
        assert_eq!(parse(r#"{"t":"ack"}"#), Message::Ack);
        let key = Message::Key {
            code: "KeyA".into(),
            down: true,
        };
        assert_eq!(parse(r#"{"t":"key","code":"KeyA","down":true}"#), key);
        let reset = Message::Machine {
            action: Action::Reset,
        };
        assert_eq!(parse(r#"{"t":"machine","action":"reset"}"#), reset);
        let insert = Message::Insert {
            drive: "/cd0".into(),
            path: "/a b.iso".into(),
        };
        assert_eq!(
            parse(r#"{"t":"insert","drive":"/cd0","path":"/a b.iso"}"#),
            insert
        );
        for text in [
            "",
            "{}",
            r#"{"t":"eject"}"#,
            r#"{"t":"insert","drive":"/cd0"}"#,
            r#"{"t":"x"}"#,
            r#"{"t":"pointer","x":-1,"y":0}"#,
            r#"{"t":"wheel","steps":1e9}"#,
        ] {
            assert!(Message::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "\\PC*", value in any::<i64>()) {
            let _ = Message::parse(&text);
            let _ = Message::parse(&format!(r#"{{"t":"pointer","x":{value},"y":{text:?}}}"#));
        }
    }
}
