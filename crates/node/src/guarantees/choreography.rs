//! What holds of choreographed processes.

use super::{
    About::{Atomicity, Delivery, Durability, Integrity, Order, Visibility},
    Guarantee,
    Surface::{Cli, Http, Library},
    row, test,
};

const RULES: &str = "crates/consistency/src/saga/choreography/machine/tests.rs";
const CYCLES: &str = "crates/consistency/src/saga/choreography/cycle.rs";
const TURN: &str = "crates/consistency/src/saga/choreography/turn/tests.rs";
const FOLLOWED: &str = "crates/consistency/src/saga/tests/choreography.rs";
const RESUMED: &str = "crates/consistency/src/saga/tests/choreography_resumed.rs";
const KEPT: &str = "crates/consistency/src/saga/tests/choreography_kept.rs";
const VERBS: &str = "crates/node/src/verbs/processes.rs";
const HTTP: &str = "crates/node/tests/http/processes.rs";
const CLI: &str = "crates/cli/tests/cli/processes.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Delivery,
        "an overdue event of a process",
        Library,
        "what is expected and does not come is told once, with its edge, and never while the log holds its answer",
        &[
            test(FOLLOWED, "what_is_overdue_is_told_once_with_its_edge_and_over_a_restart"),
            test(FOLLOWED, "an_answer_that_is_in_the_log_is_never_told_to_be_missing"),
            test(TURN, "nothing_is_told_to_be_overdue_while_the_log_holds_what_was_not_taken_in"),
            test(TURN, "who_comes_late_writes_nothing"),
        ],
    ),
    row(
        Durability,
        "a time within which something is expected",
        Library,
        "it runs over restarts and jumps of the wall clock; after a restart for what is left by the wall clock, and never longer than it was to",
        &[test(FOLLOWED, "times_run_over_restarts_and_jumps_of_the_wall_clock_and_never_longer_than_they_are_to")],
    ),
    row(
        Atomicity,
        "a process manager",
        Library,
        "it reacts to each event once, in the transaction that records it, wherever the log was left",
        &[
            test(FOLLOWED, "wherever_the_log_is_left_each_event_is_reacted_to_once"),
            test(FOLLOWED, "a_refused_payment_has_one_notice_sent_which_is_the_end_of_it"),
        ],
    ),
    row(
        Integrity,
        "a process manager that fails",
        Library,
        "it stops the course that it failed in, with the reason, and no other",
        &[test(FOLLOWED, "a_process_manager_that_refuses_or_panics_stops_its_course_and_no_other")],
    ),
    row(
        Order,
        "events of a process",
        Library,
        "in any order they leave nothing expected that came; what comes again or behind the end changes nothing",
        &[
            test(RULES, "events_in_any_order_leave_nothing_expected"),
            test(RULES, "an_event_that_comes_again_changes_nothing"),
            test(RULES, "what_comes_behind_the_end_is_late_and_changes_nothing"),
        ],
    ),
    row(
        Integrity,
        "reactions that lead back to themselves",
        Library,
        "declared, they are refused with their path, also over several processes; others stop the course that they go round in",
        &[
            test(CYCLES, "a_cycle_is_refused_with_its_path"),
            test(FOLLOWED, "a_cycle_over_two_processes_is_refused_and_nothing_is_declared"),
            test(FOLLOWED, "a_circle_that_is_meant_goes_round_so_often_and_is_stopped"),
        ],
    ),
    row(
        Atomicity,
        "a stopped course that goes on",
        Library,
        "what stopped it and what came since is taken in and reacted to once, with the record of who wanted it, or nothing changes; what was told is not told again",
        &[
            test(RESUMED, "a_stopped_course_goes_on_with_what_came_since_and_each_event_is_reacted_to_once"),
            test(RESUMED, "wherever_going_on_is_left_it_is_done_whole_or_not_at_all"),
            test(RESUMED, "what_is_expected_runs_on_in_a_course_that_goes_on_and_what_was_told_is_not_told_again"),
        ],
    ),
    row(
        Integrity,
        "the stream of a process",
        Http,
        "nobody but the process appends to it or closes it, whether there is such a process yet or not",
        &[
            test(HTTP, "nobody_but_the_process_writes_what_it_tells_or_closes_its_stream"),
            test(RESUMED, "a_document_takes_no_programs_place_and_nobody_else_writes_what_a_process_says"),
        ],
    ),
    row(
        Durability,
        "a stopped course",
        Library,
        "it is not forgotten before somebody has it go on, or takes its process back",
        &[test(KEPT, "a_stopped_course_waits_for_whoever_has_it_go_on_however_long_that_takes")],
    ),
    row(
        Atomicity,
        "declare a process anew, or take it back",
        Library,
        "it is done to its end wherever whoever asked leaves, and what stays declared is watched on",
        &[
            test(KEPT, "a_process_is_watched_on_wherever_whoever_declares_it_anew_leaves"),
            test(KEPT, "a_removal_that_was_begun_is_done_wherever_whoever_asked_leaves"),
        ],
    ),
    row(
        Durability,
        "a declared process",
        Http,
        "it is followed after a restart by itself, also where the store was busy then, and goes on where it was",
        &[
            test(HTTP, "a_process_is_followed_over_a_restart_and_tells_what_is_overdue_once"),
            test(VERBS, "processes_of_a_store_that_was_busy_are_followed_although_nobody_asks"),
        ],
    ),
    row(
        Integrity,
        "declare a process",
        Http,
        "what is wrong with a document is told with line and field, a circle over several processes with its way, and nothing is declared",
        &[test(HTTP, "what_cannot_be_is_refused_with_its_place_and_nothing_is_declared")],
    ),
    row(
        Visibility,
        "a process that does not go on",
        Http,
        "it shows why, in lists, metrics and as a warning of `/readyz`",
        &[test(HTTP, "a_programs_process_is_shown_and_no_document_takes_its_place")],
    ),
    row(
        Delivery,
        "an overdue event of a process",
        Cli,
        "it is told exactly once, however often the node is killed",
        &[test(CLI, "what_is_overdue_is_told_exactly_once_however_often_the_node_is_killed")],
    ),
];
