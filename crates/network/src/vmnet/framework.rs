//! vmnet.framework as its header (`vmnet/vmnet.h`) has it, as far as the back end uses it.
//!
//! On macOS `apple` answers; tests have a fake.

use std::fmt;
use std::sync::Arc;

use super::Config;
use crate::frame::Frame;

/// `vmnet_return_t` that is not `VMNET_SUCCESS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    pub const FAILURE: Status = Status(1001);
    pub const MEM_FAILURE: Status = Status(1002);
    pub const INVALID_ARGUMENT: Status = Status(1003);
    pub const SETUP_INCOMPLETE: Status = Status(1004);
    pub const INVALID_ACCESS: Status = Status(1005);
    pub const PACKET_TOO_BIG: Status = Status(1006);
    pub const BUFFER_EXHAUSTED: Status = Status(1007);
    pub const TOO_MANY_PACKETS: Status = Status(1008);
    pub const SHARING_SERVICE_BUSY: Status = Status(1009);
    pub const NOT_AUTHORIZED: Status = Status(1010);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, name) = match *self {
            Status::FAILURE => ("it failed and does not say why", "FAILURE"),
            Status::MEM_FAILURE => ("macOS has no memory for it", "MEM_FAILURE"),
            Status::INVALID_ARGUMENT => ("macOS does not take these options", "INVALID_ARGUMENT"),
            Status::SETUP_INCOMPLETE => ("the interface is not set up", "SETUP_INCOMPLETE"),
            Status::INVALID_ACCESS => ("macOS does not permit it", "INVALID_ACCESS"),
            Status::PACKET_TOO_BIG => ("a packet is larger than the MTU", "PACKET_TOO_BIG"),
            Status::BUFFER_EXHAUSTED => ("the kernel has no buffers left", "BUFFER_EXHAUSTED"),
            Status::TOO_MANY_PACKETS => ("too many packets at once", "TOO_MANY_PACKETS"),
            Status::SHARING_SERVICE_BUSY => (
                "Internet Sharing or another program's network is in the way",
                "SHARING_SERVICE_BUSY",
            ),
            Status::NOT_AUTHORIZED => ("macOS has not authorised it", "NOT_AUTHORIZED"),
            Status(code) => return write!(f, "vmnet's code {code}"),
        };
        write!(f, "{words} (VMNET_{name})")
    }
}

/// Why an interface does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The framework's answer.
    Status(Status),
    /// There is none.
    Silent,
    /// Something that this macOS lacks.
    Missing(String),
}

/// Room for a packet (`struct vmpktdesc`), with one in it.
pub struct Packet {
    pub bytes: Box<[u8]>,
    /// Of them the packet.
    pub length: usize,
}

impl Packet {
    pub fn contents(&self) -> &[u8] {
        &self.bytes[..self.length.min(self.bytes.len())]
    }
}

/// Packets of one call to the framework, in buffers that stay.
pub struct Batch {
    packets: Vec<Packet>,
    next: usize,
    end: usize,
}

impl Batch {
    /// The most that a call moves (Apple's reference, "vmnet": 200 packets, 256 KiB); less brings no more.
    const PACKETS: usize = 128;
    const BYTES: usize = 256 << 10;

    /// Room for packets of this size.
    pub fn new(largest: usize) -> Batch {
        let count = (Self::BYTES / largest.max(1)).clamp(1, Self::PACKETS);
        let packet = || Packet {
            bytes: vec![0; largest].into(),
            length: 0,
        };
        Batch {
            packets: std::iter::repeat_with(packet).take(count).collect(),
            next: 0,
            end: 0,
        }
    }

    /// Packets that are there, in order.
    pub fn waiting(&self) -> &[Packet] {
        &self.packets[self.next..self.end]
    }

    pub fn is_full(&self) -> bool {
        self.end == self.packets.len()
    }

    /// Adds a frame that is no larger than the room, to a batch that is not full.
    pub fn push(&mut self, frame: &Frame<'_>) {
        let packet = &mut self.packets[self.end];
        packet.length = frame.peek(&mut packet.bytes);
        self.end += 1;
    }

    /// The first so many that wait are done with.
    pub fn done(&mut self, count: usize) {
        self.next = self.end.min(self.next + count);
        if self.next == self.end {
            (self.next, self.end) = (0, 0);
        }
    }

    /// Fills an empty batch.
    pub fn fill(
        &mut self,
        read: impl FnOnce(&mut [Packet]) -> Result<usize, Status>,
    ) -> Result<(), Status> {
        self.next = 0;
        self.end = 0;
        self.end = read(&mut self.packets)?.min(self.packets.len());
        Ok(())
    }
}

/// An interface that was started.
///
/// Reads are one after another, and so are writes; a read and a write may be at once.
pub trait Interface: Send + Sync {
    /// `vmnet_read`: fills packets from the front, none if there is none: how many.
    fn read(&self, packets: &mut [Packet]) -> Result<usize, Status>;

    /// `vmnet_write`: takes packets from the front: how many.
    fn write(&self, packets: &[Packet]) -> Result<usize, Status>;

    /// `vmnet_stop_interface`. Nothing is called after it, and `arrived` is not any more.
    fn stop(&self);
}

/// What came of a start.
pub struct Started {
    pub interface: Box<dyn Interface>,
    pub parameters: Parameters,
}

/// `interface_param`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Bytes of the largest packet.
    pub max_packet_size: u64,
    pub mtu: u64,
    /// The gateway, the last address that DHCP gives, and the mask.
    pub addresses: Option<[String; 3]>,
}

/// What the program may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The user it acts for (0: root).
    pub user: u32,
    /// Whether it is signed with the entitlement com.apple.vm.networking.
    pub entitled: bool,
}

/// Is called, on a thread of the framework, when packets may be there (`VMNET_INTERFACE_PACKETS_AVAILABLE`). Does not wait.
pub type Arrived = Arc<dyn Fn() + Send + Sync>;

/// vmnet.framework.
pub trait Framework {
    /// `vmnet_copy_shared_interface_list`: what can be bridged; `None` if it does not say.
    fn bridgeable(&self) -> Option<Vec<String>>;

    /// `vmnet_start_interface`, and `vmnet_interface_set_event_callback` with `arrived`.
    fn start(&self, config: &Config, arrived: Arrived) -> Result<Started, Refusal>;

    fn rights(&self) -> Rights;
}
