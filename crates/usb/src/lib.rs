//! USB: what a device is, the xHCI host controller, HID, mass storage, network and audio devices.
//!
//! - [`device`] is the seam between controllers and devices; [`standard`] answers the requests all devices share.
//! - [`hid`] has keyboard, tablet and mouse; [`storage`] disks and CD-ROM drives by bulk-only transport;
//!   [`ncm`] a network card; [`sound`] a loudspeaker.
//! - [`xhci`] is the controller, a PCI function.

pub mod device;
pub mod hid;
pub mod ncm;
pub mod sound;
mod spec;
pub mod standard;
pub mod storage;
pub mod xhci;
