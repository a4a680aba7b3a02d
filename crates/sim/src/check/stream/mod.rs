//! Are the answers about each stream those of *one* stream, to which one append happened after the other?
//!
//! The strongest claim about appends and reads of a stream: expected versions were compared and events appended at one
//! instant each, refusals were justified, repeats by event id had no second effect and got the first answer, and no read
//! was stale. Streams share nothing here, so each is judged by itself; an append to several counts as one to each,
//! which can miss that they did not happen at the same instant.
//!
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_sim::check::{
//!     self, Report,
//!     api::{Append, Call, Expected, Recorder, Reply, SentEvent},
//! };
//!
//! let recorder = Recorder::new();
//! let (one, two, at) = (recorder.client(), recorder.client(), Mono::from_nanos);
//! let append = |id| Call::Append(Append::to("order-17", Expected::Exact(0), vec![SentEvent::new(id, 0)]));
//! let (a, b) = (recorder.invoke(one, append("placed"), at(1)), recorder.invoke(two, append("paid"), at(2)));
//! recorder.ok(a, Reply::appended(1), at(5));
//! recorder.ok(b, Reply::appended(1), at(6)); // both were told that they wrote version 1
//!
//! let mut report = Report::new();
//! report.add(check::stream::expected_versions(&recorder.history()));
//! assert_eq!(
//!     report.to_string(),
//!     "VIOLATED   every stream is linearizable, expected versions and repeats included\n           \
//!      - order-17: version 1 is event placed to op 0 and event paid to op 1\n"
//! );
//! ```

mod model;
mod project;

pub use self::{
    model::{Event, Facts, Op, Ret, State, Stream},
    project::streams,
};
use super::{
    api::History,
    linearizability::{self, Budget},
    verdict::Verdict,
};

/// Judges every stream of `history` with the default budget.
pub fn expected_versions(history: &History) -> Verdict {
    expected_versions_within(history, Budget::default())
}

/// Judges every stream of `history`.
pub fn expected_versions_within(history: &History, budget: Budget) -> Verdict {
    linearizability::check_all(
        "every stream is linearizable, expected versions and repeats included",
        streams(history),
        budget,
    )
}

#[cfg(test)]
mod tests;
