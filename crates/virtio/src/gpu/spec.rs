//! Numbers and layouts of the GPU device (VIRTIO 5.7).

/// Feature bits (VIRTIO 5.7.3).
pub mod feature {
    pub const EDID: u64 = 1 << 1;
    pub const RESOURCE_BLOB: u64 = 1 << 3;
}

/// The device-specific configuration (VIRTIO 5.7.4).
pub mod config {
    pub const EVENTS_READ: u64 = 0;
    pub const EVENTS_CLEAR: u64 = 4;
    pub const NUM_SCANOUTS: u64 = 8;
    /// Bytes; `num_capsets` at 12 is 0 without VIRGL.
    pub const SIZE: u64 = 16;
    /// `VIRTIO_GPU_EVENT_DISPLAY`: outputs have changed.
    pub const EVENT_DISPLAY: u32 = 1;
}

/// Queues (VIRTIO 5.7.2).
pub const CONTROL_QUEUE: usize = 0;
pub const CURSOR_QUEUE: usize = 1;

/// Outputs at most (VIRTIO 5.7.6.8, `VIRTIO_GPU_MAX_SCANOUTS`).
pub const MAX_SCANOUTS: usize = 16;

/// Bytes of `virtio_gpu_ctrl_hdr`.
pub const HEADER: usize = 24;
/// Header flags (VIRTIO 5.7.6.7).
pub const FLAG_FENCE: u32 = 1;
pub const FLAG_INFO_RING_IDX: u32 = 2;

/// Commands (VIRTIO 5.7.6.7).
pub mod command {
    pub const GET_DISPLAY_INFO: u32 = 0x0100;
    pub const RESOURCE_CREATE_2D: u32 = 0x0101;
    pub const RESOURCE_UNREF: u32 = 0x0102;
    pub const SET_SCANOUT: u32 = 0x0103;
    pub const RESOURCE_FLUSH: u32 = 0x0104;
    pub const TRANSFER_TO_HOST_2D: u32 = 0x0105;
    pub const RESOURCE_ATTACH_BACKING: u32 = 0x0106;
    pub const RESOURCE_DETACH_BACKING: u32 = 0x0107;
    pub const GET_EDID: u32 = 0x010a;
    pub const RESOURCE_CREATE_BLOB: u32 = 0x010c;
    pub const SET_SCANOUT_BLOB: u32 = 0x010d;
    pub const UPDATE_CURSOR: u32 = 0x0300;
    pub const MOVE_CURSOR: u32 = 0x0301;
}

/// Successes (VIRTIO 5.7.6.7).
pub mod ok {
    pub const NODATA: u32 = 0x1100;
    pub const DISPLAY_INFO: u32 = 0x1101;
    pub const EDID: u32 = 0x1104;
}

/// Errors (VIRTIO 5.7.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    Unspecified = 0x1200,
    OutOfMemory = 0x1201,
    InvalidScanoutId = 0x1202,
    InvalidResourceId = 0x1203,
    InvalidParameter = 0x1205,
}

/// `blob_mem` (VIRTIO 5.7.6.8): the only one without VIRGL.
pub const BLOB_MEM_GUEST: u32 = 1;
/// All `blob_flags` that the specification names.
pub const BLOB_FLAGS: u32 = 7;

/// Bytes of the `edid` array in its response.
pub const EDID_SIZE: usize = 1024;
