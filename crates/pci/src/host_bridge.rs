//! The host bridge in slot 0: an identity, and nothing behind it.

use device::{Access, Device};

use crate::{Endpoint, Function, Identity};

/// The generic PCI Express host bridge's own function.
pub(crate) struct HostBridge {
    endpoint: Endpoint,
}

impl HostBridge {
    pub(crate) fn new() -> HostBridge {
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0008,
            revision: 0,
            class: 0x06_0000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        HostBridge {
            endpoint: Endpoint::builder(identity).build(),
        }
    }
}

impl Device for HostBridge {
    fn name(&self) -> &str {
        "host bridge"
    }

    fn reset(&self) {
        self.endpoint.reset();
    }
}

impl Function for HostBridge {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn read_bar(&self, _: u8, _: Access) -> u64 {
        0
    }

    fn write_bar(&self, _: u8, _: Access, _: u64) {}
}
