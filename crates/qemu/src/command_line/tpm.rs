//! `-tpmdev`, and the `-chardev` that it is connected by.

use std::path::PathBuf;

use machine::description::{Device, Drive, Kind, TpmBackend};

use crate::Error;
use crate::keyval::KeyValues;
use crate::options::Given;

/// The TPM back ends of a command line, and the sockets that are for them.
#[derive(Default)]
pub(super) struct Tpms {
    sockets: Vec<Named<PathBuf>>,
    backends: Vec<Named<TpmBackend>>,
}

struct Named<T> {
    id: String,
    what: T,
    /// The option as written.
    text: String,
    used: bool,
}

impl Tpms {
    /// Reads the options: sockets first, in whatever order they are given.
    pub(super) fn parse(given: &[Given]) -> Result<Tpms, Error> {
        let mut tpms = Tpms::default();
        for option in given.iter().filter(|g| g.name == "chardev") {
            let (id, what) = chardev(&option.value).map_err(|e| e.of(&option.text))?;
            if tpms.sockets.iter().any(|s| s.id == id) {
                return Err(Error::new(format!("Duplicate ID '{id}' for chardev")).of(&option.text));
            }
            let text = option.text.clone();
            tpms.sockets.push(Named {
                id,
                what,
                text,
                used: false,
            });
        }
        for option in given.iter().filter(|g| g.name == "tpmdev") {
            let (id, what) = tpms
                .backend(&option.value)
                .map_err(|e| e.of(&option.text))?;
            if tpms.backends.iter().any(|b| b.id == id) {
                return Err(Error::new(format!("Duplicate ID '{id}' for tpmdev")).of(&option.text));
            }
            let text = option.text.clone();
            tpms.backends.push(Named {
                id,
                what,
                text,
                used: false,
            });
        }
        Ok(tpms)
    }

    fn backend(&mut self, value: &str) -> Result<(String, TpmBackend), Error> {
        let mut values = KeyValues::parse(value, Some("type"));
        let kind = values.take("type").unwrap_or_default();
        let id = values
            .take("id")
            .ok_or_else(|| Error::new("Parameter 'id' is missing"))?;
        let backend = match kind.as_str() {
            "emulator" => {
                let name = values.take("chardev").ok_or_else(|| {
                    Error::new("Parameter 'chardev' is missing")
                        .hint("Add -chardev socket,id=chrtpm,path=… and chardev=chrtpm")
                })?;
                let socket = self
                    .sockets
                    .iter_mut()
                    .find(|s| s.id == name)
                    .ok_or_else(|| {
                        Error::new(format!("tpm-emulator: tpm chardev '{name}' not found"))
                            .hint(format!("Add -chardev socket,id={name},path=…"))
                    })?;
                socket.used = true;
                TpmBackend::Emulator {
                    socket: socket.what.clone(),
                }
            }
            "managed" => TpmBackend::Managed {
                // Without a folder, it goes beside the disk, which is known at the end.
                state: values.take("state").map(PathBuf::from).unwrap_or_default(),
                optional: values.take_bool("optional")?.unwrap_or(false),
            },
            "passthrough" => {
                return Err(Error::new("Dormer does not pass a host's TPM through")
                    .hint("Use -tpmdev managed,id=… or -tpmdev emulator,id=…,chardev=…"));
            }
            other => {
                return Err(Error::new(format!(
                    "Parameter 'type' does not accept value '{other}'"
                ))
                .hint("Use -tpmdev managed,id=… or -tpmdev emulator,id=…,chardev=…"));
            }
        };
        values.finish()?;
        Ok((id, backend))
    }

    /// The back end for a device's `tpmdev=`.
    pub(super) fn take(&mut self, id: Option<String>) -> Result<TpmBackend, Error> {
        let id = id.ok_or_else(|| {
            Error::new("'tpmdev' property is not set")
                .hint("Add -tpmdev managed,id=tpm0 and tpmdev=tpm0")
        })?;
        let backend = self
            .backends
            .iter_mut()
            .find(|b| b.id == id)
            .ok_or_else(|| {
                Error::new(format!("Property 'tpmdev' can't find value '{id}'"))
                    .hint(format!("Add -tpmdev managed,id={id}"))
            })?;
        backend.used = true;
        Ok(backend.what.clone())
    }

    /// Gives a managed TPM its place beside the disk, and tells of what no device has taken.
    pub(super) fn finish(self, devices: &mut [Device]) -> Result<(), Error> {
        if let Some(socket) = self.sockets.iter().find(|s| !s.used) {
            return Err(
                Error::new("Dormer has character devices for -tpmdev emulator only")
                    .hint("Give serial lines their places in -serial, and QMP's in -qmp")
                    .of(&socket.text),
            );
        }
        let beside = devices
            .iter()
            .filter_map(|device| disk(&device.kind))
            .find_map(|drive| {
                let image = drive.image.as_ref().filter(|_| !drive.cdrom)?;
                Some(image.path.with_extension("tpm"))
            });
        for device in devices {
            if let Kind::Tpm {
                backend: TpmBackend::Managed { state, .. },
                ..
            } = &mut device.kind
                && state.as_os_str().is_empty()
            {
                *state = beside.clone().ok_or_else(|| {
                    Error::new(
                        "-tpmdev managed: the machine has no disk to keep the TPM's state beside",
                    )
                    .hint("Add state=FOLDER to it")
                })?;
            }
        }
        match self.backends.iter().find(|b| !b.used) {
            Some(unused) => Err(Error::new("no device uses this TPM")
                .hint(format!("Add -device tpm-crb-device,tpmdev={}", unused.id))
                .of(&unused.text)),
            None => Ok(()),
        }
    }
}

fn disk(kind: &Kind) -> Option<&Drive> {
    match kind {
        Kind::VirtioBlk { drive, .. }
        | Kind::Nvme { drive, .. }
        | Kind::UsbStorage { drive, .. } => Some(drive),
        _ => None,
    }
}

/// `-chardev socket,id=ID,path=PATH`.
fn chardev(value: &str) -> Result<(String, PathBuf), Error> {
    let mut values = KeyValues::parse(value, Some("backend"));
    let kind = values.take("backend").unwrap_or_default();
    if kind != "socket" {
        return Err(Error::new(format!(
            "Dormer does not have the character device '{kind}' yet"
        ))
        .hint("It has: socket, for -tpmdev emulator"));
    }
    let id = values
        .take("id")
        .ok_or_else(|| Error::new("Parameter 'id' is missing"))?;
    let path = values.take("path").ok_or_else(|| {
        Error::new("Dormer's character devices are Unix sockets only: Parameter 'path' is missing")
    })?;
    if values.take_bool("server")? == Some(true) {
        return Err(Error::new(
            "a TPM emulator is connected to: leave server=on out",
        ));
    }
    values.finish()?;
    Ok((id, path.into()))
}
