//! What consoles may do with the machine itself.

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
}
