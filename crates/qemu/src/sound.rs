//! `-audiodev` and `-audio`: where sound goes, and which devices it comes from.

use audio::{Driver, Options};
use machine::description::{Codec, Device, Kind};

use crate::Error;
use crate::keyval::{KeyValues, parse_number};
use crate::options::Given;

/// What the options said.
#[derive(Debug, Default)]
pub struct Sound {
    /// All back ends.
    pub options: Vec<Options>,
    /// The one for devices without an `audiodev=`.
    default: Option<String>,
    /// `-audio …,model=hda`: a controller and a codec for it.
    hda: bool,
}

/// The ID of the back end that `-audio` gives, and of the host's where nothing is given.
const DEFAULT: &str = "audiodev0";

/// Sound cards of `-audio …,model=`.
const CARDS: &str = "Valid sound card names (comma separated):\nhda         Intel HD Audio\n";

impl Sound {
    /// Takes one `-audiodev` or `-audio`.
    pub fn take(&mut self, option: &Given) -> Result<(), Error> {
        let mut values = KeyValues::parse(&option.value, Some("driver"));
        let short = option.name == "audio";
        if short && let Some(model) = values.take("model") {
            match model.as_str() {
                "hda" => self.hda = true,
                "virtio" => {
                    return Err(
                        Error::new("Dormer does not have virtio sound yet").hint("Use model=hda")
                    );
                }
                other => {
                    return Err(Error::new(format!("Unknown sound card name `{other}'"))
                        .hint(CARDS.trim_end()));
                }
            }
        }
        let id = match (values.take("id"), short) {
            (Some(id), _) => id,
            (None, true) => DEFAULT.into(),
            (None, false) => return Err(Error::new("Parameter 'id' is missing")),
        };
        if self.options.iter().any(|o| o.id == id) {
            return Err(Error::new(format!("Duplicate ID '{id}' for audiodev")));
        }
        let driver = values
            .take("driver")
            .ok_or_else(|| Error::new("Parameter 'driver' is missing"))?;
        let driver: Driver = driver
            .parse()
            .map_err(|e: audio::OptionsError| Error::new(e.to_string()))?;
        let mut options = Options::new(&id, driver);
        match driver {
            Driver::Wav => {
                options.path = values.take("path");
                options.input = values.take("in.path");
                if let Some(text) = values.take("out.frequency") {
                    let rate = parse_number("out.frequency", &text)?;
                    if !(8000..=192_000).contains(&rate) {
                        return Err(Error::new(
                            "Parameter 'out.frequency' expects 8000 to 192000",
                        ));
                    }
                    options.frequency = Some(rate as u32);
                }
                for (key, only) in [("out.channels", "2"), ("out.format", "s16")] {
                    if let Some(value) = values.take(key)
                        && value != only
                    {
                        return Err(Error::new(format!(
                            "Dormer writes {key}={only} only, not {value}"
                        )));
                    }
                }
            }
            Driver::Host => {
                for key in ["out.dev", "out.name"] {
                    options.device = values.take(key).or(options.device);
                }
            }
            Driver::None => {}
        }
        if let Some((key, _)) = values.rest().next() {
            return Err(Error::new(format!("Parameter '{key}' is unexpected")));
        }
        if short {
            self.default = Some(id);
        }
        self.options.push(options);
        Ok(())
    }

    /// The back end of a device: the one it names, or the default. Without any, the host's.
    pub fn of_device(&mut self, named: Option<String>) -> Result<String, Error> {
        if let Some(id) = named {
            return match self.options.iter().any(|o| o.id == id) {
                true => Ok(id),
                false => Err(Error::new(format!("audiodev '{id}' not found"))),
            };
        }
        if let Some(id) = &self.default {
            return Ok(id.clone());
        }
        if let Some(first) = self.options.first() {
            return Err(
                Error::new("no default audio driver available").hint(format!(
                    "Perhaps you wanted to use -audio or set audiodev={}?",
                    first.id
                )),
            );
        }
        self.options.push(Options::new(DEFAULT, Driver::Host));
        self.default = Some(DEFAULT.into());
        Ok(DEFAULT.into())
    }

    /// The devices that `-audio` asks for.
    pub fn devices(&mut self) -> Result<Vec<Device>, Error> {
        if !self.hda {
            return Ok(Vec::new());
        }
        let audiodev = self.of_device(None)?;
        let device = |id: Option<&str>, bus: Option<&str>, kind| Device {
            id: id.map(str::to_string),
            bus: bus.map(str::to_string),
            address: None,
            bootindex: None,
            kind,
        };
        // An ID of its own, so that the codec is not taken for another controller's.
        let controller = Kind::Hda {
            ich9: false,
            msi: true,
        };
        let codec = Kind::HdaCodec {
            codec: Codec::Duplex,
            audiodev,
            cad: None,
            mixer: true,
        };
        Ok(vec![
            device(Some("audio-hda"), None, controller),
            device(None, Some("audio-hda.0"), codec),
        ])
    }
}

/// `-audiodev help`.
pub fn drivers() -> String {
    let mut text = String::from("Available audio drivers:\n");
    for name in audio::drivers() {
        text.push_str(name);
        text.push('\n');
    }
    text
}

/// `-audio …,model=help`.
pub fn cards() -> &'static str {
    CARDS
}
