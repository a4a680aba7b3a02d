//! What holds of commands and questions.

use super::{
    About::{Atomicity, Visibility},
    Guarantee,
    Surface::Library,
    row, test,
};

const TESTS: &str = "crates/consistency/src/cqrs/tests.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Atomicity,
        "command",
        Library,
        "a command, its events and the answer to its key commit together",
        &[
            test(TESTS, "a_command_is_carried_out_once_however_often_it_is_sent"),
            test(TESTS, "a_rejection_is_an_answer_and_stays_the_answer"),
        ],
    ),
    row(
        Visibility,
        "question",
        Library,
        "it sees the caller's own command, or says how far its view is",
        &[test(TESTS, "a_question_sees_the_callers_own_command_or_says_how_far_it_is")],
    ),
];
