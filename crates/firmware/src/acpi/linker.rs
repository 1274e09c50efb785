//! The table loader's commands (EDK II, `OvmfPkg/AcpiPlatformDxe/QemuLoader.h`): where firmware is to put the blobs,
//! which fields are pointers, and which bytes are checksums.

/// Bytes of a file name with its closing NUL.
const FILE_NAME: usize = 56;
/// Bytes of a command.
pub const COMMAND: usize = 128;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// Where a blob goes.
#[derive(Clone, Copy)]
pub(super) enum Zone {
    /// Anywhere.
    High = 1,
    /// Where legacy systems look for the RSDP; anywhere on this board.
    FSegment = 2,
}

/// Commands, in order.
#[derive(Default)]
pub(super) struct Linker(Vec<u8>);

impl Linker {
    /// Downloads the file into memory of its own, aligned.
    pub fn allocate(&mut self, file: &str, alignment: u32, zone: Zone) {
        self.push(
            ALLOCATE,
            &[file],
            &[&alignment.to_le_bytes(), &[zone as u8]],
        );
    }

    /// Adds the address of `pointee` to the 64-bit field at `offset` of `pointer`.
    pub fn add_pointer(&mut self, pointer: &str, pointee: &str, offset: usize) {
        self.push(
            ADD_POINTER,
            &[pointer, pointee],
            &[&(offset as u32).to_le_bytes(), &[8]],
        );
    }

    /// Puts the byte at `result` of `file` so that `length` bytes from `start` on sum up to zero.
    pub fn add_checksum(&mut self, file: &str, result: usize, start: usize, length: usize) {
        let fields = [result, start, length].map(|v| (v as u32).to_le_bytes());
        self.push(ADD_CHECKSUM, &[file], &[&fields.concat()]);
    }

    fn push(&mut self, command: u32, files: &[&str], fields: &[&[u8]]) {
        let start = self.0.len();
        self.0.extend(command.to_le_bytes());
        for file in files {
            let mut name = [0; FILE_NAME];
            name[..file.len()].copy_from_slice(file.as_bytes());
            self.0.extend(name);
        }
        fields.iter().for_each(|f| self.0.extend(*f));
        self.0.resize(start + COMMAND, 0);
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}
