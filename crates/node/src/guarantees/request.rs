//! What holds of requests, and of messages without an answer.

use super::{
    About::{Atomicity, Delivery, Durability, Load},
    Guarantee,
    Surface::{Cli, Http, Library},
    in_memory, on_both, on_postgres, row, test,
};

const MACHINE: &str = "crates/communication/src/request/machine/tests.rs";
const WHATEVER: &str = "crates/communication/src/request/machine/tests/whatever_happens.rs";
const ROOM: &str = "crates/communication/src/request/tests.rs";
const REMOTE: &str = "crates/communication/src/request/service/remote/tests.rs";
const DURABLE: &str = "crates/communication/src/request/durable/tests.rs";
const CALLBACK: &str = "crates/communication/src/request/callback/tests.rs";
const HTTP: &str = "crates/node/tests/http/requests.rs";
const HTTP_DURABLE: &str = "crates/node/tests/http/durable_requests.rs";
const STREAM: &str = "crates/node/src/http/requests/serve/durable.rs";
const RESPONDER: &str = "crates/node/src/verbs/requests/durable/responder.rs";
const NODES: &str = "crates/node/tests/postgres/several_nodes_queues.rs";
const WORKERS: &str = "crates/node/tests/postgres/workers.rs";
const CLI: &str = "crates/cli/tests/cli/requests.rs";

pub(super) const ROWS: &[Guarantee] = &[
    in_memory(
        Delivery,
        "request",
        "one outcome by the deadline, begun at most once; what was begun and not answered is unknown, what was not was not done",
        &[
            test(WHATEVER, "every_request_has_one_outcome_and_an_honest_one_whatever_happens"),
            test(MACHINE, "at_its_deadline_a_request_that_was_begun_is_unknown_and_any_other_was_not_done"),
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
        Load,
        "request, responder elsewhere",
        "one that never lets go has its own places taken, and nobody else's",
        &[test(MACHINE, "a_responder_elsewhere_that_never_lets_go_takes_its_own_places_and_no_other_types")],
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
    in_memory(
        Delivery,
        "request, responder elsewhere",
        "an answer under its ticket reaches the caller once; what a responder that left had not begun on goes to another one",
        &[
            test(REMOTE, "an_answer_under_its_ticket_reaches_the_caller_as_it_was_sent_and_only_once"),
            test(REMOTE, "what_a_responder_that_left_had_begun_on_is_unknown_and_what_it_had_not_is_anothers"),
            test(REMOTE, "who_works_for_nobody_is_told_so_and_has_its_place_until_it_lets_go"),
        ],
    ),
    row(
        Delivery,
        "durable request",
        Library,
        "at most one answer for each id, written in the transaction that settles its message, wherever a responder dies; a late one is refused with all that was done for it",
        &[
            test(DURABLE, "wherever_a_responder_dies_a_request_has_one_answer_and_its_work_is_done_once"),
            test(DURABLE, "a_late_answer_is_refused_with_all_that_was_done_for_it"),
            test(DURABLE, "a_handler_that_gives_up_takes_back_what_it_wrote_and_a_replayed_dead_letter_is_asked_again"),
        ],
    ),
    row(
        Durability,
        "durable request",
        Library,
        "its answer is kept for as long as the queue remembers its id, however late it came, and the same id is the same request for so long",
        &[
            test(DURABLE, "the_same_id_is_the_same_request_and_another_body_is_refused"),
            test(DURABLE, "an_answer_is_kept_for_as_long_as_its_id_and_goes_with_it"),
            test(DURABLE, "an_answer_that_comes_late_is_kept_for_as_long_as_one_that_comes_at_once"),
            test(DURABLE, "answers_go_with_their_queue_and_who_waits_is_told"),
            test(DURABLE, "who_waits_is_told_that_the_last_attempt_came_to_no_end"),
            test(DURABLE, "a_fault_is_an_answer_and_a_failure_is_tried_again_until_it_is_a_dead_letter"),
        ],
    ),
    row(
        Load,
        "durable request",
        Library,
        "whoever waits for its end asks the store when something became of it, and not before",
        &[test(DURABLE, "whoever_waits_asks_the_store_when_something_became_of_the_request_and_not_before")],
    ),
    on_both(
        Delivery,
        "durable request",
        Http,
        "kept when 202 is answered; answered once, under the lease that is current; handed to another where its responder's stream ends or its time limit passes",
        &[
            test(HTTP_DURABLE, "a_durable_request_is_kept_answered_once_and_told_to_whoever_asks"),
            test(HTTP_DURABLE, "what_a_durable_responder_that_left_holds_is_anothers_and_its_late_answer_is_refused"),
            test(HTTP_DURABLE, "a_responder_keeps_a_request_beyond_its_lease_and_not_beyond_the_time_limit"),
            test(HTTP_DURABLE, "what_makes_no_sense_of_durable_requests_is_refused"),
        ],
    ),
    row(
        Delivery,
        "durable request",
        Http,
        "its responder keeps it while its stream lasts, however slowly that is read and whatever else it answers; it is told what it lost, and not what it answered",
        &[
            test(STREAM, "what_a_slow_connection_has_not_taken_yet_is_renewed_with_what_it_has"),
            test(RESPONDER, "a_responder_forgets_what_it_answered_and_renews_each_lease_in_its_own_time"),
        ],
    ),
    row(
        Delivery,
        "callback of a durable request",
        Library,
        "told after the outcome is durable, at least once under one id, wherever the process dies; parked where it is not taken; refused with the request where nobody may call",
        &[
            test(CALLBACK, "the_outcome_is_told_signed_once_the_request_is_answered_and_then_forgotten"),
            test(CALLBACK, "wherever_the_process_dies_the_outcome_is_told_and_every_repeat_is_the_same"),
            test(CALLBACK, "a_fault_a_dead_letter_and_one_that_is_discarded_are_told_as_what_they_are"),
            test(CALLBACK, "a_request_whose_last_responder_died_is_told_of_when_its_lease_has_run_out"),
            test(CALLBACK, "what_is_not_taken_is_parked_where_everybody_sees_it_and_told_when_it_is_replayed"),
            test(CALLBACK, "an_outcome_that_nobody_was_told_of_is_remembered_longer_than_ids_are"),
            test(CALLBACK, "whom_nobody_may_call_is_refused_with_the_request_and_another_callback_is_another_request"),
        ],
    ),
    on_both(
        Delivery,
        "callback of a durable request",
        Http,
        "the outcome is sent to the address that came with the request, or parked in the queue `request-callbacks`",
        &[test(HTTP_DURABLE, "whom_a_request_names_is_told_the_outcome_and_what_cannot_be_told_is_parked")],
    ),
    row(
        Durability,
        "request send --callback",
        Cli,
        "told although the node is killed before the answer and while it tells, every time under the same id",
        &[test(CLI, "who_is_to_be_told_is_told_though_the_node_is_killed_before_the_answer_and_while_it_tells")],
    ),
    on_postgres(
        Delivery,
        "durable request, several nodes",
        Http,
        "asked at one node and answered at another; who waits at either is told within a look, one each tenth of a second for all",
        &[test(
            NODES,
            "a_durable_request_is_asked_at_one_node_and_answered_at_another_and_who_waits_at_either_is_told",
        )],
    ),
    on_postgres(
        Atomicity,
        "durable request",
        Library,
        "what a handler writes, its answer and the acknowledgement are one transaction",
        &[test(WORKERS, "a_durable_requests_answer_and_the_work_for_it_are_one_transaction")],
    ),
    row(
        Durability,
        "request send, request serve",
        Cli,
        "durable requests that wait or are worked on when the node is killed are answered after it, once each",
        &[test(CLI, "durable_requests_come_to_an_end_though_their_node_is_killed_while_they_wait_and_are_worked_on")],
    ),
    row(
        Durability,
        "request type",
        Http,
        "kept over restarts; its requests are not",
        &[test(HTTP, "a_type_is_kept_over_restarts_and_its_responders_leave_with_it")],
    ),
    row(
        Delivery,
        "request",
        Http,
        "the answer as it was sent, or a problem that says whether it was done: at once where nobody is there, by the deadline otherwise",
        &[
            test(HTTP, "a_program_that_embeds_the_node_answers_what_is_asked_over_http_and_asks_who_answers_there"),
            test(HTTP, "an_answer_reaches_its_caller_as_it_was_sent_with_its_media_type"),
            test(HTTP, "a_fault_comes_with_its_code"),
            test(HTTP, "with_nobody_there_a_caller_is_told_so_at_once"),
            test(HTTP, "at_the_deadline_what_was_begun_is_unknown_and_what_waited_was_not_done"),
        ],
    ),
    row(
        Delivery,
        "request at a node that is told to stop",
        Http,
        "answered over new connections, for nine tenths of the drain timeout; unknown behind that",
        &[
            test(HTTP, "a_node_that_is_told_to_stop_takes_the_answers_to_what_its_responders_work_on"),
            test(HTTP, "a_node_that_is_told_to_stop_does_not_wait_for_ever_for_an_answer"),
        ],
    ),
    row(
        Load,
        "request",
        Http,
        "a caller that leaves cancels, and callers that wait never keep an answer out",
        &[
            test(HTTP, "a_caller_that_leaves_has_its_responder_told_and_the_place_is_free_when_it_lets_go"),
            test(HTTP, "callers_that_wait_leave_a_place_for_the_answers"),
            test(HTTP, "what_is_too_long_is_refused_and_a_request_remains_its_responders"),
        ],
    ),
    row(
        Delivery,
        "message without an answer, best effort",
        Http,
        "handed to a responder that is there, or refused; what becomes of it is counted",
        &[test(HTTP, "a_message_without_an_answer_is_handed_over_and_that_is_all")],
    ),
    row(
        Delivery,
        "request send, request serve",
        Cli,
        "a responder that is killed leaves the caller not knowing what it had begun on; what nobody had begun on was not done",
        &[test(
            CLI,
            "a_responder_that_is_killed_leaves_its_caller_not_knowing_and_who_waited_told_that_nothing_was_done",
        )],
    ),
    row(
        Delivery,
        "request send",
        Cli,
        "sent once; what nobody had begun on by its deadline was not done",
        &[
            test(CLI, "with_nobody_there_a_script_is_told_at_once"),
            test(CLI, "a_request_that_nobody_began_on_by_its_deadline_was_not_done_and_is_not_sent_again_behind_it"),
        ],
    ),
    row(
        Delivery,
        "request serve",
        Cli,
        "an answer that is too long, or that the node does not take, is a fault, and its place is free",
        &[test(CLI, "an_answer_that_cannot_be_told_is_a_fault_and_its_place_is_free")],
    ),
    row(
        Load,
        "request serve",
        Cli,
        "a command is killed with what it started, at the deadline and when its caller leaves",
        &[test(CLI, "at_the_deadline_and_when_its_caller_is_killed_a_command_is_killed_with_what_it_started")],
    ),
];
