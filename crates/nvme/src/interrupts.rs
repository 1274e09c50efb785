//! Interrupts out of completion queues (NVMe 7.5).

use crate::controller::Inner;
use crate::state::State;

impl Inner {
    /// Sends the message of a completion queue if something was posted since the last.
    pub(crate) fn signal(&self, state: &mut State, cq: u16) {
        let Some(cq) = state.cq(cq) else { return };
        if std::mem::take(&mut cq.unsignalled) > 0
            && let Some(vector) = cq.vector
            && self.endpoint.message_signalled()
        {
            self.endpoint.signal(vector);
        }
    }

    /// Sends all messages that are due.
    pub(crate) fn signal_all(&self) {
        let _epoch = self.epoch.read();
        let mut state = self.state.lock();
        for id in 0..state.cqs.len() as u16 {
            self.signal(&mut state, id);
        }
    }

    /// Derives the level of INTx: high while an entry waits in a queue whose vector is not masked.
    pub(crate) fn update(&self, state: &mut State) {
        let level = state.cqs.iter().flatten().any(|cq| {
            let masked = |v: u16| v < 32 && state.masked & 1 << v != 0;
            cq.used() > 0 && cq.vector.is_some_and(|v| !masked(v))
        });
        self.endpoint.set_intx(level);
    }
}
