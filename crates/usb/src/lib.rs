//! USB: what a device is, the xHCI host controller, HID, mass storage and network devices.
//!
//! - [`device`] is the seam between controllers and devices; [`standard`] answers the requests all devices share.
//! - [`hid`] has keyboard, tablet and mouse; [`storage`] disks and CD-ROM drives by bulk-only transport;
//!   [`ncm`] a network card.
//! - [`xhci`] is the controller, a PCI function.

pub mod device;
pub mod hid;
pub mod ncm;
mod spec;
pub mod standard;
pub mod storage;
pub mod xhci;
