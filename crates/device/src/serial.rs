//! Serial lines, between UARTs and their back ends.

/// The far side of a UART: standard output, a file, a socket, a test's buffer.
pub trait SerialOutput: Send + Sync {
    /// Bytes that the guest sent. Never waits for the host: a back end that falls behind buffers up to a bound and then
    /// drops the oldest.
    fn write(&self, bytes: &[u8]);
}

/// The UART's receiving side, fed by a back end.
pub trait SerialInput: Send + Sync {
    /// Takes as many of `bytes` as fit into the receive FIFO and says how many.
    fn receive(&self, bytes: &[u8]) -> usize;

    /// The line is at a break condition for a moment: no character, but an event that drivers know.
    fn receive_break(&self) {}

    /// Called once there is room again after [`SerialInput::receive`] took less than all.
    fn on_room(&self, callback: Box<dyn Fn() + Send + Sync>);
}
