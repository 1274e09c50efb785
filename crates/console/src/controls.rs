//! What consoles may do with the machine itself.

use std::path::Path;

/// A drive whose media can be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovableDrive {
    /// What no other drive is called.
    pub id: String,
    /// What its user calls it.
    pub name: String,
    /// The file of the image that is in it.
    pub medium: Option<String>,
    /// Its tray is open.
    pub open: bool,
    /// The guest holds the medium in its place.
    pub locked: bool,
}

/// The machine behind the screen, for consoles that have buttons for it. Calls come from the consoles' own threads and may
/// wait until the machine has done what it was told.
pub trait Controls: Send + Sync {
    /// The machine's name, for titles.
    fn name(&self) -> String;

    /// What it is doing, by QMP's names of states (`running`, `paused`, …).
    fn state(&self) -> &'static str;

    /// Presses the power button: the guest shuts down if it listens.
    fn power_button(&self);

    /// Back to power-on.
    fn reset(&self);

    /// Stops the processors and the guest's time.
    fn pause(&self);

    /// Lets them go on.
    fn resume(&self);

    /// Ends the machine at once, as pulling the plug.
    fn quit(&self);

    /// The drives whose media can be changed.
    fn removable_drives(&self) -> Vec<RemovableDrive>;

    /// Takes the medium out of the drive of that id, or the disc out of the first CD-ROM drive that has one: the drive's name.
    ///
    /// # Errors
    /// None has one, or the guest holds it in its place; in words for the user.
    fn eject(&self, drive: Option<&str>) -> Result<String, String>;

    /// Puts an image, which is only read, into the drive of that id; or into the first CD-ROM drive that is empty, or else in
    /// the place of the first one's: the drive's name.
    ///
    /// # Errors
    /// There is no drive, its medium is held by the guest, or the image does not open; in words for the user.
    fn insert(&self, drive: Option<&str>, image: &Path) -> Result<String, String>;
}
