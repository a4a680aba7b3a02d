//! What must hold, by the books of the services and by what the node says.

use std::collections::BTreeMap;

use quorate_foundations::time::Boot;

use super::{
    Seen, Shown,
    books::{Books, Call, Came},
    order::{Fate, ORDERS, Order, STRUCK, id, those},
    shop::{STOCK, Trade},
};

#[cfg(test)]
mod tests;

/// Everything that is known in the end.
pub(super) struct Judge<'s> {
    /// How each saga ended.
    pub(super) statuses: BTreeMap<String, String>,
    /// The books of each service.
    pub(super) books: BTreeMap<&'static str, Books>,
    pub(super) seen: &'s Seen,
}

impl Judge<'_> {
    /// Counts calls over time.
    pub(super) fn count(&self, shown: &mut Shown) {
        let begun = self.seen.begun;
        let moment = |call: &Call| begun.mono_of(Boot::from_nanos(call.at));
        let those = |is: fn(Came) -> bool| self.calls().filter(move |call| is(call.came)).map(moment);
        shown.count("TOOK EFFECT", begun.mono, those(Came::is_effect));
        shown.count("KNOWN, REFUSED, FAILED", begun.mono, those(|came| !came.is_effect()));
    }

    pub(super) fn figures(&self, shown: &mut Shown) {
        let count = |came| self.books.values().map(|books| books.count(came)).sum::<usize>();
        shown.figure("calls that the bank answered with 500", count(Came::Lost) + count(Came::Unsaid));
        shown.figure("of these done nevertheless", count(Came::Unsaid));
        shown.figure("calls that came again and were known by their key", count(Came::Known));
        shown.figure("calls that made up for what never came, and did nothing", count(Came::Nothing));
        shown.figure("mails: orders received, orders cancelled", {
            let mails = |path| self.effects(path).count();
            format!("{}, {}", mails("/received"), mails("/cancelled"))
        });
    }

    pub(super) fn claims(&self, shown: &mut Shown) {
        let completed = those(Fate::Completed).count();
        let undone = ORDERS as usize - completed;
        let ended = (0..ORDERS).all(|nth| self.statuses.get(&id(nth)).is_some_and(|one| one == Fate::of(nth).status()));
        shown.claim(
            format!("each of {ORDERS} sagas ended as it had to: {completed} done, {undone} undone"),
            ended && self.statuses.len() == ORDERS as usize,
        );
        let struck: Vec<Came> =
            self.of("/reservations").filter(|call| call.order == id(STRUCK)).map(|call| call.came).collect();
        shown.claim(
            "the node was killed when a piece was taken and it had not heard so; back again it asked once more, and was known by its key",
            self.seen.held && struck.first() == Some(&Came::Did) && struck[1..].contains(&Came::Known),
        );
        shown.claim(
            "what the bank did and answered with 500 was asked for again, and known by its key",
            self.bank_was_asked_again(),
        );
        shown.claim(
            "each step took effect once per key at the services, and nothing did that should not have",
            (0..ORDERS).all(|nth| self.took_effect_once(nth)),
        );
        shown.claim(
            format!("what was done for the {undone} orders was undone once, and in reverse order"),
            (0..ORDERS).all(|nth| self.course(nth).eq(Fate::of(nth).effects().iter().copied())),
        );
        let mut cancelled = [Fate::TooDear, Fate::NoAddress].into_iter().flat_map(those);
        let noticed = cancelled.all(|nth| self.effects("/cancelled").any(|call| call.order == id(nth)));
        shown.claim(
            format!("no mail was taken back: {ORDERS} went out, and {undone} more say that the order was cancelled"),
            noticed
                && self.effects("/received").count() == ORDERS as usize
                && self.effects("/cancelled").count() == undone,
        );
        let cents: i64 = those(Fate::Completed).map(|nth| Order::of(nth).cents).sum();
        let balance = |trade: Trade| self.books[trade.host()].balance;
        let sums = [Trade::Stock, Trade::Bank, Trade::Parcels].map(balance);
        let parcels = i64::try_from(completed).unwrap_or(i64::MAX);
        shown.claim(
            format!("the sums agree: {parcels} parcels, as many pieces gone from the stock, and {cents} cents for them in the bank"),
            sums == [STOCK - parcels, cents, parcels],
        );
    }

    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.books.values().flat_map(|books| &books.calls)
    }

    fn of<'s>(&'s self, path: &'s str) -> impl Iterator<Item = &'s Call> {
        self.calls().filter(move |call| call.path == path)
    }

    fn effects<'s>(&'s self, path: &'s str) -> impl Iterator<Item = &'s Call> {
        self.of(path).filter(|call| call.came.is_effect())
    }

    /// What took effect for an order, one after the other.
    fn course(&self, nth: u32) -> impl Iterator<Item = &str> {
        let order = id(nth);
        let mut effects: Vec<&Call> =
            self.calls().filter(|call| call.order == order && call.came.is_effect()).collect();
        effects.sort_by_key(|call| call.at);
        effects.into_iter().map(|call| &*call.path)
    }

    fn took_effect_once(&self, nth: u32) -> bool {
        let (mut had, mut wanted): (Vec<&str>, _) = (self.course(nth).collect(), Fate::of(nth).effects().to_vec());
        had.sort_unstable();
        wanted.sort_unstable();
        had == wanted
    }

    fn bank_was_asked_again(&self) -> bool {
        let calls = &self.books[Trade::Bank.host()].calls;
        let unsaid: Vec<&Call> = calls.iter().filter(|call| call.came == Came::Unsaid).collect();
        let known = |first: &Call| {
            calls.iter().any(|call| call.came == Came::Known && call.order == first.order && call.path == first.path)
        };
        !unsaid.is_empty() && unsaid.into_iter().all(known)
    }
}
