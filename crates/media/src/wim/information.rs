//! What the XML document of a WIM says about its images.

use serde::Serialize;

use crate::error::Result;
use crate::xml::Element;

/// For which processor Windows is built (`PROCESSOR_ARCHITECTURE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    X86,
    Arm,
    Ia64,
    X64,
    Arm64,
    Other(u32),
}

impl Architecture {
    fn from_number(number: u32) -> Architecture {
        match number {
            0 => Architecture::X86,
            5 => Architecture::Arm,
            6 => Architecture::Ia64,
            9 => Architecture::X64,
            12 => Architecture::Arm64,
            other => Architecture::Other(other),
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Architecture::X86 => f.write_str("x86"),
            Architecture::Arm => f.write_str("Arm (32 bit)"),
            Architecture::Ia64 => f.write_str("Itanium"),
            Architecture::X64 => f.write_str("x64"),
            Architecture::Arm64 => f.write_str("Arm64"),
            Architecture::Other(number) => write!(f, "architecture {number}"),
        }
    }
}

/// One image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageInformation {
    pub index: u32,
    pub name: Option<String>,
    pub display_name: Option<String>,
    pub description: Option<String>,
    /// `Professional`, `Core`, `WindowsPE` …
    pub edition: Option<String>,
    /// `Client`, `WindowsPE` …
    pub installation: Option<String>,
    pub architecture: Option<Architecture>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub build: Option<u32>,
    pub revision: Option<u32>,
    pub languages: Vec<String>,
    pub default_language: Option<String>,
    /// Bytes of all files.
    pub bytes: Option<u64>,
    pub files: Option<u64>,
    pub folders: Option<u64>,
}

/// Reads the document.
pub(super) fn parse(document: &str) -> Result<Vec<ImageInformation>> {
    let document = document
        .trim_start_matches('\u{feff}')
        .trim_end_matches('\0');
    let top = Element::parse(document, "the XML of a WIM")?;
    Ok(top
        .children
        .iter()
        .filter(|child| child.name == "IMAGE")
        .enumerate()
        .map(|(position, image)| {
            let text = |path: &str| image.at(path).map(str::to_string);
            let number = |path: &str| image.at(path)?.parse::<u32>().ok();
            let long = |path: &str| image.at(path)?.parse::<u64>().ok();
            let languages = image
                .child("WINDOWS")
                .and_then(|w| w.child("LANGUAGES"))
                .map(|l| {
                    l.children
                        .iter()
                        .filter(|c| c.name == "LANGUAGE")
                        .map(|c| c.text.trim().to_string())
                        .collect()
                })
                .unwrap_or_default();
            ImageInformation {
                index: image
                    .attribute("INDEX")
                    .and_then(|index| index.parse().ok())
                    .unwrap_or(position as u32 + 1),
                name: text("NAME"),
                display_name: text("DISPLAYNAME"),
                description: text("DESCRIPTION"),
                edition: text("WINDOWS/EDITIONID").or_else(|| text("FLAGS")),
                installation: text("WINDOWS/INSTALLATIONTYPE"),
                architecture: number("WINDOWS/ARCH").map(Architecture::from_number),
                major: number("WINDOWS/VERSION/MAJOR"),
                minor: number("WINDOWS/VERSION/MINOR"),
                build: number("WINDOWS/VERSION/BUILD"),
                revision: number("WINDOWS/VERSION/SPBUILD"),
                languages,
                default_language: text("WINDOWS/LANGUAGES/DEFAULT"),
                bytes: long("TOTALBYTES"),
                files: long("FILECOUNT"),
                folders: long("DIRCOUNT"),
            }
        })
        .collect())
}
