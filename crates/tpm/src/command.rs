//! Headers of commands and responses (TPM 2.0 Library, part 1, 18).

/// Tag, size, and command or response code.
pub(crate) const HEADER: usize = 10;

/// The largest command or response that any interface here carries.
pub(crate) const LARGEST: usize = 4096;

/// TPM_RC_FAILURE and TPM_RC_COMMAND_SIZE (part 2, 6.6).
pub(crate) const RC_FAILURE: u32 = 0x101;
pub(crate) const RC_COMMAND_SIZE: u32 = 0x142;

/// The size that a header tells, in bytes.
pub(crate) fn size(header: &[u8]) -> Option<usize> {
    let field = header.get(2..6)?;
    Some(u32::from_be_bytes(field.try_into().ok()?) as usize)
}

/// A response of an error and nothing else: TPM_ST_NO_SESSIONS, size, code.
pub(crate) fn error(code: u32) -> Vec<u8> {
    let mut response = vec![0x80, 0x01, 0, 0, 0, HEADER as u8];
    response.extend_from_slice(&code.to_be_bytes());
    response
}
