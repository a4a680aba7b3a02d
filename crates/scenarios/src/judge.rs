//! What must hold of a log, whatever went wrong: judged from what clients were told and what the log says in the end.
//!
//! Most of it is for the checkers of [`quorate_sim::check`], which know the promises of the HTTP API and nothing of the
//! store. What is left here are promises that only a scenario can see.

use std::collections::{BTreeMap, BTreeSet};

use quorate_sim::{
    Violation,
    check::{
        Finding, Report, Verdict,
        api::{Append, Call, History, LoggedEvent, Reply, SentEvent},
        effects,
        history::Outcome,
        log, subscription,
    },
};

use crate::{
    asked::Asked,
    forgotten::Forgotten,
    notes::{Action, Note},
    rule,
};

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
        let mut claims = Report::new();
        if let Some(log) = log {
            claims.add(without_holes(log.iter().map(|event| event.position)));
            claims.add(effects::nothing_uncalled(&history, &log));
            if contract == Contract::Rotten {
                claims.add(log::dense(&log));
                claims.add(log::nothing_doubled(&log));
                claims.add(effects::all_or_nothing(&history, &log));
            }
        }
        claims.add(served_as_sent(&history));
        Self::found_in(history, clients, claims)
    }

    /// Judges `notes`, of which the last reading of the log is final.
    fn of(notes: &[Note]) -> Self {
        let Asked { history, clients, log, subscriptions } = Asked::of(notes);
        let mut claims = Report::new();
        claims.add(rule::verdict(
            "final reading",
            1,
            log.is_none().then(|| "nobody read the log in the end".to_owned()),
        ));
        let Some(log) = log else { return Self::found_in(history, clients, claims) };
        Report::of_log(&history, &log).verdicts().iter().for_each(|verdict| claims.add(verdict.clone()));
        if !subscriptions.is_empty() {
            claims.add(subscription::exactly_once(&subscriptions, &log));
        }
        claims.add(order_of_commits(&history, &log));
        Forgotten::of(notes).judge(notes).into_iter().for_each(|verdict| claims.add(verdict));
        claims.add(tokens_are_taken(notes));
        claims.add(refused_for_a_reason(&history));
        Self::found_in(history, clients, claims)
    }

    /// What `claims` found of `history`.
    fn found_in(history: History, clients: Vec<String>, claims: Report) -> Self {
        let found = claims.verdicts().iter().flat_map(rule::broken).collect();
        Self { history, clients, claims, found }
    }

    /// Judged by nothing but a scenario's own rules.
    pub(crate) fn of_rules(rules: Vec<Verdict>) -> Self {
        let mut judgement = Self::found_in(History::new(), Vec::new(), Report::new());
        judgement.also(rules);
        judgement
    }

    /// Judges by these, too.
    pub(crate) fn also(&mut self, rules: Vec<Verdict>) {
        self.found.extend(rules.iter().flat_map(rule::broken));
        rules.into_iter().for_each(|verdict| self.claims.add(verdict));
    }

    /// Claims that could not be decided within the budget, and why.
    pub(crate) fn undecided(&self) -> impl Iterator<Item = (&str, &str)> {
        self.claims.verdicts().iter().filter_map(|verdict| match &verdict.finding {
            Finding::Undecided { why } => Some((verdict.claim.as_str(), why.as_str())),
            _ => None,
        })
    }
}

/// An append that was acknowledged before another one was asked for the first time stands before it, in whatever streams.
fn order_of_commits(history: &History, log: &[LoggedEvent]) -> Verdict {
    let positions: BTreeMap<(&str, &str), u64> =
        log.iter().map(|event| ((event.stream.as_str(), event.event.id.as_str()), event.position)).collect();
    let mut writes = Writes::new();
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
    let count = writes.len();
    rule::verdict("order of commits", count, first_out_of_order(writes))
}

/// By position: when a write was first asked for, and when it was first acknowledged.
type Writes = BTreeMap<u64, (u64, Option<u64>)>;

fn first_out_of_order(writes: Writes) -> Option<String> {
    // Going back from the end: nobody before may have been asked for after somebody behind was acknowledged.
    let mut earliest: Option<(u64, u64)> = None;
    for (position, (invoked, acknowledged)) in writes.into_iter().rev() {
        if let Some((behind, _)) = earliest.filter(|(_, at)| *at < invoked) {
            return Some(format!(
                "the append at position {position} was asked for after the one at {behind} had been acknowledged"
            ));
        }
        if let Some(at) = acknowledged.filter(|at| earliest.is_none_or(|(_, known)| *at < known)) {
            earliest = Some((position, at));
        }
    }
    None
}

/// Positions count from 1.
pub(crate) fn without_holes(positions: impl ExactSizeIterator<Item = u64>) -> Verdict {
    let (count, mut numbered) = (positions.len(), (1..).zip(positions));
    let hole = numbered.find(|(n, position)| position != n);
    rule::verdict("no hole in the log", count, hole.map(|(n, at)| format!("event {n} of the log is at position {at}")))
}

/// Whatever anybody was served says what somebody sent.
fn served_as_sent(history: &History) -> Verdict {
    let appends = history.operations().iter().filter_map(|operation| match &operation.op {
        Call::Append(append) => Some(append),
        Call::Read(_) => None,
    });
    let sent: BTreeSet<(&str, &SentEvent)> = appends.flat_map(Append::events).collect();
    let (mut served, mut broken) = (0, None);
    for operation in history.operations() {
        let Some((Reply::Events { events, .. }, _)) = operation.outcome.answer() else { continue };
        served += events.len();
        let other = events.iter().find(|event| !sent.contains(&(event.stream.as_str(), &event.event)));
        let what = other.map(|other| format!("{} was served {other}, which nobody sent so", operation.id));
        broken = broken.or(what);
    }
    rule::verdict("served as sent", served, broken)
}

/// A token that the node gave out is one that it takes.
fn tokens_are_taken(notes: &[Note]) -> Verdict {
    let (mut sent, mut refused) = (0, None);
    for note in notes {
        match &note.what {
            Action::Read { read, .. } if read.token.is_some() => sent += 1,
            Action::ReadRefused { read, problem } => {
                let with = if read.token.is_some() { "with a token" } else { "without a token" };
                refused = refused.or_else(|| Some(format!("{} read {with} and was refused: {problem}", note.client)));
            }
            _ => {}
        }
    }
    rule::verdict("a token is taken by who gave it", sent, refused)
}

/// What the node says of every byte of its store in the end, where it was asked.
pub(crate) fn store_is_sound(notes: &[Note]) -> Verdict {
    let asked = notes.iter().filter_map(|note| match &note.what {
        Action::Verified(wrong) => Some(wrong),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    rule::verdict("the store is sound in the end", asked.len(), asked.iter().filter_map(|wrong| (*wrong).clone()))
}

/// Clients here ask for nothing that could be refused for any reason that checkers do not know.
fn refused_for_a_reason(history: &History) -> Verdict {
    let operations = history.operations();
    let refused = operations.iter().find_map(|operation| match &operation.outcome {
        Outcome::Failed { reason, .. } => Some(format!("{} was refused: {reason}", operation.id)),
        _ => None,
    });
    rule::verdict("refused for a reason", operations.len(), refused)
}

#[cfg(test)]
mod tests {
    use quorate_sim::check::api::{Append, Expected, Read, SentEvent};

    use super::*;
    use crate::{
        cast::Cast,
        hand::Pace,
        notes::{Refusal, Seen, Told},
    };

    fn note(invoked: u64, completed: u64, what: Action) -> Note {
        Note { client: "client".into(), invoked, completed, what }
    }

    fn append(stream: &str, id: &str, version: u64) -> Action {
        let append = Append::to(stream, Expected::Any, vec![SentEvent::new(id, 1)]);
        Action::Append { append, told: Told::Done { version, token: None } }
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
        Action::read(Read::log(0, u64::MAX), events)
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
        let truncate = Action::Truncate { stream: "a".into(), before: 2, told: Told::Done { version: 2, token: None } };
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
    fn a_read_with_a_token_sees_what_the_token_stands_for_and_is_not_refused() {
        let told = Told::Done { version: 1, token: Some("t".into()) };
        let appended = Append::to("a", Expected::Any, vec![SentEvent::new("x", 1)]);
        let rules = |read: Action| {
            let last = Action::read(Read::log(0, u64::MAX), vec![seen(1, "a", 1, "x")]);
            let appended = Action::Append { append: appended.clone(), told: told.clone() };
            // It was under way when the append was answered, so that only the token says what it must see.
            rules(&[note(1, 4, appended), note(3, 6, read), note(7, 8, last)])
        };
        let with = || Read::log(0, u64::MAX).with_token("t");
        assert_eq!(rules(Action::read(with(), vec![seen(1, "a", 1, "x")])), [""; 0]);
        assert_eq!(rules(Action::read(Read::log(0, u64::MAX), vec![])), [""; 0]);
        assert_eq!(rules(Action::read(with(), vec![])), ["a read with a token sees what the token stands for"]);
        let refused = Action::ReadRefused { read: with(), problem: "409 other-timeline".into() };
        assert_eq!(rules(refused), ["a token is taken by who gave it"]);
    }

    #[test]
    fn what_a_reader_was_told_binds_who_reads_with_its_token() {
        let (x, y) = (seen(1, "a", 1, "x"), seen(2, "a", 2, "y"));
        let told =
            Action::Read { read: Read::log(0, u64::MAX), events: vec![x.clone(), y.clone()], token: Some("t".into()) };
        let later = Action::read(Read::stream("a", 0, u64::MAX).with_token("t"), vec![x.clone()]);
        let appends = [note(1, 20, append("a", "x", 1)), note(1, 20, append("a", "y", 2))];
        let rest = [note(2, 9, told), note(8, 19, later), note(21, 22, read(vec![x, y]))];
        assert_eq!(rules(&[&appends[..], &rest].concat()), ["a read with a token sees what the token stands for"]);
    }

    #[test]
    fn a_store_that_is_not_sound_in_the_end_is_told_behind_everything_else() {
        let rules = |contract, wrong: Option<&str>| {
            let last = Action::Verified(wrong.map(str::to_owned));
            let notes = [note(1, 2, append("a", "x", 1)), note(3, 4, last)];
            let found = Cast::new().judge(&notes, Pace::SIMULATED, contract).found;
            found.into_iter().map(|violation| violation.rule).collect::<Vec<_>>()
        };
        assert_eq!(rules(Contract::Whole, None), ["final reading"]);
        assert_eq!(rules(Contract::Whole, Some("[]")), ["final reading", "the store is sound in the end"]);
        assert_eq!(rules(Contract::Rotten, Some("[]")), [""; 0]);
    }

    #[test]
    fn a_refusal_that_nobody_expects_is_told() {
        let refused = Told::Refused(Refusal::Other { problem: "400 invalid-event".into() });
        let asked = Append::to("a", Expected::Any, vec![SentEvent::new("x", 1)]);
        let notes = [note(1, 2, Action::Append { append: asked, told: refused }), note(3, 4, read(vec![]))];
        assert_eq!(rules(&notes), ["refused for a reason"]);
    }
}
