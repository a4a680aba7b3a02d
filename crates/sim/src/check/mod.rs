//! Judges histories recorded by simulated clients: was anything acknowledged lost, doubled, or out of order?
//!
//! # Intuition
//! A test that asserts one outcome can't say much about a world with crashes in it: many outcomes are right. A checker
//! asks the other way round. Clients write down what they asked and were told ([`history`]), the log is read once
//! everything has calmed down, and then each promise of the product is held against both. A checker knows nothing of how
//! the product works, so it finds what nobody thought of.
//!
//! | claim | checker |
//! |---|---|
//! | nothing acknowledged is lost, nothing refused is there, appends are whole | [`effects`] |
//! | positions and versions are dense, nothing is there twice, all readers saw one log | [`log`] |
//! | each stream is linearizable, expected versions and repeats included | [`stream`] |
//! | registers are linearizable | [`register`] |
//! | expected versions, conditions | [`effects::expected_versions`], [`effects::conditions`] |
//! | tokens, idempotency keys | [`token`], [`idempotency`] |
//! | subscriptions and imports: each event once, in order | [`subscription`], [`import`] |
//! | clocks only grow, leases have one holder | [`hlc`], [`lease`] |
//!
//! Each answers with a [`Verdict`]; a [`Report`] gathers them; a [`timeline`] shows a history with what is wrong marked in
//! it. All of it is pure and deterministic: the same history gets the same verdict everywhere. Unknown outcomes are
//! first-class: what may have happened is neither demanded nor forbidden.
//!
//! # What it can't see
//! A checker judges the history it is given. One that holds after looking at nothing says so ([`Finding::Holds`] counts what
//! was examined); whether a world reached the states that matter is for the scenario to count.
//!
//! # Example
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_sim::check::{
//!     self, Report,
//!     api::{Append, Call, Expected, Recorder, Reply, SentEvent},
//! };
//!
//! let recorder = Recorder::new();
//! let client = recorder.client();
//! let append = Append::to("order-17", Expected::NoStream, vec![SentEvent::new("placed", 3)]);
//! let op = recorder.invoke(client, Call::Append(append), Mono::from_nanos(5));
//! recorder.ok(op, Reply::appended(1), Mono::from_nanos(9));
//!
//! let (history, log) = (recorder.history(), vec![]); // after a crash, the log is empty
//! let report = Report::of_log(&history, &log);
//! assert!(!report.holds());
//! assert_eq!(
//!     report.violations().next().map(|violation| violation.sentence.as_str()),
//!     Some("event placed, which op 0 was told is in order-17 up to version 1, is not in the log")
//! );
//! # assert!(check::stream::expected_versions(&history).holds());
//! ```

pub mod api;
pub mod effects;
pub mod history;
pub mod hlc;
pub mod idempotency;
pub mod import;
pub mod lease;
pub mod linearizability;
pub mod log;
pub mod register;
pub mod stream;
pub mod subscription;
pub mod timeline;
pub mod token;
mod verdict;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use self::verdict::{Finding, Kind, Report, VIOLATIONS_TOLD, Verdict, Violation};

impl Report {
    /// Every verdict on appends and reads: what the clients were told against each other and against the log.
    ///
    /// `log`: everything, read when nothing was under way any more.
    pub fn of_log(history: &api::History, log: &[api::LoggedEvent]) -> Self {
        let mut report = Self::new();
        // The log by itself first: of an event that is there twice, nothing else that is said tells much.
        report.add(log::nothing_doubled(log));
        report.add(log::dense(log));
        report.add(effects::nothing_lost(history, log));
        report.add(effects::nothing_uncalled(history, log));
        report.add(effects::all_or_nothing(history, log));
        report.add(log::views_agree(history, log));
        report.add(log::no_read_is_stale(history, log));
        report.add(effects::expected_versions(history, log));
        report.add(effects::conditions(history, log));
        report.add(token::honoured(history, log));
        report.add(idempotency::honoured(history, log));
        report.add(stream::expected_versions(history));
        report
    }
}
