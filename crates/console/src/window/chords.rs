//! Keys under Ctrl and Alt that are the window's own.

/// What a chord does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Grab,
    FullScreen,
    Fit,
    OneToOne,
    Pause,
    PowerButton,
    Reset,
    Screenshot,
    Eject,
    CtrlAltDelete,
    Quit,
    Help,
}

/// Ctrl-Alt and: by the key's place, as W3C names it.
const CHORDS: &[(&str, Action)] = &[
    ("KeyG", Action::Grab),
    ("KeyF", Action::FullScreen),
    ("Digit0", Action::Fit),
    ("Digit1", Action::OneToOne),
    ("KeyU", Action::OneToOne),
    ("KeyP", Action::Pause),
    ("KeyB", Action::PowerButton),
    ("KeyR", Action::Reset),
    ("KeyS", Action::Screenshot),
    ("KeyE", Action::Eject),
    ("End", Action::CtrlAltDelete),
    ("KeyD", Action::CtrlAltDelete),
    ("KeyQ", Action::Quit),
    ("KeyH", Action::Help),
];

/// For the user.
pub const HELP: &str = "\
Keys of the window, with Ctrl and Alt (Control and Option) held:
  G  release the pointer, or grab it      F  full screen
  0  fit the picture to the window        1  one pixel for one
  P  pause, or go on                      B  press the power button
  R  reset (twice)                        Q  end the machine (twice)
  S  screenshot, to the current folder    D or End  Ctrl-Alt-Delete in the guest
  E  eject the first disc                 H  this list
An image that is dropped on the window goes into the first CD-ROM drive that is empty, or else into the first one (X11 and macOS).
";

impl Action {
    /// The action of Ctrl-Alt and this key.
    pub(super) fn of(code: &str) -> Option<Action> {
        CHORDS
            .iter()
            .find(|(key, _)| *key == code)
            .map(|(_, action)| *action)
    }

    /// What has to be asked for twice, as unsaved work is lost: what the title says meanwhile.
    pub(super) fn warning(self) -> Option<&'static str> {
        match self {
            Action::Reset => Some("Ctrl-Alt-R again resets"),
            Action::Quit => Some("Ctrl-Alt-Q again ends the machine"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chord_is_a_key_and_in_the_help() {
        for (code, action) in CHORDS {
            assert!(crate::keys::from_code(code).is_some(), "{code}");
            assert_eq!(Action::of(code), Some(*action));
            let name = code.trim_start_matches("Key").trim_start_matches("Digit");
            assert!(HELP.contains(&format!(" {name} ")) || name == "U", "{name}");
        }
        assert_eq!(Action::of("KeyA"), None);
    }
}
