//! What must hold, by the books of both banks and by what customers were told.

use std::{collections::BTreeSet, time::Duration};

use quorate_foundations::time::Boot;
use serde_json::Value;

use super::{
    Shown, Span, Strike, Timeline,
    bank::{Account, Books, How, Promise},
    customers::Seen,
    millis, quantile,
    transfer::{BANKS, BEGINS_WITH, EACH, OWNERS, ends_with, is_too_much},
};

#[cfg(test)]
mod tests;

/// Everything that is known in the end.
pub(super) struct Judge {
    /// Of the left and the right bank.
    pub(super) books: [Books; 2],
    pub(super) seen: Seen,
    /// The kill behind a decision, and that before one.
    pub(super) decided: Strike,
    pub(super) undecided: Strike,
    /// Whether nothing was in doubt any more, at the banks and by the node.
    pub(super) at_rest: bool,
}

impl Judge {
    pub(super) fn figures(&self, shown: &mut Shown) {
        let Self { seen, decided, undecided, .. } = self;
        shown.figure("transfers done", seen.done.len());
        shown.figure("transfers of more than there was, refused", seen.refused.len());
        shown.figure("transfers that were locked out by a promise", seen.locked.len());
        shown.figure("orders that nobody answered", seen.unanswered.len());
        shown.figure("transfers that were found decided behind that", seen.found_decided);
        shown.figure("in doubt at the kill behind the decision", decided.in_doubt.len());
        shown.figure("cents that were at neither bank then", decided.missing);
        shown.figure(
            "as `quorate txn list` showed the first of them",
            decided.listed.first().map(row).unwrap_or_default(),
        );
        shown.figure("promised and undecided at the other kill", undecided.in_doubt.len());
        let struck: BTreeSet<&String> = decided.in_doubt.iter().chain(&undecided.in_doubt).collect();
        let held = |is_struck: bool| -> Vec<Duration> {
            let all = self.books.iter().flat_map(|books| &books.promises);
            let those = all.filter(|(gid, _)| struck.contains(gid) == is_struck);
            let mut spans: Vec<Duration> = those.filter_map(|(_, promise)| promise.held()).collect();
            spans.sort_unstable();
            spans
        };
        shown.figure("a promise locked its account for, median", millis(quantile(&held(false), 0.5)));
        shown.figure("one in doubt, longest", millis(quantile(&held(true), 1.0)));
    }

    pub(super) fn claims(&self, shown: &mut Shown) {
        let Self { seen, decided, undecided, .. } = self;
        let ended = |strike: &Strike, how| strike.in_doubt.iter().all(|gid| self.both(gid) == [Some(how); 2]);
        shown.claim(
            "what was decided when the coordinator was killed, and done at one bank alone, was done at the other when it was back",
            !decided.in_doubt.is_empty() && ended(decided, How::Committed),
        );
        let listed = |gid: &String| {
            decided.listed.iter().any(|one| {
                let at_right = |branch: &Value| branch["participant"] == BANKS[1] && branch["held"][0].is_string();
                let branches = one["branches"].as_array();
                one["transaction"] == **gid
                    && one["decision"] == "commit"
                    && branches.is_some_and(|all| all.iter().any(at_right))
            })
        };
        shown.claim(
            "until then the node listed it as in doubt, with its decision and what it held; in the end it lists nothing",
            decided.in_doubt.iter().all(listed) && self.at_rest,
        );
        shown
            .claim("what was in doubt was locked: others who wanted the account were refused", !seen.locked.is_empty());
        shown.claim(
            "what both had promised when the coordinator was killed before it decided, neither did",
            !undecided.in_doubt.is_empty() && ended(undecided, How::Aborted),
        );
        shown.claim(
            "nothing is half done: what one bank did or took back, the other did or took back",
            self.gids().into_iter().all(|gid| {
                let [left, right] = self.both(gid);
                left.zip(right).is_none_or(|(left, right)| left == right)
                    && (left, right) != (Some(How::Committed), None)
                    && (left, right) != (None, Some(How::Committed))
            }),
        );
        let refused = (0..EACH).filter(|nth| is_too_much(*nth)).count() * OWNERS.len();
        let done = EACH as usize * OWNERS.len() - refused;
        let as_planned = (0..2).all(|bank| self.books[bank].accounts == accounts(bank));
        shown.claim(
            format!("each of {done} transfers was done once, however often it was ordered, and {refused} of more than there was never"),
            seen.done.len() == done && seen.refused.len() == refused && as_planned,
        );
        let all = 2 * BEGINS_WITH * i64::try_from(OWNERS.len()).unwrap_or(0);
        shown.claim(
            format!("{all} cents are at both banks together, as at first, and nothing is set aside"),
            self.books.iter().map(Books::total).sum::<i64>() == all
                && self.books.iter().flat_map(|books| &books.accounts).all(|account| account.free == account.total),
        );
    }

    /// How one of what each kill struck went.
    pub(super) fn timelines(&self) -> Vec<Timeline> {
        let one = |strike: &Strike, what: &str| Some(self.timeline(strike, strike.in_doubt.first()?, what));
        let behind = one(&self.decided, "decided when its coordinator was killed");
        behind.into_iter().chain(one(&self.undecided, "promised when its coordinator was killed")).collect()
    }

    fn timeline(&self, strike: &Strike, gid: &str, what: &str) -> Timeline {
        let promise = |bank: usize| self.books[bank].promises.get(gid).copied();
        let begun = [0, 1].into_iter().filter_map(promise).map(|promise: Promise| promise.from()).min();
        let since = |moment: Boot| moment.saturating_since(begun.unwrap_or(strike.killed.boot));
        let mut spans: Vec<Span> = Vec::new();
        for (bank, name) in BANKS.into_iter().enumerate() {
            let Some(promise) = promise(bank) else { continue };
            let (from, until) = (since(promise.from()), since(promise.until().unwrap_or(promise.from())));
            let note = match promise.how() {
                Some(How::Committed) => "did it",
                Some(How::Aborted) => "took it back",
                None => "does not know yet",
            };
            spans.push(Span { what: format!("{name} bank holds its promise"), from, until, note: note.to_owned() });
        }
        let [from, until] = [strike.killed, strike.back].map(|moment| since(moment.boot));
        let note = "killed, and started again".to_owned();
        spans.push(Span { what: "the coordinator is down".to_owned(), from, until, note });
        Timeline { title: format!("{gid}, {what}"), spans }
    }

    fn gids(&self) -> BTreeSet<&String> {
        self.books.iter().flat_map(|books| books.promises.keys()).collect()
    }

    fn both(&self, gid: &str) -> [Option<How>; 2] {
        [0, 1].map(|bank| self.books[bank].how(gid))
    }
}

/// A bank's accounts in the end.
fn accounts(bank: usize) -> Vec<Account> {
    let of = |(owner, name): (usize, &str)| {
        let total = ends_with(owner, bank);
        Account { owner: name.to_owned(), total, free: total }
    };
    OWNERS.into_iter().enumerate().map(of).collect()
}

/// What is in doubt, in one line.
fn row(one: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let branches = one["branches"].as_array().map(Vec::as_slice).unwrap_or_default();
    let branch = |branch: &Value| {
        let [participant, standing, held] = [&branch["participant"], &branch["standing"], &branch["held"][0]].map(text);
        format!("{participant} is {standing}, holds {held}")
    };
    let branches: Vec<String> = branches.iter().map(branch).collect();
    format!("{}, decision {}: {}", text(&one["transaction"]), text(&one["decision"]), branches.join("; "))
}
