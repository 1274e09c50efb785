//! What a file is, by its magic number.

/// How much of a file's start decides.
pub(crate) const PROBE_SIZE: usize = 512;

/// What the start of a file says it is. Formats that are not built are named, so that they can be refused by name and
/// never be taken for raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    Raw,
    Qcow2,
    /// A format by this name, not built.
    Foreign(&'static str),
}

/// Decides by `start`, the first [`PROBE_SIZE`] bytes (fewer if the file is shorter).
pub(crate) fn probe(start: &[u8]) -> Probed {
    const FOREIGN: &[(usize, &[u8], &str)] = &[
        (0, b"QED\0", "qed"),
        (0, b"KDMV", "vmdk"),
        (0, b"COWD", "vmdk"),
        (0, b"# Disk DescriptorFile", "vmdk"),
        (0, b"vhdxfile", "vhdx"),
        (0, b"conectix", "vpc"),
        (64, &[0x7f, 0x10, 0xda, 0xbe], "vdi"),
        (0, b"LUKS\xba\xbe", "luks"),
        (0, b"WithoutFreeSpace", "parallels"),
        (0, b"WithouFreSpacExt", "parallels"),
        (0, b"Bochs Virtual HD Image", "bochs"),
        (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
    ];
    let at = |offset: usize, magic: &[u8]| {
        start
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if at(0, b"QFI\xfb") {
        return match start.get(4..8) {
            Some([0, 0, 0, 1]) => Probed::Foreign("qcow"),
            // Versions to come are refused with their number when the header is read.
            _ => Probed::Qcow2,
        };
    }
    FOREIGN
        .iter()
        .find(|(offset, magic, _)| at(*offset, magic))
        .map_or(Probed::Raw, |(_, _, name)| Probed::Foreign(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magics() {
        assert_eq!(probe(b""), Probed::Raw);
        assert_eq!(probe(b"QFI"), Probed::Raw);
        assert_eq!(probe(b"QFI\xfb\0\0\0\x03"), Probed::Qcow2);
        assert_eq!(probe(b"QFI\xfb\0\0\0\x01"), Probed::Foreign("qcow"));
        assert_eq!(probe(b"QFI\xfb"), Probed::Qcow2);
        let mut vdi = [0; 512];
        vdi[64..68].copy_from_slice(&0xbeda_107f_u32.to_le_bytes());
        assert_eq!(probe(&vdi), Probed::Foreign("vdi"));
        assert_eq!(probe(&[0xeb; 512]), Probed::Raw);
    }
}
