//! What callers heard, held against what responders did.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_foundations::time::Mono;

use super::{
    Books, EARLY, HELD, LONG, MEANWHILE, SHORT, SLOW, STOPPED, STRUCK, Seen, Shown, Span, Timeline, WAITING,
    caller::{Ended, Heard},
    charge::TOO_DEAR,
    millis,
};

/// Who knows both sides.
pub(super) struct Judge<'s> {
    pub(super) seen: &'s Seen,
    pub(super) ended: Vec<Ended>,
    pub(super) books: Books,
}

impl Judge<'_> {
    /// Counts what callers heard.
    pub(super) fn count(&self, shown: &mut Shown) {
        let of = |is: fn(&Heard) -> bool| self.ended.iter().filter(move |one| is(&one.heard)).map(|one| one.at);
        shown.count("ANSWERED", self.seen.begun, of(|heard| *heard == Heard::Answer));
        shown.count("FAULT", self.seen.begun, of(|heard| matches!(heard, Heard::Fault(_))));
        shown.count("NOT DONE", self.seen.begun, of(|heard| matches!(heard, Heard::NotDone(_))));
        shown.count("UNKNOWN", self.seen.begun, of(|heard| matches!(heard, Heard::Unknown(_))));
    }

    pub(super) fn figures(&self, shown: &mut Shown) {
        let unknown: Vec<_> = self.ended.iter().filter(|one| matches!(one.heard, Heard::Unknown(_))).collect();
        let done = unknown.iter().filter(|one| self.books.times(&one.charge.id) > 0).count();
        shown.figure("requests", self.ended.len());
        shown.figure("charges that were made", self.books.made.len());
        shown.figure("requests whose outcome is unknown", format!("{}, of which {done} were done", unknown.len()));
        let took = |id| self.one(id).map(|one| millis(one.at.saturating_since(one.began))).unwrap_or_default();
        shown.figure("until the first caller heard that nobody is there", took(EARLY));
        let heard = self.one(STRUCK).map(|one| millis(one.at.saturating_since(self.seen.killed)));
        shown.figure("from the kill of a responder until its caller heard of it", heard.unwrap_or_default());
        let span = self.seen.ended.saturating_since(self.seen.told_to_stop);
        shown.figure("from the node's being told to stop until it had ended", millis(span));
    }

    pub(super) fn claims(&self, shown: &mut Shown) {
        let heard = |id| self.one(id).map(|one| &one.heard);
        let (not_done, unknown) =
            (|why: &str| Heard::NotDone(why.to_owned()), |why: &str| Heard::Unknown(why.to_owned()));
        shown.claim(
            "with no responder there, a caller was told so at once, and not at its deadline",
            heard(EARLY) == Some(&not_done("no-responder")) && self.took(EARLY) < Some(LONG),
        );
        shown.claim(
            "the caller whose responder was killed heard that the outcome is unknown; its charge was made, once, and by nobody again",
            heard(STRUCK) == Some(&unknown("responder-left"))
                && self.books.times(STRUCK) == 1
                && self.books.find(STRUCK).is_some_and(|made| made.at <= self.seen.killed),
        );
        shown.claim("while it was gone, the other one answered", self.seen.meanwhile >= MEANWHILE);
        shown.claim(
            "at the deadline the caller of the slow responder heard that the outcome is unknown, and the responder was told to stop; its answer came late, was counted, and was given to nobody",
            heard(SLOW) == Some(&unknown("deadline"))
                && self.took(SLOW) >= Some(SHORT)
                && self.books.noted(SLOW, STOPPED).is_some()
                && self.books.noted(SLOW, "late").is_some()
                && self.seen.late == Some(1),
        );
        let faults = self.ended.iter().filter(|one| matches!(one.heard, Heard::Fault(_))).count();
        shown.claim(
            format!("each of {faults} faults is the application's own no, and no failure on the way was taken for one"),
            faults > 0 && self.ended.iter().all(is_told_from_failures),
        );
        shown.claim(
            format!("each of {} requests had one outcome, and an honest one: what was answered was done once, a fault or what nobody had begun on never, and what is unknown at most once", self.ended.len()),
            self.is_honest(),
        );
        let all = |what: &str, many: usize, holds: &dyn Fn(&Ended) -> bool| {
            let those: Vec<_> = self.ended.iter().filter(|one| one.charge.id.starts_with(what)).collect();
            those.len() == many && those.into_iter().all(holds)
        };
        shown.claim(
            format!("told to stop, the node took the answers to {HELD} requests that were worked on, said of {WAITING} that waited that nobody had begun on them, and ended by itself"),
            all("held-", HELD, &|one| one.heard == Heard::Answer && one.at > self.seen.told_to_stop)
                && all("waiting-", WAITING, &|one| one.heard == not_done("shutting-down"))
                && self.seen.has_ended,
        );
    }

    /// How the request went whose responder was killed.
    pub(super) fn struck(&self) -> Option<Timeline> {
        self.timeline(STRUCK, "its responder was killed with the charge made", |made| {
            (made, self.seen.killed, "made, and killed before it could answer")
        })
    }

    /// How the one went whose responder was too slow.
    pub(super) fn slow(&self) -> Option<Timeline> {
        let late = self.books.noted(SLOW, "late")?;
        self.timeline(SLOW, "its responder was too slow", |made| (made, late, "told to stop; its answer was late"))
    }

    fn timeline(&self, id: &str, what: &str, works: impl Fn(Mono) -> (Mono, Mono, &'static str)) -> Option<Timeline> {
        let one = self.one(id)?;
        let (from, until, note) = works(self.books.find(id)?.at);
        let span = |what: &str, from: Mono, until: Mono, note: String| {
            let [from, until] = [from, until].map(|moment| moment.saturating_since(one.began));
            Span { what: what.to_owned(), from, until, note }
        };
        let heard = match &one.heard {
            Heard::Unknown(why) => format!("heard `request-unknown`: {why}"),
            other => format!("heard {other:?}"),
        };
        let spans = vec![
            span("the caller waits", one.began, one.at, heard),
            span("the responder works", from, until, note.to_owned()),
        ];
        Some(Timeline { title: format!("request {id}, {what}"), spans })
    }

    /// Whether what callers heard is what was done.
    fn is_honest(&self) -> bool {
        let outcomes: BTreeMap<&str, &Heard> =
            self.ended.iter().map(|one| (one.charge.id.as_str(), &one.heard)).collect();
        let allowed = |(id, heard): (&&str, &&Heard)| match (heard, self.books.times(id)) {
            (Heard::Answer, times) => times == 1,
            (Heard::Fault(_) | Heard::NotDone(_), times) => times == 0,
            (Heard::Unknown(_), times) => times <= 1,
            (Heard::Strange(_), _) => false,
        };
        // An answer that the node took for its caller is one that this caller heard.
        let taken = self.books.notes.keys().filter(|id| self.books.noted(id, "taken").is_some());
        let is_heard = |id: &String| matches!(outcomes.get(id.as_str()), Some(Heard::Answer | Heard::Fault(_)));
        let made: BTreeSet<&str> = self.books.made.iter().map(|made| made.charge.id.as_str()).collect();
        outcomes.len() == self.ended.len()
            && outcomes.iter().all(allowed)
            && taken.into_iter().all(is_heard)
            && made.iter().all(|id| outcomes.contains_key(id))
    }

    fn one(&self, id: &str) -> Option<&Ended> {
        self.ended.iter().find(|one| one.charge.id == id)
    }

    fn took(&self, id: &str) -> Option<Duration> {
        self.one(id).map(|one| one.at.saturating_since(one.began))
    }
}

/// Whether who asks for too much hears that from the application, unless something failed, and nobody else does.
fn is_told_from_failures(one: &Ended) -> bool {
    match &one.heard {
        Heard::Fault(code) => one.charge.is_too_dear() && code == TOO_DEAR,
        Heard::Answer => !one.charge.is_too_dear(),
        Heard::NotDone(_) | Heard::Unknown(_) => true,
        Heard::Strange(_) => false,
    }
}

#[cfg(test)]
mod tests;
