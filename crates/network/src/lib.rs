//! The network: what is between a guest's NIC and the host.
//!
//! - [`Link`] is the wire: a [`Nic`] on one end, a [`Backend`] on the other, filters in between. Frames carry what their
//!   sender left undone ([`Offload`]); the wire does it where the receiver cannot.
//! - [`user`]: a whole network made of ordinary sockets of this host; nothing on the host is configured.
//! - `tap`, `vmnet`: interfaces of the host.
//! - [`stream`]: another machine, over a socket.
//!
//! Nobody waits: who has no room refuses the frame, and says when there is room again.

mod checksum;
pub mod fake;
mod frame;
mod link;
mod offload;
pub mod pcap;
pub mod stream;
#[cfg(target_os = "linux")]
pub mod tap;
pub mod user;
pub mod vmnet;
mod waiter;

pub use frame::{Accepts, Checksum, Frame, Gso, GsoKind, MAX_FRAME, Offload};
pub use link::{Backend, BackendInfo, Filter, Link, Nic};

/// A back end that cannot be had, in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Invalid(String),
    #[error("{what}: {}", reason(.error))]
    Io { what: String, error: std::io::Error },
}

impl OpenError {
    /// What becomes of an I/O error.
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> OpenError {
        let what = what.into();
        |error| OpenError::Io { what, error }
    }
}

/// An I/O error without its number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_string(),
        None => text,
    }
}
