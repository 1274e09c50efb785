//! Numbers of SPC-4, SBC-3 and MMC-6.

/// Operation codes.
pub mod operation {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1e;
    pub const READ_FORMAT_CAPACITIES: u8 = 0x23;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const VERIFY_10: u8 = 0x2f;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const READ_TOC_PMA_ATIP: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS_NOTIFICATION: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const READ_TRACK_INFORMATION: u8 = 0x52;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8a;
    pub const VERIFY_16: u8 = 0x8f;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const READ_DVD_STRUCTURE: u8 = 0xad;
    pub const VERIFY_12: u8 = 0xaf;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    pub const READ_CD: u8 = 0xbe;
}

/// Service actions of SERVICE ACTION IN (16).
pub const READ_CAPACITY_16: u8 = 0x10;

/// Mode pages.
pub mod page {
    pub const ERROR_RECOVERY: u8 = 0x01;
    pub const CACHING: u8 = 0x08;
    /// MMC-3, 6.3.11: CD/DVD capabilities and mechanical status.
    pub const CAPABILITIES: u8 = 0x2a;
    pub const ALL: u8 = 0x3f;
}

use serde::{Deserialize, Serialize};

/// What went wrong: sense key, additional sense code and its qualifier (SPC-4, 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense {
    pub key: u8,
    pub asc: u8,
    pub ascq: u8,
}

/// The sense codes in use.
pub mod sense {
    use super::Sense;

    const fn sense(key: u8, asc: u8, ascq: u8) -> Sense {
        Sense { key, asc, ascq }
    }

    pub const NONE: Sense = sense(0, 0, 0);
    pub const MEDIUM_NOT_PRESENT: Sense = sense(2, 0x3a, 0);
    pub const MEDIUM_NOT_PRESENT_TRAY_OPEN: Sense = sense(2, 0x3a, 2);
    pub const UNRECOVERED_READ_ERROR: Sense = sense(3, 0x11, 0);
    pub const WRITE_ERROR: Sense = sense(3, 0x0c, 0);
    pub const INTERNAL_TARGET_FAILURE: Sense = sense(4, 0x44, 0);
    pub const PARAMETER_LIST_LENGTH_ERROR: Sense = sense(5, 0x1a, 0);
    pub const INVALID_OPERATION_CODE: Sense = sense(5, 0x20, 0);
    pub const LBA_OUT_OF_RANGE: Sense = sense(5, 0x21, 0);
    pub const INVALID_FIELD_IN_CDB: Sense = sense(5, 0x24, 0);
    pub const LOGICAL_UNIT_NOT_SUPPORTED: Sense = sense(5, 0x25, 0);
    pub const INVALID_FIELD_IN_PARAMETERS: Sense = sense(5, 0x26, 0);
    pub const SAVING_NOT_SUPPORTED: Sense = sense(5, 0x39, 0);
    pub const MEDIUM_REMOVAL_PREVENTED: Sense = sense(5, 0x53, 2);
    pub const ILLEGAL_MODE_FOR_THIS_TRACK: Sense = sense(5, 0x64, 0);
    pub const MEDIUM_MAY_HAVE_CHANGED: Sense = sense(6, 0x28, 0);
    pub const POWER_ON: Sense = sense(6, 0x29, 0);
    pub const WRITE_PROTECTED: Sense = sense(7, 0x27, 0);
    pub const SPACE_ALLOCATION_FAILED: Sense = sense(7, 0x27, 7);
}
