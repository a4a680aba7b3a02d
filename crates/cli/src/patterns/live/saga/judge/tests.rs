//! The judge objects to nothing that is as it should be, and finds each thing that is not.

use std::collections::BTreeMap;

use quorate_runtime::Env;

use super::{super::order::UNDONE, *};
use crate::patterns::live::moment::Moment;

type Statuses = BTreeMap<String, String>;
type AllBooks = BTreeMap<&'static str, Books>;

/// An order whose charge was done and answered with 500.
const UNSAID: u32 = 28;

/// Everything as it has to be.
fn sound() -> (Statuses, AllBooks) {
    let statuses = (0..ORDERS).map(|nth| (id(nth), Fate::of(nth).status().to_owned())).collect();
    let mut books: AllBooks = Trade::ALL
        .into_iter()
        .map(|trade| (trade.host(), Books { balance: trade.begins_with(), calls: Vec::new() }))
        .collect();
    let mut at = 0;
    for nth in 0..ORDERS {
        let order = Order::of(nth);
        for path in Fate::of(nth).effects() {
            let trade = Trade::ALL.into_iter().find(|trade| trade.change(path, &order).is_ok()).unwrap();
            let came: &[Came] = match (nth, *path) {
                (STRUCK, "/reservations") => &[Came::Did, Came::Known],
                (UNSAID, "/charges") => &[Came::Unsaid, Came::Known],
                _ => &[Came::Did],
            };
            let books = books.get_mut(trade.host()).unwrap();
            books.balance += trade.change(path, &order).unwrap();
            for came in came {
                at += 1;
                books.calls.push(Call { order: order.id.clone(), path: (*path).to_owned(), came: *came, at });
            }
        }
    }
    (statuses, books)
}

/// Which claims do not hold once something is changed.
fn broken(change: impl FnOnce(&mut Statuses, &mut AllBooks)) -> Vec<usize> {
    let (mut statuses, mut books) = sound();
    change(&mut statuses, &mut books);
    let now = Moment::now(&Env::real());
    let seen = Seen {
        begun: now,
        held: true,
        under_way: 1,
        killed: now,
        back: now,
        bank_fails: now.mono,
        bank_is_well: now.mono,
    };
    let mut shown = Shown::default();
    Judge { statuses, books, seen: &seen }.claims(&mut shown);
    assert_eq!(shown.claims.len(), 7);
    (0..7).filter(|nth| !shown.claims[*nth].1).collect()
}

fn calls(books: &mut AllBooks, trade: Trade) -> &mut Vec<Call> {
    &mut books.get_mut(trade.host()).unwrap().calls
}

fn call<'b>(books: &'b mut AllBooks, trade: Trade, nth: u32, path: &str) -> &'b mut Call {
    calls(books, trade).iter_mut().find(|call| call.order == id(nth) && call.path == path).unwrap()
}

#[test]
fn what_is_as_it_should_be_is_not_objected_to() {
    assert_eq!(broken(|_, _| {}), [0; 0]);
}

#[test]
fn a_saga_that_did_not_end_is_found() {
    assert_eq!(broken(|statuses, _| drop(statuses.insert(id(0), "stuck".to_owned()))), [0]);
}

#[test]
fn calls_that_were_not_repeated_are_found() {
    assert_eq!(broken(|_, books| calls(books, Trade::Stock).retain(|call| call.came != Came::Known)), [1]);
    assert_eq!(broken(|_, books| calls(books, Trade::Bank).retain(|call| call.came != Came::Known)), [2]);
}

#[test]
fn what_was_done_twice_or_not_undone_is_found() {
    let twice = |_: &mut Statuses, books: &mut AllBooks| {
        let call = call(books, Trade::Bank, UNSAID, "/charges").clone();
        calls(books, Trade::Bank).push(call);
        books.get_mut("bank").unwrap().balance += Order::of(UNSAID).cents;
    };
    assert_eq!(broken(twice), [3, 4, 6]);
    let kept = |_: &mut Statuses, books: &mut AllBooks| {
        call(books, Trade::Bank, UNDONE, "/refunds").came = Came::Lost;
        books.get_mut("bank").unwrap().balance += Order::of(UNDONE).cents;
    };
    assert_eq!(broken(kept), [3, 4, 6]);
    let untold = |_: &mut Statuses, books: &mut AllBooks| {
        call(books, Trade::Mails, UNDONE, "/cancelled").came = Came::Nothing;
    };
    assert_eq!(broken(untold), [3, 4, 5]);
}

#[test]
fn what_was_undone_in_the_wrong_order_is_found() {
    let swapped = |_: &mut Statuses, books: &mut AllBooks| {
        let refund = call(books, Trade::Bank, UNDONE, "/refunds").at;
        let release = std::mem::replace(&mut call(books, Trade::Stock, UNDONE, "/releases").at, refund);
        call(books, Trade::Bank, UNDONE, "/refunds").at = release;
    };
    assert_eq!(broken(swapped), [4]);
}

#[test]
fn a_sum_that_is_not_right_is_found() {
    assert_eq!(broken(|_, books| books.get_mut("stock").unwrap().balance -= 1), [6]);
}
