//! What consumers were told, held against the log.

use quorate_foundations::time::{Boot, Mono};

use super::{
    Appended, CUSTOMERS, SOME, Seen, Shown,
    books::{Books, Streams},
    millis,
};

/// A consumer and what it was told.
pub(super) struct Consumer {
    pub(super) name: &'static str,
    pub(super) books: Books,
}

/// Who knows the log and every consumer.
pub(super) struct Judge<'s> {
    pub(super) seen: &'s Seen,
    pub(super) published: &'s Appended,
    /// The log, as it was read in the end.
    pub(super) log: Streams,
    /// Billing, the warehouse, and who came last.
    pub(super) consumers: [Consumer; 3],
    /// Whether in the end the node had nothing left for anybody.
    pub(super) at_rest: bool,
}

impl Judge<'_> {
    /// Counts what was published, and what each consumer did.
    pub(super) fn count(&self, shown: &mut Shown) {
        let begun = &self.seen.begun;
        shown.count("PUBLISHED", begun.mono, self.published.at.iter().copied());
        for (column, Consumer { books, .. }) in ["BILLING", "WAREHOUSE", "AUDIT"].into_iter().zip(&self.consumers) {
            let effects = books.arrivals.iter().filter(|arrival| !arrival.known);
            shown.count(column, begun.mono, effects.map(|arrival| self.moment(arrival.at)));
        }
        let known = self.consumers.iter().flat_map(|one| one.books.arrivals.iter().filter(|arrival| arrival.known));
        let refused = self.consumers.iter().flat_map(|one| one.books.refused.iter().copied());
        let again = known.map(|arrival| arrival.at).chain(refused);
        shown.count("REFUSED, OR KNOWN", begun.mono, again.map(|at| self.moment(at)));
    }

    pub(super) fn figures(&self, shown: &mut Shown) {
        let [billing, warehouse, _] = &self.consumers;
        let seen = self.seen;
        shown.figure("events", self.all());
        shown.figure("appends that were sent again, as they were", self.published.again);
        let repeats = self.consumers.iter().map(|one| one.books.arrivals.len() - one.books.done()).sum::<usize>();
        shown.figure("events that came to somebody once more, and were known by their id", repeats);
        shown.figure("events that billing refused while it failed", billing.books.refused.len());
        shown.figure("events that the warehouse did meanwhile", seen.meanwhile);
        let first_behind = |books: &Books, moment: Mono| {
            let effects = books.arrivals.iter().filter(|arrival| !arrival.known).map(|arrival| self.moment(arrival.at));
            effects.filter(|at| *at > moment).min().map(|at| millis(at.saturating_since(moment))).unwrap_or_default()
        };
        shown.figure("until billing took the first event once it was well", first_behind(&billing.books, seen.well));
        let back = first_behind(&warehouse.books, seen.consumer_back);
        shown.figure("until the warehouse took the first event once it was back", back);
    }

    pub(super) fn claims(&self, shown: &mut Shown) {
        let (seen, all, [billing, warehouse, audit]) = (self.seen, self.all(), &self.consumers);
        let [before, late] = seen.unheard;
        shown.claim(
            format!("each of {all} events is in the log once, in the order of its customer, also those whose append was sent again"),
            self.published.all.is_some_and(|published| is_as_published(&self.log, published)),
        );
        shown.claim(
            format!("the producer published {before} events before anybody listened, and went on while billing failed and while the warehouse was gone"),
            before > 0 && self.published_within(seen.fails, seen.well) && self.published_within(seen.consumer_killed, seen.consumer_back),
        );
        for Consumer { name, books } in [billing, warehouse] {
            shown.claim(
                format!(
                    "{name} was told of all of them, signed; each had its effect once, and each customer's in order"
                ),
                books.effects() == self.log && books.unsigned == 0,
            );
        }
        shown.claim(
            format!("audit, which did not exist when the first {late} were published, caught up and heard all as well, in order, with each effect once"),
            late > before && audit.books.effects() == self.log,
        );
        shown.claim(
            "while billing failed its breaker opened, and the warehouse went on",
            seen.broke && !billing.books.refused.is_empty() && seen.meanwhile >= SOME,
        );
        shown.claim(
            "the warehouse was killed with an event done and not answered: that came again, and was known by its id",
            seen.held.as_ref().is_some_and(|held| warehouse.books.repeats(held) > 0),
        );
        shown.claim("in the end nobody lacks an event, and none was set aside", self.at_rest);
    }

    fn all(&self) -> usize {
        self.log.values().map(Vec::len).sum()
    }

    /// Whether events were published in this time.
    fn published_within(&self, from: Mono, until: Mono) -> bool {
        self.published.at.iter().any(|at| (from..=until).contains(at))
    }

    fn moment(&self, at: u64) -> Mono {
        self.seen.begun.mono_of(Boot::from_nanos(at))
    }
}

/// Whether the log holds so many events, each once and in the order in which they were published.
fn is_as_published(log: &Streams, published: u64) -> bool {
    let mut expected = Streams::new();
    for nth in 0..published {
        expected.entry(format!("customer-{}", nth % CUSTOMERS)).or_default().push(format!("order-{nth}"));
    }
    *log == expected
}

#[cfg(test)]
mod tests {
    use super::{Books, is_as_published};
    use crate::patterns::live::event_driven_architecture::books::{Arrival, Streams};

    fn arrival(stream: &str, event: &str, known: bool) -> Arrival {
        Arrival { stream: stream.to_owned(), event: event.to_owned(), known, at: 0 }
    }

    fn streams(all: &[(&str, &[&str])]) -> Streams {
        let owned = |events: &[&str]| events.iter().map(|event| (*event).to_owned()).collect();
        all.iter().map(|(stream, events)| ((*stream).to_owned(), owned(events))).collect()
    }

    #[test]
    fn effects_are_held_against_a_log_in_order_and_each_once() {
        let log = streams(&[("a", &["1", "2"]), ("b", &["3"])]);
        let told = |arrivals: &[(&str, &str, bool)]| {
            let arrivals = arrivals.iter().map(|(stream, event, known)| arrival(stream, event, *known)).collect();
            Books { arrivals, ..Books::default() }.effects() == log
        };
        assert!(told(&[("a", "1", false), ("b", "3", false), ("a", "1", true), ("a", "2", false)]));
        assert!(!told(&[("a", "2", false), ("b", "3", false), ("a", "1", false)]), "out of order");
        assert!(!told(&[("a", "1", false), ("a", "1", false), ("a", "2", false), ("b", "3", false)]), "done twice");
        assert!(!told(&[("a", "1", false), ("a", "2", false)]), "one is missing");
    }

    #[test]
    fn a_log_is_as_published_where_each_event_is_in_it_once() {
        let log = streams(&[("customer-0", &["order-0"]), ("customer-1", &["order-1"])]);
        assert!(is_as_published(&log, 2));
        assert!(!is_as_published(&log, 3));
        assert!(!is_as_published(&streams(&[("customer-0", &["order-0", "order-0"])]), 1));
    }
}
