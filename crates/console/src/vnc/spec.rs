//! Numbers of the Remote Framebuffer Protocol: RFC 6143, and the community's "The RFB Protocol" (rfbproto) for extensions.

// Security types, RFC 6143 section 7.1.2.
pub(super) const SECURITY_NONE: u8 = 1;
pub(super) const SECURITY_VNC: u8 = 2;

// Client to server messages, section 7.5, and extensions.
pub(super) const SET_PIXEL_FORMAT: u8 = 0;
pub(super) const SET_ENCODINGS: u8 = 2;
pub(super) const FRAMEBUFFER_UPDATE_REQUEST: u8 = 3;
pub(super) const KEY_EVENT: u8 = 4;
pub(super) const POINTER_EVENT: u8 = 5;
pub(super) const CLIENT_CUT_TEXT: u8 = 6;
pub(super) const SET_DESKTOP_SIZE: u8 = 251;
pub(super) const QEMU: u8 = 255;
pub(super) const QEMU_EXTENDED_KEY_EVENT: u8 = 0;

// Server to client messages, section 7.6.
pub(super) const FRAMEBUFFER_UPDATE: u8 = 0;

// Encodings, section 7.7, and pseudo-encodings.
pub(super) const RAW: i32 = 0;
pub(super) const ZLIB: i32 = 6;
pub(super) const ZRLE: i32 = 16;
pub(super) const DESKTOP_SIZE: i32 = -223;
/// RFC 6143, section 7.8.1.
pub(super) const CURSOR: i32 = -239;
pub(super) const CURSOR_WITH_ALPHA: i32 = -314;
pub(super) const POINTER_MOTION_CHANGE: i32 = -257;
pub(super) const EXTENDED_KEY_EVENT: i32 = -258;
pub(super) const EXTENDED_DESKTOP_SIZE: i32 = -308;

/// ExtendedDesktopSize: why the size is told (x position), and whether a change was done (y position).
pub(super) const REASON_SERVER: u16 = 0;
pub(super) const REASON_THIS_CLIENT: u16 = 1;
pub(super) const RESIZE_OK: u16 = 0;
pub(super) const RESIZE_PROHIBITED: u16 = 1;
/// The guest has been asked; it answers by a size of its own, or not.
pub(super) const RESIZE_FORWARDED: u16 = 4;
