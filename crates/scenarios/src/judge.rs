//! What must hold of a log, whatever went wrong: judged from what clients were told and what the log says in the end.
//!
//! Most of it is for the checkers of [`quorate_sim::check`], which know the promises of the HTTP API and nothing of the
//! store. What is left here are promises that only a scenario can see.

use std::collections::{BTreeMap, BTreeSet};

use quorate_sim::{
    Violation,
    check::{
        Finding, Report,
        api::{Append, Call, History, LoggedEvent, Reply, SentEvent},
        effects,
        history::Outcome,
        log, subscription,
    },
};

use crate::{asked::Asked, forgotten::Forgotten, notes::Note};

/// What checkers say of a run.
pub struct Judgement {
    /// Appends and reads, in the order in which they were asked.
    pub history: History,
    /// Who asked: the names of the history's clients, by their numbers.
    pub clients: Vec<String>,
    /// Every claim, and whether it holds.
    pub claims: Report,
    /// What must not be, of these claims and of others.
    pub found: Vec<Violation>,
}

/// What a world can be held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contract {
    /// Everything that was promised.
    Whole,
    /// Bits flip: what is served is what was sent, in its place and whole, or it is refused. It may be lost.
    Rotten,
    /// Syncs lie, so that pages of different ages can lie beside each other, each of them intact: what is served is what was
    /// sent, and there is no hole in the log. What indexes say of a stream may be older than the log.
    Lying,
}

impl Judgement {
    /// Judges `notes` by `contract`.
    pub(crate) fn by(contract: Contract, notes: &[Note]) -> Self {
        match contract {
            Contract::Whole => Self::of(notes),
            Contract::Rotten | Contract::Lying => Self::of_served(contract, notes),
        }
    }

    /// Judges no more than what was served.
    fn of_served(contract: Contract, notes: &[Note]) -> Self {
        let Asked { history, clients, log, .. } = Asked::of(notes);
        let (mut claims, mut found) = (Report::new(), Vec::new());
        if let Some(log) = log {
            claims.add(effects::nothing_uncalled(&history, &log));
            if contract == Contract::Rotten {
                claims.add(log::dense(&log));
                claims.add(log::nothing_doubled(&log));
                claims.add(effects::all_or_nothing(&history, &log));
            }
            found.extend(without_holes(&log));
            found.extend(claims.verdicts().iter().flat_map(broken));
        }
        found.extend(served_as_sent(&history));
        Self { history, clients, claims, found }
    }

    /// Judges `notes`, of which the last reading of the log is final.
    fn of(notes: &[Note]) -> Self {
        let Asked { history, clients, log, subscriptions } = Asked::of(notes);
        let Some(log) = log else {
            let found = vec![Violation::new("final reading", "nobody read the log in the end")];
            return Self { history, clients, claims: Report::new(), found };
        };
        let mut claims = Report::of_log(&history, &log);
        if !subscriptions.is_empty() {
            claims.add(subscription::exactly_once(&subscriptions, &log));
        }
        let mut found: Vec<Violation> = claims.verdicts().iter().flat_map(broken).collect();
        found.extend(order_of_commits(&history, &log));
        found.extend(Forgotten::of(notes).judge(notes));
        found.extend(refused_for_a_reason(&history));
        Self { history, clients, claims, found }
    }

    /// Claims that could not be decided within the budget, and why.
    pub(crate) fn undecided(&self) -> impl Iterator<Item = (&str, &str)> {
        self.claims.verdicts().iter().filter_map(|verdict| match &verdict.finding {
            Finding::Undecided { why } => Some((verdict.claim.as_str(), why.as_str())),
            _ => None,
        })
    }
}

/// What is broken of a claim.
pub(crate) fn broken(verdict: &quorate_sim::check::Verdict) -> impl Iterator<Item = Violation> {
    verdict.violations().iter().map(|violation| Violation::new(verdict.claim.as_str(), violation.sentence.as_str()))
}

/// An append that was acknowledged before another one was asked for the first time stands before it, in whatever streams.
fn order_of_commits(history: &History, log: &[LoggedEvent]) -> Option<Violation> {
    let positions: BTreeMap<(&str, &str), u64> =
        log.iter().map(|event| ((event.stream.as_str(), event.event.id.as_str()), event.position)).collect();
    // By position: when it was first asked for, and when it was first acknowledged.
    let mut writes: BTreeMap<u64, (u64, Option<u64>)> = BTreeMap::new();
    for operation in history.operations() {
        let Call::Append(append) = &operation.op else { continue };
        let first = append.events().next().map(|(stream, event)| (stream, event.id.as_str()));
        let Some(position) = first.and_then(|first| positions.get(&first)) else { continue };
        let invoked = operation.invoked.order;
        let write = writes.entry(*position).or_insert((invoked, None));
        write.0 = write.0.min(invoked);
        if let Some((Reply::Appended { .. }, at)) = operation.outcome.answer() {
            write.1 = Some(write.1.map_or(at.order, |known| known.min(at.order)));
        }
    }
    // Going back from the end: nobody before may have been asked for after somebody behind was acknowledged.
    let mut earliest: Option<(u64, u64)> = None;
    for (position, (invoked, acknowledged)) in writes.into_iter().rev() {
        if let Some((behind, _)) = earliest.filter(|(_, at)| *at < invoked) {
            let what = format!(
                "the append at position {position} was asked for after the one at {behind} had been acknowledged"
            );
            return Some(Violation::new("order of commits", what));
        }
        if let Some(at) = acknowledged.filter(|at| earliest.is_none_or(|(_, known)| *at < known)) {
            earliest = Some((position, at));
        }
    }
    None
}

/// Positions count from 1.
fn without_holes(log: &[LoggedEvent]) -> Option<Violation> {
    let (n, event) = (1..).zip(log).find(|(n, event)| event.position != *n)?;
    Some(Violation::new("no hole in the log", format!("event {n} of the log is {event}")))
}

/// Whatever anybody was served says what somebody sent.
fn served_as_sent(history: &History) -> Option<Violation> {
    let appends = history.operations().iter().filter_map(|operation| match &operation.op {
        Call::Append(append) => Some(append),
        Call::Read(_) => None,
    });
    let sent: BTreeSet<(&str, &SentEvent)> = appends.flat_map(Append::events).collect();
    history.operations().iter().find_map(|operation| {
        let Some((Reply::Events { events, .. }, _)) = operation.outcome.answer() else { return None };
        let other = events.iter().find(|event| !sent.contains(&(event.stream.as_str(), &event.event)))?;
        Some(Violation::new("served as sent", format!("{} was served {other}, which nobody sent so", operation.id)))
    })
}

/// Clients here ask for nothing that could be refused for any reason that checkers do not know.
fn refused_for_a_reason(history: &History) -> Option<Violation> {
    history.operations().iter().find_map(|operation| match &operation.outcome {
        Outcome::Failed { reason, .. } => {
            Some(Violation::new("refused for a reason", format!("{} was refused: {reason}", operation.id)))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use quorate_sim::check::api::{Append, Expected, Read, SentEvent};

    use super::*;
    use crate::notes::{Action, Refusal, Seen, Told};

    fn note(invoked: u64, completed: u64, what: Action) -> Note {
        Note { client: "client".into(), invoked, completed, what }
    }

    fn append(stream: &str, id: &str, version: u64) -> Action {
        let append = Append::to(stream, Expected::Any, vec![SentEvent::new(id, 1)]);
        Action::Append { append, told: Told::Done { version } }
    }

    fn seen(position: u64, stream: &str, version: u64, id: &str) -> Seen {
        Seen {
            position,
            stream: stream.into(),
            version,
            id: id.into(),
            kind: String::new(),
            tags: vec![],
            content: Some(1),
        }
    }

    fn read(events: Vec<Seen>) -> Action {
        Action::Read { read: Read::log(0, u64::MAX), events }
    }

    fn rules(notes: &[Note]) -> Vec<String> {
        Judgement::of(notes).found.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn a_log_as_it_was_told_is_right() {
        let events = vec![seen(1, "a", 1, "x"), seen(2, "b", 1, "y")];
        let notes = [note(1, 2, append("a", "x", 1)), note(3, 4, append("b", "y", 1)), note(5, 6, read(events))];
        assert_eq!(rules(&notes), [""; 0]);
    }

    #[test]
    fn what_nobody_read_in_the_end_is_not_right_for_want_of_a_reading() {
        assert_eq!(rules(&[note(1, 2, append("a", "x", 1))]), ["final reading"]);
    }

    #[test]
    fn appends_to_two_streams_stand_in_the_order_in_which_they_were_acknowledged() {
        let events = vec![seen(1, "b", 1, "y"), seen(2, "a", 1, "x")];
        let notes = [note(1, 2, append("a", "x", 1)), note(3, 4, append("b", "y", 1)), note(5, 6, read(events))];
        assert_eq!(rules(&notes), ["order of commits"]);
    }

    #[test]
    fn what_was_forgotten_is_not_served_again() {
        let truncate = Action::Truncate { stream: "a".into(), before: 2, told: Told::Done { version: 2 } };
        let events = vec![seen(1, "a", 1, "x"), seen(2, "a", 2, "y")];
        let appends = [note(1, 2, append("a", "x", 1)), note(3, 4, append("a", "y", 2))];
        let rest = [note(5, 6, truncate), note(7, 8, read(events))];
        assert_eq!(rules(&[appends, rest].concat()), ["forgotten for good"]);
    }

    #[test]
    fn out_of_contract_events_may_be_lost_but_not_changed() {
        let rules = |events: Vec<Seen>| {
            let notes = [note(1, 2, append("a", "x", 1)), note(3, 4, append("a", "y", 2)), note(5, 6, read(events))];
            let by = |contract| Judgement::by(contract, &notes).found.into_iter().map(|found| found.rule);
            (by(Contract::Rotten).collect::<Vec<_>>(), by(Contract::Lying).collect::<Vec<_>>())
        };
        let nothing = Vec::<String>::new();
        assert_eq!(rules(vec![seen(1, "a", 1, "x")]), (nothing.clone(), nothing.clone()));
        let changed = vec!["served as sent".to_owned()];
        assert_eq!(rules(vec![Seen { content: Some(2), ..seen(1, "a", 1, "x") }]), (changed.clone(), changed));
        let (rotten, lying) = rules(vec![seen(2, "a", 2, "y")]);
        assert_eq!(lying, ["no hole in the log"]);
        assert!(rotten.contains(&"positions and versions are dense and in order".to_owned()), "{rotten:?}");
        let (rotten, lying) = rules(vec![seen(1, "a", 1, "x"), seen(2, "a", 1, "y")]);
        assert_eq!((rotten.len(), lying), (1, nothing));
    }

    #[test]
    fn a_refusal_that_nobody_expects_is_told() {
        let refused = Told::Refused(Refusal::Other { problem: "400 invalid-event".into() });
        let asked = Append::to("a", Expected::Any, vec![SentEvent::new("x", 1)]);
        let notes = [note(1, 2, Action::Append { append: asked, told: refused }), note(3, 4, read(vec![]))];
        assert_eq!(rules(&notes), ["refused for a reason"]);
    }
}
