//! What holds of requests, and of messages without an answer.

use super::{
    About::{Atomicity, Delivery, Load},
    Guarantee,
    Surface::Library,
    in_memory, row, test,
};

const MACHINE: &str = "crates/communication/src/request/machine/tests.rs";
const ROOM: &str = "crates/communication/src/request/tests.rs";

pub(super) const ROWS: &[Guarantee] = &[
    in_memory(
        Delivery,
        "request",
        "one outcome by the deadline, handed out at most once; what was handed out and not answered is unknown, what was not was not done",
        &[
            test(MACHINE, "every_request_has_one_outcome_and_an_honest_one_whatever_happens"),
            test(MACHINE, "at_its_deadline_a_handed_out_request_is_unknown_and_one_that_waited_was_not_done"),
            test(ROOM, "a_responder_that_leaves_drops_its_handlers_and_leaves_nobody"),
            test(ROOM, "a_handler_that_panics_leaves_its_caller_not_knowing_and_the_responder_at_work"),
        ],
    ),
    in_memory(
        Delivery,
        "request that nobody serves",
        "fails at once, not at its deadline",
        &[
            test(MACHINE, "with_nobody_there_a_request_fails_at_once"),
            test(MACHINE, "when_the_last_responder_leaves_its_work_is_unknown_and_what_waited_has_nobody"),
        ],
    ),
    in_memory(
        Load,
        "request",
        "a handler is dropped at the deadline and when its caller leaves; a chain of requests spends one budget",
        &[
            test(ROOM, "at_the_deadline_the_handler_is_dropped_and_its_caller_is_told_that_it_is_not_known"),
            test(ROOM, "a_caller_that_leaves_has_its_handler_dropped_and_its_place_given_to_the_next"),
            test(ROOM, "three_hops_spend_one_budget"),
        ],
    ),
    in_memory(
        Load,
        "request",
        "late answers are counted and thrown away, and no more is held than there is memory for",
        &[
            test(MACHINE, "a_late_answer_is_counted_and_frees_the_place"),
            test(MACHINE, "a_place_is_taken_until_what_was_stopped_has_let_go"),
            test(MACHINE, "no_more_is_held_than_there_is_memory_for"),
        ],
    ),
    in_memory(
        Delivery,
        "message without an answer, best effort",
        "handed to a responder that is there, or lost and counted",
        &[
            test(MACHINE, "a_message_without_an_answer_is_handed_over_at_once_and_lost_with_its_responder"),
            test(ROOM, "a_message_of_best_effort_is_done_or_counted_as_lost"),
        ],
    ),
    row(
        Atomicity,
        "message without an answer, after commit",
        Library,
        "there once its transaction has committed, and never if it rolls back; the same id is the same message",
        &[test(ROOM, "a_message_after_commit_is_there_with_its_transaction_and_only_then")],
    ),
];
