//! What a transaction is to do.

use quorate_data::{
    event::NewEvent,
    store::{ExpectedVersion, StreamAppend},
};
use quorate_foundations::name::Name;

use crate::two_phase_commit::{Answer, Ledger, TxnError, Work};

/// A transaction that is to be.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub(super) branches: Vec<(Name, Work)>,
    pub(super) events: Vec<StreamAppend>,
    pub(super) answer: Option<Answer>,
}

impl Transaction {
    /// The most participants of one.
    pub const MAX_PARTICIPANTS: usize = 32;

    /// One that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with `work` for `participant`; each has at most one.
    #[must_use]
    pub fn with(mut self, participant: Name, work: Work) -> Self {
        self.branches.push((participant, work));
        self
    }

    /// The same, with events for a stream of the coordinator's log: they are appended by the decision itself. If the
    /// expectation does not hold then, the transaction is aborted.
    #[must_use]
    pub fn append(mut self, stream: Name, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        self.events.push(StreamAppend { stream, expected, events });
        self
    }

    /// The same, answered so, whatever the coordinator's configuration says.
    #[must_use]
    pub fn answered(mut self, answer: Answer) -> Self {
        self.answer = Some(answer);
        self
    }

    pub(super) fn check(&self) -> Result<(), TxnError> {
        let invalid = |what: String| Err(TxnError::Invalid { what });
        if self.branches.is_empty() {
            return invalid("a transaction has at least one participant; events alone are appended".to_owned());
        }
        if self.branches.len() > Self::MAX_PARTICIPANTS {
            let (max, found) = (Self::MAX_PARTICIPANTS, self.branches.len());
            return invalid(format!("a transaction has at most {max} participants, this one has {found}"));
        }
        for (n, (name, _)) in self.branches.iter().enumerate() {
            if self.branches[..n].iter().any(|(known, _)| known == name) {
                return invalid(format!("participant `{name}` takes part twice: put its work together"));
            }
        }
        for part in &self.events {
            if part.events.is_empty() {
                return invalid(format!("there is no event for stream `{}`", part.stream));
            }
            // Whoever could write these could say what was decided.
            let is_own = part.events.iter().any(|event| Ledger::is_own_type(&event.kind));
            if Ledger::is_own_stream(part.stream.as_str()) || is_own {
                return invalid(format!("stream `{}`, or an event for it, is the coordinator's own", part.stream));
            }
        }
        Ok(())
    }
}
