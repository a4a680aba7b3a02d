//! What holds of commands and questions.

use super::{
    About::{Atomicity, Integrity, Visibility},
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
        Integrity,
        "command",
        Library,
        "a key is good for one command only, also when its answer is kept no more",
        &[
            test(TESTS, "a_key_is_good_for_one_command_only"),
            test(TESTS, "a_key_is_good_for_one_command_only_also_when_its_answer_is_kept_no_more"),
        ],
    ),
    row(
        Visibility,
        "command without events",
        Library,
        "its token stands for what it was decided on, and waits for nobody else",
        &[test(TESTS, "a_command_without_events_has_a_token_that_waits_for_nobody_else")],
    ),
    row(
        Visibility,
        "kept answer to a command",
        Library,
        "once a data subject's erasure is answered, no answer of before is kept; what was carried out is still known",
        &[
            test(TESTS, "an_erasure_forgets_kept_answers_and_no_command"),
            test(TESTS, "an_erasure_that_came_without_a_desk_is_made_up_for_when_one_opens"),
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
