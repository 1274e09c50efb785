//! What a processor's thread is asked between its runs.

use std::sync::atomic::{AtomicBool, Ordering};

use engine::Vcpu;
use parking_lot::Mutex;

/// Asked on the processor's thread, with the processor outside of a run.
pub type Question = Box<dyn FnOnce(&mut dyn Vcpu) + Send>;

/// The questions of one processor that wait.
#[derive(Default)]
pub struct Questions {
    any: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    questions: Vec<Question>,
    /// The processor's thread has ended: nobody answers any more.
    closed: bool,
}

impl Questions {
    /// Puts a question; one that nobody will answer is dropped.
    pub fn put(&self, question: Question) {
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            waiting.questions.push(question);
            self.any.store(true, Ordering::SeqCst);
        }
    }

    /// Whether any waits.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Answers all that wait.
    pub fn answer(&self, vcpu: &mut dyn Vcpu) {
        if !self.any() {
            return;
        }
        let questions = {
            let mut waiting = self.waiting.lock();
            self.any.store(false, Ordering::SeqCst);
            std::mem::take(&mut waiting.questions)
        };
        for question in questions {
            question(vcpu);
        }
    }

    /// Drops what waits, and what comes, once the value is dropped.
    pub fn closes(&self) -> Closes<'_> {
        Closes(self)
    }
}

/// See [`Questions::closes`].
pub struct Closes<'a>(&'a Questions);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.closed = true;
        waiting.questions.clear();
    }
}
