//! What `-display window` takes, and QEMU's names for it.

/// `-display window`'s arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// The window starts on the full screen.
    pub full_screen: bool,
    /// The host's pointer stays visible over the guest's picture.
    pub show_cursor: bool,
    /// The picture is scaled to the window; otherwise a pixel is a pixel.
    pub fit: bool,
    /// Closing the window ends the machine.
    pub close: bool,
}

impl Default for WindowOptions {
    fn default() -> Self {
        WindowOptions {
            full_screen: false,
            show_cursor: false,
            fit: true,
            close: true,
        }
    }
}

/// An argument that cannot be understood, or asks for what is not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("Parameter '{name}' expects 'on' or 'off'")]
    Value { name: String },
    #[error("Dormer's window does not have '{0}'")]
    NotBuilt(String),
    #[error("Invalid parameter '{0}'")]
    Unknown(String),
}

impl WindowOptions {
    /// Reads what follows `window,`: `full-screen=`, `show-cursor=`, `zoom-to-fit=`, `window-close=`.
    pub fn parse(text: &str) -> Result<WindowOptions, OptionError> {
        let mut options = WindowOptions::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, "on"));
            let value = match value {
                "on" | "yes" | "true" | "y" => true,
                "off" | "no" | "false" | "n" => false,
                // QEMU's kinds of OpenGL.
                "core" | "es" if name == "gl" => true,
                _ => return Err(OptionError::Value { name: name.into() }),
            };
            match name {
                "full-screen" | "full_screen" => options.full_screen = value,
                "show-cursor" => options.show_cursor = value,
                "zoom-to-fit" => options.fit = value,
                "window-close" => options.close = value,
                // What is off is what there is.
                "gl" | "grab-on-hover" | "full-grab" | "swap-opt-cmd" | "show-tabs"
                | "show-menubar" | "zoom-interpolation" => {
                    if value {
                        return Err(OptionError::NotBuilt(part.into()));
                    }
                }
                _ => return Err(OptionError::Unknown(name.into())),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        assert_eq!(WindowOptions::parse("gl=off"), Ok(WindowOptions::default()));
        let all =
            WindowOptions::parse("full-screen,show-cursor=on,zoom-to-fit=off,window-close=off");
        let expected = WindowOptions {
            full_screen: true,
            show_cursor: true,
            fit: false,
            close: false,
        };
        assert_eq!(all, Ok(expected));
        for text in ["gl=on", "full-screen=maybe", "frob", "grab-on-hover=on"] {
            assert!(WindowOptions::parse(text).is_err(), "{text}");
        }
    }
}
