//! Numbers of Communications Class Subclass Specifications for Ethernet (ECM 1.2) and Network Control Model (NCM 1.0), and
//! of Microsoft's OS descriptors 1.0 and 2.0.

/// Class requests (ECM 1.2, table 6; NCM 1.0, table 6-2).
pub mod request {
    pub const SET_ETHERNET_MULTICAST_FILTERS: u8 = 0x40;
    pub const SET_ETHERNET_PACKET_FILTER: u8 = 0x43;
    pub const GET_NTB_PARAMETERS: u8 = 0x80;
    pub const GET_NTB_FORMAT: u8 = 0x83;
    pub const SET_NTB_FORMAT: u8 = 0x84;
    pub const GET_NTB_INPUT_SIZE: u8 = 0x85;
    pub const SET_NTB_INPUT_SIZE: u8 = 0x86;
}

/// Packet filter bits (ECM 1.2, table 8).
pub mod filter {
    pub const PROMISCUOUS: u16 = 1;
    pub const ALL_MULTICAST: u16 = 2;
    pub const DIRECTED: u16 = 4;
    pub const BROADCAST: u16 = 8;
    pub const MULTICAST: u16 = 16;
}

/// Notifications (CDC 1.2, 6.3; ECM 1.2, 6.3).
pub mod notification {
    pub const NETWORK_CONNECTION: u8 = 0x00;
    pub const CONNECTION_SPEED_CHANGE: u8 = 0x2a;
}

/// Bytes of the largest transfer block either way; all formats can say so.
pub const NTB_MAX: u32 = 32768;
/// The least that a host may ask for (NCM 1.0, 6.2.7).
pub const NTB_MIN: u32 = 2048;
/// Bytes of the largest frame, without its checksum.
pub const SEGMENT: u16 = 1514;
/// Alignment of datagrams and tables.
pub const ALIGN: usize = 4;

/// The vendor code by which Windows asks for OS descriptors.
pub const MS_VENDOR: u8 = 0x20;
/// The string that says so.
pub const MS_STRING: u8 = 0xee;
/// wIndex of the extended compat ID descriptor.
pub const MS_COMPAT_ID: u16 = 4;

/// Microsoft OS 2.0 Descriptors Specification: the capability that says so, D8DD60DF-4589-4CC7-9CD2-659D9E648A9F as its
/// bytes go (table 4).
pub const MS_OS_20_UUID: [u8; 16] = [
    0xdf, 0x60, 0xdd, 0xd8, 0x89, 0x45, 0xc7, 0x4c, 0x9c, 0xd2, 0x65, 0x9d, 0x9e, 0x64, 0x8a, 0x9f,
];
/// wIndex of the descriptor set (table 8).
pub const MS_OS_20_DESCRIPTOR_INDEX: u16 = 7;
/// The least version that reads it, Windows 8.1.
pub const MS_OS_20_WINDOWS: u32 = 0x0603_0000;
/// wDescriptorType (table 9).
pub mod ms_os_20 {
    pub const SET_HEADER: u16 = 0;
    pub const SUBSET_HEADER_CONFIGURATION: u16 = 1;
    pub const SUBSET_HEADER_FUNCTION: u16 = 2;
    pub const FEATURE_COMPATIBLE_ID: u16 = 3;
}
