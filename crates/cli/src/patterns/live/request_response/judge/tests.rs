use quorate_foundations::time::Mono;

use super::{Books, Ended, Heard, Judge, Seen, is_told_from_failures};
use crate::patterns::live::request_response::{
    charge::{Charge, Course},
    till::Made,
};

const SEEN: Seen = Seen {
    begun: Mono::ZERO,
    killed: Mono::ZERO,
    back: Mono::ZERO,
    meanwhile: 0,
    late: None,
    told_to_stop: Mono::ZERO,
    ended: Mono::ZERO,
    has_ended: true,
};

fn ended(heard: Heard) -> Ended {
    Ended { charge: Charge::new("one", Course::Plain), began: Mono::ZERO, at: Mono::ZERO, heard }
}

/// Whether it is honest that a caller heard this of a charge that was made so many times.
fn is_honest(heard: Heard, times: usize) -> bool {
    let made = Made { at: Mono::ZERO, responder: 0, charge: Charge::new("one", Course::Plain) };
    let books = Books { made: vec![made; times], ..Books::default() };
    Judge { seen: &SEEN, ended: vec![ended(heard)], books }.is_honest()
}

#[test]
fn what_a_caller_heard_is_held_against_how_often_it_was_done() {
    let honest = |heard: &Heard| [0, 1, 2].map(|times| is_honest(heard.clone(), times));
    assert_eq!(honest(&Heard::Answer), [false, true, false]);
    assert_eq!(honest(&Heard::Fault("too-dear".to_owned())), [true, false, false]);
    assert_eq!(honest(&Heard::NotDone("no-responder".to_owned())), [true, false, false]);
    assert_eq!(honest(&Heard::Unknown("responder-left".to_owned())), [true, true, false]);
    assert_eq!(honest(&Heard::Strange("nothing".to_owned())), [false; 3]);
}

#[test]
fn an_answer_that_the_node_took_has_to_be_heard() {
    let mut judge =
        Judge { seen: &SEEN, ended: vec![ended(Heard::Unknown("deadline".to_owned()))], books: Books::default() };
    judge.books.notes.insert("one".to_owned(), vec![(Mono::ZERO, "late".to_owned())]);
    assert!(judge.is_honest());
    judge.books.notes.insert("one".to_owned(), vec![(Mono::ZERO, "taken".to_owned())]);
    assert!(!judge.is_honest());
}

#[test]
fn a_fault_is_the_applications_own_and_of_what_its_rule_forbids() {
    let fault = |code: &str| Heard::Fault(code.to_owned());
    assert!(!is_told_from_failures(&ended(fault("too-dear"))));
    let dear = |heard| Ended { charge: Charge::too_dear("one".to_owned()), ..ended(heard) };
    assert!(is_told_from_failures(&dear(fault("too-dear"))));
    assert!(!is_told_from_failures(&dear(fault("exit-1"))));
    assert!(!is_told_from_failures(&dear(Heard::Answer)));
    assert!(is_told_from_failures(&dear(Heard::Unknown("responder-left".to_owned()))));
}
