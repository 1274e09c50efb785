//! Text typed as keys, beside whatever else a console does.

use crate::Seat;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// For each press and release: firmware polls its keyboard every 20 ms.
const PACE: Duration = Duration::from_millis(20);

/// Texts that wait to be typed.
const WAITING_TEXTS: usize = 4;

/// Types on a thread of its own, so that the reader goes on meanwhile.
pub(crate) struct Typist {
    seat: Arc<Seat>,
    /// What the user is to read.
    tell: Arc<dyn Fn(&str) + Send + Sync>,
    /// Counts stops: a text that was given before one is not typed further.
    stops: Arc<AtomicU64>,
    texts: Option<SyncSender<(u64, String)>>,
}

impl Typist {
    pub(crate) fn new(seat: Arc<Seat>, tell: impl Fn(&str) + Send + Sync + 'static) -> Typist {
        Typist {
            seat,
            tell: Arc::new(tell),
            stops: Arc::default(),
            texts: None,
        }
    }

    pub(crate) fn add(&mut self, text: String) {
        if self.texts.is_none() {
            let (send, receive) = sync_channel(WAITING_TEXTS);
            let (seat, tell) = (self.seat.clone(), self.tell.clone());
            let stops = self.stops.clone();
            let spawned = std::thread::Builder::new()
                .name("typing".into())
                .spawn(move || type_texts(&receive, &seat, &*tell, &stops));
            match spawned {
                Ok(_) => self.texts = Some(send),
                Err(error) => tracing::error!(%error, "no thread to type with"),
            }
        }
        let now = self.stops.load(Ordering::SeqCst);
        if let Some(texts) = &self.texts
            && texts.try_send((now, text)).is_err()
        {
            (self.tell)("Too much to type at once: the last text was left out.");
        }
    }

    pub(crate) fn stop(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        self.stop();
    }
}

fn type_texts(
    texts: &Receiver<(u64, String)>,
    seat: &Seat,
    tell: &dyn Fn(&str),
    stops: &AtomicU64,
) {
    while let Ok((given, text)) = texts.recv() {
        let mut untypable = String::new();
        for c in text.chars() {
            if stops.load(Ordering::SeqCst) != given {
                break;
            }
            if seat.type_text(c.encode_utf8(&mut [0; 4]), PACE).is_err()
                && !untypable.contains(c)
                && untypable.len() < 40
            {
                untypable.push(c);
            }
        }
        if !untypable.is_empty() {
            let note = format!("Not on a US keyboard, and left out: {untypable}");
            tell(&note);
        }
    }
}
