//! What consoles may do with the machine itself.

use std::path::Path;

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

    /// Takes the disc out of the first CD-ROM drive that has one: the drive's name.
    ///
    /// # Errors
    /// None has one, or the guest holds it in its place; in words for the user.
    fn eject(&self) -> Result<String, String>;

    /// Puts a disc into the first CD-ROM drive that is empty, or else in the place of the first one's: the drive's name.
    ///
    /// # Errors
    /// There is no drive, its disc is held by the guest, or the image does not open; in words for the user.
    fn insert(&self, image: &Path) -> Result<String, String>;
}
