//! Identify (NVMe 5.15).

use crate::command::{Command, Done};
use crate::controller::{Inner, Scratch};
use crate::spec::*;

/// Bytes of what Identify gives.
const SIZE: usize = 4096;

impl Inner {
    pub(crate) fn identify(&self, command: &Command, scratch: &mut Scratch) -> Done {
        let mut page = Page([0; SIZE]);
        match command.dword(10) as u8 {
            cns::NAMESPACE => {
                Self::check_namespace(command)?;
                self.identify_namespace(&mut page);
            }
            cns::CONTROLLER => self.identify_controller(&mut page),
            // All active namespaces above the one given.
            cns::ACTIVE_NAMESPACES => match command.namespace() {
                0 => page.put(0, &NAMESPACE.to_le_bytes()),
                1..0xffff_fffe => {}
                _ => return Err(Status::INVALID_NAMESPACE.into()),
            },
            cns::NAMESPACE_DESCRIPTORS => {
                Self::check_namespace(command)?;
                // Type, length, two reserved bytes, identifier.
                page.put(0, &[1, 8, 0, 0]);
                page.put(4, &self.config.eui64());
                page.put(12, &[3, 16, 0, 0]);
                page.put(16, &self.config.uuid());
            }
            _ => return Err(Status::INVALID_FIELD.into()),
        }
        self.give(command, &page.0, scratch)
    }

    fn identify_controller(&self, page: &mut Page) {
        page.put(0, &0x1b36u16.to_le_bytes());
        page.put(2, &0x1af4u16.to_le_bytes());
        page.text(4, 20, &self.config.serial);
        page.text(24, 40, &self.config.model);
        page.text(64, 8, &self.config.firmware);
        page.put(72, &[6]); // RAB
        page.put(73, &[0x00, 0x54, 0x52]); // IEEE
        page.put(77, &[MDTS]);
        page.put(80, &VERSION.to_le_bytes());
        page.put(111, &[1]); // CNTRLTYPE: I/O controller
        page.put(258, &[3]); // ACL
        page.put(259, &[MAX_EVENT_REQUESTS as u8 - 1]); // AERL
        page.put(260, &[0x03]); // FRMW: one slot, read only
        page.put(261, &[0x07]); // LPA: SMART of a namespace, command effects, extended data
        page.put(262, &[ERROR_ENTRIES as u8 - 1]); // ELPE
        page.put(266, &WARNING_TEMPERATURE.to_le_bytes());
        page.put(268, &CRITICAL_TEMPERATURE.to_le_bytes());
        page.put(512, &[(SQE_SHIFT | SQE_SHIFT << 4) as u8]);
        page.put(513, &[(CQE_SHIFT | CQE_SHIFT << 4) as u8]);
        page.put(516, &NAMESPACE.to_le_bytes()); // NN
        page.put(520, &0x000du16.to_le_bytes()); // ONCS: Compare, Dataset Management, Write Zeroes
        page.put(525, &[0x06 | u8::from(self.config.write_cache)]); // VWC, and Flush of all namespaces
        let uuid = self.config.uuid();
        let hex: Vec<String> = uuid.iter().map(|b| format!("{b:02x}")).collect();
        let group = |range: std::ops::Range<usize>| hex[range].concat();
        let nqn = format!(
            "nqn.2014-08.org.nvmexpress:uuid:{}-{}-{}-{}-{}",
            group(0..4),
            group(4..6),
            group(6..8),
            group(8..10),
            group(10..16)
        );
        page.put(768, nqn.as_bytes());
        page.put(2048, &2500u16.to_le_bytes()); // power state 0: 25 W
    }

    fn identify_namespace(&self, page: &mut Page) {
        let blocks = self.blocks().to_le_bytes();
        page.put(0, &blocks); // NSZE
        page.put(8, &blocks); // NCAP
        page.put(16, &blocks); // NUSE
        page.put(33, &[0x08]); // DLFEAT: Write Zeroes may deallocate
        page.put(99, &[self.read_only.into()]); // NSATTR
        page.put(120, &self.config.eui64());
        page.put(128, &(self.block_shift << 16).to_le_bytes()); // LBAF0
    }
}

struct Page([u8; SIZE]);

impl Page {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// ASCII, padded with spaces.
    fn text(&mut self, offset: usize, length: usize, text: &str) {
        let field = &mut self.0[offset..offset + length];
        field.fill(b' ');
        for (byte, c) in field.iter_mut().zip(text.bytes()) {
            *byte = if (0x20..0x7f).contains(&c) { c } else { b'?' };
        }
    }
}
