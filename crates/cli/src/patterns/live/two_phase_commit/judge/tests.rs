//! The judge objects to nothing that is as it should be, and finds each thing that is not.

use quorate_runtime::Env;
use serde_json::json;

use super::*;
use crate::patterns::live::moment::Moment;

fn promise(how: How) -> Promise {
    Promise { from: 1, ended: Some((2, how)) }
}

/// Everything as it has to be: `behind` was decided when the coordinator was killed, `before` was not.
fn sound() -> Judge {
    let now = Moment::now(&Env::real());
    let books = |bank: usize| Books {
        accounts: accounts(bank),
        promises: [("behind", How::Committed), ("before", How::Aborted), ("other", How::Committed)]
            .map(|(gid, how)| (gid.to_owned(), promise(how)))
            .into(),
    };
    let strike = |gid: &str, listed: Vec<Value>| Strike {
        killed: now,
        back: now,
        well: now,
        in_doubt: [gid.to_owned()].into(),
        listed,
        missing: 0,
    };
    let listed = json!({
        "transaction": "behind", "decision": "commit", "branches": [{ "participant": "right", "held": ["ada"] }],
    });
    let seen =
        Seen { done: vec![now.mono; 36], refused: vec![now.mono; 12], locked: vec![now.mono], ..Seen::default() };
    let (decided, undecided) = (strike("behind", vec![listed]), strike("before", Vec::new()));
    Judge { books: [books(0), books(1)], seen, decided, undecided, at_rest: true }
}

/// Which claims do not hold once something is changed.
fn broken(change: impl FnOnce(&mut Judge)) -> Vec<usize> {
    let mut judge = sound();
    change(&mut judge);
    let mut shown = Shown::default();
    judge.claims(&mut shown);
    assert_eq!(shown.claims.len(), 7);
    (0..7).filter(|nth| !shown.claims[*nth].1).collect()
}

fn ends(judge: &mut Judge, bank: usize, gid: &str, how: How) {
    judge.books[bank].promises.insert(gid.to_owned(), promise(how));
}

#[test]
fn what_is_as_it_should_be_is_not_objected_to() {
    assert_eq!(broken(|_| {}), [0; 0]);
}

#[test]
fn what_was_ended_otherwise_than_decided_is_found() {
    assert_eq!(broken(|judge| ends(judge, 1, "behind", How::Aborted)), [0, 4]);
    assert_eq!(broken(|judge| ends(judge, 0, "before", How::Committed)), [3, 4]);
    assert_eq!(broken(|judge| judge.books[1].promises.retain(|gid, _| gid != "other")), [4]);
}

#[test]
fn a_kill_that_struck_nothing_proves_nothing() {
    assert_eq!(broken(|judge| judge.decided.in_doubt.clear()), [0]);
    assert_eq!(broken(|judge| judge.undecided.in_doubt.clear()), [3]);
}

#[test]
fn what_was_not_shown_or_is_still_in_doubt_is_found() {
    assert_eq!(broken(|judge| judge.decided.listed.clear()), [1]);
    assert_eq!(broken(|judge| judge.decided.listed[0]["decision"] = "none".into()), [1]);
    assert_eq!(broken(|judge| judge.at_rest = false), [1]);
}

#[test]
fn an_account_that_was_open_to_others_is_found() {
    assert_eq!(broken(|judge| judge.seen.locked.clear()), [2]);
}

#[test]
fn money_that_was_lost_doubled_or_left_aside_is_found() {
    let both = |judge: &mut Judge| {
        let account = &mut judge.books[0].accounts[0];
        (account.total, account.free) = (account.total + 1, account.free + 1);
    };
    assert_eq!(broken(both), [5, 6]);
    assert_eq!(broken(|judge| judge.books[1].accounts[2].free -= 1), [5, 6]);
    assert_eq!(broken(|judge| judge.seen.done.truncate(35)), [5]);
}
