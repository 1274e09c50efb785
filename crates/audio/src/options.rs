//! What a user chose of `-audiodev`.

/// Where sound goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Nowhere.
    None,
    /// To a file.
    Wav,
    /// To the host's sound system.
    Host,
}

/// One `-audiodev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `id=`.
    pub id: String,
    pub driver: Driver,
    /// `path=` of `wav`.
    pub path: Option<String>,
    /// `in.path=` of `wav`: a file to record from; without it there is silence.
    pub input: Option<String>,
    /// `out.frequency=`, in Hz: the rate of the file; without it that of the first voice that plays.
    pub frequency: Option<u32>,
    /// The host's device, by its name there (`out.dev=`, `out.name=`).
    pub device: Option<String>,
}

/// A driver that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("Parameter 'driver' does not accept value '{0}'")]
    Driver(String),
    #[error("Dormer does not have the audio driver '{0}'; it has: {1}")]
    NotHere(String, String),
}

impl Options {
    /// A driver with everything else left to it.
    pub fn new(id: &str, driver: Driver) -> Options {
        Options {
            id: id.into(),
            driver,
            path: None,
            input: None,
            frequency: None,
            device: None,
        }
    }
}

/// The host's sound systems by the names that QEMU's users know, and whether they are this host's.
const HOST: &[(&str, bool)] = &[
    ("cpal", true),
    ("coreaudio", cfg!(target_os = "macos")),
    ("alsa", cfg!(target_os = "linux")),
    // Both take ALSA's clients on Linux.
    ("pa", cfg!(target_os = "linux")),
    ("pipewire", cfg!(target_os = "linux")),
];
/// Known to QEMU's users, not here.
const OTHERS: &[&str] = &["oss", "sdl", "jack", "sndio", "spice", "dbus", "dsound"];

/// The names of all drivers of this host.
pub fn drivers() -> Vec<&'static str> {
    let host = HOST.iter().filter(|(_, here)| *here);
    ["none", "wav"]
        .into_iter()
        .chain(host.map(|(name, _)| *name))
        .collect()
}

impl std::str::FromStr for Driver {
    type Err = OptionsError;

    fn from_str(name: &str) -> Result<Driver, OptionsError> {
        match name {
            "none" => Ok(Driver::None),
            "wav" => Ok(Driver::Wav),
            name if HOST.contains(&(name, true)) => Ok(Driver::Host),
            name if HOST.iter().any(|h| h.0 == name) || OTHERS.contains(&name) => {
                Err(OptionsError::NotHere(name.into(), drivers().join(", ")))
            }
            name => Err(OptionsError::Driver(name.into())),
        }
    }
}
