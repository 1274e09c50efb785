//! Boot configuration data: a registry hive of objects and their elements ("Boot Configuration Data", Microsoft).

mod device;
mod names;
#[cfg(test)]
mod tests;

pub(crate) use device::guid;
pub use device::{Device, DeviceKind};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::hive::{Hive, Key, kind};

/// Bytes of all elements beyond which a store is refused; those of Windows have a few thousand.
const DATA: usize = 4 << 20;

/// A store.
#[derive(Clone, Debug, Serialize)]
pub struct Store {
    pub objects: Vec<Object>,
}

/// A boot manager, a loader, a set of options …
#[derive(Clone, Debug, Serialize)]
pub struct Object {
    /// `{9dea862c-5cdd-4e70-acc1-f32b344d4795}`.
    pub id: String,
    /// `{bootmgr}`, for those that have a name.
    pub alias: Option<&'static str>,
    /// `Description\Type`.
    pub kind: u32,
    /// That in words.
    pub kind_name: &'static str,
    pub elements: Vec<Element>,
}

/// An element of an object.
#[derive(Clone, Debug, Serialize)]
pub struct Element {
    pub id: u32,
    /// As `bcdedit` names it, or the number.
    pub name: String,
    pub value: Setting,
}

/// An element's value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub enum Setting {
    Device(Device),
    Text(String),
    Object(String),
    Objects(Vec<String>),
    Integer(u64),
    Boolean(bool),
    Integers(Vec<u64>),
    /// Of a format that is unknown, or damaged.
    Bytes(String),
}

impl Store {
    /// Whether a hive is a store.
    pub fn probe(hive: &Hive) -> Result<bool> {
        Ok(hive.find("Objects")?.is_some() && hive.find("Description")?.is_some())
    }

    /// Reads all objects.
    pub fn read(hive: &Hive) -> Result<Store> {
        let objects = hive.find("Objects")?.ok_or_else(|| {
            Error::Unsupported("a registry hive that is no boot configuration".into())
        })?;
        let mut left = DATA;
        let objects = hive
            .children(&objects)?
            .iter()
            .map(|key| object(hive, key, &mut left))
            .collect::<Result<Vec<_>>>()?;
        Ok(Store { objects })
    }

    /// The object of an identifier or alias.
    pub fn object(&self, id: &str) -> Option<&Object> {
        self.objects
            .iter()
            .find(|o| o.id.eq_ignore_ascii_case(id) || o.alias == Some(id))
    }

    /// The boot manager.
    pub fn boot_manager(&self) -> Option<&Object> {
        self.object("{bootmgr}")
    }

    /// The entry that the boot manager starts by itself.
    pub fn default(&self) -> Option<&Object> {
        let manager = self.boot_manager()?;
        let by_default = match manager.setting(names::DEFAULT) {
            Some(Setting::Object(id)) => Some(id),
            _ => match manager.setting(names::DISPLAY_ORDER) {
                Some(Setting::Objects(ids)) => ids.first(),
                _ => None,
            },
        };
        self.object(by_default?)
    }
}

impl Object {
    /// The value of an element by its number.
    pub fn setting(&self, id: u32) -> Option<&Setting> {
        self.elements.iter().find(|e| e.id == id).map(|e| &e.value)
    }

    /// The value of an element by its name.
    pub fn named(&self, name: &str) -> Option<&Setting> {
        self.elements
            .iter()
            .find(|e| e.name == name)
            .map(|e| &e.value)
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Setting::Device(device) => device.fmt(f),
            Setting::Text(text) => f.write_str(text),
            Setting::Object(id) => f.write_str(names::alias(id).unwrap_or(id)),
            Setting::Objects(ids) => {
                let ids: Vec<&str> = ids
                    .iter()
                    .map(|id| names::alias(id).unwrap_or(id))
                    .collect();
                f.write_str(&ids.join(" "))
            }
            Setting::Integer(number) => number.fmt(f),
            Setting::Boolean(yes) => f.write_str(if *yes { "yes" } else { "no" }),
            Setting::Integers(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(|n| format!("{n:#x}")).collect();
                f.write_str(&numbers.join(" "))
            }
            Setting::Bytes(bytes) => f.write_str(bytes),
        }
    }
}

fn object(hive: &Hive, key: &Key, left: &mut usize) -> Result<Object> {
    let number = |path: &str| -> Result<u32> {
        let Some(description) = hive.child(key, path)? else {
            return Ok(0);
        };
        Ok(hive
            .value(&description, "Type")?
            .and_then(|value| value.number())
            .unwrap_or(0) as u32)
    };
    let kind = number("Description")?;
    let id = key.name.to_ascii_lowercase();
    let mut elements = Vec::new();
    if let Some(list) = hive.child(key, "Elements")? {
        for element in hive.children(&list)? {
            let Ok(id) = u32::from_str_radix(&element.name, 16) else {
                continue;
            };
            let Some(value) = hive.value(&element, "Element")? else {
                continue;
            };
            *left = left.checked_sub(value.data.len()).ok_or_else(|| {
                Error::Unsupported(format!("a boot configuration of more than {DATA} bytes"))
            })?;
            elements.push(Element {
                id,
                name: names::element(id, kind).map_or_else(|| format!("{id:08x}"), str::to_string),
                value: setting(id, &value),
            });
        }
    }
    Ok(Object {
        alias: names::alias(&id),
        id,
        kind,
        kind_name: names::object(kind),
        elements,
    })
}

/// The format of an element is bits 24 to 27 of its number.
fn setting(id: u32, value: &crate::hive::Value) -> Setting {
    let read = || -> Option<Setting> {
        let data = &value.data;
        Some(match id >> 24 & 0xF {
            1 => Setting::Device(Device::parse(data).ok()?),
            2 => Setting::Text(value.text()?),
            3 => Setting::Object(value.text()?.to_ascii_lowercase()),
            4 => Setting::Objects(
                value
                    .texts()?
                    .iter()
                    .map(|id| id.to_ascii_lowercase())
                    .collect(),
            ),
            5 => {
                let mut bytes = [0; 8];
                let length = data.len().min(8);
                bytes[..length].copy_from_slice(&data[..length]);
                Setting::Integer(u64::from_le_bytes(bytes))
            }
            6 => Setting::Boolean(*data.first()? != 0),
            7 => Setting::Integers(
                data.chunks_exact(8)
                    .map(|number| number.le64(0))
                    .collect::<Result<_>>()
                    .ok()?,
            ),
            _ => return None,
        })
    };
    read().unwrap_or_else(|| Setting::Bytes(crate::hex(&value.data)))
}

/// Writes stores: what an install medium's holds, or an entry changed.
impl Store {
    /// An empty store.
    pub fn create() -> Result<Hive> {
        let mut hive = Hive::create("NewStoreRoot")?;
        let description = hive.make("Description")?;
        hive.set_text(&description, "KeyName", "BCD00000000")?;
        hive.set_number(&description, "System", 1)?;
        hive.set_number(&description, "TreatAsSystem", 1)?;
        hive.make("Objects")?;
        Ok(hive)
    }

    /// Adds an object, or changes its type.
    pub fn set_object(hive: &mut Hive, id: &str, kind: u32) -> Result<()> {
        let key = hive.make(&format!("Objects\\{id}\\Description"))?;
        hive.set_number(&key, "Type", kind)?;
        hive.make(&format!("Objects\\{id}\\Elements"))?;
        Ok(())
    }

    /// Sets an element of an object, whose number's format must be the value's.
    pub fn set_element(hive: &mut Hive, id: &str, element: u32, value: &Setting) -> Result<()> {
        let format = match value {
            Setting::Device(_) => 1,
            Setting::Text(_) => 2,
            Setting::Object(_) => 3,
            Setting::Objects(_) => 4,
            Setting::Integer(_) => 5,
            Setting::Boolean(_) => 6,
            Setting::Integers(_) => 7,
            Setting::Bytes(_) => 0,
        };
        if element >> 24 & 0xF != format {
            return Err(Error::Unsupported(format!(
                "element {element:08x} of a boot configuration cannot be {value}"
            )));
        }
        let key = hive.make(&format!("Objects\\{id}\\Elements\\{element:08x}"))?;
        const NAME: &str = "Element";
        match value {
            Setting::Device(device) => hive.set(&key, NAME, kind::BINARY, &device.to_bytes()),
            Setting::Text(text) | Setting::Object(text) => hive.set_text(&key, NAME, text),
            Setting::Objects(ids) => {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                hive.set_texts(&key, NAME, &ids)
            }
            Setting::Integer(number) => hive.set(&key, NAME, kind::BINARY, &number.to_le_bytes()),
            Setting::Boolean(yes) => hive.set(&key, NAME, kind::BINARY, &[u8::from(*yes)]),
            Setting::Integers(numbers) => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
                hive.set(&key, NAME, kind::BINARY, &bytes)
            }
            Setting::Bytes(_) => Ok(()),
        }
    }
}
