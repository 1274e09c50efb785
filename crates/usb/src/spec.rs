//! Numbers of the Universal Serial Bus Specification 2.0 (chapter 9) and of USB 3.2 (chapter 9).

/// Standard request codes, table 9-4 (USB 3.2: table 9-5).
pub mod request {
    pub const GET_STATUS: u8 = 0;
    pub const CLEAR_FEATURE: u8 = 1;
    pub const SET_FEATURE: u8 = 3;
    pub const GET_DESCRIPTOR: u8 = 6;
    pub const GET_CONFIGURATION: u8 = 8;
    pub const SET_CONFIGURATION: u8 = 9;
    pub const GET_INTERFACE: u8 = 10;
    pub const SET_INTERFACE: u8 = 11;
    /// USB 3.2, 9.4.12.
    pub const SET_SEL: u8 = 48;
    /// USB 3.2, 9.4.11.
    pub const SET_ISOCH_DELAY: u8 = 49;
}

/// Descriptor types, table 9-5 (USB 3.2: table 9-6).
pub mod descriptor {
    pub const DEVICE: u8 = 1;
    pub const CONFIGURATION: u8 = 2;
    pub const STRING: u8 = 3;
    pub const INTERFACE: u8 = 4;
    pub const ENDPOINT: u8 = 5;
    pub const DEVICE_QUALIFIER: u8 = 6;
    pub const OTHER_SPEED_CONFIGURATION: u8 = 7;
    pub const BOS: u8 = 15;
    pub const DEVICE_CAPABILITY: u8 = 16;
    /// HID 1.11, 7.1.
    pub const HID: u8 = 0x21;
    pub const HID_REPORT: u8 = 0x22;
    pub const SUPERSPEED_ENDPOINT_COMPANION: u8 = 48;
}

/// Feature selectors, table 9-6 (USB 3.2: table 9-7).
pub mod feature {
    pub const ENDPOINT_HALT: u16 = 0;
    /// Recipient interface, USB 3.2.
    pub const FUNCTION_SUSPEND: u16 = 0;
    pub const DEVICE_REMOTE_WAKEUP: u16 = 1;
    pub const U1_ENABLE: u16 = 48;
    pub const LTM_ENABLE: u16 = 50;
}

/// Endpoint attributes: transfer types, table 9-13.
pub mod transfer {
    pub const ISOCHRONOUS: u8 = 1;
    pub const BULK: u8 = 2;
    pub const INTERRUPT: u8 = 3;
}

/// Configuration attributes, table 9-10.
pub mod attributes {
    pub const ONE: u8 = 0x80;
    pub const SELF_POWERED: u8 = 0x40;
    pub const REMOTE_WAKEUP: u8 = 0x20;
}
